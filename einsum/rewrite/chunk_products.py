"""Products of a state's factors within a chunk, and what they come to where one state passes into another.

In: linear recurrences along a rank, some of whose terms are another state times a factor. Out: for a state, a state that it comes
from (itself first) and names of positions i and j, two tensors: the *ratio*, what is left at i of 1 added at j, and the *decay*,
what is left at i of 1 before the chunk.

    S[m+1] = a[m] * S[m] + ...           ratio[i,j] = product of a after j up to i       decay[i] = product of a up to i
    S[m+1] = a[m] * S[m] + c[m] * D[m+1]
    D[m+1] = g[m] * D[m] + ...           of S by way of D: sum[l](S_ratio[i,l] * c[l] * D_ratio[l,j]), j <= l <= i

The second is a product of matrices of a chunk; so is what passes through several states. Both have their value before the step of
i, too, where a state is read there. Products are taken from each j on: none is a quotient.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..cascade import Access, Cascade, Coord, Expr, Map, Reduce, Scan, accesses, free_ranks, substitute
from .algebra import ONE, ZERO, add, is_number, multiply, product
from .chunk import Chunk
from .linear_system import System, factors_of
from .split_recurrence import Recurrence, addends
from .step import next_position


@dataclass(frozen=True)
class Passed:
    """A term of a step that is another state times a factor: `factor * state`, before that one's step or after it."""

    factor: Expr
    state: str
    before: bool


class Products:
    """Defines each tensor when it is first asked for."""

    def __init__(self, chunk: Chunk, found: Collection[Recurrence], passed: Mapping[str, Collection[Passed]]) -> None:
        self.chunk, self.passed = chunk, passed
        self.found = {one.name: one for one in found}
        self.known: dict[tuple[object, ...], Access | None] = {}

    def origins(self, state: str) -> tuple[str, ...]:
        """The states that a state comes from, itself first."""
        names = dict.fromkeys((state, *(origin for term in self.passed[state] for origin in self.origins(term.state))))
        return tuple(names)

    def ratio(self, state: str, origin: str, before: bool, row: str, column: str) -> Access | None:
        """What is left at `row`, before its step or after it, of 1 added to `origin` at `column`; None where that is 1."""
        here, since = self.chunk.past, self.chunk.spare[0]
        if row == self.chunk.split.inner:
            here, since = row, here
        key = (state, origin, before, here, since)
        if key not in self.known:
            self.known[key] = self.between(state, before, here, since) if state == origin else self.joined(*key)
        return _renamed(self.known[key], {here: row, since: column})

    def decay(self, state: str, origin: str, before: bool, row: str) -> Access | None:
        """What is left at `row` of 1 in `origin` before the chunk; None where that is 1."""
        here = row if row == self.chunk.split.inner else self.chunk.past
        key = (state, origin, before, here)
        if key not in self.known:
            self.known[key] = self.from_start(state, before, here) if state == origin else self.joined(*key, None)
        return _renamed(self.known[key], {here: row})

    # --- a state by itself ---

    def between(self, state: str, before: bool, row: str, column: str) -> Access | None:
        since = Map("+", (Coord(column), ONE)) if before else Coord(column)
        return self.scan(state, "ratio", before, row, frozenset((row, column)), since)

    def from_start(self, state: str, before: bool, row: str) -> Access | None:
        return self.scan(state, "decay", before, row, frozenset((row,)), ZERO if before else None)

    def scan(self, state: str, name: str, before: bool, row: str, ranks: frozenset[str], first: Expr | None) -> Access | None:
        """Products of the factor along `row` from after `first` on; None where it is 1."""
        one, chunk = self.found[state], self.chunk
        if is_number(one.decay, 1):
            return None
        # a factor that is the same at every position has the same products in every chunk, but for the last, which may be cut
        varies = chunk.rank in free_ranks(one.decay) or self.read_at_end(state)
        over = (free_ranks(one.decay) - {chunk.rank}) | ({chunk.split.outer} if varies else set())
        factor = chunk.here(one.decay, row)
        if before:
            factor = substitute(factor, {row: Map("-", (Coord(row), ONE))})
        body = factor if first is None else Map("where", (Map("<", (first, Coord(row))), factor, ONE))
        return chunk.define(f"{state}_{name}{'_before' if before else ''}", over | ranks, Scan("cumprod", row, body))

    def read_at_end(self, state: str) -> bool:
        """Is its value after the last position read?"""
        return reads_at(self.chunk, state, self.chunk.old.rank(self.chunk.rank).extent)

    # --- by way of another state ---

    def joined(self, state: str, origin: str, before: bool, row: str, column: str | None) -> Access | None:
        """By way of each state that passes into this one; without a column, of what was there before the chunk."""
        chunk = self.chunk
        middle = chunk.other(*(name for name in (row, column) if name is not None))
        through: list[Access] = []
        for term in self.passed[state]:
            if origin not in self.origins(term.state):
                continue
            own = self.ratio(state, state, before, row, middle) or ONE
            into = Map("<" if before else "<=", (Coord(middle), Coord(row)))
            left = Map("where", (into, multiply(own, chunk.here(term.factor, middle)), ZERO))
            if column is None:
                right: Expr = self.decay(term.state, origin, term.before, middle) or ONE
            else:
                since = Map("<" if term.before else "<=", (Coord(column), Coord(middle)))
                right = Map("where", (since, self.ratio(term.state, origin, term.before, middle, column) or ONE, ZERO))
            body = Reduce("sum", (middle,), multiply(left, right))
            what = ("decay" if column is None else "ratio") + ("_before" if before else "")
            through.append(chunk.define(f"{state}_{origin}_{what}", free_ranks(body), body))
        if len(through) == 1:
            return through[0]
        whole: Expr = ZERO
        for part in through:
            whole = add(whole, part)
        return chunk.define(f"{state}_{origin}_joined", free_ranks(whole), whole)

    # --- at the end of a chunk ---

    def at_end(self, state: str, name: str, products: Access | None, cut: bool) -> Expr:
        """The products at the last position of a chunk; where that is not there, 0, unless what follows it is read (`cut`)."""
        if products is None:
            return ONE
        chunk = self.chunk
        inner, outer, tile = chunk.split.inner, chunk.split.outer, chunk.split.tile
        last = Map("==", (Map("+", (Coord(inner), ONE)), tile))
        if cut:
            next_chunk = Map("*", (Map("+", (Coord(outer), ONE)), tile))
            end = Map("min", (chunk.old.rank(chunk.rank).extent, next_chunk))
            last = Map("==", (Map("+", (chunk.position(inner), ONE)), end))
        body = Reduce("sum", (inner,), Map("where", (last, products, ZERO)))
        return chunk.define(f"{state}_{name}", free_ranks(products) - {inner} | ({outer} if cut else set()), body)


def reads_at(chunk: Chunk, state: str, place: Expr) -> bool:
    """Does anything but its step read the state there?"""
    ranks = chunk.old.tensor(state).ranks
    return any(
        node.tensor == state and node.indices[ranks.index(chunk.rank)] == place
        for einsum in chunk.old.einsums
        if einsum.output != state
        for node in accesses(einsum.body)
    )


def _renamed(products: Access | None, names: Mapping[str, str]) -> Access | None:
    """The same at other names of positions: each tensor is made once."""
    if products is None:
        return None
    return replace(products, indices=tuple(substitute(i, {a: Coord(b) for a, b in names.items()}) for i in products.indices))


def passed_on(one: Recurrence, rank: str, found: Mapping[str, Recurrence]) -> Mapping[Expr, Passed]:
    """The addends of a step that are another of the states times a factor."""
    return {addend: term for addend in addends(one.added) if (term := _passed(addend, rank, found)) is not None}


def _passed(addend: Expr, rank: str, found: Mapping[str, Recurrence]) -> Passed | None:
    factors = factors_of(addend)
    states = [part for part in factors if isinstance(part, Access) and part.tensor in found]
    rest = tuple(part for part in factors if part not in states)
    if len(states) != 1 or any(node.tensor in found for part in rest for node in accesses(part)):
        return None
    (state,) = states
    ranks = found[state.tensor].ranks
    place = state.indices[ranks.index(rank)]
    in_place = all(index == Coord(r) for r, index in zip(ranks, state.indices, strict=True) if r != rank)
    if not in_place or place not in (Coord(rank), next_position(rank)):
        return None
    return Passed(product(rest), state.tensor, place == Coord(rank))


def composed(
    cascade: Cascade, rank: str, found: Collection[Recurrence], systems: Collection[System]
) -> dict[str, Mapping[Expr, Passed]]:
    """For each state the addends of its step that pass another state on and need no value of it at each position.

    That is so where sums read the state and no factor on the way depends on what they bind: then what passes through two states is
    a product of matrices of positions, the same for all that is summed.
    """
    states = {one.name: one for one in found}
    passed = {one.name: passed_on(one, rank, states) for one in found}
    bound: dict[str, set[str]] = {name: set() for name in states}
    for einsum in cascade.einsums:
        for node in accesses(einsum.body):
            if node.tensor in states and isinstance(einsum.body, Reduce):
                bound[node.tensor] |= set(einsum.body.ranks)
    for read in (read for system in systems for unknown in system.unknowns for _, read in unknown.reads):
        bound[read.state.tensor] |= set(read.ranks)

    for _ in states:  # what is passed on is summed with what it is passed into
        for name, terms in passed.items():
            for term in terms.values():
                bound[term.state] |= bound[name]

    def number(name: str, summed: set[str]) -> bool:
        """Are the factors of a state and of those that pass into it one number for all that is summed?"""
        factors = (states[name].decay, *(term.factor for term in passed[name].values()))
        return not any(free_ranks(factor) & summed for factor in factors) and all(
            number(term.state, summed) for term in passed[name].values()
        )

    return {name: terms if bound[name] and number(name, bound[name]) else {} for name, terms in passed.items()}
