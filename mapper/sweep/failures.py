"""Why points failed: counted by the code and the text of their diagnostics, texts that differ in numbers alone counted as one.

In: a table of results. Out: `Reason`s, the most frequent first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NUMBER = r"[0-9]+([.,][0-9]+)*"


class Reason(NamedTuple):
    """A kind of failure."""

    code: str
    example: str
    """The text of the first point that failed so."""
    points: int


def reasons(table: Any) -> list[Reason]:
    """The kinds of failures in a table of results."""
    import pyarrow as pa
    import pyarrow.compute as pc

    failed = table.filter(pc.not_equal(table["code"], ""))
    kinds = pa.table(
        {
            "code": failed["code"],
            "text": failed["diagnostic"],
            "kind": pc.replace_substring_regex(failed["diagnostic"], NUMBER, "#"),
        }
    )
    counted = kinds.group_by(["code", "kind"], use_threads=False).aggregate([("text", "first"), ("text", "count")]).to_pylist()
    found = [Reason(row["code"], row["text_first"], row["text_count"]) for row in counted]
    return sorted(found, key=lambda reason: -reason.points)
