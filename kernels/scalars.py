"""Scalar expressions as Python text: what the host part of a generated module computes from the shapes it is given."""

from __future__ import annotations

from collections.abc import Callable

from ..einsum.cascade import COMPARISONS, Expr, Map, Number, Scalar
from ..einsum.diagnostics import Diagnostic, EinsmithError

_CALLS = {
    "exp": "math.exp", "log": "_log", "log2": "_log2", "sqrt": "math.sqrt", "sin": "math.sin", "cos": "math.cos",
    "tanh": "math.tanh", "erf": "math.erf", "floor": "math.floor", "ceil": "math.ceil", "abs": "abs", "round": "round",
    "min": "min", "max": "max",
}  # fmt: skip


def python(expr: Expr, spelled: Callable[[str], str]) -> str:
    """The expression as Python; `/` of whole numbers that divides evenly stays whole, as in the spec language."""
    match expr:
        case Number(value=value):
            return 'float("inf")' if value == float("inf") else repr(value)
        case Scalar(name=name):
            return spelled(name)
        case Map(op="ceil", args=(Map(op="/", args=(a, b)),)):
            return f"-(-{_inside(a, spelled)} // {_inside(b, spelled)})"
        case Map(op="/", args=(Number(value=1), b)):
            return f"1 / {_inside(b, spelled)}"
        case Map(op="/", args=(a, b)):
            return f"_ratio({python(a, spelled)}, {python(b, spelled)})"
        case Map(op=op, args=(a, b)) if op in ("+", "-", "*", "//", "%", "**", "and", "or") or op in COMPARISONS:
            return f"{_inside(a, spelled)} {op} {_inside(b, spelled)}"
        case Map(op="neg", args=(a,)):
            return f"-{_inside(a, spelled)}"
        case Map(op="not", args=(a,)):
            return f"not {_inside(a, spelled)}"
        case Map(op="rsqrt", args=(a,)):
            return f"1 / math.sqrt({python(a, spelled)})"
        case Map(op="exp2", args=(a,)):
            return f"2.0 ** {_inside(a, spelled)}"
        case Map(op="where", args=(c, x, y)):
            return f"({python(x, spelled)} if {python(c, spelled)} else {python(y, spelled)})"
        case Map(op="clamp", args=(x, low, high)):
            return f"min(max({python(x, spelled)}, {python(low, spelled)}), {python(high, spelled)})"
        case Map(op=op, args=args) if op in _CALLS:
            return f"{_CALLS[op]}({', '.join(python(arg, spelled) for arg in args)})"
        case _:
            what = expr.op if isinstance(expr, Map) else type(expr).__name__
            raise EinsmithError(Diagnostic("E603", f"a kernel module cannot compute the scalar operation `{what}`"))


def _inside(expr: Expr, spelled: Callable[[str], str]) -> str:
    code = python(expr, spelled)
    plain = isinstance(expr, Number | Scalar) or (isinstance(expr, Map) and expr.op in _CALLS)
    return code if plain else f"({code})"
