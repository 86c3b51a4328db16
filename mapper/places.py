"""Where tensors that live within a tile stay: handed on, in the registers of an array that makes or reads them, or in a level.

In: a placed nest and arrays for its Einsums. Out: `Places`: assignments, least energy first. What can be handed on is: it takes no
room. All other tensors start where they take least energy. An assignment that wants more room somewhere can only be improved by
moving a tensor out of that place to one that takes more: what such moves reach is all that can be better.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace

from .accesses import begun_words, operand_words, result_words
from .cost import level_pj
from .layouts import Choice, bind
from .mapping import Binding
from .nest import FORWARD, Nest
from .residency import level_needs, slots_of
from .streams import Resident

MOST = 4096
"""Most tiles in flight that count."""


@dataclass(frozen=True)
class _Tile:
    """A tensor that lives within a tile and is not handed on."""

    resident: Resident
    words: Map_[str, int]
    """Of a storage level, for one tile in flight."""
    slots: int
    """At least."""


class Rooms:
    """What storage levels have room for besides the tensors of a tile; the same for all choices with given loops."""

    def __init__(self, nest: Nest, counted: Map_[str, float], fixed: Map_[str, str]) -> None:
        """`counted`: energy of tensors in some level that is counted elsewhere, pJ; `fixed`: places of tensors."""
        self.nest, self.counted, self.fixed = nest, counted, fixed
        self._known: dict[tuple[str, str, tuple[Binding, ...]], float] = {}
        self.handed_on: list[str] = []
        self.tiles: list[_Tile] = []
        depth = len(nest.group.loops)
        levels = nest.arch.on_chip
        within = {name: resident for name, resident in nest.residents.items() if resident.depth == depth}
        for name, resident in within.items():
            if _is_handed_on(nest, resident) and fixed.get(name, FORWARD) == FORWARD:
                self.handed_on.append(name)
                continue
            each = nest.resident_words(resident)
            words = {level: each * nest.parts(level, nest.own_ranks(name), depth) for level in levels}
            self.tiles.append(_Tile(resident, words, slots_of(nest, depth) if resident.leaves else 1))
        self.free: dict[str, float] = {}
        """Words of each level."""
        for level in levels:
            size = nest.arch.memory[level].size
            taken = sum(need.words * need.slots for need in level_needs(nest, level) if need.tensor not in within)
            self.free[level] = math.inf if size is None else size // nest.arch.word_bytes - taken

    def most(self, placed: list[tuple[_Tile, str]]) -> tuple[int, str]:
        """Most tiles in flight that the levels have room for (0 if not even one), and the level that has room for no more."""
        found = [(MOST, "")]
        for level, free in self.free.items():
            here = [tile for tile, place in placed if place == level]
            each = sum(tile.words[level] for tile in here)
            if sum(tile.words[level] * tile.slots for tile in here) > free:
                found.append((0, level))
            elif each and free < math.inf:
                found.append((max(1, min(MOST, int(free) // each)), level))
        return min(found, key=lambda one: one[0])

    def picojoules(self, tile: _Tile, level: str, readers: tuple[Binding, ...]) -> float:
        """Energy of a tensor at a level, read by Einsums bound in a given way, beyond what is counted elsewhere."""
        nest, resident = self.nest, tile.resident
        name, step = resident.tensor, resident.producer
        key = name, level, readers
        if key not in self._known:
            made = result_words(nest, step, name)
            read = made - begun_words(nest, step, name) if step.reduced & nest.cut else 0.0
            for reader, binding in zip(resident.readers, readers, strict=True):
                bound = replace(reader, binding=binding, array=nest.arch.arrays[binding.array])
                for indices in dict.fromkeys(access.indices for access in reader.reads if access.tensor == name):
                    read += operand_words(nest, bound, name, indices, nest.spread_to(level))
            if resident.leaves:
                read += nest.tensor_words(name)
            self._known[key] = level_pj(nest.arch, nest.arch.memory[level], read, made) - self.counted.get(name, 0.0)
        return self._known[key]

    def lacking(self, placed: list[tuple[_Tile, str]]) -> float:
        """What a single tile in flight needs of the level that has least room for it, as a share of what there is."""
        size = {level: self.nest.arch.memory[level].size for level in self.free}
        shares = [1.0]
        for level, free in self.free.items():
            have = (size[level] or math.inf) / self.nest.arch.word_bytes
            need = sum(tile.words[level] * tile.slots for tile, place in placed if place == level)
            shares.append((have - free + need) / have if have < math.inf else 0.0)
        return max(shares)


class Places:
    """Assignments of the tensors of a tile under a choice."""

    def __init__(self, rooms: Rooms, choice: Choice) -> None:
        nest = rooms.nest
        self.rooms = rooms
        self.levels = tuple(reversed(nest.arch.on_chip))
        bindings = {
            step.name: bind(nest.cascade, array, choice.layouts[array], step)
            for step, array in zip(nest.steps, choice.binding, strict=True)
        }
        self.options: list[dict[str, float]] = []
        """Places of each tensor with their energy, pJ."""
        for tile in rooms.tiles:
            readers = tuple(bindings[reader.name] for reader in tile.resident.readers)
            options = dict.fromkeys(_registers(nest, tile.resident, bindings), 0.0)
            options |= {level: rooms.picojoules(tile, level, readers) for level in self.levels}
            wanted = rooms.fixed.get(tile.resident.tensor)
            options = {place: energy for place, energy in options.items() if wanted in (None, place)}
            self.options.append(dict(sorted(options.items(), key=lambda option: option[1])))
        self._queue: list[tuple[float, tuple[int, ...]]] = []
        self._seen: set[tuple[int, ...]] = set()
        self._now: tuple[int, ...] = (0,) * len(self.options)
        if all(self.options):
            self._push(self._now)

    @property
    def least(self) -> float:
        """Energy of the first assignment beyond that with all tensors in registers."""
        return self._queue[0][0] if self._queue else math.inf

    def __iter__(self) -> Iterator[tuple[float, dict[str, str], int, str]]:
        """(least energy beyond that with all tensors in registers; where tensors stay if not in the innermost level; most tiles in
        flight that the levels have room for, and the level that has room for no more)."""
        while self._queue:
            energy, self._now = heapq.heappop(self._queue)
            chosen = [list(options)[at] for at, options in zip(self._now, self.options, strict=True)]
            most, full = self.rooms.most(list(zip(self.rooms.tiles, chosen, strict=True)))
            if most:
                yield energy, self._stay(chosen), most, full
            else:
                self.move_out(full)

    @property
    def outermost(self) -> dict[str, str]:
        """The assignment that needs least of the inner levels."""
        return self._stay([self.levels[-1]] * len(self.options))

    @property
    def lacking(self) -> float:
        """What that needs of the level that has least room, as a share of what there is."""
        return self.rooms.lacking([(tile, self.levels[-1]) for tile in self.rooms.tiles])

    def _stay(self, chosen: list[str]) -> dict[str, str]:
        named = zip((tile.resident.tensor for tile in self.rooms.tiles), chosen, strict=True)
        return dict.fromkeys(self.rooms.handed_on, FORWARD) | {name: place for name, place in named if place != self.levels[0]}

    def move_out(self, full: str) -> None:
        """Also try the assignment at hand with a tensor moved out of a place."""
        for number, options in enumerate(self.options):
            if list(options)[self._now[number]] == full:
                for further in range(self._now[number] + 1, len(options)):
                    self._push((*self._now[:number], further, *self._now[number + 1 :]))

    def _push(self, state: tuple[int, ...]) -> None:
        if state not in self._seen:
            self._seen.add(state)
            energy = sum(list(options.values())[at] for at, options in zip(state, self.options, strict=True))
            heapq.heappush(self._queue, (energy, state))


def _is_handed_on(nest: Nest, resident: Resident) -> bool:
    """Whether all readers may take the elements of a tensor as they are made."""
    shape = frozenset(nest.cascade.tensor(resident.tensor).ranks)
    return all(reader.ranks == shape and nest.between(resident.producer, reader) is None for reader in resident.readers)


def _registers(nest: Nest, resident: Resident, bindings: Map_[str, Binding]) -> list[str]:
    """The arrays whose registers can hold a tensor of a single tile; those of who reads it first."""
    if resident.leaves:
        return []
    steps = (*resident.readers, resident.producer)
    arrays = dict.fromkeys(bindings[step.name].array for step in steps)
    return [
        name for name in arrays
        if _has_room(nest, resident.tensor, name, [b for step in steps if (b := bindings[step.name]).array == name])
    ]  # fmt: skip


def _has_room(nest: Nest, tensor: str, name: str, bindings: list[Binding]) -> bool:
    """Whether all on an array lay a tensor out in one way, and a lane has room for its part."""
    array, ranks = nest.arch.arrays[name], nest.own_ranks(tensor)
    sides = range(len(array.side))
    laid = {tuple(tuple(rank for rank in binding.along(side) if rank in ranks) for side in sides) for binding in bindings}
    words = math.prod(nest.size(rank) for rank in ranks - bindings[-1].ranks)  # as the one who makes it lays it out
    for side, lanes in enumerate(array.side):
        here = [nest.size(rank) for rank in bindings[-1].along(side) if rank in ranks]
        words *= math.ceil(math.prod(here) / lanes) if here else 1
    return len(laid) == 1 and words <= array.registers.words
