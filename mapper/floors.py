"""Floors: what no mapping of a group can beat, whatever the order of its loops, for all tilings at once.

In: a group as one of several equal instances does it, with a loop over every rank that may have one. Out: for arrays of tiles (a
tile as long as its rank: no loop), in closed form (see `closed`): cycles of the busiest array with every step on its best array and
layout, words of operands and results, energy of operations. None of this depends on the order of the loops; what does is
added by `orders`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .closed import Closed, Open
from .mapping import Binding
from .nest import Nest
from .steps import Step
from .streams import Stream
from .tape import Floats, Program, Tape, Value, maximum, minimum, total

WEIGHTS = tuple(2.0**power for power in range(-10, 11))
"""Of the second of two arrays against the first, in bounds of work that either may do."""


@dataclass(frozen=True)
class Made:
    """A tensor that a group makes."""

    tensor: str
    producer: Step
    readers: tuple[Step, ...]
    initial: Step | None
    leaves: bool
    handed_on: bool
    """Whether its elements may be handed on as they are made, if they are used in the tile that makes them."""

    def in_registers(self, nest: Nest) -> int:
        """Words of it that the registers of an array may hold at most."""
        if self.leaves:
            return 0
        return max(array.lanes * array.registers.words for array in nest.arch.arrays.values())


def made_in(nest: Nest) -> tuple[Made, ...]:
    """What a group makes."""
    found = []
    for step in nest.steps:
        if step.initial:
            continue
        name = step.output
        readers = tuple(reader for reader in nest.steps if any(access.tensor == name for access in reader.reads))
        shape = frozenset(nest.cascade.tensor(name).ranks)
        initial = next((first for first in nest.steps if first.initial and first.output == name), None)
        handed_on = all(reader.ranks == shape and nest.between(step, reader) is None for reader in readers)
        found.append(Made(name, step, readers, initial, name in nest.outgoing, handed_on))
    return tuple(found)


@dataclass(frozen=True)
class Floor:
    """Of each tiling, for one instance."""

    compute: Floats
    """Cycles of the busiest array."""
    energy: Map_[int, Floats]
    """pJ of the operations of each step, each on the array where it takes least."""
    operands: Map_[tuple[int, str, int], Floats]
    """Words that a step reads (by its place in the group) of a tensor, through each access."""
    made: Map_[str, Floats]
    """Words written where a tensor is made: every tile that adds to it."""
    back: Map_[str, Floats]
    """Words of unfinished sums read back."""

    def at(self, rows: NDArray[np.int64]) -> Floor:
        """Some of the tilings."""
        every: list[Map_[Any, Floats]] = [self.energy, self.operands, self.made, self.back]
        return Floor(self.compute[rows], *({key: value[rows] for key, value in each.items()} for each in every))


class Floors:
    """The formulas of one group."""

    def __init__(self, nest: Nest, one: frozenset[int], shares: Map_[int, float], leaves: Map_[str, float]) -> None:
        self.nest, self.shares, self.leaves = nest, shares, leaves
        self.closed = Closed(nest, Tape(), one)
        self.made = made_in(nest)
        outputs: dict[Any, Value] = {"compute": self._compute()}
        for place, step in enumerate(nest.steps):
            outputs["energy", place] = self._energy(step)
            for number, access in enumerate(step.reads):
                stream = Stream(access.tensor, access.indices, (step,), len(nest.group.loops))
                try:
                    words = self.closed.operand_words(step, stream) * self._share(step)
                except Open:
                    words = 0.0
                outputs["operand", place, access.tensor, number] = words
        for made in self.made:
            written = self.closed.result_words(made.producer, made.tensor) * self._share(made.producer)
            outputs["made", made.tensor] = written
            begun = self.closed.begun_words(made.producer, made.tensor)
            sums = made.producer.reduced & nest.cut and made.producer.position not in shares
            outputs["back", made.tensor] = maximum(0.0, written - begun) if sums else 0.0
        self.program = Program(self.closed.tape, outputs)

    def _share(self, step: Step) -> float:
        return self.shares.get(step.position, 1.0)

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
        tensor = self.nest.cascade.tensor(step.output)
        barred = {tensor.iterates, getattr(step.einsum.body, "rank", None)}
        ranks = sorted(rank for rank in step.ranks if rank not in barred and not self.closed.is_one(rank))
        for name, array in self.nest.arch.arrays.items():
            if any(array.expand(item.operation) is None for item in step.work):
                continue
            sides = min(len(array.side), len(ranks))
            least: Value | None = None
            for layout in itertools.permutations(ranks, sides):
                bound = replace(step, binding=Binding(array=name, spatial=tuple((rank,) for rank in layout)), array=array)
                busy = self.closed.busy(bound) * self._share(step)
                least = busy if least is None else minimum(least, busy)
            if least is not None:
                found[name] = least
        return found

    def _energy(self, step: Step) -> Value:
        """pJ of the operations of a step, on the array where they take least."""
        hardware = self.closed.hardware
        least: Value | None = None
        for name, array in self.nest.arch.arrays.items():
            if any(array.expand(item.operation) is None for item in step.work):
                continue
            mine: Value = 0.0
            for item in step.work:
                points = self.closed.points(step, item) * self._share(step)
                for unit, count in hardware.expand(name, item.operation).items():
                    mine = mine + points * count * (hardware[f"{name}.units.{unit}.energy_pj"] + hardware.register_pj(name, unit))
            least = mine if least is None else minimum(least, mine)
        return least if least is not None else 0.0

    def __call__(self, tiles: Map_[int, Floats]) -> Floor:
        """Floors for arrays of tiles, by loop."""
        count = len(next(iter(tiles.values()))) if tiles else 1
        found: dict[Any, Floats] = self.program.run({name: self.input(name, tiles) for name in self.program.inputs}, count)
        return Floor(
            found["compute"],
            {place: found["energy", place] for place in range(len(self.nest.steps))},
            {key[1:]: value for key, value in found.items() if key[0] == "operand"},
            {made.tensor: found["made", made.tensor] for made in self.made},
            {made.tensor: found["back", made.tensor] for made in self.made},
        )

    def input(self, name: str, tiles: Map_[int, Floats]) -> Any:
        """An input of a tape of this group; loops without an array of tiles have the tile of the group."""
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


def level_pj(leaves: Map_[str, float], level: str, read: Any, written: Any) -> Any:
    """Energy of words read and written at a level."""
    per_access = leaves["word_bytes"] / leaves[f"{level}.access_bytes"]
    return (read * leaves[f"{level}.read_pj"] + written * leaves[f"{level}.write_pj"]) * per_access


def port_cycles(leaves: Map_[str, float], level: str, read: Any, written: Any) -> Any:
    """Cycles that the ports of one instance of a level need for words read and written."""
    per_word = leaves["word_bytes"] * leaves["clock_hz"]
    none = float("inf")
    both = (read + written) / leaves.get(f"{level}.bandwidth", none)
    apart = np.maximum(read / leaves.get(f"{level}.read_bandwidth", none), written / leaves.get(f"{level}.write_bandwidth", none))
    return np.maximum(both, apart) * per_word


def _weightings(count: int) -> list[tuple[float, ...]]:
    """Weights of arrays: each alone, and pairs of them in many proportions."""
    found = [tuple(1.0 if i == j else 0.0 for i in range(count)) for j in range(count)]
    for a, b in itertools.combinations(range(count), 2):
        found += [tuple(1.0 if i == a else weight if i == b else 0.0 for i in range(count)) for weight in WEIGHTS]
    return found
