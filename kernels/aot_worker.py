"""Worker of `aot`: compiles one generated module for several targets. Runs in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .child import answer, load_module


def compile_all(job: dict[str, Any]) -> dict[str, Any]:
    """Compile `job["file"]` for `job["targets"]` with inputs of the given sizes and type (no data: meta tensors)."""
    import torch
    from triton.compiler import ASTSource

    module = load_module(job["file"])
    dtype = getattr(torch, job["dtype"])
    with torch.device("meta"):
        inputs = {
            name: torch.empty(shape, dtype=dtype if kind == "float" else torch.bool if kind == "bool" else torch.int32)
            for name, (shape, kind) in job["inputs"].items()
        }
    grid, arguments, _ = module._prepare(**inputs, **job["scalars"], allow_tf32=job["allow_tf32"])
    kernel = next(value for name, value in vars(module).items() if name.endswith("_kernel") and hasattr(value, "arg_names"))
    constant_names = {kernel.arg_names[i] for i in kernel.constexprs}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for number, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if name in constant_names or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif torch.is_tensor(value):
            signature[name] = "*" + _TYPES[str(value.dtype).removeprefix("torch.")]
            attributes[(number,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(number,)] = [["tt.divisibility", 16]]
    result = {}
    for target in job["targets"]:
        source = ASTSource(kernel, signature, constants, attributes)
        result[target] = _compiled(source, target, job["warps"], job["stages"])
    return {"grid": grid[0], "compiled": result}


_TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "int32": "i32", "int64": "i64", "int8": "i8", "bool": "i1"}


def _compiled(source: Any, target: str, warps: int, stages: int) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget

    where = GPUTarget("cuda", int(target[3:]), 32) if target.startswith("sm_") else GPUTarget("hip", target, 64)
    try:
        compiled = triton.compile(source, target=where, options={"num_warps": warps, "num_stages": stages})
    except Exception as error:  # the compiler's own errors have many types
        return {"error": " ".join(str(error).split())[-400:] or type(error).__name__}
    text = compiled.asm.get("ptx") or compiled.asm.get("amdgcn") or ""
    found: dict[str, Any] = {"shared_bytes": int(compiled.metadata.shared)}
    tensor_memory = getattr(compiled.metadata, "tmem_size", None)
    if tensor_memory:
        found["tensor_memory_columns"] = int(tensor_memory)
    if "cubin" in compiled.asm:
        found |= _resources(compiled.asm["cubin"])
    else:
        found |= _amd_resources(text)
    found["mma"] = {name: count for name, pattern in _INSTRUCTIONS.items() if (count := len(re.findall(pattern, text)))}
    return found


_INSTRUCTIONS = {
    "wgmma": r"wgmma\.mma_async",
    "mma.sync": r"\bmma\.sync",
    "tcgen05": r"tcgen05\.mma",
    "mfma": r"\bv_mfma_",
    "ex2": r"\bex2\.approx|\bv_exp_f32",
}


def _resources(cubin: bytes) -> dict[str, Any]:
    """Registers and local memory of a thread, by the `cuobjdump` that comes with triton."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not os.access(tool, os.X_OK):
        return {"registers": None, "spill_bytes": None}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([str(tool), "--dump-resource-usage", file.name], capture_output=True, text=True, check=False).stdout
    registers, stack = re.search(r"REG:(\d+)", text), re.search(r"STACK:(\d+)", text)
    return {"registers": int(registers[1]) if registers else None, "spill_bytes": int(stack[1]) if stack else None}


def _amd_resources(text: str) -> dict[str, Any]:
    registers = re.search(r"\.vgpr_count:\s+(\d+)", text)
    scratch = re.search(r"\.private_segment_fixed_size:\s+(\d+)", text)
    return {"registers": int(registers[1]) if registers else None, "spill_bytes": int(scratch[1]) if scratch else None}


if __name__ == "__main__":
    answer(compile_all)
