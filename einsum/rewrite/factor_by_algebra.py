"""Factoring by computer algebra: a factor that is there, though the sum is not written as a product.

before    Y[p] = sum[m](X[p,m] * W[p,m] * G[p] + X[p,m] * W[p,m] - X[p,m] * G[p] - X[p,m])        (G complete in m)
after     Y_core[p] = sum[m](X[p,m] * (W[p,m] - 1))
          Y[p]      = Y_core[p] * (G[p] + 1)

Asked only where structure finds neither a factor nor a running form, and no numbers refute that there is one.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Cascade, Reduce, free_ranks
from .basis import LeavingFactor
from .computer_algebra import counterexample, factored
from .fiber import Fiber
from .identities import tiny_power
from .moments import moments
from .separate import Obstacle, separate_product
from .step import Rewritten, text

NAME = "factor-by-algebra"


def factor_by_algebra(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """Move a complete factor that sympy finds out of the sum that defines `target`."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op not in ("sum", "mean"):
        return None
    einsum, reduce = definitions[0], definitions[0].body
    fiber, bound = Fiber(cascade, rank), frozenset(reduce.ranks)
    if not fiber.completes(einsum) or not fiber.mixed(reduce.body):
        return None
    structural = (separate_product(reduce.body, fiber), moments(reduce.body, "sum", bound, fiber))
    if not all(isinstance(each, Obstacle) for each in structural) or counterexample(reduce.body, fiber) is not None:
        return None
    term = factored(reduce.body, fiber)
    if term is None or free_ranks(term.factor) & bound or tiny_power(term.denominator, fiber) is not None:
        return None
    found = LeavingFactor(NAME, cascade, replace(einsum, body=reduce), term, "", rank)
    return found.apply(
        name=f"{target}_core",
        rule=f"{reduce.op}(a * b) = {reduce.op}(a) * b",
        condition=f"the body equals `{text(term.stays)}` times `{text(term.factor)}`, by computer algebra, and the second does "
        f"not depend on {found.reduced}",
    )
