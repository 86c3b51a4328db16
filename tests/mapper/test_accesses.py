"""Accesses of every storage level equal those of a loop nest that is executed one element at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import architecture, mapping
from einsmith.mapper.accesses import accesses
from einsmith.mapper.nest import place

ARCH = """
name: three
source: test
clock_hz: 1.0e+9
word_bytes: 1
memory:
  dram: {access_bytes: 1, read_pj: 1, write_pj: 1, source: test}
  buffer: {access_bytes: 1, read_pj: 1, write_pj: 1, source: test}
  local: {instances: 4, access_bytes: 1, read_pj: 1, write_pj: 1, source: test}
arrays:
  grid:
    side: [2, 3]
    units: {mac: {energy_pj: 1, source: test}}
    registers: {words: 4096, source: test}
    source: test
"""


@dataclass(frozen=True)
class Problem:
    """A contraction over m, n, k: how operands are indexed, and which points a mask lets through."""

    text: str
    operands: dict[str, tuple[str, ...]]
    """Each dimension as a sum of ranks."""
    result: tuple[str, ...]
    masked: bool = False

    def live(self, at: dict[str, int]) -> bool:
        return not self.masked or at["k"] <= at["m"] + 1


HEAD = "ranks: {m: M, n: N, k: K, x: {extent: M + K}}\n"
PROBLEMS = [
    Problem(
        f"name: gemm\n{HEAD}inputs: {{A: [m, k], B: [k, n]}}\ncascade: |\n  C[m,n] = A[m,k] * B[k,n]\noutputs: [C]\n",
        {"A": ("m", "k"), "B": ("k", "n")}, ("m", "n"),
    ),
    Problem(
        f"name: windows\n{HEAD}inputs: {{A: [x], B: [k, n]}}\ncascade: |\n  C[m,n] = A[m+k] * B[k,n]\noutputs: [C]\n",
        {"A": ("mk",), "B": ("k", "n")}, ("m", "n"),
    ),
    Problem(
        f"name: masked\n{HEAD}inputs: {{A: [m, k], B: [k, n]}}\n"
        "cascade: |\n  C[m,n] = sum[k](where(k <= m + 1, A[m,k] * B[k,n], 0))\noutputs: [C]\n",
        {"A": ("m", "k"), "B": ("k", "n")}, ("m", "n"), masked=True,
    ),
]  # fmt: skip
LEVELS = ("buffer", "local")
Tile = dict[str, range]
Box = tuple[tuple[int, int], ...]


@dataclass
class Drawn:
    """A mapping, as the test understands it."""

    problem: Problem
    sizes: dict[str, int]
    loops: list[tuple[str, int, bool]]
    """Rank, tile, spread over the cores or not."""
    holds: dict[tuple[str, str], int]
    """(place, tensor): loops that cut what is held."""
    home: str
    spatial: tuple[str, ...]

    def as_yaml(self) -> str:
        lines = []
        for i, (rank, tile, spread) in enumerate(self.loops, 1):
            held: dict[str, list[str]] = {}
            for (where, tensor), depth in self.holds.items():
                if depth == i:
                    held.setdefault(where, []).append(tensor)
            parts = ", ".join(f"{where}: [{', '.join(names)}]" for where, names in held.items())
            lines.append(f"{{rank: {rank}, tile: {tile}{', over: local' if spread else ''}, hold: {{{parts}}}}}")
        return (
            f"groups:\n- loops: [{', '.join(lines)}]\n"
            f"  einsums: {{C: {{array: grid, spatial: [{', '.join(self.spatial)}]}}}}\n  stay: {{C: {self.home}}}\n"
        )


@st.composite
def drawings(draw: st.DrawFn) -> Drawn:
    problem = draw(st.sampled_from(PROBLEMS))
    sizes = {rank: draw(st.integers(1, 7)) for rank in "mnk"}
    loops: list[tuple[str, int, bool]] = []
    extent = dict(sizes)
    cores = 1
    for rank in draw(st.lists(st.sampled_from("mnk"), max_size=5)):
        tile = draw(st.integers(1, extent[rank]))
        trips = -(-extent[rank] // tile)
        spread = cores * trips <= 4 and draw(st.booleans())
        cores *= trips if spread else 1
        loops.append((rank, tile, spread))
        extent[rank] = tile
    holds: dict[tuple[str, str], int] = {}
    ranks = {name: {rank for dim in dims for rank in dim} for name, dims in problem.operands.items()} | {"C": set(problem.result)}
    for name in (*problem.operands, "C"):
        outside = 0
        own = [i for i, (rank, _, _) in enumerate(loops, 1) if rank in ranks[name]]
        for where in (*LEVELS, "grid"):
            least = max([outside, 1, *(i for i, (r, _, s) in enumerate(loops, 1) if s and r in ranks[name] and where != "buffer")])
            if least <= len(loops) and draw(st.booleans()):
                holds[where, name] = outside = draw(st.integers(least, len(loops)))
            elif name != "C" and where != "grid":
                outside = max([outside, *own])
    levels = [where for where in ("buffer", "local", "grid") if (where, "C") in holds]
    home = draw(
        st.sampled_from(["dram", "buffer", "local"][: 3 if not levels else ["dram", "buffer", "local", "grid"].index(levels[0])])
    )
    if any(spread and rank not in problem.result for rank, _, spread in loops) and home == "local":
        home = "buffer"
    spatial = draw(st.sampled_from([(), ("m",), ("m", "n"), ("k", "n"), ("n", "k")]))
    return Drawn(problem, sizes, loops, holds, home, spatial)


@dataclass
class Machine:
    """The loops executed, with what every place holds and how often its words are read and written."""

    drawn: Drawn
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def count(self, level: str, way: str, tensor: str, words: int) -> None:
        if level != "grid":
            self.counts[level, way, tensor] = self.counts.get((level, way, tensor), 0) + words

    def tile(self, index: tuple[int, ...], depth: int) -> Tile:
        ranges = {rank: range(size) for rank, size in self.drawn.sizes.items()}
        for (rank, size, _), at in zip(self.drawn.loops[:depth], index, strict=False):
            ranges[rank] = ranges[rank][at * size : (at + 1) * size]
        return ranges

    def box(self, dims: tuple[str, ...], tile: Tile) -> Box:
        """First and last position touched along each dimension, by going through all points."""
        found = []
        for dim in dims:
            touched = [sum(at) for at in product(*(tile[rank] for rank in dim))]
            found.append((min(touched), max(touched)))
        return tuple(found)

    def trips(self) -> list[int]:
        """Iterations of each loop."""
        found = []
        extent = dict(self.drawn.sizes)
        for rank, tile, _ in self.drawn.loops:
            found.append(-(-extent[rank] // tile))
            extent[rank] = min(tile, extent[rank])
        return found

    def times(self) -> Iterator[list[tuple[int, ...]]]:
        """What all cores do at once: indices of the loops, those with work only."""
        trips = self.trips()
        spread = [i for i, loop in enumerate(self.drawn.loops) if loop[2]]
        for time in product(*(range(1 if i in spread else n) for i, n in enumerate(trips))):
            together = []
            for core in product(*(range(trips[i]) for i in spread)):
                index = list(time)
                for i, at in zip(spread, core, strict=True):
                    index[i] = at
                tile = self.tile(tuple(index), len(trips))
                points = (dict(zip(tile, at, strict=True)) for at in product(*tile.values()))
                if any(self.drawn.problem.live(point) for point in points):
                    together.append(tuple(index))
            yield together

    def core(self, level: str, index: tuple[int, ...]) -> tuple[int, ...]:
        """Which instance of a level has this work."""
        spread = [at for at, loop in zip(index, self.drawn.loops, strict=True) if loop[2]]
        return tuple(spread) if level in ("local", "grid") else ()

    def parts(self, dims: tuple[str, ...], index: tuple[int, ...], depth: int) -> tuple[int, ...]:
        """Which part of what a shared level holds belongs to this core."""
        ranks = {rank for dim in dims for rank in dim}
        return tuple(at for at, (rank, _, spread) in zip(index[:depth], self.drawn.loops, strict=False) if spread and rank in ranks)

    def run(self) -> dict[tuple[str, str, str], int]:
        times = list(self.times())
        for name, dims in self.drawn.problem.operands.items():
            self.operand(name, dims, times)
        self.results(times)
        return {key: words for key, words in self.counts.items() if words}

    def operand(self, name: str, dims: tuple[str, ...], times: list[list[tuple[int, ...]]]) -> None:
        loops, holds = self.drawn.loops, self.drawn.holds
        ranks = {rank for dim in dims for rank in dim}
        own = max((i for i, loop in enumerate(loops, 1) if loop[0] in ranks), default=0)
        moves = [loop[0] in ranks and not loop[2] and trips > 1 for loop, trips in zip(loops, self.trips(), strict=True)]
        chain: list[tuple[str, int]] = []
        for where in LEVELS:
            chain.append((where, holds.get((where, name), max([own, *(depth for _, depth in chain)]))))
        if ("grid", name) in holds:
            chain.append(("grid", holds["grid", name]))
        held: dict[tuple[str, tuple[int, ...], tuple[int, ...]], Box] = {}
        asked: dict[tuple[str, tuple[int, ...], Box, tuple[int, ...]], int] = {}
        for together in times:
            for index in together:
                outer = "dram"
                for where, depth in chain:
                    box = self.box(dims, self.tile(index, depth))
                    slot = where, self.core(where, index), self.parts(dims, index, depth) if where == "buffer" else ()
                    if held.get(slot) != box:
                        held[slot] = box
                        self.count(where, "written", name, size(box))
                        # cores that ask for the same words in the same iteration of the loops that move them get them in one read
                        moving = max((i for i in range(1, depth + 1) if moves[i - 1]), default=0)
                        step = tuple(at for at, loop in zip(index[:moving], loops, strict=False) if not loop[2])
                        asked[outer + ">" + where, self.core(outer, index), box, step] = size(box)
                    outer = where
                if outer != "grid":
                    tile = self.tile(index, len(loops))
                    box = self.box(dims, tile)
                    words = size(box)
                    for rank, lanes in zip(self.drawn.spatial, (2, 3), strict=False):
                        if rank not in ranks:
                            words *= -(-len(tile[rank]) // lanes)
                    words *= self.again(ranks, tile)
                    step = tuple(at for at, loop in zip(index, loops, strict=True) if not loop[2])
                    key = outer + ">lanes", self.core(outer, index), box, step
                    asked[key] = max(words, asked.get(key, 0))
        for (link, *_), words in asked.items():
            self.count(link.split(">")[0], "read", name, words)

    def again(self, ranks: set[str], tile: Tile) -> int:
        """How often lanes that keep one word take an operand anew in a tile, as m, n and k (last) go by one inside another."""
        walked = [(rank, len(self.widest(rank))) for rank in "mnk" if rank not in self.drawn.spatial]
        folds = -(-len(self.widest("k")) // (2, 3)[self.drawn.spatial.index("k")]) if "k" in self.drawn.spatial else 1
        walked.append(("k", folds))
        found = 1
        for at, (rank, _) in enumerate(walked, 1):
            if rank not in ranks and any(inner in ranks and steps > 1 for inner, steps in walked[at:]):
                found *= len(tile[rank])
        return found

    def widest(self, rank: str) -> range:
        """Positions in the largest tile, the first one."""
        return self.tile((0,) * len(self.drawn.loops), len(self.drawn.loops))[rank]

    def results(self, times: list[list[tuple[int, ...]]]) -> None:
        drawn, loops = self.drawn, self.drawn.loops
        dims = drawn.problem.result
        inner = [(where, drawn.holds[where, "C"]) for where in (*LEVELS, "grid") if (where, "C") in drawn.holds]
        for outer, (where, depth) in zip([drawn.home, *(where for where, _ in inner)], inner, strict=False):
            held: dict[tuple[object, ...], Box] = {}
            begun: set[Box] = set()
            for together in times:
                for index in together:
                    box = self.box(dims, self.tile(index, depth))
                    slot = self.core(where, index), self.parts(dims, index, depth) if where == "buffer" else ()
                    if held.get(slot) != box:
                        held[slot] = box
                        self.count(where, "read", "C", size(box))  # what this visit sums up goes out at its end
                        self.count(outer, "written", "C", size(box))
                        if box in begun:
                            self.count(outer, "read", "C", size(box))
                            self.count(where, "written", "C", size(box))
                        begun.add(box)
        last = inner[-1][0] if inner else drawn.home
        made: set[tuple[int, ...]] = set()
        for index in itertools.chain(*times):
            tile = self.tile(index, len(loops))
            for at in product(*(tile[rank] for rank in dims)):
                self.count(last, "written", "C", 1)
                if at in made:
                    self.count(last, "read", "C", 1)
                made.add(at)
        if drawn.home != "dram":
            words = drawn.sizes["m"] * drawn.sizes["n"]
            self.count(drawn.home, "read", "C", words)
            self.count("dram", "written", "C", words)


def size(box: Box) -> int:
    words = 1
    for low, high in box:
        words *= high - low + 1
    return words


def compare(drawn: Drawn) -> None:
    extents = {rank.upper(): extent for rank, extent in drawn.sizes.items()}
    placed = place(spec.loads(drawn.problem.text), architecture.loads(ARCH), mapping.loads(drawn.as_yaml()), extents)
    found = accesses(placed.nests[0])
    counted = {
        (level, way, tensor): words
        for level, ways in found.levels.items()
        for way, tensors in ways.items()
        for tensor, words in tensors.items()
        if words
    }
    assert counted == Machine(drawn).run(), drawn.as_yaml()


@settings(max_examples=250)
@given(drawings())
def test_accesses_of_every_level_equal_those_of_the_loops(drawn: Drawn) -> None:
    compare(drawn)


GATHER = """name: gather
ranks: {p: P, j: J, m: M, e: E}
inputs: {Q: [p, e], K: [m, e], I: {ranks: [p, j], dtype: int}}
cascade: |
  S[p,j] = Q[p,e] * K[I[p,j],e]
outputs: [S]
"""


@settings(max_examples=60)
@given(st.data(), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))
def test_gathers_fetch_the_distinct_positions_of_a_tile(data: st.DataObject, p: int, j: int, m: int, tile: int, inner: int) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(0, m - 1), min_size=j, max_size=j), min_size=p, max_size=p))
    groups = f"groups:\n- loops: [{{rank: p, tile: {tile}}}, {{rank: j, tile: {inner}}}]\n  einsums: {{S: {{array: grid}}}}\n"
    sizes = {"P": p, "J": j, "M": m, "E": 3}
    traces = {"I": np.array(rows)}
    placed = place(spec.loads(GATHER), architecture.loads(ARCH), mapping.loads(groups), sizes, None, traces)
    held: set[int] | None = None
    fetched = reads = 0
    for first in range(0, p, tile):
        for low in range(0, j, inner):
            touched = {row[k] for row in rows[first : first + tile] for k in range(low, min(low + inner, j))}
            fetched += 3 * len(touched) if touched != held else 0
            reads += 3 * len(touched)
            held = touched
    found = accesses(placed.nests[0]).levels
    assert found["dram"]["read"]["K"] == found["local"]["written"]["K"] == fetched
    assert found["local"]["read"]["K"] == reads


@pytest.mark.parametrize(
    "traces, words",
    [
        ({}, "`K` is read at positions that `I` gives"),
        ({"I": np.zeros((2, 3))}, "the trace of `I` is float64 of shape (2, 3); it must be integers of shape (2, 2)"),
        ({"I": np.zeros((2, 2), int), "Z": np.zeros(1, int)}, "the trace has `Z`, which no index reads"),
    ],
)
def test_a_gather_without_its_trace_is_refused(traces: dict[str, np.ndarray], words: str) -> None:
    groups = "groups:\n- einsums: {S: {array: grid}}\n"
    with pytest.raises(EinsmithError) as raised:
        place(spec.loads(GATHER), architecture.loads(ARCH), mapping.loads(groups), {"P": 2, "J": 2, "M": 4, "E": 3}, None, traces)
    assert words in raised.value.diagnostics[0].message
