"""Work in a process of its own: Triton fixes at import whether it interprets, and a compiler may crash.

In: a job (a JSON object) and the name of a worker module of this package. Out: what the worker answers, as JSON; its faults as
diagnostics. The worker is run with this Python, a time limit, and the environment it needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..einsum.diagnostics import Diagnostic, EinsmithError


def ask(worker: str, job: dict[str, Any], *, interpret: bool, timeout_s: float) -> Any:
    """Run a worker on a job. Raises EinsmithError (E607) where it fails or takes too long."""
    require()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    with tempfile.TemporaryDirectory(prefix="einsmith-") as name:
        question, answer = Path(name) / "job.json", Path(name) / "answer.json"
        question.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", f"einsmith.kernels.{worker}", str(question), str(answer)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise EinsmithError(
                Diagnostic("E607", f"the kernel took longer than {timeout_s:g} s", help="give it more time or smaller sizes")
            ) from None
        if done.returncode != 0 or not answer.is_file():
            last = [line for line in done.stderr.strip().splitlines() if line.strip()][-1:] or [f"exit code {done.returncode}"]
            raise EinsmithError(Diagnostic("E607", f"the generated kernel failed: {last[0].strip()[:400]}", file=job.get("file")))
        return json.loads(answer.read_text(encoding="utf-8"))


def require() -> None:
    """Raise EinsmithError (E608) if torch or triton is not installed."""
    import importlib.util

    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        raise EinsmithError(
            Diagnostic(
                "E608",
                f"{' and '.join(missing)} not installed",
                help="pip install 'einsmith[kernels]' (triton has Linux wheels only)",
            )
        )


def answer(worker: Any) -> None:
    """Main of a worker: `worker(job)` to the answer file."""
    question, target = sys.argv[1:3]
    result = worker(json.loads(Path(question).read_text(encoding="utf-8")))
    Path(target).write_text(json.dumps(result), encoding="utf-8")


def load_module(path: str) -> Any:
    """Import a generated module from its file."""
    import importlib.util

    name = f"einsmith_kernel_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
