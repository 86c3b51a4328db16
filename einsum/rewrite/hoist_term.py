"""Hoisting a term: what is added to every element is added once to their max or min.

before    Y[p] = max[m](X[p,m] - G[p])        (G complete in m)
after     Y_core[p] = max[m](X[p,m])
          Y[p]      = Y_core[p] - G[p]
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Expr, Map, Reduce, Tensor, free_ranks
from ..flatten import flatten
from .algebra import ZERO, add, is_number, negate, subtract
from .fiber import Fiber
from .step import Rewritten, Step, coords, fresh, in_order, replaced, shown, taken_names, text

NAME = "hoist-term"


def hoist_term(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """Move complete terms out of the max or min that defines `target`."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op not in ("max", "min"):
        return None
    einsum, reduce = definitions[0], definitions[0].body
    fiber = Fiber(cascade, rank)
    if not fiber.completes(einsum) or not fiber.complete(reduce.body):
        return None
    stays, leaves = _split(reduce.body, fiber)
    if is_number(leaves, 0) or is_number(stays, 0) or free_ranks(leaves) & frozenset(reduce.ranks):
        return None
    body = replace(reduce, body=stays)
    ranks = in_order(free_ranks(body), cascade)
    name = fresh(f"{target}_core", taken_names(cascade))
    read = Access(name, coords(ranks))
    negative = isinstance(leaves, Map) and leaves.op == "neg"
    total = subtract(read, negate(leaves)) if negative else add(read, leaves)
    new = (replace(einsum, output=name, indices=coords(ranks), body=body), replace(einsum, body=total))
    after = flatten(replaced(cascade, target, new, (Tensor(name, ranks),)))
    step = Step(
        NAME,
        target,
        shown([einsum], cascade),
        f"{reduce.op}(a + b) = {reduce.op}(a) + b",
        f"`{text(leaves)}` does not depend on {', '.join(f'`{r}`' for r in reduce.ranks)}",
        shown(new, after),
    )
    return Rewritten(after, step)


def _split(expr: Expr, fiber: Fiber) -> tuple[Expr, Expr]:
    """(what stays, complete terms that leave)."""
    if not fiber.complete(expr):
        return expr, ZERO
    if not fiber.moves(expr):
        return ZERO, expr
    match expr:
        case Access():
            inner = fiber.definition(expr)
            stays, leaves = _split(inner, fiber) if inner is not None else (expr, ZERO)
            return (expr, ZERO) if is_number(leaves, 0) else (stays, leaves)
        case Map(op="+", args=(a, b)):
            (x, u), (y, v) = _split(a, fiber), _split(b, fiber)
            return add(x, y), add(u, v)
        case Map(op="-", args=(a, b)):
            (x, u), (y, v) = _split(a, fiber), _split(b, fiber)
            return subtract(x, y), subtract(u, v)
        case Map(op="neg", args=(a,)):
            x, u = _split(a, fiber)
            return negate(x), negate(u)
        case _:
            return expr, ZERO
