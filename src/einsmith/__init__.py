"""einsmith: attention algorithms as cascades of Einsums, from spec file to mapped accelerator and checked Triton kernel.

    import einsmith as es

    cascade = es.load("examples/attention/softmax-causal.yaml")
    cascade.passes("m")                        # 3
    online = es.derive(cascade, rank="m")      # a Derivation: print it to read the proof
    online.cascade.passes("m")                 # 1

Results are objects whose `str` is the report that the command of the same name prints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np

    from .einsum.analysis.report import Analysis
    from .einsum.cascade import Cascade
    from .einsum.diagnostics import EinsmithError
    from .einsum.equal import Equality
    from .einsum.rewrite.derive import Derivation
    from .mapper.codesign import CoDesigned, Goal
    from .mapper.cost import Cost
    from .mapper.fixed import Part
    from .mapper.module_plan import ModulePlan
    from .mapper.objective import Measure
    from .mapper.search import Searched
    from .mapper.space import Tiles
    from .mapper.sweep.run import Progress, Swept
    from .sim.simulate import Simulated

__all__ = [
    "EinsmithError", "analyze", "compile", "derive", "equal", "evaluate", "load", "loads", "map", "model", "plan", "simulate",
    "sweep", "with_outputs",
]  # fmt: skip

Sizes = Mapping[str, int]
Params = Mapping[str, int | float]


def __getattr__(name: str) -> Any:
    """`EinsmithError`, which every refusal is, imported when it is asked for."""
    if name == "EinsmithError":
        from .einsum.diagnostics import EinsmithError

        return EinsmithError
    raise AttributeError(f"module `einsmith` has no attribute `{name}`")


def load(path: str | Path) -> Cascade:
    """The cascade of a spec file. Raises `EinsmithError` with every diagnostic of the file."""
    from .einsum.spec import load as load_spec

    return load_spec(path)


def loads(text: str, name: str = "<string>") -> Cascade:
    """The cascade of a spec given as text."""
    from .einsum.spec import loads as load_text

    return load_text(text, name)


def with_outputs(cascade: Cascade, *names: str) -> Cascade:
    """The cascade that computes these of its tensors instead of its outputs, and nothing that only others need."""
    from .einsum.outputs import with_outputs as for_outputs

    return for_outputs(cascade, names)


def analyze(cascade: Cascade, sizes: Sizes | None = None, params: Params | None = None, **options: Any) -> Analysis:
    """Passes, footprints, operations and traffic bounds; formulas where sizes are not given."""
    from .einsum.analysis import analyze as analyze_cascade

    return analyze_cascade(cascade, sizes, params, **options)


def derive(cascade: Cascade, rank: str, **options: Any) -> Derivation:
    """The form with the fewest passes over `rank` that algebra allows, with its proof."""
    from .einsum.rewrite.derive import derive as derive_cascade

    return derive_cascade(cascade, rank, **options)


def evaluate(
    cascade: Cascade,
    inputs: Mapping[str, np.ndarray],
    sizes: Sizes | None = None,
    params: Params | None = None,
) -> dict[str, np.ndarray]:
    """The outputs in float64, by the interpreter; sizes follow from the shapes of the inputs where they can."""
    from .einsum.interpret import evaluate as evaluate_cascade

    return evaluate_cascade(cascade, inputs, sizes, params)


def equal(first: Cascade, second: Cascade, **options: Any) -> Equality:
    """Whether two cascades are the same function: symbolically where that decides it, then numerically."""
    from .einsum.equal import equal as compare

    return compare(first, second, **options)


def model(
    cascade: Cascade, arch: str | Path, mapping: str | Path, sizes: Sizes | None = None, *, params: Params | None = None
) -> Cost:
    """Latency, energy, traffic, area and utilization of a mapping on an architecture."""
    from .mapper import architecture, cost
    from .mapper import mapping as mappings

    machine = architecture.load(arch)
    return cost.model(cascade, machine, mappings.load_for(mapping, cascade, sizes, params, machine), sizes, params)


def map(
    cascade: Cascade,
    arch: str | Path,
    sizes: Sizes | None = None,
    objective: str = "latency",
    *,
    params: Params | None = None,
    tiles: Tiles = "doubled",
    gap: float = 0.0,
    settings: Sequence[str] = (),
    bind: Mapping[str, str] | None = None,
    groups: Sequence[Collection[str]] = (),
    tile: Mapping[str, int] | None = None,
    like: str | Path | None = None,
    keep: Collection[Part] = ("groups", "arrays"),
    free: Mapping[str, Any] | None = None,
    area_mm2: float | None = None,
    fix: Sequence[str] = (),
    slack: float = 0.0,
    at_most: Mapping[Measure, float] | None = None,
) -> Searched | CoDesigned:
    """The best mapping of the stated space, with proof; the best architecture too where `free` or `area_mm2` is given.

    `objective`: `latency`, `energy`, `traffic` or several in order (`latency,traffic`), each to within `slack` of its least; `edp`,
    `area-delay`, `pareto`. `at_most`: seconds with fill and drain, pJ, bytes. `settings`: numbers put over the architecture, as
    `buffer.size=4 MiB`. `bind`, `groups`, `tile` fix the array of an Einsum, fusion groups, the tile of a rank; `fix` any part, as
    partial mapping files or `NAME.KEY=VALUE`; `like` the parts in `keep` as a mapping file has them. `free`: values of numbers of
    the architecture, `{"buffer.size": [2**20, 2**22]}`; a name without a dot stands in braces in `settings`.
    """
    from .mapper import architecture, codesign, designs, fixed, mapping, search

    base = architecture.load(arch, () if free else tuple(settings))
    parts = fixed.ANYTHING
    if like is not None:
        given = mapping.load_for(like, cascade, sizes, params, base)
        sizes = {**given.sizes, **(sizes or {})} if "tiles" in keep else sizes
        parts = fixed.kept(given, keep, fixed.extents(cascade, sizes, params), base.on_chip)
    if fix:
        more, chosen = fixed.fixed_by(fix, cascade, base, sizes, params)
        parts, sizes = fixed.joined(parts, more), {**chosen, **(sizes or {})}
    parts = fixed.over(parts, bind or {}, groups, tile or {})
    if objective == "area-delay" or free is not None or area_mm2 is not None:
        listed = designs.designs(arch, settings, [designs.free(name, values) for name, values in (free or {}).items()])
        workload = codesign.Workload(cascade.name, cascade, sizes or {}, params or {})
        budget = None if area_mm2 is None else area_mm2 * 1e6
        return codesign.codesign([workload], listed, cast("Goal", objective), budget, tiles, gap, parts)
    return search.search(cascade, base, sizes, params, objective, tiles, gap, parts, slack=slack, at_most=at_most)


def simulate(
    cascade: Cascade,
    arch: str | Path,
    mapping: str | Path,
    sizes: Sizes | None = None,
    *,
    params: Params | None = None,
    settings: Sequence[str] = (),
    gathers: Mapping[str, Any] | None = None,
) -> Simulated:
    """The mapped cascade executed event by event. `gathers`: values of integer tensors that indices read."""
    from .mapper import architecture
    from .mapper import mapping as mappings
    from .sim.simulate import simulate as simulate_mapping

    machine = architecture.load(arch, tuple(settings))
    how = mappings.load_for(mapping, cascade, sizes, params, machine)
    return simulate_mapping(cascade, machine, how, sizes, params, traces=gathers)


def plan(
    cascade: Cascade, gpu: str = "h200", sizes: Sizes | None = None, *, params: Params | None = None, **options: Any
) -> ModulePlan:
    """The kernels of a cascade as GPU tiling plans with their predictions and ranked candidates."""
    from .mapper import gpu as gpus
    from .mapper.stages import plan_module

    return plan_module(cascade, gpus.load(gpu), sizes, params, **options)


def compile(cascade: Cascade, gpu: str = "h200", sizes: Sizes | None = None, **options: Any) -> Callable[..., Any]:
    """A function on torch tensors that runs the kernel generated for a cascade."""
    from .kernels.run import compile_cascade

    return compile_cascade(cascade, gpu, sizes, **options)


def sweep(
    points: str | Path | Mapping[str, Any],
    folder: str | Path,
    *,
    workers: int | None = None,
    dask: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Swept:
    """Many points of a design space, as a sweep file or the same as a dict states them; their results stay in `folder`.

    `workers`: processes on this machine (default: one for each core); `dask`: the address of a scheduler instead. A run that was
    interrupted goes on where it stopped.
    """
    import os

    from .mapper.sweep import file, run
    from .mapper.sweep.workers import Dask, Local

    plan = file.of_plain(points) if isinstance(points, Mapping) else file.load(points)
    worker = Local(workers or os.cpu_count() or 1) if dask is None else Dask(dask)
    return run.sweep(plan, Path(folder), worker, progress or (lambda state: None))
