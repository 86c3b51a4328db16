"""Ranks of the grid cast in another way, so that what shares operands stands side by side in a tile.

In: a flat cascade and where its outputs are written. Out: other cascades for the same function, in which ranks that are on every
output and never reduced are replaced, and where they write:

* by tiles: a rank that is read through `y//W` or `y%W` becomes `y1*W + y0`. What is shared inside a block (its keys, at
  `y//W*W + u`), or by all that have one place in their blocks (at `u*W + y%W`), then lacks one of the two;
* turned: a rank that is read through `(p - s) % P`, P being its extent, starts `s` further on, as `(q + s) % P`;
* as one: ranks along which the same operand is shared become one, where none of them alone fills a tile.

Each is one to one between the old coordinates and the new ones; only tiles beyond the end of a rank have coordinates too many,
which loads and stores leave out like those of any tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..einsum.cascade import (
    Access,
    Cascade,
    Coord,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    accesses,
    ceil_div,
    children,
    free_ranks,
    rebuild,
    walk,
)
from .blocking import Recast, fresh
from .joined import places, product
from .whole_numbers import whole_scalars

FILLS_A_TILE = 64
"""Coordinates of a rank that fill a tile of rows by themselves."""


def recasts(plain: Recast, extents: Mapping[str, int]) -> Iterator[Recast]:
    """The cascade as it is, then in other ranks."""
    yield plain
    found = plain
    for rank in _free(plain.cascade):
        found = _turned(found, rank) or found
    for rank in _free(found.cascade):
        found = _by_tiles(found, rank) or found
    if found is not plain:
        yield found
    together = _sharing(found.cascade)
    if len(together) > 1 and max(extents.get(r, FILLS_A_TILE - 1) for r in together) < FILLS_A_TILE:
        yield _as_one(found, together)


def _free(cascade: Cascade) -> tuple[str, ...]:
    """Ranks that are on every output and go through the cascade in place: never reduced, scanned, walked or filled."""
    common = set.intersection(*(set(cascade.tensor(name).ranks) for name in cascade.outputs))
    for tensor in cascade.tensors:
        if tensor.iterates is not None:
            common.discard(tensor.iterates)
    for einsum in cascade.einsums:
        body = einsum.body
        if isinstance(body, Reduce):
            common -= set(body.ranks)
        elif isinstance(body, Scan):
            common.discard(body.rank)
        elif isinstance(body, Select):
            common -= {body.rank, body.fills}
        for access in accesses(body):
            tensor = cascade.tensor(access.tensor)
            if tensor.kind != "input":
                common -= {r for r, i in zip(tensor.ranks, access.indices, strict=True) if r in free_ranks(i) and i != Coord(r)}
    used = {r for einsum in cascade.einsums for r in free_ranks(einsum.body)}
    common -= {r.name for r in cascade.ranks if r.split is not None and {r.split.outer, r.split.inner} & used}
    return tuple(rank.name for rank in cascade.ranks if rank.name in common and rank.part_of is None)


# --- one rank in other words ------------------------------------------------------------------------------------------


def _turned(found: Recast, rank: str) -> Recast | None:
    """A rank that is read through `(p - s) % P` counts from there."""
    cascade = found.cascade
    extent = cascade.rank(rank).extent
    shifts: dict[Expr, Expr] = {}
    for node in _nodes(cascade):
        match node:
            case Map(op="%", args=(Map(op="-", args=(Coord(rank=r), shift)), by)) if (
                r == rank and by == extent and rank not in free_ranks(shift) and not accesses(shift)
            ):
                shifts[node] = shift
    if len(shifts) != 1:
        return None
    ((node, shift),) = shifts.items()
    new = fresh(cascade, f"{rank}t")
    other = Coord(new)
    place = Map("%", (Map("+", (other, shift)), extent))
    return _replaced(found, {rank: place}, (Rank(new, extent),), {node: other})


def _by_tiles(found: Recast, rank: str) -> Recast | None:
    """A rank that is read through `y//W` or `y%W` becomes `y1*W + y0`."""
    cascade = found.cascade
    by: dict[Expr, None] = {}
    for node in _nodes(cascade):
        match node:
            case Map(op="//" | "%", args=(Coord(rank=r), tile)) if r == rank and _counts(cascade, tile):
                by[tile] = None
    if len(by) != 1:
        return None
    (tile,) = by
    extent = cascade.rank(rank).extent
    outer, inner = fresh(cascade, f"{rank}1"), fresh(cascade, f"{rank}0")
    blocks: Expr = ceil_div(extent, tile)
    if isinstance(extent, Map) and extent.op == "*" and tile in extent.args:
        blocks = extent.args[1 - extent.args.index(tile)]
    place = Map("+", (Map("*", (Coord(outer), tile)), Coord(inner)))
    known: dict[Expr, Expr] = {Map("//", (Coord(rank), tile)): Coord(outer), Map("%", (Coord(rank), tile)): Coord(inner)}
    return _replaced(found, {rank: place}, (Rank(outer, blocks), Rank(inner, tile)), known)


def _counts(cascade: Cascade, expr: Expr) -> bool:
    """Is it a whole number of 1 or more, the same everywhere?"""
    match expr:
        case Number(value=value):
            return isinstance(value, int) and value > 0
        case Scalar(name=name):
            return name in cascade.symbols or name in whole_scalars(cascade)
        case _:
            return False


def _nodes(cascade: Cascade) -> Iterator[Expr]:
    for einsum in cascade.einsums:
        yield from walk(einsum.body)


def _replaced(found: Recast, where: Mapping[str, Expr], new: tuple[Rank, ...], known: Mapping[Expr, Expr]) -> Recast:
    """Other ranks in place of some, at whose coordinates `where` the old ones stand. `known`: expressions that are shorter then."""
    cascade = found.cascade
    names = tuple(rank.name for rank in new)
    old = tuple(where)

    def carried(ranks: tuple[str, ...]) -> tuple[str, ...]:
        parts = [names if r == old[0] else () if r in old else (r,) for r in ranks]
        return tuple(name for part in parts for name in part)

    def in_place(indices: tuple[Expr, ...], ranks: tuple[str, ...]) -> tuple[Expr, ...]:
        parts = [
            tuple(Coord(name) for name in names) if r == old[0] else () if r in old else (visit(i),)
            for r, i in zip(ranks, indices, strict=True)
        ]
        return tuple(index for part in parts for index in part)

    def visit(expr: Expr) -> Expr:
        if expr in known:
            return known[expr]
        match expr:
            case Coord(rank=rank):
                return where.get(rank, expr)
            case Access(tensor=name, indices=indices) if cascade.tensor(name).kind != "input":
                return replace(expr, indices=in_place(indices, cascade.tensor(name).ranks))
            case _:
                return rebuild(expr, tuple(visit(part) for part in children(expr)))

    at = min(cascade.rank_order[rank] for rank in old)
    ranks = (*cascade.ranks[:at], *new, *cascade.ranks[at:])
    tensors = tuple(t if t.kind == "input" else replace(t, ranks=carried(t.ranks)) for t in cascade.tensors)
    einsums = tuple(
        replace(e, indices=in_place(e.indices, cascade.tensor(e.output).ranks), body=visit(e.body)) for e in cascade.einsums
    )
    stores = {name: tuple(visit(index) for index in indices) for name, indices in found.stores.items()}
    made = frozenset(name for name in (found.made | set(names)) if name not in old)
    return Recast(replace(cascade, ranks=ranks, tensors=tensors, einsums=einsums), stores, made)


# --- several ranks as one ---------------------------------------------------------------------------------------------


def _sharing(cascade: Cascade) -> tuple[str, ...]:
    """Ranks along which every contraction shares an operand that another one has: its rows together."""
    free = set(_free(cascade))
    rows: set[str] | None = None
    for einsum in cascade.einsums:
        body = einsum.body
        if not (isinstance(body, Reduce) and body.op == "sum"):
            continue
        read = [free_ranks(access) & free for access in accesses(body) if free_ranks(access) & set(body.ranks)]
        if len(read) < 2:
            continue
        here = set(frozenset().union(*read) - frozenset.intersection(*read))
        rows = here if rows is None else rows & here
    carried = [set(t.ranks) for t in cascade.tensors if t.kind != "input"]
    rows = {r for r in rows or () if all(r in ranks for ranks in carried if ranks & (rows or set()))}
    return tuple(rank.name for rank in cascade.ranks if rank.name in rows)


def _as_one(found: Recast, together: tuple[str, ...]) -> Recast:
    cascade = found.cascade
    extents = [cascade.rank(r).extent for r in together]
    extent = product(extents)
    assert extent is not None
    name = fresh(cascade, "".join(together))
    where = dict(zip(together, places(Coord(name), extents), strict=True))
    return _replaced(found, where, (Rank(name, extent),), {})
