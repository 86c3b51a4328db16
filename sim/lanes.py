"""A run as text for a terminal: one line for each array, port and network that had work, a letter for each Einsum.

In: a `Simulated`, and the cycles that are to be seen. Out: lines. A column stands for as many cycles as the first line says; its
letter is the task that takes most of them, `·` that nothing ran in them. `timeline` draws the same as a picture.
"""

from __future__ import annotations

from string import ascii_letters

import numpy as np

from .simulate import Simulated
from .timeline import COLOURS, telling
from .trace import tracks

LETTERS = ascii_letters[26:] + ascii_letters[:26]


def lanes(run: Simulated, window: tuple[float, float] | None = None, group: int = 1, width: int = 96, colour: bool = False) -> str:
    """The lines of one group (from 1); `colour`: with the colours of the picture."""
    shown = run.groups[group - 1]
    start, end = window or telling(shown)
    names = list(dict.fromkeys(item.task.name for item in shown.ran if item.end > item.start))
    marks = {name: LETTERS[at % len(LETTERS)] for at, name in enumerate(names)}
    resources = tracks(run, shown)
    wide = max((len(name) for name in resources), default=0)
    found = [f"group {group}, cycles {start:,.0f} to {end:,.0f}, {(end - start) / width:,.1f} a column"]
    seen: set[int] = set()
    for resource in resources:
        taken = np.zeros((len(names) + 1, width))
        edges = np.linspace(start, end, width + 1)
        for item in shown.window.lanes[resource]:
            if item.end > start and item.start < end:
                overlap = np.minimum(edges[1:], item.end) - np.maximum(edges[:-1], item.start)
                taken[names.index(item.task.name)] += np.maximum(overlap, 0)
        taken[-1] = np.where(taken[:-1].sum(axis=0) > 0, 0, 1)
        most = taken.argmax(axis=0)
        seen.update(most.tolist())
        cells = ["·" if at == len(names) else _cell(marks[names[at]], COLOURS[at % len(COLOURS)], colour) for at in most.tolist()]
        found.append(f"{resource:{wide}} {''.join(cells)}")
    legend = [
        f"{_cell(mark, COLOURS[at % len(COLOURS)], colour)} {name}" for at, (name, mark) in enumerate(marks.items()) if at in seen
    ]
    found.append("  ".join(legend))
    return "\n".join(found)


def _cell(mark: str, colour: str, painted: bool) -> str:
    if not painted:
        return mark
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"\x1b[38;2;16;16;16;48;2;{red};{green};{blue}m{mark}\x1b[0m"
