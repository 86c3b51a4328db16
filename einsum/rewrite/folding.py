"""Folding: an expression of which some parts are known, reduced by the language's rules of 0 and infinity.

In: an expression, and a function that gives the value of a sub-expression where it is known. Out: the folded expression; a constant
where what is known decides: 0 * x is 0, -inf - x is -inf, exp(-inf) is 0. All x that are not known stand for finite values; what
comes out as NaN is left as it stands.
"""

from __future__ import annotations

from collections.abc import Callable

from ..cascade import Access, Cascade, Expr, Map, Number, Reduce, children, rebuild
from .accumulate import IDENTITY
from .algebra import INFINITY, MINUS_INFINITY, ONE, ZERO, is_minus_infinity, is_number
from .signs import Sign, sign


def is_constant(expr: Expr) -> bool:
    return isinstance(expr, Number) or is_minus_infinity(expr)


def _infinite(expr: Expr) -> bool:
    return expr in (INFINITY, MINUS_INFINITY)


def _undefined(op: str, parts: tuple[Expr, ...]) -> bool:
    """Is it NaN?"""
    match op, parts:
        case "+", (a, b):
            return _infinite(a) and _infinite(b) and a != b
        case "-", (a, b):
            return a == b == INFINITY
        case "*", (a, b):
            return (is_number(a, 0) and _infinite(b)) or (is_number(b, 0) and _infinite(a))
        case "/", (a, b):
            return _infinite(a) and _infinite(b)
        case _:
            return False


class Folding:
    """Expressions with some nodes known: 0 * x is 0, -inf - x is -inf, exp(-inf) is 0; x stands for finite values."""

    def __init__(self, cascade: Cascade, known: Callable[[Expr], Expr | None], or_undefined: bool = False) -> None:
        self.cascade, self.known = cascade, known
        self.or_undefined = or_undefined
        """May what is perhaps NaN, or an infinity that no sum comes back from, be taken as what it is otherwise?"""

    def fold(self, expr: Expr) -> Expr:
        known = self.known(expr)
        if known is not None:
            return known
        if isinstance(expr, Access):
            return expr
        parts = tuple(self.fold(part) for part in children(expr))
        match expr:
            case Map(op=op):
                return self._map(op, parts)
            case Reduce(op=op):
                (body,) = parts
                return body if op in IDENTITY and body == IDENTITY[op] else rebuild(expr, parts)
            case _:
                return rebuild(expr, parts)

    def _map(self, op: str, parts: tuple[Expr, ...]) -> Expr:
        match op, parts:
            case _ if not self.or_undefined and _undefined(op, parts):
                return Map(op, parts)
            case "where", (Number(value=value), yes, no):
                return yes if value else no
            case "where", (_, yes, no) if is_constant(yes) and yes == no:
                return yes
            case "and", (a, b) if is_number(a, 0) or is_number(b, 0):
                return ZERO
            case "and", (a, b) if is_number(a, 1) or is_number(b, 1):
                return b if is_number(a, 1) else a
            case "or", (a, b) if is_number(a, 1) or is_number(b, 1):
                return ONE
            case "or", (a, b) if is_number(a, 0) or is_number(b, 0):
                return b if is_number(a, 0) else a
            case "not", (Number(value=value),):
                return ZERO if value else ONE
            case "+", (a, b) if is_number(a, 0) or is_number(b, 0):
                return b if is_number(a, 0) else a
            case "+", (a, b) if is_minus_infinity(a) or is_minus_infinity(b):
                return MINUS_INFINITY
            case "-", (a, b) if is_minus_infinity(a) or is_number(b, float("inf")):
                return MINUS_INFINITY
            case "-", (a, b) if is_number(b, 0):
                return a
            case "*", (a, b) if is_number(a, 0) or is_number(b, 0):
                return ZERO
            case "*", (a, b) if (is_minus_infinity(a) and self._positive(b)) or (is_minus_infinity(b) and self._positive(a)):
                return MINUS_INFINITY
            case "/", (a, _) if is_number(a, 0):
                return ZERO
            case "/", (a, b) if is_minus_infinity(a) and self._positive(b):
                return MINUS_INFINITY
            case "neg", (a,) if is_number(a, 0):
                return ZERO
            case "neg", (a,) if is_minus_infinity(a):
                return INFINITY
            case "exp" | "exp2" | "relu" | "sigmoid" | "softplus", (a,) if is_minus_infinity(a):
                return ZERO
            case "relu" | "abs" | "sqrt" | "tanh" | "sign" | "sin", (a,) if is_number(a, 0):
                return ZERO
            case "**", (a, Number(value=k)) if is_number(a, 0) and k > 0:
                return ZERO
            case "max", (a, b) if is_minus_infinity(a) or is_minus_infinity(b):
                return b if is_minus_infinity(a) else a
            case "min", (a, b) if is_number(a, float("inf")) or is_number(b, float("inf")):
                return b if is_number(a, float("inf")) else a
            case _:
                return Map(op, parts)

    def _positive(self, expr: Expr) -> bool:
        return self.or_undefined or sign(expr, self.cascade) is Sign.POSITIVE
