"""Room that a group takes: bytes of the buffer and words of a lane when most are taken, as formulas."""

from __future__ import annotations

from ..nest import Resident
from ..tape import Value, ceil_div, maximum, product, total
from .words import Words


class Room:
    """The room of one group."""

    def __init__(self, words: Words) -> None:
        self.words, self.tiles = words, words.tiles
        self.nest, self.hardware = words.nest, words.hardware

    def buffer_need(self, in_flight: Value) -> Value:
        """Bytes of the buffer that are taken at once."""
        buffer = self.nest.arch.buffer[0]
        words = total(self.words.stream_tile(stream) * self._slots(stream.depth) for stream in self.nest.streams)
        for resident in self.nest.residents.values():
            if resident.place == buffer:
                slots: Value = in_flight if resident.depth == self.tiles.depth else 1.0
                if resident.leaves:
                    slots = maximum(slots, self._slots(resident.depth))
                words = words + self.words.resident_words(resident, resident.depth) * slots
        return words * self.hardware["word_bytes"]

    def _slots(self, depth: int) -> float:
        return float(self.tiles.group.buffering) if any(axis < depth for axis in self.tiles.active) else 1.0

    def lane_need(self, array: str, in_flight: Value) -> Value:
        """Words of one lane that are taken when most are."""
        nest = self.nest
        here = [resident for resident in nest.residents.values() if resident.place == array]
        lasting = total(self.lane_words(r) for r in here if r.depth < self.tiles.depth)
        order = {step.name: i for i, step in enumerate(nest.steps)}
        passing = [r for r in here if r.depth == self.tiles.depth]
        worst: Value = 0.0
        for i, step in enumerate(nest.steps):
            alive: dict[str, Value] = {}
            for r in passing:
                last = max((order[reader.name] for reader in r.readers), default=order[r.producer.name])
                if order[r.producer.name] <= i <= last:
                    alive[r.tensor] = self.lane_words(r) * in_flight
            if step.output in alive and not step.reduced:
                shape = frozenset(nest.cascade.tensor(step.output).ranks)
                for r in passing:
                    ends_here = r.tensor in alive and max((order[x.name] for x in r.readers), default=-1) == i
                    if (
                        ends_here
                        and r.tensor != step.output
                        and frozenset(nest.cascade.tensor(r.tensor).ranks) == shape == step.ranks
                    ):
                        del alive[r.tensor]
                        break
            worst = maximum(worst, total(alive.values()))
        return lasting + worst

    def lane_words(self, resident: Resident) -> Value:
        """Words of one lane that a tile of a tensor takes in the registers of an array."""
        step = next(s for s in (resident.producer, *resident.readers) if s.binding.array == resident.place)
        declared = self.nest.cascade.tensor(resident.tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        words: Value = 1.0
        for side, lanes in enumerate(self.hardware.sides(resident.place)):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            if here:
                words = words * ceil_div(product(self.tiles.size(rank, resident.depth) for rank in here), lanes)
        return words * product(self.tiles.size(rank, resident.depth) for rank in sorted(ranks - step.binding.ranks))
