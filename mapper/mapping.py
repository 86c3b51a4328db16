"""Mapping files: how a cascade is laid out in space and time on an architecture.

In: a YAML file (see `examples/mappings/`), or what a search found. Out: a `Mapping`: fusion groups in order; each with its loops
over tiles, the array and spatial ranks of each Einsum, where tensors stay, and how the Einsums share time.

An Einsum is named after its output. Reductions nested in an Einsum are Einsums of their own (`QK_1`); the initial value of a
running state goes where its step goes. Whether a mapping is legal for a cascade is decided in `nest`.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from ..einsum.cascade import Cascade
from ..einsum.library import locate
from ..einsum.sizes import bind
from .architecture import Architecture
from .choices import settle
from .document import Block, Document, read, reads, validate

Schedule = Literal["in-turn", "pipelined", "interleaved", "phases"]
Extent = Annotated[int, Field(ge=1, le=2**48)]


class Loop(Block):
    """One loop over tiles: each step covers `tile` positions of `rank` (fewer in the last step).

    A rank may have several loops, each with a tile no larger than that of the one outside.
    """

    rank: str
    tile: Extent
    over: str | None = None
    """The storage level or array over whose instances the steps are spread, instead of being done one after another."""
    hold: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """Tensors whose tile, as cut by the loops down to this one, stays on chip until this loop steps.

    A list: inputs of the group that stay in the outermost level on the chip. By name of a level: inputs that stay in it, and
    results that are summed up there; by name of an array: in its registers (weight, output or input stationary). An input that no
    loop holds in a level is held there at the innermost loop over one of its ranks, and in no registers.
    """

    def held(self, outermost: str) -> dict[str, tuple[str, ...]]:
        """Tensors held by this loop, by level; `outermost`: the one that a plain list means."""
        return self.hold if isinstance(self.hold, dict) else {outermost: self.hold} if self.hold else {}


def _sides(value: Any) -> Any:
    """`m` for `[m]` along one side."""
    if not isinstance(value, list | tuple):
        return value
    return [[] if part is None else [part] if isinstance(part, str) else part for part in value]


class Binding(Block):
    """Where one Einsum runs."""

    array: str
    spatial: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_sides)] = ()
    """Ranks along each side of the array; several ranks along one side are laid out one after another, the last one fastest."""

    def along(self, side: int) -> tuple[str, ...]:
        return self.spatial[side] if side < len(self.spatial) else ()

    @property
    def ranks(self) -> frozenset[str]:
        return frozenset(rank for ranks in self.spatial for rank in ranks)


class Group(Block):
    """Einsums that run together, tile by tile."""

    loops: tuple[Loop, ...] = ()
    """From the outermost inwards."""
    einsums: Annotated[dict[str, Binding], Field(min_length=1)]
    schedule: Schedule = "in-turn"
    """`in-turn`: one Einsum at a time; `pipelined`: arrays side by side on one tile; `interleaved`: on neighbouring tiles too;
    `phases`: side by side within each phase, phase after phase."""
    flow: str | None = None
    """When interleaved: a rank of all Einsums of the group along which they follow one another position by position, within a
    tile too."""
    phases: tuple[tuple[str, ...], ...] = ()
    """The Einsums of each phase of a tile, all of the group once. One that reads what a later phase makes works one tile behind."""
    in_flight: Annotated[int, Field(ge=1, le=4096)] = 1
    """Tiles that are worked on at once; more than one only when interleaved."""
    buffering: Annotated[int, Field(ge=1, le=2)] = 2
    """Buffer slots of each tensor that comes from or goes to the backing store; with 1, transfers and work take turns."""
    single: tuple[str, ...] = ()
    """Tensors that take one slot though they come or go while work goes on: each word makes room for the next as soon as it is
    done with."""
    bypass: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By storage level: inputs of the group that go past it."""
    peel: tuple[str, ...] = ()
    """Ranks of running states whose first step is peeled off: what the initial values decide there is not worked out."""
    hidden: tuple[str, ...] = ()
    """With phases: reductions across lanes whose latency is taken to be hidden, as some published evaluations do."""
    taps: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By tensor: readers that take its elements as they are made, wherever else it stays for the others."""
    in_place: tuple[tuple[str, ...], ...] = ()
    """Tensors of which each takes the place of the one before in its storage level, element by element."""
    reserve: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Bytes of a storage level that this group leaves to what is streamed through it."""
    spill: tuple[str, ...] = ()
    """Tensors made and used here of which as much goes out to the backing store, and back for each use, as finds no room in their
    level."""
    spill_share: Literal["excess", "need"] = "excess"
    """Which share of them: `excess`, so much that what is left of them and all else fit; `need`, the share of all that should stay
    in the level that finds no room, which is less and which some published evaluations count."""
    stay: dict[str, str] = Field(default_factory=dict)
    """Where a tensor made and used in this group stays: the name of an array (its registers), a storage level (the default is the
    innermost one that all who make and read it share), or
    `forward` (handed on element by element as it is made). `forward` for an output: straight to the backing store."""

    @property
    def special(self) -> tuple[str, ...]:
        """Keys in use that the cost model knows and the closed form of batches does not."""
        keys = ("phases", "flow", "taps", "in_place", "reserve", "spill", "single", "hidden", "peel")
        return tuple(key for key in keys if getattr(self, key))


class Mapping(Block):
    """A mapping of a whole cascade."""

    name: str = "mapping"
    doc: str = ""
    sizes: dict[str, Extent] = Field(default_factory=dict)
    """Extents that the mapping chooses, such as the tile of a partition."""
    pipelined_loops: Annotated[int, Field(ge=0)] = 0
    """The first loops of all groups, so many, are the same, and the groups work at the same time on successive iterations of them;
    0: one group after another."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]

    def as_yaml(self) -> str:
        """The text of a mapping file; `loads` reads it back to an equal mapping."""
        return yaml.dump(self.as_plain(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)

    def as_plain(self) -> dict[str, Any]:
        """As plain data, without what has its default value."""
        plain: dict[str, Any] = {"name": self.name}
        if self.doc:
            plain["doc"] = self.doc
        if self.sizes:
            plain["sizes"] = dict(self.sizes)
        if self.pipelined_loops:
            plain["pipelined_loops"] = self.pipelined_loops
        plain["groups"] = [_plain_group(group) for group in self.groups]
        return plain

    def __str__(self) -> str:
        return draw(self)


def _plain_group(group: Group) -> dict[str, Any]:
    plain: dict[str, Any] = {"schedule": group.schedule}
    if group.in_flight != 1:
        plain["in_flight"] = group.in_flight
    if group.buffering != 2:
        plain["buffering"] = group.buffering
    if group.loops:
        plain["loops"] = [_Flow(rank=loop.rank, tile=loop.tile, **_plain_extras(loop)) for loop in group.loops]
    plain["einsums"] = {name: _Flow(_plain_binding(binding)) for name, binding in group.einsums.items()}
    if group.single:
        plain["single"] = list(group.single)
    if group.bypass:
        plain["bypass"] = {name: list(tensors) for name, tensors in group.bypass.items()}
    if group.flow:
        plain["flow"] = group.flow
    if group.phases:
        plain["phases"] = [list(phase) for phase in group.phases]
    if group.peel:
        plain["peel"] = list(group.peel)
    if group.hidden:
        plain["hidden"] = list(group.hidden)
    if group.taps:
        plain["taps"] = {name: list(readers) for name, readers in group.taps.items()}
    if group.in_place:
        plain["in_place"] = [list(names) for names in group.in_place]
    if group.reserve:
        plain["reserve"] = dict(group.reserve)
    if group.spill:
        plain["spill"] = list(group.spill)
        if group.spill_share != "excess":
            plain["spill_share"] = group.spill_share
    if group.stay:
        plain["stay"] = dict(group.stay)
    return plain


def _plain_extras(loop: Loop) -> dict[str, Any]:
    extras: dict[str, Any] = {"over": loop.over} if loop.over else {}
    if isinstance(loop.hold, dict):
        extras["hold"] = {name: list(tensors) for name, tensors in loop.hold.items()}
    elif loop.hold:
        extras["hold"] = list(loop.hold)
    return extras


def _plain_binding(binding: Binding) -> dict[str, Any]:
    if not binding.spatial:
        return {"array": binding.array}
    sides = [None if not ranks else ranks[0] if len(ranks) == 1 else list(ranks) for ranks in binding.spatial]
    return {"array": binding.array, "spatial": sides}


class _Flow(dict[str, Any]):
    """A block written on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Flow, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True))


def load(path: str | Path, values: Map_[str, int | float] | None = None) -> Mapping:
    """Read a mapping file; `values`: the sizes and parameters that its expressions may name. Raises EinsmithError (E501, E502,
    E504)."""
    return validate(Mapping, settle(read(locate("mappings", path)), values))


def loads(text: str, name: str = "<string>", values: Map_[str, int | float] | None = None) -> Mapping:
    """The same from a text."""
    return validate(Mapping, settle(reads(text, name), values))


def load_for(
    path: str | Path,
    cascade: Cascade,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    arch: Architecture | None = None,
) -> Mapping:
    """Read a mapping file for a cascade with sizes.

    Its expressions may name the symbols and parameters of the cascade, and of `arch` `NAME_bytes`, the capacity of a storage level,
    and `NAME_side_0`, `NAME_side_1` ..., the sides of an array.
    """
    return settled_for(read(locate("mappings", path)), cascade, sizes, params, arch)


def settled_for(
    document: Document,
    cascade: Cascade,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    arch: Architecture | None = None,
) -> Mapping:
    """The same from a document that has been read."""
    return validate(Mapping, settled(document, cascade, sizes, params, arch))


def settled(
    document: Document,
    cascade: Cascade,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
    arch: Architecture | None = None,
) -> Document:
    """A document of a mapping with numbers for its expressions."""
    own = document.data.get("sizes") if isinstance(document.data, dict) else None
    own = own if isinstance(own, dict) and all(isinstance(size, int) for size in own.values()) else {}
    known = {name: size for name, size in own.items() if name in cascade.symbols}
    values = dict(bind(cascade, {**known, **(sizes or {})}, params).scalars)
    if arch is not None:
        values |= {f"{name}_bytes": level.size for name, level in arch.memory.items() if level.size is not None}
        values |= {f"{name}_side_{axis}": side for name, array in arch.arrays.items() for axis, side in enumerate(array.side)}
    return settle(document, values)


def draw(mapping: Mapping) -> str:
    """The mapping as a text that reads like a program."""
    lines = [
        f"mapping {mapping.name}" + (f" with {', '.join(f'{k} = {v}' for k, v in mapping.sizes.items())}" if mapping.sizes else "")
    ]
    for number, group in enumerate(mapping.groups, 1):
        how = group.schedule + (f", {group.in_flight} tiles in flight" if group.in_flight > 1 else "")
        how += f", first step of {', '.join(group.peel)} peeled" if group.peel else ""
        lines.append(f"group {number}: {how}")
        margin = "  "
        for loop in group.loops:
            held = "; ".join(f"{name} holds {', '.join(tensors)}" for name, tensors in loop.held("the buffer").items())
            how = f" over {loop.over}" if loop.over else ""
            lines.append(f"{margin}for {loop.rank} by {loop.tile}{how}:" + (f"    # {held}" if held else ""))
            margin += "  "
        width = max(len(name) for name in group.einsums)
        for name, binding in group.einsums.items():
            sides = " x ".join(" ".join(ranks) or "1" for ranks in binding.spatial)
            stays = f"  -> {group.stay[name]}" if name in group.stay else ""
            lines.append(f"{margin}{name:{width}} on {binding.array}" + (f" over {sides}" if sides else "") + stays)
    return "\n".join(lines)
