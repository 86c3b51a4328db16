"""The search for one form: simplify, decide phases, run side by side, tidy.

In: a cascade, a rank, and the `Choices` of this form. Out: a `Search` that has run: the cascade, the steps that led to it, and what
blocks further ones. In this order:

1. simplify: shared and dead Einsums, gathers on their own; then, while a reduction depends on fewer complete values for it, let
   divisors, factors and terms leave it, expand it into finitely many sums, or reassociate; then reassociate and collect what saves
   operations;
2. decide in which phase each reduction can be finished (see `phases`);
3. cut the rank and let all reductions of a phase in which one depends on another run side by side;
4. tidy: read through copies, drop what is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from ..analysis.passes import levels
from ..cascade import Cascade, Reduce, remembered
from ..flatten import flatten
from .accumulate import COMBINE, accumulate, loop_rank
from .basis_expansion import basis_expansion
from .collect import collect
from .common_subexpressions import common_subexpressions
from .cost import scalars
from .dead_einsums import dead_einsums
from .deferred_division import deferred_division
from .factor_by_algebra import factor_by_algebra
from .fiber import Fiber
from .hoist_factor import hoist_factor
from .hoist_gather import hoist_gather
from .hoist_term import hoist_term
from .inline import inline
from .mean_as_sum import mean_as_sum
from .partition import partition
from .phases import Phases, phases
from .reassociate import reassociate
from .reassociation import reassociation, worth_it
from .running_moments import running_moments
from .running_rescale import running_rescale
from .running_shift import running_shift
from .running_topk import running_topk, selects
from .split_reduction import split_reduction
from .step import Refused, Rewritten, Step, reordered, text

T = TypeVar("T")
P = ParamSpec("P")
Simplifying = Callable[[Cascade, str, str], Rewritten | Refused | None]
SIMPLIFYING: dict[str, Simplifying] = {
    "deferred-division": deferred_division,  # sum(a / s) = sum(a) / s
    "hoist-factor": hoist_factor,  # sum(a * b) = sum(a) * b
    "hoist-term": hoist_term,  # max(a + b) = max(a) + b
    "factor-by-algebra": factor_by_algebra,  # the same where the factors are not written as such
    "basis-expansion": basis_expansion,  # sum(a1*b1 + a2*b2) = sum(a1)*b1 + sum(a2)*b2
    "reassociate": reassociate,  # sum(sum(a * b) * c) = sum(a * sum(b * c))
}


@dataclass(frozen=True)
class Choices:
    """What a form leaves out, each for one target or (None) everywhere, and the rewrite that it tries before the others."""

    without: frozenset[tuple[str, str | None]] = frozenset()
    first: str | None = None

    def allow(self, rewrite: str, target: str | None = None) -> bool:
        return not {(rewrite, None), (rewrite, target)} & self.without

    def simplifying(self) -> list[tuple[str, Simplifying]]:
        """The rewrites in the order in which they are tried."""
        return sorted(SIMPLIFYING.items(), key=lambda item: item[0] != self.first)

    def __str__(self) -> str:
        left = sorted(rewrite + (f" of `{target}`" if target else "") for rewrite, target in self.without)
        texts = [f"without {' and '.join(left)}"] if left else []
        return ", ".join([*texts, f"{self.first} first"] if self.first else texts) or "all rewrites"


@dataclass(frozen=True)
class Blocked:
    """Why one pass remains: the Einsum, the failing sub-expression, the reason, and the complete values it waits for."""

    einsum: str
    expression: str
    reason: str
    depends_on: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        return {"einsum": self.einsum, "expression": self.expression, "reason": self.reason, "depends_on": list(self.depends_on)}

    def __str__(self) -> str:
        waits = ", ".join(f"`{name}`" for name in self.depends_on)
        return f"`{self.einsum}` waits for {waits}: `{self.expression}`: {self.reason}"


class Search:
    """The current cascade and the steps that led to it."""

    def __init__(self, cascade: Cascade, rank: str, tile: int | None, choices: Choices | None = None) -> None:
        self.choices = choices or Choices()
        self.cascade, self.rank, self.tile = reordered(flatten(cascade)), rank, tile
        self.known: Mapping[str, int | float] = scalars(self.cascade, rank)
        """Values of symbols, for counting operations."""
        self.steps: list[Step] = []
        self.notes: tuple[str, ...] = ()
        self.cheaper = False
        """Contractions were reassociated to save operations."""
        self.found = Phases()

    def run(self, iterate: bool) -> None:
        self.simplify()
        self.finish(iterate)

    def simplify(self) -> None:
        """The first step: reductions depend on as few complete values as can be."""
        self._tidy()
        for einsum in self.cascade.einsums:
            self.take(self.tried(hoist_gather, einsum.output, self.rank))
        for target in self._reductions():
            self.take(self.tried(split_reduction, target, self.rank))
        self._simplify()
        self._drop_dead()

    def finish(self, iterate: bool) -> None:
        """All the others."""
        self._reassociate()
        self._collect()
        self.found = phases(self.cascade, self.rank)
        simple, steps = self.cascade, list(self.steps)
        passes = self._passes()
        if passes > 1 or iterate:
            self._run_side_by_side(iterate)
        self._tidy()
        if self._passes() >= passes and not iterate:
            self.cascade, self.steps = simple, steps  # a loop that saves nothing

    def _passes(self) -> int:
        return levels(self.cascade, self.rank).passes.get(self.rank, 0)

    def _reduces(self, root: str) -> bool:
        """Can the root become a running state?"""
        bodies = [einsum.body for einsum in self.cascade.definitions(root)]
        return all(isinstance(body, Reduce) and body.op in COMBINE for body in bodies)

    def take(self, result: Rewritten | Refused | None) -> Rewritten | None:
        if not isinstance(result, Rewritten):
            return None
        self.cascade = result.cascade
        self.steps.append(result.step)
        return result

    def tried(self, rewrite: Callable[Concatenate[Cascade, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What a rewrite makes of the current cascade; other forms that came to the same one know it already."""
        return remembered(rewrite)(self.cascade, *args, **kwargs)

    # --- 1: fewer dependencies ----------------------------------------------------------------------------------------------

    def _simplify(self) -> None:
        changed = True
        while changed:
            changed = any(self._simplify_one(target) for target in self._reductions())

    def _reductions(self) -> list[str]:
        fiber = Fiber(self.cascade, self.rank)
        return [einsum.output for einsum in self.cascade.einsums if fiber.completes(einsum)]

    def _simplify_one(self, target: str) -> bool:
        needed = _leaves(Fiber(self.cascade, self.rank), target)
        for name, rewrite in self.choices.simplifying():
            if not self.choices.allow(name, target):
                continue
            result = self.tried(rewrite, target, self.rank)
            if isinstance(result, Rewritten) and self._fewer(result.cascade, target, needed):
                self.take(result)
                return True
        return False

    def _fewer(self, after: Cascade, target: str, needed: frozenset[str]) -> bool:
        """Does each new reduction depend on no other complete values than the old one did, and some on fewer?"""
        fiber = Fiber(after, self.rank)
        known = {einsum.output for einsum in self.cascade.einsums}
        new = [e.output for e in after.einsums if fiber.completes(e) and (e.output not in known or e.output == target)]
        if not new:
            return True
        behind = [_leaves(fiber, name) for name in new]
        return all(each <= needed for each in behind) and any(each < needed for each in behind)

    def _reassociate(self) -> None:
        """Fewer operations, once fewer passes are seen to."""
        if not self.choices.allow("reassociate"):
            return
        found = reassociation(self.cascade, self.rank, self.known)
        self.cascade, self.cheaper = found.cascade, bool(found.steps)
        self.steps.extend(found.steps)
        self.notes = tuple(dict.fromkeys(f"`{one.target}` stays as it is: {one.reason}" for one in found.refused))

    def _collect(self) -> None:
        """Sums with a common factor as one, where that saves operations."""
        if not self.choices.allow("reassociate"):
            return
        for einsum in self.cascade.einsums:
            result = collect(self.cascade, einsum.output, self.rank)
            if result is not None and (tidied := worth_it(self.cascade, result, self.rank, self.known)) is not None:
                self.cascade = tidied.cascade
                self.steps.extend(tidied.steps)

    # --- 3: loops ----------------------------------------------------------------------------------------------------------------

    def _run_side_by_side(self, iterate: bool) -> None:
        found = self.found
        in_loops = {found.of[root] for root in found.beside} | ({1} if iterate else set())
        members = [root for root in self._reductions() if found.of.get(root) in in_loops]
        if not members:
            return
        for root in members:
            counted = any(root in beside for beside in found.beside.values())
            self.take(mean_as_sum(self.cascade, root, self.rank, counted))
        while self.take(self.tried(common_subexpressions)):
            pass
        found = phases(self.cascade, self.rank)
        members = [root for root in self._reductions() if found.of.get(root) in in_loops]
        members = [root for root in members if self._reduces(root)]
        lists = tuple(e.output for e in self.cascade.einsums if found.of.get(e.output) in in_loops)
        lists = tuple(name for name in lists if selects(self.cascade, name, self.rank))
        if self.take(running_topk(self.cascade, lists, self.rank, frozenset(members), self.tile)) is not None:
            pass  # the rank is cut already
        elif self.cascade.rank(self.rank).part_of is None:
            self.take(partition(self.cascade, self.rank, frozenset(members), self.tile))
        if loop_rank(self.cascade, self.rank) is None:
            return
        states: dict[str, str] = {}
        for root in members:
            beside = found.beside.get(root)
            if beside is None:
                result = self.take(accumulate(self.cascade, root, self.rank))
            else:
                running = frozenset(states.get(other, other) for other in beside)
                if not all(self.cascade.tensor(name).iterates == loop_rank(self.cascade, self.rank) for name in running):
                    continue  # something it depends on could not be made to run
                rescaled = running_rescale(self.cascade, root, self.rank, running)
                result = (
                    self.take(rescaled)
                    or self.take(running_shift(self.cascade, root, self.rank, running))
                    or self.take(running_moments(self.cascade, root, self.rank, running))
                )
            if result is not None and result.state is not None:
                states[root] = result.state

    # --- 4: tidy --------------------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        self._inline()
        while self.take(self.tried(common_subexpressions)):
            pass
        self._drop_dead()

    def _inline(self) -> None:
        if self.steps:
            self.take(self.tried(inline))

    def _drop_dead(self) -> None:
        self.take(self.tried(dead_einsums))

    # --- what remains ------------------------------------------------------------------------------------------------------------

    def blocked(self, cascade: Cascade) -> tuple[Blocked, ...]:
        """The failing sub-expressions, and outputs of `cascade` that keep the rank though they depend on complete values."""
        found = [
            Blocked(root, text(obstacle.expr), obstacle.reason, tuple(sorted(self.found.waits_for[root])))
            for root, obstacle in self.found.obstacles.items()
        ]
        fiber = Fiber(cascade, self.rank)
        for einsum in cascade.einsums:
            if einsum.output not in cascade.outputs or fiber.completes(einsum):
                continue
            if any(fiber.moves(index) for index in einsum.indices) and fiber.complete(einsum.body):
                roots = tuple(sorted(fiber.roots(einsum.body)))
                reason = f"it is an output with an element for each `{self.rank}`, and each depends on complete values"
                found.append(Blocked(einsum.output, text(einsum.body), reason, roots))
        return tuple(found) or tuple(self.forced(cascade))

    def forced(self, cascade: Cascade) -> list[Blocked]:
        """What the analysis says, where the passes come from something that is no reduction of the fiber."""
        flat = {einsum.output: einsum for einsum in cascade.einsums}
        return [
            Blocked(each.einsum, text(flat[each.einsum].body), f"it goes along `{each.rank}` again: {each}", (each.needs,))
            for each in levels(cascade, self.rank).forced_by
            if each.rank == self.rank and each.einsum in flat
        ]


def _leaves(fiber: Fiber, target: str) -> frozenset[str]:
    """Complete values that the definition of a root reads."""
    return frozenset().union(*(fiber.leaves(einsum.body) for einsum in fiber.cascade.definitions(target))) - {target}
