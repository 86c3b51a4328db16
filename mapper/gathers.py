"""Gathers: which positions a tile touches through an index that is read from a tensor, given that tensor's values (a trace).

In: a placed group with traces, an index expression, a depth. Out: for each tile, a pair (low, high) as for other indices, in which
high - low + 1 is the number of distinct positions and low differs between tiles that touch different positions.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping as Map_
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..einsum.cascade import Access, Cascade, Coord, Expr, Map, Number, Scalar, accesses, free_ranks
from ..einsum.sizes import Sizes
from .intervals import Bounds
from .steps import refuse

if TYPE_CHECKING:
    from .nest import Grid, Nest

MAX_POINTS = 2**25
"""Most points of an index that are evaluated."""
_OPERATIONS: dict[str, Any] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod, "neg": operator.neg,
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip


def check_traces(cascade: Cascade, sizes: Sizes, traces: Map_[str, Any]) -> None:
    """Refuses traces that are not whole numbers in the shape of a tensor that indices read."""
    for name, values in traces.items():
        found = {access.tensor for einsum in cascade.einsums for access in accesses(einsum.body) for access in _inside(access)}
        if name not in found:
            listing = ", ".join(f"`{n}`" for n in sorted(found)) or "none"
            raise refuse("E530", f"the trace has `{name}`, which no index reads", f"indices read {listing}")
        shape = tuple(sizes.extents[rank] for rank in cascade.tensor(name).ranks)
        if not np.issubdtype(values.dtype, np.integer) or values.shape != shape:
            raise refuse(
                "E530", f"the trace of `{name}` is {values.dtype} of shape {values.shape}; it must be integers of shape {shape}"
            )


def _inside(access: Access) -> tuple[Access, ...]:
    return tuple(inner for index in access.indices for inner in accesses(index))


def gathered(nest: Nest, tensor: str, rank: str, index: Expr, depth: int) -> Bounds:
    """What an index that reads tensors touches of a rank in each tile, as cut by so many loops."""
    ranks = sorted(free_ranks(index))
    values = _values(nest, tensor, index, ranks)
    extent = nest.sizes.extents[rank]
    spans = [nest.span(name, depth) for name in ranks]
    shape = np.broadcast_shapes(*(low.shape for low, _ in spans))
    nest.check_cells(int(np.prod(shape)))
    low = np.zeros(shape, dtype=np.int64)
    count = np.zeros(shape, dtype=np.int64)
    known: dict[bytes, int] = {}
    for cell in product(*(range(length) for length in shape)):
        at = []
        for start, length in spans:
            here = tuple(i if n > 1 else 0 for i, n in zip(cell, start.shape, strict=True))
            at.append(slice(int(start[here]), int(start[here] + length[here])))
        touched = np.unique(values[tuple(at)])
        touched = touched[(touched >= 0) & (touched < extent)]
        low[cell] = known.setdefault(touched.tobytes(), len(known)) * (extent + 1)
        count[cell] = touched.size
    return low, low + count - 1


def _values(nest: Nest, tensor: str, index: Expr, ranks: list[str]) -> Grid:
    """The index at every point of its ranks."""
    for access in accesses(index):
        if access.tensor not in nest.traces:
            shape = ", ".join(f"{rank}: {nest.sizes.extents[rank]:,}" for rank in nest.cascade.tensor(access.tensor).ranks)
            raise refuse(
                "E530", f"`{tensor}` is read at positions that `{access.tensor}` gives: which these are, the model must be told",
                f"give its values: `--trace FILE.npz` with an integer array `{access.tensor}` of shape ({shape})", access.span,
            )  # fmt: skip
    extents = [nest.sizes.extents[rank] for rank in ranks]
    if np.prod(extents, dtype=float) > MAX_POINTS:
        raise refuse(
            "E530", f"an index of `{tensor}` has {np.prod(extents, dtype=float):,.0f} points; at most {MAX_POINTS:,} are evaluated"
        )
    coordinates = dict(zip(ranks, np.meshgrid(*(np.arange(n) for n in extents), indexing="ij", sparse=True), strict=True))

    def at(expr: Expr) -> Any:
        match expr:
            case Number(value=value):
                return int(value)
            case Scalar(name=name):
                return int(nest.sizes.scalars[name])
            case Coord(rank=rank):
                return coordinates[rank]
            case Access(tensor=name, indices=indices):
                inside = [np.clip(at(i), 0, n - 1) for i, n in zip(indices, nest.traces[name].shape, strict=True)]
                return nest.traces[name][tuple(inside)]
            case Map(op=op, args=args) if op in _OPERATIONS:
                return _OPERATIONS[op](*(at(arg) for arg in args))
        raise refuse(
            "E530", f"`{tensor}` is accessed through an index that the mapper does not model", span=getattr(expr, "span", None)
        )

    return np.broadcast_to(np.asarray(at(index)), extents)
