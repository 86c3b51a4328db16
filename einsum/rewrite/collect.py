"""Collecting: sums with a common factor are taken once, of what the factor multiplies in all of them.

before    Y[p,f] = sum[e](A[p,e] * B[e,f]) - C[f] * sum[e](A[p,e] * D[e])
after     B_C[e,f] = B[e,f] - C[f] * D[e]
          Y[p,f]   = sum[e](A[p,e] * B_C[e,f])

One contraction instead of two; and terms that cancel do so before they are multiplied and summed, which keeps digits. Looks through
maps and sums that do not go along the fiber, and is worth it where operations are saved.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Rank, Reduce, accesses, free_ranks, substitute
from .algebra import product
from .contraction import Opening, Product, Writer, over, signed
from .fiber import Fiber
from .reassociate import openable
from .signs import Sign, sign
from .step import Rewritten, Step, in_order, reordered, shown, taken_names

NAME = "collect"
MAX_BOUND = 3
"""Summed ranks of a product beyond which no other is matched with it."""


def collect(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """`target` with the first two sums in it that have a common factor made one."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or isinstance(definitions[0].body, Reduce) or openable(cascade, target) is None:
        return None
    (einsum,) = definitions
    opened = _behind(einsum, Fiber(cascade, rank))
    opening = Opening(cascade, frozenset(opened), Fiber(cascade, rank).ranks)
    terms = opening.products(einsum)
    if terms is None or not all(_movable(one, cascade) for one in terms):
        return None
    for one, other in itertools.combinations(terms, 2):
        both = _common(one, other, cascade=replace(cascade, ranks=tuple(opening.ranks)))
        if both is not None:
            rest = [each for each in terms if each is not one and each is not other]
            return _written(cascade, opening, einsum, opened, both, rest)
    return None


def _behind(einsum: Einsum, fiber: Fiber) -> dict[str, None]:
    """What the target may be seen through: maps and sums behind it that are complete in the fiber."""
    found: dict[str, None] = {}
    pending = [einsum]
    while pending:
        for node in accesses(pending.pop().body):
            inner = openable(fiber.cascade, node.tensor)
            if inner is not None and node.tensor not in found and not fiber.moves(node) and not fiber.completes(inner):
                found[node.tensor] = None
                pending.append(inner)
    return found


def _movable(one: Product, cascade: Cascade) -> bool:
    """Whether its divisors may go to any factor (0/0 is 0 where it stands) and no condition holds it."""
    return not one.conditions and all(
        not free_ranks(divisor) & one.bound and sign(divisor, cascade) is Sign.POSITIVE for divisor, _ in one.divisors
    )


@dataclass(frozen=True)
class _Common:
    """Two terms over the same summed ranks: the factors that both have, and what else each has."""

    bound: frozenset[str]
    factors: tuple[Expr, ...]
    rests: tuple[tuple[Expr, bool], ...]
    """Each with whether it is subtracted."""


def _common(one: Product, other: Product, cascade: Cascade) -> _Common | None:
    if not one.bound or len(one.bound) != len(other.bound) or len(one.bound) > MAX_BOUND:
        return None
    mine = sorted(one.bound)
    for theirs in itertools.permutations(sorted(other.bound)):
        if any(cascade.rank(a).extent != cascade.rank(b).extent for a, b in zip(mine, theirs, strict=True)):
            continue
        names: dict[str, Expr] = {b: Coord(a) for a, b in zip(mine, theirs, strict=True)}
        left, right = list(one.factors), [substitute(factor, names) for factor in other.factors]
        shared = []
        for factor in one.factors:
            if factor in right and free_ranks(factor) & one.bound:
                left.remove(factor)
                right.remove(factor)
                shared.append(factor)
        ties = frozenset().union(*(free_ranks(factor) for factor in shared))
        if shared and one.bound <= ties:
            rests = tuple(
                (over(product(factors), tuple(divisor for divisor, _ in each.divisors)), each.negative)
                for factors, each in ((tuple(left), one), (tuple(right), other))
            )
            return _Common(one.bound, tuple(shared), rests)
    return None


def _written(
    cascade: Cascade, opening: Opening, einsum: Einsum, opened: Mapping[str, None], both: _Common, rest: list[Product]
) -> Rewritten:
    target = einsum.output
    writer = Writer(replace(cascade, ranks=tuple(opening.ranks)), taken_names(cascade))
    inner = writer.named(f"{target}_part", signed(list(both.rests)))
    whole: list[tuple[Expr, bool]] = []
    body = Map("*", (product(both.factors), inner))
    whole.append((Reduce("sum", in_order(both.bound, writer.cascade), body), False))
    for one in rest:
        value = over(product(one.factors), tuple(divisor for divisor, _ in one.divisors))
        if one.bound:
            value = Reduce("sum", in_order(one.bound, writer.cascade), value)
        whole.append((value, one.negative))
    if len(whole) > 1:
        whole = [
            (writer.named(f"{target}_{place}", value) if isinstance(value, Reduce) else value, negative)
            for place, (value, negative) in enumerate(whole, 1)
        ]
    new = [*writer.einsums, replace(einsum, body=signed(whole))]
    einsums: list[Einsum] = []
    for each in cascade.einsums:
        einsums.extend(new if each.output == target else (each,))
    tensors = (*cascade.tensors, *writer.tensors)
    after = reordered(replace(cascade, ranks=_used(opening, cascade, new), einsums=tuple(einsums), tensors=tensors))
    before = [*(each for each in cascade.einsums if each.output in opened), einsum]
    factor = " * ".join(each.tensor if isinstance(each, Access) else "..." for each in both.factors)
    step = Step(
        NAME,
        target,
        shown(before, cascade),
        "sum(a * b) + c * sum(a * d) = sum(a * (b + c * d)), where c does not depend on the summed ranks",
        f"both sums have the factor `{factor}`; each sum is finite",
        shown(new, after),
    )
    return Rewritten(after, step)


def _used(opening: Opening, cascade: Cascade, new: list[Einsum]) -> tuple[Rank, ...]:
    """The ranks of the cascade, and those that got a name of their own and are still summed over."""
    summed = {rank for each in new if isinstance(each.body, Reduce) for rank in each.body.ranks}
    return tuple(rank for rank in opening.ranks if rank.name in cascade.rank_order or rank.name in summed)
