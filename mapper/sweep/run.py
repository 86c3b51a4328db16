"""A sweep from its file to its results.

In: a sweep, a folder, who works. Out: a `Swept`. Shards that stand in the folder are not worked out again; what is new is kept
as it comes.
A space that is refined goes round by round: next are points around the Pareto front of all points so far, a quarter of each
dimension away, then an eighth, and so on, in the end its neighbours, until the budget is spent or the front has no neighbour left.
Rounds depend on results alone, so a resumed run takes the same ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...einsum.diagnostics import Diagnostic
from .evaluate import TEXTS
from .failures import Reason, reasons
from .file import Sweep
from .pareto import fronts
from .shards import FILES, Job, jobs
from .space import Codes, Table
from .store import RESULTS, Inputs, Store
from .workers import Dask, Local

FIRST, ROUND = 2, 0.3
"""Halvings of a dimension that give the first step of a refinement; share of what is left of its budget that a round may take."""
SHOWN = 8
"""Points of the front, workloads, or reasons of failures that the printed result names."""


def rate_of(rate: float) -> str:
    """A number a second, in words."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


@dataclass
class Progress:
    """How far a sweep is."""

    points: int
    done: int = 0
    reused: int = 0
    failed: int = 0
    best: dict[str, float] = field(default_factory=dict)
    """The best figure of each objective so far."""
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Points a second, reused ones left out."""
        return (self.done - self.reused) / max(time.monotonic() - self.started, 1e-9)

    @property
    def left_s(self) -> float:
        return (self.points - self.done) / self.rate if self.rate else float("inf")


@dataclass(frozen=True)
class Swept:
    """A sweep that is complete."""

    name: str
    folder: Path
    points: int
    reused: int
    failed: int
    seconds: float
    objectives: tuple[str, ...]
    front: tuple[dict[str, Any], ...]
    """Points of the Pareto front."""
    varied: tuple[str, ...] = ()
    """Names that points of one workload set to several values."""
    reasons: tuple[Reason, ...] = ()
    """Why points failed."""
    damaged: tuple[Diagnostic, ...] = ()
    """Shards that were found damaged and worked out again."""

    @property
    def results(self) -> Path:
        return self.folder / RESULTS

    def table(self) -> Any:
        """All points as an Arrow table (`.to_pandas()` makes a data frame): `in NAME` is what a point sets."""
        from ..report.table import read

        return read(self.folder)

    def to_csv(self, path: str | Path) -> None:
        """Write all points as CSV."""
        from ..report.table import write_csv

        write_csv(self.folder, Path(path))

    def to_parquet(self, path: str | Path) -> None:
        """Write all points as Parquet, as they are in the folder."""
        from ..report.table import write_parquet

        write_parquet(self.folder, Path(path))

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "points": self.points, "done": self.points - self.failed, "reused": self.reused, "failed":
            self.failed,
            "seconds": self.seconds, "results": str(self.results), "objectives": list(self.objectives), "front": list(self.front),
            "reasons": [reason._asdict() for reason in self.reasons],
            "damaged": [diagnostic.as_json() for diagnostic in self.damaged],
        }  # fmt: skip

    def __str__(self) -> str:
        fresh = self.points - self.reused
        lines = [str(diagnostic) for diagnostic in self.damaged]
        lines.append(
            f"{self.name}: {self.points:,} points, {self.reused:,} of them found done, {self.failed:,} failed, "
            f"in {self.seconds:.1f} s"
            + (f" ({rate_of(fresh / self.seconds)} points a second)" if fresh and self.seconds > 0 else "")
        )
        lines += [f"  {reason.points:,} failed with {reason.code}: {reason.example}" for reason in self.reasons[:SHOWN]]
        if len(self.reasons) > SHOWN:
            lines.append(f"  and {len(self.reasons) - SHOWN} other reasons")
        lines.append(f"results in {self.results}")
        kinds = self.workloads
        several = len(kinds) > 1
        each = f", one for each {' and '.join(next(iter(kinds.values()))[0]['workload'])}: {len(kinds)} of them" if several else ""
        lines.append(f"Pareto front ({', '.join(self.objectives)}){each}: {len(self.front)} points")
        names = self._telling()
        for name, points in list(kinds.items())[:SHOWN]:
            if several:
                lines.append(f"  {name}: {len(points)} points, least {self.objectives[0]}:")
            for point in points[: 1 if several else SHOWN]:
                figures = ", ".join(f"{name} {point[name.lstrip('-')]:.4g}" for name in self.objectives)
                lines.append(f"  {point['point']:>9,}  {figures}  {_inputs(point, names)}")
        more = len(kinds if several else self.front) - SHOWN
        if more > 0:
            lines.append(f"  and {more} more")
        return "\n".join(lines)

    @property
    def workloads(self) -> dict[str, list[dict[str, Any]]]:
        """The points of the front of each workload."""
        found: dict[str, list[dict[str, Any]]] = {}
        for point in self.front:
            found.setdefault(" ".join(f"{name}={value}" for name, value in point["workload"].items()), []).append(point)
        return found

    def _telling(self) -> dict[str, str]:
        """Names that tell points apart, with how they are printed: those set alike on the whole front are one."""
        found: dict[str, str] = {}
        for name in self.varied or tuple(name for point in self.front[:1] for name in point["sets"]):
            if any(name in point["sets"] for point in self.front):
                key = repr([point["sets"].get(name) for point in self.front])
                found[key] = f"{found[key]},{name}" if key in found else name
        return {names.split(",")[0]: names for names in found.values()}

    def _repr_html_(self) -> str:
        head = ["workload"] * any(self.workloads) + [*self.objectives, "what it is"]
        names = self._telling()
        rows = [
            "<tr>"
            + f"<td>{escape(name)}</td>" * bool(name)
            + "".join(f"<td>{point[name.lstrip('-')]:.4g}</td>" for name in self.objectives)
            + f"<td>{escape(_inputs(point, names))}</td></tr>"
            for name, points in self.workloads.items()
            for point in points
        ]
        return (
            f"<p><b>{escape(self.name)}</b>: {self.points:,} points, {self.failed:,} failed; Pareto front of {len(self.front)}</p>"
            f"<table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>"
            f"<tbody>{''.join(rows[:20])}</tbody></table>"
        )


def _inputs(point: dict[str, Any], names: dict[str, str]) -> str:
    """What a point sets, in words."""
    return " ".join(f"{text}={point['sets'][name]}" for name, text in names.items() if name in point["sets"])


def sweep(
    plan: Sweep,
    folder: Path,
    worker: Local | Dask,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Swept:
    """Evaluate all points of a sweep that the folder does not have. Raises EinsmithError (E503, E70x)."""
    started = time.monotonic()
    wanted = plan.first()
    first = jobs(plan, wanted)
    with Store(folder) as store:
        runner = _Runner(plan, store, worker, report)
        runner.add(first)
        if plan.file.sampling.kind == "pareto":
            runner.refine(wanted)
        return runner.finish(started)


class _Runner:
    def __init__(self, plan: Sweep, store: Store, worker: Local | Dask, report: Callable[[Progress], None]) -> None:
        self.plan, self.store, self.worker, self.report = plan, store, worker, report
        self.jobs: list[Job] = []
        self.progress = Progress(0)
        self.damaged: list[Diagnostic] = []

    def add(self, more: list[Job]) -> None:
        """Evaluate what is not done."""
        self.jobs += more
        progress = self.progress
        points = {job.key: len(job.points) for job in more}
        progress.points += sum(points.values())
        done, failed, damaged = self.store.done(set(points))
        self.damaged += damaged
        progress.reused += sum(points[key] for key in done)
        progress.done += sum(points[key] for key in done)
        progress.failed += failed
        self.report(progress)
        with contextlib.closing(self.worker.run({job.key: job.payload for job in more if job.key not in done})) as results:
            for key, data, about in results:
                self.store.put(key, data, about)
                progress.done += about["points"]
                progress.failed += about["failed"]
                self._best(data)
                self.report(progress)

    def _best(self, data: bytes) -> None:
        import pyarrow.parquet as pq

        names = [name for name in self.plan.file.objectives if name.lstrip("-") in pq.read_schema(io.BytesIO(data)).names]
        found = pq.read_table(io.BytesIO(data), columns=[name.lstrip("-") for name in names])
        for name in names:
            values = found[name.lstrip("-")].to_numpy()
            if not np.isnan(values).all():
                value = float(np.nanmax(values) if name.startswith("-") else np.nanmin(values))
                better = max if name.startswith("-") else min
                self.progress.best[name] = better(value, self.progress.best.get(name, value))

    def refine(self, seen: Codes) -> None:
        budget, halvings = self.plan.file.sampling.points or 0, FIRST
        while len(seen) < budget:
            table, points = self._read()
            best = points[fronts(self._objectives(table), self.plan.workloads(points))]
            while not len(more := self._near(best, seen, halvings)):
                if self.plan.space.finest(halvings):
                    return
                halvings += 1
            finest = self.plan.space.finest(halvings)
            most = budget - len(seen) if finest else math.ceil(ROUND * (budget - len(seen)))
            more = more[np.linspace(0, len(more) - 1, min(most, len(more))).astype(int)]
            seen = np.union1d(seen, more)
            self.add(jobs(self.plan, more))
            halvings += not finest

    def _near(self, best: Codes, seen: Codes, halvings: int) -> Codes:
        """Points near those of the front that were not evaluated."""
        near = self.plan.space.neighbours(best, halvings)
        return self.plan.kept(near[~np.isin(near, seen)])

    def _varied(self, points: Codes) -> tuple[str, ...]:
        table, of = self.plan.space.table(points), self.plan.workloads(points)
        workloads = len(np.unique(of))
        pairs = {name: of * (len(column.values) + 1) + column.codes + 1 for name, column in table.columns.items()}
        return tuple(name for name, pair in pairs.items() if len(np.unique(pair)) > workloads)

    def _workload(self, table: Table, row: int) -> dict[str, Any]:
        return {name: table.columns[name].get(row) for name in self.plan.file.workload}

    def _objectives(self, table: Any) -> Any:
        columns = []
        for name in self.plan.file.objectives:
            bare = name.lstrip("-")
            if bare not in table.column_names:
                known = ", ".join(f"`{n}`" for n in table.column_names if n not in TEXTS)
                raise self.plan.at_value(name, f"no result is named `{bare}`", f"there are {known}")
            values = table[bare].to_numpy()
            columns.append(-values if name.startswith("-") else values)
        return np.stack(columns, axis=1)

    def _read(self) -> tuple[Any, Codes]:
        """The results of all jobs, by point."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [pq.read_table(io.BytesIO(self.store.read(job.key))) for job in self.jobs]
        tables = [
            pa.table({name: table[name].cast(pa.string()) if name in TEXTS else table[name] for name in table.column_names})
            for table in tables
        ]
        points = np.concatenate([job.points for job in self.jobs])
        order = np.argsort(points)
        whole = pa.concat_tables(tables, promote_options="default").take(pa.array(order))
        filled = {
            name: whole[name] if name in TEXTS else pa.array(whole[name].to_numpy(zero_copy_only=False).astype(np.float64))
            for name in whole.column_names
        }
        return pa.table(filled), points[order]

    def _inputs(self) -> Inputs:
        found: Inputs = {kind: {} for kind in FILES.values()}
        for job in self.jobs:
            for what, name in job.names.items():
                found[FILES[what]][name] = job.payload[what]
        return found

    def finish(self, started: float) -> Swept:
        import pyarrow as pa
        import pyarrow.parquet as pq

        run = hashlib.sha256("".join(sorted(job.key for job in self.jobs)).encode() + repr(self.plan.file).encode()).hexdigest()
        data = self.store.results(run)
        if data is not None:
            whole = pq.read_table(io.BytesIO(data))
        else:
            found, points = self._read()
            whole = pa.table(
                {
                    "point": points,
                    **_columns(self.plan.space.table(points)),
                    **dict(zip(found.column_names, found.columns, strict=True)),
                }
            )
            sink = io.BytesIO()
            pq.write_table(whole, sink, compression="zstd")
            self.store.finish(run, sink.getvalue(), self.plan.document.source.text, self._inputs())
        points = whole["point"].to_numpy()
        rows = fronts(self._objectives(whole), self.plan.workloads(points))
        table = self.plan.space.table(points[rows])
        best = tuple(
            {
                "point": int(points[row]), "workload": self._workload(table, at), "sets": table.point(at),
                **{n.lstrip("-"): float(whole[n.lstrip("-")][int(row)].as_py()) for n in self.plan.file.objectives},
            }
            for at, row in enumerate(rows)
        )  # fmt: skip
        return Swept(
            self.plan.name, self.store.folder, len(points), self.progress.reused, self.progress.failed, time.monotonic() - started,
            self.plan.file.objectives, best, self._varied(points), tuple(reasons(whole)), (*self.damaged, *self.store.notices),
        )  # fmt: skip


def _columns(table: Table) -> dict[str, Any]:
    """What points set, as columns: numbers where all values are, else texts."""
    import pyarrow as pa

    found: dict[str, Any] = {}
    for name, column in table.columns.items():
        plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in column.values)
        missing = column.codes < 0
        if plain:
            values = np.array([*column.values, 0], dtype=np.float64)
            found[f"in {name}"] = pa.array(values[column.codes], mask=missing)
        else:
            texts = pa.array([str(value) for value in column.values] or [""])
            found[f"in {name}"] = pa.DictionaryArray.from_arrays(pa.array(column.codes, pa.int32(), mask=missing), texts).cast(
                pa.string()
            )
    return found
