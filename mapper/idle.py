"""Idle lanes: how much of an array an Einsum can keep at work, however its ranks are laid along the sides.

A side covers so many positions of a rank at once; a rank of 1000 positions along 256 lanes takes four goes and leaves
24 idle in the last. A part of a split goes tile by tile of the split, the last tile cut short.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..einsum.cascade import Cascade, Einsum
from ..einsum.sizes import Sizes
from .steps import iterated

Length = tuple[int, int]
"""Positions of a rank within one tile of its split and in all; the same for a rank that is no part."""


def lengths(cascade: Cascade, einsum: Einsum, sizes: Sizes) -> frozenset[Length]:
    """The lengths of all ranks of an Einsum."""
    whole = {rank.split.inner: rank.name for rank in cascade.ranks if rank.split is not None}
    return frozenset((sizes.extents[rank], sizes.extents[whole.get(rank, rank)]) for rank in iterated(einsum))


def most_at_work(side: Sequence[int], ranks: Iterable[Length]) -> float:
    """No more than this share of the lanes is at work on the whole."""
    listed = list(ranks)
    return math.prod(max((_along(lanes, *length) for length in listed), default=1.0) for lanes in side)


def _along(lanes: int, tile: int, whole: int) -> float:
    if not whole or not tile:
        return 1.0
    goes = whole // tile * math.ceil(tile / lanes) + math.ceil(whole % tile / lanes)
    return whole / (goes * lanes)
