"""Nested reductions as Einsums of their own: same meaning, guards kept where they are about the same coordinates."""

from __future__ import annotations

from einsmith.einsum.flatten import flatten
from einsmith.einsum.printer import print_einsum
from einsmith.einsum.spec import loads
from einsmith.einsum.verify import verify

HEAD = """
ranks: {p: P, m: M, j: J}
inputs:
  X: [p, m]
  I: {ranks: [j], dtype: int}
"""


def flat(body: str) -> list[str]:
    cascade = flatten(loads(f"{HEAD}cascade: |\n  {body}\noutputs: [Y]\n"))
    assert verify(cascade) == []
    return [print_einsum(einsum, cascade) for einsum in cascade.einsums]


def test_a_nested_reduction_gets_a_name() -> None:
    assert flat("Y[p,m] = X[p,m] / sum[m](X[p,m])") == ["Y_1[p] = sum[m](X[p,m])", "Y[p,m] = X[p,m] / Y_1[p]"]


def test_a_reduction_within_a_reduction_over_the_same_rank() -> None:
    assert flat("Y[p] = sum[m](exp(X[p,m] - max[m](X[p,m])))") == [
        "Y_1[p] = max[m](X[p,m])",
        "Y[p] = sum[m](exp(X[p,m] - Y_1[p]))",
    ]


def test_a_guard_stays_with_its_reduction() -> None:
    assert flat("Y[p] = where(p > 0, sum[m](X[p-1,m]), 0)")[0] == "Y_1[p] = sum[m](where(p > 0, X[p-1,m], 0))"


def test_a_guard_is_not_captured_by_the_ranks_of_a_reduction() -> None:
    assert flat("Y[p,m] = where(m <= p, X[p,m] / sum[m](X[p,m]), 0)")[0] == "Y_1[p] = sum[m](X[p,m])"


def test_the_rest_of_a_captured_guard_is_kept() -> None:
    assert flat("Y[p,m] = where(p > 0 and m <= p, sum[m](X[p-1,m]), 0)")[0] == "Y_1[p] = sum[m](where(p > 0, X[p-1,m], 0))"


def test_a_guard_along_a_scan_does_not_mask_what_it_runs_over() -> None:
    assert flat("Y[p,m] = where(m >= 3, cumsum[m](X[p,m]), 0)")[0] == "Y_1[p,m] = cumsum[m](X[p,m])"


def test_an_integer_reduction_stays_an_index() -> None:
    assert flat("Y[p] = X[p,max[j](I[j])]")[0] == "Y_1 = max[j](I[j])"
