"""The cost model against numbers worked out by hand: other sides, tiles, operation costs, shapes and cascades, all by one path."""

from __future__ import annotations

import re

import pytest

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import Cost, model

# --- one head of the one-pass cascade on FuseMax's hardware -----------------------------------------------------------

FLASH = (EXAMPLES / "attention" / "fusemax.yaml").read_text(encoding="utf-8")
BYTES_A_CYCLE = 400 * 2**30 / 940e6
PER_SCORE = 1 + 7 + 1
"""Cycles of a tile on the 2-D array besides the two products: the maximum, exp with its subtraction, the sum."""
PER_ROW = 1 + 7 + 1 + 1
"""Cycles of a tile on the 1-D array besides what is done for each value: RM, PRM, SPD, RD."""


def binding(*, p: int = 256, m0: int = 256, in_flight: int = 12, hold: str = "[K, V]") -> str:
    """FuseMax's binding with all queries held at once."""
    text = mapping.load("fusemax-binding").as_yaml()
    for old, new in (
        ("tile: 1024", "tile: 1048576"), ("rank: p, tile: 256", f"rank: p, tile: {p}"), ("M0: 256", f"M0: {m0}"),
        ("in_flight: 12", f"in_flight: {in_flight}"), ("hold: [K, V]", f"hold: {hold}"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    return text


def flash(
    how: str, settings: tuple[str, ...] = (), text: str = FLASH, b: int = 1, h: int = 1, p: int = 1024, m: int = 1024,
    e: int = 64, f: int = 64,
) -> Cost:  # fmt: skip
    arch = architecture.load("fusemax", settings)
    sizes = {"B": b, "H": h, "P": p, "M": m, "E": e, "F": f}
    return model(spec.loads(text), arch, mapping.loads(how), sizes, {"scale": 1})


def busy(found: Cost) -> tuple[float, float]:
    times = found.groups[0].timing.busy
    return times["array2d"], times["array1d"]


def test_sides_128_by_256() -> None:
    side = ("array2d.side=[128,256]",)
    # tiles of 128 keys x 256 queries: 8 x 4, each as long as one of 256 x 256 on the square array; the division of 4 blocks besides
    found = flash(binding(m0=128), side)
    assert busy(found) == (32 * (64 + PER_SCORE + 64), 32 * (PER_ROW + 64 + 64) + 4 * 64) == (4384, 4672)
    assert (found.cycles, found.groups[0].timing.bound_by) == (4672, "array1d")
    # tiles of 256 keys are two folds: the correction is done half as often, and the 2-D array bounds; two scores a lane
    found = flash(binding(m0=256, in_flight=6), side)
    assert busy(found) == (16 * 2 * 137, 16 * 138 + 4 * 64) == (4384, 2464)
    assert (found.cycles, found.groups[0].timing.bound_by) == (4384, "array2d")
    assert found.utilization == {"array2d": 1.0, "array1d": pytest.approx(2464 / 4384)}


def test_two_array_tiles_per_correction() -> None:
    with pytest.raises(EinsmithError) as refused:
        flash(binding(m0=512), p=4096, m=4096)
    assert refused.value.diagnostics[0].code == "E521"  # 12 tiles in flight with two scores a lane: 24 words of 12
    found = flash(binding(m0=512, in_flight=6), p=4096, m=4096)
    # 8 x 16 tiles of two folds
    assert busy(found) == (128 * 2 * 137, 128 * 138 + 16 * 64) == (35072, 18688)
    assert (found.cycles, found.groups[0].timing.bound_by) == (35072, "array2d")
    assert found.utilization["array2d"] == 1.0
    half = flash(binding(), p=4096, m=4096)
    assert busy(half) == (35072, 256 * 138 + 16 * 64)
    assert half.cycles == 36352


def test_exp_in_one_cycle() -> None:
    one = tuple(f"{array}.expansions.exp={{mac: 1}}" for array in ("array2d", "array1d"))
    found = flash(binding(), one)
    # 2 cycles instead of 7 with the subtraction, in SLN and in PRM
    assert busy(found) == (16 * (137 - 5), 16 * (138 - 5) + 4 * 64) == (2112, 2384)
    assert found.cycles == 2384


def test_queries_and_values_of_other_widths() -> None:
    found = flash(binding(), e=32, f=96)
    assert busy(found) == (16 * (32 + PER_SCORE + 96), 16 * (PER_ROW + 96 + 96) + 4 * 96) == (2192, 3616)
    assert found.traffic_bytes == 2 * (1024 * 32 + 1024 * 32 + 1024 * 96 + 1024 * 96)


def test_more_keys_than_queries() -> None:
    found = flash(binding(), p=512, m=2048)
    assert busy(found) == (2 * 8 * 137, 2 * 8 * 138 + 2 * 64) == (2192, 2336)
    assert found.traffic_bytes == 2 * (512 * 64 + 2048 * 64 + 2048 * 64 + 512 * 64)


def test_lengths_that_the_array_does_not_divide() -> None:
    found = flash(binding(), p=1000, m=257)
    # 4 tiles of queries, 2 of keys, each as long as a whole one
    assert busy(found) == (8 * 137, 8 * 138 + 4 * 64)
    operations = found.per_einsum["SLNV"].operations["mac"]
    assert operations == pytest.approx(1000 * 257 * 64)
    assert found.utilization["array2d"] == pytest.approx(1000 * 257 * 137 / 65536 / (8 * 138 + 4 * 64))


def test_one_query() -> None:
    found = flash(binding(p=1), p=1, m=4096)
    # every key and value comes once, for one column of the array: 16 tiles; what is moved bounds it, by a little
    words = 2 * 4096 * 64 + 2 * 64
    assert busy(found) == (16 * 137, 16 * 138 + 64) == (2192, 2272)
    assert found.traffic_bytes == 2 * words
    assert found.cycles == pytest.approx(2 * words / BYTES_A_CYCLE)
    assert found.groups[0].timing.bound_by == "dram"
    assert found.utilization["array2d"] == pytest.approx(16 * 137 / 256 / found.cycles)


GROUPED = (
    re.sub(r"\b([KV])\[b,h,", r"\1[b,h//G,", FLASH.replace("K: [b, h", "K: [b, g").replace("V: [b, h", "V: [b, g"))
    .replace("h: H,", "g: KV, h: KV*G,")
    .replace("H: 2", "KV: 2, G: 4")
)
"""The same with G heads of queries on each head of keys and values."""


@pytest.mark.parametrize("whole, times", [(False, 4), (True, 1)], ids=["tile by tile", "whole"])
def test_grouped_queries(whole: bool, times: int) -> None:
    # 8 heads of queries on 2 of keys. Streamed tile by tile the keys come for each head of queries. Held whole from the loop over
    # heads on, they come once for the four heads that share them
    how = binding()
    if whole:
        how = binding(hold="[]").replace("{rank: h, tile: 1}", "{rank: h, tile: 1, hold: [K, V]}")
    sizes = {"B": 1, "KV": 2, "G": 4, "P": 512, "M": 1024, "E": 64, "F": 64}
    found = model(spec.loads(GROUPED), architecture.load("fusemax"), mapping.loads(how), sizes, {"scale": 1})
    words = found.groups[0].traffic_words
    assert words["read"] == {"Q": 8 * 512 * 64, "K": times * 2 * 1024 * 64, "V": times * 2 * 1024 * 64}
    assert words["write"] == {"AV": 8 * 512 * 64}
    assert busy(found) == (8 * 8 * 137, 8 * (8 * 138 + 2 * 64))


# --- other cascades on the teaching array -----------------------------------------------------------------------------

# 32 x 32 lanes of MACs whose folds do not overlap (62 cycles each), 32 lanes with exp and divide of 4 cycles, 16 bytes a cycle


def teach(text: str, how: str, **sizes: int) -> Cost:
    return model(spec.loads(text), architecture.load("teaching-32x32"), mapping.loads(how), sizes)


DEFERRED = """
name: deferred
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
params: {scale: 1}
cascade: |
  QK[p,m]  = Q[p,e] * K[m,e] * scale
  GM[p]    = max[m](QK[p,m])
  SN[p,m]  = exp(QK[p,m] - GM[p])
  SD[p]    = sum[m](SN[p,m])
  SNV[p,f] = SN[p,m] * V[m,f]
  AV[p,f]  = SNV[p,f] / SD[p]
outputs: [AV]
"""
SOFTMAX_BINDINGS = """
  einsums:
    QK: {array: grid, spatial: [m, p]}
    GM: {array: vector, spatial: [p]}
    SN: {array: vector, spatial: [p]}
    SD: {array: vector, spatial: [p]}
    SNV: {array: grid, spatial: [f, p]}
    AV: {array: vector, spatial: [p]}
"""


def test_the_two_pass_cascade_row_by_row() -> None:
    how = "groups:\n- loops: [{rank: p, tile: 32, hold: [Q]}]" + SOFTMAX_BINDINGS
    found = teach(DEFERRED, how, P=96, M=64, E=16, F=24)
    # a tile of 32 queries: QK two folds of 16 + 62 cycles; 64 maxima; 64 subtractions and exps of 4; 64 sums;
    # SNV one fold (24 of 32 rows) of 64 + 62 cycles; 24 divisions of 4
    assert {name: einsum.cycles / 3 for name, einsum in found.per_einsum.items()} == {
        "QK": 2 * 78, "GM": 64, "SN": 64 * 5, "SD": 64, "SNV": 126, "AV": 96,
    }  # fmt: skip
    assert found.cycles == 3 * (156 + 64 + 320 + 64 + 126 + 96) == 2478
    # K and V do not move: they come once
    assert found.groups[0].traffic_words == {"read": {"Q": 96 * 16, "K": 64 * 16, "V": 64 * 24}, "write": {"AV": 96 * 24}}
    # Q and AV in two slots, K and V in one, and what is made, all of a tile
    words = 2 * 32 * 16 + 64 * 16 + 64 * 24 + 32 * 64 + 32 + 32 * 64 + 32 + 32 * 24 + 2 * 32 * 24
    assert found.groups[0].buffer_need == 2 * words


def test_the_two_pass_cascade_tile_by_tile_is_refused() -> None:
    how = "groups:\n- loops: [{rank: p, tile: 32, hold: [Q]}, {rank: m, tile: 32}]" + SOFTMAX_BINDINGS
    with pytest.raises(EinsmithError) as refused:
        teach(DEFERRED, how, P=96, M=64, E=16, F=24)
    assert refused.value.diagnostics[0].code == "E511"
    assert "pass" in str(refused.value)


def test_two_passes_are_two_groups() -> None:
    # first sweep: maxima; second: the rest. The scores go out and come back
    how = """
groups:
- loops: [{rank: p, tile: 32, hold: [Q]}, {rank: m, tile: 32}]
  einsums: {QK: {array: grid, spatial: [m, p]}, GM: {array: vector, spatial: [p]}}
- loops: [{rank: p, tile: 32}, {rank: m, tile: 32}]
  einsums:
    SN: {array: vector, spatial: [p]}
    SD: {array: vector, spatial: [p]}
    SNV: {array: grid, spatial: [f, p]}
    AV: {array: vector, spatial: [p]}
"""
    found = teach(DEFERRED, how, P=96, M=64, E=16, F=24)
    first, second = (group.traffic_words for group in found.groups)
    assert first == {"read": {"Q": 96 * 16, "K": 3 * 64 * 16}, "write": {"GM": 96, "QK": 96 * 64}}
    assert second == {"read": {"QK": 96 * 64, "GM": 96, "V": 3 * 64 * 24}, "write": {"AV": 96 * 24}}
    assert found.per_einsum["SNV"].cycles == 3 * 2 * (32 + 62)


LINEAR = """
name: linear
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  PK[m,e] = exp(K[m,e])
  KV[e,f] = PK[m,e] * V[m,f]
  KS[e]   = sum[m](PK[m,e])
  N[p,f]  = Q[p,e] * KV[e,f]
  D[p]    = Q[p,e] * KS[e]
  AV[p,f] = N[p,f] / D[p]
outputs: [AV]
"""


def test_linear_attention() -> None:
    how = """
groups:
- loops: [{rank: m, tile: 16}]
  einsums: {PK: {array: vector, spatial: [e]}, KV: {array: grid, spatial: [e, f]}, KS: {array: vector, spatial: [e]}}
- loops: [{rank: p, tile: 32}]
  schedule: pipelined
  einsums:
    N: {array: grid, spatial: [p, f]}
    D: {array: vector, spatial: [p]}
    AV: {array: vector, spatial: [p]}
"""
    found = teach(LINEAR, how, P=96, M=64, E=32, F=20)
    # group 1, 4 tiles of 16 keys: 16 exps of 4 cycles a lane, a fold of 16 + 62, 16 sums
    assert {name: found.per_einsum[name].cycles for name in ("PK", "KV", "KS")} == {"PK": 4 * 64, "KV": 4 * 78, "KS": 4 * 16}
    assert found.groups[0].timing.cycles == 4 * (64 + 78 + 16)
    assert found.groups[0].traffic_words == {"read": {"K": 64 * 32, "V": 64 * 20}, "write": {"KV": 32 * 20, "KS": 32}}
    # group 2, 3 tiles of 32 queries: N (32 + 62) beside D (32), then 20 divisions of 4; 11,328 bytes take longer
    assert found.groups[1].timing.dependences == 3 * (94 + 80) == 522
    assert found.groups[1].timing.cycles == 2 * (96 * 32 + 32 * 20 + 32 + 96 * 20) / 16 == 708
    assert found.groups[1].traffic_words == {"read": {"Q": 96 * 32, "KV": 32 * 20, "KS": 32}, "write": {"AV": 96 * 20}}


CHAIN = """
name: chain
ranks: {i: I, j: J, k: K, l: L}
inputs: {A: [i, j], B: [j, k], C: [k, l]}
cascade: |
  X[i,k] = A[i,j] * B[j,k]
  Y[i,l] = X[i,k] * C[k,l]
outputs: [Y]
"""


def test_a_chain_of_products_fused_and_apart() -> None:
    sizes = {"I": 64, "J": 40, "K": 50, "L": 30}
    fused = """
groups:
- loops: [{rank: i, tile: 32, hold: [A]}]
  einsums: {X: {array: grid, spatial: [i, k]}, Y: {array: grid, spatial: [i, l]}}
"""
    apart = """
groups:
- loops: [{rank: i, tile: 32, hold: [A]}]
  einsums: {X: {array: grid, spatial: [i, k]}}
- loops: [{rank: i, tile: 32, hold: [X]}]
  einsums: {Y: {array: grid, spatial: [i, l]}}
"""
    one, two = teach(CHAIN, fused, **sizes), teach(CHAIN, apart, **sizes)
    # 2 tiles: X two folds of 40 + 62, Y one fold of 50 + 62
    work = 2 * (2 * 102 + 112)
    assert one.groups[0].timing.busy["grid"] == work == 632
    inputs = 64 * 40 + 40 * 50 + 50 * 30
    assert one.traffic_bytes == 2 * (inputs + 64 * 30)
    assert two.traffic_bytes == one.traffic_bytes + 2 * 2 * 64 * 50  # X out and back
    # 16 bytes a cycle: fused 998 cycles; apart 970 and 828
    assert one.cycles == max(632, 2 * (inputs + 64 * 30) / 16) == 997.5
    assert two.cycles == 2 * (64 * 40 + 40 * 50 + 64 * 50) / 16 + 2 * (64 * 50 + 50 * 30 + 64 * 30) / 16
    assert one.utilization["grid"] == pytest.approx(64 * (40 * 50 + 50 * 30) / 1024 / 997.5)


# --- four cores with memories of their own ----------------------------------------------------------------------------


def test_a_product_on_four_cores_of_a_tpu() -> None:
    text = """
name: product
ranks: {i: I, j: J, k: K}
inputs: {A: [i, j], B: [j, k]}
cascade: |
  C[i,k] = A[i,j] * B[j,k]
outputs: [C]
"""
    how = """
groups:
- schedule: interleaved
  in_flight: 2
  loops:
  - {rank: i, tile: 256, over: local, hold: {buffer: [A], local: [A]}}
  - {rank: k, tile: 128}
  - {rank: j, tile: 128, hold: {mxu: [B]}}
  einsums: {C: {array: mxu, spatial: [j, k]}}
  stay: {C: local}
"""
    arch = architecture.load("tpu-v4i")
    found = model(spec.loads(text), arch, mapping.loads(how), {"I": 1024, "J": 512, "K": 512})
    group = found.groups[0]
    # each core: 4 x 4 tiles of weights, 256 rows streamed through each: every lane at work all the time
    assert group.timing.busy["mxu"] == found.cycles == 16 * 256
    assert group.timing.bound_by == "mxu"
    assert found.utilization["mxu"] == 1.0
    a, b, c = 1024 * 512, 512 * 512, 1024 * 512
    levels = group.levels
    # A once, each core its quarter; B once for all cores, which take it at the same time; C once
    assert levels["dram"].read_words == {"A": a, "B": b}
    assert levels["dram"].written_words == {"C": c}
    assert levels["buffer"].written_words == levels["buffer"].read_words == {"A": a, "B": b}
    # in the cores: each takes its quarter of A and all of B. A is read for each of 4 tiles of k, B goes into the registers once, C
    # is added to in 4 steps of j, all but the first on what is there, and read once more to leave
    assert levels["local"].written_words == {"A": a, "B": 4 * b, "C": 4 * c}
    assert levels["local"].read_words == {"A": 4 * a, "B": 4 * b, "C": 3 * c + c}
    # ports of their own for reads and writes: 614 GB/s each way at 1.05 GHz, 2048 and 1024 GB/s at the buffer
    assert levels["dram"].cycles == pytest.approx(2 * (a + b) / 614e9 * 1.05e9)
    assert levels["buffer"].cycles == pytest.approx(2 * (a + b) / 1024e9 * 1.05e9)
    # a core: two slots of what is exchanged in steps, A whole
    assert levels["local"].taken == 2 * (256 * 512 + 2 * 128 * 128 + 2 * 256 * 128)
    assert found.energy_parts["dram"] == pytest.approx((a + b + c) * 2 / 8 * 449.92)
    assert found.energy_parts["mxu"] == pytest.approx(1024 * 512 * 512 * 0.084)
