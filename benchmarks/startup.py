"""How long commands take to answer, interpreter start included.

    python benchmarks/startup.py [--runs N]

Prints the median and the fastest of N runs of each command, with its target. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = {
    # seconds
    ("--help",): 0.2,
    ("check", "examples/attention/softmax.yaml"): 0.6,
    ("analyze", "examples/attention/softmax.yaml"): 0.6,
    ("analyze", "examples/attention/fusemax.yaml", "--json"): 0.6,
}


def measure(arguments: tuple[str, ...], runs: int) -> list[float]:
    """Wall-clock seconds of each run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "einsmith", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{'command':60} {'median s':>9} {'fastest s':>9} {'target s':>9}")
    for arguments, target in TARGETS.items():
        times = measure(arguments, runs)
        print(f"{'einsmith ' + ' '.join(arguments):60} {statistics.median(times):9.3f} {min(times):9.3f} {target:9.3f}")


if __name__ == "__main__":
    main()
