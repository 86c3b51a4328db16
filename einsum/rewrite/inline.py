"""Inline: an Einsum that only passes on one element of another tensor is read through.

before    GM[p]   = GM_run[p,M1]
          Y[p]    = log(SD[p]) + GM[p]
after     Y[p]    = log(SD[p]) + GM_run[p,M1]

Outputs keep their Einsum. What computes something is not inlined: it would be computed once a reader.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, substitute, transform
from .step import Rewritten, Step, reordered, shown

NAME = "inline"


def inline(cascade: Cascade) -> Rewritten | None:
    """Read through all Einsums that only pass on an element."""
    copies = {einsum.output: einsum for einsum in cascade.einsums if _passes_on(einsum, cascade)}
    if not copies:
        return None

    def through(node: Expr) -> Expr:
        if not isinstance(node, Access) or node.tensor not in copies:
            return node
        copy = copies[node.tensor]
        ranks = [index.rank for index in copy.indices if isinstance(index, Coord)]
        return transform(substitute(copy.body, dict(zip(ranks, node.indices, strict=True))), through)

    kept = tuple(
        replace(einsum, body=transform(einsum.body, through), indices=tuple(transform(index, through) for index in einsum.indices))
        for einsum in cascade.einsums
        if einsum.output not in copies
    )
    changed = [
        (old, new) for old, new in zip([e for e in cascade.einsums if e.output not in copies], kept, strict=True) if old != new
    ]
    after = reordered(replace(cascade, einsums=kept))
    step = Step(
        NAME,
        ", ".join(copies),
        shown([*copies.values(), *(old for old, _ in changed)], cascade),
        "equals for equals",
        "the Einsum passes on one element and is no output",
        shown([new for _, new in changed], after),
    )
    return Rewritten(after, step)


def _passes_on(einsum: Einsum, cascade: Cascade) -> bool:
    """A copy of a state's position, or of a tensor at plain coordinates: an element that is picked keeps its Einsum."""
    tensor, body = cascade.tensor(einsum.output), einsum.body
    if tensor.kind != "einsum" or einsum.output in cascade.outputs or not isinstance(body, Access):
        return False
    source = cascade.tensor(body.tensor)
    plain = source.kind == "state" or all(isinstance(index, Coord) for index in body.indices)
    return plain and source.dtype == tensor.dtype
