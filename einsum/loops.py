"""Cycles of definitions, and which of them a loop can run.

In: a cascade. Out: the cycles that no iterative rank breaks, as pairs (reader, writer) of positions of Einsums. A read of a state at
its current position is what breaks a cycle, provided that every Einsum of the cycle runs inside that loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .cascade import Access, Cascade, Coord, Einsum, Expr, Reduce, Select, children, free_ranks


@dataclass(frozen=True)
class Edge:
    """Einsum `reader` needs what Einsum `writer` defines; `carried`: only from the step before, along this rank."""

    reader: int
    writer: int
    access: Access
    carried: str | None


def edges(cascade: Cascade) -> list[Edge]:
    """All reads of tensors that the cascade defines."""
    tensors = {tensor.name: tensor for tensor in cascade.tensors}
    writers: dict[str, list[int]] = {}
    for number, einsum in enumerate(cascade.einsums):
        writers.setdefault(einsum.output, []).append(number)
    found: list[Edge] = []
    for reader, einsum in enumerate(cascade.einsums):
        for access, bound in reads(einsum):
            tensor = tensors.get(access.tensor)
            carried = None
            if tensor is not None and tensor.iterates is not None and len(access.indices) == len(tensor.ranks):
                position = access.indices[tensor.ranks.index(tensor.iterates)]
                if position == Coord(tensor.iterates) and tensor.iterates not in bound:
                    carried = tensor.iterates
            for writer in writers.get(access.tensor, ()):
                initial = (
                    tensor is not None and tensor.iterates is not None and tensor.iterates not in _left(cascade.einsums[writer])
                )
                found.append(Edge(reader, writer, access, None if initial else carried))
    return found


def _left(einsum: Einsum) -> frozenset[str]:
    """Ranks for each of whose coordinates the Einsum is evaluated."""
    bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
    return frozenset().union(*map(free_ranks, einsum.indices)) - set(bound) if einsum.indices else frozenset()


def reads(einsum: Einsum) -> Iterator[tuple[Access, frozenset[str]]]:
    """Every access of an Einsum, left to right, with the ranks bound around it."""
    stack: list[tuple[Expr, frozenset[str]]] = [(expr, frozenset()) for expr in (einsum.body, *reversed(einsum.indices))]
    while stack:
        node, bound = stack.pop()
        if isinstance(node, Access):
            yield node, bound
        inner = bound
        if isinstance(node, Reduce):
            inner = bound | set(node.ranks)
        elif isinstance(node, Select):
            inner = bound | {node.rank}
        stack.extend((part, inner) for part in reversed(children(node)))


def strong_cycles(cascade: Cascade) -> list[tuple[tuple[int, int], ...]]:
    """Groups of (reader, writer) that need one another within one step."""
    found = edges(cascade)
    if all(edge.writer < edge.reader for edge in found):
        return []
    return list(_unbroken(cascade, tuple(range(len(cascade.einsums))), found))


def _unbroken(cascade: Cascade, members: tuple[int, ...], found: list[Edge]) -> Iterator[tuple[tuple[int, int], ...]]:
    for component in _components(members, found):
        inside = [edge for edge in found if edge.reader in component and edge.writer in component]
        if not inside:
            continue
        ranks = dict.fromkeys(edge.carried for edge in inside if edge.carried is not None)
        broken = next((rank for rank in ranks if all(rank in _left(cascade.einsums[i]) for i in component)), None)
        if broken is None:
            yield tuple(dict.fromkeys((edge.reader, edge.writer) for edge in inside))
        else:
            yield from _unbroken(cascade, tuple(sorted(component)), [edge for edge in inside if edge.carried != broken])


def _components(members: tuple[int, ...], found: list[Edge]) -> list[frozenset[int]]:
    """Strongly connected components, by reachability as bit sets."""
    place = {member: i for i, member in enumerate(members)}
    reach = [1 << i for i in range(len(members))]
    for edge in found:
        if edge.reader in place and edge.writer in place:
            reach[place[edge.reader]] |= 1 << place[edge.writer]
    for k in range(len(members)):
        bit = 1 << k
        for i in range(len(members)):
            if reach[i] & bit:
                reach[i] |= reach[k]
    seen: set[int] = set()
    result: list[frozenset[int]] = []
    for i, member in enumerate(members):
        if i not in seen:
            group = [j for j in range(len(members)) if reach[i] >> j & 1 and reach[j] >> i & 1]
            seen.update(group)
            result.append(frozenset(members[j] for j in group) if len(group) > 1 else frozenset((member,)))
    return result


def blame(cascade: Cascade, cycle: tuple[tuple[int, int], ...]) -> tuple[int, Access, tuple[str, ...]]:
    """The read to point at in a cycle, with its Einsum, and the names along the shortest way round from there."""
    pairs = set(cycle)
    inside = [edge for edge in edges(cascade) if (edge.reader, edge.writer) in pairs]
    worst = min(inside, key=lambda edge: (edge.carried is not None, edge.writer < edge.reader, edge.reader))
    return worst.reader, worst.access, _round(cascade, inside, worst)


def _round(cascade: Cascade, inside: list[Edge], first: Edge) -> tuple[str, ...]:
    """Names from the reader of an edge through its writer back to the reader."""
    ways: dict[int, tuple[int, ...]] = {first.writer: (first.reader, first.writer)}
    queue = [first.writer]
    while queue:
        here = queue.pop(0)
        if here == first.reader:
            break
        for edge in inside:
            if edge.reader == here and edge.writer not in ways:
                ways[edge.writer] = (*ways[here], edge.writer)
                queue.append(edge.writer)
    way = ways.get(first.reader, (first.reader, first.writer))
    names = [cascade.einsums[number].output for number in way]
    return tuple(name for i, name in enumerate(names) if i == 0 or name != names[i - 1] or len(names) == 2)
