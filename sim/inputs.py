"""Inputs: transfers that bring tiles to the places that hold them, when the tile held there is to be another one.

In: what a step reads in a tile. Out: the loads that it has to wait for. At each place (a level, or the registers of an array) an
input has as many slots as the mapping gives it; a load waits for the last readers of the slot that it overwrites. A tensor with a
single slot is replaced word by word: a load may begin with the last reader and ends no earlier than it, and what inner loops read
in pieces also comes in pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..einsum.cascade import Coord, free_ranks
from ..mapper.accesses import copies, feeds
from ..mapper.nest import Nest, Step, Stream, slots_of
from .task import Cause, Index, Move, Task
from .traffic import constant
from .walk import Box, Lookup, Walk, size


@dataclass(slots=True)
class Load:
    """A tile that was brought to a place."""

    number: int
    """The task that brought it."""
    words: int
    users: list[int] = field(default_factory=list)
    """Tasks that read it there."""


@dataclass(slots=True)
class Slot:
    """What a place holds of an input, or of a piece of it."""

    key: Index
    box: Box
    loads: deque[Load]
    """The tiles that were brought last, as many as there are slots; the last one is held."""
    instance: int


@dataclass
class Place:
    """A level or array that holds tiles of an input."""

    name: str
    outer: int | None
    """The place in the chain that it gets them from; none: the backing store."""
    source: str
    axes: list[int]
    """Loops that may change the tile."""
    apart: list[int]
    """Loops whose iterations have slots of their own: instances, parts for instances, pieces."""
    moving: list[int]
    """Loops in time down to the last one that moves the tile."""
    box: Callable[[Index], Box]
    slots: int
    single: bool
    link: str | None
    copies: tuple[float, list[Lookup]] | None
    """Where every taker has its own read: how many take each word."""
    now: dict[Index, Slot] = field(default_factory=dict)
    shared: dict[int, tuple[Index, dict[Box, int]]] = field(default_factory=dict)
    """By instance of the source: the reads of the iteration at hand, which instances share."""


Emit: TypeAlias = Callable[..., Task]
"""Makes a transfer: (kind, tensor, moves, tile, words, waits)."""


class Inputs:
    """The inputs of a group and where they are held."""

    def __init__(self, walk: Walk, made: Sequence[Task]) -> None:
        self.walk, self.nest, self.made = walk, walk.nest, made
        self.places = [[_place(walk, stream, at) for at in range(len(stream.chain))] for stream in self.nest.streams]
        self.taken: list[tuple[str, int, Load, int | None]] = []
        """(place, instance, tile whose slot was taken, load that replaced it word by word)."""
        self.routes: dict[str, list[tuple[int, list[int]]]] = {}
        """For each step, its inputs and the places on their way to its array, from the outermost inwards."""
        for step in self.nest.steps:
            self.routes[step.name] = []
            for position, stream in enumerate(self.nest.streams):
                if step in stream.readers:
                    way = {*self.nest.arch.path(step.binding.array), step.binding.array}
                    self.routes[step.name].append((position, [i for i, (place, _) in enumerate(stream.chain) if place in way]))

    def bring(self, step: Step, index: Index, emit: Emit) -> list[Load]:
        """The tiles that a step reads where they are held next to its array, brought there if need be."""
        found = []
        for position, route in self.routes[step.name]:
            load = None
            for at in route:
                load = self._hold(position, at, index, emit)
            if load is not None:
                found.append(load)
        return found

    def _hold(self, position: int, at: int, index: Index, emit: Emit) -> Load:
        place = self.places[position][at]
        apart = tuple([index[axis] for axis in place.apart])
        key = tuple([index[axis] for axis in place.axes])
        slot = place.now.get(apart)
        if slot is not None:
            if slot.key == key:
                return slot.loads[-1]
            box = place.box(index)
            if slot.box == box:
                slot.key = key
                return slot.loads[-1]
            slot.key, slot.box = key, box
        else:
            slot = place.now[apart] = Slot(key, place.box(index), deque(maxlen=place.slots), self.walk.instance(place.name, index))
        return self._load(position, place, slot, index, emit)

    def _load(self, position: int, place: Place, slot: Slot, index: Index, emit: Emit) -> Load:
        tensor = self.nest.streams[position].tensor
        words = size(slot.box)
        outer = None if place.outer is None else self._hold(position, place.outer, index, emit)
        waits: list[tuple[int, Cause]] = [] if outer is None else [(outer.number, "data")]
        reads = self._reads(place, index)
        first = reads.get(slot.box)
        if first is not None:
            waits.append((first, "data"))
        task = emit("load", tensor, self.moves(place, tensor, index, words, first is not None), index, words, waits)
        if first is None and place.copies is None:
            reads[slot.box] = task.number
        if outer is not None:
            outer.users.append(task.number)
        load = Load(task.number, words)
        if len(slot.loads) == place.slots:
            former = slot.loads[0]
            self.taken.append((place.name, self.walk.instance(place.name, index), former, task.number if place.single else None))
            for user in former.users:
                reader = self.made[user]
                if place.single and not reader.also:
                    task.trails.append((user, max(0.0, reader.cycles - task.cycles)))
                else:
                    task.waits.append((user, "space"))
        slot.loads.append(load)
        return load

    def _reads(self, place: Place, index: Index) -> dict[Box, int]:
        """The loads of this iteration from the same source, which instances may share."""
        time = tuple([index[axis] for axis in place.moving])
        instance = self.walk.instance(place.source, index)
        if instance not in place.shared or place.shared[instance][0] != time:
            place.shared[instance] = (time, {})
        return place.shared[instance][1]

    def moves(self, place: Place, tensor: str, index: Index, words: int, shared: bool) -> tuple[Move, ...]:
        """What a load moves; where instances share its read, only the first of them reads."""
        sent: float = words
        if place.copies is not None:
            sent = place.copies[0] * words
            for factor in place.copies[1]:
                sent *= factor(index)
        found: list[Move] = []
        if not shared:
            instance = self.walk.instance(place.source, index)
            found.append((place.source, instance, "read", tensor, sent))
            if place.link is not None:
                found.append((place.link, instance, "sent", tensor, sent))
        if place.name in self.nest.arch.memory:
            found.append((place.name, self.walk.instance(place.name, index), "written", tensor, words))
        return tuple(found)


def _place(walk: Walk, stream: Stream, at: int) -> Place:
    nest = walk.nest
    name, depth = stream.chain[at]
    readers = [step for step in stream.readers if name in (*nest.arch.path(step.binding.array), step.binding.array)]
    level = feeds(nest, stream, readers[0], name)
    outer = next((i for i, (place, _) in enumerate(stream.chain[:at]) if place == level), None)
    single = stream.tensor in nest.group.single
    own = walk.input_axes(stream.indices, depth)
    whole = len(nest.trips)
    pieces: list[int] = []
    if single and not nest.masks and _apart_at_least(nest, stream, depth):
        pieces = [axis for axis in walk.input_axes(stream.indices, whole) if axis >= depth and axis not in nest.spread]
    cut = whole if pieces else depth
    moving = max((axis for axis in own if axis not in nest.spread and nest.trips[axis] > 1), default=-1)
    network = nest.arch.network(level, name)
    each: tuple[float, list[Lookup]] | None = None
    if network is not None and not network[1].multicast:
        each = (1.0, [])
        if name in nest.arch.arrays:
            each = constant(copies(nest, readers[0], frozenset().union(*(free_ranks(i) for i in stream.indices)), depth))
    return Place(
        name, outer, level,
        walk.input_axes(stream.indices, cut),
        sorted({*nest.spread_to(name), *(axis for axis in own if axis in nest.spread), *pieces}),
        [axis for axis in walk.in_time if axis <= moving],
        walk.boxes(stream.tensor, stream.indices, cut),
        1 if single or name in nest.arch.arrays else slots_of(nest, depth),
        single,
        None if network is None else network[0],
        each,
    )  # fmt: skip


def _apart_at_least(nest: Nest, stream: Stream, depth: int) -> bool:
    """Whether what inner loops read of a held tile are pieces that do not overlap."""
    inner = {loop.rank for loop in nest.group.loops[depth:]}
    return all(isinstance(index, Coord) or not free_ranks(index) & inner for index in stream.indices)
