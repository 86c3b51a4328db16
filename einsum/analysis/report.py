"""All of the analysis of one cascade: as an object, as JSON, and as a text that a stranger can read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..cascade import Cascade
from ..diagnostics import Diagnostic, EinsmithError, SpecError
from ..display import Displayed
from ..printer import print_einsum
from ..sizes import bind
from ..symbolic import ZERO, Formula, total
from .footprint import Footprints, Live
from .levels import Levels
from .operations import Operations, operations
from .passes import levels
from .points import Spaces
from .prepared import known_params, prepare
from .traffic import Boundary, Scheduled, Traffic, scheduled

Number = int | float


@dataclass(frozen=True)
class Analysis(Displayed):
    """What `analyze` found; `str` is the report, `as_json` the object that the command prints."""

    cascade: Cascade
    """The flattened cascade that all of it refers to: nested reductions have names of their own."""
    levels: dict[str, Levels]
    """Per rank asked for."""
    operations: tuple[Operations, ...]
    """One for each Einsum of the cascade."""
    footprints: dict[str, Formula]
    """Words of each tensor whole."""
    live: Live
    traffic: Traffic
    scalars: Mapping[str, Number] | None
    """Sizes and parameters, if all of them are known."""
    word_bytes: int
    buffer: int | None
    """Bytes of the buffer asked about."""
    scheduled: Scheduled | None
    """What the traversal moves with that buffer."""

    # --- figures ---

    @cached_property
    def passes(self) -> dict[str, Number | str]:
        """Passes over each rank, and over parts of a split rank along which some Einsum goes alone.

        A formula where each step of a loop adds to them and sizes are not known.
        """
        found: dict[str, Number | str] = {}
        for one in self.levels.values():
            for rank, passes in one.passes.items():
                in_all = one.in_all(rank)
                found[rank] = passes if in_all is None else self.plain(in_all)
        return found

    def plain(self, value: Formula) -> Number | str:
        """A number wherever there is one."""
        number = value.constant
        return int(number) if number is not None else self.number(value)

    def number(self, value: Formula) -> Number | str:
        """The number where sizes are known, else the formula as text. A quotient of nothing by nothing is 0."""
        if self.scalars is None:
            return str(value)
        try:
            return value.evaluate(self.scalars)
        except ZeroDivisionError:
            return 0

    def totals(self, effective: bool) -> dict[str, Formula]:
        """Operations of the whole cascade by kind."""
        found: dict[str, Formula] = {}
        for one in self.operations:
            for op, count in (one.effective if effective else one.dense).items():
                found[op] = found.get(op, ZERO) + count
        return found

    @property
    def intensity(self) -> Formula:
        """Effective operations for each byte of compulsory traffic."""
        bytes_ = self.traffic.compulsory * self.word_bytes
        return total(self.totals(effective=True).values()) / bytes_ if bytes_ else ZERO

    def bound(self, words: int) -> Number | str:
        """Least words across the memory boundary, for any schedule with a buffer of so many words."""
        if self.scalars is None:
            return str(self.traffic.bound.substitute({self.traffic.buffer: Formula({(): words})}))
        return self.traffic.bound.evaluate({**self.scalars, self.traffic.buffer: words})

    # --- JSON ---

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.cascade.name,
            "sizes": None if self.scalars is None else {name: self.scalars[name] for name in self.cascade.symbols},
            "word_bytes": self.word_bytes,
            "passes": self.passes,
            "reads": {rank: inputs for one in self.levels.values() for rank, inputs in one.reads.items()},
            "carried": {rank: one.carried for rank, one in self.levels.items() if one.carried},
            "growth": {rank: {"per_step": one.growth, "loops": one.loops} for rank, one in self.levels.items() if one.growth},
            "forced_by": {rank: [forced.as_json() for forced in one.forced_by] for rank, one in self.levels.items()},
            "einsums": [self._einsum_json(number) for number in range(len(self.cascade.einsums))],
            "tensors": {name: self._tensor_json(name) for name in self.footprints},
            "traversal": {
                "loops": self.live.traversal.loops,
                "along": self.live.traversal.along,
                "text": str(self.live.traversal),
                "live": self.number(self.live.total),
                "live_by_level": {level: self.number(words) for level, words in self.live.by_level.items()},
            },
            "operations": {
                "dense": {op: self.number(count) for op, count in self.totals(False).items()},
                "effective": {op: self.number(count) for op, count in self.totals(True).items()},
                "exact": all(one.exact for one in self.operations),
            },
            "traffic": self._traffic_json(),
            "intensity": self.number(self.intensity),
        }

    def _einsum_json(self, number: int) -> dict[str, Any]:
        einsum, counted = self.cascade.einsums[number], self.operations[number]
        level: dict[str, Number | str] = {}
        for rank, found in self.levels.items():
            one = found.einsums[number]
            in_all = found.level_in_all(number)
            level[one.iterates or rank] = one.level if in_all is None else self.plain(in_all)
        return {
            "output": einsum.output,
            "text": print_einsum(einsum, self.cascade),
            "level": level,
            "operations": {op: self.number(count) for op, count in counted.dense.items()},
            "effective": {op: self.number(count) for op, count in counted.effective.items()},
            "macs": self.number(counted.macs),
        }

    def _tensor_json(self, name: str) -> dict[str, Any]:
        held = self.live.held.get(name)
        live = held.words if held else ZERO
        return {
            "kind": self.cascade.tensor(name).kind,
            "footprint": self.number(self.footprints[name] * self.word_bytes),
            "live": self.number(live),
            "footprint_formula": str(self.footprints[name] * self.word_bytes),
            "live_formula": str(live),
            "held_because": held.because if held else "",
        }

    def _traffic_json(self) -> dict[str, Any]:
        traffic = self.traffic
        found: dict[str, Any] = {
            "unit": "words",
            "compulsory": self.number(traffic.compulsory),
            "compulsory_bytes": self.number(traffic.compulsory * self.word_bytes),
            "exact": traffic.exact,
            "inputs": {name: self.number(words) for name, words in traffic.inputs.items()},
            "outputs": {name: self.number(words) for name, words in traffic.outputs.items()},
            "enough": self.number(traffic.live),
            "bound": str(traffic.bound),
            "buffer_symbol": traffic.buffer,
            "pieces": [
                {
                    "tensor": one.tensor,
                    "below": self.number(one.words),
                    "extra": str(one.extra),
                    "text": one.text,
                }
                for one in traffic.again
            ],
            "blocks": {rank: {name: self.number(words) for name, words in again.items()} for rank, again in traffic.shared.items()},
        }
        if self.buffer is not None:
            words = self.buffer // self.word_bytes
            found["buffer"] = {
                "bytes": self.buffer,
                "words": words,
                "bound": self.bound(words),
                "scheduled": self.scheduled.words if self.scheduled else None,
                "block_sizes": self.scheduled.blocks if self.scheduled else None,
                "spilled": self.scheduled.spilled if self.scheduled else None,
            }
        return found

    # --- text ---

    def __str__(self) -> str:
        from .text import report

        return report(self)


def analyze(
    cascade: Cascade,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    ranks: Sequence[str] | None = None,
    buffer: int | None = None,
    word_bytes: int = 2,
    outer: Sequence[str] = (),
    symbolic: bool = False,
) -> Analysis:
    """Passes, live buffers, operations and traffic of a cascade.

    `ranks`: those to ask about (all by default); a single one is also the one that live words sweep along. `buffer`: bytes.
    `outer`: ranks that the traversal puts outermost. `symbolic`: formulas even where the spec has sizes. Raises SpecError for
    unknown sizes, parameters (E301 to E306) and ranks (E330).
    """
    if symbolic:
        cascade = replace(cascade, sizes=())
    for name in (*(ranks or ()), *outer):
        _known(cascade, name)
    scalars = _scalars(cascade, sizes, params)
    prepared = prepare(cascade, params)
    flat = prepared.cascade
    asked = list(dict.fromkeys(ranks)) if ranks else [rank.name for rank in flat.ranks if rank.part_of is None]
    found = {rank: levels(prepared, rank) for rank in asked}
    spaces = Spaces(flat, scalars)
    footprints = Footprints(prepared, spaces)
    values = scalars or {}
    known = known_params(flat, params)
    along = asked[0] if len(asked) == 1 else footprints.choose(found, values) if asked else ""
    live = footprints.live(footprints.traversal(along, outer))
    traffic = Boundary(footprints, live, known).traffic()
    fits = None
    if buffer is not None and scalars is not None:
        fits = scheduled(traffic, footprints, live.traversal, buffer // word_bytes, scalars)
    return Analysis(
        flat, found, tuple(operations(flat, spaces, known)), {t.name: footprints.footprint(t.name) for t in flat.tensors},
        live, traffic, scalars, word_bytes, buffer, fits,
    )  # fmt: skip


def _known(cascade: Cascade, rank: str) -> None:
    names = [one.name for one in cascade.ranks]
    if rank not in names:
        close = difflib.get_close_matches(rank, names, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(f'`{name}`' for name in names)}"
        raise EinsmithError(Diagnostic("E330", f"the cascade has no rank `{rank}`", help=hint))


def _scalars(
    cascade: Cascade, sizes: Mapping[str, int] | None, params: Mapping[str, int | float] | None
) -> Mapping[str, Number] | None:
    """All scalars as numbers; None if some size is not known."""
    try:
        return bind(cascade, sizes, params).scalars
    except SpecError as error:
        others = [diagnostic for diagnostic in error.diagnostics if diagnostic.code != "E303"]
        if others:
            raise SpecError(others) from None
        return None
