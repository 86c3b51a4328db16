"""`einsmith analyze`: passes, live buffers, operations and traffic bounds of a cascade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from .common import guarded, sized

if TYPE_CHECKING:
    from ..einsum.analysis.report import Analysis


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes: `16M`, `512K`, `1048576`; K, M, G are powers of 1024."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().upper().removesuffix("IB").removesuffix("B")
        scale = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}.get(text[-1:], 1)
        digits = text[:-1] if scale > 1 else text
        if not (digits.isascii() and digits.isdigit()):
            self.fail(f"`{value}` is not a number of bytes such as 16M", param, ctx)
        return int(digits) * scale


@click.command()
@click.argument("spec")
@click.option(
    "--rank", "ranks", multiple=True, metavar="RANK", help="Ask about this rank only (repeatable); one alone is swept along."
)
@click.option("--buffer", type=Bytes(), metavar="SIZE", help="Traffic with a buffer of this size, such as 16M.")
@click.option("--word-bytes", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="Bytes of a value.")
@click.option("--outer", "outer", multiple=True, metavar="RANK", help="Put this rank outermost in the traversal (repeatable).")
@click.option("--symbolic", is_flag=True, help="Formulas, also where the spec has sizes.")
@sized
@guarded
def command(
    spec: str,
    ranks: tuple[str, ...],
    buffer: int | None,
    word_bytes: int,
    outer: tuple[str, ...],
    symbolic: bool,
    sizes: dict[str, int],
    params: dict[str, float],
) -> Analysis:
    """Say what SPEC costs, whatever it is mapped on.

    How many passes it makes over each rank and which dependency forces them; what must be held at once; operations of each kind,
    dense and effective under masks; the least traffic across the memory boundary. Figures where sizes are known, else formulas.

    Example: einsmith analyze softmax-causal --rank m --size P=4K,M=4K --buffer 16M
    """
    from ..einsum.analysis.report import analyze
    from ..einsum.library import locate
    from ..einsum.spec import load

    cascade = load(locate("attention", spec))
    return analyze(cascade, sizes, params, ranks, buffer, word_bytes, outer, symbolic)
