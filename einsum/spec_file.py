"""The text of a spec file: read, decoded, with plain line ends.

In: a path or a text in memory. Out: a `Source`, or why it cannot be one.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from .diagnostics import Diagnostic, SpecError, closest
from .source import Source

MAX_FILE = 256 * 1024
"""Longest spec file, bytes."""


def read_source(path: str | Path) -> Source:
    """The text of a file. Raises SpecError (E001, E002, E004)."""
    file = Path(path)
    name = str(path)
    try:
        if file.exists() and not file.is_file():
            what = "a directory" if file.is_dir() else "not a regular file"
            raise SpecError(Diagnostic("E001", f"cannot read: this is {what}", file=name))
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(
            Diagnostic("E001", f"cannot read: {reason[:1].lower()}{reason[1:]}", file=name, help=_neighbour(file))
        ) from None
    if len(data) > MAX_FILE:
        raise SpecError(_too_long(name))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            Diagnostic(
                "E002", f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start} (line {line})", file=name,
                help="save the file as UTF-8",
            )
        ) from None  # fmt: skip
    return Source(name, _normal(text))


def source_of(text: str, name: str) -> Source:
    """A source from a text in memory. Raises SpecError (E004)."""
    if len(text) > MAX_FILE:
        raise SpecError(_too_long(name))
    return Source(name, _normal(text))


def _too_long(name: str) -> Diagnostic:
    return Diagnostic("E004", f"longer than {MAX_FILE // 1024} KiB, which no spec file is", file=name)


def _normal(text: str) -> str:
    """Without a byte order mark, lines ended by a line feed: columns and line numbers stay those of an editor."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _neighbour(file: Path) -> str:
    """A did-you-mean over the files beside a missing one."""
    try:
        names = [other.name for other in itertools.islice(file.parent.iterdir(), 1000)] if file.parent.is_dir() else []
    except OSError:
        return ""
    close = closest(file.name, names)
    return f"did you mean `{file.with_name(close)}`?" if close else ""
