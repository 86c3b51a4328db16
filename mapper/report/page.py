"""A report: one HTML file with its data, its script and plotly.js inside.

In: the results of one sweep, or of two that are compared. Out: the text of
the page. Figures are
rounded to six digits; failed points are counted by their diagnostic, not listed. Beyond `LISTED` points only those of the Pareto
front and an even sample of the others are shown, and the page says so.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...einsum.diagnostics import EinsmithError
from .. import architecture
from ..sweep.pareto import front
from .table import read

LISTED = 10_000
"""Points in a page."""
FOLDER = Path(__file__).parent
FIGURES = ("latency_s", "energy_pj", "edp", "area_um2", "traffic_bytes", "buffer_need", "shared_bytes", "registers")


@dataclass(frozen=True)
class Run:
    """The results of one sweep, as a page shows them."""

    name: str
    objectives: tuple[str, ...]
    columns: dict[str, list[Any]]
    front: list[int]
    """Rows of the Pareto front."""
    points: int
    failed: int
    reasons: list[tuple[str, str, int]]
    """Code, an example of the text, how many points."""
    sides: dict[str, int] = field(default_factory=dict)
    """How many sides each array has, as `ARRAY.side`: what a command must give."""


def load(folder: Path, listed: int = LISTED) -> Run:
    """The results in a folder. Raises EinsmithError (E705, E707)."""
    import yaml

    table = read(folder)
    text = (folder / "sweep.yaml").read_text(encoding="utf-8") if (folder / "sweep.yaml").is_file() else "{}"
    about = yaml.safe_load(text) or {}
    objectives = tuple(about.get("objectives") or ("latency_s", "energy_pj"))
    status = np.array(table["status"].to_pylist())
    good = np.flatnonzero(status == "done")
    values = np.stack([_signed(table, name) for name in objectives], axis=1)
    best = front(values)
    shown = good
    if len(good) > listed:
        others = np.setdiff1d(good, best)
        shown = np.union1d(best[:listed], others[np.linspace(0, len(others) - 1, max(0, listed - len(best))).astype(int)])
    columns = {}
    for name in table.column_names:
        if name in ("status", "code", "diagnostic"):
            continue
        items = table[name].take(shown).to_pylist()
        if any(item not in (None, "") and item == item for item in items):
            columns[name] = [_rounded(item) for item in items]
    place = {int(row): at for at, row in enumerate(shown)}
    return Run(
        str(about.get("name", folder.name)), objectives, columns, [place[int(row)] for row in best if int(row) in place],
        len(status),
        int((status != "done").sum()), _reasons(table), _sides(columns.get("in arch", [])),
    )  # fmt: skip


def _sides(architectures: list[Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in dict.fromkeys(architectures):
        try:
            arrays = architecture.load(name).arrays if name else {}
        except EinsmithError:  # the file is not where it was, seen from here
            continue
        found |= {f"{array}.side": len(about.side) for array, about in arrays.items()}
    return found


def _signed(table: Any, name: str) -> Any:
    values = table[name.lstrip("-")].to_numpy()
    return -values if name.startswith("-") else values


def _rounded(item: Any) -> Any:
    if isinstance(item, float):
        if not math.isfinite(item):
            return None
        return int(item) if item.is_integer() and abs(item) < 2**53 else float(f"{item:.6g}")
    return item


def _reasons(table: Any) -> list[tuple[str, str, int]]:
    counted: dict[str, list[Any]] = {}
    for code, text in zip(table["code"].to_pylist(), table["diagnostic"].to_pylist(), strict=True):
        if code:
            found = counted.setdefault(code, [text, 0])
            found[1] += 1
    return sorted(((code, text, number) for code, (text, number) in counted.items()), key=lambda item: -item[2])


def page(run: Run, other: Run | None = None) -> str:
    """The page."""
    data = {"run": _plain(run), "other": None if other is None else _plain(other)}
    blob = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    parts = {
        "@TITLE@": escape(run.name),
        "@STYLE@": (FOLDER / "page.css").read_text(encoding="utf-8"),
        "@DATA@": blob,
        "@SCRIPT@": (FOLDER / "page.js").read_text(encoding="utf-8"),
        "@PLOTLY@": (FOLDER / "plotly" / "plotly-basic.min.js").read_text(encoding="utf-8").replace("</script", "<\\/script"),
    }
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    for mark in ("@TITLE@", "@STYLE@", "@SCRIPT@", "@PLOTLY@", "@DATA@"):
        text = text.replace(mark, parts[mark])
    return text


def _plain(run: Run) -> dict[str, Any]:
    return {
        "name": run.name, "objectives": run.objectives, "columns": {name: _packed(values) for name, values in run.columns.items()},
        "front": run.front, "points": run.points, "failed": run.failed, "reasons": run.reasons,
        "sides": run.sides,
    }  # fmt: skip


def _packed(values: list[Any]) -> Any:
    """A column as its distinct values and which of them, where that is shorter."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) * 4 > len(values):
        return values
    place = {value: at for at, value in enumerate(distinct)}
    return {"values": distinct, "codes": [place[value] for value in values]}
