"""Tiles as text: the values that generated code computes, and how two of them are brought together.

A `Tile` is a Triton expression, the axes of the tile it stands for, and what kind of number it holds. `combine` lines several tiles
up along common axes by inserting `[:, None]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "int", "bool"]
ATOM, UNARY, PRODUCT, SUM, BITWISE, COMPARISON = 0, 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Tile:
    """A value in the generated kernel."""

    code: str
    axes: tuple[str, ...] = ()
    """Axes in the order in which the tile holds them; none for a scalar."""
    kind: Kind = "float"
    loaded: bool = False
    """Straight from memory, in the type of the input: may be an operand of a matrix product as it is."""
    narrow: bool = False
    """Loaded, in a type that is only read: an operand as it is beside another such one, and raised beside any other."""
    binding: int = ATOM
    """How loosely the outermost operator binds: decides about parentheses."""

    def within(self, level: int) -> str:
        """The code, in parentheses if its operator binds more loosely than `level`."""
        return self.code if self.binding <= level else f"({self.code})"

    @property
    def index(self) -> str:
        """The code where `[...]` or `.to` follows."""
        return self.within(ATOM)


def spread(tile: Tile, axes: Sequence[str]) -> Tile:
    """The tile with a dimension of size 1 for each axis of `axes` it lacks (its own axes must be in that order)."""
    if tuple(axes) == tile.axes or not tile.axes:
        return tile
    if tuple(a for a in axes if a in tile.axes) != tile.axes:
        order = tuple(a for a in axes if a in tile.axes)
        tile = permuted(tile, order)
    if tuple(axes) == tile.axes:
        return tile
    subscript = ", ".join(":" if axis in tile.axes else "None" for axis in axes)
    return Tile(f"{tile.index}[{subscript}]", tuple(axes), tile.kind, tile.loaded, tile.narrow)


def permuted(tile: Tile, order: tuple[str, ...]) -> Tile:
    """The tile with its axes in another order."""
    if order == tile.axes:
        return tile
    if len(order) == 2:
        return Tile(f"tl.trans({tile.code})", order, tile.kind, tile.loaded, tile.narrow)
    places = ", ".join(str(tile.axes.index(axis)) for axis in order)
    return Tile(f"tl.permute({tile.code}, ({places}))", order, tile.kind, tile.loaded, tile.narrow)


def common_axes(tiles: Sequence[Tile], order: Sequence[str]) -> tuple[str, ...]:
    """Axes of the tile that all of them fit in: as the widest tile holds them if it has them all, else in `order`."""
    union = {axis for tile in tiles for axis in tile.axes}
    for tile in sorted(tiles, key=lambda t: -len(t.axes)):
        if set(tile.axes) == union:
            return tile.axes
    return tuple(axis for axis in order if axis in union)


def combine(tiles: Sequence[Tile], order: Sequence[str]) -> tuple[list[Tile], tuple[str, ...]]:
    """The tiles lined up, and their common axes."""
    axes = common_axes(tiles, order)
    return [spread(tile, axes) for tile in tiles], axes
