"""The instances of levels and arrays that share the work of a group: who does what part.

In: an architecture with several instances of some levels, the ranks of a group. Out: `Team`s: for each level that has several
instances below one of the level outside, a rank that is shared out among them (or none), by loops outside all others. Every
instance then does the same on a part of the positions: what the first does, on sizes of its own, tells the time; what all do, times
their number, the energy; words that all instances need at the same time are read once where they come from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..einsum.cascade import Cascade, Scan, Select
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.sizes import Sizes
from .architecture import Architecture
from .mapping import Loop
from .steps import iterated


def require_searchable(arch: Architecture) -> None:
    """Refuses (E531) architectures that the search does not cover."""
    ideal = all(network.multicast and network.reduction and network.bandwidth is None for network in arch.networks.values())
    if len(arch.memory) < 2:
        why = "no storage level on the chip"
    elif any(arch.path(array) != tuple(arch.memory) for array in arch.arrays):
        why = "levels that serve some arrays only"
    elif any(arch.fan_out(array) > 1 for array in arch.arrays):
        why = "several arrays below one instance of a level"
    elif not ideal:
        why = "networks that limit: without multicast, without reduction, or with a bandwidth"
    else:
        return
    raise EinsmithError(
        Diagnostic(
            "E531",
            f"architecture `{arch.name}` has {why}: the cost model and the simulator handle these; the search handles levels that "
            "serve all arrays, one array of each kind below each instance of the innermost level, and networks that do not limit",
        )
    )


@dataclass(frozen=True)
class Team:
    """Instances at work on one group."""

    arch: Architecture
    whole: Sizes
    loops: tuple[Loop, ...]
    """Outside all others, each over the instances of a level."""
    sizes: Sizes
    """What the first instance has to do: the largest part."""

    def level_of(self, loop: Loop) -> int:
        return list(self.arch.memory).index(str(loop.over))

    def _shared(self, loop: Loop) -> int:
        """Positions that a loop shares out."""
        outside = [o.tile for o in self.loops[: self.loops.index(loop)] if o.rank == loop.rank]
        return outside[-1] if outside else self.whole.extents[loop.rank]

    def parts(self, loop: Loop) -> int:
        """Instances that have something to do."""
        return math.ceil(self._shared(loop) / loop.tile)

    def least(self, loop: Loop) -> int:
        """How many times the work of the first instance all of them do at least."""
        parts = self.parts(loop)
        return parts if parts * loop.tile == self._shared(loop) else max(1, parts - 1)

    def times(self, level: str, ranks: frozenset[str], alike: bool) -> float:
        """How many times the words of one instance all instances of a level take or give; `alike`: also those that have no
        rank by which the instances differ."""
        at = list(self.arch.memory).index(level)
        found = 1.0
        for loop in self.loops:
            if loop.rank in ranks or (alike and self.level_of(loop) <= at):
                found *= self.least(loop)
        return found

    def instances(self, level: str) -> float:
        """How many instances of a level are at work."""
        at = list(self.arch.memory).index(level)
        return float(math.prod(self.parts(loop) for loop in self.loops if self.level_of(loop) <= at))

    def inside(self, level: str, ranks: frozenset[str]) -> int:
        """How many parts of a tensor with some ranks one instance of a level holds for the instances inside it."""
        at = list(self.arch.memory).index(level)
        return math.prod(self.parts(loop) for loop in self.loops if self.level_of(loop) > at and loop.rank in ranks)


def teams(cascade: Cascade, arch: Architecture, sizes: Sizes, names: frozenset[str]) -> Iterator[Team]:
    """All ways in which the instances may share the work of a group; first those that leave all others idle."""
    einsums = [einsum for einsum in cascade.einsums if einsum.output in names]
    used = frozenset().union(*map(iterated, einsums))
    ranks = [rank for rank in cascade.ranks if rank.name in used]
    barred = {cascade.tensor(einsum.output).iterates for einsum in einsums}
    barred |= {einsum.body.rank for einsum in einsums if isinstance(einsum.body, Scan | Select)}
    free = [rank.name for rank in ranks if rank.name not in barred and sizes.extents[rank.name] > 1]
    several = [level for level in arch.on_chip if arch.fan_out(level) > 1]
    for chosen in itertools.product([None, *free], repeat=len(several)):
        extents = dict(sizes.extents)
        loops = []
        for level, rank in zip(several, chosen, strict=True):
            if rank is not None:
                tile = math.ceil(extents[rank] / arch.fan_out(level))
                if tile == extents[rank]:
                    break
                extents[rank] = tile
                loops.append(Loop(rank=rank, tile=tile, over=level))
        else:
            for rank_ in cascade.ranks:
                if rank_.split is not None:
                    covered = extents[rank_.split.outer] * extents[rank_.split.inner]
                    extents[rank_.name] = min(extents[rank_.name], covered)
            yield Team(arch, sizes, tuple(loops), replace(sizes, extents=extents))
