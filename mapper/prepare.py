"""What no kernel can follow as it is written, written in another way: exact rewrites before a cascade is planned.

In: a cascade as the user wrote it. Out: the same function, without scatters and without running states that are read against the
direction in which they run.

A scatter becomes a reduction over what may fall at each place. Program instances own what they write, so nothing is added
atomically and results do not depend on the order of instances; the price is a comparison for each pair of a place and a source.

    Y[p,f] = sum[c,j](X[c,j,f]) at p = I[c,j]        Y[p,f] = sum[c,j](where(I[c,j] == p, X[c,j,f], 0))

A term that reads a state backwards is computed in the order of the state, then read from the other end.

    Y[m] = sum[e](Q[m,e] * (A[m+1,e] + B[M-m,e]))    T[m] = sum[e](Q[M-1-m,e] * B[m+1,e])
                                                     Y[m] = sum[e](Q[m,e] * A[m+1,e]) + T[M-1-m]
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..einsum.cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Tensor,
    accesses,
    free_ranks,
    substitute,
    transform,
)
from ..einsum.flatten import IDENTITY, flatten
from .blocking import fresh

MOST_ADDENDS = 16
"""Products that a sum in a factor may be multiplied out to."""


def prepared(cascade: Cascade) -> Cascade:
    """The same function in a form that kernels can follow."""
    return reflected(gathered(cascade))


def gathered(cascade: Cascade) -> Cascade:
    """Reductions over what falls at each place, instead of scatters."""
    tensors = {tensor.name: tensor for tensor in cascade.tensors}
    einsums = []
    for einsum in cascade.einsums:
        body = einsum.body
        if tensors[einsum.output].kind != "scatter" or not isinstance(body, Reduce):
            einsums.append(einsum)
            continue
        target = tensors[einsum.output]
        inside = body.body
        for rank, index in zip(target.ranks, einsum.indices, strict=True):
            if index != Coord(rank):
                inside = Map("where", (Map("==", (index, Coord(rank))), inside, IDENTITY[body.op]))
        tensors[einsum.output] = replace(target, kind="einsum")
        own = tuple(Coord(rank) for rank in target.ranks)
        einsums.append(replace(einsum, indices=own, body=Reduce(body.op, body.ranks, inside)))
    return replace(cascade, tensors=tuple(tensors.values()), einsums=tuple(einsums))


def reflected(cascade: Cascade) -> Cascade:
    """Every state is read in the direction in which it runs, if it was read backwards."""
    if not any(_backwards(cascade, access) for einsum in cascade.einsums for access in accesses(einsum.body)):
        return cascade
    flat = flatten(cascade)
    tensors, einsums = list(flat.tensors), []
    for einsum in flat.einsums:
        known = replace(flat, tensors=tuple(tensors))
        terms = _by_direction(flat, einsum)
        if terms is None:
            einsums.append(einsum)
            continue
        parts: list[Expr] = []
        for rank, body in terms.items():
            if rank is not None and isinstance(body, Reduce) and rank in body.ranks:
                body = replace(body, body=turned(flat, body.body, rank))
            elif rank is not None:
                name = fresh(known, f"{einsum.output}_back")
                ranks = tuple(i.rank for i in einsum.indices if isinstance(i, Coord))
                tensor = Tensor(name, ranks, flat.tensor(einsum.output).dtype)
                tensors.insert(next(n for n, t in enumerate(tensors) if t.name == einsum.output), tensor)
                known = replace(known, tensors=(*known.tensors, tensor))
                einsums.append(replace(einsum, output=name, body=turned(flat, body, rank)))
                body = Access(name, tuple(turned(flat, i, rank) for i in einsum.indices))
            parts.append(body)
        whole = parts[0]
        for part in parts[1:]:
            whole = Map("+", (whole, part))
        einsums.append(replace(einsum, body=whole))
    return flatten(replace(flat, tensors=tuple(tensors), einsums=tuple(einsums)))


def turned(cascade: Cascade, expr: Expr, rank: str) -> Expr:
    """An expression with a rank counted from its other end."""
    extent = cascade.rank(rank).extent
    other = Map("-", (Map("-", (extent, Number(1))), Coord(rank)))
    return transform(substitute(expr, {rank: other}), lambda node: _tidy(node) if isinstance(node, Access) else node)


def _tidy(access: Access) -> Access:
    return replace(access, indices=tuple(collected(index) for index in access.indices))


def collected(expr: Expr) -> Expr:
    """A sum with equal terms taken together: `M - (M - 1 - m)` is `m + 1`."""
    counts: Counter[Expr] = Counter()
    constant = 0.0

    def collect(node: Expr, sign: int) -> None:
        nonlocal constant
        match node:
            case Number(value=value):
                constant += sign * value
            case Map(op="+" | "-" as op, args=(left, right)):
                collect(left, sign)
                collect(right, sign if op == "+" else -sign)
            case Map(op="neg", args=(inner,)):
                collect(inner, -sign)
            case _:
                counts[node] += sign

    collect(expr, 1)
    if any(abs(count) > 1 for count in counts.values()):
        return expr
    plus = [atom for atom, count in counts.items() if count > 0]
    minus = [atom for atom, count in counts.items() if count < 0]
    whole = int(constant) if constant == int(constant) else constant
    if not plus:
        plus, whole = [Number(whole)], 0
    total: Expr = plus[0]
    for atom in plus[1:]:
        total = Map("+", (total, atom))
    for atom in minus:
        total = Map("-", (total, atom))
    return Map("+" if whole > 0 else "-", (total, Number(abs(whole)))) if whole else total


def _backwards(cascade: Cascade, access: Access) -> str | None:
    """The rank of a state that is read at coordinates which fall where those of its own rank rise."""
    tensor = cascade.tensor(access.tensor)
    if tensor.kind != "state" or tensor.iterates is None:
        return None
    index = access.indices[tensor.ranks.index(tensor.iterates)]
    if index == Coord(tensor.iterates) or free_ranks(index) != {tensor.iterates}:
        return None
    rising = collected(Map("+", (index, Coord(tensor.iterates))))
    return tensor.iterates if tensor.iterates not in free_ranks(rising) else None


def _by_direction(cascade: Cascade, einsum: Einsum) -> dict[str | None, Expr] | None:
    """The addends of an Einsum by the rank along which they read states backwards; None if none does."""
    if not any(_backwards(cascade, access) for access in accesses(einsum.body)):
        return None
    body = einsum.body
    if isinstance(body, Reduce):
        addends = _addends(body.body) if body.op == "sum" else [body.body]
    else:
        addends = _addends(body)
    found: dict[str | None, Expr] = {}
    for addend in addends:
        ranks = {_backwards(cascade, access) for access in accesses(addend) if cascade.tensor(access.tensor).kind == "state"}
        key = next(iter(ranks)) if len(ranks) == 1 else None
        found[key] = Map("+", (found[key], addend)) if key in found else addend
    return {key: Reduce(body.op, body.ranks, part) if isinstance(body, Reduce) else part for key, part in found.items()}


def _addends(expr: Expr) -> list[Expr]:
    """An expression as a sum: products of sums are multiplied out."""
    match expr:
        case Map(op="+", args=(left, right)):
            return [*_addends(left), *_addends(right)]
        case Map(op="-", args=(left, right)):
            return [*_addends(left), *(Map("neg", (term,)) for term in _addends(right))]
        case Map(op="neg", args=(inner,)):
            return [Map("neg", (term,)) for term in _addends(inner)]
        case Map(op="*", args=(left, right)):
            pairs = [(a, b) for a in _addends(left) for b in _addends(right)]
            return [Map("*", pair) for pair in pairs] if len(pairs) <= MOST_ADDENDS else [expr]
        case Map(op="/", args=(left, right)):
            return [Map("/", (term, right)) for term in _addends(left)]
        case _:
            return [expr]
