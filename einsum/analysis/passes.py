"""Passes: how often a cascade must go along a fiber, whatever the mapping.

In: a cascade and a rank. Out: `Levels`: the level of each Einsum, the passes, at which levels each input is read, and which
dependency forces each level above the first. The definition is in docs/design/analysis.md; in short: a value is *complete* if it
depends on the whole fiber or needs elements arbitrarily far ahead; an Einsum that goes along the fiber (or gathers from it, or
scatters to it) lies one level above the complete values that it reads.

The method is one abstract interpretation: each tensor has a level, whether it is complete, and (if not) how far along the fiber
its elements reach, as a function of its indices. A reader that is at position t of the fiber may use what lies at most a bounded
distance ahead of t in the order of traversal; anything else is complete to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Scan, Select, children, remembered, walk
from ..flatten import flatten
from ..sizes import evaluate_scalar
from ..symbolic import ONE, Formula, Key, constant, floor_div, formula, symbol
from .fiber import Fiber, expanded, extent_of, fiber_of, leaves_of
from .order import facts

Direction = Literal["ascending", "descending"]

ROUNDS = 3
"""Rounds of equal rises after which levels are taken to rise with every step of a loop."""


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forced:
    """Why a level exists: `einsum` goes along the fiber and reads `needs`, which is complete only after the level before."""

    level: int
    rank: str
    einsum: str
    needs: str
    origin: str
    """The tensor with which the value became complete: `needs` itself, or one that it is computed from."""
    because: str
    """What made it complete, such as `max over m`."""
    through: tuple[str, ...]
    """Tensors between `origin` and `needs`, both left out."""

    def as_json(self) -> dict[str, object]:
        return {
            "level": self.level, "rank": self.rank, "einsum": self.einsum, "needs": self.needs, "origin": self.origin,
            "because": self.because, "through": list(self.through), "text": str(self),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.origin == self.needs:
            return f"`{self.einsum}` needs `{self.needs}` complete ({self.because})"
        chain = "".join(f", through `{name}`" for name in self.through)
        return f"`{self.einsum}` needs `{self.needs}` complete (`{self.origin}`: {self.because}{chain})"


@dataclass(frozen=True)
class EinsumLevel:
    """Where one Einsum of the flattened cascade stands."""

    output: str
    level: int
    """0 if it depends on no element of the fiber."""
    iterates: str | None
    """The rank that the Einsum goes along: the rank asked for, one of its parts, or None."""
    complete: bool
    """Whether its values are complete."""
    growth: int = 0
    """Levels more with each further step of the loops that `Levels.loops` names; `level` is that of the first step."""


@dataclass(frozen=True)
class Levels:
    """Levels of a cascade along one rank."""

    rank: str
    cascade: Cascade
    """The flattened cascade that the levels belong to."""
    passes: dict[str, int]
    """Of the rank, and of those of its parts along which some Einsum goes alone."""
    einsums: tuple[EinsumLevel, ...]
    """One for each Einsum of the flattened cascade, in order."""
    reads: dict[str, dict[str, tuple[int, ...]]]
    """Per rank (or part): at which levels each input is read along it."""
    forced_by: tuple[Forced, ...]
    carried: dict[str, tuple[int, ...]]
    """Intermediates with an element for each position that a later level reads: level of definition, then those of its readers."""
    growth: dict[str, int] = field(default_factory=dict)
    """Passes more for each further step of `loops`, where that is not 0; `passes` are those of one step then."""
    loops: tuple[str, ...] = ()
    """Iterative ranks (other than this one) with a full traversal of this one in each step."""

    def in_all(self, rank: str) -> Formula | None:
        """Passes over the rank or a part in all steps of the loops; None where several loops add to them."""
        return self._risen(self.passes[rank], self.growth.get(rank, 0))

    def level_in_all(self, number: int) -> Formula | None:
        """Level of one Einsum in the last step of the loops; None where several loops add to it."""
        return self._risen(self.einsums[number].level, self.einsums[number].growth)

    def _risen(self, first: int, growth: int) -> Formula | None:
        if not growth:
            return constant(first)
        if len(self.loops) != 1:
            return None
        return constant(first) + growth * (extent_of(self.cascade, self.loops[0]) - ONE)

    @property
    def of_einsum(self) -> dict[str, int]:
        """Level of each tensor's Einsums (the greatest, for a state)."""
        result: dict[str, int] = {}
        for einsum in self.einsums:
            result[einsum.output] = max(result.get(einsum.output, 0), einsum.level)
        return result


# --- what is known of a cascade before any rank is chosen --------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """One access in an Einsum: its indices as formulas (None where a tensor is read inside), and what holds where it stands."""

    access: Access
    indices: tuple[Formula | None, ...]
    guards: tuple[Formula, ...]


@dataclass(frozen=True)
class Step:
    """One Einsum, ready for analysis."""

    einsum: Einsum
    iterated: frozenset[str]
    bound: frozenset[str]
    reads: tuple[Read, ...]
    scatter: tuple[Expr, ...]
    """Left-hand indices that read a tensor."""

    @property
    def output(self) -> str:
        return self.einsum.output


@dataclass(frozen=True)
class Prepared:
    """A flattened cascade with its accesses in normal form: what is worth computing once for all ranks."""

    cascade: Cascade
    steps: tuple[Step, ...]
    coordinates: dict[str, frozenset[tuple[int, str]]]
    """For each tensor: (dimension, unsplit rank) pairs for the rank variables that index it somewhere."""
    selections: dict[str, str]
    """Integer tensors that hold positions along a rank: results of argmax, argtopk and so on."""
    whole: dict[str, Formula]
    """Each split rank's variable in terms of its unsplit parts."""
    _runs: dict[str, tuple[Fiber, Run]] = field(default_factory=dict, compare=False, repr=False)

    def fiber(self, rank: str) -> Fiber:
        """The fiber of a rank or part."""
        return self._known(rank)[0]

    def along(self, rank: str) -> Run:
        """Levels of all Einsums along a rank or part."""
        return self._known(rank)[1]

    def _known(self, rank: str) -> tuple[Fiber, Run]:
        if rank not in self._runs:
            fiber = fiber_of(self.cascade, rank)
            self._runs[rank] = fiber, _Analysis(self, fiber).run()
        return self._runs[rank]


def prepare(cascade: Cascade, params: Mapping[str, int | float] | None = None) -> Prepared:
    """Flatten a cascade and bring its accesses to normal form, with the parameters that are whole numbers put in."""
    flat = flatten(cascade)
    whole = expanded(flat)
    parts = dict(whole)
    for name, value in known_params(flat, params).items():
        if isinstance(value, int):
            parts[name] = constant(value)
    quotients = [floor_div(symbol(r.split.inner), formula(r.split.tile)) for r in flat.ranks if r.split is not None]
    inside = frozenset(key for quotient in quotients for monomial in quotient.terms for key, _ in monomial)
    steps = tuple(_step(einsum, parts, inside) for einsum in flat.einsums)
    coordinates: dict[str, set[tuple[int, str]]] = {tensor.name: set() for tensor in flat.tensors}
    names = {rank.name for rank in flat.ranks}
    for step in steps:
        for read in step.reads:
            for place, index in enumerate(read.indices):
                if index is not None:
                    coordinates[read.access.tensor].update((place, s) for s in index.symbols & names)
    selections: dict[str, str] = {}
    for step in steps:
        body = step.einsum.body
        if isinstance(body, Select) and body.op.startswith("arg"):
            selections[step.output] = body.rank
        elif isinstance(body, Reduce) and body.op.startswith("arg"):
            selections[step.output] = body.ranks[0]
        elif isinstance(body, Access) and body.tensor in selections:
            selections[step.output] = selections[body.tensor]
    return Prepared(flat, steps, {name: frozenset(found) for name, found in coordinates.items()}, selections, whole)


def known_params(cascade: Cascade, params: Mapping[str, int | float] | None = None) -> dict[str, int | float]:
    """Parameters whose values do not depend on sizes: those given, and those that the spec sets to a number."""
    known: dict[str, int | float] = dict(params or {})
    for name, expr in cascade.params:
        if name not in known:
            with suppress(KeyError, ArithmeticError, ValueError):
                known[name] = evaluate_scalar(expr, known)
    return known


def _step(einsum: Einsum, parts: dict[str, Formula], inside: frozenset[Key]) -> Step:
    body = einsum.body
    bound: frozenset[str] = frozenset()
    if isinstance(body, Reduce):
        bound = frozenset(body.ranks)
    elif isinstance(body, Select):
        bound = frozenset((body.rank,))
    free = {node.rank for index in einsum.indices for node in walk(index) if isinstance(node, Coord)}
    iterated = frozenset(free) | bound | (frozenset((body.fills,)) if isinstance(body, Select) else frozenset())
    scatter = tuple(index for index in einsum.indices if any(isinstance(node, Access) for node in walk(index)))
    found = [*_reads(body, (), parts, inside)]
    for index in scatter:
        found += _reads(index, (), parts, inside)
    return Step(einsum, iterated, bound, tuple(found), scatter)


def _reads(expr: Expr, guards: tuple[Formula, ...], parts: dict[str, Formula], inside: frozenset[Key]) -> Iterator[Read]:
    """All accesses with the affine conditions that hold where they are evaluated."""
    match expr:
        case Access(indices=indices):
            yield Read(expr, tuple(_index(index, parts, inside) for index in indices), guards)
        case Map(op="where", args=(condition, yes, no)):
            yield from _reads(condition, guards, parts, inside)
            yield from _reads(yes, guards + _facts(condition, True, parts), parts, inside)
            yield from _reads(no, guards + _facts(condition, False, parts), parts, inside)
            return
        case _:
            pass
    for part in children(expr):
        yield from _reads(part, guards, parts, inside)


def _facts(condition: Expr, holds: bool, parts: dict[str, Formula]) -> tuple[Formula, ...]:
    return tuple(fact.substitute(parts) for fact in facts(condition, holds))


def _index(expr: Expr, parts: dict[str, Formula], inside: frozenset[Key]) -> Formula | None:
    """An index as a formula of unsplit ranks; `inside` are quotients that are 0 (an inner part divided by its tile)."""
    if isinstance(expr, Coord):
        return parts.get(expr.rank) or symbol(expr.rank)
    if any(isinstance(node, Access) for node in walk(expr)):
        return None
    try:
        found = formula(expr).substitute(parts)
        return found.without(inside) if inside else found
    except (ValueError, ZeroDivisionError):
        return None


# --- the abstract value of a tensor -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """What is known of a tensor's elements along a fiber.

    `high`, `low`: positions that an element depends on lie below (above) the greatest (least) of these, as functions of the
    tensor's rank names; None: unbounded on that side; (): any position does.
    """

    level: int = 0
    complete: bool = False
    high: tuple[Formula, ...] | None = ()
    low: tuple[Formula, ...] | None = ()
    origin: str = ""
    because: str = ""
    through: tuple[str, ...] = ()


INPUT = Value()


@dataclass
class Run:
    """Levels along one fiber: for each Einsum its level and whether it goes along the fiber; values of tensors at the end."""

    levels: list[int] = field(default_factory=list)
    touches: list[bool] = field(default_factory=list)
    forced: list[Forced] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    growth: list[int] = field(default_factory=list)
    """Levels that each Einsum rises by with each further step of the loops; `levels` are those of the first step then."""
    loops: tuple[str, ...] = ()
    """Iterative ranks of the states whose levels rise."""


@dataclass(eq=False)
class _Swept:
    """Tensors made in one sweep that must all turn round if one does; `free` if they can."""

    names: set[str]
    free: bool


class _Analysis:
    """Levels of all Einsums along one fiber."""

    def __init__(self, prepared: Prepared, fiber: Fiber) -> None:
        self.prepared, self.fiber = prepared, fiber
        self.cascade = prepared.cascade
        self.values: dict[str, Value] = {tensor.name: INPUT for tensor in self.cascade.inputs}
        self.levels = [0] * len(prepared.steps)
        self.touches = [self._touches(step) for step in prepared.steps]
        self.forced: list[Forced] = []
        self.pins: dict[int, Direction] = {}
        self.groups: dict[str, _Swept] = {}

    def run(self) -> Run:
        """Repeat until nothing changes (once, if there are no states), or until each round adds the same levels again.

        A round is a further step of the loops. Once the same Einsums rise by the same amounts three times in a row, they feed
        themselves through a state: each step of the loop takes so many passes more.
        """
        states = [tensor for tensor in self.cascade.tensors if tensor.kind == "state"]
        rises: list[list[int]] = []
        while True:
            before, levels_before = dict(self.values), list(self.levels)
            self.forced, self.pins, self.groups = [], {}, {}
            for number, step in enumerate(self.prepared.steps):
                self._visit(number, step)
            if not states or self.values == before:
                return Run(self.levels, self.touches, self.forced, self.values, [0] * len(self.levels))
            rises.append([after - old for after, old in zip(self.levels, levels_before, strict=True)])
            if len(rises) > ROUNDS and any(rises[-1]) and all(rise == rises[-1] for rise in rises[-ROUNDS:]):
                growth = rises[-1]
                first = [level - rise * (len(rises) - 1) for level, rise in zip(self.levels, growth, strict=True)]
                rising = {step.output for step, rise in zip(self.prepared.steps, growth, strict=True) if rise}
                loops = dict.fromkeys(tensor.iterates or "" for tensor in states if tensor.name in rising)
                return Run(first, self.touches, self.forced, self.values, growth, tuple(loops))

    # --- does an Einsum go along the fiber? ---

    def _touches(self, step: Step) -> bool:
        """Iterates the fiber at full resolution, gathers from it, or scatters to it."""
        if self.fiber.leaves <= self.fiber.expand(step.iterated):
            return True
        if any(self._gathers(read) for read in step.reads):
            return True
        tensor = self.cascade.tensor(step.output)
        return any(
            index in step.scatter and self.fiber.related(rank)
            for index, rank in zip(step.einsum.indices, tensor.ranks, strict=True)
        )

    def _gathers(self, read: Read) -> bool:
        tensor = self.cascade.tensor(read.access.tensor)
        for place, (index, expr) in enumerate(zip(read.indices, read.access.indices, strict=True)):
            selecting = [node.tensor for node in walk(expr) if isinstance(node, Access)] if index is None else []
            if not selecting:
                continue
            if self.fiber.related(tensor.ranks[place]):
                return True
            if any(where == place and rank in self.fiber.leaves for where, rank in self.prepared.coordinates[tensor.name]):
                return True
            if any(self.fiber.related(self.prepared.selections[name]) for name in selecting if name in self.prepared.selections):
                return True
        return False

    # --- one Einsum ---

    def _visit(self, number: int, step: Step) -> None:
        value = self._along(number, step) if self.touches[number] else self._aside(step)
        name = step.output
        self.levels[number] = max(self.levels[number], value.level)
        old = self.values.get(name)
        if self.cascade.tensor(name).kind == "state" and old is not None:
            value = self._state(step, old, value)
        self.values[name] = value

    def _state(self, step: Step, old: Value, new: Value) -> Value:
        """A state after one more definition: what is known of it never shrinks."""
        if (old.level, old.complete) > (new.level, new.complete) and not (self._is_step(step) and old.level == new.level):
            return old
        if old.complete and new.complete and old.level == new.level:
            return old
        if self._is_step(step) and self._on_clock(step) and not new.complete:
            # position q of the state depends on the steps before q
            tensor = self.cascade.tensor(step.output)
            before = self.fiber.position(tensor.iterates or "", symbol(tensor.iterates or "") - ONE)
            assert before is not None
            return Value(new.level, False, (before,), None)
        return new

    def _is_step(self, step: Step) -> bool:
        iterates = self.cascade.tensor(step.output).iterates
        place = self.cascade.tensor(step.output).ranks.index(iterates or "")
        return step.einsum.indices[place] != Number(0)

    def _on_clock(self, step: Step) -> bool:
        """Whether the state of this step runs along the fiber."""
        return (self.cascade.tensor(step.output).iterates or "") in self.fiber.path

    def _along(self, number: int, step: Step) -> Value:
        """An Einsum that goes along the fiber."""
        known = [(read, self.values.get(read.access.tensor)) for read in step.reads]
        level, late = 1, []
        for read, value in known:
            if value is None or value.level == 0:
                continue
            late_here = value.complete or self._beyond_state(read, step) or self._unplaced(read, value)
            level = max(level, value.level + late_here)
            if late_here:
                late.append((read, value))
        present = [
            (read, value)
            for read, value in known
            if value is not None and value.level == level and not any(read is other for other, _ in late)
        ]
        frame = self._frame(step, level, present)
        if frame is None and self._turned(step, present):
            present = [(read, self.values[read.access.tensor]) for read, _ in present]
            frame = self._frame(step, level, present)
        if frame is None:  # something present is needed before its time: it must be complete first
            default = self._position(step, reverse=False)
            ahead = [(read, value) for read, value in present if not self._in_time(read, value, default, "ascending")]
            late += ahead or present
            level += 1
            present = []
            frame = self._frame(step, level, []) or (False, "ascending")
        for read, value in late:
            if value.level + 1 == level:
                self._note(step, level, read, value)
        result = self._result(step, level, frame)
        self._tie(step.output, [read.access.tensor for read, _ in present], free=frame[1] is None and result.high == result.low)
        return result

    # --- Einsums that are swept together ---

    def _tie(self, output: str, names: list[str], free: bool) -> None:
        """Tensors made in one sweep whose order depends on one another; `free` if all of it could as well run backwards."""
        together = _Swept({output}, free)
        for name in names:
            group = self.groups.get(name)
            together.free &= group is not None and group.free
            together.names |= group.names if group is not None else {name}
        for name in together.names:
            self.groups[name] = together

    def _turned(self, step: Step, present: list[tuple[Read, Value]]) -> bool:
        """Turn round what this Einsum would read too late, where nothing keeps it from running the other way; whether it helped."""
        position = self._position(step, reverse=False)
        late = [pair for pair in present if not self._in_time(*pair, position, "ascending")]
        turning = [self.groups.get(read.access.tensor) for read, _ in late]
        kept = [self.groups.get(read.access.tensor) for read, value in present if (read, value) not in late]
        if any(group is None or not group.free or group in kept for group in turning):
            return False
        names = set().union(*(group.names for group in turning if group is not None))
        before = {name: self.values[name] for name in names}
        last = self.fiber.length - ONE
        for name, value in before.items():
            self.values[name] = replace(
                value,
                high=None if value.low is None else tuple(last - bound for bound in value.low),
                low=None if value.high is None else tuple(last - bound for bound in value.high),
            )
        if all(self._in_time(read, self.values[read.access.tensor], position, "ascending") for read, _ in present):
            return True
        self.values |= before
        return False

    def _note(self, step: Step, level: int, read: Read, value: Value) -> None:
        name = read.access.tensor
        if value.complete:
            found = Forced(level, self.fiber.rank, step.output, name, value.origin or name, value.because, value.through)
        else:
            found = Forced(level, self.fiber.rank, step.output, name, name, self._why_late(read), ())
        if found not in self.forced:
            self.forced.append(found)

    def _why_late(self, read: Read) -> str:
        from ..printer import print_expr

        if self.cascade.tensor(read.access.tensor).kind == "state":
            return f"running state read at {print_expr(read.access)}"
        makers = [step.einsum.body for step in self.prepared.steps if step.output == read.access.tensor]
        if any(isinstance(body, Scan) and body.rank in self.fiber.path for body in makers):
            return f"scan read at {print_expr(read.access)}"
        if self._gathers(read):
            return f"gathered: {print_expr(read.access)}"
        return f"read ahead of its position: {print_expr(read.access)}"

    def _result(self, step: Step, level: int, frame: tuple[bool, Direction | None]) -> Value:
        """The value of an Einsum that goes along the fiber at a level, in a frame."""
        body = step.einsum.body
        reverse, direction = frame
        tensor = self.cascade.tensor(step.output)
        if step.scatter:
            varies = any((value := self.values.get(read.access.tensor)) is not None and value.level for read in step.reads)
            reduced = bool(self.fiber.leaves & self.fiber.expand(step.bound))
            if varies or reduced:
                return Value(level, True, origin=step.output, because="contributions scattered in any order")
            return Value(level)
        clocked = self.fiber.clock in self.fiber.expand(step.iterated)
        if not clocked:
            return Value(level)  # gathers only: not complete by itself
        if self.fiber.clock in self.fiber.expand(step.bound):
            return Value(level, True, origin=step.output, because=self._why_complete(step))
        here = self._reach(tensor.ranks, reverse)
        if isinstance(body, Scan) and self.fiber.clock in self.fiber.expand(frozenset((body.rank,))):
            return Value(level, False, None if reverse else here, here if reverse else None)
        low = None if direction == "ascending" else here
        high = None if direction == "descending" else here
        return Value(level, False, high, low)

    def _why_complete(self, step: Step) -> str:
        body = step.einsum.body
        ranks = (body.rank,) if isinstance(body, Select) else tuple(
            rank for rank in getattr(body, "ranks", ()) if leaves_of(self.cascade, rank) & self.fiber.leaves
        )  # fmt: skip
        return f"{getattr(body, 'op', 'reduction')} over {', '.join(ranks)}"

    def _reach(self, ranks: tuple[str, ...], reverse: bool) -> tuple[Formula, ...]:
        """The position along the clock of an element of a tensor with these ranks."""
        for rank in ranks:
            position = self.fiber.position(rank, symbol(rank))
            if position is not None:
                return (self.fiber.length - ONE - position,) if reverse else (position,)
        return ()

    def _position(self, step: Step, reverse: bool) -> Formula:
        """The position along the clock at which a point of an Einsum is computed."""
        clock = symbol(self.fiber.clock)
        return self.fiber.length - ONE - clock if reverse else clock

    # --- order of traversal ---

    def _frame(self, step: Step, level: int, present: list[tuple[Read, Value]]) -> tuple[bool, Direction | None] | None:
        """Whether the Einsum runs along the sweep reversed, and the direction that the sweep of this level must have for it.

        None if it fits into no direction that the level still allows. Remembers the direction.
        """
        body = step.einsum.body
        scans = isinstance(body, Scan) and self.fiber.clock in self.fiber.expand(frozenset((body.rank,)))
        loops = self.cascade.tensor(step.output).kind == "state" and self._on_clock(step)
        pinned = self.pins.get(level)
        fits: list[tuple[bool, Direction]] = []
        for reverse in (False, True):
            if reverse and (loops or self.fiber.clock not in self.fiber.expand(step.iterated)):
                continue
            position = self._position(step, reverse)
            directions: tuple[Direction, ...] = ("ascending", "descending")
            if scans or loops:
                directions = ("descending",) if reverse else ("ascending",)
            good: list[Direction] = [
                direction
                for direction in directions
                if pinned in (None, direction) and all(self._in_time(r, v, position, direction) for r, v in present)
            ]
            if len(good) == 2:
                return reverse, None
            fits += [(reverse, direction) for direction in good]
        if not fits:
            return None
        reverse, chosen = fits[0]
        if pinned is None:
            self.pins[level] = chosen
        symmetric = not scans and not loops and all(self._in_time(r, v, self._position(step, reverse), d)
                                                    for r, v in present for d in ("ascending", "descending"))  # fmt: skip
        return reverse, None if symmetric else chosen

    def _in_time(self, read: Read, value: Value, position: Formula, direction: Direction) -> bool:
        """Whether what is read is there when the sweep is at `position`, give or take a bounded distance."""
        bounds = value.high if direction == "ascending" else value.low
        if bounds is None:
            return False
        growth = self.fiber.growth
        for bound in bounds:
            there = self._composed(read, bound)
            if there is None:
                return False
            if there == position:
                continue
            gap = there - position if direction == "ascending" else position - there
            if not growth.bounded_above(gap, read.guards):
                return False
        return True

    def _composed(self, read: Read, bound: Formula) -> Formula | None:
        """A bound in terms of the reader's rank variables; None where an index is not a formula."""
        tensor = self.cascade.tensor(read.access.tensor)
        needed = bound.symbols
        values: dict[str, Formula] = {}
        for rank, index in zip(tensor.ranks, read.indices, strict=True):
            if rank not in needed:
                continue
            if index is None:
                return None
            values[rank] = index
        if all(value == symbol(rank) for rank, value in values.items()):
            return bound
        split = self._whole_parts(bound, values)
        return split if split is not None else bound.substitute(values)

    def _whole_parts(self, bound: Formula, values: dict[str, Formula]) -> Formula | None:
        """The clock of an index into a dimension that is split: shed the inner part exactly where that is possible."""
        for rank, index in values.items():
            if rank != self.fiber.clock and rank in self.fiber.path and len(values) == 1:
                plain = self.fiber.position(rank, symbol(rank))
                there = self.fiber.position(rank, index)
                if plain is None or there is None:
                    return None
                if bound == plain:
                    return there
                mirrored = self.fiber.length - ONE
                if bound == mirrored - plain:
                    return mirrored - there
        return None

    def _beyond_state(self, read: Read, step: Step) -> bool:
        """A running state along the fiber that is read at a position other than the current or the next one."""
        tensor = self.cascade.tensor(read.access.tensor)
        if tensor.kind != "state" or tensor.iterates not in self.fiber.path:
            return False
        index = read.indices[tensor.ranks.index(tensor.iterates)]
        if index is None:
            return True
        if not (index.symbols & {rank.name for rank in self.cascade.ranks}):
            return True
        if self.fiber.clock in self.fiber.expand(step.iterated):
            here = self.prepared.whole.get(tensor.iterates) or symbol(tensor.iterates)
            return (index - here).constant not in (0, 1)
        return False

    def _unplaced(self, read: Read, value: Value) -> bool:
        """Gathered from an intermediate: its elements are needed in no order that is known."""
        if value.high == () and value.low == ():
            return False
        return any(
            index is None and any(rank in bound.symbols for bound in (*(value.high or ()), *(value.low or ())))
            for rank, index in zip(self.cascade.tensor(read.access.tensor).ranks, read.indices, strict=True)
        )

    # --- Einsums that do not go along the fiber at full resolution ---

    def _aside(self, step: Step) -> Value:
        """Completeness and reach pass through."""
        best = Value()
        high: list[Formula] | None = []
        low: list[Formula] | None = []
        reads = []
        for read in step.reads:
            value = self.values.get(read.access.tensor)
            if value is None or value.level == 0:
                continue
            if not value.complete and self._ends(read, step):
                value = Value(value.level, True, origin=read.access.tensor, because=self._why_end(read))
            reads.append((read, value))
        level = max((value.level for _, value in reads), default=0)
        if level == 0:
            return best
        for read, value in reads:
            if value.level != level:
                continue
            if value.complete:
                through = (*value.through, read.access.tensor) if value.origin not in ("", read.access.tensor) else value.through
                return Value(level, True, origin=value.origin or read.access.tensor, because=value.because, through=through)
            high = self._carried(high, value.high, read, step, 1)
            low = self._carried(low, value.low, read, step, -1)
            if (high is None and low is None) or self._whole(high, low):
                return Value(
                    level, True, origin=step.output, because=self._why_complete(step) if step.bound else "elements far ahead"
                )
        self._tie(step.output, [read.access.tensor for read, value in reads if value.level == level], free=high == low)
        return Value(level, False, None if high is None else tuple(high), None if low is None else tuple(low))

    def _ends(self, read: Read, step: Step) -> bool:
        """A running state along the fiber read at a fixed position."""
        tensor = self.cascade.tensor(read.access.tensor)
        if tensor.kind != "state" or tensor.iterates not in self.fiber.path:
            return False
        index = read.indices[tensor.ranks.index(tensor.iterates)]
        return index is None or not (index.symbols & {rank.name for rank in self.cascade.ranks})

    def _why_end(self, read: Read) -> str:
        from ..printer import print_expr

        return f"running state read at {print_expr(read.access)}"

    def _carried(
        self, so_far: list[Formula] | None, bounds: tuple[Formula, ...] | None, read: Read, step: Step, sign: int
    ) -> list[Formula] | None:
        """Bounds of what is read, in terms of the reader's output, with its bound ranks at their far ends."""
        if so_far is None or bounds is None:
            return None
        result = list(so_far)
        for bound in bounds:
            there = self._composed(read, bound)
            if there is None:
                return None
            for rank in step.bound:
                for leaf in leaves_of(self.cascade, rank):
                    if leaf not in there.symbols:
                        continue
                    parts = there.split(leaf)
                    if parts is None:
                        return None
                    slope, rest = parts
                    growth = self.fiber.growth
                    if growth.at_least_zero(slope * sign):
                        there = rest + slope * (growth.extents[leaf] - ONE)
                    elif growth.at_least_zero(-slope * sign):
                        there = rest
                    else:
                        return None
            if there not in result:
                result.append(there)
        return result

    def _whole(self, high: list[Formula] | None, low: list[Formula] | None) -> bool:
        """Whether a value without rank variables in its reach needs the far end of the fiber."""
        names = self.fiber.growth.extents.keys()
        return high is None or any(not (bound.symbols & names) and not self.fiber.growth.bounded_above(bound) for bound in high)


# --- all together -----------------------------------------------------------------------------------------------------


def levels(cascade: Cascade | Prepared, rank: str) -> Levels:
    """Levels of a cascade along a rank and its parts. Raises KeyError for a rank that it does not have."""
    return _levels(cascade, rank) if isinstance(cascade, Prepared) else _known_levels(cascade, rank)


@remembered
def _known_levels(cascade: Cascade, rank: str) -> Levels:
    return _levels(_prepared(cascade), rank)


@remembered
def _prepared(cascade: Cascade) -> Prepared:
    return prepare(cascade)


def _levels(prepared: Prepared, rank: str) -> Levels:
    flat = prepared.cascade
    fiber, whole = prepared.fiber(rank), prepared.along(rank)
    alone = _parts_alone(prepared, fiber, whole)
    runs = {part: prepared.along(part) for part in dict.fromkeys(p for p in alone if p is not None)}
    passes = {rank: max((level for level, on in zip(whole.levels, whole.touches, strict=True) if on), default=0)}
    reads: dict[str, dict[str, set[int]]] = {rank: {}}
    growth: dict[str, int] = {}
    loops: dict[str, None] = dict.fromkeys(whole.loops)
    einsums: list[EinsumLevel] = []
    forced = list(whole.forced)
    for number, step in enumerate(prepared.steps):
        part = alone[number]
        here = whole if part is None else runs[part]
        along = part if part is not None else rank if whole.touches[number] else None
        rise = here.growth[number]
        einsums.append(EinsumLevel(step.output, here.levels[number], along, here.values[step.output].complete, rise))
        if along is None:
            continue
        passes[along] = max(passes.get(along, 0), here.levels[number])
        if rise:
            growth[along] = max(growth.get(along, 0), rise)
            loops.update(dict.fromkeys(here.loops))
        _note_reads(reads.setdefault(along, {}), prepared, prepared.fiber(along), step, here.levels[number])
    for part, here in runs.items():
        names = {step.output for step, where in zip(prepared.steps, alone, strict=True) if where == part}
        forced += [one for one in here.forced if one.einsum in names]
    return Levels(
        rank, flat, passes, tuple(einsums),
        {w: {name: tuple(sorted(found)) for name, found in inputs.items()} for w, inputs in reads.items() if inputs or w == rank},
        tuple(sorted(forced, key=lambda found: found.level)), _carried_levels(prepared, fiber, whole),
        growth, tuple(loops),
    )  # fmt: skip


def _parts_alone(prepared: Prepared, fiber: Fiber, found: Run) -> list[str | None]:
    """For each Einsum that touches only some parts of the rank: the greatest part that it goes along."""
    result: list[str | None] = []
    parts = [r.name for r in prepared.cascade.ranks if r.name != fiber.rank and leaves_of(prepared.cascade, r.name) < fiber.leaves]
    parts.sort(key=lambda name: -len(leaves_of(prepared.cascade, name)))
    for step, touches in zip(prepared.steps, found.touches, strict=True):
        iterated = fiber.expand(step.iterated) & fiber.leaves
        if touches or not iterated:
            result.append(None)
        else:
            result.append(next(part for part in parts if leaves_of(prepared.cascade, part) <= iterated))
    return result


def _note_reads(reads: dict[str, set[int]], prepared: Prepared, fiber: Fiber, step: Step, level: int) -> None:
    for read in step.reads:
        tensor = prepared.cascade.tensor(read.access.tensor)
        if tensor.kind != "input":
            continue
        indexed = any(index is not None and index.symbols & fiber.leaves for index in read.indices)
        gathered = any(
            index is None
            and (
                fiber.related(rank)
                or any(isinstance(n, Coord) and n.rank in fiber.leaves for n in walk(expr))
                or _chosen(expr, prepared, fiber)
            )
            for index, rank, expr in zip(read.indices, tensor.ranks, read.access.indices, strict=True)
        )
        gathered = gathered or any(
            read.indices[place] is None and rank in fiber.leaves for place, rank in prepared.coordinates[tensor.name]
        )
        if indexed or gathered:
            reads.setdefault(tensor.name, set()).add(level)


def _chosen(expr: Expr, prepared: Prepared, fiber: Fiber) -> bool:
    """Whether an index holds a position along the fiber that an argmax, argtopk, ... chose."""
    chosen = (
        prepared.selections[node.tensor] for node in walk(expr) if isinstance(node, Access) and node.tensor in prepared.selections
    )
    return any(fiber.related(rank) for rank in chosen)


def _carried_levels(prepared: Prepared, fiber: Fiber, found: Run) -> dict[str, tuple[int, ...]]:
    """Intermediates with an element for each position of the fiber that a later level reads."""
    defined: dict[str, int] = {}
    for step, level, touches in zip(prepared.steps, found.levels, found.touches, strict=True):
        if touches:
            defined[step.output] = max(defined.get(step.output, 0), level)
    later: dict[str, set[int]] = {}
    for step, level, touches in zip(prepared.steps, found.levels, found.touches, strict=True):
        if not touches:
            continue
        for read in step.reads:
            name = read.access.tensor
            tensor = prepared.cascade.tensor(name)
            if tensor.kind == "input" or name not in defined or defined[name] >= level:
                continue
            if fiber.leaves <= fiber.expand(frozenset(tensor.ranks)):
                later.setdefault(name, set()).add(level)
    return {name: (defined[name], *sorted(levels_)) for name, levels_ in later.items()}
