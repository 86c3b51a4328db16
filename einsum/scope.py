"""Names of a spec: which stands for what, and what is said about those that do not.

A `Scope` holds every name of one file and collects diagnostics. `poisoned` names are known, but their declaration or definition is
wrong: nothing more is said about what uses them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from . import parse
from .cascade import MAP_OPS, REDUCTIONS, SCANS, SELECTIONS
from .diagnostics import Diagnostic, Label, closest
from .document import Document, Text
from .source import Span

FUNCTIONS = frozenset(name for name in MAP_OPS if name.isalnum() and name not in ("neg", "and", "or", "not"))
"""Map operations that are written as calls."""
BINDERS = frozenset((*REDUCTIONS, *SCANS, *SELECTIONS))
RESERVED = FUNCTIONS | BINDERS | {"and", "or", "not", "inf"}
NO_SYMBOLS = {"true", "false", "nan", "infinity", "none", "null"}
"""Values of other languages, which do not become extents by standing in one."""

Kind = Literal["rank", "extent", "count", "parameter", "tensor"]
ARTICLE = {"rank": "a rank", "extent": "an extent", "count": "a count", "parameter": "a parameter", "tensor": "a tensor"}


@dataclass(frozen=True, slots=True)
class Known:
    """What a name means and where it was declared."""

    kind: Kind
    span: Span | None


class Scope:
    """The names of one file, and what is wrong with it."""

    def __init__(self, document: Document, problems: list[Diagnostic]) -> None:
        self.document = document
        self.source = document.source
        self.problems = list(problems)
        self.names: dict[str, Known] = {}
        self.poisoned: set[str] = set(document.lost)
        self.said: set[str] = set()
        """Undefined names that were reported."""
        self.failed = False
        """Set when the text being converted has an error."""

    def error(self, code: str, message: str, span: Span, label: str = "", help_: str = "", others: tuple[Label, ...] = ()) -> None:
        self.failed = True
        self.problems.append(Diagnostic(code, message, span, label, others, help_))

    def undefined(self, what: str, name: str, span: Span, help_: str) -> None:
        """A name that nothing declares: said once, and not where declarations could not be read."""
        self.failed = True
        if not self.document.incomplete and name not in self.said:
            self.said.add(name)
            self.error("E103", f"undefined {what} `{name}`", span, help_=help_)

    def where_declared(self, name: str, words: str = "declared here") -> tuple[Label, ...]:
        span = self.names[name].span
        return (Label(span, words),) if span is not None else ()

    def suggestion(self, name: str, among: Iterable[str]) -> str:
        close = closest(name, among) if len(self.problems) < MAX_SUGGESTIONS else None
        return f"did you mean `{close}`?" if close else ""

    def declare(self, text: Text, kind: Kind) -> bool:
        """Enter a name; False, and an error, where it cannot be one or is taken."""
        name, span = text.value, text.span
        if not _is_name(name):
            odd = next((c for c in name if not c.isascii()), None)
            hint = "a name is an ASCII letter or `_`, then letters, digits and `_`"
            if odd is not None and (instead := parse.ascii_for(odd)):
                hint = f"`{odd}` is {parse.character_name(odd)}; write the ASCII `{instead}`"
            self.error("E107", f"`{name[:40]}` cannot be the name of {ARTICLE[kind]}", at_least_one(span), help_=hint)
        elif name in RESERVED:
            self.error(
                "E107",
                f"`{name}` cannot be the name of {ARTICLE[kind]}: it is part of the language",
                span,
                help_="choose another name",
            )
        elif name in self.names and self.names[name].span is not None:
            known = self.names[name]
            same = known.kind == kind
            message = f"{kind} `{name}` is declared twice" if same else f"`{name}` is already {ARTICLE[known.kind]}"
            self.error(
                "E108",
                message,
                span,
                "" if same else f"cannot be {ARTICLE[kind]} too",
                "ranks, extents, parameters and tensors share one name space",
                self.where_declared(name, f"{ARTICLE[known.kind]} here" if not same else "first here"),
            )
            return False
        else:
            self.names[name] = Known(kind, span)
            return True
        self.poisoned.add(name)
        self.names.setdefault(name, Known(kind, None))
        return False


MAX_SUGGESTIONS = 60
"""After so many errors no more names are looked for: they are not shown anyway."""


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier()


def at_least_one(span: Span) -> Span:
    """The span, or the one character at its place if it is empty."""
    return span if span.end > span.start else Span(span.source, span.start, span.start + 1)
