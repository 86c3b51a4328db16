"""Kernels that read what a step made along another rank: recurrent networks, iterations with matrices; in the interpreter."""

from __future__ import annotations

import functools

import pytest

from einsmith.einsum import spec
from einsmith.kernels.check import Checked, check_all
from einsmith.kernels.emit import emit_module
from einsmith.kernels.shapes import Case
from einsmith.mapper import gpu
from einsmith.mapper.products import contractions
from einsmith.mapper.stages import plan_module

TEXTS = {
    "a recurrent network": """
name: recurrent
ranks: {b: B, t: T, c: N, d: N}
inputs: {X: [b, t, c], R: [c, d]}
cascade: |
  H[b,0,c]   = 0
  U[b,t,c]   = R[c,d] * H[b,t,d] * 0.1
  H[b,t+1,c] = tanh(X[b,t,c] + U[b,t,c])
  Y[b,t,c]   = H[b,t+1,c] * 2
outputs: [Y]
""",
    "an iteration with matrices": """
name: inverse
ranks: {b: B, t: T, i: N, j: N, k: N}
inputs: {A: [b, i, j]}
cascade: |
  R[b]         = max[i](sum[j](abs(A[b,i,j])))
  X[b,0,i,j]   = A[b,j,i] / (R[b] * N)
  U[b,t,i,j]   = A[b,i,k] * X[b,t,k,j]
  X[b,t+1,i,j] = 2 * X[b,t,i,j] - sum[k](X[b,t,i,k] * U[b,t,k,j])
  Y[b,i,j]     = X[b,T,i,j] * 1
outputs: [Y]
""",
    "a vector in two places": """
name: scores
ranks: {b: B, t: T, i: N, j: N}
inputs: {A: [b, i], W: [t, j]}
cascade: |
  X[b,0,i]   = A[b,i]
  S[b,t,i]   = sum[j](exp(-abs(X[b,t,i] - X[b,t,j])) * W[t,j])
  X[b,t+1,i] = X[b,t,i] * 0.5 + S[b,t,i] / N
  Y[b,i]     = X[b,T,i] + 1
outputs: [Y]
""",
}
CASES = [
    Case("one", {"B": 1, "T": 1, "N": 1}),
    Case("odd", {"B": 2, "T": 3, "N": 13}),
    Case("tails", {"B": 1, "T": 4, "N": 37}),
]


@functools.cache
def results() -> dict[str, tuple[int, Checked]]:
    tasks, products = [], []
    for text in TEXTS.values():
        cascade = spec.loads(text)
        planned = plan_module(cascade, gpu.load("h200"), {"B": 4, "T": 8, "N": 32}, dtype="float32")
        (kernel,) = planned.kernels
        products.append(len(contractions(kernel.program)))
        tasks.append((emit_module(planned), cascade, CASES))
    return dict(zip(TEXTS, zip(products, check_all(tasks), strict=True), strict=True))


@pytest.mark.parametrize(
    ("name", "products"), [("a recurrent network", 1), ("an iteration with matrices", 2), ("a vector in two places", 0)]
)
def test_turned_tiles_agree_with_the_interpreter(name: str, products: int) -> None:
    found, checked = results()[name]
    assert found == products
    assert len(checked.rows) == len(CASES)
    assert not checked.failed, str(checked)
