"""The form of a cascade that a kernel is planned from: as few sweeps over the sequential rank as algebra allows.

In: a cascade as the user wrote it, and its sizes. Out: the cascade to plan, and what was done about it in words. The rank is
the one that a program would walk (`blocking.sequential_rank`); if the analysis counts more than one pass over it, the
derivation is asked for fewer. A cascade that still needs several passes is planned with several loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import EinsmithError
from ..einsum.flatten import flatten
from ..einsum.sizes import bind
from .blocking import SMALL, inline, sequential_rank


@dataclass(frozen=True)
class OnePass:
    """A cascade ready to plan. `note` says what happened; empty if nothing did."""

    cascade: Cascade
    rank: str | None
    passes: int
    note: str
    tiles: frozenset[str] = frozenset()
    """Sizes that the derivation brought in: with any value it is the same function."""


def one_pass(
    cascade: Cascade, sizes: Mapping[str, int] | None = None, params: Mapping[str, int | float] | None = None, small: int = SMALL
) -> OnePass:
    """The derived form, if the rank that a program walks needs more than one pass as written. Ranks of at most `small` coordinates
    are held whole where that can be."""
    if any(tensor.iterates is not None for tensor in cascade.tensors):
        return OnePass(cascade, None, 1, "")
    extents = bind(cascade, sizes, params).extents
    walked = sequential_rank(inline(flatten(cascade)), extents, small)
    if walked is None:
        return OnePass(cascade, None, 1, "")
    rank = cascade.rank(walked).part_of or walked
    from ..einsum.analysis.passes import levels

    before = levels(cascade, rank).passes.get(rank, 0)
    if before <= 1:
        return OnePass(cascade, rank, before, f"one pass over `{rank}` as written")
    from ..einsum.rewrite.derive import derive

    try:
        derivation = derive(cascade, rank, dense=True)  # a tile computes what a mask leaves out too
    except EinsmithError as error:
        reason = error.diagnostics[0].message
        return OnePass(cascade, rank, before, f"{before} passes over `{rank}`; no derived form: {reason}")
    after = derivation.passes_after.get(rank, before)
    if after >= before:
        return OnePass(cascade, rank, before, f"{before} passes over `{rank}`, which the derivation cannot lower")
    tiles = frozenset(derivation.cascade.symbols) - frozenset(cascade.symbols)
    return OnePass(derivation.cascade, rank, after, f"derived: {after} instead of {before} passes over `{rank}`", tiles)
