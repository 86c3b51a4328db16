"""Statements and loops: the Einsums of a program in their order.

In: Einsums that stand by themselves, or a loop with running states. Out: one statement an Einsum, and loops in up to three parts by
the bounds of their masks (`mapper.loop_masks`): steps cut by a mask, whole steps without masks, steps cut by a mask; steps that a
mask empties are not run at all where skipping them is proved to change nothing. A running state is a value that the loop carries.
"""

from __future__ import annotations

from ..einsum.arithmetic import INT_MAX, INT_MIN
from ..einsum.cascade import Access, Coord, Einsum, Expr, Map, Number, walk
from ..einsum.printer import print_einsum
from ..mapper.loop_masks import Condition, HalfLine, conditions, normalise
from ..mapper.program import Loop
from .reductions import Reductions
from .text import Scope
from .tile import SUM, Tile, permuted, spread


class Loops(Reductions):
    """Statements and loops of one kernel."""

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

    def loop(self, loop: Loop) -> None:
        """A walk over the sequential rank, in up to three parts; its states are known at their last position afterwards."""
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
            last = self.last_cut(exact)
            self.emit("# steps cut by a mask or by the end" if last is None else "# the step cut by the end")
            if last is None:
                self.steps(loop, whole_end, end, True, frozenset())
            else:
                self.emit(f"if {last}:")
                self.scopes[-1].indent += 1
                self.steps(loop, whole_end, end, True, frozenset())
                self.scopes[-1].indent -= 1
        for state in loop.states:  # what a loop leaves behind is the last position
            self.scopes[-1].tiles[(state, "last")] = self.scopes[-1].tiles[(state, "now")]

    def last_cut(self, exact: tuple[Condition, ...]) -> str | None:
        """Name of whether the end cuts a step, which is known when the kernel is compiled; None where a mask cuts steps at the end,
        too. Code for a step that is not there would take registers of those before it."""
        if self.parent is None or any(line.upper for condition in exact for line in condition.lines):
            return None
        name = self.local(self.parent, "cut")
        whole = self.cascade.rank(self.parent).extent
        step = self.cascade.rank(self.program.inner or "").extent
        self.body.decided[name] = Map("!=", (Map("%", (whole, step)), Number(0)))
        return name

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
        self.scopes[-1].tiles[(einsum.output, "now")] = Tile(name, axes, tensor.dtype)

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
                if isinstance(node, Access) and self.cascade.tensor(node.tensor).kind == "input" and not self.by_descriptor(node):
                    self.starts(node.tensor, node.indices)
            if einsum.output in self.program.stores:
                self.starts(einsum.output, self.program.stores[einsum.output])
            for access in self.unconditional(self.prepared(einsum.body)):
                if self.cascade.tensor(access.tensor).kind == "input" and not self.moves(access):
                    self.load(access)

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


def _nested(function: str, parts: list[str]) -> str:
    """`f(f(a, b), c)`; a single part as it is."""
    code = parts[0]
    for part in parts[1:]:
        code = f"{function}({code}, {part})"
    return code
