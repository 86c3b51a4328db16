"""The fiber of a rank: which ranks run along it, and where on it an index lies.

A rank and its parts are one family. Positions are measured by the *clock*: the rank itself, or its outermost part when it is split
(two values of one tile are at the same time).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cascade import Cascade, Rank, Tensor
from ..symbolic import Formula, floor_div, formula, symbol
from .order import Growth


@dataclass(frozen=True)
class Fiber:
    """One rank seen as what is traversed."""

    cascade: Cascade
    rank: str
    leaves: frozenset[str]
    """The unsplit parts of the rank, or the rank itself."""
    clock: str
    growth: Growth
    path: dict[str, tuple[tuple[str, Formula, str], ...]]
    """For the clock and each rank that holds it: the steps down to the clock, each (`outer` or `inner`, tile, name of the part)."""

    def related(self, name: str) -> bool:
        """Whether a rank runs along this fiber or holds it."""
        return name in self.path or name in self.leaves or bool(leaves_of(self.cascade, name) & self.leaves)

    def position(self, name: str, index: Formula) -> Formula | None:
        """Where along the clock an index of a dimension with rank `name` lies; None if that dimension does not say."""
        steps = self.path.get(name)
        if steps is None:
            return None
        for which, tile, part in steps:
            index = _part(self.cascade, index, which, tile, part)
        return index

    def carries(self, tensor: Tensor) -> bool:
        """Whether a tensor is a state that runs along this fiber."""
        return (tensor.iterates or "") in self.path

    @property
    def length(self) -> Formula:
        """Extent along the clock."""
        return formula(self.cascade.rank(self.clock).extent)

    def expand(self, ranks: frozenset[str]) -> frozenset[str]:
        """Iterated ranks with split ones replaced by their unsplit parts."""
        return frozenset().union(*(leaves_of(self.cascade, name) for name in ranks))


def leaves_of(cascade: Cascade, name: str) -> frozenset[str]:
    """The unsplit parts of a rank; itself if it is not split."""
    split = cascade.rank(name).split
    if split is None:
        return frozenset((name,))
    return leaves_of(cascade, split.outer) | leaves_of(cascade, split.inner)


def extent_of(cascade: Cascade, rank: str) -> Formula:
    """Extent of a rank as a formula; the count of a split by the name that it was given."""
    found = cascade.rank(rank)
    if found.part_of is not None:
        split = cascade.rank(found.part_of).split
        if split is not None and split.outer == rank and split.count is not None:
            return symbol(split.count)
    return formula(found.extent)


def root_of(cascade: Cascade, name: str) -> Rank:
    """The rank that a part was cut from, all the way up."""
    rank = cascade.rank(name)
    while rank.part_of is not None:
        rank = cascade.rank(rank.part_of)
    return rank


def expanded(cascade: Cascade) -> dict[str, Formula]:
    """Each split rank's variable in terms of its unsplit parts."""
    result: dict[str, Formula] = {}

    def value(name: str) -> Formula:
        split = cascade.rank(name).split
        if split is None:
            return symbol(name)
        return value(split.outer) * formula(split.tile) + value(split.inner)

    for rank in cascade.ranks:
        if rank.split is not None:
            result[rank.name] = value(rank.name)
    return result


def _part(cascade: Cascade, index: Formula, which: str, tile: Formula, part: str) -> Formula:
    """The outer or inner coordinate of an index along a split rank."""
    split = cascade.rank(cascade.rank(part).part_of or part).split
    outer = floor_div(index, tile)
    if split is not None:
        whole = index.split(split.outer)
        if whole is not None and whole[0] == tile and whole[1] == symbol(split.inner):
            outer = symbol(split.outer)
    return outer if which == "outer" else index - outer * tile


def fiber_of(cascade: Cascade, name: str) -> Fiber:
    """The fiber of a rank; of a part of a split rank, one fiber of that part."""
    clock = name
    while (split := cascade.rank(clock).split) is not None:
        clock = split.outer
    path: dict[str, tuple[tuple[str, Formula, str], ...]] = {clock: ()}
    rank = cascade.rank(clock)
    steps: tuple[tuple[str, Formula, str], ...] = ()
    while rank.part_of is not None:
        parent = cascade.rank(rank.part_of)
        assert parent.split is not None
        which = "outer" if parent.split.outer == rank.name else "inner"
        steps = ((which, formula(parent.split.tile), rank.name), *steps)
        path[parent.name] = steps
        rank = parent
    return Fiber(cascade, name, leaves_of(cascade, name), clock, _growth(cascade, name), path)


def _growth(cascade: Cascade, name: str) -> Growth:
    root = root_of(cascade, name)
    inner = cascade.rank(name).part_of is not None and name in {r.split.inner for r in cascade.ranks if r.split}
    extent = formula(cascade.rank(name).extent if inner else root.extent)
    large = set(extent.symbols)
    defined = {count: formula(expr) for count, expr in cascade.counts.items()}
    for param, expr in cascade.params:
        try:
            defined[param] = formula(expr)
        except ValueError:
            continue
    for symbol_name, value in defined.items():
        if value.symbols & large:
            large.add(symbol_name)
    extents = {rank.name: formula(rank.extent) for rank in cascade.ranks}
    signed: set[str] = set()
    for param, _ in cascade.params:
        known = defined.get(param)
        if known is None or any(c < 0 for c in known.terms.values()) or known.symbols & signed:
            signed.add(param)
    number = formula(cascade.rank(name).extent).constant
    return Growth(frozenset(large), extents, frozenset(signed), int(number) if number is not None else None)
