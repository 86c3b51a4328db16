"""A cut and its tilings: how long the tiles of its ranks are, as arrays over tilings.

In: loops in no order yet, placed once (whether Einsums may share them does not depend on their order), and arrays of tiles. Out:
lengths and numbers of tiles as cut by any of the loops, and what all orders have in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import free_ranks
from .floors import Floor, Floors, is_simple
from .nest import Nest
from .space import ANYTHING, Cut, Fixed, Looped
from .tape import Floats
from .team import Team

Axes: TypeAlias = frozenset[int]
"""Loops of a cut, by their places in it."""


@dataclass
class Tilings:
    """What is known of some tilings of a cut."""

    tiles: Map_[str, tuple[Floats, ...]]
    """Of each rank, the outermost loop first."""
    floor: Floor
    rows: NDArray[np.int64]
    one_tile: Map_[str, Floats]
    """Cycles of each step in one tile at least, until its reductions have come out; none where steps are not placed yet."""


class Tiled:
    """A cut on a team with some of its tilings; `nest`: its loops in one order, placed with room for everything."""

    def __init__(
        self,
        nest: Nest,
        team: Team,
        looped: Looped,
        cut: Cut,
        floors: Floors,
        tilings: Tilings,
        fixed: Fixed = ANYTHING,
    ) -> None:
        self.fixed = fixed
        self.nest, self.team, self.looped, self.cut, self.floors, self.tilings = nest, team, looped, cut, floors, tilings
        self.arch, self.leaves = team.arch, floors.leaves
        self.levels = team.arch.on_chip
        self.count = len(tilings.rows)
        self.before = len(team.loops) + len(looped.outside)
        self.prefix = frozenset(loop.rank for loop in looped.outside)
        self._lengths: dict[Any, Floats] = {}
        self.own = [frozenset().union(*(free_ranks(index) for index in stream.indices)) for stream in nest.streams]
        self.read = [frozenset().union(*(reader.ranks for reader in stream.readers)) for stream in nest.streams]
        self.shares = [max(floors.shares.get(r.position, 1.0) for r in stream.readers) for stream in nest.streams]
        self.simple = [is_simple(nest, stream.tensor, stream.indices) for stream in nest.streams]
        self.made = frozenset(made.tensor for made in floors.made)

    def length(self, rank: str, axes: Axes) -> Floats:
        """Positions of a rank in the largest tile, as cut by some loops of the cut and by those outside."""
        key = rank, tuple(sorted(axis for axis in axes if self.cut.axes[axis] == rank))
        if key not in self._lengths:
            whole = 1.0 if rank in self.prefix else float(self.team.sizes.extents[rank])
            found = np.full(self.count, whole)
            if key[1]:
                found = self.tile_of(key[1][-1])
            self._lengths[key] = found
        return self._lengths[key]

    def tile_of(self, axis: int) -> Floats:
        """The tile of a loop."""
        rank = self.cut.axes[axis]
        if rank in self.cut.moving:
            return np.ones(self.count)
        return self.tilings.tiles[rank][0 if self.cut.outer is not None and axis == 0 else -1]

    def tiles_of(self, rank: str, axes: Axes) -> Floats:
        """How many tiles of a rank there are, as cut by some loops."""
        return np.ceil(float(self.team.sizes.extents[rank]) / self.length(rank, axes))

    @cached_property
    def tile_count(self) -> Floats:
        """Iterations of all loops of one instance."""
        found = np.full(self.count, float(math.prod(self.team.sizes.extents[loop.rank] for loop in self.looped.outside)))
        for rank in dict.fromkeys(self.cut.axes):
            found = found * self.tiles_of(rank, frozenset(range(len(self.cut.axes))))
        return found

    @cached_property
    def last_tile(self) -> Floats:
        """Words of the largest tile that leaves."""
        found = np.zeros(self.count)
        every = frozenset(range(len(self.cut.axes)))
        for made in self.floors.made:
            if made.leaves:
                words = np.ones(self.count)
                for rank in self.nest.own_ranks(made.tensor):
                    words = words * self.length(rank, every)
                found = np.maximum(found, words)
        return found

    def tensor(self, name: str) -> int:
        """Words of a whole tensor."""
        return math.prod(self.team.whole.extents[rank] for rank in self.nest.own_ranks(name))

    def size(self, level: str) -> float:
        """Words of one instance of a level."""
        return self.leaves[f"{level}.size"] / self.leaves["word_bytes"]

    @property
    def inner(self) -> int:
        """The second loop over the rank that has two."""
        return max(axis for axis, rank in enumerate(self.cut.axes) if rank == self.cut.outer)
