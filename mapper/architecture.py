"""Architectures: what an accelerator is made of, as a file says it.

In: a YAML file (see `examples/archs/`). Out: an `Architecture`: storage levels from the outermost inwards, compute arrays with
their functional units and registers, the clock. Nothing here knows any accelerator by name. Every block of numbers carries
a `source`.

This model handles one backing store and one on-chip buffer that all arrays share; more levels are refused with E531.
"""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.library import locate
from .document import Block, Document, override, read, reads, validate

STAND_INS: dict[str, dict[str, int]] = {
    "multiply": {"mac": 1}, "add": {"mac": 1}, "mac": {"multiply": 1, "add": 1}, "where": {"max": 1},
}  # fmt: skip
"""What does an operation where an array has no unit and no expansion for it."""

_UNITS = {
    "": 1,
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


def _bytes(value: Any) -> Any:
    """`16 MiB` as a number; `400 GiB/s` too."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9.eE+]+)\s*([KMGT]i?B|B|)(/s)?\s*", value)
    if match is None:
        raise ValueError(f"`{value}` is not a number of bytes such as `16 MiB` or `400 GiB/s`")
    number = float(match[1]) * _UNITS[match[2]]
    return int(number) if number.is_integer() else number


Bytes = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Rate = Annotated[float, BeforeValidator(_bytes), Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=2**20)]


class Macro(Block):
    """A memory block that a storage level is built from, in whole numbers."""

    bytes: Bytes
    area_um2: Amount
    source: str


class Level(Block):
    """A storage level."""

    size: Bytes | None = None
    """Capacity, bytes; none: without limit."""
    bandwidth: Rate | None = None
    """Bytes a second, reads and writes together; none: not limited."""
    access_bytes: Annotated[int, Field(ge=1)]
    """Width of one access, bytes."""
    read_pj: Amount
    """Energy of one read access, pJ."""
    write_pj: Amount
    """Energy of one write access, pJ."""
    macro: Macro | None = None
    """What it is built from; none: no area on this chip."""
    source: str

    @property
    def area_um2(self) -> float:
        if self.macro is None or self.size is None:
            return 0.0
        return math.ceil(self.size / self.macro.bytes) * self.macro.area_um2


class Unit(Block):
    """A functional unit that every lane of an array has."""

    cycles: Amount = 1
    """Cycles that one operation keeps its lane busy."""
    energy_pj: Amount
    area_um2: Amount = 0
    source: str


class Registers(Block):
    """The register file of one lane."""

    words: Annotated[int, Field(ge=1)]
    """Values it holds."""
    read_pj: Amount = 0
    write_pj: Amount = 0
    counted: Literal["all", "one"] = "all"
    """Whose accesses are charged: those of every lane, or of one lane only (as some published evaluations did)."""
    area_um2: Amount = 0
    """Fixed part of its area."""
    area_um2_per_log2_words: Amount = 0
    """Added per binary digit of its depth, rounded up."""
    source: str

    @property
    def area(self) -> float:
        return self.area_um2 + self.area_um2_per_log2_words * math.ceil(math.log2(self.words))


class Array(Block):
    """Lanes that do the same operation at once, along one or two sides."""

    side: Annotated[list[Side], Field(min_length=1, max_length=2)]
    """Lanes along each side: rows, columns."""
    units: Annotated[dict[str, Unit], Field(min_length=1)]
    """By operation: `mac add multiply divide max exp ...`; one named in neither `units` nor `expansions` cannot run here."""
    expansions: dict[str, dict[str, Annotated[int, Field(ge=1)]]] = Field(default_factory=dict)
    """Operations made of others, such as `exp: {mac: 6}`."""
    registers: Registers
    ripple_cycles_per_hop: Annotated[int, Field(ge=0)] = 0
    """Latency that a reduction across lanes adds per lane it crosses; the array is free meanwhile."""
    folds_overlap: bool = True
    """Whether one piece of work may fill the array while the last one drains; if not, each pays rows + columns - 2 cycles."""
    area_um2: Amount = 0
    """Area besides lanes (wires), um^2."""
    source: str

    @property
    def lanes(self) -> int:
        return math.prod(self.side)

    @property
    def lane_area_um2(self) -> float:
        return self.registers.area + sum(unit.area_um2 for unit in self.units.values())

    @property
    def total_area_um2(self) -> float:
        return self.lanes * self.lane_area_um2 + self.area_um2

    def expand(self, operation: str, seen: tuple[str, ...] = ()) -> dict[str, int] | None:
        """The operation as numbers of unit operations; None if this array cannot do it."""
        if operation in self.units:
            return {operation: 1}
        parts = self.expansions.get(operation) or STAND_INS.get(operation)
        if parts is None or operation in seen:
            return None
        total: dict[str, int] = {}
        for part, count in parts.items():
            inner = self.expand(part, (*seen, operation))
            if inner is None:
                return None
            for name, number in inner.items():
                total[name] = total.get(name, 0) + number * count
        return total

    @model_validator(mode="after")
    def _expansions_end(self) -> Array:
        for name in self.expansions:
            if name in self.units:
                raise ValueError(f"`{name}` is both a unit and an expansion")
            if self.expand(name) is None:
                raise ValueError(f"expansion of `{name}` does not end in units of this array ({', '.join(self.units)})")
        return self


class Architecture(Block):
    """An accelerator."""

    name: str
    doc: str = ""
    clock_hz: Positive
    technology_nm: Positive | None = None
    word_bytes: Annotated[int, Field(ge=1)]
    """Bytes of one value."""
    memory: Annotated[dict[str, Level], Field(min_length=1)]
    """Storage levels from the outermost inwards."""
    arrays: Annotated[dict[str, Array], Field(min_length=1)]
    source: str

    @model_validator(mode="after")
    def _names(self) -> Architecture:
        both = set(self.memory) & set(self.arrays)
        if both:
            raise ValueError(f"`{min(both)}` names both a storage level and an array")
        return self

    @property
    def backing(self) -> tuple[str, Level]:
        """The outermost level: where inputs come from and outputs go."""
        name = next(iter(self.memory))
        return name, self.memory[name]

    @property
    def buffer(self) -> tuple[str, Level]:
        """The on-chip level that all arrays share."""
        names = list(self.memory)
        if len(names) != 2:
            raise EinsmithError(
                Diagnostic(
                    "E531",
                    f"architecture `{self.name}` has {len(names)} storage levels; the model handles two: a backing store, a buffer",
                )
            )
        return names[1], self.memory[names[1]]

    @property
    def area_um2(self) -> dict[str, float]:
        """Area of each component."""
        parts = {name: array.total_area_um2 for name, array in self.arrays.items()}
        return parts | {name: level.area_um2 for name, level in self.memory.items() if level.macro}


def load(path: str | Path, settings: tuple[str, ...] = ()) -> Architecture:
    """Read an architecture file, with `NAME.KEY=VALUE` settings put over it. Raises EinsmithError (E501 to E503)."""
    return _architecture(read(locate("archs", path)), settings)


def loads(text: str, name: str = "<string>", settings: tuple[str, ...] = ()) -> Architecture:
    """The same from a text."""
    return _architecture(reads(text, name), settings)


def _architecture(document: Document, settings: tuple[str, ...]) -> Architecture:
    def resolve(path: list[str]) -> list[str]:
        """`array2d.side` as `arrays.array2d.side`: components are named without the block they stand in."""
        data = document.data if isinstance(document.data, dict) else {}
        for block in ("arrays", "memory"):
            if isinstance(data.get(block), dict) and path[0] in data[block]:
                return [block, *path]
        if path[0] in data or path[0] in Architecture.model_fields:
            return path
        known = [*data, *(name for block in ("arrays", "memory") for name in data.get(block) or ())]
        close = difflib.get_close_matches(path[0], known, 1)
        raise EinsmithError(
            Diagnostic(
                "E503", f"`--set`: nothing is named `{path[0]}` in this architecture", file=document.source.name,
                help=f"did you mean `{close[0]}`?" if close else f"there are {', '.join(f'`{name}`' for name in known)}",
            )
        )  # fmt: skip

    override(document, settings, resolve)
    return validate(Architecture, document)
