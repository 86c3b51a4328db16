"""Chrome traces: a run as JSON that chrome://tracing and Perfetto open.

In: a `Simulated`. Out: a dict to be written as JSON. One track for each array and for the backing store's channel, whose slices
never overlap; each slice is named after its Einsum or transfer and carries the coordinates of its tile. Times are microseconds of
the machine's own clock; groups follow one another.
"""

from __future__ import annotations

from typing import Any

from .simulate import GroupRun, Ran, Simulated


def chrome_trace(run: Simulated) -> dict[str, Any]:
    """All slices of the simulated tiles."""
    arch = run.cost.arch
    tracks = {name: number for number, name in enumerate([*arch.arrays, arch.backing[0]], 1)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": name}} for name, number in tracks.items()
    ]
    events.append({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"{run.cost.placed.cascade.name} on {arch.name}"}})
    offset = 0.0
    to_us = 1e6 / arch.clock_hz
    for group in run.groups:
        for item in group.ran:
            if item.end > item.start:
                events.append(_slice(group, item, tracks[item.task.resource], offset, to_us))
        offset += group.window.cycles
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"whole": run.whole, "clock_hz": arch.clock_hz}}


def _slice(group: GroupRun, item: Ran, track: int, offset: float, to_us: float) -> dict[str, Any]:
    names: dict[str, int] = {}
    place = {}
    for loop, at in zip(group.nest.group.loops, item.task.tile, strict=True):
        names[loop.rank] = names.get(loop.rank, 0) + 1
        place[loop.rank + "'" * (names[loop.rank] - 1)] = at
    name = item.task.name if item.task.kind == "compute" else f"{item.task.kind} {item.task.name}"
    return {
        "ph": "X", "pid": 1, "tid": track, "name": name,
        "cat": item.task.kind, "ts": (offset + item.start) * to_us, "dur": (item.end - item.start) * to_us,
        "args": {"tile": place, "cycles": item.end - item.start, "waited_for": item.held_by or None},
    }  # fmt: skip
