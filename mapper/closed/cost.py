"""The cost of a group: everything that a `GroupCost` says, by name, as formulas."""

from __future__ import annotations

from ..nest import Nest, Stream
from ..tape import Tape, Value, maximum, total
from .room import Room
from .steps import Steps
from .tiles import Tiles
from .times import Times
from .words import Words


class Closed:
    """The cost of one group. `one`: loops with tile 1."""

    def __init__(self, nest: Nest, tape: Tape, one: frozenset[int]) -> None:
        self.nest, self.tiles = nest, Tiles(nest, tape, one)
        self.hardware, self.group = self.tiles.hardware, self.tiles.group
        self.steps, self.words = Steps(self.tiles), Words(self.tiles)
        self.times, self.room = Times(self.steps, self.words), Room(self.words)
        self.in_flight = tape.input(f"in_flight {nest.number}")

    def cost(self) -> dict[str, Value]:
        """Everything that a `GroupCost` says, by name."""
        nest, hardware = self.nest, self.hardware
        backing, buffer = nest.arch.backing[0], nest.arch.buffer[0]
        reads: dict[str, Value] = {}
        for stream in nest.streams:
            reads[stream.tensor] = reads.get(stream.tensor, 0.0) + self.words.stream_words(stream)
        writes = {tensor: self.words.tensor_words(tensor) for tensor in sorted(nest.outgoing)}
        read, written = total(reads.values()), total(writes.values())
        buffer_read, buffer_written = self._buffer_words(read)
        per_cycle = hardware["word_bytes"] * hardware["clock_hz"]
        per_word = per_cycle / hardware[f"{backing}.bandwidth"]
        transfers = {
            backing: (read + written) * per_word,
            buffer: (buffer_read + buffer_written) * per_cycle / hardware[f"{buffer}.bandwidth"],
        }
        busy: dict[str, Value] = dict.fromkeys(nest.arch.arrays, 0.0)
        useful: dict[str, Value] = dict.fromkeys(nest.arch.arrays, 0.0)
        energy: dict[str, Value] = {
            backing: hardware.level_pj(backing, read, written), buffer: hardware.level_pj(buffer, buffer_read, buffer_written)
        }  # fmt: skip
        for name in nest.arch.arrays:
            energy[name] = energy[f"{name} registers"] = 0.0
        found: dict[str, Value] = {}
        for step in nest.steps:
            name = step.binding.array
            mine = self.steps.busy(step)
            busy[name] = busy[name] + mine
            found[f"step {step.name}"] = mine
            for item in step.work:
                points = self.steps.points(step, item)
                useful[name] = useful[name] + points * hardware.cycles(name, item.operation) / hardware.lanes(name)
                for unit, count in hardware.expand(name, item.operation).items():
                    operations = points * count
                    energy[name] = energy[name] + operations * hardware[f"{name}.units.{unit}.energy_pj"]
                    registers = f"{name} registers"
                    energy[registers] = energy[registers] + operations * hardware.register_pj(name, unit)
        work = self.times.dependences(self.in_flight)
        compute = maximum(work, *busy.values())
        moved = maximum(*transfers.values())
        cycles = maximum(compute, moved) if self.group.buffering > 1 else compute + moved
        found |= {f"busy {name}": value for name, value in busy.items()}
        found |= {f"transfer {name}": value for name, value in transfers.items()}
        found |= {f"useful {name}": value for name, value in useful.items()}
        found |= {f"energy {name}": value for name, value in energy.items()}
        found |= {f"read {name}": value for name, value in reads.items()}
        found |= {f"written {name}": value for name, value in writes.items()}
        found |= {f"lanes {name}": self.room.lane_need(name, self.in_flight) for name in nest.arch.arrays}
        found |= {
            "dependences": work, "cycles": cycles, "fill": self.times.exposed(compute, moved, cycles, per_word),
            "buffer read": buffer_read, "buffer written": buffer_written, "need": self.room.buffer_need(self.in_flight),
            "words": read + written, "energy": total(energy.values()),
        }  # fmt: skip
        return found

    def _buffer_words(self, fetched: Value) -> tuple[Value, Value]:
        nest = self.nest
        buffer = nest.arch.buffer[0]
        read: Value = 0.0
        written = fetched
        for stream in nest.streams:
            for reader in stream.readers:
                read = read + self.words.operand_words(reader, stream)
        for resident in nest.residents.values():
            if resident.place != buffer:
                continue
            producer = resident.producer
            made = self.words.result_words(producer, resident.tensor)
            written = written + made
            if producer.reduced & nest.cut:
                read = read + made - self.words.begun_words(producer, resident.tensor)
            for reader in resident.readers:
                for access in reader.reads:
                    if access.tensor == resident.tensor:
                        read = read + self.words.operand_words(
                            reader, Stream(resident.tensor, access.indices, (reader,), self.tiles.depth)
                        )
            if resident.leaves:
                read = read + self.words.tensor_words(resident.tensor)
        return read, written
