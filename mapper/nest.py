"""A mapping placed on a cascade: which Einsum runs in which tile, what each tile holds, and why a mapping is illegal.

In: a flat cascade with sizes, an architecture, a mapping. Out: one `Nest` per fusion group: its loops with trip counts, its
Einsums (`Step`) with their place in the loops, the streams from and to the backing store, the tensors that stay on chip. The cost
model and the simulator both read it; neither decides anything about legality.

An Einsum runs in every iteration of the loops over its own ranks. A loop over another rank it sits out: it runs in the first
iteration, or in the last one if it reads something that only the whole loop completes. An Einsum that iterates a rank and reads
what only the whole loop over that rank completes cannot be in the group: that is the pass rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..einsum.cascade import Cascade, Coord, Expr, Split, accesses, free_ranks
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind
from .architecture import Architecture
from .gathers import check_traces, gathered
from .intervals import Bounds, NotAffine, bounds
from .legality import check_flow, check_loops, check_phases, slots
from .mapping import Group, Mapping
from .operations import Work
from .pipeline import check_pipeline
from .residency import Need, add_residents, add_streams, check_capacity, most_in_flight, settle_lasting, slots_of
from .sequences import Visits, words
from .steps import FORWARD, Slot, Step, check_step, is_initial, iterated, refuse
from .streams import Resident, Stream
from .tiles import MAX_CELLS, Grid, Tiles

__all__ = [
    "FORWARD", "Grid", "MAX_CELLS", "Need", "Nest", "Placed", "Resident", "Slot", "Step", "Stream",
    "check_outputs", "check_step", "is_initial", "iterated", "most_in_flight", "outline", "place", "place_group", "refuse",
    "settle", "settle_lasting", "slots_of",
]  # fmt: skip


@dataclass(eq=False)
class Nest(Tiles):
    """One fusion group placed on a cascade."""

    outgoing: frozenset[str]
    """Tensors that must reach the backing store."""
    streams: tuple[Stream, ...] = ()
    residents: dict[str, Resident] = field(default_factory=dict)
    traces: Map_[str, Grid] = field(default_factory=dict)
    """Values of tensors that indices read."""

    # --- steps ---

    def relevant(self, step: Step) -> tuple[int, ...]:
        """Loops over ranks of the step."""
        return tuple(axis for axis, loop in enumerate(self.group.loops) if loop.rank in step.ranks)

    def folds(self, step: Step, ranks: frozenset[str]) -> list[Grid]:
        """How often, in each tile, each side of the array is filled by the spatial ranks among `ranks`: factors."""
        result: list[Grid] = []
        for side, lanes in enumerate(step.array.side):
            here: Grid | None = None
            for rank in step.binding.along(side):
                if rank in ranks:
                    length = self.span(rank)[1]
                    here = length if here is None else here * length
            if here is not None:
                result.append(-(-here // lanes))
        return result

    def repeated(self, step: Step, ranks: frozenset[str]) -> list[str]:
        """Ranks within a tile whose positions each take an operand anew that only `ranks` move: a lane keeps one word of it."""
        return [rank for rank, movers in step.outside(ranks) if any(self._walked(step, mover) > 1 for mover in movers)]

    def _walked(self, step: Step, rank: str) -> int:
        """Positions that a step takes one after another along a rank in the largest tile."""
        for side, lanes in enumerate(step.array.side):
            if rank in (along := step.binding.along(side)):
                return -(-math.prod(self.size(each) for each in along) // lanes)
        return self.size(rank)

    def item_cycles(self, step: Step, item: Work) -> float:
        """Cycles that one operation of a work item keeps the lanes busy."""
        expanded = step.array.expand(item.operation)
        assert expanded is not None, item
        return sum(step.array.units[unit].cycles * count for unit, count in expanded.items())

    def cycles(self, step: Step) -> list[tuple[float, list[Grid]]]:
        """Cycles that the step keeps its array busy in each tile (before masks), as a sum of products of factors."""
        terms: list[tuple[float, list[Grid]]] = []
        for item in step.work:
            factors = self.folds(step, item.ranks)
            factors += [self.span(rank)[1] for rank in sorted(item.ranks - step.binding.ranks)]
            if item.after:
                factors += self._last(step)
            terms.append((self.item_cycles(step, item), [*factors, *self.present(step.ranks - item.ranks)]))
        if not step.array.folds_overlap and step.work:
            fill = float(sum(step.array.side) - len(step.array.side) + (step.array.side[0] if step.stationary else 0))
            terms.append((fill, [*self.folds(step, step.ranks), *self.present(step.ranks - step.binding.ranks)]))
        return terms

    def _last(self, step: Step) -> list[Grid]:
        """1 in the tiles with the last positions of the reduced ranks, 0 elsewhere."""
        return [self.final(rank).astype(np.int64) for rank in sorted(step.reduced & self.cut)]

    def runs(self, step: Step) -> list[Grid]:
        """Where a step runs, masks aside: it does in the tiles that all of these allow."""
        found = [self.span(rank)[1] > 0 for rank in sorted(step.ranks & self.cut)]
        for rank, slot in sorted({(loop.rank, slot) for loop, slot in zip(self.group.loops, step.slots, strict=True)}):
            if slot != "each" and rank in self.cut:
                found.append(self.opening(rank) if slot == "first" else self.final(rank))
        return found

    def busy(self, step: Step) -> float:
        """Cycles that the step keeps its array busy in all."""
        live = self.live((step,))
        masked = [] if live is None else [live]
        return sum(cycles * self.total([*factors, *masked], self.relevant(step)) for cycles, factors in self.cycles(step))

    def longest(self, step: Step) -> float:
        """Cycles of the step in its largest tile."""
        return sum(cycles * math.prod(float(factor.max()) for factor in factors) for cycles, factors in self.cycles(step))

    def executions(self, step: Step) -> float:
        """Tiles in which it runs."""
        live = self.live((step,))
        present = self.present(step.ranks)
        return self.total(present if live is None else [*present, live], self.relevant(step))

    def points(self, step: Step, item: Work) -> float:
        """How often one operation of a work item is done: points of live tiles that exist."""
        live = self.live((step,))
        splits = {rank.name: rank.split for rank in self.cascade.domain_splits(item.ranks) if rank.split is not None}
        parts = {part for split in splits.values() for part in (split.outer, split.inner)}
        factors = [self.span(rank)[1] for rank in sorted(item.ranks - parts)]
        factors += [self._existing(rank, split) for rank, split in splits.items()]
        repeat = tuple(axis for axis in self.relevant(step) if not (item.after and self.group.loops[axis].rank in step.reduced))
        return self.total(factors if live is None else [*factors, live], repeat)

    def _existing(self, rank: str, split: Split) -> Grid:
        """Positions of a split rank in each tile: the last part may be cut short."""
        whole, rest = divmod(self.sizes.extents[rank], max(1, self.sizes.extents[split.inner]))
        (low, length), (inner, width) = self.span(split.outer), self.span(split.inner)
        full = (np.minimum(low + length, whole) - low).clip(0)
        has_last = (low <= whole) & (whole < low + length)
        return np.asarray(full * width + has_last * np.minimum(rest - inner, width).clip(0))

    def ripple(self, step: Step) -> int:
        """Cycles from the end of the work until a reduction across lanes has come out."""
        hops = 0
        for side, lanes in enumerate(step.array.side):
            crossed = math.prod(self.size(rank) for rank in step.binding.along(side) if rank in step.reduced)
            if any(rank in step.reduced for rank in step.binding.along(side)):
                hops += min(lanes, crossed)
        return hops * step.array.ripple_cycles_per_hop

    # --- boxes ---

    def box(self, tensor: str, indices: tuple[Expr, ...], depth: int) -> list[Bounds]:
        """First and last position touched along each dimension of a tensor, in each tile."""
        declared = self.cascade.tensor(tensor)
        result: list[Bounds] = []
        for rank, index in zip(declared.ranks, indices, strict=True):
            if accesses(index):
                result.append(self._gathered(tensor, rank, index, depth))
                continue
            try:
                low, high = bounds(index, self.ranges(free_ranks(index), depth), self.sizes.scalars)
            except NotAffine as error:
                raise refuse(
                    "E530", f"`{tensor}` is accessed through {error.what}, which the mapper does not model",
                    "put the positions into a tensor of their own and give its values with `--trace`", getattr(index, "span", None),
                ) from None  # fmt: skip
            shape = (1,) * len(self.group.loops)
            low, high = (np.asarray(end).reshape(np.shape(end) or shape) for end in (low, high))
            extent = self.sizes.extents[rank] + (1 if declared.iterates == rank else 0)
            result.append((np.maximum(low, 0), np.minimum(high, extent - 1)))
        return result

    def _gathered(self, tensor: str, rank: str, index: Expr, depth: int) -> Bounds:
        key = (rank, index, depth)
        if key not in self._known_gathers:
            self._known_gathers[key] = gathered(self, tensor, rank, index, depth)
        return self._known_gathers[key]

    @cached_property
    def _known_gathers(self) -> dict[tuple[str, Expr, int], Bounds]:
        return {}

    def stream_words(self, stream: Stream) -> float:
        """Words that are fetched from the backing store in all."""
        apart = self.spread_to(stream.level) if stream.level else frozenset()
        merged = apart if self.multicast(self.arch.backing[0], stream.level) else frozenset()
        return words(self, Visits(stream.tensor, stream.indices, stream.readers, stream.depth, apart, merged))

    def multicast(self, outer: str, inner: str) -> bool:
        """Whether a word that several instances of a place take is read once where it comes from."""
        network = self.arch.network(outer, inner)
        return network is None or network[1].multicast

    def stream_tile(self, stream: Stream) -> int:
        """Words of the largest tile held in the outermost level that holds it."""
        return self.tile_words(stream.tensor, stream.indices, stream.depth, stream.level)

    def tile_words(self, tensor: str, indices: tuple[Expr, ...], depth: int, level: str = "") -> int:
        """Words of the largest tile that one instance of a level holds: the parts of all instances inside it."""
        ranks = frozenset().union(*(free_ranks(index) for index in indices))
        tile = math.prod(int(np.max(high - low + 1)) for low, high in self.box(tensor, indices, depth))
        return tile * self.parts(level, ranks, depth)

    def parts(self, level: str, ranks: frozenset[str], depth: int) -> int:
        """How many instances inside a level have different tiles of a tensor with these ranks, cut by so many loops."""
        axes = self.spread - self.spread_to(level) if level else frozenset()
        return math.prod(self.trips[axis] for axis in axes if axis < depth and self.group.loops[axis].rank in ranks)

    def own_ranks(self, tensor: str) -> frozenset[str]:
        """Ranks of a tensor, but for the one along which it runs."""
        declared = self.cascade.tensor(tensor)
        return frozenset(rank for rank in declared.ranks if rank != declared.iterates)

    def resident_words(self, resident: Resident, depth: int | None = None) -> int:
        """Words alive at once; a running state keeps one position."""
        declared = self.cascade.tensor(resident.tensor)
        at = resident.depth if depth is None else depth
        return math.prod(self.size(rank, at) for rank in declared.ranks if rank != declared.iterates)

    def tensor_words(self, tensor: str) -> int:
        """Words of a whole tensor; of a running state, one position."""
        declared = self.cascade.tensor(tensor)
        return math.prod(self.sizes.extents[rank] for rank in declared.ranks if rank != declared.iterates)

    def layout(self, step: Step, tensor: str) -> tuple[tuple[str, ...], ...]:
        """The ranks of a tensor along each side of the array that a step runs on."""
        ranks = self.cascade.tensor(tensor).ranks
        return tuple(tuple(r for r in step.binding.along(side) if r in ranks) for side in range(len(step.array.side)))

    def lane_words(self, resident: Resident) -> int:
        """Words that one lane of the array it stays at must hold for one tile."""
        array = self.arch.arrays[resident.place]
        step = next(s for s in (resident.producer, *resident.readers) if s.binding.array == resident.place)
        declared = self.cascade.tensor(resident.tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        words = 1
        for side, lanes in enumerate(array.side):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            words *= math.ceil(math.prod(self.size(rank, resident.depth) for rank in here) / lanes) if here else 1
        return words * math.prod(self.size(rank, resident.depth) for rank in ranks - step.binding.ranks)

    def lane_needs(self, array: str) -> dict[str, int]:
        """Words of each tensor in one lane of an array when most are taken: those that last, and the peak within a tile.

        Within a tile the steps of an array run in the order of the cascade; a result may take the place of an operand of the
        same shape that it is the last to read, point by point.
        """
        within = len(self.group.loops)
        here = [resident for resident in self.residents.values() if resident.place == array]
        lasting = {r.tensor: self.lane_words(r) for r in here if r.depth < within}
        for name, kept in self._stationary(array):
            lasting[name] = max(kept, lasting.get(name, 0))
        order = {step.name: i for i, step in enumerate(self.steps)}
        passing = [r for r in here if r.depth == within]
        worst: dict[str, int] = {}
        for i, step in enumerate(self.steps):
            alive: dict[str, int] = {}
            for r in passing:
                last = max((order[reader.name] for reader in r.readers), default=order[r.producer.name])
                if order[r.producer.name] <= i <= last:
                    alive[r.tensor] = self.lane_words(r) * self.group.in_flight
            if step.output in alive and not step.reduced:
                shape = frozenset(self.cascade.tensor(step.output).ranks)
                for r in passing:
                    ends_here = r.tensor in alive and max((order[x.name] for x in r.readers), default=-1) == i
                    if (
                        ends_here
                        and r.tensor != step.output
                        and frozenset(self.cascade.tensor(r.tensor).ranks) == shape == step.ranks
                    ):
                        del alive[r.tensor]
                        break
            if sum(alive.values()) > sum(worst.values()):
                worst = alive
        return lasting | worst

    def _stationary(self, array: str) -> Iterator[tuple[str, int]]:
        """Words in one lane of the operands and sums that an array holds in its registers while loops run."""
        for stream in self.streams:
            for place, depth in stream.chain:
                if place == array:
                    for step in stream.readers:
                        if step.binding.array == array:
                            yield stream.tensor, self._lane_tile(step, stream.tensor, stream.indices, depth)
        for resident in self.residents.values():
            for place, depth in resident.inner:
                if place == array:
                    indices = tuple(Coord(rank) for rank in self.cascade.tensor(resident.tensor).ranks)
                    yield resident.tensor, self._lane_tile(resident.producer, resident.tensor, indices, depth)

    def _lane_tile(self, step: Step, tensor: str, indices: tuple[Expr, ...], depth: int) -> int:
        """Words of a tile in the lane that has most of it."""
        declared = self.cascade.tensor(tensor)
        lengths = [int(np.max(high - low + 1)) for low, high in self.box(tensor, indices, depth)]
        along = {rank: side for side in range(len(step.array.side)) for rank in step.binding.along(side)}
        sides, words = [1] * len(step.array.side), 1
        for rank, index, length in zip(declared.ranks, indices, lengths, strict=True):
            if isinstance(index, Coord) and index.rank in along:
                sides[along[index.rank]] *= length
            elif rank != declared.iterates:
                words *= length
        return words * math.prod(-(-length // lanes) for length, lanes in zip(sides, step.array.side, strict=True))

    def between(self, producer: Step, reader: Step) -> Step | None:
        """A step of the same tile that reads what comes from `producer` and that `reader` waits for; None if there is none."""
        after = {producer.output}
        for step in self.steps:
            if step is reader:
                return next((s for s in self.steps if s.output in after - {producer.output} and _reads(reader, s.output)), None)
            if any(_reads(step, name) for name in after) and step is not producer:
                after.add(step.output)
        return None

    def crosses(self, producer: Step, reader: Step, tensor: str) -> int:
        """The outermost loop across whose iterations a tensor is alive; the number of loops if there is none."""
        return next(self.crossings(producer, reader, tensor), len(self.group.loops))

    def crossings(self, producer: Step, reader: Step, tensor: str) -> Iterator[int]:
        """The loops across whose iterations a tensor is alive, whatever their order."""
        declared = self.cascade.tensor(tensor)
        for axis, loop in enumerate(self.group.loops):
            if self.trips[axis] == 1:
                continue
            if producer.slots[axis] == "each":
                if loop.rank not in declared.ranks or declared.iterates == loop.rank:
                    yield axis
            elif producer.slots[axis] != reader.slots[axis]:
                yield axis


def _reads(step: Step, tensor: str) -> bool:
    return any(access.tensor == tensor for access in step.reads)


# --- placing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """A mapping placed on a cascade."""

    cascade: Cascade
    """Flat."""
    sizes: Sizes
    arch: Architecture
    mapping: Mapping
    nests: tuple[Nest, ...]


def place(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    traces: Map_[str, Grid] | None = None,
) -> Placed:
    """Place a mapping; `traces`: values of tensors that indices read. Raises EinsmithError (E510 to E530) where it does not fit the
    cascade or the architecture."""
    cascade = flatten(cascade)
    unknown = [name for name in mapping.sizes if name not in cascade.symbols]
    if unknown:
        raise refuse("E510", f"the mapping gives a size to `{unknown[0]}`, which the cascade does not have")
    bound = bind(cascade, {**mapping.sizes, **(sizes or {})}, params)
    _check_names(cascade, mapping)
    check_traces(cascade, bound, traces or {})
    check_outputs(cascade)
    nests: list[Nest] = []
    homes = {name: number for number, group in enumerate(mapping.groups) for name in group.einsums}
    outgoing = _outgoing(cascade, homes)
    for number, group in enumerate(mapping.groups, 1):
        nests.append(place_group(cascade, arch, bound, group, number, outgoing, traces))
    _check_order(cascade, homes)
    placed = Placed(cascade, bound, arch, mapping, tuple(nests))
    if mapping.pipelined_loops:
        check_pipeline(placed)
    return placed


def check_outputs(cascade: Cascade) -> None:
    """Refuses (E530) outputs that a mapping does not keep as a whole."""
    for name in cascade.outputs:
        if cascade.tensor(name).kind == "state":
            raise refuse(
                "E530", f"the output `{name}` is a running state, all of whose positions would be kept; the mapper keeps one"
            )


def _check_names(cascade: Cascade, mapping: Mapping) -> None:
    names = {einsum.output for einsum in cascade.einsums}
    mapped: set[str] = set()
    for group in mapping.groups:
        for name in group.einsums:
            if name not in names:
                listing = ", ".join(f"`{n}`" for n in sorted(names))
                raise refuse("E510", f"the mapping names the Einsum `{name}`, which the cascade does not have", f"it has {listing}")
            if name in mapped:
                raise refuse("E510", f"the mapping has the Einsum `{name}` twice")
            mapped.add(name)
    missing = [einsum.output for einsum in cascade.einsums if einsum.output not in mapped]
    if missing:
        raise refuse("E510", "the mapping lacks " + ", ".join(f"`{n}`" for n in dict.fromkeys(missing)))


def _outgoing(cascade: Cascade, homes: dict[str, int]) -> frozenset[str]:
    """Tensors that leave their group."""
    found = set(cascade.outputs)
    for einsum in cascade.einsums:
        for access in accesses(einsum.body):
            if access.tensor in homes and homes[access.tensor] != homes[einsum.output]:
                found.add(access.tensor)
    return frozenset(found)


def _check_order(cascade: Cascade, homes: dict[str, int]) -> None:
    for einsum in cascade.einsums:
        for access in accesses(einsum.body):
            if homes.get(access.tensor, -1) > homes[einsum.output]:
                raise refuse("E510", f"`{einsum.output}` is in an earlier group than `{access.tensor}`, which it reads")


def place_group(
    cascade: Cascade,
    arch: Architecture,
    sizes: Sizes,
    group: Group,
    number: int,
    outgoing: frozenset[str],
    traces: Map_[str, Grid] | None = None,
) -> Nest:
    """Place one group; `cascade` is flat."""
    nest = outline(cascade, arch, sizes, group, number, outgoing, traces=traces)
    settle(nest)
    return nest


def outline(
    cascade: Cascade,
    arch: Architecture,
    sizes: Sizes,
    group: Group,
    number: int,
    outgoing: frozenset[str],
    steps: tuple[Step, ...] | None = None,
    explain: bool = True,
    traces: Map_[str, Grid] | None = None,
) -> Nest:
    """The loops, steps and streams of a group, legal in time; where tensors stay and whether they fit is for `settle`.

    `steps` may be given if they have been checked before; without `explain` refusals do not ask the pass analysis for the reason.
    """
    if steps is None:
        steps = tuple(
            check_step(cascade, arch, sizes, group.einsums[einsum.output], position, einsum)
            for position, einsum in enumerate(cascade.einsums)
            if einsum.output in group.einsums
        )
    nest = Nest(cascade, arch, sizes, group, number, steps, outgoing & frozenset(group.einsums), traces=traces or {})
    check_loops(nest)
    nest.steps = slots(nest, explain)
    check_phases(nest)
    check_flow(nest)
    add_streams(nest)
    return nest


def settle(nest: Nest) -> None:
    """Where the tensors made in a group stay; refuses what does not fit."""
    add_residents(nest)
    check_capacity(nest)
