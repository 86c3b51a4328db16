"""Deriving reaches the passes that each header states, and the derived cascade still equals the independent reference."""

from __future__ import annotations

import pytest

from einsmith.einsum.rewrite.derive import derive

from . import catalogue
from .test_examples import assert_close, reference, value

CASES = [(name, rank) for name in catalogue.FILES for rank in catalogue.header(catalogue.load(name)).derived]
CASES = [(name, rank) for name, rank in CASES if catalogue.load(name).rank(rank).part_of is None]


@pytest.mark.parametrize(("name", "rank"), CASES)
def test_derived_form(name: str, rank: str) -> None:
    original = catalogue.load(name)
    derived = derive(original, rank, check=False)
    assert derived.passes_after[rank] == catalogue.header(original).derived[rank]
    pattern = (catalogue.header(original).patterns or ("none",))[0]
    sizes = list(catalogue.points(name, pattern))[1]
    params = catalogue.params(name, pattern)[0]
    for seed, fill in enumerate(catalogue.fills(name)):
        arrays = catalogue.inputs(name, sizes, params, fill, seed)
        for tile in ({}, dict.fromkeys(set(derived.cascade.symbols) - set(original.symbols), 2)):
            assert_close(value(name, arrays, {**sizes, **tile}, params, derived.cascade), reference(name, arrays, sizes, params))
