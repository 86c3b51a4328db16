"""Sweeps on SLURM jobs, with an `sbatch` and a `scancel` that run batch scripts on this machine: what they are given is what a
cluster would be given, and results are the same bit for bit."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper.sweep import file, run, shards, workers

pytest.importorskip("dask_jobqueue")

SBATCH = """#!/bin/bash
[ -e "{folder}/refuse" ] && {{ echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1; }}
cp "$1" "{folder}/$$.sh"
setsid bash "{folder}/$$.sh" > "{folder}/$$.out" 2>&1 < /dev/null &
echo $! > "{folder}/$$.pid"
echo "Submitted batch job $$"
"""
SCANCEL = """#!/bin/bash
for id in "$@"; do kill -TERM -- -$(cat "{folder}/$id.pid"); echo $id >> "{folder}/cancelled"; done
"""
SWEEP = """name: small
points:
  product:
  - {spec: softmax, mapping: rows-three-passes, arch: fusemax, size.B: 1, size.H: 2, "size.E,size.F": 64}
  - "size.P,size.M": [512, 1K]
  - arch.array2d.side: [64, 128, 256]
  - arch.buffer.size: [64 KiB, 4 MiB, 16 MiB]
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the scripts, outputs and process numbers of jobs."""
    programs, folder = tmp_path / "bin", tmp_path / "jobs"
    programs.mkdir()
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (programs / name).write_text(text.format(folder=folder))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return folder


def test_jobs_of_slurm_give_the_same_bits(jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    plan = file.load(tmp_path / "sweep.yaml")
    whole = run.sweep(plan, tmp_path / "whole", workers.Local(1))
    killed: list[int] = []

    def kill_one(progress: run.Progress) -> None:
        if not killed and progress.done:
            killed.append(int(next(jobs.glob("*.pid")).read_text()))
            os.killpg(killed[0], signal.SIGKILL)

    slurm = workers.Dask(None, 2, [("queue", "short"), ("walltime", "00:10:00"), ("job_extra_directives", "--qos=low")])
    done = run.sweep(plan, tmp_path / "out", slurm, kill_one)
    assert killed
    assert done.results.read_bytes() == whole.results.read_bytes()
    script = next(jobs.glob("*.sh")).read_text()
    for line in ("#SBATCH -p short", "#SBATCH -t 00:10:00", "#SBATCH --qos=low", "#SBATCH --mem=4G"):
        assert line in script.splitlines()
    started = {path.stem for path in jobs.glob("*.sh")}
    cancelled = set((jobs / "cancelled").read_text().split())
    assert cancelled <= started
    assert len(cancelled) >= 1
    for pid in (int(path.read_text()) for path in jobs.glob("*.pid")):
        for _ in range(200):  # nothing is left running
            if not alive(pid):
                break
            time.sleep(0.05)
        assert not alive(pid)


def alive(group: int) -> bool:
    """Whether a process of the group runs; one that has ended and is not yet collected does not."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_what_slurm_refuses(jobs: Path, tmp_path: Path) -> None:
    command = ["sweep", str(tmp_path / "sweep.yaml"), "-o", str(tmp_path / "out"), "--dask-slurm", "1"]
    (jobs / "refuse").touch()
    for more, says in (
        ([], "SLURM takes no job: Command exited with non-zero exit code"),
        (["--slurm", "quee=short"], "Got unexpected keyword argument 'quee'"),
        (["--slurm", "cores=x"], "`cores` of SLURM: `x` is not a whole number"),
    ):
        done = CliRunner().invoke(main, [*command, *more])
        assert (done.exit_code, "error[E706]" in done.stderr, says in done.stderr) == (1, True, True), done.stderr
        assert "Traceback" not in done.output
    assert "invalid partition" in CliRunner().invoke(main, command).stderr


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EinsmithError, match="no `sbatch` here"):
        run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / "out", workers.Dask(None, 1))


def test_a_worker_with_another_einsmith_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    (tmp_path / "sweep.yaml").write_text(SWEEP)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")) as cluster:
        monkeypatch.setattr(shards, "code_version", lambda: "another")
        with pytest.raises(EinsmithError, match="another version of einsmith"):
            run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / "out", workers.Dask(cluster.scheduler_address))
