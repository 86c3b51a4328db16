"""How many points: the size of a region of an iteration space, as a formula or a number.

In: the ranks of a space and conditions on their coordinates. Out: a `Count`. Both parts of a split rank count as that rank, since
points beyond its extent do not exist. Intervals of one rank and bands between two (`m <= p`, `abs(p - m) <= W`, `p + w < M`) have
closed forms; other conditions are counted one by one where sizes are known and the space is small, and ignored (`exact` false)
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..cascade import Cascade, Coord, Expr, Map, Number, Scalar, free_ranks
from ..symbolic import ONE, ZERO, Call, Formula, constant, formula, maximum, minimum, product, symbol
from .fiber import extent_of
from .order import facts
from .regions import EVERYWHERE, Region

MAX_ENUMERATED = 1_000_000
"""Greatest number of points that are counted one by one."""


@dataclass(frozen=True)
class Count:
    """`points` of a space; an upper bound where `exact` is false."""

    points: Formula
    exact: bool = True


class Spaces:
    """Counts points in the iteration spaces of one cascade."""

    def __init__(self, cascade: Cascade, scalars: Mapping[str, int | float] | None = None) -> None:
        self.cascade = cascade
        self.scalars = scalars
        """All scalars, if they are known."""
        self._known: dict[tuple[frozenset[str], Region], Count] = {}
        self._enumerations: dict[str, int] = {}

    def merged(self, ranks: Iterable[str]) -> frozenset[str]:
        """The ranks with both parts of a split one replaced by the whole."""
        found = set(ranks)
        changed = True
        while changed:
            changed = False
            for rank in self.cascade.ranks:
                if rank.split is None:
                    continue
                parts = {rank.split.outer, rank.split.inner}
                if parts <= found or (rank.name in found and parts & found):
                    found = (found - parts) | {rank.name}
                    changed = True
        return frozenset(found)

    def extent(self, rank: str) -> Formula:
        """Extent of a rank; the count of a split by the name that it was given."""
        return extent_of(self.cascade, rank)

    def size(self, ranks: Iterable[str]) -> Formula:
        """Points of a whole space."""
        found = self.merged(ranks)
        return product(self.extent(rank.name) for rank in self.cascade.ranks if rank.name in found)

    def count(self, ranks: frozenset[str], region: Region = EVERYWHERE) -> Count:
        """Points of a space where all conditions hold."""
        key = (ranks, region)
        if key not in self._known:
            self._known[key] = self._count(ranks, region)
        return self._known[key]

    def _count(self, ranks: frozenset[str], region: Region) -> Count:
        if not region:
            return Count(self.size(ranks))
        space = self.merged(ranks)
        whole = dict(self._wholes(ranks).items())
        points, exact = ONE, True
        used: set[str] = set()
        for group, held in self._groups(region, ranks):
            names = self.merged(group)
            used |= names
            part = self._closed(sorted(names), group, held, whole) if 1 <= len(names) <= 2 else None
            if part is None:
                part = self._enumerated(group, held)
            if part is None:
                exact, part = False, self.size(names)
            points = points * part
        rest = product(self.extent(rank.name) for rank in self.cascade.ranks if rank.name in space - used)
        return Count(rest * points, exact)

    def _wholes(self, ranks: frozenset[str]) -> dict[str, tuple[str, Formula, str]]:
        """For each split rank of which both parts are iterated: outer part, tile, inner part."""
        return {
            rank.name: (rank.split.outer, formula(rank.split.tile), rank.split.inner)
            for rank in self.cascade.ranks
            if rank.split is not None and {rank.split.outer, rank.split.inner} <= ranks
        }

    def _groups(self, region: Region, ranks: frozenset[str]) -> Iterator[tuple[frozenset[str], list[Expr]]]:
        """Conditions that share ranks, together; parts of one rank belong together."""
        groups: list[tuple[set[str], list[Expr]]] = []
        for condition in sorted(region, key=repr):
            names = set(free_ranks(condition)) & ranks
            for outer, _, inner in self._wholes(ranks).values():
                if names & {outer, inner}:
                    names |= {outer, inner}
            joined = [group for group in groups if group[0] & names]
            for group in joined:
                groups.remove(group)
                names |= group[0]
            groups.append((names, [c for group in joined for c in group[1]] + [condition]))
        for found, held in groups:
            yield frozenset(found), held

    # --- closed forms ---

    def _closed(
        self, names: list[str], group: frozenset[str], held: list[Expr], wholes: dict[str, tuple[str, Formula, str]]
    ) -> Formula | None:
        bounds: list[Formula] = []
        for condition in held:
            if not _is_affine(condition):
                return None
            for fact in facts(condition):
                for rank, (outer, tile, inner) in wholes.items():
                    if rank in names:
                        merged = _merge_parts(fact, rank, outer, tile, inner)
                        if merged is None:
                            return None
                        fact = merged
                bounds.append(fact)
        if not bounds:
            return None
        if len(names) == 1:
            return self.interval(names[0], bounds)
        return self._band(names[0], names[1], bounds)

    def interval(self, rank: str, bounds: list[Formula]) -> Formula | None:
        """Coordinates of a rank at which every one of some affine formulas is at most 0; None if one is of another kind."""
        low, high = [ZERO], [self.extent(rank)]
        for bound in bounds:
            parts = bound.split(rank)
            if parts is None:
                return None
            slope, rest = parts
            if slope == ONE:  # rank + rest <= 0
                high.append(ONE - rest)
            elif slope == -1:
                low.append(rest)
            else:
                return None
        return positive(least(high) - greatest(low))

    def _band(self, p: str, m: str, bounds: list[Formula]) -> Formula | None:
        """Pairs with low <= m - p <= high, or low <= m + p <= high (p counted backwards)."""
        low: list[Formula] = []
        high: list[Formula] = []
        mirrored: bool | None = None
        for bound in bounds:
            first = bound.split(p)
            second = bound.split(m)
            if first is None or second is None:
                return None
            a, b = first[0], second[0]
            if a not in (1, -1) or b not in (1, -1):
                return None
            same = a == b
            if mirrored not in (None, same):
                return None
            mirrored = same
            rest = bound - a * symbol(p) - b * symbol(m)
            if same:  # p = extent - 1 - q
                rest = rest + a * (self.extent(p) - ONE)
            if b == 1:
                high.append(-rest)
            else:
                low.append(rest)
        pairs = _Pairs(self.extent(p), self.extent(m))
        top = pairs.at_least(greatest(low)) if low else self.extent(p) * self.extent(m)
        above = pairs.at_least(least(high) + ONE) if high else ZERO
        if low and high:
            return _positive_difference(top, above, least(high) - greatest(low))
        return top - above

    # --- one by one ---

    def _enumerated(self, group: frozenset[str], held: list[Expr]) -> Formula | None:
        if self.scalars is None:
            return None
        names = [rank.name for rank in self.cascade.ranks if rank.name in group]
        try:
            extents = [int(self.extent(name).evaluate(self.scalars)) for name in names]
        except (KeyError, ArithmeticError):
            return None
        if math.prod(extents) > MAX_ENUMERATED:
            return None
        places = {name: f"v{i}" for i, name in enumerate(names)}
        tests = [_python(condition, places, self.scalars) for condition in held]
        for rank, (outer, tile, inner) in self._wholes(group).items():
            size, extent = int(tile.evaluate(self.scalars)), int(self.extent(rank).evaluate(self.scalars))
            tests.append(f"{places[outer]} * {size} + {places[inner]} < {extent}")
        if None in tests:
            return None
        loops = " ".join(f"for {places[name]} in range({extent})" for name, extent in zip(names, extents, strict=True))
        loops = loops or "for _ in (0,)"  # a condition of scalars alone: all points, or none
        text = f"sum(1 {loops} if {' and '.join(test for test in tests if test)})"
        if text not in self._enumerations:
            try:
                self._enumerations[text] = eval(text, {"__builtins__": {}, **_FUNCTIONS})
            except (ArithmeticError, ValueError, SyntaxError, RecursionError, MemoryError):
                return None
        return constant(self._enumerations[text])


@dataclass(frozen=True)
class _Pairs:
    """Pairs (p, m) of two ranks."""

    p: Formula
    m: Formula

    def at_least(self, d: Formula) -> Formula:
        """Pairs with m - p >= d: the sum over p of max(0, m - d - p), cut at m."""
        whole = _triangle(self.m - d) - _triangle(self.m - d - self.p)
        return whole - _triangle(-d) + _triangle(-d - self.p)


def _triangle(x: Formula) -> Formula:
    """1 + 2 + ... + x; 0 for x below 1."""
    clipped = positive(x)
    return clipped * (clipped + ONE) / 2


def positive(x: Formula) -> Formula:
    """max(0, x), simplified by what is known: sizes are at least 1."""
    sign = _sign(x)
    if sign is not None:
        return x if sign >= 0 else ZERO
    return maximum(ZERO, x)


def _sign(x: Formula) -> int | None:
    """1: never negative; -1: never positive; None: not known. Every symbol stands for at least 1."""
    number = x.constant
    if number is not None:
        return 1 if number >= 0 else -1
    bottom = top = x.terms.get((), 0)
    for monomial, c in x.terms.items():
        if not monomial:
            continue
        if any(power < 0 or (not isinstance(key, str) and not _is_size(key)) for key, power in monomial):
            return None
        if c > 0:
            bottom, top = bottom + c, float("inf")  # type: ignore[assignment]
        else:
            bottom, top = -float("inf"), top + c  # type: ignore[assignment]
    if bottom >= 0:
        return 1
    return -1 if top <= 0 else None


def _is_size(key: Call) -> bool:
    """Whether an atom is surely at least 1: made of sizes alone by `min`, `max` or `ceil`."""
    inside = key.args if key.op in ("min", "max") else key.args[:1] if key.op == "ceil" else ()
    return bool(inside) and all(_sign(arg - ONE) == 1 for arg in inside)


def least(values: list[Formula]) -> Formula:
    """The least of values, those left out that provably are not."""
    return _extreme(values, 1)


def greatest(values: list[Formula]) -> Formula:
    """The greatest of values, those left out that provably are not."""
    return _extreme(values, -1)


def _extreme(values: list[Formula], side: int) -> Formula:
    """The least (side 1) or greatest (side -1) of values, with those that are provably not it left out."""
    kept: list[Formula] = []
    for value in values:
        if any(_sign((value - other) * side) == 1 for other in kept):
            continue
        kept = [other for other in kept if _sign((other - value) * side) != 1]
        kept.append(value)
    return minimum(*kept) if side == 1 else maximum(*kept)


def _positive_difference(top: Formula, above: Formula, width: Formula) -> Formula:
    """Pairs of a band: 0 where it is empty."""
    return top - above if _sign(width + ONE) == 1 else maximum(ZERO, top - above)


def _merge_parts(fact: Formula, rank: str, outer: str, tile: Formula, inner: str) -> Formula | None:
    """A fact on the parts of a rank as one on the rank; None if it is not one."""
    first = fact.split(outer)
    if first is None:
        return None
    slope, rest = first
    second = rest.split(inner)
    if second is None or second[0] * tile != slope:
        return None
    return second[1] + second[0] * symbol(rank)


def _is_affine(condition: Expr) -> bool:
    """Whether `facts` says all that the condition says."""
    match condition:
        case Map(op="<" | "<=" | ">" | ">=" | "==", args=(a, b)):
            return bool(facts(condition)) and not any(_hides(side) for side in (a, b) if not _is_abs_bound(condition, side))
        case Map(op="and", args=(a, b)):
            return _is_affine(a) and _is_affine(b)
        case _:
            return False


def _is_abs_bound(condition: Map, side: Expr) -> bool:
    """`abs(x) <= y`: the only place where `facts` opens an absolute value."""
    first, second = condition.args
    small = first if condition.op in ("<", "<=") else second if condition.op in (">", ">=") else None
    return side is small and isinstance(side, Map) and side.op == "abs" and not _hides(side.args[0])


def _hides(expr: Expr) -> bool:
    """Whether rank variables stand under something that is not affine."""
    match expr:
        case Number() | Scalar() | Coord():
            return False
        case Map(op="+" | "-" | "neg", args=args):
            return any(_hides(arg) for arg in args)
        case Map(op="*", args=args):
            return any(_hides(arg) for arg in args) or all(free_ranks(arg) for arg in args)
        case _:
            return bool(free_ranks(expr))


_SIGNS = frozenset(("+", "-", "*", "/", "//", "%", "<", "<=", ">", ">=", "==", "!=", "and", "or"))
_FUNCTIONS = {"abs": abs, "min": min, "max": max, "sum": sum, "range": range, "floor": math.floor, "ceil": math.ceil}


def _python(expr: Expr, places: Mapping[str, str], scalars: Mapping[str, int | float]) -> str | None:
    """A condition as a Python expression: made of numbers, the given names and the operations above alone; None for any other."""
    match expr:
        case Number(value=value) if math.isfinite(value):
            return repr(value)
        case Scalar(name=name) if name in scalars and math.isfinite(scalars[name]):
            return f"({scalars[name]!r})"
        case Coord(rank=rank):
            return places.get(rank)
        case Map(op=op, args=args):
            parts = [_python(arg, places, scalars) for arg in args]
            if None in parts:
                return None
            if op in _SIGNS:
                return f"({parts[0]} {op} {parts[1]})"
            if op in _FUNCTIONS:
                return f"{op}({', '.join(part for part in parts if part)})"
            if op in ("neg", "not"):
                return f"({'-' if op == 'neg' else 'not'} {parts[0]})"
            if op == "where":
                return f"({parts[1]} if {parts[0]} else {parts[2]})"
            return f"min(max({parts[0]}, {parts[1]}), {parts[2]})" if op == "clamp" else None
        case _:
            return None
