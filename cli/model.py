"""`einsmith model`: the cost of a given mapping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .common import guarded, sized

if TYPE_CHECKING:
    from ..mapper.cost import Cost


@click.command()
@click.argument("spec")
@click.option("--arch", required=True, metavar="ARCH", help="Architecture file, or the name of one that comes with einsmith.")
@click.option("--mapping", required=True, metavar="MAPPING", help="Mapping file, or the name of one that comes with einsmith.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Override a number of the architecture.")
@click.option(
    "--trace", type=click.Path(path_type=Path), metavar="FILE.npz", help="Values of integer tensors that indices read (gathers)."
)
@sized
@guarded
def command(
    spec: str,
    arch: str,
    mapping: str,
    settings: tuple[str, ...],
    trace: Path | None,
    sizes: dict[str, Any],
    params: dict[str, Any],
) -> Cost:
    """Latency, energy, traffic, area and utilization of SPEC as a mapping lays it out on an accelerator, and what bounds it.

    A mapping that is illegal (it uses a reduction before it is complete) or does not fit is refused with the reason.

    Example: einsmith model fusemax --arch fusemax --mapping fusemax-binding --size B=64,H=12,P=1K,M=1K,E=64,F=64 --param scale=1
    """
    from ..einsum import npz
    from ..einsum.library import locate
    from ..einsum.spec import load
    from ..mapper import architecture, cost
    from ..mapper import mapping as mappings

    cascade = load(locate("attention", spec))
    machine = architecture.load(arch, settings)
    traces = npz.read_arrays(trace) if trace else None
    return cost.model(cascade, machine, mappings.load_for(mapping, cascade, sizes, params, machine), sizes, params, traces)
