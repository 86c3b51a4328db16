"""Who evaluates shards: this process, local processes, or a Dask cluster.

In: payloads by key. Out: results as they come, in any order. A worker that is killed costs the shards it was at, which are
handed out
again; a shard during which workers die again and again is given up, and its points are recorded as failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...einsum.diagnostics import Diagnostic, EinsmithError

Result = tuple[str, bytes, dict[str, Any]]
Results = Generator[Result, None, None]
ATTEMPTS = 4
"""Times that a shard may take its worker with it."""
AHEAD = 3
"""Shards handed out for each worker."""


class OtherCode(RuntimeError):
    """A worker has another einsmith: its results would be others."""


def work(key: str, payload: dict[str, Any]) -> Result:
    """One shard. Runs wherever the worker is. Raises OtherCode."""
    from .evaluate import evaluate
    from .shards import key_of

    if key_of(payload) != key:
        raise OtherCode("it has another version of einsmith")
    data, about = evaluate(payload)
    return key, data, about


def given_up(key: str, payload: dict[str, Any]) -> Result:
    """The result of a shard that kills its workers."""
    import numpy as np

    from .evaluate import _Found, _parquet

    found = _Found(payload["count"])
    found.fail(np.arange(found.count), Diagnostic("E706", f"its worker died {ATTEMPTS} times"))
    return key, _parquet(found), {"points": found.count, "failed": found.count}


@dataclass
class Local:
    """Processes on this machine; with one worker, this process."""

    workers: int

    def run(self, payloads: dict[str, dict[str, Any]]) -> Results:
        if self.workers == 1 or len(payloads) == 1:
            for key, payload in payloads.items():
                yield work(key, payload)
            return
        yield from self._pool(dict(payloads))

    def _pool(self, left: dict[str, dict[str, Any]]) -> Results:
        import multiprocessing
        from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
        from concurrent.futures.process import BrokenProcessPool

        tried: dict[str, int] = {}
        alone = False  # after a death shards go one by one until it is known which one kills
        while left:
            workers = 1 if alone else min(self.workers, len(left))
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _follow, (os.getpid(),))
            waiting = sorted(left, key=lambda key: tried.get(key, 0))
            flying: dict[Future[Result], str] = {}
            try:
                while waiting or flying:
                    while waiting and len(flying) < workers * (1 if alone else AHEAD):
                        key = waiting.pop(0)
                        with _without_main():
                            flying[pool.submit(work, key, left[key])] = key
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del left[flying.pop(future)]
                        yield result
                    alone = alone and any(tried.get(key, 0) for key in left)
            except OtherCode:
                _end(pool)
                raise EinsmithError(
                    Diagnostic("E706", "the code of einsmith was changed while this ran", help="run the same command again")
                ) from None
            except BrokenProcessPool:
                for future, key in flying.items():
                    if future.done() and not future.cancelled() and future.exception() is None:
                        del left[key]
                        yield future.result()
                        continue
                    tried[key] = tried.get(key, 0) + 1
                for key in [key for key, times in tried.items() if times >= ATTEMPTS and key in left]:
                    yield given_up(key, left.pop(key))
                alone = max(tried.values()) >= 2
            except BaseException:  # nobody waits for the rest: interrupted, or what came cannot be kept
                _end(pool)
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that start meanwhile do not run the user's script again, guarded by `if __name__ == "__main__"` or not."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _end(pool: Any) -> None:
    """Workers end now, whatever they are at."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.kill()


def _follow(parent: int) -> None:
    """A worker ends when the process that started it does, and leaves Control-C to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass
class Dask:
    """A Dask cluster: a scheduler's address, or jobs of SLURM that this process asks for."""

    address: str | None = None
    slurm_jobs: int = 0
    slurm: list[tuple[str, str]] = field(default_factory=list)

    def run(self, payloads: dict[str, dict[str, Any]]) -> Results:
        with self._client() as client:
            from distributed import KilledWorker, as_completed

            # keys are those of the shards: a scheduler that knows one already does not start it again
            waiting = list(payloads)
            ahead = max(AHEAD * sum(client.nthreads().values()), 64)
            flying = {client.submit(work, key, payloads[key], key=f"einsmith-{key}", retries=0): key for key in waiting[:ahead]}
            del waiting[:ahead]
            done: Any = as_completed(list(flying))  # type: ignore[no-untyped-call]
            for future in done:
                key = flying.pop(future)
                try:
                    yield future.result()
                except KilledWorker:
                    yield given_up(key, payloads[key])
                except (OSError, RuntimeError, ImportError, AttributeError) as error:
                    why = f"a worker failed: {type(error).__name__}: {error}"
                    raise EinsmithError(Diagnostic("E706", why, help="workers need the same einsmith as this process")) from None
                future.release()
                if waiting:
                    more = waiting.pop(0)
                    another = client.submit(work, more, payloads[more], key=f"einsmith-{more}", retries=0)
                    flying[another] = more
                    done.add(another)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            from distributed import Client
        except ImportError:
            raise EinsmithError(Diagnostic("E706", "Dask is not installed", help="pip install 'einsmith[sweep]'")) from None
        with contextlib.ExitStack() as stack:
            if self.slurm_jobs:
                from .slurm import cluster

                target: Any = stack.enter_context(cluster(self.slurm_jobs, self.slurm))
            else:
                target = self.address
            try:
                client: Any = stack.enter_context(Client(target, timeout=20))  # type: ignore[no-untyped-call]
            except (OSError, ValueError, TimeoutError) as error:
                raise EinsmithError(
                    Diagnostic(
                        "E706", f"no Dask scheduler answers at `{self.address}`: {error}", help="for example tcp://head:8786"
                    )
                ) from None
            yield client
