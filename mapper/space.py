"""The space of mappings that the search covers. What is stated here is what "optimal" refers to.

* fusion: every partition of the cascade, in its order, into consecutive groups that are legal;
* loops of a group: first, with tile 1, each rank along which no input or output of the group is used twice; then, in every order,
  the ranks of running states (tile 1) and every subset of the other ranks that are longer than a side of an array (tile: that
  side; a state's and a scan's own ranks excepted); one of these, in turn each, may have a second loop outside that holds 2, 4, 8,
  ... or all of its tiles at once; only where no such mapping of the group fits: tiles of half a side, a quarter, ... down to 1;
* extents that splits leave open: a quarter to four times each side of an array;
* inputs: held at any of the loops over their own ranks, as little traffic as fits;
* layout of each array: any of the ranks or none along each side, the same for all Einsums on the array;
* binding: each Einsum on each array that has the units for it;
* of layouts and bindings, those that are not dominated in cycles per array (and in energy, where the objective asks for it);
* a tensor that lives within a tile is handed on where that is legal, else stays in registers where it fits, else in the buffer;
* interleaved schedule, as many tiles in flight as hide the latency of a tile twice over, or as registers and buffer allow; two
  buffer slots.

Left out: tiles other than sides of arrays, several ranks along one side, loops private to one Einsum of a group, recomputation,
spilling of running results, other orders of the Einsums than the cascade's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from ..einsum.cascade import Cascade, Einsum, Expr, Scalar, Scan, Select, accesses, free_ranks
from ..einsum.sizes import Sizes
from .architecture import Architecture
from .mapping import Loop
from .nest import iterated

MAX_LOOPED = 4
"""Most ranks, besides those without reuse, that one group loops over."""


def sides(arch: Architecture) -> list[int]:
    """All sides of all arrays, without repeats."""
    return sorted({side for array in arch.arrays.values() for side in array.side})


def open_extents(cascade: Cascade, given: frozenset[str], arch: Architecture, extents: dict[str, int]) -> list[dict[str, int]]:
    """Choices for the tiles of splits whose extent the user did not give."""
    choices: dict[str, list[int]] = {}
    for rank in cascade.ranks:
        if rank.split is None or not isinstance(rank.split.tile, Scalar) or rank.split.tile.name in given:
            continue
        found = {max(1, side * numerator // 4) for side in sides(arch) for numerator in (1, 2, 4, 8, 16)}
        whole = extents[rank.name]
        choices[rank.split.tile.name] = sorted({min(tile, whole) for tile in found if whole}) or [1]
    names = list(choices)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*choices.values())]


def einsum_order(cascade: Cascade) -> list[str]:
    """Outputs in the order in which their (last) definitions stand."""
    order: dict[str, None] = {}
    for einsum in cascade.einsums:
        order.pop(einsum.output, None)
        order[einsum.output] = None
    return list(order)


def loop_nests(
    cascade: Cascade, arch: Architecture, sizes: Sizes, names: frozenset[str], leaving: frozenset[str], share: int = 1
) -> Iterator[tuple[Loop, ...]]:
    """All loop nests of a group with tiles of one `share`-th of a side; most of the illegal ones too."""
    einsums = [einsum for einsum in cascade.einsums if einsum.output in names]
    ranks = [rank.name for rank in cascade.ranks if any(rank.name in iterated(einsum) for einsum in einsums)]
    states = [rank for rank in ranks if any(cascade.tensor(e.output).iterates == rank for e in einsums)]
    whole = {e.body.rank for e in einsums if isinstance(e.body, Scan | Select)}
    streams = {(access.tensor, access.indices) for e in einsums for access in accesses(e.body) if access.tensor not in names}
    apart = [
        rank for rank in ranks if rank not in states and rank not in whole and _no_reuse(cascade, rank, einsums, streams, leaving)
    ]
    fixed = tuple(Loop(rank=rank, tile=1) for rank in apart if sizes.extents[rank] > 1)
    others = [rank for rank in ranks if rank not in apart and rank not in states and rank not in whole]
    tiles = {
        rank: [tile for tile in sorted({max(1, side // share) for side in sides(arch)}) if tile < sizes.extents[rank]]
        for rank in others
    }
    moving = [rank for rank in states if sizes.extents[rank] > 1]
    seen: set[tuple[Loop, ...]] = set()
    free = [rank for rank in others if tiles[rank]]
    for count in range(min(len(free), MAX_LOOPED - len(moving)) + 1):
        for chosen in itertools.combinations(free, count):
            for sizes_of in itertools.product(*(tiles[rank] for rank in chosen)):
                inner = [Loop(rank=rank, tile=1) for rank in moving]
                inner += [Loop(rank=rank, tile=tile) for rank, tile in zip(chosen, sizes_of, strict=True)]
                for order in itertools.permutations(inner):
                    for loops in _held(order, chosen, sizes):
                        if loops not in seen:
                            seen.add(loops)
                            yield fixed + loops


def _no_reuse(
    cascade: Cascade, rank: str, einsums: list[Einsum], streams: set[tuple[str, tuple[Expr, ...]]], leaving: frozenset[str]
) -> bool:
    """Whether each position of a rank has its own part of every input and output of the group and of every Einsum."""
    everywhere = all(rank in iterated(einsum) and rank not in getattr(einsum.body, "ranks", ()) for einsum in einsums)
    apart = all(any(rank in free_ranks(index) for index in indices) for _, indices in streams)
    return everywhere and apart and all(rank in cascade.tensor(tensor).ranks for tensor in leaving)


def _held(order: tuple[Loop, ...], chosen: tuple[str, ...], sizes: Sizes) -> Iterator[tuple[Loop, ...]]:
    """The loops as they are, and with one more loop outside that holds several tiles of one rank."""
    yield order
    for loop in order[1:]:
        if loop.rank not in chosen:
            continue
        tiles = math.ceil(sizes.extents[loop.rank] / loop.tile)
        held = 2
        while held < tiles:
            yield (Loop(rank=loop.rank, tile=loop.tile * held), *order)
            held *= 2
        yield (Loop(rank=loop.rank, tile=sizes.extents[loop.rank]), *order)
