"""How the cost of an analysis grows with the number of Einsums, and how long the command takes.

    python benchmarks/analyze.py [--runs N]

Chains textbook attention layers (six Einsums each, every layer reads the one before) and causal linear attention layers (running
states). Prints milliseconds of the analysis alone, per Einsum, and seconds of the whole command, interpreter start included; all
of it processor time, so that a busy machine does not matter. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from einsmith.einsum import spec
from einsmith.einsum.analysis import analyze

REPEATS = 5
"""Analyses timed at once: the clock of processor time ticks each 10 ms."""


def softmax_layers(count: int) -> str:
    """Self-attention layers one after another."""
    lines = []
    for n in range(count):
        x = "X" if n == 0 else f"AV{n - 1}"
        lines += [
            f"QK{n}[b,p,m] = {x}[b,p,e] * {x}[b,m,e]",
            f"GM{n}[b,p] = max[m](QK{n}[b,p,m])",
            f"SN{n}[b,p,m] = exp(QK{n}[b,p,m] - GM{n}[b,p])",
            f"SD{n}[b,p] = sum[m](SN{n}[b,p,m])",
            f"A{n}[b,p,m] = SN{n}[b,p,m] / SD{n}[b,p]",
            f"AV{n}[b,p,e] = A{n}[b,p,m] * {x}[b,m,e]",
        ]
    return _spec("{b: B, p: L, m: L, e: E}", "{X: [b, p, e]}", lines, f"AV{count - 1}")


def linear_layers(count: int) -> str:
    """Causal linear attention layers with a running state each."""
    lines = []
    for n in range(count):
        x = "X" if n == 0 else f"Y{n - 1}"
        lines += [
            f"S{n}[b,0,e,f] = 0",
            f"S{n}[b,p+1,e,f] = S{n}[b,p,e,f] + {x}[b,p,e] * {x}[b,p,f]",
            f"Y{n}[b,p,f] = {x}[b,p,e] * S{n}[b,p+1,e,f]",
        ]
    return _spec("{b: B, p: L, e: E, f: E}", "{X: [b, p, e]}", lines, f"Y{count - 1}")


def _spec(ranks: str, inputs: str, lines: list[str], output: str) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"name: chain\nranks: {ranks}\ninputs: {inputs}\nsizes: {{B: 2, L: 64, E: 16}}\ncascade: |\n{body}outputs: [{output}]\n"


def timed(action: Callable[[], object], runs: int) -> float:
    """Median seconds of processor time (children included)."""
    times = []
    for _ in range(runs):
        start = _spent()
        action()
        times.append(_spent() - start)
    return statistics.median(times)


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{'cascade':10} {'Einsums':>8} {'analysis ms':>12} {'ms per Einsum':>14} {'command s':>10}")
    for name, write, sizes in (("softmax", softmax_layers, (1, 2, 4, 8, 17)), ("linear", linear_layers, (2, 4, 8, 16, 33))):
        for size in sizes:
            text = write(size)
            cascade = spec.loads(text)
            seconds = timed(lambda cascade=cascade: [analyze(cascade).as_json() for _ in range(REPEATS)], runs) / REPEATS
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "chain.yaml")
                path.write_text(text)
                command = [sys.executable, "-m", "einsmith", "analyze", str(path), "--json"]
                whole = timed(lambda command=command: subprocess.run(command, stdout=subprocess.DEVNULL, check=True), runs)
            count = len(cascade.einsums)
            print(f"{name:10} {count:8} {1000 * seconds:12.1f} {1000 * seconds / count:14.2f} {whole:10.3f}")


if __name__ == "__main__":
    main()
