"""Sweep files: which points there are, what is asked of them.

In: a YAML file (see `examples/sweeps/` and docs/sweeps.md). Out: a `Sweep`: its space of points, filters, objectives and how it is
sampled. `points` is a tree: `product`, `zip` and `list` of trees, and mappings from names to values, which are products. What
a point may set:

    spec, derive (a rank), arch, mapping (a file, or `search`), gpu, dtype, objective (of a search)
    size.NAME, param.NAME, arch.NAME.KEY (as `--set` names it), tile.GROUP.RANK, label.NAME (for the reader only)

`a,b: [...]` sets two names to the same value. A list of numbers may be written `{from: 64, to: 1K, times: 2}` or `{..., step: 64}`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ...einsum.diagnostics import Diagnostic, EinsmithError, Label
from ...einsum.library import locate
from ..document import Block, Document, Place, read, reads, validate
from .condition import holds
from .evaluate import is_figure, known_figures
from .space import Codes, Space, Table, beside, one_after_another, single

PLAIN = ("spec", "derive", "arch", "mapping", "gpu", "dtype", "objective")
PREFIXES = ("size", "param", "arch", "tile", "label")
MAX_POINTS = 50_000_000
"""Most points of one sweep."""
_SUFFIX = {"K": 2**10, "M": 2**20, "G": 2**30}
_BYTES = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([KMGT]i?B)(?:/s)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""`1e9`, which YAML takes for a text."""
_BLOCKS = ("arch.memory.", "arch.arrays.", "arch.networks.")
"""`arch.memory.buffer.size` is `arch.buffer.size`."""


class Sampling(Block):
    """Which points of the space are evaluated."""

    kind: Literal["grid", "latin", "pareto"] = "grid"
    """All; a Latin hypercube; a Latin hypercube refined around the Pareto front."""
    points: Annotated[int, Field(ge=1)] | None = None
    """Points at most (latin, pareto)."""
    start: Annotated[int, Field(ge=1)] | None = None
    """Points before the first refinement (pareto); none: a quarter of all."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _complete(self) -> Sampling:
        if self.kind != "grid" and self.points is None:
            raise ValueError(f"`{self.kind}` needs the key `points`")
        return self


class SweepFile(Block):
    """The blocks of a sweep file."""

    name: str
    doc: str = ""
    points: Any
    filters: tuple[str, ...] = ()
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("latency_s", "energy_pj")
    """Columns of the results, smaller is better; `-NAME`: larger is better."""
    workload: tuple[str, ...] = ()
    """Names that points set which say what is asked, such as a model and a length, not how it is done: only points in which they
    are equal compete."""
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read."""

    path: Path
    file: SweepFile
    space: Space
    document: Document

    @property
    def name(self) -> str:
        return self.file.name

    def kept(self, points: Codes) -> Codes:
        """Points that pass every filter."""
        table = self.space.table(points)
        keep = np.ones(len(points), dtype=bool)
        wrong = []
        for number, text in enumerate(self.file.filters):
            try:
                keep &= holds(text, table)
            except ValueError as error:
                span = self.document.span(("filters", number))
                wrong.append(Diagnostic("E701", f"filter `{text}`: {error}", span, file=str(self.path)))
        if wrong:
            raise EinsmithError(wrong)
        return points[keep]

    def workloads(self, points: Codes) -> Codes:
        """The number of the workload of each point; one that differs in no name of `workload` has the same."""
        table = self.space.table(points)
        of: Codes = np.zeros(len(points), dtype=np.int64)
        for name in self.file.workload:
            column = table.columns[name]
            of = np.unique(of * (len(column.values) + 1) + column.codes + 1, return_inverse=True)[1].reshape(-1)
        return of

    def first(self) -> Codes:
        """The points that are evaluated first: all of them, unless the space is refined. Raises EinsmithError (E702) for none."""
        sampling, count = self.file.sampling, self.space.count
        if count == 0:
            raise EinsmithError(Diagnostic("E702", "the product of all values has no points", self.document.span(("points",))))
        if sampling.kind == "grid" or (sampling.points or 0) >= count:
            if count > MAX_POINTS:
                raise EinsmithError(
                    Diagnostic(
                        "E702", f"{count:,} points are more than {MAX_POINTS:,}", self.document.span(("points",)),
                        help="sample them: `sampling: {kind: latin, points: 1000000}`",
                    )
                )  # fmt: skip
            chosen = np.arange(count)
        else:
            assert sampling.points is not None
            start = sampling.points if sampling.kind == "latin" else sampling.start or max(1, sampling.points // 4)
            chosen = self.space.latin(min(start, sampling.points), sampling.seed)
        kept = self.kept(chosen)
        if not len(kept):
            raise EinsmithError(
                Diagnostic("E702", f"no point passes the filters ({len(chosen):,} were tried)", self.document.span(("filters",)))
            )
        return kept

    def text_of(self, kind: str, name: str) -> tuple[str, str]:
        """The file that a point names: where it is and its text. Paths are relative to the sweep file, or to the working folder."""
        beside = self.path.parent / name
        try:
            path = beside if beside.is_file() else locate(kind, name)
            return str(path), path.read_text(encoding="utf-8")
        except EinsmithError as error:
            raise self.at_value(name, error.diagnostics[0].message, error.diagnostics[0].help) from None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise self.at_value(name, f"cannot read `{name}`: {why}") from None

    def at_value(self, value: str, message: str, help: str = "") -> EinsmithError:
        """An error that points at a value, or at a key, of the file."""
        spans = [span for span in self.document.values.values() if span.source.text[span.start : span.end].strip("\"' ") == value]
        spans += [span for place, span in self.document.keys.items() if value in _names(str(place[-1]))]
        return EinsmithError(Diagnostic("E701", message, spans[0] if spans else None, help=help, file=str(self.path)))


def load(path: str | Path) -> Sweep:
    """Read a sweep file. Raises EinsmithError (E501, E502, E701, E702)."""
    found = locate("sweeps", path)
    return _sweep(read(found), found)


def loads(text: str, name: str = "<sweep>") -> Sweep:
    """The same from a text; files that it names are found from the working folder."""
    return _sweep(reads(text, name), Path(name))


def of_plain(data: Mapping[str, Any]) -> Sweep:
    """The same from plain data."""
    import yaml

    try:
        return loads(yaml.safe_dump(dict(data), sort_keys=False))
    except yaml.YAMLError as error:
        raise EinsmithError(Diagnostic("E701", f"a sweep is made of plain data: {error}")) from None


def _names(key: str) -> list[str]:
    """The names that a key sets."""
    names = [name.strip() for name in key.split(",")]
    return ["arch." + name.split(".", 2)[2] if name.startswith(_BLOCKS) else name for name in names]


def _sweep(document: Document, path: Path) -> Sweep:
    file = validate(SweepFile, document)
    _objectives(file, document)
    space = Space(tuple(_Reader(document).dimensions(file.points, ("points",))))
    names = [name for table in space.dimensions for name in table.columns]
    for number, name in enumerate(file.workload):
        if name not in names:
            known = ", ".join(f"`{known}`" for known in names)
            span = document.span(("workload", number))
            raise EinsmithError(Diagnostic("E701", f"no point sets `{name}`", span, help=f"they set {known}", file=str(path)))
    return Sweep(path, file, space, document)


def _objectives(file: SweepFile, document: Document) -> None:
    """Whether every objective is a figure."""
    wrong = []
    for number, text in enumerate(file.objectives):
        name = text.lstrip("-")
        if not is_figure(name):
            close = difflib.get_close_matches(name, known_figures(), 1, 0.5)
            known = ", ".join(f"`{figure}`" for figure in known_figures())
            help_text = f"did you mean `{close[0]}`?" if close else f"there are {known}"
            wrong.append(Diagnostic("E701", f"no result is named `{name}`", document.span(("objectives", number)), help=help_text))
    if wrong:
        raise EinsmithError(wrong)


class _Reader:
    """The tree under `points`."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.places: dict[str, list[Place]] = {}
        """Where each name is set."""

    def wrong(self, place: Place, message: str, help: str = "", code: str = "E701") -> EinsmithError:
        span = self.document.keys.get(place) or self.document.span(place)
        return EinsmithError(Diagnostic(code, message, span, help=help, file=self.document.source.name))

    def dimensions(self, node: Any, place: Place) -> list[Table]:
        """The factors of a node."""
        if isinstance(node, list) and node:
            raise self.wrong(place, "a list needs a word before it", "`product:`, `zip:` or `list:`, and the list under it")
        if node in ({}, [], None):
            raise self.wrong(place, f"`{place[-1]}` of nothing has no points", code="E702")
        if not isinstance(node, dict):
            raise self.wrong(place, "must be `product`, `zip` or `list` with more of these, or names with values")
        head = next(iter(node))
        if head not in ("product", "zip", "list"):
            return self._disjoint([self._values((*place, key), key, value) for key, value in node.items()], place)
        if len(node) > 1:
            raise self.wrong(
                place,
                f"`{head}` stands alone in its block",
                f"put the others into a `product` beside it: `product: [{{{head}: ...}}, ...]`",
            )
        inner = self._items(node[head], (*place, head))
        if head == "product":
            return self._disjoint([table for item, where in inner for table in self.dimensions(item, where)], place)
        tables = [self._table(item, where) for item, where in inner]
        if head == "list":
            return [one_after_another(tables)]
        if len({table.count for table in tables}) > 1:
            sides = ", ".join(f"`{','.join(table.columns)}` has {table.count:,}" for table in tables)
            raise self.wrong((*place, head), f"a `zip` puts as many values side by side: {sides}")
        self._disjoint(tables, place)
        return [beside(tables)]

    def _items(self, inner: Any, place: Place) -> list[tuple[Any, Place]]:
        """What stands under `product`, `zip` or `list`: a list of nodes, or names with values, each a node."""
        if isinstance(inner, dict) and inner:
            found = []
            for key, value in inner.items():
                self.document.values[(*place, key, key)] = self.document.values[(*place, key)]
                self.document.keys[(*place, key, key)] = self.document.keys[(*place, key)]
                found.append(({key: value}, (*place, key)))
            return found
        if isinstance(inner, list) and inner:
            return [(item, (*place, at)) for at, item in enumerate(inner)]
        raise self.wrong(place, f"`{place[-1]}` of nothing has no points", code="E702")

    def _table(self, node: Any, place: Place) -> Table:
        space = Space(tuple(self.dimensions(node, place)))
        if space.count > MAX_POINTS:
            raise self.wrong(place, f"{space.count:,} points are more than {MAX_POINTS:,}", code="E702")
        return space.table(np.arange(space.count))

    def _disjoint(self, tables: list[Table], place: Place) -> list[Table]:
        seen: set[str] = set()
        for table in tables:
            for name in table.columns:
                if name in seen:
                    raise self._twice(name, place)
                seen.add(name)
        return tables

    def _twice(self, name: str, place: Place) -> EinsmithError:
        within = [self.document.keys[where] for where in self.places[name] if where[: len(place)] == place]
        spans = list(dict.fromkeys(within))
        first = tuple(Label(span, "first here") for span in spans[:1] if len(spans) > 1)
        second, help_text = spans[-1] if spans else None, "values that exclude one another go into a `list`"
        return EinsmithError(Diagnostic("E701", f"`{name}` is set twice", second, others=first, help=help_text))

    def _values(self, place: Place, key: str, value: Any) -> Table:
        names = _names(key)
        for name in names:
            self._known(place, name)
            self.places.setdefault(name, []).append(place)
        items = self._range(place, value) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if not items:
            raise self.wrong(place, f"`{key}` has no values: the product is empty", code="E702")
        listed = isinstance(value, list)
        values = tuple(self._plain((*place, at) if listed else place, names[0], item) for at, item in enumerate(items))
        return beside([single(name, values) for name in names])

    def _known(self, place: Place, name: str) -> None:
        head, dot, rest = name.partition(".")
        if (name in PLAIN) or (head in PREFIXES and dot and rest):
            return
        known = [*PLAIN, *(f"{prefix}.NAME" for prefix in PREFIXES), "product", "zip", "list"]
        close = difflib.get_close_matches(name, [*PLAIN, "product", "zip", "list"], 1) or [
            f"{prefix}.{rest or name}" for prefix in difflib.get_close_matches(head, PREFIXES, 1)
        ]
        help_text = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(f'`{n}`' for n in known)}"
        raise self.wrong(place, f"a point has no `{name}`", help_text)

    def _range(self, place: Place, value: dict[str, Any]) -> list[float]:
        if set(value) not in ({"from", "to", "step"}, {"from", "to", "times"}):
            raise self.wrong(place, "a range needs `from`, `to`, and `step` or `times`")
        low, high, by = (self._bound(place, value[key]) for key in ("from", "to", "step" if "step" in value else "times"))
        if by <= (0 if "step" in value else 1) or low <= 0:
            raise self.wrong(place, "a range needs numbers above 0, and `times` above 1")
        found = []
        while low <= high:
            found.append(low)
            low = low + by if "step" in value else low * by
            if len(found) > 100_000:
                raise self.wrong(place, "a range of more than 100,000 values")
        return found

    def _bound(self, place: Place, item: Any) -> int | float:
        """A number of a range: `1K`, `4 MiB`, `1e9`, `0.5`."""
        if isinstance(item, str) and re.fullmatch(r"[0-9]+[KMG]", item):
            return int(item[:-1]) * _SUFFIX[item[-1]]
        found = self._plain(place, "arch.", item)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.wrong(place, f"a range needs numbers, and `{item}` is none")
        return found

    def _plain(self, place: Place, name: str, item: Any) -> Any:
        """A value; `4K` of a size and `16 MiB` as numbers."""
        if item is None or isinstance(item, dict):
            raise self.wrong(place, f"`{name}`: a value must be a number, a text or a list of numbers")
        if name.startswith(("size.", "tile.")):
            return self._count(place, name, item)
        if name.startswith("arch.") and isinstance(item, str) and _BYTES.fullmatch(item.strip()):
            from ..architecture import _bytes

            return _bytes(item)
        if name.startswith(("arch.", "param.")) and isinstance(item, str) and _NUMBER.fullmatch(item.strip()):
            return float(item)
        if isinstance(item, float) and not math.isfinite(item):
            raise self.wrong(place, f"`{name}`: `{item}` is not a finite number")
        if name in PLAIN and not isinstance(item, str):
            raise self.wrong(place, f"`{name}`: `{item}` is not a name")
        return item

    def _count(self, place: Place, name: str, item: Any) -> int:
        """A whole number above 0; `4K` is 4096."""
        number = item
        if isinstance(item, str) and re.fullmatch(r"[0-9]+[KMG]", item):
            number = int(item[:-1]) * _SUFFIX[item[-1]]
        elif isinstance(item, str) and _NUMBER.fullmatch(item):
            number = float(item)
        if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number) or number < 1:
            help_text = "4K is 4096, 1M is 1048576" if isinstance(item, str) else ""
            raise self.wrong(place, f"`{name}`: `{item}` is not a whole number above 0", help_text)
        return int(number)
