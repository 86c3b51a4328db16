"""Which values are never negative, and which are positive: the assumptions that some rewrites need.

In: an expression and its cascade. Out: a `Sign`. Definitions are followed through tensors; extents are at least 1; inputs may
have any sign. `ANY` means nothing is known.
"""

from __future__ import annotations

from enum import Enum

from ..cascade import Access, Cascade, Coord, Expr, Map, Number, Reduce, Scalar, Scan


class Sign(Enum):
    POSITIVE = "> 0"
    NON_NEGATIVE = ">= 0"
    ANY = "any"

    @property
    def non_negative(self) -> bool:
        return self is not Sign.ANY


_NON_NEGATIVE_OPS = frozenset({"sqrt", "abs", "relu", "softplus", "exp", "exp2", "sigmoid", "rsqrt"})
"""Positive at every finite argument; 0 may still appear at -inf or by underflow, so these count as non-negative only."""


def sign(expr: Expr, cascade: Cascade, following: frozenset[str] = frozenset()) -> Sign:
    """What is known of the sign of `expr`. `following`: tensors assumed non-negative (a state while its step is looked at)."""

    def of(inner: Expr) -> Sign:
        return sign(inner, cascade, following)

    match expr:
        case Number(value=value):
            return Sign.POSITIVE if value > 0 else Sign.NON_NEGATIVE
        case Scalar(name=name):
            params = dict(cascade.params)
            return of(params[name]) if name in params else Sign.POSITIVE
        case Coord():
            return Sign.NON_NEGATIVE
        case Map(op="+" | "min", args=(a, b)):
            return _weakest(of(a), of(b)) if expr.op == "min" else _total(of(a), of(b))
        case Map(op="max", args=(a, b)):
            return _strongest(of(a), of(b))
        case Map(op="*", args=(a, b)) if a == b:
            return Sign.POSITIVE if of(a) is Sign.POSITIVE else Sign.NON_NEGATIVE
        case Map(op="*" | "/", args=(a, b)):
            return _weakest(of(a), of(b))
        case Map(op="**", args=(a, Number(value=k))) if k == int(k) and int(k) % 2 == 0:
            return Sign.POSITIVE if of(a) is Sign.POSITIVE else Sign.NON_NEGATIVE
        case Map(op="**", args=(a, _)):
            return of(a)
        case Map(op="where", args=(_, yes, no)):
            return _weakest(of(yes), of(no))
        case Map(op="sqrt" | "rsqrt" | "abs", args=(a,)) if of(a) is Sign.POSITIVE:
            return Sign.POSITIVE
        case Map(op=op) if op in _NON_NEGATIVE_OPS or op in ("<", "<=", ">", ">=", "==", "!=", "and", "or", "not"):
            return Sign.NON_NEGATIVE
        case Reduce(op="sum" | "mean" | "max" | "min" | "prod", body=body) | Scan(op="cumsum" | "cumprod" | "cummax", body=body):
            inner = of(body)
            # an empty max is -inf and an empty sum 0: only the weaker fact survives, and for max only if the rank is not empty
            return Sign.NON_NEGATIVE if inner.non_negative else Sign.ANY
        case Reduce(op="any" | "all" | "argmax" | "argmin"):
            return Sign.NON_NEGATIVE
        case Access(tensor=tensor):
            return Sign.NON_NEGATIVE if tensor in following else _of_tensor(tensor, cascade, following)
        case _:
            return Sign.ANY


def _of_tensor(tensor: str, cascade: Cascade, following: frozenset[str]) -> Sign:
    """The sign of all elements; worked out once, as one tensor may be reached in exponentially many ways."""
    key = ("sign", tensor, following)
    known = cascade.memo.get(key)
    if isinstance(known, Sign):
        return known
    declared = cascade.tensor(tensor)
    bodies = [einsum.body for einsum in cascade.definitions(tensor)]
    result = Sign.ANY
    if declared.kind in ("einsum", "state") and bodies:
        inside = following | {tensor} if declared.kind == "state" else following
        result = Sign.POSITIVE if declared.kind == "einsum" else Sign.NON_NEGATIVE
        for body in bodies:
            result = _weakest(result, sign(body, cascade, inside))
    cascade.memo[key] = result
    return result


def _weakest(a: Sign, b: Sign) -> Sign:
    order = (Sign.POSITIVE, Sign.NON_NEGATIVE, Sign.ANY)
    return max(a, b, key=order.index)


def _strongest(a: Sign, b: Sign) -> Sign:
    order = (Sign.POSITIVE, Sign.NON_NEGATIVE, Sign.ANY)
    return min(a, b, key=order.index)


def _total(a: Sign, b: Sign) -> Sign:
    if Sign.ANY in (a, b):
        return Sign.ANY
    return _strongest(a, b)
