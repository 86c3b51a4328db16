"""Identities: what a running value that has seen nothing, or a divisor that is tiny, does to what runs beside it.

In: expressions under a reduction, and their `Fiber`. Out: the proof obligations of the running forms, each decided by structure:

* `unmet`: where a running max (min) is still -inf (inf), is each element that has been seen without weight? `G = max[m](t)` is
  -inf only where each t is, and then exp(t - G) * v is 0; but exp(w - G) is inf for a finite w of another tensor, and is lost.
* `least`: what a divisor is at least, unless nothing has any weight. A sum of non-negative terms is at least 1 if the exponent of a
  term vanishes at the element that the max in it was taken from: `sum[m](exp(t - max[m](t)))`.
* `tiny_power`: a divisor whose square (or higher power) may leave the range of numbers though the quotient does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from ..cascade import Access, Coord, Einsum, Expr, Map, Number, Reduce, children, free_ranks, rebuild, substitute
from .algebra import INFINITY, MINUS_INFINITY, ONE, ZERO, canonical, is_minus_infinity, is_number, polynomial
from .fiber import Fiber
from .folding import Folding
from .signs import sign

Facts = dict[object, Expr]
"""What is known, by canonical form."""
MAX_CASES = 16
TINY = 1e-30
"""What a power of a divisor must be at least: well inside the range of float32."""


# --- values that have seen nothing ------------------------------------------------------------------------------------------------


def unmet(complete: Expr, moving: Expr, wanted: tuple[Expr, ...], fiber: Fiber) -> str | None:
    """Why the elements seen while a root behind `complete` has its identity may not be one of `wanted`; None if they are.

    `moving` is what the elements are apart from `complete`.
    """
    for root in _infinite(complete, fiber):
        definition = _reduction(root, fiber)
        if definition is None:
            return f"`{root.tensor}` may be infinite at the first tile"
        extremes = [(root, definition)]
        if definition.op == "sum":
            if least(root, fiber) is None:
                return f"`{root.tensor}` may be 0, or next to it, at the first tile, where its logarithm or quotient is infinite"
            extremes = list(_extremes(definition.body, fiber))  # it is 0 only where these have seen nothing
        for extreme, reduction in extremes:
            identity = MINUS_INFINITY if reduction.op == "max" else INFINITY
            if not any(_settled(cases, moving, wanted, fiber) for cases in _views(reduction.body, identity, fiber)):
                shown = "-inf" if reduction.op == "max" else "inf"
                return f"where `{extreme.tensor}` is still {shown}, what has been seen is not shown to have no weight"
    return None


def _extremes(expr: Expr, fiber: Fiber) -> Iterator[tuple[Access, Reduce]]:
    """The maxima and minima over the fiber that an expression depends on."""
    for access in _accesses(fiber.look_through(expr)):
        reduction = _reduction(access, fiber)
        if reduction is not None and reduction.op in ("max", "min"):
            yield access, reduction


def settles(tile: Expr, state: Access, wanted: Expr, fiber: Fiber) -> bool:
    """Is the body of a tile's reduction `wanted` at elements seen while the running max or min `state`, after that tile, still has
    its identity? (That no such element has weight is what `unmet` shows; here it is about how the body comes to its value.)"""
    reduction = _reduction(state, fiber)
    if reduction is None or reduction.op not in ("max", "min"):
        return False
    identity = MINUS_INFINITY if reduction.op == "max" else INFINITY
    for cases in _views(reduction.body, identity, fiber):
        known: list[Facts] = [{**facts, canonical(state): identity} for facts in cases]
        if _settled(known, tile, (wanted,), fiber, or_undefined=False):
            return True
        undefined = not _settled(cases, tile, (wanted,), fiber, or_undefined=False)  # in the original, too
        if undefined and _settled(known, tile, (wanted,), fiber):
            return True
    return False


def infinite(complete: Expr, fiber: Fiber) -> frozenset[str]:
    """The roots behind the expression whose identity makes it infinite."""
    return frozenset(root.tensor for root in _infinite(complete, fiber))


def finite_start(complete: Expr, fiber: Fiber) -> bool:
    """Is the complete expression finite while nothing has been seen?"""
    return not any(True for _ in _infinite(complete, fiber))


def _infinite(expr: Expr, fiber: Fiber, diverging: bool = False) -> Iterator[Access]:
    """Roots whose identity makes the expression infinite: a max or min anywhere, a sum under a logarithm or as a divisor."""
    if not fiber.complete(expr):
        return
    match expr:
        case Access():
            reduction = _reduction(expr, fiber)
            if reduction is not None or fiber.roots(expr) == {expr.tensor}:
                if reduction is None or reduction.op in ("max", "min") or (diverging and reduction.op == "sum"):
                    yield expr
                return
            definition = fiber.definition(expr)
            if definition is not None:
                yield from _infinite(definition, fiber, diverging)
            else:
                yield expr
        case Map(op="max" | "min", args=(a, b)) if any(isinstance(part, Number) for part in (a, b)):
            bounded: Expr = b if isinstance(a, Number) else a
            for root in _infinite(bounded, fiber, diverging):
                reduction = _reduction(root, fiber)
                if reduction is None or reduction.op != expr.op:
                    yield root  # the number bounds only what falls (rises) to infinity on its side
        case Map(op="/", args=(a, b)):
            yield from _infinite(a, fiber, diverging)
            if not _vanishes_with(a, b, fiber):
                yield from _infinite(b, fiber, True)
        case Map(op="log" | "log2" | "rsqrt", args=(a,)):
            yield from _infinite(a, fiber, True)
        case Map(op="+", args=(a, b)) if diverging and any(isinstance(p, Number) and p.value > 0 for p in (a, b)):
            parts = [part for part in (a, b) if not isinstance(part, Number)]
            for term in parts:
                yield from _infinite(term, fiber, not sign(term, fiber.cascade).non_negative)
        case _:
            for part in children(expr):
                yield from _infinite(part, fiber, diverging)


def _vanishes_with(a: Expr, b: Expr, fiber: Fiber) -> bool:
    """Is a quotient of two sums at its start 0/0, that is 0?"""
    reductions = [_reduction(part, fiber) if isinstance(part, Access) else None for part in (a, b)]
    return all(reduction is not None and reduction.op == "sum" for reduction in reductions)


def _reduction(access: Access, fiber: Fiber) -> Reduce | None:
    """The reduction that a root is, in terms of the access; of a running state, what each tile is reduced from."""
    if fiber.cascade.tensor(access.tensor).kind == "state":
        return _of_state(access, fiber)
    einsum = _defining(access.tensor, fiber)
    if einsum is None or not isinstance(einsum.body, Reduce) or not fiber.completes(einsum):
        return None
    ranks = [index.rank for index in einsum.indices if isinstance(index, Coord)]
    if len(ranks) != len(einsum.indices) or frozenset(einsum.body.ranks) & free_ranks(access):
        return None
    given = dict(zip(ranks, access.indices, strict=True))
    return Reduce(einsum.body.op, einsum.body.ranks, substitute(einsum.body.body, given))


def _of_state(access: Access, fiber: Fiber) -> Reduce | None:
    """What a running state without correction reduces, tile by tile."""
    state = fiber.cascade.tensor(access.tensor)
    for einsum in fiber.cascade.definitions(state.name):
        match einsum.body:
            case Map(op="max" | "min" | "+", args=(Access(tensor=name), Access(tensor=tile))) if name == state.name:
                inner = _defining(tile, fiber)
                op = "sum" if einsum.body.op == "+" else einsum.body.op
                if inner is None or not isinstance(inner.body, Reduce) or inner.body.op != op:
                    return None
                if any(not isinstance(index, Coord) for index in inner.indices):
                    return None
                given = {rank: index for rank, index in zip(state.ranks, access.indices, strict=True) if rank != state.iterates}
                ranks = frozenset(inner.body.ranks) | {state.iterates or ""}
                return Reduce(op, tuple(sorted(ranks)), substitute(inner.body.body, given))
    return None


def _defining(tensor: str, fiber: Fiber) -> Einsum | None:
    definitions = fiber.cascade.definitions(tensor)
    return definitions[0] if len(definitions) == 1 and fiber.cascade.tensor(tensor).kind == "einsum" else None


def _settled(cases: list[Facts], moving: Expr, wanted: tuple[Expr, ...], fiber: Fiber, or_undefined: bool = True) -> bool:
    return bool(cases) and all(_folds(facts, moving, wanted, fiber, or_undefined) for facts in cases)


def _folds(facts: Facts, moving: Expr, wanted: tuple[Expr, ...], fiber: Fiber, or_undefined: bool) -> bool:
    folding = Folding(fiber.cascade, lambda node: facts.get(canonical(node)), or_undefined)
    value = folding.fold(moving)
    if value in wanted:
        return True
    opened = _opened(moving, fiber, facts)
    return opened != moving and folding.fold(opened) in wanted


def _opened(expr: Expr, fiber: Fiber, facts: Facts) -> Expr:
    """The expression with the plain Einsums behind it read in place, down to what is known."""
    if canonical(expr) in facts:
        return expr
    if isinstance(expr, Access):
        definition = fiber.definition(expr) if fiber.moves(expr) else None
        return expr if definition is None else _opened(definition, fiber, facts)
    return rebuild(expr, tuple(_opened(part, fiber, facts) for part in children(expr)))


def _views(term: Expr, identity: Expr, fiber: Fiber) -> Iterator[list[Facts]]:
    """Ways to take apart that a term has the value: as it is, then with its masks and sums distinguished."""
    yield [{canonical(term): identity}]
    cases = _cases(term, identity, fiber, 0)
    if len(cases) <= MAX_CASES:
        yield cases


def _cases(term: Expr, value: Expr, fiber: Fiber, depth: int) -> list[Facts]:
    """All ways in which a term comes to be an infinity: the term has that value in each, and something in it besides."""
    own: Facts = {canonical(term): value}
    below = MINUS_INFINITY if is_minus_infinity(value) else INFINITY
    other = INFINITY if is_minus_infinity(value) else MINUS_INFINITY
    found: list[Facts]
    match term:
        case Number() if term != value:
            return []  # it never is
        case Map(op="neg", args=(Number(),)) if term != value:
            return []
        case Access() if depth < 8 and (inner := fiber.definition(term)) is not None:
            found = _cases(inner, value, fiber, depth + 1)
        case Map(op="where", args=(condition, yes, no)):
            taken = [{canonical(condition): ONE, **facts} for facts in _cases(yes, value, fiber, depth + 1)]
            found = taken + [{canonical(condition): ZERO, **facts} for facts in _cases(no, value, fiber, depth + 1)]
        case Map(op="+", args=(a, b)):
            found = _cases(a, below, fiber, depth + 1) + _cases(b, below, fiber, depth + 1)
        case Map(op="-", args=(a, b)):
            found = _cases(a, below, fiber, depth + 1) + _cases(b, other, fiber, depth + 1)
        case Map(op="neg", args=(a,)):
            found = _cases(a, other, fiber, depth + 1)
        case Map(op="*" | "/", args=(a, b)) if sign(b, fiber.cascade).name == "POSITIVE":
            found = _cases(a, below, fiber, depth + 1)
        case Map(op="*", args=(a, b)) if sign(a, fiber.cascade).name == "POSITIVE":
            found = _cases(b, below, fiber, depth + 1)
        case _:
            found = [{}]
    return [{**facts, **own} for facts in found]


# --- divisors -----------------------------------------------------------------------------------------------------------


def tiny_power(divisors: tuple[Expr, ...], fiber: Fiber) -> Expr | None:
    """A divisor of which a power of 2 or more is taken and that is not known to be 0 or far from it."""
    degrees: dict[object, Fraction] = {}
    for divisor in divisors:
        base, degree = _base(divisor)
        key = canonical(base)
        degrees[key] = degrees.get(key, Fraction(0)) + degree
        bound = least(base, fiber) if degrees[key] >= 2 else 1.0
        if bound is None or bound ** float(degrees[key]) < TINY:
            return base
    return None


def _base(expr: Expr) -> tuple[Expr, Fraction]:
    """What a power is of, and which; a root counts as half."""
    match expr:
        case Map(op="**", args=(a, Number(value=k))):
            base, degree = _base(a)
            return base, degree * Fraction(k)
        case Map(op="sqrt", args=(a,)):
            base, degree = _base(a)
            return base, degree / 2
        case Map(op="abs", args=(a,)):
            return _base(a)
        case _:
            return expr, Fraction(1)


def least(expr: Expr, fiber: Fiber) -> float | None:
    """A positive number that it is at least, unless it is 0 because nothing has any weight; None if none is known."""
    match expr:
        case Number(value=value):
            return value if value > 0 else None
        case Access():
            reduction = _reduction(expr, fiber)
            if reduction is None:
                inner = fiber.definition(expr)
                return None if inner is None else least(inner, fiber)
            terms = reduction.op == "sum" and sign(reduction.body, fiber.cascade).non_negative
            return 1.0 if terms and _reaches_one(reduction.body, frozenset(reduction.ranks), fiber, None) else None
        case Map(op="+", args=(a, b)):
            pairs = ((a, b), (b, a))
            found = [least(x, fiber) for x, y in pairs if sign(y, fiber.cascade).non_negative]
            return max((bound for bound in found if bound is not None), default=None)
        case Map(op="*", args=(a, b)):
            left, right = least(a, fiber), least(b, fiber)
            return None if left is None or right is None else left * right
        case Map(op="sqrt", args=(a,)):
            bound = least(a, fiber)
            return None if bound is None else bound**0.5
        case Map(op="**", args=(a, Number(value=k))) if k > 0:
            bound = least(a, fiber)
            return None if bound is None else float(bound) ** k
        case _:
            return None


def _reaches_one(term: Expr, ranks: frozenset[str], fiber: Fiber, mask: Expr | None) -> bool:
    """Is there an element at which the term is exp(0)? There is where its exponent vanishes once the max in it is replaced by what
    it is the max of."""
    match term:
        case Access() if (inner := fiber.definition(term)) is not None:
            return _reaches_one(inner, ranks, fiber, mask)
        case Map(op="where", args=(condition, yes, no)) if is_number(no, 0) and mask is None:
            return _reaches_one(yes, ranks, fiber, condition)
        case Map(op="exp" | "exp2", args=(exponent,)):
            return any(not polynomial(found) for found in _at_the_extreme(exponent, ranks, fiber, mask))
        case _:
            return False


def _at_the_extreme(exponent: Expr, ranks: frozenset[str], fiber: Fiber, mask: Expr | None) -> Iterator[Expr]:
    """The exponent at the element that a max or min in it is attained at."""
    opened = fiber.look_through(exponent)
    for view in dict.fromkeys((exponent, opened)):
        for root in [node for node in _accesses(view) if not fiber.moves(node)]:
            reduction = _reduction(root, fiber)
            if reduction is None or reduction.op not in ("max", "min") or not frozenset(reduction.ranks) <= ranks:
                continue
            term = reduction.body
            if mask is not None:
                if not (isinstance(term, Map) and term.op == "where" and canonical(term.args[0]) == canonical(mask)):
                    continue
                term = term.args[1]
            yield _with(view, root, term)


def _accesses(expr: Expr) -> Iterator[Access]:
    if isinstance(expr, Access):
        yield expr
    else:
        for part in children(expr):
            yield from _accesses(part)


def _with(expr: Expr, old: Expr, new: Expr) -> Expr:
    return new if expr == old else rebuild(expr, tuple(_with(part, old, new) for part in children(expr)))
