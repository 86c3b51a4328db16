"""Tiles by tensor descriptors: what a kernel writes in place of addresses and masks.

In: an access whose tensor the plan gives a descriptor. Out: one load from the corner of the tile. Elements outside of the tensor
are zero, as a mask would have them.
"""

from __future__ import annotations

from ..einsum.cascade import Access, Coord, Expr
from ..mapper.descriptors import block_axes
from ..mapper.program import WHOLE_COORDINATE
from .facts import Facts
from .tile import Tile


class Descriptors(Facts):
    """Tensor descriptors of one kernel."""

    def by_descriptor(self, access: Access) -> tuple[str | None, ...] | None:
        """Axes of the dimensions of a tile that comes by a descriptor; None if this one does not."""
        if access.tensor not in self.described:
            return None
        axes = block_axes(self.program, access)
        known = self.body.descriptors.get(access.tensor)
        return axes if not isinstance(axes, str) and known in (None, axes) else None

    def load_described(self, access: Access, axes: tuple[str | None, ...]) -> Tile:
        """The tile from its corner, without the dimensions along which it is one coordinate wide."""
        self.body.descriptors[access.tensor] = axes
        corner = ", ".join(self.corner(index, axis) for index, axis in zip(access.indices, axes, strict=True))
        held = tuple(axis for axis in axes if axis is not None)
        shape = ", ".join(self.blocks[axis] for axis in held)
        code = f"{self.descriptor(access.tensor)}.load([{corner}])"
        if len(held) < len(axes):
            code += f".reshape(({shape}{',' if len(held) == 1 else ''}))"
        return Tile(code, held)

    def descriptor(self, tensor: str) -> str:
        """Name of the argument."""
        return self.local(tensor, "tiles")

    def corner(self, index: Expr, axis: str | None) -> str:
        """Where the tile begins along a dimension: 32 bits."""
        match index:
            case Coord(rank=rank) if rank in self.program.tiled:
                return self.local(rank, "first")
            case Coord(rank=rank) if rank == WHOLE_COORDINATE and self.parent is not None:
                return f"tl.cast({self.local(self.parent, 'first')}, tl.int32)"  # the bounds of a mask may have 64 bits
            case Coord() if axis is not None:
                return "0"
        return f"tl.cast({self.expr(index).code}, tl.int32)"
