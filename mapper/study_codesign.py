"""The best design beside a configuration of a study, within its area: for each model and length, and for all of them together.

In: a study file with `codesigns:`. Out: `Bout`s: the best design of each point and how much faster it is than the published mapping
on the published design; then the design with the least mean of latencies, each as a share of the published one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .codesign import CoDesigned, Workload, codesign
from .cost import model
from .designs import Design, designs, free
from .mapping import settled_for
from .study import Accounting, CoDesign, File, Sizes, cascade_at, known_to, machine_of, mapping_at, settings_of


@dataclass(frozen=True)
class Bout:
    """One co-design of a study, at one point or at all of them together."""

    name: str
    ask: CoDesign
    points: tuple[tuple[str, str], ...]
    """Model and length of each workload."""
    published: tuple[float, ...]
    """Seconds of each on the published design."""
    found: CoDesigned

    def speedup(self, number: int) -> float:
        """Of the steady state, over the published mapping on the published design."""
        return self.published[number] / self.found.best.found[number].cost.latency_s

    def as_json(self) -> dict[str, Any]:
        best = self.found.best
        return {
            "codesign": self.name, "objective": self.ask.objective, **best.as_json(), "designs": self.found.counts,
            "optimal": self.found.optimal, "gap": self.found.gap, "points": [
                {
                    "model": name, "length": length, "latency_s": each.cost.latency_s, "speedup": self.speedup(number),
                    "utilization": each.cost.utilization, "sizes": dict(each.mapping.sizes), "mapping": each.mapping.as_plain(),
                }
                for number, ((name, length), each) in enumerate(zip(self.points, best.found, strict=True))
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        found = self.found
        best, ask = found.best.design, self.ask
        chosen = ", ".join(f"{name} {value}" for name, value in best.chosen.items())
        counts = ", ".join(f"{count:,} {what}" for what, count in found.counts.items())
        within = f"to within {found.gap:.1%}" if found.optimal else "cut off"
        lines = [
            f"{self.name}: least {ask.objective} {within}: {chosen}",
            f"    {best.area_um2 / 1e6:,.1f} mm2 of {(found.budget_um2 or 0) / 1e6:,.1f}; {counts}",
        ]
        for number, ((name, length), each) in enumerate(zip(self.points, found.best.found, strict=True)):
            sizes = ", ".join(f"{symbol} = {size}" for symbol, size in each.mapping.sizes.items())
            util = ", ".join(f"{array} {share:.1%}" for array, share in each.cost.utilization.items())
            lines.append(f"    {name:6} {length:>5} {each.cost.latency_s:12.6g} s {self.speedup(number):9.5f}x  {util}  {sizes}")
        return "\n".join(lines)


def bouts(file: File, names: tuple[str, ...] = (), accounting: Accounting = "paper") -> Iterator[Bout]:
    """The co-designs of a study, all or some of them: each point alone, then all together."""
    for name, ask in file.codesigns.items():
        if names and name not in names:
            continue
        config = file.configs[ask.against]
        listed = designs(
            config.arch, (*settings_of(config, accounting), *ask.set), [free(each, values) for each, values in ask.free.items()]
        )
        points = [(model_name, length) for model_name in file.models if model_name in ask.models for length in file.lengths]
        published = [_published(file, ask, accounting, *point) for point in points]
        for point, there in zip(points, published, strict=True):
            yield _bout(file, name, ask, accounting, listed, [point], [there])
        if len(points) > 1:
            yield _bout(file, name, ask, accounting, listed, points, published)


def _sizes(file: File, ask: CoDesign, model_name: str, length: str) -> tuple[Sizes, dict[str, float]]:
    return known_to(cascade_at(file.configs[ask.against].spec), file.sizes_of(model_name, length), file.params)


def _published(file: File, ask: CoDesign, accounting: Accounting, model_name: str, length: str) -> float:
    config = file.configs[ask.against]
    arch, cascade = machine_of(file, config, accounting), cascade_at(config.spec)
    sizes, params = _sizes(file, ask, model_name, length)
    return model(cascade, arch, settled_for(mapping_at(config.mapping), cascade, sizes, params, arch), sizes, params).latency_s


def _bout(
    file: File, name: str, ask: CoDesign, accounting: Accounting, listed: list[Design], points: list[tuple[str, str]],
    published: list[float],
) -> Bout:  # fmt: skip
    config = file.configs[ask.against]
    workloads = []
    for point, there in zip(points, published, strict=True):
        sizes, params = _sizes(file, ask, *point)
        given = {symbol: size for symbol, size in sizes.items() if symbol not in ask.open}
        weight = 1.0 if len(points) == 1 else 1.0 / there / len(points)
        workloads.append(Workload(" ".join(point), cascade_at(config.spec), given, params, weight))
    budget = sum(machine_of(file, config, accounting).area_um2.values())
    found = codesign(workloads, listed, ask.objective, budget, ask.tiles, ask.gap)
    return Bout(name, ask, tuple(points), tuple(published), found)
