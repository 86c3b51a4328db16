"""The YAML of a spec file: its keys and raw texts, each with its place in the user's file.

In: a source. Out: a `Document` of typed pieces with spans, and diagnostics for what is not one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .diagnostics import Diagnostic, Label, SpecError, closest
from .parse import character_name
from .source import Source, Span
from .yaml_nodes import KINDS, Mapping, Node, Scalar, Sequence, compose

MAX_PROBLEMS = 200
"""Reading a mapping ends after so many errors; not all of them are shown anyway."""


# --- pieces -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar as typed. `exact`: the characters of `span` are those of `value`, so places in one are places in the other."""

    value: str
    span: Span
    exact: bool = True


@dataclass(frozen=True, slots=True)
class RankEntry:
    """`name: extent`, or with a split `name: {extent, split, tile, count}`."""

    name: Text
    extent: Text
    split: tuple[Text, Text] | None = None
    tile: Text | None = None
    count: Text | None = None


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """`name: [ranks]` or `name: {ranks, dtype}`; `ranks` is None where they could not be read."""

    name: Text
    ranks: tuple[Text, ...] | None
    dtype: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """`name: value` with one text as value; None where it could not be read."""

    name: Text
    value: Text | None


@dataclass
class Document:
    """The pieces of one spec file, in order."""

    source: Source
    name: str = ""
    doc: str = ""
    ranks: list[RankEntry] = field(default_factory=list)
    inputs: list[TensorEntry] = field(default_factory=list)
    params: list[Entry] = field(default_factory=list)
    sizes: list[Entry] = field(default_factory=list)
    targets: list[TensorEntry] = field(default_factory=list)
    cascade: Span | None = None
    outputs: list[Text] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Names whose declaration is there but wrong."""
    incomplete: bool = False
    """Whole declarations could not be read: what looks undefined may be in them."""


_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def read(source: Source) -> tuple[Document, list[Diagnostic]]:
    """The document and everything that is wrong with it, names and Einsums excepted."""
    bad = _UNPRINTABLE.search(source.text)
    document = Document(source)
    if bad is not None:
        span = Span(source, bad.start(), bad.end())
        return document, [
            Diagnostic("E002", f"character {character_name(bad[0])} cannot stand in a spec file", span, help="remove it")
        ]
    if not source.text.strip():
        return document, [
            Diagnostic("E006", "the file is empty", file=source.name, help="`einsmith explain E006` shows a whole spec")
        ]
    try:
        root = compose(source)
    except SpecError as error:
        return document, error.diagnostics
    reader = _Reader(document)
    reader.read(root)
    return document, reader.problems


_RANK_KEYS = ("extent", "split", "tile", "count")


class _Reader:
    """Nodes to pieces."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.source = document.source
        self.problems: list[Diagnostic] = []
        self.top: dict[str, Callable[[Node], None]] = {
            "name": self.name,
            "doc": self.doc,
            "ranks": self.ranks,
            "inputs": self.inputs,
            "params": self.params,
            "sizes": self.sizes,
            "tensors": self.targets,
            "cascade": self.cascade,
            "outputs": self.outputs,
        }

    def error(self, code: str, message: str, span: Span, label: str = "", help_: str = "", others: tuple[Label, ...] = ()) -> None:
        self.problems.append(Diagnostic(code, message, self.first_line(span), label, others, help_))

    def first_line(self, span: Span) -> Span:
        """The part of a span on its first line."""
        end = self.source.text.find("\n", span.start, span.end)
        return span if end == -1 else Span(self.source, span.start, max(end, span.start + 1))

    def read(self, root: Node) -> None:
        if not isinstance(root, Mapping):
            self.error("E006", f"a spec is a mapping of keys, not {KINDS[type(root)]}", root.span, help_="start with `name: ...`")
            return
        pairs = self.pairs(root, "the spec", self.top)
        present = {key.value for key, _ in pairs}
        present |= self.misspelt(root, self.top)
        for key_text, value in pairs:
            self.top[key_text.value](value)
        for key in ("cascade", "outputs"):
            if key not in present:
                example = "cascade: |" if key == "cascade" else "outputs: [NAME]"
                self.problems.append(
                    Diagnostic("E009", f"the key `{key}` is missing", file=self.source.name, help=f"add `{example}`")
                )

    def pairs(self, node: Node, where: str, allowed: Iterable[str] | None = None) -> list[tuple[Text, Node]]:
        """Key and value of each entry; wrong, unknown and repeated keys are reported and left out."""
        if not isinstance(node, Mapping):
            if not (isinstance(node, Scalar) and node.style is None and node.value in ("", "~", "null")):
                self.document.incomplete = True
                self.error("E010", f"{where} must be a mapping, not {KINDS[type(node)]}", node.span, help_="write `name: value`")
            return []
        found: list[tuple[Text, Node]] = []
        seen: dict[str, Span] = {}
        cut = False
        for key_node, value in node.items:
            if len(self.problems) > MAX_PROBLEMS:
                break
            if cut and isinstance(key_node, Scalar) and ")" in key_node.value and isinstance(value, Scalar) and not value.value:
                continue  # the rest of a value that YAML cut off at a comma
            cut = isinstance(value, Scalar) and self.is_cut(value)
            if not isinstance(key_node, Scalar):
                self.error("E010", f"a key of {where} must be a text, not {KINDS[type(key_node)]}", key_node.span)
                continue
            key = self.text_of(key_node)
            if key.value in seen:
                first = Label(seen[key.value], "first here")
                self.error("E008", f"the key `{key.value}` stands twice in {where}", key.span, "again", "remove one", (first,))
                continue
            seen[key.value] = key.span
            if allowed is not None and key.value not in allowed:
                names = list(allowed)
                close = closest(key.value, names)
                listing = ", ".join(f"`{name}`" for name in names)
                hint = f"did you mean `{close}`?" if close else f"{where} has the keys {listing}"
                self.document.incomplete |= not where.startswith("tensor")
                self.error("E007", f"unknown key `{key.value}` in {where}", key.span, help_=hint)
                continue
            found.append((key, value))
        return found

    def misspelt(self, node: Mapping, allowed: Iterable[str]) -> set[str]:
        """Keys that are not there, but one much like them is: they need not be reported as missing."""
        names = list(allowed)
        unknown = [key.value for key, _ in node.items if isinstance(key, Scalar) and key.value not in names][:MAX_PROBLEMS]
        return {close for name in unknown if (close := closest(name, names)) is not None}

    def text_of(self, node: Scalar) -> Text:
        """The text of a scalar, with the span of its characters alone."""
        start, end = node.span.start, node.span.end
        if node.style in ("'", '"'):
            start, end = start + 1, end - 1
        else:
            end = start + len(self.source.text[start:end].rstrip())
        exact = self.source.text[start:end] == node.value
        return Text(node.value, Span(self.source, start, max(end, start)), exact)

    def text(self, node: Node, what: str) -> Text | None:
        """A text, or None and an error."""
        if isinstance(node, Scalar):
            return self.text_of(node)
        self.error("E010", f"{what} must be a text, not {KINDS[type(node)]}", node.span)
        return None

    def formula(self, node: Node, what: str, missing: str = "write a number or an expression") -> Text | None:
        """A text in which places count: on one line, without escapes."""
        if not isinstance(node, Scalar):
            self.error(
                "E010",
                f"{what} must be a number or an expression, not {KINDS[type(node)]}",
                node.span,
                help_="put it in double quotes if it holds brackets",
            )
            return None
        text = self.text_of(node)
        if not text.value.strip():
            self.error(
                "E010",
                f"{what} has no value",
                Span(self.source, text.span.start, text.span.start + 1),
                help_=missing,
            )
            return None
        if self.is_cut(node):
            self.error(
                "E012",
                f"YAML ends {what} at this comma",
                Span(self.source, node.span.end, node.span.end + 1),
                help_="put the value in double quotes",
            )
            return None
        if not text.exact:
            self.error(
                "E012", f"{what} must stand on one line, without escapes", node.span, help_="write it plainly, or in single quotes"
            )
            return None
        return text

    def is_cut(self, node: Scalar) -> bool:
        """Did YAML end this value at a comma between parentheses?"""
        return (
            node.style is None and node.value.count("(") > node.value.count(")") and self.source.text.startswith(",", node.span.end)
        )

    def names(self, node: Node, what: str) -> tuple[Text, ...] | None:
        """A list of texts, or None and an error."""
        if not isinstance(node, Sequence):
            hint = "write it in brackets, such as `[a, b]`"
            if isinstance(node, Scalar) and (words := re.findall(r"\w+", node.value.partition("[")[2] or node.value)):
                hint = f"write `[{', '.join(words)}]`"
            self.error("E010", f"{what} must be a list, not {KINDS[type(node)]}", node.span, help_=hint)
            return None
        texts = [self.text(item, f"an entry of {what}") for item in node.items]
        return None if None in texts else tuple(text for text in texts if text is not None)

    # one method a key of the spec

    def name(self, node: Node) -> None:
        text = self.text(node, "`name`")
        if text is not None:
            if "\n" in text.value or not text.value.strip() or len(text.value) > 200:
                self.error("E010", "`name` must be one line of 1 to 200 characters", node.span)
            self.document.name = text.value

    def doc(self, node: Node) -> None:
        text = self.text(node, "`doc`")
        if text is not None:
            self.document.doc = text.value

    def ranks(self, node: Node) -> None:
        for key, value in self.pairs(node, "`ranks`"):
            if not isinstance(value, Mapping):
                example = (
                    f"write its extent, such as `{key.value}: {key.value.upper()}`"
                    if key.value.isidentifier()
                    else "write `rank: extent`"
                )
                extent = self.formula(value, f"the extent of rank `{key.value}`", example)
                if extent is None:
                    self.document.lost.add(key.value)
                else:
                    self.document.ranks.append(RankEntry(key, extent))
                continue
            self.rank(key, value)

    def rank(self, key: Text, value: Mapping) -> None:
        fields = {name.value: item for name, item in self.pairs(value, f"rank `{key.value}`", _RANK_KEYS)}
        misspelt = self.misspelt(value, _RANK_KEYS)
        extent = self.formula(fields["extent"], f"the extent of rank `{key.value}`") if "extent" in fields else None
        ok = extent is not None
        if "extent" not in fields and "extent" not in misspelt:
            self.error("E009", f"rank `{key.value}` has no `extent`", key.span, help_="add `extent: ...`")
        parts: tuple[Text, ...] | None = None
        tile = count = None
        if "split" in fields:
            parts = self.names(fields["split"], f"the split of rank `{key.value}`")
            if parts is not None and len(parts) != 2:
                self.error(
                    "E010", f"a split has two parts, not {len(parts)}", fields["split"].span, help_="write `split: [outer, inner]`"
                )
                self.document.lost.update(part.value for part in parts)
                self.document.incomplete = True
                parts = None
            ok = ok and parts is not None
            ok = ok and "tile" in fields
            if "tile" not in fields and "tile" not in misspelt:
                self.document.incomplete = True
                self.error(
                    "E009",
                    f"rank `{key.value}` is split but has no `tile`",
                    fields["split"].span,
                    help_="add `tile: ...`, the extent of the inner part",
                )
                ok = False
        for other in ("tile", "count"):
            if other in fields and "split" not in fields and "split" not in misspelt:
                self.error(
                    "E009",
                    f"rank `{key.value}` has a `{other}` but no `split`",
                    fields[other].span,
                    help_="add `split: [outer, inner]`",
                )
                ok = False
        if "tile" in fields:
            tile = self.formula(fields["tile"], f"the tile of rank `{key.value}`")
            ok = ok and tile is not None
        if "count" in fields:
            count = self.text(fields["count"], f"the count of rank `{key.value}`")
            ok = ok and count is not None
        if ok and extent is not None:
            split = (parts[0], parts[1]) if parts is not None else None
            self.document.ranks.append(RankEntry(key, extent, split, tile, count))
        else:
            self.document.lost.add(key.value)
            self.document.lost.update(part.value for part in parts or ())
            self.document.lost.update(text.value for text in (extent, tile, count) if text is not None)

    def tensors(self, node: Node, where: str, allowed: tuple[str, ...], into: list[TensorEntry]) -> None:
        for key, value in self.pairs(node, where):
            dtype: str | None = None
            ranks_node: Node | None = value
            if isinstance(value, Mapping):
                fields = {name.value: item for name, item in self.pairs(value, f"tensor `{key.value}`", allowed)}
                ranks_node = fields.get("ranks")
                if ranks_node is None and "ranks" not in self.misspelt(value, allowed):
                    self.error("E009", f"tensor `{key.value}` has no `ranks`", key.span, help_="add `ranks: [...]`")
                if "dtype" in fields:
                    text = self.text(fields["dtype"], f"the dtype of `{key.value}`")
                    if text is not None and text.value not in ("float", "int", "bool"):
                        self.error("E010", f"unknown dtype `{text.value}`", text.span, help_="write `float`, `int` or `bool`")
                    elif text is not None:
                        dtype = text.value
            ranks = self.names(ranks_node, f"the ranks of `{key.value}`") if ranks_node is not None else None
            into.append(TensorEntry(key, ranks, dtype))

    def inputs(self, node: Node) -> None:
        self.tensors(node, "`inputs`", ("ranks", "dtype"), self.document.inputs)

    def targets(self, node: Node) -> None:
        self.tensors(node, "`tensors`", ("ranks",), self.document.targets)

    def params(self, node: Node) -> None:
        for key, value in self.pairs(node, "`params`"):
            self.document.params.append(Entry(key, self.formula(value, f"parameter `{key.value}`")))

    def sizes(self, node: Node) -> None:
        for key, value in self.pairs(node, "`sizes`"):
            self.document.sizes.append(Entry(key, self.formula(value, f"the size of `{key.value}`")))

    def cascade(self, node: Node) -> None:
        if not isinstance(node, Scalar):
            self.error(
                "E010",
                f"`cascade` must be a text, not {KINDS[type(node)]}",
                node.span,
                help_="write `cascade: |` and the Einsums below it, indented",
            )
            return
        if node.style == "|":
            body = self.source.text.find("\n", node.span.start) + 1
            self.document.cascade = Span(self.source, body or node.span.end, max(node.span.end, body))
        elif node.style == ">":
            self.error(
                "E012",
                "`cascade` is a folded text (`>`), which joins its lines",
                Span(self.source, node.span.start, node.span.start + 1),
                help_="write `cascade: |`",
            )
        else:
            text = self.text_of(node)
            if not text.exact:
                self.error(
                    "E012",
                    "`cascade` must be a literal text (`|`) or stand on one line, without escapes",
                    node.span,
                    help_="write `cascade: |`",
                )
                return
            self.document.cascade = text.span
        if self.document.cascade is not None and not node.value.strip():
            self.document.cascade = None
            self.error(
                "E009", "`cascade` holds no Einsum", node.span, help_="write `NAME[indices] = expression` below it, indented"
            )

    def outputs(self, node: Node) -> None:
        names = self.names(node, "`outputs`")
        if names is not None and not names:
            self.error("E009", "`outputs` names no tensor", node.span, help_="list the tensors to compute, such as `outputs: [AV]`")
        self.document.outputs = list(names or ())
