"""When each Einsum of a tile would start in the model's steady state: what resources go by when several tasks could run.

In: a placed group, the cycles from one tile to the next. Out: for each step its start after the beginning of its tile.

Tiles follow one another at an interval, so a start is a place in a table that is one interval long (modulo scheduling): each step
takes the first free stretch of its array's table after what it waits for. That is the least latency of a tile. The tiles in flight
allow more: interval times their number. Starts are spread so that the planned latency is midway between the two. Planned for the
least latency, a result that is late keeps everything behind it waiting; planned for the most, the next tile does. Oldest tile
first is worse than either: all tiles in flight fall into step and wait for the same latencies at the same time.
"""

from __future__ import annotations

from ..mapper.nest import Nest
from ..mapper.timing import nominal, predecessors
from .task import grained


def starts(nest: Nest, interval: float, parts: int = 1) -> dict[str, float]:
    """Cycles from the beginning of a tile, or of one of so many parts of it, to the start of each step."""
    durations = {name: cycles / parts for name, cycles in nominal(nest).items()}
    before = predecessors(nest)
    taken: dict[str, list[tuple[float, float]]] = {array: [] for array in nest.arch.arrays}
    found: dict[str, float] = {}
    out: dict[str, float] = {}
    for step in nest.steps:
        earliest = max((out[name] for name in before[step.name] if name in out), default=0.0)
        cycles = durations[step.name]
        often = all(slot == "each" or trips == 1 for slot, trips in zip(step.slots, nest.trips, strict=True))
        found[step.name] = _fit(taken[step.binding.array], earliest, cycles, interval) if cycles and often else earliest
        out[step.name] = found[step.name] + cycles + nest.ripple(step)
    latency = max(out.values(), default=0.0)
    flying = 1 if nest.group.schedule != "interleaved" else nest.group.in_flight * parts
    spread = max(1.0, (1 + interval * flying / latency) / 2) if latency else 1.0
    return {name: grained(start * spread) for name, start in found.items()}


def _fit(taken: list[tuple[float, float]], earliest: float, cycles: float, interval: float) -> float:
    """The first start from `earliest` on that fits a table of one interval, noted there; `earliest` if there is none."""
    start = earliest
    for _ in range(2 * len(taken) + 2):
        at = start % interval
        clash = next(((low, high) for low, high in taken if at < high and low < at + cycles), None)
        if clash is None and at + cycles > interval:  # it would run past the end of the table, into its beginning
            clash = (at, interval)
        if clash is None:
            taken.append((at, at + cycles))
            return start
        start += clash[1] - at
    return earliest
