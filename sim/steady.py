"""Steady states: how long a group of very many tiles takes, from runs of a few of them.

In: a `Program`. Out: every count of the whole run: cycles, work, words, stalls by cause.

Tasks wait for one another in the same way in all iterations of a loop but the first and the last ones, and each run is a
max-plus recurrence; such a recurrence becomes periodic: from some iteration on, each further `period` iterations add the same
to the cycles. How soon, and with which period, is found in a probe: a run of the first iterations of a loop, with the loops
inside whole; an inner loop is tried before an outer one, since fewer tiles stand for all there. Where two resources are nearly
balanced it takes long, and only an outer loop has a period that is found.

So the cycles are an affine function of the trips of each loop, and over several loops a sum of their products. Runs with few and
with a period more of the middle iterations of each loop give its coefficients. One more run, with still more iterations of every
loop, must come out as predicted, cycles and work of every resource; if not, other periods and loops are tried, and if none agrees,
`Unsteady` is raised. What each resource's idle cycles are put down to may have a longer period of its own; where it has, the
shares are those of the longest run.

Neighbouring loops over which all tensors move alike count as one loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, prod
from typing import TypeAlias

import numpy as np

from ..einsum.cascade import free_ranks
from ..mapper.nest import Grid, Nest
from .program import Program
from .walk import Block
from .window import Window

Name: TypeAlias = tuple[str, ...]
Counts: TypeAlias = dict[Name, float]
"""`("cycles",)`, `("busy", resource)`, `("stalls", resource, cause)`, `("moved", level, way)`."""
PROBES = (12_000, 40_000, 120_000)
"""Tasks of a probe, tried in turn."""
SETTLED = ((1, 0), (1, 1), (2, 1), (3, 1), (1, 2), (4, 1))
"""(period, first iterations) of loops around the one that was probed: their iterations are long, so they settle at once, or
nearly."""
MAX_AXES = 4
"""Most loops that are cut short at once: each doubles the samples."""
TOLERANCE = 1e-9
"""By how much, relative to the cycles, counts may differ from what is predicted: they are sums of floating-point numbers."""


class Unsteady(Exception):
    """No steady state was found; says why."""


@dataclass(frozen=True)
class Cut:
    """How a loop is cut short: these many of its first and last iterations are run, and periods between them."""

    period: int
    first: int
    last: int

    def base(self, trips: int) -> int:
        """The least number of iterations that is run."""
        return self.first + self.last + (trips - self.first - self.last) % self.period


def extrapolated(program: Program, most: int, per_tile: float) -> tuple[Counts, list[Window]]:
    """All counts of the whole run, and the samples, each of at most about `most` tasks; `per_tile`: tasks that a tile makes. Raises
    Unsteady."""
    return _Search(program, most, per_tile).found()


class _Search:
    def __init__(self, program: Program, most: int, per_tile: float) -> None:
        self.program, self.most, self.per_tile = program, most, per_tile
        self.loops = _merged(program)
        """Positions in the program's loops that count as one loop."""
        self.trips = [prod(program.trips[at] for at in loop) for loop in self.loops]
        self.windows: list[Window] = []
        self._grids = [grid for nest in program.nests for grid in _grids(nest)]
        self._known: dict[int, set[tuple[int, int]]] = {}

    def found(self) -> tuple[Counts, list[Window]]:
        reason = "its loops are too short"
        for probe in PROBES:
            for loop in reversed(range(len(self.loops))):
                tasks = self._tasks(loop + 1)
                count = min(self.trips[loop], int(min(probe, self.most) / tasks))
                if count < (24 if self.program.common else 8) or not self._may_cut(loop):
                    continue
                cut = self._probe(loop, count)
                if cut is None:
                    reason = "no period was found"
                    continue
                plans = [plan for around in SETTLED if (plan := self._plan(loop, cut, around)) is not None]
                for plan in sorted(plans, key=self._size):  # what is small costs little to try
                    try:
                        return self._solve(plan), self.windows
                    except Unsteady as error:
                        reason = str(error)
        raise Unsteady(reason)

    def _tasks(self, loop: int) -> float:
        """Tasks of one iteration of the loops outside a position, the others whole."""
        return max(1.0, prod(self.trips[loop:]) * self.per_tile)

    def _may_cut(self, loop: int) -> bool:
        return all(not _uneven(nest, self.program.loops[at]) for nest in self.program.nests for at in self.loops[loop])

    def _probe(self, loop: int, count: int) -> Cut | None:
        """When the iterations of a loop become periodic, and how: from their ends in a run of some of them."""
        chosen: list[range] = [range(1) if at < loop else range(trips) for at, trips in enumerate(self.trips)]
        chosen[loop] = range(count)
        window = self._sample(chosen)
        behind = len(self.program.nests) - 1  # the last group of a pipeline comes so many iterations later
        tiles = (window.tiles - behind) // count
        if not tiles or (window.tiles - behind) % count:
            return None
        ends = window.finishes()[tiles - 1 + behind :: tiles]
        steps = [after - before for before, after in pairwise([0.0, *ends])]
        flying = max(nest.group.in_flight for nest in self.program.nests) if not behind else behind + 1
        last = 1 + ceil(flying / tiles)  # towards the end there are fewer tiles in flight
        steps = steps[: count - last]
        for period in range(1, min(len(steps) // 3, 64) + 1):
            first = len(steps)
            while first > period and abs(steps[first - 1] - steps[first - 1 - period]) <= TOLERANCE * ends[-1]:
                first -= 1
            if len(steps) - first >= max(2 * period, 4):
                return Cut(period, max(1, first - period), last)
        return None

    def _plan(self, loop: int, cut: Cut, around: tuple[int, int]) -> dict[int, Cut] | None:
        """For each loop that is cut short, how; None where the loops are too short for that, or the samples too large."""
        plan: dict[int, Cut] = {}
        for at in reversed(range(loop + 1)):
            each = cut if at == loop else Cut(around[0], around[1], 1)
            if self.trips[at] <= each.base(self.trips[at]) + 2 * each.period or not self._may_cut(at):
                if at == loop:
                    return None
                continue
            if not self._alike(at, each):
                if at == loop:
                    return None
                continue
            plan[at] = each
        return plan if len(plan) <= MAX_AXES and self._size(plan) <= 2 * self.most else None

    def _size(self, plan: dict[int, Cut]) -> float:
        """Tasks of the largest sample."""
        tiles = [plan[at].base(trips) + 2 * plan[at].period if at in plan else trips for at, trips in enumerate(self.trips)]
        return prod(tiles) * self.per_tile

    def _alike(self, loop: int, cut: Cut) -> bool:
        """Whether all iterations of a loop but the first and the last ones do the same, as far as lengths and masks go."""
        axes = [self.program.loops[at] for at in self.loops[loop]]
        if len(axes) > 1:
            cut = Cut(1, 0, 0)  # of merged loops all have to be alike
        changes = (change for axis in axes for change in self._changes(axis))
        return not any(cut.first <= at < length - cut.last - 1 for at, length in changes)

    def _changes(self, axis: int) -> set[tuple[int, int]]:
        """(iteration of a loop after which something else is done than before, how many iterations that something has)."""
        if axis not in self._known:
            found: set[tuple[int, int]] = set()
            for grid in self._grids:
                if grid.shape[axis] > 1:
                    away = tuple(other for other in range(grid.ndim) if other != axis)
                    changed = (np.diff(grid, axis=axis) != 0).any(axis=away)
                    found.update((int(at), grid.shape[axis]) for at in np.flatnonzero(changed))
            self._known[axis] = found
        return self._known[axis]

    def _sample(self, chosen: Sequence[Sequence[int]]) -> Window:
        blocks: list[Block] = []
        for loop, numbers in zip(self.loops, chosen, strict=True):
            trips = [self.program.trips[at] for at in loop]
            axes = [self.program.loops[at] for at in loop]
            blocks.append((axes, [tuple(int(at) for at in np.unravel_index(number, trips)) for number in numbers]))
        window, _ = self.program.window(blocks)
        self.windows.append(window)
        return window

    def _solve(self, plan: dict[int, Cut]) -> Counts:
        axes = list(plan)

        def run(more: dict[int, int]) -> Counts:
            chosen: list[Sequence[int]] = [range(trips) for trips in self.trips]
            for at, cut in plan.items():
                trips = self.trips[at]
                chosen[at] = [*range(cut.base(trips) - cut.last + more[at] * cut.period), *range(trips - cut.last, trips)]
            return self._sample(chosen).counts()

        corners = {more: run(dict(zip(axes, more, strict=True))) for more in product((0, 1), repeat=len(axes))}
        check = run(dict.fromkeys(axes, 2))
        names = sorted(set(check).union(*corners.values()))

        def at(name: Name, steps: dict[int, int]) -> float:
            """Multi-affine interpolation: `steps` periods beyond the least run along each loop."""
            return sum(
                counts.get(name, 0.0) * prod(steps[axis] if bit else 1 - steps[axis] for axis, bit in zip(axes, more, strict=True))
                for more, counts in corners.items()
            )

        steps = {axis: (self.trips[axis] - cut.base(self.trips[axis])) // cut.period for axis, cut in plan.items()}
        near = TOLERANCE * max(check[("cycles",)], 1.0)
        total = {name: at(name, steps) for name in names}
        even = {
            name: abs(at(name, dict.fromkeys(axes, 2)) - check.get(name, 0.0)) <= near and total[name] >= -near for name in names
        }
        for name in names:
            if not even[name] and name[0] in ("cycles", "busy"):
                raise Unsteady(f"{' '.join(name)} does not grow evenly")
        for resource in {name[1] for name in names if name[0] == "stalls"}:
            causes = [name for name in names if name[:2] == ("stalls", resource)]
            if not all(even[name] for name in causes):
                total |= _shared_out(total, check, resource, causes)
        return total


def _shared_out(total: Counts, check: Counts, resource: str, causes: list[Name]) -> Counts:
    """Idle cycles of a resource by cause in the shares of a sample; before its first and after its last work as many as there."""
    idle = total[("cycles",)] - total[("busy", resource)]
    ends = {name: check.get(name, 0.0) for name in causes if name[2] in ("fill", "drain")}
    rest = {name: check.get(name, 0.0) for name in causes if name not in ends}
    left = idle - sum(ends.values())
    shown = sum(rest.values())
    if left < 0 or not shown:
        return {name: cycles * idle / max(1e-30, sum(ends.values()) + shown) for name, cycles in (ends | rest).items()}
    return ends | {name: cycles * left / shown for name, cycles in rest.items()}


# --- loops --------------------------------------------------------------------------------------------------------------


def _merged(program: Program) -> list[list[int]]:
    """Neighbouring loops that no tensor and no Einsum tells apart, as one."""
    found: list[list[int]] = []
    for at in range(len(program.loops)):
        if found and not program.common and _same(program.nests[0], program.loops[found[-1][-1]], program.loops[at]):
            found[-1].append(at)
        else:
            found.append([at])
    return found


def _same(nest: Nest, a: int, b: int) -> bool:
    """Whether two loops, one inside the other, move the same things in the same way."""
    loops = nest.group.loops
    if loops[a].rank == loops[b].rank or b != a + 1:
        return False
    ranks = {loops[a].rank, loops[b].rank}
    sets = [step.ranks for step in nest.steps] + [nest.own_ranks(name) for name in nest.residents]
    for stream in nest.streams:
        sets.append(frozenset().union(*(free_ranks(index) for index in stream.indices)))
        if any(depth == b for _, depth in stream.chain):
            return False
    if any(depth == b for resident in nest.residents.values() for _, depth in resident.inner):
        return False
    even = all(nest.sizes.extents[loops[axis].rank] % loops[axis].tile == 0 for axis in (a, b))
    return even and not any(len(ranks & each) == 1 for each in sets)


def _uneven(nest: Nest, axis: int) -> bool:
    """Whether an outer loop over the same rank ends with a shorter tile, in which this loop has fewer iterations."""
    loops = nest.group.loops
    around = [nest.sizes.extents[loops[axis].rank], *(loop.tile for loop in loops[:axis] if loop.rank == loops[axis].rank)]
    return any(outer % inner for outer, inner in pairwise(around))


def _grids(nest: Nest) -> Iterator[Grid]:
    for step in nest.steps:
        yield from nest.runs(step)
        for _, factors in nest.cycles(step):
            yield from factors
        for live, skips in nest.masks:
            if step.position in skips:
                yield live
    for stream in nest.streams:
        for _, depth in stream.chain or (("", stream.depth),):
            for low, high in nest.box(stream.tensor, stream.indices, depth):
                yield high - low
                for end in (low, high):
                    for axis in range(end.ndim):
                        if end.shape[axis] > 1:
                            yield np.diff(end, axis=axis) != 0
