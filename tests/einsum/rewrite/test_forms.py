"""Split form and scan form: values, passes, refusals; on the table of cascades, on prefixes, and on random chains."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from einsmith.einsum import spec
from einsmith.einsum.analysis.passes import levels
from einsmith.einsum.cascade import Cascade, Reduce, free_ranks, walk
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite.derive import Derivation, derive
from einsmith.einsum.verify import verify

from .cases import BY_NAME, CASES
from .chains import chains

NO_RUNNING_STATE = {
    "top-k-weights": "its step",
}
"""One pass, but something in it is no running state that could be merged; and a word that says why."""
SPLIT = [case.name for case in CASES if case.after <= 1 and case.name not in NO_RUNNING_STATE]


@cache
def split(name: str) -> Derivation:
    """The split form of a case: the tests share it."""
    return derive(spec.loads(BY_NAME[name].text), "m", form="split")


def agree(original: Cascade, derived: Cascade, inputs: dict[str, np.ndarray], sizes: dict[str, int], own: dict[str, int]) -> None:
    with np.errstate(all="ignore"):
        expected = evaluate(original, inputs, sizes)
        found = evaluate(derived, inputs, {**sizes, **own})
    for name in original.outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=f"{name} at {own}")


def sizes_of(cascade: Cascade, length: int) -> dict[str, int]:
    return {name: length if name == "M" else 2 for name in cascade.symbols}


def own_sizes(found: Derivation, parts: int, tile: int) -> dict[str, int]:
    """Values of the extents that only the derived form has: the tile and the number of parts, in this order."""
    symbols = set(found.cascade.symbols) - set(found.original.symbols)
    (count,) = symbols & {"S", "PARTS"}
    return {count: parts, **dict.fromkeys(symbols - {count}, tile)}  # recurrences have no tiles


# --- split form -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPLIT)
def test_one_two_and_seven_parts(name: str) -> None:
    """Eight elements in seven parts: two each, and the last three parts are empty."""
    found = split(name)
    sizes = sizes_of(found.original, 8)
    inputs = random_inputs(found.original, sizes, None, np.random.default_rng(3))
    for parts, tile in ((1, 3), (2, 3), (2, 4), (7, 1)):
        agree(found.original, found.cascade, inputs, sizes, own_sizes(found, parts, tile))


@pytest.mark.parametrize("name", SPLIT)
def test_one_pass_over_the_parts_and_a_merge(name: str) -> None:
    found = split(name)
    assert not verify(found.cascade)
    assert spec.loads(found.spec) == found.cascade
    assert levels(found.cascade, "ms").passes["ms"] == found.passes_after["ms"] == found.passes_after["m"] == 1
    assert levels(found.cascade, "s").passes["s"] == found.passes_after["s"] >= 1
    assert levels(found.cascade, "m").passes["m"] <= 1
    assert found.checked
    merged = [step.target for step in found.steps if step.rewrite == "split-form"][1:]
    if not merged:
        assert found.steps[-1].rewrite == "split-recurrence"
        return
    assert len(merged) == len([t for t in found.cascade.tensors if t.kind == "state" and t.iterates == "m1"])


@pytest.mark.parametrize("name", [case.name for case in CASES if case.after > 1])
def test_what_takes_more_passes_has_no_split_form(name: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        split(name)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E403"
    assert f"{BY_NAME[name].after} passes" in diagnostic.help


@pytest.mark.parametrize("name", [name for name in NO_RUNNING_STATE if name in BY_NAME])
def test_what_has_no_running_state_has_no_split_form(name: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        split(name)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E403"
    assert NO_RUNNING_STATE[name] in diagnostic.help


def test_masked_parts_weigh_nothing() -> None:
    found = split("segments")
    sizes = {"P": 4, "M": 9, "E": 3, "F": 2}
    inputs = random_inputs(found.original, sizes, None, np.random.default_rng(0))
    inputs["U"][:] = [0, 1, 5, 5]
    inputs["W"][:] = [1, 1, 1, 1, 0, 0, 0, 1, 1]  # row 0 sees nothing in the first part, rows 2 and 3 nothing at all
    for parts in (1, 3, 7):
        own = own_sizes(found, parts, 2)
        agree(found.original, found.cascade, inputs, sizes, own)
        assert not evaluate(found.cascade, inputs, {**sizes, **own})["AV"][2:].any()


def test_a_divisor_stays_with_what_vanishes_with_it() -> None:
    """Landmarks: 0/0 is 0 where nothing has weight, while what the quotient is multiplied with over 0 is not finite."""
    text = """
ranks: {p: P, m: M, l: L, k: L, e: E, f: F}
inputs: {A: [p, k], Z: [k, l], Q: [l, e], K: [m, e], V: [m, f]}
sizes: {P: 64, M: 64, L: 8, E: 16, F: 16}
cascade: |
  S[l,m] = Q[l,e] * K[m,e]
  W[l,m] = exp(S[l,m] - max[m](S[l,m]))
  D[l,m] = W[l,m] / sum[m](W[l,m])
  Y[p,f] = A[p,k] * Z[k,l] * D[l,m] * V[m,f]
outputs: [Y]
"""
    assert derive(spec.loads(text), "m", form="split").passes_after["ms"] == 1


def test_no_elements_at_all() -> None:
    found = split("softmax")
    sizes = {"P": 2, "M": 0, "E": 3, "F": 2}
    inputs = random_inputs(found.original, sizes, None, np.random.default_rng(0))
    agree(found.original, found.cascade, inputs, sizes, own_sizes(found, 3, 2))


@pytest.mark.parametrize("sign", [1, -1])
def test_logits_of_ten_thousand(sign: int) -> None:
    found = split("biased")
    sizes = {"P": 3, "M": 13, "E": 2, "F": 2}
    inputs = random_inputs(found.original, sizes, None, np.random.default_rng(0))
    inputs["B"] = sign * 1e4 * np.arange(39.0).reshape(3, 13)
    for parts in (2, 5):
        agree(found.original, found.cascade, inputs, sizes, own_sizes(found, parts, 2))


def test_moments_of_parts_merge_without_cancellation() -> None:
    found = split("variance")
    values = 1e8 + np.random.default_rng(0).standard_normal((2, 1000))
    got = evaluate(found.cascade, {"X": values}, own_sizes(found, 7, 32))["VAR"]
    np.testing.assert_allclose(got, values.var(axis=1), rtol=1e-6)


def test_the_number_of_parts_and_the_tile() -> None:
    cascade = spec.loads(BY_NAME["causal"].text.replace("S[", "T["))
    found = derive(cascade, "m", form="split", parts=6, tile=16)
    assert dict(found.cascade.sizes) == {"M0": 16, "S": 6}
    small = derive(spec.loads(BY_NAME["causal"].text + "sizes: {M: 40}\n"), "m", form="split", parts=8)
    assert dict(small.cascade.sizes) == {"M": 40, "M0": 4, "PARTS": 8}


def test_names_in_use_are_not_taken_again() -> None:
    text = BY_NAME["softmax"].text.replace("A[p,m]", "s[p,m]").replace("QK", "ms").replace("S[p", "GM_part[p")
    found = derive(spec.loads(text), "m", form="split")
    assert spec.loads(found.spec) == found.cascade


def test_a_rank_that_is_cut_already() -> None:
    once = derive(spec.loads(BY_NAME["softmax"].text), "m").cascade
    for form in ("split", "scan"):
        with pytest.raises(EinsmithError) as raised:
            derive(once, "m", form=form)  # type: ignore[arg-type]
        assert "cut" in raised.value.diagnostics[0].help


def test_one_rank_at_a_time() -> None:
    with pytest.raises(EinsmithError) as raised:
        derive(spec.loads(BY_NAME["softmax"].text), ("m", "p"), form="split")
    assert raised.value.diagnostics[0].code == "E403"


@settings(max_examples=15)
@given(chains())
def test_random_chains(cascade: Cascade) -> None:
    if derive(cascade, "m").blocked_by is not None:
        with pytest.raises(EinsmithError):
            derive(cascade, "m", form="split")
        return
    found = derive(cascade, "m", form="split")  # compared with the original inside
    assert found.passes_after["ms"] == 1
    assert spec.loads(found.spec) == found.cascade


# --- scan form --------------------------------------------------------------------------------------------------------------------

SOFTMAX = """
G[n]   = max[m](S[n,m])
W[n,m] = exp(S[n,m] - G[n])
D[n]   = sum[m](W[n,m])
Y[n,f] = W[n,m] / D[n] * V[m,f]
"""


def prefixes(body: str, ranks: str = "n: M, m: M, f: F", inputs: str = "X: [m], V: [m, f]", outputs: str = "Y") -> Cascade:
    lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
    return spec.loads(f"name: p\nranks: {{{ranks}}}\ninputs: {{{inputs}}}\ncascade: |\n{lines}\noutputs: [{outputs}]\n")


def masked(condition: str, otherwise: str = "-inf", value: str = "X[m]") -> str:
    return f"S[n,m] = where({condition}, {value}, {otherwise}){SOFTMAX}"


def depth(cascade: Cascade) -> int:
    """Along how many of m and n one Einsum goes at once: 2 if each prefix is reduced anew."""
    found = 0
    for einsum in cascade.einsums:
        bound = {rank for node in walk(einsum.body) if isinstance(node, Reduce) for rank in node.ranks}
        ranks = bound.union(*(free_ranks(expr) for expr in (einsum.body, *einsum.indices)))
        found = max(found, len(ranks & {"m", "n"}))
    return found


SCANS = {
    "softmax": prefixes(masked("m <= n")),
    "turned-round": prefixes(masked("n >= m")),
    "exclusive": prefixes(masked("m < n")),
    "exclusive-turned-round": prefixes(masked("n > m")),
    "mask-after": prefixes(
        "G[n] = max[m](where(m <= n, X[m], -inf))\nW[n,m] = where(m <= n, exp(X[m] - G[n]), 0)\n"
        "D[n] = sum[m](W[n,m])\nY[n,f] = W[n,m] / D[n] * V[m,f]"
    ),
    "minimum": prefixes(masked("m <= n", "inf").replace("max[m]", "min[m]").replace("exp(S[n,m] - G[n])", "exp(G[n] - S[n,m])")),
    "also-masked": prefixes(masked("m <= n and X[m] > 0")),
    "variance": prefixes(
        "C[n] = sum[m](where(m <= n, 1, 0))\nU[n] = sum[m](where(m <= n, X[m], 0)) / C[n]\n"
        "Y[n] = sum[m](where(m <= n, (X[m] - U[n]) ** 2, 0)) / C[n]"
    ),
    "place-of-the-largest": prefixes("Y[n] = argmax[m](where(m <= n, X[m], -inf))"),
    "place-of-the-smallest-before": prefixes("Y[n] = argmin[m](where(m < n, X[m], inf))"),
    "largest": prefixes("Y[n] = max[m](where(m <= n, X[m], -inf))"),
    "sum": prefixes("Y[n] = sum[m](where(m <= n, X[m], 0))"),
    "used-later": prefixes(f"{masked('m <= n')}\nZ[f] = max[n](Y[n,f])\nU[n,f] = Y[n,f] - Z[f]", outputs="U, Y"),
    "queries": prefixes(
        masked("m <= n", value="sum[e](Q[p,e] * K[m,e])").replace("[n", "[p,n"), "p: P, n: M, m: M, e: E, f: F",
        "Q: [p, e], K: [m, e], V: [m, f]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCANS)
def test_one_sweep_for_all_prefixes(name: str) -> None:
    cascade = SCANS[name]
    found = derive(cascade, "m", form="scan")
    assert found.passes_after["m"] == levels(found.cascade, "m").passes["m"] == 1
    assert (depth(cascade), depth(found.cascade)) == (2, 1)
    assert not verify(found.cascade)
    assert spec.loads(found.spec) == found.cascade
    for length in (1, 9):
        sizes = sizes_of(cascade, length)
        inputs = random_inputs(cascade, sizes, None, np.random.default_rng(length))
        agree(cascade, found.cascade, inputs, sizes, {})


def test_variances_of_prefixes_do_not_cancel() -> None:
    """Moments about the running mean: the first two, not a sum of squares."""
    found = derive(SCANS["variance"], "m", form="scan")
    assert "running-moments" in [step.rewrite for step in found.steps]
    values = 1e8 + np.random.default_rng(0).standard_normal(400)
    got = evaluate(found.cascade, {"X": values, "V": np.zeros((400, 1))})["Y"]
    np.testing.assert_allclose(got, [values[: k + 1].var() for k in range(400)], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("condition", "read"),
    [("m <= n", "min(n+1,M)"), ("m < n", "min(n,M)"), ("m <= n + 2", "min(n+3,M)"), ("m + 2 <= n", "clamp(n-1,0,M)")],
)
def test_prefixes_of_other_lengths(condition: str, read: str) -> None:
    cascade = prefixes(masked(condition), "n: N, m: M, f: F")
    found = derive(cascade, "m", form="scan")
    assert f"D_run[{read}]" in found.spec
    for length, many in ((4, 9), (9, 4), (1, 1)):
        sizes = {"M": length, "N": many, "F": 2}
        inputs = random_inputs(cascade, sizes, None, np.random.default_rng(length))
        agree(cascade, found.cascade, inputs, sizes, {})


@pytest.mark.parametrize(
    ("cascade", "reason"),
    [
        (prefixes(masked("m <= n", value="X[n,m]"), inputs="X: [n, m], V: [m, f]"), "depends on `n` in another way"),
        (prefixes(masked("m <= n", value="X[m] - 0.5 * (n - m)")), "depends on `n` in another way"),
        (prefixes(masked("m <= n", "-5")), "is not shown to be -inf"),
        (prefixes(masked("abs(m - n) <= 2")), "nothing that is reduced over `m` is masked to prefixes"),
        (prefixes(masked("m >= n")), "nothing that is reduced over `m` is masked to prefixes"),
        (prefixes(masked("2 * m <= n")), "nothing that is reduced over `m` is masked to prefixes"),
        (prefixes("G = max[m](X[m])\nY[n] = max[m](where(m <= n, (X[m] - G) * X[m], -inf))"), "2 passes"),
        (prefixes("G[n] = max[m](where(m <= n, X[m], -inf))\nY[n] = sum[m](where(m <= n, sigmoid(X[m] - G[n]), 0))"), "2 passes"),
        (spec.loads(BY_NAME["softmax"].text), "nothing that is reduced over `m` is masked to prefixes"),
    ],
)  # fmt: skip
def test_what_has_no_scan_form(cascade: Cascade, reason: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        derive(cascade, "m", form="scan")
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E404"
    assert reason in diagnostic.help


def test_one_query_over_all_prefixes_is_attention_as_a_recurrence() -> None:
    """The derived form of the textbook definition is the recurrence of examples/attention/aaren.yaml."""
    from pathlib import Path

    text = "S[n,m] = where(m <= n, QK[m], -inf)" + SOFTMAX
    textbook = prefixes(f"QK[m] = Q[e] * K[m,e]\n{text}", "n: M, m: M, e: E, f: F", "Q: [e], K: [m, e], V: [m, f]")
    found = derive(textbook, "m", form="scan").cascade
    aaren = spec.load(Path(__file__).parents[3] / "examples" / "attention" / "aaren.yaml")
    sizes = {"M": 11, "E": 3, "F": 2}
    inputs = random_inputs(textbook, sizes, None, np.random.default_rng(0))
    scaled = {"Q": inputs["Q"][None] * np.sqrt(3), "K": inputs["K"][None, None], "V": inputs["V"][None, None]}
    expected = evaluate(aaren, scaled, {**sizes, "B": 1, "H": 1})["AV"][0, 0]
    np.testing.assert_allclose(evaluate(found, inputs, sizes)["Y"], expected, rtol=1e-12)
    assert sorted(t.ranks for t in found.tensors if t.kind == "state") == [("m",), ("m",), ("m", "f")]


def test_the_reports_are_proofs() -> None:
    for found in (split("causal"), derive(SCANS["softmax"], "m", form="scan")):
        report = str(found)
        assert report.startswith(f"{found.original.name}: passes over m: 3 -> 1")
        for step in found.steps:
            assert all(
                line in report for part in (step.before, step.rule, step.condition, step.after) for line in part.splitlines()
            )
        assert found.as_json()["spec"] == found.spec


# --- the page -------------------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "split-forms.md"
HEADER = """# Split forms of the derived cascades

Every cascade of the [page of derivations](derivations.md) that reaches one pass over m, in parts: what each part hands over, and
the rewrites of the merge; or why there is none. A test cuts m into 1, 2 and 7 parts, some of them empty, and compares with the
original. `pytest tests/einsum/rewrite/test_forms.py -k page --update` writes this page, and the same test keeps it true.

| cascade | each part hands over | merge |
|---|---|---|
"""


def page() -> str:
    rows = []
    for case in (case for case in CASES if case.after <= 1):
        if case.name in NO_RUNNING_STATE:
            with pytest.raises(EinsmithError) as raised:
                split(case.name)
            rows.append(f"| {case.name} | | refused: {raised.value.diagnostics[0].help} |")
            continue
        found = split(case.name)
        handed = [tensor for tensor in found.cascade.tensors if "s" in tensor.ranks and tensor.name.endswith("_part")]
        listed = ", ".join(f"`{tensor.name}[{','.join(tensor.ranks)}]`" for tensor in handed)
        rules = ", ".join(dict.fromkeys(step.rewrite for step in found.steps if step.rewrite.startswith("split")))
        rows.append(f"| {case.name} | {listed or 'its state'} | {rules} |")
    return HEADER + "\n".join(rows) + "\n"


def test_the_page_of_split_forms_is_true(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
