"""Studies: a published evaluation from files alone, with what was published beside it.

In: a study file (see `examples/studies/`): models, lengths, configurations (a spec, an architecture with settings, a mapping),
the products around the attention, array sides for a Pareto study. Out: a `Study`: tables of latency, energy, traffic and
utilization, means of ratios, areas. Every row is an ordinary cost model of an ordinary mapping.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from ..einsum import spec
from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.library import EXAMPLES, locate
from . import architecture, mapping
from .architecture import Architecture
from .choices import whole
from .cost import Cost, model
from .document import Block, Document, read, validate
from .fixed import Part
from .objective import named
from .space import Tiles

Accounting: TypeAlias = Literal["paper", "corrected"]
Sizes: TypeAlias = dict[str, int]
Positive = Annotated[int, Field(ge=1)]


def _objective(text: str) -> str:
    named(text)
    return text


class Config(Block):
    """One configuration."""

    spec: str
    arch: str
    mapping: str
    set: tuple[str, ...] = ()
    """Settings put over the architecture."""
    paper: tuple[str, ...] = ()
    """More of them in the published accounting."""


class Search(Block):
    """Mappings that are searched, to stand beside those of a configuration."""

    against: str
    """A configuration: its spec, architecture and settings are taken over."""
    objective: Annotated[str, AfterValidator(_objective)] = "latency"
    """Measures in order, or a product."""
    slack: Annotated[float, Field(ge=0)] = 0.0
    """Share by which a measure may miss its least for the sake of the next."""
    tiles: Tiles = "doubled"
    like: tuple[Part, ...] = ()
    """Parts of its mapping that are kept; all else is searched."""
    open: tuple[str, ...] = ()
    """Sizes of the study that are searched too."""
    peel: bool = False
    """Whether first steps of running states are peeled."""


class CoDesign(Block):
    """Architectures that are searched with their mappings, beside a configuration."""

    against: str
    """A configuration: its spec, architecture and settings are taken over, and its area is the most that there may be."""
    free: dict[str, Any]
    """What is free, as `einsmith map --free` takes it."""
    set: tuple[str, ...] = ()
    """Settings that depend on it."""
    objective: Literal["latency", "energy", "edp", "area-delay", "traffic"] = "latency"
    tiles: Tiles = "doubled"
    gap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share by which the best may be missed."""
    open: tuple[str, ...] = ()
    """Sizes of the study that are searched too."""
    models: tuple[str, ...]


class Layers(Block):
    """Products that come with the attention."""

    spec: str
    mapping: str
    products: dict[str, dict[str, str]]
    """Sizes of each, as expressions of the model's and `L`, the length."""


class Pareto(Block):
    """A study of array sides."""

    config: str
    length: str
    side: str
    """The symbol that goes with the side."""
    sides: dict[Positive, tuple[str, ...]]
    """Settings for each side."""
    set: tuple[str, ...] = ()
    """Settings for all, with `{side}` for the side."""
    models: tuple[str, ...]


class Compare(Block):
    """Which configurations are compared."""

    best: str
    base: str
    other: str


class Published(Block):
    """What was published."""

    headline: dict[str, float] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class File(Block):
    """A study file."""

    name: str
    doc: str = ""
    source: str
    models: Annotated[dict[str, dict[str, Positive]], Field(min_length=1)]
    lengths: Annotated[dict[str, Positive], Field(min_length=1)]
    length_of: tuple[str, ...]
    params: dict[str, float] = Field(default_factory=dict)
    sizes: dict[str, Positive] = Field(default_factory=dict)
    configs: dict[str, Config]
    layers: Layers | None = None
    pareto: Pareto | None = None
    compare: Compare
    searches: dict[str, Search] = Field(default_factory=dict)
    codesigns: dict[str, CoDesign] = Field(default_factory=dict)
    published: Published = Published()

    @model_validator(mode="after")
    def _names(self) -> File:
        compare, pareto = self.compare, self.pareto
        named: list[tuple[str, str, Collection[str]]] = [
            (name, "configs", self.configs) for name in (compare.best, compare.base, compare.other)
        ]
        if pareto is not None:
            named += [(pareto.config, "configs", self.configs), (pareto.length, "lengths", self.lengths)]
            named += [(name, "models", self.models) for name in pareto.models]
        named += [(search.against, "configs", self.configs) for search in self.searches.values()]
        named += [(name, "sizes", self.sizes) for search in self.searches.values() for name in search.open]
        for codesign in self.codesigns.values():
            named += [(codesign.against, "configs", self.configs)]
            named += [(name, "sizes", self.sizes) for name in codesign.open]
        for name, block, known in named:
            if name not in known:
                raise ValueError(f"`{name}` is not among the `{block}` ({', '.join(known)})")
        return self

    def only(self, models: Collection[str], lengths: Collection[str]) -> File:
        """The study of some models and lengths; of all where none are named. Raises EinsmithError (E502)."""
        for what, names, known in (("model", models, self.models), ("length", lengths, self.lengths)):
            for name in names:
                if name not in known:
                    raise EinsmithError(
                        Diagnostic("E502", f"study `{self.name}` has no {what} `{name}`", help=f"it has {', '.join(known)}")
                    )
        return self.model_copy(
            update={
                "models": {name: sizes for name, sizes in self.models.items() if not models or name in models},
                "lengths": {name: length for name, length in self.lengths.items() if not lengths or name in lengths},
            }
        )

    def sizes_of(self, model_name: str, length_name: str) -> Sizes:
        """All sizes of one model at one length."""
        return {**self.sizes, **self.models[model_name], **dict.fromkeys(self.length_of, self.lengths[length_name])}


@dataclass(frozen=True)
class Row:
    """One model at one length on one configuration."""

    model: str
    seq_len: str
    config: str
    latency_s: float
    energy_pj: float
    traffic_bytes: float
    util_2d: float
    """Useful work of the arrays with two sides, of what they could do in the time."""
    util_1d: float


@dataclass(frozen=True)
class Point:
    """One side of the Pareto study."""

    model: str
    side: int
    latency_s: float
    area_cm2: float


@dataclass(frozen=True)
class Study:
    """What a study gives."""

    file: File
    accounting: Accounting
    attention: tuple[Row, ...]
    end_to_end: tuple[Row, ...]
    pareto: tuple[Point, ...]
    areas_mm2: dict[str, float]
    """Of each configuration as its file says."""
    areas_alike_mm2: dict[str, float]
    """The same if all had the deepest register files of any of them."""

    @property
    def headline(self) -> dict[str, tuple[float, float | None]]:
        """Name of a figure, what this study gives, and what was published."""
        best, base, other = self.file.compare.best, self.file.compare.base, self.file.compare.other
        found: dict[str, float] = {}
        for against in (base, other):
            for what, rows in (("attention", self.attention), ("end-to-end", self.end_to_end)):
                if rows:
                    found[f"{what} speedup over {against}"] = _mean(rows, against, best, lambda row: row.latency_s)
                    found[f"{what} energy over {against}"] = _mean(rows, best, against, lambda row: row.energy_pj)
        for name in self.file.configs:
            if name not in (best, base):
                found[f"attention speedup of {name} over {base}"] = _mean(self.attention, base, name, lambda row: row.latency_s)
        for name in self.file.configs:
            mine = [row for row in self.attention if row.config == name]
            found[f"2-D utilization of {name}"] = fmean(row.util_2d for row in mine)
            found[f"1-D utilization of {name}"] = fmean(row.util_1d for row in mine)
        published = self.file.published.headline
        return {name: (value, published.get(name)) for name, value in found.items()}

    @property
    def tables(self) -> dict[str, str]:
        """CSV texts by file name."""
        return {
            "attention.csv": _csv(self.attention), "end_to_end.csv": _csv(self.end_to_end), "pareto.csv": _csv(self.pareto)
        }  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        return {
            "study": self.file.name,
            "accounting": self.accounting,
            "headline": {name: {"value": value, "published": there} for name, (value, there) in self.headline.items()},
            "areas_mm2": self.areas_mm2,
            "areas_alike_mm2": self.areas_alike_mm2,
            "notes": list(self.file.published.notes),
        }

    def __str__(self) -> str:
        return report(self)


def _mean(rows: Iterable[Row], above: str, below: str, of: Callable[[Row], float]) -> float:
    """The arithmetic mean of the ratios of two configurations over all models and lengths."""
    by = {(row.model, row.seq_len, row.config): of(row) for row in rows}
    places = dict.fromkeys((model, length) for model, length, _ in by)
    return fmean(by[model, length, above] / by[model, length, below] for model, length in places)


def _csv(rows: Iterable[Row] | Iterable[Point]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(rows):
        if not number:
            writer.writerow(vars(row))
        writer.writerow(vars(row).values())
    return text.getvalue()


def load(path: str | Path) -> File:
    """Read a study file. Raises EinsmithError (E501, E502)."""
    return validate(File, read(locate("studies", path)))


def study(file: File, accounting: Accounting = "paper") -> Study:
    """Work out a study. Raises EinsmithError where a configuration is illegal or does not fit."""
    _check_symbols(file)
    attention: list[Row] = []
    layers: list[Row] = []
    products: dict[tuple[str, ...], list[Cost]] = {}  # of one model and length: configurations on the same hardware share them
    for name, config in file.configs.items():
        machine = machine_of(file, config, accounting)
        for model_name, model_sizes in file.models.items():
            for length_name, length in file.lengths.items():
                sizes = file.sizes_of(model_name, length_name)
                one = cost_of(config.spec, config.mapping, machine, sizes, file.params)
                attention.append(_row(model_name, length_name, name, machine, [one]))
                if file.layers is not None:
                    key = (config.arch, *settings_of(config, accounting), model_name, length_name)
                    if key not in products:
                        products[key] = _products(file.layers, machine, {**model_sizes, "L": length})
                    layers.append(_row(model_name, length_name, name, machine, [one, *products[key]]))
    areas = {name: sum(machine_of(file, config, accounting).area_um2.values()) / 1e6 for name, config in file.configs.items()}
    return Study(file, accounting, tuple(attention), tuple(layers), _pareto(file, accounting), areas, _alike(file, accounting))


def _check_symbols(file: File) -> None:
    """Refuses names of sizes and parameters that none of the cascades has: they would be passed over."""
    cascades = [cascade_at(config.spec) for config in file.configs.values()]
    symbols = {name for cascade in cascades for name in cascade.symbols}
    params = {name for cascade in cascades for name, _ in cascade.params}
    sizes = [*file.length_of, *file.sizes, *([file.pareto.side] if file.pareto else ())]
    for what, names, known in (("size", sizes, symbols), ("parameter", list(file.params), params)):
        for name in names:
            if name not in known:
                listing = ", ".join(f"`{one}`" for one in sorted(known))
                message = f"study `{file.name}` gives the {what} `{name}`, which none of its cascades has"
                raise EinsmithError(Diagnostic("E502", message, help=f"they have {listing}"))


def machine_of(file: File, config: Config, accounting: Accounting, more: tuple[str, ...] = ()) -> Architecture:
    return architecture.load(config.arch, (*settings_of(config, accounting), *more))


def settings_of(config: Config, accounting: Accounting) -> tuple[str, ...]:
    return (*config.set, *(config.paper if accounting == "paper" else ()))


@lru_cache(maxsize=64)
def cascade_at(path: str) -> Cascade:
    return spec.load(EXAMPLES / path)


@lru_cache(maxsize=64)
def mapping_at(path: str) -> Document:
    return read(locate("mappings", path))


def cost_of(path: str, mapped: str, machine: Architecture, sizes: Sizes, params: Map_[str, float]) -> Cost:
    cascade = cascade_at(path)
    known, given = known_to(cascade, sizes, params)
    return model(cascade, machine, mapping.settled_for(mapping_at(mapped), cascade, known, given, machine), known, given)


def known_to(cascade: Cascade, sizes: Sizes, params: Map_[str, float]) -> tuple[Sizes, dict[str, float]]:
    """Sizes and parameters that a cascade has."""
    return (
        {name: size for name, size in sizes.items() if name in cascade.symbols},
        {name: value for name, value in params.items() if name in dict(cascade.params)},
    )


def _products(layers: Layers, machine: Architecture, known: Sizes) -> list[Cost]:
    """The costs of the products; alike ones are worked out once."""
    found: dict[tuple[tuple[str, int], ...], Cost] = {}
    result = []
    for sizes in layers.products.values():
        key = tuple((name, whole(text, known)) for name, text in sizes.items())
        if key not in found:
            found[key] = cost_of(layers.spec, layers.mapping, machine, dict(key), {})
        result.append(found[key])
    return result


def _row(model_name: str, length: str, config: str, machine: Architecture, costs: list[Cost]) -> Row:
    cycles = sum(cost.cycles for cost in costs)
    useful = {name: sum(cost.utilization[name] * cost.cycles for cost in costs) for name in machine.arrays}
    util = {
        sides: sum(useful[name] for name, array in machine.arrays.items() if len(array.side) == sides) / cycles for sides in (1, 2)
    }
    return Row(
        model_name, length, config, cycles / machine.clock_hz, sum(cost.energy_pj for cost in costs),
        sum(cost.traffic_bytes for cost in costs), util[2], util[1],
    )  # fmt: skip


def _pareto(file: File, accounting: Accounting) -> tuple[Point, ...]:
    pareto = file.pareto
    if pareto is None:
        return ()
    config, points = file.configs[pareto.config], []
    for side, settings in pareto.sides.items():
        machine = machine_of(file, config, accounting, (*settings, *(text.replace("{side}", str(side)) for text in pareto.set)))
        for name in pareto.models:
            length = dict.fromkeys(file.length_of, file.lengths[pareto.length])
            sizes = {**file.sizes, **file.models[name], **length, pareto.side: side}
            cost = cost_of(config.spec, config.mapping, machine, sizes, file.params)
            points.append(Point(name, side, cost.latency_s, sum(machine.area_um2.values()) / 1e8))
    return tuple(points)


def _alike(file: File, accounting: Accounting) -> dict[str, float]:
    """Areas if the register files of all configurations were as deep as the deepest of each kind of array."""
    machines = {name: machine_of(file, config, accounting) for name, config in file.configs.items()}
    deepest: dict[str, int] = {}
    for machine in machines.values():
        for name, array in machine.arrays.items():
            deepest[name] = max(deepest.get(name, 1), array.registers.words)
    return {
        name: sum(
            machine_of(file, file.configs[name], accounting, tuple(f"{a}.registers.words={deepest[a]}" for a in machine.arrays))
            .area_um2.values()
        )
        / 1e6
        for name, machine in machines.items()
    }  # fmt: skip


def report(study: Study) -> str:
    """The study as a text."""
    file = study.file
    count = len(file.models) * len(file.lengths)
    lines = [
        f"{file.name}: {len(study.attention)} rows of attention, {len(study.end_to_end)} end to end; {study.accounting} accounting",
        f"arithmetic means over {count} ratios (models x lengths), or over {count} values",
        f"    {'figure':42} {'here':>10} {'published':>10} {'difference':>11}",
    ]
    for name, (value, there) in study.headline.items():
        beside = "" if there is None else f"{there:10g} {value / there - 1:+11.2%}"
        lines.append(f"    {name:42} {value:10.4f} {beside}".rstrip())
    first = next(iter(file.models))
    lines.append(f"{first}, attention: latency s, energy pJ, bytes")
    for row in study.attention:
        if row.model == first:
            lines.append(
                f"    {row.seq_len:>5} {row.config:9} {row.latency_s:14.9g} {row.energy_pj:12.5g} {row.traffic_bytes:12.5g}"
                f"  2-D {row.util_2d:6.1%}  1-D {row.util_1d:6.1%}"
            )
    if study.pareto:
        lines.append("array side, latency s, area cm2")
        lines += [f"    {point.model:6} {point.side:5} {point.latency_s:12.5g} {point.area_cm2:10.4g}" for point in study.pareto]
    lines.append("area mm2 (with register files as deep as the deepest of any configuration)")
    lines += [f"    {name:9} {area:10.1f}  ({study.areas_alike_mm2[name]:.1f})" for name, area in study.areas_mm2.items()]
    lines += [f"note: {note}" for note in file.published.notes]
    return "\n".join(lines)
