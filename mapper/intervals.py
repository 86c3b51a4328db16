"""Intervals: which positions an expression of coordinates takes over a grid of tiles, and where a condition can hold.

In: an integer or boolean expression and, for each rank, first and last position as arrays over the grid. Out: arrays of bounds, or
of "may be true" and "may be false". Sound: what is ruled out cannot happen. Exact where each rank occurs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import COMPARISONS, Coord, Expr, Map, Number, Scalar

Array = NDArray[Any]
Bounds = tuple[Array, Array]


class NotAffine(Exception):
    """The expression is outside what intervals can say; `what` names the part."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def bounds(expr: Expr, ranks: Mapping[str, Bounds], scalars: Mapping[str, int | float]) -> Bounds:
    """Least and greatest value over each cell of the grid. Raises NotAffine."""
    match expr:
        case Number(value=value):
            return np.asarray(value), np.asarray(value)
        case Scalar(name=name):
            return np.asarray(scalars[name]), np.asarray(scalars[name])
        case Coord(rank=rank):
            return ranks[rank]
        case Map(op=op, args=args) if op in _OPERATIONS:
            parts = [bounds(arg, ranks, scalars) for arg in args]
            result: Bounds = _OPERATIONS[op](*parts)
            return result
        case Map(op=op):
            raise NotAffine(f"`{op}` in an index or mask")
        case _:
            raise NotAffine("an index read from a tensor" if hasattr(expr, "tensor") else type(expr).__name__)


def possible(condition: Expr, ranks: Mapping[str, Bounds], scalars: Mapping[str, int | float]) -> tuple[Array, Array]:
    """(may be true, may be false) over each cell of the grid. Raises NotAffine."""
    match condition:
        case Map(op="and", args=(a, b)):
            (at, af), (bt, bf) = possible(a, ranks, scalars), possible(b, ranks, scalars)
            return at & bt, af | bf
        case Map(op="or", args=(a, b)):
            (at, af), (bt, bf) = possible(a, ranks, scalars), possible(b, ranks, scalars)
            return at | bt, af & bf
        case Map(op="not", args=(a,)):
            true, false = possible(a, ranks, scalars)
            return false, true
        case Map(op=op, args=(a, b)) if op in COMPARISONS:
            low, high = bounds(Map("-", (a, b)), ranks, scalars)
            return _compare(op, low, high)
        case _:
            raise NotAffine("a mask that is not made of comparisons")


def _compare(op: str, low: Array, high: Array) -> tuple[Array, Array]:
    match op:
        case "<":
            return low < 0, high >= 0
        case "<=":
            return low <= 0, high > 0
        case ">":
            return high > 0, low <= 0
        case ">=":
            return high >= 0, low < 0
        case "==":
            return (low <= 0) & (high >= 0), (low != 0) | (high != 0)
        case _:
            return (low != 0) | (high != 0), (low <= 0) & (high >= 0)


def _product(a: Bounds, b: Bounds) -> Bounds:
    corners = [a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1]]
    low, high = corners[0], corners[0]
    for corner in corners[1:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return low, high


def _floor_div(a: Bounds, b: Bounds) -> Bounds:
    if np.any(b[0] != b[1]) or np.any(b[0] <= 0):
        raise NotAffine("`//` by what is not a positive constant")
    return a[0] // b[0], a[1] // b[0]


def _mod(a: Bounds, b: Bounds) -> Bounds:
    if np.any(b[0] != b[1]) or np.any(b[0] <= 0):
        raise NotAffine("`%` by what is not a positive constant")
    same = a[0] // b[0] == a[1] // b[0]
    return np.where(same, a[0] % b[0], 0), np.where(same, a[1] % b[0], b[0] - 1)


def _absolute(a: Bounds) -> Bounds:
    crosses = (a[0] <= 0) & (a[1] >= 0)
    ends = np.abs(a[0]), np.abs(a[1])
    return np.where(crosses, 0, np.minimum(*ends)), np.maximum(*ends)


_OPERATIONS: dict[str, Any] = {
    "+": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "-": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "neg": lambda a: (-a[1], -a[0]),
    "*": _product,
    "//": _floor_div,
    "%": _mod,
    "abs": _absolute,
    "min": lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1])),
    "max": lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1])),
    "clamp": lambda x, lo, hi: (np.minimum(np.maximum(x[0], lo[0]), hi[0]), np.minimum(np.maximum(x[1], lo[1]), hi[1])),
    "floor": lambda a: (np.floor(a[0]), np.floor(a[1])),
    "ceil": lambda a: (np.ceil(a[0]), np.ceil(a[1])),
}
