"""Every mapping of the stated space, one by one, through the cost model alone.

Written from the statement of the space and from what a mapping file can say, without anything of the search: no bounds, no
batches, no order of visits. It goes through more than the search states: every hold, every layout and binding, every place for
each tensor of a tile. Slow on purpose; for problems of a few positions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from einsmith.einsum.cascade import Cascade, Einsum, Scan, Select, accesses, free_ranks
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.sizes import Sizes, bind
from einsmith.mapper.architecture import Architecture
from einsmith.mapper.cost import GroupCost, group_cost
from einsmith.mapper.mapping import Binding, Group, Loop, Schedule
from einsmith.mapper.nest import Nest, place_group
from einsmith.mapper.steps import iterated

Value = tuple[float, float, float]
"""Cycles with fill and drain, energy (pJ), words across the boundary."""


@dataclass
class Brute:
    """All mappings of a cascade on an architecture."""

    cascade: Cascade
    arch: Architecture
    sizes: dict[str, int]
    tiles: str = "doubled"
    params: dict[str, float] | None = None
    undominated: bool = False
    """Only layouts and bindings that no other is as good as on every array and in energy."""
    schedule: Schedule = "interleaved"
    peel: tuple[str, ...] = ()
    """Of groups that have all Einsums."""
    obeys: Callable[[Group], bool] = lambda group: True
    """What a group must have."""
    costed: int = 0
    groups: dict[tuple[int, int], list[tuple[Value, Group]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cascade = flatten(self.cascade)
        self.bound: Sizes = bind(self.cascade, self.sizes, self.params)
        order: dict[str, None] = {}
        for einsum in self.cascade.einsums:
            order.pop(einsum.output, None)
            order[einsum.output] = None
        self.names = list(order)
        arrays = {
            key: array.model_copy(update={"registers": array.registers.model_copy(update={"words": 2**30})})
            for key, array in self.arch.arrays.items()
        }
        memory = {name: level.model_copy(update={"size": None}) for name, level in self.arch.memory.items()}
        self.roomy = self.arch.model_copy(update={"arrays": arrays, "memory": memory})
        self.sides = sorted({side for array in self.arch.arrays.values() for side in array.side})

    @property
    def size(self) -> int:
        """How many mappings there are to look at, illegal ones included, with tiles no smaller than the sides."""
        count, total = len(self.names), 0
        for i, j in itertools.combinations(range(count + 1), 2):
            more = len(self.arch.on_chip) - 1
            places = math.prod(more + (2 if name in self.outgoing(i, j) else 2 + len(self.arch.arrays)) for name in self.names[i:j])
            bindings = list(self.bindings(i, j))
            total += sum(len(list(self.holdings(loops, bindings[0]))) for loops in self.nests(i, j, 1)) * len(bindings) * places
        return total

    # --- partitions ---

    def partitions(self) -> Iterator[list[tuple[Value, Group]]]:
        """The mappings of every group of every partition."""
        count = len(self.names)
        for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, count), k) for k in range(count)):
            ends = [0, *cuts, count]
            found = [self.group(i, j) for i, j in itertools.pairwise(ends)]
            if all(found):
                yield found

    def best(self, objective: str) -> float | None:
        """The least value of an objective; None where nothing is legal and fits."""
        least = [point for parts in self.partitions() for point in self._totals(parts, objective)]
        return min((score(objective, point) for point in least), default=None)

    def least(self, objective: str) -> Value | None:
        """The value that is least in the measures of an objective, one after another."""
        found = [
            added(tuple(min((value for value, _ in part), key=lambda v: ranked(objective, v)) for part in parts))
            for parts in self.partitions()
        ]
        return min(found, key=lambda v: ranked(objective, v), default=None)

    def within(self, objective: str, limits: Value) -> Value | None:
        """The same among mappings that take no more than this of each measure."""
        found: list[Value] = []
        for parts in self.partitions():
            totals: set[Value] = {(0.0, 0.0, 0.0)}
            for part in parts:
                best = undominated({value for value, _ in part})
                totals = undominated({added((total, value)) for total in totals for value in best})
            found += [total for total in totals if all(a <= b for a, b in zip(total, limits, strict=True))]
        return min(found, key=lambda v: ranked(objective, v), default=None)

    def front(self) -> list[tuple[float, float]]:
        """All (cycles, energy) that no other mapping is at least as good as."""
        return pareto({point[:2] for parts in self.partitions() for point in self._totals(parts, "pareto")})

    def _totals(self, parts: list[list[tuple[Value, Group]]], objective: str) -> list[Value]:
        """Sums over groups: for what adds up the least of each group, else all combinations that may be on the front."""
        if objective in ("latency", "energy", "traffic"):
            return [added(min((value for value, _ in part), key=lambda v: (score(objective, v), v)) for part in parts)]
        totals: list[Value] = [(0.0, 0.0, 0.0)]
        for part in parts:
            grown = {added((total, value)) for total in totals for value, _ in part}
            kept = pareto({value[:2] for value in grown})
            totals = [next(value for value in grown if value[:2] == point) for point in kept]
        return totals

    # --- one group ---

    def group(self, i: int, j: int) -> list[tuple[Value, Group]]:
        if (i, j) not in self.groups:
            share, found = 1, list[tuple[Value, Group]]()
            while not found and share <= max(self.sides):
                found = [item for loops in self.nests(i, j, share) for item in self.complete(i, j, loops) if self.obeys(item[1])]
                share *= 2
            self.groups[i, j] = found
        return self.groups[i, j]

    def nests(self, i: int, j: int, share: int) -> Iterator[tuple[Loop, ...]]:
        """All orders of loops with all tiles."""
        inside = set(self.names[i:j])
        einsums = [einsum for einsum in self.cascade.einsums if einsum.output in inside]
        extents = self.bound.extents
        ranks = [rank.name for rank in self.cascade.ranks if any(rank.name in iterated(einsum) for einsum in einsums)]
        states = [rank for rank in ranks if any(self.cascade.tensor(e.output).iterates == rank for e in einsums)]
        along = {e.body.rank for e in einsums if isinstance(e.body, Scan | Select)}
        apart = [rank for rank in ranks if rank not in states and rank not in along and self.apart(rank, i, j)]
        first = tuple(Loop(rank=rank, tile=1) for rank in apart if extents[rank] > 1)
        starts = sorted({max(1, side // share) for side in self.sides})
        free = [rank for rank in ranks if rank not in (*apart, *states) and rank not in along]
        tiles = {rank: sorted(self.choices(starts, extents[rank])) for rank in free}
        free = [rank for rank in free if tiles[rank]]
        moving = [rank for rank in states if extents[rank] > 1]
        for count in range(min(4 - len(moving), len(free)) + 1):
            for chosen in itertools.combinations(free, count):
                for order in itertools.permutations((*moving, *chosen)):
                    for cut in itertools.product(*(tiles[rank] if rank in chosen else [1] for rank in order)):
                        inner = tuple(Loop(rank=rank, tile=tile) for rank, tile in zip(order, cut, strict=True))
                        yield first + inner
                        for place, rank in enumerate(order):
                            if place and rank in chosen:
                                yield (*first, Loop(rank=rank, tile=extents[rank]), *inner)
                                held = 2
                                while held * cut[place] < extents[rank] and cut[place] in starts:
                                    yield (*first, Loop(rank=rank, tile=held * cut[place]), *inner)
                                    held *= 2

    def choices(self, starts: list[int], extent: int) -> set[int]:
        found = set(starts)
        if self.tiles != "sides":
            found |= {start << k for start in starts for k in range(10)}
        if self.tiles == "every":
            found |= {1 << k for k in range(10)} | {side >> k for side in starts for k in range(10) if side >> k}
            found |= {divisor for divisor in range(1, extent) if extent % divisor == 0}
        return {tile for tile in found if tile < extent}

    def apart(self, rank: str, i: int, j: int) -> bool:
        """Whether no input or output of the group, and nothing it makes, has one value for two positions of a rank."""
        inside = set(self.names[i:j])
        for einsum in self.cascade.einsums:
            if einsum.output in inside:
                if rank not in iterated(einsum) or rank in getattr(einsum.body, "ranks", ()):
                    return False
                for access in accesses(einsum.body):
                    if access.tensor not in inside and not any(rank in free_ranks(index) for index in access.indices):
                        return False
        return all(rank in self.cascade.tensor(name).ranks for name in self.outgoing(i, j))

    def outgoing(self, i: int, j: int) -> frozenset[str]:
        inside = set(self.names[i:j])
        read = {a.tensor for e in self.cascade.einsums if e.output not in inside for a in accesses(e.body)}
        return frozenset(name for name in inside if name in read or name in self.cascade.outputs)

    # --- what is held, where Einsums run, where tensors stay ---

    def complete(self, i: int, j: int, loops: tuple[Loop, ...]) -> Iterator[tuple[Value, Group]]:
        """All mappings with these loops."""
        for group in self.worthwhile(i, j, loops) if self.undominated else self.bindings(i, j):
            for held, bypass in self.holdings(loops, group):
                for stay in self.stays(i, j, group):
                    how = {"schedule": self.schedule, "stay": stay, "peel": self.peel, "bypass": bypass}
                    found = self.deepest(i, j, Group(loops=held, einsums=group, **how))  # type: ignore[arg-type]
                    if found is not None:
                        yield found

    def worthwhile(self, i: int, j: int, loops: tuple[Loop, ...]) -> list[dict[str, Binding]]:
        """Layouts and bindings that no other is as good as in the cycles of every array, and better in one."""
        found = []
        for group in self.bindings(i, j):
            nest = self.placed(i, j, Group(loops=loops, einsums=group, schedule="interleaved"), self.roomy)
            if nest is not None:
                cost = group_cost(nest)
                found.append(((*cost.timing.busy.values(), cost.energy_pj), group))
        vectors = {vector for vector, _ in found}
        kept = {v for v in vectors if not any(w != v and all(a <= b for a, b in zip(w, v, strict=True)) for w in vectors)}
        return [group for vector, group in found if vector in kept]

    def bindings(self, i: int, j: int) -> Iterator[dict[str, Binding]]:
        """Every layout of every array, every Einsum on every array."""
        names = self.names[i:j]
        ranks = sorted({r for e in self.cascade.einsums if e.output in names for r in iterated(e) if self.bound.extents[r] > 1})
        layouts = {
            name: list(dict.fromkeys(itertools.permutations([*ranks, *[None] * len(array.side)], len(array.side))))
            for name, array in self.arch.arrays.items()
        }
        own = {name: frozenset().union(*(self.spatial(e) for e in self.cascade.einsums if e.output == name)) for name in names}
        seen = set()
        for arrays in itertools.product(self.arch.arrays, repeat=len(names)):
            used = sorted(set(arrays))
            for chosen in itertools.product(*(layouts[name] for name in used)):
                layout = dict(zip(used, chosen, strict=True))
                group = {
                    name: Binding(array=array, spatial=tuple((r,) if r in own[name] else () for r in layout[array]))
                    for name, array in zip(names, arrays, strict=True)
                }
                key = tuple((b.array, b.spatial) for b in group.values())
                if key not in seen:
                    seen.add(key)
                    yield group

    def spatial(self, einsum: Einsum) -> frozenset[str]:
        """The ranks of an Einsum but for the one along which it runs position by position."""
        body = einsum.body
        along = {body.rank} if isinstance(body, Scan | Select) else set()
        return iterated(einsum) - along - {self.cascade.tensor(einsum.output).iterates}

    def holdings(
        self, loops: tuple[Loop, ...], group: dict[str, Binding]
    ) -> Iterator[tuple[tuple[Loop, ...], dict[str, tuple[str, ...]]]]:
        """Every input held at every loop over its own ranks: by the innermost level; by each level outside not further in, or not
        at all."""
        inputs: dict[str, set[str]] = {}
        for einsum in self.cascade.einsums:
            if einsum.output in group:
                for access in accesses(einsum.body):
                    if access.tensor not in group:
                        inputs.setdefault(access.tensor, set()).update(*(free_ranks(index) for index in access.indices))
        levels = self.arch.on_chip
        options: list[list[tuple[int | None, ...]]] = []
        for ranks in inputs.values():
            own = [d for d, loop in enumerate(loops) if loop.rank in ranks] or [-1]
            ways = itertools.product(*([[*own, None]] * (len(levels) - 1)), own)
            options.append([way for way in ways if [d for d in way if d is not None] == sorted(d for d in way if d is not None)])
        for depths in itertools.product(*options):
            holds: list[dict[str, tuple[str, ...]]] = [{} for _ in loops]
            bypass: dict[str, tuple[str, ...]] = {}
            for name, way in zip(inputs, depths, strict=True):
                for level, depth in zip(levels, way, strict=True):
                    if depth is None:
                        bypass[level] = (*bypass.get(level, ()), name)
                    elif depth >= 0:
                        holds[depth][level] = (*holds[depth].get(level, ()), name)
            plain = len(levels) == 1
            yield (
                tuple(
                    loop.model_copy(update={"hold": (by.get(levels[0], ()) if plain else by)}) if by else loop
                    for loop, by in zip(loops, holds, strict=True)
                ),
                bypass,
            )

    def stays(self, i: int, j: int, group: dict[str, Binding]) -> Iterator[dict[str, str]]:
        leaving = self.outgoing(i, j)
        outer = self.arch.on_chip[:-1]
        options = [["", "forward", *outer] if name in leaving else ["", "forward", *self.arch.arrays, *outer] for name in group]
        for places in itertools.product(*options):
            yield {name: place for name, place in zip(group, places, strict=True) if place}

    def deepest(self, i: int, j: int, group: Group) -> tuple[Value, Group] | None:
        """With as many tiles in flight as fit."""
        nest = self.placed(i, j, group)
        fits, fails = 1, None
        while nest is not None and group.schedule == "interleaved" and fits < max(nest.tiles, 1) and fails != fits + 1:
            flying = fits * 2 if fails is None else (fits + fails) // 2
            more = self.placed(i, j, group.model_copy(update={"in_flight": flying}))
            fits, fails, nest = (fits, flying, nest) if more is None else (flying, fails, more)
        return None if nest is None else (value(group_cost(nest)), nest.group)

    def placed(self, i: int, j: int, group: Group, arch: Architecture | None = None) -> Nest | None:
        self.costed += 1
        try:
            nest = place_group(self.cascade, arch or self.arch, self.bound, group, 1, self.outgoing(i, j))
        except EinsmithError:
            return None
        lasting = [r for r in nest.residents.values() if r.depth < len(group.loops)]
        return None if any(r.place in self.arch.arrays for r in lasting) else nest


def value(found: GroupCost) -> Value:
    words = sum(sum(by.values()) for by in found.traffic_words.values())
    return found.timing.cycles + found.timing.fill, found.energy_pj, words


def added(values: Iterator[Value] | tuple[Value, ...]) -> Value:
    cycles, energy, words = (math.fsum(part) for part in zip(*values, strict=True))
    return cycles, energy, words


def score(objective: str, of: Value) -> float:
    cycles, energy, words = of
    return {"latency": cycles, "energy": energy, "edp": cycles * energy, "traffic": words}[objective]


MEASURES = ("latency", "energy", "traffic")


def ranked(objective: str, of: Value) -> Value:
    """A value as it counts: what is named first, then the rest."""
    names = objective.split(",")
    by = dict(zip(MEASURES, of, strict=True))
    first, second, third = (by[name] for name in [*names, *(name for name in MEASURES if name not in names)])
    return first, second, third


def undominated(points: set[Value]) -> set[Value]:
    return {p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)}


def pareto(points: set[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept
