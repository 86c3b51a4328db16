"""Side conditions of the running forms where nothing has been seen yet, and where divisors are tiny: proven or refused."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Access, Cascade, Coord
from einsmith.einsum.interpret import evaluate
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.rewrite.fiber import Fiber
from einsmith.einsum.rewrite.identities import least

INPUTS = "S: [p, m], W: [p, m], V: [m, f], T: [p], Z: [p]"


def cascade(body: str, outputs: str = "Y") -> Cascade:
    lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
    return spec.loads(f"name: x\nranks: {{p: P, m: M, f: F}}\ninputs: {{{INPUTS}}}\ncascade: |\n{lines}\noutputs: [{outputs}]\n")


UNSEEN = {
    "another tensor": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(W[p,m] - G[p]))",
    "another tensor, scaled": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(W[p,m] - 3 * G[p]))",
    "a rising factor": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(W[p,m] + G[p]))",
    "one of two terms": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(S[p,m] - G[p]) + exp(W[p,m] - G[p]))",
    "another mask": "G[p] = max[m](where(m < 3, S[p,m], -inf))\nY[p] = sum[m](where(m < 5, exp(S[p,m] - G[p]), 0))",
    "no mask where there was one": "G[p] = max[m](where(m <= p, S[p,m], -inf))\nY[p] = sum[m](exp(S[p,m] - G[p]))",
    "the wrong way": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(G[p] - S[p,m]))",
    "a minimum": "G[p] = min[m](S[p,m])\nY[p] = sum[m](exp(G[p] - W[p,m]))",
    "a shift": "G[p] = max[m](S[p,m])\nY[p] = max[m]((W[p,m] - G[p]) * 3)",
    "a shift of a minimum": "G[p] = max[m](S[p,m])\nY[p] = min[m]((S[p,m] - G[p]) * 3)",
    "moments": "G[p] = max[m](S[p,m])\nY[p] = sum[m]((W[p,m] - G[p]) ** 2)",
    "the logarithm of a sum": "D[p] = sum[m](W[p,m] ** 2)\nY[p] = sum[m](exp(S[p,m] - log(D[p])))",
    "the logarithm of what may vanish": "D[p] = sum[m](exp(S[p,m]))\nY[p] = sum[m](exp(S[p,m] - log(D[p])))",
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_meets_a_maximum_that_has_seen_nothing_is_refused_by_proof(name: str) -> None:
    found = derive(cascade(UNSEEN[name]), "m", check=False)
    assert found.passes_after["m"] == 2
    assert found.blocked_by
    assert "range of numbers" not in found.blocked_by[0].reason


SEEN = {
    "as it is": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(S[p,m] - G[p]))",
    "with more": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(S[p,m] + W[p,m] - G[p]))",
    "of a sum": "G[p] = max[m](S[p,m] + W[p,m])\nY[p] = sum[m](exp(S[p,m] + W[p,m] - G[p]))",
    "twice": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp(2 * S[p,m] - 2 * G[p]))",
    "by a sharpness": "G[p] = max[m](S[p,m])\nY[p] = sum[m](exp((S[p,m] - G[p]) * T[p]))",
    "masked, and in the same way": "G[p] = max[m](where(m <= p, S[p,m], -inf))\n"
    "Y[p] = sum[m](where(m <= p, exp(S[p,m] - G[p]), 0))",
    "masked only later": "G[p] = max[m](S[p,m])\nY[p] = sum[m](where(m <= p, exp(S[p,m] - G[p]), 0))",
    "beside a sink": "G[p] = max(max[m](S[p,m]), Z[p])\nY[p] = sum[m](exp(S[p,m] - G[p]))",
    "a minimum": "G[p] = min[m](S[p,m])\nY[p] = sum[m](exp(G[p] - S[p,m]))",
    "a shift": "G[p] = max[m](S[p,m])\nY[p] = max[m]((S[p,m] - G[p]) * 3)",
    "another tensor against a bounded reference": "G[p] = max(max[m](S[p,m]), 0)\nY[p] = sum[m](exp(tanh(W[p,m]) - G[p]))",
}


@pytest.mark.parametrize("name", SEEN)
def test_what_has_no_weight_there_runs_beside(name: str) -> None:
    original = cascade(SEEN[name])
    found = derive(original, "m", check=False)
    assert found.passes_after["m"] == 1
    rng = np.random.default_rng(0)
    sizes = {"P": 6, "M": 9, "F": 2}
    inputs = {t.name: rng.standard_normal([sizes[r.upper()] for r in t.ranks]) for t in original.inputs}
    inputs["T"] = abs(inputs["T"])
    inputs["S"][1, :4] = inputs["S"][2, 4:] = -np.inf if "min" not in SEEN[name] else np.inf
    with np.errstate(all="ignore"):
        expected = evaluate(original, inputs, sizes)["Y"]
        derived = evaluate(found.cascade, inputs, {**sizes, "M0": 2})["Y"]
    finite = np.isfinite(expected)
    assert finite[[0, 1, 2]].all()
    np.testing.assert_allclose(derived[finite], expected[finite], rtol=1e-12)


@pytest.mark.parametrize(
    ("divisor", "bound"),
    [
        ("sum[m](exp(S[p,m] - max[m](S[p,m])))", 1),
        ("sum[m](exp2(3 * (S[p,m] - max[m](S[p,m]))))", 1),
        ("sum[m](exp(min[m](S[p,m]) - S[p,m]))", 1),
        ("sum[m](where(m < 3, exp(S[p,m] - max[m](where(m < 3, S[p,m], -inf))), 0)) + abs(Z[p])", 1),
        ("sqrt(mean[m](S[p,m] ** 2) + 0.25)", 0.5),
        ("sum[m](where(m < 3, exp(S[p,m] - max[m](S[p,m])), 0))", None),  # the greatest may be masked
        ("sum[m](exp(S[p,m] - max[m](W[p,m])))", None),
        ("sum[m](exp(S[p,m]))", None),
        ("sum[m](S[p,m] * exp(S[p,m] - max[m](S[p,m])))", None),
        ("sum[m](exp(S[p,m] - max[m](S[p,m]))) + Z[p]", None),
    ],
)
def test_what_a_divisor_is_at_least(divisor: str, bound: float | None) -> None:
    from einsmith.einsum.flatten import flatten

    flat = flatten(cascade(f"D[p] = {divisor}\nY[p] = sum[m](S[p,m] / D[p])"))
    assert least(Access("D", (Coord("p"),)), Fiber(flat, "m")) == bound


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_powers_of_a_divisor_that_may_be_tiny_are_kept_as_powers_of_a_quotient(scale: float) -> None:
    """The square of a divisor of 1e-30 is no float32; the sixth power of 1e-60 is no float64."""
    original = cascade("D[p] = sum[m](abs(S[p,m]))\nY[p,f] = sum[m]((abs(S[p,m]) / D[p]) ** 6 * V[m,f])")
    found = derive(original, "m")
    assert found.passes_after["m"] == 1
    assert "(D_run[p,m1] / D_run[p,m1+1])**6" in found.spec
    rng = np.random.default_rng(0)
    inputs = {"S": rng.standard_normal((2, 9)) * scale**2, "V": rng.standard_normal((9, 2))}
    inputs["S"][0, :3] = 0
    given = {**inputs, "W": inputs["S"], "T": np.ones(2), "Z": np.ones(2)}
    expected = evaluate(original, given)["Y"]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(evaluate(found.cascade, given, {"M0": 2})["Y"], expected, rtol=1e-9)


def test_a_power_of_a_divisor_that_cannot_run_beside_takes_another_pass() -> None:
    found = derive(cascade("D[p] = sum[m](S[p,m])\nY[p] = sum[m]((W[p,m] / D[p]) ** 2)"), "m")
    assert found.passes_after["m"] == 2
    assert found.blocked_by
    assert "divisor" in found.blocked_by[0].reason


def test_a_divisor_squared_by_being_used_twice_is_a_power() -> None:
    found = derive(cascade("D[p] = sum[m](abs(S[p,m]))\nA[p,m] = abs(S[p,m]) / D[p]\nY[p] = sum[m](A[p,m] * A[p,m])"), "m")
    assert found.passes_after["m"] == 1
    assert "deferred-division" not in [step.rewrite for step in found.steps]
