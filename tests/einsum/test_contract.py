"""Contractions against numpy's own einsum."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum.contract import Factor, contract, plan

LENGTHS = {"a": 2, "b": 3, "c": 4, "d": 1, "e": 5}


@given(seed=st.integers(0, 2**32))
@settings(max_examples=200)
def test_a_sum_of_products(seed):
    rng = random.Random(seed)
    ranks = ["".join(rng.sample("abcde", rng.randint(0, 4))) for _ in range(rng.randint(2, 5))]
    used = sorted(set("".join(ranks)))
    kept = "".join(rng.sample(used, rng.randint(0, len(used))))
    arrays = [np.random.default_rng(seed).normal(size=[LENGTHS[r] for r in own]) for own in ranks]
    factors = [Factor(tuple(own), array) for own, array in zip(ranks, arrays, strict=True)]
    found = contract(factors, frozenset(kept), plan([frozenset(own) for own in ranks], frozenset(kept), LENGTHS))
    expected = np.einsum(",".join(ranks) + "->" + "".join(found.ranks), *arrays)
    assert set(found.ranks) == set(kept)
    assert np.allclose(found.values, expected, rtol=1e-12, atol=1e-12)


def test_the_cheap_pair_comes_first():
    """A matrix times a matrix times a vector: the vector first, whatever the order written."""
    lengths = {"i": 100, "j": 100, "k": 100}
    path = plan([frozenset("ij"), frozenset("jk"), frozenset("k")], frozenset("i"), lengths)
    assert path.pairs[0] == (1, 2)
    assert path.intermediates == (frozenset("j"),)


def test_many_factors_in_little_time():
    terms = [frozenset({f"r{i}", f"r{i + 1}"}) for i in range(400)]
    lengths = {f"r{i}": 7 for i in range(401)}
    path = plan(terms, frozenset({"r0"}), lengths)
    assert len(path.pairs) == 399
    assert max(map(len, path.intermediates)) <= 2
