"""Levels: what is said of the passes of a cascade along one rank.

In: what `passes` finds out. Out: `Levels`: the level of each Einsum, the passes (where each step of a loop adds some: those of the
first step, and the growth), at which levels each input is read, and what forces each level above the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..cascade import Cascade
from ..symbolic import ONE, Formula, constant
from .fiber import extent_of


@dataclass(frozen=True)
class Forced:
    """Why a level exists: `einsum` goes along the fiber and reads `needs`, which is complete only after the level before."""

    level: int
    rank: str
    einsum: str
    needs: str
    origin: str
    """The tensor with which the value became complete: `needs` itself, or one that it is computed from."""
    because: str
    """What made it complete, such as `max over m`."""
    through: tuple[str, ...]
    """Tensors between `origin` and `needs`, both left out."""

    def as_json(self) -> dict[str, object]:
        return {
            "level": self.level, "rank": self.rank, "einsum": self.einsum, "needs": self.needs, "origin": self.origin,
            "because": self.because, "through": list(self.through), "text": str(self),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.origin == self.needs:
            return f"`{self.einsum}` needs `{self.needs}` complete ({self.because})"
        chain = "".join(f", through `{name}`" for name in self.through)
        return f"`{self.einsum}` needs `{self.needs}` complete (`{self.origin}`: {self.because}{chain})"


@dataclass(frozen=True)
class EinsumLevel:
    """Where one Einsum of the flattened cascade stands."""

    output: str
    level: int
    """0 if it depends on no element of the fiber."""
    iterates: str | None
    """The rank that the Einsum goes along: the rank asked for, one of its parts, or None."""
    complete: bool
    """Whether its values are complete."""
    growth: int = 0
    """Levels more with each further step of the loops that `Levels.loops` names; `level` is that of the first step."""


@dataclass(frozen=True)
class Levels:
    """Levels of a cascade along one rank."""

    rank: str
    cascade: Cascade
    """The flattened cascade that the levels belong to."""
    passes: dict[str, int]
    """Of the rank, and of those of its parts along which some Einsum goes alone."""
    einsums: tuple[EinsumLevel, ...]
    """One for each Einsum of the flattened cascade, in order."""
    reads: dict[str, dict[str, tuple[int, ...]]]
    """Per rank (or part): at which levels each input is read along it."""
    forced_by: tuple[Forced, ...]
    carried: dict[str, tuple[int, ...]]
    """Intermediates with an element for each position that a later level reads: level of definition, then those of its readers."""
    growth: dict[str, int] = field(default_factory=dict)
    """Passes more for each further step of `loops`, where that is not 0; `passes` are those of one step then."""
    loops: tuple[str, ...] = ()
    """Iterative ranks (other than this one) with a full traversal of this one in each step."""

    def in_all(self, rank: str) -> Formula | None:
        """Passes over the rank or a part in all steps of the loops; None where several loops add to them."""
        return self._risen(self.passes[rank], self.growth.get(rank, 0))

    def level_in_all(self, number: int) -> Formula | None:
        """Level of one Einsum in the last step of the loops; None where several loops add to it."""
        return self._risen(self.einsums[number].level, self.einsums[number].growth)

    def _risen(self, first: int, growth: int) -> Formula | None:
        if not growth:
            return constant(first)
        if len(self.loops) != 1:
            return None
        return constant(first) + growth * (extent_of(self.cascade, self.loops[0]) - ONE)

    @property
    def of_einsum(self) -> dict[str, int]:
        """Level of each tensor's Einsums (the greatest, for a state)."""
        result: dict[str, int] = {}
        for einsum in self.einsums:
            result[einsum.output] = max(result.get(einsum.output, 0), einsum.level)
        return result
