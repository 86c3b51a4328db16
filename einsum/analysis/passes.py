"""Passes: how often a cascade must go along a fiber, whatever the mapping.

In: a cascade and a rank. Out: `Levels`: the level of each Einsum, the passes, at which levels each input is read, and which
dependency forces each level above the first. The definition is in docs/design/analysis.md; in short: a value is *complete* if it
depends on the whole fiber or needs elements arbitrarily far ahead; an Einsum that goes along the fiber (or gathers from it, or
scatters to it) lies one level above the complete values that it reads. Einsums that touch only some parts of a split rank are
counted along that part.
"""

from __future__ import annotations

from ..cascade import Access, Cascade, Coord, Expr, remembered, walk
from .completeness import Run, run_along
from .fiber import Fiber, leaves_of
from .levels import EinsumLevel, Levels
from .prepared import Prepared, Step, prepare


def levels(cascade: Cascade | Prepared, rank: str) -> Levels:
    """Levels of a cascade along a rank and its parts. Raises KeyError for a rank that it does not have."""
    return _levels(cascade, rank) if isinstance(cascade, Prepared) else _known_levels(cascade, rank)


@remembered
def _known_levels(cascade: Cascade, rank: str) -> Levels:
    return _levels(_prepared(cascade), rank)


@remembered
def _prepared(cascade: Cascade) -> Prepared:
    return prepare(cascade)


def _levels(prepared: Prepared, rank: str) -> Levels:
    flat = prepared.cascade
    fiber, whole = prepared.fiber(rank), run_along(prepared, rank)
    alone = _parts_alone(prepared, fiber, whole)
    runs = {part: run_along(prepared, part) for part in dict.fromkeys(p for p in alone if p is not None)}
    passes = {rank: max((level for level, on in zip(whole.levels, whole.touches, strict=True) if on), default=0)}
    reads: dict[str, dict[str, set[int]]] = {rank: {}}
    growth: dict[str, int] = {}
    loops: dict[str, None] = dict.fromkeys(whole.loops)
    einsums: list[EinsumLevel] = []
    forced = list(whole.forced)
    for number, step in enumerate(prepared.steps):
        part = alone[number]
        here = whole if part is None else runs[part]
        along = part if part is not None else rank if whole.touches[number] else None
        rise = here.growth[number]
        einsums.append(EinsumLevel(step.output, here.levels[number], along, here.values[step.output].complete, rise))
        if along is None:
            continue
        passes[along] = max(passes.get(along, 0), here.levels[number])
        if rise:
            growth[along] = max(growth.get(along, 0), rise)
            loops.update(dict.fromkeys(here.loops))
        _note_reads(reads.setdefault(along, {}), prepared, prepared.fiber(along), step, here.levels[number])
    for part, here in runs.items():
        names = {step.output for step, where in zip(prepared.steps, alone, strict=True) if where == part}
        forced += [one for one in here.forced if one.einsum in names]
    return Levels(
        rank, flat, passes, tuple(einsums),
        {w: {name: tuple(sorted(found)) for name, found in inputs.items()} for w, inputs in reads.items() if inputs or w == rank},
        tuple(sorted(forced, key=lambda found: found.level)), _carried_levels(prepared, fiber, whole),
        growth, tuple(loops),
    )  # fmt: skip


def _parts_alone(prepared: Prepared, fiber: Fiber, found: Run) -> list[str | None]:
    """For each Einsum that touches only some parts of the rank: the greatest part that it goes along."""
    result: list[str | None] = []
    parts = [r.name for r in prepared.cascade.ranks if r.name != fiber.rank and leaves_of(prepared.cascade, r.name) < fiber.leaves]
    parts.sort(key=lambda name: -len(leaves_of(prepared.cascade, name)))
    for step, touches in zip(prepared.steps, found.touches, strict=True):
        iterated = fiber.expand(step.iterated) & fiber.leaves
        if touches or not iterated:
            result.append(None)
        else:
            result.append(next(part for part in parts if leaves_of(prepared.cascade, part) <= iterated))
    return result


def _note_reads(reads: dict[str, set[int]], prepared: Prepared, fiber: Fiber, step: Step, level: int) -> None:
    for read in step.reads:
        tensor = prepared.cascade.tensor(read.access.tensor)
        if tensor.kind != "input":
            continue
        indexed = any(index is not None and index.symbols & fiber.leaves for index in read.indices)
        gathered = any(
            index is None
            and (
                fiber.related(rank)
                or any(isinstance(n, Coord) and n.rank in fiber.leaves for n in walk(expr))
                or _chosen(expr, prepared, fiber)
            )
            for index, rank, expr in zip(read.indices, tensor.ranks, read.access.indices, strict=True)
        )
        gathered = gathered or any(
            read.indices[place] is None and rank in fiber.leaves for place, rank in prepared.coordinates[tensor.name]
        )
        if indexed or gathered:
            reads.setdefault(tensor.name, set()).add(level)


def _chosen(expr: Expr, prepared: Prepared, fiber: Fiber) -> bool:
    """Whether an index holds a position along the fiber that an argmax, argtopk, ... chose."""
    chosen = (
        prepared.selections[node.tensor] for node in walk(expr) if isinstance(node, Access) and node.tensor in prepared.selections
    )
    return any(fiber.related(rank) for rank in chosen)


def _carried_levels(prepared: Prepared, fiber: Fiber, found: Run) -> dict[str, tuple[int, ...]]:
    """Intermediates with an element for each position of the fiber that a later level reads."""
    defined: dict[str, int] = {}
    for step, level, touches in zip(prepared.steps, found.levels, found.touches, strict=True):
        if touches:
            defined[step.output] = max(defined.get(step.output, 0), level)
    later: dict[str, set[int]] = {}
    for step, level, touches in zip(prepared.steps, found.levels, found.touches, strict=True):
        if not touches:
            continue
        for read in step.reads:
            name = read.access.tensor
            tensor = prepared.cascade.tensor(name)
            if tensor.kind == "input" or name not in defined or defined[name] >= level:
                continue
            if fiber.leaves <= fiber.expand(frozenset(tensor.ranks)):
                later.setdefault(name, set()).add(level)
    return {name: (defined[name], *sorted(levels_)) for name, levels_ in later.items()}
