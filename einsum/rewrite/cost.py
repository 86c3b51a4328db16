"""What a form costs: operations, and the state that goes from one step along a rank to the next.

In: a cascade and the rank it is derived over. Out: a `Cost`, at sizes; `state_words`, the state as a formula. Operations are
those of `analysis.operations`, effective under masks, each of any kind counted as one. The state is every running state and every
accumulator of a reduction along the rank, over all positions of the other ranks.

Where the spec has no size for a symbol, the asked rank and the ranks that meet it in intermediates but in no input are long, `LONG`
positions; other extents are `SHORT`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from ..analysis.operations import operations
from ..analysis.passes import levels
from ..analysis.points import Spaces
from ..cascade import Cascade, Einsum, Scalar, accesses, walk
from ..sizes import evaluate_scalar
from ..symbolic import ZERO, Formula
from .fiber import Fiber

LONG, SHORT = 65536, 64
"""Extents that stand for a long and a short rank where the spec gives no sizes."""


@dataclass(frozen=True, order=True)
class Cost:
    """In the order in which forms are chosen."""

    passes: int
    operations: float
    state: float
    """Words."""

    def __str__(self) -> str:
        passes = f"{self.passes} pass{'' if self.passes == 1 else 'es'}"
        return f"{passes}, {self.operations:.4g} operations, {self.state:.4g} words of state"


def cost(cascade: Cascade, rank: str, values: Mapping[str, int | float], dense: bool = False) -> Cost:
    """Passes, operations and state of a flat cascade along `rank`; `values` as `scalars` has them. `dense`: masks left out."""
    passes = levels(cascade, rank).passes.get(rank, 0) if rank in cascade.rank_order else 0
    return Cost(passes, count(cascade, values, dense=dense), float(state_words(cascade, rank).evaluate(values)))


def count(
    cascade: Cascade, values: Mapping[str, int | float], leaving_out: Set[Einsum] = frozenset(), dense: bool = False
) -> float:
    """Operations of the Einsums of a cascade, except those left out; effective ones under masks, or all of them."""
    part = cascade
    if leaving_out:
        own = tuple(einsum for einsum in cascade.einsums if einsum not in leaving_out)
        names = {einsum.output for einsum in own}
        rest = [einsum for einsum in cascade.einsums if einsum in leaving_out]
        read = {node.tensor for einsum in rest for expr in (einsum.body, *einsum.indices) for node in accesses(expr)}
        part = replace(cascade, einsums=own, outputs=tuple(sorted(names & (read | set(cascade.outputs)))))
    counted = operations(part, Spaces(part, values), values)
    return sum(float(formula.evaluate(values)) for one in counted for formula in (one.dense if dense else one.effective).values())


def state_words(cascade: Cascade, rank: str) -> Formula:
    """Words that one step along `rank` leaves to the next: running states, and accumulators of reductions that no state holds."""
    if rank not in cascade.rank_order:
        return ZERO
    fiber, spaces = Fiber(cascade, rank), Spaces(cascade)
    total = ZERO
    for tensor in cascade.tensors:
        if tensor.kind == "state" and tensor.iterates in fiber.ranks:
            total = total + spaces.size(name for name in tensor.ranks if name != tensor.iterates)
    for einsum in cascade.einsums:
        if cascade.tensor(einsum.output).kind != "state" and fiber.completes(einsum):
            total = total + spaces.size(cascade.tensor(einsum.output).ranks)
    return total


# --- sizes ------------------------------------------------------------------------------------------------------------------


def sizes_of(cascade: Cascade, rank: str, known: Mapping[str, int | float] | None = None) -> dict[str, int | float]:
    """An extent for each rank: from the spec's sizes, or long and short."""
    values = scalars(cascade, rank, known)
    found: dict[str, int | float] = {}
    for each in cascade.ranks:
        try:
            found[each.name] = evaluate_scalar(each.extent, values)
        except (KeyError, ArithmeticError, ValueError):
            found[each.name] = SHORT
    return found


def scalars(cascade: Cascade, rank: str, known: Mapping[str, int | float] | None = None) -> dict[str, int | float]:
    """A value for each symbol, count and parameter.

    `known`: those of a cascade of the same meaning, whose symbols keep them: a rank is not short because what was quadratic in it
    has gone.
    """
    values: dict[str, int | float] = {name: value for name, value in (known or {}).items() if name in cascade.symbols}
    values.update(cascade.sizes)
    missing = [name for name in cascade.symbols if name not in values]
    if missing:
        long = {node.name for name in _long(cascade, rank) for node in walk(cascade.rank(name).extent) if isinstance(node, Scalar)}
        values.update((name, LONG if name in long else SHORT) for name in missing)
    for name, expr in (*cascade.counts.items(), *cascade.params):
        try:
            values.setdefault(name, evaluate_scalar(expr, values))
        except (KeyError, ArithmeticError, ValueError):
            values.setdefault(name, 1)
    return values


def _long(cascade: Cascade, rank: str) -> set[str]:
    """The rank, and those that meet it in an intermediate but in no input."""
    beside: set[str] = set()
    held: set[str] = set()
    for tensor in cascade.tensors:
        if rank in tensor.ranks:
            (held if tensor.kind == "input" else beside).update(tensor.ranks)
    return (beside - held) | {rank}


def sizes_shown(cascade: Cascade, values: Mapping[str, int | float]) -> str:
    """The sizes at which operations are counted, such as `M=65536, E=64`."""
    return ", ".join(f"{name}={values[name]:g}" for name in cascade.symbols)
