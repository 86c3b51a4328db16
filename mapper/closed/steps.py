"""Steps of a group: cycles and points of its Einsums, as formulas.

In: tiles. Out: for each step the cycles of all its tiles, of its longest one, how often it runs, the points it does.
"""

from __future__ import annotations

from ..nest import Step
from ..operations import Work
from ..tape import Value, minimum, product, total
from .tiles import Tiles


class Steps:
    """The steps of one group."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles, self.nest, self.hardware = tiles, tiles.nest, tiles.hardware

    def busy(self, step: Step) -> Value:
        """Cycles in which a step keeps its array at work, in all tiles."""
        tiles = self.tiles
        found: Value = 0.0
        spatial = step.binding.ranks
        for item in step.work:
            term = tiles.folds(step, item.ranks) * product(tiles.extent(rank) for rank in sorted(item.ranks - spatial))
            last = step.reduced & self.nest.cut if item.after else frozenset()
            term = term * product(tiles.existing(rank) for rank in sorted(step.ranks - item.ranks - last))
            found = found + term * self.hardware.cycles(step.binding.array, item.operation)
        if (fill := self._fill(step)) is not None:
            rest = product(tiles.existing(rank) for rank in sorted(step.ranks - spatial))
            found = found + fill * tiles.folds(step, step.ranks) * rest
        return found

    def longest(self, step: Step) -> Value:
        """Cycles of a step in its largest tile."""
        tiles = self.tiles
        found: Value = 0.0
        for item in step.work:
            term = tiles.most_folds(step, item.ranks) * product(
                tiles.size(rank) for rank in sorted(item.ranks - step.binding.ranks)
            )
            found = found + term * self.hardware.cycles(step.binding.array, item.operation)
        if (fill := self._fill(step)) is not None:
            found = found + fill * tiles.most_folds(step, step.ranks)
        return found

    def _fill(self, step: Step) -> Value | None:
        if step.array.folds_overlap or not step.work:
            return None
        sides = self.hardware.sides(step.binding.array)
        return total(sides) - float(len(sides)) + (sides[0] if step.stationary else 0.0)

    def executions(self, step: Step) -> Value:
        """Tiles in which a step runs."""
        return self.tiles.number_of(step.ranks)

    def points(self, step: Step, item: Work) -> Value:
        """Points at which an operation of a step is done, in all tiles."""
        tiles = self.tiles
        count = product(tiles.extent(rank) for rank in sorted(item.ranks))
        count = count * tiles.repeats(step.ranks - item.ranks - (step.reduced if item.after else frozenset()))
        for rank in self.nest.cascade.domain_splits(item.ranks):
            assert rank.split is not None
            count = count * tiles.extent(rank.name) / (tiles.extent(rank.split.outer) * tiles.extent(rank.split.inner))
        return count

    def ripple(self, step: Step) -> Value:
        """Cycles until the reductions of a step have come out of the array."""
        hops: Value = 0.0
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            here = [rank for rank in step.binding.along(side) if rank in step.reduced]
            if here:
                hops = hops + minimum(lanes, product(self.tiles.size(rank) for rank in here))
        return hops * self.hardware[f"{step.binding.array}.ripple_cycles_per_hop"] if hops != 0.0 else 0.0
