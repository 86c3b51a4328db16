"""The numerical check of a derivation: original and derived form in float64 on random inputs of awkward shapes.

In: two cascades with the same inputs and outputs. Out: a line for each set of sizes that was compared. Sizes are small: lengths
that the tile does not divide, a single element, one tile exactly; inputs are ordinary, or so large that logits reach 1e4. A
difference raises E902: a derivation that does not agree is a fault of einsmith and is never returned.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..cascade import Cascade, Scalar, walk
from ..diagnostics import Diagnostic, EinsmithError
from ..interpret import evaluate, random_inputs

TOLERANCE = 1e-9
"""Greatest difference, relative to the greatest value of the output (absolute below 1)."""
LENGTHS = (7, 1, 8, 5, 12)
"""Extents of the asked rank; tiles are 4."""
OTHER = (3, 2, 1, 4)
"""Extents of all other ranks, in turn until the cascade accepts them."""
SCALES = (1.0, 100.0)
"""Inputs are multiplied by these: products of two reach 1e4."""


def compare(original: Cascade, derived: Cascade, rank: str, seed: int = 0) -> tuple[str, ...]:
    """Lines that say what was compared. Raises EinsmithError (E902) on a difference."""
    lines: list[str] = []
    rng = np.random.default_rng(seed)
    for sizes, tiles in _sizes(original, derived, rank):
        worst = 0.0
        for scale in SCALES:
            try:
                inputs = {
                    name: value * scale if value.dtype.kind == "f" else value
                    for name, value in random_inputs(original, sizes, None, rng).items()
                }
                with np.errstate(all="ignore"):
                    expected = evaluate(original, inputs, sizes)
            except EinsmithError:
                break  # these sizes do not suit the cascade
            with np.errstate(all="ignore"):
                found = evaluate(derived, inputs, {**sizes, **tiles})
            for name in original.outputs:
                worst = max(worst, _difference(expected[name], found[name], name, {**sizes, **tiles}))
        else:
            shown = ", ".join(f"{name}={value}" for name, value in {**sizes, **tiles}.items())
            lines.append(f"{shown}: greatest error {worst:.1e}")
    if not lines:
        raise EinsmithError(
            Diagnostic("E402", "no sizes were found at which the derived form could be checked against the original")
        )
    return tuple(lines)


def _difference(expected: np.ndarray, found: np.ndarray, name: str, sizes: dict[str, int]) -> float:  # type: ignore[type-arg]
    finite = np.isfinite(expected)
    scale = max(1.0, float(np.abs(expected[finite]).max(initial=0.0)))
    gap = np.where(finite, np.abs(np.where(finite, found, 0) - np.where(finite, expected, 0)), 0.0)
    worst = float(np.nanmax(gap, initial=0.0)) / scale
    if np.isnan(found[finite]).any() or worst > TOLERANCE:
        given = ", ".join(f"{key}={value}" for key, value in sizes.items())
        message = f"the derived form differs from the original in `{name}` by {worst:.1e} at {given} (a fault of einsmith)"
        raise EinsmithError(Diagnostic("E902", message))
    return worst


def _sizes(original: Cascade, derived: Cascade, rank: str) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """(sizes of the original, sizes of new tiles) to try: the asked rank's length varies, the others stay small."""
    along = {node.name for node in walk(original.rank(rank).extent) if isinstance(node, Scalar)}
    tiles = {name: 4 for name in derived.symbols if name not in original.symbols}
    own = {name: value for name, value in original.sizes if name not in along}
    for length in LENGTHS:
        for other in OTHER:
            sizes = {name: length if name in along else other for name in original.symbols}
            yield sizes, tiles
    if own:
        yield {**dict.fromkeys(original.symbols, 7), **{n: min(v, 8) for n, v in own.items()}}, tiles
