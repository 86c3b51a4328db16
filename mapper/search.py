"""The best legal mapping of the stated space (see `space`), with proof.

In: a cascade, an architecture, sizes, an objective. Out: a `Searched`: the best mapping and its cost, how much was looked at and
why the rest was not. Illegal loops are refused by the same code that checks mapping files; every candidate that is not evaluated
in full has a lower bound no better than what was found (see `group`). Fusion is a shortest path over the Einsums in order
(see `partitions`).

Deterministic: equal objectives go to the other of latency and energy, then to the candidate that stands first in the space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field, replace
from typing import Any

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.display import Displayed
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind
from .architecture import Architecture
from .cost import Cost, amount, cost, joules, seconds
from .fixed import ANYTHING, Fixed, single, words
from .layouts import Vector, front
from .mapping import Mapping
from .nest import Placed, check_outputs
from .objective import MEASURES, NOTHING, PRODUCTS, Measure, Objective, named, order, rank_of
from .partitions import Partitions, added
from .problem import Found
from .space import Tiles, open_extents
from .tally import Tally
from .team import require_searchable

__all__ = ["Objective", "Searched", "search"]


@dataclass(frozen=True)
class Stage:
    """One measure made least, while those before it keep to theirs."""

    measure: Measure
    value: float
    """Cycles with fill and drain, pJ, or words."""
    gap: float
    """Share by which its least may be missed, as far as it is proven."""


@dataclass(frozen=True)
class Searched(Displayed):
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
    stages: tuple[Stage, ...] = ()
    """The measures that were made least, one after another."""
    slack: float = 0.0
    """Share by which a measure may miss its least for the sake of the next."""
    fixed: tuple[str, ...] = ()
    """What was not searched."""
    limits: Map_[Measure, float] = field(default_factory=dict)
    """What a mapping might take of a measure: seconds, pJ, bytes."""

    @property
    def value(self) -> Vector:
        """Cycles with fill and drain, pJ, words."""
        cost = self.cost
        return cost.cycles + cost.fill_cycles, cost.energy_pj, cost.traffic_bytes / cost.arch.word_bytes

    def as_json(self) -> dict[str, Any]:
        return {
            **self.cost.as_json(), "mapping": self.mapping.as_plain(), "objective": self.objective, "evaluated": self.evaluated,
            "pruned": self.pruned, "optimal": self.optimal, "gap": self.gap,
            "stages": [
                {"measure": stage.measure, "least": _in_units(stage.measure, stage.value, self.cost.arch), "gap": stage.gap}
                for stage in self.stages
            ],
            "slack": self.slack, "fixed": list(self.fixed), "limits": dict(self.limits),
            "front": [{**cost.as_json(), "mapping": cost.placed.mapping.as_plain()} for cost in self.front],
        }  # fmt: skip

    def __str__(self) -> str:
        pruned = ", ".join(f"{count:,} {why}" for why, count in self.pruned.items() if count)
        within = f", to within {self.gap:.2%}" if self.gap else ""
        proof = f"optimal within the stated space{within}"
        if not self.optimal:
            proof = f"best found; the search was cut off, and nothing is better by more than {self.gap:.2%}"
        objective = self.objective
        if len(named(objective)) > 1:
            objective = ", then ".join(named(objective)) + (f", each to within {self.slack:.2%} of its least" if self.slack else "")
        if self.slack:
            leasts = [f"{_shown(stage.measure, stage.value, self.cost.arch)} of {stage.measure}" for stage in self.stages]
            objective += f" ({'; '.join(leasts)})"
        front = ""
        for each in self.front:
            whole = seconds((each.cycles + each.fill_cycles) / each.arch.clock_hz)
            front += f"  {whole:>12}  {joules(each.energy_pj):>12}  groups: {len(each.placed.mapping.groups)}\n"
        given = f"fixed: {'; '.join(self.fixed)}; all else was searched\n" if self.fixed else ""
        if self.limits:
            listed = [
                f"{measure} {_shown(measure, _limit(measure, self.limits, self.cost.arch), self.cost.arch)}"
                for measure in self.limits
            ]
            given += f"at most: {', '.join(listed)}\n"
        return (
            f"{self.mapping}\n\n{self.cost}\n\n{given}objective {objective}: {proof}\n"
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
    slack: float = 0.0,
    at_most: Map_[Measure, float] | None = None,
) -> Searched:
    """The best mapping. Raises EinsmithError (E540) where nothing in the space is legal and fits, E531 for other architectures,
    E530 for cascades that no mapping can hold.

    `gap`: share of the objective by which the result may miss the best; `fixed`: what is not free; `watch` is told mappings
    evaluated, best value and least bound of the group that is looked at; once `stop` says so, the best so far is returned. `slack`:
    share by which each measure of the objective may miss its least for the sake of the next; `at_most`: what a mapping may take of
    a measure (seconds with fill and drain, pJ, bytes), E544 where none takes so little.
    """
    names = named(objective)
    if not names and (slack or at_most):
        raise _refused(f"limits and slack go with {', '.join(MEASURES)}, not with `{objective}`")
    limits = [_limit(measure, at_most or {}, arch) for measure in MEASURES]
    stages = [",".join((*names[at:], *reversed(names[:at]))) for at in range(len(names))] if slack else [objective]
    tallies: list[Tally] = []
    found: Searched | None = None

    def on(arch: Architecture, objective: Objective) -> Searched:
        return search(cascade, arch, sizes, params, objective, tiles, gap, fixed)

    def leaves(less: Fixed) -> bool:
        return (
            better(cascade, arch, sizes, params, "latency", less, Tally(tiles=tiles, gap=1.0, stop=stop or (lambda: False)))
            is not None
        )

    for stage in stages:
        kept = "sides" if objective in PRODUCTS else tiles
        tallies.append(Tally(tiles=kept, gap=0.0 if found else gap, watch=watch, stop=stop or (lambda: False)))
        again = better(cascade, arch, sizes, params, stage, fixed, tallies[-1], known=found, limits=tuple(limits))
        if found is None and again is None:
            if fixed != ANYTHING:
                _check_fixed(cascade, arch, fixed, tallies[0], leaves)
            if at_most:
                raise _too_tight(cascade, arch, at_most, lambda measure: on(arch, measure))
            raise _nothing(cascade, arch, tallies[0], lambda roomier: on(roomier, objective))
        found = again if found is None else _after(found, again, stage, tallies[-1])
        assert found is not None
        if slack:
            place = order(stage)[0]
            limits[place] = min(limits[place], found.value[place] * (1 + slack))
    assert found is not None
    return replace(
        found,
        objective=objective,
        slack=slack,
        fixed=words(fixed),
        limits=dict(at_most or {}),
        evaluated=sum(tally.evaluated for tally in tallies),
    )


def _after(before: Searched, found: Searched | None, stage: Objective, tally: Tally) -> Searched:
    """A later stage of an objective of several measures; where it found nothing better, what was there stays."""
    gap = found.gap if found is not None else 1.0 if tally.cut_off else 0.0
    best = found or before
    pruned = {why: count + (best.pruned[why] if best is not before else 0) for why, count in before.pruned.items()}
    stages = (*before.stages, Stage(named(stage)[0], best.value[order(stage)[0]], gap))
    optimal = before.optimal and not tally.cut_off
    return replace(best, pruned=pruned, optimal=optimal, gap=before.gap, stages=stages)


def _check_fixed(cascade: Cascade, arch: Architecture, fixed: Fixed, tally: Tally, leaves: Callable[[Fixed], bool]) -> None:
    """Refuses (E545) what is fixed if it leaves nothing that is legal and fits, and says which part does."""
    if leaves(fixed) or not leaves(ANYTHING):
        return
    parts = single(fixed)
    blamed = [text for text, less in parts if leaves(less)] if len(parts) > 1 else [parts[0][0]]
    why = tally.closest[1] if tally.closest is not None else tally.refused
    message = f"no mapping of `{cascade.name}` on `{arch.name}` obeys all that is fixed"
    help = (
        f"leave this free: {'; or this: '.join(blamed)}"
        if blamed
        else f"no single part of it is to blame: {'; '.join(words(fixed))}"
    )
    raise EinsmithError(Diagnostic("E545", message + (f"; what comes closest: {why.message}" if why else ""), help=help))


def _limit(measure: Measure, at_most: Map_[Measure, float], arch: Architecture) -> float:
    """The most that a mapping may take of a measure, in the units of a search."""
    most = at_most.get(measure, math.inf)
    if math.isinf(most):
        return most
    if not most > 0:
        raise _refused(f"the limit of {measure} is {most}; it must be above 0")
    scale = {"latency": arch.clock_hz, "energy": 1.0, "traffic": 1.0 / arch.word_bytes}[measure]
    return most * scale * (1 + 1e-12)


def _too_tight(
    cascade: Cascade, arch: Architecture, at_most: Map_[Measure, float], alone: Callable[[Measure], Searched]
) -> EinsmithError:
    """Why nothing keeps to the limits: the measure whose least is above its limit, or that all are met only one by one."""
    leasts = {measure: alone(measure) for measure in at_most}
    shown = {measure: _shown(measure, found.value[MEASURES.index(measure)], arch) for measure, found in leasts.items()}
    for measure, found in leasts.items():
        if found.value[MEASURES.index(measure)] > _limit(measure, at_most, arch):
            least = f"the least is {shown[measure]}" if found.optimal else f"the best found takes {shown[measure]}"
            asked = _shown(measure, _limit(measure, at_most, arch), arch)
            return _refused(f"no mapping of `{cascade.name}` on `{arch.name}` takes at most {asked} of {measure}", least)
    least = ", ".join(f"{value} of {measure}" for measure, value in shown.items())
    return _refused(f"no mapping of `{cascade.name}` on `{arch.name}` keeps to all limits at once", f"least of each alone: {least}")


def _in_units(measure: Measure, value: float, arch: Architecture) -> float:
    """Seconds, pJ or bytes."""
    return value * {"latency": 1.0 / arch.clock_hz, "energy": 1.0, "traffic": float(arch.word_bytes)}[measure]


def _shown(measure: Measure, value: float, arch: Architecture) -> str:
    found = _in_units(measure, value, arch)
    match measure:
        case "latency":
            return seconds(found)
        case "energy":
            return joules(found)
        case _:
            return amount(found)


def _refused(message: str, help: str = "") -> EinsmithError:
    return EinsmithError(Diagnostic("E544", message, help=help))


def better(
    cascade: Cascade,
    arch: Architecture,
    sizes: Map_[str, int] | None,
    params: Map_[str, int | float] | None,
    objective: Objective,
    fixed: Fixed,
    tally: Tally,
    below: float = math.inf,
    known: Searched | None = None,
    limits: Vector = NOTHING,
    rivals: Sequence[Vector] = (),
) -> Searched | None:
    """The best mapping if its objective (cycles, pJ, words) is below a limit, and better than one that is known; None if there is
    none, or nothing is legal and fits. `limits`: what it may take of each measure. All this is for what adds up over groups.
    `rivals`: cycles and energy of whole mappings that are known, for products."""
    require_searchable(arch)
    flat = flatten(cascade)
    fixed.check(flat, arch)
    check_outputs(flat)
    given = frozenset(sizes or {})
    first = bind(flat, sizes, params)
    limit = rank_of(objective, known.value) if known is not None else None if math.isinf(below) else (below, -math.inf)
    best: tuple[Vector, Placed] | None = None
    fronts: list[tuple[Vector, Placed]] = []
    spaces = []
    for position, choice in enumerate(open_extents(flat, given, arch, dict(first.extents))):
        bound = bind(flat, {**(sizes or {}), **choice}, params)
        space = Partitions(flat, arch, bound, objective, tally, fixed, limits, rivals)
        spaces.append((space.floor(), position, choice, space))
    for floor, _, choice, space in sorted(spaces, key=lambda item: item[:2]):
        least = best[0] if best is not None else limit
        if least is not None and (floor >= least or ((best is not None or known is not None) and tally.stop())):
            tally.bounded += 1
            tally.cut_off |= floor < least
            continue
        space.rivals += [value for value, _ in fronts]
        groups = space.best(least)
        if groups is None:
            continue
        mapping = Mapping(name=f"{cascade.name}-on-{arch.name}", sizes=choice, groups=tuple(found.nest.group for found in groups))
        for number, found in enumerate(groups, 1):
            found.nest.number = number
        value = rank_of(objective, added(*(found.value for found in groups)))
        if best is None or value < best[0]:
            best = value, Placed(flat, space.sizes, arch, mapping, tuple(found.nest for found in groups))
        if objective in PRODUCTS:
            fronts += [(total[:2], _placed(flat, space.sizes, arch, mapping, members)) for total, members in space.front]
    if best is None:
        return None
    placed = best[1]
    pruned = {
        "illegal": tally.illegal, "too large": tally.too_large, "no better by their bound": tally.bounded,
        "dominated": tally.dominated,
    }  # fmt: skip
    pareto = tuple(cost(item) for _, item in front(fronts)) if objective == "pareto" else ()
    gap = tally.gap
    if tally.cut_off and best[0][0]:
        gap = max(gap, 1.0 - min(space.proven() for _, _, _, space in spaces) / best[0][0])
    optimal = not tally.cut_off or (gap <= tally.gap and objective != "pareto")
    stages = tuple(Stage(measure, best[0][0], gap) for measure in named(objective)[:1])
    return Searched(placed.mapping, cost(placed), objective, tally.evaluated, pruned, optimal, gap, pareto, stages)


def _placed(cascade: Cascade, sizes: Sizes, arch: Architecture, like: Mapping, groups: list[Found]) -> Placed:
    mapping = like.model_copy(update={"groups": tuple(found.nest.group for found in groups)})
    nests = tuple(replace(found.nest, number=number) for number, found in enumerate(groups, 1))
    return Placed(cascade, sizes, arch, mapping, nests)


def _nothing(
    cascade: Cascade, arch: Architecture, tally: Tally, again: Callable[[Architecture], Searched] | None = None
) -> EinsmithError:
    """Why nothing fits: the refusal that lacks least, in numbers, and how much more would do."""
    if tally.closest is not None:
        _, diagnostic = tally.closest
        code = diagnostic.code
        return EinsmithError(
            Diagnostic(
                "E540", f"no mapping of `{cascade.name}` fits `{arch.name}`; the one that lacks least: {diagnostic.message}",
                diagnostic.span,
                help=_roomier(arch, tally, diagnostic, again) or diagnostic.help or f"see `einsmith explain {code}`",
            )
        )  # fmt: skip
    if tally.refused is not None:
        reason = tally.refused
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
    sizes: dict[str, int] = {}
    for _ in range(8):
        full = re.search(r"needs ([\d,]+) bytes of `(\w+)`", diagnostic.message) if diagnostic.code in ("E520", "E540") else None
        if full is None or again is None:
            return None
        need, name = int(full[1].replace(",", "")), full[2]
        if need <= sizes.get(name, 0):
            return None
        sizes[name] = need
        memory = {level: found.model_copy(update={"size": sizes.get(level, found.size)}) for level, found in arch.memory.items()}
        try:
            again(arch.model_copy(update={"memory": memory}))
        except EinsmithError as error:
            diagnostic = error.diagnostics[0]
            continue
        options = " ".join(f"--set {level}.size={size}" for level, size in sizes.items())
        there = ", ".join(f"`{level}` has {arch.memory[level].size:,}" for level in sizes)
        return f"with `{options}` a mapping fits; {there}"
    return None
