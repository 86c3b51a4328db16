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
