"""What plans predict against what compilers make of every candidate that they offer. No GPU is needed.

    python benchmarks/kernels.py                                   the table, 10 candidates a plan: about 15 minutes on two cores
    python benchmarks/kernels.py softmax differential --gpu h200   some of it, each candidate on a line
    python benchmarks/kernels.py --keep 1000 softmax-causal        every choice that is predicted to fit

For each algorithm and GPU: candidates compiled, how many of them can be launched and how many have matrix instructions; the
greatest relative error of the bytes of operands of matrix products that wait in shared memory at one time; the least and the
greatest relative error of all shared memory (below zero: under-predicted); the median of predicted over compiled registers; how
many spill, and most bytes spilled by one thread; and the same for the first candidate alone.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import locate
from einsmith.kernels.aot import Compiled, compile_modules
from einsmith.kernels.emit import emit
from einsmith.mapper import gpu as gpus
from einsmith.mapper.one_pass import one_pass
from einsmith.mapper.plan import Candidate, plan

ATTENTION = {"B": 4, "H": 16, "P": 4096, "M": 4096}
ALGORITHMS: dict[str, dict[str, int]] = {
    "softmax": {**ATTENTION, "E": 64, "F": 64},
    "softmax-causal": {**ATTENTION, "E": 128, "F": 128},
    "gqa": {"B": 4, "KV": 4, "G": 8, "P": 4096, "M": 4096, "E": 128, "F": 128},
    "sigmoid": {**ATTENTION, "E": 64, "F": 64},
    "alibi": {**ATTENTION, "E": 64, "F": 64},
    "softcap": {**ATTENTION, "E": 128, "F": 128},
    "sink": {**ATTENTION, "E": 64, "F": 64},
    "differential": {"B": 2, "H": 8, "P": 2048, "M": 2048, "E": 64, "F": 128},
    "diffqkv": {"B": 2, "H": 8, "GK": 8, "GV": 2, "P": 2048, "M": 2048, "E": 64, "F": 128},
    "linear": {**ATTENTION, "E": 64, "F": 64},
    "softplus-lssa": {**ATTENTION, "E": 64, "F": 64},
    "channel": {"B": 8, "H": 8, "M": 4096, "C": 64},
    "rms-norm-matmul": {"B": 4, "P": 4096, "E": 4096, "F": 4096},
}
"""Algorithms and the sizes that they are compiled for."""
GPUS = ("a100", "h200", "b200", "mi300x")


@dataclass(frozen=True)
class Row:
    """One candidate: predicted and compiled."""

    candidate: Candidate
    compiled: Compiled

    @property
    def staged(self) -> float:
        """Relative error of the operands in shared memory."""
        return _relative(self.candidate.staged_bytes, self.compiled.staged_bytes or 0)

    @property
    def total(self) -> float:
        return _relative(self.candidate.shared_bytes, self.compiled.shared_bytes)

    @property
    def registers(self) -> float:
        """Predicted over compiled."""
        return self.candidate.registers / (self.compiled.registers or 1)

    @property
    def spilled(self) -> int:
        return self.compiled.spill_bytes or 0

    @property
    def matrix(self) -> bool:
        return any(name != "ex2" for name in self.compiled.mma)

    def __str__(self) -> str:
        one, made = self.candidate, self.compiled
        if made.error:
            return f"    {one.blocks} {one.warps} warps {one.stages} stages: {made.error}"
        blocks = ", ".join(f"{name} {size}" for name, size in one.blocks.items())
        return (
            f"    {blocks}; {one.warps} warps, {one.stages} stages: staged {one.staged_bytes:,} / {made.staged_bytes:,}, "
            f"shared {one.shared_bytes:,} / {made.shared_bytes:,}, registers {one.registers} / {made.registers}, "
            f"spilled {made.spill_bytes}, {dict(made.mma)}{'' if made.launches else ' CANNOT LAUNCH'}"
        )


def _relative(predicted: int, compiled: int) -> float:
    if predicted == compiled:
        return 0.0
    return predicted / compiled - 1 if compiled else float("inf")


def compiled_rows(algorithm: str, gpu: str, keep: int, timeout_s: float) -> tuple[list[Row], float]:
    """Every candidate that the plan offers, compiled; and the seconds that planning took."""
    textbook, target, sizes = spec.load(locate("attention", algorithm)), gpus.load(gpu), ALGORITHMS[algorithm]
    form = one_pass(textbook, sizes)
    start = time.perf_counter()
    planned = plan(form.cascade, target, sizes, keep=keep)
    seconds = time.perf_counter() - start
    chosen = [replace(planned, candidates=(one,)) for one in planned.candidates]
    modules = [(emit(form.cascade, one, textbook=textbook), one) for one in chosen]
    found = compile_modules(modules, textbook, timeout_s=timeout_s)
    return [Row(one.best, made[target.target]) for one, made in zip(chosen, found, strict=True)], seconds


COLUMNS = [
    "algorithm",
    "target",
    "compiled",
    "launch",
    "matrix",
    "staged",
    "total",
    "registers",
    "spill",
    "first:_staged",
    "total",
    "registers",
    "spill",
]
HEADER = f"| {' | '.join(name.replace('_', ' ') for name in COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(algorithm: str, target: str, rows: Sequence[Row]) -> str:
    """One row of the table."""
    first = rows[0]
    good = [row for row in rows if row.compiled.error is None]
    spills = [row.spilled for row in good if row.spilled]
    spilled = f"{len(spills)} (most {max(spills)} B)" if spills else "0"
    worst = max((abs(row.staged) for row in good), default=0)
    cells = [
        algorithm, target, str(len(rows)), str(sum(row.compiled.launches for row in rows)), str(sum(row.matrix for row in rows)),
        f"{worst:.1%}", f"{min(row.total for row in good):+.0%} to {max(row.total for row in good):+.0%}",
        f"{statistics.median(row.registers for row in good):.2f}", spilled,
        f"{first.staged:+.1%}", f"{first.total:+.0%}", f"{first.candidate.registers} / {first.compiled.registers}",
        f"{first.spilled} B",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help=f"of {', '.join(ALGORITHMS)}")
    parser.add_argument("--gpu", action="append", choices=GPUS, help="may be given several times")
    parser.add_argument("--keep", type=int, default=10, help="candidates of a plan")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for the candidates of one plan")
    given = parser.parse_args()
    unknown = set(given.algorithms) - set(ALGORITHMS)
    if unknown:
        parser.error(f"no sizes here for {', '.join(sorted(unknown))}")
    import triton

    print(f"einsmith {datetime.date.today()}, triton {triton.__version__}, Python {sys.version.split()[0]}, float16 inputs\n")
    print(HEADER, flush=True)
    slowest, everything = 0.0, []
    for algorithm in given.algorithms or ALGORITHMS:
        for name in given.gpu or GPUS:
            try:
                rows, seconds = compiled_rows(algorithm, name, given.keep, given.timeout)
            except EinsmithError as error:
                print(f"| {algorithm} | {name} | {error.diagnostics[0].message} |", flush=True)
                continue
            slowest = max(slowest, seconds)
            everything += [(name, row) for row in rows]
            print(line(algorithm, gpus.load(name).target, rows), flush=True)
            if given.algorithms:
                print(*rows, sep="\n", flush=True)
    print()
    for name in given.gpu or GPUS:
        good = [row for gpu, row in everything if gpu == name and row.compiled.error is None]
        if good:
            print(
                f"{gpus.load(name).target}: {len(good)} candidates, {sum(row.compiled.launches for row in good)} can be launched; "
                f"staged within 2%: {sum(abs(row.staged) <= 0.02 for row in good)}; total under-predicted by more than 5%: "
                f"{sum(row.total < -0.05 for row in good)}; spilled: {sum(row.spilled > 0 for row in good)}"
            )
    print(f"slowest plan: {slowest:.2f} s")


if __name__ == "__main__":
    main()
