"""How Einsums share time and space, by hand: phases, flow, groups as a pipeline; what is tapped, replaced in place and spilled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import architecture, mapping
from einsmith.mapper.batch import compile as compile_batch
from einsmith.mapper.cost import Cost, model


def refusal(code: str, call: Callable[[], Cost]) -> str:
    with pytest.raises(EinsmithError) as refused:
        call()
    assert refused.value.diagnostics[0].code == code
    return refused.value.diagnostics[0].message


# --- phases: the one-pass cascade on 128 x 128, one tile after another ------------------------------------------------

PHASES = """
sizes: {M0: 128}
groups:
- schedule: phases
  phases: [[QK, LM, RD, AV], [RM], [SLN, SLD, PRM, SPD], [SLNV, SPNV, RNV]]
  hidden: [SLD, SLNV]
  loops: [{rank: b, tile: 1}, {rank: h, tile: 1}, {rank: p, tile: 512}, {rank: m1, tile: 1}, {rank: p, tile: 128}]
  einsums:
    QK: {array: array2d, spatial: [m0, p]}
    LM: {array: array2d, spatial: [m0, p]}
    RM: {array: array1d, spatial: [p]}
    SLN: {array: array2d, spatial: [m0, p]}
    SLD: {array: array2d, spatial: [m0, p]}
    SLNV: {array: array2d, spatial: [m0, p]}
    PRM: {array: array1d, spatial: [p]}
    SPD: {array: array1d, spatial: [p]}
    RD: {array: array1d, spatial: [p]}
    SPNV: {array: array1d, spatial: [p]}
    RNV: {array: array1d, spatial: [p]}
    AV: {array: array1d, spatial: [p]}
  stay:
    {QK: array2d, SLN: array2d, LM: array1d, SLD: array1d, SLNV: forward, PRM: array1d, SPD: array1d, SPNV: forward, AV: forward}
"""


def phases(changes: dict[str, str] | None = None, f: int = 16) -> Cost:
    """20 tiles: 5 of keys for each of 4 of queries."""
    how = PHASES
    for old, new in (changes or {}).items():
        assert old in how
        how = how.replace(old, new)
    cascade = spec.load(EXAMPLES / "attention" / "fusemax.yaml")
    arch = architecture.load("fusemax", ("array2d.side=[128,128]", "array1d.side=[128]"))
    sizes = {"B": 1, "H": 1, "P": 512, "M": 640, "E": 32, "F": f}
    return model(cascade, arch, mapping.loads(how), sizes, {"scale": 1})


def test_phases_follow_one_another() -> None:
    # (QK 32, LM 1) beside (RD 1, AV 16); 128 until the maxima are out; RM; (SLN 7, SLD 1) beside (PRM 7, SPD 1); SLNV 16 beside
    # 16 + 16
    assert phases().cycles == 20 * (33 + 128 + 1 + 8 + 32) == 4040


def test_a_phase_is_as_long_as_its_busiest_array() -> None:
    # 256 values: the division makes the first phase of the last tile of each row of tiles 1 + 256 long, maxima are out by then
    assert phases(f=256).cycles == 16 * (33 + 128 + 1 + 8 + 512) + 4 * (257 + 1 + 8 + 512)


def test_sums_that_are_not_hidden_keep_the_next_tile_waiting() -> None:
    # SLD ends after 170 cycles of a tile and is out 128 later; RD is the first thing in the next tile to need it
    assert phases({"hidden: [SLD, SLNV]": "hidden: [SLNV]"}).cycles == 20 * (170 + 128)
    # the first values of SLNV are out 128 cycles after it begins at 170; RNV takes them as they come, 16 cycles
    assert phases({"hidden: [SLD, SLNV]": "hidden: [SLD]"}).cycles == 20 * (170 + 128 + 16)


def test_phases_that_do_not_work() -> None:
    lacking = refusal("E510", lambda: phases({"[SLN, SLD, PRM, SPD]": "[SLN, SLD, PRM]"}))
    assert "`SPD`" in lacking
    twice = refusal("E510", lambda: phases({"[RM]": "[RM, QK]"}))
    assert "`QK` in two phases" in twice
    # RNV a phase before SLNV, whose values it takes as they are made
    early = {"[SLN, SLD, PRM, SPD]": "[SLN, SLD, PRM, SPD, SPNV, RNV]", "[SLNV, SPNV, RNV]": "[SLNV]"}
    assert "a tile later" in refusal("E522", lambda: phases(early))
    refusal("E510", lambda: phases({"schedule: phases": "schedule: pipelined"}))


# --- the textbook cascade on the teaching array: 32 x 32 lanes, 32 lanes, 16 bytes a cycle ----------------------------

SOFTMAX = """
name: textbook
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  GM[p]   = max[m](QK[p,m])
  SN[p,m] = exp(QK[p,m] - GM[p])
  SD[p]   = sum[m](SN[p,m])
  A[p,m]  = SN[p,m] / SD[p]
  AV[p,f] = A[p,m] * V[m,f]
outputs: [AV]
"""
ROWS = """
groups:
- schedule: interleaved
  loops: [{rank: p, tile: 32}]
  einsums:
    QK: {array: grid, spatial: [p, m]}
    GM: {array: vector, spatial: [p]}
    SN: {array: vector, spatial: [p]}
    SD: {array: vector, spatial: [p]}
    A: {array: vector, spatial: [p]}
    AV: {array: grid, spatial: [p, f]}
  bypass: {buffer: [Q, K, V]}
  stay: {GM: vector, SD: vector, AV: forward}
"""
IN_PLACE = "  in_place: [[QK, SN, A]]\n"


def textbook(how: str, settings: tuple[str, ...] = (), **sizes: int) -> Cost:
    arch = architecture.load("teaching-32x32", ("grid.folds_overlap=true", *settings))
    return model(spec.loads(SOFTMAX), arch, mapping.loads(how), {"P": 64, "M": 96, "E": 16, "F": 16} | sizes)


def test_scores_in_place_are_kept_once() -> None:
    scores = 32 * 96
    assert textbook(ROWS).groups[0].buffer_need == 2 * 3 * scores
    assert textbook(ROWS + IN_PLACE).groups[0].buffer_need == 2 * scores
    # A does not take the place of QK: it is made of SN
    assert "not made of" in refusal("E522", lambda: textbook(ROWS + "  in_place: [[QK, A]]\n"))
    # P replaces X element by element, but another one needs X after that
    later = SOFTMAX.replace("SN[p,m] / SD[p]", "SN[p,m] / SD[p] + QK[p,m]")

    def kept() -> Cost:
        arch = architecture.load("teaching-32x32")
        return model(spec.loads(later), arch, mapping.loads(ROWS + IN_PLACE), {"P": 64, "M": 96, "E": 16, "F": 16})

    assert "`A` still reads `QK`" in refusal("E522", kept)


def test_a_tap_reads_nothing_from_the_buffer() -> None:
    scores = 64 * 96
    plain = textbook(ROWS).groups[0].levels["buffer"]
    tapped = textbook(ROWS + "  taps: {SN: [SD]}\n").groups[0].levels["buffer"]
    assert plain.read_words == {"QK": 2 * scores, "SN": 2 * scores, "A": scores}
    assert tapped.read_words == {"QK": 2 * scores, "SN": scores, "A": scores}
    assert plain.written_words == tapped.written_words == {"QK": scores, "SN": scores, "A": scores}
    # A needs SD as well, which is complete only when all of SN has passed
    assert "waits for `SD`" in refusal("E522", lambda: textbook(ROWS + "  taps: {SN: [A]}\n"))


def test_what_finds_no_room_goes_out_and_comes_back_for_each_use() -> None:
    small = ("buffer.size=4608",)  # of 6144 bytes of scores: a quarter is spilled
    held = ROWS + IN_PLACE + "  taps: {SN: [SD]}\n"
    message = refusal("E520", lambda: textbook(held, small))
    assert "6,144" in message
    assert "4,608" in message
    kept, found = textbook(held), textbook(held + "  spill: [QK, SN, A]\n", small)
    quarter = 64 * 96 / 4
    extra = found.groups[0].traffic_words
    # QK is written, read by GM and by SN; SN is written and read by A; A is written and read by AV: 7 words for each score spilled
    assert {name: extra["write"][name] for name in ("QK", "SN", "A")} == {"QK": quarter, "SN": quarter, "A": quarter}
    assert {name: extra["read"][name] for name in ("QK", "SN", "A")} == {"QK": 2 * quarter, "SN": quarter, "A": quarter}
    assert found.traffic_bytes == kept.traffic_bytes + 2 * 7 * quarter
    assert found.groups[0].buffer_need == 4608
    # with room for all nothing is spilled
    assert textbook(held + "  spill: [QK, SN, A]\n").traffic_bytes == kept.traffic_bytes
    # 3072 bytes reserved for streams: 9216 are asked of 4608, so 4608 of the 6144 of scores go out
    reserving = held + "  spill: [QK, SN, A]\n  reserve: {buffer: 3072}\n"
    assert textbook(reserving, small).traffic_bytes == kept.traffic_bytes + 2 * 7 * 3 * quarter
    # as some published evaluations count: half of the need finds no room, so half of the scores
    counted = textbook(reserving + "  spill_share: need\n", small)
    assert counted.traffic_bytes == kept.traffic_bytes + 2 * 7 * 2 * quarter
    # what cannot go out has to fit
    assert "6,144 of it may be spilled" in refusal("E520", lambda: textbook(reserving.replace("3072", "4609"), small))
    # A shares the place of QK and SN: it goes nowhere without them
    refusal("E520", lambda: textbook(held + "  spill: [QK]\n", small))


def test_rows_that_follow_one_another_keep_both_arrays_at_work() -> None:
    # a tile of 32 rows: QK 3 folds of 16, AV 96; maxima 96, exps 96 x 5, sums 96, divisions 96 x 4
    tile = textbook(ROWS)
    assert tile.groups[0].timing.busy == {"grid": 2 * (48 + 96), "vector": 2 * (96 + 480 + 96 + 384)}
    # with one tile in flight one Einsum waits for the other; row by row the vector unit is always at work
    assert tile.groups[0].timing.dependences == 2 * (48 + 96 + 480 + 96 + 384 + 96)
    rows = textbook(ROWS + "  flow: p\n")
    assert rows.cycles == 2 * 1056
    assert rows.groups[0].timing.bound_by == "vector"
    # the sum over p of another Einsum would have to wait for all rows
    assert "`m`" in refusal("E511", lambda: textbook(ROWS + "  flow: m\n"))


APART = """
groups:
- loops: [{rank: p, tile: 32, hold: [Q]}]
  einsums: {QK: {array: grid, spatial: [p, m]}}
- loops: [{rank: p, tile: 32}]
  einsums:
    GM: {array: vector, spatial: [p]}
    SN: {array: vector, spatial: [p]}
    SD: {array: vector, spatial: [p]}
    A: {array: vector, spatial: [p]}
- loops: [{rank: p, tile: 32}]
  einsums: {AV: {array: grid, spatial: [p, f]}}
"""


def test_groups_as_a_pipeline_share_the_arrays_and_the_memory() -> None:
    large = ("buffer.size=1 MiB", "dram.bandwidth=1.6 TB/s")
    turns = textbook(APART, large)
    times = [group.timing.cycles for group in turns.groups]
    assert times == [96, 2112, 192]
    assert turns.cycles == 2400
    together = textbook("pipelined_loops: 1" + APART, large)
    assert together.cycles == 2112  # the vector unit; 96 + 192 cycles of the grid beside it
    assert together.traffic_bytes == turns.traffic_bytes
    assert together.energy_pj == turns.energy_pj
    # what all groups move goes over one memory, together
    slow = ("buffer.size=1 MiB", "dram.bandwidth=16 GB/s")
    assert textbook("pipelined_loops: 1" + APART, slow).cycles == together.traffic_bytes / 16
    # parts of the keys are no unit of work: a maximum needs all of them
    cut = APART.replace("{rank: p, tile: 32, hold: [Q]}", "{rank: m, tile: 32}").replace(
        "{rank: p, tile: 32}", "{rank: m, tile: 32}"
    )
    refusal("E511", lambda: textbook("pipelined_loops: 1" + cut, large))


def test_a_pipeline_needs_room_for_all_its_groups() -> None:
    needs = [group.buffer_need for group in textbook(APART).groups]
    enough = (f"buffer.size={sum(needs)}",)
    assert textbook("pipelined_loops: 1" + APART, enough).cycles > 0
    message = refusal("E520", lambda: textbook("pipelined_loops: 1" + APART, (f"buffer.size={sum(needs) - 1}",)))
    assert f"{sum(needs):,}" in message


def test_batches_leave_what_they_do_not_know_to_the_model() -> None:
    arch = architecture.load("teaching-32x32", ("grid.folds_overlap=true",))
    how = mapping.loads(ROWS + "  flow: p\n")
    batch = compile_batch(spec.loads(SOFTMAX), arch, how, {"M": 96, "E": 16, "F": 16})
    found = batch(sizes={"P": [64, 128]})
    assert found.exact == 2
    assert found.cycles.tolist() == [2 * 1056, 4 * 1056]
