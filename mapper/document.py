"""YAML files with positions: architectures and mappings.

In: a path and a pydantic model. Out: the model, or diagnostics with the line and column of each wrong key or value (all of
them at once, unknown keys with the nearest known one). Aliases are refused: these files have no need of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.source import Source, Span

Place = tuple[str | int, ...]
MAX_CHARACTERS = 2_000_000
"""Longest file read, characters."""


class Block(BaseModel):
    """One block of a file: immutable, and no key that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


@dataclass
class Document:
    """A file as plain data, with the span of every key (`keys`) and value (`values`) by its path from the top."""

    source: Source
    data: Any
    keys: dict[Place, Span] = field(default_factory=dict)
    values: dict[Place, Span] = field(default_factory=dict)

    def span(self, place: Place) -> Span | None:
        """Where the value at a path stands; of the nearest enclosing block if it is not there."""
        while place and place not in self.values:
            place = place[:-1]
        return self.values.get(place)


def read(path: str | Path) -> Document:
    """Read a file. Raises EinsmithError (E501) where it is not there, not UTF-8, or not YAML."""
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise EinsmithError(Diagnostic("E501", f"cannot read: {error.strerror}", file=name)) from None
    except UnicodeDecodeError:
        raise EinsmithError(Diagnostic("E501", "not UTF-8 text", file=name)) from None
    return reads(text, name)


def reads(text: str, name: str = "<string>") -> Document:
    """The same from a text."""
    source = Source(name, text)
    if len(text) > MAX_CHARACTERS:
        raise EinsmithError(Diagnostic("E501", f"longer than {MAX_CHARACTERS:,} characters", file=name))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        span = Span(source, mark.index, mark.index + 1) if mark else None
        raise EinsmithError(Diagnostic("E501", f"not YAML: {error.problem or error.context}", span, file=name)) from None
    except (yaml.YAMLError, RecursionError):
        raise EinsmithError(Diagnostic("E501", "not YAML, or nested too deeply", file=name)) from None
    document = Document(source, None)
    if node is None:
        raise EinsmithError(Diagnostic("E501", "the file is empty", file=name))
    document.data = _plain(node, document, (), set())
    return document


def _plain(node: yaml.Node, document: Document, place: Place, seen: set[int]) -> Any:
    span = Span(document.source, node.start_mark.index, max(node.end_mark.index, node.start_mark.index + 1))
    if id(node) in seen:
        raise EinsmithError(Diagnostic("E501", "an alias (`*name`) is not allowed here", span, help="write the value again"))
    seen.add(id(node))
    document.values[place] = span
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            key_span = Span(document.source, key_node.start_mark.index, key_node.end_mark.index)
            if key in result:
                raise EinsmithError(Diagnostic("E501", f"key `{key}` stands twice", key_span))
            document.keys[(*place, key)] = key_span
            result[key] = _plain(value_node, document, (*place, key), seen)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, document, (*place, i), seen) for i, item in enumerate(node.value)]
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError):
        raise EinsmithError(Diagnostic("E501", f"not a plain value: `{node.value}`", span)) from None


def validate(model: type[Model], document: Document) -> Model:
    """The document as a model. Raises EinsmithError with one E502 per wrong key or value."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        found: dict[tuple[str, Place], Diagnostic] = {}
        errors = error.errors()
        for item in errors:
            if item["type"] == "too_short" and any(
                other["loc"][: len(item["loc"])] == item["loc"] and other is not item for other in errors
            ):
                continue  # its items are there, but wrong: they have their own diagnostics
            diagnostic = _diagnostic(item, document, model)
            found.setdefault((diagnostic.message, tuple(item["loc"])), diagnostic)
        raise EinsmithError(list(found.values())) from None


def _diagnostic(item: Any, document: Document, model: type[BaseModel]) -> Diagnostic:
    place = _real(tuple(item["loc"]), document)
    dotted = ".".join(str(part) for part in place) or "the file"
    if item["type"] == "extra_forbidden":
        known = _known(model, place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        help_text = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(f'`{name}`' for name in known)}"
        return Diagnostic("E502", f"unknown key `{place[-1]}`", document.keys.get(place), "not a key of this block", help=help_text)
    if item["type"] == "missing":
        block = ".".join(str(part) for part in place[:-1])
        where = f"`{block}` lacks" if block else "the file lacks"
        span = document.keys.get(place[:-1]) or _first(document.span(place[:-1]))
        return Diagnostic("E502", f"{where} the key `{place[-1]}`", span, file=document.source.name)
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    stem = "must be " if str(item["msg"]).startswith("Input should be") else ""
    return Diagnostic(
        "E502", f"`{dotted}`: {stem}{message[:1].lower() + message[1:]}", document.span(place), file=document.source.name
    )


def _first(span: Span | None) -> Span | None:
    return Span(span.source, span.start, span.start + 1) if span else None


def _real(place: Place, document: Document) -> Place:
    """The path without the steps that pydantic adds for branches of unions."""
    at: Any = document.data
    real: list[str | int] = []
    for i, part in enumerate(place):
        if isinstance(at, dict):
            if part in at:
                at = at[part]
            elif i < len(place) - 1:
                continue
            real.append(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
            real.append(part)
    return tuple(real)


def _known(model: type[BaseModel], place: Place) -> list[str]:
    """Keys declared for the block at a path of the model."""
    at: Any = model
    for part in place:
        at = next((inner for inner in _step(at, part) if inner is not None), None)
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, BaseModel) else []


def _step(at: Any, part: str | int) -> list[Any]:
    if isinstance(at, type) and issubclass(at, BaseModel) and part in at.model_fields:
        at = at.model_fields[str(part)].annotation
        return [_block(at)]
    origin = get_origin(at)
    if origin in (dict, list, tuple):
        return [_block(get_args(at)[-1] if origin is dict else get_args(at)[0])]
    return [None]


def _block(annotation: Any) -> Any:
    """The annotation with `None` and plain types of a union taken away."""
    if get_origin(annotation) in (Union, UnionType):
        choices = [part for part in get_args(annotation) if _is_block(part)]
        return choices[0] if choices else annotation
    return annotation


def _is_block(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, list, tuple) or (isinstance(annotation, type) and issubclass(annotation, BaseModel))


OPTIONAL = frozenset({"expansions"})
"""Mappings that a file may leave out: a setting inside one makes it."""


def override(document: Document, settings: tuple[str, ...], resolve: Callable[[list[str]], list[str]]) -> None:
    """Apply `NAME.KEY=VALUE` settings (values in YAML) to the data. Raises EinsmithError (E503) for one that names nothing.

    `resolve` turns the path as the user gave it into the path from the top of the file.
    """
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        if not equals or not dotted.strip():
            raise EinsmithError(
                Diagnostic("E503", f"`{setting}` is not NAME.KEY=VALUE", help="for example `--set array2d.side=[128,256]`")
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise EinsmithError(Diagnostic("E503", f"`{text}` is not a YAML value")) from None
        path = resolve(dotted.strip().split("."))
        at = document.data
        for part in path[:-1]:
            if isinstance(at, dict) and part in OPTIONAL:
                at.setdefault(part, {})
            if not isinstance(at, dict) or part not in at:
                known = list(at) if isinstance(at, dict) else []
                close = difflib.get_close_matches(part, known, 1)
                help_text = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(f'`{n}`' for n in known)}"
                raise EinsmithError(
                    Diagnostic("E503", f"`{dotted}`: nothing is named `{part}`", file=document.source.name, help=help_text)
                )
            at = at[part]
        if not isinstance(at, dict):
            raise EinsmithError(Diagnostic("E503", f"`{dotted}`: `{path[-2]}` has no keys", file=document.source.name))
        at[path[-1]] = value
        place = tuple(path)
        for spans in (document.values, document.keys):
            for inner in [known for known in spans if known[: len(place)] == place]:
                del spans[inner]
        source = Source("--set", setting)
        start = len(dotted) + 1
        document.values[place] = Span(source, start, max(len(setting), start + 1))
        document.keys[place] = Span(source, 0, len(dotted))
