"""`einsmith bench`: the speed of a generated kernel against torch, on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from .common import DTYPES, guarded, sized

if TYPE_CHECKING:
    from ..kernels.bench import Bench


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option(
    "--gpu",
    default="h200",
    show_default=True,
    metavar="GPU",
    help="What to plan for: a GPU file, or the name of one that comes with einsmith.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float16",
    show_default=True,
    help="Type of the inputs.",
)
@click.option(
    "--candidates", type=click.IntRange(1, 100), default=4, show_default=True, help="How many candidates of the plan to time."
)
@click.option("--allow-tf32", is_flag=True, help="Let matrix units round float32 inputs to TF32.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds for everything.")
@sized
@guarded
def command(
    spec: str,
    gpu: str,
    dtype: str,
    candidates: int,
    allow_tf32: bool,
    timeout_s: float,
    sizes: dict[str, int],
    params: dict[str, int | float],
) -> Bench:
    """Time the kernel generated for SPEC against plain torch, and against torch's own attention where it is the same function.

    Needs a GPU. Every implementation is compared with plain torch before it is timed; times are medians of runs that start with a
    cold cache. Beside each stand the operations and bytes that the cascade cannot do without, and what the plan predicted.

    Example: einsmith bench softmax-causal --gpu h200 --size B=4,H=16,P=4096,M=4096,E=128,F=128 --dtype bfloat16
    """
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..kernels.bench import bench
    from ..mapper import gpu as gpus

    textbook = load(locate("attention", spec))
    return bench(
        textbook, gpus.load(gpu), sizes, params, dtype=dtype, candidates=candidates, allow_tf32=allow_tf32, timeout_s=timeout_s
    )
