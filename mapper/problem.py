"""One fusion group to be mapped: the problem, and a solution of it."""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass, field
from typing import Any

from ..einsum.cascade import Cascade
from ..einsum.sizes import Sizes
from .architecture import Architecture
from .cost import GroupCost
from .floors import Way
from .layouts import Vector
from .nest import Nest
from .objective import Objective
from .space import Fixed


@dataclass(frozen=True)
class Problem:
    """Einsums that are to be one group."""

    cascade: Cascade
    """Flat."""
    arch: Architecture
    sizes: Sizes
    names: frozenset[str]
    leaving: frozenset[str]
    objective: Objective
    shares: Map_[int, float]
    """Least share of the points of masked Einsums that any tiling must do."""
    fixed: Fixed
    masks: frozenset[int] = frozenset()
    """Those of them that masks are the reason of."""
    axes: tuple[int, ...] = ()
    """Places in a value of the measures whose whole Pareto front is wanted; none: the best is."""
    known: dict[Any, float] = field(default_factory=dict, compare=False)
    """Cycles of steps on arrays, shared by the problems of one cascade."""
    ways: dict[Any, list[Way]] = field(default_factory=dict, compare=False)
    """Ways to read the operands of steps, shared like these."""

    @property
    def masked(self) -> bool:
        """Whether masks leave out points of the group."""
        return any(einsum.output in self.names and at in self.masks for at, einsum in enumerate(self.cascade.einsums))


@dataclass(frozen=True)
class Found:
    """One group, mapped and costed."""

    nest: Nest
    cost: GroupCost

    @property
    def value(self) -> Vector:
        """Cycles with fill and drain, energy in pJ, words across the boundary."""
        words = sum(sum(by.values()) for by in self.cost.traffic_words.values())
        return self.cost.timing.cycles + self.cost.timing.fill, self.cost.energy_pj, words
