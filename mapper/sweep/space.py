"""Points of a design space: tables of columns, and how products, zips and lists of them are made.

A `Table` has one column for each name that points set; a column is a list of values and, for each point, which of them (-1: the
point does not set it). A `Space` is a product of tables, its dimensions; a point of it is a number from 0, the last dimension
fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """The values of one name, and for each point which one."""

    values: tuple[Any, ...]
    codes: Codes

    def at(self, rows: Codes) -> Column:
        return Column(self.values, self.codes[rows])

    def get(self, row: int) -> Any:
        """The value of a point; None if it does not set this name."""
        code = int(self.codes[row])
        return None if code < 0 else self.values[code]

    def numbers(self) -> NDArray[Any]:
        """The value of every point, as numbers or texts."""
        values = list(self.values)
        if any(isinstance(value, list | tuple | dict) for value in values):
            values = [str(value) for value in values]
        plain = np.array([*values, np.nan if all(isinstance(v, int | float) for v in values) else ""])
        return np.asarray(plain[self.codes])


@dataclass(frozen=True)
class Table:
    """Points as columns."""

    count: int
    columns: dict[str, Column]

    def at(self, rows: Codes) -> Table:
        return Table(len(rows), {name: column.at(rows) for name, column in self.columns.items()})

    def point(self, row: int) -> dict[str, Any]:
        """What one point sets."""
        return {name: value for name, column in self.columns.items() if (value := column.get(row)) is not None}


def single(name: str, values: tuple[Any, ...]) -> Table:
    return Table(len(values), {name: Column(values, np.arange(len(values)))})


def beside(tables: list[Table]) -> Table:
    """Tables of equal length whose names do not meet, point by point."""
    return Table(tables[0].count, {name: column for table in tables for name, column in table.columns.items()})


def one_after_another(tables: list[Table]) -> Table:
    """All points of all tables; a point sets the names of its own table only."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    columns: dict[str, Column] = {}
    for name in names:
        values: list[Any] = []
        codes: list[Codes] = []
        for table in tables:
            column = table.columns.get(name)
            if column is None:
                codes.append(np.full(table.count, -1))
                continue
            codes.append(np.where(column.codes < 0, -1, column.codes + len(values)))
            values += column.values
        columns[name] = _merged(values, np.concatenate(codes))
    return Table(sum(table.count for table in tables), columns)


def _merged(values: list[Any], codes: Codes) -> Column:
    """Equal values are one value."""
    places: dict[str, int] = {}
    new = np.array([places.setdefault(repr(value), len(places)) for value in values] + [-1])
    kept = {repr(value): value for value in reversed(values)}
    return Column(tuple(kept[key] for key in places), new[codes])


@dataclass(frozen=True)
class Space:
    """A product of tables."""

    dimensions: tuple[Table, ...]

    @property
    def count(self) -> int:
        return math.prod(table.count for table in self.dimensions)

    @cached_property
    def strides(self) -> list[int]:
        return [math.prod(table.count for table in self.dimensions[at + 1 :]) for at in range(len(self.dimensions))]

    def coordinates(self, points: Codes) -> Codes:
        """One row for each point, one column for each dimension."""
        parts = [points // stride % table.count for table, stride in zip(self.dimensions, self.strides, strict=True)]
        return np.stack(parts, axis=1) if parts else np.zeros((len(points), 0), dtype=np.int64)

    def numbers(self, coordinates: Codes) -> Codes:
        """The points at coordinates."""
        return np.asarray(coordinates @ np.array(self.strides, dtype=np.int64))

    def table(self, points: Codes) -> Table:
        where = self.coordinates(points)
        columns = {
            name: column.at(where[:, at]) for at, table in enumerate(self.dimensions) for name, column in table.columns.items()
        }
        return Table(len(points), columns)

    def latin(self, count: int, seed: int) -> Codes:
        """A Latin hypercube: along each dimension the points are spread evenly over its values."""
        random = np.random.default_rng(seed)
        sides = [
            ((random.permutation(count) + random.random(count)) / count * table.count).astype(np.int64) for table in self.dimensions
        ]
        return np.asarray(np.unique(self.numbers(np.stack(sides, axis=1))))

    def neighbours(self, points: Codes, halvings: int) -> Codes:
        """Points one step away along one dimension, or at its end; a step is the dimension halved so often, and at least 1."""
        where = self.coordinates(points)
        found = [np.zeros(0, dtype=np.int64)]
        for axis, table in enumerate(self.dimensions):
            step = max(1, table.count >> halvings)
            for moved_by in (-step, step):
                moved = where.copy()
                moved[:, axis] = np.clip(moved[:, axis] + moved_by, 0, table.count - 1)
                found.append(self.numbers(moved))
        return np.asarray(np.setdiff1d(np.concatenate(found), points))

    def finest(self, halvings: int) -> bool:
        """Whether all steps of `neighbours` are 1."""
        return all(table.count >> halvings <= 1 for table in self.dimensions)
