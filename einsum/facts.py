"""What is known of expressions before they are evaluated: what they depend on, their element type, their shape as a product.

In: expressions of one cascade at given sizes. Out: facts, remembered by the identity of the expression.
"""

from __future__ import annotations

from .cascade import (
    COMPARISONS,
    LOGICAL,
    Access,
    Cascade,
    Coord,
    DType,
    Expr,
    Map,
    Number,
    Reduce,
    Scalar,
    Scan,
    Select,
    children,
)  # fmt: skip
from .domain import Partitions
from .sizes import Sizes

Shift = tuple[str | None, int] | None
"""(rank, shift) of the index `rank + shift`; (None, place) of a constant; None of anything else."""

_WHOLE = frozenset({"+", "-", "*", "//", "%", "neg", "abs", "min", "max", "clamp", "sign", "relu", "round", "floor", "ceil"})
"""Operations whose result is an integer if their arguments are."""


class Facts:
    """Facts about the expressions of a cascade."""

    def __init__(self, cascade: Cascade, sizes: Sizes, partitions: Partitions) -> None:
        self.cascade, self.sizes, self.partitions = cascade, sizes, partitions
        self._named: list[Expr] = []  # keeps the expressions alive whose ids are keys below
        self._kinds: dict[int, DType] = {}
        self._shifts: dict[int, tuple[Shift, ...]] = {}
        self._ranks: dict[tuple[int, frozenset[str]], frozenset[str]] = {}

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
