"""Worker of `bench`: times implementations on one set of random inputs. Runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .child import answer, load_module
from .sdpa import Sdpa

Outputs = dict[str, Any]


def time_all(job: dict[str, Any]) -> dict[str, Any]:
    """Plain torch first: the others are compared with it. A fault of one implementation belongs into its row."""
    import torch

    device = job["device"]
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = job["allow_tf32"]
    inputs = {name: random_tensor(shape, kind, job["dtype"], device) for name, (shape, kind) in job["inputs"].items()}
    modules = [(one["impl"], load_module(one["file"])) for one in job["modules"]]
    todo: list[tuple[str, Callable[[], Callable[[], Outputs]]]] = [
        ("plain torch", lambda: lambda: modules[0][1].reference(**inputs, **job["scalars"]))
    ]
    if job["sdpa"] is not None:
        call = Sdpa(**job["sdpa"])
        name = next(iter(_prepared(modules[0][1], inputs, job)[1]))
        wider = {each: x.to(getattr(torch, job["sdpa_dtype"])) for each, x in inputs.items()}  # torch's takes no 8 bits
        impl = "torch scaled_dot_product_attention" + (f", {job['sdpa_dtype']}" if job["sdpa_dtype"] != job["dtype"] else "")
        todo.append((impl, lambda: lambda: {name: call(wider)}))
    todo += [(impl, lambda module=module: _launcher(module, inputs, job)) for impl, module in modules]  # type: ignore[misc]
    rows, wanted = [], None
    for impl, make in todo:
        row, outputs = measured(impl, make, wanted, device)
        wanted = wanted if wanted is not None else outputs
        rows.append(row)
    return {"where": where(device), "rows": rows}


def measured(
    impl: str, make: Callable[[], Callable[[], Outputs]], wanted: Outputs | None, device: str
) -> tuple[dict[str, Any], Outputs | None]:  # fmt: skip
    """The times of one implementation, and its outputs."""
    empty = {"impl": impl, "ms": None, "low": 0.0, "high": 0.0, "difference": None, "fault": None}
    try:
        run = make()
        outputs = {name: x.clone() for name, x in run().items()}
        far = None if wanted is None else difference(outputs, wanted)
        low, median, high = times(run, device)
    except Exception as fault:  # out of memory, a kernel that cannot be launched, ...
        return {**empty, "fault": f"{type(fault).__name__}: {fault}"[:300]}, None
    return {**empty, "ms": median, "low": low, "high": high, "difference": far}, outputs


def _prepared(module: Any, inputs: Outputs, job: dict[str, Any]) -> tuple[Any, Outputs]:
    launches, outputs, _ = module._prepare(**inputs, **job["scalars"], allow_tf32=job["allow_tf32"])
    return launches, outputs


def _launcher(module: Any, inputs: Outputs, job: dict[str, Any]) -> Callable[[], Outputs]:
    """The launches of a module, with arguments and outputs made once."""
    launches, outputs = _prepared(module, inputs, job)

    def launch() -> Outputs:
        for kernel, grid, arguments, options in launches:
            kernel[grid](**arguments, **options)
        return outputs

    return launch


def random_tensor(shape: list[int], kind: str, dtype: str, device: str) -> Any:
    """Normal numbers; truth values half of each; whole numbers 0 and 1, which index into anything."""
    import torch

    if kind == "float":
        return torch.randn(shape, device=device, dtype=torch.float32).to(getattr(torch, dtype))
    bits = torch.randint(0, 2, shape, device=device)
    return bits.bool() if kind == "bool" else bits.to(torch.int32)


def difference(found: Outputs, wanted: Outputs) -> float:
    """Greatest distance, relative to the greatest value; infinite where either is no number alone."""
    worst = 0.0
    for name, want in wanted.items():
        a, b = found[name].double(), want.double()
        if bool((a.isnan() != b.isnan()).any()):
            return float("inf")
        scale = max(float(b.nan_to_num().abs().max()) if b.numel() else 0.0, 1e-30)
        worst = max(worst, float((a - b).nan_to_num().abs().max()) / scale if b.numel() else 0.0)
    return worst


def times(run: Callable[[], Any], device: str, repeats: int = 20) -> tuple[float, float, float]:
    """Milliseconds that 20%, 50% and 80% of the runs stay below; on a GPU with a cold cache before each run."""
    if device == "cuda":
        from triton.testing import do_bench

        low, median, high = do_bench(run, quantiles=[0.2, 0.5, 0.8])
        return float(low), float(median), float(high)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    taken.sort()
    return taken[len(taken) // 5], taken[len(taken) // 2], taken[4 * len(taken) // 5]


def where(device: str) -> str:
    """The GPU and the versions used."""
    import platform

    import torch
    import triton

    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    return f"{name}, torch {torch.__version__}, triton {triton.__version__}, Python {platform.python_version()}"


if __name__ == "__main__":
    answer(time_all)
