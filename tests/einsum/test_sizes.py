"""Numbers for the symbols of a cascade."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from einsmith.einsum.cascade import MAP_OPS, Cascade, Scalar
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.sizes import _SCALAR_OPS, bind
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


@pytest.mark.parametrize(
    "text, value",
    [
        ("(P-4)/(P-4)", 0),
        ("-inf - (-inf)", -math.inf),
        ("where(P > 4, 1/(P-4), 7)", 7),
        ("P and 3", 1),
        ("relu(-P)", 0),
        ("sigmoid(-P)", 1 / (1 + math.exp(4))),
        ("silu(P)", 4 / (1 + math.exp(-4))),
        ("softplus(P)", math.log(1 + math.exp(4))),
        ("gelu(P)", 2 * (1 + math.erf(4 / math.sqrt(2)))),
        ("-7 // 2", -4),
        ("-7 % P", 1),
        ("-2**2", -4),
        ("round(2.5)", 2),
    ],
)
def test_parameters_have_the_arithmetic_of_einsums(text: str, value: float) -> None:
    assert bind(cascade("{p: P}", f'{{a: "{text}"}}'), {"P": 4}).scalars["a"] == pytest.approx(value, rel=1e-14, abs=0)


def test_every_operation_has_a_value_in_a_parameter() -> None:
    assert set(MAP_OPS) - set(_SCALAR_OPS) == {"where"}


def test_a_circle_is_refused() -> None:
    circle = replace(cascade("{p: P}"), params=(("a", Scalar("b")), ("b", Scalar("a"))))
    with pytest.raises(SpecError) as raised:
        bind(circle, {"P": 1})
    assert [each.code for each in raised.value.diagnostics] == ["E306"]
