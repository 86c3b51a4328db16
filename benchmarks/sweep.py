"""How long sweeps take: points a second, and how that grows with their number.

    python benchmarks/sweep.py [--largest N] [--workers N]

Samples of a space like `examples/sweeps/fusemax-design-space.yaml`, from ten thousand points on, each into an empty folder and
then once more.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from einsmith.einsum.library import locate
from einsmith.mapper.sweep import file, run, workers

FINER = (
    "[1 MiB, 2 MiB, 4 MiB, 6 MiB, 8 MiB, 12 MiB, 16 MiB, 24 MiB, 32 MiB, 48 MiB, 64 MiB, 128 MiB]",
    "{from: 1048576, to: 134217728, step: 1048576}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    text = locate("sweeps", "fusemax-design-space").read_text(encoding="utf-8")
    print(f"{'points':>10} {'failed':>10} {'seconds':>8} {'points/s':>9} {'again, s':>8} {'folder MB':>9} {'peak MB':>8}")
    points = 10_000
    while points <= arguments.largest:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sweep.yaml"
            sampling = f"sampling: {{kind: latin, points: {points}, seed: 1}}\n"
            path.write_text(text.replace(*FINER) + sampling, encoding="utf-8")
            plan, out = file.load(path), Path(folder) / "out"
            started = time.perf_counter()
            done = run.sweep(plan, out, workers.Local(arguments.workers))
            first = time.perf_counter() - started
            started = time.perf_counter()
            run.sweep(plan, out, workers.Local(arguments.workers))
            again = time.perf_counter() - started
            size = sum(found.stat().st_size for found in out.rglob("*") if found.is_file()) / 1e6
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            rate = done.points / first
            print(
                f"{done.points:10,} {done.failed:10,} {first:8.1f} {rate:9,.0f} {again:8.1f} {size:9.1f} {peak:8,.0f}", flush=True
            )
        points *= 10


if __name__ == "__main__":
    main()
