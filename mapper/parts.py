"""Parts of the walked rank that run side by side: for grids too small for the GPU, as when one query meets a long cache of keys.

In: a split form (`rewrite.split_form`: the parts, then their merge) and the plan of the undivided cascade. Out: how many parts are
worth planning, the form with that many, and which of its Einsums merge. The parts are one kernel and the merge is another; how
many there are is chosen by the time predicted for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from ..einsum.cascade import Cascade, Reduce, Scalar
from .blocking import reads
from .plan import Plan

FILLED = (1, 2, 4)
"""Blocks for each multiprocessor that are worth a try."""


def part_counts(single: Plan, rank: str) -> list[int]:
    """Numbers of parts, powers of two, that give the multiprocessors of the GPU a block or a few; none where the grid does so by
    itself or there are too few steps."""
    best, program = single.best, single.program
    # a rank that some reduction lacks does not share out the work: what lacks it is done again for each of its coordinates
    carried = [set(program.cascade.tensor(e.output).ranks) for e in program.cascade.einsums if isinstance(e.body, Reduce)]
    shared = [r for r in program.grid if all(r in ranks for ranks in carried)]
    blocks = prod(-(-single.extent(r) // (best.blocks[r] if r in program.tiled else 1)) for r in shared)
    steps = -(-single.extent(rank) // best.blocks.get(program.inner or "", 1))
    units = single.gpu.multiprocessors.count
    if not blocks or blocks >= units:
        return []
    most = 1 << max((steps // 2).bit_length() - 1, 0)  # two steps a part at least
    wanted = {min(most, 1 << (filled * units // blocks).bit_length() - 1) for filled in FILLED}
    return sorted(count for count in wanted if count >= 2)


def with_parts(form: Cascade, original: Cascade, count: int) -> Cascade:
    """A split form in that many parts."""
    extent = form.rank(_parts(form, original)).extent
    assert isinstance(extent, Scalar)
    sizes = tuple((name, count if name == extent.name else value) for name, value in form.sizes)
    return replace(form, sizes=sizes, name=original.name)


def _parts(form: Cascade, original: Cascade) -> str:
    """The rank of the parts."""
    return next(_added(form, original), "")


def _added(form: Cascade, original: Cascade) -> Iterator[str]:
    return (r.name for r in form.ranks if r.name not in original.rank_order and r.part_of is None and r.split is None)


def merging(form: Cascade, original: Cascade) -> frozenset[str]:
    """Of a split form, what needs all parts: reductions over the rank of the parts, and what depends on them. Also what no part
    needs."""
    parts = _parts(form, original)
    late: set[str] = set()
    for einsum in form.einsums:
        bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
        if parts in bound or any(a.tensor in late for a in reads(einsum)):
            late.add(einsum.output)
    needed: set[str] = set()
    for einsum in reversed(form.einsums):
        if einsum.output not in late and (einsum.output in needed or parts in form.tensor(einsum.output).ranks):
            needed |= {einsum.output, *(a.tensor for a in reads(einsum))}
    return frozenset(late | {einsum.output for einsum in form.einsums if einsum.output not in needed})
