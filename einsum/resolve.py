"""Names to meanings: syntax and declarations become the cascade IR.

In: a `Document` and its parsed statements. Out: a `Cascade`, and diagnostics. Here: which name is what, functions and their
arguments, implicit sums, what a selection fills, which definitions make a state. What a cascade built so must fulfil beyond that
is `verify`'s table. A name whose declaration or definition is wrong stays known but poisoned: nothing more is said about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal as OneOf

from . import parse, syntax
from .cascade import (
    SELECTIONS,
    Cascade,
    Coord,
    DType,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Select,
    Split,
    Tensor,
    ceil_div,
    free_ranks,
    walk,
)
from .diagnostics import Diagnostic, Label
from .document import Document, Entry, TensorEntry, Text
from .dtypes import tensor_dtypes
from .expressions import Expressions
from .scope import ARTICLE, MAX_SUGGESTIONS, NO_SYMBOLS, RESERVED, Known, at_least_one
from .sizes import MAX_EXTENT
from .source import Span


@dataclass
class Resolved:
    """A cascade, as far as it could be built, and what is wrong. `poisoned`: tensors that say nothing about themselves."""

    cascade: Cascade
    problems: list[Diagnostic]
    poisoned: frozenset[str]


def resolve(document: Document, problems: list[Diagnostic]) -> Resolved:
    """The cascade of a document. `problems` are those of the document itself; they come first in the result."""
    return _Resolver(document, problems).run()


class _Resolver(Expressions):
    def __init__(self, document: Document, problems: list[Diagnostic]) -> None:
        super().__init__(document, problems)
        self.params: list[tuple[str, Expr]] = []
        self.tensors: list[Tensor] = []
        self.einsums: list[Einsum] = []
        self.targets: dict[str, Tensor] = {}
        self.dropped: set[int] = set()
        """Identities of the Einsums that are wrong, or define again what is defined."""

    def run(self) -> Resolved:
        document = self.document
        for name in document.lost:
            self.names.setdefault(name, Known("rank", None))
        self.declare_ranks()
        self.resolve_params()
        self.build_ranks()
        self.check_scalar_cycles()
        for entry in document.inputs:
            self.declare_tensor(entry, "input", self.tensors)
        declared: list[Tensor] = []
        for entry in document.targets:
            self.declare_tensor(entry, "scatter", declared)
        self.targets = {tensor.name: tensor for tensor in declared}
        self.resolve_statements()
        self.resolve_outputs()
        sizes = self.resolve_sizes()
        inputs = {tensor.name: tensor.dtype for tensor in self.tensors if tensor.kind == "input"}
        dtypes = tensor_dtypes(inputs, tuple(self.einsums), tuple(self.params))
        tensors = tuple(
            tensor
            if tensor.kind == "input"
            else Tensor(tensor.name, tensor.ranks, dtypes.get(tensor.name, "float"), tensor.kind, tensor.iterates, tensor.span)
            for tensor in self.tensors
        )
        cascade = Cascade(
            document.name, tuple(self.ranks), tuple(self.params), tensors, tuple(self.einsums),
            tuple(text.value for text in document.outputs), tuple(sizes), document.doc,
        )  # fmt: skip
        return Resolved(cascade, self.problems, frozenset(self.poisoned))

    # --- declarations ---

    def declare_ranks(self) -> None:
        for entry in self.document.ranks:
            if not self.declare(entry.name, "rank"):
                for part in (*(entry.split or ()), *((entry.count,) if entry.count is not None else ())):
                    self.names.setdefault(part.value, Known("rank", None))
                    self.poisoned.add(part.value)
                continue
            for part in entry.split or ():
                self.declare(part, "rank")
            if entry.count is not None:
                self.declare(entry.count, "count")
        for param in self.document.params:
            if self.declare(param.name, "parameter") and param.value is None:
                self.poisoned.add(param.name.value)

    def extent(self, text: Text, what: str, declares: bool) -> Expr:
        """An expression of scalars; with `declares`, a new name in it becomes an extent symbol."""
        self.scalars_only = what
        tree = parse.expression(self.source, text.span.start, text.span.end)
        try:
            if isinstance(tree, Diagnostic):
                self.problems.append(tree)
                self.failed = True
                return _UNKNOWN
            if declares:
                for node in _names_in(tree):
                    if node.text not in self.names and node.text not in RESERVED and node.text.lower() not in NO_SYMBOLS:
                        self.names[node.text] = Known("extent", self.span(node, text.span.start))
            before = len(self.problems)
            expr = self.expression(tree, text.span.start)
            return _UNKNOWN if len(self.problems) > before else expr
        finally:
            self.scalars_only = ""

    def build_ranks(self) -> None:
        for entry, extent in zip(self.document.ranks, self.extents, strict=True):
            known = self.names.get(entry.name.value)
            if known is None or known.span is not entry.name.span:
                continue
            split = None
            parts: list[Rank] = []
            if entry.split is not None and entry.tile is not None:
                outer, inner = entry.split
                tile = self.tiles[entry.name.value]
                count = entry.count.value if entry.count is not None else None
                split = Split(outer.value, inner.value, tile, count)
                many = Scalar(count) if count is not None else ceil_div(extent, tile)
                parts = [
                    Rank(outer.value, many, None, entry.name.value, outer.span),
                    Rank(inner.value, tile, None, entry.name.value, inner.span),
                ]
            self.ranks.append(Rank(entry.name.value, extent, split, None, entry.name.span))
            self.ranks.extend(part for part in parts if self.names[part.name].span is part.span)

    def resolve_params(self) -> None:
        """Extents of ranks (which declare symbols), then parameters in order."""
        self.extents: list[Expr] = []
        self.tiles: dict[str, Expr] = {}
        for entry in self.document.ranks:
            self.failed = False
            self.extents.append(self.extent(entry.extent, "an extent", True))
            if entry.tile is not None:
                self.tiles[entry.name.value] = self.extent(entry.tile, "a tile", True)
        seen: set[str] = set()
        all_params = {param.name.value: param for param in self.document.params}
        for param in self.document.params:
            name = param.name.value
            self.failed = False
            if param.value is None or self.names[name].span is not param.name.span:
                seen.add(name)
                continue
            expr = self.extent(param.value, "a parameter", False)
            if not self.failed:
                for node in walk(expr):
                    if isinstance(node, Scalar) and node.name in all_params and node.name not in seen:
                        assert node.span is not None
                        self.error(
                            "E202", f"parameter `{node.name}` is used before it is defined", node.span,
                            help_="put it above" if node.name != name else "a parameter cannot stand in its own value",
                            others=self.where_declared(node.name, "defined here"),
                        )  # fmt: skip
            if self.failed:
                self.poisoned.add(name)
            else:
                self.params.append((name, expr))
            seen.add(name)

    def check_scalar_cycles(self) -> None:
        """Parameters and counts must not need one another in a circle."""
        counts = {
            rank.split.count: ceil_div(rank.extent, rank.split.tile) for rank in self.ranks if rank.split and rank.split.count
        }
        defined = dict(self.params) | counts
        needs = {
            name: [node.name for node in walk(expr) if isinstance(node, Scalar) and node.name in defined]
            for name, expr in defined.items()
        }
        while len(self.problems) < MAX_SUGGESTIONS and (circle := _circle(needs)) is not None:
            span = self.names[circle[0]].span
            if span is not None:
                shown = " -> ".join(f"`{name}`" for name in (circle if len(circle) < 6 else [*circle[:3], "...", circle[-1]]))
                self.error("E215", f"`{circle[0]}` needs its own value: {shown}", span, help_="give one of them a value of its own")
            for name in set(circle):
                del needs[name]

    def declare_tensor(self, entry: TensorEntry, kind: OneOf["input", "scatter"], into: list[Tensor]) -> None:
        fresh = self.declare(entry.name, "tensor")
        if entry.ranks is None:
            self.poisoned.add(entry.name.value)
            return
        good = True
        for text in entry.ranks:
            known = self.names.get(text.value)
            if known is None:
                ranks = [name for name, other in self.names.items() if other.kind == "rank"]
                hint = (
                    self.suggestion(text.value, ranks) or f"declare it under `ranks:`, such as `{text.value}: {text.value.upper()}`"
                )
                self.undefined("rank", text.value, at_least_one(text.span), hint)
                good = False
            elif known.kind != "rank":
                self.error(
                    "E110", f"`{text.value}` is {ARTICLE[known.kind]}, not a rank", text.span,
                    help_="a tensor is declared with rank variables, not extents", others=self.where_declared(text.value),
                )  # fmt: skip
                good = False
            elif text.value in self.poisoned:
                good = False
        if not good:
            self.poisoned.add(entry.name.value)
        if fresh:
            dtype: DType = "int" if entry.dtype == "int" else "bool" if entry.dtype == "bool" else "float"
            into.append(Tensor(entry.name.value, tuple(text.value for text in entry.ranks), dtype, kind, None, entry.name.span))

    # --- statements ---

    def resolve_statements(self) -> None:
        span = self.document.cascade
        if span is None:
            return
        parsed, problems = parse.statements(self.source, span.start, span.end)
        self.document.incomplete |= span.end - span.start > parse.MAX_CASCADE
        self.problems += problems
        incomplete = bool(problems)
        for diagnostic in problems:
            self.poison_left_side(diagnostic)
        inputs = {tensor.name for tensor in self.tensors}
        groups: dict[str, list[parse.Parsed]] = {}
        for each in parsed:
            target = each.statement.target
            name = target.text
            where = self.span(target, each.base)
            if name in self.names and self.names[name].kind == "tensor":
                if name in inputs:
                    self.error(
                        "E203",
                        f"`{name}` is an input and cannot be defined",
                        where,
                        help_="choose another name",
                        others=self.where_declared(name),
                    )
                    continue
            elif name in self.poisoned:
                continue
            elif not self.declare(Text(name, where), "tensor"):
                self.poisoned.add(name)
                continue
            groups.setdefault(name, []).append(each)
        for each in parsed:
            name = each.statement.target.text
            if any(each is other for other in groups.get(name, ())):
                self.resolve_statement(each)
        definitions: dict[str, list[Einsum]] = {}
        for einsum in self.einsums:
            definitions.setdefault(einsum.output, []).append(einsum)
        for name, found in definitions.items():
            self.define_tensor(name, found)
        self.einsums = [einsum for einsum in self.einsums if id(einsum) not in self.dropped]
        for name, tensor in self.targets.items():
            if name not in groups and not incomplete and tensor.span is not None and name not in self.poisoned:
                self.error(
                    "E212",
                    f"`{name}` is declared under `tensors:` but never defined",
                    tensor.span,
                    help_=f"add `{name}[...] = ...` to the cascade",
                )

    def poison_left_side(self, diagnostic: Diagnostic) -> None:
        """A statement that does not parse still defines the name that it starts with, and what stands before another `=`."""
        assert diagnostic.span is not None
        assert self.document.cascade is not None
        text = self.source.text
        start = max(text.rfind("\n", 0, diagnostic.span.start) + 1, self.document.cascade.start)
        before = max(text.rfind("\n", 0, max(0, start - 1)) + 1, self.document.cascade.start)
        end = text.find("\n", start)
        line = text[start : end if end != -1 else len(text)][:MAX_LINE]
        names = [match[1] or match[2] for match in _ASSIGNED.finditer(line)]
        if (again := parse.TARGET.match(text, before)) is not None:
            names.append(again[1])
        for name in names:
            known = self.names.setdefault(name, Known("tensor", None))
            if known.kind == "tensor":
                self.poisoned.add(name)

    def resolve_statement(self, each: parse.Parsed) -> None:
        statement, base = each.statement, each.base
        self.failed = False
        indices = tuple(self.expression(index, base) for index in statement.indices or ())
        left = frozenset().union(*(free_ranks(index) for index in indices)) if indices else frozenset()
        body = self.right_side(statement.value, base, left)
        name = statement.target.text
        if self.failed or body is None:
            self.poisoned.add(name)
            return
        self.einsums.append(Einsum(name, indices, body, self.span(statement, base)))

    def right_side(self, node: syntax.Node, base: int, left: frozenset[str]) -> Expr | None:
        if isinstance(node, syntax.Bound) and node.function.text in SELECTIONS:
            return self.selection(node, base, left)
        body = self.expression(node, base)
        if self.failed or not _sums_implicitly(node):
            return body
        summed = free_ranks(body) - left
        if not summed:
            return body
        return Reduce("sum", self.in_order(summed), body, self.span(node, base))

    def selection(self, node: syntax.Bound, base: int, left: frozenset[str]) -> Expr | None:
        op = node.function.text
        ranks, body = self.binder(node, base)
        if self.failed:
            return None
        span = self.span(node.function, base)
        new = self.in_order(left - free_ranks(body))
        if len(new) != 1 or new[0] == ranks[0]:
            others = "" if not new else " (here: " + ", ".join(f"`{rank}`" for rank in new) + ")"
            self.error(
                "E209",
                f"`{op}[{ranks[0]}]` must fill exactly one rank on the left that does not stand in its expression{others}",
                span,
                help_=f"declare a rank for the results, such as `j: J`, and write `NAME[..., j] = {op}[{ranks[0]}](...)`",
            )
            return None
        return Select(op, ranks[0], new[0], body, self.span(node, base))

    def define_tensor(self, name: str, definitions: list[Einsum]) -> None:
        """The declaration of a tensor from its definitions: plain, scattered, or a running state."""
        if name in self.targets:
            self.define_target(self.targets[name], definitions)
        elif all(isinstance(index, Coord) for einsum in definitions for index in einsum.indices):
            self.define_plain(name, definitions)
        else:
            self.define_state(name, definitions)

    def define_plain(self, name: str, definitions: list[Einsum]) -> None:
        first = definitions[0]
        ranks = tuple(index.rank for index in first.indices if isinstance(index, Coord))
        self.twice(definitions)
        self.tensors.append(Tensor(name, ranks, span=self.left_span(first)))

    def twice(self, definitions: list[Einsum]) -> None:
        for again in definitions[1:]:
            self.error(
                "E203", f"`{again.output}` is defined twice", self.left_span(again), help_="give it another name",
                others=(Label(self.left_span(definitions[0]), "first defined here"),),
            )  # fmt: skip
            self.dropped.add(id(again))

    def left_span(self, einsum: Einsum) -> Span:
        assert einsum.span is not None
        end = einsum.span.start + len(einsum.output)
        if einsum.indices and einsum.indices[-1].span is not None:
            end = self.source.text.find("]", einsum.indices[-1].span.end) + 1
        return Span(self.source, einsum.span.start, end)

    def define_target(self, target: Tensor, definitions: list[Einsum]) -> None:
        self.twice(definitions)
        einsum = definitions[0]
        bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
        left = frozenset().union(*(free_ranks(index) for index in einsum.indices)) if einsum.indices else frozenset()
        plain = tuple(map(Coord, target.ranks)) == einsum.indices and not left & set(bound)
        self.tensors.append(Tensor(target.name, target.ranks, "float", "einsum" if plain else "scatter", None, target.span))

    def define_state(self, name: str, definitions: list[Einsum]) -> None:
        """Initial value and step of a running state."""
        steps = [(einsum, i) for einsum in definitions for i, index in enumerate(einsum.indices) if _is_next(index)]
        initials = [(einsum, i) for einsum in definitions for i, index in enumerate(einsum.indices) if index == Number(0)]
        good = True
        for einsum in definitions:
            for i, index in enumerate(einsum.indices):
                if not isinstance(index, Coord) and not _is_next(index) and index != Number(0):
                    self.bad_left_index(einsum, i)
                    good = False
        if not good:
            self.drop(definitions)
            return
        if not steps:
            self.error(
                "E213", f"state `{name}` has an initial value but no step", self.left_span(initials[0][0]),
                help_=f"add its step, such as `{name}[..., r+1] = ...` for an iterative rank `r`",
            )  # fmt: skip
        elif not initials:
            einsum, at = steps[0]
            shown = ",".join("0" if i == at else str(getattr(index, "rank", "...")) for i, index in enumerate(einsum.indices))
            self.error(
                "E213",
                f"state `{name}` has a step but no initial value",
                self.left_span(einsum),
                help_=f"add `{name}[{shown}] = ...`",
            )
        elif len(definitions) > 2 or len(steps) > 1 or len(initials) > 1:
            extra = definitions[2] if len(definitions) > 2 else definitions[1]
            self.error(
                "E203",
                f"state `{name}` is defined more than once",
                self.left_span(extra),
                help_="a state has one initial value and one step, along one rank",
                others=(Label(self.left_span(definitions[0]), "first defined here"),),
            )
        else:
            (step, at), (initial, start) = steps[0], initials[0]
            iterates = step.indices[at].args[0].rank  # type: ignore[union-attr]
            ranks = tuple(iterates if i == at else index.rank for i, index in enumerate(step.indices))  # type: ignore[union-attr]
            expected = tuple(Number(0) if i == at else Coord(rank) for i, rank in enumerate(ranks))
            if start != at or initial.indices != expected:
                shown = ",".join("0" if i == at else rank for i, rank in enumerate(ranks))
                self.error(
                    "E213",
                    f"initial value and step of state `{name}` have different indices",
                    self.left_span(initial),
                    help_=f"write `{name}[{shown}] = ...`",
                    others=(Label(self.left_span(step), "the step"),),
                )
            else:
                self.tensors.append(Tensor(name, ranks, kind="state", iterates=iterates, span=self.left_span(step)))
                return
        self.drop(definitions)

    def bad_left_index(self, einsum: Einsum, at: int) -> None:
        index = einsum.indices[at]
        assert index.span is not None
        if isinstance(index, Map) and index.op in ("+", "-") and any(isinstance(arg, Coord) for arg in index.args):
            rank = next(arg.rank for arg in index.args if isinstance(arg, Coord))
            self.error(
                "E213",
                "the step of a state is `+1`",
                index.span,
                f"expected `{rank}+1`",
                help_=f"write `{einsum.output}[..., {rank}+1, ...] = ...`; to scatter, declare the target under `tensors:`",
            )
            return
        self.error(
            "E205", "an index on the left must be a rank variable", index.span,
            help_=f"to scatter, declare the target: `tensors: {{{einsum.output}: [...]}}`; a state has `0` and `r+1` here",
        )  # fmt: skip

    def drop(self, definitions: list[Einsum]) -> None:
        self.poisoned.add(definitions[0].output)
        self.dropped.update(map(id, definitions))

    # --- the rest ---

    def resolve_outputs(self) -> None:
        seen: dict[str, Span] = {}
        tensors = {tensor.name: tensor for tensor in self.tensors}
        for text in self.document.outputs:
            known = self.names.get(text.value)
            span = at_least_one(text.span)
            if text.value in seen:
                self.error(
                    "E108",
                    f"output `{text.value}` is listed twice",
                    span,
                    help_="remove one",
                    others=(Label(seen[text.value], "first here"),),
                )
            elif known is None:
                hint = self.suggestion(text.value, [name for name, other in self.names.items() if other.kind == "tensor"])
                if self.document.cascade is not None:
                    self.undefined("tensor", text.value, span, hint or "an output is a tensor that the cascade defines")
            elif known.kind != "tensor" and text.value not in self.poisoned:
                self.error(
                    "E110", f"`{text.value}` is {ARTICLE[known.kind]}, not a tensor", span, others=self.where_declared(text.value)
                )
            elif text.value in tensors and tensors[text.value].kind == "input":
                self.error(
                    "E210",
                    f"output `{text.value}` is an input",
                    span,
                    help_="list tensors that the cascade defines",
                    others=self.where_declared(text.value),
                )
            seen.setdefault(text.value, span)

    def resolve_sizes(self) -> list[tuple[str, int]]:
        sizes: list[tuple[str, int]] = []
        for entry in self.document.sizes:
            known = self.names.get(entry.name.value)
            if known is None or known.kind != "extent":
                extents = [name for name, other in self.names.items() if other.kind == "extent"]
                hint = self.suggestion(entry.name.value, extents) or "sizes are given to " + (
                    ", ".join(f"`{name}`" for name in extents) or "extents of ranks"
                )
                if known is None:
                    self.undefined("extent", entry.name.value, at_least_one(entry.name.span), hint)
                elif entry.name.value not in self.poisoned:
                    self.error(
                        "E110",
                        f"`{entry.name.value}` is {ARTICLE[known.kind]}, not an extent",
                        entry.name.span,
                        help_=hint,
                        others=self.where_declared(entry.name.value),
                    )
                continue
            value = self.size(entry)
            if value is not None:
                sizes.append((entry.name.value, value))
        return sizes

    def size(self, entry: Entry) -> int | None:
        if entry.value is None:
            return None
        text = entry.value.value.strip()
        digits = text.removeprefix("+").removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
        if value is None or not 0 <= value <= MAX_EXTENT:
            shown = text if len(text) < 40 else text[:37] + "..."
            self.error(
                "E013",
                f"the size of `{entry.name.value}` is `{shown}`, not a whole number from 0 to 2**48",
                entry.value.span,
                help_="write it in digits, such as `4096`",
            )
            return None
        return value


_UNKNOWN = Scalar("?")
"""Stands for an extent that is wrong: nothing is known of it."""
MAX_LINE = 10_000
"""As much of a line that does not parse as is searched for names, characters."""
_ASSIGNED = re.compile(r"(?:^\s*|;\s*)([A-Za-z_]\w*)|\b([A-Za-z_]\w*)\s*(?:\[[^\[\]=]*\])?\s*:?=(?!=)")


def _circle(needs: dict[str, list[str]]) -> list[str] | None:
    """Names that need one another in a circle, the first of them again at the end."""
    try:
        TopologicalSorter({name: [other for other in others if other in needs] for name, others in needs.items()}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][::-1]  # graphlib lists each before the one that needs it
        return circle
    return None


def _is_next(index: Expr) -> bool:
    """`r+1`."""
    return isinstance(index, Map) and index.op == "+" and isinstance(index.args[0], Coord) and index.args[1] == Number(1)


def _sums_implicitly(node: syntax.Node) -> bool:
    """A product or quotient, an access, or one of them negated."""
    while isinstance(node, syntax.Unary) and node.op == "-":
        node = node.operand
    return isinstance(node, syntax.Index) or (isinstance(node, syntax.Binary) and node.op in ("*", "/"))


def _names_in(node: syntax.Node) -> Iterable[syntax.Name]:
    """Names that stand for values, in order; not those of functions and tensors with indices."""
    if isinstance(node, syntax.Name):
        yield node
    for part in syntax.children(node):
        yield from _names_in(part)
