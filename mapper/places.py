"""Where tensors that live within a tile stay: handed on, in the registers of an array that makes or reads them, or in a level.

In: a placed nest and arrays for its Einsums. Out: `Places`: assignments, least energy first. What can be handed on is: it takes no
room. Registers cost less than any storage level, so all tensors start there. An assignment that wants more room somewhere can only
be improved by moving a tensor out of that place to one further out: what such moves reach is all that can be better.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from collections.abc import Mapping as Map_

from .layouts import Choice, bind
from .nest import FORWARD, Nest
from .streams import Resident


class Places:
    """Assignments of the tensors of a tile under a choice; `spilled`: of each, the least energy more in a level, pJ."""

    def __init__(self, nest: Nest, choice: Choice, spilled: Map_[str, float]) -> None:
        self.levels = tuple(reversed(nest.arch.on_chip))
        self.handed_on: list[str] = []
        self.options: dict[str, tuple[str, ...]] = {}
        """Places of each tensor by their energy."""
        array_of = {step.name: array for step, array in zip(nest.steps, choice.binding, strict=True)}
        for resident in nest.residents.values():
            if resident.depth < len(nest.group.loops):
                continue
            if _is_handed_on(nest, resident):
                self.handed_on.append(resident.tensor)
            else:
                self.options[resident.tensor] = (*_rooms(nest, choice, resident, array_of), *self.levels)
        self._spilled = [spilled.get(name, 0.0) for name in self.options]
        self._queue: list[tuple[float, tuple[int, ...]]] = []
        self._seen: set[tuple[int, ...]] = set()
        self._now: tuple[int, ...] = (0,) * len(self.options)
        self._push(self._now)

    @property
    def least(self) -> float:
        """Energy of the first assignment beyond that with all tensors in registers."""
        return self._queue[0][0] if self._queue else math.inf

    def __iter__(self) -> Iterator[tuple[float, dict[str, str]]]:
        """(least energy beyond that with all tensors in registers, where tensors stay if not in the innermost level)."""
        while self._queue:
            energy, self._now = heapq.heappop(self._queue)
            stay = dict.fromkeys(self.handed_on, FORWARD)
            for at, (name, places) in zip(self._now, self.options.items(), strict=True):
                if places[at] != self.levels[0]:
                    stay[name] = places[at]
            yield energy, stay

    def move_out(self, full: str) -> None:
        """Also try the assignment at hand with a tensor moved out of a place."""
        for number, places in enumerate(self.options.values()):
            if places[self._now[number]] == full:
                for further in range(self._now[number] + 1, len(places)):
                    self._push((*self._now[:number], further, *self._now[number + 1 :]))

    def _push(self, state: tuple[int, ...]) -> None:
        if state not in self._seen:
            self._seen.add(state)
            listed = zip(state, self.options.values(), self._spilled, strict=True)
            energy = sum(more for at, places, more in listed if places[at] in self.levels)
            heapq.heappush(self._queue, (energy, state))


def _is_handed_on(nest: Nest, resident: Resident) -> bool:
    """Whether all readers may take the elements of a tensor as they are made."""
    shape = frozenset(nest.cascade.tensor(resident.tensor).ranks)
    return all(reader.ranks == shape and nest.between(resident.producer, reader) is None for reader in resident.readers)


def _rooms(nest: Nest, choice: Choice, resident: Resident, array_of: Map_[str, str]) -> tuple[str, ...]:
    """The arrays whose registers can hold a tensor of a single tile; those of who reads it first."""
    if resident.leaves:
        return ()
    arrays = dict.fromkeys(array_of[step.name] for step in (*resident.readers, resident.producer))
    return tuple(name for name in arrays if _has_room(nest, choice, resident, name, array_of))


def _has_room(nest: Nest, choice: Choice, resident: Resident, name: str, array_of: Map_[str, str]) -> bool:
    """Whether all on an array lay a tensor out in one way, and a lane has room for its part."""
    array = nest.arch.arrays[name]
    steps = [step for step in (resident.producer, *resident.readers) if array_of[step.name] == name]
    bindings = [bind(nest.cascade, name, choice.layouts[name], step) for step in steps]
    ranks = nest.own_ranks(resident.tensor)
    sides = range(len(array.side))
    laid = {tuple(tuple(rank for rank in binding.along(side) if rank in ranks) for side in sides) for binding in bindings}
    words = math.prod(nest.size(rank) for rank in ranks - bindings[0].ranks)
    for side, lanes in enumerate(array.side):
        here = [nest.size(rank) for rank in bindings[0].along(side) if rank in ranks]
        words *= math.ceil(math.prod(here) / lanes) if here else 1
    return len(laid) == 1 and words <= array.registers.words
