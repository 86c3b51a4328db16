"""Masks: what need not be done in a tile where a mask lets nothing through.

In: a flat cascade and the ranks that loops cut. Out: for each mask (a condition on coordinates in a `where` whose other branch is a
constant) the Einsums that a dead tile may skip. Nothing is known about any mask by its shape: the tile's step is evaluated
on probe values with the masked tensor at its fill value, and an Einsum is skipped where that shows that

* its part of a reduction is the identity (a sum gets 0, a maximum -inf), or its running state is left unchanged, both for states of
  any value and for states still at their initial value; or
* it gives the same known constant whatever its other operands are; or
* nobody needs its value, because all that read it are skipped.

The first step of running states is looked at in the same way (`first_step`): which Einsums have a known value while the states
still have their initial ones.

Two probes with unrelated irrational values make agreement by chance practically impossible.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..einsum.arithmetic import Fault, apply
from ..einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Scalar, Scan, Select, accesses, free_ranks
from ..einsum.sizes import evaluate_scalar
from .operations import is_constant, is_data

_IDENTITY = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf, "any": 0.0, "all": 1.0}


@dataclass(frozen=True)
class Mask:
    """`condition` true somewhere in a tile: the tile is live. `skips`: positions of the Einsums that a dead tile skips;
    `constants`: the value that those of them have there whose value is known."""

    condition: Expr
    skips: frozenset[int]
    constants: Mapping[int, float]


@lru_cache(maxsize=64)
def masks(cascade: Cascade, cut: frozenset[str]) -> tuple[Mask, ...]:
    """The masks of a flat cascade; `cut`: ranks of which a tile does not hold the whole."""
    conditions: dict[Expr, None] = {}
    for einsum in cascade.einsums:
        for condition, _ in _guards(_inner(einsum.body)):
            conditions.setdefault(condition)
    found = []
    for condition in conditions:
        skips, constants = _skipped(cascade, condition, cut)
        if skips:
            found.append(Mask(condition, skips, constants))
    return tuple(found)


@dataclass(frozen=True)
class FirstStep:
    """What the initial values of running states leave undone in their first step."""

    skips: frozenset[int]
    constants: Mapping[int, float]


@lru_cache(maxsize=64)
def first_step(cascade: Cascade, rank: str, cut: frozenset[str]) -> FirstStep | None:
    """The Einsums that the first step along a rank may skip; None if there are none, or no state runs along it."""
    if not any(tensor.iterates == rank for tensor in cascade.tensors):
        return None
    runs = [_Probe(cascade, None, cut, seed, frozenset({rank})).run() for seed in (1, 2)]
    found = _from_runs(cascade, runs, [rank in _ranks(einsum) for einsum in cascade.einsums])
    return FirstStep(*found) if found[0] else None


def _inner(body: Expr) -> Expr:
    return body.body if isinstance(body, Reduce) else body


def _guards(expr: Expr) -> list[tuple[Expr, Expr]]:
    """(condition that lets something through, value where it does not) of the masks at the top of an expression."""
    if not (isinstance(expr, Map) and expr.op == "where") or is_data(expr.args[0]) or is_constant(expr.args[0]):
        return []
    condition, yes, no = expr.args
    if is_constant(no):
        return [(condition, no), *_guards(yes)]
    if is_constant(yes):
        return [(Map("not", (condition,)), yes), *_guards(no)]
    return []


def _skipped(cascade: Cascade, condition: Expr, cut: frozenset[str]) -> tuple[frozenset[int], dict[int, float]]:
    states = frozenset(tensor.iterates for tensor in cascade.tensors if tensor.iterates is not None)
    runs = [_Probe(cascade, condition, cut, seed, frozenset()).run() for seed in (1, 2)]
    runs.append(_Probe(cascade, condition, cut, 3, states).run())
    needs = free_ranks(condition) & cut
    return _from_runs(cascade, runs, [needs <= _ranks(einsum) for einsum in cascade.einsums], condition)


def _from_runs(
    cascade: Cascade, runs: list[list[tuple[bool, float]]], may: list[bool], condition: Expr | None = None
) -> tuple[frozenset[int], dict[int, float]]:
    """What may be skipped, and the values that are known of it."""
    neutral = {i for i in range(len(may)) if may[i] and all(run[i][0] for run in runs)}
    known = {i for i in range(len(may)) if may[i] and len({run[i][1] for run in runs}) == 1 and not math.isnan(runs[0][i][1])}
    skipped = neutral | {i for i in known if not _is_state(cascade, i)}
    if condition is not None and not neutral and not any(_inner_masked(cascade.einsums[i], condition) for i in skipped):
        return frozenset(), {}
    readers: dict[str, set[int]] = {}
    for i, einsum in enumerate(cascade.einsums):
        for access in accesses(einsum.body):
            readers.setdefault(access.tensor, set()).add(i)
    changed = True
    while changed:
        changed = False
        for i, einsum in enumerate(cascade.einsums):
            if i in skipped or not may[i] or einsum.output in cascade.outputs or _is_state(cascade, i):
                continue
            if readers.get(einsum.output) and readers[einsum.output] <= skipped:
                skipped.add(i)
                changed = True
    return frozenset(skipped), {
        i: runs[0][i][1] for i in sorted(known & skipped) if not isinstance(cascade.einsums[i].body, Reduce)
    }


def _inner_masked(einsum: Einsum, condition: Expr) -> bool:
    return any(guard == condition for guard, _ in _guards(_inner(einsum.body)))


def _is_state(cascade: Cascade, position: int) -> bool:
    return cascade.tensor(cascade.einsums[position].output).kind == "state"


def _ranks(einsum: Einsum) -> frozenset[str]:
    ranks = frozenset().union(*(free_ranks(index) for index in einsum.indices)) | free_ranks(einsum.body)
    return ranks | (frozenset(einsum.body.ranks) if isinstance(einsum.body, Reduce) else frozenset())


class _Probe:
    """One evaluation of all Einsums in a dead tile, every tensor standing for one value.

    The result of an Einsum is (neutral, value): neutral if its reduction or state gets nothing; value NaN where it is not known.
    """

    def __init__(self, cascade: Cascade, condition: Expr | None, cut: frozenset[str], seed: int, initial: frozenset[str]) -> None:
        """`condition`: of the mask that nothing passes; `initial`: ranks whose states have their initial values."""
        self.cascade, self.condition, self.cut, self.initial = cascade, condition, cut, initial
        self.state = seed * 0.6180339887498949
        self.current: dict[str, float] = {}
        self.next: dict[str, float] = {}
        self.known: dict[str, float] = {}
        self.scalars: dict[str, float] = {}

    def fresh(self) -> float:
        """A value that nothing else has, of either sign, not far from 1."""
        self.state = (self.state * 3.9 + 0.7320508075688772) % 1.0
        return (self.state - 0.37) * 2.0 + 0.0123456

    def run(self) -> list[tuple[bool, float]]:
        for tensor in self.cascade.tensors:
            self.current[tensor.name] = self.fresh()
        if self.initial:
            for einsum in self.cascade.einsums:
                begins = self._initial(einsum) and self.cascade.tensor(einsum.output).iterates in self.initial
                if begins and is_constant(einsum.body):
                    with contextlib.suppress(ArithmeticError, ValueError):
                        self.current[einsum.output] = float(evaluate_scalar(einsum.body, _Values(self)))
        return [self._einsum(einsum) for einsum in self.cascade.einsums]

    def _initial(self, einsum: Einsum) -> bool:
        tensor = self.cascade.tensor(einsum.output)
        return tensor.kind == "state" and any(
            index == Number(0) for index, rank in zip(einsum.indices, tensor.ranks, strict=True) if rank == tensor.iterates
        )

    def _einsum(self, einsum: Einsum) -> tuple[bool, float]:
        tensor = self.cascade.tensor(einsum.output)
        if self._initial(einsum):
            return False, math.nan
        body = einsum.body
        if isinstance(body, Scan | Select):
            return False, math.nan
        value = self._value(_inner(body), einsum)
        if isinstance(body, Reduce):
            neutral = body.op in _IDENTITY and value == _IDENTITY[body.op]
            if neutral and not frozenset(body.ranks) & self.cut:
                self.current[einsum.output] = value
                return True, value
            return neutral, math.nan
        if tensor.kind == "state":
            unchanged = value == self.current[einsum.output]
            self.next[einsum.output] = value if not math.isnan(value) else self.fresh()
            return unchanged, math.nan
        if not math.isnan(value):
            self.current[einsum.output] = value
        return False, value

    def _value(self, expr: Expr, einsum: Einsum) -> float:
        if isinstance(expr, Map) and expr.op == "where" and not is_data(expr.args[0]) and not is_constant(expr.args[0]):
            for guard, fill in _guards(expr)[:1]:
                if self.condition is not None and guard == self.condition:
                    return self._value(fill, einsum)
            yes, no = (self._value(arg, einsum) for arg in expr.args[1:])
            return yes if yes == no else math.nan
        match expr:
            case Number(value=value):
                return float(value)
            case Scalar(name=name):
                return _Values(self)[name]
            case Coord():
                return self.fresh()
            case Access(tensor=name):
                return self._read(expr, self.cascade.tensor(name).iterates)
            case Map(op=op, args=args):
                values = [self._value(arg, einsum) for arg in args]
                return _apply(op, values)
            case _:
                return math.nan

    def _read(self, access: Access, iterates: str | None) -> float:
        if iterates is None:
            return self.current[access.tensor]
        tensor = self.cascade.tensor(access.tensor)
        index = access.indices[tensor.ranks.index(iterates)]
        if index == Coord(iterates):
            return self.current[access.tensor]
        if index == Map("+", (Coord(iterates), Number(1))):
            return self.next.get(access.tensor, math.nan)
        return self.fresh()


class _Values(dict[str, float]):
    """Values of scalars, invented when first asked for: what is skipped must not depend on them."""

    def __init__(self, probe: _Probe) -> None:
        super().__init__()
        self.probe = probe

    def __missing__(self, name: str) -> float:
        return self.probe.scalars.setdefault(name, abs(self.probe.fresh()) + 0.5)


def _apply(op: str, values: list[float]) -> float:
    """One operation under the arithmetic of the language; NaN where the value is not known."""
    if op == "*" and 0.0 in values:
        return 0.0 if all(math.isfinite(value) or math.isnan(value) for value in values) else math.nan
    if any(math.isnan(value) for value in values) or op == "where":
        return math.nan
    try:
        with np.errstate(all="ignore"):
            return float(apply(op, tuple(np.asarray(value, dtype=np.float64) for value in values)))
    except (Fault, ArithmeticError):
        return math.nan
