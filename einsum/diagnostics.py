"""Diagnostics: what is wrong, where, why, and how to mend it.

A `Diagnostic` has a stable code (see `codes`), a primary span, other labelled spans where the conflict has another half, and a
help line. All diagnostics of a file travel together in one `SpecError`.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .source import Span


@dataclass(frozen=True, slots=True)
class Label:
    """A second place that matters, with a few words."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. `code` such as `E103`; `message` in lower case, no full stop, names in back-ticks."""

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    """A few words under the caret."""
    others: tuple[Label, ...] = ()
    help: str = ""
    file: str | None = None
    """Shown when there is no span."""
    severity: Literal["error", "warning"] = "error"

    @property
    def file_name(self) -> str | None:
        return self.span.source.name if self.span else self.file

    @property
    def position(self) -> tuple[int | None, int | None]:
        """(line, column) from 1; (None, None) for a whole file."""
        return self.span.source.position(self.span.start) if self.span else (None, None)

    def as_json(self) -> dict[str, object]:
        line, column = self.position
        return {
            "code": self.code, "message": self.message, "file": self.file_name, "line": line, "column": column,
            "severity": self.severity, "help": self.help or None,
        }  # fmt: skip

    def __str__(self) -> str:
        return render(self)


class EinsmithError(Exception):
    """Bad input or a request that cannot be met: one or more diagnostics, never a traceback for the user."""

    def __init__(self, diagnostics: list[Diagnostic] | Diagnostic) -> None:
        self.diagnostics = [diagnostics] if isinstance(diagnostics, Diagnostic) else diagnostics
        super().__init__("\n\n".join(render(diagnostic) for diagnostic in self.diagnostics))


class SpecError(EinsmithError):
    """A spec file (or a size, parameter or input given with it) is wrong."""


def closest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that was probably meant, for a did-you-mean; None if none is close (or all are absurdly long)."""
    if len(name) > MAX_NAME:
        return None
    others = [other for other in itertools.islice(names, MAX_NAMES) if len(other) <= MAX_NAME]
    close = difflib.get_close_matches(name, others, 1, cutoff)
    return close[0] if close else next((other for other in others if other.lower() == name.lower()), None)


MAX_NAME = 80
"""Longest name that is compared with others, characters: the comparison takes quadratic time."""
MAX_NAMES = 300
"""Most names that one is compared with."""
MAX_MESSAGE = 600
"""Longest message or help that is shown, characters."""
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
"""Characters that would act on a terminal, or turn its text about."""
MAX_SHOWN = 160
"""Longest part of a source line that a diagnostic shows, characters."""


def render(diagnostic: Diagnostic) -> str:
    """The diagnostic as plain text: header, place, source lines with carets, help."""
    lines = [f"{diagnostic.severity}[{diagnostic.code}]: {_short(diagnostic.message)}"]
    if diagnostic.span is None:
        if diagnostic.file is not None:
            lines.append(f"  --> {diagnostic.file}")
        margin = " "
    else:
        labels = [(diagnostic.span, diagnostic.label, "^"), *((o.span, o.text, "-") for o in diagnostic.others)]
        numbers = [span.source.position(span.start)[0] for span, _, _ in labels]
        margin = " " * len(str(max(numbers)))
        first_line, first_column = diagnostic.position
        lines.append(f"{margin}--> {diagnostic.span.source.name}:{first_line}:{first_column}")
        lines.append(f"{margin} |")
        source = diagnostic.span.source
        order = sorted(range(len(labels)), key=lambda i: (labels[i][0].source is not source, numbers[i]))
        previous: int | None = None
        shift = 0
        for i in order:
            span, text, mark = labels[i]
            number, column = span.source.position(span.start)
            if span.source is not source:
                lines.append(f"{margin}::: {span.source.name}:{number}:{column}")
                previous = None
            elif previous is not None and number > previous + 1:
                lines.append(f"{margin} ...")
            if number != previous or not shift < column <= shift + MAX_SHOWN:
                shown, shift = _window(span.source.line(number), column)
                lines.append(f"{number:>{len(margin)}} | {shown}")
            width = max(
                1,
                min(span.end - span.start, len(span.source.line(number)) - column + 1, MAX_SHOWN - (column - 1 - shift)),
            )
            pad = "".join("\t" if c == "\t" else " " for c in span.source.line(number)[shift : column - 1])
            lead = "..." if shift else ""
            lines.append(f"{margin} | {' ' * len(lead)}{pad}{mark * width}{' ' + text if text else ''}")
            previous = number
    if diagnostic.help:
        lines.append(f"{margin} = help: {_short(diagnostic.help)}")
    return "\n".join(_CONTROL.sub("\ufffd", line) for line in lines)


def _short(text: str) -> str:
    """On one line, of a length that can be read: names in it are as long as the user made them."""
    text = text.replace("\n", " ")
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def _window(line: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and how many characters were cut on its left."""
    if len(line) <= MAX_SHOWN:
        return line, 0
    start = max(0, column - 1 - MAX_SHOWN // 2)
    end = min(len(line), start + MAX_SHOWN)
    return ("..." if start else "") + line[start:end] + ("..." if end < len(line) else ""), start
