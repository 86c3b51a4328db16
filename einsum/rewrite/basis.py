"""Finite decomposition: an expression under a sum as a sum of terms a_i(x) * b_i(g).

In: the body of a sum over the fiber, and its `Fiber`. Out: `Term`s, each with a part that stays under the sum and the complete
factors that may leave it. Total: what cannot be opened is an atom and stays where it is, complete values inside and all.
Exponentials are never opened (exp(x - g) as exp(x) / exp(g) would leave the range of numbers; the running forms treat them),
logarithms are.

    (SN/SD) * (dP - D) * K     ->     SN*dP*K / SD   and   -(SN*K) * D / SD
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cascade import Access, Cascade, Einsum, Expr, Map, Number, Reduce, Tensor, free_ranks
from ..flatten import flatten
from .algebra import ONE, ZERO, add, canonical, divide, is_number, multiply, negate, power, product, subtract
from .fiber import Fiber
from .identities import finite_start, tiny_power
from .signs import sign
from .step import Refused, Rewritten, Step, coords, fresh, in_order, reordered, replaced, shown, taken_names

MAX_TERMS = 8
"""A decomposition with more terms than this is given up: every term is a reduction of its own."""


TINY = "a power of the divisor may leave the range of numbers where the quotient does not: it is not shown to be 0 or far from 0"


@dataclass(frozen=True)
class Term:
    """stays * product(numerator) / product(denominator)."""

    stays: Expr
    numerator: tuple[Expr, ...] = ()
    denominator: tuple[Expr, ...] = ()
    opened: int = 0
    """How many sums that were opened are multiplied in this term: the degree in differences such as x - g."""

    @property
    def leaves(self) -> bool:
        return bool(self.numerator or self.denominator)

    @property
    def factor(self) -> Expr:
        top = product(self.numerator)
        return divide(top, product(self.denominator)) if self.denominator else top


def common_term(expr: Expr, fiber: Fiber) -> Term:
    """The expression as one term: what is common to a sum may leave, but no sum is opened."""
    (term,) = _open(expr, fiber, sums=False)
    return term


def terms(expr: Expr, fiber: Fiber) -> tuple[Term, ...]:
    """The decomposition; a single term without factors if nothing can leave."""
    found = _open(expr, fiber, sums=True)
    if len(found) > MAX_TERMS:
        return (Term(expr),)
    merged: dict[object, Term] = {}
    for term in found:
        key = canonical(term.factor), fiber.leaves(term.stays)
        if key in merged:
            merged[key] = replace(term, stays=add(merged[key].stays, term.stays))
        else:
            merged[key] = term
    return tuple(term for term in merged.values() if not is_number(term.stays, 0))


def _open(expr: Expr, fiber: Fiber, sums: bool) -> list[Term]:
    if not fiber.complete(expr):
        return [Term(expr)]
    if not fiber.moves(expr):
        return [_factors(expr, fiber)]
    match expr:
        case Access():
            inner = fiber.definition(expr)
            if inner is None:
                return [Term(expr)]
            opened = _open(inner, fiber, sums)
            return opened if _apart(opened, fiber) else [Term(expr)]
        case Map(op="+" | "-", args=(a, b)) if not sums:
            (left,), (right,) = _open(a, fiber, sums), _open(b, fiber, sums)
            if not left.leaves or canonical(left.factor) != canonical(right.factor):
                return [Term(expr)]
            return [replace(left, stays=(add if expr.op == "+" else subtract)(left.stays, right.stays))]
        case Map(op="+", args=(a, b)):
            return [_of_sum(term) for term in _open(a, fiber, sums) + _open(b, fiber, sums)]
        case Map(op="-", args=(a, b)) if _from_extreme(a, b, fiber):
            return [Term(expr)]
        case Map(op="-", args=(a, b)):
            return [_of_sum(term) for term in _open(a, fiber, sums) + [_negative(term) for term in _open(b, fiber, sums)]]
        case Map(op="neg", args=(a,)):
            return [_negative(term) for term in _open(a, fiber, sums)]
        case Map(op="*", args=(a, b)):
            return [_times(x, y) for x in _open(a, fiber, sums) for y in _open(b, fiber, sums)]
        case Map(op="/", args=(a, b)):
            below = _open(b, fiber, sums)
            if len(below) != 1:
                return [Term(expr)]
            under = below[0]
            inverse = Term(divide(ONE, under.stays), under.denominator, under.numerator)
            return [_times(x, inverse) for x in _open(a, fiber, sums)]
        case Map(op="**", args=(a, Number(value=int() as k))) if 2 <= k <= 4:
            opened = _open(a, fiber, sums)
            if len(opened) == 1:
                term = opened[0]
                raised = tuple(power(part, Number(k)) for part in term.numerator)
                under_raised = tuple(power(part, Number(k)) for part in term.denominator)
                if tiny_power(under_raised, fiber) is not None:
                    return [Term(expr)]  # the power of a quotient
                return [Term(power(term.stays, Number(k)), raised, under_raised)]
            result = opened
            for _ in range(k - 1):
                result = [_times(x, y) for x in result for y in opened]
                if len(result) > 4 * MAX_TERMS:
                    return [Term(expr)]
            return result
        case Map(op="where", args=(condition, yes, no)) if not fiber.complete(condition):
            chosen = [replace(term, stays=_where(condition, term.stays, ZERO)) for term in _open(yes, fiber, sums)]
            other = [replace(term, stays=_where(condition, ZERO, term.stays)) for term in _open(no, fiber, sums)]
            opened = [term for term in chosen + other if not is_number(term.stays, 0)] or [Term(ZERO)]
            if not _apart(opened, fiber):
                return [Term(expr)]
            if len(opened) == 2 and len(chosen) == len(other) == 1 and canonical(opened[0].factor) == canonical(opened[1].factor):
                yes_part, no_part = _open(yes, fiber, sums)[0].stays, _open(no, fiber, sums)[0].stays
                return [replace(opened[0], stays=Map("where", (condition, yes_part, no_part)))]
            return opened if sums or len(opened) == 1 else [Term(expr)]
        case Map(op="log", args=(a,)) if sums:
            opened = _open(_through(a, fiber), fiber, sums)
            if len(opened) != 1:
                return [Term(expr)]
            term = opened[0]
            inside = _through(term.stays, fiber)
            unopened = not (isinstance(inside, Map) and inside.op == "exp")
            if not term.leaves and unopened:
                return [Term(expr)]
            moving = [Term(Map("log", (term.stays,)))] if unopened else _open(inside.args[0], fiber, sums)  # type: ignore[union-attr]
            above = [Term(ONE, (Map("log", (part,)),)) for part in term.numerator]
            below = [Term(negate(ONE), (Map("log", (part,)),)) for part in term.denominator]
            return moving + above + below
        case Reduce(op="sum", ranks=ranks, body=body):
            opened = _open(body, fiber, sums)
            if not _apart(opened, fiber) or any(free_ranks(t.factor) & frozenset(ranks) for t in opened):
                return [Term(expr)]
            return [replace(term, stays=Reduce("sum", ranks, term.stays)) for term in opened]
        case _:
            return [Term(expr)]


def _from_extreme(a: Expr, b: Expr, fiber: Fiber) -> bool:
    """Is it the distance of elements from their own max or min? Opened, its terms may be large and cancel."""
    if not isinstance(b, Access) or fiber.moves(b):
        return False
    definitions = fiber.cascade.definitions(b.tensor)
    body = definitions[0].body if len(definitions) == 1 else None
    return isinstance(body, Reduce) and body.op in ("max", "min") and canonical(body.body) == canonical(a)


def _apart(opened: list[Term], fiber: Fiber) -> bool:
    """Is anything won by opening: may a factor leave, or do terms depend on different complete values?"""
    return any(term.leaves for term in opened) or len({fiber.leaves(term.stays) for term in opened}) > 1


def _through(expr: Expr, fiber: Fiber) -> Expr:
    """The definition behind an access, as far as it is a mixed map expression."""
    while isinstance(expr, Access) and fiber.mixed(expr):
        inner = fiber.definition(expr)
        if inner is None:
            return expr
        expr = inner
    return expr


def _factors(expr: Expr, fiber: Fiber) -> Term:
    """A complete expression that does not move: its factors, constants kept under the sum."""
    if not fiber.complete(expr):
        return Term(expr)
    match expr:
        case Map(op="*", args=(a, b)):
            return _times(_factors(a, fiber), _factors(b, fiber))
        case Map(op="/", args=(a, b)):
            below = _factors(b, fiber)
            return _times(_factors(a, fiber), Term(divide(ONE, below.stays), below.denominator, below.numerator))
        case Map(op="neg", args=(a,)):
            return _negative(_factors(a, fiber))
        case _:
            return Term(ONE, (expr,))


def _where(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return ZERO if is_number(yes, 0) and is_number(no, 0) else Map("where", (condition, yes, no))


def _of_sum(term: Term) -> Term:
    return replace(term, opened=max(term.opened, 1))


def _negative(term: Term) -> Term:
    return replace(term, stays=negate(term.stays))


def _times(a: Term, b: Term) -> Term:
    """The product; a sign is kept in front."""
    if isinstance(a.stays, Map) and a.stays.op == "neg":
        return _negative(_times(replace(a, stays=a.stays.args[0]), b))
    if isinstance(b.stays, Map) and b.stays.op == "neg":
        return _negative(_times(a, replace(b, stays=b.stays.args[0])))
    stays = multiply(a.stays, b.stays)
    return Term(stays, a.numerator + b.numerator, a.denominator + b.denominator, a.opened + b.opened)


def distribute(
    cascade: Cascade, einsum: Einsum, found: tuple[Term, ...], names: tuple[str, ...], rank: str
) -> tuple[Cascade, tuple[Einsum, ...]]:
    """The sum of `einsum` replaced by one sum a term, and the terms put together; the new Einsums, the last one last.

    A term whose sum the cascade already has is read from there.
    """
    assert isinstance(einsum.body, Reduce)
    reduce, taken = einsum.body, taken_names(cascade)
    fiber = Fiber(cascade, rank)
    new: list[Einsum] = []
    tensors: list[Tensor] = []
    total: Expr = ZERO
    for term, name in zip(found, names, strict=True):
        if reduce.op in ("sum", "mean"):
            term = _constants_out(term, frozenset(reduce.ranks))
        negative = isinstance(term.stays, Map) and term.stays.op == "neg" and reduce.op in ("sum", "mean")
        stays = term.stays.args[0] if negative else term.stays  # type: ignore[union-attr]
        body = replace(reduce, body=stays)
        ranks = in_order(free_ranks(body), cascade)
        existing = _same_sum(cascade, einsum, body, ranks)
        if existing is None:
            existing = fresh(name, taken)
            tensors.append(Tensor(existing, ranks))
            new.append(Einsum(existing, coords(ranks), body))
        sum_ = Access(existing, coords(ranks))
        value = _put_together(sum_, term)
        if any(not finite_start(part, fiber) for part in term.numerator):  # nothing times what is infinite where there is nothing
            value = Map("where", (Map("==", (sum_, ZERO)), ZERO, value))
        total = subtract(total, value) if negative else add(total, value)
    new.append(replace(einsum, body=total))
    return reordered(flatten(replaced(cascade, einsum.output, new, tensors))), tuple(new)


def _constants_out(term: Term, bound: frozenset[str]) -> Term:
    """The term with the factors that do not depend on any reduced rank outside, complete or not."""
    match term.stays:
        case Map(op="neg", args=(a,)):
            return _negative(_constants_out(replace(term, stays=a), bound))
        case Map(op="*", args=(a, b)):
            left = _constants_out(Term(a), bound)
            right = _constants_out(Term(b), bound)
            return _times(_times(left, right), Term(ONE, term.numerator, term.denominator))
        case Map(op="/", args=(a, b)) if not free_ranks(b) & bound:
            return _times(_constants_out(Term(a), bound), Term(ONE, term.numerator, (*term.denominator, b)))
        case stays if not free_ranks(stays) & bound and not is_number(stays, 1):
            return Term(ONE, (stays, *term.numerator), term.denominator)
        case _:
            return term


def _put_together(value: Expr, term: Term) -> Expr:
    top = multiply(value, product(term.numerator))
    return divide(top, product(term.denominator)) if term.denominator else top


def _same_sum(cascade: Cascade, einsum: Einsum, body: Reduce, ranks: tuple[str, ...]) -> str | None:
    """An earlier tensor that is this very sum."""
    key = canonical(body)
    for earlier in cascade.einsums:
        if earlier is einsum:
            return None
        if isinstance(earlier.body, Reduce) and earlier.indices == coords(ranks) and canonical(earlier.body) == key:
            return earlier.output
    return None


@dataclass(frozen=True)
class LeavingFactor:
    """A reduction whose body is one term with complete factors, all of which may leave it."""

    rewrite: str
    cascade: Cascade
    einsum: Einsum
    term: Term
    sign_condition: str
    rank: str

    @property
    def op(self) -> str:
        assert isinstance(self.einsum.body, Reduce)
        return self.einsum.body.op

    @property
    def reduced(self) -> str:
        assert isinstance(self.einsum.body, Reduce)
        return ", ".join(f"`{rank}`" for rank in self.einsum.body.ranks)

    def apply(self, name: str, rule: str, condition: str) -> Rewritten:
        after, new = distribute(self.cascade, self.einsum, (self.term,), (name,), self.rank)
        before = shown([self.einsum], self.cascade)
        return Rewritten(after, Step(self.rewrite, self.einsum.output, before, rule, condition, shown(new, after)))


def leaving_factor(rewrite: str, cascade: Cascade, target: str, rank: str) -> LeavingFactor | Refused | None:
    """The complete factors of a sum, max or min over the fiber, if its body is one term that has some."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce):
        return None
    einsum, reduce = definitions[0], definitions[0].body
    fiber = Fiber(cascade, rank)
    if reduce.op not in ("sum", "mean", "max", "min") or not fiber.completes(einsum) or not fiber.complete(reduce.body):
        return None
    term = common_term(reduce.body, fiber)
    if not term.leaves:
        return None
    factors = (*term.numerator, *term.denominator)
    tiny = tiny_power(term.denominator, fiber)
    if tiny is not None:
        return Refused(rewrite, target, tiny, TINY)
    for factor in factors:
        if free_ranks(factor) & frozenset(reduce.ranks):
            return Refused(rewrite, target, factor, "the factor depends on a rank that is reduced")
    if reduce.op in ("sum", "mean"):
        return LeavingFactor(rewrite, cascade, einsum, term, "", rank)
    for factor in factors:
        if not sign(factor, cascade).non_negative:
            return Refused(rewrite, target, factor, f"only a factor that is known to be >= 0 may leave a {reduce.op}")
    return LeavingFactor(rewrite, cascade, einsum, term, " and is >= 0", rank)
