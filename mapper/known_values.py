"""Constant propagation: what an operation gives where only some of its arguments are known.

In: an operation, its arguments: constants, values that stay the same, or unknown but finite ones. Out: its value, where that
follows.
"""

from __future__ import annotations

from ..einsum.cascade import Expr, Map, Number

INF = Number(float("inf"))
NEG_INF = Map("neg", (INF,))
ZERO, ONE = Number(0), Number(1)

Value = Expr | None
"""A known constant, `Access(state)` for its value before the step, an input that does not change, the greater of two of these, or
None: anything finite."""


def known_result(op: str, args: list[Value]) -> Value:
    """Value of an operation on known and unknown (finite) arguments."""
    match op, args:
        case "neg", [a]:
            return NEG_INF if a == INF else INF if a == NEG_INF else ZERO if a == ZERO else None
        case "+", [a, b]:
            if ZERO in (a, b):
                return b if a == ZERO else a
            return NEG_INF if NEG_INF in (a, b) and INF not in (a, b) else None
        case "-", [a, b]:
            if a == NEG_INF:
                return NEG_INF
            if b == ZERO:
                return a
            return ZERO if a is not None and a == b and a != INF else None
        case "*", [a, b]:
            if ONE in (a, b):
                return b if a == ONE else a
            infinite = a in (INF, NEG_INF) or b in (INF, NEG_INF)
            return ZERO if ZERO in (a, b) and not infinite else None
        case "/", [a, b]:
            if b == ONE:
                return a
            return ZERO if a == ZERO else None
        case "max", [a, b]:
            if a == b:
                return a
            if NEG_INF in (a, b):
                return b if a == NEG_INF else a
            return Map("max", (a, b)) if a is not None and b is not None else None
        case "min", [a, b]:
            if a == b:
                return a
            return b if a == INF else a if b == INF else None
        case "or", [a, b]:
            return b if a == ZERO else a if b == ZERO else None
        case "and", [a, b]:
            return b if a == ONE else a if b == ONE else None
        case (("exp" | "exp2"), [a]):
            return ZERO if a == NEG_INF else ONE if a == ZERO else None
        case (("sigmoid" | "softplus" | "relu"), [a]) if a == NEG_INF:
            return ZERO
        case (("relu" | "silu" | "gelu" | "tanh" | "abs" | "sqrt" | "sin" | "erf"), [a]) if a == ZERO:
            return ZERO
        case _:
            return None
