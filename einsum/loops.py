"""Cycles of definitions, and which of them a loop can run.

In: a cascade. Out: the cycles that no iterative rank breaks. A read of a state at its current position is what breaks a cycle,
provided that every Einsum of the cycle runs inside that loop and reads the others of the cycle at the same step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Select, children, free_ranks


@dataclass(frozen=True)
class Edge:
    """Einsum `reader` needs what Einsum `writer` defines; `carried`: only from the step before, along this rank."""

    reader: int
    writer: int
    access: Access
    bound: frozenset[str]
    carried: str | None


@dataclass(frozen=True)
class Cycle:
    """Einsums that need one another within one step: (reader, writer) of each read, the read to blame, and the way round."""

    pairs: frozenset[tuple[int, int]]
    blamed: Edge
    way: tuple[str, ...]


Reads: TypeAlias = tuple[tuple[tuple[Access, frozenset[str]], ...], ...]
"""The accesses of each Einsum, with the ranks bound around them."""


def all_reads(cascade: Cascade) -> Reads:
    return tuple(tuple(reads(einsum)) for einsum in cascade.einsums)


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


def impossible_cycles(cascade: Cascade, found: Reads) -> list[Cycle]:
    """Cycles that no loop can run."""
    return _Finder(cascade, found).run()


class _Finder:
    def __init__(self, cascade: Cascade, found: Reads) -> None:
        self.cascade = cascade
        self.tensors = {tensor.name: tensor for tensor in cascade.tensors}
        self.lefts = [_left(einsum) for einsum in cascade.einsums]
        self.edges = list(self.all_edges(found))

    def all_edges(self, found: Reads) -> Iterator[Edge]:
        writers: dict[str, list[int]] = {}
        for number, einsum in enumerate(self.cascade.einsums):
            writers.setdefault(einsum.output, []).append(number)
        for reader, group in enumerate(found):
            for access, bound in group:
                for writer in writers.get(access.tensor, ()):
                    yield Edge(reader, writer, access, bound, self.carried(access, bound, writer))

    def carried(self, access: Access, bound: frozenset[str], writer: int) -> str | None:
        """The iterative rank, where a state is read at its current position, which the step before has written."""
        tensor = self.tensors.get(access.tensor)
        if tensor is None or tensor.iterates is None or tensor.iterates in bound or len(access.indices) != len(tensor.ranks):
            return None
        current = access.indices[tensor.ranks.index(tensor.iterates)] == Coord(tensor.iterates)
        return tensor.iterates if current and tensor.iterates in self.lefts[writer] else None

    def run(self) -> list[Cycle]:
        if all(edge.writer < edge.reader for edge in self.edges):
            return []
        return list(self.unbroken(tuple(range(len(self.cascade.einsums))), self.edges))

    def unbroken(self, members: tuple[int, ...], edges: list[Edge]) -> Iterator[Cycle]:
        for component in _components(members, edges):
            inside = [edge for edge in edges if edge.reader in component and edge.writer in component]
            if not inside:
                continue
            ranks = list(dict.fromkeys(edge.carried for edge in inside if edge.carried is not None))
            loop = next((rank for rank in ranks if all(self.stays(edge, rank) for edge in inside)), None)
            if loop is not None:
                yield from self.unbroken(tuple(sorted(component)), [edge for edge in inside if edge.carried != loop])
                continue
            wrong = [edge for edge in inside if ranks and not self.stays(edge, ranks[0])] or inside
            blamed = min(wrong, key=lambda edge: (edge.carried is not None, edge.writer < edge.reader, edge.reader))
            pairs = frozenset((edge.reader, edge.writer) for edge in inside)
            yield Cycle(pairs, blamed, self.way(inside, blamed))

    def stays(self, edge: Edge, loop: str) -> bool:
        """Does a read inside the loop over a rank see the current step (or an earlier one) alone?"""
        tensor = self.tensors[edge.access.tensor]
        if loop not in self.lefts[edge.reader] or loop not in self.lefts[edge.writer] | {tensor.iterates}:
            return False
        if loop in edge.bound or loop not in tensor.ranks or len(edge.access.indices) != len(tensor.ranks):
            return False
        index = edge.access.indices[tensor.ranks.index(loop)]
        if index == Coord(loop):
            return True
        if tensor.iterates == loop:
            return index == Map("+", (Coord(loop), Number(1)))
        return isinstance(index, Map) and index.op == "-" and index.args[0] == Coord(loop) and isinstance(index.args[1], Number)

    def way(self, inside: list[Edge], first: Edge) -> tuple[str, ...]:
        """Names from the reader of an edge through its writer back to the reader, the shortest way."""
        ways: dict[int, tuple[int, ...]] = {first.writer: (first.reader, first.writer)}
        queue = [first.writer]
        while queue and first.reader not in ways:
            here = queue.pop(0)
            for edge in inside:
                if edge.reader == here and edge.writer not in ways:
                    ways[edge.writer] = (*ways[here], edge.writer)
                    queue.append(edge.writer)
        names = [self.cascade.einsums[number].output for number in ways.get(first.reader, (first.reader, first.writer))]
        return tuple(name for i, name in enumerate(names) if i < 2 or name != names[i - 1])


def _left(einsum: Einsum) -> frozenset[str]:
    """Ranks for each of whose coordinates the Einsum is evaluated."""
    bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
    return frozenset().union(*map(free_ranks, einsum.indices)) - set(bound) if einsum.indices else frozenset()


def _components(members: tuple[int, ...], edges: list[Edge]) -> list[frozenset[int]]:
    """Strongly connected components (Tarjan's algorithm, with a stack of its own)."""
    needs: dict[int, list[int]] = {member: [] for member in members}
    for edge in edges:
        if edge.reader in needs and edge.writer in needs:
            needs[edge.reader].append(edge.writer)
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    open_: list[int] = []
    closed: set[int] = set()
    result: list[frozenset[int]] = []
    for root in members:
        work = [] if root in number else [(root, iter(needs[root]))]
        while work:
            node, rest = work[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                open_.append(node)
            following = next((other for other in rest if other not in closed), None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    at = len(open_) - 1
                    while open_[at] != node:
                        at -= 1
                    result.append(frozenset(open_[at:]))
                    closed.update(open_[at:])
                    del open_[at:]
            elif following in number:
                low[node] = min(low[node], number[following])
            else:
                work.append((following, iter(needs[following])))
    return result
