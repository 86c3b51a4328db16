"""Linear recurrences in parts: gates, starts, reads; and what is no linear recurrence."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.verify import verify


def recurrence(body: str, outputs: str = "Y") -> Cascade:
    lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
    inputs = "A: [m, e], G: [m], K: [m, e], Q: [m, e], V: [m, f], H: [e, f]"
    head = f"name: r\nranks: {{m: M, e: E, f: F}}\ninputs: {{{inputs}}}\n"
    return spec.loads(f"{head}cascade: |\n{lines}\noutputs: [{outputs}]\n")


LINEAR = {
    "a gate of the position": "X[0,e,f] = 0\nX[m+1,e,f] = sigmoid(G[m]) * X[m,e,f] + K[m,e] * V[m,f]\nY[m,f] = Q[m,e] * X[m+1,e,f]",
    "a diagonal gate": "X[0,e,f] = 0\nX[m+1,e,f] = K[m,e] * V[m,f] + X[m,e,f] * sigmoid(A[m,e])\nY[m,f] = Q[m,e] * X[m+1,e,f]",
    "a start": "X[0,e,f] = H[e,f]\nX[m+1,e,f] = sigmoid(A[m,e]) * X[m,e,f] + K[m,e] * V[m,f]\nY[m,f] = Q[m,e] * X[m,e,f]",
    "a gate that closes": """
X[0,e,f] = H[e,f]
X[m+1,e,f] = relu(A[m,e]) * X[m,e,f] + K[m,e] * V[m,f]
Y[m,f] = Q[m,e] * X[m+1,e,f]""",
    "the last state": "X[0,e,f] = H[e,f]\nX[m+1,e,f] = sigmoid(A[m,e]) * X[m,e,f] + K[m,e] * V[m,f]\nY[e,f] = X[M,e,f]",
    "two states": """
X[0,e] = 0
X[m+1,e] = X[m,e] * 0.5 + K[m,e]
Z[0,e] = 0
Z[m+1,e] = Z[m,e] / 3 + Q[m,e]
Y[m] = X[m+1,e] * Z[m,e]""",
}


@pytest.mark.parametrize("name", LINEAR)
def test_parts_follow_one_another(name: str) -> None:
    original = recurrence(LINEAR[name])
    found = derive(original, "m", form="split")
    assert not verify(found.cascade)
    assert spec.loads(found.spec) == found.cascade
    for length in (1, 7, 8):
        sizes = {"M": length, "E": 3, "F": 2}
        inputs = random_inputs(original, sizes, None, np.random.default_rng(length))
        expected = evaluate(original, inputs, sizes)["Y"]
        for parts in (1, 2, 7, 9):
            got = evaluate(found.cascade, inputs, {**sizes, "S": parts})["Y"]
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12, err_msg=f"{length} in {parts}")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("X[0,e] = 0\nX[m+1,e] = max(X[m,e], K[m,e]) * 0.5\nY[m] = sum[e](X[m+1,e])", "is not its old value times a factor"),
        ("X[0,e] = 0\nX[m+1,e] = tanh(X[m,e]) + K[m,e]\nY[m] = sum[e](X[m+1,e])", "is not its old value times a factor"),
        ("X[0,e] = 0\nX[m+1,e] = X[m,e] * X[m,e] + K[m,e]\nY[m] = sum[e](X[m+1,e])", "is not its old value times a factor"),
        (
            "X[0,e,f] = 0\nU[m,f] = sum[e](K[m,e] * X[m,e,f])\nX[m+1,e,f] = X[m,e,f] + K[m,e] * (V[m,f] - U[m,f])\n"
            "Y[m,f] = sum[e](Q[m,e] * X[m+1,e,f])",
            "both free of what runs along `m`",
        ),  # the delta rule: a matrix applied to the state
    ],
)
def test_what_is_no_linear_recurrence_is_refused(body: str, reason: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        derive(recurrence(body), "m", form="split")
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E403"
    assert reason in diagnostic.help
