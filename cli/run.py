"""`einsmith run`: evaluate a cascade on arrays from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized, with_chosen_outputs

if TYPE_CHECKING:
    from ..einsum.cascade import Cascade


@dataclass
class Ran:
    """Shapes of the outputs, and where they went."""

    cascade: str
    backend: str
    outputs: dict[str, tuple[int, ...]]
    lines: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {"outputs": self.outputs, "backend": self.backend}

    def __str__(self) -> str:
        return "\n".join([f"{self.cascade}: evaluated by `{self.backend}`", *self.lines])


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option("--inputs", "source", type=click.Path(path_type=Path), metavar="IN.npz", help="Arrays of the inputs, by name.")
@click.option("--random", "seed", type=click.IntRange(0), metavar="SEED", help="Random inputs instead of a file.")
@click.option("--save-inputs", "saved", type=click.Path(path_type=Path), metavar="FILE", help="Write the inputs used.")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), metavar="OUT.npz", help="Write the outputs.")
@click.option(
    "--backend",
    type=click.Choice(["interpret", "triton"]),
    default="interpret",
    help="The float64 interpreter, or the generated kernel.",
)
@with_chosen_outputs
@sized
@guarded
def command(
    spec: str,
    source: Path | None,
    seed: int | None,
    saved: Path | None,
    target: Path | None,
    backend: str,
    chosen: Callable[[Cascade], Cascade],
    sizes: dict[str, int],
    params: dict[str, int | float],
) -> Ran:
    """Evaluate a cascade on given inputs. Sizes follow from the shapes of the arrays.

    Example: einsmith run examples/attention/softmax.yaml --inputs in.npz -o out.npz
    """
    if (source is None) == (seed is None):
        raise click.UsageError("give either --inputs IN.npz or --random SEED")

    import numpy as np

    from ..einsum import interpret, npz
    from ..einsum.library import locate
    from ..einsum.spec import load

    cascade = chosen(load(locate("attention", spec)))
    if source is not None:
        arrays = npz.read_inputs(source, cascade, sizes, params)
    else:
        arrays = interpret.random_inputs(cascade, sizes, params, np.random.default_rng(seed))
    if saved is not None:
        npz.write_arrays(saved, arrays)
    outputs: Mapping[str, Any]
    if backend == "triton":
        from ..kernels.run import run_triton

        outputs = run_triton(cascade, arrays, sizes, params)
    else:
        outputs = interpret.evaluate(cascade, arrays, sizes, params)
    outputs = {name: np.asarray(array) for name, array in outputs.items()}
    if target is not None:
        npz.write_arrays(target, outputs)
    lines = []
    for name, array in outputs.items():
        ranks = ", ".join(f"{rank}={n}" for rank, n in zip(cascade.tensor(name).ranks, array.shape, strict=True))
        extremes = f"  {array.min():.6g} to {array.max():.6g}" if array.size else ""
        lines.append(f"  {name}[{ranks}] {array.dtype}{extremes}")
    if target is not None:
        lines.append(f"written to {target}")
    return Ran(cascade.name, backend, {name: array.shape for name, array in outputs.items()}, lines)
