"""Linear recurrences chunk by chunk: values on random recurrences, gates of any kind, ends that are cut; proof and refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade, Reduce, walk
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite.chunked_form import chunked_form
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.rewrite.step import Rewritten
from einsmith.einsum.verify import verify

Values = dict[str, np.ndarray[Any, Any]]


def recurrence(body: str, outputs: str = "Y") -> Cascade:
    lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
    inputs = "A: [m, e], C: [m, f], G: [m], K: [m, e], Q: [m, e], V: [m, f], H: [e, f], D: [e]"
    head = f"name: r\nranks: {{m: M, e: E, f: F}}\ninputs: {{{inputs}}}\n"
    return spec.loads(f"{head}cascade: |\n{lines}\noutputs: [{outputs}]\n")


def in_chunks(cascade: Cascade) -> Cascade:
    found = chunked_form(flatten(cascade), "m")
    assert isinstance(found, Rewritten)
    assert not verify(found.cascade)
    return found.cascade


def agree(original: Cascade, derived: Cascade, inputs: Values, sizes: dict[str, int], chunk: int) -> None:
    expected = evaluate(original, inputs, sizes)
    found = evaluate(derived, inputs, {**sizes, "M0": chunk})
    for name in original.outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=f"{name} in chunks of {chunk}")


# --- random recurrences -----------------------------------------------------------------------------------------------

FACTORS = (
    "",
    "0.5 * ",
    "D[e] * ",
    "G[m] * ",
    "sigmoid(G[m]) * ",
    "A[m,e] * ",
    "C[m,f] * ",
    "relu(G[m]) * ",
    "A[m,e] * C[m,f] * ",
    "0 * ",
)
TERMS = (
    "K[m,e] * V[m,f]", "V[m,f] * K[m,e] * G[m] - H[e,f]", "K[m,e]", "0.25", "exp(K[m,e]) * V[m,f] + Q[m,e]", "-K[m,e] * V[m,f] / 3",
)  # fmt: skip
STARTS = ("0", "H[e,f]", "D[e] + 1")
READERS = (
    "sum[e](Q[m,e] * X[AT,e,f])", "sum[e](Q[m,e] * X[AT,e,f]) / (1 + G[m] * G[m])", "sum[e](X[AT,e,f])",
    "sum[f](X[AT,e,f] * V[m,f])", "X[AT,e,f]", "tanh(X[AT,e,f]) * Q[m,e]",
    "sum[e](Q[m,e] * (X[AT,e,f] - H[e,f]) * G[m])", "max[e](X[AT,e,f] * D[e])",
    "sum[e,f](X[AT,e,f] * H[e,f])", "sum[e](Q[m,e] * X[m+1,e,f]) * sum[e](K[m,e] * X[m,e,f])",
)  # fmt: skip


def written(factor: str, term: str, start: str, reader: str, place: str) -> Cascade:
    left = "Y[m,f]" if "sum[e](" in reader or "max[e]" in reader else "Y[m,e]" if "sum[f](" in reader else "Y[m,e,f]"
    left = "Y[m]" if "sum[e,f]" in reader else left
    body = (
        f"X[0,e,f] = {start}\nX[m+1,e,f] = {factor}X[m,e,f] + ({term})\n{left} = {reader.replace('AT', place)}\nZ[e,f] = X[M,e,f]"
    )
    return recurrence(body, "Y, Z")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FACTORS),
    st.sampled_from(TERMS),
    st.sampled_from(STARTS),
    st.sampled_from(READERS),
    st.sampled_from(["m", "m+1"]),
    st.sampled_from([1, 2, 5, 7, 12, 13]),
    st.sampled_from([1, 3, 4, 16]),
)
def test_random_recurrences(factor: str, term: str, start: str, reader: str, place: str, length: int, chunk: int) -> None:
    original = written(factor, term, start, reader, place)
    sizes = {"M": length, "E": 3, "F": 2}
    inputs = random_inputs(original, sizes, None, np.random.default_rng(length))
    agree(original, in_chunks(original), inputs, sizes, chunk)


GATED = "X[0,e,f] = H[e,f]\nX[m+1,e,f] = {}X[m,e,f] + K[m,e] * V[m,f]\nY[m,f] = sum[e](Q[m,e] * X[m+1,e,f])\nZ[e,f] = X[M,e,f]"


@pytest.mark.parametrize("factor", ["G[m] * ", "A[m,e] * ", "C[m,f] * "])
@pytest.mark.parametrize("gates", ["zero", "some zero", "both signs", "tiny", "tiny, then one", "one, then tiny"])
def test_gates_at_the_edges(factor: str, gates: str) -> None:
    """Products between two places are never quotients: what is 0 or tiny before them does not matter."""
    original = recurrence(GATED.format(factor), "Y, Z")
    derived = in_chunks(original)
    sizes = {"M": 21, "E": 3, "F": 2}
    rng = np.random.default_rng(1)
    inputs = random_inputs(original, sizes, None, rng)
    for name in "GAC":
        shape = inputs[name].shape
        first = np.arange(21).reshape(-1, *[1] * (len(shape) - 1)) < 9
        inputs[name] = {
            "zero": np.zeros(shape),
            "some zero": np.where(rng.random(shape) < 0.4, 0.0, rng.random(shape)),
            "both signs": rng.choice([-1.0, 1.0], shape) * rng.random(shape),
            "tiny": np.full(shape, 1e-30),
            "tiny, then one": np.broadcast_to(np.where(first, 1e-200, 1.0), shape).copy(),
            "one, then tiny": np.broadcast_to(np.where(first, 1.0, 1e-200), shape).copy(),
        }[gates]
    for chunk in (1, 4, 7, 21, 64):
        agree(original, derived, inputs, sizes, chunk)


def test_single_precision_stays_finite() -> None:
    """Logits of gates at which the product over a chunk is far below the least float32: results are as before."""
    from einsmith.einsum.rewrite import single_precision

    original = recurrence(GATED.format("sigmoid(A[m,e]) * "), "Y, Z")
    derived = in_chunks(original)
    sizes = {"M": 40, "E": 3, "F": 2}
    inputs = random_inputs(original, sizes, None, np.random.default_rng(2))
    inputs["A"] = inputs["A"] * 60
    expected = single_precision.evaluate(original, inputs, sizes)
    found = single_precision.evaluate(derived, inputs, {**sizes, "M0": 16})
    for name in original.outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


# --- the form ---------------------------------------------------------------------------------------------------------


def test_the_proof_and_the_spec() -> None:
    original = recurrence(GATED.format("G[m] * "), "Y, Z")
    found = derive(original, "m", form="chunked", tile=4)
    (step,) = [step for step in found.steps if step.rewrite == "chunked-form"]
    assert step.target == "X"
    assert "X[m+1,e,f] = G[m] * X[m,e,f]" in step.before
    assert "X_ratio[m1,m0,mj] = cumprod[m0](where(mj < m0, G[m1*M0+m0], 1))" in step.after
    assert dict(found.cascade.sizes)["M0"] == 4
    assert spec.loads(found.spec) == found.cascade
    assert len(found.checked) >= 8
    assert found.passes_after["m"] == 1


def test_a_factor_that_is_the_same_everywhere_needs_no_products_by_chunk() -> None:
    body = "X[0,e,f] = 0\nX[m+1,e,f] = 0.9 * X[m,e,f] + K[m,e] * V[m,f]\nY[m,f] = sum[e](Q[m,e] * X[m+1,e,f])"
    assert in_chunks(recurrence(body)).tensor("X_ratio").ranks == ("m0", "mj")
    assert in_chunks(recurrence(body.replace("0.9", "D[e]"))).tensor("X_ratio").ranks == ("m0", "mj", "e")


def test_scores_have_a_sum_of_their_own_unless_the_factor_is_under_it() -> None:
    """With a factor of the position alone, the products of queries and keys are a matrix product."""
    scalar, vector = (in_chunks(recurrence(GATED.format(factor), "Y, Z")) for factor in ("G[m] * ", "A[m,e] * "))
    for cascade, beside in ((scalar, False), (vector, True)):
        (scores,) = cascade.definitions("Y_scores")
        assert isinstance(scores.body, Reduce)
        assert scores.body.ranks == ("e",)
        assert any(getattr(node, "tensor", "") == "X_ratio" for node in walk(scores.body)) == beside


def test_two_states_and_one_that_cannot_be_chunked() -> None:
    body = """
P[0,e] = -inf
P[m+1,e] = max(P[m,e] - 1, K[m,e])
X[0,e,f] = 0
X[m+1,e,f] = exp(P[m,e] - 1 - P[m+1,e]) * X[m,e,f] + exp(K[m,e] - P[m+1,e]) * V[m,f]
Z[0,e] = 0
Z[m+1,e] = Z[m,e] + Q[m,e]
Y[m,f] = sum[e](Z[m+1,e] * X[m+1,e,f])"""
    original = recurrence(body)
    derived = in_chunks(original)
    assert {t.name: t.iterates for t in derived.tensors if t.kind == "state"} == {"P": "m", "X_chunk": "m1", "Z_chunk": "m1"}
    for length, chunk in itertools.product((1, 7, 8), (1, 3, 16)):
        sizes = {"M": length, "E": 3, "F": 2}
        agree(original, derived, random_inputs(original, sizes, None, np.random.default_rng(3)), sizes, chunk)


def test_a_layer_on_top_of_another() -> None:
    body = """
X[0,e] = 0
X[m+1,e] = sigmoid(G[m]) * X[m,e] + K[m,e]
U[m,e] = tanh(X[m+1,e])
Z[0,e] = D[e]
Z[m+1,e] = U[m,e] * Z[m,e] + X[m,e]
Y[m] = sum[e](Q[m,e] * Z[m+1,e])"""
    original = recurrence(body)
    sizes = {"M": 11, "E": 3, "F": 2}
    agree(original, in_chunks(original), random_inputs(original, sizes, None, np.random.default_rng(4)), sizes, 4)


def test_a_softmax_between_two_states() -> None:
    """Gated slots: what is read of one state weighs what is read of another. An infinite query is no mask and says nothing."""
    body = """
X[0,e] = 0
X[m+1,e] = sigmoid(A[m,e]) * X[m,e] + (1 - sigmoid(A[m,e])) * G[m]
Z[0,e,f] = 0
Z[m+1,e,f] = sigmoid(A[m,e]) * Z[m,e,f] + (1 - sigmoid(A[m,e])) * V[m,f]
L[m,e] = sum[f](C[m,f] * Z[m+1,e,f]) * X[m+1,e]
P[m,e] = exp(L[m,e] - max[e](L[m,e]))
Y[m,f] = sum[e](P[m,e] / sum[e](P[m,e]) * Z[m+1,e,f])"""
    found = derive(recurrence(body), "m", form="chunked", tile=4)
    assert {t.name: t.iterates for t in found.cascade.tensors if t.kind == "state"} == {"X_chunk": "m1", "Z_chunk": "m1"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("X[0,e] = 0\nX[m+1,e] = tanh(X[m,e]) + K[m,e]\nY[m] = sum[e](X[m+1,e])", "is not its old value times a factor"),
        ("X[0,e] = 0\nX[m+1,e] = X[m,e] * X[m,e] + K[m,e]\nY[m] = sum[e](X[m+1,e])", "is not its old value times a factor"),
        ("X[0,e] = 0\nX[m+1,e] = X[m,e] + K[m,e]\nY[m,e] = X[M-m,e]", "it is read at `M - m`"),
        ("X[0,e] = 0\nX[m+1,e] = X[m,e] + K[m,e]\nY[e] = sum[m](X[m+1,e])", "reads all of its positions at once"),
        ("X[0,e] = 0\nX[m+1,e] = X[m,e] + K[m,e]\nY[m] = X[m+1,m%E]", "chooses elements of it by `m`"),
        ("Y[m,e] = cumsum[m](K[m,e])", "no state runs along `m`"),
    ],
)
def test_what_has_no_chunked_form_is_refused(body: str, reason: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        derive(recurrence(body), "m", form="chunked")
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E405"
    assert reason in diagnostic.help
