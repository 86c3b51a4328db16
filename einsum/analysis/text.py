"""The report of an analysis as plain text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..printer import print_einsum
from ..symbolic import Formula, constant

if TYPE_CHECKING:
    from .report import Analysis

CUT = "..."
"""What a formula longer than `WIDTH` ends in."""
WIDTH = 100
"""Longest formula that a table shows, characters."""
LIST = 64
"""From this length on a list of counts goes on in the next row, characters."""


def report(analysis: Analysis) -> str:
    """The whole report."""
    parts = [
        _head(analysis),
        _passes(analysis),
        _cascade(analysis),
        _findings(analysis),
        _tensors(analysis),
        _operations(analysis),
        _traffic(analysis),
    ]
    text = "\n\n".join(part for part in parts if part)
    return f"{text}\n  A formula that ends in `{CUT}` is cut; `--json` has all of it." if CUT in text else text


def _head(analysis: Analysis) -> str:
    if analysis.scalars is None:
        missing = [name for name in analysis.cascade.symbols if name not in dict(analysis.cascade.sizes)]
        sizes = f"formulas: no size for {', '.join(missing)}"
    else:
        sizes = ", ".join(f"{name}={analysis.scalars[name]}" for name in analysis.cascade.symbols) or "no sizes"
    return f"{analysis.cascade.name}\n{sizes}; {analysis.word_bytes} bytes a value"


def _passes(analysis: Analysis) -> str:
    rows: list[tuple[str, ...]] = []
    plain: list[str] = []
    for rank, found in analysis.levels.items():
        for name, count in found.passes.items():
            reads = found.reads.get(name, {})
            if count <= 1 and len(found.passes) == 1 and len(analysis.levels) > 1 and not found.growth:
                plain.append(name)
                continue
            levels = "; ".join(f"{tensor} at {', '.join(map(str, where))}" for tensor, where in reads.items())
            rows.append((name if name == rank else f"  {name} alone", str(analysis.passes[name]), levels))
    if plain:
        counts: dict[str, list[str]] = {}
        for name in plain:
            counts.setdefault(str(analysis.passes[name]), []).append(name)
        rows += [(", ".join(names), count, "") for count, names in sorted(counts.items(), reverse=True)]
    return "Passes\n" + _table(("rank", "passes", "inputs read at level"), rows)


def _cascade(analysis: Analysis) -> str:
    shown = [rank for rank, found in analysis.levels.items() if max(found.passes.values()) > 1 or len(found.passes) > 1]
    if not shown:
        shown = [analysis.live.traversal.along] if analysis.live.traversal.along in analysis.levels else list(analysis.levels)[:1]
    rows = []
    for number, einsum in enumerate(analysis.cascade.einsums):
        levels = []
        for rank in shown:
            one = analysis.levels[rank].einsums[number]
            level = f"{one.level}+" if one.growth else str(one.level)
            levels.append("-" if one.level == 0 else level if one.iterates else f"({level})")
        rows.append((*levels, print_einsum(einsum, analysis.cascade)))
    return "Levels (in brackets: an Einsum that does not go along the rank)\n" + _table((*shown, "Einsum"), rows)


def _findings(analysis: Analysis) -> str:
    lines: list[str] = []
    for rank, found in analysis.levels.items():
        count = found.passes[rank]
        for part, growth in found.growth.items():
            steps = " and ".join(f"`{loop}`" for loop in found.loops)
            lines.append(
                f"Each step of {steps} takes {growth} more {'pass' if growth == 1 else 'passes'} over `{part}`: what it reads is "
                f"complete in `{part}` and comes from the step before. Levels are those of the first step."
            )
        if count > 1:
            reasons: dict[int, str] = {}
            for forced in found.forced_by:
                if forced.rank == rank:
                    reasons.setdefault(forced.level, str(forced))
            lines.append(f"{count} passes over `{rank}`: " + ", ".join(reasons[level] for level in sorted(reasons)) + ".")
        for part, times in found.passes.items():
            if part != rank and times > 1:
                why = next((str(forced) for forced in found.forced_by if forced.rank == part and forced.level == times), "")
                lines.append(f"{times} passes over `{part}` alone" + (f": {why}." if why else "."))
        for tensor, levels in found.carried.items():
            later = ", ".join(map(str, levels[1:]))
            lines.append(
                f"`{tensor}` is carried over `{rank}` from level {levels[0]} to {later}: hold {_along(analysis, rank)} words "
                f"for each of its other coordinates, write them out and read them back, or compute them again."
            )
        for where, inputs in found.reads.items():
            for tensor, at in inputs.items():
                if len(at) > 1:
                    lines.append(f"`{tensor}` is read at levels {', '.join(map(str, at))} of `{where}`: hold it, or read it again.")
    if not lines:
        lines.append("One pass over every rank: nothing has to be held for the length of a rank or read twice.")
    return "Findings\n" + "\n".join(f"  {line}" for line in lines)


def _along(analysis: Analysis, rank: str) -> str:
    """Extent of a rank, in words."""
    from .fiber import extent_of

    return _shown(analysis, extent_of(analysis.cascade, rank))


def _tensors(analysis: Analysis) -> str:
    rows: list[tuple[str, ...]] = []
    for name, words in analysis.footprints.items():
        held = analysis.live.held.get(name)
        tensor = analysis.cascade.tensor(name)
        kind = "output" if name in analysis.cascade.outputs else "intermediate" if tensor.kind == "einsum" else tensor.kind
        footprint = _shown(analysis, words * analysis.word_bytes, True)
        rows.append((name, kind, footprint, _shown(analysis, held.words) if held else "0", held.because if held else ""))
    head = ("tensor", "kind", "footprint, bytes", "live, words", "what it must outlive")
    live = f"Together at most {_shown(analysis, analysis.live.total)} words live at once"
    if analysis.scalars is not None:
        live += f" ({_bytes(analysis.live.total.evaluate(analysis.scalars) * analysis.word_bytes)})"
    return (
        f"Buffers ({analysis.live.traversal})\n"
        + _table(head, rows)
        + f"\n  {live}: then nothing crosses the memory boundary twice."
    )


def _operations(analysis: Analysis) -> str:
    rows: list[tuple[str, ...]] = []
    for einsum, counted in zip(analysis.cascade.einsums, analysis.operations, strict=True):
        if counted.dense:
            rows += _counted(analysis, einsum.output, counted.dense, counted.effective)
    rows += _counted(analysis, "all", analysis.totals(False), analysis.totals(True))
    exact = (
        ""
        if all(one.exact for one in analysis.operations)
        else "\n  Some masks were not counted: the effective counts are upper bounds."
    )
    return "Operations\n" + _table(("Einsum", "effective", "dense"), rows) + exact


def _counted(analysis: Analysis, name: str, dense: dict[str, Formula], effective: dict[str, Formula]) -> list[tuple[str, ...]]:
    """Rows of one Einsum: as many as its counts need."""
    lines = [""]
    for op, count in dense.items():
        text = f"{op} {_shown(analysis, count)}"
        if lines[-1] and len(lines[-1]) + len(text) > LIST:
            lines[-1] += ","
            lines.append(text)
        else:
            lines[-1] += f", {text}" if lines[-1] else text
    first = (name, _share(analysis, dense, effective), lines[0])
    return [first, *(("", "", line) for line in lines[1:])]


def _share(analysis: Analysis, dense: dict[str, Formula], effective: dict[str, Formula]) -> str:
    """What masks leave of the operations."""
    if dense == effective:
        return "all"
    if analysis.scalars is None:
        op = next(op for op in dense if dense[op] != effective[op])
        return f"{op} {_cut(str(effective[op]))}"
    full = sum(n.evaluate(analysis.scalars) for n in dense.values())
    left = sum(n.evaluate(analysis.scalars) for n in effective.values())
    return f"{100 * left / full:.1f} %" if full else "all"


def _traffic(analysis: Analysis) -> str:
    traffic = analysis.traffic
    size = analysis.word_bytes
    lines = [f"compulsory (inputs and outputs once): {_shown(analysis, traffic.compulsory)} words"]
    if analysis.scalars is not None:
        lines[0] += f", {_bytes(traffic.compulsory.evaluate(analysis.scalars) * size)}"
    if not traffic.exact:
        lines.append("some masks were not counted: less of the inputs may be used")
    lines.append(f"enough for that: a buffer of {_shown(analysis, traffic.live)} words")
    if traffic.again:
        lines.append(f"any schedule with a buffer of {traffic.buffer} words moves more than that, by the greatest of:")
        lines += [f"  {_cut(_of_buffer(analysis, one.extra))} words: {one.text}" for one in traffic.again]
    for rank, again in traffic.shared.items():
        if again:
            names = ", ".join(f"`{name}`" for name in again)
            lines.append(f"each further block of `{rank}` reads {names} again")
    if analysis.buffer is not None:
        words = analysis.buffer // size
        lines.append(f"with a buffer of {_bytes(analysis.buffer)} ({_count(words)} words):")
        bound = analysis.bound(words)
        lines.append(f"  any schedule moves at least {_cut(bound) if isinstance(bound, str) else _count(bound)} words")
        if analysis.scheduled is not None:
            blocks = ", ".join(f"{rank} in blocks of {n}" for rank, n in analysis.scheduled.blocks.items())
            spilled = f", {_count(analysis.scheduled.spilled)} of them spills" if analysis.scheduled.spilled else ""
            how = f" with {blocks}" if blocks else ""
            lines.append(f"  this traversal moves {_count(analysis.scheduled.words)} words{how}{spilled}")
        elif analysis.scalars is not None:
            lines.append("  this traversal does not fit, not even with blocks of 1 and everything carried spilled")
    lines.append(f"intensity: {_shown(analysis, analysis.intensity)} operations a byte of compulsory traffic")
    return "Traffic\n" + "\n".join(f"  {line}" for line in lines)


def _of_buffer(analysis: Analysis, value: Formula) -> str:
    """A formula of the buffer's size, the other sizes put in where they are known."""
    known = {} if analysis.scalars is None else {n: constant(v) for n, v in analysis.scalars.items() if isinstance(v, int)}
    return str(value.substitute(known))


# --- figures and tables -----------------------------------------------------------------------------------------------


def _shown(analysis: Analysis, value: Formula, as_bytes: bool = False) -> str:
    if analysis.scalars is None:
        return _cut(str(value))
    number = analysis.number(value)
    assert not isinstance(number, str)
    return _bytes(number) if as_bytes else _count(number)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - len(CUT)] + CUT


def _count(number: int | float) -> str:
    if isinstance(number, float) and not number.is_integer():
        return f"{number:.4g}" if abs(number) < 1e4 else f"{number:,.0f}"
    return f"{int(number):,}"


def _bytes(number: int | float) -> str:
    """`12.5 MiB` and the like."""
    if number < 1024 or not math.isfinite(number):
        return f"{number} B"
    power = min(5, int(math.log(number, 1024)))
    return f"{number / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as they need to be, the last one ragged."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
    return "\n".join(f"  {line}" for line in lines)
