"""What is printed parses back to an equal cascade, in canonical form and with few parentheses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum.cascade import Cascade, Expr
from einsmith.einsum.printer import print_cascade, print_einsum
from einsmith.einsum.spec import load, loads
from einsmith.einsum.verify import verify

from ..strategies import cascade_of, expressions, random_cascades

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[ac]*s/*.yaml")) + sorted(
    (Path(__file__).parents[2] / "examples" / "attention").glob("*.yaml")
)
SPECS = [path for path in EXAMPLES if "cascade:" in path.read_text(encoding="utf-8")]


@given(random_cascades())
@settings(max_examples=300)
def test_a_printed_cascade_parses_to_an_equal_one(cascade: Cascade) -> None:
    assert verify(cascade) == []
    text = print_cascade(cascade)
    again = loads(text)
    assert again == cascade, text
    assert print_cascade(again) == text


@given(expressions())
@settings(max_examples=500)
def test_a_printed_expression_parses_to_an_equal_one(expr: Expr) -> None:
    cascade = cascade_of(expr)
    text = print_cascade(cascade)
    assert loads(text).einsums == cascade.einsums, text


@given(st.text(max_size=60), st.text(min_size=1, max_size=30))
def test_any_text_in_name_and_doc_is_kept(doc: str, name: str) -> None:
    base = loads("cascade: Y = 1\noutputs: [Y]\n")
    doc = "".join(c for c in doc if c.isprintable() or c == "\n")
    name = "".join(c for c in name if c.isprintable()) or "x"
    cascade = replace(base, doc=doc, name=name if name.strip() else "x")
    assert loads(print_cascade(cascade)) == cascade


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_examples_print_and_parse(path: Path) -> None:
    cascade = load(path)
    assert loads(print_cascade(cascade)) == cascade


@pytest.mark.parametrize(
    "text",
    [
        "Y[p] = -p**2",
        "Y[p] = (-p)**2",
        "Y[p] = 2**-p",
        "Y[p] = p - (P - 1)",
        "Y[p] = p - P - 1",
        "Y[p] = (p + 1) * 2",
        "Y[p] = p * (2 / P)",
        "Y[p] = 0 <= p - 1 < P",
        "Y[p] = not p < 1 and p < 3 or p == 4",
        "Y[p] = not (p < 1 or p > 3)",
        "Y[p] = (p < 1) == (P < 1)",
        "Y[p] = min(p, 2, P)",
        "Y[p] = max(p, min(2, P))",
        "Y[p] = X[p,m] * Z[m]",
        "Y[p] = sum[m](X[p,m])",
        "Y[p] = sum[m](Z[m] * 2) + 1",
        "Y[p] = sum[m](p * 2)",
        "Y[p] = cumsum[p](X[p,0])",
        "Y[p] = X[clamp(p-W//2,0,M-W),0] * where(p > 0, 1, -inf)",
        "Y[p] = X[p,(p+1)%M] * 1e-06",
        "Y    = 1.5",
    ],
)
def test_canonical_text(text: str) -> None:
    head = "ranks: {p: P, m: M}\ninputs:\n  X: [p, m]\n  Z: [m]\nparams: {W: 3}\n"
    cascade = loads(f"{head}cascade: |\n  {text}\noutputs: [Y]\n")
    assert print_einsum(cascade.einsums[0], cascade) == text.replace("    =", " =")


def test_redundant_parentheses_go() -> None:
    cascade = loads("ranks: {p: P}\ncascade: Y[p] = ((p) * (2)) + ((1 + (p)))\noutputs: [Y]\n")
    assert print_einsum(cascade.einsums[0], cascade) == "Y[p] = p * 2 + (1 + p)"
