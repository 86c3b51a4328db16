"""`einsmith simulate`: a mapped cascade executed event by event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized, told, write_text

if TYPE_CHECKING:
    from ..sim.functional import Executed
    from ..sim.simulate import Simulated


class Report:
    """A run, what its execution on data gave, and the files it was written to."""

    def __init__(self, run: Simulated, executed: Executed | None, trace: Path | None, timeline: Path | None) -> None:
        self.run, self.executed, self.trace, self.timeline = run, executed, trace, timeline

    def as_json(self) -> dict[str, Any]:
        return {
            **self.run.as_json(),
            "functional": None if self.executed is None else self.executed.as_json(),
            "trace": None if self.trace is None else str(self.trace),
            "timeline": None if self.timeline is None else str(self.timeline),
        }

    def __str__(self) -> str:
        lines = [str(self.run)]
        if self.executed is not None:
            lines.append(str(self.executed))
        if self.trace is not None:
            lines.append(f"trace written to {self.trace}: open it in https://ui.perfetto.dev")
        if self.timeline is not None:
            lines.append(f"timeline written to {self.timeline}")
        return "\n".join(lines)


@click.command()
@click.argument("spec")
@click.option("--arch", required=True, metavar="ARCH", help="Architecture file, or the name of one that comes with einsmith.")
@click.option("--mapping", required=True, metavar="MAPPING", help="Mapping file, or the name of one that comes with einsmith.")
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="T.json", help="Write a Chrome (Perfetto) trace.")
@click.option("--timeline", type=click.Path(path_type=Path, dir_okay=False), metavar="T.svg", help="Draw the run as an SVG file.")
@click.option("--window", metavar="FROM:TO", help="With --timeline: the cycles that are drawn (default: the first 8,000).")
@click.option("--functional", is_flag=True, help="Execute the mapping on data too: compare values and accesses (small sizes).")
@click.option(
    "--inputs", "source", type=click.Path(path_type=Path), metavar="IN.npz", help="With --functional: data (default: random)."
)
@click.option("--gathers", type=click.Path(path_type=Path), metavar="FILE.npz", help="Values of integer tensors that indices read.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@click.option("--max-tasks", type=click.IntRange(min=1), metavar="N", help="Simulate at most about N tasks of each group.")
@sized
@guarded
def command(
    spec: str,
    arch: str,
    mapping: str,
    trace: Path | None,
    timeline: Path | None,
    window: str | None,
    functional: bool,
    source: Path | None,
    gathers: Path | None,
    settings: tuple[str, ...],
    max_tasks: int | None,
    sizes: dict[str, Any],
    params: dict[str, Any],
) -> Report:
    """Execute SPEC, as a mapping lays it out on an accelerator, event by event, and compare with the cost model.

    Large problems are simulated for their first tiles and extrapolated; the report says so.

    Example: einsmith simulate fusemax --arch fusemax --mapping fusemax-binding --size P=1K,M=1K,E=64,F=64 --trace trace.json
    """
    from ..einsum import npz
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture
    from ..mapper import mapping as mappings
    from ..sim.simulate import MAX_TASKS, simulate

    if source is not None and not functional:
        raise click.UsageError("--inputs goes with --functional")
    if window is not None and timeline is None:
        raise click.UsageError("--window goes with --timeline")
    cascade = load(locate("attention", spec))
    arch_ = architecture.load(arch, settings)
    mapping_ = mappings.load_for(mapping, cascade, sizes, params, arch_)
    traces = npz.read_arrays(gathers) if gathers else None
    executed = None
    if functional:
        from ..sim.functional import execute, gathered, random_data

        known = {**mapping_.sizes, **sizes}
        data = npz.read_inputs(source, cascade, known, params) if source else random_data(cascade, mapping_, sizes, params)
        executed = execute(cascade, arch_, mapping_, data, sizes, params)
        traces = traces or gathered(cascade, data, known, params)
    with told("simulating") as tell:

        def watch(group: int, tasks: int) -> None:
            if tell is not None:
                tell(f"group {group} of {len(mapping_.groups)}: a run of {tasks:,} tasks")

        run = simulate(cascade, arch_, mapping_, sizes, params, traces=traces, max_tasks=max_tasks or MAX_TASKS, watch=watch)
    if trace is not None:
        from ..sim.trace import chrome_trace

        write_text(trace, json.dumps(chrome_trace(run)))
    if timeline is not None:
        from ..sim.timeline import svg

        write_text(timeline, svg(run, _cycles(window)))
    return Report(run, executed, trace, timeline)


def _cycles(window: str | None) -> tuple[float, float] | None:
    """`FROM:TO` as two numbers of cycles."""
    if window is None:
        return None
    try:
        start, end = (float(part) for part in window.split(":"))
    except ValueError:
        raise click.UsageError(f"--window {window}: two numbers of cycles such as 0:4000") from None
    if not 0 <= start < end:
        raise click.UsageError(f"--window {window}: the first number must be the smaller one")
    return start, end
