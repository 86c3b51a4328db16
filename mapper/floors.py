"""Floors: what no mapping of a group can beat, whatever the order of its loops, for all tilings at once.

In: a group as one of several equal instances does it, and arrays of tiles, one for each rank (as long as the rank: no loop). Out:
cycles of the busiest array with every step on its best array and layout, words of operands and results, energy of operations. None
of this depends on the order of the loops; what does is added by `orders`. Every quantity is a product over ranks, of their extents,
of the numbers of their tiles, or of how often these fill a side of an array.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import Access, Coord, Expr, Map, Number, Scalar, free_ranks
from .architecture import Architecture, Array
from .cost import register_pj
from .mapping import Binding
from .nest import Nest
from .operations import Work
from .steps import Step
from .tape import Floats


@dataclass(frozen=True)
class Made:
    """A tensor that a group makes."""

    tensor: str
    producer: Step
    readers: tuple[Step, ...]
    initial: Step | None
    leaves: bool
    handed_on: bool
    """Whether its elements may be handed on as they are made, if they are used in the tile that makes them."""

    def in_registers(self, arch: Architecture) -> int:
        """Words of it that the registers of an array may hold at most."""
        return 0 if self.leaves else max(array.lanes * array.registers.words for array in arch.arrays.values())


def made_in(nest: Nest) -> tuple[Made, ...]:
    """What a group makes."""
    found = []
    for step in nest.steps:
        if step.initial:
            continue
        name = step.output
        readers = tuple(reader for reader in nest.steps if any(access.tensor == name for access in reader.reads))
        shape = frozenset(nest.cascade.tensor(name).ranks)
        initial = next((first for first in nest.steps if first.initial and first.output == name), None)
        handed_on = all(reader.ranks == shape and nest.between(step, reader) is None for reader in readers)
        found.append(Made(name, step, readers, initial, name in nest.outgoing, handed_on))
    return tuple(found)


Factor: TypeAlias = tuple[str, int, tuple[tuple[str, int], ...]]
"""A rank that an operand does not have, the lanes that it is laid along (0: none), and what is walked inside it that moves the
operand: ranks and their lanes."""


Way: TypeAlias = tuple[tuple[Factor, ...], ...]
"""How a step reads its operands under a layout of an array: the factors of each."""


@dataclass(frozen=True)
class Floor:
    """Of each tiling, for one instance."""

    compute: Floats
    """Cycles of the busiest array."""
    energy: Floats
    """pJ of all operations and of all that is read of inputs at the innermost level, of all instances."""
    operands: Map_[tuple[int, str, int], Floats]
    """Words that a step reads (by its place in the group) of a tensor, through each access."""
    made: Map_[str, Floats]
    """Words written where a tensor is made: every tile that adds to it."""
    back: Map_[str, Floats]
    """Words of unfinished sums read back."""

    def at(self, rows: NDArray[np.int64]) -> Floor:
        """Some of the tilings."""
        every: list[Map_[Any, Floats]] = [self.operands, self.made, self.back]
        return Floor(self.compute[rows], self.energy[rows], *({key: value[rows] for key, value in each.items()} for each in every))


class Floors:
    """The floors of one group; `tiles`: of each rank that may have a loop, None: what no tiling goes below; `single`: ranks that
    are looped over with tile 1; `known`: ways to read operands, shared by the groups of one cascade."""

    def __init__(
        self,
        nest: Nest,
        tiles: Map_[str, Floats] | None,
        single: frozenset[str],
        shares: Map_[int, float],
        leaves: Map_[str, float],
        known: dict[Any, list[Way]],
    ) -> None:
        self.nest, self.tiles, self.single, self.shares, self.leaves = nest, tiles or {}, single, shares, leaves
        self.untiled, self.known = tiles is None, known
        self.count = len(next(iter(self.tiles.values()))) if self.tiles else 1
        self.extents = nest.sizes.extents
        self.made = made_in(nest)
        self._counts: dict[str, Floats | float] = {}
        self._folds: dict[tuple[str, int], Floats | float] = {}
        self._parts: dict[frozenset[str], tuple[Floors, NDArray[np.int64]]] = {}
        self._codes: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def along(self, ranks: frozenset[str], value: Callable[[Floors], Any]) -> Any:
        """A value that depends on the tiles of some ranks alone: worked out once for all tilings that have these in common."""
        own = frozenset(ranks & self.tiles.keys())
        if len(own) == len(self.tiles):
            return value(self)
        if own not in self._parts:
            code = np.zeros(self.count, dtype=np.int64)
            for rank in sorted(own):
                if rank not in self._codes:
                    values, which = np.unique(self.tiles[rank], return_inverse=True)
                    self._codes[rank] = len(values), which.reshape(-1)
                many, codes = self._codes[rank]
                code = code * many + codes
            _, first, where = np.unique(code, return_index=True, return_inverse=True)
            tiles = {rank: self.tiles[rank][first] for rank in own}
            part = Floors(self.nest, tiles, self.single, self.shares, self.leaves, self.known)
            self._parts[own] = part, where.reshape(-1).astype(np.int64)
        part, places = self._parts[own]
        found = value(part)
        return np.asarray(found)[places] if np.ndim(found) else found

    def __call__(self, compute: Floats, energy: Floats) -> Floor:
        """`compute`, `energy`: of all steps (see `bindings`)."""
        steps = self.nest.steps
        operands, made, back = {}, {}, {}
        for place, step in enumerate(steps):
            for number, access in enumerate(step.reads):
                operands[place, access.tensor, number] = self._full(
                    self.along(step.ranks, functools.partial(Floors.operand, step=step, number=number))
                )
        for each in self.made:
            own = self.nest.own_ranks(each.tensor)
            words = self._share(each.producer) * self._points(own)
            others = each.producer.ranks - own
            made[each.tensor] = self._full(words * self._tiles(others))
            summed = each.producer.reduced and each.producer.position not in self.shares
            begun = words * self._tiles(others - each.producer.reduced) if summed else made[each.tensor]
            back[each.tensor] = self._full(made[each.tensor] - begun)
        return Floor(compute, energy, operands, made, back)

    def _full(self, value: Any) -> Floats:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (self.count,))

    def _share(self, step: Step) -> float:
        return self.shares.get(step.position, 1.0)

    # --- products over ranks ---

    def _points(self, ranks: Iterable[str]) -> float:
        return float(math.prod(self.extents[rank] for rank in ranks))

    def _tiles(self, ranks: Iterable[str]) -> Any:
        """How many tiles of some ranks there are."""
        found: Any = 1.0
        for rank in sorted(ranks):
            if rank not in self._counts:
                if rank in self.single:
                    self._counts[rank] = float(self.extents[rank])
                else:
                    self._counts[rank] = np.ceil(self.extents[rank] / self.tiles[rank]) if rank in self.tiles else 1.0
            found = found * self._counts[rank]
        return found

    def _filled(self, rank: str, lanes: int) -> Any:
        """Sum over the tiles of a rank of how often they fill some lanes."""
        key = rank, lanes
        if key not in self._folds:
            extent = float(self.extents[rank])
            if rank in self.single:
                self._folds[key] = extent
            elif rank not in self.tiles:
                self._folds[key] = math.ceil(extent / lanes)
            else:
                tile = self.tiles[rank]
                full = np.ceil(extent / tile) - 1.0
                self._folds[key] = full * np.ceil(tile / lanes) + np.ceil((extent - full * tile) / lanes)
        return self._folds[key]

    # --- operands ---

    def operand(self, step: Step, number: int) -> Any:
        """Words that a step reads of an operand, under the layout that reads least of it."""
        factors = {way[number] for way in self._ways(step)}
        return functools.reduce(np.minimum, [self._words(step, number, each) for each in sorted(factors, key=str)])

    def _words(self, step: Step, number: int, factors: tuple[Factor, ...]) -> Any:
        access = step.reads[number]
        if not is_simple(self.nest, access.tensor, access.indices):
            return 0.0
        words: Any = self._share(step) * whole_words(self.nest, access.tensor, access.indices)
        for rank, lanes, movers in factors:
            if lanes:
                words = words * self._filled(rank, lanes)
            elif movers and not self.untiled:
                walked = math.prod(self._walked(*mover) for mover in movers)
                words = words * np.where(walked > 1.0, float(self.extents[rank]), self._tiles([rank]))
            else:
                words = words * self._tiles([rank])
        return words

    def _ways(self, step: Step) -> list[Way]:
        """The ways to read the operands of a step, under all layouts of all arrays that can do it."""
        open_ = frozenset(rank for rank in step.ranks if rank not in self.single and self.extents[rank] > 1)
        key = step.position, step.initial, open_
        if key not in self.known:
            found = {tuple(_factors(bound, number) for number in range(len(step.reads))) for bound in self._bound(step)}
            nowhere = tuple(tuple((rank, 0, ()) for rank in sorted(step.ranks - _ranks(access))) for access in step.reads)
            self.known[key] = sorted(found, key=str) or [nowhere]
        return self.known[key]

    def _bound(self, step: Step) -> Iterator[Step]:
        """A step under every layout on every array that can do it."""
        for name, array in self.nest.arch.arrays.items():
            if all(array.expand(item.operation) is not None for item in step.work):
                for layout in self._layouts(step, len(array.side)):
                    for kept in itertools.product((False, True), repeat=len(layout)):  # sides may have one lane at work
                        spatial = tuple((rank,) if lay else () for rank, lay in zip(layout, kept, strict=True))
                        yield replace(step, array=array, binding=Binding(array=name, spatial=spatial))

    def _walked(self, rank: str, lanes: int) -> Any:
        """Positions that a step takes one after another along a rank in the largest tile."""
        tile = 1.0 if rank in self.single else np.minimum(self.tiles.get(rank, np.inf), float(self.extents[rank]))
        return np.ceil(tile / lanes) if lanes else tile

    # --- arrays ---

    def _layouts(self, step: Step, sides: int) -> Iterator[tuple[str, ...]]:
        """Ranks along the sides of an array, as many as can be."""
        tensor = self.nest.cascade.tensor(step.output)
        barred = {tensor.iterates, getattr(step.einsum.body, "rank", None)}
        ranks = sorted(rank for rank in step.ranks if rank not in barred and rank not in self.single and self.extents[rank] > 1)
        return itertools.permutations(ranks, min(sides, len(ranks)))

    def busy(self, step: Step, array: Array, layout: Map_[str, int]) -> Any:
        """Cycles that a step keeps an array busy at least; `layout`: the lanes along the side of each spatial rank."""
        found: Any = 0.0
        for item in step.work:
            last = step.reduced if item.after else frozenset()
            found = found + self._cycles(array, item) * self._laid(item.ranks, layout) * self._tiles(step.ranks - item.ranks - last)
        if not array.folds_overlap and step.work:
            fill = float(sum(array.side) - len(array.side))
            spatial = frozenset(layout)
            found = found + fill * self._laid(step.ranks & spatial, layout) * self._tiles(step.ranks - spatial)
        return found * self._share(step)

    def _laid(self, ranks: Iterable[str], layout: Map_[str, int]) -> Any:
        """Points of some ranks, those of spatial ones counted by how often they fill their lanes."""
        found: Any = 1.0
        for rank in sorted(ranks):
            found = found * (self._filled(rank, layout[rank]) if rank in layout else float(self.extents[rank]))
        return found

    def _cycles(self, array: Array, item: Work) -> float:
        return sum(array.units[unit].cycles * count for unit, count in (array.expand(item.operation) or {}).items())

    def spent(self, step: Step, array: Array, along: Map_[str, int]) -> Any:
        """pJ of the operations of a step on an array and of the inputs that it reads at the innermost level, under a layout: the
        lanes along the side of each spatial rank."""
        left = list(along.items())
        spatial: list[tuple[str, ...]] = []
        for lanes in array.side:
            rank = next((rank for rank, count in left if count == lanes), None)
            left = [(other, count) for other, count in left if other != rank]
            spatial.append(() if rank is None else (rank,))
        bound = replace(step, array=array, binding=step.binding.model_copy(update={"spatial": tuple(spatial)}))
        each = level_pj(self.leaves, self.nest.arch.on_chip[-1], 1.0, 0.0)
        found = self._operations(bound)
        for number, access in enumerate(step.reads):
            if access.tensor not in self._mine:
                found = found + each * self._words(step, number, _factors(bound, number))
        return found

    @cached_property
    def _mine(self) -> frozenset[str]:
        return frozenset(step.output for step in self.nest.steps)

    def _operations(self, step: Step) -> Any:
        """pJ of the operations of a step on its array."""
        found: Any = 0.0
        for item in step.work:
            repeated = step.ranks - item.ranks - (step.reduced if item.after else frozenset())
            points = self._points(item.ranks) * self._domain(item.ranks) * self._tiles(repeated) * self._share(step)
            units = step.array.expand(item.operation) or {}
            found = found + points * sum(
                count * (step.array.units[unit].energy_pj + register_pj(step, unit)) for unit, count in units.items()
            )
        return found

    def _domain(self, ranks: frozenset[str]) -> float:
        """The share of the points of split ranks that exist."""
        found = 1.0
        for rank in self.nest.cascade.domain_splits(ranks):
            assert rank.split is not None
            found *= self.extents[rank.name] / (self.extents[rank.split.outer] * self.extents[rank.split.inner])
        return found


def _ranks(access: Access) -> frozenset[str]:
    return frozenset().union(*(free_ranks(index) for index in access.indices))


def _factors(bound: Step, number: int) -> tuple[Factor, ...]:
    """What multiplies the words of an operand under the layout of a step."""
    ranks = _ranks(bound.reads[number])
    repeated = dict(bound.outside(ranks))
    return tuple(
        (rank, _lanes(bound, rank), tuple((mover, _lanes(bound, mover)) for mover in repeated.get(rank, ())))
        for rank in sorted(bound.ranks - ranks)
    )


def _lanes(step: Step, rank: str) -> int:
    """The lanes that a rank is laid along; 0: it is not."""
    return next((lanes for side, lanes in enumerate(step.array.side) if rank in step.binding.along(side)), 0)


# --- indices ----------------------------------------------------------------------------------------------------------


def is_simple(nest: Nest, tensor: str, indices: tuple[Expr, ...]) -> bool:
    """Whether each dimension of a tensor is read through ranks of its own, all of it in order."""
    seen: set[str] = set()
    for rank, index in zip(nest.cascade.tensor(tensor).ranks, indices, strict=True):
        found = free_ranks(index)
        if found & seen or not _simple_index(nest, rank, index, tensor):
            return False
        seen |= found
    return True


def _simple_index(nest: Nest, rank: str, index: Expr, tensor: str) -> bool:
    cascade = nest.cascade
    split = cascade.rank(rank).split
    match index:
        case Coord(rank=found):
            return cascade.rank(found).extent == cascade.rank(rank).extent
        case Map(op="+", args=(Coord(rank=found), Number(value=1))):
            return found == rank and cascade.tensor(tensor).iterates == rank
        case Map(op="+", args=(Map(op="*", args=(Coord(rank=outer), tile)), Coord(rank=inner))):
            return bool(split and (outer, inner) == (split.outer, split.inner) and tile == split.tile)
        case Number() | Scalar():
            return True
    return False


def whole_words(nest: Nest, tensor: str, indices: tuple[Expr, ...]) -> float:
    """Words of all that is read of a tensor; of a running state, one position."""
    extents, declared = nest.sizes.extents, nest.cascade.tensor(tensor)
    found = 1.0
    for rank, index in zip(declared.ranks, indices, strict=True):
        if rank != declared.iterates:
            ranks = free_ranks(index)
            found *= extents[rank] if len(ranks) > 1 else math.prod(extents[name] for name in ranks)
    return found


# --- levels -----------------------------------------------------------------------------------------------------------


def level_pj(leaves: Map_[str, float], level: str, read: Any, written: Any) -> Any:
    """Energy of words read and written at a level."""
    per_access = leaves["word_bytes"] / leaves[f"{level}.access_bytes"]
    return (read * leaves[f"{level}.read_pj"] + written * leaves[f"{level}.write_pj"]) * per_access


def port_cycles(leaves: Map_[str, float], level: str, read: Any, written: Any) -> Any:
    """Cycles that the ports of one instance of a level need for words read and written."""
    per_word = leaves["word_bytes"] * leaves["clock_hz"]
    none = float("inf")
    both = (read + written) / leaves.get(f"{level}.bandwidth", none)
    apart = np.maximum(read / leaves.get(f"{level}.read_bandwidth", none), written / leaves.get(f"{level}.write_bandwidth", none))
    return np.maximum(both, apart) * per_word
