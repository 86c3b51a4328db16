"""Accesses: the words that every storage level gives and takes, by tensor, and those that every connection carries.

In: a placed group. Out: `Accesses`. All is counted from the loop nest:

* an input comes from the level outside whenever the tile that a level holds of it changes (see `sequences`); instances that
  need the same words at the same time get them in one read where the connection multicasts;
* an array reads its operands from the innermost place that holds them: in every tile, again for each fold that does not move them,
  and again for each position of a rank outside one that does (a lane keeps one word of an operand and one sum; see `Step.inside`);
  what its registers hold is read when the tile held there changes;
* a result is written where it is summed up in every tile that adds to it, and read back unless it is begun there; a sum that goes
  on elsewhere goes out when its tile changes and comes back when the tile does;
* what leaves the group is read where it stayed, complete, and written to the backing store, once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..einsum.cascade import Coord, Expr, free_ranks
from .nest import FORWARD, Grid, Nest, Resident, Step, Stream
from .residency import spilled
from .sequences import Visits, words

Moved = dict[str, dict[str, dict[str, float]]]


@dataclass
class Link:
    """Words over one connection."""

    sent: float = 0.0
    """At its outer end."""
    delivered: float = 0.0
    """At its inner end: by each instance or lane that takes or gives them."""


@dataclass
class Accesses:
    """Words moved by one group."""

    levels: Moved
    """Storage level, `read` or `written`, tensor."""
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    """By outer and inner end."""

    def read(self, level: str) -> float:
        return sum(self.levels[level]["read"].values())

    def written(self, level: str) -> float:
        return sum(self.levels[level]["written"].values())

    def add(self, level: str, way: str, tensor: str, count: float) -> None:
        if level in self.levels:
            self.levels[level][way][tensor] = self.levels[level][way].get(tensor, 0.0) + count

    def carry(self, outer: str, inner: str, sent: float, delivered: float) -> None:
        link = self.links.setdefault((outer, inner), Link())
        link.sent += sent
        link.delivered += delivered


def accesses(nest: Nest) -> Accesses:
    """All accesses of a group."""
    found = Accesses({level: {"read": {}, "written": {}} for level in nest.arch.memory})
    for stream in nest.streams:
        _inputs(nest, found, stream)
    for resident in nest.residents.values():
        _results(nest, found, resident)
        if resident.place in nest.arch.memory:
            tapping = nest.group.taps.get(resident.tensor, ())
            for reader in (reader for reader in resident.readers if reader.name not in tapping):
                for indices in dict.fromkeys(access.indices for access in reader.reads if access.tensor == resident.tensor):
                    _operand(nest, found, reader, resident.tensor, indices, resident.place)
    for tensor in nest.group.spill:
        _spill(nest, found, nest.residents[tensor])
    return found


def _spill(nest: Nest, found: Accesses, resident: Resident) -> None:
    """The share of a tensor that finds no room goes to the backing store as it is made, and comes back for each use."""
    share = spilled(nest, resident.tensor)
    backing, level = nest.arch.backing[0], resident.place
    if not share:
        return
    for way in ("written", "read"):
        count = found.levels[level][way].get(resident.tensor, 0.0) * share
        found.add(backing, way, resident.tensor, count)
        found.carry(backing, level, count, count)


# --- inputs -----------------------------------------------------------------------------------------------------------


def _inputs(nest: Nest, found: Accesses, stream: Stream) -> None:
    """What fills the places that hold a tile of an input, and what arrays read of it."""
    for place, depth in stream.chain:
        readers = tuple(step for step in stream.readers if place in (*nest.arch.path(step.binding.array), step.binding.array))
        outer = feeds(nest, stream, readers[0], place)
        apart = nest.spread_to(place)
        delivered = words(nest, Visits(stream.tensor, stream.indices, readers, depth, apart))
        shared = apart - nest.spread_to(outer)
        one = words(nest, Visits(stream.tensor, stream.indices, readers, depth, apart, shared)) if shared else delivered
        taken = delivered
        if place in nest.arch.arrays and nest.arch.network(outer, place) is not None:
            each = copies(nest, readers[0], _ranks(stream.indices), depth)
            taken = words(nest, Visits(stream.tensor, stream.indices, readers, depth, apart, factors=each))
        _send(nest, found, outer, place, stream.tensor, one, taken)
        found.add(place, "written", stream.tensor, delivered)
    for reader in stream.readers:
        if reader.binding.array not in dict(stream.chain):
            _operand(nest, found, reader, stream.tensor, stream.indices, feeds(nest, stream, reader, reader.binding.array))


def feeds(nest: Nest, stream: Stream, reader: Step, place: str) -> str:
    """Where a place gets an input from: the next level outwards that holds it, on the way to a reader."""
    path = nest.arch.path(reader.binding.array)
    outer = nest.arch.backing[0]
    for level, _ in stream.chain:
        if level == place:
            break
        if level in path:
            outer = level
    return outer


def _send(nest: Nest, found: Accesses, outer: str, inner: str, tensor: str, one: float, taken: float) -> None:
    """Words to all who take them: `one` if each is read once for all at the same time, `taken` if for each instance or lane."""
    network = nest.arch.network(outer, inner)
    sent = one if network is None or network[1].multicast else taken
    found.add(outer, "read", tensor, sent)
    found.carry(outer, inner, sent, taken)


def _operand(nest: Nest, found: Accesses, reader: Step, tensor: str, indices: tuple[Expr, ...], level: str) -> None:
    """What a step reads of an operand at a level."""
    one = operand_words(nest, reader, tensor, indices, nest.spread_to(level))
    link = nest.arch.network(level, reader.binding.array)
    taken = one if link is None else operand_words(nest, reader, tensor, indices, nest.spread, lanes=True)
    _send(nest, found, level, reader.binding.array, tensor, one, taken)


def operand_words(
    nest: Nest, reader: Step, tensor: str, indices: tuple[Expr, ...], apart: frozenset[int] = frozenset(), lanes: bool = False
) -> float:
    """Words that a step reads of an operand; with `lanes`, those that arrive in all lanes.

    Instances outside `apart` that read the same words at the same time do so in one read.
    """
    ranks = _ranks(indices)
    factors = [(high - low + 1).clip(0) for low, high in nest.box(tensor, indices, len(nest.group.loops))]
    declared = nest.cascade.tensor(tensor)
    if declared.iterates is not None:
        del factors[declared.ranks.index(declared.iterates)]
    if lanes:
        factors += [nest.span(rank)[1] for rank in sorted(reader.binding.ranks - ranks)]
    else:
        factors += nest.folds(reader, reader.binding.ranks - ranks)
    factors += [nest.span(rank)[1] for rank in nest.repeated(reader, ranks)]
    factors += nest.present(reader.ranks & nest.cut)
    together = {
        axis for axis in nest.spread - apart if nest.trips[axis] > 1 and nest.group.loops[axis].rank not in ranks and not lanes
    }
    live = nest.live((reader,))
    if live is not None:
        factors.append(live)
    repeat = tuple(axis for axis in nest.relevant(reader) if axis not in together)
    return nest.total([_largest(factor, together) for factor in factors], repeat)


def _largest(factor: Grid, axes: set[int]) -> Grid:
    """A factor without the axes along which instances read together: of the one that has most to read."""
    away = tuple(axis for axis in axes if factor.shape[axis] > 1)
    return factor.max(axis=away, keepdims=True) if away else factor


def _ranks(indices: tuple[Expr, ...]) -> frozenset[str]:
    return frozenset().union(*(free_ranks(index) for index in indices))


def copies(nest: Nest, step: Step, ranks: frozenset[str], depth: int) -> tuple[Grid, ...]:
    """How many lanes take each word of a tile with these ranks: factors."""
    return tuple(
        nest.span(rank, depth)[1].clip(0, nest.arch.arrays[step.binding.array].lanes) for rank in sorted(step.binding.ranks - ranks)
    )


# --- results ----------------------------------------------------------------------------------------------------------


def _results(nest: Nest, found: Accesses, resident: Resident) -> None:
    backing = nest.arch.backing[0]
    step, tensor = resident.producer, resident.tensor
    places = list(_places(nest, resident))
    inner, depth = places[-1]
    array = step.binding.array
    if inner in nest.arch.memory:
        link = nest.arch.network(inner, array)
        lanes = 1.0 if link is None or link[1].reduction else unreduced(nest, step)
        made = result_words(nest, step, tensor) * lanes
        back = made - begun_words(nest, step, tensor) if step.reduced & nest.cut or lanes > 1 else 0.0
        found.add(inner, "written", tensor, made)
        found.add(inner, "read", tensor, back)
        found.carry(inner, array, made + back, made + back)
    for (outer, _), (place, depth) in itertools.pairwise(places):
        out = words(nest, _visits(nest, resident, depth, nest.spread_to(place)))
        back = out - words(nest, _visits(nest, resident, depth, frozenset(), distinct=True))
        found.add(place, "read", tensor, out)
        found.add(outer, "written", tensor, out)
        found.add(outer, "read", tensor, back)
        found.add(place, "written", tensor, back)
        found.carry(outer, place, out + back, out + back)
    if resident.leaves and resident.place != backing:
        whole = nest.total([nest.span(rank)[1] for rank in nest.own_ranks(tensor)])
        source = array if resident.place == FORWARD else resident.place
        found.add(resident.place, "read", tensor, whole)
        found.add(backing, "written", tensor, whole)
        found.carry(backing, source, whole, whole)


def _places(nest: Nest, resident: Resident) -> Iterator[tuple[str, int]]:
    """Where a result is summed up, from where it stays inwards."""
    yield resident.place, resident.depth
    yield from resident.inner


def _visits(nest: Nest, resident: Resident, depth: int, apart: frozenset[int], distinct: bool = False) -> Visits:
    """The tiles of a result that a place sums up, as the loops run."""
    indices = tuple(Coord(rank) for rank in nest.cascade.tensor(resident.tensor).ranks)
    return Visits(resident.tensor, indices, (resident.producer,), depth, apart, distinct=distinct)


def unreduced(nest: Nest, step: Step) -> float:
    """How many lanes give a part of each sum, where no network adds them up."""
    count = 1
    for side, lanes in enumerate(step.array.side):
        along = [rank for rank in step.binding.along(side) if rank in step.reduced]
        count *= min(lanes, math.prod(nest.size(rank) for rank in along))
    return float(count)


def result_words(nest: Nest, step: Step, tensor: str) -> float:
    """Words that a step makes of its result: its tile in every tile."""
    declared = nest.cascade.tensor(tensor)
    factors = [nest.span(rank)[1] for rank in declared.ranks if rank != declared.iterates]
    factors += nest.present(step.ranks - frozenset(declared.ranks))
    live = nest.live((step,))
    return nest.total(factors if live is None else [*factors, live], nest.relevant(step))


def begun_words(nest: Nest, step: Step, tensor: str) -> float:
    """Words of a reduction's results as they are begun: in the first tile that adds something to them."""
    declared = nest.cascade.tensor(tensor)
    factors: list[Grid] = [nest.span(rank)[1] for rank in declared.ranks if rank != declared.iterates]
    along = tuple(axis for axis in nest.relevant(step) if nest.group.loops[axis].rank in step.reduced)
    live = nest.live((step,))
    if live is not None:
        factors.append(_any(live, along))
    return nest.total(factors, tuple(axis for axis in nest.relevant(step) if axis not in along))


def _any(grid: Grid, axes: tuple[int, ...]) -> Grid:
    return np.asarray(grid.any(axis=axes, keepdims=True))
