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
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Rank,
    Reduce,
    Scan,
    Split,
    Tensor,
    accesses,
    free_ranks,
    substitute,
    transform,
)
from .algebra import ONE, ZERO, add, divide, is_number, multiply, negate, product
from .fiber import is_step_of
from .loop import Obstructed
from .partition import declared_in_tiles
from .split_recurrence import Recurrence, addends, behind, recurrence
from .step import Refused, Rewritten, Step, coords, fresh, in_order, next_position, reordered, shown, taken_names, text

NAME = "chunked-form"
MINUS_ONE = Map("neg", (ONE,))
DEFAULT_CHUNK = 64
"""Positions of a chunk where the spec's sizes do not ask for less."""


def chunked_form(cascade: Cascade, rank: str, tile: int | None = None) -> Rewritten | Refused:
    """All linear recurrences along `rank` in chunks of `tile` positions; refused where there is none."""
    found, reason = _linear(cascade, rank)
    if not found:
        return Refused(NAME, reason.einsum, Coord(rank), reason.reason)
    given = cascade
    while (apart := _apart(cascade, rank, found)) is not cascade:
        cascade = apart
        found, _ = _linear(cascade, rank)  # a state that only the step of another one read is then read by an Einsum
    return _Chunks(given, cascade, rank, tile, found).run()


def _apart(cascade: Cascade, rank: str, found: tuple[Recurrence, ...]) -> Cascade:
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
            body = add(body, product(tuple(named(part, f"{one.name}_term") for part in _factors(term))))
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
    return tuple(found), reason


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
            if place in (Coord(rank), next_position(rank)) and Coord(rank) not in einsum.indices:
                raise Obstructed(tensor.name, f"`{einsum.output}` reads all of its positions at once")


@dataclass(frozen=True)
class _Term:
    """One addend of a reader that is linear in a state: `sum[ranks](product(factors) * state) / divisor`."""

    ranks: tuple[str, ...]
    factors: tuple[Expr, ...]
    state: Access
    divisor: Expr


@dataclass(frozen=True)
class _Tensors:
    """What stands for a state: its value before each chunk, and products of its factor (none where that is 1), by whether it is
    read before its step."""

    given: Recurrence
    chunk: str
    ratio: dict[bool, str] = field(default_factory=dict)
    """After j, up to i; up to but not including i, where it is read before the step."""
    decay: dict[bool, str] = field(default_factory=dict)
    """From the start of the chunk up to i; up to but not including i."""


class _Chunks:
    """The rewrite, Einsum by Einsum."""

    def __init__(
        self, given: Cascade, cascade: Cascade, rank: str, tile: int | None, found: tuple[Recurrence, ...]
    ) -> None:  # fmt: skip
        self.given, self.old, self.rank, self.found = given, cascade, rank, found
        self.taken = taken_names(cascade)
        self.past = fresh(f"{rank}j", self.taken)
        declared, split, _ = declared_in_tiles(cascade, rank, tile, DEFAULT_CHUNK)
        self.taken |= taken_names(declared)
        ranks: list[Rank] = []
        for each in declared.ranks:
            ranks.append(each)
            if each.name == split.inner:
                ranks.append(Rank(self.past, split.tile))
        self.new = replace(declared, ranks=tuple(ranks))
        self.split: Split = split
        self.tensors: list[Tensor] = []
        self.states: dict[str, _Tensors] = {}
        self.large: set[str] = set()
        """What sums up the largest tensors, ratios for each pair of positions and each element that is summed."""

    # --- places ---

    def position(self, inside: str) -> Expr:
        return Map("+", (Map("*", (Coord(self.split.outer), self.split.tile)), Coord(inside)))

    def now(self, expr: Expr) -> Expr:
        """An expression at position i = m0 of the chunk."""
        return substitute(expr, {self.rank: self.position(self.split.inner)})

    def past_one(self, expr: Expr) -> Expr:
        """An expression at position j = mj of the chunk, 0 beyond the end of the rank."""
        if self.rank not in free_ranks(expr):
            return expr
        return Map("where", (self.exists, substitute(expr, {self.rank: self.position(self.past)}), ZERO))

    @property
    def exists(self) -> Expr:
        """Is position j there?"""
        return Map("<", (self.position(self.past), self.old.rank(self.rank).extent))

    def before(self, strict: bool) -> Expr:
        """Is position j among those that position i sees?"""
        return Map("<" if strict else "<=", (Coord(self.past), Coord(self.split.inner)))

    def define(self, name: str, ranks: frozenset[str], body: Expr) -> tuple[str, Einsum]:
        """A tensor over these ranks."""
        name = fresh(name, self.taken)
        order = in_order(ranks, self.new)
        self.tensors.append(Tensor(name, order))
        return name, Einsum(name, coords(order), body)

    def at(self, name: str, given: dict[str, Expr]) -> Access:
        """A tensor that was made here, at its own coordinates or those given."""
        tensor = next(tensor for tensor in self.tensors if tensor.name == name)
        return Access(name, tuple(given.get(each, Coord(each)) for each in tensor.ranks))

    # --- states ---

    def state(self, one: Recurrence) -> Iterator[Einsum]:
        """The Einsums that take the place of a state."""
        outer = self.split.outer
        chunk = fresh(f"{one.name}_chunk", self.taken)
        order = in_order((frozenset(one.ranks) - {self.rank}) | {outer}, self.new)
        self.tensors.append(Tensor(chunk, order, kind="state", iterates=outer))
        found = self.states[one.name] = _Tensors(one, chunk)
        rest: Expr = ONE
        total: Expr = ONE
        if not is_number(one.decay, 1):
            yield from self.products(found)
            cut = self.read_at(one, self.old.rank(self.rank).extent)
            rest, einsum = self.at_end(found, "rest", found.ratio[False], cut)
            yield einsum
            total, einsum = self.at_end(found, "all", found.decay[False], cut)
            yield einsum
        step = multiply(total, Access(chunk, coords(order)))
        for term in addends(one.added):
            factors = [rest, *(self.past_one(part) for part in _factors(term))]
            if self.rank not in free_ranks(term):  # the same at each position: as often as there are any
                factors.append(Map("where", (self.exists, ONE, ZERO)))
            name, einsum = self.define(f"{one.name}_added", frozenset(order), Reduce("sum", (self.past,), product(tuple(factors))))
            yield einsum
            step = add(step, self.at(name, {}))
        yield Einsum(chunk, tuple(ZERO if each == outer else Coord(each) for each in order), one.initial)
        yield Einsum(chunk, tuple(next_position(each) if each == outer else Coord(each) for each in order), step)

    def products(self, found: _Tensors) -> Iterator[Einsum]:
        """Products of the factor within a chunk: between two positions, and from its start on."""
        one, inner = found.given, self.split.inner
        factor = self.now(one.decay)
        # a factor that is the same at every position has the same products in every chunk, but for the last, which may be cut
        varies = self.rank in free_ranks(one.decay) or self.read_at(one, self.old.rank(self.rank).extent)
        over = (free_ranks(one.decay) - {self.rank}) | ({self.split.outer} if varies else set())
        one_before = substitute(factor, {inner: Map("-", (Coord(inner), ONE))})
        past_next = Map("+", (Coord(self.past), ONE))

        def scan(name: str, ranks: set[str], first: Expr, body: Expr) -> tuple[str, Einsum]:
            condition = Map("<", (first, Coord(inner)))
            within = Scan("cumprod", inner, body if first == MINUS_ONE else Map("where", (condition, body, ONE)))
            return self.define(f"{one.name}_{name}", over | ranks, within)

        found.ratio[False], einsum = scan("ratio", {inner, self.past}, Coord(self.past), factor)
        yield einsum
        found.decay[False], einsum = scan("decay", {inner}, MINUS_ONE, factor)
        yield einsum
        if self.read_at(one, Coord(self.rank)):
            found.ratio[True], einsum = scan("ratio_before", {inner, self.past}, past_next, one_before)
            yield einsum
            found.decay[True], einsum = scan("decay_before", {inner}, ZERO, one_before)
            yield einsum

    def at_end(self, found: _Tensors, name: str, products: str, cut: bool) -> tuple[Access, Einsum]:
        """The products at the last position of a chunk; where that is not there, 0, unless what follows it is read (`cut`)."""
        inner, outer, tile = self.split.inner, self.split.outer, self.split.tile
        last = Map("==", (Map("+", (Coord(inner), ONE)), tile))
        if cut:
            next_chunk = Map("*", (Map("+", (Coord(outer), ONE)), tile))
            end = Map("min", (self.old.rank(self.rank).extent, next_chunk))
            last = Map("==", (Map("+", (self.position(inner), ONE)), end))
        tensor = self.at(products, {})
        ranks = free_ranks(tensor) - {inner}
        body = Reduce("sum", (inner,), Map("where", (last, tensor, ZERO)))
        name, einsum = self.define(f"{found.given.name}_{name}", ranks, body)
        return self.at(name, {}), einsum

    def read_at(self, one: Recurrence, place: Expr) -> bool:
        """Does anything but its step read the state there?"""
        return any(
            node.tensor == one.name and node.indices[one.ranks.index(self.rank)] == place
            for einsum in self.old.einsums
            if einsum.output != one.name
            for node in accesses(einsum.body)
        )

    # --- readers ---

    def reader(self, einsum: Einsum) -> Iterator[Einsum]:
        """The Einsums that take the place of one that reads chunked states."""
        whole = self.linear(einsum.body)
        if whole is None:
            made: dict[Expr, Expr] = {}
            for access in dict.fromkeys(accesses(einsum.body)):
                if access.tensor in self.states and self.place(access) is not None:
                    made[access], parts = self.term(f"{access.tensor}_here", _Term((), (), access, ONE))
                    yield from parts
            yield replace(einsum, body=transform(einsum.body, lambda node: self.ended(made.get(node, node))))
            return
        body: Expr = ZERO
        for term in whole:
            if isinstance(term, _Term):
                value, parts = self.term(einsum.output, term)
                yield from parts
                body = add(body, divide(value, term.divisor))
            else:
                body = add(body, term)
        yield replace(einsum, body=body)

    def ended(self, node: Expr) -> Expr:
        """The last position of a state is that after the last chunk."""
        if not isinstance(node, Access) or node.tensor not in self.states:
            return node
        one = self.states[node.tensor]
        given = dict(zip(one.given.ranks, node.indices, strict=True))
        del given[self.rank]
        given[self.split.outer] = self.new.rank(self.split.outer).extent
        return self.at(one.chunk, given)

    def place(self, access: Access) -> bool | None:
        """Is a state read before its step (True) or after it (False)? None where it is read at its end."""
        index = access.indices[self.states[access.tensor].given.ranks.index(self.rank)]
        return True if index == Coord(self.rank) else False if index == next_position(self.rank) else None

    def linear(self, body: Expr) -> tuple[_Term | Expr, ...] | None:
        """A sum of products as the terms of it that are linear in one state, and the others; None if it is no such sum."""
        if not isinstance(body, Reduce) or body.op != "sum":
            return None
        bound = frozenset(body.ranks)
        found: list[_Term | Expr] = []
        for addend in _multiplied_out(body.body, self.states):
            term, divisor = _divided(addend, bound)
            parts = _factors(term)
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

    def term(self, name: str, term: _Term) -> tuple[Expr, list[Einsum]]:
        """One addend: what the chunk itself adds, and what came before it. Its value at position m, and the Einsums for it."""
        one, inner, outer = self.states[term.state.tensor], self.split.inner, self.split.outer
        strict = self.place(term.state)
        assert strict is not None
        given = {r: i for r, i in zip(one.given.ranks, term.state.indices, strict=True) if r != self.rank}
        here = {r: self.now(i) for r, i in given.items()}
        bound = frozenset(term.ranks)
        left = tuple(self.now(part) for part in term.factors)
        ratio = tuple(self.at(made[strict], here) for made in (one.ratio,) if made)
        decay = tuple(self.at(made[strict], here) for made in (one.decay,) if made)
        einsums: list[Einsum] = []

        def defined(suffix: str, body: Expr, *always: str) -> Access:
            made, einsum = self.define(f"{name}_{suffix}", free_ranks(body) | set(always), body)
            einsums.append(einsum)
            return self.at(made, {})

        def under(parts: Iterable[Expr], inside: bool = True) -> tuple[Expr, ...]:
            """Those that the sum of the reader is about, or the others."""
            return tuple(part for part in parts if bool(free_ranks(part) & bound) == inside)

        value: Expr = ZERO
        for addend in addends(substitute(one.given.added, given)):
            right = tuple(self.past_one(part) for part in _factors(addend))
            pairs = under(ratio, inside=False)
            if bound:
                scores = Reduce("sum", term.ranks, product(under((*left, *right, *ratio))))
                held = defined("scores", scores, outer, inner, self.past)
                if under(ratio):
                    self.large.add(held.tensor)
                pairs = (*pairs, held)
            weights = defined("weights", Map("where", (self.before(strict), product(pairs), ZERO)), outer, inner, self.past)
            summed = Reduce("sum", (self.past,), product((weights, *under(right, inside=False))))
            value = add(value, product((*under(left, inside=False), defined("within", summed, outer, inner))))
        start: Expr = product((*under((*decay, *left)), self.at(one.chunk, {**here, outer: Coord(outer)})))
        if bound:
            start = defined("state", Reduce("sum", term.ranks, start), outer, inner)
        value = defined("chunked", add(value, product((*under((*decay, *left), inside=False), start))), outer, inner)
        place = Coord(self.rank)
        which: dict[str, Expr] = {outer: Map("//", (place, self.split.tile)), inner: Map("%", (place, self.split.tile))}
        return self.at(value.tensor, which), einsums

    # --- the whole ---

    def run(self) -> Rewritten:
        gone = {one.name: one for one in self.found}
        einsums: list[Einsum] = []
        new: list[Einsum] = []
        for einsum in self.old.einsums:  # states first: what reads them is written by their tensors
            if einsum.output in gone and is_step_of(einsum, self.rank):
                made = list(self.state(gone[einsum.output]))
                new += made
                einsums += made
        for einsum in self.old.einsums:
            if einsum.output in gone:
                continue
            reads = any(node.tensor in gone for node in accesses(einsum.body))
            made = list(self.reader(einsum)) if reads else [einsum]
            new += made if reads else []
            einsums += made
        declared = tuple(tensor for tensor in self.old.tensors if tensor.name not in gone)
        einsums.sort(key=lambda einsum: einsum.output not in self.large)  # as soon as may be: then they are not needed any more
        after = replace(self.new, tensors=(*declared, *self.tensors), einsums=_in_turn(einsums, new))
        after = reordered(after)
        m, m1, m0, tile = self.rank, self.split.outer, self.split.inner, text(self.split.tile)
        step = Step(
            NAME,
            ", ".join(gone),
            shown([einsum for einsum in self.given.einsums if einsum not in after.einsums], self.given),
            f"{m} = {m1}*{tile} + {m0}: the state at {m} is the state before the chunk times the factors up to {m0}, plus what was "
            f"added at each {self.past} up to {m0} times the factors between",
            "each step is a factor times the old value plus a term, both free of the state; products of factors are taken from "
            + "each place on, so that nothing is divided; points beyond the end add 0",
            shown([einsum for einsum in after.einsums if einsum not in self.given.einsums], after),
        )
        return Rewritten(after, step)


def _in_turn(einsums: list[Einsum], new: list[Einsum]) -> tuple[Einsum, ...]:
    """The Einsums in an order in which each comes after what it reads, otherwise as they are."""
    left = Counter(einsum.output for einsum in einsums)
    made = {einsum.output for einsum in new}
    begun: set[str] = set()
    ordered: list[Einsum] = []
    waiting = list(einsums)

    def ready(einsum: Einsum) -> bool:
        """Is all that it reads defined? Of a loop that stands as it was, what came first comes first."""
        together = [e for e in new if e.output == einsum.output] or [einsum]  # a start stands with its step
        read = {node.tensor for e in together for expr in (e.body, *e.indices) for node in accesses(expr)} - {einsum.output}
        return all(not left[name] or (name in begun and not {name, einsum.output} & made) for name in read)

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


def _factors(expr: Expr) -> tuple[Expr, ...]:
    """The factors of a product, a sign being one."""
    match expr:
        case Map(op="*", args=(a, b)):
            return (*_factors(a), *_factors(b))
        case Map(op="neg", args=(a,)):
            return (MINUS_ONE, *_factors(a))
        case _:
            return (expr,)
