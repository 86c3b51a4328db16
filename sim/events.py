"""The event run: every resource a simpy process that takes the tasks that ask for it, one after another.

In: tasks in program order. Out: when each starts and ends. The rule stands in `order`; `recurrence` computes the same without
processes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

from .faults import check_ran
from .order import Graph, Run
from .task import Task


def run(tasks: Sequence[Task], rank: Mapping[str, int]) -> Run:
    """Runs the tasks; `rank`: the order of the resources. Raises AssertionError if a task never ran."""
    import simpy

    clock = simpy.Environment()

    class Settled(simpy.Event):
        """Fires at this instant, after everything else that happens at it; for resources in their order."""

        def __init__(self, place: int) -> None:
            super().__init__(clock)
            self._ok, self._value = True, None
            clock.schedule(self, priority=simpy.events.EventPriority(2 + place))  # simpy's own events have 0 and 1

    graph = Graph(tasks)
    starts, ends = [-1.0] * len(tasks), [-1.0] * len(tasks)
    asked: list[tuple[int, str, float, float]] = []
    names = {task.resource for task in tasks if task.cycles} | {name for task in tasks for name, _ in task.also}
    queues: dict[str, list[tuple[float, int, float]]] = {name: [] for name in names}
    """By resource: (planned, task, cycles) that ask for it; negative cycles: it is not the task's own resource."""
    idle: dict[str, simpy.Event] = {}
    missing: dict[int, int] = {}
    """Of tasks that ask for several resources, how many of these have not done their part."""
    done: dict[int, simpy.Event] = {}
    """For such tasks, what their own resource waits for."""
    events = 0

    def release(waiting: Sequence[int]) -> None:
        for number in waiting:
            graph.lacking[number] -= 1
            if not graph.lacking[number]:
                ready(number)

    def ready(number: int) -> None:
        task = tasks[number]
        if task.cycles:
            queue(task.resource, task, task.cycles)
            return
        begin(number)  # it needs no time of an array or of the outermost port
        if task.also:
            ask(task)
        else:
            finish(number)

    def queue(name: str, task: Task, cycles: float) -> None:
        heappush(queues[name], (task.planned, task.number, cycles))
        if name in idle:
            idle.pop(name).succeed()

    def begin(number: int) -> None:
        starts[number] = clock.now
        for cycles, other in graph.after_start.get(number, ()):
            if cycles:
                later(cycles, (other,))
            else:
                release((other,))

    def later(cycles: float, waiting: Sequence[int]) -> None:
        clock.timeout(cycles).callbacks.append(lambda _: release(waiting))

    def ask(task: Task) -> None:
        missing[task.number] = len(task.also)
        done[task.number] = clock.event()
        for name, cycles in task.also:
            queue(name, task, -cycles)

    def part_done(number: int) -> None:
        missing[number] -= 1
        if missing[number]:
            return
        if tasks[number].cycles:
            done[number].succeed()
        else:
            finish(number)

    def finish(number: int) -> None:
        nonlocal events
        events += 1
        ends[number] = clock.now
        release(graph.after_work[number])
        if tasks[number].latency:
            events += 1
            later(tasks[number].latency, graph.after_result[number])
        else:
            release(graph.after_result[number])

    def resource(name: str) -> Generator[Any, Any, None]:
        nonlocal events
        waiting = queues[name]
        while True:
            if not waiting:
                idle[name] = clock.event()
                yield idle[name]
            yield Settled(rank[name])
            _, number, cycles = heappop(waiting)
            events += 1
            if cycles < 0:
                asked.append((number, name, clock.now, clock.now - cycles))
                yield clock.timeout(-cycles)
                part_done(number)
                continue
            begin(number)
            if tasks[number].also:
                ask(tasks[number])
            yield clock.timeout(cycles)
            if number in done:
                yield done[number]
            finish(number)

    for name in sorted(queues, key=lambda name: rank[name]):
        clock.process(resource(name))
    for task in tasks:
        if not graph.lacking[task.number] and not (task.waits or task.trails):
            ready(task.number)
    clock.run()
    check_ran(tasks, starts, ends)
    return Run(starts, ends, asked, events)
