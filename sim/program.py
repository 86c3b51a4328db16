"""What runs together: one fusion group, or the groups of a pipeline, as tasks of one machine.

In: placed groups with the cycles that the cost model gives them. Out: a `Program`, which makes the tasks of all tiles, or of chosen
iterations of its loops, and runs them. In a pipeline, each group works on the iteration of the common loops that the group before
has finished, and is at most one iteration ahead of the group after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from math import prod

from ..mapper.architecture import Architecture
from ..mapper.nest import Nest
from ..mapper.residency import level_needs, spills, taken
from . import events, recurrence
from .faults import check_fits
from .inputs import Load
from .machine import Machine
from .order import Run
from .task import Index, Task, grained
from .tasks import Tasks
from .walk import Block
from .window import Window

MAX_EVENTS = 20_000
"""Most tasks that are run as simpy processes; more are run by the recurrence, which gives the same."""

ESTIMATED = 1000
"""Tasks from which it is estimated how many a tile has."""


@dataclass
class Made:
    """Tasks that are ready to be run."""

    tasks: list[Task]
    groups: list[Tasks]
    """What made them, group by group."""
    marks: list[int] = field(default_factory=list)
    """How many tasks there are after each tile."""
    whole: bool = True
    """Whether no tile is left out."""


class Program:
    """Some groups that run together; `common`: how many loops they share as a pipeline."""

    def __init__(self, nests: Sequence[Nest], machine: Machine, cycles: float, common: int = 0) -> None:
        self.nests, self.machine, self.cycles, self.common = tuple(nests), machine, cycles, common
        nest = nests[0]
        self.loops = [axis for axis in range(common or len(nest.trips)) if axis not in nest.spread]
        """Loops that are done one iteration after another, in all groups the same."""
        self.trips = [nest.trips[axis] for axis in self.loops]
        self.tiles = prod(self.trips)
        """Of all loops, what instances do at the same time as one; of a pipeline, iterations of the common loops."""
        self.watch: Callable[[int], None] | None = None
        """Is told how many tasks have been made and run."""

    def resources(self) -> tuple[str, ...]:
        """The arrays, and what has a bandwidth."""
        backing = self.machine.arch.backing[0]
        names = dict.fromkeys(self.machine.rank)
        return tuple(names if self.machine.ports[backing] else [*names, backing])

    # --- tasks --------------------------------------------------------------------------------------------------------

    def window(self, blocks: Sequence[Block] | None = None, most: int | None = None) -> tuple[Window, bool]:
        """A run of the given iterations of its loops, or of as many tiles from the first on as make about `most` tasks; and whether
        these are all."""
        made = self.make(blocks, most)
        run = self.run(made.tasks)
        return Window(made.tasks, run, tuple(made.marks), self.resources(), _peaks(made.groups, run)), made.whole

    def per_tile(self) -> float:
        """Tasks of one tile, as the first ones have it; of a pipeline, of one iteration of all groups."""
        if not self.common:
            made = self.make(most=ESTIMATED)
        else:
            made = self.make([(self.loops, [tuple([0] * len(self.loops))])])
        return len(made.tasks) / max(1, len(made.marks) - len(self.nests) + 1)

    def make(self, blocks: Sequence[Block] | None = None, most: int | None = None) -> Made:
        """The tasks of such a run."""
        tasks: list[Task] = []
        made = Made(tasks, [self._tasks(nest, tasks, at) for at, nest in enumerate(self.nests)])
        for _ in self._pipeline(made.groups, blocks) if self.common else self._tiles(made.groups[0], blocks):
            made.marks.append(len(tasks))
            if len(made.marks) % 1000 == 0:
                self._tell(len(tasks))
            if most is not None and len(tasks) >= most:
                made.whole = False
                break
        for group in made.groups:
            group.finish()
        self._tell(len(tasks))
        return made

    def _tell(self, tasks: int) -> None:
        if self.watch is not None:
            self.watch(tasks)

    def run(self, made: Sequence[Task]) -> Run:
        return (events.run if len(made) <= MAX_EVENTS else recurrence.run)(made, self.machine.rank)

    def _tasks(self, nest: Nest, made: list[Task], at: int) -> Tasks:
        in_time = prod(trips for axis, trips in enumerate(nest.trips) if axis not in nest.spread)
        tasks = Tasks(nest, self.machine, self.cycles / max(1, in_time), made, at)
        if self.common:
            tasks.base = grained(at * self.cycles / max(1, self.tiles))
        return tasks

    def _tiles(self, tasks: Tasks, blocks: Sequence[Block] | None) -> Iterator[None]:
        """The tiles of one group, in order; one stop for what all instances do at the same time."""
        before: Index | None = None
        for index in tasks.walk.tiles(blocks):
            time = tuple([index[axis] for axis in self.loops])
            if before is not None and time != before:
                yield
            before = time
            tasks.tile(index)
        if before is not None:
            yield

    def _pipeline(self, groups: list[Tasks], blocks: Sequence[Block] | None) -> Iterator[None]:
        made = groups[0].made
        common = groups[0].walk.blocks(self.loops) if blocks is None else blocks
        order = [tuple(chain.from_iterable(parts)) for parts in product(*(indices for _, indices in common))]
        ended: dict[tuple[int, int], int] = {}
        arrived: dict[tuple[str, int], int] = {}
        for time in range(len(order) + len(groups) - 1):
            for at in reversed(range(len(groups))):
                step, tasks = time - at, groups[at]
                if not 0 <= step < len(order):
                    continue
                tasks.arrivals = {name: [number] for (name, when), number in arrived.items() if when == step}
                behind = ended.get((at + 1, step - 2))
                tasks.held_back = [] if behind is None else [behind]
                begun = len(made)
                inner = tasks.walk.blocks([axis for axis in tasks.walk.in_time if axis >= self.common])
                for index in tasks.walk.tiles([(self.loops, [order[step]]), *inner]):
                    tasks.tile(index)
                for name, numbers in tasks.left.items():
                    arrived[name, step] = _join(made, name, numbers, at)
                tasks.left = {}
                waited = {number for task in made[begun:] for number, _ in task.waits}
                ended[at, step] = _join(made, "", [task.number for task in made[begun:] if task.number not in waited], at)
            arrived = {key: number for key, number in arrived.items() if key[1] > time - len(groups)}
            yield


def _join(made: list[Task], name: str, numbers: Sequence[int], group: int) -> int:
    """A task that takes no time, for all of these to be waited for at once."""
    tile = made[numbers[-1]].tile if numbers else ()
    task = Task(len(made), name, "store", "", 0.0, 0.0, tile, group, [(number, "data") for number in numbers])
    made.append(task)
    return task.number


def _peaks(groups: Sequence[Tasks], run: Run) -> dict[str, float]:
    """Most words in one instance of each storage level on the chip: tiles of inputs, and what the groups' own tensors hold all
    along. Raises Overflow where that is more than there is room for."""
    arch = groups[0].nest.arch
    changes: dict[tuple[str, int], list[tuple[float, int, str]]] = {}
    kept: dict[str, dict[str, float]] = {level: {} for level in arch.on_chip}
    for tasks in groups:
        for level, instance, load, since, until in _held(tasks, run):
            if level in kept:
                name = tasks.made[load.number].name
                changes.setdefault((level, instance), []).extend(((since, load.words, name), (until, -load.words, name)))
        for level in arch.on_chip:
            for tensor, words in _own(tasks.nest, level).items():
                kept[level][tensor] = kept[level].get(tensor, 0.0) + words
    peaks = {level: sum(own.values()) for level, own in kept.items()}
    for level, own in kept.items():
        _check(arch, level, own)
    for (level, _), found in changes.items():
        own = kept[level]
        held = {**own}
        total = sum(own.values())
        for _, words, name in sorted(found):
            held[name] = held.get(name, 0.0) + words
            total += words
            if total > peaks[level]:
                peaks[level] = total
                _check(arch, level, held)
    return peaks


def _own(nest: Nest, level: str) -> dict[str, float]:
    """Words that a group's own tensors take of a level, by tensor; of spilled ones as much as finds room."""
    needs = level_needs(nest, level)
    inputs = {stream.tensor for stream in nest.streams}
    own: dict[str, float] = {}
    for need in needs:
        if need.tensor not in inputs:
            own[need.tensor] = own.get(need.tensor, 0.0) + need.words * need.slots
    if spills(nest, level):
        others = sum(need.words * need.slots for need in needs) - sum(own.values())
        room = max(0, (taken(nest, level) - nest.group.reserve.get(level, 0)) // nest.arch.word_bytes - others)
        share = min(1.0, room / max(1e-30, sum(own.values())))
        own = {name: words * share for name, words in own.items()}
    return own


def _check(arch: Architecture, level: str, held: dict[str, float]) -> None:
    if (size := arch.memory[level].size) is not None:
        check_fits(level, size // arch.word_bytes, sum(held.values()), held)


def _held(tasks: Tasks, run: Run) -> Iterator[tuple[str, int, Load, float, float]]:
    """(place, instance, tile, since, until) of every tile that was held."""
    for place, instance, load, successor in tasks.inputs.taken:
        until = max((run.ends[user] for user in load.users), default=run.ends[load.number])
        if successor is not None:
            until = min(until, run.starts[successor])
        yield place, instance, load, run.starts[load.number], until
    for places in tasks.inputs.places:
        for held in places:
            for slot in held.now.values():
                for load in slot.loads:
                    until = max((run.ends[user] for user in load.users), default=run.ends[load.number])
                    yield held.name, slot.instance, load, run.starts[load.number], until
