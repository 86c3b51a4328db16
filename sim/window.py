"""What a run of some tiles gave: work and idle cycles of every resource, words moved, room taken, the critical path.

In: tasks and when each ran. Out: a `Window`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .order import Run, held_by
from .task import Task

CAUSES = {
    "data": "waiting for a transfer", "predecessor": "waiting for a value", "ripple": "waiting for a reduction to come out",
    "order": "waiting for its turn", "space": "waiting for a buffer slot", "flight": "too few tiles in flight",
    "port": "waiting for a port or network",
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """One task as it ran, in cycles from the start of its group; or its part at a port or network that it asked for."""

    task: Task
    resource: str
    start: float
    end: float
    """When it leaves the resource; its result is there `task.latency` later."""
    work: float
    """Cycles of it at work; the rest it waits for ports and networks."""
    held_by: str
    """Cause that it waited for last, in `CAUSES`; empty if it waited for nothing but its resource."""


@dataclass(frozen=True)
class Window:
    """Some tiles of a group, run."""

    tasks: Sequence[Task]
    run: Run
    marks: tuple[int, ...]
    """How many tasks there are after each tile."""
    resources: tuple[str, ...]
    """Those that are reported, whether or not they had work."""
    peaks: dict[str, float]
    """Most words at once in one instance of each storage level on the chip."""

    @property
    def tiles(self) -> int:
        return len(self.marks)

    @property
    def events(self) -> int:
        return self.run.events

    @cached_property
    def cycles(self) -> float:
        return max((end + task.latency for task, end in zip(self.tasks, self.run.ends, strict=True)), default=0.0)

    @cached_property
    def ran(self) -> tuple[Ran, ...]:
        """All tasks in program order, then their parts at ports and networks."""
        run, found = self.run, []
        for task in self.tasks:
            start, end = run.starts[task.number], run.ends[task.number]
            found.append(Ran(task, task.resource, start, end, task.cycles, held_by(task, self.tasks, run)[0]))
        for number, name, start, end in run.asked:
            found.append(Ran(self.tasks[number], name, start, end, end - start, found[number].held_by))
        return tuple(found)

    @cached_property
    def lanes(self) -> dict[str, list[Ran]]:
        """By resource, what ran on it in the order of time."""
        found: dict[str, list[Ran]] = {name: [] for name in self.resources}
        for item in self.ran:
            if item.end > item.start and item.resource:
                found.setdefault(item.resource, []).append(item)
        for items in found.values():
            items.sort(key=lambda item: item.start)
        return found

    @cached_property
    def busy(self) -> dict[str, float]:
        """Cycles each resource was at work."""
        return {name: sum(item.work for item in items) for name, items in self.lanes.items()}

    @cached_property
    def stalls(self) -> dict[str, dict[str, float]]:
        """For each resource, cycles without work by cause; `fill` before its first and `drain` after its last task."""
        return {name: self._stalls(items) for name, items in self.lanes.items()}

    def _stalls(self, items: Sequence[Ran]) -> dict[str, float]:
        result: dict[str, float] = {}
        at = 0.0
        for place, item in enumerate(items):
            gap = item.start - at
            if gap > 0:
                cause = "fill" if not place else item.held_by or "order"
                result[cause] = result.get(cause, 0.0) + gap
            if item.end - item.start > item.work:
                result["port"] = result.get("port", 0.0) + item.end - item.start - item.work
            at = item.end
        if self.cycles > at:
            result["drain"] = self.cycles - at
        return result

    def over_time(self, bins: int = 50) -> dict[str, list[float]]:
        """For each resource, the share of each of so many equal stretches of time that it is taken."""
        found: dict[str, list[float]] = {}
        width = (self.cycles or 1.0) / bins
        for name, items in self.lanes.items():
            share = [0.0] * bins
            for item in items:
                first, last = int(item.start / width), min(bins - 1, int(item.end / width))
                for at in range(first, last + 1):
                    share[at] += max(0.0, min(item.end, (at + 1) * width) - max(item.start, at * width)) / width
            found[name] = share
        return found

    @cached_property
    def half(self) -> tuple[float, dict[str, float]]:
        """(time, busy cycles) when half of the tiles were done."""
        count = self.marks[len(self.marks) // 2] if self.marks else 0
        busy = dict.fromkeys(self.busy, 0.0)
        for task in self.tasks[:count]:
            for name, cycles in ((task.resource, task.cycles), *task.also):
                if cycles:
                    busy[name] += cycles
        return max((self.run.ends[n] + self.tasks[n].latency for n in range(count)), default=0.0), busy

    @cached_property
    def moved(self) -> dict[tuple[str, str], float]:
        """Words by (storage level or network, `read`, `written` or `sent`)."""
        found: dict[tuple[str, str], float] = {}
        for task in self.tasks:
            for component, _, way, _, words in task.moves:
                found[component, way] = found.get((component, way), 0.0) + words
        return found

    def counts(self) -> dict[tuple[str, ...], float]:
        """All that grows with the number of tiles, by name."""
        found: dict[tuple[str, ...], float] = {("cycles",): self.cycles}
        found |= {("busy", name): cycles for name, cycles in self.busy.items()}
        found |= {("moved", *name): words for name, words in self.moved.items()}
        found |= {("stalls", name, cause): cycles for name, causes in self.stalls.items() for cause, cycles in causes.items()}
        return found

    def finishes(self) -> list[float]:
        """When all work of each tile and those before it has ended."""
        found, latest, at = [], 0.0, 0
        for mark in self.marks:
            for number in range(at, mark):
                latest = max(latest, self.run.ends[number])
            found.append(latest)
            at = mark
        return found

    @cached_property
    def critical(self) -> dict[str, float]:
        """Cycles of the window by what the end waited for, and what that had waited for, back to the start: work and transfers by
        name, and latencies. They add up to all cycles."""
        found: dict[str, float] = {}
        ending: dict[tuple[str, float], int] = {}
        for number, (task, end) in enumerate(zip(self.tasks, self.run.ends, strict=True)):
            if task.cycles:
                ending[task.resource, end] = number
        for number, name, _, end in self.run.asked:
            ending[name, end] = number
        number = max(range(len(self.tasks)), key=lambda n: self.run.ends[n] + self.tasks[n].latency, default=-1)
        at = self.cycles
        while number >= 0 and at > 0:
            task, start, end = self.tasks[number], self.run.starts[number], self.run.ends[number]
            if at > end:
                found[f"latency of {task.name}"] = found.get(f"latency of {task.name}", 0.0) + at - end
                at = end
            name = task.name if task.kind == "compute" else f"{task.kind} {task.name}"
            found[name] = found.get(name, 0.0) + at - start
            at = start
            _, before = held_by(task, self.tasks, self.run)
            if before >= 0 and self._reaches(before, task, at):
                number = before
            else:
                number = ending.get((task.resource, at), -1)
        if at > 0:
            found["other"] = found.get("other", 0.0) + at
        return found

    def _reaches(self, before: int, task: Task, at: float) -> bool:
        """Whether a task waited for another one until it began."""
        start, end = self.run.starts[before], self.run.ends[before]
        if any(number == before for number, _ in task.waits) and at in (end, end + self.tasks[before].latency):
            return True
        return any(number == before and start + cycles == at for number, cycles in task.trails)
