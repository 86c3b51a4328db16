"""Flattening keeps the meaning of random cascades, and gives no new faults."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.interpret import evaluate
from einsmith.einsum.spec import loads

from . import generator
from .test_interpret_oracle import agree


@given(case=generator.cascades())
@settings(max_examples=300)
def test_flattening_keeps_the_meaning(case):
    cascade, sizes, inputs = case
    names = [tensor.name for tensor in cascade.tensors if tensor.kind != "input"]
    try:
        before = evaluate(cascade, inputs, sizes, keep=names)
    except EinsmithError:
        return
    after = evaluate(flatten(cascade), inputs, sizes, keep=names)
    for name in names:
        assert agree(after[name], before[name]), name


def test_a_nested_reduction_sees_the_points_of_its_own_tile():
    """The last tile of 5 in tiles of 2 has one point, also where the reduction does not mention the tile."""
    cascade = loads(
        "ranks: {m: {extent: M, split: [m1, m0], tile: M0, count: M1}}\ninputs: {X: [m]}\n"
        "cascade: |\n  N[m1] = sum[m0](X[m1*M0+m0]) / sum[m0](1)\noutputs: [N]\n"
    )
    for form in (cascade, flatten(cascade)):
        found = evaluate(form, {"X": np.array([1.0, 3.0, 5.0, 7.0, 9.0])}, {"M0": 2})
        assert found["N"].tolist() == [2.0, 6.0, 9.0]
