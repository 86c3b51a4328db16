"""Reductions, scans and orders of arrays.

In: arrays of float64, int64 or bool. Out: their reductions along the last dimensions, or scans along one. An empty one is its
identity, which for integers is the least or greatest integer in place of infinity. Sums and products of integers are exact or
refused.
"""

from __future__ import annotations

import math

import numpy as np

from .arithmetic import INT_MAX, INT_MIN, Array, apply, as_float, limits, narrowed, truth

COMBINE = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip
"""The operation that combines two contributions."""


def descending(values: Array, existing: Array | None) -> Array:
    """Keys that sort best first; points that do not exist come last."""
    if values.dtype == np.float64:
        keys = -values
        return keys if existing is None else np.where(existing, keys, np.inf)
    keys = ~values.astype(np.int64)  # -1 - value: no overflow
    return keys if existing is None else np.where(existing, keys, INT_MAX)


def identity(op: str, dtype: np.dtype[np.generic]) -> float | int | bool:
    """What a reduction or scan holds before the first point (for integers, the least or greatest one in place of infinity)."""
    if op in ("max", "cummax", "argmax"):
        return -np.inf if dtype == np.float64 else INT_MIN
    if op in ("min", "argmin"):
        return np.inf if dtype == np.float64 else INT_MAX
    return 1 if op in ("prod", "cumprod", "all") else 0


def reduced(op: str, values: Array, count: int) -> Array:
    """Reduce the last `count` dimensions."""
    axes = tuple(range(values.ndim - count, values.ndim))
    if op in ("any", "all"):
        return np.asarray(truth(values).any(axis=axes) if op == "any" else truth(values).all(axis=axes))
    if values.dtype == np.bool_:
        values = values.astype(np.int64)
    if op in ("argmax", "argmin"):
        if not values.shape[-1]:
            return np.zeros(values.shape[:-1], np.int64)
        return np.asarray(values.argmax(axis=-1) if op == "argmax" else values.argmin(axis=-1))
    if op == "max":
        return np.asarray(values.max(axis=axes, initial=identity(op, values.dtype)))
    if op == "min":
        return np.asarray(values.min(axis=axes, initial=identity(op, values.dtype)))
    if op == "mean":
        return np.asarray(as_float(values).sum(axis=axes))
    if values.dtype == np.int64 and not _fits(op, values, math.prod(values.shape[axis] for axis in axes)):
        exact = values.astype(object)
        return narrowed(np.asarray(exact.sum(axis=axes) if op == "sum" else exact.prod(axis=axes), dtype=object), None)
    return np.asarray(values.sum(axis=axes) if op == "sum" else values.prod(axis=axes))


def _fits(op: str, values: Array, count: int) -> bool:
    """Is no sum or product of `count` of these integers outside 64 bits?"""
    greatest = max(abs(limit) for limit in limits(values))
    if op in ("sum", "cumsum"):
        return greatest * count <= INT_MAX
    return greatest <= 1 or count * math.log2(greatest) < 62


def combined(op: str, a: Array, b: Array) -> Array:
    """Two partial results of a reduction as one."""
    names = {"sum": "+", "mean": "+", "prod": "*", "max": "max", "min": "min", "any": "or", "all": "and"}
    return np.asarray(apply(names[op], (a, b)))


def accumulated(op: str, values: Array, axis: int) -> Array:
    """An inclusive scan along an axis."""
    if values.dtype == np.bool_:
        values = values.astype(np.int64)
    function = {"cumsum": np.add, "cumprod": np.multiply, "cummax": np.maximum}[op]
    if values.dtype == np.int64 and op != "cummax" and not _fits(op, values, values.shape[axis]):
        return narrowed(np.asarray(function.accumulate(values.astype(object), axis=axis), dtype=object), None)
    return np.asarray(function.accumulate(values, axis=axis))
