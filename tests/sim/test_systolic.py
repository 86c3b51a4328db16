"""Single products on an array whose folds do not overlap: cycles of the known formulas for systolic arrays, to the cycle.

An R x C array, M x K by K x N, one fill and drain per fold, no stalls. What stays in the lanes decides:
output ceil(M/R) ceil(N/C) (K + R + C - 2), weight ceil(K/R) ceil(N/C) (M + 2R + C - 2), input ceil(K/R) ceil(M/C) (N + 2R + C - 2).
(Samajdar et al., SCALE-Sim, arXiv:1811.02883, section 3; its program reports one cycle less.)
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.mapper import architecture, mapping
from einsmith.sim.simulate import Simulated, simulate

from .test_simulate import GEMM

LAYOUTS = {"output": "[m, n]", "weight": "[k, n]", "input": "[k, m]"}


def run(stays: str, rows: int, columns: int, m: int, n: int, k: int) -> Simulated:
    changes = (f"grid.side=[{rows}, {columns}]", "dram.bandwidth=null", "buffer.size=null", "grid.ripple_cycles_per_hop=0")
    text = f"groups:\n- einsums: {{C: {{array: grid, spatial: {LAYOUTS[stays]}}}}}\n"
    return simulate(
        spec.loads(GEMM), architecture.load("teaching-32x32", changes), mapping.loads(text), {"M": m, "N": n, "K": k}
    )  # fmt: skip


def formula(stays: str, r: int, c: int, m: int, n: int, k: int) -> int:
    match stays:
        case "output":
            return -(-m // r) * -(-n // c) * (k + r + c - 2)
        case "weight":
            return -(-k // r) * -(-n // c) * (m + 2 * r + c - 2)
        case _:
            return -(-k // r) * -(-m // c) * (n + 2 * r + c - 2)


@settings(max_examples=60)
@example((256, 256), (1024, 1024, 64))
@example((32, 32), (1024, 1024, 64))
@example((1, 1), (1, 1, 1))
@given(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 150)] * 3))
def test_cycles_are_those_of_the_formulas(sides: tuple[int, int], sizes: tuple[int, int, int]) -> None:
    m, n, k = sizes
    for stays in LAYOUTS:
        found = run(stays, *sides, m, n, k)
        assert found.cycles == found.cost.cycles == formula(stays, *sides, m, n, k), stays


@pytest.mark.parametrize(("stays", "cycles"), [("output", 9184), ("weight", 7160), ("input", 7160)])
def test_known_examples(stays: str, cycles: int) -> None:
    assert run(stays, 256, 256, 1024, 1024, 64).cycles == cycles  # scores of 1024 queries and keys


@pytest.mark.parametrize(("stays", "cycles"), [("output", 6136), ("weight", 7160), ("input", 13280)])
def test_more_known_examples(stays: str, cycles: int) -> None:
    assert run(stays, 256, 256, 1024, 64, 1024).cycles == cycles  # weighted values
