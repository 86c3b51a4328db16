"""Regions: where an Einsum must be computed at all.

Masks are `where(condition of rank variables, x, constant)`. Two things follow from them. Forward: a tensor is a known constant
outside some condition, and constants go on (`exp(-inf)` is 0, 0 times anything adds nothing to a sum). Backward: a tensor that is
read only under a condition need not exist elsewhere. What is left of an Einsum's points is its region: a set of conditions, all of
which hold.

Conditions that read a tensor say nothing here: a region may be too large, never too small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..cascade import (
    COMPARISONS,
    LOGICAL,
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scalar,
    Scan,
    Select,
    children,
    free_ranks,
    rebuild,
    substitute,
    walk,
)
from ..flatten import IDENTITY
from ..sizes import evaluate_scalar

Region: TypeAlias = frozenset[Expr]
"""Conditions of rank variables that all hold; empty: everywhere."""

EVERYWHERE: Region = frozenset()


@dataclass(frozen=True)
class Mask:
    """A tensor (or expression) equals `value` wherever one of the conditions fails."""

    region: Region
    value: float


def regions(cascade: Cascade, scalars: Mapping[str, int | float]) -> list[Region]:
    """The region of each Einsum of a flattened cascade; `scalars` are the parameters and sizes that are known."""
    masks: dict[str, Mask] = {}
    own: list[Region] = []
    for einsum in cascade.einsums:
        region, mask = _forward(einsum, cascade, masks, scalars)
        own.append(region)
        if mask is not None and cascade.tensor(einsum.output).kind == "einsum":
            masks[einsum.output] = mask
    needs: dict[str, Region | None] = dict.fromkeys(cascade.outputs, EVERYWHERE)
    result: list[Region] = [EVERYWHERE] * len(own)
    for number in range(len(own) - 1, -1, -1):
        einsum = cascade.einsums[number]
        needed = needs.get(einsum.output)
        if needed is None or cascade.tensor(einsum.output).kind != "einsum":
            needed = EVERYWHERE
        ranks = _point_ranks(einsum)
        region = own[number] | frozenset(c for c in needed if free_ranks(c) <= ranks)
        result[number] = region
        for access, guards in guarded(einsum.body, scalars):
            _need(access, guards | region, cascade, needs)
    return result


def _point_ranks(einsum: Einsum) -> frozenset[str]:
    names = {node.rank for index in einsum.indices for node in walk(index) if isinstance(node, Coord)}
    match einsum.body:
        case Reduce(ranks=ranks):
            names.update(ranks)
        case Select(rank=rank):
            names.add(rank)
        case _:
            pass
    return frozenset(names)


# --- forward ----------------------------------------------------------------------------------------------------------


def _forward(
    einsum: Einsum, cascade: Cascade, masks: Mapping[str, Mask], scalars: Mapping[str, int | float]
) -> tuple[Region, Mask | None]:
    """Where an Einsum must be computed, and where its output is a constant."""
    body = einsum.body
    if isinstance(body, Select):
        return EVERYWHERE, None
    if isinstance(body, Reduce | Scan):
        mask = _mask(body.body, cascade, masks, scalars)
        if mask is None or body.op not in IDENTITY or body.op == "mean" or mask.value != evaluate_scalar(IDENTITY[body.op], {}):
            return EVERYWHERE, None
        bound = frozenset(body.ranks) if isinstance(body, Reduce) else frozenset((body.rank,))
        kept = frozenset(c for c in mask.region if not (free_ranks(c) & bound))
        return mask.region, Mask(kept, mask.value) if kept else None
    mask = _mask(body, cascade, masks, scalars)
    return (mask.region if mask else EVERYWHERE), mask


def _mask(expr: Expr, cascade: Cascade, masks: Mapping[str, Mask], scalars: Mapping[str, int | float]) -> Mask | None:
    """Where an expression is a constant whatever the data."""
    match expr:
        case Access(tensor=tensor, indices=indices) if tensor in masks and not any(
            isinstance(node, Access) for index in indices for node in walk(index)
        ):
            places = dict(zip(cascade.tensor(tensor).ranks, indices, strict=True))
            known = masks[tensor]
            return Mask(frozenset(substitute(c, places) for c in known.region), known.value)
        case Map(op="where", args=(condition, yes, no)):
            return _where(condition, yes, no, cascade, masks, scalars)
        case Map(op=op, args=args):
            return _folded(op, args, [_mask(arg, cascade, masks, scalars) for arg in args], scalars)
        case _:
            return None


def _where(
    condition: Expr, yes: Expr, no: Expr, cascade: Cascade, masks: Mapping[str, Mask], scalars: Mapping[str, int | float]
) -> Mask | None:
    value = _value(no, scalars)
    holds = conditions(condition, scalars)
    if value is not None:
        inner = _mask(yes, cascade, masks, scalars)
        more = inner.region if inner is not None and inner.value == value else EVERYWHERE
        region = (holds or EVERYWHERE) | more
        return Mask(region, value) if region else None
    value = _value(yes, scalars)
    fails = conditions(Map("not", (condition,)), scalars)
    return Mask(fails, value) if value is not None and fails else None


def _value(expr: Expr, scalars: Mapping[str, int | float]) -> float | None:
    """The number that an expression is, if it is one."""
    if any(isinstance(node, Access | Coord | Reduce | Scan | Select) for node in walk(expr)):
        return None
    try:
        return float(evaluate_scalar(expr, scalars))
    except (KeyError, ArithmeticError, ValueError):
        return None


_ABSORB: dict[str, tuple[tuple[int, float, float], ...]] = {
    # op: (which argument, its value, the result whatever the others are)
    "*": ((0, 0.0, 0.0), (1, 0.0, 0.0)), "/": ((0, 0.0, 0.0),),
    "+": ((0, -math.inf, -math.inf), (1, -math.inf, -math.inf)), "-": ((0, -math.inf, -math.inf),),
    "min": ((0, -math.inf, -math.inf), (1, -math.inf, -math.inf)), "max": ((0, math.inf, math.inf), (1, math.inf, math.inf)),
    "and": ((0, 0.0, 0.0), (1, 0.0, 0.0)),
}  # fmt: skip

_UNARY: dict[str, dict[float, float]] = {
    "exp": {-math.inf: 0.0, 0.0: 1.0}, "exp2": {-math.inf: 0.0, 0.0: 1.0}, "sigmoid": {-math.inf: 0.0},
    "softplus": {-math.inf: 0.0}, "relu": {-math.inf: 0.0, 0.0: 0.0}, "silu": {0.0: 0.0}, "gelu": {0.0: 0.0},
    "tanh": {0.0: 0.0}, "sqrt": {0.0: 0.0}, "abs": {0.0: 0.0}, "neg": {0.0: 0.0, -math.inf: math.inf}, "erf": {0.0: 0.0},
    "sign": {0.0: 0.0}, "sin": {0.0: 0.0}, "round": {0.0: 0.0}, "floor": {0.0: 0.0}, "ceil": {0.0: 0.0},
}  # fmt: skip


def _folded(op: str, args: tuple[Expr, ...], parts: list[Mask | None], scalars: Mapping[str, int | float]) -> Mask | None:
    """The constant that an operation yields where its arguments are constants."""
    if len(parts) == 1:
        result = _UNARY.get(op, {}).get(parts[0].value) if parts[0] is not None else None
        return Mask(parts[0].region, result) if parts[0] is not None and result is not None else None
    found: dict[float, Region] = {}
    for place, value, result in _ABSORB.get(op, ()):
        part = parts[place] if place < len(parts) else None
        if part is not None and part.value == value:
            found[result] = found.get(result, EVERYWHERE) | part.region
    if found:
        result, region = next(iter(found.items()))
        return Mask(region, result)
    if op in ("*", "/") and len(parts) == 2:  # -inf times a positive number, and the like
        part, other = parts[0], _value(args[1], scalars)
        if op == "*" and part is None:
            part, other = parts[1], _value(args[0], scalars)
        if part is not None and math.isinf(part.value) and other is not None and other > 0:
            return part
    if op == "**" and parts[0] is not None and parts[0].value == 0.0 and (_value(args[1], scalars) or 0) > 0:
        return parts[0]
    return None


# --- backward ---------------------------------------------------------------------------------------------------------


def guarded(expr: Expr, scalars: Mapping[str, int | float], guards: Region = EVERYWHERE) -> list[tuple[Access, Region]]:
    """Each access with the conditions of rank variables under which it is evaluated."""
    found: list[tuple[Access, Region]] = []
    if isinstance(expr, Access):
        found.append((expr, guards))
    if isinstance(expr, Map) and expr.op == "where":
        condition, yes, no = expr.args
        found += guarded(condition, scalars, guards)
        found += guarded(yes, scalars, guards | (conditions(condition, scalars) or EVERYWHERE))
        found += guarded(no, scalars, guards | (conditions(Map("not", (condition,)), scalars) or EVERYWHERE))
        return found
    for part in children(expr):
        found += guarded(part, scalars, guards)
    return found


def _need(access: Access, region: Region, cascade: Cascade, needs: dict[str, Region | None]) -> None:
    """Widen what is needed of a tensor by one access."""
    ranks = cascade.tensor(access.tensor).ranks
    names: dict[str, str] = {}
    for rank, index in zip(ranks, access.indices, strict=True):
        if isinstance(index, Coord):
            names[index.rank] = rank
    expressed = frozenset(
        substitute(c, {name: Coord(rank) for name, rank in names.items()}) for c in region if free_ranks(c) <= names.keys()
    )
    before = needs.get(access.tensor)
    needs[access.tensor] = expressed if before is None else before & expressed


# --- conditions -------------------------------------------------------------------------------------------------------


def conditions(condition: Expr, scalars: Mapping[str, int | float]) -> Region | None:
    """The conditions of rank variables that must all hold; parts that read a tensor are left out. None if it never holds."""
    return _conjunction(simplify(condition, scalars))


def _conjunction(expr: Expr) -> Region | None:
    match expr:
        case Number(value=value):
            return EVERYWHERE if value else None
        case Map(op="and", args=(a, b)):
            left, right = _conjunction(a), _conjunction(b)
            return None if left is None or right is None else left | right
        case _ if any(isinstance(node, Access) for node in walk(expr)):
            return EVERYWHERE
        case _:
            return frozenset((expr,))


_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def simplify(expr: Expr, scalars: Mapping[str, int | float]) -> Expr:
    """A condition with known scalars put in, negations pushed inwards and constants folded."""
    match expr:
        case Scalar(name=name) if name in scalars:
            return _literal(scalars[name])
        case Map(op="not", args=(inner,)):
            return _negated(simplify(inner, scalars))
        case Map(op="and" | "or" as op, args=(a, b)):
            return _joined(op, simplify(a, scalars), simplify(b, scalars))
        case Map(op=op, args=args):
            new = rebuild(expr, tuple(simplify(arg, scalars) for arg in args))
            value = _value(new, {}) if op in COMPARISONS or op not in LOGICAL else None
            if value is None or value != value or math.isinf(value):
                return new
            return _literal(int(value) if value.is_integer() else value)
        case _:
            return expr


def _literal(value: int | float) -> Expr:
    return Number(value) if value >= 0 else Map("neg", (Number(-value),))


def _joined(op: str, a: Expr, b: Expr) -> Expr:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Number):
            return other if bool(one.value) == (op == "and") else one
    return Map(op, (a, b))


def _negated(expr: Expr) -> Expr:
    match expr:
        case Number(value=value):
            return Number(0 if value else 1)
        case Map(op="and" | "or" as op, args=(a, b)):
            return _joined("or" if op == "and" else "and", _negated(a), _negated(b))
        case Map(op="not", args=(inner,)):
            return inner
        case Map(op=op, args=args) if op in _OPPOSITE:
            return Map(_OPPOSITE[op], args)
        case _:
            return Map("not", (expr,))
