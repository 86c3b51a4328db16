"""Generated kernels, run in Triton's interpreter, against the float64 interpreter. All run in one process, for the sake of time."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.kernels.check import Checked, check_all
from einsmith.kernels.emit import emit, emit_module
from einsmith.kernels.run import run_triton
from einsmith.kernels.shapes import Case
from einsmith.mapper import gpu
from einsmith.mapper.one_pass import one_pass
from einsmith.mapper.plan import plan
from einsmith.mapper.stages import plan_module


def _cascades() -> ModuleType:
    found = importlib.util.spec_from_file_location("kernel_test_cascades", Path(__file__).with_name("cascades.py"))
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden") / "softmax-causal.kernel"
cascades = _cascades()
SMALL = {"B": 1, "H": 1, "P": 20, "M": 20, "E": 16, "F": 16}
LONG = {"B": 2, "H": 2, "P": 300, "M": 300, "E": 32, "F": 32}
RAGGED = {"B": 5, "P": 40, "M": 37, "E": 8, "F": 6}

# name: (cascade, sizes of the plan, derived first?, loops that its kernels then have, cases; None: the whole grid of shapes)
KERNELS: dict[str, tuple[str, dict[str, int], bool, int | list[int], list[Case] | None]] = {
    "softmax, derived": (cascades.FLASH, LONG, True, 1, None),
    "softmax, a loop for each pass": (
        cascades.FLASH, LONG, False, 2, [Case("tails", {"B": 1, "H": 1, "P": 40, "M": 50, "E": 16, "F": 24})]
    ),
    "a variant that nobody has": (
        cascades.STRANGE, {"KV": 2, "G": 8, "P": 300, "M": 300, "E": 32, "F": 32}, True, 1,
        [Case("odd", {"KV": 1, "G": 3, "P": 45, "M": 37, "E": 12, "F": 20}, strided=True)],
    ),
    "a dilated square around each token of an image": (
        cascades.DILATED, {}, True, 1, [Case("odd", {"B": 1, "KV": 2, "G": 3, "NY": 15, "NX": 13, "E": 15, "F": 9})]
    ),
    "no exponential, two outputs": (
        cascades.NOWHERE, {"P": 300, "M": 300, "E": 32, "F": 32}, True, 1,
        [Case("odd", {"P": 75, "M": 61, "E": 9, "F": 5}), Case("ones", dict.fromkeys("PMEF", 1))],
    ),
    "gathers": (
        cascades.GATHER, {"H": 2, "P": 64, "J": 16, "M": 100, "E": 16, "F": 16}, True, 0,
        [Case("odd", {"H": 2, "P": 7, "J": 5, "M": 11, "E": 6, "F": 10})],
    ),
    "norm, row held whole": (cascades.NORM, {"T": 64, "D": 100}, True, 0, [Case("odd", {"T": 9, "D": 77})]),
    "norm, two loops": (cascades.NORM, {"T": 64, "D": 100_000}, False, 2, [Case("odd", {"T": 9, "D": 333})]),
    "output at every step": (
        cascades.STATE, {"H": 2, "T": 100, "E": 16, "F": 16}, True, 1, [Case("odd", {"H": 1, "T": 13, "E": 7, "F": 5})]
    ),
    "output along the loop": (cascades.CHANNELS, {"T": 1000, "C": 16}, True, 2, [Case("odd", {"T": 77, "C": 11})]),
    "product": (cascades.PRODUCT, {"I": 200, "J": 200, "K": 200}, True, 1, [Case("odd", {"I": 33, "J": 45, "K": 70})]),
    "product, launched in groups": (
        cascades.PRODUCT, {"I": 16384, "J": 16384, "K": 16384}, True, 1,
        [Case("part of a group", {"I": 300, "J": 1200, "K": 40}), Case("odd", {"I": 1, "J": 45, "K": 3})],
    ),
    "a row before, scans, selections": (
        cascades.SHIFTED, {"P": 64, "M": 64, "E": 16, "F": 16}, True, [1, 0],
        [Case("odd", {"P": 13, "M": 37, "E": 7, "F": 5}), Case("few", {"P": 1, "M": 3, "E": 1, "F": 1})],
    ),
    "a sum less a scan": (
        cascades.STICK, {"H": 2, "N": 300, "E": 16, "F": 16}, True, 1,
        [Case("tails", {"H": 2, "N": 130, "E": 24, "F": 20}), Case("whole tiles", {"H": 2, "N": 128, "E": 32, "F": 32})],
    ),
    "places that are computed": (
        cascades.BETWEEN, {"P": 64, "M": 64, "K": 16, "E": 16, "F": 16}, True, [0, 1],
        [Case("odd", {"P": 13, "M": 29, "K": 5, "E": 7, "F": 9})],
    ),
    "two walks": (
        cascades.TWO_WALKS, {"P": 64, "M": 300, "E": 16, "F": 16}, True, [2],
        [Case("odd", {"P": 13, "M": 67, "E": 7, "F": 5}), Case("none", {"P": 3, "M": 0, "E": 4, "F": 4})],
    ),
    "scans along the loop": (
        cascades.PREFIX, {"H": 2, "T": 100_000, "F": 16}, True, [1, 1], [Case("odd", {"H": 2, "T": 77, "F": 5})]
    ),
    "few queries: keys in parts, then a merge": (
        cascades.FLASH, {"B": 1, "H": 2, "P": 1, "M": 4096, "E": 32, "F": 32}, True, [1, 0],
        [
            Case("odd", {"B": 1, "H": 2, "P": 5, "M": 67, "E": 7, "F": 5}),
            Case("fewer keys than parts", {"B": 1, "H": 1, "P": 9, "M": 3, "E": 4, "F": 4}),
            Case("no keys", {"B": 1, "H": 1, "P": 2, "M": 0, "E": 4, "F": 4}),
            Case("large", {"B": 1, "H": 1, "P": 5, "M": 70, "E": 16, "F": 16}, scale=12.0, draws=4),
        ],
    ),
    "tiles of which the last is cut": (
        cascades.CUT_TILES, {"P": 64, "M": 100, "M0": 16, "E": 16}, True, [1, 0],
        [Case("odd", {"P": 13, "M": 37, "M0": 16, "E": 3}), Case("one tile", {"P": 2, "M": 5, "M0": 16, "E": 4})],
    ),
    "a state read against its direction": (
        cascades.BOTH_WAYS, {"M": 64, "E": 16}, True, [1, 1], [Case("odd", {"M": 13, "E": 3}), Case("one", {"M": 1, "E": 1})]
    ),
    "scatters": (
        cascades.SCATTERED, {"P": 64, "J": 32, "F": 16}, True, [1],
        [Case("odd", {"P": 13, "J": 37, "F": 5}), Case("few", {"P": 5, "J": 1, "F": 1})],
    ),
    "a window along a line, dilated": (
        cascades.WINDOW, {"P": 300, "W": 9, "E": 16, "F": 16}, True, [1],
        [Case("odd", {"P": 101, "W": 7, "E": 9, "F": 5}), Case("longer than the line", {"P": 5, "W": 4, "E": 3, "F": 2})],
    ),
    "a window of an image": (
        cascades.IMAGE, {"NY": 32, "NX": 32, "U": 3, "V": 5, "E": 16, "F": 16}, True, [1],
        [
            Case("odd", {"NY": 9, "NX": 13, "U": 3, "V": 5, "E": 9, "F": 5}),
            Case("wide", {"NY": 3, "NX": 70, "U": 2, "V": 3, "E": 4, "F": 4}),
        ],
    ),
    "blocks, counted from within one": (
        cascades.BLOCKS, {"R": 8, "W": 32, "A": 4, "E": 16, "F": 16}, True, [0],
        [Case("odd", {"R": 5, "W": 7, "A": 2, "E": 9, "F": 5}), Case("one block", {"R": 1, "W": 20, "A": 1, "E": 4, "F": 4})],
    ),
    "blocks of an image, the last ones cut": (
        cascades.CUT_BLOCKS, {"H": 2, "NY": 32, "NX": 32, "W": 8, "A": 2, "E": 16, "F": 16}, True, [1],
        [Case("odd", {"H": 2, "NY": 13, "NX": 9, "W": 5, "A": 1, "E": 9, "F": 5})],
    ),
    "packed": (
        cascades.PACKED, {"C": 4, "L": 300, "N": 800, "E": 16, "F": 16}, True, 1,
        [Case("odd", {"C": 3, "L": 37, "N": 70, "E": 9, "F": 6})],
    ),
    "ragged": (cascades.LENGTHS, {"B": 4, "P": 300, "M": 300, "E": 16, "F": 16}, True, 1, [Case("odd", RAGGED)]),
}  # fmt: skip
BROKEN = {
    "another base": ("tl.exp2(", "tl.exp("),
    "another mask": ("tl.where(m[None, :] <= p[:, None]", "tl.where(m[None, :] < p[:, None]"),
    "a row not written": (
        "mask=p_in[:, None] if F == BLOCK_F else p_in[:, None] & f_in[None, :])",
        "mask=(p < P - 1)[:, None] & f_in[None, :])",
    ),
    "a crash": ("tl.dot(", "tl.no_such_thing("),
}


@functools.cache
def module(name: str) -> tuple[Cascade, str, int | list[int]]:
    """The textbook cascade, the module generated for it, and how many loops its kernel has (or each of its kernels)."""
    text, sizes, derived, loops, _ = KERNELS[name]
    textbook = spec.loads(text)
    if isinstance(loops, list):
        planned = plan_module(textbook, gpu.load("h200"), sizes, dtype="float32")
        return textbook, emit_module(planned), [len(kernel.program.loops) for kernel in planned.kernels]
    form = one_pass(textbook, sizes).cascade if derived else textbook
    single = plan(form, gpu.load("h200"), sizes, dtype="float32")
    return textbook, emit(form, single, textbook=textbook), len(single.program.loops)


def golden_module() -> tuple[Cascade, str]:
    """The module whose kernel is the golden."""
    cascade = spec.load(ROOT / "examples" / "attention" / "softmax-causal.yaml")
    sizes = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
    form = one_pass(cascade, sizes).cascade
    return cascade, emit(form, plan(form, gpu.load("h200"), sizes), textbook=cascade)


@functools.cache
def results() -> dict[str, Checked]:
    """Every kernel on its cases, and the broken ones on one case, all in one process."""
    tasks: list[tuple[str | Path, Cascade | None, list[Case] | None]] = []
    for name, (_, _, _, _, cases) in KERNELS.items():
        textbook, source, _ = module(name)
        tasks.append((source, textbook, cases))
    textbook, source, _ = module("softmax, derived")
    for old, new in BROKEN.values():
        assert old in source
        tasks.append((source.replace(old, new), textbook, [Case("some", SMALL)]))
    golden, source = golden_module()
    tasks.append((source, golden, [Case("tails", {"B": 1, "H": 1, "P": 150, "M": 140, "E": 24, "F": 40})]))
    return dict(zip([*KERNELS, *BROKEN, "golden"], check_all(tasks), strict=True))


@pytest.mark.parametrize("name", [*KERNELS, "golden"])
def test_the_kernel_agrees_with_the_interpreter(name: str) -> None:
    found = results()[name]
    assert found.rows
    assert not found.failed, str(found)


@pytest.mark.parametrize("name", KERNELS)
def test_as_many_loops_as_passes(name: str) -> None:
    assert module(name)[2] == KERNELS[name][3]


def test_a_product_under_a_condition_of_both_sides_is_one_of_matrices() -> None:
    """Its values are chosen on one side; what of the condition is along the sum alone chooses the other, too."""
    assert module("packed")[1].count("tl.dot(") == 4, "scores and values, in whole steps and in those that are cut"
    text = cascades.PACKED.replace("ST[c] + p < ST[c+1], W", "m < 90 and ST[c] + p < ST[c+1], W")
    source = emit_module(plan_module(spec.loads(text), gpu.load("h200"), {"C": 4, "L": 300, "N": 800, "E": 16, "F": 16}))
    loads = [line for line in source.splitlines() if line.strip().startswith("V_tile = ")]
    assert loads
    assert all("(m < 90)" in line for line in loads)


def test_a_module_has_the_helpers_that_it_calls() -> None:
    for name in KERNELS:
        source = module(name)[1]
        helpers = re.findall(r"^def (_\w+)\(", source, re.MULTILINE)
        assert [one for one in helpers if len(re.findall(rf"\b{one}\b", source)) == 1] == [], name
    assert "def _best(" in module("a row before, scans, selections")[1]
    assert "def _best(" not in module("product")[1]


def test_what_runs_as_the_golden_is_the_golden() -> None:
    assert GOLDEN.read_text(encoding="utf-8") in golden_module()[1]


def test_a_large_product_is_launched_in_groups() -> None:
    """So that the kernel that runs is one with groups."""
    assert "group_first" in module("product, launched in groups")[1]
    assert "group_first" not in module("product")[1]


def test_the_shapes_are_awkward() -> None:
    names = {row.case for row in results()["softmax, derived"].rows}
    assert names >= {"ones", "primes", "tails", "whole tiles", "no keys", "large logits", "eight to one"}


def test_some_ragged_rows_see_nothing() -> None:
    inputs = interpret.random_inputs(spec.loads(cascades.LENGTHS), RAGGED, None, np.random.default_rng([0, 0, 0]))
    assert (np.maximum(inputs["OFF"], 0) >= np.minimum(inputs["LEN"], RAGGED["M"])[:, None]).any()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_fails_the_check(name: str) -> None:
    found = results()[name]
    assert found.failed == 1
    assert found.exit_code == 1
    assert "FAIL" in str(found)


def test_what_was_not_written_is_infinitely_wrong_and_a_crash_is_told() -> None:
    assert results()["a row not written"].rows[0].error == float("inf")
    assert "no_such_thing" in (results()["a crash"].rows[0].fault or "")


def test_run_takes_parameters() -> None:
    cascade = spec.loads(cascades.NOWHERE)
    inputs = interpret.random_inputs(cascade, {"P": 20, "M": 30, "E": 8, "F": 8}, None, np.random.default_rng(1))
    found, want = run_triton(cascade, inputs, None, {"W": 2}), interpret.evaluate(cascade, inputs, None, {"W": 2})
    other = interpret.evaluate(cascade, inputs, None, {"W": 50})
    for name in cascade.outputs:
        scale = np.abs(want[name]).max()
        assert np.allclose(found[name], want[name], rtol=1e-5, atol=1e-5 * scale)
        assert not np.allclose(found[name], other[name], rtol=1e-2)


def test_a_parameter_that_counts_nothing_may_be_fractional() -> None:
    """A cap that is written as 5; a window that is written as 9 stays whole."""
    cascade = spec.loads(cascades.STRANGE)
    sizes = {"KV": 1, "G": 2, "P": 20, "M": 20, "E": 8, "F": 8}
    inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(1))
    found, want = (evaluated(cascade, inputs, None, {"cap": 0.5}) for evaluated in (run_triton, interpret.evaluate))
    assert np.allclose(found["Y"], want["Y"], rtol=1e-5, atol=1e-5)
    with pytest.raises(EinsmithError) as raised:
        run_triton(cascade, inputs, None, {"W": 2.5})
    assert "W is 2.5, expected a whole number" in raised.value.diagnostics[0].message


def test_what_is_not_lowered_is_refused_with_its_einsum() -> None:
    text = """
name: t
ranks: {p: P, m: M}
inputs: {X: [p], I: {ranks: [p], dtype: int}}
tensors: {C: [m]}
cascade: |
  C[I[p]] = sum[p](X[p])
outputs: [C]
"""
    with pytest.raises(EinsmithError) as raised:
        plan(spec.loads(text), gpu.load("h200"), {"P": 8, "M": 8})
    assert raised.value.diagnostics[0].code == "E603"
    assert "`C`" in raised.value.diagnostics[0].message
    assert raised.value.diagnostics[0].span is not None


def test_a_reference_that_is_another_function_is_found() -> None:
    """Else its error, however great, would be allowed to the kernel."""
    _, sizes, _, _, _ = KERNELS["tiles of which the last is cut"]
    textbook, source, _ = module("tiles of which the last is cut")
    wrong = source.replace("torch.sum(_spread(_t(", "0.5 * torch.sum(_spread(_t(")
    assert wrong != source
    (row,) = [r for r in check_all([(wrong, textbook, [Case("odd", {**sizes, "P": 3, "M": 37})])])[0].rows if r.output == "C"]
    assert row.fault is not None
    assert "`reference` of the module" in row.fault
