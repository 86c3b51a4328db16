"""Blocking: a cascade in which everything that reduces over the sequential rank does so step by step.

In: a flat cascade. Out: the same function, in which at most one rank is walked in order (the loop of a GPU program), and each
reduction over it is a running state. Before and after, for a rank that the cascade does not iterate itself:

    AV[p,f] = sum[m](A[p,m] * V[m,f])      AV_tile[p,m1,f]  = sum[m0](A[p,m1,m0] * V[m1*M0+m0,f])
                                           AV_run[m1+1,p,f] = AV_run[m1,p,f] + AV_tile[p,m1,f]
                                           AV[p,f]          = AV_run[M1,p,f]

Which rank is walked is read off the data flow: one that the cascade iterates; else one that is reduced and that an intermediate
tensor or an output carries (its tile would otherwise be whole); else, where nothing is carried at all, a reduced rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..einsum.cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    Split,
    Tensor,
    accesses,
    ceil_div,
    children,
    free_ranks,
    needed_for,
    rebuild,
    substitute,
    transform,
    walk,
)  # fmt: skip
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.flatten import IDENTITY, flatten
from .turned import turned, turned_pairs

ACCUMULATE = {"sum": "+", "mean": "+", "prod": "*", "max": "max", "min": "min", "any": "or", "all": "and"}
"""The binary operation that carries on each reduction."""

SMALL = 4096
"""A rank up to this extent, elements, that is needed at several levels may be held whole rather than read once per level."""


LONGEST_WINDOW = 256
"""A rank up to this extent along which blocks of coordinates share an operand is held whole: a tile of scores has room for it."""


@dataclass(frozen=True)
class Recast:
    """A flat cascade, maybe with other ranks in the place of those of its outputs."""

    cascade: Cascade
    stores: Mapping[str, tuple[Expr, ...]]
    """Where each output is written: its index expressions in terms of the ranks of the cascade."""
    made: frozenset[str] = frozenset()
    """Ranks that stand for others: outputs are written at expressions of them."""


@dataclass(frozen=True)
class Blocked:
    """A cascade ready to be scheduled as a GPU program."""

    cascade: Cascade
    loop: str | None
    """The rank walked in order; None if there is none."""
    inner: str | None
    """The inner part of a split whose outer part is `loop`: the tile of one step."""
    free_tile: bool
    """The extent of `inner` was chosen here: it may be changed without changing the function."""
    stores: Mapping[str, tuple[Expr, ...]]
    """Where each output is written: its index expressions in terms of the ranks of the blocked cascade."""
    made: frozenset[str] = frozenset()
    """Ranks of the grid that stand for others of the cascade."""


def refuse(code: str, message: str, einsum: Einsum | None = None, help: str = "") -> EinsmithError:
    """A diagnostic at an Einsum."""
    return EinsmithError(Diagnostic(code, message, einsum.span if einsum else None, help=help))


def in_place(cascade: Cascade) -> Recast:
    """A cascade as it is, flat, in which intermediates are read in place."""
    flat = flatten(cascade)
    check_supported(flat)
    flat = inline(in_tiles(flat))
    return Recast(flat, {name: identity(flat.tensor(name)) for name in flat.outputs})


def block(cast: Recast, extents: Mapping[str, int], small: int = SMALL, *, hold: bool = False) -> Blocked:
    """Choose the sequential rank and make all reductions over it running states. `extents` guide the choice only. `hold`: a rank
    that the cascade does not iterate itself is held whole."""
    flat, made = cast.cascade, cast.made
    stores = dict(cast.stores)
    iterated = {tensor.iterates for tensor in flat.tensors if tensor.iterates is not None}
    if len(iterated) > 1:
        names = " and ".join(f"`{rank}`" for rank in sorted(iterated))
        raise refuse("E602", f"the cascade iterates {names}: one kernel walks one rank")
    free_tile = False
    if iterated:
        (loop,) = iterated
        parent = flat.rank(loop).part_of
    else:
        chosen = None if hold else sequential_rank(flat, extents, small)
        if chosen is None:
            return Blocked(guard_tails(flat, None), None, None, False, stores, made)
        rank = flat.rank(chosen)
        if rank.part_of is not None:
            loop, parent = chosen, rank.part_of
        else:
            flat = split(flat, chosen)
            parent, free_tile = chosen, True
            loop = flat.rank(chosen).split.outer  # type: ignore[union-attr]
    inner = None
    by_tile = frozenset(name for name in flat.outputs if loop in flat.tensor(name).ranks)
    if parent is not None:
        flat, stores = cut(flat, parent, stores)
        inner = flat.rank(parent).split.inner  # type: ignore[union-attr]
    return Blocked(accumulate(guard_tails(flat, loop, by_tile), loop), loop, inner, free_tile, stores, made)


def guard_tails(cascade: Cascade, loop: str | None, by_tile: frozenset[str] = frozenset()) -> Cascade:
    """Conditions in place of the points that a tile beyond the end of a split rank does not have, where no loop leaves them out.

    `by_tile` are outputs that are written tile by tile along the loop, points that are not there too.

    mean[p0](X[p1*G+p0])     sum[p0](where(p1*G+p0 < P, X[p1*G+p0], 0)) / min(G, P - p1*G)
    Y[p1,p0] = X[p1*G+p0]    Y[p1,p0] = where(p1*G+p0 < P, X[p1*G+p0], 0)
    """

    def guarded(einsum: Einsum) -> Einsum:
        body = einsum.body
        if cascade.tensor(einsum.output).kind != "einsum":
            return einsum
        outside = frozenset().union(*(free_ranks(index) for index in einsum.indices))
        bound = {*bound_ranks(einsum), *([body.rank] if isinstance(body, Select) else [])}
        splits = [
            rank
            for rank in cascade.domain_splits(outside | bound)
            if rank.split is not None
            and not divides(rank)
            and (rank.split.outer != loop or einsum.output in by_tile or (loop in bound and rank.split.inner not in bound))
        ]
        within = [r for r in splits if r.split is not None and {r.split.outer, r.split.inner} & bound]
        if isinstance(body, Reduce) and body.op in ACCUMULATE:
            body = _guarded_reduction(cascade, body, within)
        elif isinstance(body, Reduce | Select):  # what finds the best: a point that is not there is the worst
            worst = IDENTITY["min" if body.op == "argmin" else "max"]
            for rank in within:
                body = replace(body, body=Map("where", (_exists(cascade, rank), body.body, worst)))
        beside = [rank for rank in splits if rank not in within]
        summed = isinstance(body, Reduce | Scan)
        if summed:  # at such points nothing is read; what is made there nobody reads, unless it is an output
            body = _guarded_reads(cascade, body, beside)
        for rank in beside if not summed or einsum.output in cascade.outputs else ():
            body = Map("where", (_exists(cascade, rank), body, Number(0)))
        return replace(einsum, body=body)

    return flatten(replace(cascade, einsums=tuple(guarded(einsum) for einsum in cascade.einsums)))


def _guarded_reduction(cascade: Cascade, body: Reduce, splits: list[Rank]) -> Expr:
    """A reduction that leaves out what tiles do not have; a mean is divided by what they have."""
    if not splits:
        return body
    inside: Expr = body.body
    count: Expr = Number(1)
    left = list(body.ranks)
    for rank in splits:
        parts = rank.split
        assert parts is not None
        inside = Map("where", (_exists(cascade, rank), inside, IDENTITY["sum" if body.op == "mean" else body.op]))
        within = rank.extent
        if parts.outer not in body.ranks:
            within = Map("min", (parts.tile, Map("-", (rank.extent, Map("*", (Coord(parts.outer), parts.tile))))))
        elif parts.inner not in body.ranks:
            within = ceil_div(Map("-", (rank.extent, Coord(parts.inner))), parts.tile)
        count = Map("*", (count, within))
        left = [name for name in left if name not in (parts.outer, parts.inner)]
    if body.op != "mean":
        return Reduce(body.op, body.ranks, inside)
    for name in left:
        count = Map("*", (count, cascade.rank(name).extent))
    return Map("/", (Reduce("sum", body.ranks, inside), count))


def _guarded_reads(cascade: Cascade, body: Expr, splits: list[Rank]) -> Expr:
    """With 0 for inputs at points that tiles do not have."""

    def guarded(node: Expr) -> Expr:
        for rank in splits:
            if reads_whole(cascade, rank, node):
                return Map("where", (_exists(cascade, rank), node, Number(0)))
        return node

    return transform(body, guarded) if splits else body


def reads_whole(cascade: Cascade, rank: Rank, node: Expr) -> bool:
    """Is an input read at the coordinate of a split rank, which a tile may have beyond the end?"""
    match node:
        case Access(tensor=name, indices=indices):
            return cascade.tensor(name).kind == "input" and whole_coordinate(cascade, rank.name) in indices
    return False


def _exists(cascade: Cascade, rank: Rank) -> Expr:
    """Is a point of a tile one of the split rank?"""
    return Map("<", (whole_coordinate(cascade, rank.name), rank.extent))


def divides(rank: Rank) -> bool:
    """Does the tile of a split rank divide its extent, by the form of the two?"""
    return isinstance(rank.extent, Map) and rank.extent.op == "*" and rank.split is not None and rank.split.tile in rank.extent.args


def check_supported(cascade: Cascade) -> None:
    """Refuse what no kernel is generated for, naming the Einsum."""
    for einsum in cascade.einsums:
        if cascade.tensor(einsum.output).kind == "scatter":
            raise refuse("E603", f"one kernel does not scatter, as the Einsum of `{einsum.output}` does", einsum)


def needs_whole(einsum: Einsum) -> str | None:
    """The rank that an Einsum needs in one tile, as it finds positions along it: no tile of a loop will do."""
    body = einsum.body
    if isinstance(body, Select):
        return body.rank
    return body.ranks[0] if isinstance(body, Reduce) and body.op in ("argmax", "argmin") else None


def identity(tensor: Tensor) -> tuple[Expr, ...]:
    return tuple(Coord(rank) for rank in tensor.ranks)


def _own(cascade: Cascade, rank: str, index: Expr) -> bool:
    """Is a tensor read at its own coordinate along a rank, written whole or in parts?"""
    return index == Coord(rank) or (cascade.rank(rank).split is not None and index == whole_coordinate(cascade, rank))


def in_tiles(cascade: Cascade) -> Cascade:
    """Tensors by tiles that are read at `m//M0` and `m%M0` are read at their own `m1` and `m0`, where `m1` is walked in order."""
    iterated = {tensor.iterates for tensor in cascade.tensors if tensor.iterates is not None}
    for name in iterated:
        parent = cascade.rank(name).part_of if name is not None else None
        parts = cascade.rank(parent).split if parent is not None else None
        if parent is None or parts is None:
            continue
        own = {
            Map("//", (Coord(parent), parts.tile)): Coord(parts.outer),
            Map("%", (Coord(parent), parts.tile)): Coord(parts.inner),
        }
        einsums = []
        for einsum in cascade.einsums:
            inside = Coord(parent) in einsum.indices
            body = transform(einsum.body, lambda node, own=own: own.get(node, node)) if inside else einsum.body  # type: ignore[misc]
            einsums.append(replace(einsum, body=body))
        cascade = replace(cascade, einsums=tuple(einsums))
    return cascade


def inline(cascade: Cascade) -> Cascade:
    """Put the definition in place of an element-wise intermediate that is read elsewhere than at its own coordinates."""
    bodies: dict[str, tuple[tuple[str, ...], Expr]] = {}
    einsums: list[Einsum] = []
    walked = {tensor.iterates for tensor in cascade.tensors} | {r for e in cascade.einsums for r in (*bound_ranks(e), *scanned(e))}

    def in_parts(rank: str, index: Expr) -> bool:
        """Is a rank read by its parts, of which no loop can walk the outer one? Then nothing else reads it by them."""
        parts = cascade.rank(rank).split
        return parts is not None and index != Coord(rank) and parts.outer not in walked

    for einsum in cascade.einsums:

        def shifted(node: Expr, owner: Einsum = einsum) -> Expr:
            if not isinstance(node, Access):
                return node
            tensor = cascade.tensor(node.tensor)
            places = tuple(zip(tensor.ranks, node.indices, strict=True))
            if tensor.kind != "einsum" or all(_own(cascade, r, i) and not in_parts(r, i) for r, i in places):
                return node
            made = node.tensor in bodies and all(cascade.tensor(a.tensor).kind == "input" for a in accesses(bodies[node.tensor][1]))
            if not made and turned(cascade, owner, node):
                return node  # the same tile under another rank, rather than done again
            if node.tensor not in bodies or _by_tiles(cascade, tensor, bodies[node.tensor][1]):
                raise refuse(
                    "E604",
                    f"`{node.tensor}` is read at other coordinates than its own in the Einsum of `{owner.output}`",
                    replace(owner, span=node.span or owner.span),
                    "a kernel holds a tile of each intermediate; only an element-wise one can be computed again elsewhere",
                )
            ranks, body = bodies[node.tensor]
            return transform(substitute(body, dict(zip(ranks, node.indices, strict=True))), shifted)

        body = transform(einsum.body, shifted)
        einsums.append(replace(einsum, body=body))
        if not isinstance(body, Reduce | Scan | Select) and cascade.tensor(einsum.output).kind == "einsum":
            bodies[einsum.output] = (cascade.tensor(einsum.output).ranks, body)
    return live(replace(cascade, einsums=tuple(einsums)))


def _by_tiles(cascade: Cascade, tensor: Tensor, body: Expr) -> bool:
    """Is an Einsum along a rank computed from what lies by tiles of it?"""
    splits = [cascade.rank(rank).split for rank in tensor.ranks]
    return any(split is not None and {split.outer, split.inner} & free_ranks(body) for split in splits)


def live(cascade: Cascade) -> Cascade:
    """Without the tensors that no output depends on."""
    needed = needed_for(cascade, cascade.outputs)
    return replace(
        cascade,
        tensors=tuple(t for t in cascade.tensors if t.kind == "input" or t.name in needed),
        einsums=tuple(e for e in cascade.einsums if e.output in needed),
    )


def bound_ranks(einsum: Einsum) -> tuple[str, ...]:
    return einsum.body.ranks if isinstance(einsum.body, Reduce) else ()


def scanned(einsum: Einsum) -> tuple[str, ...]:
    return (einsum.body.rank,) if isinstance(einsum.body, Scan) else ()


def sequential_rank(cascade: Cascade, extents: Mapping[str, int], small: int = SMALL) -> str | None:
    """The reduced rank to walk in order, by data flow; None if what is reduced is held whole, being at most `small` long."""
    reduced = {rank for einsum in cascade.einsums for rank in (*bound_ranks(einsum), *scanned(einsum))}
    reduced -= {rank for einsum in cascade.einsums if (rank := needs_whole(einsum)) is not None}
    reduced -= {rank for pair in turned_pairs(cascade) for rank in pair}
    outers = {r for r in reduced if (p := cascade.rank(r).part_of) and cascade.rank(p).split.outer == r}  # type: ignore[union-attr]
    reduced -= {r for r in reduced if cascade.rank(r).part_of and r not in outers}
    carried = {rank for t in cascade.tensors if t.kind != "input" for rank in t.ranks}
    candidates = sorted(reduced & carried, key=lambda r: (-extents.get(r, 0), r))
    if not candidates:
        product = [e for e in cascade.einsums if isinstance(e.body, Reduce) and len({a.tensor for a in accesses(e.body)}) > 1]
        plain = sorted(reduced, key=lambda r: (-extents.get(r, 0), r))
        return plain[0] if plain and (product or extents.get(plain[0], 0) > small) else None
    if len(candidates) > 1:
        # ranks between channels (small, both ends of a product) may be held whole; a second long one may not
        long = [r for r in candidates if extents.get(r, 0) > 256]
        if len(long) > 1:
            raise refuse(
                "E602",
                "the cascade reduces over "
                + " and ".join(f"`{r}`" for r in long)
                + " tensors that carry both: it needs more than one kernel",
                next(e for e in cascade.einsums if set(bound_ranks(e)) & set(long[1:])),
            )
    first = candidates[0]
    contracted = any(_crosses(einsum, first) for einsum in cascade.einsums)
    if any(_crosses(einsum, first, in_blocks=True) for einsum in cascade.einsums):
        contracted |= extents.get(first, 0) > LONGEST_WINDOW or _bounded(cascade, first)
    return None if extents.get(first, small + 1) <= small and not contracted and cascade.rank(first).part_of is None else first


def _crosses(einsum: Einsum, rank: str, in_blocks: bool = False) -> bool:
    """Does an Einsum contract two tensors over a rank, each with a rank of its own? `in_blocks`: where a coordinate matters by its
    block, or by its place in the block, only, one of the two can be made the same for a whole tile (`recast`)."""
    if rank not in bound_ranks(einsum):
        return False
    body = transform(einsum.body, _without_blocks) if in_blocks else einsum.body
    found = [free_ranks(access) for access in accesses(body) if rank in free_ranks(access)]
    return any(a - b and b - a for a in found for b in found)


def _without_blocks(node: Expr) -> Expr:
    match node:
        case Map(op="//" | "%", args=(Coord(), Number() | Scalar())):
            return Number(0)
        case _:
            return node


def _bounded(cascade: Cascade, rank: str) -> bool:
    """Does a condition leave some coordinates of a rank, which others depending on where one stands? Then steps can be skipped."""
    return any(
        isinstance(node, Map) and node.op == "where" and rank in (ranks := free_ranks(node.args[0])) and len(ranks) > 1
        for einsum in cascade.einsums
        for node in walk(einsum.body)
    )


def fresh(cascade: Cascade, wanted: str) -> str:
    """A name that nothing has yet."""
    taken = {t.name for t in cascade.tensors} | {r.name for r in cascade.ranks} | {n for n, _ in cascade.params}
    taken |= set(cascade.symbols) | set(cascade.counts)
    name = wanted
    while name in taken:
        name += "_"
    return name


def split(cascade: Cascade, rank: str) -> Cascade:
    """Declare parts `m1`, `m0` of a rank `m`, with a new tile extent."""
    old = cascade.rank(rank)
    outer, inner = fresh(cascade, f"{rank}1"), fresh(cascade, f"{rank}0")
    tile, count = fresh(cascade, f"{rank.upper()}0"), fresh(cascade, f"{rank.upper()}1")
    parts = (
        replace(old, split=Split(outer, inner, Scalar(tile), count)),
        Rank(outer, ceil_div(old.extent, Scalar(tile)), part_of=rank),
        Rank(inner, Scalar(tile), part_of=rank),
    )
    ranks = tuple(part for r in cascade.ranks for part in (parts if r.name == rank else (r,)))
    return replace(cascade, ranks=ranks, sizes=(*cascade.sizes, (tile, 64)))


def whole_coordinate(cascade: Cascade, rank: str) -> Expr:
    """`m1*M0+m0` of a split rank."""
    parts = cascade.rank(rank).split
    assert parts is not None
    return Map("+", (Map("*", (Coord(parts.outer), parts.tile)), Coord(parts.inner)))


def cut(cascade: Cascade, rank: str, stores: Mapping[str, tuple[Expr, ...]]) -> tuple[Cascade, dict[str, tuple[Expr, ...]]]:
    """Put `m1*M0+m0` in place of the split rank `m` wherever the cascade still uses it whole."""
    parts = cascade.rank(rank).split
    assert parts is not None
    where = whole_coordinate(cascade, rank)

    def ranks_of(ranks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part for r in ranks for part in ((parts.outer, parts.inner) if r == rank else (r,)))

    def indices_of(indices: tuple[Expr, ...], ranks: tuple[str, ...]) -> tuple[Expr, ...]:
        return tuple(
            part
            for index, r in zip(indices, ranks, strict=True)
            for part in ((Coord(parts.outer), Coord(parts.inner)) if r == rank else (index,))
        )

    def visit(expr: Expr) -> Expr:
        match expr:
            case Coord(rank=r) if r == rank:
                return where
            case Access(tensor=name, indices=indices) if (
                cascade.tensor(name).kind != "input" and rank in cascade.tensor(name).ranks
            ):
                done = tuple(visit(index) for index in indices)
                return replace(expr, indices=indices_of(done, cascade.tensor(name).ranks))
            case Reduce(ranks=bound, body=body) if rank in bound:
                return replace(expr, ranks=ranks_of(bound), body=visit(body))
            case _:
                return rebuild(expr, tuple(visit(part) for part in children(expr)))

    tensors = tuple(t if t.kind == "input" else replace(t, ranks=ranks_of(t.ranks)) for t in cascade.tensors)
    einsums = tuple(
        replace(
            e,
            indices=indices_of(
                tuple(visit(i) if not isinstance(i, Coord) else i for i in e.indices), cascade.tensor(e.output).ranks
            ),
            body=visit(e.body),
        )
        for e in cascade.einsums
    )
    written = {name: tuple(visit(index) for index in indices) for name, indices in stores.items()}
    return replace(cascade, tensors=tensors, einsums=einsums), written


def accumulate(cascade: Cascade, loop: str) -> Cascade:
    """Make every reduction over the loop rank a running state."""
    tensors: list[Tensor] = []
    einsums: list[Einsum] = []
    names = cascade
    last: Expr = cascade.rank(loop).extent
    for einsum in cascade.einsums:
        body = einsum.body
        if einsum.output not in {t.name for t in tensors}:
            known = cascade.tensor(einsum.output)
        if isinstance(body, Scan) and body.rank == (cascade.rank(loop).part_of or loop):
            tensors_, einsums_ = _carried_scan(cascade, names, loop, einsum, body)
            tensors += tensors_
            einsums += einsums_
            names = replace(names, tensors=(*names.tensors, *tensors_[:-1]))
            continue
        if not (isinstance(body, Reduce) and loop in body.ranks):
            if known.name not in {t.name for t in tensors}:
                tensors.append(known)
            einsums.append(einsum)
            continue
        others = tuple(rank for rank in body.ranks if rank != loop)
        run, tile = fresh(names, f"{einsum.output}_run"), fresh(names, f"{einsum.output}_tile")
        out = einsum.indices
        at = (Coord(loop), *out)
        part_ranks = (loop, *known.ranks)
        op = "sum" if body.op == "mean" else body.op
        part = Reduce(op, others, body.body) if others else body.body
        tensors += [
            Tensor(tile, part_ranks, known.dtype),
            Tensor(run, part_ranks, known.dtype, "state", loop),
            known,
        ]
        new_at = (Map("+", (Coord(loop), Number(1))), *out)
        total: Expr = Access(run, (last, *out))
        if body.op == "mean":
            total = Map("/", (total, _points(cascade, body.ranks)))
        einsums += [
            Einsum(tile, at, part, einsum.span),
            Einsum(run, (Number(0), *out), IDENTITY[body.op], einsum.span),
            Einsum(run, new_at, Map(ACCUMULATE[body.op], (Access(run, at), Access(tile, at))), einsum.span),
            replace(einsum, body=total),
        ]
        names = replace(names, tensors=(*names.tensors, *tensors[-3:-1]))
    order = [*(t for t in cascade.inputs), *tensors]
    return replace(cascade, tensors=tuple(order), einsums=tuple(einsums))


SCAN_REDUCES = {"cumsum": "sum", "cummax": "max", "cumprod": "prod"}
"""The reduction whose running state a scan carries from tile to tile."""


def _carried_scan(cascade: Cascade, names: Cascade, loop: str, einsum: Einsum, body: Scan) -> tuple[list[Tensor], list[Einsum]]:
    """A scan along the loop: what all tiles before give together, then a scan within the tile.

    S[p,m] = cumsum[m](X[p,m])     S_run[m1+1,p] = S_run[m1,p] + sum[m0](X[p,m1,m0])
                                   S[p,m1,m0]    = S_run[m1,p] + cumsum[m0](X[p,m1,m0])
    """
    known = cascade.tensor(einsum.output)
    parent = cascade.rank(loop).part_of
    inner = cascade.rank(parent).split.inner if parent is not None else None  # type: ignore[union-attr]
    op = SCAN_REDUCES[body.op]
    ranks = tuple(rank for rank in known.ranks if rank not in (loop, inner))
    out: tuple[Expr, ...] = tuple(Coord(rank) for rank in ranks)
    run, tile = fresh(names, f"{einsum.output}_run"), fresh(names, f"{einsum.output}_tile")
    at: tuple[Expr, ...] = (Coord(loop), *out)
    new_at: tuple[Expr, ...] = (Map("+", (Coord(loop), Number(1))), *out)
    before, join = Access(run, at), ACCUMULATE[op]
    part: Expr = Reduce(op, (inner,), body.body) if inner is not None else body.body
    tensors = [Tensor(tile, (loop, *ranks), known.dtype), Tensor(run, (loop, *ranks), known.dtype, "state", loop)]
    einsums = [
        Einsum(tile, at, part, einsum.span),
        Einsum(run, (Number(0), *out), IDENTITY[op], einsum.span),
        Einsum(run, new_at, Map(join, (before, Access(tile, at))), einsum.span),
    ]
    if inner is None:
        return [*tensors, known], [*einsums, replace(einsum, body=Access(run, new_at))]
    within = fresh(names, f"{einsum.output}_within")
    inside = Access(within, einsum.indices)
    return [*tensors, Tensor(within, known.ranks, known.dtype), known], [
        *einsums,
        Einsum(within, einsum.indices, Scan(body.op, inner, body.body), einsum.span),
        replace(einsum, body=Map(join, (before, inside))),
    ]


def _points(cascade: Cascade, ranks: tuple[str, ...]) -> Expr:
    """Number of points that a reduction over these ranks sees."""
    count: Expr = Number(1)
    done: set[str] = set()
    for parent in cascade.domain_splits(frozenset(ranks)):
        count = Map("*", (count, parent.extent))
        done |= {parent.split.outer, parent.split.inner}  # type: ignore[union-attr]
    for rank in ranks:
        if rank not in done:
            count = Map("*", (count, cascade.rank(rank).extent))
    return count


def reads(einsum: Einsum) -> tuple[Access, ...]:
    """Accesses of the right-hand side and of the index expressions on the left."""
    return (*accesses(einsum.body), *(a for index in einsum.indices for a in accesses(index)))
