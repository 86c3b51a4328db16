"""Shapes to test on: which sizes are lengths and which are features."""

from __future__ import annotations

from einsmith.einsum import spec
from einsmith.kernels.shapes import roles, shape_grid

MADE_INSIDE = """
name: keys-made-inside
ranks: {h: H, p: N, m: N, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
sizes: {H: 4, N: 512, E: 64, F: 64}
cascade: |
  R[h,m]   = rsqrt(sum[e](K[h,m,e] ** 2) + 1)
  X[h,m,e] = K[h,m,e] * R[h,m]
  S[h,p,m] = where(m <= p, sum[e](Q[h,p,e] * X[h,m,e]), -inf)
  G[h,p]   = max[m](S[h,p,m])
  O[h,p,f] = sum[m](exp(S[h,p,m] - G[h,p]) * V[h,m,f])
outputs: [O]
"""


def test_a_length_of_any_rank_is_a_length_and_features_that_intermediates_carry_are_none() -> None:
    cascade = spec.loads(MADE_INSIDE)
    assert roles(cascade) == (["N"], ["E", "F"], ["H"])
    assert {case.name: case.sizes for case in shape_grid(cascade)}["tails"] == {"H": 1, "N": 130, "E": 24, "F": 40}


def test_queries_are_as_long_as_keys_whatever_sums_they_are_not_on() -> None:
    cascade = spec.loads(MADE_INSIDE.replace("p: N, m: N", "p: P, m: M").replace("N: 512", "P: 512, M: 512"))
    assert roles(cascade) == (["P", "M"], ["E", "F"], ["H"])


IMAGE = """
name: window
ranks: {b: B, y: NY, x: NX, w: W, e: E}
inputs: {X: [b, y, x, e], T: [w]}
sizes: {B: 2, NY: 14, NX: 12, W: 5, E: 16}
cascade: |
  Z[b,y,x,e] = sum[w](T[w] * X[b,clamp(y - W//2, 0, NY - W) + w,x,e])
  U[b,y,x,e] = where(x < NX//2, Z[b,y,x,e], 0)
outputs: [U]
"""


def test_short_sides_and_their_windows_stay_near_those_of_the_spec() -> None:
    """Values of one or two would leave nothing of a window; batches are none of these."""
    cases = {case.name: case.sizes for case in shape_grid(spec.loads(IMAGE))}
    sides = {name: (sizes["NY"], sizes["NX"], sizes["W"]) for name, sizes in cases.items()}
    assert sides["ones"] == (1, 1, 1)
    assert sides["primes"] == (13, 9, 4)
    assert sides["tails"] == (15, 12, 5)
    assert sides["large logits"] == (8, 8, 3)
    assert cases["primes"]["B"] == 2
    assert cases["tails"]["B"] == 1


def test_groups_are_whole() -> None:
    """A head of keys for less than a group of heads would be none at all."""
    text = MADE_INSIDE.replace("h: H,", "h: H, k: H//G,").replace("K: [h, m, e]", "K: [k, m, e]").replace("K[h,m,e]", "K[h//G,m,e]")
    cascade = spec.loads(text.replace("//G", "//N_G").replace("H: 4,", "H: 8, N_G: 4,"))
    cases = {case.name: case.sizes for case in shape_grid(cascade)}
    assert all(sizes["H"] % sizes["N_G"] == 0 for sizes in cases.values())
    assert cases["primes"]["N_G"] == 3


CHOSEN = """
name: best
ranks: {p: P, m: M, j: J}
inputs: {X: [p, m]}
sizes: {P: 32, M: 8, J: 3}
cascade: |
  I[p,j] = argtopk[m](X[p,m])
  Y[p,j] = X[p,I[p,j]]
outputs: [Y]
"""


def test_no_more_is_chosen_than_there_is() -> None:
    cases = shape_grid(spec.loads(CHOSEN))
    assert {"primes", "tails", "whole tiles", "more keys than queries"} <= {case.name for case in cases}
    assert all(case.sizes["J"] <= case.sizes["M"] for case in cases)


def test_groups_of_a_parameter_are_whole() -> None:
    """Two key heads for one query head are no groups: the spec has no value there."""
    text = """
name: grouped
ranks: {b: B, h: H, g: HK, p: P, m: M, e: E}
inputs: {Q: [b, h, p, e], K: [b, g, m, e]}
params: {G: H//HK}
sizes: {B: 1, H: 4, HK: 2, P: 48, M: 48, E: 32}
cascade: |
  S[b,h,p,m] = Q[b,h,p,e] * K[b,h//G,m,e]
outputs: [S]
"""
    found = shape_grid(spec.loads(text))
    assert all(case.sizes["H"] % case.sizes["HK"] == 0 for case in found)
    assert any(case.sizes["HK"] > 1 for case in found)
    other = shape_grid(spec.loads(text.replace("G: H//HK", "G: (H+1)//(HK+1)")))
    assert all((case.sizes["H"] + 1) // (case.sizes["HK"] + 1) > 0 for case in other)
    assert len(other) >= 5


BLOCKS = """
name: blocks
ranks: {p: M, m: {extent: M, split: [c, i], tile: BS, count: NB}, j: J, e: E}
inputs: {Q: [p, e], K: [m, e]}
sizes: {M: 512, BS: 64, J: 3, E: 64}
cascade: |
  KC[c,e] = mean[i](K[c*BS+i,e])
  G[p,c]  = sum[e](Q[p,e] * KC[c,e])
  T[p,j]  = topk[c](G[p,c])
  Y[p]    = sum[m](where(G[p,m//BS] >= T[p,J-1], sum[e](Q[p,e] * K[m,e]), 0))
outputs: [Y]
"""


def test_blocks_that_are_chosen_are_several() -> None:
    """How many blocks there are is counted, not given."""
    grid = {case.name: case.sizes for case in shape_grid(spec.loads(BLOCKS))}
    for name in ("primes", "tails", "more keys than queries", "large logits"):
        sizes = grid[name]
        assert 1 <= sizes["J"] < -(-sizes["M"] // sizes["BS"])
