"""Positions of running states as tensors, so that what reads them within the loop may be done by another kernel.

In: a cascade that iterates several ranks; no kernel walks two, so its loops are kernels apart. Out: the same cascade, in which each
Einsum outside of a state's own loop reads its position before or after the step from a tensor with an element for each step.

before    M[t+1] = max(M[t] - 1, X[t])            after    M[t+1]    = max(M[t] - 1, X[t])
          Y[t]   = exp(X[t] - M[t+1]) * N[t]               M_next[t] = M[t+1]
                                                           Y[t]      = exp(X[t] - M_next[t]) * N[t]
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Tensor, transform
from ..einsum.flatten import flatten
from .blocking import fresh, reads
from .program import position


def states_apart(cascade: Cascade) -> tuple[Cascade, list[tuple[Einsum, ...]]] | None:
    """The cascade with its states' positions as tensors, and its Einsums as what the states need and the rest; None unless the rest
    sums up along a rank that a state goes along: a kernel that walks both cannot be derived, one without the states can."""
    states = [tensor for tensor in cascade.tensors if tensor.kind == "state"]
    stepped = with_steps(flatten(cascade), always=True)
    early = {e.output for e in stepped.einsums if isinstance(e.body, Access) and stepped.tensor(e.body.tensor) in states}
    early |= {name for state in states for name in _feeding(state.name, stepped)}
    first, rest = (tuple(e for e in stepped.einsums if (e.output in early) is before) for before in (True, False))
    walked = {state.iterates for state in states}
    summed = any(isinstance(e.body, Reduce) and walked & set(e.body.ranks) for e in rest)
    within = {access.tensor for e in rest for access in reads(e)} & {state.name for state in states}
    return (stepped, [first, rest]) if summed and not within and not early & set(cascade.outputs) else None


def with_steps(cascade: Cascade, inside: Collection[str] = (), always: bool = False) -> Cascade:
    """A tensor for the position before, or after, each step of a state that Einsums outside of its loop read, those `inside`
    excepted: nothing lies between them and what they read."""
    if not always and len({tensor.iterates for tensor in cascade.tensors if tensor.kind == "state"}) < 2:
        return cascade
    for state in [tensor for tensor in cascade.tensors if tensor.kind == "state"]:
        cascade = _of(state, cascade, {*inside, *_feeding(state.name, cascade)})
    return cascade


def _of(state: Tensor, cascade: Cascade, inside: set[str]) -> Cascade:
    assert state.iterates is not None
    place = state.ranks.index(state.iterates)
    own = tuple(Coord(rank) for rank in state.ranks)
    after: dict[str, Expr] = {"now": own[place], "next": Map("+", (own[place], Number(1)))}
    names: dict[str, str] = {}

    def moved(node: Expr) -> Expr:
        if not isinstance(node, Access) or node.tensor != state.name:
            return node
        which = position(cascade, state.name, node.indices[place])
        if which not in after:
            return node
        if which not in names:
            names[which] = fresh(cascade, f"{state.name}_{which}")
        return Access(names[which], (*node.indices[:place], own[place], *node.indices[place + 1 :]))

    einsums = [e if e.output in inside else replace(e, body=transform(e.body, moved)) for e in cascade.einsums]
    made = [Einsum(name, own, Access(state.name, (*own[:place], after[which], *own[place + 1 :]))) for which, name in names.items()]
    last = max(number for number, einsum in enumerate(einsums) if einsum.output == state.name) + 1
    tensors = (*cascade.tensors, *(Tensor(name, state.ranks, state.dtype) for name in names.values()))
    return replace(cascade, tensors=tensors, einsums=(*einsums[:last], *made, *einsums[last:]))


def _feeding(name: str, cascade: Cascade) -> set[str]:
    """The state, and all that its step needs."""
    found: set[str] = set()
    todo = [name]
    while todo:
        here = todo.pop()
        if here not in found:
            found.add(here)
            todo += [access.tensor for einsum in cascade.definitions(here) for access in reads(einsum)]
    return found
