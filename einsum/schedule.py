"""The order of evaluation: which Einsums run at once, and which run inside the loops of iterative ranks.

In: a cascade. Out: a tuple of `Step`s (one Einsum, for all its coordinates at once) and `Loop`s (an iterative rank and a body that
runs once per coordinate). An Einsum runs inside a loop exactly if it lies on a path from a state to its next position, that is,
in a strongly connected component of "is read by". Inside the loop of rank r the current position of a state along r is known
already, so that dependency is dropped there; what is still cyclic is a loop nested inside, or a cycle within one step (refused).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .cascade import Cascade, Coord, Einsum, Reduce, Tensor, free_ranks, remembered
from .diagnostics import Diagnostic, EinsmithError
from .loops import reads


@dataclass(frozen=True)
class Step:
    einsum: Einsum


@dataclass(frozen=True)
class Loop:
    rank: str
    body: tuple[Step | Loop, ...]

    def einsums(self) -> Iterable[Einsum]:
        for item in self.body:
            if isinstance(item, Step):
                yield item.einsum
            else:
                yield from item.einsums()


@dataclass(frozen=True)
class _Edge:
    """Einsum `reader` reads what Einsum `writer` writes; `carried`: at the current position along that iterative rank."""

    reader: int
    writer: int
    carried: str | None = None


@remembered
def schedule(cascade: Cascade) -> tuple[Step | Loop, ...]:
    """Steps and loops in an order in which everything is defined before it is read."""
    edges = [edge for reader in range(len(cascade.einsums)) for edge in _edges(cascade, reader)]
    order = _order(cascade, tuple(range(len(cascade.einsums))), edges)
    if order is None:
        cycle = next(iter(_cyclic(tuple(range(len(cascade.einsums))), edges)))
        names = ", ".join(f"`{cascade.einsums[i].output}`" for i in cycle)
        raise EinsmithError(Diagnostic("E214", f"{names}: a cycle within one step", cascade.einsums[cycle[0]].span))
    return order


@remembered
def last_uses(cascade: Cascade) -> dict[str, int]:
    """The place in the schedule after which a tensor is not needed by any Einsum."""
    last: dict[str, int] = {}
    for place, item in enumerate(schedule(cascade)):
        for einsum in [item.einsum] if isinstance(item, Step) else item.einsums():
            last[einsum.output] = place
            last.update((access.tensor, place) for access, _ in reads(einsum))
    return last


def surrounding(einsum: Einsum) -> tuple[str, ...]:
    """Ranks at whose points the body is evaluated: those of the left-hand side (that a scatter does not reduce)."""
    bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
    found: dict[str, None] = {}
    for index in einsum.indices:
        found.update((rank, None) for rank in sorted(free_ranks(index)) if rank not in bound)
    return tuple(found)


def iterated_axis(tensor: Tensor) -> int:
    """The dimension of a state along which it runs."""
    return tensor.ranks.index(tensor.iterates or "")


def _edges(cascade: Cascade, reader: int) -> Iterable[_Edge]:
    for access, bound in reads(cascade.einsums[reader]):
        tensor = cascade.tensor(access.tensor)
        for writer, einsum in enumerate(cascade.einsums):
            if einsum.output != tensor.name:
                continue
            carried = None
            if tensor.iterates is not None and tensor.iterates not in bound and _is_step(einsum, tensor):
                index = access.indices[iterated_axis(tensor)]
                carried = tensor.iterates if index == Coord(tensor.iterates) else None
            yield _Edge(reader, writer, carried)


def _is_step(einsum: Einsum, tensor: Tensor) -> bool:
    return tensor.iterates in free_ranks(einsum.indices[iterated_axis(tensor)])


def _order(cascade: Cascade, members: tuple[int, ...], edges: list[_Edge]) -> tuple[Step | Loop, ...] | None:
    """The members in order; None if there is a cycle that no iterative rank breaks."""
    inside = set(members)
    edges = [edge for edge in edges if edge.reader in inside and edge.writer in inside]
    result: list[Step | Loop] = []
    for component in _components(members, edges):
        if len(component) == 1 and not any(edge.reader == edge.writer == component[0] for edge in edges):
            result.append(Step(cascade.einsums[component[0]]))
            continue
        loop = _loop(cascade, component, edges)
        if loop is None:
            return None
        result.append(loop)
    return tuple(result)


def _loop(cascade: Cascade, component: tuple[int, ...], edges: list[_Edge]) -> Loop | None:
    """The component as a loop over an iterative rank that every one of its Einsums has."""
    inside = set(component)
    carried = {edge.carried: None for edge in edges if edge.carried and edge.reader in inside and edge.writer in inside}
    for rank in carried:
        if all(rank in surrounding(cascade.einsums[i]) for i in component):
            body = _order(cascade, component, [edge for edge in edges if edge.carried != rank])
            if body is not None:
                return Loop(rank, body)
    return None


def _cyclic(members: tuple[int, ...], edges: list[_Edge]) -> Iterable[tuple[int, ...]]:
    """Components with a cycle, those that every loop leaves first."""
    plain = [edge for edge in edges if edge.carried is None]
    for kept in (plain, edges):
        for component in _components(members, kept):
            if len(component) > 1 or any(edge.reader == edge.writer == component[0] for edge in kept):
                yield component


def _components(members: tuple[int, ...], edges: list[_Edge]) -> list[tuple[int, ...]]:
    """Strongly connected components, writers before readers, otherwise in the order of the cascade."""
    place = {member: i for i, member in enumerate(members)}
    reach = [0] * len(members)  # bit j of reach[i]: member i needs member j
    for edge in edges:
        if edge.reader in place and edge.writer in place:
            reach[place[edge.reader]] |= 1 << place[edge.writer]
    direct = list(reach)
    for k in range(len(members)):
        for i in range(len(members)):
            if reach[i] >> k & 1:
                reach[i] |= reach[k]
    groups: list[list[int]] = []
    of: dict[int, int] = {}
    for i in range(len(members)):
        if i not in of:
            group = [j for j in range(i, len(members)) if j == i or (reach[i] >> j & 1 and reach[j] >> i & 1)]
            of.update((j, len(groups)) for j in group)
            groups.append(group)
    needs = [{of[j] for i in group for j in range(len(members)) if direct[i] >> j & 1} - {g} for g, group in enumerate(groups)]
    done: set[int] = set()
    result: list[tuple[int, ...]] = []
    while len(result) < len(groups):
        g = next(g for g in range(len(groups)) if g not in done and needs[g] <= done)
        done.add(g)
        result.append(tuple(members[i] for i in groups[g]))
    return result
