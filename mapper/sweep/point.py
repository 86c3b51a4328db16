"""One point of a sweep, from its folder: what was evaluated, and what came out.

In: the folder of a complete sweep, the number of a point. Out: a `Point`: its cascade, sizes, and the architecture and mapping, or
the GPU, with all its numbers set; what the simulator, the planner or the emitter take. The folder keeps the texts of all files, so
nothing else is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...einsum.cascade import Cascade
from ...einsum.diagnostics import Diagnostic, EinsmithError
from .. import architecture, batch, gpu
from .. import mapping as mappings
from ..architecture import Architecture
from ..document import reads
from ..gpu import Gpu
from ..mapping import Mapping
from .evaluate import cascade_of, number, settings_of, sides, tiled, tiles_of
from .store import inputs_of


@dataclass(frozen=True)
class Point:
    """One point, with all that it was evaluated with."""

    number: int
    sets: dict[str, Any]
    """What the sweep file sets for it, by name."""
    figures: dict[str, Any]
    """What came out."""
    cascade: Cascade
    sizes: dict[str, int]
    params: dict[str, int | float]
    arch: Architecture | None = None
    mapping: Mapping | None = None
    gpu: Gpu | None = None

    @property
    def dtype(self) -> str:
        return str(self.sets.get("dtype", "float16"))

    def __str__(self) -> str:
        lines = [f"point {self.number:,}"]
        lines += [f"  {name:24} {value}" for name, value in self.sets.items()]
        figures = {name: value for name, value in self.figures.items() if name not in ("mapping_found", "plan")}
        lines += [f"  {name:24} {f'{value:.6g}' if isinstance(value, float) else value}" for name, value in figures.items()]
        return "\n".join(lines)


def row_of(table: Any, wanted: int, folder: Path) -> dict[str, Any]:
    """The row of a point in a table of results. Raises EinsmithError (E707)."""
    import numpy as np

    rows = np.flatnonzero(table["point"].to_numpy() == wanted)
    if not len(rows):
        last = int(table["point"].to_numpy().max(initial=-1))
        raise EinsmithError(
            Diagnostic("E707", f"there is no point {wanted:,}", file=str(folder), help=f"points are numbered from 0 to {last:,}")
        )
    return dict(table.slice(int(rows[0]), 1).to_pylist()[0])


def point(folder: Path, row: dict[str, Any]) -> Point:
    """The point of a row of results. Raises EinsmithError (E705, E707, and those of what it was evaluated with)."""
    inputs = inputs_of(folder)
    sets: dict[str, Any] = {
        name[3:]: number(value) if isinstance(value, float) else value
        for name, value in row.items()
        if name.startswith("in ") and value is not None
    }
    figures = {
        name: value
        for name, value in row.items()
        if not name.startswith("in ") and name != "point" and value not in (None, "") and value == value
    }

    def text_of(kind: str, name: str) -> tuple[str, str]:
        try:
            file, text = inputs[kind][name]
        except KeyError:
            raise EinsmithError(Diagnostic("E705", f"the text of `{name}` is not kept here", file=str(folder))) from None
        return text, file

    cascade = cascade_of(*text_of("attention", sets["spec"]), sets.get("derive"))
    sizes = {name[5:]: int(value) for name, value in sets.items() if name.startswith("size.")}
    params = {name[6:]: value for name, value in sets.items() if name.startswith("param.")}
    found = Point(int(row["point"]), sets, figures, cascade, sizes, params)
    if "gpu" in sets:
        return _with(found, gpu=gpu.loads(*text_of("gpus", sets["gpu"])))
    numbers = {name[5:]: value for name, value in sets.items() if name.startswith("arch.")}
    plain = architecture.loads(*text_of("archs", sets["arch"]))
    arch = architecture.loads(*text_of("archs", sets["arch"]), settings_of(sides(plain, numbers)))
    if sets["mapping"] == "search":
        if "mapping_found" not in figures:
            raise EinsmithError(Diagnostic("E707", f"point {found.number:,} has no mapping: {row['diagnostic']}", file=str(folder)))
        return _with(found, arch=arch, mapping=mappings.loads(figures["mapping_found"]))
    mapping = mappings.settled_for(reads(*text_of("mappings", sets["mapping"])), cascade, sizes, params, arch)
    given = {name[5:]: int(value) for name, value in sets.items() if name.startswith("tile.")}
    if given:
        compiled = batch.compile(cascade, arch, mapping, params=params)
        tiles = {compiled.loop_of(name): value for name, value in tiles_of(mapping).items()}
        tiles |= {compiled.loop_of(name): value for name, value in given.items()}
        mapping = tiled(mapping, list(tiles.values()))
    return _with(found, arch=arch, mapping=mapping)


def _with(found: Point, **more: Any) -> Point:
    return Point(**{**{name: getattr(found, name) for name in found.__dataclass_fields__}, **more})
