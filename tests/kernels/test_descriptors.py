"""Tiles by tensor descriptors: chosen by the plan, run in Triton's interpreter, compiled for sm_90 and sm_100."""

from __future__ import annotations

from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.kernels.aot import compile_module
from einsmith.kernels.check import check_all
from einsmith.kernels.emit import emit_module
from einsmith.kernels.shapes import Case, shape_grid
from einsmith.mapper import gpu
from einsmith.mapper.descriptors import Choice
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.stages import plan_module

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
SIZES = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}


def planned(name: str, choice: Choice = "on", target: str = "h200", **sizes: int) -> ModulePlan:
    cascade = spec.load(ATTENTION / f"{name}.yaml")
    known = {n: v for n, v in {**SIZES, **sizes}.items() if n in cascade.symbols}
    return plan_module(cascade, gpu.load(target), known, descriptors=choice)


def test_kernels_by_descriptors_give_the_same_and_a_wrong_corner_does_not() -> None:
    """Tails, rows that do not start at multiples of 16 bytes, transposed inputs, no keys, grouped heads."""
    names = ("softmax-causal", "gqa", "sliding-window")
    sources = {name: emit_module(planned(name, KV=4, G=8, W=512)) for name in names}
    assert all("K_tiles.load([" in text for text in sources.values())
    assert all("tl.load(K" not in text for text in sources.values())
    tasks: list[tuple[str, spec.Cascade, list[Case]]] = []
    for name, text in sources.items():
        cascade = spec.load(ATTENTION / f"{name}.yaml")
        cases = [c for c in shape_grid(cascade) if c.name in ("ones", "primes", "tails", "no keys")]
        assert any(c.strided for c in cases)
        tasks.append((text, cascade, cases))
    corner = "V_tiles.load([tl.cast(b, tl.int32), tl.cast(h, tl.int32), tl.cast(m_first"
    wrong = sources["softmax-causal"].replace(corner, f"{corner} + 1")
    assert wrong != sources["softmax-causal"]
    tasks.append((wrong, tasks[0][1], tasks[0][2][:2]))
    *found, bad = check_all(tasks)
    assert [one.failed for one in found] == [0, 0, 0], [str(one) for one in found]
    assert bad.failed


@pytest.mark.parametrize("target", ["h200", "b200"])
def test_compilers_take_what_was_predicted(target: str) -> None:
    plan = planned("softmax-causal", target=target)
    best = plan.best
    assert best.described == ("K", "Q", "V")
    made = compile_module(emit_module(plan), plan, plan.textbook)[plan.gpu.target]
    assert made.error is None
    assert made.launches
    assert best.staged_bytes == pytest.approx(made.staged_bytes, rel=0.02)
    assert made.shared_bytes <= best.shared_bytes * 1.05


def test_addresses_leave_the_registers() -> None:
    """Of the same tile, sm_90 has fewer registers by descriptors than by pointers, as predicted."""
    found = {}
    for choice in ("on", "off"):
        plan = planned("softmax-causal", choice)  # type: ignore[arg-type]
        found[choice] = (plan.best, compile_module(emit_module(plan), plan, plan.textbook)["sm_90"])
    (by, made_by), (pointers, made_pointers) = found["on"], found["off"]
    assert dict(by.blocks) == dict(pointers.blocks)
    assert by.registers < pointers.registers
    assert (made_by.registers or 0) < (made_pointers.registers or 0)


def test_a_reason_for_every_pointer() -> None:
    assert "pointers for `K`: a100 has no unit that copies tiles" in planned("softmax-causal", target="a100").kernels[0].notes
    odd = planned("softmax-causal", E=100).kernels[0].notes
    assert "pointers for `K`: its rows have 200 bytes, no multiple of 16" in odd
    assert any(note.startswith("tensor descriptors for `V`") for note in odd)
    pages = planned("mla", "on").kernels
    assert all(kernel.best.described == () or kernel.notes for kernel in pages)
    few = planned("softmax", P=16, M=4096)
    assert all(not kernel.best.described for kernel in few.kernels), "single warps do these products"


def test_left_to_the_plan_they_are_taken_where_registers_are_needed() -> None:
    """Where pointers fit as well, there are pointers; some tile fits only without addresses."""
    assert planned("softmax-causal", "auto").best.described == ()
    cascade = spec.load(ATTENTION / "softmax-causal.yaml")
    every = {choice: plan_module(cascade, gpu.load("h200"), SIZES, keep=1000, descriptors=choice).kernels[0].candidates
             for choice in ("auto", "off")}  # fmt: skip
    taken = [one for one in every["auto"] if one.described]
    assert taken
    calm = {(tuple(one.blocks.items()), one.warps, one.stages): one for one in every["off"] if not one.tight}
    for one in taken:
        pointers = calm.get((tuple(one.blocks.items()), one.warps, one.stages))
        assert pointers is None or one.predicted_s < 0.9 * pointers.predicted_s


def test_json_says_which() -> None:
    plan = planned("softmax-causal")
    assert plan.as_json()["plan"]["descriptors"] == ["K", "Q", "V"]
    assert planned("softmax-causal", "off").as_json()["plan"]["descriptors"] == []
