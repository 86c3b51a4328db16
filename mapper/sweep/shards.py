"""Shards: points of one structure (spec, architecture, mapping or search, GPU), as a job that any machine can do.

In: a sweep and points of it. Out: `Job`s. A job holds the texts of its files and its numbers, nothing else, so its key, the
digest of
all that and of the code, names its results wherever and whenever they were worked out: a shard is idempotent.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...einsum.diagnostics import Diagnostic, EinsmithError
from .. import architecture
from ..architecture import Architecture
from .evaluate import settings_of, sides
from .file import Sweep
from .space import Codes, Column, Table

SHARD = 4096
"""Points of a shard that is evaluated in closed form."""
SMALL = 16
"""Most points of a shard whose points are searched or planned one by one."""
SPREAD = 64
"""Least shards of a structure whose points are searched or planned, if it has so many: each point takes long enough to be handed
out alone."""
FILES = {"spec": "attention", "arch": "archs", "mapping": "mappings", "gpu": "gpus"}
"""What points name that is a file, and the folder of `examples/` that holds those that come with einsmith."""
NUMERIC = ("size", "tile", "arch")
"""Columns that may differ within a structure, if they hold numbers."""


@dataclass(frozen=True)
class Job:
    """One shard: what to evaluate."""

    key: str
    points: Codes
    """The points of the space, in the order of the rows of the result."""
    payload: dict[str, Any]
    """`spec arch mapping gpu` as (name, text) or null, `derive dtype objective search settings params`, `columns`, `count`."""
    names: dict[str, str]
    """What the points call the files of `spec`, `arch`, `mapping`, `gpu`."""


@functools.cache
def code_version() -> str:
    """A digest of the code that results depend on."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    files = sorted(file for part in ("einsum", "mapper") for file in (root / part).rglob("*") if file.suffix in (".py", ".lark"))
    for file in files:
        if "report" not in file.parts:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(payload: dict[str, Any]) -> str:
    """The key of a shard, as this code would evaluate it."""
    text = json.dumps([code_version(), payload], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def jobs(sweep: Sweep, points: Codes) -> list[Job]:
    """All shards of some points. Raises EinsmithError (E701, E503 ...) for a name or a file that is not there."""
    table = sweep.space.table(points)
    planner = _Planner(sweep)
    return [job for rows in _structures(table, planner) for job in planner.shards(table, points, rows)]


def _structures(table: Table, planner: _Planner) -> Iterator[Codes]:
    """Rows by structure, in the order of the first row of each."""
    key: Codes = np.zeros(table.count, dtype=np.int64)
    for name, column in table.columns.items():
        head = name.split(".")[0]
        if head == "label":
            continue
        vary = head in NUMERIC and planner.numeric(column)
        codes = (column.codes >= 0).astype(np.int64) if vary else column.codes + 1
        key = np.unique(key * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1].reshape(-1)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    pieces = np.split(order, starts[1:])
    yield from sorted((np.sort(piece) for piece in pieces if len(piece)), key=lambda rows: int(rows[0]))


class _Planner:
    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.texts: dict[tuple[str, str], tuple[str, str]] = {}
        self.plain: dict[tuple[str, str], Architecture] = {}
        self.fine: set[tuple[str, tuple[str, ...]]] = set()
        """Texts of architectures and settings that go together."""

    def numeric(self, column: Column) -> bool:
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column.values)

    def shards(self, table: Table, points: Codes, rows: Codes) -> Iterator[Job]:
        point = table.point(int(rows[0]))
        head = self._head(point, table, rows)
        files = {name: str(point[name]) for name in FILES if head[name] is not None}
        names = [name for name in table.columns if self._varies(name, table.columns[name])]
        names = [name for name in names if int(table.columns[name].codes[rows[0]]) >= 0]
        one_by_one = head["search"] or head["gpu"] is not None
        # points of equal sizes stand together: a mapping that depends on sizes is settled once for them
        sizes = [table.columns[name].codes[rows] for name in names if name.startswith("size.")]
        ordered = rows[np.lexsort(sizes[::-1])] if sizes else rows
        size = min(SMALL, max(1, len(rows) // SPREAD)) if one_by_one else SHARD
        for start in range(0, len(ordered), size):
            mine = ordered[start : start + size]
            columns = {name: np.asarray(table.columns[name].values)[table.columns[name].codes[mine]].tolist() for name in names}
            payload = {**head, "columns": columns, "count": len(mine)}
            yield Job(key_of(payload), points[mine], payload, files)

    def _varies(self, name: str, column: Column) -> bool:
        return name.split(".")[0] in NUMERIC and self.numeric(column)

    def _head(self, point: dict[str, Any], table: Table, rows: Codes) -> dict[str, Any]:
        """What all points of a structure share."""
        if "spec" not in point:
            raise self._lacks("a point needs a `spec`", "add `spec: softmax` or the path of a spec file to `points`")
        plan = "gpu" in point
        if not plan and not ("arch" in point and "mapping" in point):
            raise self._lacks("a point needs an `arch` and a `mapping` (or `mapping: search`), or a `gpu`")
        if plan and ("arch" in point or "mapping" in point):
            raise self._lacks("a point has a `gpu`, or an `arch` and a `mapping`, not both", "put the two kinds into a `list`")
        search = point.get("mapping") == "search"
        head: dict[str, Any] = {
            "spec": self._text("spec", point),
            "derive": point.get("derive"),
            "arch": None if plan else self._text("arch", point),
            "mapping": None if plan or search else self._text("mapping", point),
            "gpu": self._text("gpu", point) if plan else None,
            "search": search,
            "dtype": point.get("dtype", "float16"),
            "objective": point.get("objective", "latency"),
            "params": {name[6:]: value for name, value in point.items() if name.startswith("param.")},
            "settings": {
                name[5:]: value
                for name, value in point.items()
                if name.startswith("arch.") and not self._varies(name, table.columns[name])
            },
        }
        if head["objective"] not in ("latency", "energy", "edp"):
            raise self.sweep.at_value(str(head["objective"]), f"no objective `{head['objective']}`", "latency, energy or edp")
        if not plan:
            self._check_parameters(head, [name for name in point if name.startswith("arch.")], table)
        return head

    def _lacks(self, message: str, help: str = "") -> EinsmithError:
        return EinsmithError(Diagnostic("E701", message, self.sweep.document.keys.get(("points",)), help=help))

    def _text(self, what: str, point: dict[str, Any]) -> tuple[str, str]:
        kind, name = FILES[what], point[what]
        if (kind, name) not in self.texts:
            path, text = self.sweep.text_of(kind, name)
            self.texts[kind, name] = Path(path).name, text
        return self.texts[kind, name]

    def _check_parameters(self, head: dict[str, Any], names: list[str], table: Table) -> None:
        """Every parameter that the points set is one of the architecture, and may have the values that they give it."""
        name, text = head["arch"]
        if (name, text) not in self.plain:
            self.plain[name, text] = architecture.loads(text, name)
        plain = self.plain[name, text]
        for full in names:
            for value in _extremes(table.columns[full]):
                settings = settings_of(sides(plain, {full[5:]: value}))
                if (text, settings) in self.fine:
                    continue
                try:
                    architecture.loads(text, name, settings)
                except EinsmithError as error:
                    found = error.diagnostics[0]
                    message = found.message if found.code == "E503" else f"`{full}` cannot be {value}: {found.message}"
                    raise self.sweep.at_value(full, message, found.help) from None
                self.fine.add((text, settings))


def _extremes(column: Column) -> list[Any]:
    """Values that are wrong if any is: all texts; of numbers the least, the greatest and one with a fraction."""
    numbers = [value for value in column.values if isinstance(value, int | float) and not isinstance(value, bool)]
    fractions = [value for value in numbers if value != int(value)]
    chosen = [min(numbers), max(numbers), *fractions[:1]] if numbers else []
    return list(dict.fromkeys(chosen)) + [value for value in column.values if value not in numbers or isinstance(value, bool)]
