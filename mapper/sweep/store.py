"""The folder of a sweep: what was worked out, kept so that nothing is lost whenever a run ends.

    DIR/index.sqlite          which shards are done (SQLite, WAL): key, points, failed, bytes, digest
    DIR/shards/ab/KEY.parquet one file for each shard, written beside its place and moved there whole
    DIR/results.parquet       all points of the last complete sweep, in their order
    DIR/sweep.yaml            the sweep file of that run
    DIR/inputs.json           the texts of the specs, architectures, mappings and GPUs that it names

One process writes. A shard counts as done when its file is in place and its row is committed; a file whose digest is not that
of its row is
worked out again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...einsum.diagnostics import Diagnostic, EinsmithError

INDEX, RESULTS, SWEEP, INPUTS, LOCK = "index.sqlite", "results.parquet", "sweep.yaml", "inputs.json", "lock"
Inputs = dict[str, dict[str, tuple[str, str]]]
"""By kind of file and the name that points give it: the name of the file and its text."""


class Store:
    """A folder of results, open for writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = 0
        """Shards written by this process."""
        self._lock = -1
        with self._kept():
            folder.mkdir(parents=True, exist_ok=True)
            self._take()
            (folder / "shards").mkdir(exist_ok=True)
            self.index = sqlite3.connect(folder / INDEX)
            self.index.execute("pragma journal_mode=wal")
            self.index.execute(
                "create table if not exists shards(key text primary key, points int, failed int, bytes int, digest text)"
            )
            self.index.execute("create table if not exists about(name text primary key, value text)")
            self.index.commit()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.index.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _take(self) -> None:
        """One run at a time: the lock goes with the process, however it ends."""
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(self._lock, 200).decode(errors="replace").strip()
            os.close(self._lock)
            self._lock = -1
            raise EinsmithError(
                Diagnostic(
                    "E704", f"another sweep writes into this folder: {who or 'an unknown process'}", file=str(self.folder),
                    help="wait for it, or give another folder with `-o`",
                )
            ) from None  # fmt: skip
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Turns failures to write into E703, with what is safe."""
        try:
            yield
        except (OSError, sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            why = getattr(error, "strerror", None) or str(error)
            full = getattr(error, "errno", None) == errno.ENOSPC or "full" in why
            help_text = "make room and run the same command again: " if full else "mend that and run the same command again: "
            raise EinsmithError(
                Diagnostic(
                    "E703", f"cannot write results: {why}", file=str(self.folder),
                    help=f"{help_text}the {self.written:,} shards written by this run and all before it are kept",
                )
            ) from None  # fmt: skip

    # --- shards ---

    def path(self, key: str) -> Path:
        return self.folder / "shards" / key[:2] / f"{key}.parquet"

    def done(self, keys: set[str]) -> tuple[set[str], int, list[Diagnostic]]:
        """Which shards stand whole, how many points of them failed, and what was found damaged (it is forgotten)."""
        found: set[str] = set()
        failed = 0
        damaged: list[Diagnostic] = []
        with self._kept():
            rows = self.index.execute("select key, failed, bytes, digest from shards").fetchall()
            for key, wrong, size, digest in rows:
                if key not in keys:
                    continue
                try:
                    data = self.path(key).read_bytes()
                except OSError:
                    data = b""
                if len(data) == size and hashlib.sha256(data).hexdigest() == digest:
                    found.add(key)
                    failed += wrong
                    continue
                what = "is gone" if not data else f"is damaged ({len(data):,} bytes, written with {size:,})"
                damaged.append(
                    Diagnostic(
                        "E705", f"shard {key[:12]} {what}: it is worked out again", file=str(self.path(key)), severity="warning"
                    )
                )
                self.index.execute("delete from shards where key = ?", (key,))
            self.index.commit()
        return found, failed, damaged

    def put(self, key: str, data: bytes, about: dict[str, Any]) -> None:
        """Keep the result of a shard."""
        with self._kept():
            self._write(self.path(key), data)
            row = (key, about["points"], about["failed"], len(data), hashlib.sha256(data).hexdigest())
            self.index.execute("insert or replace into shards values (?, ?, ?, ?, ?)", row)
            self.index.commit()
        self.written += 1

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def read(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    # --- the whole ---

    def finished(self, run: str) -> bool:
        """Whether `results.parquet` holds this run (a digest of its shards)."""
        row = self.index.execute("select value from about where name = 'run'").fetchone()
        return row is not None and row[0] == run and all((self.folder / name).is_file() for name in (RESULTS, SWEEP, INPUTS))

    def finish(self, run: str, results: bytes, sweep: str, inputs: Inputs) -> None:
        with self._kept():
            self._write(self.folder / INPUTS, json.dumps(inputs).encode())
            self._write(self.folder / RESULTS, results)
            self._write(self.folder / SWEEP, sweep.encode())
            self.index.execute("insert or replace into about values ('run', ?)", (run,))
            self.index.commit()


def inputs_of(folder: Path) -> Inputs:
    """The texts that the results of a folder were worked out from. Raises EinsmithError (E705)."""
    try:
        found: Inputs = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EinsmithError(
            Diagnostic(
                "E705", f"the texts of what was evaluated cannot be read: {error}", file=str(folder / INPUTS),
                help="run the sweep again: it writes this file anew",
            )
        ) from None  # fmt: skip
    return found
