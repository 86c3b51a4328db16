"""The tasks of a mapped group: transfers and computations, what each waits for, and what it occupies.

In: a placed fusion group, a machine. Out: tasks in program order, tile by tile. A task waits only for earlier ones, whatever the
reason (data, a value, its turn, space in a level, a tile in flight), so no run can deadlock. `inputs` and `results` know what is
held where, `traffic` what an Einsum streams as it works, `plan` when it should start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..mapper.legality import tiles_behind
from ..mapper.nest import Nest, Step
from .inputs import Inputs
from .machine import Machine
from .plan import starts
from .results import Results
from .task import Cause, Index, Move, Task, grained
from .traffic import Part, Past, Traffic, constant, parted, positions, shares
from .walk import Lookup, Walk


@dataclass
class Core:
    """What one instance of the arrays has under way."""

    ends: deque[list[list[int]]]
    """Of the last tiles, as many as may be in flight: for each of their parts, the tasks that are last."""
    count: int = 0
    """Tiles that it was given."""
    previous: int | None = None
    """The last computation."""
    late: list[tuple[int, Step, Index]] = field(default_factory=list)
    """(number of the tile in which it is done, step, its own tile) of steps that work some tiles behind."""
    staged: dict[tuple[str, int], deque[int]] = field(default_factory=dict)


class Tasks:
    """Generates the tasks of a group. `made` may be shared by groups that run together."""

    def __init__(self, nest: Nest, machine: Machine, interval: float, made: list[Task] | None = None, group: int = 0) -> None:
        self.nest, self.machine, self.group = nest, machine, group
        self.interval = grained(interval)
        """Cycles from one tile to the next, as the cost model has it."""
        self.made: list[Task] = [] if made is None else made
        self.walk = Walk(nest)
        self.traffic, self.inputs, self.results = Traffic(self.walk), Inputs(self.walk, self.made), Results(self.walk, self.made)
        self.cores: dict[Index, Core] = {}
        self.arrivals: dict[str, list[int]] = {}
        """By tensor that another group makes at the same time: what its loads wait for."""
        self.held_back: list[int] = []
        """Tasks of other groups that everything waits for."""
        self.left: dict[str, list[int]] = {}
        """By tensor: the transfers that took it to the backing store."""
        self.shared: dict[tuple[object, ...], tuple[Index, int]] = {}
        """What instances read of the backing store at the same time: when, and the load."""
        self.written: dict[tuple[str, Index], list[int]] = {}
        """By tile: the transfers that took it, or a share of it, out."""
        self.base = 0.0
        """When the first tile is planned to begin."""
        self.parts = -(-nest.size(nest.group.flow) // parted(nest)) if nest.group.flow else 1

    # --- tiles --------------------------------------------------------------------------------------------------------

    def tile(self, index: Index) -> None:
        """Makes the tasks of one tile, transfers included."""
        core = self._core(index)
        if self.nest.group.phases:
            self._phases(core, index)
        else:
            self._steps(core, index)
        core.count += 1

    def finish(self) -> None:
        """What is left to do after the last tile: the steps that work behind, sums that are still held."""
        for core in self.cores.values():
            while core.late:
                self._phases(core, None)
                core.count += 1
        if self.made:
            self.results.finish(self._transfer, self.made[-1].tile)

    def _core(self, index: Index) -> Core:
        where = tuple([index[axis] for axis in self.walk.side_by_side])
        if where not in self.cores:
            flying = self.nest.group.in_flight if self.nest.group.schedule == "interleaved" else 1
            self.cores[where] = Core(deque(maxlen=flying))
        return self.cores[where]

    def _steps(self, core: Core, index: Index) -> None:
        full = len(core.ends) == core.ends.maxlen
        ends: list[list[int]] = []
        cause: Cause = "predecessor" if self.nest.group.schedule == "pipelined" else "flight"
        parts = list(self._parts(index))
        for part in parts:
            before = core.ends[0] if full else []
            gate = before[min(0 if part is None else part.number, len(before) - 1)] if before else []
            ends.append(self._run(core, [(step, index) for step in self.nest.steps], [*gate, *self.held_back], cause, part))
        core.ends.append(ends)
        for resident in self.nest.residents.values():
            if resident.leaves and self.walk.complete(resident, index):
                self._leave(resident.tensor, index, [_within(part) for part in parts])

    def _run(self, core: Core, work: Iterable[tuple[Step, Index]], gate: list[int], cause: Cause, part: Part | None) -> list[int]:
        """Some steps, side by side where they are on different arrays; those of them that none of the others waits for."""
        last_on: dict[str, int] = {}
        done: dict[int, None] = {}
        waited: set[int] = set()
        for step, index in work:
            if self.walk.runs(step, index):
                task = self._compute(core, step, index, gate, done, cause, last_on, part)
                waited.update(number for number, _ in task.waits)
                done[task.number] = None
                if task.cycles:
                    last_on[step.binding.array] = task.number
            made = self.nest.residents.get(step.output)
            if made is not None and made.inner and not step.initial and self.walk.complete(made, index):
                self.results.done(made, index, self._transfer)
        return [number for number in done if number not in waited] or gate

    def _phases(self, core: Core, index: Index | None) -> None:
        """The tasks of one tile, phase after phase, among them those of earlier tiles that work behind."""
        due = [(step, at) for number, step, at in core.late if number == core.count]
        core.late = [item for item in core.late if item[0] > core.count]
        for step in self.nest.steps if index is not None else ():
            assert index is not None
            if not self.behind[step.name]:
                due.append((step, index))
            elif self.walk.runs(step, index):
                core.late.append((core.count + self.behind[step.name], step, index))
        order = {step.name: at for at, step in enumerate(self.nest.steps)}
        due.sort(key=lambda item: order[item[0].name])
        gate = [*(core.ends[0][0] if core.ends else []), *self.held_back]
        for names in self.nest.group.phases:
            gate = self._run(core, [item for item in due if item[0].output in names], gate, "order", None)
        core.ends.append([gate])
        for resident in self.nest.residents.values():
            if resident.leaves:
                for done_at in dict.fromkeys(at for step, at in due if step is resident.producer):
                    if self.walk.complete(resident, done_at):
                        self._leave(resident.tensor, done_at, [()])

    @cached_property
    def behind(self) -> dict[str, int]:
        """How many tiles each step works behind."""
        return tiles_behind(self.nest)

    def _parts(self, index: Index) -> Iterable[Part | None]:
        """The parts of a tile whose Einsums follow one another; None: the tile is one."""
        if not self.nest.group.flow:
            return (None,)
        total = self.walk.span(self.nest.group.flow, index)[1]
        each = parted(self.nest)
        return [Part(number, low, min(low + each, total), total) for number, low in enumerate(range(0, total, each))]

    # --- computations -------------------------------------------------------------------------------------------------

    def _compute(
        self, core: Core, step: Step, index: Index, gate: list[int], here: dict[int, None], cause: Cause, last_on: dict[str, int],
        part: Part | None,
    ) -> Task:  # fmt: skip
        nest, results = self.nest, self.results
        array = self.machine.named(step.binding.array, self.walk.instance(step.binding.array, index))
        moves = self.traffic.of(step, index, part)
        within = _within(part)
        waits: dict[int, Cause] = {}
        if nest.group.schedule == "in-turn" and core.previous is not None:
            waits[core.previous] = "predecessor"  # its result must be out
        if step.binding.array in last_on and not step.initial:
            waits.setdefault(last_on[step.binding.array], "order")
        loads = self.inputs.bring(step, index, self._transfer)
        for load in loads:
            waits[load.number] = "data"
        for number, past in enumerate(moves.reads):
            waits[self._fetch(core, step, index, number, past, within)] = "data"
        reads: list[tuple[str, Index]] = []
        for access in step.reads:
            resident = nest.residents.get(access.tensor)
            if resident is not None:
                for number in results.latest.get((access.tensor, self.walk.key(resident, index) + within), ()):
                    waits[number] = "order" if access.tensor in nest.group.hidden else "predecessor"
                reads.append((access.tensor, self.walk.slot(resident, index) + within))
        task = Task(
            0, step.name, "compute", array, grained(self._cycles(step, index, part)), self._ripples[step.name], index, self.group
        )
        made = nest.residents.get(step.output)
        if made is not None:
            if made.inner and not step.initial:
                results.visit(made, index, waits, self._transfer)
            results.room(made, index, within, waits, task)
        task.number = len(self.made)
        if made is not None:
            results.adds(made, index, within, waits, task)
        for number in range(len(moves.writes)):
            slots = self._staged(core, step.name, -1 - number)
            if len(slots) == slots.maxlen:
                waits.setdefault(slots[0], "space")
        if not any(number in here for number in waits):  # else what it waits for has waited for the gate
            for number in gate:
                waits.setdefault(number, cause)
        task.waits = list(waits.items())
        task.moves = moves.on_chip
        if moves.on_chip:
            task.also = self.machine.demands(moves.on_chip)
        task.planned = self.base + self.interval * core.count + self._starts[step.name]
        if part is not None:
            task.planned += grained(self.interval * part.low / part.of)
        self.made.append(task)
        core.previous = task.number
        for read in reads:
            results.readers.setdefault(read, []).append(task.number)
        for load in loads:
            load.users.append(task.number)
        for number in range(len(moves.reads)):
            self._staged(core, step.name, number).append(task.number)
        for number, past in enumerate(moves.writes):
            self._write(core, step, index, number, past, within, task)
        return task

    @cached_property
    def _starts(self) -> dict[str, float]:
        return starts(self.nest, max(self.interval, 1e-6), self.parts)

    @cached_property
    def _ripples(self) -> dict[str, int]:
        return {step.name: self.nest.ripple(step) for step in self.nest.steps}

    def _cycles(self, step: Step, index: Index, part: Part | None) -> float:
        total = 0.0
        for cycles, factors in self._terms[step.name]:
            for factor in factors:
                cycles *= factor(index)
            total += cycles
        return total if part is None else total * self._shares[step.name](part)

    @cached_property
    def _shares(self):  # type: ignore[no-untyped-def]
        flow = self.nest.group.flow
        return {step.name: shares(self.nest, step) if flow in step.binding.ranks else positions for step in self.nest.steps}

    @cached_property
    def _terms(self) -> dict[str, list[tuple[float, list[Lookup]]]]:
        """Cycles of each step with what is the same in all tiles multiplied out."""
        result: dict[str, list[tuple[float, list[Lookup]]]] = {}
        for step in self.nest.steps:
            terms = []
            for cycles, factors in self.nest.cycles(step):
                fixed, varying = constant(factors)
                terms.append((cycles * fixed, varying))
            result[step.name] = terms
        return result

    # --- transfers ----------------------------------------------------------------------------------------------------

    def _transfer(
        self, kind: str, tensor: str, moves: tuple[Move, ...], index: Index, words: float, waits: Sequence[tuple[int, Cause]]
    ) -> Task:
        demands = self.machine.demands(moves)
        resource, cycles = demands[0] if demands else ("", 0.0)
        count = self._core(index).count + (kind == "store")
        task = Task(len(self.made), tensor, "load" if kind == "load" else "store", resource, cycles, 0.0, index, self.group)
        task.waits, task.also, task.moves, task.words = list(waits), demands[1:], moves, words
        if kind == "load":
            task.waits += [(number, "data") for number in self.arrivals.get(tensor, ())]
        task.planned = self.base + self.interval * count
        self.made.append(task)
        return task

    def _leave(self, tensor: str, index: Index, parts: Sequence[Index]) -> None:
        resident, left = self.nest.residents[tensor], self.left.setdefault(tensor, [])
        if resident.place != self.traffic.backing:
            left.append(self.results.leave(resident, index, parts, self._transfer).number)
            return
        for part in parts:  # it was written as it was made
            tile = tensor, self.walk.key(resident, index) + part
            left += self.written.get(tile, self.results.latest.get(tile, []))

    def _fetch(self, core: Core, step: Step, index: Index, number: int, past: Past, within: Index) -> int:
        """Words that go past all levels are brought for one use, into a slot of their own."""
        time = tuple([index[axis] for axis in self.walk.in_time])
        if past.key and (known := self.shared.get(past.key)) is not None and known[0] == time:
            return known[1]
        waits: list[tuple[int, Cause]] = []
        if past.made_here:
            tile = past.tensor, self.walk.key(self.nest.residents[past.tensor], index) + within
            waits += [(each, "data") for each in (*self.written.get(tile, ()), *self.results.latest.get(tile, ()))]
        slots = self._staged(core, step.name, number)
        if len(slots) == slots.maxlen:
            waits.append((slots[0], "space"))
        moves: list[Move] = [(self.traffic.backing, 0, "read", past.tensor, past.words)]
        if past.link is not None:
            moves.append((past.link, 0, "sent", past.tensor, past.words))
        task = self._transfer("load", past.tensor, tuple(moves), index, past.words, waits)
        if past.key:
            self.shared[past.key] = (time, task.number)
        return task.number

    def _write(self, core: Core, step: Step, index: Index, number: int, past: Past, within: Index, task: Task) -> None:
        """Words that go past all levels are written behind."""
        moves: list[Move] = [(self.traffic.backing, 0, "written", past.tensor, past.words)]
        if past.link is not None:
            moves.append((past.link, 0, "sent", past.tensor, past.words))
        store = self._transfer("store", past.tensor, tuple(moves), index, past.words, [(task.number, "predecessor")])
        self._staged(core, step.name, -1 - number).append(store.number)
        self.written[past.tensor, self.walk.key(self.nest.residents[past.tensor], index) + within] = [store.number]

    def _staged(self, core: Core, step: str, number: int) -> deque[int]:
        """Who used, or filled, the slots through which words pass that no level on the chip holds."""
        if (step, number) not in core.staged:
            core.staged[step, number] = deque(maxlen=self.nest.group.buffering)
        return core.staged[step, number]


def _within(part: Part | None) -> Index:
    """What tells the parts of a tile apart."""
    return () if part is None else (part.number,)
