"""Which scalars of a cascade are whole numbers, by the operations that they are made of, and which of them must be 1 or more."""

from __future__ import annotations

from ..einsum.cascade import Cascade, Expr, Map, Number, Scalar, walk

WHOLE_OPS = frozenset({"+", "-", "*", "//", "%", "neg", "min", "max", "clamp", "abs"})
"""Operations that give whole numbers of whole numbers."""


def whole_scalars(cascade: Cascade) -> frozenset[str]:
    """Scalars that are whole numbers: extents, counts, and parameters defined by whole operations on such."""
    names = {*cascade.symbols, *cascade.counts}

    def whole(expr: Expr) -> bool:
        match expr:
            case Number(value=value):
                return isinstance(value, int)
            case Scalar(name=name):
                return name in names
            case Map(op=op, args=args):
                return op in WHOLE_OPS and all(whole(arg) for arg in args)
            case _:
                return False

    for name, value in cascade.params:
        if whole(value):
            names.add(name)
    return frozenset(names)


def counted_by(cascade: Cascade) -> tuple[str, ...]:
    """Parameters that extents are divided by, as a dilation is: 1 or more wherever the cascade has values."""
    params = {name for name, _ in cascade.params}
    nodes = (node for rank in cascade.ranks for node in walk(rank.extent))
    divisors = (node.args[1] for node in nodes if isinstance(node, Map) and node.op in ("/", "//"))
    return tuple(dict.fromkeys(d.name for d in divisors if isinstance(d, Scalar) and d.name in params))
