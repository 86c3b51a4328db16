"""Common sub-expressions: Einsums that compute the same values are computed once.

before    S1[p] = sum[m](X[p,m])
          S2[p] = sum[m](X[p,m])
          Y[p]  = S1[p] * S2[p]
after     S1[p] = sum[m](X[p,m])
          Y[p]  = S1[p] * S1[p]

Running states with the same start and the same step are one state.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, transform
from .algebra import canonical
from .step import Rewritten, Step, reordered, shown

NAME = "common-subexpressions"


def common_subexpressions(cascade: Cascade) -> Rewritten | None:
    """Read equal Einsums, and equal states, from the first of them."""
    return _equal_einsums(cascade) or _equal_states(cascade)


def _equal_einsums(cascade: Cascade) -> Rewritten | None:
    first: dict[tuple[object, ...], str] = {}
    instead: dict[str, str] = {}
    kept: list[Einsum] = []

    def renamed(node: Expr) -> Expr:
        return replace(node, tensor=instead[node.tensor]) if isinstance(node, Access) and node.tensor in instead else node

    dropped: list[Einsum] = []
    for einsum in cascade.einsums:
        einsum = replace(einsum, body=transform(einsum.body, renamed), indices=tuple(transform(i, renamed) for i in einsum.indices))
        tensor = cascade.tensor(einsum.output)
        plain = tensor.kind == "einsum" and all(isinstance(index, Coord) for index in einsum.indices)
        key: tuple[object, ...] = (einsum.indices, tensor.dtype, canonical(einsum.body))
        if plain and key in first and einsum.output not in cascade.outputs:
            instead[einsum.output] = first[key]
            dropped.append(einsum)
            continue
        if plain:
            first.setdefault(key, einsum.output)
        kept.append(einsum)
    return _shared(cascade, kept, dropped, instead)


def _equal_states(cascade: Cascade) -> Rewritten | None:
    first: dict[tuple[object, ...], str] = {}
    instead: dict[str, str] = {}
    for tensor in cascade.tensors:
        if tensor.kind != "state":
            continue
        definitions = tuple(_as_own(einsum) for einsum in cascade.definitions(tensor.name))
        key = (tensor.ranks, tensor.dtype, tensor.iterates, definitions)
        if first.setdefault(key, tensor.name) != tensor.name and tensor.name not in cascade.outputs:
            instead[tensor.name] = first[key]

    def renamed(node: Expr) -> Expr:
        return replace(node, tensor=instead[node.tensor]) if isinstance(node, Access) and node.tensor in instead else node

    kept = [
        replace(einsum, body=transform(einsum.body, renamed), indices=tuple(transform(i, renamed) for i in einsum.indices))
        for einsum in cascade.einsums
        if einsum.output not in instead
    ]
    return _shared(cascade, kept, [einsum for einsum in cascade.einsums if einsum.output in instead], instead)


def _as_own(einsum: Einsum) -> tuple[object, ...]:
    """A definition with the state itself under no name."""

    def own(node: Expr) -> Expr:
        return replace(node, tensor="") if isinstance(node, Access) and node.tensor == einsum.output else node

    return einsum.indices, canonical(transform(einsum.body, own))


def _shared(cascade: Cascade, kept: list[Einsum], dropped: list[Einsum], instead: dict[str, str]) -> Rewritten | None:
    if not dropped:
        return None
    after = reordered(replace(cascade, einsums=tuple(kept)))
    same = ", ".join(f"`{old}` = `{new}`" for old, new in instead.items())
    step = Step(NAME, ", ".join(instead), shown(dropped, cascade), "equals for equals", f"the same expression: {same}", "")
    return Rewritten(after, step)
