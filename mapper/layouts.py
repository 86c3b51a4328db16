"""Layouts of arrays and bindings of Einsums to them: those of given tiles that no other is at least as good as.

In: a placed nest. Out: `Choice`s. For given tiles the cycles of each Einsum on each array under each layout do not
depend on the order of the loops; bindings are a Pareto front over cycles per array and energy, grown Einsum by Einsum.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping as Map_
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..einsum.cascade import Cascade, Scan, Select
from .cost import step_pj
from .mapping import Binding
from .nest import Nest
from .space import Fixed
from .steps import Step

FEW_CHOICES = 64
"""Layouts and bindings of a group that are all tried; of more, those that are not dominated."""
Vector: TypeAlias = tuple[float, ...]
Layout: TypeAlias = tuple[str | None, ...]
"""The rank along each side of an array; None: one lane at work."""
_Costs: TypeAlias = tuple[tuple[float, float] | None, ...]
"""(cycles, energy) of each step; None where the array cannot do it."""


@dataclass(frozen=True)
class Choice:
    """A binding of all steps under one layout of each array, by its cycles per array."""

    cycles: Vector
    energy: float
    """Of operations and of operands that a storage level holds anyway, pJ."""
    binding: tuple[str, ...]
    """Array of each step."""
    layouts: Map_[str, Layout]

    def bind(self, cascade: Cascade, steps: Sequence[Step]) -> dict[str, Binding]:
        return {
            step.output: bind(cascade, array, self.layouts[array], step)
            for step, array in zip(steps, self.binding, strict=True)
            if not step.initial
        }


def choices(nest: Nest, fixed: Fixed) -> tuple[list[Choice], int]:
    """All choices if they are few, else those that are not dominated, and how many are."""
    arrays = nest.arch.arrays
    able = {name: _able(nest, name, fixed.arrays) for name in arrays}
    vectors = {name: _layouts(nest, name, able[name], fixed.layouts) for name in arrays}
    bindings = math.prod(sum(can[number] for can in able.values()) for number in range(len(nest.steps)))
    few = bindings * math.prod(len(found) for found in vectors.values()) <= FEW_CHOICES
    dominated = 0
    if not few:
        for name, listed in vectors.items():
            kept = front(
                [(tuple(part for pair in costs for part in (pair or (math.inf, math.inf))), (costs, lay)) for costs, lay in listed]
            )
            dominated += len(listed) - len(kept)
            vectors[name] = [item for _, item in kept]
    options: list[tuple[Vector, Any]] = []
    for combination in itertools.product(*vectors.values()):
        layouts = {name: layout for name, (_, layout) in zip(vectors, combination, strict=True)}
        found: list[tuple[Vector, tuple[str, ...]]] = [((0.0,) * (len(layouts) + 1), ())]
        for number in range(len(nest.steps)):
            grown = []
            for value, binding in found:
                for place, name in enumerate(layouts):
                    mine = combination[place][0][number]
                    if mine is not None:
                        more = list(value)
                        more[place] += mine[0]
                        more[-1] += mine[1]
                        grown.append((tuple(more), (*binding, name)))
            found = grown if few else front(grown)
            dominated += len(grown) - len(found)
        options += [(value, (binding, layouts)) for value, binding in found]
    kept_options = options if few else front(options)
    return [Choice(value[:-1], value[-1], *rest) for value, rest in kept_options], dominated


def _able(nest: Nest, name: str, fixed: Map_[str, str]) -> list[bool]:
    """Whether an array can do each step, and may."""
    array = nest.arch.arrays[name]
    unable = {step.output for step in nest.steps for item in step.work if array.expand(item.operation) is None}
    return [step.output not in unable and fixed.get(step.output, name) == name for step in nest.steps]


def _layouts(nest: Nest, name: str, able: list[bool], fixed: Map_[str, tuple[tuple[str, ...], ...]]) -> list[tuple[_Costs, Layout]]:
    """What each step costs under each layout of an array; of equals the one whose sums come out first stands first."""
    array, order = nest.arch.arrays[name], nest.cascade.rank_order
    named = {rank for step in nest.steps for along in fixed.get(step.output, ()) for rank in along}
    spread = {rank for step in nest.steps for rank in _spatial(nest.cascade, step)}
    ranks = sorted({rank for rank in spread if nest.size(rank) > 1 or rank in named}, key=order.__getitem__)
    alike = len(set(array.side)) == 1 and not named  # which side is which does not matter
    listed: dict[Layout, Layout] = {}
    for layout in itertools.permutations([*ranks, *[None] * len(array.side)], len(array.side)):
        listed.setdefault(tuple(sorted(layout, key=str)) if alike else layout, layout)
    one = next(nest.instances(nest.spread))
    known: dict[tuple[int, Binding], tuple[float, float, int]] = {}

    def costs(place: int, step: Step, layout: Layout) -> tuple[float, float, int]:
        binding = bind(nest.cascade, name, layout, step)
        key = place, binding
        if key not in known:
            bound = replace(step, binding=binding, array=array)
            known[key] = one.busy(bound), step_pj(nest, bound), nest.ripple(bound)
        return known[key]

    found: list[tuple[int, tuple[_Costs, Layout]]] = []
    for layout in listed.values():
        each: list[tuple[float, float] | None] = []
        ripple = 0
        for place, (step, ok) in enumerate(zip(nest.steps, able, strict=True)):
            ok = ok and (step.initial or _is_laid(bind(nest.cascade, name, layout, step), fixed.get(step.output)))
            cycles, picojoules, hops = costs(place, step, layout) if ok else (0.0, 0.0, 0)
            each.append((cycles, picojoules) if ok else None)
            ripple += hops
        found.append((ripple, (tuple(each), layout)))
    return [item for _, item in sorted(found, key=lambda each: each[0])]


def bind(cascade: Cascade, array: str, layout: Layout, step: Step) -> Binding:
    """A layout of an array for one step: sides whose rank it does not spread have one lane at work."""
    able = _spatial(cascade, step)
    sides: list[tuple[str, ...]] = [(rank,) if rank is not None and rank in able else () for rank in layout]
    while sides and not sides[-1]:
        sides.pop()
    return Binding(array=array, spatial=tuple(sides))


def _is_laid(binding: Binding, fixed: tuple[tuple[str, ...], ...] | None) -> bool:
    """Whether a binding has the layout that is fixed; sides at the end that nothing lies along do not count."""
    if fixed is None:
        return True
    last = max((side for side, along in enumerate(fixed) if along), default=-1)
    return binding.spatial == fixed[: last + 1]


def _spatial(cascade: Cascade, step: Step) -> frozenset[str]:
    """The ranks of a step but for the one along which it runs position by position."""
    body = step.einsum.body
    return step.ranks - {cascade.tensor(step.output).iterates} - ({body.rank} if isinstance(body, Scan | Select) else set())


def front(options: Sequence[tuple[Vector, Any]]) -> list[tuple[Vector, Any]]:
    """The options that no other is at least as good as in every respect; the first of equals."""
    kept: list[tuple[Vector, Any]] = []
    stairs: list[tuple[float, float]] = []
    """The front of what comes after the first of three values: ascending in one, descending in the other."""
    many = max((len(value) for value, _ in options), default=0)
    for value, item in sorted(options, key=lambda option: option[0]):
        if many == 2:
            better = bool(kept) and kept[-1][0][1] <= value[1]
        elif many == 3:
            better = not _step_down(stairs, value[1], value[2])
        else:
            better = any(all(a <= b for a, b in zip(other, value, strict=True)) for other, _ in kept)
        if not better:
            kept.append((value, item))
    return kept


def _step_down(stairs: list[tuple[float, float]], first: float, second: float) -> bool:
    """Put a point into a front of pairs, unless one there is at least as good."""
    at = bisect.bisect_right(stairs, (first, math.inf))
    if at and stairs[at - 1][1] <= second:
        return False
    until = at
    while until < len(stairs) and stairs[until][1] >= second:
        until += 1
    if at and stairs[at - 1][0] == first:
        at -= 1
    stairs[at:until] = [(first, second)]
    return True
