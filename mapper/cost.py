"""The cost of a mapping: latency, traffic, energy, area, utilization, and what bounds it.

In: a cascade, an architecture, a mapping, sizes. Out: a `Cost`. Everything is counted from the placed loop nest (see `nest`);
nothing is fitted. What the model leaves out stands in the design note on mappings.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass
from typing import Any

from ..einsum.cascade import Cascade, free_ranks
from .architecture import Architecture, Level
from .mapping import Mapping
from .nest import Nest, Placed, Step, Stream, buffer_needs, place
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
class GroupCost:
    """What one fusion group costs."""

    timing: Timing
    traffic_words: dict[str, dict[str, float]]
    """Words across the boundary of the backing store: `{"read": {tensor: n}, "write": {tensor: n}}`."""
    buffer_words: dict[str, float]
    """Words `read` and `written` at the buffer."""
    buffer_need: int
    """Bytes of the buffer that are taken at once."""
    einsums: dict[str, EinsumCost]
    energy_parts: dict[str, float]
    """pJ by component."""

    @property
    def energy_pj(self) -> float:
        return sum(self.energy_parts.values())


@dataclass(frozen=True)
class Cost:
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
        return sum(group.timing.cycles for group in self.groups)

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
            "energy_parts": self.energy_parts,
            "area_parts": self.arch.area_um2,
            "groups": [
                {
                    "cycles": group.timing.cycles, "bound_by": group.timing.bound_by, "bounds": group.timing.bounds,
                    "fill_cycles": group.timing.fill,
                    "traffic_words": group.traffic_words, "buffer_words": group.buffer_words,
                    "buffer_need_bytes": group.buffer_need,
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
) -> Cost:
    """The cost of a mapping. Raises EinsmithError where the mapping is illegal or does not fit."""
    return cost(place(cascade, arch, mapping, sizes, params))


def cost(placed: Placed) -> Cost:
    """The cost of a placed mapping."""
    return Cost(placed, tuple(group_cost(nest) for nest in placed.nests))


def group_cost(nest: Nest) -> GroupCost:
    backing, level = nest.arch.backing
    buffer, inner = nest.arch.buffer
    reads: dict[str, float] = {}
    for stream in nest.streams:
        reads[stream.tensor] = reads.get(stream.tensor, 0.0) + nest.stream_words(stream)
    writes = {tensor: float(nest.tensor_words(tensor)) for tensor in sorted(nest.outgoing)}
    traffic = {"read": reads, "write": writes}
    at_buffer = _buffer_words(nest, sum(reads.values()))
    transfers: dict[str, float] = {}
    per_cycle = nest.arch.word_bytes * nest.arch.clock_hz
    per_word = per_cycle / level.bandwidth if level.bandwidth is not None else 0.0
    if level.bandwidth is not None:
        transfers[backing] = (sum(reads.values()) + sum(writes.values())) * per_word
    if inner.bandwidth is not None:
        transfers[buffer] = sum(at_buffer.values()) * per_cycle / inner.bandwidth
    einsums = {step.name: _einsum(nest, step) for step in nest.steps if step.work or not step.initial}
    need = sum(item.words * item.slots for item in buffer_needs(nest)) * nest.arch.word_bytes
    return GroupCost(
        timing(nest, transfers, per_word), traffic, at_buffer, need, einsums, _energy(nest, traffic, at_buffer, einsums)
    )


def _einsum(nest: Nest, step: Step) -> EinsumCost:
    operations: dict[str, float] = {}
    useful = 0.0
    for item in step.work:
        points = nest.points(step, item)
        useful += points * nest.item_cycles(step, item) / step.array.lanes
        for unit, count in (step.array.expand(item.operation) or {}).items():
            operations[unit] = operations.get(unit, 0.0) + points * count
    energy = sum(count * (step.array.units[unit].energy_pj + register_pj(step, unit)) for unit, count in operations.items())
    return EinsumCost(step.binding.array, nest.busy(step), nest.executions(step), operations, energy, useful)


def register_pj(step: Step, unit: str) -> float:
    """Register energy of one operation: operands read (three of a MAC, else two), one result written."""
    registers = step.array.registers
    energy = (3 if unit == "mac" else 2) * registers.read_pj + registers.write_pj
    return energy if registers.counted == "all" else energy / step.array.lanes


def _buffer_words(nest: Nest, fetched: float) -> dict[str, float]:
    """Words read and written at the buffer: fills and drains, operands and results of every tile."""
    name, _ = nest.arch.buffer
    read, written = 0.0, fetched
    for stream in nest.streams:
        for reader in stream.readers:
            read += _operand_words(nest, reader, stream)
    for resident in nest.residents.values():
        if resident.place != name:
            continue
        made = _result_words(nest, resident.producer, resident.tensor)
        written += made
        if resident.producer.reduced & nest.cut:  # a partial result is read back to be added to
            read += made - _begun_words(nest, resident.producer, resident.tensor)
        for reader in resident.readers:
            for access in reader.reads:
                if access.tensor == resident.tensor:
                    read += _operand_words(nest, reader, Stream(resident.tensor, access.indices, (reader,), len(nest.group.loops)))
        if resident.leaves:
            read += nest.tensor_words(resident.tensor)
    return {"read": read, "written": written}


def step_pj(nest: Nest, step: Step) -> float:
    """Energy that a step takes wherever the tensors of a tile stay: units, registers, operands that the buffer holds anyway."""
    total = _einsum(nest, step).energy_pj
    words = 0.0
    for stream in nest.streams:
        if any(reader.name == step.name for reader in stream.readers):
            words += _operand_words(nest, step, stream)
    for access in step.reads:
        resident = nest.residents.get(access.tensor)
        if resident is not None and resident.depth < len(nest.group.loops):
            words += _operand_words(nest, step, Stream(access.tensor, access.indices, (step,), len(nest.group.loops)))
    return total + level_pj(nest.arch, nest.arch.buffer[1], words, 0.0)


def _operand_words(nest: Nest, reader: Step, stream: Stream) -> float:
    """Words that a step reads of an operand: its tile once in every tile, again for each fold that does not move it."""
    ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
    factors = []
    for low, high in nest.box(stream.tensor, stream.indices, len(nest.group.loops)):
        length = high - low + 1
        factors.append(length.clip(0))
    declared = nest.cascade.tensor(stream.tensor)
    if declared.iterates is not None:
        del factors[declared.ranks.index(declared.iterates)]
    factors += nest.folds(reader, reader.binding.ranks - ranks)
    factors += nest.present(reader.ranks - ranks)
    live = nest.live((reader,))
    return nest.total(factors if live is None else [*factors, live], nest.relevant(reader))


def _result_words(nest: Nest, step: Step, tensor: str) -> float:
    declared = nest.cascade.tensor(tensor)
    factors = [nest.span(rank)[1] for rank in declared.ranks if rank != declared.iterates]
    factors += nest.present(step.ranks - frozenset(declared.ranks))
    live = nest.live((step,))
    return nest.total(factors if live is None else [*factors, live], nest.relevant(step))


def _begun_words(nest: Nest, step: Step, tensor: str) -> float:
    """Words of a reduction's results as they are begun: in the first tile that adds something to them."""
    declared = nest.cascade.tensor(tensor)
    factors = [nest.span(rank)[1] for rank in declared.ranks if rank != declared.iterates]
    along = tuple(axis for axis in nest.relevant(step) if nest.group.loops[axis].rank in step.reduced)
    live = nest.live((step,))
    if live is not None:
        factors.append(live.any(axis=along, keepdims=True))
    return nest.total(factors, tuple(axis for axis in nest.relevant(step) if axis not in along))


def _energy(
    nest: Nest, traffic: dict[str, dict[str, float]], at_buffer: dict[str, float], einsums: dict[str, EinsumCost]
) -> dict[str, float]:
    arch = nest.arch
    parts = {
        arch.backing[0]: level_pj(arch, arch.backing[1], sum(traffic["read"].values()), sum(traffic["write"].values())),
        arch.buffer[0]: level_pj(arch, arch.buffer[1], at_buffer["read"], at_buffer["written"]),
    }
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


def amount(value: float, unit: str) -> str:
    """A number of bytes with a binary prefix."""
    for prefix, scale in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if value >= scale:
            return f"{value / scale:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


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
        f"  traffic      {amount(cost.traffic_bytes, 'B')} across the boundary of `{arch.backing[0]}`",
        f"  area         {cost.area_um2 / 1e6:,.4g} mm2",
        "  utilization  " + ", ".join(f"{name} {share:.1%}" for name, share in cost.utilization.items()),
    ]
    size = arch.buffer[1].size
    for number, group in enumerate(cost.groups, 1):
        time = group.timing
        lines.append(f"group {number}: {time.cycles:,.0f} cycles, bound by {time.bound_by}")
        lines += [
            f"    {name:14} {cycles:16,.0f} cycles  {cycles / (time.cycles or 1):6.1%}" for name, cycles in time.bounds.items()
        ]
        have = f" of {amount(size, 'B')}" if size else ""
        lines.append(f"    {arch.buffer[0]:14} {amount(group.buffer_need, 'B')}{have} taken")
        for way, words in group.traffic_words.items():
            listed = ", ".join(f"{name} {amount(count * arch.word_bytes, 'B')}" for name, count in words.items())
            lines.append(f"    {way:14} {listed or 'nothing'}")
    width = max((len(name) for name in cost.per_einsum), default=6)
    lines.append(f"{'Einsum':{width}}  {'array':10} {'cycles':>16} {'share':>7}  operations")
    for name, einsum in cost.per_einsum.items():
        listed = ", ".join(f"{unit} {count:.4g}" for unit, count in einsum.operations.items())
        lines.append(f"{name:{width}}  {einsum.array:10} {einsum.cycles:16,.0f} {einsum.cycles / total:7.1%}  {listed}")
    lines.append("energy by component")
    lines += [f"    {name:20} {joules(part):>12}  {part / (cost.energy_pj or 1):6.1%}" for name, part in cost.energy_parts.items()]
    return "\n".join(lines)
