"""Splitting a reduction: over the fiber first, then over the other ranks, so that what is complete for each of those may leave.

before    D[p] = sum[m,e](exp(X[p,m,e] - S[p,e]))        (S complete in m)
after     D_part[p,e] = sum[m](exp(X[p,m,e] - S[p,e]))
          D[p]        = sum[e](D_part[p,e])
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Reduce, Tensor, free_ranks, walk
from .accumulate import COMBINE
from .fiber import Fiber
from .step import Rewritten, Step, coords, fresh, in_order, replaced, shown, taken_names

NAME = "split-reduction"


def split_reduction(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """Reduce the fiber on its own where a complete value depends on another rank that is reduced with it."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op not in COMBINE:
        return None
    einsum, reduce, fiber = definitions[0], definitions[0].body, Fiber(cascade, rank)
    if not fiber.completes(einsum) or not all(isinstance(index, Coord) for index in einsum.indices):
        return None
    along = tuple(r for r in reduce.ranks if r in fiber.ranks)
    others = tuple(r for r in reduce.ranks if r not in fiber.ranks)
    nodes = (node for node in walk(fiber.look_through(reduce.body)) if isinstance(node, Access))
    if not any(fiber.complete(node) and free_ranks(node) & frozenset(others) for node in nodes):
        return None
    part = replace(reduce, ranks=along)
    ranks = in_order(free_ranks(part), cascade)
    name = fresh(f"{target}_part", taken_names(cascade))
    new = (Einsum(name, coords(ranks), part), replace(einsum, body=Reduce(reduce.op, others, Access(name, coords(ranks)))))
    after = replaced(cascade, target, new, (Tensor(name, ranks),))
    rule = (
        f"{reduce.op} over {', '.join(reduce.ranks)} = {reduce.op} over {', '.join(others)} of {reduce.op} over {', '.join(along)}"
    )
    return Rewritten(after, Step(NAME, target, shown([einsum], cascade), rule, f"{reduce.op} is associative", shown(new, after)))
