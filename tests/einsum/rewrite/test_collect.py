"""Sums with a common factor become one, and only where that is the same for every input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.flatten import flatten
from einsmith.einsum.rewrite import single_precision
from einsmith.einsum.rewrite.check import compare
from einsmith.einsum.rewrite.collect import collect
from einsmith.einsum.rewrite.derive import derive

HEAD = """name: sums
ranks: {m: M, p: P, e: E, g: E, f: F}
inputs: {A: [p, e], B: [e, f], C: [f], D: [e], X: [m, f]}
sizes: {M: 5, P: 7, E: 3, F: 4}
cascade: |
"""
TEXTS = {
    "plain": "  S[p,f] = A[p,e] * B[e,f]\n  N[p] = A[p,e] * D[e]\n  Y[p,f] = S[p,f] - C[f] * N[p]\noutputs: [Y]\n",
    "another name": "  S[p,f] = A[p,e] * B[e,f]\n  N[p] = sum[g](A[p,g] * D[g])\n  Y[p,f] = C[f] * N[p] + S[p,f]\noutputs: [Y]\n",
    "over a number": "  S[p,f] = A[p,e] * B[e,f]\n"
    "  N[p] = A[p,e] * D[e]\n  U[p] = N[p] / M\n  Y[p,f] = S[p,f] - C[f] * U[p]\noutputs: [Y]\n",
    "more terms": (
        "  S[p,f] = A[p,e] * B[e,f]\n  N[p] = A[p,e] * D[e]\n  Z[p] = sum[e](D[e] * exp(A[p,e]))\n"
        "  Y[p,f] = S[p,f] - Z[p] - C[f] * N[p] + C[f]\noutputs: [Y]\n"
    ),
}
REFUSED = {
    "a divisor that may be 0": (
        "  S[p,f] = A[p,e] * B[e,f]\n  N[p] = A[p,e] * D[e]\n  Y[p,f] = S[p,f] - N[p] / C[f]\noutputs: [Y]\n"
    ),
    "no common factor": "  S[p,f] = A[p,e] * B[e,f]\n  N[f] = sum[e](D[e] * exp(B[e,f]))\n  Y[p,f] = S[p,f] - N[f]\noutputs: [Y]\n",
    "under a condition": (
        "  S[p,f] = A[p,e] * B[e,f]\n  N[p] = A[p,e] * D[e]\n  Y[p,f] = S[p,f] - where(p <= f, C[f] * N[p], 0)\noutputs: [Y]\n"
    ),
    "sums along the fiber": (
        "  S[p] = sum[m](X[m,p//2] * X[m,0])\n  N[p] = sum[m](X[m,p//2] * X[m,1])\n  Y[p] = S[p] - N[p]\noutputs: [Y]\n"
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_sums_are_collected(name: str) -> None:
    cascade = flatten(spec.loads(HEAD + TEXTS[name]))
    found = collect(cascade, "Y", "m")
    assert found is not None
    assert len(compare(cascade, found.cascade, "m")) > 1
    assert found.step.rule.startswith("sum(a * b)")
    assert "Y_part" in {tensor.name for tensor in found.cascade.tensors}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_differ_is_left_alone(name: str) -> None:
    assert collect(flatten(spec.loads(HEAD + REFUSED[name])), "Y", "m") is None


def test_terms_that_cancel_do_so_before_they_are_summed() -> None:
    """Where the sums are large and their difference is small, the collected form keeps digits in float32."""
    cascade = flatten(spec.loads(HEAD + TEXTS["plain"]))
    found = collect(cascade, "Y", "m")
    assert found is not None
    rng = np.random.default_rng(0)
    inputs = {"X": np.zeros((5, 4)), "A": rng.uniform(1, 2, (7, 3)), "C": rng.uniform(1, 2, 4), "D": rng.uniform(1, 2, 3)}
    inputs["B"] = np.outer(inputs["D"], inputs["C"]) + rng.uniform(-1e-3, 1e-3, (3, 4))
    inputs = {name: values.astype(np.float32).astype(np.float64) for name, values in inputs.items()}
    exact = interpret.evaluate(cascade, inputs)["Y"]
    before, after = (np.abs(single_precision.evaluate(each, inputs)["Y"] - exact).max() for each in (cascade, found.cascade))
    assert after < before / 2


def test_a_mean_taken_off_the_weights_of_linear_attention() -> None:
    cascade = spec.load(Path(__file__).parents[3] / "examples" / "attention" / "inline.yaml")
    found = derive(cascade, "m")
    assert "collect" in {step.rewrite for step in found.steps}
    assert "e" not in found.cascade.tensor("AV_1_2").ranks  # one contraction over the features, of what is left
    assert found.passes_after["m"] == 1
