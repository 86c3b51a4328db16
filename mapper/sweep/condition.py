"""Filters of a sweep file: conditions on what a point sets, worked out for all points at once.

    arch.array2d.side >= 128 and size.P <= 64 * arch.array2d.side

In: the text, a table. Out: an array of truths. Names are those of the columns; numbers, texts in quotes, `+ - * / // %`,
comparisons,
`and or not`, brackets. Nothing else is evaluated.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .space import Table

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq:
    operator.ne,
}  # fmt: skip


def holds(text: str, table: Table) -> NDArray[np.bool_]:
    """Whether the condition holds at each point. Raises ValueError, its text for the user."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("not a condition such as `arch.array2d.side >= 128`") from None
    with np.errstate(all="ignore"):
        try:
            found = np.asarray(_value(tree, table))
        except (TypeError, np.exceptions.DTypePromotionError, RecursionError):
            raise ValueError("compares numbers with texts") from None
    if found.dtype != np.bool_:
        raise ValueError("is a number, not a condition")
    return np.broadcast_to(found, table.count)


def _value(node: ast.expr, table: Table) -> Any:
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.Name() | ast.Attribute():
            name = ast.unparse(node)
            if name not in table.columns:
                raise ValueError(f"no point sets `{name}` (they set {', '.join(f'`{known}`' for known in table.columns)})")
            return table.columns[name].numbers()
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, table), _value(right, table))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, table)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return ~np.asarray(_value(inner, table), dtype=bool)
        case ast.BoolOp(op=op, values=values):
            parts = [np.broadcast_to(np.asarray(_value(value, table), dtype=bool), table.count) for value in values]
            return np.logical_and.reduce(parts) if isinstance(op, ast.And) else np.logical_or.reduce(parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(side, table) for side in (left, *others)]
            if len({np.asarray(side).dtype.kind in "US" for side in sides}) > 1:
                raise TypeError
            parts = [_COMPARE[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False) if type(op) in _COMPARE]
            if len(parts) == len(ops):
                return np.logical_and.reduce([np.broadcast_to(part, table.count) for part in parts])
    raise ValueError(f"`{ast.unparse(node)}` cannot stand in a condition")
