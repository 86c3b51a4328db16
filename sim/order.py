"""Who waits for whom: the tasks of a run as a graph, whatever carries it out.

In: tasks in program order. Out: a `Graph`: for each task how many it waits for, and what each moment of it releases. `held_by`
tells afterwards what a task waited for last.

The rule of the machine, which both the event run and the recurrence follow: at any instant everything that ends and everything
that becomes ready comes first; then each idle resource, in the order of the machine, takes of what asks for it the task that would
start first in the model's steady state (ties: the earlier one in program order). A task that begins asks for the ports and
networks that it needs besides, and holds its own resource until they have done their part too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .task import Cause, Task

VALUES: frozenset[Cause] = frozenset(("predecessor", "data"))
"""Causes for which the result is waited for, not just the end of the work."""


@dataclass(slots=True)
class Run:
    """How a run went, in cycles from its start."""

    starts: list[float]
    """Of each task."""
    ends: list[float]
    """When each has left its resource."""
    asked: list[tuple[int, str, float, float]]
    """(task, port or network that it asked for, start, end)."""
    events: int


class Graph:
    """The tasks of a run and what they release."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.lacking = [len(task.waits) + len(task.trails) for task in tasks]
        """For each task, how many of those it waits for are missing."""
        self.after_work: list[list[int]] = [[] for _ in tasks]
        """For each task, those that wait for the end of its work."""
        self.after_result: list[list[int]] = [[] for _ in tasks]
        """For each task, those that wait for its result."""
        self.after_start: dict[int, list[tuple[float, int]]] = {}
        """For some tasks, (cycles, task) that may begin so long after their start."""
        for task in tasks:
            for number, cause in task.waits:
                (self.after_result if cause in VALUES else self.after_work)[number].append(task.number)
            for number, cycles in task.trails:
                self.after_start.setdefault(number, []).append((cycles, task.number))


def held_by(task: Task, tasks: Sequence[Task], run: Run) -> tuple[str, int]:
    """The cause of what came last of all that a task waited for, and which task it was; nothing and -1 if it waited for nothing."""
    latest, found, whom = -1.0, "", -1
    for number, cause in task.waits:
        when = run.ends[number]
        latency = tasks[number].latency if cause in VALUES else 0.0
        if when + latency > latest:
            latest, found, whom = when + latency, "ripple" if latency else cause, number
    for number, cycles in task.trails:
        if run.starts[number] + cycles > latest:
            latest, found, whom = run.starts[number] + cycles, "space", number
    return found, whom
