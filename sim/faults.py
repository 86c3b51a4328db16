"""What must not happen in a run, and is reported if it does: tasks that wait for one another for ever, more in a level than fits.

Tasks wait for earlier ones only, and what does not fit is refused before a run begins (E520), so either is a fault of einsmith and
not of a mapping. A run looks all the same, and says who waits for what, or which tensors take the room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .task import Task

LISTED = 8
"""Most tasks that are named."""


class Deadlock(RuntimeError):
    """Tasks never ran, for they wait for one another."""


class Overflow(RuntimeError):
    """A storage level would have to hold more than it has room for."""


def check_ran(tasks: Sequence[Task], starts: Sequence[float], ends: Sequence[float]) -> None:
    """Raises Deadlock, naming who waits for what, if a task has not run to its end."""
    stuck = [task for task in tasks if starts[task.number] < 0 or ends[task.number] < 0]
    if not stuck:
        return
    lines = []
    for task in stuck[:LISTED]:
        if starts[task.number] >= 0:
            lines.append(f"{_named(task)} holds `{task.resource}` and waits for {', '.join(f'`{name}`' for name, _ in task.also)}")
            continue
        waits = [*((number, cause) for number, cause in task.waits), *((number, "space") for number, _ in task.trails)]
        lacking = [f"{_named(tasks[number])} ({cause})" for number, cause in waits if ends[number] < 0]
        lines.append(f"{_named(task)} waits for {', '.join(lacking) or f'`{task.resource}`'}")
    more = f"; and {len(stuck) - LISTED:,} more" if len(stuck) > LISTED else ""
    raise Deadlock(f"{len(stuck):,} of {len(tasks):,} tasks never ran: " + "; ".join(lines) + more)


def _named(task: Task) -> str:
    what = task.name if task.kind == "compute" else f"{task.kind} {task.name}"
    return f"`{what}` of tile {task.tile}"


def check_fits(level: str, room: int, words: float, by_tensor: Mapping[str, float]) -> None:
    """Raises Overflow, naming the tensors, if a level has to hold more words than it has room for."""
    if words > room * (1 + 1e-9):
        taken = ", ".join(f"`{name}` {held:,.0f}" for name, held in sorted(by_tensor.items(), key=lambda item: -item[1]) if held)
        raise Overflow(f"`{level}` has room for {room:,} words and would have to hold {words:,.0f}: {taken}")
