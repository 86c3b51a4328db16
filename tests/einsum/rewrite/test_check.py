"""The numerical check finds derivations that are broken on purpose: a step left out, a wrong start, a wrong merge, a lost guard."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.rewrite.check import LENGTHS, RANGE_LENGTHS, TILE, Differs, Situation, compare, situations
from einsmith.einsum.rewrite.derive import derive

from .cases import BY_NAME, CASES

Form = Literal["one-pass", "split"]


SHIFTED = """
name: shifted
ranks: {p: P, m: M}
inputs: {S: [p, m], W: [p, m]}
cascade: |
  G[p] = max[m](S[p,m])
  Y[p] = max[m]((S[p,m] + W[p,m] - G[p]) * 3)
outputs: [Y]
"""


@cache
def derived(name: str, form: Form) -> tuple[Cascade, str]:
    original = spec.loads(SHIFTED if name == "shifted" else BY_NAME[name].text)
    return original, derive(original, "m", form=form, check=False).spec


def given(cascade: Cascade) -> dict[str, int]:
    return {name: 3 for name in ("S", "PARTS") if name in cascade.symbols}


def broken(name: str, form: Form, old: str, new: str) -> tuple[Cascade, Cascade]:
    original, text = derived(name, form)
    assert text.count(old) == 1, text
    return original, spec.loads(text.replace(old, new))


BEFORE_THE_TILE = ("exp(QK[p,m1,m0] - GM_run[p,m1+1])", "exp(QK[p,m1,m0] - GM_run[p,m1])")
WRONG: dict[str, tuple[str, Form, str, str]] = {
    "no rescale": ("softmax", "one-pass", "SD_run[p,m1] * GM_rescale[p,m1] +", "SD_run[p,m1] +"),
    "no rescale of the other": ("softmax", "one-pass", "AV_num_run[p,m1,f] * GM_rescale[p,m1] +", "AV_num_run[p,m1,f] +"),
    "rescale the wrong way": ("softmax", "one-pass", "exp(GM_run[p,m1] - GM_run[p,m1+1])", "exp(GM_run[p,m1+1] - GM_run[p,m1])"),
    "the old maximum": ("softmax", "one-pass", *BEFORE_THE_TILE),
    "a sum that starts at 1": ("variance", "one-pass", "VAR_sum_run[p,0]    = 0", "VAR_sum_run[p,0] = 1"),
    "a maximum that starts at 0": ("softmax", "one-pass", "GM_run[p,0]          = -inf", "GM_run[p,0] = 0"),
    "a tile left out": ("softmax", "one-pass", "AV_num_run[p,M1,f]", "AV_num_run[p,M1-1,f]"),
    "one element twice": ("softmax", "one-pass", "V[m1*M0+m0,f]", "V[m1*M0,f]"),
    "no shift": ("shifted", "one-pass", "Y_run[p,m1] + G_shift[p,m1]", "Y_run[p,m1]"),
    "the shift the wrong way": (
        "shifted",
        "one-pass",
        "G_run[p,m1] * 3 - G_run[p,m1+1] * 3",
        "G_run[p,m1+1] * 3 - G_run[p,m1] * 3",
    ),
    "no step of the mean": ("variance", "one-pass", " + MU_step[p,m1]**2 * MU_count_run[m1]", ""),
    "the step of the mean with the wrong count": ("variance", "one-pass", "* MU_count_run[m1] +", "* MU_count_run[m1+1] +"),
    "a correction without its power": ("softplus-power", "one-pass", "BD_run[p,m1+1])**3\n  AD_tile", "BD_run[p,m1+1])\n  AD_tile"),
    "a minimum without its guard": (
        "min-stabilised",
        "one-pass",
        "sum[m0](where(GM_run[p,m1+1] == inf, 0, SN_tile[p,m1,m0]))",
        "sum[m0](SN_tile[p,m1,m0])",
    ),
    "a minimum that has settled": (
        "min-stabilised",
        "one-pass",
        "where(GM_run[p,m1] == GM_run[p,m1+1], 1, exp(-GM_run[p,m1] - -GM_run[p,m1+1]))",
        "exp(-GM_run[p,m1] - -GM_run[p,m1+1])",
    ),
    "a quotient of exponentials": (
        "softmax",
        "one-pass",
        "exp(GM_run[p,m1] - GM_run[p,m1+1])",
        "exp(GM_run[p,m1]) / exp(GM_run[p,m1+1])",
    ),
    "no maximum subtracted": (
        "log-sum-exp",
        "one-pass",
        "exp(S[p,m1*M0+m0] - GM_run[p,m1+1])",
        "exp(S[p,m1*M0+m0] - GM_run[p,m1+1] + 200) * exp(-200)",
    ),
    "a merge without correction": ("softmax", "split", "SD_part[p,s] * GM_part_rescale[p,s]", "sum[s](SD_part[p,s])"),
    "a merge by the wrong reduction": ("softmax", "split", "max[s](GM_part[p,s])", "min[s](GM_part[p,s])"),
    "a merge of means without their distance": ("variance", "split", " + MU_part_step[p,s]**2 * MU_count_part[s]", ""),
    "parts that overlap": ("log-sum-exp", "split", "params: {MS: (M + PARTS - 1) // PARTS}", "params: {MS: M // PARTS}"),
    "positions beyond the end": ("variance", "split", "sum[m0](where(s * MS + m1 * M0 + m0 < M, 1, 0))", "sum[m0](1)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_derivation_is_found(name: str) -> None:
    case, form, old, new = WRONG[name]
    original, wrong = broken(case, form, old, new)
    _, text = derived(case, form)
    assert compare(original, spec.loads(text), "m", given=given(wrong))  # as it was, it is right
    with pytest.raises(Differs):
        compare(original, wrong, "m", given=given(wrong))


def test_what_only_float32_cannot_hold_is_found() -> None:
    """exp(200) is a float64, and the factor cancels; it is no float32."""
    original, text = derived("log-sum-exp", "one-pass")
    wrong = text.replace("exp(S[p,m1*M0+m0] - GM_run[p,m1+1])", "exp(S[p,m1*M0+m0] - GM_run[p,m1+1] + 200) * exp(-200)")
    assert wrong != text
    with pytest.raises(Differs) as raised:
        compare(original, spec.loads(wrong), "m")
    assert raised.value.large
    assert "not finite where the original is" in raised.value.what


def drawn(name: str, length: int) -> list[Situation]:
    cascade = spec.loads(BY_NAME[name].text)
    sizes = {symbol: length if symbol == "M" else 3 for symbol in cascade.symbols}
    return list(situations(cascade, "m", sizes, np.random.default_rng(0)))


def test_each_situation_occurs() -> None:
    scores = drawn("sink", 13)
    values = [situation.inputs["S"] for situation in scores]
    assert any(value.max() > 1e4 for value in values)
    assert any(value.min() < -1e4 for value in values)
    masked = [value for value in values if (value == -np.inf).any()]
    assert masked
    assert all((value[0] == -np.inf).all() for value in masked)  # a whole row
    assert all((value[1, :TILE] == -np.inf).all() and np.isfinite(value[1, TILE:]).any() for value in masked)  # the first tile
    finite = [situation.inputs for situation in drawn("softmax", 13) if not situation.masked]
    products = [inputs["Q"] @ inputs["K"].T for inputs in finite]
    assert any(product.max() > 1e4 for product in products)
    assert any(product.min() < -1e4 for product in products)
    segments = [situation.inputs for situation in drawn("segments", 13) if situation.masked]
    assert any(((inputs["U"][:, None] == inputs["W"]).any(1) == 0).any() for inputs in segments)  # a query without keys
    assert {1, 13} == set(RANGE_LENGTHS) <= set(LENGTHS)
    assert any(length % TILE for length in RANGE_LENGTHS)


@pytest.mark.parametrize("case", [case for case in CASES if case.after < case.before], ids=lambda case: case.name)
def test_each_input_along_the_rank_is_masked_and_large(case: object) -> None:
    cascade = spec.loads(case.text)  # type: ignore[attr-defined]
    sizes = {symbol: 13 if symbol == "M" else 2 for symbol in cascade.symbols}
    found = list(situations(cascade, "m", sizes, np.random.default_rng(0)))
    for tensor in cascade.inputs:
        if "m" in tensor.ranks and tensor.dtype == "float":
            here = [situation.inputs[tensor.name] for situation in found]
            assert any((value == -np.inf).any() for value in here)
            assert any(np.abs(value).max() > 1e4 for value in here)
