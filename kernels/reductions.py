"""Reductions: matrix products, and sums, maxima and the like over tile axes.

In: a reduction. Out: `tl.dot` for a sum of products of two tiles; any other reduction over tile axes, with its identity where a
tile has no coordinate.
"""

from __future__ import annotations

from ..einsum.arithmetic import INT_MAX, INT_MIN
from ..einsum.cascade import Access, Coord, Expr, Map, Number, Reduce
from ..einsum.flatten import IDENTITY
from ..mapper.blocking import refuse
from ..mapper.contraction import contraction
from ..mapper.products import fills_its_block
from .elementwise import Elementwise
from .memory import wide
from .tile import COMPARISON, PRODUCT, SUM, UNARY, Tile, combine, permuted


class Reductions(Elementwise):
    """Reductions of one kernel."""

    def reduce(self, reduce: Reduce) -> Tile:
        """A reduction: a matrix product where it is a sum of products of two tiles. Refused (E603): one of whole numbers."""
        found = contraction(self.program, reduce)
        if found is not None:
            if self.is_int(reduce):
                what = f"the Einsum of `{self._output()}` contracts whole numbers, and matrix products of kernels are not exact"
                raise refuse("E603", what, self.einsum)
            left, right = self.raised(self.operand(found.left, found.k), self.operand(found.right, found.k))
            # turn whichever way needs no transposition of a computed tile
            flips = {
                True: (left.axes != (found.i, found.k)) * (not left.loaded)
                + (right.axes != (found.k, found.j)) * (not right.loaded),
                False: (left.axes != (found.k, found.i)) * (not left.loaded)
                + (right.axes != (found.j, found.k)) * (not right.loaded),
            }
            if flips[True] <= flips[False]:
                a, b, axes = permuted(left, (found.i, found.k)), permuted(right, (found.k, found.j)), (found.i, found.j)
            else:
                a, b, axes = permuted(right, (found.j, found.k)), permuted(left, (found.k, found.i)), (found.j, found.i)
            code = f"tl.dot({a.code}, {b.code}, input_precision=PRECISION)"
            result = Tile(code, axes)
            for factor in found.outside:
                tile = self.real(self.expr(factor))
                (lined, other), both = combine([result, tile], self.program.axes)
                result = Tile(f"{lined.within(PRODUCT)} * {other.within(UNARY)}", both, binding=PRODUCT)
            return result
        return self.vector_reduce(reduce)

    def raised(self, left: Tile, right: Tile) -> tuple[Tile, Tile]:
        """Both operands in one type: one of a type that is only read as it is beside another such one, else raised."""
        if left.narrow == right.narrow:
            return left, right
        a, b = (Tile(f"{t.index}.to(DTYPE)", t.axes, loaded=True) if t.narrow else t for t in (left, right))
        return a, b

    def operand(self, factors: tuple[Expr, ...], k: str) -> Tile:
        """One side of a matrix product: a loaded tile as it is, or a computed one in the type of the inputs."""
        if len(factors) == 1:
            tile = self.chosen(factors[0], k) or self.expr(factors[0])
            if tile.loaded:
                return tile
        else:
            product = factors[0]
            for factor in factors[1:]:
                product = Map("*", (product, factor))
            tile = self.expr(product)
        tile = self.masked(self.real(tile), k, "0.0")
        name = tile.index
        return Tile(f"{name}.to(DTYPE)", tile.axes, "float")

    def chosen(self, factor: Expr, k: str) -> Tile | None:
        """`where(condition, input, 0)`, read at every step, as a load under that condition: an operand as it comes from memory."""
        match factor:
            case Map(op="where", args=(condition, Access() as access, Number(value=0))) if condition not in self.true:
                tensor = self.cascade.tensor(access.tensor)
                if tensor.kind != "input" or tensor.dtype != "float" or tensor.name in self.single or not self.moves(access):
                    return None
                test, valid = self.truth(self.expr(condition)), self.valid(k)
                axes = self.program.axes_of(access)
                if not set(test.axes) <= axes:
                    return None
                guarded, self.guarded = self.guarded, True
                ranks = self.program.source.tensor(access.tensor).ranks
                own = any(i == Coord(k) and self.same_extent(k, r) for r, i in zip(ranks, access.indices, strict=True))
                tile = self.load(access, (test, valid) if valid is not None and k in axes and not own else (test,))
                self.guarded = guarded
                return tile
        return None

    def valid(self, axis: str) -> Tile | None:
        """Which coordinates of an axis exist; None if all of them do in this part of the loop."""
        if axis == self.program.inner:
            if self.parent is None or not self.partial:
                return None
            inside_loop = len(self.scopes) > (2 if self.walks is not None else 1)
            if inside_loop:
                return Tile(self.local(self.parent, "in"), (axis,), "bool")
            return None if self.exact else Tile(self.local(axis, "in"), (axis,), "bool")
        if fills_its_block(self.program, axis):
            return None
        return Tile(self.local(axis, "in"), (axis,), "bool")

    def masked(self, tile: Tile, axis: str, identity: str) -> Tile:
        """The tile with the identity of a reduction where the axis has no coordinate."""
        valid = self.valid(axis)
        if valid is None or axis not in tile.axes:
            return tile
        (value, inside), axes = combine([tile, valid], self.program.axes)
        return Tile(f"tl.where({inside.code}, {value.code}, {identity})", axes, tile.kind)

    def vector_reduce(self, reduce: Reduce) -> Tile:
        """A reduction over tile axes, one after the other, the innermost first."""
        tile = self.real(self.expr(reduce.body))
        if reduce.op in ("any", "all"):
            tile = self.truth(tile)
        for rank in reversed([r for r in self.program.axes if r in reduce.ranks]):
            tile = self.reduce_axis(reduce.op, tile, rank)
        missing = [r for r in reduce.ranks if r not in self.program.axes]
        if missing:
            raise refuse(
                "E602", f"the Einsum of `{self._output()}` reduces over `{missing[0]}`, which is not in the tile", self.einsum
            )
        if reduce.op == "mean":
            count = " * ".join(self.count(r) for r in reduce.ranks)
            tile = Tile(f"{tile.within(PRODUCT)} / ({count})", tile.axes, binding=PRODUCT)
        return tile

    def count(self, rank: str) -> str:
        """How many coordinates of an axis a reduction sees."""
        valid = self.valid(rank) if rank == self.program.inner else None
        return self.extent(rank) if valid is None else f"tl.sum(tl.cast({valid.code}, tl.int32), 0)"

    def reduce_axis(self, op: str, tile: Tile, axis: str) -> Tile:
        """A reduction over one axis; a tile without the axis counts once for each of its coordinates."""
        if axis not in tile.axes:
            whole = tile.kind == "int" and op != "mean"
            filled = Tile(f"tl.zeros(({self.blocks[axis]},), tl.{'int64' if whole else 'float32'})", (axis,))
            (a, b), axes = combine([tile if whole else self.fractional(tile), filled], self.program.axes)
            tile = Tile(f"{a.within(SUM)} + {b.code}", axes, "int" if whole else "float", binding=SUM)
        if op in ("any", "all"):
            value = Tile(f"tl.cast({tile.code}, tl.int32)", tile.axes, "int")
            value = self.masked(value, axis, "0" if op == "any" else "1")
            rest = tuple(a for a in tile.axes if a != axis)
            name = "max" if op == "any" else "min"
            return Tile(f"tl.{name}({value.code}, {tile.axes.index(axis)}) != 0", rest, "bool", binding=COMPARISON)
        whole = tile.kind == "int" and op != "mean"
        tile = wide(tile) if whole else self.fractional(tile)
        start = _whole_identity(op) if whole else _literal_expr(IDENTITY[op])
        tile = self.masked(tile, axis, start)
        rest = tuple(a for a in tile.axes if a != axis)
        place = tile.axes.index(axis)
        if op == "prod":
            self.body.helpers.add("_multiply")
            return Tile(f"tl.reduce({tile.code}, {place}, _multiply)", rest, tile.kind)
        name = {"sum": "sum", "mean": "sum", "max": "max", "min": "min"}[op]
        return Tile(f"tl.{name}({tile.code}, {place})", rest, tile.kind)


def _whole_identity(op: str) -> str:
    """What a reduction of whole numbers holds before the first: the least or greatest one in place of infinity."""
    return {"sum": "0", "prod": "1", "max": str(INT_MIN), "min": str(INT_MAX)}[op]


def _literal_expr(expr: Expr) -> str:
    match expr:
        case Number(value=value):
            return f"{float(value)!r}" if value != float("inf") else 'float("inf")'
        case _:
            return 'float("-inf")'
