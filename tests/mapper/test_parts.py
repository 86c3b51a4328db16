"""Parts of the walked rank: when they are made, how many, what they cost, and that the split form means the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite.derive import derive
from einsmith.mapper import gpu
from einsmith.mapper.parts import merging, with_parts
from einsmith.mapper.stages import module_plans, plan_module

ATTENTION = Path(__file__).parents[2] / "examples" / "attention"
DECODE = {"B": 1, "H": 16, "P": 1, "M": 16384, "E": 64, "F": 64}


def test_one_query_and_a_long_cache_of_keys() -> None:
    """16 blocks leave 116 of 132 multiprocessors idle: the keys are cut, and the parts merged by a second kernel."""
    cascade, h200 = spec.load(ATTENTION / "softmax.yaml"), gpu.load("h200")
    found = plan_module(cascade, h200, DECODE)
    parts, merge = found.kernels
    assert found.parts in (8, 16, 32)
    assert parts.sizes.extents["s"] == found.parts
    assert "s" in parts.program.grid
    assert merge.program.loop is None
    undivided = next(one for one in module_plans(cascade, h200, DECODE) if one.parts == 1)
    assert found.predicted_s < undivided.predicted_s / 2
    # a maximum, a sum and 64 numerators of 4 bytes for each head and part
    assert found.workspace_bytes == 4 * 16 * found.parts * (1 + 1 + 64)
    plan = found.as_json()["plan"]
    assert (plan["split"], plan["workspace_bytes"]) == (found.parts, found.workspace_bytes)
    assert f"split                    {found.parts} parts of the walked rank" in str(found)
    assert "side by side, then merged" in found.note


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({**DECODE, "B": 64}, id="enough blocks"),
        pytest.param({**DECODE, "M": 64}, id="too few steps"),
        pytest.param({**DECODE, "P": 4096, "M": 4096}, id="many queries"),
    ],
)
def test_no_parts_where_they_would_not_help(sizes: dict[str, int]) -> None:
    found = plan_module(spec.load(ATTENTION / "softmax.yaml"), gpu.load("h200"), sizes)
    assert found.parts == 1
    assert len(found.kernels) == 1


def test_a_split_form_in_any_number_of_parts_is_the_same_function() -> None:
    cascade = spec.load(ATTENTION / "softmax-causal.yaml")
    form = derive(cascade, "m", form="split", check=False).cascade
    sizes = {"B": 1, "H": 2, "P": 5, "M": 13, "E": 3, "F": 4}
    inputs = random_inputs(cascade, sizes, None, np.random.default_rng(0))
    expected = evaluate(cascade, inputs, sizes)["AV"]
    for count in (1, 2, 8):
        divided = with_parts(form, cascade, count)
        np.testing.assert_allclose(evaluate(divided, inputs, sizes)["AV"], expected, rtol=1e-9, atol=1e-12)
    late = merging(form, cascade)
    assert {"GM", "SD", "AV_num", "AV"} <= late
    assert not late & {"QK", "GM_run", "GM_part", "AV_num_part"}
