"""A run as a picture: a self-contained SVG with one lane for each array, and for each port and network that had work.

In: a `Simulated`, and the cycles that are to be seen. Out: the text of an SVG file. Boxes are tasks, coloured by Einsum, with
the tile they belong to as a tooltip; idle cycles are hatched and coloured by what was waited for. It has colours for light and
dark, and uses no script.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise

from .machine import component
from .simulate import GroupRun, Simulated
from .trace import label, place, tracks
from .window import CAUSES, Ran

WIDTH, LANE, LEFT, TOP = 1200, 56, 112, 64
"""Pixels: of the drawing, of a lane with its gap, left of the lanes, above them."""
SHOWN, WORKS = 8_000.0, 30
"""Cycles that are drawn if nobody says which; where tasks are long, as many as that many of them take."""
MAX_BOXES = 3_000
"""Boxes at most, so that the file stays small enough to look at."""
NARROW = 3.0
"""Pixels below which a box has no edge, and those that follow at once and are alike are one."""
COLOURS = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f", "#ff9da7", "#86bcb6", "#8cd17d",
    "#d37295", "#a0cbe8", "#ffbe7d", "#b6992d", "#499894",
)  # fmt: skip
WAITING = {
    "ripple": "#c23b22", "predecessor": "#c28b22", "data": "#2274c2", "order": "#777777", "space": "#7a22c2", "flight": "#22a06b",
    "port": "#111111", "fill": "#999999", "drain": "#999999",
}  # fmt: skip
STYLE = """
svg { background: #ffffff; font: 12px system-ui, sans-serif }
text { fill: #222222 } .axis { stroke: #999999 } .idle { fill-opacity: .35 } 
.held { fill-opacity: .5; pointer-events: none } .share { fill-opacity: .6; font-size: 10px }
.box { stroke: #ffffff; stroke-width: .5 }
.name { fill: #ffffff; font-size: 11px; pointer-events: none } .dark { fill: #202020 }
@media (prefers-color-scheme: dark) {
  svg { background: #16181c } text { fill: #dddddd } .box { stroke: #16181c } .name { fill: #101010 } .idle { fill-opacity: .7 }
}
"""


def svg(run: Simulated, window: tuple[float, float] | None = None, group: int = 1) -> str:
    """The picture of one group (from 1); `window`: first and last cycle shown."""
    shown = run.groups[group - 1]
    start, end = window or telling(shown)
    return _Picture(run, shown, start, end, group).text()


def telling(group: GroupRun) -> tuple[float, float]:
    """First and last cycle that are worth seeing: from the first on, or, where the arrays wait for long, from where they begin."""
    arrays = group.nest.arch.arrays
    works = sorted((item for item in group.ran if item.work and component(item.resource) in arrays), key=lambda item: item.end)
    first = min((item.start for item in works), default=0.0)
    start = first if first > SHOWN / 2 else 0.0
    last = works[:WORKS][-1].end if works else 0.0
    return start, min(max(start + SHOWN, last), max(group.window.cycles, start + 1.0))


def every_group(run: Simulated) -> str:
    """The pictures of all groups, one below the other."""
    pictures = [svg(run, group=number) for number in range(1, len(run.groups) + 1)]
    if len(pictures) == 1:
        return pictures[0]
    parts, bottom = [], 0
    for picture in pictures:
        height = int(picture.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()[1])
        parts.append(picture.replace("<svg ", f'<svg y="{bottom}" height="{height}" ', 1))
        bottom += height
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" role="img">'
    return "\n".join([opening, *parts, "</svg>"])


class _Picture:
    def __init__(self, run: Simulated, group: GroupRun, start: float, end: float, number: int) -> None:
        self.run, self.group, self.start, self.end, self.number = run, group, start, end, number
        self.scale = (WIDTH - LEFT - 16) / (end - start)
        self.lanes = tracks(run, group)
        tensors = run.cost.placed.cascade.tensors  # the same colours in all pictures of a cascade
        self.colours = {tensor.name: COLOURS[at % len(COLOURS)] for at, tensor in enumerate(tensors)}
        self.seen: dict[str, None] = {}
        self.waits: dict[str, None] = {}

    def text(self) -> str:
        boxes = [self._lane(at, name) for at, name in enumerate(self.lanes)]
        axis = self._axis()
        legend, bottom = self._legend(TOP + LANE * len(self.lanes) + 40)
        arch = self.run.cost.arch
        cascade = self.run.cost.placed.cascade.name
        title = f"{cascade} on {arch.name}: cycles {self.start:,.0f} to {self.end:,.0f} of group {self.number}"
        about = (
            f"mapping {self.run.cost.placed.mapping.name}, {'about ' * (self.group.how == 'pace')}{self.group.cycles:,.0f} cycles"
        )
        what = "iterations" if self.group.common else "tiles"
        window = "" if self.group.whole else f" (a sample of {self.group.window.tiles:,} of {self.group.tiles:,} {what})"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" width="{WIDTH}" role="img">',
                f"<title>{escape(title)}</title>",
                "<defs>" + "".join(self._hatch(cause) for cause in WAITING) + "</defs>",
                f"<style>{STYLE}</style>",
                f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">{escape(title)}</text>',
                f'<text x="{LEFT}" y="42">{escape(about + window)}</text>',
                *boxes, axis, legend, "</svg>",
            ]
        )  # fmt: skip

    def _x(self, cycle: float) -> float:
        return LEFT + (min(max(cycle, self.start), self.end) - self.start) * self.scale

    def _lane(self, at: int, name: str) -> str:
        y = TOP + at * LANE
        height = LANE - 16
        mine = self.group.window.lanes[name]
        share = self.group.busy.get(name, 0.0) / (self.group.covers or 1.0)
        parts = [f'<text x="8" y="{y + height / 2 - 2}">{escape(name)}</text>']
        parts.append(f'<text class="share" x="8" y="{y + height / 2 + 13}">{share:.1%} busy</text>')
        parts += [self._idle(before.end, after, y, height) for before, after in pairwise(mine)]
        visible = self._bundles([item for item in mine if item.end > self.start and item.start < self.end])
        for items in visible[:MAX_BOXES]:
            parts.append(self._box(items, y, height))
        if len(visible) > MAX_BOXES:
            parts.append(f'<text x="{LEFT}" y="{y - 2}">only the first {MAX_BOXES:,} of {len(visible):,} are drawn</text>')
        return "\n".join(part for part in parts if part)

    def _bundles(self, items: list[Ran]) -> list[list[Ran]]:
        """Tasks by the boxes they are drawn as: narrow ones of the same name that follow at once are one box."""
        found: list[list[Ran]] = []
        for item in items:
            narrow = (item.end - item.start) * self.scale < NARROW
            if found and narrow:
                last = found[-1][-1]
                close = (item.start - last.end) * self.scale < 0.3 and (last.end - last.start) * self.scale < NARROW
                if close and label(last) == label(item):
                    found[-1].append(item)
                    continue
            found.append([item])
        return found

    def _box(self, items: list[Ran], y: float, height: float) -> str:
        item, last = items[0], items[-1]
        x = self._x(item.start)
        width = max(self._x(last.end) - x, 0.3)
        self.seen[item.task.name] = None
        tiles = [
            ", ".join(f"{name}={at}" for name, at in place(self.group, each).items()) for each in items[:: max(1, len(items) - 1)]
        ]
        about = f"{label(item)} [{' to '.join(tiles)}]: cycles {item.start:,.0f} to {last.end:,.0f}"
        waits = 0.0 if len(items) > 1 else item.end - item.start - item.work
        about += f", {waits:,.0f} of them {CAUSES['port']}" if waits else ""
        edge = ' class="box"' if width > NARROW else ""
        box = (
            f'<rect{edge} x="{x:.2f}" y="{y}" width="{width:.2f}" height="{height}" fill="{self.colours[item.task.name]}">'
            f"<title>{escape(about)}</title></rect>"
        )
        if waits and (tail := self._x(item.end) - self._x(item.end - waits)) > 0.3:
            self.waits["port"] = None
            box += f'<rect class="held" x="{x + width - tail:.2f}" y="{y}" width="{tail:.2f}" height="{height}" fill="url(#port)"/>'
        if width > 7.0 * len(item.task.name) + 4:
            name = "name dark" if _bright(self.colours[item.task.name]) else "name"
            box += f'<text class="{name}" x="{x + 3:.2f}" y="{y + height / 2 + 4}">{escape(item.task.name)}</text>'
        return box

    def _idle(self, since: float, item: Ran, y: float, height: float) -> str:
        if item.start <= since or item.start < self.start or since > self.end:
            return ""
        cause = item.held_by or "order"
        self.waits[cause] = None
        x, width = self._x(since), self._x(item.start) - self._x(since)
        about = f"idle for {item.start - since:,.0f} cycles: {CAUSES.get(cause, cause)}"
        return (
            f'<rect class="idle" x="{x:.2f}" y="{y + height * 0.3}" width="{width:.2f}" height="{height * 0.4}" '
            f'fill="url(#{cause})"><title>{escape(about)}</title></rect>'
        )

    def _hatch(self, cause: str) -> str:
        return (
            f'<pattern id="{cause}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            f'<rect width="3" height="6" fill="{WAITING[cause]}"/></pattern>'
        )

    def _axis(self) -> str:
        y = TOP + LANE * len(self.lanes)
        parts = [f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{WIDTH - 16}" y2="{y}"/>']
        for step in range(11):
            cycle = self.start + (self.end - self.start) * step / 10
            x, anchor = self._x(cycle), "end" if step == 10 else "middle"
            parts.append(f'<line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 5}"/>')
            parts.append(f'<text x="{x:.1f}" y="{y + 18}" text-anchor="{anchor}">{cycle:,.0f}</text>')
        return "\n".join(parts)

    def _legend(self, y: float) -> tuple[str, int]:
        entries = [(f'fill="{self.colours[name]}"', name) for name in self.seen]
        entries += [(f'fill="url(#{cause})"', f"idle, {CAUSES.get(cause, cause)}") for cause in self.waits]
        parts, x = [], float(LEFT)
        for fill, text in entries:
            width = 26 + 7.0 * len(text)
            if x + width > WIDTH:
                x, y = float(LEFT), y + 20
            parts.append(f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="14" height="12" {fill}/>')
            parts.append(f'<text x="{x + 18:.0f}" y="{y:.0f}">{escape(text)}</text>')
            x += width
        return "\n".join(parts), int(y + 24)


def _bright(colour: str) -> bool:
    """Whether dark letters are easier to read on a colour than white ones."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 150
