"""`einsmith equal`: are two cascades the same function?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from .common import guarded, sized

if TYPE_CHECKING:
    from ..einsum.equal import Equality


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--map", "pairs", multiple=True, metavar="A=B,...", help="Inputs or outputs of A under another name in B.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the random inputs.")
@sized
@guarded
def command(
    first: str, second: str, pairs: tuple[str, ...], seed: int, sizes: dict[str, int], params: dict[str, int | float]
) -> Equality:
    """Are two cascades the same function: symbolically where that decides it, then on random inputs in float64.

    Example: einsmith equal examples/attention/softmax.yaml examples/attention/flash2.yaml
    """
    from ..einsum.equal import equal
    from ..einsum.library import locate
    from ..einsum.spec import load

    rename = {}
    for pair in (part for text in pairs for part in text.split(",")):
        one, equals, other = pair.partition("=")
        if not equals or not one.strip() or not other.strip():
            raise click.BadParameter(f"`{pair}` is not A=B", param_hint="--map")
        rename[one.strip()] = other.strip()
    a, b = (load(locate("attention", spec)) for spec in (first, second))
    return equal(a, b, sizes, params, rename=rename, seed=seed)
