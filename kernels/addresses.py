"""Addresses: where the tile of a tensor lies.

In: a tensor and the index expressions of an access. Out: a pointer expression and the axes of the tile. What a program instance
shares is added to the pointer in 64 bits, once; what varies within the tile is a small offset.
"""

from __future__ import annotations

from ..einsum.cascade import Coord, Expr, Map, Number
from ..mapper.program import WHOLE_COORDINATE
from .descriptors import Descriptors
from .tile import Tile, combine


class Addresses(Descriptors):
    """Addresses of tiles in one kernel."""

    def index(self, expr: Expr, stride: str | None) -> tuple[list[str], list[Tile]]:
        """Offset of one index expression: its scalar part (64 bits) and its part that varies within the tile."""
        times = f" * {stride}" if stride else ""
        match expr:
            case Coord(rank=rank) if rank in self.program.tiled:
                first = f"tl.cast({self.local(rank, 'first')}, tl.int64){times}"
                return [first], [Tile(self.local(rank, "at"), (rank,), "int")]
            case Coord(rank=rank) if rank == WHOLE_COORDINATE and self.parent is not None:
                assert self.program.inner is not None
                return [f"tl.cast({self.local(self.parent, 'first')}, tl.int64){times}"], [
                    Tile(self.spelled(self.program.inner), (self.program.inner,), "int")
                ]
            case Coord(rank=rank) if rank in self.program.axes:
                return [], [Tile(self.spelled(rank), (rank,), "int")]
            case Coord(rank=rank) if rank in self.program.grid:
                return [f"{self.spelled(rank)}{times}"], []
            case Number(value=0):
                return [], []
            case Map(op="+", args=(a, b)) if not self.index_axes(a) and self.index_axes(b):
                # what all elements of the tile share is added to the pointer, what varies stays a small offset
                scalar, none = self.index(a, stride)
                rest, varying = self.index(b, stride)
                return [*scalar, *rest], [*none, *varying]
        tile = self.expr(expr)
        if tile.axes:
            return [], [Tile(f"tl.cast({tile.code}, tl.int64)", tile.axes, "int")]
        return [f"tl.cast({tile.code}, tl.int64){times}"], []

    def address(self, tensor: str, indices: tuple[Expr, ...]) -> tuple[str, tuple[str, ...]]:
        """Pointer expression of a tile of a tensor, and the tile's axes."""
        base: list[str] = []
        moving: list[tuple[Tile, str | None]] = []
        start = [self.pointer(tensor)]
        for number, index in enumerate(indices):
            stride = None if number == len(indices) - 1 else self.stride(tensor, number)
            scalar, varying = self.index(index, stride)
            if self.invariant(index):
                start += scalar
            else:
                base += scalar
            moving += [(tile, stride) for tile in varying]
            if stride is not None and varying and varying[0].code.isidentifier():
                self.body.spans[(tensor, number)] = varying[0].axes[0]
        base.insert(0, self.start(tensor, start))
        lined, axes = combine([tile for tile, _ in moving], self.program.axes)
        base += [f"{tile.code} * {stride}" if stride else tile.code for tile, (_, stride) in zip(lined, moving, strict=True)]
        return " + ".join(base), axes

    def start(self, tensor: str, parts: list[str]) -> str:
        """Where the part of a tensor begins that this program instance works on."""
        if len(parts) == 1:
            return parts[0]
        code = " + ".join(parts)
        known = self.find(("start", code))
        if known is None:
            known = Tile(self.fresh(f"{tensor}_start"))
            self.emit(f"{known.code} = {code}")
            self.scopes[-1].tiles[("start", code)] = known
        return known.code

    def starts(self, tensor: str, indices: tuple[Expr, ...]) -> None:
        """Compute where a tensor begins for this program instance before the loop rather than in it."""
        parts = [self.pointer(tensor)]
        for number, index in enumerate(indices):
            if self.invariant(index):
                parts += self.index(index, None if number == len(indices) - 1 else self.stride(tensor, number))[0]
        self.start(tensor, parts)

    def pointer(self, tensor: str) -> str:
        """Name of the pointer argument of a tensor; an output's differs from that of its tile."""
        self.body.pointers.setdefault(tensor)
        if tensor not in self.program.stores:
            return self.spelled(tensor)
        if tensor not in self.pointers:
            self.pointers[tensor] = self.argument(f"{tensor}_out")
        return self.pointers[tensor]

    def stride(self, tensor: str, dimension: int) -> str:
        """Name of the argument that holds the stride of a dimension, in elements."""
        key = (tensor, dimension)
        if key not in self.body.strides:
            rank = self.program.source.tensor(tensor).ranks[dimension]
            self.body.strides[key] = self.argument(f"stride_{tensor}_{rank}")
        return self.body.strides[key]
