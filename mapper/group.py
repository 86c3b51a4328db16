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
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.diagnostics import EinsmithError
from .completion import Candidate, Completion
from .ground import Ground
from .incumbents import Incumbents
from .layouts import Choice, choices
from .objective import MEASURES, NOTHING, rank_of
from .orders import Block, Orders
from .outlines import Outlines
from .places import Rooms
from .problem import Found, Problem
from .residency import add_residents
from .space import Cut, sides
from .tally import Tally
from .team import teams
from .tiled import Tiled

MAX_EVALUATIONS = 20_000
"""Full evaluations after which a search ends without proof."""


class GroupSearch:
    """The search of one group."""

    def __init__(self, problem: Problem, tally: Tally) -> None:
        self.problem, self.tally = problem, tally
        self.arch, self.objective = problem.arch, problem.objective
        self.outlines = Outlines(problem)
        self.incumbents = Incumbents(problem.objective, problem.axes, tally.gap)
        self.done = False
        self.proof: Any = None
        """What no mapping of the group is better than, if the search was cut off."""
        self._completion = Completion(self.outlines, tally, self.incumbents)
        self._known_choices: dict[Any, list[Choice]] = {}
        self._queue: list[tuple[Any, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._share = 0
        self._lacked = 0
        self._start()

    @property
    def found(self) -> list[Found]:
        """The best, or the Pareto front."""
        return self.incumbents.found

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
                if self.incumbents.beaten(key):
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
        if all(math.isinf(cap) for cap in self.incumbents.caps) and not self.incumbents.rivals.values:
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
        self._grounds: list[Ground] = []
        self._surveyed = 0
        for team in teams(self.problem.cascade, self.arch, self.problem.sizes, self.problem.names):
            if spread is not None and spread != {(str(loop.over), loop.rank) for loop in team.loops}:
                continue
            try:
                self._grounds.append(Ground(self.outlines, team, self.tally.tiles, self._share))
            except EinsmithError as error:
                self.tally.refuse(error)
        for ground in self._grounds:
            self._push(rank_of(self.objective, ground.least), functools.partial(self._survey, ground))

    def _survey(self, ground: Ground) -> None:
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

    def _push_cut(self, ground: Ground, cut: Cut, rows: NDArray[np.int64]) -> None:
        keys = tuple(key[rows] for key in ground.keys)
        at = int(np.lexsort(keys[::-1])[0])
        self._push([key[at] for key in keys], lambda: self._open(ground, cut, rows))

    def _queue_smallest(self, grounds: list[Ground]) -> None:
        """Where no tiling fits, the one that lacks least, for its refusal."""
        ground = min(grounds, key=lambda ground: float(ground.need.min(initial=math.inf)))
        if not len(ground.need):
            return  # what is fixed leaves no loops
        row = int(np.argmin(ground.need))
        number = int(np.searchsorted(ground.starts, row, side="right")) - 1
        self._push((0.0,) * len(MEASURES), lambda: self._open(ground, ground.cuts[number], np.array([row])))

    def _open(self, ground: Ground, cut: Cut, rows: NDArray[np.int64]) -> None:
        """Put the blocks of a cut into the queue, and the cuts with a second loop over one of its ranks."""
        if cut.outer is None:
            for doubled in ground.looped.doubled(cut):
                assert doubled.outer is not None
                mine = rows[np.isin(ground.tiles[doubled.outer][rows], [inner for _, inner in ground.looped.pairs(doubled.outer)])]
                if len(mine):
                    self._push_cut(ground, doubled, mine)
        rows = rows[~self.incumbents.all_beaten([each[rows] for each in ground.floors_of])]
        if not len(rows):
            self.tally.bounded += 1
            return
        if next(cut.orders(), None) is None:
            return
        tilings = ground.tilings(cut, rows)
        looped, team = ground.looped, ground.team
        firsts = {rank: tuple(int(values[0]) for values in tilings.tiles[rank]) for rank in cut.chosen}
        firsts |= dict.fromkeys(cut.moving, (1,))
        canonical = tuple(range(len(cut.axes)))
        loops = (*team.loops, *looped.outside, *looped.loops(cut, canonical, firsts))
        try:
            nest = self.outlines.outline(loops, self.outlines.plain, self.outlines.roomy)
            add_residents(nest)
            orders = Orders(Tiled(nest, team, looped, cut, ground.floors, tilings, self.problem.fixed), self._every())
            blocks = list(orders.blocks())
        except EinsmithError as error:
            self.tally.refuse(error, len(tilings.rows))
            return
        if not blocks:
            self.tally.too_large += len(tilings.rows)
            self._refuse_smallest(orders)
        for block in blocks:
            self._push_block(orders, block)

    def _every(self) -> bool:
        """Whether of the ways to hold the inputs more than that with least traffic can be the best."""
        return (
            len(self.arch.on_chip) == 1
            and (bool(self.problem.axes) or self.objective.startswith("latency"))
            and not self.problem.masked
        )

    def _push_block(self, orders: Orders, block: Block) -> None:
        floors = block.cycles, block.energy, block.words
        keys = rank_of(self.objective, floors)
        open_ = np.flatnonzero(~self.incumbents.all_beaten(floors))
        self.tally.bounded += len(block.rows) - len(open_)
        if not len(open_):
            return
        ranking = open_[np.lexsort(tuple(key[open_] for key in keys[::-1]))]

        def act(at: int) -> None:
            if at + 1 < len(ranking):
                after = ranking[at + 1]
                self._push([key[after] for key in keys], lambda: act(at + 1))
            self._try(orders, block, int(ranking[at]))

        self._push([key[ranking[0]] for key in keys], lambda: act(0))

    def _refuse_smallest(self, orders: Orders) -> None:
        """Note what the tiling of a cut that needs least lacks."""
        order = next(orders.tiled.cut.orders())
        need = orders.least_need(order)
        row = int(np.argmin(need))
        places = tuple(orders.inputs.places(number, order)[-1] for number in range(len(orders.tiled.nest.streams)))
        holds = (places,) * len(self.arch.on_chip)
        try:
            self.outlines.held(orders, order, row, holds)
        except EinsmithError as error:
            self.tally.refuse(error, 0)

    def _cut_off(self, key: Any) -> None:
        """Note that nothing from a lower bound on is looked at."""
        self.tally.cut_off = True
        self.proof = key if self.proof is None else min(self.proof, key)

    def _spent(self) -> bool:
        return bool(self.found) and (self.tally.evaluated >= MAX_EVALUATIONS or self.tally.stop())

    # --- one tiling ---

    def _try(self, orders: Orders, block: Block, at: int) -> None:
        """Complete the mappings of some loops, best bound first."""
        floor = float(block.cycles[at]), float(block.energy[at]), float(block.words[at])
        if self.incumbents.ruled_out(floor):
            self.tally.bounded += 1
            return
        row, cut = int(block.rows[at]), orders.tiled.cut
        place = [int(orders.tiled.tilings.tiles[rank][-1][row]) for rank in cut.chosen]
        key = (orders.tiled.team.loops, cut.moving, cut.chosen, tuple(place), block.level, self._lasting(orders, block))
        known = self._known_choices.get(key)
        if known is not None and not known:  # what is fixed leaves none
            return
        if known is not None:
            cycles, energy = min(max(choice.cycles) for choice in known), min(choice.energy for choice in known)
            if self.incumbents.ruled_out((max(floor[0], cycles), max(floor[1], float(block.carried[at]) + energy), floor[2])):
                self.tally.bounded += 1
                return
        try:
            nest = self.outlines.held(orders, block.order, row, block.holds[block.held[at]], block.level)
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
        candidate = Candidate(
            nest,
            floor[0],
            floor[1],
            carried,
            words,
            transfer,
            Rooms(nest, orders.results.counted(block.order, row), self.problem.fixed.stays),
        )
        for position, choice in enumerate(known):
            energy_floor = max(candidate.energy, candidate.carried + choice.energy)
            bound = max(*choice.cycles, candidate.cycles), energy_floor, candidate.words
            if self.incumbents.ruled_out(bound):
                self.tally.dominated += len(known) - position
                if not self.problem.axes:
                    break  # they are sorted by it
                continue
            if self._spent():
                self._cut_off(rank_of(self.objective, bound))
                break
            for new in self._completion.mappings(candidate, choice):
                self.incumbents.add(new)

    def _lasting(self, orders: Orders, block: Block) -> frozenset[str]:
        return frozenset(each.made.tensor for each in orders.results.kept(block.order) if each.lasts)
