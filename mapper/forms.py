"""Forms of a cascade that kernels can follow, each the same function: the planner takes the one that it predicts to be fastest.

In: a cascade as the user wrote it. Out: first the form closest to it, in which ranks that are always reduced together are one
(`joined`); then with windows as masks over keys (`windows`).
"""

from __future__ import annotations

from ..einsum.cascade import Cascade, Reduce, accesses, free_ranks
from .joined import joined
from .prepare import prepared
from .windows import over_keys


def forms(cascade: Cascade) -> tuple[Cascade, ...]:
    """The forms, each once."""
    plain = prepared(cascade)
    return tuple(dict.fromkeys((joined(plain), joined(over_keys(plain)))))


def contracted(cascade: Cascade) -> int:
    """Sums of products of two tensors or more along what they sum over: those that may be matrix products."""
    return sum(
        isinstance(e.body, Reduce)
        and e.body.op == "sum"
        and sum(1 for access in accesses(e.body) if free_ranks(access) & set(e.body.ranks)) > 1
        for e in cascade.einsums
    )
