"""The plain-torch reference of a module: sums of products are `torch.einsum`, as one would write them, and mean the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.sizes import bind
from einsmith.kernels.reference import HELPERS, reference

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"
MIXED = """
name: mixed
ranks: {m: {extent: M, split: [m1, m0], tile: T}, n: N, f: F}
inputs: {A: [m, n], V: [n, f], W: [n], I: {ranks: [n], dtype: int}, S: [m, f]}
sizes: {M: 7, N: 7, F: 4, T: 4}
cascade: |
  X[m,f]  = sum[n](where(n <= m, A[m,n] * V[n,f], 0))
  G[m,f]  = sum[n](where(m < 5, A[m,n] * V[(n + m) % N,f] * 0.5, 0))
  D[m,f]  = sum[n]((A[m,n] - W[n]) * exp(V[n,f]))
  O[m1,f] = sum[m0](A[m1*T+m0,0] * S[m1*T+m0,f])
outputs: [X, G, D, O]
"""


@pytest.mark.parametrize(
    ("text", "sums"),
    [
        (MIXED, 4),
        ((EXAMPLES / "gqa.yaml").read_text(), 2),
        ((EXAMPLES / "halonet.yaml").read_text(), 2),
        ((EXAMPLES / "lightning.yaml").read_text().replace("M: 64", "M: 37"), 4),
        ((EXAMPLES / "linear-causal.yaml").read_text(), 2),
    ],
    ids=["mixed", "gqa", "halonet", "lightning", "linear-causal"],
)
def test_sums_of_products_are_einsums_that_mean_the_same(text: str, sums: int) -> None:
    import torch

    cascade = spec.loads(text)
    scalars = bind(cascade, {}).scalars
    inputs = interpret.random_inputs(cascade, None, None, np.random.default_rng(0))
    source = reference(cascade, lambda name: name, ", ".join([*inputs, *scalars]), [])
    assert source.count("torch.einsum") == sums
    scope: dict[str, Any] = {"torch": torch, "math": math}
    exec(f"{HELPERS}\n\n{source}", scope)
    found = scope["reference"](**{name: torch.from_numpy(value) for name, value in inputs.items()}, **scalars)
    expected = interpret.evaluate(cascade, inputs)
    for name in cascade.outputs:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=0, atol=1e-12 * scale)
