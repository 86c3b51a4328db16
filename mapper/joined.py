"""Ranks that are always reduced together, as one rank: a pair of axes becomes one side of a matrix product.

In: a cascade. Out: the same function with one rank in place of those that no Einsum parts.

    QK[p,u,v] = sum[e](Q[p,e] * K[u,v,e])     QK[p,uv] = sum[e](Q[p,e] * K[uv//V,uv%V,e])
    AV[p,f]   = sum[u,v](QK[p,u,v] * Y[u,v])  AV[p,f]  = sum[uv](QK[p,uv] * Y[uv//V,uv%V])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..einsum.cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Rank,
    Reduce,
    Scan,
    Select,
    accesses,
    children,
    free_ranks,
    rebuild,
)
from ..einsum.flatten import flatten
from .blocking import fresh


def joined(cascade: Cascade) -> Cascade:
    """Every group of ranks that are only ever reduced together as one rank; the same cascade if there are none."""
    found = flat = flatten(cascade)
    groups = dict.fromkeys(e.body.ranks for e in flat.einsums if isinstance(e.body, Reduce) and len(e.body.ranks) > 1)
    for group in groups:
        if _together(found, group):
            found = _as_one(found, _outermost_first(found, group))
    return cascade if found is flat else found


def places(rank: Expr, extents: Sequence[Expr]) -> tuple[Expr, ...]:
    """Coordinates along several ranks, of these extents, that one coordinate along all of them stands for."""
    found: list[Expr] = []
    for number, extent in enumerate(extents):
        after = product(extents[number + 1 :])
        place = rank if after is None else Map("//", (rank, after))
        found.append(place if number == 0 else Map("%", (place, extent)))
    return tuple(found)


def product(extents: Sequence[Expr]) -> Expr | None:
    """The product of extents; None of none."""
    whole: Expr | None = None
    for extent in extents:
        whole = extent if whole is None else Map("*", (whole, extent))
    return whole


def _together(cascade: Cascade, group: tuple[str, ...]) -> bool:
    """Are all values along these ranks reduced along all of them, and read in place until then? What has some of the ranks only is
    read by coordinates, like an input."""
    mine = set(group)
    if any(cascade.rank(r).split is not None or cascade.rank(r).part_of is not None for r in group):
        return False
    inside = {t.name for t in cascade.tensors if t.kind != "input" and mine <= set(t.ranks)}
    if inside & set(cascade.outputs) or any(cascade.tensor(name).kind != "einsum" for name in inside):
        return False
    return all(_whole(cascade, einsum, mine, inside) for einsum in cascade.einsums)


def _whole(cascade: Cascade, einsum: Einsum, mine: set[str], inside: set[str]) -> bool:
    """Does an Einsum go along all of the ranks, in a way that does not tell one from another, or read nothing that does?"""
    body = einsum.body
    read = [access for access in accesses(body) if access.tensor in inside]
    if not _along(einsum, mine):
        return not read
    if isinstance(body, Scan | Select) or (isinstance(body, Reduce) and body.op in ("argmax", "argmin")):
        return False
    ranks = {name: cascade.tensor(name).ranks for name in inside}
    return all(
        index == Coord(rank)
        for access in read
        for rank, index in zip(ranks[access.tensor], access.indices, strict=True)
        if rank in mine or mine & free_ranks(index)
    )


def _outermost_first(cascade: Cascade, group: tuple[str, ...]) -> tuple[str, ...]:
    """The ranks in an order in which neighbours are near in memory: what a gather looks up is far apart."""
    looked_up = {
        r for e in cascade.einsums for a in accesses(e.body) for i in a.indices for inner in accesses(i) for r in free_ranks(inner)
    }
    return tuple(sorted(group, key=lambda r: (r not in looked_up, group.index(r))))


def _along(einsum: Einsum, mine: set[str]) -> bool:
    """Does an Einsum go along all of the ranks, reducing all of them or none?"""
    outside = frozenset().union(*(free_ranks(index) for index in einsum.indices))
    bound = set(einsum.body.ranks if isinstance(einsum.body, Reduce) else ())
    return mine <= outside | bound and mine & bound in (set(), mine)


def _as_one(cascade: Cascade, group: tuple[str, ...]) -> Cascade:
    """The group as one rank, wherever an Einsum goes along all of it."""
    name = fresh(cascade, "".join(group))
    extents = [cascade.rank(r).extent for r in group]
    extent = product(extents)
    assert extent is not None
    mine = set(group)
    where = dict(zip(group, places(Coord(name), extents), strict=True))
    at = cascade.rank_order[group[0]]
    declared = (*cascade.ranks[:at], Rank(name, extent), *cascade.ranks[at:])
    found = replace(cascade, ranks=declared)
    inside = {t.name for t in cascade.tensors if t.kind != "input" and mine <= set(t.ranks)}

    def named(ranks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name if r == group[0] else r for r in ranks if r not in group[1:])

    def in_place(indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        others = {Coord(r) for r in group[1:]}
        return tuple(Coord(name) if i == Coord(group[0]) else visit(i) for i in indices if i not in others)

    def visit(expr: Expr) -> Expr:
        match expr:
            case Coord(rank=rank):
                return where.get(rank, expr)
            case Access(tensor=tensor, indices=indices) if tensor in inside:
                return replace(expr, indices=in_place(indices))
            case Reduce(ranks=ranks, body=body):
                return replace(expr, ranks=tuple(sorted(named(ranks), key=found.rank_order.__getitem__)), body=visit(body))
            case _:
                return rebuild(expr, tuple(visit(part) for part in children(expr)))

    tensors = tuple(replace(t, ranks=named(t.ranks)) if t.name in inside else t for t in cascade.tensors)
    einsums = tuple(
        replace(e, indices=in_place(e.indices) if e.output in inside else e.indices, body=visit(e.body)) if _along(e, mine) else e
        for e in cascade.einsums
    )
    return replace(found, tensors=tensors, einsums=einsums)
