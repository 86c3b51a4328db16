"""Memory traffic of a kernel, and the order in which its program instances are launched.

In: a `Program`, a `Gpu`, extents; then tile sizes, steps, and how many instances run at once. Out: `Traffic`: bytes that go through
the last cache, bytes that go to memory behind it, and the `Order` for which these are fewest.

Tiles go through the cache in whole sectors: a tile whose innermost run is a few bytes long takes a sector for each. What instances
that run at the same time share comes from memory once. What later ones read again comes from the cache if everything that was
touched in between fits there, and from memory if not; that depends on which coordinates of the grid change fastest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from ..einsum.cascade import Access, Cascade, Coord, Expr, Map, accesses, free_ranks
from .gpu import Gpu
from .precision import Precision
from .products import body_of, mentions
from .program import Program

MOST_ORDERS = 3
"""Ranks of which all orders are tried: those that some tile lacks, so that it may be used again along them."""
GROUPS = (4, 8, 16)
"""Tiles along one rank that are gone through before the next along another."""


@dataclass(frozen=True)
class Order:
    """Which coordinates of the grid change from one program instance to the next."""

    ranks: tuple[str, ...]
    """Of the grid, the one that changes fastest first."""
    group: int = 1
    """Above 1: that many tiles along the first rank are gone through for each along the second, then the next ones."""
    heavy_first: frozenset[str] = frozenset()
    """Tiled ranks that are gone through from the end, as the tiles there have more steps."""

    def as_json(self) -> dict[str, Any]:
        return {"ranks": list(self.ranks), "group": self.group, "heavy_first": sorted(self.heavy_first)}

    def __str__(self) -> str:
        names = [f"{r} (from the end)" if r in self.heavy_first else r for r in self.ranks]
        if self.group > 1:
            names[:2] = [f"{self.group} of {names[0]} for each {names[1]}"]
        return ", then ".join(names)


def in_turn(program: Program) -> Order:
    """Tiles first, then the other ranks, the last one fastest."""
    return Order((*reversed(program.tiled), *(r for r in reversed(program.grid) if r not in program.tiled)))


@dataclass(frozen=True)
class Traffic:
    """Bytes of all instances together."""

    through_cache: float
    from_memory: float
    order: Order


@dataclass(frozen=True)
class _Tile:
    """A tile that a phase reads or writes."""

    key: object
    """Tiles with the same key are the same."""
    phase: int
    element: int
    """Bytes of one value."""
    axes: tuple[str, ...]
    run: tuple[tuple[str, ...], ...]
    """Axes of its innermost run in memory by dimension, the innermost first; each but the last where those before it are complete.
    The last dimension may have several, as `m - p` does: the longest is its run."""
    ranks: frozenset[str]
    """Of the grid, those that it depends on."""
    moving: bool
    """Another one at every step."""
    whole: int
    """Bytes of the tensor."""


class Traffics:
    """The traffic of one program on one GPU for given extents."""

    def __init__(self, program: Program, gpu: Gpu, precision: Precision, extents: Mapping[str, int]) -> None:
        self.program, self.gpu, self.precision, self.extents = program, gpu, precision, extents
        self.reads = [tile for number in range(len(program.phases)) for tile in self._reads(number)]
        self.writes = [self._write(name) for name in program.stores]
        self.grid = in_turn(program).ranks
        self.ends = dict(extents)
        """Coordinates that there are along each axis."""
        if program.inner is not None:
            self.ends[program.inner] = extents[program.cascade.rank(program.inner).part_of or program.inner]

    def element(self, cascade: Cascade, tensor: str) -> int:
        """Bytes of one value."""
        held = cascade.tensor(tensor)
        real = self.precision.read(tensor) if held.kind == "input" else self.precision.computed
        return {"float": real, "int": 4, "bool": 1}[held.dtype]

    def _reads(self, number: int) -> list[_Tile]:
        program = self.program
        found: dict[object, _Tile] = {}
        for einsum in body_of(program.phases[number]):
            for access in accesses(einsum.body):
                tensor = program.cascade.tensor(access.tensor)
                if tensor.kind == "input":
                    moving = program.loop is not None and mentions(access, program.loop)
                    key = (access.tensor, access.indices)
                    found.setdefault(key, self._tile(key, number, access, moving))
        return list(found.values())

    def _write(self, name: str) -> _Tile:
        program = self.program
        phase = next((n for n, p in enumerate(program.phases) if any(e.output == name for e in body_of(p))), 0)
        return self._tile(name, phase, Access(name, program.stores[name]), program.in_loop(name))

    def _tile(self, key: object, phase: int, access: Access, moving: bool) -> _Tile:
        program = self.program
        ranks = program.source.tensor(access.tensor).ranks
        axes = tuple(a for a in program.axes if a in program.axes_of(access))
        run = []
        for index in reversed(access.indices):
            here = [a for a in axes if a in free_ranks(index)]
            along = tuple(a for a in here if _unit(index, a))
            if along:
                run.append(along)
            if len(along) != 1 or len(here) > 1:
                break
        free = frozenset(r for index in access.indices for r in free_ranks(index))
        free |= {r for index in access.indices for a in accesses(index) for i in a.indices for r in free_ranks(i)}
        element = self.element(program.source, access.tensor)
        whole = element * prod(self.extents.get(r, 1) for r in ranks)
        return _Tile(key, phase, element, axes, tuple(run), free & frozenset(program.grid), moving, whole)

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """Orders worth trying: ranks along which some tile is used again change before those that every tile depends on."""
        tiles = [*self.reads, *self.writes]
        grid = [r for r in self.grid if self.extents[r] > 1]
        again = [r for r in grid if any(r not in tile.ranks for tile in tiles)][:MOST_ORDERS]
        rest = [r for r in self.grid if r not in again]
        found = [Order(self.grid), *(Order((*first, *rest)) for first in itertools.permutations(again))]
        two = [r for r in again if r in self.program.tiled]
        if len(two) > 1:
            others = [r for r in self.grid if r not in two]
            found += [Order((*pair, *others), group) for pair in itertools.permutations(two) for group in GROUPS]
        return tuple(found)

    def __call__(
        self,
        blocks: Mapping[str, int],
        steps: Sequence[tuple[float, float]],
        at_once: int,
        orders: Sequence[Order] | None = None,
    ) -> Traffic:
        """`steps`: of each phase, the mean over all instances and the most; 1 where it is no loop."""
        through, counts, sizes = self._touched(blocks, steps)
        instances = prod(counts.values())
        best: tuple[float, Order] | None = None
        least = _each_once(sizes, instances)
        tried: set[tuple[tuple[str, int], ...]] = set()
        for order in orders or self.orders:
            levels = tuple(level for level in self._levels(order, counts) if level[1] > 1)
            if levels in tried:
                continue  # it differs in ranks of one tile
            tried.add(levels)
            moved = self._from_memory(levels, sizes, instances, at_once)
            if best is None or moved < best[0]:
                best = (moved, order)
            if best[0] <= least:
                break
        assert best is not None
        return Traffic(through, *best)

    def through_cache(self, blocks: Mapping[str, int], steps: Sequence[tuple[float, float]]) -> float:
        """Bytes that go through the cache, whatever runs at one time and in which order."""
        return self._touched(blocks, steps)[0]

    def _touched(
        self, blocks: Mapping[str, int], steps: Sequence[tuple[float, float]]
    ) -> tuple[float, dict[str, int], list[tuple[_Tile, float, float, float]]]:
        """Bytes through the cache; coordinates along the grid; tiles, each with the bytes of an instance on average and at most,
        and the bytes of all."""
        program = self.program
        counts = {r: -(-self.extents[r] // blocks[r]) if r in program.tiled else self.extents[r] for r in program.grid}
        through = 0.0
        sizes: list[tuple[_Tile, float, float, float]] = []
        for tile in (*self.reads, *self.writes):
            size = tile.element * prod(min(blocks[a], self.ends[a]) for a in tile.axes)
            mean, most = steps[tile.phase] if tile.moving else (1.0, 1.0)
            through += self._sectors(tile, blocks) * size * mean
            total = min(tile.whole, prod(counts[r] for r in tile.ranks) * size * most)
            sizes.append((tile, size * mean, size * most, total))
        return through * prod(counts.values()), counts, sizes

    def _sectors(self, tile: _Tile, blocks: Mapping[str, int]) -> float:
        """Bytes that go through the cache for each byte of a tile: more than one where runs are shorter than a sector."""
        run = tile.element
        for axes in tile.run:
            axis = max(axes, key=lambda a: min(blocks[a], self.ends[a]))
            run *= min(blocks[axis], self.ends[axis])
            if blocks[axis] < self.ends[axis]:
                break
        sector = self.gpu.cache.sector
        return max(1.0, sector / max(run, 1))

    def _from_memory(
        self,
        levels: Sequence[tuple[str, int]],
        sizes: Sequence[tuple[_Tile, float, float, float]],
        instances: int,
        at_once: int,
    ) -> float:
        """Bytes from memory where instances follow one another in the order of some levels."""
        size_of_cache = self.gpu.cache.size or 0

        def touched(coordinates: Mapping[str, int]) -> float:
            return sum(min(total, most * prod(coordinates.get(r, 1) for r in tile.ranks)) for tile, _, most, total in sizes)

        again = [1.0] * len(sizes)  # times that each tile comes from memory
        inside: dict[str, int] = {}  # coordinates along each rank that the levels inside go through
        wave: dict[str, int] = {}  # the same of instances that run at one time
        left = at_once
        for rank, count in levels:
            together = min(count, max(1, left))
            left //= together
            rounds = -(-count // together)
            wave[rank] = wave.get(rank, 1) * together
            if rounds > 1 and touched({**inside, rank: inside.get(rank, 1) * together}) > size_of_cache:
                for number, (tile, _, _, _) in enumerate(sizes):
                    if rank not in tile.ranks:
                        again[number] *= rounds
            inside[rank] = inside.get(rank, 1) * count
        passes = touched(wave) > size_of_cache  # is what a loop reads gone when the next one wants it?
        found: dict[object, float] = {}
        for number, (tile, mean, _, total) in enumerate(sizes):
            size = min(total * again[number], instances * mean)
            found[tile.key] = found.get(tile.key, 0.0) + size if passes else max(found.get(tile.key, 0.0), size)
        return sum(found.values())

    def _levels(self, order: Order, counts: Mapping[str, int]) -> list[tuple[str, int]]:
        """Ranks and how many coordinates are gone through, the innermost first; a grouped rank stands twice."""
        if order.group == 1:
            return [(r, counts[r]) for r in order.ranks]
        first, second, *others = order.ranks
        group = min(order.group, counts[first])
        return [(first, group), (second, counts[second]), (first, -(-counts[first] // group)), *((r, counts[r]) for r in others)]


def _each_once(sizes: Sequence[tuple[_Tile, float, float, float]], instances: int) -> float:
    """Bytes from memory where every tile comes once."""
    found: dict[object, float] = {}
    for tile, mean, _, total in sizes:
        found[tile.key] = max(found.get(tile.key, 0.0), min(total, instances * mean))
    return sum(found.values())


def _unit(index: Expr, axis: str) -> bool:
    """Are neighbours along an axis neighbours in memory, or the same? Where an index starts again or stops, most are."""
    match index:
        case Coord(rank=rank):
            return rank == axis
        case Map(op=("+" | "-"), args=(a, b)):
            return all(_unit(part, axis) for part in (a, b) if axis in free_ranks(part))
        case Map(op=("//" | "%"), args=(a, b)):
            return axis not in free_ranks(b) and _unit(a, axis)
        case Map(op=("min" | "max" | "clamp"), args=args):
            return all(_unit(part, axis) for part in args if axis in free_ranks(part))
        case _:
            return False
