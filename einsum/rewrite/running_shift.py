"""Running shift: a max or min of f(x, g) = u(x) + v(g), where g is a reduction over the same rank, runs beside it.

before    Y[p] = max[m1,m0]((X[p,m1,m0] - GM[p]) * t)
after     Y_tile[p,m1]  = max[m0]((X[p,m1,m0] - GM_run[p,m1+1]) * t)
          GM_shift[p,m1] = GM_run[p,m1]*t - GM_run[p,m1+1]*t
          Y_run[p,0]    = -inf
          Y_run[p,m1+1] = max(Y_run[p,m1] + GM_shift[p,m1], Y_tile[p,m1])
          Y[p]          = Y_run[p,M1]

Condition: f(x, g) + f(x0, g0) = f(x, g0) + f(x0, g), and u(x) is the initial value of the state where what v depends on still has
its own (`identities`). A state that still has its initial value keeps it.
"""

from __future__ import annotations

from ..cascade import Cascade, Coord, Expr, Map, free_ranks
from .accumulate import IDENTITY
from .algebra import add, negate, subtract
from .fiber import Fiber
from .identities import unmet
from .running import RunningVersions, state_beside
from .separate import Obstacle, Total, separate_sum
from .step import Refused, Rewritten, Step, in_order, replaced, shown, text

NAME = "running-shift"


def shiftable(expr: Expr, op: str, bound: frozenset[str], fiber: Fiber, proven: bool = False) -> Total | Obstacle:
    """Is a reduction `op` of `expr` shiftable? The terms, or what stands in the way (`proven`: as for `rescalable`)."""
    if op not in ("max", "min"):
        return Obstacle(expr, f"a term does not leave a {op}")
    found = separate_sum(expr, fiber)
    if isinstance(found, Total) and free_ranks(found.complete) & bound:
        return Obstacle(expr, "the complete term depends on another rank that is reduced")
    if isinstance(found, Total) and not proven and (reason := unmet(found.complete, found.moving, (IDENTITY[op],), fiber)):
        return Obstacle(expr, reason)
    return found


def running_shift(cascade: Cascade, target: str, rank: str, running: frozenset[str]) -> Rewritten | Refused | None:
    """Run the max or min that defines `target` beside the states `running` that it depends on."""
    beside = state_beside(cascade, target, rank, running)
    if beside is None:
        return None
    einsum, state, fiber = beside
    found = shiftable(state.reduce.body, state.reduce.op, frozenset(state.reduce.ranks), fiber, proven=True)
    if isinstance(found, Obstacle):
        return Refused(NAME, target, found.expr, found.reason, tuple(sorted(running)))
    versions = RunningVersions(cascade, state.outer, fiber)
    versions.reserve(state.tile_name, state.run_name)
    body = versions.settled(versions.next(state.reduce.body), found.complete, IDENTITY[state.reduce.op])
    height = negate(found.complete)
    shift = subtract(versions.at(height, "now"), versions.at(height, "next"))
    base = versions.name_of(found.complete, target)
    correction = versions.named(f"{base}_shift", shift, in_order(free_ranks(shift), cascade))
    now, identity = state.at(Coord(state.outer)), IDENTITY[state.reduce.op]
    carried = Map("where", (Map("==", (now, identity)), identity, add(now, correction)))
    new = (*versions.einsums, *state.einsums(body, carried, einsum))
    after = replaced(cascade, target, new, (*versions.tensors, *state.tensors))
    step = Step(
        NAME,
        target,
        shown((einsum,), cascade),
        f"{state.reduce.op} of f(x, g') = {state.reduce.op} of f(x, g) + v(g') - v(g),  v(g') - v(g) = {text(shift)}",
        f"f = u(x) + v(g) with u = {text(found.moving)} and v = {text(found.complete)}, so f(x,g) + f(x0,g0) = f(x,g0) + f(x0,g); "
        "what has seen nothing stays at its initial value",
        shown(new, after),
    )
    return Rewritten(after, step, state.run_name)
