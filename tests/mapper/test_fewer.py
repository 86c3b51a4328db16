"""Plans of contractions in another order: where positions are many, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.mapper import gpu
from einsmith.mapper.fewer import fewer_operations
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.products import contractions
from einsmith.mapper.stages import plan_module

FEATURES = """
name: features
ranks: {{b: B, p: {queries}, m: M, e: E, f: F}}
inputs: {{Q: [b, p, e], K: [b, m, e], V: [b, m, f]}}
cascade: |
  S[b,p,m] = sum[e](sigmoid(Q[b,p,e]) * sigmoid(K[b,m,e]))
  W[b,p,m] = {weight}
  D[b,p]   = sum[m](W[b,p,m])
  Y[b,p,f] = sum[m](W[b,p,m] * V[b,m,f]) / D[b,p]
outputs: [Y]
"""
PLAIN = FEATURES.format(queries="P", weight="S[b,p,m]")
CAUSAL = FEATURES.format(queries="M", weight="where(m <= p, S[b,p,m], 0)")
SOFTMAX = FEATURES.format(queries="P", weight="exp(S[b,p,m] - max[m](S[b,p,m]))")
LONG = {"B": 32, "P": 8192, "M": 8192, "E": 64, "F": 64}


def planned(text: str, **sizes: int) -> ModulePlan:
    cascade = spec.loads(text)
    given = {name: value for name, value in {**LONG, **sizes}.items() if name in cascade.symbols}
    return plan_module(cascade, gpu.load("h200"), given)


def test_keys_and_values_are_summed_first_where_queries_are_many() -> None:
    found = planned(PLAIN)
    assert "in another order" in found.note
    products = [len(contractions(kernel.program)) for kernel in found.kernels]
    assert sum(products) == 2
    assert max(products) == 1  # keys and values once, not for each tile of queries
    assert found.predicted_s < 0.3e-3  # 4 * 32 * 8192**2 * 64 operations of matrix units would be 0.6 ms


def test_a_causal_mask_makes_it_a_recurrence_in_chunks() -> None:
    found = planned(CAUSAL)
    assert "in another order" in found.note
    assert "in chunks of" in found.note


@pytest.mark.parametrize(("text", "sizes"), [(PLAIN, {"P": 16}), (PLAIN, {"P": 64, "M": 64}), (SOFTMAX, {})])
def test_few_queries_and_exponentials_stay(text: str, sizes: dict[str, int]) -> None:
    assert "in another order" not in planned(text, **sizes).note


@pytest.mark.parametrize("text", [PLAIN, CAUSAL])
def test_it_is_the_same_function(text: str) -> None:
    cascade = spec.loads(text)
    found = fewer_operations(cascade, {name: LONG[name] for name in cascade.symbols}, {})
    assert found is not None
    sizes = {name: {"B": 2, "P": 5, "M": 7, "E": 3, "F": 4}[name] for name in cascade.symbols}
    inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(0))
    expected = interpret.evaluate(cascade, inputs, sizes)["Y"]
    np.testing.assert_allclose(interpret.evaluate(found.cascade, inputs, sizes)["Y"], expected, rtol=1e-9, atol=1e-12)
