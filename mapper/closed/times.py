"""Times of a group: makespans of tiles, chains of dependences, fill and drain, as formulas.

In: steps and words. Out: what `mapper.timing` says besides the cycles of single resources.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..nest import Step
from ..tape import Value, ceil_div, greater, maximum, product, total, where
from ..timing import carried, in_order, predecessors
from .steps import Steps
from .words import Words


class Times:
    """The times of one group."""

    def __init__(self, steps: Steps, words: Words) -> None:
        self.steps, self.words, self.tiles = steps, words, steps.tiles
        self.nest, self.group, self.active = steps.nest, steps.tiles.group, steps.tiles.active

    def makespan(self, steps: Sequence[Step], durations: dict[str, Value], there: dict[str, Value] | None = None) -> Value:
        """Cycles until all steps of a tile are done, each array doing one after another; `there`: when their inputs have come."""
        before = predecessors(self.nest)
        free: dict[str, Value] = dict.fromkeys(self.nest.arch.arrays, 0.0)
        ready: dict[str, Value] = {}
        for step in steps:
            start = maximum((there or {}).get(step.name, 0.0), *(ready[p] for p in before[step.name] if p in ready))
            length = durations[step.name]
            if step.work:
                queued = maximum(start, free[step.binding.array])
                busy = greater(length, 0.0)
                start = where(busy, queued, start) if self._may_be_free(step) else queued
                end = start + length
                free[step.binding.array] = where(busy, end, free[step.binding.array]) if self._may_be_free(step) else end
            ready[step.name] = start + length + self.steps.ripple(step)
        return maximum(0.0, *ready.values()) if ready else 0.0

    def _may_be_free(self, step: Step) -> bool:
        """Whether its operations may take no cycles."""
        return any(unit.cycles == 0 for unit in step.array.units.values())

    def chain_ends(self, durations: dict[str, Value], sources: frozenset[str] | None = None) -> dict[str, Value]:
        """Cycle at which each step ends if it waits for what it reads alone; `sources`: only what follows from these steps."""
        before, order = predecessors(self.nest), in_order(self.nest) if sources is None else {}
        ends: dict[str, Value] = {}
        out: dict[str, Value] = {}
        for step in self.nest.steps:
            if step.name not in durations:
                continue
            earlier = [out[p] for p in before[step.name] if p in out]
            if step.name in order and order[step.name] in ends:
                earlier.append(ends[order[step.name]])
            if sources is not None and step.name not in sources and not earlier:
                continue
            ends[step.name] = maximum(0.0, *earlier) + durations[step.name]
            out[step.name] = ends[step.name] + self.steps.ripple(step)
        return out

    def latency(self) -> Value:
        """Cycles of one tile if other tiles are not in the way."""
        return maximum(0.0, *self.chain_ends({step.name: self.steps.longest(step) for step in self.nest.steps}).values())

    def dependences(self, in_flight: Value) -> Value:
        """Cycles that the schedule takes for its dependences, with so many tiles in flight."""
        nest = self.nest
        match self.group.schedule:
            case "in-turn":
                return total(self.steps.busy(step) + self.steps.ripple(step) * self.steps.executions(step) for step in nest.steps)
            case "pipelined":
                return self._tile_by_tile()
        return self._chains(in_flight)

    def _chains(self, in_flight: Value) -> Value:
        nest = self.nest
        every = [step for step in nest.steps if all(step.slots[axis] == "each" for axis in self.active)]
        if not every:
            return self.latency()
        durations = {step.name: self.steps.longest(step) for step in every}
        tiles = maximum(*(self.steps.executions(step) for step in every)) if len(every) > 1 else self.steps.executions(every[0])
        latency = maximum(*self.chain_ends(durations).values(), 0.0)
        found = latency * ceil_div(tiles, in_flight)
        for step in every:
            declared = nest.cascade.tensor(step.output)
            axis = next((i for i, loop in enumerate(self.group.loops) if loop.rank == declared.iterates), None)
            if declared.iterates is None or axis is None:
                continue
            readers = frozenset(
                s.name for s in every if any(a.tensor == step.output for a in s.reads) and carried(nest, s, step.output)
            )
            ends = self.chain_ends(durations, readers)
            if step.name in ends:
                apart = product(self.tiles.trips(inner) for inner in self.active if inner > axis)
                found = maximum(found, ends[step.name] * tiles / apart)
        return found

    def _tile_by_tile(self) -> Value:
        """Sum of makespans: tiles in which the same steps run are alike."""
        nest = self.nest
        ranks = list(dict.fromkeys(self.tiles.rank_of(axis) for axis in self.active))
        classes = [self._classes(rank) for rank in ranks]
        durations = {step.name: self.steps.longest(step) for step in nest.steps}
        counts: dict[tuple[str, ...], Value] = {}
        for combination in itertools.product(*classes):
            where_ = {rank: place for rank, (place, _) in zip(ranks, combination, strict=True)}
            number = product(number for _, number in combination)
            running = tuple(step.name for step in nest.steps if self._runs(step, where_))
            if running:
                counts[running] = counts.get(running, 0.0) + number
        found: Value = 0.0
        for running, number in counts.items():
            steps = [step for step in nest.steps if step.name in running]
            found = found + self.makespan(steps, durations) * number
        return found

    def _classes(self, rank: str) -> list[tuple[str, Value]]:
        """Iterations of the loops over a rank: the first, the last, those between, those of tiles that do not exist."""
        chain = self.tiles.chain(rank)
        exist = self.tiles.existing(rank)
        slots = {step.slots[axis] for step in self.nest.steps for axis in chain}
        found: list[tuple[str, Value]] = (
            [("empty", product(self.tiles.trips(axis) for axis in chain) - exist)] if len(chain) > 1 else []
        )
        if slots <= {"each"}:
            return [*found, ("middle", exist)]
        return [*found, ("first", 1.0), ("middle", exist - 2.0), ("last", 1.0)]

    def _runs(self, step: Step, places: dict[str, str]) -> bool:
        for axis in self.active:
            rank, slot = self.tiles.rank_of(axis), step.slots[axis]
            if slot == "each":
                if places[rank] == "empty":
                    return False
            elif slot != places[rank]:
                return False
        return True

    def exposed(self, compute: Value, moved: Value, steady: Value, per_word: Value) -> Value:
        """Cycles of fill and drain beside the steady state; `per_word`: cycles of the backing store."""
        nest = self.nest
        tiles = product(self.tiles.trips(axis) for axis in self.active)
        first = [step for step in nest.steps if all(step.slots[axis] != "last" for axis in self.active)]
        loaded: Value = 0.0
        there: dict[str, Value] = {}
        seen: set[int] = set()
        for step in first:
            for position, stream in enumerate(nest.streams):
                if step in stream.readers:
                    if position not in seen:
                        seen.add(position)
                        loaded = loaded + self.words.stream_tile(stream) * per_word
                    there[step.name] = loaded
        last = maximum(0.0, *(self._last_tile(tensor) for tensor in sorted(nest.outgoing))) * per_word
        through = self.makespan(first, {step.name: self.steps.longest(step) for step in nest.steps}, there)
        if self.group.buffering == 1:
            return maximum(0.0, through - steady / tiles - loaded) if self.active else 0.0
        rest = maximum(compute * (tiles - 1.0) / tiles, moved - loaded - last, 0.0)
        return maximum(0.0, through + rest + last - steady)

    def _last_tile(self, tensor: str) -> Value:
        declared = self.nest.cascade.tensor(tensor)
        return product(self.tiles.size(rank) for rank in declared.ranks if rank != declared.iterates)
