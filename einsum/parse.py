"""Text to syntax: logical lines of a cascade, then one tree for each.

In: a stretch of a source file. Out: statements (or one expression) with positions, and a diagnostic for every statement that is
none. Each statement is parsed on its own, so an error in one hides nothing in the others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from .cascade import MAP_OPS, REDUCTIONS, SCANS, SELECTIONS
from .diagnostics import Diagnostic, Label
from .source import Source, Span
from .syntax import Binary, Bound, Call, Chain, Index, Literal, Name, Node, Statement, Unary, children

MAX_BRACKETS = 100
"""Deepest nesting of brackets."""
MAX_DEPTH = 200
"""Deepest nesting of operations: every later stage walks expressions recursively."""
MAX_STATEMENT = 10_000
"""Longest statement, characters."""
MAX_CASCADE = 64 * 1024
"""Longest cascade, characters."""
MAX_REMEMBERED = 500
"""Longest text whose tree is kept, characters."""
MAX_INT = 2**63 - 1

_CLOSER = {"(": ")", "[": "]"}
_INTERESTING = re.compile(r"[()\[\]#\n]")

TARGET = re.compile(r"[ \t]*([A-Za-z_]\w*)[ \t]*(\[[^\[\]=\n]*\])?[ \t]*=(?!=)")
"""The left-hand side of a statement, as far as it can be told without parsing."""
_NOT_ALLOWED = re.compile(r"[^\t\n\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A statement and the place in the file that its offsets count from."""

    statement: Statement
    base: int


def statements(source: Source, start: int, end: int) -> tuple[list[Parsed], list[Diagnostic]]:
    """All statements in `source.text[start:end]` and what is wrong with the others."""
    if end - start > MAX_CASCADE:
        place = Span(source, start, min(end, start + 1))
        return [], [
            Diagnostic(
                "E105", f"a cascade of {end - start} characters; the most is {MAX_CASCADE}", place, help="split it into specs"
            )
        ]
    parsed: list[Parsed] = []
    problems: list[Diagnostic] = []
    for line_start, line_end, trouble in _logical_lines(source, start, end):
        if trouble is not None:
            problems.append(_odd_in(source, line_start, line_end) or trouble)
            continue
        result = _checked(source, line_start, line_end, "statement")
        if isinstance(result, Diagnostic):
            problems.append(result)
        else:
            assert isinstance(result, Statement)
            parsed.append(Parsed(result, line_start))
    return parsed, problems


def expression(source: Source, start: int, end: int) -> Node | Diagnostic:
    """The expression that `source.text[start:end]` holds, or what is wrong with it."""
    for _, _, trouble in _logical_lines(source, start, end):
        if trouble is not None:
            return _odd_in(source, start, end) or trouble
    result = _checked(source, start, end, "expression")
    assert not isinstance(result, Statement)
    return result


# --- logical lines ----------------------------------------------------------------------------------------------------


def _logical_lines(source: Source, start: int, end: int) -> Iterator[tuple[int, int, Diagnostic | None]]:
    """(start, end, trouble) of each statement, blank lines and comments left out; trouble is about its brackets."""
    text = source.text
    position = begin = start
    comment = -1
    """Start of the comment at the end of the statement, if it has one."""
    stack: list[int] = []
    trouble: Diagnostic | None = None

    def finish(stop: int) -> Iterator[tuple[int, int, Diagnostic | None]]:
        first = begin
        while first < stop and text[first] in " \t\n":
            first += 1
        if first < stop:
            yield first, stop, trouble
        elif trouble is not None:
            yield begin, stop, trouble

    while position < end:
        match = _INTERESTING.search(text, position, end)
        if match is None:
            break
        char, at = match[0], match.start()
        position = at + 1
        if char == "#":
            if not stack and comment < 0:
                comment = at
            newline = text.find("\n", at, end)
            position = end if newline == -1 else newline
        elif char == "\n":
            if stack and not TARGET.match(text, position, end):
                continue
            if stack:
                trouble = trouble or _unclosed(source, stack[-1])
            yield from finish(at if comment < 0 else comment)
            begin, comment, trouble, stack = position, -1, None, []
        elif char in _CLOSER:
            stack.append(at)
            if len(stack) > MAX_BRACKETS and trouble is None:
                span = Span(source, at, at + 1)
                trouble = Diagnostic("E105", f"brackets are nested more than {MAX_BRACKETS} deep", span, "too deep from here on")
        elif not stack:
            trouble = trouble or Diagnostic(
                "E104", f"`{char}` closes nothing", Span(source, at, at + 1), help="remove it, or open the bracket before it"
            )
        else:
            opener = stack.pop()
            if _CLOSER[text[opener]] != char:
                trouble = trouble or Diagnostic(
                    "E104",
                    f"`{char}` does not close `{text[opener]}`",
                    Span(source, at, at + 1),
                    f"expected `{_CLOSER[text[opener]]}`",
                    (Label(Span(source, opener, opener + 1), "opened here"),),
                )
    if stack:
        trouble = trouble or _unclosed(source, stack[-1])
    yield from finish(end if comment < 0 else comment)


def _unclosed(source: Source, opener: int) -> Diagnostic:
    char = source.text[opener]
    return Diagnostic(
        "E104", f"`{char}` is never closed", Span(source, opener, opener + 1), help=f"add `{_CLOSER[char]}` where the list ends"
    )


def _odd_in(source: Source, start: int, end: int) -> Diagnostic | None:
    """A look-alike bracket makes the others look wrong: it goes first."""
    odd = _odd_character(source.text[start : min(end, start + MAX_STATEMENT)])
    return None if odd is None else odd.at(source, start)


# --- one text to one tree ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Problem:
    """A diagnostic whose place counts from the start of the parsed text."""

    code: str
    message: str
    start: int
    end: int
    label: str = ""
    help: str = ""

    def at(self, source: Source, base: int) -> Diagnostic:
        span = Span(source, base + self.start, base + self.end)
        return Diagnostic(self.code, self.message, span, self.label, help=self.help)


def _checked(source: Source, start: int, end: int, kind: str) -> Statement | Node | Diagnostic:
    if end - start > MAX_STATEMENT:
        return Diagnostic(
            "E105", f"a {kind} of {end - start} characters; the most is {MAX_STATEMENT}", Span(source, start, start + 1),
            help="name its parts with Einsums of their own",
        )  # fmt: skip
    text = source.text[start:end].rstrip()
    result = _remembered(text, kind) if len(text) <= MAX_REMEMBERED else _parse(text, kind)
    if isinstance(result, _Problem):
        return result.at(source, start)
    return result


@lru_cache(maxsize=4096)
def _remembered(text: str, kind: str) -> Statement | Node | _Problem:
    return _parse(text, kind)


def _parse(text: str, kind: str) -> Statement | Node | _Problem:
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    odd = _odd_character(text)
    if odd is not None:
        return odd
    try:
        tree: Statement | Node = _parser().parse(text, start=kind)
    except UnexpectedCharacters as error:
        return _bad_character(text, error.pos_in_stream or 0)
    except UnexpectedToken as error:
        return _unexpected(text, error, kind)
    except _Refused as error:
        return error.problem
    return _too_deep(tree) or tree


@cache
def _parser() -> Any:
    from lark import Lark

    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    starts = ["statement", "expression"]
    return Lark(grammar, start=starts, parser="lalr", lexer="basic", transformer=_builder(), maybe_placeholders=True)


class _Refused(Exception):
    def __init__(self, problem: _Problem) -> None:
        self.problem = problem


def _builder() -> Any:
    """A lark transformer from grammar rules to syntax nodes, called while parsing: no tree of lark's is ever built."""
    from lark import Token, Transformer, v_args

    def name_of(token: Any) -> Name:
        return Name(str(token), token.start_pos, token.end_pos)

    @v_args(inline=True)
    class Build(Transformer[Token, Any]):
        def statement(self, target: Name | Index, _equals: Any, value: Node) -> Statement:
            if isinstance(target, Name):
                return Statement(target, None, value, target.start, value.end, target.end)
            return Statement(target.name, target.indices, value, target.start, value.end, target.end)

        def expressions(self, *parts: Any) -> tuple[Node, ...]:
            return tuple(part for part in parts if part is not None and not isinstance(part, Token))

        def number(self, token: Any) -> Node:
            return _number(str(token), token.start_pos, token.end_pos)

        def name(self, token: Any) -> Node:
            return name_of(token)

        def index(self, token: Any, _open: Any, indices: tuple[Node, ...] | None, close: Any) -> Node:
            return Index(name_of(token), indices or (), token.start_pos, close.end_pos)

        def call(self, token: Any, _open: Any, args: tuple[Node, ...] | None, close: Any) -> Node:
            return Call(name_of(token), args or (), token.start_pos, close.end_pos)

        def bound(
            self, token: Any, _a: Any, ranks: tuple[Node, ...] | None, _b: Any, _c: Any, args: tuple[Node, ...] | None, close: Any
        ) -> Node:  # fmt: skip
            return Bound(name_of(token), ranks or (), args or (), token.start_pos, close.end_pos)

        def group(self, opening: Any, inner: Node, close: Any) -> Node:
            return replace(inner, start=opening.start_pos, end=close.end_pos)

        def unary(self, op: Any, operand: Node) -> Node:
            return Unary(str(op), operand, op.start_pos, operand.end)

        def binary(self, left: Node, op: Any, right: Node) -> Node:
            return Binary(str(op), left, right, left.start, right.end)

        def chain(self, *parts: Any) -> Node:
            return Chain(parts[::2], tuple(map(str, parts[1::2])), parts[0].start, parts[-1].end)

    return Build()


def _number(text: str, start: int, end: int) -> Literal:
    if text.isdigit():
        if len(text) > 19 or int(text) > MAX_INT:
            raise _Refused(
                _Problem("E106", "a whole number above 2**63 - 1", start, end, help="write it as a float, such as `1e20`")
            )
        return Literal(int(text), start, end)
    value = float(text)
    if value == float("inf"):
        raise _Refused(_Problem("E106", f"`{text}` is beyond float64", start, end, help="write `inf` for infinity"))
    return Literal(value, start, end)


def _too_deep(tree: Statement | Node) -> _Problem | None:
    stack: list[tuple[Node, int]] = [(tree.value if isinstance(tree, Statement) else tree, 1)]
    if isinstance(tree, Statement):
        stack += [(index, 1) for index in tree.indices or ()]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            message = f"operations are nested more than {MAX_DEPTH} deep"
            advice = "name its parts with Einsums of their own"
            return _Problem("E105", message, node.start, node.start + 1, "too deep from here on", advice)
        stack += [(part, depth + 1) for part in children(node)]
    return None


# --- what is wrong with a text ----------------------------------------------------------------------------------------

LOOK_ALIKES = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/",
    "∕": "/", "⁄": "/", "≤": "<=", "≥": ">=", "≠": "!=", "∞": "inf", "←": "=", "∧": "and", "∨": "or",
    "¬": "not", "√": "sqrt", "Σ": "sum", "∑": "sum", "∏": "prod", "²": "**2", "“": "", "”": "", "‘": "",
    "’": "", "′": "", "⟨": "(", "⟩": ")", "【": "[", "】": "]", "、": ",", "。": ".", "А": "A",
    "В": "B", "С": "C", "Е": "E", "Н": "H", "І": "I", "Ј": "J", "К": "K", "М": "M", "О": "O",
    "Р": "P", "Ѕ": "S", "Т": "T", "Х": "X", "У": "Y", "а": "a", "с": "c", "е": "e", "һ": "h",
    "і": "i", "ј": "j", "о": "o", "р": "p", "ѕ": "s", "х": "x", "у": "y", "ԛ": "q", "ԝ": "w",
    "Α": "A", "Β": "B", "Ε": "E", "Ζ": "Z", "Η": "H", "Ι": "I", "Κ": "K", "Μ": "M", "Ν": "N",
    "Ο": "O", "Ρ": "P", "Τ": "T", "Υ": "Y", "Χ": "X", "ο": "o", "ν": "v", "ρ": "p", "ı": "i",
}  # fmt: skip
"""Characters that look like ASCII ones (or mean one of them in mathematics), and what to write."""


def _odd_character(text: str) -> _Problem | None:
    """The first character outside ASCII, comments left out."""
    match = _NOT_ALLOWED.search(text)
    while match is not None:
        line_start = text.rfind("\n", 0, match.start()) + 1
        if "#" not in text[line_start : match.start()]:
            return _bad_character(text, match.start())
        match = _NOT_ALLOWED.search(text, match.end())
    return None


def ascii_for(char: str) -> str | None:
    """What to write for a character that only looks right; "" for nothing at all; None if that is unknown."""
    if char in LOOK_ALIKES:
        return LOOK_ALIKES[char]
    folded = unicodedata.normalize("NFKC", char)
    if folded != char and folded.isascii():
        return folded.strip()
    folded = unicodedata.normalize("NFKD", char)
    letters = "".join(c for c in folded if c.isascii() and c.isprintable())
    if letters:
        return letters
    return "" if unicodedata.category(char) in ("Cf", "Zs", "Zl", "Zp") else None


def character_name(char: str) -> str:
    """`U+041C CYRILLIC CAPITAL LETTER EM`."""
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()


_ASCII_HELP = {
    "&": "write `and`", "|": "write `or`", "!": "write `not`", "^": "write `**` for a power", "{": "indices stand in `[...]`",
    ";": "write one statement per line", "\\": "a line goes on while a bracket is open; no backslash is needed",
    "'": "names are written without quotes", '"': "names are written without quotes", "@": "write the product with indices, `*`",
    ":": "slices are not part of the language; write a rank variable", "?": "write `where(c, x, y)`",
    ".": "a number has a digit before or after its point; infinity is `inf`",
}  # fmt: skip


def _bad_character(text: str, at: int) -> _Problem:
    char = text[at]
    if text.startswith(":=", at):
        return _Problem("E102", "unexpected `:=`", at, at + 2, help="write `=`")
    if char == "." and re.search(r"[A-Za-z_]\w*$", text[:at]):
        return _Problem(
            "E102", "unexpected character `.`", at, at + 1, help="a name holds letters, digits and `_`, and nothing has parts"
        )
    if char.isascii():
        return _Problem("E102", f"unexpected character `{char}`", at, at + 1, help=_ASCII_HELP.get(char, ""))
    instead = ascii_for(char)
    shown = f"`{char}` " if char.isprintable() and not char.isspace() else ""
    if instead is None:
        hint = "write it in ASCII"
    elif not instead:
        hint = "remove it (or use a plain space)"
    else:
        hint = f"write the ASCII `{instead}`"
    return _Problem("E102", f"character {shown}({character_name(char)}) is not ASCII", at, at + 1, help=hint)


_OPERATORS = {"PLUS", "MINUS", "STAR", "DIVIDE", "POWER", "COMPARE", "AND", "OR"}
_STARTS = {"NAME", "NUMBER", "LPAR"}
_TOKENS = {"EQUALS": "`=`", "COMMA": "`,`", "LSQB": "`[`", "RSQB": "`]`", "LPAR": "`(`", "RPAR": "`)`", "NAME": "a name"}


def _unexpected(text: str, error: Any, kind: str) -> _Problem:
    """A message from the token that was found and those that would do."""
    token = error.token
    accepts = set(error.accepts or error.expected)
    wanted: list[str] = []
    if accepts >= _STARTS:
        wanted.append("an expression")
        accepts -= _STARTS | {"MINUS", "NOT"}
    if accepts >= _OPERATORS - {"COMPARE"} or accepts & {"PLUS", "STAR"}:
        wanted.append("an operator")
        accepts -= _OPERATORS
    wanted += [_TOKENS[name] for name in sorted(accepts) if name in _TOKENS and name not in ("LSQB", "LPAR")]
    if "$END" in accepts:
        wanted.append(f"the end of the {kind}")
    label = "expected " + _listing(wanted) if wanted else ""
    if token.type == "$END":
        end = len(text)
        if kind == "statement" and error.accepts and "EQUALS" in error.accepts:
            return _Problem("E101", "a statement without `=`", 0, end, help="write `NAME[indices] = expression`")
        return _Problem("E101", f"the {kind} ends too early", end, end + 1, label)
    start, end = token.start_pos, token.end_pos
    return _Problem("E101", f"unexpected `{token}`", start, end, label, _hint(text, token, kind, error))


_CALLED = re.compile(r"([A-Za-z_]\w*)(\[[^\[\]]*\])?\s*$")
_REDUCES = frozenset((*REDUCTIONS, *SCANS, *SELECTIONS))


def _hint(text: str, token: Any, kind: str, error: Any) -> str:
    before = text[: token.start_pos].rstrip()
    if token.type == "LSQB" and before.endswith("]"):
        return "all indices stand in one pair of brackets, `X[p,m]`"
    if "EQUALS" in (error.accepts or ()):
        return _hint_on_the_left(text, token)
    if token in ("if", "else"):
        return "write `where(condition, x, y)`"
    called = _CALLED.search(before)
    if token.type in ("NAME", "NUMBER") and called is not None and called[1] in MAP_OPS | dict.fromkeys(_REDUCES):
        return (
            f"put what it applies to in parentheses, `{called[1]}{called[2] or ('[ranks]' if called[1] in _REDUCES else '')}(...)`"
        )
    if token.type == "EQUALS":
        return "compare with `==`" if kind == "expression" or "=" in text[: token.start_pos] else ""
    if token.type == "PLUS" and error.accepts and "NUMBER" in error.accepts:
        return "there is no unary plus; remove it"
    if token.type == "NAME" and token.startswith("_") and text[: token.start_pos][-1:].isdigit():
        return "digits are written without `_`"
    if token.type in ("NAME", "NUMBER", "LPAR") and error.accepts and "STAR" in error.accepts:
        if before[-1:].isdigit() and token.type == "NAME" and before == text[: token.start_pos]:
            return "a product is written with `*`; a name cannot start with a digit"
        return "a product is written with `*`"
    return ""


def _hint_on_the_left(text: str, token: Any) -> str:
    if text[token.end_pos :].startswith("=") and token.type in ("PLUS", "MINUS", "STAR", "DIVIDE"):
        return "each tensor is defined once; a sum is written with `sum[ranks](...)`"
    if token.type == "LPAR":
        return "indices stand in brackets, `NAME[indices]`"
    return "write `NAME[indices] = expression`"


def _listing(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
