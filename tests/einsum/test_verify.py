"""Rules on the IR: what a rewrite may not build. (What a file may not say is in the wrong specs.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Rank, Reduce, Scalar, Scan, Select, Tensor
from einsmith.einsum.spec import loads
from einsmith.einsum.verify import RULES, verify

from ..strategies import random_cascades

GOOD = loads("""
name: good
ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, j: J}
inputs:
  X: [p, m]
  I: {ranks: [p], dtype: int}
params: {a: 2, s: 1/sqrt(P)}
tensors: {W: [m]}
cascade: |
  S[p,0]    = 0
  S[p,m1+1] = S[p,m1] + sum[m0](X[p,m1*M0+m0])
  T[p]      = max[m](X[p,m])
  K[p,j]    = argtopk[m](X[p,m])
  W[I[p]]   = sum[p](T[p])
  Y[p]      = S[p,M1] + T[p] * s
outputs: [Y, K, W]
sizes: {P: 4}
""")


def einsums(change: Callable[[Einsum], Einsum]) -> Cascade:
    return replace(GOOD, einsums=tuple(change(einsum) for einsum in GOOD.einsums))


def with_body(output: str, body: Expr) -> Cascade:
    return einsums(lambda einsum: replace(einsum, body=body) if einsum.output == output else einsum)


def with_tensor(name: str, **changes: object) -> Cascade:
    return replace(GOOD, tensors=tuple(replace(t, **changes) if t.name == name else t for t in GOOD.tensors))


X = Access("X", (Coord("p"), Coord("m")))

MALFORMED: dict[str, tuple[Cascade, str]] = {
    "a name twice": (replace(GOOD, ranks=(*GOOD.ranks, Rank("T", Number(3)))), "E910"),
    "an extent that is named like a tensor": (replace(GOOD, ranks=(*GOOD.ranks, Rank("q", Scalar("T")))), "E910"),
    "an extent with a coordinate": (replace(GOOD, ranks=(*GOOD.ranks, Rank("q", Coord("p")))), "E910"),
    "a parameter that needs a later one": (replace(GOOD, params=(("b", Scalar("s")), *GOOD.params)), "E910"),
    "a parameter with a tensor": (replace(GOOD, params=(("b", X),)), "E910"),
    "an extent of 2.5": (replace(GOOD, ranks=(*GOOD.ranks, Rank("q", Number(2.5)))), "E216"),
    "a part without its rank": (replace(GOOD, ranks=(*GOOD.ranks, Rank("q", Number(2), part_of="p"))), "E910"),
    "a split without its parts": (replace(GOOD, ranks=tuple(r for r in GOOD.ranks if r.name != "m0")), "E910"),
    "parts away from their rank": (replace(GOOD, ranks=(*(r for r in GOOD.ranks if r.name != "m0"), GOOD.rank("m0"))), "E910"),
    "a part of another extent": (
        replace(GOOD, ranks=tuple(replace(r, extent=Number(3)) if r.name == "m0" else r for r in GOOD.ranks)), "E910",
    ),
    "a tensor of an unknown rank": (with_tensor("T", ranks=("zz",)), "E910"),
    "a state along no rank": (with_tensor("S", iterates=None), "E910"),
    "a tensor that says it is a state": (with_tensor("T", kind="state"), "E910"),
    "tensors out of order": (replace(GOOD, tensors=GOOD.tensors[::-1]), "E910"),
    "a tensor that nothing defines": (replace(GOOD, tensors=(*GOOD.tensors, Tensor("Z", ()))), "E910"),
    "a wrong dtype": (with_tensor("T", dtype="int"), "E910"),
    "an output that is none": (replace(GOOD, outputs=("Z",)), "E910"),
    "an output twice": (replace(GOOD, outputs=("Y", "Y")), "E910"),
    "an output that is an input": (replace(GOOD, outputs=("X",)), "E910"),
    "a size of nothing": (replace(GOOD, sizes=(("ZZ", 3),)), "E910"),
    "a negative size": (replace(GOOD, sizes=(("P", -3),)), "E910"),
    "a negative number": (with_body("T", Number(-1)), "E910"),
    "a number that is none": (with_body("T", Number(float("nan"))), "E910"),
    "an unknown operation": (with_body("T", Map("softmax", (Number(1),))), "E910"),
    "too many arguments": (with_body("T", Map("exp", (Number(1), Number(2)))), "E910"),
    "an unknown reduction": (with_body("T", Reduce("median", ("m",), X)), "E910"),
    "a reduction over nothing": (with_body("T", Reduce("max", (), X)), "E910"),
    "a reduction over an unknown rank": (with_body("T", Reduce("max", ("zz",), X)), "E910"),
    "a reduction out of order": (with_body("T", Reduce("max", ("m", "p"), X)), "E910"),
    "an argmax over two ranks": (with_body("T", Map("neg", (Reduce("argmax", ("p", "m"), X),))), "E910"),
    "an unknown scan": (with_body("T", Scan("cummin", "p", Number(1))), "E910"),
    "a selection inside": (with_body("T", Map("neg", (Select("topk", "m", "j", X),))), "E910"),
    "a selection that fills another rank": (with_body("K", Select("argtopk", "m", "p", X)), "E910"),
    "an unknown scalar": (with_body("T", Scalar("zz")), "E910"),
    "an unknown coordinate": (with_body("T", Coord("zz")), "E910"),
    "an unknown tensor": (with_body("T", Access("Z", ())), "E910"),
    "too few indices": (with_body("T", Access("X", (Coord("p"),))), "E201"),
    "a fraction as an index": (with_body("T", Access("X", (Coord("p"), Number(0.5)))), "E211"),
    "a negative index": (with_body("T", Access("X", (Coord("p"), Map("neg", (Number(1),))))), "E217"),
    "a rank that is nowhere on the left": (with_body("T", X), "E206"),
    "a reduction over a rank of the left": (with_body("T", Reduce("max", ("p", "m"), X)), "E207"),
    "a cycle": (with_body("T", Access("Y", (Coord("p"),))), "E214"),
    "a use before its definition": (with_body("T", Reduce("sum", ("m",), Access("W", (Coord("m"),)))), "E214"),
    "a scatter without a reduction": (with_body("W", Number(1)), "E212"),
    "a left-hand side of another rank": (
        einsums(lambda e: replace(e, indices=(Coord("j"),), body=Number(1)) if e.output == "T" else e), "E910",
    ),
    "a left-hand side of too many indices": (
        einsums(lambda e: replace(e, indices=(Coord("p"), Coord("j"))) if e.output == "T" else e),
        "E910",
    ),
    "a step of two": (
        einsums(lambda e: replace(e, indices=(Coord("p"), Map("+", (Coord("m1"), Number(2))))) if e is GOOD.einsums[1] else e),
        "E910",
    ),
}  # fmt: skip


def test_the_good_one_is_valid() -> None:
    assert verify(GOOD) == []


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_cascade_is_found(name: str) -> None:
    cascade, code = MALFORMED[name]
    assert code in {diagnostic.code for diagnostic in verify(cascade)}


@given(random_cascades(), st.data())
@settings(max_examples=150)
def test_verify_says_something_of_any_cascade(cascade: Cascade, data: st.DataObject) -> None:
    """Random damage: never an exception."""
    einsums = list(cascade.einsums)
    at = data.draw(st.integers(0, len(einsums) - 1))
    kind = data.draw(st.sampled_from(["drop", "swap", "index", "tensor", "rank"]))
    if kind == "drop":
        del einsums[at]
    elif kind == "swap":
        einsums[at], einsums[0] = einsums[0], einsums[at]
    elif kind == "index":
        einsums[at] = replace(
            einsums[at], indices=(*einsums[at].indices, data.draw(st.sampled_from([Number(0), Coord("p"), Coord("q")])))
        )
    elif kind == "tensor":
        cascade = replace(cascade, tensors=cascade.tensors[: data.draw(st.integers(0, len(cascade.tensors)))])
    else:
        cascade = replace(cascade, ranks=cascade.ranks[: data.draw(st.integers(0, len(cascade.ranks)))])
    damaged = replace(cascade, einsums=tuple(einsums))
    assert all(str(diagnostic).startswith("error[E") for diagnostic in verify(damaged))


def test_every_rule_says_what_it_demands() -> None:
    rules = [rule for stage in RULES for rule in stage]
    assert len(rules) == len(set(rules))
    assert all(rule.__doc__ and rule.__doc__.rstrip().endswith((".", ".)", "`.")) for rule in rules)
