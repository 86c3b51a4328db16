"""Scan form: reductions over every prefix of a rank become one sweep that gives an output at each step.

before    S[n,m]         = where(m <= n, QK[m], -inf)
          GM_run[n,m+1]  = max(GM_run[n,m], S[n,m])
          SN[n,m]        = exp(S[n,m] - GM_run[n,m+1])
          SD_run[n,m+1]  = SD_run[n,m] * exp(GM_run[n,m] - GM_run[n,m+1]) + SN[n,m]
          L[n]           = log(SD_run[n,M]) + GM_run[n,M]
after     GM_run[m+1]    = max(GM_run[m], QK[m])
          SN[m]          = exp(QK[m] - GM_run[m+1])
          SD_run[m+1]    = SD_run[m] * exp(GM_run[m] - GM_run[m+1]) + SN[m]
          L[m]           = log(SD_run[m+1]) + GM_run[m+1]

Condition: what runs depends on n in the mask m <= n only, and gives every state its identity where the mask is false. Then up to
position n the mask is true, and the states are those of a run without n; beyond n nothing is added, and states that do not move
correct nothing: the last position for n is position n+1 of the run without n.

This starts from the one-pass form with its tiles taken apart: one element at a time.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

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
    Tensor,
    accesses,
    free_ranks,
    substitute,
    transform,
    walk,
)  # fmt: skip
from .accumulate import IDENTITY
from .algebra import ONE, ZERO, polynomial, same
from .folding import Folding, is_constant
from .loop import Loop, Obstructed
from .step import Refused, Rewritten, Step, in_order, next_position, reordered, shown, text

NAME = "scan-form"
_COMPARED = {"<=": (1, 0), "<": (1, 1), ">=": (-1, 0), ">": (-1, 1)}
"""(sign of left minus right, strictly?)"""


def scan_form(cascade: Cascade, rank: str) -> Rewritten | Refused:
    """One sweep along `rank` for all prefixes, from a one-pass form whose loop is masked to prefixes."""
    try:
        return _Scanner(Loop(cascade, rank, recurrences=True)).run()
    except Obstructed as obstructed:
        return Refused(NAME, obstructed.einsum, Coord(rank), obstructed.reason)


class _Scanner:
    def __init__(self, loop: Loop) -> None:
        self.loop, self.old, self.rank = loop, loop.cascade, loop.rank
        self.states = loop.states
        self.ran = [e for e in self.old.einsums if e.output in loop.tensors]
        self.elements = {id(e): self._element(e) for e in self.ran}
        """The Einsums of the loop, one element at a time."""
        self.prefix, self.last = self._mask()
        """The rank n, and k of m <= n + k."""
        declared = self.old.tensor
        self.along = frozenset(t for t in loop.tensors if self.prefix in declared(t).ranks)
        """Tensors of the loop that depend on n."""

    def run(self) -> Rewritten:
        self._nothing_beyond()
        tensors = self.loop.tensors
        before = [e for e in self.old.einsums if e.output not in self.loop.after]
        first = [self._without_prefix(e) if e.output in tensors else e for e in before]
        for einsum in self.old.einsums:
            if einsum.output not in self.loop.tensors:
                self._only_ends(einsum)
        waiting = [e for e in self.old.einsums if e.output in self.loop.after]
        renamed = self._given_at_each_step(waiting)
        rest = [self._after(e, e.output in renamed) for e in waiting]
        shaped = tuple(self._shaped(t, t.name in renamed) for t in self.old.tensors)
        einsums = (*first, *rest)
        ranks = tuple(replace(r, split=None) if r.name == self.rank else r for r in self.old.ranks if r.name not in self.loop.parts)
        cut = {node.name for node in walk(self.loop.split.tile) if hasattr(node, "name")}
        whole = replace(self.old, ranks=ranks, tensors=shaped, einsums=einsums)
        whole = _without_unused(whole, self.prefix)
        sizes = tuple((name, value) for name, value in whole.sizes if name not in cut or name in whole.symbols)
        after = reordered(replace(whole, sizes=sizes))
        at = text(self._seen(Coord(self.prefix)))
        step = Step(
            NAME,
            self.rank,
            shown([*self.ran, *waiting], self.old),
            f"the states of prefix {self.prefix} after all of {self.rank} = the states of one run at {at}",
            f"the loop depends on `{self.prefix}` in `{text(self.mask)}` only; where that is false each state is given its "
            "identity, and nothing is corrected while nothing moves",
            shown([*(e for e in first if e.output in tensors), *rest], after),
        )
        return Rewritten(after, step)

    def _only_ends(self, einsum: Einsum) -> None:
        for node in (node for expr in (einsum.body, *einsum.indices) for node in accesses(expr)):
            if node.tensor in self.loop.tensors and not self.loop.at_end(node):
                raise Obstructed(einsum.output, f"it reads `{text(node)}`, which is known in the loop only")

    # --- one element at a time --------------------------------------------------------------------------------------------------

    def _element(self, einsum: Einsum) -> Einsum:
        """The Einsum with tiles of one element: m1 and m0 become m."""
        split = self.loop.split

        def change(node: Expr) -> Expr:
            if node == self.loop.start:
                return Coord(self.rank)
            if node == Map("+", (Coord(self.rank), Coord(split.inner))):
                return Coord(self.rank)
            if isinstance(node, Access) and node.tensor in self.loop.tensors:
                return replace(node, indices=self._indices(node.tensor, node.indices))
            if isinstance(node, Reduce) and split.inner in node.ranks:
                left = tuple(rank for rank in node.ranks if rank != split.inner)
                if node.op in ("argmax", "argmin"):
                    return ZERO
                return replace(node, ranks=left) if left else node.body
            return node

        body = transform(einsum.body, change)
        if self.loop.stray(body, Coord(self.rank)):
            raise Obstructed(einsum.output, f"`{text(einsum.body)}` uses the coordinate of a tile")
        return replace(einsum, indices=self._indices(einsum.output, einsum.indices), body=body)

    def _indices(self, tensor: str, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        split = self.loop.split
        here = {Coord(split.outer): Coord(self.rank), next_position(split.outer): next_position(self.rank)}
        pairs = zip(self.old.tensor(tensor).ranks, indices, strict=True)
        order = {rank: here.get(index, index) for rank, index in pairs if rank != split.inner}
        order = {self.rank if rank == split.outer else rank: index for rank, index in order.items()}
        return tuple(order[rank] for rank in in_order(frozenset(order), self.old))

    def _shaped(self, tensor: Tensor, renamed: bool) -> Tensor:
        if renamed:
            return replace(tensor, ranks=tuple(self.rank if rank == self.prefix else rank for rank in tensor.ranks))
        if tensor.name not in self.loop.tensors:
            return tensor
        ranks = frozenset(tensor.ranks) - self.loop.parts - {self.prefix} | {self.rank}
        iterates = self.rank if tensor.kind == "state" and tensor.iterates == self.loop.split.outer else tensor.iterates
        return replace(tensor, ranks=in_order(ranks, self.old), iterates=iterates)

    # --- the mask ---------------------------------------------------------------------------------------------------------------

    def _mask(self) -> tuple[str, int]:
        """The first comparison in the loop that holds for the prefixes of a rank."""
        for einsum in self.ran:
            for node in walk(self.elements[id(einsum)].body):
                found = self._prefix(node)
                if found is not None:
                    self.mask = node
                    return found
        raise Obstructed(self.rank, f"nothing that is reduced over `{self.rank}` is masked to prefixes, as in `{self.rank} <= n`")

    def _prefix(self, node: Expr) -> tuple[str, int] | None:
        """(n, k) of m <= n + k."""
        if not isinstance(node, Map) or node.op not in _COMPARED:
            return None
        others = free_ranks(node) - {self.rank}
        if self.rank not in free_ranks(node) or len(others) != 1 or any(isinstance(x, Access) for x in walk(node)):
            return None
        (other,) = others
        direction, strict = _COMPARED[node.op]
        difference = polynomial(Map("-", node.args))
        of = {monomial[0][0] if monomial else (): value for monomial, value in difference.items() if len(monomial) <= 1}
        constant = of.pop((), Fraction(0))
        wanted = {("coord", self.rank): Fraction(direction), ("coord", other): Fraction(-direction)}
        linear = all(power == 1 for monomial in difference for _, power in monomial)
        if len(difference) != len(of) + (constant != 0) or not linear or of != wanted or constant.denominator != 1:
            return None
        return other, -direction * int(constant) - strict

    def _seen(self, n: Expr) -> Expr:
        """How many positions prefix n holds."""
        steps = self.last + 1
        count = n if steps == 0 else Map("+", (n, Number(steps))) if steps > 0 else Map("-", (n, Number(-steps)))
        extent = self.old.rank(self.rank).extent
        if steps in (0, 1) and same(extent, self.old.rank(self.prefix).extent):
            return count
        return Map("min", (count, extent)) if steps >= 0 else Map("clamp", (count, ZERO, extent))

    def _without_prefix(self, einsum: Einsum) -> Einsum:
        """Up to position n: the mask is true."""
        element = self.elements[id(einsum)]
        if einsum.output not in self.along and self.prefix not in free_ranks(element.body):
            return element
        body = Folding(self.old, lambda node: ONE if self._is_mask(node) else None).fold(element.body)
        body = transform(body, self._drop)
        if self.prefix in free_ranks(body):
            reason = f"`{text(element.body)}` depends on `{self.prefix}` in another way than by the mask `{text(self.mask)}`"
            raise Obstructed(einsum.output, reason)
        at = in_order(self._shape(einsum.output), self.old).index(self.prefix)
        return replace(element, indices=(*element.indices[:at], *element.indices[at + 1 :]), body=body)

    def _shape(self, tensor: str) -> frozenset[str]:
        return frozenset(self.old.tensor(tensor).ranks) - self.loop.parts | {self.rank}

    def _drop(self, node: Expr) -> Expr:
        if isinstance(node, Access) and node.tensor in self.along:
            at = in_order(self._shape(node.tensor), self.old).index(self.prefix)
            if node.indices[at] == Coord(self.prefix):
                return replace(node, indices=(*node.indices[:at], *node.indices[at + 1 :]))
        return node

    def _is_mask(self, node: Expr) -> bool:
        return self._prefix(node) == (self.prefix, self.last)

    def _nothing_beyond(self) -> None:
        """Beyond position n: the mask is false, and every state is given its identity."""
        constants: dict[str, Expr] = {}

        def known(node: Expr) -> Expr | None:
            if self._is_mask(node):
                return ZERO
            return constants.get(node.tensor) if isinstance(node, Access) else None

        folding = Folding(self.old, known)
        for einsum in self.ran:
            if einsum.output in self.along and self.old.tensor(einsum.output).kind == "einsum":
                value = folding.fold(self.elements[id(einsum)].body)
                if is_constant(value):
                    constants[einsum.output] = value
        for state in self.states:
            if state.best is not None:
                continue  # it moves only where the best does
            if state.name in self.along:
                if constants.get(state.tile.tensor) != IDENTITY[state.op]:
                    what = (
                        f"where `{text(self.mask)}` is false, `{state.tile.tensor}` is not shown to be {text(IDENTITY[state.op])}"
                    )
                    raise Obstructed(state.name, what)
                whole = self._moved_by_others(state.carried)
                if whole:
                    raise Obstructed(state.name, f"it runs beside `{whole}`, which goes on beyond the prefix")

    def _moved_by_others(self, carried: Expr) -> str | None:
        """A state that does not depend on n, behind the correction of one that does."""
        pending, done = [carried], set[str]()
        names = {state.name for state in self.states}
        while pending:
            for node in accesses(pending.pop()):
                if node.tensor in done or node.tensor not in self.loop.tensors:
                    continue
                done.add(node.tensor)
                if node.tensor in names:
                    if node.tensor not in self.along:
                        return node.tensor
                else:
                    pending.extend(e.body for e in self.old.definitions(node.tensor))
        return None

    # --- after the loop -----------------------------------------------------------------------------------------------------------

    def _given_at_each_step(self, waiting: list[Einsum]) -> set[str]:
        """What has its element n at step m = n of the sweep: it waits for nothing but the states and other such values."""
        found: set[str] = set()
        names = {einsum.output for einsum in waiting}
        for einsum in waiting:
            read = {node.tensor for expr in (einsum.body, *einsum.indices) for node in accesses(expr)}
            ends = all(node.tensor in self.along for node in accesses(einsum.body) if node.tensor in self.loop.tensors)
            if ends and read & names <= found and self._may_move(einsum):
                found.add(einsum.output)
        return found

    def _may_move(self, einsum: Einsum) -> bool:
        """Can the Einsum give its element n at step m = n of the sweep?"""
        tensor = self.old.tensor(einsum.output)
        same_extent = same(self.old.rank(self.rank).extent, self.old.rank(self.prefix).extent)
        if tensor.kind != "einsum" or not same_extent or self.last not in (0, -1) or Coord(self.prefix) not in einsum.indices:
            return False
        if isinstance(einsum.body, Scan | Select) or any(self.rank in _bound(node) for node in walk(einsum.body)):
            return False
        return self.rank not in free_ranks(einsum.body) and Coord(self.rank) not in einsum.indices

    def _after(self, einsum: Einsum, moves: bool) -> Einsum:
        def change(node: Expr) -> Expr:
            if not isinstance(node, Access) or node.tensor not in self.loop.tensors:
                return node
            given = dict(zip(self.old.tensor(node.tensor).ranks, node.indices, strict=True))
            given[self.rank] = given.pop(self.loop.split.outer)
            if node.tensor in self.along:
                given[self.rank] = self._seen(given.pop(self.prefix))
            else:
                given[self.rank] = self.old.rank(self.rank).extent
            return replace(node, indices=tuple(given[rank] for rank in in_order(frozenset(given), self.old)))

        body = transform(einsum.body, change)
        if not moves:
            return replace(einsum, body=body)
        there: dict[str, Expr] = {self.prefix: Coord(self.rank)}
        indices = tuple(substitute(index, there) for index in einsum.indices)
        return replace(einsum, indices=indices, body=substitute(body, there))


def _bound(node: Expr) -> tuple[str, ...]:
    return node.ranks if isinstance(node, Reduce) else (node.rank,) if isinstance(node, Scan | Select) else ()


def _without_unused(cascade: Cascade, rank: str) -> Cascade:
    """The cascade without a rank that nothing names any more."""
    declared = cascade.rank(rank)
    exprs = [expr for einsum in cascade.einsums for expr in (einsum.body, *einsum.indices)]
    used = any(rank in tensor.ranks for tensor in cascade.tensors) or declared.split is not None or declared.part_of is not None
    used = used or any(rank in free_ranks(expr) or any(rank in _bound(node) for node in walk(expr)) for expr in exprs)
    return cascade if used else replace(cascade, ranks=tuple(r for r in cascade.ranks if r.name != rank))
