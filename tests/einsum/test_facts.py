"""What is kept with expressions, cascades and programs never shows: not in equality, not in copies, not in values."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum.cascade import Access, Coord, Map, Number, accesses, free_ranks, rebuild, transform
from einsmith.einsum.flatten import flatten
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.schedule import schedule
from einsmith.einsum.spec import load
from einsmith.mapper import gpu
from einsmith.mapper.stages import plan_module

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"


def test_equal_nodes_are_one_key_whatever_is_known_of_them() -> None:
    one, other = (Map("+", (Access("X", (Coord("m"),)), Number(1))) for _ in range(2))
    assert free_ranks(one) == {"m"}
    assert accesses(one) == (Access("X", (Coord("m"),)),)
    assert one == other
    assert hash(one) == hash(other)
    assert hash(one) != hash(Map("-", one.args))
    assert {one: "found"}[other] == "found"


def test_nothing_is_built_where_nothing_changes() -> None:
    expr = Map("+", (Access("X", (Coord("m"),)), Number(1)))
    assert rebuild(expr, (expr.args[0], expr.args[1])) is expr
    assert transform(expr, lambda node: node) is expr
    renamed = transform(expr, lambda node: replace(node, rank="n") if isinstance(node, Coord) else node)
    assert free_ranks(expr) == {"m"}
    assert free_ranks(renamed) == {"n"}


def test_a_copy_in_another_process_knows_nothing() -> None:
    cascade = load(ATTENTION / "softmax.yaml")
    schedule(cascade)
    assert flatten(cascade) is flatten(cascade)
    copy = pickle.loads(pickle.dumps(cascade))
    assert copy == cascade
    assert not copy.memo
    program = plan_module(cascade, gpu.load("h200")).kernels[0].program
    assert program.memo
    again = pickle.loads(pickle.dumps(program))
    assert again == program
    assert not again.memo


@pytest.mark.parametrize("name", ["softmax-causal", "sliding-window", "retention"])
def test_values_do_not_depend_on_what_was_evaluated_before(name: str) -> None:
    cascade = load(ATTENTION / f"{name}.yaml")
    for extent in (3, 5, 3):
        sizes = {symbol: min(value, extent) for symbol, value in cascade.sizes}
        inputs = random_inputs(cascade, sizes, None, np.random.default_rng(extent))
        expected = evaluate(load(ATTENTION / f"{name}.yaml"), inputs, sizes)
        found = evaluate(cascade, inputs, sizes)
        for output, values in expected.items():
            np.testing.assert_array_equal(found[output], values)
