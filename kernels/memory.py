"""Memory: loads and stores of tiles, and the masks that keep them inside their tensors.

In: an access, or an output whose tile is at hand. Out: one load under a name (known from then on, so that it is made once), or one
store. A mask tests what can be outside: tails of tiles, indices that are computed or gathered.
"""

from __future__ import annotations

from ..einsum.cascade import Access, Coord, Expr, Map, free_ranks, walk
from ..mapper.loop_masks import normalise
from ..mapper.program import WHOLE_COORDINATE
from .addresses import Addresses
from .tile import BITWISE, COMPARISON, PRODUCT, SUM, Tile, permuted, spread


class Memory(Addresses):
    """Loads and stores of one kernel."""

    def inside(self, tensor: str, indices: tuple[Expr, ...]) -> tuple[list[Tile], list[tuple[str, Tile]]]:
        """Which elements of a tile exist: conditions that always apply, and (extent, condition) of axes held whole."""
        always: list[Tile] = []
        whole: list[tuple[str, Tile]] = []
        ranks = self.program.source.tensor(tensor).ranks
        for rank, index in zip(ranks, indices, strict=True):
            match index:
                case Coord(rank=r) if not self.same_extent(r, rank):
                    tile = self.expr(index)
                    code = f"{tile.within(SUM)} < {self.extent(rank)}"
                    always.append(Tile(code, tile.axes, "bool", binding=COMPARISON))
                case Coord(rank=r) if r == self.program.inner:
                    if not self.exact:
                        always.append(Tile(self.local(r, "in"), (r,), "bool"))
                case Coord(rank=r):
                    self.exists(r, always, whole)
                case _:
                    for axis in sorted(free_ranks(index)):  # beyond its end a coordinate may stand for one that there is
                        self.exists(axis, always, whole)
                    gathered = any(isinstance(n, Access) for n in walk(index))
                    tile = self.expr(index)
                    if not (tile.axes or self.guarded or gathered or free_ranks(index) & self.program.made):
                        continue
                    if tile.kind != "int":
                        tile = wide(tile)  # a whole number that was computed with
                    tests = [] if self.never_negative(index) else [f"{tile.within(SUM)} >= 0"]
                    extent = self.cascade.rank(rank).extent
                    remainder = isinstance(index, Map) and index.op == "%" and index.args[1] == extent
                    if not remainder and Map("<", (index, extent)) not in self.true:
                        tests.append(f"{tile.within(SUM)} < {self.extent(rank)}")
                    if len(tests) == 1:
                        always.append(Tile(tests[0], tile.axes, "bool", binding=COMPARISON))
                    elif tests:
                        always.append(Tile(" & ".join(f"({test})" for test in tests), tile.axes, "bool", binding=BITWISE))
        return always, whole

    def exists(self, axis: str, always: list[Tile], whole: list[tuple[str, Tile]]) -> None:
        """Which coordinates of an axis there are, added to the conditions of a load or store."""
        if axis == WHOLE_COORDINATE:
            if self.parent is not None and self.partial:
                assert self.program.inner is not None
                always.append(Tile(self.local(self.parent, "in"), (self.program.inner,), "bool"))
        elif axis in self.program.tiled:
            always.append(Tile(self.local(axis, "in"), (axis,), "bool"))
        elif axis in self.program.whole:
            whole.append((axis, Tile(self.local(axis, "in"), (axis,), "bool")))

    def mask(self, tensor: str, indices: tuple[Expr, ...], axes: tuple[str, ...], tests: tuple[Tile, ...] = ()) -> str | None:
        """Text of the mask of a load or store, of elements that exist and pass the tests; None if all do."""
        always, whole = self.inside(tensor, indices)
        always += tests

        def together(parts: list[Tile]) -> str:
            lined = [spread(part, axes) for part in dict.fromkeys(parts)]
            return " & ".join(tile.within(PRODUCT) for tile in lined)

        if not whole:
            return together(always) if always else None
        everything = together([*always, *(tile for _, tile in whole)])
        filled = " and ".join(f"{self.extent(rank)} == {self.blocks[rank]}" for rank in dict.fromkeys(rank for rank, _ in whole))
        return f"{together(always) if always else 'True'} if {filled} else {everything}"

    def load(self, access: Access, tests: tuple[Tile, ...] = ()) -> Tile:
        """The tile that an access to an input reads; 0 where a test fails."""
        guarded = self.guarded and not self.stays_inside(access)
        key = ("load", access, guarded, tests)
        known = self.find(key)
        if known is not None:
            return known
        kind = self.cascade.tensor(access.tensor).dtype
        described = self.by_descriptor(access) if not tests else None
        if described is not None:
            tile = self.load_described(access, described)
            name = self.fresh(f"{access.tensor}_tile")
            self.emit(f"{name} = {tile.code}")
            tile = Tile(name, tile.axes, kind, access.tensor not in self.single, self.precision.is_narrow(access.tensor))
            self.scopes[-1].tiles[key] = tile
            return tile
        saved, self.guarded = self.guarded, guarded
        address, axes = self.address(access.tensor, access.indices)
        mask = self.mask(access.tensor, access.indices, axes, tests)
        self.guarded = saved
        name = self.fresh(f"{access.tensor}_tile" if axes else f"{access.tensor}_value")
        other = ", other=0.0" if kind == "float" else ", other=0"
        self.emit(f"{name} = tl.load({address}{f', mask={mask}{other}' if mask else ''})")
        if kind == "bool":
            self.emit(f"{name} = {name} != 0")
        loaded = kind == "float" and access.tensor not in self.single
        tile = Tile(name, axes, kind, loaded, loaded and self.precision.is_narrow(access.tensor))
        self.scopes[-1].tiles[key] = tile
        return tile

    def store(self, output: str) -> None:
        """Write the tile of an output where it belongs."""
        tile = self.find(output)
        assert tile is not None
        indices = tuple(normalise(self.program, index) for index in self.program.stores[output])
        address, axes = self.address(output, indices)
        mask = self.mask(output, indices, axes)
        if set(tile.axes) != set(axes):
            union = tuple(a for a in axes)
            shape = ", ".join(self.blocks[axis] for axis in union)
            tile = Tile(f"tl.broadcast_to({spread(tile, union).code}, ({shape}{',' if len(union) == 1 else ''}))", union, tile.kind)
        elif tile.axes != axes:
            tile = permuted(tile, axes)
        value = tile.code if tile.kind != "bool" else f"{tile.index}.to(tl.int8)"
        self.emit(f"tl.store({address}, {value}{f', mask={mask}' if mask else ''})")


def wide(tile: Tile) -> Tile:
    """Whole numbers in 64 bits."""
    return Tile(f"tl.cast({tile.code}, tl.int64)", tile.axes, "int")
