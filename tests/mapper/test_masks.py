"""What a dead tile may skip: only what provably changes nothing."""

from __future__ import annotations

import pytest

from einsmith.einsum import spec
from einsmith.einsum.flatten import flatten
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper.masks import masks


def skipped(text: str, cut: str) -> set[str]:
    cascade = flatten(spec.loads(text))
    return {cascade.einsums[i].output for mask in masks(cascade, frozenset(cut.split())) for i in mask.skips}


def reducing(body: str, ranks: str = "p: P, m: M") -> str:
    return f"name: x\nranks: {{{ranks}}}\ninputs: {{X: [p, m], Z: [p]}}\ncascade: |\n{body}\noutputs: [Y]\n"


@pytest.mark.parametrize(
    "body, expected",
    [
        ("  S[p,m] = where(m <= p, X[p,m], -inf)\n  Y[p] = max[m](S[p,m])", {"S", "Y"}),
        ("  S[p,m] = where(m <= p, X[p,m], 0)\n  Y[p] = max[m](S[p,m])", {"S"}),  # 0 may be the maximum: Y must see it
        ("  S[p,m] = where(m <= p, X[p,m], 0)\n  Y[p] = sum[m](S[p,m])", {"S", "Y"}),
        ("  S[p,m] = where(m <= p, X[p,m], 1)\n  Y[p] = sum[m](S[p,m])", {"S"}),
        ("  S[p,m] = where(m <= p, X[p,m], 1)\n  Y[p] = prod[m](S[p,m])", {"S", "Y"}),
        ("  S[p,m] = where(m <= p, X[p,m], -inf)\n  Y[p] = sum[m](exp(S[p,m]))", {"S", "Y"}),
        ("  S[p,m] = where(m <= p, X[p,m], -inf)\n  Y[p] = sum[m](sigmoid(S[p,m] + Z[p]))", {"S", "Y"}),
        ("  S[p,m] = where(m <= p, X[p,m], 0)\n  Y[p] = sum[m](exp(S[p,m]))", {"S"}),  # exp(0) counts
        ("  S[p,m] = where(m <= p, X[p,m], 0)\n  Y[p] = sum[m](S[p,m] * Z[p])", {"S", "Y"}),
        ("  S[p,m] = where(m <= p, X[p,m], 0)\n  Y[p] = sum[m](S[p,m] + Z[p])", {"S"}),
        ("  S[p,m] = where(X[p,m] > 0, X[p,m], 0)\n  Y[p] = sum[m](S[p,m])", set()),  # no condition on coordinates
        (
            "  T[p,m] = X[p,m] * 2\n  S[p,m] = where(m <= p, T[p,m], 0)\n  Y[p] = sum[m](S[p,m])",
            {"T", "S", "Y"},
        ),  # T: nobody needs it
    ],
)
def test_reductions(body: str, expected: set[str]) -> None:
    assert skipped(reducing(body), "p m") == expected


def state(update: str) -> str:
    return f"""name: x
ranks: {{m: M}}
inputs: {{X: [m]}}
params: {{W: 8}}
cascade: |
  S[m] = where(m <= W, X[m], 0)
  R[0] = 0
  R[m+1] = {update}
  Y = R[M]
outputs: [Y]
"""


def test_a_state_left_unchanged_is_skipped() -> None:
    assert skipped(state("R[m] + S[m]"), "m") == {"S", "R"}


def test_a_state_that_fades_is_not() -> None:
    assert skipped(state("R[m] * 0.5 + S[m]"), "m") == {"S"}


def test_a_state_that_only_looks_unchanged_at_its_start_is_not() -> None:
    assert skipped(state("R[m] * 2 + S[m]"), "m") == {"S"}


def test_online_softmax_skips_all_of_a_dead_tile() -> None:
    text = (EXAMPLES / "attention" / "fusemax.yaml").read_text(encoding="utf-8")
    causal = text.replace(
        "QK[b,h,m1,m0,p]   = Q[b,h,p,e] * K[b,h,m1*M0+m0,e] * scale",
        "S[b,h,m1,m0,p] = Q[b,h,p,e] * K[b,h,m1*M0+m0,e] * scale\n  QK[b,h,m1,m0,p] = where(m1*M0+m0 <= p, S[b,h,m1,m0,p], -inf)",
    )
    assert causal != text
    found = skipped(causal, "b h p m1")
    assert found == {"S", "QK", "LM", "RM", "SLN", "SLD", "SLNV", "PRM", "SPD", "RD", "SPNV", "RNV"}  # all but AV


def test_an_einsum_outside_the_tiles_of_the_mask_is_not_skipped() -> None:
    body = "  T[m] = X2[m] * 2\n  S[p,m] = where(m <= p, X[p,m] * T[m], 0)\n  Y[p] = sum[m](S[p,m])"
    text = reducing(body).replace("Z: [p]", "X2: [m]")
    assert skipped(text, "p m") == {"S", "Y"}  # T serves many tiles along p
    assert skipped(text, "m") == {"T", "S", "Y"}  # one tile along p: T is needed by nobody else
