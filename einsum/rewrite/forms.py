"""Other forms of what runs in one pass: in parts that are merged (`split`), with an output at each step (`scan`), or a recurrence
chunk by chunk (`chunked`).

In: a cascade, a rank, a form. Out: a `Derivation` as `derive` gives it. All start from the one-pass form; where there is none, or
where something in it has no running state, the form is refused with the reason (E403, E404, E405).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ..analysis.passes import levels
from ..cascade import Access, Cascade, Expr, Reduce, Scalar, accesses, transform, walk
from ..diagnostics import Diagnostic, EinsmithError
from ..flatten import flatten
from ..sizes import evaluate_scalar
from .check import Differs, compare
from .chunked_form import chunked_form
from .common_subexpressions import common_subexpressions
from .dead_einsums import dead_einsums
from .inline import inline
from .scan_form import scan_form
from .split_form import Names, split_form
from .split_recurrence import split_recurrence
from .step import Refused, Rewritten, Step, derived_doc, fresh, taken_names

if TYPE_CHECKING:
    from .derive import Derivation

CODES = {"split": "E403", "scan": "E404", "chunked": "E405"}
CHECKED_PARTS = ((2, 3), (7, 1))
"""Numbers of parts, and elements of a tile, at which a split form is compared with the original."""

CHECKED_CHUNKS = (3, 1)
"""Positions of a chunk at which a chunked form is compared with the original."""
CHECKED_LENGTHS = (8, 3)
"""The same where the length is a number in the form: with halves of halves; several chunks, halves of different lengths."""


def derive_form(
    cascade: Cascade,
    ranks: Sequence[str],
    form: Literal["split", "scan", "chunked"],
    parts: int | None,
    tile: int | None,
    check: bool,
) -> Derivation:
    """The split, the scan or the chunked form over the one rank."""
    from .derive import derive

    rank = ranks[0]
    if len(ranks) > 1:
        raise _refused(form, rank, "it is made over one rank at a time")
    whole = cascade.rank(rank)
    if whole.split is not None or whole.part_of is not None:
        raise _refused(form, rank, f"`{rank}` is cut into tiles already; write the cascade over the whole rank")
    found = derive(cascade, rank, tile=tile, iterate=form != "chunked", check=False)
    if rank not in found.cascade.rank_order:
        raise _refused(form, rank, f"nothing is left along `{rank}` in the form with the fewest passes")
    if form == "chunked":
        return _chunked(cascade, found, rank, tile, check)
    if found.blocked_by:
        raise _refused(form, rank, f"it takes {found.passes_after[rank]} passes: {'; '.join(str(b) for b in found.blocked_by)}")
    return _scan(cascade, found, rank, check) if form == "scan" else _split(cascade, found, rank, parts, tile, check)


def _split(cascade: Cascade, found: Derivation, rank: str, parts: int | None, tile: int | None, check: bool) -> Derivation:
    recurrent = _is_scan(found.cascade, rank)
    result = split_recurrence(found.cascade, rank, parts) if recurrent else split_form(found.cascade, rank, parts)
    if isinstance(result, Refused):
        raise _refused("split", rank, f"`{result.target}`: {result.reason}")
    done, names = result
    after, steps = _tidied(done[-1].cascade, [*found.steps, *(each.step for each in done)])
    if tile is None and not recurrent:
        after = _smaller_tiles(after, names)
    after = replace(after, doc=derived_doc(cascade, f"split form over {rank}: parts along {names.part}, then a merge"))
    _valid(after)
    checked: tuple[str, ...] = ()
    if check:
        sizes = [name for name in after.symbols if name not in (*cascade.symbols, names.parts)]  # none for recurrences
        for many, elements in CHECKED_PARTS:
            checked += _compared("split", cascade, after, rank, {names.parts: many, **dict.fromkeys(sizes, elements)})
    return replace(
        found, original=cascade, cascade=after, steps=tuple(steps), passes_after=_passes(after, rank, names), checked=checked
    )


def _scan(cascade: Cascade, found: Derivation, rank: str, check: bool) -> Derivation:
    if _is_scan(found.cascade, rank):
        return replace(found, checked=compare(cascade, found.cascade, rank) if check and found.steps else ())
    result = scan_form(found.cascade, rank)
    if isinstance(result, Refused):
        raise _refused("scan", rank, f"`{result.target}`: {result.reason}")
    after, steps = _tidied(result.cascade, [*found.steps, result.step], inline)
    after = _named_by_elements(after)
    after = replace(after, doc=derived_doc(cascade, f"scan form over {rank}: one sweep, an output at each step"))
    _valid(after)
    checked = _compared("scan", cascade, after, rank, {}) if check else ()
    passes = levels(after, rank).passes
    return replace(found, original=cascade, cascade=after, steps=tuple(steps), passes_after=passes, checked=checked)


def _chunked(cascade: Cascade, found: Derivation, rank: str, tile: int | None, check: bool) -> Derivation:
    flat = flatten(found.cascade)
    result = chunked_form(flat, rank, tile)
    if isinstance(result, Refused):
        raise _refused("chunked", rank, f"`{result.target}`: {result.reason}")
    after, steps = _tidied(result.cascade, [*found.steps, result.step])
    after = replace(after, doc=derived_doc(cascade, f"chunked form over {rank}: states chunk by chunk, pairs within a chunk"))
    _valid(after)
    checked: tuple[str, ...] = ()
    if check:
        kept = {tensor.name for tensor in after.tensors}
        states = tuple(t.name for t in flat.tensors if t.kind == "state" and t.name not in kept)
        read = tuple(e.output for e in flat.einsums if any(access.tensor in states for access in accesses(e.body)))
        inside = {tensor.name for tensor in flatten(cascade).tensors} - set(cascade.outputs)
        known = tuple(name for name in dict.fromkeys((*states, *read)) if name in inside)
        given = [name for name in after.symbols if name not in cascade.symbols]
        for length in CHECKED_CHUNKS if given else CHECKED_LENGTHS:
            other = after if given else _at_length(flat, rank, length)
            lines = _compared("chunked", cascade, other, rank, dict.fromkeys(given, length), known)
            checked += lines if given else tuple(f"chunks of {length}: {line}" for line in lines)
    passes = levels(after, rank).passes
    return replace(found, original=cascade, cascade=after, steps=tuple(steps), passes_after=passes, checked=checked)


def _at_length(flat: Cascade, rank: str, length: int) -> Cascade:
    """The same form with another length of a chunk, where that is a number in it."""
    other = chunked_form(flat, rank, length)
    assert isinstance(other, Rewritten)
    return _tidied(other.cascade, [])[0]


def _smaller_tiles(cascade: Cascade, names: Names) -> Cascade:
    """Tiles that are no longer than a part, where the sizes of the spec say how long that is."""
    inside = cascade.rank(names.inside)
    assert inside.split is not None
    sizes: dict[str, int | float] = dict(cascade.sizes)
    try:
        length = max(1, evaluate_scalar(cascade.params[-1][1], sizes))
    except (KeyError, ArithmeticError, ValueError):
        return cascade
    while isinstance(inside.split.tile, Scalar) and (tile := int(sizes[inside.split.tile.name])) > length:
        sizes[inside.split.tile.name] = tile // 2
    return replace(cascade, sizes=tuple((name, int(value)) for name, value in sizes.items()))


def _passes(cascade: Cascade, rank: str, names: Names) -> Mapping[str, int]:
    """As the analysis counts them; the rank itself now goes along its positions within the parts."""
    inside, whole = levels(cascade, names.inside).passes, levels(cascade, rank).passes
    return {rank: max(whole.get(rank, 0), inside.get(names.inside, 0)), **inside, **levels(cascade, names.part).passes}


def _is_scan(cascade: Cascade, rank: str) -> bool:
    """Does everything run along the rank one element at a time already?"""
    if rank not in cascade.rank_order or cascade.rank(rank).split is not None:
        return False
    reduced = any(rank in node.ranks for e in cascade.einsums for node in walk(e.body) if isinstance(node, Reduce))
    return not reduced and any(tensor.iterates == rank for tensor in cascade.tensors)


def _named_by_elements(cascade: Cascade) -> Cascade:
    """`X_tile` becomes `X` where that name is free: there are no tiles any more."""
    taken = taken_names(cascade)
    names = {
        tensor.name: fresh(tensor.name.removesuffix("_tile"), taken)
        for tensor in cascade.tensors
        if tensor.name.endswith("_tile") and tensor.kind == "einsum" and tensor.name.removesuffix("_tile") not in taken
    }

    def renamed(node: Expr) -> Expr:
        return replace(node, tensor=names.get(node.tensor, node.tensor)) if isinstance(node, Access) else node

    einsums = tuple(
        replace(
            e,
            output=names.get(e.output, e.output),
            indices=tuple(transform(index, renamed) for index in e.indices),
            body=transform(e.body, renamed),
        )
        for e in cascade.einsums
    )
    tensors = tuple(replace(tensor, name=names.get(tensor.name, tensor.name)) for tensor in cascade.tensors)
    return replace(cascade, einsums=einsums, tensors=tensors)


Tidying = Callable[[Cascade], Rewritten | None]


def _tidied(cascade: Cascade, steps: list[Step], *more: Tidying) -> tuple[Cascade, list[Step]]:
    for rewrite in (*more, common_subexpressions, dead_einsums):
        result = rewrite(cascade)
        if result is not None:
            cascade = result.cascade
            steps.append(result.step)
    return cascade, steps


def _compared(
    form: str, original: Cascade, derived: Cascade, rank: str, given: Mapping[str, int], finite: tuple[str, ...] = ()
) -> tuple[str, ...]:
    try:
        return compare(original, derived, rank, given=given, finite=finite)
    except Differs as differs:
        if form == "chunked":
            reason = f"what comes of it {differs.what}: products of factors within a chunk leave the range of numbers"
            raise _refused(form, rank, reason) from None
        reason = f"what comes of it {differs.what}: a part, or a first tile, that sees nothing but -inf leaves the range of numbers"
        raise _refused(form, rank, reason) from None


def _valid(cascade: Cascade) -> None:
    from ..verify import verify

    problems = [problem for problem in verify(cascade) if problem.severity == "error"]
    if problems:
        raise EinsmithError([Diagnostic("E920", "a rewrite produced an invalid cascade (a fault of einsmith)"), *problems])


def _refused(form: str, rank: str, reason: str) -> EinsmithError:
    return EinsmithError(Diagnostic(CODES[form], f"there is no {form} form over `{rank}`", help=reason))
