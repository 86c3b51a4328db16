"""The space of mappings that the search covers. What is stated here is what "optimal" refers to.

* fusion: every partition of the cascade, in its order, into consecutive groups that are legal;
* loops of a group: first, with tile 1, each rank along which no input or output of the group is used twice; then, in every order,
  the ranks of running states (tile 1) and every subset of the other ranks that are longer than a side of an array (a state's and
  a scan's own ranks excepted), up to four in all; the last tile of each may be cut short; one of them, in turn each, may have a
  second loop outside that holds 2, 4, 8, ... or all of its tiles at once (tiles there: sides);
* tiles (`--tiles`): `sides` of arrays; `doubled` (the default; `sides` for energy-delay products): these, doubled any number of
  times; `every`: also halved any number of times, powers of two, and divisors of the extent where it has at most 32; only where no
  mapping of the group fits: the same from half a side, a quarter, ... down to 1;
* extents that splits leave open: a quarter to four times each side of an array;
* inputs: held at any of the loops over their own ranks, as little traffic as fits;
* layout of each array: any of the ranks or none along each side, the same for all Einsums on the array;
* binding: each Einsum on each array that has the units for it;
* of layouts and bindings, those that are not dominated in cycles per array (and in energy, where the objective asks for it); of
  equal layouts the one with least latency of reductions;
* a tensor that lives within a tile is handed on where that is legal, else stays in registers where it fits, else in the buffer;
* interleaved schedule, as many tiles in flight as hide the latency of a tile twice over, or as registers and buffer allow; two
  buffer slots.

Left out: other tiles, several ranks along one side, loops private to one Einsum of a group, recomputation,
spilling of running results, other orders of the Einsums than the cascade's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from ..einsum.cascade import Cascade, Einsum, Expr, Scalar, Scan, Select, accesses, free_ranks
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind
from .architecture import Architecture
from .mapping import Loop
from .operations import work
from .steps import iterated, refuse
from .tape import Floats

MAX_LOOPED = 4
"""Most ranks, besides those without reuse, that one group loops over."""
MAX_DIVISORS = 32
"""Most divisors of an extent that are all tried as tiles."""
MAX_TILINGS = 2**16
"""Tilings of one order of loops beyond which tiles are powers of two and sides of arrays alone."""


def sides(arch: Architecture) -> list[int]:
    """All sides of all arrays, without repeats."""
    return sorted({side for array in arch.arrays.values() for side in array.side})


def open_extents(cascade: Cascade, given: frozenset[str], arch: Architecture, extents: dict[str, int]) -> list[dict[str, int]]:
    """Choices for the tiles of splits whose extent the user did not give."""
    choices: dict[str, list[int]] = {}
    for rank in cascade.ranks:
        if rank.split is None or not isinstance(rank.split.tile, Scalar) or rank.split.tile.name in given:
            continue
        found = {max(1, side * numerator // 4) for side in sides(arch) for numerator in (1, 2, 4, 8, 16)}
        whole = extents[rank.name]
        choices[rank.split.tile.name] = sorted({min(tile, whole) for tile in found if whole}) or [1]
    names = list(choices)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())]


def einsum_order(cascade: Cascade) -> list[str]:
    """Outputs in the order in which their (last) definitions stand."""
    order: dict[str, None] = {}
    for einsum in cascade.einsums:
        order.pop(einsum.output, None)
        order[einsum.output] = None
    return list(order)


Tiles: TypeAlias = Literal["sides", "doubled", "every"]


@dataclass(frozen=True)
class Fixed:
    """What of a mapping is given; all else is searched."""

    arrays: Map_[str, str] = field(default_factory=dict)
    """The array of an Einsum."""
    groups: tuple[frozenset[str], ...] = ()
    """Einsums that are a group by themselves."""
    tiles: Map_[str, int] = field(default_factory=dict)
    """The tile of a rank, where it is looped over."""

    def allows(self, names: frozenset[str]) -> bool:
        """Whether Einsums may be a group."""
        return all(names == group or not names & group for group in self.groups)

    def check(self, cascade: Cascade, arch: Architecture) -> None:
        """Raises EinsmithError (E510, E512) where a name does not exist."""
        known = {einsum.output for einsum in cascade.einsums}
        for name in (*self.arrays, *(name for group in self.groups for name in sorted(group))):
            if name not in known:
                listing = ", ".join(f"`{n}`" for n in sorted(known))
                raise refuse("E510", f"the cascade has no Einsum `{name}`", f"it has {listing}")
        for name, array in self.arrays.items():
            if array not in arch.arrays:
                listing = ", ".join(f"`{n}`" for n in arch.arrays)
                raise refuse("E512", f"`{name}` is bound to `{array}`, which the architecture does not have", f"it has {listing}")
        for rank in self.tiles:
            if rank not in cascade.rank_order:
                listing = ", ".join(f"`{n}`" for n in cascade.rank_order)
                raise refuse("E510", f"the cascade has no rank `{rank}`", f"it has {listing}")


ANYTHING = Fixed()


@dataclass(frozen=True)
class Order:
    """Loops in a given order, with the choices of their tiles."""

    loops: tuple[Loop, ...]
    """With the first choice of each tile."""
    choices: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...]
    """(loops, their tiles): the loops chosen together and every choice."""

    def __len__(self) -> int:
        return math.prod(len(tiles) for _, tiles in self.choices)

    def tiles(self) -> dict[int, Floats]:
        """The tiles of each open loop over all choices."""
        if not self.choices:
            return {}
        index = np.indices([len(tiles) for _, tiles in self.choices]).reshape(len(self.choices), -1)
        return {
            axis: np.array([choice[place] for choice in tiles], dtype=np.float64)[index[number]]
            for number, (axes, tiles) in enumerate(self.choices)
            for place, axis in enumerate(axes)
        }

    def at(self, tiles: Map_[int, Floats], position: int) -> tuple[Loop, ...]:
        """The loops with one choice of tiles."""
        return tuple(
            loop if axis not in tiles else Loop(rank=loop.rank, tile=int(tiles[axis][position]))
            for axis, loop in enumerate(self.loops)
        )


def loop_nests(
    cascade: Cascade,
    arch: Architecture,
    sizes: Sizes,
    names: frozenset[str],
    leaving: frozenset[str],
    tiles: Tiles = "doubled",
    share: int = 1,
) -> Iterator[tuple[Loop, ...]]:
    """All loop nests of a group one by one; most of the illegal ones too."""
    for order in loop_orders(cascade, arch, sizes, names, leaving, tiles, share):
        chosen = order.tiles()
        for position in range(len(order)):
            yield order.at(chosen, position)


def loop_orders(
    cascade: Cascade,
    arch: Architecture,
    sizes: Sizes,
    names: frozenset[str],
    leaving: frozenset[str],
    tiles: Tiles = "doubled",
    share: int = 1,
    fixed: Fixed | None = None,
) -> Iterator[Order]:
    """All orders of loops of a group; the smallest tiles are one `share`-th of a side."""
    einsums = [einsum for einsum in cascade.einsums if einsum.output in names]
    ranks = [rank.name for rank in cascade.ranks if any(rank.name in iterated(einsum) for einsum in einsums)]
    states = [rank for rank in ranks if any(cascade.tensor(e.output).iterates == rank for e in einsums)]
    whole = {e.body.rank for e in einsums if isinstance(e.body, Scan | Select)}
    streams = {(access.tensor, access.indices) for e in einsums for access in accesses(e.body) if access.tensor not in names}
    apart = [
        rank for rank in ranks if rank not in states and rank not in whole and _no_reuse(cascade, rank, einsums, streams, leaving)
    ]
    own = fixed.tiles if fixed is not None else {}
    outside = tuple(Loop(rank=rank, tile=1) for rank in apart if sizes.extents[rank] > 1)
    others = [rank for rank in ranks if rank not in apart and rank not in states and rank not in whole]
    starts = sorted({max(1, side // share) for side in sides(arch)})
    narrow = {rank: [tile for tile in starts if tile < sizes.extents[rank]] for rank in others}
    every = {rank: tile_choices(starts, sizes.extents[rank], tiles) for rank in others}
    for rank in set(own) & set(others):
        narrow[rank] = every[rank] = [own[rank]] if own[rank] < sizes.extents[rank] else []
    free = [rank for rank in others if every[rank]]
    moving = [rank for rank in states if sizes.extents[rank] > 1]
    for count in range(min(len(free), MAX_LOOPED - len(moving)) + 1):
        for chosen in itertools.combinations(free, count):
            choices = {rank: every[rank] for rank in chosen}
            if math.prod(len(found) for found in choices.values()) > MAX_TILINGS:
                choices = {rank: [t for t in found if t & (t - 1) == 0 or t in starts] for rank, found in choices.items()}
            for inner in itertools.permutations([*moving, *chosen]):
                yield _order(outside, inner, choices)
                for rank in inner[1:]:
                    if rank in chosen:
                        yield _order((*outside, Loop(rank=rank, tile=sizes.extents[rank])), inner, choices)
                        if pairs := _pairs(narrow[rank], sizes.extents[rank]):
                            yield _order(outside, (rank, *inner), choices, pairs)


def tile_choices(starts: list[int], extent: int, tiles: Tiles) -> list[int]:
    """Tiles of a rank shorter than the whole."""
    found = set(starts)
    if tiles == "every":
        found |= {side >> shift for side in starts for shift in range(side.bit_length())} | {1}
        divisors = {d for i in range(1, math.isqrt(extent) + 1) if extent % i == 0 for d in (i, extent // i)}
        found |= divisors if len(divisors) <= MAX_DIVISORS else set()
    if tiles != "sides":
        for start in [1, *starts] if tiles == "every" else starts:
            found |= {start << shift for shift in range((extent // start).bit_length())}
    return sorted(tile for tile in found if tile < extent)


def _pairs(tiles: list[int], extent: int) -> list[tuple[int, int]]:
    """(tile of the outer loop, tile of the inner one): the outer one holds 2, 4, 8 ... of them."""
    found = []
    for tile in tiles:
        held = 2
        while held * tile < extent:
            found.append((held * tile, tile))
            held *= 2
    return found


def _order(
    fixed: tuple[Loop, ...], ranks: tuple[str, ...], tiles: dict[str, list[int]], pairs: list[tuple[int, int]] | None = None
) -> Order:
    choices: list[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]] = []
    loops = list(fixed)
    for place, rank in enumerate(ranks):
        axis = len(fixed) + place
        if pairs is not None and rank == ranks[0]:
            if place:
                choices.append(((len(fixed), axis), tuple(pairs)))
            loops.append(Loop(rank=rank, tile=pairs[0][1 if place else 0]))
        elif rank in tiles:
            choices.append(((axis,), tuple((tile,) for tile in tiles[rank])))
            loops.append(Loop(rank=rank, tile=tiles[rank][0]))
        else:
            loops.append(Loop(rank=rank, tile=1))
    return Order(tuple(loops), tuple(sorted(choices, key=lambda choice: loops[choice[0][0]].rank)))


def _no_reuse(
    cascade: Cascade, rank: str, einsums: list[Einsum], streams: set[tuple[str, tuple[Expr, ...]]], leaving: frozenset[str]
) -> bool:
    """Whether each position of a rank has its own part of every input and output of the group and of every Einsum."""
    everywhere = all(rank in iterated(einsum) and rank not in getattr(einsum.body, "ranks", ()) for einsum in einsums)
    apart = all(any(rank in free_ranks(index) for index in indices) for _, indices in streams)
    return everywhere and apart and all(rank in cascade.tensor(tensor).ranks for tensor in leaving)


@dataclass(frozen=True)
class GroupSpace:
    """How many mappings of one fusion group there are in the space."""

    einsums: tuple[str, ...]
    orders: int
    tilings: int
    """Of all orders of loops."""
    holds: int
    """Most combinations of what is held where, of one order."""
    layouts: int
    """Of all arrays together."""
    bindings: int

    @property
    def mappings(self) -> int:
        return self.tilings * self.holds * self.layouts * self.bindings


@dataclass(frozen=True)
class Space:
    """The size of the space that a search covers."""

    cascade: str
    arch: str
    extents: int
    """Choices of extents that splits leave open."""
    partitions: int
    groups: tuple[GroupSpace, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "cascade": self.cascade, "arch": self.arch, "extents": self.extents, "partitions": self.partitions,
            "groups": [
                {
                    "einsums": list(group.einsums), "orders": group.orders, "tilings": group.tilings, "holds": group.holds,
                    "layouts": group.layouts, "bindings": group.bindings, "mappings": group.mappings,
                }
                for group in self.groups
            ],
            "left_out": LEFT_OUT,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [
            f"space of {self.cascade} on {self.arch}",
            f"  extents that splits leave open: {self.extents:,} choices",
            f"  fusion: {self.partitions:,} partitions into {len(self.groups):,} possible groups",
            f"  {'orders':>8} {'tilings':>12} {'holds':>6} {'layouts':>8} {'bindings':>9} {'mappings':>10}  group",
        ]
        for group in self.groups:
            lines.append(
                f"  {group.orders:8,} {group.tilings:12,} {group.holds:6,} {group.layouts:8,} {group.bindings:9,} "
                f"{group.mappings:10.3g}  {', '.join(group.einsums)}"
            )
        return "\n".join(
            [*lines, "schedule: interleaved; illegal mappings and those that do not fit are counted too", f"left out: {LEFT_OUT}"]
        )


LEFT_OUT = (
    "other tiles, several ranks along one side, loops private to one Einsum of a group, recomputation, spilling of running "
    "results, other orders of the Einsums than the cascade's"
)


def explain(
    cascade: Cascade,
    arch: Architecture,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    tiles: Tiles = "doubled",
    fixed: Fixed = ANYTHING,
) -> Space:
    """The size of the space, by group and dimension."""
    arch.require_plain()
    flat = flatten(cascade)
    fixed.check(flat, arch)
    bound = bind(flat, sizes, params)
    names = einsum_order(flat)
    groups: list[GroupSpace] = []
    ways = [1] + [0] * len(names)
    for j in range(1, len(names) + 1):
        for i in range(j):
            inside = frozenset(names[i:j])
            if together(flat, inside) and fixed.allows(inside):
                ways[j] += ways[i]
                groups.append(_group_space(flat, arch, bound, tuple(names[i:j]), tiles, fixed))
    choices = open_extents(flat, frozenset(sizes or {}), arch, dict(bound.extents))
    return Space(cascade.name, arch.name, len(choices), ways[-1], tuple(groups))


def _group_space(
    cascade: Cascade, arch: Architecture, sizes: Sizes, names: tuple[str, ...], tiles: Tiles, fixed: Fixed
) -> GroupSpace:
    inside = frozenset(names)
    read = {access.tensor for e in cascade.einsums if e.output not in inside for access in accesses(e.body)}
    leaving = frozenset(name for name in names if name in read or name in cascade.outputs)
    orders = list(loop_orders(cascade, arch, sizes, inside, leaving, tiles, 1, fixed))
    einsums = [einsum for einsum in cascade.einsums if einsum.output in inside]
    streams = {(access.tensor, access.indices) for e in einsums for access in accesses(e.body) if access.tensor not in inside}
    holds = 1
    for order in orders:
        ways = [sum(loop.rank in _ranks(indices) for loop in order.loops) for _, indices in streams]
        holds = max(holds, math.prod(max(1, count) for count in ways))
    ranks = {rank for einsum in einsums for rank in iterated(einsum) if sizes.extents[rank] > 1}
    layouts = math.prod(math.perm(len(ranks), min(len(array.side), len(ranks))) for array in arch.arrays.values())
    able: dict[str, set[str]] = {}
    for einsum in einsums:
        mine = {
            name
            for name, array in arch.arrays.items()
            if all(array.expand(item.operation) is not None for item in work(einsum, sizes.scalars))
            and fixed.arrays.get(einsum.output, name) == name
        }
        able[einsum.output] = able.get(einsum.output, mine) & mine
    bindings = math.prod(len(arrays) for arrays in able.values())
    return GroupSpace(names, len(orders), sum(len(order) for order in orders), holds, layouts, bindings)


def _ranks(indices: tuple[Expr, ...]) -> frozenset[str]:
    return frozenset().union(*(free_ranks(index) for index in indices))


def together(cascade: Cascade, names: frozenset[str]) -> bool:
    """Whether a running state and all that follow it as it runs are all in a group or all outside."""
    for einsum in cascade.einsums:
        for access in accesses(einsum.body):
            tensor = cascade.tensor(access.tensor)
            if tensor.iterates and (access.tensor in names) != (einsum.output in names):
                index = access.indices[tensor.ranks.index(tensor.iterates)]
                if free_ranks(index):
                    return False
    return True
