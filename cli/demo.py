"""`einsmith demo`: one cascade all the way down, and a report that says where each number came from.

spec -> analysis -> fewer-pass form -> mapping and simulation -> GPU plan -> Triton kernel -> compiled -> run and compared.
Every stage is the one behind the command of the same name; this file only chains them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from .common import guarded, parse_assignments, plain, write_text

T = TypeVar("T")
SIZES = "B=1,H=16,P=4K,M=4K,E=128,F=128"
"""Default problem of the mapping and the plan: one sequence of 4,096 tokens, 16 heads of 128."""


@dataclass(frozen=True)
class Stage:
    """One section of the report."""

    title: str
    source: str
    """Where its numbers come from."""
    text: str
    seconds: float


@dataclass
class Demo:
    """All stages, the files written, and what each stage found as JSON."""

    title: str
    stages: list[Stage] = field(default_factory=list)
    summary: list[tuple[str, str, str]] = field(default_factory=list)
    """What was found, in a few words: subject, result, where it comes from."""
    files: dict[str, str] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    passed: bool = True

    @property
    def exit_code(self) -> int:
        return 0 if self.passed else 1

    def as_json(self) -> dict[str, Any]:
        seconds = {stage.title: round(stage.seconds, 3) for stage in self.stages}
        return {**self.found, "files": self.files, "seconds": seconds, "passed": self.passed}

    def __str__(self) -> str:
        lines = [self.title, "=" * len(self.title)]
        for number, stage in enumerate(self.stages, 1):
            head = f"{number}. {stage.title}"
            lines += ["", head, "-" * len(head), f"[{stage.source}; {stage.seconds:.1f} s]", "", stage.text]
        lines += ["", "Summary", "-------", *_columns(self.summary)]
        lines += ["", "Files", "-----", *(f"  {path:40} {what}" for path, what in self.files.items())]
        total = sum(stage.seconds for stage in self.stages)
        lines += ["", f"{'All checks passed' if self.passed else 'A CHECK FAILED: see above'}; {total:.1f} s of work"]
        return "\n".join(lines)


class _Run:
    """The demo while it goes on: keeps the time of each stage and writes its files."""

    def __init__(self, demo: Demo, folder: Path, quiet: bool) -> None:
        self.demo, self.folder, self.quiet = demo, folder, quiet

    def stage(self, title: str, source: str, work: Callable[[], T], text: Callable[[T], str]) -> T:
        if not self.quiet:
            click.echo(f"... {title}", err=True)
        start = time.perf_counter()
        result = work()
        self.demo.stages.append(Stage(title, source, text(result), time.perf_counter() - start))
        return result

    def write(self, name: str, text: str, what: str) -> Path:
        path = self.folder / name
        write_text(path, text)
        self.demo.files[str(path)] = what
        return path


def demo(spec: str, folder: Path, rank: str, arch: str, gpu: str, sizes: Mapping[str, int], dtype: str, quiet: bool) -> Demo:
    """Run all stages. Raises EinsmithError where one of them refuses."""
    from ..einsum import analysis
    from ..einsum.equal import equal
    from ..einsum.library import locate
    from ..einsum.printer import print_cascade
    from ..einsum.rewrite.derive import derive
    from ..einsum.spec import load
    from ..kernels import aot, check, emit
    from ..mapper import architecture, plan, search
    from ..mapper import gpu as gpus
    from ..sim.simulate import simulate
    from ..sim.trace import chrome_trace

    textbook = load(locate("attention", spec))
    machine, target = architecture.load(arch), gpus.load(gpu)
    result = Demo(f"einsmith demo: {textbook.name}, from the textbook to a checked kernel")
    run = _Run(result, folder, quiet)

    run.stage("The cascade as written", f"the spec file {spec}", lambda: textbook, print_cascade)
    analysed = run.stage(
        f"What it needs: passes over `{rank}`, buffers, traffic",
        "counted on the cascade",
        lambda: analysis.analyze(textbook, _sizes_of(textbook, sizes), ranks=(rank,)),
        str,
    )
    derivation = run.stage(
        "The form with the fewest passes, derived",
        "rewrites whose side conditions are proven; passes counted again; values compared in float64",
        lambda: derive(textbook, rank),
        str,
    )
    derived = derivation.cascade
    run.write("derived.yaml", derivation.spec, "the derived cascade, an ordinary spec file")
    same = run.stage("The two forms are the same function", "the interpreter, in float64", lambda: equal(textbook, derived), str)
    searched = run.stage(
        f"On the accelerator {machine.name}",
        f"a search of the stated space with the cost model; figures of the hardware from {arch}",
        lambda: search.search(derived, machine, _sizes_of(derived, sizes)),
        str,
    )
    run.write("mapping.yaml", searched.mapping.as_yaml(), f"the mapping onto {machine.name}")
    simulated = run.stage(
        "The mapping executed event by event",
        "the simulator; beside it what the cost model says",
        lambda: simulate(derived, machine, searched.mapping, _sizes_of(derived, sizes)),
        str,
    )
    run.write("trace.json", json.dumps(chrome_trace(simulated)), "timeline of the simulation (open in ui.perfetto.dev)")
    planned = run.stage(
        f"A plan for the GPU {target.name}",
        "formulas over the cascade and the GPU's figures; predicted, not measured",
        lambda: plan.plan(derived, target, _sizes_of(derived, sizes), dtype=dtype),
        str,
    )
    run.write("plan.json", json.dumps(plain(planned.as_json()), indent=2) + "\n", f"the plan for {target.name} and its candidates")
    source = emit.emit(derived, planned, textbook=textbook)
    kernel = run.write("kernel.py", source, "the Triton module; run it and it tests itself")
    compiled = run.stage(
        f"The kernel compiled ahead of time for {target.target}",
        "the Triton compiler and cuobjdump; the prediction beside it",
        lambda: aot.compile_module(source, planned, derived, [target.target]),
        lambda found: "\n".join(_compiled(one, planned) for one in found.values()),
    )
    checked = run.stage(
        "The kernel run and compared with float64",
        "the generated kernel against the interpreter of the textbook cascade",
        lambda: check.check(kernel, textbook),
        str,
    )
    result.found = {
        "passes_before": dict(derivation.passes_before), "passes_after": dict(derivation.passes_after),
        "analysis": analysed.as_json(), "derivation": derivation.as_json(), "equal": same.as_json(), "mapping": searched.as_json(),
        "simulation": simulated.as_json(), "plan": planned.as_json(),
        "compiled": {name: one.as_json() for name, one in compiled.items()}, "test": checked.as_json(),
    }  # fmt: skip
    result.summary = _summary(rank, derivation, same, searched, simulated, planned, compiled[target.target], checked)
    result.passed = same.equal and not checked.exit_code and all(one.error is None for one in compiled.values())
    run.write("report.txt", str(result) + "\n", "this report")
    return result


def _summary(
    rank: str, derivation: Any, same: Any, searched: Any, simulated: Any, planned: Any, compiled: Any, checked: Any
) -> list[tuple[str, str, str]]:
    cost, best = searched.cost, planned.best
    passes = f"{derivation.passes_before[rank]} -> {derivation.passes_after[rank]}"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in cost.utilization.items())
    difference = simulated.cycles / cost.cycles - 1 if cost.cycles else 0.0
    optimal = "optimal within the stated space" if searched.optimal else "best found, no proof"
    device = "on the GPU" if checked.device == "cuda" else "in Triton's interpreter"
    return [
        (f"passes over `{rank}`", passes, f"counted on both cascades; {len(derivation.steps)} proven steps between them"),
        ("same function", str(same).split(";")[0], "interpreter, float64"),
        ("accelerator", f"{cost.latency_s * 1e6:,.1f} us, {cost.energy_pj * 1e-9:,.1f} mJ", f"cost model; mapping {optimal}"),
        ("  busy", shares, "cost model"),
        ("  event by event", f"{simulated.cycles:,.0f} cycles ({difference:+.1%})", "simulator, against the cost model"),
        ("GPU plan", f"{best.predicted_s * 1e6:,.0f} us, bound by {best.bound}", "predicted by formula, not measured"),
        ("  shared memory", f"{best.shared_bytes:,} bytes, compiled {compiled.shared_bytes:,}", "plan; the Triton compiler"),
        ("kernel", f"{checked.passed} of {len(checked.rows)} cases pass", f"run {device}, against the float64 interpreter"),
    ]  # fmt: skip


def _columns(rows: list[tuple[str, str, str]]) -> list[str]:
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    return [f"  {a:{first}}  {b:{second}}  {c}" for a, b, c in rows]


def _sizes_of(cascade: Any, sizes: Mapping[str, int]) -> dict[str, int]:
    """Those sizes that the cascade has: the default problem names more than some cascades need."""
    return {name: value for name, value in sizes.items() if name in cascade.symbols}


def _compiled(found: Any, planned: Any) -> str:
    """What the compiler made of the kernel, beside what the plan predicted."""
    best = planned.best
    if found.error is not None:
        return str(found)
    rows = [("", "predicted", "compiled"), ("shared memory, bytes", f"{best.shared_bytes:,}", f"{found.shared_bytes:,}")]
    rows += [
        ("registers a thread", str(best.registers), str(found.registers)),
        ("spilled, bytes a thread", "0", str(found.spill_bytes)),
    ]
    table = "\n".join(f"  {name:24} {left:>12} {right:>12}" for name, left, right in rows)
    counts = ", ".join(f"{count} {name}" for name, count in found.mma.items()) or "no matrix instructions"
    return f"{table}\n  instructions: {counts}"


@click.command()
@click.argument("spec", default="softmax-causal")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-output"), metavar="DIR"
)
@click.option("--rank", default="m", show_default=True, metavar="RANK", help="The rank over which passes are saved.")
@click.option("--arch", default="fusemax", show_default=True, metavar="ARCH", help="Architecture to map onto.")
@click.option("--gpu", default="h200", show_default=True, metavar="GPU", help="GPU to plan for.")
@click.option("--dtype", default="float16", show_default=True, help="Type of the kernel's inputs.")
@click.option(
    "--size", "size_texts", multiple=True, metavar="NAME=N,...", help=f"Sizes of the mapping and the plan. [default: {SIZES}]"
)
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
@guarded
def command(spec: str, folder: Path, rank: str, arch: str, gpu: str, dtype: str, size_texts: tuple[str, ...], quiet: bool) -> Demo:
    """Take SPEC (default: causal softmax attention as a textbook writes it) all the way to a checked kernel.

    Example: einsmith demo -o demo-output
    """
    sizes: dict[str, Any] = {
        **parse_assignments((SIZES,), "--size", whole=True),
        **parse_assignments(size_texts, "--size", whole=True),
    }
    return demo(spec, folder, rank, arch, gpu, sizes, dtype, quiet)
