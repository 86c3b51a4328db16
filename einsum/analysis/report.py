"""All of the analysis of one cascade, as numbers, as JSON and as a text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..cascade import Cascade
from .passes import Levels, levels, prepare


@dataclass(frozen=True)
class Analysis:
    cascade: Cascade
    levels: dict[str, Levels]

    def as_json(self) -> dict[str, Any]:
        passes: dict[str, int] = {}
        for found in self.levels.values():
            passes |= found.passes
        return {"passes": passes}


def analyze(
    cascade: Cascade,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    ranks: Sequence[str] | None = None,
) -> Analysis:
    prepared = prepare(cascade)
    names = ranks or [rank.name for rank in cascade.ranks if rank.part_of is None]
    return Analysis(cascade, {name: levels(prepared, name) for name in names})
