"""The interpreter: each sentence of the language's meaning, on cases small enough to check by hand."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import interpret
from einsmith.einsum.cascade import Scalar
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import evaluate, infer_sizes, random_inputs
from einsmith.einsum.spec import loads

from ..strategies import random_cascades

INF, NAN = math.inf, math.nan


def spec(body, ranks="p: P, m: M", inputs="X: [p, m]", outputs="Y", extra=""):
    lines = "".join(f"  {line}\n" for line in body.strip().splitlines())
    return loads(f"ranks: {{{ranks}}}\ninputs: {{{inputs}}}\n{extra}cascade: |\n{lines}outputs: [{outputs}]\n")


def value(body, sizes=None, params=None, *, ranks="p: P, m: M", inputs="X: [p, m]", extra="", **arrays):
    return evaluate(spec(body, ranks, inputs, extra=extra), arrays, sizes, params)["Y"].tolist()


def code(body, sizes=None, params=None, **rest):
    with pytest.raises(EinsmithError) as raised:
        value(body, sizes, params, **rest)
    return [diagnostic.code for diagnostic in raised.value.diagnostics], str(raised.value)


def scalar(expr, x):
    return value(f"Y[p] = {expr}", ranks="p: P", inputs="X: [p]", X=np.array(x, dtype=float))


def same(found, expected):
    assert np.array_equal(np.array(found, dtype=float), np.array(expected, dtype=float), equal_nan=True), (found, expected)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_infinities_subtract_to_minus_infinity_and_zero_over_zero_is_zero():
    same(scalar("X[p] - (-inf)", [-INF, 0, INF]), [-INF, INF, INF])
    same(scalar("X[p] - X[p]", [-INF, INF, 2]), [-INF, NAN, 0])
    same(scalar("X[p] / 0", [0, 1, -1, INF, NAN]), [0, INF, -INF, INF, NAN])
    same(scalar("0 / X[p]", [0, -0.0, INF, NAN]), [0, 0, 0, NAN])
    same(scalar("X[p] + inf", [-INF, INF]), [NAN, INF])
    same(scalar("X[p] * 0", [INF, NAN, -3]), [NAN, NAN, 0])


def test_nan_propagates():
    for expr in (
        "X[p] + 1",
        "max(X[p], 0)",
        "min(0, X[p])",
        "clamp(X[p], 0, 1)",
        "relu(X[p])",
        "sign(X[p])",
        "abs(X[p])",
        "round(X[p])",
    ):
        same(scalar(expr, [NAN]), [NAN])
    same(value("Y[p] = max[m](X[p,m])", X=[[1.0, NAN, 3.0], [1.0, 2.0, 3.0]]), [NAN, 3])
    same(value("Y[p] = sum[m](X[p,m])", X=[[1.0, NAN, 3.0], [1.0, 2.0, 3.0]]), [NAN, 6])
    same(value("Y[p,m] = cummax[m](X[p,m])", X=[[1.0, NAN, 3.0]]), [[1, NAN, NAN]])


def test_stable_functions_far_out():
    same(scalar("softplus(X[p])", [-1e4, -INF, 1e4, INF]), [0, 0, 1e4, INF])
    same(scalar("sigmoid(X[p])", [-1e4, -INF, 1e4, INF, 0]), [0, 0, 1, 1, 0.5])
    same(scalar("silu(X[p])", [-1e4, 1e4]), [0, 1e4])
    same(scalar("gelu(X[p])", [-1e4, 1e4, 0]), [0, 1e4, 0])
    same(scalar("rsqrt(X[p])", [0, 4, INF]), [INF, 0.5, 0])
    same(scalar("log(X[p])", [0, 1, -1]), [-INF, 0, NAN])
    same(scalar("exp(X[p])", [1000, -INF]), [INF, 0])


def test_gelu_and_erf_to_the_last_digits():
    x = np.linspace(-8, 8, 401)
    exact = [0.5 * t * math.erfc(-t / math.sqrt(2)) for t in x]
    assert np.allclose(scalar("gelu(X[p])", x), exact, rtol=1e-14, atol=0)
    assert scalar("erf(X[p])", x) == [math.erf(t) for t in x]


def test_rounding_division_and_powers():
    same(scalar("round(X[p])", [0.5, 1.5, 2.5, -0.5, 2.6]), [0, 2, 2, 0, 3])
    same(scalar("X[p] // 2", [-3, 3, 2.5]), [-2, 1, 1])
    same(scalar("X[p] % 3", [-1, 4, -3.5]), [2, 1, 2.5])
    same(scalar("2 ** X[p] ** 2", [3]), [512])
    same(scalar("-X[p] ** 2", [3]), [-9])
    same(value("Y[p] = 2 ** (p - 2)", {"P": 4}, ranks="p: P", inputs=""), [0.25, 0.5, 1, 2])
    same(value("Y[p] = (p - 3) // 2 * 10 + (p - 3) % 2", {"P": 5}, ranks="p: P", inputs=""), [-19, -10, -9, 0, 1])


def test_chained_comparisons_and_logic():
    same(scalar("where(0 < X[p] < 2, 1, 0)", [0, 1, 2]), [0, 1, 0])
    same(scalar("where(not (X[p] > 1) and X[p] != 0 or X[p] == 5, 1, 0)", [0, 1, 2, 5]), [0, 1, 0, 1])
    same(scalar("where(X[p] == X[p], 1, 0)", [NAN, 1]), [0, 1])


def test_integers_are_exact():
    found = value("Y[p] = I[p] * 3 - 1", ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=np.array([2**53 + 1, 2**61]))
    assert found == [(2**53 + 1) * 3 - 1, 2**61 * 3 - 1]
    codes, text = code("Y[p] = I[p] * 4", ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=np.array([1, 2**61]))
    assert codes == ["E321"]
    assert "`Y`" in text
    assert "p=1" in text
    for body in (
        "Y[p] = I[p] + I[p]",
        "Y[p] = -I[p] - I[p] - 1",
        "Y[p] = abs(I[p]) + I[p]",
        "Y[p] = I[p] ** 2",
        "Y = sum[p](I[p])",
        "Y[p] = cumsum[p](I[p])",
    ):
        assert code(body, ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=np.array([2**62, 2**62]))[0] == ["E321"]
    minimum = np.array([-(2**63)])
    assert code("Y[p] = -I[p]", ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=minimum)[0] == ["E321"]
    assert code("Y[p] = I[p] // (0 - 1)", ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=minimum)[0] == ["E321"]
    assert value("Y[p] = I[p] % (0 - 1)", ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=minimum) == [0]


def test_overflow_where_nothing_counts_is_no_fault():
    body = "Y[p] = where(I[p] < 4, I[p] * I[p], 0)"
    assert value(body, ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=np.array([3, 2**62])) == [9, 0]
    body = "Y[p] = where(p < 1, sum[m](I[p] * 4), 0)"
    found = value(body, {"M": 2}, ranks="p: P, m: M", inputs="I: {ranks: [p], dtype: int}", I=np.array([3, 2**62]))
    assert found == [24, 0]


# --- reductions -------------------------------------------------------------------------------------------------------


def test_empty_reductions():
    body = "Y[p] = {}[m](X[p,m])"
    for op, identity in (("sum", 0), ("prod", 1), ("max", -INF), ("min", INF), ("any", False), ("all", True)):
        assert value(body.format(op), X=np.zeros((2, 0))) == [identity] * 2
    for op in ("mean", "argmax", "argmin"):
        codes, text = code(body.format(op), X=np.zeros((2, 0)))
        assert codes == ["E323"]
        assert "`Y`" in text
    assert value("Y[p] = where(M > 0, mean[m](X[p,m]), 7)", X=np.zeros((2, 0))) == [7, 7]


def test_an_empty_maximum_of_integers_is_no_integer():
    body = "Y[p] = where(p >= 0, max[m](I[p] * m), 0) * 1.0"
    assert value(body, {"M": 0}, ranks="p: P, m: M", inputs="I: {ranks: [p], dtype: int}", I=np.array([3])) == [-INF]
    body = "Y[p] = max[m](I[p] * m)"
    assert code(body, {"M": 0}, ranks="p: P, m: M", inputs="I: {ranks: [p], dtype: int}", I=np.array([3]))[0] == ["E326"]


def test_means_and_arguments():
    x = [[1.0, 5.0, 5.0, 2.0], [-INF, -INF, -INF, -INF]]
    same(value("Y[p] = mean[m](X[p,m])", X=x), [13 / 4, -INF])
    assert value("Y[p] = argmax[m](X[p,m])", X=x) == [1, 0]
    assert value("Y[p] = argmin[m](X[p,m])", X=x) == [0, 0]
    assert code("Y[p] = argmax[m](X[p,m])", X=[[1.0, NAN]])[0] == ["E324"]


def test_products_follow_the_definition_where_numbers_are_not_finite():
    """Reassociating is exact for finite numbers only: sum(X/Z) is not sum(X)/Z where Z is 0, nor sum(X*Z) where Z is infinite."""
    z = {"ranks": "p: P, m: M", "inputs": "X: [p, m], Z: [p]"}
    same(value("Y[p] = sum[m](X[p,m] / Z[p])", X=[[1.0, -1.0], [1.0, 1.0]], Z=[0.0, 0.0], **z), [NAN, INF])
    same(value("Y[p] = sum[m](X[p,m] * Z[p])", X=[[1.0, 2.0, -1.0]], Z=[INF], **z), [NAN])
    same(value("Y[p] = sum[m](X[p,m] * Z[p])", X=[[1e308, 1e308, -1e308]], Z=[0.5], **z), [5e307])
    same(value("Y[p] = sum[m](X[p,m] / Z[p])", X=[[0.0, 0.0]], Z=[0.0], **z), [0])


def test_scans_are_inclusive():
    x = [[3.0, 1.0, 4.0]]
    assert value("Y[p,m] = cumsum[m](X[p,m])", X=x) == [[3, 4, 8]]
    assert value("Y[p,m] = cumprod[m](X[p,m])", X=x) == [[3, 3, 12]]
    assert value("Y[p,m] = cummax[m](X[p,m])", X=x) == [[3, 3, 4]]
    assert value("Y[p,m] = cumsum[m](1) + X[p,m]", X=x) == [[4, 3, 7]]


def test_selections():
    x = [[2.0, 5.0, 5.0, -INF, 7.0], [1.0, 1.0, 1.0, 1.0, 1.0]]
    ranks = "p: P, m: M, j: J"
    assert value("Y[p,j] = argtopk[m](X[p,m])", {"J": 3}, ranks=ranks, X=x) == [[4, 1, 2], [0, 1, 2]]
    assert value("Y[p,j] = topk[m](X[p,m])", {"J": 3}, ranks=ranks, X=x) == [[7, 5, 5], [1, 1, 1]]
    assert value("Y[p,j] = argsort[m](X[p,m])", {"J": 5}, ranks=ranks, X=x)[0] == [4, 1, 2, 0, 3]
    assert value("Y[p,j] = sort[m](X[p,m])", {"J": 5}, ranks=ranks, X=x)[0] == [7, 5, 5, 2, -INF]
    assert code("Y[p,j] = topk[m](X[p,m])", {"J": 6}, ranks=ranks, X=x)[0] == ["E325"]
    for op in ("sort", "argsort"):
        assert code(f"Y[p,j] = {op}[m](X[p,m])", {"J": 3}, ranks=ranks, X=x)[0] == ["E325"]
    assert code("Y[p,j] = topk[m](X[p,m])", {"J": 1}, ranks=ranks, X=[[NAN, 1.0]])[0] == ["E324"]
    least = np.array([[-(2**63), 2**63 - 1, 0]])
    found = value("Y[p,j] = sort[m](X[p,m])", {"J": 3}, ranks=ranks, inputs="X: {ranks: [p, m], dtype: int}", X=least)
    assert found == [[2**63 - 1, 0, -(2**63)]]


# --- where and indices ------------------------------------------------------------------------------------------------


def test_where_accesses_only_what_is_chosen():
    x = [[1.0, 2.0, 3.0]]
    assert value("Y[p,m] = where(m > 0, X[p,m-1], 0)", X=x) == [[0, 1, 2]]
    assert value("Y[p,m] = where(m < M - 1, X[p,m+1], -1)", X=x) == [[2, 3, -1]]
    same(value("Y[p,m] = where(m > 0, X[p,m] / (m - m), 5)", X=x), [[5, INF, INF]])
    same(value("Y[p,m] = where(X[p,m] == X[p,m], X[p,m], 0)", X=[[NAN, 1.0]]), [[0, 1]])
    assert value("Y[p,m] = where(m > 0, 7 // m, 0)", X=x) == [[0, 7, 3]]
    assert value("Y[p] = sum[m](where(m > 0, X[p,m-1], 0))", X=x) == [3]
    assert value("Y[p,m] = where(m > 0, where(m > 1, X[p,m-2], X[p,m-1]), 0)", X=x) == [[0, 1, 1]]
    assert value("Y[p,m] = where(m == 1, sum[p](X[p,m+1]), 0)", X=x) == [[0, 3, 0]]


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (0, 0)])
def test_where_there_is_no_point_nothing_is_accessed(shape):
    """An index that varies along other ranks only would leave the tensor, if there were a point."""
    body = "S[y,x,u] = where(0 <= y + u - 1 < NY and 0 <= x + u - 1 < NX, K[y+u-1,x+u-1], 0)"
    cascade = spec(body, "y: NY, x: NX, u: 3", "K: [y, x]", "S")
    assert evaluate(cascade, {"K": np.zeros(shape)})["S"].shape == (*shape, 3)


def test_an_index_out_of_range_is_an_error_with_its_value():
    codes, text = code("Y[p,m] = X[p,m-W]", X=[[1.0, 2.0]], extra="params: {W: 1}\n")
    assert codes == ["E320"]
    assert "index -1 of `X` in dimension 2" in text
    assert "the Einsum of `Y`" in text
    assert "m=0" in text
    assert "X[p,m-W]" in text  # the user's line
    codes, text = code("Y[p,m] = where(m > W, X[p,m-W], X[p,m+2*W])", X=[[1.0, 2.0, 3.0]], extra="params: {W: 1}\n")
    assert codes == ["E320"]
    assert "index 3 of `X`" in text


def test_gathers():
    inputs = "X: [m], I: {ranks: [p], dtype: int}"
    assert value("Y[p] = X[I[p]]", inputs=inputs, X=[5.0, 6.0, 7.0], I=[2, 0, 2]) == [7, 5, 7]
    codes, text = code("Y[p] = X[I[p]]", inputs=inputs, X=[5.0, 6.0, 7.0], I=[2, -1])
    assert codes == ["E320"]
    assert "index -1" in text
    assert value("Y[p] = X[(I[p] + p) % M]", inputs=inputs, X=[5.0, 6.0, 7.0], I=[2, 2, 2]) == [7, 5, 6]
    assert value("Y[p] = where(I[p] >= 0, X[I[p]], 0)", inputs=inputs, X=[5.0, 6.0, 7.0], I=[2, -1]) == [7, 0]
    assert value("Y[p] = X[I[I[p]]]", inputs=inputs, X=[5.0, 6.0, 7.0], I=[2, 0, 1]) == [6, 7, 5]
    assert value("Y[p] = X[floor(p / 2)]", {"P": 4}, inputs="X: [m]", X=[5.0, 6.0]) == [5, 5, 6, 6]


def test_diagonals_and_repeated_ranks():
    x = np.arange(9.0).reshape(3, 3)
    assert value("Y[p] = X[p,p]", X=x) == [0, 4, 8]
    assert value("Y[p,m] = X[m,p] + X[p,p]", X=x) == (x.T + np.diag(x)[:, None]).tolist()
    assert value("Y = X[p,p] * X[p,m]", X=x) == float((np.diag(x)[:, None] * x).sum())


@pytest.mark.parametrize(
    "op, expected",
    [("sum", [4.0, 0.0, 2.0]), ("max", [3.0, -INF, 2.0]), ("min", [1.0, INF, 2.0]), ("prod", [3.0, 1.0, 2.0])],
)
def test_scatters(op, expected):
    inputs = "X: [p], I: {ranks: [p], dtype: int}"
    body = f"Y[I[p]] = {op}[p](X[p])"
    extra = "tensors: {Y: [m]}\n"
    assert value(body, {"M": 3}, inputs=inputs, extra=extra, X=[1.0, 2.0, 3.0], I=[0, 2, 0]) == expected
    codes, text = code(body, {"M": 3}, inputs=inputs, extra=extra, X=[1.0, 2.0, 3.0], I=[0, 3, 0])
    assert codes == ["E320"]
    assert "index 3 of `Y`" in text


def test_scatter_of_rows():
    inputs = "X: [p, m], I: {ranks: [p], dtype: int}"
    x = np.arange(6.0).reshape(3, 2)
    found = value(
        "Y[I[p],m] = sum[p](X[p,m] * 2)",
        {"Q": 2},
        ranks="p: P, m: M, q: Q",
        inputs=inputs,
        extra="tensors: {Y: [q, m]}\n",
        X=x,
        I=[1, 1, 0],
    )
    assert found == [[8, 10], [4, 8]]


# --- partitions -------------------------------------------------------------------------------------------------------

SPLIT = "m: {extent: M, split: [m1, m0], tile: M0, count: M1}"


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 8])
def test_reductions_do_not_see_points_that_do_not_exist(tile):
    x = np.array([-5.0, -4.0, -3.0, -2.0, -1.0])
    common = {"ranks": SPLIT, "inputs": "X: [m]", "X": x}
    sizes = {"M0": tile}
    tiles = [x[at : at + tile] for at in range(0, 5, tile)]
    assert value("Y[m1] = max[m0](X[m1*M0+m0])", sizes, **common) == [part.max() for part in tiles]
    assert value("Y[m1] = sum[m0](1)", sizes, **common) == [len(part) for part in tiles]
    assert value("Y[m1] = mean[m0](X[m1*M0+m0])", sizes, **common) == [part.mean() for part in tiles]
    assert value("Y = prod[m1,m0](X[m1*M0+m0])", sizes, **common) == -120
    assert value("Y[m1] = argmin[m0](X[m1*M0+m0] * 0)", sizes, **common) == [0] * len(tiles)
    assert value("Y = max[m1](sum[m0](X[m1*M0+m0]))", sizes, **common) == max(part.sum() for part in tiles)
    last = value("Y[m1,m0] = cumsum[m0](X[m1*M0+m0])", sizes, **common)[-1]
    assert last[: len(tiles[-1])] == np.cumsum(tiles[-1]).tolist()


def test_what_a_tensor_holds_where_no_point_exists_does_not_matter():
    """An input declared over the parts has NaN there; outputs have 0 there."""
    t = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, NAN]])
    sizes = {"M": 5, "M0": 3}
    for body, expected in (
        ("Y = sum[m1,m0](T[m1,m0])", 15),
        ("Y = sum[m1,m0](T[m1,m0] * T[m1,m0])", 55),
        ("Y[m1] = max[m0](T[m1,m0])", [3, 5]),
        ("Y[m0] = sum[m1](T[m1,m0])", [5, 7, 3]),
        ("Y[m1,m0] = T[m1,m0] + 1", [[2, 3, 4], [5, 6, 0]]),
        ("Y[m1,m0] = 7", [[7, 7, 7], [7, 7, 0]]),
        ("U[m1,m0] = T[m1,m0] + 1\nY = sum[m1,m0](U[m1,m0])", 20),
    ):
        assert value(body, sizes, ranks=SPLIT, inputs="T: [m1, m0]", T=t) == expected
    assert code("Y[m1,j] = topk[m0](T[m1,m0])", {**sizes, "J": 3}, ranks=SPLIT + ", j: J", inputs="T: [m1, m0]", T=t)[0] == ["E325"]
    found = value("Y[m1,j] = argtopk[m0](T[m1,m0])", {**sizes, "J": 2}, ranks=SPLIT + ", j: J", inputs="T: [m1, m0]", T=t)
    assert found == [[2, 1], [1, 0]]


def test_a_product_of_factors_none_of_which_has_both_parts():
    found = value(
        "Y = sum[m1,m0](A[m1] * B[m0])", {"M": 5, "M0": 3}, ranks=SPLIT, inputs="A: [m1], B: [m0]", A=[1.0, 10.0], B=[1.0, 2.0, 4.0]
    )
    assert found == 1 * 7 + 10 * 3


# --- iterative states -------------------------------------------------------------------------------------------------


def test_a_recurrence_and_its_positions():
    body = "S[0] = 1\nS[i+1] = S[i] * A[i] + i\nY[i] = S[i]"
    assert value(body, ranks="i: N", inputs="A: [i]", A=[2.0, 3.0, 4.0]) == [1, 2, 7]
    assert value(body.replace("Y[i] = S[i]", "Y = S[N]"), ranks="i: N", inputs="A: [i]", A=[2.0, 3.0, 4.0]) == 30
    assert value(body.replace("Y[i] = S[i]", "Y = S[N]"), ranks="i: N", inputs="A: [i]", A=np.zeros(0)) == 1


def test_states_that_depend_on_each_other_with_an_einsum_inside_the_loop():
    body = """
    A[0] = 0
    B[0] = 1
    T[i] = A[i] + B[i]
    A[i+1] = B[i]
    B[i+1] = T[i]
    Y = B[N]
    """
    assert [value(body.replace("    ", ""), {"N": n}, ranks="i: N", inputs="") for n in range(8)] == [1, 1, 2, 3, 5, 8, 13, 21]


def test_a_state_read_at_its_next_position():
    body = "A[0] = 0\nB[0] = 0\nA[i+1] = A[i] + X[i]\nB[i+1] = B[i] + A[i+1] * A[i]\nY = B[N]"
    x = [1.0, 2.0, 3.0]
    assert value(body, ranks="i: N", inputs="X: [i]", X=x) == 0 * 1 + 1 * 3 + 3 * 6


def test_nested_loops():
    body = "T[0] = 1\nS[i,0] = T[i]\nS[i,j+1] = S[i,j] * 2 + X[i,j]\nT[i+1] = S[i,J] + 1\nY = T[N]"
    x = np.arange(6.0).reshape(2, 3)
    t = 1.0
    for i in range(2):
        s = t
        for j in range(3):
            s = s * 2 + x[i, j]
        t = s + 1
    assert value(body, ranks="i: N, j: J", inputs="X: [i, j]", X=x) == t


def test_einsums_that_no_state_needs_again_run_for_all_steps_at_once():
    """Only what lies on a path from a state to its next position is in the loop."""
    from einsmith.einsum.schedule import Loop, schedule

    cascade = spec(
        "R[0] = -inf\nR[i+1] = max(R[i], X[i])\nD[i] = exp(R[i] - R[i+1])\nS[0] = 0\nS[i+1] = S[i] * D[i]\nY = S[N]",
        "i: N",
        "X: [i]",
    )
    loops = [[einsum.output for einsum in item.einsums()] for item in schedule(cascade) if isinstance(item, Loop)]
    assert loops == [["R"], ["S"]]


def test_a_step_that_does_not_exist_leaves_the_state_as_it_was():
    body = "R[0,m0] = -inf\nR[m1+1,m0] = max(R[m1,m0], X[m1*M0+m0])\nY[m0] = R[M1,m0]"
    assert value(body, {"M0": 3}, ranks=SPLIT, inputs="X: [m]", X=[5.0, 1.0, 9.0, 2.0]) == [5, 1, 9]


# --- masked rows ------------------------------------------------------------------------------------------------------

HEAD = "Q: [p, e], K: [m, e], V: [m, f], L: {ranks: [p], dtype: int}"
RANKS = "p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, e: E, f: F"
FORMS = {
    "textbook": """
        S[p,m] = where(m < L[p], sum[e](Q[p,e] * K[m,e]), -inf)
        G[p] = max[m](S[p,m])
        N[p,m] = exp(S[p,m] - G[p])
        D[p] = sum[m](N[p,m])
        A[p,m] = N[p,m] / D[p]
        Y[p,f] = A[p,m] * V[m,f]""",
    "deferred": """
        S[p,m] = where(m < L[p], sum[e](Q[p,e] * K[m,e]), -inf)
        G[p] = max[m](S[p,m])
        N[p,m] = exp(S[p,m] - G[p])
        U[p,f] = N[p,m] * V[m,f]
        Y[p,f] = U[p,f] / sum[m](N[p,m])""",
    "online": """
        S[m1,m0,p] = where(m1*M0+m0 < L[p], sum[e](Q[p,e] * K[m1*M0+m0,e]), -inf)
        R[0,p] = -inf
        D[0,p] = 0
        U[0,p,f] = 0
        R[m1+1,p] = max(R[m1,p], max[m0](S[m1,m0,p]))
        C[m1,p] = exp(R[m1,p] - R[m1+1,p])
        N[m1,m0,p] = exp(S[m1,m0,p] - R[m1+1,p])
        D[m1+1,p] = D[m1,p] * C[m1,p] + sum[m0](N[m1,m0,p])
        U[m1+1,p,f] = U[m1,p,f] * C[m1,p] + sum[m0](N[m1,m0,p] * V[m1*M0+m0,f])
        Y[p,f] = U[M1,p,f] / D[M1,p]""",
    "tiles": """
        S[m1,m0,p] = where(m1*M0+m0 < L[p], sum[e](Q[p,e] * K[m1*M0+m0,e]), -inf)
        T[m1,p] = max[m0](S[m1,m0,p])
        N[m1,m0,p] = exp(S[m1,m0,p] - T[m1,p])
        G[p] = max[m1](T[m1,p])
        U[p,f] = sum[m1](exp(T[m1,p] - G[p]) * sum[m0](N[m1,m0,p] * V[m1*M0+m0,f]))
        Y[p,f] = U[p,f] / sum[m1](exp(T[m1,p] - G[p]) * sum[m0](N[m1,m0,p]))""",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tile", [1, 2, 3, 7])
def test_a_fully_masked_row_gives_zero(form, tile):
    """Row p sees the first L[p] keys: none, some, and from the second tile on none."""
    rng = np.random.default_rng(0)
    arrays = {"Q": rng.normal(size=(4, 3)), "K": rng.normal(size=(5, 3)), "V": rng.normal(size=(5, 2)), "L": np.array([0, 1, 3, 5])}
    body = "\n".join(line.strip() for line in FORMS[form].strip().splitlines())
    found = np.array(value(body, {"M0": tile, "M": 5}, ranks=RANKS, inputs=HEAD, **arrays))
    expected = np.zeros((4, 2))
    for p in range(1, 4):
        seen = arrays["L"][p]
        score = np.exp(arrays["K"][:seen] @ arrays["Q"][p])
        expected[p] = score @ arrays["V"][:seen] / score.sum()
    assert found[0].tolist() == [0, 0]
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-14)


# --- memory -----------------------------------------------------------------------------------------------------------


def peak(cascade, inputs, sizes=None):
    """Most bytes held by numpy while evaluating, beyond the inputs."""
    tracemalloc.start()
    try:
        outputs = evaluate(cascade, inputs, sizes)
        return tracemalloc.get_traced_memory()[1], outputs
    finally:
        tracemalloc.stop()


BOUND = 8 * interpret.TEMPORARY
"""The stated bound of one temporary, bytes."""


@pytest.mark.parametrize(
    "body, inputs, sizes, full",
    [
        # (Einsum, inputs, sizes, points of its full product): the first ones would need 10 GB as one array
        ("Y[i,l] = A[i,j] * B[j,k] * C[k,l]", "A: [i, j], B: [j, k], C: [k, l]", (190, 190, 190, 190), 1.3e9),
        ("Y[i,j,l] = A[i,k] * B[j,k] * C[l,k]", "A: [i, k], B: [j, k], C: [l, k]", (150, 150, 400, 150), 1.3e9),
        ("Y[i,l] = exp(A[i,j] - B[i,j]) * C[j,l]", "A: [i, j], B: [i, j], C: [j, l]", (1000, 2000, 1, 600), 1.2e9),
        ("Y[i] = max[j,k](A[i,j] - B[j,k])", "A: [i, j], B: [j, k]", (100, 500, 400, 1), 2e7),
        ("Y[i,l] = sum[j](where(i <= j, A[i,j] * C[j,l], 0))", "A: [i, j], C: [j, l]", (300, 300, 1, 300), 2.7e7),
    ],
)  # fmt: skip
def test_memory_is_bounded_by_the_tensors_and_one_temporary(body, inputs, sizes, full):
    cascade = spec(body, "i: I, j: J, k: K, l: L", inputs)
    given = dict(zip("IJKL", sizes, strict=True))
    arrays = random_inputs(cascade, given, None, np.random.default_rng(0))
    used, outputs = peak(cascade, arrays, given)
    tensors = 8 * sum(array.size for array in (*arrays.values(), *outputs.values()))
    assert used <= 2 * tensors + 2 * BOUND
    assert full * 8 > 2 * (2 * tensors + 2 * BOUND)  # evaluating it whole would fail this test


def test_intermediates_are_freed_after_their_last_use():
    lines = ["T0[p,m] = X[p,m] + 1", *(f"T{i}[p,m] = T{i - 1}[p,m] * 2" for i in range(1, 12)), "Y[p,m] = T11[p,m]"]
    cascade = spec("\n".join(lines))
    x = np.zeros((1000, 1000))
    used, _ = peak(cascade, {"X": x})
    assert used < 4 * x.nbytes + BOUND
    kept = evaluate(cascade, {"X": x[:2, :2]}, keep=["T3", "X"])
    assert kept["T3"].tolist() == [[8, 8], [8, 8]]
    assert set(kept) == {"Y", "T3", "X"}


# --- inputs and sizes -------------------------------------------------------------------------------------------------


def test_sizes_follow_from_shapes():
    cascade = spec("Y[p] = X[p,m]", "p: P, m: 2*W+1", "X: [p, m]")
    assert infer_sizes(cascade, {"X": np.zeros((3, 7))}, None) == {"P": 3, "W": 3}
    with pytest.raises(EinsmithError, match="E309"):
        evaluate(cascade, {"X": np.zeros((3, 7))}, {"W": 4})
    with pytest.raises(EinsmithError, match=r"E309.*dimension 2.*needs 9: `W` is 4 \(given\)"):
        evaluate(cascade, {"X": np.zeros((3, 7))}, {"W": 4})
    with pytest.raises(EinsmithError, match="E303"):
        evaluate(cascade, {"X": np.zeros((3, 6))})


def test_the_spec_s_sizes_give_way_to_the_shapes():
    cascade = spec("Y[p] = X[p,m]", extra="sizes: {P: 2, M: 3}\n")
    assert evaluate(cascade, {"X": np.ones((4, 5))})["Y"].tolist() == [5, 5, 5, 5]


def test_all_faults_of_the_inputs_at_once():
    cascade = spec("Y[p] = X[p,m] * Z[m]", inputs="X: [p, m], Z: [m], I: {ranks: [p], dtype: int}")
    with pytest.raises(EinsmithError) as raised:
        evaluate(cascade, {"X": np.zeros((2, 3), complex), "Zs": np.zeros(3), "I": np.zeros(2)})
    assert sorted(diagnostic.code for diagnostic in raised.value.diagnostics) == ["E307", "E308", "E311", "E311"]
    assert "did you mean `Z`?" in str(raised.value)


def test_element_types_are_converted_without_loss():
    x = np.array([[1.5, 2.5]], dtype=np.float16)
    assert value("Y[p] = X[p,m]", X=x) == [4]
    assert value("Y[p] = X[p,m]", X=np.array([[1, 2]], dtype=np.uint8)) == [3]
    assert code("Y[p] = X[p,m]", X=np.array([["a"]]))[0] == ["E311"]
    big = np.array([2**63], dtype=np.uint64)
    assert code("Y[p] = I[p] - 1", ranks="p: P", inputs="I: {ranks: [p], dtype: int}", I=big)[0] == ["E311"]


def test_what_is_no_array_is_refused():
    assert code("Y[p] = X[p,m]", X=[[1.0, 2.0], [3.0]])[0] == ["E311"]
    assert value("Y[p] = X[p,m]", {"P": np.int64(1)}, X=[[1, 2]]) == [3]


@given(cascade=random_cascades(), seed=st.integers(0, 2**32))
@settings(max_examples=100)
def test_sizes_are_found_again(cascade, seed):
    """From the shapes of the inputs alone, where a symbol is the extent of one of their dimensions."""
    sizes = dict(cascade.sizes)
    inputs = random_inputs(cascade, sizes, None, np.random.default_rng(seed))
    found = infer_sizes(replace(cascade, sizes=()), inputs, None)
    extents = [cascade.rank(rank).extent for tensor in cascade.inputs for rank in tensor.ranks]
    assert found == {extent.name: sizes[extent.name] for extent in extents if isinstance(extent, Scalar) and extent.name in sizes}


def test_inputs_are_left_as_they_were():
    x = np.arange(6.0).reshape(2, 3)
    before = x.copy()
    evaluate(spec("Y[p,m] = X[p,m] * 2"), {"X": x})
    assert (x == before).all()


def test_random_integers_stay_in_range_where_they_are_indices():
    ranks = "p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, r: R"
    inputs = "X: [m], I: {ranks: [p], dtype: int}, N: {ranks: [p], dtype: int}, S: {ranks: [m], dtype: int}"
    cascade = spec("T[p] = I[p] * 2\nY[p,m0] = where(m0 < N[p] and S[0] == S[m0], X[T[p]*M0 + m0], 0)", ranks, inputs)
    arrays = random_inputs(cascade, {"P": 200, "M": 40, "M0": 4, "R": 1}, None, np.random.default_rng(0))
    assert arrays["I"].min() == 0
    assert arrays["I"].max() == 4  # 2 * 4 * 4 + 3 < 40
    assert arrays["N"].max() == 4
    evaluate(cascade, arrays, {"M0": 4, "R": 1})


def test_a_rank_of_no_positions():
    assert value("Y[p,m] = X[p,m] * 2", X=np.zeros((0, 3))) == []
    assert value("Y[p] = X[p,m]", X=np.zeros((2, 0))) == [0, 0]
    assert value("Y[p] = sum[m](X[p,m] * X[p,m])", X=np.zeros((2, 0))) == [0, 0]
    assert value("Y[p,m] = cumsum[m](X[p,m])", X=np.zeros((2, 0))) == [[], []]
