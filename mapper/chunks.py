"""Chunks of a recurrence, so that matrix units do what a state would do position by position.

In: a cascade, as kernels can follow it. Out: its chunked forms (`rewrite.chunked_form`), one for each length of a chunk that is
worth planning. The length is a number in them: how long a chunk is changes tiles, not the function. Which one is taken, or none,
is decided by predicted time (`stages`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..einsum.cascade import Cascade
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
    from ..einsum.rewrite.partition import of_length

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
            for symbol in set(form.symbols) - set(cascade.symbols):
                form = of_length(form, symbol, length)
            yield Chunked(form, f"{result.step.target}: `{rank}` in chunks of {length}", inside)
