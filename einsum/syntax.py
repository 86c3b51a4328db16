"""Syntax: what was typed, with positions, before any name has a meaning.

Positions are character offsets from the start of the text that was parsed (one statement, or one expression), so that equal
texts share one tree; `resolve` adds where the text stands in its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A number; `value` as Python reads it."""

    value: int | float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Name:
    """A name alone: a rank variable, a scalar, or a tensor without indices."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Index:
    """`name[indices]`."""

    name: Name
    indices: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """`function(args)`."""

    function: Name
    args: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Bound:
    """`function[ranks](args)`: a reduction, scan or selection."""

    function: Name
    ranks: tuple[Node, ...]
    args: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x` or `not x`."""

    op: str
    operand: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`, comparisons excepted."""

    op: str
    left: Node
    right: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """`a < b <= c`: operands and the comparisons between them."""

    operands: tuple[Node, ...]
    ops: tuple[str, ...]
    start: int
    end: int


Node: TypeAlias = Literal | Name | Index | Call | Bound | Unary | Binary | Chain


@dataclass(frozen=True, slots=True)
class Statement:
    """`target = value`; `indices` is None where the target was written without brackets."""

    target: Name
    indices: tuple[Node, ...] | None
    value: Node
    start: int
    end: int
    left_end: int
    """End of the left-hand side."""


def children(node: Node) -> tuple[Node, ...]:
    """Direct parts of a node, names of functions and tensors left out."""
    match node:
        case Index(indices=parts) | Call(args=parts) | Chain(operands=parts):
            return parts
        case Bound(ranks=ranks, args=args):
            return (*ranks, *args)
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case _:
            return ()
