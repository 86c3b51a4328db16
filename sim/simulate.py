"""Event-driven simulation of a mapped cascade.

In: a cascade, an architecture, a mapping, sizes. Out: a `Simulated`: cycles, utilization, stalls by cause, peak occupancy of every
level, words moved, and how the cycles differ from the cost model's bound. Each tile-level task (see `tasks`) waits for what it
needs, takes its resource for its cycles, and delivers after its latency; `events` carries that out, `recurrence` computes the same
faster for long runs. Groups run one after another, or together as a pipeline (`program`). What is too long to be run tile by tile
is extrapolated: exactly where its steady state is found (`steady`), otherwise at the pace of its first tiles; the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from ..einsum.cascade import Cascade
from ..mapper.architecture import Architecture
from ..mapper.cost import Cost, GroupCost, cost
from ..mapper.mapping import Mapping
from ..mapper.nest import Grid, Nest, place
from .machine import Machine, component
from .program import MAX_EVENTS, Program
from .steady import Counts, Unsteady, extrapolated
from .window import Ran, Window

MAX_TASKS = MAX_EVENTS
"""Most tasks of one group that are simulated one by one, unless asked otherwise."""
MAX_STEADY = 120_000
"""Most tasks of one sample of a group that is extrapolated."""
MAX_WHOLE = 400_000
"""Most tasks of a group that are all run if no steady state is found; fewer where samples are smaller, in proportion."""
How: TypeAlias = Literal["whole", "steady", "pace"]
"""`whole`: every tile; `steady`: extrapolated exactly from its steady state; `pace`: at the pace of the second half of its
first tiles."""
Watch: TypeAlias = Callable[[int, int], None]
"""Is told which group (from 1) is simulated, and how many tasks have been run."""


@dataclass(frozen=True)
class GroupRun:
    """The run of one group, or of the groups of a pipeline."""

    nests: tuple[Nest, ...]
    models: tuple[GroupCost, ...]
    model_cycles: float
    """What the cost model says of them."""
    bounds: dict[str, float]
    """Least cycles that the cost model gives for each array, level and network, and for the order of the work."""
    how: How
    window: Window
    """The tiles that were run: all, the largest sample of the steady state, or the first ones."""
    cycles: float
    """Of the whole group."""
    stalls: dict[str, dict[str, float]]
    """Of the whole group (at a pace: of the window), for each resource, by cause."""
    busy: dict[str, float]
    """Of the whole group (at a pace: of the window), for each resource."""
    moved: dict[tuple[str, str], float]
    """Words of the whole group (at a pace: of the window), by (level or network, `read`, `written` or `sent`)."""
    events: int
    """Of all samples."""
    tiles: int
    """Of all loops, what instances do at the same time as one; of a pipeline, iterations of the common loops."""
    common: int
    """How many loops the groups of a pipeline have in common; 0: it is none."""

    @property
    def nest(self) -> Nest:
        return self.nests[0]

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
    def busiest(self) -> str:
        """The resource with most work."""
        return max(self.busy, key=lambda resource: self.busy[resource], default="")

    @property
    def bound(self) -> float:
        """Least cycles that the work of the busiest resource takes."""
        return max(self.busy.values(), default=0.0)

    def difference(self) -> dict[str, float]:
        """Cycles beyond the cost model's, by cause; they add up to all of them. Where one resource bounds the model these are its
        idle cycles; where it is the order of the work, or at a pace, what is neither fill nor drain is one term, `beyond`."""
        more = self.cycles - self.model_cycles
        if len(self.bounding) == 1 and self.how != "pace":
            (name,) = self.bounding
            found = {**self.stalls[name], "work": self.busy[name] - self.model_cycles}
        else:
            found = {"fill": self.fill, "drain": self.drain, "beyond": more - self.fill - self.drain}
        return {cause: cycles for cause, cycles in found.items() if abs(cycles) > 1e-3 + 1e-12 * self.cycles}

    @property
    def bounding(self) -> tuple[str, ...]:
        """The resources whose first and last work delimit the steady state: what bounds the cost model, of several instances or
        ports the one that ends last; all arrays where that is the order of the work."""
        by = max(self.bounds, key=lambda name: self.bounds[name], default="")
        lanes = self.window.lanes
        found = [name for name in lanes if component(name) == by and lanes[name]]
        if found:
            return (max(found, key=lambda name: lanes[name][-1].end),)
        return tuple(name for name in lanes if component(name) in self.nest.arch.arrays and lanes[name])

    @cached_property
    def fill(self) -> float:
        """Cycles before the steady state."""
        return min((self.window.lanes[name][0].start for name in self.bounding), default=0.0)

    @cached_property
    def drain(self) -> float:
        """Cycles after it."""
        return self.window.cycles - max((self.window.lanes[name][-1].end for name in self.bounding), default=self.window.cycles)

    def as_json(self) -> dict[str, Any]:
        word = self.nest.arch.word_bytes
        buffer = next(iter(self.nest.arch.on_chip), "")
        return {
            "cycles": self.cycles, "how": self.how, "tiles": self.window.tiles, "of_tiles": self.tiles,
            "window_cycles": self.window.cycles, "groups": [nest.number for nest in self.nests],
            "busy": self.busy, "stalls": self.stalls, "bound": self.bound, "difference": self.difference(),
            "fill": self.fill, "drain": self.drain,
            "peak_buffer_bytes": self.window.peaks.get(buffer, 0) * word,
            "peak_bytes": {level: words * word for level, words in self.window.peaks.items()},
            "moved_bytes": {f"{name} {way}": words * word for (name, way), words in self.moved.items()},
            "critical_path": self.window.critical, "busy_over_time": self.window.over_time(),
            "model_cycles": self.model_cycles, "model_bounds": self.bounds,
        }  # fmt: skip


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
    def steady_cycles(self) -> float:
        """Without the fill and drain of each group."""
        return self.cycles - sum(group.fill + group.drain for group in self.groups)

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

    @cached_property
    def stalls(self) -> dict[str, dict[str, float]]:
        """Cycles without work of each array (of each instance), by cause."""
        machine = Machine(self.cost.arch)
        names = [machine.named(name, at) for name in self.cost.arch.arrays for at in range(self.cost.arch.instances(name))]
        total: dict[str, dict[str, float]] = {name: {} for name in names}
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
            "groups": [group.as_json() for group in self.groups],
        }

    def __str__(self) -> str:
        from .report import report

        return report(self)


def simulate(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    *,
    traces: Map_[str, Grid] | None = None,
    max_tasks: int = MAX_TASKS,
    max_sample: int = MAX_STEADY,
    watch: Watch | None = None,
) -> Simulated:
    """Run a mapping; `max_sample`: most tasks of one sample of a group that is extrapolated; `watch` is told of the progress.
    Raises EinsmithError where the mapping is illegal or does not fit."""
    placed = place(cascade, arch, mapping, sizes, params, traces)
    total = cost(placed)
    machine = Machine(arch)
    runs: list[GroupRun] = []
    if mapping.pipelined_loops:
        nests = placed.nests
        program = Program(nests, machine, total.cycles, mapping.pipelined_loops)
        runs.append(_run(program, total.groups, total.together, max_tasks, max_sample, _told(watch, 1)))
    else:
        for nest, model in zip(placed.nests, total.groups, strict=True):
            program = Program((nest,), machine, model.timing.cycles)
            runs.append(_run(program, (model,), model.timing.bounds, max_tasks, max_sample, _told(watch, nest.number)))
    return Simulated(tuple(runs), total)


def _told(watch: Watch | None, group: int) -> Callable[[int], None] | None:
    return None if watch is None else lambda tasks: watch(group, tasks)


def _run(
    program: Program, models: Sequence[GroupCost], bounds: dict[str, float], max_tasks: int, max_sample: int,
    watch: Callable[[int], None] | None,
) -> GroupRun:  # fmt: skip
    program.watch = watch
    how, window, counts, cycles, events = _carried_out(program, bounds, max_tasks, max_sample)
    stalls, busy, moved = _by_resource(counts, window)
    return GroupRun(
        program.nests, tuple(models), program.cycles, bounds, how, window, cycles, stalls, busy, moved, events, program.tiles,
        program.common,
    )  # fmt: skip


def _carried_out(
    program: Program, bounds: dict[str, float], max_tasks: int, max_sample: int
) -> tuple[How, Window, Counts, float, int]:
    """How a program was run, the tiles that were, and of the whole: all counts, cycles, events."""
    per_tile = program.per_tile()
    expected = program.tiles * per_tile
    if expected <= 2 * max_tasks:  # it may be few enough
        window, whole = program.window(most=max_tasks)
        if whole:
            return "whole", window, window.counts(), window.cycles, window.events
    try:
        counts, windows = extrapolated(program, max(max_sample, max_tasks), per_tile)
    except Unsteady:
        if expected * MAX_STEADY <= MAX_WHOLE * max_sample:
            window, _ = program.window()
            return "whole", window, window.counts(), window.cycles, window.events
        window, _ = program.window(most=max_tasks)
        return "pace", window, window.counts(), _paced(bounds, window), window.events
    return "steady", max(windows, key=lambda each: each.tiles), counts, counts[("cycles",)], sum(each.events for each in windows)


def _by_resource(
    counts: Counts, window: Window
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[tuple[str, str], float]]:
    stalls: dict[str, dict[str, float]] = {name: {} for name in window.lanes}
    busy: dict[str, float] = {}
    moved: dict[tuple[str, str], float] = {}
    for name, count in counts.items():
        if name[0] == "stalls":
            stalls[name[1]][name[2]] = count
        elif name[0] == "busy":
            busy[name[1]] = count
        elif name[0] == "moved":
            moved[name[1], name[2]] = count
    return stalls, busy, moved


def _paced(bounds: dict[str, float], window: Window) -> float:
    """Cycles of a whole group at the pace, in work of the busiest resource, of the second half of a window."""
    known: dict[str, tuple[float, str]] = {}
    for name, cycles in bounds.items():
        instances = [each for each in window.busy if component(each) == name]
        if instances:
            most = max(instances, key=lambda each: window.busy[each])
            known[name] = cycles, most
    if not known:
        return window.cycles
    whole, name = max(known.values(), key=lambda item: item[0])
    done = window.busy[name] - window.half[1].get(name, 0.0)
    pace = (window.cycles - window.half[0]) / done if done else 1.0
    return window.cycles + max(1.0, pace) * max(0.0, whole - window.busy[name])
