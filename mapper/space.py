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
* of layouts and bindings, those that are not dominated in cycles per array and in energy; of equal layouts the one with least
  latency of reductions;
* a tensor that lives within a tile is handed on where that is legal, else stays in the registers of any array that makes or reads
  it, or in any level; what lives across tiles, in a level;
* interleaved schedule (or another one that is asked for), as many tiles in flight as hide the latency of a tile twice over, or as
  registers and buffer allow; two buffer slots;
* with `--peel`, first steps of running states are peeled wherever initial values leave something undone: never worse than whole.

Any of this can be fixed (`Fixed`): the rest is then searched, and "optimal" and "only where no mapping fits" refer to what obeys.

Left out: other tiles, several ranks along one side, loops private to one Einsum of a group, recomputation,
spilling of running results, other orders of the Einsums than the cascade's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..einsum.cascade import Cascade, Einsum, Expr, Scalar, Scan, Select, accesses, free_ranks
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind
from .architecture import Architecture
from .mapping import Loop, Schedule
from .operations import work
from .steps import FORWARD, iterated, refuse
from .team import require_searchable, teams

MAX_LOOPED = 4
"""Most ranks, besides those without reuse, that one group loops over."""
MAX_DIVISORS = 32
"""Most divisors of an extent that are all tried as tiles."""
MAX_TILINGS = 2**17
"""Tilings of a group beyond which tiles are powers of two and sides of arrays alone, and then fewer ranks are looped over."""


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
    """The tile of a rank, where it is looped over: the inner one of two."""
    layouts: Map_[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """The ranks of an Einsum along each side of its array."""
    loops: Map_[str, tuple[str, ...]] = field(default_factory=dict)
    """By Einsum, the ranks of the loops of its group that have several iterations, those over instances apart."""
    teams: Map_[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    """By Einsum, (level, rank) of each loop of its group that is spread over instances."""
    holds: Map_[str, Map_[str, str | None]] = field(default_factory=dict)
    """By input and level, the rank of the loop that holds it there; none: outside all loops over its ranks."""
    stays: Map_[str, str] = field(default_factory=dict)
    """Where a tensor that a group makes for itself stays."""
    schedules: Map_[str, Schedule] = field(default_factory=dict)
    """By Einsum, the schedule of its group."""
    in_flight: Map_[str, int] = field(default_factory=dict)
    """By Einsum, how many tiles its group works on at once."""
    peel: bool = False
    """Whether first steps of running states are peeled wherever that leaves something out."""

    @property
    def particular(self) -> bool:
        """Whether anything but arrays, groups and tiles is fixed."""
        return any((self.layouts, self.loops, self.teams, self.holds, self.stays, self.schedules, self.in_flight))

    def of(self, by: Map_[str, Any], names: frozenset[str]) -> Any:
        """What is fixed of a group, by the first of its Einsums for which something is; None if nothing is."""
        return next((by[name] for name in sorted(names & by.keys())), None)

    def allows(self, names: frozenset[str]) -> bool:
        """Whether Einsums may be a group."""
        return all(names == group or not names & group for group in self.groups)

    def check(self, cascade: Cascade, arch: Architecture) -> None:
        """Raises EinsmithError (E510, E512, E545) where a name does not exist, or something is not in the space at all."""
        einsums = {einsum.output for einsum in cascade.einsums}
        by_einsum: list[Map_[str, Any]] = [self.arrays, self.layouts, self.loops, self.teams, self.schedules, self.in_flight]
        named = [
            *(name for by in by_einsum for name in by),
            *(name for group in self.groups for name in sorted(group)),
            *self.stays,
        ]
        _known("E510", "the cascade has no Einsum", named, einsums)
        for name, array in self.arrays.items():
            if array not in arch.arrays:
                listing = ", ".join(f"`{n}`" for n in arch.arrays)
                raise refuse("E512", f"`{name}` is bound to `{array}`, which the architecture does not have", f"it has {listing}")
        ranks = [*self.tiles, *(rank for loops in self.loops.values() for rank in loops)]
        ranks += [rank for sides in self.layouts.values() for along in sides for rank in along]
        ranks += [rank for by in self.holds.values() for rank in by.values() if rank is not None]
        ranks += [rank for loops in self.teams.values() for _, rank in loops]
        _known("E510", "the cascade has no rank", ranks, cascade.rank_order)
        _known("E510", "the cascade has no tensor", self.holds, {tensor.name for tensor in cascade.tensors})
        levels = [level for by in self.holds.values() for level in by] + [level for by in self.teams.values() for level, _ in by]
        _known("E510", "a hold or a loop names", levels, arch.on_chip, "the levels on the chip are")
        _known("E510", "a tensor is to stay in", self.stays.values(), (FORWARD, *arch.arrays, *arch.on_chip), "the places are")
        for name, sides in self.layouts.items():
            if any(len(along) > 1 for along in sides):
                raise refuse("E545", f"`{name}` has several ranks along one side; the search lays one along each", MODEL)
        for name, schedule in self.schedules.items():
            if schedule == "phases":
                raise refuse("E545", f"the group of `{name}` has phases, which the search does not choose", MODEL)


def _known(code: str, what: str, names: Iterable[str], known: Collection[str], there: str = "it has") -> None:
    for name in names:
        if name not in known:
            listing = ", ".join(f"`{each}`" for each in sorted(known))
            raise refuse(code, f"{what} `{name}`", f"{there} {listing}")


MODEL = "a whole mapping file is costed by `einsmith model`"
ANYTHING = Fixed()
NEVER = ("",)
"""Loops that no group has."""


@dataclass(frozen=True)
class Cut:
    """Loops over tiles in no order yet."""

    moving: tuple[str, ...]
    """Ranks of running states, tile 1."""
    chosen: tuple[str, ...]
    """Other ranks that are looped over."""
    outer: str | None = None
    """One of them, with a second loop outside all others."""
    only: tuple[str, ...] | None = None
    """The ranks of the loops in the one order that is wanted."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The rank of each loop; the second one over `outer` first."""
        return (*((self.outer,) if self.outer else ()), *self.moving, *self.chosen)

    def orders(self) -> Iterator[tuple[int, ...]]:
        """The loops, as positions in `axes`, in every order; a second loop right around the first is the same as none."""
        first = (0,) if self.outer else ()
        for order in itertools.permutations(range(len(first), len(self.axes))):
            if first and self.axes[order[0]] == self.outer:
                continue
            if self.only is None or self.only == tuple(self.axes[axis] for axis in first + order):
                yield first + order


@dataclass(frozen=True)
class Looped:
    """What the loops of a group are made of."""

    outside: tuple[Loop, ...]
    """First, with tile 1: ranks along which nothing is used twice."""
    moving: tuple[str, ...]
    choices: Map_[str, tuple[int, ...]]
    """The tiles of each rank that may be looped over."""
    narrow: Map_[str, tuple[int, ...]]
    """Those that may have a second loop outside."""
    extents: Map_[str, int]
    most: int
    """Most ranks looped over at once, those outside apart."""
    only: tuple[str, ...] | None = None
    """The ranks of the loops besides those outside, in the one order that is wanted."""

    def cuts(self) -> Iterator[Cut]:
        """Those with one loop over each rank."""
        for count in range(self.most - len(self.moving) + 1):
            for chosen in itertools.combinations(self.choices, count):
                if self.only is None or set(self.only) == {*self.moving, *chosen}:
                    yield Cut(self.moving, chosen, only=self.only)

    def doubled(self, cut: Cut) -> Iterator[Cut]:
        """The same loops and a second one over a rank, where another loop can come between them."""
        if len(cut.axes) > 1:
            for rank in cut.chosen:
                if self.pairs(rank) and (self.only is None or self.only.count(rank) == 2):
                    yield Cut(cut.moving, cut.chosen, rank, self.only)

    def pairs(self, rank: str) -> list[tuple[int, int]]:
        """(tile of the outer loop, tile of the inner one): the outer one holds 2, 4, 8 ... of them."""
        found = []
        for tile in self.narrow[rank]:
            held = 2
            while held * tile < self.extents[rank]:
                found.append((held * tile, tile))
                held *= 2
        return found

    def tilings(self, cut: Cut) -> list[list[tuple[int, ...]]]:
        """For the loops chosen together (those of one rank), every choice of their tiles."""
        found: list[list[tuple[int, ...]]] = [[(1,)] for _ in cut.moving]
        for rank in cut.chosen:
            found.append(list(self.pairs(rank)) if rank == cut.outer else [(tile,) for tile in self.choices[rank]])
        return found

    def loops(self, cut: Cut, order: tuple[int, ...], tiles: Map_[str, tuple[int, ...]]) -> tuple[Loop, ...]:
        """The loops in an order, `outside` left out; `tiles`: of each rank, the outermost first."""
        return tuple(
            Loop(rank=cut.axes[axis], tile=tiles[cut.axes[axis]][0 if cut.outer is not None and axis == 0 else -1])
            for axis in order
        )


def looped_ranks(
    cascade: Cascade,
    arch: Architecture,
    sizes: Sizes,
    names: frozenset[str],
    leaving: frozenset[str],
    tiles: Tiles,
    share: int,
    fixed: Fixed,
) -> Looped:
    """The loops that a group may have; the smallest tiles are one `share`-th of a side."""
    einsums = [einsum for einsum in cascade.einsums if einsum.output in names]
    used = frozenset().union(*map(iterated, einsums))
    ranks = [rank.name for rank in cascade.ranks if rank.name in used]
    states = [rank for rank in ranks if any(cascade.tensor(e.output).iterates == rank for e in einsums)]
    whole = {e.body.rank for e in einsums if isinstance(e.body, Scan | Select)}
    streams = {(access.tensor, access.indices) for e in einsums for access in accesses(e.body) if access.tensor not in names}
    apart = [
        rank for rank in ranks if rank not in states and rank not in whole and _no_reuse(cascade, rank, einsums, streams, leaving)
    ]
    own = fixed.tiles
    outside = tuple(Loop(rank=rank, tile=1) for rank in apart if sizes.extents[rank] > 1)
    others = [rank for rank in ranks if rank not in apart and rank not in states and rank not in whole]
    starts = sorted({max(1, side // share) for side in sides(arch)})
    narrow = {rank: [tile for tile in starts if tile < sizes.extents[rank]] for rank in others}
    every = {rank: tile_choices(starts, sizes.extents[rank], tiles) for rank in others}
    for rank in set(own) & set(others):
        narrow[rank] = every[rank] = [own[rank]] if own[rank] < sizes.extents[rank] else []
    every = {rank: found for rank, found in every.items() if found}
    moving = tuple(rank for rank in states if sizes.extents[rank] > 1)
    most = max(len(moving), min(MAX_LOOPED, len(moving) + len(every)))
    only = _only(fixed.of(fixed.loops, names), outside, own, sizes)
    if only is not None:
        every = {rank: found for rank, found in every.items() if rank in only}
        most = len(moving) + len(every)
    if _tilings(every, most - len(moving)) > MAX_TILINGS:
        every = {rank: [t for t in found if t & (t - 1) == 0 or t in starts] for rank, found in every.items()}
    while most > len(moving) + 1 and _tilings(every, most - len(moving)) > MAX_TILINGS:
        most -= 1
    chosen = {rank: tuple(found) for rank, found in every.items()}
    return Looped(outside, moving, chosen, {rank: tuple(found) for rank, found in narrow.items()}, sizes.extents, most, only)


def _only(wanted: tuple[str, ...] | None, outside: tuple[Loop, ...], tiles: Map_[str, int], sizes: Sizes) -> tuple[str, ...] | None:
    """The ranks of the loops after those outside, where all are fixed; `NEVER` where those outside do not come first."""
    if wanted is None:
        return None
    several = [rank for rank in wanted if sizes.extents[rank] > 1 and tiles.get(rank, 1) < sizes.extents[rank]]
    first, rest = several[: len(outside)], several[len(outside) :]
    return tuple(rest) if set(first) == {loop.rank for loop in outside} else NEVER


def _tilings(choices: Map_[str, list[int]], most: int) -> int:
    """How many tilings there are with so many ranks looped over at most."""
    ways = [1] + [0] * most
    for found in choices.values():
        for count in range(most, 0, -1):
            ways[count] += ways[count - 1] * len(found)
    return sum(ways)


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
    teams: int
    """Ways in which instances share the work."""
    orders: int
    """Of loops, for all teams."""
    tilings: int
    """Of all orders."""
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
    fixed: Fixed = ANYTHING

    def as_json(self) -> dict[str, Any]:
        from .fixed import words

        return {
            "cascade": self.cascade, "arch": self.arch, "fixed": list(words(self.fixed)),
            "extents": self.extents, "partitions": self.partitions,
            "groups": [
                {
                    "einsums": list(group.einsums), "teams": group.teams, "orders": group.orders,
                    "tilings": group.tilings, "holds": group.holds,
                    "layouts": group.layouts, "bindings": group.bindings, "mappings": group.mappings,
                }
                for group in self.groups
            ],
            "left_out": LEFT_OUT,
        }  # fmt: skip

    def __str__(self) -> str:
        from .fixed import words

        lines = [
            f"space of {self.cascade} on {self.arch}",
            f"  extents that splits leave open: {self.extents:,} choices",
            f"  fusion: {self.partitions:,} partitions into {len(self.groups):,} possible groups",
            f"  {'teams':>5} {'orders':>8} {'tilings':>12} {'holds':>6} {'layouts':>8} {'bindings':>9} {'mappings':>10}  group",
        ]
        for group in self.groups:
            lines.append(
                f"  {group.teams:5,} {group.orders:8,} {group.tilings:12,} {group.holds:6,} {group.layouts:8,} {group.bindings:9,} "
                f"{group.mappings:10.3g}  {', '.join(group.einsums)}"
            )
        schedule = ", ".join(sorted(set(self.fixed.schedules.values()))) or "interleaved"
        peeled = "peeled" if self.fixed.peel else "whole (`--peel` peels them)"
        lines.append(
            f"schedule: {schedule}; first steps of running states: {peeled}; illegal mappings and those that do not fit count too"
        )
        if given := words(self.fixed):
            lines.append(f"fixed: {'; '.join(given)}")
        return "\n".join([*lines, f"left out: {LEFT_OUT}"])


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
    require_searchable(arch)
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
    return Space(cascade.name, arch.name, len(choices), ways[-1], tuple(groups), fixed)


def _group_space(
    cascade: Cascade, arch: Architecture, sizes: Sizes, names: tuple[str, ...], tiles: Tiles, fixed: Fixed
) -> GroupSpace:
    inside = frozenset(names)
    read = {access.tensor for e in cascade.einsums if e.output not in inside for access in accesses(e.body)}
    leaving = frozenset(name for name in names if name in read or name in cascade.outputs)
    einsums = [einsum for einsum in cascade.einsums if einsum.output in inside]
    streams = {(access.tensor, access.indices) for e in einsums for access in accesses(e.body) if access.tensor not in inside}
    orders = tilings = 0
    holds = 1
    spread = fixed.of(fixed.teams, inside)
    groups = [
        team
        for team in teams(cascade, arch, sizes, inside)
        if spread is None or spread == {(str(loop.over), loop.rank) for loop in team.loops}
    ]
    for team in groups:
        looped = looped_ranks(cascade, arch, team.sizes, inside, leaving, tiles, 1, fixed)
        for plain in looped.cuts():
            for cut in (plain, *looped.doubled(plain)):
                listed = list(cut.orders())
                again = sum(cut.axes[axis] in cut.chosen for order in listed for axis in order[1:]) if cut.outer is None else 0
                orders += len(listed) + again
                tilings += (len(listed) + again) * math.prod(len(choice) for choice in looped.tilings(cut))
                axes = (*(loop.rank for loop in looped.outside), *cut.axes)
                free = [
                    max(1, sum(rank in _ranks(indices) for rank in axes))
                    for level in arch.on_chip
                    for tensor, indices in streams
                    if level not in fixed.holds.get(tensor, {})
                ]
                holds = max(holds, math.prod(free))
    ranks = {rank for einsum in einsums for rank in iterated(einsum) if sizes.extents[rank] > 1}
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
    layouts = 1
    for name, array in arch.arrays.items():
        given = [each for each, arrays in able.items() if each in fixed.layouts and arrays == {name}]
        own = {each: frozenset().union(*(iterated(e) for e in einsums if e.output == each)) for each in given}
        layouts *= sum(
            all(
                _laid(layout, own[each]) == _laid([along[0] if along else "" for along in fixed.layouts[each]], own[each])
                for each in given
            )
            for layout in itertools.permutations(sorted(ranks), min(len(array.side), len(ranks)))
        )
    return GroupSpace(names, len(groups), orders, tilings, holds, layouts, bindings)


def _laid(layout: Sequence[str], own: frozenset[str]) -> list[tuple[int, str]]:
    """The sides along which an Einsum has a rank, and which."""
    return [(side, rank) for side, rank in enumerate(layout) if rank in own]


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
