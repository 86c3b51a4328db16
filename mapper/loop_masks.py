"""Masks along the loop of a GPU program: which steps a mask leaves whole, which it cuts, and which it empties.

In: a program. Out: for each condition of a `where` in a loop, its bounds on the loop coordinate `m` as half-lines `m >= L(p)`,
`m <= U(p)` by interval analysis over a tile, and whether a step in which it holds nowhere may be skipped (`empty_steps`).

    where(m <= p, ...)              full: m <= first p of the tile;  empty: m > last p
    where(abs(p - m) <= W, ...)     full: last p - W <= m <= first p + W;  empty outside first p - W .. last p + W
    where(m < LEN[b], ...)          full and empty from LEN[b], loaded once

Bounds are expressions of the IR over the program's scalars (`p.first` and `p.last` for a tiled rank `p`: no name of a cascade has
a dot), so that a plan can evaluate them and a kernel can print them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..einsum.cascade import Access, Coord, Expr, Map, Number, Scalar, free_ranks, transform, walk
from .empty_steps import skippable
from .program import WHOLE_COORDINATE, Loop, Program
from .whole_numbers import WHOLE_OPS, counted_by, whole_scalars


@dataclass(frozen=True)
class Bounds:
    """Least and greatest value over a tile, as scalar expressions."""

    low: Expr
    high: Expr


@dataclass(frozen=True)
class HalfLine:
    """`m >= bound` (lower) or `m <= bound` (upper), for a bound that varies within the tile between two scalars."""

    upper: bool
    bound: Bounds


@dataclass(frozen=True)
class Condition:
    """The condition of a `where` in a loop."""

    expr: Expr
    lines: tuple[HalfLine, ...]
    """Half-lines outside which it is false."""
    exact: bool
    """It is true wherever all of the half-lines hold; else it is tested at every step."""
    skippable: bool
    """A step in which it is nowhere true changes no state."""


def conditions(program: Program, loop: Loop) -> tuple[Condition, ...]:
    """Conditions that depend on the loop coordinate, each once."""
    found: dict[Expr, None] = {}
    for einsum in loop.body:
        for node in walk(einsum.body):
            if isinstance(node, Map) and node.op == "where":
                condition = node.args[0]
                if free_ranks(condition) & {program.loop, program.inner}:
                    found.setdefault(condition)
    stored = any(e.output in program.stores for e in loop.body)
    walked = program.cascade.rank(program.loop or "")
    inside = half_lines(program, Map("<", (Coord(WHOLE_COORDINATE), program.cascade.rank(walked.part_of or walked.name).extent)))[0]
    result = []
    for condition in found:
        lines, exact = half_lines(program, condition)
        lines = tuple(line for line in lines if line not in inside)  # no step goes beyond the end
        result.append(Condition(condition, lines, exact, bool(lines) and not stored and skippable(program, loop, condition)))
    return tuple(result)


# --- half-lines -------------------------------------------------------------------------------------------------------


Lines = tuple[tuple[HalfLine, ...], bool]
"""Half-lines outside which a condition is false, and whether it is true wherever they all hold."""
FAR = Number(2**30)
"""A bound that no coordinate reaches: extents along which a kernel walks are shorter."""


def half_lines(program: Program, condition: Expr) -> Lines:
    """The condition as a conjunction of half-lines in the loop coordinate, as far as it is one."""
    expr = normalise(program, condition)
    if program.loop is not None and not free_ranks(expr) & {WHOLE_COORDINATE, program.inner}:
        for rank in sorted(free_ranks(expr) & set(program.whole)):
            spanned = _whole_coordinate(program, expr, rank)
            if spanned != expr and rank not in free_ranks(spanned):
                expr = spanned
                break
    return _conjunction(program, expr, True)


def normalise(program: Program, expr: Expr) -> Expr:
    """`Coord("(loop)")` in place of m1*M0+m0, also within a longer sum (or of the loop rank itself, if it is not a part)."""
    if program.loop is None:
        return expr
    if program.cascade.rank(program.loop).part_of is None:
        return transform(expr, lambda e: Coord(WHOLE_COORDINATE) if isinstance(e, Coord) and e.rank == program.loop else e)
    return _whole_coordinate(program, expr, program.inner)


def _whole_coordinate(program: Program, expr: Expr, within: str | None) -> Expr:
    """`Coord("(loop)")` in place of m1*M0+x for a rank x of the positions of a step: m0 itself, or another one as long. Over all of
    x that is all of the step, so that bounds over a step are the same."""
    assert program.loop is not None
    parent = program.cascade.rank(program.loop).part_of
    parts = None if parent is None else program.cascade.rank(parent).split
    if parts is None or within is None or program.cascade.rank(within).extent != parts.tile:
        return expr
    outer, inner, tile = Coord(parts.outer), Coord(within), parts.tile
    products = (Map("*", (outer, tile)), Map("*", (tile, outer)))

    def whole(node: Expr) -> Expr:
        terms = _terms(node)
        found = next((product for product in products if product in terms), None)
        if found is None or inner not in terms:
            return node
        terms.remove(found)
        terms.remove(inner)
        total: Expr = Coord(WHOLE_COORDINATE)
        for term in reversed(terms):
            total = Map("+", (term, total))
        return total

    return transform(expr, whole)


def _terms(expr: Expr) -> list[Expr]:
    """The terms of a sum."""
    if isinstance(expr, Map) and expr.op == "+":
        return [*_terms(expr.args[0]), *_terms(expr.args[1])]
    return [expr]


_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def _conjunction(program: Program, expr: Expr, wanted: bool) -> Lines:
    """Half-lines of `expr` (or of its negation, if it is not `wanted`)."""
    if uniform(program, expr):
        none = Map("neg", (Number(1),))
        end = Map("where", (expr, FAR, none) if wanted else (expr, none, FAR))
        return (HalfLine(True, Bounds(end, end)),), True
    match expr:
        case Map(op=("and" | "or") as op, args=(a, b)):
            if (op == "and") == wanted:
                return _both(_conjunction(program, a, wanted), _conjunction(program, b, wanted))
            for scalar, other in ((a, b), (b, a)):
                if uniform(program, scalar):
                    return _unless(scalar, wanted, _conjunction(program, other, wanted))
        case Map(op="not", args=(a,)):
            return _conjunction(program, a, not wanted)
        case Map(op=op, args=(a, b)) if op in _NEGATED and is_whole(program, a) and is_whole(program, b):
            match op if wanted else _NEGATED[op]:
                case "<=":
                    return _at_most(program, a, b, 0)
                case "<":
                    return _at_most(program, a, b, -1)
                case ">=":
                    return _at_most(program, b, a, 0)
                case ">":
                    return _at_most(program, b, a, -1)
                case "==":
                    return _both(_at_most(program, a, b, 0), _at_most(program, b, a, 0))
    return (), False


def uniform(program: Program, expr: Expr) -> bool:
    """Has the condition one value for the whole program instance, that of scalars?"""
    return all(isinstance(node, Number | Scalar | Map) for node in walk(expr))


def _both(a: Lines, b: Lines) -> Lines:
    return (*a[0], *b[0]), a[1] and b[1]


def _unless(scalar: Expr, wanted: bool, lines: Lines) -> Lines:
    """The half-lines where a scalar condition does not decide alone (`causal == 0 or m <= p`); everything where it does."""

    def relaxed(line: HalfLine) -> HalfLine:
        far: Expr = FAR if line.upper else Map("neg", (FAR,))
        ends = [Map("where", (scalar, far, end) if wanted else (scalar, end, far)) for end in (line.bound.low, line.bound.high)]
        return HalfLine(line.upper, Bounds(ends[0], ends[1]))

    return tuple(relaxed(line) for line in lines[0]), lines[1]


def _at_most(program: Program, left: Expr, right: Expr, slack: int) -> Lines:
    """`left <= right + slack`, solved for the loop coordinate."""
    if isinstance(left, Map) and left.op == "abs":
        inside = left.args[0]
        return _both(_at_most(program, inside, right, slack), _at_most(program, Map("neg", (inside,)), right, slack))
    rows = _rows(program, Map("-", (left, right)))
    if rows is not None:
        parts, length = rows
        lines, exact = _at_most(program, parts, Number(0), slack)
        return tuple(_of_rows(line, length) for line in lines), exact
    strided = _strided(program, Map("-", (left, right)))
    line = linear(Map("-", (left, right)) if strided is None else strided[0])
    if line is None or line[0] not in (1, -1):
        return (), False
    factor, rest = line  # factor * m + rest <= slack
    bound = bounds(program, rest)
    if bound is None:
        return (), False
    shift = _number(slack)
    if strided is not None:  # m * c <= slack - rest, or m * c >= rest - slack
        by, upper = strided[1], factor == 1
        ends = (
            (_minus(shift, bound.high), _minus(shift, bound.low))
            if upper
            else tuple(_plus(_minus(end, shift), _minus(by, Number(1))) for end in (bound.low, bound.high))
        )
        return (HalfLine(upper, Bounds(Map("//", (ends[0], by)), Map("//", (ends[1], by)))),), True
    if factor == 1:  # m <= slack - rest
        return (HalfLine(True, Bounds(_minus(shift, bound.high), _minus(shift, bound.low))),), True
    return (HalfLine(False, Bounds(_minus(bound.low, shift), _minus(bound.high, shift))),), True  # m >= rest - slack


def _rows(program: Program, expr: Expr) -> tuple[Expr, Expr] | None:
    """An expression in which the loop coordinate stands as `m//c` alone, with that in place of `m`, and `c`; else None."""
    here = Coord(WHOLE_COORDINATE)
    quotients = [node for node in walk(expr) if isinstance(node, Map) and node.op == "//" and node.args[0] == here]
    found = {quotient for quotient in quotients if _positive(program, quotient.args[1])}
    if len(found) != 1:
        return None
    (quotient,) = found
    rest = transform(expr, lambda node: Number(0) if node == quotient else node)
    if any(isinstance(node, Coord) and node.rank == WHOLE_COORDINATE for node in walk(rest)):
        return None
    return transform(expr, lambda node: Coord(WHOLE_COORDINATE) if node == quotient else node), quotient.args[1]


def _strided(program: Program, expr: Expr) -> tuple[Expr, Expr] | None:
    """An expression in which the loop coordinate stands as `m*c` alone, with `m` in place of that, and `c`; else None."""
    here = Coord(WHOLE_COORDINATE)
    products = {node for node in walk(expr) if isinstance(node, Map) and node.op == "*" and here in node.args}
    if len(products) != 1:
        return None
    (product,) = products
    assert isinstance(product, Map)
    by = product.args[1 - product.args.index(here)]
    inside = transform(expr, lambda node: Number(0) if node == product else node)
    if not _positive(program, by) or here in walk(inside):
        return None
    return transform(expr, lambda node: here if node == product else node), by


def _positive(program: Program, expr: Expr) -> bool:
    """Is a scalar 1 or more wherever something is divided by it? The host part sees to it for parameters that extents need."""
    if any(rank.extent == expr for rank in program.cascade.ranks):
        return True
    match expr:
        case Number(value=value):
            return value >= 1
        case Scalar(name=name):
            return name in {*program.cascade.symbols, *counted_by(program.cascade)}
        case Map(op="*" | "+", args=args):
            return all(_positive(program, arg) for arg in args)
        case _:
            return False


def _of_rows(line: HalfLine, length: Expr) -> HalfLine:
    """A half-line of `m//c` as one of `m`."""
    ends = [Map("*", (end, length)) for end in (line.bound.low, line.bound.high)]
    if line.upper:
        ends = [Map("-", (Map("+", (end, length)), Number(1))) for end in ends]
    return HalfLine(line.upper, Bounds(ends[0], ends[1]))


def linear(expr: Expr) -> tuple[int, Expr] | None:
    """`factor * m + rest` for the loop coordinate m; None if the expression is not of this form."""
    if not any(isinstance(node, Coord) and node.rank == WHOLE_COORDINATE for node in walk(expr)):
        return 0, expr
    match expr:
        case Coord():
            return 1, Number(0)
        case Map(op="+", args=(a, b)):
            left, right = linear(a), linear(b)
            return None if left is None or right is None else (left[0] + right[0], _plus(left[1], right[1]))
        case Map(op="-", args=(a, b)):
            left, right = linear(a), linear(b)
            return None if left is None or right is None else (left[0] - right[0], _minus(left[1], right[1]))
        case Map(op="neg", args=(a,)):
            inside = linear(a)
            return None if inside is None else (-inside[0], _minus(Number(0), inside[1]))
        case _:
            return None


def _plus(a: Expr, b: Expr) -> Expr:
    if a == Number(0):
        return b
    if b == Number(0):
        return a
    left, right = _constant(a), _constant(b)
    if left is not None and right is not None:
        return _number(left + right)
    return _minus(a, b.args[0]) if isinstance(b, Map) and b.op == "neg" else Map("+", (a, b))


def _minus(a: Expr, b: Expr) -> Expr:
    if b == Number(0):
        return a
    match b:
        case Map(op="neg", args=(c,)):
            return _plus(a, c)
        case Map(op="-", args=(c, d)) if a == Number(0):
            return _minus(d, c)
    left, right = _constant(a), _constant(b)
    if left is not None and right is not None:
        return _number(left - right)
    return Map("neg", (b,)) if a == Number(0) else Map("-", (a, b))


def _constant(expr: Expr) -> int | float | None:
    match expr:
        case Number(value=value):
            return value
        case Map(op="neg", args=(Number(value=value),)):
            return -value
        case _:
            return None


def _number(value: int | float) -> Expr:
    return Number(value) if value >= 0 else Map("neg", (Number(-value),))


def is_whole(program: Program, expr: Expr) -> bool:
    """Is every value of the expression a whole number, by its operations alone?"""
    match expr:
        case Number(value=value):
            return isinstance(value, int)
        case Coord():
            return True
        case Scalar(name=name):
            return name in whole_scalars(program.cascade)
        case Access(tensor=tensor):
            return program.cascade.tensor(tensor).dtype == "int"
        case Map(op="where", args=(_, a, b)):
            return is_whole(program, a) and is_whole(program, b)
        case Map(op=op, args=args):
            return op in WHOLE_OPS and all(is_whole(program, arg) for arg in args)
        case _:
            return False


# --- interval analysis ------------------------------------------------------------------------------------------------


def first(rank: str) -> Scalar:
    """First coordinate of a tiled rank that the program instance holds."""
    return Scalar(f"{rank}.first")


def last(rank: str) -> Scalar:
    """Its last one, within the extent."""
    return Scalar(f"{rank}.last")


def bounds(program: Program, expr: Expr) -> Bounds | None:
    """Least and greatest value of an expression over the tile; None if no bound is known."""
    match expr:
        case Number() | Scalar():
            return Bounds(expr, expr)
        case Coord(rank=rank) if rank in program.tiled:
            return Bounds(first(rank), last(rank))
        case Coord(rank=rank) if rank in program.grid:
            return Bounds(expr, expr)
        case Coord(rank=rank) if rank in program.whole:
            return Bounds(Number(0), Map("-", (program.cascade.rank(rank).extent, Number(1))))
        case Access(tensor=tensor, indices=indices):
            single = frozenset(program.grid) - frozenset(program.tiled)
            scalar = all(free_ranks(index) <= single for index in indices)
            return Bounds(expr, expr) if scalar and program.cascade.tensor(tensor).kind == "input" else None
        case Map(op=op, args=args):
            parts = [bounds(program, arg) for arg in (args[1:] if op == "where" else args)]
            known = [part for part in parts if part is not None]
            return _image(op, known, args, program.cascade.symbols) if len(known) == len(parts) else None
        case _:
            return None


def _image(op: str, parts: list[Bounds], args: tuple[Expr, ...], symbols: Collection[str]) -> Bounds | None:
    """Bounds of an operation from bounds of its arguments."""
    if all(part.low == part.high for part in parts) and op != "where":
        same = Map(op, tuple(part.low for part in parts))
        return Bounds(same, same)
    match op:
        case "+":
            return Bounds(_plus(parts[0].low, parts[1].low), _plus(parts[0].high, parts[1].high))
        case "-":
            return Bounds(_minus(parts[0].low, parts[1].high), _minus(parts[0].high, parts[1].low))
        case "neg":
            return Bounds(_minus(Number(0), parts[0].high), _minus(Number(0), parts[0].low))
        case "min" | "max" | "clamp":
            return Bounds(Map(op, tuple(p.low for p in parts)), Map(op, tuple(p.high for p in parts)))
        case "where":
            return Bounds(Map("min", (parts[0].low, parts[1].low)), Map("max", (parts[0].high, parts[1].high)))
        case "abs":
            (x,) = parts
            low = Map("max", (Map("max", (x.low, _minus(Number(0), x.high))), Number(0)))
            return Bounds(low, Map("max", (_minus(Number(0), x.low), x.high)))
        case "*" if parts[0].low == parts[0].high:
            return _scaled(op, parts[1], parts[0].low, swap=True)
        case "*" | "//" if parts[1].low == parts[1].high:
            return _scaled(op, parts[0], parts[1].low, swap=False)
        case "%" if isinstance(args[1], Number) and args[1].value > 0:
            return Bounds(Number(0), _number(args[1].value - 1))
        case "%" if isinstance(args[1], Scalar) and parts[1].low == parts[1].high:
            # an extent is 1 or more where anything is computed; a parameter may be less
            return Bounds(Number(0), _minus(args[1], Number(1))) if args[1].name in symbols else None
        case _:
            return None


def _scaled(op: str, part: Bounds, by: Expr, swap: bool) -> Bounds:
    """Bounds of x * c or x // c for a scalar c: monotone in x, so the ends are the bounds, in an order that c's sign decides."""
    ends = [Map(op, (by, end) if swap else (end, by)) for end in (part.low, part.high)]
    if isinstance(by, Number):
        return Bounds(ends[0], ends[1])
    return Bounds(Map("min", (ends[0], ends[1])), Map("max", (ends[0], ends[1])))
