"""Chrome traces: a run as JSON that chrome://tracing and Perfetto open.

In: a `Simulated`. Out: a dict to be written as JSON. One track for each array and for each port and network that had work, whose
slices never overlap; each slice is named after its Einsum or transfer and carries the coordinates of its tile. Times are
microseconds of the machine's own clock; groups follow one another.
"""

from __future__ import annotations

from typing import Any

from .machine import component
from .simulate import GroupRun, Simulated
from .window import Ran

MAX_SLICES = 200_000
"""Slices at most of each group, the first ones of every track, so that viewers can hold them."""


def chrome_trace(run: Simulated) -> dict[str, Any]:
    """All slices of the simulated tiles."""
    arch = run.cost.arch
    names = dict.fromkeys(name for group in run.groups for name in tracks(run, group))
    numbers = {name: number for number, name in enumerate(names, 1)}
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": _title(run)}}]
    for name, number in numbers.items():
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": name}})
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}})
    offset = 0.0
    to_us = 1e6 / arch.clock_hz
    for group in run.groups:
        lanes = {name: items for name, items in group.window.lanes.items() if items}
        for name, items in lanes.items():
            shown = items[: MAX_SLICES // len(lanes)]
            events += [_slice(group, item, numbers[name], offset, to_us) for item in shown]
        offset += group.window.cycles
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"whole": run.whole, "clock_hz": arch.clock_hz}}


def tracks(run: Simulated, group: GroupRun) -> list[str]:
    """The resources of a group that are shown: arrays, and what else had work."""
    lanes = group.window.lanes
    return [name for name in lanes if lanes[name] or (component(name) in run.cost.arch.arrays and "[" not in name)]


def place(group: GroupRun, item: Ran) -> dict[str, int]:
    """The coordinates of the tile of a task: iterations of its loops; an inner loop over the same rank has a mark."""
    marks: dict[str, int] = {}
    found = {}
    for loop, at in zip(group.nests[item.task.group].group.loops, item.task.tile, strict=True):
        marks[loop.rank] = marks.get(loop.rank, 0) + 1
        found[loop.rank + "'" * (marks[loop.rank] - 1)] = at
    return found


def label(item: Ran) -> str:
    """What a task does: its Einsum, or what it loads or stores; of its part at a port, what for."""
    return item.task.name if item.task.kind == "compute" else f"{item.task.kind} {item.task.name}"


def _title(run: Simulated) -> str:
    return f"{run.cost.placed.cascade.name} on {run.cost.arch.name}"


def _slice(group: GroupRun, item: Ran, track: int, offset: float, to_us: float) -> dict[str, Any]:
    return {
        "ph": "X", "pid": 1, "tid": track, "name": label(item),
        "cat": item.task.kind, "ts": (offset + item.start) * to_us, "dur": (item.end - item.start) * to_us,
        "args": {
            "tile": place(group, item), "cycles": item.end - item.start, "at_work": item.work, "waited_for": item.held_by or None,
        },
    }  # fmt: skip
