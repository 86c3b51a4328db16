"""Index bounds that hold for all sizes.

In: an index expression and the dimension it indexes. Out: how it goes out of range whatever the sizes are. Bounds are polynomials
in the extents, which are never negative: one without a negative coefficient is never negative. What is not a polynomial
(`//`, `%`, parameters, gathers) has no bound here and is judged when the sizes are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .cascade import Cascade, Coord, Expr, Map, Number, Scalar, walk

Polynomial: TypeAlias = dict[tuple[str, ...], int]
"""Monomial (its symbols, sorted; () for 1) -> coefficient, never 0."""


MAX_TERMS = 400
"""Most terms of a product: an expression of few characters can multiply out to millions."""


@dataclass(frozen=True)
class Outside:
    """In what way an index leaves its dimension: below 0 or beyond the last position, at every point or at some; how far."""

    below: bool
    always: bool
    reached: str
    """The value nearest to the inside if `always`, else the farthest from it."""


def outside(index: Expr, rank: str, state: bool, cascade: Cascade) -> Outside | None:
    """How an index leaves the dimension of a rank, whatever the sizes are; None if it does not, or may not."""
    if isinstance(index, Coord) and index.rank == rank:
        return None
    exact = _is_exact(index, cascade)
    low, high = _bound(index, -1, cascade), _bound(index, 1, cascade)
    if high is not None and _is_negative(high):
        return Outside(True, True, _text(high))
    if exact and low is not None and _is_negative(low):
        return Outside(True, False, _text(low))
    extent = _polynomial(cascade.rank(rank).extent, cascade)
    if extent is not None:
        beyond = _scaled(_sum(extent, {(): 1}) if state else extent, -1)
        if low is not None and _never_negative(_sum(low, beyond)):
            return Outside(False, True, _text(low))
        if exact and high is not None and _never_negative(_sum(high, beyond)):
            return Outside(False, False, _text(high))
    return None


def _text(polynomial: Polynomial) -> str:
    """`M+2*P-1`."""
    text = ""
    for monomial, coefficient in sorted(polynomial.items(), key=lambda term: (not term[0], term[0])):
        factors = [str(abs(coefficient))] * (abs(coefficient) != 1 or not monomial) + list(monomial)
        text += ("-" if coefficient < 0 else "+") + "*".join(factors)
    return text.removeprefix("+") or "0"


def _is_negative(polynomial: Polynomial) -> bool:
    return _never_negative(_sum(_scaled(polynomial, -1), {(): -1}))


def _never_negative(polynomial: Polynomial) -> bool:
    return all(coefficient > 0 for coefficient in polynomial.values())


def _is_exact(expr: Expr, cascade: Cascade) -> bool:
    """Are both bounds reached, at a corner of the box of its coordinates? Parts of a rank do not have all points of their box."""
    nodes = list(walk(expr))
    ranks = [node.rank for node in nodes if isinstance(node, Coord)]
    if len(ranks) != len(set(ranks)) or any(cascade.rank(rank).part_of is not None for rank in ranks):
        return False
    return all(
        isinstance(node, Number | Scalar | Coord) or (isinstance(node, Map) and node.op in ("+", "-", "*", "neg")) for node in nodes
    )


def _bound(expr: Expr, side: int, cascade: Cascade) -> Polynomial | None:
    """An upper (`side` 1) or lower (-1) bound of an expression over all its coordinates; None if none is known."""
    match expr:
        case Number(value=int(value)):
            return {(): value} if value else {}
        case Scalar(name=name):
            return {(name,): 1} if _is_extent(name, cascade) else None
        case Coord(rank=rank):
            if side < 0:
                return {}
            extent = _polynomial(cascade.rank(rank).extent, cascade)
            return None if extent is None else _sum(extent, {(): -1})
        case Map(op="neg", args=(a,)):
            bound = _bound(a, -side, cascade)
            return None if bound is None else _scaled(bound, -1)
        case Map(op="+" | "-" as op, args=(a, b)):
            first, second = _bound(a, side, cascade), _bound(b, side if op == "+" else -side, cascade)
            return None if first is None or second is None else _sum(first, _scaled(second, 1 if op == "+" else -1))
        case Map(op="*", args=(a, b)):
            factor, other = (_polynomial(a, cascade), b) if not _has_coords(a) else (_polynomial(b, cascade), a)
            if factor is None or not _never_negative(factor):
                return None
            bound = _bound(other, side, cascade)
            return None if bound is None else _product(bound, factor)
        case Map(op="clamp", args=(_, _, high)) if side > 0:
            return _bound(high, 1, cascade)
        case Map(op="%", args=(_, modulus)) if side > 0:
            length = _polynomial(modulus, cascade)
            return None if length is None or not _never_negative(length) else _sum(length, {(): -1})
        case _:
            return None


def _is_extent(name: str, cascade: Cascade) -> bool:
    return name in cascade.counts or name in cascade.symbols


def _has_coords(expr: Expr) -> bool:
    return isinstance(expr, Coord) or (isinstance(expr, Map) and any(_has_coords(arg) for arg in expr.args))


def _polynomial(expr: Expr, cascade: Cascade) -> Polynomial | None:
    """An expression without coordinates as a polynomial of extents."""
    if _has_coords(expr):
        return None
    return _exact(expr, cascade)


def _exact(expr: Expr, cascade: Cascade) -> Polynomial | None:
    match expr:
        case Number(value=int(value)):
            return {(): value} if value else {}
        case Scalar(name=name):
            return {(name,): 1} if _is_extent(name, cascade) else None
        case Map(op="neg", args=(a,)):
            inner = _exact(a, cascade)
            return None if inner is None else _scaled(inner, -1)
        case Map(op="+" | "-" | "*" as op, args=(a, b)):
            first, second = _exact(a, cascade), _exact(b, cascade)
            if first is None or second is None:
                return None
            return _product(first, second) if op == "*" else _sum(first, _scaled(second, 1 if op == "+" else -1))
        case _:
            return None


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    total = dict(a)
    for monomial, coefficient in b.items():
        total[monomial] = total.get(monomial, 0) + coefficient
        if not total[monomial]:
            del total[monomial]
    return total


def _scaled(a: Polynomial, factor: int) -> Polynomial:
    return {monomial: factor * coefficient for monomial, coefficient in a.items()}


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    """The product; None where it has too many terms to be worth it."""
    if len(a) * len(b) > MAX_TERMS:
        return None
    total: Polynomial = {}
    for left, x in a.items():
        for right, y in b.items():
            total = _sum(total, {tuple(sorted(left + right)): x * y})
    return total
