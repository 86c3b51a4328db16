"""Domains: the boxes of points at which an expression is evaluated.

A `Domain` gives each of its ranks a half-open range of coordinates. Arrays over a domain have one dimension per rank, in its
order, of length 1 where they do not depend on the rank. `Partitions` knows which points of a box exist: a rank that is split
exists only where outer * tile + inner is below its extent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arithmetic import Array
from .cascade import Cascade
from .sizes import Sizes, evaluate_scalar

Range = tuple[int, int]


@dataclass(frozen=True)
class Domain:
    """Ranks and the range of coordinates of each, in order."""

    ranges: Mapping[str, Range]

    @cached_property
    def key(self) -> tuple[tuple[str, Range], ...]:
        """What tells it from other domains."""
        return tuple(self.ranges.items())

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.ranges)

    @cached_property
    def ranks(self) -> frozenset[str]:
        return frozenset(self.ranges)

    @cached_property
    def axes(self) -> dict[str, int]:
        return {name: axis for axis, name in enumerate(self.ranges)}

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(high - low for low, high in self.ranges.values())

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    def length(self, rank: str) -> int:
        low, high = self.ranges[rank]
        return high - low

    def coordinates(self, rank: str) -> Array:
        """The coordinates along a rank, as an array over the domain."""
        low, high = self.ranges[rank]
        return self.spread(np.arange(low, high, dtype=np.int64), (rank,))

    def spread(self, values: Array, ranks: tuple[str, ...]) -> Array:
        """An array whose dimensions are `ranks` as an array over the domain (a view)."""
        axes = [self.axes[rank] for rank in ranks]
        shape = [1] * len(self.ranges)
        for axis, length in zip(axes, values.shape, strict=True):
            shape[axis] = length
        if axes != sorted(axes):
            values = values.transpose(sorted(range(len(axes)), key=axes.__getitem__))
        return values.reshape(shape)

    def with_ranges(self, ranges: Mapping[str, Range]) -> Domain:
        """The domain with other or further ranges; new ranks come last."""
        return self._related({**self.ranges, **ranges})

    def only(self, ranks: Iterable[str]) -> Domain:
        """The domain of some of the ranks, in the same order."""
        kept = set(ranks)
        return self._related({name: bounds for name, bounds in self.ranges.items() if name in kept})

    def _related(self, ranges: dict[str, Range]) -> Domain:
        """A domain asked for before is the same object, with all that is known of it."""
        key = tuple(ranges.items())
        if key == self.key:
            return self
        if key not in self._others:
            self._others[key] = Domain(ranges)
        return self._others[key]

    @cached_property
    def _others(self) -> dict[tuple[tuple[str, Range], ...], Domain]:
        return {}

    def project(self, active: Array | None, ranks: frozenset[str]) -> Array | None:
        """`active` over the domain of some of the ranks: does anything along the others count?"""
        if active is None:
            return None
        gone = tuple(axis for name, axis in self.axes.items() if name not in ranks)
        return np.asarray(active.any(axis=gone))

    def cut(self, values: Array | None, part: Domain) -> Array | None:
        """An array over this domain cut down to a part of it (ranks of the part that are not here get a dimension of length 1)."""
        if values is None:
            return None
        places = []
        for axis, (name, (low, _)) in enumerate(self.ranges.items()):
            start, end = part.ranges[name]
            places.append(slice(None) if values.shape[axis] == 1 else slice(start - low, end - low))
        return part.spread(values[tuple(places)], self.names)

    def blocks(self, most: int, whole: frozenset[str] = frozenset()) -> Iterator[Domain]:
        """The domain cut into boxes of at most `most` points (or one fiber of the `whole` ranks), outer ranks first."""
        if self.size <= most:
            yield self
            return
        budget = max(1, most // max(1, math.prod(self.length(name) for name in whole)))
        lengths: dict[str, int] = {}
        for name in reversed(self.names):
            length = self.length(name)
            if name not in whole:
                lengths[name] = max(1, min(length, budget))
                budget = budget // lengths[name] if lengths[name] == length else 1
        pieces = [
            [(low, high)] if name in whole else [(at, min(high, at + lengths[name])) for at in range(low, high, lengths[name])]
            for name, (low, high) in self.ranges.items()
        ]
        for choice in itertools.product(*pieces):
            yield Domain(dict(zip(self.names, choice, strict=True)))


@dataclass(frozen=True)
class Constraint:
    """Points exist where the weighted sum of coordinates is below `extent`."""

    weights: Mapping[str, int]
    extent: int


class Partitions:
    """Which points of a box of ranks exist, for a cascade with sizes."""

    def __init__(self, cascade: Cascade, sizes: Sizes) -> None:
        self._extents = sizes.extents
        self._splits = {
            rank.name: (rank.split.outer, rank.split.inner, int(evaluate_scalar(rank.split.tile, sizes.scalars)))
            for rank in cascade.ranks
            if rank.split is not None
        }
        self._known: dict[frozenset[str], tuple[Constraint, ...]] = {}

    def constraints(self, ranks: frozenset[str]) -> tuple[Constraint, ...]:
        """Constraints among some ranks."""
        if not self._splits:
            return ()
        if ranks not in self._known:
            found = []
            for rank in self._splits:
                weights = self._parts(rank, ranks)
                if weights is not None:
                    found.append(Constraint(weights, self._extents[rank]))
            self._known[ranks] = tuple(found)
        return self._known[ranks]

    def _parts(self, rank: str, ranks: frozenset[str]) -> dict[str, int] | None:
        """The rank's coordinate as a weighted sum of parts (or parts of parts) that are among `ranks`."""
        outer, inner, tile = self._splits[rank]
        weights: dict[str, int] = {}
        for part, factor in ((outer, tile), (inner, 1)):
            if part in ranks:
                weights[part] = factor
            elif part in self._splits:
                below = self._parts(part, ranks)
                if below is None:
                    return None
                weights.update({name: factor * weight for name, weight in below.items()})
            else:
                return None
        return weights

    def mates(self, bound: Iterable[str], ranks: frozenset[str]) -> frozenset[str]:
        """Ranks whose coordinates decide which points along the `bound` ranks exist."""
        return frozenset().union(
            *(constraint.weights for constraint in self.constraints(ranks) if not constraint.weights.keys().isdisjoint(bound))
        )

    def existing(self, domain: Domain, bound: Iterable[str] | None = None) -> Array | None:
        """Which points of the domain exist, as an array over it; None for all. With `bound`: only what those ranks decide."""
        result: Array | None = None
        for constraint in self.constraints(domain.ranks):
            if bound is not None and constraint.weights.keys().isdisjoint(bound):
                continue
            greatest = sum(weight * (domain.ranges[name][1] - 1) for name, weight in constraint.weights.items())
            if greatest < constraint.extent:
                continue
            place: Array = np.zeros((1,) * len(domain.ranges), dtype=np.int64)
            for name, weight in constraint.weights.items():
                place = place + weight * domain.coordinates(name)
            below = place < constraint.extent
            result = below if result is None else result & below
        return result


def both(a: Array | None, b: Array | None) -> Array | None:
    """Where both count; None stands for everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return np.asarray(a & b)
