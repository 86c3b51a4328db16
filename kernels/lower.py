"""Lowering: the body of a Triton kernel from a program, Einsum by Einsum.

In: a `Program` and whether the inner tile is filled exactly. Out: a `Body`. What each Einsum becomes:

* a sum of products of two tiles: `tl.dot`; any other reduction: `tl.sum`, `tl.max`, ... over tile axes (`reductions`);
* a map expression: the same expression over tiles (`elementwise`);
* an access to an input: one load, before the loop if it does not depend on the step (`memory`, `addresses`);
* a running state: a value that the loop carries (`loops`);
* a scan, a selection, the place of an extremum: code within a tile (`ordered`).
"""

from __future__ import annotations

from ..einsum.cascade import Access, Coord, Einsum, Expr, Map, Number, Reduce, Scalar, Scan, Select
from ..mapper.program import WHOLE_COORDINATE, Loop
from ..mapper.traffic import Order
from . import ordered
from .loops import Loops
from .text import Body
from .tile import Tile


class Lowering(Loops):
    """Writes one kernel."""

    def run(self) -> Body:
        """The whole kernel: one tile for each program instance, or a loop over tiles."""
        if self.walks is None:
            self.one_tile("tl.program_id(0)")
            return self.body
        count, tile = self.argument("tile_count"), self.argument("tile")
        self.emit(f"{count} = {' * '.join(self.tiles(rank) for rank in self.order.ranks)}")
        depth = self.walks.prefetched
        self.emit(f"for {tile} in tl.range(tl.program_id(0), {count}, tl.num_programs(0), num_stages={depth}):")
        with self.scope():
            self.one_tile(tile)
        return self.body

    def one_tile(self, place: str) -> None:
        """What is computed for one tile of the outputs. `place`: its number."""
        self.coordinates(place)
        for phase in self.program.phases:
            self.emit("")
            if isinstance(phase, Loop):
                self.loop(phase)
            else:
                self.straight(phase.einsums)

    def coordinates(self, place: str) -> None:
        """Which part of the output one tile is, and the coordinates along each axis of its tiles."""
        program = self.program
        order = self.order
        if order.ranks:
            self.emit(f"pid = {place}")
        if order.group > 1:
            self.grouped(order)
        for number, rank in enumerate(order.ranks):
            last = number == len(order.ranks) - 1
            if order.group > 1 and number < 2:
                continue
            here = "pid" if last else f"pid % {self.tiles(rank)}"
            if rank in order.heavy_first:
                here = f"{self.tiles(rank)} - 1 - {here}"
            if rank in program.tiled:
                within = f"({here})" if " " in here else here
                self.emit(f"{self.local(rank, 'first')} = {within} * {self.blocks[rank]}")
            else:
                self.emit(f"{self.spelled(rank)} = tl.cast({here}, tl.int64)")
            if not last:
                self.emit(f"pid = pid // {self.tiles(rank)}")
        for rank in program.axes:
            name = self.spelled(rank)
            if rank in program.tiled:
                at = self.local(rank, "at")
                self.emit(f"{at} = tl.arange(0, {self.blocks[rank]})")
                self.emit(f"{name} = {self.local(rank, 'first')} + {at}")
                self.emit(f"{self.local(rank, 'in')} = {name} < {self.extent(rank)}")
            else:
                self.emit(f"{name} = tl.arange(0, {self.blocks[rank]})")
                if rank != program.inner or not self.exact:
                    self.emit(f"{self.local(rank, 'in')} = {name} < {self.extent(rank)}")

    def tiles(self, rank: str) -> str:
        """How many program instances there are along a rank of the grid."""
        return f"tl.cdiv({self.extent(rank)}, {self.blocks[rank]})" if rank in self.program.tiled else self.extent(rank)

    def grouped(self, order: Order) -> None:
        """Coordinates along two tiled ranks: some tiles along the first for each along the second, then the next ones."""
        first, second = order.ranks[:2]
        count, other = self.tiles(first), self.tiles(second)
        here, group, start, high = (self.fresh(name) for name in ("in_plane", "group", "group_first", "group_size"))
        self.emit(f"# {order.group} tiles along {first} for each along {second}: they share what is in the cache")
        self.emit(f"{here} = pid % ({count} * {other})")
        self.emit(f"{group} = {here} // ({order.group} * {other})")
        self.emit(f"{start} = {group} * {order.group}")
        self.emit(f"{high} = tl.minimum({count} - {start}, {order.group})")
        self.emit(f"{here} = {here} % ({order.group} * {other})")
        places = {first: f"{start} + {here} % {high}", second: f"{here} // {high}"}
        for rank, place in places.items():
            if rank in order.heavy_first:
                place = f"{self.tiles(rank)} - 1 - ({place})"
            self.emit(f"{self.local(rank, 'first')} = ({place}) * {self.blocks[rank]}")
        if len(order.ranks) > 2:
            self.emit(f"pid = pid // ({count} * {other})")

    def straight(self, einsums: tuple[Einsum, ...]) -> None:
        """Einsums outside of loops, in their order."""
        for einsum in einsums:
            self.statement(einsum)

    def expr(self, expr: Expr) -> Tile:
        match expr:
            case Number(value=value):
                return _literal(value)
            case Scalar(name=name):
                if "." in name:
                    return self.edge(name)
                return Tile(self.scalar(name), (), "int" if name in self.whole_scalars else "float")
            case Coord(rank=rank):
                if rank == WHOLE_COORDINATE:
                    if self.parent is None:
                        return Tile(self.spelled(self.program.loop or ""), (), "int")
                    return Tile(self.spelled(self.parent), (self.program.inner or "",), "int")
                return Tile(self.spelled(rank), (rank,) if rank in self.program.axes else (), "int")
            case Access():
                return self.access(expr)
            case Reduce(op="argmax" | "argmin"):
                return ordered.position(self, expr)
            case Reduce():
                return self.reduce(expr)
            case Scan():
                return ordered.scan(self, expr)
            case Select():
                return ordered.select(self, expr)
            case Map() if self.host_number(expr):
                return Tile(self.computed(expr))
            case Map(op="where", args=(condition, yes, no)):
                return self.choice(condition, yes, no)
            case Map():
                return self.map(expr)


def _literal(value: int | float) -> Tile:
    if isinstance(value, int):
        return Tile(str(value), (), "int")
    if value == float("inf"):
        return Tile('float("inf")')
    return Tile(repr(float(value)))
