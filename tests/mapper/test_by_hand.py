"""The cost model against costs worked out by hand: other sizes, other arrays, other cascades, more levels."""

from __future__ import annotations

import pytest

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import Cost, model

K = 1024
BINDING = mapping.load("fusemax-binding").as_yaml()


def run(text: str, groups: str, arch: str, settings: tuple[str, ...] = (), **sizes: int) -> Cost:
    return model(spec.loads(text), architecture.load(arch, settings), mapping.loads("groups:\n" + groups), sizes)


# --- FuseMax's cascade on other sizes and arrays ----------------------------------------------------------------------


def fusemax(settings: tuple[str, ...] = (), changes: dict[str, str] | None = None, **sizes: int) -> Cost:
    text = BINDING.replace("tile: 1024", f"tile: {max(256, sizes.get('P', K))}")
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    extents = {"B": 64, "H": 12, "P": K, "M": K, "E": 64, "F": 64} | sizes
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    return model(cascade, architecture.load("fusemax", settings), mapping.loads(text), extents, {"scale": 1})


def per_tile(found: Cost, tiles: int) -> dict[str, float]:
    return {name: einsum.cycles / tiles for name, einsum in found.per_einsum.items()}


def test_an_array_of_128_rows_and_256_columns_does_each_tile_in_two_folds() -> None:
    # scores take two words of each of the 12 in a lane, so at most 6 tiles in flight
    found = fusemax(("array2d.side=[128, 256]",), {"in_flight: 12": "in_flight: 4"})
    tiles = 64 * 12 * 4 * 4
    cycles = per_tile(found, tiles)
    # 256 keys on 128 rows: 2 folds of E, 1, 7, 1, F cycles; the 1-D array as before: 2F + 10 and F / 4 for the division
    assert [cycles[name] for name in ("QK", "LM", "SLN", "SLD", "SLNV")] == [128, 2, 14, 2, 128]
    assert found.groups[0].timing.busy == {"array2d": tiles * 274, "array1d": tiles * (138 + 64 / 4)}
    assert found.cycles == tiles * 274
    assert found.groups[0].timing.bound_by == "array2d"
    assert found.utilization["array2d"] == pytest.approx(1.0)


def test_two_array_tiles_to_a_correction() -> None:
    # M0 = 512: scores take two words of each of the 12 in a lane, so at most 6 tiles in flight
    changes = {"M0: 256": "M0: 512", "in_flight: 12": "in_flight: 4"}
    found = fusemax((), changes, P=4 * K, M=4 * K)
    steps = 64 * 12 * 16 * 8
    # a step is two array tiles: 2 * (E + 1 + 7 + 1 + F) on the 2-D array; one correction, 2F + 10, on the 1-D array, and F / 8
    assert found.groups[0].timing.busy == {"array2d": steps * 274, "array1d": steps * (138 + 64 / 8)}
    assert found.cycles == steps * 274
    assert found.cycles < fusemax((), None, P=4 * K, M=4 * K).cycles


def test_an_exp_of_one_cycle() -> None:
    found = fusemax(("array2d.expansions.exp={mac: 1}", "array1d.expansions.exp={mac: 1}"))
    tiles = 64 * 12 * 16
    cycles = per_tile(found, tiles)
    # subtraction 1, exp 1: 2 instead of 7
    assert cycles["SLN"] == cycles["PRM"] == 2
    assert found.groups[0].timing.busy == {"array2d": tiles * (64 + 1 + 2 + 1 + 64), "array1d": tiles * (2 * 64 + 5 + 64 / 4)}


def test_values_wider_than_keys_and_more_keys_than_queries() -> None:
    found = fusemax(E=64, F=128, P=512, M=2 * K)
    tiles = 64 * 12 * 2 * 8
    cycles = per_tile(found, tiles)
    assert (cycles["QK"], cycles["SLNV"], cycles["SPNV"], cycles["AV"]) == (64, 128, 128, 128 / 8)
    heads = 64 * 12
    assert found.groups[0].traffic_words == {
        "read": {"Q": heads * 512 * 64, "K": heads * 2 * K * 64, "V": heads * 2 * K * 128}, "write": {"AV": heads * 512 * 128},
    }  # fmt: skip


def test_decoding_one_query() -> None:
    found = fusemax(P=1)
    heads = 64 * 12
    # 4 steps of 2F + 10 and a division of F, as for 256 queries; one column of 256 has work
    assert found.groups[0].timing.busy["array1d"] == heads * (4 * 138 + 64)
    assert found.groups[0].timing.busy["array2d"] == heads * 4 * 137
    words = heads * (2 * K * 64 + 64 + 64)
    assert found.traffic_bytes == 2 * words
    assert found.groups[0].timing.transfers["dram"] == pytest.approx(2 * words * 940e6 / (400 * 2**30))
    assert found.utilization["array2d"] == pytest.approx(4 * 137 / (4 * 138 + 64) / 256)
    assert found.per_einsum["QK"].operations == {"mac": heads * K * 64}


def test_lengths_that_the_array_does_not_divide() -> None:
    found = fusemax(B=1, H=1, P=1000, M=257)
    # 4 tiles of queries, 2 of keys, each as long as a whole one; work only for what exists
    assert found.groups[0].timing.busy == {"array2d": 8 * 137, "array1d": 8 * 138 + 4 * 64}
    assert found.per_einsum["SLNV"].operations == {"mac": pytest.approx(1000 * 257 * 64)}
    assert found.utilization["array2d"] == pytest.approx(1000 * 257 * 137 / 65536 / (8 * 138 + 4 * 64))


# --- other cascades on the teaching array: 32 x 32, 16 bytes a cycle, 2 bytes a word ----------------------------------


GROUPED = """name: grouped
ranks: {h: {extent: G * N}, n: N, g: G, p: P, m: M, e: E}
inputs: {Q: [h, p, e], K: [n, m, e]}
cascade: |
  S[h,p,m] = Q[h,p,e] * K[h//G,m,e]
outputs: [S]
"""


def test_queries_of_a_group_share_their_keys() -> None:
    groups = (
        "- loops: [{rank: h, tile: 1, hold: [K]}, {rank: p, tile: 32}, {rank: m, tile: 32}]\n"
        "  einsums: {S: {array: grid, spatial: [p, m]}}\n  stay: {S: forward}\n"
    )
    found = run(GROUPED, groups, "teaching-32x32", G=4, N=2, P=64, M=64, E=8)
    # 8 heads; the keys of a head are those of the one before in 3 cases of 4: fetched for 2 of 8
    assert found.groups[0].traffic_words == {"read": {"Q": 8 * 64 * 8, "K": 2 * 64 * 8}, "write": {"S": 8 * 64 * 64}}
    # 8 x 2 x 2 tiles, each E + R + C - 2
    assert found.per_einsum["S"].cycles == 8 * 2 * 2 * (8 + 62)


CHAIN = """name: chain
ranks: {m: M, k: K, l: L, n: N}
inputs: {A: [m, k], B: [k, l], D: [l, n]}
cascade: |
  T[m,l] = A[m,k] * B[k,l]
  C[m,n] = T[m,l] * D[l,n]
outputs: [C]
"""


def test_a_chain_of_two_products_keeps_what_is_between_on_chip() -> None:
    groups = (
        "- loops: [{rank: m, tile: 32}]\n  einsums:\n    T: {array: grid, spatial: [m, l]}\n    C: {array: grid, spatial: [m, n]}\n"
    )
    settings = ("grid.folds_overlap=true",)
    found = run(CHAIN, groups, "teaching-32x32", settings, M=128, K=16, L=64, N=32)
    # A and C once, B and D once (they do not move with m); T stays
    assert found.groups[0].traffic_words == {"read": {"A": 128 * 16, "B": 16 * 64, "D": 64 * 32}, "write": {"C": 128 * 32}}
    # 4 tiles: T two folds over l of K cycles, C one of L
    assert found.per_einsum["T"].cycles == 4 * 2 * 16
    assert found.per_einsum["C"].cycles == 4 * 64
    # A in two slots of a tile; B and D in one; T one tile, C two slots
    assert found.groups[0].buffer_need == 2 * (2 * 32 * 16 + 16 * 64 + 64 * 32 + 32 * 64 + 2 * 32 * 32)
    # the buffer: fills; operands of each tile: A again for both folds of l, B, T, D; T and C made; C read to leave
    fills = 128 * 16 + 16 * 64 + 64 * 32
    assert found.groups[0].buffer_words == {
        "written": fills + 128 * 64 + 128 * 32,
        "read": 2 * 128 * 16 + 4 * 16 * 64 + 128 * 64 + 4 * 64 * 32 + 128 * 32,
    }


LINEAR = """name: linear
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  KV[e,f] = K[m,e] * V[m,f]
  Y[p,f]  = Q[p,e] * KV[e,f]
outputs: [Y]
"""


def test_linear_attention_sums_up_its_state_on_chip() -> None:
    groups = (
        "- loops: [{rank: m, tile: 32}, {rank: p, tile: 32}]\n"
        "  einsums:\n    KV: {array: grid, spatial: [e, f]}\n    Y: {array: grid, spatial: [p, f]}\n"
    )
    found = run(LINEAR, groups, "teaching-32x32", ("grid.folds_overlap=true",), P=96, M=128, E=32, F=32)
    # Y needs the whole of KV: it sits out the loop over m until its last iteration; Q is read there only
    assert found.groups[0].traffic_words == {"read": {"K": 128 * 32, "V": 128 * 32, "Q": 96 * 32}, "write": {"Y": 96 * 32}}
    assert found.per_einsum["KV"].executions == 4
    assert found.per_einsum["Y"].executions == 3
    assert found.per_einsum["KV"].cycles == 128
    assert found.per_einsum["Y"].cycles == 3 * 32
    # KV is written in each of 4 tiles and read back in 3
    assert found.groups[0].levels["buffer"].written_words["KV"] == 4 * 32 * 32
    assert found.groups[0].levels["buffer"].read_words["KV"] == 3 * 32 * 32 + 3 * 32 * 32


TWO_PASS = """name: two-pass
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  GM[p]   = max[m](QK[p,m])
  SN[p,m] = exp(QK[p,m] - GM[p])
  SD[p]   = sum[m](SN[p,m])
  NV[p,f] = SN[p,m] * V[m,f]
  AV[p,f] = NV[p,f] / SD[p]
outputs: [AV]
"""


def test_two_passes_over_the_keys_move_the_scores_out_and_back() -> None:
    groups = (
        "- loops: [{rank: p, tile: 32}, {rank: m, tile: 32}]\n"
        "  einsums:\n    QK: {array: grid, spatial: [p, m]}\n    GM: {array: vector, spatial: [p]}\n"
        "- loops: [{rank: p, tile: 32}, {rank: m, tile: 32}]\n"
        "  einsums:\n    SN: {array: vector, spatial: [p]}\n    SD: {array: vector, spatial: [p]}\n"
        "    NV: {array: grid, spatial: [p, f]}\n    AV: {array: vector, spatial: [p]}\n"
    )
    found = run(TWO_PASS, groups, "teaching-32x32", ("grid.folds_overlap=true",), P=64, M=96, E=16, F=32)
    first, second = found.groups
    assert first.traffic_words == {"read": {"Q": 64 * 16, "K": 2 * 96 * 16}, "write": {"GM": 64, "QK": 64 * 96}}
    assert second.traffic_words == {"read": {"QK": 64 * 96, "GM": 64, "V": 2 * 96 * 32}, "write": {"AV": 64 * 32}}
    # 2 x 3 tiles. QK: E cycles; GM: 32; SN: 32 x (add 1 + exp 4); SD: 32; NV: 32; AV once per 32 queries: 32 values x 4 cycles
    cycles = {name: einsum.cycles for name, einsum in found.per_einsum.items()}
    assert cycles == {"QK": 6 * 16, "GM": 6 * 32, "SN": 6 * 160, "SD": 6 * 32, "NV": 6 * 32, "AV": 2 * 32 * 4}
    fused = groups.replace("- loops: [{rank: p, tile: 32}, {rank: m, tile: 32}]\n  einsums:\n    SN", "    SN")
    with pytest.raises(EinsmithError) as raised:
        run(TWO_PASS, fused, "teaching-32x32", P=64, M=96, E=16, F=32)
    assert raised.value.diagnostics[0].code == "E511"
    assert "`GM` is made in pass 1 over `m`, `SN` belongs to pass 2" in raised.value.diagnostics[0].message


def test_two_passes_in_one_group_row_by_row() -> None:
    groups = (
        "- loops: [{rank: p, tile: 32, hold: [Q]}]\n"
        "  einsums:\n    QK: {array: grid, spatial: [m, p]}\n    GM: {array: vector, spatial: [p]}\n"
        "    SN: {array: vector, spatial: [p]}\n    SD: {array: vector, spatial: [p]}\n"
        "    NV: {array: grid, spatial: [f, p]}\n    AV: {array: vector, spatial: [p]}\n"
    )
    found = run(TWO_PASS, groups, "teaching-32x32", P=96, M=64, E=16, F=24)
    # a tile of 32 queries, folds that do not overlap (62 cycles each): QK two of 16; 64 maxima; 64 subtractions and exps of 4;
    # 64 sums; NV one of 64; 24 divisions of 4
    cycles = {name: einsum.cycles / 3 for name, einsum in found.per_einsum.items()}
    assert cycles == {"QK": 2 * 78, "GM": 64, "SN": 64 * 5, "SD": 64, "NV": 126, "AV": 96}
    assert found.cycles == 3 * (156 + 64 + 320 + 64 + 126 + 96)
    # K and V do not move: they come once
    assert found.groups[0].traffic_words == {"read": {"Q": 96 * 16, "K": 64 * 16, "V": 64 * 24}, "write": {"AV": 96 * 24}}
    # Q and AV in two slots, K and V in one, and what is made, all of a tile
    words = 2 * 32 * 16 + 64 * 16 + 64 * 24 + 32 * 64 + 32 + 32 * 64 + 32 + 32 * 24 + 2 * 32 * 24
    assert found.groups[0].buffer_need == 2 * words


# --- several levels and cores -----------------------------------------------------------------------------------------


GEMM = """name: gemm
ranks: {m: M, n: N, k: K}
inputs: {A: [m, k], B: [k, n]}
cascade: |
  C[m,n] = A[m,k] * B[k,n]
outputs: [C]
"""
TPU = mapping.load("tpu-gemm").as_yaml().partition("groups:\n")[2]


def test_a_product_on_the_four_cores_of_a_tpu() -> None:
    m, n, k = 4096, 256, 512
    found = run(GEMM, TPU, "tpu-v4i", M=m, N=n, K=k)
    (group,) = found.groups
    # each core: 2 x 512 rows, one a cycle, for 2 blocks of n and 4 of k; all lanes at work
    assert group.timing.busy["mxu"] == 2 * 512 * 2 * 4
    assert found.utilization["mxu"] == 1.0
    levels = group.levels
    # DRAM: A once; B once for each of the 2 blocks of 2048 rows; C once
    assert levels["dram"].read_words == {"A": m * k, "B": 2 * k * n}
    assert levels["dram"].written_words == {"C": m * n}
    # the buffer passes A on once, and B once to all four cores
    assert levels["buffer"].read_words == {"A": m * k, "B": 2 * k * n}
    assert levels["buffer"].written_words == {"A": m * k, "B": 2 * k * n}
    # local memories: A filled once, read for each block of n; B filled in each core, taken into registers once;
    # C written for each block of k, read back for all but the first, and read to leave
    assert levels["local"].written_words == {"A": m * k, "B": 4 * 2 * k * n, "C": 4 * m * n}
    assert levels["local"].read_words == {"A": 2 * m * k, "B": 4 * 2 * k * n, "C": 3 * m * n + m * n}
    # ports: 614 GB/s each way; 2048 GB/s read and 1024 written; bytes of 2 a word at 1.05 GHz
    per = 2 * 1.05e9
    assert levels["dram"].cycles == pytest.approx(max(m * k + 2 * k * n, m * n) * per / 614e9)
    assert levels["buffer"].cycles == pytest.approx(max((m * k + 2 * k * n) / 2048e9, (m * k + 2 * k * n) / 1024e9) * per)
    # capacity, bytes: a block of 2048 rows of A twice and B's block twice in the buffer; a core's 512 rows of A and a block of B
    # twice, and its sums of C twice
    assert levels["buffer"].taken == 2 * 2 * (2048 * k + 128 * 128)
    assert levels["local"].taken == 2 * (2 * 512 * k + 2 * 128 * 128 + 2 * 512 * 128)
    # energy: 16 bits a word
    pj = 16 * (
        7.03 * (m * k + 2 * k * n + m * n)
        + (1.88 + 2.36) * (m * k + 2 * k * n)
        + 0.249 * (2 * m * k + 8 * k * n + 4 * m * n)
        + 0.293 * (m * k + 8 * k * n + 4 * m * n)
    )
    assert found.energy_pj == pytest.approx(pj + 0.084 * m * n * k)


def test_outputs_and_inputs_can_be_stationary_too() -> None:
    loops = "- loops: [{{rank: m, tile: 32{0}}}, {{rank: n, tile: 32{1}}}, {{rank: k, tile: 1}}]\n"
    einsum = "  einsums: {C: {array: grid, spatial: [m, n]}}\n"
    plain = run(GEMM, loops.format("", "") + einsum, "teaching-32x32", M=64, N=64, K=40).groups[0].levels["buffer"]
    held = (
        run(GEMM, loops.format("", ", hold: {grid: [C]}") + einsum, "teaching-32x32", M=64, N=64, K=40).groups[0].levels["buffer"]
    )
    # summed up in the buffer: written for each of 40 positions of k, read back for 39, and read to leave; in the array: out once
    assert (plain.written_words["C"], plain.read_words["C"]) == (40 * 64 * 64, 39 * 64 * 64 + 64 * 64)
    assert (held.written_words["C"], held.read_words["C"]) == (64 * 64, 64 * 64)
    inputs = "- loops: [{rank: m, tile: 32}, {rank: k, tile: 32, hold: {grid: [A]}}, {rank: n, tile: 1}]\n"
    found = run(GEMM, inputs + "  einsums: {C: {array: grid, spatial: [m, k]}}\n", "teaching-32x32", M=64, N=64, K=64)
    # A goes into the registers once; without that it would be read for each of 64 columns of B
    assert found.groups[0].levels["buffer"].read_words["A"] == 64 * 64
    again = run(
        GEMM,
        inputs.replace(", hold: {grid: [A]}", "") + "  einsums: {C: {array: grid, spatial: [m, k]}}\n",
        "teaching-32x32",
        M=64,
        N=64,
        K=64,
    )
    assert again.groups[0].levels["buffer"].read_words["A"] == 64 * 64 * 64


def test_partial_sums_that_do_not_stay_on_chip_go_out_and_back() -> None:
    groups = (
        "- loops: [{rank: k, tile: 10}, {rank: m, tile: 32}, {rank: n, tile: 32, hold: {buffer: [C]}}]\n"
        "  einsums: {C: {array: grid, spatial: [m, n]}}\n  stay: {C: dram}\n"
    )
    found = run(GEMM, groups, "teaching-32x32", M=64, N=96, K=40)
    # k is outermost: each of 6 tiles of C goes out in each of 4 steps of k, and comes back in 3
    assert found.groups[0].traffic_words["write"]["C"] == 4 * 64 * 96
    assert found.groups[0].traffic_words["read"]["C"] == 3 * 64 * 96
    assert found.groups[0].buffer_need == 2 * (2 * 32 * 10 + 2 * 10 * 32 + 2 * 32 * 32)


def test_sums_of_several_cores_are_added_up_where_they_meet() -> None:
    groups = (
        "- loops: [{rank: k, tile: 128, over: local}, {rank: m, tile: 32}]\n"
        "  einsums: {C: {array: mxu, spatial: [k, n]}}\n  stay: {C: PLACE}\n"
    )
    found = run(GEMM, groups.replace("PLACE", "buffer"), "tpu-v4i", M=64, N=128, K=512)
    # each of 4 cores gives all of C; the first begins it, the others read and add
    assert found.groups[0].levels["buffer"].written_words["C"] == 4 * 64 * 128
    assert found.groups[0].levels["buffer"].read_words["C"] == 3 * 64 * 128 + 64 * 128
    with pytest.raises(EinsmithError) as raised:
        run(GEMM, groups.replace("PLACE", "local"), "tpu-v4i", M=64, N=128, K=512)
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, diagnostic.help) == ("E514", "let it stay in `buffer`")


def test_networks_charge_words_and_hops_and_limit() -> None:
    network = "networks={net: {outer: buffer, inner: grid, pj_per_word: 3, pj_per_hop: 0.5, source: test}}"
    groups = "- loops: [{rank: m, tile: 32}]\n  einsums: {C: {array: grid, spatial: [m, n]}}\n"
    sizes = {"M": 64, "N": 32, "K": 40}
    plain = run(GEMM, groups, "teaching-32x32", **sizes)
    found = run(GEMM, groups, "teaching-32x32", (network,), **sizes)
    # 2 tiles: A 32 x 40 to 32 columns, B 40 x 32 to 32 rows, C one word of each lane
    sent = 2 * (32 * 40 + 40 * 32 + 32 * 32)
    hops = 2 * (32 * 40 * 32 + 40 * 32 * 32 + 32 * 32)
    assert found.energy_parts["net"] == 3 * sent + 0.5 * hops
    assert found.energy_pj == pytest.approx(plain.energy_pj + 3 * sent + 0.5 * hops)
    assert found.groups[0].levels == plain.groups[0].levels
    single = run(GEMM, groups, "teaching-32x32", (network, "net.multicast=false", "net.bandwidth=2.0e+9"), **sizes)
    assert single.groups[0].levels["buffer"].read_words == {"A": 2 * 32 * 40 * 32, "B": 2 * 40 * 32 * 32, "C": 64 * 32}
    assert single.groups[0].timing.transfers["net"] == hops  # one word of 2 bytes a cycle
    # k along the columns: without reduction on the way each lane gives its part of the sum
    along = groups.replace("[m, n]", "[m, k]")
    parts = run(GEMM, along, "teaching-32x32", (network, "net.reduction=false"), **sizes | {"K": 32})
    assert parts.groups[0].levels["buffer"].written_words["C"] == 64 * 32 * 32
    assert parts.groups[0].levels["buffer"].read_words["C"] == 64 * 32 * 31 + 64 * 32


@pytest.mark.parametrize(
    "old, new, code, words",
    [
        ("tile: 512, over: local", "tile: 256, over: local", "E514", "needs 8 instances of `local` to spread `m`, and has 4"),
        ("over: local", "over: dram", "E512", "which is no storage level on the chip"),
        ("mxu: [B]", "mxu: [B, A]", "E521", "words of registers in each lane of `mxu`, which has 4: `A` 512"),
        ("local: [A]", "local: [Z]", "E510", "holds `Z`"),
        ("mxu: [B]", "vector: [B]", "E512", "nothing on `vector` reads `B`"),
        ("buffer: [B], local", "local", "E520", "bytes of `local`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_level_is_refused_with_need_and_have(old: str, new: str, code: str, words: str) -> None:
    assert old in TPU
    settings = ("local.size=100 KB",) if code == "E520" else ()
    with pytest.raises(EinsmithError) as raised:
        run(GEMM, TPU.replace(old, new), "tpu-v4i", settings, M=4096, N=256, K=512)
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, words in diagnostic.message) == (code, True), diagnostic.message


def test_an_instance_does_not_hold_the_parts_of_others() -> None:
    groups = (
        "- loops: [{rank: m, tile: 128, hold: {buffer: [A], local: [A]}}, {rank: m, tile: 32, over: local}]\n"
        "  einsums: {C: {array: mxu, spatial: [k, n]}}\n"
    )
    with pytest.raises(EinsmithError) as raised:
        run(GEMM, groups, "tpu-v4i", M=256, N=128, K=128)
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.code, "each instance would hold the parts of all" in diagnostic.message) == ("E514", True)


MASKED = """name: masked
ranks: {p: P, m: M, e: E}
inputs: {Q: [p, e], K: [m, e]}
cascade: |
  S[p,m] = sum[e](where(m <= p, Q[p,e] * K[m,e], 0))
outputs: [S]
"""


def test_the_core_with_most_live_tiles_sets_the_time() -> None:
    groups = (
        "- loops: [{rank: p, tile: 128, over: local}, {rank: m, tile: 128}]\n"
        "  einsums: {S: {array: mxu, spatial: [p, m]}}\n  stay: {S: forward}\n"
    )
    found = run(MASKED, groups, "tpu-v4i", P=512, M=512, E=64)
    # core c has the queries of block c, which see c + 1 blocks of keys, E cycles each; the last one has most
    assert found.groups[0].timing.busy["mxu"] == 4 * 64
    assert found.per_einsum["S"].executions == 1 + 2 + 3 + 4
    assert found.utilization["mxu"] == pytest.approx(10 * 64 / 4 / found.cycles)
    # a block of keys is taken from the buffer once for all cores that see it
    assert found.groups[0].levels["buffer"].read_words == {"Q": 512 * 64, "K": 4 * 128 * 64}
    assert found.groups[0].levels["local"].written_words == {"Q": 512 * 64, "K": 10 * 128 * 64}


PORTS = ["dram.read_bandwidth", "dram.write_bandwidth", "buffer.read_bandwidth", "buffer.write_bandwidth", "local.bandwidth"]


@pytest.mark.parametrize("key", [*PORTS, "net.bandwidth"])
def test_more_bandwidth_anywhere_is_never_slower_and_energy_is_the_sum_of_its_parts(key: str) -> None:
    network = "networks={net: {outer: buffer, inner: local, pj_per_word: 1, pj_per_hop: 0.5, source: test}}"
    before: Cost | None = None
    for rate in (1e9, 1e10, 1e11, 1e12, 1e13):
        found = run(GEMM, TPU, "tpu-v4i", (network, f"{key}={rate}"), M=4096, N=256, K=512)
        assert found.energy_pj == pytest.approx(sum(found.energy_parts.values()))
        assert set(found.energy_parts) >= {"dram", "buffer", "local", "net", "mxu"}
        if before is not None:
            assert found.cycles <= before.cycles
            assert found.cycles + found.fill_cycles <= before.cycles + before.fill_cycles + 1e-6
            assert found.energy_pj == before.energy_pj
        else:
            assert found.groups[0].timing.bound_by == key.partition(".")[0]
        before = found
