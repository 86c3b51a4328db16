"""The Python interface: the names that `import einsmith` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import einsmith as es

ATTENTION = Path(__file__).parents[1] / "examples" / "attention"
SIZES = {"B": 1, "H": 1, "P": 256, "M": 256, "E": 64, "F": 64}


def test_every_name_is_there() -> None:
    assert all(callable(getattr(es, name)) for name in es.__all__)


def test_one_exception_for_all_refusals() -> None:
    with pytest.raises(es.EinsmithError) as raised:
        es.load("no-such-file.yaml")
    assert raised.value.diagnostics[0].code == "E001"
    with pytest.raises(es.EinsmithError):
        es.derive(es.load(ATTENTION / "softmax.yaml"), rank="zz")


def test_from_the_textbook_to_numbers() -> None:
    textbook = es.load(ATTENTION / "softmax.yaml")
    found = es.derive(textbook, rank="m")
    assert (textbook.passes("m"), found.cascade.passes("m")) == (3, 1)
    ones = np.ones((1, 1, 4, 2))
    assert es.evaluate(textbook, {"Q": ones, "K": ones, "V": ones})["AV"].tolist() == ones.tolist()


def test_parameters_reach_every_stage() -> None:
    fusemax, flash = es.load(ATTENTION / "fusemax.yaml"), es.load(ATTENTION / "flash2.yaml")
    sizes = {**SIZES, "P": 1024, "M": 1024}
    assert es.model(fusemax, "fusemax", "fusemax-binding", sizes, params={"scale": 1}).as_json()["cycles"] > 0
    assert es.simulate(fusemax, "fusemax", "fusemax-binding", sizes, params={"scale": 1}).as_json()["cycles"] > 0
    assert es.plan(flash, "h200", SIZES, params={"scale": 1}).as_json()["plan"]
    for use in (es.map, es.plan):
        with pytest.raises(es.EinsmithError):
            use(flash, "fusemax" if use is es.map else "h200", SIZES, params={"no-such": 1})
