"""GPUs: what a plan must know about one, as a file says it.

In: a YAML file (see `examples/gpus/`) or the bare name of one. Out: a `Gpu`: multiprocessors, shared memory, registers, rates
of the matrix units, the vector lanes and the special-function units, memory and cache bandwidths. Every block of numbers
carries its `source`; wrong keys and values are reported with their positions. Nothing here knows any GPU by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..einsum.library import locate
from .architecture import Bytes, Positive, Rate
from .document import Block, read, reads, validate

Count = Annotated[int, Field(ge=1, le=2**24)]
BYTES: dict[str, int] = {"float16": 2, "bfloat16": 2, "float32": 4, "float8_e4m3fn": 1, "float8_e5m2": 1}
"""Bytes of one value of each input type."""


class Multiprocessors(Block):
    """The units that run blocks of threads."""

    count: Count
    """How many there are."""
    clock_hz: Positive
    """Boost clock, cycles a second: what short kernels run at; a long one may be held lower by power."""
    warp: Count = 32
    """Threads of a warp."""
    threads: Count
    """Threads that one holds at most."""
    blocks: Count
    """Blocks that one holds at most."""
    source: str
    """Where the numbers come from."""


class SharedMemory(Block):
    """On-chip memory that the threads of a block share."""

    per_block: Bytes
    """Bytes that one block may ask for at most."""
    per_multiprocessor: Bytes
    """Bytes that the blocks of a multiprocessor have together."""
    reserved_per_block: Annotated[int, Field(ge=0)] = 0
    """Bytes that the system takes for each block."""
    asynchronous: bool = False
    """Can tiles be copied from memory to shared memory without passing through registers, while the threads go on?"""
    descriptors: bool = False
    """Is there a unit that copies a tile named by its corner and a tensor descriptor, so that no thread computes addresses?"""
    source: str
    """Where the numbers come from."""


class RegisterFile(Block):
    """Registers of 32 bits."""

    per_multiprocessor: Count
    """How many a multiprocessor has."""
    per_thread: Count
    """How many one thread may have at most."""
    source: str
    """Where the numbers come from."""


class Matrix(Block):
    """The matrix units: products with float32 accumulation, dense, operations a second (a multiply-add is two)."""

    float16: Positive | None = None
    """Operations a second on float16 operands; none: no matrix unit takes them."""
    bfloat16: Positive | None = None
    """The same on bfloat16."""
    tf32: Positive | None = None
    """The same on float32 operands rounded to TF32, where the user allows that."""
    float8_e4m3fn: Positive | None = None
    """The same on 8 bits, 4 of them exponent, as the Open Compute Project has them."""
    float8_e5m2: Positive | None = None
    """The same on 8 bits, 5 of them exponent."""
    unit: Literal["warp", "warpgroup", "tensor memory"] = "warp"
    """What does a product. `warp`: each warp, operands and sums in its registers (`mma.sync`, `mfma`). `warpgroup`: four warps
    together, operands in shared memory, sums in registers (`wgmma`). `tensor memory`: likewise, sums in a memory of their own
    (`tcgen05`). Products of fewer than 64 rows are done by single warps everywhere."""
    tensor_memory_columns: Annotated[int, Field(ge=0)] = 0
    """Columns of tensor memory that a block may have, each of 128 values of 32 bits."""
    source: str
    """Where the numbers come from."""


class Lanes(Block):
    """What is not the matrix units: results a cycle and multiprocessor."""

    float32: Positive
    """Additions, multiplications or fused multiply-adds."""
    special: Positive
    """Results of the special-function units: exp2, reciprocal and the like."""
    source: str
    """Where the numbers come from."""


class Memory(Block):
    """A memory behind the multiprocessors."""

    size: Bytes | None = None
    """Bytes."""
    bandwidth: Rate
    """Bytes a second, reads and writes together."""
    latency_s: Positive
    """Seconds from asking to having."""
    sector: Bytes = 32
    """Bytes that are fetched at least."""
    source: str
    """Where the numbers come from."""


class Launch(Block):
    """What a kernel costs before it does anything."""

    latency_s: Positive
    """Seconds."""
    source: str
    """Where the numbers come from."""


class Gpu(Block):
    """A GPU as a plan sees it."""

    name: str
    """What reports call it."""
    doc: str = ""
    """A line about it."""
    target: str
    """What the compiler calls it: `sm_90`, `gfx942`."""
    multiprocessors: Multiprocessors
    """The units that run blocks of threads."""
    shared_memory: SharedMemory
    """On-chip memory that the threads of a block share."""
    registers: RegisterFile
    """Registers of 32 bits."""
    matrix: Matrix
    """The matrix units."""
    lanes: Lanes
    """What is not the matrix units."""
    memory: Memory
    """Device memory."""
    cache: Memory
    """The last cache before it (L2)."""
    launch: Launch
    """What a kernel costs before it does anything."""

    def matrix_rate(self, dtype: str, allow_tf32: bool = False) -> float | None:
        """Operations a second of matrix products on operands of a type; None: no matrix unit takes it (exactly)."""
        if dtype == "float32":
            return self.matrix.tf32 if allow_tf32 else None
        rate: float | None = getattr(self.matrix, dtype)
        return rate

    @property
    def vector_rate(self) -> float:
        """Element operations a second of all vector lanes together."""
        return self.lanes.float32 * self.multiprocessors.count * self.multiprocessors.clock_hz

    @property
    def special_rate(self) -> float:
        """Results a second of all special-function units together."""
        return self.lanes.special * self.multiprocessors.count * self.multiprocessors.clock_hz


def load(path: str | Path) -> Gpu:
    """The GPU of a file, or of a bare name such as `h200`. Raises EinsmithError (E001, E501, E502)."""
    return validate(Gpu, read(locate("gpus", path)))


def loads(text: str, name: str = "<string>") -> Gpu:
    """The same from a text."""
    return validate(Gpu, reads(text, name))
