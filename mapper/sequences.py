"""How many words come to a place as the loops run: the tile held there is fetched whenever it is another than the one before.

In: a placed group, the part of a tensor that one tile touches, a depth (how many loops cut the tile that is held). Out: words. The
tiles are gone through in the order of the loops, those that do not exist or that a mask leaves out are passed over, and a tile is
counted where its first or last position along a dimension differs from the last tile that was there. Loops spread over
instances come first: each instance begins with nothing.

Iterations of a loop that do what the one before did (same lengths, same steps, same tiles left out) are counted, not listed:
four of them stand for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..einsum.cascade import Coord, Expr, free_ranks
from .intervals import Bounds

if TYPE_CHECKING:
    from .nest import Grid, Nest, Step


@dataclass(frozen=True)
class Visits:
    """What is counted.

    `apart`: spread loops whose instances fetch a tile each even if it is the same; `merged`: those of them whose instances, if
    they do so at the same time, count as one. `distinct`: count every tile once, however often it comes. `factors`: grids that
    words are multiplied by.
    """

    tensor: str
    indices: tuple[Expr, ...]
    steps: tuple[Step, ...]
    """Who needs the tile."""
    depth: int
    apart: frozenset[int] = frozenset()
    merged: frozenset[int] = frozenset()
    distinct: bool = False
    factors: tuple[Grid, ...] = ()


def words(nest: Nest, what: Visits) -> float:
    """Words that come in all."""
    declared = nest.cascade.tensor(what.tensor)
    box = nest.box(what.tensor, what.indices, what.depth)
    lengths = [np.maximum(high - low + 1, 0) for low, high in box]
    if declared.iterates is not None:
        lengths[declared.ranks.index(declared.iterates)] = np.ones_like(lengths[0][(slice(0, 1),) * lengths[0].ndim])
    ranks = frozenset().union(*(free_ranks(index) for index in what.indices))
    open_axes = [axis for axis, trips in enumerate(nest.trips) if trips > 1]
    own = {axis for axis in open_axes if axis < what.depth and nest.group.loops[axis].rank in ranks}
    needed = {axis for axis in open_axes if any(nest.group.loops[axis].rank in step.ranks for step in what.steps)}
    cold = [axis for axis in open_axes if axis in nest.spread and (axis in own or (axis in what.apart and axis in needed))]
    inside = [axis for axis in open_axes if axis < what.depth and axis not in nest.spread]
    warm = [axis for axis in inside if axis in own or (axis in needed and not what.distinct)]
    while warm and warm[-1] not in own:
        warm.pop()  # it only repeats what is there
    axes = [*cold, *warm]
    allowed = _allowed(nest, what, frozenset(axes))
    kept = {axis: _representatives(axis, nest.trips[axis], box, lengths, allowed, what, _sole(nest, what, axis)) for axis in axes}
    nest.check_cells(math.prod(len(index) for index, _ in kept.values()))
    return _count(kept, cold, what.merged - own, box, [*lengths, *what.factors], allowed)


def _allowed(nest: Nest, what: Visits, axes: frozenset[int]) -> list[Grid]:
    """Grids that all must allow a tile: it exists, and a mask leaves work in it for one who needs it."""
    ranks = sorted(frozenset().union(*(step.ranks for step in what.steps)) & nest.cut)
    live = nest.live(what.steps)
    found: list[Grid] = []
    if live is not None:
        varies = {axis for axis, length in enumerate(live.shape) if length > 1}
        for rank in ranks:
            if any(nest.group.loops[axis].rank == rank for axis in varies):
                live = live & (nest.span(rank)[1] > 0)
        found.append(_closed(live, axes))
    return found + [_closed(nest.span(rank)[1] > 0, axes) for rank in ranks]


def _closed(grid: Grid, axes: frozenset[int]) -> Grid:
    """Whether there is a tile that is allowed, whatever the loops other than `axes` do."""
    away = tuple(axis for axis, length in enumerate(grid.shape) if length > 1 and axis not in axes)
    return np.asarray(grid.any(axis=away, keepdims=True) if away else grid)


def _sole(nest: Nest, what: Visits, axis: int) -> bool:
    """Whether two different iterations of a loop can only give the same tile if nothing else moves it."""
    rank = nest.group.loops[axis].rank
    for index in what.indices:
        if rank in free_ranks(index) and index != Coord(rank):
            others = [loop.rank for a, loop in enumerate(nest.group.loops[: what.depth]) if a != axis and nest.trips[a] > 1]
            if any(other in free_ranks(index) for other in others):
                return False
    return True


def _representatives(
    axis: int, trips: int, box: list[Bounds], lengths: list[Grid], allowed: list[Grid], what: Visits, sole: bool
) -> tuple[Grid, Grid]:
    """Iterations of a loop that stand for all, and for how many each stands."""
    if not sole or trips <= 4:
        return np.arange(trips), np.ones(trips, dtype=np.int64)
    alike = np.ones(trips, dtype=bool)  # whether an iteration does what the one before did
    alike[0] = False
    for grid in (*lengths, *allowed, *what.factors):
        if grid.shape[axis] > 1:
            alike[1:] &= _still(np.diff(grid.astype(np.int64), axis=axis) == 0, axis)
    for low, _ in box:
        if low.shape[axis] > 1:
            steps = np.diff(low, axis=axis)
            alike[2:] &= _still(np.diff(steps, axis=axis) == 0, axis)
    inside = np.zeros(trips, dtype=bool)
    inside[1:-1] = alike[:-2] & alike[1:-1] & alike[2:]
    index = np.flatnonzero(~inside)
    return index, np.diff(np.append(index, trips))


def _still(same: Grid, axis: int) -> Grid:
    return np.asarray(same.all(axis=tuple(a for a in range(same.ndim) if a != axis)))


def _count(
    kept: dict[int, tuple[Grid, Grid]],
    cold: list[int],
    merged: frozenset[int],
    box: list[Bounds],
    factors: list[Grid],
    allowed: list[Grid],
) -> float:
    order = list(kept)
    shape = tuple(len(index) for index, _ in kept.values())

    def flat(grid: Grid) -> Grid:
        """A grid over the kept iterations in the order of the loops; loops left out take their first iteration."""
        for axis in range(grid.ndim):
            if grid.shape[axis] > 1:
                grid = np.take(grid, kept[axis][0] if axis in kept else [0], axis=axis)
        grid = grid.transpose([*order, *(axis for axis in range(grid.ndim) if axis not in kept)])
        return np.broadcast_to(grid.reshape(grid.shape[: len(order)]), shape).reshape(-1)

    there = np.ones(math.prod(shape), dtype=bool)
    for grid in allowed:
        there &= flat(grid)
    number = np.ones(there.shape)
    for grid in factors:
        number *= flat(grid)
    for place, (axis, (_, weight)) in enumerate(kept.items()):
        if axis in merged:
            continue
        along = [-1 if a == place else 1 for a in range(len(order))]
        number *= np.broadcast_to(weight.reshape(along), shape).reshape(-1)
    there &= number > 0
    if not there.any():
        return 0.0
    changed = np.zeros(int(there.sum()), dtype=bool)
    changed[0] = True
    for low, high in box:
        for end in (low, high):
            if end.size > 1:
                value = flat(end)[there]
                changed[1:] |= value[1:] != value[:-1]
    for axis in cold:
        place = order.index(axis)
        along = [-1 if a == place else 1 for a in range(len(order))]
        instance = np.broadcast_to(kept[axis][0].reshape(along), shape).reshape(-1)[there]
        changed[1:] |= instance[1:] != instance[:-1]
    came = np.zeros(there.shape)
    came[np.flatnonzero(there)[changed]] = number[there][changed]
    return float(came.reshape(shape).max(axis=tuple(order.index(axis) for axis in merged if axis in kept)).sum())
