"""`einsmith map`: the best mapping of a cascade onto an accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

from .common import guarded, sized, write_text

if TYPE_CHECKING:
    from ..mapper.search import Searched


class Report:
    """What a search found, and the file it was written to."""

    def __init__(self, searched: Searched, written: Path | None) -> None:
        self.searched, self.written = searched, written

    def as_json(self) -> dict[str, Any]:
        return {**self.searched.as_json(), "file": None if self.written is None else str(self.written)}

    def __str__(self) -> str:
        return str(self.searched) + (f"\nwritten to {self.written}" if self.written else "")


@click.command()
@click.argument("spec")
@click.option("--arch", required=True, metavar="ARCH", help="Architecture file, or the name of one that comes with einsmith.")
@click.option("--objective", type=click.Choice(["latency", "energy", "edp"]), default="latency", help="What to make least.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="MAPPING.yaml", help="Write the mapping.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@sized
@guarded
def command(
    spec: str,
    arch: str,
    objective: Literal["latency", "energy", "edp"],
    output: Path | None,
    settings: tuple[str, ...],
    sizes: dict[str, Any],
    params: dict[str, Any],
) -> Report:
    """The best legal mapping of SPEC onto an accelerator, within a stated space, with proof.

    Where nothing fits, says which tensor needs how much of which level. The written file is read by `model` and `simulate`.

    Example: einsmith map flash2 --arch fusemax --size B=1,H=8,P=4K,M=4K,E=64,F=64 -o mapping.yaml
    """
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture, search

    cascade = load(locate("attention", spec))
    searched = search.search(cascade, architecture.load(arch, settings), sizes, params, objective)
    if output is not None:
        write_text(output, searched.mapping.as_yaml())
    return Report(searched, output)
