"""What the mapper finds, how fast, and how the time grows.

    python benchmarks/mapper.py [SECTION ...] [--plot docs/img/search-cost.svg]

Sections: `rate` (complete mappings costed a second), `brute` (searches equal to brute force), `searches` (cascades and
architectures of published mappers), `published` (beside what others report), `fusemax` (the 24 points of FuseMax's evaluation,
and FLAT's), `codesign` (arrays and buffer freed within FuseMax's area), `growth` (time against Einsums and sizes; drawn with
`--plot`). All of them where none is named: about ten minutes. Seconds are of the processor, one process, start-up aside; single
runs. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.library import locate
from einsmith.mapper import architecture, batch, mapping, study, study_codesign, study_search
from einsmith.mapper.search import Searched, search

ATTENTION = """name: attn3
ranks: {h: H, p: P, m: M, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
sizes: {H: 32, P: 2048, M: 2048, E: 128, F: 128}
cascade: |
  QK[h,p,m] = Q[h,p,e] * K[h,m,e]
  SM[h,p,m] = exp(QK[h,p,m])
  AV[h,p,f] = SM[h,p,m] * V[h,m,f]
outputs: [AV]
"""
FUSED = """groups:
- loops: [{rank: h, tile: 1}, {rank: p, tile: 64, hold: [Q]}, {rank: m, tile: 64, hold: [K, V]}]
  schedule: interleaved
  einsums:
    QK: {array: array2d, spatial: [p, m]}
    SM: {array: array2d, spatial: [p, m]}
    AV: {array: array2d, spatial: [p, f]}
"""
TWO_PASSES = """name: two-passes
ranks: {m: M, p: P}
inputs: {X: [m, p]}
cascade: |
  GM[m]   = max[p](X[m,p])
  SN[m,p] = exp(X[m,p] - GM[m])
outputs: [SN]
"""
BLOCK = {"P": 2048, "D": 4096, "H": 32, "E": 128, "J": 16384}
"""GPT-3 6.7B: one block, one sequence."""
LONGEST = 60.0
"""Seconds of the processor after which a search is cut off; a third of it in `growth`."""


def chain(count: int, size: int = 1024) -> Cascade:
    """Products of square matrices, one after another."""
    ranks = ", ".join(f"r{at}: N" for at in range(count + 1))
    weights = "".join(f"  W{at}: [r{at - 1}, r{at}]\n" for at in range(1, count + 1))
    lines = "".join(f"  X{at}[i,r{at}] = X{at - 1}[i,r{at - 1}] * W{at}[r{at - 1},r{at}]\n" for at in range(1, count + 1))
    return spec.loads(
        f"name: chain{count}\nranks: {{i: N, {ranks}}}\ninputs:\n  X0: [i, r0]\n{weights}sizes: {{N: {size}}}\n"
        f"cascade: |\n{lines}outputs: [X{count}]\n"
    )


def timed(
    cascade: Cascade, arch: str, objective: Any, sizes: dict[str, int] | None = None, params: Any = None, longest: float = LONGEST
) -> tuple[float, Searched]:
    start = time.process_time()
    found = search(
        cascade, architecture.load(arch), sizes, params, objective, stop=lambda: time.process_time() - start > longest
    )  # fmt: skip
    return time.process_time() - start, found


def proof(found: Searched) -> str:
    return "proven" if found.optimal else f"cut off, within {found.gap:.2%}"


def rate() -> None:
    tiles = np.array(list(itertools.product(range(2, 1002), range(2, 1002))))
    compiled = batch.compile(spec.loads(ATTENTION), architecture.load("fusemax"), mapping.loads(FUSED))
    for fast in (False, True):
        compiled(tiles={"1.p": tiles[:1000, 0], "1.m": tiles[:1000, 1]}, fast=fast)
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            found = compiled(tiles={"1.p": tiles[:, 0], "1.m": tiles[:, 1]}, fast=fast)
            best = min(best, time.process_time() - start)
        name = "numba" if fast else "numpy"
        print(
            f"{name:8} {len(tiles):,} distinct mappings, {int(found.valid.sum()):,} fit: {len(tiles) / best:,.0f} a second",
            flush=True,
        )


def brute() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "--no-header", "tests/mapper/test_brute_force.py"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    text = (Path(__file__).parents[1] / "tests" / "mapper" / "test_brute_force.py").read_text(encoding="utf-8")
    print((text.split('"""')[1].splitlines() or [""])[0])
    print(done.stdout.strip().splitlines()[-1])


def searches() -> None:
    attn3, block = spec.loads(ATTENTION), spec.load(locate("cascades", "transformer-block"))
    cases: list[tuple[str, Cascade, str, str, dict[str, int] | None, str]] = [
        ("attn3", attn3, "simple", "energy", None, "under 1 s"),
        ("attn3", attn3, "tpu-v4i", "energy", None, "under 10 s"),
        ("attn3", attn3, "tpu-v4i", "latency", None, "under 10 s"),
        ("16 products", chain(16), "simple", "energy", None, "under 5 s"),
        ("GPT-3 block", block, "simple", "energy", BLOCK, ""),
        ("GPT-3 block", block, "tpu-v4i", "latency", BLOCK, "under 60 s"),
        ("GPT-3 block", block, "tpu-v4i", "energy", BLOCK, "under 60 s"),
    ]
    for name, cascade, arch, objective, sizes, aim in cases:
        seconds, found = timed(cascade, arch, objective, sizes)
        cost = found.cost
        cycles = cost.cycles + cost.fill_cycles
        print(
            f"{name:12} on {arch:8} {objective:8} {seconds:7.2f} s  {proof(found)}  {cycles:.6g} cycles {cost.energy_pj:.5g} pJ "
            f"{cost.traffic_bytes:.5g} B  {len(found.mapping.groups)} groups" + (f"  (aim: {aim})" if aim else ""),
            flush=True,
        )


def published() -> None:
    """Results of another mapper (AccelForge, August 2026) on its own problems."""
    attn3 = spec.loads(ATTENTION)
    _, found = timed(attn3, "simple", "energy")
    moved = found.cost.traffic_bytes
    stored = moved + 2 * 2 * (32 * 2048 * 2048) * 2  # QK and SM too, each written and read
    print(f"attn3 on simple: main memory {moved / 2**20:g} MiB, {stored / moved:.1f}x less than unfused (published: 17x)")
    word = 2 * 8  # two bytes of a buffer that charges 8 for each
    products = 2 * 32 * 2048 * 2048 * 128
    charged = found.cost.energy_pj - found.cost.as_json()["energy_parts"]["buffer"] + products * 4 * word
    print(
        f"    energy in all {found.cost.energy_pj:.4g} (published: 2.290e12); with the buffer charged for two operands and a sum\n"
        f"    read and written by every multiplication, nothing kept in the lane: {charged:.4g}"
    )
    for objective in ("latency", "energy"):
        _, found = timed(attn3, "tpu-v4i", objective)
        print(
            f"attn3 on tpu-v4i, least {objective}: {found.cost.latency_s * 1e3:.4g} ms {found.cost.energy_pj / 1e12:.4g} J "
            "(published, least energy: 0.774 ms 0.0313 J; what it charges an array for is not known)"
        )
    arch = architecture.load("fusemax", ("buffer.size=128",))
    found = search(spec.loads(TWO_PASSES), arch, {"M": 4, "P": 1024}, objective="energy")
    read = sum(group.traffic_words["read"].get("X", 0) for group in found.cost.groups)
    print(
        f"maximum, then its use, 4 x 1024 values, a buffer of 64: {read:g} values read (published: 4096, illegal:\n"
        "    the maximum is used before it is complete)"
    )
    print(
        "FLAT's hardware and cascade, one search for the least latency (to within 0.1%), then the least traffic, "
        "beside FLAT's published mapping:"
    )
    for contest in study_search.contests(study.load("fusemax").only((), ("1K", "4K", "16K", "64K")), ("flat",)):
        for line in str(contest).splitlines()[1:]:
            print(line)
    print("all 24 points of FuseMax and FLAT: see the section `fusemax`")


def fusemax() -> None:
    start = time.process_time()
    for contest in study_search.contests(study.load("fusemax")):
        lines = str(contest).splitlines()
        slower = sum(trial.speedup < 1 - 1e-9 for trial in contest.trials)
        short = [trial.traffic_ratio for trial in contest.trials if trial.seq_len in ("1K", "4K", "16K")]
        print(
            f"{lines[0]}\n{lines[-1]}; slower at {slower}; traffic {min(short):.2g} to {max(short):.2g} of published up to 16K",
            flush=True,
        )
    print(f"{time.process_time() - start:.0f} s")


def codesign() -> None:
    start = time.process_time()
    for bout in study_codesign.bouts(study.load("fusemax").only(("BERT",), ()), ("same-area",)):
        print(bout, flush=True)
    print(f"{time.process_time() - start:.0f} s")


def growth(plot: Path | None) -> None:
    curves: dict[str, list[tuple[float, float, bool]]] = {}
    for arch, objective in (("simple", "energy"), ("tpu-v4i", "latency")):
        name = f"products of 1024 x 1024 on {arch}, {objective}"
        for count in (1, 2, 4, 8, 16, 32):
            seconds, found = timed(chain(count), arch, objective, longest=LONGEST / 3)
            curves.setdefault(name, []).append((count, seconds, found.optimal))
            print(f"{name}: {count:9} Einsums {seconds:8.2f} s  {proof(found)}  {len(found.mapping.groups)} groups", flush=True)
            if not found.optimal:
                break  # longer chains are cut off too
    one_pass = spec.load(locate("attention", "fusemax"))
    for name, cascade, arch, sizes, params in (
        ("one-pass attention on fusemax, latency", one_pass, "fusemax", {"B": 64, "H": 12, "E": 64, "F": 64}, {"scale": 1}),
        ("attn3 on simple, latency", spec.loads(ATTENTION), "simple", {}, {}),
    ):
        for shift in range(10, 21, 2):
            seconds, found = timed(cascade, arch, "latency", {**sizes, "P": 2**shift, "M": 2**shift}, params, LONGEST / 3)
            curves.setdefault(name, []).append((2**shift, seconds, found.optimal))
            print(f"{name}: {2**shift:9} tokens {seconds:8.2f} s  {proof(found)}", flush=True)
    if plot is not None:
        draw(curves, plot)


def draw(curves: dict[str, list[tuple[float, float, bool]]], file: Path) -> None:
    """Two panels: seconds against Einsums, and against tokens; a hollow marker is a search that was cut off."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "search", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    figure.subplots_adjust(left=0.08, right=0.985, bottom=0.15, top=0.97, wspace=0.06)
    for number, (name, points) in enumerate(curves.items()):
        axis, colour = axes[int(points[-1][0] > 1000)], ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1")[number]
        axis.plot([at for at, _, _ in points], [seconds for _, seconds, _ in points], color=colour, label=name)
        for proven in (True, False):
            kept = [(at, seconds) for at, seconds, optimal in points if optimal == proven]
            axis.plot(*zip(*kept, strict=True), "o", color=colour, fillstyle="full" if proven else "none") if kept else None
    for axis, label in zip(axes, ("Einsums", "tokens"), strict=True):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper left", fontsize=8)
    axes[0].set_ylim(top=axes[0].get_ylim()[1] * 6)
    axes[0].set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes[1].set_xticks([2**shift for shift in range(10, 21, 2)], ["1K", "4K", "16K", "64K", "256K", "1M"])
    axes[0].set_ylabel("seconds until proven")
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections: dict[str, Callable[[], None]] = {
        "rate": rate, "brute": brute, "searches": searches, "published": published, "fusemax": fusemax, "codesign": codesign,
    }  # fmt: skip
    parser.add_argument("section", nargs="*", metavar="SECTION")
    parser.add_argument("--plot", type=Path, help="where `growth` draws its picture")
    options = parser.parse_args()
    sections["growth"] = lambda: growth(options.plot)
    unknown = set(options.section) - set(sections)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(sections)}")
    parts = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba"))
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, {parts}, {platform.machine()}")
    for name in options.section or sections:
        print(f"\n== {name}", flush=True)
        sections[name]()


if __name__ == "__main__":
    main()
