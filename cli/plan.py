"""`einsmith plan`: how a cascade is tiled onto a GPU, with predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import DTYPES, choosing, guarded, sized, with_chosen_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..einsum.cascade import Cascade
    from ..mapper.descriptors import Choice
    from ..mapper.module_plan import ModulePlan


@dataclass
class Planned:
    """A plan, and what was done to the cascade before it."""

    plan: ModulePlan

    def as_json(self) -> dict[str, Any]:
        return {**self.plan.as_json(), "note": self.plan.note or None}

    def __str__(self) -> str:
        return (f"{self.plan.note}\n" if self.plan.note else "") + str(self.plan)


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option(
    "--gpu", default="h200", show_default=True, metavar="GPU", help="A GPU file, or the name of one that comes with einsmith."
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="float16",
    show_default=True,
    help="Type of the inputs.",
)
@choosing
@click.option("--keep", type=click.IntRange(1, 1000), default=10, show_default=True, help="Candidates to list.")
@with_chosen_outputs
@sized
@guarded
def command(
    spec: str,
    gpu: str,
    dtype: str,
    descriptors: Choice,
    persistent: Choice,
    allow_tf32: bool,
    keep: int,
    chosen: Callable[[Cascade], Cascade],
    sizes: dict[str, int],
    params: dict[str, int | float],
) -> Planned:
    """Plan SPEC for a GPU: roles of ranks, what lives in registers and shared memory, ranked tile sizes.

    A spec that is not in its one-pass form is derived first. Nothing is measured: times are predictions by formula.

    Example: einsmith plan softmax-causal --gpu h200 --size B=4,H=16,P=4096,M=4096,E=128,F=128
    """
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import gpu as gpus
    from ..mapper.stages import plan_module

    target = gpus.load(gpu)
    cascade = chosen(load(locate("attention", spec)))
    return Planned(
        plan_module(
            cascade,
            target,
            sizes,
            params,
            dtype=dtype,
            allow_tf32=allow_tf32,
            keep=keep,
            descriptors=descriptors,
            persistent=persistent,
        )
    )
