"""Outlines: the nests of a group that a search looks at.

In: a problem; loops and bindings, or one tiling of the orders of a cut and where its inputs are held. Out: the nest, each step
checked once; refused where what is held does not fit after all.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping as Map_
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..einsum.cascade import Cascade, Einsum, free_ranks
from ..einsum.diagnostics import EinsmithError
from .architecture import Architecture
from .held import OUTSIDE
from .layouts import front
from .leaves import roomy
from .mapping import Binding, Group, Loop, Schedule
from .masks import first_step
from .nest import Nest, Step, check_step, outline, refuse, settle_lasting
from .orders import Orders
from .problem import Problem
from .tiled import Tiled


class Outlines:
    """The nests of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.arch = problem, problem.arch
        self.roomy = roomy(problem.arch)
        """The architecture with room for everything."""
        fixed = problem.fixed
        self.schedule: Schedule = fixed.of(fixed.schedules, problem.names) or "interleaved"
        self.peel = peeled(problem.cascade, problem.names) if fixed.peel else ()
        self._known_steps: dict[tuple[int, Binding], Step] = {}
        self.plain = self._some_binding()
        """Each Einsum on the first array that can do it: for what does not depend on the array."""

    def outline(self, loops: tuple[Loop, ...], bindings: Map_[str, Binding], arch: Architecture | None = None, **how: Any) -> Nest:
        """The nest of some loops and bindings, on the architecture of the problem or another."""
        group = Group(loops=loops, einsums=dict(bindings), schedule=self.schedule, peel=self.peel, **how)
        problem = self.problem
        steps = self.steps(bindings)
        return outline(problem.cascade, arch or self.arch, problem.sizes, group, 1, problem.leaving, steps, explain=False)

    def steps(self, bindings: Map_[str, Binding]) -> tuple[Step, ...]:
        """The Einsums of the group on their arrays. Raises EinsmithError where an array cannot do one."""
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

    def held(
        self,
        orders: Orders,
        order: tuple[int, ...],
        row: int,
        holds: tuple[tuple[int, ...], ...],
        level: str | None = None,
    ) -> Nest:
        """The nest of a tiling with its inputs held as said; refused if they or what lasts do not fit after all."""
        tiled = orders.tiled
        tiles = {rank: tuple(int(values[row]) for values in by) for rank, by in tiled.tilings.tiles.items()}
        tiles |= dict.fromkeys(tiled.cut.moving, (1,))
        before = (*tiled.team.loops, *tiled.looped.outside)
        inner = tiled.looped.loops(tiled.cut, order, tiles)
        streams = tiled.nest.streams
        if len(self.arch.on_chip) == 1 and self.problem.masked:
            return self._hold_live((*before, *inner))
        again: tuple[Loop, ...] = ()
        if not before and (rank := _shared(tiled, order, holds)) is not None:
            again = (Loop(rank=rank, tile=tiled.team.sizes.extents[rank]),)
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
        stay = {} if level is None or level == levels[-1] else orders.results.staying(order, level)
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


def peeled(cascade: Cascade, names: frozenset[str]) -> tuple[str, ...]:
    """Ranks whose first step leaves something undone in a group."""
    ranks = {cascade.tensor(name).iterates for name in names}
    found = []
    for rank in sorted(rank for rank in ranks if rank is not None):
        first = first_step(cascade, rank, frozenset())
        if first is not None and any(cascade.einsums[position].output in names for position in first.skips):
            found.append(rank)
    return tuple(found)


def _shared(tiled: Tiled, order: tuple[int, ...], holds: Sequence[tuple[int, ...]]) -> str | None:
    """The rank of a loop of one iteration that holds what is held outside all loops; None: it takes none."""
    axes = [tiled.cut.axes[axis] for axis in order]
    outside = [
        tiled.own[number]
        for number in range(len(tiled.nest.streams))
        if any(level[number] == OUTSIDE for level in holds) and tiled.own[number] & set(axes)
    ]
    if not outside:
        return None
    common = frozenset.intersection(*outside) & set(axes[1:]) & set(tiled.cut.chosen)
    return min(common, key=axes.index) if common else axes[0]
