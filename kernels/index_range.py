"""Ranges of index expressions, checked by the host part of a module: a kernel does not look where it reads.

In: the textbook cascade. Out: statements that refuse sizes and parameters at which an index leaves its tensor. Only ranges that are
reached are checked: each rank once in the index, monotone operations, no condition around the access. Gathers and indices under a
`where` are masked by the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..einsum.cascade import Access, Cascade, Coord, Expr, Map, Number, Reduce, Scalar, children, walk
from .scalars import python


def index_checks(cascade: Cascade, spelled: Callable[[str], str]) -> list[str]:
    """A call of `_inside` for each index of an input that may leave its dimension, each once."""
    found: dict[str, None] = {}
    for einsum in cascade.einsums:
        left = tuple(node.rank for index in einsum.indices for node in walk(index) if isinstance(node, Coord))
        for access, guarded, bound in _accesses(einsum.body, False, left):
            tensor = cascade.tensor(access.tensor)
            if tensor.kind != "input":
                continue
            for dimension, (rank, index) in enumerate(zip(tensor.ranks, access.indices, strict=True)):
                ends = None if guarded and not _shared(index) else _ends(cascade, index)
                extent = cascade.rank(rank).extent
                if ends is None or (isinstance(index, Coord) and cascade.rank(index.rank).extent == extent):
                    continue
                low, high, whole = (python(expr, spelled) for expr in (*ends, extent))
                extents = dict.fromkeys(python(cascade.rank(name).extent, spelled) for name in bound)
                points = ", ".join(size for size in extents if size != "1")
                found.setdefault(f'_inside("{tensor.name}", {dimension}, {low}, {high}, {whole}, min({points or 1}, 1))')
    return list(found)


def _accesses(expr: Expr, guarded: bool, bound: tuple[str, ...]) -> Iterator[tuple[Access, bool, tuple[str, ...]]]:
    """Accesses, whether they stand under a condition, and the ranks whose coordinates are at hand there: where one of them has
    none, nothing is accessed."""
    if isinstance(expr, Access):
        yield expr, guarded, bound
    if isinstance(expr, Reduce):
        bound = (*bound, *expr.ranks)
    for number, part in enumerate(children(expr)):
        yield from _accesses(part, guarded or (isinstance(expr, Map) and expr.op == "where" and number > 0), bound)


def _shared(index: Expr) -> bool:
    """`h // G`: kernels take it to stay inside also under a condition."""
    return isinstance(index, Map) and index.op == "//" and isinstance(index.args[0], Coord) and isinstance(index.args[1], Scalar)


def _ends(cascade: Cascade, index: Expr) -> tuple[Expr, Expr] | None:
    """Least and greatest value of an index, both reached; None if they are not known."""
    ranks = [node.rank for node in walk(index) if isinstance(node, Coord)]
    if len(set(ranks)) < len(ranks) or any(cascade.rank(rank).part_of is not None for rank in ranks):
        return None
    return _range(cascade, index)


def _range(cascade: Cascade, expr: Expr) -> tuple[Expr, Expr] | None:
    match expr:
        case Number() | Scalar():
            return expr, expr
        case Coord(rank=rank):
            return Number(0), Map("-", (cascade.rank(rank).extent, Number(1)))
        case Map(op="%", args=(Coord() as a, b)) if _uniform(b):
            inside = _range(cascade, a)
            return None if inside is None else (Number(0), Map("min", (inside[1], Map("-", (b, Number(1))))))
        case Map(op=("+" | "-" | "neg" | "min" | "max" | "clamp" | "*" | "//") as op, args=args):
            parts = [part for arg in args if (part := _range(cascade, arg)) is not None]
            if len(parts) < len(args):
                return None
            lows, highs = tuple(part[0] for part in parts), tuple(part[1] for part in parts)
            if op == "neg":
                return Map(op, highs), Map(op, lows)
            if op == "-":
                return Map(op, (lows[0], highs[1])), Map(op, (highs[0], lows[1]))
            if op in ("*", "//"):
                if not (_uniform(args[1]) or (op == "*" and _uniform(args[0]))):
                    return None
                ends = Map(op, lows), Map(op, highs)
                return Map("min", ends), Map("max", ends)
            return Map(op, lows), Map(op, highs)
        case _:
            return None


def _uniform(expr: Expr) -> bool:
    return all(isinstance(node, Number | Scalar | Map) for node in walk(expr))
