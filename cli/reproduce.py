"""`einsmith reproduce`: a published evaluation from the files that come with einsmith."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ..einsum.diagnostics import Diagnostic, EinsmithError
from .common import guarded, told, write_text

if TYPE_CHECKING:
    from ..mapper.study import Accounting, File, Study
    from ..mapper.study_codesign import Bout
    from ..mapper.study_search import Contest
    from ..sim.study import Simulations


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


class Searches:
    """What searches found, and the file it was written to."""

    def __init__(self, contests: tuple[Contest, ...], written: Path | None) -> None:
        self.contests, self.written = contests, written

    def as_json(self) -> dict[str, Any]:
        file = None if self.written is None else str(self.written)
        return {"searches": [contest.as_json() for contest in self.contests], "file": file}

    def __str__(self) -> str:
        return "\n".join([*map(str, self.contests), *([f"written to {self.written}"] if self.written else [])])


class CoDesigns:
    """The best designs that co-designs found."""

    def __init__(self, bouts: tuple[Bout, ...]) -> None:
        self.bouts = bouts

    def as_json(self) -> dict[str, Any]:
        return {"codesigns": [bout.as_json() for bout in self.bouts]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.bouts))


def _codesigned(file: File, names: tuple[str, ...], accounting: Accounting) -> CoDesigns:
    from ..mapper import study_codesign

    for name in names:
        if name != "all" and name not in file.codesigns:
            known = ", ".join(file.codesigns) or "it has none"
            raise EinsmithError(Diagnostic("E502", f"study `{file.name}` has no co-design `{name}`", help=known))
    return CoDesigns(tuple(study_codesign.bouts(file, () if "all" in names else names, accounting)))


def _searched(file: File, names: tuple[str, ...], accounting: Accounting, folder: Path | None) -> Searches:
    from ..mapper import study_search

    for name in names:
        if name != "all" and name not in file.searches:
            raise EinsmithError(Diagnostic("E502", f"study `{file.name}` has no search `{name}`", help=", ".join(file.searches)))
    found = tuple(study_search.contests(file, () if "all" in names else names, accounting))
    if folder is not None:
        write_text(folder / "searches.csv", study_search.table(found))
    return Searches(found, None if folder is None else folder / "searches.csv")


class Runs:
    """A study simulated, and the file it was written to."""

    def __init__(self, found: Simulations, written: Path | None) -> None:
        self.found, self.written = found, written

    def as_json(self) -> dict[str, Any]:
        return {**self.found.as_json(), "file": None if self.written is None else str(self.written)}

    def __str__(self) -> str:
        return "\n".join([str(self.found), *([f"written to {self.written}"] if self.written else [])])


def _simulated(file: File, accounting: Accounting, folder: Path | None) -> Runs:
    from ..sim.study import simulations

    with told("simulating") as watch:
        found = simulations(file, accounting, watch)
    if folder is not None:
        write_text(folder / "simulated.csv", found.csv)
    return Runs(found, None if folder is None else folder / "simulated.csv")


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
@click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model; may be given again.")
@click.option("--length", "lengths", multiple=True, metavar="NAME", help="Only this length; may be given again.")
@click.option("--search", "searches", multiple=True, metavar="NAME", help="Run a search of the study (`all`: every one) instead.")
@click.option("--simulate", is_flag=True, help="Run the attention of every row event by event instead, beside the cost model.")
@click.option(
    "--codesign", "codesigns", multiple=True, metavar="NAME", help="Run a co-design of the study (`all`: every one) instead."
)
@click.option("--figures/--no-figures", default=True, help="Draw the figures (needs matplotlib).")
@guarded
def command(
    study: str,
    output: Path | None,
    accounting: Accounting,
    models: tuple[str, ...],
    lengths: tuple[str, ...],
    searches: tuple[str, ...],
    simulate: bool,
    codesigns: tuple[str, ...],
    figures: bool,
) -> Report | Searches | Runs | CoDesigns:
    """Work out a published evaluation from files: every model, length and configuration, with the published figures beside.

    STUDY is a file, or the name of one that comes with einsmith: fusemax. With `--search`, mappings that a search finds are held
    against the published ones; with `--codesign`, architectures that are searched too; with `--simulate`, runs of the published
    ones against the cost model.

    Example: einsmith reproduce fusemax -o fusemax
    """
    from ..mapper import study as studies

    file = studies.load(study).only(models, lengths)
    if sum(map(bool, (searches, codesigns, simulate))) > 1:
        raise click.UsageError("--search, --codesign and --simulate exclude one another")
    if simulate:
        return _simulated(file, accounting, output)
    if codesigns:
        return _codesigned(file, codesigns, accounting)
    if searches:
        return _searched(file, searches, accounting, output)
    found = studies.study(file, accounting)
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
