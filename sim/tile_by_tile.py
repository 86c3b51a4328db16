"""One fusion group executed tile by tile, in the mapped order, on real data, every access counted.

In: a nest, the backing store as the groups before left it. Out: the store with what the group makes for others, and the words read
and written at each storage level. What a level or register holds are copies of the tiles that were brought in, all else there is
NaN; what is made on chip is lost when the next tile, or a tensor that shares its place, comes; the folds of each Einsum over its
array are walked one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as Map_
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.arithmetic import apply
from ..einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Scalar, Select, accesses, free_ranks
from ..einsum.domain import Domain
from ..einsum.interpret import DTYPES, Evaluator
from ..einsum.reductions import combined, identity, reduced
from ..mapper.accesses import unreduced
from ..mapper.masks import first_step, masks
from ..mapper.nest import Nest, Resident, Step, Stream
from ..mapper.residency import spilled
from .task import Index
from .walk import Box, Lookup, Walk, lookup, size

Values = NDArray[Any]
Levels: TypeAlias = dict[str, dict[str, dict[str, float]]]
"""Words by storage level, `read` or `written`, tensor."""


def _lost(shape: Sequence[int], dtype: type) -> Values:
    """Storage in which nothing is yet."""
    return np.full(shape, np.nan) if dtype is np.float64 else np.zeros(shape, dtype)


@dataclass
class _Held:
    """A tile that a place holds: a copy of what was brought, nothing elsewhere."""

    box: Box
    values: Values


class TileByTile:
    """One fusion group as it runs. `store` is the backing store: it gains what the group makes for others."""

    def __init__(self, nest: Nest, store: dict[str, Values]) -> None:
        self.nest, self.store = nest, store
        self.cascade: Cascade = nest.cascade
        self.walk = Walk(nest)
        self.evaluator = Evaluator(nest.cascade, nest.sizes, {})
        self.counted: Levels = {level: {"read": {}, "written": {}} for level in nest.arch.memory}
        self.backing = nest.arch.backing[0]
        self.held: dict[tuple[int, str, Index], _Held] = {}
        """By input, place, and instance or part of it."""
        self.asked: dict[tuple[object, ...], float] = {}
        """Words that instances which need them at the same time have been given in one read."""
        self.sums: dict[tuple[str, str, Index], Box] = {}
        """By tensor, place, and instance or part of it: the tile that is summed up there."""
        self.summed: set[tuple[str, str, Box]] = set()
        """Tiles whose sums were begun."""
        self.made: dict[str, Values] = {}
        """What was made on chip and is still there."""
        self.begun: dict[str, NDArray[np.bool_]] = {}
        """Elements to which a reduction has added something."""
        self.counts_of: dict[str, Values] = {}
        """Points that a mean has seen."""
        self.best: dict[str, Values] = {}
        """The greatest or least value that the search for a position has seen."""
        self.occupant: dict[tuple[str, Index], Index] = {}
        for name in nest.residents:
            tensor = self.cascade.tensor(name)
            shape = self.evaluator.shape(tensor)
            self.made[name] = _lost(shape, DTYPES[tensor.dtype])
            self.begun[name] = np.zeros(shape, np.bool_)
            if name in nest.outgoing:
                store[name] = _lost(shape, DTYPES[tensor.dtype])

    def run(self) -> Levels:
        for index in self.walk.tiles():
            for step in self.nest.steps:
                if self.walk.runs(step, index):
                    self._step(step, index)
                elif not step.initial and self.walk.skipped(step, index):
                    self._skip(step, index)
            for resident in self.nest.residents.values():
                if resident.leaves and self.walk.complete(resident, index):
                    self._leave(resident, index)
        for name in self.nest.group.spill:  # of each word that its level takes or gives, a share goes out or comes back
            share, ways = spilled(self.nest, name), self.counted[self.nest.residents[name].place]
            for way in ("read", "written"):
                self._count(self.backing, way, name, share * ways[way].get(name, 0.0))
        return self.counted

    def _count(self, place: str, way: str, tensor: str, words: float) -> None:
        if place in self.counted:
            self.counted[place][way][tensor] = self.counted[place][way].get(tensor, 0.0) + words

    def _range(self, rank: str, index: Index) -> tuple[int, int]:
        low, length = self.walk.span(rank, index)
        return low, low + length

    # --- one Einsum in one tile ---------------------------------------------------------------------------------------

    def _step(self, step: Step, index: Index) -> None:
        self.evaluator.tensors = {access.tensor: self.made[access.tensor] for access in step.reads if access.tensor in self.made}
        self.evaluator.tensors |= self._inputs(step, index)
        self._read_back(step, index)
        self.evaluator.einsum = step.einsum
        body = step.einsum.body
        bound = body.ranks if isinstance(body, Reduce) else (body.rank,) if isinstance(body, Select) else ()
        outer = [rank for rank in step.ranks if rank not in bound]
        domain = Domain({rank: self._range(rank, index) for rank in (*sorted(outer), *bound)})
        resident = self.nest.residents[step.output]
        free = domain.only(outer)
        places = self._places(step.einsum, free)
        if not step.initial:
            self._make_room(resident, index)
            self._take(resident, index)
        words = math.prod(domain.length(rank) for rank in outer if rank != self.cascade.tensor(step.output).iterates)
        spot = resident.inner[-1][0] if resident.inner else resident.place
        parts = 1.0
        if (network := self.nest.arch.network(spot, step.binding.array)) is not None and not network[1].reduction:
            parts = unreduced(self.nest, step)
        if isinstance(body, Reduce):
            before = self._accumulate(step, body, domain, free, places)
            if step.reduced & self.nest.cut or parts > 1:
                self._count(spot, "read", step.output, words * (parts - 1) + before)
        elif isinstance(body, Select):
            self._select(step, body, free, places)
        else:
            self._write(step, domain, places)
        for name in self._replaced.get(step.output, ()):  # element by element: it stands where the other one was
            self.made[name][places[0]] = _lost((), self.made[name].dtype.type)
        if not step.initial:
            self._count(spot, "written", step.output, words * parts)

    @cached_property
    def _replaced(self) -> dict[str, tuple[str, ...]]:
        """For each tensor, those whose place it takes."""
        return {after: chain[:at] for chain in self.nest.group.in_place for at, after in enumerate(chain)}

    def _select(self, step: Step, body: Select, free: Domain, places: tuple[tuple[slice | int, ...], tuple[int, ...]]) -> None:
        """The whole of what is selected from is there; of what is selected, the places of this tile are kept."""
        where, order = places
        whole = free.with_ranges({body.fills: (0, self.nest.sizes.extents[body.fills])})
        out: Values = np.zeros(whole.shape, self.made[step.output].dtype)
        self.evaluator.select(out, body, whole, self.evaluator.partitions.existing(whole))
        kept = tuple(slice(*free.ranges[name]) if name == body.fills else slice(None) for name in free.ranges)
        self.made[step.output][where] = out[kept].transpose(order)

    def _places(self, einsum: Einsum, free: Domain) -> tuple[tuple[slice | int, ...], tuple[int, ...]]:
        """Where an Einsum writes, and the order of the dimensions of `free` there."""
        places: list[slice | int] = []
        order: list[int] = []
        for at in einsum.indices:
            match at:
                case Coord(rank=rank):
                    places.append(slice(*free.ranges[rank]))
                    order.append(free.axes[rank])
                case Map(args=(Coord(rank=rank), Number(value=1))):
                    low, high = free.ranges[rank]
                    places.append(slice(low + 1, high + 1))
                    order.append(free.axes[rank])
                case _:
                    places.append(0)
        return tuple(places), tuple(order)

    def _write(self, step: Step, domain: Domain, places: tuple[tuple[slice | int, ...], tuple[int, ...]]) -> None:
        where, order = places
        active = self.evaluator.partitions.existing(domain)
        values = np.broadcast_to(self.evaluator.value(step.einsum.body, domain, active), domain.shape)
        if active is not None:
            kept = self._before(step, domain)
            values = np.where(active, values, 0 if kept is None else kept)
        self.made[step.output][where] = values.transpose(order)

    def _before(self, step: Step, domain: Domain) -> Values | None:
        """What a running state held: a step that does not exist leaves it as it was."""
        tensor = self.cascade.tensor(step.output)
        if tensor.kind != "state" or step.initial:
            return None
        at = Access(tensor.name, tuple(Coord(rank) for rank in tensor.ranks), step.einsum.span)
        self.evaluator.tensors = {**self.evaluator.tensors, tensor.name: self.made[tensor.name]}
        return np.broadcast_to(self.evaluator.value(at, domain, None), domain.shape)

    def _accumulate(
        self, step: Step, body: Reduce, domain: Domain, free: Domain, places: tuple[tuple[slice | int, ...], tuple[int, ...]]
    ) -> int:
        """Adds a tile's part to a reduction; how many of its elements were begun before."""
        where, order = places
        active = self.evaluator.partitions.existing(domain)
        values = np.broadcast_to(self.evaluator.value(body.body, domain, active), domain.shape)
        if active is not None:
            values = np.where(active, values, identity(body.op, values.dtype))
        target, begun = self.made[step.output], self.begun[step.output]
        before = begun[where].copy()
        if body.op in ("argmax", "argmin"):
            self._position(step, body, values, domain, places)
        else:
            part = reduced(body.op, values, len(body.ranks)).transpose(order)
            if before.any():
                old = np.where(before, target[where], identity(body.op, part.dtype))
                part = combined(body.op, old.astype(part.dtype), part)
            target[where] = part
        begun[where] = True
        if body.op == "mean":
            seen = np.broadcast_to(True if active is None else active, domain.shape).sum(
                axis=tuple(range(len(free.ranges), len(domain.ranges)))
            )
            counts = self.counts_of.setdefault(step.output, np.zeros(target.shape))
            counts[where] = np.where(before, counts[where], 0) + seen.transpose(order)
            if all(domain.ranges[rank][1] == self.nest.sizes.extents[rank] for rank in body.ranks):
                target[where] = target[where] / np.maximum(counts[where], 1)
        return int(np.count_nonzero(before))

    def _position(
        self, step: Step, body: Reduce, values: Values, domain: Domain, places: tuple[tuple[slice | int, ...], tuple[int, ...]]
    ) -> None:
        """Where the greatest or least value stands, of this tile and those before: of equal ones the first."""
        where, order = places
        target, begun = self.made[step.output], self.begun[step.output]
        best = self.best.setdefault(step.output, np.zeros(target.shape, values.dtype))
        at = reduced(body.op, values, 1)
        found = np.take_along_axis(values, at[..., None], -1)[..., 0].transpose(order)
        at = (at + domain.ranges[body.ranks[0]][0]).transpose(order)
        old = best[where]
        better = found > old if body.op == "argmax" else found < old
        new = ~begun[where] | better | ((found == old) & (at < target[where]))
        best[where] = np.where(new, found, old)
        target[where] = np.where(new, at, target[where])

    def _skip(self, step: Step, index: Index) -> None:
        """A mask leaves a step out: its reduction gets nothing, its state stays as it was, any other value is the mask's
        constant."""
        tensor = self.cascade.tensor(step.output)
        body = step.einsum.body
        outer = [rank for rank in step.ranks if not isinstance(body, Reduce) or rank not in body.ranks]
        free = Domain({rank: self._range(rank, index) for rank in sorted(outer)})
        self._make_room(self.nest.residents[step.output], index)
        where, order = self._places(step.einsum, free)
        target = self.made[step.output]
        if tensor.kind == "state":
            self.evaluator.tensors = {}
            before = self._before(step, free)
            assert before is not None
            target[where] = before.transpose(order)
        elif isinstance(body, Reduce) and target.dtype == np.float64:
            begun = self.begun[step.output]
            target[where] = np.where(begun[where], target[where], identity(body.op, target.dtype))
        elif step.position in (constants := self._constants(index)):
            target[where] = constants[step.position]

    def _constants(self, index: Index) -> dict[int, float]:
        """The values that masks give to Einsums in a tile, by position."""
        found: dict[int, float] = {}
        for live, constants in self._masks:
            if not live(index):
                found |= constants
        return found

    @cached_property
    def _masks(self) -> list[tuple[Lookup, Map_[int, float]]]:
        nest = self.nest
        constants: dict[frozenset[int], dict[int, float]] = {}
        for mask in masks(nest.cascade, nest.cut):  # of masks that skip the same, what they agree on
            known = constants.setdefault(mask.skips, dict(mask.constants))
            constants[mask.skips] = {at: value for at, value in known.items() if mask.constants.get(at) == value}
        for peeled in filter(None, (first_step(nest.cascade, rank, nest.cut) for rank in nest.group.peel)):
            known = constants.setdefault(peeled.skips, dict(peeled.constants))
            constants[peeled.skips] = {at: value for at, value in known.items() if peeled.constants.get(at) == value}
        return [(lookup(live), constants[skips]) for live, skips in nest.masks]

    # --- what is where ------------------------------------------------------------------------------------------------

    def _inputs(self, step: Step, index: Index) -> dict[str, Values]:
        """What a step finds of each input: the tiles in the places next to its array, brought there if they are not."""
        found: dict[str, Values] = {}
        array = step.binding.array
        way = {*self.nest.arch.path(array), array}
        for position, stream in enumerate(self.nest.streams):
            if step not in stream.readers:
                continue
            near, values = self.backing, self.store[stream.tensor]
            for spot, depth in stream.chain:
                if spot in way:
                    held = self._hold(position, stream, spot, depth, near, values, index)
                    near, values = spot, held.values
            if near in self.counted:
                self._operand(step, Access(stream.tensor, stream.indices, step.einsum.span), near, index)
            part = self._part(stream.tensor, stream.indices, len(self.nest.trips), index)
            if stream.tensor not in found:
                found[stream.tensor] = _lost(values.shape, values.dtype.type)
            found[stream.tensor][part] = values[part]
        return found

    def _hold(
        self, position: int, stream: Stream, place: str, depth: int, outer: str, source: Values, index: Index
    ) -> _Held:  # fmt: skip
        """Bring a tile to a place, instead of the one before."""
        box = self.walk.boxes(stream.tensor, stream.indices, depth)(index)
        own = self.walk.input_axes(stream.indices, depth)
        slot = (position, place, self._slot(place, own, index))
        held = self.held.get(slot)
        if held is not None and held.box == box:
            return held
        values = _lost(source.shape, source.dtype.type)
        part = self._part(stream.tensor, stream.indices, depth, index)
        values[part] = source[part]
        self.held[slot] = held = _Held(box, values)
        words = values[part].size
        self._count(place, "written", stream.tensor, words)
        last = max((axis for axis in own if axis not in self.nest.spread and self.nest.trips[axis] > 1), default=-1)
        time = tuple(index[axis] for axis in self.walk.in_time if axis <= last)
        network = self.nest.arch.network(outer, place)
        if network is None or network[1].multicast:
            self._ask((position, place, outer, self.walk.core(outer, index), box, time), outer, stream.tensor, words)
        else:  # each instance has words of its own, and so has each lane
            taken: float = words
            if place in self.nest.arch.arrays:
                reader = next(step for step in stream.readers if step.binding.array == place)
                ranks = frozenset().union(*(free_ranks(expr) for expr in stream.indices))
                for rank in reader.binding.ranks - ranks:
                    length = lookup(self.nest.span(rank, depth)[1])(index)
                    taken *= min(int(length), reader.array.lanes)
            self._count(outer, "read", stream.tensor, taken)
        return held

    def _part(self, tensor: str, indices: tuple[Expr, ...], depth: int, index: Index) -> tuple[Any, ...]:
        """Where in a tensor a tile is, as cut by so many loops; of a gather, the positions that it reads."""
        box = self.walk.boxes(tensor, indices, depth)(index)
        if not any(accesses(at) for at in indices):
            return tuple(slice(low, high + 1) for low, high in zip(box[::2], box[1::2], strict=True))
        found = []
        for rank, at, low, high in zip(self.cascade.tensor(tensor).ranks, indices, box[::2], box[1::2], strict=True):
            if not accesses(at):
                found.append(np.arange(low, high + 1))
                continue
            ranks = sorted(free_ranks(at))
            spans = [self.nest.span(name, depth) for name in ranks]
            ends = [(lookup(first)(index), lookup(length)(index)) for first, length in spans]
            where = np.meshgrid(*(np.arange(first, first + length) for first, length in ends), indexing="ij")
            touched = np.unique(_at(at, dict(zip(ranks, where, strict=True)), self.nest.sizes.scalars, self.nest.traces))
            found.append(touched[(touched >= 0) & (touched < self.nest.sizes.extents[rank])])
        return np.ix_(*found)

    def _slot(self, place: str, own: Sequence[int], index: Index) -> Index:
        """Which instance of a place, and which part of it, has a tile."""
        axes = {*self.nest.spread_to(place), *(axis for axis in own if axis in self.nest.spread)}
        return tuple(index[axis] for axis in sorted(axes))

    def _ask(self, key: tuple[object, ...], level: str, tensor: str, words: float) -> None:
        """A read that serves all instances which need the same words at the same time: as many as the one that needs most."""
        more = words - self.asked.get(key, 0.0)
        if more > 0:
            self.asked[key] = words
            self._count(level, "read", tensor, more)

    def _take(self, resident: Resident, index: Index) -> None:
        """Where sums are held further inwards than the result stays: a tile goes out at the end of its visit, and comes back."""
        indices = tuple(Coord(rank) for rank in self.cascade.tensor(resident.tensor).ranks)
        outer = resident.place
        for spot, depth in resident.inner:
            box = self.walk.boxes(resident.tensor, indices, depth)(index)
            slot = (resident.tensor, spot, self._slot(spot, self.walk.own_axes(resident.tensor, depth), index))
            if self.sums.get(slot) != box:
                self.sums[slot] = box
                words = size(box)
                self._count(spot, "read", resident.tensor, words)
                self._count(outer, "written", resident.tensor, words)
                if (resident.tensor, spot, box) in self.summed:
                    self._count(outer, "read", resident.tensor, words)
                    self._count(spot, "written", resident.tensor, words)
                self.summed.add((resident.tensor, spot, box))
            outer = spot

    def _make_room(self, resident: Resident, index: Index) -> None:
        """What was in the place that a new tile takes is lost."""
        key, slot = self.walk.key(resident, index), (resident.tensor, self.walk.slot(resident, index))
        if self.occupant.get(slot) == key:
            return
        tensor = self.cascade.tensor(resident.tensor)
        if slot in self.occupant:
            former = self._region(resident, self.occupant[slot])
            if tensor.kind != "state":
                self.made[resident.tensor][former] = _lost((), self.made[resident.tensor].dtype.type)
            self.begun[resident.tensor][former] = False
        self.occupant[slot] = key

    def _region(self, resident: Resident, key: Index) -> tuple[slice, ...]:
        """The elements of the tile with a key."""
        axes = self.walk.axes[resident.tensor][0]
        at = dict(zip(axes, key, strict=True))
        index = tuple(at.get(axis, 0) for axis in range(len(self.nest.trips)))
        own = {self.nest.group.loops[axis].rank for axis in axes}
        tensor = self.cascade.tensor(resident.tensor)
        return tuple(slice(*self._range(rank, index)) if rank in own else slice(None) for rank in tensor.ranks)

    def _leave(self, resident: Resident, index: Index) -> None:
        """Write a complete tile to the backing store."""
        tensor = self.cascade.tensor(resident.tensor)
        part = tuple(slice(*self._range(rank, index)) if rank != tensor.iterates else slice(None) for rank in tensor.ranks)
        values = self.made[resident.tensor][part]
        self.store[resident.tensor][part] = values
        if resident.place != self.backing:
            words = math.prod(
                self._range(rank, index)[1] - self._range(rank, index)[0] for rank in tensor.ranks if rank != tensor.iterates
            )
            self._count(self.backing, "written", resident.tensor, words)
            self._count(resident.place, "read", resident.tensor, words)

    # --- operands, fold by fold ---------------------------------------------------------------------------------------

    def _read_back(self, step: Step, index: Index) -> None:
        """Reads what was made here from the levels where it stays."""
        for access in step.reads:
            resident = self.nest.residents.get(access.tensor)
            tapped = step.name in self.nest.group.taps.get(access.tensor, ())
            if resident is not None and resident.place in self.counted and not tapped:
                self._operand(step, access, resident.place, index)

    def _operand(self, step: Step, access: Access, level: str, index: Index) -> None:
        """Distinct elements that each fold of a step over its array reads at a level; without multicast, that each lane reads."""
        network = self.nest.arch.network(level, step.binding.array)
        alone = network is not None and not network[1].multicast
        sides = []
        for side, lanes in enumerate(step.array.side):
            ranks = step.binding.along(side)
            points = list(itertools.product(*(range(*self._range(rank, index)) for rank in ranks)))
            together = 1 if alone else lanes
            sides.append([_by_rank(ranks, points[at : at + together]) for at in range(0, len(points), together)])
        temporal = {rank: np.arange(*self._range(rank, index)) for rank in step.ranks - step.binding.ranks}
        used = frozenset().union(*(free_ranks(expr) for expr in access.indices))
        words = sum(self._distinct(access, used, fold, temporal) for fold in itertools.product(*sides))
        words *= math.prod(len(temporal[rank]) for rank in self.nest.repeated(step, used))
        if alone:
            self._count(level, "read", access.tensor, words)
            return
        time = tuple(index[axis] for axis in self.walk.in_time)
        box = self.walk.boxes(access.tensor, access.indices, len(self.nest.trips))(index)
        taker = (step.name, access.tensor, access.indices)
        self._ask((taker, level, self.walk.core(level, index), box, time), level, access.tensor, words)

    def _distinct(
        self, access: Access, ranks: frozenset[str], fold: tuple[dict[str, Values], ...], temporal: dict[str, Values]
    ) -> int:
        """How many elements one fold reads through an access: one coordinate array per group of ranks that vary together."""
        together = [{rank: values for rank, values in part.items() if rank in ranks} for part in fold]
        together += [{rank: values} for rank, values in temporal.items() if rank in ranks]
        together = [part for part in together if part]
        shape = [len(next(iter(part.values()))) for part in together]
        where: dict[str, Values] = {}
        for axis, part in enumerate(together):
            for rank, values in part.items():
                where[rank] = values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        tensor = self.cascade.tensor(access.tensor)
        flat: Values = np.zeros(shape or (1,), dtype=np.int64)
        inside: Values = np.ones(flat.shape, dtype=np.bool_)
        for rank, expr in zip(tensor.ranks, access.indices, strict=True):
            if rank == tensor.iterates:
                continue  # one position is kept
            extent = self.nest.sizes.extents[rank]
            at = np.asarray(_at(expr, where, self.nest.sizes.scalars, self.nest.traces))
            flat = flat * extent + at
            inside = inside & (at >= 0) & (at < extent)
        return int(np.unique(flat[inside]).size)


def _by_rank(ranks: tuple[str, ...], points: list[tuple[int, ...]]) -> dict[str, Values]:
    """Coordinates of some lanes, by rank."""
    return {rank: np.array([point[at] for point in points], dtype=np.int64) for at, rank in enumerate(ranks)}


def _at(expr: Expr, where: Map_[str, Values], scalars: Map_[str, int | float], traces: Map_[str, Values]) -> Values:
    """An index expression at coordinates; `traces`: values of the tensors that indices read."""
    match expr:
        case Coord(rank=rank):
            return where[rank]
        case Number(value=value):
            return np.asarray(value)
        case Scalar(name=name):
            return np.asarray(scalars[name])
        case Map(op=op, args=args):
            return apply(op, tuple(_at(arg, where, scalars, traces) for arg in args))
        case Access(tensor=name, indices=indices):
            values = traces[name]
            inside = [np.clip(_at(at, where, scalars, traces), 0, n - 1) for at, n in zip(indices, values.shape, strict=True)]
            return np.asarray(values[tuple(inside)])
    raise AssertionError(expr)
