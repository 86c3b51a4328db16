"""The cost of a mapping: latency, traffic, energy, area, utilization, and what bounds it.

In: a cascade, an architecture, a mapping, sizes. Out: a `Cost`. Everything is counted from the placed loop nest (see `nest`);
nothing is fitted. What the model leaves out stands in the design note on mappings.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass
from typing import Any

from ..einsum.cascade import Cascade
from ..einsum.display import Displayed
from .accesses import Accesses, Link, accesses, operand_words
from .architecture import Architecture, Level
from .mapping import Mapping
from .nest import Nest, Placed, Step, place
from .residency import taken
from .timing import Timing, timing


@dataclass(frozen=True)
class EinsumCost:
    """What one Einsum costs."""

    array: str
    cycles: float
    """Cycles that it keeps its array busy."""
    executions: float
    """Tiles in which it runs."""
    operations: dict[str, float]
    """Of each functional unit."""
    energy_pj: float
    """Of functional units and registers."""
    useful_cycles: float
    """Cycles it would take with every lane at work."""


@dataclass(frozen=True)
class LevelCost:
    """What one group asks of one storage level."""

    read_words: dict[str, float]
    """Words read by tensor, of all instances."""
    written_words: dict[str, float]
    cycles: float | None
    """Cycles that the ports of its busiest instance need; none: not limited."""
    taken: int
    """Bytes of one instance that are taken at once."""


@dataclass(frozen=True)
class GroupCost:
    """What one fusion group costs."""

    timing: Timing
    traffic_words: dict[str, dict[str, float]]
    """Words across the boundary of the backing store: `{"read": {tensor: n}, "write": {tensor: n}}`."""
    buffer_words: dict[str, float]
    """Words `read` and `written` at the outermost level on the chip."""
    buffer_need: int
    """Bytes of it that are taken at once."""
    levels: dict[str, LevelCost]
    """Every storage level, from the outermost inwards."""
    einsums: dict[str, EinsumCost]
    energy_parts: dict[str, float]
    """pJ by component."""

    @property
    def energy_pj(self) -> float:
        return sum(self.energy_parts.values())


@dataclass(frozen=True)
class Cost(Displayed):
    """The cost of a mapped cascade."""

    placed: Placed
    groups: tuple[GroupCost, ...]

    @property
    def energy_parts(self) -> dict[str, float]:
        """pJ by component: storage levels, then for each array its units and its registers."""
        return {name: sum(group.energy_parts[name] for group in self.groups) for name in self.groups[0].energy_parts}

    @property
    def arch(self) -> Architecture:
        return self.placed.arch

    @property
    def cycles(self) -> float:
        return max(self.together.values()) if self.together else sum(group.timing.cycles for group in self.groups)

    @property
    def together(self) -> dict[str, float]:
        """Where groups work at the same time, cycles of each resource in all, and of the order of the work of each group; else
        empty."""
        if not self.placed.mapping.pipelined_loops:
            return {}
        found: dict[str, float] = {}
        for number, group in enumerate(self.groups, 1):
            for name, cycles in (group.timing.busy | group.timing.transfers).items():
                found[name] = found.get(name, 0.0) + cycles
            found[f"dependences of group {number}"] = group.timing.dependences
        return found

    @property
    def fill_cycles(self) -> float:
        """Cycles more before each group's first tile is through and after its last: not in `cycles`, as in published models."""
        return sum(group.timing.fill for group in self.groups)

    @property
    def latency_s(self) -> float:
        """In the steady state, without `fill_cycles`."""
        return self.cycles / self.arch.clock_hz

    @property
    def energy_pj(self) -> float:
        return sum(self.energy_parts.values())

    @property
    def edp(self) -> float:
        """Energy-delay product, pJ s."""
        return self.energy_pj * self.latency_s

    @property
    def traffic_bytes(self) -> float:
        words = sum(sum(by.values()) for group in self.groups for by in group.traffic_words.values())
        return words * self.arch.word_bytes

    @property
    def area_um2(self) -> float:
        return sum(self.arch.area_um2.values())

    @property
    def utilization(self) -> dict[str, float]:
        """Share of the lane-cycles of each array that do useful work."""
        useful = dict.fromkeys(self.arch.arrays, 0.0)
        for group in self.groups:
            for einsum in group.einsums.values():
                useful[einsum.array] += einsum.useful_cycles
        return {name: cycles / self.cycles if self.cycles else 0.0 for name, cycles in useful.items()}

    @property
    def per_einsum(self) -> dict[str, EinsumCost]:
        return {name: einsum for group in self.groups for name, einsum in group.einsums.items()}

    def as_json(self) -> dict[str, Any]:
        return {
            "latency_s": self.latency_s,
            "cycles": self.cycles,
            "fill_cycles": self.fill_cycles,
            "energy_pj": self.energy_pj,
            "traffic_bytes": self.traffic_bytes,
            "area_um2": self.area_um2,
            "utilization": self.utilization,
            "per_einsum": {
                name: {
                    "array": e.array, "cycles": e.cycles, "executions": e.executions, "operations": e.operations,
                    "energy_pj": e.energy_pj, "useful_cycles": e.useful_cycles,
                }
                for name, e in self.per_einsum.items()
            },
            "together": self.together,
            "energy_parts": self.energy_parts,
            "area_parts": self.arch.area_parts,
            "groups": [
                {
                    "cycles": group.timing.cycles, "bound_by": group.timing.bound_by, "bounds": group.timing.bounds,
                    "fill_cycles": group.timing.fill,
                    "traffic_words": group.traffic_words, "buffer_words": group.buffer_words,
                    "buffer_need_bytes": group.buffer_need,
                    "levels": {
                        name: {
                            "read_words": level.read_words, "written_words": level.written_words, "cycles": level.cycles,
                            "taken_bytes": level.taken,
                        }
                        for name, level in group.levels.items()
                    },
                }
                for group in self.groups
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        return report(self)


def model(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    traces: Map_[str, Any] | None = None,
) -> Cost:
    """The cost of a mapping; `traces`: values of tensors that indices read. Raises EinsmithError where the mapping is illegal or
    does not fit."""
    return cost(place(cascade, arch, mapping, sizes, params, traces))


def cost(placed: Placed) -> Cost:
    """The cost of a placed mapping."""
    return Cost(placed, tuple(group_cost(nest) for nest in placed.nests))


def group_cost(nest: Nest) -> GroupCost:
    arch, backing = nest.arch, nest.arch.backing[0]
    moved = accesses(nest)
    outside = moved.levels[backing]
    writes = {tensor: outside["written"][tensor] for tensor in sorted(outside["written"])}
    buffer = arch.on_chip[0] if arch.on_chip else backing
    levels = {
        level: LevelCost(
            moved.levels[level]["read"], moved.levels[level]["written"], port_cycles(nest, level, moved),
            taken(nest, level) if level in arch.on_chip else 0,
        )
        for level in arch.memory
    }  # fmt: skip
    transfers = {level: found.cycles for level, found in levels.items() if found.cycles is not None}
    for name, network in arch.networks.items():
        if network.bandwidth is not None:
            link = moved.links.get((network.outer, network.inner), Link())
            sides = arch.instances(network.outer) if network.outer != backing else 1
            transfers[name] = link.sent * arch.word_bytes * arch.clock_hz / network.bandwidth / sides
    per_word = (arch.backing[1].seconds(arch.word_bytes, 0.0) or 0.0) * arch.clock_hz
    einsums = {step.name: _einsum(nest, step) for step in nest.steps if step.work or not step.initial}
    return GroupCost(
        max((timing(each, transfers, per_word) for each in nest.instances(nest.spread)), key=_longest),
        {"read": outside["read"], "write": writes},
        {"read": moved.read(buffer), "written": moved.written(buffer)},
        levels[buffer].taken,
        levels,
        einsums,
        _energy(nest, moved, einsums),
    )


def _longest(time: Timing) -> tuple[float, ...]:
    """What makes one instance take longer than another; transfers may bound them all alike."""
    return time.cycles, time.dependences, sum(time.busy.values())


def port_cycles(nest: Nest, level: str, moved: Accesses) -> float | None:
    """Cycles that the ports of the busiest instance of a level need; None if nothing limits them."""
    arch = nest.arch
    shares = [moved]
    if any(nest.trips[axis] > 1 for axis in nest.spread_to(level)):
        shares = [accesses(each) for each in nest.instances(nest.spread_to(level))]
    times = [
        arch.memory[level].seconds(share.read(level) * arch.word_bytes, share.written(level) * arch.word_bytes) for share in shares
    ]
    return None if times[0] is None else max(time for time in times if time is not None) * arch.clock_hz


def _einsum(nest: Nest, step: Step) -> EinsumCost:
    operations: dict[str, float] = {}
    useful = 0.0
    lanes = step.array.lanes * nest.arch.instances(step.binding.array)
    for item in step.work:
        points = nest.points(step, item)
        useful += points * nest.item_cycles(step, item) / lanes
        for unit, count in (step.array.expand(item.operation) or {}).items():
            operations[unit] = operations.get(unit, 0.0) + points * count
    energy = sum(count * (step.array.units[unit].energy_pj + register_pj(step, unit)) for unit, count in operations.items())
    busy = max(each.busy(step) for each in nest.instances(nest.spread))
    return EinsumCost(step.binding.array, busy, nest.executions(step), operations, energy, useful)


def register_pj(step: Step, unit: str) -> float:
    """Register energy of one operation: operands read (three of a MAC, else two), one result written."""
    registers = step.array.registers
    energy = (3 if unit == "mac" else 2) * registers.read_pj + registers.write_pj
    return energy if registers.counted == "all" else energy / step.array.lanes


def step_pj(nest: Nest, step: Step) -> float:
    """Energy that a step takes wherever the tensors of a tile stay: units, registers, operands that storage levels hold anyway."""
    total = _einsum(nest, step).energy_pj
    words: dict[str, float] = {}
    apart = nest.spread
    for stream in nest.streams:
        if any(reader.name == step.name for reader in stream.readers):
            level = [place for place, _ in stream.chain if place in nest.arch.memory]
            here = level[-1] if level else nest.arch.backing[0]
            words[here] = words.get(here, 0.0) + operand_words(nest, step, stream.tensor, stream.indices, apart)
    for access in step.reads:
        resident = nest.residents.get(access.tensor)
        if resident is not None and resident.depth < len(nest.group.loops) and resident.place in nest.arch.memory:
            asked = operand_words(nest, step, access.tensor, access.indices, nest.spread_to(resident.place))
            words[resident.place] = words.get(resident.place, 0.0) + asked
    return total + sum(level_pj(nest.arch, nest.arch.memory[level], count, 0.0) for level, count in words.items())


def _energy(nest: Nest, moved: Accesses, einsums: dict[str, EinsumCost]) -> dict[str, float]:
    arch = nest.arch
    parts = {name: level_pj(arch, level, moved.read(name), moved.written(name)) for name, level in arch.memory.items()}
    for name, network in arch.networks.items():
        link = moved.links.get((network.outer, network.inner), Link())
        parts[name] = link.sent * network.pj_per_word + link.delivered * network.pj_per_hop
    for name in arch.arrays:
        parts[name] = parts[f"{name} registers"] = 0.0
    for step in nest.steps:
        if step.name in einsums:
            for unit, count in einsums[step.name].operations.items():
                parts[step.binding.array] += count * step.array.units[unit].energy_pj
                parts[f"{step.binding.array} registers"] += count * register_pj(step, unit)
    return parts


def level_pj(arch: Architecture, level: Level, read: float, written: float) -> float:
    """Energy of words read and written at a storage level."""
    return (read * level.read_pj + written * level.write_pj) * arch.word_bytes / level.access_bytes


# --- report -----------------------------------------------------------------------------------------------------------


def seconds(value: float) -> str:
    """A time with a unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"


def amount(value: float) -> str:
    """A number of bytes with a binary prefix."""
    for prefix, scale in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if value >= scale:
            return f"{value / scale:.4g} {prefix}B"
    return f"{value:.4g} B"


def joules(picojoules: float) -> str:
    for unit, scale in (("J", 1e12), ("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if picojoules >= scale:
            return f"{picojoules / scale:.4g} {unit}"
    return f"{picojoules:.4g} pJ"


def report(cost: Cost) -> str:
    """The cost as a text."""
    arch, total = cost.arch, cost.cycles or 1.0
    lines = [
        f"{cost.placed.cascade.name} on {arch.name}, mapping {cost.placed.mapping.name}",
        f"  latency      {seconds(cost.latency_s)}  ({cost.cycles:,.0f} cycles at {arch.clock_hz / 1e6:,.0f} MHz)",
        f"               and {cost.fill_cycles:,.0f} cycles of fill and drain ({cost.fill_cycles / (cost.cycles or 1):.1%})",
        f"  energy       {joules(cost.energy_pj)}",
        f"  traffic      {amount(cost.traffic_bytes)} across the boundary of `{arch.backing[0]}`",
        f"  area         {cost.area_um2 / 1e6:,.4g} mm2",
        "  utilization  " + ", ".join(f"{name} {share:.1%}" for name, share in cost.utilization.items()),
    ]
    if cost.together:
        lines.append(
            f"groups work at the same time: {cost.cycles:,.0f} cycles, bound by {max(cost.together, key=cost.together.__getitem__)}"
        )
        lines += [f"    {name:24} {cycles:16,.0f} cycles" for name, cycles in cost.together.items()]
    for number, group in enumerate(cost.groups, 1):
        time = group.timing
        lines.append(f"group {number}: {time.cycles:,.0f} cycles, bound by {time.bound_by}")
        lines += [
            f"    {name:14} {cycles:16,.0f} cycles  {cycles / (time.cycles or 1):6.1%}" for name, cycles in time.bounds.items()
        ]
        lines += [line for name in arch.memory for line in _level_lines(arch, name, group.levels[name])]
    width = max((len(name) for name in cost.per_einsum), default=6)
    lines.append(f"{'Einsum':{width}}  {'array':10} {'cycles':>16} {'share':>7}  operations")
    for name, einsum in cost.per_einsum.items():
        listed = ", ".join(f"{unit} {count:.4g}" for unit, count in einsum.operations.items())
        lines.append(f"{name:{width}}  {einsum.array:10} {einsum.cycles:16,.0f} {einsum.cycles / total:7.1%}  {listed}")
    lines.append("energy by component")
    lines += [f"    {name:20} {joules(part):>12}  {part / (cost.energy_pj or 1):6.1%}" for name, part in cost.energy_parts.items()]
    if area := {name: part for name, part in arch.area_parts.items() if part}:
        lines.append("area by component")
        lines += [f"    {name:20} {part / 1e6:8,.4g} mm2  {part / cost.area_um2:6.1%}" for name, part in area.items()]
    return "\n".join(lines)


def _level_lines(arch: Architecture, name: str, level: LevelCost) -> list[str]:
    """What a group reads and writes at a storage level, and what it takes of it."""
    lines = []
    for way, words in (("read", level.read_words), ("written", level.written_words)):
        listed = ", ".join(f"{tensor} {amount(count * arch.word_bytes)}" for tensor, count in words.items() if count)
        total = amount(sum(words.values()) * arch.word_bytes)
        lines.append(f"    {name:14} {total:>10} {way}" + (f": {listed}" if listed else ""))
    if name in arch.on_chip:
        size = arch.memory[name].size
        have = f" of {amount(size)}" if size else ""
        each = f" in each of {arch.instances(name)}" if arch.instances(name) > 1 else ""
        lines.append(f"    {name:14} {amount(level.taken):>10} taken{have}{each}")
    return lines
