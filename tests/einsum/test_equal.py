"""Equality of cascades: canonical forms, random draws, counter-examples, refusals."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import canonical, spec
from einsmith.einsum.cascade import Coord, Map, Number, Reduce, transform, walk
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.equal import difference, equal
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.printer import print_cascade
from einsmith.einsum.spec import loads

from ..strategies import random_cascades
from . import generator

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
HEAD = "ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, n: M, f: F}\nsizes: {M0: 2}\n"


def cascade(body, inputs="X: [p, m], Z: [m, f]", output="Y", head=HEAD):
    lines = "".join(f"  {line.strip()}\n" for line in body.strip().splitlines())
    return loads(f"{head}inputs: {{{inputs}}}\ncascade: |\n{lines}outputs: [{output}]\n")


def load(name):
    return spec.load(ATTENTION / f"{name}.yaml")


SAME = [
    # the same expression in other words
    ("Y[p,f] = X[p,m] * Z[m,f]", "Y[p,f] = sum[n](Z[n,f] * X[p,n])"),
    ("Y[p] = max[m](X[p,m] + 1)", "T[p,m] = 1 + X[p,m]\nU[p,m] = exp(T[p,m])\nY[p] = max[m](T[p,m])"),
    ("Y[p] = exp(sum[m](X[p,m])) / 2", "A[p] = sum[m](X[p,m])\nB[p] = exp(A[p])\nY[p] = B[p] / 2"),
    ("Y = sum[p](max[m](X[p,m]))", "T[p] = max[m](X[p,m])\nY = T[p]"),
    ("Y = sum[p,m](X[p,m] * X[0,m])", "Y = sum[m,p](X[0,m] * X[p,m])"),
    ("Y[p,m] = where(m <= p, X[p,m], 0)", "Y[p,m] = where(not (p >= m), 0, X[p,m])"),
    ("Y[p] = cumsum[p](max[m](X[p,m]))", "G[p] = max[n](X[p,n])\nY[p] = cumsum[p](G[p])"),
    ("R[0,p] = 0\nR[m+1,p] = max(R[m,p], X[p,m])\nY[p] = R[M,p]", "S[0,p] = 0\nS[n+1,p] = max(X[p,n], S[n,p])\nY[p] = S[M,p]"),
    ("Y[m1] = max[m0](X[0,m1*M0+m0])", "T[m1,m0] = X[0,m1*M0+m0]\nY[m1] = max[m0](T[m1,m0])"),
]  # fmt: skip


@pytest.mark.parametrize("one, other", SAME, ids=range(len(SAME)))
def test_the_same_expression_in_other_words(one, other):
    inputs = "X: [p, m], Z: [m, f]" if "Z" in one else "X: [p, m]"
    found = equal(cascade(one, inputs), cascade(other, inputs))
    assert (found.equal, found.how, found.max_error) == (True, "symbolic", 0.0)
    assert str(found).startswith("equal")


DIFFERENT = [
    # close, but not the same: (one, other)
    ("Y[p] = max[m](X[p,m])", "Y[p] = min[m](X[p,m])"),
    ("Y[p,m] = where(m <= p, X[p,m], 0)", "Y[p,m] = where(m < p, X[p,m], 0)"),
    ("Y[p] = X[p,m] * X[p,m]", "A[p] = X[p,m]\nY[p] = A[p] * A[p]"),
    ("Y[p] = sum[m](X[p,m])", "Y[p] = sum[m](X[p,m]) + where(M == 1, 1, 0)"),
    ("Y[p] = sum[m](X[p,m])", "Y[p] = sum[m](X[p,m]) + where(M > 2*P, 1, 0)"),
    ("Y[p] = sum[m](X[p,m])", "Y[p] = sum[m](X[p,m]) + where(P > 2*M, 1, 0)"),
    ("Y[m1] = sum[m0](1)", "Y[m1] = M0"),
    ("Y[p,m] = cumsum[m](X[p,m])", "Y[p,m] = sum[n](X[p,n])"),
    ("R[p,0] = 0\nR[p,m+1] = R[p,m] + X[p,m]\nY[p,m] = R[p,m]", "Y[p,m] = cumsum[m](X[p,m])"),
    ("Y[p] = X[p,m] * 1.0000001", "Y[p] = X[p,m] * 1"),
    ("Y[p] = sum[m](log(X[p,m]))", "Y[p] = sum[m](log(abs(X[p,m])))"),
    ("Y[p,m] = X[p,m]", "Y[m,p] = X[p,m]"),
]  # fmt: skip


@pytest.mark.parametrize("one, other", DIFFERENT, ids=range(len(DIFFERENT)))
def test_different_functions_come_with_a_counter_example(one, other):
    first, second = (cascade(body, "X: [p, m]") for body in (one, other))
    found = equal(first, second)
    assert not found.equal
    assert found.counter_example is not None
    assert "different" in str(found)
    again = equal(first, second, found.counter_example.sizes, seed=found.counter_example.seed)
    assert not again.equal  # the sizes and seed it names show it by themselves


def test_equal_on_most_sizes_is_not_equal():
    """They differ in the last tile alone: every draw in which tiles divide evenly agrees."""
    one = cascade("Y[p] = sum[m1,m0](X[p,m1*M0+m0])", "X: [p, m]")
    other = cascade("Y[p] = sum[m1](where((m1+1)*M0 <= M, sum[m0](where(m1*M0+m0 < M, X[p,m1*M0+m0], 0)), 0))", "X: [p, m]")
    assert equal(one, other, {"M": 8, "M0": 4}).equal
    assert not equal(one, other).equal


FORMS = ["softmax", "deferred-division", "flash2", "fusemax", "tile-local-2pass", "tile-local-merge"]


@pytest.mark.parametrize("one, other", list(itertools.combinations(FORMS, 2)))
def test_every_form_of_softmax_attention_is_the_same_function(one, other):
    found = equal(load(one), load(other))
    assert found.equal
    assert found.max_error < 1e-12


def test_attention_and_causal_attention_are_not():
    found = equal(load("softmax"), load("softmax-causal"))
    assert not found.equal
    assert found.max_error > 0.1


def test_a_cascade_equals_itself_symbolically():
    for path in sorted(ATTENTION.glob("*.yaml")):
        one, other = spec.load(path), spec.load(path)
        assert equal(one, other).how == "symbolic", path.stem


def test_only_one_has_a_value():
    one, other = cascade("Y[p] = X[p,0] // 2", "X: [p, m]"), cascade("Y[p] = X[p,0] // 2 + X[p,0] // (P - 3) * 0", "X: [p, m]")
    found = equal(one, other, {"P": 3, "M": 2})
    assert not found.equal
    assert "the second has no value" in str(found)


def test_draws_left_out_are_counted_with_their_cause():
    one, other = cascade("Y[p] = exp(X[p//2,0])", "X: [m, p]"), cascade("Y[p] = 1 / exp(-X[p//2,0])", "X: [m, p]")
    found = equal(one, other)
    assert found.equal
    assert found.skipped
    assert f"\n  {found.skipped} more draws left out, without a value: {found.skipped_because}" in str(found)
    assert "out of range" in found.skipped_because


def test_names_that_differ_are_mapped_or_refused():
    one = cascade("Y[p] = X[p,m] * Z[m,f]")
    other = cascade("Out[p] = A[p,m] * B[m,f]", "A: [p, m], B: [m, f]", "Out")
    with pytest.raises(EinsmithError) as raised:
        equal(one, other)
    assert [diagnostic.code for diagnostic in raised.value.diagnostics] == ["E333", "E333"]
    assert "--map" in str(raised.value)
    assert equal(one, other, rename={"X": "A", "Z": "B", "Y": "Out"}).how == "symbolic"
    with pytest.raises(EinsmithError, match="E331"):
        equal(one, other, rename={"X": "A", "Z": "A", "Y": "Out"})
    with pytest.raises(EinsmithError, match="E331"):
        equal(one, other, rename={"W": "A"})


def test_inputs_of_other_kinds_are_refused():
    with pytest.raises(EinsmithError, match="E333"):
        equal(cascade("Y[p] = X[p]", "X: [p]"), cascade("Y[p] = X[p,m]", "X: [p, m]"))
    with pytest.raises(EinsmithError, match="E333"):
        equal(cascade("Y[p] = X[p] + 1", "X: [p]"), cascade("Y[p] = X[p] + 1", "X: {ranks: [p], dtype: int}"))


def test_unknown_sizes_and_parameters_are_refused():
    one = cascade("Y[p] = X[p,m]", "X: [p, m]")
    with pytest.raises(EinsmithError, match="E301"):
        equal(one, one, {"N": 3})
    with pytest.raises(EinsmithError, match="E302"):
        equal(one, one, None, {"scale": 3})


def test_a_parameter_that_makes_them_equal():
    one, other = load("softmax-causal"), load("flash2")
    assert not equal(one, other).equal
    assert equal(one, other, params={"causal": 1}).equal


def test_differences_are_measured_against_the_greatest_element():
    a = np.array([1e6, 1.0])
    assert difference(a, a) == (0.0, "")
    assert difference(a, a * (1 + 1e-13))[1] == ""
    assert difference(a, a + np.array([0, 1e-5]))[1] != ""
    assert difference(np.array([np.nan, np.inf]), np.array([np.nan, np.inf])) == (0.0, "")
    assert difference(np.array([np.nan]), np.array([0.0]))[0] == np.inf
    assert difference(np.array([np.inf]), np.array([-np.inf]))[1] != ""


@given(one=random_cascades(), other=random_cascades())
@settings(max_examples=60)
def test_equal_keys_are_never_wrong(one, other):
    """A printed and read cascade has the same keys; two cascades with the same keys have the same values."""
    again = loads(print_cascade(one))
    try:
        keys = canonical.output_keys(one), canonical.output_keys(again), canonical.output_keys(other)
    except canonical.NoKey:
        return
    assert keys[0] == keys[1]
    if keys[0] == keys[2] and one.inputs == other.inputs:
        inputs = random_inputs(one, None, None, np.random.default_rng(0))
        sizes = dict(one.sizes)
        values = evaluate(one, inputs, sizes), evaluate(other, inputs, {n: sizes[n] for n in other.symbols})
        assert all(difference(values[0][name], values[1][name])[1] == "" for name in one.outputs)


def test_what_is_not_computed_does_not_count():
    body = "Y[p] = X[p,m]\nT[p] = exp(Y[p])"
    assert equal(cascade(body, "X: [p, m]"), cascade("Y[p] = X[p,m]", "X: [p, m]")).how == "symbolic"
    assert evaluate(cascade(body, "X: [p, m]"), {"X": np.ones((1, 2))}, {"F": 1})["Y"].tolist() == [2]


def mutated(einsum, rng):
    """The Einsum with one operation, number or index changed."""
    nodes = [node for node in walk(einsum.body) if isinstance(node, Map | Number | Reduce | Coord)]
    if not nodes:
        return einsum
    target = rng.choice(nodes)
    done = []

    def change(node):
        if node is not target or done:
            return node
        done.append(node)
        match node:
            case Number(value=number):
                return Number(number + 1)
            case Map(args=(a, b)) if node.op in ("-", "/", "<", "<=", ">", ">=", "max", "min", "+", "*"):
                return rng.choice(
                    [Map(node.op, (b, a)), replace(node, op={"+": "-", "max": "min", "<": "<="}.get(node.op, node.op))]
                )
            case Reduce(op="sum" | "max" | "min"):
                return replace(node, op=rng.choice(["sum", "max", "min"]))
        return node

    return replace(einsum, body=transform(einsum.body, change))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300)
def test_no_change_of_meaning_escapes_the_key(seed):
    """Random cascades against themselves with one place changed: where the keys agree, so do the values."""
    rng = random.Random(seed)
    one, sizes, inputs = generator.build(rng)
    place = rng.randrange(len(one.einsums))
    other = replace(one, einsums=tuple(mutated(e, rng) if i == place else e for i, e in enumerate(one.einsums)))
    try:
        if canonical.output_keys(one) != canonical.output_keys(other):
            return
        values = [evaluate(cascade, inputs, sizes) for cascade in (one, other)]
    except (canonical.NoKey, EinsmithError):
        return
    for name in one.outputs:
        assert difference(values[0][name], values[1][name])[1] == "", (one, other)


@pytest.mark.parametrize(
    "first, second",
    [
        ("Y[p] = clamp(X[p], -50, 50)", "Y[p] = X[p] + 0"),
        ("Y[p] = where(X[p] == 0, 1, 0)", "Y[p] = where(X[p] == 0, 0, 0)"),
        ("Y[p] = where(p < 100, X[p], 0)", "Y[p] = where(p < 101, X[p], 0)"),
    ],
    ids=["far out", "ties", "a threshold among the coordinates"],
)
def test_rare_differences_are_found(first: str, second: str) -> None:
    pair = [
        loads(f"name: x\nranks: {{p: P}}\ninputs: {{X: [p]}}\ncascade: |\n  {line}\noutputs: [Y]\n") for line in (first, second)
    ]
    assert not equal(*pair).equal
