"""Cuts: the Einsums of a cascade as groups that are a kernel each.

In: a cascade, units of Einsums that cannot be parted, extents. Out: the fewest groups, then those with the fewest words between
them, over all cuts of the units in their order and in orders in which what feeds a unit stands right before it; and each group as a
cascade of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from ..einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Tensor, transform
from ..einsum.diagnostics import EinsmithError
from .blocking import fresh, reads, refuse
from .program import position, program

Groups = list[tuple[Einsum, ...]]
"""The Einsums of each kernel, in the order of launches."""


def alone(cascade: Cascade, groups: Groups, extents: Mapping[str, int]) -> EinsmithError | None:
    """Why a group of Einsums is no kernel even by itself."""
    for number in range(len(groups)):
        try:
            program(as_cascade(cascade, groups, number), extents)
        except EinsmithError as refusal:
            return refusal
    return None


def fewest_groups(cascade: Cascade, groups: Groups, extents: Mapping[str, int]) -> Groups | None:
    """The best cut of the groups in their order, or of the same groups each as late as it may be."""
    orders = [groups, _depth_first(groups, cascade), _depth_first(groups, cascade, last_first=True)]
    different = [order for number, order in enumerate(orders) if order not in orders[:number]]
    known: dict[object, bool] = {}
    found = [cut for order in different if (cut := _cut(cascade, order, extents, known)) is not None]
    return min(found, key=lambda cut: cut[:2])[2] if found else None


def _depth_first(groups: Groups, cascade: Cascade, last_first: bool = False) -> Groups:
    """Groups in an order in which what feeds one stands right before it, the longest way to it first; of ways as long the first
    as written, or the last."""
    owner = {e.output: number for number, group in enumerate(groups) for e in group}
    feeds = [
        sorted({owner[a.tensor] for e in group for a in reads(e) if a.tensor in owner} - {n}) for n, group in enumerate(groups)
    ]
    depth: list[int] = []
    for number in range(len(groups)):  # in an order in which all that feeds a group stands before it
        depth.append(1 + max((depth[n] for n in feeds[number]), default=0))
    order: dict[int, None] = {}
    todo = [(owner[name], False) for name in reversed(cascade.outputs) if name in owner]
    while todo:
        number, fed = todo.pop()
        if fed:
            order.setdefault(number)
        elif number not in order:
            todo.append((number, True))
            todo += [(n, False) for n in sorted(feeds[number], key=lambda n: (depth[n], n if last_first else -n))]
    return [groups[n] for n in (*order, *(n for n in range(len(groups)) if n not in order))]


def _cut(cascade: Cascade, groups: Groups, extents: Mapping[str, int], known: dict[object, bool]) -> tuple[int, int, Groups] | None:
    """The fewest kernels, then the fewest words between them: how many of each, and the groups of each kernel. `known`: parts that
    were found to be a kernel or none. A part is one only if so are those that begin like it, but for a single group; whether parts
    are is found out for those that would lead to a better cut."""

    def can_be(part: Cascade, together: tuple[Einsum, ...]) -> bool:
        key = (frozenset(e.output for e in together), frozenset(part.outputs))
        if key not in known:
            known[key] = is_kernel(part, cascade, extents)
        return known[key]

    count = len(groups)
    best: list[tuple[int, int, Groups] | None] = [None] * (count + 1)
    best[0] = (0, 0, [])
    for start in range(count):
        here = best[start]
        if here is None:
            continue
        shorter: list[tuple[Cascade, tuple[Einsum, ...]]] = []
        for end in range(start + 1, count + 1):
            together = tuple(e for group in groups[start:end] for e in group)
            rest = tuple(e for group in groups[end:] for e in group)
            part = as_cascade(cascade, [together, rest], 0)
            if _parts_a_loop(part, cascade):
                continue  # what follows may be the rest of the loop
            found = (here[0] + 1, here[1] + words(part, extents), [*here[2], together])
            other = best[end]
            if other is not None and found[:2] >= other[:2]:
                if end > start + 1:
                    shorter.append((part, together))
                continue
            if not can_be(part, together):
                if end > start + 1:
                    break
                continue
            if not all(can_be(*one) for one in shorter):
                break
            shorter.clear()
            best[end] = found
    return best[count]


def is_kernel(part: Cascade, cascade: Cascade, extents: Mapping[str, int]) -> bool:
    """Can a part of a cascade be a kernel?"""
    try:
        _check(part, cascade, extents)
    except EinsmithError:
        return False
    return True


def _check(part: Cascade, cascade: Cascade, extents: Mapping[str, int]) -> None:
    """Raises EinsmithError where a part of a cascade cannot be a kernel."""
    state = _parts_a_loop(part, cascade)
    if state:
        raise refuse("E604", f"`{state}` is read within its loop by another kernel")
    program(part, extents)


def _parts_a_loop(part: Cascade, cascade: Cascade) -> str | None:
    """A state that something outside of the part reads within its loop."""
    states = (name for name in part.outputs if part.tensor(name).kind == "state" and name not in cascade.outputs)
    return next(states, None)


def words(part: Cascade, extents: Mapping[str, int]) -> int:
    """Elements that a part writes."""
    return sum(prod(extents.get(r, 1) for r in part.tensor(name).ranks) for name in part.outputs)


def units_of(cascade: Cascade, inside: Collection[str] = ()) -> Groups:
    """Einsums that cannot be parted (a running state and what its step needs of it; what makes a tensor `inside` and what reads
    it), in an order in which each comes after what it reads."""
    import networkx as nx

    order = {e.output: number for number, e in reversed(list(enumerate(cascade.einsums)))}
    graph: Any = nx.DiGraph()
    graph.add_nodes_from(order)
    for einsum in cascade.einsums:
        graph.add_edges_from((a.tensor, einsum.output) for a in reads(einsum) if a.tensor in order and a.tensor != einsum.output)
    graph.add_edges_from([(after, before) for before, after in graph.edges if before in inside])
    condensed = nx.condensation(graph)

    def place(node: int) -> int:
        return min(order[name] for name in condensed.nodes[node]["members"])

    return [
        tuple(e for e in cascade.einsums if e.output in condensed.nodes[node]["members"])
        for node in nx.lexicographical_topological_sort(condensed, key=place)
    ]


def components(group: tuple[Einsum, ...]) -> Groups:
    """Einsums that feed each other, directly or not, in their order."""
    import networkx as nx

    graph: Any = nx.Graph()
    made = {e.output for e in group}
    graph.add_nodes_from(made)
    for einsum in group:
        graph.add_edges_from((einsum.output, a.tensor) for a in reads(einsum) if a.tensor in made)
    parts = [tuple(e for e in group if e.output in names) for names in nx.connected_components(graph)]
    return sorted(parts, key=lambda part: group.index(part[0]))


def by_depth(units: Groups, lone: Sequence[bool]) -> list[Groups]:
    """Groups in levels, those that are to be alone in levels of their own: each level reads earlier ones and itself only."""
    owner = {e.output: number for number, unit in enumerate(units) for e in unit}
    levels: dict[tuple[int, int], Groups] = {}
    depth: list[int] = []
    for number, unit in enumerate(units):
        fed = {owner[a.tensor] for e in unit for a in reads(e) if a.tensor in owner} - {number}
        depth.append(max((depth[n] for n in fed), default=0) + lone[number])
        levels.setdefault((depth[number], 0 if lone[number] else 1), []).append(unit)
    return [levels[level] for level in sorted(levels)]


def as_cascade(cascade: Cascade, groups: Groups, number: int) -> Cascade:
    """One group as a cascade of its own: what it reads from outside is an input, what others read or the user wants an output."""
    mine = groups[number]
    made = {e.output for e in mine}
    wanted = {a.tensor for group in groups[number + 1 :] for e in group for a in reads(e)} | set(cascade.outputs)
    needed = {a.tensor for e in mine for a in reads(e)} - made
    inputs = [t if t.kind == "input" else replace(t, kind="input", iterates=None) for t in cascade.tensors if t.name in needed]
    rest = [t for t in cascade.tensors if t.name in made]
    outputs = tuple(t.name for t in rest if t.name in wanted)
    name = cascade.name if len(groups) == 1 else f"{cascade.name}-{outputs[0] if outputs else number}"
    return replace(cascade, name=name, tensors=(*inputs, *rest), einsums=mine, outputs=outputs)


def with_last_positions(cascade: Cascade) -> Cascade:
    """A tensor for the last position of each running state that Einsums outside of its loop read."""
    einsums, tensors = list(cascade.einsums), list(cascade.tensors)
    for state in [t for t in cascade.tensors if t.kind == "state"]:
        place = state.ranks.index(state.iterates or "")
        name = fresh(replace(cascade, tensors=tuple(tensors)), f"{state.name}_last")
        ranks = tuple(rank for rank in state.ranks if rank != state.iterates)
        last: list[Expr] = []

        def moved(
            node: Expr, owner: Einsum, state: Tensor = state, place: int = place, name: str = name, last: list[Expr] = last
        ) -> Expr:
            if not isinstance(node, Access) or node.tensor != state.name or owner.output == state.name:
                return node
            if position(cascade, state.name, node.indices[place]) != "last":
                return node
            last.append(node.indices[place])
            return Access(name, (*node.indices[:place], *node.indices[place + 1 :]))

        einsums = [replace(e, body=transform(e.body, lambda node, owner=e: moved(node, owner))) for e in einsums]  # type: ignore[misc]
        if last:
            after = max(number for number, e in enumerate(einsums) if e.output == state.name) + 1
            own = tuple(Coord(rank) for rank in ranks)
            einsums.insert(after, Einsum(name, own, Access(state.name, (*own[:place], last[0], *own[place:]))))
            tensors.insert(tensors.index(state) + 1, Tensor(name, ranks, state.dtype))
    return replace(cascade, einsums=tuple(einsums), tensors=tuple(tensors))
