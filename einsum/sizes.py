"""Sizes: numbers for the symbols of a cascade.

In: a cascade, sizes and parameter values as the user gave them. Out: a `Sizes`: every scalar (extent symbols, counts of splits,
parameters) and every rank's extent as a number. Errors (`SpecError`): a missing or unknown size, a negative or absurd one.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .cascade import Cascade, Expr, Map, Number, Scalar, walk
from .diagnostics import Diagnostic, SpecError

MAX_EXTENT = 2**48
"""Greatest extent of a rank, elements: beyond it, products of a few extents leave exact 64-bit arithmetic."""


@dataclass(frozen=True)
class Sizes:
    """`scalars`: value of each symbol, count and parameter. `extents`: number of positions of each rank."""

    scalars: Mapping[str, int | float]
    extents: Mapping[str, int]


def bind(cascade: Cascade, sizes: Mapping[str, int] | None = None, params: Mapping[str, int | float] | None = None) -> Sizes:
    """Numbers for all scalars: those given, else the ones in the spec. Raises SpecError (E301 to E306, E314)."""
    sizes, params = dict(sizes or {}), dict(params or {})
    problems: list[Diagnostic] = []
    known = set(cascade.symbols)
    for name in sizes:
        if name not in known:
            problems.append(_unknown("size", name, known, "E301"))
    parameter_names = {name for name, _ in cascade.params}
    for name in params:
        if name not in parameter_names:
            problems.append(_unknown("parameter", name, parameter_names, "E302"))
    for name, formula in cascade.params:
        if name in params and _shapes(cascade, name, formula, known):
            help_text = f"it follows from the sizes: `{name}` = {_shown(formula)}; other sizes give it another value"
            problems.append(Diagnostic("E314", f"the extents depend on `{name}`, which cannot be set", help=help_text))
    values: dict[str, int | float] = {**dict(cascade.sizes), **sizes}
    missing = [name for name in cascade.symbols if name not in values]
    if missing:
        listing = ", ".join(f"`{name}`" for name in missing)
        example = ",".join(f"{name}=64" for name in missing)
        problems.append(Diagnostic("E303", f"no size for {listing}", help=f"give it with `--size {example}` or under `sizes:`"))
    for name, value in values.items():
        if name in known and not (isinstance(value, int) and 0 <= value <= MAX_EXTENT):
            problems.append(Diagnostic("E304", f"size of `{name}` is {value}, not a whole number from 0 to 2**48"))
    if problems:
        raise SpecError(problems)
    _define(cascade, values, params)
    extents: dict[str, int] = {}
    for rank in cascade.ranks:
        value = _number(rank.extent, values, f"extent of rank `{rank.name}`", cascade)
        if not (float(value).is_integer() and 0 <= value <= MAX_EXTENT):
            raise SpecError(
                Diagnostic("E305", f"extent of rank `{rank.name}` is {value}, not a whole number from 0 to 2**48", rank.span)
            )
        extents[rank.name] = int(value)
    return Sizes(values, extents)


def _shapes(cascade: Cascade, name: str, formula: Expr, symbols: set[str]) -> bool:
    """Is this a length that is worked out from sizes: of a part, say, of which there are so many that they cover a rank?"""
    extents = [expr for rank in cascade.ranks for expr in (rank.extent, *((rank.split.tile,) if rank.split else ()))]
    used = any(isinstance(node, Scalar) and node.name == name for expr in extents for node in walk(expr))
    return used and any(isinstance(node, Scalar) and node.name in symbols for node in walk(formula))


def _shown(expr: Expr) -> str:
    from .printer import print_expr

    return print_expr(expr)


def given(cascade: Cascade, sizes: Mapping[str, int] | None = None, params: Mapping[str, int | float] | None = None) -> Cascade:
    """The cascade with these sizes and parameters as its own. Unlike `bind` it asks for no others.

    Raises SpecError (E301, E302, E304).
    """
    if not sizes and not params:
        return cascade
    own, fixed = {**dict(cascade.sizes), **(sizes or {})}, params or {}
    bind(cascade, {**{name: 1 for name in cascade.symbols if name not in own}, **own}, fixed)
    declared = tuple((name, Number(fixed[name]) if name in fixed else expr) for name, expr in cascade.params)
    return replace(cascade, sizes=tuple(own.items()), params=declared)


def _define(cascade: Cascade, values: dict[str, int | float], params: Mapping[str, int | float]) -> None:
    """Add the values of parameters and counts, which may need one another in any order."""
    waiting = {name: expr for name, expr in (*cascade.params, *cascade.counts.items()) if name not in params}
    needs = {name: [n.name for n in walk(expr) if isinstance(n, Scalar) and n.name in waiting] for name, expr in waiting.items()}
    values.update(params)
    try:
        for name in TopologicalSorter(needs).static_order():
            values[name] = _number(waiting[name], values, f"`{name}`", cascade)
    except CycleError as error:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(error.args[1]))
        raise SpecError(Diagnostic("E306", f"{names} need one another's values")) from None


def _unknown(what: str, name: str, known: set[str], code: str) -> Diagnostic:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean `{close[0]}`?" if close else f"the cascade has {', '.join(f'`{n}`' for n in sorted(known)) or 'none'}"
    return Diagnostic(code, f"unknown {what} `{name}`", help=hint)


_SCALAR_OPS: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a if a == b == -math.inf else a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: _divide(a, b), "//": lambda a, b: a // b, "%": lambda a, b: a % b, "**": lambda a, b: _power(a, b),
    "neg": lambda a: -a, "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil,
    "sqrt": math.sqrt, "rsqrt": lambda a: 1 / math.sqrt(a), "exp": math.exp, "exp2": lambda a: 2.0**a, "log": math.log,
    "log2": math.log2, "round": round, "sin": math.sin, "cos": math.cos, "tanh": math.tanh, "erf": math.erf,
    "clamp": lambda a, lo, hi: min(max(a, lo), hi), "sign": lambda a: (a > 0) - (a < 0),
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "not": lambda a: not a,
    "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b),
    "relu": lambda a: max(a, 0), "sigmoid": lambda a: _sigmoid(a), "silu": lambda a: a * _sigmoid(a),
    "softplus": lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))), "gelu": lambda a: 0.5 * a * math.erfc(-a / math.sqrt(2.0)),
}  # fmt: skip


def _divide(a: int | float, b: int | float) -> int | float:
    """a/b, where 0/0 is 0; whole where it comes out whole."""
    if a == b == 0:
        return 0
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b


def _sigmoid(a: int | float) -> float:
    small = math.exp(-abs(a))
    return (1.0 if a >= 0 else small) / (1.0 + small)


def _power(a: int | float, b: int | float) -> int | float:
    """a**b, without numbers of a million digits and without complex ones."""
    if isinstance(a, int) and isinstance(b, int) and b > 1 and a.bit_length() * b > 4096:
        raise OverflowError(f"{a}**{b} is too large")
    if a < 0 and not float(b).is_integer():
        raise ValueError(f"({a})**{b} is not a real number")
    result: int | float = a**b
    return result


def evaluate_scalar(expr: Expr, values: Mapping[str, int | float]) -> int | float:
    """Value of an expression of scalars alone. Raises KeyError, ArithmeticError or ValueError where it has none."""
    match expr:
        case Number(value=value):
            return value
        case Scalar(name=name):
            return values[name]
        case Map(op="ceil", args=(Map(op="/", args=(a, b)),)):
            return -(-evaluate_scalar(a, values) // evaluate_scalar(b, values))
        case Map(op="where", args=(condition, x, y)):
            return evaluate_scalar(x if evaluate_scalar(condition, values) else y, values)
        case Map(op=op, args=args):
            result: int | float = _SCALAR_OPS[op](*(evaluate_scalar(arg, values) for arg in args))
            return result
        case _:
            raise ValueError(f"not a scalar expression: {type(expr).__name__}")


def _number(expr: Expr, values: Mapping[str, int | float], what: str, cascade: Cascade) -> int | float:
    try:
        value = evaluate_scalar(expr, values)
        if value != value:
            raise ValueError("not a number")
        return value
    except (ArithmeticError, ValueError, KeyError) as error:
        raise SpecError(Diagnostic("E306", f"{what} has no value: {error}", getattr(expr, "span", None))) from None
