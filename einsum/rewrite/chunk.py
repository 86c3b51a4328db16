"""One chunk of a rank, as a rewrite writes about it: positions in it by several names, tensors over them, their Einsums.

In: a cascade, a rank m, the length of a chunk. The rank is declared in tiles, m = m1*M0 + m0. Positions of a chunk that are not
the one at hand have ranks of their own: `past` (mj), and those in `spare` for pairs and sums of pairs. Such a position may be
beyond the end of m, which m0 never is: what is read there stands under `where(m1*M0+mj < M, ..., 0)`. Norms and the like, sums of
what is read at a position anyway, are done again there. Out: the cascade so declared, and the tensors and Einsums defined.
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
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    Split,
    Tensor,
    accesses,
    free_ranks,
    substitute,
    transform,
    walk,
)
from .algebra import ZERO
from .partition import declared_in_tiles, of_length
from .step import coords, fresh, in_order, taken_names

SPARE = ("i", "k", "l")
"""Other names of positions, as pairs of pairs need them."""


class Chunk:
    """Places in a chunk, and what is defined over them."""

    def __init__(self, cascade: Cascade, rank: str, tile: int | None, default: int, fixed: bool) -> None:
        """`fixed`: the length of a chunk is part of the form, a number in it."""
        self.old, self.rank = cascade, rank
        self.taken = taken_names(cascade)
        self.past = fresh(f"{rank}j", self.taken)
        declared, split, _ = declared_in_tiles(cascade, rank, tile, default)
        if fixed and isinstance(split.tile, Scalar):
            declared = of_length(declared, split.tile.name, dict(declared.sizes)[split.tile.name])
            _, split, _ = declared_in_tiles(declared, rank, tile, default)
        self.taken |= taken_names(declared)
        self.spare = tuple(fresh(f"{rank}{letter}", self.taken) for letter in SPARE)
        ranks: list[Rank] = []
        for each in declared.ranks:
            ranks.append(each)
            if each.name == split.inner:
                ranks += [Rank(name, split.tile) for name in (self.past, *self.spare)]
        self.new = replace(declared, ranks=tuple(ranks))
        self.split: Split = split
        self.weights: dict[str, bool | None] = {}
        self.repeated: dict[str, Access] = {}
        self.tensors: list[Tensor] = []
        self.einsums: list[Einsum] = []

    # --- places ---

    def position(self, inside: str) -> Expr:
        """The coordinate along the rank of a position of the chunk."""
        return Map("+", (Map("*", (Coord(self.split.outer), self.split.tile)), Coord(inside)))

    def here(self, expr: Expr, inside: str) -> Expr:
        """An expression at a position of the chunk; 0 beyond the end of the rank."""
        if self.rank not in free_ranks(expr):
            return expr
        if inside == self.split.inner:
            return substitute(expr, {self.rank: self.position(inside)})
        if isinstance(expr, Access) and self.is_light(expr):
            return self.moved(expr, inside)  # that is 0 there already
        return Map("where", (self.exists(inside), self.moved(expr, inside), ZERO))

    def moved(self, expr: Expr, inside: str) -> Expr:
        """An expression at a position that exists."""
        made = {node: self.again(node.tensor) for node in accesses(expr) if self.is_light(node)}
        placed = transform(expr, lambda node: made.get(node, node) if isinstance(node, Access) else node)
        return substitute(placed, {self.rank: self.position(inside), self.past: Coord(inside)})

    def is_light(self, access: Access) -> bool:
        """Is this a norm, or made of one: sums over what is read at its position anyway, and so as well done again there?"""
        tensor = self.old.tensor(access.tensor)
        return access.indices == coords(tensor.ranks) and self.rank in tensor.ranks and self.light(tensor.name) is True

    def light(self, name: str) -> bool | None:
        """Sums of what lies at one position of the rank, each read whole; None where there is no sum at all; False otherwise."""
        if name in self.weights:
            return self.weights[name]
        tensor = self.old.tensor(name)
        found: bool | None = None if tensor.kind == "input" else False
        if tensor.kind == "einsum" and Coord(self.rank) in self.old.definitions(name)[0].indices:
            (einsum,) = self.old.definitions(name)
            body, sums = einsum.body, isinstance(einsum.body, Reduce)
            bound = set(body.ranks) if isinstance(body, Reduce) else set()
            read = [node for node in accesses(body) if self.rank in free_ranks(node)]
            below = [self.light(node.tensor) for node in read]
            in_place = all(node.indices == coords(self.old.tensor(node.tensor).ranks) for node in read)
            whole = not sums or (all(bound | {self.rank} <= free_ranks(node) for node in accesses(body)) and bool(read))
            if in_place and whole and not isinstance(body, Scan | Select) and False not in below and self.rank not in bound:
                found = True if sums or True in below else None
        self.weights[name] = found
        return found

    def again(self, name: str) -> Access:
        """A tensor along the rank, done again at positions `past`."""
        if name not in self.repeated:
            (einsum,) = self.old.definitions(name)
            body = einsum.body
            if isinstance(body, Reduce):
                placed: Expr = replace(body, body=self.here(body.body, self.past))
            else:
                placed = self.here(body, self.past)
            ranks = frozenset(self.old.tensor(name).ranks) - {self.rank} | {self.split.outer, self.past}
            self.repeated[name] = self.define(f"{name}_{self.past}", ranks, placed)
        return self.repeated[name]

    def exists(self, inside: str) -> Expr:
        """Is there such a position of the rank?"""
        return Map("<", (self.position(inside), self.old.rank(self.rank).extent))

    def other(self, *names: str) -> str:
        """A name of positions that is none of these."""
        return next(name for name in (self.past, *self.spare) if name not in names)

    # --- what is defined ---

    def define(self, name: str, ranks: frozenset[str], body: Expr) -> Access:
        """A tensor over these ranks, read in place."""
        tensor = Tensor(fresh(name, self.taken), in_order(ranks, self.new))
        self.tensors.append(tensor)
        self.einsums.append(Einsum(tensor.name, coords(tensor.ranks), body))
        return Access(tensor.name, coords(tensor.ranks))

    def at(self, name: str, given: dict[str, Expr]) -> Access:
        """A tensor that was made here, at its own coordinates or those given."""
        tensor = next(tensor for tensor in self.tensors if tensor.name == name)
        return Access(name, tuple(given.get(each, Coord(each)) for each in tensor.ranks))

    def declared(self) -> tuple[Rank, ...]:
        """The ranks, without names of positions that nothing uses."""
        used = {node.rank for e in self.einsums for node in walk(e.body) if isinstance(node, Coord)}
        used |= {r for tensor in self.tensors for r in tensor.ranks} | {self.past}
        return tuple(rank for rank in self.new.ranks if rank.name not in self.spare or rank.name in used)
