"""Running rescale: a reduction of f(x, g), where g is itself a reduction over the same rank, runs beside it.

before    GM[p] = GM_run[p,M1]
          SN[p,m1,m0] = exp(QK[p,m1,m0] - GM[p])
          SD[p]       = sum[m1,m0](SN[p,m1,m0])
after     SN_tile[p,m1,m0] = exp(QK[p,m1,m0] - GM_run[p,m1+1])
          GM_rescale[p,m1] = exp(GM_run[p,m1] - GM_run[p,m1+1])
          SD_tile[p,m1]    = sum[m0](SN_tile[p,m1,m0])
          SD_run[p,0]      = 0
          SD_run[p,m1+1]   = SD_run[p,m1] * GM_rescale[p,m1] + SD_tile[p,m1]
          SD[p]            = SD_run[p,M1]

Condition: f(x, g) * f(x0, g0) = f(x, g0) * f(x0, g) for all x, x0, g, g0, that is f = a(x) * b(g); then what was summed under g is
right under g' after a factor H = b(g') / b(g). Exponentials are written exp(u(g) - u(g')) so that the first tile, where
u(g) = -inf, gives 0 (-inf - (-inf) is -inf); a divisor d(g) is written d(g)/d(g') (0/0 is 0). Out of a max or a min the factor must
be >= 0. While a running max in u is still -inf, all that has been seen must have no weight (`identities`): f is 0 there, by itself
or under a `where`.
"""

from __future__ import annotations

from ..cascade import Access, Cascade, Coord, Expr, Map, Number, Reduce, free_ranks
from .accumulate import IDENTITY
from .algebra import ONE, ZERO, Key, divide, is_number, multiply, negate, polynomial
from .fiber import Fiber
from .identities import unmet
from .running import RunningVersions, state_beside
from .separate import Obstacle, Product, separate_product
from .signs import sign
from .step import Refused, Rewritten, Step, in_order, replaced, shown, text

NAME = "running-rescale"


def rescalable(expr: Expr, op: str, bound: frozenset[str], fiber: Fiber, proven: bool = False) -> Product | Obstacle:
    """Is a reduction `op` of `expr` over the fiber (and the other `bound` ranks) rescalable? The factors, or what stands in the
    way.

    `proven`: what must hold while nothing has been seen has been shown, on the cascade before it had states: a running divisor is 0
    only where all that it divides is, and where a running max (min) is -inf (inf), so are the exponents beside it.
    """
    found = separate_product(expr, fiber)
    if isinstance(found, Obstacle):
        return found
    if op not in ("sum", "max", "min"):
        return Obstacle(expr, f"a factor does not leave a {op}")
    if free_ranks(found.complete) & bound:
        return Obstacle(expr, "the complete factor depends on another rank that is reduced")
    factors = (*found.numerator, *found.denominator)
    if op != "sum":
        for factor in factors:
            if not sign(factor, fiber.cascade).non_negative:
                return Obstacle(factor, f"only a factor that is known to be >= 0 may leave a {op}")
    for factor in found.numerator:
        return Obstacle(factor, "a running factor may pass through 0, after which what was summed is lost")
    for divisor in found.denominator:
        if not proven and not _vanish_together(divisor, found.moving, fiber):
            return Obstacle(divisor, "a running divisor may pass through 0 where what it divides does not")
    for exponent in (found.exponent, found.binary):
        if not proven and (reason := unmet(exponent, found.moving, (ZERO,), fiber)):
            return Obstacle(expr, reason)
    return found


def _vanish_together(divisor: Expr, moving: Expr, fiber: Fiber) -> bool:
    """Is the divisor a power of a sum of non-negative terms over the fiber, each of which is a factor of `moving`?"""
    base = divisor
    while isinstance(base, Map) and base.op in ("**", "sqrt", "abs"):
        exponent = base.args[1] if base.op == "**" else Number(1)
        if not sign(exponent, fiber.cascade).non_negative:
            return False
        base = base.args[0]
    if not isinstance(base, Access):
        return False
    if base.tensor in {t.name for t in fiber.cascade.tensors if t.kind == "state"}:
        return False
    (definition,) = fiber.cascade.definitions(base.tensor) or (None,)
    if definition is None:
        return False
    if isinstance(definition.body, Map):
        return _vanish_together(definition.body, moving, fiber) if not fiber.moves(definition.body) else False
    if not isinstance(definition.body, Reduce) or definition.body.op != "sum":
        return False
    key = ("factors of terms", base.tensor, fiber.rank, fiber.running)
    if key not in fiber.cascade.memo:
        fiber.cascade.memo[key] = _factors_of_terms(definition.body.body, fiber)
    atoms = fiber.cascade.memo[key]
    assert isinstance(atoms, frozenset)
    return bool(atoms) and all(atoms <= {key for key, power in m if power > 0} for m in polynomial(moving))


def running_rescale(cascade: Cascade, target: str, rank: str, running: frozenset[str]) -> Rewritten | Refused | None:
    """Run the reduction that defines `target` beside the states `running` that it depends on."""
    beside = state_beside(cascade, target, rank, running)
    if beside is None:
        return None
    einsum, state, fiber = beside
    found = rescalable(state.reduce.body, state.reduce.op, frozenset(state.reduce.ranks), fiber, proven=True)
    if isinstance(found, Obstacle):
        return Refused(NAME, target, found.expr, found.reason, tuple(sorted(running)))
    versions = RunningVersions(cascade, state.outer, fiber)
    versions.reserve(state.tile_name, state.run_name)
    body = versions.settled(versions.next(state.reduce.body), found.complete, ZERO)
    factor, guard = correction(found, versions)
    base = versions.name_of(found.complete, target)
    ranks = in_order(free_ranks(factor), cascade)
    rescale = versions.named(f"{base}_rescale", factor, ranks)
    now = state.at(Coord(state.outer))
    carried = multiply(now, rescale)
    if state.reduce.op != "sum":
        identity = IDENTITY[state.reduce.op]
        carried = Map("where", (Map("==", (now, identity)), identity, carried))
    new = (*versions.einsums, *state.einsums(body, carried, einsum))
    after = replaced(cascade, target, new, (*versions.tensors, *state.tensors))
    step = Step(
        NAME,
        target,
        shown((einsum,), cascade),
        f"{state.reduce.op} of f(x, g') = {state.reduce.op} of f(x, g) * H,  H = b(g') / b(g) = {text(factor)}",
        _condition(found, fiber, guard),
        shown(new, after),
    )
    return Rewritten(after, step, state.run_name)


def correction(found: Product, versions: RunningVersions) -> tuple[Expr, str]:
    """H = b(g') / b(g) of the states after and before the current tile, and how the first tile is guarded."""
    factor: Expr = ONE
    guards: list[str] = []
    for op, exponent in (("exp", found.exponent), ("exp2", found.binary)):
        if is_number(exponent, 0):
            continue
        height = negate(exponent)
        now, then = versions.at(height, "now"), versions.at(height, "next")
        factor = multiply(factor, Map(op, (Map("-", (now, then)),)))
        start = versions.start(height)
        if start == "-inf":
            guards.append(f"before the first tile H = {op}(-inf) = 0")
        elif start == "finite":
            guards.append("H is finite before the first tile")
        elif (unseen := versions.nothing_seen(versions.states(height))) is not None:
            factor = Map("where", (unseen, ZERO, factor))
            guards.append("H is set to 0 while nothing has been seen")
        if (settled := versions.minima_settled(versions.states(height))) is not None:
            factor = Map("where", (settled, ONE, factor))
            guards.append("H is 1 where nothing moves, a minimum at -inf too")
    for part in found.denominator:
        factor = multiply(factor, _quotient(part, versions))
    if found.denominator:
        guards.append("while a divisor is 0 nothing but 0 has been summed, and 0/0 = 0")
    return factor, "; ".join(guards)


def _quotient(divisor: Expr, versions: RunningVersions) -> Expr:
    """d(g) / d(g'); of a power, the power of the quotient: the power of a small divisor may leave the range of numbers."""
    if isinstance(divisor, Map) and divisor.op == "**":
        base, exponent = divisor.args
        return Map("**", (_quotient(base, versions), exponent))
    return divide(versions.at(divisor, "now"), versions.at(divisor, "next"))


def _condition(found: Product, fiber: Fiber, guard: str) -> str:
    separated = f"f = a(x) * b(g) with a = {text(found.moving)} and b = {text(found.complete)}"
    return f"{separated}, so f(x,g)*f(x0,g0) = f(x,g0)*f(x0,g)" + (f"; {guard}" if guard else "")


def _factors_of_terms(term: Expr, fiber: Fiber) -> frozenset[Key]:
    """Moving factors of a non-negative term of a sum; none if that is not what it is."""
    if not sign(term, fiber.cascade).non_negative:
        return frozenset()
    separated = separate_product(term, fiber)
    if isinstance(separated, Obstacle):
        return frozenset()
    needed = polynomial(separated.moving)
    if len(needed) != 1:
        return frozenset()
    ((monomial, _),) = needed.items()
    return frozenset(key for key, power in monomial if power > 0)
