"""Trials: the values of a cascade for several inputs of the same sizes, many of them at once.

In: a cascade, inputs, sizes, and an evaluator. Out: for each of the inputs what the evaluator finds for them alone, or the error
that it raises. All tensors get a further rank in front, along which trials lie side by side:

    Y[p] = sum[m](A[p,m] * B[m])        Y[trial,p] = sum[m](A[trial,p,m] * B[trial,m])

At the small sizes of a check most of the time is that of walking through the cascade, which is then done once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..cascade import Access, Cascade, Coord, Expr, Rank, Scalar, remembered, transform
from ..diagnostics import EinsmithError
from .step import fresh, taken_names

Values = dict[str, np.ndarray[Any, Any]]


class Evaluate(Protocol):
    """Values of the outputs, and of the tensors named in `keep`."""

    def __call__(self, cascade: Cascade, inputs: Values, sizes: Mapping[str, int], /, *, keep: Sequence[str]) -> Values: ...


def values_of(
    evaluate: Evaluate, cascade: Cascade, trials: Sequence[Values], sizes: Mapping[str, int], keep: Sequence[str], at_once: int
) -> Iterator[Values | EinsmithError]:
    """What comes of each trial, at most `at_once` of them worked out together. Where one of them has no value, each goes by
    itself, once it is asked for."""
    for start in range(0, len(trials), at_once):
        yield from _together(evaluate, cascade, trials[start : start + at_once], sizes, keep)


def _together(
    evaluate: Evaluate, cascade: Cascade, trials: Sequence[Values], sizes: Mapping[str, int], keep: Sequence[str]
) -> Iterator[Values | EinsmithError]:
    if len(trials) > 1:
        symbol, wide = with_trials(cascade)
        inputs = {name: np.stack([trial[name] for trial in trials]) for name in trials[0]}
        try:
            found = evaluate(wide, inputs, {**sizes, symbol: len(trials)}, keep=keep)
        except EinsmithError:
            pass  # it is that of a trial
        else:
            yield from ({name: values[number] for name, values in found.items()} for number in range(len(trials)))
            return
    for trial in trials:
        try:
            yield evaluate(cascade, trial, sizes, keep=keep)
        except EinsmithError as error:
            yield error


@remembered
def with_trials(cascade: Cascade) -> tuple[str, Cascade]:
    """The cascade with a further rank in front of all tensors, and the symbol of its extent."""
    taken = taken_names(cascade)
    rank, symbol = fresh("trial", taken), fresh("TRIALS", taken)
    mine = Coord(rank)

    def beside(node: Expr) -> Expr:
        return Access(node.tensor, (mine, *node.indices), node.span) if isinstance(node, Access) else node

    einsums = tuple(
        replace(e, indices=(mine, *(transform(index, beside) for index in e.indices)), body=transform(e.body, beside))
        for e in cascade.einsums
    )
    tensors = tuple(replace(tensor, ranks=(rank, *tensor.ranks)) for tensor in cascade.tensors)
    ranks = (Rank(rank, Scalar(symbol)), *cascade.ranks)
    return symbol, replace(cascade, ranks=ranks, tensors=tensors, einsums=einsums)
