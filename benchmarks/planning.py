"""How long plans and modules take: every attention file that has a kernel at its own sizes, and the long sizes of `kernels.py`.

    python benchmarks/planning.py [--gpu h200]

Processor seconds, of the fastest of three: the search (candidates of all kernels of the plan, predicted and ranked, before anything
is compiled), emission (text of the module), and everything that `einsmith plan` does, derivations and cuts into kernels included.
Prints the slowest of each, with its target, and writes all to benchmarks/results/planning.txt. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import ALGORITHMS

from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.spec import load
from einsmith.kernels.emit import emit_module
from einsmith.mapper import gpu as gpus
from einsmith.mapper.plan import plan
from einsmith.mapper.stages import ModulePlan, plan_module

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "planning.txt"
TARGETS = {"search": 1.0, "emission": 0.2}
"""Seconds."""
SLOWEST = 8


@dataclass(frozen=True)
class Row:
    """Seconds of one cascade."""

    name: str
    kernels: int
    searched: int
    search: float
    emission: float
    everything: float

    def __str__(self) -> str:
        return (
            f"{self.name:32} {self.kernels:7} {self.searched:8} {self.search:10.3f} {self.emission:10.3f} {self.everything:10.3f}"
        )


HEADER = f"{'cascade':32} {'kernels':>7} {'searched':>8} {'search s':>10} {'emission s':>10} {'plan s':>10}"


def fastest(action: Callable[[], Any], runs: int = 3) -> float:
    """Processor seconds of the fastest run."""
    found = []
    for _ in range(runs):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return min(found)


def measured(name: str, cascade: Cascade, gpu: gpus.Gpu, sizes: dict[str, int]) -> Row:
    module = plan_module(cascade, gpu, sizes)
    return Row(
        name, len(module.kernels), sum(kernel.searched for kernel in module.kernels),
        fastest(lambda: search(cascade, module)), fastest(lambda: emit_module(module)),
        fastest(lambda: plan_module(cascade, gpu, sizes), 1),
    )  # fmt: skip


def search(cascade: Cascade, module: ModulePlan) -> None:
    """The plans of the kernels of a module once more."""
    for kernel in module.kernels:
        sizes = {name: int(value) for name, value in kernel.sizes.scalars.items() if name in kernel.cascade.symbols}
        own = set(kernel.cascade.symbols) - set(cascade.symbols)
        plan(kernel.cascade, kernel.gpu, {n: v for n, v in sizes.items() if n not in own}, tiles=own)


def cascades() -> Iterator[tuple[str, Cascade, dict[str, int]]]:
    folder = ROOT / "examples" / "attention"
    for path in sorted(folder.glob("*.yaml")):
        yield path.stem, load(path), {}
    for name, (stem, sizes) in ALGORITHMS.items():
        yield f"{name}, long", load(folder / f"{stem}.yaml"), sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="h200")
    given = parser.parse_args()
    gpu, rows, refused = gpus.load(given.gpu), [], []
    for name, cascade, sizes in cascades():
        try:
            rows.append(measured(name, cascade, gpu, sizes))
        except EinsmithError as error:
            refused.append(f"{name}: {error.diagnostics[0].code}")
            continue
        print(rows[-1], flush=True)
    lines = [f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, planned for {gpu.name}", ""]
    for what, target in {**TARGETS, "everything": None}.items():
        lines.append(f"slowest {what}" + (f" (target {target} s)" if target else ""))
        lines += [HEADER, *(str(row) for row in sorted(rows, key=lambda row: -getattr(row, what))[:SLOWEST]), ""]
    lines.append(f"{len(rows)} planned; no kernel: {', '.join(refused) or 'none'}")
    print("\n" + "\n".join(lines))
    body = ["", HEADER, *(str(row) for row in rows)]
    RESULTS.write_text("\n".join([*lines, *body]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
