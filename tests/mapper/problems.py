"""Random small mapping problems: cascades, architectures and sizes of a few positions.

Products of random ranks, chains, masks, softmax-like cascades with a whole or a running maximum, scans, and cascades of every kind
(`random_cascades`); one or two arrays of one or two sides that need not have every unit; buffers that hold little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.printer import print_cascade
from einsmith.mapper import architecture
from einsmith.mapper.architecture import Architecture

from ..strategies import random_cascades


@dataclass(frozen=True, repr=False)
class Problem:
    """What is to be mapped."""

    cascade: Cascade
    arch: Architecture
    sizes: dict[str, int]

    def __repr__(self) -> str:
        arch = self.arch.model_dump(exclude_defaults=True)
        return f"{print_cascade(self.cascade)}\nsizes {self.sizes}\nmemory {arch['memory']}\narrays {arch['arrays']}"


PRODUCTS = """name: products
ranks: {{p: P, m: M, e: E}}
inputs: {{A: [{a}], B: [{b}]}}
cascade: |
  C[{c}] = A[{a}] * B[{b}]
outputs: [C]
"""
CHAIN = """name: chain
ranks: {{p: P, m: M, e: E}}
inputs: {{Q: [p, e], K: [m, e], V: [m, e]}}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  SM[p,m] = {map}
  AV[p{e}] = SM[p,m] * V[m,e]
outputs: [AV]
"""
TWO = """name: two
ranks: {{p: P, m: M, e: E}}
inputs: {{Q: [p, e], K: [m, e]}}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  Y[{y}] = {op}[{r}]({map})
outputs: [{outputs}]
"""
SOFTMAX = """name: softmax
ranks: {{p: P, m: M}}
inputs: {{X: [p, m]}}
cascade: |
  GM[p]   = max[m](X[p,m])
  SN[p,m] = exp(X[p,m] - GM[p])
  SD[p]   = sum[m]({masked})
outputs: [{outputs}]
"""
RUNNING = """name: running
ranks: {{p: P, m: {{extent: M, split: [m1, m0], tile: M0, count: M1}}}}
inputs: {{X: [p, m]}}
cascade: |
  LM[m1,p]   = {op}[m0](X[p,m1*M0+m0])
  RM[0,p]    = {start}
  RM[m1+1,p] = {step}
  Y[p]       = {last}
outputs: [Y]
"""
SCAN = """name: scan
ranks: {{p: P, m: M}}
inputs: {{X: [p, m], W: [m]}}
cascade: |
  Z[p,m] = {scan}[m](X[p,m] * W[m])
  Y[{y}] = {body}
outputs: [Y]
"""


@st.composite
def cascades(draw: Any) -> Cascade:
    def pick(*options: str) -> str:
        chosen: str = draw(st.sampled_from(options))
        return chosen

    match draw(st.integers(0, 7)):
        case 0:
            ranks = draw(
                st.sampled_from(["p,e m,e p,m", "p,e e,m m,p", "p,m,e m,e p,e", "p,e p,m p", "p,m,e p,m,e m,e", "p,m p,m p,m"])
            )
            a, b, c = ranks.split()
            text = PRODUCTS.format(a=a, b=b, c=c)
        case 1:
            mapped = pick("exp(QK[p,m])", "QK[p,m] * 2", "where(m <= p, QK[p,m], 0)", "max(QK[p,m], 0) + 1")
            text = CHAIN.format(map=mapped, e=pick(",e", ""))
        case 2 | 3:
            y = pick("p", "m")
            text = TWO.format(
                y=y, r="m" if y == "p" else "p", op=pick("sum", "max"), outputs=pick("Y", "Y, QK"),
                map=pick("QK[p,m]", "where(m <= p, QK[p,m], 0)", "where(abs(p - m) <= 1, QK[p,m], 0)", "exp(QK[p,m])"),
            )  # fmt: skip
        case 4:
            text = SOFTMAX.format(masked=pick("SN[p,m]", "where(m <= p, SN[p,m], 0)"), outputs=pick("SD", "SD, SN", "SN, SD"))
        case 5:
            text = RUNNING.format(
                op=pick("max", "sum"), start=pick("-inf", "0"), step=pick("max(RM[m1,p], LM[m1,p])", "RM[m1,p] * 0.5 + LM[m1,p]"),
                last=pick("RM[M1,p]", "exp(RM[M1,p])"),
            )  # fmt: skip
        case 6:
            text = SCAN.format(scan=pick("cumsum", "cummax"), **draw(
                st.sampled_from([{"y": "p,m", "body": "Z[p,m] * X[p,m]"}, {"y": "p", "body": "max[m](Z[p,m])"}])
            ))  # fmt: skip
        case _:
            return draw(random_cascades(without=("select", "gather", "argument"), most=3))  # type: ignore[no-any-return]
    return spec.loads(text)


SPEC = """name: random
clock_hz: 1.0e+9
word_bytes: {word}
source: random
memory:
  dram: {{bandwidth: {dram}, access_bytes: 8, read_pj: {far}, write_pj: {far}, source: random}}
{far_level}  buffer: {{{instances}size: {size}, {ports}access_bytes: 4, read_pj: {near}, write_pj: 3, source: random}}
arrays:
"""
FAR = "  shared: {{size: {}, bandwidth: {}, access_bytes: 4, read_pj: 4, write_pj: 5, source: random}}\n"
ARRAY = """  {name}:
    side: {side}
    units: {{{units}}}
    registers: {{words: {words}, read_pj: 0.25, write_pj: 0.5, source: random}}
    ripple_cycles_per_hop: {ripple}
    folds_overlap: {overlap}
    source: random
"""
UNITS = ("mac", "add", "multiply", "max", "divide", "exp", "log", "compare")


@st.composite
def architectures(draw: Any, levels: int = 1) -> Architecture:
    """With a second level on the chip: one that all instances of the inner level share."""
    sizes, bandwidths = st.sampled_from([60, 400, 10_000]), st.sampled_from(["4.0e+9", "4.0e+10"])
    text = SPEC.format(
        word=draw(st.sampled_from([1, 2])), dram=draw(st.sampled_from([1e9, 8e9, 1e11])), far=draw(st.sampled_from([1, 40])),
        size=draw(st.sampled_from([16, 40, 100, 4096])), near=draw(st.sampled_from([0, 2])),
        ports=draw(st.sampled_from(["", "bandwidth: 4.0e+9, "])),
        far_level="" if levels == 1 else FAR.format(draw(sizes), draw(bandwidths)),
        instances="" if levels == 1 else f"instances: {draw(st.sampled_from([1, 2, 3]))}, ",
    )  # fmt: skip
    unit_costs = st.builds("cycles: {}, energy_pj: {}, source: random".format, st.integers(1, 3), st.integers(0, 3))
    for name in ("one", "two")[: draw(st.integers(1, 2))]:
        text += ARRAY.format(
            name=name, side=draw(st.sampled_from([[1], [2], [3], [2, 2], [3, 2]])), words=draw(st.sampled_from([1, 3, 16])),
            ripple=draw(st.integers(0, 2)), overlap=draw(st.sampled_from(["true", "true", "false"])),
            units=", ".join(f"{unit}: {{{draw(unit_costs)}}}" for unit in UNITS),
        )  # fmt: skip
    return architecture.loads(text)


@st.composite
def problems(draw: Any, most: int = 5, levels: int = 1) -> Problem:
    """With sizes up to `most`, on architectures with so many levels on the chip."""
    cascade = draw(cascades())
    sizes = {name: draw(st.integers(1, most)) for name in "PME"}
    known = dict(cascade.sizes)
    return Problem(cascade, draw(architectures(levels)), known or {
        name: size for name, size in {**sizes, "M0": draw(st.integers(1, 3))}.items() if name in cascade.symbols
    })  # fmt: skip
