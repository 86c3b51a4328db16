"""einsmith: attention algorithms as cascades of Einsums, from spec file to mapped accelerator and checked Triton kernel.

    import einsmith as es

    cascade = es.load("examples/attention/softmax-causal.yaml")
    cascade.passes("m")                        # 3
    online = es.derive(cascade, rank="m")      # a Derivation: print it to read the proof
    online.cascade.passes("m")                 # 1

Results are objects whose `str` is the report that the command of the same name prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    from .einsum.analysis.report import Analysis
    from .einsum.cascade import Cascade
    from .einsum.diagnostics import EinsmithError
    from .einsum.equal import Equality
    from .einsum.rewrite.derive import Derivation
    from .mapper.cost import Cost
    from .mapper.search import Searched
    from .mapper.stages import ModulePlan
    from .mapper.sweep.run import Progress, Swept
    from .sim.simulate import Simulated

__all__ = [
    "EinsmithError", "analyze", "compile", "derive", "equal", "evaluate", "load", "loads", "map", "model", "plan", "simulate",
    "sweep",
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

    return cost.model(cascade, architecture.load(arch), mappings.load(mapping), sizes, params)


def map(
    cascade: Cascade,
    arch: str | Path,
    sizes: Sizes | None = None,
    objective: Literal["latency", "energy", "edp"] = "latency",
    *,
    params: Params | None = None,
) -> Searched:
    """The best mapping of the stated space."""
    from .mapper import architecture, search

    return search.search(cascade, architecture.load(arch), sizes, params, objective=objective)


def simulate(
    cascade: Cascade, arch: str | Path, mapping: str | Path, sizes: Sizes | None = None, *, params: Params | None = None
) -> Simulated:
    """The mapped cascade executed event by event."""
    from .mapper import architecture
    from .mapper import mapping as mappings
    from .sim.simulate import simulate as simulate_mapping

    return simulate_mapping(cascade, architecture.load(arch), mappings.load(mapping), sizes, params)


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
