"""What comes of many trials together is what comes of each by itself, errors included."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite import single_precision
from einsmith.einsum.rewrite.check import situations
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.rewrite.trials import Evaluate, Values, values_of

from .cases import CASES

MEAN = """
name: mean-of-chosen
ranks: {p: P, m: M, k: M}
inputs: {I: {ranks: [p], dtype: int}, X: [p, m]}
cascade: |
  B[p] = argmax[m](X[p,m])
  Y[p] = mean[m](where(m < I[p], X[p,m] * sum[k](X[p,k]), 0)) + X[p,B[p]]
outputs: [Y]
"""


def counted(evaluator: Evaluate, calls: list[int]) -> Evaluate:
    def watched(cascade: Cascade, inputs: Values, sizes: dict[str, int], *, keep: tuple[str, ...]) -> Values:
        calls.append(1)
        return evaluator(cascade, inputs, sizes, keep=keep)

    return watched


def same(one: Values, other: Values, rounding: float) -> bool:
    return one.keys() == other.keys() and all(
        np.allclose(one[name], other[name], rtol=rounding, atol=rounding, equal_nan=True) for name in one
    )


def alone(evaluator: Evaluate, cascade: Cascade, inputs: Values, sizes: dict[str, int]) -> Values | EinsmithError:
    try:
        return evaluator(cascade, inputs, sizes, keep=())
    except EinsmithError as error:
        return error


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_together_they_are_as_each_by_itself(case: object) -> None:
    cascade = spec.loads(case.text)  # type: ignore[attr-defined]
    own = {name: 5 if name == "M" else 2 for name in cascade.symbols}
    drawn = [each.inputs for each in situations(cascade, "m", own, np.random.default_rng(0))]
    for form in (cascade, derive(cascade, "m", check=False).cascade):
        sizes = {**dict.fromkeys(form.symbols, 4), **own}
        for evaluator, rounding in ((evaluate, 1e-12), (single_precision.evaluate, 1e-5)):
            calls: list[int] = []
            together = list(values_of(counted(evaluator, calls), form, drawn, sizes, (), 100))
            by_itself = [alone(evaluator, form, inputs, sizes) for inputs in drawn]
            failed = [each.diagnostics[0].code if isinstance(each, EinsmithError) else "" for each in by_itself]
            assert failed == [each.diagnostics[0].code if isinstance(each, EinsmithError) else "" for each in together]
            assert len(calls) == (1 + len(drawn) if any(failed) else 1)
            for one, other in zip(by_itself, together, strict=True):
                assert isinstance(one, EinsmithError) or isinstance(other, EinsmithError) or same(one, other, rounding)


def test_an_error_is_that_of_its_trial() -> None:
    cascade, sizes = spec.loads(MEAN), {"P": 2, "M": 3}
    drawn = [random_inputs(cascade, sizes, None, np.random.default_rng(seed)) for seed in range(4)]
    drawn[2]["X"] = np.full((2, 3), np.nan)
    found = list(values_of(evaluate, cascade, drawn, sizes, ("B",), 3))
    assert [isinstance(each, EinsmithError) for each in found] == [False, False, True, False]
    for inputs, values in zip(drawn[:2], found, strict=False):
        assert isinstance(values, dict)
        assert same(evaluate(cascade, inputs, sizes, keep=("B",)), values, 1e-12)


def test_as_many_are_together_as_asked_for() -> None:
    cascade, sizes = spec.loads(MEAN), {"P": 2, "M": 3}
    drawn = [random_inputs(cascade, sizes, None, np.random.default_rng(seed)) for seed in range(7)]
    calls: list[int] = []
    assert len(list(values_of(counted(evaluate, calls), cascade, drawn, sizes, (), 3))) == 7
    assert len(calls) == 3
