"""Event-driven simulation of a mapped cascade.

In: a cascade, an architecture, a mapping, sizes. Out: a `Simulated`: cycles, utilization, stalls by cause, peak occupancy of
the buffer, and how the cycles differ from the cost model's bound. Each tile-level task (see `tasks`) waits for what it needs,
takes its resource (an array, the channel of the backing store) for its cycles, and delivers after its latency; `events` carries
that out, `recurrence` computes the same faster for long runs. Groups run one after another. What is too long to be run tile by
tile is extrapolated: exactly where its steady state is found (`steady`), otherwise at the pace of its first tiles; the result
says which.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..einsum.cascade import Cascade, free_ranks
from ..mapper.architecture import Architecture
from ..mapper.cost import Cost, GroupCost, cost
from ..mapper.legality import tiles_behind
from ..mapper.mapping import Mapping
from ..mapper.nest import Nest, Stream, buffer_needs, place, refuse
from . import events, recurrence
from .order import held_by
from .steady import Axes, Unsteady, extrapolated
from .tasks import Task, Tasks

MAX_TASKS = 20_000
"""Most tasks of one group that are simulated event by event, unless asked otherwise."""
MAX_STEADY = 100_000
"""Most tasks of one sample of a group that is extrapolated."""
How: TypeAlias = Literal["whole", "steady", "pace"]
"""`whole`: every tile; `steady`: extrapolated exactly from its steady state; `pace`: at the pace of the second half of its
first tiles."""
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
class Window:
    """Some tiles of a group, run."""

    ran: tuple[Ran, ...]
    tiles: int
    cycles: float
    busy: dict[str, float]
    """Cycles each resource was at work."""
    half: tuple[float, dict[str, float]]
    """(time, busy cycles) when half of the tiles were done."""
    stalls: dict[str, dict[str, float]]
    """For each resource, cycles without work by cause; `fill` before its first and `drain` after its last task."""
    peak_words: int
    events: int

    def counts(self) -> dict[tuple[str, ...], float]:
        """All that grows with the number of tiles, by name."""
        found: dict[tuple[str, ...], float] = {("cycles",): self.cycles}
        found |= {("busy", name): cycles for name, cycles in self.busy.items()}
        found |= {("stalls", name, cause): cycles for name, causes in self.stalls.items() for cause, cycles in causes.items()}
        return found


@dataclass(frozen=True)
class GroupRun:
    """The run of one group."""

    nest: Nest
    model: GroupCost
    how: How
    window: Window
    """The tiles that were run: all, the largest sample of the steady state, or the first ones."""
    cycles: float
    """Of the whole group."""
    stalls: dict[str, dict[str, float]]
    """Of the whole group (at a pace: of the window), for each resource, by cause."""
    busy: dict[str, float] = field(default_factory=dict)
    """Of the whole group (at a pace: of the window), for each resource."""
    events: int = 0
    """Of all samples."""

    @property
    def whole(self) -> bool:
        return self.how == "whole"

    @property
    def ran(self) -> tuple[Ran, ...]:
        return self.window.ran

    @property
    def covers(self) -> float:
        """Cycles that `busy` and `stalls` cover."""
        return self.window.cycles if self.how == "pace" else self.cycles

    @property
    def bound(self) -> float:
        """Least cycles that the work of the busiest resource takes."""
        return max(self.busy.values(), default=0.0)

    def difference(self) -> dict[str, float]:
        """Cycles beyond the work of the busiest resource, by cause."""
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
    def exact(self) -> bool:
        """Whether the cycles are those of a whole run: simulated, or extrapolated from a steady state."""
        return all(group.how != "pace" for group in self.groups)

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
        """Cycles without work of each array, by cause."""
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
            "exact": self.exact,
            "model_cycles": self.cost.cycles,
            "model_fill_cycles": self.cost.fill_cycles,
            "groups": [
                {
                    "cycles": group.cycles, "how": group.how, "tiles": group.window.tiles, "of_tiles": group.nest.tiles,
                    "window_cycles": group.window.cycles,
                    "busy": group.busy, "stalls": group.stalls, "bound": group.bound, "difference": group.difference(),
                    "peak_buffer_bytes": group.window.peak_words * group.nest.arch.word_bytes,
                    "model_cycles": group.model.timing.cycles,
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
    for nest in placed.nests:
        _check(nest)
    if mapping.pipelined_loops:
        raise refuse("E541", "the simulator runs one group after another; this mapping lets them work at the same time")
    total = cost(placed)
    return Simulated(tuple(_run(nest, model, max_tasks) for nest, model in zip(placed.nests, total.groups, strict=True)), total)


def _check(nest: Nest) -> None:
    """Refuses what the tasks do not express."""
    group = nest.group
    if group.flow:
        what = f"Einsums that follow one another along `{group.flow}` within a tile"
    elif group.spill:
        what = "tensors that are spilled"
    elif any(not stream.level and _streams_again(nest, stream) for stream in nest.streams):
        what = "inputs that go past the buffer and are read several times in a tile"
    elif group.phases and max(tiles_behind(nest).values()) > 1:
        what = "Einsums that work two tiles behind"
    else:
        return
    raise refuse("E541", f"the simulator does not run {what} (group {nest.number})", "use the cost model")


def _streams_again(nest: Nest, stream: Stream) -> bool:
    """Whether folds of a reader over its array read an input again."""
    ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
    return any((grid > 1).any() for reader in stream.readers for grid in nest.folds(reader, reader.binding.ranks - ranks))


def _run(nest: Nest, model: GroupCost, max_tasks: int) -> GroupRun:
    interval = model.timing.cycles / max(1, nest.tiles)
    tasks = Tasks(nest, interval)
    ends: list[int] = []
    complete = True
    for index in tasks.tiles():
        if len(tasks.made) >= max_tasks:
            complete = False
            break
        tasks.tile(index)
        ends.append(len(tasks.made))
    tasks.finish()
    if not complete:
        try:
            return _steady(nest, model, interval, max_tasks)
        except Unsteady:
            pass
    window = _window(nest, tasks, ends)
    cycles = window.cycles if complete else _paced(model, window)
    return GroupRun(nest, model, "whole" if complete else "pace", window, cycles, window.stalls, window.busy, window.events)


def _steady(nest: Nest, model: GroupCost, interval: float, max_tasks: int) -> GroupRun:
    """A group from samples of its tiles. Raises Unsteady where they do not settle."""
    windows: list[Window] = []

    def sample(iterations: Axes) -> dict[tuple[str, ...], float]:
        tasks = Tasks(nest, interval)
        ends: list[int] = []
        for index in tasks.tiles(iterations):
            tasks.tile(index)
            ends.append(len(tasks.made))
        tasks.finish()
        windows.append(_window(nest, tasks, ends))
        return windows[-1].counts()

    per_tile = max(1, sum(1 for step in nest.steps if not step.initial))
    total = extrapolated(nest, max(MAX_STEADY, max_tasks) // per_tile, sample)
    stalls: dict[str, dict[str, float]] = {}
    busy: dict[str, float] = {}
    for name, count in total.items():
        if name[0] == "stalls":
            stalls.setdefault(name[1], {})[name[2]] = count
        elif name[0] == "busy":
            busy[name[1]] = count
    window = max(windows, key=lambda window: window.tiles)
    return GroupRun(nest, model, "steady", window, total[("cycles",)], stalls, busy, sum(window.events for window in windows))


def _paced(model: GroupCost, window: Window) -> float:
    """Cycles of a whole group at the pace, in work of the busiest resource, of the second half of a window."""
    bounds = {**model.timing.busy, **model.timing.transfers}
    known = {name: cycles for name, cycles in bounds.items() if name in window.busy}
    name = max(known, key=lambda name: known[name])
    done = window.busy[name] - window.half[1].get(name, 0.0)
    pace = (window.cycles - window.half[0]) / done if done else 1.0
    return window.cycles + max(1.0, pace) * (known[name] - window.busy[name])


def _window(nest: Nest, tasks: Tasks, ends: Sequence[int]) -> Window:
    """Run tasks; `ends`: how many there are after each tile."""
    made = tasks.made
    names = [*nest.arch.arrays, nest.arch.backing[0]]
    if not made:
        return Window((), nest.tiles, 0.0, dict.fromkeys(names, 0.0), (0.0, {}), {}, 0, 0)
    starts, count = (events.run if len(made) <= MAX_TASKS else recurrence.run)(made)
    ran = tuple(
        Ran(task, start, start + task.cycles, held_by(task, made, starts)) for task, start in zip(made, starts, strict=True)
    )
    finish = max(item.end + item.task.latency for item in ran)
    busy = dict.fromkeys(names, 0.0)
    for item in ran:
        busy[item.task.resource] += item.task.cycles
    first_half = ran[: ends[len(ends) // 2]]
    half_busy = dict.fromkeys(names, 0.0)
    for item in first_half:
        half_busy[item.task.resource] += item.task.cycles
    half = max((item.end + item.task.latency for item in first_half), default=0.0), half_busy
    stalls = {name: _stalls([item for item in ran if item.task.resource == name], finish) for name in names}
    return Window(ran, len(ends), finish, busy, half, stalls, _peak(nest, tasks, ran), count)


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
        f"  cycles       {run.cycles:,.0f}  ({seconds(run.latency_s)})" + ("" if run.exact else "  extrapolated, see below"),
        f"  cost model   {model.cycles:,.0f}; the simulation takes {more:+,.0f} cycles ({more / (model.cycles or 1):+.2%});"
        f" the model expects {model.fill_cycles:+,.0f} of fill and drain",
        "  utilization  " + ", ".join(f"{name} {share:.1%}" for name, share in run.utilization.items()),
        f"  events       {run.events:,}",
    ]
    for number, group in enumerate(run.groups, 1):
        some = f"{group.window.tiles:,} of {group.nest.tiles:,} tiles"
        how = {
            "whole": "all tiles",
            "steady": f"samples of up to {some}; all grows by the same from iteration to iteration, so this is what all tiles take",
            "pace": f"the first {some}, the rest at the pace of their second half",
        }[group.how]
        lines.append(f"group {number}: {how}")
        lines.append(f"    {group.covers:,.0f} cycles; the busiest resource works {group.bound:,.0f} of them")
        for cause, cycles in group.difference().items():
            lines.append(f"        {cycles:12,.0f}  {CAUSES.get(cause, _ends(cause))}")
        size = arch.buffer[1].size
        have = f" of {amount(size, 'B')}" if size else ""
        lines.append(f"    at most {amount(group.window.peak_words * arch.word_bytes, 'B')}{have} of `{arch.buffer[0]}` taken")
    lines.append("stalls of each array, cycles")
    for name, causes in run.stalls.items():
        listed = ", ".join(
            f"{cause} {cycles:,.0f}" for cause, cycles in sorted(causes.items(), key=lambda item: -item[1]) if cycles
        )
        lines.append(f"    {name:12} {listed or 'none'}")
    return "\n".join(lines)


def _ends(cause: str) -> str:
    return "before its first work (fill)" if cause == "fill" else "after its last work (drain)"
