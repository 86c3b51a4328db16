"""Results of a cut: what of each must be kept in an order of its loops, and where.

A result that is needed across a loop is kept as the loops outside that one cut it; one that is used in the tile that makes it is
kept if it can be neither handed on nor left in registers.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .floors import Made, level_pj
from .tape import Floats
from .tiled import Axes, Tiled

ANYWHERE = ""
"""Some level on the chip."""


@dataclass(frozen=True)
class Kept:
    """A result that is kept across loops, or all of whose tile is kept."""

    made: Made
    home: str
    """The innermost level in which its sums can be completed."""
    words: Floats
    slots: int
    lasts: bool


class Results:
    """The results of one cut."""

    def __init__(self, tiled: Tiled) -> None:
        self.tiled = tiled

    @cached_property
    def crossed(self) -> dict[str, Axes | None]:
        """For each tensor made, the loops across whose iterations it is needed; None: one outside the cut is."""
        return {made.tensor: self._crossed(made) for made in self.tiled.floors.made}

    def _crossed(self, made: Made) -> Axes | None:
        tiled = self.tiled
        nest = tiled.nest
        placed = {step.name: step for step in nest.steps}
        step = placed[made.producer.name]
        axes = set(nest.crossings(step, step, made.tensor))
        for reader in made.readers:
            axes |= set(nest.crossings(step, placed[reader.name], made.tensor))
        if made.initial is not None and (initial := placed[made.initial.name]).slots != step.slots:
            axes |= set(nest.crossings(initial, step, made.tensor))
        return None if any(axis < tiled.before for axis in axes) else frozenset(axis - tiled.before for axis in axes)

    def cuts(self, axis: int, tensor: str) -> bool:
        """Whether a loop cuts a tensor."""
        tiled = self.tiled
        declared = tiled.nest.cascade.tensor(tensor)
        return tiled.cut.axes[axis] in declared.ranks and tiled.cut.axes[axis] != declared.iterates

    def cut_of(self, made: Made, order: tuple[int, ...]) -> Axes | None:
        """Loops that cut what is kept of a tensor; None: not those outside the cut either."""
        crossed = self.crossed[made.tensor]
        if crossed is None:
            return None
        at = min((place for place, axis in enumerate(order) if axis in crossed), default=len(order))
        return frozenset(order[:at])

    def kept(self, order: tuple[int, ...]) -> list[Kept]:
        """Results that stay in a storage level: across loops, or within a tile where nothing else is possible."""
        tiled = self.tiled
        found = []
        for made in tiled.floors.made:
            cut = self.cut_of(made, order)
            if cut is not None and len(cut) == len(order):
                found.append(self.within(made, cut))
                continue
            words = np.ones(tiled.count)
            for rank in tiled.nest.own_ranks(made.tensor):
                words = words * (tiled.length(rank, cut) if cut is not None else float(tiled.team.sizes.extents[rank]))
            temporal = made.leaves and cut is not None and bool(tiled.looped.outside or cut)
            found.append(Kept(made, tiled.nest.residents[made.tensor].place, words, 2 if temporal else 1, True))
        return [each for each in found if each is not None]

    def within(self, made: Made, cut: Axes) -> Kept | None:
        """A result that is used in the tile that makes it, if it must be in a storage level; 0 words where it need not."""
        tiled = self.tiled
        if made.handed_on:
            return None
        words = np.ones(tiled.count)
        for rank in tiled.nest.own_ranks(made.tensor):
            words = words * tiled.length(rank, cut)
        if room := made.in_registers(tiled.arch):
            words = np.where(words > room, words, 0.0)
            if not words.any():
                return None
        home = tiled.nest.residents[made.tensor].place if made.tensor in tiled.nest.residents else ANYWHERE
        return Kept(made, home, words, 2 if made.leaves and bool(tiled.looped.outside or cut) else 1, False)

    def staying(self, order: tuple[int, ...], level: str) -> dict[str, str]:
        """Where results that last stay, if not in the innermost level that they can."""
        lasting = {each.made.tensor: (each.home, self.place(each, level)) for each in self.kept(order) if each.lasts}
        return {name: place for name, (home, place) in lasting.items() if place != home}

    def counted(self, order: tuple[int, ...], row: int) -> dict[str, float]:
        """Energy of the tensors of a tile that bounds have in a level, pJ."""
        tiled = self.tiled
        floor, team = tiled.tilings.floor, tiled.team
        read: dict[str, float] = {}
        written: dict[str, float] = {}
        for each in self.kept(order):
            made = each.made
            if not each.lasts and each.words[row] > 0:
                times = team.times(tiled.levels[-1], made.producer.ranks, False)
                written[made.tensor] = float(floor.made[made.tensor][row]) * times
                read[made.tensor] = float(floor.back[made.tensor][row]) * times
                read[made.tensor] += tiled.tensor(made.tensor) if made.leaves else 0.0
        ranks = {name: tiled.nest.own_ranks(name) for name in read}
        for at, step in enumerate(tiled.nest.steps):
            for number, access in enumerate(step.reads):
                if access.tensor in read:
                    alike = step.ranks if len(tiled.levels) == 1 else ranks[access.tensor]
                    words = float(floor.operands[at, access.tensor, number][row])
                    read[access.tensor] += words * team.times(tiled.levels[-1], alike, False)
        totals = {name: float(level_pj(tiled.leaves, name, sum(read.values()), sum(written.values()))) for name in tiled.levels}
        where = min(totals, key=totals.__getitem__)
        return {name: float(level_pj(tiled.leaves, where, read[name], written[name])) for name in read}

    def place(self, kept: Kept, level: str) -> str:
        """Where a result stays: at a level, or further out where its sums can be completed."""
        order = list(self.tiled.arch.memory)
        return order[min(order.index(kept.home), order.index(level))]

    def crowding(self, kept: list[Kept], free: Map_[str, Floats]) -> Floats:
        """How much of the levels what a tile makes takes at least, each tensor at the level that has most room for it: more than 1
        where they do not fit. `free`: words of one instance of each level."""
        tiled = self.tiled
        worst, total = np.zeros(tiled.count), np.zeros(tiled.count)
        for each in kept:
            if not each.lasts:
                ranks = tiled.nest.own_ranks(each.made.tensor)
                need = each.words * each.slots
                share = np.minimum.reduce(
                    [need * tiled.team.inside(name, ranks) / np.maximum(room, 0.5) for name, room in free.items()]
                )
                worst, total = np.maximum(worst, share), total + share
        return np.maximum(worst, total / len(tiled.levels))
