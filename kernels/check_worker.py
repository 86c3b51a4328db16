"""Worker of `check` and `run`: runs one generated module on inputs from files. Runs in a process of its own."""

from __future__ import annotations

from typing import Any

from .child import answer, load_module
from .interpreter import hasten


def run_all(job: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Run every case of every module of the job; outputs go to files, faults into the answer."""
    if job["device"] == "cpu":
        hasten()
    return [_run_module(one, job["device"], job["allow_tf32"]) for one in job["modules"]]


def _run_module(one: dict[str, Any], device: str, allow_tf32: bool) -> list[dict[str, Any]]:
    import numpy as np
    import torch

    module = load_module(one["file"])
    results = []
    for case in one["cases"]:
        dtype = getattr(torch, case["dtype"])
        arrays = np.load(case["inputs"])
        inputs = {name: _tensor(torch, arrays[name], dtype, device, case["strided"]) for name in arrays.files}
        error = None
        try:
            outputs = module.run(**inputs, **case["scalars"], allow_tf32=allow_tf32, out=_fill)
            if device == "cuda":
                torch.cuda.synchronize()
            made = {f"out.{name}": x.detach().cpu().double().numpy() for name, x in outputs.items()}
            if one["plain"]:
                plain = module.reference(**inputs, **case["scalars"])
                made |= {f"plain.{name}": x.detach().cpu().double().numpy() for name, x in plain.items()}
                exact = module.exact(**inputs, **case["scalars"])
                made |= {f"exact.{name}": x.detach().cpu().double().numpy() for name, x in exact.items()}
            np.savez(case["outputs"], **made)
        except Exception as fault:  # whatever the kernel or Triton raises belongs into the report of this case
            error = f"{type(fault).__name__}: {fault}"[:500]
        results.append({"error": error})
    return results


def _tensor(torch: Any, array: Any, dtype: Any, device: str, strided: bool) -> Any:
    """The input on the device; strided: with its dimensions in the opposite order in memory."""
    x = torch.from_numpy(array)
    if x.is_floating_point():
        x = x.to(dtype)
    elif x.dtype != torch.bool and not (x.numel() and (x.min() < -(2**31) or x.max() >= 2**31)):
        x = x.to(torch.int32)
    x = x.to(device)
    if strided and x.dim() > 1:
        x = x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    return x


def _fill(outputs: dict[str, Any]) -> None:
    """NaN everywhere before the kernel runs: what it does not write shows."""
    for x in outputs.values():
        x.fill_(float("nan") if x.is_floating_point() else -1)


if __name__ == "__main__":
    answer(run_all)
