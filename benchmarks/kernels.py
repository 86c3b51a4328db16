"""What plans predict against what compilers make of every candidate that they offer. No GPU is needed.

    python benchmarks/kernels.py                              the table: an hour, less the second time
    python benchmarks/kernels.py softmax linear --gpu h200    some of it, each candidate on a line; kept for the page
    python benchmarks/kernels.py --keep 1000 softmax-causal   every choice that is predicted to fit, not ten of a plan
    python benchmarks/kernels.py --minutes 4                  what can be compiled in that time; run it again for the rest
    python benchmarks/kernels.py --files --keep 4 --minutes 4 --rows /tmp/files.jsonl
                                                              every attention file, at its own sizes and at long ones
    python benchmarks/kernels.py --page docs/reference/predictions.md

What compilers made is kept in `benchmarks/results/kernels.jsonl`, a line for each kernel text and target, and compiled again only
where the text is another.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from einsmith.einsum import spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import locate
from einsmith.kernels.aot import Compiled, compile_modules
from einsmith.kernels.bench import chosen
from einsmith.kernels.emit import emit_module
from einsmith.mapper import gpu as gpus
from einsmith.mapper.module_plan import ModulePlan
from einsmith.mapper.plan import Candidate
from einsmith.mapper.stages import plan_module

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "kernels.jsonl"
ATTENTION = {"B": 4, "H": 16, "P": 4096, "M": 4096}
ALGORITHMS: dict[str, tuple[str, dict[str, int]]] = {
    "softmax": ("softmax", {**ATTENTION, "E": 64, "F": 64}),
    "softmax, one query": ("softmax", {"B": 1, "H": 16, "P": 1, "M": 16384, "E": 128, "F": 128}),
    "softmax-causal": ("softmax-causal", {**ATTENTION, "E": 128, "F": 128}),
    "gqa": ("gqa", {"B": 4, "KV": 4, "G": 8, "P": 4096, "M": 4096, "E": 128, "F": 128}),
    "streaming": ("streaming", {**ATTENTION, "E": 64, "F": 64}),
    "alibi": ("alibi", {**ATTENTION, "E": 64, "F": 64}),
    "softcap": ("softcap", {**ATTENTION, "E": 128, "F": 128}),
    "sink": ("sink", {**ATTENTION, "E": 64, "F": 64}),
    "linear": ("linear", {**ATTENTION, "E": 64, "F": 64}),
    "retention": ("retention-parallel", {"B": 4, "H": 16, "M": 2048, "E": 64, "F": 64}),
    "layer-norm-matmul": ("layer-norm-matmul", {"B": 4, "P": 4096, "E": 4096, "F": 4096}),
    "gla": ("gla", {"B": 4, "H": 16, "M": 2048, "E": 64, "F": 64}),
    "linear-causal": ("linear-causal", {"B": 4, "H": 16, "M": 2048, "E": 64, "F": 64}),
    "moh": ("moh", {"B": 4, "HS": 1, "HR": 8, "J": 2, "P": 2048, "M": 2048, "D": 512, "E": 64, "F": 64}),
    "mla": ("mla", {"B": 4, "H": 16, "P": 2048, "M": 2048, "L": 256, "E": 64, "R": 64, "F": 64}),
    "diffqkv": ("diffqkv", {"B": 4, "H": 8, "GK": 8, "GV": 2, "P": 2048, "M": 2048, "E": 64, "F": 64}),
    "sliding-window": ("sliding-window", {**ATTENTION, "E": 64, "F": 64, "W": 256}),
    "hilo": ("hilo", {"B": 4, "HH": 4, "HL": 4, "JY": 16, "JX": 16, "W": 2, "E": 64, "F": 64}),
    "landmark": ("landmark", {"B": 4, "H": 16, "R": 64, "S": 32, "E": 64, "F": 64}),
}
"""Name in the table -> the spec, and the sizes that it is compiled for."""
OPTIONS: dict[str, dict[str, Any]] = {
    "softmax-causal, 8 bits": {"dtype": "float8_e4m3fn"},
    "gqa, 8 bits": {"dtype": "float8_e5m2"},
    "softmax-causal, descriptors": {"descriptors": "on"},
}
"""Name in the table -> what the plan is asked for beside sizes; inputs are float16 and the rest is the plan's choice elsewhere."""
ALGORITHMS |= {name: ALGORITHMS[name.split(",")[0]] for name in OPTIONS}
LONG: dict[str, int] = {
    "B": 4, "H": 16, "KV": 4, "P": 2048, "M": 2048, "E": 64, "F": 64, "D": 512, "L": 256, "NY": 64, "NX": 64, "JY": 16, "JX": 16,
    "R": 64, "S": 32,
}  # fmt: skip
"""Size of a file -> what it is at long sizes; others are as the file states them, and so are sizes of 1."""
GPUS = ("a100", "h200", "b200", "mi300x")
AT_ONCE = 6
"""Modules that one process compiles before its answers are kept."""


@dataclass(frozen=True)
class Row:
    """One kernel of one candidate: predicted and compiled."""

    candidate: Candidate
    compiled: Compiled
    place: int
    """Among the candidates of its plan: 0 is the first."""

    @property
    def staged(self) -> float:
        """Relative error of the operands of matrix products in use at one time."""
        return _relative(self.candidate.staged_bytes, self.compiled.staged_bytes or 0)

    @property
    def total(self) -> float:
        """Relative error of all shared memory; below zero: under-predicted."""
        return _relative(self.candidate.shared_bytes, self.compiled.shared_bytes)

    @property
    def registers(self) -> float:
        """Predicted over compiled."""
        return self.candidate.registers / (self.compiled.registers or 1)

    @property
    def spilled(self) -> int:
        return self.compiled.spill_bytes or 0

    def __str__(self) -> str:
        one, made = self.candidate, self.compiled
        blocks = ", ".join(f"{name} {size}" for name, size in one.blocks.items())
        what = f"    {blocks}; {one.warps} warps, {one.stages} stages: "
        if made.error:
            return what + made.error
        off = " STAGED" * (abs(self.staged) > 0.02) + " TOTAL" * (self.total < -0.05) + " CANNOT LAUNCH" * (not made.launches)
        return what + (
            f"staged {one.staged_bytes:,} / {made.staged_bytes:,}, shared {one.shared_bytes:,} / {made.shared_bytes:,}, "
            f"registers {one.registers} / {made.registers}, spilled {made.spill_bytes}, {dict(made.mma)}{off}"
        )


def _relative(predicted: int, compiled: int) -> float:
    if predicted == compiled:
        return 0.0
    return predicted / compiled - 1 if compiled else float("inf")


class Compilations:
    """What compilers made of kernels, in a file: a line each."""

    def __init__(self, path: Path, until: float) -> None:
        self.path, self.until = path, until
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.known: dict[str, dict[str, Any]] = {row["key"]: row for row in map(json.loads, lines)}

    def __call__(self, algorithm: str, modules: Sequence[ModulePlan], timeout_s: float) -> list[Compiled | None]:
        """Each module compiled for its GPU; None where the time is up."""
        target, textbook = modules[0].gpu.target, modules[0].textbook
        texts = [emit_module(one) for one in modules]
        keys = [_key(one, text) for one, text in zip(modules, texts, strict=True)]
        missing = [number for number, key in enumerate(keys) if key not in self.known]
        while missing and time.monotonic() < self.until:
            now, missing = missing[:AT_ONCE], missing[AT_ONCE:]
            found = compile_modules([(texts[n], modules[n]) for n in now], textbook, timeout_s=timeout_s)
            for number, made in zip(now, found, strict=True):
                self._keep(keys[number], algorithm, modules[number], made[target])
        return [_compiled(self.known[key]["compiled"]) if key in self.known else None for key in keys]

    def _keep(self, key: str, algorithm: str, module: ModulePlan, made: Compiled) -> None:
        row = {"key": key, "algorithm": algorithm, "gpu": module.gpu.name, "plan": described(module), "compiled": _bare(made)}
        self.known[key] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")

    def only(self, used: set[str]) -> None:
        """Forget what belongs to other texts."""
        rows = sorted(
            (row for row in self.known.values() if row["key"] in used), key=lambda row: (row["algorithm"], row["gpu"], row["key"])
        )
        self.path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")


def _bare(made: Compiled) -> dict[str, Any]:
    return {
        **{k: v for k, v in vars(made).items() if k != "kernels"},
        "mma": dict(made.mma),
        "kernels": [_bare(one) for one in made.kernels],
    }


def _compiled(values: dict[str, Any]) -> Compiled:
    return Compiled(**{**values, "kernels": tuple(_compiled(one) for one in values["kernels"])})


def described(plan: ModulePlan) -> list[Any]:
    """Tiles, warps and stages of each kernel."""
    return [[dict(kernel.best.blocks), kernel.best.warps, kernel.best.stages] for kernel in plan.kernels]


def _key(plan: ModulePlan, text: str) -> str:
    """Of what the compiler sees: everything but the header and the predictions."""
    tree = ast.parse(text)
    lines = text.splitlines()
    bare = [
        "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in tree.body
        if not (
            isinstance(node, ast.Expr)
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("PLAN", "SPEC", "CASES"))
        )
    ]
    sizes = [dict(kernel.sizes.scalars) for kernel in plan.kernels]
    seen = json.dumps([bare, described(plan), sizes, plan.dtype, plan.gpu.target, version("triton")], default=str)
    return hashlib.sha256(seen.encode()).hexdigest()[:20]


def offered(algorithm: str, gpu: str, keep: int) -> list[ModulePlan]:
    """Every candidate of the plan as a module; the kernels of a module of several step together."""
    name, sizes = ALGORITHMS[algorithm]
    cascade = spec.load(locate("attention", name))
    return chosen(plan_module(cascade, gpus.load(gpu), sizes, keep=keep, **OPTIONS.get(algorithm, {})), keep)


def spread(algorithm: str, gpu: str, count: int) -> list[ModulePlan]:
    """Some candidates of each kernel as modules: the first, the last, and others evenly between them."""
    name, sizes = ALGORITHMS[algorithm]
    whole = plan_module(spec.load(locate("attention", name)), gpus.load(gpu), sizes)
    found = []
    for number in range(min(count, max(len(kernel.candidates) for kernel in whole.kernels))):
        places = [round(number * (len(kernel.candidates) - 1) / max(count - 1, 1)) for kernel in whole.kernels]
        kernels = (replace(k, candidates=(k.candidates[place],)) for k, place in zip(whole.kernels, places, strict=True))
        found.append(replace(whole, kernels=tuple(kernels)))
    return found


def files() -> dict[str, tuple[str, dict[str, int]]]:
    """Every attention file, at its own sizes and at long ones."""
    found: dict[str, tuple[str, dict[str, int]]] = {}
    for path in sorted((ROOT / "examples" / "attention").glob("*.yaml")):
        own = {name: int(value) for name, value in spec.load(path).sizes}
        found[path.stem] = (path.stem, own)
        found[f"{path.stem}, long"] = (
            path.stem,
            {name: max(value, LONG.get(name, 1)) if value > 1 or name == "B" else value for name, value in own.items()},
        )
    return found


def rows(modules: Sequence[ModulePlan], made: Sequence[Compiled | None]) -> list[list[Row]]:
    """For each kernel its candidates, each once."""
    found: list[list[Row]] = [[] for _ in modules[0].kernels]
    for module, compiled in zip(modules, made, strict=True):
        if compiled is None:
            continue
        for here, kernel, part in zip(found, module.kernels, compiled.kernels or (compiled,) * len(module.kernels), strict=True):
            if not here or here[-1].candidate is not kernel.best:
                here.append(Row(kernel.best, part, len(here)))
    return found


COLUMNS = [
    "algorithm", "target", "compiled", "can be launched", "matrix instructions", "operands: worst", "total: median", "least",
    "greatest", "registers: median", "spill", "first: spilled",
]  # fmt: skip
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(algorithm: str, target: str, found: Sequence[Row]) -> str:
    """One row of the table."""
    good = [row for row in found if row.compiled.error is None]
    totals = sorted(row.total for row in good)
    launched, matrix, spilled = (
        sum(row.compiled.launches for row in found),
        sum(any(name != "ex2" for name in row.compiled.mma) for row in good),
        sum(row.spilled > 0 for row in good),
    )
    cells = [
        algorithm, target, str(len(found)), str(launched), str(matrix),
        _percent(max((row.staged for row in good), key=abs, default=0.0)),
        *(_percent(one) for one in (statistics.median(totals), totals[0], totals[-1])),
        f"{statistics.median(row.registers for row in good):.2f}", str(spilled), f"{found[0].spilled} B",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _percent(value: float) -> str:
    return "exact" if value == 0 else f"{value:+.1%}"


def sums(everything: Sequence[tuple[str, Row]], names: Sequence[str]) -> Iterator[str]:
    """A row for each target: how many were off."""
    for name in names:
        all_rows = [row for gpu, row in everything if gpu == name]
        good = [row for row in all_rows if row.compiled.error is None]
        if good:
            cells = [
                gpus.load(name).target, len(all_rows), len(all_rows) - len(good), sum(not row.compiled.launches for row in good),
                sum(abs(row.staged) > 0.02 for row in good), sum(row.total < -0.05 for row in good),
                f"{statistics.median(row.total for row in good):+.1%}",
                sum(row.spilled > 0 for row in good), sum(row.spilled > 0 and row.place == 0 for row in good),
            ]  # fmt: skip
            yield f"| {' | '.join(map(str, cells))} |"


SUMS = (
    "| target | compiled | do not compile | cannot be launched | operands off by more than 2% "
    "| total under-predicted by more than 5% | median of total | spill | spill, first candidates |\n|" + "---|" * 9
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help=f"of {', '.join(ALGORITHMS)}")
    parser.add_argument("--files", action="store_true", help="every attention file instead, or those named")
    parser.add_argument("--gpu", action="append", choices=(*GPUS, "rtx4090"), help="may be given several times")
    parser.add_argument("--keep", type=int, default=10, help="candidates of a plan; of `--files`, spread over the list")
    parser.add_argument("--minutes", type=float, default=1e6, help="compile no more after that")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for the compilation of a few candidates")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file of what was compiled")
    parser.add_argument("--page", type=Path, help="write the page here, and forget rows that are not on it")
    given = parser.parse_args()
    if given.files:
        some = {name: one for name, one in files().items() if not given.algorithms or one[0] in given.algorithms}
        ALGORITHMS.update(some)
        given.algorithms = list(some)
    unknown = set(given.algorithms) - set(ALGORITHMS)
    if unknown:
        parser.error(f"no sizes here for {', '.join(sorted(unknown))}")
    compilations = Compilations(given.rows, time.monotonic() + 60 * given.minutes)
    names = given.gpu or GPUS
    print(f"{versions()}\n\n{HEADER}", flush=True)
    everything: list[tuple[str, Row]] = []
    table: list[str] = []
    used: set[str] = set()
    left_out = 0
    for algorithm in given.algorithms or ALGORITHMS:
        for name in names:
            try:
                modules = (spread if given.files else offered)(algorithm, name, given.keep)
            except EinsmithError as error:
                table.append(
                    f"| {algorithm} | {gpus.load(name).target} | {error.diagnostics[0].message} |" + " |" * (len(COLUMNS) - 3)
                )
                print(table[-1], flush=True)
                continue
            try:
                made = compilations(algorithm, modules, given.timeout)
            except EinsmithError as error:  # the compiler's process came to an end
                print(f"{algorithm} on {name}: {error.diagnostics[0].message}", flush=True)
                continue
            used |= {_key(one, emit_module(one)) for one in modules}
            left_out += sum(one is None for one in made)
            for number, found in enumerate(rows(modules, made)):
                if not found:
                    continue
                label = algorithm if len(modules[0].kernels) == 1 else f"{algorithm}: kernel {number + 1}"
                everything += [(name, row) for row in found]
                table.append(line(label, gpus.load(name).target, found))
                print(table[-1], flush=True)
                if given.algorithms:
                    print(*found, sep="\n", flush=True)
    summary = "\n".join([SUMS, *sums(everything, names)])
    print(f"\n{summary}")
    if left_out:
        missing = f"{left_out} modules were not compiled for want of time"
        summary += f"\n\n{missing}."
        print(missing)
    if given.page:
        compilations.only(used)
        given.page.write_text(
            PAGE.format(versions=versions(), summary=summary, table="\n".join([HEADER, *table])), encoding="utf-8"
        )
    return 1 if left_out else 0


def versions() -> str:
    """What this was made with."""
    return f"triton {version('triton')}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


PAGE = """# Predictions against compilers

`python benchmarks/kernels.py --page docs/reference/predictions.md` writes this page: {versions}. For each algorithm and target,
every candidate that `einsmith plan` lists (ten, or all there are) was emitted and compiled ahead of time, at long sizes. How
predictions are made is in the [design note](../design/kernels.md). Inputs are float16, and descriptors left to the plan, but where
the name says otherwise; an A100 has no matrix units for 8 bits. No time is on this page: nothing here was run on a GPU.

{summary}

*Operands*: bytes of the operands of matrix products that wait in shared memory at one time. *Total*: all shared memory (on gfx942,
of the LDS); below zero, less was predicted than the compiler took. *Registers*: predicted over compiled, a thread. *Spill*:
candidates of which a thread spills; `einsmith emit` passes over those. *First*: the candidate that is predicted to be fastest.

{table}
"""

if __name__ == "__main__":
    sys.exit(main())
