"""Incumbents: the best mappings known so far, and what they leave no room for.

In: mappings of a group as they are found, limits on what the group may take, whole mappings that are known. Out: whether a lower
bound (of one mapping, or of many at once) rules out anything better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layouts import Vector, front
from .objective import MEASURES, PRODUCTS, Objective, order, rank_of
from .problem import Found
from .tape import Floats


class Rivals:
    """Cycles and energy of whole mappings that are known, for objectives that do not add up over groups."""

    def __init__(self, objective: Objective, values: Iterable[Vector] = ()) -> None:
        self.objective = objective
        self.values = [value for value, _ in front([(value[:2], None) for value in values])]

    def beat(self, cycles: Any, energy: Any) -> Any:
        """Whether no mapping that takes so much at least is better than all of them."""
        found: Any = np.zeros(np.shape(cycles), dtype=bool)
        if self.objective == "edp" and self.values:
            return cycles * energy >= min(one * other for one, other in self.values)
        for one, other in self.values if self.objective == "pareto" else ():
            found = found | ((cycles >= one) & (energy >= other))
        return found


class Incumbents:
    """What is known of the best of one group. `axes`: places in a value of the measures whose whole Pareto front is wanted; none:
    the best is. `gap`: share of the objective by which it may be missed."""

    def __init__(self, objective: Objective, axes: tuple[int, ...], gap: float) -> None:
        self.objective, self.axes, self.gap = objective, axes, gap
        self.found: list[Found] = []
        """The best, or the Pareto front."""
        self.caps = [math.inf] * len(MEASURES)
        """What of each measure this group may take at most, as long as a whole front is wanted."""
        self.alone = False
        """Whether the group is all there is: then what is found limits the first measure of what comes."""
        self.rivals = Rivals(objective)
        """Whole mappings that are known, for products."""
        self.others: Vector = (0.0, 0.0)
        """Cycles and energy that all other groups of a whole mapping take at least."""

    def add(self, new: Found) -> None:
        """Keep a mapping if it is better than what was found, or on the front."""
        if axes := self.axes:
            if self.ruled_out(new.value):
                return
            self.found[:] = [item for _, item in front([(tuple(item.value[a] for a in axes), item) for item in [*self.found, new]])]
            if self.alone:
                first = order(self.objective)[0]
                self.caps[first] = min(self.caps[first], new.value[first])
        elif not self.found or rank_of(self.objective, new.value) < rank_of(self.objective, self.found[0].value):
            self.found[:] = [new]

    def beaten(self, key: Any) -> bool:
        """Whether a lower bound rules out anything better than what was found, by more than the gap that is asked for."""
        if self.axes:
            return self.objective not in PRODUCTS and bool(key[0] > self.caps[order(self.objective)[0]])
        if not self.found:
            return False
        value, gap = rank_of(self.objective, self.found[0].value), self.gap
        return bool(key[0] >= value[0] * (1 - gap) if gap else key >= value)

    def all_beaten(self, floors: Sequence[Floats]) -> NDArray[np.bool_]:
        """The same of many bounds of values."""
        beaten = np.zeros(len(floors[0]), dtype=bool)
        if self.axes:
            for cap, floor in zip(self.caps, floors, strict=True):
                beaten |= floor > cap
            for found in self.found:
                beaten |= np.logical_and.reduce([floors[axis] >= found.value[axis] for axis in self.axes])
            return np.asarray(beaten | self.rivals.beat(floors[0] + self.others[0], floors[1] + self.others[1]))
        if not self.found:
            return beaten
        value, gap = rank_of(self.objective, self.found[0].value), self.gap
        keys = rank_of(self.objective, floors)
        if gap:
            return np.asarray(keys[0] >= value[0] * (1 - gap))
        equal = np.ones(len(beaten), dtype=bool)
        for key, found_key in zip(keys, value, strict=True):
            beaten |= equal & (key > found_key)
            equal &= key == found_key
        return beaten | equal

    def ruled_out(self, floor: Vector) -> bool:
        """Whether a mapping of at least this value is no better than what is known."""
        if self.axes:
            return (
                any(mine > cap for mine, cap in zip(floor, self.caps, strict=True))
                or any(all(found.value[axis] <= floor[axis] for axis in self.axes) for found in self.found)
                or bool(self.rivals.beat(floor[0] + self.others[0], floor[1] + self.others[1]))
            )
        return self.beaten(rank_of(self.objective, floor))
