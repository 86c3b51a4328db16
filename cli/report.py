"""`einsmith report`: the results of a sweep as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click

from .common import guarded, write_text


@dataclass
class Reported:
    """A page that was written."""

    file: Path
    size: int
    points: int
    shown: int

    def as_json(self) -> dict[str, Any]:
        return {"file": str(self.file), "bytes": self.size, "points": self.points, "shown": self.shown}

    def __str__(self) -> str:
        return f"{self.points:,} points, {self.shown:,} of them in {self.file} ({self.size / 1e6:.1f} MB)"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: DIR/report.html.")
@click.option("--compare", type=click.Path(path_type=Path), metavar="DIR", help="A second run to compare with.")
@click.option("--points", type=click.IntRange(1, 100_000), default=10_000, show_default=True, metavar="N", help="Points listed.")
@click.option(
    "--csv", "csv", type=click.Path(path_type=Path, dir_okay=False), metavar="T.csv", help="Write all results as CSV too."
)
@guarded
def command(folder: Path, file: Path | None, compare: Path | None, points: int, csv: Path | None) -> Reported:
    """Show the results of a sweep: a table that sorts and filters, Pareto fronts, roofline, utilization, energy by component.

    One file that opens without a network. Results as Parquet are in DIR/results.parquet.

    Example: einsmith report results/ -o report.html
    """
    from ..mapper.report.page import load, page
    from ..mapper.report.table import write_csv

    run = load(folder, points)
    text = page(run, None if compare is None else load(compare, points))
    target = file or folder / "report.html"
    write_text(target, text)
    if csv is not None:
        write_csv(folder, csv)
    return Reported(target, len(text.encode()), run.points, len(run.columns["point"]))
