"""Tally: what a search looked at, and the refusals that it shows if nothing is found.

In: what is passed over, one thing or many at a time. Out: how much of it there was and why, and the refusal of what lacked least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..einsum.diagnostics import Diagnostic, EinsmithError
from .space import Tiles


@dataclass
class Tally:
    """What a search looked at."""

    evaluated: int = 0
    """Mappings of a group costed in full."""
    illegal: int = 0
    """Tilings that read a reduction before it is complete, or that the architecture cannot do."""
    too_large: int = 0
    """Tilings or mappings that do not fit a storage level."""
    bounded: int = 0
    """Tilings and mappings whose lower bound was no better than what was found."""
    dominated: int = 0
    """Layouts and bindings no better in any array."""
    closest: tuple[float, Diagnostic] | None = None
    """The refusal of what lacked least, and how much of what there is it needs: shown if nothing fits."""
    refused: Diagnostic | None = None
    """The first refusal of what is not legal."""
    cut_off: bool = False
    tiles: Tiles = "doubled"
    gap: float = 0.0
    """Share of the objective by which what is found may miss the best."""
    watch: Callable[[int, float, float], None] | None = None
    stop: Callable[[], bool] = lambda: False

    def is_closest(self, lacking: float) -> bool:
        """Whether nothing that was refused lacked less."""
        return self.closest is None or lacking < self.closest[0]

    def refuse(self, error: EinsmithError, count: int = 1) -> None:
        """Note why something is not looked at."""
        diagnostic = error.diagnostics[0]
        if diagnostic.code in ("E520", "E521"):
            self.too_large += count
            lacking = _lacking(diagnostic)
            if self.is_closest(lacking):
                self.closest = lacking, diagnostic
        else:
            self.illegal += count
            self.refused = self.refused or diagnostic


def _lacking(diagnostic: Diagnostic) -> float:
    """How much a refused mapping lacks, in units of what there is."""
    found = _numbers(diagnostic)
    return found[0] / max(found[1], 1) if len(found) > 1 else 1.0


def _numbers(diagnostic: Diagnostic) -> list[int]:
    """(need, have, ...) of a refusal."""
    _, _, said = diagnostic.message.partition(" needs ")
    return [int(word.replace(",", "")) for word in said.replace(":", " ").split() if word.replace(",", "").isdigit()]
