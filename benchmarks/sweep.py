"""How long sweeps take: points a second, and how that grows with their number.

    python benchmarks/sweep.py [--largest N] [--workers N]

Samples of a space like `examples/sweeps/fusemax-design-space.yaml`, from ten thousand points on, each into an empty folder and
then once more. Seconds depend on who else uses the machine; seconds computed, of all processes, hardly do.
"""

from __future__ import annotations

import argparse
import multiprocessing
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


def _timed(plan: file.Sweep, out: Path, count: int) -> tuple[run.Swept, float, float]:
    """A run, its seconds, and those that its processes computed."""
    started, before = time.perf_counter(), _computed()
    done = run.sweep(plan, out, workers.Local(count))
    seconds = time.perf_counter() - started
    while multiprocessing.active_children():  # what they computed is known when they have ended
        time.sleep(0.01)
    return done, seconds, _computed() - before


def _computed() -> float:
    """Seconds that this process and its children, as far as they have ended, computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    text = locate("sweeps", "fusemax-design-space").read_text(encoding="utf-8")
    names = ("points", "failed", "seconds", "CPU s", "CPU ms/1,000", "again, s", "CPU s", "folder MB", "peak MB")
    print(" ".join(f"{name:>{len(name) + 2}}" for name in names))
    points = 10_000
    while points <= arguments.largest:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sweep.yaml"
            sampling = f"sampling: {{kind: latin, points: {points}, seed: 1}}\n"
            path.write_text(text.replace(*FINER) + sampling, encoding="utf-8")
            plan, out = file.load(path), Path(folder) / "out"
            first, again = [_timed(plan, out, arguments.workers) for _ in range(2)]
            size = sum(found.stat().st_size for found in out.rglob("*") if found.is_file()) / 1e6
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            done = first[0]
            figures = (
                f"{done.points:,}", f"{done.failed:,}", f"{first[1]:.1f}", f"{first[2]:.1f}", f"{first[2] / done.points * 1e6:.0f}",
                f"{again[1]:.1f}", f"{again[2]:.1f}", f"{size:.1f}", f"{peak:,.0f}",
            )  # fmt: skip
            print(" ".join(f"{figure:>{len(name) + 2}}" for name, figure in zip(names, figures, strict=True)), flush=True)
        points *= 10


if __name__ == "__main__":
    main()
