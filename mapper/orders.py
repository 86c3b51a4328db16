"""The orders of the loops of a cut: what is held where, for how much traffic, and lower bounds of all their tilings at once.

In: loops in no order yet, placed once (whether Einsums may share them does not depend on their order), and arrays of tiles. Out:
for each order that differs in what it fetches or keeps, `Block`s: tilings that fit, each with the inputs held in a given
way, and its lower bound.

An order decides two things alone. An input that is cut by some loops is fetched again in each iteration of the other loops outside
the innermost of these; a result that is needed across a loop is kept as the loops outside that one cut it. Orders in which both are
the same are one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import free_ranks
from .closed.tiles import Tiles
from .closed.words import Open, Words
from .floors import Floor, Floors, Made, is_simple, level_pj, port_cycles, whole_words
from .mapping import Loop
from .nest import Nest
from .space import ANYTHING, Cut, Fixed, Looped
from .steps import Step
from .streams import Stream
from .tape import Floats, Program, Tape
from .team import Team
from .timing import predecessors

MAX_COMBINATIONS = 2**10
"""Most ways to hold the inputs of one order that are tried; beyond, small tensors have their smallest tile."""
ANYWHERE = ""
"""Some level on the chip."""
OUTSIDE = -1
"""Held outside all loops of the cut."""
Axes: TypeAlias = frozenset[int]


@dataclass(frozen=True)
class Option:
    """One way to hold an input at a level."""

    at: int
    """The loop whose steps change what is held, by its place in the order; OUTSIDE."""
    words: Floats
    """That one instance fetches."""
    tile: Floats
    """Words of one slot."""
    slots: int


@dataclass(frozen=True)
class Kept:
    """A result that is kept across loops, or all of whose tile is kept."""

    made: Made
    home: str
    """The innermost level in which its sums can be completed."""
    words: Floats
    slots: int
    lasts: bool


@dataclass(frozen=True)
class Block:
    """Tilings of one order, by their bounds."""

    order: tuple[int, ...]
    level: str
    """Where results that last stay (or further out, where they cannot be completed there)."""
    rows: NDArray[np.int64]
    holds: tuple[tuple[tuple[int, ...], ...], ...]
    """Ways to hold the inputs: for each level on the chip, for each input, the place in the order where it is held."""
    held: NDArray[np.int64]
    """Which of them, for each row."""
    cycles: Floats
    energy: Floats
    words: Floats
    moved: Floats
    """Cycles of the backing store."""
    carried: Floats
    """Energy besides operations and operands."""


@dataclass
class Tilings:
    """What is known of some tilings of a cut."""

    tiles: Map_[str, tuple[Floats, ...]]
    """Of each rank, the outermost loop first."""
    floor: Floor
    rows: NDArray[np.int64]
    one_tile: Map_[str, Floats]
    """Cycles of each step in one tile at least, until its reductions have come out; none where steps are not placed yet."""


class Orders:
    """The orders of one cut on one team; `nest`: its loops in one order, placed with room for everything."""

    def __init__(
        self,
        nest: Nest,
        team: Team,
        looped: Looped,
        cut: Cut,
        floors: Floors,
        tilings: Tilings,
        every: bool,
        fixed: Fixed = ANYTHING,
    ) -> None:
        self.fixed = fixed
        self.nest, self.team, self.looped, self.cut, self.floors, self.tilings = nest, team, looped, cut, floors, tilings
        self.every = every
        """Whether every way to hold the inputs counts, not only the one with least traffic."""
        self.arch, self.leaves = team.arch, floors.leaves
        self.levels = team.arch.on_chip
        self.count = len(tilings.rows)
        self.before = len(team.loops) + len(looped.outside)
        self.prefix = frozenset(loop.rank for loop in looped.outside)
        self._words: dict[Any, Floats] = {}
        self._tiles: dict[Any, Floats] = {}
        self._lengths: dict[Any, Floats] = {}
        self.own = [frozenset().union(*(free_ranks(index) for index in stream.indices)) for stream in nest.streams]
        self.read = [frozenset().union(*(reader.ranks for reader in stream.readers)) for stream in nest.streams]
        self.shares = [max(floors.shares.get(r.position, 1.0) for r in stream.readers) for stream in nest.streams]
        self.simple = [is_simple(nest, stream.tensor, stream.indices) for stream in nest.streams]
        self.made = frozenset(made.tensor for made in floors.made)

    @cached_property
    def crossed(self) -> dict[str, Axes | None]:
        """For each tensor made, the loops across whose iterations it is needed; None: one outside the cut is."""
        return {made.tensor: self._crossed(made) for made in self.floors.made}

    # --- tiles ---

    def length(self, rank: str, axes: Axes) -> Floats:
        """Positions of a rank in the largest tile, as cut by some loops of the cut and by those outside."""
        key = rank, tuple(sorted(axis for axis in axes if self.cut.axes[axis] == rank))
        if key not in self._lengths:
            whole = 1.0 if rank in self.prefix else float(self.team.sizes.extents[rank])
            found = np.full(self.count, whole)
            if key[1]:
                found = self._tile(key[1][-1])
            self._lengths[key] = found
        return self._lengths[key]

    def _tile(self, axis: int) -> Floats:
        """The tile of a loop."""
        rank = self.cut.axes[axis]
        if rank in self.cut.moving:
            return np.ones(self.count)
        return self.tilings.tiles[rank][0 if self.cut.outer is not None and axis == 0 else -1]

    def tiles_of(self, rank: str, axes: Axes) -> Floats:
        """How many tiles of a rank there are, as cut by some loops."""
        return np.ceil(float(self.team.sizes.extents[rank]) / self.length(rank, axes))

    # --- orders ---

    def distinct(self) -> Iterator[tuple[int, ...]]:
        """Orders that differ in what is fetched or kept."""
        seen = set()
        for order in self.cut.orders():
            place = {axis: at for at, axis in enumerate(order)}
            key: list[Any] = []
            for number in range(len(self.nest.streams)):
                key.append(self._signature(number, order))
            for made in self.floors.made:
                cut = self._cut_of(made, order)
                key.append(None if cut is None else frozenset(axis for axis in cut if self._is_of(axis, made.tensor)))
            if self.cut.outer is not None:  # which loops stand between the two over one rank
                key.append(frozenset(axis for axis in order if place[axis] < place[self._inner]))
            if tuple(key) not in seen:
                seen.add(tuple(key))
                yield order

    def _signature(self, number: int, order: tuple[int, ...]) -> Any:
        """What an order means to an input."""
        if not self.simple[number]:
            return tuple(axis for axis in order if self.cut.axes[axis] in self.own[number] | self.read[number])
        places = self.places(number, order)
        return tuple((self._own_axes(number, order, at), self._again(number, order, at)) for at in places)

    @property
    def _inner(self) -> int:
        return max(axis for axis, rank in enumerate(self.cut.axes) if rank == self.cut.outer)

    def _is_of(self, axis: int, tensor: str) -> bool:
        declared = self.nest.cascade.tensor(tensor)
        return self.cut.axes[axis] in declared.ranks and self.cut.axes[axis] != declared.iterates

    def _crossed(self, made: Made) -> Axes | None:
        nest = self.nest
        placed = {step.name: step for step in nest.steps}
        step = placed[made.producer.name]
        axes = set(nest.crossings(step, step, made.tensor))
        for reader in made.readers:
            axes |= set(nest.crossings(step, placed[reader.name], made.tensor))
        if made.initial is not None and (initial := placed[made.initial.name]).slots != step.slots:
            axes |= set(nest.crossings(initial, step, made.tensor))
        return None if any(axis < self.before for axis in axes) else frozenset(axis - self.before for axis in axes)

    def _cut_of(self, made: Made, order: tuple[int, ...]) -> Axes | None:
        """Loops that cut what is kept of a tensor; None: not those outside the cut either."""
        crossed = self.crossed[made.tensor]
        if crossed is None:
            return None
        at = min((place for place, axis in enumerate(order) if axis in crossed), default=len(order))
        return frozenset(order[:at])

    # --- inputs ---

    def places(self, number: int, order: tuple[int, ...]) -> list[int]:
        """Where in an order an input may be held: of those that fetch it equally often, the one with the smallest tile."""
        found: dict[Axes, int] = {}
        own = [at for at, axis in enumerate(order) if self.cut.axes[axis] in self.own[number]]
        for at in [OUTSIDE, *own]:
            found[self._again(number, order, at)] = at
        wanted = self.fixed.holds.get(self.nest.streams[number].tensor, {}).values()
        named = [at for at in own if self.cut.axes[order[at]] in wanted]
        return list(dict.fromkeys([*found.values(), *named]))

    def _obeys(self, level: str, number: int, order: tuple[int, ...], at: int) -> bool:
        """Whether an input may be held at a place of an order."""
        holds = self.fixed.holds.get(self.nest.streams[number].tensor, {})
        if level not in holds:
            return True
        rank = holds[level]
        if at == OUTSIDE:
            here = [loop.rank for loop in self.looped.outside if loop.rank in self.own[number]]
            return rank == (here[-1] if here else None)
        return self.cut.axes[order[at]] == rank

    def _own_axes(self, number: int, order: tuple[int, ...], at: int) -> Axes:
        return frozenset(axis for axis in order[: at + 1] if self.cut.axes[axis] in self.own[number])

    def _again(self, number: int, order: tuple[int, ...], at: int) -> Axes:
        """Loops that make an input come again."""
        axes = self.cut.axes
        if at == OUTSIDE:
            return frozenset()
        return frozenset(a for a in order[:at] if axes[a] not in self.own[number] and axes[a] in self.read[number])

    def option(self, number: int, order: tuple[int, ...], at: int) -> Option:
        """An input held at a place of an order."""
        stream = self.nest.streams[number]
        own, again = self._own_axes(number, order, at), self._again(number, order, at)
        torn = self._torn(number, order, at, again)
        key: Any = (number, own, again, torn) if self.simple[number] else (number, order[: at + 1])
        if key not in self._words:
            if self.simple[number] and not self._half_cut(stream, own):
                words = whole_words(self.floors.nest, stream.tensor, stream.indices) * self._repeated(again, torn)
                self._words[key] = words * self.shares[number]
                self._tiles[key] = self._tile_words(stream, own)
            else:
                self._words[key], self._tiles[key] = self._in_full(number, order, at)
        temporal = bool(self.looped.outside) or at != OUTSIDE
        return Option(at, self._words[key], self._tiles[key], 2 if temporal else 1)

    def _half_cut(self, stream: Stream, own: Axes) -> bool:
        """Whether a split rank is cut in its inner part but not in its outer one."""
        cut = {self.cut.axes[axis] for axis in own} | self.prefix
        for rank, index in zip(self.nest.cascade.tensor(stream.tensor).ranks, stream.indices, strict=True):
            split = self.nest.cascade.rank(rank).split
            if split is None or len(free_ranks(index)) < 2:
                continue
            if split.inner in cut and split.outer not in cut and self.team.sizes.extents[split.outer] > 1:
                return True
        return False

    def _tile_words(self, stream: Stream, own: Axes) -> Floats:
        found = np.ones(self.count)
        for rank, index in zip(self.nest.cascade.tensor(stream.tensor).ranks, stream.indices, strict=True):
            ranks = free_ranks(index)
            split = self.nest.cascade.rank(rank).split
            if len(ranks) > 1 and split is not None:
                outer, inner = self.length(split.outer, own), self.length(split.inner, own)
                found = found * np.minimum(outer * inner, float(self.team.sizes.extents[rank]))
            for name in ranks if len(ranks) == 1 else ():
                found = found * self.length(name, own)
        return found

    def _torn(self, number: int, order: tuple[int, ...], at: int, again: Axes) -> Axes:
        """Loops between the two over one rank of an input, with nothing else of it inside: they bring nothing again where the
        outer tile is one inner one."""
        if self.cut.outer is None or self.cut.outer not in self.own[number] or self._inner not in order[: at + 1]:
            return frozenset()
        place = {axis: where for where, axis in enumerate(order)}
        outside = max((place[axis] for axis in self._own_axes(number, order, at) if axis != self._inner), default=-1)
        return frozenset(axis for axis in again if outside < place[axis] < place[self._inner])

    def _repeated(self, again: Axes, torn: Axes) -> Floats:
        """How often an input comes."""
        found = np.ones(self.count)
        for rank in sorted({self.cut.axes[axis] for axis in again - torn}):
            found = found * self.tiles_of(rank, again - torn)
        if not torn:
            return found
        between = np.ones(self.count)
        for rank in sorted({self.cut.axes[axis] for axis in torn}):
            between = between * self.tiles_of(rank, torn)
        assert self.cut.outer is not None
        outer, inner = self.tilings.tiles[self.cut.outer]
        extent = float(self.team.sizes.extents[self.cut.outer])
        last = extent - (np.ceil(extent / outer) - 1.0) * outer
        return np.asarray(found * ((extent - last) * between + last * np.where(last > inner, between, 1.0)) / extent)

    def _in_full(self, number: int, order: tuple[int, ...], at: int) -> tuple[Floats, Floats]:
        """Words and tile of an input with unusual indices: in closed form with its loops in order, or tiling by tiling."""
        stream = self.nest.streams[number]
        loops = [self.nest.group.loops[self.before + axis] for axis in order]
        nest = replace(
            self.floors.nest, group=self.nest.group.model_copy(update={"loops": (*self.looped.outside, *loops)}),
            steps=tuple(replace(step, slots=()) for step in self.nest.steps), streams=(),
        )  # fmt: skip
        skipped = len(self.looped.outside)
        depth = skipped + at + 1
        own = [d for d in range(1, depth + 1) if nest.group.loops[d - 1].rank in self.own[number]]
        held = replace(stream, depth=own[-1] if own else 0)
        tiles = {skipped + place: self._tile(axis) for place, axis in enumerate(order)}
        one = frozenset(axis for axis, loop in enumerate(nest.group.loops) if loop.tile == 1 and axis not in tiles)
        one |= frozenset(skipped + place for place, axis in enumerate(order) if self.cut.axes[axis] in self.cut.moving)
        tape = Tape()
        words = Words(Tiles(nest, tape, one))
        try:
            outputs = {"words": words.stream_words(held) * self.shares[number], "tile": words.stream_tile(held)}
        except Open:
            return self._counted(nest, held, tiles)
        program = Program(tape, outputs)
        found = program.run({name: self._input(name, tiles) for name in program.inputs}, self.count)
        return found["words"], found["tile"]

    def _input(self, name: str, tiles: Map_[int, Floats]) -> Any:
        """An input of a tape."""
        kind, rest = name.split(" ", 1)
        match kind:
            case "extent":
                return float(self.team.sizes.extents[rest])
            case "scalar":
                return float(self.team.sizes.scalars[rest])
            case "tile":
                return tiles.get(int(rest.split(".")[1]), 1.0)
            case _:
                return self.leaves[rest]

    def _counted(self, nest: Nest, stream: Stream, tiles: Map_[int, Floats]) -> tuple[Floats, Floats]:
        words, tile = np.empty(self.count), np.empty(self.count)
        for row in range(self.count):
            loops = tuple(
                Loop(rank=loop.rank, tile=int(tiles[axis][row])) if axis in tiles else loop
                for axis, loop in enumerate(nest.group.loops)
            )
            here = replace(nest, group=nest.group.model_copy(update={"loops": loops}))
            words[row], tile[row] = here.stream_words(stream), here.stream_tile(stream)
        return words, tile

    # --- results ---

    def kept(self, order: tuple[int, ...]) -> list[Kept]:
        """Results that stay in a storage level: across loops, or within a tile where nothing else is possible."""
        found = []
        for made in self.floors.made:
            cut = self._cut_of(made, order)
            if cut is not None and len(cut) == len(order):
                found.append(self._within(made, cut))
                continue
            words = np.ones(self.count)
            for rank in self.nest.own_ranks(made.tensor):
                words = words * (self.length(rank, cut) if cut is not None else float(self.team.sizes.extents[rank]))
            temporal = made.leaves and cut is not None and bool(self.looped.outside or cut)
            found.append(Kept(made, self.nest.residents[made.tensor].place, words, 2 if temporal else 1, True))
        return [each for each in found if each is not None]

    def _within(self, made: Made, cut: Axes) -> Kept | None:
        """A result that is used in the tile that makes it, if it must be in a storage level; 0 words where it need not."""
        if made.handed_on:
            return None
        words = np.ones(self.count)
        for rank in self.nest.own_ranks(made.tensor):
            words = words * self.length(rank, cut)
        if room := made.in_registers(self.arch):
            words = np.where(words > room, words, 0.0)
            if not words.any():
                return None
        home = self.nest.residents[made.tensor].place if made.tensor in self.nest.residents else ANYWHERE
        return Kept(made, home, words, 2 if made.leaves and bool(self.looped.outside or cut) else 1, False)

    def staying(self, order: tuple[int, ...], level: str) -> dict[str, str]:
        """Where results that last stay, if not in the innermost level that they can."""
        lasting = {each.made.tensor: (each.home, self._place(each, level)) for each in self.kept(order) if each.lasts}
        return {name: place for name, (home, place) in lasting.items() if place != home}

    def counted(self, order: tuple[int, ...], row: int) -> dict[str, float]:
        """Energy of the tensors of a tile that bounds have in a level, pJ."""
        floor, team = self.tilings.floor, self.team
        read: dict[str, float] = {}
        written: dict[str, float] = {}
        for each in self.kept(order):
            made = each.made
            if not each.lasts and each.words[row] > 0:
                times = team.times(self.levels[-1], made.producer.ranks, False)
                written[made.tensor] = float(floor.made[made.tensor][row]) * times
                read[made.tensor] = float(floor.back[made.tensor][row]) * times
                read[made.tensor] += self._tensor(made.tensor) if made.leaves else 0.0
        ranks = {name: self.nest.own_ranks(name) for name in read}
        for at, step in enumerate(self.nest.steps):
            for number, access in enumerate(step.reads):
                if access.tensor in read:
                    alike = step.ranks if len(self.levels) == 1 else ranks[access.tensor]
                    words = float(floor.operands[at, access.tensor, number][row])
                    read[access.tensor] += words * team.times(self.levels[-1], alike, False)
        totals = {name: float(level_pj(self.leaves, name, sum(read.values()), sum(written.values()))) for name in self.levels}
        where = min(totals, key=totals.__getitem__)
        return {name: float(level_pj(self.leaves, where, read[name], written[name])) for name in read}

    # --- bounds ---

    def blocks(self) -> Iterator[Block]:
        """All distinct orders, with their tilings that may fit."""
        for order in self.distinct():
            kept = self.kept(order)
            last = [each for each in kept if each.lasts]
            for level in reversed(self.levels) if last else self.levels[-1:]:
                block = self._block(order, kept, level)
                if block is not None:
                    yield block

    def least_need(self, order: tuple[int, ...]) -> Floats:
        """Bytes of the innermost level that each tiling takes at least, as a share of what there is."""
        innermost = self.levels[-1]
        need = np.zeros(self.count)
        for number in range(len(self.nest.streams)):
            options = [self.option(number, order, at) for at in self.places(number, order)]
            need = need + np.minimum.reduce([option.tile * option.slots for option in options])
        if len(self.levels) == 1:
            need = need + sum((each.words * each.slots for each in self.kept(order)), np.zeros(self.count))
        return np.asarray(need * self.leaves["word_bytes"] / self.leaves[f"{innermost}.size"])

    def _crowding(self, kept: list[Kept], free: Map_[str, Floats]) -> Floats:
        """How much of the levels what a tile makes takes at least, each tensor at the level that has most room for it: more than 1
        where they do not fit. `free`: words of one instance of each level."""
        worst, total = np.zeros(self.count), np.zeros(self.count)
        for each in kept:
            if not each.lasts:
                ranks = self.nest.own_ranks(each.made.tensor)
                need = each.words * each.slots
                share = np.minimum.reduce(
                    [need * self.team.inside(name, ranks) / np.maximum(room, 0.5) for name, room in free.items()]
                )
                worst, total = np.maximum(worst, share), total + share
        return np.maximum(worst, total / len(self.levels))

    def _size(self, level: str) -> float:
        """Words of one instance of a level."""
        return self.leaves[f"{level}.size"] / self.leaves["word_bytes"]

    def _place(self, kept: Kept, level: str) -> str:
        """Where a result stays: at a level, or further out where its sums can be completed."""
        order = list(self.arch.memory)
        return order[min(order.index(kept.home), order.index(level))]

    def _block(self, order: tuple[int, ...], kept: list[Kept], level: str) -> Block | None:
        memory = self.arch.memory
        options = [
            {at: self.option(number, order, at) for at in self.places(number, order)} for number in range(len(self.nest.streams))
        ]
        fits = np.ones(self.count, dtype=bool)
        chosen: list[tuple[list[tuple[int, ...]], NDArray[np.int64]]] = []
        inner: NDArray[np.int64] | None = None  # where each input is held one level further in: [input, row]
        free: dict[str, Floats] = {}
        for number, name in reversed(list(enumerate(self.levels))):
            size = self._size(name)
            lasting = np.zeros(self.count)
            for each in kept:
                home = self._place(each, level) if each.lasts else each.home
                if each.lasts and self.fixed.stays.get(each.made.tensor, home) != home:
                    return None
                if home == name and (each.lasts or len(self.levels) == 1):
                    parts = self.team.inside(name, self.nest.own_ranks(each.made.tensor))
                    lasting = lasting + each.words * each.slots * parts
            free[name] = size - lasting
            outermost = number == 0
            if outermost and self.every and inner is None:
                return self._every(order, kept, level, options, lasting, size)
            ways, which = self._hold(name, order, options, lasting, size, inner)
            fits &= which >= 0
            if not fits.any():
                return None
            chosen.insert(0, (ways, which))
            table = np.array(ways, dtype=np.int64).reshape(len(ways), len(options))
            inner = table[which].T
        if len(self.levels) > 1:
            fits &= self._crowding(kept, free) <= 1.0
        rows = np.flatnonzero(fits)
        if len(self.levels) == 1:
            ways, which = chosen[0]
            return self._bounded(order, level, kept, options, rows, tuple((way,) for way in ways), which[rows])
        places = [np.array(ways, dtype=np.int64).reshape(len(ways), len(options))[which[rows]] for ways, which in chosen]
        joined = np.concatenate(places, axis=1) if places else np.zeros((len(rows), 0), dtype=np.int64)
        distinct, held = np.unique(joined, axis=0, return_inverse=True)
        count = len(options)
        holds = tuple(
            tuple(tuple(int(at) for at in row[place * count : (place + 1) * count]) for place in range(len(memory) - 1))
            for row in distinct
        )
        return self._bounded(order, level, kept, options, rows, holds, held.reshape(-1))

    def _every(
        self, order: tuple[int, ...], kept: list[Kept], level: str, options: list[dict[int, Option]], lasting: Floats, size: float
    ) -> Block | None:
        """All ways to hold the inputs, on two levels."""
        rows, held = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        holds: list[tuple[tuple[int, ...], ...]] = []
        for way in self._ways(self.levels[0], order, options):
            need = lasting
            for number, at in enumerate(way):
                option = options[number][at]
                need = need + option.tile * option.slots
            fit = np.flatnonzero(need <= size)
            if len(fit):
                rows.append(fit)
                held.append(np.full(len(fit), len(holds)))
                holds.append((way,))
        if not rows:
            return None
        return self._bounded(order, level, kept, options, np.concatenate(rows), tuple(holds), np.concatenate(held))

    def _ways(self, level: str, order: tuple[int, ...], options: list[dict[int, Option]]) -> list[tuple[int, ...]]:
        """Combinations of places for all inputs."""
        listed = [[at for at in by if self._obeys(level, number, order, at)] for number, by in enumerate(options)]
        sizes = [float(np.max(next(iter(by.values())).words)) for by in options]
        for number in sorted(range(len(options)), key=sizes.__getitem__):
            if math.prod(len(each) for each in listed) <= MAX_COMBINATIONS:
                break
            listed[number] = listed[number][-1:]
        return [way for way in itertools.product(*listed) if self._writable(order, way)]

    def _writable(self, order: tuple[int, ...], way: tuple[int, ...]) -> bool:
        """Whether inputs held outside all loops have a loop there that can say so: a second one over a rank that they share."""
        if self.before:
            return True
        axes = [self.cut.axes[axis] for axis in order]
        outside = [self.own[number] for number, at in enumerate(way) if at == OUTSIDE and self.own[number] & set(axes)]
        if not outside:
            return True
        if self.cut.outer is not None:
            return False
        return bool(frozenset.intersection(*outside) & set(axes[1:]) & set(self.cut.chosen))

    def _hold(
        self,
        level: str,
        order: tuple[int, ...],
        options: list[dict[int, Option]],
        lasting: Floats,
        size: float,
        inner: NDArray[np.int64] | None,
    ) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
        """For each row the way with least traffic into a level that fits (-1: none), an input that is held further in at the
        same place not counted; of equal ways the one with smaller tiles."""
        ways = self._ways(level, order, options)
        words = np.full(self.count, np.inf)
        taken = np.full(self.count, np.inf)
        which = np.full(self.count, -1, dtype=np.int64)
        parts = [self.team.inside(level, own) for own in self.own]
        for row, way in enumerate(ways):
            mine, need, tile = np.zeros(self.count), lasting, np.zeros(self.count)
            allowed = np.ones(self.count, dtype=bool)
            for number, at in enumerate(way):
                option = options[number][at]
                here = option.tile * (option.slots * parts[number])
                if inner is not None:
                    allowed &= inner[number] >= at
                    here = np.where(inner[number] == at, 0.0, here)
                mine = mine + option.words
                need = need + here
                tile = tile + option.tile
            better = allowed & (need <= size) & ((mine < words) | ((mine == words) & (tile < taken)))
            words[better], taken[better], which[better] = mine[better], tile[better], row
        return ways, which

    def _bounded(
        self,
        order: tuple[int, ...],
        level: str,
        kept: list[Kept],
        options: list[dict[int, Option]],
        rows: NDArray[np.int64],
        holds: tuple[tuple[tuple[int, ...], ...], ...],
        held: NDArray[np.int64],
    ) -> Block:
        """Lower bounds of rows whose inputs are held in given ways."""
        homes = [self._place(each, level) if each.lasts else each.home for each in kept]
        bounds = np.empty((5, len(rows)))
        for way, places in enumerate(holds):
            mine = np.flatnonzero(held == way)
            if not len(mine):
                continue
            flows: list[list[tuple[str, Option]]] = []
            for number, by in enumerate(options):
                at = [level_places[number] for level_places in places]
                inside = [*at[1:], None]  # what is held further in at the same place passes this level by
                flows.append([(name, by[a]) for name, a, b in zip(self.levels, at, inside, strict=True) if a != b])
            bounds[:, mine] = self.bound(rows[mine], kept, homes, flows)
        return Block(order, level, rows, holds, held, *bounds)

    def unordered(self) -> tuple[Floats, Floats, Floats, Floats]:
        """(cycles, energy, words, share of what the levels hold) that no order can go below: every input fetched once and held in
        its smallest tile."""
        every = frozenset(range(len(self.cut.axes)))
        flows: list[list[tuple[str, Option]]] = []
        need = np.zeros(self.count)
        for number, stream in enumerate(self.nest.streams):
            own = frozenset(axis for axis in every if self.cut.axes[axis] in self.own[number])
            if not self.simple[number] or self._half_cut(stream, own):
                flows.append([])
                continue
            tile, whole = self._tile_words(stream, own), whole_words(self.floors.nest, stream.tensor, stream.indices)
            need = need + tile * (2.0 if self.looped.outside else np.where(tile < whole, 2.0, 1.0))
            words = np.full(self.count, whole * self.shares[number])
            flows.append([(self.levels[-1], Option(OUTSIDE, words, np.zeros(self.count), 1))])
        kept = [each for each in (self._within(made, every) for made in self.floors.made) if each is not None]
        need = need / self._size(self.levels[-1])
        if len(self.levels) == 1:
            need = need + sum((each.words for each in kept), np.zeros(self.count)) / self._size(self.levels[-1])
        else:
            single = [replace(each, slots=1) for each in kept]
            need = np.maximum(need, self._crowding(single, {name: np.full(self.count, self._size(name)) for name in self.levels}))
        home = self.levels[-1] if len(self.levels) == 1 else ANYWHERE
        cycles, energy, words, _, _ = self.bound(np.arange(self.count), kept, [home] * len(kept), flows)
        return cycles, energy, words, need

    def bound(
        self, rows: NDArray[np.int64], kept: list[Kept], homes: list[str], flows: list[list[tuple[str, Option]]]
    ) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """(cycles with fill and drain, energy, words across the outermost boundary, cycles of the backing store, energy besides
        operations and operands), with results kept at `homes`, and each input held by some levels from the outermost inwards."""
        team, memory, floor = self.team, self.arch.memory, self.tilings.floor
        backing, innermost = self.arch.backing[0], self.levels[-1]
        zero = np.zeros(len(rows))
        read: dict[str, Any] = dict.fromkeys((*memory, ANYWHERE), zero)  # of all instances
        written: dict[str, Any] = dict.fromkeys((*memory, ANYWHERE), zero)
        operands: dict[str, Any] = dict.fromkeys((*memory, ANYWHERE), zero)
        streamed: Any = zero  # at the innermost level; their energy is that of the steps
        loads: dict[int, Floats] = {}
        per_word = port_cycles(self.leaves, backing, 1.0, 0.0)
        for number, flow in enumerate(flows):
            outer = backing
            for name, option in flow:
                words = option.words[rows]
                read[outer] = read[outer] + words * team.times(outer, self.own[number], True)
                written[name] = written[name] + words * team.times(name, self.own[number], True)
                if outer == backing and self._is_first(number):
                    loads[number] = option.tile[rows] * (team.inside(name, self.own[number]) * per_word)
                outer = name
        fetched = read[backing]
        places = {each.made.tensor: (each, home) for each, home in zip(kept, homes, strict=True)}
        for at, step in enumerate(self.nest.steps):
            for number, access in enumerate(step.reads):
                words = floor.operands[at, access.tensor, number][rows]
                if access.tensor not in self.made:
                    streamed = streamed + words * team.times(innermost, step.ranks, False)
                elif access.tensor in places:
                    each, home = places[access.tensor]
                    ranks = step.ranks if home == innermost else self.nest.own_ranks(access.tensor)
                    words = words * team.times(innermost, ranks, False)
                    if each.lasts:
                        operands[home] = operands[home] + words
                    else:
                        read[home] = read[home] + np.where(each.words[rows] > 0, words, 0.0)
        for each, home in places.values():
            made, there = each.made, each.words[rows] > 0
            times = team.times(innermost, made.producer.ranks, False)
            written[home] = written[home] + np.where(there, floor.made[made.tensor][rows] * times, 0.0)
            read[home] = read[home] + np.where(there, floor.back[made.tensor][rows] * times, 0.0)
            if made.leaves:
                read[home] = read[home] + np.where(there, float(self._tensor(made.tensor)), 0.0)
        leaving = float(sum(self._tensor(made.tensor) for made in self.floors.made if made.leaves))
        written[backing] = written[backing] + leaving
        carried: Any = zero
        asked: Any = zero
        moved: Any = zero
        for name in memory:
            count = team.instances(name)
            given = read[name] + operands[name] + (streamed if name == innermost else 0.0)
            cycles = port_cycles(self.leaves, name, given / count, written[name] / count)
            moved = np.maximum(moved, cycles)
            carried = carried + level_pj(self.leaves, name, read[name], written[name])
            asked = asked + level_pj(self.leaves, name, operands[name], 0.0)
        outside = port_cycles(self.leaves, backing, read[backing], written[backing])
        if len(self.levels) > 1:
            cheapest = [level_pj(self.leaves, name, read[ANYWHERE], written[ANYWHERE]) for name in self.levels]
            carried = carried + np.minimum.reduce(cheapest)
        asked = asked + floor.energy[rows]
        compute, tiles = floor.compute[rows], self._tile_count[rows]
        through, after = self._first_tile(rows, loads)
        # the first tile is loaded and done, all others take their time, the last results leave
        spread = through + self._last_tile[rows] * per_word + compute * (tiles - 1.0) / tiles
        cycles = np.maximum(np.maximum(compute, moved + after), spread)
        return cycles, carried + asked, fetched + leaving, outside, carried

    def _tensor(self, name: str) -> int:
        """Words of a whole tensor."""
        return math.prod(self.team.whole.extents[rank] for rank in self.nest.own_ranks(name))

    def _first_tile(self, rows: NDArray[np.int64], loads: Map_[int, Floats]) -> tuple[Floats, Floats]:
        """Least cycles until the first tile is through, and those of them after all its inputs have come."""
        loaded, after = sum(loads.values(), np.zeros(len(rows))), np.zeros(len(rows))
        there, seen = np.zeros(len(rows)), set[int]()
        ready: dict[str, Floats] = {}
        since: dict[str, Floats] = {}
        for step in self._first:
            own = [number for number, stream in enumerate(self.nest.streams) if step.name in {r.name for r in stream.readers}]
            there = there + sum((loads[number] for number in own if number in loads and number not in seen), 0.0)
            seen |= set(own)
            cycles = self.tilings.one_tile[step.name][rows] if step.name in self.tilings.one_tile else 0.0
            before = [name for name in self._before[step.name] if name in ready]
            ready[step.name] = (
                np.maximum.reduce([there if own else np.zeros(len(rows)), *(ready[name] for name in before)]) + cycles
            )
            waits = [since[name] for name in before if name in since]
            if set(loads) <= seen and (own or waits):
                since[step.name] = np.maximum.reduce([np.zeros(len(rows)), *waits]) + cycles
                after = np.maximum(after, since[step.name])
        return np.maximum.reduce([loaded, *ready.values()]), after

    @cached_property
    def _first(self) -> tuple[Step, ...]:
        """Steps that run in the first tile."""
        trips = self.nest.trips
        found = (step for step in self.nest.steps if step.slots or not trips)
        return tuple(step for step in found if all(slot != "last" or n == 1 for slot, n in zip(step.slots, trips, strict=True)))

    @cached_property
    def _before(self) -> dict[str, tuple[str, ...]]:
        return predecessors(self.nest)

    def _is_first(self, number: int) -> bool:
        """Whether an input is needed in the first tile."""
        trips = self.nest.trips
        return any(
            all(slot != "last" or trips[axis] == 1 for axis, slot in enumerate(reader.slots))
            for reader in self.nest.streams[number].readers
        )

    @cached_property
    def _tile_count(self) -> Floats:
        """Iterations of all loops of one instance."""
        found = np.full(self.count, float(math.prod(self.team.sizes.extents[loop.rank] for loop in self.looped.outside)))
        for rank in dict.fromkeys(self.cut.axes):
            found = found * self.tiles_of(rank, frozenset(range(len(self.cut.axes))))
        return found

    @cached_property
    def _last_tile(self) -> Floats:
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
