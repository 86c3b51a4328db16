"""Contractions: sums of products of two tiles, which a matrix unit can do.

In: a program and an Einsum whose body is a sum. Out: the product's factors sorted into a left tile (i, k), a right tile (k, j)
and what stands outside the sum; or None where the sum has another shape and is done as vector code.

    sum[e](Q[b,h,p,e] * K[b,h,m1*M0+m0,e] * scale)     left Q (p, e); right K (e, m0); outside: scale
"""

from __future__ import annotations

from dataclasses import dataclass

from ..einsum.cascade import Expr, Map, Number, Reduce, Scalar, remembered, walk
from ..einsum.flatten import conjuncts
from .program import Program


@dataclass(frozen=True)
class Contraction:
    """`sum[k](product(left) * product(right)) * product(outside)`."""

    k: str
    i: str
    """Axis of the left tile that is kept."""
    j: str
    """Axis of the right tile that is kept."""
    left: tuple[Expr, ...]
    right: tuple[Expr, ...]
    outside: tuple[Expr, ...]


@remembered
def contraction(program: Program, reduce: Reduce) -> Contraction | None:
    """The sum as a product of two tiles; None if it is not one."""
    if reduce.op != "sum" or len(reduce.ranks) != 1 or reduce.ranks[0] not in program.axes:
        return None
    (k,) = reduce.ranks
    inside: list[Expr] = []
    outside: list[Expr] = []
    for factor in factors(reduce.body):
        (inside if k in program.axes_of(factor) else outside).append(factor)
    kept: dict[str, list[Expr]] = {}
    only_k: list[Expr] = []
    for factor in inside:
        others = program.axes_of(factor) - {k}
        if len(others) > 1:
            return None
        if others:
            kept.setdefault(next(iter(others)), []).append(factor)
        else:
            only_k.append(factor)
    if len(kept) != 2:
        return None
    i, j = sorted(kept, key=program.axes.index)
    # a factor along k alone goes to the side that is computed anyway
    side = i if len(kept[i]) > 1 or len(kept[j]) == 1 else j
    kept[side] += only_k
    return Contraction(k, i, j, tuple(kept[i]), tuple(kept[j]), tuple(outside))


def factors(expr: Expr) -> tuple[Expr, ...]:
    """The factors of a product, signs included; a quotient is one factor, and so is a product of scalars."""
    if all(isinstance(node, Number | Scalar | Map) for node in walk(expr)):
        return (expr,)
    match expr:
        case Map(op="*", args=(a, b)):
            return (*factors(a), *factors(b))
        case Map(op="neg", args=(a,)):
            return (Map("neg", (Number(1),)), *factors(a))
        case _:
            return (expr,)


@remembered
def simplified(program: Program, reduce: Reduce) -> Expr:
    """The same sum with conditions and sums of terms that do not involve products across the reduced ranks taken out.

    sum[e](where(c, x, 0)) = where(c, sum[e](x), 0) for c without e;   sum[e](x + y) = sum[e](x) + sum[e](y) for products x, y;
    sum[e](x / s) = sum[e](x) / s for s without e;
    sum[e](where(c, x * y, 0)) = sum[e](where(c, x, 0) * where(c, y, 0)) for c along e alone, which holds for infinite x and y too;
    sum[m](where(c, x * y, 0)) = sum[m](where(c, x, 0) * y) for c along m and an axis of x, which holds for finite y.
    """
    if reduce.op != "sum":
        return reduce
    ranks = frozenset(reduce.ranks)

    def free(expr: Expr) -> bool:
        return not (program.axes_of(expr) & ranks)

    match reduce.body:
        case Map(op="where", args=(condition, yes, no)) if free(condition):
            return Map(
                "where",
                (
                    condition,
                    simplified(program, Reduce("sum", reduce.ranks, yes)),
                    simplified(program, Reduce("sum", reduce.ranks, no)),
                ),
            )
        case Map(op="where", args=(condition, yes, Number(value=0))) if program.axes_of(condition) <= ranks:
            parts = [part if free(part) else Map("where", (condition, part, Number(0))) for part in factors(yes)]
            product: Expr = parts[0]
            for part in parts[1:]:
                product = Map("*", (product, part))
            found = Reduce("sum", reduce.ranks, product)
            return found if contraction(program, found) else reduce
        case Map(op="where", args=(condition, yes, Number(value=0))):
            return _chosen_on_one_side(program, reduce, condition, factors(yes)) or reduce
        case Map(op="/", args=(a, b)) if free(b) and not free(a):
            return Map("/", (simplified(program, Reduce("sum", reduce.ranks, a)), b))
        case Map(op=("+" | "-") as op, args=(a, b)) if contraction(program, Reduce("sum", reduce.ranks, a)) and contraction(
            program, Reduce("sum", reduce.ranks, b)
        ):
            return Map(op, (Reduce("sum", reduce.ranks, a), Reduce("sum", reduce.ranks, b)))
        case Number(value=0):
            return Number(0)
        case _:
            return reduce


def _chosen_on_one_side(program: Program, reduce: Reduce, condition: Expr, parts: tuple[Expr, ...]) -> Reduce | None:
    """The sum of a product under a condition along more than what is reduced, as a matrix product of which one side is chosen.

    What of the condition is along the reduced ranks alone chooses the other side, too: what a tensor holds there is read by nobody.
    """
    ranks = frozenset(reduce.ranks)
    alone: Expr | None = None
    for part in conjuncts(condition):
        if program.axes_of(part) <= ranks and program.axes_of(part):
            alone = part if alone is None else Map("and", (alone, part))
    # a factor that has the axes of the condition is computed anyway
    for chosen in sorted(range(len(parts)), key=lambda n: (not program.axes_of(condition) <= program.axes_of(parts[n]), n)):
        product: Expr | None = None
        for n, part in enumerate(parts):
            if n == chosen:
                part = Map("where", (condition, part, Number(0)))
            elif alone is not None and program.axes_of(part) & ranks:
                part = Map("where", (alone, part, Number(0)))
            product = part if product is None else Map("*", (product, part))
        assert product is not None
        found = Reduce("sum", reduce.ranks, product)
        if contraction(program, found) is not None:
            return found
    return None


def unconditional(factor: Expr) -> Expr:
    """What a factor is where its condition holds."""
    match factor:
        case Map(op="where", args=(_, yes, Number(value=0))):
            return yes
        case _:
            return factor


def wide_axes(program: Program, body: Expr) -> frozenset[str]:
    """Axes of the widest tile that computing a body needs: those of the product where a sum is done as vector code."""
    match body:
        case Reduce():
            found = contraction(program, body)
            if found is not None:
                return frozenset((found.i, found.j))
            return program.axes_of(body.body) | (frozenset(body.ranks) & frozenset(program.axes))
        case Map(args=args):
            parts = [wide_axes(program, arg) for arg in args]
            return max((*parts, program.axes_of(body)), key=len)
        case _:
            return program.axes_of(body)
