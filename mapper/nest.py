"""A mapping placed on a cascade: which Einsum runs in which tile, what each tile holds, and why a mapping is illegal.

In: a flat cascade with sizes, an architecture, a mapping. Out: one `Nest` per fusion group: its loops with trip counts, its
Einsums (`Step`) with their place in the loops, the streams from and to the backing store, the tensors that stay on chip. The cost
model and the simulator both read it; neither decides anything about legality.

Quantities over tiles are numpy arrays with one axis per loop (length 1 where a loop does not matter), so that sums over all
tiles are exact, imperfect tiles and masks included.

An Einsum runs in every iteration of the loops over its own ranks. A loop over another rank it sits out: it runs in the first
iteration, or in the last one if it reads something that only the whole loop completes. An Einsum that iterates a rank and reads
what only the whole loop over that rank completes cannot be in the group: that is the pass rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scan,
    Select,
    accesses,
    free_ranks,
)  # fmt: skip
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind, evaluate_scalar
from .architecture import Architecture, Array
from .intervals import Bounds, NotAffine, bounds, possible
from .mapping import Binding, Group, Mapping
from .masks import masks
from .operations import Work, is_constant, work

Grid: TypeAlias = NDArray[Any]
Slot: TypeAlias = Literal["each", "first", "last"]
FORWARD = "forward"
_KNOWN_MASKS: dict[Any, Grid | None] = {}
"""The last few tables of live tiles: a search asks for the same ones again and again."""
MAX_CELLS = 2**25
"""Most tiles over which one quantity is tabulated."""


def refuse(code: str, message: str, help: str = "", span: Any = None, label: str = "") -> EinsmithError:
    return EinsmithError(Diagnostic(code, message, span, label, help=help))


@dataclass(frozen=True, eq=False)
class Step:
    """One flat Einsum in its group."""

    name: str
    """Its output; `NAME@0` for the initial value of a running state."""
    position: int
    """In the flat cascade."""
    einsum: Einsum
    binding: Binding
    array: Array
    ranks: frozenset[str]
    """All ranks it iterates."""
    reduced: frozenset[str]
    work: tuple[Work, ...]
    reads: tuple[Access, ...]
    initial: bool
    slots: tuple[Slot, ...] = ()
    """For each loop: when it runs."""

    @property
    def output(self) -> str:
        return self.einsum.output


@dataclass(frozen=True)
class Stream:
    """A tensor read from the backing store through one access pattern."""

    tensor: str
    indices: tuple[Expr, ...]
    readers: tuple[Step, ...]
    depth: int
    """How many loops, from the outside, cut the tile that is held."""


@dataclass(frozen=True)
class Resident:
    """A tensor made in the group."""

    tensor: str
    producer: Step
    readers: tuple[Step, ...]
    depth: int
    """How many loops cut the part that is alive at once."""
    place: str
    """Array, storage level or `forward`."""
    leaves: bool
    """Whether it goes to the backing store."""


@dataclass(eq=False)
class Nest:
    """One fusion group placed on a cascade."""

    cascade: Cascade
    arch: Architecture
    sizes: Sizes
    group: Group
    number: int
    """From 1."""
    steps: tuple[Step, ...]
    outgoing: frozenset[str]
    """Tensors that must reach the backing store."""
    streams: tuple[Stream, ...] = ()
    residents: dict[str, Resident] = field(default_factory=dict)

    # --- loops and tiles ---

    @cached_property
    def trips(self) -> tuple[int, ...]:
        """Iterations of each loop."""
        outer: dict[str, int] = {}
        counts = []
        for loop in self.group.loops:
            extent = outer.get(loop.rank, self.sizes.extents[loop.rank])
            counts.append(max(1, math.ceil(extent / loop.tile)))
            outer[loop.rank] = min(loop.tile, extent)
        return tuple(counts)

    @cached_property
    def cut(self) -> frozenset[str]:
        """Ranks of which one tile does not hold the whole."""
        return frozenset(loop.rank for loop, trips in zip(self.group.loops, self.trips, strict=True) if trips > 1)

    @property
    def tiles(self) -> int:
        """Iterations of the innermost loop in all."""
        return math.prod(self.trips)

    def span(self, rank: str, depth: int | None = None) -> tuple[Grid, Grid]:
        """(first position, number of positions) of a rank in each tile, as cut by the first `depth` loops (all if None)."""
        key = (rank, len(self.group.loops) if depth is None else depth)
        if key not in self._spans:
            self._spans[key] = self._span(*key)
        return self._spans[key]

    @cached_property
    def _spans(self) -> dict[tuple[str, int], tuple[Grid, Grid]]:
        return {}

    def _span(self, rank: str, depth: int) -> tuple[Grid, Grid]:
        axes = len(self.group.loops)
        low: Grid = np.zeros((1,) * axes, dtype=np.int64)
        high: Grid = np.full((1,) * axes, self.sizes.extents[rank], dtype=np.int64)
        for axis, loop in enumerate(self.group.loops[:depth]):
            if loop.rank == rank and self.trips[axis] > 0:
                index = np.arange(self.trips[axis], dtype=np.int64).reshape([-1 if a == axis else 1 for a in range(axes)])
                low = low + index * loop.tile
                high = np.minimum(low + loop.tile, high)
        return low, np.maximum(high - low, 0)

    def size(self, rank: str, depth: int | None = None) -> int:
        """Greatest number of positions of a rank in one tile."""
        return int(self.span(rank, depth)[1].max())

    def ranges(self, ranks: frozenset[str], depth: int | None = None) -> dict[str, Bounds]:
        """First and last position of each rank in each tile."""
        result: dict[str, Bounds] = {}
        for rank in ranks:
            low, length = self.span(rank, depth)
            result[rank] = (low, low + length - 1)
        return result

    def total(self, factors: list[Grid], repeat: tuple[int, ...] = ()) -> float:
        """Sum over all tiles of the product of the factors; loops in `repeat` that no factor varies with count their trips."""
        result, counted, varying = 1.0, set(repeat), []
        for factor in factors:
            first = factor.reshape(-1)[0]
            if factor.size == 1 or (factor.dtype != np.bool_ and np.all(factor == first)):
                result *= float(first)
                counted |= _axes(factor)
            else:
                varying.append(factor)
        parts: list[tuple[frozenset[int], Grid]] = []
        for factor in varying:
            axes, product = _axes(factor), factor
            for part in [part for part in parts if part[0] & axes]:
                parts.remove(part)
                axes |= part[0]
                self._check_cells(axes)
                product = product * part[1]
            parts.append((axes, product))
        seen = frozenset().union(*(axes for axes, _ in parts)) if parts else frozenset()
        result *= math.prod(self.trips[axis] for axis in counted - seen)
        for _, product in parts:
            result *= self._sum(product)
        return result

    def _sum(self, grid: Grid) -> float:
        """The sum of a grid; that of a mask, which is asked for often, is remembered."""
        if grid.dtype != np.bool_:
            return float(grid.sum(dtype=np.float64))
        if id(grid) not in self._sums:
            self._sums[id(grid)] = (grid, float(np.count_nonzero(grid)))
        return self._sums[id(grid)][1]

    @cached_property
    def _sums(self) -> dict[int, tuple[Grid, float]]:
        return {}

    def _check_cells(self, axes: frozenset[int]) -> None:
        cells = math.prod(self.trips[axis] for axis in axes)
        if cells > MAX_CELLS:
            raise refuse(
                "E530",
                f"group {self.number} has {cells:,} tiles that differ; at most {MAX_CELLS:,} are tabulated",
                "use larger tiles",
            )

    # --- masks ---

    @cached_property
    def masks(self) -> tuple[tuple[Grid, frozenset[int]], ...]:
        """For each mask: which tiles are live, and the positions of the Einsums that dead tiles skip."""
        found = []
        for mask in masks(self.cascade, self.cut):
            if not any(step.position in mask.skips for step in self.steps):
                continue
            live = self._live_tiles(mask.condition)
            if live is not None and not live.all():
                found.append((live, mask.skips))
        return tuple(found)

    def _live_tiles(self, condition: Expr) -> Grid | None:
        """Tiles in which a condition may hold; None if that cannot be told (then all count as live)."""
        ranks = free_ranks(condition)
        loops = tuple((loop.rank, loop.tile) if loop.rank in ranks else None for loop in self.group.loops)
        extents = tuple((rank, self.sizes.extents[rank]) for rank in sorted(ranks))
        key = (condition, loops, extents, tuple(sorted(self.sizes.scalars.items())))
        if key in _KNOWN_MASKS:
            return _KNOWN_MASKS[key]
        self._check_cells(frozenset(axis for axis, loop in enumerate(self.group.loops) if loop.rank in ranks))
        live: Grid | None
        try:
            live = np.asarray(possible(condition, self.ranges(ranks), self.sizes.scalars)[0])
            live = live.reshape(live.shape or (1,) * len(self.group.loops))
        except NotAffine:
            live = None
        while len(_KNOWN_MASKS) >= 8:
            del _KNOWN_MASKS[next(iter(_KNOWN_MASKS))]
        _KNOWN_MASKS[key] = live
        return live

    def live(self, steps: tuple[Step, ...]) -> Grid | None:
        """Tiles in which at least one of the steps has work; None: all."""
        key = tuple(sorted({tuple(i for i, (_, skips) in enumerate(self.masks) if step.position in skips) for step in steps}))
        if () in key:
            return None
        if key not in self._live:
            result: Grid | None = None
            for together in key:
                mine = self.masks[together[0]][0]
                for i in together[1:]:
                    mine = mine & self.masks[i][0]
                result = mine if result is None else result | mine
            assert result is not None
            self._live[key] = result
        return self._live[key]

    @cached_property
    def _live(self) -> dict[tuple[tuple[int, ...], ...], Grid]:
        return {}

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
            fill = float(sum(step.array.side) - len(step.array.side))
            terms.append((fill, [*self.folds(step, step.ranks), *self.present(step.ranks - step.binding.ranks)]))
        return terms

    def present(self, ranks: frozenset[str]) -> list[Grid]:
        """1 in the tiles that have a position of the ranks, 0 in those that a cut-short outer tile leaves empty."""
        return [(self.span(rank)[1] > 0).astype(np.int64) for rank in sorted(ranks)]

    def _last(self, step: Step) -> list[Grid]:
        """1 in the tiles with the last positions of the reduced ranks, 0 elsewhere."""
        return [self.final(rank).astype(np.int64) for rank in sorted(step.reduced & self.cut)]

    def opening(self, rank: str) -> Grid:
        """Tiles with the first position of a rank."""
        low, length = self.span(rank)
        return np.asarray((low == 0) & (length > 0))

    def final(self, rank: str) -> Grid:
        """Tiles with the last position of a rank (with tails, not those with the last indices: these may be empty)."""
        low, length = self.span(rank)
        return np.asarray((low + length == self.sizes.extents[rank]) & (length > 0))

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
        factors = [self.span(rank)[1] for rank in sorted(item.ranks)]
        repeat = tuple(axis for axis in self.relevant(step) if not (item.after and self.group.loops[axis].rank in step.reduced))
        count = self.total(factors if live is None else [*factors, live], repeat)
        for rank in self.cascade.domain_splits(item.ranks):
            split = rank.split
            assert split is not None
            whole = self.sizes.extents[split.outer] * self.sizes.extents[split.inner]
            if live is None and whole:
                count *= self.sizes.extents[rank.name] / whole
        return count

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
            try:
                low, high = bounds(index, self.ranges(free_ranks(index), depth), self.sizes.scalars)
            except NotAffine as error:
                raise refuse(
                    "E530", f"`{tensor}` is accessed through {error.what}, which the mapper does not model",
                    "gathers and data-dependent indices cannot be mapped yet", getattr(index, "span", None),
                ) from None  # fmt: skip
            shape = (1,) * len(self.group.loops)
            low, high = (np.asarray(end).reshape(np.shape(end) or shape) for end in (low, high))
            extent = self.sizes.extents[rank] + (1 if declared.iterates == rank else 0)
            result.append((np.maximum(low, 0), np.minimum(high, extent - 1)))
        return result

    def stream_words(self, stream: Stream) -> float:
        """Words fetched in all."""
        axes = len(self.group.loops)
        box = self.box(stream.tensor, stream.indices, stream.depth)
        lengths = [np.maximum(high - low + 1, 0) for low, high in box]
        ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
        involved = [axis for axis in range(stream.depth) if self.group.loops[axis].rank in ranks and self.trips[axis] > 1]
        factors = list(lengths)
        if involved:
            factors.append(self._changes(box, involved[-1]))
        repeat = tuple(
            axis
            for axis in range(stream.depth)
            if axis not in involved
            and any(inner > axis for inner in involved)
            and any(self.group.loops[axis].rank in reader.ranks for reader in stream.readers)
        )
        live = self.live(stream.readers)
        if live is not None:
            idle = tuple(a for a in range(axes) if a >= stream.depth or (a not in involved and a not in repeat))
            factors.append(live.any(axis=idle, keepdims=True))
        moving = [self.span(rank, stream.depth)[1] > 0 for rank in sorted(ranks & self.cut)]
        factors += [self._again(stream.depth, axis, repeat, moving) for axis in repeat]
        return self.total(factors, repeat)

    def _again(self, depth: int, axis: int, repeat: tuple[int, ...], moving: list[Grid]) -> Grid:
        """1 in the iterations of a loop that make a tile come again: all, if loops inside moved it away; else the first."""
        exists: Grid = self.span(self.group.loops[axis].rank, depth)[1] > 0
        aside = tuple(slice(0, 1) if a not in repeat else slice(None) for a in range(exists.ndim))
        exists = exists[aside]
        inside = np.ones((1,) * exists.ndim, dtype=np.int64)
        for present in moving:
            inside = inside * present.sum(axis=tuple(range(axis + 1, depth)), keepdims=True)
        index = np.arange(self.trips[axis]).reshape([-1 if a == axis else 1 for a in range(exists.ndim)])
        return np.asarray(exists & ((index == 0) | (inside > 1)), dtype=np.int64)

    def _changes(self, box: list[Bounds], axis: int) -> Grid:
        """1 where the box differs from the one before along the innermost loop that moves it, else 0."""
        result: Grid = np.ones((1,) * len(self.trips), dtype=bool)
        first = True
        for ends in box:
            for end in ends:
                if end.shape[axis] > 1:
                    step = np.diff(end, axis=axis) != 0
                    lead = np.ones([1 if a == axis else n for a, n in enumerate(step.shape)], dtype=bool)
                    moved = np.concatenate([lead, step], axis=axis)
                    result = moved if first else result | moved
                    first = False
        return result

    def stream_tile(self, stream: Stream) -> int:
        """Words of the largest tile held."""
        return math.prod(int(np.max(high - low + 1)) for low, high in self.box(stream.tensor, stream.indices, stream.depth))

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
        declared = self.cascade.tensor(tensor)
        for axis, loop in enumerate(self.group.loops):
            if self.trips[axis] == 1:
                continue
            if producer.slots[axis] == "each":
                if loop.rank not in declared.ranks or declared.iterates == loop.rank:
                    return axis
            elif producer.slots[axis] != reader.slots[axis]:
                return axis
        return len(self.group.loops)


def _axes(grid: Grid) -> frozenset[int]:
    """Loops that a grid varies with."""
    return frozenset(axis for axis, length in enumerate(grid.shape) if length > 1)


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


def step_name(cascade: Cascade, einsum: Einsum) -> str:
    """The name of an Einsum: its output; `NAME@0` for the initial value of a state."""
    return f"{einsum.output}@0" if is_initial(cascade, einsum) else einsum.output


def is_initial(cascade: Cascade, einsum: Einsum) -> bool:
    tensor = cascade.tensor(einsum.output)
    return tensor.kind == "state" and einsum.indices[tensor.ranks.index(str(tensor.iterates))] == Number(0)


def iterated(einsum: Einsum) -> frozenset[str]:
    """All ranks of an Einsum, bound ones included."""
    ranks = frozenset().union(*(free_ranks(index) for index in einsum.indices)) | free_ranks(einsum.body)
    body = einsum.body
    if isinstance(body, Reduce):
        ranks |= frozenset(body.ranks)
    if isinstance(body, Select):
        ranks |= {body.rank}
    return ranks


def place(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
) -> Placed:
    """Place a mapping. Raises EinsmithError (E510 to E523, E530, E531) where it does not fit the cascade or the architecture."""
    cascade = flatten(cascade)
    unknown = [name for name in mapping.sizes if name not in cascade.symbols]
    if unknown:
        raise refuse("E510", f"the mapping gives a size to `{unknown[0]}`, which the cascade does not have")
    bound = bind(cascade, {**mapping.sizes, **(sizes or {})}, params)
    _check_names(cascade, mapping)
    for name in cascade.outputs:
        if cascade.tensor(name).kind == "state":
            raise refuse(
                "E530", f"the output `{name}` is a running state, all of whose positions would be kept; the mapper keeps one"
            )
    nests: list[Nest] = []
    homes = {name: number for number, group in enumerate(mapping.groups) for name in group.einsums}
    outgoing = _outgoing(cascade, homes)
    for number, group in enumerate(mapping.groups, 1):
        nests.append(place_group(cascade, arch, bound, group, number, outgoing))
    _check_order(cascade, homes)
    return Placed(cascade, bound, arch, mapping, tuple(nests))


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


def place_group(cascade: Cascade, arch: Architecture, sizes: Sizes, group: Group, number: int, outgoing: frozenset[str]) -> Nest:
    """Place one group; `cascade` is flat."""
    nest = outline(cascade, arch, sizes, group, number, outgoing)
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
    nest = Nest(cascade, arch, sizes, group, number, steps, outgoing & frozenset(group.einsums))
    _check_loops(nest)
    nest.steps = _slots(nest, explain)
    _add_streams(nest)
    return nest


def settle(nest: Nest) -> None:
    """Where the tensors made in a group stay; refuses what does not fit."""
    _add_residents(nest)
    _check_capacity(nest)


def check_step(cascade: Cascade, arch: Architecture, sizes: Sizes, binding: Binding, position: int, einsum: Einsum) -> Step:
    """One Einsum bound to an array; refuses what the array cannot do."""
    name = step_name(cascade, einsum)
    if binding.array not in arch.arrays:
        listing = ", ".join(f"`{n}`" for n in arch.arrays)
        raise refuse("E512", f"`{name}` is bound to `{binding.array}`, which the architecture does not have", f"it has {listing}")
    array = arch.arrays[binding.array]
    ranks = iterated(einsum)
    if any(accesses(index) for index in einsum.indices):
        raise refuse(
            "E530", f"`{name}` scatters to positions read from a tensor, which the mapper does not model", span=einsum.span
        )
    if len(binding.spatial) > len(array.side):
        raise refuse("E512", f"`{name}` has {len(binding.spatial)} spatial sides; `{binding.array}` has {len(array.side)}")
    listed = [rank for along in binding.spatial for rank in along]
    if len(set(listed)) < len(listed):
        raise refuse("E512", f"`{name}` has a spatial rank twice: {', '.join(listed)}")
    initial = is_initial(cascade, einsum)
    if not initial and (strange := [rank for rank in listed if rank not in ranks]):
        listing = ", ".join(f"`{n}`" for n in sorted(ranks))
        raise refuse("E512", f"`{name}` does not iterate its spatial rank `{strange[0]}`", f"it iterates {listing}")
    if initial:
        kept = tuple(tuple(rank for rank in along if rank in ranks) for along in binding.spatial)
        binding = Binding(array=binding.array, spatial=kept)
    tensor = cascade.tensor(einsum.output)
    order = {r for r in (tensor.iterates, einsum.body.rank if isinstance(einsum.body, Scan | Select) else None) if r}
    if broken := [rank for rank in listed if rank in order]:
        raise refuse("E512", f"`{name}` runs along `{broken[0]}` one position after another, so that rank cannot be spatial")
    items = () if initial and is_constant(einsum.body) else work(einsum, sizes.scalars)
    for item in items:
        if array.expand(item.operation) is None:
            able = ", ".join(sorted({*array.units, *array.expansions}))
            hint = _who_can(arch, items, item.operation, binding.array)
            raise refuse("E513", f"`{name}` needs `{item.operation}`; array `{binding.array}` has {able}", hint, einsum.span)
    reduced = frozenset(einsum.body.ranks) if isinstance(einsum.body, Reduce) else frozenset()
    reads = tuple(dict.fromkeys(accesses(einsum.body)))
    return Step(name, position, einsum, binding, array, ranks, reduced, items, reads, initial)


def _who_can(arch: Architecture, items: Iterable[Work], operation: str, bound: str) -> str:
    """Help for an operation that an array lacks: an array that has all that the Einsum needs, or how to give the operation."""
    lacking = {
        name: sorted({i.operation for i in items if array.expand(i.operation) is None}) for name, array in arch.arrays.items()
    }
    if able := [name for name, operations in lacking.items() if not operations]:
        return f"`{able[0]}` can"
    others = [f"`{name}` lacks `{'`, `'.join(found)}`" for name, found in lacking.items() if operation not in found]
    how = f"give it as a unit or an expansion, such as `--set '{bound}.expansions.{operation}={{mac: 6}}'`, or split the Einsum"
    return f"{', '.join(others)}; {how}" if others else how.removesuffix(", or split the Einsum")


def _check_loops(nest: Nest) -> None:
    outer: dict[str, int] = {}
    used = frozenset().union(*(step.ranks for step in nest.steps))
    for loop in nest.group.loops:
        if loop.rank not in nest.sizes.extents:
            listing = ", ".join(f"`{n}`" for n in nest.sizes.extents)
            raise refuse(
                "E510", f"group {nest.number} loops over `{loop.rank}`, which the cascade does not have", f"it has {listing}"
            )
        if loop.rank not in used:
            raise refuse("E510", f"group {nest.number} loops over `{loop.rank}`, which none of its Einsums iterates")
        if loop.rank in outer and loop.tile > outer[loop.rank]:
            raise refuse(
                "E510",
                f"group {nest.number}: the inner loop over `{loop.rank}` has tile {loop.tile}, larger than the one outside",
            )
        outer[loop.rank] = loop.tile
    for step in nest.steps:
        iterates = nest.cascade.tensor(step.output).iterates
        if iterates and not step.initial and outer.get(iterates) != 1 and nest.sizes.extents[iterates] > 1:
            raise refuse(
                "E511",
                f"`{step.output}` runs along `{iterates}`: group {nest.number} must loop over `{iterates}` with tile 1",
                f"add `{{rank: {iterates}, tile: 1}}` to its loops", step.einsum.span,
            )  # fmt: skip
        body = step.einsum.body
        if isinstance(body, Scan | Select) and body.rank in nest.cut:
            raise refuse(
                "E511",
                f"`{step.name}` needs the whole of `{body.rank}` at once; group {nest.number} cuts it by a loop",
                span=step.einsum.span,
            )


def _slots(nest: Nest, explain: bool) -> tuple[Step, ...]:
    """Each step with the slot in which it runs for each loop; refuses what reads a reduction before it is complete."""
    late: dict[str, frozenset[str]] = {}
    placed: list[Step] = []
    made = {step.output: step for step in nest.steps if not step.initial}
    for step in nest.steps:
        mine: set[str] = set()
        for access in step.reads:
            producer = made.get(access.tensor)
            if producer is None:
                continue
            waits = _waits(nest, access, producer, late)
            if broken := sorted(waits & step.ranks & nest.cut):
                raise _illegal(nest, step, access, broken[0], explain)
            mine |= waits & nest.cut
            _check_aligned(nest, step, access, producer)
        late[step.name] = frozenset(mine)
        slots: list[Slot] = [
            "each" if loop.rank in step.ranks else "last" if loop.rank in mine else "first" for loop in nest.group.loops
        ]
        step = replace(step, slots=tuple(slots))
        placed.append(step)
    return tuple(placed)


def _waits(nest: Nest, access: Access, producer: Step, late: dict[str, frozenset[str]]) -> frozenset[str]:
    """Ranks whose loops must have ended before the accessed value is complete."""
    tensor = nest.cascade.tensor(access.tensor)
    waits = late.get(producer.name, frozenset())
    if tensor.iterates is None:
        return waits | producer.reduced
    index = access.indices[tensor.ranks.index(tensor.iterates)]
    if index in (Coord(tensor.iterates), Map("+", (Coord(tensor.iterates), Number(1)))):
        return waits
    if is_last(nest.sizes, index, tensor.iterates):
        return waits | {tensor.iterates}
    raise refuse(
        "E530", f"`{access.tensor}` is read at another position than the current, the next or the last one", span=access.span
    )


def is_last(sizes: Sizes, index: Expr, rank: str) -> bool:
    """Whether an index is the last position of a running state."""
    if free_ranks(index) or accesses(index):
        return False
    return evaluate_scalar(index, sizes.scalars) == sizes.extents[rank]


def _check_aligned(nest: Nest, step: Step, access: Access, producer: Step) -> None:
    """What a loop makes tile by tile must be read at the same position of that loop."""
    tensor = nest.cascade.tensor(access.tensor)
    for rank, index in zip(tensor.ranks, access.indices, strict=True):
        if rank in nest.cut and rank in producer.ranks and rank != tensor.iterates and index != Coord(rank):
            raise refuse(
                "E511",
                f"group {nest.number} makes `{access.tensor}` in tiles along `{rank}`; `{step.name}` reads it at other positions",
                f"put them in different groups, or do not loop over `{rank}` in this one", access.span,
            )  # fmt: skip
        if accesses(index):
            raise refuse("E530", f"`{step.name}` gathers from `{access.tensor}`, which the mapper does not model", span=access.span)


def _illegal(nest: Nest, step: Step, access: Access, rank: str, explain: bool) -> EinsmithError:
    """The refusal of a fusion, with the pass analysis as its reason."""
    reason = f"`{access.tensor}` is known only after the whole of `{rank}`"
    if explain:
        reason = _passes_apart(nest.cascade, step, access.tensor, rank) or reason
    return refuse(
        "E511",
        f"group {nest.number} loops over `{rank}`, and `{step.name}` reads `{access.tensor}` before it is complete: {reason}",
        f"put `{step.name}` in a later group, or do not loop over `{rank}` here", step.einsum.span,
    )  # fmt: skip


def _passes_apart(cascade: Cascade, step: Step, tensor: str, rank: str) -> str | None:
    """What the pass analysis says of a value and the Einsum that reads it; None if it tells them not apart."""
    from ..einsum.analysis.passes import levels

    whole = cascade.rank(rank).part_of or rank
    found = levels(cascade, whole).of_einsum
    read, reader = found.get(tensor, 0), found.get(step.output, 0)
    if reader <= read:
        return None
    return f"`{tensor}` is made in pass {read} over `{whole}`, `{step.name}` belongs to pass {reader}"


def _add_streams(nest: Nest) -> None:
    made = {step.output for step in nest.steps}
    readers: dict[tuple[str, tuple[Expr, ...]], list[Step]] = {}
    for step in nest.steps:
        for access in step.reads:
            if access.tensor not in made:
                declared = nest.cascade.tensor(access.tensor)
                if declared.kind == "state" and not is_last(
                    nest.sizes, access.indices[declared.ranks.index(str(declared.iterates))], str(declared.iterates)
                ):
                    raise refuse(
                        "E511", f"`{step.name}` reads the running state `{access.tensor}` as it runs, but is in another group",
                        "put it in the group of the state", access.span,
                    )  # fmt: skip
                readers.setdefault((access.tensor, access.indices), []).append(step)
    held = {name: depth for depth, loop in enumerate(nest.group.loops, 1) for name in loop.hold}
    known = {tensor for tensor, _ in readers}
    for name in held:
        if name not in known:
            listing = ", ".join(f"`{n}`" for n in sorted(known))
            raise refuse(
                "E510", f"group {nest.number} holds `{name}`, which it does not read from the backing store", f"it reads {listing}"
            )
    streams = []
    for (tensor, indices), steps in readers.items():
        ranks = frozenset().union(*(free_ranks(index) for index in indices))
        own = [depth for depth, loop in enumerate(nest.group.loops, 1) if loop.rank in ranks]
        streams.append(Stream(tensor, indices, tuple(steps), held.get(tensor, own[-1] if own else 0)))
    nest.streams = tuple(streams)


def _add_residents(nest: Nest) -> None:
    level_name, _ = nest.arch.buffer
    for tensor in nest.group.stay:
        if tensor not in nest.group.einsums:
            raise refuse("E510", f"group {nest.number} says where `{tensor}` stays, but does not make it")
    for producer in nest.steps:
        if producer.initial:
            continue
        tensor = producer.output
        readers = tuple(step for step in nest.steps if any(access.tensor == tensor for access in step.reads))
        initial = next((step for step in nest.steps if step.initial and step.output == tensor), None)
        alive = [nest.crosses(producer, reader, tensor) for reader in readers]
        alive.append(nest.crosses(producer, producer, tensor))
        if initial is not None:
            alive.append(nest.crosses(initial, producer, tensor) if initial.slots != producer.slots else len(nest.group.loops))
        spot = nest.group.stay.get(tensor, level_name)
        resident = Resident(tensor, producer, readers, min(alive), spot, tensor in nest.outgoing)
        _check_place(nest, resident, level_name)
        nest.residents[tensor] = resident


def _check_place(nest: Nest, resident: Resident, level_name: str) -> None:
    name, spot = resident.tensor, resident.place
    if spot == level_name:
        return
    if spot == FORWARD:
        if resident.depth < len(nest.group.loops):
            loop = nest.group.loops[resident.depth]
            raise refuse("E522", f"`{name}` cannot be handed on: it is needed across iterations of the loop over `{loop.rank}`")
        shape = frozenset(nest.cascade.tensor(name).ranks)
        for reader in resident.readers:
            if reader.ranks != shape:
                extra = ", ".join(f"`{n}`" for n in sorted(reader.ranks ^ shape))
                raise refuse("E522", f"`{name}` cannot be handed on: `{reader.name}` uses its elements more than once ({extra})")
            if (through := nest.between(resident.producer, reader)) is not None:
                raise refuse(
                    "E522", f"`{name}` cannot be handed on: `{reader.name}` also waits for `{through.name}`, which comes after it"
                )
        return
    if spot not in nest.arch.arrays:
        listing = ", ".join(f"`{n}`" for n in (level_name, FORWARD, *nest.arch.arrays))
        raise refuse("E512", f"`{name}` is to stay at `{spot}`, which is no array or buffer", f"choose one of {listing}")
    if all(step.binding.array != spot for step in (resident.producer, *resident.readers)):
        raise refuse("E512", f"`{name}` is to stay at `{spot}`, but nothing there makes or reads it")
    layouts = {nest.layout(step, name): step for step in (resident.producer, *resident.readers) if step.binding.array == spot}
    if len(layouts) > 1:
        shown = ", ".join(f"`{s.name}` as {' x '.join(' '.join(a) or '1' for a in layout)}" for layout, s in layouts.items())
        raise refuse("E522", f"`{name}` cannot stay in the registers of `{spot}`: its Einsums lay it out differently ({shown})")
    if resident.leaves:
        raise refuse(
            "E512", f"`{name}` leaves group {nest.number}: it may stay in `{level_name}` or be `{FORWARD}`ed, not in registers"
        )


@dataclass(frozen=True)
class Need:
    """What one tensor needs of a storage level at once."""

    tensor: str
    words: int
    """One slot."""
    slots: int


def most_in_flight(nest: Nest) -> int:
    """Most tiles that registers and buffer can hold at once; 0 if not even one."""
    most = 4096
    asked = nest.group
    for name, array in nest.arch.arrays.items():
        needs = []
        for flying in (1, 2):
            nest.group = asked.model_copy(update={"in_flight": flying})
            needs.append(sum(nest.lane_needs(name).values()))
        most = min(most, _fits(array.registers.words, *needs))
    size = nest.arch.buffer[1].size
    if size is not None:
        needs = []
        for flying in (2, 3):  # with one tile, double buffering may ask for more slots than tiles in flight
            nest.group = asked.model_copy(update={"in_flight": flying})
            needs.append(sum(item.words * item.slots for item in buffer_needs(nest)) * nest.arch.word_bytes)
        per_tile = needs[1] - needs[0]
        if needs[0] > size:
            nest.group = asked.model_copy(update={"in_flight": 1})
            least = sum(item.words * item.slots for item in buffer_needs(nest)) * nest.arch.word_bytes
            most = min(most, 1 if least <= size else 0)
        else:
            most = min(most, _fits(size, needs[0] - per_tile, needs[0]))
    nest.group = asked
    return most


def _fits(have: int, one: int, two: int) -> int:
    """How many fit if one needs `one` and two need `two`."""
    return 0 if one > have else 4096 if two == one else 1 + (have - one) // (two - one)


def buffer_needs(nest: Nest) -> list[Need]:
    """What each tensor needs of the buffer."""
    level_name, _ = nest.arch.buffer
    needs = [Need(stream.tensor, nest.stream_tile(stream), slots_of(nest, stream.depth)) for stream in nest.streams]
    for resident in nest.residents.values():
        if resident.place == level_name:
            whole = resident.depth == len(nest.group.loops)
            slots = nest.group.in_flight if whole else 1
            if resident.leaves:
                slots = max(slots, slots_of(nest, resident.depth))
            needs.append(Need(resident.tensor, nest.resident_words(resident), slots))
    return needs


def slots_of(nest: Nest, depth: int) -> int:
    """Slots of a tile that is exchanged with the backing store; one is enough for what is exchanged only once."""
    return nest.group.buffering if math.prod(nest.trips[:depth]) > 1 else 1


def settle_lasting(nest: Nest) -> None:
    """A first look at capacity, whatever the binding: inputs held, and what is alive across tiles."""
    _add_residents(nest)
    within = len(nest.group.loops)
    passing = {name for name, resident in nest.residents.items() if resident.depth == within}
    _check_buffer(nest, [need for need in buffer_needs(nest) if need.tensor not in passing])


def _check_capacity(nest: Nest) -> None:
    _check_buffer(nest, buffer_needs(nest))
    _check_registers(nest)


def _check_buffer(nest: Nest, needs: list[Need]) -> None:
    level_name, level = nest.arch.buffer
    word = nest.arch.word_bytes
    need = sum(item.words * item.slots for item in needs) * word
    if level.size is not None and need > level.size:
        largest = sorted(needs, key=lambda item: -item.words * item.slots)
        parts = ", ".join(
            f"`{item.tensor}` {item.words * item.slots * word:,}" + (f" ({item.slots} slots)" if item.slots > 1 else "")
            for item in largest[:6]
        )
        raise refuse(
            "E520",
            f"group {nest.number} needs {need:,} bytes of `{level_name}`, which has {level.size:,}: {parts}",
            "use smaller tiles",
        )


def _check_registers(nest: Nest) -> None:
    for name, array in nest.arch.arrays.items():
        lanes = nest.lane_needs(name)
        total = sum(lanes.values())
        if total > array.registers.words:
            parts = ", ".join(f"`{tensor}` {words}" for tensor, words in sorted(lanes.items(), key=lambda item: -item[1]))
            raise refuse(
                "E521", f"group {nest.number} needs {total} words of registers in each lane of `{name}`, which has "
                f"{array.registers.words}: {parts}",
                "let a tensor stay in the buffer, use smaller tiles, or keep fewer tiles in flight",
            )  # fmt: skip
