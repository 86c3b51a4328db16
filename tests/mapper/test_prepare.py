"""Rewrites before a cascade is planned: the same values, in a form that kernels can follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.cascade import Access, Cascade, Coord, Expr, Map, Number, Scalar, accesses
from einsmith.mapper import gpu
from einsmith.mapper.prepare import collected, prepared
from einsmith.mapper.stages import plan_module

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"
SCATTERS = """
name: scatters
ranks: {p: P, j: J, f: F}
inputs: {X: [j, f], I: {ranks: [j], dtype: int}}
tensors: {Y: [p, f], Z: [p, f], U: [p], W: [p]}
cascade: |
  Y[I[j],f] = sum[j](X[j,f])
  Z[I[j],f] = prod[j](X[j,f])
  U[I[j]]   = max[j](X[j,0])
  W[I[j]]   = any[j](X[j,0] > 0)
outputs: [Y, Z, U, W]
"""
REDUCED = """
name: reduced-backwards
ranks: {m: M, e: E}
inputs: {X: [m, e]}
cascade: |
  S[0,e]   = 0
  S[m+1,e] = S[m,e] * 0.5 + X[m,e]
  Y[e]     = sum[m](S[M-m,e] * (m + 1))
  Z[m]     = sum[e](X[m,e] - S[M-m,e] * X[m,e]) + 1
outputs: [Y, Z]
"""


def same_values(cascade: Cascade, sizes: dict[str, int]) -> Cascade:
    other = prepared(cascade)
    inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(0))
    want, got = (interpret.evaluate(one, inputs, sizes) for one in (cascade, other))
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-12)
    return other


def test_scatters_are_gathered() -> None:
    found = same_values(spec.loads(SCATTERS), {"P": 7, "J": 11, "F": 3})
    assert not [t for t in found.tensors if t.kind == "scatter"]


@pytest.mark.parametrize("size", [1, 2, 9])
def test_states_are_read_in_their_direction(size: int) -> None:
    found = same_values(spec.loads(REDUCED), {"M": size, "E": 3})
    for einsum in found.einsums:
        for access in accesses(einsum.body):
            if access.tensor == "S":
                assert access.indices[0] in (Coord("m"), Map("+", (Coord("m"), Number(1)))), einsum


@pytest.mark.parametrize("name", ["vig", "routing"])
def test_published_ones(name: str) -> None:
    cascade = spec.load(EXAMPLES / f"{name}.yaml")
    same_values(cascade, dict(cascade.sizes))


def test_what_needs_no_rewrite_is_left_alone() -> None:
    cascade = spec.load(EXAMPLES / "softmax-causal.yaml")
    assert prepared(cascade) is cascade or prepared(cascade) == cascade


@pytest.mark.parametrize(
    ("expr", "want"),
    [
        (Map("-", (Scalar("M"), Map("-", (Map("-", (Scalar("M"), Number(1))), Coord("m"))))), Map("+", (Coord("m"), Number(1)))),
        (Map("-", (Coord("m"), Coord("m"))), Number(0)),
        (Map("-", (Number(3), Map("neg", (Coord("m"),)))), Map("+", (Coord("m"), Number(3)))),
        (Map("+", (Coord("m"), Coord("m"))), Map("+", (Coord("m"), Coord("m")))),
        (Access("I", (Coord("m"),)), Access("I", (Coord("m"),))),
    ],
)
def test_equal_terms_are_taken_together(expr: Expr, want: Expr) -> None:
    assert collected(expr) == want


def test_a_long_scatter_is_a_kernel_of_its_own() -> None:
    """What all places need is computed once; the rows of positions are too long for one tile with their products."""
    sizes = {"B": 4, "H": 16, "C": 32, "P": 4096, "M": 4096, "J": 128, "E": 64, "F": 64}
    module = plan_module(spec.load(EXAMPLES / "routing.yaml"), gpu.load("h200"), sizes)
    outputs = [kernel.cascade.outputs for kernel in module.kernels]
    assert ("AC",) in outputs
    assert outputs[-1] == ("AV",)
