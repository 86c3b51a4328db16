"""Architectures: what an accelerator is made of, as a file says it.

In: a YAML file (see `examples/archs/`). Out: an `Architecture`: storage levels from the outermost inwards, compute arrays with
their functional units and registers, the clock. Nothing here knows any accelerator by name. Every block of numbers carries
a `source`.

A level or array may stand there several times (`instances`), and a level may serve some of the arrays only (`serves`). What
connects a level with what it feeds is ideal (multicast and spatial reduction for free) unless a network says otherwise.
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
Instances = Annotated[int, Field(ge=1, le=2**16)]


class Macro(Block):
    """A memory block that a storage level is built from, in whole numbers."""

    bytes: Bytes
    area_um2: Amount
    source: str


class Scaling(Block):
    """Energies of a storage level at other capacities: for reads and for writes the power law through two of them."""

    at: Bytes
    """The capacity that the level's own energies are of."""
    bytes: Bytes
    """Another one."""
    read_pj: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Of the other one, as is the next."""
    write_pj: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    source: str

    @model_validator(mode="after")
    def _two(self) -> Scaling:
        if self.at == self.bytes:
            raise ValueError("`at` and `bytes` must be two capacities")
        return self

    def of(self, size: Any, own: float, other: float) -> Any:
        """An energy at a capacity, or at several."""
        power = math.log(other / own) / math.log(self.bytes / self.at) if other != own else 0.0
        return own * (size / self.at) ** power


class Level(Block):
    """A storage level."""

    size: Bytes | None = None
    """Capacity, bytes; none: without limit."""
    instances: Instances = 1
    """How many of them there are in all; size, bandwidths and area are those of one."""
    serves: tuple[str, ...] | None = None
    """Arrays it feeds; none: all."""
    bandwidth: Rate | None = None
    """Bytes a second, reads and writes together; none: not limited."""
    read_bandwidth: Rate | None = None
    """Bytes a second that it can be read, where reads have a port of their own."""
    write_bandwidth: Rate | None = None
    """Bytes a second that it can be written, where writes have a port of their own."""
    access_bytes: Annotated[int, Field(ge=1)]
    """Width of one access (a line), bytes."""
    read_pj: Amount
    """Energy of one read access, pJ."""
    write_pj: Amount
    """Energy of one write access, pJ."""
    scaling: Scaling | None = None
    """How its energies follow its capacity; none: they do not."""
    macro: Macro | None = None
    """What it is built from; none: no area on this chip."""
    source: str

    @property
    def area_um2(self) -> float:
        if self.macro is None or self.size is None:
            return 0.0
        return math.ceil(self.size / self.macro.bytes) * self.macro.area_um2

    def seconds(self, read: float, written: float) -> float | None:
        """How long its ports take for so many bytes; None if nothing limits them."""
        times = [
            moved / rate
            for moved, rate in (
                (read + written, self.bandwidth), (read, self.read_bandwidth), (written, self.write_bandwidth),
            )
            if rate is not None
        ]  # fmt: skip
        return max(times) if times else None


class Network(Block):
    """What connects a storage level with a level or array that it feeds."""

    outer: str
    """Its outer end: a storage level."""
    inner: str
    """Its inner end: a storage level or an array."""
    multicast: bool = True
    """Whether a word that several instances or lanes take is read once at the outer end."""
    reduction: bool = True
    """Whether results of several lanes that belong to one sum are added up on the way out."""
    pj_per_word: Amount = 0
    """Energy of a word at its outer end."""
    pj_per_hop: Amount = 0
    """Energy of a word for each instance or lane that takes or gives it."""
    bandwidth: Rate | None = None
    """Bytes a second at the outer end, both ways together; none: not limited."""
    area_um2: Amount = 0
    source: str


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
    instances: Instances | None = None
    """How many of them there are in all; none: one for each instance of the innermost level that feeds it."""
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
    networks: dict[str, Network] = Field(default_factory=dict)
    """By any name; a pair of levels without one is connected ideally."""
    source: str

    @model_validator(mode="after")
    def _names(self) -> Architecture:
        blocks = (self.memory, self.arrays, self.networks)
        names = [name for block in blocks for name in block]
        both = [name for name in names if names.count(name) > 1]
        if both:
            raise ValueError(f"two components have the name `{min(both)}`")
        return self

    @model_validator(mode="after")
    def _connected(self) -> Architecture:
        for name, level in self.memory.items():
            for array in level.serves or ():
                if array not in self.arrays:
                    raise ValueError(f"`{name}` serves `{array}`, which is no array (there are {', '.join(self.arrays)})")
        if self.backing[1].serves is not None or self.backing[1].instances > 1:
            raise ValueError(f"`{self.backing[0]}`, the outermost level, is one and serves all arrays")
        for name in self.arrays:
            outer = self.backing[0]
            for inner in (*self.path(name)[1:], name):
                if self.instances(inner) % self.instances(outer):
                    have = self.instances(outer)
                    raise ValueError(
                        f"{self.instances(inner)} instances of `{inner}` cannot be shared out among {have} of `{outer}`"
                    )
                outer = inner
        for name, network in self.networks.items():
            ends = [(a, b) for array in self.arrays for chain in [(*self.path(array), array)] for a, b in _pairs(chain)]
            if (network.outer, network.inner) not in ends:
                raise ValueError(f"network `{name}`: `{network.outer}` does not feed `{network.inner}`")
        return self

    @property
    def backing(self) -> tuple[str, Level]:
        """The outermost level: where inputs come from and outputs go."""
        name = next(iter(self.memory))
        return name, self.memory[name]

    @property
    def buffer(self) -> tuple[str, Level]:
        """The on-chip level, for what handles two levels only: a backing store and one buffer that all arrays share."""
        self.require_plain()
        name = self.on_chip[0]
        return name, self.memory[name]

    def require_plain(self) -> None:
        """Refuses (E531) what closed forms do not handle."""
        names = list(self.memory)
        ideal = all(network.multicast and network.reduction and network.bandwidth is None for network in self.networks.values())
        plain = len(names) == 2 and self.memory[names[-1]].serves is None and ideal
        if not plain or any(self.instances(name) > 1 for name in (*names, *self.arrays)):
            raise EinsmithError(
                Diagnostic(
                    "E531",
                    f"architecture `{self.name}` has {len(names)} storage levels, or several instances, or limiting networks; many "
                    "mappings at once are worked out for a backing store and one buffer for all arrays",
                )
            )

    @property
    def on_chip(self) -> tuple[str, ...]:
        """Storage levels inside the outermost one."""
        return tuple(self.memory)[1:]

    def path(self, array: str) -> tuple[str, ...]:
        """Storage levels between the outermost one and an array, both included, from the outermost inwards."""
        return tuple(name for name, level in self.memory.items() if level.serves is None or array in level.serves)

    def instances(self, name: str) -> int:
        """How many there are of a storage level or an array."""
        if name in self.memory:
            return self.memory[name].instances
        return self.arrays[name].instances or self.memory[self.path(name)[-1]].instances

    def fan_out(self, name: str) -> int:
        """How many instances of a level or array each instance of the level that feeds it has."""
        if name in self.memory:
            order = list(self.memory)
            arrays = [array for array in self.arrays if name in self.path(array)]
            feeding = [level for level in order[: order.index(name)] if all(level in self.path(array) for array in arrays)]
            return self.instances(name) // self.instances(feeding[-1] if feeding else order[0])
        return self.instances(name) // self.instances(self.path(name)[-1])

    def network(self, outer: str, inner: str) -> tuple[str, Network] | None:
        """What connects a level with what it feeds; None: an ideal connection."""
        ends = (outer, inner)
        return next(((n, network) for n, network in self.networks.items() if (network.outer, network.inner) == ends), None)

    @property
    def area_parts(self) -> dict[str, float]:
        """Area of each component, that of an array as its registers, its units and its wires."""
        parts: dict[str, float] = {}
        for name, area in self.area_um2.items():
            if name in self.arrays:
                array, number = self.arrays[name], self.instances(name)
                parts[f"{name} registers"] = array.registers.area * array.lanes * number
                parts[f"{name} units"] = sum(unit.area_um2 for unit in array.units.values()) * array.lanes * number
                parts[f"{name} wires"] = array.area_um2 * number
            else:
                parts[name] = area
        return parts

    @property
    def area_um2(self) -> dict[str, float]:
        """Area of each component."""
        parts = {name: array.total_area_um2 * self.instances(name) for name, array in self.arrays.items()}
        parts |= {name: level.area_um2 * level.instances for name, level in self.memory.items() if level.macro}
        return parts | {name: network.area_um2 for name, network in self.networks.items() if network.area_um2}


def _pairs(chain: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every pair of a chain, the outer one first: a tensor may pass levels by."""
    return [(a, b) for i, a in enumerate(chain) for b in chain[i + 1 :]]


def load(path: str | Path, settings: tuple[str, ...] = ()) -> Architecture:
    """Read an architecture file, with `NAME.KEY=VALUE` settings put over it. Raises EinsmithError (E501 to E503)."""
    return of_document(read(locate("archs", path)), settings)


def loads(text: str, name: str = "<string>", settings: tuple[str, ...] = ()) -> Architecture:
    """The same from a text."""
    return of_document(reads(text, name), settings)


def of_document(document: Document, settings: tuple[str, ...] = ()) -> Architecture:
    """The same from a document, which the settings change."""

    def resolve(path: list[str]) -> list[str]:
        """`array2d.side` as `arrays.array2d.side`: components are named without the block they stand in."""
        data = document.data if isinstance(document.data, dict) else {}
        for block in ("arrays", "memory", "networks"):
            if isinstance(data.get(block), dict) and path[0] in data[block]:
                return [block, *path]
        if path[0] in data or path[0] in Architecture.model_fields:
            return path
        known = [*data, *(name for block in ("arrays", "memory", "networks") for name in data.get(block) or ())]
        close = difflib.get_close_matches(path[0], known, 1)
        raise EinsmithError(
            Diagnostic(
                "E503", f"`--set`: nothing is named `{path[0]}` in this architecture", file=document.source.name,
                help=f"did you mean `{close[0]}`?" if close else f"there are {', '.join(f'`{name}`' for name in known)}",
            )
        )  # fmt: skip

    override(document, settings, resolve)
    given = {tuple(resolve(text.partition("=")[0].strip().split("."))) for text in settings}
    return _scaled(validate(Architecture, document), given)


def _scaled(arch: Architecture, given: set[tuple[str, ...]]) -> Architecture:
    """With energies that follow the capacities, but for those that settings give themselves; laws then start from there."""
    memory = dict(arch.memory)
    for name, level in arch.memory.items():
        law, size = level.scaling, level.size
        if law is None or size is None:
            continue
        rest: dict[str, Any] = {"at": size}
        if size == law.bytes:
            rest |= {"bytes": law.at, "read_pj": level.read_pj, "write_pj": level.write_pj}
        energies: dict[str, float] = {}
        for key in ("read_pj", "write_pj"):
            own = getattr(level, key)
            if ("memory", name, key) in given or own <= 0:
                rest[key] = own
            elif size != law.at:
                energies[key] = law.of(size, own, getattr(law, key))
        memory[name] = level.model_copy(update={**energies, "scaling": law.model_copy(update=rest)})
    return arch.model_copy(update={"memory": memory})
