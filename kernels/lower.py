"""Lowering: the body of a Triton kernel from a program, Einsum by Einsum.

In: a `Program` and whether the inner tile is filled exactly. Out: a `Body`: indented lines, the arguments that they use, and
the helper functions that they call. What each Einsum becomes:

* a sum of products of two tiles: `tl.dot`; any other reduction: `tl.sum`, `tl.max`, ... over tile axes, masked where a tile is cut;
* a map expression: the same expression over tiles;
* an access to an input: one load, before the loop if it does not depend on the step;
* a running state: a value that the loop carries.

Loops come in up to three parts by the bounds of their masks (`mapper.loop_masks`): steps cut by a mask, whole steps without
masks, steps cut by a mask; steps that a mask empties are not run at all where skipping them is proved to change nothing.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..einsum.arithmetic import INT_MAX, INT_MIN
from ..einsum.cascade import (
    COMPARISONS,
    Access,
    Coord,
    DType,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scalar,
    Scan,
    Select,
    children,
    free_ranks,
    walk,
)
from ..einsum.flatten import IDENTITY
from ..einsum.printer import print_einsum
from ..mapper.blocking import refuse
from ..mapper.contraction import contraction, simplified
from ..mapper.loop_masks import HalfLine, conditions, normalise, whole_scalars
from ..mapper.program import WHOLE_COORDINATE, Loop, Program, position
from ..mapper.traffic import Order, in_turn
from . import ordered
from .exponent import LOG2E, fold
from .tile import ATOM, BITWISE, COMPARISON, PRODUCT, SUM, UNARY, Kind, Tile, combine, permuted, spread

HOST_OPS = frozenset({"+", "-", "*", "/", "neg", "exp", "exp2", "log", "log2", "sqrt", "rsqrt", "min", "max", "abs"})
"""Operations that the host part of a module computes for the kernel where they have scalars only."""
RESERVED = {
    "tl",
    "triton",
    "torch",
    "math",
    "pid",
    "DTYPE",
    "PRECISION",
    "PLAN",
    "run",
    "reference",
    "exact",
    "float",
    "range",
    "min",
    "max",
}


@dataclass
class Body:
    """Text of a kernel and what it needs."""

    lines: list[str]
    pointers: dict[str, None] = field(default_factory=dict)
    """Tensors that the kernel reads or writes."""
    scalars: dict[str, None] = field(default_factory=dict)
    """Scalars of the cascade that the kernel takes as arguments, in order of first use."""
    computed: dict[str, Expr] = field(default_factory=dict)
    """Arguments that the host computes, in double precision, from scalars of the cascade: name -> expression."""
    strides: dict[tuple[str, int], str] = field(default_factory=dict)
    """(tensor, dimension) -> name of the stride argument."""
    spans: dict[tuple[str, int], str] = field(default_factory=dict)
    """(tensor, dimension) -> axis along which a tile of it is addressed by 32-bit offsets."""
    extents: dict[str, str] = field(default_factory=dict)
    """Rank -> name under which the kernel knows its extent."""
    helpers: set[str] = field(default_factory=set)


@dataclass
class Scope:
    """Lines being written, and the tiles that are at hand in them."""

    lines: list[str]
    indent: int
    tiles: dict[object, Tile] = field(default_factory=dict)


class Lowering:
    """Writes one kernel. `exact`: the inner tile has exactly as many coordinates as its block; `single`: inputs that another kernel
    left in float32, whatever the type of the inputs is; `order`: of the program instances."""

    def __init__(
        self, program: Program, exact: bool, single: frozenset[str] = frozenset(), order: Order | None = None
    ) -> None:  # fmt: skip
        self.order = order or in_turn(program)
        program = fold(program)
        self.program, self.exact, self.single = program, exact, single
        self.cascade = program.cascade
        self.whole_scalars = whole_scalars(program.cascade)
        self.body = Body([])
        names = {*(t.name for t in self.cascade.tensors), *(r.name for r in self.cascade.ranks), *self.cascade.symbols}
        self.taken = names | {n for n, _ in self.cascade.params} | set(self.cascade.counts) | RESERVED
        self.scopes: list[Scope] = [Scope(self.body.lines, 1)]
        self.pointers: dict[str, str] = {}
        self.locals: dict[tuple[str, str], str] = {}
        self.lasting: set[str] = set()
        """Names of arguments: taken for good, also when they are first met inside a loop."""
        self.partial = True
        self.true: frozenset[Expr] = frozenset()
        self.guarded = False
        self.einsum: Einsum | None = None
        self.blocks = {axis: self.fresh(f"BLOCK_{axis.upper()}") for axis in program.axes}
        self.definitions = {
            name: next((e for e in reversed(self.cascade.definitions(name))), None)
            for name in (t.name for t in self.cascade.tensors)
        }
        parent = self.cascade.rank(program.loop).part_of if program.loop else None
        self.parent = parent
        """The rank of which the loop walks the tiles; None if the loop rank is not a part."""

    # --- names and lines ---

    def fresh(self, wanted: str) -> str:
        name = wanted
        while name in self.taken or keyword.iskeyword(name):
            name += "_"
        self.taken.add(name)
        return name

    def argument(self, wanted: str) -> str:
        """A name that stays taken, also when it is first met inside a loop."""
        name = self.fresh(wanted)
        self.lasting.add(name)
        return name

    def local(self, name: str, suffix: str) -> str:
        """A variable of the generated code that belongs to a rank or a tensor; nothing in the cascade is called so."""
        if (name, suffix) not in self.locals:
            self.locals[(name, suffix)] = self.argument(f"{self.spelled(name)}_{suffix}")
        return self.locals[(name, suffix)]

    def spelled(self, name: str) -> str:
        """A name of the cascade as the generated code spells it."""
        return f"{name}_" if keyword.iskeyword(name) or name in RESERVED else name

    def emit(self, line: str, scope: Scope | None = None) -> None:
        scope = scope or self.scopes[-1]
        scope.lines.append("    " * scope.indent + line if line else "")

    def find(self, key: object) -> Tile | None:
        return next((scope.tiles[key] for scope in reversed(self.scopes) if key in scope.tiles), None)

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """A nested block of lines, one level deeper."""
        inner = Scope(self.scopes[-1].lines, self.scopes[-1].indent + 1)
        self.scopes.append(inner)
        taken = set(self.taken)
        yield inner
        self.taken = taken | self.lasting
        self.scopes.pop()

    def scalar(self, name: str) -> str:
        self.body.scalars.setdefault(name)
        return self.spelled(name)

    def extent(self, rank: str) -> str:
        """Name of a rank's extent in the kernel."""
        if rank not in self.body.extents:
            expr = self.cascade.rank(rank).extent
            self.body.extents[rank] = self.spelled(expr.name) if isinstance(expr, Scalar) else self.argument(f"N_{rank}")
        return self.body.extents[rank]

    # --- the whole kernel ---

    def run(self) -> Body:
        self.coordinates()
        for phase in self.program.phases:
            self.emit("")
            if isinstance(phase, Loop):
                self.loop(phase)
            else:
                self.straight(phase.einsums)
        return self.body

    def coordinates(self) -> None:
        """Which part of the output this program instance computes, and the coordinates along each axis of its tiles."""
        program = self.program
        order = self.order
        if order.ranks:
            self.emit("pid = tl.program_id(0)")
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
        for einsum in einsums:
            self.statement(einsum)

    def statement(self, einsum: Einsum, name: str | None = None) -> None:
        """One Einsum: its value under its own name, and the store if it is an output."""
        self.emit("# " + " ".join(print_einsum(einsum, self.cascade).split()))
        self.einsum = einsum
        tile = self.expr(self.prepared(einsum.body))
        if tile.loaded:
            tile = self.real(tile)
        name = name or self.spelled(einsum.output)
        self.emit(f"{name} = {tile.code}")
        self.scopes[-1].tiles[einsum.output] = Tile(name, tile.axes, tile.kind)
        if einsum.output in self.program.stores:
            self.store(einsum.output)

    def prepared(self, body: Expr) -> Expr:
        if self.program.loop is not None:
            body = normalise(self.program, body)
        return simplified(self.program, body) if isinstance(body, Reduce) else body

    # --- loops ---

    def loop(self, loop: Loop) -> None:
        program = self.program
        assert program.loop is not None
        for einsum in loop.initial:
            self.initial(einsum)
        found = conditions(program, loop)
        exact = tuple(c for c in found if c.exact)
        skipping = tuple(line for c in found if c.skippable for line in c.lines)
        begin, whole_begin, whole_end, end = self.ranges(skipping, tuple(line for c in exact for line in c.lines))
        self.hoist(loop)
        if not self.exact:
            self.steps(loop, begin, end, True, frozenset())
        elif self.parent is None and not found:
            self.steps(loop, begin, end, False, frozenset())
        else:
            if whole_begin != begin:
                self.emit("# steps cut by a mask, before the whole ones")
                self.steps(loop, begin, whole_begin, True, frozenset())
            rest = "" if len(exact) == len(found) else " that is not tested here"
            self.emit(f"# whole steps: no mask{rest} applies" if found else "# whole steps")
            self.steps(loop, whole_begin, whole_end, False, frozenset(normalise(program, c.expr) for c in exact))
            self.emit("# steps cut by a mask or by the end" if found else "# the step cut by the end")
            self.steps(loop, whole_end, end, True, frozenset())
        for state in loop.states:  # what a loop leaves behind is the last position
            self.scopes[-1].tiles[(state, "last")] = self.scopes[-1].tiles[(state, "now")]

    def initial(self, einsum: Einsum) -> None:
        """A state before its first step, as a tile of its full shape."""
        tensor = self.cascade.tensor(einsum.output)
        axes = tuple(axis for axis in self.program.axes if axis in tensor.ranks)
        self.einsum = einsum
        tile = self.expr(self.prepared(einsum.body))
        shape = f"({', '.join(self.blocks[axis] for axis in axes)}{',' if len(axes) == 1 else ''})"
        name = self.spelled(einsum.output)
        if tensor.dtype == "bool":
            value = f"tl.full({shape}, {tile.code}, tl.int32) != 0"
        elif tensor.dtype == "int":
            ends = {'float("inf")': str(INT_MAX), 'float("-inf")': str(INT_MIN)}
            start = spread(Tile(ends.get(tile.code, tile.code), tile.axes, "int", binding=tile.binding), axes)
            value = f"tl.zeros({shape}, tl.int64) + {start.within(SUM)}"
        elif not isinstance(einsum.body, Access) and not any(isinstance(n, Access | Coord) for n in walk(einsum.body)):
            value = f"tl.full({shape}, {self.fractional(tile).code}, tl.float32)"
        else:
            value = f"tl.zeros({shape}, tl.float32) + {spread(self.fractional(tile), axes).within(SUM)}"
        before = self.find((einsum.output, "last"))
        if before is not None and before.code == name:  # an earlier loop walked the same state: keep where that ended
            kept = self.local(einsum.output, "last")
            self.emit(f"{kept} = {name}")
            self.scopes[-1].tiles[(einsum.output, "last")] = Tile(kept, before.axes, before.kind)
        self.emit(f"{name} = {value}")
        self.scopes[-1].tiles[(einsum.output, "now")] = Tile(name, axes, _kind(tensor.dtype))

    def ranges(self, skipping: tuple[HalfLine, ...], whole: tuple[HalfLine, ...]) -> tuple[str, str, str, str]:
        """Steps that run, and among them those that no mask cuts: names of four bounds."""
        loop = self.program.loop
        assert loop is not None
        step, extent = self.tile_extent(), self.extent(self.parent or loop)
        low = [self.scalar_code(line.bound.low) for line in skipping if not line.upper]
        high = [self.scalar_code(line.bound.high) for line in skipping if line.upper]
        whole_low = [self.scalar_code(line.bound.high) for line in whole if not line.upper]
        whole_high = [self.scalar_code(line.bound.low) for line in whole if line.upper]
        begin = "0"
        if low:
            begin = self.local(loop, "begin")
            self.emit(f"{begin} = {_nested('tl.maximum', [*low, '0'])} // {step}")
        end = self.local(loop, "end")
        if high:
            self.emit(f"{end} = tl.maximum({_nested('tl.minimum', [f'{h} + 1' for h in high] + [extent])}, 0)")
            self.emit(f"{end} = tl.cdiv({end}, {step})")
            if low:
                self.emit(f"{end} = tl.maximum({end}, {begin})")
        else:
            self.emit(f"{end} = tl.cdiv({extent}, {step})")
            if low:
                self.emit(f"{begin} = tl.minimum({begin}, {end})")
        full_begin = begin
        if whole_low:
            full_begin = self.local(loop, "whole_begin")
            self.emit(f"{full_begin} = tl.cdiv({_nested('tl.maximum', [*whole_low, '0'])}, {step})")
            self.emit(f"{full_begin} = tl.minimum(tl.maximum({full_begin}, {begin}), {end})")
        full_end = self.local(loop, "whole_end")
        stop = _nested("tl.minimum", [f"{h} + 1" for h in whole_high] + [extent])
        self.emit(f"{full_end} = {f'tl.maximum({stop}, 0)' if whole_high else stop} // {step}")
        if whole_high or whole_low or low:
            self.emit(f"{full_end} = tl.minimum(tl.maximum({full_end}, {full_begin}), {end})")
        return begin, full_begin, full_end, end

    def tile_extent(self) -> str:
        """Coordinates in one step."""
        return self.extent(self.program.inner) if self.program.inner is not None else "1"

    def scalar_code(self, expr: Expr) -> str:
        """A bound of a mask: a scalar of the kernel, 32 bits wide."""
        tile = self.expr(expr)
        if any(isinstance(node, Coord | Access) for node in walk(expr)):
            return f"tl.cast({tile.code}, tl.int32)"
        return tile.code

    def hoist(self, loop: Loop) -> None:
        """Loads that do not depend on the step go before the loop."""
        for einsum in loop.body:
            self.einsum = einsum
            for node in walk(self.prepared(einsum.body)):
                if isinstance(node, Access) and self.cascade.tensor(node.tensor).kind == "input":
                    self.starts(node.tensor, node.indices)
            if einsum.output in self.program.stores:
                self.starts(einsum.output, self.program.stores[einsum.output])
            for access in self.unconditional(self.prepared(einsum.body)):
                if self.cascade.tensor(access.tensor).kind == "input" and not self.moves(access):
                    self.load(access)

    def starts(self, tensor: str, indices: tuple[Expr, ...]) -> None:
        """Compute where a tensor begins for this program instance before the loop rather than in it."""
        parts = [self.pointer(tensor)]
        for number, index in enumerate(indices):
            if self.invariant(index):
                parts += self.index(index, None if number == len(indices) - 1 else self.stride(tensor, number))[0]
        self.start(tensor, parts)

    def unconditional(self, expr: Expr) -> Iterator[Access]:
        """Accesses that may be made whatever the conditions around them."""
        if isinstance(expr, Access):
            if not any(isinstance(node, Access) for index in expr.indices for node in walk(index)):
                yield expr
            return
        parts = children(expr)
        if isinstance(expr, Map) and expr.op == "where":
            yield from self.unconditional(parts[0])
            yield from (a for part in parts[1:] for a in self.unconditional(part) if self.stays_inside(a))
            return
        for part in parts:
            yield from self.unconditional(part)

    def moves(self, access: Access) -> bool:
        """Does the element change from step to step?"""
        return bool(free_ranks(access) & {self.program.loop, WHOLE_COORDINATE})

    def steps(self, loop: Loop, begin: str, end: str, partial: bool, true: frozenset[Expr]) -> None:
        """One part of a loop."""
        assert self.program.loop is not None
        name = self.spelled(self.program.loop)
        self.emit(f"for {name} in range({begin}, {end}):")
        self.partial, self.true = partial, true
        with self.scope() as scope:
            if self.parent is not None:
                parent = self.spelled(self.parent)
                inner = self.spelled(self.program.inner or "")
                first = self.local(self.parent, "first")
                self.emit(f"{first} = {name} * {self.tile_extent()}")
                self.emit(f"{parent} = {first} + {inner}")
                if partial:
                    inside = f"{parent} < {self.extent(self.parent)}"
                    here = inside if self.exact else f"({inside}) & {self.local(self.program.inner or '', 'in')}"
                    self.emit(f"{self.local(self.parent, 'in')} = {here}")
            for einsum in loop.body:
                if einsum.output in loop.states:
                    self.statement(einsum, self.local(einsum.output, "next"))
                    scope.tiles[(einsum.output, "next")] = self.conformed(scope, einsum)
                else:
                    self.statement(einsum)
            for state in loop.states:
                if state in {e.output for e in loop.body}:
                    self.emit(f"{self.spelled(state)} = {scope.tiles[(state, 'next')].code}")
        self.partial, self.true = True, frozenset()

    def conformed(self, scope: Scope, einsum: Einsum) -> Tile:
        """The next value of a state in the shape of the state (a step may not mention all of its axes)."""
        now = self.find((einsum.output, "now"))
        tile = scope.tiles[einsum.output]
        assert now is not None
        if tile.axes != now.axes:
            if set(tile.axes) == set(now.axes):
                code = permuted(tile, now.axes).code
            else:
                shape = ", ".join(self.blocks[axis] for axis in now.axes)
                code = f"tl.broadcast_to({spread(tile, now.axes).code}, ({shape}{',' if len(now.axes) == 1 else ''}))"
            self.emit(f"{tile.code} = {code}")
        return Tile(tile.code, now.axes, now.kind)

    # --- memory ---

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

    def index_axes(self, expr: Expr) -> frozenset[str]:
        """Axes along which an index varies."""
        return self.program.axes_of(expr)

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

    def invariant(self, index: Expr) -> bool:
        """Is an index one scalar for the whole program instance, without a load?"""
        single = frozenset(self.program.grid) - frozenset(self.program.tiled)
        return free_ranks(index) <= single and not any(isinstance(node, Access) for node in walk(index))

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

    def pointer(self, tensor: str) -> str:
        """Name of the pointer argument of a tensor; an output's differs from that of its tile."""
        self.body.pointers.setdefault(tensor)
        if tensor not in self.program.stores:
            return self.spelled(tensor)
        if tensor not in self.pointers:
            self.pointers[tensor] = self.argument(f"{tensor}_out")
        return self.pointers[tensor]

    def stride(self, tensor: str, dimension: int) -> str:
        key = (tensor, dimension)
        if key not in self.body.strides:
            rank = self.program.source.tensor(tensor).ranks[dimension]
            self.body.strides[key] = self.argument(f"stride_{tensor}_{rank}")
        return self.body.strides[key]

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
                case Coord(rank=r) if r in self.program.tiled:
                    always.append(Tile(self.local(r, "in"), (r,), "bool"))
                case Coord(rank=r) if r == WHOLE_COORDINATE:
                    if self.parent is not None and self.partial:
                        assert self.program.inner is not None
                        always.append(Tile(self.local(self.parent, "in"), (self.program.inner,), "bool"))
                case Coord(rank=r) if r == self.program.inner:
                    if not self.exact:
                        always.append(Tile(self.local(r, "in"), (r,), "bool"))
                case Coord(rank=r) if r in self.program.axes:
                    whole.append((r, Tile(self.local(r, "in"), (r,), "bool")))
                case Coord():
                    pass  # one coordinate of the grid
                case _:
                    gathered = any(isinstance(n, Access) for n in walk(index))
                    tile = self.expr(index)
                    if not (tile.axes or self.guarded or gathered):
                        continue
                    if tile.kind != "int":
                        tile = _wide(tile)  # a whole number that was computed with
                    tests = [] if self.never_negative(index) else [f"{tile.within(SUM)} >= 0"]
                    below = Map("<", (index, self.cascade.rank(rank).extent))
                    if below not in self.true:
                        tests.append(f"{tile.within(SUM)} < {self.extent(rank)}")
                    if len(tests) == 1:
                        always.append(Tile(tests[0], tile.axes, "bool", binding=COMPARISON))
                    elif tests:
                        always.append(Tile(" & ".join(f"({test})" for test in tests), tile.axes, "bool", binding=BITWISE))
        return always, whole

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
        if len(whole) == 1:
            rank = whole[0][0]
            return f"{together(always) if always else 'True'} if {self.extent(rank)} == {self.blocks[rank]} else {everything}"
        return everything

    def load(self, access: Access, tests: tuple[Tile, ...] = ()) -> Tile:
        """The tile that an access to an input reads; 0 where a test fails."""
        guarded = self.guarded and not self.stays_inside(access)
        key = ("load", access, guarded, tests)
        known = self.find(key)
        if known is not None:
            return known
        kind = _kind(self.cascade.tensor(access.tensor).dtype)
        saved, self.guarded = self.guarded, guarded
        address, axes = self.address(access.tensor, access.indices)
        mask = self.mask(access.tensor, access.indices, axes, tests)
        self.guarded = saved
        name = self.fresh(f"{access.tensor}_tile" if axes else f"{access.tensor}_value")
        other = ", other=0.0" if kind == "float" else ", other=0"
        self.emit(f"{name} = tl.load({address}{f', mask={mask}{other}' if mask else ''})")
        if kind == "bool":
            self.emit(f"{name} = {name} != 0")
        tile = Tile(name, axes, kind, loaded=kind == "float" and access.tensor not in self.single)
        self.scopes[-1].tiles[key] = tile
        return tile

    def stays_inside(self, access: Access) -> bool:
        """Does the access stay inside its tensor by its form alone, whatever condition it stands under?"""
        tensor = self.cascade.tensor(access.tensor)
        return tensor.kind == "input" and all(
            (isinstance(index, Coord) and self.same_extent(index.rank, rank))
            or (
                isinstance(index, Map)
                and index.op == "//"
                and isinstance(index.args[0], Coord)
                and isinstance(index.args[1], Scalar)
            )
            for rank, index in zip(tensor.ranks, access.indices, strict=True)
        )

    def same_extent(self, walked: str, rank: str) -> bool:
        """Has the rank that a coordinate walks the extent of a dimension, by their declarations?"""
        if walked == WHOLE_COORDINATE:
            walked = self.parent or self.program.loop or ""
        return walked == rank or self.cascade.rank(walked).extent == self.cascade.rank(rank).extent

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

    # --- expressions ---

    def real(self, tile: Tile) -> Tile:
        """The tile as 32-bit floating point numbers."""
        if tile.loaded:
            return Tile(f"{tile.index}.to(tl.float32)", tile.axes)
        if tile.kind == "bool":
            return Tile(f"tl.cast({tile.code}, tl.float32)", tile.axes)
        return tile

    def fractional(self, tile: Tile) -> Tile:
        """The tile as floating point even if it holds whole numbers."""
        if tile.kind == "int":
            if tile.code.isdigit():
                return Tile(f"{tile.code}.0")
            return Tile(f"tl.cast({tile.code}, tl.float32)", tile.axes)
        return self.real(tile)

    def truth(self, tile: Tile) -> Tile:
        return tile if tile.kind == "bool" else Tile(f"{self.real(tile).within(SUM)} != 0", tile.axes, "bool", binding=COMPARISON)

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
            case _:
                raise refuse("E603", f"no kernel is generated for this expression in the Einsum of `{self._output()}`", self.einsum)

    def host_number(self, expr: Map) -> bool:
        """Is the expression one floating point number that the host can compute once, more precisely than the kernel?"""
        nodes = tuple(walk(expr))
        names = [node.name for node in nodes if isinstance(node, Scalar)]
        known = {*self.cascade.symbols, *self.cascade.counts, *(name for name, _ in self.cascade.params)}
        scalars = all(isinstance(node, Number | Scalar | Map) for node in nodes) and bool(names) and set(names) <= known
        plain = all(not isinstance(node, Map) or node.op in HOST_OPS for node in nodes)
        return scalars and plain and not self.is_int(expr)

    def computed(self, expr: Expr) -> str:
        """Name of the argument that holds a number computed on the host."""
        for name, known in self.body.computed.items():
            if known == expr:
                return name
        names = [node.name for node in walk(expr) if isinstance(node, Scalar)]
        folded = LOG2E in tuple(walk(expr)) and len(names) == 1
        name = self.argument(f"{names[0]}_log2e" if folded else f"number_{len(self.body.computed) + 1}")
        self.body.computed[name] = expr
        return name

    def _output(self) -> str:
        return self.einsum.output if self.einsum else "?"

    def edge(self, name: str) -> Tile:
        """First or last coordinate of a tiled rank."""
        rank, which = name.split(".")
        first = self.local(rank, "first")
        if which == "first":
            return Tile(first, (), "int")
        known = self.find(("last coordinate", rank))
        if known is None:
            known = Tile(self.local(rank, "last"), (), "int")
            self.emit(f"{known.code} = tl.minimum({first} + {self.blocks[rank]}, {self.extent(rank)}) - 1")
            self.scopes[-1].tiles[("last coordinate", rank)] = known
        return known

    def access(self, access: Access) -> Tile:
        tensor = self.cascade.tensor(access.tensor)
        if tensor.kind == "input":
            return self.load(access)
        key: object = access.tensor
        if tensor.kind == "state":
            assert tensor.iterates is not None
            index = access.indices[tensor.ranks.index(tensor.iterates)]
            key = (access.tensor, "now" if index == Coord(WHOLE_COORDINATE) else self.state_position(access.tensor, index))
        tile = self.find(key)
        if tile is None:
            raise refuse("E604", f"`{access.tensor}` is not at hand in the Einsum of `{self._output()}`", self.einsum)
        return tile

    def state_position(self, state: str, index: Expr) -> str | None:
        plain = index
        if isinstance(index, Map) and index.op == "+" and Coord(WHOLE_COORDINATE) in index.args:
            return "next"
        return position(self.cascade, state, plain)

    def choice(self, condition: Expr, yes: Expr, no: Expr) -> Tile:
        """`where`: without the test in steps that it leaves whole."""
        if condition in self.true:
            return self.expr(yes)
        test = self.truth(self.expr(condition))
        guarded, self.guarded = self.guarded, True
        a, b = self.real(self.expr(yes)), self.real(self.expr(no))
        self.guarded = guarded
        kind: Kind = "float" if "float" in (a.kind, b.kind) else a.kind
        (test, a, b), axes = combine([test, a, b], self.program.axes)
        return Tile(f"tl.where({test.code}, {a.code}, {b.code})", axes, kind)

    def map(self, expr: Map) -> Tile:
        op = expr.op
        if op == "-" and not self.is_int(expr):
            return self.difference(expr.args[0], expr.args[1])
        tiles = [self.expr(arg) for arg in expr.args]
        if op in ("and", "or"):
            tiles, axes = combine([self.truth(t) for t in tiles], self.program.axes)
            sign = " & " if op == "and" else " | "
            return Tile(sign.join(t.within(PRODUCT) for t in tiles), axes, "bool", binding=BITWISE)
        if op == "not":
            (test,) = (self.truth(t) for t in tiles)
            return Tile(f"~{test.within(ATOM)}", test.axes, "bool", binding=UNARY)
        tiles = [self.real(t) for t in tiles]
        lined, axes = combine(tiles, self.program.axes)
        kind: Kind = "int" if all(t.kind == "int" for t in tiles) else "float"
        if kind == "int" and self.may_be_wide(expr):
            lined[0] = _wide(lined[0])
        a = lined[0]
        if op in COMPARISONS:
            return Tile(f"{a.within(SUM)} {op} {lined[1].within(SUM)}", axes, "bool", binding=COMPARISON)
        match op:
            case "+" | "-":
                return Tile(f"{a.within(SUM)} {op} {lined[1].within(PRODUCT)}", axes, kind, binding=SUM)
            case "*":
                return Tile(f"{a.within(PRODUCT)} * {lined[1].within(UNARY)}", axes, kind, binding=PRODUCT)
            case "/":
                return self.quotient(expr, [self.fractional(t) for t in lined], axes)
            case "//" | "%":
                return self.whole_quotient(op, expr, lined, axes, kind)
            case "**":
                return self.power(expr, lined, axes, kind)
            case "neg" if a.code == 'float("inf")':
                return Tile('float("-inf")')
            case "neg":
                return Tile(f"-{a.within(ATOM)}", axes, kind, binding=UNARY)
            case "min" | "max":
                return Tile(f"tl.{op}imum({a.code}, {lined[1].code})", axes, kind)
            case "clamp":
                return Tile(f"tl.minimum(tl.maximum({a.code}, {lined[1].code}), {lined[2].code})", axes, kind)
            case "abs":
                return Tile(f"tl.abs({a.code})", axes, kind)
            case "floor" | "ceil" | "round" if kind == "int":
                return a
            case "relu" if kind == "int":
                return Tile(f"tl.maximum({a.code}, 0)", axes, kind)
        a = self.fractional(a)
        if op in ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "erf", "sin", "cos", "floor", "ceil"):
            return Tile(f"tl.{op}({a.code})", axes)
        name = f"_{op}"
        self.body.helpers.add(name)
        return Tile(f"{name}({a.code})", axes)

    def may_be_wide(self, expr: Map) -> bool:
        """Can whole numbers leave 32 bits here? Coordinates and their sums do not; products and what is loaded may."""
        if expr.op in ("*", "**"):
            return not (expr.op == "*" and any(isinstance(arg, Number) for arg in expr.args) and not self.loads(expr))
        return expr.op in ("+", "-", "neg", "abs") and self.loads(expr)

    def loads(self, expr: Expr) -> bool:
        return any(isinstance(node, Access) for node in walk(expr))

    def is_int(self, expr: Expr) -> bool:
        """Does the expression hold whole numbers?"""
        match expr:
            case Number(value=value):
                return isinstance(value, int)
            case Coord():
                return True
            case Scalar(name=name):
                return name in self.whole_scalars or "." in name
            case Access(tensor=tensor):
                return self.cascade.tensor(tensor).dtype == "int"
            case Reduce(op="sum" | "prod" | "max" | "min", body=body):
                return self.is_int(body)
            case Map(op="where", args=(_, a, b)):
                return self.is_int(a) and self.is_int(b)
            case Map(op=op, args=args):
                return op in ("+", "-", "*", "//", "%", "neg", "min", "max", "clamp", "abs") and all(self.is_int(a) for a in args)
            case _:
                return False

    def difference(self, a: Expr, b: Expr) -> Tile:
        """a - b with -inf - (-inf) = -inf, by the cheapest code that is right for these operands."""
        if self.never_empty(a) or self.never_empty(b):
            tiles, axes = combine([self.real(self.expr(a)), self.real(self.expr(b))], self.program.axes)
            return Tile(f"{tiles[0].within(SUM)} - {tiles[1].within(PRODUCT)}", axes, binding=SUM)
        if a in self.bounded_by(b):
            # a <= b: where b is -inf so is a, and a - 0 is what is wanted
            right = self.real(self.expr(b))
            safe = self.find(("safe", right.code))
            if safe is None:
                name = self.fresh(f"{right.code}_safe") if right.code.isidentifier() else self.fresh("safe")
                self.emit(f'{name} = tl.where({right.code} == float("-inf"), 0.0, {right.code})')
                safe = Tile(name, right.axes)
                self.scopes[-1].tiles[("safe", right.code)] = safe
            tiles, axes = combine([self.real(self.expr(a)), safe], self.program.axes)
            return Tile(f"{tiles[0].within(SUM)} - {tiles[1].code}", axes, binding=SUM)
        self.body.helpers.add("_minus")
        tiles, axes = combine([self.real(self.expr(a)), self.real(self.expr(b))], self.program.axes)
        return Tile(f"_minus({tiles[0].code}, {tiles[1].code})", axes)

    def never_empty(self, expr: Expr) -> bool:
        """Is the value never -inf, for inputs whose products stay finite?"""
        match expr:
            case Number() | Scalar() | Coord():
                return True
            case Map(op=op, args=args):
                if op in ("exp", "exp2", "sigmoid", "softplus", "relu", "abs", "sqrt", "tanh", "erf", "sin", "cos", "*", "**", "/"):
                    return op not in ("*", "/", "**") or all(self.never_empty(a) for a in args)
                return (
                    op in ("neg", "+", "-", "max", "min")
                    and all(self.never_empty(a) for a in args)
                    and expr.args[0] != Number(float("inf"))
                )
            case _:
                return False

    def bounded_by(self, expr: Expr) -> set[Expr]:
        """Expressions that are nowhere greater than this one, by its definition."""
        found: set[Expr] = {expr}
        todo = [expr]
        while todo:
            node = todo.pop()
            below: tuple[Expr, ...] = ()
            match node:
                case Map(op="max", args=args):
                    below = args
                case Map(op="where", args=(condition, yes, _)) if condition in self.true:
                    below = (yes,)
                case Reduce(op="max", body=body):
                    below = (body,)
                case Access(tensor=name, indices=indices):
                    tensor, definition = self.cascade.tensor(name), self.definitions[name]
                    if definition is None:
                        continue
                    if tensor.kind == "einsum":
                        below = (self.prepared(definition.body),)
                    elif tensor.kind == "state":
                        assert tensor.iterates is not None
                        index = indices[tensor.ranks.index(tensor.iterates)]
                        where, step = self.state_position(name, index), self.prepared(definition.body)
                        if where == "next" or (where == "last" and self.never_falls(name, step)):
                            below = (step,)
            for other in below:
                if other not in found:
                    found.add(other)
                    todo.append(other)
        return found

    def never_falls(self, state: str, step: Expr) -> bool:
        """Is the next position of a state at least the one before: a maximum with it?"""
        parts = list(step.args) if isinstance(step, Map) and step.op == "max" else []
        return any(isinstance(part, Access) and part.tensor == state and self.is_now(part) for part in parts)

    def is_now(self, access: Access) -> bool:
        tensor = self.cascade.tensor(access.tensor)
        assert tensor.iterates is not None
        index = access.indices[tensor.ranks.index(tensor.iterates)]
        return index == Coord(WHOLE_COORDINATE) or self.state_position(access.tensor, index) == "now"

    def quotient(self, expr: Map, tiles: list[Tile], axes: tuple[str, ...]) -> Tile:
        """a / b with 0 / 0 = 0."""
        a, b = expr.args
        nonzero = isinstance(b, Number) and b.value != 0
        nonzero |= isinstance(a, Number) and a.value != 0
        if nonzero:
            return Tile(f"{tiles[0].within(PRODUCT)} / {tiles[1].within(UNARY)}", axes, binding=PRODUCT)
        self.body.helpers.add("_over")
        return Tile(f"_over({tiles[0].code}, {tiles[1].code})", axes)

    def whole_quotient(self, op: str, expr: Map, tiles: list[Tile], axes: tuple[str, ...], kind: Kind) -> Tile:
        a, b = expr.args
        if kind == "int":
            if self.never_negative(a) and self.never_negative(b):
                return Tile(f"{tiles[0].within(PRODUCT)} {op} {tiles[1].within(UNARY)}", axes, kind, binding=PRODUCT)
            name = "_floor_div" if op == "//" else "_floor_mod"
        else:
            name = "_floor_div_float" if op == "//" else "_floor_mod_float"
        self.body.helpers.add(name)
        return Tile(f"{name}({tiles[0].code}, {tiles[1].code})", axes, kind)

    def never_negative(self, expr: Expr) -> bool:
        match expr:
            case Number() | Coord():
                return True
            case Scalar(name=name):
                extents = any(rank.extent == expr for rank in self.cascade.ranks)
                return extents or name in self.cascade.symbols or name in self.cascade.counts or self._extent_quotient(name)
            case Map(op=op, args=args):
                return op in ("+", "*", "//", "%", "max", "min") and all(self.never_negative(arg) for arg in args)
            case _:
                return False

    def _extent_quotient(self, name: str) -> bool:
        """Is a parameter computed from extents by operations that keep it from being negative?"""
        value = dict(self.cascade.params).get(name)
        return (
            value is not None and name not in {n.name for n in walk(value) if isinstance(n, Scalar)} and self.never_negative(value)
        )

    def power(self, expr: Map, tiles: list[Tile], axes: tuple[str, ...], kind: Kind) -> Tile:
        exponent = expr.args[1]
        negative = isinstance(exponent, Map) and exponent.op == "neg" and isinstance(exponent.args[0], Number)
        number = exponent.args[0] if negative and isinstance(exponent, Map) else exponent
        if isinstance(number, Number) and number.value == 0.5:
            return Tile(f"tl.{'r' if negative else ''}sqrt({self.fractional(tiles[0]).code})", axes)
        if isinstance(number, Number) and isinstance(number.value, int) and 1 <= number.value <= 16:
            base = tiles[0]
            if not base.code.isidentifier():
                name = self.fresh("base")
                self.emit(f"{name} = {base.code}")
                base = Tile(name, base.axes, base.kind)
            code = _chain(base.code, number.value)
            if negative:
                return Tile(f"1.0 / ({code})", axes, binding=PRODUCT)
            return Tile(code, axes, kind, binding=PRODUCT if number.value > 1 else ATOM)
        self.body.helpers.add("_power")
        lined = [self.fractional(tile) for tile in tiles]
        return Tile(f"_power({lined[0].code}, {lined[1].code})", axes)

    # --- reductions ---

    def reduce(self, reduce: Reduce) -> Tile:
        found = contraction(self.program, reduce)
        if found is not None:
            if self.is_int(reduce):
                what = f"the Einsum of `{self._output()}` contracts whole numbers, and matrix products of kernels are not exact"
                raise refuse("E603", what, self.einsum)
            left, right = self.operand(found.left, found.k), self.operand(found.right, found.k)
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
                tile = self.load(access, (test, valid) if valid is not None and k in axes else (test,))
                self.guarded = guarded
                return tile
        return None

    def valid(self, axis: str) -> Tile | None:
        """Which coordinates of an axis exist; None if all of them do in this part of the loop."""
        if axis == self.program.inner:
            if self.parent is None or not self.partial:
                return None
            inside_loop = len(self.scopes) > 1
            if inside_loop:
                return Tile(self.local(self.parent, "in"), (axis,), "bool")
            return None if self.exact else Tile(self.local(axis, "in"), (axis,), "bool")
        return Tile(self.local(axis, "in"), (axis,), "bool")

    def masked(self, tile: Tile, axis: str, identity: str) -> Tile:
        """The tile with the identity of a reduction where the axis has no coordinate."""
        valid = self.valid(axis)
        if valid is None or axis not in tile.axes:
            return tile
        (value, inside), axes = combine([tile, valid], self.program.axes)
        return Tile(f"tl.where({inside.code}, {value.code}, {identity})", axes, tile.kind)

    def vector_reduce(self, reduce: Reduce) -> Tile:
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
        tile = _wide(tile) if whole else self.fractional(tile)
        start = _whole_identity(op) if whole else _literal_expr(IDENTITY[op])
        tile = self.masked(tile, axis, start)
        rest = tuple(a for a in tile.axes if a != axis)
        place = tile.axes.index(axis)
        if op == "prod":
            self.body.helpers.add("_multiply")
            return Tile(f"tl.reduce({tile.code}, {place}, _multiply)", rest, tile.kind)
        name = {"sum": "sum", "mean": "sum", "max": "max", "min": "min"}[op]
        return Tile(f"tl.{name}({tile.code}, {place})", rest, tile.kind)


def _wide(tile: Tile) -> Tile:
    """Whole numbers in 64 bits."""
    return Tile(f"tl.cast({tile.code}, tl.int64)", tile.axes, "int")


def _whole_identity(op: str) -> str:
    """What a reduction of whole numbers holds before the first: the least or greatest one in place of infinity."""
    return {"sum": "0", "prod": "1", "max": str(INT_MIN), "min": str(INT_MAX)}[op]


def _kind(dtype: DType) -> Kind:
    return dtype


def _literal(value: int | float) -> Tile:
    if isinstance(value, int):
        return Tile(str(value), (), "int")
    if value == float("inf"):
        return Tile('float("inf")')
    return Tile(repr(float(value)))


def _literal_expr(expr: Expr) -> str:
    match expr:
        case Number(value=value):
            return f"{float(value)!r}" if value != float("inf") else 'float("inf")'
        case _:
            return 'float("-inf")'


def _nested(function: str, parts: list[str]) -> str:
    """`f(f(a, b), c)`; a single part as it is."""
    code = parts[0]
    for part in parts[1:]:
        code = f"{function}({code}, {part})"
    return code


def _chain(base: str, power: int) -> str:
    """x ** n by few multiplications."""
    if power == 1:
        return base
    half = _chain(base, power // 2)
    square = f"{half} * {half}" if power // 2 == 1 else f"({half}) * ({half})"
    return f"{square} * {base}" if power % 2 else square
