"""Groups that are the same but for the names of their ranks and tensors: layers of a network, products of a chain.

In: the problem of one group. Out: its `Signature`: what decides its mappings and their cost, with numbers for names; and the
mapping of one group written for another with an equal signature.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from ..einsum.cascade import Coord, Reduce, Scalar, Scan, Select
from .mapping import Binding, Group, Loop
from .steps import iterated

if TYPE_CHECKING:
    from .problem import Problem


@dataclass(frozen=True)
class Signature:
    """A group without names."""

    key: Any
    ranks: tuple[str, ...]
    """The name that each number stands for."""
    tensors: tuple[str, ...]

    def rename(self, group: Group, like: Signature) -> Group:
        """A mapping of the group `like` as one of this group, which has the same key."""
        ranks = dict(zip(like.ranks, self.ranks, strict=True))
        tensors = dict(zip(like.tensors, self.tensors, strict=True))

        def names(listed: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(tensors[name] for name in listed)

        def loop(old: Loop) -> Loop:
            hold = {level: names(held) for level, held in old.hold.items()} if isinstance(old.hold, dict) else names(old.hold)
            return old.model_copy(update={"rank": ranks[old.rank], "hold": hold})

        einsums = {
            tensors[name]: Binding(array=b.array, spatial=tuple(tuple(ranks[rank] for rank in along) for along in b.spatial))
            for name, b in group.einsums.items()
        }
        return group.model_copy(
            update={
                "loops": tuple(loop(old) for old in group.loops),
                "einsums": einsums,
                "stay": {tensors[name]: place for name, place in group.stay.items()},
                "bypass": {level: names(held) for level, held in group.bypass.items()},
            }
        )


def signature(problem: Problem) -> Signature | None:
    """The signature of a group; None where masks may leave tiles out, which depends on all of the cascade."""
    if problem.masked or problem.fixed.particular or problem.fixed.peel:
        return None
    cascade, sizes = problem.cascade, problem.sizes
    tensors: dict[str, int] = {}
    einsums = [einsum for einsum in cascade.einsums if einsum.output in problem.names]
    used = frozenset().union(*(iterated(einsum) for einsum in einsums))
    listed = [rank.name for rank in cascade.ranks if rank.name in used]  # their order decides between equals
    split = {rank.name for rank in cascade.ranks if rank.split and {rank.split.outer, rank.split.inner} & used}
    listed += [rank.name for rank in cascade.ranks if rank.name in split - used]
    ranks = {name: number for number, name in enumerate(listed)}

    def rank(name: str | None) -> int | None:
        return None if name is None else ranks.setdefault(name, len(ranks))

    def plain(value: Any) -> Any:
        match value:
            case Coord(rank=name):
                return "rank", rank(name)
            case Scalar(name=name):
                return "scalar", sizes.scalars.get(name)
            case Reduce(op=op, ranks=names, body=body):
                return op, tuple(rank(name) for name in names), plain(body)
            case Scan(op=op, rank=name, body=body):
                return op, rank(name), plain(body)
            case Select(op=op, rank=name, fills=fills, body=body):
                return op, rank(name), rank(fills), plain(body)
        if is_dataclass(value):
            return (
                type(value).__name__,
                *(
                    tensors.setdefault(part, len(tensors)) if field.name == "tensor" else plain(part)
                    for field in fields(value)
                    if field.name != "span"
                    for part in [getattr(value, field.name)]
                ),
            )
        return tuple(plain(part) for part in value) if isinstance(value, tuple) else value

    body = tuple((tensors.setdefault(einsum.output, len(tensors)), plain(einsum.indices), plain(einsum.body)) for einsum in einsums)
    declared = []
    for name in tensors:
        tensor = cascade.tensor(name)
        shape = tuple(rank(r) for r in tensor.ranks), tensor.kind == "state", rank(tensor.iterates)
        declared.append((*shape, name in problem.names, name in problem.leaving, problem.fixed.arrays.get(name)))
    extents = tuple(
        (sizes.extents[name], problem.fixed.tiles.get(name), _split(cascade.rank(name).split, ranks, plain)) for name in list(ranks)
    )
    return Signature((body, tuple(declared), extents), tuple(ranks), tuple(tensors))


def _split(split: Any, ranks: Map_[str, int], plain: Any) -> Any:
    return None if split is None else (ranks.get(split.outer), ranks.get(split.inner), plain(split.tile))
