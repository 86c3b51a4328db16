"""Where tensors stay on the chip while a group runs, and whether they fit.

In: a group whose steps are legal in time. Out: its streams (inputs, with the places that hold a tile of them), its residents
(what is made in it, with the place where it stays and those where it is summed up), and what each tensor needs of each storage
level and of each lane's registers at once; refused with need and have where that is more than there is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..einsum.cascade import Coord, Expr, free_ranks
from .legality import is_last
from .steps import FORWARD, Step, refuse
from .streams import Resident, Stream

if TYPE_CHECKING:
    from .nest import Nest

# --- inputs -----------------------------------------------------------------------------------------------------------


def add_streams(nest: Nest) -> None:
    """Find the inputs of a group and where each is held."""
    made = {step.output for step in nest.steps}
    readers: dict[tuple[str, tuple[Expr, ...]], list[Step]] = {}
    for step in nest.steps:
        for access in step.reads:
            if access.tensor not in made:
                declared = nest.cascade.tensor(access.tensor)
                if declared.kind == "state" and not is_last(
                    nest.sizes, access.indices[declared.ranks.index(str(declared.iterates))], str(declared.iterates)
                ):
                    raise refuse(
                        "E511", f"`{step.name}` reads the running state `{access.tensor}` as it runs, but is in another group",
                        "put it in the group of the state", access.span,
                    )  # fmt: skip
                readers.setdefault((access.tensor, access.indices), []).append(step)
    held = holds(nest)
    known = {tensor for tensor, _ in readers}
    for _, name in held:
        if name not in known | made:
            listing = ", ".join(f"`{n}`" for n in sorted(known))
            raise refuse(
                "E510", f"group {nest.number} holds `{name}`, which it does not read from the backing store", f"it reads {listing}"
            )
    for level, names in nest.group.bypass.items():
        if level not in nest.arch.on_chip:
            listing = ", ".join(f"`{n}`" for n in nest.arch.on_chip)
            raise refuse(
                "E512", f"group {nest.number} lets tensors bypass `{level}`, which is no storage level on the chip", listing
            )
        if strange := [name for name in names if name not in known or (level, name) in held]:
            why = "holds it there too" if (level, strange[0]) in held else "does not read it from the backing store"
            raise refuse("E510", f"group {nest.number} lets `{strange[0]}` bypass `{level}`, but {why}")
    nest.streams = tuple(_stream(nest, tensor, indices, tuple(steps), held) for (tensor, indices), steps in readers.items())


def holds(nest: Nest) -> dict[tuple[str, str], int]:
    """(place, tensor) that the loops of a group hold, with the number of loops that cut the tile."""
    found: dict[tuple[str, str], int] = {}
    places = [*nest.arch.on_chip, *nest.arch.arrays]
    for depth, loop in enumerate(nest.group.loops, 1):
        for place, tensors in loop.held(next(iter(places))).items():
            if place not in places:
                listing = ", ".join(f"`{n}`" for n in places)
                raise refuse(
                    "E512", f"`{tensors[0]}` is to be held in `{place}`, which is no array and no storage level on the chip",
                    f"there are {listing}",
                )  # fmt: skip
            found |= {(place, tensor): depth for tensor in tensors}
    return found


def _stream(
    nest: Nest, tensor: str, indices: tuple[Expr, ...], steps: tuple[Step, ...], held: dict[tuple[str, str], int]
) -> Stream:
    ranks = frozenset().union(*(free_ranks(index) for index in indices))
    own = max((depth for depth, loop in enumerate(nest.group.loops, 1) if loop.rank in ranks), default=0)
    arrays = dict.fromkeys(step.binding.array for step in steps)
    chain: list[tuple[str, int]] = []
    for place in nest.arch.on_chip:
        reached = any(place in nest.arch.path(array) for array in arrays)
        if reached and tensor not in nest.group.bypass.get(place, ()):
            outside = max((depth for _, depth in chain), default=0)
            chain.append((place, held.get((place, tensor), max(own, outside))))
        elif (place, tensor) in held:
            raise refuse("E512", f"`{place}` does not feed the arrays that read `{tensor}`: {', '.join(f'`{a}`' for a in arrays)}")
    chain += [(array, held[array, tensor]) for array in arrays if (array, tensor) in held]
    for name in nest.arch.arrays:
        if (name, tensor) in held and name not in arrays:
            raise refuse("E512", f"nothing on `{name}` reads `{tensor}`, which it is to hold in its registers")
    for i, (place, depth) in enumerate(chain):
        for outer, outside in chain[:i]:
            if outside > depth and outer not in nest.arch.arrays:
                raise refuse(
                    "E510", f"group {nest.number} holds more of `{tensor}` in `{place}` than in `{outer}`, which feeds it",
                    f"hold it in `{outer}` at a loop further out, or let it bypass `{outer}`",
                )  # fmt: skip
        _check_parts(nest, place, tensor, ranks, depth)
    if chain and chain[0][0] in nest.arch.memory:
        return Stream(tensor, indices, steps, chain[0][1], chain[0][0], tuple(chain[1:]))
    return Stream(tensor, indices, steps, len(nest.group.loops), "", tuple(chain))


def _check_parts(nest: Nest, place: str, tensor: str, ranks: frozenset[str], depth: int) -> None:
    """Each instance of a place holds its own part only."""
    for axis in sorted(nest.spread_to(place)):
        loop = nest.group.loops[axis]
        if axis >= depth and loop.rank in ranks and nest.all_trips[axis] > 1:
            raise refuse(
                "E514", f"group {nest.number} holds `{tensor}` in `{place}` outside the loop that spreads `{loop.rank}` over "
                f"`{loop.over}`: each instance would hold the parts of all",
                f"hold it at the loop over `{loop.rank}` or inside it",
            )  # fmt: skip


# --- what is made in the group ----------------------------------------------------------------------------------------


def add_residents(nest: Nest) -> None:
    """Find where each tensor made in a group stays."""
    for tensor in nest.group.stay:
        if tensor not in nest.group.einsums:
            raise refuse("E510", f"group {nest.number} says where `{tensor}` stays, but does not make it")
    held = holds(nest)
    for producer in nest.steps:
        if producer.initial:
            continue
        tensor = producer.output
        readers = tuple(step for step in nest.steps if any(access.tensor == tensor for access in step.reads))
        initial = next((step for step in nest.steps if step.initial and step.output == tensor), None)
        alive = [nest.crosses(producer, reader, tensor) for reader in readers]
        alive.append(nest.crosses(producer, producer, tensor))
        if initial is not None:
            alive.append(nest.crosses(initial, producer, tensor) if initial.slots != producer.slots else len(nest.group.loops))
        spot = nest.group.stay.get(tensor) or _home(nest, producer, readers)
        inner = tuple((place, held[place, tensor]) for place in (*nest.arch.on_chip, *nest.arch.arrays) if (place, tensor) in held)
        resident = Resident(tensor, producer, readers, min(alive), spot, tensor in nest.outgoing, inner)
        for name in nest.group.taps.get(tensor, ()):
            _check_tap(nest, resident, name)
        _check_place(nest, resident)
        _check_sums(nest, resident)
        nest.residents[tensor] = resident
    for tensor in nest.group.taps:
        if tensor not in nest.residents:
            raise refuse("E510", f"group {nest.number} taps `{tensor}`, but does not make it")
    for tensor in nest.group.spill:
        if tensor not in nest.residents or nest.residents[tensor].place not in nest.arch.on_chip:
            raise refuse("E510", f"group {nest.number} spills `{tensor}`, which it does not make and keep in a storage level")
    for level in nest.group.reserve:
        if level not in nest.arch.on_chip:
            listing = ", ".join(f"`{n}`" for n in nest.arch.on_chip)
            raise refuse(
                "E512", f"group {nest.number} reserves a part of `{level}`, which is no storage level on the chip", listing
            )
    _check_in_place(nest)


def _home(nest: Nest, producer: Step, readers: tuple[Step, ...]) -> str:
    """The innermost storage level that all who make and read a tensor share, and in which its sums can be completed."""
    paths = [nest.arch.path(step.binding.array) for step in (producer, *readers)]
    return next(
        level
        for level in reversed(nest.arch.memory)
        if all(level in path for path in paths) and not _apart(nest, level, producer.output)
    )


def _apart(nest: Nest, place: str, tensor: str) -> list[int]:
    """Loops that spread over instances of a place what is one value of a tensor."""
    declared = nest.cascade.tensor(tensor)
    own = frozenset(declared.ranks) - {declared.iterates}
    axes = nest.spread_to(place)
    return [axis for axis in sorted(axes) if nest.all_trips[axis] > 1 and nest.group.loops[axis].rank not in own]


def _check_place(nest: Nest, resident: Resident) -> None:
    name, spot = resident.tensor, resident.place
    steps = (resident.producer, *resident.readers)
    if spot not in (FORWARD, *nest.arch.memory, *nest.arch.arrays):
        listing = ", ".join(f"`{n}`" for n in (*nest.arch.memory, FORWARD, *nest.arch.arrays))
        raise refuse("E512", f"`{name}` is to stay at `{spot}`, which is no array or storage level", f"choose one of {listing}")
    if apart := _apart(nest, resident.producer.binding.array if spot == FORWARD else spot, name):
        loop = nest.group.loops[apart[0]]
        shared = [level for level in nest.arch.memory if not _apart(nest, level, name)]
        raise refuse(
            "E514", f"`{name}` cannot stay at `{spot}`: group {nest.number} spreads `{loop.rank}` over `{loop.over}`, and no "
            "instance would have its values for all", f"let it stay in `{shared[-1]}`",
        )  # fmt: skip
    if spot in nest.arch.memory:
        for step in steps:
            if spot not in nest.arch.path(step.binding.array):
                raise refuse(
                    "E512",
                    f"`{name}` is to stay at `{spot}`, which does not serve `{step.binding.array}`, where `{step.name}` runs",
                )
        return
    if spot == FORWARD:
        _check_forward(nest, resident)
        return
    if all(step.binding.array != spot for step in steps):
        raise refuse("E512", f"`{name}` is to stay at `{spot}`, but nothing there makes or reads it")
    layouts = {nest.layout(step, name): step for step in steps if step.binding.array == spot}
    if len(layouts) > 1:
        shown = ", ".join(f"`{s.name}` as {' x '.join(' '.join(a) or '1' for a in layout)}" for layout, s in layouts.items())
        raise refuse("E522", f"`{name}` cannot stay in the registers of `{spot}`: its Einsums lay it out differently ({shown})")
    if resident.leaves:
        level = _home(nest, resident.producer, resident.readers)
        raise refuse("E512", f"`{name}` leaves group {nest.number}: it may stay in `{level}` or be `{FORWARD}`ed, not in registers")


def _check_forward(nest: Nest, resident: Resident) -> None:
    name = resident.tensor
    if resident.depth < len(nest.group.loops):
        loop = nest.group.loops[resident.depth]
        raise refuse("E522", f"`{name}` cannot be handed on: it is needed across iterations of the loop over `{loop.rank}`")
    shape = frozenset(nest.cascade.tensor(name).ranks)
    for reader in resident.readers:
        if reader.ranks != shape:
            extra = ", ".join(f"`{n}`" for n in sorted(reader.ranks ^ shape))
            raise refuse("E522", f"`{name}` cannot be handed on: `{reader.name}` uses its elements more than once ({extra})")
        if (through := nest.between(resident.producer, reader)) is not None:
            raise refuse(
                "E522", f"`{name}` cannot be handed on: `{reader.name}` also waits for `{through.name}`, which comes after it"
            )


def _check_tap(nest: Nest, resident: Resident, name: str) -> None:
    """A reader that takes elements as they are made must use each once, in the same tile, and wait for nothing that comes later."""
    reader = next((step for step in resident.readers if step.name == name), None)
    if reader is None:
        raise refuse("E510", f"group {nest.number}: `{name}` cannot tap `{resident.tensor}`, which it does not read")
    shape = frozenset(nest.cascade.tensor(resident.tensor).ranks)
    through = nest.between(resident.producer, reader)
    if reader.ranks != shape:
        why = "it uses its elements more than once"
    elif nest.crosses(resident.producer, reader, resident.tensor) < len(nest.group.loops):
        why = "it runs in other tiles"
    elif through is not None:
        why = f"it also waits for `{through.name}`, which comes after it"
    else:
        return
    raise refuse("E522", f"`{name}` cannot take `{resident.tensor}` as it is made: {why}")


def _check_in_place(nest: Nest) -> None:
    """Each tensor of a chain must be made of the one before, element by element, by the last who reads it."""
    order = {step.name: at for at, step in enumerate(nest.steps)}
    for chain in nest.group.in_place:
        for name in chain:
            if name not in nest.residents:
                raise refuse("E510", f"group {nest.number} lets `{name}` share a place, but does not make it")
        for before, after in itertools.pairwise(chain):
            old, new = nest.residents[before], nest.residents[after]
            step = new.producer
            shape = nest.cascade.tensor(before).ranks
            read = [access.indices for access in step.reads if access.tensor == before]
            late = [r.name for r in old.readers if order[r.name] > order[step.name]]
            if old.place != new.place or old.depth != new.depth:
                why = f"they do not stay at the same place for the same time (`{old.place}`, `{new.place}`)"
            elif read != [tuple(Coord(rank) for rank in shape)] or nest.cascade.tensor(after).ranks != shape or step.reduced:
                why = f"`{after}` is not made of `{before}` element by element"
            elif late:
                why = f"`{late[0]}` still reads `{before}`"
            elif old.leaves:
                why = f"`{before}` leaves the group"
            else:
                continue
            raise refuse("E522", f"`{after}` cannot take the place of `{before}`: {why}", span=step.einsum.span)


def _check_sums(nest: Nest, resident: Resident) -> None:
    """Where a result is summed up must be further inwards than where it stays, and on the way to it."""
    order = [*nest.arch.memory, *nest.arch.arrays]
    outer, outside, name = resident.place, 0, resident.tensor
    for place, depth in resident.inner:
        array = resident.producer.binding.array
        if not resident.producer.reduced or (array != place and place not in nest.arch.path(array)):
            raise refuse(
                "E512", f"`{place}` holds `{name}`, but no sum of it is made there; `{resident.producer.name}` is on `{array}`"
            )
        if outer not in nest.arch.memory or order.index(place) <= order.index(outer):
            raise refuse("E512", f"`{place}` holds `{name}`, which stays at `{outer}`: what is held must be further inwards")
        if depth < outside:
            raise refuse("E510", f"group {nest.number} holds more of `{name}` in `{place}` than in `{outer}`, which takes its sums")
        ranks = frozenset(nest.cascade.tensor(name).ranks)
        _check_parts(nest, place, name, ranks, depth)
        outer, outside = place, depth


# --- capacity ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """What one tensor needs of a storage level at once."""

    tensor: str
    words: int
    """One slot."""
    slots: int


def most_in_flight(nest: Nest) -> tuple[int, str]:
    """Most tiles that the registers can hold at once (0 if not even one), and the array that holds no more."""
    asked = nest.group
    found = [(4096, "")]
    for name, array in nest.arch.arrays.items():
        needs = []
        for flying in (1, 2):
            nest.group = asked.model_copy(update={"in_flight": flying})
            needs.append(sum(nest.lane_needs(name).values()))
        found.append((_fits(array.registers.words, *needs), name))
    nest.group = asked
    return min(found, key=lambda each: each[0])


def _fits(have: int, one: int, two: int) -> int:
    """How many fit if one needs `one` and two need `two`."""
    return 0 if one > have else 4096 if two == one else 1 + (have - one) // (two - one)


def level_needs(nest: Nest, level: str) -> list[Need]:
    """What each tensor needs of one instance of a storage level."""
    needs = [
        Need(
            stream.tensor,
            nest.tile_words(stream.tensor, stream.indices, depth, level),
            1 if stream.tensor in nest.group.single else slots_of(nest, depth),
        )
        for stream in nest.streams
        for place, depth in stream.chain
        if place == level
    ]
    for resident in nest.residents.values():
        for place, depth in resident.inner:
            if place == level:
                words = nest.resident_words(resident, depth) * nest.parts(level, nest.own_ranks(resident.tensor), depth)
                needs.append(Need(resident.tensor, words, slots_of(nest, depth)))
        if resident.place == level:
            whole = resident.depth == len(nest.group.loops)
            slots = nest.group.in_flight if whole else 1
            if resident.leaves and resident.tensor not in nest.group.single:
                slots = max(slots, slots_of(nest, resident.depth))
            parts = nest.parts(level, nest.own_ranks(resident.tensor), resident.depth)
            needs.append(Need(resident.tensor, nest.resident_words(resident) * parts, slots))
    for chain in nest.group.in_place:
        sharing = [need for need in needs if need.tensor in chain]
        largest = max(sharing, key=lambda need: need.words * need.slots, default=None)
        needs = [need for need in needs if need not in sharing or need is largest]
    return needs


def asked(nest: Nest, level: str) -> int:
    """Bytes of one instance of a storage level that all that should stay there would take."""
    words = sum(item.words * item.slots for item in level_needs(nest, level))
    return words * nest.arch.word_bytes + nest.group.reserve.get(level, 0)


def taken(nest: Nest, level: str) -> int:
    """Bytes of one instance of a storage level that are taken at once."""
    size = nest.arch.memory[level].size
    need = asked(nest, level)
    return min(need, size) if size is not None and spills(nest, level) else need


def spills(nest: Nest, level: str) -> bool:
    """Whether a group may let tensors overflow a level."""
    return any(nest.residents[tensor].place == level for tensor in nest.group.spill)


def spilled(nest: Nest, tensor: str) -> float:
    """The share of a tensor that goes out to the backing store."""
    if tensor not in nest.group.spill:
        return 0.0
    level = nest.residents[tensor].place
    size, need = nest.arch.memory[level].size, asked(nest, level)
    if size is None or need <= size:
        return 0.0
    if nest.group.spill_share == "need":
        return 1.0 - size / need
    return (need - size) / spillable(nest, level_needs(nest, level))


def spillable(nest: Nest, needs: list[Need]) -> int:
    """Bytes of what may go out; tensors that share a place do so together."""
    kept = {name for chain in nest.group.in_place if not set(chain) <= set(nest.group.spill) for name in chain}
    may = set(nest.group.spill) - kept
    return sum(need.words * need.slots for need in needs if need.tensor in may) * nest.arch.word_bytes


def slots_of(nest: Nest, depth: int) -> int:
    """Slots of a tile that is exchanged with the level outside; one is enough for what is exchanged only once."""
    steps = math.prod(trips for axis, trips in enumerate(nest.trips[:depth]) if axis not in nest.spread)
    return nest.group.buffering if steps > 1 else 1


def settle_lasting(nest: Nest) -> None:
    """A first look at capacity, whatever the binding: inputs held, and what is alive across tiles."""
    add_residents(nest)
    within = len(nest.group.loops)
    passing = {name for name, resident in nest.residents.items() if resident.depth == within}
    for level in nest.arch.on_chip:
        _check_level(nest, level, [need for need in level_needs(nest, level) if need.tensor not in passing])


def check_capacity(nest: Nest) -> None:
    """Refuses what does not fit a storage level or the registers."""
    for level in nest.arch.on_chip:
        _check_level(nest, level, level_needs(nest, level))
    _check_registers(nest)


def _check_level(nest: Nest, level: str, needs: list[Need]) -> None:
    word, size = nest.arch.word_bytes, nest.arch.memory[level].size
    need = sum(item.words * item.slots for item in needs) * word + nest.group.reserve.get(level, 0)
    least = need - (spillable(nest, needs) if spills(nest, level) else 0)
    if size is not None and least > size:
        largest = sorted(needs, key=lambda item: -item.words * item.slots)
        parts = ", ".join(
            f"`{item.tensor}` {item.words * item.slots * word:,}" + (f" ({item.slots} slots)" if item.slots > 1 else "")
            for item in largest[:6]
        ) + (f", {nest.group.reserve[level]:,} reserved" if nest.group.reserve.get(level) else "")
        if least < need:
            parts += f"; {need - least:,} of it may be spilled"
        raise refuse(
            "E520",
            f"group {nest.number} needs {need:,} bytes of `{level}`, which has {size:,}: {parts}",
            "use smaller tiles",
        )


def _check_registers(nest: Nest) -> None:
    for name, array in nest.arch.arrays.items():
        lanes = nest.lane_needs(name)
        total = sum(lanes.values())
        if total > array.registers.words:
            parts = ", ".join(f"`{tensor}` {words}" for tensor, words in sorted(lanes.items(), key=lambda item: -item[1]))
            raise refuse(
                "E521", f"group {nest.number} needs {total} words of registers in each lane of `{name}`, which has "
                f"{array.registers.words}: {parts}",
                "let a tensor stay in the buffer, use smaller tiles, or keep fewer tiles in flight",
            )  # fmt: skip
