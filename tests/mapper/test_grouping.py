"""Chains of matrix products, and tiles that meet others that lie otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.mapper import gpu
from einsmith.mapper.grouping import Grouping
from einsmith.mapper.products import products
from einsmith.mapper.program import Program
from einsmith.mapper.stages import plan_module

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"


def of_file(name: str) -> Program:
    (kernel,) = plan_module(spec.load(EXAMPLES / f"{name}.yaml"), gpu.load("a100")).kernels
    return kernel.program


def chains(program: Program) -> list[list[str]]:
    found: dict[int, list[str]] = {}
    for product in products(program):
        found.setdefault(product.group, []).append(product.output)
    return list(found.values())


def test_a_product_that_feeds_another_is_in_its_chain() -> None:
    (chain,) = chains(of_file("softmax"))
    assert len(chain) == 2


@pytest.mark.parametrize("name", ["retention"])
def test_what_a_chunk_reads_of_the_state_stands_alone(name: str) -> None:
    """Its operands are the state as it was before the step and a tile that is turned, and its result is turned."""
    program = of_file(name)
    alone = [chain for chain in chains(program) if len(chain) == 1]
    (product,) = [one for one in products(program) if [one.output] in alone]
    states = {state for loop in program.loops for state in loop.states}
    assert product.left.tensors & states or product.right.tensors & states


@pytest.mark.parametrize("name", ["retention"])
def test_what_stands_alone_is_brought_to_lie_as_what_it_is_added_to(name: str) -> None:
    program = of_file(name)
    found = products(program)
    (meeting,) = [m for m in Grouping(program, found).meetings if m.product is not None]
    assert meeting.product is not None
    assert found[meeting.product].group != found[meeting.other].group


def test_a_product_starts_from_what_is_added_to_it() -> None:
    """Within a chunk, what comes of pairs is added to what comes of the state: it is done after that, where no factor stands before
    it."""
    program = of_file("linear-causal")
    found = products(program)
    delayed = Grouping(program, found).delayed
    assert [(found[one].output[-6:], found[other].output[-5:]) for one, other in delayed.items()] == [("within", "state")]
    assert not Grouping(of_file("gla"), products(of_file("gla"))).delayed  # a scale stands before it
