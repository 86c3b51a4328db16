"""Windows as masks, ranks as one, ranks of the grid in other words: the same values, and more matrix products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.verify import verify
from einsmith.mapper import gpu
from einsmith.mapper.forms import contracted, forms
from einsmith.mapper.gpu_time import Timing
from einsmith.mapper.joined import joined
from einsmith.mapper.plan import Plan, extent_of
from einsmith.mapper.stages import plan_module
from einsmith.mapper.windows import over_keys

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"
HEAD = "name: x\nranks: {p: P, m: P, w: W}\ninputs: {X: [p], Y: [m], T: [w]}\n"
WINDOWS = {
    "sliding-window": [{}, {"causal": 1}],
    "na1d": [{}, {"D": 2}, {"D": 3}],
    "na1d-causal": [{}, {"D": 3}],
    "na2d": [{}],
    "na2d-causal": [{}, {"DY": 3, "DX": 2}],
    "na2d-dilated": [{}, {"DY": 1, "DX": 2}],
    "na3d": [{}],
    "halonet": [{}],
}


def example(name: str) -> Cascade:
    return spec.load(EXAMPLES / f"{name}.yaml")


def same_values(one: Cascade, other: Cascade, sizes: dict[str, int], params: dict[str, int] | None = None) -> None:
    assert not [problem for problem in verify(other) if problem.severity == "error"]
    inputs = interpret.random_inputs(one, sizes, params, np.random.default_rng(0))
    want, got = (interpret.evaluate(each, inputs, sizes, params) for each in (one, other))
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_become_masks(name: str) -> None:
    cascade = example(name)
    found = over_keys(cascade)
    left = {rank for tensor in found.tensors if tensor.kind != "input" for rank in tensor.ranks}
    assert not left & {"w", "u", "v", "s"}
    for params in WINDOWS[name]:
        same_values(cascade, found, dict(cascade.sizes), params)
        same_values(cascade, joined(found), dict(cascade.sizes), params)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        # a softmax in which places outside of the sequence take part: the keys do not have them
        ("S[p,w] = T[w] + X[p]\n  Z[p] = sum[w](where(0 <= p + w - W < P, S[p,w] * Y[p + w - W], 0)) / max[w](S[p,w])", True),
        ("Z[p] = sum[w](where(0 <= p + w - W < P, X[p] * Y[p + w - W], 0))", False),
        ("Z[p] = sum[w](where(0 <= p + w - W < P, X[p] * Y[p + w - W], 1))", True),
        ("Z[p] = max[w](where(0 <= p + w - W < P, X[p] * Y[p + w - W], -inf))", False),
        ("Z[p] = mean[w](where(0 <= p + w - W < P, X[p] * Y[p + w - W], 0))", True),
        ("Z[p] = argmax[w](where(0 <= p + w - W < P, X[p] * Y[p + w - W], -inf))", True),
        ("Z[p] = sum[w](where(0 <= p + w - W < P, cos(X[p] * Y[p + w - W]) * T[w], 0))", False),
        ("S[p,w] = where(p >= w, cos(X[p] * Y[p - w]), 0)\n  Z[p] = sum[w](where(p >= w, exp(S[p,w]) * w, 0))", False),
        ("Z[p] = sum[w](where(0 <= p + w*w < P, X[p] * Y[p + w*w], 0))", True),
        ("Z[p] = sum[w](where(p >= 2*w, X[p] * Y[p - 2*w], 0))", False),
        ("Z[p] = sum[w](X[p] * Y[(p + w) % P])", True),
    ],
)
def test_only_where_nothing_is_lost(body: str, kept: bool) -> None:
    cascade = spec.loads(f"{HEAD}cascade: |\n  {body}\noutputs: [Z]\n")
    found = over_keys(cascade)
    assert (found is cascade) == kept
    same_values(cascade, found, {"P": 11, "W": 4})
    same_values(cascade, found, {"P": 3, "W": 7})


@pytest.mark.parametrize("name", ["hilo", "biformer", "maxvit-block", "maxvit-grid", "volo-outlook", "na3d"])
def test_ranks_reduced_together_are_one(name: str) -> None:
    cascade = example(name)
    found = joined(cascade)
    assert found is not cascade
    same_values(cascade, found, dict(cascade.sizes))


PAIRS = "name: x\nranks: {p: P, u: U, v: V}\ninputs: {X: [p, u, v]}\ncascade: |\n"


def test_what_has_some_of_the_ranks_is_read_by_coordinates() -> None:
    body = "  A[p,u] = max[v](X[p,u,v])\n  Z[p] = sum[u,v](exp(X[p,u,v] - A[p,u]))\n  W[p] = sum[u](A[p,u])\noutputs: [Z, W]\n"
    cascade = spec.loads(PAIRS + body)
    assert "uv" in joined(cascade).rank_order
    same_values(cascade, joined(cascade), {"P": 2, "U": 3, "V": 4})


def test_ranks_that_are_parted_stay_apart() -> None:
    body = "  S[p,u,v] = exp(X[p,u,v])\n  R[p,u] = sum[v](S[p,u,v])\n  Z[p] = sum[u,v](S[p,u,v] * R[p,u])\noutputs: [Z]\n"
    cascade = spec.loads(PAIRS + body)
    assert joined(cascade) is cascade


PRODUCTS = {
    "sliding-window": 2,
    "na1d": 2,
    "na1d-causal": 2,
    "na2d": 2,
    "na2d-causal": 2,
    "na2d-dilated": 2,
    "na3d": 2,
    "maxvit-block": 2,
    "maxvit-grid": 2,
    "s2-attn-shift": 2,
    "halonet": 2,
    "hilo": 4,
    "biformer": 2,
    "agent": 4,
    "volo-outlook": 1,
}
"""Sums that are matrix products."""


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_sum_that_can_be_is_a_matrix_product(name: str) -> None:
    cascade = example(name)
    assert plan_module(cascade, gpu.load("h200")).merit.products >= PRODUCTS[name]
    assert max(contracted(form) for form in forms(cascade)) >= PRODUCTS[name]


def share_of_steps(plan: Plan) -> float:
    """Of the steps that there are, those that a program instance runs on average."""
    program = plan.program
    extents = {rank.name: extent_of(program, rank.name, plan.sizes) for rank in program.cascade.ranks}
    timing = Timing(program, plan.gpu, plan.precision, plan.gpu.matrix_rate(plan.dtype, False), extents, plan.sizes)
    (number,) = [n for n, phase in enumerate(program.phases) if phase in program.loops]
    parent = program.cascade.rank(program.loop or "").part_of
    tile = plan.best.blocks[program.inner or ""]
    return timing.steps(number, plan.best.blocks).mean / -(-extents[parent or ""] // tile)


@pytest.mark.parametrize(
    ("name", "sizes", "most"),
    [
        ("sliding-window", {"P": 16384, "M": 16384, "W": 128, "E": 64, "F": 64, "H": 16}, 0.05),
        ("na1d", {"M": 16384, "W": 127, "E": 64, "F": 64, "H": 16}, 0.05),
        ("na1d-causal", {"M": 16384, "W": 127, "E": 64, "F": 64, "H": 16}, 0.05),
        ("na2d", {"NY": 112, "NX": 112, "W": 7, "E": 32, "F": 32, "B": 8}, 0.10),
        ("na3d", {"T": 32, "NY": 32, "NX": 32, "W": 7, "U": 3, "E": 32, "F": 32}, 0.13),
    ],
)
def test_work_is_that_of_windows(name: str, sizes: dict[str, int], most: float) -> None:
    (kernel,) = plan_module(example(name), gpu.load("h200"), sizes).kernels
    assert share_of_steps(kernel) <= most
