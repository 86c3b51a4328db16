"""Running top-k: the k best of all tiles are a running list, merged with each tile.

before    I[p,j] = argtopk[m](S[p,m])
after     I_tile[p,m1,min(J,m1*M0)+m0] = max[m0](S[p,m1,m0])
          I_best[p,0,j]    = -inf
          I_run[p,0,j]     = 0
          I_all[p,m1,c]    = where(c < min(J, m1*M0), I_best[p,m1,c], I_tile[p,m1,c])
          I_place[p,m1,c]  = where(c < min(J, m1*M0), I_run[p,m1,c], m1*M0 + c - min(J, m1*M0))
          I_pick[p,m1,j]   = argtopk[c](I_all[p,m1,c])
          I_best[p,m1+1,j] = I_all[p,m1,I_pick[p,m1,j]]
          I_run[p,m1+1,j]  = I_place[p,m1,I_pick[p,m1,j]]
          I[p,j]           = I_run[p,M1,j]

The new rank c has J + M0 places: the list, as far as it is filled, then the tile (a scatter puts it there), then nothing (-inf).
Filled places come first, so among equals the lowest index wins as before, and an element of -inf is chosen before an empty place.
The state is 2 J words, whatever the length. What gathers by I still waits for it: that is another pass.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Rank, Reduce, Select, Tensor
from .algebra import MINUS_INFINITY, ZERO
from .fiber import Fiber
from .partition import partition
from .running_argmax import EXTREME, running_argmax
from .running_argmax import NAME as ARGMAX
from .step import Rewritten, Step, fresh, in_order, next_position, reordered, shown, taken_names

NAME = "running-topk"


def running_topk(
    cascade: Cascade, targets: tuple[str, ...], rank: str, reductions: frozenset[str] = frozenset(), tile: int | None = None
) -> Rewritten | None:
    """Cut `rank` for the selections `targets` and for `reductions`, and let the selections run along the tiles."""
    chosen = tuple(name for name in targets if selects(cascade, name, rank))
    if not chosen:
        return None
    # a reduction of the same elements stands in while the rank is cut
    held = tuple(
        replace(einsum, body=Reduce(EXTREME.get(einsum.body.op, "max"), (rank,), einsum.body.body))
        if einsum.output in chosen and isinstance(einsum.body, Select | Reduce)
        else einsum
        for einsum in cascade.einsums
    )
    cut = partition(replace(cascade, einsums=held), rank, reductions | frozenset(chosen), tile)
    if cut is None:
        return None
    after = cut.cascade
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in chosen:
        (einsum,) = cascade.definitions(name)
        if isinstance(einsum.body, Reduce):
            after = running_argmax(cascade, after, name, rank)
            continue
        assert isinstance(einsum.body, Select)
        groups.setdefault((einsum.indices, einsum.body.fills, einsum.body.body), []).append(name)
    for names in groups.values():
        after = _listed(cascade, after, names, rank)
    old = [einsum for einsum in cascade.einsums if einsum not in after.einsums]
    listed = "; filled places come first, so ties go to the lowest index"
    first = "; a later tile wins only if it is better, so ties go to the lowest index"
    step = Step(
        NAME if groups else ARGMAX,
        ", ".join(chosen),
        shown(old, cascade),
        "the k best of all = the k best among the k best so far and the next tile"
        if groups
        else "the best of all = the better one of the best so far and the best of the next tile",
        f"what is ranked depends on nothing that is complete in `{rank}`{listed if groups else first}",
        shown([einsum for einsum in after.einsums if einsum not in cascade.einsums], after),
    )
    return Rewritten(after, step)


def selects(cascade: Cascade, name: str, rank: str) -> bool:
    """Is this the k best (or the place of the best) along the rank, of something that does not wait for complete values?"""
    definitions = cascade.definitions(name)
    if len(definitions) != 1 or cascade.rank(rank).part_of is not None:
        return False
    body = definitions[0].body
    if isinstance(body, Reduce):
        ranks, able = body.ranks, body.op in EXTREME
    elif isinstance(body, Select):
        ranks, able = (body.rank,), body.op in ("topk", "argtopk")
    else:
        return False
    return (
        able
        and ranks == (rank,)
        and cascade.tensor(name).kind == "einsum"
        and not Fiber(cascade, rank).complete(body.body)
        and all(isinstance(index, Coord) for index in definitions[0].indices)
    )


def _listed(original: Cascade, cascade: Cascade, names: list[str], rank: str) -> Cascade:
    """The stand-ins for selections of the same elements replaced by one running list, where the first of them stands."""
    name = names[0]
    (before,), (stand_in,) = original.definitions(name), cascade.definitions(name)
    select, body, split = before.body, stand_in.body, cascade.rank(rank).split
    assert isinstance(select, Select)
    assert isinstance(body, Reduce)
    assert split is not None
    fills, outer, inner = select.fills, split.outer, split.inner
    taken = taken_names(cascade)
    tile, best, run, both, place, pick = (
        fresh(f"{name}_{part}", taken) for part in ("tile", "best", "run", "all", "place", "pick")
    )
    slot = fresh("c", taken)
    k, size = cascade.rank(fills).extent, split.tile
    declared = cascade.rank(fills)
    at = cascade.ranks.index(declared) + 1
    ranks = (*cascade.ranks[:at], Rank(slot, Map("+", (k, size))), *cascade.ranks[at:])
    cascade = replace(cascade, ranks=ranks)
    around = frozenset(cascade.tensor(name).ranks) - {fills}
    over_slots, over_list = in_order(around | {outer, slot}, cascade), in_order(around | {outer, fills}, cascade)

    def read(tensor: str, ranks: tuple[str, ...], **at: Expr) -> Access:
        return Access(tensor, tuple(at.get(each, Coord(each)) for each in ranks))

    start = Map("*", (Coord(outer), size))
    filled = Map("min", (k, start))
    listed = Map("<", (Coord(slot), filled))
    picked = read(pick, over_list)
    last = cascade.rank(outer).extent
    ops = {each: original.definitions(each)[0].body.op for each in names}  # type: ignore[union-attr]
    values = "argtopk" not in ops.values()

    def define(tensor: str, ranks: tuple[str, ...], body: Expr, **at: Expr) -> Einsum:
        return Einsum(tensor, read(tensor, ranks, **at).indices, body)

    from_list = read(best, over_list, **{fills: Coord(slot)})
    new = [
        define(tile, over_slots, Reduce("max", (inner,), body.body), **{slot: Map("+", (filled, Coord(inner)))}),
        define(best, over_list, MINUS_INFINITY, **{outer: ZERO}),
        *([] if values else [define(run, over_list, ZERO, **{outer: ZERO})]),
        define(both, over_slots, Map("where", (listed, from_list, read(tile, over_slots)))),
        define(pick, over_list, Select("argtopk", slot, fills, read(both, over_slots))),
        define(best, over_list, read(both, over_slots, **{slot: picked}), **{outer: next_position(outer)}),
    ]
    if not values:
        position = Map("-", (Map("+", (start, Coord(slot))), filled))
        new.append(define(place, over_slots, Map("where", (listed, read(run, over_list, **{fills: Coord(slot)}), position))))
        new.append(define(run, over_list, read(place, over_slots, **{slot: picked}), **{outer: next_position(outer)}))
    ends = {
        each: replace(original.definitions(each)[0], body=read(best if op == "topk" else run, over_list, **{outer: last}))
        for each, op in ops.items()
    }
    tensors = [Tensor(tile, over_slots, kind="scatter"), Tensor(best, over_list, kind="state", iterates=outer)]
    tensors += [Tensor(both, over_slots), Tensor(pick, over_list, "int")]
    if not values:
        tensors += [Tensor(run, over_list, "int", "state", outer), Tensor(place, over_slots, "int")]
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        if einsum is stand_in:
            einsums.extend(new)
        einsums.append(ends.get(einsum.output, einsum))
    return reordered(replace(cascade, einsums=tuple(einsums), tensors=(*cascade.tensors, *tensors)))
