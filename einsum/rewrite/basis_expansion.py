"""Basis expansion: a sum whose terms are finitely many products a_i(x) * b_i(g) becomes as many sums of the a_i.

before    Y[p] = sum[m]((X[p,m] - G[p]) * W[p,m])        (G complete in m)
after     Y_1[p] = sum[m](X[p,m] * W[p,m])
          Y_2[p] = sum[m](W[p,m])
          Y[p]   = Y_1[p] - Y_2[p] * G[p]

Each term's sum is then free of G. Terms without such a factor part where they depend on different complete values, so that each
may run beside its own: sum((exp(X - G) + eps) * W) = sum(exp(X - G) * W) + eps * sum(W). Products of differences are refused where
`running_moments` applies: raw moments cancel where the offset is large.
"""

from __future__ import annotations

from ..cascade import Cascade, Reduce, free_ranks
from .basis import TINY, distribute, terms
from .fiber import Fiber
from .identities import tiny_power
from .moments import moments
from .separate import Obstacle
from .step import Refused, Rewritten, Step, shown, text

NAME = "basis-expansion"


def basis_expansion(cascade: Cascade, target: str, rank: str) -> Rewritten | Refused | None:
    """Split the sum that defines `target` into sums that depend on fewer complete values."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op not in ("sum", "mean"):
        return None
    einsum, reduce = definitions[0], definitions[0].body
    fiber = Fiber(cascade, rank)
    if not fiber.completes(einsum) or not fiber.complete(reduce.body):
        return None
    found = terms(reduce.body, fiber)
    if len(found) < 2:
        return None
    degree = max(term.opened for term in found)
    if degree > 1 and not isinstance(moments(reduce.body, "sum", frozenset(reduce.ranks), fiber, proven=True), Obstacle):
        return Refused(NAME, target, reduce.body, "sums of powers cancel: moments about the running value are kept instead")
    for term in found:
        if (tiny := tiny_power(term.denominator, fiber)) is not None:
            return Refused(NAME, target, tiny, TINY)
    if inside := next((term.factor for term in found if free_ranks(term.factor) & frozenset(reduce.ranks)), None):
        return Refused(NAME, target, inside, "the factor depends on a rank that is summed")
    after, new = distribute(cascade, einsum, found, tuple(f"{target}_{i + 1}" for i in range(len(found))), rank)
    factors = ", ".join(f"`{text(term.factor)}`" for term in found if term.leaves)
    rule = f"{reduce.op}(a1*b1 + a2*b2 + ...) = {reduce.op}(a1)*b1 + {reduce.op}(a2)*b2 + ..."
    free = f"the factors {factors} do not depend on {', '.join(f'`{r}`' for r in reduce.ranks)}"
    condition = f"{free if factors else 'the terms depend on different complete values'}; {len(found)} terms"
    step = Step(NAME, target, shown([einsum], cascade), rule, condition, shown(new, after))
    return Rewritten(after, step)
