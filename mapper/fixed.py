"""What of a mapping is given, while a search finds the rest.

In: parts of a mapping file, a partial mapping file, or settings `NAME.KEY=VALUE`. Out: a `Fixed` (see `space`).

A partial file is a mapping file in which everything may be left out but which Einsums a group has; what stands in it is fixed:

    groups:
    - einsums: {QK: {array: grid}, SM: {spatial: [p, m]}}    # or a list of names
      loops: [{rank: p, tile: 64, hold: [Q]}, {rank: m}]
      stay: {SM: grid}
      schedule: pipelined
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Mapping as Map_
from dataclasses import fields, replace
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.flatten import flatten
from ..einsum.library import locate
from ..einsum.sizes import bind
from .architecture import Architecture
from .document import Block, read, validate
from .mapping import Binding, Extent, Group, Mapping, Schedule, settled
from .space import ANYTHING, Fixed

__all__ = ["ANYTHING", "PARTS", "Fixed", "Part", "extents", "fixed_by", "joined", "kept", "over", "single", "words"]

Part: TypeAlias = Literal["groups", "arrays", "tiles", "layouts", "loops", "holds", "stay", "schedule"]
"""Fusion groups; the array of each Einsum; the (innermost) tile of each rank and the sizes that the mapping chooses; ranks along
the sides of arrays; orders of loops, and what instances share out; where inputs are held; where other tensors stay; schedules and
tiles in flight."""
PARTS: tuple[Part, ...] = get_args(Part)
SCHEDULES: tuple[Any, ...] = get_args(Schedule)
KEYS = ("array", "spatial", "loops", "group", "schedule", "in_flight", "tile", "hold", "stay")


class _PartialBinding(Block):
    array: str | None = None
    spatial: Annotated[
        tuple[tuple[str, ...], ...] | None, BeforeValidator(lambda value: value and Binding(array="", spatial=value).spatial)
    ] = None


class _PartialLoop(Block):
    rank: str
    tile: Extent | None = None
    over: str | None = None
    hold: tuple[str, ...] | dict[str, tuple[str, ...]] = ()


def _einsums(value: Any) -> Any:
    """Names alone, or what is known of each."""
    if isinstance(value, list):
        return {name: {} for name in value}
    return {name: each or {} for name, each in value.items()} if isinstance(value, dict) else value


class _PartialGroup(Block):
    einsums: Annotated[dict[str, _PartialBinding], Field(min_length=1), BeforeValidator(_einsums)]
    loops: tuple[_PartialLoop, ...] | None = None
    schedule: Schedule | None = None
    in_flight: Annotated[int, Field(ge=1, le=4096)] | None = None
    stay: dict[str, str] = Field(default_factory=dict)
    peel: tuple[str, ...] = ()


class _Partial(Block):
    name: str = ""
    doc: str = ""
    sizes: dict[str, Extent] = Field(default_factory=dict)
    groups: tuple[_PartialGroup, ...] = ()


def kept(mapping: Mapping, parts: Collection[Part], extents: Map_[str, int] | None = None, levels: Sequence[str] = ("",)) -> Fixed:
    """Parts of a mapping, fixed; the sizes that it chooses are `mapping.sizes`. The mapping may be of some of the Einsums only.

    `extents` of ranks tell loops of one iteration from others; `levels`: those on the chip, from the outermost inwards.
    """
    found = ANYTHING
    for group in mapping.groups:
        found = joined(found, _of_group(group, set(parts), extents or {}, levels))
    return found


def _of_group(group: Group | _PartialGroup, parts: set[Part], extents: Map_[str, int], levels: Sequence[str]) -> Fixed:
    names, bindings = frozenset(group.einsums), group.einsums.items()
    loops = group.loops or ()
    first = min(names)
    left = dict(extents)
    several: list[str] = []
    holds: dict[str, dict[str, str | None]] = {}
    for loop in loops:
        whole = loop.tile is not None and loop.tile >= left.get(loop.rank, loop.tile + 1)
        if loop.tile is not None:
            left[loop.rank] = loop.tile
        if not whole and loop.over is None:
            several.append(loop.rank)
        held = loop.hold if isinstance(loop.hold, dict) else {levels[0]: loop.hold}
        for level, tensors in held.items():
            for tensor in tensors:
                holds.setdefault(tensor, {})[level] = several[-1] if several else None
    spread = frozenset((loop.over, loop.rank) for loop in loops if loop.over is not None)
    whole_file = isinstance(group, Group)
    schedule = group.schedule if whole_file or group.schedule else None
    flying = group.in_flight if whole_file or group.in_flight else None
    return Fixed(
        arrays={name: each.array for name, each in bindings if each.array is not None} if "arrays" in parts else {},
        groups=(names,) if "groups" in parts else (),
        tiles={loop.rank: loop.tile for loop in loops if loop.tile is not None and loop.over is None} if "tiles" in parts else {},
        layouts={name: each.spatial for name, each in bindings if each.spatial is not None} if "layouts" in parts else {},
        loops={first: tuple(several)} if "loops" in parts and group.loops is not None else {},
        teams={first: spread} if "loops" in parts and group.loops is not None else {},
        holds=holds if "holds" in parts else {},
        stays=dict(group.stay) if "stay" in parts else {},
        schedules={first: schedule} if "schedule" in parts and schedule else {},
        peel="schedule" in parts and bool(group.peel),
        in_flight={first: flying} if "schedule" in parts and flying and schedule in (None, "interleaved") else {},
    )


def extents(cascade: Cascade, sizes: Map_[str, int] | None = None, params: Map_[str, int | float] | None = None) -> dict[str, int]:
    """The extents of all ranks."""
    return dict(bind(flatten(cascade), sizes, params).extents)


def joined(one: Fixed, other: Fixed) -> Fixed:
    """What two fix; where both fix the same, the second."""
    found: dict[str, Any] = {}
    for field in fields(Fixed):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "peel":
            found[field.name] = mine or theirs
        elif field.name == "holds":
            found[field.name] = {tensor: {**mine.get(tensor, {}), **theirs.get(tensor, {})} for tensor in {**mine, **theirs}}
        else:
            found[field.name] = (*mine, *theirs) if isinstance(mine, tuple) else {**mine, **theirs}
    return Fixed(**found)


def over(parts: Fixed, arrays: Map_[str, str], groups: Sequence[Collection[str]], tiles: Map_[str, int]) -> Fixed:
    """What is fixed one by one, over what a mapping fixes."""
    return joined(parts, Fixed(arrays=arrays, groups=tuple(frozenset(group) for group in groups), tiles=tiles))


# --- settings ---------------------------------------------------------------------------------------------------------


def fixed_by(
    texts: Iterable[str],
    cascade: Cascade,
    arch: Architecture,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
) -> tuple[Fixed, dict[str, int]]:
    """What partial mapping files and settings `NAME.KEY=VALUE` fix, and the sizes that files give. Raises EinsmithError: E501,
    E502, E504 for files, E545 for settings."""
    names = {einsum.output for einsum in flatten(cascade).einsums}
    found, chosen = ANYTHING, dict[str, int]()
    for text in texts:
        if "=" in text:
            found = joined(found, _setting(text, names, arch.on_chip))
            continue
        document = settled(read(locate("mappings", text)), cascade, sizes, params, arch)
        partial = validate(_Partial, document)
        chosen |= partial.sizes
        known = extents(cascade, {**chosen, **(sizes or {})}, params)
        for group in partial.groups:
            found = joined(found, _of_group(group, set(PARTS), known, arch.on_chip))
    return found, chosen


def _setting(text: str, einsums: Collection[str], levels: Sequence[str]) -> Fixed:
    target, _, value_text = text.partition("=")
    name, dot, key = target.strip().rpartition(".")
    if not dot:
        name, key = "", target.strip()
    if key not in KEYS or (not name and key != "schedule"):
        close = difflib.get_close_matches(key, KEYS, 1)
        raise _wrong(f"`{text}` fixes nothing", f"did you mean `{close[0]}`?" if close and close[0] != key else _FORMS)
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError:
        raise _wrong(f"`{value_text}` is not a YAML value") from None
    match key:
        case "array" | "stay" if isinstance(value, str):
            return Fixed(arrays={name: value}) if key == "array" else Fixed(stays={name: value})
        case "spatial" if isinstance(value, list):
            try:
                return Fixed(layouts={name: _PartialBinding.model_validate({"spatial": value}).spatial or ()})
            except ValidationError:
                raise _wrong(f"`{text}`: `{key}` cannot be `{value_text}`", _FORMS) from None
        case "loops" if isinstance(value, list) and all(isinstance(rank, str) for rank in value):
            return Fixed(loops={name: tuple(value)})
        case "group" if isinstance(value, list):
            return Fixed(groups=(frozenset((name, *map(str, value))),))
        case "schedule" if value in SCHEDULES:
            schedules: dict[str, Any] = dict.fromkeys((name,) if name else sorted(einsums), value)
            return Fixed(schedules=schedules)
        case "in_flight" | "tile" if isinstance(value, int) and value > 0:
            return Fixed(in_flight={name: value}) if key == "in_flight" else Fixed(tiles={name: value})
        case "hold" if value is None or isinstance(value, str):
            return Fixed(holds={name: {levels[0]: value}})
        case "hold" if isinstance(value, dict):
            return Fixed(holds={name: {str(level): rank for level, rank in value.items()}})
    raise _wrong(f"`{text}`: `{key}` cannot be `{value_text}`", _FORMS)


_FORMS = (
    "`EINSUM.array=ARRAY`, `EINSUM.spatial=[RANK, RANK]`, `EINSUM.loops=[RANK, ...]`, `EINSUM.group=[EINSUM, ...]`, "
    "`EINSUM.schedule=SCHEDULE`, `EINSUM.in_flight=N`, `RANK.tile=N`, `TENSOR.hold=RANK`, `TENSOR.hold={LEVEL: RANK}`, "
    "`TENSOR.stay=PLACE`, `schedule=SCHEDULE`, or a partial mapping file"
)


def _wrong(message: str, help: str = "") -> EinsmithError:
    return EinsmithError(Diagnostic("E545", message, help=help))


# --- said -------------------------------------------------------------------------------------------------------------


def single(fixed: Fixed) -> list[tuple[str, Fixed]]:
    """All that is fixed, one by one: what it is, and everything else."""
    found: list[tuple[str, Fixed]] = []
    for number, group in enumerate(fixed.groups):
        others = (*fixed.groups[:number], *fixed.groups[number + 1 :])
        found.append((f"group of {', '.join(sorted(group))}", replace(fixed, groups=others)))
    if fixed.peel:
        found.append(("first steps peeled", replace(fixed, peel=False)))
    for field in fields(Fixed):
        by = getattr(fixed, field.name)
        if isinstance(by, dict):
            for name, value in by.items():
                rest: dict[str, Any] = {field.name: {other: each for other, each in by.items() if other != name}}
                less = replace(fixed, **rest)
                found.append((_said(field.name, name, value), less))
    return found


def words(fixed: Fixed) -> tuple[str, ...]:
    """All that is fixed."""
    return tuple(text for text, _ in single(fixed))


def _said(what: str, name: str, value: Any) -> str:
    match what:
        case "arrays":
            return f"{name} on {value}"
        case "tiles":
            return f"tile of {name}: {value}"
        case "layouts":
            return f"{name} over {' x '.join(' '.join(ranks) or '1' for ranks in value) or 'one lane'}"
        case "loops":
            return f"loops of {name}: {', '.join(value) or 'none'}"
        case "teams":
            return f"instances of {name}: {', '.join(f'{rank} over {level}' for level, rank in sorted(value)) or 'one'}"
        case "holds":
            return f"{name} held " + ", ".join(
                (f"at {rank}" if rank else "outside all loops") + (f" in {level}" if level else "") for level, rank in value.items()
            )
        case "stays":
            return f"{name} stays in {value}" if value != "forward" else f"{name} handed on"
        case "schedules":
            return f"schedule of {name}: {value}"
        case _:
            return f"tiles of {name} in flight: {value}"
