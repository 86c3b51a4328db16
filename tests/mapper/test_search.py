"""The search: equal to brute force over the stated space, never illegal, and clear where nothing fits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.library import EXAMPLES
from einsmith.einsum.sizes import Sizes, bind
from einsmith.mapper import architecture, cost, mapping
from einsmith.mapper.mapping import Binding, Group, Loop, Mapping
from einsmith.mapper.nest import Placed, place
from einsmith.mapper.search import search
from einsmith.mapper.space import ANYTHING, Fixed, Tiles, explain, looped_ranks

GEMM = """name: gemm
ranks: {m: M, n: N, k: K}
inputs: {A: [m, k], B: [k, n]}
cascade: |
  C[m,n] = A[m,k] * B[k,n]
outputs: [C]
"""
TWO = """name: two
ranks: {m: M, p: P}
inputs: {X: [m, p]}
cascade: |
  GM[m]   = max[p](X[m,p])
  SN[m,p] = exp(X[m,p] - GM[m])
outputs: [SN]
"""


def value(found: cost.Cost, objective: str) -> tuple[float, float]:
    cycles = found.cycles + found.fill_cycles
    return {
        "latency": (cycles, found.energy_pj), "energy": (found.energy_pj, cycles), "edp": (cycles * found.energy_pj, cycles),
        "traffic": (found.traffic_bytes, cycles),
    }[objective]  # fmt: skip


def loop_nests(
    cascade: Cascade,
    arch: architecture.Architecture,
    sizes: Sizes,
    names: frozenset[str],
    leaving: frozenset[str],
    tiles: Tiles = "doubled",
) -> Iterator[tuple[Loop, ...]]:
    """All loop nests of a group one by one; most of the illegal ones too: the space as the search is held against it."""
    looped = looped_ranks(cascade, arch, sizes, names, leaving, tiles, 1, ANYTHING)
    for plain in looped.cuts():
        for cut in (plain, *looped.doubled(plain)):
            ranks = (*cut.moving, *cut.chosen)
            for order in cut.orders():
                for choice in itertools.product(*looped.tilings(cut)):
                    inner = looped.loops(cut, order, dict(zip(ranks, choice, strict=True)))
                    yield looped.outside + inner
                    for loop in inner[1:] if cut.outer is None else ():
                        if loop.rank in cut.chosen:  # all of its tiles are held at once
                            yield (*looped.outside, Loop(rank=loop.rank, tile=sizes.extents[loop.rank]), *inner)


def every_gemm_mapping(arch: architecture.Architecture, sizes: dict[str, int], tiles: Tiles, objective: str) -> list[cost.Cost]:
    """All mappings of the stated space for one GEMM, each costed in full; of equal layouts those with least ripple."""
    cascade = flatten(spec.loads(GEMM))
    bound = bind(cascade, sizes)
    found: list[cost.Cost] = []
    for loops in loop_nests(cascade, arch, bound, frozenset("C"), frozenset("C"), tiles):
        best_holds: list[tuple[tuple[float, int], Placed]] = []
        options = [[d for d, loop in enumerate(loops, 1) if loop.rank in ranks] or [0] for ranks in ("mk", "kn")]
        for depths in itertools.product(*options):
            cut = list(loops)
            for name, depth in zip("AB", depths, strict=True):
                if depth:
                    cut[depth - 1] = cut[depth - 1].model_copy(update={"hold": (*cut[depth - 1].hold, name)})
            try:
                placed = _placed(cascade, arch, tuple(cut), Binding(array="grid"), sizes, {})
            except EinsmithError:
                continue
            (nest,) = placed.nests
            words = sum(nest.stream_words(stream) for stream in nest.streams)
            best_holds.append(((words, sum(nest.stream_tile(stream) for stream in nest.streams)), placed))
        if not best_holds:
            continue
        cut = min(best_holds, key=lambda item: item[0])[1].nests[0].group.loops
        for array in arch.arrays:
            for stay, flying in itertools.product(({"C": "forward"}, {}), (1, 64)):
                each: list[cost.Cost] = []
                for sides in itertools.permutations("mnk", min(3, len(arch.arrays[array].side))):
                    binding = Binding(array=array, spatial=sides)
                    try:
                        each.append(cost.cost(_placed(cascade, arch, cut, binding, sizes, stay, flying)))
                    except EinsmithError:
                        continue
                found += [one for one in each if not any(_dominates(other, one, array, objective) for other in each)]
    return found


def _dominates(a: cost.Cost, b: cost.Cost, array: str, objective: str) -> bool:
    """Whether a layout is better than another in cycles of its array, and in energy where the objective asks for it."""
    mine, other = (
        (each.groups[0].timing.busy[array], 0.0 if objective in ("latency", "traffic") else each.energy_pj) for each in (a, b)
    )
    if mine == other:
        (left,), (right,) = a.placed.nests, b.placed.nests
        return left.ripple(left.steps[0]) < right.ripple(right.steps[0])
    return mine[0] <= other[0] and mine[1] <= other[1]


def _placed(cascade, arch, loops, binding, sizes, stay, flying=1) -> Placed:  # type: ignore[no-untyped-def]
    group = Group(loops=loops, einsums={"C": binding}, schedule="interleaved", stay=stay, in_flight=flying)
    return place(cascade, arch, Mapping(groups=(group,)), sizes)


@settings(max_examples=16, deadline=None)
@given(
    st.tuples(*[st.integers(1, 7)] * 3), st.sampled_from(("latency", "energy", "edp", "traffic")), st.sampled_from((1024, 4096)),
    st.sampled_from((1e9, 64e9)), st.booleans(),
)  # fmt: skip
def test_equal_to_brute_force(mnk: tuple[int, int, int], objective: str, buffer: int, bandwidth: float, every: bool) -> None:
    arch = architecture.load(
        "teaching-32x32", ("grid.side=[4, 4]", "vector.side=[4]", f"buffer.size={buffer}", f"dram.bandwidth={bandwidth}")
    )
    sizes = dict(zip(("M", "N", "K"), mnk, strict=True))
    tiles: Tiles = "sides" if objective == "edp" else "every" if every and max(mnk) < 4 else "doubled"
    found = search(spec.loads(GEMM), arch, sizes, objective=objective, tiles=tiles)  # type: ignore[arg-type]
    best = min(value(each, objective) for each in every_gemm_mapping(arch, sizes, tiles, objective))
    assert value(found.cost, objective)[0] == pytest.approx(best[0], rel=1e-12)
    assert found.optimal


def test_no_fusion_uses_a_maximum_before_it_is_complete() -> None:
    arch = architecture.load("fusemax", ("buffer.size=128",))  # 64 values
    found = search(spec.loads(TWO), arch, {"M": 4, "P": 1024}, objective="energy")
    read = sum(group.traffic_words["read"].get("X", 0) for group in found.cost.groups)
    assert read == 2 * 4 * 1024
    assert len(found.mapping.groups) == 2
    roomy = search(spec.loads(TWO), architecture.load("fusemax"), {"M": 4, "P": 1024}, objective="energy")
    assert sum(group.traffic_words["read"].get("X", 0) for group in roomy.cost.groups) == 4 * 1024


def test_what_is_found_reads_back_to_the_same_numbers() -> None:
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    arch = architecture.load("fusemax")
    sizes = {"B": 2, "H": 2, "P": 1024, "M": 1024, "E": 64, "F": 64}
    found = search(cascade, arch, sizes)
    again = cost.model(cascade, arch, mapping.loads(found.mapping.as_yaml()), sizes)
    assert again.as_json() == found.cost.as_json()
    assert search(cascade, arch, sizes).as_json() == found.as_json()  # deterministic


@pytest.mark.parametrize("length", [1024, 4096, 65536])
def test_never_slower_than_the_published_binding(length: int) -> None:
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    arch = architecture.load("fusemax")
    sizes = {"B": 64, "H": 12, "P": length, "M": length, "E": 64, "F": 64}
    same_tile = search(cascade, arch, {**sizes, "M0": 256}, {"scale": 1})
    text = mapping.load("fusemax-binding").as_yaml().replace("tile: 1024", f"tile: {min(length, 32768)}")
    published = cost.model(cascade, arch, mapping.loads(text), sizes, {"scale": 1})
    assert same_tile.cost.cycles <= published.cycles * (1 + 1e-9)
    free_tile = search(cascade, arch, sizes, {"scale": 1})
    assert free_tile.cost.cycles <= same_tile.cost.cycles
    # with the tile free the 2-D array bounds, as it must: 137 operations a score and nothing less
    assert free_tile.cost.cycles == pytest.approx(64 * 12 * (length / 256) ** 2 * 137)


def test_states_and_their_readers_stay_together_and_the_rest_may_not() -> None:
    found = search(
        spec.load(EXAMPLES / "attention" / "linear-causal.yaml"), architecture.load("fusemax"), {"M": 64, "E": 64, "F": 64}
    )
    for group in found.mapping.groups:
        names = set(group.einsums)
        assert not names & {"KV"} or any(loop.tile == 1 for loop in group.loops)


def test_nothing_fits_says_who_needs_how_much_of_what() -> None:
    with pytest.raises(EinsmithError) as raised:
        search(spec.loads(GEMM), architecture.load("teaching-32x32", ("buffer.size=8",)), {"M": 64, "N": 64, "K": 64})
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E540"
    # the least: one value of A and of B in two slots each, and C where it accumulates
    assert "of `buffer`, which has 8: `A` 4 (2 slots), `B` 4 (2 slots)" in diagnostic.message


def test_an_operation_nobody_has_is_named() -> None:
    with pytest.raises(EinsmithError) as raised:
        search(spec.load(EXAMPLES / "attention" / "topk-attention.yaml"), architecture.load("fusemax"), {})
    assert raised.value.diagnostics[0].code == "E513"
    assert "`topk`" in raised.value.diagnostics[0].message


THREE = """name: three
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  SM[p,m] = exp(QK[p,m])
  AV[p,f] = SM[p,m] * V[m,f]
outputs: [AV]
"""
SIZES = {"P": 64, "M": 64, "E": 8, "F": 8}


def test_what_is_fixed_stays_and_costs_no_less() -> None:
    arch = architecture.load("teaching-32x32")
    free = search(spec.loads(THREE), arch, SIZES)
    fixed = Fixed({"QK": "vector"}, (frozenset({"QK"}),), {"p": 8})
    found = search(spec.loads(THREE), arch, SIZES, fixed=fixed)
    first = found.mapping.groups[0]
    assert list(first.einsums) == ["QK"]
    assert first.einsums["QK"].array == "vector"
    assert {loop.tile for group in found.mapping.groups for loop in group.loops if loop.rank == "p"} <= {8, 64}
    assert value(found.cost, "latency") > value(free.cost, "latency")


@pytest.mark.parametrize(
    "fixed", [Fixed({"QQ": "grid"}), Fixed({"QK": "grad"}), Fixed({}, (frozenset({"X"}),)), Fixed({}, (), {"z": 1})]
)
def test_what_is_fixed_must_exist(fixed: Fixed) -> None:
    with pytest.raises(EinsmithError) as raised:
        search(spec.loads(THREE), architecture.load("teaching-32x32"), SIZES, fixed=fixed)
    assert raised.value.diagnostics[0].code in ("E510", "E512")


def test_the_pareto_set_holds_the_best_product_and_nothing_dominated() -> None:
    arch = architecture.load("teaching-32x32")
    found = search(spec.loads(THREE), arch, SIZES, objective="pareto")
    points = [value(each, "latency") for each in found.front]
    assert points == sorted(points)
    assert all(later[1] < earlier[1] for earlier, later in itertools.pairwise(points))
    best = search(spec.loads(THREE), arch, SIZES, objective="edp")
    assert min(a * b for a, b in points) == pytest.approx(value(best.cost, "edp")[0], rel=1e-12)


def test_less_traffic_than_any_other_objective() -> None:
    arch = architecture.load("teaching-32x32", ("buffer.size=2 KiB",))
    least = search(spec.loads(THREE), arch, SIZES, objective="traffic").cost.traffic_bytes
    assert least <= search(spec.loads(THREE), arch, SIZES).cost.traffic_bytes
    assert least <= search(spec.loads(THREE), arch, SIZES, objective="energy").cost.traffic_bytes


def test_a_gap_is_kept_and_a_stop_returns_the_best_so_far() -> None:
    arch = architecture.load("teaching-32x32")
    best = search(spec.loads(THREE), arch, SIZES)
    near = search(spec.loads(THREE), arch, SIZES, gap=0.2)
    assert near.cost.cycles + near.cost.fill_cycles <= (best.cost.cycles + best.cost.fill_cycles) / (1 - 0.2)
    assert near.gap == 0.2
    seen: list[tuple[int, float, float]] = []
    early = search(spec.loads(THREE), arch, SIZES, watch=lambda *state: seen.append(state), stop=lambda: True)
    assert not early.optimal
    assert seen
    assert early.cost.cycles + early.cost.fill_cycles >= best.cost.cycles + best.cost.fill_cycles


def test_the_buffer_that_would_do_is_named() -> None:
    arch = architecture.load("teaching-32x32", ("buffer.size=8",))
    with pytest.raises(EinsmithError) as raised:
        search(spec.loads(GEMM), arch, {"M": 64, "N": 64, "K": 64})
    help = raised.value.diagnostics[0].help
    assert help is not None
    need = int(help.split("buffer.size=")[1].split("`")[0])
    assert search(spec.loads(GEMM), architecture.load("teaching-32x32", (f"buffer.size={need}",)), {"M": 64, "N": 64, "K": 64})
    with pytest.raises(EinsmithError):
        search(spec.loads(GEMM), architecture.load("teaching-32x32", (f"buffer.size={need - 1}",)), {"M": 64, "N": 64, "K": 64})


def test_the_space_is_counted_by_dimension() -> None:
    found = explain(spec.loads(THREE), architecture.load("teaching-32x32"), SIZES)
    assert found.partitions == 4
    assert len(found.groups) == 6
    whole = next(group for group in found.groups if len(group.einsums) == 3)
    nests = list(loop_nests(flatten(spec.loads(THREE)), architecture.load("teaching-32x32"), bind(spec.loads(THREE), SIZES),
                            frozenset(whole.einsums), frozenset({"AV"})))  # fmt: skip
    assert whole.tilings == len(nests) == len(set(nests))
    assert whole.bindings == 4  # only the vector unit has exp
    assert "left out" in str(found)
