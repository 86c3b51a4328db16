"""Reach: how far along a fiber the values lie that an element depends on, and whether they are there when they are read.

In: a fiber, a value's reach as formulas of its tensor's ranks, an access. Out: the reach as its reader sees it, and whether a
reader that is at some position of a sweep comes too early for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..symbolic import ONE, Formula, symbol
from .fiber import Fiber, leaves_of
from .prepared import Read, Step

Direction = Literal["ascending", "descending"]


@dataclass(frozen=True)
class Value:
    """What is known of a tensor's elements along a fiber.

    `high`, `low`: positions that an element depends on lie below (above) the greatest (least) of these, as functions of the
    tensor's rank names; None: unbounded on that side; (): any position does.
    """

    level: int = 0
    complete: bool = False
    high: tuple[Formula, ...] | None = ()
    low: tuple[Formula, ...] | None = ()
    origin: str = ""
    because: str = ""
    through: tuple[str, ...] = ()


class Reach:
    """Reaches along one fiber."""

    def __init__(self, fiber: Fiber) -> None:
        self.fiber, self.cascade = fiber, fiber.cascade

    def of(self, ranks: tuple[str, ...], reverse: bool) -> tuple[Formula, ...]:
        """The position along the clock of an element of a tensor with these ranks."""
        for rank in ranks:
            position = self.fiber.position(rank, symbol(rank))
            if position is not None:
                return (self.fiber.length - ONE - position,) if reverse else (position,)
        return ()

    def position(self, reverse: bool) -> Formula:
        """The position along the clock at which a point is computed."""
        clock = symbol(self.fiber.clock)
        return self.fiber.length - ONE - clock if reverse else clock

    def in_time(self, read: Read, value: Value, position: Formula, direction: Direction) -> bool:
        """Whether what is read is there when the sweep is at `position`, give or take a bounded distance."""
        bounds = value.high if direction == "ascending" else value.low
        if bounds is None:
            return False
        growth = self.fiber.growth
        for bound in bounds:
            there = self.composed(read, bound)
            if there is None:
                return False
            if there == position:
                continue
            gap = there - position if direction == "ascending" else position - there
            if not growth.bounded_above(gap, read.guards):
                return False
        return True

    def composed(self, read: Read, bound: Formula) -> Formula | None:
        """A bound in terms of the reader's rank variables; None where an index is not a formula."""
        tensor = self.cascade.tensor(read.access.tensor)
        needed = bound.symbols
        values: dict[str, Formula] = {}
        for rank, index in zip(tensor.ranks, read.indices, strict=True):
            if rank not in needed:
                continue
            if index is None:
                return None
            values[rank] = index
        if all(value == symbol(rank) for rank, value in values.items()):
            return bound
        split = self._through_split(bound, values)
        return split if split is not None else bound.substitute(values)

    def _through_split(self, bound: Formula, values: dict[str, Formula]) -> Formula | None:
        """The clock of an index into a dimension that is split: shed the inner part exactly where that is possible."""
        for rank, index in values.items():
            if rank != self.fiber.clock and rank in self.fiber.path and len(values) == 1:
                plain = self.fiber.position(rank, symbol(rank))
                there = self.fiber.position(rank, index)
                if plain is None or there is None:
                    return None
                if bound == plain:
                    return there
                mirrored = self.fiber.length - ONE
                if bound == mirrored - plain:
                    return mirrored - there
        return None

    def carried(
        self, so_far: list[Formula] | None, bounds: tuple[Formula, ...] | None, read: Read, step: Step, sign: int
    ) -> list[Formula] | None:
        """Bounds of what is read, in terms of the reader's output, with its bound ranks at their far ends."""
        if so_far is None or bounds is None:
            return None
        result = list(so_far)
        for bound in bounds:
            there = self.composed(read, bound)
            if there is None:
                return None
            for rank in step.bound:
                for leaf in leaves_of(self.cascade, rank):
                    if leaf not in there.symbols:
                        continue
                    parts = there.split(leaf)
                    if parts is None:
                        return None
                    slope, rest = parts
                    growth = self.fiber.growth
                    if growth.at_least_zero(slope * sign):
                        there = rest + slope * (growth.extents[leaf] - ONE)
                    elif growth.at_least_zero(-slope * sign):
                        there = rest
                    else:
                        return None
            if there not in result:
                result.append(there)
        return result

    def is_whole(self, high: list[Formula] | None) -> bool:
        """Whether a value without rank variables in its reach needs the far end of the fiber."""
        names = self.fiber.growth.extents.keys()
        return high is None or any(not (bound.symbols & names) and not self.fiber.growth.bounded_above(bound) for bound in high)
