"""Running argmax: the place of the best so far, beside its value.

before    I[p] = argmax[m](S[p,m])
after     I_tile[p,m1]   = max[m0](S[p,m1,m0])
          I_place[p,m1]  = argmax[m0](S[p,m1,m0])
          I_best[p,0]    = -inf
          I_best[p,m1+1] = max(I_best[p,m1], I_tile[p,m1])
          I_run[p,0]     = 0
          I_run[p,m1+1]  = where(I_tile[p,m1] > I_best[p,m1], m1*M0 + I_place[p,m1], I_run[p,m1])
          I[p]           = I_run[p,M1]

A later tile wins only if it is better, so among equals the lowest index stays; where all elements are -inf that is 0. An argmin
is the same with min and <. The state is two words. It is made while the rank is cut, together with the lists of `running_topk`.
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Coord, Einsum, Map, Reduce, Tensor
from .accumulate import IDENTITY
from .algebra import ZERO
from .step import coords, fresh, in_order, next_position, reordered, taken_names

NAME = "running-argmax"
EXTREME = {"argmax": "max", "argmin": "min"}
BETTER = {"argmax": ">", "argmin": "<"}


def running_argmax(original: Cascade, cascade: Cascade, name: str, rank: str) -> Cascade:
    """`cascade`, with the running pair for the tiled max (min) of the same elements that stands in for the argmax (argmin)."""
    (before,), (stand_in,) = original.definitions(name), cascade.definitions(name)
    split = cascade.rank(rank).split
    assert isinstance(before.body, Reduce)
    assert isinstance(stand_in.body, Reduce)
    assert split is not None
    op, elements, outer = before.body.op, stand_in.body.body, split.outer
    taken = taken_names(cascade)
    tile, place, best, run = (fresh(f"{name}_{part}", taken) for part in ("tile", "place", "best", "run"))
    declared = cascade.tensor(name)
    ranks = in_order(frozenset((*declared.ranks, outer)), cascade)
    now = coords(ranks)
    first, then = (tuple(at if each == outer else Coord(each) for each in ranks) for at in (ZERO, next_position(outer)))
    end = cascade.rank(outer).extent
    last = tuple(end if each == outer else Coord(each) for each in ranks)
    better = Map(BETTER[op], (Access(tile, now), Access(best, now)))
    position = Map("+", (Map("*", (Coord(outer), split.tile)), Access(place, now)))
    new = [
        Einsum(tile, now, Reduce(EXTREME[op], (split.inner,), elements)),
        Einsum(place, now, Reduce(op, (split.inner,), elements)),
        Einsum(best, first, IDENTITY[EXTREME[op]]),
        Einsum(best, then, Map(EXTREME[op], (Access(best, now), Access(tile, now)))),
        Einsum(run, first, ZERO),
        Einsum(run, then, Map("where", (better, position, Access(run, now)))),
        replace(before, body=Access(run, last)),
    ]
    tensors = [
        Tensor(tile, ranks),
        Tensor(place, ranks, "int"),
        Tensor(best, ranks, "float", "state", outer),
        Tensor(run, ranks, "int", "state", outer),
    ]
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        einsums.extend(new if einsum is stand_in else (einsum,))
    kept = tuple(replace(tensor, dtype=declared.dtype) if tensor.name == name else tensor for tensor in cascade.tensors)
    return reordered(replace(cascade, einsums=tuple(einsums), tensors=(*kept, *tensors)))
