"""Triton's interpreter, hastened, gives the same bits as it does by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from einsmith.einsum.spec import load
from einsmith.kernels.emit import emit_module
from einsmith.mapper import gpu
from einsmith.mapper.stages import plan_module

ROOT = Path(__file__).parents[2]
BOTH_WAYS = """
import sys
import torch
from einsmith.kernels.child import load_module
from einsmith.kernels.interpreter import hasten
from triton.runtime import interpreter

module = load_module(sys.argv[1])
torch.manual_seed(0)
inputs = {name: torch.randn(2, 3, 37, 16) for name in "QKV"}
before = module.run(**inputs)
hasten()
assert not interpreter.interpreter_builder.options.sanitize_overflow
wrapped = interpreter.InterpretedFunction.__call__
after = module.run(**inputs)
again = module.run(**inputs)
hasten()
assert interpreter.InterpretedFunction.__call__ is wrapped
assert before.keys() == after.keys()
for name, one in before.items():
    assert torch.isfinite(one).all()
    assert torch.equal(one, after[name])
    assert torch.equal(one, again[name])
print("same")
"""


@pytest.mark.parametrize("name", ["softmax-causal", "softcap"])
def test_the_same_bits(name: str, tmp_path: Path) -> None:
    module = tmp_path / "kernel.py"
    cascade = load(ROOT / "examples" / "attention" / f"{name}.yaml")
    module.write_text(emit_module(plan_module(cascade, gpu.load("h200"), dtype="float32")), encoding="utf-8")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BOTH_WAYS, str(module)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "same", done.stderr
