"""What an Einsum moves while it works on one tile: operands that it reads, results that it writes, sums that it reads back.

In: a placed group. Out: for a step and a tile, `Moves`: words at the levels on the chip, which its array streams as it works; and
words that come from or go to the backing store, which are fetched ahead or written behind in transfers of their own. What a spilled
tensor's level takes and gives, its share goes out and comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..einsum.cascade import Expr, free_ranks
from ..mapper.accesses import feeds, unreduced
from ..mapper.nest import Grid, Nest, Resident, Step, Stream
from ..mapper.residency import spilled
from .task import Index, Move
from .walk import Box, Lookup, Walk, lookup


@dataclass(frozen=True, slots=True)
class Part:
    """Some positions of the rank along which the Einsums of a tile follow one another."""

    number: int
    low: int
    high: int
    of: int
    """Positions of the whole tile."""


@dataclass(frozen=True, slots=True)
class Past:
    """Words between an array and the backing store."""

    tensor: str
    words: float
    made_here: bool
    """Whether the group makes it: then what is read is what was written."""
    link: str | None = None
    """The network that carries them, if one is declared."""
    key: tuple[object, ...] = ()
    """What instances share that read the same at the same time; empty: nothing is shared."""


@dataclass
class Moves:
    """Of one step in one tile."""

    on_chip: tuple[Move, ...] = ()
    reads: list[Past] = field(default_factory=list)
    writes: list[Past] = field(default_factory=list)


@dataclass
class _Flow:
    """One access of a step to a level, as a product over tiles."""

    level: str
    way: str
    tensor: str
    words: float
    factors: list[Lookup]
    link: str | None
    """The network that carries it, if it limits anything."""
    share: Callable[[Part], float]
    spilled: float = 0.0
    made_here: bool = False
    again: tuple[Resident, float] | None = None
    """Of sums that are read back: the result, and which share of its words is read where it is begun."""
    box: Callable[[Index], Box] | None = None
    """If instances that read the same words at the same time do so in one read: which words these are."""


class Traffic:
    """The moves of all steps of a group."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.nest = walk, walk.nest
        self.backing = self.nest.arch.backing[0]
        self.begun: set[tuple[str, Index]] = set()
        """Tiles of sums to which something was added."""
        self._asked: dict[tuple[str, str, int], tuple[Index, set[tuple[object, ...]]]] = {}
        """What instances have asked for in the iteration at hand."""
        self._fixed: dict[tuple[str, Index], Moves] = {}

    def of(self, step: Step, index: Index, part: Part | None = None) -> Moves:
        """What a step moves in a tile; of a part of it only."""
        plain, own = self._flows[step.name]
        where = tuple([index[axis] for axis in self.walk.side_by_side])
        if plain and part is None:
            if (step.name, where) not in self._fixed:
                self._fixed[step.name, where] = self._moves(step, index, None)
            return self._fixed[step.name, where]
        found = self._moves(step, index, part)
        if own is not None and (part is None or part.high == part.of):
            self.begun.add((own.tensor, self.walk.key(own, index)))
        return found

    def _moves(self, step: Step, index: Index, part: Part | None) -> Moves:
        found = Moves()
        on_chip: list[Move] = []
        for number, flow in enumerate(self._all_flows[step.name]):
            words = flow.words
            for factor in flow.factors:
                words *= factor(index)
            if flow.again is not None:
                resident, first = flow.again
                if (resident.tensor, self.walk.key(resident, index)) not in self.begun:
                    words *= first
            key: tuple[object, ...] = ()
            if flow.box is not None:
                key = (step.name, number, self.walk.core(flow.level, index), flow.box(index))
                if flow.level != self.backing and self._known(flow, index, key):
                    continue
            if part is not None:
                words *= flow.share(part)
            if not words:
                continue
            if flow.level == self.backing:
                into = found.reads if flow.way == "read" else found.writes
                into.append(Past(flow.tensor, words, flow.made_here, flow.link, key))
                continue
            on_chip.append((flow.level, self.walk.instance(flow.level, index), flow.way, flow.tensor, words))
            if flow.link is not None:
                on_chip.append((flow.link, self.walk.instance(flow.level, index), "sent", flow.tensor, words))
            if flow.spilled:
                into = found.reads if flow.way == "read" else found.writes
                link = self._link(self.nest.arch.network(self.backing, flow.level))
                into.append(Past(flow.tensor, words * flow.spilled, True, link))
        found.on_chip = tuple(on_chip)
        return found

    def _known(self, flow: _Flow, index: Index, key: tuple[object, ...]) -> bool:
        """Whether another instance reads the same words at this time."""
        slot = (flow.level, flow.tensor, self.walk.instance(flow.level, index))
        time = tuple([index[axis] for axis in self.walk.in_time])
        if slot not in self._asked or self._asked[slot][0] != time:
            self._asked[slot] = (time, set())
        asked = self._asked[slot][1]
        if key in asked:
            return True
        asked.add(key)
        return False

    # --- what there is to move ----------------------------------------------------------------------------------------

    @cached_property
    def _flows(self) -> dict[str, tuple[bool, Resident | None]]:
        """For each step, whether it moves the same in all tiles, and the sum whose beginning is to be noted."""
        found: dict[str, tuple[bool, Resident | None]] = {}
        for step in self.nest.steps:
            flows = self._all_flows[step.name]
            own = next((flow.again[0] for flow in flows if flow.again is not None), None)
            found[step.name] = not any(flow.factors or flow.again or flow.box for flow in flows), own
        return found

    @cached_property
    def _all_flows(self) -> dict[str, list[_Flow]]:
        found: dict[str, list[_Flow]] = {}
        for step in self.nest.steps:
            flows = [self._operand(step, s.tensor, s.indices, at) for s, at in self._inputs(step)]
            for access in step.reads:
                resident = self.nest.residents.get(access.tensor)
                tapped = step.name in self.nest.group.taps.get(access.tensor, ())
                if resident is not None and resident.place in self.nest.arch.memory and not tapped:
                    flows.append(self._operand(step, access.tensor, access.indices, resident.place))
            made = self.nest.residents.get(step.output)
            if made is not None and not step.initial:
                flows += self._results(step, made)
            found[step.name] = flows
        return found

    def _inputs(self, step: Step) -> list[tuple[Stream, str]]:
        """Inputs that a step streams as it works, and from where: those that its array does not hold."""
        found = []
        for stream in self.nest.streams:
            if step in stream.readers and step.binding.array not in dict(stream.chain):
                found.append((stream, feeds(self.nest, stream, step, step.binding.array)))
        return found

    def _operand(self, step: Step, tensor: str, indices: tuple[Expr, ...], level: str) -> _Flow:
        nest, array = self.nest, step.binding.array
        ranks = frozenset().union(*(free_ranks(index) for index in indices))
        network = nest.arch.network(level, array)
        lanes = network is not None and not network[1].multicast
        whole = len(nest.group.loops)
        factors = [(high - low + 1).clip(0) for low, high in nest.box(tensor, indices, whole)]
        declared = nest.cascade.tensor(tensor)
        if declared.iterates is not None:
            del factors[declared.ranks.index(declared.iterates)]
        free = step.binding.ranks - ranks
        factors += [nest.span(rank)[1] for rank in sorted(free)] if lanes else nest.folds(step, free)
        factors += [nest.span(rank)[1] for rank in nest.repeated(step, ranks)]
        together = [
            axis for axis in nest.spread - nest.spread_to(level)
            if nest.trips[axis] > 1 and nest.group.loops[axis].rank not in ranks and not lanes
        ]  # fmt: skip
        folded = nest.group.flow in free and not lanes
        words, varying = constant(factors)
        made_here = tensor in nest.residents
        return _Flow(
            level, "read", tensor, words, varying, self._link(network), shares(nest, step) if folded else positions,
            spilled(nest, tensor) if made_here else 0.0, made_here,
            box=self.walk.boxes(tensor, indices, whole) if together else None,
        )  # fmt: skip

    def _results(self, step: Step, made: Resident) -> list[_Flow]:
        nest = self.nest
        place = made.inner[-1][0] if made.inner else made.place
        if place not in nest.arch.memory:
            return []
        network = nest.arch.network(place, step.binding.array)
        lanes = 1 if network is None or network[1].reduction else unreduced(nest, step)
        words, varying = constant([nest.span(rank)[1] for rank in nest.own_ranks(made.tensor)])
        words *= lanes
        share = spilled(nest, made.tensor)
        link = self._link(network)
        flows = [_Flow(place, "written", made.tensor, words, varying, link, positions, share, True)]
        if step.reduced & nest.cut or lanes > 1:
            again = (made, (lanes - 1) / lanes)
            flows.append(_Flow(place, "read", made.tensor, words, varying, link, positions, share, True, again))
        return flows

    def _link(self, network: tuple[str, object] | None) -> str | None:
        return None if network is None else network[0]


def constant(factors: Sequence[Grid]) -> tuple[float, list[Lookup]]:
    """A product of grids as what is the same in all tiles, and look-ups of the rest."""
    product, varying = 1.0, []
    for factor in factors:
        first = factor.flat[0]
        if (factor == first).all():
            product *= float(first)
        else:
            varying.append(lookup(factor))
    return product, varying


# --- parts of a tile ----------------------------------------------------------------------------------------------------


def positions(part: Part) -> float:
    """The share of a part where all positions count alike."""
    return (part.high - part.low) / part.of


def shares(nest: Nest, step: Step) -> Callable[[Part], float]:
    """The share of a part in what a step does fold by fold."""
    flow = str(nest.group.flow)
    for side, lanes in enumerate(step.array.side):
        along = step.binding.along(side)
        if flow in along:
            each = math.prod(nest.size(rank) for rank in along if rank != flow)
            return lambda part: (_folds(part.high * each, lanes) - _folds(part.low * each, lanes)) / _folds(part.of * each, lanes)
    return positions


def _folds(count: int, lanes: int) -> int:
    return -(-count // lanes)


def parted(nest: Nest, most: int = 64) -> int:
    """Positions of a part: as many as fill the sides of all arrays that lay them out, more where there would be too many parts."""
    flow = str(nest.group.flow)
    fill = [1]
    for step in nest.steps:
        for side, lanes in enumerate(step.array.side):
            along = step.binding.along(side)
            if flow in along:
                fill.append(max(1, lanes // math.prod(nest.size(rank) for rank in along if rank != flow)))
    return max(*fill, -(-nest.size(flow) // most))
