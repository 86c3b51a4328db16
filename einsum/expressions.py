"""Expressions: from syntax to the IR, given the names of the file.

In: a syntax tree and where its text stands. Out: an `Expr`. Here: which name is what, functions, reductions and scans and their
arguments. A tree with an error gives some expression and sets `failed`; every error in it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import syntax
from .cascade import MAP_OPS, SCANS, SELECTIONS, Access, Coord, Expr, Map, Number, Rank, Reduce, Scalar, Scan
from .diagnostics import Diagnostic, closest
from .document import Document
from .scope import ARTICLE, BINDERS, FUNCTIONS, NO_SYMBOLS, RESERVED, Scope
from .source import Span

ONE_RANK = frozenset(("argmax", "argmin", *SCANS, *SELECTIONS))


class Expressions(Scope):
    """Converts expressions; `resolve` adds declarations and statements."""

    def __init__(self, document: Document, problems: list[Diagnostic]) -> None:
        super().__init__(document, problems)
        self.ranks: list[Rank] = []
        self.scalars_only = ""
        """What is being converted where ranks and tensors cannot stand; empty elsewhere."""

    def in_order(self, ranks: Iterable[str]) -> tuple[str, ...]:
        order = {rank.name: i for i, rank in enumerate(self.ranks)}
        return tuple(sorted(ranks, key=lambda name: order.get(name, -1)))

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
                "E110", f"`{node.text}` is {ARTICLE[known.kind]} and has no indices", span, others=self.where_declared(node.text)
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
                "E110", f"`{name}` is {ARTICLE[known.kind]}, not a function", where, help_=hint, others=self.where_declared(name)
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
                kind = ARTICLE[self.names[rank.text].kind]
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
