"""Numbers for the symbols of a cascade."""

from __future__ import annotations

from dataclasses import replace

import pytest

from einsmith.einsum.cascade import Cascade, Scalar
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.sizes import bind
from einsmith.einsum.spec import loads


def cascade(ranks: str, params: str = "{}") -> Cascade:
    return loads(f"ranks: {ranks}\nparams: {params}\ncascade: Y = 1\noutputs: [Y]\n")


def test_a_parameter_may_need_a_count_and_a_count_a_parameter() -> None:
    split = cascade("{m: {extent: M, split: [m1, m0], tile: t, count: M1}, n: twice}", "{t: 3, twice: 2*M1, more: twice+1}")
    bound = bind(split, {"M": 10})
    assert dict(bound.scalars) == {"M": 10, "t": 3, "M1": 4, "twice": 8, "more": 9}
    assert dict(bound.extents) == {"m": 10, "m1": 4, "m0": 3, "n": 8}


def test_a_parameter_that_is_given_is_used_by_the_others() -> None:
    assert bind(cascade("{p: P}", "{a: P, b: a+1}"), {"P": 4}, {"a": 10}).scalars["b"] == 11


def test_counts_may_need_counts() -> None:
    split = cascade("{m: {extent: M, split: [m1, m0], tile: 4, count: M1}, n: {extent: M1, split: [n1, n0], tile: 2, count: N1}}")
    assert bind(split, {"M": 17}).extents["n1"] == 3


@pytest.mark.parametrize(
    "ranks, params",
    [
        ("{p: P}", "{a: 10**P}"),
        ("{p: P}", "{a: (0-P)**0.5}"),
        ("{p: P}", "{a: 1/(P-1000)}"),
        ("{p: 2**P**P}", "{}"),
        ("{p: P-1001}", "{}"),
    ],
)
def test_what_has_no_value_is_refused(ranks: str, params: str) -> None:
    with pytest.raises(SpecError) as raised:
        bind(cascade(ranks, params), {"P": 1000 if "10**" not in params else 10**6})
    assert raised.value.diagnostics[0].code in ("E305", "E306")


def test_a_circle_is_refused() -> None:
    circle = replace(cascade("{p: P}"), params=(("a", Scalar("b")), ("b", Scalar("a"))))
    with pytest.raises(SpecError) as raised:
        bind(circle, {"P": 1})
    assert [each.code for each in raised.value.diagnostics] == ["E306"]
