"""`einsmith reproduce`: a published evaluation from the files that come with einsmith."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, write_text

if TYPE_CHECKING:
    from ..mapper.study import Accounting, Study


class Report:
    """A study, and the files it was written to."""

    def __init__(self, study: Study, folder: Path | None, written: list[Path], drawn: bool) -> None:
        self.study, self.folder, self.written, self.drawn = study, folder, written, drawn

    def as_json(self) -> dict[str, Any]:
        return {
            **self.study.as_json(),
            "tables": {path.stem: str(path) for path in self.written if path.suffix == ".csv"},
            "figures": [str(path) for path in self.written if path.suffix != ".csv"],
        }

    def __str__(self) -> str:
        names = ", ".join(path.name for path in self.written)
        lines = [str(self.study)]
        if self.written:
            lines.append(f"written to {self.folder}: {names}")
        if not self.drawn:
            lines.append("no figures: matplotlib is not installed (pip install 'einsmith[plots]')")
        return "\n".join(lines)


@click.command()
@click.argument("study")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write tables and figures here."
)
@click.option(
    "--accounting",
    type=click.Choice(["paper", "corrected"]),
    default="paper",
    help="As published, or the same costs charged to all configurations.",
)
@click.option("--figures/--no-figures", default=True, help="Draw the figures (needs matplotlib).")
@guarded
def command(study: str, output: Path | None, accounting: Accounting, figures: bool) -> Report:
    """Work out a published evaluation from files: every model, length and configuration, with the published figures beside.

    STUDY is a file, or the name of one that comes with einsmith: fusemax.

    Example: einsmith reproduce fusemax -o fusemax
    """
    from ..mapper import study as studies

    found = studies.study(studies.load(study), accounting)
    written: list[Path] = []
    drawn = True
    if output is not None:
        for name, text in found.tables.items():
            if text:
                write_text(output / name, text)
                written.append(output / name)
        if figures:
            drawn = importlib.util.find_spec("matplotlib") is not None
            if drawn:
                from ..mapper.study_figures import draw

                written += draw(found, output)
    return Report(found, output, written, drawn)
