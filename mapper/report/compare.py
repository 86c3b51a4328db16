"""Two runs side by side: the points that both have, what changed for them, and the points that only one has.

In: the folders of two complete sweeps. Out: a `Comparison`. Points are the same if they set the same names to the same values;
labels count as well. All points are compared, also those that a page does not list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sweep.store import inputs_of
from .table import read

Rows = NDArray[np.int64]
CURVE, NAMED = 400, 40
"""Points of a curve of ratios; points of one run only that are named."""
EQUAL = 1e-9
"""Relative difference up to which figures count as equal."""


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common and how they differ."""

    first: str
    second: str
    both: int
    only: tuple[int, int]
    """Points of the first run only, and of the second only."""
    values: tuple[tuple[str, str, int], ...]
    """Values that only one run has: name, value, which run (0, 1)."""
    named: tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]
    """Some of the points of one run only, with what tells them apart."""
    changed: dict[str, int]
    """By objective: points of both whose figure differs."""
    ratios: dict[str, list[float]]
    """By objective: first / second for points of both, in order, at even distances."""
    failed: tuple[int, int]
    """Points of both that failed in the first run only, and in the second only."""
    texts: tuple[str, ...]
    """Files that both runs name and whose texts differ."""

    def as_plain(self) -> dict[str, Any]:
        return dict(vars(self))

    def __str__(self) -> str:
        parts = [f"{self.both:,} points in both"]
        parts += [f"{count:,} only in {name}" for count, name in zip(self.only, (self.first, self.second), strict=True) if count]
        parts += [f"{name} differs for {count:,}" for name, count in self.changed.items()]
        parts += [
            f"{count:,} failed only in {name}" for count, name in zip(self.failed, (self.first, self.second), strict=True) if count
        ]
        parts += [f"other texts of {', '.join(self.texts)}"] if self.texts else []
        return f"{self.first} against {self.second}: {'; '.join(parts)}"


def compare(first: Path, second: Path, objectives: tuple[str, ...]) -> Comparison:
    """Compare the results in two folders. Raises EinsmithError (E705, E707)."""
    tables = read(first), read(second)
    names = sorted({name for table in tables for name in table.column_names if name.startswith("in ")})
    keys, several = _keys(tables, names)
    shared, at, where = np.intersect1d(*keys, return_indices=True)
    alone = tuple(np.flatnonzero(~np.isin(mine, shared)) for mine in keys)
    status = [np.array(table["status"].to_pylist()) == "done" for table in tables]
    fine = status[0][at], status[1][where]
    changed, ratios = {}, {}
    for name in dict.fromkeys(name.lstrip("-") for name in objectives):
        if any(name not in table.column_names for table in tables):
            continue
        with np.errstate(all="ignore"):
            found = tables[0][name].to_numpy()[at] / tables[1][name].to_numpy()[where]
        found = np.sort(found[np.isfinite(found)])
        changed[name] = int((np.abs(found - 1) > EQUAL).sum())
        picked = np.linspace(0, len(found) - 1, min(CURVE, len(found))).astype(int)
        ratios[name] = [float(f"{value:.6g}") for value in found[picked]]
    labels = _labels(first, second)
    return Comparison(
        *labels, len(shared), (len(alone[0]), len(alone[1])), _values(tables, names), (
            _named(tables[0], alone[0], several), _named(tables[1], alone[1], several)
        ), changed, ratios, (int((~fine[0] & fine[1]).sum()), int((fine[0] & ~fine[1]).sum())), _texts(first, second),
    )  # fmt: skip


def _labels(first: Path, second: Path) -> tuple[str, str]:
    """The shortest ends of two paths that tell them apart."""
    a, b = first.resolve().parts, second.resolve().parts
    for count in range(1, max(len(a), len(b)) + 1):
        if a[-count:] != b[-count:]:
            return "/".join(a[-count:]), "/".join(b[-count:])
    return first.name, f"{second.name} (the same)"


def _plain(table: Any, name: str) -> list[str]:
    """The values of a column as texts; a number that is whole without a fraction."""
    if name not in table.column_names:
        return [""] * int(table.num_rows)
    values = table[name].to_pylist()
    return ["" if v is None else str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values]


def _keys(tables: tuple[Any, Any], names: list[str]) -> tuple[tuple[Rows, Rows], list[str]]:
    """A number for each point, the same for the same points; and the names that have several values."""
    count = tables[0].num_rows
    key: Rows = np.zeros(count + tables[1].num_rows, dtype=np.int64)
    several = []
    for name in names:
        distinct, codes = np.unique(_plain(tables[0], name) + _plain(tables[1], name), return_inverse=True)
        if len(distinct) > 1:
            several.append(name)
            key = np.unique(key * len(distinct) + codes.reshape(-1), return_inverse=True)[1].reshape(-1)
    return (key[:count], key[count:]), several


def _values(tables: tuple[Any, Any], names: list[str]) -> tuple[tuple[str, str, int], ...]:
    found = []
    for name in names:
        mine = [dict.fromkeys(_plain(table, name)) for table in tables]
        found += [(name[3:], value or "(not set)", 0) for value in mine[0] if value not in mine[1]]
        found += [(name[3:], value or "(not set)", 1) for value in mine[1] if value not in mine[0]]
    return tuple(found[:200])


def _named(table: Any, rows: Rows, names: list[str]) -> tuple[dict[str, Any], ...]:
    few = table.take(rows[:NAMED])
    columns = {name[3:]: _plain(few, name) for name in names}
    points = few["point"].to_pylist()
    return tuple({"point": point, **{name: values[at] for name, values in columns.items()}} for at, point in enumerate(points))


def _texts(first: Path, second: Path) -> tuple[str, ...]:
    mine, other = inputs_of(first), inputs_of(second)
    return tuple(
        name
        for kind in mine
        for name, (_, text) in mine[kind].items()
        if name in other.get(kind, {}) and other[kind][name][1] != text
    )
