"""How long the float64 interpreter takes, and how much memory beyond its inputs.

    python benchmarks/interpret.py [--runs N]

Attention with B=1, H=8, P=M=1024, E=F=64 in several forms (the textbook form has a target of 2 s on two cores), and recurrences,
whose steps are a loop in Python. Prints the median and the fastest of N runs. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from pathlib import Path

import numpy as np

from einsmith.einsum import interpret, spec

EXAMPLES = Path(__file__).parents[1] / "examples" / "attention"
HEADS = {"B": 1, "H": 8, "P": 1024, "M": 1024, "E": 64, "F": 64, "M0": 128}
CASES = {
    # example: sizes
    "softmax": HEADS,
    "softmax-causal": HEADS,
    "deferred-division": HEADS,
    "flash2": HEADS,
    "sliding-window": HEADS,
    "topk-attention": HEADS,
    "linear-causal": {"B": 1, "H": 8, "M": 1024},
    "retention": {"B": 1, "H": 8, "M": 1024},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{'example':20} {'median s':>9} {'fastest s':>9} {'tensors MB':>11} {'peak MB':>9}")
    for name, wanted in CASES.items():
        cascade = spec.load(EXAMPLES / f"{name}.yaml")
        sizes = {**dict(cascade.sizes), **{symbol: n for symbol, n in wanted.items() if symbol in cascade.symbols}}
        inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(0))
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            interpret.evaluate(cascade, inputs, sizes)
            times.append(time.perf_counter() - start)
        everything = interpret.evaluate(cascade, inputs, sizes, keep=[tensor.name for tensor in cascade.tensors])
        total = sum(array.nbytes for name, array in everything.items() if name not in inputs)
        del everything
        tracemalloc.start()
        interpret.evaluate(cascade, inputs, sizes)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{name:20} {statistics.median(times):9.3f} {min(times):9.3f} {total / 1e6:11.1f} {peak / 1e6:9.1f}")


if __name__ == "__main__":
    main()
