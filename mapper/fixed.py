"""What of a mapping is given: the parts of a mapping file that a search keeps, while it finds the rest.

In: a mapping, names of parts. Out: a `Fixed` (see `space`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias, get_args

from .mapping import Mapping
from .space import Fixed

Part: TypeAlias = Literal["groups", "arrays"]
"""Fusion groups; the array of each Einsum."""
PARTS: tuple[Part, ...] = get_args(Part)


def kept(mapping: Mapping, parts: Collection[Part]) -> Fixed:
    """Parts of a mapping, fixed."""
    groups = tuple(frozenset(group.einsums) for group in mapping.groups) if "groups" in parts else ()
    arrays = {name: binding.array for group in mapping.groups for name, binding in group.einsums.items()}
    return Fixed(arrays if "arrays" in parts else {}, groups)
