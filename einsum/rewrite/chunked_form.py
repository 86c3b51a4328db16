"""Chunked form of linear recurrences: the state is advanced a chunk at a time, what lies inside a chunk is summed in pairs.

before    KV[m+1,e,f] = g[m] * KV[m,e,f] + K[m,e] * V[m,f]
          Y[m,f]      = Q[m,e] * KV[m+1,e,f]
after     KV_ratio[m1,m0,mj]  = cumprod[m0](where(mj < m0, g[m1*M0+m0], 1))
          KV_decay[m1,m0]     = cumprod[m0](g[m1*M0+m0])
          KV_rest[m1,mj]      = sum[m0](where(m0 + 1 == M0, KV_ratio[m1,m0,mj], 0))
          KV_all[m1]          = sum[m0](where(m0 + 1 == M0, KV_decay[m1,m0], 0))
          KV_added[m1,e,f]    = KV_rest[m1,mj] * K[m1*M0+mj,e] * V[m1*M0+mj,f]
          KV_chunk[m1+1,e,f]  = KV_all[m1] * KV_chunk[m1,e,f] + KV_added[m1,e,f]
          Y_scores[m1,m0,mj]  = Q[m1*M0+m0,e] * K[m1*M0+mj,e]
          Y_weights[m1,m0,mj] = where(mj <= m0, KV_ratio[m1,m0,mj] * Y_scores[m1,m0,mj], 0)
          Y_within[m1,m0,f]   = Y_weights[m1,m0,mj] * V[m1*M0+mj,f]
          Y_state[m1,m0,f]    = Q[m1*M0+m0,e] * KV_chunk[m1,e,f]
          Y_chunked[m1,m0,f]  = Y_within[m1,m0,f] + KV_decay[m1,m0] * Y_state[m1,m0,f]
          Y[m,f]              = Y_chunked[m//M0,m%M0,f]

Condition: the state takes the step a * X + b, element by element, and neither a nor b depends on X. Then the state after position
i of a chunk is the product of the factors up to i times the state before the chunk, plus, for each position j up to i, what was
added there times the product of the factors between. Those products are taken as products, from j on: none is a quotient, so a
factor of 0 or of any sign is like any other, and where factors are at most 1 no product exceeds 1.

A factor that depends on a rank which the reader sums stays under that sum (gated linear attention: `KV_ratio[m1,m0,mj,e]`). Such
scores are no product of two matrices: taking the ratio apart into a part of m0 and a part of mj needs a quotient, and a quotient
of products that underflow, or of a factor that is 0, is not what stands here. Chunks are short there: what lies before the chunk
goes through the state, which is a product of matrices.

Two more kinds of step come to that form. Where b reads X through sums (the delta rule), what is written is an unknown of a linear
system (`linear_system`), which each chunk solves (`unit_triangular`); the length of a chunk is a number then. Where b is another
state times a factor (momentum), what passes through both is a product of ratios (`chunk_products`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Tensor,
    accesses,
    free_ranks,
    needed_for,
    substitute,
    transform,
)
from .algebra import ONE, ZERO, add, divide, multiply, negate, product
from .chunk import Chunk
from .chunk_products import Products, composed
from .fiber import is_step_of
from .linear_system import System, circles, factors_of, linear_system
from .loop import Obstructed
from .split_recurrence import Recurrence, addends, behind, recurrence
from .step import Refused, Rewritten, Step, coords, fresh, in_order, next_position, reordered, shown, taken_names, text
from .unit_triangular import Solver

NAME = "chunked-form"
DEFAULT_CHUNK = 64
"""Positions of a chunk where the spec's sizes do not ask for less."""


def chunked_form(cascade: Cascade, rank: str, tile: int | None = None) -> Rewritten | Refused:
    """All linear recurrences along `rank` in chunks of `tile` positions; refused where there is none."""
    given, systems, reason = cascade, list[System](), Obstructed(rank, f"no state runs along `{rank}`")
    needed = needed_for(given, given.outputs)
    for circle in circles(given, rank):
        if not circle & needed:
            continue
        try:
            opened, system = linear_system(cascade, rank, circle)
            for name in system.states:
                _check_readers(opened, rank, opened.tensor(name))
            _check_passing(opened, rank, system)
        except Obstructed as obstructed:
            reason = obstructed
        else:
            cascade = opened
            systems.append(system)
    found, other = _linear(cascade, rank)
    if not found:
        reason = reason if reason.einsum != rank else other
        return Refused(NAME, reason.einsum, Coord(rank), reason.reason)
    cascade = _live(cascade, systems)
    while (apart := _apart(cascade, rank, found, composed(cascade, rank, found, systems))) is not cascade:
        cascade = apart
        found, _ = _linear(cascade, rank)  # a state that only the step of another one read is then read by an Einsum
    return _Chunks(given, cascade, rank, tile, found, tuple(systems)).run()


def _check_passing(cascade: Cascade, rank: str, system: System) -> None:
    """States of a system are passed on without their values at each position, which depend on what the system gives."""
    found, _ = _linear(cascade, rank)
    passed = composed(cascade, rank, found, (system,))
    for one in found:
        for addend in addends(one.added) if one.name in system.states else ():
            other = next((node.tensor for node in accesses(addend) if node.tensor in system.states), None)
            if other is not None and addend not in passed[one.name]:
                raise Obstructed(
                    one.name, f"`{text(addend)}` passes `{other}` on by a factor for each element, or element by element"
                )
    missing = set(system.states) - {one.name for one in found}
    if missing:
        raise Obstructed(min(missing), "its factor depends on states that depend on it")


def _live(cascade: Cascade, systems: Collection[System]) -> Cascade:
    """Without what only the steps of the systems needed before."""
    if not systems:
        return cascade
    read = {node.tensor for system in systems for expr in system.expressions for node in accesses(expr)}
    needed = needed_for(cascade, (*cascade.outputs, *read))
    return reordered(replace(cascade, einsums=tuple(e for e in cascade.einsums if e.output in needed)))


def _apart(cascade: Cascade, rank: str, found: tuple[Recurrence, ...], passed: Mapping[str, Collection[Expr]]) -> Cascade:
    """Factors and terms that read other states as Einsums of their own: those states may run in another way.

    S[m+1,e] = S[m,e] * exp(Z[m,e] - Z[m+1,e]) + K[m,e]      S_factor[m,e] = exp(Z[m,e] - Z[m+1,e])
                                                             S[m+1,e] = S_factor[m,e] * S[m,e] + K[m,e]
    """
    steps = {one.name: one for one in found}
    taken = taken_names(cascade)
    einsums: list[Einsum] = []
    tensors: list[Tensor] = []
    states = {tensor.name for tensor in cascade.tensors if tensor.kind == "state"}

    def named(expr: Expr, name: str) -> Expr:
        if not any(node.tensor in states for node in accesses(expr)):
            return expr
        tensor = Tensor(fresh(name, taken), in_order(free_ranks(expr) | {rank}, cascade))
        tensors.append(tensor)
        einsums.append(Einsum(tensor.name, coords(tensor.ranks), expr))
        return Access(tensor.name, coords(tensor.ranks))

    for einsum in cascade.einsums:
        one = steps.get(einsum.output)
        if one is None or not is_step_of(einsum, rank):
            einsums.append(einsum)
            continue
        body = multiply(named(one.decay, f"{one.name}_factor"), Access(one.name, coords(one.ranks)))
        for term in addends(one.added):
            parts = (term,) if term in passed[one.name] else tuple(named(p, f"{one.name}_term") for p in factors_of(term))
            body = add(body, product(parts))
        einsums.append(replace(einsum, body=body))
    return cascade if not tensors else reordered(replace(cascade, tensors=(*cascade.tensors, *tensors), einsums=tuple(einsums)))


def _linear(cascade: Cascade, rank: str) -> tuple[tuple[Recurrence, ...], Obstructed]:
    """The states along the rank that can be chunked, and why another one cannot."""
    found: list[Recurrence] = []
    reason = Obstructed(rank, f"no state runs along `{rank}`")
    for tensor in cascade.tensors:
        if tensor.kind != "state" or tensor.iterates != rank:
            continue
        try:
            one = recurrence(cascade, rank, tensor.name, behind(cascade, frozenset((tensor.name,))), f"`{tensor.name}`")
            _check_readers(cascade, rank, tensor)
        except Obstructed as obstructed:
            reason = obstructed
        else:
            found.append(one)
    while other := _read_by_others(cascade, rank, found):
        reason = Obstructed(other.name, "the step of a state that stays as it is reads it")
        found.remove(other)
    return tuple(found), reason


def _read_by_others(cascade: Cascade, rank: str, found: Collection[Recurrence]) -> Recurrence | None:
    """One of the states that the step of a state which is none of them reads."""
    names = {one.name for one in found}
    others = [e for e in cascade.einsums if is_step_of(e, rank) and e.output not in names]
    read = {node.tensor for einsum in others for node in accesses(einsum.body)}
    return next((one for one in found if one.name in read), None)


def _check_readers(cascade: Cascade, rank: str, tensor: Tensor) -> None:
    """The state is read where its step is made, before or after it, or at its end."""
    if tensor.name in cascade.outputs:
        raise Obstructed(tensor.name, "all of its positions are an output")
    places = {Coord(rank), next_position(rank), cascade.rank(rank).extent}
    for einsum in cascade.einsums:
        if einsum.output == tensor.name:
            continue
        for access in accesses(einsum.body):
            place = access.indices[tensor.ranks.index(rank)] if access.tensor == tensor.name else None
            if place is not None and place not in places:
                raise Obstructed(tensor.name, f"it is read at `{text(place)}`")
            if place is not None and any(rank in free_ranks(index) for index in access.indices if index != place):
                raise Obstructed(tensor.name, f"`{einsum.output}` chooses elements of it by `{rank}`")
            step = is_step_of(einsum, rank)
            if place in (Coord(rank), next_position(rank)) and not step and Coord(rank) not in einsum.indices:
                raise Obstructed(tensor.name, f"`{einsum.output}` reads all of its positions at once")


@dataclass(frozen=True)
class _Term:
    """One addend of a reader that is linear in a state: `sum[ranks](product(factors) * state) / divisor`."""

    ranks: tuple[str, ...]
    factors: tuple[Expr, ...]
    state: Access
    divisor: Expr


@dataclass(frozen=True)
class _Pairs:
    """What a read finds of one term that states were given within the chunk: `left * sum[column](weights * right)`."""

    left: tuple[Expr, ...]
    weights: Access
    given: tuple[Expr, ...]
    """Factors of the term that depend on nothing that is summed, as they are written."""


class _Chunks(Chunk):
    """The rewrite, Einsum by Einsum."""

    def __init__(
        self,
        given: Cascade,
        cascade: Cascade,
        rank: str,
        tile: int | None,
        found: tuple[Recurrence, ...],
        systems: tuple[System, ...],
    ) -> None:
        super().__init__(cascade, rank, tile, DEFAULT_CHUNK, fixed=bool(systems))
        self.given, self.systems = given, systems
        passed = composed(cascade, rank, found, systems)
        self.found = tuple(
            replace(one, added=_sum(term for term in addends(one.added) if term not in passed[one.name])) for one in found
        )
        self.states = {one.name: one for one in self.found}
        self.products = Products(self, self.found, {name: tuple(terms.values()) for name, terms in passed.items()})
        self.before_chunk: dict[str, str] = {}
        """The state before each chunk, by the state."""
        self.solved: dict[str, Access] = {}
        """Unknowns at positions `past`."""
        self.large: set[str] = set()
        """What sums up the largest tensors, ratios for each pair of positions and each element that is summed."""

    def here(self, expr: Expr, inside: str) -> Expr:
        """As in any chunk; an unknown is there once it is solved."""
        if isinstance(expr, Access) and expr.tensor in self.solved:
            names = {self.past: inside}
            at = {r: i for r, i in zip(self.old.tensor(expr.tensor).ranks, expr.indices, strict=True) if r != self.rank}
            return substitute(self.solved[expr.tensor], {**at, **{old: Coord(new) for old, new in names.items()}})
        return super().here(expr, inside)

    # --- states ---

    def declare(self, one: Recurrence) -> None:
        """The state before each chunk."""
        chunk = fresh(f"{one.name}_chunk", self.taken)
        order = in_order((frozenset(one.ranks) - {self.rank}) | {self.split.outer}, self.new)
        self.tensors.append(Tensor(chunk, order, kind="state", iterates=self.split.outer))
        self.before_chunk[one.name] = chunk

    def advance(self, one: Recurrence) -> None:
        """A state goes on by a chunk."""
        outer, inner = self.split.outer, self.split.inner
        chunk = self.before_chunk[one.name]
        order = next(tensor.ranks for tensor in self.tensors if tensor.name == chunk)
        cut = self.products.read_at_end(one.name)
        step: Expr = ZERO
        for origin in self.products.origins(one.name):
            suffix = "" if origin == one.name else f"_{origin}"
            ratio = self.products.ratio(one.name, origin, False, inner, self.past) if self.terms(origin) else None
            decay = self.products.decay(one.name, origin, False, inner)
            rest = self.products.at_end(one.name, f"rest{suffix}", ratio, cut)
            total = self.products.at_end(one.name, f"all{suffix}", decay, cut)
            step = add(step, multiply(total, self.at(self.before_chunk[origin], {})))
            for term in self.terms(origin):
                factors = [rest, *(self.here(part, self.past) for part in factors_of(term))]
                if self.rank not in free_ranks(term):  # the same at each position: as often as there are any
                    factors.append(Map("where", (self.exists(self.past), ONE, ZERO)))
                summed = Reduce("sum", (self.past,), product(tuple(factors)))
                step = add(step, self.define(f"{one.name}_added", frozenset(order), summed))
        start = tuple(ZERO if each == outer else Coord(each) for each in order)
        self.einsums.append(Einsum(chunk, start, one.initial))
        then = tuple(next_position(each) if each == outer else Coord(each) for each in order)
        self.einsums.append(Einsum(chunk, then, step))

    def terms(self, state: str) -> tuple[Expr, ...]:
        """What is added to a state at each position, other states apart."""
        added = self.states[state].added
        return () if added == ZERO else addends(added)

    def solve(self, system: System) -> None:
        """The unknowns of a system at all positions of the chunk at once: rows are positions `past`."""
        unknowns = system.unknowns
        row, column = self.past, self.spare[0]
        number = {unknown.name: place for place, unknown in enumerate(unknowns)}
        matrix: dict[tuple[int, int], Expr] = {}
        known: list[Access] = []
        for place, unknown in enumerate(unknowns):
            start = self.here(unknown.constant, column)
            for coefficient, read in unknown.reads:
                term = _Term(read.ranks, read.factors, read.state, ONE)
                for pairs in self.pairs(unknown.label, term, True, row, column):
                    others = tuple(part for part in pairs.given if not _is_one_of(part, number))
                    found = next((part for part in pairs.given if _is_one_of(part, number)), None)
                    factors = (
                        self.here(coefficient, row),
                        *pairs.left,
                        *(self.here(part, column) for part in others),
                        pairs.weights,
                    )
                    if isinstance(found, Access):
                        at = place, number[found.tensor]
                        matrix[at] = add(matrix.get(at, ZERO), product(factors))
                value = self.value(unknown.label, term, True, column, skip=number)
                start = add(start, multiply(self.here(coefficient, column), value))
            around = frozenset(unknown.ranks) - {self.rank} | {self.split.outer, column}
            known.append(self.define(f"{unknown.label}_start", around, start))
        names = [unknown.label for unknown in unknowns]
        size = self.split.tile
        assert isinstance(size, Number)
        system_of = {
            (q, p): self.define(f"{names[q]}_pairs" if q == p else f"{names[q]}_{names[p]}_pairs", free_ranks(body), body)
            for (q, p), body in matrix.items()
        }
        for unknown, access in zip(unknowns, Solver(self, int(size.value)).solve(names, system_of, known), strict=True):
            self.solved[unknown.name] = access

    # --- readers ---

    def reader(self, einsum: Einsum) -> None:
        """The Einsums that take the place of one that reads chunked states."""
        whole = self.linear(einsum.body)
        if whole is None:
            made: dict[Expr, Expr] = {}
            for access in dict.fromkeys(accesses(einsum.body)):
                if access.tensor in self.states and self.place(access) is not None:
                    made[access] = self.term(f"{access.tensor}_here", _Term((), (), access, ONE))
            self.einsums.append(replace(einsum, body=transform(einsum.body, lambda node: self.ended(made.get(node, node)))))
            return
        body: Expr = ZERO
        for term in whole:
            body = add(body, divide(self.term(einsum.output, term), term.divisor) if isinstance(term, _Term) else term)
        self.einsums.append(replace(einsum, body=body))

    def ended(self, node: Expr) -> Expr:
        """The last position of a state is that after the last chunk."""
        if not isinstance(node, Access) or node.tensor not in self.states:
            return node
        given = dict(zip(self.states[node.tensor].ranks, node.indices, strict=True))
        del given[self.rank]
        given[self.split.outer] = self.new.rank(self.split.outer).extent
        return self.at(self.before_chunk[node.tensor], given)

    def place(self, access: Access) -> bool | None:
        """Is a state read before its step (True) or after it (False)? None where it is read at its end."""
        index = access.indices[self.states[access.tensor].ranks.index(self.rank)]
        return True if index == Coord(self.rank) else False if index == next_position(self.rank) else None

    def linear(self, body: Expr) -> tuple[_Term | Expr, ...] | None:
        """A sum of products as the terms of it that are linear in one state, and the others; None if it is no such sum."""
        if not isinstance(body, Reduce) or body.op != "sum":
            return None
        bound = frozenset(body.ranks)
        found: list[_Term | Expr] = []
        for addend in _multiplied_out(body.body, self.states):
            term, divisor = _divided(addend, bound)
            parts = factors_of(term)
            states = [p for p in parts if isinstance(p, Access) and p.tensor in self.states and self.place(p) is not None]
            others = [part for part in parts if part not in states]
            inside = [node for part in (*others, divisor) for node in accesses(part) if node.tensor in self.states]
            if not states and not inside:
                found.append(Reduce("sum", body.ranks, addend))
                continue
            if len(states) != 1 or inside:
                return None
            found.append(_Term(body.ranks, tuple(others), states[0], divisor))
        return tuple(found) if any(isinstance(term, _Term) for term in found) else None

    def term(self, name: str, term: _Term) -> Expr:
        """One addend at position m."""
        before, inner, outer = self.place(term.state), self.split.inner, self.split.outer
        assert before is not None
        value = self.value(name, term, before, inner)
        chunked = self.define(f"{name}_chunked", free_ranks(value) | {outer, inner}, value)
        place = Coord(self.rank)
        which: dict[str, Expr] = {outer: Map("//", (place, self.split.tile)), inner: Map("%", (place, self.split.tile))}
        return self.at(chunked.tensor, which)

    def value(self, name: str, term: _Term, before: bool, row: str, skip: Collection[str] = ()) -> Expr:
        """One addend at a position of the chunk: what the chunk itself adds, and what came before it. `skip`: without what these
        unknowns add."""
        column = self.other(row)
        value: Expr = ZERO
        for pairs in self.pairs(name, term, before, row, column, skip):
            right = tuple(self.here(part, column) for part in pairs.given)
            summed = Reduce("sum", (column,), product((pairs.weights, *right)))
            within = self.define(f"{name}_within", free_ranks(summed) | {self.split.outer, row}, summed)
            value = add(value, product((*pairs.left, within)))
        _, at = self.places(term, row)
        bound = frozenset(term.ranks)
        left = tuple(self.here(part, row) for part in term.factors)
        for origin in self.products.origins(term.state.tensor):
            decay = self.products.decay(term.state.tensor, origin, before, row)
            factors = left if decay is None else (substitute(decay, at), *left)
            chunk = self.at(self.before_chunk[origin], {**at, self.split.outer: Coord(self.split.outer)})
            start = product((*_under(factors, bound), chunk))
            if bound:
                summed = Reduce("sum", term.ranks, start)
                start = self.define(f"{name}_state", free_ranks(summed) | {self.split.outer, row}, summed)
            value = add(value, product((*_beside(factors, bound), start)))
        return value

    def places(self, term: _Term, row: str) -> tuple[dict[str, Expr], dict[str, Expr]]:
        """The elements of a state that a term reads: as they are written, and at a position of the chunk."""
        ranks = self.states[term.state.tensor].ranks
        given = {r: i for r, i in zip(ranks, term.state.indices, strict=True) if r != self.rank}
        return given, {r: self.here(i, row) for r, i in given.items()}

    def pairs(
        self, name: str, term: _Term, before: bool, row: str, column: str, skip: Collection[str] = ()
    ) -> Iterator[_Pairs]:  # fmt: skip
        """For each term that a state was given at a position `column`, what a read of it at `row` finds."""
        given, at = self.places(term, row)
        bound = frozenset(term.ranks)
        left = tuple(self.here(part, row) for part in term.factors)
        seen = Map("<" if before else "<=", (Coord(column), Coord(row)))
        for origin in self.products.origins(term.state.tensor):
            for addend in self.terms(origin):
                parts = factors_of(substitute(addend, given))
                if any(_is_one_of(part, skip) for part in parts):
                    continue
                products = self.products.ratio(term.state.tensor, origin, before, row, column)
                ratio = () if products is None else (substitute(products, at),)
                pairs = _beside(ratio, bound)
                if bound:
                    right = tuple(self.here(part, column) for part in _under(parts, bound))
                    scores = Reduce("sum", term.ranks, product((*_under(left, bound), *right, *_under(ratio, bound))))
                    held = self.define(f"{name}_scores", free_ranks(scores) | {self.split.outer, row, column}, scores)
                    if _under(ratio, bound):
                        self.large.add(held.tensor)
                    pairs = (*pairs, held)
                body = Map("where", (seen, product(pairs), ZERO))
                weights = self.define(f"{name}_weights", free_ranks(body) | {self.split.outer, row, column}, body)
                yield _Pairs(_beside(left, bound), weights, _beside(parts, bound))

    # --- the whole ---

    def run(self) -> Rewritten:
        for one in self.found:
            self.declare(one)
        for system in self.systems:
            self.solve(system)
        for one in self.found:  # states first: what reads them is written by their tensors
            self.advance(one)
        kept: list[Einsum] = []
        for einsum in self.old.einsums:
            if einsum.output in self.states:
                continue
            if any(node.tensor in self.states for node in accesses(einsum.body)):
                self.reader(einsum)
            else:
                self.einsums.append(einsum)
                kept.append(einsum)
        new = [einsum for einsum in self.einsums if einsum not in kept]
        gone = {*self.states, *self.solved}
        declared = tuple(tensor for tensor in self.old.tensors if tensor.name not in gone)
        self.einsums.sort(
            key=lambda einsum: einsum.output not in self.large
        )  # as soon as may be: then they are not needed any more
        early = {self.before_chunk[name] for system in self.systems for name in system.states}
        einsums = _in_turn(self.einsums, new, early)
        after = reordered(replace(self.new, ranks=self.declared(), tensors=(*declared, *self.tensors), einsums=einsums))
        m, m1, m0, tile = self.rank, self.split.outer, self.split.inner, text(self.split.tile)
        rule = (
            f"{m} = {m1}*{tile} + {m0}: the state at {m} is the state before the chunk times the factors up to {m0}, plus what was "
            f"added at each {self.past} up to {m0} times the factors between"
        )
        condition = (
            "each step is a factor times the old value plus a term, both free of the state; products of factors are taken from "
            "each place on, so that nothing is divided; points beyond the end add 0"
        )
        if self.systems:
            names = ", ".join(unknown.label for system in self.systems for unknown in system.unknowns)
            rule += f"; {names}, which read the state themselves, solve a unit triangular system in each chunk"
            condition += (
                f"; {names} are free of it but for sums over the state before the step, so that each depends on those before it "
                "only: the matrix is strictly lower triangular, and its inverse is made of those of its halves"
            )
        step = Step(
            NAME,
            ", ".join(self.states),
            shown([einsum for einsum in self.given.einsums if einsum not in after.einsums], self.given),
            rule,
            condition,
            shown([einsum for einsum in after.einsums if einsum not in self.given.einsums], after),
        )
        return Rewritten(after, step)


def _sum(terms: Iterable[Expr]) -> Expr:
    whole: Expr = ZERO
    for term in terms:
        whole = add(whole, term)
    return whole


def _is_one_of(expr: Expr, names: Collection[str]) -> bool:
    return isinstance(expr, Access) and expr.tensor in names


def _under(parts: Iterable[Expr], bound: frozenset[str]) -> tuple[Expr, ...]:
    """Those that a sum is about."""
    return tuple(part for part in parts if free_ranks(part) & bound)


def _beside(parts: Iterable[Expr], bound: frozenset[str]) -> tuple[Expr, ...]:
    """Those that may stand outside of a sum."""
    return tuple(part for part in parts if not free_ranks(part) & bound)


def _in_turn(einsums: list[Einsum], new: list[Einsum], early: Collection[str]) -> tuple[Einsum, ...]:
    """The Einsums in an order in which each comes after what it reads, otherwise as they are; states in `early` are read on the way
    to their step."""
    left = Counter(einsum.output for einsum in einsums)
    made = {einsum.output for einsum in new}
    begun: set[str] = set()
    ordered: list[Einsum] = []
    waiting = list(einsums)

    def ready(einsum: Einsum) -> bool:
        """Is all that it reads defined? Of a loop that stands as it was, what came first comes first."""
        alone = einsum.output in early or einsum not in new
        together = [einsum] if alone else [e for e in new if e.output == einsum.output]  # a start stands with its step
        read = {node.tensor for e in together for expr in (e.body, *e.indices) for node in accesses(expr)} - {einsum.output}
        return all(not left[name] or (name in begun and (name in early or not {name, einsum.output} & made)) for name in read)

    while waiting:
        chosen = next(einsum for einsum in waiting if ready(einsum))
        ordered.append(chosen)
        begun.add(chosen.output)
        waiting.remove(chosen)
        left[chosen.output] -= 1
    return tuple(ordered)


def _multiplied_out(expr: Expr, states: Collection[str]) -> tuple[Expr, ...]:
    """The addends of a sum; a product with a sum that has states in it is multiplied out."""
    found: list[Expr] = []
    for addend in addends(expr):
        match addend:
            case Map(op="*", args=(a, b)) if any(node.tensor in states for node in accesses(addend)):
                left, right = _multiplied_out(a, states), _multiplied_out(b, states)
                found += [multiply(x, y) for x in left for y in right]
            case Map(op="/", args=(a, b)) if any(node.tensor in states for node in accesses(a)):
                found += [divide(x, b) for x in _multiplied_out(a, states)]
            case Map(op="neg", args=(a,)):
                found += [negate(x) for x in _multiplied_out(a, states)]
            case _:
                found.append(addend)
    return tuple(found)


def _divided(expr: Expr, bound: frozenset[str]) -> tuple[Expr, Expr]:
    """An expression and what it is divided by at last, free of the bound ranks."""
    match expr:
        case Map(op="/", args=(a, b)) if not free_ranks(b) & bound:
            inner, divisor = _divided(a, bound)
            return inner, multiply(divisor, b)
        case _:
            return expr, ONE
