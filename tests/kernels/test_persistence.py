"""Program instances that walk tiles: chosen by the plan, run in Triton's interpreter, compiled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.kernels.aot import compile_module
from einsmith.kernels.check import check_all
from einsmith.kernels.emit import emit_module
from einsmith.kernels.shapes import Case, shape_grid
from einsmith.mapper import gpu
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.stages import plan_module

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
NORM = spec.loads(
    """
name: gated-norm
doc: Rows over their root mean square, times weights and a gate; no rank is walked.
ranks: {b: B, p: P, e: E}
inputs: {X: [b, p, e], G: [b, p, e], W: [e]}
sizes: {B: 2, P: 40, E: 48}
cascade: |
  MS[b,p] = mean[e](X[b,p,e] * X[b,p,e])
  Y[b,p,e] = X[b,p,e] * rsqrt(MS[b,p] + 0.00001) * W[e] * sigmoid(G[b,p,e])
outputs: [Y]
""",
    "gated-norm",
)
ROWS = {"B": 64, "P": 4096, "E": 1024}
LONG = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 64, "F": 64}


def on_few(plan: ModulePlan, programs: int) -> str:
    """The module with so many program instances that each walks several tiles of small shapes too."""
    text = emit_module(plan)
    found, count = re.subn(r"grid = \(min\((.*), \d+\),\)", rf"grid = (min(\1, {programs}),)", text)
    assert count == len(plan.kernels)
    return found


def test_the_plan_walks_tiles_where_nothing_else_hides_the_latency() -> None:
    plan = plan_module(NORM, gpu.load("h200"), ROWS)
    best = plan.best
    assert best.walk is not None
    assert best.walk.programs == 132 * best.blocks_per_multiprocessor
    assert best.walk.prefetched == best.stages > 1
    assert any(note.startswith(f"persistent: {best.walk.programs} program instances walk ") for note in plan.kernels[0].notes)
    alone = plan_module(NORM, gpu.load("h200"), ROWS, persistent="off").best
    assert alone.walk is None
    assert best.predicted_s < 0.9 * alone.predicted_s
    assert plan.as_json()["plan"]["persistent"] == {"programs": best.walk.programs, "stages": best.stages}


def test_not_where_a_loop_fetches_ahead_or_there_are_few_tiles() -> None:
    causal = spec.load(ATTENTION / "softmax-causal.yaml")
    assert plan_module(causal, gpu.load("h200"), LONG).best.walk is None
    assert plan_module(NORM, gpu.load("h200"), {"B": 1, "P": 40, "E": 64}).best.walk is None
    assert plan_module(NORM, gpu.load("h200"), {"B": 1, "P": 40, "E": 64}, persistent="on").best.walk is None


def test_walking_kernels_give_the_same_and_one_that_skips_tiles_does_not() -> None:
    causal, window = (spec.load(ATTENTION / f"{name}.yaml") for name in ("softmax-causal", "sliding-window"))
    norm = on_few(plan_module(NORM, gpu.load("h200"), ROWS), 2)
    kernels = [
        (cascade, on_few(plan_module(cascade, gpu.load("h200"), {**LONG, **more}, persistent="on"), 3))
        for cascade, more in ((causal, {}), (window, {"W": 256}))
    ]
    assert all("for tile in tl.range(tl.program_id(0), tile_count, tl.num_programs(0)" in text for _, text in kernels)
    cases = [Case("tiles", {"B": 2, "P": 70, "E": 24})]
    tasks = [(norm, NORM, cases)]
    tasks += [(text, cascade, [c for c in shape_grid(cascade) if c.name in ("primes", "tails")]) for cascade, text in kernels]
    tasks.append((norm.replace("tl.num_programs(0), num", "tl.num_programs(0) + 1, num"), NORM, cases))
    *found, wrong = check_all(tasks)
    assert [one.failed for one in found] == [0, 0, 0], [str(one) for one in found]
    assert wrong.failed


@pytest.mark.parametrize("name", ["a100", "h200"])
def test_compilers_take_what_was_predicted(name: str) -> None:
    plan = plan_module(NORM, gpu.load(name), ROWS)
    assert plan.best.walk is not None
    made = compile_module(emit_module(plan), plan, plan.textbook)[plan.gpu.target]
    assert made.error is None
    assert made.staged_bytes == pytest.approx(plan.best.staged_bytes, rel=0.02)
    assert made.shared_bytes <= 1.05 * plan.best.shared_bytes
    assert made.spill_bytes == 0
