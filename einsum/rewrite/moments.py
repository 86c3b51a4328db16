"""Moments: f = w * (u_1 + v_1)^k_1 * (u_2 + v_2)^k_2 ..., the u moving, the v complete, w rescalable.

In: the body of a sum and its `Fiber`. Out: `Moments`, or the sub-expression that is neither a factor that separates nor a power
of a
sum that does.

    SN[p,m] * (V[m,f] - MU[p,f]) ** 2        w = SN[p,m]        u = V[m,f]    v = -MU[p,f]    k = 2
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cascade import Access, Expr, Map, Number, free_ranks
from .algebra import ONE, ZERO, canonical, divide, is_number, multiply, negate
from .fiber import Fiber
from .identities import finite_start, infinite
from .running_rescale import rescalable
from .separate import Obstacle, Product, Total, separate_product, separate_sum

MAX_STATES = 8
"""Lower moments that one reduction may need, itself included."""


@dataclass(frozen=True)
class Power:
    """(u + v) ** exponent; `base` is u + v as written."""

    base: Expr
    total: Total
    exponent: int


@dataclass(frozen=True)
class Moments:
    """weight * product of powers, or 0 where `mask` is false; `factors` are those of the weight."""

    weight: Expr
    factors: Product
    powers: tuple[Power, ...]
    mask: Expr | None = None

    def masked(self, body: Expr) -> Expr:
        return body if self.mask is None else Map("where", (self.mask, body, ZERO))


def moments(expr: Expr, op: str, bound: frozenset[str], fiber: Fiber, proven: bool = False) -> Moments | Obstacle:
    """The decomposition of the body of a reduction `op` over `bound`."""
    if op != "sum":
        return Obstacle(expr, f"moments are of sums, not of a {op}")
    weight: Expr = ONE
    found: dict[object, Power] = {}
    mask, inside = _mask(expr, fiber)
    for factor, exponent in _factors(inside, fiber):
        separated = separate_product(factor, fiber)
        if isinstance(separated, Product):
            weight = _raised(weight, factor, exponent)
            continue
        total = separate_sum(factor, fiber)
        if isinstance(total, Obstacle) or exponent < 1:
            return separated
        if free_ranks(total.complete) & bound:
            return Obstacle(factor, "the complete term depends on another rank that is reduced")
        key = canonical(factor)
        exponent += found[key].exponent if key in found else 0
        found[key] = Power(factor, total, exponent)
    factors = rescalable(weight, "sum", bound, fiber, proven)
    if isinstance(factors, Obstacle):
        return factors
    unseen = infinite(factors.complete, fiber)  # while these have their identities, nothing has weight
    for power in found.values():
        if not proven and not finite_start(power.total.complete, fiber) and not infinite(power.total.complete, fiber) <= unseen:
            return Obstacle(power.base, "the difference is infinite while nothing has been seen")
    states = 1
    for power in found.values():
        states *= power.exponent + 1
    if not found or states > MAX_STATES:
        return Obstacle(expr, f"it needs {states} moments" if found else "it has no power of a sum")
    return Moments(weight, factors, tuple(found.values()), mask)


def _mask(expr: Expr, fiber: Fiber) -> tuple[Expr | None, Expr]:
    """(c, f) of where(c, f, 0), c free of complete values."""
    match expr:
        case Access() if fiber.mixed(expr) and (inner := fiber.definition(expr)) is not None:
            mask, inside = _mask(inner, fiber)
            return (None, expr) if mask is None else (mask, inside)
        case Map(op="where", args=(condition, yes, no)) if is_number(no, 0) and not fiber.complete(condition):
            return condition, yes
        case _:
            return None, expr


def _factors(expr: Expr, fiber: Fiber) -> list[tuple[Expr, int]]:
    """Factors and their whole powers; opened only where the factor as it is does not separate."""
    if not fiber.mixed(expr) or isinstance(separate_product(expr, fiber), Product):
        return [(expr, 1)]
    match expr:
        case Map(op="*", args=(a, b)):
            return _factors(a, fiber) + _factors(b, fiber)
        case Map(op="/", args=(a, b)):
            return _factors(a, fiber) + [(part, -exponent) for part, exponent in _factors(b, fiber)]
        case Map(op="neg", args=(a,)):
            return [(negate(ONE), 1), *_factors(a, fiber)]
        case Map(op="**", args=(a, Number(value=int() as k))):
            return [(part, exponent * k) for part, exponent in _factors(a, fiber)]
        case Access():
            inner = fiber.definition(expr)
            if inner is None:
                return [(expr, 1)]
            opened = _factors(inner, fiber)
            return [(expr, 1)] if opened == [(inner, 1)] else opened
        case _:
            return [(expr, 1)]


def _raised(weight: Expr, factor: Expr, exponent: int) -> Expr:
    if exponent == 1:
        return multiply(weight, factor)
    if exponent == -1:
        return divide(weight, factor)
    return multiply(weight, Map("**", (factor, Number(exponent) if exponent >= 0 else negate(Number(-exponent)))))
