"""One fiber of a rank through a cascade: what moves along it, what depends on the whole of it.

In: a flat cascade, a rank, and which complete values count as *running* (all, unless told otherwise). An expression

* **moves** if its value changes along the rank (or along one of the rank's parts);
* is **complete** if it depends on a running *root*: a reduction over the whole fiber, a running state read at its last position, or
  what was selected, scanned or scattered with the help of these;
* is **mixed** if it does both. Mixed expressions under a reduction are what forces another pass.

Completeness is followed through every Einsum in between, whatever its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scan,
    Select,
    accesses,
    free_ranks,
    substitute,
    walk,
)  # fmt: skip

OPENED = (1_000, 20_000)
"""Least and greatest number of definitions that one view looks through; in between, the square of the number of Einsums. Beyond
it a tensor counts as opaque: a chain needs half the square, but an expression may double with every definition."""


@dataclass(frozen=True)
class Fiber:
    """A view of `cascade` along `rank`. `running` names the roots that count as complete values; None means all of them."""

    cascade: Cascade
    rank: str
    running: frozenset[str] | None = None

    @cached_property
    def ranks(self) -> frozenset[str]:
        """The rank and its parts."""
        split = self.cascade.rank(self.rank).split
        return frozenset((self.rank, split.outer, split.inner)) if split else frozenset((self.rank,))

    @cached_property
    def _inner(self) -> frozenset[str]:
        split = self.cascade.rank(self.rank).split
        return frozenset((split.inner,)) if split else frozenset()

    @cached_property
    def _plain(self) -> Mapping[str, Einsum]:
        """The one Einsum of each tensor that is no state and no scatter target."""
        kinds = {tensor.name: tensor.kind for tensor in self.cascade.tensors}
        return {einsum.output: einsum for einsum in self.cascade.einsums if kinds[einsum.output] == "einsum"}

    def with_running(self, running: frozenset[str]) -> Fiber:
        return replace(self, running=running)

    def moves(self, expr: Expr) -> bool:
        """Does the value change along the fiber?"""
        return bool(free_ranks(expr) & self.ranks)

    def complete(self, expr: Expr) -> bool:
        """Does the value depend on a running root?"""
        roots = self.roots(expr)
        return bool(roots if self.running is None else roots & self.running)

    def mixed(self, expr: Expr) -> bool:
        return self.moves(expr) and self.complete(expr)

    # --- roots ------------------------------------------------------------------------------------------------------------

    @cached_property
    def _roots(self) -> dict[str, frozenset[str]]:
        return {}

    def roots(self, expr: Expr) -> frozenset[str]:
        """Names of the complete values nearest to the expression: those it depends on without another one in between."""
        found: set[str] = set()
        for access in accesses(expr):
            found |= {access.tensor} if self._is_end(access) else self._tensor_roots(access.tensor)
        return frozenset(found)

    def leaves(self, expr: Expr) -> frozenset[str]:
        """Tensors read in the expression, or in the mixed map Einsums behind it, that are complete and do not move."""
        nodes = accesses(self.look_through(expr))
        return frozenset(node.tensor for node in nodes if self.complete(node) and not self.moves(node))

    def roots_behind(self, root: str) -> frozenset[str]:
        """The roots that the definition of a root depends on (its own name excepted)."""
        found: set[str] = set()
        for einsum in self.cascade.definitions(root):
            found |= self.roots(einsum.body)
        return frozenset(found - {root})

    def _tensor_roots(self, name: str) -> frozenset[str]:
        if name not in self._roots:
            self._roots[name] = frozenset()  # a state reads itself: its own cycle adds nothing
            found: set[str] = set()
            for einsum in self.cascade.definitions(name):
                if self.completes(einsum):
                    found.add(name)
                else:
                    found |= self.roots(einsum.body)
                    for index in einsum.indices:
                        found |= self.roots(index)
            if found and self.settled(name):
                found = {name}
            self._roots[name] = frozenset(found)
        return self._roots[name]

    def settled(self, name: str) -> bool:
        """Is this what was selected, scanned or scattered? Such a value is used when it is whole, never while it is running."""
        bodies = [einsum.body for einsum in self.cascade.definitions(name)]
        return self.cascade.tensor(name).kind == "scatter" or any(isinstance(body, Scan | Select) for body in bodies)

    def _is_end(self, access: Access) -> bool:
        """A state (or a scanned tensor) of this fiber read where no rank of the fiber moves: its last position."""
        tensor = self.cascade.tensor(access.tensor)
        if tensor.kind == "state" and tensor.iterates in self.ranks:
            return not self.moves(access.indices[tensor.ranks.index(tensor.iterates)])
        einsum = self._plain.get(access.tensor)
        return bool(einsum and isinstance(einsum.body, Scan) and einsum.body.rank in self.ranks and not self.moves(access))

    def completes(self, einsum: Einsum) -> bool:
        """Does this Einsum reduce the fiber away?"""
        body = einsum.body
        if isinstance(body, Reduce):
            bound = frozenset(body.ranks)
        elif isinstance(body, Select):
            bound = frozenset((body.rank,))
        else:
            return False
        if not bound & (self.ranks - self._inner):
            return False  # a reduction of the inner part alone sees one tile
        scattered = self.cascade.tensor(einsum.output).kind == "scatter"
        return scattered or not any(self.moves(index) for index in einsum.indices)

    # --- looking through definitions ----------------------------------------------------------------------------------------

    def definition(self, access: Access) -> Expr | None:
        """What a plain tensor's element is, in terms of what its Einsum reads; None for inputs, states, scans and selections."""
        einsum = self._plain.get(access.tensor)
        if einsum is None or isinstance(einsum.body, Scan | Select) or self._exhausted:
            return None
        self._opened.append(access.tensor)
        ranks = tuple(index.rank for index in einsum.indices if isinstance(index, Coord))
        if len(ranks) != len(einsum.indices):
            return None
        if isinstance(einsum.body, Reduce) and frozenset(einsum.body.ranks) & free_ranks(access):
            return None  # a bound rank would capture one of the access
        if any(isinstance(node, Scan) for node in walk(einsum.body)):
            return None
        return substitute(einsum.body, dict(zip(ranks, access.indices, strict=True)))

    @cached_property
    def _opened(self) -> list[str]:
        return []

    @property
    def _exhausted(self) -> bool:
        return len(self._opened) >= min(max(OPENED[0], len(self.cascade.einsums) ** 2), OPENED[1])

    def why_opaque(self, access: Access) -> str:
        """Why `definition` has no answer."""
        if self._exhausted:
            return "there are too many definitions behind it to look through"
        return "its elements depend on complete values through a scan, a selection or a state"

    def look_through(self, expr: Expr) -> Expr:
        """The expression with accesses to mixed map Einsums replaced by what they are, all the way down."""
        match expr:
            case Access() if self.mixed(expr):
                inner = self.definition(expr)
                return expr if inner is None else self.look_through(inner)
            case Map(args=args):
                return replace(expr, args=tuple(self.look_through(arg) for arg in args))
            case Reduce(body=body):
                return replace(expr, body=self.look_through(body))
            case _:
                return expr


def is_step_of(einsum: Einsum, rank: str) -> bool:
    """Does this Einsum define a state's next position along `rank`, as in `S[p,m1+1]`?"""
    return any(isinstance(i, Map) and i.op == "+" and i.args == (Coord(rank), Number(1)) for i in einsum.indices)
