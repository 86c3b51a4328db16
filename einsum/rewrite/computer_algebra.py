"""Separability where structure does not decide: random numbers refute it, sympy proves it.

In: the body f of a sum and its `Fiber`. `counterexample` looks for numbers with f(x,g) * f(x0,g0) != f(x,g0) * f(x0,g); if there
are some, f is no product a(x) * b(g), whatever form it is written in. `factored` asks sympy (imported only here, and only if no
counterexample was found) for a and b; it answers None if sympy does not find them or is not installed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..cascade import Access, Coord, Expr, Map, Number, Scalar, children
from ..sizes import evaluate_scalar
from .basis import Term
from .fiber import Fiber

TRIALS = 24
CLOSE = 1e-7
"""Relative difference below which two products count as equal in a trial."""


@dataclass(frozen=True)
class Leaves:
    """f as an expression of scalars: `x` move, `g` are complete, `c` neither; `back` says what each stands for."""

    skeleton: Expr
    x: tuple[str, ...]
    g: tuple[str, ...]
    c: tuple[str, ...]
    back: Mapping[str, Expr]


def leaves(expr: Expr, fiber: Fiber) -> Leaves | None:
    """The scalars of f, definitions opened; None if something mixed cannot be opened."""
    names: dict[Expr, str] = {}

    def replaced(node: Expr) -> Expr | None:
        if isinstance(node, Map):
            args = [replaced(arg) for arg in node.args]
            return None if None in args else Map(node.op, tuple(arg for arg in args if arg is not None))
        if isinstance(node, Number):
            return node
        if not isinstance(node, Access | Coord | Scalar) or fiber.mixed(node):
            return None
        kind = "g" if fiber.complete(node) else "x" if fiber.moves(node) else "c"
        return Scalar(names.setdefault(node, f"{kind}{len(names)}"))

    skeleton = replaced(fiber.look_through(expr))
    if skeleton is None:
        return None
    by_kind = {kind: tuple(name for name in names.values() if name[0] == kind) for kind in "xgc"}
    return Leaves(skeleton, by_kind["x"], by_kind["g"], by_kind["c"], {name: node for node, name in names.items()})


_MORE: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)), "softplus": lambda v: math.log1p(math.exp(v)), "relu": lambda v: max(v, 0.0),
    "silu": lambda v: v / (1 + math.exp(-v)), "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
}  # fmt: skip


def _value(expr: Expr, values: Mapping[str, float]) -> float:
    if isinstance(expr, Map) and expr.op in _MORE:
        return float(_MORE[expr.op](_value(expr.args[0], values)))
    if isinstance(expr, Map) and any(isinstance(arg, Map) for arg in expr.args):
        return _value(Map(expr.op, tuple(Number(_value(arg, values)) for arg in expr.args)), values)
    return float(evaluate_scalar(expr, values))


def counterexample(expr: Expr, fiber: Fiber) -> str | None:
    """Numbers that show f to be no product of a part of x and a part of g, in words; None if none were found."""
    found = leaves(expr, fiber)
    if found is None or not found.g or not found.x:
        return None
    rng = random.Random(0)
    for trial in range(TRIALS):
        low = -2.0 if trial % 2 else 0.1

        def drawn(names: tuple[str, ...], low: float = low) -> dict[str, float]:
            return {name: round(rng.uniform(low, 2.0), 2) for name in names}

        x, x0, g, g0, c = drawn(found.x), drawn(found.x), drawn(found.g), drawn(found.g), drawn(found.c)
        try:
            left = _value(found.skeleton, {**x, **g, **c}) * _value(found.skeleton, {**x0, **g0, **c})
            right = _value(found.skeleton, {**x, **g0, **c}) * _value(found.skeleton, {**x0, **g, **c})
        except (ArithmeticError, ValueError):
            continue
        if math.isfinite(left) and math.isfinite(right) and abs(left - right) > CLOSE * max(1.0, abs(left), abs(right)):
            return f"f(x,g)*f(x0,g0) = {left:.4g} but f(x,g0)*f(x0,g) = {right:.4g} at {_shown(found, x, x0, g, g0)}"
    return None


def _shown(found: Leaves, x: dict[str, float], x0: dict[str, float], g: dict[str, float], g0: dict[str, float]) -> str:
    from .step import text

    pairs = [(name, x[name], x0[name]) for name in found.x] + [(name, g[name], g0[name]) for name in found.g]
    return ", ".join(f"{text(found.back[name])} = {one:g} and {other:g}" for name, one, other in pairs)


def factored(expr: Expr, fiber: Fiber) -> Term | None:
    """f = a(x) * b(g) as sympy factors it; None if it does not."""
    found = leaves(expr, fiber)
    if found is None or not found.g or not found.x:
        return None
    try:
        import sympy
    except ImportError:
        return None
    symbols = {name: sympy.Symbol(name, real=True) for name in (*found.x, *found.g, *found.c)}
    try:
        whole = sympy.factor(sympy.powsimp(sympy.expand(_to_sympy(found.skeleton, symbols, sympy))))
        moving, complete = sympy.Integer(1), sympy.Integer(1)
        for part in sympy.Mul.make_args(whole):
            names = {symbol.name[0] for symbol in part.free_symbols}
            if {"x", "g"} <= names:
                return None
            if "g" in names:
                complete *= part
            else:
                moving *= part
        if complete == 1:
            return None
        return Term(_from_sympy(moving, found, sympy), (_from_sympy(complete, found, sympy),))
    except _Foreign:
        return None


class _Foreign(Exception):
    """An operation that is not carried over."""


def _to_sympy(expr: Expr, symbols: dict[str, Any], sympy: Any) -> Any:
    args = [_to_sympy(part, symbols, sympy) for part in children(expr)]
    match expr:
        case Number(value=value):
            return sympy.nsimplify(value) if math.isfinite(value) else _refuse()
        case Scalar(name=name):
            return symbols[name]
        case Map(op="+"):
            return args[0] + args[1]
        case Map(op="-"):
            return args[0] - args[1]
        case Map(op="*"):
            return args[0] * args[1]
        case Map(op="/"):
            return args[0] / args[1]
        case Map(op="**"):
            return args[0] ** args[1]
        case Map(op="neg"):
            return -args[0]
        case Map(op="rsqrt"):
            return 1 / sympy.sqrt(args[0])
        case Map(op="exp" | "log" | "sqrt" | "sin" | "cos" | "tanh" as op):
            return getattr(sympy, op)(args[0])
        case Map(op="exp2"):
            return sympy.Integer(2) ** args[0]
        case _:
            return _refuse()


def _refuse() -> Any:
    raise _Foreign


def _from_sympy(value: Any, found: Leaves, sympy: Any) -> Expr:
    from .algebra import ONE, add, divide, multiply, negate

    def of(part: Any) -> Expr:
        return _from_sympy(part, found, sympy)

    if value.is_Symbol:
        return found.back[value.name]
    if value.is_Integer:
        return Number(int(value)) if value >= 0 else negate(Number(-int(value)))
    if value.is_Rational:
        return divide(of(sympy.Integer(value.p)), Number(int(value.q)))
    if value.is_Add or value.is_Mul:
        parts = [of(part) for part in value.args]
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part) if value.is_Add else multiply(total, part)
        return total
    if isinstance(value, sympy.exp):
        return Map("exp", (of(value.args[0]),))
    if value.is_Pow:
        base, exponent = value.args
        if exponent.is_Integer and exponent < 0:
            return divide(ONE, of(base**-exponent))
        return Map("**", (of(base), of(exponent)))
    for op in ("log", "sin", "cos", "tanh"):
        if isinstance(value, getattr(sympy, op)):
            return Map(op, (of(value.args[0]),))
    raise _Foreign
