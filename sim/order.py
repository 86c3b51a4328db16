"""Who waits for whom: the tasks of a run as a graph, whatever carries it out.

In: tasks in program order. Out: a `Graph`: for each task how many it waits for, and who waits for the end of its work or for
its result. `held_by` tells afterwards what a task waited for last.

The rule of the machine, which both the event run and the recurrence follow: at any instant everything that ends and everything
that becomes ready comes first; then each idle resource takes, of the tasks that are ready for it, the one that would start
first in the model's steady state (ties: the earlier one in program order).
"""

from __future__ import annotations

from collections.abc import Sequence

from .tasks import Cause, Task

VALUES: frozenset[Cause] = frozenset(("predecessor", "data"))
"""Causes for which the result is waited for, not just the end of the work."""


class Graph:
    """The tasks of a run and what they release."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.lacking = [len(task.waits) for task in tasks]
        """For each task, how many of those it waits for are missing."""
        self.after_work: list[list[int]] = [[] for _ in tasks]
        """For each task, those that wait for the end of its work."""
        self.after_result: list[list[int]] = [[] for _ in tasks]
        """For each task, those that wait for its result."""
        for task in tasks:
            for number, cause in task.waits:
                (self.after_result if cause in VALUES else self.after_work)[number].append(task.number)


def held_by(task: Task, tasks: Sequence[Task], starts: Sequence[float]) -> str:
    """The cause of what came last of all that a task waited for; empty if it waited for nothing."""
    latest, found = -1.0, ""
    for number, cause in task.waits:
        earlier = tasks[number]
        when = starts[number] + earlier.cycles
        if cause in VALUES:
            when += earlier.latency
        if when > latest:
            latest, found = when, "ripple" if cause in VALUES and earlier.latency else cause
    return found
