"""Designs: an architecture file with settings that are free, within an area.

In: an architecture, settings over it, `Free` settings with their values. Out: `Design`s, one for each choice of values that is an
architecture, the smallest area first. A free name with a dot (`buffer.size`) is a setting itself; one without stands in braces in
the settings that depend on it (`array2d.side=[{rows}, {columns}]`).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping as Map_
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.library import locate
from . import architecture
from .architecture import Architecture
from .document import Document, read

MAX_DESIGNS = 200_000
"""Most designs of one search."""


@dataclass(frozen=True)
class Free:
    """A setting that is searched."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Design:
    """One choice of all that is free."""

    chosen: Map_[str, Any]
    settings: tuple[str, ...]
    """All settings over the architecture file, as `--set` takes them."""
    arch: Architecture

    @property
    def area_um2(self) -> float:
        return sum(self.arch.area_um2.values())

    @property
    def buffer_bytes(self) -> int:
        """Capacity of all levels on the chip together."""
        levels = [self.arch.memory[name] for name in self.arch.on_chip]
        return sum(level.size * level.instances for level in levels if level.size is not None)


def parse(text: str) -> Free:
    """`NAME=[VALUE, ...]` or `NAME={from: A, to: B, step: C}` (or `times`). Raises EinsmithError (E543)."""
    name, equals, values = text.partition("=")
    try:
        listed = yaml.safe_load(values)
    except yaml.YAMLError:
        listed = None
    if not equals or not name.strip():
        raise wrong(f"`{text}` is not NAME=[VALUE, ...]")
    return free(name.strip(), listed)


def free(name: str, values: Any) -> Free:
    """A free setting from plain data: a list of values, or a range of whole numbers. Raises EinsmithError (E543)."""
    listed = _range(name, values) if isinstance(values, dict) else values
    if not isinstance(listed, list | tuple) or not listed:
        raise wrong(f"`{name}` has no list of values")
    return Free(name, tuple(listed))


def _range(name: str, given: dict[str, Any]) -> list[int]:
    by = "step" if "step" in given else "times"
    if set(given) != {"from", "to", by} or not all(isinstance(n, int) and n > 0 for n in given.values()):
        raise wrong(f"`{name}`: a range has `from`, `to`, and `step` or `times`, all whole numbers above 0")
    if by == "step":
        return list(range(given["from"], given["to"] + 1, given["step"]))
    if given["times"] < 2:
        raise wrong(f"`{name}`: `times` is at least 2")
    found: list[int] = []
    while (found[-1] * given["times"] if found else given["from"]) <= given["to"]:
        found.append(found[-1] * given["times"] if found else given["from"])
    return found


def wrong(message: str) -> EinsmithError:
    help_text = "`--free buffer.size=[4 MiB, 16 MiB]`, or `--free side=[128, 256] --set 'array2d.side=[{side}, {side}]'`"
    return EinsmithError(Diagnostic("E543", message, help=help_text))


def designs(arch: str | Path, settings: Sequence[str], free: Sequence[Free]) -> list[Design]:
    """All designs, the smallest area first. Raises EinsmithError (E501 to E503, E543)."""
    count = math.prod(len(one.values) for one in free)
    if count > MAX_DESIGNS:
        raise wrong(f"{count:,} designs are more than {MAX_DESIGNS:,}")
    names = [one.name for one in free]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"`{name}` is free twice")
        if "." not in name and not any(f"{{{name}}}" in text for text in settings):
            raise wrong(f"no setting depends on `{name}`: no `--set` has `{{{name}}}`")
    document = read(locate("archs", arch))
    found = [
        _design(document, settings, dict(zip(names, values, strict=True)))
        for values in itertools.product(*(one.values for one in free))
    ]
    return sorted(found, key=lambda design: (design.area_um2, design.buffer_bytes))


def _design(document: Document, settings: Sequence[str], chosen: dict[str, Any]) -> Design:
    texts = [_filled(text, chosen) for text in settings]
    texts += [f"{name}={flow(value)}" for name, value in chosen.items() if "." in name]
    own = Document(document.source, copy.deepcopy(document.data), dict(document.keys), dict(document.values))
    return Design(chosen, tuple(texts), architecture.of_document(own, tuple(texts)))


def _filled(text: str, chosen: Map_[str, Any]) -> str:
    for name, value in chosen.items():
        text = text.replace(f"{{{name}}}", flow(value))
    return text


def flow(value: Any) -> str:
    """A value in YAML, on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
