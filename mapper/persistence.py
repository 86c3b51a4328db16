"""Persistence: program instances that walk tiles, in place of one instance a tile.

In: a program, then tile sizes and stages. Out: how many tiles ahead an instance can fetch while it computes one, and the shared
memory that takes. Where a kernel walks a rank, its loop is what is fetched ahead, and the hardware gives the next tile to a free
multiprocessor at least as evenly as a fixed share would; so walking tiles gains nothing that is predicted. Where a kernel has no
loop, each tile waits for memory once: the loop over tiles is then the one whose loads are fetched ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ..einsum.cascade import accesses
from .precision import Precision
from .products import body_of, products
from .program import Program

COUNTERS = 6
"""Registers a thread for the number of the tile and what it is compared with."""


@dataclass(frozen=True)
class Walk:
    """How program instances walk tiles."""

    programs: int
    """Program instances at most: as many as run at one time."""
    prefetched: int
    """Stages of the loop over tiles: 1 if nothing is fetched ahead of the tile that needs it."""

    def as_json(self) -> dict[str, Any]:
        return {"programs": self.programs, "stages": self.prefetched}


class Persistence:
    """The loop over tiles of one program."""

    def __init__(self, program: Program, precision: Precision) -> None:
        self.program = program
        self.straight = not program.loops and not products(program)
        """Is there neither a loop nor a matrix product, so that the tiles of the next instance can be fetched ahead?"""
        self.reads = {
            (access.tensor, access.indices): (
                {"float": precision.by_lanes(access.tensor), "int": 4, "bool": 1}[program.cascade.tensor(access.tensor).dtype],
                tuple(a for a in program.axes if a in program.axes_of(access)),
            )
            for phase in program.phases
            for einsum in body_of(phase)
            for access in accesses(einsum.body)
            if program.cascade.tensor(access.tensor).kind == "input"
        }
        """Tiles that are read -> bytes of a value, axes."""

    def ahead(self, stages: int) -> int:
        """Stages of the loop over tiles."""
        return stages if self.straight else 1

    def buffers(self, blocks: Mapping[str, int], stages: int) -> int:
        """Bytes of shared memory for tiles on their way."""
        tiles = sum(element * prod(blocks[a] for a in axes) for element, axes in self.reads.values() if axes)
        return (self.ahead(stages) - 1) * tiles
