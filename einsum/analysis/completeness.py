"""Completeness: the levels of all Einsums along one fiber.

In: a prepared cascade, a fiber. Out: `Run`: for each Einsum its level and whether it goes along the fiber, what forces each level.

One abstract interpretation: each tensor has a level, whether it is complete, and (if not) how far along the fiber its elements
reach, as a function of its indices. A reader that is at position t of the fiber may use what lies at most a bounded distance ahead
of t in the order of traversal; anything else is complete to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..cascade import Access, Number, Scan, Select, remembered, walk
from ..symbolic import ONE, Formula, symbol
from .directions import Directions
from .fiber import Fiber, leaves_of
from .levels import Forced
from .prepared import Prepared, Read, Step
from .reach import Direction, Reach, Value

ROUNDS = 3
"""Rounds of equal rises after which levels are taken to rise with every step of a loop."""


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


@remembered
def run_along(prepared: Prepared, rank: str) -> Run:
    """Levels of all Einsums along a rank or part."""
    return _Interpretation(prepared, prepared.fiber(rank)).run()


class _Interpretation:
    """Levels of all Einsums along one fiber."""

    def __init__(self, prepared: Prepared, fiber: Fiber) -> None:
        self.prepared, self.fiber = prepared, fiber
        self.cascade = prepared.cascade
        self.values: dict[str, Value] = {tensor.name: Value() for tensor in self.cascade.inputs}
        self.levels = [0] * len(prepared.steps)
        self.touches = [self._touches(step) for step in prepared.steps]
        self.forced: list[Forced] = []
        self.reach = Reach(fiber)
        self.sweeps = Directions(self.reach, self.values)

    def run(self) -> Run:
        """Repeat until nothing changes (once, if there are no states), or until each round adds the same levels again.

        A round is a further step of the loops. Once the same Einsums rise by the same amounts three times in a row, they feed
        themselves through a state: each step of the loop takes so many passes more.
        """
        states = [tensor for tensor in self.cascade.tensors if tensor.kind == "state"]
        rises: list[list[int]] = []
        while True:
            before, levels_before = dict(self.values), list(self.levels)
            self.forced, self.sweeps = [], Directions(self.reach, self.values)
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
        if self._is_step(step) and self.fiber.carries(self.cascade.tensor(step.output)) and not new.complete:
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
        frame = self.sweeps.frame(step, level, present)
        if frame is None and self.sweeps.turned(present):
            present = [(read, self.values[read.access.tensor]) for read, _ in present]
            frame = self.sweeps.frame(step, level, present)
        if frame is None:  # something present is needed before its time: it must be complete first
            default = self.reach.position(reverse=False)
            ahead = [(read, value) for read, value in present if not self.reach.in_time(read, value, default, "ascending")]
            late += ahead or present
            level += 1
            present = []
            frame = self.sweeps.frame(step, level, []) or (False, "ascending")
        for read, value in late:
            if value.level + 1 == level:
                self._note(step, level, read, value)
        result = self._result(step, level, frame)
        self.sweeps.tie(
            step.output, [read.access.tensor for read, _ in present], free=frame[1] is None and result.high == result.low
        )
        return result

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
        here = self.reach.of(tensor.ranks, reverse)
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
            high = self.reach.carried(high, value.high, read, step, 1)
            low = self.reach.carried(low, value.low, read, step, -1)
            if (high is None and low is None) or self.reach.is_whole(high):
                return Value(
                    level, True, origin=step.output, because=self._why_complete(step) if step.bound else "elements far ahead"
                )
        self.sweeps.tie(step.output, [read.access.tensor for read, value in reads if value.level == level], free=high == low)
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
