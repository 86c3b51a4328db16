"""`einsmith derive`: the form with the fewest passes that algebra allows, with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized, write_text

if TYPE_CHECKING:
    from ..einsum.rewrite.derive import Derivation, Form


class Report:
    """A derivation, and how to print it."""

    def __init__(self, derivation: Derivation, latex: bool, written: Path | None) -> None:
        self.derivation, self.latex, self.written = derivation, latex, written

    def as_json(self) -> dict[str, Any]:
        return {**self.derivation.as_json(), "file": None if self.written is None else str(self.written)}

    def __str__(self) -> str:
        if self.latex:
            return self.derivation.latex()
        return str(self.derivation) + (f"\n\nwritten to {self.written}" if self.written else "")


@click.command()
@click.argument("spec")
@click.option(
    "--rank",
    "ranks",
    required=True,
    multiple=True,
    metavar="RANK",
    help="A rank over which passes are to be saved; several in turn.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.yaml", help="Write the derived spec.")
@click.option(
    "--form",
    type=click.Choice(["one-pass", "split", "scan", "chunked"]),
    default="one-pass",
    help="The fewest passes; parts that run on their own and are merged; one sweep with an output for every prefix; a recurrence "
    "chunk by chunk.",
)
@click.option("--parts", type=click.IntRange(min=1), metavar="N", help="With --form split: how many parts (default: 4).")
@click.option("--format", "style", type=click.Choice(["text", "latex"]), default="text", help="How to print the proof.")
@click.option(
    "--tile", type=click.IntRange(min=1), metavar="N", help="Elements of a tile, where the rank is cut (default: up to 128)."
)
@sized
@guarded
def command(
    spec: str,
    ranks: tuple[str, ...],
    output: Path | None,
    form: Form,
    parts: int | None,
    style: str,
    tile: int | None,
    sizes: dict[str, int],
    params: dict[str, float],
) -> Report:
    """Derive the form of SPEC with the fewest passes over RANK that algebra allows.

    Prints a proof: for each step what stood before, the rule, why its condition holds, and what stands after. Where passes
    remain, says which sub-expressions block them. The derived form is compared with the original in float64 before it is shown.

    Among forms of equal passes the one with the fewest operations is taken, then the one with the smallest state. Sizes decide:
    those of SPEC or of --size, which the derived spec then has; without any, ranks in which SPEC is quadratic are taken as long.

    Example: einsmith derive softmax-causal --rank m -o one-pass.yaml

    Example: einsmith derive retention-parallel --rank m --size M=64K

    Example: einsmith derive softmax --rank m --form split --parts 8 -o split.yaml

    Example: einsmith derive retention --rank m --form chunked --tile 64
    """
    if parts is not None and form != "split":
        raise click.UsageError("--parts goes with --form split")
    from ..einsum.library import locate
    from ..einsum.rewrite.derive import derive
    from ..einsum.spec import load

    derivation = derive(load(locate("attention", spec)), ranks, sizes=sizes, params=params, tile=tile, form=form, parts=parts)
    if output is not None:
        write_text(output, derivation.spec)
    return Report(derivation, style == "latex", output)
