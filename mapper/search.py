"""The best legal mapping of the stated space (see `space`), with proof.

In: a cascade, an architecture, sizes, an objective. Out: a `Searched`: the best mapping and its cost, how much was looked at and
why the rest was not. Illegal loops are refused by the same code that checks mapping files; every candidate that is not evaluated
in full has a lower bound (array cycles of its best binding, its traffic, operation energy, first and last transfers) no better
than what was found. Fusion is a shortest path over the Einsums in order: groups are evaluated only where their bound matters.

Deterministic: equal objectives go to the other of latency and energy, then to the candidate that stands first in the space.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..einsum.cascade import Cascade, Coord, Einsum, Expr, Scan, Select, accesses, free_ranks
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind
from .architecture import Architecture
from .batch import leaves, roomy
from .bounds import Bound, Bounds
from .cost import Cost, GroupCost, cost, group_cost, joules, level_pj, seconds, step_pj
from .intervals import NotAffine, possible
from .mapping import Binding, Group, Loop, Mapping
from .masks import masks
from .nest import FORWARD, Nest, Placed, Step, check_step, is_initial, most_in_flight, outline, settle, settle_lasting
from .operations import is_constant, work
from .space import ANYTHING, Fixed, Order, Tiles, einsum_order, loop_orders, open_extents, sides, together
from .tape import Floats
from .timing import exposed, longest, nominal

Objective: TypeAlias = Literal["latency", "energy", "edp", "traffic", "pareto"]
PRODUCTS = ("edp", "pareto")
"""Objectives that do not add up over groups: whole Pareto fronts of cycles and energy are kept."""
Vector: TypeAlias = tuple[float, ...]
NONE: Vector = (0.0, 0.0, 0.0)
"""Cycles, energy (pJ) and words of nothing."""
MAX_GRID = 2**20
"""Cells of the grid on which the share of live points is bounded."""
MAX_EVALUATIONS = 20_000
"""Full evaluations after which a search ends without proof."""
FEW_CHOICES = 64
"""Layouts and bindings of a group that are all tried; of more, those that are not dominated."""


@dataclass
class Tally:
    """What a search looked at."""

    evaluated: int = 0
    """Mappings of a group costed in full."""
    illegal: int = 0
    """Loop nests that read a reduction before it is complete, or that the architecture cannot do."""
    too_large: int = 0
    """Loop nests or mappings that do not fit a storage level."""
    bounded: int = 0
    """Loop nests and mappings whose lower bound was no better than what was found."""
    dominated: int = 0
    """Layouts and bindings no better in any array."""
    closest: list[tuple[float, Diagnostic]] = field(default_factory=list)
    """Refusals of what did not fit, with bytes lacking: the smallest is shown if nothing fits."""
    refused: list[Diagnostic] = field(default_factory=list)
    cut_off: bool = False
    tiles: Tiles = "doubled"
    gap: float = 0.0
    """Share of the objective by which what is found may miss the best."""
    watch: Callable[[int, float, float], None] | None = None
    stop: Callable[[], bool] = lambda: False


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
class Searched:
    """The best mapping of the stated space."""

    mapping: Mapping
    cost: Cost
    objective: Objective
    evaluated: int
    pruned: dict[str, int]
    optimal: bool
    """Whether nothing in the stated space is better (by more than the gap asked for)."""
    gap: float
    """Share of the objective by which it may be missed, as far as it is proven."""
    front: tuple[Cost, ...] = ()
    """For the objective `pareto`: every cost that no other is at least as good as in latency and energy."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.cost.as_json(), "mapping": self.mapping.as_plain(), "objective": self.objective, "evaluated": self.evaluated,
            "pruned": self.pruned, "optimal": self.optimal, "gap": self.gap,
            "front": [{**cost.as_json(), "mapping": cost.placed.mapping.as_plain()} for cost in self.front],
        }  # fmt: skip

    def __str__(self) -> str:
        pruned = ", ".join(f"{count:,} {why}" for why, count in self.pruned.items() if count)
        within = f", to within {self.gap:.2%}" if self.gap else ""
        proof = f"optimal within the stated space{within}"
        if not self.optimal:
            proof = "best found; the search was cut off before the proof was complete"
        front = ""
        for each in self.front:
            whole = seconds((each.cycles + each.fill_cycles) / each.arch.clock_hz)
            front += f"  {whole:>12}  {joules(each.energy_pj):>12}  groups: {len(each.placed.mapping.groups)}\n"
        return (
            f"{self.mapping}\n\n{self.cost}\n\nobjective {self.objective}: {proof}\n"
            + (f"latency (fill and drain included) and energy of the Pareto set:\n{front}" if front else "")
            + f"{self.evaluated:,} group mappings evaluated in full; not evaluated: {pruned or 'none'}"
        )


def search(
    cascade: Cascade,
    arch: Architecture,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    objective: Objective = "latency",
    tiles: Tiles = "doubled",
    gap: float = 0.0,
    fixed: Fixed = ANYTHING,
    watch: Callable[[int, float, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Searched:
    """The best mapping. Raises EinsmithError (E540) where nothing in the space is legal and fits, E531 for other architectures.

    `gap`: share of the objective by which the result may miss the best; `fixed`: what is not free; `watch` is told mappings
    evaluated, best value and least bound of the group that is looked at; once `stop` says so, the best so far is returned.
    """
    arch.require_plain()
    fixed.check(flatten(cascade), arch)
    flat = flatten(cascade)
    given = frozenset(sizes or {})
    first = bind(flat, sizes, params)
    tally = Tally(tiles="sides" if objective in PRODUCTS else tiles, gap=gap, watch=watch, stop=stop or (lambda: False))
    best: tuple[Vector, Placed] | None = None
    fronts: list[tuple[Vector, Placed]] = []
    spaces = []
    for position, choice in enumerate(open_extents(flat, given, arch, dict(first.extents))):
        bound = bind(flat, {**(sizes or {}), **choice}, params)
        space = _Partitions(flat, arch, bound, objective, tally, fixed)
        spaces.append((space.floor(), position, choice, space))
    for floor, _, choice, space in sorted(spaces, key=lambda item: item[:2]):
        if best is not None and floor >= best[0]:
            tally.bounded += 1
            continue
        groups = space.best(best[0] if best else None)
        if groups is None:
            continue
        mapping = Mapping(name=f"{cascade.name}-on-{arch.name}", sizes=choice, groups=tuple(found.nest.group for found in groups))
        for number, found in enumerate(groups, 1):
            found.nest.number = number
        value = _key(objective, _added(*(found.value for found in groups)))
        if best is None or value < best[0]:
            best = value, Placed(flat, space.sizes, arch, mapping, tuple(found.nest for found in groups))
        if objective == "pareto":
            fronts += [(total[:2], _placed(flat, space.sizes, arch, mapping, members)) for total, members in space.front]
    if best is None:
        raise _nothing(cascade, arch, tally, lambda roomier: search(cascade, roomier, sizes, params, objective, tiles, gap, fixed))
    placed = best[1]
    pruned = {
        "illegal": tally.illegal, "too large": tally.too_large, "no better by their bound": tally.bounded,
        "dominated": tally.dominated,
    }  # fmt: skip
    front = tuple(cost(item) for _, item in _front(fronts))
    return Searched(placed.mapping, cost(placed), objective, tally.evaluated, pruned, not tally.cut_off, gap, front)


def _placed(cascade: Cascade, sizes: Sizes, arch: Architecture, like: Mapping, groups: list[Found]) -> Placed:
    mapping = like.model_copy(update={"groups": tuple(found.nest.group for found in groups)})
    nests = tuple(replace(found.nest, number=number) for number, found in enumerate(groups, 1))
    return Placed(cascade, sizes, arch, mapping, nests)


def _key(objective: Objective, value: Any) -> Any:
    cycles, energy, words = value
    match objective:
        case "latency":
            return cycles, energy
        case "energy":
            return energy, cycles
        case "traffic":
            return words, cycles
        case _:
            return cycles * energy, cycles


def _added(*values: Vector) -> Vector:
    return tuple(sum(part) for part in zip(*values, strict=True)) if values else NONE


def _nothing(
    cascade: Cascade, arch: Architecture, tally: Tally, again: Callable[[Architecture], Searched] | None = None
) -> EinsmithError:
    """Why nothing fits: the refusal that lacks least, in numbers, and how much more would do."""
    if tally.closest:
        _, diagnostic = min(tally.closest, key=lambda item: item[0])
        code = diagnostic.code
        return EinsmithError(
            Diagnostic(
                "E540", f"no mapping of `{cascade.name}` fits `{arch.name}`; the one that lacks least: {diagnostic.message}",
                diagnostic.span,
                help=_roomier(arch, tally, diagnostic, again) or diagnostic.help or f"see `einsmith explain {code}`",
            )
        )  # fmt: skip
    if tally.refused:
        reason = tally.refused[0]
        return EinsmithError(
            Diagnostic(
                "E540",
                f"no mapping of `{cascade.name}` on `{arch.name}` is legal: {reason.message}",
                reason.span,
                reason.label,
                help=reason.help,
            )
        )
    return EinsmithError(Diagnostic("E540", f"no mapping of `{cascade.name}` on `{arch.name}` is legal"))


def _roomier(
    arch: Architecture, tally: Tally, diagnostic: Diagnostic, again: Callable[[Architecture], Searched] | None
) -> str | None:
    """The smallest buffer that is found to be enough: what the mapping that lacks least needs, as long as it lacks something."""
    name, level = arch.buffer
    for _ in range(8):
        need = _numbers(diagnostic)[0] if diagnostic.code == "E520" else None
        if need is None or again is None:
            return None
        roomier = arch.model_copy(update={"memory": {**arch.memory, name: level.model_copy(update={"size": need})}})
        try:
            again(roomier)
        except EinsmithError as error:
            inner = [item for item in error.diagnostics if item.code == "E540"]
            found = [number for item in inner for number in _numbers(item) if number > need]
            if not found:
                return None
            diagnostic = Diagnostic("E520", f"needs {min(found)} bytes which has 0")
            continue
        return f"with `--set {name}.size={need}` a mapping fits; there are {level.size:,}"
    return None


# --- fusion -----------------------------------------------------------------------------------------------------------


class _Partitions:
    """The best partition of the Einsums into consecutive groups, for given extents."""

    def __init__(
        self, cascade: Cascade, arch: Architecture, sizes: Sizes, objective: Objective, tally: Tally, fixed: Fixed
    ) -> None:
        self.fixed = fixed
        self.front: list[tuple[Vector, list[Found]]] = []
        self.cascade, self.arch, self.sizes, self.objective, self.tally = cascade, arch, sizes, objective, tally
        self.names = einsum_order(cascade)
        self.shares = self._live_shares()
        self.ideal = self._ideal()
        self.exact: dict[tuple[int, int], list[Found]] = {}
        self.bounds = {
            (i, j): self._bound(i, j)
            for i in range(len(self.names))
            for j in range(i + 1, len(self.names) + 1)
            if together(cascade, frozenset(self.names[i:j])) and fixed.allows(frozenset(self.names[i:j]))
        }

    def floor(self) -> Vector:
        """What no partition can be better than."""
        path = self._path()
        if path is None:
            return (math.inf, math.inf)
        if self.objective in PRODUCTS:
            return (0.0, 0.0)
        return self._path_value(path)

    def best(self, limit: Vector | None) -> list[Found] | None:
        """Evaluate the groups on the most promising path until all of its groups are exact; None if none is below the limit."""
        if self.objective in PRODUCTS:
            return self._best_product()
        while True:
            path = self._path()
            if path is None:
                return None
            if limit is not None and self._path_value(path) >= limit:
                self.tally.bounded += 1
                return None
            open_groups = [edge for edge in path if edge not in self.exact]
            if not open_groups:
                return [self.exact[edge][0] for edge in path]
            edge = open_groups[0]
            self.exact[edge] = self._evaluate(*edge)
            if not self.exact[edge]:
                del self.bounds[edge]

    def _weight(self, edge: tuple[int, int]) -> Vector:
        found: Vector = _key(self.objective, self.exact[edge][0].value if edge in self.exact else self.bounds[edge])
        return found

    def _path_value(self, path: list[tuple[int, int]]) -> Vector:
        return _added(*(self._weight(edge) for edge in path))

    def _path(self) -> list[tuple[int, int]] | None:
        """The least path by exact values where known and bounds elsewhere; the one with fewest groups among equals."""
        count = len(self.names)
        best: dict[int, tuple[Vector, int, list[tuple[int, int]]]] = {0: ((0.0, 0.0), 0, [])}
        for i in range(count):
            if i not in best:
                continue
            value, groups, path = best[i]
            for j in range(i + 1, count + 1):
                if (i, j) in self.bounds:
                    option = (_added(value, self._weight((i, j))), groups + 1, [*path, (i, j)])
                    if j not in best or option[:2] < best[j][:2]:
                        best[j] = option
        return best[count][2] if count in best else None

    def _best_product(self) -> list[Found] | None:
        """Energy times delay is not a sum over groups: all groups, then the Pareto front of whole partitions."""
        count = len(self.names)
        fronts: dict[int, list[tuple[Vector, list[Found]]]] = {0: [(NONE, [])]}
        for edge in list(self.bounds):
            self.exact[edge] = self._evaluate(*edge)
        for j in range(1, count + 1):
            options = [
                (_added(value, found.value), [*groups, found])
                for i in range(j)
                for value, groups in fronts.get(i, [])
                for found in self.exact.get((i, j), [])
            ]
            fronts[j] = _front(options)
        if not fronts.get(count):
            return None
        self.front = fronts[count]
        return min(fronts[count], key=lambda option: _key("edp", option[0]))[1]

    def _leaving(self, names: frozenset[str]) -> frozenset[str]:
        read = {a.tensor for e in self.cascade.einsums if e.output not in names for a in accesses(e.body)}
        return frozenset(name for name in names if name in read or name in self.cascade.outputs)

    def _bound(self, i: int, j: int) -> Vector:
        """Least cycles and energy of a group, whatever its mapping: its operations on full arrays, what it must read and write."""
        names = frozenset(self.names[i:j])
        words = 0.0
        for name in self._leaving(names):
            tensor = self.cascade.tensor(name)
            words += math.prod(self.sizes.extents[rank] for rank in tensor.ranks if rank != tensor.iterates)
        level = self.arch.backing[1]
        fetched = self._fetched(names)
        moved = (words + fetched) * self.arch.word_bytes
        cycles = moved * self.arch.clock_hz / level.bandwidth if level.bandwidth else 0.0
        front: list[tuple[Vector, None]] = [((0.0,) * len(self.arch.arrays), None)]
        energy = level_pj(self.arch, level, fetched, words)
        for name in names:
            options = self.ideal[name]
            if not options:
                continue
            energy += min(option[1] for option in options.values())
            grown: list[tuple[Vector, Any]] = []
            for value, _ in front:
                for place, array in enumerate(self.arch.arrays):
                    if array in options:
                        grown.append((tuple(v + (options[array][0] if p == place else 0.0) for p, v in enumerate(value)), None))
            front = _front(grown)
        return max(cycles, min(max(value) for value, _ in front)), energy, fetched + words

    def _fetched(self, names: frozenset[str]) -> float:
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
                if any(array.expand(item.operation) is None for item in items):
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
                        cycles += points * count * array.units[unit].cycles / array.lanes
                        energy += points * count * array.units[unit].energy_pj
                before = result[einsum.output].get(name, (0.0, 0.0))
                result[einsum.output][name] = (before[0] + cycles, before[1] + energy)
        return result

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

    def _evaluate(self, i: int, j: int) -> list[Found]:
        names = frozenset(self.names[i:j])
        return _Groups(
            self.cascade, self.arch, self.sizes, names, self._leaving(names), self.objective, self.tally, self.shares, self.fixed
        ).best()


def _front(options: Sequence[tuple[Vector, Any]]) -> list[tuple[Vector, Any]]:
    """The options that no other is at least as good as in every respect; the first of equals."""
    kept: list[tuple[Vector, Any]] = []
    flat = all(len(value) == 2 for value, _ in options)
    for value, item in sorted(options, key=lambda option: option[0]):
        if flat:
            if not kept or value[1] < kept[-1][0][1]:
                kept.append((value, item))
        elif not any(all(a <= b for a, b in zip(other, value, strict=True)) for other, _ in kept):
            kept.append((value, item))
    return kept


# --- one group --------------------------------------------------------------------------------------------------------


_Layout: TypeAlias = tuple[tuple[tuple[float, float] | None, ...], tuple[str | None, ...]]
"""(cycles, energy) of each step, None where the array cannot do it; ranks along each side."""


@dataclass(frozen=True)
class _Choice:
    """A binding of all steps under one layout of each array, by its cycles per array."""

    cycles: Vector
    energy: float
    """Least energy, pJ; 0 where the objective does not ask for it."""
    binding: tuple[str, ...]
    """Array of each step."""
    layouts: dict[str, tuple[str | None, ...]]


class _Tilings:
    """Tilings of all orders of loops that may fit, with lower bounds."""

    def __init__(
        self,
        parts: list[tuple[Order, dict[int, Floats], Bound, NDArray[np.int64]]],
        closest: tuple[float, tuple[Loop, ...]] | None,
    ) -> None:
        self.parts, self.closest = parts, closest
        self.starts = np.cumsum([0, *(len(fit) for _, _, _, fit in parts)])
        self.cycles = np.concatenate([np.empty(0), *(bound.cycles[fit] for _, _, bound, fit in parts)])
        self.energy = np.concatenate([np.empty(0), *(bound.energy[fit] for _, _, bound, fit in parts)])
        self.words = np.concatenate([np.empty(0), *(bound.words[fit] for _, _, bound, fit in parts)])

    def at(self, position: int) -> tuple[tuple[Loop, ...], tuple[int, ...], float]:
        """The loops, the depths at which inputs are held, the words fetched."""
        number = int(np.searchsorted(self.starts, position, side="right")) - 1
        order, tiles, bound, fit = self.parts[number]
        at = int(fit[position - self.starts[number]])
        return order.at(tiles, at), bound.combinations[bound.holds[at]], float(bound.words[at])

    def floor(self, position: int) -> Vector:
        return float(self.cycles[position]), float(self.energy[position]), float(self.words[position])


@dataclass
class _Candidate:
    """Loops that are legal, with the bindings worth trying and the least traffic that fits."""

    nest: Nest
    choices: list[_Choice]
    transfer_cycles: float
    energy: float
    """Of the transfers; for the latency objective, of the operations too."""
    words: float
    """Across the boundary of the backing store."""


class _Groups:
    """The best mappings of one group."""

    def __init__(
        self,
        cascade: Cascade,
        arch: Architecture,
        sizes: Sizes,
        names: frozenset[str],
        leaving: frozenset[str],
        objective: Objective,
        tally: Tally,
        shares: Map_[int, float],
        fixed: Fixed,
    ) -> None:
        self.fixed = fixed
        self.cascade, self.arch, self.sizes, self.names, self.leaving = cascade, arch, sizes, names, leaving
        self.objective, self.tally = objective, tally
        self.known_choices: dict[frozenset[tuple[str, int]], list[_Choice]] = {}
        self.known_steps: dict[tuple[int, Binding], Step] = {}
        self.plain = self._some_binding()
        self.roomy, self.leaves, self.shares, self.gap = roomy(arch), leaves(arch), shares, tally.gap

    def best(self) -> list[Found]:
        """The best mapping, or (for products) the Pareto front; empty if nothing is legal and fits.

        Tiles become smaller only if nothing fits, for want of room and not of legality.
        """
        share = 1
        while True:
            before = self.tally.too_large
            found = self._best_of(share)
            if found or self.tally.too_large == before or share >= max(sides(self.arch)):
                return found
            share *= 2

    def _best_of(self, share: int) -> list[Found]:
        found: list[Found] = []
        tilings = self._tilings(share)
        keys: Any = _key(self.objective, (tilings.cycles, tilings.energy, tilings.words))
        order = np.lexsort(keys[::-1])
        for rank, position in enumerate(order.tolist()):
            if self.objective not in PRODUCTS and self._no_better(tilings.floor(position), found):
                self.tally.bounded += len(order) - rank
                break
            if self._spent(found):
                self.tally.cut_off = True
                break
            if self.tally.watch is not None:
                value = _key(self.objective, found[0].value)[0] if found else math.inf
                self.tally.watch(self.tally.evaluated, value, float(keys[0][position]))
            loops, depths, words = tilings.at(position)
            if found and self._ruled_out(loops, tilings.floor(position), found):
                self.tally.bounded += 1
                continue
            candidate = self._candidate(loops, depths, words)
            if candidate is not None:
                self._try(candidate, found)
        if not found and tilings.closest is not None:
            self._refuse_closest(tilings.closest)
        return found

    def _try(self, candidate: _Candidate, found: list[Found]) -> None:
        """Complete the mappings of some loops, best bound first."""
        for position, choice in enumerate(candidate.choices):
            floor = max(*choice.cycles, candidate.transfer_cycles), candidate.energy + choice.energy, candidate.words
            if self._no_better(floor, found):
                if self.objective in PRODUCTS:
                    self.tally.dominated += 1
                    continue
                self.tally.dominated += len(candidate.choices) - position
                break  # they are sorted by it
            if self._spent(found):
                self.tally.cut_off = True
                break
            for new in self._complete(candidate, choice, found):
                self._add(found, new)

    def _no_better(self, floor: Vector, found: list[Found]) -> bool:
        """Whether a lower bound rules out anything better than what was found, by more than the gap that is asked for."""
        if self.objective in PRODUCTS:
            return any(known.value[0] <= floor[0] and known.value[1] <= floor[1] for known in found)
        if not found:
            return False
        least, value = _key(self.objective, floor), _key(self.objective, found[0].value)
        return bool(least[0] >= value[0] * (1 - self.gap) if self.gap else least >= value)

    def _ruled_out(self, loops: tuple[Loop, ...], floor: Vector, found: list[Found]) -> bool:
        """Whether the bindings that are known for these tiles leave nothing better."""
        choices = self.known_choices.get(frozenset((loop.rank, loop.tile) for loop in loops))
        if not choices:
            return self._no_better(floor, found)
        cycles, energy, words = floor
        return self._no_better((max(cycles, min(max(choice.cycles) for choice in choices)), energy, words), found)

    def _spent(self, found: list[Found]) -> bool:
        return bool(found) and (self.tally.evaluated >= MAX_EVALUATIONS or self.tally.stop())

    def _tilings(self, share: int) -> _Tilings:
        """Every order of loops with every tiling that may fit, by lower bounds."""
        parts: list[tuple[Order, dict[int, Floats], Bound, NDArray[np.int64]]] = []
        closest: tuple[float, tuple[Loop, ...]] | None = None
        shared: dict[Any, dict[str, Floats]] = {}
        orders = loop_orders(self.cascade, self.arch, self.sizes, self.names, self.leaving, self.tally.tiles, share, self.fixed)
        for order in orders:
            one = frozenset(axis for axis, loop in enumerate(order.loops) if all(axis not in axes for axes, _ in order.choices))
            try:
                nest = self._outline(order.loops, self.plain, arch=self.roomy)
                settle(nest)
                key = (len(order), *sorted((loop.rank, loop.tile) for loop in order.loops))
                ones = frozenset(axis for axis in one if order.loops[axis].tile == 1)
                bounds = Bounds(nest, self.shares, self.leaves, ones, shared.setdefault(key, {}))
            except EinsmithError as error:
                self._refused(error, len(order))
                continue
            tiles = order.tiles()
            bound = bounds(tiles)
            fit = np.flatnonzero(bound.holds >= 0)
            self.tally.too_large += len(bound.holds) - len(fit)
            if len(fit):
                parts.append((order, tiles, bound, fit))
            least = int(np.argmin(bound.need))
            if closest is None or bound.need[least] < closest[0]:
                closest = float(bound.need[least]), order.at(tiles, least)
        return _Tilings(parts, closest)

    def _refuse_closest(self, closest: tuple[float, tuple[Loop, ...]]) -> None:
        """Note what the loops that need least of the buffer lack."""
        try:
            self._hold(self._outline(closest[1], self.plain))
        except EinsmithError as error:
            self.tally.closest.append((closest[0], error.diagnostics[0]))

    def _add(self, found: list[Found], new: Found) -> None:
        if self.objective in PRODUCTS:
            found[:] = [item for _, item in _front([(item.value, item) for item in [*found, new]])]
        elif not found or _key(self.objective, new.value) < _key(self.objective, found[0].value):
            found[:] = [new]

    def _outline(self, loops: tuple[Loop, ...], bindings: dict[str, Binding], arch: Architecture | None = None) -> Nest:
        group = Group(loops=loops, einsums=bindings, schedule="interleaved")
        steps = tuple(
            self._step(position, einsum, bindings[einsum.output])
            for position, einsum in enumerate(self.cascade.einsums)
            if einsum.output in self.names
        )
        return outline(self.cascade, arch or self.arch, self.sizes, group, 1, self.leaving, steps, explain=False)

    def _step(self, position: int, einsum: Einsum, binding: Binding) -> Step:
        key = position, binding
        if key not in self.known_steps:
            self.known_steps[key] = check_step(self.cascade, self.arch, self.sizes, binding, position, einsum)
        return self.known_steps[key]

    def _candidate(self, loops: tuple[Loop, ...], depths: tuple[int, ...], words: float) -> _Candidate | None:
        """Loops with what is held, their traffic and array cycles; None if they do not fit after all."""
        try:
            nest = self._outline(loops, self.plain)
            if nest.masks:  # what is fetched depends on which tiles are live
                words, nest = self._hold(nest)
            else:
                nest = self._outline(_holding(nest, depths), self.plain)
                settle_lasting(nest)
        except EinsmithError as error:
            self._refused(error)
            return None
        choices = self._choices(nest)
        level = self.arch.backing[1]
        written = sum(nest.tensor_words(tensor) for tensor in self.leaving)
        moved = (words + written) * self.arch.word_bytes
        transfer = moved * self.arch.clock_hz / level.bandwidth if level.bandwidth else 0.0
        energy = level_pj(self.arch, level, words, written)
        if self.objective in ("latency", "traffic"):
            energy += sum(self._least_energy(nest, step) for step in nest.steps)
        return _Candidate(nest, choices, transfer, energy, words + written)

    def _refused(self, error: EinsmithError, count: int = 1) -> None:
        diagnostic = error.diagnostics[0]
        if diagnostic.code in ("E520", "E521"):
            self.tally.too_large += count
            self.tally.closest.append((_lacking(diagnostic), diagnostic))
        else:
            self.tally.illegal += count
            self.tally.refused.append(diagnostic)

    def _some_binding(self) -> dict[str, Binding]:
        """Each Einsum on the first array that can do it (for what does not depend on the array)."""
        result: dict[str, Binding] = {}
        for einsum in self.cascade.einsums:
            if einsum.output not in self.names or einsum.output in result:
                continue
            problem: EinsmithError | None = None
            for name in [self.fixed.arrays[einsum.output]] if einsum.output in self.fixed.arrays else self.arch.arrays:
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
        for position, einsum in enumerate(self.cascade.einsums):
            if einsum.output == name:
                check_step(self.cascade, self.arch, self.sizes, Binding(array=array), position, einsum)

    # --- what is held ---

    def _hold(self, nest: Nest) -> tuple[float, Nest]:
        """The nest with each input held where that makes least traffic and still fits."""
        options = []
        for stream in nest.streams:
            ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
            depths = [depth for depth, loop in enumerate(nest.group.loops, 1) if loop.rank in ranks] or [0]
            found = []
            for depth in depths:
                at = replace(stream, depth=depth)
                found.append(((nest.stream_words(at), float(nest.stream_tile(at))), at))
            options.append(_front(found))
        combinations = sorted(
            itertools.product(*options),
            key=lambda items: (sum(value[0] for value, _ in items), sum(value[1] for value, _ in items)),
        )
        problem: EinsmithError | None = None
        for items in combinations:
            try:
                held = self._outline(_holding(nest, [stream.depth for _, stream in items]), self.plain)
                settle_lasting(held)
            except EinsmithError as error:
                problem = error
                continue
            return sum(value[0] for value, _ in items), held
        assert problem is not None
        raise problem

    # --- layouts and bindings ---

    def _choices(self, nest: Nest) -> list[_Choice]:
        """Layouts and bindings that are not dominated in cycles per array, best first.

        They depend on the tiles, not on the order of the loops nor on how many tiles are held.
        """
        key = frozenset((loop.rank, loop.tile) for loop in nest.group.loops)
        if key not in self.known_choices:
            self.known_choices[key] = self._find_choices(nest)
        return self.known_choices[key]

    def _find_choices(self, nest: Nest) -> list[_Choice]:
        vectors = {name: self._layouts(nest, name) for name in self.arch.arrays}
        bindings = math.prod(sum(self._able(nest, name)[number] for name in vectors) for number in range(len(nest.steps)))
        few = bindings * math.prod(len(found) for found in vectors.values()) <= FEW_CHOICES
        vectors = vectors if few else {name: self._fastest(found) for name, found in vectors.items()}
        options: list[tuple[Vector, tuple[tuple[str, ...], dict[str, tuple[str | None, ...]]]]] = []
        for combination in itertools.product(*vectors.values()):
            layouts = {name: layout for name, (_, layout) in zip(vectors, combination, strict=True)}
            front: list[tuple[Vector, tuple[str, ...]]] = [(self._vector([0.0] * len(layouts), 0.0), ())]
            for number in range(len(nest.steps)):
                grown = []
                for value, binding in front:
                    for place, name in enumerate(layouts):
                        mine = combination[place][0][number]
                        if mine is not None:
                            more = list(value)
                            more[place] += mine[0]
                            more[len(layouts) :] = [energy + mine[1] for energy in more[len(layouts) :]]
                            grown.append((tuple(more), (*binding, name)))
                front = grown if few else _front(grown)
                self.tally.dominated += len(grown) - len(front)
            options += [(value, (binding, layouts)) for value, binding in front]
        arrays = len(self.arch.arrays)
        choices = [_Choice(value[:arrays], sum(value[arrays:]), *rest) for value, rest in (options if few else _front(options))]
        return sorted(
            choices, key=lambda choice: (*_key(self.objective, (max(choice.cycles), choice.energy, 0.0)), sum(choice.cycles))
        )

    def _vector(self, cycles: list[float], energy: float) -> Vector:
        """What makes one binding worse than another: cycles of each array, and energy where the objective asks for it."""
        return tuple(cycles) if self.objective in ("latency", "traffic") else (*cycles, energy)

    def _fastest(self, layouts: list[_Layout]) -> list[_Layout]:
        """The layouts that are not dominated."""
        flat = [tuple(number for one in each for number in (one or (0.0, 0.0))) for each, _ in layouts]
        kept = _front(list(zip(flat, layouts, strict=True)))
        self.tally.dominated += len(layouts) - len(kept)
        return [layout for _, layout in kept]

    def _layouts(self, nest: Nest, array_name: str) -> list[_Layout]:
        """What each step costs under each layout of an array; of equals the one whose sums come out first stands first."""
        array = self.arch.arrays[array_name]
        able = self._able(nest, array_name)
        ranks = sorted(
            {rank for step in nest.steps for rank in _spatial(self.cascade, step) if nest.size(rank) > 1},
            key=self.cascade.rank_order.__getitem__,
        )
        alike = len(set(array.side)) == 1  # which side is which does not matter
        empty = len(array.side)
        sides_of_all: dict[tuple[str | None, ...], tuple[str | None, ...]] = {}
        for layout in itertools.permutations([*ranks, *[None] * empty], len(array.side)):
            sides_of_all.setdefault(tuple(sorted(layout, key=str)) if alike else layout, layout)
        found: list[tuple[int, _Layout]] = []
        for layout in sides_of_all.values():
            each: list[tuple[float, float] | None] = []
            ripple = 0
            for step, ok in zip(nest.steps, able, strict=True):
                bound = replace(step, binding=_bind(self.cascade, array_name, layout, step), array=array)
                energy = 0.0 if self.objective in ("latency", "traffic") or not ok else step_pj(nest, bound)
                each.append((nest.busy(bound), energy) if ok else None)
                ripple += nest.ripple(bound) if ok else 0
            found.append((ripple, (tuple(each), layout)))
        return [layout for _, layout in sorted(found, key=lambda item: item[0])]

    def _able(self, nest: Nest, array_name: str) -> list[bool]:
        array = self.arch.arrays[array_name]
        able = {step.output: True for step in nest.steps}
        for step in nest.steps:
            if any(array.expand(item.operation) is None for item in step.work):
                able[step.output] = False
            if self.fixed.arrays.get(step.output, array_name) != array_name:
                able[step.output] = False
        return [able[step.output] for step in nest.steps]

    def _least_energy(self, nest: Nest, step: Step) -> float:
        least = None
        for array in self.arch.arrays.values():
            total = 0.0
            for item in step.work:
                expanded = array.expand(item.operation)
                if expanded is None:
                    break
                total += nest.points(step, item) * sum(array.units[unit].energy_pj * count for unit, count in expanded.items())
            else:
                least = total if least is None else min(least, total)
        return least or 0.0

    # --- complete mappings ---

    def _complete(self, candidate: _Candidate, choice: _Choice, found: list[Found]) -> Iterator[Found]:
        """The mapping with bindings, places and tiles in flight; nothing if it does not fit or cannot be better.

        Where registers leave room for too few tiles in flight, also with tensors sent to the buffer.
        """
        bindings = {
            step.output: _bind(self.cascade, array, choice.layouts[array], step)
            for step, array in zip(candidate.nest.steps, choice.binding, strict=True)
            if not step.initial
        }
        nest = self._outline(candidate.nest.group.loops, bindings)
        compute = max(choice.cycles)
        steady = max(compute, candidate.transfer_cycles)
        level = self.arch.backing[1]
        per_word = self.arch.word_bytes * self.arch.clock_hz / level.bandwidth if level.bandwidth else 0.0
        cycles = steady + exposed(nest, compute, candidate.transfer_cycles, steady, per_word)
        floor = cycles, candidate.energy + choice.energy, candidate.words
        if self._no_better(floor, found):
            self.tally.bounded += 1
            return
        stay: dict[str, str] | None = self._stay(nest)
        problem: EinsmithError | None = None
        fits = False
        while stay is not None:
            nest.group = nest.group.model_copy(update={"stay": stay, "in_flight": 1})
            try:
                settle(nest)
            except EinsmithError as error:
                problem = error
                stay = self._move_out(nest, stay) if error.diagnostics[0].code == "E521" else None
                continue
            wanted = self._wanted(nest, candidate, choice)
            flying = min(wanted, most_in_flight(nest))
            nest.group = nest.group.model_copy(update={"in_flight": max(1, flying)})
            self.tally.evaluated += 1
            new, fits = Found(replace(nest), group_cost(nest)), True
            yield new
            stay = self._move_out(nest, stay) if flying < wanted and new.cost.timing.cycles > steady else None
        if not fits:
            assert problem is not None
            self._refused(problem)

    def _wanted(self, nest: Nest, candidate: _Candidate, choice: _Choice) -> int:
        """Tiles in flight that hide the latency of a tile twice over behind the busiest resource: tiles also queue."""
        tiles = max([1.0, *(nest.executions(step) for step in nest.steps)])
        interval = max(*choice.cycles, candidate.transfer_cycles) / tiles
        latency = max(longest(nest, nominal(nest)).values(), default=0.0)
        return min(4096, math.ceil(2 * latency / interval), int(tiles)) if interval else 1

    def _move_out(self, nest: Nest, stay: dict[str, str]) -> dict[str, str] | None:
        """Send the largest tensor that is in registers to the buffer; None if there is none."""
        at_arrays = [name for name, place in stay.items() if place in self.arch.arrays]
        if not at_arrays:
            return None
        sizes = {resident: nest.tensor_words(resident) for resident in at_arrays}
        largest = max(at_arrays, key=lambda name: (sizes[name], name))
        return {name: place for name, place in stay.items() if name != largest}

    def _stay(self, nest: Nest) -> dict[str, str]:
        """Handed on where legal, else in the registers of those who read it, else (by default) in the buffer."""
        stay: dict[str, str] = {}
        within = len(nest.group.loops)
        for step in nest.steps:
            name = step.output
            readers = [reader for reader in nest.steps if any(access.tensor == name for access in reader.reads)]
            lives = [nest.crosses(step, reader, name) for reader in readers] + [nest.crosses(step, step, name)]
            if step.initial or min(lives) < within:
                continue
            shape = frozenset(self.cascade.tensor(name).ranks)
            if all(reader.ranks == shape and nest.between(step, reader) is None for reader in readers):
                stay[name] = FORWARD
            elif name not in self.leaving:
                arrays = list(dict.fromkeys(reader.binding.array for reader in readers))
                stay[name] = arrays[0] if len(arrays) == 1 else step.binding.array
        return stay


def _holding(nest: Nest, depths: Sequence[int]) -> tuple[Loop, ...]:
    """The loops with each input held at its depth."""
    loops = list(nest.group.loops)
    for stream, depth in zip(nest.streams, depths, strict=True):
        if depth:
            loop = loops[depth - 1]
            loops[depth - 1] = loop.model_copy(update={"hold": tuple(dict.fromkeys((*loop.hold, stream.tensor)))})
    return tuple(loops)


def _bind(cascade: Cascade, array: str, layout: tuple[str | None, ...], step: Step) -> Binding:
    """A layout of an array for one step: sides whose rank it does not spread have one lane at work."""
    able = _spatial(cascade, step)
    sides: list[tuple[str, ...]] = [(rank,) if rank is not None and rank in able else () for rank in layout]
    while sides and not sides[-1]:
        sides.pop()
    return Binding(array=array, spatial=tuple(sides))


def _spatial(cascade: Cascade, step: Step) -> frozenset[str]:
    """The ranks of a step but for the one along which it runs position by position."""
    body = step.einsum.body
    return step.ranks - {cascade.tensor(step.output).iterates} - ({body.rank} if isinstance(body, Scan | Select) else set())


def _lacking(diagnostic: Diagnostic) -> float:
    """How much a refused mapping lacks, in units of what there is."""
    numbers = _numbers(diagnostic)
    return numbers[0] / max(numbers[1], 1) if len(numbers) > 1 else 1.0


def _numbers(diagnostic: Diagnostic) -> list[int]:
    """(need, have, ...) of a refusal."""
    _, _, said = diagnostic.message.partition(" needs ")
    return [int(word.replace(",", "")) for word in said.replace(":", " ").split() if word.replace(",", "").isdigit()]
