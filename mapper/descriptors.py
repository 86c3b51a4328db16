"""Tensor descriptors: tiles that a unit of the GPU copies by their corner, in place of an address for every vector of them.

In: a program, a GPU, types and extents; then tile sizes and warps. Out: which operands of matrix products come that way, and why
others do not. The unit needs a tile whose dimensions are coordinates of the tensor, rows of the tensor that start at multiples of
16 bytes, and at most 256 coordinates along a dimension; what lies outside of the tensor it fills with zeros, which is what a mask
does. Whether it is worth anything is for the plan to say (`plan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..einsum.cascade import Access, Coord, walk
from .gpu import Gpu
from .loop_masks import normalise
from .precision import Precision
from .products import Product
from .program import WHOLE_COORDINATE, Program

Choice = Literal["auto", "on", "off"]
ALIGNMENT = 16
"""Bytes at multiples of which rows start."""
LONGEST = 256
"""Coordinates of a tile along a dimension at most."""
MOST_DIMENSIONS = 5


def block_axes(program: Program, access: Access) -> tuple[str | None, ...] | str:
    """For each dimension of a tensor the axis of the tile that runs along it, None where the tile is one coordinate wide; or why
    the tile has no descriptor."""
    tensor = program.cascade.tensor(access.tensor)
    parent = program.cascade.rank(program.loop).part_of if program.loop is not None else None
    found: list[str | None] = []
    if len(access.indices) > MOST_DIMENSIONS:
        return f"it has more than {MOST_DIMENSIONS} dimensions"
    for rank, index in zip(tensor.ranks, (normalise(program, index) for index in access.indices), strict=True):
        axes = program.axes_of(index)
        if any(isinstance(node, Access) for node in walk(index)):
            return f"it is read at places along `{rank}` that another tensor says"
        if not axes:
            found.append(None)
        elif isinstance(index, Coord):
            walked = parent if index.rank == WHOLE_COORDINATE else index.rank
            if walked is None or program.cascade.rank(walked).extent != program.cascade.rank(rank).extent:
                return f"what walks `{rank}` has another extent"
            if index.rank == program.inner:
                return f"it has a dimension of `{rank}`, a part"
            found.append(program.inner if index.rank == WHOLE_COORDINATE else index.rank)
        else:
            return f"its index along `{rank}` is not a coordinate"
    named = [axis for axis in found if axis is not None]
    if len(set(named)) < len(named):
        return "one coordinate walks two of its dimensions"
    if not found or found[-1] is None:
        return "the tile is one element wide along its last dimension"
    return tuple(found)


class Descriptors:
    """Operands of one program that may come by descriptors."""

    def __init__(
        self,
        program: Program,
        gpu: Gpu,
        precision: Precision,
        extents: Mapping[str, int],
        products: tuple[Product, ...],
        fixed: bool,
    ) -> None:
        self.program, self.gpu, self.precision = program, gpu, precision
        self.axes: dict[str, tuple[str | None, ...]] = {}
        """Tensor -> axes of its dimensions, where it has a descriptor."""
        self.reasons: dict[str, str] = {}
        """Tensor -> why it has none."""
        self.products: dict[str, list[Product]] = {}
        for product in products:
            for side in product.sides:
                if side.is_read and isinstance(side.key, tuple):
                    tensor, indices = side.key
                    self.products.setdefault(tensor, []).append(product)
                    found = self._found(Access(tensor, indices), extents, fixed)
                    if isinstance(found, str) or self.axes.get(tensor, found) != found:
                        self.reasons[tensor] = found if isinstance(found, str) else "it is read in tiles of different shapes"
                    else:
                        self.axes[tensor] = found

    def _found(self, access: Access, extents: Mapping[str, int], fixed: bool) -> tuple[str | None, ...] | str:
        if not self.gpu.shared_memory.descriptors:
            return f"{self.gpu.name} has no unit that copies tiles"
        if access.tensor in self.precision.between:
            return "another kernel leaves it, in a type of its own"
        if fixed:
            return "the tile of the loop is given, and may be shorter than its block"
        row = self.precision.read(access.tensor) * extents[self.program.source.tensor(access.tensor).ranks[-1]]
        if row % ALIGNMENT:
            return f"its rows have {row} bytes, no multiple of {ALIGNMENT}"
        return block_axes(self.program, access)

    def __call__(self, blocks: Mapping[str, int], warps: int, exact: bool) -> frozenset[str]:
        """Tensors whose tiles can come by descriptors and go straight to a unit that reads shared memory."""
        found = set()
        for tensor, axes in self.axes.items():
            sizes = [blocks[axis] for axis in axes if axis is not None]
            fits = max(sizes) <= LONGEST and sizes[-1] * self.precision.read(tensor) >= ALIGNMENT
            units = {product.unit(self.gpu, blocks, warps, exact) for product in self.products[tensor]}
            if tensor not in self.reasons and fits and units <= {"warpgroup", "tensor memory"}:
                found.add(tensor)
        return frozenset(found)
