"""`einsmith map`: the best mapping of a cascade onto an accelerator."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from .common import guarded, sized, write_text

if TYPE_CHECKING:
    from ..mapper.codesign import CoDesigned, Goal
    from ..mapper.fixed import Part
    from ..mapper.objective import Measure
    from ..mapper.search import Searched
    from ..mapper.space import Fixed, Space, Tiles


class Report:
    """What a search found, and the file it was written to."""

    def __init__(self, searched: Searched | CoDesigned, written: Path | None) -> None:
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
    default="latency",
    metavar="MEASURE,...|edp|area-delay|pareto",
    help="What to make least: latency, energy or traffic, or several in order (`latency,traffic`); edp; area-delay; `pareto`: all "
    "that nothing is better than in latency and energy (and area and buffer).",
)
@click.option(
    "--tiles", type=click.Choice(["sides", "doubled", "every"]), default="doubled",
    help="Tiles tried: sides of arrays; these doubled too; also halved, powers of two and divisors.",
)  # fmt: skip
@click.option("--gap", type=click.FloatRange(0, 1), default=0.0, help="Share of the objective by which the best may be missed.")
@click.option("--bind", multiple=True, metavar="EINSUM=ARRAY", help="Fix the array of an Einsum.")
@click.option("--group", multiple=True, metavar="EINSUM,...", help="Fix a fusion group.")
@click.option(
    "--slack", type=click.FloatRange(0), default=0.0, help="Share by which a measure may miss its least for the next one."
)
@click.option(
    "--at-most", multiple=True, metavar="MEASURE=AMOUNT", help="Most of a measure: `latency=2ms`, `traffic=64MiB`, `energy=1mJ`."
)
@click.option(
    "--fix", multiple=True, metavar="FILE|NAME.KEY=VALUE",
    help="Fix parts: all that stands in a partial mapping file, or one: EINSUM.array, .spatial, .loops, .group, .schedule, "
    ".in_flight; RANK.tile; TENSOR.hold, .stay.",
)  # fmt: skip
@click.option("--tile", multiple=True, metavar="RANK=N", help="Fix the tile of a rank, where it is looped over.")
@click.option("--peel", is_flag=True, help="Peel off first steps of running states: what initial values decide is left out.")
@click.option("--like", metavar="MAPPING.yaml", help="Fix parts as in a mapping file, which may be of some of the Einsums only.")
@click.option(
    "--keep",
    default="groups,arrays",
    metavar="PART,...",
    help="Parts that `--like` fixes: groups, arrays, tiles, layouts, loops, holds, stay, schedule; or all.",
)
@click.option(
    "--free", multiple=True, metavar="NAME=VALUES",
    help="Search a number of the architecture too: `buffer.size=[4 MiB, 8 MiB]`, `rows={from: 64, to: 256, step: 32}`; a NAME "
    "without a dot stands as `{NAME}` in `--set`.",
)  # fmt: skip
@click.option("--area-budget", metavar="MM2", help="Most area of the architecture; `same`: that of ARCH as it stands.")
@click.option("--explain-space", is_flag=True, help="Say how large the space is and what is left out, without searching it.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="MAPPING.yaml", help="Write the mapping.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@sized
@guarded
def command(
    spec: str,
    arch: str,
    objective: str,
    tiles: Tiles,
    gap: float,
    bind: tuple[str, ...],
    group: tuple[str, ...],
    tile: tuple[str, ...],
    slack: float,
    at_most: tuple[str, ...],
    fix: tuple[str, ...],
    peel: bool,
    like: str | None,
    keep: str,
    free: tuple[str, ...],
    area_budget: str | None,
    explain_space: bool,
    output: Path | None,
    settings: tuple[str, ...],
    sizes: dict[str, Any],
    params: dict[str, Any],
) -> Report | Space:
    """The best legal mapping of SPEC onto an accelerator, within a stated space, with proof.

    Where nothing fits, says which tensor needs how much of which level. The written file is read by `model` and `simulate`. Ctrl-C
    ends the search with the best found so far. With `--free` or `--area-budget` the architecture is searched too.

    Example: einsmith map flash2 --arch fusemax --size B=1,H=8,P=4K,M=4K,E=64,F=64 -o mapping.yaml
    """
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture, codesign, designs, fixed, mapping, search, space

    _check_objective(objective)
    limits = _limits(at_most)
    cascade = load(locate("attention", spec))
    parts = fixed.ANYTHING
    base = architecture.load(arch, () if free else settings)
    if like is not None:
        given = mapping.load_for(like, cascade, sizes, params, base)
        kept = _parts(keep)
        sizes = {**given.sizes, **sizes} if "tiles" in kept else sizes
        parts = fixed.kept(given, kept, fixed.extents(cascade, sizes, params), base.on_chip)
    if fix:
        more, chosen = fixed.fixed_by(fix, cascade, base, sizes, params)
        parts, sizes = fixed.joined(parts, more), {**chosen, **sizes}
    parts = fixed.joined(_fixed(bind, group, tile, parts), fixed.Fixed(peel=peel))
    if free or area_budget is not None or objective == "area-delay":
        if "," in objective or limits or slack:
            raise click.UsageError("several measures, `--slack` and `--at-most` are for one architecture: leave `--free` out")
        if explain_space:
            raise click.UsageError("`--explain-space` is for one architecture: leave `--free` and `--area-budget` out")
        listed = designs.designs(arch, settings, [designs.parse(text) for text in free])
        workload = codesign.Workload(cascade.name, cascade, sizes, params)
        budget = _area(area_budget, arch)
        with _watched(objective, "designs; best") as (watch, stop):
            goal = cast("Goal", objective)
            found: Any = codesign.codesign([workload], listed, goal, budget, tiles, gap, parts, watch, stop)
        mapped = found.best.found[0].mapping
    else:
        chip = architecture.load(arch, settings)
        if explain_space:
            return space.explain(cascade, chip, sizes, params, tiles, parts)
        with _watched(objective, "mappings; group at hand") as (watch, stop):
            found = search.search(
                cascade, chip, sizes, params, objective, tiles, gap, parts, watch, stop=stop, slack=slack, at_most=limits
            )
        mapped = found.mapping
    if output is not None:
        write_text(output, mapped.as_yaml())
    return Report(found, output)


def _check_objective(objective: str) -> None:
    from ..mapper.objective import named

    try:
        named(objective) if objective != "area-delay" else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--objective") from None


def _limits(at_most: tuple[str, ...]) -> dict[Measure, float]:
    from ..mapper.objective import limit

    try:
        return dict(limit(text) for text in at_most)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at-most") from None


def _parts(keep: str) -> tuple[Part, ...]:
    from ..mapper.fixed import PARTS

    names = [name.strip() for name in keep.split(",")]
    if names == ["all"]:
        return PARTS
    for name in names:
        if name not in PARTS:
            raise click.BadParameter(f"`{name}` is none of {', '.join(PARTS)}", param_hint="--keep")
    return tuple(part for part in PARTS if part in names)


def _area(text: str | None, arch: str) -> float | None:
    """The area that a design may have, um2."""
    from ..mapper import architecture

    if text is None:
        return None
    if text == "same":
        return float(sum(architecture.load(arch).area_um2.values()))
    try:
        area = float(text)
    except ValueError:
        area = math.nan
    if not area > 0:
        raise click.BadParameter(f"`{text}` is not a number of mm2 above 0, nor `same`", param_hint="--area-budget")
    return area * 1e6


def _fixed(bind: tuple[str, ...], group: tuple[str, ...], tile: tuple[str, ...], parts: Fixed) -> Fixed:
    """What the command line fixes, over what a mapping file does."""
    from ..mapper.fixed import over

    tiles: dict[str, int] = {}
    for text in tile:
        rank, number = _pair(text, "--tile", "RANK=N")
        if not number.isdigit() or int(number) < 1:
            raise click.BadParameter(f"`{text}`: the tile is a whole number from 1", param_hint="--tile")
        tiles[rank] = int(number)
    groups = [[name.strip() for name in text.split(",")] for text in group]
    return over(parts, dict(_pair(text, "--bind", "EINSUM=ARRAY") for text in bind), groups, tiles)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise click.BadParameter(f"`{text}` is not of the form {form}", param_hint=option)
    return name.strip(), value.strip()


@contextmanager
def _watched(objective: str, what: str) -> Iterator[tuple[Callable[[int, float, float], None] | None, Callable[[], bool]]]:
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
                progress.update(task, description=f"{evaluated:,} {what}: {value:.6g}, {gap}")

            yield watch, lambda: bool(stopped)
    finally:
        signal.signal(signal.SIGINT, before)
