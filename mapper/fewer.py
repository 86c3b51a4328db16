"""A cascade in which contractions are in another order, where that takes far fewer operations at the sizes that are planned for.

In: a cascade as the user wrote it, sizes. Out: the same function with at most half the operations, and what was done in words; or
None. Attention without a softmax is the case in point: at many positions Q(KV) takes less than (QK)V, at few it takes more, and
under a causal mask it is a running state, which then goes chunk by chunk. Which form is faster is decided by predicted time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..einsum.cascade import Cascade, Reduce
from ..einsum.diagnostics import EinsmithError
from ..einsum.flatten import flatten
from ..einsum.sizes import bind, given

SAVED = 2
"""Times fewer operations that make another plan worth its search."""


@dataclass(frozen=True)
class Fewer:
    """The cascade, and what was done."""

    cascade: Cascade
    note: str


def fewer_operations(cascade: Cascade, sizes: Mapping[str, int], params: Mapping[str, int | float]) -> Fewer | None:
    """Contractions along the longest rank that is summed in the order that takes the fewest operations."""
    flat = flatten(cascade)
    if any(tensor.kind != "einsum" and tensor.kind != "input" for tensor in flat.tensors):
        return None
    rank = _longest(flat, bind(cascade, sizes, params).extents)
    if rank is None:
        return None
    from ..einsum.rewrite.check import compare
    from ..einsum.rewrite.cost import count, scalars
    from ..einsum.rewrite.inline import inline
    from ..einsum.rewrite.reassociation import reassociation

    sized = given(read.cascade if (read := inline(flat)) else flat, sizes)  # through copies
    known = scalars(sized, rank)
    found = reassociation(sized, rank, known)
    if not found.steps:
        return None
    before, after = count(sized, known), count(found.cascade, scalars(found.cascade, rank, known))
    if after * SAVED > before:
        return None
    try:
        compare(flat, found.cascade, rank)
    except EinsmithError:
        return None  # it leaves the range of numbers
    return Fewer(found.cascade, f"contractions in another order: {after:.3g} operations instead of {before:.3g}")


def _longest(flat: Cascade, extents: Mapping[str, int]) -> str | None:
    """The longest rank that is summed, such as that of the keys."""
    summed = [rank for e in flat.einsums if isinstance(e.body, Reduce) and e.body.op == "sum" for rank in e.body.ranks]
    whole = [name for name in summed if flat.rank(name).split is None and flat.rank(name).part_of is None]
    return max(whole, key=lambda name: extents.get(name, 0), default=None)
