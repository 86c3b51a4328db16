"""Floors: what no mapping of a group can beat, whatever the order of its loops, for all tilings at once.

In: a group as one of several equal instances does it, and arrays of tiles, one for each rank (as long as the rank: no loop). Out:
cycles of the busiest array with every step on its best array and layout, words of operands and results, energy of operations. None
of this depends on the order of the loops; what does is added by `orders`. Every quantity is a product over ranks, of their extents,
of the numbers of their tiles, or of how often these fill a side of an array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import Coord, Expr, Map, Number, Scalar, free_ranks
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


@dataclass(frozen=True)
class Floor:
    """Of each tiling, for one instance."""

    compute: Floats
    """Cycles of the busiest array."""
    energy: Map_[int, Floats]
    """pJ of the operations of each step, each on the array where it takes least."""
    operands: Map_[tuple[int, str, int], Floats]
    """Words that a step reads (by its place in the group) of a tensor, through each access."""
    made: Map_[str, Floats]
    """Words written where a tensor is made: every tile that adds to it."""
    back: Map_[str, Floats]
    """Words of unfinished sums read back."""

    def at(self, rows: NDArray[np.int64]) -> Floor:
        """Some of the tilings."""
        every: list[Map_[Any, Floats]] = [self.energy, self.operands, self.made, self.back]
        return Floor(self.compute[rows], *({key: value[rows] for key, value in each.items()} for each in every))


class Floors:
    """The floors of one group; `tiles`: of each rank that may have a loop; `single`: ranks that are looped over with tile 1."""

    def __init__(
        self, nest: Nest, tiles: Map_[str, Floats], single: frozenset[str], shares: Map_[int, float], leaves: Map_[str, float]
    ) -> None:
        self.nest, self.tiles, self.single, self.shares, self.leaves = nest, tiles, single, shares, leaves
        self.count = len(next(iter(tiles.values()))) if tiles else 1
        self.extents = nest.sizes.extents
        self.made = made_in(nest)
        self._counts: dict[str, Floats | float] = {}
        self._folds: dict[tuple[str, int], Floats | float] = {}

    def __call__(self, compute: Floats) -> Floor:
        """`compute`: cycles of the busiest array (see `bindings`)."""
        steps = self.nest.steps
        operands, made, back = {}, {}, {}
        for place, step in enumerate(steps):
            for number, access in enumerate(step.reads):
                operands[place, access.tensor, number] = self._full(self._operand(step, access.tensor, access.indices))
        for each in self.made:
            own = self.nest.own_ranks(each.tensor)
            words = self._share(each.producer) * self._points(own)
            others = each.producer.ranks - own
            made[each.tensor] = self._full(words * self._tiles(others))
            summed = each.producer.reduced and each.producer.position not in self.shares
            begun = words * self._tiles(others - each.producer.reduced) if summed else made[each.tensor]
            back[each.tensor] = self._full(made[each.tensor] - begun)
        return Floor(compute, {at: self._full(self._energy(step)) for at, step in enumerate(steps)}, operands, made, back)

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

    def _operand(self, step: Step, tensor: str, indices: tuple[Expr, ...]) -> Any:
        """Words that a step reads of a tensor, under the layout that reads least of it."""
        if not is_simple(self.nest, tensor, indices):
            return 0.0
        ranks = frozenset().union(*(free_ranks(index) for index in indices))
        away = step.ranks - ranks
        least: Any = None
        for bound in self._bound(step):
            words: Any = 1.0
            repeated = dict(bound.outside(ranks))
            for rank in away:
                if (side := _side(bound, rank)) is not None:
                    count = self._filled(rank, bound.array.side[side])
                elif rank in repeated:
                    walked = math.prod(self._walked(bound, mover) for mover in repeated[rank])
                    count = np.where(walked > 1.0, float(self.extents[rank]), self._tiles([rank]))
                else:
                    count = self._tiles([rank])
                words = words * count
            least = words if least is None else np.minimum(least, words)
        least = self._tiles(away) if least is None else least
        return self._share(step) * whole_words(self.nest, tensor, indices) * least

    def _bound(self, step: Step) -> Iterator[Step]:
        """A step under every layout on every array that can do it."""
        for name, array in self.nest.arch.arrays.items():
            if all(array.expand(item.operation) is not None for item in step.work):
                for layout in self._layouts(step, len(array.side)):
                    for kept in itertools.product((False, True), repeat=len(layout)):  # sides may have one lane at work
                        spatial = tuple((rank,) if lay else () for rank, lay in zip(layout, kept, strict=True))
                        yield replace(step, array=array, binding=Binding(array=name, spatial=spatial))

    def _walked(self, step: Step, rank: str) -> Any:
        """Positions that a step takes one after another along a rank in the largest tile."""
        tile = 1.0 if rank in self.single else np.minimum(self.tiles.get(rank, np.inf), float(self.extents[rank]))
        return tile if (side := _side(step, rank)) is None else np.ceil(tile / step.array.side[side])

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

    def _energy(self, step: Step) -> Any:
        """pJ of the operations of a step, on the array where they take least."""
        least: Any = None
        for array in self.nest.arch.arrays.values():
            if any(array.expand(item.operation) is None for item in step.work):
                continue
            bound = replace(step, array=array)
            mine: Any = 0.0
            for item in step.work:
                repeated = step.ranks - item.ranks - (step.reduced if item.after else frozenset())
                points = self._points(item.ranks) * self._domain(item.ranks) * self._tiles(repeated) * self._share(step)
                units = array.expand(item.operation) or {}
                mine = mine + points * sum(
                    count * (array.units[unit].energy_pj + register_pj(bound, unit)) for unit, count in units.items()
                )
            least = mine if least is None else np.minimum(least, mine)
        return 0.0 if least is None else least

    def _domain(self, ranks: frozenset[str]) -> float:
        """The share of the points of split ranks that exist."""
        found = 1.0
        for rank in self.nest.cascade.domain_splits(ranks):
            assert rank.split is not None
            found *= self.extents[rank.name] / (self.extents[rank.split.outer] * self.extents[rank.split.inner])
        return found


def _side(step: Step, rank: str) -> int | None:
    """The side of the array that a rank is laid along."""
    return next((side for side in range(len(step.array.side)) if rank in step.binding.along(side)), None)


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
