"""Worker of `aot`: compiles generated modules for several targets. Runs in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .child import answer, load_module


def compile_all(job: dict[str, Any]) -> dict[str, Any]:
    """Compile each of `job["modules"]` for `job["targets"]` with inputs of the given sizes and type (no data: meta tensors)."""
    return {"compiled": [_compile_module(job, **module) for module in job["modules"]]}


def _compile_module(job: dict[str, Any], file: str) -> dict[str, Any]:
    """Every launch of a module; what its kernels take together is that of the greatest, instructions are added up."""
    import torch

    module = load_module(file)
    dtype = getattr(torch, job["dtype"])
    with torch.device("meta"):
        inputs = {
            name: torch.empty(shape, dtype=dtype if kind == "float" else torch.bool if kind == "bool" else torch.int32)
            for name, (shape, kind) in job["inputs"].items()
        }
    launches, _, _ = module._prepare(**inputs, **job["scalars"], allow_tf32=job["allow_tf32"])
    result: dict[str, Any] = {}
    for target in job["targets"]:
        kernels = [_compiled(_source(kernel, arguments), target, options) for kernel, _, arguments, options in launches]
        result[target] = _together(kernels)
    return result


def _source(kernel: Any, arguments: dict[str, Any]) -> Any:
    """A kernel specialised for the arguments of one launch."""
    import torch
    from triton.compiler import ASTSource

    constant_names = {kernel.arg_names[i] for i in kernel.constexprs}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for number, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if name in constant_names or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif hasattr(value, "block_shape"):
            kind = _TYPES[str(value.base.dtype).removeprefix("torch.")]
            signature[name] = f"tensordesc<{kind}{list(value.block_shape)}>"
        elif torch.is_tensor(value):
            signature[name] = "*" + _TYPES[str(value.dtype).removeprefix("torch.")]
            attributes[(number,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(number,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def _together(kernels: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for all kernels of a module."""
    failed = [one for one in kernels if "error" in one]
    if len(kernels) == 1:
        return kernels[0]
    if failed:
        return {**failed[0], "kernels": kernels}
    found: dict[str, Any] = {"mma": {name: sum(one["mma"].get(name, 0) for one in kernels) for name in _INSTRUCTIONS}}
    found["mma"] = {name: count for name, count in found["mma"].items() if count}
    for name in ("shared_bytes", "staged_bytes", "registers", "spill_bytes", "tensor_memory_columns"):
        values = [one[name] for one in kernels if one.get(name) is not None]
        if values:
            found[name] = max(values)
    return {**found, "kernels": kernels}


_TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "int32": "i32", "int64": "i64", "int8": "i8", "bool": "i1",
    "float8_e4m3fn": "fp8e4nv", "float8_e5m2": "fp8e5"}  # fmt: skip


def _compiled(source: Any, target: str, options: dict[str, int]) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget

    where = GPUTarget("cuda", int(target[3:]), 32) if target.startswith("sm_") else GPUTarget("hip", target, 64)
    try:
        compiled = triton.compile(source, target=where, options=options)
    except Exception as error:  # the compiler's own errors have many types
        return {"error": " ".join(str(error).split())[-400:] or type(error).__name__}
    text = compiled.asm.get("ptx") or compiled.asm.get("amdgcn") or ""
    found: dict[str, Any] = {"shared_bytes": int(compiled.metadata.shared), "staged_bytes": staged_bytes(compiled.asm["ttgir"])}
    tensor_memory = getattr(compiled.metadata, "tmem_size", None)
    if tensor_memory:
        found["tensor_memory_columns"] = int(tensor_memory)
    if "cubin" in compiled.asm:
        found |= _resources(compiled.asm["cubin"])
        if found["spill_bytes"]:
            found["spill_bytes"] = max(0, found["spill_bytes"] - local_bytes(text))
    else:
        found |= _amd_resources(text)
    found["mma"] = {name: count for name, pattern in _INSTRUCTIONS.items() if (count := len(re.findall(pattern, text)))}
    return found


def local_bytes(ptx: str) -> int:
    """Local memory of a thread that the code asks for by itself, in whole 8 bytes: what a sine or cosine of a large angle needs for
    the digits of pi is no spilled register."""
    sizes = re.findall(r"^\s*\.local\s+\.align\s+\d+\s+\.b8\s+\S+\[(\d+)\];", ptx, re.MULTILINE)
    return sum(-(-int(size) // 8) * 8 for size in sizes)


_ALLOCATION = re.compile(r"(%\S+) = ttg\.local_alloc\b.*?!ttg\.memdesc<((?:\d+x)+)[a-z]+(\d+)")


def staged_bytes(ttgir: str) -> int:
    """Most bytes of the buffers in shared memory that are in use at one time: operands of matrix products, not scratch.

    A buffer lives from its allocation to the last line that mentions it or a view of it, or to the end of the outermost loop in
    which that line stands and the allocation does not.
    """
    lines = ttgir.splitlines()
    ends: dict[int, int] = {}  # line that opens a block -> line that closes it
    open_blocks: list[int] = []
    for number, line in enumerate(lines):
        bare = re.sub(r"\{[^{}]*\}", "", re.sub(r'"[^"]*"', "", line))
        for mark in re.findall(r"[{}]", bare):
            if mark == "{":
                open_blocks.append(number)
            elif open_blocks:
                ends[open_blocks.pop()] = number
    loops = [(first, last) for first, last in ends.items() if "scf.for" in lines[first] or "scf.while" in lines[first]]
    changes: dict[int, int] = {}
    for number, line in enumerate(lines):
        found = _ALLOCATION.search(line)
        if found is None:
            continue
        size = int(found[3]) // 8
        for extent in found[2].split("x")[:-1]:
            size *= int(extent)
        last = _last_use(lines, number, found[1])
        for first_line, last_line in loops:
            if number < first_line < last <= last_line:
                last = max(last, last_line)
        changes[number] = changes.get(number, 0) + size
        changes[last + 1] = changes.get(last + 1, 0) - size
    now = most = 0
    for number in sorted(changes):
        now += changes[number]
        most = max(most, now)
    return most


def _last_use(lines: list[str], start: int, name: str) -> int:
    """The last line that mentions a buffer or a view of it. A name may be taken again in another block."""
    names, last = {name}, start
    for number in range(start + 1, len(lines)):
        used = set(_NAME.findall(lines[number]))
        if not names & used:
            continue
        defined = set(_DEFINED.findall(lines[number]))
        several = _SEVERAL.match(lines[number])
        defined |= set(_NAME.findall(several[1])) if several else set()
        if names & (used - defined):
            last = number
        view = re.match(r"\s*(%\S+) = ttg\.memdesc_\w+ (%[A-Za-z0-9_.$-]+)", lines[number])
        is_view = view is not None and view[2] in names
        names -= defined
        if is_view and view is not None:
            names.add(view[1])
    return last


_NAME = re.compile(r"%[A-Za-z0-9_.$-]+")
_DEFINED = re.compile(r"(%[A-Za-z0-9_.$-]+)(?::\d+)? = ")
_SEVERAL = re.compile(r"\s*(%[A-Za-z0-9_.$-]+(?:, %[A-Za-z0-9_.$-]+)+) = ")


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
