"""The range of float32: derived forms evaluated with every result rounded to float32, on inputs at the edges of its range.

The interpreter works in float64; here each result of an operation and each stored element is rounded to float32 on the way (a sum
once it is complete), so that what overflows or vanishes in float32 does so here. Where the original is finite, the derived form
must be finite and, on ordinary inputs, near it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.rewrite.derive import Derivation, derive

from .cases import BY_NAME, CASES

Values = dict[str, np.ndarray[Any, Any]]
DERIVED = [case.name for case in CASES if case.after < case.before or case.cheaper]
TILE = 4
LENGTHS = (1, 4, 7, 13)


@cache
def derived_form(name: str) -> Derivation:
    return derive(spec.loads(BY_NAME[name].text), "m", check=False)


@pytest.fixture(autouse=True)
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round results to float32."""

    def rounded(values: Any) -> Any:
        if getattr(values, "dtype", None) != np.float64:
            return values
        with np.errstate(all="ignore"):
            return values.astype(np.float32).astype(np.float64)

    apply, write = interpret.apply, interpret.Evaluator._write
    monkeypatch.setattr(interpret, "apply", lambda *args, **kwargs: rounded(apply(*args, **kwargs)))
    monkeypatch.setattr(interpret.Evaluator, "_write", lambda self, out, values, active: write(self, out, rounded(values), active))


def inputs(cascade: Cascade, sizes: dict[str, int], kind: str) -> Values:
    rng = np.random.default_rng(7)
    drawn = interpret.random_inputs(cascade, sizes, None, rng)
    for name, values in drawn.items():
        if values.dtype.kind != "f":
            continue
        scores = {"p", "m"} <= set(cascade.tensor(name).ranks)
        if kind in ("+1e4", "-1e4"):
            # scores of 1e4, themselves or as products
            values *= (1e4 if scores else 100.0) * (1 if kind[0] == "+" else -1)
        if kind == "masked" and scores and values.ndim == 2:
            values[rng.random(values.shape) < 0.3] = -np.inf
            values[0] = -np.inf  # a whole row
            values[-1, :TILE] = -np.inf  # the first tile
    return drawn


def test_the_rounding_is_felt() -> None:
    cascade = spec.loads("name: x\nranks: {p: P}\ninputs: {X: [p]}\ncascade: |\n  Y[p] = exp(X[p]) - 0.1\noutputs: [Y]\n")
    found = interpret.evaluate(cascade, {"X": np.array([89.0, 0.0])})["Y"]
    assert found[0] == np.inf
    assert found[1] == np.float32(np.float32(1) - np.float32(0.1))


def test_a_form_that_leaves_the_range_would_be_found() -> None:
    text = BY_NAME["plain-softmax"].text  # no maximum is subtracted
    sizes = {name: 7 if name == "M" else 2 for name in spec.loads(text).symbols}
    given = inputs(spec.loads(text), sizes, "+1e4")
    with np.errstate(all="ignore"):
        assert not np.isfinite(interpret.evaluate(spec.loads(text), given, sizes)["AV"]).all()


@pytest.mark.parametrize("kind", ["plain", "+1e4", "-1e4", "masked"])
@pytest.mark.parametrize("name", DERIVED)
def test_what_is_finite_stays_finite(name: str, kind: str) -> None:
    found = derived_form(name)
    for length in LENGTHS:
        sizes = {symbol: length if symbol == "M" else 2 for symbol in found.original.symbols}
        sizes.update({"J": 1} if "J" in sizes else {})
        given = inputs(found.original, sizes, kind)
        tiles = {symbol: TILE for symbol in found.cascade.symbols if symbol not in sizes}
        with np.errstate(all="ignore"):
            expected = interpret.evaluate(found.original, given, sizes)
            derived = interpret.evaluate(found.cascade, given, {**sizes, **tiles})
        for output, value in expected.items():
            finite = np.isfinite(value)
            assert np.isfinite(derived[output][finite]).all(), (output, length)
            if kind == "plain":
                np.testing.assert_allclose(derived[output][finite], value[finite], rtol=2e-3, atol=2e-3)
