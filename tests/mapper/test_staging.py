"""Shared memory of operands: what triton 3.7.1 allocated in the TTGIR of small kernels, rule by rule.

Each number is the sum of the `ttg.local_alloc` that are alive at one time, as `kernels.aot_worker.staged_bytes` counts them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.einsum.sizes import bind
from einsmith.mapper import gpu
from einsmith.mapper.one_pass import one_pass
from einsmith.mapper.plan import Plan
from einsmith.mapper.precision import Precision
from einsmith.mapper.products import PLAIN, products
from einsmith.mapper.program import Program, program
from einsmith.mapper.stages import plan_module
from einsmith.mapper.staging import Staging

EXAMPLES = Path(__file__).parents[2] / "examples" / "attention"
ELEMENTWISE = """
name: elementwise
ranks: {{x: X, d: D, f: F}}
inputs: {{A: [x, d], R: [x], W: [d, f]}}
params: {{c: 0.3}}
cascade: |
  T[x,d] = {left}
  O[x,f] = sum[d](T[x,d] * W[d,f])
outputs: [O]
"""
FEATURES = "where(A[x,d] > 0, A[x,d] + 1, exp(A[x,d]))"


def operands(
    found: Program, name: str, blocks: dict[str, int], warps: int, stages: int, divides: bool = True, precision: Precision = PLAIN
) -> int:
    return Staging(found, gpu.load(name), precision, exact=False)(blocks, warps, stages, divides=divides).operands


def walked(left: str) -> Program:
    """A product of tiles of two inputs, one changed element by element, in steps along what it contracts."""
    text = ELEMENTWISE.format(left=left)
    if "R[" not in left:
        text = text.replace(" R: [x],", "")
    cascade = spec.loads(text if "* c" in left else text.replace("params: {c: 0.3}\n", ""))
    return program(cascade, bind(cascade, {"X": 262144, "D": 2048, "F": 64}).extents)


@pytest.mark.parametrize(
    ("left", "name", "blocks", "warps", "stages", "taken"),
    [
        (FEATURES, "a100", (128, 32), 4, 2, 12288),
        (FEATURES, "a100", (256, 32), 8, 3, 36864),
        (FEATURES, "h200", (128, 128), 8, 2, 65536),
        (FEATURES, "h200", (128, 128), 8, 1, 32768),
        ("A[x,d] * R[x]", "a100", (128, 32), 4, 2, 12288),
        ("A[x,d] * R[x]", "h200", (256, 64), 8, 3, 90112),
    ],
)
def test_a_tile_is_fetched_as_the_unit_needs_what_is_made_of_it(
    left: str, name: str, blocks: tuple[int, int], warps: int, stages: int, taken: int
) -> None:
    """`ttg.local_load %A : memdesc<128x32xf16> -> tensor<128x32xf16, #ttg.dot_op<...>>`: the operand has no buffer of its own."""
    tiles = {"x": blocks[0], "f": 64, "d0": blocks[1]}
    assert operands(walked(left), name, tiles, warps, stages) == taken


@pytest.mark.parametrize(("name", "blocks", "stages", "taken"), [("a100", (64, 64), 2, 24576), ("h200", (64, 128), 2, 40960)])
def test_a_scalar_of_the_kernel_is_no_number(name: str, blocks: tuple[int, int], stages: int, taken: int) -> None:
    """A `tt.splat` stands between the tile and the operand, which is computed as the tile lies and goes through shared memory: by a
    buffer, or in two halves where a group of warps runs on."""
    found = walked("max(A[x,d] * c, 0)")
    assert not any(side.made_of for product in products(found) for side in product.sides)
    tiles = {"x": blocks[0], "f": 64 if name == "a100" else 32, "d0": blocks[1]}
    staging = Staging(found, gpu.load(name), PLAIN, exact=False)(tiles, 4, stages, divides=True)
    assert (staging.operands if name == "a100" else staging.total - 8192) == taken


@pytest.fixture(scope="module")
def merging() -> Plan:
    """The second kernel of linear attention: it sums up parts of K V in each step, and multiplies."""
    return plan_module(spec.load(EXAMPLES / "linear.yaml"), gpu.load("h200"), LINEAR).kernels[-1]


LINEAR = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 64, "F": 64}


@pytest.mark.parametrize(
    ("blocks", "warps", "stages", "divides", "taken"),
    [
        ({"p": 256, "e0": 32, "s": 2, "f": 64}, 8, 2, False, 53248),
        ({"p": 128, "e0": 32, "s": 2, "f": 64}, 4, 2, False, 36864),
        ({"p": 256, "e0": 16, "s": 2, "f": 64}, 8, 2, False, 26624),
        ({"p": 256, "e0": 32, "s": 2, "f": 64}, 8, 2, True, 36864),
        ({"p": 256, "e0": 32, "s": 2, "f": 64}, 8, 1, True, 16384),
    ],
)
def test_a_group_of_warps_waits_where_the_right_operand_is_written_in_the_step(
    merging: Plan, blocks: dict[str, int], warps: int, stages: int, divides: bool, taken: int
) -> None:
    """Where the end cuts a step the left operand is masked: `ttg.local_alloc` of 256x32 values. The right one, a sum of parts, is
    written in the same step, and so `warp_group_dot_wait {pendings = 0}` follows the product at once. Whole steps need none."""
    assert set(merging.program.axes) == set(blocks)
    assert operands(merging.program, "h200", blocks, warps, stages, divides, merging.precision) == taken


@pytest.fixture(scope="module")
def chunked() -> Program:
    (kernel,) = plan_module(spec.load(EXAMPLES / "retention-parallel.yaml"), gpu.load("h200"), RETENTION).kernels
    return kernel.program


RETENTION = {"B": 4, "H": 16, "M": 2048, "E": 64, "F": 64}


@pytest.mark.parametrize(
    ("name", "blocks", "warps", "stages", "divides", "taken"),
    [
        ("a100", (32, 64), 4, 1, True, 12288),
        ("h200", (32, 64), 8, 1, True, 24576),
        ("b200", (32, 64), 4, 1, True, 24576),
        ("h200", (32, 64), 8, 2, True, 24576),
        ("h200", (32, 64), 8, 2, False, 32768),
        ("h200", (64, 64), 4, 2, True, 49152),
    ],
)
def test_units_of_two_kinds_have_a_copy_each(
    chunked: Program, name: str, blocks: tuple[int, int], warps: int, stages: int, divides: bool, taken: int
) -> None:
    """A chunk of retention: keys go to a product of 32 rows (single warps: `#ttg.swizzled_shared`) and, turned, to one of 64 rows
    (groups of warps: `#ttg.nvmma_shared`), values to the first times decays. With one stage there are two `ttg.local_alloc` of the
    keys right after their load; where single warps need a tile turned there is none: `convert_layout`, then `trans`. Decays lie as
    the first operand in shared memory only where there are two loops. A decayed state is read before any wait: nothing runs on."""
    tiles = {"f": blocks[0], "m0": 64, "mj": 64, "e": blocks[1]}
    assert operands(chunked, name, tiles, warps, stages, divides) == taken


def test_a_result_that_is_turned_comes_out_of_tensor_memory_through_shared_memory(chunked: Program) -> None:
    """What a chunk reads of the state is turned to be added to what its pairs give: `convert_layout` of 64 x 64 values of 32 bits,
    beside the copies of the step's tiles."""
    tiles = {"f": 64, "m0": 64, "mj": 64, "e": 64}
    staged = Staging(chunked, gpu.load("b200"), PLAIN, exact=False)(tiles, 8, 2, divides=True)
    assert staged.operands == pytest.approx(41000, rel=0.02)
    assert 57376 <= staged.total < 1.05 * 57376


@pytest.mark.parametrize(("warps", "taken"), [(4, 15872), (8, 15360)])
def test_what_is_fetched_ahead_is_needed_by_a_product_of_the_step_and_has_a_word_for_each_thread(warps: int, taken: int) -> None:
    """A chunk of gates by channels, its weights from a kernel before: 256 bytes of decays of the state, which is read as it was
    before the step, have no `ttg.local_alloc`, nor with 8 warps have the weights, of which a thread would copy 2 bytes."""
    kernel = plan_module(spec.load(EXAMPLES / "gla.yaml"), gpu.load("b200"), RETENTION).kernels[-1]
    assert "AV_weights" in kernel.precision.between
    tiles = {"f": 32, "m0": 16, "mj": 16, "e": 64}
    assert operands(kernel.program, "b200", tiles, warps, 2, precision=kernel.precision) == taken


@pytest.mark.parametrize(
    ("blocks", "warps", "stages", "taken"),
    [((32, 64), 8, 3, 45056), ((32, 16), 8, 1, 10240), ((32, 128), 8, 1, 24576), ((32, 32), 4, 2, 18432), ((32, 16), 8, 4, 21504)],
)
def test_single_warps_raise_operands_of_8_bits_as_soon_as_they_have_them(
    blocks: tuple[int, int], warps: int, stages: int, taken: int
) -> None:
    """`tt.fp_to_fp` of the queries stands before the loop: they wait with 16 bits a value. Of what is not fetched ahead the values
    are in registers before the probabilities need memory."""
    cascade = one_pass(spec.load(EXAMPLES / "softmax-causal.yaml"), HEADS).cascade
    found = program(cascade, bind(cascade, HEADS).extents)
    tiles = {"p": blocks[0], "m0": blocks[1], "e": 128, "f": 128}
    assert operands(found, "b200", tiles, warps, stages, precision=Precision("float8_e4m3fn")) == taken


HEADS = {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
STRAIGHT = """
name: straight
ranks: {x: X, r: R, d: D}
inputs: {A: [x, d], W: [d, r]}
cascade: |
  L[x,r] = sum[d](A[x,d] * W[d,r])
  M[x] = max[r](L[x,r])
  N[x,r] = exp(L[x,r] - M[x])
outputs: [N]
"""


@pytest.mark.parametrize(("name", "taken"), [("a100", 8192), ("h200", 10240)])
def test_single_warps_get_a_turned_tile_in_registers(name: str, taken: int) -> None:
    """64 x 64 values of the left operand are in shared memory; 16 x 64 of the right one, held the other way round, are there for
    groups of warps alone, which read them either way (`ttg.memdesc_trans`)."""
    cascade = spec.loads(STRAIGHT)
    found = program(cascade, bind(cascade, {"X": 4096, "R": 16, "D": 64}).extents)
    assert operands(found, name, {"x": 64, "r": 16, "d": 64}, 4, 1) == taken
