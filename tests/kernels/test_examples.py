"""Every attention file as kernels that agree with the interpreter: small shapes, in Triton's interpreter, all in one process."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.kernels.check import Checked, check_all
from einsmith.kernels.emit import emit_module
from einsmith.kernels.shapes import Case, shape_grid
from einsmith.mapper import gpu
from einsmith.mapper.stages import plan_module

FILES = sorted((Path(__file__).parents[2] / "examples" / "attention").glob("*.yaml"))
SMALLEST = 1
"""Cases of each file: those with the fewest elements, ones and empty ranks apart. `benchmarks/kernel_matrix.py` runs them all."""


def defined(cascade: Cascade, case: Case) -> bool:
    """Has the cascade values at these sizes?"""
    try:
        inputs = interpret.random_inputs(cascade, case.sizes, None, np.random.default_rng(0))
        interpret.evaluate(cascade, inputs, case.sizes)
    except EinsmithError:
        return False
    return True


@functools.cache
def results() -> dict[str, Checked]:
    tasks = []
    for path in FILES:
        cascade = spec.load(path)
        cases = [
            case for case in shape_grid(cascade) if case.name not in ("ones", "no keys", "large logits") and defined(cascade, case)
        ]
        cases.sort(key=lambda case: sum(case.sizes.values()))
        tasks.append((emit_module(plan_module(cascade, gpu.load("h200"), dtype="float32")), cascade, cases[:SMALLEST]))
    return dict(zip([path.stem for path in FILES], check_all(tasks), strict=True))


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_the_kernels_agree_with_the_interpreter(name: str) -> None:
    found = results()[name]
    assert found.rows, found.left_out
    assert not found.failed, str(found)
