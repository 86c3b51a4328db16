"""Operations: how many of each kind an Einsum does, dense and where its masks leave anything to do.

Counting rules. A sub-expression is evaluated once for each point of the ranks that it depends on. A reduction over n points takes n
operations (the accumulator starts at the identity). Factors of a sum that do not depend on the summed ranks are multiplied in once,
after it. Arithmetic on coordinates, extents and parameters alone is addressing and costs nothing. A product whose result goes
straight into a sum is a multiply-accumulate: it counts as one `mul` and one `add`, and `macs` says how many of them pair up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..cascade import COMPARISONS, Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Scan, Select, free_ranks, walk
from ..flatten import IDENTITY
from ..symbolic import ZERO, Formula
from .points import Spaces
from .regions import EVERYWHERE, Region, conditions, regions

NAMES: dict[str, str] = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "**": "pow",
    **dict.fromkeys(COMPARISONS, "compare"),
}  # fmt: skip
"""Names of map operations that are written as signs; the others keep theirs."""

REDUCES: dict[str, str] = {"sum": "add", "mean": "add", "prod": "mul", "any": "or", "all": "and", "argmax": "max", "argmin": "min"}
SCANS: dict[str, str] = {"cumsum": "add", "cummax": "max", "cumprod": "mul"}
SELECTS: dict[str, str] = {"topk": "topk", "argtopk": "topk", "sort": "sort", "argsort": "sort"}


@dataclass
class Operations:
    """Counts of one Einsum by kind of operation, over all points and over its region."""

    dense: dict[str, Formula] = field(default_factory=dict)
    effective: dict[str, Formula] = field(default_factory=dict)
    macs: Formula = ZERO
    """Multiplications of the dense count whose result is added to a sum at once."""
    exact: bool = True
    """Whether `effective` is a count; otherwise it is an upper bound."""


def operations(cascade: Cascade, spaces: Spaces, scalars: Mapping[str, int | float]) -> list[Operations]:
    """Counts for each Einsum of a flattened cascade; `scalars` are the parameters and sizes that are known."""
    found = regions(cascade, scalars)
    return [_Counter(spaces, scalars, region).count(einsum) for einsum, region in zip(cascade.einsums, found, strict=True)]


class _Counter:
    """Counts one Einsum."""

    def __init__(self, spaces: Spaces, scalars: Mapping[str, int | float], region: Region) -> None:
        self.spaces, self.scalars, self.region = spaces, scalars, region
        self.found = Operations()

    def count(self, einsum: Einsum) -> Operations:
        body = einsum.body
        ranks = frozenset(node.rank for index in einsum.indices for node in walk(index) if isinstance(node, Coord))
        match body:
            case Reduce(op=op, ranks=bound, body=inner):
                self._reduce(op, ranks, frozenset(bound), inner)
            case Scan(op=op, rank=rank, body=inner):
                self._expr(inner, EVERYWHERE)
                self._add(SCANS[op], free_ranks(inner) | {rank}, EVERYWHERE)
            case Select(op=op, rank=rank, body=inner):
                self._expr(inner, EVERYWHERE)
                self._add(SELECTS[op], free_ranks(inner) | {rank}, EVERYWHERE)
            case _:
                self._expr(body, EVERYWHERE)
        return self.found

    def _reduce(self, op: str, ranks: frozenset[str], bound: frozenset[str], inner: Expr) -> None:
        space = ranks | bound
        while isinstance(inner, Map) and inner.op == "where" and inner.args[2] == IDENTITY.get(op) and not _costs(inner.args[0]):
            self._add("where", free_ranks(inner), EVERYWHERE)  # a masked product is still a product
            inner = inner.args[1]
        inside, outside = _factors(inner, bound) if op in ("sum", "mean") else ([inner], [])
        for factor in (*inside, *outside):
            self._expr(factor, EVERYWHERE)
        depends: frozenset[str] = free_ranks(inside[0])
        for factor in inside[1:]:
            depends |= free_ranks(factor)
            self._add("mul", depends, EVERYWHERE)
        if len(inside) > 1:
            self.found.macs = self.spaces.size(depends | bound)
        self._add(REDUCES.get(op, op), depends | bound, EVERYWHERE)
        kept = [factor for factor in outside if _costs(factor)]
        scale = frozenset().union(*(free_ranks(factor) for factor in kept)) if kept else frozenset()
        for number in range(1, len(kept)):
            self._add("mul", frozenset().union(*(free_ranks(factor) for factor in kept[: number + 1])), EVERYWHERE)
        if outside:
            self._add("mul", (space - bound) | scale, EVERYWHERE)
        if op == "mean":
            self._add("div", space - bound, EVERYWHERE)

    def _expr(self, expr: Expr, guards: Region) -> None:
        """Count what an expression does, itself and inside."""
        match expr:
            case Map(op="where", args=(condition, yes, no)):
                self._expr(condition, guards)
                self._expr(yes, guards | (conditions(condition, self.scalars) or EVERYWHERE))
                self._expr(no, guards | (conditions(Map("not", (condition,)), self.scalars) or EVERYWHERE))
                if _costs(expr):
                    self._add("where", free_ranks(expr), guards)
            case Map(op=op, args=args):
                for arg in args:
                    self._expr(arg, guards)
                if _costs(expr):
                    name = "mul" if op == "**" and args[1] == Number(2) else NAMES.get(op, op)
                    self._add(name, free_ranks(expr), guards)
            case Access(indices=indices):
                for index in indices:
                    if any(isinstance(node, Access) for node in walk(index)):
                        self._expr(index, guards)
            case _:
                pass

    def _add(self, name: str, ranks: Iterable[str], guards: Region) -> None:
        """One operation at each point of some ranks."""
        where = frozenset(ranks)
        self.found.dense[name] = self.found.dense.get(name, ZERO) + self.spaces.size(where)
        region = frozenset(c for c in self.region | guards if free_ranks(c) <= where)
        count = self.spaces.count(where, region)
        self.found.effective[name] = self.found.effective.get(name, ZERO) + count.points
        self.found.exact &= count.exact


def _costs(expr: Expr) -> bool:
    """Whether an expression works on data, rather than on coordinates and sizes alone."""
    return any(isinstance(node, Access) for node in walk(expr))


def _factors(expr: Expr, bound: frozenset[str]) -> tuple[list[Expr], list[Expr]]:
    """Factors of a product that depend on the bound ranks, and those that do not."""
    inside: list[Expr] = []
    outside: list[Expr] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        if isinstance(node, Map) and node.op == "*":
            stack += [node.args[1], node.args[0]]
        else:
            (inside if free_ranks(node) & bound else outside).append(node)
    return (inside, outside) if inside else ([expr], [])
