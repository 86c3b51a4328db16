"""What of a mapping is given: the parts of a mapping file that a search keeps, while it finds the rest.

In: a mapping, names of parts. Out: a `Fixed` (see `space`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Mapping as Map_
from typing import Literal, TypeAlias, get_args

from .mapping import Mapping
from .space import ANYTHING, Fixed

__all__ = ["ANYTHING", "PARTS", "Fixed", "Part", "kept"]

Part: TypeAlias = Literal["groups", "arrays", "tiles"]
"""Fusion groups; the array of each Einsum; the (innermost) tile of each rank and the sizes that the mapping chooses."""
PARTS: tuple[Part, ...] = get_args(Part)


def kept(mapping: Mapping, parts: Collection[Part]) -> Fixed:
    """Parts of a mapping, fixed; the sizes that it chooses are `mapping.sizes`. The mapping may be of some of the Einsums only."""
    groups = tuple(frozenset(group.einsums) for group in mapping.groups) if "groups" in parts else ()
    arrays = {name: binding.array for group in mapping.groups for name, binding in group.einsums.items()}
    tiles = {loop.rank: loop.tile for group in mapping.groups for loop in group.loops}
    return Fixed(arrays if "arrays" in parts else {}, groups, tiles if "tiles" in parts else {})


def over(parts: Fixed, arrays: Map_[str, str], groups: Sequence[Collection[str]], tiles: Map_[str, int]) -> Fixed:
    """What is fixed one by one, over what a mapping fixes."""
    more = tuple(frozenset(group) for group in groups)
    return Fixed({**parts.arrays, **arrays}, (*parts.groups, *more), {**parts.tiles, **tiles})
