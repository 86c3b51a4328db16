"""Directions: which way the sweep of each level goes along a fiber, and which Einsums run along it mirrored.

In: the Einsums of one round, one after another, with what each reads of its own level. Out: a frame for each (mirrored or not, and
the direction of the sweep where that matters to it), or none that fits. This is greedy: a level has no direction until something
needs one, and tensors that nothing has settled are turned round where that brings them in time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cascade import Scan
from ..symbolic import ONE
from .prepared import Read, Step
from .reach import Direction, Reach, Value


@dataclass(eq=False)
class _Swept:
    """Tensors made in one sweep that must all turn round if one does; `free` if they can."""

    names: set[str]
    free: bool


class Directions:
    """The sweeps of all levels of one round; `values`: what is known of each tensor, turned round here where that helps."""

    def __init__(self, reach: Reach, values: dict[str, Value]) -> None:
        self.reach, self.values = reach, values
        self.fiber, self.cascade = reach.fiber, reach.cascade
        self.pins: dict[int, Direction] = {}
        """Levels whose direction is fixed."""
        self.groups: dict[str, _Swept] = {}

    def frame(self, step: Step, level: int, present: list[tuple[Read, Value]]) -> tuple[bool, Direction | None] | None:
        """Whether the Einsum runs along the sweep reversed, and the direction that the sweep of this level must have for it.

        None if it fits into no direction that the level still allows. Remembers the direction.
        """
        body = step.einsum.body
        scans = isinstance(body, Scan) and self.fiber.clock in self.fiber.expand(frozenset((body.rank,)))
        loops = self.cascade.tensor(step.output).kind == "state" and self.fiber.carries(self.cascade.tensor(step.output))
        pinned = self.pins.get(level)
        fits: list[tuple[bool, Direction]] = []
        for reverse in (False, True):
            if reverse and (loops or self.fiber.clock not in self.fiber.expand(step.iterated)):
                continue
            position = self.reach.position(reverse)
            directions: tuple[Direction, ...] = ("ascending", "descending")
            if scans or loops:
                directions = ("descending",) if reverse else ("ascending",)
            good: list[Direction] = [
                direction
                for direction in directions
                if pinned in (None, direction) and all(self.reach.in_time(r, v, position, direction) for r, v in present)
            ]
            if len(good) == 2:
                return reverse, None
            fits += [(reverse, direction) for direction in good]
        if not fits:
            return None
        reverse, chosen = fits[0]
        if pinned is None:
            self.pins[level] = chosen
        symmetric = not scans and not loops and all(self.reach.in_time(r, v, self.reach.position(reverse), d)
                                                    for r, v in present for d in ("ascending", "descending"))  # fmt: skip
        return reverse, None if symmetric else chosen

    def tie(self, output: str, names: list[str], free: bool) -> None:
        """Tensors made in one sweep whose order depends on one another; `free` if all of it could as well run backwards."""
        together = _Swept({output}, free)
        for name in names:
            group = self.groups.get(name)
            together.free &= group is not None and group.free
            together.names |= group.names if group is not None else {name}
        for name in together.names:
            self.groups[name] = together

    def turned(self, present: list[tuple[Read, Value]]) -> bool:
        """Turn round what this Einsum would read too late, where nothing keeps it from running the other way; whether it helped."""
        position = self.reach.position(reverse=False)
        late = [pair for pair in present if not self.reach.in_time(*pair, position, "ascending")]
        turning = [self.groups.get(read.access.tensor) for read, _ in late]
        kept = [self.groups.get(read.access.tensor) for read, value in present if (read, value) not in late]
        if any(group is None or not group.free or group in kept for group in turning):
            return False
        names = set().union(*(group.names for group in turning if group is not None))
        before = {name: self.values[name] for name in names}
        last = self.fiber.length - ONE
        for name, value in before.items():
            self.values[name] = replace(
                value,
                high=None if value.low is None else tuple(last - bound for bound in value.low),
                low=None if value.high is None else tuple(last - bound for bound in value.high),
            )
        if all(self.reach.in_time(read, self.values[read.access.tensor], position, "ascending") for read, _ in present):
            return True
        self.values |= before
        return False
