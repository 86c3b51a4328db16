"""The range of float32: derived forms evaluated in float32, on inputs at the edges of its range.

Where the original is finite, the derived form must be finite and, on ordinary inputs, near it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.interpret import random_inputs
from einsmith.einsum.rewrite.derive import Derivation, derive
from einsmith.einsum.rewrite.single_precision import evaluate

from .cases import BY_NAME, CASES

Values = dict[str, np.ndarray[Any, Any]]
DERIVED = [case.name for case in CASES if case.after < case.before or case.cheaper]
TILE = 4
LENGTHS = (1, 4, 7, 13)


@cache
def derived_form(name: str) -> Derivation:
    return derive(spec.loads(BY_NAME[name].text), "m", check=False)


def inputs(cascade: Cascade, sizes: dict[str, int], kind: str) -> Values:
    rng = np.random.default_rng(7)
    drawn = random_inputs(cascade, sizes, None, rng)
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


def test_a_form_that_leaves_the_range_would_be_found() -> None:
    text = BY_NAME["plain-softmax"].text  # no maximum is subtracted
    sizes = {name: 7 if name == "M" else 2 for name in spec.loads(text).symbols}
    given = inputs(spec.loads(text), sizes, "+1e4")
    with np.errstate(all="ignore"):
        assert not np.isfinite(evaluate(spec.loads(text), given, sizes)["AV"]).all()


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
            expected = evaluate(found.original, given, sizes)
            derived = evaluate(found.cascade, given, {**sizes, **tiles})
        for output, value in expected.items():
            finite = np.isfinite(value)
            assert np.isfinite(derived[output][finite]).all(), (output, length)
            if kind == "plain":
                np.testing.assert_allclose(derived[output][finite], value[finite], rtol=2e-3, atol=2e-3)
