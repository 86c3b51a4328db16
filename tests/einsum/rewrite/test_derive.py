"""Derivations: passes, proofs, values; on a table of cascades, on the example files and on random ones."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from einsmith.einsum import spec
from einsmith.einsum.analysis.passes import levels
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite import check, single_precision
from einsmith.einsum.rewrite import derive as module
from einsmith.einsum.rewrite.cost import state_words
from einsmith.einsum.rewrite.derive import Derivation, derive
from einsmith.einsum.rewrite.search import Search
from einsmith.einsum.rewrite.step import Refused, Rewritten
from einsmith.einsum.verify import verify

from .cases import BY_NAME, CASES, Case
from .chains import chains, odd_cascades

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("[ac][ta]*/*.yaml"))


@cache
def derived(name: str) -> Derivation:
    """The derivation of a case over m: the tests share it."""
    return derive(spec.loads(BY_NAME[name].text), "m")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_passes_of_the_table(case: Case) -> None:
    found = derived(case.name)
    assert (found.passes_before["m"], found.passes_after["m"]) == (case.before, case.after)
    assert (found.blocked_by is None) == (case.after <= 1)
    if case.blocked is not None:
        assert case.blocked in [blocked.expression for blocked in found.blocked_by or ()] or any(
            case.blocked in blocked.expression for blocked in found.blocked_by or ()
        )
    assert all(blocked.reason and blocked.depends_on for blocked in found.blocked_by or ())
    assert bool(found.steps) == (case.after < case.before or case.cheaper)
    assert not verify(found.cascade)
    assert found.passes_after == levels(found.cascade, "m").passes


@pytest.mark.parametrize("case", [case for case in CASES if case.after < case.before or case.cheaper], ids=lambda case: case.name)
def test_derived_forms_print_and_parse_back(case: Case) -> None:
    found = derived(case.name)
    again = spec.loads(found.spec)
    assert again == found.cascade
    assert spec.loads(found.spec).sizes == found.cascade.sizes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    cascade = spec.load(path)
    for rank in ("m", "p"):
        if rank in cascade.rank_order:
            found = derive(cascade, rank)
            assert found.passes_after.get(rank, 0) <= found.passes_before.get(rank, 0)
            assert not verify(found.cascade)
            if found.steps:
                assert spec.loads(found.spec) == found.cascade


class Checked(Search):
    """A search in which the values after each single rewrite are compared with those before."""

    original: Cascade
    inputs: dict[str, np.ndarray]
    sizes: dict[str, int]
    expected: dict[str, np.ndarray]

    def take(self, result: Rewritten | Refused | None) -> Rewritten | None:
        taken = super().take(result)
        if taken is not None:
            assert not verify(self.cascade), taken.step.rewrite
            tiles = {name: 3 for name in self.cascade.symbols if name not in self.sizes}
            with np.errstate(all="ignore"):
                found = evaluate(self.cascade, self.inputs, {**self.sizes, **tiles})
            for name, value in self.expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{taken.step.rewrite} of {name}")
        return taken


def searched(cascade: Cascade, rank: str, sizes: dict[str, int]) -> Checked:
    search = Checked(cascade, rank, None)
    search.sizes = sizes
    search.inputs = random_inputs(cascade, sizes, None, np.random.default_rng(1))
    search.expected = evaluate(cascade, search.inputs, sizes)
    search.run(iterate=True)
    return search


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_single_rewrite_keeps_values_and_validity(case: Case) -> None:
    cascade = spec.loads(case.text)
    sizes = {name: 7 if name == "M" else 2 for name in cascade.symbols}
    sizes.update({"J": 2, "P": 5} if "J" in sizes else {})
    search = searched(cascade, "m", sizes)
    assert levels(search.cascade, "m").passes["m"] == case.after


def test_all_rewrites_occur_in_the_table() -> None:
    used = {step.rewrite for case in CASES for step in derived(case.name).steps}
    folder = Path(module.__file__).parent
    own = {path.stem.replace("_", "-") for path in folder.glob("*.py") if "\nNAME = " in path.read_text(encoding="utf-8")}
    assert used == own - {"chunked-form", "split-form", "split-recurrence", "scan-form"}  # other forms: see test_forms


def test_a_rewrite_is_its_file_its_function_and_its_name() -> None:
    import importlib

    for path in Path(module.__file__).parent.glob("*.py"):
        if "\nNAME = " in path.read_text(encoding="utf-8"):
            rewrite = importlib.import_module(f"einsmith.einsum.rewrite.{path.stem}")
            assert path.stem.replace("_", "-") == rewrite.NAME
            assert callable(getattr(rewrite, path.stem))
            assert "before" in rewrite.__doc__
            assert "after" in rewrite.__doc__


@settings(max_examples=60)
@given(chains())
def test_random_chains(cascade: Cascade) -> None:
    found = derive(cascade, "m")
    assert found.passes_after.get("m", 0) <= found.passes_before.get("m", 0)
    assert (found.blocked_by is None) == (found.passes_after.get("m", 0) <= 1)
    assert spec.loads(found.spec) == found.cascade


@settings(max_examples=25)
@given(odd_cascades())
def test_cascades_that_nobody_wrote(cascade: Cascade) -> None:
    for rank in ("m", "p"):
        found = derive(cascade, rank)
        assert found.passes_after.get(rank, 0) <= found.passes_before.get(rank, 0)
        assert not verify(found.cascade)
        assert spec.loads(found.spec) == found.cascade


@settings(max_examples=25)
@given(chains())
def test_random_chains_rewrite_by_rewrite(cascade: Cascade) -> None:
    sizes = {"P": 2, "M": 7}
    with np.errstate(all="ignore"):
        inputs = random_inputs(cascade, sizes, None, np.random.default_rng(1))
        if all(np.isfinite(value).all() for value in evaluate(flatten(cascade), inputs, sizes).values()):
            searched(cascade, "m", sizes)


# --- what must hold of a softmax ------------------------------------------------------------------------------------------------


def one_pass(name: str) -> tuple[Cascade, Cascade]:
    return derived(name).original, derived(name).cascade


@pytest.mark.parametrize("length", [1, 2, 5, 16, 127, 128, 129, 300])
def test_lengths_that_the_tile_does_not_divide(length: int) -> None:
    original, derived = one_pass("causal")
    sizes = {"P": 3, "M": length, "E": 4, "F": 2}
    inputs = random_inputs(original, sizes, None, np.random.default_rng(length))
    for tile in (1, 7, 128):
        found = evaluate(derived, inputs, {**sizes, "M0": tile})["AV"]
        np.testing.assert_allclose(found, evaluate(original, inputs, sizes)["AV"], rtol=1e-12, atol=1e-12)


def test_fully_masked_rows_give_zero() -> None:
    _, derived = one_pass("segments")
    sizes = {"P": 4, "M": 9, "E": 3, "F": 2}
    inputs = random_inputs(derived, {**sizes, "M0": 4}, None, np.random.default_rng(0))
    inputs["U"][:] = [0, 1, 5, 5]
    inputs["W"][:] = [1, 1, 1, 1, 0, 0, 0, 1, 1]  # row 0 sees nothing in its first tile, rows 2 and 3 nothing at all
    found = evaluate(derived, inputs, {**sizes, "M0": 4})["AV"]
    assert np.isfinite(found).all()
    assert not found[2:].any()
    assert found[:2].any(axis=1).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_ten_thousand(sign: int) -> None:
    original, derived = one_pass("biased")
    sizes = {"P": 3, "M": 13, "E": 2, "F": 2}
    inputs = random_inputs(original, sizes, None, np.random.default_rng(0))
    inputs["B"] = sign * 1e4 * np.arange(39.0).reshape(3, 13)
    found = evaluate(derived, inputs, {**sizes, "M0": 4})["AV"]
    np.testing.assert_allclose(found, evaluate(original, inputs, sizes)["AV"], rtol=1e-12)
    assert np.isfinite(found).all()


def test_a_large_offset_does_not_cancel_in_the_variance() -> None:
    original, derived = one_pass("variance")
    values = 1e8 + np.random.default_rng(0).standard_normal((2, 1000))
    found = evaluate(derived, {"X": values}, {"M0": 128})["VAR"]
    np.testing.assert_allclose(found, evaluate(original, {"X": values})["VAR"], rtol=1e-6)  # raw moments would lose all digits


def test_a_large_offset_does_not_cancel_in_the_entropy() -> None:
    """Scores are summed up as distances from their maximum; and nothing has no entropy."""
    original, derived = one_pass("entropy")
    scores = 3e4 + np.random.default_rng(0).standard_normal((2, 1000)).round(2)
    found = single_precision.evaluate(derived, {"S": scores}, {"M0": 128})["H"]
    np.testing.assert_allclose(found, evaluate(original, {"S": np.float32(scores).astype(float)})["H"], rtol=1e-4)
    assert not evaluate(derived, {"S": np.zeros((2, 0))}, {"M0": 128})["H"].any()


def test_names_do_not_matter() -> None:
    text = BY_NAME["causal"].text
    for old, new in (("GM", "Zip"), ("SN", "Zap"), ("SD", "GM"), ("AV", "QK2"), ("softmax", "x")):
        text = text.replace(old, new)
    found = derive(spec.loads(text), "m")
    assert [step.rewrite for step in found.steps] == [
        step.rewrite for step in derive(spec.loads(BY_NAME["causal"].text), "m").steps
    ]


def test_names_in_use_are_not_taken_again() -> None:
    text = BY_NAME["softmax"].text.replace("A[p,m]", "m1[p,m]").replace("QK", "M0").replace("S[p", "GM_run[p")
    found = derive(spec.loads(text), "m")
    assert found.passes_after["m"] == 1
    assert spec.loads(found.spec) == found.cascade


def test_a_tile_may_be_chosen() -> None:
    assert ("M0", 16) in derive(spec.loads(BY_NAME["softmax"].text), "m", tile=16).cascade.sizes


def test_a_rank_may_be_cut_where_it_saves_nothing() -> None:
    cascade = spec.loads(BY_NAME["sigmoid"].text)
    found = derive(cascade, "m", iterate=True)
    assert [tensor.kind for tensor in found.cascade.tensors].count("state") == 1
    assert not derive(cascade, "m").steps


def test_what_is_derived_derives_no_further() -> None:
    _, derived = one_pass("causal")
    again = derive(derived, "m")
    assert not again.steps
    assert again.cascade == derived


def test_an_unknown_rank() -> None:
    with pytest.raises(EinsmithError) as raised:
        derive(spec.loads(BY_NAME["softmax"].text), "k")
    assert raised.value.diagnostics[0].code == "E401"


def test_a_wrong_derivation_is_never_returned() -> None:
    cascade = spec.loads(BY_NAME["log-sum-exp"].text)
    wrong = spec.loads(BY_NAME["log-sum-exp"].text.replace("+ GM[p]", "+ GM[p] * 1.0001"))
    assert check.compare(cascade, cascade, "m")
    with pytest.raises(EinsmithError) as raised:
        check.compare(cascade, wrong, "m")
    assert raised.value.diagnostics[0].code == "E920"


def test_sizes_that_depend_on_each_other_are_found() -> None:
    text = BY_NAME["grouped-queries"].text.replace("h: G*KV", "h: H").replace("h//G", "h//(H//KV)")
    assert derive(spec.loads(text + "sizes: {H: 8, KV: 4}\n"), "m").checked


def test_the_report_is_a_proof() -> None:
    found = derived("causal")
    report = str(found)
    assert report.startswith("causal: passes over m: 3 -> 1")
    for step in found.steps:
        for part in (step.before, step.rule, step.condition, step.after):
            assert all(line in report for line in part.splitlines())
    assert r"\begin{verbatim}" in found.latex()


def test_blocked_says_which_dependency() -> None:
    found = derived("sigmoid-of-difference")
    (blocked,) = found.blocked_by or ()
    assert (blocked.einsum, blocked.expression, blocked.depends_on) == ("AV", "sigmoid(S[p,m] - GM[p])", ("GM",))


PAGE = Path(__file__).parents[3] / "docs" / "reference" / "derivations.md"
HEADER = """# Derivations

What `einsmith derive --rank m` makes of the cascades in `tests/einsum/rewrite/cases.py`: passes over m as written and derived; the
rewrites that were used, tidying left out; the state, in words, that one step along m leaves to the next in the derived form, over
all positions of the other ranks (running states, and accumulators where no state is needed); the names of the running states, or
the sub-expression that blocks. `pytest tests/einsum/rewrite/test_derive.py -k page --update` writes this page, and the same test
keeps it true. `python benchmarks/derive.py --table` prints what each derivation takes.

| cascade | passes | derived | rewrites | state | running states, or what blocks |
|---|---|---|---|---|---|
"""
FOOTER = """
Not reached yet, though algebra allows it: products under a rescale, sparsemax by its
threshold, a state over an uncut rank that others could run beside.

The same reductions in parts that are merged, or for all prefixes at once: [split and scan forms](forms.md).
"""
TIDYING = {"dead-einsums", "inline", "common-subexpressions", "partition", "mean-as-sum"}


def table() -> str:
    rows = []
    for case in CASES:
        found = derived(case.name)
        rules = ", ".join(dict.fromkeys(step.rewrite for step in found.steps if step.rewrite not in TIDYING)) or "none"
        states = ", ".join(f"`{tensor.name}`" for tensor in found.cascade.tensors if tensor.kind == "state")
        blocks = ", ".join(dict.fromkeys(f"`{blocked.expression}`" for blocked in found.blocked_by or ()))
        last = f"blocked by {blocks}" if blocks else states or "; ".join(found.notes) or "none"
        passes = f"{found.passes_before['m']} | {found.passes_after['m']}"
        rows.append(f"| {case.name} | {passes} | {rules} | {state_words(found.cascade, 'm')} | {last} |")
    return HEADER + "\n".join(rows) + "\n" + FOOTER


def test_the_page_of_derivations_is_true(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update"):
        PAGE.write_text(table(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == table()
