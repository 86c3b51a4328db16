"""The loop of a one-pass form: its running states, and how each of them takes one step.

In: a flat cascade whose rank was cut by `partition` into tiles, with running states over the outer part. Out: a `Loop`. The split
form and the scan form are other ways to run the same states; both start from here:

    X_run[..., 0]    = identity
    X_run[..., m1+1] = combine(C(X_run[..., m1]; g[m1], g[m1+1]), X_tile[..., m1])

or what belongs to the best so far, where `B_run` is a running max of `B_tile` (with < and a running min likewise):

    X_run[..., m1+1] = where(B_tile[..., m1] > B_run[..., m1], x, X_run[..., m1])

`C` corrects what was reduced about the old values g of the states that X runs beside to what it would be about the new ones. It is
X itself where X depends on no other state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Reduce, Scan, Select, Split, accesses, children
from .accumulate import COMBINE
from .fiber import is_step_of
from .step import coords, next_position, text


@dataclass(frozen=True)
class Obstructed(Exception):
    """Why there is no such form. `einsum` is what stands in the way."""

    einsum: str
    reason: str


@dataclass(frozen=True)
class State:
    """One running state, taken apart."""

    name: str
    op: str
    """The reduction that it computes: sum, prod, max or min; of what belongs to the best, the one that finds the best."""
    carried: Expr
    """C: the old value, corrected."""
    tile: Access
    """What one tile contributes; of what belongs to the best, the best value of the tile."""
    best: str | None = None
    """The state that holds the best value, where this one holds what belongs to it."""


@dataclass(frozen=True)
class Loop:
    """All that runs along `rank` in a derived cascade."""

    cascade: Cascade
    rank: str
    recurrences: bool = False
    """May states run along the rank itself, element by element?"""

    @cached_property
    def split(self) -> Split:
        found = self.cascade.rank(self.rank).split
        if found is None:
            raise Obstructed(self.rank, f"no reduction over `{self.rank}` can run tile by tile")
        return found

    @cached_property
    def position(self) -> Expr:
        """The coordinate along the rank, in its parts."""
        return Map("+", (self.start, Coord(self.split.inner)))

    @cached_property
    def start(self) -> Expr:
        """The first position of a tile."""
        return Map("*", (Coord(self.split.outer), self.split.tile))

    @cached_property
    def parts(self) -> frozenset[str]:
        return frozenset((self.split.outer, self.split.inner))

    @cached_property
    def tensors(self) -> frozenset[str]:
        """What has an element for each tile, or for each element of a tile."""
        return frozenset(tensor.name for tensor in self.cascade.tensors if self.parts & set(tensor.ranks))

    @cached_property
    def end(self) -> Expr:
        """The last position of a state."""
        return self.cascade.rank(self.split.outer).extent

    @cached_property
    def states(self) -> tuple[State, ...]:
        """In the order of definition. Raises `Obstructed` for a state with another kind of step, and for what does not run."""
        for einsum in self.cascade.einsums:
            self._whole(einsum)
        names = [t.name for t in self.cascade.tensors if t.kind == "state" and t.iterates == self.split.outer]
        if not names:
            raise Obstructed(self.rank, f"no reduction over `{self.rank}` can run tile by tile")
        return tuple(self._state(name) for name in names)

    def _whole(self, einsum: Einsum) -> None:
        """Nothing but running states may reduce the rank."""
        body = einsum.body
        if isinstance(body, Scan | Select) and body.rank in (self.rank, *self.parts):
            raise Obstructed(einsum.output, f"`{body.op}` over `{self.rank}` has no running state")
        if isinstance(body, Reduce) and self.rank in body.ranks:
            raise Obstructed(einsum.output, f"`{body.op}` over `{self.rank}` has no running state")
        tensor = self.cascade.tensor(einsum.output)
        if tensor.kind == "state" and tensor.iterates == self.rank and not self.recurrences:
            raise Obstructed(einsum.output, f"it is a recurrence along `{self.rank}`: each step needs the one before")

    def _state(self, name: str) -> State:
        step = next(e for e in self.cascade.definitions(name) if is_step_of(e, self.split.outer))
        ops = {symbol: op for op, symbol in COMBINE.items()}
        match step.body:
            case Map(op=op, args=(carried, Access() as tile)) if op in ops and self.of_tile(tile):
                return State(name, ops[op], carried, tile)
            case Map(
                op="where", args=(Map(op=">" | "<" as op, args=(Access() as tile, Access() as best)), _, Access() as kept)
            ) if self._holds_the_best(best, tile, "max" if op == ">" else "min") and kept == self._now(name):
                return State(name, "max" if op == ">" else "min", kept, tile, best.tensor)
            case _:
                raise Obstructed(name, f"its step `{text(step.body)}` is not made of its old value and what one tile contributes")

    def _now(self, name: str) -> Access:
        return Access(name, coords(self.cascade.tensor(name).ranks))

    def _holds_the_best(self, best: Access, tile: Access, op: str) -> bool:
        """Is `best`, before the step, the running max (min) of `tile`?"""
        tensor = self.cascade.tensor(best.tensor)
        if tensor.kind != "state" or tensor.iterates != self.split.outer or best != self._now(best.tensor):
            return False
        state = self._state(best.tensor)
        return state.op == op and state.carried == best and state.tile == tile and state.best is None

    def of_tile(self, access: Access) -> bool:
        """Is this what one tile contributes: a plain tensor over the outer part?"""
        tensor = self.cascade.tensor(access.tensor)
        return tensor.kind == "einsum" and self.split.outer in tensor.ranks and self.split.inner not in tensor.ranks

    def place(self, access: Access) -> Expr:
        """Where along the outer part a tensor of the loop is read."""
        return access.indices[self.cascade.tensor(access.tensor).ranks.index(self.split.outer)]

    def at_end(self, access: Access) -> bool:
        """Is it a state's last position?"""
        tensor = self.cascade.tensor(access.tensor)
        return tensor.kind == "state" and tensor.iterates == self.split.outer and self.place(access) == self.end

    def is_next(self, index: Expr) -> bool:
        return index == next_position(self.split.outer)

    @cached_property
    def after(self) -> frozenset[str]:
        """Tensors that wait for the end of the loop."""
        found: set[str] = set()
        for einsum in self.cascade.einsums:
            read = [node for expr in (einsum.body, *einsum.indices) for node in accesses(expr)]
            if any(self.at_end(node) if node.tensor in self.tensors else node.tensor in found for node in read):
                if einsum.output in self.tensors:
                    raise Obstructed(einsum.output, "it runs in a second loop")
                found.add(einsum.output)
        return frozenset(found)

    def stray(self, expr: Expr, *allowed: Expr) -> bool:
        """Does a coordinate of the parts stand anywhere but in `allowed` and as an index of a tensor of the loop?"""
        if expr in allowed:
            return False
        match expr:
            case Coord(rank=rank):
                return rank in self.parts
            case Access(tensor=tensor, indices=indices) if tensor in self.tensors:
                plain = (Coord(self.split.outer), Coord(self.split.inner), next_position(self.split.outer))
                return any(self.stray(index, *allowed) for index in indices if index not in plain)
            case _:
                return any(self.stray(part, *allowed) for part in children(expr))
