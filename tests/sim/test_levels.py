"""Several storage levels, instances, networks and ports: words as the model counts them, times by hand, no run that hangs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.inputs import random_inputs
from einsmith.mapper import architecture, mapping
from einsmith.sim.functional import execute
from einsmith.sim.simulate import Simulated, simulate

from ..mapper.test_accesses import ARCH, Drawn, drawings
from .test_simulate import GEMM, agrees, same_either_way

LIMITED = (
    ARCH.replace("dram: {", "dram: {bandwidth: 2e9, ")
    .replace("buffer: {", "buffer: {read_bandwidth: 3e9, write_bandwidth: 2e9, ")
    .replace("instances: 4, ", "instances: 4, bandwidth: 5e9, ")
)
ALONE = """
networks:
  down: {outer: buffer, inner: local, multicast: false, bandwidth: 3e9, source: test}
  lanes: {outer: local, inner: grid, multicast: false, reduction: false, bandwidth: 7e9, source: test}
"""


def extents(drawn: Drawn) -> dict[str, int]:
    return {rank.upper(): extent for rank, extent in drawn.sizes.items()}


@settings(max_examples=200)
@given(drawings(), st.sampled_from(("in-turn", "pipelined", "interleaved")), st.integers(1, 3), st.booleans())
def test_random_mappings_move_what_the_model_says_and_never_hang(drawn: Drawn, schedule: str, flying: int, networks: bool) -> None:
    text = drawn.as_yaml() + f"  schedule: {schedule}\n  in_flight: {flying}\n"
    arch = architecture.loads(LIMITED + (ALONE if networks else ""))
    run = simulate(spec.loads(drawn.problem.text), arch, mapping.loads(text), extents(drawn), max_tasks=10**6)
    agrees(run)
    same_either_way(run.groups[0])


@settings(max_examples=40)
@given(drawings(), st.booleans())
def test_random_mappings_on_data(drawn: Drawn, networks: bool) -> None:
    assume("m+k" not in drawn.problem.text)  # windows of neighbouring folds overlap; the model counts what they share once
    cascade = spec.loads(drawn.problem.text)
    inputs = random_inputs(cascade, extents(drawn), None, np.random.default_rng(0))
    run = execute(
        cascade, architecture.loads(ARCH + (ALONE if networks else "")), mapping.loads(drawn.as_yaml()), inputs, extents(drawn)
    )
    assert run.equal, run.errors
    assert not run.differences


# --- by hand ------------------------------------------------------------------------------------------------------------

PORTS = """
name: ports
source: test
clock_hz: 1.0e+9
word_bytes: 1
memory:
  dram: {bandwidth: 8e9, access_bytes: 1, read_pj: 0, write_pj: 0, source: test}
  buffer: {size: 4096, %s access_bytes: 1, read_pj: 0, write_pj: 0, source: test}
arrays:
  grid:
    side: [8, 8]
    units: {mac: {energy_pj: 0, source: test}}
    registers: {words: 64, source: test}
    source: test
"""
ONE_TILE = "groups:\n- einsums: {C: {array: grid, spatial: [m, n]}}\n  stay: {C: %s}\n"
ROWS = """groups:
- schedule: interleaved
  in_flight: 2
  loops: [{rank: m, tile: 8, hold: [A]}]
  einsums: {C: {array: grid, spatial: [m, n]}}
  %s
  stay: {C: forward}
"""


def ported(port: str, how: str, network: str = "", **sizes: int) -> Simulated:
    arch = architecture.loads(PORTS % port + network)
    run = simulate(spec.loads(GEMM), arch, mapping.loads(how), sizes)
    agrees(run)
    return run


def test_an_array_waits_for_a_port() -> None:
    sizes = {"M": 8, "N": 8, "K": 16}
    # A and B are 128 words each: 16 cycles each over the channel; 16 cycles of work; C is 64 words: 8 cycles
    free = ported("", ONE_TILE % "forward", **sizes)
    assert free.cycles == 16 + 16 + 16 + 8
    # read at 4 words a cycle, 256 words take 64 cycles, 48 more than the work
    slow = ported("read_bandwidth: 4e9,", ONE_TILE % "forward", **sizes)
    assert slow.cycles == 16 + 16 + 64 + 8
    assert slow.groups[0].stalls["grid"] == {"fill": 32, "port": 48, "drain": 8}
    assert slow.groups[0].busy["buffer read"] == 64
    # one port for all: filling it takes 64 cycles (the channel waits for it); C is written in the same 16 + 64 and read again
    one = ported("bandwidth: 4e9,", ONE_TILE % "buffer", **sizes)
    assert one.cycles == 32 + 32 + (256 + 64) / 4 + 16
    assert one.groups[0].stalls["dram"]["port"] == 16 + 16 + 8


def test_a_network_is_a_resource() -> None:
    network = "networks:\n  bus: {outer: buffer, inner: grid, bandwidth: 2e9, source: test}\n"
    run = ported("", ONE_TILE % "forward", network, M=8, N=8, K=16)
    assert run.groups[0].busy["bus"] == 128
    assert run.cycles == 32 + 128 + 8
    # without multicast every lane takes its own: 8 times as much
    alone = ported("", ONE_TILE % "forward", network.replace("bandwidth", "multicast: false, bandwidth"), M=8, N=8, K=16)
    assert alone.groups[0].busy["bus"] == 8 * 128


def test_a_single_slot_is_refilled_word_by_word() -> None:
    # 4 tiles of A of 128 words, 16 cycles each; each is worked on for 16 cycles; B is 128 words; C 64 words, 8 cycles
    sizes = {"M": 32, "N": 8, "K": 16}
    two = ported("", ROWS % "single: []", **sizes)
    single = ported("", ROWS % "single: [A]", **sizes)
    turns = ported("", ROWS % "buffering: 1", **sizes)
    # with one slot the next tile comes as this one is read: as with two, where the channel is the bound
    assert two.cycles <= single.cycles < turns.cycles
    assert single.groups[0].window.peaks["buffer"] == 128 + 128
    assert two.groups[0].window.peaks["buffer"] == 128 + 2 * 128
    loads = [item for item in single.groups[0].ran if item.task.name == "A" and item.task.kind == "load"]
    works = [item for item in single.groups[0].ran if item.task.name == "C" and item.task.kind == "compute"]
    for work, load in zip(works, loads[1:], strict=False):
        assert load.start >= work.start
        assert load.end >= work.end


def test_instances_share_a_read_where_the_network_multicasts() -> None:
    drawn = "groups:\n- loops: [{rank: m, tile: 2, over: local}]\n  einsums: {C: {array: grid, spatial: [m, n]}}\n"
    for networks, reads in (("", 1), (ALONE, 4)):
        run = simulate(spec.loads(GEMM), architecture.loads(LIMITED + networks), mapping.loads(drawn), {"M": 8, "N": 3, "K": 4})
        agrees(run)
        (group,) = run.groups
        assert sum(words for task in group.window.tasks for level, _, way, name, words in task.moves
                   if (level, way, name) == ("buffer", "read", "B")) == reads * 12  # fmt: skip
        assert {name for name, busy in group.busy.items() if busy and name.startswith("grid")} == {f"grid[{i}]" for i in range(4)}


def test_the_mapping_of_four_cores() -> None:
    cascade, arch = spec.loads(GEMM), architecture.load("tpu-v4i")
    run = simulate(cascade, arch, mapping.load("tpu-gemm"), {"M": 2048, "N": 256, "K": 128})
    agrees(run)
    assert run.cycles >= run.cost.cycles
    # the parts of A come one after another, so the cores begin one after another
    starts = [run.groups[0].window.lanes[f"mxu[{core}]"][0].start for core in range(4)]
    assert starts == sorted(set(starts))
    assert set(run.stalls) == {f"{name}[{core}]" for name in ("mxu", "vector") for core in range(4)}


# --- starving -----------------------------------------------------------------------------------------------------------


def test_starving() -> None:
    sizes = {"M": 64, "N": 8, "K": 16}
    tiles = ROWS % "single: []"
    plenty = ported("", tiles, **sizes)
    # one slow port: the array is held by it
    port = ported("bandwidth: 2e9,", tiles, **sizes)
    assert port.cycles > 2 * plenty.cycles
    assert port.stalls["grid"]["port"] > 0.5 * port.cycles
    assert port.groups[0].busiest == "buffer"
    # DRAM at a tenth: everything waits for transfers
    arch = architecture.loads((PORTS % "").replace("8e9", "8e8"))
    dram = simulate(spec.loads(GEMM), arch, mapping.loads(tiles), sizes)
    agrees(dram)
    assert dram.groups[0].busiest == "dram"
    assert dram.stalls["grid"]["data"] > 0.6 * dram.cycles
    assert dram.cycles >= 9.9 * plenty.groups[0].busy["dram"]
    # a buffer one word too small
    needs = plenty.cost.groups[0].buffer_need
    with pytest.raises(EinsmithError) as raised:
        simulate(
            spec.loads(GEMM), architecture.loads((PORTS % "").replace("4096", str(needs - 1))), mapping.loads(tiles), sizes
        )  # fmt: skip
    assert raised.value.diagnostics[0].code == "E520"
    assert f"{needs:,}" in raised.value.diagnostics[0].message
    # with one slot less it fits, and transfers and work take turns
    small = architecture.loads((PORTS % "").replace("4096", str(needs - 1)))
    assert simulate(spec.loads(GEMM), small, mapping.loads(ROWS % "buffering: 1"), sizes).cycles > plenty.cycles
