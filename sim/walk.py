"""The walk through the tiles of a group: which tiles there are, what runs in each, which part of each tensor it touches.

In: a placed group. Out: a `Walk`, which answers for one tile at a time, by look-ups, what `Nest` knows of all of them. Iterations
of a loop that is spread over instances are done at the same time, so they come innermost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain, product
from typing import TypeAlias

from ..einsum.cascade import Expr, free_ranks
from ..mapper.nest import Grid, Nest, Resident, Step
from .task import Index

Lookup: TypeAlias = Callable[[Index], int]
"""The entry of a grid for a tile."""
Box: TypeAlias = tuple[int, ...]
"""First and last position along each dimension."""
Block: TypeAlias = tuple[Sequence[int], Sequence[Index]]
"""Neighbouring loops, and those of their iterations that are run."""


class Walk:
    """The tiles of one group."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.in_time = [axis for axis in range(len(nest.trips)) if axis not in nest.spread]
        """Loops that are done one iteration after another."""
        self.side_by_side = sorted(nest.spread)

    def tiles(self, blocks: Sequence[Block] | None = None) -> Iterator[Index]:
        """All tiles (or those of the given iterations of loops in time) in the order of the loops; those that a cut-short outer
        tile leaves empty are passed over."""
        for index in self._all(blocks or self.blocks(self.in_time)):
            if all(length(index) > 0 for length in self._lengths):
                yield index

    def blocks(self, axes: Sequence[int]) -> list[Block]:
        """All iterations of some loops."""
        return [((axis,), [(at,) for at in range(self.nest.trips[axis])]) for axis in axes]

    def _all(self, blocks: Sequence[Block]) -> Iterator[Index]:
        if not self.side_by_side:
            for parts in product(*(indices for _, indices in blocks)):
                yield tuple(chain.from_iterable(parts))
            return
        index = [0] * len(self.nest.trips)
        axes = list(chain.from_iterable(axes for axes, _ in blocks))
        for parts in product(*(indices for _, indices in blocks)):
            for axis, at in zip(axes, chain.from_iterable(parts), strict=True):
                index[axis] = at
            for places in product(*(range(self.nest.trips[axis]) for axis in self.side_by_side)):
                for axis, at in zip(self.side_by_side, places, strict=True):
                    index[axis] = at
                yield tuple(index)

    @cached_property
    def _lengths(self) -> list[Lookup]:
        return [lookup(self.nest.span(rank)[1]) for rank in sorted({loop.rank for loop in self.nest.group.loops})]

    # --- instances ----------------------------------------------------------------------------------------------------

    def core(self, place: str, index: Index) -> Index:
        """Which instance of a level or array has a tile, as iterations of the loops that are spread over it."""
        return tuple([index[axis] for axis in self._reaching(place)])

    def instance(self, place: str, index: Index) -> int:
        """The same as a number."""
        number = 0
        for axis in self._reaching(place):
            number = number * self.nest.trips[axis] + index[axis]
        return number

    def _reaching(self, place: str) -> list[int]:
        if place not in self._reach:
            self._reach[place] = sorted(self.nest.spread_to(place))
        return self._reach[place]

    @cached_property
    def _reach(self) -> dict[str, list[int]]:
        return {}

    # --- what runs ----------------------------------------------------------------------------------------------------

    def runs(self, step: Step, index: Index) -> bool:
        """Whether a step has work in a tile."""
        return all(grid(index) for grid in self._runs[step.name])

    def skipped(self, step: Step, index: Index) -> bool:
        """Whether it is a mask alone that leaves a step out of a tile."""
        present, live = self._reasons[step.name]
        return all(grid(index) for grid in present) and not all(grid(index) for grid in live)

    def _ending(self, rank: str) -> Lookup:
        """Tiles with the last position of a rank. If instances do parts of it side by side, that is the tile that is done last."""
        axes = [axis for axis, loop in enumerate(self.nest.group.loops) if loop.rank == rank]
        if not self.nest.spread.intersection(axes):
            return lookup(self.nest.final(rank))
        length = lookup(self.nest.span(rank)[1])
        axes.sort(key=lambda axis: (axis in self.nest.spread, axis))
        index = [0] * len(self.nest.trips)
        last: tuple[int, ...] = ()
        for at in product(*(range(self.nest.trips[axis]) for axis in axes)):
            for axis, number in zip(axes, at, strict=True):
                index[axis] = number
            if length(tuple(index)) > 0:
                last = at
        return lambda tile: tuple([tile[axis] for axis in axes]) == last

    def _present(self, step: Step) -> list[Lookup]:
        """What allows a step to run in a tile, masks aside."""
        nest = self.nest
        found = [lookup(nest.span(rank)[1] > 0) for rank in sorted(step.ranks & nest.cut)]
        for rank, slot in sorted({(loop.rank, slot) for loop, slot in zip(nest.group.loops, step.slots, strict=True)}):
            if slot != "each" and rank in nest.cut:
                found.append(lookup(nest.opening(rank)) if slot == "first" else self._ending(rank))
        return found

    @cached_property
    def _reasons(self) -> dict[str, tuple[list[Lookup], list[Lookup]]]:
        return {
            step.name: (
                self._present(step),
                [lookup(live) for live in self._live(step)],
            )
            for step in self.nest.steps
        }

    @cached_property
    def _runs(self) -> dict[str, list[Lookup]]:
        if not self.side_by_side:
            return {
                step.name: [lookup(grid) for grid in (*self.nest.runs(step), *self._live(step)) if not grid.all()]
                for step in self.nest.steps
            }
        return {name: [*present, *live] for name, (present, live) in self._reasons.items()}

    def _live(self, step: Step) -> list[Grid]:
        return [live for live, skips in self.nest.masks if step.position in skips]

    def complete(self, resident: Resident, index: Index) -> bool:
        """Whether this tile is the last one that adds to a tile of the tensor (if a mask leaves it out, a constant is stored)."""
        return all(grid(index) for grid in self._completes[resident.tensor])

    @cached_property
    def _completes(self) -> dict[str, list[Lookup]]:
        found: dict[str, list[Lookup]] = {}
        for name, resident in self.nest.residents.items():
            own = self.nest.own_ranks(name)
            slots = {loop.rank: slot for loop, slot in zip(self.nest.group.loops, resident.producer.slots, strict=True)}
            ends = [(rank, slot) for rank, slot in slots.items() if rank in self.nest.cut and (slot == "first" or rank not in own)]
            found[name] = [lookup(self.nest.opening(rank)) if slot == "first" else self._ending(rank) for rank, slot in ends]
        return found

    # --- which part ---------------------------------------------------------------------------------------------------

    def span(self, rank: str, index: Index) -> tuple[int, int]:
        """(first position, number of positions) of a rank in a tile."""
        if rank not in self._spans:
            low, length = self.nest.span(rank)
            self._spans[rank] = lookup(low), lookup(length)
        low_at, length_at = self._spans[rank]
        return low_at(index), length_at(index)

    @cached_property
    def _spans(self) -> dict[str, tuple[Lookup, Lookup]]:
        return {}

    def words(self, tensor: str, index: Index) -> int:
        """Words of the tile of a tensor made here; of a running state, one position."""
        words = 1
        for rank in self._own[tensor]:
            words *= self.span(rank, index)[1]
        return words

    @cached_property
    def _own(self) -> dict[str, list[str]]:
        return {name: sorted(self.nest.own_ranks(name)) for name in self.nest.residents}

    def key(self, resident: Resident, index: Index) -> Index:
        """Which tile of a tensor this is."""
        return tuple([index[axis] for axis in self.axes[resident.tensor][0]])

    def slot(self, resident: Resident, index: Index) -> Index:
        """Which part of the space held for a tensor this tile occupies."""
        return tuple([index[axis] for axis in self.axes[resident.tensor][1]])

    @cached_property
    def axes(self) -> dict[str, tuple[list[int], list[int]]]:
        """For each tensor made here: the loops over its own ranks, and those of them inside the loop across which it is alive, or
        spread over instances."""
        found: dict[str, tuple[list[int], list[int]]] = {}
        for name, resident in self.nest.residents.items():
            axes = self.own_axes(name, len(self.nest.trips))
            found[name] = axes, [axis for axis in axes if axis >= resident.depth or axis in self.nest.spread]
        return found

    def own_axes(self, tensor: str, depth: int) -> list[int]:
        """Of the first `depth` loops, those over ranks of a tensor that is made here."""
        own = self.nest.own_ranks(tensor)
        return [axis for axis, loop in enumerate(self.nest.group.loops[:depth]) if loop.rank in own]

    def input_axes(self, indices: tuple[Expr, ...], depth: int) -> list[int]:
        """Of the first `depth` loops, those over ranks by which a tensor is read."""
        ranks = frozenset().union(*(free_ranks(index) for index in indices))
        return [axis for axis, loop in enumerate(self.nest.group.loops[:depth]) if loop.rank in ranks]

    def boxes(self, tensor: str, indices: tuple[Expr, ...], depth: int) -> Callable[[Index], Box]:
        """The part of a tensor that a tile touches, as cut by the first `depth` loops."""
        key = (tensor, indices, depth)
        if key not in self._boxes:
            ends = [lookup(end) for ends in self.nest.box(tensor, indices, depth) for end in ends]
            self._boxes[key] = lambda index: tuple([end(index) for end in ends])
        return self._boxes[key]

    @cached_property
    def _boxes(self) -> dict[tuple[str, tuple[Expr, ...], int], Callable[[Index], Box]]:
        return {}


def size(box: Box) -> int:
    """Elements of a box."""
    words = 1
    for low, high in zip(box[::2], box[1::2], strict=True):
        words *= max(0, high - low + 1)
    return words


def lookup(grid: Grid) -> Lookup:
    """Reads a grid by tiles; loops that do not matter have length 1 in it."""
    axes = [axis for axis, length in enumerate(grid.shape) if length > 1]
    if grid.size > 2**20:  # too large for lists of numbers
        return lambda index: int(grid[tuple([at if length > 1 else 0 for at, length in zip(index, grid.shape, strict=True)])])
    values = grid.reshape([grid.shape[axis] for axis in axes]).tolist()
    if not axes:
        return lambda _: values
    if len(axes) == 1:
        (only,) = axes
        return lambda index: values[index[only]]

    def entry(index: Index) -> int:
        value = values
        for axis in axes:
            value = value[index[axis]]
        return int(value)

    return entry
