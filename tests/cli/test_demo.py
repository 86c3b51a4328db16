"""The demo runs end to end, and what it wrote stands on its own."""

import json
import subprocess
import sys
from pathlib import Path

import einsmith as es


def test_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "einsmith", "demo", "-o", str(tmp_path), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["passes_before"]["m"] == 3
    assert found["passes_after"]["m"] == 1
    assert found["test"]["failed"] == 0
    assert found["test"]["passed"] >= 8
    assert found["compiled"]["sm_90"]["shared_bytes"] > 0
    assert {Path(name).name for name in found["files"]} == {
        "derived.yaml", "mapping.yaml", "trace.json", "plan.json", "kernel.py", "report.txt",
    }  # fmt: skip
    derived = es.load(tmp_path / "derived.yaml")
    assert derived.passes("m") == 1
    sizes = {"B": 1, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}
    cost = es.model(derived, "fusemax", tmp_path / "mapping.yaml", sizes)
    assert cost.latency_s == found["mapping"]["latency_s"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
