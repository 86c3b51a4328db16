"""Steps that a mask empties: the proof that leaving one out changes nothing.

In: a loop of a program and a condition of it. Out: whether every state is the same after a step in which the condition is false
everywhere, by constant propagation through the step. Proved for finite inputs, or no.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from ..einsum.cascade import Access, Einsum, Expr, Map, Number, Reduce, free_ranks
from .known_values import INF, NEG_INF, ONE, ZERO, Value, known_result
from .program import Loop, Program, position


def skippable(program: Program, loop: Loop, condition: Expr) -> bool:
    """Is every state the same after a step in which the condition is false everywhere? Proved for finite inputs, or False.

    The proof distinguishes, for each running maximum that starts at -inf, whether it is still -inf. If it is, the states that are
    tied to it still have their initial values (proved by induction over the steps).
    """
    maxima = [s for s in loop.states if _initial(loop, s) == NEG_INF]
    if len(maxima) > 3:
        return False
    tied = {s: _tied(program, loop, s) for s in maxima}
    for empty in itertools.product((False, True), repeat=len(maxima)):
        known: dict[str, Value] = {s: Access(s, ()) for s in loop.states}
        for state, is_empty in zip(maxima, empty, strict=True):
            if is_empty:
                known |= tied[state]
        for state, is_empty in zip(maxima, empty, strict=True):
            known[state] = NEG_INF if is_empty else Access(state, ())
        step = _Step(program, loop, known, condition)
        if any(step.after(state) != known[state] for state in loop.states):
            return False
    return True


def _initial(loop: Loop, state: str) -> Expr | None:
    body = next(e.body for e in loop.initial if e.output == state)
    return body if isinstance(body, Number) or body == NEG_INF else None


def _tied(program: Program, loop: Loop, maximum: str) -> dict[str, Value]:
    """States that keep their initial value as long as a running maximum is -inf, with that value."""
    tied: dict[str, Value] = {s: v for s in loop.states if s != maximum and (v := _initial(loop, s)) is not None}
    while True:
        known: dict[str, Value] = {s: Access(s, ()) for s in loop.states} | tied | {maximum: NEG_INF}
        step = _Step(program, loop, known, None)
        step.assume(maximum)
        broken = [s for s in tied if step.after(s) != tied[s]]
        if not broken:
            return tied
        for state in broken:
            del tied[state]


class _Step:
    """Constant propagation through one step of a loop."""

    def __init__(self, program: Program, loop: Loop, before: Mapping[str, Value], false: Expr | None) -> None:
        self.program, self.before, self.false = program, before, false
        self.definitions: dict[str, Einsum] = {e.output: e for e in loop.body}
        self.values: dict[str, Value] = {}

    def assume(self, state: str) -> None:
        """Take it that a state is -inf after the step, and what that implies for what it is the maximum of."""
        self.values[state] = NEG_INF
        self._assume(self.definitions[state].body)

    def _assume(self, expr: Expr) -> None:
        match expr:
            case Map(op="max", args=args):
                for arg in args:
                    self._assume(arg)
            case Reduce(op="max", body=body):
                self._assume(body)
            case Access(tensor=name) if name in self.definitions and self.program.cascade.tensor(name).kind == "einsum":
                self.values[name] = NEG_INF
                self._assume(self.definitions[name].body)

    def after(self, tensor: str) -> Value:
        """Value of a tensor of this step; of a state: after the step."""
        if tensor not in self.values:
            self.values[tensor] = self.value(self.definitions[tensor].body)
        return self.values[tensor]

    def value(self, expr: Expr) -> Value:
        match expr:
            case Number():
                return expr
            case Access(tensor=name, indices=indices):
                tensor = self.program.cascade.tensor(name)
                if tensor.kind == "state":
                    assert tensor.iterates is not None
                    where = position(self.program.cascade, name, indices[tensor.ranks.index(tensor.iterates)])
                    if where == "now":
                        return self.before.get(name)
                    return self.after(name) if where == "next" and name in self.definitions else None
                if tensor.kind == "input" and not free_ranks(expr) & {self.program.loop, self.program.inner}:
                    return expr  # the same at every step
                return self.after(name) if name in self.definitions else None
            case Reduce(op=op, body=body):
                neutral = {"sum": ZERO, "max": NEG_INF, "min": INF, "any": ZERO, "all": ONE, "prod": ONE}
                inside = self.value(body)
                return inside if op in neutral and inside == neutral[op] else None
            case Map(op="where", args=(condition, yes, no)):
                if condition == self.false:
                    return self.value(no)
                a, b = self.value(yes), self.value(no)
                return a if a == b else None
            case Map(op=op, args=args):
                return known_result(op, [self.value(arg) for arg in args])
            case _:
                return None
