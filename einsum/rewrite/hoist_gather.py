"""Hoisting a gather: an element that is picked from the fiber is read on its own, before the complete values are there.

before    L[p] = log(SD[p]) + GM[p] - S[p,T[p]]        (SD, GM complete in m, S along m)
after     L_at[p] = S[p,T[p]]
          L[p]    = log(SD[p]) + GM[p] - L_at[p]

Accesses under a `where` stay: read elsewhere they might leave their tensor.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Tensor, children, free_ranks, rebuild
from .fiber import Fiber
from .step import Rewritten, Step, coords, fresh, in_order, replaced, shown, taken_names

NAME = "hoist-gather"


def hoist_gather(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """Read what `target` picks from the fiber in Einsums of their own."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Map) or cascade.tensor(target).kind != "einsum":
        return None
    einsum, fiber = definitions[0], Fiber(cascade, rank)
    if any(fiber.moves(index) for index in einsum.indices) or not fiber.complete(einsum.body):
        return None
    if not all(isinstance(index, Coord) for index in einsum.indices):
        return None
    picked: dict[Access, Access] = {}
    new: list[Einsum] = []
    tensors: list[Tensor] = []
    taken = taken_names(cascade)

    def lifted(expr: Expr) -> Expr:
        if isinstance(expr, Map) and expr.op == "where":
            return expr
        if not isinstance(expr, Access) or not _picks(expr, fiber):
            return rebuild(expr, tuple(lifted(part) for part in children(expr)))
        if expr not in picked:
            ranks = in_order(free_ranks(expr), cascade)
            name = fresh(f"{target}_at", taken)
            tensors.append(Tensor(name, ranks))
            new.append(Einsum(name, coords(ranks), expr))
            picked[expr] = Access(name, coords(ranks))
        return picked[expr]

    body = lifted(einsum.body)
    if not new:
        return None
    new.append(replace(einsum, body=body))
    after = replaced(cascade, target, new, tensors)
    reason = f"it does not depend on what is complete in `{rank}`"
    return Rewritten(after, Step(NAME, target, shown([einsum], cascade), "equals for equals", reason, shown(new, after)))


def _picks(access: Access, fiber: Fiber) -> bool:
    """Does the access read one element along the fiber, free of complete values?"""
    ranks = fiber.cascade.tensor(access.tensor).ranks
    return any(rank in fiber.ranks for rank in ranks) and not fiber.moves(access) and not fiber.complete(access)
