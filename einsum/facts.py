"""What is known of expressions before they are evaluated: what they depend on, their element type, their shape as a product.

In: expressions of one cascade at given sizes. Out: facts, remembered by the identity of the expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .arithmetic import Array
from .cascade import (
    COMPARISONS,
    LOGICAL,
    Access,
    Cascade,
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
)  # fmt: skip
from .diagnostics import EinsmithError
from .domain import Domain, Partitions, Range
from .schedule import surrounding
from .sizes import Sizes

Shift = tuple[str | None, int] | None
"""(rank, shift) of the index `rank + shift`; (None, place) of a constant; None of anything else."""

_WHOLE = frozenset({"+", "-", "*", "//", "%", "neg", "abs", "min", "max", "clamp", "sign", "relu", "round", "floor", "ceil"})
"""Operations whose result is an integer if their arguments are."""


@dataclass(frozen=True)
class Places:
    """Each dimension of a tensor is taken whole by one rank, at one fixed place, or by computed indices."""

    cut: tuple[slice | int, ...]
    """For each dimension; those with computed indices are whole."""
    names: tuple[str, ...]
    """Ranks that take a dimension of the cut, in its order."""
    computed: tuple[int, ...]
    """Dimensions with computed indices."""
    front: tuple[int, ...]
    """Dimensions of the cut, those with computed indices first."""


def facts_of(cascade: Cascade, sizes: Sizes, evaluator: type) -> Facts:
    """The facts that a kind of evaluator knows about a cascade with sizes, those of the last few sizes kept."""
    key = (facts_of, evaluator, tuple(sizes.scalars.items()), tuple(sizes.extents.items()))
    kept: dict[object, Facts] = cascade.memo.setdefault((facts_of,), {})
    if key not in kept:
        while len(kept) >= MOST_SIZES:
            del kept[next(iter(kept))]
        kept[key] = Facts(cascade, sizes, Partitions(cascade, sizes))
    return kept[key]


MOST_SIZES = 8
"""Sizes of one cascade of which facts are kept."""
MOST_PLACES = 4096
"""Pairs of an expression and a domain of which facts are kept: an iterative rank has a domain for each of its steps."""
MOST_POINTS = 2**10
"""Elements of a value that is kept."""


class Facts:
    """Facts about the expressions of a cascade."""

    def __init__(self, cascade: Cascade, sizes: Sizes, partitions: Partitions) -> None:
        self.cascade, self.sizes, self.partitions = cascade, sizes, partitions
        self._named: list[Expr] = []  # keeps the expressions alive whose ids are keys below
        self._kinds: dict[int, DType] = {}
        self._shifts: dict[int, tuple[Shift, ...]] = {}
        self._ranks: dict[tuple[int, frozenset[str]], frozenset[str]] = {}
        self._places: dict[tuple[int, object], Places] = {}
        self._points: dict[tuple[int, object], tuple[Expr, Array | None]] = {}
        self._domains: dict[object, tuple[Einsum, Domain]] = {}
        self._targets: dict[int, tuple[Einsum, Access]] = {}

    def ranks_of(self, expr: Expr, around: frozenset[str]) -> frozenset[str]:
        """Ranks among those around it that the value of an expression depends on, the existence of points included."""
        key = (id(expr), around)
        if key not in self._ranks:
            self._named.append(expr)
            match expr:
                case Coord(rank=rank):
                    found = frozenset((rank,))
                case Reduce(ranks=bound, body=body):
                    inner = around | frozenset(bound)
                    found = (self.ranks_of(body, inner) | self.partitions.mates(bound, inner)) - frozenset(bound)
                case Scan(rank=rank, body=body):
                    found = self.ranks_of(body, around | {rank}) | {rank} | self.partitions.mates((rank,), around)
                case _:
                    found = frozenset().union(*(self.ranks_of(part, around) for part in children(expr)))
            self._ranks[key] = found
        return self._ranks[key]

    def kind(self, expr: Expr) -> DType:
        """Element type of an expression."""
        if id(expr) not in self._kinds:
            self._named.append(expr)
            self._kinds[id(expr)] = self._kind(expr)
        return self._kinds[id(expr)]

    def _kind(self, expr: Expr) -> DType:
        match expr:
            case Number(value=number):
                return "int" if isinstance(number, int) else "float"
            case Scalar(name=name):
                return "int" if isinstance(self.sizes.scalars[name], int) else "float"
            case Coord():
                return "int"
            case Access(tensor=tensor):
                return self.cascade.tensor(tensor).dtype
            case Map(op="where", args=(_, yes, no)):
                return max(self.kind(yes), self.kind(no), key=("bool", "int", "float").index)
            case Map(op="**", args=(_, exponent)):
                whole = all(self.kind(arg) != "float" for arg in expr.args)
                return "int" if whole and self._never_negative(exponent) else "float"
            case Map(op=op, args=args):
                if op in COMPARISONS or op in LOGICAL:
                    return "bool"
                return "int" if op in _WHOLE and all(self.kind(arg) != "float" for arg in args) else "float"
            case Reduce(op=op, body=body) | Scan(op=op, body=body) | Select(op=op, body=body):
                if op in ("any", "all"):
                    return "bool"
                if op.startswith("arg"):
                    return "int"
                return "int" if op != "mean" and self.kind(body) != "float" else "float"
        raise AssertionError(type(expr).__name__)

    def _never_negative(self, expr: Expr) -> bool:
        match expr:
            case Number() | Coord():
                return True
            case Scalar(name=name):
                return bool(self.sizes.scalars[name] >= 0)
            case Map(op="abs"):
                return True
            case Map(op="max", args=args):
                return any(map(self._never_negative, args))
            case Map(op="+" | "*" | "//" | "%" | "min", args=args):
                return all(map(self._never_negative, args))
            case _:
                return self.kind(expr) == "bool"

    def shifts(self, expr: Access) -> tuple[Shift, ...]:
        """Each index as a rank and a shift, where it is one."""
        if id(expr) not in self._shifts:
            self._named.append(expr)
            self._shifts[id(expr)] = tuple(map(self._shifted, expr.indices))
        return self._shifts[id(expr)]

    def _shifted(self, index: Expr) -> Shift:
        match index:
            case Coord(rank=rank):
                return rank, 0
            case Number(value=int() as number):
                return None, number
            case Scalar(name=name):
                value = self.sizes.scalars[name]
                return (None, value) if isinstance(value, int) else None
            case Map(op="+" | "-" as op, args=(Coord(rank=rank), (Number() | Scalar()) as constant)):
                known = self._shifted(constant)
                return None if known is None else (rank, known[1] if op == "+" else -known[1])
        return None

    def places(self, expr: Access, domain: Domain, shape: tuple[int, ...]) -> Places:
        """How an access at the points of a domain reads a tensor of some shape, always the same for one tensor."""
        key = (id(expr), domain.key)
        if key not in self._places:
            if len(self._places) >= MOST_PLACES:
                self._places.clear()
            self._places[key] = self._placed(expr, domain, shape)
        return self._places[key]

    def _placed(self, expr: Access, domain: Domain, shape: tuple[int, ...]) -> Places:
        shifts = self.shifts(expr)
        used = (
            [rank for index in expr.indices for rank in self.ranks_of(index, domain.ranks)]
            if None in shifts
            else [shift[0] for shift in shifts if shift and shift[0]]
        )
        cut: list[slice | int] = []
        names: list[str] = []
        computed: list[int] = []
        for axis, (shifted, extent) in enumerate(zip(shifts, shape, strict=True)):
            if shifted is not None:
                name, shift = shifted
                if name is None and 0 <= shift < extent:
                    cut.append(shift)
                    continue
                if name is not None and used.count(name) == 1:
                    low, high = domain.ranges[name]
                    if low + shift >= 0 and high + shift <= extent:
                        cut.append(slice(low + shift, high + shift))
                        names.append(name)
                        continue
            cut.append(slice(None))
            computed.append(axis)
        left = [axis for axis, place in enumerate(cut) if isinstance(place, slice)]  # dimensions that remain
        order = computed + [axis for axis in left if axis not in computed]
        return Places(tuple(cut), tuple(names), tuple(computed), tuple(left.index(axis) for axis in order))

    def at_points(self, expr: Expr, domain: Domain, value: Callable[[], Array]) -> Array | None:
        """The value of an expression that reads no tensor, such as a mask, as it depends on the points alone; None where it has
        none at some of them."""
        key = (id(expr), domain.key)
        if key in self._points:
            return self._points[key][1]
        try:
            found = np.asarray(value()).view()
        except EinsmithError:
            found = None
        if found is None or found.size <= MOST_POINTS:
            if found is not None:
                found.flags.writeable = False
            if len(self._points) >= MOST_PLACES:
                self._points.clear()
            self._points[key] = (expr, found)
        return found

    def domain(self, einsum: Einsum, at: Mapping[str, Range]) -> Domain:
        """The points at which the body of an Einsum is evaluated, with the ranks in `at` at one coordinate."""
        key = (id(einsum), *at.items())
        if key not in self._domains:
            if len(self._domains) >= MOST_PLACES:
                self._domains.clear()
            extents = self.sizes.extents
            self._domains[key] = (einsum, Domain({rank: at.get(rank, (0, extents[rank])) for rank in surrounding(einsum)}))
        return self._domains[key][1]

    def target(self, einsum: Einsum) -> Access:
        """The left-hand side of a scatter as an access."""
        if id(einsum) not in self._targets:
            self._targets[id(einsum)] = (einsum, Access(einsum.output, einsum.indices, einsum.span))
        return self._targets[id(einsum)][1]

    def is_view(self, expr: Expr) -> bool:
        """Is it an access that needs no copy?"""
        if not isinstance(expr, Access) or self.cascade.tensor(expr.tensor).dtype != "float":
            return False
        ranks = [index.rank for index in expr.indices if isinstance(index, Coord)]
        return len(ranks) == len(expr.indices) == len(set(ranks))


_MINUS_ONE = Map("neg", (Number(1),))


def product(expr: Expr) -> list[tuple[Expr, bool]]:
    """The factors of a product or quotient; True for those that are divided by."""
    factors: list[tuple[Expr, bool]] = []
    stack: list[tuple[Expr, bool]] = [(expr, False)]
    while stack:
        node, inverse = stack.pop()
        match node:
            case Map(op="*", args=(a, b)):
                stack += [(b, inverse), (a, inverse)]
            case Map(op="/", args=(a, b)):
                stack += [(b, not inverse), (a, inverse)]
            case Map(op="neg", args=(a,)):
                stack.append((a, inverse))
                factors.append((_MINUS_ONE, False))
            case _:
                factors.append((node, inverse))
    return factors


def outermost_reductions(expr: Expr) -> list[Reduce | Scan]:
    """Reductions and scans that stand in no other."""
    found: list[Reduce | Scan] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        if isinstance(node, Reduce | Scan):
            found.append(node)
        else:
            stack.extend(children(node))
    return found
