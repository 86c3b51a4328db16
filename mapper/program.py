"""GPU programs: which Einsums run where, decided by data flow alone.

In: a cascade and its extents. Out: a `Program`: the blocked cascade cut into phases (straight code and loops over the sequential
rank, one loop per level that the cascade needs), and a role for every rank:

* grid: on every output and never reduced; one coordinate per program instance;
* tiled: the grid rank (or two) along which an input used in the loop is shared, so that a block of coordinates reuses it;
* loop: walked in order, with running states in registers;
* whole: everything else; a tile holds all its coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from ..einsum.cascade import (
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
    accesses,
    fact,
    free_ranks,
    walk,
)
from ..einsum.diagnostics import EinsmithError
from .blocking import (
    SMALL,
    Blocked,
    block,
    bound_ranks,
    divides,
    in_place,
    needs_whole,
    reads,
    reads_whole,
    refuse,
    scanned,
    whole_coordinate,
)
from .recast import recasts
from .turned import turned, turned_pairs

WHOLE_COORDINATE = "(loop)"
"""Name of the rank variable that stands for the loop coordinate, such as m1*M0+m0, in a normalised expression."""


@dataclass(frozen=True)
class Straight:
    """Einsums that run once per program instance."""

    einsums: tuple[Einsum, ...]


@dataclass(frozen=True)
class Loop:
    """One walk over the sequential rank."""

    initial: tuple[Einsum, ...]
    """Sets the states."""
    body: tuple[Einsum, ...]
    """Runs at every step."""
    states: tuple[str, ...]
    """What one step leaves for the next."""


@dataclass(frozen=True)
class Program:
    """A cascade arranged for one GPU kernel."""

    source: Cascade
    """As it was given."""
    cascade: Cascade
    """Blocked: every Einsum of the phases belongs to it."""
    grid: tuple[str, ...]
    """Ranks of the program instances, the tiled ones among them."""
    tiled: tuple[str, ...]
    """Those of which an instance has a block of coordinates."""
    loop: str | None
    """The rank that loops walk; None if nothing is walked."""
    inner: str | None
    """The rank within one step of them, where the walked rank is cut."""
    whole: tuple[str, ...]
    """Ranks of which a tile holds all coordinates."""
    phases: tuple[Straight | Loop, ...]
    """In the order in which they run."""
    stores: Mapping[str, tuple[Expr, ...]]
    """Output -> the indices at which it is written."""
    free_tile: bool
    """Is the extent of `inner` the plan's to choose?"""
    made: frozenset[str] = frozenset()
    """Ranks of the grid that stand for others of the cascade (`recast`): an index that depends on them may be beyond an end."""

    @cached_property
    def memo(self) -> dict[tuple[object, ...], Any]:
        """What has been worked out about this program (see `remembered`)."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What another process is given: nothing that was found out."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def loops(self) -> tuple[Loop, ...]:
        return tuple(phase for phase in self.phases if isinstance(phase, Loop))

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Ranks along which a tile has more than one coordinate, in the order in which tiles hold them."""
        inner = (self.inner,) if self.inner is not None else ()
        return (*self.tiled, *inner, *(rank for rank in self.whole if rank not in inner))

    def axes_of(self, expr: Expr) -> frozenset[str]:
        """Axes along which an expression varies within a tile."""
        found = set(mentioned(expr))
        if WHOLE_COORDINATE in found and self.inner is not None:
            found.add(self.inner)
        bound = frozenset(expr.ranks) if isinstance(expr, Reduce) else frozenset()
        if isinstance(expr, Select):
            found |= {expr.fills}
            bound = frozenset({expr.rank})
        return (frozenset(found) - bound) & frozenset(self.axes)

    def in_loop(self, tensor: str) -> bool:
        """Is there one value of the tensor per step of the loop?"""
        return self.loop is not None and self.loop in self.cascade.tensor(tensor).ranks


@fact
def mentioned(expr: Expr) -> frozenset[str]:
    """Ranks that occur free in an expression or in what it reads."""
    return free_ranks(expr).union(*(free_ranks(access) for access in accesses(expr)))


def program(cascade: Cascade, extents: Mapping[str, int], small: int = SMALL) -> Program:
    """Arrange a cascade as one kernel. Raises EinsmithError (E602 to E604) where that cannot be done."""
    blocked = block(in_place(cascade), extents, small)
    _check_reads(blocked)
    grid = _parallel(blocked, extents, WHOLE)
    phases = _phases(blocked)
    return _arranged(cascade, blocked, grid, _tiled(blocked, grid, phases, extents), phases)


def arrangements(cascade: Cascade, extents: Mapping[str, int]) -> Iterator[Program]:
    """Other roles for the same ranks: what `program` holds whole, one coordinate (or a tile) per program instance, and the other
    way round; tiles along another rank of the grid, or along none (where all else is held whole, a tile of heads would only add an
    axis to each product); the same with the ranks of the grid cast in another way."""
    hold = False
    for cast in recasts(in_place(cascade), extents):
        try:
            blocked = block(cast, extents, hold=hold)
            _check_reads(blocked)
            phases = _phases(blocked)
        except EinsmithError:
            if not cast.made:
                raise
            continue
        hold = hold or (not cast.made and blocked.loop is None)
        grids = dict.fromkeys(_parallel(blocked, extents, longest) for longest in (WHOLE, 1, 0, LARGEST_WHOLE))
        for grid in grids:
            others = ((rank,) for rank in grid if extents.get(rank, 1) > 1 or rank in cast.made)
            for tiled in dict.fromkeys([_tiled(blocked, grid, phases, extents), *others, ()]):
                yield _arranged(cascade, blocked, grid, tiled, phases)


def _arranged(
    cascade: Cascade, blocked: Blocked, grid: tuple[str, ...], tiled: tuple[str, ...], phases: tuple[Straight | Loop, ...]
) -> Program:
    flat = blocked.cascade
    used = {r for e in flat.einsums for r in (*free_ranks(e.body), *bound_ranks(e), *scanned(e), *_left(e))}
    used |= {e.body.rank for e in flat.einsums if isinstance(e.body, Select)}
    inner = blocked.inner
    _check_whole(flat, blocked.loop, inner)
    _check_tails(flat, blocked.loop, inner)
    whole = tuple(
        r.name for r in flat.ranks if r.name in used and r.name not in grid and r.name != blocked.loop and r.name != inner
    )
    return Program(
        cascade, flat, grid, tiled, blocked.loop, inner, whole, phases, blocked.stores, blocked.free_tile, blocked.made
    )  # fmt: skip


def _check_whole(flat: Cascade, loop: str | None, inner: str | None) -> None:
    """What finds positions along a rank needs all of it in one tile, and so do the places that it fills."""
    for einsum in flat.einsums:
        if isinstance(einsum.body, Select) and einsum.body.fills in (loop, inner, flat.rank(loop).part_of if loop else None):
            raise refuse("E603", f"no kernel fills `{einsum.body.fills}` tile by tile in the Einsum of `{einsum.output}`", einsum)
        rank = needs_whole(einsum)
        if rank is not None and rank in (loop, inner, flat.rank(loop).part_of if loop else None):
            op = einsum.body.op if isinstance(einsum.body, Reduce | Select) else "?"
            raise refuse("E603", f"no kernel finds `{op}` along `{rank}` tile by tile in the Einsum of `{einsum.output}`", einsum)


def _check_tails(flat: Cascade, loop: str | None, inner: str | None) -> None:
    """Points beyond the end of a split rank are left out only where the loop walks its outer part, a tile at a time."""
    for einsum in flat.einsums:
        if isinstance(einsum.body, Scan):
            continue  # what comes before the end of a tile does not depend on what is beyond it
        ranks = free_ranks(einsum.body) | frozenset(bound_ranks(einsum)) | _left(einsum)
        if isinstance(einsum.body, Select):
            ranks |= {einsum.body.rank}
        for split in flat.domain_splits(ranks):
            assert split.split is not None
            exists = Map("<", (whole_coordinate(flat, split.name), split.extent))
            if divides(split) or exists in walk(einsum.body) or not _meets(flat, split, einsum):
                continue
            if (split.split.outer, split.split.inner) != (loop, inner):
                outer, inner_part = split.split.outer, split.split.inner
                message = f"no kernel goes along `{outer}` and `{inner_part}` together unless it walks `{outer}` in order"
                help = f"the last tile of `{split.name}` may be cut: make `{outer}` the rank of a running state"
                raise refuse("E603", message, einsum, help=help)


def _meets(flat: Cascade, split: Rank, einsum: Einsum) -> bool:
    """Does it matter to an Einsum that a split rank has points beyond its end: to what it reduces or reads, or where it writes?"""
    assert split.split is not None
    if {split.split.outer, split.split.inner} & set(bound_ranks(einsum)) or isinstance(einsum.body, Select):
        return True
    return any(reads_whole(flat, split, node) for node in walk(einsum.body))


def _left(einsum: Einsum) -> frozenset[str]:
    return frozenset().union(*(free_ranks(index) for index in einsum.indices))


def _check_reads(blocked: Blocked) -> None:
    """Intermediates must be read at the coordinates of the tile at hand; states at this position, the next or the last."""
    flat = blocked.cascade
    for einsum in flat.einsums:
        for access in reads(einsum):
            tensor = flat.tensor(access.tensor)
            other = turned(flat, einsum, access) or {}
            if tensor.kind == "input" or (other and not {blocked.loop, blocked.inner} & {*other, *other.values()}):
                continue
            for rank, index in zip(tensor.ranks, access.indices, strict=True):
                plain = index == Coord(rank)
                if tensor.iterates == rank and position(flat, tensor.name, index) is not None:
                    continue
                if not plain:
                    raise refuse(
                        "E604",
                        f"`{tensor.name}` is read at other coordinates than its own in the Einsum of `{einsum.output}`",
                        einsum,
                    )


def position(cascade: Cascade, state: str, index: Expr) -> str | None:
    """Which position of a state an index means: "now", "next", "first" or "last"."""
    rank = cascade.tensor(state).iterates
    assert rank is not None
    if index == Coord(rank):
        return "now"
    if index == Map("+", (Coord(rank), Number(1))) or index == Map("+", (Number(1), Coord(rank))):
        return "next"
    if index == Number(0):
        return "first"
    extent = cascade.rank(rank).extent
    if index == extent or (isinstance(index, Scalar) and cascade.counts.get(index.name) == extent):
        return "last"
    parent = cascade.rank(rank).part_of
    count = cascade.rank(parent).split.count if parent and cascade.rank(parent).split else None  # type: ignore[union-attr]
    return "last" if count is not None and getattr(index, "name", None) == count else None


WHOLE = 1024
"""Longest rank that is held whole, elements, to save computing a reduction again for each of its blocks; a first guess, see
`arrangements`."""
LARGEST_WHOLE = 2**20


def _parallel(blocked: Blocked, extents: Mapping[str, int], longest: int) -> tuple[str, ...]:
    """Ranks that are on every output, never reduced, and along which little would be computed again.

    A rank that a reduction lacks (the features of the values, which the scores do not have) is held whole up to `longest`.
    """
    flat = blocked.cascade
    on_all = [set().union(*(free_ranks(index) for index in indices)) for indices in blocked.stores.values()]
    common = set.intersection(*on_all) if on_all else set()
    common -= {rank for einsum in flat.einsums for rank in (*bound_ranks(einsum), *scanned(einsum))}
    common -= {rank for einsum in flat.einsums if isinstance(einsum.body, Select) for rank in (einsum.body.rank, einsum.body.fills)}
    common -= {blocked.loop, blocked.inner, *(rank for pair in turned_pairs(flat) for rank in pair)}
    for einsum in flat.einsums:
        carried = set(flat.tensor(einsum.output).ranks)
        if isinstance(einsum.body, Reduce) and carried & common:
            common = {rank for rank in common if rank in carried or extents.get(rank, 0) > longest}
    # an output index must be the bare rank, or one to one with ranks that stand for it: one program instance writes it
    for indices in blocked.stores.values():
        common &= {index.rank for index in indices if isinstance(index, Coord)} | blocked.made
    return tuple(rank.name for rank in flat.ranks if rank.name in common)


def _phases(blocked: Blocked) -> tuple[Straight | Loop, ...]:
    """Cut the cascade into straight code and loops, by the level of each Einsum along the loop rank."""
    flat, loop = blocked.cascade, blocked.loop
    if loop is None:
        return (Straight(flat.einsums),)
    steps = [e for e in flat.einsums if loop in _left(e)]
    inside = {e.output for e in steps}
    level: dict[str, int] = {t.name: 0 for t in flat.tensors}  # of a tensor in the loop: its loop; of others: after which loop
    changed, rounds = True, 0
    while changed:
        changed, rounds = False, rounds + 1
        if rounds > len(flat.einsums) + 2:
            raise refuse("E602", f"the order of the Einsums along `{loop}` has no schedule")
        for einsum in flat.einsums:
            stepping = loop in _left(einsum)
            found = 1 if stepping else 0
            for access in reads(einsum):
                tensor = flat.tensor(access.tensor)
                complete = False
                if tensor.kind == "state":
                    where = position(flat, tensor.name, access.indices[tensor.ranks.index(loop)])
                    complete = where in ("last",)
                    if where == "first":
                        raise refuse(
                            "E604", f"`{tensor.name}` is read at its first position in the Einsum of `{einsum.output}`", einsum
                        )
                if access.tensor in inside and not complete:
                    if not stepping:
                        raise refuse(
                            "E604", f"`{access.tensor}` is read outside its loop in the Einsum of `{einsum.output}`", einsum
                        )
                    found = max(found, level[access.tensor])
                else:
                    found = max(found, level[access.tensor] + (1 if stepping else 0))
            if tensor_is_state(flat, einsum.output) and not stepping:
                continue  # an initial value: placed with its loop
            if found > level[einsum.output]:
                level[einsum.output] = found
                changed = True
    loops = max((level[e.output] for e in steps), default=0)
    phases: list[Straight | Loop] = []
    outside = [e for e in flat.einsums if e.output not in inside]
    for number in range(loops + 1):
        if number:
            phases.append(_loop(blocked, steps, level, number))
        straight = tuple(e for e in outside if level[e.output] == number)
        if straight:
            phases.append(Straight(straight))
    return tuple(phases)


def tensor_is_state(cascade: Cascade, name: str) -> bool:
    return cascade.tensor(name).kind == "state"


def _loop(blocked: Blocked, steps: list[Einsum], level: Mapping[str, int], number: int) -> Loop:
    """The loop of one level: its own Einsums, and those of earlier levels that it needs again."""
    flat, loop = blocked.cascade, blocked.loop
    assert loop is not None
    wanted = {e.output for e in steps if level[e.output] == number}
    todo = list(wanted)
    while todo:
        name = todo.pop()
        for einsum in steps:
            if einsum.output != name:
                continue
            for access in reads(einsum):
                tensor = flat.tensor(access.tensor)
                if loop not in tensor.ranks or tensor.kind == "input" or tensor.name in wanted:
                    continue
                if tensor.kind == "state" and position(flat, tensor.name, access.indices[tensor.ranks.index(loop)]) == "last":
                    continue
                wanted.add(tensor.name)
                todo.append(tensor.name)
    states = tuple(t.name for t in flat.tensors if t.kind == "state" and t.name in wanted)
    initial = tuple(e for e in flat.einsums if e.output in states and loop not in _left(e))
    body = tuple(e for e in steps if e.output in wanted)
    return Loop(initial, _ordered(flat, loop, body), states)


def _ordered(cascade: Cascade, loop: str, body: tuple[Einsum, ...]) -> tuple[Einsum, ...]:
    """The Einsums of one step so that everything is computed before it is read within the step."""
    done: set[str] = set()
    produced = {e.output for e in body}
    rest, order = list(body), []
    while rest:
        for einsum in rest:
            needs = set()
            for access in reads(einsum):
                tensor = cascade.tensor(access.tensor)
                if tensor.name not in produced:
                    continue
                if tensor.kind == "state":
                    where = position(cascade, tensor.name, access.indices[tensor.ranks.index(loop)])
                    if where != "next":
                        continue
                needs.add(tensor.name)
            if needs <= done:
                order.append(einsum)
                done.add(einsum.output)
                rest.remove(einsum)
                break
        else:
            raise refuse("E602", f"the Einsum of `{rest[0].output}` needs itself within one step of `{loop}`", rest[0])
    return tuple(order)


def _tiled(
    blocked: Blocked, grid: tuple[str, ...], phases: tuple[Straight | Loop, ...], extents: Mapping[str, int]
) -> tuple[str, ...]:
    """The grid rank along which most inputs are shared; a second one if no tile gets more than two axes by it. So the one along
    which outputs lie in memory, where nothing is walked."""
    flat = blocked.cascade
    bodies = [e for phase in phases for e in (phase.body if isinstance(phase, Loop) else phase.einsums)]

    def shared(rank: str) -> int:
        return sum(
            1
            for e in bodies
            for a in accesses(e.body)
            if flat.tensor(a.tensor).kind == "input" and a.indices and rank not in free_ranks(a)
        )  # fmt: skip

    def widest(ranks: tuple[str, ...]) -> int:
        kept = set(grid) - set(ranks)
        if blocked.loop is not None:
            kept.add(blocked.loop)
        return max((len(set(flat.tensor(e.output).ranks) - kept) for e in bodies), default=0)

    order = sorted(grid, key=lambda r: (-shared(r), -min(extents.get(r, 1), 4096), grid.index(r)))
    chosen: tuple[str, ...] = ()
    for rank in order[:2]:
        if chosen and (not shared(rank) or widest((*chosen, rank)) > 2):
            break
        chosen = (*chosen, rank)
    rows = {index.rank for indices in blocked.stores.values() for index in indices[-1:] if isinstance(index, Coord)}
    if blocked.loop is None and rows <= set(grid) - set(chosen):
        chosen += tuple(rank for rank in order if rank in rows and widest((*chosen, rank)) <= 2)[:1]
    return tuple(rank for rank in grid if rank in chosen)
