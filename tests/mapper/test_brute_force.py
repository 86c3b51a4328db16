"""The search against every mapping of its space, one by one: random small problems, for each objective."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper.cost import Cost
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
    every = Brute(problem.cascade, problem.arch, problem.sizes, tiles)
    assume(2 < every.size <= MANY)
    if every.best("latency") is None:
        with pytest.raises(EinsmithError) as raised:
            search(problem.cascade, problem.arch, problem.sizes, tiles=tiles)
        assert raised.value.diagnostics[0].code in ("E513", "E540")
        return
    found = {o: search(problem.cascade, problem.arch, problem.sizes, objective=o, tiles=tiles) for o in objectives}
    for objective, searched in found.items():
        assert searched.optimal
        if objective == "pareto":
            continue
        least, value = every.best(objective), score(objective, point(searched.cost))
        assert least is not None
        assert value >= least * (1 - 1e-12)
        if value == pytest.approx(least, rel=1e-12, abs=1e-12):
            equal[objective] += 1
        else:
            assert objective in ("latency", "edp")
            kept = Brute(problem.cascade, problem.arch, problem.sizes, tiles, undominated=True, energy=objective == "edp")
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
        compare(problem, "sides", (*ADDITIVE, "edp", "pareto"), equal)

    check()
    assert min(equal[objective] for objective in (*ADDITIVE, "edp", "pareto")) >= 30, equal


def test_more_tiles() -> None:
    equal: Counter[str] = Counter()

    @settings(max_examples=16, phases=[Phase.generate])  # shrinking would take minutes
    @given(problems(), st.sampled_from(("doubled", "every")))
    def check(problem: Problem, tiles: Tiles) -> None:
        compare(problem, tiles, ADDITIVE, equal)

    check()
    assert min(equal[objective] for objective in ADDITIVE) >= 8, equal
