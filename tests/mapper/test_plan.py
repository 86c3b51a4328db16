"""Plans: predicted shared memory, legality, and what is never changed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Scalar, walk
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.sizes import bind
from einsmith.mapper import gpu
from einsmith.mapper.descriptors import Choice
from einsmith.mapper.gpu_time import Timing
from einsmith.mapper.plan import ROUNDED, Candidate, Plan, _Planner, plan
from einsmith.mapper.pressure import Pressure
from einsmith.mapper.products import PLAIN, contractions
from einsmith.mapper.program import program
from einsmith.mapper.stages import module_plans, plan_module
from einsmith.mapper.staging import Staging

from ..work import counted

ONE_PASS = """
name: one-pass
ranks: {b: B, h: H, p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, e: E, f: F}
inputs: {Q: [b, h, p, e], K: [b, h, m, e], V: [b, h, m, f]}
params: {scale: 1/sqrt(E)}
sizes: {M0: 64}
cascade: |
  QK[b,h,p,m1,m0]  = Q[b,h,p,e] * K[b,h,m1*M0+m0,e] * scale
  S[b,h,p,m1,m0]   = where(m1*M0+m0 <= p, QK[b,h,p,m1,m0], -inf)
  RM[b,h,0,p]      = -inf
  RM[b,h,m1+1,p]   = max(RM[b,h,m1,p], max[m0](S[b,h,p,m1,m0]))
  N[b,h,p,m1,m0]   = exp(S[b,h,p,m1,m0] - RM[b,h,m1+1,p])
  C[b,h,p,m1]      = exp(RM[b,h,m1,p] - RM[b,h,m1+1,p])
  RD[b,h,0,p]      = 0
  RD[b,h,m1+1,p]   = RD[b,h,m1,p] * C[b,h,p,m1] + sum[m0](N[b,h,p,m1,m0])
  RNV[b,h,0,p,f]   = 0
  RNV[b,h,m1+1,p,f] = RNV[b,h,m1,p,f] * C[b,h,p,m1] + sum[m0](N[b,h,p,m1,m0] * V[b,h,m1*M0+m0,f])
  AV[b,h,p,f]      = RNV[b,h,M1,p,f] / RD[b,h,M1,p]
outputs: [AV]
"""
SIZES = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
BLOCK_LOCAL = """
name: block-local
ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}}
inputs: {X: [p, m], V: [m]}
sizes: {M0: 8}
cascade: |
  G[p,m1]    = max[m0](X[p,m1*M0+m0])
  N[p,m1,m0] = exp(X[p,m1*M0+m0] - G[p,m1])
  D[p,m1]    = sum[m0](N[p,m1,m0])
  Y[p]       = sum[m1,m0](N[p,m1,m0] / D[p,m1] * V[m1*M0+m0])
outputs: [Y]
"""


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(spec.loads(ONE_PASS), gpu.load("h200"), SIZES, keep=1000)


def test_roles_and_what_is_staged(planned: Plan) -> None:
    assert planned.roles() == {"grid": ["b", "h"], "tiled": ["p"], "loop": ["m1"], "step": ["m0"], "whole": ["e", "f"]}
    assert [(o.tensor, o.every_step) for o in planned.operands] == [("Q", False), ("K", True), ("V", True)]


def test_shared_memory_is_that_of_the_staged_operands(planned: Plan) -> None:
    """2 bytes * D * (BM + 2 * BN * stages) on sm_90 from 64 rows on. Below, single warps do the products: one stage passes through
    registers, and so does the tile of weights through shared memory."""
    assert len(planned.candidates) > 20
    pipelined = [one for one in planned.candidates if one.stages > 1 and not one.described]
    for one in pipelined:
        rows, keys = one.blocks["p"], one.blocks["m0"]
        if rows >= 64:
            assert one.staged_bytes == 2 * 128 * (rows + 2 * keys * one.stages)
        else:
            assert one.staged_bytes == 2 * 128 * (rows + 2 * keys * (one.stages - 1)) + 2 * rows * keys
    assert len({one.blocks["p"] >= 64 for one in pipelined}) == 2


# rows, keys, warps, stages, bytes of operands at one time, bytes in all: of kernels compiled by Triton 3.7.1, features 128
COMPILED = {
    "a100": [
        (128, 64, 8, 3, 98304, 98304),
        (16, 128, 4, 2, 73728, 73728),
        (32, 256, 4, 1, 90112, 90112),
        (64, 32, 4, 3, 53248, 53248),
    ],
    "h200": [
        (128, 128, 8, 2, 163840, 163840),
        (128, 128, 8, 1, 65536, 65536),
        (16, 256, 4, 1, 77824, 77824),
        (32, 64, 4, 2, 45056, 45056),
    ],
    "b200": [(64, 16, 4, 2, 32800, 32800), (16, 64, 4, 4, 104448, 104448), (64, 128, 4, 2, 147488, 148480)],
    "mi300x": [(32, 16, 8, 2, 9216, 9216), (128, 128, 4, 1, 32768, 32768), (16, 64, 4, 1, 16384, 16384)],
}


@pytest.mark.parametrize("name", COMPILED)
def test_shared_memory_is_what_compilers_took(name: str) -> None:
    cascade, target = spec.loads(ONE_PASS), gpu.load(name)
    staging = Staging(program(cascade, bind(cascade, SIZES).extents), target, PLAIN, exact=False)
    for rows, keys, warps, stages, operands, total in COMPILED[name]:
        found = staging({"p": rows, "m0": keys, "e": 128, "f": 128}, warps, stages)
        assert found.operands == pytest.approx(operands, rel=0.02)
        assert 0.95 * total <= found.total <= 1.3 * total


# rows, keys, warps, registers a thread, bytes spilled: two stages
REGISTERS = {
    "a100": [(16, 128, 4, 237, 0), (16, 16, 4, 80, 0), (128, 64, 8, 255, 0), (32, 256, 4, 255, 792)],
    "h200": [(64, 64, 8, 170, 0), (64, 32, 4, 159, 0), (16, 256, 4, 255, 592)],
    "b200": [(128, 16, 4, 224, 0), (16, 64, 4, 140, 0), (64, 128, 4, 255, 264)],
    "mi300x": [(128, 128, 4, 405, 0), (64, 32, 4, 166, 0)],
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers_are_near_what_compilers_took(name: str) -> None:
    """And what spilled by more than a few values is never offered."""
    cascade, target = spec.loads(ONE_PASS), gpu.load(name)
    pressure = Pressure(program(cascade, bind(cascade, SIZES).extents), target, PLAIN, exact=False)
    candidates = plan(cascade, target, SIZES, keep=1000, descriptors="off").candidates
    offered = {(one.blocks["p"], one.blocks["m0"], one.warps) for one in candidates if one.stages == 2}
    for rows, keys, warps, registers, spilled in REGISTERS[name]:
        found = pressure({"p": rows, "m0": keys, "e": 128, "f": 128}, warps, 2)
        assert (rows, keys, warps) not in offered if spilled else 0.7 * registers < found.likely < 1.4 * registers


def test_no_candidate_exceeds_the_gpu(planned: Plan) -> None:
    h200 = planned.gpu
    for one in planned.candidates:
        assert one.shared_bytes <= h200.shared_memory.per_block
        assert one.registers <= h200.registers.per_thread
        assert one.registers * one.warps * 32 * one.blocks_per_multiprocessor <= h200.registers.per_multiprocessor
    assert len(planned.candidates) < planned.searched, "some choices do not fit"


def test_candidates_are_ranked_and_bounded_below_by_each_resource(planned: Plan) -> None:
    for earlier, later in itertools.combinations(planned.candidates, 2):
        assert earlier.predicted_s <= 1.02 * later.predicted_s * (1 + 1e-9), "up to two in a hundred"
        if earlier.predicted_s == later.predicted_s:
            assert earlier.blocks["p"] >= later.blocks["p"], "fewer program instances first"
    assert planned.best.predicted_s <= 1.02 * min(one.predicted_s for one in planned.candidates)
    for one in planned.candidates:
        assert one.predicted_s >= max(one.parts.values())
    # half of the scores of a causal mask are dead: 4 * B*H*P*M*D operations / 2 at least
    least = 2 * 4 * 16 * 4096 * 4096 * 128 / 790e12
    assert planned.best.predicted_s > least
    assert planned.best.parts["matrix units"] < 1.3 * least


def test_few_that_may_spill_are_offered_first_where_they_are_worth_it() -> None:
    """On an A100 the whole operands of 128 queries and 64 keys exceed the registers, and compilers have found room (255, nothing
    spilled): offered once, before the others."""
    found = plan(spec.loads(ONE_PASS), gpu.load("a100"), SIZES, keep=1000).candidates
    assert [one.tight for one in found] == [True] + [False] * (len(found) - 1)
    assert (found[0].blocks["p"], found[0].blocks["m0"], found[0].warps) == (128, 64, 8)
    assert found[0].predicted_s < 0.9 * found[1].predicted_s


def test_a_smaller_gpu_gets_smaller_tiles() -> None:
    cascade, h200 = spec.loads(ONE_PASS), gpu.load("h200")
    small = replace_shared(h200, 48 * 1024)
    assert max(c.shared_bytes for c in plan(cascade, small, SIZES, keep=1000).candidates) <= 48 * 1024
    with pytest.raises(EinsmithError) as raised:
        plan(cascade, replace_shared(h200, 1024), SIZES)
    assert raised.value.diagnostics[0].code == "E605"
    assert "at most 1,024" in raised.value.diagnostics[0].message


def replace_shared(target: gpu.Gpu, size: int) -> gpu.Gpu:
    return target.model_copy(update={"shared_memory": target.shared_memory.model_copy(update={"per_block": size})})


def test_a_tile_that_is_part_of_the_meaning_is_kept() -> None:
    found = plan(spec.loads(BLOCK_LOCAL), gpu.load("h200"), {"P": 256, "M": 256})
    assert found.tile_fixed
    assert {one.blocks["m0"] for one in found.candidates} == {8}
    assert any("m0" in note for note in found.notes)


def test_the_tile_of_an_output_along_its_parts_is_kept() -> None:
    """The shape of the output follows the tile: another tile is another function."""
    cascade = spec.loads(
        "ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0}}\ninputs: {X: [p, m]}\nsizes: {M0: 4}\ncascade: |\n"
        "  A[p,0] = 0\n  A[p,m1+1] = A[p,m1] + sum[m0](X[p,m1*M0+m0])\n  Y[p,m1] = A[p,m1+1]\noutputs: [Y]\n"
    )
    found = plan(cascade, gpu.load("h200"), {"P": 64, "M": 10})
    assert "the tile of `m0` is 4: it is part of the cascade or was given" in str(found)


NORMALISED_KEYS = """
name: normalised-keys
ranks: {b: B, p: P, m: M, e: E, f: F}
inputs: {Q: [b, p, e], K: [b, m, e], V: [b, m, f]}
sizes: {B: 2, P: 512, M: 512, E: 64, F: 64}
cascade: |
  L[b,m]    = sum[e](K[b,m,e] * K[b,m,e])
  KN[b,m,e] = K[b,m,e] / sqrt(L[b,m])
  S[b,p,m]  = Q[b,p,e] * KN[b,m,e]
  W[b,p,m]  = sigmoid(S[b,p,m])
  Y[b,p,f]  = W[b,p,m] * V[b,m,f]
outputs: [Y]
"""


@pytest.mark.parametrize("length", [16, 512, 4096])
def test_keys_that_are_normalised_in_the_cascade_leave_the_queries_parallel(length: int) -> None:
    """The norm of a key lacks the rank of the queries: it is computed again for each tile of them, which costs less than a tile of
    all queries, that fits no block."""
    found = plan(spec.loads(NORMALISED_KEYS), gpu.load("h200"), {"P": length, "M": 512})
    assert "p" not in found.program.whole
    assert len(found.program.tiled) >= 1
    assert len(contractions(found.program)) == 2


PROJECTED_KEYS = """
name: projected-keys
ranks: {h: H, p: P, m: M, c: C, e: E}
inputs: {Q: [h, p, e], X: [m, c], W: [h, c, e]}
sizes: {H: 4, P: 64, M: 64, C: 32, E: 16}
cascade: |
  K[h,m,e] = X[m,c] * W[h,c,e]
  S[h,p,m] = Q[h,p,e] * K[h,m,e]
  A[h,p,m] = sigmoid(S[h,p,m])
  Y[h,p,e] = A[h,p,m] * K[h,m,e]
outputs: [Y]
"""


def test_ranks_are_arranged_for_matrix_products() -> None:
    """Two tiles of heads would share X, but then no sum is a product of two matrices."""
    found = plan(spec.loads(PROJECTED_KEYS), gpu.load("h200"))
    assert "h" not in found.program.tiled
    assert len(contractions(found.program)) == 3


def test_a_tile_that_is_not_is_searched(planned: Plan) -> None:
    assert not planned.tile_fixed
    assert len({one.blocks["m0"] for one in planned.candidates}) > 2


def test_exact_float32_products_go_to_the_vector_lanes() -> None:
    exact = plan(spec.loads(ONE_PASS), gpu.load("h200"), SIZES, dtype="float32")
    rounded = plan(spec.loads(ONE_PASS), gpu.load("h200"), SIZES, dtype="float32", allow_tf32=True)
    assert exact.best.parts["matrix units"] == 0
    assert exact.best.parts["vector lanes"] > 5 * rounded.best.parts["vector lanes"]
    assert rounded.best.predicted_s < exact.best.predicted_s


def test_the_search_is_quick() -> None:
    cascade, h200 = spec.loads(ONE_PASS), gpu.load("h200")
    _, events = counted(lambda: plan(cascade, h200, SIZES))
    assert events < 5_000_000


BOUNDED = [
    ("softmax-causal", "h200", {"P": 2048, "M": 2048}, "auto"),
    ("gqa", "mi300x", {}, "auto"),
    ("mla", "b200", {}, "auto"),
    ("channel", "h100", {}, "on"),
    ("layer-norm-matmul", "rtx4090", {}, "auto"),
]


@pytest.mark.parametrize(("name", "target", "sizes", "persistent"), BOUNDED)
def test_what_the_search_leaves_out_is_no_better(
    name: str, target: str, sizes: dict[str, int], persistent: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = spec.load(Path("examples/attention") / f"{name}.yaml")
    own = {symbol: value for symbol, value in sizes.items() if symbol in cascade.symbols}
    looked_at = 0
    candidate_of = _Planner._candidate

    def checked(
        self: _Planner, blocks: dict[str, int], warps: int, stages: int, timing: Timing
    ) -> Candidate | tuple[int, str]:  # fmt: skip
        nonlocal looked_at
        looked_at += 1
        found = candidate_of(self, blocks, warps, stages, timing)
        if isinstance(found, Candidate):
            assert found.predicted_s >= least(timing, blocks, warps) * ROUNDED
        return found

    least = Timing.least
    monkeypatch.setattr(_Planner, "_candidate", checked)
    short = plan_module(cascade, gpu.load(target), own, persistent=persistent)
    few, looked_at = looked_at, 0
    monkeypatch.setattr(Timing, "least", lambda *_: 1e-12)
    whole = plan_module(cascade, gpu.load(target), own, persistent=persistent)
    assert short.as_json() == whole.as_json()
    assert few < looked_at


def test_json_holds_block_sizes_and_predictions(planned: Plan) -> None:
    found = replace(planned, candidates=planned.candidates[:3]).as_json()
    assert found["plan"]["shared_bytes"] == planned.best.shared_bytes
    for one in found["candidates"]:
        assert {"BLOCK_P", "BLOCK_M0", "warps", "stages", "shared_bytes", "predicted_s", "bound"} <= set(one)
    assert "nothing here was measured" in str(planned)


def test_a_rank_that_was_to_be_held_whole_is_derived_when_it_is_walked() -> None:
    """A window of 513 keys fits no block: walked as written it would take three sweeps."""
    cascade = spec.load(Path(__file__).parents[2] / "examples" / "attention" / "sliding-window.yaml")
    found = plan(cascade, gpu.load("h200"), {**SIZES, "E": 64, "F": 64, "W": 256})
    assert len(found.program.loops) == 1
    assert "derived: 1 instead of 3 passes over `w`" in found.notes


def test_a_rank_that_the_user_has_cut_is_derived_too() -> None:
    """The textbook form over tiles: whether the rank is cut already says nothing about its passes."""
    text = """
name: over-tiles
ranks: {h: H, p: P, m: {extent: M, split: [m1, m0], tile: M0}, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
sizes: {H: 8, P: 512, M: 512, M0: 64, E: 64, F: 64}
cascade: |
  S[h,p,m1,m0] = Q[h,p,e] * K[h,m1*M0+m0,e]
  N[h,p,m1,m0] = exp(S[h,p,m1,m0] - max[m1,m0](S[h,p,m1,m0]))
  O[h,p,f]     = sum[m1,m0](N[h,p,m1,m0] * V[h,m1*M0+m0,f]) / sum[m1,m0](N[h,p,m1,m0])
outputs: [O]
"""
    found = plan_module(spec.loads(text), gpu.load("h200"))
    (kernel,) = found.kernels
    assert len(kernel.program.loops) == 1
    assert found.note == "derived: 1 instead of 2 passes over `m`"


def test_products_that_no_tile_of_one_kernel_can_do_are_kernels_of_their_own() -> None:
    """Heads are mixed before and after a softmax: one kernel would hold all of them in a tile, and a product has two sides."""
    text = """
name: mixed-heads
ranks: {i: H, h: H, o: H, p: P, m: M, e: E, f: F}
inputs: {Q: [i, p, e], K: [i, m, e], V: [o, m, f], X: [i, h], Y: [h, o]}
params: {scale: 1/sqrt(E)}
sizes: {H: 8, P: 512, M: 512, E: 64, F: 64}
cascade: |
  J[i,p,m] = Q[i,p,e] * K[i,m,e] * scale
  L[h,p,m] = J[i,p,m] * X[i,h]
  N[h,p,m] = exp(L[h,p,m] - max[m](L[h,p,m]))
  A[h,p,m] = N[h,p,m] / sum[m](N[h,p,m])
  U[o,p,m] = A[h,p,m] * Y[h,o]
  O[o,p,f] = U[o,p,m] * V[o,m,f]
outputs: [O]
"""
    first, *others = module_plans(spec.loads(text), gpu.load("h200"))
    assert first.between == ("J", "U")
    assert [kernel.merit.products > 0 for kernel in first.kernels] == [True, True, True]
    single = next(one for one in others if len(one.kernels) == 1)
    assert single.merit.products == 0
    assert first.predicted_s < single.predicted_s / 2


def test_a_recurrence_beside_a_softmax_is_a_kernel_of_its_own() -> None:
    """An average over earlier keys is added to the scores: a kernel that walked both would go along the keys three times."""
    text = """
name: averaged-bias
ranks: {h: H, p: P, m: M, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f], U: [h, m]}
params: {decay: 0.9}
sizes: {H: 8, P: 4096, M: 4096, E: 64, F: 64}
cascade: |
  X[h,0]   = 0
  X[h,m+1] = decay * X[h,m] + U[h,m]
  S[h,p,m] = sum[e](Q[h,p,e] * K[h,m,e]) + X[h,m+1]
  N[h,p,m] = exp(S[h,p,m] - max[m](S[h,p,m]))
  O[h,p,f] = sum[m](N[h,p,m] * V[h,m,f]) / sum[m](N[h,p,m])
outputs: [O]
"""
    first, *others = module_plans(spec.loads(text), gpu.load("h200"))
    assert first.between == ("X_next",)
    assert [len(kernel.program.loops) for kernel in first.kernels] == [1, 1]
    assert first.note.endswith("derived: 1 instead of 2 passes over `m`")
    assert all(first.predicted_s < other.predicted_s for other in others)


@pytest.mark.parametrize("empty", "BHPMF")
def test_what_is_empty_has_a_plan(empty: str) -> None:
    """It takes a launch: a module that is planned for no batch at all runs at other sizes, too."""
    sizes = {"B": 2, "H": 2, "P": 64, "M": 64, "E": 16, "F": 16, empty: 0}
    for name in ("softmax", "softmax-causal"):
        cascade = spec.load(Path("examples/attention") / f"{name}.yaml")
        assert 0 < plan_module(cascade, gpu.load("h200"), sizes).predicted_s < 1e-5


def test_functions_take_the_instructions_that_compilers_make_of_them() -> None:
    """A cap on the scores is 2 special functions and 20 instructions of the lanes for each; a power of 4 is multiplications."""
    text = """
name: capped
ranks: {h: H, p: P, m: M, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
sizes: {H: 16, P: 8192, M: 8192, E: 64, F: 64}
cascade: |
  S[h,p,m] = sum[e](Q[h,p,e] * K[h,m,e])
  W[h,p,m] = S[h,p,m]
  O[h,p,f] = W[h,p,m] * V[h,m,f]
outputs: [O]
"""
    scores, h200 = 16 * 8192 * 8192, gpu.load("h200")
    blocks = {"p": 128, "m0": 64, "e": 64, "f": 64}

    def parts(function: str) -> dict[str, float]:
        found = plan(spec.loads(text.replace("= S[h,p,m]", f"= {function}")), h200, keep=1000)
        return next(one for one in found.candidates if one.blocks == blocks).parts

    plain, capped, power = parts("max(S[h,p,m], 0)"), parts("tanh(S[h,p,m])"), parts("S[h,p,m] ** 4")
    assert capped["special functions"] == pytest.approx(2 * scores / h200.special_rate, rel=0.05)
    assert capped["vector lanes"] - plain["vector lanes"] == pytest.approx(19 * scores / h200.vector_rate, rel=0.05)
    assert power["special functions"] == plain["special functions"] == 0


def test_keys_that_are_turned_by_their_positions_are_turned_once() -> None:
    """Each tile of queries would take the sines of all keys again."""
    text = """
name: turned
ranks: {h: H, p: N, m: N, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
params: {scale: 1/sqrt(E)}
sizes: {H: 8, N: 4096, E: 64, F: 64}
cascade: |
  X[h,m,e] = K[h,m,e] * cos(m / (e + 1)) + K[h,m,(e + E//2) % E] * sin(m / (e + 1))
  S[h,p,m] = Q[h,p,e] * X[h,m,e] * scale
  N1[h,p,m] = exp(S[h,p,m] - max[m](S[h,p,m]))
  O[h,p,f] = sum[m](N1[h,p,m] * V[h,m,f]) / sum[m](N1[h,p,m])
outputs: [O]
"""
    first, *others = module_plans(spec.loads(text), gpu.load("h200"))
    assert first.between == ("X",)
    single = next(one for one in others if len(one.kernels) == 1)
    assert first.predicted_s < 0.75 * single.predicted_s


@pytest.mark.parametrize("sizes", [{"H": 0}, {"H": 4, "HK": 8}])
def test_groups_of_nothing_are_not_made(sizes: dict[str, int]) -> None:
    text = """
name: grouped
ranks: {h: H, g: HK, p: P, m: M, e: E}
inputs: {Q: [h, p, e], K: [g, m, e], V: [g, m, e]}
params: {G: H//HK}
sizes: {H: 4, HK: 2, P: 48, M: 48, E: 32}
cascade: |
  S[h,p,m] = Q[h,p,e] * K[h//G,m,e]
  A[h,p,e] = sum[m](exp(S[h,p,m]) * V[h//G,m,e])
outputs: [A]
"""
    found = plan(spec.loads(text), gpu.load("h200"), sizes)
    assert all(Scalar("G") not in walk(rank.extent) for rank in found.program.cascade.ranks)


def test_no_more_instances_than_a_launch_has() -> None:
    """With a batch of millions only tall tiles are few enough; of billions of heads not even those."""
    cascade, h200 = spec.loads(ONE_PASS), gpu.load("h200")
    many = {**SIZES, "B": 2**20, "H": 1, "P": 2**17}
    found = plan(cascade, h200, many)
    assert all(many["B"] * -(-many["P"] // one.blocks["p"]) < 2**31 for one in found.candidates)
    with pytest.raises(EinsmithError, match="program instances \\(at most 2,147,483,647\\)"):
        plan(cascade, h200, {**many, "H": 2**20})
