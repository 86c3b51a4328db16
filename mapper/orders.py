"""The orders of the loops of a cut, and blocks of tilings for each: what is held where, for how much traffic, with lower bounds.

In: a cut and its tilings. Out: for each order that differs in what it fetches or keeps, `Block`s: tilings that fit, each with the
inputs held in a given way, and its lower bound.

An order decides two things alone: how often inputs come (`held`), and how much of results is kept (`kept`). Orders in which both
are the same are one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .held import OUTSIDE, Inputs, Option
from .kept import Kept, Results
from .order_bounds import OrderBounds
from .tape import Floats
from .tiled import Tiled

MAX_COMBINATIONS = 2**10
"""Most ways to hold the inputs of one order that are tried; beyond, small tensors have their smallest tile."""


@dataclass(frozen=True)
class Block:
    """Tilings of one order, by their bounds."""

    order: tuple[int, ...]
    level: str
    """Where results that last stay (or further out, where they cannot be completed there)."""
    rows: NDArray[np.int64]
    holds: tuple[tuple[tuple[int, ...], ...], ...]
    """Ways to hold the inputs: for each level on the chip, for each input, the place in the order where it is held."""
    held: NDArray[np.int64]
    """Which of them, for each row."""
    cycles: Floats
    energy: Floats
    words: Floats
    moved: Floats
    """Cycles of the backing store."""
    carried: Floats
    """Energy besides operations and operands."""


class Orders:
    """The orders of one cut. `every`: whether every way to hold the inputs counts, not only the one with least traffic."""

    def __init__(self, tiled: Tiled, every: bool) -> None:
        self.tiled = tiled
        self.every = every
        self.inputs, self.results = Inputs(tiled), Results(tiled)
        self.bounds = OrderBounds(tiled, self.inputs, self.results)

    def distinct(self) -> Iterator[tuple[int, ...]]:
        """Orders that differ in what is fetched or kept."""
        tiled = self.tiled
        seen = set()
        for order in tiled.cut.orders():
            place = {axis: at for at, axis in enumerate(order)}
            key: list[Any] = []
            for number in range(len(tiled.nest.streams)):
                key.append(self._signature(number, order))
            for made in tiled.floors.made:
                cut = self.results.cut_of(made, order)
                key.append(None if cut is None else frozenset(axis for axis in cut if self.results.cuts(axis, made.tensor)))
            if tiled.cut.outer is not None:  # which loops stand between the two over one rank
                key.append(frozenset(axis for axis in order if place[axis] < place[tiled.inner]))
            if tuple(key) not in seen:
                seen.add(tuple(key))
                yield order

    def _signature(self, number: int, order: tuple[int, ...]) -> Any:
        """What an order means to an input."""
        tiled = self.tiled
        if not tiled.simple[number]:
            return tuple(axis for axis in order if tiled.cut.axes[axis] in tiled.own[number] | tiled.read[number])
        places = self.inputs.places(number, order)
        return tuple((self.inputs.own_axes(number, order, at), self.inputs.again(number, order, at)) for at in places)

    def blocks(self) -> Iterator[Block]:
        """All distinct orders, with their tilings that may fit."""
        for order in self.distinct():
            kept = self.results.kept(order)
            last = [each for each in kept if each.lasts]
            for level in reversed(self.tiled.levels) if last else self.tiled.levels[-1:]:
                block = self._block(order, kept, level)
                if block is not None:
                    yield block

    def least_need(self, order: tuple[int, ...]) -> Floats:
        """Bytes of the innermost level that each tiling takes at least, as a share of what there is."""
        tiled = self.tiled
        innermost = tiled.levels[-1]
        need = np.zeros(tiled.count)
        for number in range(len(tiled.nest.streams)):
            options = [self.inputs.option(number, order, at) for at in self.inputs.places(number, order)]
            need = need + np.minimum.reduce([option.tile * option.slots for option in options])
        if len(tiled.levels) == 1:
            need = need + sum((each.words * each.slots for each in self.results.kept(order)), np.zeros(tiled.count))
        return np.asarray(need * tiled.leaves["word_bytes"] / tiled.leaves[f"{innermost}.size"])

    def _block(self, order: tuple[int, ...], kept: list[Kept], level: str) -> Block | None:
        tiled = self.tiled
        memory = tiled.arch.memory
        options = [
            {at: self.inputs.option(number, order, at) for at in self.inputs.places(number, order)}
            for number in range(len(tiled.nest.streams))
        ]
        fits = np.ones(tiled.count, dtype=bool)
        chosen: list[tuple[list[tuple[int, ...]], NDArray[np.int64]]] = []
        inner: NDArray[np.int64] | None = None  # where each input is held one level further in: [input, row]
        free: dict[str, Floats] = {}
        for number, name in reversed(list(enumerate(tiled.levels))):
            size = tiled.size(name)
            lasting = np.zeros(tiled.count)
            for each in kept:
                home = self.results.place(each, level) if each.lasts else each.home
                if each.lasts and tiled.fixed.stays.get(each.made.tensor, home) != home:
                    return None
                if home == name and (each.lasts or len(tiled.levels) == 1):
                    parts = tiled.team.inside(name, tiled.nest.own_ranks(each.made.tensor))
                    lasting = lasting + each.words * each.slots * parts
            free[name] = size - lasting
            outermost = number == 0
            if outermost and self.every and inner is None:
                return self._every(order, kept, level, options, lasting, size)
            ways, which = self._hold(name, order, options, lasting, size, inner)
            fits &= which >= 0
            if not fits.any():
                return None
            chosen.insert(0, (ways, which))
            table = np.array(ways, dtype=np.int64).reshape(len(ways), len(options))
            inner = table[which].T
        if len(tiled.levels) > 1:
            fits &= self.results.crowding(kept, free) <= 1.0
        rows = np.flatnonzero(fits)
        if len(tiled.levels) == 1:
            ways, which = chosen[0]
            return self._bounded(order, level, kept, options, rows, tuple((way,) for way in ways), which[rows])
        places = [np.array(ways, dtype=np.int64).reshape(len(ways), len(options))[which[rows]] for ways, which in chosen]
        joined = np.concatenate(places, axis=1) if places else np.zeros((len(rows), 0), dtype=np.int64)
        distinct, held = np.unique(joined, axis=0, return_inverse=True)
        count = len(options)
        holds = tuple(
            tuple(tuple(int(at) for at in row[place * count : (place + 1) * count]) for place in range(len(memory) - 1))
            for row in distinct
        )
        return self._bounded(order, level, kept, options, rows, holds, held.reshape(-1))

    def _every(
        self, order: tuple[int, ...], kept: list[Kept], level: str, options: list[dict[int, Option]], lasting: Floats, size: float
    ) -> Block | None:
        """All ways to hold the inputs, on two levels."""
        rows, held = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        holds: list[tuple[tuple[int, ...], ...]] = []
        for way in self._ways(self.tiled.levels[0], order, options):
            need = lasting
            for number, at in enumerate(way):
                option = options[number][at]
                need = need + option.tile * option.slots
            fit = np.flatnonzero(need <= size)
            if len(fit):
                rows.append(fit)
                held.append(np.full(len(fit), len(holds)))
                holds.append((way,))
        if not rows:
            return None
        return self._bounded(order, level, kept, options, np.concatenate(rows), tuple(holds), np.concatenate(held))

    def _ways(self, level: str, order: tuple[int, ...], options: list[dict[int, Option]]) -> list[tuple[int, ...]]:
        """Combinations of places for all inputs."""
        listed = [[at for at in by if self.inputs.obeys(level, number, order, at)] for number, by in enumerate(options)]
        sizes = [float(np.max(next(iter(by.values())).words)) for by in options]
        for number in sorted(range(len(options)), key=sizes.__getitem__):
            if math.prod(len(each) for each in listed) <= MAX_COMBINATIONS:
                break
            listed[number] = listed[number][-1:]
        return [way for way in itertools.product(*listed) if self._writable(order, way)]

    def _writable(self, order: tuple[int, ...], way: tuple[int, ...]) -> bool:
        """Whether inputs held outside all loops have a loop there that can say so: a second one over a rank that they share."""
        tiled = self.tiled
        if tiled.before:
            return True
        axes = [tiled.cut.axes[axis] for axis in order]
        outside = [tiled.own[number] for number, at in enumerate(way) if at == OUTSIDE and tiled.own[number] & set(axes)]
        if not outside:
            return True
        if tiled.cut.outer is not None:
            return False
        return bool(frozenset.intersection(*outside) & set(axes[1:]) & set(tiled.cut.chosen))

    def _hold(
        self,
        level: str,
        order: tuple[int, ...],
        options: list[dict[int, Option]],
        lasting: Floats,
        size: float,
        inner: NDArray[np.int64] | None,
    ) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
        """For each row the way with least traffic into a level that fits (-1: none), an input that is held further in at the
        same place not counted; of equal ways the one with smaller tiles."""
        tiled = self.tiled
        ways = self._ways(level, order, options)
        words = np.full(tiled.count, np.inf)
        taken = np.full(tiled.count, np.inf)
        which = np.full(tiled.count, -1, dtype=np.int64)
        parts = [tiled.team.inside(level, own) for own in tiled.own]
        for row, way in enumerate(ways):
            mine, need, tile = np.zeros(tiled.count), lasting, np.zeros(tiled.count)
            allowed = np.ones(tiled.count, dtype=bool)
            for number, at in enumerate(way):
                option = options[number][at]
                here = option.tile * (option.slots * parts[number])
                if inner is not None:
                    allowed &= inner[number] >= at
                    here = np.where(inner[number] == at, 0.0, here)
                mine = mine + option.words
                need = need + here
                tile = tile + option.tile
            better = allowed & (need <= size) & ((mine < words) | ((mine == words) & (tile < taken)))
            words[better], taken[better], which[better] = mine[better], tile[better], row
        return ways, which

    def _bounded(
        self,
        order: tuple[int, ...],
        level: str,
        kept: list[Kept],
        options: list[dict[int, Option]],
        rows: NDArray[np.int64],
        holds: tuple[tuple[tuple[int, ...], ...], ...],
        held: NDArray[np.int64],
    ) -> Block:
        """Lower bounds of rows whose inputs are held in given ways."""
        homes = [self.results.place(each, level) if each.lasts else each.home for each in kept]
        bounds = np.empty((5, len(rows)))
        for way, places in enumerate(holds):
            mine = np.flatnonzero(held == way)
            if not len(mine):
                continue
            flows: list[list[tuple[str, Option]]] = []
            for number, by in enumerate(options):
                at = [level_places[number] for level_places in places]
                inside = [*at[1:], None]  # what is held further in at the same place passes this level by
                flows.append([(name, by[a]) for name, a, b in zip(self.tiled.levels, at, inside, strict=True) if a != b])
            bounds[:, mine] = self.bounds.bound(rows[mine], kept, homes, flows)
        return Block(order, level, rows, holds, held, *bounds)
