"""Separation: is f(x, g) the product (or the sum) of a part that moves along the fiber and a part that is complete in it?

In: an expression f under a reduction, and its `Fiber`; x stands for everything that moves, g for everything complete. Out: for
`separate_product`, a `Product` with f = a(x) * b(g); for `separate_sum`, a `Total` with f = u(x) + v(g); or an `Obstacle`: the
smallest sub-expression that could not be separated, and why. The test is structural and sound; `computer_algebra` is asked only
where structure does not decide.

    exp(QK[p,m] - GM[p]) * V[m,f]     a = exp(QK[p,m]) * V[m,f]     b = exp(-GM[p])

Then f(x, g') = f(x, g) * b(g') / b(g), which is all that a running form needs. Part `a` is kept for reports and for guards; it
is never computed where it could leave the range of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cascade import Access, Expr, Map, Number, Reduce, free_ranks
from .algebra import (
    MINUS_INFINITY,
    ONE,
    ZERO,
    add,
    divide,
    is_minus_infinity,
    is_number,
    multiply,
    negate,
    power,
    product,
    same,
    subtract,
)
from .fiber import Fiber
from .signs import Sign, sign


@dataclass(frozen=True)
class Product:
    """f = moving * exp(exponent) * exp2(binary) * product(numerator) / product(denominator); the last three are complete or
    constant."""

    moving: Expr
    exponent: Expr = ZERO
    binary: Expr = ZERO
    numerator: tuple[Expr, ...] = ()
    denominator: tuple[Expr, ...] = ()
    pulled: bool = False
    """Was an exponential or a power of a mixed expression taken apart? Then `moving` alone may leave the range of numbers."""

    @property
    def complete(self) -> Expr:
        """Part b as one expression."""
        top = product(self.numerator)
        if not is_number(self.exponent, 0):
            top = multiply(Map("exp", (self.exponent,)), top)
        if not is_number(self.binary, 0):
            top = multiply(Map("exp2", (self.binary,)), top)
        return divide(top, product(self.denominator)) if self.denominator else top

    @property
    def trivial(self) -> bool:
        return is_number(self.complete, 1)


@dataclass(frozen=True)
class Total:
    """f = moving + complete."""

    moving: Expr
    complete: Expr
    pulled: bool = False


@dataclass(frozen=True)
class Obstacle:
    """What could not be separated."""

    expr: Expr
    reason: str


class _Blocked(Exception):
    def __init__(self, expr: Expr, reason: str) -> None:
        super().__init__(reason)
        self.obstacle = Obstacle(expr, reason)


def separate_product(expr: Expr, fiber: Fiber) -> Product | Obstacle:
    """f = a(x) * b(g), or what stands in the way."""
    try:
        return _Separator(fiber).product(expr)
    except _Blocked as blocked:
        return blocked.obstacle


def separate_sum(expr: Expr, fiber: Fiber) -> Total | Obstacle:
    """f = u(x) + v(g), or what stands in the way."""
    try:
        return _Separator(fiber).total(expr)
    except _Blocked as blocked:
        return blocked.obstacle


@dataclass
class _Separator:
    fiber: Fiber

    def product(self, expr: Expr) -> Product:
        fiber = self.fiber
        if not fiber.complete(expr):
            return Product(expr)
        if not fiber.moves(expr):
            return self._complete_factors(expr)
        match expr:
            case Access():
                inner = fiber.definition(expr)
                if inner is None:
                    raise _Blocked(expr, fiber.why_opaque(expr))
                return self.product(inner)
            case Map(op="*", args=(a, b)):
                return _times(self.product(a), self.product(b))
            case Map(op="/", args=(a, b)):
                return _times(self.product(a), _inverse(self.product(b)))
            case Map(op="neg", args=(a,)):
                inner_product = self.product(a)
                return _with_moving(inner_product, negate(inner_product.moving))
            case Map(op="exp" | "exp2", args=(a,)):
                total = self.total(a)
                opened = Product(Map(expr.op, (total.moving,)), pulled=True)
                return replace(opened, exponent=total.complete) if expr.op == "exp" else replace(opened, binary=total.complete)
            case Map(op="**", args=(a, b)) if not fiber.complete(b) and not fiber.moves(b):
                return self._power(expr, a, b)
            case Map(op="**", args=(a, b)) if not fiber.complete(a) and not fiber.moves(a):
                if sign(a, fiber.cascade) is not Sign.POSITIVE:
                    raise _Blocked(expr, "a power separates in its exponent only over a positive base")
                total = self.total(b)
                return Product(power(a, total.moving), multiply(total.complete, Map("log", (a,))), pulled=True)
            case Map(op="sqrt" | "rsqrt", args=(a,)):
                half = Number(0.5) if expr.op == "sqrt" else negate(Number(0.5))
                return self._power(expr, a, half)
            case Map(op="abs", args=(a,)):
                inner_product = self._inside(expr, a)
                absolute = tuple(Map("abs", (part,)) for part in inner_product.numerator)
                under = tuple(Map("abs", (part,)) for part in inner_product.denominator)
                moving = Map("abs", (inner_product.moving,))
                return replace(inner_product, moving=moving, numerator=absolute, denominator=under)
            case Map(op="relu", args=(a,)):
                inner_product = self._inside(expr, a)
                self._factor_non_negative(inner_product, expr)
                return _with_moving(inner_product, Map("relu", (inner_product.moving,)))
            case Map(op="min" | "max", args=(a, b)):
                merged = self._common((a, b), expr)
                self._factor_non_negative(merged[0], expr)
                return _with_moving(merged[0], Map(expr.op, tuple(part.moving for part in merged)))
            case Map(op="+" | "-", args=(a, b)):
                return self._sum_of_products(expr, a, b)
            case Map(op="where", args=(condition, yes, no)):
                if fiber.complete(condition):
                    raise _Blocked(expr, "which branch is taken depends on a complete value")
                merged = self._common((yes, no), expr)
                return _with_moving(merged[0], Map("where", (condition, merged[0].moving, merged[1].moving)))
            case Reduce(op="sum" | "mean" | "max" | "min", ranks=ranks, body=body):
                inner_product = self.product(body)
                if free_ranks(inner_product.complete) & frozenset(ranks):
                    raise _Blocked(expr, "the complete factor depends on a rank that is reduced inside")
                if expr.op in ("max", "min"):
                    self._factor_non_negative(inner_product, expr)
                return _with_moving(inner_product, Reduce(expr.op, ranks, inner_product.moving))
            case Map(op=op):
                raise _Blocked(expr, f"`{op}` of something that moves and something complete is not a product of the two")
            case _:
                raise _Blocked(expr, "it does not separate")

    def _inside(self, expr: Expr, inner: Expr) -> Product:
        """The product inside a map operation that passes factors on; of a sum, the operation itself is what blocks."""
        try:
            return self.product(inner)
        except _Blocked:
            if not isinstance(inner, Map) or inner.op not in ("+", "-"):
                raise
            op = expr.op if isinstance(expr, Map) else "a power"
            raise _Blocked(expr, f"`{op}` of something that moves and something complete is not a product of the two") from None

    def _complete_factors(self, expr: Expr) -> Product:
        match expr:
            case Map(op="*", args=(a, b)):
                return _times(self._complete_factors(a), self._complete_factors(b))
            case Map(op="/", args=(a, b)):
                return _times(self._complete_factors(a), _inverse(self._complete_factors(b)))
            case Map(op="exp", args=(a,)):
                return Product(ONE, a)
            case Map(op="exp2", args=(a,)):
                return Product(ONE, binary=a)
            case Number(value=1):
                return Product(ONE)
            case _:
                return Product(ONE, numerator=(expr,))

    def _power(self, expr: Expr, base: Expr, exponent: Expr) -> Product:
        inner = self._inside(expr, base)
        whole = isinstance(exponent, Number) and exponent.value == int(exponent.value)
        if not whole:
            self._factor_non_negative(inner, expr)
        downward = isinstance(exponent, Map) and exponent.op == "neg"
        height = exponent.args[0] if isinstance(exponent, Map) and downward else exponent
        above = tuple(power(part, height) for part in inner.numerator)
        below = tuple(power(part, height) for part in inner.denominator)
        return Product(
            power(inner.moving, exponent),
            multiply(inner.exponent, exponent) if not is_number(inner.exponent, 0) else ZERO,
            multiply(inner.binary, exponent) if not is_number(inner.binary, 0) else ZERO,
            below if downward else above,
            above if downward else below,
            pulled=True,
        )

    def _sum_of_products(self, expr: Map, a: Expr, b: Expr) -> Product:
        left, right = self.product(a), self.product(b)
        if same(left.complete, right.complete):
            combined = add(left.moving, right.moving) if expr.op == "+" else subtract(left.moving, right.moving)
            return _with_moving(_merge(left, right), combined)
        if same(left.moving, right.moving) and not (left.pulled or right.pulled):
            both = add(left.complete, right.complete) if expr.op == "+" else subtract(left.complete, right.complete)
            return Product(left.moving, numerator=(both,))
        if self.fiber.moves(a) and self.fiber.moves(b):
            raise _Blocked(expr, "the two terms do not share one complete factor")
        raise _Blocked(expr, "a sum of something that moves and something complete is not a product of the two")

    def _common(self, parts: tuple[Expr, Expr], whole: Expr) -> tuple[Product, Product]:
        """Both parts with the same complete factor; a zero takes any factor."""
        if is_number(parts[0], 0):
            other = self.product(parts[1])
            return _with_moving(other, ZERO), other
        if is_number(parts[1], 0):
            other = self.product(parts[0])
            return other, _with_moving(other, ZERO)
        left, right = self.product(parts[0]), self.product(parts[1])
        if not same(left.complete, right.complete):
            raise _Blocked(whole, "its branches do not share one complete factor")
        return _merge(left, right), right

    def _factor_non_negative(self, inner: Product, whole: Expr) -> None:
        for part in (*inner.numerator, *inner.denominator):
            if not sign(part, self.fiber.cascade).non_negative:
                raise _Blocked(whole, "taking a factor out of it needs a factor known to be >= 0")

    def total(self, expr: Expr) -> Total:
        fiber = self.fiber
        if not fiber.complete(expr):
            return Total(expr, ZERO)
        if not fiber.moves(expr):
            return Total(ZERO, expr)
        match expr:
            case Access():
                inner = fiber.definition(expr)
                if inner is None:
                    raise _Blocked(expr, fiber.why_opaque(expr))
                return self.total(inner)
            case Map(op="+", args=(a, b)):
                left, right = self.total(a), self.total(b)
                return Total(add(left.moving, right.moving), add(left.complete, right.complete), left.pulled or right.pulled)
            case Map(op="-", args=(a, b)):
                left, right = self.total(a), self.total(b)
                moving, complete = subtract(left.moving, right.moving), subtract(left.complete, right.complete)
                return Total(moving, complete, left.pulled or right.pulled)
            case Map(op="neg", args=(a,)):
                inner_total = self.total(a)
                return Total(negate(inner_total.moving), negate(inner_total.complete), inner_total.pulled)
            case Map(op="*" | "/", args=(a, b)):
                return self._scaled(expr, a, b)
            case Map(op="where", args=(condition, yes, no)) if not fiber.complete(condition):
                for branch, other in ((yes, no), (no, yes)):
                    if is_minus_infinity(other):
                        inner_total = self.total(branch)
                        pair = (inner_total.moving, MINUS_INFINITY)
                        yes_first = pair if branch is yes else pair[::-1]
                        return Total(Map("where", (condition, *yes_first)), inner_total.complete, inner_total.pulled)
                left, right = self.total(yes), self.total(no)
                if not same(left.complete, right.complete):
                    raise _Blocked(expr, "its branches do not share one complete term")
                return Total(Map("where", (condition, left.moving, right.moving)), left.complete)
            case Map(op="min" | "max", args=(a, b)):
                left, right = self.total(a), self.total(b)
                if not same(left.complete, right.complete):
                    raise _Blocked(expr, "its arguments do not share one complete term")
                return Total(Map(expr.op, (left.moving, right.moving)), left.complete)
            case Map(op="log", args=(a,)):
                return self._log(expr, a)
            case Reduce(op="max" | "min", ranks=ranks, body=body):
                inner_total = self.total(body)
                if free_ranks(inner_total.complete) & frozenset(ranks):
                    raise _Blocked(expr, "the complete term depends on a rank that is reduced inside")
                return Total(Reduce(expr.op, ranks, inner_total.moving), inner_total.complete)
            case Map(op=op):
                raise _Blocked(expr, f"`{op}` of something that moves and something complete is not a sum of the two")
            case _:
                raise _Blocked(expr, "it does not separate")

    def _scaled(self, expr: Map, a: Expr, b: Expr) -> Total:
        """A sum times (or over) something that neither moves nor is complete."""
        fiber = self.fiber
        constant = [not fiber.moves(part) and not fiber.complete(part) for part in (a, b)]
        if expr.op == "*" and constant[0]:
            inner = self.total(b)
            return Total(multiply(a, inner.moving), _scale(inner.complete, a, True), inner.pulled)
        if constant[1]:
            inner = self.total(a)
            if expr.op == "*":
                return Total(multiply(inner.moving, b), _scale(inner.complete, b, True), inner.pulled)
            return Total(divide(inner.moving, b), _scale(inner.complete, b, False), inner.pulled)
        raise _Blocked(expr, "a product of something that moves and something complete is not a sum of the two")

    def _log(self, expr: Expr, inner: Expr) -> Total:
        """log(exp(u) * w * b) = u + log(w) + log(b)."""
        found = self.product(inner)
        self._factor_non_negative(found, expr)
        moving = logarithm(found.moving)
        complete = add(found.exponent, multiply(found.binary, Map("log", (Number(2),))) if not is_number(found.binary, 0) else ZERO)
        for part in found.numerator:
            complete = add(complete, Map("log", (part,)))
        for part in found.denominator:
            complete = subtract(complete, Map("log", (part,)))
        return Total(moving, complete, found.pulled)


def logarithm(expr: Expr) -> Expr:
    """log(expr) with exponentials opened."""
    match expr:
        case Map(op="exp", args=(a,)):
            return a
        case Map(op="*", args=(a, b)):
            return add(logarithm(a), logarithm(b))
        case Number(value=1):
            return ZERO
        case _:
            return Map("log", (expr,))


def _scale(expr: Expr, by: Expr, times: bool) -> Expr:
    if is_number(expr, 0):
        return expr
    return multiply(expr, by) if times else divide(expr, by)


def _with_moving(found: Product, moving: Expr) -> Product:
    return replace(found, moving=moving)


def _merge(a: Product, b: Product) -> Product:
    return replace(a, pulled=a.pulled or b.pulled)


def _times(a: Product, b: Product) -> Product:
    return Product(
        multiply(a.moving, b.moving),
        add(a.exponent, b.exponent),
        add(a.binary, b.binary),
        a.numerator + b.numerator,
        a.denominator + b.denominator,
        a.pulled or b.pulled,
    )


def _inverse(a: Product) -> Product:
    return Product(divide(ONE, a.moving), negate(a.exponent), negate(a.binary), a.denominator, a.numerator, a.pulled)
