"""Event-driven simulation of a mapped cascade.

In: a cascade, an architecture, a mapping, sizes. Out: a `Simulated`: cycles, utilization, stalls by cause, peak occupancy of the
buffer, and how the cycles differ from the cost model's bound. Arrays and the channel of the backing store are simpy resources; each
tile-level task (see `tasks`) waits for what it needs, takes its resource for its cycles, and delivers after its latency. Groups run
one after another. A large group is simulated for its first tiles only, and the rest is extrapolated from the second half of
that window; the result says so.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from typing import Any

from ..einsum.cascade import Cascade
from ..mapper.architecture import Architecture
from ..mapper.cost import Cost, GroupCost, cost
from ..mapper.mapping import Mapping
from ..mapper.nest import Nest, place, refuse
from .tasks import Task, Tasks

MAX_TASKS = 20_000
"""Most tasks of one group that are simulated event by event, unless asked otherwise."""
CAUSES = {
    "data": "waiting for a transfer", "predecessor": "waiting for a value", "ripple": "waiting for a reduction to come out",
    "order": "waiting for its turn", "space": "waiting for a buffer slot", "flight": "too few tiles in flight",
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """One task as it ran, in cycles from the start of its group."""

    task: Task
    start: float
    end: float
    """Of its work; its result is there `task.latency` later."""
    held_by: str
    """Cause that it waited for last, in `CAUSES`; empty if it waited for nothing but its resource."""


@dataclass(frozen=True)
class GroupRun:
    """The run of one group."""

    nest: Nest
    model: GroupCost
    ran: tuple[Ran, ...]
    tiles: int
    """Tiles simulated."""
    window_cycles: float
    busy: dict[str, float]
    """Cycles each resource was at work in the window."""
    half: tuple[float, dict[str, float]]
    """(time, busy cycles) when half of the tiles were done."""
    stalls: dict[str, dict[str, float]]
    """For each array, cycles without work by cause; `fill` before its first and `drain` after its last task."""
    peak_words: int
    events: int

    @property
    def whole(self) -> bool:
        return self.tiles == self.nest.tiles or not self.ran

    @property
    def bottleneck(self) -> str:
        """The resource that the model says is busiest."""
        bounds = {**self.model.timing.busy, **self.model.timing.transfers}
        known = {name: cycles for name, cycles in bounds.items() if name in self.busy}
        return max(known, key=lambda name: known[name])

    @property
    def bound(self) -> float:
        """Least cycles of the window: the work of its busiest resource."""
        return max(self.busy.values(), default=0.0)

    @property
    def cycles(self) -> float:
        """Of the whole group; beyond the window, at the pace of its second half."""
        if self.whole:
            return self.window_cycles
        name = self.bottleneck
        done = self.busy[name] - self.half[1].get(name, 0.0)
        pace = (self.window_cycles - self.half[0]) / done if done else 1.0
        total = max(self.model.timing.busy.get(name, 0.0), self.model.timing.transfers.get(name, 0.0))
        return self.window_cycles + max(1.0, pace) * (total - self.busy[name])

    def difference(self) -> dict[str, float]:
        """Cycles of the window beyond the work of its busiest resource, by cause."""
        name = max(self.busy, key=lambda resource: self.busy[resource], default="")
        return {cause: cycles for cause, cycles in self.stalls.get(name, {}).items() if cycles}  # where nothing ran, none


@dataclass(frozen=True)
class Simulated:
    """The run of a mapped cascade."""

    groups: tuple[GroupRun, ...]
    cost: Cost
    """What the cost model says of the same mapping."""

    @property
    def cycles(self) -> float:
        return sum(group.cycles for group in self.groups)

    @property
    def latency_s(self) -> float:
        return self.cycles / self.cost.arch.clock_hz

    @property
    def whole(self) -> bool:
        """Whether every tile was simulated, none extrapolated."""
        return all(group.whole for group in self.groups)

    @property
    def utilization(self) -> dict[str, float]:
        """Share of the lane-cycles of each array that do useful work."""
        return {
            name: share * self.cost.cycles / self.cycles if self.cycles else 0.0 for name, share in self.cost.utilization.items()
        }

    @property
    def events(self) -> int:
        return sum(group.events for group in self.groups)

    @property
    def stalls(self) -> dict[str, dict[str, float]]:
        """Cycles without work of each array in the simulated windows, by cause."""
        total: dict[str, dict[str, float]] = {name: {} for name in self.cost.arch.arrays}
        for group in self.groups:
            for name in total:
                for cause, cycles in group.stalls.get(name, {}).items():
                    total[name][cause] = total[name].get(cause, 0.0) + cycles
        return total

    def as_json(self) -> dict[str, Any]:
        return {
            "cycles": self.cycles,
            "latency_s": self.latency_s,
            "utilization": self.utilization,
            "stalls": self.stalls,
            "events": self.events,
            "whole": self.whole,
            "model_cycles": self.cost.cycles,
            "model_fill_cycles": self.cost.fill_cycles,
            "groups": [
                {
                    "cycles": group.cycles, "tiles": group.tiles, "of_tiles": group.nest.tiles,
                    "window_cycles": group.window_cycles,
                    "busy": group.busy, "bound": group.bound, "difference": group.difference(),
                    "peak_buffer_bytes": group.peak_words * group.nest.arch.word_bytes, "model_cycles": group.model.timing.cycles,
                }
                for group in self.groups
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        return report(self)


def simulate(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    *,
    max_tasks: int = MAX_TASKS,
) -> Simulated:
    """Run a mapping. Raises EinsmithError where it is illegal, does not fit, or cannot be simulated (E541)."""
    placed = place(cascade, arch, mapping, sizes, params)
    if arch.buffer[1].bandwidth is not None:
        raise refuse(
            "E541", f"the simulator does not limit the bandwidth of `{arch.buffer[0]}` yet", "set it to null, or use the cost model"
        )
    total = cost(placed)
    return Simulated(tuple(_run(nest, model, max_tasks) for nest, model in zip(placed.nests, total.groups, strict=True)), total)


class _Run:
    """The simpy side: resources, and a process for each task from the moment it has all that it waits for."""

    def __init__(self, nest: Nest) -> None:
        import simpy

        self.clock = simpy.Environment()
        names = [*nest.arch.arrays, nest.arch.backing[0]]
        self.resources = {name: simpy.PriorityResource(self.clock, capacity=1) for name in names}
        self.ran: list[Ran | None] = []
        self.lacking: list[int] = []
        """For each task, how many of those it waits for are missing."""
        self.after_work: list[list[int]] = []
        self.after_result: list[list[int]] = []
        """For each task, those that wait for its work to end, and those that wait for its result."""
        self.tasks: list[Task] = []
        self.events = 0

    def add(self, task: Task) -> None:
        self.tasks.append(task)
        self.ran.append(None)
        self.after_work.append([])
        self.after_result.append([])
        self.lacking.append(len(task.waits))
        for number, cause in task.waits:
            (self.after_result if _value(cause) else self.after_work)[number].append(task.number)

    def run(self) -> None:
        for task in self.tasks:
            if not task.waits:
                self.clock.process(self._task(task))
        self.clock.run()

    def _task(self, task: Task) -> Generator[Any, Any, None]:
        if task.cycles:
            with self.resources[task.resource].request(priority=int(task.planned)) as turn:
                yield turn
                start = self.clock.now
                yield self.clock.timeout(task.cycles)
            self.events += 2
        else:
            start = self.clock.now
            yield self.clock.timeout(0)
        self.events += 1
        self.ran[task.number] = Ran(task, float(start), float(self.clock.now), self._held_by(task))
        self._release(self.after_work[task.number])
        if task.latency:
            yield self.clock.timeout(task.latency)
            self.events += 1
        self._release(self.after_result[task.number])

    def _release(self, waiting: list[int]) -> None:
        for number in waiting:
            self.lacking[number] -= 1
            if not self.lacking[number]:
                self.clock.process(self._task(self.tasks[number]))

    def _held_by(self, task: Task) -> str:
        """What came last of all that a task waited for."""
        latest, held_by = -1.0, ""
        for number, cause in task.waits:
            earlier = self.ran[number]
            assert earlier is not None
            when = earlier.end + (earlier.task.latency if _value(cause) else 0.0)
            if when > latest:
                latest, held_by = when, "ripple" if _value(cause) and earlier.task.latency else cause
        return held_by


def _value(cause: str) -> bool:
    """Whether what is waited for is a result, not just the end of some work."""
    return cause in ("predecessor", "data")


def _run(nest: Nest, model: GroupCost, max_tasks: int) -> GroupRun:
    tasks = Tasks(nest, model.timing.cycles / max(1, nest.tiles))
    run = _Run(nest)
    ends: list[int] = []
    complete = True
    for index in tasks.tiles():
        if len(tasks.made) >= max_tasks:
            complete = False
            break
        for task in tasks.tile(index):
            run.add(task)
        ends.append(len(tasks.made))
    if not ends or not tasks.made:
        return GroupRun(nest, model, (), nest.tiles, 0.0, dict.fromkeys(run.resources, 0.0), (0.0, {}), {}, 0, 0)
    run.run()
    ran = tuple(item for item in run.ran if item is not None)
    assert len(ran) == len(tasks.made), "a task never ran"
    finish = max(item.end + item.task.latency for item in ran)
    busy = dict.fromkeys(run.resources, 0.0)
    for item in ran:
        busy[item.task.resource] += item.end - item.start
    first_half = ran[: ends[len(ends) // 2]]
    half_busy = dict.fromkeys(run.resources, 0.0)
    for item in first_half:
        half_busy[item.task.resource] += item.end - item.start
    half = max(item.end + item.task.latency for item in first_half), half_busy
    tiles = nest.tiles if complete else len(ends)
    stalls = {name: _stalls([item for item in ran if item.task.resource == name], finish) for name in run.resources}
    return GroupRun(nest, model, ran, tiles, finish, busy, half, stalls, _peak(nest, tasks, ran), run.events)


def _stalls(ran: list[Ran], finish: float) -> dict[str, float]:
    """Cycles without work of one resource, by what the task that ended each gap had waited for."""
    result: dict[str, float] = {}
    at = 0.0
    first = True
    for item in sorted((item for item in ran if item.end > item.start), key=lambda item: item.start):
        gap = item.start - at
        if gap > 0:
            cause = "fill" if first else item.held_by or "order"
            result[cause] = result.get(cause, 0.0) + gap
        at, first = item.end, False
    if finish > at:
        result["drain"] = finish - at
    return result


def _peak(nest: Nest, tasks: Tasks, ran: tuple[Ran, ...]) -> int:
    """Most words of inputs in the buffer at once, plus what the group's own tensors hold all along."""
    from ..mapper.nest import buffer_needs

    changes: list[tuple[float, int]] = []
    for loads, users in zip(tasks.box_loads, tasks.box_users, strict=True):
        for load, using in zip(loads, users, strict=True):
            words = ran[load].task.words
            changes.append((ran[load].start, words))
            changes.append((max((ran[user].end for user in using), default=ran[load].end), -words))
    held = peak = 0
    for _, words in sorted(changes):
        held += words
        peak = max(peak, held)
    inputs = {stream.tensor for stream in nest.streams}
    return peak + sum(need.words * need.slots for need in buffer_needs(nest) if need.tensor not in inputs)


# --- report -----------------------------------------------------------------------------------------------------------


def report(run: Simulated) -> str:
    """The run as a text."""
    from ..mapper.cost import amount, seconds

    arch, model = run.cost.arch, run.cost
    more = run.cycles - model.cycles
    lines = [
        f"{model.placed.cascade.name} on {arch.name}, mapping {model.placed.mapping.name}: simulated event by event",
        f"  cycles       {run.cycles:,.0f}  ({seconds(run.latency_s)})" + ("" if run.whole else "  extrapolated, see below"),
        f"  cost model   {model.cycles:,.0f}; the simulation takes {more:+,.0f} cycles ({more / (model.cycles or 1):+.2%});"
        f" the model expects {model.fill_cycles:+,.0f} of fill and drain",
        "  utilization  " + ", ".join(f"{name} {share:.1%}" for name, share in run.utilization.items()),
        f"  events       {run.events:,}",
    ]
    for number, group in enumerate(run.groups, 1):
        how = (
            "all tiles"
            if group.whole
            else f"the first {group.tiles:,} of {group.nest.tiles:,} tiles, the rest at the pace of their second half"
        )
        lines.append(f"group {number}: {how}")
        lines.append(f"    {group.window_cycles:,.0f} cycles; the busiest resource works {group.bound:,.0f} of them")
        for cause, cycles in group.difference().items():
            lines.append(f"        {cycles:12,.0f}  {CAUSES.get(cause, _ends(cause))}")
        size = arch.buffer[1].size
        have = f" of {amount(size, 'B')}" if size else ""
        lines.append(f"    at most {amount(group.peak_words * arch.word_bytes, 'B')}{have} of `{arch.buffer[0]}` taken")
    lines.append("stalls of each array in the simulated tiles, cycles")
    for name, causes in run.stalls.items():
        listed = ", ".join(
            f"{cause} {cycles:,.0f}" for cause, cycles in sorted(causes.items(), key=lambda item: -item[1]) if cycles
        )
        lines.append(f"    {name:12} {listed or 'none'}")
    return "\n".join(lines)


def _ends(cause: str) -> str:
    return "before its first work (fill)" if cause == "fill" else "after its last work (drain)"
