"""Scans, selections and positions of extrema within a tile.

In: the lowering of a kernel and an expression. Out: a tile. A selection takes the greatest element that is left, once for each
position that it fills: a maximum, then the first place that holds it, so that ties go to the lowest index and -inf is an element
like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..einsum.arithmetic import INT_MIN
from ..einsum.cascade import Map, Reduce, Scan, Select
from ..mapper.blocking import refuse
from .tile import BITWISE, COMPARISON, Tile, combine, spread

if TYPE_CHECKING:
    from .lower import Lowering

NOWHERE = 2**31 - 1
"""A coordinate greater than any."""


def scan(low: Lowering, expr: Scan) -> Tile:
    """`tl.cumsum`, `tl.cumprod` or an associative scan along an axis of the tile."""
    tile = _with_axis(low, low.real(low.expr(expr.body)), expr.rank)
    place = tile.axes.index(expr.rank)
    if tile.kind == "int":
        tile = Tile(f"tl.cast({tile.code}, tl.int64)", tile.axes, "int")
    else:
        tile = low.fractional(tile)
    if expr.op in ("cumsum", "cumprod"):
        return Tile(f"tl.{expr.op}({tile.code}, {place})", tile.axes, tile.kind)
    low.body.helpers.add("_greater")
    return Tile(f"tl.associative_scan({tile.code}, {place}, _greater)", tile.axes, tile.kind)


def position(low: Lowering, expr: Reduce) -> Tile:
    """The first place of the greatest or least element."""
    (rank,) = expr.ranks
    body = Map("neg", (expr.body,)) if expr.op == "argmin" else expr.body
    values, left = _candidates(low, low.real(low.expr(body)), rank)
    _, place = _best(low, values, left, rank)
    return Tile(f"tl.cast({place.code}, tl.int64)", place.axes, "int")


def select(low: Lowering, expr: Select) -> Tile:
    """The greatest elements, best first, along the axis that they fill, or their places."""
    if expr.fills not in low.program.axes:
        raise refuse("E603", f"no kernel fills `{expr.fills}` by `{expr.op}` in parts", low.einsum)
    values, left = _candidates(low, low.real(low.expr(expr.body)), expr.rank)
    taken = low.fresh("left")
    low.emit(f"{taken} = {left.code}")
    left = Tile(taken, left.axes, "bool")
    axes = tuple(axis for axis in low.program.axes if axis == expr.fills or (axis in values.axes and axis != expr.rank))
    shape = ", ".join(low.blocks[axis] for axis in axes)
    places = expr.op in ("argtopk", "argsort")
    whole = places or values.kind == "int"
    chosen, turn = low.fresh("chosen"), low.fresh("turn")
    low.emit(f"{chosen} = tl.zeros(({shape}{',' if len(axes) == 1 else ''}), tl.{'int64' if whole else 'float32'})")
    low.emit(f"for {turn} in range(0, {low.extent(expr.fills)}):")
    with low.scope():
        best, place = _best(low, values, left, expr.rank)
        (here,), _ = combine([place if places else best], low.program.axes)
        at = spread(Tile(f"{low.spelled(expr.fills)} == {turn}", (expr.fills,), "bool", binding=COMPARISON), axes)
        value = spread(here, axes)
        value_code = f"tl.cast({value.code}, tl.int64)" if places else value.code
        low.emit(f"{chosen} = tl.where({at.code}, {value_code}, {chosen})")
        coordinate = spread(Tile(low.spelled(expr.rank), (expr.rank,), "int"), values.axes)
        low.emit(f"{taken} = {taken} & ({coordinate.code} != {spread(place, values.axes).code})")
    return Tile(chosen, axes, "int" if whole else "float")


def _with_axis(low: Lowering, tile: Tile, rank: str) -> Tile:
    """The tile with an axis that it may lack: the same value all along it."""
    if rank in tile.axes:
        return tile
    if rank not in low.program.axes:
        raise refuse(
            "E603", f"the Einsum of `{low.einsum.output if low.einsum else '?'}` needs `{rank}` whole in a tile", low.einsum
        )
    kind = "int64" if tile.kind == "int" else "float32"
    (value, filled), axes = combine(
        [tile, Tile(f"tl.zeros(({low.blocks[rank]},), tl.{kind})", (rank,), tile.kind)], low.program.axes
    )
    return Tile(f"({value.code} + {filled.code})", axes, tile.kind)


def _candidates(low: Lowering, tile: Tile, rank: str) -> tuple[Tile, Tile]:
    """The values under a name, and which of them exist."""
    tile = _with_axis(low, tile, rank)
    tile = Tile(f"tl.cast({tile.code}, tl.int64)", tile.axes, "int") if tile.kind == "int" else low.fractional(tile)
    name = low.fresh("values")
    low.emit(f"{name} = {tile.code}")
    shape = ", ".join(low.blocks[axis] for axis in tile.axes)
    every = f"tl.full(({shape}{',' if len(tile.axes) == 1 else ''}), 1, tl.int32) != 0"
    valid = low.valid(rank)
    exists = f"({every}) & {spread(valid, tile.axes).within(BITWISE)}" if valid is not None else every
    return Tile(name, tile.axes, tile.kind), Tile(exists, tile.axes, "bool", binding=BITWISE)


def _best(low: Lowering, values: Tile, left: Tile, rank: str) -> tuple[Tile, Tile]:
    """The greatest value among those left, and the first place that holds it."""
    axis = values.axes.index(rank)
    rest = tuple(a for a in values.axes if a != rank)
    least = str(INT_MIN) if values.kind == "int" else 'float("-inf")'
    exists = left.code
    if not exists.isidentifier():
        exists = low.fresh("left")
        low.emit(f"{exists} = {left.code}")
    best, place = low.fresh("best"), low.fresh("place")
    low.emit(f"{best} = tl.max(tl.where({exists}, {values.code}, {least}), {axis})")
    top = spread(Tile(best, rest), values.axes)
    coordinate = spread(Tile(low.spelled(rank), (rank,), "int"), values.axes)
    low.emit(f"{place} = tl.min(tl.where({exists} & ({values.code} == {top.code}), {coordinate.code}, {NOWHERE}), {axis})")
    return Tile(best, rest, values.kind), Tile(place, rest, "int")
