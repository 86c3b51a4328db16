"""Partition: a rank is cut into tiles, m = m1*M0 + m0, and the Einsums that reduce it run tile by tile.

before    m: M
          S[p,m] = Q[p] * K[m]
          Y[p]   = sum[m](S[p,m])
after     m: {extent: M, split: [m1, m0], tile: M0, count: M1}
          S[p,m1,m0] = Q[p] * K[m1*M0+m0]
          Y[p]       = sum[m1,m0](S[p,m1,m0])

Points beyond the end of the rank do not exist, so nothing else changes. A tensor that something else still reads whole (an
output, a later sweep) keeps its rank and is read at m1*M0+m0.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    Split,
    Tensor,
    children,
    rebuild,
    transform,
    walk,
)
from .step import Rewritten, Step, fresh, shown, taken_names, text

NAME = "partition"
DEFAULT_TILE = 128
"""Elements of a tile where the spec's sizes do not ask for less."""


def partition(cascade: Cascade, rank: str, reductions: frozenset[str], tile: int | None = None) -> Rewritten | None:
    """Cut `rank` for the named reductions and for all that only they read."""
    tiled = _tiled(cascade, rank, reductions)
    if not tiled:
        return None
    cut, split, created = declared_in_tiles(cascade, rank, tile)
    change = _Tiling(cut, rank, split, tiled)
    einsums = tuple(change.einsum(einsum) if einsum.output in tiled else einsum for einsum in cascade.einsums)
    tensors = tuple(change.tensor(tensor) for tensor in cut.tensors)
    after = replace(cut, einsums=einsums, tensors=tensors)
    changed = [(old, new) for old, new in zip(cascade.einsums, einsums, strict=True) if old != new]
    extent = text(cascade.rank(rank).extent)
    declared = (
        f"{rank}: {{extent: {extent}, split: [{split.outer}, {split.inner}], tile: {text(split.tile)}, count: {split.count}}}"
    )
    step = Step(
        NAME,
        rank,
        (f"{rank}: {extent}\n" if created else "") + shown([old for old, _ in changed], cascade),
        f"{rank} = {split.outer}*{text(split.tile)} + {split.inner}",
        "every point of the rank is in exactly one tile; points beyond the end do not exist",
        (f"{declared}\n" if created else "") + shown([new for _, new in changed], after),
    )
    return Rewritten(after, step)


def _tiled(cascade: Cascade, rank: str, reductions: frozenset[str]) -> frozenset[str]:
    """The reductions that bind the rank, and the tensors along it that only tiled Einsums read, each at the plain rank."""
    tiled: set[str] = set()
    for einsum in reversed(cascade.einsums):
        name, tensor = einsum.output, cascade.tensor(einsum.output)
        if tensor.kind != "einsum" or isinstance(einsum.body, Scan | Select):
            continue
        if isinstance(einsum.body, Reduce) and rank in einsum.body.ranks:
            if name in reductions:
                tiled.add(name)
            continue
        if Coord(rank) not in einsum.indices or name in cascade.outputs:
            continue
        at = einsum.indices.index(Coord(rank))
        readers = [(e, node) for e in cascade.einsums for node in _accesses(e) if node.tensor == name]
        if readers and all(e.output in tiled and node.indices[at] == Coord(rank) for e, node in readers):
            tiled.add(name)
    return frozenset(tiled)


def _accesses(einsum: Einsum) -> list[Access]:
    return [node for expr in (einsum.body, *einsum.indices) for node in walk(expr) if isinstance(node, Access)]


def declared_in_tiles(cascade: Cascade, rank: str, tile: int | None, most: int = DEFAULT_TILE) -> tuple[Cascade, Split, bool]:
    """The cascade with the rank declared as split, and was it not before; the split it has already, if any."""
    declared = cascade.rank(rank)
    if declared.split is not None and declared.split.count is not None:
        return cascade, declared.split, False
    taken = taken_names(cascade)
    if declared.split is not None:
        count = fresh(f"{rank.upper()}1", taken)
        split = replace(declared.split, count=count)
        ranks = tuple(replace(r, split=split) if r.name == rank else _extent(r, split) for r in cascade.ranks)
        return replace(cascade, ranks=ranks), split, True
    outer, inner = fresh(f"{rank}1", taken), fresh(f"{rank}0", taken)
    count, size = fresh(f"{rank.upper()}1", taken), fresh(f"{rank.upper()}0", taken)
    split = Split(outer, inner, Scalar(size), count)
    ranks_list: list[Rank] = []
    for r in cascade.ranks:
        if r.name != rank:
            ranks_list.append(r)
            continue
        ranks_list.append(replace(r, split=split))
        ranks_list.append(Rank(outer, Scalar(count), part_of=rank))
        ranks_list.append(Rank(inner, Scalar(size), part_of=rank))
    sizes = (*cascade.sizes, (size, tile or _default_tile(cascade, declared, most)))
    return replace(cascade, ranks=tuple(ranks_list), sizes=sizes), split, True


def of_length(cascade: Cascade, symbol: str, length: int) -> Cascade:
    """The cascade with an extent symbol, such as the length of a tile, as a number."""

    def number(expr: Expr) -> Expr:
        return transform(expr, lambda node: Number(length) if node == Scalar(symbol) else node)

    ranks = tuple(
        replace(
            rank,
            extent=number(rank.extent),
            split=None if rank.split is None else replace(rank.split, tile=number(rank.split.tile)),
        )
        for rank in cascade.ranks
    )
    einsums = tuple(
        replace(einsum, indices=tuple(map(number, einsum.indices)), body=number(einsum.body)) for einsum in cascade.einsums
    )
    sizes = tuple((name, value) for name, value in cascade.sizes if name != symbol)
    return replace(cascade, ranks=ranks, einsums=einsums, sizes=sizes)


def _extent(rank: Rank, split: Split) -> Rank:
    return replace(rank, extent=Scalar(split.count)) if rank.name == split.outer and split.count else rank


def _default_tile(cascade: Cascade, rank: Rank, most: int) -> int:
    """A power of two: `most`, or at most half of the extent where the spec's sizes make it small, so that there are tiles to speak
    of."""
    from ..sizes import evaluate_scalar

    values: dict[str, int | float] = dict(cascade.sizes)
    try:
        extent = evaluate_scalar(rank.extent, values)
    except (KeyError, ArithmeticError, ValueError):
        return most
    tile = most
    while tile > 1 and tile * 2 > extent:
        tile //= 2
    return tile


class _Tiling:
    """Rewriting the Einsums of `tiled` from the rank to its parts."""

    def __init__(self, cascade: Cascade, rank: str, split: Split, tiled: frozenset[str]) -> None:
        self.cascade, self.rank, self.split, self.tiled = cascade, rank, split, tiled
        self.parts = (Coord(split.outer), Coord(split.inner))
        self.position = Map("+", (Map("*", (self.parts[0], split.tile)), self.parts[1]))
        self.along = {
            name: tuple(i for i, index in enumerate(einsum.indices) if index == Coord(rank))
            for name in tiled
            for einsum in cascade.definitions(name)
        }

    def tensor(self, tensor: Tensor) -> Tensor:
        if not self.along.get(tensor.name):
            return tensor
        (at,) = self.along[tensor.name]
        ranks = (*tensor.ranks[:at], self.split.outer, self.split.inner, *tensor.ranks[at + 1 :])
        return replace(tensor, ranks=ranks)

    def einsum(self, einsum: Einsum) -> Einsum:
        return replace(einsum, indices=self._indices(einsum.output, einsum.indices), body=self._expr(einsum.body))

    def _indices(self, tensor: str, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        result: list[Expr] = []
        for i, index in enumerate(indices):
            result.extend(self.parts if i in self.along.get(tensor, ()) else (self._expr(index),))
        return tuple(result)

    def _expr(self, expr: Expr) -> Expr:
        match expr:
            case Coord(rank=rank) if rank == self.rank:
                return self.position
            case Access():
                return replace(expr, indices=self._indices(expr.tensor, expr.indices))
            case Reduce(ranks=ranks, body=body):
                new: list[str] = []
                for rank in ranks:
                    new.extend((self.split.outer, self.split.inner) if rank == self.rank else (rank,))
                return replace(expr, ranks=tuple(new), body=self._expr(body))
            case Number() | Scalar():
                return expr
            case _:
                return rebuild(expr, tuple(self._expr(part) for part in children(expr)))
