"""exp as exp2: log2(e) folded into a scale that is there anyway.

In: a program. Out: the same program in which `exp(a - b)` is `exp2(a - b)` wherever all that flows into `a` and `b` comes,
through maxima, minima, masks and copies, from products with a parameter, and flows nowhere else within loops; there the parameter
is multiplied by log2(e) once. What a loop leaves for each row, as a maximum that is an output or is merged with those of other
parts, is divided by it again after the loop:

    QK = sum[e](Q * K * scale);  RM = max(RM, max[m0](QK));  exp(QK - RM)
    QK = sum[e](Q * K * (scale * 1.4427));  RM = max(RM, max[m0](QK));  exp2(QK - RM)

The hardware has exp2 only; without this, each exp costs one multiplication more.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..einsum.cascade import Access, Einsum, Expr, Map, Number, Reduce, Scalar, children, rebuild, transform, walk
from ..mapper.program import Loop, Program, Straight

LOG2E = Number(math.log2(math.e))
LN2 = Number(math.log(2.0))
INFINITE = frozenset({Number(float("inf")), Map("neg", (Number(float("inf")),)), Number(0)})
"""Values that stay the same when multiplied by a positive number."""


def fold(program: Program) -> Program:
    """The program with exp2 where the factor can be folded; the same object if nowhere."""
    outside = frozenset(id(e) for phase in program.phases if isinstance(phase, Straight) for e in phase.einsums)
    group = _group(program, outside)
    if not group:
        return program

    def rewritten(einsum: Einsum) -> Einsum:
        if einsum.output not in group and id(einsum) in outside:
            return replace(einsum, body=_unscaled(einsum.body, group))
        body = transform(
            einsum.body, lambda e: Map("exp2", e.args) if isinstance(e, Map) and e.op == "exp" and _operands(e) <= group else e
        )
        if einsum.output in group:
            body = _scaled(body, group)
        return replace(einsum, body=body)

    done = {id(e): rewritten(e) for e in program.cascade.einsums}
    by_place = {(e.output, e.indices): done[id(e)] for e in program.cascade.einsums}

    def moved(einsums: tuple[Einsum, ...]) -> tuple[Einsum, ...]:
        return tuple(by_place[(e.output, e.indices)] for e in einsums)

    phases = tuple(
        replace(p, initial=moved(p.initial), body=moved(p.body)) if isinstance(p, Loop) else Straight(moved(p.einsums))
        for p in program.phases
    )
    cascade = replace(program.cascade, einsums=tuple(done[id(e)] for e in program.cascade.einsums))
    return replace(program, cascade=cascade, phases=phases)


def _operands(exp: Map) -> frozenset[str]:
    """Tensors whose difference (or value) an exponential is taken of; a name that no tensor has where it is anything else."""
    inside = exp.args[0]
    parts = inside.args if isinstance(inside, Map) and inside.op == "-" else (inside,)
    return frozenset(part.tensor if isinstance(part, Access) else "?" for part in parts)


def _group(program: Program, outside: frozenset[int]) -> frozenset[str]:
    """Tensors that may all be multiplied by log2(e): the greatest set closed under what defines and what reads them in loops."""
    einsums = program.cascade.einsums
    group = {
        name
        for e in einsums
        for node in walk(e.body)
        if isinstance(node, Map) and node.op == "exp"
        for name in _operands(node)
        if name != "?"
    }
    changed = True
    while changed:  # what defines a member through maxima and copies belongs to the group
        before = len(group)
        for e in einsums:
            if e.output in group:
                group |= _sources(e.body)
        changed = len(group) != before
    group -= {t.name for t in program.cascade.inputs} | set(program.stores)
    changed = True
    while changed:
        out = {e.output for e in einsums if e.output in group and not _scalable(e.body, group)}
        for e in einsums:
            rows = {name for name in group if id(e) in outside and _narrow(program, name)}
            out |= _misused(e, group) - rows
        group -= out
        changed = bool(out)
    return frozenset(group)


def _sources(expr: Expr) -> set[str]:
    """Tensors that a value is copied from, through maxima, minima and masks."""
    match expr:
        case Access(tensor=name):
            return {name}
        case Map(op="max" | "min", args=args) | Map(op="where", args=(_, *args)):
            return {name for arg in args for name in _sources(arg)}
        case Reduce(op="max" | "min", body=body):
            return _sources(body)
        case _:
            return set()


def _scalable(expr: Expr, group: set[str]) -> bool:
    """Can the value be multiplied by a positive number at no cost?"""
    if expr in INFINITE:
        return True
    match expr:
        case Access(tensor=name):
            return name in group
        case Map(op="max" | "min", args=args) | Map(op="where", args=(_, *args)):
            return all(_scalable(arg, group) for arg in args)
        case Reduce(op="max" | "min", body=body):
            return _scalable(body, group)
        case Reduce(op="sum", body=Map(op="where", args=(_, yes, no))):  # some points are left out of the sum
            return no == Number(0) and _parameter(yes) is not None
        case Reduce(op="sum", body=body) | body:
            return _parameter(body) is not None
    return False


def _parameter(expr: Expr) -> Scalar | None:
    """A parameter that is a factor of a product."""
    match expr:
        case Scalar():
            return expr
        case Map(op="*", args=(a, b)):
            return _parameter(b) or _parameter(a)
        case _:
            return None


def _narrow(program: Program, name: str) -> bool:
    """Has a tensor a number for each row at most, so that dividing it again costs nothing?"""
    return len(set(program.cascade.tensor(name).ranks) & set(program.axes)) < 2


def _unscaled(expr: Expr, group: frozenset[str]) -> Expr:
    """The value with exp2, and members of the group divided again where they are read otherwise than in an exponential."""
    if isinstance(expr, Map) and expr.op == "exp" and _operands(expr) <= group:
        return Map("exp2", expr.args)
    if isinstance(expr, Access):
        return Map("*", (expr, LN2)) if expr.tensor in group else expr
    parts = children(expr)
    return rebuild(expr, tuple(_unscaled(part, group) for part in parts)) if parts else expr


def _misused(einsum: Einsum, group: set[str]) -> set[str]:
    """Members of the group that an Einsum reads otherwise than in an exponential or to define another member."""
    allowed: set[int] = set()
    for node in walk(einsum.body):
        if isinstance(node, Map) and node.op == "exp" and _operands(node) <= group:
            inside = node.args[0]
            allowed |= {id(part) for part in (inside.args if isinstance(inside, Map) and inside.op == "-" else (inside,))}
    if einsum.output in group:
        allowed |= _copies(einsum.body)
    return {
        node.tensor for node in walk(einsum.body) if isinstance(node, Access) and node.tensor in group and id(node) not in allowed
    }


def _copies(expr: Expr) -> set[int]:
    match expr:
        case Access():
            return {id(expr)}
        case Map(op="max" | "min", args=args) | Map(op="where", args=(_, *args)):
            return {place for arg in args for place in _copies(arg)}
        case Reduce(op="max" | "min", body=body):
            return _copies(body)
        case _:
            return set()


def _scaled(expr: Expr, group: frozenset[str]) -> Expr:
    """The value times log2(e): at the parameter of a product, nowhere in copies."""
    if expr in INFINITE or isinstance(expr, Access):
        return expr
    match expr:
        case Map(op="max" | "min", args=args):
            return rebuild(expr, tuple(_scaled(arg, group) for arg in args))
        case Map(op="where", args=(condition, yes, no)):
            return rebuild(expr, (condition, _scaled(yes, group), _scaled(no, group)))
        case Reduce(body=body):
            return rebuild(expr, (_scaled(body, group),))
        case Scalar():
            return Map("*", (expr, LOG2E))
        case Map(op="*", args=(a, b)):
            return Map("*", (a, _scaled(b, group))) if _parameter(b) is not None else Map("*", (_scaled(a, group), b))
        case _:
            return expr
