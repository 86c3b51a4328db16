"""Forms of a cascade that kernels can follow, each the same function: the planner takes the one that it predicts to be fastest.

In: a cascade as the user wrote it. Out: first the form closest to it, in which chains of products are taken two tensors at a time
and ranks that are always reduced together are one (`joined`); then with windows as masks over keys (`windows`).
"""

from __future__ import annotations

from ..einsum.cascade import Access, Cascade, Einsum, Map, Reduce, accesses, free_ranks, walk
from .joined import joined
from .prepare import prepared
from .windows import over_keys


def forms(cascade: Cascade) -> tuple[Cascade, ...]:
    """The forms, each once."""
    plain = in_pairs(prepared(cascade))
    return tuple(dict.fromkeys((joined(plain), joined(over_keys(plain)))))


def in_pairs(cascade: Cascade) -> Cascade:
    """Chains of products in the order that takes the fewest operations, a sum for each product that ends a rank.

    Y[p,f] = A[p,k] * Z[k,l] * B[l,f]        ZB[k,f] = Z[k,l] * B[l,f]
                                             Y[p,f]  = A[p,k] * ZB[k,f]
    """
    chains = [einsum for einsum in cascade.einsums if _is_chain(einsum) and cascade.tensor(einsum.output).kind == "einsum"]
    if not chains:
        return cascade
    from ..einsum.rewrite.cost import sizes_of
    from ..einsum.rewrite.fiber import Fiber
    from ..einsum.rewrite.reassociate import contract
    from ..einsum.rewrite.step import Rewritten

    for einsum in chains:
        assert isinstance(einsum.body, Reduce)
        rank = einsum.body.ranks[0]
        found = contract(cascade, einsum.output, frozenset(), sizes_of(cascade, rank), Fiber(cascade, rank))
        cascade = found.cascade if isinstance(found, Rewritten) else cascade
    return cascade


def _is_chain(einsum: Einsum) -> bool:
    """Is it a sum over several ranks of a product of which no tensor has them all?"""
    body = einsum.body
    if not isinstance(body, Reduce) or body.op != "sum" or len(body.ranks) < 2:
        return False
    if any(isinstance(node, Map) and node.op != "*" for node in walk(body.body)):
        return False
    parts = [set(body.ranks) & free_ranks(node) for node in walk(body.body) if isinstance(node, Access)]
    return sum(1 for part in parts if part) > 2 and all(part != set(body.ranks) for part in parts)


def contracted(cascade: Cascade) -> int:
    """Sums of products of two tensors or more along what they sum over: those that may be matrix products."""
    return sum(
        isinstance(e.body, Reduce)
        and e.body.op == "sum"
        and sum(1 for access in accesses(e.body) if free_ranks(access) & set(e.body.ranks)) > 1
        for e in cascade.einsums
    )
