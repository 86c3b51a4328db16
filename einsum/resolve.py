"""Names to meanings: syntax and declarations become the cascade IR.

In: a `Document` and its parsed statements. Out: a `Cascade`, and diagnostics. Here: which name is what, functions and their
arguments, implicit sums, what a selection fills, which definitions make a state. What a cascade built so must fulfil beyond that
is `verify`'s table. A name whose declaration or definition is wrong stays known but poisoned: nothing more is said about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal as OneOf

from . import parse, syntax
from .cascade import (
    MAP_OPS,
    REDUCTIONS,
    SCANS,
    SELECTIONS,
    Access,
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
    Scan,
    Select,
    Split,
    Tensor,
    ceil_div,
    free_ranks,
    walk,
)
from .diagnostics import Diagnostic, Label, closest
from .document import Document, Entry, TensorEntry, Text
from .dtypes import tensor_dtypes
from .sizes import MAX_EXTENT
from .source import Span

FUNCTIONS = frozenset(name for name in MAP_OPS if name.isalnum() and name not in ("neg", "and", "or", "not"))
"""Map operations that are written as calls."""
BINDERS = frozenset((*REDUCTIONS, *SCANS, *SELECTIONS))
RESERVED = FUNCTIONS | BINDERS | {"and", "or", "not", "inf"}
NO_SYMBOLS = {"true", "false", "nan", "infinity", "none", "null"}
"""Values of other languages, which do not become extents by standing in one."""
ONE_RANK = frozenset(("argmax", "argmin", *SCANS, *SELECTIONS))

Kind = OneOf["rank", "extent", "count", "parameter", "tensor"]
_ARTICLE = {"rank": "a rank", "extent": "an extent", "count": "a count", "parameter": "a parameter", "tensor": "a tensor"}


@dataclass(frozen=True, slots=True)
class _Known:
    """What a name means and where it was declared."""

    kind: Kind
    span: Span | None


@dataclass
class Resolved:
    """A cascade, as far as it could be built, and what is wrong. `poisoned`: tensors that say nothing about themselves."""

    cascade: Cascade
    problems: list[Diagnostic]
    poisoned: frozenset[str]


def resolve(document: Document, problems: list[Diagnostic]) -> Resolved:
    """The cascade of a document. `problems` are those of the document itself; they come first in the result."""
    return _Resolver(document, problems).run()


class _Resolver:
    def __init__(self, document: Document, problems: list[Diagnostic]) -> None:
        self.document = document
        self.source = document.source
        self.problems = list(problems)
        self.names: dict[str, _Known] = {}
        self.poisoned: set[str] = set(document.lost)
        self.ranks: list[Rank] = []
        self.params: list[tuple[str, Expr]] = []
        self.tensors: list[Tensor] = []
        self.einsums: list[Einsum] = []
        self.targets: dict[str, Tensor] = {}
        self.dropped: set[int] = set()
        """Identities of the Einsums that are wrong, or define again what is defined."""
        self.said: set[str] = set()
        """Undefined names that were reported."""
        self.failed = False
        """Set when the text being converted has an error."""
        self.scalars_only = ""
        """What is being converted where ranks and tensors cannot stand; empty elsewhere."""

    def run(self) -> Resolved:
        document = self.document
        for name in document.lost:
            self.names.setdefault(name, _Known("rank", None))
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

    # --- diagnostics ---

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

    # --- declarations ---

    def declare(self, text: Text, kind: Kind) -> bool:
        """Enter a name; False, and an error, where it cannot be one or is taken."""
        name, span = text.value, text.span
        if not _is_name(name):
            odd = next((c for c in name if not c.isascii()), None)
            hint = "a name is an ASCII letter or `_`, then letters, digits and `_`"
            if odd is not None and (instead := parse.ascii_for(odd)):
                hint = f"`{odd}` is {parse.character_name(odd)}; write the ASCII `{instead}`"
            self.error("E107", f"`{name[:40]}` cannot be the name of {_ARTICLE[kind]}", _at_least_one(span), help_=hint)
        elif name in RESERVED:
            self.error(
                "E107",
                f"`{name}` cannot be the name of {_ARTICLE[kind]}: it is part of the language",
                span,
                help_="choose another name",
            )
        elif name in self.names and self.names[name].span is not None:
            known = self.names[name]
            same = known.kind == kind
            message = f"{kind} `{name}` is declared twice" if same else f"`{name}` is already {_ARTICLE[known.kind]}"
            self.error(
                "E108",
                message,
                span,
                "" if same else f"cannot be {_ARTICLE[kind]} too",
                "ranks, extents, parameters and tensors share one name space",
                self.where_declared(name, f"{_ARTICLE[known.kind]} here" if not same else "first here"),
            )
            return False
        else:
            self.names[name] = _Known(kind, span)
            return True
        self.poisoned.add(name)
        self.names.setdefault(name, _Known(kind, None))
        return False

    def declare_ranks(self) -> None:
        for entry in self.document.ranks:
            if not self.declare(entry.name, "rank"):
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
                        self.names[node.text] = _Known("extent", self.span(node, text.span.start))
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
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                circle = (*path[path.index(name) :], name)
                text = " -> ".join(f"`{each}`" for each in circle)
                span = self.names[name].span
                if span is not None:
                    self.error("E215", f"`{name}` needs its own value: {text}", span, help_="give one of them a value of its own")
                done.update(circle)
            elif name not in done:
                for other in needs[name]:
                    visit(other, (*path, name))
                done.add(name)

        for name in defined:
            visit(name, ())

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
                self.undefined("rank", text.value, _at_least_one(text.span), hint)
                good = False
            elif known.kind != "rank":
                self.error(
                    "E110", f"`{text.value}` is {_ARTICLE[known.kind]}, not a rank", text.span,
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
            known = self.names.setdefault(name, _Known("tensor", None))
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

    def in_order(self, ranks: Iterable[str]) -> tuple[str, ...]:
        order = {rank.name: i for i, rank in enumerate(self.ranks)}
        return tuple(sorted(ranks, key=lambda name: order.get(name, -1)))

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
            span = _at_least_one(text.span)
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
                    "E110", f"`{text.value}` is {_ARTICLE[known.kind]}, not a tensor", span, others=self.where_declared(text.value)
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
                    self.undefined("extent", entry.name.value, _at_least_one(entry.name.span), hint)
                elif entry.name.value not in self.poisoned:
                    self.error(
                        "E110",
                        f"`{entry.name.value}` is {_ARTICLE[known.kind]}, not an extent",
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

    # --- expressions ---

    def span(self, node: syntax.Node | syntax.Statement, base: int) -> Span:
        return Span(self.source, base + node.start, base + node.end)

    def expression(self, node: syntax.Node, base: int) -> Expr:
        span = Span(self.source, base + node.start, base + node.end)
        match node:
            case syntax.Literal(value=value):
                return Number(value, span)
            case syntax.Name():
                return self.name(node, span)
            case syntax.Index(name=name, indices=indices):
                self.tensor_name(name, base)
                return Access(name.text, tuple(self.expression(index, base) for index in indices), span)
            case syntax.Call():
                return self.call(node, base, span)
            case syntax.Bound():
                return self.bound(node, base, span)
            case syntax.Unary(op=op, operand=operand):
                return Map("neg" if op == "-" else op, (self.expression(operand, base),), span)
            case syntax.Binary(op=op, left=left, right=right):
                return Map(op, (self.expression(left, base), self.expression(right, base)), span)
            case syntax.Chain(operands=operands, ops=ops):
                parts = [self.expression(operand, base) for operand in operands]
                pairs = [Map(op, (a, b), span) for op, a, b in zip(ops, parts, parts[1:], strict=False)]
                result = pairs[0]
                for pair in pairs[1:]:
                    result = Map("and", (result, pair), span)
                return result

    def name(self, node: syntax.Name, span: Span) -> Expr:
        if node.text == "inf":
            return Number(float("inf"), span)
        known = self.names.get(node.text)
        if known is None:
            self.unknown(node.text, span)
            return Number(0, span)
        if known.kind in ("rank", "tensor") and self.scalars_only:
            if node.text not in self.poisoned:
                self.error(
                    "E215", f"{known.kind} `{node.text}` cannot stand in {self.scalars_only}", span,
                    help_=self.extent_of(node.text), others=self.where_declared(node.text),
                )  # fmt: skip
            self.failed = True
            return Number(0, span)
        if node.text in self.poisoned and known.kind != "tensor":
            self.failed = True
        if known.kind == "rank":
            return Coord(node.text, span)
        if known.kind == "tensor":
            return Access(node.text, (), span)
        return Scalar(node.text, span)

    def extent_of(self, name: str) -> str:
        """What to write for a rank where only scalars can stand."""
        found = next((entry.extent.value for entry in self.document.ranks if entry.name.value == name), None)
        return f"the extent of `{name}` is `{found}`" if found is not None else "use extents, counts and parameters"

    def unknown(self, name: str, span: Span) -> None:
        if name in BINDERS:
            self.error("E110", f"`{name}` needs ranks and an expression", span, help_=f"write `{name}[ranks](expression)`")
        elif name in FUNCTIONS:
            self.error("E110", f"`{name}` needs arguments", span, help_=f"write `{name}(...)`")
        elif name.lower() in NO_SYMBOLS:
            instead = {"true": "`0 == 0`", "false": "`0 == 1`", "infinity": "`inf`"}.get(name.lower(), "")
            self.undefined("name", name, span, f"write {instead}" if instead else "the language has no such value")
        else:
            hint = self.suggestion(name, self.names)
            if not hint and not self.scalars_only:
                hint = "declare it under `ranks:`, `inputs:` or `params:`, or define it above"
            elif not hint:
                hint = "extents are the symbols that stand in `ranks:`"
            self.undefined("name", name, span, hint)

    def tensor_name(self, node: syntax.Name, base: int) -> None:
        """The name before `[...]` must be a tensor's."""
        span = self.span(node, base)
        known = self.names.get(node.text)
        if known is None and node.text not in RESERVED:
            hint = self.suggestion(node.text, [name for name, other in self.names.items() if other.kind == "tensor"])
            self.undefined("tensor", node.text, span, hint or "declare it under `inputs:`, or define it above")
        elif known is None:
            self.unknown(node.text, span)
        elif node.text in self.poisoned:
            self.failed = self.failed or known.kind != "tensor"
        elif known.kind != "tensor":
            self.error(
                "E110", f"`{node.text}` is {_ARTICLE[known.kind]} and has no indices", span, others=self.where_declared(node.text)
            )
        elif self.scalars_only:
            self.error(
                "E215",
                f"tensor `{node.text}` cannot stand in {self.scalars_only}",
                span,
                help_="use extents, counts and parameters",
            )

    def call(self, node: syntax.Call, base: int, span: Span) -> Expr:
        name = node.function.text
        where = self.span(node.function, base)
        args = tuple(self.expression(arg, base) for arg in node.args)
        if name not in FUNCTIONS:
            self.not_a_function(name, where)
            return Number(0, span)
        arity = MAP_OPS[name]
        if name in ("min", "max"):
            if len(args) < 2:
                hint = (
                    f"the greatest over a rank is `{name}[rank](...)`"
                    if name == "max"
                    else f"the least over a rank is `{name}[rank](...)`"
                )
                self.error("E111", f"`{name}` takes two arguments or more, not {len(args)}", where, help_=hint)
                return Number(0, span)
            result = args[0]
            for arg in args[1:]:
                result = Map(name, (result, arg), span)
            return result
        if len(args) != arity:
            many = "one argument" if arity == 1 else f"{arity} arguments"
            self.error(
                "E111", f"`{name}` takes {many}, not {len(args)}", where, help_=f"write `{_SIGNATURES.get(name, name + '(x)')}`"
            )
            return Number(0, span)
        return Map(name, args, span)

    def not_a_function(self, name: str, where: Span) -> None:
        known = self.names.get(name)
        if name in BINDERS:
            self.error("E110", f"`{name}` needs the ranks that it runs over", where, help_=f"write `{name}[ranks](...)`")
        elif known is not None and name not in self.poisoned:
            hint = "index a tensor with brackets, `[...]`" if known.kind == "tensor" else "a product is written with `*`"
            self.error(
                "E110", f"`{name}` is {_ARTICLE[known.kind]}, not a function", where, help_=hint, others=self.where_declared(name)
            )
        elif known is None:
            close = closest(name, sorted(FUNCTIONS | BINDERS), 0.7)
            hint = f"did you mean `{close}`?" if close else f"the functions are {', '.join(sorted(FUNCTIONS))}"
            self.error("E109", f"unknown function `{name}`", where, help_=_INSTEAD.get(name.lower(), hint))
        self.failed = True

    def bound(self, node: syntax.Bound, base: int, span: Span) -> Expr:
        name = node.function.text
        if name in SELECTIONS:
            self.error(
                "E209", f"`{name}` must be the whole right-hand side of an Einsum", self.span(node.function, base),
                help_=f"define it as a tensor of its own, `NAME[..., j] = {name}[...](...)`, and use that",
            )  # fmt: skip
            return Number(0, span)
        ranks, body = self.binder(node, base)
        if not ranks:
            return Number(0, span)
        if name in SCANS:
            return Scan(name, ranks[0], body, span)
        return Reduce(name, self.in_order(ranks), body, span)

    def binder(self, node: syntax.Bound, base: int) -> tuple[tuple[str, ...], Expr]:
        """Ranks and body of a reduction, scan or selection; no ranks where there is an error."""
        name = node.function.text
        where = self.span(node.function, base)
        if name not in BINDERS:
            if name in FUNCTIONS:
                self.error("E110", f"`{name}` takes no ranks", where, help_=f"write `{_SIGNATURES.get(name, name + '(x)')}`")
            else:
                self.not_a_function(name, where)
            return (), Number(0)
        if self.scalars_only:
            self.error("E215", f"`{name}` cannot stand in {self.scalars_only}", where, help_="use extents, counts and parameters")
            return (), Number(0)
        ranks: list[str] = []
        good = True
        for rank in node.ranks:
            span = self.span(rank, base)
            if not isinstance(rank, syntax.Name):
                self.error(
                    "E208",
                    f"`{name}[...]` lists ranks, not expressions",
                    span,
                    help_=f"write `{name}[rank](...)` with the expression in the parentheses",
                )
                good = False
            elif rank.text not in self.names:
                hint = self.suggestion(rank.text, [each for each, other in self.names.items() if other.kind == "rank"])
                self.undefined("rank", rank.text, span, hint or "declare it under `ranks:`")
                good = False
            elif rank.text in self.poisoned:
                self.failed, good = True, False
            elif self.names[rank.text].kind != "rank":
                kind = _ARTICLE[self.names[rank.text].kind]
                self.error(
                    "E208", f"`{name}` runs over ranks; `{rank.text}` is {kind}", span, others=self.where_declared(rank.text)
                )
                good = False
            elif rank.text in ranks:
                self.error("E207", f"rank `{rank.text}` stands twice in one `{name}`", span, help_="remove one")
                good = False
            else:
                ranks.append(rank.text)
        body: Expr = Number(0)
        for arg in node.args:
            body = self.expression(arg, base)
        if len(node.args) != 1:
            self.error(
                "E111",
                f"`{name}[...]` takes one expression, not {len(node.args)}",
                where,
                help_=f"write `{name}[ranks](expression)`",
            )
            good = False
        if good and not ranks:
            self.error("E208", f"`{name}` names no rank to run over", where, help_=f"write `{name}[ranks](...)`")
            good = False
        if good and name in ONE_RANK and len(ranks) != 1:
            self.error(
                "E208", f"`{name}` runs over exactly one rank, not {len(ranks)}", where, help_=f"write `{name}[{ranks[0]}](...)`"
            )
            good = False
        return (tuple(ranks) if good else ()), body


_UNKNOWN = Scalar("?")
"""Stands for an extent that is wrong: nothing is known of it."""
MAX_SUGGESTIONS = 60
"""After so many errors no more names are looked for: they are not shown anyway."""
MAX_LINE = 10_000
"""As much of a line that does not parse as is searched for names, characters."""
_ASSIGNED = re.compile(r"(?:^\s*|;\s*)([A-Za-z_]\w*)|\b([A-Za-z_]\w*)\s*(?:\[[^\[\]=]*\])?\s*:?=(?!=)")
_SIGNATURES = {"where": "where(condition, x, y)", "clamp": "clamp(x, low, high)"}


_INSTEAD = {
    "softmax": "write it out: a maximum, an `exp`, a sum and a quotient, one Einsum each",
    "logsumexp": "write it out: `log(sum[r](exp(x)))`",
    "pow": "write `x**y`", "power": "write `x**y`", "square": "write `x**2`", "sqr": "write `x**2`", "reciprocal": "write `1/x`",
    "mod": "write `x % y`", "maximum": "write `max(x, y)`", "minimum": "write `min(x, y)`", "neg": "write `-x`",
    "if": "write `where(condition, x, y)`", "select": "write `where(condition, x, y)`", "matmul": "write a product of two tensors",
    "dot": "write a product of two tensors", "einsum": "write a product of tensors",
}  # fmt: skip
"""What to write for functions of other libraries."""


def _is_name(text: str) -> bool:
    return text.isascii() and text.isidentifier()


def _at_least_one(span: Span) -> Span:
    return span if span.end > span.start else Span(span.source, span.start, span.start + 1)


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
