"""A study run event by event: every model, length and configuration of a study file, simulated beside the cost model.

In: a study file (see `mapper.study`). Out: a `Simulations`: cycles of the model and of the simulation, what of the difference
is fill and drain, and how much is left once these are taken out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..mapper import mapping
from ..mapper.study import Accounting, File, cascade_at, known_to, machine_of, mapping_at
from .simulate import simulate


@dataclass(frozen=True)
class Row:
    """One model at one length on one configuration."""

    model: str
    seq_len: str
    config: str
    how: str
    """`whole`, `steady` or `pace`, as in `simulate.How`; of several groups the least exact."""
    model_cycles: float
    cycles: float
    fill_cycles: float
    drain_cycles: float

    @property
    def steady_cycles(self) -> float:
        return self.cycles - self.fill_cycles - self.drain_cycles

    @property
    def left(self) -> float:
        """Share of the model's cycles by which the simulation differs once fill and drain are taken out."""
        return self.steady_cycles / self.model_cycles - 1 if self.model_cycles else 0.0


@dataclass(frozen=True)
class Simulations:
    """What a study gives event by event."""

    study: str
    accounting: Accounting
    rows: tuple[Row, ...]

    @property
    def worst(self) -> float:
        """The greatest difference that is left, either way."""
        return max((abs(row.left) for row in self.rows), default=0.0)

    @property
    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*Row.__annotations__, "steady_cycles", "left"])
        writer.writerows([*vars(row).values(), row.steady_cycles, row.left] for row in self.rows)
        return text.getvalue()

    def as_json(self) -> dict[str, Any]:
        rows = [{**vars(row), "steady_cycles": row.steady_cycles, "left": row.left} for row in self.rows]
        return {"study": self.study, "accounting": self.accounting, "simulated": rows, "worst": self.worst}

    def __str__(self) -> str:
        heads = f"{'model':6} {'length':>6} {'config':9} {'cost model':>21} {'simulated':>21} {'fill':>9} {'drain':>9} {'left':>9}"
        lines = [
            f"{self.study}: {len(self.rows)} rows of attention simulated event by event; {self.accounting} accounting",
            f"    {heads}  how",
        ]
        for row in self.rows:
            lines.append(
                f"    {row.model:6} {row.seq_len:>6} {row.config:9} {row.model_cycles:21,.0f} {row.cycles:21,.0f}"
                f" {row.fill_cycles:9,.0f} {row.drain_cycles:9,.0f} {row.left:+9.4%}  {row.how}"
            )
        lines.append(f"without fill and drain at most {self.worst:.4%} from the cost model")
        return "\n".join(lines)


def simulations(file: File, accounting: Accounting = "paper", watch: Callable[[str], None] | None = None) -> Simulations:
    """Simulate all rows; `watch` is told of each. Raises EinsmithError where a configuration is illegal or does not fit."""
    rows = []
    for model_name in file.models:
        for length_name in file.lengths:
            for config in file.configs:
                if watch is not None:
                    watch(f"{model_name} {length_name} {config}")
                rows.append(_row(file, model_name, length_name, config, accounting))
    return Simulations(file.name, accounting, tuple(rows))


def _row(file: File, model_name: str, length_name: str, name: str, accounting: Accounting) -> Row:
    config = file.configs[name]
    machine, cascade = machine_of(file, config, accounting), cascade_at(config.spec)
    sizes, params = known_to(cascade, file.sizes_of(model_name, length_name), file.params)
    how = mapping.settled_for(mapping_at(config.mapping), cascade, sizes, params, machine)
    run = simulate(cascade, machine, how, sizes, params)
    least = max((group.how for group in run.groups), key=("whole", "steady", "pace").index, default="whole")
    fill, drain = sum(group.fill for group in run.groups), sum(group.drain for group in run.groups)
    return Row(model_name, length_name, name, least, run.cost.cycles, run.cycles, fill, drain)
