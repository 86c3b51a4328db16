"""What no mapping of a loop order can beat, for all of its tiles at once.

In: an order of loops whose tiles are open, placed once with everything in the buffer. Out: for arrays of tiles, lower bounds of
cycles and energy, the words fetched, and whether what lasts fits the buffer; in closed form (see `closed`), with every step on its
best array and layout, whatever the others do. The search looks at tiles in the order of these bounds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import free_ranks
from .closed import Closed, Open
from .mapping import Binding
from .nest import Nest
from .steps import Step
from .streams import Stream
from .tape import Floats, Program, Tape, Value, maximum, minimum, total

WEIGHTS = tuple(2.0**power for power in range(-10, 11))
"""Of the second of two arrays against the first, in bounds of work that either may do."""


@dataclass(frozen=True)
class Bound:
    """Of each tiling of one order of loops."""

    cycles: Floats
    """With fill and drain."""
    energy: Floats
    words: Floats
    """Fetched from the backing store."""
    need: Floats
    """Least bytes of the buffer that lasting tensors take."""
    holds: NDArray[np.int64]
    """Which combination of what is held (a row of `combinations`); -1: none fits."""
    combinations: tuple[tuple[int, ...], ...]
    """For each stream, the number of loops that cut what is held of it."""


class Bounds:
    """The bounds of one order of loops; `known`: what orders of the same loops share, filled by the first of them."""

    def __init__(
        self, nest: Nest, shares: Map_[int, float], leaves: Map_[str, float], one: frozenset[int], known: dict[str, Floats]
    ) -> None:
        self.nest, self.shares, self.leaves, self.known = nest, shares, leaves, known
        self.closed = Closed(nest, Tape(), one)
        self.options = [self._depths(stream) for stream in nest.streams]
        self.open: set[int] = set()
        """Streams without a closed form (windows): counted tiling by tiling."""
        outputs: dict[str, Value] = {}
        for number, (stream, depths) in enumerate(zip(nest.streams, self.options, strict=True)):
            share = max(shares.get(reader.position, 1.0) for reader in stream.readers)
            try:
                for depth in depths:
                    at = replace(stream, depth=depth)
                    outputs[f"words {number} {depth}"] = self.closed.stream_words(at) * share
                    outputs[f"tile {number} {depth}"] = self.closed.stream_tile(at)
            except Open:
                self.open.add(number)
        outputs["lasting"] = self._lasting()
        if not self.known:
            outputs |= {"compute": self._compute(), "energy": self._energy()}
        outputs["buffer read"], outputs["buffer written"] = self._buffer()
        outputs["tiles"] = self.closed.repeats(frozenset(loop.rank for loop in nest.group.loops))
        outputs["last"] = maximum(0.0, *(self.closed._last_tile(tensor) for tensor in sorted(nest.outgoing)))
        outputs["written"] = total(self.closed.tensor_words(tensor) for tensor in sorted(nest.outgoing))
        self.program = Program(self.closed.tape, outputs)

    def _depths(self, stream: Stream) -> list[int]:
        ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
        return [depth for depth, loop in enumerate(self.nest.group.loops, 1) if loop.rank in ranks] or [0]

    def _lasting(self) -> Value:
        """Words of tensors that are alive across tiles."""
        closed, within = self.closed, len(self.nest.group.loops)
        found: Value = 0.0
        for resident in self.nest.residents.values():
            if resident.depth < within:
                slots = closed._slots(resident.depth) if resident.leaves else 1.0
                found = found + closed.resident_words(resident, resident.depth) * slots
        return found

    def _compute(self) -> Value:
        """Cycles of the busiest array, if every step had the best layout and could be shared out."""
        arrays = list(self.nest.arch.arrays)
        table = [self._least(step) for step in self.nest.steps if step.work]
        found: Value = 0.0
        for weights in _weightings(len(arrays)):
            parts = []
            for least in table:
                able = [least[name] * weight for name, weight in zip(arrays, weights, strict=True) if name in least]
                parts.append(minimum(*able))
            found = maximum(found, total(parts) * (1.0 / sum(weights)))
        return found

    def _least(self, step: Step) -> dict[str, Value]:
        """Cycles of a step on each array that can do it, under its best layout."""
        found: dict[str, Value] = {}
        share = self.shares.get(step.position, 1.0)
        tensor = self.nest.cascade.tensor(step.output)
        barred = {tensor.iterates, getattr(step.einsum.body, "rank", None)}
        ranks = sorted(rank for rank in step.ranks if rank not in barred and not self.closed.is_one(rank))
        for name, array in self.nest.arch.arrays.items():
            if any(array.expand(item.operation) is None for item in step.work):
                continue
            least: Value | None = None
            sides = min(len(array.side), len(ranks))
            for layout in itertools.permutations(ranks, sides):
                bound = replace(step, binding=Binding(array=name, spatial=tuple((rank,) for rank in layout)), array=array)
                busy = self.closed.busy(bound) * share
                least = busy if least is None else minimum(least, busy)
            if least is not None:
                found[name] = least
        return found

    def _energy(self) -> Value:
        """pJ of the operations, each on the array where it takes least."""
        hardware = self.closed.hardware
        found: Value = 0.0
        for step in self.nest.steps:
            least: Value | None = None
            for name, array in self.nest.arch.arrays.items():
                if any(array.expand(item.operation) is None for item in step.work):
                    continue
                mine: Value = 0.0
                for item in step.work:
                    points = self.closed.points(step, item) * self.shares.get(step.position, 1.0)
                    for unit, count in hardware.expand(name, item.operation).items():
                        each = hardware[f"{name}.units.{unit}.energy_pj"] + hardware.register_pj(name, unit)
                        mine = mine + points * count * each
                least = mine if least is None else minimum(least, mine)
            found = found + (least if least is not None else 0.0)
        return found

    def _buffer(self) -> tuple[Value, Value]:
        """Words read and written at the buffer besides those fetched: operands of steps that no layout spares, what lasts."""
        read: Value = 0.0
        written: Value = 0.0
        within = len(self.nest.group.loops)
        for number, stream in enumerate(self.nest.streams):
            for reader in stream.readers if number not in self.open else ():
                read = read + self.closed.operand_words(reader, stream) * self.shares.get(reader.position, 1.0)
        for resident in self.nest.residents.values():
            if resident.depth < within:
                share = self.shares.get(resident.producer.position, 1.0)
                written = written + self.closed.result_words(resident.producer, resident.tensor) * share
        return read, written

    def __call__(self, tiles: Map_[int, Floats]) -> Bound:
        """Bounds for arrays of tiles, by loop."""
        count = len(next(iter(tiles.values()))) if tiles else 1
        inputs = {name: self._input(name, tiles) for name in self.program.inputs}
        found = self.program.run(inputs, count) | self._counted(tiles, count)
        self.known |= {name: found[name] for name in ("compute", "energy") if name in found}
        found |= self.known
        arch, leaves = self.nest.arch, self.leaves
        buffer, backing = arch.buffer[0], arch.backing[0]
        word = leaves["word_bytes"]
        size = leaves[f"{buffer}.size"]
        per_word = word * leaves["clock_hz"] / leaves[f"{backing}.bandwidth"]
        per_cycle = word * leaves["clock_hz"]
        combinations = tuple(itertools.product(*self.options))
        words = np.full(count, np.finfo(np.float64).max ** 0.5)
        taken = np.full(count, np.inf)
        holds = np.full(count, -1, dtype=np.int64)
        least = np.full(count, np.inf)
        for row, depths in enumerate(combinations):
            mine = sum((found[f"words {i} {depth}"] for i, depth in enumerate(depths)), np.zeros(count))
            need = sum((found[f"tile {i} {depth}"] * self.closed._slots(depth) for i, depth in enumerate(depths)), found["lasting"])
            tile = sum((found[f"tile {i} {depth}"] for i, depth in enumerate(depths)), np.zeros(count))
            least = np.minimum(least, need * word)
            better = (need * word <= size) & ((mine < words) | ((mine == words) & (tile < taken)))
            words[better], taken[better], holds[better] = mine[better], tile[better], row
        least_loaded = np.zeros(count)
        first = [step for step in self.nest.steps if all(step.slots[axis] != "last" for axis in self.closed.active)]
        for i, stream in enumerate(self.nest.streams):
            if any(step in stream.readers for step in first):
                least_loaded = least_loaded + found[f"tile {i} {self.options[i][-1]}"]
        moved = (words + found["written"]) * per_word
        if leaves[f"{buffer}.bandwidth"] < math.inf:
            at_buffer = found["buffer read"] + found["buffer written"] + words
            moved = np.maximum(moved, at_buffer * per_cycle / leaves[f"{buffer}.bandwidth"])
        # the first tile is loaded, all others take their time, the last results leave
        spread = least_loaded * per_word + found["compute"] * (found["tiles"] - 1) / found["tiles"] + found["last"] * per_word
        cycles = np.maximum(np.maximum(found["compute"], moved), spread)
        energy = (
            found["energy"]
            + _level_pj(leaves, backing, words, found["written"])
            + _level_pj(leaves, buffer, found["buffer read"], found["buffer written"] + words)
        )
        return Bound(cycles, energy, words, least, holds, combinations)

    def _counted(self, tiles: Map_[int, Floats], count: int) -> dict[str, Floats]:
        """Words and tiles of the streams without a closed form."""
        found = {
            f"{what} {i} {depth}": np.zeros(count) for i in self.open for depth in self.options[i] for what in ("words", "tile")
        }
        for position in range(count if found else 0):
            loops = tuple(
                loop.model_copy(update={"tile": int(tiles[axis][position])}) if axis in tiles else loop
                for axis, loop in enumerate(self.nest.group.loops)
            )
            nest = replace(self.nest, group=self.nest.group.model_copy(update={"loops": loops}))
            for i in self.open:
                for depth in self.options[i]:
                    at = replace(self.nest.streams[i], depth=depth)
                    found[f"words {i} {depth}"][position] = nest.stream_words(at)
                    found[f"tile {i} {depth}"][position] = nest.stream_tile(at)
        return found

    def _input(self, name: str, tiles: Map_[int, Floats]) -> Any:
        kind, rest = name.split(" ", 1)
        match kind:
            case "extent":
                return float(self.nest.sizes.extents[rest])
            case "scalar":
                return float(self.nest.sizes.scalars[rest])
            case "tile":
                axis = int(rest.split(".")[1])
                return tiles[axis] if axis in tiles else float(self.nest.group.loops[axis].tile)
            case "arch":
                return self.leaves[rest]
            case _:
                return 1.0


def _level_pj(leaves: Map_[str, float], level: str, read: Any, written: Any) -> Any:
    per_byte = leaves["word_bytes"] / leaves[f"{level}.access_bytes"]
    return (read * leaves[f"{level}.read_pj"] + written * leaves[f"{level}.write_pj"]) * per_byte


def _weightings(count: int) -> list[tuple[float, ...]]:
    """Weights of arrays: each alone, and pairs of them in many proportions."""
    found = [tuple(1.0 if i == j else 0.0 for i in range(count)) for j in range(count)]
    for a, b in itertools.combinations(range(count), 2):
        found += [tuple(1.0 if i == a else weight if i == b else 0.0 for i in range(count)) for weight in WEIGHTS]
    return found
