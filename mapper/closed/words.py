"""Words of a group: what is fetched, read as an operand, made and kept, as formulas.

In: tiles, the indices of an access. Out: words of one tile, of all tiles, with what comes again for loops outside that find it
gone; `Open` where indices have no closed form.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...einsum.cascade import Access, Coord, Expr, Map, Number, Scalar, free_ranks
from ..nest import Resident, Step, Stream
from ..tape import Value, ceil_div, floor, greater, minimum, product, total, where
from .tiles import Tiles


class Open(Exception):
    """The structure has no closed form here; the message names the part."""


@dataclass(frozen=True)
class Dimension:
    """What an index does along one dimension of a tensor."""

    form: Literal["plain", "split", "shared", "constant"]
    """A rank itself; `outer * tile + inner`; `rank // n`; the same position always."""
    rank: str = ""
    """Plain, shared: the rank; split: the whole one."""
    inner: str = ""
    outer: str = ""
    share: Value = 1.0


class Words:
    """The words of one group."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles, self.nest, self.hardware = tiles, tiles.nest, tiles.hardware
        self.active, self.depth = tiles.active, tiles.depth

    def dimensions(self, tensor: str, indices: tuple[Expr, ...]) -> list[Dimension]:
        """What each index of an access does. Raises Open for one that has no closed form."""
        declared = self.nest.cascade.tensor(tensor)
        return [
            self._dimension(tensor, rank, index, rank == declared.iterates)
            for rank, index in zip(declared.ranks, indices, strict=True)
        ]

    def _dimension(self, tensor: str, rank: str, index: Expr, iterates: bool) -> Dimension:
        if not free_ranks(index) and not any(isinstance(part, Access) for part in _parts(index)):
            return Dimension("constant")
        split = self.nest.cascade.rank(rank).split
        match index:
            case Coord(rank=found) if self.nest.cascade.rank(found).extent == self.nest.cascade.rank(rank).extent:
                return Dimension("plain", found)
            case Map(op="+", args=(Coord(rank=found), Number(value=1))) if found == rank and iterates:
                return Dimension("plain", rank)
            case Map(op="+", args=(Map(op="*", args=(Coord(rank=outer), tile)), Coord(rank=inner))) if (
                split and (outer, inner) == (split.outer, split.inner) and tile == split.tile
            ):
                return Dimension("split", rank, inner, outer)
            case Map(op="//", args=(Coord(rank=found), Scalar(name=name))):
                return Dimension("shared", found, share=self.tiles.tape.input(f"scalar {name}"))
        raise Open(f"the index of `{tensor}` along `{rank}`")

    def dimension_size(self, dimension: Dimension, depth: int) -> Value:
        """Most positions along a dimension in one tile."""
        tiles = self.tiles
        match dimension.form:
            case "constant":
                return 1.0
            case "plain":
                return tiles.size(dimension.rank, depth)
            case "split":
                self._check_split(dimension, depth)
                if tiles.chain(dimension.inner, depth):
                    return minimum(tiles.size(dimension.inner, depth), tiles.extent(dimension.rank))
                return minimum(tiles.size(dimension.outer, depth) * tiles.extent(dimension.inner), tiles.extent(dimension.rank))
            case _:
                if tiles.is_one(dimension.rank, depth):
                    return 1.0
                return self._distinct(dimension, depth)

    def _check_split(self, dimension: Dimension, depth: int) -> None:
        if self.tiles.chain(dimension.inner, depth) and not self.tiles.is_one(dimension.outer, depth):
            raise Open(f"windows of `{dimension.rank}` that overlap")

    def _distinct(self, dimension: Dimension, depth: int) -> Value:
        """Positions of `rank // n` over the whole rank."""
        tiles = self.tiles
        if len(tiles.chain(dimension.rank, depth)) > (1 if tiles.is_one(dimension.rank, depth) else 0):
            raise Open(f"`{dimension.rank}` shared and cut")
        return floor((tiles.extent(dimension.rank) - 1.0) / dimension.share) + 1.0

    def _sums(self, dimensions: Sequence[Dimension], depth: int) -> tuple[Value, frozenset[str]]:
        """Sum over tiles of the words of each tile, and the ranks summed over."""
        found: Value = 1.0
        plain: dict[str, int] = {}
        summed: set[str] = set()
        for dimension in dimensions:
            if dimension.form == "plain":
                plain[dimension.rank] = plain.get(dimension.rank, 0) + 1
            elif dimension.form == "split":
                self._check_split(dimension, depth)
                found = found * self.tiles.extent(dimension.rank)
                summed |= {dimension.inner, dimension.outer}
            elif dimension.form == "shared":
                found = (
                    found
                    * self.dimension_size(dimension, depth)
                    * self.tiles.existing(dimension.rank, self.tiles.chain(dimension.rank, depth))
                )
                summed.add(dimension.rank)
        if summed & set(plain) or len(summed) < sum({"split": 2, "shared": 1}.get(d.form, 0) for d in dimensions):
            raise Open("a rank in several dimensions")
        for rank, power in plain.items():
            if power == 1:
                found = found * self.tiles.extent(rank)
            else:
                found = found * total(
                    n * product([size] * power) for n, size in self.tiles.kinds(rank, self.tiles.chain(rank, depth))
                )
        return found, frozenset(summed | set(plain))

    def stream_tile(self, stream: Stream) -> Value:
        """Words of the largest tile that is held of an input."""
        return product(self.dimension_size(d, stream.depth) for d in self.dimensions(stream.tensor, stream.indices))

    def stream_words(self, stream: Stream) -> Value:
        """Words fetched: every tile once, again for each iteration outside that finds it gone."""
        tiles = self.tiles
        dimensions = self.dimensions(stream.tensor, stream.indices)
        ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
        involved = [axis for axis in self.active if axis < stream.depth and tiles.rank_of(axis) in ranks]
        words, _ = self._sums(dimensions, stream.depth)
        if not involved:
            return words
        last = tiles.rank_of(involved[-1])
        for dimension in dimensions:
            if dimension.form == "shared" and dimension.rank == last:
                words = words / tiles.existing(last, tiles.chain(last, stream.depth)) * self._distinct(dimension, stream.depth)
        read = frozenset().union(*(reader.ranks for reader in stream.readers))
        repeats = [
            axis for axis in self.active if axis < involved[-1] and tiles.rank_of(axis) not in ranks and tiles.rank_of(axis) in read
        ]
        moved = {axis: self._moved(axis, stream.depth, ranks) for axis in repeats}
        torn = sorted({rank for by in moved.values() for rank in by or ()})
        if not torn:
            return words * product(self._again(rank, repeats) for rank in self._ranks_of(repeats))
        if any(d.form != "plain" and {d.rank, d.inner, d.outer} & set(torn) for d in dimensions):
            raise Open("a split rank cut on both sides of a loop that repeats")
        if len({d.rank for d in dimensions if d.rank in torn}) < sum(d.rank in torn for d in dimensions):
            raise Open("a rank in several dimensions")
        parts = []
        for paths in itertools.product(*(self._paths(rank, stream.depth, repeats) for rank in torn)):
            share = product(weight for weight, _ in paths)
            inside = {
                axis: None if moved[axis] is None else greater(product(pieces[axis] for _, pieces in paths), 1.0)
                for axis in repeats
            }
            parts.append(share * product(self._again(rank, repeats, inside) for rank in self._ranks_of(repeats)))
        return words / product(tiles.extent(rank) for rank in torn) * total(parts)

    def _moved(self, axis: int, depth: int, ranks: frozenset[str]) -> list[str] | None:
        """Ranks whose loops inside `axis` may move the tile away; None if some do for certain."""
        tiles = self.tiles
        inside = {tiles.rank_of(a) for a in self.active if axis < a < depth and tiles.rank_of(a) in ranks}
        if any(tiles.chain(rank, depth)[0] > axis for rank in inside):
            return None
        return sorted(inside)

    def _paths(self, rank: str, depth: int, repeats: list[int]) -> list[tuple[Value, dict[int, Value]]]:
        """The tiles of a rank by kind: (positions in all of them, for each repeating loop the tiles of the rank inside it)."""
        chain = self.tiles.chain(rank, depth)
        found: list[tuple[Value, Value, dict[int, Value]]] = [(1.0, self.tiles.extent(rank), {})]
        cuts = 0
        for axis in repeats:
            before = [a for a in chain if a < axis]
            for cut in before[cuts:]:
                found = [
                    (n, size, dict(known)) for number, length, known in found for n, size in self.tiles.cut(cut, number, length)
                ]
            cuts = len(before)
            for _, length, known in found:
                known[axis] = self._pieces_of(length, chain[cuts:])
        return [(number * length, known) for number, length, known in found]

    def _pieces_of(self, length: Value, chain: list[int]) -> Value:
        found: list[tuple[Value, Value]] = [(1.0, length)]
        for axis in chain[:-1]:
            found = [part for number, size in found for part in self.tiles.cut(axis, number, size)]
        return total(number * self.tiles.pieces(chain[-1], size) for number, size in found) if chain else 1.0

    def _again(self, rank: str, repeats: list[int], inside: dict[int, Value | None] | None = None) -> Value:
        """How often the loops over a rank bring a tile back: in each iteration that finds it gone, else once."""
        mine = [axis for axis in repeats if self.tiles.rank_of(axis) == rank]
        found: Value = 1.0
        for number, axis in enumerate(mine, 1):
            count = self.tiles.existing(rank, mine[:number])
            gone = None if inside is None else inside[axis]
            found = count if gone is None else where(gone, count, found)
        return found

    def operand_words(self, reader: Step, stream: Stream) -> Value:
        """Words that a step reads of an operand: its tile in every tile, again for folds and positions outside what moves it."""
        tiles = self.tiles
        declared = self.nest.cascade.tensor(stream.tensor)
        ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
        dimensions = self.dimensions(stream.tensor, stream.indices)
        if declared.iterates is not None:
            del dimensions[declared.ranks.index(declared.iterates)]
        words, summed = self._sums(dimensions, self.depth)
        folded = reader.binding.ranks - ranks
        words = words * tiles.folds(reader, folded)
        repeated = dict(reader.outside(ranks))
        for rank in sorted(reader.ranks - summed - folded):
            count = tiles.existing(rank)
            if rank in repeated:
                walked = product(self._walked(reader, mover) for mover in repeated[rank])
                count = where(greater(walked, 1.0), tiles.extent(rank), count)
            words = words * count
        return words

    def _walked(self, step: Step, rank: str) -> Value:
        """Positions that a step takes one after another along a rank in the largest tile."""
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            if rank in (along := step.binding.along(side)):
                return ceil_div(product(self.tiles.size(each) for each in along), lanes)
        return self.tiles.size(rank)

    def result_words(self, step: Step, tensor: str) -> Value:
        """Words of results that a step gives, once in each tile of what it reduces."""
        declared = self.nest.cascade.tensor(tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        return product(self.tiles.extent(rank) for rank in sorted(ranks)) * self.tiles.number_of(step.ranks - ranks)

    def begun_words(self, step: Step, tensor: str) -> Value:
        """Words of a reduction's results as they are begun."""
        declared = self.nest.cascade.tensor(tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        return product(self.tiles.extent(rank) for rank in sorted(ranks)) * self.tiles.repeats(step.ranks - ranks - step.reduced)

    def tensor_words(self, tensor: str) -> Value:
        """Words of a whole tensor; of a state, of one position."""
        declared = self.nest.cascade.tensor(tensor)
        return product(self.tiles.extent(rank) for rank in declared.ranks if rank != declared.iterates)

    def resident_words(self, resident: Resident, depth: int) -> Value:
        """Words of the largest tile of what is made on chip, as cut by so many loops."""
        declared = self.nest.cascade.tensor(resident.tensor)
        return product(self.tiles.size(rank, depth) for rank in declared.ranks if rank != declared.iterates)

    def _ranks_of(self, axes: list[int]) -> list[str]:
        return list(dict.fromkeys(self.tiles.rank_of(axis) for axis in axes))


def _parts(expr: Expr) -> list[Expr]:
    found = [expr]
    if isinstance(expr, Map):
        for arg in expr.args:
            found += _parts(arg)
    return found
