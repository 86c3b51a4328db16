"""The search against every mapping of its space, one by one: random small problems, for each objective."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import Cost, model
from einsmith.mapper.search import Objective, search
from einsmith.mapper.space import Tiles

from .brute import Brute, score
from .problems import Problem, problems

ADDITIVE: tuple[Objective, ...] = ("latency", "energy", "traffic")
MANY = 900
"""Mappings beyond which a problem takes too long to go through."""


def point(cost: Cost) -> tuple[float, float, float]:
    return cost.cycles + cost.fill_cycles, cost.energy_pj, cost.traffic_bytes / cost.arch.word_bytes


def compare(problem: Problem, tiles: Tiles, objectives: tuple[Objective, ...], equal: Counter[str]) -> None:
    """Nothing is better than what is found; what is left out for being slower in every array may be, by its fill alone."""
    if any(problem.cascade.tensor(name).kind == "state" for name in problem.cascade.outputs):
        with pytest.raises(EinsmithError) as raised:
            search(problem.cascade, problem.arch, problem.sizes, tiles=tiles)
        assert raised.value.diagnostics[0].code == "E530"
        return
    every = Brute(problem.cascade, problem.arch, problem.sizes, tiles)
    if every.best("latency") is None:
        with pytest.raises(EinsmithError) as raised:
            search(problem.cascade, problem.arch, problem.sizes, tiles=tiles)
        assert raised.value.diagnostics[0].code in ("E513", "E540")
        return
    found = {o: search(problem.cascade, problem.arch, problem.sizes, objective=o, tiles=tiles) for o in objectives}
    for objective, searched in found.items():
        assert searched.optimal
        again = model(problem.cascade, problem.arch, mapping.loads(searched.mapping.as_yaml()), problem.sizes)
        assert again.as_json() == searched.cost.as_json()
        if objective == "pareto":
            continue
        least, value = every.best(objective), score(objective, point(searched.cost))
        assert least is not None
        assert value >= least * (1 - 1e-12)
        if value == pytest.approx(least, rel=1e-12, abs=1e-12):
            equal[objective] += 1
        else:
            assert objective in ("latency", "edp")
            kept = Brute(problem.cascade, problem.arch, problem.sizes, tiles, undominated=True)
            most = kept.best(objective)
            assert most is not None
            assert value <= most * (1 + 1e-12)
    if "pareto" in found:
        front = [point(cost)[:2] for cost in found["pareto"].front]
        if front == [pytest.approx(both, rel=1e-12, abs=1e-12) for both in every.front()]:
            equal["pareto"] += 1
        else:
            kept = Brute(problem.cascade, problem.arch, problem.sizes, tiles, undominated=True)
            for cycles, energy in kept.front():
                assert any(a <= cycles * (1 + 1e-12) and b <= energy * (1 + 1e-12) for a, b in front)


def test_every_objective() -> None:
    equal: Counter[str] = Counter()

    @settings(max_examples=55, phases=[Phase.generate])  # shrinking would take minutes
    @given(problems())
    def check(problem: Problem) -> None:
        assume(2 < Brute(problem.cascade, problem.arch, problem.sizes, "sides").size <= MANY)
        compare(problem, "sides", (*ADDITIVE, "edp", "pareto"), equal)

    check()
    assert min(equal[objective] for objective in (*ADDITIVE, "edp", "pareto")) >= 30, equal


def test_more_tiles() -> None:
    equal: Counter[str] = Counter()

    @settings(max_examples=16, phases=[Phase.generate])  # shrinking would take minutes
    @given(problems(), st.sampled_from(("doubled", "every")))
    def check(problem: Problem, tiles: Tiles) -> None:
        assume(2 < Brute(problem.cascade, problem.arch, problem.sizes, tiles).size <= MANY)
        compare(problem, tiles, ADDITIVE, equal)

    check()
    assert min(equal[objective] for objective in ADDITIVE) >= 8, equal


@st.composite
def deeper(draw: Any) -> Problem:
    """A problem with a small level between the buffer and the arrays."""
    problem = draw(problems())
    local = problem.arch.memory["buffer"].model_copy(
        update={"size": draw(st.sampled_from([8, 16, 40, 100])), "read_pj": draw(st.sampled_from([0.5, 1.0])), "write_pj": 1.0}
    )
    memory = {**problem.arch.memory, "local": local}
    return Problem(problem.cascade, problem.arch.model_copy(update={"memory": memory}), problem.sizes)


def test_three_levels() -> None:
    """Inputs held by each of two levels on the chip or passing one by, results in either."""
    equal: Counter[str] = Counter()

    @settings(max_examples=12, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
    @given(deeper())
    def check(problem: Problem) -> None:
        assume(2 < Brute(problem.cascade, problem.arch, problem.sizes, "sides").size <= MANY // 2)
        compare(problem, "sides", ADDITIVE, equal)

    check()
    assert min(equal[objective] for objective in ADDITIVE) >= 8, equal


CROWDED = """name: crowded
ranks: {p: P, m: M}
inputs: {X: [p, m]}
cascade: |
  GM[p]   = max[m](X[p,m])
  SN[p,m] = exp(X[p,m] - GM[p])
  SD[p]   = sum[m](SN[p,m])
outputs: [SN, SD]
"""
ATTENTION = """name: attention
ranks: {p: P, m: M, e: E}
inputs: {Q: [p, e], K: [m, e], V: [m, e]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  SM[p,m] = exp(QK[p,m])
  AV[p,e] = SM[p,m] * V[m,e]
outputs: [AV]
"""
CHIP = """name: chip
clock_hz: 1.0e+9
word_bytes: 1
source: test
memory:
  dram: {{bandwidth: 1.0e+11, access_bytes: 8, read_pj: 40, write_pj: 40, source: test}}
  buffer: {{size: {size}, bandwidth: 4.0e+9, access_bytes: 4, read_pj: 2, write_pj: 3, source: test}}
arrays:
"""
LANES = """  {name}:
    side: {side}
    units: {{{units}}}
    registers: {{words: {words}, read_pj: 0.25, write_pj: 0.5, source: test}}
    ripple_cycles_per_hop: 1
    folds_overlap: false
    source: test
"""


def chip(size: int, *arrays: tuple[str, list[int], int, dict[str, tuple[int, int]]]) -> architecture.Architecture:
    """(name, sides, words of registers, cycles and pJ of each unit) of arrays over a buffer of so many bytes."""
    text = CHIP.format(size=size)
    for name, side, words, units in arrays:
        listed = ", ".join(f"{unit}: {{cycles: {c}, energy_pj: {e}, source: test}}" for unit, (c, e) in units.items())
        text += LANES.format(name=name, side=side, words=words, units=listed)
    return architecture.loads(text)


def test_a_tensor_stays_in_the_registers_that_have_room_for_it() -> None:
    """Those who read the maximum have one word a lane; who makes it has three: room for two tiles in flight."""
    arch = chip(
        40, ("one", [3, 2], 3, {"max": (1, 3), "add": (3, 2), "exp": (2, 2)}), ("two", [2], 1, {"add": (2, 0), "exp": (1, 1)}),
    )  # fmt: skip
    problem = Problem(spec.loads(CROWDED), arch, {"P": 3, "M": 1})
    compare(problem, "sides", (*ADDITIVE, "edp", "pareto"), equal := Counter())
    assert equal.total() == 5


def test_what_is_found_keeps_its_cost_while_other_places_are_tried() -> None:
    """With registers for one tile, tensors are also sent to the buffer, and what was found before stays as it was."""
    arch = chip(16, ("one", [3], 1, {"mac": (3, 2), "exp": (2, 3)}))
    cascade, sizes = spec.loads(ATTENTION), {"P": 3, "M": 2, "E": 2}
    found = search(cascade, arch, sizes, objective="energy")
    assert model(cascade, arch, found.mapping, sizes).as_json() == found.cost.as_json()
