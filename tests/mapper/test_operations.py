"""Operation counts of single Einsums, worked out by hand."""

from __future__ import annotations

import pytest

from einsmith.einsum import spec
from einsmith.einsum.flatten import flatten
from einsmith.mapper.operations import work

HEAD = """name: one
ranks: {p: P, m: M, e: E}
inputs: {X: [p, m], Y: [p, m], Z: [p], A: [p, e], B: [m, e]}
params: {s: 0.5}
cascade: |
  OUT%s
outputs: [OUT]
"""


def counts(statement: str, scale: float = 0.5) -> dict[str, set[str]]:
    """Operations of the one Einsum, as `operation/ranks` (an ending `!` for what is done once a reduction is complete)."""
    cascade = flatten(spec.loads(HEAD % statement))
    (einsum,) = cascade.einsums
    found: dict[str, int] = {}
    for item in work(einsum, {"s": scale}):
        key = f"{item.operation}/{''.join(sorted(item.ranks))}{'!' if item.after else ''}"
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("[p,m] = A[p,e] * B[m,e]", {"mac/emp": 1}),
        ("[p,m] = A[p,e] * B[m,e] * s", {"mac/emp": 1, "multiply/mp!": 1}),
        ("[p,m] = A[p,e] * B[m,e] / s", {"mac/emp": 1, "multiply/mp!": 1}),
        ("[p] = sum[m](X[p,m])", {"add/mp": 1}),
        ("[p] = sum[m](X[p,m] * Y[p,m] * Z[p])", {"multiply/mp": 1, "mac/mp": 1}),
        ("[p] = max[m](X[p,m])", {"max/mp": 1}),
        ("[p] = mean[m](X[p,m])", {"add/mp": 1, "multiply/p!": 1}),
        ("[p,m] = exp(X[p,m] - Z[p])", {"add/mp": 1, "exp/mp": 1}),
        ("[p,m] = X[p,m] * Y[p,m] + Z[p]", {"mac/mp": 1}),
        ("[p,m] = X[p,m] * exp(Z[p]) + Y[p,m]", {"exp/p": 1, "mac/mp": 1}),
        ("[p,m] = X[p,m] / Z[p]", {"divide/mp": 1}),
        ("[p,m] = where(m <= p, X[p,m], -inf)", {}),
        ("[p] = sum[m](where(m <= p, X[p,m] * Y[p,m], 0))", {"mac/mp": 1}),
        ("[p,m] = where(X[p,m] > 0, X[p,m], Y[p,m])", {"max/mp": 1, "where/mp": 1}),
        ("[p,m] = -X[p,m]", {}),
        ("[p,m] = X[p,m]**2 + s*2", {"mac/mp": 1}),
        ("[p,m] = X[p,m] + s*2", {"add/mp": 1}),
        ("[p,m] = clamp(X[p,m], 0, 1)", {"max/mp": 2}),
        ("[p,m] = cumsum[m](X[p,m])", {"add/mp": 1}),
        ("[p,m] = tanh(X[p,m])", {"tanh/mp": 1}),
    ],
)
def test_operations(statement: str, expected: dict[str, int]) -> None:
    assert counts(statement) == expected


def test_a_factor_of_one_costs_nothing() -> None:
    assert counts("[p,m] = A[p,e] * B[m,e] * s", scale=1) == {"mac/emp": 1}
