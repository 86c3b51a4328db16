"""Steady states: how long a group of very many tiles takes, from runs of a few of them.

In: a placed group, and a function that runs chosen iterations of its loops. Out: every count of the whole run: cycles, work,
stalls by cause.

Tasks wait for one another in the same way in all iterations of a loop but the first and the last ones, and each run is a
max-plus recurrence; such a recurrence becomes periodic: from some iteration on, each further `period` iterations add the same
to the cycles. So the cycles are an affine function of the trips of each loop, and over several loops a sum of their products.
Runs with few and with a little more of the middle iterations of each loop give its coefficients. One more run, with still more
iterations of every loop, must come out as predicted, cycles and work of every resource; if not, longer periods and more
iterations are tried, and if none agrees, `Unsteady` is raised. What each resource's idle cycles are put down to may have a
longer period of its own; where it has, the shares are those of the longest run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import TypeAlias

import numpy as np

from ..mapper.nest import Grid, Nest

Axes: TypeAlias = Sequence[Sequence[int]]
"""Iterations of each loop that are run."""
Name: TypeAlias = tuple[str, ...]
Counts: TypeAlias = dict[Name, float]
"""`("cycles",)`, `("busy", resource)`, `("stalls", resource, cause)`."""
ATTEMPTS = ((1, 2, 1), (1, 5, 1), (2, 5, 1), (1, 8, 2), (3, 6, 1), (4, 8, 1), (1, 16, 2), (8, 12, 2))
"""(period, first iterations, last iterations) of the innermost loop that is cut short, tried in turn; loops around it settle at
once (and begin like any other iteration, or with one of their own), as each of their iterations is long."""
WHOLE = 64
"""Loops are run whole from the innermost outwards while there are at most so many tiles."""
TOLERANCE = 1e-9
"""By how much, relative to the cycles, counts may differ from what is predicted: they are sums of floating-point numbers."""


class Unsteady(Exception):
    """No steady state was found; says why."""


def extrapolated(nest: Nest, most: int, sample: Callable[[Axes], Counts]) -> Counts:
    """All counts of the whole run, from samples of at most `most` tiles. Raises Unsteady."""
    reason = "its loops are too short"
    for period, first, last in ATTEMPTS:
        plan = _plan(nest, period, first, last)
        tiles = prod(plan.get(axis, trips - 2 * period) + 2 * period for axis, trips in enumerate(nest.trips))
        if not plan or tiles > most:
            continue
        try:
            return _solve(nest, plan, period, last, sample)
        except Unsteady as error:
            reason = str(error)
    raise Unsteady(reason)


def _plan(nest: Nest, period: int, first: int, last: int) -> dict[int, int]:
    """For each loop that is cut short, the least number of its iterations that is run."""
    plan: dict[int, int] = {}
    whole = 1
    for axis, trips in reversed(list(enumerate(nest.trips))):
        if whole * trips <= WHOLE:
            whole *= trips
            continue
        for start in (0, 1) if plan else (first,):
            base = start + last + (trips - start - last) % period
            if trips > base + 2 * period and not _uneven(nest, axis) and _alike(nest, axis, start, last):
                plan[axis] = base
                break
    return plan


def _uneven(nest: Nest, axis: int) -> bool:
    """Whether an outer loop over the same rank ends with a shorter tile, in which this loop has fewer iterations."""
    loops = nest.group.loops
    around = [nest.sizes.extents[loops[axis].rank], *(loop.tile for loop in loops[:axis] if loop.rank == loops[axis].rank)]
    return any(outer % inner for outer, inner in pairwise(around))


def _alike(nest: Nest, axis: int, first: int, last: int) -> bool:
    """Whether all iterations of a loop but the first and the last ones do the same, as far as lengths and masks go."""
    return all(_even(grid, axis, first, last) for grid in _grids(nest))


def _grids(nest: Nest) -> Iterator[Grid]:
    for step in nest.steps:
        yield from nest.runs(step)
        for _, factors in nest.cycles(step):
            yield from factors
        for live, skips in nest.masks:
            if step.position in skips:
                yield live
    for stream in nest.streams:
        for low, high in nest.box(stream.tensor, stream.indices, stream.depth):
            yield high - low
            for end in (low, high):
                for axis in range(end.ndim):
                    if end.shape[axis] > 1:
                        yield np.diff(end, axis=axis) != 0


def _even(grid: Grid, axis: int, first: int, last: int) -> bool:
    if grid.shape[axis] <= first + last:
        return True
    inside = np.take(grid, range(first, grid.shape[axis] - last), axis=axis)
    return bool(np.all(inside == np.take(inside, [0], axis=axis)))


def _solve(nest: Nest, plan: dict[int, int], period: int, last: int, sample: Callable[[Axes], Counts]) -> Counts:
    axes = list(plan)

    def run(more: dict[int, int]) -> Counts:
        iterations: list[Sequence[int]] = [range(trips) for trips in nest.trips]
        for axis in axes:
            trips = nest.trips[axis]
            iterations[axis] = [*range(plan[axis] - last + more[axis] * period), *range(trips - last, trips)]
        return sample(iterations)

    corners = {more: run(dict(zip(axes, more, strict=True))) for more in product((0, 1), repeat=len(axes))}
    check = run(dict.fromkeys(axes, 2))
    names = sorted(set(check).union(*corners.values()))

    def at(name: Name, steps: dict[int, int]) -> float:
        """Multi-affine interpolation: `steps` periods beyond the least run along each loop."""
        return sum(
            counts.get(name, 0.0) * prod(steps[axis] if bit else 1 - steps[axis] for axis, bit in zip(axes, more, strict=True))
            for more, counts in corners.items()
        )

    near = TOLERANCE * max(check[("cycles",)], 1.0)
    even = {name: abs(at(name, dict.fromkeys(axes, 2)) - check.get(name, 0.0)) <= near for name in names}
    for name in names:
        if not even[name] and name[0] != "stalls":
            raise Unsteady(f"{' '.join(name)} does not grow evenly")
    steps = {axis: (nest.trips[axis] - plan[axis]) // period for axis in axes}
    total = {name: at(name, steps) for name in names}
    for resource in {name[1] for name in names if name[0] == "stalls"}:
        causes = [name for name in names if name[:2] == ("stalls", resource)]
        if not all(even[name] for name in causes):
            idle = total[("cycles",)] - total[("busy", resource)]
            shown = sum(check.get(name, 0.0) for name in causes)
            total |= {name: check.get(name, 0.0) * idle / shown for name in causes}
    return total
