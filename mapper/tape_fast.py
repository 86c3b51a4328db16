"""The compiled loop over a tape: one kernel for every formula, compiled once and kept on disk.

In: the code of a plan (operation, target, operands), its constants, its input arrays. Out: its results, equal to those of numpy:
blocks of points go through the code line by line, so that the lines are read once a block and each is a vector operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 128
prange: Any = range
"""numba's once `kernel` is called."""


def kernel() -> Callable[..., None]:
    """The loop, compiled or read back from disk. Raises ImportError without numba."""
    global prange
    from numba import njit
    from numba import prange as parallel

    prange = parallel
    compiled: Callable[..., None] = njit(cache=True, parallel=True, error_model="numpy")(run)
    return compiled


def run(code: Any, registers: int, uniform: Any, arrays: Any, places: Any, found: Any) -> None:  # pragma: no cover - compiled
    count = found.shape[1]
    blocks = (count + BLOCK - 1) // BLOCK
    workers = min(64, blocks)
    for worker in prange(workers):
        r = np.empty((registers, BLOCK))
        for i in range(uniform.shape[0]):
            for j in range(BLOCK):
                r[i, j] = uniform[i]
        for block in range(worker, blocks, workers):
            start = block * BLOCK
            n = min(BLOCK, count - start)
            for i in range(arrays.shape[0]):
                for j in range(n):
                    r[uniform.shape[0] + i, j] = arrays[i, start + j]
            for line in range(code.shape[0]):
                operation = code[line, 0]
                out, a, b = r[code[line, 1]], r[code[line, 2]], r[code[line, 3]]
                if operation == 0:
                    for j in range(BLOCK):
                        out[j] = a[j] + b[j]
                elif operation == 1:
                    for j in range(BLOCK):
                        out[j] = a[j] - b[j]
                elif operation == 2:
                    for j in range(BLOCK):
                        out[j] = a[j] * b[j]
                elif operation == 3:
                    for j in range(BLOCK):
                        out[j] = a[j] / b[j]
                elif operation == 4:
                    for j in range(BLOCK):
                        out[j] = a[j] if a[j] > b[j] else b[j]
                elif operation == 5:
                    for j in range(BLOCK):
                        out[j] = a[j] if a[j] < b[j] else b[j]
                elif operation == 6:
                    for j in range(BLOCK):
                        out[j] = np.ceil(a[j])
                elif operation == 7:
                    for j in range(BLOCK):
                        out[j] = np.floor(a[j])
                elif operation == 8:
                    for j in range(BLOCK):
                        out[j] = np.log2(a[j])
                elif operation == 9:
                    for j in range(BLOCK):
                        out[j] = 1.0 if a[j] > b[j] else 0.0
                else:
                    c = r[code[line, 4]]
                    for j in range(BLOCK):
                        out[j] = b[j] if a[j] != 0.0 else c[j]
            for row in range(places.shape[0]):
                place = r[places[row]]
                for j in range(n):
                    found[row, start + j] = place[j]
