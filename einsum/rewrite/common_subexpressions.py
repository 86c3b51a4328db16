"""Common sub-expressions: Einsums that compute the same values are computed once.

before    S1[p] = sum[m](X[p,m])
          S2[p] = sum[m](X[p,m])
          Y[p]  = S1[p] * S2[p]
after     S1[p] = sum[m](X[p,m])
          Y[p]  = S1[p] * S1[p]
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, transform
from .algebra import canonical
from .step import Rewritten, Step, reordered, shown

NAME = "common-subexpressions"


def common_subexpressions(cascade: Cascade) -> Rewritten | None:
    """Read equal Einsums from the first of them."""
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
    if not dropped:
        return None
    after = reordered(replace(cascade, einsums=tuple(kept)))
    same = ", ".join(f"`{old}` = `{new}`" for old, new in instead.items())
    step = Step(NAME, ", ".join(instead), shown(dropped, cascade), "equals for equals", f"the same expression: {same}", "")
    return Rewritten(after, step)
