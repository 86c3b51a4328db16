"""Precision: what type the inputs of a kernel have, and what type is computed and written.

In: the type of the inputs. Out: a `Precision`: bytes of a value read, computed for a matrix product, or written, and which products
take their operands as they are in memory. Inputs of 8 bits are only read: what is computed for a product is rounded to bfloat16, as
8 bits would overflow at 448 and keep three digits of it, and an operand of 8 bits that meets a computed one is raised to
bfloat16, which holds all its values. Outputs are bfloat16 then. All other types are read, computed and written alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from .gpu import BYTES, Gpu

WIDER = {"float8_e4m3fn": "bfloat16", "float8_e5m2": "bfloat16"}
"""Types that are only read -> the type of what is computed for matrix products, and of outputs."""
NARROW_STEPS = 32
"""Shortest contraction of operands of 8 bits."""


@dataclass(frozen=True)
class Precision:
    """Types of one kernel."""

    dtype: str
    """Of the inputs."""
    between: frozenset[str] = frozenset()
    """Inputs that another kernel left, and outputs that another one reads."""

    @property
    def computed_type(self) -> str:
        """Of operands that are computed, of outputs, of operands that another kernel left."""
        return WIDER.get(self.dtype, self.dtype)

    @property
    def computed(self) -> int:
        """Bytes of a value of that type."""
        return BYTES[self.computed_type]

    def is_narrow(self, tensor: str) -> bool:
        """Is an input of a type that is only read?"""
        return self.dtype in WIDER and tensor not in self.between

    def read(self, tensor: str) -> int:
        """Bytes of a value of a floating point input."""
        return BYTES[self.dtype] if tensor not in self.between else self.computed

    def by_lanes(self, tensor: str) -> int:
        """Bytes of a value of a floating point input that vector code reads: what another kernel left for that has 32 bits."""
        return BYTES["float32"] if tensor in self.between else self.read(tensor)

    def matrix_rate(self, gpu: Gpu, allow_tf32: bool = False) -> float | None:
        """Operations a second on operands that are computed; None: no matrix unit takes them exactly."""
        return gpu.matrix_rate(self.computed_type, allow_tf32)

    def narrow_share(self, gpu: Gpu) -> float:
        """Time of a product of two operands as they are in memory, over that of one with a computed operand."""
        as_read, raised = gpu.matrix_rate(self.dtype), gpu.matrix_rate(self.computed_type)
        return raised / as_read if self.dtype in WIDER and as_read and raised else 1.0
