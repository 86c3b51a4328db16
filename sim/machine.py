"""The machine: arrays, ports of storage levels and networks as resources, built from an architecture.

In: an `Architecture`. Out: a `Machine`, which names every resource, and says how long which of them are at work for words that are
moved. A level with one bandwidth for reads and writes has one port, one with a bandwidth for each has two; a level without a
bandwidth, and a network without one, never make anybody wait. Each instance of an array, level or network is a resource of its own.

A task holds one resource and asks for others (see `task`). Arrays ask for ports and networks, an outer level's port asks for those
further inwards, so resources have an order (`rank`) in which nobody waits for an earlier one: holding and waiting cannot deadlock.
"""

from __future__ import annotations

from functools import cached_property

from ..mapper.architecture import Architecture
from .task import Demand, Move, grained

_PORTS = {"read": "read", "written": "write"}
"""The port that a move needs, where reads and writes have one each."""


class Machine:
    """Resources of an architecture."""

    def __init__(self, arch: Architecture) -> None:
        self.arch = arch
        self._known: dict[tuple[Move, ...], tuple[Demand, ...]] = {}

    def named(self, component: str, instance: int, port: str = "") -> str:
        """The name of a resource: `mxu[2]`, `dram`, `buffer read`."""
        return self._component(component, instance) + (f" {port}" if port else "")

    def _component(self, component: str, instance: int) -> str:
        return f"{component}[{instance}]" if self._counts[component] > 1 else component

    @cached_property
    def _counts(self) -> dict[str, int]:
        arch = self.arch
        counts = {name: arch.instances(name) for name in (*arch.memory, *arch.arrays)}
        return counts | {name: arch.instances(network.outer) for name, network in arch.networks.items()}

    @cached_property
    def ports(self) -> dict[str, dict[str, float]]:
        """For each level and network that limits anything, its ports and the cycles that a word takes there."""
        per_byte = self.arch.clock_hz * self.arch.word_bytes
        found: dict[str, dict[str, float]] = {}
        for name, level in self.arch.memory.items():
            rates = {"": level.bandwidth, "read": level.read_bandwidth, "write": level.write_bandwidth}
            found[name] = {port: per_byte / rate for port, rate in rates.items() if rate is not None}
        for name, network in self.arch.networks.items():
            found[name] = {} if network.bandwidth is None else {"": per_byte / network.bandwidth}
        return found

    @cached_property
    def rank(self) -> dict[str, int]:
        """Arrays first, then every level's ports and the networks that begin there, from the outermost inwards."""
        order: list[str] = [self.named(name, i) for name in self.arch.arrays for i in range(self._counts[name])]
        for name in self.arch.memory:
            begins = [each for each, network in self.arch.networks.items() if network.outer == name]
            for component in (name, *begins):
                order += [self.named(component, i, port) for i in range(self._counts[component]) for port in self.ports[component]]
        return {name: at for at, name in enumerate(order)}

    def demands(self, moves: tuple[Move, ...]) -> tuple[Demand, ...]:
        """Which resources are at work for words that move, for how many cycles; the outermost first."""
        if moves not in self._known:
            total: dict[str, float] = {}
            for component, instance, way, _, words in moves:
                for port, cycles in self.ports[component].items():
                    if not port or port == _PORTS.get(way):
                        name = self.named(component, instance, port)
                        total[name] = total.get(name, 0.0) + words * cycles
            work = {name: grained(cycles) for name, cycles in total.items()}
            self._known[moves] = tuple(sorted(((n, c) for n, c in work.items() if c), key=lambda demand: self.rank[demand[0]]))
        return self._known[moves]


def component(resource: str) -> str:
    """The array, level or network that a resource belongs to."""
    return resource.split(" ")[0].split("[")[0]
