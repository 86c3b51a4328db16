"""Merging ranks: two ranks of one extent that never meet are one.

before    KV[m+1,e,f] = KV[m,e,f] + K[m,e] * V[m,f]
          Y[p,f]      = sum[e](Q[p,e] * KV[p+1,e,f])
after     KV[m+1,e,f] = KV[m,e,f] + K[m,e] * V[m,f]
          Y[m,f]      = sum[e](Q[m,e] * KV[m+1,e,f])

Then what reads the running state at its position runs inside the loop, and no position of the state need be kept.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Reduce, Scan, Select, Tensor, accesses, free_ranks, rebuild, walk
from .algebra import canonical
from .step import Rewritten, Step, shown, text

NAME = "merge-ranks"


def merge_ranks(cascade: Cascade, rank: str) -> Rewritten | None:
    """Give the ranks at which states along `rank` are read its name, where they have its extent and never meet it."""
    states = {tensor.name: tensor for tensor in cascade.tensors if tensor.kind == "state" and tensor.iterates == rank}
    if not states:
        return None
    for other in _reading(cascade, states, rank):
        declared = cascade.rank(other)
        if declared.split is not None or declared.part_of is not None:
            continue
        if canonical(declared.extent) != canonical(cascade.rank(rank).extent) or _meet(cascade, rank, other):
            continue
        return _merged(cascade, rank, other)
    return None


def _reading(cascade: Cascade, states: dict[str, Tensor], rank: str) -> list[str]:
    """Other ranks at which the states are read, at their current or next position."""
    found: dict[str, None] = {}
    for einsum in cascade.einsums:
        for node in accesses(einsum.body):
            if node.tensor not in states:
                continue
            index = node.indices[states[node.tensor].ranks.index(rank)]
            match index:
                case Coord(rank=other) | Map(op="+", args=(Coord(rank=other), _)) if other != rank:
                    found[other] = None
    return list(found)


def _meet(cascade: Cascade, rank: str, other: str) -> bool:
    """Does an Einsum or a tensor have both?"""
    if any({rank, other} <= set(tensor.ranks) for tensor in cascade.tensors):
        return True
    return any({rank, other} <= _all_ranks(einsum) for einsum in cascade.einsums)


def _all_ranks(einsum: Einsum) -> set[str]:
    found: set[str] = set()
    for expr in (einsum.body, *einsum.indices):
        found |= free_ranks(expr)
        for node in walk(expr):
            match node:
                case Reduce(ranks=bound):
                    found.update(bound)
                case Scan(rank=one):
                    found.add(one)
                case Select(rank=one, fills=filled):
                    found.update((one, filled))
    return found


def _merged(cascade: Cascade, rank: str, other: str) -> Rewritten:
    def renamed(expr: Expr) -> Expr:
        match expr:
            case Coord(rank=name) if name == other:
                return replace(expr, rank=rank)
            case Reduce(ranks=ranks, body=body):
                return replace(expr, ranks=tuple(rank if name == other else name for name in ranks), body=renamed(body))
            case Scan(rank=name, body=body) | Select(rank=name, body=body):
                new = replace(expr, rank=rank if name == other else name, body=renamed(body))
                return replace(new, fills=rank) if isinstance(new, Select) and new.fills == other else new
            case Access(indices=indices):
                return replace(expr, indices=tuple(renamed(index) for index in indices))
            case Map(args=args):
                return replace(expr, args=tuple(renamed(arg) for arg in args))
            case _:
                return rebuild(expr, ())

    einsums = tuple(
        replace(einsum, body=renamed(einsum.body), indices=tuple(renamed(index) for index in einsum.indices))
        for einsum in cascade.einsums
    )
    tensors = tuple(
        replace(tensor, ranks=tuple(rank if name == other else name for name in tensor.ranks)) for tensor in cascade.tensors
    )
    ranks = tuple(each for each in cascade.ranks if each.name != other)
    after = replace(cascade, einsums=einsums, tensors=tensors, ranks=ranks)
    changed = [(old, new) for old, new in zip(cascade.einsums, einsums, strict=True) if old != new]
    extent = text(cascade.rank(rank).extent)
    step = Step(
        NAME,
        other,
        shown([old for old, _ in changed], cascade),
        f"`{other}` is `{rank}`",
        f"both have {extent} positions, and no Einsum has both",
        shown([new for _, new in changed], after),
    )
    return Rewritten(after, step)
