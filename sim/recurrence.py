"""The recurrence: the start of every task as the greatest of what it waits for and of the end of the task before it on its
resource.

In: tasks in program order. Out: when each starts, equal to what the event run gives, to the last bit, and several times as
fast: it is a max-plus recurrence whose order on each resource is settled as the times become known. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from .faults import check_ran
from .order import Graph, Run
from .task import Task

WORK, ASKED, RESULT, TRAIL = range(4)
"""What happens at a time: a task's own work ends, a port has done its part of it, its result arrives, another may begin."""


def run(tasks: Sequence[Task], rank: Mapping[str, int]) -> Run:
    """Runs the tasks; `rank`: the order of the resources."""
    graph = Graph(tasks)
    lacking, after_work, after_result, after_start = graph.lacking, graph.after_work, graph.after_result, graph.after_start
    starts, ends = [-1.0] * len(tasks), [-1.0] * len(tasks)
    asked: list[tuple[int, str, float, float]] = []
    queues: dict[int, list[tuple[float, int, float]]] = {}
    """By resource: (planned, task, cycles) that ask for it; negative cycles: it is not the task's own resource."""
    names: dict[int, str] = {}
    for task in tasks:
        for name in (*((task.resource,) if task.cycles else ()), *(name for name, _ in task.also)):
            names[rank[name]] = name
            queues.setdefault(rank[name], [])
    free = dict.fromkeys(queues, True)
    open_parts: dict[int, int] = {}
    """Of tasks that ask for several resources, how many of these are not done."""
    agenda: list[tuple[float, int, int, int]] = []
    """(time, what, task, resource)."""
    woken: list[int] = []
    events = 0
    now = 0.0
    ready = [task.number for task in tasks if not lacking[task.number]]

    def settle() -> None:
        """Everything that is ready now goes to its queue, or on at once if it takes no time."""
        while ready:
            number = ready.pop()
            task = tasks[number]
            if task.cycles:
                at = rank[task.resource]
                heappush(queues[at], (task.planned, number, task.cycles))
                heappush(woken, at)
            else:
                begin(number)
                if task.also:
                    ask(task)
                else:
                    finish(number)

    def begin(number: int) -> None:
        starts[number] = now
        for cycles, other in after_start.get(number, ()):
            if cycles:
                heappush(agenda, (now + cycles, TRAIL, other, 0))
            else:
                release((other,))

    def ask(task: Task) -> None:
        open_parts[task.number] = len(task.also) + bool(task.cycles)
        for name, cycles in task.also:
            at = rank[name]
            heappush(queues[at], (task.planned, task.number, -cycles))
            heappush(woken, at)

    def part_done(number: int) -> bool:
        """Whether that was the last part of the task."""
        if number not in open_parts:
            return True
        open_parts[number] -= 1
        return not open_parts[number]

    def finish(number: int) -> None:
        nonlocal events
        events += 1
        ends[number] = now
        release(after_work[number])
        latency = tasks[number].latency
        if latency:
            events += 1
            heappush(agenda, (now + latency, RESULT, number, 0))
        else:
            release(after_result[number])

    def release(waiting: Sequence[int]) -> None:
        for other in waiting:
            lacking[other] -= 1
            if not lacking[other]:
                ready.append(other)

    def leave(number: int) -> None:
        """All parts of a task are done."""
        task = tasks[number]
        if task.cycles:
            at = rank[task.resource]
            free[at] = True
            heappush(woken, at)
        finish(number)

    while True:
        settle()
        while woken:
            at = heappop(woken)
            queue = queues[at]
            if not free[at] or not queue:
                continue
            _, number, cycles = heappop(queue)
            free[at] = False
            events += 1
            if cycles < 0:
                asked.append((number, names[at], now, now - cycles))
                heappush(agenda, (now - cycles, ASKED, number, at))
            else:
                begin(number)
                heappush(agenda, (now + cycles, WORK, number, at))
                if tasks[number].also:
                    ask(tasks[number])
                settle()  # what begins with it
        if not agenda:
            break
        now = agenda[0][0]
        while agenda and agenda[0][0] == now:
            _, what, number, at = heappop(agenda)
            if what == RESULT:
                release(after_result[number])
            elif what == TRAIL:
                release((number,))
            else:
                if what == ASKED:
                    free[at] = True
                    heappush(woken, at)
                if part_done(number):
                    leave(number)
            settle()
    check_ran(tasks, starts, ends)
    return Run(starts, ends, asked, events)
