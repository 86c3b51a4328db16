"""A task: one piece of work that a machine does for one tile, and what it waits for.

Tasks are made in program order and wait only for earlier ones, so they form a DAG: no run can deadlock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Cause: TypeAlias = Literal["data", "predecessor", "order", "space", "flight"]
"""`data`: a transfer; `predecessor`: a value; `order`: its turn on the array; `space`: a buffer slot; `flight`: earlier tiles."""
Index: TypeAlias = tuple[int, ...]
Move: TypeAlias = tuple[str, int, str, str, float]
"""(storage level or network, its instance, `read`, `written` or `sent`, tensor, words)."""
Demand: TypeAlias = tuple[str, float]
"""(resource, cycles)."""


@dataclass(slots=True)
class Task:
    """One piece of work."""

    number: int
    name: str
    kind: Literal["compute", "load", "store"]
    resource: str
    """Array, port or network that it holds until all of its work is done; empty if nothing limits it."""
    cycles: float
    """How long it works there."""
    latency: float
    """From the end of its work until its result is there."""
    tile: Index
    group: int = 0
    """Position of its fusion group among those that run together."""
    waits: list[tuple[int, Cause]] = field(default_factory=list)
    """Earlier tasks, and why."""
    trails: list[tuple[int, float]] = field(default_factory=list)
    """(earlier task, cycles after its start from which this one may begin): it takes the place of words as they are done with."""
    also: tuple[Demand, ...] = ()
    """Ports and networks that it asks for as it begins, and works on as they come free."""
    moves: tuple[Move, ...] = ()
    """Words that it moves."""
    words: float = 0.0
    """Of a transfer: the words of its tile."""
    planned: float = 0.0
    """When it would start if every tile took the model's share of the time: among tasks that can run, the earliest goes first."""


GRAIN = 2.0**-24
"""Times are multiples of this fraction of a cycle, so that sums are exact and what comes at the same time does so in every tile."""


def grained(cycles: float) -> float:
    """A duration in whole grains."""
    return round(cycles / GRAIN) * GRAIN
