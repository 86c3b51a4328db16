"""Formulas: arithmetic, normal form, text, numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einsmith.einsum.cascade import Access, Coord, Map, Number, Scalar
from einsmith.einsum.symbolic import Formula, ceil_div, constant, floor_div, formula, lift, maximum, minimum, symbol

B, H, M, E, M0 = (symbol(name) for name in ("B", "H", "M", "E", "M0"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2 * B * H * M * E, "2*B*H*M*E"),
        (ceil_div(M, M0), "ceil(M/M0)"),
        (ceil_div(M + 1, 2 * M0), "ceil((M + 1)/(2*M0))"),
        (M * (M + 1) / 2, "M*(M + 1)/2"),
        (M - M, "0"),
        (M * M - 1, "M**2 - 1"),
        (-M + 3, "3 - M"),
        (-M - 3, "-M - 3"),
        (lift(1) / M, "1/M"),
        (M / (E + 1), "M/(E + 1)"),
        (M / (2 * E), "M/(2*E)"),
        (maximum(M, E) * 2, "2*max(E, M)"),
        (B * M + B * E, "B*(M + E)"),
        (constant(Fraction(3, 2)), "3/2"),
    ],
)
def test_text(value: Formula, text: str) -> None:
    assert str(value) == text


def test_normal_form() -> None:
    assert (M + E) * (M - E) == M * M - E * E
    assert hash(M * E) == hash(E * M)
    assert ceil_div(M * M0 + 3 * M0, M0) == M + 3
    assert floor_div(M * M0 + E, M0) == M + floor_div(E, M0)
    assert maximum(M, M + 1, maximum(E, 3)) == maximum(3, E, M + 1)
    assert minimum(M, M + 1) == M
    assert (M * E + E * E) / (M * E + E * E) == 1
    assert (2 * M + 2) / 2 == M + 1
    assert M != E
    assert M + 1 != M


def test_split() -> None:
    assert (3 * M * E + 4).split("M") == (3 * E, lift(4))
    assert (M * M).split("M") is None
    assert ceil_div(M, 2).split("M") is None


def test_from_expressions() -> None:
    m, tile = Coord("m"), Scalar("M0")
    assert formula(Map("//", (m, tile))) == floor_div("m", "M0")
    assert formula(Map("%", (Number(7), Number(4)))) == 3
    assert formula(Map("ceil", (Map("/", (Scalar("M"), tile)),))) == ceil_div("M", "M0")
    assert formula(Map("clamp", (m, Number(0), Scalar("M")))) == minimum(maximum(0, "m"), "M")
    assert str(formula(Map("/", (Number(1), Map("sqrt", (Scalar("E"),)))))) == "1/sqrt(E)"
    with pytest.raises(ValueError, match="Access"):
        formula(Access("X", (m,)))


def test_numbers_are_exact() -> None:
    big = (M * (M + 1) / 2).evaluate({"M": 2**40})
    assert big == 2**40 * (2**40 + 1) // 2
    assert isinstance(big, int)
    assert (M / 3).evaluate({"M": 4}) == pytest.approx(4 / 3)
    assert (lift(1) / formula(Map("sqrt", (Scalar("E"),)))).evaluate({"E": 16}) == 0.25
    with pytest.raises(KeyError):
        M.evaluate({})


def _trees() -> st.SearchStrategy[tuple[Formula, object]]:
    """A formula, and the same as a function of values."""
    leaves = st.one_of(
        st.integers(-4, 4).map(lambda n: (constant(n), lambda v: Fraction(n))),
        st.sampled_from(["a", "b", "c"]).map(lambda s: (symbol(s), lambda v: Fraction(v[s]))),
    )

    def grow(children: st.SearchStrategy[tuple[Formula, object]]) -> st.SearchStrategy[tuple[Formula, object]]:
        def joined(op: str, x: tuple, y: tuple) -> tuple[Formula, object]:
            (f, p), (g, q) = x, y
            match op:
                case "+":
                    return f + g, lambda v: p(v) + q(v)
                case "-":
                    return f - g, lambda v: p(v) - q(v)
                case "*":
                    return f * g, lambda v: p(v) * q(v)
                case "max":
                    return maximum(f, g), lambda v: max(p(v), q(v))
                case "min":
                    return minimum(f, g), lambda v: min(p(v), q(v))
                case "ceil":
                    return ceil_div(f, 3), lambda v: Fraction(math.ceil(p(v) / 3))
                case _:
                    return floor_div(f, 2 * symbol("a")), lambda v: Fraction(math.floor(p(v) / (2 * v["a"])))

        return st.builds(joined, st.sampled_from(["+", "-", "*", "max", "min", "ceil", "floor"]), children, children)

    return st.recursive(leaves, grow, max_leaves=6)


@given(_trees(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_evaluates_as_it_was_built(tree: tuple, a: int, b: int, c: int) -> None:
    value, plain = tree
    values = {"a": a, "b": b, "c": c}
    assert value.evaluate(values) == plain(values)
    assert value.substitute({"a": constant(a)}).evaluate({"b": b, "c": c}) == plain(values)
