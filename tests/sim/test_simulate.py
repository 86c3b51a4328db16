"""Simulation against the cost model and against schedules worked out by hand."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.mapper.search import search
from einsmith.sim import events, recurrence
from einsmith.sim import simulate as simulation
from einsmith.sim.machine import Machine, component
from einsmith.sim.simulate import GroupRun, Simulated, simulate
from einsmith.sim.trace import chrome_trace

GEMM = """name: gemm
ranks: {m: M, n: N, k: K}
inputs: {A: [m, k], B: [k, n]}
cascade: |
  C[m,n] = A[m,k] * B[k,n]
outputs: [C]
"""
TILED = """groups:
- loops: [{rank: m, tile: 32, hold: [A]}, {rank: n, tile: 32, hold: [B]}]
  einsums: {C: {array: grid, spatial: [m, n]}}
  schedule: interleaved
  in_flight: 2
  buffering: %d
  stay: {C: forward}
"""


def gemm(bandwidth: float, buffering: int = 2, **sizes: int) -> Simulated:
    arch = architecture.load("teaching-32x32", (f"dram.bandwidth={bandwidth}",))
    return simulate(spec.loads(GEMM), arch, mapping.loads(TILED % buffering), sizes)


def agrees(run: Simulated) -> None:
    """What must hold of every whole run: the same work and transfers as the model counts, and no less time than they need."""
    assert run.whole
    for group in run.groups:
        bounds = {name: cycles for name, cycles in group.bounds.items() if not name.startswith("dependences")}
        networks = group.nest.arch.networks
        most: dict[str, float] = {}
        for name, busy in group.busy.items():
            assert busy + sum(group.stalls[name].values()) == pytest.approx(group.covers)
            of, before = component(name), most.get(component(name), 0.0)
            if of in networks:  # the model has the mean of all instances
                most[of] = before + busy / group.nest.arch.instances(networks[of].outer)
            else:
                most[of] = max(busy, before)
        for name, busy in most.items():  # of several instances, and of a read and a write port, the busiest
            if name in group.nest.arch.memory and group.nest.arch.instances(name) > 1:
                assert busy >= bounds.get(name, 0.0) * (1 - 1e-5)  # the model takes the first: sums may come back to others only
                continue
            assert busy == pytest.approx(bounds.get(name, 0.0), rel=1e-5, abs=1e-3), name
        assert group.cycles >= max(bounds.values()) * (1 - 1e-5)
        assert sum(group.difference().values()) == pytest.approx(group.cycles - group.model_cycles, abs=1e-3 + 1e-6 * group.cycles)
        assert sum(group.window.critical.values()) == pytest.approx(group.window.cycles)
        assert "other" not in group.window.critical
        assert moved(group) == pytest.approx(modelled(group))
        for level, words in group.window.peaks.items():
            size = group.nest.arch.memory[level].size
            assert size is None or words * group.nest.arch.word_bytes <= size


def same_either_way(group: GroupRun) -> None:
    """The two ways of running the same tasks."""
    tasks, rank = group.window.tasks, Machine(group.nest.arch).rank
    one, other = events.run(tasks, rank), recurrence.run(tasks, rank)
    assert (one.starts, one.ends, sorted(one.asked)) == (other.starts, other.ends, sorted(other.asked))
    assert one.starts == group.window.run.starts


def moved(group: GroupRun) -> dict[tuple[str, str, str], float]:
    """Words by level, way and tensor, as the tasks moved them."""
    found: dict[tuple[str, str, str], float] = {}
    for task in group.window.tasks:
        for level, _, way, tensor, words in task.moves:
            if way != "sent":
                found[level, way, tensor] = found.get((level, way, tensor), 0.0) + words
    return {key: words for key, words in found.items() if words}


def modelled(group: GroupRun) -> dict[tuple[str, str, str], float]:
    """The same, as the cost model counts them."""
    found: dict[tuple[str, str, str], float] = {}
    for model in group.models:
        for level, costs in model.levels.items():
            for way, tensors in (("read", costs.read_words), ("written", costs.written_words)):
                for tensor, words in tensors.items():
                    found[level, way, tensor] = found.get((level, way, tensor), 0.0) + words
    return {key: words for key, words in found.items() if words}


def test_a_gemm_by_hand() -> None:
    # 2 x 2 tiles of K + R + C - 2 = 16 + 62 = 78 cycles; a tile of A, B or C is 512, 512 or 1024 words: 1024, 1024, 2048 bytes.
    # At 64 bytes a cycle: A 16, B 16, C 32 cycles.
    run = gemm(64e9, M=64, N=64, K=16)
    agrees(run)
    (group,) = run.groups
    # A, B come (32); four tiles back to back, as the next B (and A) comes meanwhile; the last C leaves (32)
    assert group.cycles == 32 + 4 * 78 + 32
    assert group.difference() == {"fill": 32.0, "drain": 32.0}
    assert run.cost.cycles + run.cost.fill_cycles == group.cycles  # the model's fill and drain are those
    # at 4 bytes a cycle transfers take 16 times longer: the channel is never idle, the array works in its shadow
    slow = gemm(4e9, M=64, N=64, K=16)
    agrees(slow)
    assert slow.groups[0].busy["dram"] == (2 * 16 + 4 * 16 + 4 * 32) * 16
    assert slow.cycles == slow.groups[0].busy["dram"]


def test_one_slot_makes_loads_wait_for_readers() -> None:
    two, one = gemm(64e9, M=64, N=64, K=16), gemm(64e9, buffering=1, M=64, N=64, K=16)
    agrees(one)
    assert one.cycles > two.cycles
    # nothing overlaps: A and B (32), work (78), then for each further tile the last C leaves (32) before B (16), and A (16) at the
    # second row, have been waited for
    assert one.cycles == 32 + 78 + (32 + 16 + 78) + (32 + 32 + 78) + (32 + 16 + 78) + 32
    assert one.cost.cycles == one.cycles


def fusemax(
    length: int, heads: int = 2, binding: str = "fusemax-binding", change: tuple[str, str] = ("", ""), **options: int
) -> Simulated:
    text = mapping.load(binding).as_yaml().replace("tile: 1024", f"tile: {length}")
    assert not change[0] or change[0] in text
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    sizes = {"B": 1, "H": heads, "P": length, "M": length, "E": 64, "F": 64}
    return simulate(cascade, architecture.load("fusemax"), mapping.loads(text.replace(*change)), sizes, {"scale": 1}, **options)


def test_the_published_binding_runs_at_the_pace_of_its_1d_array() -> None:
    run = fusemax(4096)
    agrees(run)
    extra = run.cycles - run.cost.cycles
    assert extra < run.cost.cycles * 0.02 + run.cost.fill_cycles
    difference = run.groups[0].difference()
    assert difference["fill"] > 0


def test_fewer_tiles_in_flight_expose_the_ripple() -> None:
    cycles = [fusemax(2048, change=("in_flight: 12", f"in_flight: {flying}")).cycles for flying in (1, 2, 4, 8, 12)]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > 3 * cycles[-1]
    stalls = fusemax(2048, change=("in_flight: 12", "in_flight: 2")).stalls
    assert stalls["array1d"]["ripple"] > 0.4 * sum(stalls["array1d"].values())


def test_schedules_one_tile_at_a_time_agree_with_the_model() -> None:
    for schedule in ("in-turn", "pipelined"):
        run = fusemax(1024, change=("schedule: interleaved\n  in_flight: 12", f"schedule: {schedule}"))
        agrees(run)
        assert run.cost.cycles * 0.98 <= run.cycles <= (run.cost.cycles + run.cost.fill_cycles) * 1.02, schedule


def test_a_steady_state_is_extrapolated_exactly() -> None:
    for length, heads, flying in ((4096, 2, 12), (8192, 1, 12), (4096, 3, 5), (8192, 2, 1)):
        change = ("in_flight: 12", f"in_flight: {flying}")
        whole = fusemax(length, heads, change=change, max_tasks=10**6)
        steady = fusemax(length, heads, change=change, max_tasks=1500)
        assert whole.groups[0].how == "whole"
        assert steady.groups[0].how == "steady"
        assert steady.exact
        assert not steady.whole
        assert steady.groups[0].window.tiles < whole.groups[0].window.tiles
        assert steady.cycles == pytest.approx(whole.cycles, rel=1e-9)
        for name, busy in whole.groups[0].busy.items():
            assert steady.groups[0].busy[name] == pytest.approx(busy)
            assert sum(steady.groups[0].stalls[name].values()) == pytest.approx(whole.cycles - busy)


CAUSAL = """
groups:
- schedule: interleaved
  in_flight: 4
  loops: [{rank: m, tile: 16, hold: [K]}, {rank: p, tile: 16, hold: [Q]}]
  einsums:
    QK: {array: array2d, spatial: [p, m]}
    S: {array: array2d, spatial: [p, m]}
    GM: {array: array1d, spatial: [p]}
  stay: {QK: forward, S: forward}
- schedule: interleaved
  in_flight: 4
  loops: [{rank: p, tile: 16, hold: [S, GM]}]
  einsums:
    SN: {array: array2d, spatial: [p, m]}
    SD: {array: array2d, spatial: [p, m]}
    A: {array: array1d, spatial: [p]}
    AV: {array: array2d, spatial: [p, m]}
  stay: {SD: array1d, AV: forward}
"""


def test_what_has_no_steady_state_is_extrapolated_at_a_pace_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MAX_WHOLE", 2000)  # so that a small problem counts as too large to be run whole
    cascade = spec.load(EXAMPLES / "attention" / "softmax-causal.yaml")
    arch = architecture.load("fusemax", ("array2d.side=[16, 16]", "array1d.side=[16]"))
    sizes = {"B": 1, "H": 1, "P": 640, "M": 640, "E": 16, "F": 16}
    whole, paced = (simulate(cascade, arch, mapping.loads(CAUSAL), sizes, max_tasks=most) for most in (10**6, 600))
    assert not paced.exact
    assert "pace" in {group.how for group in paced.groups}
    assert "extrapolated" in str(paced)
    assert "extrapolated" not in str(whole)
    assert paced.cycles == pytest.approx(whole.cycles, rel=0.2)


def test_a_million_tokens_are_extrapolated_exactly() -> None:
    text = mapping.load("fusemax-binding").as_yaml().replace("tile: 1024", "tile: 4096")
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    sizes = {"B": 64, "H": 12, "P": 2**20, "M": 2**20, "E": 64, "F": 64}
    run = simulate(cascade, architecture.load("fusemax"), mapping.loads(text), sizes, {"scale": 1})
    assert run.exact
    assert run.cost.cycles < run.cycles < run.cost.cycles * 1.00001


@settings(max_examples=60)
@given(
    st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.permutations("mnk"),
    st.sampled_from(("in-turn", "pipelined", "interleaved")), st.integers(1, 3), st.sampled_from((1, 2)),
    st.sampled_from((1e9, 32e9)), st.integers(0, 5),
)  # fmt: skip
def test_any_gemm_mapping_agrees_with_the_model(
    mnk: tuple[int, int, int],
    a: int,
    b: int,
    c: int,
    order: list[str],
    schedule: str,
    flying: int,
    buffering: int,
    bandwidth: float,
    outer: int,
) -> None:
    loops = ", ".join(f"{{rank: {rank}, tile: {tile}}}" for rank, tile in zip(order, (a, b, c), strict=True))
    if outer:  # a second loop outside, whose tile the inner one need not divide
        loops = f"{{rank: {order[2]}, tile: {c + outer}}}, " + loops
    text = (
        f"groups:\n- loops: [{loops}]\n  einsums: {{C: {{array: grid, spatial: [m, n]}}}}\n"
        f"  schedule: {schedule}\n  in_flight: {flying}\n  buffering: {buffering}\n"
    )
    arch = architecture.load("teaching-32x32", ("grid.side=[4, 4]", f"dram.bandwidth={bandwidth}", "buffer.size=1 MiB"))
    sizes = dict(zip(("M", "N", "K"), mnk, strict=True))
    run = simulate(spec.loads(GEMM), arch, mapping.loads(text), sizes, max_tasks=10**6)
    agrees(run)
    for group in run.groups:  # the two ways of running the same tasks
        same_either_way(group)
    short = simulate(spec.loads(GEMM), arch, mapping.loads(text), sizes, max_tasks=40)
    if short.exact:
        assert short.cycles == pytest.approx(run.cycles, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["softmax-causal", "gqa", "linear", "linear-causal", "channel", "sliding-window", "flash2", "tile-local-merge"]
)
def test_what_the_search_finds_runs_as_the_model_says(name: str) -> None:
    cascade = spec.load(EXAMPLES / "attention" / f"{name}.yaml")
    arch = architecture.load("fusemax", ("array2d.side=[32, 32]", "array1d.side=[32]"))
    known = {"B": 1, "H": 4, "P": 250, "M": 250, "L": 250, "E": 32, "F": 32, "M0": 32}
    sizes = {symbol: known[symbol] for symbol in cascade.symbols if symbol in known}
    found = search(cascade, arch, sizes, gap=1.0)
    run = simulate(cascade, arch, found.mapping, sizes, max_tasks=10**6)
    agrees(run)


def test_traces_do_not_overlap_and_name_their_tiles() -> None:
    run = fusemax(1024)
    trace = json.loads(json.dumps(chrome_trace(run)))
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    tracks = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert set(tracks.values()) == {"array2d", "array1d", "dram"}
    for track in tracks:
        mine = sorted((event["ts"], event["ts"] + event["dur"]) for event in slices if event["tid"] == track)
        assert mine
        assert all(start >= end - 1e-9 for (_, end), (start, _) in pairwise(mine))
    assert any(event["name"] == "QK" and event["args"]["tile"] == {"b": 0, "h": 1, "p": 0, "m1": 2, "p'": 3} for event in slices)
    assert {event["name"] for event in slices if event["cat"] == "load"} == {"load Q", "load K", "load V"}


def test_a_buffer_that_is_too_small_is_refused_not_hung() -> None:
    with pytest.raises(EinsmithError) as raised:
        simulate(
            spec.loads(GEMM),
            architecture.load("teaching-32x32", ("buffer.size=4096",)),
            mapping.loads(TILED % 2),
            {"M": 64, "N": 64, "K": 64},
        )
    assert raised.value.diagnostics[0].code == "E520"


def test_a_starving_array_waits_for_what_it_lacks() -> None:
    plain = fusemax(4096)
    slow = architecture.load("fusemax", ("dram.bandwidth=4 GiB/s",))
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    text = mapping.load("fusemax-binding").as_yaml()
    sizes = {"B": 1, "H": 2, "P": 1024, "M": 4096, "E": 64, "F": 64}
    starved = simulate(cascade, slow, mapping.loads(text), sizes, {"scale": 1})
    agrees(starved)
    causes = starved.stalls["array2d"]  # the 1-D array waits for what the 2-D array would make
    assert max(causes, key=lambda cause: causes[cause]) == "data"
    assert causes["data"] > 0.3 * sum(causes.values())
    assert starved.groups[0].busy["dram"] > 0.9 * starved.cycles  # the channel is what it waits for
    assert plain.groups[0].busy["dram"] < 0.2 * plain.cycles
    # one slot for what comes and goes: transfers and work take turns
    one = fusemax(1024, change=("in_flight: 12", "in_flight: 12\n  buffering: 1"))
    agrees(one)
    assert one.stalls["array2d"]["data"] > 0
    assert one.cycles > fusemax(1024).cycles


@pytest.mark.parametrize("empty", [{"m": 0}, {"n": 0}, {"k": 0}])
def test_nothing_to_do_is_reported_not_a_fault(empty: dict[str, int]) -> None:
    run = gemm(1e12, **{"M": 64, "N": 64, "K": 64, **{name.upper(): size for name, size in empty.items()}})
    assert run.as_json()["cycles"] == run.cycles
    assert str(run)


def test_the_commands_agree(tmp_path) -> None:  # type: ignore[no-untyped-def]
    sizes = ["--size", "B=1,H=1,P=1K,M=1K,E=64,F=64", "--json"]
    out, trace = tmp_path / "m.yaml", tmp_path / "t.json"
    runner = CliRunner()

    def call(*args: str) -> dict[str, object]:
        result = runner.invoke(main, [*args, *sizes])
        assert result.exit_code == 0, result.output
        found: dict[str, object] = json.loads(result.stdout)
        return found

    mapped = call("map", "flash2", "--arch", "fusemax", "-o", str(out))
    modelled = call("model", "flash2", "--arch", "fusemax", "--mapping", str(out))
    simulated = call("simulate", "flash2", "--arch", "fusemax", "--mapping", str(out), "--trace", str(trace))
    for key in ("latency_s", "cycles", "energy_pj", "traffic_bytes", "area_um2", "utilization", "per_einsum"):
        assert mapped[key] == modelled[key], key
    assert {"mapping", "evaluated", "pruned", "optimal"} <= set(mapped)
    assert {"cycles", "utilization", "stalls", "events"} <= set(simulated)
    assert simulated["model_cycles"] == modelled["cycles"]
    assert json.loads(trace.read_text())["traceEvents"]
    assert mapping.load(out).groups
