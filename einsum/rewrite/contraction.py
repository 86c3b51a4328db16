"""Contractions: sums of products of factors, and the cheapest order in which to multiply and sum them.

In: an Einsum and the tensors that may be opened (replaced by what defines them). Out: `Product`s: the Einsum as a sum of terms,
each a sum over some ranks of a product of factors, under conditions; and for one product a tree of `Node`s: which factors are
multiplied first, each rank summed as soon as nothing else needs it. The tree is the cheapest one for the product (dynamic
programming over sets of factors), counted in multiplications and additions at given extents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Rank, Reduce, Tensor, free_ranks, substitute
from ..flatten import conjuncts
from .algebra import divide, is_number, multiply, negate
from .step import coords, fresh, in_order

MAX_FACTORS = 8
"""Factors of a product beyond which no order is looked for: their number of orders grows exponentially."""
MAX_TERMS = 8
"""Terms of a sum beyond which it is not expanded."""


@dataclass(frozen=True)
class Product:
    """sum over `bound` of the product of `factors` over `divisors`, 0 where one of `conditions` fails; minus that if `negative`."""

    factors: tuple[Expr, ...] = ()
    divisors: tuple[tuple[Expr, tuple[Expr, ...]], ...] = ()
    """Each with the factors that it divides: 0/0 is 0, so it may leave their sum, but not go to another factor."""
    conditions: tuple[Expr, ...] = ()
    bound: frozenset[str] = frozenset()
    negative: bool = False

    def times(self, other: Product) -> Product:
        return Product(
            (*self.factors, *other.factors),
            (*self.divisors, *other.divisors),
            (*self.conditions, *other.conditions),
            self.bound | other.bound,
            self.negative != other.negative,
        )


class Opening:
    """Writes an Einsum as a sum of products, looking through `opened`. New names for bound ranks are added to `ranks`."""

    def __init__(self, cascade: Cascade, opened: frozenset[str], fixed: frozenset[str]) -> None:
        self.cascade, self.opened, self.fixed = cascade, opened, fixed
        self.plain = {einsum.output: einsum for einsum in cascade.einsums if einsum.output in opened}
        self.taken = {rank.name for rank in cascade.ranks} | {tensor.name for tensor in cascade.tensors}
        self.taken |= {name for name, _ in cascade.params} | set(cascade.symbols) | set(cascade.counts)
        self.in_use: set[str] = set()
        self.summed: set[str] = set()
        """Sums that were looked through."""
        self.ranks: list[Rank] = list(cascade.ranks)

    def products(self, einsum: Einsum) -> list[Product] | None:
        """The terms; None if there is nothing to expand, or too much."""
        self.in_use |= frozenset().union(*(free_ranks(index) for index in einsum.indices))
        body = einsum.body
        if isinstance(body, Reduce):
            if body.op != "sum":
                return None
            self.in_use |= set(body.ranks)
            found = self._expand(body.body)
            return None if found is None else [replace(one, bound=one.bound | frozenset(body.ranks)) for one in found]
        return self._expand(body)

    def _expand(self, expr: Expr) -> list[Product] | None:
        match expr:
            case Map(op="*", args=(a, b)):
                left, right = self._expand(a), self._expand(b)
                if left is None or right is None or len(left) * len(right) > MAX_TERMS:
                    return None
                return [one.times(other) for one in left for other in right]
            case Map(op="/", args=(a, b)):
                above = self._expand(a)
                return None if above is None else [replace(one, divisors=(*one.divisors, (b, one.factors))) for one in above]
            case Map(op="neg", args=(a,)) if not is_number(a, float("inf")):
                inner = self._expand(a)
                return None if inner is None else [replace(one, negative=not one.negative) for one in inner]
            case Map(op="+" | "-" as op, args=(a, b)) if self._opens(a) or self._opens(b):
                left, right = self._expand(a), self._expand(b)
                if left is None or right is None or len(left) + len(right) > MAX_TERMS:
                    return None
                return left + [replace(one, negative=one.negative != (op == "-")) for one in right]
            case Map(op="where", args=(condition, x, no)) if is_number(no, 0):
                inner = self._expand(x)
                parts = conjuncts(condition)
                return None if inner is None else [replace(one, conditions=(*parts, *one.conditions)) for one in inner]
            case Access(tensor=name) if name in self.opened:
                return self._open(expr)
            case _:
                return [Product((expr,))]

    def _opens(self, expr: Expr) -> bool:
        match expr:
            case Access(tensor=name):
                return name in self.opened
            case Map(op="*" | "/" | "+" | "-" | "neg" | "where", args=args):
                return any(self._opens(arg) for arg in args)
            case _:
                return False

    def _open(self, access: Access) -> list[Product] | None:
        einsum = self.plain[access.tensor]
        body, bound = einsum.body, frozenset[str]()
        names = {index.rank: value for index, value in zip(einsum.indices, access.indices, strict=True) if isinstance(index, Coord)}
        if isinstance(body, Reduce):
            if body.op != "sum":
                return None
            for rank in body.ranks:
                own = rank
                if rank in self.in_use:
                    declared = self.cascade.rank(rank)
                    if rank in self.fixed or declared.split is not None or declared.part_of is not None:
                        return None  # this would walk the fiber under another name
                    own = fresh(f"{rank}_2", self.taken)
                    self.ranks.insert(self.ranks.index(declared) + 1, replace(declared, name=own))
                    names[rank] = Coord(own)
                bound |= {own}
            self.in_use |= bound
            self.summed.add(access.tensor)
            body = body.body
        found = self._expand(substitute(body, names))
        return None if found is None else [replace(one, bound=one.bound | bound) for one in found]


# --- orders -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A factor, or a product of two nodes; `summed` are the ranks that are summed right after."""

    factors: tuple[Expr, ...]
    parts: tuple[Node, ...]
    ranks: frozenset[str]
    """What is left after summing."""
    summed: frozenset[str]
    cost: float


class Orders:
    """The cheapest order of a product, at the extents `size` gives."""

    def __init__(self, kept: frozenset[str], size: Mapping[str, int | float]) -> None:
        self.kept, self.size = kept, size

    def best(self, factors: tuple[Expr, ...], first: frozenset[int] = frozenset()) -> Node:
        """The cheapest tree. The factors at the places `first` are multiplied with one another before any other joins them."""
        assert 1 <= len(factors) <= MAX_FACTORS
        inner = frozenset(first) if 0 < len(first) < len(factors) else frozenset()
        found: dict[frozenset[int], Node] = {}
        ranks = [free_ranks(factor) for factor in factors]
        everything = frozenset(range(len(factors)))

        def needed(of: frozenset[int]) -> frozenset[str]:
            return self.kept.union(*(ranks[i] for i in everything - of))

        for count in range(1, len(factors) + 1):
            for chosen in combinations(range(len(factors)), count):
                of = frozenset(chosen)
                if inner and not (of <= inner or inner <= of or not of & inner):
                    continue
                if count == 1:
                    own = ranks[chosen[0]]
                    summed = own - needed(of)
                    cost = self._points(own) if summed else 0.0
                    found[of] = Node((factors[chosen[0]],), (), own - summed, summed, cost)
                    continue
                best: Node | None = None
                for left in _halves(chosen):
                    a, b = found.get(left), found.get(of - left)
                    if a is None or b is None:
                        continue
                    joined = a.ranks | b.ranks
                    summed = joined - needed(of)
                    cost = a.cost + b.cost + self._points(joined) * (2 if summed else 1)
                    if best is None or cost < best.cost * (1 - 1e-12):
                        best = Node((*a.factors, *b.factors), (a, b), joined - summed, summed, cost)
                if best is not None:
                    found[of] = best
        return found[everything]

    def _points(self, ranks: frozenset[str]) -> float:
        return math.prod(float(self.size[rank]) for rank in ranks)


def _halves(chosen: tuple[int, ...]) -> Iterator[frozenset[int]]:
    """Each way to cut a set in two, once."""
    rest = chosen[1:]
    for count in range(len(rest)):
        for some in combinations(rest, count):
            yield frozenset((chosen[0], *some))


# --- writing an order down ------------------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Turns trees into Einsums of `cascade`: each sum that is not the last has a tensor of its own."""

    cascade: Cascade
    taken: set[str]
    einsums: list[Einsum] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    inner: set[str] = field(default_factory=set)
    """Tensors of sums that are not the last of their product."""

    def named(self, base: str, expr: Expr) -> Access:
        """`expr` in a tensor of its own."""
        ranks = in_order(free_ranks(expr), self.cascade)
        for einsum in self.einsums:
            if einsum.body == expr:
                return Access(einsum.output, coords(ranks))
        name = fresh(base, self.taken)
        self.tensors.append(Tensor(name, ranks))
        self.einsums.append(Einsum(name, coords(ranks), expr))
        return Access(name, coords(ranks))

    def value(self, node: Node, base: str) -> Expr:
        """The node's value before it is summed."""
        if not node.parts:
            return node.factors[0]
        a, b = (self.summed(part, base) for part in node.parts)
        return multiply(a, b)

    def summed(self, node: Node, base: str) -> Expr:
        value = self.value(node, base)
        if not node.summed:
            return value
        access = self.named(joined_name(node.factors, base), Reduce("sum", in_order(node.summed, self.cascade), value))
        self.inner.add(access.tensor)
        return access


def joined_name(factors: tuple[Expr, ...], base: str) -> str:
    """The names of the factors one after another, if that stays short: K and V give KV."""
    names = [factor.tensor for factor in factors if isinstance(factor, Access)]
    if len(names) == len(factors) == 1:
        return f"{names[0]}_sum"
    name = "".join(names)
    return name if len(names) == len(factors) and len(name) <= 6 and "_" not in name else f"{base}_part"


def signed(exprs: list[tuple[Expr, bool]]) -> Expr:
    """The sum of terms, those marked negative subtracted."""
    result: Expr | None = None
    for expr, negative in sorted(exprs, key=lambda pair: pair[1]):
        if result is None:
            result = negate(expr) if negative else expr
        else:
            result = Map("-" if negative else "+", (result, expr))
    return result if result is not None else Number(0)


def over(expr: Expr, divisors: tuple[Expr, ...]) -> Expr:
    for divisor in divisors:
        expr = divide(expr, divisor)
    return expr


def under(expr: Expr, conditions: tuple[Expr, ...]) -> Expr:
    """`expr` where all conditions hold, else 0."""
    if not conditions:
        return expr
    held = conditions[0]
    for condition in conditions[1:]:
        held = Map("and", (held, condition))
    return Map("where", (held, expr, Number(0)))
