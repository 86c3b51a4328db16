"""Tiles under another rank: what a loop makes along one rank and reads along another one of the same extent.

    X[t+1,i] = X[t,i] + sum[j](A[i,j] * X[t,j])

In: a cascade, an Einsum and what it reads. Out: the ranks of the tensor with those in whose place they are read. The tile of such a
tensor holds both ranks whole: it is the same tile along another axis. Within a loop there is no other way, as no kernel can leave
what a step makes to another one; elsewhere a tensor goes through memory instead.
"""

from __future__ import annotations

from ..einsum.cascade import Access, Cascade, Coord, Einsum, Number, accesses, free_ranks, remembered


def turned(cascade: Cascade, einsum: Einsum, access: Access) -> dict[str, str] | None:
    """Rank of the tensor -> the rank that it is read at, where all that differ are whole ranks of one extent within the loop."""
    tensor = cascade.tensor(access.tensor)
    if tensor.kind == "input":
        return None
    loops = _iterated(cascade)
    found: dict[str, str] = {}
    for rank, index in zip(tensor.ranks, access.indices, strict=True):
        if (isinstance(index, Coord) and index.rank == rank) or rank in loops:
            continue
        if not isinstance(index, Coord) or cascade.rank(index.rank).extent != cascade.rank(rank).extent:
            return None
        found[rank] = index.rank
    if not found:
        return None
    left = frozenset[str]().union(*(free_ranks(index) for index in einsum.indices))
    read = [index.rank for index in access.indices if isinstance(index, Coord)]
    cut = any(cascade.rank(each).split or cascade.rank(each).part_of for pair in found.items() for each in pair)
    if not loops & left & set(tensor.ranks) and not all(_is_short(cascade, rank) for rank in found):
        return None
    return None if cut or len(set(read)) < len(read) else found


@remembered
def _iterated(cascade: Cascade) -> frozenset[str]:
    """Ranks that running states go along."""
    return frozenset(each.iterates for each in cascade.tensors if each.iterates is not None)


def _is_short(cascade: Cascade, rank: str) -> bool:
    """Is its extent a number, as that of a chunk? Then a tile holds it whole, made before the loop or in it."""
    return isinstance(cascade.rank(rank).extent, Number)


@remembered
def turned_pairs(cascade: Cascade) -> frozenset[tuple[str, str]]:
    """All pairs of ranks of which one is read in the place of the other."""
    found = (turned(cascade, einsum, access) for einsum in cascade.einsums for access in accesses(einsum.body))
    return frozenset(pair for one in found if one for pair in one.items())


def alike(cascade: Cascade, rank: str) -> frozenset[str]:
    """Ranks with blocks of one length: a rank, and all that stand in its place or in whose place it stands."""
    pairs, group = turned_pairs(cascade), {rank}
    while more := {b for pair in pairs for a, b in (pair, pair[::-1]) if a in group} - group:
        group |= more
    return frozenset(group)
