"""The folder of a sweep: what was worked out, kept so that nothing is lost whenever a run ends.

    DIR/index.sqlite          which shards are done (SQLite, WAL): key, points, failed, bytes, digest
    DIR/shards/ab/KEY.parquet one file for each shard, written beside its place and moved there whole
    DIR/results.parquet       all points of the last complete sweep, in their order
    DIR/sweep.yaml            the sweep file of that run
    DIR/inputs.json           the texts of the specs, architectures, mappings and GPUs that it names

One process writes. A shard counts as done when its file is in place; a file whose digest is not that of its row, or whose pages
do not have their checksums, is worked out again. The index can be made again from the shards, and the results from both.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
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
            self.notices: list[Diagnostic] = []
            """What was found damaged and is mended."""
            try:
                self.index = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # cannot be written, which is another matter
                    raise
                aside = folder / f"{INDEX}.damaged"
                for suffix in ("-wal", "-shm"):
                    (folder / f"{INDEX}{suffix}").unlink(missing_ok=True)
                os.replace(folder / INDEX, aside)
                self.notices.append(self.warning(f"the index is damaged ({error}): it is made again from the shards", aside))
                self.index = self._open()

    def _open(self) -> sqlite3.Connection:
        index = sqlite3.connect(self.folder / INDEX)
        try:
            index.execute("pragma journal_mode=wal")
            index.execute("create table if not exists shards(key text primary key, points int, failed int, bytes int, digest text)")
            index.execute("create table if not exists about(name text primary key, value text)")
            index.commit()
            broken = index.execute("pragma quick_check(1)").fetchone()[0]
            if broken != "ok":
                raise sqlite3.DatabaseError(broken)
        except BaseException:
            index.close()
            raise
        return index

    def warning(self, text: str, path: Path) -> Diagnostic:
        return Diagnostic("E705", text, file=str(path), severity="warning")

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
            mine = f"the {self.written:,} shards written by this run and all before it" if self.written else "all from before"
            raise EinsmithError(
                Diagnostic(
                    "E703", f"cannot write results: {why}", file=str(self.folder),
                    help=f"{help_text}{mine} are kept",
                )
            ) from None  # fmt: skip

    # --- shards ---

    def path(self, key: str) -> Path:
        return self.folder / "shards" / key[:2] / f"{key}.parquet"

    def done(self, keys: set[str]) -> tuple[set[str], int, list[Diagnostic]]:
        """Which shards stand whole, how many points of them failed, and what was found damaged (it is forgotten)."""
        found: set[str] = set()
        failed = 0
        damaged, self.notices = self.notices, []
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
                how = f"{len(data):,} bytes, written with {size:,}" if len(data) != size else "other bytes than were written"
                what = "is gone" if not data else f"is damaged ({how})"
                damaged.append(self.warning(f"shard {key[:12]} {what}: it is worked out again", self.path(key)))
                self.index.execute("delete from shards where key = ?", (key,))
            for key in keys - {row[0] for row in rows}:
                counts = self._adopted(key)
                if counts is not None:
                    found.add(key)
                    failed += counts
            self.index.commit()
        return found, failed, damaged

    def _adopted(self, key: str) -> int | None:
        """Failed points of a shard whose file is in place without a row, if it is whole: a run may have ended between the two."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            data = self.path(key).read_bytes()
            status = pq.read_table(io.BytesIO(data), page_checksum_verification=True)["status"].to_pylist()
        except (OSError, pa.ArrowException):
            return None
        wrong = sum(1 for one in status if one != "done")
        self._row(key, data, len(status), wrong)
        return wrong

    def _row(self, key: str, data: bytes, points: int, failed: int) -> None:
        row = (key, points, failed, len(data), hashlib.sha256(data).hexdigest())
        self.index.execute("insert or replace into shards values (?, ?, ?, ?, ?)", row)

    def put(self, key: str, data: bytes, about: dict[str, Any]) -> None:
        """Keep the result of a shard."""
        with self._kept():
            self._write(self.path(key), data)
            self._row(key, data, about["points"], about["failed"])
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

    def results(self, run: str) -> bytes | None:
        """`results.parquet`, if it holds this run (a digest of its shards) undamaged."""
        with self._kept():
            about = dict(self.index.execute("select name, value from about").fetchall())
        if about.get("run") != run or not all((self.folder / name).is_file() for name in (SWEEP, INPUTS)):
            return None
        try:
            data = (self.folder / RESULTS).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() == about.get("digest"):
            return data
        self.notices.append(self.warning(f"`{RESULTS}` is damaged: it is put together again", self.folder / RESULTS))
        return None

    def finish(self, run: str, results: bytes, sweep: str, inputs: Inputs) -> None:
        with self._kept():
            self._write(self.folder / INPUTS, json.dumps(inputs).encode())
            self._write(self.folder / RESULTS, results)
            self._write(self.folder / SWEEP, sweep.encode())
            digest = hashlib.sha256(results).hexdigest()
            self.index.executemany("insert or replace into about values (?, ?)", [("run", run), ("digest", digest)])
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
