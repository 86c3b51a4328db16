"""`einsmith show`: a cascade, a mapping, a GPU plan or a timeline as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click

from .common import guarded, sized, write_text


@dataclass
class Shown:
    """A picture, as text and as SVG."""

    kind: str
    text: str
    svg: str
    file: Path | None

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, "file": None if self.file is None else str(self.file)}

    def __str__(self) -> str:
        return self.text + (f"\nwritten to {self.file}" if self.file else "")

    def _repr_svg_(self) -> str:
        return self.svg


@click.command()
@click.argument("thing", metavar="SPEC|MAPPING")
@click.option("--rank", metavar="RANK", help="Colour Einsums by their pass over this rank (default: the one with most passes).")
@click.option("--gpu", metavar="GPU", help="Show the plan for this GPU.")
@click.option("--arch", metavar="ARCH", help="With --mapping: show the timeline on this architecture.")
@click.option("--mapping", metavar="MAPPING", help="With --arch: show the timeline of this mapping.")
@click.option("-o", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.svg", help="Write an SVG file.")
@sized
@guarded
def command(
    thing: str,
    rank: str | None,
    gpu: str | None,
    arch: str | None,
    mapping: str | None,
    file: Path | None,
    sizes: dict[str, int],
    params: dict[str, int | float],
) -> Shown:
    """Show a cascade with its passes coloured; with --gpu its plan; with --arch and --mapping its timeline; or a mapping file.

    Example: einsmith show softmax --rank m -o softmax.svg
    """
    if (arch is None) != (mapping is None):
        raise click.UsageError("--arch and --mapping go together")
    if arch is not None and mapping is not None:
        shown = _timeline(thing, arch, mapping, sizes, params)
    elif gpu is not None:
        shown = _plan(thing, gpu, sizes, params)
    elif _is_mapping(thing):
        shown = _mapping(thing, sizes)
    else:
        shown = _cascade(thing, rank)
    if file is not None:
        write_text(file, shown.svg)
        shown.file = file
    return shown


def _is_mapping(thing: str) -> bool:
    """Whether a name or a path is that of a mapping file: it has `groups` and no `cascade`."""
    from ..einsum.diagnostics import EinsmithError
    from ..einsum.library import locate
    from ..mapper.document import read

    for kind in ("attention", "mappings"):
        try:
            path = locate(kind, thing)
        except EinsmithError:
            continue
        if kind == "attention" and path.stem == thing:
            return False
        try:
            data = read(path).data
        except EinsmithError:
            return False
        return isinstance(data, dict) and ("groups" in data or "cases" in data) and "cascade" not in data
    return False


def _cascade(thing: str, rank: str | None) -> Shown:
    from ..einsum.analysis.report import analyze
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper.report.drawing import graph, lines

    found = analyze(load(locate("attention", thing)), ranks=() if rank is None else (rank,))
    chosen = rank or max(found.levels, key=lambda name: max((one.level for one in found.levels[name].einsums), default=0))
    return Shown("cascade", lines(found, chosen), graph(found, chosen), None)


def _mapping(thing: str, sizes: dict[str, int]) -> Shown:
    from ..mapper import mapping as mappings
    from ..mapper.report.drawing import text_picture

    found = mappings.load(thing, sizes or None)
    return Shown("mapping", str(found), text_picture(found.name, str(found)), None)


def _plan(thing: str, gpu: str, sizes: dict[str, int], params: dict[str, int | float]) -> Shown:
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import gpu as gpus
    from ..mapper.one_pass import one_pass
    from ..mapper.plan import plan
    from ..mapper.report.drawing import text_picture

    form = one_pass(load(locate("attention", thing)), sizes, params)
    found = plan(form.cascade, gpus.load(gpu), sizes, params)
    return Shown("plan", str(found), text_picture(f"{form.cascade.name} on {found.gpu.name}", str(found)), None)


def _timeline(thing: str, arch: str, mapping: str, sizes: dict[str, int], params: dict[str, int | float]) -> Shown:
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture
    from ..mapper import mapping as mappings
    from ..sim.simulate import simulate
    from ..sim.timeline import svg

    cascade, machine = load(locate("attention", thing)), architecture.load(arch)
    run = simulate(cascade, machine, mappings.load_for(mapping, cascade, sizes, params, machine), sizes, params)
    return Shown("timeline", str(run), svg(run), None)
