"""The numerical check of a derivation: original and derived form in float64 on random inputs of awkward shapes, then in float32.

In: two cascades with the same inputs and outputs. Out: a line for each set of sizes that was compared. Sizes are small: lengths
that the tile does not divide, a single element, one tile exactly; inputs are ordinary, so large that logits reach 1e4, or masked
with -inf, some rows fully. Where the original is finite, a difference raises E920: a derivation that does not agree is a fault of
einsmith and is never returned. Where it agrees on ordinary inputs but not on large ones (`large`), the algebra is right and the
numbers leave their range: `derive` then refuses.

The range is that of float32 (`single_precision`): with logits of 1e4 and -1e4, with -inf in whole rows and in all of the first
tile, with segments that have nothing in common, and for one element. Where the original is finite, the derived form must be; large
inputs that the original cannot take itself, or with hardly any room, say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cascade import Cascade, Reduce, Scalar, free_ranks, walk
from ..diagnostics import Diagnostic, EinsmithError
from ..flatten import flatten
from ..interpret import BLOCK, evaluate, random_inputs
from ..sizes import bind
from . import single_precision
from .fiber import Fiber
from .trials import Values, values_of

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

RANGE_LENGTHS = (1, 13)
"""Extents of the asked rank at which the range of float32 is tried: a single element; tiles of which the last is cut short."""

HEADROOM = 1e30
"""Large inputs that bring a tensor of the original beyond this say nothing: another order of factors may need some room."""


class Differs(EinsmithError):
    """The derived form does not agree with the original."""

    def __init__(self, output: str, gap: float, sizes: dict[str, int], large: bool) -> None:
        given = ", ".join(f"{key}={value}" for key, value in sizes.items())
        self.output, self.large, self.finite = output, large, gap == gap
        """The output that differs; whether on large inputs, after those of ordinary size agreed: its numbers leave their range;
        whether it is finite where the original is."""
        how = f"differs from the original by {gap:.1e}" if gap == gap else "is not finite where the original is"
        self.what = f"{how} in `{output}` at {given}"
        super().__init__(Diagnostic("E920", f"the derived form {self.what} (a fault of einsmith)"))


def compare(
    original: Cascade,
    derived: Cascade,
    rank: str,
    seed: int = 0,
    given: Mapping[str, int] | None = None,
    finite: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Lines that say what was compared. Raises EinsmithError: E920 on a difference, E402 where nothing can be compared.

    `given`: values of extents that only the derived form has (otherwise `TILE`). `finite`: states of the original that sum up what
    runs along the rank: where one is infinite, nothing is compared.
    """
    rng = np.random.default_rng(seed)
    tiles = {name: (given or {}).get(name, TILE) for name in derived.symbols if name not in original.symbols}
    errors: dict[str, float] = {}
    """Sizes, to which several lengths may come, and the greatest error."""
    for length in LENGTHS:
        for sizes in _sizes(original, rank, length):
            if sum(_points(original, sizes)) > MAX_POINTS and (errors or length != LENGTHS[-1]):
                continue
            shown = ", ".join(f"{name}={value}" for name, value in {**sizes, **tiles}.items())
            if shown not in errors:
                worst = _worst(original, derived, rank, sizes, tiles, rng, finite)
                if worst is None:
                    continue
                errors[shown] = worst
            if length in RANGE_LENGTHS:
                _in_range(original, derived, rank, sizes, tiles, rng, finite)
            break
    if not errors:
        raise EinsmithError(
            Diagnostic("E402", "no sizes were found at which the derived form could be checked against the original")
        )
    return tuple(f"{shown}: greatest error {error:.1e}" for shown, error in errors.items())


def _points(cascade: Cascade, sizes: dict[str, int]) -> list[int]:
    """Points of each Einsum; none if the sizes do not suit the cascade."""
    try:
        extents = bind(cascade, sizes).extents
    except EinsmithError:
        return []
    found = []
    for einsum in cascade.einsums:
        bound = {rank for node in walk(einsum.body) if isinstance(node, Reduce) for rank in node.ranks}
        ranks = bound | free_ranks(einsum.body) | {rank for index in einsum.indices for rank in free_ranks(index)}
        found.append(math.prod(extents[rank] for rank in ranks))
    return found


def _at_once(cascade: Cascade, sizes: dict[str, int]) -> int:
    """Trials that are worked out together: so many that the interpreter takes one block of points for each Einsum."""
    return max(1, BLOCK // max([1, *_points(cascade, sizes)]))


def _worst(
    original: Cascade,
    derived: Cascade,
    rank: str,
    sizes: dict[str, int],
    tiles: dict[str, int],
    rng: np.random.Generator,
    finite: tuple[str, ...],
) -> float | None:
    """Greatest error over all kinds of inputs; None if the cascade does not accept the sizes."""
    worst = 0.0
    try:
        trials = list(_inputs(original, rank, sizes, rng))
    except EinsmithError:
        return None
    flat = flatten(original)
    sums = (*_sums(flat, rank), *finite)
    at_once = _at_once(flat, sizes)
    kept: list[tuple[Values, bool, Values]] = []
    with np.errstate(all="ignore"):
        values = values_of(evaluate, flat, [inputs for inputs, _ in trials], sizes, sums, at_once)
        for number, ((inputs, range_only), expected) in enumerate(zip(trials, values, strict=True)):
            if isinstance(expected, EinsmithError):
                if number == 0:
                    return None  # these sizes do not suit the cascade
                continue  # nor these values
            if number >= len(SCALES) and not all(np.isfinite(expected[name]).all() for name in sums):
                continue  # -inf is no mask here: it reaches a sum
            kept.append((inputs, range_only, expected))
        values = values_of(evaluate, derived, [inputs for inputs, _, _ in kept], {**sizes, **tiles}, (), at_once)
        for (_, range_only, expected), found in zip(kept, values, strict=True):
            if isinstance(found, EinsmithError):
                raise found
            greatest = max((_greatest(expected[name]) for name in sums), default=0.0)
            for name in original.outputs:
                gap = _difference(expected[name], found[name], greatest)
                if not gap <= TOLERANCE:
                    raise Differs(name, gap, {**sizes, **tiles}, large=range_only)
                worst = max(worst, gap)
    return worst


def _in_range(
    original: Cascade,
    derived: Cascade,
    rank: str,
    sizes: dict[str, int],
    tiles: dict[str, int],
    rng: np.random.Generator,
    finite: tuple[str, ...],
) -> None:
    """Raises `Differs` where the derived form leaves the range of float32 and the original does not."""
    flat = flatten(original)
    sums = _sums(flat, rank)
    inside = tuple(dict.fromkeys(einsum.output for einsum in flat.einsums))
    at_once = _at_once(flat, sizes)
    drawn = list(situations(original, rank, sizes, rng))
    values = values_of(single_precision.evaluate, flat, [situation.inputs for situation in drawn], sizes, inside, at_once)
    kept: list[tuple[Values, Values]] = []
    for situation, expected in zip(drawn, values, strict=True):
        if isinstance(expected, EinsmithError):
            continue  # the cascade does not accept these values
        if not situation.masked and not all((np.abs(value.astype(float)) < HEADROOM).all() for value in expected.values()):
            continue  # the original leaves the range itself, or nearly
        if not all(np.isfinite(expected[name].astype(float)).all() for name in finite):
            continue  # -inf is no mask here
        if any(np.isnan(expected[name].astype(float)).any() for name in sums):
            continue  # nor here: a factor that left this sum may have stood under a condition that hides it
        kept.append((situation.inputs, expected))
    sized = {**sizes, **tiles}
    values = values_of(single_precision.evaluate, derived, [inputs for inputs, _ in kept], sized, (), at_once)
    for (_, expected), found in zip(kept, values, strict=True):
        if isinstance(found, EinsmithError):
            raise found
        for name in original.outputs:
            if not np.isfinite(found[name][np.isfinite(expected[name])].astype(float)).all():
                raise Differs(name, math.nan, sized, large=True)


@dataclass(frozen=True)
class Situation:
    """Inputs at the edges of float32."""

    name: str
    inputs: Values
    masked: bool = False
    """Is something -inf, so that parts of the original may be, too?"""


def situations(cascade: Cascade, rank: str, sizes: dict[str, int], rng: np.random.Generator) -> Iterator[Situation]:
    """All inputs large; then each tensor along the rank in turn: large, with segments of its own, masked."""
    drawn = random_inputs(cascade, sizes, None, rng)
    floats = [name for name, value in drawn.items() if value.dtype.kind == "f"]
    for large in (100.0, -100.0):
        yield Situation(f"products of {large * 100:.0e}", {**drawn, **{name: drawn[name] * large for name in floats}})
    for name, value in drawn.items():
        ranks = cascade.tensor(name).ranks
        if value.dtype.kind == "i" and value.ndim:
            apart = np.where(rng.random(value.shape) < 0.5, value, value + 1000)
            yield Situation(f"{name}: empty segments", {**drawn, name: apart}, masked=True)
        if name not in floats or rank not in ranks:
            continue
        for large in (1e4, -1e4):
            yield Situation(f"{name}: {large:.0e}", {**drawn, name: value * large})
        masked = value.copy()
        rows = np.moveaxis(masked, ranks.index(rank), -1)  # a view
        rows[..., :TILE] = -np.inf  # the first tile
        if value.ndim > 1:
            first, last = (0,) * (value.ndim - 1), (-1,) * (value.ndim - 1)
            rows[last] = np.moveaxis(value, ranks.index(rank), -1)[last]  # nothing
            rows[first] = -np.inf  # a whole row
        yield Situation(f"{name}: first tile and whole rows masked", {**drawn, name: masked}, masked=True)


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
    first tile (inf, too, where there is a minimum).

    With each: whether a difference means that numbers leave their range, the algebra being right.
    """
    for scale in SCALES:
        drawn = random_inputs(cascade, sizes, None, rng)
        yield {name: value * scale if value.dtype.kind == "f" else value for name, value in drawn.items()}, scale != SCALES[0]
    plain = {name: value / scale if value.dtype.kind == "f" else value for name, value in drawn.items()}
    minima = any(isinstance(node, Reduce) and node.op == "min" for einsum in cascade.einsums for node in walk(einsum.body))
    infinities = (-np.inf, np.inf) if minima else (-np.inf,)
    for name, value in plain.items():
        if value.dtype.kind == "f" and value.ndim:
            masked = np.where(rng.random(value.shape) < 0.4, -np.inf, value)
            masked[0] = -np.inf
            yield {**plain, name: masked}, False
            for axis, along in enumerate(cascade.tensor(name).ranks):
                for infinity in infinities if along == rank and value.shape[axis] > TILE else ():
                    opening = value.copy()
                    np.moveaxis(opening, axis, 0)[:TILE] = infinity
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
