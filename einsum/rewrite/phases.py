"""Phases: in which sweep along the fiber each reduction can be finished, if it runs beside what it depends on wherever algebra
allows.

In: a flat cascade and a rank. Out: for every complete value (root) its phase, from 1, and how it gets there:

* it depends on no other root: phase 1, it accumulates;
* it separates (as a product, for max and min as a sum, or into moments) from all roots of the greatest phase it depends on: that
  phase too;
* otherwise: one phase more, and an `Obstacle` that says which sub-expression stands in the way.

An earlier phase never hurts a later reduction, so deciding in the order of definition gives the fewest phases for the cascade as
it is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..cascade import Access, Cascade, Einsum, Map, Reduce, remembered
from .accumulate import COMBINE, loop_rank
from .computer_algebra import counterexample
from .fiber import Fiber
from .moments import moments
from .running_rescale import rescalable
from .running_shift import shiftable
from .separate import Obstacle


@dataclass(frozen=True)
class Phases:
    """`of`: phase of each root. `beside`: for a root that runs beside others, which. `obstacles`: why a root starts a new phase."""

    of: dict[str, int] = field(default_factory=dict)
    beside: dict[str, frozenset[str]] = field(default_factory=dict)
    obstacles: dict[str, Obstacle] = field(default_factory=dict)
    waits_for: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def loops(self) -> frozenset[str]:
        """Phases in which something runs beside something else."""
        return frozenset(root for root in self.beside)


@remembered
def phases(cascade: Cascade, rank: str) -> Phases:
    """The phase of each root, in the order of definition."""
    fiber = Fiber(cascade, rank)
    result = Phases()
    for einsum in cascade.einsums:
        name = einsum.output
        state = cascade.tensor(name).kind == "state" and cascade.tensor(name).iterates in fiber.ranks
        settled = fiber.settled(name) and name in fiber.roots(Access(name, ()))
        if not state and not settled and not fiber.completes(einsum):
            continue
        behind = frozenset(root for root in fiber.roots_behind(name) if root in result.of)
        if settled and not fiber.completes(einsum) and behind and not fiber.moves(einsum.body):
            result.of[name] = max(result.of[root] for root in behind)
            continue
        if not behind:
            result.of.setdefault(name, 1)
            continue
        top = max(result.of[root] for root in behind)
        newest = frozenset(root for root in behind if result.of[root] == top)
        obstacle = _beside(einsum, fiber.with_running(newest), state)
        if obstacle is None:
            result.of[name] = top
            result.beside[name] = newest
        else:
            result.of[name] = max(top + 1, result.of.get(name, 0))
            result.obstacles[name] = obstacle
            result.waits_for[name] = newest
    return result


def _beside(einsum: Einsum, fiber: Fiber, state: bool) -> Obstacle | None:
    """None if the reduction can run beside the roots that `fiber` takes as running."""
    body = einsum.body
    if state:
        return Obstacle(body, "a recurrence along the rank that depends on complete values")
    if not isinstance(body, Reduce) or (body.op not in COMBINE and body.op != "mean"):
        return Obstacle(body, "it is no sum, product, max or min")
    for root in sorted(fiber.running or ()):
        if not _runs(root, fiber):
            return Obstacle(body, f"`{root}` has no running value, tile by tile")
    op = "sum" if body.op == "mean" else body.op
    bound = frozenset(body.ranks)
    found = rescalable(body.body, op, bound, fiber)
    if not isinstance(found, Obstacle):
        return None
    if op in ("max", "min"):
        shifted = shiftable(body.body, op, bound, fiber)
        if not isinstance(shifted, Obstacle):
            return None
        return shifted if _additive(body.body) or shifted.expr is body.body else found
    kept = moments(body.body, op, bound, fiber)
    if not isinstance(kept, Obstacle):
        return None
    if kept.reason.startswith(("a running divisor", "the difference is infinite")):
        return kept  # all the rest separates
    numbers = counterexample(body.body, fiber)
    return replace(found, reason=f"{found.reason}; {numbers}") if numbers else found


def _runs(root: str, fiber: Fiber) -> bool:
    """Can the root have a value after each tile: a state over the outer part, or a reduction that can become one?"""
    tensor = fiber.cascade.tensor(root)
    if tensor.kind == "state":
        return tensor.iterates == loop_rank(fiber.cascade, fiber.rank)
    bodies = [einsum.body for einsum in fiber.cascade.definitions(root)]
    return tensor.kind == "einsum" and all(isinstance(body, Reduce) and body.op in (*COMBINE, "mean") for body in bodies)


def _additive(expr: object) -> bool:
    return isinstance(expr, Map) and expr.op in ("+", "-")
