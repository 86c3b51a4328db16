"""Accumulate: a reduction over all tiles becomes a running state over the outer part, fed by a reduction of each tile.

before    GM[p] = max[m1,m0](QK[p,m1,m0])
after     GM_tile[p,m1]  = max[m0](QK[p,m1,m0])
          GM_run[p,0]    = -inf
          GM_run[p,m1+1] = max(GM_run[p,m1], GM_tile[p,m1])
          GM[p]          = GM_run[p,M1]

The reduction must be associative (sum, prod, max, min) and what it reduces must not depend on the reduction itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Tensor
from .algebra import INFINITY, MINUS_INFINITY
from .step import Rewritten, Step, coords, fresh, in_order, next_position, replaced, shown, taken_names

NAME = "accumulate"
IDENTITY: dict[str, Expr] = {"sum": Number(0), "prod": Number(1), "max": MINUS_INFINITY, "min": INFINITY}
COMBINE = {"sum": "+", "prod": "*", "max": "max", "min": "min"}


@dataclass(frozen=True)
class RunningState:
    """Names and ranks of the state that a tiled reduction becomes."""

    reduce: Reduce
    outer: str
    """The iterative rank."""
    count: Expr
    """Its extent: the last position of the state."""
    tile_name: str
    run_name: str
    tensors: tuple[Tensor, ...]
    ranks: tuple[str, ...]
    """Ranks of the state: those of the target and the iterative rank, in the order of declaration."""

    def at(self, position: Expr) -> Access:
        indices = tuple(position if rank == self.outer else Coord(rank) for rank in self.ranks)
        return Access(self.run_name, indices)

    @property
    def tile(self) -> Access:
        return Access(self.tile_name, coords(self.ranks))

    def einsums(self, body: Expr, carried: Expr, target: Einsum) -> tuple[Einsum, ...]:
        """Tile reduction of `body`, initial value, step from `carried`, and the target as the last position."""
        remaining = tuple(rank for rank in self.reduce.ranks if rank != self.outer)
        tile = Einsum(self.tile_name, coords(self.ranks), Reduce(self.reduce.op, remaining, body) if remaining else body)
        start = self.at(Number(0))
        then = self.at(next_position(self.outer))
        return (
            tile,
            Einsum(self.run_name, start.indices, IDENTITY[self.reduce.op]),
            Einsum(self.run_name, then.indices, Map(COMBINE[self.reduce.op], (carried, self.tile))),
            replace(target, body=self.at(self.count)),
        )


def loop_rank(cascade: Cascade, rank: str) -> str | None:
    """The rank that a loop along `rank` iterates: its outer part, or the rank itself where it is the outer part of another."""
    declared = cascade.rank(rank)
    if declared.split is not None:
        return declared.split.outer
    whole = cascade.rank(declared.part_of).split if declared.part_of else None
    return rank if whole is not None and whole.outer == rank else None


def running_state(cascade: Cascade, target: Einsum, rank: str) -> RunningState | None:
    """The state for a reduction over the iterative rank (and perhaps others); None if `target` is something else."""
    outer, body = loop_rank(cascade, rank), target.body
    if outer is None or not isinstance(body, Reduce) or body.op not in COMBINE or outer not in body.ranks:
        return None
    if not all(isinstance(index, Coord) for index in target.indices) or cascade.tensor(target.output).kind != "einsum":
        return None
    taken = taken_names(cascade)
    tile_name, run_name = fresh(f"{target.output}_tile", taken), fresh(f"{target.output}_run", taken)
    ranks = in_order(frozenset(cascade.tensor(target.output).ranks) | {outer}, cascade)
    dtype = cascade.tensor(target.output).dtype
    tensors = (Tensor(tile_name, ranks, dtype), Tensor(run_name, ranks, dtype, "state", outer))
    return RunningState(body, outer, cascade.rank(outer).extent, tile_name, run_name, tensors, ranks)


def accumulate(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """Turn the reduction that defines `target` into a running state."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1:
        return None
    state = running_state(cascade, definitions[0], rank)
    if state is None:
        return None
    op = state.reduce.op
    new = state.einsums(state.reduce.body, state.at(Coord(state.outer)), definitions[0])
    after = replaced(cascade, target, new, state.tensors)
    step = Step(
        NAME,
        target,
        shown(definitions, cascade),
        f"{op} is associative: {op} of all tiles = running {op} of the {op} of each",
        f"what is reduced does not depend on `{target}`; an empty {op} is the initial value",
        shown(new, after),
    )
    return Rewritten(after, step, state.run_name)
