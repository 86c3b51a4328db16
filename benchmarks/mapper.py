"""How many mappings a second are costed, and how long searches take.

    python benchmarks/mapper.py

Costs one fused structure of attention over many tilings (every point a distinct complete mapping: cycles, fill, energy by
component, traffic, buffer and register needs) with and without numba; then searches. Seconds of the wall clock, compilation and
start-up aside. A
timing never decides a test.
"""

from __future__ import annotations

import itertools
import time

import numpy as np

from einsmith.einsum import spec
from einsmith.einsum.library import locate
from einsmith.mapper import architecture, batch, mapping
from einsmith.mapper.search import search

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


def evaluations() -> None:
    tiles = np.array(list(itertools.product(range(2, 1002), range(2, 1002))))
    compiled = batch.compile(spec.loads(ATTENTION), architecture.load("fusemax"), mapping.loads(FUSED))
    for fast in (False, True):
        compiled(tiles={"1.p": tiles[:1000, 0], "1.m": tiles[:1000, 1]}, fast=fast)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            found = compiled(tiles={"1.p": tiles[:, 0], "1.m": tiles[:, 1]}, fast=fast)
            best = min(best, time.perf_counter() - start)
        name = "numba" if fast else "numpy"
        print(
            f"{name:8} {len(tiles):,} distinct mappings, {int(found.valid.sum()):,} fit: {len(tiles) / best:,.0f} a second",
            flush=True,
        )


def searches() -> None:
    attention = {"B": 64, "H": 12, "E": 64, "F": 64}
    cases = [
        ("attn3", spec.loads(ATTENTION), "simple", "energy", {}, {}),
        ("attn3", spec.loads(ATTENTION), "fusemax", "latency", {}, {}),
    ]
    for length in (1024, 4096, 16384):
        sizes = {**attention, "P": length, "M": length}
        cases.append((f"fusemax {length}", spec.load(locate("attention", "fusemax")), "fusemax", "latency", sizes, {"scale": 1}))
    for name, cascade, arch, objective, sizes, params in cases:
        start = time.perf_counter()
        found = search(cascade, architecture.load(arch), sizes, params, objective)  # type: ignore[arg-type]
        proof = "proven" if found.optimal else "cut off"
        cycles = found.cost.cycles + found.cost.fill_cycles
        print(
            f"{name:14} on {arch:8} {objective:8} {time.perf_counter() - start:7.2f} s  {proof}  {cycles:.6g} cycles "
            f"{found.cost.energy_pj:.5g} pJ {found.cost.traffic_bytes:.5g} B",
            flush=True,
        )


if __name__ == "__main__":
    evaluations()
    searches()
