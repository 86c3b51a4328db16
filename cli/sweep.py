"""`einsmith sweep`: many points of a design space, resumable."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ..einsum.diagnostics import Diagnostic, EinsmithError
from .common import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..mapper.sweep.run import Progress, Swept


@click.command()
@click.argument("file", metavar="SWEEP")
@click.option(
    "-o", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the results."
)
@click.option(
    "--workers", type=click.IntRange(1, 1024), metavar="N", help="Processes on this machine (default: one for each core)."
)
@click.option("--dask", "address", metavar="ADDRESS", help="Work on the Dask cluster of this scheduler, such as tcp://head:8786.")
@click.option("--dask-slurm", "slurm_jobs", type=click.IntRange(1, 10_000), metavar="JOBS", help="Work on so many SLURM jobs.")
@click.option(
    "--slurm", "slurm", multiple=True, metavar="KEY=VALUE", help="Option of dask_jobqueue.SLURMCluster, such as queue=short."
)
@click.option(
    "--csv", "csv", type=click.Path(path_type=Path, dir_okay=False), metavar="T.csv", help="Write the results as CSV too."
)
@guarded
def command(
    file: str,
    folder: Path,
    workers: int | None,
    address: str | None,
    slurm_jobs: int | None,
    slurm: tuple[str, ...],
    csv: Path | None,
) -> Swept:
    """Evaluate every point of a SWEEP file: specs, sizes, architectures with parameters overridden, mappings, GPUs.

    Interrupt it whenever you like: the same command goes on where it stopped, and costs nothing where all is done. A point
    that cannot
    be evaluated is recorded with its diagnostic and stops nothing.

    Example: einsmith sweep fusemax-design-space -o results/ --workers 2
    """
    from ..mapper.sweep.file import load
    from ..mapper.sweep.run import sweep
    from ..mapper.sweep.workers import Dask, Local

    if sum(option is not None for option in (workers, address, slurm_jobs)) > 1:
        raise click.UsageError("--workers, --dask and --dask-slurm exclude one another")
    options = [_option(text) for text in slurm]
    remote = address is not None or slurm_jobs is not None
    worker: Local | Dask = Dask(address, slurm_jobs or 0, options) if remote else Local(workers or os.cpu_count() or 1)
    plan = load(file)
    reached: Progress | None = None
    try:
        with _shown() as show:

            def told(progress: Progress) -> None:
                nonlocal reached
                reached = progress
                show(progress)

            done = sweep(plan, folder, worker, told)
    except KeyboardInterrupt:
        kept = "nothing was begun" if reached is None else f"{reached.done:,} of {reached.points:,} points are kept"
        help = "the same command goes on from there"
        raise EinsmithError(Diagnostic("E708", f"interrupted: {kept}", file=str(folder), help=help)) from None
    if csv is not None:
        from ..mapper.report.table import write_csv

        write_csv(done.results, csv)
    return done


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"`{text}` is not KEY=VALUE", param_hint="--slurm")
    return key, value


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Shows progress as a line on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(20), TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda progress: bar.update(task, total=progress.points, completed=progress.done, description=_line(progress))


def _line(progress: Progress) -> str:
    """How far a sweep is, in words."""
    from ..mapper.sweep.run import rate_of

    parts = [f"{progress.done:,} of {progress.points:,}"]
    parts += [f"{rate_of(progress.rate)}/s", f"{_spoken(progress.left_s)} left"] if progress.rate else []
    parts += [f"{progress.failed:,} failed"] if progress.failed else []
    parts += ["best " + ", ".join(f"{name} {value:.4g}" for name, value in progress.best.items())] if progress.best else []
    return "  ".join(parts)


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
