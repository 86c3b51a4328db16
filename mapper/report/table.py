"""Results as tables: read from a folder, written as CSV or Parquet.

In: the folder of a sweep, or its `results.parquet`. Out: an Arrow table; a file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...einsum.diagnostics import Diagnostic, EinsmithError
from ..sweep.store import RESULTS


def read(folder: Path) -> Any:
    """The results of a sweep. Raises EinsmithError (E705, E707)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / RESULTS if folder.is_dir() else folder
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise EinsmithError(
            Diagnostic(
                "E707", "no results of a complete sweep here", file=str(folder), help="run `einsmith sweep ... -o DIR` to its end"
            )
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise EinsmithError(
            Diagnostic(
                "E705", f"the results cannot be read: {str(error).splitlines()[0]}", file=str(path),
                help="run the sweep again: it rebuilds this file from its shards",
            )
        ) from None  # fmt: skip


def write_csv(folder: Path, path: Path) -> None:
    """The results as CSV; inputs are the columns whose name begins with `in`."""
    import pyarrow.csv as csv

    _write(path, lambda: csv.write_csv(read(folder), path))


def write_parquet(folder: Path, path: Path) -> None:
    """The results as Parquet, which is what the folder holds."""
    read(folder)
    _write(path, lambda: shutil.copyfile(folder / RESULTS, path))


def _write(path: Path, write: Callable[[], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise EinsmithError(Diagnostic("E003", f"cannot write: {error.strerror or error}", file=str(path))) from None
