"""How long plans and modules take: every attention file at its own sizes, and the long sizes of `kernels.py`.

    python benchmarks/planning.py [--gpu h200] [--gpu mi300x]

Processor seconds of one run in a process that has everything imported: deriving (forms with fewer passes, and their proof by
numbers), the search (candidates of all kernels and of all ways to cut the cascade, predicted and ranked, before anything is
compiled), all that `einsmith plan` does, and emission (text of the module). Then how they grow with the number of Einsums and of
ranks of a made-up cascade. Prints the slowest of each, with its target, and writes all to benchmarks/results/planning.txt. A timing
never decides a test.
"""

from __future__ import annotations

import argparse
import functools
import gc
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from kernels import ALGORITHMS

from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.spec import load, loads
from einsmith.kernels.emit import emit_module
from einsmith.mapper import gpu as gpus
from einsmith.mapper.stages import plan_module

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "planning.txt"
TARGETS = {"deriving": 1.0, "search": 1.0, "emission": 0.2}
"""Seconds."""
SLOWEST = 8
PARTS = {
    "einsmith.mapper.stages.plan": "search",
    "einsmith.mapper.stages.one_pass": "deriving",
    "einsmith.mapper.plan.one_pass": "deriving",
    "einsmith.einsum.rewrite.derive.derive": "deriving",
}
"""What each function that the planner calls is counted as; what one calls within another counts as its own."""


@dataclass(frozen=True)
class Row:
    """Seconds of one cascade."""

    name: str
    gpu: str
    kernels: int
    searched: int
    deriving: float
    search: float
    everything: float
    emission: float

    def __str__(self) -> str:
        return (
            f"{self.name:24} {self.gpu:8} {self.kernels:7} {self.searched:8} {self.deriving:10.3f} {self.search:9.3f}"
            f" {self.everything:8.3f} {self.emission:10.3f}"
        )


HEADER = (
    f"{'cascade':24} {'GPU':8} {'kernels':>7} {'searched':>8} {'deriving s':>10} {'search s':>9} {'plan s':>8} {'emission s':>10}"
)


class Stopwatch:
    """Seconds of each part, without those of the parts called within it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = dict.fromkeys((*PARTS.values(), "rest"), 0.0)
        self.running = ["rest"]
        self.since = time.process_time()

    def switch(self) -> None:
        now = time.process_time()
        self.spent[self.running[-1]] += now - self.since
        self.since = now

    def counted(self, part: str, action: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(action)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self.running.append(part)
            try:
                return action(*args, **kwargs)
            finally:
                self.switch()
                self.running.pop()

        return watched


def measured(name: str, cascade: Cascade, gpu: gpus.Gpu, sizes: dict[str, int]) -> Row:
    gc.collect()  # what runs before left
    watch = Stopwatch()
    with ExitStack() as stack:
        for path, part in PARTS.items():
            place, function = path.rsplit(".", 1)
            module = __import__(place, fromlist=[function])
            stack.enter_context(mock.patch.object(module, function, watch.counted(part, getattr(module, function))))
        plan = plan_module(cascade, gpu, sizes)
        watch.switch()
    start = time.process_time()
    emit_module(plan)
    emission = time.process_time() - start
    return Row(
        name, gpu.name, len(plan.kernels), sum(kernel.searched for kernel in plan.kernels), watch.spent["deriving"],
        watch.spent["search"], sum(watch.spent.values()), emission,
    )  # fmt: skip


def made_up(layers: int, ranks: int) -> Cascade:
    """Attention with a chain of maps on its scores, four Einsums beside it, and as many ranks as wanted, four of them its own."""
    outer = "abcd"[: ranks - 4]
    on = "".join(f"{rank}," for rank in outer)
    lines = [f"S0[{on}p,m] = Q[{on}p,e] * K[{on}m,e]"]
    lines += [f"S{n + 1}[{on}p,m] = tanh(S{n}[{on}p,m] / {n + 2})" for n in range(layers)]
    lines += [
        f"X[{on}p] = max[m](S{layers}[{on}p,m])",
        f"N[{on}p,m] = exp(S{layers}[{on}p,m] - X[{on}p])",
        f"SD[{on}p] = sum[m](N[{on}p,m])",
        f"Y[{on}p,f] = sum[m](N[{on}p,m] * V[{on}m,f]) / SD[{on}p]",
    ]
    sizes = {**dict.fromkeys(outer, 2), "p": 512, "m": 512, "e": 64, "f": 64}
    names = ", ".join(f"{rank}: {rank.upper()}" for rank in sizes)
    given = ", ".join(f"{rank.upper()}: {size}" for rank, size in sizes.items())
    inputs = [f"  Q: [{on}p,e]", f"  K: [{on}m,e]", f"  V: [{on}m,f]"]
    text = ["name: made-up", f"ranks: {{{names}}}", "inputs:", *inputs, f"sizes: {{{given}}}"]
    return loads("\n".join([*text, "cascade: |", *(f"  {line}" for line in lines), "outputs: [Y]", ""]))


def cascades() -> Iterator[tuple[str, Cascade, dict[str, int]]]:
    folder = ROOT / "examples" / "attention"
    for path in sorted(folder.glob("*.yaml")):
        yield path.stem, load(path), {}
    for name, (stem, sizes) in ALGORITHMS.items():
        yield f"{name}, long", load(folder / f"{stem}.yaml"), sizes


def growth(gpu: gpus.Gpu) -> Iterator[Row]:
    for layers, ranks in ((0, 4), (15, 4), (35, 4), (15, 8), (35, 8)):
        yield measured(f"{layers + 5} Einsums, {ranks} ranks", made_up(layers, ranks), gpu, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="append")
    chosen = [gpus.load(name) for name in parser.parse_args().gpu or ["h200"]]
    rows, refused = [], []
    measured("softmax", load(ROOT / "examples" / "attention" / "softmax.yaml"), chosen[0], {})  # imports
    for name, cascade, sizes in cascades():
        for gpu in chosen:
            try:
                rows.append(measured(name, cascade, gpu, sizes))
            except EinsmithError as error:
                refused.append(f"{name}: {error.diagnostics[0].code}")
                continue
            print(rows[-1], flush=True)
            cascade = Cascade(**{each: getattr(cascade, each) for each in Cascade.__dataclass_fields__})  # nothing is known of it
    planned_for = ", ".join(gpu.name for gpu in chosen)
    lines = [f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, planned for {planned_for}", ""]
    for what, target in {**TARGETS, "everything": None}.items():
        longer = sum(getattr(row, what) > target for row in rows) if target else 0
        late = f" (target {target} s; {longer} of {len(rows)} take longer)" if target else ""
        lines.append(f"slowest {what}{late}")
        lines += [HEADER, *(str(row) for row in sorted(rows, key=lambda row: -getattr(row, what))[:SLOWEST]), ""]
    lines += ["growth", HEADER, *map(str, growth(chosen[0])), ""]
    lines.append(f"{len(rows)} planned; no kernel: {', '.join(refused) or 'none'}")
    print("\n" + "\n".join(lines))
    body = ["", HEADER, *(str(row) for row in rows)]
    RESULTS.write_text("\n".join([*lines, *body]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
