"""States along a rank that read themselves through sums: what their steps write, as the unknowns of a linear system.

before    R[m,f]     = K[m,e] * S[m,e,f]
          U[m,f]     = (V[m,f] - R[m,f]) * BE[m]
          S[m+1,e,f] = g[m] * S[m,e,f] + K[m,e] * U[m,f]
after     S[m+1,e,f] = g[m] * S[m,e,f] + K[m,e] * U[m,f]      U is an `Unknown`:
          U[m,f]     = V[m,f] * BE[m] - BE[m] * sum[e](K[m,e] * S[m,e,f])

In: a cascade and Einsums that depend on each other along a rank. Out: the cascade in which the unknowns are inputs, so that each
state takes the step a * X + b with b free of what depends on X; and the unknowns, each a value that is free of the states plus
coefficients times sums over states as they are before their step.

How a step is written does not matter: element-wise Einsums of the circle are opened, products with sums are multiplied out as far
as they must be, and what depends on the ranks that reads sum (the key K) is parted from what does not (the value U). Terms with the
same key are one unknown. A read of a state in the middle of its step (after a first write) is opened to a read before it plus
products of keys. Refused: what is not linear, reads over different ranks that depend on each other, a state read at other elements
than those that it is written at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Reduce,
    Scan,
    Select,
    Tensor,
    accesses,
    free_ranks,
    needed_for,
    substitute,
)
from .algebra import ONE, ZERO, add, divide, multiply, negate, product
from .fiber import is_step_of
from .loop import Obstructed
from .split_recurrence import behind
from .step import coords, fresh, in_order, next_position, reordered, taken_names, text


@dataclass(frozen=True)
class Read:
    """`sum[ranks](product(factors) * state)`, the state as it is before its step."""

    ranks: tuple[str, ...]
    factors: tuple[Expr, ...]
    state: Access


@dataclass(frozen=True)
class Unknown:
    """A value that a step writes: `constant + sum of coefficient * read`, all at the same position."""

    name: str
    label: str
    """What tensors that are made of it are called."""
    ranks: tuple[str, ...]
    constant: Expr
    reads: tuple[tuple[Expr, Read], ...]


@dataclass(frozen=True)
class System:
    """The states of a circle and the unknowns that they are given, in the order in which they are solved."""

    states: tuple[str, ...]
    unknowns: tuple[Unknown, ...]

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """All that the unknowns are made of."""
        reads = [(coefficient, read) for unknown in self.unknowns for coefficient, read in unknown.reads]
        constants = tuple(unknown.constant for unknown in self.unknowns)
        return (*constants, *(part for coefficient, read in reads for part in (coefficient, *read.factors, read.state)))


def circles(cascade: Cascade, rank: str) -> tuple[frozenset[str], ...]:
    """Tensors that depend on each other along a rank, a state among them, and more than one."""
    states = [tensor.name for tensor in cascade.tensors if tensor.kind == "state" and tensor.iterates == rank]
    found = (frozenset(behind(cascade, frozenset((name,))) & needed_for(cascade, (name,))) for name in states)
    return tuple(dict.fromkeys(circle for circle in found if len(circle) > 1))


def linear_system(cascade: Cascade, rank: str, circle: frozenset[str]) -> tuple[Cascade, System]:
    """The cascade with the unknowns of a circle as inputs, and the system that they solve. Raises `Obstructed`."""
    return _Circle(cascade, rank, circle).run()


@dataclass(frozen=True)
class _Part:
    """One addend: `product(key) * rest`, times a state if there is one; `rest` is free of the ranks that were asked about."""

    state: Access | None
    key: tuple[Expr, ...]
    rest: Expr


class _Circle:
    def __init__(self, cascade: Cascade, rank: str, circle: frozenset[str]) -> None:
        self.cascade, self.rank, self.circle = cascade, rank, circle
        self.taken = taken_names(cascade)
        self.states = tuple(t.name for t in cascade.tensors if t.name in circle and t.kind == "state")
        self.bodies: dict[str, Expr] = {}
        self.named: list[tuple[Tensor, Einsum]] = []
        for name in sorted(circle):
            tensor = cascade.tensor(name)
            *_, einsum = sorted(cascade.definitions(name), key=lambda e: is_step_of(e, rank))
            along = is_step_of(einsum, rank) if tensor.kind == "state" else Coord(rank) in einsum.indices
            if not along or tensor.kind not in ("state", "einsum"):
                raise Obstructed(name, f"it is part of a circle and does not go along `{rank}`")
            if isinstance(einsum.body, Scan | Select) or (isinstance(einsum.body, Reduce) and einsum.body.op != "sum"):
                raise Obstructed(name, f"`{einsum.body.op}` of what depends on the state is no sum")
            self.bodies[name] = einsum.body

    # --- expressions of the circle ---

    def waits(self, expr: Expr) -> bool:
        return any(node.tensor in self.circle for node in accesses(expr))

    def opened(self, expr: Expr, steps: bool = False) -> Expr:
        """The expression with definitions in the place of element-wise tensors of the circle that hold a state; with `steps`, also
        in the place of states after their step."""
        match expr:
            case Access(tensor=name, indices=indices) if name in self.circle:
                body = self.bodies[name]
                at = dict(zip(self.cascade.tensor(name).ranks, indices, strict=True))
                if name in self.states:
                    place = at.pop(self.rank)
                    if place not in (Coord(self.rank), next_position(self.rank)):
                        raise Obstructed(name, f"it is read at `{text(place)}` by what it depends on")
                    if place == Coord(self.rank) or not steps:
                        return expr
                    return self.opened(substitute(body, at), steps)
                if at[self.rank] != Coord(self.rank):
                    raise Obstructed(name, f"it is read at `{text(at[self.rank])}` by what it depends on")
                if isinstance(body, Reduce) or not self.holds(body, steps):
                    return expr
                return self.opened(substitute(body, at), steps)
            case Map(op=op, args=args):
                return Map(op, tuple(self.opened(arg, steps) for arg in args))
            case _:
                return expr

    def holds(self, expr: Expr, steps: bool) -> bool:
        """Is there a state in it, element by element?"""
        opened = self.opened(expr, steps)
        return any(node.tensor in self.states for node in accesses(opened))

    def parts(self, expr: Expr, ranks: frozenset[str]) -> Iterator[_Part]:
        """An opened expression as a sum of products, as far as its states and `ranks` are to be parted from the rest."""
        held = [node for node in accesses(expr) if node.tensor in self.states]
        if not held and not free_ranks(expr) & ranks:
            yield _Part(None, (), expr)
        elif not self.waits(expr):
            factors = factors_of(expr)
            yield _Part(
                None,
                tuple(part for part in factors if free_ranks(part) & ranks),
                product(tuple(part for part in factors if not free_ranks(part) & ranks)),
            )
        elif isinstance(expr, Access) and held:
            yield _Part(expr, (), ONE)
        elif isinstance(expr, Access) and not isinstance(self.bodies[expr.tensor], Reduce):
            at = dict(zip(self.cascade.tensor(expr.tensor).ranks, expr.indices, strict=True))
            yield from self.parts(self.opened(substitute(self.bodies[expr.tensor], at)), ranks)
        else:
            yield from self.sums(expr, ranks)

    def sums(self, expr: Expr, ranks: frozenset[str]) -> Iterator[_Part]:
        match expr:
            case Map(op="+" | "-" as op, args=(a, b)):
                yield from self.parts(a, ranks)
                yield from self.parts(b if op == "+" else negate(b), ranks)
            case Map(op="neg", args=(a,)):
                for part in self.parts(a, ranks):
                    yield replace(part, rest=negate(part.rest))
            case Map(op="/", args=(a, b)) if not self.waits(b):
                by_key = bool(free_ranks(b) & ranks)
                for part in self.parts(a, ranks):
                    yield replace(part, key=(*part.key, divide(ONE, b))) if by_key else replace(part, rest=divide(part.rest, b))
            case Map(op="*", args=(a, b)):
                right = tuple(self.parts(b, ranks))
                for x in self.parts(a, ranks):
                    for y in right:
                        if sum(part.state is not None or self.waits(part.rest) for part in (x, y)) > 1:
                            raise Obstructed(self.states[0], f"`{text(expr)}` is a product of two values that depend on it")
                        yield _Part(x.state or y.state, (*x.key, *y.key), multiply(x.rest, y.rest))
            case Access() if self.waits(expr):
                over = ", ".join(f"`{r}`" for r in sorted(free_ranks(expr) & ranks))
                raise Obstructed(self.states[0], f"`{text(expr)}` depends on {over}, which sums over states bind")
            case _:
                raise Obstructed(self.states[0], f"`{text(expr)}` is not linear in it")

    # --- unknowns ---

    def affine(self, expr: Expr) -> Iterator[tuple[Read | None, Expr]]:
        """A value as reads times coefficients, and what is none."""
        if not self.waits(expr):
            yield None, expr
            return
        match expr:
            case Access(tensor=name, indices=indices) if indices != coords(self.cascade.tensor(name).ranks):
                raise Obstructed(self.states[0], f"`{text(expr)}` is not read in place by what it depends on")
            case Access(tensor=name) if name not in self.states:
                body = self.bodies[name]
                yield from self.read(name, body) if isinstance(body, Reduce) else self.affine(body)
            case Map(op="+" | "-" as op, args=(a, b)):
                yield from self.affine(a)
                yield from ((read, negate(c) if op == "-" else c) for read, c in self.affine(b))
            case Map(op="neg", args=(a,)):
                yield from ((read, negate(c)) for read, c in self.affine(a))
            case Map(op="/", args=(a, b)) if not self.waits(b):
                yield from ((read, divide(c, b)) for read, c in self.affine(a))
            case Map(op="*", args=(a, b)) if not (self.waits(a) and self.waits(b)):
                value, factor = (a, b) if self.waits(a) else (b, a)
                yield from ((read, multiply(c, factor)) for read, c in self.affine(value))
            case _:
                raise Obstructed(self.states[0], f"`{text(expr)}` is not linear in it")

    def read(self, name: str, body: Reduce) -> Iterator[tuple[Read | None, Expr]]:
        """A sum over states, each as it is before its step; what was written since then is a coefficient times values."""
        bound = frozenset(body.ranks)
        for part in self.parts(self.opened(body.body, steps=True), bound):
            if part.state is not None:
                if self.waits(part.rest):
                    raise Obstructed(part.state.tensor, f"`{text(part.rest)}` depends on it and is multiplied with it")
                yield Read(body.ranks, (*part.key, *factors_of(part.rest)), part.state), ONE
                continue
            count = product(tuple(self.cascade.rank(r).extent for r in body.ranks))
            summed = self.name(f"{name}_keys", Reduce("sum", body.ranks, product(part.key))) if part.key else count
            yield from ((read, multiply(summed, c)) for read, c in self.affine(part.rest))

    def name(self, base: str, body: Expr) -> Access:
        """An Einsum of its own; the same one for the same expression."""
        for tensor, einsum in self.named:
            if einsum.body == body:
                return Access(tensor.name, coords(tensor.ranks))
        tensor = Tensor(fresh(base, self.taken), in_order(free_ranks(body) | {self.rank}, self.cascade))
        self.named.append((tensor, Einsum(tensor.name, coords(tensor.ranks), body)))
        return Access(tensor.name, coords(tensor.ranks))

    def unknown(self, state: str, value: Expr) -> Unknown:
        """The value that a step writes."""
        constant: Expr = ZERO
        found: dict[Read, Expr] = {}
        for read, coefficient in self.affine(value):
            if read is None:
                constant = add(constant, coefficient)
            else:
                found[read] = add(found.get(read, ZERO), coefficient)
        label = value.tensor if isinstance(value, Access) else f"{state}_write"
        ranks = in_order(free_ranks(value) | {self.rank}, self.cascade)
        reads = tuple((coefficient, read) for read, coefficient in found.items())
        return Unknown(fresh(f"{label}_unknown", self.taken), label, ranks, constant, reads)

    # --- the whole ---

    def run(self) -> tuple[Cascade, System]:
        reduced = [body for body in self.bodies.values() if isinstance(body, Reduce)]
        bound = frozenset(r for body in reduced if self.holds(body.body, True) for r in body.ranks)
        unknowns: dict[Expr, Unknown] = {}
        steps: dict[str, Expr] = {}
        for state in self.states:
            steps[state] = self.step(state, bound, unknowns)
        for unknown in unknowns.values():
            for _, read in unknown.reads:
                self.check_in_place(unknown, read)
        pseudo = tuple(Tensor(unknown.name, unknown.ranks, kind="input") for unknown in unknowns.values())
        einsums = tuple(
            replace(e, body=steps[e.output]) if e.output in steps and is_step_of(e, self.rank) else e for e in self.cascade.einsums
        )
        tensors = (*pseudo, *self.cascade.tensors, *(tensor for tensor, _ in self.named))
        after = replace(self.cascade, tensors=tensors, einsums=(*(einsum for _, einsum in self.named), *einsums))
        return reordered(after), System(self.states, tuple(unknowns.values()))

    def step(self, state: str, bound: frozenset[str], unknowns: dict[Expr, Unknown]) -> Expr:
        """The step of a state as `decay * state + other states + keys * values`."""
        own = Access(state, coords(self.cascade.tensor(state).ranks))
        carried: dict[Access, Expr] = {own: ZERO}
        written: dict[tuple[Expr, ...], Expr] = {}
        for part in self.parts(self.opened(self.bodies[state]), bound):
            if part.state is None:
                written[part.key] = add(written.get(part.key, ZERO), part.rest)
                continue
            factor = multiply(product(part.key), part.rest)
            if self.waits(factor):
                raise Obstructed(state, f"`{text(factor)}` depends on it and is multiplied with it")
            if any(index not in (Coord(r), next_position(r)) for r, index in self.placed(part.state)):
                raise Obstructed(state, f"its step reads other elements, `{text(part.state)}`")
            carried[part.state] = add(carried.get(part.state, ZERO), factor)
        body: Expr = ZERO
        for access, factor in carried.items():
            body = add(body, multiply(factor, access))
        for key, value in written.items():
            if self.waits(value):
                if value not in unknowns:
                    unknowns[value] = self.unknown(state, value)
                found = unknowns[value]
                value = Access(found.name, coords(found.ranks))
            body = add(body, multiply(product(key), value))
        return body

    def placed(self, access: Access) -> Iterator[tuple[str, Expr]]:
        return zip(self.cascade.tensor(access.tensor).ranks, access.indices, strict=True)

    def check_in_place(self, unknown: Unknown, read: Read) -> None:
        """What a read finds was written at its own elements: then the same system holds for each of them."""
        for rank, index in self.placed(read.state):
            if index != Coord(rank):
                raise Obstructed(read.state.tensor, f"`{text(read.state)}` is read at other elements than those that are written")
            if rank in read.ranks and rank in unknown.ranks:
                raise Obstructed(read.state.tensor, f"what is written depends on `{rank}`, which a read sums")


def factors_of(expr: Expr) -> tuple[Expr, ...]:
    """The factors of a product, a sign being one."""
    match expr:
        case Map(op="*", args=(a, b)):
            return (*factors_of(a), *factors_of(b))
        case Map(op="neg", args=(a,)):
            return (Map("neg", (ONE,)), *factors_of(a))
        case _:
            return (expr,)
