"""Derive: the form of a cascade with the fewest passes over a rank that the rewrites reach, with a proof of each step.

In: a cascade and a rank. Out: a `Derivation`: the derived cascade (an ordinary one), the steps, the passes before and after as the
analysis counts them, and what blocks further ones. `search` finds one form, `alternatives` several and which of them costs least.

Each rewrite checks its own condition. The result must be valid, take fewer passes, and agree with the original in float64 on random
inputs of awkward shapes; else it is an internal fault (E920) and is not returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..analysis.passes import levels
from ..cascade import Cascade
from ..diagnostics import Diagnostic, EinsmithError
from ..display import Displayed
from ..flatten import flatten
from ..sizes import given
from .alternatives import Alternative, alternative, alternatives
from .check import Differs, compare
from .cost import sizes_shown
from .reassociation import reassociation
from .search import Blocked, Choices
from .step import Step, derived_doc, reordered

Form = Literal["one-pass", "split", "scan", "chunked"]
CAREFUL = Choices(frozenset({("basis-expansion", None), ("reassociate", None)}))
"""No powers of sums are opened: tried where the other forms were found to lose digits by cancellation."""


@dataclass(frozen=True)
class Compared:
    """The form that was taken over `rank`, and others."""

    rank: str
    sizes: str
    taken: Alternative
    others: tuple[Alternative, ...]
    refused: Mapping[Choices, str]
    """What the numerical check found of forms that would have cost less."""

    def as_json(self) -> dict[str, object]:
        others = [{**each.as_json(), "refused": self.refused.get(each.search.choices)} for each in self.others]
        return {"rank": self.rank, "sizes": self.sizes, "taken": self.taken.as_json(), "others": others}

    def forms(self) -> list[str]:
        """A line for each form: what it leaves out, what it costs, what became of it."""
        each = (self.taken, *self.others)
        width = max(len(str(form.search.choices)) for form in each)
        return [f"{form.search.choices!s:<{width}}  {form.cost}{self._verdict(form)}" for form in each]

    def _verdict(self, form: Alternative) -> str:
        if form is self.taken:
            return ", taken"
        found = self.refused.get(form.search.choices)
        return f", refused: it {found}" if found else ""

    def __str__(self) -> str:
        return "\n".join([f"forms over {self.rank} compared, at {self.sizes}:", *(f"  {form}" for form in self.forms())])


@dataclass(frozen=True)
class Derivation(Displayed):
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
    compared: tuple[Compared, ...] = ()
    """Which forms were compared, for each rank over which passes were saved."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """Ranks that are no longer there, each with the one that it became one with."""

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
            "compared": [each.as_json() for each in self.compared],
            "merged": dict(self.merged),
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
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    tile: int | None = None,
    iterate: bool = False,
    check: bool = True,
    form: Form = "one-pass",
    parts: int | None = None,
    dense: bool = False,
) -> Derivation:
    """The fewest-pass form over `rank` (over several in turn, if several are named).

    `sizes`, `params`: instead of those of the spec; among forms of equal passes they decide, and the derived spec has them.
    `tile`: elements of a tile; `iterate`: cut the rank even where it saves no pass; `check`: compare with the original in float64.
    `dense`: among forms of equal passes, operations that masks leave out are counted too.
    `form`: `split` cuts the rank into `parts` that run on their own and merges their results, `scan` gives an output at each step,
    `chunked` takes a linear recurrence chunk by chunk, a chunk being a `tile`.
    """
    cascade = given(cascade, sizes, params)
    ranks = (rank,) if isinstance(rank, str) else tuple(rank)
    for name in ranks:
        if name not in cascade.rank_order:
            raise _unknown_rank(cascade, name)
    if form != "one-pass":
        from .forms import derive_form

        return derive_form(cascade, ranks, form, parts, tile, check)
    before = _passes(cascade, ranks)
    done = _One(cascade)
    for name in ranks:
        if name not in done.cascade.rank_order:
            continue  # it became one with a rank before it
        one = _derive(done.cascade, name, tile, iterate, check, dense)
        if one.steps and any(_passes(one.cascade, ranks).get(r, 0) > _passes(done.cascade, ranks).get(r, 0) for r in ranks):
            continue  # what it saves here it costs over a rank that was asked as well
        done = done.then(one)
    after = _passes(done.cascade, ranks)
    for name in ranks:
        kept = _merged_into(done.merged, name)
        if kept != name:
            after[name] = levels(done.cascade, kept).passes.get(kept, 0)
    current = done.cascade
    if done.steps:
        current = replace(current, doc=derived_doc(cascade, _what(ranks, before, after)))
    return Derivation(
        cascade,
        ranks,
        current,
        done.steps,
        before,
        after,
        done.blocked or None,
        done.checked,
        done.notes,
        done.compared,
        done.merged,
    )


def _passes(cascade: Cascade, ranks: tuple[str, ...]) -> dict[str, int]:
    return {part: passes for rank in ranks if rank in cascade.rank_order for part, passes in levels(cascade, rank).passes.items()}


@dataclass(frozen=True)
class _One:
    """What came of one rank, or of several in turn."""

    cascade: Cascade
    steps: tuple[Step, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    checked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    compared: tuple[Compared, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)

    def then(self, one: _One) -> _One:
        return _One(
            one.cascade,
            (*self.steps, *one.steps),
            (*self.blocked, *one.blocked),
            (*self.checked, *one.checked),
            (*self.notes, *one.notes),
            (*self.compared, *one.compared),
            {**self.merged, **one.merged},
        )


def _merged(steps: Sequence[Step], rank: str) -> dict[str, str]:
    """Ranks that became one with `rank`."""
    return {step.target: rank for step in steps if step.rewrite == "merge-ranks"}


def _merged_into(merged: Mapping[str, str], rank: str) -> str:
    while rank in merged:
        rank = merged[rank]
    return rank


def _derive(cascade: Cascade, rank: str, tile: int | None, iterate: bool, check: bool, dense: bool) -> _One:
    before = levels(cascade, rank).passes.get(rank, 0)
    if before <= 1 and not iterate:
        return _reordered(cascade, rank, check)
    found = alternatives(cascade, rank, tile, iterate, dense)
    kept = [each for each in found if _saves(each, before, iterate)]
    if not kept:
        return _One(cascade, (), found[0].search.blocked(flatten(cascade)) if before > 1 else ())
    failure: Differs | None = None
    refused: dict[Choices, str] = {}
    for each in (*kept, None):
        form = each or alternative(cascade, rank, tile, iterate, CAREFUL, dense)
        search = form.search
        _valid(search.cascade)
        try:
            checked = compare(cascade, search.cascade, rank) if check else ()
        except Differs as differs:
            failure = differs
            refused[search.choices] = differs.what
            continue
        blocked = search.blocked(search.cascade) if form.cost.passes > 1 else ()
        others = tuple(other for other in kept if other is not form)
        compared = Compared(rank, sizes_shown(flatten(cascade), search.known), form, others, refused)
        steps = tuple(search.steps)
        return _One(search.cascade, steps, blocked, checked, search.notes, (compared,), _merged(steps, rank))
    assert failure is not None
    if not failure.large:
        raise failure
    where = "on large inputs, or where all of the first tile is -inf"
    reason = f"with fewer passes it leaves the range of numbers: {where}, the form found {failure.what}"
    return _One(cascade, (), tuple(replace(each, reason=reason) for each in search.forced(flatten(cascade))))


def _saves(form: Alternative, before: int, iterate: bool) -> bool:
    """Is it worth having: fewer passes, or as many and fewer operations?"""
    if not form.search.steps:
        return False
    return form.cost.passes < before or (form.cost.passes == before and (iterate or form.search.cheaper))


def _reordered(cascade: Cascade, rank: str, check: bool) -> _One:
    """No pass to save: contractions in the order that takes the fewest operations."""
    found = reassociation(reordered(flatten(cascade)), rank)
    notes = tuple(dict.fromkeys(f"`{one.target}` stays as it is: {one.reason}" for one in found.refused))
    if not found.steps:
        return _One(cascade, notes=notes)
    _valid(found.cascade)
    try:
        checked = compare(cascade, found.cascade, rank) if check else ()
        return _One(found.cascade, found.steps, (), checked, merged=_merged(found.steps, rank))
    except EinsmithError as error:
        leaves = isinstance(error, Differs) and (error.large or not error.finite)  # -inf in sums of another order
        if not leaves and error.diagnostics[0].code != "E402":
            raise
        return _One(cascade)


def _what(ranks: tuple[str, ...], before: Mapping[str, int], after: Mapping[str, int]) -> str:
    saved = [(rank, before.get(rank, 0), after.get(rank, 0)) for rank in ranks]
    texts = [f"{now} instead of {was} passes over {rank}" for rank, was, now in saved if now < was]
    return ", ".join(texts) or "fewer operations"


def _valid(cascade: Cascade) -> None:
    from ..verify import verify

    problems = [problem for problem in verify(cascade) if problem.severity == "error"]
    if problems:
        raise EinsmithError([Diagnostic("E920", "a rewrite produced an invalid cascade (a fault of einsmith)"), *problems])


def _unknown_rank(cascade: Cascade, rank: str) -> EinsmithError:
    import difflib

    names = list(cascade.rank_order)
    close = difflib.get_close_matches(rank, names, 1)
    hint = f"did you mean `{close[0]}`?" if close else f"the cascade has {', '.join(f'`{name}`' for name in names)}"
    return EinsmithError(Diagnostic("E401", f"no rank `{rank}` to derive over", help=hint))
