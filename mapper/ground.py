"""Ground: the tilings of all cuts on one team of instances.

In: a problem, a team. Out: first what none of its tilings can go below, worked out of whole ranks; then, where that is not ruled
out, every tiling of every cut with bounds that no order of the loops can go below, and whether it may fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Map_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import free_ranks
from .architecture import Array
from .bindings import Bindings, Costs, busiest, cheapest, in_one_tile
from .floors import Floors, is_simple, level_pj, whole_words
from .held import Inputs
from .kept import Results
from .leaves import leaves
from .mapping import Group, Loop
from .nest import Nest, Step
from .objective import order, rank_of
from .order_bounds import OrderBounds
from .outlines import Outlines
from .residency import add_streams
from .space import Cut, Tiles, looped_ranks
from .tape import Floats
from .team import Team
from .tiled import Tiled, Tilings


class Ground:
    """The tilings of all cuts on one team; at first only what none of them can go below."""

    def __init__(self, outlines: Outlines, team: Team, tiles: Tiles, share: int) -> None:
        self.problem, self.team = outlines.problem, team
        problem = self.problem
        self.arch, self.leaves = problem.arch, leaves(problem.arch)
        self.looped = looped_ranks(
            problem.cascade, problem.arch, team.sizes, problem.names, problem.leaving, tiles, share, problem.fixed
        )
        looped = self.looped
        ranks = (*looped.moving, *looped.choices)
        loops = (
            *looped.outside,
            *(Loop(rank=rank, tile=looped.choices[rank][0] if rank in looped.choices else 1) for rank in ranks),
        )
        group = Group(loops=loops, einsums=outlines.plain, schedule="interleaved")
        self.nest = Nest(problem.cascade, outlines.roomy, team.sizes, group, 1, outlines.steps(outlines.plain), problem.leaving)
        add_streams(self.nest)
        self.single = frozenset((*(loop.rank for loop in looped.outside), *looped.moving))
        short = {rank for rank, extent in team.sizes.extents.items() if extent <= 1}
        arrays, fixed = self.arch.arrays, problem.fixed
        self.bindings = Bindings(problem.cascade, self.nest.steps, arrays, fixed, self.single | short)
        self.whole = Floors(self.nest, None, self.single, problem.shares, self.leaves, problem.ways)
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
        known = self.problem.known
        if key not in known:
            known[key] = float(costs(step, array, along))
        return known[key]

    def _times(self, step: Step) -> float:
        """How many times what one instance spends on a step all do."""
        return self.team.times(self.arch.on_chip[-1], step.ranks, False)

    def _least(self) -> tuple[float, float]:
        """Energy and words: every input comes once, every step is done where it takes least."""
        team, leaves, arch = self.team, self.leaves, self.arch
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
        problem, looped, team = self.problem, self.looped, self.team
        self.cuts = list(looped.cuts())
        self.starts = np.cumsum([0, *(math.prod(len(looped.choices[rank]) for rank in cut.chosen) for cut in self.cuts)])
        count = int(self.starts[-1])
        self.tiles = {rank: np.full(count, float(team.sizes.extents[rank])) for rank in looped.choices}
        for cut, start, stop in zip(self.cuts, self.starts[:-1], self.starts[1:], strict=True):
            sizes = [len(looped.choices[rank]) for rank in cut.chosen]
            for rank, index in zip(cut.chosen, np.indices(sizes).reshape(len(sizes), -1) if sizes else (), strict=True):
                self.tiles[rank][start:stop] = np.array(looped.choices[rank], dtype=np.float64)[index]
        self.floors = Floors(self.nest, self.tiles, self.single, problem.shares, self.leaves, problem.ways)

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
        tiled = Tiled(self.nest, team, looped, whole, self.floors, everything)
        cycles, energy, words, need = OrderBounds(tiled, Inputs(tiled), Results(tiled)).unordered()
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
