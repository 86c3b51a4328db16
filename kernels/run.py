"""Running: a cascade on arrays by its generated kernel.

In: a cascade and inputs. Out: the outputs. The cascade is taken to its one-pass form, planned for the sizes at hand, emitted,
and run in a process of its own: on a GPU if there is one, else in Triton's interpreter (float32; slow, for checks).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..mapper import gpu as gpus
from ..mapper.stages import plan_module
from .check import device, keywords
from .child import ask
from .emit import emit_module
from .store import stored

if TYPE_CHECKING:
    import numpy as np

TIMEOUT_S = 600.0
"""For one run."""


def run_triton(
    cascade: Cascade,
    inputs: Mapping[str, np.ndarray],
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    gpu: str = "h200",
) -> dict[str, np.ndarray]:
    """The outputs of the kernel generated for float32 inputs, as float64 arrays. `inputs`: in the shapes that the cascade declares.
    Raises EinsmithError (E602 to E607, E612)."""
    import numpy as np

    from ..einsum.inputs import infer_sizes

    all_sizes = infer_sizes(cascade, inputs, sizes)
    source = module_for(cascade, gpu, all_sizes, params, "float32")
    where = device()
    with tempfile.TemporaryDirectory(prefix="einsmith-") as folder:
        source_file, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source_file, **{t.name: np.asarray(inputs[t.name]) for t in cascade.inputs})  # type: ignore[arg-type]
        case = {
            "inputs": str(source_file),
            "outputs": str(target),
            "dtype": "float32",
            "strided": False,
            "scalars": keywords(source, all_sizes, params),
        }
        module = {"file": str(stored(source)), "cases": [case], "plain": False}
        job = {"device": where, "modules": [module], "allow_tf32": False}
        ((found,),) = ask("check_worker", job, interpret=where == "cpu", timeout_s=TIMEOUT_S)
        if found["error"] is not None:
            raise EinsmithError(Diagnostic("E607", f"the generated kernel failed: {found['error']}"))
        made = np.load(target)
        return {name: np.asarray(made[f"out.{name}"]) for name in cascade.outputs}


def module_for(cascade: Cascade, gpu: str, sizes: Mapping[str, int], params: Mapping[str, int | float] | None, dtype: str) -> str:
    """Text of the module for a cascade at given sizes."""
    return emit_module(plan_module(cascade, gpus.load(gpu), sizes, params, dtype=dtype))


def compile_cascade(
    cascade: Cascade, gpu: str = "h200", sizes: Mapping[str, int] | None = None, *, dtype: str = "float16", **options: Any
) -> Callable[..., Any]:
    """A function on torch tensors that runs the generated kernel: on a GPU in this process, else interpreted in another."""
    params: Mapping[str, int | float] | None = options.pop("params", None)
    if options:
        raise TypeError(f"unknown options: {', '.join(options)}")
    given = {**dict(cascade.sizes), **dict(sizes or {})}
    source = module_for(cascade, gpu, given, params, dtype)
    if device() == "cuda":
        from .child import load_module

        run: Callable[..., Any] = load_module(str(stored(source))).run
        return run

    def run_interpreted(**inputs: Any) -> dict[str, Any]:
        """The outputs by name, of tensors by name; of the dtype of the inputs. Runs in Triton's interpreter: slow."""
        import numpy as np
        import torch

        tensors = {n: x for n, x in inputs.items() if torch.is_tensor(x)}
        scalars = {n: x for n, x in inputs.items() if n not in tensors}
        arrays = {n: x.double().numpy() if x.is_floating_point() else x.numpy() for n, x in tensors.items()}
        outputs = run_triton(
            cascade, arrays, {n: v for n, v in scalars.items() if n in cascade.symbols},
            {**dict(params or {}), **{n: v for n, v in scalars.items() if n not in cascade.symbols}}, gpu=gpu,
        )  # fmt: skip
        like = next((x.dtype for x in tensors.values() if x.is_floating_point()), torch.float32)
        return {name: torch.from_numpy(np.asarray(x)).to(like) for name, x in outputs.items()}

    return run_interpreted
