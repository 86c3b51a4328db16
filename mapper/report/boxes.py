"""What runs inside what: mappings and GPU plans as nested boxes, drawn as SVG or printed for a terminal.

In: a mapping, or the plan of a module. Out: `Box`es; the text of an SVG file; lines of text. A loop is a box around what it
repeats, with the tensors that stay while it does; an Einsum is a bar, coloured by where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping as Map_
from dataclasses import dataclass, replace
from html import escape
from itertools import product
from typing import TYPE_CHECKING

from ...einsum.cascade import accesses
from ...einsum.printer import print_einsum
from .drawing import GAP, opened, painted

if TYPE_CHECKING:
    from ..mapping import Group, Mapping
    from ..module_plan import ModulePlan
    from ..plan import Plan

COLOURS = ("#4e79a7", "#c46a12", "#3f8a3a", "#b8393b", "#87598a", "#3d8680", "#7d5c4b", "#6b7280")
"""By array; white text stands on them."""
ROW, PAD, LETTER = 22, 8, 7.2
"""Pixels: of a line, around what a box holds, of a letter."""
STYLE = """
.loop { fill: none; stroke: #8a93a0 } .group { fill: #f3f4f6; stroke: #8a93a0 } .held { fill: #2f6f4f } .soft { fill: #666e78 }
.bar { font: 12px ui-monospace, monospace; fill: #ffffff; white-space: pre }
.cell { fill: none; stroke: #8a93a0 } .mine { fill: #4e79a7; fill-opacity: .35 } .now { fill: #4e79a7 }
@media (prefers-color-scheme: dark) { .group { fill: #1d2127 } .held { fill: #7cc7a0 } .soft { fill: #9aa4b0 } }
"""


@dataclass(frozen=True)
class Box:
    """A loop around what it repeats; without anything inside, an Einsum."""

    title: str
    note: str = ""
    held: tuple[str, ...] = ()
    """What stays while the loop runs, a line for each place."""
    inner: tuple[Box, ...] = ()
    at: str = ""
    """Of an Einsum: where it runs."""

    @property
    def lines(self) -> list[str]:
        return [*(f"{self.title}  {self.note}".rstrip(),), *self.held]


# --- a mapping ---


def of_mapping(mapping: Mapping, extents: Map_[str, int] | None = None) -> tuple[Box, ...]:
    """Each group with its loops; `extents`: those of the ranks, for the number of steps."""
    return tuple(_group(number, group, extents or {}) for number, group in enumerate(mapping.groups, 1))


def _group(number: int, group: Group, extents: Map_[str, int]) -> Box:
    inner: tuple[Box, ...] = tuple(
        Box(name, _where(group, name), at=binding.array)
        for name, binding in group.einsums.items()
    )  # fmt: skip
    lengths = []
    left = dict(extents)
    for loop in group.loops:
        lengths.append(left.get(loop.rank))
        left[loop.rank] = min(loop.tile, left.get(loop.rank, loop.tile))
    for loop, length in zip(reversed(group.loops), reversed(lengths), strict=True):
        held = tuple(
            f"{place} holds {', '.join(tensors)}" if place else f"holds {', '.join(tensors)}"
            for place, tensors in loop.held("").items()
        )
        steps = "" if length is None else f"({-(-length // loop.tile):,} steps)" if loop.tile < length else "(1 step)"
        over = f" over {loop.over}" if loop.over else ""
        inner = (Box(f"for {loop.rank} by {loop.tile}{over}", steps, held, inner),)
    flight = f", {group.in_flight} tiles in flight" if group.in_flight > 1 else ""
    phases = (f"phases: {'; '.join(' '.join(phase) for phase in group.phases)}",) if group.phases else ()
    return Box(f"group {number}", group.schedule + flight, phases, inner)


def _where(group: Group, name: str) -> str:
    binding = group.einsums[name]
    ways = ("down", "across") if len(binding.spatial) > 1 else ("along",)
    sides = [f"{' '.join(ranks)} {way}" for ranks, way in zip(binding.spatial, ways, strict=False) if ranks]
    stays = group.stay.get(name)
    stay = "handed on as it is made" if stays == "forward" else f"stays in {stays}" if stays else ""
    return ", ".join([f"on {binding.array}", *sides, *([stay] if stay else [])])


# --- a plan ---


def of_plan(plan: ModulePlan) -> tuple[Box, ...]:
    """A program instance of each kernel: what it keeps, what it repeats."""
    several = len(plan.kernels) > 1
    boxes = [_kernel(kernel) for kernel in plan.kernels]
    return tuple(
        replace(box, title=f"kernel {number}: {box.title}") if several else box for number, box in enumerate(boxes, 1)
    )  # fmt: skip


def _kernel(plan: Plan) -> Box:
    """The best candidate of a kernel."""
    from ..program import Loop

    program, best = plan.program, plan.best
    extents = plan.sizes.extents
    every = [(o.tensor, f"{o.tensor}[{','.join(o.axes)}]") for o in plan.operands if o.every_step]
    once = [f"{o.tensor}[{','.join(o.axes)}]" for o in plan.operands if not o.every_step]
    inner = []
    for phase in program.phases:
        if isinstance(phase, Loop):
            stages = f" x {best.stages} stages" if best.stages > 1 else ""
            held = [f"registers hold {', '.join(phase.states)}"] if phase.states else []
            read = {access.tensor for one in phase.body for access in accesses(one.body)}
            shared = [text for tensor, text in every if tensor in read]
            held += [f"shared memory holds {', '.join(shared)}{stages}"] if shared else []
            inner += [Box(print_einsum(one, program.cascade), at="once") for one in phase.initial]
            body = tuple(Box(print_einsum(one, program.cascade), at="every step") for one in phase.body)
            inner.append(Box(_walked(plan), "one after another", tuple(held), body))
        else:
            inner += [Box(print_einsum(one, program.cascade), at="once") for one in phase.einsums]
    tiles = [f"{r} by {best.blocks[r]} ({-(-extents[r] // best.blocks[r]):,})" for r in program.tiled if r in best.blocks]
    singles = [f"{r} ({extents[r]:,})" for r in program.grid if r not in program.tiled]
    kept = (f"shared memory holds {', '.join(once)}",) if once else ()
    note = f"{best.warps} warps, {best.shared_bytes:,} bytes of shared memory, {best.registers} registers a thread"
    return Box(f"program instances over {', '.join([*singles, *tiles])}", note, kept, tuple(inner))


def _walked(plan: Plan) -> str:
    program, best = plan.program, plan.best
    step = f", {inner} by {best.blocks[inner]}" if (inner := program.inner or "") in best.blocks else ""
    return f"for {program.loop}{step}" if program.loop else "once"


# --- drawn ---


def svg(title: str, boxes: tuple[Box, ...]) -> str:
    """The boxes, one below the other, as the text of an SVG file."""
    parts, width, bottom = _all(title, boxes)
    return "\n".join([*opened(width, int(bottom), title, STYLE), *parts, "</svg>"])


def plan_svg(plan: ModulePlan) -> str:
    """A plan: the boxes of a program instance of each kernel, and under them its tiles."""
    title = f"{plan.textbook.name} on {plan.gpu.name}"
    parts, width, bottom = _all(title, of_plan(plan))
    for number, kernel in enumerate(plan.kernels, 1):
        name = f"kernel {number}: " if len(plan.kernels) > 1 else ""
        grid, wide, bottom = _grid(kernel, bottom + 10, name)
        parts, width = parts + grid, max(width, wide)
    return "\n".join([*opened(width, int(bottom), title, STYLE), *parts, "</svg>"])


def _all(title: str, boxes: tuple[Box, ...]) -> tuple[list[str], float, float]:
    """What is drawn, how wide, and down to where."""
    colours = _colours(boxes)
    width = max(9.0 * len(title), *(_width(box, 0) for box in boxes)) + 2 * GAP
    parts, x, y = [], float(GAP), 64.0
    for place, colour in colours.items():
        parts.append(f'<rect x="{x:.0f}" y="36" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="46">{escape(place)}</text>')
        x += 34 + 7 * len(place)
    for box in boxes:
        parts += _drawn(box, GAP, y, width - 2 * GAP, colours, "group")
        y += _height(box) + 10
    return parts, width, y + 10


def _colours(boxes: tuple[Box, ...]) -> dict[str, str]:
    places: dict[str, None] = {}

    def walk(box: Box) -> None:
        if box.at:
            places[box.at] = None
        for one in box.inner:
            walk(one)

    for box in boxes:
        walk(box)
    return {place: COLOURS[at % len(COLOURS)] for at, place in enumerate(places)}


def _aligned(box: Box) -> tuple[Box, ...]:
    """What a box holds, the notes of its Einsums below one another."""
    wide = max((len(one.title) for one in box.inner if not one.inner), default=0)
    return tuple(one if one.inner or not one.note else replace(one, title=f"{one.title:{wide}}") for one in box.inner)


def _width(box: Box, depth: int) -> float:
    own = max(len(line) for line in box.lines) * LETTER + 2 * PAD * (depth + 2)
    return max([own, *(_width(one, depth + 1) for one in _aligned(box))])


def _height(box: Box) -> float:
    if not box.inner:
        return ROW
    return ROW * len(box.lines) + 2 * PAD + sum(_height(one) + 3 for one in box.inner)


def _drawn(box: Box, x: float, y: float, width: float, colours: dict[str, str], kind: str = "loop") -> list[str]:
    whole = escape("; ".join(box.lines))
    if not box.inner:
        place = f'x="{x}" y="{y}" width="{width:.0f}" height="{ROW - 2}"'
        return [
            f'<g><title>{whole}</title><rect {place} rx="3" fill="{colours[box.at]}"/>'
            f'<text class="bar" x="{x + 6}" y="{y + 14}">{escape(box.lines[0])}</text></g>'
        ]
    parts = [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width:.0f}" height="{_height(box):.0f}" rx="5"/>',
        f'<text x="{x + PAD}" y="{y + 17}"><tspan font-weight="600">{escape(box.title)}</tspan>'
        f'<tspan class="soft" dx="10">{escape(box.note)}</tspan></text>',
    ]
    y += ROW
    for line in box.held:
        parts.append(f'<text class="held" x="{x + PAD}" y="{y + 15}">{escape(line)}</text>')
        y += ROW
    y += PAD
    for one in _aligned(box):
        parts += _drawn(one, x + PAD, y, width - 2 * PAD, colours)
        y += _height(one) + 3
    return parts


def _grid(plan: Plan, top: float, name: str) -> tuple[list[str], float, float]:
    """The points that a kernel goes through, as tiles: those of one program instance shaded, the one at hand darker."""
    program, best, extents = plan.program, plan.best, plan.sizes.extents
    across = program.inner if program.inner in best.blocks else None
    down = program.tiled[0] if program.tiled else None
    rows = -(-extents[down] // best.blocks[down]) if down else 1
    columns = -(-_walked_points(plan) // best.blocks[across]) if across else 1
    shown = min(rows, 10), min(columns, 24)
    side, left = 24, GAP + 90
    parts = []
    if across:
        parts.append(f'<text x="{left}" y="{top + 12}">{escape(f"{across} by {best.blocks[across]}, one after another")} →</text>')
    if down:
        parts.append(f'<text x="{GAP}" y="{top + 34}">{escape(f"{down} by {best.blocks[down]}")}</text>')
    mine, now = min(1, shown[0] - 1), min(2, shown[1] - 1)
    for row, column in product(range(shown[0]), range(shown[1])):
        kind = "cell" if row != mine else "now" if column == now else "mine"
        at = f'x="{left + column * side}" y="{top + 20 + row * side}"'
        parts.append(f'<rect class="{kind}" {at} width="{side - 3}" height="{side - 3}" rx="2"/>')
    bottom = top + 20 + shown[0] * side + 18
    captions = [f"{name}shaded: one program instance; dark: the tile at hand"]
    singles = " x ".join(f"{rank} ({extents[rank]:,})" for rank in program.grid if rank not in program.tiled)
    captions += [f"as many again for each of {singles}"] if singles else []
    captions += [f"{rows:,} x {columns:,} tiles; {shown[0]} x {shown[1]} are drawn"] if (rows, columns) != shown else []
    parts += [f'<text class="soft" x="{GAP}" y="{bottom + 18 * at}">{escape(text)}</text>' for at, text in enumerate(captions)]
    wide = max(left + shown[1] * side, 7 * max(len(text) for text in captions)) + 2 * GAP
    return parts, wide, bottom + 18 * len(captions)


def _walked_points(plan: Plan) -> int:
    """Points along the rank that is walked in order."""
    inner, loop, extents = plan.program.inner, plan.program.loop, plan.sizes.extents
    split = next((r for r in plan.program.cascade.ranks if r.split is not None and r.split.inner == inner), None)
    if split is not None and split.name in extents:
        return extents[split.name]
    return extents.get(inner or "", 1) * (extents.get(loop, 1) if loop else 1)


def lines(title: str, boxes: tuple[Box, ...], colour: bool = False) -> str:
    """The boxes as text: a bar for every level, Einsums inside; `colour`: with the colours of the picture, for a terminal."""
    colours = _colours(boxes)
    found = [title]

    def walk(box: Box, margin: str) -> None:
        if not box.inner:
            found.append(margin + (painted(box.title, colours[box.at]) if colour else box.title) + f"  {box.note}".rstrip())
            return
        found.append(f"{margin}{box.title}  {box.note}".rstrip())
        found.extend(f"{margin}│ {line}" for line in box.held)
        for one in _aligned(box):
            walk(one, margin + "│ ")

    for box in boxes:
        walk(box, "")
    return "\n".join(found)
