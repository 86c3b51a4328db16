"""The event run: every resource a simpy process that takes the tasks that are ready for it, one after another.

In: tasks in program order. Out: when each starts. The rule stands in `order`; `recurrence` computes the same without processes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from typing import Any

from .order import Graph
from .tasks import Task


def run(tasks: Sequence[Task]) -> tuple[list[float], int]:
    """(start of each task in cycles, number of events). Raises AssertionError if a task never ran."""
    import simpy

    last = simpy.events.EventPriority(2)  # simpy's own events have 0 and 1
    clock = simpy.Environment()

    class Settled(simpy.Event):
        """Fires at this instant, after everything else that happens at it."""

        def __init__(self) -> None:
            super().__init__(clock)
            self._ok, self._value = True, None
            clock.schedule(self, priority=last)

    graph = Graph(tasks)
    starts = [-1.0] * len(tasks)
    queues: dict[str, list[tuple[float, int]]] = {task.resource: [] for task in tasks}
    """By resource, (planned start, number) of the tasks that are ready."""
    idle: dict[str, simpy.Event] = {}
    events = 0

    def release(waiting: list[int]) -> None:
        for number in waiting:
            graph.lacking[number] -= 1
            if not graph.lacking[number]:
                ready(number)

    def ready(number: int) -> None:
        task = tasks[number]
        if not task.cycles:  # it needs no time of its resource
            starts[number] = clock.now
            finish(number)
            return
        heappush(queues[task.resource], (task.planned, number))
        if task.resource in idle:
            idle.pop(task.resource).succeed()

    def finish(number: int) -> None:
        nonlocal events
        events += 1
        release(graph.after_work[number])
        if tasks[number].latency:
            events += 1
            clock.timeout(tasks[number].latency).callbacks.append(lambda _: release(graph.after_result[number]))
        else:
            release(graph.after_result[number])

    def resource(name: str) -> Generator[Any, Any, None]:
        nonlocal events
        queue = queues[name]
        while True:
            if not queue:
                idle[name] = clock.event()
                yield idle[name]
            yield Settled()
            number = heappop(queue)[1]
            starts[number] = clock.now
            events += 1
            yield clock.timeout(tasks[number].cycles)
            finish(number)

    for name in queues:
        clock.process(resource(name))
    for task in tasks:
        if not task.waits:
            ready(task.number)
    clock.run()
    assert min(starts, default=0.0) >= 0, "a task never ran"
    return starts, events
