"""Fusion: the best partition of the Einsums into consecutive groups, for given extents.

In: a cascade with sizes, an architecture, an objective. Out: the groups of the best partition, each mapped. Partitions are paths
over the Einsums in order; the weight of a group is what it cannot beat, and rises as its search is advanced. Only groups on the
path of least weight are advanced, and only until another path is as good: most groups are given up after a first bound. Groups
that are the same but for names are searched once.

Groups share nothing: what goes from one to the next goes through the backing store, so times, energies and words add up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Map_
from typing import Any

import numpy as np

from ..einsum.cascade import Cascade, Coord, Expr, accesses, free_ranks
from ..einsum.diagnostics import EinsmithError
from ..einsum.sizes import Sizes
from .alike import Signature, signature
from .architecture import Architecture
from .cost import group_cost, level_pj
from .floors import Way
from .group import GroupSearch
from .idle import Length, lengths, most_at_work
from .incumbents import Rivals
from .intervals import NotAffine, possible
from .layouts import Vector, front
from .mapping import Binding, Group, Loop
from .masks import first_step, masks
from .nest import Nest, is_initial, place_group
from .objective import MEASURES, NOTHING, PRODUCTS, Objective, order, rank_of
from .operations import is_constant, work
from .problem import Found, Problem
from .space import Fixed, einsum_order, together
from .tally import Tally

NONE: Vector = (0.0, 0.0, 0.0)
"""Cycles, energy (pJ) and words of nothing."""
MAX_GRID = 2**20
"""Cells of the grid on which the share of live points is bounded."""


class Partitions:
    """The best partition of the Einsums into consecutive groups, for given extents."""

    def __init__(
        self, cascade: Cascade, arch: Architecture, sizes: Sizes, objective: Objective, tally: Tally, fixed: Fixed,
        limits: Vector = NOTHING, rivals: Sequence[Vector] = (),
    ) -> None:  # fmt: skip
        """`rivals`: cycles and energy of whole mappings that are known, for products."""
        self.fixed, self.limits, self.rivals = fixed, limits, list(rivals)
        self.axes = _axes(objective, limits)
        self.front: list[tuple[Vector, list[Found]]] = []
        self.cascade, self.arch, self.sizes, self.objective, self.tally = cascade, arch, sizes, objective, tally
        self.names = einsum_order(cascade)
        self.shares = self._live_shares()
        self.masked = frozenset(self.shares)
        self._peel()
        self.ideal = self._ideal()
        self.lengths = self._lengths()
        """Of the ranks of each Einsum; none where masks leave points out."""
        self.missed: float | None = None
        """What no partition within limits is better than, of those that were not looked at."""
        self.known: dict[Any, float] = {}
        """Cycles of Einsums on arrays, whatever group they are in."""
        self.ways: dict[Any, list[Way]] = {}
        """Ways to read their operands."""
        self.searches: dict[tuple[int, int], GroupSearch | None] = {}
        self.marks: dict[tuple[int, int], Signature | None] = {}
        self.bounds = {
            (i, j): self._bound(i, j)
            for i in range(len(self.names))
            for j in range(i + 1, len(self.names) + 1)
            if together(cascade, frozenset(self.names[i:j])) and fixed.allows(frozenset(self.names[i:j]))
        }

    def floor(self) -> Any:
        """What no partition can be better than."""
        if self.objective in PRODUCTS:
            return NONE
        path = self._path()
        return NOTHING if path is None else self._path_value(path)

    def proven(self) -> float:
        """What no partition can be better than, as far as it is proven when the search is cut off."""
        if self.axes:
            return 0.0 if self.missed is None else self.missed
        path = self._path(proven=True)
        return math.inf if path is None else sum(float(self._weight(edge, proven=True)[0]) for edge in path)

    def best(self, limit: Any) -> list[Found] | None:
        """The groups of the best partition; None if none is below the limit."""
        if self.limited:
            return self._best_limited(limit)
        if self.axes:
            return self._best_product()
        while True:
            path = self._path()
            if self.tally.stop() and (ready := self._path(ready=True)) is not None:
                self.tally.cut_off |= ready != path
                path = ready
            if path is None:
                return None
            value = self._path_value(path)
            if limit is not None and value >= limit:
                self.tally.bounded += 1
                return None
            open_groups = [edge for edge in path if not self._is_done(edge)]
            if not open_groups:
                return [self._found(edge)[0] for edge in path]
            edge = open_groups[0]
            begun = edge in self.searches
            search = self._search(edge)
            if search is None:
                del self.bounds[edge]
                continue
            if not begun:
                continue  # its bound may have risen
            other = self._path(without=edge)
            slack = math.inf if other is None else self._path_value(other)[0] - value[0]
            if limit is not None:
                slack = min(slack, limit[0] - value[0])
            # without another path, or once asked to stop, to the end; else until another may be better
            search.advance(None if math.isinf(slack) or self.tally.stop() else (self._weight(edge)[0] + slack, math.inf, math.inf))
            if search.done and not search.found:
                del self.bounds[edge]

    def _search(self, edge: tuple[int, int]) -> GroupSearch | None:
        """The search of a group, begun; None if nothing there is legal. Groups that differ in names alone share it."""
        if edge not in self.searches:
            problem = self._problem(edge)
            mark = None if self.limited else signature(problem)  # limits are not alike
            begun = [(each, other) for each, other in self.marks.items() if other is not None and each in self.searches]
            same = next((each for each, other in begun if mark is not None and other.key == mark.key), None)
            self.marks[edge] = mark
            if same is not None:
                self.searches[edge] = self.searches[same]
            else:
                try:
                    self.searches[edge] = GroupSearch(problem, self.tally)
                except EinsmithError as error:
                    if error.diagnostics[0].code == "E513":
                        raise
                    self.tally.refuse(error)
                    self.searches[edge] = None
        return self.searches[edge]

    def _problem(self, edge: tuple[int, int]) -> Problem:
        names = frozenset(self.names[slice(*edge)])
        leaving = self.leaving(names)
        return Problem(
            self.cascade,
            self.arch,
            self.sizes,
            names,
            leaving,
            self.objective,
            self.shares,
            self.fixed,
            self.masked,
            self.axes,
            self.known,
            self.ways,
        )

    def _is_done(self, edge: tuple[int, int]) -> bool:
        search = self.searches.get(edge)
        return search is not None and search.done

    def _found(self, edge: tuple[int, int]) -> list[Found]:
        """The mappings found of a group, with its own names."""
        search = self.searches[edge]
        assert search is not None
        own = self._problem(edge)
        if own.names == search.problem.names:
            return search.found
        mark, like = self.marks[edge], signature(search.problem)
        assert mark is not None
        assert like is not None
        found = []
        for each in search.found:
            group = mark.rename(each.nest.group, like)
            nest = place_group(self.cascade, self.arch, self.sizes, group, 1, own.leaving)
            found.append(Found(nest, group_cost(nest)))
        return found

    def _weight(self, edge: tuple[int, int], proven: bool = False) -> Any:
        """What a group cannot beat; `proven`: also where its search was cut off."""
        bound = rank_of(self.objective, self.bounds[edge])
        search = self.searches.get(edge)
        if proven and search is not None and search.proof is not None:
            return max(bound, search.proof)
        return bound if search is None else search.floor if search.done else max(bound, search.floor)

    def _path_value(self, path: list[tuple[int, int]]) -> Any:
        return tuple(sum(part) for part in zip(NONE, *(self._weight(edge) for edge in path), strict=True))

    def _is_ready(self, edge: tuple[int, int]) -> bool:
        """Whether a mapping of a group is known or soon found: it is the smallest one that begins there."""
        search = self.searches.get(edge)
        return bool(search is not None and search.found) or edge[1] == min(j for i, j in self.bounds if i == edge[0])

    def _path(
        self, without: tuple[int, int] | None = None, proven: bool = False, ready: bool = False
    ) -> list[tuple[int, int]] | None:
        """The least path by what its groups cannot beat; the one with fewest groups among equals; `ready`: of those whose mappings
        are known or soon found."""
        count = len(self.names)
        best: dict[int, tuple[Any, int, list[tuple[int, int]]]] = {0: (NONE, 0, [])}
        for i in range(count):
            if i not in best:
                continue
            value, groups, path = best[i]
            for j in range(i + 1, count + 1):
                if (i, j) in self.bounds and (i, j) != without and (not ready or self._is_ready((i, j))):
                    option = (added(value, self._weight((i, j), proven)), groups + 1, [*path, (i, j)])
                    if j not in best or option[:2] < best[j][:2]:
                        best[j] = option
        return best[count][2] if count in best else None

    def _best_product(self) -> list[Found] | None:
        """Energy times delay is not a sum over groups: Pareto fronts of the groups that may be on a partition that no known one is
        as good as, when all other groups take their least."""
        seeds = self._seeds()
        known: list[tuple[Vector, list[Found]]] = list(seeds)
        least = {edge: list(bound) for edge, bound in self.bounds.items()}
        open_ = set(least)
        while open_:
            rivals = Rivals(self.objective, [*self.rivals, *(value for value, _ in known)])
            before, after = self._around(least)
            through = {(i, j): tuple(before[i][a] + least[i, j][a] + after[j][a] for a in range(len(MEASURES))) for i, j in open_}
            open_ = {edge for edge in open_ if not rivals.beat(through[edge][0], through[edge][1])}
            if not open_:
                break
            edge = min(open_, key=lambda edge: (rank_of(self.objective, through[edge]), edge[0] - edge[1], edge))
            if self.tally.stop() and not self._is_ready(edge):
                self.tally.cut_off = True
                open_.remove(edge)
                continue
            search = self._search(edge)
            alike = [each for each in least if each == edge or self._is_alike(each, edge)]
            open_ -= set(alike)
            if search is not None:
                others = [tuple(before[i][a] + after[j][a] for a in (0, 1)) for i, j in alike]
                search.incumbents.others = tuple(min(part) for part in zip(*others, strict=True))
                search.incumbents.rivals = rivals
                search.advance()
            for each in alike:
                if search is None or not search.found:
                    del least[each]
                    continue
                self.searches[each] = search
                for axis in self.axes:
                    least[each][axis] = max(least[each][axis], min(found.value[axis] for found in search.found))
            done = [each for each in least if each not in open_ and self._is_done(each)]
            known = self._front_of([*seeds, *self._fronts(done, NOTHING)])
        self.front = known
        return min(known, key=lambda option: rank_of("edp", option[0]))[1] if known else None

    def _seeds(self) -> list[tuple[Vector, list[Found]]]:
        """A first partition: that with least latency."""
        if len(self.bounds) < 2:
            return []
        first = Partitions(self.cascade, self.arch, self.sizes, "latency", self.tally, self.fixed).best(None)
        return [] if first is None else [(added(*(found.value for found in first)), first)]

    def _front_of(self, options: list[tuple[Vector, list[Found]]]) -> list[tuple[Vector, list[Found]]]:
        """Those that no other is as good as."""
        listed = [(tuple(value[axis] for axis in self.axes), (value, groups)) for value, groups in options]
        return [item for _, item in front(listed)]

    def _is_alike(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Whether groups differ in names alone."""
        for edge in (one, other):
            if edge not in self.marks:
                self.marks[edge] = signature(self._problem(edge))
        mine, its = self.marks[one], self.marks[other]
        return mine is not None and its is not None and mine.key == its.key

    @property
    def limited(self) -> bool:
        """Whether a whole mapping may take so much of a measure at most."""
        return self.limits != NOTHING

    def _best_limited(self, limit: Any) -> list[Found] | None:
        """The best partition within limits on whole mappings: fronts of the groups that may be on one, as far as they may be.

        A group is searched up to what the limits, and the best so far, leave it when all others take their least.
        """
        order_ = order(self.objective)
        first = order_[0]
        most = list(self.limits)
        if limit is not None:
            most[first] = min(most[first], limit[0])
        count = len(self.names)
        self.missed = math.inf
        least = {edge: list(bound) for edge, bound in self.bounds.items()}
        open_ = set(least)
        best: tuple[Any, list[Found]] | None = None
        while open_:
            before, after = self._around(least)
            through = {(i, j): tuple(before[i][a] + least[i, j][a] + after[j][a] for a in range(len(MEASURES))) for i, j in open_}
            open_ = {edge for edge in open_ if all(mine <= cap for mine, cap in zip(through[edge], most, strict=True))}
            if best is not None:
                open_ = {edge for edge in open_ if rank_of(self.objective, through[edge]) < best[0]}
            if not open_:
                break
            edge = min(open_, key=lambda edge: (rank_of(self.objective, through[edge]), edge[0] - edge[1], edge))
            open_.remove(edge)
            if best is not None and self.tally.stop():
                self.tally.cut_off = True
                self.missed = min(self.missed, through[edge][first])
                continue
            search = self._search(edge)
            if search is not None:
                i, j = edge
                search.incumbents.caps = [cap - before[i][axis] - after[j][axis] for axis, cap in enumerate(most)]
                search.incumbents.alone = edge == (0, count)
                search.advance()
                if search.proof is not None:
                    self.missed = min(self.missed, before[i][first] + search.proof[0] + after[j][first])
            if search is None or not search.found:
                del least[edge]
                continue
            least[edge] = [
                max(mine, min(found.value[axis] for found in search.found)) if axis in self.axes else mine
                for axis, mine in enumerate(least[edge])
            ]
            done = [each for each in least if each not in open_ and self._is_done(each)]
            fronts = self._fronts(done, most)
            for value, groups in fronts:
                if best is None or rank_of(self.objective, value) < best[0]:
                    best = rank_of(self.objective, value), groups
                    most[first] = min(most[first], value[first])
        if best is None or (limit is not None and best[0] >= limit):
            return None
        return best[1]

    def _around(self, least: Map_[tuple[int, int], Sequence[float]]) -> tuple[list[Vector], list[Vector]]:
        """What all groups before each Einsum take at least of each measure, and what those from it on do."""
        count = len(self.names)
        before, after = (
            [[math.inf] * len(MEASURES) for _ in range(count + 1)],
            [[math.inf] * len(MEASURES) for _ in range(count + 1)],
        )
        before[0] = after[count] = [0.0] * len(MEASURES)
        for (i, j), value in sorted(least.items()):
            before[j] = [min(old, start + mine) for old, start, mine in zip(before[j], before[i], value, strict=True)]
        for (i, j), value in sorted(least.items(), reverse=True):
            after[i] = [min(old, rest + mine) for old, rest, mine in zip(after[i], after[j], value, strict=True)]
        return [tuple(value) for value in before], [tuple(value) for value in after]

    def _fronts(self, edges: Iterable[tuple[int, int]], most: Sequence[float]) -> list[tuple[Vector, list[Found]]]:
        """The Pareto front of the partitions into groups that have been searched, within limits."""
        count, known = len(self.names), list(edges)
        fronts: dict[int, list[tuple[Vector, tuple[Vector, list[Found]]]]] = {0: [((0.0,) * len(self.axes), (NONE, []))]}
        for j in range(1, count + 1):
            options = []
            for i, end in known:
                for _, (value, groups) in fronts.get(i, []) if end == j else []:
                    for found in self._found((i, j)):
                        total = added(value, found.value)
                        if all(mine <= cap for mine, cap in zip(total, most, strict=True)):
                            options.append((tuple(total[axis] for axis in self.axes), (total, [*groups, found])))
            fronts[j] = front(options)
        return [item for _, item in fronts[count]]

    def leaving(self, names: frozenset[str]) -> frozenset[str]:
        """What others than these Einsums need of them."""
        read = {a.tensor for e in self.cascade.einsums if e.output not in names for a in accesses(e.body)}
        return frozenset(name for name in names if name in read or name in self.cascade.outputs)

    def _bound(self, i: int, j: int) -> Vector:
        """Least cycles and energy of a group, whatever its mapping: its operations on full arrays, what it must read and write."""
        names = frozenset(self.names[i:j])
        words = 0.0
        for name in self.leaving(names):
            tensor = self.cascade.tensor(name)
            words += math.prod(self.sizes.extents[rank] for rank in tensor.ranks if rank != tensor.iterates)
        level = self.arch.backing[1]
        fetched = self.fetched(names)
        byte = self.arch.word_bytes
        cycles = (level.seconds(fetched * byte, words * byte) or 0.0) * self.arch.clock_hz
        kept: list[tuple[Vector, None]] = [((0.0,) * len(self.arch.arrays), None)]
        energy = level_pj(self.arch, level, fetched, words)
        for name in names:
            options = self.ideal[name]
            if not options:
                continue
            busy = {array: most_at_work(self.arch.arrays[array].side, self.lengths[name]) for array in options}
            energy += min(option[1] for option in options.values())
            grown: list[tuple[Vector, Any]] = []
            for value, _ in kept:
                for place, array in enumerate(self.arch.arrays):
                    if array in options:
                        grown.append(
                            (tuple(v + (options[array][0] / busy[array] if p == place else 0.0) for p, v in enumerate(value)), None)
                        )
            kept = front(grown)
        return max(cycles, min(max(value) for value, _ in kept)), energy, fetched + words

    def fetched(self, names: frozenset[str]) -> float:
        """Words that a group must read: whole tensors that it goes through position by position, less what masks may spare."""
        least: dict[tuple[str, tuple[Expr, ...]], float] = {}
        for position, einsum in enumerate(self.cascade.einsums):
            for access in accesses(einsum.body) if einsum.output in names else ():
                if access.tensor in names or not all(isinstance(index, Coord) for index in access.indices):
                    continue
                words = math.prod(self.sizes.extents[rank] for rank in free_ranks(access)) * self.shares.get(position, 1.0)
                key = access.tensor, access.indices
                least[key] = max(least.get(key, 0.0), words)
        return sum(least.values())

    def _ideal(self) -> dict[str, dict[str, Vector]]:
        """For each Einsum and each array that can do it: cycles with all lanes at work and energy of its operations."""
        result: dict[str, dict[str, Vector]] = {name: {} for name in self.names}
        for position, einsum in enumerate(self.cascade.einsums):
            items = () if is_initial(self.cascade, einsum) and is_constant(einsum.body) else work(einsum, self.sizes.scalars)
            for name, array in self.arch.arrays.items():
                lanes = self._lanes(einsum.output, name)
                barred = self.fixed.arrays.get(einsum.output, name) != name
                if barred or any(array.expand(item.operation) is None for item in items):
                    result[einsum.output].pop(name, None)
                    continue
                cycles = energy = 0.0
                for item in items:
                    points = math.prod(self.sizes.extents[rank] for rank in item.ranks) * self.shares.get(position, 1.0)
                    for rank in self.cascade.domain_splits(item.ranks):
                        assert rank.split is not None
                        whole = self.sizes.extents[rank.split.outer] * self.sizes.extents[rank.split.inner]
                        points *= self.sizes.extents[rank.name] / whole if whole else 0.0
                    for unit, count in (array.expand(item.operation) or {}).items():
                        cycles += points * count * array.units[unit].cycles / lanes
                        energy += points * count * array.units[unit].energy_pj
                before = result[einsum.output].get(name, (0.0, 0.0))
                result[einsum.output][name] = (before[0] + cycles, before[1] + energy)
        return result

    def _lanes(self, name: str, array: str) -> float:
        """Lanes of an array that can be at work on an Einsum, as far as its layout is fixed."""
        side, instances = self.arch.arrays[array].side, self.arch.instances(array)
        if name not in self.fixed.layouts:
            return math.prod(side) * instances
        ranks = [along[0] if along else None for along in self.fixed.layouts[name]]
        return instances * math.prod(
            min(lanes, self.sizes.extents[rank]) if rank else 1 for lanes, rank in itertools.zip_longest(side, ranks[: len(side)])
        )

    def _lengths(self) -> dict[str, frozenset[Length]]:
        found: dict[str, frozenset[Length]] = dict.fromkeys(self.names, frozenset())
        masked = {self.cascade.einsums[position].output for position in self.shares} | self.fixed.layouts.keys()
        for einsum in self.cascade.einsums:
            if einsum.output not in masked:
                found[einsum.output] |= lengths(self.cascade, einsum, self.sizes)
        return found

    def _live_shares(self) -> dict[int, float]:
        """Least share of the points of each masked Einsum that any tiling must do: cells of a grid that are live throughout."""
        cut = frozenset(rank.name for rank in self.cascade.ranks if self.sizes.extents[rank.name] > 1)
        binding = Binding(array=next(iter(self.arch.arrays)))
        shares: dict[int, list[float]] = {}
        for mask in masks(self.cascade, cut):
            ranks = sorted(free_ranks(mask.condition))
            pieces = int(MAX_GRID ** (1 / max(1, len(ranks))))
            loops = tuple(Loop(rank=rank, tile=max(1, -(-self.sizes.extents[rank] // pieces))) for rank in ranks)
            nest = Nest(self.cascade, self.arch, self.sizes, Group(loops=loops, einsums={"": binding}), 0, (), frozenset())
            try:
                may_be_dead = possible(mask.condition, nest.ranges(frozenset(ranks)), self.sizes.scalars)[1]
            except NotAffine:
                continue
            for position in mask.skips:
                shares.setdefault(position, []).append(1.0 - float(np.mean(may_be_dead)))
        # under several masks at once, at least one minus what each leaves out
        return {position: max(0.0, 1.0 - sum(1.0 - share for share in found)) for position, found in shares.items()}

    def _peel(self) -> None:
        """Shares of what first steps leave undone, where they are peeled."""
        ranks = {tensor.iterates for tensor in self.cascade.tensors} if self.fixed.peel else set()
        for rank in sorted(rank for rank in ranks if rank is not None):
            first = first_step(self.cascade, rank, frozenset())
            steps = self.sizes.extents[rank]
            for position in first.skips if first is not None else ():
                self.shares[position] = max(0.0, self.shares.get(position, 1.0) - 1.0 / max(1, steps))


def _axes(objective: Objective, limits: Vector) -> tuple[int, ...]:
    """Measures whose fronts are needed: for a sum without limits none."""
    if objective in PRODUCTS:
        return (0, 1)
    if limits == NOTHING:
        return ()
    first = order(objective)[0]
    return (first, *(place for place, limit in enumerate(limits) if limit < math.inf and place != first))


def added(*values: Vector) -> Vector:
    return tuple(sum(part) for part in zip(*values, strict=True)) if values else NONE
