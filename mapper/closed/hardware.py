"""The numbers of an architecture as inputs of a tape: sides, cycles, energies, areas as formulas of what its file says."""

from __future__ import annotations

from dataclasses import dataclass

from ..architecture import STAND_INS, Architecture
from ..tape import Tape, Value, ceil, ceil_div, log2, product, total


@dataclass(frozen=True)
class Hardware:
    """The numbers of an architecture as inputs of a tape: `arch NAME.KEY`, named as `--set` names them."""

    tape: Tape
    arch: Architecture

    def __getitem__(self, path: str) -> Value:
        return self.tape.input(f"arch {path}")

    def sides(self, array: str) -> list[Value]:
        """Lanes along each side of an array."""
        return [self[f"{array}.side.{axis}"] for axis in range(len(self.arch.arrays[array].side))]

    def lanes(self, array: str) -> Value:
        """Lanes of an array."""
        return product(self.sides(array))

    def expand(self, array: str, operation: str) -> dict[str, Value]:
        """The operation as numbers of unit operations."""
        block = self.arch.arrays[array]
        if operation in block.units:
            return {operation: 1.0}
        own = operation in block.expansions
        parts = block.expansions[operation] if own else STAND_INS[operation]
        found: dict[str, Value] = {}
        for part, count in parts.items():
            times: Value = self[f"{array}.expansions.{operation}.{part}"] if own else float(count)
            for unit, number in self.expand(array, part).items():
                found[unit] = found.get(unit, 0.0) + number * times
        return found

    def cycles(self, array: str, operation: str) -> Value:
        """Cycles of one operation in one lane."""
        return total(self[f"{array}.units.{unit}.cycles"] * count for unit, count in self.expand(array, operation).items())

    def register_pj(self, array: str, unit: str) -> Value:
        """Register energy of one operation."""
        reads = 3.0 if unit == "mac" else 2.0
        energy = self[f"{array}.registers.read_pj"] * reads + self[f"{array}.registers.write_pj"]
        return energy if self.arch.arrays[array].registers.counted == "all" else energy / self.lanes(array)

    def level_pj(self, level: str, read: Value, written: Value) -> Value:
        """Energy of words read and written at a storage level."""
        energy = read * self[f"{level}.read_pj"] + written * self[f"{level}.write_pj"]
        return energy * self["word_bytes"] / self[f"{level}.access_bytes"]

    @property
    def area(self) -> dict[str, Value]:
        """Area of each component."""
        parts: dict[str, Value] = {}
        for name, array in self.arch.arrays.items():
            registers = self[f"{name}.registers.area_um2"] + self[f"{name}.registers.area_um2_per_log2_words"] * ceil(
                log2(self[f"{name}.registers.words"])
            )
            lane = registers + total(self[f"{name}.units.{unit}.area_um2"] for unit in array.units)
            parts[name] = self.lanes(name) * lane + self[f"{name}.area_um2"]
        for name, level in self.arch.memory.items():
            if level.macro:
                whole = ceil_div(self[f"{name}.size"], self[f"{name}.macro.bytes"]) * self[f"{name}.macro.area_um2"]
                parts[name] = whole if level.size is not None else 0.0
        return parts
