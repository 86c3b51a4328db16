"""Index bounds for all sizes: what is refused when a spec is read, and that nothing valid is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum.bounds import outside
from einsmith.einsum.cascade import Cascade, Coord, Expr, Map, Number, Scalar, walk
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.sizes import bind, evaluate_scalar
from einsmith.einsum.spec import loads

HEAD = """ranks: {p: P, m: {extent: M, split: [m1, m0], tile: 3, count: M1}, q: 2*P+1}
inputs: {X: [p], Z: [m], Q: [q]}
params: {w: 2}
"""


def message(line: str) -> str:
    try:
        loads(f"{HEAD}cascade: |\n  S[0] = 0\n  S[p+1] = S[p] + X[p]\n  {line}\noutputs: [Y]\n")
    except SpecError as error:
        return error.diagnostics[0].message
    return ""


@pytest.mark.parametrize(
    "line",
    [
        "Y[p] = X[P-1]",
        "Y[p] = X[P-1-p]",
        "Y[p] = Q[2*p]",
        "Y[p] = Q[p+P]",
        "Y[p] = Q[2*p+2]",
        "Y[p] = X[p-w]",
        "Y[p] = X[p+w]",
        "Y[p] = X[w]",
        "Y[p] = X[5]",
        "Y[m1,m0] = Z[m1*3+m0]",
        "Y[p] = X[p-p]",
        "Y[p] = X[2*p-p]",
        "Y[p] = X[min(p+1, P-1)]",
        "Y[p] = X[max(p-1, 0)]",
        "Y[p] = X[(p+1)%P]",
        "Y[p] = X[p//2]",
        "Y[q] = X[q//2]",
        "Y[p] = where(p > 0, X[p-1], 0)",
        "Y = S[P]",
        "Y[p] = S[p+1]",
        "Y[m] = X[m]",
        "Y[m0] = Z[m0]",
        "Y[m1] = Z[m1*3]",
        "Y[p] = where(0 == 1, X[-1], 0)",
    ],
)
def test_what_may_be_inside_is_not_refused(line: str) -> None:
    assert message(line) == ""


@pytest.mark.parametrize(
    "line, expected",
    [
        ("Y[q] = X[q]", "goes up to 2*P; it runs from 0 to P-1"),
        ("Y[p] = X[p-1]", "index `p-1` of `X` goes down to -1"),
        ("Y[p] = X[p+1]", "index `p+1` of `X` goes up to P"),
        ("Y[p] = X[-1]", "index `-1` of `X` is always negative"),
        ("Y[p] = X[P]", "index `P` of `X` is always beyond the extent"),
        ("Y[p] = X[P+p]", "is at least P"),
        ("Y[p] = X[-1-p]", "is at most -1"),
        ("Y[p] = Q[2*p+3]", "goes up to 2*P+1"),
        ("Y[p] = S[p+2]", "goes up to P+1; it runs from 0 to P"),
        ("Y = S[P+1]", "is always beyond the extent"),
        ("Y[p] = X[p-2*P]", "is at most -P-1"),
        ("Y[p,m] = X[p+m*P]", ""),
        ("Y[p] = where(X[p-1] > 0, 1, 0)", "goes down to -1"),
        ("Y = max[p](X[p-1])", "goes down to -1"),
        ("Y[m0] = Z[m0+M]", "is at least M"),
    ],
)
def test_what_is_outside_for_every_size_is_refused(line: str, expected: str) -> None:
    assert expected in message(line)
    assert bool(message(line)) == bool(expected)


CASCADE = loads(f"{HEAD}cascade: Y = 1\noutputs: [Y]\n")


def indices() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(
        st.integers(0, 4).map(Number),
        st.sampled_from([Coord("p"), Coord("m"), Coord("q"), Coord("m1"), Scalar("P"), Scalar("M"), Scalar("w")]),
    )

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        pair = st.builds(lambda op, a, b: Map(op, (a, b)), st.sampled_from(["+", "-", "*", "min", "max", "%"]), inner, inner)
        return st.one_of(
            pair, inner.map(lambda a: Map("neg", (a,))), st.builds(lambda a, b, c: Map("clamp", (a, b, c)), inner, inner, inner)
        )

    return st.recursive(leaves, grow, max_leaves=5)


def values(cascade: Cascade, index: Expr, sizes: dict[str, int]) -> list[int]:
    """The index at every point of its box; points without a value (a division by 0) left out."""
    bound = bind(cascade, sizes)
    ranks = sorted({node.rank for node in walk(index) if isinstance(node, Coord)})
    found = []
    for point in itertools.product(*(range(bound.extents[rank]) for rank in ranks)):
        scalars = dict(bound.scalars) | dict(zip(ranks, point, strict=True))
        flat = _scalars(index)
        try:
            found.append(int(evaluate_scalar(flat, scalars)))
        except ArithmeticError:
            return []
    return found


def _scalars(expr: Expr) -> Expr:
    if isinstance(expr, Coord):
        return Scalar(expr.rank)
    return Map(expr.op, tuple(map(_scalars, expr.args))) if isinstance(expr, Map) else expr


@given(indices(), st.sampled_from(["p", "m", "q"]))
@settings(max_examples=400)
def test_what_is_refused_is_outside_at_every_size(index: Expr, rank: str) -> None:
    way = outside(index, rank, False, CASCADE)
    if way is None:
        return
    for size_p, size_m in itertools.product((1, 2, 3), (1, 2, 5)):
        found = values(CASCADE, index, {"P": size_p, "M": size_m})
        extent = bind(CASCADE, {"P": size_p, "M": size_m}).extents[rank]
        wrong = [value < 0 if way.below else value >= extent for value in found]
        assert (all(wrong) if way.always else any(wrong)) or not found
