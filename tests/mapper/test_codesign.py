"""Co-design: equal to searching every design, within the area, and clear where that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import architecture, cost
from einsmith.mapper.codesign import CoDesigned, Goal, Workload, codesign, whole_s
from einsmith.mapper.designs import Design, designs, parse
from einsmith.mapper.search import search

GEMM = """name: gemm
ranks: {m: M, n: N, k: K}
inputs: {A: [m, k], B: [k, n]}
cascade: |
  C[m,n] = A[m,k] * B[k,n]
outputs: [C]
"""
THREE = """name: three
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  SM[p,m] = exp(QK[p,m])
  AV[p,f] = SM[p,m] * V[m,f]
outputs: [AV]
"""
SETTINGS = ("grid.side=[{rows},{columns}]", "vector.side=[{rows}]")
FREE = ("rows=[4, 6]", "columns={from: 4, to: 8, times: 2}", "buffer.size=[1 KiB, 16 KiB]")
SIZES = {"P": 24, "M": 24, "E": 8, "F": 8}
PRODUCT = {"M": 20, "N": 12, "K": 24}
GOALS: tuple[Goal, ...] = ("latency", "energy", "edp", "area-delay", "traffic")


def space(area_um2: float | None = None) -> list[Design]:
    found = designs("teaching-32x32", SETTINGS, [parse(text) for text in FREE])
    return [design for design in found if area_um2 is None or design.area_um2 <= area_um2]


def value(goal: Goal, design: Design, found: cost.Cost) -> float:
    seconds = whole_s(found)
    return {
        "latency": seconds, "energy": found.energy_pj, "edp": seconds * found.energy_pj, "traffic": found.traffic_bytes,
        "area-delay": seconds * design.area_um2 / 1e6,
    }[goal]  # fmt: skip


def one_by_one(one: Workload, goal: Goal, area_um2: float) -> tuple[float, float]:
    """Least value, and the least area that has it, by a search of every design."""
    found = []
    for design in space(area_um2):
        objective = "latency" if goal == "area-delay" else goal
        best = search(one.cascade, design.arch, one.sizes, objective=objective).cost  # type: ignore[arg-type]
        found.append((value(goal, design, best), design.area_um2))
    return min(found)


@pytest.mark.parametrize("goal", GOALS)
def test_equals_a_search_of_every_design(goal: Goal) -> None:
    areas = sorted(design.area_um2 for design in space())
    budget = areas[len(areas) * 3 // 4]
    one = Workload("gemm", spec.loads(GEMM), PRODUCT, {})
    found = codesign([one], space(), goal, budget)
    assert found.optimal
    assert found.best.design.area_um2 <= budget
    least, area = one_by_one(one, goal, budget)
    assert found.best.value == pytest.approx(least, rel=1e-12)
    assert found.best.design.area_um2 == area
    assert sum(found.counts.values()) == 2 * found.counts["designs"]
    assert found.counts["over the area"] == sum(area > budget for area in areas)


def test_bounds_leave_most_designs_unsearched() -> None:
    found = codesign([Workload("gemm", spec.loads(GEMM), {"M": 960, "N": 960, "K": 960}, {})], space())
    assert found.counts["searched"] < found.counts["designs"] / 2


def test_several_workloads_share_one_design() -> None:
    """The least weighted sum, found without searching every design for every workload."""
    gemm = spec.loads(GEMM)
    workloads = [Workload("wide", gemm, PRODUCT, {}, 3.0), Workload("long", gemm, {"M": 36, "N": 6, "K": 8}, {}, 0.5)]
    found = codesign(workloads, space())
    sums = [sum(one.weight * whole_s(search(gemm, design.arch, one.sizes).cost) for one in workloads) for design in space()]
    assert found.best.value == pytest.approx(min(sums), rel=1e-12)
    assert len(found.best.found) == 2
    assert found.counts["searched"] < len(sums)


def test_the_pareto_set_is_that_of_all_designs() -> None:
    found = codesign([Workload("gemm", spec.loads(GEMM), PRODUCT, {})], space(), "pareto")
    every = [
        (whole_s(each), each.energy_pj, design.area_um2, design.buffer_bytes)
        for design in space()
        for each in search(spec.loads(GEMM), design.arch, PRODUCT, objective="pareto").front
    ]
    best = {one for one in every if not any(_beats(other, one) for other in every)}
    mine = [(whole_s(each), each.energy_pj, design.area_um2, design.buffer_bytes) for design, each in found.front]
    assert set(mine) == best
    assert len(mine) == len(best) > 2


def _beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def test_a_gap_is_kept() -> None:
    workload = Workload("gemm", spec.loads(GEMM), PRODUCT, {})
    exact, near = codesign([workload], space()), codesign([workload], space(), gap=0.1)
    assert near.best.value <= exact.best.value / (1 - 0.1)
    assert near.gap == 0.1


@pytest.mark.parametrize(
    ("free", "settings", "budget", "words"),
    [
        (("rows=[4]",), (), None, "no setting depends on `rows`"),
        (("rows=4",), SETTINGS, None, "no list of values"),
        (("buffer.size",), (), None, "not NAME="),
        (("buffer.size={from: 1, to: 2}",), (), None, "a range has"),
        (("buffer.size=[1024]", "buffer.size=[2048]"), (), None, "free twice"),
        (("buffer.size=[1024]",), (), 1.0, "the smallest has"),
    ],
)
def test_what_cannot_be_says_so(free: tuple[str, ...], settings: tuple[str, ...], budget: float | None, words: str) -> None:
    def ask() -> None:
        listed = designs("teaching-32x32", settings, [parse(text) for text in free])
        codesign([Workload("gemm", spec.loads(GEMM), PRODUCT, {})], listed, budget_um2=budget)

    with pytest.raises(EinsmithError) as raised:
        ask()
    assert raised.value.diagnostics[0].code == "E543"
    assert words in raised.value.diagnostics[0].message


def test_area_delay_needs_areas_and_nothing_fits_is_said_by_the_roomiest() -> None:
    workload = Workload("gemm", spec.loads(GEMM), {"M": 8, "N": 8, "K": 8}, {})
    with pytest.raises(EinsmithError) as raised:
        codesign([workload], designs("tpu-v4i", (), []), "area-delay")
    assert raised.value.diagnostics[0].code == "E543"
    with pytest.raises(EinsmithError) as raised:
        codesign([workload], designs("teaching-32x32", (), [parse("buffer.size=[2, 4]")]))
    assert raised.value.diagnostics[0].code == "E540"


def test_the_design_found_reads_back_to_the_same_numbers(tmp_path: Path) -> None:
    """What the command prints as settings, with the mapping it writes, is what `model` works out."""
    (tmp_path / "three.yaml").write_text(THREE, encoding="utf-8")
    sizes = ",".join(f"{name}={size}" for name, size in SIZES.items())
    words = [str(tmp_path / "three.yaml"), "--arch", "teaching-32x32", "--size", sizes, "--json"]
    free = [part for text in FREE for part in ("--free", text)] + [part for text in SETTINGS for part in ("--set", text)]
    mapping = str(tmp_path / "mapping.yaml")
    done = CliRunner().invoke(main, ["map", *words, *free, "--objective", "area-delay", "-o", mapping])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    settings = [part for text in found["settings"] for part in ("--set", text)]
    again = json.loads(CliRunner().invoke(main, ["model", *words, "--mapping", mapping, *settings]).stdout)
    for key in ("cycles", "fill_cycles", "energy_pj", "traffic_bytes", "area_um2"):
        assert again[key] == pytest.approx(found[key], rel=1e-12), key
    whole = (again["cycles"] + again["fill_cycles"]) / architecture.load("teaching-32x32").clock_hz
    assert found["value"] == pytest.approx(whole * again["area_um2"] / 1e6, rel=1e-12)


def test_ctrl_c_says_how_much_may_be_missed() -> None:
    found: CoDesigned = codesign([Workload("three", spec.loads(THREE), SIZES, {})], space(), stop=lambda: True)
    assert not found.optimal
    assert 0 < found.gap <= 1


def test_energies_that_follow_and_energies_that_do_not() -> None:
    """With a law for its energies a smaller buffer takes less; without one the report says that they stay as they are."""
    words = ["softmax", "--size", "B=1,H=1,P=256,M=256,E=64,F=64", "--objective", "energy"]
    follows = CliRunner().invoke(main, ["map", *words, "--arch", "fusemax", "--free", "buffer.size=[1 MiB, 16 MiB]", "--json"])
    assert follows.exit_code == 0, follows.output
    printed = json.loads(follows.stdout)
    assert printed["design"] == {"buffer.size": "1 MiB"}
    assert printed["energies_do_not_follow"] == []
    stays = CliRunner().invoke(main, ["map", *words, "--arch", "simple", "--free", "buffer.size=[1 MiB, 16 MiB]"])
    assert stays.exit_code == 0, stays.output
    assert "energies of `buffer` are the same at every capacity" in stays.stdout
