"""Live words: by hand, and against what is alive when the traversal is executed point by point."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.einsum.analysis import Analysis, analyze
from einsmith.einsum.cascade import Cascade

from .brute import Element, Simulation
from .specs import EXAMPLES

FILES = Path(__file__).parents[3] / "examples" / "attention"


def load(name: str) -> Cascade:
    path = FILES / f"{name}.yaml"
    return spec.load(path) if path.exists() else spec.loads(EXAMPLES[name].text("x"))


def order(analysis: Analysis, simulation: Simulation) -> list[tuple[Element, set[Element]]]:
    """All points in the order of the traversal: (element made, elements read)."""
    from einsmith.einsum.analysis.footprint import Footprints
    from einsmith.einsum.analysis.points import Spaces
    from einsmith.einsum.analysis.prepared import prepare

    prepared = prepare(simulation.cascade)
    footprints = Footprints(prepared, Spaces(prepared.cascade))
    runs = [(loop, footprints.along(loop)) for loop in analysis.live.traversal.loops]

    def when(point: object) -> tuple[tuple[float, ...], ...]:
        key: list[tuple[float, ...]] = []
        number = point.einsum  # type: ignore[attr-defined]
        for loop, run in runs:
            level = run.levels[number]
            place = point.values.get(loop, math.inf if level else -1)  # type: ignore[attr-defined]
            key.append((max(level, 1) if place != -1 else 0, place))
        return (*key, (number, 0))

    return [(point.output, point.reads) for point in sorted(simulation.points, key=when)]


def peaks(trace: list[tuple[Element, set[Element]]], inputs: set[str]) -> tuple[dict[str, int], int]:
    """Most elements of each tensor (and of all) that are alive at once: from the first to the last touch.

    A value that is read for the last time where a new one of its own tensor is made gives its place to it (a state, a scan).
    """
    first: dict[Element, int] = {}
    last: dict[Element, int] = {}
    for time, (made, read) in enumerate(trace):
        for element in (made, *read):
            first.setdefault(element, time)
            last[element] = time
    made_at: dict[Element, int] = {}
    for time, (made, _) in enumerate(trace):
        made_at.setdefault(made, time)
    for element, time in first.items():
        assert element[0] in inputs or made_at[element] <= time, f"{element} is read before it is made"
    alive: dict[str, int] = {}
    peak: dict[str, int] = {}
    total = most = 0
    starts: dict[int, list[Element]] = {}
    ends: dict[int, list[Element]] = {}
    for element in first:
        starts.setdefault(first[element], []).append(element)
        ends.setdefault(last[element], []).append(element)
    for time, (made, _) in enumerate(trace):
        ending = ends.get(time, [])
        in_place = next((one for one in ending if one[0] == made[0] and one != made and made in starts.get(time, ())), None)
        if in_place is not None:
            ending.remove(in_place)
            alive[made[0]] -= 1
            total -= 1
        for element in starts.get(time, ()):
            alive[element[0]] = alive.get(element[0], 0) + 1
            total += 1
            peak[element[0]] = max(peak.get(element[0], 0), alive[element[0]])
        most = max(most, total)
        for element in ending:
            alive[element[0]] -= 1
            total -= 1
    return peak, most


SMALL = {"B": 2, "H": 2, "P": 4, "M": 6, "M0": 2, "E": 3, "F": 5, "KV": 2, "G": 2, "N": 5, "C": 3, "D": 3, "L": 5, "J": 2, "W": 1}
TRAVERSED = [
    "softmax", "deferred-division", "fusemax", "flash2", "tile-local-2pass", "tile-local-merge", "linear-causal", "sigmoid",
    "softmax-causal", "reversed", "gqa", "sink", "alibi", "mqa", "rms norm, then scaling", "channel attention over tokens",
    "cumsum",
    "completeness passes through", "softplus attention with two normalisers",
]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSED)
def test_no_tensor_needs_more_than_its_live_words(name: str) -> None:
    cascade = load(name)
    sizes = {symbol: SMALL[symbol] for symbol in cascade.symbols}
    analysis = analyze(cascade, sizes)
    along = analysis.live.traversal.along
    simulation = Simulation(cascade, along, sizes)
    peak, most = peaks(order(analysis, simulation), {tensor.name for tensor in cascade.inputs})
    for tensor, words in peak.items():
        assert words <= analysis.number(analysis.live.held[tensor].words), tensor
    assert most <= analysis.number(analysis.live.total)  # type: ignore[operator]


EXACT = {
    "softmax": ("Q", "K", "V", "QK", "GM", "SN", "SD", "A", "AV"),
    "deferred-division": ("Q", "K", "V", "QK", "GM", "SN", "SNV", "AV"),
    "fusemax": ("Q", "K", "V", "RM", "QK", "LM", "SLN", "SLD", "AV"),
    "linear-causal": ("K", "Q", "V", "AV"),
    "rms norm, then scaling": ("X", "SS", "Y"),
    "channel attention over tokens": ("Q", "K", "V", "S", "A", "Y"),
    "cumsum": ("X", "Y"),
}


@pytest.mark.parametrize("name", EXACT)
def test_these_tensors_need_exactly_their_live_words(name: str) -> None:
    cascade = load(name)
    sizes = {symbol: SMALL[symbol] for symbol in cascade.symbols}
    analysis = analyze(cascade, sizes)
    simulation = Simulation(cascade, analysis.live.traversal.along, sizes)
    peak, _ = peaks(order(analysis, simulation), {tensor.name for tensor in cascade.inputs})
    for tensor in EXACT[name]:
        assert peak[tensor] == analysis.number(analysis.live.held[tensor].words), tensor


def test_three_passes_hold_rows_of_the_scores_and_one_pass_does_not() -> None:
    three, one = analyze(load("softmax"), symbolic=True, ranks=["m"]), analyze(load("fusemax"), symbolic=True, ranks=["m"])
    assert str(three.live.held["QK"].words) == "P*M"
    assert str(three.live.held["K"].words) == "E"
    assert str(three.live.held["Q"].words) == "P*E"
    assert three.live.total.symbols >= {"M"}
    assert not any({"M", "M1"} & held.words.symbols for held in one.live.held.values())
    assert str(one.live.held["QK"].words) == "M0"
    assert str(one.live.held["K"].words) == "M0*E"
    assert str(one.live.held["RNV"].words) == "P*F"


def test_footprints_are_whole_tensors_in_bytes() -> None:
    found = analyze(load("fusemax"), symbolic=True).as_json()["tensors"]
    assert found["K"]["footprint"] == "2*B*H*M*E"
    assert found["QK"]["footprint"] == "2*B*H*P*M"
    assert found["RM"]["footprint"] == "2*B*H*P*(M1 + 1)"
    sized = analyze(load("fusemax"), {"B": 1, "H": 2, "P": 5, "M": 7, "M0": 3, "E": 2, "F": 2}, word_bytes=4).as_json()["tensors"]
    assert sized["K"]["footprint"] == 4 * 2 * 7 * 2
    assert sized["RM"]["footprint"] == 4 * 2 * 5 * 4


def test_ranks_can_be_put_outermost() -> None:
    found = analyze(load("softmax"), symbolic=True, ranks=["m"], outer=["p"]).live
    assert found.traversal.outer == ("p", "b", "h")
    assert str(found.held["QK"].words) == "M"
    assert str(found.held["K"].words) == "B*H*M*E"


def test_windows_hold_as_many_rows_as_they_span() -> None:
    found = analyze(load("sliding-window"), symbolic=True).live
    assert str(found.held["K"].words) == "E*(2*W + 1)"
    assert str(found.held["S"].words) == "2*W + 1"
