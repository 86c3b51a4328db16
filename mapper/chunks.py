"""Chunks of a recurrence, so that matrix units do what a state would do position by position.

In: a cascade, as kernels can follow it. Out: its chunked forms (`rewrite.chunked_form`), one for each length of a chunk that is
worth planning. The length is a number in them: how long a chunk is changes tiles, not the function. Which one is taken, or none,
is decided by predicted time (`stages`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..einsum.cascade import Cascade, Expr, Number, Scalar, transform
from ..einsum.flatten import flatten
from ..einsum.rewrite.step import Refused
from .products import MATRIX_SIDE

LENGTHS = (MATRIX_SIDE, 2 * MATRIX_SIDE, 4 * MATRIX_SIDE, 8 * MATRIX_SIDE)
"""Positions of a chunk, from the shortest side of a matrix product on: pairs within a chunk grow with its square."""


@dataclass(frozen=True)
class Chunked:
    """A chunked form, and what was done in words."""

    cascade: Cascade
    note: str
    inside: frozenset[str]
    """Tensors by positions of a chunk: what makes them and what reads them belongs together."""


def chunked(cascade: Cascade) -> Iterator[Chunked]:
    """The forms in which linear recurrences along a rank go chunk by chunk, shortest chunks first; none where there are none."""
    ranks = {t.iterates for t in cascade.tensors if t.iterates is not None}
    whole = [r.name for r in cascade.ranks if r.name in ranks and r.part_of is None and r.split is None]
    if not whole:
        return
    from ..einsum.rewrite.chunked_form import chunked_form
    from ..einsum.rewrite.common_subexpressions import common_subexpressions

    flat = flatten(cascade)
    for rank in whole:
        for length in LENGTHS:
            result = chunked_form(flat, rank, length)
            if isinstance(result, Refused):
                break
            shared = common_subexpressions(result.cascade)
            form = (shared or result).cascade
            kept = {tensor.name for tensor in flat.tensors}
            inside = frozenset(t.name for t in form.tensors if t.name not in kept and rank not in t.ranks)
            yield Chunked(_of_length(form, cascade, length), f"{result.step.target}: `{rank}` in chunks of {length}", inside)


def _of_length(form: Cascade, original: Cascade, length: int) -> Cascade:
    """The form with its length of a chunk as a number."""
    (symbol,) = (name for name in form.symbols if name not in original.symbols)

    def number(expr: Expr) -> Expr:
        return transform(expr, lambda node: Number(length) if node == Scalar(symbol) else node)

    ranks = tuple(
        replace(
            rank,
            extent=number(rank.extent),
            split=None if rank.split is None else replace(rank.split, tile=number(rank.split.tile)),
        )
        for rank in form.ranks
    )
    einsums = tuple(
        replace(einsum, indices=tuple(map(number, einsum.indices)), body=number(einsum.body)) for einsum in form.einsums
    )
    sizes = tuple((name, value) for name, value in form.sizes if name != symbol)
    return replace(form, ranks=ranks, einsums=einsums, sizes=sizes)
