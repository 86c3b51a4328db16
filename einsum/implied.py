"""Sums that the language implies: a rank on the right alone is summed where the right-hand side is a product or quotient.

In: the right-hand side and such a rank. Out: a term that the sum would count again for every position of the rank, or None. In
(A[p,m] + B[p]) / D[p] the sum over m would add up M copies of B[p], which hardly anyone means: there the sum must be written.
A term that reads no tensor, as in (A[p,m] + 1) * 2, is a part of what is summed.
"""

from __future__ import annotations

from .cascade import Expr, Map, accesses, free_ranks


def counted_again(expr: Expr, rank: str) -> Expr | None:
    """A term that reads tensors, without the rank, beside one that has it, under no factor that has it too."""
    while isinstance(expr, Map):
        if expr.op in ("+", "-"):
            for term in expr.args:
                found = counted_again(term, rank) if rank in free_ranks(term) else term
                if found is not None and accesses(found):
                    return found
            return None
        if expr.op not in ("*", "/", "neg"):
            return None
        factors = [factor for factor in expr.args if rank in free_ranks(factor)]
        if len(factors) != 1:
            return None
        expr = factors[0]
    return None
