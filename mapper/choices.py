"""Mapping files whose numbers depend on sizes: one file for all lengths and models.

In: the document of a mapping file, and the values of the cascade's symbols and parameters. Out: the same document with numbers
in the place of expressions. A file may have

    let:                                  # names for numbers, in order
      ROWS: where(M <= 4096, P, 1024)     # an expression in the language of specs
      P1: {divisor_of: P // 256, at_most: buffer_bytes // (512*(E + F + 2))}   # the largest divisor that is small enough
    cases:                                # the first one whose condition holds replaces the blocks that it names
    - when: M > 65536
      groups: [...]

and expressions wherever a tile, a number of tiles in flight or a reserve stands. Nothing else is computed: a mapping stays a
plain description.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ..einsum import syntax
from ..einsum.cascade import Expr, Map, Number, Scalar
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.parse import expression
from ..einsum.sizes import evaluate_scalar
from ..einsum.source import Source
from .document import Document, Place

Values = Mapping[str, int | float]
MAX_DIVIDED = 10**12
"""Largest number whose divisors are looked for."""


def settle(document: Document, values: Values | None) -> Document:
    """The document with numbers for expressions; itself if it has none. Raises EinsmithError (E504)."""
    data = document.data
    if not isinstance(data, dict):
        return document
    sizes = data.get("sizes")
    known = {**(sizes if isinstance(sizes, dict) else {}), **(values or {})}
    settler = _Settler(document, known, values is not None)
    names = data.get("let", {})
    if not isinstance(names, dict):
        raise settler.wrong(("let",), "`let` must be names with values")
    for name, value in names.items():
        known[name] = settler.chosen(("let", name), value)
    blocks = {key: value for key, value in data.items() if key not in ("let", "cases")}
    place: dict[str, Place] = {key: (key,) for key in blocks}
    cases = data.get("cases", [])
    if not isinstance(cases, list):
        raise settler.wrong(("cases",), "`cases` must be a list")
    for number, case in enumerate(cases):
        if not isinstance(case, dict) or "when" not in case:
            raise settler.wrong(("cases", number), "a case needs the key `when`")
        if settler.number(("cases", number, "when"), case["when"]):
            blocks |= {key: value for key, value in case.items() if key != "when"}
            place |= {key: ("cases", number, key) for key in case if key != "when"}
            break
    settled = Document(document.source, {}, dict(document.keys), dict(document.values))
    for key, value in blocks.items():
        if place[key] != (key,):
            _move(document, settled, place[key], (key,))
        settled.data[key] = settler.groups(place[key], value) if key == "groups" else value
    return settled


def _move(old: Document, new: Document, source: Place, target: Place) -> None:
    """Spans of a block, at its new path."""
    for spans, moved in ((old.keys, new.keys), (old.values, new.values)):
        for place, span in spans.items():
            if place[: len(source)] == source:
                moved[(*target, *place[len(source) :])] = span


class _Settler:
    def __init__(self, document: Document, known: dict[str, Any], sized: bool) -> None:
        self.document, self.known, self.sized = document, known, sized

    def wrong(self, place: Place, message: str, help: str = "") -> EinsmithError:
        return EinsmithError(Diagnostic("E504", message, self.document.span(place), file=self.document.source.name, help=help))

    def groups(self, place: Place, groups: Any) -> Any:
        if not isinstance(groups, list):
            return groups
        return [self._group((*place, i), group) if isinstance(group, dict) else group for i, group in enumerate(groups)]

    def _group(self, place: Place, group: dict[str, Any]) -> dict[str, Any]:
        group = dict(group)
        if isinstance(group.get("loops"), list):
            group["loops"] = [
                {**loop, "tile": self.whole((*place, "loops", i, "tile"), loop["tile"])}
                if isinstance(loop, dict) and "tile" in loop
                else loop
                for i, loop in enumerate(group["loops"])
            ]
        if "in_flight" in group:
            group["in_flight"] = self.whole((*place, "in_flight"), group["in_flight"])
        if isinstance(group.get("reserve"), dict):
            group["reserve"] = {level: self.whole((*place, "reserve", level), value) for level, value in group["reserve"].items()}
        return group

    def whole(self, place: Place, value: Any) -> Any:
        """The whole number that an expression gives; anything but a text as it is."""
        if not isinstance(value, str):
            return value
        number = self.number(place, value)
        if number != int(number):
            raise self.wrong(place, f"`{value}` is {number}, which is no whole number", "round it with `//`")
        return int(number)

    def chosen(self, place: Place, value: Any) -> int | float:
        if isinstance(value, dict):
            if set(value) != {"divisor_of", "at_most"}:
                raise self.wrong(place, "a choice needs the keys `divisor_of` and `at_most`, and no others")
            whole = self.number((*place, "divisor_of"), value["divisor_of"])
            most = self.number((*place, "at_most"), value["at_most"])
            if whole != int(whole) or not 1 <= whole <= MAX_DIVIDED:
                raise self.wrong(
                    (*place, "divisor_of"), f"`divisor_of` is {whole}; it must be a whole number from 1 to {MAX_DIVIDED:,}"
                )
            return _divisor(int(whole), max(1, int(most)))
        return self.number(place, value)

    def number(self, place: Place, value: Any) -> int | float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise self.wrong(place, "must be a number or an expression of sizes")
        try:
            expr = parsed(value)
        except ValueError as error:
            raise self.wrong(place, f"`{value}`: {error}") from None
        try:
            return evaluate_scalar(expr, self.known)
        except KeyError as error:
            name = str(error).strip("'")
            if not self.sized:
                raise self.wrong(
                    place, f"`{value}` depends on the size `{name}`", "this mapping is read together with a cascade and its sizes"
                ) from None
            raise self.wrong(
                place, f"`{value}`: nothing is named `{name}`", f"known: {', '.join(f'`{known}`' for known in self.known)}"
            ) from None
        except (ArithmeticError, ValueError) as error:
            raise self.wrong(place, f"`{value}` has no value: {error}") from None


@functools.lru_cache(maxsize=1024)
def parsed(text: str) -> Expr:
    """An expression of numbers and names. Raises ValueError, its text for the user."""
    node = expression(Source("<expression>", text), 0, len(text))
    if isinstance(node, Diagnostic):
        raise ValueError(node.message)
    return _expr(node)


def _expr(node: syntax.Node) -> Expr:
    match node:
        case syntax.Literal(value=value):
            return Number(value)
        case syntax.Name(text=name):
            return Scalar(name)
        case syntax.Unary(op=op, operand=operand):
            return Map("neg" if op == "-" else op, (_expr(operand),))
        case syntax.Binary(op=op, left=left, right=right):
            return Map(op, (_expr(left), _expr(right)))
        case syntax.Chain(operands=operands, ops=ops):
            parts = [_expr(operand) for operand in operands]
            pairs: list[Expr] = [Map(op, (a, b)) for op, a, b in zip(ops, parts, parts[1:], strict=False)]
            result = pairs[0]
            for pair in pairs[1:]:
                result = Map("and", (result, pair))
            return result
        case syntax.Call(function=function, args=args):
            return Map(function.text, tuple(_expr(arg) for arg in args))
    raise ValueError("only numbers, sizes and operations can stand here")


def _divisor(whole: int, most: int) -> int:
    """The largest divisor of a number that is at most `most`."""
    found = 1
    small = 1
    while small * small <= whole:
        if whole % small == 0:
            found = max(found, *(d for d in (small, whole // small) if d <= most), 1)
        small += 1
    return found


def whole(text: str, values: Values) -> int:
    """The whole number that an expression of named numbers gives. Raises EinsmithError (E504)."""
    document = Document(Source("<expression>", text), text)
    return int(_Settler(document, dict(values), True).whole((), text))
