"""Masks along a loop: bounds against brute force, and the proof that empty steps may be skipped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.sizes import evaluate_scalar
from einsmith.mapper.loop_masks import Condition, conditions
from einsmith.mapper.program import program

BODY = """
name: masked
ranks: {{p: P, m: {{extent: M, split: [m1, m0], tile: M0, count: M1}}}}
inputs: {{X: [p, m]}}
params: {{W: 3, S: 2, causal: 1}}
cascade: |
  A[p,m1,m0] = where({condition}, X[p,m1*M0+m0], {other})
  R[0,p]     = -inf
  R[m1+1,p]  = max(R[m1,p], max[m0](A[p,m1,m0]))
  N[p,m1,m0] = exp(A[p,m1,m0] - R[m1+1,p])
  D[0,p]     = {start}
  D[m1+1,p]  = D[m1,p] * exp(R[m1,p] - R[m1+1,p]) + {added}
  Y[p]       = D[M1,p]
outputs: [Y]
"""


def only(condition: str, other: str = "-inf", start: str = "0", added: str = "sum[m0](N[p,m1,m0])") -> Condition:
    cascade = spec.loads(BODY.format(condition=condition, other=other, start=start, added=added))
    arranged = program(cascade, {"p": 64, "m": 64, "m1": 16, "m0": 4})
    return next(c for c in conditions(arranged, arranged.loops[0]) if c.lines)


M = "m1*M0+m0"
ATOMS = [
    f"{M} <= p", f"{M} < p - 2", f"p - ({M}) < W", f"abs(p - ({M})) <= W", f"not {M} > p + 1", f"{M} == p", f"{M} >= p // 2",
    f"{M} >= clamp(p - W, 0, P - W)", f"causal == 0 or {M} <= p", f"0 <= p + ({M}) - 9 < P", f"{M} < max(p, S)",
    f"abs(p // 5 - ({M}) // 5) <= W", f"({M}) // 5 < p // 7", f"p // 4 == ({M}) // 4", f"({M}) // 6 > p - 10",
    f"({M}) // P >= p // P",
]  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=2), st.integers(0, 20), st.integers(1, 9), st.sampled_from([0, 1]))
def test_bounds_agree_with_brute_force(atoms: list[str], first: int, rows: int, causal: int) -> None:
    """Outside the half-lines the condition is false for all rows of a tile; where all hold strictly inside, true for all."""
    condition = " and ".join(f"({atom})" for atom in atoms)
    found = only(condition)
    values = {"P": 64, "M": 64, "M0": 4, "W": 3, "S": 2, "causal": causal, "p.first": first, "p.last": first + rows - 1}
    text = condition.replace(M, "m").replace("clamp", "_clamp")
    for m in range(40):
        truth = [
            eval(text, {"m": m, "p": p, "_clamp": lambda x, a, b: min(max(x, a), b), "abs": abs, "max": max, **values})
            for p in range(first, first + rows)
        ]
        reach = [evaluate_scalar(line.bound.high if line.upper else line.bound.low, values) for line in found.lines]
        sure = [evaluate_scalar(line.bound.low if line.upper else line.bound.high, values) for line in found.lines]
        possible = all(m <= b if line.upper else m >= b for line, b in zip(found.lines, reach, strict=True))
        certain = all(m <= b if line.upper else m >= b for line, b in zip(found.lines, sure, strict=True))
        assert possible or not any(truth), (condition, m)
        if found.exact and certain:
            assert all(truth), (condition, m)


def test_a_causal_mask_is_exact_and_its_empty_steps_are_skipped() -> None:
    found = only(f"{M} <= p")
    assert found.exact
    assert found.skippable
    (line,) = found.lines
    assert line.upper


def test_a_disjunction_is_tested_at_every_step_but_still_bounded_by_the_rest() -> None:
    found = only(f"{M} <= p and ({M} < S or p - ({M}) < W)")
    assert not found.exact
    assert [line.upper for line in found.lines] == [True]
    assert found.skippable


@pytest.mark.parametrize(
    "change",
    [
        {"other": "0"},  # a masked score of 0 counts
        {"added": "sum[m0](N[p,m1,m0]) + 1"},  # every step counts, also an empty one
        {"start": "1"},  # while nothing was seen, a step would turn 1 into 0
        {"added": "sum[m0](where(A[p,m1,m0] == -inf, 1, 0))"},
    ],
    ids=["zero", "counted", "start", "tested"],
)
def test_steps_that_change_a_state_are_never_skipped(change: dict[str, str]) -> None:
    assert not only(f"{M} <= p", **change).skippable


def test_skipping_gives_what_not_skipping_gives() -> None:
    """The interpreter on a short and a long key axis, the longer masked away, agrees: what the proof claims."""
    import numpy as np

    from einsmith.einsum import interpret

    cascade = spec.loads(BODY.format(condition=f"{M} < 5", other="-inf", start="0", added="sum[m0](N[p,m1,m0])"))
    x = np.random.default_rng(0).normal(size=(3, 16))
    whole = interpret.evaluate(cascade, {"X": x}, {"M0": 4})["Y"]
    cut = interpret.evaluate(cascade, {"X": x[:, :8]}, {"M0": 4})["Y"]
    assert np.allclose(whole, cut, rtol=1e-14)


PAIRS = """
name: pairs
ranks: {{m: {{extent: M, split: [m1, m0], tile: M0, count: M1}}, j: {length}}}
inputs: {{X: [m]}}
cascade: |
  A[m1,m0] = sum[j](where({condition}, X[m1*M0+j], 0)) * X[m1*M0+m0]
  D[0]     = 0
  D[m1+1]  = D[m1] + sum[m0](A[m1,m0])
  Y        = D[M1]
outputs: [Y]
"""


@pytest.mark.parametrize(
    ("condition", "length", "exact", "bounded"),
    [
        ("m1*M0 + j < M", "M0", True, False),  # positions of a step all: the end of the walk is the bound
        ("m1*M0 + j < M - 2", "M0", True, True),
        ("m1*M0 + j < M and m1*M0 + m0 > 3", "M0", False, True),  # one of the two ranks at a time
        ("m1*M0 + j < m1*M0 + m0", "M0", False, False),
        ("m1*M0 + j < M", "7", False, False),  # more positions than a step has
    ],
)
def test_another_rank_of_the_positions_of_a_step(condition: str, length: str, exact: bool, bounded: bool) -> None:
    cascade = spec.loads(PAIRS.format(condition=condition, length=length))
    arranged = program(cascade, {"m": 64, "m1": 16, "m0": 4, "j": 4 if length == "M0" else 7})
    (found,) = conditions(arranged, arranged.loops[0])
    assert found.exact == exact
    assert bool(found.lines) == bounded
