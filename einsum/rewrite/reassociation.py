"""Which contractions to reassociate: those where another order takes fewer operations.

In: a flat cascade and a rank. Out: the rewrites that lower the number of operations without a further pass over any rank, best
first, and the reasons why others were refused. Candidates are

* a sum of three factors or more, in another order;
* a tensor opened in all that reads it, if all of that are sums of products (maps of products in between are opened too);
* everything that can be opened behind a sum.

Operations are counted at the sizes of the spec, or at those that `cost` takes in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ..analysis.passes import levels
from ..cascade import Access, Cascade, Einsum, Map, Reduce, Tensor, accesses, walk
from .common_subexpressions import common_subexpressions
from .cost import count, scalars, sizes_of, sizes_shown
from .dead_einsums import dead_einsums
from .fiber import Fiber
from .mean_as_sum import mean_as_sum
from .merge_ranks import merge_ranks
from .phases import phases
from .reassociate import contract, openable
from .step import Refused, Rewritten, Step


@dataclass(frozen=True)
class Found:
    """The cascade after the rewrites, their steps, and what was refused on the way."""

    cascade: Cascade
    steps: tuple[Step, ...]
    refused: tuple[Refused, ...] = ()


def reassociation(cascade: Cascade, rank: str, known: Mapping[str, int | float] | None = None) -> Found:
    """Reassociate as long as that lowers the number of operations, counted with the `known` values of symbols."""
    declared = cascade.rank(rank)
    refused: dict[tuple[str, str], Refused] = {}
    steps: list[Step] = []
    if declared.split is not None or declared.part_of is not None:
        return Found(cascade, ())
    known = scalars(cascade, rank, known)
    while True:
        best: tuple[float, Cascade, list[Step]] | None = None
        for targets, opened in candidates(cascade, rank):
            result = _applied(cascade, rank, targets, opened, known)
            if isinstance(result, Refused):
                refused[result.target, result.reason] = result
            elif result is not None:
                after, taken = result
                saved = _saved(cascade, after, taken, rank, known, best[0] if best is not None else 0.0)
                if saved is not None:
                    best = (saved, after, taken)
        if best is None:
            break
        cascade = best[1]
        steps.extend(best[2])
    return Found(cascade, tuple(steps), tuple(refused.values()) if not steps else ())


def worth_it(cascade: Cascade, rewritten: Rewritten, rank: str, known: Mapping[str, int | float]) -> Found | None:
    """What came of a rewrite, tidied; None if it saves no operations or costs a pass."""
    steps = [rewritten.step]
    after = _tidied(rewritten.cascade, steps)
    return None if _saved(cascade, after, steps, rank, known, 0.0) is None else Found(after, tuple(steps))


def _saved(
    cascade: Cascade, after: Cascade, steps: list[Step], rank: str, known: Mapping[str, int | float], more_than: float
) -> float | None:
    """Operations saved, which the first step then tells; None if they are not more, or a pass is added."""
    was, now = _compared(cascade, after, rank, known)
    if now >= was * (1 - 1e-9) or was - now <= more_than or not _no_more_passes(cascade, after, rank):
        return None
    fewer = f"{now:.4g} operations instead of {was:.4g} ({sizes_shown(cascade, known)})"
    steps[0] = replace(steps[0], condition=f"{steps[0].condition}; {fewer}")
    return was - now


# --- candidates -----------------------------------------------------------------------------------------------------------


def candidates(cascade: Cascade, rank: str) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
    """(targets, tensors that are opened in them)."""
    readers: dict[str, list[Einsum]] = {}
    for einsum in cascade.einsums:
        for name in dict.fromkeys(node.tensor for node in accesses(einsum.body)):
            readers.setdefault(name, []).append(einsum)
        for index in einsum.indices:
            for node in accesses(index):
                readers.setdefault(node.tensor, []).append(einsum)
    seen: set[tuple[tuple[str, ...], frozenset[str]]] = set()
    for einsum in cascade.einsums:
        name = einsum.output
        for found in (_reorder(cascade, einsum), _upwards(cascade, name, readers), _downwards(cascade, einsum, readers)):
            if found is not None and found not in seen and _along(cascade, rank, *found):
                seen.add(found)
                yield found


def _along(cascade: Cascade, rank: str, targets: tuple[str, ...], opened: frozenset[str]) -> bool:
    """Does any of it go along the rank?"""
    for name in (*targets, *opened):
        for einsum in cascade.definitions(name):
            body = einsum.body
            if rank in cascade.tensor(name).ranks or (isinstance(body, Reduce) and rank in body.ranks):
                return True
    return False


def _is_target(cascade: Cascade, einsum: Einsum) -> bool:
    body = einsum.body
    tensor: Tensor = cascade.tensor(einsum.output)
    return isinstance(body, Reduce) and body.op in ("sum", "mean") and tensor.kind == "einsum" and tensor.dtype == "float"


def _reorder(cascade: Cascade, einsum: Einsum) -> tuple[tuple[str, ...], frozenset[str]] | None:
    if not _is_target(cascade, einsum) or sum(1 for node in walk(einsum.body) if isinstance(node, Access)) < 3:
        return None
    return (einsum.output,), frozenset()


def _upwards(cascade: Cascade, name: str, readers: Mapping[str, list[Einsum]]) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """The tensor opened in all that reads it, through maps."""
    opened: dict[str, None] = {}
    targets: dict[str, None] = {}
    pending = [name]
    while pending:
        current = pending.pop()
        if current in opened:
            continue
        if openable(cascade, current) is None or current in cascade.outputs or not readers.get(current):
            return None
        opened[current] = None
        for reader in readers[current]:
            if _is_target(cascade, reader):
                targets[reader.output] = None
            elif isinstance(reader.body, Map):
                pending.append(reader.output)
            else:
                return None
    return tuple(targets), frozenset(opened)


def _downwards(
    cascade: Cascade, einsum: Einsum, readers: Mapping[str, list[Einsum]]
) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """Everything behind a sum that only it reads."""
    if not _is_target(cascade, einsum):
        return None
    own = {einsum.output}
    pending = [einsum]
    while pending:
        for node in accesses(pending.pop().body):
            inner = None if node.tensor in own or node.tensor in cascade.outputs else openable(cascade, node.tensor)
            if inner is not None and all(reader.output in own for reader in readers[node.tensor]):
                own.add(node.tensor)
                pending.append(inner)
    return ((einsum.output,), frozenset(own - {einsum.output})) if len(own) > 1 else None


# --- trying one --------------------------------------------------------------------------------------------------------------


def _applied(
    cascade: Cascade, rank: str, targets: tuple[str, ...], opened: frozenset[str], known: Mapping[str, int | float]
) -> tuple[Cascade, list[Step]] | Refused | None:
    steps: list[Step] = []
    current = cascade
    for target in targets:
        (einsum,) = current.definitions(target)
        name = target
        if isinstance(einsum.body, Reduce) and einsum.body.op == "mean":
            mean = mean_as_sum(current, target, rank)
            if mean is None:
                return None
            current, name = mean.cascade, mean.cascade.einsums[_place(current, target)].output
            steps.append(mean.step)
        result = contract(current, name, opened, sizes_of(current, rank, known), Fiber(current, rank))
        if isinstance(result, Refused):
            return result
        if result is None:
            return None
        current = result.cascade
        steps.append(result.step)
    current = _tidied(current, steps)
    merged: Rewritten | None = merge_ranks(current, rank)
    if merged is not None:
        current = merged.cascade
        steps.append(merged.step)
    return current, steps


def _tidied(cascade: Cascade, steps: list[Step]) -> Cascade:
    """Without what is dead or there twice; the steps are added."""
    for tidy in (dead_einsums, common_subexpressions):
        tidied = tidy(cascade)
        if tidied is not None:
            cascade = tidied.cascade
            steps.append(tidied.step)
    return cascade


def _place(cascade: Cascade, target: str) -> int:
    return next(i for i, einsum in enumerate(cascade.einsums) if einsum.output == target)


def _compared(before: Cascade, after: Cascade, rank: str, known: Mapping[str, int | float]) -> tuple[float, float]:
    """Operations of the Einsums in which the two differ."""
    old, new = set(before.einsums), set(after.einsums)
    if before.ranks != after.ranks:
        old, new = set(), set()
    return count(before, scalars(before, rank, known), new), count(after, scalars(after, rank, known), old)


def _no_more_passes(before: Cascade, after: Cascade, rank: str) -> bool:
    """No rank is walked more often than before, and the asked one not once its reductions run side by side."""
    if max(phases(after, rank).of.values(), default=0) > max(phases(before, rank).of.values(), default=0):
        return False
    both = [each.name for each in after.ranks if each.part_of is None and each.name in before.rank_order]
    return all(levels(after, name).passes.get(name, 0) <= levels(before, name).passes.get(name, 0) for name in both)
