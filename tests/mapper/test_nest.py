"""Mappings placed on cascades: what is legal, and counts equal to those of the loops executed one tile at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import architecture, mapping
from einsmith.mapper.cost import cost
from einsmith.mapper.nest import Placed, place

TWO = """name: two
ranks: {m: M, p: P}
inputs: {X: [m, p]}
cascade: |
  GM[m]   = max[p](X[m,p])
  SN[m,p] = exp(X[m,p] - GM[m])
outputs: [SN]
"""
GEMM = """name: gemm
ranks: {m: M, n: N, k: K}
inputs: {A: [m, k], B: [k, n]}
cascade: |
  C[m,n] = A[m,k] * B[k,n]
outputs: [C]
"""
TINY = ("buffer.size=128",)  # 64 values


def put(text: str, groups: str, arch: str = "fusemax", settings: tuple[str, ...] = (), **sizes: int) -> Placed:
    return place(spec.loads(text), architecture.load(arch, settings), mapping.loads("groups:\n" + groups), sizes)


def refusal(text: str, groups: str, arch: str = "fusemax", settings: tuple[str, ...] = (), **sizes: int) -> tuple[str, str]:
    with pytest.raises(EinsmithError) as raised:
        put(text, groups, arch, settings, **sizes)
    (diagnostic,) = raised.value.diagnostics
    return diagnostic.code, diagnostic.message


ON_1D = "{array: array1d, spatial: [p]}"


def test_fusing_over_a_reduction_that_is_not_complete_is_refused_with_the_passes() -> None:
    groups = f"- loops: [{{rank: p, tile: 1}}]\n  einsums:\n    GM: {{array: array1d, spatial: [m]}}\n    SN: {ON_1D}\n"
    code, message = refusal(TWO, groups, settings=TINY, M=4, P=1024)
    assert code == "E511"
    assert "loops over `p`" in message
    assert "`GM` is made in pass 1 over `p`, `SN` belongs to pass 2" in message


def test_the_legal_schedule_reads_x_twice() -> None:
    groups = (
        "- loops: [{rank: m, tile: 1}, {rank: p, tile: 8}]\n  einsums: {GM: {array: array1d, spatial: [p]}}\n"
        "- loops: [{rank: m, tile: 1}, {rank: p, tile: 8}]\n  einsums: {SN: {array: array1d, spatial: [p]}}\n"
        "  stay: {SN: forward}\n"
    )
    placed = put(TWO, groups, settings=TINY, M=4, P=1024)
    assert (
        sum(nest.stream_words(stream) for nest in placed.nests for stream in nest.streams if stream.tensor == "X") == 2 * 4 * 1024
    )


def test_holding_a_whole_row_is_legal_only_where_it_fits() -> None:
    groups = f"- loops: [{{rank: m, tile: 1}}]\n  einsums:\n    GM: {ON_1D}\n    SN: {ON_1D}\n  stay: {{SN: forward}}\n"
    placed = put(TWO, groups, M=4, P=1024)
    assert placed.nests[0].stream_words(placed.nests[0].streams[0]) == 4 * 1024
    code, message = refusal(TWO, groups, settings=TINY, M=4, P=1024)
    assert code == "E520"
    # X: two slots of a row of 1024 values of 2 bytes; GM: one value
    assert "needs 4,098 bytes of `buffer`, which has 128: `X` 4,096 (2 slots), `GM` 2" in message


def test_a_running_state_needs_its_loop() -> None:
    text = (
        "name: s\nranks: {m: M, p: P}\ninputs: {X: [m, p]}\ncascade: |\n  R[0,p] = 0\n  R[m+1,p] = R[m,p] * 0.5 + X[m,p]\n"
        "  Y[p] = R[M,p] * 2\noutputs: [Y]\n"
    )
    fused = f"  einsums:\n    R: {ON_1D}\n    Y: {ON_1D}\n"
    assert refusal(text, "- loops: []\n" + fused, M=8, P=16)[0] == "E511"
    assert refusal(text, "- loops: [{rank: m, tile: 2}]\n" + fused, M=8, P=16)[0] == "E511"
    placed = put(text, "- loops: [{rank: m, tile: 1}]\n" + fused, M=8, P=16)
    last = next(step for step in placed.nests[0].steps if step.name == "Y")
    assert last.slots == ("last",)


def test_a_reader_of_a_state_as_it_runs_belongs_to_its_group() -> None:
    head = "name: s\nranks: {m: M}\ninputs: {X: [m]}\ncascade: |\n"
    text = head + "  R[0] = 0\n  R[m+1] = R[m] + X[m]\n  Y[m] = R[m+1] * 2\noutputs: [Y]\n"
    loop = "- loops: [{rank: m, tile: 1}]\n"
    code, message = refusal(text, f"{loop}  einsums: {{R: {{array: array1d}}}}\n{loop}  einsums: {{Y: {{array: array1d}}}}\n", M=8)
    assert code == "E511"
    assert "running state `R`" in message
    put(text, f"{loop}  einsums: {{R: {{array: array1d}}, Y: {{array: array1d}}}}\n", M=8)


def test_what_is_made_tile_by_tile_must_be_read_at_the_same_place() -> None:
    head = "name: s\nranks: {m: M}\ninputs: {X: [m]}\ncascade: |\n"
    text = head + "  A[m] = X[m] * 2\n  Y[m] = where(m > 0, A[m-1], 0) + A[m]\noutputs: [Y]\n"
    both = "  einsums: {A: {array: array1d, spatial: [m]}, Y: {array: array1d, spatial: [m]}}\n"
    code, message = refusal(text, "- loops: [{rank: m, tile: 4}]\n" + both, M=16)
    assert code == "E511"
    assert "other positions" in message
    put(text, "- loops: []\n" + both, M=16)


BOTH = "  einsums: {GM: {array: array1d}, SN: {array: array1d}}\n"


@pytest.mark.parametrize(
    "groups, code, words",
    [
        ("- einsums: {GM: {array: array3d}, SN: {array: array1d}}\n", "E512", "does not have"),
        ("- einsums: {GM: {array: array1d, spatial: [m, p]}, SN: {array: array1d}}\n", "E512", "2 spatial sides"),
        ("- einsums: {GM: {array: array2d, spatial: [m, m]}, SN: {array: array1d}}\n", "E512", "twice"),
        ("- einsums: {GM: {array: array1d}}\n", "E510", "lacks `SN`"),
        ("- einsums: {GM: {array: array1d}, SN: {array: array1d}, X: {array: array1d}}\n", "E510", "`X`"),
        ("- einsums: {SN: {array: array1d}}\n- einsums: {GM: {array: array1d}}\n", "E510", "earlier group"),
        ("- loops: [{rank: q, tile: 1}]\n  einsums: {GM: {array: array1d}, SN: {array: array1d}}\n", "E510", "`q`"),
        ("- loops: [{rank: m, tile: 2}, {rank: m, tile: 4}]\n" + BOTH, "E510", "larger"),
        ("- loops: [{rank: m, tile: 2, hold: [Z]}]\n" + BOTH, "E510", "holds `Z`"),
        ("- einsums: {GM: {array: array1d}, SN: {array: array1d}}\n  stay: {GM: forward}\n", "E522", "more than once"),
        ("- einsums: {GM: {array: array1d}, SN: {array: array1d}}\n  stay: {GM: nowhere}\n", "E512", "`nowhere`"),
        ("- einsums: {GM: {array: array1d}, SN: {array: array1d}}\n  stay: {SN: array1d}\n", "E512", "leaves"),
        ("- einsums: {GM: {array: array1d}, SN: {array: array1d, spatial: [m]}}\n  stay: {GM: array1d}\n", "E522", "differently"),
        ("- einsums: {GM: {array: array1d}, SN: {array: array1d}}\n  stay: {GM: array1d}\n", "E521", "needs 64 words"),
    ],
)  # fmt: skip
def test_mappings_that_do_not_fit_are_refused_with_a_reason(groups: str, code: str, words: str) -> None:
    found, message = refusal(TWO, groups, M=64, P=32)
    assert (found, words in message) == (code, True), message


def test_missing_unit_is_named_with_who_has_it() -> None:
    groups = "- einsums: {GM: {array: grid, spatial: [m]}, SN: {array: vector, spatial: [p]}}\n"
    code, message = refusal(TWO, groups, arch="teaching-32x32", M=4, P=4)
    assert code == "E513"
    assert message == "`GM` needs `max`; array `grid` has add, mac, multiply"


@pytest.mark.parametrize(
    "expression, settings, help",
    [
        ("exp(X[m,p])", (), "`vector` can"),
        ("tanh(X[m,p])", (), "give it as a unit or an expansion, such as `--set 'grid.expansions.tanh={mac: 6}'`"),
        (
            "sigmoid(X[m,p]) / X[m,0]",
            ("grid.expansions.sigmoid={mac: 6}",),  # no expansions in the file
            "`vector` lacks `sigmoid`; give it as a unit or an expansion, such as `--set 'grid.expansions.divide={mac: 6}'`, "
            "or split the Einsum",
        ),
    ],
)
def test_help_for_a_missing_unit_names_an_array_that_has_all(expression: str, settings: tuple[str, ...], help: str) -> None:
    text = f"name: one\nranks: {{m: M, p: P}}\ninputs: {{X: [m, p]}}\ncascade: |\n  Y[m,p] = {expression}\noutputs: [Y]\n"
    with pytest.raises(EinsmithError) as raised:
        put(text, "- einsums: {Y: {array: grid, spatial: [m]}}\n", "teaching-32x32", settings, M=4, P=4)
    assert raised.value.diagnostics[0].help == help


# --- counts against the loops themselves ------------------------------------------------------------------------------

RANKS = ("m", "n", "k")


@st.composite
def gemm_mappings(draw: st.DrawFn) -> tuple[dict[str, int], str]:
    sizes = {rank.upper(): draw(st.integers(1, 7)) for rank in RANKS}
    loops: list[str] = []
    tile: dict[str, int] = {}
    for rank in draw(st.lists(st.sampled_from(RANKS), max_size=4)):
        tile[rank] = draw(st.integers(1, tile.get(rank, 8)))
        loops.append(f"{{rank: {rank}, tile: {tile[rank]}, hold: {draw(st.sampled_from(('[]', '[A]', '[B]', '[A, B]')))}}}")
    seen: set[str] = set()
    for i in reversed(range(len(loops))):  # a tensor is held at one loop
        for name in ("A", "B"):
            if name in loops[i].split("hold:")[1]:
                if name in seen:
                    head, tail = loops[i].split("hold:")
                    loops[i] = head + "hold:" + tail.replace(f"{name}, ", "").replace(f", {name}", "").replace(name, "")
                seen.add(name)
    spatial = draw(st.sampled_from(("[m, n]", "[m, k]", "[k, n]", "[n]", "[]", "[[m, n], k]")))
    groups = f"- loops: [{', '.join(loops)}]\n  einsums: {{C: {{array: grid, spatial: {spatial}}}}}\n"
    return sizes, groups


def tiles_of(placed: Placed) -> Iterator[tuple[dict[str, tuple[int, int]], list[dict[str, tuple[int, int]]]]]:
    """Every tile as ranges of ranks, after each number of loops."""
    (nest,) = placed.nests
    loops = nest.group.loops
    for index in product(*(range(trips) for trips in nest.trips)):
        ranges = {rank: (0, placed.sizes.extents[rank]) for rank in RANKS}
        after = [dict(ranges)]
        for loop, at in zip(loops, index, strict=True):
            low, high = ranges[loop.rank]
            ranges[loop.rank] = (low + at * loop.tile, min(low + (at + 1) * loop.tile, high))
            after.append(dict(ranges))
        if all(low < high for low, high in ranges.values()):
            yield ranges, after


@given(gemm_mappings(), st.integers(1, 4), st.integers(1, 4))
def test_counts_equal_those_of_the_loops(drawn: tuple[dict[str, int], str], rows: int, columns: int) -> None:
    sizes, groups = drawn
    settings = (f"grid.side=[{rows}, {columns}]", "buffer.size=1 MiB", "grid.folds_overlap=true")
    placed = put(GEMM, groups, "teaching-32x32", settings, **sizes)
    (nest,) = placed.nests
    (step,) = nest.steps
    fetched = {"A": 0, "B": 0}
    held: dict[str, tuple[tuple[int, int], ...]] = {}
    cycles = operations = executions = 0
    for tile, after in tiles_of(placed):
        executions += 1
        length = {rank: high - low for rank, (low, high) in tile.items()}
        operations += length["m"] * length["n"] * length["k"]
        work = 1
        for side, lanes in enumerate((rows, columns)):
            along = step.binding.along(side)
            share = 1
            for rank in along:
                share *= length[rank]
            work *= -(-share // lanes)
        for rank in RANKS:
            if rank not in step.binding.ranks:
                work *= length[rank]
        cycles += work
        for stream in nest.streams:
            ranks = "mk" if stream.tensor == "A" else "kn"
            box = tuple(after[stream.depth][rank] for rank in ranks)
            if held.get(stream.tensor) != box:
                held[stream.tensor] = box
                fetched[stream.tensor] += (box[0][1] - box[0][0]) * (box[1][1] - box[1][0])
    assert nest.executions(step) == executions
    assert nest.busy(step) == cycles
    (found,) = cost(placed).groups
    assert found.traffic_words["read"] == fetched
    assert found.einsums["C"].operations == {"mac": operations}
    assert found.traffic_words["write"] == {"C": sizes["M"] * sizes["N"]}
