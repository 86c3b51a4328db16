"""Hoisting: a factor that does not depend on the reduced rank multiplies once, after the reduction.

before    Y[p] = sum[m](X[p,m] * G[p])        (G complete in m)
after     Y_core[p] = sum[m](X[p,m])
          Y[p]      = Y_core[p] * G[p]

Out of a max or a min only factors that are known to be >= 0 may leave.
"""

from __future__ import annotations

from ..cascade import Cascade
from .basis import leaving_factor
from .step import Refused, Rewritten, text

NAME = "hoist-factor"


def hoist_factor(cascade: Cascade, target: str, rank: str) -> Rewritten | Refused | None:
    """Move complete factors out of the reduction that defines `target`."""
    found = leaving_factor(NAME, cascade, target, rank)
    if found is None or isinstance(found, Refused):
        return found
    if not found.term.numerator:
        return None
    return found.apply(
        name=f"{target}_core",
        rule=f"{found.op}(a * b) = {found.op}(a) * b",
        condition=f"`{text(found.term.factor)}` does not depend on {found.reduced}{found.sign_condition}",
    )
