"""Searches beside searches that prune less: bounds may not change what is found."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper.bindings import Bindings
from einsmith.mapper.incumbents import Rivals
from einsmith.mapper.order_bounds import OrderBounds
from einsmith.mapper.search import Searched, search

from .problems import Problem, problems

OBJECTIVES = ("latency", "energy", "traffic", "edp", "pareto")


def without_bounds() -> ExitStack:
    """Nothing is known of arrays and of the first tile before a mapping is costed in full, nor of whole mappings before all groups
    are."""
    stack = ExitStack()

    def nothing(self: OrderBounds, rows: Any, loads: Any) -> Any:
        return np.zeros(len(rows)), np.zeros(len(rows))

    stack.enter_context(patch.object(Bindings, "untiled", lambda self, costs, whole: 0.0))
    stack.enter_context(patch.object(Bindings, "tiled", lambda self, least, costs, whole, count: np.zeros(count)))
    stack.enter_context(patch.object(OrderBounds, "_first_tile", nothing))
    stack.enter_context(patch.object(Rivals, "beat", lambda self, cycles, energy: np.zeros(np.shape(cycles), dtype=bool)))
    return stack


def found(problem: Problem, objective: str, tiles: Any) -> Searched | str:
    try:
        return search(problem.cascade, problem.arch, problem.sizes, objective=objective, tiles=tiles)
    except EinsmithError as error:
        return error.diagnostics[0].code


def values(searched: Searched | str) -> Any:
    if isinstance(searched, str):
        return searched
    costs = searched.front or (searched.cost,)
    return [(cost.cycles + cost.fill_cycles, cost.energy_pj, cost.traffic_bytes) for cost in costs]


def compare(problem: Problem, objective: str, tiles: Any) -> None:
    with without_bounds():
        every = values(found(problem, objective, tiles))
    mine = values(found(problem, objective, tiles))
    assert isinstance(mine, str) == isinstance(every, str)
    if isinstance(mine, str):
        assert mine == every
    elif objective == "edp":
        assert mine[0][0] * mine[0][1] == pytest.approx(every[0][0] * every[0][1], rel=1e-12)
    else:
        assert mine == [pytest.approx(each, rel=1e-12) for each in every]


@settings(max_examples=16, phases=[Phase.generate], deadline=None)
@given(problems(), st.sampled_from(OBJECTIVES), st.sampled_from(("sides", "doubled", "every")))
def test_bounds_do_not_change_what_is_found(problem: Problem, objective: str, tiles: Any) -> None:
    compare(problem, objective, tiles)


@settings(max_examples=10, phases=[Phase.generate], deadline=None)
@given(problems(most=14, levels=2), st.sampled_from(OBJECTIVES), st.sampled_from(("sides", "doubled")))
def test_nor_with_two_levels_and_several_instances(problem: Problem, objective: str, tiles: Any) -> None:
    compare(problem, objective, tiles)
