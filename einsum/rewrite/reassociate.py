"""Reassociation: a sum of products is multiplied and summed in another order.

before    S[p,m] = sum[e](Q[p,e] * K[m,e])
          Y[p,f] = sum[m](S[p,m] * V[m,f])
after     KV[e,f] = sum[m](K[m,e] * V[m,f])
          Y[p,f]  = sum[e](Q[p,e] * KV[e,f])

Two reasons to do so: fewer operations (see `reassociation`), and fewer passes: a complete factor that is summed together with
what moves along the fiber leaves the sum over the fiber.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, accesses, free_ranks
from .algebra import ONE, canonical, divide, negate, product
from .contraction import MAX_FACTORS, Node, Opening, Orders, Product, Writer, over, signed, under
from .cost import sizes_of
from .fiber import Fiber
from .step import Refused, Rewritten, Step, in_order, reordered, shown, taken_names

NAME = "reassociate"


def reassociate(cascade: Cascade, target: str, rank: str) -> Rewritten | Refused | None:
    """Sum the fiber away before complete factors that hang on other summed ranks are multiplied in."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op != "sum":
        return None
    fiber = Fiber(cascade, rank)
    einsum = definitions[0]
    if cascade.rank(rank).split is not None or not fiber.completes(einsum) or not fiber.mixed(einsum.body.body):  # type: ignore[union-attr]
        return None
    opened = _mixed_behind(einsum, fiber)
    return contract(cascade, target, frozenset(opened), sizes_of(cascade, rank), fiber)


def _mixed_behind(einsum: Einsum, fiber: Fiber) -> set[str]:
    """Mixed sums and products behind a target, all the way down."""
    found: set[str] = set()
    pending = [einsum]
    while pending:
        for node in accesses(pending.pop().body):
            inner = openable(fiber.cascade, node.tensor)
            if node.tensor not in found and inner is not None and fiber.mixed(node):
                found.add(node.tensor)
                pending.append(inner)
    return found


def openable(cascade: Cascade, name: str) -> Einsum | None:
    """The Einsum of a tensor that may be looked through: a sum, or a map of products and sums."""
    definitions = cascade.definitions(name)
    if len(definitions) != 1 or cascade.tensor(name).kind != "einsum":
        return None
    einsum = definitions[0]
    if not all(isinstance(index, Coord) for index in einsum.indices) or cascade.tensor(name).dtype != "float":
        return None
    body = einsum.body
    if isinstance(body, Reduce):
        return einsum if body.op == "sum" else None
    match body:
        case Map(op="*" | "/" | "+" | "-" | "neg"):
            return einsum
        case Map(op="where", args=(_, _, Number(value=0))):
            return einsum
        case _:
            return None


@dataclass(frozen=True)
class Prepared:
    """A product with what does not take part in the order set aside."""

    factors: tuple[Expr, ...]
    scalars: tuple[Expr, ...]
    divisors: tuple[Expr, ...]
    conditions: tuple[Expr, ...]
    """Divisors and conditions apply to the sum."""
    ties: tuple[Expr, ...]
    """Conditions that tie ranks of several factors together under the sum."""
    bound: frozenset[str]
    negative: bool


def prepared(one: Product, prefixes: bool, cascade: Cascade) -> Prepared | None:
    """Divisors and conditions where they belong; None where a summed rank occurs in no factor.

    `prefixes`: a condition such as m <= p stays on its own, though it might go with a factor that has both ranks.
    """
    own = [factor for factor in one.factors if free_ranks(factor)]
    factors = list(own)
    scalars = tuple(factor for factor in one.factors if not free_ranks(factor))
    outer = tuple(divisor for divisor, _ in one.divisors if not free_ranks(divisor) & one.bound)
    for divisor, above in one.divisors:
        if free_ranks(divisor) & one.bound:
            places = [i for i, each in enumerate(own) if each in above and free_ranks(divisor) <= free_ranks(each)]
            of = next((i for i in places if _vanishes_with(own[i], divisor, cascade)), None)
            if of is None:
                return None  # 0/0 is 0 where it stands, x/0 is not
            factors[of] = divide(factors[of], divisor)
    ties: list[Expr] = []
    for condition in one.conditions:
        if free_ranks(condition) & one.bound:
            place = next((i for i, factor in enumerate(factors) if free_ranks(condition) <= free_ranks(factor)), None)
            if place is None or (prefixes and is_prefix(condition)):
                ties.append(condition)
            else:
                factors[place] = under(factors[place], (condition,))
    held = tuple(condition for condition in one.conditions if not free_ranks(condition) & one.bound)
    if one.conditions and any(not _plain(access) for factor in factors for access in accesses(factor)):
        return None  # outside of its condition it might leave its tensor
    everywhere: frozenset[str] = frozenset().union(*(free_ranks(factor) for factor in factors))
    if not factors or not one.bound <= everywhere or len(factors) > MAX_FACTORS:
        return None
    return Prepared(tuple(factors), scalars, outer, held, tuple(ties), one.bound, one.negative)


def _vanishes_with(factor: Expr, divisor: Expr, cascade: Cascade) -> bool:
    """Is the factor what the divisor sums up, or a sum of that times more? Where nothing has weight, both are 0."""
    below = _summed(divisor, cascade)
    return below is not None and (below == {canonical(factor)} or below <= (_summed(factor, cascade) or set()))


def _summed(expr: Expr, cascade: Cascade) -> set[object] | None:
    """The factors of what a tensor is the sum of."""
    definitions = cascade.definitions(expr.tensor) if isinstance(expr, Access) else ()
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op != "sum":
        return None
    return {canonical(part) for part in _product_of(definitions[0].body.body)}


def _product_of(expr: Expr) -> Iterator[Expr]:
    match expr:
        case Map(op="*", args=(a, b)):
            yield from _product_of(a)
            yield from _product_of(b)
        case _:
            yield expr


def is_prefix(condition: Expr) -> bool:
    """m <= p or m < p, of two ranks."""
    return (
        isinstance(condition, Map) and condition.op in ("<", "<=", ">", ">=") and all(isinstance(a, Coord) for a in condition.args)
    )


def _plain(access: Access) -> bool:
    return all(isinstance(index, Coord) for index in access.indices)


def contract(
    cascade: Cascade, target: str, opened: frozenset[str], size: Mapping[str, int | float], fiber: Fiber
) -> Rewritten | Refused | None:
    """`target` as its products, looking through `opened`, in the cheapest order; complete factors after the sum over the fiber."""
    (einsum,) = cascade.definitions(target)
    opening = Opening(cascade, opened, fiber.ranks)
    found = opening.products(einsum)
    if found is None or not any(one.bound for one in found):
        return None
    cut = replace(cascade, ranks=tuple(opening.ranks))
    size = {**size, **{r.name: size[old.name] for r in opening.ranks for old in cascade.ranks if r.extent == old.extent}}
    writer = Writer(cut, taken_names(cut))
    out: frozenset[str] = frozenset().union(*(free_ranks(index) for index in einsum.indices))
    whole: list[tuple[Expr, bool]] = []
    from .prefix_state import NAME as PREFIX
    from .prefix_state import prefix_state

    prefixes: list[str] = []
    for one in found:
        ready = prepared(one, True, cascade)
        if ready is None:
            return None
        prefix = prefix_state(ready, out, size, writer, target) if ready.ties else None
        if isinstance(prefix, Refused):
            ready = prepared(one, False, cascade)
            if ready is None or ready.ties:
                return prefix
        if isinstance(prefix, tuple):
            node, why = prefix
            prefixes.append(why)
        else:
            moving = [fiber.moves(factor) for factor in ready.factors]
            late = any(fiber.complete(factor) for factor in ready.factors)
            first = frozenset(i for i, moves in enumerate(moving) if moves) if late else frozenset[int]()
            node = Orders(out, size).best(ready.factors, first)
        whole.append(_term(node, ready, writer, target, alone=len(found) == 1))
    body = signed(whole) if len(whole) > 1 else negate(whole[0][0]) if whole[0][1] else whole[0][0]
    new = [*writer.einsums, replace(einsum, body=body)]
    inner = any(isinstance(each.body, Reduce) and each.output in writer.inner for each in writer.einsums)
    if body == einsum.body or not (opening.summed or inner or prefixes):
        return None  # the same order of sums
    einsums: list[Einsum] = []
    for each in cascade.einsums:
        einsums.extend(new if each.output == target else (each,))
    after = reordered(replace(cut, einsums=tuple(einsums), tensors=(*cut.tensors, *writer.tensors)))
    used = [each for each in cascade.einsums if each.output in opened]
    rule = "sums and products of numbers may be taken in any order: sum(a * sum(b * c)) = sum(sum(a * b) * c)"
    condition = "no factor that leaves a sum depends on its ranks; each sum is finite"
    name = NAME
    if prefixes:
        name, condition = PREFIX, "; ".join(dict.fromkeys(prefixes))
        rule = "the sum over all m <= p of a(m) is a running sum: S(p + 1) = S(p) + a(p)"
    return Rewritten(after, Step(name, target, shown([*used, einsum], cascade), rule, condition, shown(new, after)))


def _term(node: Node, ready: Prepared, writer: Writer, target: str, alone: bool) -> tuple[Expr, bool]:
    """One product written down, and whether it is subtracted."""
    value = writer.value(node, target)
    scale = product(ready.scalars)
    late = bool(ready.divisors or ready.conditions or ready.negative)
    if not node.summed:
        return under(over(_scaled(value, scale), ready.divisors), ready.conditions), ready.negative
    sum_ = Reduce("sum", in_order(node.summed, writer.cascade), _scaled(value, scale))
    if alone and not late:
        return sum_, False
    access = writer.named(f"{target}_num" if alone else f"{target}_1", sum_)
    return under(over(access, ready.divisors), ready.conditions), ready.negative


def _scaled(value: Expr, scale: Expr) -> Expr:
    return value if scale == ONE else Map("*", (value, scale))
