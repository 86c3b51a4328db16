"""What a sweep says on a terminal while it runs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from einsmith.cli.sweep import _line
from einsmith.mapper.sweep.run import Progress

SWEEP = """name: s
points:
  product:
  - {spec: softmax, arch: fusemax, mapping: rows-three-passes, "size.B,size.H": 1, "size.E,size.F": 64, "size.P,size.M": 256}
  - arch.array2d.side: [64, 128]
"""


@pytest.mark.parametrize(
    "points, done, seconds, line",
    [
        (100_000, 0, 1, "0 of 100,000"),
        (100_000, 20_000, 10, "20,000 of 100,000  2,000/s  40 s left  7 failed  best latency_s 0.001235"),
        (100, 10, 20, "10 of 100  0.5/s  3 min left  7 failed  best latency_s 0.001235"),
        (7_210, 10, 20, "10 of 7,210  0.5/s  4.0 h left  7 failed  best latency_s 0.001235"),
    ],
)
def test_rate_and_time_left(points: int, done: int, seconds: float, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einsmith.mapper.sweep.run.time.monotonic", lambda: 1000.0 + seconds)
    progress = Progress(points, done, started=1000.0)
    if done:
        progress.failed, progress.best = 7, {"latency_s": 0.0012345678}
    assert _line(progress) == line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_control_c_says_what_is_kept(workers: str, tmp_path: Path) -> None:
    text = SWEEP.replace("mapping: rows-three-passes", "mapping: search").replace("[64, 128]", "{from: 8, to: 512, step: 8}")
    (tmp_path / "s.yaml").write_text(text)
    command = [sys.executable, "-m", "einsmith", "sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([*command, "--workers", workers], text=True, start_new_session=True, **pipes)
    while not list(tmp_path.glob("out/shards/*/*.parquet")):
        assert child.poll() is None
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: workers get it too
    out, err = child.communicate(timeout=60)  # workers have these pipes: it returns when they have ended
    (diagnostic,) = json.loads(out)["diagnostics"]
    assert diagnostic["code"] == "E708"
    assert child.returncode in (1, -signal.SIGINT)  # Python ends so where the signal came during an `exec` of a text
    kept = len(list(tmp_path.glob("out/shards/*/*.parquet")))
    assert 0 < kept < 64
    assert re.fullmatch(rf"interrupted: ({kept - 1}|{kept}) of 64 points are kept", diagnostic["message"])
    assert err.startswith("error[E708]")


def test_a_terminal_is_told_and_left_clean(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "einsmith", "sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "--workers", "1"]
    told = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    with open(theirs, "wb", closefd=False) as terminal:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=told)
        out, _ = child.communicate(timeout=60)
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        seen += data
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert "2 of 2" in text
    assert "best latency_s" in text
    assert seen.rstrip().endswith(b"\x1b[2K")  # the line is gone
    assert out.decode().startswith("s: 2 points")
