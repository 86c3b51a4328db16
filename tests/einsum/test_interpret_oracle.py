"""The interpreter against the scalar oracle: random cascades, and every example at tiny sizes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import interpret, spec
from einsmith.einsum.diagnostics import EinsmithError

from ..strategies import random_cascades
from . import generator, scalar_oracle

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for folder in ("attention", "cascades") for path in ROOT.glob(f"examples/{folder}/*.yaml"))


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


@given(cascade=random_cascades(), seed=st.integers(0, 2**32))
@settings(max_examples=200)
def test_cascades_of_the_language(cascade, seed):
    inputs = interpret.random_inputs(cascade, None, None, np.random.default_rng(seed))
    with np.errstate(all="ignore"):
        check(cascade, None, inputs, block=2**18)


TINY = {
    "B": 1, "H": 2, "P": 3, "M": 5, "E": 2, "F": 2, "M0": 2, "W": 1, "G": 1,
}  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("block", [2**18, 7])
def test_examples(path, block):
    cascade = spec.load(path)
    proportions = dict(cascade.sizes)
    tiny = {name: TINY.get(name, min(value, 3)) for name, value in proportions.items()}
    halves = {name: math.ceil(value / 8) for name, value in proportions.items()}
    for sizes in (tiny, halves, {name: min(value, 2) for name, value in proportions.items()}):
        try:
            inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(1))
            interpret.evaluate(cascade, inputs, sizes)
        except EinsmithError:
            continue  # sizes that do not go together
        break
    else:
        pytest.fail("no sizes at which this example has a value")
    with np.errstate(all="ignore"):
        check(cascade, sizes, inputs, block)
