"""One point of a sweep, from its folder: what was evaluated, and what came out.

In: the folder of a complete sweep, a row of its results. Out: a `Point`: its cascade, sizes, and the architecture and mapping, or
the GPU, with all its numbers set; what the simulator, the planner or the emitter take. The folder keeps the texts of all files, so
nothing else is needed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
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
from .evaluate import capacities, cascade_of, named_hardware, number, settings_of, sides, tiled, tiles_of
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


def rows_of(table: Any, wanted: list[int], folder: Path) -> list[dict[str, Any]]:
    """The rows of some points in a table of results. Raises EinsmithError (E707)."""
    import numpy as np

    points = table["point"].to_numpy()
    order = np.argsort(points)
    places = np.searchsorted(points, wanted, sorter=order)
    rows = order[np.minimum(places, max(len(points) - 1, 0))] if len(points) else np.zeros(0, dtype=np.int64)
    for asked, row in zip(wanted, rows.tolist() or [-1], strict=False):
        if row < 0 or points[row] != asked:
            help = f"points are numbered from 0 to {int(points.max(initial=-1)):,}"
            raise EinsmithError(Diagnostic("E707", f"there is no point {asked:,}", file=str(folder), help=help))
    return list(table.take(rows).to_pylist())


class Points:
    """The points of a folder: what several of them need is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = inputs_of(folder)
        self.document = functools.lru_cache(maxsize=64)(lambda name: reads(*self._text("mappings", name)))
        self.texts: dict[Any, str] = {}
        """Texts of mappings, by what decides them and by what they are."""
        self.plain = functools.lru_cache(maxsize=64)(lambda name: architecture.loads(*self._text("archs", name)))

    def _text(self, kind: str, name: str) -> tuple[str, str]:
        """The text of a file and its name. Raises EinsmithError (E705)."""
        try:
            file, text = self.inputs[kind][name]
        except KeyError:
            raise EinsmithError(Diagnostic("E705", f"the text of `{name}` is not kept here", file=str(self.folder))) from None
        return text, file

    def at(self, row: dict[str, Any]) -> Point:
        """The point of a row of results. Raises EinsmithError (E705, E707, and those of what it was evaluated with)."""
        found = self._bare(row)
        if "gpu" in found.sets:
            return replace(found, gpu=gpu.loads(*self._text("gpus", found.sets["gpu"])))
        arch = self._arch(found)
        return replace(found, arch=arch, mapping=self._mapping(found, arch))

    def mapping_text(self, row: dict[str, Any]) -> str:
        """The mapping of a point on an architecture as a file; faster than all of the point, for many points."""
        found = self._bare(row)
        numbers = _prefixed(found.sets, "arch.")
        if "mapping_found" in found.figures:
            return str(found.figures["mapping_found"])
        if found.sets["mapping"] == "search" or any(not isinstance(value, int | float) for value in numbers.values()):
            return self._mapping(found, self._arch(found)).as_yaml()
        hardware = named_hardware(self.document(found.sets["mapping"]), self.plain(found.sets["arch"]))
        deciding = {
            name: value
            for name, value in found.sets.items()
            if name in ("spec", "derive", "mapping", "arch") or name.startswith(("size.", "param.", "tile.", *hardware))
        }
        key = tuple(sorted(deciding.items()))
        if key not in self.texts:
            arch = capacities(self.plain(found.sets["arch"]), found.sets)
            mapping = self._mapping(found, arch)
            plain = mapping.model_dump_json()  # many points have the same mapping, and this is quicker than a text
            self.texts[key] = self.texts[plain] = self.texts.get(plain) or mapping.as_yaml()
        return self.texts[key]

    def _bare(self, row: dict[str, Any]) -> Point:
        """A point without its architecture, mapping and GPU."""
        sets = {name[3:]: _value(name[3:], value) for name, value in row.items() if name.startswith("in ") and value is not None}
        figures = {
            name: value
            for name, value in row.items()
            if not name.startswith("in ") and name != "point" and value not in (None, "") and value == value
        }
        cascade = cascade_of(*self._text("attention", sets["spec"]), sets.get("derive"))
        sizes = {name: int(value) for name, value in _prefixed(sets, "size.").items()}
        return Point(int(row["point"]), sets, figures, cascade, sizes, _prefixed(sets, "param."))

    def _arch(self, found: Point) -> Architecture:
        """The architecture of a point, with its numbers."""
        settings = settings_of(sides(self.plain(found.sets["arch"]), _prefixed(found.sets, "arch.")))
        return architecture.loads(*self._text("archs", found.sets["arch"]), settings)

    def _mapping(self, found: Point, arch: Architecture) -> Mapping:
        """The mapping of a point, with its tiles."""
        if found.sets["mapping"] == "search":
            if "mapping_found" not in found.figures:
                why = f"point {found.number:,} has no mapping: {found.figures.get('diagnostic', '')}"
                raise EinsmithError(Diagnostic("E707", why, file=str(self.folder)))
            return mappings.loads(found.figures["mapping_found"])
        mapping = mappings.settled_for(self.document(found.sets["mapping"]), found.cascade, found.sizes, found.params, arch)
        given = _prefixed(found.sets, "tile.")
        if not given:
            return mapping
        compiled = batch.compile(found.cascade, arch, mapping, params=found.params)
        tiles = {compiled.loop_of(name): value for name, value in tiles_of(mapping).items()}
        tiles |= {compiled.loop_of(name): int(value) for name, value in given.items()}
        return tiled(mapping, list(tiles.values()))


def _value(name: str, value: Any) -> Any:
    """What a point sets, from its column: one that holds lists and numbers is a column of texts."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str) and name.startswith("arch.") and value.replace(".", "", 1).isdigit():
        return number(float(value))
    return value


def _prefixed(sets: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What a point sets under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in sets.items() if name.startswith(prefix)}
