"""Which scalars of a cascade are whole numbers, by the operations that they are made of, and which of them must be 1 or more."""

from __future__ import annotations

from ..einsum.cascade import Access, Cascade, Expr, Map, Number, Scalar, walk

WHOLE_OPS = frozenset({"+", "-", "*", "//", "%", "neg", "min", "max", "clamp", "abs"})
"""Operations that give whole numbers of whole numbers."""
COUNTED = frozenset({"//", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "not"})
"""Operations that may count on whole operands."""


def whole_scalars(cascade: Cascade) -> frozenset[str]:
    """Scalars that are whole numbers: extents, counts, and parameters defined by whole operations on such, if they count something.
    A cap of 20 on scores may as well be 20.5."""
    names = {*cascade.symbols, *cascade.counts}
    counting = _counting(cascade)

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
        if whole(value) and name in counting:
            names.add(name)
    return frozenset(names)


def _counting(cascade: Cascade) -> set[str]:
    """Scalars in indices, extents, conditions, whole quotients, exponents, Einsums of whole numbers, and what they are made of."""
    places: list[Expr] = [*(rank.extent for rank in cascade.ranks), *(rank.split.tile for rank in cascade.ranks if rank.split)]
    for einsum in cascade.einsums:
        places += einsum.indices
        if cascade.tensor(einsum.output).dtype != "float":
            places.append(einsum.body)
        for node in walk(einsum.body):
            if isinstance(node, Access):
                places += node.indices
            elif isinstance(node, Map) and node.op in COUNTED:
                places += node.args
            elif isinstance(node, Map) and node.op in ("where", "**"):
                places.append(node.args[node.op == "**"])
    found = {node.name for place in places for node in walk(place) if isinstance(node, Scalar)}
    for name, value in reversed(cascade.params):
        if name in found:
            found |= {node.name for node in walk(value) if isinstance(node, Scalar)}
    return found


def counted_by(cascade: Cascade) -> tuple[str, ...]:
    """Parameters that extents are divided by, as a dilation is: 1 or more wherever the cascade has values."""
    params = {name for name, _ in cascade.params}
    nodes = (node for rank in cascade.ranks for node in walk(rank.extent))
    divisors = (node.args[1] for node in nodes if isinstance(node, Map) and node.op in ("/", "//"))
    return tuple(dict.fromkeys(d.name for d in divisors if isinstance(d, Scalar) and d.name in params))
