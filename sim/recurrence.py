"""The recurrence: the start of every task as the greatest of what it waits for and of the end of the task before it on its
resource.

In: tasks in program order. Out: when each starts, equal to what the event run gives, to the last bit, and several times as
fast: it is a max-plus recurrence whose order on each resource is settled as the times become known. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from .order import Graph
from .tasks import Task


def run(tasks: Sequence[Task]) -> tuple[list[float], int]:
    """(start of each task in cycles, number of times at which something ends or arrives)."""
    graph = Graph(tasks)
    lacking, after_work, after_result = graph.lacking, graph.after_work, graph.after_result
    starts = [-1.0] * len(tasks)
    names = list(dict.fromkeys(task.resource for task in tasks))
    place = {name: at for at, name in enumerate(names)}
    on = [place[task.resource] for task in tasks]
    queues: list[list[tuple[float, int]]] = [[] for _ in names]
    free = [True] * len(names)
    agenda: list[tuple[float, int]] = []
    """(time, task): its work ends; (time, ~task): its result arrives."""
    events = 0
    now = 0.0
    ready = [task.number for task in tasks if not task.waits]

    def settle() -> None:
        """Everything that is ready now goes to its queue, or on at once if it takes no time."""
        while ready:
            number = ready.pop()
            task = tasks[number]
            if task.cycles:
                heappush(queues[on[number]], (task.planned, number))
            else:
                starts[number] = now
                finish(number)

    def finish(number: int) -> None:
        nonlocal events
        events += 1
        release(after_work[number])
        latency = tasks[number].latency
        if latency:
            events += 1
            heappush(agenda, (now + latency, ~number))
        else:
            release(after_result[number])

    def release(waiting: list[int]) -> None:
        for other in waiting:
            lacking[other] -= 1
            if not lacking[other]:
                ready.append(other)

    while True:
        settle()
        for at, queue in enumerate(queues):
            if free[at] and queue:
                number = heappop(queue)[1]
                starts[number] = now
                free[at] = False
                events += 1
                heappush(agenda, (now + tasks[number].cycles, number))
        if not agenda:
            break
        now = agenda[0][0]
        while agenda and agenda[0][0] == now:
            number = heappop(agenda)[1]
            if number < 0:
                release(after_result[~number])
            else:
                free[on[number]] = True
                finish(number)
            settle()
    assert min(starts, default=0.0) >= 0, "a task never ran"
    return starts, events
