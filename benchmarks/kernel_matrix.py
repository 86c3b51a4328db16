"""Every attention file as kernels: planned, compiled ahead of time for four GPUs, and run in Triton's interpreter.

For each file of `examples/attention`: the kernels of its module, the cases of the shape grid that agree with the float64
interpreter, and for each GPU what the compiler made of the chosen candidates. No GPU is needed. `--page` writes the table of the
docs.

    python benchmarks/kernel_matrix.py [NAME...] [--gpu h200 ...] [--no-test] [--page docs/reference/kernel-matrix.md]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.spec import load
from einsmith.kernels.check import check
from einsmith.kernels.emit import emit_module
from einsmith.kernels.settle import settle
from einsmith.mapper import gpu as gpus
from einsmith.mapper.stages import module_plans, plan_module

ROOT = Path(__file__).parents[1]
GPUS = ("a100", "h200", "b200", "mi300x")


@dataclass
class Row:
    """One file."""

    name: str
    kernels: int = 0
    passed: int = 0
    cases: int = 0
    refused: str = ""
    compiled: dict[str, dict[str, Any]] = field(default_factory=dict)

    def cells(self) -> list[str]:
        """The row of the table."""
        if self.refused:
            return [self.name, str(self.kernels or ""), self.refused, *(_cell(one) for one in self.compiled.values())]
        tested = f"{self.passed} of {self.cases}" if self.cases else ""
        return [self.name, str(self.kernels), tested, *(_cell(one) for one in self.compiled.values())]


def _cell(one: dict[str, Any]) -> str:
    if not one:
        return ""
    if "error" in one:
        return str(one["error"])
    matrix = sum(count for name, count in one["mma"].items() if name != "ex2")
    spilled = f", **{one['spill_bytes']} spilled**" if one["spill_bytes"] else ""
    return f"{matrix} matrix, {one['registers']} registers, {one['shared_bytes']:,} B{spilled}"


def measured(name: str, names: tuple[str, ...], testing: bool) -> Row:
    """Plan, compile and run one file."""
    row = Row(name)
    cascade = load(ROOT / "examples" / "attention" / f"{name}.yaml")
    try:
        single = plan_module(cascade, gpus.load("h200"), dtype="float32")
        row.kernels = len(single.kernels)
    except EinsmithError as error:
        row.refused = f"{error.diagnostics[0].code}: {error.diagnostics[0].message}"
        row.compiled = {key: {} for key in names}
        return row
    if testing:
        try:
            found = check(emit_module(single), cascade, timeout_s=1200)
            row.passed, row.cases = found.passed, found.passed + found.failed
        except EinsmithError as error:
            row.refused = f"{error.diagnostics[0].code}: {error.diagnostics[0].message}"
    for name_of_gpu in names:
        gpu = gpus.load(name_of_gpu)
        try:
            settled = settle(module_plans(cascade, gpu))
            row.compiled[name_of_gpu] = settled.compiled[gpu.target].as_json()
        except EinsmithError as error:
            row.compiled[name_of_gpu] = {"error": f"{error.diagnostics[0].code}: {error.diagnostics[0].message}"}
    return row


def table(rows: list[Row], names: tuple[str, ...]) -> str:
    """The rows as Markdown."""
    heads = ["file", "kernels", "cases that agree", *(f"{name} ({gpus.load(name).target})" for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row.cells()) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--gpu", action="append")
    parser.add_argument("--no-test", action="store_true")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--rows", type=Path, help="keep rows here, and take those that are there already")
    given = parser.parse_args()
    names = given.names or sorted(path.stem for path in (ROOT / "examples" / "attention").glob("*.yaml"))
    on = tuple(given.gpu or GPUS)
    known = json.loads(given.rows.read_text()) if given.rows and given.rows.exists() else {}
    rows = []
    for name in names:
        start = time.monotonic()
        if name not in known:
            known[name] = vars(measured(name, on, not given.no_test))
            if given.rows:
                given.rows.write_text(json.dumps(known, indent=1))
        rows.append(Row(**known[name]))
        print(" | ".join(rows[-1].cells()), f"[{time.monotonic() - start:.0f} s]", flush=True)
    print()
    print(table(rows, on))
    if given.page:
        given.page.write_text(PAGE.format(versions=versions(), table=table(rows, on), rest=rest(rows)), encoding="utf-8")


def rest(rows: list[Row]) -> str:
    """What the page does not have."""
    missing = sorted({path.stem for path in (ROOT / "examples" / "attention").glob("*.yaml")} - {row.name for row in rows})
    return f"\nNot run for this page: {', '.join(missing)}.\n" if missing else ""


def versions() -> str:
    """What this was made with."""
    return f"triton {version('triton')}, torch {version('torch')}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


PAGE = """# Every attention file as kernels

`python benchmarks/kernel_matrix.py --page docs/reference/kernel-matrix.md` writes this page: {versions}. For each file, at the
sizes it states and float16 inputs, the candidates that `einsmith emit` chooses for each GPU, compiled ahead of time: matrix
instructions in the code, registers a thread, shared memory a block, bytes of a thread spilled. *Cases that agree*: shapes of
`einsmith test` (1, primes, tails, whole tiles, more keys than queries and the reverse, eight to one, large logits, no keys) at
which the kernel, run in Triton's interpreter in float32, agrees with the float64 interpreter. No time is on this page: nothing here
was run on a GPU.

{table}
{rest}"""

if __name__ == "__main__":
    main()
