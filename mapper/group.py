"""The best mappings of one fusion group, best bound first.

In: Einsums that may be a group, an objective. Out: the best mapping, or the Pareto front, or as much of the proof as was asked for:
a search can be advanced until its lower bound passes a limit.

What is looked at stands in one queue by its lower bound: a *cut* (loops in no order, on one team of instances) with bounds of all
its tilings that no order can go below; and a *block* (one order of a cut, with bounds of its tilings and the inputs held in
each), of which the next tiling is placed, bound to arrays and costed in full by the model. The least bound in the queue is what
the group cannot beat.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import Cascade, Einsum, free_ranks
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.sizes import Sizes
from .architecture import Architecture, Array
from .batch import leaves, roomy
from .bindings import Bindings, Costs, busiest, cheapest, in_one_tile
from .cost import GroupCost, group_cost
from .floors import Floors, Way, is_simple, level_pj, whole_words
from .layouts import Choice, Vector, choices, front
from .mapping import Binding, Group, Loop, Schedule
from .masks import first_step
from .nest import Nest, Step, check_step, most_in_flight, outline, refuse, settle, settle_lasting
from .objective import MEASURES, NOTHING, PRODUCTS, Objective, order, rank_of
from .orders import OUTSIDE, Block, Orders, Tilings
from .places import Places, Rooms
from .residency import add_residents, add_streams, check_capacity
from .space import Cut, Fixed, Tiles, looped_ranks, sides
from .tape import Floats
from .team import Team, teams
from .timing import chains, exposed, longest, nominal

MAX_EVALUATIONS = 20_000
"""Full evaluations after which a search ends without proof."""


@dataclass
class Tally:
    """What a search looked at."""

    evaluated: int = 0
    """Mappings of a group costed in full."""
    illegal: int = 0
    """Tilings that read a reduction before it is complete, or that the architecture cannot do."""
    too_large: int = 0
    """Tilings or mappings that do not fit a storage level."""
    bounded: int = 0
    """Tilings and mappings whose lower bound was no better than what was found."""
    dominated: int = 0
    """Layouts and bindings no better in any array."""
    closest: tuple[float, Diagnostic] | None = None
    """The refusal of what lacked least, and how much of what there is it needs: shown if nothing fits."""
    refused: Diagnostic | None = None
    """The first refusal of what is not legal."""
    cut_off: bool = False
    tiles: Tiles = "doubled"
    gap: float = 0.0
    """Share of the objective by which what is found may miss the best."""
    watch: Callable[[int, float, float], None] | None = None
    stop: Callable[[], bool] = lambda: False

    def is_closest(self, lacking: float) -> bool:
        """Whether nothing that was refused lacked less."""
        return self.closest is None or lacking < self.closest[0]

    def refuse(self, error: EinsmithError, count: int = 1) -> None:
        """Note why something is not looked at."""
        diagnostic = error.diagnostics[0]
        if diagnostic.code in ("E520", "E521"):
            self.too_large += count
            lacking = _lacking(diagnostic)
            if self.is_closest(lacking):
                self.closest = lacking, diagnostic
        else:
            self.illegal += count
            self.refused = self.refused or diagnostic


class Rivals:
    """Cycles and energy of whole mappings that are known, for objectives that do not add up over groups."""

    def __init__(self, objective: Objective, values: Iterable[Vector] = ()) -> None:
        self.objective = objective
        self.values = [value for value, _ in front([(value[:2], None) for value in values])]

    def beat(self, cycles: Any, energy: Any) -> Any:
        """Whether no mapping that takes so much at least is better than all of them."""
        found: Any = np.zeros(np.shape(cycles), dtype=bool)
        if self.objective == "edp" and self.values:
            return cycles * energy >= min(one * other for one, other in self.values)
        for one, other in self.values if self.objective == "pareto" else ():
            found = found | ((cycles >= one) & (energy >= other))
        return found


@dataclass(frozen=True)
class Found:
    """One group, mapped and costed. Its value: cycles with fill and drain, energy, words across the boundary."""

    nest: Nest
    cost: GroupCost

    @property
    def value(self) -> Vector:
        words = sum(sum(by.values()) for by in self.cost.traffic_words.values())
        return self.cost.timing.cycles + self.cost.timing.fill, self.cost.energy_pj, words


@dataclass(frozen=True)
class Problem:
    """Einsums that are to be one group."""

    cascade: Cascade
    """Flat."""
    arch: Architecture
    sizes: Sizes
    names: frozenset[str]
    leaving: frozenset[str]
    objective: Objective
    shares: Map_[int, float]
    """Least share of the points of masked Einsums that any tiling must do."""
    fixed: Fixed
    masks: frozenset[int] = frozenset()
    """Those of them that masks are the reason of."""
    axes: tuple[int, ...] = ()
    """Places in a value of the measures whose whole Pareto front is wanted; none: the best is."""
    known: dict[Any, float] = field(default_factory=dict, compare=False)
    """Cycles of steps on arrays, shared by the problems of one cascade."""
    ways: dict[Any, list[Way]] = field(default_factory=dict, compare=False)
    """Ways to read the operands of steps, shared like these."""

    @property
    def masked(self) -> bool:
        return any(einsum.output in self.names and at in self.masks for at, einsum in enumerate(self.cascade.einsums))


@dataclass
class _Candidate:
    """Loops that are legal, with what is held, the bindings worth trying, and what is known of the cost."""

    nest: Nest
    choices: list[Choice]
    cycles: float
    energy: float
    carried: float
    """Energy besides operations and operands."""
    words: float
    transfer: float
    """Cycles of the backing store."""
    rooms: Rooms


class _Ground:
    """The tilings of all cuts on one team; at first only what none of them can go below."""

    def __init__(self, search: GroupSearch, team: Team, share: int) -> None:
        problem = search.problem
        self.search, self.team = search, team
        self.looped = looped_ranks(
            problem.cascade, problem.arch, team.sizes, problem.names, problem.leaving, search.tally.tiles, share, problem.fixed
        )
        looped = self.looped
        ranks = (*looped.moving, *looped.choices)
        loops = (
            *looped.outside,
            *(Loop(rank=rank, tile=looped.choices[rank][0] if rank in looped.choices else 1) for rank in ranks),
        )
        group = Group(loops=loops, einsums=search.plain, schedule="interleaved")
        self.nest = Nest(problem.cascade, search.roomy, team.sizes, group, 1, search.steps(search.plain), problem.leaving)
        add_streams(self.nest)
        self.single = frozenset((*(loop.rank for loop in looped.outside), *looped.moving))
        short = {rank for rank, extent in team.sizes.extents.items() if extent <= 1}
        arrays, fixed = search.arch.arrays, problem.fixed
        self.bindings = Bindings(problem.cascade, self.nest.steps, arrays, fixed, self.single | short)
        self.whole = Floors(self.nest, None, self.single, problem.shares, search.leaves, problem.ways)
        first = None if problem.axes else order(problem.objective)[0]
        cycles = self.bindings.untiled(self._busy_whole, busiest) if first in (None, 0) else 0.0
        energy, words = self._least() if first != 0 else (0.0, 0.0)
        self.least = cycles, energy, words
        """Cycles, energy and words that no tiling goes below, as far as they decide."""

    def _busy_whole(self, step: Step, array: Array, along: Map_[str, int]) -> float:
        return self._known("busy", step, array, along, self.whole.busy)

    def _spent_whole(self, step: Step, array: Array, along: Map_[str, int]) -> float:
        made = tuple(access.tensor in self.bindings.made for access in step.reads)
        return self._known(made, step, array, along, self.whole.spent) * self._times(step)

    def _known(self, what: Any, step: Step, array: Array, along: Map_[str, int], costs: Costs) -> float:
        """A cost of whole ranks; other groups with the step have it too."""
        extents = tuple((rank, self.team.sizes.extents[rank], rank in self.single) for rank in sorted(step.ranks))
        key = what, step.position, id(array), tuple(along.items()), extents
        known = self.search.problem.known
        if key not in known:
            known[key] = float(costs(step, array, along))
        return known[key]

    def _times(self, step: Step) -> float:
        """How many times what one instance spends on a step all do."""
        return self.team.times(self.search.arch.on_chip[-1], step.ranks, False)

    def _least(self) -> tuple[float, float]:
        """Energy and words: every input comes once, every step is done where it takes least."""
        team, leaves, arch = self.team, self.search.leaves, self.search.arch
        backing, innermost = arch.backing[0], arch.on_chip[-1]
        energy, fetched = self.bindings.untiled(self._spent_whole, cheapest), 0.0
        for stream in self.nest.streams:
            if is_simple(self.nest, stream.tensor, stream.indices):
                share = max(self.whole.shares.get(reader.position, 1.0) for reader in stream.readers)
                words = whole_words(self.nest, stream.tensor, stream.indices) * share
                own = frozenset().union(*(free_ranks(index) for index in stream.indices))
                fetched += words * team.times(backing, own, True)
                energy += float(level_pj(leaves, innermost, 0.0, words * team.times(innermost, own, True)))
        ranks = [self.nest.own_ranks(name) for name in self.nest.outgoing]
        leaving = sum(math.prod(team.whole.extents[rank] for rank in own) for own in ranks)
        return energy + float(level_pj(leaves, backing, fetched, leaving)), fetched + leaving

    def survey(self) -> None:
        """All tilings, with bounds that no order of the loops can go below."""
        search, looped, team = self.search, self.looped, self.team
        problem = search.problem
        self.cuts = list(looped.cuts())
        self.starts = np.cumsum([0, *(math.prod(len(looped.choices[rank]) for rank in cut.chosen) for cut in self.cuts)])
        count = int(self.starts[-1])
        self.tiles = {rank: np.full(count, float(team.sizes.extents[rank])) for rank in looped.choices}
        for cut, start, stop in zip(self.cuts, self.starts[:-1], self.starts[1:], strict=True):
            sizes = [len(looped.choices[rank]) for rank in cut.chosen]
            for rank, index in zip(cut.chosen, np.indices(sizes).reshape(len(sizes), -1) if sizes else (), strict=True):
                self.tiles[rank][start:stop] = np.array(looped.choices[rank], dtype=np.float64)[index]
        self.floors = Floors(self.nest, self.tiles, self.single, problem.shares, search.leaves, problem.ways)

        def busy(step: Step, array: Array, along: Map_[str, int]) -> Any:
            return self.floors.along(step.ranks, lambda part: part.busy(step, array, along))

        def spent(step: Step, array: Array, along: Map_[str, int]) -> Any:
            return self.floors.along(step.ranks, lambda part: part.spent(step, array, along)) * self._times(step)

        compute = self.bindings.tiled(self._busy_whole, busy, busiest, count)
        energy = self.bindings.tiled(self._spent_whole, spent, cheapest, count)
        self.floor = self.floors(compute, energy)
        whole = Cut(looped.moving, tuple(looped.choices))
        tiles = {rank: (values,) for rank, values in self.tiles.items()}
        everything = Tilings(tiles, self.floor, np.arange(count), {})
        orders = Orders(self.nest, team, looped, whole, self.floors, everything, False)
        cycles, energy, words, need = orders.unordered()
        self.keys = rank_of(problem.objective, (cycles, energy, words))
        self.floors_of = cycles, energy, words
        self.fits = need <= 1.0
        self.need = need
        lengths: dict[str, Any] = {rank: float(extent) for rank, extent in team.sizes.extents.items()}
        lengths |= dict.fromkeys(self.single, 1.0)
        lengths |= self.tiles

        def until_out(step: Step, array: Array, along: Map_[str, int]) -> Any:
            return in_one_tile(step, array, along, lengths)

        self.one_tile = {step.name: np.broadcast_to(self.bindings.least(step, until_out), (count,)) for step in self.bindings.steps}
        """Cycles of a step in one tile at least, until its reductions have come out."""

    def tilings(self, cut: Cut, rows: NDArray[np.int64]) -> Tilings:
        """The tilings of a cut whose rows are given; with a second loop over a rank, all that it may hold."""
        tiles: dict[str, tuple[Floats, ...]] = {}
        if cut.outer is not None:
            pairs = self.looped.pairs(cut.outer)
            inner = self.tiles[cut.outer][rows]
            several = [[row, float(outer)] for row, tile in zip(rows, inner, strict=True) for outer, held in pairs if held == tile]
            table = np.array(several, dtype=np.float64).reshape(-1, 2)
            rows = table[:, 0].astype(np.int64)
            tiles[cut.outer] = (table[:, 1], self.tiles[cut.outer][rows])
        tiles |= {rank: (self.tiles[rank][rows],) for rank in cut.chosen if rank != cut.outer}
        one_tile = {name: cycles[rows] for name, cycles in self.one_tile.items()}
        return Tilings(tiles, self.floor.at(rows), rows, one_tile)


class GroupSearch:
    """The search of one group."""

    def __init__(self, problem: Problem, tally: Tally) -> None:
        self.problem, self.tally = problem, tally
        self.arch, self.objective = problem.arch, problem.objective
        self.roomy, self.leaves = roomy(problem.arch), leaves(problem.arch)
        self.found: list[Found] = []
        """The best, or the Pareto front."""
        self.caps = [math.inf] * len(MEASURES)
        """What of each measure this group may take at most, as long as a whole front is wanted."""
        self.alone = False
        """Whether the group is all there is: then what is found limits the first measure of what comes."""
        self.rivals = Rivals(problem.objective)
        """Whole mappings that are known, for products."""
        self.others: Vector = (0.0, 0.0)
        """Cycles and energy that all other groups of a whole mapping take at least."""
        self.done = False
        self.proof: Any = None
        """What no mapping of the group is better than, if the search was cut off."""
        self._known_steps: dict[tuple[int, Binding], Step] = {}
        self._known_choices: dict[Any, list[Choice]] = {}
        self._queue: list[tuple[Any, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._share = 0
        self._lacked = 0
        self._per_word = (self.arch.backing[1].seconds(self.arch.word_bytes, 0.0) or 0.0) * self.arch.clock_hz
        fixed = problem.fixed
        self.schedule: Schedule = fixed.of(fixed.schedules, problem.names) or "interleaved"
        self.flying: int | None = 1 if self.schedule != "interleaved" else fixed.of(fixed.in_flight, problem.names)
        """Tiles worked on at once, where that is given."""
        self.peel = peeled(problem.cascade, problem.names) if fixed.peel else ()
        self.plain = self._some_binding()
        self._start()

    @property
    def floor(self) -> Any:
        """What no mapping of the group can be better than, by the objective; what was found once that is proven."""
        if self.done:
            return rank_of(self.objective, self.found[0].value) if self.found else NOTHING
        return self._queue[0][0] if self._queue else (0.0,) * len(MEASURES)

    def advance(self, limit: Any = None) -> None:
        """Search until the best is proven, or nothing better than the limit is left."""
        while not self.done:
            while self._queue:
                key = self._queue[0][0]
                if self._beaten(key):
                    self.tally.bounded += len(self._queue)
                    self._queue.clear()
                    break
                if self._spent():
                    self._cut_off(key)
                    self._queue.clear()
                    break
                if limit is not None and key > limit:
                    return
                if self.tally.watch is not None:
                    value = rank_of(self.objective, self.found[0].value)[0] if self.found else math.inf
                    self.tally.watch(self.tally.evaluated, value, float(key[0]))
                heapq.heappop(self._queue)[2]()
            # tiles become smaller only if nothing fits, for want of room and not of legality
            if self.found or self.tally.too_large == self._lacked or self._share >= self._smallest:
                self.done = True
            else:
                self._start()

    @cached_property
    def _smallest(self) -> int:
        """Into how many parts sides are divided at most; under limits on what is taken, until a mapping without them fits."""
        if all(math.isinf(cap) for cap in self.caps) and not self.rivals.values:
            return max(sides(self.arch))
        free = GroupSearch(replace(self.problem, axes=(), objective="latency"), Tally(tiles=self.tally.tiles, gap=1.0))
        free.advance()
        return free._share

    # --- the queue ---

    def _push(self, key: Any, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (tuple(map(float, key)), next(self._number), act))

    def _start(self) -> None:
        self._share = self._share * 2 or 1
        self._lacked = self.tally.too_large
        spread = self.problem.fixed.of(self.problem.fixed.teams, self.problem.names)
        self._grounds: list[_Ground] = []
        self._surveyed = 0
        for team in teams(self.problem.cascade, self.arch, self.problem.sizes, self.problem.names):
            if spread is not None and spread != {(str(loop.over), loop.rank) for loop in team.loops}:
                continue
            try:
                self._grounds.append(_Ground(self, team, self._share))
            except EinsmithError as error:
                self.tally.refuse(error)
        for ground in self._grounds:
            self._push(rank_of(self.objective, ground.least), functools.partial(self._survey, ground))

    def _survey(self, ground: _Ground) -> None:
        """Put the cuts of a team into the queue."""
        ground.survey()
        self._surveyed += 1
        self.tally.too_large += int((~ground.fits).sum())
        for number, cut in enumerate(ground.cuts):
            start, stop = ground.starts[number : number + 2]
            rows = start + np.flatnonzero(ground.fits[start:stop])
            if len(rows):
                self._push_cut(ground, cut, rows)
        if self._surveyed == len(self._grounds) and not any(ground.fits.any() for ground in self._grounds):
            self._queue_smallest(self._grounds)

    def _push_cut(self, ground: _Ground, cut: Cut, rows: NDArray[np.int64]) -> None:
        keys = tuple(key[rows] for key in ground.keys)
        at = int(np.lexsort(keys[::-1])[0])
        self._push([key[at] for key in keys], lambda: self._open(ground, cut, rows))

    def _queue_smallest(self, grounds: list[_Ground]) -> None:
        """Where no tiling fits, the one that lacks least, for its refusal."""
        ground = min(grounds, key=lambda ground: float(ground.need.min(initial=math.inf)))
        if not len(ground.need):
            return  # what is fixed leaves no loops
        row = int(np.argmin(ground.need))
        number = int(np.searchsorted(ground.starts, row, side="right")) - 1
        self._push((0.0,) * len(MEASURES), lambda: self._open(ground, ground.cuts[number], np.array([row])))

    def _open(self, ground: _Ground, cut: Cut, rows: NDArray[np.int64]) -> None:
        """Put the blocks of a cut into the queue, and the cuts with a second loop over one of its ranks."""
        if cut.outer is None:
            for doubled in ground.looped.doubled(cut):
                assert doubled.outer is not None
                mine = rows[np.isin(ground.tiles[doubled.outer][rows], [inner for _, inner in ground.looped.pairs(doubled.outer)])]
                if len(mine):
                    self._push_cut(ground, doubled, mine)
        rows = rows[~self._all_beaten([each[rows] for each in ground.floors_of])]
        if not len(rows):
            self.tally.bounded += 1
            return
        tilings = ground.tilings(cut, rows)
        order = next(cut.orders(), None)
        if order is None:
            return
        looped, team = ground.looped, ground.team
        firsts = {rank: tuple(int(values[0]) for values in tilings.tiles[rank]) for rank in cut.chosen}
        firsts |= dict.fromkeys(cut.moving, (1,))
        canonical = tuple(range(len(cut.axes)))
        loops = (*team.loops, *looped.outside, *looped.loops(cut, canonical, firsts))
        try:
            nest = self.outline(loops, self.plain, self.roomy)
            add_residents(nest)
            orders = Orders(nest, team, looped, cut, ground.floors, tilings, self._every(), self.problem.fixed)
            blocks = list(orders.blocks())
        except EinsmithError as error:
            self.tally.refuse(error, len(tilings.rows))
            return
        if not blocks:
            self.tally.too_large += len(tilings.rows)
            self._refuse_smallest(ground, cut, orders)
        for block in blocks:
            self._push_block(ground, cut, orders, block)

    def _every(self) -> bool:
        """Whether of the ways to hold the inputs more than that with least traffic can be the best."""
        return (
            len(self.arch.on_chip) == 1
            and (bool(self.problem.axes) or self.objective.startswith("latency"))
            and not self.problem.masked
        )

    def _push_block(self, ground: _Ground, cut: Cut, orders: Orders, block: Block) -> None:
        floors = block.cycles, block.energy, block.words
        keys = rank_of(self.objective, floors)
        open_ = np.flatnonzero(~self._all_beaten(floors))
        self.tally.bounded += len(block.rows) - len(open_)
        if not len(open_):
            return
        ranking = open_[np.lexsort(tuple(key[open_] for key in keys[::-1]))]

        def act(at: int) -> None:
            if at + 1 < len(ranking):
                after = ranking[at + 1]
                self._push([key[after] for key in keys], lambda: act(at + 1))
            self._try(ground, cut, orders, block, int(ranking[at]))

        self._push([key[ranking[0]] for key in keys], lambda: act(0))

    def _refuse_smallest(self, ground: _Ground, cut: Cut, orders: Orders) -> None:
        """Note what the tiling of a cut that needs least lacks."""
        order = next(cut.orders())
        need = orders.least_need(order)
        row = int(np.argmin(need))
        places = tuple(orders.places(number, order)[-1] for number in range(len(orders.nest.streams)))
        holds = (places,) * len(self.arch.on_chip)
        try:
            self._held(ground, cut, orders, order, row, holds)
        except EinsmithError as error:
            self.tally.refuse(error, 0)

    # --- bounds ---

    def _beaten(self, key: Any) -> bool:
        """Whether a lower bound rules out anything better than what was found, by more than the gap that is asked for."""
        if self.problem.axes:
            return self.objective not in PRODUCTS and bool(key[0] > self.caps[order(self.objective)[0]])
        if not self.found:
            return False
        value, gap = rank_of(self.objective, self.found[0].value), self.tally.gap
        return bool(key[0] >= value[0] * (1 - gap) if gap else key >= value)

    def _all_beaten(self, floors: Sequence[Floats]) -> NDArray[np.bool_]:
        """The same of many bounds of values."""
        beaten = np.zeros(len(floors[0]), dtype=bool)
        if self.problem.axes:
            for cap, floor in zip(self.caps, floors, strict=True):
                beaten |= floor > cap
            for found in self.found:
                beaten |= np.logical_and.reduce([floors[axis] >= found.value[axis] for axis in self.problem.axes])
            return np.asarray(beaten | self.rivals.beat(floors[0] + self.others[0], floors[1] + self.others[1]))
        if not self.found:
            return beaten
        value, gap = rank_of(self.objective, self.found[0].value), self.tally.gap
        keys = rank_of(self.objective, floors)
        if gap:
            return np.asarray(keys[0] >= value[0] * (1 - gap))
        equal = np.ones(len(beaten), dtype=bool)
        for key, found_key in zip(keys, value, strict=True):
            beaten |= equal & (key > found_key)
            equal &= key == found_key
        return beaten | equal

    def _ruled_out(self, floor: Vector) -> bool:
        if self.problem.axes:
            return (
                any(mine > cap for mine, cap in zip(floor, self.caps, strict=True))
                or any(all(found.value[axis] <= floor[axis] for axis in self.problem.axes) for found in self.found)
                or bool(self.rivals.beat(floor[0] + self.others[0], floor[1] + self.others[1]))
            )
        return self._beaten(rank_of(self.objective, floor))

    def _cut_off(self, key: Any) -> None:
        """Note that nothing from a lower bound on is looked at."""
        self.tally.cut_off = True
        self.proof = key if self.proof is None else min(self.proof, key)

    def _spent(self) -> bool:
        return bool(self.found) and (self.tally.evaluated >= MAX_EVALUATIONS or self.tally.stop())

    # --- one tiling ---

    def _try(self, ground: _Ground, cut: Cut, orders: Orders, block: Block, at: int) -> None:
        """Complete the mappings of some loops, best bound first."""
        floor = float(block.cycles[at]), float(block.energy[at]), float(block.words[at])
        if self._ruled_out(floor):
            self.tally.bounded += 1
            return
        row = int(block.rows[at])
        place = [int(orders.tilings.tiles[rank][-1][row]) for rank in cut.chosen]
        key = (ground.team.loops, cut.moving, cut.chosen, tuple(place), block.level, self._lasting(orders, block))
        known = self._known_choices.get(key)
        if known is not None and not known:  # what is fixed leaves none
            return
        if known is not None:
            cycles, energy = min(max(choice.cycles) for choice in known), min(choice.energy for choice in known)
            if self._ruled_out((max(floor[0], cycles), max(floor[1], float(block.carried[at]) + energy), floor[2])):
                self.tally.bounded += 1
                return
        try:
            nest = self._held(ground, cut, orders, block.order, row, block.holds[block.held[at]], block.level)
        except EinsmithError as error:
            self.tally.refuse(error)
            return
        if known is None:
            known, dominated = choices(nest, self.problem.fixed)
            self.tally.dominated += dominated
            known.sort(key=lambda c: (*rank_of(self.objective, (max(c.cycles), c.energy, 0.0)), sum(c.cycles)))
            self._known_choices[key] = known
        carried, transfer = float(block.carried[at]), float(block.moved[at])
        words = floor[2]
        if nest.masks and len(self.arch.on_chip) == 1:
            words = sum(nest.stream_words(stream) for stream in nest.streams) + sum(map(nest.tensor_words, self.problem.leaving))
            transfer = (self.arch.backing[1].seconds(words * self.arch.word_bytes, 0.0) or 0.0) * self.arch.clock_hz
        candidate = _Candidate(
            nest,
            known,
            floor[0],
            floor[1],
            carried,
            words,
            transfer,
            Rooms(nest, orders.counted(block.order, row), self.problem.fixed.stays),
        )
        for position, choice in enumerate(known):
            energy_floor = max(candidate.energy, candidate.carried + choice.energy)
            bound = max(*choice.cycles, candidate.cycles), energy_floor, candidate.words
            if self._ruled_out(bound):
                self.tally.dominated += len(known) - position
                if not self.problem.axes:
                    break  # they are sorted by it
                continue
            if self._spent():
                self._cut_off(rank_of(self.objective, bound))
                break
            for new in self._complete(candidate, choice):
                self._add(new)

    def _lasting(self, orders: Orders, block: Block) -> frozenset[str]:
        return frozenset(each.made.tensor for each in orders.kept(block.order) if each.lasts)

    def _add(self, new: Found) -> None:
        if axes := self.problem.axes:
            if self._ruled_out(new.value):
                return
            self.found[:] = [item for _, item in front([(tuple(item.value[a] for a in axes), item) for item in [*self.found, new]])]
            if self.alone:
                first = order(self.objective)[0]
                self.caps[first] = min(self.caps[first], new.value[first])
        elif not self.found or rank_of(self.objective, new.value) < rank_of(self.objective, self.found[0].value):
            self.found[:] = [new]

    def outline(self, loops: tuple[Loop, ...], bindings: Map_[str, Binding], arch: Architecture | None = None, **how: Any) -> Nest:
        group = Group(loops=loops, einsums=dict(bindings), schedule=self.schedule, peel=self.peel, **how)
        problem = self.problem
        steps = self.steps(bindings)
        return outline(problem.cascade, arch or self.arch, problem.sizes, group, 1, problem.leaving, steps, explain=False)

    def steps(self, bindings: Map_[str, Binding]) -> tuple[Step, ...]:
        return tuple(
            self._step(position, einsum, bindings[einsum.output])
            for position, einsum in enumerate(self.problem.cascade.einsums)
            if einsum.output in self.problem.names
        )

    def _step(self, position: int, einsum: Einsum, binding: Binding) -> Step:
        key = position, binding
        if key not in self._known_steps:
            problem = self.problem
            self._known_steps[key] = check_step(problem.cascade, self.arch, problem.sizes, binding, position, einsum)
        return self._known_steps[key]

    def _some_binding(self) -> dict[str, Binding]:
        """Each Einsum on the first array that can do it (for what does not depend on the array)."""
        result: dict[str, Binding] = {}
        for einsum in self.problem.cascade.einsums:
            if einsum.output not in self.problem.names or einsum.output in result:
                continue
            fixed = self.problem.fixed.arrays
            problem: EinsmithError | None = None
            for name in [fixed[einsum.output]] if einsum.output in fixed else self.arch.arrays:
                try:
                    self._check_units(einsum.output, name)
                except EinsmithError as error:
                    problem = problem or error
                else:
                    result[einsum.output] = Binding(array=name)
                    break
            else:
                assert problem is not None
                raise problem
        return result

    def _check_units(self, name: str, array: str) -> None:
        for position, einsum in enumerate(self.problem.cascade.einsums):
            if einsum.output == name:
                self._step(position, einsum, Binding(array=array))

    # --- what is held ---

    def _held(
        self,
        ground: _Ground,
        cut: Cut,
        orders: Orders,
        order: tuple[int, ...],
        row: int,
        holds: tuple[tuple[int, ...], ...],
        level: str | None = None,
    ) -> Nest:
        """The nest of a tiling with its inputs held as said; refused if they or what lasts do not fit after all."""
        tiles = {rank: tuple(int(values[row]) for values in by) for rank, by in orders.tilings.tiles.items()}
        tiles |= dict.fromkeys(cut.moving, (1,))
        before = (*ground.team.loops, *ground.looped.outside)
        inner = ground.looped.loops(cut, order, tiles)
        streams = orders.nest.streams
        if len(self.arch.on_chip) == 1 and self.problem.masked:
            return self._hold_live((*before, *inner))
        again: tuple[Loop, ...] = ()
        if not before and (rank := _shared(orders, order, holds)) is not None:
            again = (Loop(rank=rank, tile=ground.team.sizes.extents[rank]),)
        loops = [*before, *again, *inner]
        held: dict[int, dict[str, list[str]]] = {}
        bypass: dict[str, list[str]] = {}
        levels = self.arch.on_chip
        for number, stream in enumerate(streams):
            for place, name in enumerate(levels):
                at = holds[place][number]
                if place + 1 < len(levels) and holds[place + 1][number] == at:
                    bypass.setdefault(name, []).append(stream.tensor)
                    continue
                depth = len(before) + len(again) + at  # OUTSIDE: the last loop before
                if depth >= 0:
                    held.setdefault(depth, {}).setdefault(name, []).append(stream.tensor)
        for depth, by in held.items():
            listed = {name: tuple(dict.fromkeys(tensors)) for name, tensors in by.items()}
            hold: Any = listed if len(levels) > 1 else listed[levels[0]]
            loops[depth] = loops[depth].model_copy(update={"hold": hold})
        passing = {name: tuple(dict.fromkeys(tensors)) for name, tensors in bypass.items()}
        stay = {} if level is None or level == levels[-1] else orders.staying(order, level)
        nest = self.outline(tuple(loops), self.plain, bypass=passing, stay=stay)
        settle_lasting(nest)
        return nest

    def _hold_live(self, loops: tuple[Loop, ...]) -> Nest:
        """The nest with each input held where that makes least traffic and still fits, where masks leave tiles out."""
        nest = self.outline(loops, self.plain)
        options = []
        for stream in nest.streams:
            ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
            depths = [depth for depth, loop in enumerate(loops, 1) if loop.rank in ranks] or [0]
            wanted = self.problem.fixed.holds.get(stream.tensor, {})
            if self.arch.on_chip[0] in wanted:
                rank = wanted[self.arch.on_chip[0]]
                depths = [depth for depth in depths if rank == (loops[depth - 1].rank if depth else None)]
            found = []
            for depth in depths:
                at = replace(stream, depth=depth)
                found.append(((nest.stream_words(at), float(nest.stream_tile(at))), depth))
            options.append(front(found))
        ways = sorted(itertools.product(*options), key=lambda items: (sum(v[0] for v, _ in items), sum(v[1] for v, _ in items)))
        problem: EinsmithError | None = None
        for items in ways:
            cut = list(loops)
            for stream, (_, depth) in zip(nest.streams, items, strict=True):
                if depth:
                    loop = cut[depth - 1]
                    cut[depth - 1] = loop.model_copy(update={"hold": tuple(dict.fromkeys((*loop.hold, stream.tensor)))})
            try:
                held = self.outline(tuple(cut), self.plain)
                settle_lasting(held)
            except EinsmithError as error:
                problem = error
                continue
            return held
        raise problem or refuse("E545", "no loop holds the inputs as is fixed")

    # --- complete mappings ---

    def _complete(self, candidate: _Candidate, choice: Choice) -> Iterator[Found]:
        """The mappings with a choice, by where the tensors of a tile stay; nothing if none fits or can be better."""
        base = candidate.carried + choice.energy
        places = Places(candidate.rooms, choice)
        cycles, compute = max(*choice.cycles, candidate.cycles), max(choice.cycles)
        nest: Nest | None = None
        problem: EinsmithError | None = None
        fits = False
        for more, stay, room, level in places:
            energy = max(candidate.energy, base + more)
            if self._ruled_out((cycles, energy, candidate.words)):
                self.tally.bounded += 1
                return
            if nest is None:
                nest = self._bound_to(candidate, choice)
                one = next(nest.instances(nest.spread))
                wanted = self._wanted(nest, candidate, choice)
                cycles = max(cycles, self._paced(one, compute, candidate.transfer))
                if self._ruled_out((cycles, energy, candidate.words)):
                    self.tally.bounded += 1
                    return
            nest.group = nest.group.model_copy(update={"stay": candidate.nest.group.stay | stay, "in_flight": 1})
            try:
                add_residents(nest)
                most, full = min((room, level), most_in_flight(nest))
                if most < (self.flying or 1):
                    nest.group = nest.group.model_copy(update={"in_flight": self.flying or 1})
                    places.move_out(full)
                    check_capacity(nest)
            except EinsmithError as error:
                problem = error
                continue
            fits = True
            flying = self.flying or min(max(1, wanted), most)
            one.group = nest.group = nest.group.model_copy(update={"in_flight": flying})
            waited = chains(one) if self.schedule == "interleaved" else 0.0
            if self.flying is None and flying < wanted and waited > max(compute, candidate.transfer):
                places.move_out(full)
            if self._ruled_out((max(cycles, self._paced(one, max(compute, waited), candidate.transfer)), energy, candidate.words)):
                self.tally.bounded += 1
                continue
            self.tally.evaluated += 1
            yield Found(replace(nest, residents=dict(nest.residents)), group_cost(nest))
        if fits:
            return
        if problem is not None:
            self.tally.refuse(problem)
        else:
            self._refuse_places(candidate, choice, places)

    def _paced(self, one: Nest, work: float, moved: float) -> float:
        """Cycles of one instance with fill and drain, whose arrays and dependences keep it at work for so long."""
        steady = max(work, moved)
        return steady + exposed(one, work, moved, steady, self._per_word)

    def _bound_to(self, candidate: _Candidate, choice: Choice) -> Nest:
        group = candidate.nest.group
        return self.outline(group.loops, choice.bind(self.problem.cascade, candidate.nest.steps), bypass=group.bypass)

    def _refuse_places(self, candidate: _Candidate, choice: Choice, places: Places) -> None:
        """Note that no level has room for the tensors of a tile, and what is lacking, unless something lacked less."""
        self.tally.too_large += 1
        if self.found or not self.tally.is_closest(places.lacking):
            return
        nest = self._bound_to(candidate, choice)
        nest.group = nest.group.model_copy(update={"stay": candidate.nest.group.stay | places.outermost})
        try:
            settle(nest)
        except EinsmithError as error:
            self.tally.refuse(error, 0)

    def _wanted(self, nest: Nest, candidate: _Candidate, choice: Choice) -> int:
        """Tiles in flight that hide the latency of a tile twice over behind the busiest resource: tiles also queue."""
        one = next(nest.instances(nest.spread))
        tiles = max([1.0, *(one.executions(step) for step in one.steps)])
        interval = max(*choice.cycles, candidate.transfer) / tiles
        latency = max(longest(one, nominal(one)).values(), default=0.0)
        return min(4096, math.ceil(2 * latency / interval), int(tiles)) if interval else 1


def peeled(cascade: Cascade, names: frozenset[str]) -> tuple[str, ...]:
    """Ranks whose first step leaves something undone in a group."""
    ranks = {cascade.tensor(name).iterates for name in names}
    found = []
    for rank in sorted(rank for rank in ranks if rank is not None):
        first = first_step(cascade, rank, frozenset())
        if first is not None and any(cascade.einsums[position].output in names for position in first.skips):
            found.append(rank)
    return tuple(found)


def _shared(orders: Orders, order: tuple[int, ...], holds: Sequence[tuple[int, ...]]) -> str | None:
    """The rank of a loop of one iteration that holds what is held outside all loops; None: it takes none."""
    axes = [orders.cut.axes[axis] for axis in order]
    outside = [
        orders.own[number]
        for number in range(len(orders.nest.streams))
        if any(level[number] == OUTSIDE for level in holds) and orders.own[number] & set(axes)
    ]
    if not outside:
        return None
    common = frozenset.intersection(*outside) & set(axes[1:]) & set(orders.cut.chosen)
    return min(common, key=axes.index) if common else axes[0]


def _lacking(diagnostic: Diagnostic) -> float:
    """How much a refused mapping lacks, in units of what there is."""
    found = numbers(diagnostic)
    return found[0] / max(found[1], 1) if len(found) > 1 else 1.0


def numbers(diagnostic: Diagnostic) -> list[int]:
    """(need, have, ...) of a refusal."""
    _, _, said = diagnostic.message.partition(" needs ")
    return [int(word.replace(",", "")) for word in said.replace(":", " ").split() if word.replace(",", "").isdigit()]
