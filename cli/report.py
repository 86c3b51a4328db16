"""`einsmith report`: the results of a sweep as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ..einsum.diagnostics import Diagnostic, EinsmithError
from .common import guarded, write_text

if TYPE_CHECKING:
    from ..mapper.report.compare import Comparison
    from ..mapper.report.page import Pictures

LARGEST = 4_000_000
"""Bytes of pictures in a page, before they are compressed about tenfold."""


@dataclass
class Reported:
    """A page that was written."""

    file: Path
    size: int
    points: int
    shown: int
    pictures: int
    undrawn: dict[int, Diagnostic]
    """Why a point has no pictures, or not all, by its number."""
    comparison: Comparison | None

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.file), "bytes": self.size, "points": self.points, "shown": self.shown, "pictures": self.pictures,
            "undrawn": {point: diagnostic.as_json() for point, diagnostic in self.undrawn.items()},
            "comparison": None if self.comparison is None else self.comparison.as_plain(),
        }  # fmt: skip

    def __str__(self) -> str:
        drawn = f", {self.pictures} with pictures" if self.pictures else ""
        lines = [f"{self.points:,} points, {self.shown:,} of them{drawn} in {self.file} ({self.size / 1e6:.1f} MB)"]
        for point, diagnostic in list(self.undrawn.items())[:1]:
            some = f"{len(self.undrawn)} points lack pictures" if len(self.undrawn) > 1 else f"point {point:,} lacks pictures"
            lines.append(f"{some}: {diagnostic.code}, {diagnostic.message}")
        return "\n".join([*lines, *([] if self.comparison is None else [str(self.comparison)])])


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: DIR/report.html.")
@click.option("--compare", "second", type=click.Path(path_type=Path), metavar="DIR", help="A second run to compare with.")
@click.option("--points", type=click.IntRange(1, 100_000), default=10_000, show_default=True, metavar="N", help="Points listed.")
@click.option(
    "--pictures",
    type=click.IntRange(0, 1000),
    default=24,
    show_default=True,
    metavar="N",
    help="Points that get their mapping and timeline, or plan and kernel: those of the Pareto front first.",
)
@click.option(
    "--csv", "csv", type=click.Path(path_type=Path, dir_okay=False), metavar="T.csv", help="Write all results as CSV too."
)
@guarded
def command(folder: Path, file: Path | None, second: Path | None, points: int, pictures: int, csv: Path | None) -> Reported:
    """Show the results of a sweep: a table that sorts and filters, Pareto fronts, roofline, utilization, energy by component.

    One file that opens without a network. Results as Parquet are in DIR/results.parquet.

    Example: einsmith report results/ -o report.html
    """
    from ..mapper.report.compare import compare
    from ..mapper.report.page import chosen, load, page
    from ..mapper.report.table import write_csv

    run = load(folder, points)
    comparison = None if second is None else compare(folder, second, run.objectives)
    drawn, undrawn = _pictures(folder, chosen(run, pictures))
    text = page(run, comparison, drawn)
    target = file or folder / "report.html"
    write_text(target, text)
    if csv is not None:
        write_csv(folder, csv)
    return Reported(target, len(text.encode()), run.points, len(run.columns["point"]), len(drawn), undrawn, comparison)


def _pictures(folder: Path, points: list[int]) -> tuple[Pictures, dict[int, Diagnostic]]:
    """Pictures of some points, as many as find room; and why others, or some pictures of theirs, could not be drawn."""
    from ..mapper.report.table import read
    from ..mapper.sweep.point import Points, rows_of
    from .show import drawn

    kept = Points(folder)
    found: Pictures = {}
    undrawn: dict[int, Diagnostic] = {}
    size = 0
    for number, row in zip(points, rows_of(read(folder), points, folder), strict=True):
        mine: dict[str, str] = {}
        try:
            for shown in drawn(kept.at(row)):
                if shown.kind != "kernel":
                    mine[shown.kind] = shown.svg
                if shown.source:
                    mine[{"mapping": "mapping.yaml", "kernel": "kernel.py"}[shown.kind]] = shown.source
        except EinsmithError as error:
            undrawn[number] = error.diagnostics[0]
        size += sum(len(text) for text in mine.values())
        if size > LARGEST:
            break
        if mine:
            found[number] = mine
    return found, undrawn
