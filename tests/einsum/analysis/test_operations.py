"""Counts of operations: by hand, and against points counted one by one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.analysis import analyze
from einsmith.einsum.analysis.points import Spaces
from einsmith.einsum.analysis.regions import conditions
from einsmith.einsum.cascade import Expr, Map, Reduce
from einsmith.einsum.sizes import bind

from .brute import Simulation
from .specs import EXAMPLES

CAUSAL = """
name: causal
ranks: {b: B, p: L, m: L, e: E, f: F}
inputs: {Q: [b, p, e], K: [b, m, e], V: [b, m, f]}
params: {scale: 1/sqrt(E), causal: 1}
cascade: |
  QK[b,p,m] = Q[b,p,e] * K[b,m,e] * scale
  S[b,p,m]  = where(causal == 0 or m <= p, QK[b,p,m], -inf)
  GM[b,p]   = max[m](S[b,p,m])
  SN[b,p,m] = exp(S[b,p,m] - GM[b,p])
  SD[b,p]   = sum[m](SN[b,p,m])
  AV[b,p,f] = sum[m](SN[b,p,m] * V[b,m,f]) / SD[b,p]
outputs: [AV]
"""


def test_dense_counts_by_hand() -> None:
    found = analyze(spec.loads(EXAMPLES["textbook-softmax"].text("x")), symbolic=True).as_json()
    counts = {einsum["output"]: einsum["operations"] for einsum in found["einsums"]}
    assert counts == {
        "QK": {"mul": "B*H*P*M*E", "add": "B*H*P*M*E"},
        "GM": {"max": "B*H*P*M"},
        "SN": {"sub": "B*H*P*M", "exp": "B*H*P*M"},
        "SD": {"add": "B*H*P*M"},
        "A": {"div": "B*H*P*M"},
        "AV": {"mul": "B*H*P*M*F", "add": "B*H*P*M*F"},
    }
    macs = {einsum["output"]: einsum["macs"] for einsum in found["einsums"]}
    assert macs == {"QK": "B*H*P*M*E", "GM": "0", "SN": "0", "SD": "0", "A": "0", "AV": "B*H*P*M*F"}


def test_a_causal_mask_keeps_n_plus_1_of_2n() -> None:
    """The mask is on S alone: what is needed only under it, and what is known to be 0 outside, is not computed."""
    found = analyze(spec.loads(CAUSAL))
    sizes = {"B": 2, "L": 8, "E": 3, "F": 5}
    for einsum, counted in zip(found.cascade.einsums, found.operations, strict=True):
        for op, dense in counted.dense.items():
            full, left = dense.evaluate(sizes), counted.effective[op].evaluate(sizes)
            assert left * 16 == full * (16 if einsum.output == "AV" else 9), (einsum.output, op)
    assert str(found.operations[2].effective["max"]) == "B*L*(L + 1)/2"
    without = analyze(spec.loads(CAUSAL), params={"causal": 0})
    assert all(counted.effective == counted.dense for counted in without.operations)


@pytest.mark.parametrize(("condition", "left"), [("M > 0", 21), ("M > 100", 0), ("causal == 0", 21), ("P > M", 0)])
def test_conditions_of_scalars_alone_keep_all_points_or_none(condition: str, left: int) -> None:
    head = "ranks: {p: P, m: M}\ninputs: {X: [p, m]}\nparams: {causal: 0}\n"
    cascade = spec.loads(f"{head}cascade: Y[p] = sum[m](where({condition}, exp(X[p,m]), 5))\noutputs: [Y]\n")
    assert analyze(cascade, {"P": 3, "M": 7}).as_json()["einsums"][0]["effective"]["exp"] == left
    assert analyze(cascade).as_json()["einsums"][0]["effective"]["exp"] == "P*M"


def test_a_parameter_may_guard_a_division_by_zero() -> None:
    text = (
        'ranks: {p: P}\ninputs: {Z: [p]}\nparams: {a: "where(P > 1, 3, 1/0)", b: 0/0}\ncascade: Y[p] = a + b + Z[p]\noutputs: [Y]\n'
    )
    for sizes in (None, {"P": 3}):
        assert analyze(spec.loads(text), sizes).as_json()["passes"] == {"p": 1}


def test_factors_that_do_not_depend_on_the_sum_are_multiplied_in_once() -> None:
    found = analyze(spec.loads(CAUSAL)).operations[0]
    assert {op: str(count) for op, count in found.dense.items()} == {"mul": "B*L**2*(E + 1)", "add": "B*L**2*E"}


def test_sub_expressions_are_counted_over_their_own_ranks() -> None:
    head = "name: x\nranks: {p: P, m: M}\ninputs: {X: [p], Y: [m]}\n"
    text = head + "cascade: |\n  Z[p,m] = exp(X[p]) * tanh(Y[m]) + (p - m)\noutputs: [Z]\n"
    (found,) = analyze(spec.loads(text)).operations
    assert {op: str(count) for op, count in found.dense.items()} == {"exp": "P", "tanh": "M", "mul": "P*M", "add": "P*M"}


def test_tiles_that_do_not_divide_have_no_points_beyond_the_end() -> None:
    found = analyze(spec.loads(EXAMPLES["fusemax"].text("x")))
    assert found.scalars is not None
    counts = {einsum["output"]: einsum["operations"] for einsum in found.as_json()["einsums"]}
    assert counts["QK"] == {"mul": 1 * 2 * 5 * 7 * 2, "add": 1 * 2 * 5 * 7 * 2}
    assert counts["PRM"] == {"sub": 2 * 5 * 3, "exp": 2 * 5 * 3}


@pytest.mark.parametrize("name", ["textbook-softmax", "fusemax", "channel attention over tokens", "windows", "grouped queries"])
def test_reductions_count_their_points(name: str) -> None:
    """One operation for each point of a reduction, as the simulation enumerates them."""
    cascade = spec.loads(EXAMPLES[name].text("x"))
    found = analyze(cascade)
    simulation = Simulation(cascade, cascade.ranks[0].name)
    for number, einsum in enumerate(found.cascade.einsums):
        if isinstance(einsum.body, Reduce):
            points = sum(point.einsum == number for point in simulation.points)
            op = {"sum": "add", "max": "max"}[einsum.body.op]
            assert found.number(found.operations[number].dense[op]) == points


SPACES = """
name: spaces
ranks: {p: P, m: {extent: M, split: [m1, m0], tile: T}, w: W}
inputs: {X: [p, m, w]}
cascade: |
  Y[p,m,w] = where(CONDITION, X[p,m,w], 0)
outputs: [Y]
"""


def _conditions() -> st.SearchStrategy[str]:
    simple = st.sampled_from(
        [
            "m <= p", "m < p + 2", "p >= m - 1", "abs(p - m) <= 2", "abs(m - p) < 3",
            "p + w - 1 >= 0", "p + w < M", "p + w - 2 < P", "m == p",
            "m >= 2", "m < M - 1", "w <= p", "p + m < 6", "m % 2 == 0", "p // 2 == m // 2", "2 * m <= p", "p < m or p == 0",
            "not (m <= p)", "m <= p and p <= m + 3", "0 <= p + w - 1 < M",
        ]
    )  # fmt: skip
    return st.lists(simple, min_size=1, max_size=3).map(" and ".join)


@settings(max_examples=150)
@given(_conditions(), st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_points_of_regions(condition: str, p: int, m: int, w: int, parts: bool) -> None:
    cascade = spec.loads(SPACES.replace("CONDITION", condition))
    body = cascade.einsums[0].body
    assert isinstance(body, Map)
    sizes = bind(cascade, {"P": p, "M": m, "W": w, "T": 3})
    region = conditions(body.args[0], {})
    assert region is not None
    ranks = frozenset(("p", "m1", "m0", "w")) if parts else frozenset(("p", "m", "w"))
    if parts:
        from einsmith.einsum.cascade import Coord, Scalar, substitute

        whole = Map("+", (Map("*", (Coord("m1"), Scalar("T"))), Coord("m0")))
        region = frozenset(substitute(c, {"m": whole}) for c in region)
    found = Spaces(cascade, sizes.scalars).count(ranks, region)
    assert found.exact
    assert found.points.evaluate(sizes.scalars) == sum(
        _holds(body.args[0], {"p": a, "m": b, "w": c}, dict(sizes.scalars))
        for a, b, c in itertools.product(range(p), range(m), range(w))
    )


def _holds(expr: Expr, point: dict[str, int], scalars: dict[str, int | float]) -> bool:
    from einsmith.einsum.cascade import Coord, Number, substitute
    from einsmith.einsum.sizes import evaluate_scalar

    assert not isinstance(expr, Coord)
    return bool(evaluate_scalar(substitute(expr, {rank: Number(n) for rank, n in point.items()}), scalars))
