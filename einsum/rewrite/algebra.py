"""Small algebra on expressions: constructors that fold identities, and a canonical form that decides equality.

The constructors keep what a rewrite builds readable (`0 + x` is `x`, `x / 1` is `x`). `canonical` maps an expression to a
polynomial
in its non-polynomial parts; equal canonical forms mean equal values over the reals. Different forms prove nothing.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

from ..cascade import Access, Coord, Expr, Map, Number, Reduce, Scalar, Scan, Select, fact

ZERO = Number(0)
ONE = Number(1)
INFINITY = Number(float("inf"))
MINUS_INFINITY = Map("neg", (INFINITY,))


def is_number(expr: Expr, value: float) -> bool:
    return isinstance(expr, Number) and expr.value == value


def is_minus_infinity(expr: Expr) -> bool:
    return isinstance(expr, Map) and expr.op == "neg" and is_number(expr.args[0], float("inf"))


def add(a: Expr, b: Expr) -> Expr:
    if is_number(a, 0):
        return b
    if is_number(b, 0):
        return a
    if isinstance(b, Map) and b.op == "neg":
        return Map("-", (a, b.args[0]))
    return Map("+", (a, b))


def subtract(a: Expr, b: Expr) -> Expr:
    if is_number(b, 0):
        return a
    if is_number(a, 0):
        return negate(b)
    if isinstance(b, Map) and b.op == "neg":
        return add(a, b.args[0])
    return Map("-", (a, b))


def negate(a: Expr) -> Expr:
    if is_number(a, 0):
        return a
    if isinstance(a, Map) and a.op == "neg":
        return a.args[0]
    if isinstance(a, Map) and a.op == "-":
        return Map("-", (a.args[1], a.args[0]))
    return Map("neg", (a,))


def multiply(a: Expr, b: Expr) -> Expr:
    if is_number(a, 1):
        return b
    if is_number(b, 1):
        return a
    if isinstance(a, Map) and a.op == "neg":
        return negate(multiply(a.args[0], b))
    if isinstance(b, Map) and b.op == "neg":
        return negate(multiply(a, b.args[0]))
    if isinstance(b, Map) and b.op == "/" and is_number(b.args[0], 1):
        return divide(a, b.args[1])
    return Map("*", (a, b))


def divide(a: Expr, b: Expr) -> Expr:
    if is_number(b, 1):
        return a
    return negate(divide(a.args[0], b)) if isinstance(a, Map) and a.op == "neg" else Map("/", (a, b))


def power(a: Expr, k: Expr) -> Expr:
    return a if is_number(k, 1) else Map("**", (a, k))


def product(factors: tuple[Expr, ...]) -> Expr:
    result: Expr = ONE
    for factor in factors:
        result = multiply(result, factor)
    return result


class Key(tuple[object, ...]):
    """What an atom, or a whole expression, is known by. Keys stand in keys and are compared again and again: hash and text are
    worked out once."""

    @cached_property
    def _hash(self) -> int:
        return tuple.__hash__(self)

    @cached_property
    def _text(self) -> str:
        return tuple.__repr__(self)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self._text


Polynomial: TypeAlias = dict[tuple[tuple[Key, Fraction], ...], Fraction]
"""Monomials (sorted atoms with their powers) and their coefficients."""

MAX_MONOMIALS = 256
"""Beyond this many monomials a product is an atom of its own: equality is then decided less finely."""


def same(a: Expr, b: Expr) -> bool:
    """Equal as real functions, by canonical form. False may mean unknown."""
    return a == b or canonical(a) == canonical(b)


@fact
def canonical(expr: Expr) -> Key:
    """A hashable canonical form."""
    return _freeze(polynomial(expr))


def _freeze(poly: Polynomial) -> Key:
    return Key(sorted(poly.items(), key=repr))


@fact
def polynomial(expr: Expr) -> Polynomial:
    """The expression as a polynomial in atoms; powers may be negative. Nobody changes what is returned."""
    match expr:
        case Number(value=value) if value == value and abs(value) != float("inf"):
            return {(): Fraction(value)} if value else {}
        case Map(op="+", args=(a, b)):
            return _sum(polynomial(a), polynomial(b), 1)
        case Map(op="-", args=(a, b)):
            return _sum(polynomial(a), polynomial(b), -1)
        case Map(op="neg", args=(a,)):
            return _sum({}, polynomial(a), -1)
        case Map(op="*", args=(a, b)):
            left, right = polynomial(a), polynomial(b)
            return _product(left, right) or _atom(expr) if left and right else {}
        case Map(op="/", args=(a, b)):
            inverse = _power(polynomial(b), Fraction(-1))
            return _product(polynomial(a), inverse) or _atom(expr) if polynomial(a) else {}
        case Map(op="**", args=(a, Number(value=int() as k))) if abs(k) <= 8:
            return _power(polynomial(a), Fraction(k))
        case Map(op="rsqrt", args=(a,)):
            return _power(polynomial(Map("sqrt", (a,))), Fraction(-1))
        case _:
            return _atom(expr)


def _atom(expr: Expr) -> Polynomial:
    key: tuple[object, ...]
    match expr:
        case Number(value=value):
            key = ("number", repr(value))
        case Scalar(name=name):
            key = ("scalar", name)
        case Coord(rank=rank):
            key = ("coord", rank)
        case Access(tensor=tensor, indices=indices):
            key = ("access", tensor, *(canonical(index) for index in indices))
        case Map(op=op, args=args):
            parts = [canonical(arg) for arg in args]
            key = ("map", op, *(sorted(parts, key=repr) if op in ("min", "max", "and", "or", "==", "!=") else parts))
        case Reduce(op=op, ranks=ranks, body=body):
            key = ("reduce", op, ranks, canonical(body))
        case Scan(op=op, rank=rank, body=body):
            key = ("scan", op, rank, canonical(body))
        case Select(op=op, rank=rank, fills=fills, body=body):
            key = ("select", op, rank, fills, canonical(body))
    return {((Key(key), Fraction(1)),): Fraction(1)}


def _sum(a: Polynomial, b: Polynomial, sign: int) -> Polynomial:
    result = dict(a)
    for monomial, coefficient in b.items():
        total = result.get(monomial, Fraction(0)) + sign * coefficient
        if total:
            result[monomial] = total
        else:
            result.pop(monomial, None)
    return result


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    """The product; empty if it is zero or would be too long (the caller tells these apart)."""
    if len(a) * len(b) > MAX_MONOMIALS:
        return {}
    result: Polynomial = {}
    for left, x in a.items():
        for right, y in b.items():
            powers: dict[Key, Fraction] = dict(left)
            for key, exponent in right:
                powers[key] = powers.get(key, Fraction(0)) + exponent
            monomial = tuple(sorted(((k, e) for k, e in powers.items() if e), key=repr))
            result = _sum(result, {monomial: x * y}, 1)
    return result


def _power(base: Polynomial, exponent: Fraction) -> Polynomial:
    if len(base) == 1:
        ((monomial, coefficient),) = base.items()
        if exponent.denominator == 1:
            return {tuple((key, e * exponent) for key, e in monomial): coefficient**exponent.numerator}
    if exponent.denominator == 1 and 0 <= exponent <= 4 and len(base) ** int(exponent) <= MAX_MONOMIALS:
        result: Polynomial = {(): Fraction(1)}
        for _ in range(int(exponent)):
            result = _product(result, base)
        return result
    return {((Key(("power", _freeze(base))), exponent),): Fraction(1)}
