"""What a group may do in time: which of its Einsums runs in which tile, and what would read a value before it is complete.

In: a group's loops and steps. Out: the steps with the slot in which they run for each loop, or a refusal with the pass analysis as
its reason.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..einsum.cascade import Access, Cascade, Coord, Expr, Map, Number, Scan, Select, accesses, free_ranks
from ..einsum.diagnostics import EinsmithError
from ..einsum.sizes import Sizes, evaluate_scalar
from .steps import FORWARD, Slot, Step, refuse

if TYPE_CHECKING:
    from .nest import Nest


def check_loops(nest: Nest) -> None:
    outer: dict[str, int] = {}
    used = frozenset().union(*(step.ranks for step in nest.steps))
    for loop in nest.group.loops:
        if loop.rank not in nest.sizes.extents:
            listing = ", ".join(f"`{n}`" for n in nest.sizes.extents)
            raise refuse(
                "E510", f"group {nest.number} loops over `{loop.rank}`, which the cascade does not have", f"it has {listing}"
            )
        if loop.rank not in used:
            raise refuse("E510", f"group {nest.number} loops over `{loop.rank}`, which none of its Einsums iterates")
        if loop.rank in outer and loop.tile > outer[loop.rank]:
            raise refuse(
                "E510",
                f"group {nest.number}: the inner loop over `{loop.rank}` has tile {loop.tile}, larger than the one outside",
            )
        outer[loop.rank] = loop.tile
    _check_spread(nest)
    for rank in nest.group.peel:
        if not any(nest.cascade.tensor(step.output).iterates == rank for step in nest.steps):
            raise refuse(
                "E510", f"group {nest.number} peels the first step of `{rank}`, along which none of its running states goes"
            )
    for step in nest.steps:
        iterates = nest.cascade.tensor(step.output).iterates
        if iterates and not step.initial and outer.get(iterates) != 1 and nest.sizes.extents[iterates] > 1:
            raise refuse(
                "E511",
                f"`{step.output}` runs along `{iterates}`: group {nest.number} must loop over `{iterates}` with tile 1",
                f"add `{{rank: {iterates}, tile: 1}}` to its loops", step.einsum.span,
            )  # fmt: skip
        body = step.einsum.body
        if isinstance(body, Scan | Select) and body.rank in nest.cut:
            raise refuse(
                "E511",
                f"`{step.name}` needs the whole of `{body.rank}` at once; group {nest.number} cuts it by a loop",
                span=step.einsum.span,
            )


def check_flow(nest: Nest) -> None:
    """The Einsums of a tile may follow one another position by position if each of them treats each position on its own."""
    rank = nest.group.flow
    if rank is None:
        return
    if nest.group.schedule != "interleaved":
        raise refuse("E510", f"group {nest.number}: `flow` goes with `schedule: interleaved`")
    made = {step.output for step in nest.steps}
    for step in nest.steps:
        if rank not in step.ranks or rank in step.reduced or rank == nest.cascade.tensor(step.output).iterates:
            raise refuse(
                "E511",
                f"group {nest.number} cannot flow along `{rank}`: `{step.name}` does not treat each of its positions on its own",
                span=step.einsum.span,
            )  # fmt: skip
        for access in step.reads:
            tensor = nest.cascade.tensor(access.tensor)
            used = dict(zip(tensor.ranks, access.indices, strict=True))
            if access.tensor in made and used.get(rank) != Coord(rank):
                raise refuse(
                    "E511",
                    f"group {nest.number} cannot flow along `{rank}`: `{step.name}` reads `{access.tensor}` at other positions",
                    span=access.span,
                )  # fmt: skip


def check_phases(nest: Nest) -> None:
    """Every Einsum stands in one phase, and nothing is read before the phase that makes it, in the same tile or one behind."""
    group = nest.group
    if (group.schedule == "phases") != bool(group.phases):
        raise refuse("E510", f"group {nest.number}: `phases` go with `schedule: phases`, and it with them")
    phase_of: dict[str, int] = {}
    for number, names in enumerate(group.phases):
        for name in names:
            if name not in group.einsums:
                raise refuse("E510", f"group {nest.number}: phase {number + 1} names `{name}`, which is no Einsum of the group")
            if name in phase_of:
                raise refuse("E510", f"group {nest.number} has `{name}` in two phases")
            phase_of[name] = number
    if not group.phases:
        return
    if lacking := [name for name in group.einsums if name not in phase_of]:
        raise refuse("E510", f"group {nest.number}: no phase has `{lacking[0]}`")
    made = {step.output: step for step in nest.steps if not step.initial}
    behind = tiles_behind(nest)
    for step in nest.steps:
        for access in step.reads:
            producer = made.get(access.tensor)
            if producer is None or _earlier(nest, access) or phase_of[step.output] >= phase_of[producer.output]:
                continue
            if nest.group.stay.get(access.tensor) == FORWARD:
                raise refuse(
                    "E522", f"`{access.tensor}` cannot be handed on: `{step.name}` is in an earlier phase and reads it a tile later"
                )
    for step in nest.steps:
        for access in step.reads:
            producer = made.get(access.tensor)
            if producer is None or not _earlier(nest, access):
                continue
            axis = next(a for a, loop in enumerate(group.loops) if loop.rank == nest.cascade.tensor(access.tensor).iterates)
            apart = math.prod(nest.all_trips[axis + 1 :])
            wait = behind[producer.name] - behind[step.name]
            if wait > apart or (wait == apart and phase_of[producer.output] >= phase_of[step.output] and producer is not step):
                raise refuse(
                    "E511",
                    f"`{step.name}` reads the state `{access.tensor}` before the phases of group {nest.number} have made it",
                    "put the Einsum that makes it into an earlier phase", step.einsum.span,
                )  # fmt: skip


def tiles_behind(nest: Nest) -> dict[str, int]:
    """How many tiles each step works behind the first ones of its tile: one more wherever it reads what a later phase makes."""
    phase_of = {name: number for number, names in enumerate(nest.group.phases) for name in names}
    made = {step.output: step for step in nest.steps if not step.initial}
    behind: dict[str, int] = {}
    for step in nest.steps:
        behind[step.name] = 0
        for access in step.reads:
            producer = made.get(access.tensor)
            if producer is not None and producer.name in behind and not _earlier(nest, access):
                apart = 1 if phase_of[step.output] < phase_of[producer.output] else 0
                behind[step.name] = max(behind[step.name], behind[producer.name] + apart)
    return behind


def _earlier(nest: Nest, access: Access) -> bool:
    """Whether an access reads the current position of a running state: the one made in the iteration before."""
    tensor = nest.cascade.tensor(access.tensor)
    return tensor.iterates is not None and access.indices[tensor.ranks.index(tensor.iterates)] == Coord(tensor.iterates)


def _check_spread(nest: Nest) -> None:
    """Loops whose iterations are done side by side need as many instances, below them all arrays at work, and no order."""
    taken: dict[str, int] = {}
    for axis, loop in enumerate(nest.group.loops):
        if loop.over is None:
            continue
        arch, trips = nest.arch, nest.all_trips[axis]
        if loop.over not in (*arch.on_chip, *arch.arrays):
            listing = ", ".join(f"`{name}`" for name in (*arch.on_chip, *arch.arrays))
            raise refuse("E512", f"the loop over `{loop.rank}` is spread over `{loop.over}`, which is no storage level on the chip "
                "and no array", f"there are {listing}")  # fmt: skip
        for step in nest.steps:
            array = step.binding.array
            if loop.over != array and loop.over not in arch.path(array):
                raise refuse(
                    "E514", f"group {nest.number} spreads `{loop.rank}` over `{loop.over}`, which does not feed `{array}`, where "
                    f"`{step.name}` runs", f"put `{step.name}` in a group of its own",
                )  # fmt: skip
            if nest.cascade.tensor(step.output).iterates == loop.rank and trips > 1:
                raise refuse(
                    "E511", f"`{step.output}` runs along `{loop.rank}`, which group {nest.number} spreads over `{loop.over}`"
                )
        taken[loop.over] = taken.get(loop.over, 1) * trips
        have = arch.fan_out(loop.over)
        if taken[loop.over] > have:
            raise refuse(
                "E514",
                f"group {nest.number} needs {taken[loop.over]} instances of `{loop.over}` to spread `{loop.rank}`, and has {have}",
                f"put a loop over `{loop.rank}` with a tile of {have * loop.tile:,} or fewer positions outside",
            )  # fmt: skip


def slots(nest: Nest, explain: bool) -> tuple[Step, ...]:
    """Each step with the slot in which it runs for each loop; refuses what reads a reduction before it is complete."""
    late: dict[str, frozenset[str]] = {}
    placed: list[Step] = []
    made = {step.output: step for step in nest.steps if not step.initial}
    for step in nest.steps:
        mine: set[str] = set()
        for access in step.reads:
            producer = made.get(access.tensor)
            if producer is None:
                continue
            waits = _waits(nest, access, producer, late)
            if broken := sorted(waits & step.ranks & nest.cut):
                raise _illegal(nest, step, access, broken[0], explain)
            mine |= waits & nest.cut
            _check_aligned(nest, step, access, producer)
        late[step.name] = frozenset(mine)
        slots: list[Slot] = [
            "each" if loop.rank in step.ranks else "last" if loop.rank in mine else "first" for loop in nest.group.loops
        ]
        step = replace(step, slots=tuple(slots))
        placed.append(step)
    return tuple(placed)


def _waits(nest: Nest, access: Access, producer: Step, late: dict[str, frozenset[str]]) -> frozenset[str]:
    """Ranks whose loops must have ended before the accessed value is complete."""
    tensor = nest.cascade.tensor(access.tensor)
    waits = late.get(producer.name, frozenset())
    if tensor.iterates is None:
        return waits | producer.reduced
    index = access.indices[tensor.ranks.index(tensor.iterates)]
    if index in (Coord(tensor.iterates), Map("+", (Coord(tensor.iterates), Number(1)))):
        return waits
    if is_last(nest.sizes, index, tensor.iterates):
        return waits | {tensor.iterates}
    raise refuse(
        "E530", f"`{access.tensor}` is read at another position than the current, the next or the last one", span=access.span
    )


def is_last(sizes: Sizes, index: Expr, rank: str) -> bool:
    """Whether an index is the last position of a running state."""
    if free_ranks(index) or accesses(index):
        return False
    return evaluate_scalar(index, sizes.scalars) == sizes.extents[rank]


def _check_aligned(nest: Nest, step: Step, access: Access, producer: Step) -> None:
    """What a loop makes tile by tile must be read at the same position of that loop."""
    tensor = nest.cascade.tensor(access.tensor)
    for rank, index in zip(tensor.ranks, access.indices, strict=True):
        if rank in nest.cut and rank in producer.ranks and rank != tensor.iterates and index != Coord(rank):
            raise refuse(
                "E511",
                f"group {nest.number} makes `{access.tensor}` in tiles along `{rank}`; `{step.name}` reads it at other positions",
                f"put them in different groups, or do not loop over `{rank}` in this one", access.span,
            )  # fmt: skip
        if accesses(index):
            raise refuse("E530", f"`{step.name}` gathers from `{access.tensor}`, which the mapper does not model", span=access.span)


def _illegal(nest: Nest, step: Step, access: Access, rank: str, explain: bool) -> EinsmithError:
    """The refusal of a fusion, with the pass analysis as its reason."""
    reason = f"`{access.tensor}` is known only after the whole of `{rank}`"
    if explain:
        reason = _passes_apart(nest.cascade, step, access.tensor, rank) or reason
    return refuse(
        "E511",
        f"group {nest.number} loops over `{rank}`, and `{step.name}` reads `{access.tensor}` before it is complete: {reason}",
        f"put `{step.name}` in a later group, or do not loop over `{rank}` here", step.einsum.span,
    )  # fmt: skip


def _passes_apart(cascade: Cascade, step: Step, tensor: str, rank: str) -> str | None:
    """What the pass analysis says of a value and the Einsum that reads it; None if it tells them not apart."""
    from ..einsum.analysis.passes import levels

    whole = cascade.rank(rank).part_of or rank
    found = levels(cascade, whole).of_einsum
    read, reader = found.get(tensor, 0), found.get(step.output, 0)
    if reader <= read:
        return None
    return f"`{tensor}` is made in pass {read} over `{whole}`, `{step.name}` belongs to pass {reader}"
