"""The tiles of a fusion group: what its loops cut, which tiles exist, and in which a mask leaves work.

In: the loops of a group, its steps, sizes. Out: quantities over tiles as numpy arrays with one axis per loop (length 1 where a loop
does not matter), so that sums over all tiles are exact, imperfect tiles and masks included.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import Cascade, Expr, free_ranks
from ..einsum.sizes import Sizes
from .architecture import Architecture
from .intervals import Bounds, NotAffine, possible
from .mapping import Group
from .masks import first_step, masks
from .steps import Step, refuse

Grid: TypeAlias = NDArray[Any]
_KNOWN_MASKS: dict[Any, Grid | None] = {}
"""The last few tables of live tiles: a search asks for the same ones again and again."""
MAX_CELLS = 2**25
"""Most tiles over which one quantity is tabulated."""


@dataclass(eq=False)
class Tiles:
    """The tiles of one fusion group."""

    cascade: Cascade
    arch: Architecture
    sizes: Sizes
    group: Group
    number: int
    """From 1."""
    steps: tuple[Step, ...]
    fixed: Map_[int, int] = field(default_factory=dict, kw_only=True)
    """Loops of which only one iteration is looked at: that of one instance."""

    @cached_property
    def trips(self) -> tuple[int, ...]:
        """Iterations of each loop."""
        return tuple(1 if axis in self.fixed else trips for axis, trips in enumerate(self.all_trips))

    @cached_property
    def all_trips(self) -> tuple[int, ...]:
        """Iterations of each loop, on all instances."""
        outer: dict[str, int] = {}
        counts = []
        for loop in self.group.loops:
            extent = outer.get(loop.rank, self.sizes.extents[loop.rank])
            counts.append(max(1, math.ceil(extent / loop.tile)))
            outer[loop.rank] = min(loop.tile, extent)
        return tuple(counts)

    @cached_property
    def cut(self) -> frozenset[str]:
        """Ranks of which one tile does not hold the whole."""
        return frozenset(loop.rank for loop, trips in zip(self.group.loops, self.all_trips, strict=True) if trips > 1)

    @cached_property
    def spread(self) -> frozenset[int]:
        """Loops whose iterations are done side by side, by instances."""
        return frozenset(axis for axis, loop in enumerate(self.group.loops) if loop.over is not None)

    def spread_to(self, place: str) -> frozenset[int]:
        """Spread loops of which each iteration has an instance of its own of a level or array."""
        order = [*self.arch.memory, *self.arch.arrays]

        def reaches(over: str) -> bool:
            if place in self.arch.arrays:
                return over == place or over in self.arch.path(place)
            return over in self.arch.memory and order.index(over) <= order.index(place)

        return frozenset(axis for axis in self.spread if reaches(str(self.group.loops[axis].over)))

    def instances(self, axes: frozenset[int]) -> Iterator[Self]:
        """The work of each instance when loops are spread: of one with the largest tiles, if no mask tells them apart."""
        open_axes = sorted(axis for axis in axes if self.trips[axis] > 1)
        if not open_axes:
            yield self
            return
        for index in itertools.product(*(range(self.trips[axis] if self.masks else 1) for axis in open_axes)):
            yield replace(self, fixed={**self.fixed, **dict(zip(open_axes, index, strict=True))})

    @property
    def tiles(self) -> int:
        """Iterations of the innermost loop in all."""
        return math.prod(self.trips)

    def span(self, rank: str, depth: int | None = None) -> tuple[Grid, Grid]:
        """(first position, number of positions) of a rank in each tile, as cut by the first `depth` loops (all if None)."""
        key = (rank, len(self.group.loops) if depth is None else depth)
        if key not in self._spans:
            self._spans[key] = self._span(*key)
        return self._spans[key]

    @cached_property
    def _spans(self) -> dict[tuple[str, int], tuple[Grid, Grid]]:
        return {}

    def _span(self, rank: str, depth: int) -> tuple[Grid, Grid]:
        axes = len(self.group.loops)
        low: Grid = np.zeros((1,) * axes, dtype=np.int64)
        high: Grid = np.full((1,) * axes, self.sizes.extents[rank], dtype=np.int64)
        for axis, loop in enumerate(self.group.loops[:depth]):
            if loop.rank == rank and self.trips[axis] > 0:
                index = np.arange(self.trips[axis], dtype=np.int64) + self.fixed.get(axis, 0)
                index = index.reshape([-1 if a == axis else 1 for a in range(axes)])
                low = low + index * loop.tile
                high = np.minimum(low + loop.tile, high)
        return low, np.maximum(high - low, 0)

    def size(self, rank: str, depth: int | None = None) -> int:
        """Greatest number of positions of a rank in one tile."""
        return int(self.span(rank, depth)[1].max())

    def ranges(self, ranks: frozenset[str], depth: int | None = None) -> dict[str, Bounds]:
        """First and last position of each rank in each tile."""
        result: dict[str, Bounds] = {}
        for rank in ranks:
            low, length = self.span(rank, depth)
            result[rank] = (low, low + length - 1)
        return result

    def total(self, factors: list[Grid], repeat: tuple[int, ...] = ()) -> float:
        """Sum over all tiles of the product of the factors; loops in `repeat` that no factor varies with count their trips."""
        result, counted, varying = 1.0, set(repeat), []
        for factor in factors:
            first = factor.reshape(-1)[0]
            if factor.size == 1 or (factor.dtype != np.bool_ and np.all(factor == first)):
                result *= float(first)
                counted |= _axes(factor)
            else:
                varying.append(factor)
        parts: list[tuple[frozenset[int], Grid]] = []
        for factor in varying:
            axes, product = _axes(factor), factor
            for part in [part for part in parts if part[0] & axes]:
                parts.remove(part)
                axes |= part[0]
                self.check_cells(math.prod(self.trips[axis] for axis in axes))
                product = product * part[1]
            parts.append((axes, product))
        seen = frozenset().union(*(axes for axes, _ in parts)) if parts else frozenset()
        result *= math.prod(self.trips[axis] for axis in counted - seen)
        for _, product in parts:
            result *= self._sum(product)
        return result

    def _sum(self, grid: Grid) -> float:
        """The sum of a grid; that of a mask, which is asked for often, is remembered."""
        if grid.dtype != np.bool_:
            return float(grid.sum(dtype=np.float64))
        if id(grid) not in self._sums:
            self._sums[id(grid)] = (grid, float(np.count_nonzero(grid)))
        return self._sums[id(grid)][1]

    @cached_property
    def _sums(self) -> dict[int, tuple[Grid, float]]:
        return {}

    def check_cells(self, cells: int) -> None:
        """Refuses to tabulate too many tiles."""
        if cells > MAX_CELLS:
            raise refuse(
                "E530",
                f"group {self.number} has {cells:,} tiles that differ; at most {MAX_CELLS:,} are tabulated",
                "use larger tiles",
            )

    def present(self, ranks: frozenset[str]) -> list[Grid]:
        """1 in the tiles that have a position of the ranks, 0 in those that a cut-short outer tile leaves empty."""
        return [(self.span(rank)[1] > 0).astype(np.int64) for rank in sorted(ranks)]

    def opening(self, rank: str) -> Grid:
        """Tiles with the first position of a rank."""
        low, length = self.span(rank)
        return np.asarray((low == 0) & (length > 0))

    def final(self, rank: str) -> Grid:
        """Tiles with the last position of a rank (with tails, not those with the last indices: these may be empty)."""
        low, length = self.span(rank)
        return np.asarray((low + length == self.sizes.extents[rank]) & (length > 0))

    # --- masks ---

    @cached_property
    def masks(self) -> tuple[tuple[Grid, frozenset[int]], ...]:
        """For each mask: which tiles are live, and the positions of the Einsums that dead tiles skip. A first step that is peeled
        is one of them."""
        found = []
        for mask in masks(self.cascade, self.cut):
            if not any(step.position in mask.skips for step in self.steps):
                continue
            live = self._live_tiles(mask.condition)
            if live is not None and not live.all():
                found.append((live, mask.skips))
        for rank in self.group.peel:
            peeled = first_step(self.cascade, rank, self.cut)
            if peeled is not None and any(step.position in peeled.skips for step in self.steps):
                found.append((np.asarray(self.span(rank)[0] > 0), peeled.skips))
        return tuple(found)

    def _live_tiles(self, condition: Expr) -> Grid | None:
        """Tiles in which a condition may hold; None if that cannot be told (then all count as live)."""
        ranks = free_ranks(condition)
        loops = tuple(
            (loop.rank, loop.tile, self.fixed.get(axis)) if loop.rank in ranks else None
            for axis, loop in enumerate(self.group.loops)
        )
        extents = tuple((rank, self.sizes.extents[rank]) for rank in sorted(ranks))
        key = (condition, loops, extents, tuple(sorted(self.sizes.scalars.items())))
        if key in _KNOWN_MASKS:
            return _KNOWN_MASKS[key]
        self.check_cells(math.prod(self.trips[axis] for axis, loop in enumerate(self.group.loops) if loop.rank in ranks))
        live: Grid | None
        try:
            live = np.asarray(possible(condition, self.ranges(ranks), self.sizes.scalars)[0])
            live = live.reshape(live.shape or (1,) * len(self.group.loops))
        except NotAffine:
            live = None
        while len(_KNOWN_MASKS) >= 8:
            del _KNOWN_MASKS[next(iter(_KNOWN_MASKS))]
        _KNOWN_MASKS[key] = live
        return live

    def live(self, steps: tuple[Step, ...]) -> Grid | None:
        """Tiles in which at least one of the steps has work; None: all."""
        key = tuple(sorted({tuple(i for i, (_, skips) in enumerate(self.masks) if step.position in skips) for step in steps}))
        if () in key:
            return None
        if key not in self._live:
            result: Grid | None = None
            for together in key:
                mine = self.masks[together[0]][0]
                for i in together[1:]:
                    mine = mine & self.masks[i][0]
                result = mine if result is None else result | mine
            assert result is not None
            self._live[key] = result
        return self._live[key]

    @cached_property
    def _live(self) -> dict[tuple[tuple[int, ...], ...], Grid]:
        return {}


def _axes(grid: Grid) -> frozenset[int]:
    """Loops that a grid varies with."""
    return frozenset(axis for axis, length in enumerate(grid.shape) if length > 1)
