"""`einsmith map`: the best mapping of a cascade onto an accelerator."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized, write_text

if TYPE_CHECKING:
    from ..mapper.search import Objective, Searched
    from ..mapper.space import Fixed, Space, Tiles


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
@click.option(
    "--objective",
    type=click.Choice(["latency", "energy", "edp", "traffic", "pareto"]),
    default="latency",
    help="What to make least.",
)
@click.option(
    "--tiles", type=click.Choice(["sides", "doubled", "every"]), default="doubled",
    help="Tiles tried: sides of arrays; these doubled too; also halved, powers of two and divisors.",
)  # fmt: skip
@click.option("--gap", type=click.FloatRange(0, 1), default=0.0, help="Share of the objective by which the best may be missed.")
@click.option("--bind", multiple=True, metavar="EINSUM=ARRAY", help="Fix the array of an Einsum.")
@click.option("--group", multiple=True, metavar="EINSUM,...", help="Fix a fusion group.")
@click.option("--tile", multiple=True, metavar="RANK=N", help="Fix the tile of a rank, where it is looped over.")
@click.option("--like", metavar="MAPPING.yaml", help="Fix fusion groups and arrays as in a mapping file.")
@click.option("--explain-space", is_flag=True, help="Say how large the space is and what is left out, without searching it.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="MAPPING.yaml", help="Write the mapping.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@sized
@guarded
def command(
    spec: str,
    arch: str,
    objective: Objective,
    tiles: Tiles,
    gap: float,
    bind: tuple[str, ...],
    group: tuple[str, ...],
    tile: tuple[str, ...],
    like: str | None,
    explain_space: bool,
    output: Path | None,
    settings: tuple[str, ...],
    sizes: dict[str, Any],
    params: dict[str, Any],
) -> Report | Space:
    """The best legal mapping of SPEC onto an accelerator, within a stated space, with proof.

    Where nothing fits, says which tensor needs how much of which level. The written file is read by `model` and `simulate`. Ctrl-C
    ends the search with the best found so far.

    Example: einsmith map flash2 --arch fusemax --size B=1,H=8,P=4K,M=4K,E=64,F=64 -o mapping.yaml
    """
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture, search, space

    cascade = load(locate("attention", spec))
    chip = architecture.load(arch, settings)
    fixed = _fixed(bind, group, tile, like)
    if explain_space:
        return space.explain(cascade, chip, sizes, params, tiles, fixed)
    with _watched(objective) as (watch, stop):
        searched = search.search(cascade, chip, sizes, params, objective, tiles, gap, fixed, watch, stop)
    if output is not None:
        write_text(output, searched.mapping.as_yaml())
    return Report(searched, output)


def _fixed(bind: tuple[str, ...], group: tuple[str, ...], tile: tuple[str, ...], like: str | None) -> Fixed:
    from ..mapper import mapping
    from ..mapper.space import Fixed

    arrays: dict[str, str] = {}
    groups = [frozenset(name.strip() for name in text.split(",")) for text in group]
    if like is not None:
        for found in mapping.load(like).groups:
            groups.append(frozenset(found.einsums))
            arrays |= {name: binding.array for name, binding in found.einsums.items()}
    arrays |= dict(_pair(text, "--bind", "EINSUM=ARRAY") for text in bind)
    tiles: dict[str, int] = {}
    for text in tile:
        rank, number = _pair(text, "--tile", "RANK=N")
        if not number.isdigit() or int(number) < 1:
            raise click.BadParameter(f"`{text}`: the tile is a whole number from 1", param_hint="--tile")
        tiles[rank] = int(number)
    return Fixed(arrays, tuple(groups), tiles)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise click.BadParameter(f"`{text}` is not of the form {form}", param_hint=option)
    return name.strip(), value.strip()


@contextmanager
def _watched(objective: str) -> Iterator[tuple[Callable[[int, float, float], None] | None, Callable[[], bool]]]:
    """Progress on stderr, on a terminal only; Ctrl-C asks the search to end, a second one ends the command."""
    stopped: list[bool] = []

    def end(*_: Any) -> None:
        stopped.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, end)
    try:
        if not sys.stderr.isatty():
            yield None, lambda: bool(stopped)
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"searching for the least {objective}", total=None)

            def watch(evaluated: int, value: float, bound: float) -> None:
                gap = f"{max(0.0, 1 - bound / value):.1%} above the least bound" if 0 < value < float("inf") else "nothing yet"
                progress.update(task, description=f"{evaluated:,} mappings; group at hand: {value:.6g}, {gap}")

            yield watch, lambda: bool(stopped)
    finally:
        signal.signal(signal.SIGINT, before)
