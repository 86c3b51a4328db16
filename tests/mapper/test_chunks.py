"""Recurrences chunk by chunk in plans: which are, how long chunks are, and where steps stay steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.mapper import gpu
from einsmith.mapper.chunks import chunked
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.prepare import prepared
from einsmith.mapper.products import contractions
from einsmith.mapper.stages import module_plans, plan_module

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"
LONG = {"B": 4, "H": 16, "M": 8192, "E": 64, "F": 64}


def planned(name: str, sizes: dict[str, int]) -> ModulePlan:
    cascade = spec.load(EXAMPLES / f"{name}.yaml")
    return plan_module(cascade, gpu.load("h200"), {k: v for k, v in sizes.items() if k in cascade.symbols})


@pytest.mark.parametrize(("name", "kernels"), [("linear-causal", 1), ("retention", 1), ("gla", 1), ("vig", 2)])
@pytest.mark.parametrize("sizes", [{}, LONG])
def test_linear_recurrences_become_matrix_products(name: str, kernels: int, sizes: dict[str, int]) -> None:
    found = planned(name, sizes)
    assert "in chunks of" in found.note
    walking = [kernel for kernel in found.kernels if kernel.program.loop == "m1"]
    assert len(walking) == kernels
    for kernel in walking:
        assert len(contractions(kernel.program)) >= 3  # what is added to the state, what it gives, what pairs give


def test_a_factor_under_the_sum_makes_chunks_short() -> None:
    """Ratios for each pair of positions and each element grow with the square of a chunk."""
    lengths = {name: int(planned(name, LONG).note.split("chunks of ")[1].split(";")[0]) for name in ("retention", "gla")}
    assert lengths["gla"] < lengths["retention"]


@pytest.mark.parametrize("name", ["delta", "gated-delta", "titans"])
@pytest.mark.parametrize("sizes", [{}, LONG])
def test_states_that_read_themselves_become_matrix_products(name: str, sizes: dict[str, int]) -> None:
    """A triangular system in each chunk, whose inverse is products of matrices; all in one kernel, norms of keys among it."""
    found = planned(name, sizes)
    assert "in chunks of" in found.note
    (kernel,) = found.kernels
    assert len(contractions(kernel.program)) >= 11


def in_chunks(name: str, sizes: dict[str, int], length: int) -> list[ModulePlan]:
    """Plans in chunks of one length."""
    cascade = spec.load(EXAMPLES / f"{name}.yaml")
    plans = module_plans(cascade, gpu.load("h200"), {k: v for k, v in sizes.items() if k in cascade.symbols})
    return [one for one in plans if one.note.split(";")[0].endswith(f"in chunks of {length}")]


WIDE = {"B": 1, "H": 16, "M": 4096, "E": 128, "F": 128}


def test_what_no_state_goes_into_is_done_for_all_chunks_at_once() -> None:
    """Inverses and weights of pairs lie between two kernels; the one that walks chunks waits for fewer products in a row."""
    both = {len(one.kernels): one for one in in_chunks("titans", WIDE, 32)}
    whole, (before, walking) = both[1].kernels[0], both[2].kernels
    assert "m1" in before.program.grid
    assert walking.program.loop == "m1"
    assert len(contractions(before.program)) + len(contractions(walking.program)) == len(contractions(whole.program))
    assert len(contractions(walking.program)) == 8  # what both states hold for a key and a query; written, within, added
    assert walking.best.parts["latency"] < whole.best.parts["latency"] / 2


def test_a_chunk_may_be_too_much_for_one_kernel_alone() -> None:
    """Of states of 256 by 256 and matrices of pairs no tile fits; of states alone some do."""
    (found,) = in_chunks("delta", {**WIDE, "E": 256, "F": 256}, 32)
    assert len(found.kernels) == 2
    assert found.kernels[1].best.registers < 255


FADING = """
name: fading-by-channel
ranks: {h: H, m: M, e: E, f: F}
inputs: {R: [h, m, e], W: [h, m, e], K: [h, m, e], V: [h, m, f], A: [h, m, e], C: [h, m, e]}
sizes: {H: 16, M: 4096, E: 128, F: 128}
cascade: |
  G[h,m,e]     = exp(-exp(W[h,m,e]))
  S[h,0,e,f]   = 0
  U[h,m,f]     = A[h,m,e] * S[h,m,e,f]
  S[h,m+1,e,f] = G[h,m,e] * S[h,m,e,f] + C[h,m,e] * U[h,m,f] + K[h,m,e] * V[h,m,f]
  Y[h,m,f]     = R[h,m,e] * S[h,m+1,e,f]
outputs: [Y]
"""


def test_products_of_gates_for_each_channel_are_walked_by_channels() -> None:
    """For each pair of positions and each channel there is one: a kernel before walks channels, and no tile has them all. The state
    goes on by matrix products alone."""
    found = plan_module(spec.loads(FADING), gpu.load("h200"))
    before, walking = found.kernels
    assert "done before, for all chunks at once" in found.note
    assert before.program.loop == "e1"
    assert before.best.blocks["e0"] < 128
    assert walking.program.loop == "m1"
    assert len(contractions(walking.program)) >= 6


TWO_WRITES = """
name: two-writes
ranks: {m: M, e: E, f: F}
inputs: {Q: [m, e], K: [m, e], L: [m, e], V: [m, f], W: [m, f], A: [m], B: [m]}
sizes: {M: 256, E: 32, F: 32}
cascade: |
  S[0,e,f]   = 0
  R[m,f]     = K[m,e] * S[m,e,f]
  T[m,e,f]   = S[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * A[m]
  P[m,f]     = L[m,e] * T[m,e,f]
  S[m+1,e,f] = T[m,e,f] + L[m,e] * (W[m,f] - P[m,f]) * B[m]
  Y[m,f]     = Q[m,e] * S[m+1,e,f]
outputs: [Y]
"""
PROJECTED = """
name: projected
ranks: {m: M, d: D, e: E, f: F}
inputs: {Q: [m, e], X: [m, d], W: [d, e], V: [m, f]}
sizes: {M: 256, D: 32, E: 32, F: 32}
cascade: |
  K[m,e]     = X[m,d] * W[d,e]
  PK[m,e]    = relu(K[m,e])
  S[0,e,f]   = 0
  S[m+1,e,f] = S[m,e,f] + PK[m,e] * V[m,f]
  Y[m,f]     = Q[m,e] * S[m+1,e,f]
outputs: [Y]
"""


def test_a_rule_that_nobody_has_seen() -> None:
    """Two systems in each chunk, one eliminated from the other."""
    found = plan_module(spec.loads(TWO_WRITES), gpu.load("h200"))
    assert "in chunks of" in found.note
    (kernel,) = found.kernels
    assert len(contractions(kernel.program)) >= 20


def test_what_is_made_of_a_sum_is_not_taken_from_another_position() -> None:
    """Keys that are projected in the cascade lie in memory between two kernels: a tile of them is that of its own positions."""
    found = plan_module(spec.loads(PROJECTED), gpu.load("h200"))
    assert "in chunks of" in found.note
    assert len(found.kernels) == 2
    assert found.between in (("K",), ("PK",))


def test_steps_stay_steps() -> None:
    """No product of matrices comes of it."""
    assert "chunks" not in planned("rwkv", {}).note


def test_time_decides_where_no_matrix_product_comes_of_it() -> None:
    assert "chunks" in planned("ssm-selective", {}).note
    assert "chunks" not in planned("ssm-selective", {"B": 8, "M": 4096, "C": 2048, "S": 16}).note


def test_a_state_that_stays_is_walked_by_a_kernel_of_its_own() -> None:
    found = planned("lightnet", {**LONG, "E": 128, "F": 128})
    assert "S: `m` in chunks of" in found.note
    first, *_, last = found.kernels
    assert (first.program.loop, last.program.loop) == ("m", "m1")
    assert {"S_factor", "S_term"} <= set(found.between)


STABILISED = """
name: stabilised
ranks: {b: B, h: H, m: M, e: E, f: F}
inputs: {G: [b, h, m], I: [b, h, m], K: [b, h, m, e], Q: [b, h, m, e], V: [b, h, m, f]}
cascade: |
  P[b,h,0]       = -inf
  P[b,h,m+1]     = max(P[b,h,m] + G[b,h,m], I[b,h,m])
  R[b,h,m]       = exp(P[b,h,m] + G[b,h,m] - P[b,h,m+1])
  X[b,h,0,e,f]   = 0
  X[b,h,m+1,e,f] = R[b,h,m] * X[b,h,m,e,f] + exp(I[b,h,m] - P[b,h,m+1]) * K[b,h,m,e] * V[b,h,m,f]
  U[b,h,m,f]     = Q[b,h,m,e] * X[b,h,m+1,e,f]
  Y[b,h,m,f]     = U[b,h,m,f] * exp(P[b,h,m+1])
outputs: [Y]
"""


def test_positions_of_a_state_that_stays_lie_between_kernels() -> None:
    """What is read of it within its loop, by what goes chunk by chunk, is a tensor with an element for each step."""
    sizes = {"B": 4, "H": 16, "M": 2048, "E": 64, "F": 64}
    found = plan_module(spec.loads(STABILISED), gpu.load("h200"), sizes)
    assert "X: `m` in chunks of" in found.note
    assert [kernel.program.loop for kernel in found.kernels] == ["m", "m1"]
    assert "P_next" in found.between
    assert len(contractions(found.kernels[1].program)) >= 3


SLOTS = """
name: slots
ranks: {b: B, h: H, m: M, s: S, e: E, f: F}
inputs: {A: [b, h, m, s], K: [b, h, m, e], Q: [b, h, m, e], V: [b, h, m, f]}
cascade: |
  X[b,h,0,s,e]   = 0
  X[b,h,m+1,s,e] = A[b,h,m,s] * X[b,h,m,s,e] + (1 - A[b,h,m,s]) * K[b,h,m,e]
  Z[b,h,0,s,f]   = 0
  Z[b,h,m+1,s,f] = A[b,h,m,s] * Z[b,h,m,s,f] + (1 - A[b,h,m,s]) * V[b,h,m,f]
  L[b,h,m,s]     = Q[b,h,m,e] * X[b,h,m+1,s,e]
  P[b,h,m,s]     = exp(L[b,h,m,s] - max[s](L[b,h,m,s]))
  Y[b,h,m,f]     = sum[s](P[b,h,m,s] / sum[s](P[b,h,m,s]) * Z[b,h,m+1,s,f])
outputs: [Y]
"""
NORM = """
name: norm
ranks: {b: B, h: H, m: M, e: E, f: F}
inputs: {K: [b, h, m, e], Q: [b, h, m, e], V: [b, h, m, f]}
cascade: |
  X[b,h,0,e,f]   = 0
  X[b,h,m+1,e,f] = (1 - exp2(-5 - h)) * X[b,h,m,e,f] + K[b,h,m,e] * V[b,h,m,f]
  U[b,h,m,f]     = Q[b,h,m,e] * X[b,h,m+1,e,f]
  Y[b,h,m,f]     = U[b,h,m,f] * rsqrt(mean[f](U[b,h,m,f] ** 2) + 1e-6)
outputs: [Y]
"""


@pytest.mark.parametrize("text", [SLOTS, NORM], ids=["softmax over slots", "norm of the output"])
def test_where_all_else_is_whole_there_are_no_tiles_of_heads(text: str) -> None:
    """Every rank but batch and head is reduced: with a tile of heads each product would have an axis more than products have."""
    sizes = {"B": 4, "H": 16, "M": 2048, "S": 32, "E": 64, "F": 64}
    cascade = spec.loads(text)
    found = plan_module(cascade, gpu.load("h200"), {name: sizes[name] for name in cascade.symbols})
    assert "in chunks of" in found.note
    (kernel,) = found.kernels
    assert not {"b", "h"} & set(kernel.program.tiled)
    assert len(contractions(kernel.program)) >= 4


def test_every_length_is_the_same_function() -> None:
    cascade = prepared(spec.load(EXAMPLES / "vig.yaml"))
    sizes = {"B": 1, "H": 1, "M": 37, "E": 3, "F": 2}
    inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(0))
    expected = interpret.evaluate(cascade, inputs, sizes)["AV"]
    forms = list(chunked(cascade))
    assert [form.note for form in forms] == [f"SF, SB: `m` in chunks of {length}" for length in (16, 32, 64, 128)]
    for form in forms:
        assert form.cascade.symbols == cascade.symbols
        np.testing.assert_allclose(interpret.evaluate(form.cascade, inputs, sizes)["AV"], expected, rtol=1e-9, atol=1e-12)
