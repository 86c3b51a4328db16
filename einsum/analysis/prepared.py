"""A cascade made ready for analysis: flattened, its accesses in normal form.

In: a cascade, parameters. Out: `Prepared`: each Einsum with the ranks that it iterates and its accesses, their indices as formulas
of unsplit ranks, and the conditions that hold where they stand. It is what is worth finding out once for all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Reduce, Select, children, remembered, walk
from ..flatten import flatten
from ..sizes import evaluate_scalar
from ..symbolic import Formula, Key, constant, floor_div, formula, symbol
from .fiber import Fiber, expanded, fiber_of
from .order import facts


@dataclass(frozen=True)
class Read:
    """One access in an Einsum: its indices as formulas (None where a tensor is read inside), and what holds where it stands."""

    access: Access
    indices: tuple[Formula | None, ...]
    guards: tuple[Formula, ...]


@dataclass(frozen=True)
class Step:
    """One Einsum, ready for analysis."""

    einsum: Einsum
    iterated: frozenset[str]
    bound: frozenset[str]
    reads: tuple[Read, ...]
    scatter: tuple[Expr, ...]
    """Left-hand indices that read a tensor."""

    @property
    def output(self) -> str:
        return self.einsum.output


@dataclass(frozen=True)
class Prepared:
    """A flattened cascade with its accesses in normal form."""

    cascade: Cascade
    steps: tuple[Step, ...]
    coordinates: dict[str, frozenset[tuple[int, str]]]
    """For each tensor: (dimension, unsplit rank) pairs for the rank variables that index it somewhere."""
    selections: dict[str, str]
    """Integer tensors that hold positions along a rank: results of argmax, argtopk and so on."""
    whole: dict[str, Formula]
    """Each split rank's variable in terms of its unsplit parts."""
    memo: dict[tuple[object, ...], Any] = field(default_factory=dict, compare=False, repr=False)

    @remembered
    def fiber(self, rank: str) -> Fiber:
        """The fiber of a rank or part."""
        return fiber_of(self.cascade, rank)


def prepare(cascade: Cascade, params: Mapping[str, int | float] | None = None) -> Prepared:
    """Flatten a cascade and bring its accesses to normal form, with the parameters that are whole numbers put in."""
    flat = flatten(cascade)
    whole = expanded(flat)
    parts = dict(whole)
    for name, value in known_params(flat, params).items():
        if isinstance(value, int):
            parts[name] = constant(value)
    quotients = [floor_div(symbol(r.split.inner), formula(r.split.tile)) for r in flat.ranks if r.split is not None]
    inside = frozenset(key for quotient in quotients for monomial in quotient.terms for key, _ in monomial)
    steps = tuple(_step(einsum, parts, inside) for einsum in flat.einsums)
    coordinates: dict[str, set[tuple[int, str]]] = {tensor.name: set() for tensor in flat.tensors}
    names = {rank.name for rank in flat.ranks}
    for step in steps:
        for read in step.reads:
            for place, index in enumerate(read.indices):
                if index is not None:
                    coordinates[read.access.tensor].update((place, s) for s in index.symbols & names)
    selections: dict[str, str] = {}
    for step in steps:
        body = step.einsum.body
        if isinstance(body, Select) and body.op.startswith("arg"):
            selections[step.output] = body.rank
        elif isinstance(body, Reduce) and body.op.startswith("arg"):
            selections[step.output] = body.ranks[0]
        elif isinstance(body, Access) and body.tensor in selections:
            selections[step.output] = selections[body.tensor]
    return Prepared(flat, steps, {name: frozenset(found) for name, found in coordinates.items()}, selections, whole)


def known_params(cascade: Cascade, params: Mapping[str, int | float] | None = None) -> dict[str, int | float]:
    """Parameters whose values do not depend on sizes: those given, and those that the spec sets to a number."""
    known: dict[str, int | float] = dict(params or {})
    for name, expr in cascade.params:
        if name not in known:
            with suppress(KeyError, ArithmeticError, ValueError):
                known[name] = evaluate_scalar(expr, known)
    return known


def _step(einsum: Einsum, parts: dict[str, Formula], inside: frozenset[Key]) -> Step:
    body = einsum.body
    bound: frozenset[str] = frozenset()
    if isinstance(body, Reduce):
        bound = frozenset(body.ranks)
    elif isinstance(body, Select):
        bound = frozenset((body.rank,))
    free = {node.rank for index in einsum.indices for node in walk(index) if isinstance(node, Coord)}
    iterated = frozenset(free) | bound | (frozenset((body.fills,)) if isinstance(body, Select) else frozenset())
    scatter = tuple(index for index in einsum.indices if any(isinstance(node, Access) for node in walk(index)))
    found = [*_reads(body, (), parts, inside)]
    for index in scatter:
        found += _reads(index, (), parts, inside)
    return Step(einsum, iterated, bound, tuple(found), scatter)


def _reads(expr: Expr, guards: tuple[Formula, ...], parts: dict[str, Formula], inside: frozenset[Key]) -> Iterator[Read]:
    """All accesses with the affine conditions that hold where they are evaluated."""
    match expr:
        case Access(indices=indices):
            yield Read(expr, tuple(_index(index, parts, inside) for index in indices), guards)
        case Map(op="where", args=(condition, yes, no)):
            yield from _reads(condition, guards, parts, inside)
            yield from _reads(yes, guards + _facts(condition, True, parts), parts, inside)
            yield from _reads(no, guards + _facts(condition, False, parts), parts, inside)
            return
        case _:
            pass
    for part in children(expr):
        yield from _reads(part, guards, parts, inside)


def _facts(condition: Expr, holds: bool, parts: dict[str, Formula]) -> tuple[Formula, ...]:
    return tuple(fact.substitute(parts) for fact in facts(condition, holds))


def _index(expr: Expr, parts: dict[str, Formula], inside: frozenset[Key]) -> Formula | None:
    """An index as a formula of unsplit ranks; `inside` are quotients that are 0 (an inner part divided by its tile)."""
    if isinstance(expr, Coord):
        return parts.get(expr.rank) or symbol(expr.rank)
    if any(isinstance(node, Access) for node in walk(expr)):
        return None
    try:
        found = formula(expr).substitute(parts)
        return found.without(inside) if inside else found
    except (ValueError, ZeroDivisionError):
        return None
