"""Operations: what an Einsum asks of functional units, per point of which ranks.

In: a flat Einsum. Out: `Work` items such as `mac` per point of (p, m, e). Counting rules:

* a product summed is one `mac` a point; a product added to something is a `mac` too;
* scalar factors of a summed product are applied once to the sum; scalars combine among themselves for nothing;
* a sub-expression is computed once per point of the ranks it depends on, not once per point of the Einsum;
* a mask (`where` with a condition on coordinates alone and one constant branch) and index arithmetic are control: free;
* a sign is free. `min`, comparisons, `relu`, `abs` and the like are done by the `max` unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..einsum.cascade import COMPARISONS, LOGICAL, Access, Coord, Einsum, Expr, Map, Number, Reduce, Scan, Select, free_ranks, walk
from ..einsum.sizes import evaluate_scalar

_SAME_UNIT = {
    "+": "add", "-": "add", "*": "multiply", "/": "divide", "min": "max", "max": "max", "relu": "max", "abs": "max", "sign": "max",
    "//": "floordiv", "%": "mod", "**": "pow", "where": "where",
} | dict.fromkeys(COMPARISONS | LOGICAL, "max")  # fmt: skip
_REDUCING = {
    "sum": "add", "mean": "add", "prod": "multiply", "max": "max", "min": "max", "any": "max", "all": "max", "argmax": "max",
    "argmin": "max", "cumsum": "add", "cumprod": "multiply", "cummax": "max",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """One operation per point of `ranks`; `after`: only once the Einsum's reduction is complete."""

    operation: str
    ranks: frozenset[str]
    after: bool = False


def work(einsum: Einsum, scalars: Mapping[str, int | float]) -> tuple[Work, ...]:
    """The operations of one flat Einsum; a scalar factor that is 1 costs nothing."""
    body = einsum.body
    outside = frozenset().union(*(free_ranks(index) for index in einsum.indices))
    if isinstance(body, Reduce):
        return _reduction(body, outside, scalars)
    if isinstance(body, Scan):
        return (*_expression(body.body), Work(_REDUCING[body.op], outside))
    if isinstance(body, Select):
        return (*_expression(body.body), Work(body.op, free_ranks(body.body) | {body.rank}))
    return _expression(body)


def _reduction(body: Reduce, outside: frozenset[str], values: Mapping[str, int | float]) -> tuple[Work, ...]:
    space = outside | frozenset(body.ranks)
    inner = unmasked(body.body)
    if body.op in ("sum", "mean"):
        scalars, factors = _factors(inner)
        scale = math.prod(evaluate_scalar(factor, values) for factor in scalars)
        after = (Work("multiply", outside, after=True),) if scale != 1 or body.op == "mean" else ()
        parts = tuple(item for factor in factors for item in _expression(factor))
        products = tuple(Work("multiply", space) for _ in factors[2:])
        return (*parts, *products, Work("mac" if len(factors) > 1 else "add", space), *after)
    return (*_expression(inner), Work(_REDUCING[body.op], space))


def unmasked(expr: Expr) -> Expr:
    """What a mask lets through: `x` of `where(condition on coordinates, x, constant)`; anything else as it is."""
    if isinstance(expr, Map) and expr.op == "where" and not is_data(expr.args[0]):
        yes, no = expr.args[1:]
        if is_constant(no):
            return unmasked(yes)
        if is_constant(yes):
            return unmasked(no)
    return expr


def is_data(expr: Expr) -> bool:
    """Whether it reads a tensor."""
    return any(isinstance(node, Access) for node in walk(expr))


def is_constant(expr: Expr) -> bool:
    """Whether it is made of numbers and parameters alone."""
    return not any(isinstance(node, Access | Coord) for node in walk(expr))


def _factors(expr: Expr) -> tuple[list[Expr], list[Expr]]:
    """A product as its scalar factors and the others."""
    match expr:
        case Map(op="*", args=(a, b)):
            scalars_a, factors_a = _factors(a)
            scalars_b, factors_b = _factors(b)
            return scalars_a + scalars_b, factors_a + factors_b
        case Map(op="neg", args=(a,)):
            return _factors(a)
        case Map(op="/", args=(a, b)) if is_constant(b):
            scalars, factors = _factors(a)
            return [*scalars, Map("/", (Number(1.0), b))], factors
    return ([expr], []) if is_constant(expr) else ([], [expr])


def _expression(expr: Expr) -> tuple[Work, ...]:
    expr = unmasked(expr)
    if not isinstance(expr, Map) or is_constant(expr):
        return ()
    ranks = free_ranks(expr)
    if expr.op == "neg":
        return _expression(expr.args[0])
    args = expr.args
    if expr.op == "where" and not is_data(args[0]):
        parts = tuple(item for arg in args[1:] for item in _expression(arg))
        return (*parts, Work("where", ranks))
    parts = tuple(item for arg in args for item in _expression(arg))
    if expr.op == "clamp":
        return (*parts, Work("max", ranks), Work("max", ranks))
    if expr.op == "**" and args[1] == Number(2):
        return (*parts, Work("multiply", ranks))
    if expr.op == "/" and is_constant(args[1]):
        return (*parts, Work("multiply", ranks))
    if expr.op in "+-":
        return _added(parts, expr)
    return (*parts, Work(_SAME_UNIT.get(expr.op, expr.op), ranks))


def _added(parts: tuple[Work, ...], expr: Map) -> tuple[Work, ...]:
    """A sum; with a product over the same ranks as one of its terms it is a multiply-accumulate."""
    ranks = free_ranks(expr)
    product = Work("multiply", ranks)
    if product in parts and any(_is_product(arg) and free_ranks(arg) == ranks for arg in expr.args):
        position = parts.index(product)
        return (*parts[:position], *parts[position + 1 :], Work("mac", ranks))
    return (*parts, Work("add", ranks))


def _is_product(expr: Expr) -> bool:
    return isinstance(expr, Map) and is_data(expr) and (expr.op == "*" or (expr.op == "**" and expr.args[1] == Number(2)))
