"""Twenty thousand mutated specs: loading says what is wrong, or loads; never anything else, and never with much work."""

from __future__ import annotations

import contextlib
import random
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.printer import print_cascade
from einsmith.einsum.spec import loads

from ..work import counted

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
INLINE = [
    """name: a
ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}}
inputs:
  X: [p, m]
  I: {ranks: [p], dtype: int}
params: {w: 3, s: 1/sqrt(P)}
sizes: {P: 4, M0: 2}
cascade: |
  S[0,p] = -inf
  L[m1,p] = max[m0](X[p,m1*M0+m0])
  S[m1+1,p] = max(S[m1,p], L[m1,p]) # running
  Y[p] = S[M1,p] * s + where(p > 0, X[p-1,0], w)
outputs: [Y]
""",
    """name: b
doc: |
  Gather, scatter,
  scan, selection.
ranks: {p: P, m: M, j: J, e: E}
inputs:
  K: [m, e]
  I: {ranks: [p, j], dtype: int}
tensors: {Y: [m, e]}
cascade: |
  G[p,j,e] = K[I[p,j],e]
  T[p,j] = argtopk[m](sum[e](K[m,e]) * (p + 1))
  C[p,j] = cumsum[j](sum[e](G[p,j,e]))
  Y[I[p,j],e] = sum[p,j](G[p,j,e] * C[p,j])
outputs: [Y, T]
""",
    "cascade: Y = 1\noutputs: [Y]\n",
]
TOKENS = [
    "[", "]", "(", ")", "{", "}", ",", ":", ": ", "=", "==", "**", "*", "/", "//", "-", "+", "<", "%", "|",
    ">", "&a ", "*a", "!!int ", "#", "\n", "\n  ", "\t", " ", "'", "\"", "\\", "0", "1", "-1", "1e999",
    "9" * 30, "inf", "nan", "sum", "max[m]", "where(", "topk[m](", "cumsum[p](", "p", "m", "M", "m1", "X",
    "Y[p]", "Q[b,h,p,e]", "RM[b,h,m1+1,p]", "not ", " and ", "p+1", "M1", "scale", "split", "tile", "count",
    "ranks", "sizes:", "cascade: |\n", "outputs: [Y]\n", "---\n", "é", "М", "−", "［", "\xa0", "\u2028",
    "\x00", "\x1b", "\ufeff", "😀", "`", "~", "?", "@", "%", ";",
]  # fmt: skip
MOST = 2_000_000
"""Most events of one text's work, as `counted` counts them: a second or so."""


def mutate(text: str, rng: random.Random, others: list[str]) -> str:
    """A few small changes: characters, tokens and lines deleted, repeated, swapped, or taken from another spec."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            text = text[:at] + text[at + rng.randrange(1, 4) :]
        elif kind <= 3:
            text = text[:at] + rng.choice(TOKENS) + text[at + rng.randrange(2) :]
        elif kind == 4:
            end = at + rng.randrange(1, 40)
            text = text[:end] + text[at:end] * rng.randrange(1, 4) + text[end:]
        else:
            lines = text.split("\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            if kind == 5:
                lines[i], lines[j] = lines[j], lines[i]
            elif kind == 6:
                del lines[i]
            else:
                lines.insert(i, rng.choice(rng.choice(others).split("\n")))
            text = "\n".join(lines)
    return text


def outcome_of(text: str) -> Cascade | SpecError:
    try:
        return loads(text)
    except SpecError as error:
        return error


@pytest.mark.parametrize("seed", range(20))
def test_a_mutated_spec_is_refused_or_loaded(seed: int) -> None:
    rng = random.Random(seed)
    examples = [path.read_text(encoding="utf-8") for path in sorted(ATTENTION.glob("*.yaml"))]
    good = [*examples, *INLINE * (len(examples) // len(INLINE))]
    loaded = refused = 0
    wrong: list[tuple[str, list[str]]] = []
    for _ in range(1000):
        text = mutate(rng.choice(good), rng, good)
        outcome, events = counted(partial(outcome_of, text))
        assert events < MOST, text
        if isinstance(outcome, SpecError):
            refused += 1
            wrong.append((text, [diagnostic.code for diagnostic in outcome.diagnostics]))
        else:
            loaded += 1
            if loaded % 10 == 0:
                assert loads(print_cascade(outcome)) == outcome, text
    assert [text for text, codes in wrong if not codes or {code[:2] for code in codes} - {"E0", "E1", "E2"}] == []
    assert loaded > 50
    assert refused > 300


NAMES = [
    "name",
    "doc",
    "ranks",
    "inputs",
    "params",
    "sizes",
    "tensors",
    "cascade",
    "outputs",
    "extent",
    "split",
    "tile",
    "count",
    "dtype",
    "p",
    "m",
    "X",
    "Y",
]
SCALARS = st.one_of(
    st.sampled_from([*NAMES, "P", "2*P", "Y[p] = X[p]", "int", "1/0", "M1", ""]),
    st.integers(-2, 5),
    st.floats(),
    st.none(),
    st.booleans(),
)


def structures() -> st.SearchStrategy[object]:
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)),
        max_leaves=20,
    )


@given(st.dictionaries(st.sampled_from(NAMES[:9]), structures(), max_size=9))
@settings(max_examples=500)
def test_any_structure_is_refused_or_loaded(document: dict[str, object]) -> None:
    with contextlib.suppress(SpecError):
        loads(yaml.safe_dump(document, sort_keys=False))


@given(st.text(max_size=200))
@settings(max_examples=500)
def test_any_text_is_refused_or_loaded(text: str) -> None:
    for whole in (text, f"cascade: |\n  Y = {text}\noutputs: [Y]\n", f"cascade: Y = 1\noutputs: [Y]\nparams: {{a: {text}}}\n"):
        with contextlib.suppress(SpecError):
            loads(whole)
