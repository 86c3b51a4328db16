"""SLURM: a Dask cluster whose workers are batch jobs.

In: how many jobs, and options of `dask_jobqueue.SLURMCluster` as texts. Out: the cluster, its first job submitted. A job that ends
(at its wall time, say) is submitted again for as long as the cluster is open; closing it cancels what is left.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from typing import Any

from ...einsum.diagnostics import Diagnostic, EinsmithError

WHOLE = ("cores", "processes", "job_cpu", "death_timeout")
LISTS = ("job_extra_directives", "job_directives_skip", "job_script_prologue", "worker_extra_args")
"""Options that take several values: each `--slurm` adds one."""
PATIENCE_S = 60.0
"""How long `sbatch` may take to answer."""
DEATHS = 20
"""Workers that may end while they are at a shard before it is given up: most reach their wall time."""


def cluster(jobs: int, options: list[tuple[str, str]]) -> Any:
    """A cluster of so many jobs. Raises EinsmithError (E706)."""
    try:
        import dask
        from dask_jobqueue import slurm
    except ImportError:
        raise EinsmithError(
            Diagnostic("E706", "dask-jobqueue is not installed", help="pip install 'einsmith[sweep,slurm]'")
        ) from None
    if shutil.which("sbatch") is None:
        where = "run this on a login node of the cluster, or start workers there and give `--dask ADDRESS`"
        raise EinsmithError(Diagnostic("E706", "there is no `sbatch` here", help=where))
    answered = threading.Event()
    refusals: list[str] = []

    base: Any = slurm.SLURMJob

    class Job(base):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                refusals.append(str(error))
                raise
            finally:
                answered.set()

    dask.config.set({"distributed.scheduler.allowed-failures": DEATHS})
    for name in ("distributed", "tornado.application", "asyncio"):  # a refused job is told once, by the diagnostic
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given = {"cores": 1, "processes": 1, "memory": "4GB", "scheduler_options": {"dashboard_address": None}, **_typed(options)}
    try:
        make: Any = slurm.SLURMCluster
        found = make(job_cls=Job, **given)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        why = str(error).split(". ")[0]
        raise EinsmithError(Diagnostic("E706", f"no SLURM cluster with these options: {why}")) from None
    found.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
    if not answered.wait(PATIENCE_S) or refusals:
        with contextlib.suppress(AssertionError):  # a job that never started does not like to be closed
            found.close()
        why = " ".join(refusals[0].split()) if refusals else f"`sbatch` gave no answer in {PATIENCE_S:.0f} s"
        raise EinsmithError(Diagnostic("E706", f"SLURM takes no job: {why}", help="options go into `--slurm KEY=VALUE`"))
    return found


def _typed(options: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in options:
        if name in LISTS:
            found.setdefault(name, []).append(text)
        elif name in WHOLE:
            if not text.isdigit() or int(text) < 1:
                raise EinsmithError(Diagnostic("E706", f"`{name}` of SLURM: `{text}` is not a whole number above 0"))
            found[name] = int(text)
        else:
            found[name] = text
    return found
