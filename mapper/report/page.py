"""A report: one HTML file with its data, its script, its pictures and plotly.js inside.

In: the results of a sweep; what a comparison with another found; pictures of some points. Out: the text of the page. Figures are
rounded to six digits; failed points are counted by their diagnostic, not listed. Beyond `LISTED` points only those of the Pareto
front and an even sample of the others are shown, and the page says so. Pictures are kept compressed and shown when they are asked
for; they come from whoever makes the page, for what draws a simulation or a kernel stands above this.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...einsum.diagnostics import EinsmithError
from .. import architecture
from ..sweep.failures import Reason, reasons
from ..sweep.pareto import fronts
from ..sweep.point import Points, rows_of
from ..sweep.store import SWEEP, inputs_of
from .compare import Comparison
from .table import read

LISTED = 10_000
"""Points in a page."""
FOLDER = Path(__file__).parent
Pictures = dict[int, dict[str, str]]
"""By point: `mapping`, `timeline`, `plan` as SVG; `mapping.yaml`, `kernel.py` as text."""


@dataclass(frozen=True)
class Run:
    """The results of one sweep, as a page shows them."""

    name: str
    folder: Path
    objectives: tuple[str, ...]
    columns: dict[str, list[Any]]
    front: list[int]
    """Rows of the Pareto front of each workload, workload by workload."""
    workload: list[str]
    """Names of columns: points compete only where these are equal."""
    points: int
    failed: int
    reasons: list[Reason]
    """Why points failed."""
    sides: dict[str, int] = field(default_factory=dict)
    """How many sides each array has, as `ARRAY.side`: what a command must give."""


def load(folder: Path, listed: int = LISTED) -> Run:
    """The results in a folder. Raises EinsmithError (E705, E707)."""
    table = read(folder)
    about = _about(folder)
    objectives = tuple(about.get("objectives") or ("latency_s", "energy_pj"))
    workload = [f"in {name}" for name in about.get("workload") or ()]
    status = np.array(table["status"].to_pylist())
    good = np.flatnonzero(status == "done")
    values = np.stack([_signed(table, name) for name in objectives], axis=1)
    best = fronts(values, _of(table, workload))
    shown = good
    if len(good) > listed:
        best = best[np.linspace(0, len(best) - 1, min(listed, len(best))).astype(int)]
        others = np.setdiff1d(good, best)
        shown = np.union1d(best, others[np.linspace(0, len(others) - 1, max(0, listed - len(best))).astype(int)])
    columns = {}
    for name in table.column_names:
        if name in ("status", "code", "diagnostic", "mapping_found", "plan"):
            continue
        items = table[name].take(shown).to_pylist()
        if name == "point" or any(item not in (None, "") and item == item for item in items):
            columns[name] = [_rounded(item) for item in items]
    place = {int(row): at for at, row in enumerate(shown)}
    return Run(
        str(about.get("name", folder.name)), folder, objectives, columns, [place[int(row)] for row in best], workload, len(status),
        int((status != "done").sum()), reasons(table), _sides(folder),
    )  # fmt: skip


def _about(folder: Path) -> dict[str, Any]:
    """The sweep file of the run."""
    import yaml

    try:
        found = yaml.safe_load((folder / SWEEP).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _of(table: Any, workload: list[str]) -> Any:
    """The number of the workload of each row."""
    of = np.zeros(table.num_rows, dtype=np.int64)
    for name in workload:
        codes = np.unique([str(value) for value in table[name].to_pylist()], return_inverse=True)[1].reshape(-1)
        of = np.unique(of * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1].reshape(-1)
    return of


def _sides(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        for name, text in inputs_of(folder)["archs"].values():
            arrays = architecture.loads(text, name).arrays
            found |= {f"{array}.side": len(about.side) for array, about in arrays.items()}
    except EinsmithError:  # figures can be shown without
        return found
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


def chosen(run: Run, count: int) -> list[int]:
    """Points that get pictures: those of the front, first the first one of each workload, then the second ones, and so on; then
    others."""
    turns: dict[tuple[Any, ...], int] = {}
    order = []
    for row in run.front:
        key = tuple(run.columns[name][row] for name in run.workload if name in run.columns)
        turns[key] = turns.get(key, -1) + 1
        order.append((turns[key], row))
    rows = [row for _, row in sorted(order)]
    rows += sorted(set(range(min(len(run.columns["point"]), count + len(rows)))) - set(rows))
    return [run.columns["point"][row] for row in rows[:count]]


def files(run: Run) -> tuple[list[str], list[int]]:
    """The distinct texts of the mappings and plans of all listed points, and which of them each point has; -1: none."""
    points, texts, of = Points(run.folder), dict[str, int](), []
    for row in rows_of(read(run.folder), run.columns["point"], run.folder):
        plan = row.get("plan")
        text = json.dumps(json.loads(plan), indent=1) if plan else points.mapping_text(row)
        of.append(texts.setdefault(text, len(texts)))
    return list(texts), of


def page(run: Run, comparison: Comparison | None = None, pictures: Pictures | None = None) -> str:
    """The page."""
    data = {
        "run": _plain(run), "comparison": None if comparison is None else comparison.as_plain(),
        "pictures": {str(point): _compressed(found) for point, found in (pictures or {}).items()},
        "files": _files(run),
    }  # fmt: skip
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


def _files(run: Run) -> dict[str, Any]:
    try:
        texts, of = files(run)
    except EinsmithError:  # figures can be shown without
        texts, of = [], [-1] * len(run.columns["point"])
    return {"gzip": _gzip(texts), "of": of}


def _compressed(pictures: dict[str, str]) -> dict[str, Any]:
    """The names of pictures, and all of them: timelines repeat themselves."""
    return {"names": list(pictures), "gzip": _gzip(pictures)}


def _gzip(plain: Any) -> str:
    """Plain data as gzip in base64."""
    return base64.b64encode(gzip.compress(json.dumps(plain).encode(), 9, mtime=0)).decode()


def _plain(run: Run) -> dict[str, Any]:
    return {
        "name": run.name, "folder": str(run.folder), "objectives": run.objectives, "workload": run.workload,
        "columns": {name: _packed(values) for name, values in run.columns.items()},
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
