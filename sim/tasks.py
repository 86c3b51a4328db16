"""Tile-level tasks of a mapped group: transfers and computations, what each waits for, and what it occupies.

In: a placed fusion group (`Nest`). Out: tasks in program order. Every task waits only for earlier ones, whatever the reason (data,
a value, space in the buffer, a slot for a result, a tile in flight), so the tasks form a DAG and no run can deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from ..mapper.legality import tiles_behind
from ..mapper.nest import Grid, Nest, Resident, Step, Stream, slots_of
from ..mapper.timing import longest, nominal

Cause: TypeAlias = Literal["data", "predecessor", "order", "space", "flight"]
"""`data`: a transfer; `predecessor`: a value; `order`: its turn on the array; `space`: a buffer slot; `flight`: earlier tiles."""
Index: TypeAlias = tuple[int, ...]


@dataclass(slots=True)
class Task:
    """One piece of work."""

    number: int
    name: str
    kind: Literal["compute", "load", "store"]
    resource: str
    """Array or storage level that it occupies."""
    cycles: float
    """How long it occupies it."""
    latency: float
    """From the end of its work until its result is there."""
    tile: Index
    waits: list[tuple[int, Cause]] = field(default_factory=list)
    """Earlier tasks, and why."""
    words: int = 0
    planned: float = 0.0
    """When it would start if every tile took the model's share of the time: among tasks that can run, the earliest goes first."""


class Tasks:
    """Generates the tasks of a group."""

    def __init__(self, nest: Nest, interval: float) -> None:
        self.nest = nest
        self.interval = interval
        """Cycles from one tile to the next, as the cost model has it."""
        self.made: list[Task] = []
        self.latest: dict[tuple[str, Index], int] = {}
        """Last task that made a tile of a tensor."""
        self.readers: dict[tuple[str, Index], list[int]] = {}
        """Tasks that read a tile since it was last made anew; by the slot it occupies."""
        self.occupant: dict[tuple[str, Index], Index] = {}
        self.box_now: dict[int, tuple[int, ...]] = {}
        self.box_loads: list[list[int]] = [[] for _ in nest.streams]
        self.box_users: list[list[list[int]]] = [[] for _ in nest.streams]
        self.stores: dict[str, list[int]] = {}
        self.tile_ends: list[list[int]] = []
        self.late: list[tuple[Step, Index]] = []
        """Steps of the last tile that are done in the next one."""
        level = nest.arch.backing[1]
        self.cycles_per_word = nest.arch.word_bytes * nest.arch.clock_hz / level.bandwidth if level.bandwidth else 0.0

    def tiles(self, iterations: Sequence[Sequence[int]] | None = None) -> Iterator[Index]:
        """All tiles (or those of the given iterations of each loop) in the order of the loops; those that a cut-short outer tile
        leaves empty are passed over."""
        for index in product(*(iterations or [range(trips) for trips in self.nest.trips])):
            if all(length(index) > 0 for length in self._lengths):
                yield index

    @cached_property
    def _lengths(self) -> list[Lookup]:
        return [lookup(self.nest.span(rank)[1]) for rank in sorted({loop.rank for loop in self.nest.group.loops})]

    def tile(self, index: Index) -> list[Task]:
        """The tasks of one tile, transfers included."""
        if self.nest.group.phases:
            return self._phases(index)
        start = len(self.made)
        done: list[int] = []
        last_on: dict[str, int] = {}
        flying = 1 if self.nest.group.schedule != "interleaved" else self.nest.group.in_flight
        gate = self.tile_ends[-flying] if len(self.tile_ends) >= flying else []
        for step in self.nest.steps:
            if self.runs(step, index):
                task = self._compute(step, index, gate, last_on)
                done.append(task.number)
                if task.cycles:
                    last_on[step.binding.array] = task.number
        for resident in self.nest.residents.values():
            if resident.leaves and self.complete(resident, index):
                self._store(resident, index)
        self.tile_ends.append(done or gate)
        return self.made[start:]

    def finish(self) -> list[Task]:
        """What is left to do after the last tile: the steps that work a tile behind."""
        return self._phases(None) if self.late else []

    def _phases(self, index: Index | None) -> list[Task]:
        """The tasks of one tile, phase after phase, among them those of the tile before that work behind."""
        start = len(self.made)
        late, self.late = self.late, []
        gate = self.tile_ends[-1] if self.tile_ends else []
        for names in self.nest.group.phases:
            done: list[int] = []
            last_on: dict[str, int] = {}
            here = [(step, at) for step, at in late if step.output in names]
            for step in self.nest.steps if index is not None else ():
                if step.output in names and index is not None and self.runs(step, index):
                    if self.behind[step.name]:
                        self.late.append((step, index))
                    else:
                        here.append((step, index))
            order = {step.name: at for at, step in enumerate(self.nest.steps)}
            for step, at in sorted(here, key=lambda item: order[item[0].name]):
                task = self._compute(step, at, gate, last_on, "order")
                done.append(task.number)
                if task.cycles:
                    last_on[step.binding.array] = task.number
            gate = done or gate
        finished = dict.fromkeys(at for _, at in late)
        for resident in self.nest.residents.values():
            if resident.leaves:
                for done_at in finished if self.behind[resident.producer.name] else [index]:
                    if done_at is not None and self.complete(resident, done_at):
                        self._store(resident, done_at)
        self.tile_ends.append(gate)
        return self.made[start:]

    @cached_property
    def behind(self) -> dict[str, int]:
        """How many tiles each step works behind."""
        return tiles_behind(self.nest)

    def runs(self, step: Step, index: Index) -> bool:
        """Whether a step has work in a tile."""
        return all(grid(index) for grid in self._runs[step.name])

    def skipped(self, step: Step, index: Index) -> bool:
        """Whether it is a mask alone that leaves a step out of a tile."""
        present, live = self._reasons[step.name]
        return all(grid(index) for grid in present) and not all(grid(index) for grid in live)

    @cached_property
    def _reasons(self) -> dict[str, tuple[list[Lookup], list[Lookup]]]:
        nest = self.nest
        return {
            step.name: (
                [lookup(grid) for grid in nest.runs(step)],
                [lookup(live) for live, skips in nest.masks if step.position in skips],
            )
            for step in nest.steps
        }

    @cached_property
    def _runs(self) -> dict[str, list[Lookup]]:
        nest = self.nest
        return {
            step.name: [
                lookup(g)
                for g in (*nest.runs(step), *(live for live, skips in nest.masks if step.position in skips))
                if not g.all()
            ]
            for step in nest.steps
        }

    def _compute(self, step: Step, index: Index, gate: list[int], last_on: dict[str, int], cause: Cause = "flight") -> Task:
        nest = self.nest
        waits: dict[int, Cause] = dict.fromkeys(gate, cause)
        if nest.group.schedule == "in-turn" and self.made:
            previous = next((task for task in reversed(self.made) if task.kind == "compute"), None)
            if previous is not None:
                waits[previous.number] = "predecessor"  # its result must be out
        if step.binding.array in last_on and not step.initial:
            waits.setdefault(last_on[step.binding.array], "order")
        reads: list[tuple[str, Index]] = []
        for position, stream in enumerate(nest.streams):
            if step in stream.readers:
                load = self._load(position, stream, index)
                waits[load] = "data"
        for access in step.reads:
            resident = nest.residents.get(access.tensor)
            if resident is None:
                continue
            key = access.tensor, self.key(resident, index)
            if key in self.latest:
                waits[self.latest[key]] = "order" if access.tensor in nest.group.hidden else "predecessor"
            reads.append((access.tensor, self.slot(resident, index)))
        made = nest.residents.get(step.output)
        if made is not None:
            self._make_room(made, index, waits, accumulates=bool(step.reduced & nest.cut))
        number = len(self.made)
        task = Task(number, step.name, "compute", step.binding.array, self._cycles(step, index), nest.ripple(step), index)
        task.waits = list(waits.items())
        task.planned = self.interval * len(self.tile_ends) + self._offsets[step.name]
        self.made.append(task)
        for read in reads:
            self.readers.setdefault(read, []).append(number)
        for position, stream in enumerate(nest.streams):
            if step in stream.readers:
                self.box_users[position][-1].append(number)
        if made is not None:
            self.latest[(step.output, self.key(made, index))] = number
        return task

    def _make_room(self, made: Resident, index: Index, waits: dict[int, Cause], accumulates: bool) -> None:
        """Before a tile is made: the readers of what it overwrites, the one it adds to, the store whose slot it takes."""
        key, slot = self.key(made, index), (made.tensor, self.slot(made, index))
        if self.occupant.get(slot) != key:
            if made.depth < len(self.nest.group.loops):
                for reader in self.readers.pop(slot, []):
                    waits.setdefault(reader, "space")
            else:
                self.readers.pop(slot, None)
            self.occupant[slot] = key
            if made.leaves:
                slots = max(1, slots_of(self.nest, made.depth))
                stores = self.stores.setdefault(made.tensor, [])
                if len(stores) >= slots:
                    waits.setdefault(stores[-slots], "space")
        elif accumulates and (made.tensor, key) in self.latest:
            waits.setdefault(self.latest[(made.tensor, key)], "predecessor")

    def _load(self, position: int, stream: Stream, index: Index) -> int:
        """The task that brought the tile that a stream holds now; made if it is a new one."""
        box = self.box(position, index)
        if self.box_now.get(position) != box:
            self.box_now[position] = box
            words = 1
            for low, high in zip(box[::2], box[1::2], strict=True):
                words *= max(0, high - low + 1)
            number = len(self.made)
            task = Task(
                number, stream.tensor, "load", self.nest.arch.backing[0], words * self.cycles_per_word, 0.0, index, words=words
            )
            task.planned = self.interval * len(self.tile_ends)
            slots = slots_of(self.nest, stream.depth)
            loads, users = self.box_loads[position], self.box_users[position]
            if len(loads) >= slots:
                task.waits = [(user, "space") for user in users[len(loads) - slots]]
            self.made.append(task)
            loads.append(number)
            users.append([])
        return self.box_loads[position][-1]

    def box(self, position: int, index: Index) -> tuple[int, ...]:
        """First and last position along each dimension of the tile that a stream holds."""
        return tuple([end(index) for end in self._boxes[position]])

    @cached_property
    def _boxes(self) -> list[list[Lookup]]:
        return [
            [lookup(end) for ends in self.nest.box(stream.tensor, stream.indices, stream.depth) for end in ends]
            for stream in self.nest.streams
        ]

    def complete(self, resident: Resident, index: Index) -> bool:
        """Whether this tile is the last one that adds to a tile of the tensor (if a mask leaves it out, a constant is stored)."""
        return all(grid(index) for grid in self._completes[resident.tensor])

    @cached_property
    def _completes(self) -> dict[str, list[Lookup]]:
        found: dict[str, list[Lookup]] = {}
        for name, resident in self.nest.residents.items():
            own = self._own(resident.tensor)
            slots = {loop.rank: slot for loop, slot in zip(self.nest.group.loops, resident.producer.slots, strict=True)}
            ends = [(rank, slot) for rank, slot in slots.items() if rank in self.nest.cut and (slot == "first" or rank not in own)]
            found[name] = [lookup(self.nest.opening(rank) if slot == "first" else self.nest.final(rank)) for rank, slot in ends]
        return found

    def _store(self, resident: Resident, index: Index) -> None:
        declared = self.nest.cascade.tensor(resident.tensor)
        words = 1
        for rank in declared.ranks:
            if rank != declared.iterates:
                words *= self.span(rank, index)[1]
        number = len(self.made)
        task = Task(
            number, resident.tensor, "store", self.nest.arch.backing[0], words * self.cycles_per_word, 0.0, index, words=words
        )
        key = resident.tensor, self.key(resident, index)
        if key in self.latest:
            task.waits = [(self.latest[key], "predecessor")]
        task.planned = self.interval * (len(self.tile_ends) + 1)
        self.made.append(task)
        self.stores.setdefault(resident.tensor, []).append(number)
        self.readers.setdefault((resident.tensor, self.slot(resident, index)), []).append(number)

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

    def key(self, resident: Resident, index: Index) -> Index:
        """Which tile of a tensor this is."""
        return tuple([index[axis] for axis in self.axes[resident.tensor][0]])

    def slot(self, resident: Resident, index: Index) -> Index:
        """Which part of the space held for a tensor this tile occupies."""
        return tuple([index[axis] for axis in self.axes[resident.tensor][1]])

    @cached_property
    def axes(self) -> dict[str, tuple[list[int], list[int]]]:
        """For each tensor made here: the loops over its own ranks, and those of them inside the loop across which it is alive."""
        found: dict[str, tuple[list[int], list[int]]] = {}
        for name, resident in self.nest.residents.items():
            own = self._own(name)
            axes = [axis for axis, loop in enumerate(self.nest.group.loops) if loop.rank in own]
            found[name] = axes, [axis for axis in axes if axis >= resident.depth]
        return found

    def _own(self, tensor: str) -> frozenset[str]:
        declared = self.nest.cascade.tensor(tensor)
        return frozenset(declared.ranks) - {declared.iterates}

    def _cycles(self, step: Step, index: Index) -> float:
        total = 0.0
        for cycles, factors in self._terms[step.name]:
            for factor in factors:
                cycles *= factor(index)
            total += cycles
        return total

    @cached_property
    def _offsets(self) -> dict[str, float]:
        """When each step of a tile would start, if other tiles were not in the way."""
        durations = nominal(self.nest)
        ends = longest(self.nest, durations)
        return {step.name: ends[step.name] - durations[step.name] - self.nest.ripple(step) for step in self.nest.steps}

    @cached_property
    def _terms(self) -> dict[str, list[tuple[float, list[Lookup]]]]:
        """Cycles of each step with what is the same in all tiles multiplied out."""
        result: dict[str, list[tuple[float, list[Lookup]]]] = {}
        for step in self.nest.steps:
            terms: list[tuple[float, list[Lookup]]] = []
            for cycles, factors in self.nest.cycles(step):
                varying = []
                for factor in factors:
                    if np.all(factor == factor.flat[0]):
                        cycles *= float(factor.flat[0])
                    else:
                        varying.append(lookup(factor))
                terms.append((cycles, varying))
            result[step.name] = terms
        return result


Lookup: TypeAlias = Callable[[Index], int]
"""The entry of a grid for a tile."""


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
