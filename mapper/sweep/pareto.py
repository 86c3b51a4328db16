"""Pareto fronts of many points: those that no other point equals or beats in every objective, being better in one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def front(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of the front (all objectives smaller is better), first by the first objective. Rows with NaN are left out; of equal
    rows the first stays."""
    rows = np.flatnonzero(~np.isnan(values).any(axis=1))
    order = rows[np.lexsort((rows, *values[rows].T[::-1]))]
    kept: list[int] = []
    best = np.empty((0, values.shape[1]))
    for row in order:
        value = values[row]
        if len(best) and bool((best <= value).all(axis=1).any()):
            continue
        kept.append(int(row))
        best = np.vstack([best[~(value <= best).all(axis=1)], value])
    return np.array(kept, dtype=np.int64)


def fronts(values: NDArray[np.float64], of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the front of each group of rows (`of`: the group of each row), group by group."""
    order = np.argsort(of, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(of[order])) + 1)
    return np.concatenate([np.zeros(0, dtype=np.int64), *(rows[front(values[rows])] for rows in pieces)])
