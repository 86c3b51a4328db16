"""Einsums that follow one another along a rank, spilling, groups as a pipeline, the published configurations."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.sim.simulate import Simulated, simulate

from ..mapper.test_schedules import APART, IN_PLACE, ROWS, SOFTMAX
from .test_simulate import agrees, same_either_way

PLAIN = """name: plain
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  SN[p,m] = exp(QK[p,m])
  SD[p] = sum[m](SN[p,m])
  A[p,m] = SN[p,m] / SD[p]
  AV[p,f] = A[p,m] * V[m,f]
outputs: [AV]
"""


def textbook(how: str, changes: tuple[str, ...] = (), **options: int) -> Simulated:
    arch = architecture.load("teaching-32x32", ("grid.folds_overlap=true", *changes))
    run = simulate(spec.loads(SOFTMAX), arch, mapping.loads(how), {"P": 64, "M": 96, "E": 16, "F": 16}, **options)
    if run.whole:
        agrees(run)
        same_either_way(run.groups[0])
    return run


def test_rows_that_follow_one_another() -> None:
    fast = ("dram.bandwidth=1.6 TB/s", "grid.ripple_cycles_per_hop=0", "vector.ripple_cycles_per_hop=0")
    # two tiles of 32 rows; QK 48 cycles, AV 96 on the grid; 96 + 480 + 96 + 384 on the vector unit
    turns = textbook(ROWS, fast)
    assert turns.steady_cycles == pytest.approx(2 * (48 + 1056 + 96), rel=0.01)
    # 32 rows fill the lanes of both arrays: a tile is one part, and QK of the next tile waits for its scores to be read
    alone = textbook(ROWS + "  flow: p\n", fast)
    assert alone.cycles == turns.cycles
    # 64 rows are two parts: while the vector unit is at one of them, the grid is at the other
    both = textbook(ROWS.replace("tile: 32", "tile: 64") + "  flow: p\n", (*fast, "buffer.size=1 MiB"))
    assert both.groups[0].busy["vector"] == both.cost.cycles == 2 * 1056
    assert both.steady_cycles == pytest.approx(2 * 1056, rel=0.01)
    assert both.groups[0].fill == pytest.approx(48, abs=5)  # and the first Q and K
    assert both.groups[0].drain == pytest.approx(96, abs=5)


@pytest.mark.parametrize("flow", ["", "  flow: p\n"])
def test_what_is_spilled_goes_out_and_comes_back(flow: str) -> None:
    held = ROWS + IN_PLACE + "  taps: {SN: [SD]}\n" + flow
    kept = textbook(held)
    spilled = textbook(held + "  spill: [QK, SN, A]\n", ("buffer.size=4608",))  # a quarter of the scores: `agrees` counts words
    names = [task.name for task in spilled.groups[0].window.tasks if task.kind == "load"]
    assert {"QK", "SN", "A"} <= set(names)
    assert {task.name for task in kept.groups[0].window.tasks if task.kind == "load"} == {"Q", "K", "V"}
    assert spilled.groups[0].window.peaks["buffer"] * 2 <= 4608
    # nothing comes back before it has gone out
    out: dict[str, list[float]] = {}
    for item in spilled.groups[0].ran:
        if item.task.kind == "store" and item.task.name in ("QK", "SN", "A"):
            out.setdefault(item.task.name, []).append(item.end)
    for item in spilled.groups[0].ran:
        if item.task.kind == "load" and item.task.name in out:
            assert item.start >= min(out[item.task.name])
    assert spilled.cycles >= kept.cycles


@settings(max_examples=40)
@given(
    st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 3), st.integers(1, 2), st.sampled_from(("pipeline", "rows")),
    st.booleans(), st.booleans(), st.sampled_from((2048, 4608, 8192, 2**20)), st.sampled_from((0.5, 4.0, 64.0)),
)  # fmt: skip
def test_random_schedules_never_hang(
    extents: tuple[int, int, int], flying: int, buffering: int, kind: str, flow: bool, spill: bool, size: int, bandwidth: float
) -> None:
    """They run as the model counts, or are refused for a reason."""
    p, m, tile = extents
    more = f"  schedule: interleaved\n  in_flight: {flying}\n  buffering: {buffering}\n"
    if kind == "pipeline":
        how = "pipelined_loops: 1" + APART.replace("tile: 32", f"tile: {min(tile, p)}").replace("  einsums", more + "  einsums")
    else:
        more = more.replace("  schedule: interleaved\n", "") + IN_PLACE + "  taps: {SN: [SD]}\n"
        how = ROWS.replace("tile: 32", f"tile: {min(tile, p)}") + more
        how += ("  flow: p\n" if flow else "") + ("  spill: [QK, SN, A]\n" if spill else "")
    arch = architecture.load("teaching-32x32", ("grid.folds_overlap=true", f"buffer.size={size}", f"dram.bandwidth={bandwidth}e9"))
    try:
        run = simulate(spec.loads(SOFTMAX), arch, mapping.loads(how), {"P": p, "M": m, "E": 16, "F": 16}, max_tasks=10**6)
    except EinsmithError as error:
        if error.diagnostics[0].code in ("E520", "E521", "E522"):
            return  # it does not fit
        raise
    agrees(run)
    same_either_way(run.groups[0])


def test_groups_as_a_pipeline() -> None:
    large = ("buffer.size=1 MiB", "dram.bandwidth=1.6 TB/s", "grid.ripple_cycles_per_hop=0", "vector.ripple_cycles_per_hop=0")
    turns, together = textbook(APART, large), textbook("pipelined_loops: 1" + APART, large)
    (group,) = together.groups
    assert [nest.number for nest in group.nests] == [1, 2, 3]
    assert group.busiest == "vector"
    # QK of the first rows, the softmax of both, AV of the last: what a group needs is there when the group before is done with it
    assert together.steady_cycles == pytest.approx(2112, rel=0.01)
    assert together.cycles == pytest.approx(48 + 2112 + 96, rel=0.02)
    assert turns.cycles > together.cycles
    scores = [item for item in group.ran if item.task.name == "QK" and item.task.kind in ("store", "load")]
    stored = [item.end for item in scores if item.task.kind == "store" and item.resource]
    loaded = [item.start for item in scores if item.task.kind == "load"]
    assert min(loaded) >= min(stored)


def test_a_pipeline_is_extrapolated_exactly() -> None:
    how = "pipelined_loops: 1" + APART.replace("tile: 32", "tile: 1")
    large = ("buffer.size=1 MiB",)
    arch = architecture.load("teaching-32x32", ("grid.folds_overlap=true", *large))
    sizes = {"P": 400, "M": 96, "E": 16, "F": 16}
    whole, steady = (simulate(spec.loads(SOFTMAX), arch, mapping.loads(how), sizes, max_tasks=most) for most in (10**6, 200))
    assert whole.groups[0].how == "whole"
    assert steady.groups[0].how == "steady"
    assert steady.cycles == pytest.approx(whole.cycles, rel=1e-9)


CORES = """
pipelined_loops: 2
groups:
- loops: [{rank: p, tile: 64}, {rank: p, tile: 16, over: local}]
  einsums: {QK: {array: mxu, spatial: [p, m]}}
- loops: [{rank: p, tile: 64}, {rank: p, tile: 16, over: local}]
  einsums: {SN: {array: vector, spatial: [p]}, SD: {array: vector, spatial: [p]}, A: {array: vector, spatial: [p]}}
- loops: [{rank: p, tile: 64}, {rank: p, tile: 16, over: local}]
  einsums: {AV: {array: mxu, spatial: [p, f]}}
"""


def test_groups_as_a_pipeline_on_several_cores() -> None:
    cascade, arch = spec.loads(PLAIN), architecture.load("tpu-v4i", ("mxu.ripple_cycles_per_hop=0",))
    sizes = {"P": 1000, "M": 64, "E": 64, "F": 64}
    together, turns = (
        simulate(cascade, arch, mapping.loads(how), sizes) for how in (CORES, CORES.replace("pipelined_loops: 2", ""))
    )
    for run in (together, turns):
        agrees(run)
        same_either_way(run.groups[0])
    (group,) = together.groups
    assert together.cycles < 0.8 * turns.cycles
    assert together.steady_cycles == pytest.approx(together.cost.cycles, rel=0.02)
    for core in range(4):  # each does the rows of its own of every iteration, QK one after it has begun the next
        done = [item.task.name for item in group.window.lanes[f"mxu[{core}]"]]
        assert done.count("QK") == done.count("AV") == (16 if core < 3 else 15)


CONFIGS = {
    "unfused": ("softmax", "flat"), "flat": ("softmax", "flat"), "cascade": ("fusemax", "flat"), "arch": ("fusemax", "fusemax"),
    "binding": ("fusemax", "fusemax"),
}  # fmt: skip
MODELS = {"BERT": {"B": 64, "H": 12, "E": 64, "F": 64}, "XLM": {"B": 64, "H": 16, "E": 128, "F": 128}}


def published(config: str, model: str, length: int) -> Simulated:
    name, arch = CONFIGS[config]
    cascade, machine = spec.load(EXAMPLES / "attention" / f"{name}.yaml"), architecture.load(arch)
    sizes = {**MODELS[model], "P": length, "M": length}
    how = mapping.load_for(f"published-{config}", cascade, sizes, {"scale": 1}, machine)
    return simulate(cascade, machine, how, sizes, {"scale": 1})


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("model", "length"), [("BERT", 1024), ("XLM", 4096)])
def test_published_configurations_take_the_cycles_of_the_model(config: str, model: str, length: int) -> None:
    run = published(config, model, length)
    assert run.exact
    assert run.steady_cycles == pytest.approx(run.cost.cycles, rel=0.01)
    assert run.cycles >= run.cost.cycles * (1 - 1e-9)
    for group in run.groups:  # words of an extrapolated run are the model's
        for (name, way), words in group.moved.items():
            if way != "sent":
                levels = [model.levels[name] for model in group.models]
                counted = sum(sum((level.read_words if way == "read" else level.written_words).values()) for level in levels)
                assert words == pytest.approx(counted, rel=1e-9), (name, way)
    (first, *_) = run.groups
    ripple = first.stalls["array1d"].get("ripple", 0.0) / first.cycles
    if config == "arch":  # exposed in every tile
        assert ripple > 0.4
    if config == "binding":  # hidden
        assert ripple < 0.001


@pytest.mark.parametrize("config", CONFIGS)
def test_published_configurations_are_extrapolated_exactly(config: str) -> None:
    name, arch = CONFIGS[config]
    cascade, machine = spec.load(EXAMPLES / "attention" / f"{name}.yaml"), architecture.load(arch)
    sizes = {"B": 1, "H": 2, "P": 4096, "M": 4096, "E": 64, "F": 64}
    how = mapping.load_for(f"published-{config}", cascade, sizes, {"scale": 1}, machine)
    whole, steady = (simulate(cascade, machine, how, sizes, {"scale": 1}, max_tasks=most) for most in (10**6, 250))
    assert whole.whole
    assert config == "flat" or not steady.whole  # FLAT has one tile of rows a head here
    assert steady.cycles == pytest.approx(whole.cycles, rel=1e-12)
    for one, other in zip(steady.groups, whole.groups, strict=True):
        assert one.busy == pytest.approx(other.busy)
        assert one.moved == pytest.approx(other.moved)


def test_a_published_pipeline() -> None:
    run = published("flat", "BERT", 2**18)
    assert len(run.groups) == 1
    assert len(run.groups[0].nests) == 3
    assert run.steady_cycles == pytest.approx(run.cost.cycles, rel=0.01)


def test_a_study_is_simulated_row_by_row(tmp_path) -> None:  # type: ignore[no-untyped-def]
    arguments = ["reproduce", "fusemax", "--simulate", "--model", "XLM", "--length", "4K"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [row["config"] for row in found["simulated"]] == list(CONFIGS)
    assert found["worst"] < 0.01
    for row in found["simulated"]:
        assert row["how"] == "steady"
        run = published(row["config"], "XLM", 4096)
        if row["config"] not in ("unfused", "flat"):  # there the published accounting has other cycles
            assert row["cycles"] == run.cycles
        assert row["steady_cycles"] == pytest.approx(row["cycles"] - row["fill_cycles"] - row["drain_cycles"])
    assert (tmp_path / "simulated.csv").read_text().count("\n") == 6
    assert CliRunner().invoke(main, [*arguments, "--search", "all"]).exit_code == 2
