"""Evaluation in float32: each operation rounds and overflows."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.rewrite.single_precision import evaluate


def value(body: str, values: list[float], ranks: str = "p: P") -> np.ndarray:
    text = f"name: x\nranks: {{p: P}}\ninputs: {{X: [p]}}\ncascade: |\n  {body}\noutputs: [Y]\n"
    return evaluate(spec.loads(text), {"X": np.array(values)})["Y"]


@pytest.mark.parametrize(
    ("body", "values", "expected"),
    [
        ("Y[p] = exp(X[p])", [88.0, 89.0], [np.float32(np.exp(88.0)), np.inf]),
        ("Y[p] = exp(X[p]) * 0", [89.0], [np.nan]),
        ("Y[p] = X[p] - 0.1", [1.0], [np.float32(1) - np.float32(0.1)]),
        ("Y[p] = (X[p] * X[p]) * 1e-30", [1e25], [np.inf]),  # an intermediate, though the result is in range
        ("Y[p] = (X[p] * X[p]) * 1e40", [1e-25], [np.nan]),  # 0 times inf: the number itself is no float32
        ("Y[p] = (X[p] * X[p]) / X[p]", [1e-25], [0.0]),
        ("Y[p] = X[p] ** 2", [1e-21], [np.float32(1e-42)]),  # subnormal
    ],
)
def test_every_operation(body: str, values: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(value(body, values), np.array(expected, np.float64))


def test_partial_sums() -> None:
    assert value("Y = sum[p](X[p])", [3e38, 3e38, -3e38, -3e38]) != 0
    assert value("Y = sum[p](X[p] * X[p])", [1e19, 1e19, 1e19, 1e19]) == np.inf
    assert value("Y = sum[p](X[p])", [2.0**24, 1.0, 1.0]) == 2.0**24
