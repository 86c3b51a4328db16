"""Results as tables: read from a folder, written as CSV.

In: the folder of a sweep, or its `results.parquet`. Out: an Arrow table; a file. Parquet is what the sweep itself writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...einsum.diagnostics import Diagnostic, EinsmithError


def read(folder: Path) -> Any:
    """The results of a sweep. Raises EinsmithError (E705, E707)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "results.parquet" if folder.is_dir() else folder
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

    table = read(folder)
    try:
        csv.write_csv(table, path)
    except OSError as error:
        raise EinsmithError(Diagnostic("E003", f"cannot write: {error.strerror or error}", file=str(path))) from None
