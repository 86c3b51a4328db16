"""Running versions: what an expression is while the loop over the outer part is under way.

A complete value that is the last position of a running state, `GM[p] = GM_run[p,M1]`, has a value after every step as well. This
module rewrites expressions from the last position to the current one (`m1`) or the next one (`m1+1`), through all Einsums in
between:

    SN[p,m1,m0] = exp(QK[p,m1,m0] - GM[p])      ->      SN_tile[p,m1,m0] = exp(QK[p,m1,m0] - GM_run[p,m1+1])
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Tensor, accesses, children, free_ranks, rebuild, substitute
from .accumulate import IDENTITY, RunningState, running_state
from .algebra import canonical
from .fiber import Fiber
from .identities import infinite, settles
from .signs import Sign, sign
from .step import coords, fresh, in_order, next_position, taken_names


def state_beside(cascade: Cascade, target: str, rank: str, running: frozenset[str]) -> tuple[Einsum, RunningState, Fiber] | None:
    """The one definition of `target` as a state to be, if it is a reduction that depends on the states `running`."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1:
        return None
    state, fiber = running_state(cascade, definitions[0], rank), Fiber(cascade, rank, running)
    if state is None or not fiber.complete(state.reduce.body):
        return None
    return definitions[0], state, fiber


@dataclass
class RunningVersions:
    """Builds running versions of tensors of `cascade`; `running` names the states that count."""

    cascade: Cascade
    outer: str
    """The iterative rank."""
    fiber: Fiber
    """With `running` set to the states."""
    einsums: list[Einsum] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    _made: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = taken_names(self.cascade)

    def reserve(self, *names: str) -> None:
        self.taken.update(names)

    # --- in the loop: through Einsums of their own --------------------------------------------------------------------------

    def next(self, expr: Expr) -> Expr:
        """The expression after the current tile, with new Einsums for the tensors in between (kept in `einsums`)."""
        if not self.fiber.complete(expr):
            return expr
        if isinstance(expr, Access):
            state = self.state_access(expr)
            if state is not None:
                return self.moved(state, next_position(self.outer))
            if self.fiber.roots(Access(expr.tensor, ())) & (self.fiber.running or frozenset()):
                return self._version(expr)
        return rebuild(expr, tuple(self.next(part) for part in children(expr)))

    def settled(self, body: Expr, complete: Expr, nothing: Expr) -> Expr:
        """The body of a tile, which is to be `nothing` where all that has been seen has no weight: while a max or min behind
        `complete` still has its identity. As it stands where it comes to that by itself, as exp(-inf - (-inf)) does; inf - inf does
        not."""
        for state in self.states(complete):
            if state not in infinite(complete, self.fiber) or self.initial(state) not in (IDENTITY["max"], IDENTITY["min"]):
                continue
            ranks = self.cascade.tensor(state).ranks
            reached = self.moved(Access(state, coords(ranks)), next_position(self.outer))
            if not settles(self._opened(body), reached, nothing, self.fiber):
                body = Map("where", (Map("==", (reached, self.initial(state))), nothing, body))
        return body

    def _opened(self, expr: Expr) -> Expr:
        """With the Einsums made here read in place."""
        if isinstance(expr, Access):
            for einsum in self.einsums:
                if einsum.output == expr.tensor:
                    ranks = self._ranks_of(einsum.output)
                    return self._opened(substitute(einsum.body, dict(zip(ranks, expr.indices, strict=True))))
            return expr
        return rebuild(expr, tuple(self._opened(part) for part in children(expr)))

    def _ranks_of(self, made: str) -> tuple[str, ...]:
        return next(tensor.ranks for tensor in self.tensors if tensor.name == made)

    def _version(self, access: Access) -> Access:
        tensor = self.cascade.tensor(access.tensor)
        (definition,) = self.cascade.definitions(access.tensor)
        cut = self._cut(access)
        parts = frozenset(rank for index in cut.values() for rank in free_ranks(index))
        ranks = in_order((frozenset(tensor.ranks) - cut.keys()) | parts | {self.outer}, self.cascade)
        if (access.tensor, ranks) not in self._made:
            body = self.next(substitute(definition.body, cut))
            name = self._existing(ranks, body) or self._new(access.tensor, ranks, body, tensor)
            self._made[access.tensor, ranks] = name
        given = dict(zip(tensor.ranks, access.indices, strict=True))
        return Access(self._made[access.tensor, ranks], tuple(given.get(rank, Coord(rank)) for rank in ranks))

    def _cut(self, access: Access) -> dict[str, Expr]:
        """The rank of the fiber in terms of its parts, if the access goes along it tile by tile: `S[p,m1*M0+m0]`."""
        rank = self.fiber.rank
        split, ranks = self.cascade.rank(rank).split, self.cascade.tensor(access.tensor).ranks
        if split is None or split.outer != self.outer or rank not in ranks:
            return {}
        whole = Map("+", (Map("*", (Coord(split.outer), split.tile)), Coord(split.inner)))
        return {rank: whole} if canonical(access.indices[ranks.index(rank)]) == canonical(whole) else {}

    def _existing(self, ranks: tuple[str, ...], body: Expr) -> str | None:
        """A tensor that is this very version already."""
        for einsum in (*self.cascade.einsums, *self.einsums):
            if einsum.body == body and einsum.indices == coords(ranks):
                return einsum.output
        return None

    def _new(self, base: str, ranks: tuple[str, ...], body: Expr, like: Tensor) -> str:
        moves = bool(frozenset(like.ranks) & self.fiber.ranks)
        name = fresh(f"{base}_tile" if moves else f"{base}_now", self.taken)
        self.tensors.append(Tensor(name, ranks, like.dtype))
        self.einsums.append(Einsum(name, coords(ranks), body))
        return name

    def named(self, base: str, body: Expr, ranks: tuple[str, ...]) -> Access:
        """An Einsum for `body`, or the one there is."""
        existing = self._existing(ranks, body)
        if existing is None:
            existing = fresh(base, self.taken)
            self.tensors.append(Tensor(existing, ranks))
            self.einsums.append(Einsum(existing, coords(ranks), body))
        return Access(existing, coords(ranks))

    def name_of(self, expr: Expr, otherwise: str) -> str:
        """What a correction is named after: the one complete value that it follows."""
        read = dict.fromkeys(node.tensor for node in accesses(expr) if self.fiber.complete(node))
        return next(iter(read)).removesuffix("_run") if len(read) == 1 else otherwise

    # --- as one expression ---------------------------------------------------------------------------------------------------

    def at(self, expr: Expr, when: Literal["now", "next"]) -> Expr:
        """A complete expression before (`now`) or after (`next`) the current tile, as one expression of states."""
        if not self.fiber.complete(expr):
            return expr
        if isinstance(expr, Access):
            state = self.state_access(expr)
            if state is not None:
                return self.moved(state, Coord(self.outer) if when == "now" else next_position(self.outer))
            inner = self.fiber.definition(expr)
            if inner is not None:
                return self.at(inner, when)
        return rebuild(expr, tuple(self.at(part, when) for part in children(expr)))

    def state_access(self, access: Access) -> Access | None:
        """The running state's last position that this access reads, straight or through an Einsum that passes it on."""
        tensor = self.cascade.tensor(access.tensor)
        if tensor.kind == "state":
            return access if access.tensor in (self.fiber.running or ()) else None
        inner = self.fiber.definition(access)
        return self.state_access(inner) if isinstance(inner, Access) else None

    def moved(self, access: Access, position: Expr) -> Access:
        tensor = self.cascade.tensor(access.tensor)
        assert tensor.iterates is not None
        at = tensor.ranks.index(tensor.iterates)
        return replace(access, indices=(*access.indices[:at], position, *access.indices[at + 1 :]))

    # --- the first tile --------------------------------------------------------------------------------------------------------

    def states(self, expr: Expr) -> tuple[str, ...]:
        """Running states that a complete expression depends on, in the order of definition."""
        names = self.fiber.roots(expr) & (self.fiber.running or frozenset())
        return tuple(dict.fromkeys(einsum.output for einsum in self.cascade.einsums if einsum.output in names))

    def initial(self, state: str) -> Expr:
        return next(e.body for e in self.cascade.definitions(state) if any(index == Number(0) for index in e.indices))

    def start(self, expr: Expr) -> str:
        """Limit of a complete expression where all states have their initial values: `-inf`, `inf`, `finite` or `unknown`."""
        if not self.fiber.complete(expr):
            return "finite"
        match expr:
            case Access():
                state = self.state_access(expr)
                if state is not None:
                    return _limit(self.initial(state.tensor))
                inner = self.fiber.definition(expr)
                return "unknown" if inner is None else self.start(inner)
            case Map(op="neg", args=(a,)):
                return _NEGATED[self.start(a)]
            case Map(op="+", args=(a, b)):
                return _added(self.start(a), self.start(b))
            case Map(op="-", args=(a, b)):
                return _added(self.start(a), _NEGATED[self.start(b)])
            case Map(op="/", args=(a, b)) if self._starts_at_zero(a) and self._starts_at_zero(b):
                return "finite"
            case Map(op="*" | "/", args=(a, b)) if not self.fiber.complete(b) and sign(b, self.cascade) is Sign.POSITIVE:
                return self.start(a)
            case Map(op="*", args=(a, b)) if not self.fiber.complete(a) and sign(a, self.cascade) is Sign.POSITIVE:
                return self.start(b)
            case Map(op="max", args=(a, b)):
                parts = {self.start(a), self.start(b)}
                return "unknown" if "unknown" in parts else max(parts, key=("-inf", "finite", "inf").index)
            case Map(op="min", args=(a, b)):
                parts = {self.start(a), self.start(b)}
                return "unknown" if "unknown" in parts else min(parts, key=("-inf", "finite", "inf").index)
            case Map(op="log", args=(a,)):
                return "-inf" if self._starts_at_zero(a) else "unknown"
            case _:
                return "unknown"

    def _starts_at_zero(self, expr: Expr) -> bool:
        if isinstance(expr, Access):
            state = self.state_access(expr)
            if state is not None:
                return self.initial(state.tensor) == Number(0)
            inner = self.fiber.definition(expr)
            return inner is not None and self._starts_at_zero(inner)
        return False

    def nothing_seen(self, states: tuple[str, ...]) -> Expr | None:
        """Condition that some state with an infinite initial value still has it; None if there is no such state."""
        condition: Expr | None = None
        for state in states:
            start = self.initial(state)
            if start not in (IDENTITY["max"], IDENTITY["min"]):
                continue
            tensor = self.cascade.tensor(state)
            test = Map("==", (Access(state, coords(tensor.ranks)), start))
            condition = test if condition is None else Map("or", (condition, test))
        return condition

    def minima_settled(self, states: tuple[str, ...]) -> Expr | None:
        """Condition that none of the states moves in this step; None if no running minimum is among them.

        Once a minimum is -inf, the difference of its heights would be inf - inf.
        """
        if all(self.initial(state) != IDENTITY["min"] for state in states):
            return None
        condition: Expr | None = None
        for state in states:
            here = Access(state, coords(self.cascade.tensor(state).ranks))
            test = Map("==", (here, self.moved(here, next_position(self.outer))))
            condition = test if condition is None else Map("and", (condition, test))
        return condition


_NEGATED = {"-inf": "inf", "inf": "-inf", "finite": "finite", "unknown": "unknown"}


def _added(a: str, b: str) -> str:
    if "unknown" in (a, b) or {a, b} == {"inf", "-inf"}:
        return "unknown"
    return a if a != "finite" else b


def _limit(initial: Expr) -> str:
    if initial == IDENTITY["max"]:
        return "-inf"
    if initial == IDENTITY["min"]:
        return "inf"
    return "finite" if isinstance(initial, Number) else "unknown"
