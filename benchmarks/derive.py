"""How the cost of a derivation grows with the number of Einsums, and what each derivation of the tables takes.

    python benchmarks/derive.py [--runs N] [--largest N] [--profile FAMILY]
    python benchmarks/derive.py --table

Families: `normalised`: each layer divides the one before by its sum along m; `softmaxes`: independent softmaxes with inputs
of their own; `layers`: attention layers that share keys and values, each output the next query; `products`: a chain of matrix
products. Prints milliseconds of processor time for the search (without and with the numerical check), per Einsum, and by what power
of the number of Einsums it grew since the row before. `--table`: seconds, with the check, of every cascade in the table of
docs/reference/derivations.md and of every example, the slowest first. A timing never decides a test.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import pstats
import statistics
import time
from collections.abc import Callable

from einsmith.einsum import spec
from einsmith.einsum.rewrite.derive import derive


def normalised(einsums: int) -> str:
    lines = []
    for n in range(max(1, einsums // 2)):
        x = "X" if n == 0 else f"Y{n - 1}"
        lines += [f"D{n}[p] = sum[m](abs({x}[p,m]))", f"Y{n}[p,m] = {x}[p,m] / D{n}[p]"]
    last = f"Y{max(1, einsums // 2) - 1}"
    return _spec("{p: P, m: M}", "{X: [p, m]}", [*lines, f"Z[p] = max[m]({last}[p,m])"], "Z")


def softmaxes(einsums: int) -> str:
    count = max(1, einsums // 5)
    lines, names = [], []
    for n in range(count):
        names.append(f"S{n}: [p, m]")
        lines += [*_softmax(f"S{n}[p,m]", n), f"AV{n}[p,f] = A{n}[p,m] * V[m,f]"]
    outputs = ", ".join(f"AV{n}" for n in range(count))
    return _spec("{p: P, m: M, f: F}", "{V: [m, f], " + ", ".join(names) + "}", lines, outputs)


def layers(einsums: int) -> str:
    count = max(1, einsums // 6)
    lines = []
    for n in range(count):
        q = "Q" if n == 0 else f"AV{n - 1}"
        lines += [f"S{n}[p,m] = {q}[p,e] * K[m,e]", *_softmax(f"S{n}[p,m]", n), f"AV{n}[p,e] = A{n}[p,m] * V[m,e]"]
    return _spec("{p: P, m: M, e: E}", "{Q: [p, e], K: [m, e], V: [m, e]}", lines, f"AV{count - 1}")


def products(einsums: int) -> str:
    """Square matrices, and a vector at the end: best computed from the back."""
    names = ["A0: [p, e]"] + [f"A{n}: [m2, e]" if n % 2 == 0 else f"A{n}: [e, m2]" for n in range(1, einsums + 1)]
    lines = []
    for n in range(1, einsums + 1):
        left = "A0" if n == 1 else f"Y{n - 1}"
        old, new = ("e", "m2") if n % 2 else ("m2", "e")
        lines.append(f"Y{n}[p,{new}] = {left}[p,{old}] * A{n}[{old},{new}]")
    return _spec("{p: P, m2: M, e: E}", "{" + ", ".join(names) + "}", lines, f"Y{einsums}")


def _softmax(score: str, n: int) -> list[str]:
    return [
        f"G{n}[p] = max[m]({score})",
        f"N{n}[p,m] = exp({score} - G{n}[p])",
        f"D{n}[p] = sum[m](N{n}[p,m])",
        f"A{n}[p,m] = N{n}[p,m] / D{n}[p]",
    ]


def _spec(ranks: str, inputs: str, lines: list[str], outputs: str) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    sizes = "{" + ", ".join(f"{name}: 64" for name in "PMEF" if f": {name}" in ranks) + "}"
    return f"name: chain\nranks: {ranks}\ninputs: {inputs}\nsizes: {sizes}\ncascade: |\n{body}outputs: [{outputs}]\n"


FAMILIES: dict[str, tuple[Callable[[int], str], str]] = {
    "normalised": (normalised, "m"), "softmaxes": (softmaxes, "m"), "layers": (layers, "m"), "products": (products, "e"),
}  # fmt: skip


def timed(action: Callable[[], object], runs: int) -> float:
    """Median seconds of processor time."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return statistics.median(times)


def table() -> None:
    """Processor time of each derivation, the slowest first."""
    import sys
    from pathlib import Path

    root = Path(__file__).parents[1]
    sys.path.insert(0, str(root))
    from tests.einsum.rewrite.cases import CASES

    cascades = [(case.name, spec.loads(case.text)) for case in CASES]
    cascades += [(f"examples/{path.stem}", spec.load(path)) for path in sorted((root / "examples").glob("[ac][ta]*/*.yaml"))]
    derive(cascades[0][1], "m")  # imports
    found = []
    for name, cascade in cascades:
        for rank in ("m", "p"):
            if rank not in cascade.rank_order or (rank == "p" and not name.startswith("examples")):
                continue
            start = time.process_time()
            done = derive(cascade, rank)
            passes = f"{done.passes_before.get(rank, 0)} -> {done.passes_after.get(rank, 0)}"
            compared = sum(1 + len(each.others) for each in done.compared)
            found.append((time.process_time() - start, name, rank, len(cascade.einsums), passes, compared))
    print(f"{'cascade':36} {'rank':>4} {'Einsums':>8} {'passes':>8} {'forms':>6} {'seconds':>8}")
    for seconds, name, rank, einsums, passes, compared in sorted(found, reverse=True):
        print(f"{name:36} {rank:>4} {einsums:8} {passes:>8} {compared:6} {seconds:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--largest", type=int, default=100)
    parser.add_argument("--profile", choices=list(FAMILIES))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        table()
        return
    if options.profile:
        write, rank = FAMILIES[options.profile]
        cascade = spec.loads(write(options.largest))
        profile = cProfile.Profile()
        profile.runcall(derive, cascade, rank, check=False)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(35)
        return
    print(f"{'family':11} {'Einsums':>8} {'passes':>8} {'search ms':>10} {'per Einsum':>11} {'power':>6} {'with check ms':>14}")
    for name, (write, rank) in FAMILIES.items():
        last: tuple[int, float] | None = None
        for size in (1, 6, 12, 25, 50, 100):
            if size > options.largest:
                continue
            cascade = spec.loads(write(size))
            if last and len(cascade.einsums) == last[0]:
                continue
            found = derive(cascade, rank, check=False)
            seconds = timed(lambda cascade=cascade, rank=rank: derive(cascade, rank, check=False), options.runs)
            whole = timed(lambda cascade=cascade, rank=rank: derive(cascade, rank), options.runs)
            count = len(cascade.einsums)
            power = math.log(seconds / last[1]) / math.log(count / last[0]) if last else float("nan")
            passes = f"{found.passes_before.get(rank, 0)} -> {found.passes_after.get(rank, 0)}"
            each = 1000 * seconds / count
            print(
                f"{name:11} {count:8} {passes:>8} {1000 * seconds:10.0f} {each:11.1f} {power:6.1f} {1000 * whole:14.0f}", flush=True
            )
            last = count, seconds


if __name__ == "__main__":
    main()
