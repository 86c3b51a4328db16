"""An architecture as its numbers: every one by the name that `--set` gives it, and the same architecture without limits."""

from __future__ import annotations

import math
from typing import Any

from .architecture import Architecture


def leaves(arch: Architecture) -> dict[str, float]:
    """Every number of an architecture, named as `--set` names it; what is not limited is infinite."""
    found: dict[str, float] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, list | tuple):
            for key, inner in enumerate(value):
                walk(f"{prefix}.{key}", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix] = float(value)
        elif value is None and prefix.rsplit(".", 1)[-1] in ("size", "bandwidth"):
            found[prefix] = math.inf

    plain = arch.model_dump()
    for block in ("memory", "arrays", "networks"):
        walk("", plain.pop(block))
    walk("", plain)
    return found


def keys_of(arch: Architecture, path: str) -> list[str]:
    """A leaf as the keys that lead to it."""
    first = path.split(".", 1)[0]
    block = next(([block] for block in ("memory", "arrays", "networks") if first in getattr(arch, block)), [])
    return [*block, *path.split(".")]


def roomy(arch: Architecture) -> Architecture:
    """The architecture with room for everything: whether a mapping is legal does not depend on capacity."""
    memory = {name: level.model_copy(update={"size": None}) for name, level in arch.memory.items()}
    arrays = {
        name: array.model_copy(update={"registers": array.registers.model_copy(update={"words": 2**60})})
        for name, array in arch.arrays.items()
    }
    return arch.model_copy(update={"memory": memory, "arrays": arrays})
