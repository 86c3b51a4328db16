"""Spec files to cascades: the one way in.

In: a path, or a text. Out: a `Cascade` that `verify` finds nothing wrong with. Raises `SpecError` with every diagnostic of the
file, in the order of their places.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .cascade import Cascade
from .diagnostics import Diagnostic, SpecError
from .document import read
from .resolve import resolve
from .source import Source
from .spec_file import read_source, source_of
from .verify import verify, verify_rest

MAX_SHOWN = 50
"""Most diagnostics reported of one file."""


def load(path: str | Path) -> Cascade:
    """The cascade of a spec file."""
    return _load(read_source(path), Path(path).stem)


def loads(text: str, name: str = "<string>") -> Cascade:
    """The cascade of a text; `name` stands for it in diagnostics."""
    return _load(source_of(text, name), "cascade")


def _load(source: Source, default_name: str) -> Cascade:
    pieces, problems = read(source)
    resolved = resolve(pieces, problems)
    if resolved.problems:
        raise SpecError(_listed(resolved.problems + verify_rest(resolved.cascade, resolved.poisoned)))
    found = verify(resolved.cascade)
    if found:
        raise SpecError(_listed(found))
    cascade = resolved.cascade
    return cascade if cascade.name else replace(cascade, name=default_name)


def _listed(problems: list[Diagnostic]) -> list[Diagnostic]:
    """In the order of their places, those of the whole file first; no more than a reader can use."""
    ordered = sorted(problems, key=lambda problem: (problem.span.start, problem.span.end) if problem.span else (-1, -1))
    if len(ordered) <= MAX_SHOWN:
        return ordered
    rest = len(ordered) - MAX_SHOWN
    return [*ordered[:MAX_SHOWN], Diagnostic("E014", f"and {rest} more", file=ordered[0].file_name)]
