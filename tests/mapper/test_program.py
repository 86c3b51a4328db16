"""Programs: roles of ranks and phases, by data flow alone."""

from __future__ import annotations

import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Reduce, accesses
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper.program import Program, program

SOFTMAX = """
name: odd-names
ranks: {u: U, x: X, y: Y, d: D, g: G}
inputs: {A: [u, x, d], B: [u, y, d], C: [u, y, g]}
cascade: |
  S[u,x,y] = A[u,x,d] * B[u,y,d]
  T[u,x]   = max[y](S[u,x,y])
  N[u,x,y] = exp(S[u,x,y] - T[u,x])
  Z[u,x]   = sum[y](N[u,x,y])
  O[u,x,g] = sum[y](N[u,x,y] * C[u,y,g]) / Z[u,x]
outputs: [O]
"""


def arranged(text: str, **extents: int) -> Program:
    return program(spec.loads(text), extents)


def test_roles_do_not_depend_on_names() -> None:
    found = arranged(SOFTMAX, u=4, x=512, y=512, d=64, g=64)
    assert found.grid == ("u", "x")
    assert found.tiled == ("x",), "the one grid rank that inputs of the loop do not have"
    assert (found.loop, found.inner) == ("y1", "y0")
    assert set(found.whole) == {"d", "g"}


def test_a_textbook_form_gets_one_loop_for_each_pass() -> None:
    found = arranged(SOFTMAX, u=4, x=512, y=512, d=64, g=64)
    assert len(found.loops) == 2
    assert [set(loop.states) for loop in found.loops] == [{"T_run"}, {"Z_run", "O_1_run"}]
    assert all("S" in {e.output for e in loop.body} for loop in found.loops), "scores are computed again in the second loop"


def test_every_reduction_over_the_walked_rank_is_a_running_state() -> None:
    found = arranged(SOFTMAX, u=4, x=512, y=512, d=64, g=64)
    for einsum in found.cascade.einsums:
        if isinstance(einsum.body, Reduce):
            assert found.loop not in einsum.body.ranks


def test_a_plain_product_tiles_both_ranks() -> None:
    text = (
        "name: t\nranks: {i: I, j: J, k: K}\ninputs: {A: [i, k], B: [k, j]}\ncascade: |\n  C[i,j] = A[i,k] * B[k,j]\noutputs: [C]\n"
    )
    found = arranged(text, i=512, j=512, k=512)
    assert found.tiled == ("i", "j")
    assert found.loop == "k1"


def test_a_tile_has_the_rank_along_which_its_output_lies() -> None:
    """Else each value would be stored by itself, a sector for each."""
    text = """
name: t
ranks: {h: H, m: M, e: E}
inputs: {K: [h, m, e]}
cascade: |
  X[h,m,e] = K[h,m,e] * cos(m / (e + 1))
outputs: [X]
"""
    assert arranged(text, h=8, m=4096, e=64).tiled == ("m", "e")
    assert arranged(text.replace("X[h,m,e] =", "X[h,e,m] ="), h=8, m=4096, e=64).tiled == ("m",)


def test_a_short_row_is_held_whole() -> None:
    text = """
name: norm
ranks: {t: T, d: D}
inputs: {X: [t, d], W: [d]}
cascade: |
  Q[t]   = mean[d](X[t,d] * X[t,d])
  Y[t,d] = X[t,d] * rsqrt(Q[t] + 0.000001) * W[d]
outputs: [Y]
"""
    short = arranged(text, t=512, d=1024)
    assert short.loop is None
    assert short.whole == ("d",)
    long = arranged(text, t=512, d=100_000)
    assert long.loop == "d1"
    assert len(long.loops) == 2


def test_a_value_stored_at_every_step() -> None:
    text = """
name: state
ranks: {t: T, e: E, f: F}
inputs: {Q: [t, e], K: [t, e], V: [t, f]}
cascade: |
  S[0,e,f]   = 0
  S[t+1,e,f] = S[t,e,f] + K[t,e] * V[t,f]
  O[t,f]     = Q[t,e] * S[t+1,e,f]
outputs: [O]
"""
    found = arranged(text, t=100, e=16, f=16)
    (loop,) = found.loops
    assert found.loop == "t"
    assert found.inner is None
    assert "O" in {e.output for e in loop.body}


def test_two_long_reductions_are_refused_with_the_einsum() -> None:
    text = """
name: both
ranks: {p: P, m: M}
inputs: {X: [p, m]}
cascade: |
  A[p] = sum[m](exp(X[p,m]))
  B[m] = sum[p](exp(X[p,m]) / A[p])
  C[p] = sum[m](exp(X[p,m]) / B[m])
outputs: [C]
"""
    with pytest.raises(EinsmithError) as raised:
        arranged(text, p=5000, m=5000)
    assert raised.value.diagnostics[0].code == "E602"
    assert raised.value.diagnostics[0].span is not None


def test_an_elementwise_tensor_read_at_a_neighbour_is_computed_again() -> None:
    text = """
name: shifted
ranks: {p: P, m: M}
inputs: {X: [p, m]}
cascade: |
  Y[p,m] = X[p,m] * 2
  Z[p]   = sum[m](where(m > 0, Y[p,m - 1], 0) * Y[p,m])
outputs: [Z]
"""
    found = arranged(text, p=64, m=5000)
    (loop,) = found.loops
    (tile,) = [e for e in loop.body if e.output == "Z_tile"]
    assert {a.tensor for a in accesses(tile.body)} == {"X", "Y"}


def test_a_tile_that_may_be_cut_is_refused_where_the_loop_does_not_walk_it() -> None:
    text = "name: x\nranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}}\ninputs: {X: [p, m]}\ncascade: |\n"
    text += "  R[p,m1,0] = 0\n  R[p,m1,m0+1] = R[p,m1,m0] * 2 + X[p,m1*M0+m0]\n  Y[p,m1] = R[p,m1,M0]\noutputs: [Y]\n"
    with pytest.raises(EinsmithError) as raised:
        arranged(text, p=4, m=10, m0=4, m1=3)
    assert raised.value.diagnostics[0].code == "E603"
