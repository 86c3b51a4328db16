"""The timing of one fusion group: how long its arrays, its memory and its dependences each keep it at work.

In: a `Nest`. Out: `Timing`: cycles by cause, and which of them bounds the group. Three schedules:

* in turn: one Einsum at a time: the sum of all, ripples of reductions included;
* pipelined: arrays side by side within a tile, tiles one after another: the makespan of each tile, summed over tiles;
* phases: side by side within each phase of a tile, phase after phase; a later phase waits for reductions to come out of the array,
  unless they are handed on as they come;
* interleaved: the initiation interval is bounded by the busiest resource, by running states (recurrences), and by the latency of
  a tile divided by the number of tiles in flight.

Transfers overlap with work where tensors have two buffer slots; with one they add to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..einsum.cascade import Coord
from .nest import FORWARD, Nest, Slot, Step


@dataclass(frozen=True)
class Timing:
    """Cycles of one group."""

    busy: dict[str, float]
    """Of each array."""
    transfers: dict[str, float]
    """Of each storage level with limited bandwidth."""
    dependences: float
    """Least cycles that the order of the work within and across tiles allows, given the schedule."""
    cycles: float
    """In the steady state: neither the first transfers nor the last are counted."""
    fill: float
    """Cycles more until the first tile is through and the last result has left: what nothing overlaps with."""
    bound_by: str
    """An array, a storage level, or `dependences`."""

    @property
    def bounds(self) -> dict[str, float]:
        return {**self.busy, **self.transfers, "dependences": self.dependences}


def timing(nest: Nest, transfers: dict[str, float], cycles_per_word: float) -> Timing:
    """The timing of a group; `transfers`: cycles of each storage level for its traffic; `cycles_per_word`: of the backing store."""
    busy = dict.fromkeys(nest.arch.arrays, 0.0)
    for step in nest.steps:
        busy[step.binding.array] += nest.busy(step)
    match nest.group.schedule:
        case "in-turn":
            work = sum(nest.busy(step) + nest.ripple(step) * nest.executions(step) for step in nest.steps)
        case "pipelined":
            work = _tile_by_tile(nest, makespan)
        case "phases":
            work = _tile_by_tile(nest, phased)
        case _:
            work = chains(nest)
    compute = max(work, *busy.values())
    moved = max(transfers.values(), default=0.0)
    cycles = max(compute, moved) if nest.group.buffering > 1 else compute + moved
    bounds = {**busy, **transfers, "dependences": work}
    order = {name: i for i, name in enumerate(bounds)}
    bound_by = max(bounds, key=lambda name: (bounds[name], -order[name]))
    fill = exposed(nest, compute, moved, cycles, cycles_per_word)
    return Timing(busy, transfers, work, cycles, fill, bound_by)


def exposed(nest: Nest, compute: float, moved: float, steady: float, cycles_per_word: float) -> float:
    """The first tile with its transfers, all other tiles at the steady pace, the last store; less the steady state."""
    tiles = max(1, nest.tiles)
    first = tuple(step for step in nest.steps if all(s != "last" or t == 1 for s, t in zip(step.slots, nest.trips, strict=True)))
    loaded = 0.0
    there: dict[str, float] = {}
    seen: set[int] = set()
    for step in first:
        for position, stream in enumerate(nest.streams):
            if step in stream.readers:
                if position not in seen:
                    seen.add(position)
                    loaded += nest.stream_tile(stream) * cycles_per_word
                there[step.name] = loaded
    last = max((_last_tile(nest, tensor) for tensor in nest.outgoing), default=0) * cycles_per_word
    through = makespan(nest, first, nominal(nest), there)
    if nest.group.buffering == 1:
        return max(0.0, through - (steady / tiles if tiles > 1 else compute) - loaded) if tiles > 1 else 0.0
    rest = max(compute * (tiles - 1) / tiles, moved - loaded - last, 0.0)
    return max(0.0, through + rest + last - steady)


def _last_tile(nest: Nest, tensor: str) -> int:
    declared = nest.cascade.tensor(tensor)
    return math.prod(nest.size(rank) for rank in declared.ranks if rank != declared.iterates)


# --- within a tile ----------------------------------------------------------------------------------------------------


def predecessors(nest: Nest) -> dict[str, tuple[str, ...]]:
    """For each step, the steps whose results it needs from the same tile (or the same iteration of the loops around)."""
    made = {step.output: step for step in nest.steps if not step.initial}
    result: dict[str, tuple[str, ...]] = {}
    for step in nest.steps:
        found: dict[str, None] = {}
        for access in step.reads:
            producer = made.get(access.tensor)
            if producer is None or carried(nest, step, access.tensor):
                continue
            found.setdefault(producer.name)
        result[step.name] = tuple(found)
    return result


def in_order(nest: Nest) -> dict[str, str]:
    """For each step, the one before it on its array in the same tile.

    The steps of one tile run in the order of the cascade on each array: what registers must hold at once depends on it.
    """
    last: dict[str, str] = {}
    result: dict[str, str] = {}
    for step in nest.steps:
        if not step.initial and step.work:
            if step.binding.array in last:
                result[step.name] = last[step.binding.array]
            last[step.binding.array] = step.name
    return result


def carried(nest: Nest, step: Step, tensor: str) -> bool:
    """Whether all reads of a running state by a step are of its current position: the one made by the iteration before."""
    declared = nest.cascade.tensor(tensor)
    if declared.iterates is None:
        return False
    at = declared.ranks.index(declared.iterates)
    return all(access.indices[at] == Coord(declared.iterates) for access in step.reads if access.tensor == tensor)


def makespan(nest: Nest, steps: tuple[Step, ...], durations: dict[str, float], there: dict[str, float] | None = None) -> float:
    """Cycles of one tile: arrays side by side, each doing its steps in order; `there`: when the inputs of a step have come."""
    before = predecessors(nest)
    free = dict.fromkeys(nest.arch.arrays, 0.0)
    ready: dict[str, float] = {}
    for step in steps:
        start = max([(there or {}).get(step.name, 0.0), *(ready[p] for p in before[step.name] if p in ready)])
        if durations[step.name]:
            start = max(start, free[step.binding.array])
            free[step.binding.array] = start + durations[step.name]
        ready[step.name] = start + durations[step.name] + nest.ripple(step)
    return max(ready.values(), default=0.0)


def longest(nest: Nest, durations: dict[str, float], sources: frozenset[str] | None = None) -> dict[str, float]:
    """When the result of each step of a tile is there, if other tiles are not in the way.

    With `sources`, only chains that begin at one of these steps count, and the order on an array does not (others are absent).
    """
    before, order = predecessors(nest), in_order(nest) if sources is None else {}
    ends: dict[str, float] = {}
    out: dict[str, float] = {}
    for step in nest.steps:
        if step.name not in durations:
            continue
        earlier = [out[p] for p in before[step.name] if p in out]
        if step.name in order and order[step.name] in ends:
            earlier.append(ends[order[step.name]])
        if sources is not None and step.name not in sources and not earlier:
            continue
        ends[step.name] = max(earlier, default=0.0) + durations[step.name]
        out[step.name] = ends[step.name] + nest.ripple(step)
    return out


def nominal(nest: Nest) -> dict[str, float]:
    """Cycles of each step in its largest tile."""
    return {step.name: nest.longest(step) for step in nest.steps}


# --- across tiles -----------------------------------------------------------------------------------------------------


def phased(nest: Nest, steps: tuple[Step, ...], durations: dict[str, float]) -> float:
    """Cycles of one tile whose phases follow one another.

    Within a phase arrays work side by side, each doing its steps in order; one that reads what another array makes in the same
    phase of the same tile waits for it, or follows its elements as they come out if they are handed on. What a later phase makes
    is read a tile later, once it has come out of the array.
    """
    before = predecessors(nest)
    phase_of = {name: number for number, names in enumerate(nest.group.phases) for name in names}
    result: dict[str, tuple[float, float]] = {}  # when the first and the last element of each result have come out
    begins: dict[str, float] = {}
    now = 0.0
    for number in range(len(nest.group.phases)):
        here = [step for step in steps if phase_of.get(step.output) == number]
        free = dict.fromkeys(nest.arch.arrays, now)
        for step in here:
            start, last = free[step.binding.array], 0.0
            for name in before[step.name]:
                if name in result:
                    first, last_out = result[name]
                    handed = nest.residents[name].place == FORWARD
                    start, last = max(start, first if handed else last_out), max(last, last_out)
            end = max(start + durations[step.name], last)
            if durations[step.name]:
                free[step.binding.array] = end
            ripple = 0 if step.name in nest.group.hidden else nest.ripple(step)
            begins[step.name] = start
            result[step.name] = start + ripple, end + ripple
        now = max([now, *free.values()])
    for step in steps:
        for name in before[step.name]:
            if name in result and phase_of.get(step.output, 0) < phase_of.get(name, 0):
                now = max(now, result[name][1] - begins[step.name])
    return now


def _tile_by_tile(nest: Nest, cycles: Callable[[Nest, tuple[Step, ...], dict[str, float]], float]) -> float:
    """Sum of the cycles of all tiles: tiles are alike when the same steps run in them and masks spare the same ones."""
    axes = len(nest.trips)
    shape = (1,) * axes
    code = np.zeros(shape, dtype=np.int64)
    meaning: list[tuple[int, tuple[Step, ...]]] = []
    groups: dict[tuple[tuple[Slot, ...], frozenset[str], tuple[int, ...]], list[Step]] = {}
    for step in nest.steps:
        skipped_by = tuple(i for i, (_, skips) in enumerate(nest.masks) if step.position in skips)
        groups.setdefault((step.slots, step.ranks & nest.cut, skipped_by), []).append(step)
    for bit, ((_, _, skipped_by), steps) in enumerate(groups.items()):
        runs = np.ones(shape, dtype=bool)
        for allowed in nest.runs(steps[0]):
            if not allowed.all():
                runs = runs & allowed
        for i in skipped_by:
            runs = runs & nest.masks[i][0]
        code = code + (runs.astype(np.int64) << bit)
        meaning.append((bit, tuple(steps)))
    kinds, counts = np.unique(code, return_counts=True)
    repeat = math.prod(trips for axis, trips in enumerate(nest.trips) if code.shape[axis] == 1)
    durations = nominal(nest)
    order = {step.name: i for i, step in enumerate(nest.steps)}
    total = 0.0
    for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        steps = [step for place, steps in meaning if kind >> place & 1 for step in steps]
        total += cycles(nest, tuple(sorted(steps, key=lambda s: order[s.name])), durations) * count * repeat
    return total


def chains(nest: Nest) -> float:
    """Least cycles that dependences leave when neighbouring tiles overlap."""
    every = tuple(step for step in nest.steps if all(s == "each" or t == 1 for s, t in zip(step.slots, nest.trips, strict=True)))
    if not every:
        return max(longest(nest, nominal(nest)).values(), default=0.0)
    durations = {name: cycles for name, cycles in nominal(nest).items() if any(step.name == name for step in every)}
    tiles = max(nest.executions(step) for step in every)
    if nest.group.flow is not None:  # what is in flight is positions, as many as the tiles in flight have
        durations = {name: cycles / max(1, nest.size(nest.group.flow)) for name, cycles in durations.items()}
    latency = max(longest(nest, durations).values())
    bounds = [latency * math.ceil(tiles / nest.group.in_flight)]
    for step in every:
        declared = nest.cascade.tensor(step.output)
        axis = next((i for i, loop in enumerate(nest.group.loops) if loop.rank == declared.iterates), None)
        if declared.iterates is None or axis is None:
            continue
        readers = frozenset(
            s.name for s in every if any(a.tensor == step.output for a in s.reads) and carried(nest, s, step.output)
        )
        ends = longest(nest, durations, readers)
        apart = math.prod(nest.trips[axis + 1 :])
        if step.name in ends:
            bounds.append(ends[step.name] * tiles / apart)
    return max(bounds)
