"""Cascades to text: the canonical spec file, and its parts.

In: a cascade, an Einsum or an expression. Out: text of the spec language with as few parentheses as it takes; what is printed of a
cascade parses back to an equal cascade. Comments are not part of a cascade and are not printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from .cascade import (
    COMPARISONS,
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    Tensor,
    free_ranks,
)

WIDTH = 110
"""Longest line that a mapping is put on, characters."""

# How tightly an operator binds; what stands in its place must bind at least as tightly. As in Python.
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(9)
_BINARY = {
    "or": _OR, "and": _AND, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT, "**": _POWER,
    **dict.fromkeys(COMPARISONS, _COMPARE),
}  # fmt: skip


# --- expressions ------------------------------------------------------------------------------------------------------


def print_expr(expr: Expr) -> str:
    """One expression."""
    return _print(expr, False)[0]


def _print(expr: Expr, tight: bool) -> tuple[str, int]:
    """Text of an expression and how tightly it binds; `tight` leaves out the spaces round operators."""
    match expr:
        case Number(value=value):
            return _number(value), _ATOM
        case Scalar(name=name) | Coord(rank=name):
            return name, _ATOM
        case Access(tensor=tensor, indices=indices):
            return (f"{tensor}[{_indices(indices)}]" if indices else tensor), _ATOM
        case Reduce(op=op, ranks=ranks, body=body):
            return f"{op}[{','.join(ranks)}]({_print(body, tight)[0]})", _ATOM
        case Scan(op=op, rank=rank, body=body) | Select(op=op, rank=rank, body=body):
            return f"{op}[{rank}]({_print(body, tight)[0]})", _ATOM
        case Map():
            return _map(expr, tight)


def _indices(indices: Iterable[Expr]) -> str:
    return ",".join(_print(index, True)[0] for index in indices)


def _number(value: int | float) -> str:
    if value == float("inf"):
        return "inf"
    return repr(value)


def _map(expr: Map, tight: bool) -> tuple[str, int]:
    op, args = expr.op, expr.args
    if op == "neg":
        return "-" + _at_least(args[0], _UNARY, tight), _UNARY
    if op == "not":
        return "not " + _at_least(args[0], _NOT, tight), _NOT
    if op == "and" and (chain := _chain(expr)) is not None:
        operands, ops = chain
        text = _at_least(operands[0], _SUM, tight)
        for each, operand in zip(ops, operands[1:], strict=True):
            text += _spaced(each, tight) + _at_least(operand, _SUM, tight)
        return text, _COMPARE
    if op in _BINARY:
        level = _BINARY[op]
        left, right = level, level + 1
        if op in COMPARISONS:
            left = _SUM
        elif op == "**":
            left, right = _ATOM, _UNARY
        return _at_least(args[0], left, tight) + _spaced(op, tight) + _at_least(args[1], right, tight), level
    if op in ("min", "max"):
        args = _flat(expr)
    comma = "," if tight else ", "
    return f"{op}({comma.join(_print(arg, tight)[0] for arg in args)})", _ATOM


def _spaced(op: str, tight: bool) -> str:
    if op in ("and", "or"):
        return f" {op} "
    return op if tight or op == "**" else f" {op} "


def _at_least(expr: Expr, level: int, tight: bool) -> str:
    text, binds = _print(expr, tight)
    return text if binds >= level else f"({text})"


def _chain(expr: Expr) -> tuple[list[Expr], list[str]] | None:
    """Operands and operators of `a < b and b < c`, which is `a < b < c`; None if it is no chain."""
    if isinstance(expr, Map) and expr.op in COMPARISONS:
        return [expr.args[0], expr.args[1]], [expr.op]
    if isinstance(expr, Map) and expr.op == "and":
        left, right = _chain(expr.args[0]), expr.args[1]
        if left is not None and isinstance(right, Map) and right.op in COMPARISONS and right.args[0] == left[0][-1]:
            return [*left[0], right.args[1]], [*left[1], right.op]
    return None


def _flat(expr: Map) -> tuple[Expr, ...]:
    """Arguments of pairs of `min` or `max` nested to the left."""
    first, last = expr.args
    if isinstance(first, Map) and first.op == expr.op:
        return (*_flat(first), last)
    return (first, last)


# --- Einsums ----------------------------------------------------------------------------------------------------------


def print_einsum(einsum: Einsum, cascade: Cascade) -> str:
    """`NAME[indices] = expression`; a sum that the language implies is left out."""
    return f"{_left(einsum)} = {_right(einsum, cascade)}"


def _left(einsum: Einsum) -> str:
    return f"{einsum.output}[{_indices(einsum.indices)}]" if einsum.indices else einsum.output


def _right(einsum: Einsum, cascade: Cascade) -> str:
    body = einsum.body
    if isinstance(body, Reduce) and _is_implied(einsum, body, cascade):
        body = body.body
    return print_expr(body)


def _is_implied(einsum: Einsum, body: Reduce, cascade: Cascade) -> bool:
    """Would the product or quotient alone be read as this sum?"""
    inner = body.body
    if body.op != "sum" or not (isinstance(inner, Map) and inner.op in ("*", "/")):
        return False
    if cascade.tensor(einsum.output).kind == "scatter":
        return False
    left = frozenset().union(*(free_ranks(index) for index in einsum.indices)) if einsum.indices else frozenset()
    return free_ranks(inner) - left == set(body.ranks) and not left & set(body.ranks)


# --- files ------------------------------------------------------------------------------------------------------------


def print_cascade(cascade: Cascade) -> str:
    """The whole spec file."""
    lines = [f"name: {_scalar(cascade.name)}"]
    if cascade.doc:
        lines += _doc(cascade.doc)
    ranks = [(rank.name, _rank(rank)) for rank in cascade.ranks if rank.part_of is None]
    lines += _mapping("ranks", ranks, block=any(rank.split for rank in cascade.ranks))
    lines += _mapping("inputs", [(tensor.name, _tensor(tensor)) for tensor in cascade.inputs], block=True)
    lines += _mapping("params", [(name, _formula(expr)) for name, expr in cascade.params])
    lines += _mapping("sizes", [(name, str(value)) for name, value in cascade.sizes])
    targets = [(tensor.name, f"[{', '.join(tensor.ranks)}]") for tensor in cascade.tensors if tensor.kind == "scatter"]
    lines += _mapping("tensors", targets, block=True)
    lines.append("cascade: |")
    width = max((len(_left(einsum)) for einsum in cascade.einsums if len(_left(einsum)) <= 30), default=0)
    lines += [f"  {_left(einsum):<{width}} = {_right(einsum, cascade)}" for einsum in cascade.einsums]
    lines.append(f"outputs: [{', '.join(cascade.outputs)}]")
    return "\n".join(lines) + "\n"


def _mapping(key: str, entries: list[tuple[str, str]], block: bool = False) -> list[str]:
    """A mapping on one line where it fits, else one line an entry."""
    if not entries:
        return []
    line = f"{key}: {{{', '.join(f'{name}: {value}' for name, value in entries)}}}"
    if not block and len(line) <= WIDTH:
        return [line]
    return [f"{key}:", *(f"  {name}: {value}" for name, value in entries)]


def _rank(rank: Rank) -> str:
    if rank.split is None:
        return _formula(rank.extent)
    split = rank.split
    count = f", count: {split.count}" if split.count is not None else ""
    return f"{{extent: {_formula(rank.extent)}, split: [{split.outer}, {split.inner}], tile: {_formula(split.tile)}{count}}}"


def _tensor(tensor: Tensor) -> str:
    ranks = f"[{', '.join(tensor.ranks)}]"
    return ranks if tensor.dtype == "float" else f"{{ranks: {ranks}, dtype: {tensor.dtype}}}"


_PLAIN = re.compile(r"[A-Za-z0-9_.(][A-Za-z0-9_.()*/+ -]*")


def _formula(expr: Expr) -> str:
    """An expression as a YAML scalar."""
    tight = _print(expr, True)[0]
    text = tight if len(tight) <= 16 else print_expr(expr)
    return text if _PLAIN.fullmatch(text) else f'"{text}"'


def _scalar(text: str) -> str:
    """Any text as a YAML scalar on one line."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,;()'+*/=<>-]*( [A-Za-z0-9_.,;()'+*/=<>-]+)*", text):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar: JSON's escapes are YAML's."""
    plain = json.dumps(text, ensure_ascii=False)
    return "".join(c if " " <= c <= "~" or c.isalnum() else _escape(c) for c in plain)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _doc(doc: str) -> list[str]:
    """`doc:` on one line if it is short, else as a literal text."""
    if "\n" not in doc and len(doc) <= WIDTH:
        return [f"doc: {_scalar(doc)}"]
    body = doc.removesuffix("\n")
    lines = body.split("\n")
    simple = all(line == line.rstrip() and all(" " <= c <= "~" or c.isalnum() for c in line) for line in lines)
    if not simple or not lines[0] or lines[0].startswith(" ") or not lines[-1]:
        return [f"doc: {_quoted(doc)}"]
    return [f"doc: {'|' if doc.endswith(chr(10)) else '|-'}", *(f"  {line}" if line else "" for line in lines)]
