"""Many points at once: equal to the cost model point by point, whatever the structure, tails included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, batch, mapping
from einsmith.mapper.cost import Cost

GEMM = """name: gemm
ranks: {m: M, n: N, k: K}
inputs: {A: [m, k], B: [k, n]}
cascade: |
  C[m,n] = A[m,k] * B[k,n]
outputs: [C]
"""
SOFTMAX = """name: three
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
params: {scale: 1/E}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e] * scale
  GM[p] = max[m](QK[p,m])
  SN[p,m] = exp(QK[p,m] - GM[p])
  SD[p] = sum[m](SN[p,m])
  NV[p,f] = SN[p,m] * V[m,f]
  AV[p,f] = NV[p,f] / SD[p]
outputs: [AV]
"""
FIELDS = ("cycles", "fill_cycles", "latency_s", "energy_pj", "edp", "traffic_bytes", "area_um2")
ARCH = {
    "grid.side.0": (1, 2, 3, 32), "grid.side.1": (1, 4, 5), "vector.side": (1, 3, 32), "buffer.size": (64, 512, 65536),
    "dram.bandwidth": (1e9, 16e9, 1e12), "buffer.bandwidth": (2e9, 1e12), "vector.units.exp.cycles": (1, 4), "clock_hz": (1e8, 1e9),
    "grid.registers.words": (1, 2, 8, 100), "vector.registers.words": (4, 64), "dram.read_pj": (0, 7.5), "word_bytes": (1, 2),
    "grid.ripple_cycles_per_hop": (0, 1, 3), "grid.units.mac.energy_pj": (0.5, 2.0),
}  # fmt: skip


def check(found: batch.Results) -> int:
    """Every point equals the model; how many are legal and fit."""
    legal = 0
    for point in range(len(found)):
        cost = model(found, point)
        assert (cost is not None) == found.valid[point], point
        if cost is not None:
            legal += 1
            _equal(found, point, cost)
    return legal


def model(found: batch.Results, point: int) -> Cost | None:
    """The point by itself; None if it is not legal or does not fit."""
    try:
        return found.batch.model(found.points, point)
    except EinsmithError:
        return None


def _equal(found: batch.Results, point: int, cost: Cost) -> None:
    def same(name: str, value: float, expected: float) -> None:
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12 * max(1.0, cost.cycles)), name

    for name in FIELDS:
        same(name, getattr(found, name)[point], getattr(cost, name))
    for name, share in cost.utilization.items():
        same(name, found.utilization[name][point], share)
    for name, part in cost.energy_parts.items():
        same(name, found.energy_parts[name][point], part)
    assert found.buffer_need[point] == max(group.buffer_need for group in cost.groups)
    for number, (group, nest) in enumerate(zip(cost.groups, cost.placed.nests, strict=True)):
        for name, bound in group.timing.bounds.items():
            same(name, found.bounds(number)[name][point], bound)
        for way, what in (("read", "read"), ("write", "written")):
            for tensor, words in group.traffic_words[way].items():
                same(tensor, found.groups[number][f"{what} {tensor}"][point], words)
        for name, words in group.buffer_words.items():
            same(name, found.groups[number][f"buffer {name}"][point], words)
        for name in cost.arch.arrays:
            assert found.groups[number][f"lanes {name}"][point] == sum(nest.lane_needs(name).values())


@st.composite
def structures(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A cascade, groups of a mapping with tiles left open, its ranks."""
    which = draw(st.sampled_from(("gemm", "softmax", "two groups")))
    ranks = ["m", "n", "k"] if which == "gemm" else ["p", "m", "e", "f"]
    over = draw(st.lists(st.sampled_from(ranks if which == "gemm" else ["p", "p", "m", "f"]), max_size=4))
    schedule = draw(st.sampled_from(("in-turn", "pipelined", "interleaved")))
    buffering = draw(st.sampled_from((1, 2)))
    head = f"- schedule: {schedule}\n  buffering: {buffering}\n"

    def loops(names: list[str]) -> str:
        return "  loops: [" + ", ".join(f"{{rank: {name}, tile: 1}}" for name in names) + "]\n"

    if which == "gemm":
        spatial = draw(st.sampled_from(("[m, n]", "[m, k]", "[k, n]", "[n]", "[]", "[[m, n], k]")))
        stay = draw(st.sampled_from(("", "  stay: {C: forward}\n")))
        return GEMM, f"{head}{loops(over)}  einsums: {{C: {{array: grid, spatial: {spatial}}}}}\n{stay}", ranks
    grid = draw(st.sampled_from(("[p, m]", "[m, p]", "[p]", "[m]")))
    early = f"    QK: {{array: grid, spatial: {grid}}}\n    GM: {{array: vector, spatial: [p]}}\n"
    late = "    SN: {array: vector, spatial: [m]}\n    SD: {array: vector, spatial: [p]}\n"
    late += "    NV: {array: grid, spatial: [p, f]}\n    AV: {array: vector, spatial: [f]}\n"
    if which == "softmax":
        stay = draw(st.sampled_from(("", "  stay: {QK: grid}\n", "  stay: {SN: vector, GM: vector}\n")))
        return SOFTMAX, f"{head}{loops([r for r in over if r != 'm'])}  einsums:\n{early}{late}{stay}", ranks
    first = f"{head}{loops([rank for rank in over if rank != 'f'])}  einsums:\n{early}"
    return SOFTMAX, f"{first}{head}{loops(over)}  einsums:\n{late}", ranks


@settings(max_examples=40, deadline=None)
@given(structures(), st.integers(0, 2**32 - 1), st.booleans())
def test_equal_to_the_model(structure: tuple[str, str, list[str]], seed: int, fast: bool) -> None:
    text, groups, ranks = structure
    rng = np.random.default_rng(seed)
    arch = architecture.load("teaching-32x32")
    placed = mapping.loads("groups:\n" + groups)
    count = 12
    sizes = {rank.upper(): rng.integers(1, 14, count) for rank in ranks}
    chosen = {name: rng.choice(values, count) for name, values in ARCH.items() if rng.random() < 0.5}
    tiles: dict[str, Any] = {}
    for number, group in enumerate(placed.groups, 1):
        outer: dict[str, Any] = {}
        for axis, loop in enumerate(group.loops):
            several = sum(other.rank == loop.rank for other in group.loops) > 1
            place = sum(other.rank == loop.rank for other in group.loops[:axis])
            tile = rng.integers(1, 15, count)
            outer[loop.rank] = np.minimum(tile, outer.get(loop.rank, 15))
            tiles[f"{number}.{loop.rank}" + (f".{place}" if several else "")] = outer[loop.rank]
        if group.schedule == "interleaved":
            tiles[f"{number}.in_flight"] = rng.integers(1, 6, count)
    found = batch.compile(spec.loads(text), arch, placed)(sizes=sizes, arch=chosen, tiles=tiles, fast=fast)
    assert found.exact == 0
    check(found)


@pytest.mark.parametrize("fast", [False, True])
def test_fusemax_binding_over_sizes_and_hardware(fast: bool) -> None:
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    compiled = batch.compile(
        cascade, architecture.load("fusemax"), mapping.load("fusemax-binding"), {"B": 4, "H": 3, "E": 64, "F": 64}, {"scale": 1}
    )
    rng = np.random.default_rng(5)
    count = 24
    found = compiled(
        sizes={name: rng.choice([300, 1024, 1500, 4096], count) for name in ("P", "M")} | {"M0": rng.choice([64, 256, 300], count)},
        arch={"array2d.side": rng.choice([64, 128, 200, 256], count), "buffer.size": rng.choice([2**21, 2**24], count)},
        tiles={"1.p.0": rng.choice([512, 700, 1024], count), "1.p.1": rng.choice([100, 256], count)},
        fast=fast,
    )
    assert found.exact == 0
    assert check(found) > 4


def test_masks_go_through_the_model_and_are_counted() -> None:
    cascade = spec.load(EXAMPLES / "attention" / "flash2.yaml")
    names = ("QK", "S", "RM_1", "RM", "PRM", "SLN", "RD_1", "RD", "RNV_1", "RNV", "AV")
    text = (
        "groups:\n- loops: [{rank: b, tile: 1}, {rank: h, tile: 1}, {rank: p, tile: 16}, {rank: m1, tile: 1}]\n  einsums:\n"
        + "".join(f"    {name}: {{array: vector, spatial: [p]}}\n" for name in names)
    )  # fmt: skip
    for causal, exact in ((0, 0), (1, 3)):
        compiled = batch.compile(cascade, architecture.load("teaching-32x32"), mapping.loads(text), params={"causal": causal})
        found = compiled(sizes={"P": np.array([16, 64, 65]), "M": 64})
        assert found.exact == exact
        assert check(found) == 3


def test_why_a_point_is_not_valid() -> None:
    text = "groups:\n- loops: [{rank: m, tile: 4}]\n  einsums: {C: {array: grid, spatial: [m, n]}}\n"
    compiled = batch.compile(spec.loads(GEMM), architecture.load("teaching-32x32"), mapping.loads(text), {"N": 8, "K": 8})
    found = compiled(sizes={"M": [8, 8, 8, 0]}, arch={"buffer.size": [65536, 16, 65536, 65536]}, tiles={"1.m": [4, 4, 0, 4]})
    assert found.valid.tolist() == [True, False, False, True]
    assert found.why(0) is None
    refusal = found.why(1)
    assert refusal is not None
    assert refusal.code == "E520"
    assert np.isnan(found.latency_s[1])


def test_names_that_do_not_exist_are_refused() -> None:
    text = "groups:\n- loops: [{rank: m, tile: 4}]\n  einsums: {C: {array: grid, spatial: [m, n]}}\n"
    compiled = batch.compile(spec.loads(GEMM), architecture.load("teaching-32x32"), mapping.loads(text), {"M": 8, "N": 8, "K": 8})
    for call, code in (({"arch": {"gird.side": 4}}, "E503"), ({"tiles": {"1.n": 4}}, "E510"), ({"tiles": {"2.m": 4}}, "E510")):
        with pytest.raises(EinsmithError) as raised:
            compiled(**call)
        assert raised.value.diagnostics[0].code == code
