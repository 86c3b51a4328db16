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
from collections.abc import Callable
from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from typing import Any

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.display import Displayed
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind
from .architecture import Architecture
from .cost import Cost, cost, joules, seconds
from .group import PRODUCTS, Found, Objective, Tally, rank_of
from .layouts import Vector, front
from .mapping import Mapping
from .nest import Placed, check_outputs
from .partitions import Partitions, added
from .space import ANYTHING, Fixed, Tiles, open_extents
from .team import require_searchable

__all__ = ["Objective", "Searched", "search"]


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
            proof = f"best found; the search was cut off, and nothing is better by more than {self.gap:.2%}"
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
    """The best mapping. Raises EinsmithError (E540) where nothing in the space is legal and fits, E531 for other architectures,
    E530 for cascades that no mapping can hold.

    `gap`: share of the objective by which the result may miss the best; `fixed`: what is not free; `watch` is told mappings
    evaluated, best value and least bound of the group that is looked at; once `stop` says so, the best so far is returned.
    """
    tally = Tally(tiles="sides" if objective in PRODUCTS else tiles, gap=gap, watch=watch, stop=stop or (lambda: False))
    found = better(cascade, arch, sizes, params, objective, fixed, tally)
    if found is None:
        raise _nothing(cascade, arch, tally, lambda roomier: search(cascade, roomier, sizes, params, objective, tiles, gap, fixed))
    return found


def better(
    cascade: Cascade,
    arch: Architecture,
    sizes: Map_[str, int] | None,
    params: Map_[str, int | float] | None,
    objective: Objective,
    fixed: Fixed,
    tally: Tally,
    below: float = math.inf,
) -> Searched | None:
    """The best mapping if its objective (cycles, pJ, words) is below a limit; None if there is none, or nothing is legal and fits.

    The limit is for objectives that add up over groups."""
    require_searchable(arch)
    flat = flatten(cascade)
    fixed.check(flat, arch)
    check_outputs(flat)
    given = frozenset(sizes or {})
    first = bind(flat, sizes, params)
    limit = None if math.isinf(below) else (below, -math.inf)
    best: tuple[Vector, Placed] | None = None
    fronts: list[tuple[Vector, Placed]] = []
    spaces = []
    for position, choice in enumerate(open_extents(flat, given, arch, dict(first.extents))):
        bound = bind(flat, {**(sizes or {}), **choice}, params)
        space = Partitions(flat, arch, bound, objective, tally, fixed)
        spaces.append((space.floor(), position, choice, space))
    for floor, _, choice, space in sorted(spaces, key=lambda item: item[:2]):
        known = best[0] if best is not None else limit
        if known is not None and (floor >= known or (best is not None and tally.stop())):
            tally.bounded += 1
            tally.cut_off |= floor < known
            continue
        groups = space.best(known)
        if groups is None:
            continue
        mapping = Mapping(name=f"{cascade.name}-on-{arch.name}", sizes=choice, groups=tuple(found.nest.group for found in groups))
        for number, found in enumerate(groups, 1):
            found.nest.number = number
        value = rank_of(objective, added(*(found.value for found in groups)))
        if best is None or value < best[0]:
            best = value, Placed(flat, space.sizes, arch, mapping, tuple(found.nest for found in groups))
        if objective == "pareto":
            fronts += [(total[:2], _placed(flat, space.sizes, arch, mapping, members)) for total, members in space.front]
    if best is None:
        return None
    placed = best[1]
    pruned = {
        "illegal": tally.illegal, "too large": tally.too_large, "no better by their bound": tally.bounded,
        "dominated": tally.dominated,
    }  # fmt: skip
    pareto = tuple(cost(item) for _, item in front(fronts))
    gap = tally.gap
    if tally.cut_off and best[0][0]:
        gap = max(gap, 1.0 - min(space.proven() for _, _, _, space in spaces) / best[0][0])
    optimal = not tally.cut_off or (gap <= tally.gap and objective != "pareto")
    return Searched(placed.mapping, cost(placed), objective, tally.evaluated, pruned, optimal, gap, pareto)


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
