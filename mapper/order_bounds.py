"""Lower bounds of tilings: cycles, energy and words, as arrays over all of them at once.

In: which inputs each level holds, and where results are kept. Out: bounds of the tilings so held; or, whatever the order of the
loops is, with every input fetched once and held in its smallest tile.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .floors import level_pj, port_cycles, whole_words
from .held import OUTSIDE, Inputs, Option
from .kept import ANYWHERE, Kept, Results
from .steps import Step
from .tape import Floats
from .tiled import Tiled
from .timing import predecessors


class OrderBounds:
    """The bounds of one cut."""

    def __init__(self, tiled: Tiled, inputs: Inputs, results: Results) -> None:
        self.tiled = tiled
        self.inputs, self.results = inputs, results

    def unordered(self) -> tuple[Floats, Floats, Floats, Floats]:
        """(cycles, energy, words, share of what the levels hold) that no order can go below: every input fetched once and held in
        its smallest tile."""
        tiled = self.tiled
        every = frozenset(range(len(tiled.cut.axes)))
        flows: list[list[tuple[str, Option]]] = []
        need = np.zeros(tiled.count)
        for number, stream in enumerate(tiled.nest.streams):
            own = frozenset(axis for axis in every if tiled.cut.axes[axis] in tiled.own[number])
            if not tiled.simple[number] or self.inputs.half_cut(stream, own):
                flows.append([])
                continue
            tile, whole = self.inputs.tile_words(stream, own), whole_words(tiled.floors.nest, stream.tensor, stream.indices)
            need = need + tile * (2.0 if tiled.looped.outside else np.where(tile < whole, 2.0, 1.0))
            words = np.full(tiled.count, whole * tiled.shares[number])
            flows.append([(tiled.levels[-1], Option(OUTSIDE, words, np.zeros(tiled.count), 1))])
        kept = [each for each in (self.results.within(made, every) for made in tiled.floors.made) if each is not None]
        need = need / tiled.size(tiled.levels[-1])
        if len(tiled.levels) == 1:
            need = need + sum((each.words for each in kept), np.zeros(tiled.count)) / tiled.size(tiled.levels[-1])
        else:
            single = [replace(each, slots=1) for each in kept]
            need = np.maximum(
                need, self.results.crowding(single, {name: np.full(tiled.count, tiled.size(name)) for name in tiled.levels})
            )
        home = tiled.levels[-1] if len(tiled.levels) == 1 else ANYWHERE
        cycles, energy, words, _, _ = self.bound(np.arange(tiled.count), kept, [home] * len(kept), flows)
        return cycles, energy, words, need

    def bound(
        self, rows: NDArray[np.int64], kept: list[Kept], homes: list[str], flows: list[list[tuple[str, Option]]]
    ) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """(cycles with fill and drain, energy, words across the outermost boundary, cycles of the backing store, energy besides
        operations and operands), with results kept at `homes`, and each input held by some levels from the outermost inwards."""
        tiled = self.tiled
        team, memory, floor = tiled.team, tiled.arch.memory, tiled.tilings.floor
        backing, innermost = tiled.arch.backing[0], tiled.levels[-1]
        zero = np.zeros(len(rows))
        read: dict[str, Any] = dict.fromkeys((*memory, ANYWHERE), zero)  # of all instances
        written: dict[str, Any] = dict.fromkeys((*memory, ANYWHERE), zero)
        operands: dict[str, Any] = dict.fromkeys((*memory, ANYWHERE), zero)
        streamed: Any = zero  # at the innermost level; their energy is that of the steps
        loads: dict[int, Floats] = {}
        per_word = port_cycles(tiled.leaves, backing, 1.0, 0.0)
        for number, flow in enumerate(flows):
            outer = backing
            for name, option in flow:
                words = option.words[rows]
                read[outer] = read[outer] + words * team.times(outer, tiled.own[number], True)
                written[name] = written[name] + words * team.times(name, tiled.own[number], True)
                if outer == backing and self._is_first(number):
                    loads[number] = option.tile[rows] * (team.inside(name, tiled.own[number]) * per_word)
                outer = name
        fetched = read[backing]
        places = {each.made.tensor: (each, home) for each, home in zip(kept, homes, strict=True)}
        for at, step in enumerate(tiled.nest.steps):
            for number, access in enumerate(step.reads):
                words = floor.operands[at, access.tensor, number][rows]
                if access.tensor not in tiled.made:
                    streamed = streamed + words * team.times(innermost, step.ranks, False)
                elif access.tensor in places:
                    each, home = places[access.tensor]
                    ranks = step.ranks if home == innermost else tiled.nest.own_ranks(access.tensor)
                    words = words * team.times(innermost, ranks, False)
                    if each.lasts:
                        operands[home] = operands[home] + words
                    else:
                        read[home] = read[home] + np.where(each.words[rows] > 0, words, 0.0)
        for each, home in places.values():
            made, there = each.made, each.words[rows] > 0
            times = team.times(innermost, made.producer.ranks, False)
            written[home] = written[home] + np.where(there, floor.made[made.tensor][rows] * times, 0.0)
            read[home] = read[home] + np.where(there, floor.back[made.tensor][rows] * times, 0.0)
            if made.leaves:
                read[home] = read[home] + np.where(there, float(tiled.tensor(made.tensor)), 0.0)
        leaving = float(sum(tiled.tensor(made.tensor) for made in tiled.floors.made if made.leaves))
        written[backing] = written[backing] + leaving
        carried: Any = zero
        asked: Any = zero
        moved: Any = zero
        for name in memory:
            count = team.instances(name)
            given = read[name] + operands[name] + (streamed if name == innermost else 0.0)
            cycles = port_cycles(tiled.leaves, name, given / count, written[name] / count)
            moved = np.maximum(moved, cycles)
            carried = carried + level_pj(tiled.leaves, name, read[name], written[name])
            asked = asked + level_pj(tiled.leaves, name, operands[name], 0.0)
        outside = port_cycles(tiled.leaves, backing, read[backing], written[backing])
        if len(tiled.levels) > 1:
            cheapest = [level_pj(tiled.leaves, name, read[ANYWHERE], written[ANYWHERE]) for name in tiled.levels]
            carried = carried + np.minimum.reduce(cheapest)
        asked = asked + floor.energy[rows]
        compute, tiles = floor.compute[rows], tiled.tile_count[rows]
        through, after = self._first_tile(rows, loads)
        # the first tile is loaded and done, all others take their time, the last results leave
        spread = through + tiled.last_tile[rows] * per_word + compute * (tiles - 1.0) / tiles
        cycles = np.maximum(np.maximum(compute, moved + after), spread)
        return cycles, carried + asked, fetched + leaving, outside, carried

    def _first_tile(self, rows: NDArray[np.int64], loads: Map_[int, Floats]) -> tuple[Floats, Floats]:
        """Least cycles until the first tile is through, and those of them after all its inputs have come."""
        tiled = self.tiled
        loaded, after = sum(loads.values(), np.zeros(len(rows))), np.zeros(len(rows))
        there, seen = np.zeros(len(rows)), set[int]()
        ready: dict[str, Floats] = {}
        since: dict[str, Floats] = {}
        for step in self._first:
            own = [number for number, stream in enumerate(tiled.nest.streams) if step.name in {r.name for r in stream.readers}]
            there = there + sum((loads[number] for number in own if number in loads and number not in seen), 0.0)
            seen |= set(own)
            cycles = tiled.tilings.one_tile[step.name][rows] if step.name in tiled.tilings.one_tile else 0.0
            before = [name for name in self._before[step.name] if name in ready]
            ready[step.name] = (
                np.maximum.reduce([there if own else np.zeros(len(rows)), *(ready[name] for name in before)]) + cycles
            )
            waits = [since[name] for name in before if name in since]
            if set(loads) <= seen and (own or waits):
                since[step.name] = np.maximum.reduce([np.zeros(len(rows)), *waits]) + cycles
                after = np.maximum(after, since[step.name])
        return np.maximum.reduce([loaded, *ready.values()]), after

    @cached_property
    def _first(self) -> tuple[Step, ...]:
        """Steps that run in the first tile."""
        trips = self.tiled.nest.trips
        found = (step for step in self.tiled.nest.steps if step.slots or not trips)
        return tuple(step for step in found if all(slot != "last" or n == 1 for slot, n in zip(step.slots, trips, strict=True)))

    @cached_property
    def _before(self) -> dict[str, tuple[str, ...]]:
        return predecessors(self.tiled.nest)

    def _is_first(self, number: int) -> bool:
        """Whether an input is needed in the first tile."""
        trips = self.tiled.nest.trips
        return any(
            all(slot != "last" or trips[axis] == 1 for axis, slot in enumerate(reader.slots))
            for reader in self.tiled.nest.streams[number].readers
        )
