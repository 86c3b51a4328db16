"""Pictures as SVG: a cascade as a graph whose Einsums are coloured by the pass they belong to, and a text as a picture.

In: an analysis; or lines. Out: the text of an SVG file without scripts, with colours for light and dark.
"""

from __future__ import annotations

from html import escape

from ...einsum.analysis.report import Analysis
from ...einsum.cascade import accesses
from ...einsum.printer import print_einsum

COLOURS = ("#8a8f98", "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f")
"""By level: 0 is not along the rank."""
BOX, HIGH, GAP = 200, 40, 26
STYLE = """
svg { background: #ffffff; font: 12px system-ui, sans-serif } text { fill: #222222 } .edge { stroke: #888888; fill: none }
.in { fill: #eef0f3; stroke: #aab0b8 } .name { fill: #ffffff; font-weight: 600 } .text { fill: #ffffff }
.mono { font: 13px ui-monospace, monospace;
white-space: pre }
@media (prefers-color-scheme: dark) { svg { background: #16181c } text { fill: #dddddd } .in { fill: #262a30; stroke: #555b63 } }
"""


def layers(analysis: Analysis) -> list[list[str]]:
    """Tensors by how long the longest way to them is, inputs first."""
    depth: dict[str, int] = {}
    reads = reading(analysis)
    for name, sources in reads.items():
        for source in sources:
            depth.setdefault(source, 0 if source not in reads else depth.get(source, 0))
        depth[name] = max([depth[source] + 1 for source in sources if source != name] or [1])
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name, at in depth.items():
        rows[at].append(name)
    return rows


def reading(analysis: Analysis) -> dict[str, list[str]]:
    """What each Einsum reads, by output."""
    found: dict[str, list[str]] = {}
    for einsum in analysis.cascade.einsums:
        mine = found.setdefault(einsum.output, [])
        mine += [access.tensor for access in accesses(einsum.body) if access.tensor not in mine]
    return found


def level_of(analysis: Analysis, rank: str) -> dict[str, int]:
    """The pass over a rank that each Einsum belongs to."""
    found: dict[str, int] = {}
    for einsum, one in zip(analysis.cascade.einsums, analysis.levels[rank].einsums, strict=True):
        found[einsum.output] = max(found.get(einsum.output, 0), one.level)
    return found


def graph(analysis: Analysis, rank: str) -> str:
    """A cascade as a graph, inputs on top."""
    rows, reads, level = layers(analysis), reading(analysis), level_of(analysis, rank)
    texts = {einsum.output: print_einsum(einsum, analysis.cascade) for einsum in analysis.cascade.einsums}
    width = max(len(row) for row in rows) * (BOX + GAP) + GAP
    place: dict[str, tuple[float, float]] = {}
    for down, row in enumerate(rows):
        start = (width - len(row) * (BOX + GAP) + GAP) / 2
        for along, name in enumerate(row):
            place[name] = start + along * (BOX + GAP), 56 + down * (HIGH + GAP + 14)
    bottom = int(56 + len(rows) * (HIGH + GAP + 14) + 20)
    title = f"{analysis.cascade.name}: {analysis.passes[rank]} passes over {rank}"
    parts = opened(width, bottom, title)
    for name, sources in reads.items():
        for source in sources:
            (x1, y1), (x2, y2) = place[source], place[name]
            half = BOX / 2
            if source == name:
                parts.append(f'<path class="edge" d="M{x1 + BOX} {y1 + 8} c26 -8 26 32 0 24"/>')
                continue
            back = y1 >= y2
            if x1 == x2 and abs(y2 - y1) > HIGH + GAP + 14:  # past the boxes between them
                right, start, end = x1 + BOX, y1 + HIGH / 2, y2 + HIGH / 2
                parts.append(f'<path class="edge" d="M{right} {start} C{right + 44} {start}, {right + 44} {end}, {right} {end}"/>')
                continue
            ends = (x1 + half, y1 + (0 if back else HIGH), x2 + half, y2 + (HIGH if back else 0))
            parts.append('<path class="edge" d="M{0} {1} C{0} {4}, {2} {4}, {2} {3}"/>'.format(*ends, (ends[1] + ends[3]) / 2))
    named, small = 'class="name"', 'class="text"'
    for name, (x, y) in place.items():
        fill = f'fill="{COLOURS[min(level[name], len(COLOURS) - 1)]}"' if name in reads else 'class="in"'
        about = f"{texts[name]}: pass {level[name]}" if name in reads else f"input {name}"
        parts.append(
            f'<g><title>{escape(about)}</title><rect x="{x}" y="{y}" width="{BOX}" height="{HIGH}" rx="6" {fill}/>'
            f'<text x="{x + 10}" y="{y + 17}" {named if name in reads else ""}>{escape(name)}</text>'
            f'<text x="{x + 10}" y="{y + 33}" font-size="10" {small if name in reads else ""}>'
            f"{escape(_cut(texts.get(name, 'input')))}</text></g>"
        )
    for at, number in enumerate(sorted(set(level.values()))):
        colour, label = COLOURS[min(number, len(COLOURS) - 1)], f"pass {number}" if number else f"not along {rank}"
        parts.append(f'<rect x="{GAP + at * 110}" y="32" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{GAP + at * 110 + 17}" y="42">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"])


def _cut(text: str) -> str:
    return text if len(text) <= 33 else text[:32] + "…"


def opened(width: float, bottom: int, title: str, style: str = "") -> list[str]:
    """The start of an SVG file, with its title and style."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {bottom}" width="{width:.0f}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>",
        f'<text x="{GAP}" y="22" font-size="15" font-weight="600">{escape(title)}</text>',
    ]


def lines(analysis: Analysis, rank: str, colour: bool = False) -> str:
    """The graph as text for a terminal: one line for each Einsum, under the pass it belongs to; `colour`: as in the graph."""
    level = level_of(analysis, rank)
    found = [f"{analysis.cascade.name}: {analysis.passes[rank]} passes over {rank}"]
    for number in sorted(set(level.values())):
        name = f"pass {number}" if number else f"not along {rank}"
        found.append(painted(name, COLOURS[min(number, len(COLOURS) - 1)]) if colour else name)
        found += [f"  {print_einsum(e, analysis.cascade)}" for e in analysis.cascade.einsums if level[e.output] == number]
    return "\n".join(found)


def painted(text: str, colour: str) -> str:
    """White text on a colour, for a terminal."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"\x1b[38;2;255;255;255;48;2;{red};{green};{blue}m{text}\x1b[0m"


def text_picture(title: str, text: str) -> str:
    """Lines of text as a picture."""
    rows = text.splitlines()
    width = max([len(title) * 9, *(len(row) * 8 for row in rows)]) + 2 * GAP
    parts = opened(width, 50 + 18 * len(rows), title)
    parts += [
        f'<text class="mono" xml:space="preserve" x="{GAP}" y="{48 + 18 * at}">{escape(row)}</text>' for at, row in enumerate(rows)
    ]
    return "\n".join([*parts, "</svg>"])
