"""Other forms of what runs in one pass: in parts that are merged (`split`), or with an output at each step (`scan`).

In: a cascade, a rank, a form. Out: a `Derivation` as `derive` gives it. Both start from the one-pass form; where there is none, or
where something in it has no running state, the form is refused with the reason (E403, E404).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ..analysis.passes import levels
from ..cascade import Cascade
from ..diagnostics import Diagnostic, EinsmithError
from .check import compare
from .common_subexpressions import common_subexpressions
from .dead_einsums import dead_einsums
from .split_form import Names, split_form
from .step import Refused, Step

if TYPE_CHECKING:
    from .derive import Derivation

Form = Literal["one-pass", "split", "scan"]
CODES = {"split": "E403", "scan": "E404"}
CHECKED_PARTS = ((1, 4), (2, 3), (7, 1))
"""Numbers of parts, and elements of a tile, at which a split form is compared with the original."""


def derive_form(cascade: Cascade, rank: str, form: Form, parts: int | None, tile: int | None, check: bool) -> Derivation:
    """The split or the scan form over `rank`."""
    from .derive import derive

    whole = cascade.rank(rank)
    if whole.split is not None or whole.part_of is not None:
        raise _refused(form, rank, f"`{rank}` is cut into tiles already; write the cascade over the whole rank")
    found = derive(cascade, rank, tile=tile, iterate=True, check=False)
    if found.blocked_by:
        raise _refused(form, rank, f"it takes {found.passes_after[rank]} passes: {'; '.join(str(b) for b in found.blocked_by)}")
    return _split(cascade, found, rank, parts, tile, check)


def _split(cascade: Cascade, found: Derivation, rank: str, parts: int | None, tile: int | None, check: bool) -> Derivation:
    result = split_form(found.cascade, rank, parts)
    if isinstance(result, Refused):
        raise _refused("split", rank, f"`{result.target}`: {result.reason}")
    done, names = result
    after, steps = _tidied(done[-1].cascade, [*found.steps, *(each.step for each in done)])
    after = replace(after, doc=_doc(cascade, f"split form over {rank}: parts along {names.part}, then a merge"))
    _valid(after)
    checked: tuple[str, ...] = ()
    if check:
        size = next(name for name in after.symbols if name not in (*cascade.symbols, names.parts))
        for many, elements in CHECKED_PARTS:
            checked += compare(cascade, after, rank, given={names.parts: many, size: elements})
    return replace(found, original=cascade, cascade=after, steps=tuple(steps), passes_after=_passes(after, rank, names), checked=checked)


def _passes(cascade: Cascade, rank: str, names: Names) -> Mapping[str, int]:
    """As the analysis counts them; the rank itself now goes along its positions within the parts."""
    inside, whole = levels(cascade, names.inside).passes, levels(cascade, rank).passes
    return {rank: max(whole.get(rank, 0), inside.get(names.inside, 0)), **inside, **levels(cascade, names.part).passes}


def _tidied(cascade: Cascade, steps: list[Step]) -> tuple[Cascade, list[Step]]:
    for rewrite in (common_subexpressions, dead_einsums):
        result = rewrite(cascade)
        if result is not None:
            cascade = result.cascade
            steps.append(result.step)
    return cascade, steps


def _doc(cascade: Cascade, what: str) -> str:
    own = cascade.doc.rstrip("\n")
    return f"{own}\nDerived: {what}.\n" if own else f"Derived: {what}.\n"


def _valid(cascade: Cascade) -> None:
    from ..verify import verify

    problems = [problem for problem in verify(cascade) if problem.severity == "error"]
    if problems:
        raise EinsmithError([Diagnostic("E920", "a rewrite produced an invalid cascade (a fault of einsmith)"), *problems])


def _refused(form: str, rank: str, reason: str) -> EinsmithError:
    return EinsmithError(Diagnostic(CODES[form], f"there is no {form} form over `{rank}`", help=reason))
