"""Deferred division: a divisor that does not depend on the reduced rank divides once, after the reduction.

before    A[p,m]  = SN[p,m] / SD[p]
          AV[p,f] = sum[m](A[p,m] * V[m,f])
after     AV_num[p,f] = sum[m](SN[p,m] * V[m,f])
          AV[p,f]     = AV_num[p,f] / SD[p]
"""

from __future__ import annotations

from ..cascade import Cascade
from .basis import leaving_factor
from .step import Refused, Rewritten, text

NAME = "deferred-division"


def deferred_division(cascade: Cascade, target: str, rank: str) -> Rewritten | Refused | None:
    """Move complete divisors out of the reduction that defines `target`."""
    found = leaving_factor(NAME, cascade, target, rank)
    if found is None or isinstance(found, Refused):
        return found
    if found.term.numerator or not found.term.denominator:
        return None
    divisor = ", ".join(f"`{text(part)}`" for part in found.term.denominator)
    return found.apply(
        name=f"{target}_num",
        rule=f"{found.op}(a / b) = {found.op}(a) / b",
        condition=f"{divisor} does not depend on {found.reduced}{found.sign_condition}; where it is 0, 0/0 = 0 on both sides",
    )
