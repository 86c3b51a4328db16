"""Traffic: by hand, its limits, and against the best schedule that a search of all schedules finds."""

from __future__ import annotations

import heapq
from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.einsum.analysis import Analysis, analyze
from einsmith.einsum.cascade import Cascade

from .specs import EXAMPLES

FILES = Path(__file__).parents[3] / "examples" / "attention"


def load(name: str) -> Cascade:
    path = FILES / f"{name}.yaml"
    return spec.load(path) if path.exists() else spec.loads(EXAMPLES[name].text("x"))


def at(cascade: Cascade, words: int, **sizes: int) -> Analysis:
    return analyze(cascade, sizes, buffer=2 * words)


def test_compulsory_is_inputs_and_outputs_once() -> None:
    found = analyze(load("softmax"), symbolic=True).as_json()["traffic"]
    assert found["inputs"] == {"Q": "B*H*P*E", "K": "B*H*M*E", "V": "B*H*M*F"}
    assert found["outputs"] == {"AV": "B*H*P*F"}
    assert found["exact"]
    sized = analyze(load("softmax"), {"B": 2, "H": 3, "P": 5, "M": 7, "E": 4, "F": 6}).as_json()["traffic"]
    assert sized["compulsory"] == 6 * (5 * 4 + 7 * 4 + 7 * 6 + 5 * 6)


def test_only_what_masks_and_windows_let_through_is_compulsory() -> None:
    causal = analyze(load("softmax-causal"), {"B": 1, "H": 1, "P": 5, "M": 9, "E": 2, "F": 3}).as_json()["traffic"]
    assert causal["inputs"] == {"Q": 10, "K": 10, "V": 15}  # keys after the last query are never seen
    window = analyze(load("sliding-window"), {"B": 1, "H": 1, "P": 4, "M": 20, "W": 3, "E": 2, "F": 1}).as_json()["traffic"]
    assert window["inputs"] == {"Q": 8, "K": 14, "V": 7}  # keys 0 to 6
    chosen = analyze(load("topk-attention"), {"B": 1, "H": 1, "P": 4, "M": 9, "J": 3, "E": 2, "F": 5}).as_json()["traffic"]
    assert chosen["inputs"] == {"Q": 8, "K": 18, "V": 15}  # at least the J rows of one query


@pytest.mark.parametrize(
    "name", ["softmax", "deferred-division", "softmax-causal", "fusemax", "rms-norm-matmul", "reversed", "sink", "gqa", "channel"]
)
def test_bound_and_schedule_close_in_on_compulsory(name: str) -> None:
    cascade = load(name)
    sizes = {"B": 2, "H": 2, "P": 24, "M": 40, "E": 4, "F": 4, "M0": 8, "KV": 2, "G": 2, "C": 4}
    sizes = {symbol: sizes[symbol] for symbol in cascade.symbols}
    whole = analyze(cascade, sizes)
    enough = whole.number(whole.traffic.live)
    compulsory = whole.number(whole.traffic.compulsory)
    assert isinstance(enough, int)
    previous = None
    for words in [*range(8, enough, max(1, enough // 25)), enough, 2 * enough]:
        found = at(cascade, words, **sizes)
        bound = found.bound(words)
        assert bound >= compulsory  # type: ignore[operator]
        if found.scheduled is None:
            assert previous is None
            continue
        assert bound <= found.scheduled.words  # type: ignore[operator]
        if previous is not None:
            assert found.scheduled.words <= previous
        previous = found.scheduled.words
    assert previous == compulsory == whole.bound(enough)


def test_passes_cost_traffic_where_the_buffer_is_small() -> None:
    """A row of scores that does not fit is spilled and read back, or its keys are read again; one pass needs neither."""
    sizes = {"B": 1, "H": 1, "P": 16, "M": 4096, "E": 8, "F": 8}
    three, two = at(load("softmax"), 1024, **sizes), at(load("deferred-division"), 1024, **sizes)
    one = at(load("fusemax"), 1024, **sizes, M0=32)
    assert one.scheduled is not None
    assert two.scheduled is not None
    assert three.scheduled is not None
    assert one.scheduled.words < two.scheduled.words < three.scheduled.words
    assert one.bound(1024) == one.number(one.traffic.compulsory)
    assert three.bound(1024) == three.number(three.traffic.compulsory) + 2 * (4096 - 1024)


def test_a_tensor_read_at_two_levels_by_hand() -> None:
    found = analyze(load("rms norm, then scaling"), symbolic=True, ranks=["d"])
    (again,) = found.traffic.again
    assert (str(again.words), str(again.fibers), str(again.extra)) == ("D", "P", "P*max(0, D - S)")
    sized = at(load("rms norm, then scaling"), 3, P=2, D=8)
    assert sized.bound(3) == (2 * 8 + 8 + 2 * 8) + 2 * (8 - 3)


UNRELATED = """
name: unrelated
ranks: {m: M}
inputs: {X: [m], Y: [m]}
cascade: |
  Z    = sum[m](X[m])
  S    = sum[m](Y[m])
  T[m] = X[m] * S
outputs: [Z, T]
"""


def test_nothing_is_added_where_the_first_reader_does_not_feed_the_second_level() -> None:
    """Z may be summed in the second sweep as well: X need not be read in both."""
    found = analyze(spec.loads(UNRELATED))
    assert found.levels["m"].reads["m"]["X"] == (1, 2)
    assert found.traffic.again == ()


# --- against all schedules --------------------------------------------------------------------------------------------


def least_traffic(parents: dict[str, tuple[str, ...]], outputs: tuple[str, ...], buffer: int) -> int:
    """Fewest words moved by any schedule: Dijkstra over (what is in the buffer, what is in memory), recomputing allowed.

    A value may be computed in the place of one that it is computed from.
    """
    names = list(dict.fromkeys([*(p for ps in parents.values() for p in ps), *parents]))
    bit = {name: 1 << i for i, name in enumerate(names)}
    inputs = sum(bit[name] for name in names if name not in parents)
    goal = sum(bit[name] for name in outputs)
    start = (0, inputs)
    best = {start: 0}
    queue = [(0, start)]
    while queue:
        cost, state = heapq.heappop(queue)
        if cost > best[state]:
            continue
        held, stored = state
        if stored & goal == goal:
            return cost
        following: list[tuple[int, tuple[int, int]]] = []
        room = held.bit_count() < buffer
        for name, mask in bit.items():
            if held & mask:
                following.append((0, (held & ~mask, stored)))
                if not stored & mask:
                    following.append((1, (held, stored | mask)))
                continue
            if stored & mask and room:
                following.append((1, (held | mask, stored)))
            if name in parents and all(held & bit[p] for p in parents[name]):
                if room:
                    following.append((0, (held | mask, stored)))
                following += [(0, ((held & ~bit[p]) | mask, stored)) for p in parents[name]]
        for more, after in following:
            if cost + more < best.get(after, 1 << 30):
                best[after] = cost + more
                heapq.heappush(queue, (cost + more, after))
    raise AssertionError("impossible with this buffer")


def rms(size: int) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """A sum over x0, x1, ... in order, then each x times the result."""
    graph: dict[str, tuple[str, ...]] = {"s0": ("x0",)}
    for i in range(1, size):
        graph[f"s{i}"] = (f"s{i - 1}", f"x{i}")
    for i in range(size):
        graph[f"y{i}"] = (f"x{i}", f"s{size - 1}")
    return graph, tuple(f"y{i}" for i in range(size))


RMS = "name: rms\nranks: {d: D}\ninputs: {X: [d]}\ncascade: |\n  S = sum[d](X[d])\n  Y[d] = X[d] * S\noutputs: [Y]\n"


@pytest.mark.parametrize(("size", "buffer"), [(2, 2), (3, 2), (3, 3), (3, 4), (3, 5), (4, 3)])
def test_the_best_of_all_schedules_lies_between(size: int, buffer: int) -> None:
    found = analyze(spec.loads(RMS), {"D": size}, buffer=2 * buffer, ranks=["d"])
    least = least_traffic(*rms(size), buffer)
    assert found.bound(buffer) <= least  # type: ignore[operator]
    if found.scheduled is not None:
        assert least <= found.scheduled.words
    enough = found.number(found.traffic.live)
    if buffer >= enough:  # type: ignore[operator]
        assert found.bound(buffer) == least == found.number(found.traffic.compulsory)
    elif buffer < size + 1:  # one word less than enough will do if each Y takes the place of its X
        assert least > found.number(found.traffic.compulsory)  # type: ignore[operator]


def carried(size: int) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """t[m] = a[m] * b[m]; their sum; the sum of t[m] * sum: a row of scores in small."""
    graph: dict[str, tuple[str, ...]] = {}
    for i in range(size):
        graph[f"t{i}"] = (f"a{i}", f"b{i}")
        graph[f"s{i}"] = (f"t{i}",) if i == 0 else (f"s{i - 1}", f"t{i}")
    last = f"s{size - 1}"
    for i in range(size):
        graph[f"z{i}"] = (f"t{i}", last) if i == 0 else (f"z{i - 1}", f"t{i}", last)
    return graph, (f"z{size - 1}",)


CARRIED = (
    "name: carried\nranks: {m: M, e: 2}\ninputs: {A: [m, e]}\ncascade: |\n  T[m] = prod[e](A[m,e])\n  S = sum[m](T[m])\n"
    "  Z = sum[m](T[m] * S)\noutputs: [Z]\n"
)


@pytest.mark.parametrize(("size", "buffer"), [(2, 3), (2, 4), (2, 5), (3, 4)])
def test_a_carried_intermediate_against_all_schedules(size: int, buffer: int) -> None:
    found = analyze(spec.loads(CARRIED), {"M": size}, buffer=2 * buffer, ranks=["m"])
    least = least_traffic(*carried(size), buffer)
    assert found.bound(buffer) <= least  # type: ignore[operator]
    if found.scheduled is not None:
        assert least <= found.scheduled.words
    if buffer >= found.number(found.traffic.live):  # type: ignore[operator]
        assert found.bound(buffer) == least == found.number(found.traffic.compulsory)


def test_intensity() -> None:
    found = analyze(load("rms norm, then scaling"), {"P": 2, "D": 4}).as_json()
    operations = sum(found["operations"]["effective"].values())
    assert found["intensity"] == operations / (2 * (8 + 4 + 8))


def test_the_buffer_has_a_symbol_of_its_own() -> None:
    text = (
        EXAMPLES["rms norm, then scaling"]
        .text("x")
        .replace("d: D", "d: S")
        .replace("SS[p] / D", "SS[p] / S")
        .replace("{P: 3, D: 4}", "{P: 3, S: 4}")
    )
    found = analyze(spec.loads(text), {"P": 2, "S": 8})
    assert found.traffic.buffer == "SS"
    assert found.bound(3) == (2 * 8 + 8 + 2 * 8) + 2 * (8 - 3)


@pytest.mark.parametrize(("length", "published"), [(1024, 4.0265e8), (4096, 1.6106e9), (16384, 6.4425e9), (65536, 3.8655e10)])
def test_the_one_pass_cascade_moves_what_fusemax_published(length: int, published: float) -> None:
    """Bytes from and to DRAM of the FuseMax accelerator (MICRO 2024) on BERT, batch 64, with its buffer of 16 MiB."""
    sizes = {"B": 64, "H": 12, "P": length, "M": length, "E": 64, "F": 64, "M0": 256}
    found = analyze(load("fusemax"), sizes, ranks=["m"], buffer=16 << 20)
    assert found.scheduled is not None
    assert 2 * found.scheduled.words == pytest.approx(published, rel=1e-4)
