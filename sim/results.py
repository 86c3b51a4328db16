"""Results: where what a group makes is summed up, stays and leaves, and what has to wait for that.

In: the tasks that make and read the tensors of a group. Out: what a reader or a maker of a tile has to wait for, and transfers:
sums that leave the place where they are made for the next one outwards, and come back when more is to be added; complete results
on their way to the backing store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..einsum.cascade import Coord
from ..mapper.nest import FORWARD, Resident, slots_of
from .inputs import Emit
from .task import Cause, Index, Move, Task
from .walk import Box, Walk, size


@dataclass(slots=True)
class Visit:
    """A tile of sums while a place holds it."""

    box: Box
    words: float
    """Of it that have not gone out."""
    back: int | None
    """The transfer that brought it back."""


@dataclass
class Sums:
    """A place further inwards than the one where a result stays, in which it is summed up."""

    name: str
    outer: str
    box: Callable[[Index], Box]
    apart: list[int]
    """Loops whose iterations are done by instances with places of their own, or in parts of their own."""
    slots: int
    now: dict[Index, Visit] = field(default_factory=dict)
    out: dict[Index, deque[int]] = field(default_factory=dict)
    """The transfers that made room last."""
    begun: dict[Box, list[int]] = field(default_factory=dict)
    """Tiles that were there before, and the last transfers that took them out."""


class Results:
    """The tensors that a group makes."""

    def __init__(self, walk: Walk, made: Sequence[Task]) -> None:
        self.walk, self.nest, self.made = walk, walk.nest, made
        self.latest: dict[tuple[str, Index], list[int]] = {}
        """What a reader of a tile waits for: the tasks that made it, or took its sums to where they stay."""
        self.readers: dict[tuple[str, Index], list[int]] = {}
        """Tasks that read the tile that is there, its store among them; by the part of the tensor's space that it occupies."""
        self.before: dict[tuple[str, Index], deque[list[int]]] = {}
        """Those that read the tiles before it, as many as there are slots."""
        self.occupant: dict[tuple[str, Index], Index] = {}
        self.kept: dict[tuple[str, Index], dict[Index, None]] = {}
        """By tensor with sums inside: tiles that were made and are not yet where they stay."""
        self.sums = {name: list(_inner(walk, resident)) for name, resident in self.nest.residents.items()}

    def room(self, made: Resident, index: Index, part: Index, waits: dict[int, Cause], task: Task) -> None:
        """Before a tile is made: the readers of what it overwrites, the store whose slot it takes."""
        key, slot = self.walk.key(made, index) + part, (made.tensor, self.walk.slot(made, index) + part)
        former = self.occupant.get(slot)
        if former == key:
            return
        self.occupant[slot] = key
        if former is None:
            return
        slots = self._slots(made)
        before = self.before.setdefault(slot, deque(maxlen=slots))
        before.append(self.readers.pop(slot, []))
        if len(before) < slots:
            return
        for number in before[0]:
            reader = self.made[number]
            if reader.kind != "store":
                if made.depth < len(self.nest.group.loops):  # else the tiles in flight are counted
                    waits.setdefault(number, "space")
            elif made.tensor in self.nest.group.single and not reader.also:
                task.trails.append((number, max(0.0, reader.cycles - task.cycles)))
            else:
                waits.setdefault(number, "space")

    def _slots(self, made: Resident) -> int:
        """How many tiles there is room for where one tile is alive at a time."""
        whole = made.depth == len(self.nest.group.loops)
        slots = self.nest.group.in_flight if whole and made.place != FORWARD else 1
        exchanged = made.leaves and made.tensor not in self.nest.group.single
        return max(slots, slots_of(self.nest, made.depth)) if exchanged else slots

    def adds(self, made: Resident, index: Index, part: Index, waits: dict[int, Cause], task: Task) -> None:
        """A task makes a tile, or adds to it. Sums come out of one array in the order in which they went in: a task waits for the
        one before it only for its turn; what other arrays add is added as it comes."""
        key = (made.tensor, self.walk.key(made, index) + part)
        former = self.latest.get(key, [])
        adding = bool(made.producer.reduced & self.nest.cut) and made.producer.name == task.name
        others: list[int] = []
        for number in former if adding else ():
            if self.made[number].resource == task.resource:
                waits.setdefault(number, "order")
            else:
                others.append(number)
        self.latest[key] = [*others, task.number]
        if self.sums[made.tensor]:
            self.kept.setdefault((made.tensor, self.walk.core(self.sums[made.tensor][-1].name, index)), {})[key[1]] = None

    # --- sums further inwards -----------------------------------------------------------------------------------------

    def visit(self, made: Resident, index: Index, waits: dict[int, Cause], emit: Emit) -> None:
        """Before a tile is added to where sums are held: another tile may have to go out, and this one to come back."""
        places = self.sums[made.tensor]
        changed = []
        for place in places:
            box = place.box(index)
            at = tuple([index[axis] for axis in place.apart])
            now = place.now.get(at)
            if now is None or now.box != box:
                changed.append((place, at, box))
        for place, at, _ in reversed(changed):
            if at in place.now:
                self._out(made, place, at, index, place.now[at].words, emit)
        for place, at, box in changed:
            back = None
            if box in place.begun:
                before: list[tuple[int, Cause]] = [(number, "data") for number in place.begun[box]]
                words = size(box)
                back = emit("load", made.tensor, self._moves(place, made.tensor, index, words, inwards=True), index, words, before)
            place.now[at] = Visit(box, size(box), None if back is None else back.number)
            place.begun.setdefault(box, [])
        for place in places:
            at = tuple([index[axis] for axis in place.apart])
            if (came := place.now[at].back) is not None:
                waits[came] = "data"
            out = place.out.get(at)
            if out is not None and len(out) == place.slots:
                waits.setdefault(out[0], "space")

    def _out(
        self, made: Resident, place: Sums, at: Index, index: Index, words: float, emit: Emit, key: Index | None = None
    ) -> None:  # fmt: skip
        """Sums go from a place to the next one outwards: those of a tile that is complete, or all that are there."""
        if not words:
            return
        tensor = made.tensor
        core = self.walk.core(self.sums[tensor][-1].name, index)
        kept = self.kept.setdefault((tensor, core), {})
        keys = list(kept) if key is None else [key]
        makers = dict.fromkeys(number for each in keys for number in self.latest.get((tensor, each), ()))
        task = emit(
            "store", tensor, self._moves(place, tensor, index, words, inwards=False), index, words,
            [(number, "predecessor") for number in makers],
        )  # fmt: skip
        for each in keys:
            self.latest[tensor, each] = [task.number]
        if key is None and place is self.sums[tensor][0]:
            kept.clear()
        place.out.setdefault(at, deque(maxlen=place.slots)).append(task.number)
        now = place.now[at]
        now.words -= words
        place.begun[now.box] = [*place.begun[now.box][-63:], task.number]

    def done(self, made: Resident, index: Index, emit: Emit) -> None:
        """A tile is complete: its sums go to where the result stays."""
        key = self.walk.key(made, index)
        core = self.walk.core(self.sums[made.tensor][-1].name, index)
        if key not in self.kept.get((made.tensor, core), {}):
            return
        words = self.walk.words(made.tensor, index)
        for place in reversed(self.sums[made.tensor]):
            at = tuple([index[axis] for axis in place.apart])
            if at in place.now:
                self._out(made, place, at, index, min(words, place.now[at].words), emit, key)
        del self.kept[made.tensor, core][key]

    def finish(self, emit: Emit, index: Index) -> None:
        """What is left where sums are held goes out."""
        for name, places in self.sums.items():
            for place in reversed(places):
                for at, now in place.now.items():
                    self._out(self.nest.residents[name], place, at, index, now.words, emit)

    def _moves(self, place: Sums, tensor: str, index: Index, words: float, *, inwards: bool) -> tuple[Move, ...]:
        memory = self.nest.arch.memory
        found: list[Move] = []
        if place.outer in memory:
            instance = self.walk.instance(place.outer, index)
            found.append((place.outer, instance, "read" if inwards else "written", tensor, words))
            network = self.nest.arch.network(place.outer, place.name)
            if network is not None:
                found.append((network[0], instance, "sent", tensor, words))
        if place.name in memory:
            found.append((place.name, self.walk.instance(place.name, index), "written" if inwards else "read", tensor, words))
        return tuple(found)

    # --- results that leave -------------------------------------------------------------------------------------------

    def leave(self, made: Resident, index: Index, parts: Sequence[Index], emit: Emit) -> Task:
        """A complete tile goes to the backing store."""
        nest, backing = self.nest, self.nest.arch.backing[0]
        words = self.walk.words(made.tensor, index)
        moves: list[Move] = []
        if made.place != backing:  # what stays there was written as it was made
            source = made.producer.binding.array if made.place == FORWARD else made.place
            moves.append((backing, 0, "written", made.tensor, words))
            network = nest.arch.network(backing, source)
            if network is not None:
                moves.append((network[0], 0, "sent", made.tensor, words))
            if made.place in nest.arch.memory:
                moves.append((made.place, self.walk.instance(made.place, index), "read", made.tensor, words))
        waits: list[tuple[int, Cause]] = []
        for part in parts:
            waits += [(number, "predecessor") for number in self.latest.get((made.tensor, self.walk.key(made, index) + part), ())]
        task = emit("store", made.tensor, tuple(moves), index, words, waits)
        for part in parts:
            self.readers.setdefault((made.tensor, self.walk.slot(made, index) + part), []).append(task.number)
        return task


def _inner(walk: Walk, made: Resident) -> Iterator[Sums]:
    nest = walk.nest
    indices = tuple(Coord(rank) for rank in nest.cascade.tensor(made.tensor).ranks)
    for (outer, _), (name, depth) in pairwise([(made.place, made.depth), *made.inner]):
        own = walk.own_axes(made.tensor, depth)
        yield Sums(
            name, outer, walk.boxes(made.tensor, indices, depth),
            sorted({*nest.spread_to(name), *(axis for axis in own if axis in nest.spread)}),
            1 if name in nest.arch.arrays else slots_of(nest, depth),
        )  # fmt: skip
