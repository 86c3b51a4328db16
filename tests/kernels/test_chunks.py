"""Kernels that take recurrences chunk by chunk, in Triton's interpreter: gates of any kind, cut chunks, readers of the state."""

from __future__ import annotations

import functools

import pytest

from einsmith.einsum import spec
from einsmith.kernels.check import Checked, check_all
from einsmith.kernels.emit import emit_module
from einsmith.kernels.shapes import Case
from einsmith.mapper import gpu
from einsmith.mapper.stages import module_plans

SIZES = {"B": 1, "M": 128, "E": 16, "F": 16}
CASES = [Case("one", {"B": 1, "M": 1, "E": 3, "F": 2}), Case("odd", {"B": 2, "M": 37, "E": 5, "F": 18})]
GATES = {
    "of both signs": "tanh(G[b,m])",
    "often 0": "where(G[b,m] > 0.3, 0, sigmoid(G[b,m]))",
    "near 0": "exp(-100 * sigmoid(G[b,m]))",
    "for each element of a key": "where(A[b,m,e] > 0.8, 0, tanh(A[b,m,e]))",
    "for each element of a value": "sigmoid(V[b,m,f])",
}
READERS = {
    "after the step": "Y[b,m,f] = sum[e](Q[b,m,e] * X[b,m+1,e,f])",
    "before the step": "Y[b,m,f] = sum[e](Q[b,m,e] * X[b,m,e,f])",
    "at the end": "Y[b,m,f] = sum[e](Q[b,m,e] * X[b,m+1,e,f])\n  Z[b,e,f] = X[b,M,e,f]",
}


def recurrence(gate: str, reader: str) -> str:
    return f"""
name: gated
ranks: {{b: B, m: M, e: E, f: F}}
inputs: {{G: [b, m], A: [b, m, e], K: [b, m, e], Q: [b, m, e], V: [b, m, f], H: [b, e, f]}}
cascade: |
  X[b,0,e,f]   = H[b,e,f]
  X[b,m+1,e,f] = {gate} * X[b,m,e,f] + K[b,m,e] * V[b,m,f]
  {reader}
outputs: [{"Y, Z" if "Z[" in reader else "Y"}]
"""


KERNELS = {
    **{f"gates {name}": recurrence(gate, READERS["after the step"]) for name, gate in GATES.items()},
    **{f"read {name}": recurrence(GATES["of both signs"], reader) for name, reader in READERS.items()},
}

KERNELS["read beside a running maximum"] = """
name: stabilised
ranks: {b: B, m: M, e: E, f: F}
inputs: {G: [b, m], A: [b, m], K: [b, m, e], Q: [b, m, e], V: [b, m, f]}
cascade: |
  P[b,0]       = -inf
  P[b,m+1]     = max(P[b,m] - softplus(G[b,m]), A[b,m])
  R[b,m]       = exp(P[b,m] - softplus(G[b,m]) - P[b,m+1])
  X[b,0,e,f]   = 0
  X[b,m+1,e,f] = R[b,m] * X[b,m,e,f] + exp(A[b,m] - P[b,m+1]) * K[b,m,e] * V[b,m,f]
  Z[b,0,e]     = 0
  Z[b,m+1,e]   = R[b,m] * Z[b,m,e] + exp(A[b,m] - P[b,m+1]) * K[b,m,e]
  U[b,m,f]     = Q[b,m,e] * X[b,m+1,e,f]
  W[b,m]       = Q[b,m,e] * Z[b,m+1,e]
  Y[b,m,f]     = U[b,m,f] / max(abs(W[b,m]), exp(-P[b,m+1]))
outputs: [Y]
"""

RULES = {
    "two writes, the second after the first": """
  R[b,m,f]     = KN[b,m,e] * X[b,m,e,f]
  T[b,m,e,f]   = X[b,m,e,f] + KN[b,m,e] * (V[b,m,f] - R[b,m,f])
  P[b,m,f]     = AN[b,m,e] * T[b,m,e,f]
  X[b,m+1,e,f] = T[b,m,e,f] + AN[b,m,e] * (U[b,m,f] - P[b,m,f]) * sigmoid(G[b,m])
""",
    "another key to read, gates of its elements": """
  R[b,m,f]     = AN[b,m,e] * X[b,m,e,f]
  X[b,m+1,e,f] = sigmoid(K[b,m,e]) * X[b,m,e,f] - AN[b,m,e] * R[b,m,f] + KN[b,m,e] * V[b,m,f]
""",
    "momentum of momentum": """
  D[b,0,e,f]   = 0
  Z[b,0,e,f]   = 0
  R[b,m,f]     = KN[b,m,e] * X[b,m,e,f]
  D[b,m+1,e,f] = sigmoid(G[b,m]) * D[b,m,e,f] + KN[b,m,e] * (V[b,m,f] - R[b,m,f]) / 4
  Z[b,m+1,e,f] = 0.5 * Z[b,m,e,f] + D[b,m+1,e,f]
  X[b,m+1,e,f] = 0.75 * X[b,m,e,f] + Z[b,m,e,f]
""",
}
KERNELS |= {
    name: f"""
name: rule
ranks: {{b: B, m: M, e: E, f: F}}
inputs: {{G: [b, m], A: [b, m, e], K: [b, m, e], Q: [b, m, e], V: [b, m, f], U: [b, m, f]}}
cascade: |
  KN[b,m,e]    = K[b,m,e] / sqrt(sum[e](K[b,m,e] * K[b,m,e]))
  AN[b,m,e]    = A[b,m,e] / sqrt(sum[e](A[b,m,e] * A[b,m,e]))
  X[b,0,e,f]   = 0{rule.rstrip()}
  Y[b,m,f]     = Q[b,m,e] * X[b,m+1,e,f]
outputs: [Y]
"""
    for name, rule in RULES.items()
}


@functools.cache
def results() -> dict[str, tuple[str, Checked]]:
    tasks, notes = [], []
    for text in KERNELS.values():
        cascade = spec.loads(text)
        planned = next(one for one in module_plans(cascade, gpu.load("h200"), SIZES, dtype="float32") if one.chunked)
        notes.append(planned.note)
        tasks.append((emit_module(planned), cascade, CASES))
    return dict(zip(KERNELS, zip(notes, check_all(tasks), strict=True), strict=True))


@pytest.mark.parametrize("name", KERNELS)
def test_chunks_agree_with_the_interpreter(name: str) -> None:
    note, found = results()[name]
    assert "in chunks of" in note
    assert len(found.rows) == len(CASES) * (2 if name == "read at the end" else 1)
    assert not found.failed, str(found)


APART = ["gates of both signs", "gates for each element of a key", "read at the end", *RULES]
"""Recurrences with something that no state goes into: scores, products of gates, inverses."""


@functools.cache
def results_apart() -> dict[str, Checked]:
    tasks = []
    for name in APART:
        cascade = spec.loads(KERNELS[name])
        plans = module_plans(cascade, gpu.load("h200"), SIZES, dtype="float32")
        apart = next(one for one in plans if "done before, for all chunks at once" in one.note)
        assert len(apart.kernels) == 2
        tasks.append((emit_module(apart), cascade, CASES))
    return dict(zip(APART, check_all(tasks), strict=True))


@pytest.mark.parametrize("name", APART)
def test_what_no_state_goes_into_may_be_done_before_all_chunks(name: str) -> None:
    """In chunks that the end cuts too: the kernel before walks none of them."""
    found = results_apart()[name]
    assert len(found.rows) == len(CASES) * (2 if name == "read at the end" else 1)
    assert not found.failed, str(found)
