"""Inputs of 8 bits: planned, generated, run in Triton's interpreter, compiled for sm_90."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.kernels.aot import compile_module
from einsmith.kernels.check import check_all, rounded
from einsmith.kernels.emit import emit_module
from einsmith.kernels.shapes import Case
from einsmith.mapper import gpu
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.products import products
from einsmith.mapper.stages import plan_module

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
SIZES = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
CASES = [
    Case("tails", {"B": 1, "H": 2, "P": 50, "M": 71, "E": 24, "F": 40}),
    Case("large logits", {"B": 1, "H": 1, "P": 33, "M": 70, "E": 32, "F": 16}, 12.0),
]
SCALED = """
name: scaled-product
doc: A product of two tensors, each with a scale of its own, as quantisation leaves them.
ranks: {p: P, e: E, f: F}
inputs: {X: [p, e], W: [e, f]}
params: {x_scale: 0.5, w_scale: 0.25}
sizes: {P: 40, E: 50, F: 24}
cascade: |
  Y[p,f] = X[p,e] * W[e,f] * x_scale * w_scale
outputs: [Y]
"""


def planned(name: str, dtype: str = "float8_e4m3fn", target: str = "h200") -> ModulePlan:
    return plan_module(spec.load(ATTENTION / f"{name}.yaml"), gpu.load(target), SIZES, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_rounding_is_that_of_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(4000) * np.exp(np.random.default_rng(1).uniform(-12, 5, 4000))
    want = torch.from_numpy(values).float().to(getattr(torch, dtype)).double().numpy()
    assert np.array_equal(rounded(values.astype(np.float32).astype(np.float64), dtype), want)


def test_kernels_of_both_types_and_a_wrong_one() -> None:
    causal = spec.load(ATTENTION / "softmax-causal.yaml")
    scaled = spec.loads(SCALED, "scaled")
    sources = [emit_module(planned("softmax-causal", dtype)) for dtype in ("float8_e4m3fn", "float8_e5m2")]
    product = emit_module(plan_module(scaled, gpu.load("h200"), dtype="float8_e4m3fn"))
    wrong = sources[0].replace("scale_log2e=", "scale_log2e=3.0 * ", 1)
    assert wrong != sources[0]
    found = check_all(
        [(sources[0], causal, CASES), (sources[1], causal, CASES), (product, scaled, None), (wrong, causal, CASES[:1])]
    )
    assert [one.failed for one in found[:3]] == [0, 0, 0], [str(one) for one in found]
    assert {row.dtype for row in found[0].rows} == {"float8_e4m3fn"}, "the type that the module was planned for"
    assert {row.dtype for row in found[1].rows} == {"float8_e5m2"}
    assert found[3].failed, "a kernel with another scale was let through"


def test_what_is_computed_is_not_rounded_to_8_bits() -> None:
    plan = planned("softmax-causal").kernels[0]
    scores, values = products(plan.program, plan.precision)
    assert scores.narrow
    assert not values.narrow
    assert any("bfloat16 operands for the product of `AV_num_tile`" in note for note in plan.notes)
    assert {one.tensor for one in plan.operands} == {"Q", "K"}
    text = emit_module(ModulePlan(plan.cascade, (plan,)))
    assert "tl.dot(Q_tile, tl.trans(K_tile)" in text, "scores are a product of 8 bits"
    assert "V_tile.to(DTYPE)" in text


def test_a_contraction_of_8_bits_has_32_steps() -> None:
    found = plan_module(spec.loads(SCALED, "scaled"), gpu.load("h200"), {"P": 64, "E": 16, "F": 64}, dtype="float8_e4m3fn")
    assert found.kernels[0].best.blocks["e0"] == 32


def test_half_the_bytes_and_less_time() -> None:
    eight, sixteen = planned("softmax").kernels[0].best, planned("softmax", "float16").kernels[0].best
    assert eight.predicted_s < sixteen.predicted_s
    assert planned("softmax").kernels[0].best.parts["memory"] < sixteen.parts["memory"]


@pytest.mark.parametrize("target", ["a100", "mi300x"])
def test_gpus_without_such_units_are_refused(target: str) -> None:
    with pytest.raises(EinsmithError) as caught:
        planned("softmax", target=target)
    (problem,) = caught.value.diagnostics
    assert problem.code == "E606"
    assert target in problem.message
    assert "bfloat16" in (problem.help or "")


def test_sm_90_takes_what_was_predicted() -> None:
    plan = planned("softmax-causal")
    found = compile_module(emit_module(plan), plan, plan.textbook)["sm_90"]
    assert found.error is None
    assert found.shared_bytes == plan.best.shared_bytes
    assert found.staged_bytes == plan.best.staged_bytes
    assert found.mma["wgmma"] >= 8
    assert found.spill_bytes == 0


def test_a_module_of_8_bits_takes_no_other() -> None:
    text = emit_module(planned("softmax"))
    assert "this kernel is for inputs of 8 bits" in text
    assert "this kernel is for inputs of 8 bits" not in emit_module(planned("softmax", "float16"))
