"""The numerical check of a derivation: original and derived form in float64 on random inputs of awkward shapes.

In: two cascades with the same inputs and outputs. Out: a line for each set of sizes that was compared. Sizes are small: lengths
that the tile does not divide, a single element, one tile exactly; inputs are ordinary, so large that logits reach 1e4, or masked
with -inf, some rows fully. Where the original is finite, a difference raises E920: a derivation that does not agree is a fault of
einsmith and is never returned. Where it agrees on ordinary inputs but not on large ones (`large`), the algebra is right and the
numbers leave their range, as the square of a tiny divisor does: `derive` then refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..cascade import Cascade, Reduce, Scalar, free_ranks, walk
from ..diagnostics import Diagnostic, EinsmithError
from ..flatten import flatten
from ..interpret import evaluate, random_inputs
from ..sizes import bind
from .fiber import Fiber

TOLERANCE = 1e-9
"""Greatest difference, relative to the greatest value of the output and of the sums over the fiber (absolute below 1)."""
LENGTHS = (7, 1, 8, 13, 4)
"""Extents of the asked rank; tiles are 4."""
OTHERS = (3, 2, 1, 4, 6)
"""Extents of all other ranks: the first that the cascade accepts."""
SCALES = (1.0, 100.0)
"""Inputs are multiplied by these: products of two reach 1e4."""
TILE = 4
MAX_POINTS = 100_000
"""Points of all Einsums together beyond which smaller sizes are taken, if there are any."""

Values = dict[str, np.ndarray[Any, Any]]


class Differs(EinsmithError):
    """The derived form does not agree with the original."""

    def __init__(self, output: str, gap: float, sizes: dict[str, int], large: bool) -> None:
        given = ", ".join(f"{key}={value}" for key, value in sizes.items())
        self.output, self.large = output, large
        """The output that differs; whether on large inputs, after those of ordinary size agreed: its numbers leave their range."""
        self.what = f"differs from the original in `{output}` by {gap:.1e} at {given}"
        super().__init__(Diagnostic("E920", f"the derived form {self.what} (a fault of einsmith)"))


def compare(
    original: Cascade, derived: Cascade, rank: str, seed: int = 0, given: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """Lines that say what was compared. Raises EinsmithError: E920 on a difference, E402 where nothing can be compared.

    `given`: values of extents that only the derived form has (otherwise `TILE`).
    """
    rng = np.random.default_rng(seed)
    tiles = {name: (given or {}).get(name, TILE) for name in derived.symbols if name not in original.symbols}
    lines: list[str] = []
    for length in LENGTHS:
        for sizes in _sizes(original, rank, length):
            if _points(original, sizes) > MAX_POINTS and (lines or length != LENGTHS[-1]):
                continue
            worst = _worst(original, derived, rank, sizes, tiles, rng)
            if worst is not None:
                shown = ", ".join(f"{name}={value}" for name, value in {**sizes, **tiles}.items())
                lines.append(f"{shown}: greatest error {worst:.1e}")
                break
    if not lines:
        raise EinsmithError(
            Diagnostic("E402", "no sizes were found at which the derived form could be checked against the original")
        )
    return tuple(lines)


def _points(cascade: Cascade, sizes: dict[str, int]) -> float:
    """Points of all Einsums together; none if the sizes do not suit the cascade."""
    try:
        extents = bind(cascade, sizes).extents
    except EinsmithError:
        return 0
    total = 0.0
    for einsum in cascade.einsums:
        bound = {rank for node in walk(einsum.body) if isinstance(node, Reduce) for rank in node.ranks}
        ranks = bound | free_ranks(einsum.body) | {rank for index in einsum.indices for rank in free_ranks(index)}
        total += math.prod(extents[rank] for rank in ranks)
    return total


def _worst(
    original: Cascade, derived: Cascade, rank: str, sizes: dict[str, int], tiles: dict[str, int], rng: np.random.Generator
) -> float | None:
    """Greatest error over all kinds of inputs; None if the cascade does not accept the sizes."""
    worst = 0.0
    try:
        trials = list(_inputs(original, rank, sizes, rng))
    except EinsmithError:
        return None
    flat = flatten(original)
    sums = _sums(flat, rank)
    for number, (inputs, range_only) in enumerate(trials):
        with np.errstate(all="ignore"):
            try:
                expected = evaluate(flat, inputs, sizes, keep=sums)
            except EinsmithError:
                if number == 0:
                    return None  # these sizes do not suit the cascade
                continue  # nor these values
            if number >= len(SCALES) and not all(np.isfinite(expected[name]).all() for name in sums):
                continue  # -inf is no mask here: it reaches a sum
            found = evaluate(derived, inputs, {**sizes, **tiles})
        greatest = max((_greatest(expected[name]) for name in sums), default=0.0)
        for name in original.outputs:
            gap = _difference(expected[name], found[name], greatest)
            if not gap <= TOLERANCE:
                raise Differs(name, gap, {**sizes, **tiles}, large=range_only)
            worst = max(worst, gap)
    return worst


def _sums(flat: Cascade, rank: str) -> tuple[str, ...]:
    """Sums and means over the fiber: with infinities in them, a factor that left one may meet 0."""
    fiber = Fiber(flat, rank)
    return tuple(
        einsum.output
        for einsum in flat.einsums
        if fiber.completes(einsum) and isinstance(einsum.body, Reduce) and einsum.body.op in ("sum", "mean", "prod")
    )


def _inputs(cascade: Cascade, rank: str, sizes: dict[str, int], rng: np.random.Generator) -> Iterator[tuple[Values, bool]]:
    """Ordinary inputs; large ones; and for each input, ones in which it is -inf here and there with whole rows, or in all of the
    first tile. With each: whether a difference means that numbers leave their range, the algebra being right.
    """
    for scale in SCALES:
        drawn = random_inputs(cascade, sizes, None, rng)
        yield {name: value * scale if value.dtype.kind == "f" else value for name, value in drawn.items()}, scale != SCALES[0]
    plain = {name: value / scale if value.dtype.kind == "f" else value for name, value in drawn.items()}
    for name, value in plain.items():
        if value.dtype.kind == "f" and value.ndim:
            masked = np.where(rng.random(value.shape) < 0.4, -np.inf, value)
            masked[0] = -np.inf
            yield {**plain, name: masked}, False
            for axis, along in enumerate(cascade.tensor(name).ranks):
                if along == rank and value.shape[axis] > TILE:
                    opening = value.copy()
                    np.moveaxis(opening, axis, 0)[:TILE] = -np.inf
                    yield {**plain, name: opening}, True


def _difference(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any], greatest: float) -> float:
    """Greatest relative error where the original is finite."""
    finite = np.isfinite(expected)
    scale = max(1.0, greatest, _greatest(expected))
    return float(np.abs(found[finite].astype(float) - expected[finite].astype(float)).max(initial=0.0)) / scale


def _greatest(values: np.ndarray[Any, Any]) -> float:
    return float(np.abs(values[np.isfinite(values)].astype(float)).max(initial=0.0))


def _sizes(cascade: Cascade, rank: str, length: int) -> Iterator[dict[str, int]]:
    """Sizes to try for one length of the asked rank: all others small and equal, then the spec's own where they are small."""
    along = {node.name for node in walk(cascade.rank(rank).extent) if isinstance(node, Scalar)}
    for other in OTHERS:
        yield {name: length if name in along else other for name in cascade.symbols}
    own = {name: min(value, 8) for name, value in cascade.sizes}
    for other in OTHERS:
        yield {name: length if name in along else own.get(name, other) for name in cascade.symbols}
    yield {name: own.get(name, length) for name in cascade.symbols}
