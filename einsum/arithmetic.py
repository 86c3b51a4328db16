"""Arithmetic of the language on numpy arrays.

In: an operation of `MAP_OPS` and its arguments as arrays of one of the three element types (float64, int64, bool) that broadcast
against one another; `active`, where their elements count (None: everywhere). Out: the array of results.

Floats are IEEE float64 with two exceptions, `-inf - (-inf) = -inf` and `0 / 0 = 0`, which make masks safe. Integers are exact:
a result outside 64 bits is refused. What inactive elements hold has no meaning and never raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class Fault(Exception):
    """An element has no value: the code and message of the diagnostic, and where (an array of bool), if that is known."""

    def __init__(self, code: str, message: str, where: Array | None = None, help: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.where, self.help = code, message, where, help


def apply(op: str, args: tuple[Array, ...], active: Array | None = None) -> Array:
    """The element-wise operation `op`, `where` apart (it is lazy, so it belongs to the interpreter).

    numpy's warnings about infinities and NaN are the caller's to silence.
    """
    if op in _INT_OR_FLOAT:
        numbers = [_number(arg) for arg in args]
        if all(number.dtype == np.int64 for number in numbers):
            return _INTEGER[op](*numbers, active)
        return _FLOATING[op](*(as_float(number) for number in numbers), active)
    if op in _COMPARE:
        return _COMPARE[op](*args)
    if op in _LOGIC:
        return _LOGIC[op](*(truth(arg) for arg in args))
    return _REAL[op](*(as_float(arg) for arg in args))


def truth(values: Array) -> Array:
    """Is it not zero? (NaN is not zero.)"""
    return values if values.dtype == np.bool_ else values != 0


def as_float(values: Array) -> Array:
    return values if values.dtype == np.float64 else values.astype(np.float64)


def _number(values: Array) -> Array:
    return values.astype(np.int64) if values.dtype == np.bool_ else values


def any_active(where: Array, active: Array | None) -> bool:
    """Does `where` hold at an element that counts?"""
    return bool(where.any()) if active is None else bool(where.any() and (where & active).any())


# --- integers ---------------------------------------------------------------------------------------------------------


def limits(values: Array) -> tuple[int, int]:
    """Least and greatest element, as exact integers; (0, 0) of nothing."""
    return (int(values.min()), int(values.max())) if values.size else (0, 0)


def _exact(op: Callable[[Any, Any], Any], corners: Callable[..., Iterable[int]]) -> Callable[..., Array]:
    """An integer operation that is done in 64 bits where the bounds of its arguments show that it fits, else with big integers."""

    def operation(a: Array, b: Array, active: Array | None) -> Array:
        if all(INT_MIN <= corner <= INT_MAX for corner in corners(*limits(a), *limits(b))):
            return np.asarray(op(a, b))
        return narrowed(np.asarray(op(a.astype(object), b.astype(object)), dtype=object), active)

    return operation


def narrowed(exact: Array, active: Array | None) -> Array:
    """Big integers as int64; refused where an element that counts does not fit."""
    outside = np.asarray((exact < INT_MIN) | (exact > INT_MAX), dtype=bool)
    if any_active(outside, active):
        raise Fault("E321", "an integer leaves the 64-bit range", outside if active is None else outside & active)
    return np.where(outside, 0, exact).astype(np.int64)


def _divisor(b: Array, active: Array | None, op: str) -> Array:
    zero = b == 0
    if any_active(zero, active):
        raise Fault("E322", f"`{op}` by zero", zero if active is None else zero & active)
    return np.where(zero, 1, b) if zero.any() else b


def _int_floordiv(a: Array, b: Array, active: Array | None) -> Array:
    b = _divisor(b, active, "//")
    if a.size and b.size and int(a.min()) == INT_MIN and bool((b == -1).any()):
        return narrowed(np.asarray(a.astype(object) // b.astype(object), dtype=object), active)
    return np.asarray(np.floor_divide(a, b))


def _int_mod(a: Array, b: Array, active: Array | None) -> Array:
    b = _divisor(b, active, "%")
    return np.asarray(np.where(b == -1, 0, np.mod(a, np.where(b == -1, 1, b))))


def _int_power(a: Array, b: Array, active: Array | None) -> Array:
    """A negative exponent anywhere makes the result a float, as in Python."""
    negative = b < 0
    if any_active(negative, active):
        return _float_power(as_float(a), as_float(b), active)
    b = np.where(negative, 0, b)
    (low, high), (_, most) = limits(a), limits(b)
    base = max(abs(low), abs(high))
    if base <= 1 or most * math.log2(base) < 62:
        return np.asarray(np.power(a, b))
    same = np.where(b > 65, 64 + b % 2, b)  # 0, 1 and -1 to this power are the same; anything else leaves 64 bits either way
    return narrowed(np.asarray(a.astype(object) ** same.astype(object), dtype=object), active)


_INTEGER: dict[str, Callable[..., Array]] = {
    "+": _exact(lambda a, b: a + b, lambda a, b, c, d: (a + c, b + d)),
    "-": _exact(lambda a, b: a - b, lambda a, b, c, d: (a - d, b - c)),
    "*": _exact(lambda a, b: a * b, lambda a, b, c, d: (a * c, a * d, b * c, b * d)),
    "/": lambda a, b, active: _float_divide(as_float(a), as_float(b), active),
    "//": _int_floordiv, "%": _int_mod, "**": _int_power,
    "neg": lambda a, active: _INTEGER["-"](np.zeros_like(a), a, active),
    "abs": lambda a, active: _INTEGER["max"](a, _INTEGER["neg"](a, active), active),
    "min": lambda a, b, active: np.minimum(a, b), "max": lambda a, b, active: np.maximum(a, b),
    "clamp": lambda a, low, high, active: np.minimum(np.maximum(a, low), high),
    "sign": lambda a, active: np.sign(a), "relu": lambda a, active: np.maximum(a, 0),
    "round": lambda a, active: a, "floor": lambda a, active: a, "ceil": lambda a, active: a,
}  # fmt: skip


# --- floats -----------------------------------------------------------------------------------------------------------


def _float_subtract(a: Array, b: Array, active: Array | None) -> Array:
    result = np.asarray(a - b)
    undefined = np.isnan(result)
    if undefined.any():
        result[undefined & (a == -np.inf) & (b == -np.inf)] = -np.inf
    return result


def _float_divide(a: Array, b: Array, active: Array | None) -> Array:
    result = np.asarray(a / b)
    undefined = np.isnan(result)
    if undefined.any():
        result[undefined & (a == 0) & (b == 0)] = 0.0
    return result


def _float_power(a: Array, b: Array, active: Array | None) -> Array:
    return np.asarray(np.power(a, b))


_FLOATING: dict[str, Callable[..., Array]] = {
    "+": lambda a, b, active: a + b, "-": _float_subtract, "*": lambda a, b, active: a * b, "/": _float_divide,
    "//": lambda a, b, active: np.floor_divide(a, _divisor(b, active, "//")),
    "%": lambda a, b, active: np.mod(a, _divisor(b, active, "%")),
    "**": _float_power, "neg": lambda a, active: -a, "abs": lambda a, active: np.abs(a),
    "min": lambda a, b, active: np.minimum(a, b), "max": lambda a, b, active: np.maximum(a, b),
    "clamp": lambda a, low, high, active: np.minimum(np.maximum(a, low), high),
    "sign": lambda a, active: np.sign(a), "relu": lambda a, active: np.maximum(a, 0.0),
    "round": lambda a, active: np.rint(a), "floor": lambda a, active: np.floor(a), "ceil": lambda a, active: np.ceil(a),
}  # fmt: skip
_INT_OR_FLOAT = frozenset(_FLOATING)


def _pointwise(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of Python's `math` on every element, in pieces so that the list of Python floats stays small."""

    def operation(values: Array) -> Array:
        flat = values.ravel()
        result = np.empty(flat.size)
        for start in range(0, flat.size, 2**16):
            piece = flat[start : start + 2**16]
            result[start : start + piece.size] = np.fromiter(map(function, piece.tolist()), np.float64, piece.size)
        return result.reshape(values.shape)

    return operation


_erf, _erfc = _pointwise(math.erf), _pointwise(math.erfc)


def _sigmoid(values: Array) -> Array:
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))


_REAL: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "sqrt": np.sqrt, "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "erf": _erf,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x))),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * _erfc(-x / math.sqrt(2.0)),
}  # fmt: skip

_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip

_LOGIC: dict[str, Callable[..., Array]] = {"and": np.logical_and, "or": np.logical_or, "not": np.logical_not}
