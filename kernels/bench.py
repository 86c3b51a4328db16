"""Benchmarks: a generated kernel against plain torch and, where it is the same function, torch's own attention; on a GPU.

In: a cascade, a GPU file, sizes. Out: a `Bench`: a row for each implementation with the median time, what that makes of the
operations and bytes that the cascade cannot do without, and the predicted time. Whether torch's own attention is the same function
is found out by comparing the two on small shapes, never by name. Everything that is timed is compared with plain torch first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..einsum.analysis.report import Analysis, analyze
from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.sizes import bind
from ..mapper.gpu import BYTES, Gpu
from ..mapper.module_plan import ModulePlan
from ..mapper.precision import WIDER
from ..mapper.stages import module_plans
from .check import device, keywords
from .child import ask, require
from .emit import emit_module
from .sdpa import as_sdpa
from .store import stored


@dataclass(frozen=True)
class Row:
    """One implementation on one shape."""

    impl: str
    shape: str
    dtype: str
    ms_median: float | None
    """Milliseconds; None where it failed."""
    ms_spread: tuple[float, float] = (0.0, 0.0)
    """The times that a fifth of the runs were below, and above."""
    flops: float = 0.0
    """Operations of matrix products that the cascade cannot do without; a multiply-add is two."""
    moved: float = 0.0
    """Bytes in and out that it cannot do without."""
    predicted_ms: float | None = None
    difference: float | None = None
    """Greatest distance from plain torch, relative to the greatest output."""
    fault: str | None = None

    @property
    def tflops(self) -> float | None:
        """Products: 10^12 operations a second."""
        return self.flops / self.ms_median / 1e9 if self.ms_median else None

    @property
    def gbps(self) -> float | None:
        """In and out: 10^9 bytes a second."""
        return self.moved / self.ms_median / 1e6 if self.ms_median else None

    def as_json(self) -> dict[str, Any]:
        return {
            "impl": self.impl, "shape": self.shape, "dtype": self.dtype, "ms_median": self.ms_median,
            "ms_20_80": list(self.ms_spread), "tflops": self.tflops, "gbps": self.gbps, "predicted_ms": self.predicted_ms,
            "difference": self.difference, "fault": self.fault,
        }  # fmt: skip

    def cells(self) -> list[str]:
        """The row of the table, in the order of `HEADER`."""
        if self.fault is not None or self.ms_median is None:
            return [self.impl, "failed", "", "", "", "", self.fault or ""]
        low, high = self.ms_spread
        return [
            self.impl, f"{self.ms_median:.4g} ms", f"{low:.4g}-{high:.4g}", f"{self.tflops or 0:.1f} TFLOP/s",
            f"{self.gbps or 0:.0f} GB/s", f"{self.predicted_ms:.4g} ms" if self.predicted_ms is not None else "",
            f"{self.difference:.1e}" if self.difference is not None else "",
        ]  # fmt: skip


HEADER = ["implementation", "median", "20%-80%", "products", "in and out", "predicted", "difference"]


@dataclass(frozen=True)
class Bench:
    """All rows. `where`: the GPU that they were measured on and the versions used."""

    name: str
    gpu: str
    where: str
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> int:
        return 1 if any(row.fault for row in self.rows) else 0

    def as_json(self) -> dict[str, Any]:
        return {"cascade": self.name, "gpu": self.gpu, "where": self.where, "rows": [row.as_json() for row in self.rows]}

    def __str__(self) -> str:
        first = self.rows[0]
        cells = [HEADER, *(row.cells() for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
        lines = [f"{self.name}, {first.shape}, {first.dtype}; planned for {self.gpu}, measured on {self.where}"]
        return "\n".join(
            [*lines, *("  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)]
        )


def bench(
    textbook: Cascade,
    gpu: Gpu,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    dtype: str = "float16",
    candidates: int = 4,
    allow_tf32: bool = False,
    timeout_s: float = 600.0,
) -> Bench:
    """Time the first candidates of the plan, plain torch, and torch's own attention. Raises EinsmithError (E613) without a GPU."""
    require()
    if device() != "cuda":
        raise EinsmithError(
            Diagnostic("E613", "no GPU here to measure on", help="`einsmith plan` predicts, `einsmith test` checks without one")
        )
    bound = bind(textbook, sizes, params)
    given = {name: int(bound.scalars[name]) for name in textbook.symbols}
    plans = chosen(next(module_plans(textbook, gpu, sizes, params, dtype=dtype, allow_tf32=allow_tf32)), candidates)
    modules = [(plan, emit_module(plan)) for plan in plans]
    attention = as_sdpa(textbook, params)
    job = {
        "modules": [{"impl": described(plan), "file": str(stored(source))} for plan, source in modules],
        "inputs": {t.name: ([bound.extents[r] for r in t.ranks], t.dtype) for t in textbook.inputs},
        "scalars": keywords(modules[0][1], given, params),
        "dtype": dtype,
        "device": "cuda",
        "sdpa": attention.as_json() if attention else None,
        "sdpa_dtype": WIDER.get(dtype, dtype),
        "allow_tf32": allow_tf32,
    }
    answer = ask("bench_worker", job, interpret=False, timeout_s=timeout_s)
    predicted = {described(plan): plan.predicted_s * 1e3 for plan, _ in modules}
    analysis = analyze(textbook, sizes, params, word_bytes=BYTES[dtype])
    return Bench(textbook.name, gpu.name, answer["where"], rows(answer["rows"], predicted, analysis, given, dtype))


def chosen(plan: ModulePlan, count: int) -> list[ModulePlan]:
    """The plan with each of the first candidates in turn; the kernels of a module of several step together."""
    longest = max(len(kernel.candidates) for kernel in plan.kernels)
    return [
        replace(
            plan,
            kernels=tuple(
                replace(kernel, candidates=(kernel.candidates[min(number, len(kernel.candidates) - 1)],)) for kernel in plan.kernels
            ),
        )
        for number in range(min(count, longest))
    ]


def described(plan: ModulePlan) -> str:
    """A plan in a few words: tiles, warps, stages of its kernels; `d` for descriptors, `p` for programs that persist."""
    return "einsmith " + " + ".join(
        ",".join(f"{name}{size}" for name, size in kernel.best.blocks.items() if name not in kernel.program.whole)
        + f" w{kernel.best.warps} s{kernel.best.stages}"
        + (" d" if kernel.best.described else "")
        + (" p" if kernel.best.walk is not None else "")
        for kernel in plan.kernels
    )


def rows(
    answers: list[dict[str, Any]], predicted: Mapping[str, float], analysis: Analysis, sizes: Mapping[str, int], dtype: str
) -> tuple[Row, ...]:  # fmt: skip
    """The worker's times as rows."""
    flops, moved = least_work(analysis)
    shape = " ".join(f"{name}={value}" for name, value in sizes.items())
    return tuple(
        Row(
            one["impl"], shape, dtype, one["ms"], (one["low"], one["high"]), flops, moved, predicted.get(one["impl"]),
            one["difference"], one["fault"],
        )
        for one in answers
    )  # fmt: skip


def least_work(analysis: Analysis) -> tuple[float, float]:
    """Operations of matrix products where masks leave any (a multiply-add is two), and bytes in and out."""
    found = analysis.as_json()
    flops = 0.0
    for einsum in found["einsums"]:
        dense = einsum["operations"].get("add", 0)
        share = einsum["effective"].get("add", dense) / dense if dense else 0.0
        flops += 2.0 * einsum["macs"] * share
    return flops, float(found["traffic"]["compulsory_bytes"])
