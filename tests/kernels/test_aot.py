"""Ahead-of-time compilation for sm_90: what was predicted against what the compiler made."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.kernels import aot
from einsmith.kernels.emit import emit, emit_module
from einsmith.kernels.settle import settle
from einsmith.kernels.store import stored
from einsmith.mapper import gpu
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.one_pass import one_pass
from einsmith.mapper.plan import plan
from einsmith.mapper.stages import module_plans, plan_module

from ..work import counted

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden") / "softmax-causal.kernel"
SIZES = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
TEXTBOOK = spec.load(ROOT / "examples" / "attention" / "softmax-causal.yaml")
FORM = one_pass(TEXTBOOK, SIZES)
PLANNED = plan(FORM.cascade, gpu.load("h200"), SIZES)


def test_the_textbook_was_derived() -> None:
    assert FORM.note == "derived: 1 instead of 3 passes over `m`"


def test_sm_90_uses_the_matrix_units_and_the_predicted_shared_memory() -> None:
    settled = settle([ModulePlan(TEXTBOOK, (PLANNED,))])
    found = settled.compiled["sm_90"]
    assert found.error is None
    assert found.shared_bytes == settled.plan.best.shared_bytes
    assert found.mma["wgmma"] >= 8
    assert found.spill_bytes == 0
    assert found.launches
    assert found.as_json()["mma"] == dict(found.mma)


def test_the_one_that_spills_least_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    spills = iter((24, 8, 16))

    def spilling(*_: object, **__: object) -> dict[str, aot.Compiled]:
        return {"sm_90": aot.Compiled("sm_90", registers=255, spill_bytes=next(spills))}

    monkeypatch.setattr("einsmith.kernels.settle.compile_module", spilling)
    settled = settle([ModulePlan(TEXTBOOK, (PLANNED,))], tries=3)
    assert settled.compiled["sm_90"].spill_bytes == 8
    first = PLANNED.candidates[0]
    assert settled.plan.best is next(one for one in PLANNED.candidates if one.registers < first.registers)
    assert [text.split("registers, ")[1].split(" ")[0] for text in settled.passed_over] == ["24", "16"]


def test_what_a_cosine_keeps_of_pi_is_no_spill() -> None:
    """Its local memory is asked for by the code; that of registers is what the compiler adds."""
    cascade = spec.loads("ranks: {p: P, f: F}\ninputs: {X: [p, f]}\ncascade: |\n  Y[p,f] = cos(X[p,f])\noutputs: [Y]\n")
    planned = plan(one_pass(cascade, {"P": 512, "F": 64}).cascade, gpu.load("h200"), {"P": 512, "F": 64})
    found = settle([ModulePlan(cascade, (planned,))]).compiled["sm_90"]
    assert found.error is None
    assert found.spill_bytes == 0


def test_other_targets_and_another_candidate() -> None:
    """A small tile of short features, for three targets; its shared memory is predicted exactly on sm_90."""
    sizes = {**SIZES, "E": 64, "F": 64}
    candidates = plan(FORM.cascade, gpu.load("h200"), sizes, keep=1000).candidates
    small = next(c for c in candidates if c.blocks["p"] == 64 and c.blocks["m0"] == 32 and c.warps == 4)
    chosen = replace(plan(FORM.cascade, gpu.load("h200"), sizes), candidates=(small,))
    targets = ["sm_80", "sm_90", "gfx942"]
    found = aot.compile_module(emit(FORM.cascade, chosen, textbook=TEXTBOOK), chosen, TEXTBOOK, targets)
    assert {name: one.error for name, one in found.items()} == dict.fromkeys(targets)
    assert found["sm_90"].shared_bytes == small.shared_bytes
    assert found["sm_80"].mma["mma.sync"]
    assert found["gfx942"].mma["mfma"]
    assert found["gfx942"].registers


def test_what_cannot_launch_is_said() -> None:
    too_much = aot.Compiled("sm_90", shared_bytes=300_000)
    assert not too_much.launches
    assert "cannot launch" in str(too_much)
    assert not aot.Compiled("sm_80", error="boom").launches


def test_a_module_that_does_not_compile_is_an_error_of_that_target() -> None:
    source = emit(FORM.cascade, PLANNED, textbook=TEXTBOOK).replace("tl.dot(", "tl.no_such_thing(")
    found = aot.compile_module(source, PLANNED, TEXTBOOK)
    assert "no_such_thing" in (found["sm_90"].error or "")


def kernel_of(source: str) -> str:
    """The text of the kernel itself: plan and predictions change more often."""
    tree = ast.parse(source)
    (node,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.endswith("_kernel")]
    return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno]) + "\n"


def test_the_kernel_reads_as_the_golden(request: pytest.FixtureRequest) -> None:
    """`test_kernels` runs this very kernel."""
    text = kernel_of(emit(FORM.cascade, PLANNED, textbook=TEXTBOOK))
    if request.config.getoption("--update"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert [path.name for path in GOLDEN.parent.iterdir()] == [GOLDEN.name]


def test_a_module_stands_alone() -> None:
    tree = ast.parse(emit(FORM.cascade, PLANNED, textbook=TEXTBOOK))
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert imported == {"math", "os", "torch", "triton"}


def test_emission_is_quick_and_the_same_every_time() -> None:
    first, events = counted(lambda: emit(FORM.cascade, PLANNED, textbook=TEXTBOOK))
    assert events < 500_000
    assert first == emit(FORM.cascade, PLANNED, textbook=TEXTBOOK)
    assert stored(first) == stored(first)
    assert stored(first).read_text(encoding="utf-8") == first


def test_a_plan_may_have_other_ranks_than_its_cascade() -> None:
    """A causal sum as a running state walks one rank in the place of queries and keys."""
    cascade = spec.load(ROOT / "examples" / "attention" / "retention-parallel.yaml")
    planned = plan_module(cascade, gpu.load("h200"), {"B": 1, "H": 8, "M": 4096, "E": 64, "F": 64})
    assert "p" not in planned.kernels[0].sizes.extents
    found = aot.compile_module(emit_module(planned), planned, cascade)["sm_90"]
    assert found.spill_bytes == 0


def test_a_step_that_is_cut_is_compiled_only_where_there_is_one() -> None:
    """Its code would take registers of the whole steps before it."""
    cascade = spec.load(ROOT / "examples" / "attention" / "retention.yaml")
    found = {}
    for length in (4096, 4095):
        planned = plan_module(cascade, gpu.load("h200"), {"B": 1, "H": 8, "M": length, "E": 64, "F": 64})
        found[length] = aot.compile_module(emit_module(planned), planned, cascade)["sm_90"]
    assert found[4095].mma["wgmma"] == 2 * found[4096].mma["wgmma"] > 0


def test_a_state_of_256_by_256_is_walked_without_spills() -> None:
    """Matrices of pairs, and the inverse of a triangular one, are made by a kernel before."""
    cascade = spec.load(ROOT / "examples" / "attention" / "delta.yaml")
    plans = module_plans(cascade, gpu.load("h200"), {"B": 1, "H": 16, "M": 4096, "E": 256, "F": 256})
    planned = next(one for one in plans if "in chunks of 32" in one.note)
    found = aot.compile_module(emit_module(planned), planned, cascade)["sm_90"]
    assert [kernel.spill_bytes for kernel in found.kernels] == [0, 0]
    assert all(kernel.mma["mma.sync"] for kernel in found.kernels)
