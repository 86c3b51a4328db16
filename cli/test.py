"""`einsmith test`: a kernel against the float64 meaning of its cascade, over a grid of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import DTYPES, guarded, sized

if TYPE_CHECKING:
    from ..kernels.check import Checked


@dataclass
class Tested:
    """A check, and what was done to the cascade before it."""

    checked: Checked
    note: str

    @property
    def exit_code(self) -> int:
        return self.checked.exit_code

    def as_json(self) -> dict[str, Any]:
        return {**self.checked.as_json(), "note": self.note or None}

    def __str__(self) -> str:
        return (f"{self.note}\n" if self.note else "") + str(self.checked)


@click.command()
@click.argument("kernel", metavar="KERNEL.py|SPEC")
@click.option("--gpu", default="h200", show_default=True, metavar="GPU", help="For a spec: the GPU to plan the kernel for.")
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(DTYPES),
    help="Types of the inputs (default: all of 16 and 32 bits on a GPU, float32 in the interpreter).",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the random inputs.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds for all cases together."
)
@sized
@guarded
def command(
    kernel: str,
    gpu: str,
    dtypes: tuple[str, ...],
    seed: int,
    timeout_s: float,
    sizes: dict[str, int],
    params: dict[str, int | float],
) -> Tested:
    """Run a kernel module (or the kernel generated for a spec) on awkward shapes and compare with the float64 interpreter.

    On a GPU if there is one, else in Triton's interpreter. An error may be twice that of the same computation in plain torch.
    `--size` adds one case of these sizes alone.

    Example: einsmith test kernel.py
    """
    from ..einsum.diagnostics import Diagnostic, EinsmithError
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..kernels.check import cascade_of, check
    from ..kernels.emit import emit_module
    from ..kernels.shapes import Case
    from ..mapper import gpu as gpus
    from ..mapper.stages import plan_module

    path, note = Path(kernel), ""
    if path.suffix == ".py":
        module: str | Path = path
        cascade = cascade_of(path.read_text(encoding="utf-8", errors="replace"), kernel) if path.is_file() else None
    else:
        cascade = load(locate("attention", kernel))
        eight = [dtype for dtype in dtypes if dtype.startswith("float8")]
        if eight and len(dtypes) > 1:
            raise EinsmithError(
                Diagnostic("E606", "a kernel for inputs of 8 bits takes no other type", help="test one type at a time")
            )
        planned = plan_module(cascade, gpus.load(gpu), sizes, params, dtype=eight[0] if eight else "float32")
        note, module = planned.note, emit_module(planned)
    cases = [Case("given", {**dict(cascade.sizes), **sizes})] if sizes and cascade is not None else None
    return Tested(
        check(module, cascade, cases=cases, dtypes=dtypes or None, params=params or None, seed=seed, timeout_s=timeout_s), note
    )
