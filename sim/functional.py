"""A mapping executed for its values: tile by tile, in the mapped order, on real data, every access counted.

In: a cascade, an architecture, a mapping, arrays for the inputs. Out: an `Executed`: the outputs, and the words that were read
and written at each storage level. Each group runs by itself (`tile_by_tile`). Nothing is taken from the cost model but the share
of a spilled tensor that goes out: a mapping that reads what is not there yet, or no longer, gives wrong values here, and a count
that the model gets wrong differs here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..einsum.arithmetic import as_float
from ..einsum.cascade import Access, Cascade, accesses
from ..einsum.inputs import as_arrays, checked, infer_sizes, random_inputs
from ..einsum.interpret import evaluate
from ..einsum.sizes import bind
from ..mapper.architecture import Architecture
from ..mapper.cost import Cost, cost
from ..mapper.mapping import Mapping
from ..mapper.nest import place, refuse
from .tile_by_tile import Levels, TileByTile, Values

MAX_POINTS = 2**26
"""Most points of one Einsum that are executed: this is a check on small problems."""


@dataclass(frozen=True)
class Executed:
    """What the execution gave."""

    outputs: dict[str, Values]
    errors: dict[str, float]
    """Greatest difference of each output to the interpreter's value, relative to its largest finite element."""
    counts: tuple[Levels, ...]
    """Words moved by each group."""
    model: Cost

    @property
    def equal(self) -> bool:
        """Whether all values are the interpreter's, up to the order of summation."""
        return all(error <= 1e-9 for error in self.errors.values())

    @property
    def differences(self) -> list[str]:
        """Counts that are not the cost model's."""
        found = []
        for number, (mine, theirs) in enumerate(zip(self.counts, self.model.groups, strict=True), 1):
            for level, ways in mine.items():
                for way, counted in ways.items():
                    expected = theirs.levels[level].read_words if way == "read" else theirs.levels[level].written_words
                    for name in sorted(counted.keys() | expected.keys()):
                        have, want = counted.get(name, 0.0), expected.get(name, 0.0)
                        if not math.isclose(have, want, rel_tol=1e-12):
                            found.append(f"group {number}: {level} {way} {have:,.0f} words of `{name}`; the model has {want:,.0f}")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "equal": self.equal,
            "errors": self.errors,
            "counts_equal": not self.differences,
            "differences": self.differences,
            "groups": [{"levels": each} for each in self.counts],
        }

    def __str__(self) -> str:
        worst = max(self.errors.values(), default=0.0)
        how = "equal to" if self.equal else "DIFFERENT from"
        lines = [f"executed tile by tile: values {how} the interpreter's (at most {worst:.2g} apart)"]
        for number, each in enumerate(self.counts, 1):
            for level, ways in each.items():
                for way, words in ways.items():
                    listed = ", ".join(f"{name} {count:,.0f}" for name, count in words.items() if count)
                    lines.append(f"    group {number} {level} {way:7} {listed or 'nothing'} words")
        lines += self.differences or ["    every count is the cost model's"]
        return "\n".join(lines)


def execute(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    inputs: Map_[str, Values],
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
) -> Executed:
    """Execute a mapping on data. Raises EinsmithError where it is illegal or too large (E542)."""
    arrays = as_arrays(inputs)
    known = infer_sizes(cascade, arrays, {**mapping.sizes, **(sizes or {})}, params)
    gathers = _giving(cascade)
    expected = evaluate(cascade, arrays, known, params, keep=gathers)
    placed = place(cascade, arch, mapping, known, params, {name: expected[name] for name in gathers})
    for nest in placed.nests:
        for step in nest.steps:
            points = math.prod(nest.sizes.extents[rank] for rank in step.ranks)
            if points > MAX_POINTS:
                raise refuse(
                    "E542", f"`{step.name}` has {points:,} points; a mapping is executed for its values up to {MAX_POINTS:,}",
                    "give smaller sizes: what is right for small ones with tails is right for large ones", step.einsum.span,
                )  # fmt: skip
    store = checked(placed.cascade, arrays, placed.sizes)
    counts: list[Levels] = []
    with np.errstate(all="ignore"):
        for nest in placed.nests:
            counts.append(TileByTile(nest, store).run())
    outputs = {name: store[name] for name in cascade.outputs}
    errors = {name: _error(outputs[name], expected[name]) for name in cascade.outputs}
    return Executed(outputs, errors, tuple(counts), cost(placed))


def random_data(
    cascade: Cascade, mapping: Mapping, sizes: Map_[str, int] | None = None, params: Map_[str, int | float] | None = None
) -> dict[str, Values]:
    """Random inputs for a mapped cascade, always the same ones. Raises EinsmithError (E542) where they would be too large."""
    known = bind(cascade, {**mapping.sizes, **(sizes or {})}, params)
    for tensor in cascade.inputs:
        words = math.prod(known.extents[rank] for rank in tensor.ranks)
        if words > MAX_POINTS:
            raise refuse(
                "E542", f"`{tensor.name}` has {words:,} elements; a mapping is executed for its values up to {MAX_POINTS:,} points",
                "give smaller sizes: what is right for small ones with tails is right for large ones",
            )  # fmt: skip
    return random_inputs(cascade, {**mapping.sizes, **(sizes or {})}, params, np.random.default_rng(0))


def gathered(
    cascade: Cascade, inputs: Map_[str, Values], sizes: Map_[str, int] | None = None, params: Map_[str, int | float] | None = None
) -> dict[str, Values]:
    """The values of the tensors that say where others are read."""
    names = _giving(cascade)
    values = evaluate(cascade, inputs, sizes, params, keep=names) if names else {}
    return {name: values[name] for name in names}


def _giving(cascade: Cascade) -> list[str]:
    return sorted({access.tensor for einsum in cascade.einsums for outer in accesses(einsum.body) for access in _inside(outer)})


def _inside(access: Access) -> tuple[Access, ...]:
    """Reads of tensors that say where an access reads."""
    return tuple(inner for index in access.indices for inner in accesses(index))


def _error(found: Values, expected: Values) -> float:
    """Greatest relative difference; infinite where one is finite, or NaN, and the other is not."""
    a, b = as_float(found), as_float(expected)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    scale = max(1.0, float(np.abs(b[finite]).max(initial=0.0)))
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale
