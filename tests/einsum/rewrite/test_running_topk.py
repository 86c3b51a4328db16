"""Top-k as a running list: ties, -inf, lists longer than a tile, lengths that the tile does not divide."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.interpret import evaluate
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.rewrite.running_topk import running_topk
from einsmith.einsum.verify import verify

BOTH = """
name: best
ranks: {p: P, m: M, j: J}
inputs: {S: [p, m]}
cascade: |
  I[p,j] = argtopk[m](S[p,m] * 2)
  T[p,j] = topk[m](S[p,m] * 2)
outputs: [I, T]
sizes: {P: 2, M: 9, J: 2}
"""


@pytest.fixture(scope="module")
def lists() -> Cascade:
    found = running_topk(spec.loads(BOTH), ("I", "T"), "m")
    assert found is not None
    assert not verify(found.cascade)
    return found.cascade


def test_one_list_serves_values_and_indices(lists: Cascade) -> None:
    assert [tensor.name for tensor in lists.tensors if tensor.kind == "state"] == ["I_best", "I_run"]
    assert lists.passes("m") == 1


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 20])
@pytest.mark.parametrize(("length", "count"), [(9, 2), (9, 5), (9, 9), (1, 1), (4, 3)])
def test_values_are_equal(lists: Cascade, tile: int, length: int, count: int) -> None:
    rng = np.random.default_rng(tile * 100 + length)
    sizes = {"P": 40, "M": length, "J": count}
    values = rng.integers(-1, 2, (40, length)).astype(float)  # ties everywhere
    values[rng.random(values.shape) < 0.4] = -np.inf
    values[0] = -np.inf
    values[1] = np.inf
    expected = evaluate(spec.loads(BOTH), {"S": values}, sizes)
    found = evaluate(lists, {"S": values}, {**sizes, "M0": tile})
    np.testing.assert_array_equal(found["I"], expected["I"])
    np.testing.assert_array_equal(found["T"], expected["T"])


def test_what_waits_for_complete_values_is_refused() -> None:
    text = BOTH.replace("I[p,j] = argtopk[m](S[p,m] * 2)", "G[p] = max[m](S[p,m])\n  I[p,j] = argtopk[m](S[p,m] - G[p])")
    assert running_topk(spec.loads(text), ("I",), "m") is None


def test_gathers_by_the_list_take_another_pass() -> None:
    text = BOTH.replace("T[p,j] = topk[m](S[p,m] * 2)", "T[p] = sum[j](S[p,I[p,j]])")
    found = derive(spec.loads(text), "m", iterate=True)
    assert "running-topk" in [step.rewrite for step in found.steps]
    assert found.passes_after["m"] == 2
