"""Completion: from loops with what they hold to mappings costed in full.

In: a candidate (a nest with its inputs held, and what is known of its cost), a choice of arrays and layouts. Out: the mappings
with it, one for each place worth trying for the tensors of a tile, with as many tiles in flight as hide their latency; none where
nothing fits or the incumbents leave no room.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..einsum.diagnostics import EinsmithError
from .cost import group_cost
from .incumbents import Incumbents
from .layouts import Choice
from .nest import Nest, most_in_flight, settle
from .outlines import Outlines
from .places import Places, Rooms
from .problem import Found
from .residency import add_residents, check_capacity
from .tally import Tally
from .timing import chains, exposed, longest, nominal


@dataclass
class Candidate:
    """Loops that are legal, what is held, and what is known of the cost."""

    nest: Nest
    cycles: float
    energy: float
    carried: float
    """Energy besides operations and operands."""
    words: float
    transfer: float
    """Cycles of the backing store."""
    rooms: Rooms


class Completion:
    """Completes the candidates of one group."""

    def __init__(self, outlines: Outlines, tally: Tally, incumbents: Incumbents) -> None:
        self.outlines, self.tally, self.incumbents = outlines, tally, incumbents
        fixed, arch = outlines.problem.fixed, outlines.arch
        given = fixed.of(fixed.in_flight, outlines.problem.names)
        self.flying: int | None = 1 if outlines.schedule != "interleaved" else given
        """Tiles worked on at once, where that is given."""
        self._per_word = (arch.backing[1].seconds(arch.word_bytes, 0.0) or 0.0) * arch.clock_hz

    def mappings(self, candidate: Candidate, choice: Choice) -> Iterator[Found]:
        """The mappings with a choice, by where the tensors of a tile stay; nothing if none fits or can be better."""
        base = candidate.carried + choice.energy
        places = Places(candidate.rooms, choice)
        cycles, compute = max(*choice.cycles, candidate.cycles), max(choice.cycles)
        nest: Nest | None = None
        problem: EinsmithError | None = None
        fits = False
        for more, stay, room, level in places:
            energy = max(candidate.energy, base + more)
            if self.incumbents.ruled_out((cycles, energy, candidate.words)):
                self.tally.bounded += 1
                return
            if nest is None:
                nest = self._bound_to(candidate, choice)
                one = next(nest.instances(nest.spread))
                wanted = self._wanted(nest, candidate, choice)
                cycles = max(cycles, self._paced(one, compute, candidate.transfer))
                if self.incumbents.ruled_out((cycles, energy, candidate.words)):
                    self.tally.bounded += 1
                    return
            nest.group = nest.group.model_copy(update={"stay": candidate.nest.group.stay | stay, "in_flight": 1})
            try:
                add_residents(nest)
                most, full = min((room, level), most_in_flight(nest))
                if most < (self.flying or 1):
                    nest.group = nest.group.model_copy(update={"in_flight": self.flying or 1})
                    places.move_out(full)
                    check_capacity(nest)
            except EinsmithError as error:
                problem = error
                continue
            fits = True
            flying = self.flying or min(max(1, wanted), most)
            one.group = nest.group = nest.group.model_copy(update={"in_flight": flying})
            waited = chains(one) if self.outlines.schedule == "interleaved" else 0.0
            if self.flying is None and flying < wanted and waited > max(compute, candidate.transfer):
                places.move_out(full)
            if self.incumbents.ruled_out(
                (max(cycles, self._paced(one, max(compute, waited), candidate.transfer)), energy, candidate.words)
            ):
                self.tally.bounded += 1
                continue
            self.tally.evaluated += 1
            yield Found(replace(nest, residents=dict(nest.residents)), group_cost(nest))
        if fits:
            return
        if problem is not None:
            self.tally.refuse(problem)
        else:
            self._refuse_places(candidate, choice, places)

    def _paced(self, one: Nest, work: float, moved: float) -> float:
        """Cycles of one instance with fill and drain, whose arrays and dependences keep it at work for so long."""
        steady = max(work, moved)
        return steady + exposed(one, work, moved, steady, self._per_word)

    def _bound_to(self, candidate: Candidate, choice: Choice) -> Nest:
        group = candidate.nest.group
        return self.outlines.outline(
            group.loops, choice.bind(self.outlines.problem.cascade, candidate.nest.steps), bypass=group.bypass
        )

    def _refuse_places(self, candidate: Candidate, choice: Choice, places: Places) -> None:
        """Note that no level has room for the tensors of a tile, and what is lacking, unless something lacked less."""
        self.tally.too_large += 1
        if self.incumbents.found or not self.tally.is_closest(places.lacking):
            return
        nest = self._bound_to(candidate, choice)
        nest.group = nest.group.model_copy(update={"stay": candidate.nest.group.stay | places.outermost})
        try:
            settle(nest)
        except EinsmithError as error:
            self.tally.refuse(error, 0)

    def _wanted(self, nest: Nest, candidate: Candidate, choice: Choice) -> int:
        """Tiles in flight that hide the latency of a tile twice over behind the busiest resource: tiles also queue."""
        one = next(nest.instances(nest.spread))
        tiles = max([1.0, *(one.executions(step) for step in one.steps)])
        interval = max(*choice.cycles, candidate.transfer) / tiles
        latency = max(longest(one, nominal(one)).values(), default=0.0)
        return min(4096, math.ceil(2 * latency / interval), int(tiles)) if interval else 1
