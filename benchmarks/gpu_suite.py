"""Everything that wants a GPU, in one go: correctness first, then timings; within ten minutes.

    python benchmarks/gpu_suite.py                       about ten minutes; writes benchmarks/results/gpu-NAME.txt
    python benchmarks/gpu_suite.py --minutes 4 --quick   fewer shapes

On the GPU: every kernel of the list is checked on the awkward shapes of `einsmith test` in all three types against the float64
interpreter, then timed against plain torch and torch's own attention, several candidates of each plan. What does not fit the time
is said to be left out. Without a GPU it says so in one line and exits with 0.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import locate
from einsmith.kernels.check import device

RESULTS = Path(__file__).parent / "results"
CHECKED = [
    "softmax-causal", "softmax", "gqa", "sigmoid", "alibi", "softcap", "sink", "differential", "diffqkv", "mla", "linear",
    "softplus-lssa", "channel", "sliding-window", "na1d", "na2d", "varlen", "retention", "gla", "delta", "rms-norm-matmul",
]  # fmt: skip
"""Algorithms whose numbers are checked, the most telling first."""
HEADS = {"B": 4, "H": 16}
TIMED: list[tuple[str, dict[str, int], str]] = [
    ("softmax-causal", {**HEADS, "P": 8192, "M": 8192, "E": 128, "F": 128}, "bfloat16"),
    ("softmax", {**HEADS, "P": 8192, "M": 8192, "E": 128, "F": 128}, "bfloat16"),
    ("softmax", {**HEADS, "P": 8192, "M": 8192, "E": 64, "F": 64}, "float16"),
    ("softmax-causal", {**HEADS, "P": 2048, "M": 2048, "E": 128, "F": 128}, "bfloat16"),
    ("gqa", {"B": 8, "KV": 8, "G": 8, "P": 1, "M": 16384, "E": 128, "F": 128}, "bfloat16"),
    ("gqa", {"B": 4, "KV": 4, "G": 8, "P": 4096, "M": 4096, "E": 128, "F": 128}, "bfloat16"),
    ("softcap", {**HEADS, "P": 4096, "M": 4096, "E": 128, "F": 128}, "bfloat16"),
    ("sigmoid", {**HEADS, "P": 4096, "M": 4096, "E": 64, "F": 64}, "bfloat16"),
    ("differential", {"B": 2, "H": 8, "P": 4096, "M": 4096, "E": 64, "F": 128}, "bfloat16"),
    ("sliding-window", {**HEADS, "P": 8192, "M": 8192, "E": 64, "F": 64, "W": 256}, "bfloat16"),
    ("linear", {**HEADS, "P": 4096, "M": 4096, "E": 64, "F": 64}, "bfloat16"),
    ("rms-norm-matmul", {"B": 4, "P": 2048, "E": 4096, "F": 4096}, "bfloat16"),
]
"""What is timed: algorithm, sizes, type."""


class Budget:
    """Seconds that are left."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.end = clock, clock() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self.end - self.clock())


def checks(names: Sequence[str], budget: Budget, gpu: str, say: Callable[[str], None]) -> int:
    """Check kernels until half of the time is gone; the number of failures."""
    from einsmith.kernels.check import check
    from einsmith.kernels.emit import emit_module
    from einsmith.kernels.store import stored
    from einsmith.mapper import gpu as gpus
    from einsmith.mapper.stages import plan_module

    failed = 0
    least = budget.left / 2
    for number, name in enumerate(names):
        if budget.left < least:
            say(f"left out for want of time: {', '.join(names[number:])}")
            break
        start = budget.left
        try:
            cascade = spec.load(locate("attention", name))
            module = stored(emit_module(plan_module(cascade, gpus.load(gpu))))
            found = check(module, timeout_s=max(10.0, min(120.0, budget.left)))
        except Exception as fault:  # of one kernel: the others are still to be checked
            failed += 1
            say(f"FAIL {name}: {told(fault)}")
            continue
        failed += found.failed
        mark, seconds = "FAIL" if found.failed else "ok  ", start - budget.left
        say(f"{mark} {name}: {found.passed} passed, {found.failed} failed, {seconds:.0f} s")
        for row in found.rows:
            if not row.passed:
                say(str(row))
    return failed


def timings(
    todo: Sequence[tuple[str, dict[str, int], str]], budget: Budget, gpu: str, candidates: int, say: Callable[[str], None]
) -> int:
    """Time kernels while there is time; the number of implementations that failed."""
    from einsmith.kernels.bench import bench
    from einsmith.mapper import gpu as gpus

    failed = 0
    for number, (name, sizes, dtype) in enumerate(todo):
        if budget.left < 20:
            say(f"left out for want of time: {', '.join(one for one, _, _ in todo[number:])}")
            break
        try:
            cascade = spec.load(locate("attention", name))
            found = bench(cascade, gpus.load(gpu), sizes, dtype=dtype, candidates=candidates, timeout_s=min(150.0, budget.left))
        except Exception as fault:  # of one cascade: the others are still to be timed
            failed += 1
            say(f"FAIL {name}: {told(fault)}")
            continue
        failed += sum(row.fault is not None for row in found.rows)
        say(f"{found}\n")
    return failed


def told(fault: Exception) -> str:
    """A fault in a line."""
    if isinstance(fault, EinsmithError):
        return fault.diagnostics[0].message
    return f"{type(fault).__name__}: {' '.join(str(fault).split())}"[:300]


def main(arguments: Sequence[str] | None = None, clock: Callable[[], float] = time.monotonic) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--gpu", default="h200", help="the GPU to plan for")
    parser.add_argument("--candidates", type=int, default=4, help="of each plan")
    parser.add_argument("--quick", action="store_true", help="three kernels checked, three timed")
    parser.add_argument("-o", "--output", type=Path, help="where to write; default: benchmarks/results/gpu-NAME.txt")
    given = parser.parse_args(arguments)
    if device() != "cuda":
        print("no GPU here: nothing was measured")
        return 0
    import torch
    import triton

    name = torch.cuda.get_device_name()
    output = given.output or RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("", encoding="utf-8")

    def say(text: str) -> None:
        """Kept at once: nothing that was measured is lost."""
        print(text, flush=True)
        with output.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    versions = f"torch {torch.__version__}, triton {triton.__version__}, Python {platform.python_version()}"
    say(f"{datetime.date.today()}, {name}, {versions}; planned for {given.gpu}")
    budget = Budget(60 * given.minutes, clock)
    failed = checks(CHECKED[:3] if given.quick else CHECKED, budget, given.gpu, say)
    failed += timings(TIMED[:3] if given.quick else TIMED, budget, given.gpu, given.candidates, say)
    say(f"{failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
