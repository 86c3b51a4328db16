"""What a search finds beside the mappings of a study, point by point.

In: a study file with `searches:`. Out: `Contest`s: for every model and length the mapping found, its latency and traffic against
those of the published mapping on the same hardware, and against the least time that its arrays and the memory need.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from .cost import Cost, model
from .fixed import Fixed, joined, kept
from .mapping import settled_for
from .search import Searched, search
from .study import Accounting, File, Search, cascade_at, known_to, machine_of, mapping_at


@dataclass(frozen=True)
class Trial:
    """One model at one length."""

    search: str
    model: str
    seq_len: str
    latency_s: float
    """Of the steady state, as published latencies are."""
    fill_share: float
    """What filling and draining add to it."""
    speedup: float
    """Of the steady state, over the published mapping."""
    of_bound: float
    """The least time that the work needs, of the latency with fill and drain."""
    utilization: float
    """Useful work on the arrays with two sides, as the published mapping has it, of what they could do in the latency with fill."""
    traffic_bytes: float
    traffic_ratio: float
    """To the traffic of the published mapping."""
    optimal: bool
    """Whether nothing in the stated space is better."""
    sizes: dict[str, int]
    """That the search chose."""


@dataclass(frozen=True)
class Contest:
    """One search of a study, at all its points."""

    name: str
    search: Search
    trials: tuple[Trial, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "search": self.name, **self.search.model_dump(), "points": [asdict(trial) for trial in self.trials],
            "mean_speedup": fmean(t.speedup for t in self.trials), "least_speedup": min(t.speedup for t in self.trials),
            "least_of_bound": min(t.of_bound for t in self.trials), "proven": sum(t.optimal for t in self.trials),
        }  # fmt: skip

    def __str__(self) -> str:
        ask = self.search
        free = f"; free: {', '.join(ask.open)}" if ask.open else ""
        free += "; first steps peeled" if ask.peel else ""
        like = f"; as published: {', '.join(ask.like)}" if ask.like else ""
        least = ask.objective.replace(",", ", then ") + (f" each to within {ask.slack:.1%}" if ask.slack else "")
        lines = [f"{self.name}: least {least}, tiles {ask.tiles}, against {ask.against}{like}{free}"]
        lines.append(
            f"    {'':6} {'':5} {'latency s':>12} {'fill':>7} {'faster':>9} {'of bound':>9} {'2-D':>7} {'traffic':>9}  proven"
        )
        for t in self.trials:
            chosen = ", ".join(f"{name} = {size}" for name, size in t.sizes.items())
            lines.append(
                f"    {t.model:6} {t.seq_len:>5} {t.latency_s:12.6g} {t.fill_share:7.3%} {t.speedup:8.5f}x {t.of_bound:9.3%} "
                f"{t.utilization:7.2%} {t.traffic_ratio:8.4g}x  {'yes' if t.optimal else 'no'}{f', {chosen}' if chosen else ''}"
            )
        found = self.as_json()
        lines.append(
            f"    {len(self.trials)} points: {found['mean_speedup']:.4f}x in the mean, {found['least_speedup']:.5f}x at least; "
            f"at least {found['least_of_bound']:.3%} of the bound; {found['proven']} proven"
        )
        return "\n".join(lines)


def contests(file: File, names: tuple[str, ...] = (), accounting: Accounting = "paper") -> Iterator[Contest]:
    """The searches of a study, all or some of them."""
    for name, ask in file.searches.items():
        if not names or name in names:
            trials = tuple(
                _trial(file, name, ask, accounting, model_name, length) for model_name in file.models for length in file.lengths
            )
            yield Contest(name, ask, trials)


def _trial(file: File, name: str, ask: Search, accounting: Accounting, model_name: str, length: str) -> Trial:
    config = file.configs[ask.against]
    arch, cascade = machine_of(file, config, accounting), cascade_at(config.spec)
    sizes, params = known_to(cascade, file.sizes_of(model_name, length), file.params)
    published = settled_for(mapping_at(config.mapping), cascade, sizes, params, arch)
    there = model(cascade, arch, published, sizes, params)
    fixed = joined(kept(published, ask.like), Fixed(peel=ask.peel))
    given = {symbol: size for symbol, size in sizes.items() if symbol not in ask.open}
    found = search(cascade, arch, given, params, ask.objective, ask.tiles, fixed=fixed, slack=ask.slack)
    return _against(name, model_name, length, found, there)


def _against(name: str, model_name: str, length: str, found: Searched, there: Cost) -> Trial:
    arch, cost = there.arch, found.cost
    whole = cost.cycles + cost.fill_cycles
    planes = {array: math.prod(arch.arrays[array].side) for array in arch.arrays if len(arch.arrays[array].side) == 2}
    useful = {array: there.utilization[array] * there.cycles for array in planes}
    own = {array: cost.utilization[array] * cost.cycles for array in arch.arrays if array not in planes}
    level = arch.backing[1]
    memory = level.seconds(_least_words(there, "inputs") * arch.word_bytes, _least_words(there, "outputs") * arch.word_bytes) or 0.0
    bound = max([*useful.values(), *own.values(), memory * arch.clock_hz])
    return Trial(
        name, model_name, length, cost.latency_s, cost.fill_cycles / cost.cycles, there.cycles / cost.cycles, bound / whole,
        max(useful.values(), default=0.0) / whole, cost.traffic_bytes, cost.traffic_bytes / there.traffic_bytes, found.optimal,
        dict(found.mapping.sizes),
    )  # fmt: skip


def _least_words(cost: Cost, what: str) -> int:
    """Words of all inputs, or of all outputs, once."""
    cascade, extents = cost.placed.cascade, cost.placed.sizes.extents
    names = cascade.outputs if what == "outputs" else [tensor.name for tensor in cascade.tensors if tensor.kind == "input"]
    return sum(math.prod(extents[rank] for rank in cascade.tensor(name).ranks) for name in names)


def table(found: tuple[Contest, ...]) -> str:
    """All points as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [asdict(trial) for contest in found for trial in contest.trials]
    for number, row in enumerate(rows):
        row["sizes"] = " ".join(f"{name}={size}" for name, size in row["sizes"].items())
        if not number:
            writer.writerow(row)
        writer.writerow(row.values())
    return text.getvalue()
