"""Derive: the form of a cascade with the fewest passes over a rank that the rewrites reach, with a proof of each step.

In: a cascade and a rank. Out: a `Derivation`: the derived cascade (an ordinary one), the steps, the passes before and after as the
analysis counts them, and what blocks further ones. The search, in this order:

1. simplify: shared and dead Einsums, gathers on their own; then, while a reduction depends on fewer complete values for it, let
divisors, factors
   and terms leave it, expand it into finitely many sums, or reassociate; then reassociate what saves operations;
2. decide in which phase each reduction can be finished (see `phases`);
3. cut the rank and let all reductions of a phase in which one depends on another run side by side;
4. tidy: read through copies, drop what is dead.

Each rewrite checks its own condition. The result must be valid, take fewer passes, and agree with the original in float64 on random
inputs of awkward shapes; else it is an internal fault (E920) and is not returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..analysis.passes import levels
from ..cascade import Cascade, Reduce
from ..diagnostics import Diagnostic, EinsmithError
from ..flatten import flatten
from .accumulate import COMBINE, accumulate, loop_rank
from .basis_expansion import basis_expansion
from .check import Differs, compare
from .common_subexpressions import common_subexpressions
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
from .reassociation import reassociation
from .running_moments import running_moments
from .running_rescale import running_rescale
from .running_shift import running_shift
from .running_topk import running_topk, selects
from .split_reduction import split_reduction
from .step import Refused, Rewritten, Step, derived_doc, reordered, text

Form = Literal["one-pass", "split", "scan"]
SIMPLIFYING: tuple[Callable[[Cascade, str, str], Rewritten | Refused | None], ...] = (
    deferred_division,  # sum(a / s) = sum(a) / s
    hoist_factor,  # sum(a * b) = sum(a) * b
    hoist_term,  # max(a + b) = max(a) + b
    factor_by_algebra,  # the same where the factors are not written as such
    basis_expansion,  # sum(a1*b1 + a2*b2) = sum(a1)*b1 + sum(a2)*b2
    reassociate,  # sum(sum(a * b) * c) = sum(a * sum(b * c))
)


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


@dataclass(frozen=True)
class Derivation:
    """The derived cascade and its proof."""

    original: Cascade
    ranks: tuple[str, ...]
    cascade: Cascade
    steps: tuple[Step, ...]
    passes_before: Mapping[str, int]
    passes_after: Mapping[str, int]
    blocked_by: tuple[Blocked, ...] | None
    checked: tuple[str, ...] = field(default=())
    """On which sizes the two forms were compared in float64, and the greatest error."""
    notes: tuple[str, ...] = ()
    """Contractions that were not reassociated, and why."""

    @property
    def spec(self) -> str:
        """The derived cascade as a spec file."""
        from ..printer import print_cascade

        return print_cascade(self.cascade)

    def as_json(self) -> dict[str, object]:
        return {
            "passes_before": dict(self.passes_before),
            "passes_after": dict(self.passes_after),
            "steps": [step.as_json() for step in self.steps],
            "blocked_by": None if self.blocked_by is None else [blocked.as_json() for blocked in self.blocked_by],
            "checked": list(self.checked),
            "notes": list(self.notes),
            "spec": self.spec,
        }

    def __str__(self) -> str:
        from .proof import as_text

        return as_text(self)

    def latex(self) -> str:
        """The proof as LaTeX."""
        from .proof import as_latex

        return as_latex(self)


def derive(
    cascade: Cascade,
    rank: str | Sequence[str],
    *,
    tile: int | None = None,
    iterate: bool = False,
    check: bool = True,
    form: Form = "one-pass",
    parts: int | None = None,
) -> Derivation:
    """The fewest-pass form over `rank` (over several in turn, if several are named).

    `tile`: elements of a tile; `iterate`: cut the rank even where it saves no pass; `check`: compare with the original in float64.
    `form`: `split` cuts the rank into `parts` that run on their own and merges their results, `scan` gives an output at each step.
    """
    ranks = (rank,) if isinstance(rank, str) else tuple(rank)
    for name in ranks:
        if name not in cascade.rank_order:
            raise _unknown_rank(cascade, name)
    if form != "one-pass":
        from .forms import derive_form

        return derive_form(cascade, ranks, form, parts, tile, check)
    before = _passes(cascade, ranks)
    current, steps, blocked, checked, notes = cascade, list[Step](), list[Blocked](), list[str](), list[str]()
    for name in ranks:
        if name not in current.rank_order:
            continue  # it became one with a rank before it
        one = _derive(current, name, tile, iterate, check)
        if one.steps and any(_passes(one.cascade, ranks).get(r, 0) > _passes(current, ranks).get(r, 0) for r in ranks):
            continue  # what it saves here it costs over a rank that was asked as well
        current = one.cascade
        steps.extend(one.steps)
        blocked.extend(one.blocked)
        checked.extend(one.checked)
        notes.extend(one.notes)
    after = _passes(current, ranks)
    if steps:
        current = replace(current, doc=derived_doc(cascade, _what(ranks, before, after)))
    return Derivation(cascade, ranks, current, tuple(steps), before, after, tuple(blocked) or None, tuple(checked), tuple(notes))


def _passes(cascade: Cascade, ranks: tuple[str, ...]) -> dict[str, int]:
    return {part: passes for rank in ranks if rank in cascade.rank_order for part, passes in levels(cascade, rank).passes.items()}


@dataclass(frozen=True)
class _One:
    """What came of one rank."""

    cascade: Cascade
    steps: tuple[Step, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    checked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _derive(cascade: Cascade, rank: str, tile: int | None, iterate: bool, check: bool) -> _One:
    before = levels(cascade, rank).passes.get(rank, 0)
    if before <= 1 and not iterate:
        return _reordered(cascade, rank, check)
    try:
        return _searched(_Search(cascade, rank, tile), cascade, before, iterate, check)
    except Differs:
        pass
    search = _Search(cascade, rank, tile, careful=True)
    try:
        return _searched(search, cascade, before, iterate, check)
    except Differs as differs:
        if not differs.large:
            raise
        where = "on large inputs, or where all of the first tile is -inf"
        reason = f"with fewer passes it leaves the range of numbers: {where}, the form found {differs.what}"
        return _One(cascade, (), tuple(replace(each, reason=reason) for each in search.forced(flatten(cascade))))


def _reordered(cascade: Cascade, rank: str, check: bool) -> _One:
    """No pass to save: contractions in the order that takes the fewest operations."""
    found = reassociation(reordered(flatten(cascade)), rank)
    notes = tuple(dict.fromkeys(f"`{one.target}` stays as it is: {one.reason}" for one in found.refused))
    if not found.steps:
        return _One(cascade, notes=notes)
    _valid(found.cascade)
    try:
        return _One(found.cascade, found.steps, (), compare(cascade, found.cascade, rank) if check else ())
    except EinsmithError as error:
        if not (isinstance(error, Differs) and error.large) and error.diagnostics[0].code != "E402":
            raise
        return _One(cascade)


def _searched(search: _Search, cascade: Cascade, before: int, iterate: bool, check: bool) -> _One:
    rank = search.rank
    search.run(iterate)
    after = levels(search.cascade, rank).passes.get(rank, 0)
    cheaper = (iterate or search.cheaper) and after == before
    kept = bool(search.steps) and (after < before or cheaper)
    blocked = search.blocked(search.cascade if kept else flatten(cascade)) if (after if kept else before) > 1 else ()
    if not kept:
        return _One(cascade, (), blocked)
    _valid(search.cascade)
    checked = compare(cascade, search.cascade, rank) if check else ()
    return _One(search.cascade, tuple(search.steps), blocked, checked, search.notes)


def _what(ranks: tuple[str, ...], before: Mapping[str, int], after: Mapping[str, int]) -> str:
    saved = [(rank, before.get(rank, 0), after.get(rank, 0)) for rank in ranks]
    texts = [f"{now} instead of {was} passes over {rank}" for rank, was, now in saved if now < was]
    return ", ".join(texts) or "fewer operations"


def _valid(cascade: Cascade) -> None:
    from ..verify import verify

    problems = [problem for problem in verify(cascade) if problem.severity == "error"]
    if problems:
        raise EinsmithError([Diagnostic("E920", "a rewrite produced an invalid cascade (a fault of einsmith)"), *problems])


class _Search:
    """The current cascade and the steps that led to it."""

    def __init__(self, cascade: Cascade, rank: str, tile: int | None, careful: bool = False) -> None:
        self.careful = careful
        """Powers of sums are not opened: tried where a derived form was found to lose its digits by cancellation."""
        self.cascade, self.rank, self.tile = reordered(flatten(cascade)), rank, tile
        self.steps: list[Step] = []
        self.notes: tuple[str, ...] = ()
        self.cheaper = False
        """Contractions were reassociated to save operations."""
        self.found = Phases()

    def run(self, iterate: bool) -> None:
        self._tidy()
        for einsum in self.cascade.einsums:
            self.take(hoist_gather(self.cascade, einsum.output, self.rank))
        for target in self._reductions():
            self.take(split_reduction(self.cascade, target, self.rank))
        self._simplify()
        self._drop_dead()
        self._reassociate()
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
        for rewrite in SIMPLIFYING:
            if rewrite is basis_expansion and self.careful:
                continue
            result = rewrite(self.cascade, target, self.rank)
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
        if self.careful:
            return
        found = reassociation(self.cascade, self.rank)
        self.cascade, self.cheaper = found.cascade, bool(found.steps)
        self.steps.extend(found.steps)
        self.notes = tuple(dict.fromkeys(f"`{one.target}` stays as it is: {one.reason}" for one in found.refused))

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
        while self.take(common_subexpressions(self.cascade)):
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
                rescaled = running_rescale(self.cascade, root, self.rank, running, proven=True)
                result = (
                    self.take(rescaled)
                    or self.take(running_shift(self.cascade, root, self.rank, running))
                    or self.take(running_moments(self.cascade, root, self.rank, running, proven=True))
                )
            if result is not None and result.state is not None:
                states[root] = result.state

    # --- 4: tidy --------------------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        self._inline()
        while self.take(common_subexpressions(self.cascade)):
            pass
        self._drop_dead()

    def _inline(self) -> None:
        if self.steps:
            self.take(inline(self.cascade))

    def _drop_dead(self) -> None:
        self.take(dead_einsums(self.cascade))

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


def _unknown_rank(cascade: Cascade, rank: str) -> EinsmithError:
    import difflib

    names = list(cascade.rank_order)
    close = difflib.get_close_matches(rank, names, 1)
    hint = f"did you mean `{close[0]}`?" if close else f"the cascade has {', '.join(f'`{name}`' for name in names)}"
    return EinsmithError(Diagnostic("E401", f"no rank `{rank}` to derive over", help=hint))
