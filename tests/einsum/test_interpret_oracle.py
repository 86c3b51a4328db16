"""The interpreter against the scalar oracle: random cascades, and every example at tiny sizes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from einsmith.einsum import interpret, spec
from einsmith.einsum.diagnostics import EinsmithError

from . import generator, scalar_oracle

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.yaml"))


def agree(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal up to rounding; infinities and NaN in the same places."""
    assert mine.shape == theirs.shape
    assert mine.dtype == theirs.dtype
    if mine.dtype != np.float64:
        return bool((mine == theirs).all())
    finite = np.isfinite(theirs)
    scale = 1.0 + (np.abs(theirs[finite]).max() if finite.any() else 0.0)
    close = np.abs(np.where(finite, mine, 0.0) - np.where(finite, theirs, 0.0)) <= 1e-11 * scale
    same = np.where(finite, np.isfinite(mine) & close, (mine == theirs) | (np.isnan(mine) & np.isnan(theirs)))
    return bool(same.all())


def check(cascade, sizes, inputs, block):
    everything = tuple(tensor.name for tensor in cascade.tensors if tensor.kind != "input")
    try:
        expected = scalar_oracle.evaluate(cascade, inputs, sizes, keep=everything)
    except scalar_oracle.Refused as refusal:
        with pytest.raises(EinsmithError):
            print(refusal, interpret.evaluate(cascade, inputs, sizes, keep=everything))
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpret, "BLOCK", block)
        patch.setattr(interpret, "TEMPORARY", block)
        found = interpret.evaluate(cascade, inputs, sizes, keep=everything)
    for name in everything:
        assert agree(found[name], expected[name]), (name, found[name], expected[name])


@given(case=generator.cascades())
@settings(max_examples=400)
def test_random_cascades(case):
    with np.errstate(all="ignore"):
        check(*case, block=2**18)


@given(case=generator.cascades())
@settings(max_examples=250)
def test_random_cascades_in_small_blocks(case):
    """Blocks of a few points: every way of cutting a domain, hoisting and partial sums."""
    with np.errstate(all="ignore"):
        check(*case, block=3)
