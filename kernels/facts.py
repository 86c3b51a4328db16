"""What a kernel may know about values without computing them.

In: expressions of the program. Out: yes or no: whole or fractional, never negative, never -inf, nowhere greater than another,
inside its tensor, the same at every step. Where nothing is known the answer is the safe one.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..einsum.cascade import Access, Coord, Expr, Map, Number, Reduce, Scalar, children, free_ranks, walk
from ..mapper.contraction import simplified
from ..mapper.loop_masks import normalise
from ..mapper.program import WHOLE_COORDINATE, position
from ..mapper.whole_numbers import WHOLE_OPS
from .text import Text

HOST_OPS = frozenset({"+", "-", "*", "/", "neg", "exp", "exp2", "log", "log2", "sqrt", "rsqrt", "min", "max", "abs"})
"""Operations that the host part of a module computes for the kernel where they have scalars only."""


class Facts(Text):
    """Facts about the expressions of one kernel."""

    def prepared(self, body: Expr) -> Expr:
        """An expression as conditions and contractions are looked for in it: the loop coordinate by its name, sums simplified."""
        if self.program.loop is not None:
            body = normalise(self.program, body)
        return simplified(self.program, body) if isinstance(body, Reduce) else body

    def state_position(self, state: str, index: Expr) -> str | None:
        """`now` or `next`, which position of a state an index means within the loop; None for any other."""
        if isinstance(index, Map) and index.op == "+" and Coord(WHOLE_COORDINATE) in index.args:
            return "next"
        return position(self.cascade, state, index)

    def is_now(self, access: Access) -> bool:
        """Is it the position of a state before the step?"""
        tensor = self.cascade.tensor(access.tensor)
        assert tensor.iterates is not None
        index = access.indices[tensor.ranks.index(tensor.iterates)]
        return index == Coord(WHOLE_COORDINATE) or self.state_position(access.tensor, index) == "now"

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
                return op in WHOLE_OPS and all(self.is_int(a) for a in args)
            case _:
                return False

    def may_be_wide(self, expr: Map) -> bool:
        """Can whole numbers leave 32 bits here? Coordinates and their sums do not; products and what is loaded may."""
        if expr.op in ("*", "**"):
            return not (expr.op == "*" and any(isinstance(arg, Number) for arg in expr.args) and not self.loads(expr))
        return expr.op in ("+", "-", "neg", "abs") and self.loads(expr)

    def loads(self, expr: Expr) -> bool:
        """Does the expression read any tensor?"""
        return any(isinstance(node, Access) for node in walk(expr))

    def host_number(self, expr: Map) -> bool:
        """Is the expression one floating point number that the host can compute once, more precisely than the kernel?"""
        nodes = tuple(walk(expr))
        names = [node.name for node in nodes if isinstance(node, Scalar)]
        known = {*self.cascade.symbols, *self.cascade.counts, *(name for name, _ in self.cascade.params)}
        scalars = all(isinstance(node, Number | Scalar | Map) for node in nodes) and bool(names) and set(names) <= known
        plain = all(not isinstance(node, Map) or node.op in HOST_OPS for node in nodes)
        return scalars and plain and not self.is_int(expr)

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

    def never_negative(self, expr: Expr) -> bool:
        """Is every value 0 or more, by the expression alone?"""
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

    def same_extent(self, walked: str, rank: str) -> bool:
        """Has the rank that a coordinate walks the extent of a dimension, by their declarations?"""
        if walked == WHOLE_COORDINATE:
            walked = self.parent or self.program.loop or ""
        return walked == rank or self.cascade.rank(walked).extent == self.cascade.rank(rank).extent

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

    def invariant(self, index: Expr) -> bool:
        """Is an index one scalar for the whole program instance, without a load?"""
        single = frozenset(self.program.grid) - frozenset(self.program.tiled)
        return free_ranks(index) <= single and not any(isinstance(node, Access) for node in walk(index))

    def index_axes(self, expr: Expr) -> frozenset[str]:
        """Axes along which an index varies."""
        return self.program.axes_of(expr)

    def _output(self) -> str:
        return self.einsum.output if self.einsum else "?"
