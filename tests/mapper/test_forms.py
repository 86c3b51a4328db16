"""Forms of a cascade: chains of products are taken two tensors at a time."""

from __future__ import annotations

import numpy as np

from einsmith.einsum import interpret, spec
from einsmith.einsum.cascade import Reduce, accesses
from einsmith.mapper import gpu
from einsmith.mapper.forms import forms
from einsmith.mapper.products import contractions
from einsmith.mapper.stages import plan_module

CHAIN = """
name: landmarks
ranks: {b: B, p: P, m: M, l: L, k: L, e: E, f: F}
inputs: {A: [b, p, k], Z: [b, k, l], Q: [b, l, e], K: [b, m, e], V: [b, m, f]}
cascade: |
  S[b,l,m] = Q[b,l,e] * K[b,m,e]
  W[b,l,m] = exp(S[b,l,m] - max[m](S[b,l,m]))
  D[b,l,m] = W[b,l,m] / sum[m](W[b,l,m])
  Y[b,p,f] = A[b,p,k] * Z[b,k,l] * D[b,l,m] * V[b,m,f]
outputs: [Y]
"""
SIZES = {"B": 2, "P": 512, "M": 512, "L": 32, "E": 64, "F": 64}


def test_a_chain_is_as_many_products_as_it_has_tensors_but_one() -> None:
    cascade = spec.loads(CHAIN)
    (form,) = forms(cascade)
    sums = [e for e in form.einsums if isinstance(e.body, Reduce) and e.body.op == "sum"]
    assert sum(len(accesses(e.body)) == 2 for e in sums) == 4  # the scores and the three of the chain
    sizes = {"B": 2, "P": 5, "M": 7, "L": 3, "E": 2, "F": 4}
    inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(0))
    expected = interpret.evaluate(cascade, inputs, sizes)["Y"]
    np.testing.assert_allclose(interpret.evaluate(form, inputs, sizes)["Y"], expected, rtol=1e-9, atol=1e-12)


def test_a_chain_is_done_by_matrix_units() -> None:
    found = plan_module(spec.loads(CHAIN), gpu.load("h200"), SIZES)
    assert sum(len(contractions(kernel.program)) for kernel in found.kernels) == 4
    assert found.predicted_s < 20e-6


def test_a_sum_in_which_a_tensor_has_all_that_is_summed_stays() -> None:
    """A window of two dimensions: its weights go along both, and so one rank does for the two."""
    text = """
name: window
ranks: {p: P, u: U, v: W, f: F}
inputs: {A: [p, u, v], V: [p, u, v, f], G: [u]}
cascade: |
  Y[p,f] = A[p,u,v] * V[p,u,v,f] * G[u]
outputs: [Y]
"""
    (form, *_) = forms(spec.loads(text))
    assert sum(isinstance(e.body, Reduce) for e in form.einsums) == 1
