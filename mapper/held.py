"""Inputs of a cut: where each may be held in an order of its loops, for how many words, in how large a tile.

An input that is cut by some loops is fetched again in each iteration of the other loops outside the innermost of these.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..einsum.cascade import free_ranks
from .closed.tiles import Tiles
from .closed.words import Open, Words
from .floors import whole_words
from .mapping import Loop
from .nest import Nest
from .streams import Stream
from .tape import Floats, Program, Tape
from .tiled import Axes, Tiled

OUTSIDE = -1
"""Held outside all loops of the cut."""


@dataclass(frozen=True)
class Option:
    """One way to hold an input at a level."""

    at: int
    """The loop whose steps change what is held, by its place in the order; OUTSIDE."""
    words: Floats
    """That one instance fetches."""
    tile: Floats
    """Words of one slot."""
    slots: int


class Inputs:
    """The inputs of one cut."""

    def __init__(self, tiled: Tiled) -> None:
        self.tiled = tiled
        self._words: dict[Any, Floats] = {}
        self._tiles: dict[Any, Floats] = {}

    def places(self, number: int, order: tuple[int, ...]) -> list[int]:
        """Where in an order an input may be held: of those that fetch it equally often, the one with the smallest tile."""
        tiled = self.tiled
        found: dict[Axes, int] = {}
        own = [at for at, axis in enumerate(order) if tiled.cut.axes[axis] in tiled.own[number]]
        for at in [OUTSIDE, *own]:
            found[self.again(number, order, at)] = at
        wanted = tiled.fixed.holds.get(tiled.nest.streams[number].tensor, {}).values()
        named = [at for at in own if tiled.cut.axes[order[at]] in wanted]
        return list(dict.fromkeys([*found.values(), *named]))

    def obeys(self, level: str, number: int, order: tuple[int, ...], at: int) -> bool:
        """Whether an input may be held at a place of an order."""
        tiled = self.tiled
        holds = tiled.fixed.holds.get(tiled.nest.streams[number].tensor, {})
        if level not in holds:
            return True
        rank = holds[level]
        if at == OUTSIDE:
            here = [loop.rank for loop in tiled.looped.outside if loop.rank in tiled.own[number]]
            return rank == (here[-1] if here else None)
        return tiled.cut.axes[order[at]] == rank

    def own_axes(self, number: int, order: tuple[int, ...], at: int) -> Axes:
        """Loops that cut what is held of an input at a place of an order."""
        return frozenset(axis for axis in order[: at + 1] if self.tiled.cut.axes[axis] in self.tiled.own[number])

    def again(self, number: int, order: tuple[int, ...], at: int) -> Axes:
        """Loops that make an input come again."""
        tiled = self.tiled
        axes = tiled.cut.axes
        if at == OUTSIDE:
            return frozenset()
        return frozenset(a for a in order[:at] if axes[a] not in tiled.own[number] and axes[a] in tiled.read[number])

    def option(self, number: int, order: tuple[int, ...], at: int) -> Option:
        """An input held at a place of an order."""
        tiled = self.tiled
        stream = tiled.nest.streams[number]
        own, again = self.own_axes(number, order, at), self.again(number, order, at)
        torn = self._torn(number, order, at, again)
        key: Any = (number, own, again, torn) if tiled.simple[number] else (number, order[: at + 1])
        if key not in self._words:
            if tiled.simple[number] and not self.half_cut(stream, own):
                words = whole_words(tiled.floors.nest, stream.tensor, stream.indices) * self._repeated(again, torn)
                self._words[key] = words * tiled.shares[number]
                self._tiles[key] = self.tile_words(stream, own)
            else:
                self._words[key], self._tiles[key] = self._in_full(number, order, at)
        temporal = bool(tiled.looped.outside) or at != OUTSIDE
        return Option(at, self._words[key], self._tiles[key], 2 if temporal else 1)

    def half_cut(self, stream: Stream, own: Axes) -> bool:
        """Whether a split rank is cut in its inner part but not in its outer one."""
        tiled = self.tiled
        cut = {tiled.cut.axes[axis] for axis in own} | tiled.prefix
        for rank, index in zip(tiled.nest.cascade.tensor(stream.tensor).ranks, stream.indices, strict=True):
            split = tiled.nest.cascade.rank(rank).split
            if split is None or len(free_ranks(index)) < 2:
                continue
            if split.inner in cut and split.outer not in cut and tiled.team.sizes.extents[split.outer] > 1:
                return True
        return False

    def tile_words(self, stream: Stream, own: Axes) -> Floats:
        """Words of the largest tile of an input, as cut by some loops."""
        tiled = self.tiled
        found = np.ones(tiled.count)
        for rank, index in zip(tiled.nest.cascade.tensor(stream.tensor).ranks, stream.indices, strict=True):
            ranks = free_ranks(index)
            split = tiled.nest.cascade.rank(rank).split
            if len(ranks) > 1 and split is not None:
                outer, inner = tiled.length(split.outer, own), tiled.length(split.inner, own)
                found = found * np.minimum(outer * inner, float(tiled.team.sizes.extents[rank]))
            for name in ranks if len(ranks) == 1 else ():
                found = found * tiled.length(name, own)
        return found

    def _torn(self, number: int, order: tuple[int, ...], at: int, again: Axes) -> Axes:
        """Loops between the two over one rank of an input, with nothing else of it inside: they bring nothing again where the
        outer tile is one inner one."""
        tiled = self.tiled
        if tiled.cut.outer is None or tiled.cut.outer not in tiled.own[number] or tiled.inner not in order[: at + 1]:
            return frozenset()
        place = {axis: where for where, axis in enumerate(order)}
        outside = max((place[axis] for axis in self.own_axes(number, order, at) if axis != tiled.inner), default=-1)
        return frozenset(axis for axis in again if outside < place[axis] < place[tiled.inner])

    def _repeated(self, again: Axes, torn: Axes) -> Floats:
        """How often an input comes."""
        tiled = self.tiled
        found = np.ones(tiled.count)
        for rank in sorted({tiled.cut.axes[axis] for axis in again - torn}):
            found = found * tiled.tiles_of(rank, again - torn)
        if not torn:
            return found
        between = np.ones(tiled.count)
        for rank in sorted({tiled.cut.axes[axis] for axis in torn}):
            between = between * tiled.tiles_of(rank, torn)
        assert tiled.cut.outer is not None
        outer, inner = tiled.tilings.tiles[tiled.cut.outer]
        extent = float(tiled.team.sizes.extents[tiled.cut.outer])
        last = extent - (np.ceil(extent / outer) - 1.0) * outer
        return np.asarray(found * ((extent - last) * between + last * np.where(last > inner, between, 1.0)) / extent)

    def _in_full(self, number: int, order: tuple[int, ...], at: int) -> tuple[Floats, Floats]:
        """Words and tile of an input with unusual indices: in closed form with its loops in order, or tiling by tiling."""
        tiled = self.tiled
        stream = tiled.nest.streams[number]
        loops = [tiled.nest.group.loops[tiled.before + axis] for axis in order]
        nest = replace(
            tiled.floors.nest, group=tiled.nest.group.model_copy(update={"loops": (*tiled.looped.outside, *loops)}),
            steps=tuple(replace(step, slots=()) for step in tiled.nest.steps), streams=(),
        )  # fmt: skip
        skipped = len(tiled.looped.outside)
        depth = skipped + at + 1
        own = [d for d in range(1, depth + 1) if nest.group.loops[d - 1].rank in tiled.own[number]]
        held = replace(stream, depth=own[-1] if own else 0)
        tiles = {skipped + place: tiled.tile_of(axis) for place, axis in enumerate(order)}
        one = frozenset(axis for axis, loop in enumerate(nest.group.loops) if loop.tile == 1 and axis not in tiles)
        one |= frozenset(skipped + place for place, axis in enumerate(order) if tiled.cut.axes[axis] in tiled.cut.moving)
        tape = Tape()
        words = Words(Tiles(nest, tape, one))
        try:
            outputs = {"words": words.stream_words(held) * tiled.shares[number], "tile": words.stream_tile(held)}
        except Open:
            return self._counted(nest, held, tiles)
        program = Program(tape, outputs)
        found = program.run({name: self._input(name, tiles) for name in program.inputs}, tiled.count)
        return found["words"], found["tile"]

    def _input(self, name: str, tiles: Map_[int, Floats]) -> Any:
        """An input of a tape."""
        tiled = self.tiled
        kind, rest = name.split(" ", 1)
        match kind:
            case "extent":
                return float(tiled.team.sizes.extents[rest])
            case "scalar":
                return float(tiled.team.sizes.scalars[rest])
            case "tile":
                return tiles.get(int(rest.split(".")[1]), 1.0)
            case _:
                return tiled.leaves[rest]

    def _counted(self, nest: Nest, stream: Stream, tiles: Map_[int, Floats]) -> tuple[Floats, Floats]:
        tiled = self.tiled
        words, tile = np.empty(tiled.count), np.empty(tiled.count)
        for row in range(tiled.count):
            loops = tuple(
                Loop(rank=loop.rank, tile=int(tiles[axis][row])) if axis in tiles else loop
                for axis, loop in enumerate(nest.group.loops)
            )
            here = replace(nest, group=nest.group.model_copy(update={"loops": loops}))
            words[row], tile[row] = here.stream_words(stream), here.stream_tile(stream)
        return words, tile
