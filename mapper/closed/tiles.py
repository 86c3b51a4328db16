"""Tiles of a group: how many there are and how long, as formulas.

In: a nest, the loops whose tiles hold one position. Out: for each rank the number of its tiles, their sizes by kind, how often they
fill the sides of an array. Sums over tiles need no table: the tiles of a rank come in few kinds (full ones, and the last of each
loop), each with its number, and a rank that enters by its length alone sums to its extent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ..nest import Nest, Step
from ..tape import Tape, Value, ceil_div, product, total
from .hardware import Hardware


@dataclass
class Tiles:
    """The tiles of one group."""

    nest: Nest
    tape: Tape
    one: frozenset[int]
    """Loops with tile 1."""

    def __post_init__(self) -> None:
        self.hardware = Hardware(self.tape, self.nest.arch)
        self.group = self.nest.group
        self.active = [axis for axis, trips in enumerate(self.nest.trips) if trips > 1]
        self.depth = len(self.group.loops)

    def extent(self, rank: str) -> Value:
        """Positions of a rank, an input."""
        return self.tape.input(f"extent {rank}")

    def tile(self, axis: int) -> Value:
        """Positions that one iteration of a loop has, an input."""
        return self.tape.input(f"tile {self.nest.number}.{axis}")

    def rank_of(self, axis: int) -> str:
        """The rank of a loop."""
        return self.group.loops[axis].rank

    def chain(self, rank: str, depth: int | None = None) -> list[int]:
        """Loops over a rank, from the outside, that have more than one iteration."""
        within = self.depth if depth is None else depth
        return [axis for axis in self.active if axis < within and self.rank_of(axis) == rank]

    def size(self, rank: str, depth: int | None = None) -> Value:
        """Positions in the largest tile."""
        chain = self.chain(rank, depth)
        return self.tile(chain[-1]) if chain else self.extent(rank)

    def is_one(self, rank: str, depth: int | None = None) -> bool:
        """Whether the tiles are known to hold one position."""
        chain = self.chain(rank, depth)
        return chain[-1] in self.one if chain else self.nest.sizes.extents[rank] == 1

    def trips(self, axis: int) -> Value:
        """Iterations of a loop in the largest tile outside it."""
        if axis not in self.active:
            return 1.0
        if axis in self.one:
            return self.size(self.rank_of(axis), axis)
        return ceil_div(self.size(self.rank_of(axis), axis), self.tile(axis))

    def kinds(self, rank: str, chain: Sequence[int]) -> list[tuple[Value, Value]]:
        """(number, positions) of the tiles that exist, as cut by some loops."""
        found: list[tuple[Value, Value]] = [(1.0, self.extent(rank))]
        for axis in chain:
            found = [part for number, length in found for part in self.cut(axis, number, length)]
        return found

    def cut(self, axis: int, number: Value, length: Value) -> list[tuple[Value, Value]]:
        """(number, positions) of the tiles that a loop makes of so many of a length: full ones, and the last of each."""
        if axis in self.one:
            return [(number * length, 1.0)]
        tile = self.tile(axis)
        full = ceil_div(length, tile) - 1.0
        return [(number * full, tile), (number, length - full * tile)]

    def existing(self, rank: str, chain: Sequence[int] | None = None) -> Value:
        """Number of tiles that exist."""
        cut = self.chain(rank) if chain is None else chain
        if not cut:
            return 1.0
        return total(number * self.pieces(cut[-1], length) for number, length in self.kinds(rank, cut[:-1]))

    def number_of(self, ranks: frozenset[str]) -> Value:
        """Tiles of some ranks together that exist."""
        return product(self.existing(rank) for rank in sorted(ranks))

    def pieces(self, axis: int, length: Value) -> Value:
        """Tiles that a loop makes of a length."""
        return length if axis in self.one else ceil_div(length, self.tile(axis))

    def folds(self, step: Step, ranks: frozenset[str]) -> Value:
        """Sum over the tiles of the spatial ranks among `ranks` of how often they fill the array."""
        found: Value = 1.0
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            if here:
                parts = []
                for kinds in itertools.product(*(self.kinds(rank, self.chain(rank)) for rank in here)):
                    parts.append(product(n for n, _ in kinds) * ceil_div(product(length for _, length in kinds), lanes))
                found = found * total(parts)
        return found

    def most_folds(self, step: Step, ranks: frozenset[str]) -> Value:
        """How often the largest tile fills the array."""
        found: Value = 1.0
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            if here:
                found = found * ceil_div(product(self.size(rank) for rank in here), lanes)
        return found

    def repeats(self, ranks: frozenset[str]) -> Value:
        """Iterations of the loops over some ranks."""
        return product(self.trips(axis) for axis in self.active if self.rank_of(axis) in ranks)
