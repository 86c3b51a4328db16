"""No accepted mapping uses a value before it is complete: its loops are executed element by element, and every read is checked."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade, Expr, Map
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.library import EXAMPLES
from einsmith.einsum.sizes import evaluate_scalar
from einsmith.mapper import architecture
from einsmith.mapper.mapping import Binding, Group, Loop, Mapping
from einsmith.mapper.nest import Nest, Step, place
from einsmith.mapper.space import einsum_order
from einsmith.sim.walk import Walk

ROOMY = architecture.load(
    "fusemax",
    (
        "buffer.size=1 GiB",
        *(f"array1d.expansions.{name}={{mac: 9}}" for name in ("exp2", "pow", "sqrt", "rsqrt", "softplus", "log")),
    ),
)
SIZES = {"B": 1, "H": 1, "P": 3, "M": 4, "L": 4, "E": 1, "F": 1, "M0": 2, "C": 2}
NAMES = ("softmax", "softmax-causal", "deferred-division", "fusemax", "flash2", "tile-local-2pass", "tile-local-merge",
         "linear-causal", "channel",
         "sliding-window", "linear", "softplus-lssa")  # fmt: skip


def cascade_of(name: str) -> tuple[Cascade, dict[str, int]]:
    cascade = flatten(spec.load(EXAMPLES / "attention" / f"{name}.yaml"))
    return cascade, {symbol: SIZES[symbol] for symbol in cascade.symbols if symbol in SIZES}


def value(expr: Expr, point: dict[str, int], scalars: dict[str, int | float]) -> int:
    return int(evaluate_scalar(_scalars(expr), {**scalars, **{f"@{rank}": at for rank, at in point.items()}}))


def _scalars(expr: Expr) -> Expr:
    from einsmith.einsum.cascade import Coord, Scalar, transform

    return transform(expr, lambda node: Scalar(f"@{node.rank}") if isinstance(node, Coord) else node)


def exists(nest: Nest, point: dict[str, int]) -> bool:
    """Whether a point of split ranks lies within the rank."""
    for rank in nest.cascade.domain_splits(frozenset(point)):
        assert rank.split is not None
        tile = nest.sizes.extents[rank.split.inner]
        if point[rank.split.outer] * tile + point[rank.split.inner] >= nest.sizes.extents[rank.name]:
            return False
    return True


def live_reads(expr: Expr, point: dict[str, int], scalars: dict[str, int | float]) -> list[tuple[str, tuple[int, ...]]]:
    """Elements that an expression reads at a point; a branch of `where` that coordinates rule out is not read."""
    from einsmith.einsum.cascade import Access, children

    if isinstance(expr, Map) and expr.op == "where":
        try:
            chosen = expr.args[1] if value(expr.args[0], point, scalars) else expr.args[2]
        except (ValueError, KeyError):
            pass
        else:
            return live_reads(chosen, point, scalars)
    if isinstance(expr, Access):
        return [(expr.tensor, tuple(value(index, point, scalars) for index in expr.indices))]
    return [read for part in children(expr) for read in live_reads(part, point, scalars)]


def points(nest: Nest, step: Step, ranges: dict[str, tuple[int, int]]) -> list[dict[str, int]]:
    ranks = sorted(step.ranks)
    found = [dict(zip(ranks, at, strict=True)) for at in product(*(range(*ranges[rank]) for rank in ranks))]
    return [point for point in found if exists(nest, point)]


def execute(nests: tuple[Nest, ...]) -> int:
    """Run all tiles; every element read must be complete. Returns the number of reads checked."""
    checked = 0
    missing: dict[tuple[str, tuple[int, ...]], int] = {}
    for nest in nests:  # how many contributions each element still lacks
        whole = {rank: (0, extent) for rank, extent in nest.sizes.extents.items()}
        for step in nest.steps:
            for point in points(nest, step, whole):
                element = step.output, tuple(value(index, point, dict(nest.sizes.scalars)) for index in step.einsum.indices)
                missing[element] = missing.get(element, 0) + 1
    for nest in nests:
        scalars = dict(nest.sizes.scalars)
        walk = Walk(nest)
        for index in walk.tiles():
            ranges = {rank: (0, extent) for rank, extent in nest.sizes.extents.items()}
            for loop, at in zip(nest.group.loops, index, strict=True):
                low, high = ranges[loop.rank]
                ranges[loop.rank] = (low + at * loop.tile, min(low + (at + 1) * loop.tile, high))
            for step in nest.steps:
                if not walk.runs(step, index) and not walk.skipped(step, index):  # masks aside: every tile is run
                    continue
                for point in points(nest, step, ranges):
                    for read in live_reads(step.einsum.body, point, scalars):
                        assert missing.get(read, 0) == 0, f"{step.name} at {point} in tile {index} reads {read} too early"
                        checked += 1
                    element = step.output, tuple(value(i, point, scalars) for i in step.einsum.indices)
                    missing[element] -= 1
    assert not any(missing.values())
    return checked


@st.composite
def groups_of(draw: st.DrawFn, name: str) -> Mapping:
    cascade, _ = cascade_of(name)
    names = einsum_order(cascade)
    cuts = sorted(draw(st.sets(st.integers(1, len(names)), max_size=2))) if draw(st.booleans()) else []
    groups = []
    states = {tensor.iterates for tensor in cascade.tensors if tensor.iterates}
    for start, end in zip([0, *cuts], [*cuts, len(names)], strict=True):
        if start == end:
            continue
        ranks = [rank.name for rank in cascade.ranks if rank.split is None]
        loops: list[Loop] = []
        tile: dict[str, int] = {}
        for rank in draw(st.lists(st.sampled_from(ranks), max_size=3)):
            tile[rank] = 1 if rank in states else draw(st.integers(1, tile.get(rank, 3)))
            loops.append(Loop(rank=rank, tile=tile[rank]))
        for rank in sorted(states - tile.keys()):
            loops.insert(draw(st.integers(0, len(loops))), Loop(rank=rank, tile=1))
        groups.append(Group(loops=tuple(loops), einsums={output: Binding(array="array1d") for output in names[start:end]}))
    return Mapping(groups=tuple(groups))


@pytest.mark.parametrize("name", NAMES)
def test_accepted_mappings_read_only_what_is_complete(name: str) -> None:
    cascade, sizes = cascade_of(name)
    accepted = refused = 0
    codes: set[str] = set()

    @settings(max_examples=40)
    @given(groups_of(name))
    def attempt(mapping: Mapping) -> None:
        nonlocal accepted, refused
        try:
            placed = place(cascade, ROOMY, mapping, sizes)
        except EinsmithError as error:
            refused += 1
            codes.update(diagnostic.code for diagnostic in error.diagnostics)
            return
        accepted += 1
        execute(placed.nests)

    attempt()
    assert accepted >= 3, (accepted, refused)
    assert codes <= {"E510", "E511", "E530"}  # E510: an inner tile larger than the outer one, a rank that nobody iterates
