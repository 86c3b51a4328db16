"""Bounds of bindings: the least that the arrays are kept busy, whatever Einsum runs on which, under one layout of each array.

In: the floors of a group (see `floors`). Out: for all tilings at once, cycles of the busiest array that no choice of layouts and
arrays can go below, and cycles of each step in one tile. All Einsums on an array share its layout, which is what tells a group
apart from its parts: two products that want other ranks along the sides cannot both have them.

For one layout of each array the work is shared out by a linear bound: whatever the weights of the arrays, the busiest is no less
busy than their weighted mean with each step where it weighs least. A step that alone takes longer on an array than all steps do
in some assignment is never there in the best one, so that choice does not count.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Map_
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import Cascade, Scan, Select
from .architecture import Array
from .space import Fixed
from .steps import Step
from .tape import Floats

Layout: TypeAlias = tuple[str | None, ...]
"""The rank along each side; None: one lane."""
Costs: TypeAlias = Callable[[Step, Array, Map_[str, int]], Any]
"""Cycles of a step on an array; the last: lanes along the side of each spatial rank."""
Whole: TypeAlias = Callable[[list[Floats]], Floats]
"""What all steps together take: of a table for each array, its last axis over steps."""
GRID = tuple(2.0**power for power in range(-10, 11))
"""Weights of the second of two arrays against the first."""
MAX_TOGETHER = 2**20
"""Most layouts of all arrays together, times steps, that are told apart."""
MAX_LAYOUTS = 48
"""Most layouts of all arrays together of which every tiling is looked at."""


class Bindings:
    """What the arrays may do in a group."""

    def __init__(
        self, cascade: Cascade, steps: Sequence[Step], arrays: Map_[str, Array], fixed: Fixed, barred: frozenset[str]
    ) -> None:
        """`fixed`: arrays and layouts of Einsums; `barred`: ranks that no array spreads, besides those that steps run along."""
        self.cascade, self.barred, self.fixed = cascade, barred, fixed
        self.steps = [step for step in steps if step.work]
        self.able = {
            step.name: frozenset(
                name
                for name, array in arrays.items()
                if fixed.arrays.get(step.output, name) == name
                and all(array.expand(item.operation) is not None for item in step.work)
            )
            for step in self.steps
        }
        """The arrays that each step may run on."""
        self.made = frozenset(step.output for step in steps)
        self.arrays = {name: array for name, array in arrays.items() if any(name in able for able in self.able.values())}

    def spatial(self, step: Step) -> frozenset[str]:
        """The ranks of a step that an array may spread."""
        body = step.einsum.body
        own = {body.rank} if isinstance(body, Scan | Select) else set()
        return step.ranks - self.barred - own - {self.cascade.tensor(step.output).iterates}

    def layouts(self, name: str, steps: Sequence[Step]) -> list[Layout]:
        """All layouts of an array that differ for some steps."""
        array = self.arrays[name]
        ranks = sorted(frozenset().union(*(self.spatial(step) for step in steps if name in self.able[step.name])))
        many = len(array.side)
        found: dict[Layout, None] = {}
        for layout in itertools.permutations([*ranks, *[None] * many], many):
            alike = len(set(array.side)) == 1  # which side is which does not matter
            found.setdefault(tuple(sorted(layout, key=str)) if alike else layout)
        return list(found)

    def along(self, name: str, layout: Layout, step: Step) -> dict[str, int]:
        """Lanes along the side of each rank of a step."""
        spread = self.spatial(step)
        sides = zip(layout, self.arrays[name].side, strict=True)
        return {rank: lanes for rank, lanes in sides if rank is not None and rank in spread}

    def _obeys(self, name: str, step: Step, along: Map_[str, int]) -> bool:
        """Whether lanes along the sides are those of a layout that is fixed, as far as the ranks are not barred."""
        if step.initial or step.output not in self.fixed.layouts:
            return True
        spread = self.spatial(step)
        sides = zip(self.fixed.layouts[step.output], self.arrays[name].side, strict=False)
        return along == {rank: lanes for ranks, lanes in sides for rank in ranks if rank in spread}

    def least(self, step: Step, cycles: Costs) -> Any:
        """The least of all arrays and layouts for one step."""
        found: Any = None
        for name, array in self.arrays.items():
            if name in self.able[step.name]:
                for along in {tuple(self.along(name, layout, step).items()) for layout in self.layouts(name, [step])}:
                    mine = cycles(step, array, dict(along)) if self._obeys(name, step, dict(along)) else np.inf
                    found = mine if found is None else np.minimum(found, mine)
        return 0.0 if found is None else found

    # --- the busiest array ---

    def untiled(self, costs: Costs, whole: Whole) -> float:
        """What no tiling goes below; `costs`: of whole ranks; `whole`: of all steps together, such as `busiest`."""
        listed, tables = self._tables(costs)
        return float(self._every([_undominated(table) for table in tables], whole).min(initial=math.inf)) if listed else 0.0

    def _tables(self, cycles: Costs) -> tuple[list[list[Layout]], list[Floats]]:
        """The layouts of each array, and for each of them the cycles of all steps."""
        listed = [self.layouts(name, self.steps) for name in self.arrays]
        tables = [self._table(name, layouts, cycles) for name, layouts in zip(self.arrays, listed, strict=True)]
        for place in sorted(range(len(listed)), key=lambda place: -len(listed[place])):
            if math.prod(map(len, listed)) * len(self.steps) > MAX_TOGETHER:
                listed[place], tables[place] = [()], tables[place].min(axis=0, keepdims=True)  # each step has the best layout
        return listed, tables

    def _every(self, tables: list[Floats], whole: Whole) -> Floats:
        """What all steps together take under every layout of each array."""
        many = len(tables)
        spread = [
            table.reshape([-1 if axis == place else 1 for axis in range(many)] + [len(self.steps)])
            for place, table in enumerate(tables)
        ]
        return whole(spread).reshape(-1)

    def _table(self, name: str, layouts: list[Layout], cycles: Costs) -> Floats:
        table = np.full((len(layouts), len(self.steps)), np.inf)
        ranks = sorted({rank for layout in layouts for rank in layout if rank is not None})
        number = {rank: at for at, rank in enumerate(ranks, 1)} | {None: 0}
        codes = np.array([[number[rank] for rank in layout] for layout in layouts])
        for at, step in enumerate(self.steps):
            if name in self.able[step.name]:
                spread = sorted(self.spatial(step) & set(ranks))
                own = np.zeros(len(ranks) + 1, dtype=np.int64)
                own[[number[rank] for rank in spread]] = np.arange(1, len(spread) + 1)
                alike = own[codes] @ (len(spread) + 1) ** np.arange(codes.shape[1])  # the same for the step
                _, first, where = np.unique(alike, return_index=True, return_inverse=True)
                values = []
                for row in first:
                    along = self.along(name, layouts[row], step)
                    values.append(float(cycles(step, self.arrays[name], along)) if self._obeys(name, step, along) else math.inf)
                table[:, at] = np.array(values)[where.reshape(-1)]
        return table

    def tiled(self, least: Costs, costs: Costs, whole: Whole, count: int) -> Floats:
        """For all tilings; `least`: costs of whole ranks, which no tiling goes below."""
        if not self.steps:
            return np.zeros(count)
        listed, tables = self._tables(least)
        bounds = self._every(tables, whole)
        every = itertools.product(*listed)
        known: dict[Any, Any] = {}

        def under(layouts: Sequence[Layout], rows: NDArray[np.int64]) -> Floats:
            columns = [
                [self._along_layout(name, layout, step, costs, known) for step in self.steps]
                for name, layout in zip(self.arrays, layouts, strict=True)
            ]
            if all(np.ndim(value) == 0 for each in columns for value in each):
                return whole([np.array([each]) for each in columns])
            parts = [[value[rows] if np.ndim(value) else np.full(len(rows), value) for value in each] for each in columns]
            return whole([np.stack(each, axis=1) for each in parts])

        found = np.full(count, np.inf)
        lowest = np.broadcast_to(under([()] * len(self.arrays), np.arange(count)), (count,))  # each step under its best layout
        ranking = sorted(zip(bounds.tolist(), itertools.count(), every, strict=False))
        for number, (floor, _, layouts) in enumerate(ranking):
            open_ = np.flatnonzero(found > np.maximum(floor, lowest))
            if not len(open_):
                break
            if number >= MAX_LAYOUTS:
                found = np.minimum(found, floor)
                break
            found[open_] = np.minimum(found[open_], np.maximum(under(layouts, open_), floor))
        return np.asarray(np.maximum(found, lowest))

    def _along_layout(self, name: str, layout: Layout, step: Step, cycles: Costs, known: dict[Any, Any]) -> Any:
        """Cycles of a step under a layout of an array; under the best one for it where layouts are not told apart."""
        if name not in self.able[step.name]:
            return np.inf
        if layout == ():
            return _plain(
                np.minimum.reduce(
                    np.broadcast_arrays(
                        *(self._along_layout(name, each, step, cycles, known) for each in self.layouts(name, [step]))
                    )
                )
            )
        along = self.along(name, layout, step)
        key = name, step.name, tuple(along.items())
        if key not in known:
            known[key] = _plain(cycles(step, self.arrays[name], along)) if self._obeys(name, step, along) else np.inf
        return known[key]


def _plain(value: Any) -> Any:
    """A number where all tilings have the same."""
    array = np.asarray(value)
    return float(array.reshape(-1)[0]) if array.size and (array == array.reshape(-1)[0]).all() else array


def _undominated(table: Floats) -> Floats:
    """The rows of which no other is as small everywhere."""
    table = np.unique(table, axis=0)
    smaller = (table[:, None, :] <= table[None, :, :]).all(axis=2) & ~np.eye(len(table), dtype=bool)
    return table[~smaller.any(axis=0)]


def _ratios(tables: list[Floats]) -> tuple[float, ...]:
    """Where a step weighs equally on two arrays, in the first tiling: the weights among which the best bound is."""
    if len(tables) != 2:
        return GRID
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.unique(tables[0][0] / tables[1][0])
    return tuple(float(ratio) for ratio in found[np.isfinite(found) & (found > 0)]) or (1.0,)


def cheapest(tables: list[Floats]) -> Floats:
    """The least sum over all steps, each on the array where it takes least; tables as those of `busiest`."""
    return np.asarray(functools.reduce(np.minimum, tables).sum(axis=-1))


def busiest(tables: list[Floats]) -> Floats:
    """The least that the busiest of some arrays can have to do; a table for each array, its last axis over steps (infinite where
    the array cannot do a step)."""
    weights = _ratios(tables) if tables[0].ndim == 2 else GRID
    tables = list(np.broadcast_arrays(*tables))
    best = np.argmin(np.stack(tables), axis=0)
    known = np.maximum.reduce([np.where(best == place, table, 0.0).sum(axis=-1) for place, table in enumerate(tables)])
    for table in tables:
        known = np.minimum(known, table.sum(axis=-1))  # of one assignment
    able = [table <= known[..., None] for table in tables]
    found = np.zeros(known.shape)
    for weighting in _weightings(len(tables), weights):
        parts = [
            np.where(may, table * weight if weight else 0.0, np.inf)
            for table, may, weight in zip(tables, able, weighting, strict=True)
        ]
        found = np.maximum(found, np.minimum.reduce(parts).sum(axis=-1) / sum(weighting))
    return np.minimum(found, known)


def _weightings(count: int, weights: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """Weights of arrays: each alone, and pairs of them."""
    for i in range(count):
        yield tuple(1.0 if i == j else 0.0 for j in range(count))
    for a, b in itertools.combinations(range(count), 2):
        for weight in weights:
            yield tuple(1.0 if i == a else weight if i == b else 0.0 for i in range(count))


# --- one tile ---------------------------------------------------------------------------------------------------------


def in_one_tile(step: Step, array: Array, along: Map_[str, int], lengths: Map_[str, Any]) -> Any:
    """Cycles of a step in a tile with so many positions of each rank, until its reductions have come out."""

    def points(ranks: frozenset[str]) -> Any:
        found: Any = 1.0
        for rank in sorted(ranks):
            found = found * (np.ceil(lengths[rank] / along[rank]) if rank in along else lengths[rank])
        return found

    found: Any = 0.0
    for item in step.work:
        units = array.expand(item.operation) or {}
        found = found + sum(array.units[unit].cycles * count for unit, count in units.items()) * points(item.ranks)
    if not array.folds_overlap and step.work:
        found = found + float(sum(array.side) - len(array.side)) * points(step.ranks & frozenset(along))
    hops = sum((np.minimum(lanes, lengths[rank]) for rank, lanes in along.items() if rank in step.reduced), 0.0)
    return found + hops * array.ripple_cycles_per_hop
