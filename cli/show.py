"""`einsmith show`: a cascade, a mapping, a GPU plan, a timeline or a point of a sweep as a picture."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..einsum.cascade import Cascade
    from ..mapper.architecture import Architecture
    from ..mapper.gpu import Gpu
    from ..mapper.mapping import Mapping
    from ..mapper.sweep.point import Point

FEW = 2_000
"""Tasks of a group, or of a sample of it, that are simulated: more than are drawn."""
Sizes = dict[str, int]
Params = dict[str, int | float]


@dataclass
class Shown:
    """A picture, as text and as SVG; `source`: the file that it is of, a mapping or a kernel."""

    kind: str
    text: str
    svg: str
    source: str = ""
    file: Path | None = None

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, "file": None if self.file is None else str(self.file)}

    def __str__(self) -> str:
        return self.text + (f"\nwritten to {self.file}" if self.file else "")

    def _repr_svg_(self) -> str:
        return self.svg


@click.command()
@click.argument("thing", metavar="SPEC|MAPPING|DIR")
@click.option("--rank", metavar="RANK", help="Colour Einsums by their pass over this rank (default: the one with most passes).")
@click.option("--gpu", metavar="GPU", help="Show the plan for this GPU.")
@click.option("--arch", metavar="ARCH", help="With --mapping: show the timeline on this architecture.")
@click.option("--mapping", metavar="MAPPING", help="With --arch: show the timeline of this mapping.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@click.option("--point", type=click.IntRange(0), metavar="N", help="A point of the sweep whose results are in DIR.")
@click.option(
    "--what", type=click.Choice(["cascade", "mapping", "timeline", "plan", "kernel"]), help="Which of the pictures there are."
)
@click.option(
    "-o",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a picture (FILE.svg), the mapping itself (FILE.yaml) or the kernel (FILE.py).",
)
@sized
@guarded
def command(
    thing: str,
    rank: str | None,
    gpu: str | None,
    arch: str | None,
    mapping: str | None,
    settings: tuple[str, ...],
    point: int | None,
    what: str | None,
    file: Path | None,
    sizes: Sizes,
    params: Params,
) -> Shown:
    """Show a cascade with its passes coloured; with --gpu its plan, as tiles and loops; with --arch and --mapping its timeline; a
    mapping file as nested loops; or a point of a sweep with all of these.

    Example: einsmith show softmax --rank m -o softmax.svg
    """
    if (arch is None) != (mapping is None):
        raise click.UsageError("--arch and --mapping go together")
    wanted = what or {".yaml": "mapping", ".py": "kernel"}.get("" if file is None else file.suffix)
    if point is not None:
        shown = _point(Path(thing), point, wanted)
    elif arch is not None and mapping is not None:
        shown = _on_arch(thing, arch, mapping, settings, sizes, params, wanted)
    elif gpu is not None:
        shown = _on_gpu(thing, gpu, sizes, params, wanted)
    elif _is_mapping(thing):
        shown = _mapping(thing, sizes)
    else:
        shown = _cascade(thing, rank)
    if what is not None and shown.kind != what:
        raise click.UsageError(f"--what {what}: there is only the {shown.kind}")
    if file is not None:
        write_text(file, _content(shown, file))
        shown.file = file
    return shown


def _content(shown: Shown, file: Path) -> str:
    """What goes into a file, by its suffix."""
    kinds = {".svg": shown.svg} | {{"mapping": ".yaml", "kernel": ".py"}.get(shown.kind, ".svg"): shown.source or shown.svg}
    if file.suffix not in kinds:
        raise click.UsageError(f"-o {file}: a {shown.kind} is written as {' or '.join(kinds)}")
    return kinds[file.suffix]


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


def _colour() -> bool:
    """Whether standard output is a terminal that shows colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _cascade(thing: str, rank: str | None) -> Shown:
    from ..einsum.analysis.report import analyze
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper.report.drawing import graph, lines

    found = analyze(load(locate("attention", thing)), ranks=() if rank is None else (rank,))
    chosen = rank or max(found.levels, key=lambda name: max((one.level for one in found.levels[name].einsums), default=0))
    return Shown("cascade", lines(found, chosen, _colour()), graph(found, chosen))


def _mapping(thing: str, sizes: Sizes) -> Shown:
    from ..mapper import mapping as mappings
    from ..mapper.report.boxes import lines, of_mapping, svg

    found = mappings.load(thing, sizes or None)
    boxes, title = of_mapping(found), f"mapping {found.name}"
    return Shown("mapping", lines(title, boxes, _colour()), svg(title, boxes), found.as_yaml())


def _on_arch(
    thing: str, arch: str, mapping: str, settings: tuple[str, ...], sizes: Sizes, params: Params, what: str | None
) -> Shown:
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture
    from ..mapper import mapping as mappings

    cascade, machine = load(locate("attention", thing)), architecture.load(arch, settings)
    return _mapped(cascade, machine, mappings.load_for(mapping, cascade, sizes, params, machine), sizes, params, what)


def _mapped(cascade: Cascade, arch: Architecture, mapping: Mapping, sizes: Sizes, params: Params, what: str | None) -> Shown:
    """A mapping of a cascade with sizes: as nested loops, or its timeline."""
    from ..einsum.sizes import bind
    from ..mapper.report.boxes import lines, of_mapping, svg

    own = {name: size for name, size in mapping.sizes.items() if name in cascade.symbols}
    boxes = of_mapping(mapping, bind(cascade, {**own, **sizes}, params).extents)
    title = f"{cascade.name} on {arch.name}, mapping {mapping.name}"
    text = lines(title, boxes, _colour())
    if what == "mapping":
        return Shown("mapping", text, svg(title, boxes), mapping.as_yaml())
    from ..sim import timeline
    from ..sim.lanes import lanes
    from ..sim.simulate import simulate

    run = simulate(cascade, arch, mapping, sizes, params, max_tasks=FEW, max_sample=FEW)
    drawn = [lanes(run, group=group, colour=_colour()) for group in range(1, len(run.groups) + 1)]
    return Shown("timeline", "\n\n".join([text, *drawn]), timeline.every_group(run))


def _on_gpu(thing: str, gpu: str, sizes: Sizes, params: Params, what: str | None) -> Shown:
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import gpu as gpus

    return next(_planned(load(locate("attention", thing)), gpus.load(gpu), sizes, params, "float16", (what,)))


def _planned(cascade: Cascade, gpu: Gpu, sizes: Sizes, params: Params, dtype: str, kinds: Sequence[str | None]) -> Iterator[Shown]:
    """A cascade on a GPU: its plan as tiles and loops, its kernel."""
    from ..mapper.report.boxes import lines, of_plan, plan_svg
    from ..mapper.report.drawing import text_picture
    from ..mapper.stages import plan_module

    found = plan_module(cascade, gpu, sizes, params, dtype=dtype)
    title = f"{cascade.name} on {gpu.name}"
    for what in kinds:
        if what == "kernel":
            from ..kernels.emit import emit_module

            source = emit_module(found)
            yield Shown("kernel", source.rstrip("\n"), text_picture(title, source), source)
        else:
            yield Shown("plan", f"{lines(title, of_plan(found), _colour())}\n\n{found}", plan_svg(found))


def _point(folder: Path, number: int, what: str | None) -> Shown:
    from ..mapper.report.table import read
    from ..mapper.sweep.point import Points, rows_of

    found = Points(folder).at(rows_of(read(folder), [number], folder)[0])
    shown = next(drawn(found, (what,)))
    if shown.kind != "kernel":
        shown.text = f"{found}\n\n{shown.text}"
    return shown


def drawn(point: Point, kinds: Sequence[str | None] = ()) -> Iterator[Shown]:
    """Pictures of a point of a sweep: its timeline and mapping, or its plan and kernel. One that failed has no timeline."""
    if point.gpu is not None:
        yield from _planned(point.cascade, point.gpu, point.sizes, point.params, point.dtype, kinds or ("plan", "kernel"))
        return
    assert point.arch is not None
    assert point.mapping is not None
    for what in kinds or ("timeline", "mapping"):
        kind = what if point.figures["status"] == "done" else "mapping"
        yield _mapped(point.cascade, point.arch, point.mapping, point.sizes, point.params, kind)
