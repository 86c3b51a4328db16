"""YAML as nodes with their places in the user's file.

In: a text. Out: scalars, sequences and mappings, or what is wrong with the text as YAML. Works on YAML events, so that duplicate
keys are seen, nothing is ever constructed from a tag, and an alias cannot multiply anything. A plain `no`, `1e3` or `null` is the
text that was typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from .diagnostics import Diagnostic, Label, SpecError
from .parse import TARGET
from .source import Source, Span

MAX_NESTING = 8
"""Deepest nesting of YAML collections; a spec file needs four."""


@dataclass(frozen=True, slots=True)
class Scalar:
    value: str
    style: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Mapping:
    items: tuple[tuple[Node, Node], ...]
    span: Span


Node: TypeAlias = Scalar | Sequence | Mapping

KINDS = {Scalar: "a text", Sequence: "a list", Mapping: "a mapping"}


def compose(source: Source) -> Node:
    """The one document of a text. Raises SpecError (E005, E006, E011)."""
    return _Composer(source).compose()


class _Composer:
    """YAML events to nodes; refuses what spec files have no use for."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def compose(self) -> Node:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            events = yaml.parse(self.source.text, Loader=loader)
            root: Node | None = None
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                    raise self._refused(event, "a second document", "keep one spec per file")
                if isinstance(event, yaml.NodeEvent):
                    root = self._node(event, events, 0)
        except yaml.MarkedYAMLError as error:
            raise SpecError(self._syntax(error)) from None
        except yaml.YAMLError as error:
            raise SpecError(Diagnostic("E005", f"not YAML: {error}", file=self.source.name)) from None
        if root is None:
            help_ = "`einsmith explain E006` shows a whole spec"
            raise SpecError(Diagnostic("E006", "the file holds nothing but comments", file=self.source.name, help=help_))
        return root

    def _node(self, event: Any, events: Any, depth: int) -> Node:
        import yaml

        start = event.start_mark.index
        if isinstance(event, yaml.AliasEvent):
            raise self._refused(event, f"the alias `*{event.anchor}`", "write the value out")
        if event.anchor is not None:
            raise self._refused(event, f"the anchor `&{event.anchor}`", "write the value out wherever it is used")
        if event.tag is not None:
            raise self._refused(event, f"the tag `{event.tag}`", "remove it")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, event.style or None, self._span(start, event))
        if depth >= MAX_NESTING:
            raise self._refused(event, f"nesting more than {MAX_NESTING} deep", "")
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._node(event, events, depth + 1))
            return Sequence(tuple(items), self._span(start, event))
        pairs = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth + 1)
            pairs.append((key, self._node(next(events), events, depth + 1)))
        return Mapping(tuple(pairs), self._span(start, event))

    def _span(self, start: int, event: Any) -> Span:
        return Span(self.source, start, event.end_mark.index)

    def _refused(self, event: Any, what: str, help_: str) -> SpecError:
        start = event.start_mark.index
        end = max(start + 1, min(event.end_mark.index, self._line_end(start)))
        return SpecError(
            Diagnostic("E011", f"spec files do not use this part of YAML: {what}", Span(self.source, start, end), help=help_)
        )

    def _line_end(self, start: int) -> int:
        end = self.source.text.find("\n", start)
        return len(self.source.text) if end == -1 else end

    def _syntax(self, error: Any) -> Diagnostic:
        mark: Any = error.problem_mark or error.context_mark
        text = self.source.text
        at = min(mark.index, len(text)) if mark else 0
        for each in (error.context_mark, error.problem_mark):
            if each is not None and (einsum := TARGET.match(text, text.rfind("\n", 0, each.index) + 1)) is not None:
                help_ = "Einsums stand below `cascade: |`, all indented alike; so do comments between them"
                place = Span(self.source, einsum.start(1), max(einsum.end(1), einsum.end(2)))
                return Diagnostic("E005", "not YAML: an Einsum that is not part of the cascade", place, help=help_)
        line_start = text.rfind("\n", 0, at) + 1
        lead = re.match(r"[ ]*\t", text[line_start : self._line_end(line_start)])
        if lead is not None:
            tab = line_start + lead.end() - 1
            return Diagnostic(
                "E005", "a tab in the indentation", Span(self.source, tab, tab + 1), help="YAML is indented with spaces alone"
            )
        others: tuple[Label, ...] = ()
        context = error.context_mark
        if context is not None and error.context and context.index < at:
            others = (Label(Span(self.source, context.index, context.index + 1), error.context),)
        problem = error.problem or error.context or "not YAML"
        return Diagnostic(
            "E005", f"not YAML: {problem}", Span(self.source, at, at + 1), others=others, help=self._yaml_help(problem)
        )

    def _yaml_help(self, problem: str) -> str:
        if "%" in problem or "directive" in problem or "token" in problem:
            return "put the value in double quotes"
        if "expected ','" in problem:
            return "close the bracket, or put a value that holds brackets or commas in double quotes"
        if "mapping values" in problem:
            return "a key goes on a line of its own, indented like the keys beside it"
        if "expected key" in problem or "block end" in problem:
            return "indent this line like the keys beside it"
        return ""
