"""`einsmith emit`: a standalone Triton module for a cascade."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import DTYPES, choosing, guarded, sized, with_chosen_outputs, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..einsum.cascade import Cascade
    from ..kernels.aot import Compiled
    from ..mapper.descriptors import Choice
    from ..mapper.module_plan import ModulePlan


@dataclass
class Emitted:
    """A module, its plan, and what compilers made of it."""

    file: str | None
    source: str
    plan: ModulePlan
    note: str
    compiled: dict[str, Compiled] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file, "plan": self.plan.as_json()["plan"], "note": self.note or None,
            "compiled": {name: one.as_json() for name, one in self.compiled.items()}, "passed_over": list(self.passed_over),
            **({} if self.file else {"source": self.source}),
        }  # fmt: skip

    def __str__(self) -> str:
        from ..mapper.plan import tile_time

        if self.file is None:
            return self.source.rstrip("\n")
        lines = [self.note] if self.note else []
        several = len(self.plan.kernels) > 1
        if several:
            between = ", ".join(self.plan.between)
            count = len(self.plan.kernels)
            lines.append(f"{self.file}: {count} kernels, {tile_time(self.plan.predicted_s)} together; between them {between}")
        for kernel in self.plan.kernels:
            best = kernel.best
            blocks = ", ".join(f"{name} {size}" for name, size in best.blocks.items())
            whose = f"  {kernel.cascade.name}" if several else self.file
            lines.append(f"{whose}: tiles of {blocks}; {best.manner}")
            memory = f"{best.shared_bytes:,} bytes shared, {best.registers} registers"
            lines.append(f"  predicted  {memory}; {tile_time(best.predicted_s)}, bound by {best.bound} (not measured)")
        lines += [f"  compiled   {one}" for one in self.compiled.values()]
        lines += [f"  passed over: {text}" for text in self.passed_over]
        return "\n".join(lines)


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option(
    "--gpu", default="h200", show_default=True, metavar="GPU", help="A GPU file, or the name of one that comes with einsmith."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KERNEL.py",
    help="Write the module; without it the text is printed.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float16",
    show_default=True,
    help="Type of the inputs that the plan is for.",
)
@click.option(
    "--target", "targets", multiple=True, metavar="TARGET", help="Compile for this one too: sm_80, sm_90, sm_100, gfx942."
)
@click.option("--compile/--no-compile", "compiling", default=True, help="Compile ahead of time for the GPU of the plan.")
@choosing
@with_chosen_outputs
@sized
@guarded
def command(
    spec: str,
    gpu: str,
    output: Path | None,
    dtype: str,
    targets: tuple[str, ...],
    compiling: bool,
    descriptors: Choice,
    persistent: Choice,
    allow_tf32: bool,
    chosen: Callable[[Cascade], Cascade],
    sizes: dict[str, int],
    params: dict[str, int | float],
) -> Emitted:
    """Generate a Triton module from SPEC: kernel, `run`, `reference` in plain torch, `PLAN`. It needs torch and triton only.

    A spec that is not in its one-pass form is derived first. The kernel is compiled ahead of time (no GPU needed) and the plan's
    prediction stands beside what the compiler made of it.

    Example: einsmith emit softmax-causal --gpu h200 --size B=4,H=16,P=4096,M=4096,E=128,F=128 -o kernel.py
    """
    from ..einsum.diagnostics import Diagnostic, EinsmithError
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..kernels.aot import TARGETS
    from ..kernels.emit import emit_module
    from ..kernels.settle import settle
    from ..mapper import gpu as gpus
    from ..mapper.stages import module_plans

    for name in targets:
        if name not in TARGETS:
            raise EinsmithError(Diagnostic("E611", f"no compiler for the target `{name}`", help=f"one of {', '.join(TARGETS)}"))
    target = gpus.load(gpu)
    cascade = chosen(load(locate("attention", spec)))
    plans = module_plans(
        cascade, target, sizes, params, dtype=dtype, allow_tf32=allow_tf32, descriptors=descriptors, persistent=persistent
    )
    if compiling:
        settled = settle(plans, targets, allow_tf32=allow_tf32)
        found = Emitted(None, settled.source, settled.plan, settled.plan.note, settled.compiled, settled.passed_over)
    else:
        planned = next(plans)
        found = Emitted(None, emit_module(planned), planned, planned.note)
    if output is not None:
        write_text(output, found.source)
        found.file = str(output)
    return found
