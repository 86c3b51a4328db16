"""Instructions that each operation of a kernel takes for one value, as compiled for a GPU. No GPU is needed.

    python benchmarks/operations.py [--capability N]

Prints, for each operation, instructions of the special-function units and others, beside those of a copy. An operation whose code
branches (sin and cos, which reduce arguments beyond 1e5 in another way) is counted with all of its branches.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from einsmith.kernels.helpers import SOURCES

VALUES = 8
"""Of each thread: what is done once for all of them does not count."""
WARPS = 4
OPERATIONS = {
    "copy": "x", "exp": "tl.exp(x)", "exp2": "tl.exp2(x)", "log": "tl.log(x)", "log2": "tl.log2(x)", "sqrt": "tl.sqrt(x)",
    "rsqrt": "tl.rsqrt(x)", "sin": "tl.sin(x)", "cos": "tl.cos(x)", "erf": "tl.erf(x)", "tanh": "_tanh(x)",
    "sigmoid": "_sigmoid(x)", "softplus": "_softplus(x)", "silu": "_silu(x)", "gelu": "_gelu(x)", "a / b": "x / y",
    "a / b, 0/0 = 0": "_over(x, y)",
    "a ** b": "_power(x, y)",
}  # fmt: skip
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z0-9]+)")
NOT_COUNTED = {"NOP", "BRA", "EXIT", "BSSY", "BSYNC"}


def source() -> str:
    """A module with the helpers of generated kernels and a kernel for each operation."""
    parts = ["import triton", "import triton.language as tl", *SOURCES.values()]
    for number, code in enumerate(OPERATIONS.values()):
        parts += [
            f"@triton.jit\ndef kernel_{number}(X, Y, Z):",
            f"    i = tl.program_id(0) * {VALUES * WARPS * 32} + tl.arange(0, {VALUES * WARPS * 32})",
            "    x = tl.load(X + i)\n    y = tl.load(Y + i)",
            f"    tl.store(Z + i, {code})",
        ]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", type=int, default=90)
    capability = parser.parse_args().capability
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path, binary = Path(folder) / "operations.py", Path(folder) / "kernel.cubin"
        path.write_text(source(), encoding="utf-8")
        found = importlib.util.spec_from_file_location("operations", path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        print(f"sm_{capability}, triton {triton.__version__}, float32\n{'operation':16}{'special':>8}{'others':>8}")
        copied = 0
        for number, name in enumerate(OPERATIONS):
            signature = dict.fromkeys("XYZ", "*fp32")
            target = GPUTarget("cuda", capability, 32)
            kernel = triton.compile(ASTSource(getattr(module, f"kernel_{number}"), signature, {}), target, {"num_warps": WARPS})
            binary.write_bytes(kernel.asm["cubin"])
            text = subprocess.run([dump, "--dump-sass", binary], capture_output=True, text=True, check=True).stdout
            counts = Counter(op for op in INSTRUCTION.findall(text) if op not in NOT_COUNTED)
            others = sum(counts.values()) - counts["MUFU"]
            copied = copied or others
            print(f"{name:16}{counts['MUFU'] / VALUES:8.1f}{(others - copied) / VALUES:8.1f}")


if __name__ == "__main__":
    main()
