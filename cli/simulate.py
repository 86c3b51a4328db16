"""`einsmith simulate`: a mapped cascade executed event by event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized, write_text

if TYPE_CHECKING:
    from ..sim.simulate import Simulated


class Report:
    """A run, and the trace it was written to."""

    def __init__(self, run: Simulated, written: Path | None) -> None:
        self.run, self.written = run, written

    def as_json(self) -> dict[str, Any]:
        return {**self.run.as_json(), "trace": None if self.written is None else str(self.written)}

    def __str__(self) -> str:
        return str(self.run) + (f"\ntrace written to {self.written}: open it in https://ui.perfetto.dev" if self.written else "")


@click.command()
@click.argument("spec")
@click.option("--arch", required=True, metavar="ARCH", help="Architecture file, or the name of one that comes with einsmith.")
@click.option("--mapping", required=True, metavar="MAPPING", help="Mapping file, or the name of one that comes with einsmith.")
@click.option("--trace", type=click.Path(path_type=Path, dir_okay=False), metavar="T.json", help="Write a Chrome (Perfetto) trace.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@click.option("--max-tasks", type=click.IntRange(min=1), metavar="N", help="Simulate at most about N tasks of each group.")
@sized
@guarded
def command(
    spec: str,
    arch: str,
    mapping: str,
    trace: Path | None,
    settings: tuple[str, ...],
    max_tasks: int | None,
    sizes: dict[str, Any],
    params: dict[str, Any],
) -> Report:
    """Execute SPEC, as a mapping lays it out on an accelerator, event by event, and compare with the cost model.

    Large problems are simulated for their first tiles and extrapolated; the report says so.

    Example: einsmith simulate fusemax --arch fusemax --mapping fusemax-binding --size P=1K,M=1K,E=64,F=64 --trace trace.json
    """
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture
    from ..mapper import mapping as mappings
    from ..sim.simulate import MAX_TASKS, simulate

    cascade = load(locate("attention", spec))
    run = simulate(
        cascade, architecture.load(arch, settings), mappings.load(mapping), sizes, params, max_tasks=max_tasks or MAX_TASKS
    )  # fmt: skip
    if trace is not None:
        from ..sim.trace import chrome_trace

        write_text(trace, json.dumps(chrome_trace(run)))
    return Report(run, trace)
