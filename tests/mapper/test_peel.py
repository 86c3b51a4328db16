"""First steps of running states peeled off: values, counts and time, and the search with it against every mapping."""

from __future__ import annotations

import pytest

import einsmith as es
from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import Cost, model
from einsmith.mapper.fixed import Fixed
from einsmith.mapper.masks import first_step
from einsmith.mapper.search import search
from einsmith.sim.functional import execute, random_data
from einsmith.sim.simulate import simulate

from .brute import Brute, ranked

DECAY = """name: decay
ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}}
inputs: {X: [p, m]}
cascade: |
  LM[m1,p]   = sum[m0](X[p,m1*M0+m0])
  SP[m1,p]   = RD[m1,p] * 0.5
  RD[0,p]    = 0
  RD[m1+1,p] = SP[m1,p] + LM[m1,p]
  Y[p]       = RD[M1,p] + 1
outputs: [Y]
"""
CHIP = """name: chip
clock_hz: 1.0e+9
word_bytes: 1
source: test
memory:
  dram: {bandwidth: 1.0e+11, access_bytes: 8, read_pj: 40, write_pj: 40, source: test}
  buffer: {size: 40, access_bytes: 4, read_pj: 2, write_pj: 3, source: test}
arrays:
  one:
    side: [2]
    units: {add: {cycles: 1, energy_pj: 2, source: test}, multiply: {cycles: 3, energy_pj: 1, source: test}}
    registers: {words: 3, read_pj: 0.25, write_pj: 0.5, source: test}
    source: test
"""
SIZES = {"B": 1, "H": 1, "E": 4, "F": 4, "P": 10, "M": 22, "M0": 8}
PUBLISHED = {"B": 64, "H": 12, "E": 64, "F": 64, "P": 1024, "M": 1024, "M0": 256}


def published(peel: tuple[str, ...], sizes: dict[str, int]) -> Cost:
    cascade, arch = es.load("examples/attention/fusemax.yaml"), architecture.load("fusemax")
    found = mapping.load_for("published-binding", cascade, sizes, {"scale": 1}, arch)
    groups = tuple(group.model_copy(update={"peel": peel}) for group in found.groups)
    return model(cascade, arch, found.model_copy(update={"groups": groups}), sizes, {"scale": 1})


def test_corrections_are_spared_once() -> None:
    """The correction factor, and what it corrects, are zero in the first of four tiles: known from the initial values alone."""
    plain, peeled = published((), PUBLISHED), published(("m1",), PUBLISHED)
    for name, einsum in peeled.per_einsum.items():
        share = 0.75 if name in ("PRM", "SPD", "SPNV") else 1.0
        assert einsum.executions == share * plain.per_einsum[name].executions
        assert einsum.cycles == pytest.approx(share * plain.per_einsum[name].cycles)
    spared = sum(0.25 * plain.per_einsum[name].cycles for name in ("PRM", "SPD", "SPNV"))
    assert peeled.groups[0].timing.busy["array1d"] == pytest.approx(plain.groups[0].timing.busy["array1d"] - spared)
    assert peeled.traffic_bytes == plain.traffic_bytes
    assert peeled.energy_pj < plain.energy_pj
    assert peeled.cycles < plain.cycles


def test_what_is_known_of_a_first_step() -> None:
    """Nothing of a state that begins at a value that is not a constant, or of another rank."""
    cascade = spec.loads(DECAY)
    first = first_step(cascade, "m1", frozenset())
    assert first is not None
    assert {cascade.einsums[position].output for position in first.skips} == {"SP"}
    assert list(first.constants.values()) == [0.0]
    assert first_step(cascade, "p", frozenset()) is None
    begun = spec.loads(
        DECAY.replace("inputs: {X: [p, m]}", "inputs: {X: [p, m], B: [p]}").replace("RD[0,p]    = 0", "RD[0,p] = B[p]")
    )
    assert first_step(begun, "m1", frozenset()) is None


@pytest.mark.parametrize("objective", ["latency", "energy"])
def test_values_counts_and_events(objective: str) -> None:
    """Executed tile by tile the values are the interpreter's and every count the model's; event by event it takes no longer."""
    cascade = es.load("examples/attention/fusemax.yaml")
    arch = architecture.load("fusemax", ("array2d.side=[4,4]", "array1d.side=[4]"))
    params = {"scale": 1}
    whole = (frozenset(einsum.output for einsum in cascade.einsums),)
    plain, peeled = (
        search(cascade, arch, SIZES, params, objective, "sides", fixed=Fixed(groups=whole, peel=peel)) for peel in (False, True)
    )
    assert peeled.optimal
    assert [group.peel for group in peeled.mapping.groups] == [("m1",)]
    at = 0 if objective == "latency" else 1
    assert peeled.value[at] < plain.value[at]
    again = mapping.loads(peeled.mapping.as_yaml())
    assert again == peeled.mapping
    done = execute(cascade, arch, again, random_data(cascade, again, SIZES, params), SIZES, params)
    assert done.equal
    assert done.differences == []
    run = simulate(cascade, arch, again, SIZES, params)
    assert run.cycles >= max(peeled.cost.groups[0].timing.busy.values())
    whole_steps = again.model_copy(update={"groups": (again.groups[0].model_copy(update={"peel": ()}),)})
    assert run.cycles <= simulate(cascade, arch, whole_steps, SIZES, params).cycles
    assert run.cycles == pytest.approx(peeled.value[0], rel=0.25)


@pytest.mark.parametrize("objective", ["latency", "energy", "traffic"])
@pytest.mark.parametrize("sizes", [{"P": 3, "M": 4, "M0": 2}, {"P": 2, "M": 3, "M0": 1}, {"P": 3, "M": 2, "M0": 2}])
def test_equal_to_brute_force(objective: str, sizes: dict[str, int]) -> None:
    cascade, arch = spec.loads(DECAY), architecture.loads(CHIP)
    best = Brute(cascade, arch, sizes, "sides", peel=("m1",), obeys=lambda group: "RD" in group.einsums).group(0, 4)
    least = min(ranked(objective, value) for value, _ in best)
    whole = frozenset({"LM", "SP", "RD", "Y"})
    found = search(cascade, arch, sizes, objective=objective, tiles="sides", fixed=Fixed(groups=(whole,), peel=True))
    assert found.optimal
    assert ranked(objective, found.value)[0] == pytest.approx(least[0], rel=1e-12)


def test_only_ranks_of_running_states_are_peeled() -> None:
    with pytest.raises(EinsmithError) as raised:
        published(("p",), PUBLISHED)
    assert raised.value.diagnostics[0].code == "E510"
