"""Which matrix products share out their results among warps alike, and where tiles that lie differently meet.

In: a program and its products. Out: a number for each product, the same for those that compilers see as one chain; and the tiles
that pass from one sharing-out to another. Compilers follow values from product to product, forwards and backwards, within one loop
(or outside of loops) and through all code but a transposition; what they meet that way gets one sharing-out of its rows or columns.
What a step reads is found at coordinates that the step computes, so all that a step reads untransposed is met, too. A state as it
was before the step, and what was read before the loop, is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..einsum.cascade import Access, Coord, Einsum, Expr, Map, Reduce, Scan, Select, accesses, free_ranks
from .contraction import contraction, simplified
from .program import WHOLE_COORDINATE, Loop, Program, Straight, position

if TYPE_CHECKING:
    from .products import Product

Lies: TypeAlias = "int | _Nowhere | None"
"""The product whose result a tile lies as; none for vector code over more axes; or nowhere, so that it may lie as any."""
FEW_AXES = 2
"""Axes of the result of a matrix product."""


@dataclass(frozen=True)
class Meeting:
    """A tile that is computed with beside one that lies otherwise: it is brought to lie like that."""

    phase: int
    axes: tuple[str, ...]
    product: int | None
    """Whose result the tile lies as; None: as vector code over more axes left it."""
    other: int
    """Product whose result the tile beside it lies as."""


@dataclass(frozen=True)
class Grouped:
    """What comes of the products of one program."""

    groups: tuple[int, ...]
    """Of each product."""
    meetings: tuple[Meeting, ...]
    delayed: Mapping[int, int]
    """Product -> a later one that it is done after."""


class Grouping:
    """One program."""

    def __init__(self, program: Program, products: Sequence[Product]) -> None:
        self.program, self.products = program, products
        self.parents: dict[object, object] = {}
        self.order: dict[str, tuple[str, ...]] = {}
        """Axes of each tensor's tile in the order in which the kernel holds them."""
        self.lies: dict[str, int | None] = {}
        """Tensor -> the product whose result its tile lies as; None: as vector code over more axes left it."""
        self.meetings: dict[Meeting, None] = {}
        self.delayed: dict[int, int] = {}
        """Product -> a later one whose result it is summed up with, in its own unit: so it is done after that."""
        self.bare: dict[str, int] = {}
        """Tensors that are a product's result as it is."""
        self.under: dict[str, int] = {}
        """Tensor -> the last product of the phase that it depends on."""
        self.next = 0
        """Number of the next product."""
        for number, phase in enumerate(program.phases):
            self._phase(number, phase)

    def found(self) -> Grouped:
        return Grouped(self.groups(), tuple(self.meetings), self.delayed)

    def groups(self) -> tuple[int, ...]:
        """The group of each product: the number of its first one."""
        first: dict[object, int] = {}
        return tuple(first.setdefault(self._root(("product", number)), number) for number in range(len(self.products)))

    def _phase(self, number: int, phase: Straight | Loop) -> None:
        body = phase.body if isinstance(phase, Loop) else phase.einsums
        self.phase, self.looping = number, isinstance(phase, Loop)
        self.fresh: set[str] = set()
        self.under.clear()
        states = phase.states if isinstance(phase, Loop) else ()
        for state in states:
            self.order[state] = self._own(state)
        for einsum in body:
            self._einsum(einsum, einsum.output in states)

    def _own(self, tensor: str) -> tuple[str, ...]:
        ranks = self.program.cascade.tensor(tensor).ranks
        return tuple(axis for axis in self.program.axes if axis in ranks)

    def _einsum(self, einsum: Einsum, is_state: bool) -> None:
        node = ("tensor", self.phase, einsum.output)
        body = simplified(self.program, einsum.body) if isinstance(einsum.body, Reduce) else einsum.body
        before = self.next
        axes, lies = self._visit(body, node)
        self._sums_up(body)
        self.under[einsum.output] = max([self.next - 1] * (self.next > before) + self._under(body), default=-1)
        if isinstance(body, Reduce) and self.next > before and (found := contraction(self.program, body)) and not found.outside:
            self.bare[einsum.output] = before
        if is_state and axes != self.order[einsum.output]:
            self.parents[node] = object()  # turned to lie as the state does
        else:
            self.order[einsum.output] = axes
        self.fresh.add(einsum.output)
        if not isinstance(lies, _Nowhere):
            self.lies[einsum.output] = lies

    def _visit(self, expr: Expr, node: object) -> tuple[tuple[str, ...], Lies]:
        """Axes of a value in their order, and whose result it lies as; all products met on the way are met by `node`."""
        program = self.program
        match expr:
            case Access():
                return self._access(expr, node)
            case Coord(rank=rank):
                if rank in (WHOLE_COORDINATE, program.loop):
                    self._join(node, ("step", self.phase))
                return tuple(a for a in program.axes if a in program.axes_of(expr)), NOWHERE
            case Map():
                return self._together(expr, node)
            case Reduce():
                found = contraction(program, expr)
                if found is not None:
                    self.next += 1
                    return self._product(self.next - 1, (found.left, found.right), node)
                axes, lies = self._visit(expr.body, node)
                wide = len(axes) > FEW_AXES
                return tuple(a for a in axes if a not in expr.ranks), None if wide else lies
            case Scan(body=body) | Select(body=body):
                axes, lies = self._visit(body, node)
                own = tuple(a for a in program.axes if a in program.axes_of(expr))
                return (axes, lies) if set(axes) == set(own) else (own, NOWHERE)
            case _:
                return (), NOWHERE

    def _access(self, access: Access, node: object) -> tuple[tuple[str, ...], Lies]:
        program = self.program
        tensor = program.cascade.tensor(access.tensor)
        if tensor.kind == "input":
            if not self.looping or program.loop in free_ranks(access):
                self._join(node, ("step", self.phase))
            return tuple(a for a in program.axes if a in program.axes_of(access)), NOWHERE
        if access.tensor in self.fresh and not self._before(access):
            self._join(node, ("tensor", self.phase, access.tensor))
        return self.order.get(access.tensor, self._own(access.tensor)), self.lies.get(access.tensor, NOWHERE)

    def _before(self, access: Access) -> bool:
        """Is a state read as it was before the step?"""
        tensor = self.program.cascade.tensor(access.tensor)
        if tensor.iterates is None:
            return False
        return position(self.program.cascade, tensor.name, access.indices[tensor.ranks.index(tensor.iterates)]) != "next"

    def _together(self, expr: Map, node: object) -> tuple[tuple[str, ...], Lies]:
        parts = []
        for arg in expr.args:
            own = object()
            parts.append((own, *self._visit(arg, own)))
        union = {axis for _, axes, _ in parts for axis in axes}
        widest = sorted((axes for _, axes, _ in parts), key=lambda axes: -len(axes))
        common = next((axes for axes in widest if set(axes) == union), tuple(a for a in self.program.axes if a in union))
        for own, axes, _ in parts:
            if tuple(a for a in common if a in axes) == axes:
                self._join(node, own)
        lying = [(axes, lies) for _, axes, lies in parts if lies is not NOWHERE and len(axes) > 1]
        numbers = [lies for axes, lies in lying if isinstance(lies, int) and set(axes) == self._axes(lies)]
        if not numbers:
            return common, next((lies for _, _, lies in parts if lies is not NOWHERE), NOWHERE)
        for axes, lies in lying:
            of_product = isinstance(lies, int) and set(axes) == self._axes(lies)
            if lies != numbers[0] and axes in (common, common[::-1]) and (of_product or lies is None):
                self.meetings[Meeting(self.phase, axes, lies if isinstance(lies, int) else None, numbers[0])] = None
        return common, numbers[0]

    def _product(self, number: int, sides: tuple[tuple[Expr, ...], tuple[Expr, ...]], node: object) -> tuple[tuple[str, ...], int]:
        product = self.products[number]
        self._join(node, ("product", number))
        for factors in sides:
            own, value = object(), factors[0]
            for factor in factors[1:]:
                value = Map("*", (value, factor))
            axes, _ = self._visit(value, own)
            if axes in ((product.rows, product.k), (product.k, product.columns)):
                self._join(("product", number), own)
        return (product.rows, product.columns), number

    def _under(self, expr: Expr) -> list[int]:
        return [self.under[a.tensor] for a in accesses(expr) if a.tensor in self.fresh and not self._before(a)]

    def _sums_up(self, body: Expr) -> None:
        """A product to whose result something is added as it is starts from that."""
        match body:
            case Map(op="+", args=(Access(tensor=one) as first, Access(tensor=other) as second)):
                for bare, rest in ((one, second), (other, first)):
                    last = max(self._under(rest), default=-1)
                    if bare in self.bare and bare in self.fresh and last > self.bare[bare]:
                        self.delayed[self.bare[bare]] = last
                        return

    def _axes(self, number: int) -> set[str]:
        return {self.products[number].rows, self.products[number].columns}

    def _join(self, one: object, other: object) -> None:
        self.parents[self._root(one)] = self._root(other)

    def _root(self, node: object) -> object:
        while (up := self.parents.get(node, node)) is not node and up != node:
            node = up
        return node


class _Nowhere:
    """A tile that may lie as whatever it meets."""


NOWHERE = _Nowhere()
