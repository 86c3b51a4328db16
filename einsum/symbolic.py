"""Formulas: exact polynomials in sizes, small enough to read and quick enough to start with.

A `Formula` is a sum of products of atoms with rational coefficients. Atoms are symbols (extents, counts, parameters, in an index
also rank variables) and `ceil(a/b)`, `floor(a/b)`, `max(...)`, `min(...)`, `1/(a)` and opaque calls such as `sqrt(E)`, whose
arguments are formulas. The sum of products is a normal form: two formulas are equal if they have the same terms. Symbols stand
for whole numbers, so `floor` and `ceil` shed the part that divides. Printing keeps the order in which symbols were first
multiplied: `2*B*H*M*E`, not `2*B*E*H*M`.

In: numbers, names, `formula(expr)` of an IR expression. Out: text, or a number once every symbol has a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias, Union

from .cascade import Coord, Expr, Map, Number, Scalar

Coefficient: TypeAlias = int | Fraction
Key: TypeAlias = Union[str, "Call"]
Monomial: TypeAlias = tuple[tuple[Key, int], ...]
"""Atoms with their powers (never 0), sorted; the empty one is the constant term."""
Number_: TypeAlias = int | float | Fraction

_CALLS: dict[str, Callable[..., Number_]] = {
    "max": max, "min": min, "inv": lambda a: 1.0 / a if isinstance(a, float) else Fraction(1) / a, "abs": abs,
    "sqrt": math.sqrt, "rsqrt": lambda a: 1 / math.sqrt(a), "exp": math.exp, "exp2": lambda a: 2.0**a, "log": math.log,
    "log2": math.log2, "pow": lambda a, b: a**b, "round": round, "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
    "erf": math.erf, "sign": lambda a: (a > 0) - (a < 0), "where": lambda c, a, b: a if c else b, "not": lambda a: not a,
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "and": lambda a, b: a and b, "or": lambda a, b: a or b,
    "floor": lambda a, b: a // b, "ceil": lambda a, b: -(-a // b),
}  # fmt: skip


class Call:
    """An atom that is not a symbol: an operation on formulas."""

    __slots__ = ("args", "op", "rank", "text")

    def __init__(self, op: str, args: tuple[Formula, ...]) -> None:
        self.op, self.args = op, args
        self.rank = _sort_text(op, args)
        self.text = _call_text(op, args)

    @property
    def args_symbols(self) -> frozenset[str]:
        """Symbols of all arguments."""
        return frozenset().union(*(arg.symbols for arg in self.args))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.rank == other.rank

    def __hash__(self) -> int:
        return hash(self.rank)


def _sort_text(op: str, args: tuple[Formula, ...]) -> str:
    return f"{op}({','.join(arg.canonical for arg in args)})"


def _call_text(op: str, args: tuple[Formula, ...]) -> str:
    if op in ("ceil", "floor"):
        numerator, denominator = args
        return f"{op}({_wrapped(numerator)}/{_wrapped(denominator, factor=True)})" if denominator != ONE else f"{op}({numerator})"
    if op in ("<", "<=", ">", ">=", "==", "!=", "and", "or"):
        return f"({args[0]} {op} {args[1]})"
    return f"{op}({', '.join(str(arg) for arg in args)})"


def _wrapped(value: Formula, factor: bool = False) -> str:
    text = str(value)
    simple = len(value.terms) <= 1 and not (factor and any(c in text for c in "*/"))
    return text if simple else f"({text})"


def _order_of(key: Key) -> str:
    return key if isinstance(key, str) else "~" + key.rank


class Formula:
    """An exact value in terms of sizes; see the module for its normal form."""

    __slots__ = ("_canonical", "_order", "terms")

    def __init__(self, terms: Mapping[Monomial, Coefficient], order: tuple[Key, ...] = ()) -> None:
        self.terms: dict[Monomial, Coefficient] = {m: c for m, c in terms.items() if c}
        self._order = order
        self._canonical: str | None = None

    # --- identity ---

    @property
    def canonical(self) -> str:
        """Text that is the same for equal formulas, whatever order they were built in."""
        if self._canonical is None:
            self._canonical = "+".join(
                sorted(f"{c}*{'*'.join(f'{_order_of(k)}^{p}' for k, p in m)}" for m, c in self.terms.items())
            )
        return self._canonical

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int | Fraction):
            other = constant(other)
        return isinstance(other, Formula) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def constant(self) -> Coefficient | None:
        """The value, if it depends on no symbol."""
        if not self.terms:
            return 0
        return self.terms[()] if len(self.terms) == 1 and () in self.terms else None

    @property
    def symbols(self) -> frozenset[str]:
        """All symbols, those inside atoms included."""
        found: set[str] = set()
        for monomial in self.terms:
            for key, _ in monomial:
                if isinstance(key, str):
                    found.add(key)
                else:
                    for arg in key.args:
                        found |= arg.symbols
        return frozenset(found)

    def degree(self, symbol: str) -> int:
        """Greatest power of a symbol among the terms (atoms that hold it count as one)."""
        return max(
            (
                sum(p for k, p in m if k == symbol or (isinstance(k, Call) and symbol in Formula({((k, 1),): 1}).symbols))
                for m in self.terms
            ),
            default=0,
        )

    # --- arithmetic ---

    def __add__(self, other: FormulaLike) -> Formula:
        other = lift(other)
        if not other.terms:
            return self
        if not self.terms:
            return other
        terms = dict(self.terms)
        for monomial, c in other.terms.items():
            terms[monomial] = _tidy(terms.get(monomial, 0) + c)
        return Formula(terms, _merge(self._order, other._order))

    __radd__ = __add__

    def __neg__(self) -> Formula:
        return Formula({m: -c for m, c in self.terms.items()}, self._order)

    def __sub__(self, other: FormulaLike) -> Formula:
        return self + -lift(other)

    def __rsub__(self, other: FormulaLike) -> Formula:
        return lift(other) + -self

    def __mul__(self, other: FormulaLike) -> Formula:
        other = lift(other)
        terms: dict[Monomial, Coefficient] = {}
        for m, c in self.terms.items():
            for n, d in other.terms.items():
                monomial = _times(m, n)
                terms[monomial] = _tidy(terms.get(monomial, 0) + c * d)
        return Formula(terms, _merge(self._order, other._order))

    def __rmul__(self, other: FormulaLike) -> Formula:
        return lift(other) * self

    def __truediv__(self, other: FormulaLike) -> Formula:
        other = lift(other)
        if not other.terms:
            raise ZeroDivisionError("division of a formula by zero")
        if len(other.terms) == 1:
            ((monomial, c),) = other.terms.items()
            inverse = tuple((key, -power) for key, power in monomial)
            return self * Formula({inverse: _tidy(Fraction(1) / c)}, other._order)
        if self == other:
            return ONE
        common = other._content()
        reduced = other / common
        return self / common * _atom("inv", (reduced,))

    def __rtruediv__(self, other: FormulaLike) -> Formula:
        return lift(other) / self

    def __pow__(self, power: int) -> Formula:
        result = ONE
        for _ in range(power):
            result = result * self
        return result

    def _content(self) -> Formula:
        """The greatest monomial (with rational coefficient) that divides every term."""
        monomials = [dict(m) for m in self.terms]
        shared = {key: min(m.get(key, 0) for m in monomials) for key in monomials[0] if all(m.get(key, 0) > 0 for m in monomials)}
        numerators = math.gcd(*(Fraction(c).numerator for c in self.terms.values()))
        denominators = math.lcm(*(Fraction(c).denominator for c in self.terms.values()))
        monomial = tuple(sorted(shared.items(), key=lambda item: _order_of(item[0])))
        return Formula({monomial: _tidy(Fraction(numerators, denominators))}, tuple(shared))

    def split(self, symbol: str) -> tuple[Formula, Formula] | None:
        """(a, b) with self = a * symbol + b and no `symbol` in either; None where it is not linear in it."""
        slope: dict[Monomial, Coefficient] = {}
        rest: dict[Monomial, Coefficient] = {}
        for monomial, c in self.terms.items():
            powers = dict(monomial)
            power = powers.pop(symbol, 0)
            if power not in (0, 1) or any(isinstance(key, Call) and symbol in _key_symbols(key) for key in powers):
                return None
            (slope if power else rest)[tuple((k, p) for k, p in monomial if k != symbol)] = c
        return Formula(slope, self._order), Formula(rest, self._order)

    # --- use ---

    def substitute(self, values: Mapping[str, Formula]) -> Formula:
        """Replace symbols by formulas."""
        if not (self.symbols & values.keys()):
            return self
        total = ZERO
        for monomial, c in self.terms.items():
            term = constant(c)
            for key, power in monomial:
                factor = (
                    values.get(key, symbol(key))
                    if isinstance(key, str)
                    else _apply(key.op, tuple(a.substitute(values) for a in key.args))
                )
                term = term * factor**power if power > 0 else term / factor**-power
            total = total + term
        return total

    def without(self, keys: frozenset[Key]) -> Formula:
        """The terms that hold none of some atoms (those that are known to be 0)."""
        if not any(key in keys for monomial in self.terms for key, _ in monomial):
            return self
        return Formula({m: c for m, c in self.terms.items() if not any(key in keys for key, _ in m)}, self._order)

    def evaluate(self, values: Mapping[str, int | float]) -> int | float:
        """The number; exact where the values are whole. Raises KeyError where a symbol has none, ZeroDivisionError."""
        total = self._exact(values)
        if isinstance(total, Fraction):
            return int(total) if total.denominator == 1 else float(total)
        return total

    def _exact(self, values: Mapping[str, int | float]) -> Number_:
        total: Number_ = 0
        for monomial, c in self.terms.items():
            product: Number_ = c
            for key, power in monomial:
                base = values[key] if isinstance(key, str) else _CALLS[key.op](*(arg._exact(values) for arg in key.args))
                if power < 0 and not isinstance(base, float):
                    base = Fraction(base)
                product = product * base**power
            total = total + product
        return total

    def __str__(self) -> str:
        if len(self.terms) < 2:
            return self._sum_text()
        content = self._content()
        if content.constant is not None and (content.constant == 1 or any(not m for m in self.terms)):
            return self._sum_text()
        place = {key: i for i, key in enumerate(self._order)}
        ((monomial, c),) = content.terms.items()
        return _term_text(monomial, c, place, f"({(self / content)._sum_text()})")

    def _sum_text(self) -> str:
        """The terms one after another, those of high degree first."""
        if not self.terms:
            return "0"
        place = {key: i for i, key in enumerate(self._order)}

        def rank(monomial: Monomial) -> tuple[object, ...]:
            size = -sum(power for _, power in monomial)
            return (size, sorted(place.get(key, len(place)) for key, _ in monomial), [_order_of(k) for k, _ in monomial])

        text = ""
        order = sorted(self.terms, key=rank)
        leading = next((i for i, monomial in enumerate(order) if self.terms[monomial] > 0), 0)
        for monomial in (order[leading], *order[:leading], *order[leading + 1 :]):  # `3 - M`, not `-M + 3`
            term = _term_text(monomial, self.terms[monomial], place)
            if not text:
                text = term
            elif term.startswith("-"):
                text += " - " + term[1:]
            else:
                text += " + " + term
        return text

    def __repr__(self) -> str:
        return f"Formula({str(self)!r})"


FormulaLike: TypeAlias = Formula | int | Fraction | str


def _term_text(monomial: Monomial, c: Coefficient, place: Mapping[Key, int], last: str = "") -> str:
    """One term; `last` is a further factor, as text."""
    keys = sorted(monomial, key=lambda item: (place.get(item[0], len(place)), _order_of(item[0])))
    above: list[str] = []
    below: list[str] = []
    for key, power in keys:
        if isinstance(key, Call) and key.op == "inv":
            below.extend([f"({key.args[0]})"] * power)
            continue
        name = key if isinstance(key, str) else key.text
        (above if power > 0 else below).append(name if abs(power) == 1 else f"{name}**{abs(power)}")
    if last:
        above.append(last)
    value = Fraction(c)
    sign = "-" if value < 0 else ""
    if abs(value.numerator) != 1 or not above:
        above.insert(0, str(abs(value.numerator)))
    if value.denominator != 1:
        below.insert(0, str(value.denominator))
    if not below:
        return sign + "*".join(above)
    return sign + "*".join(above) + "/" + (below[0] if len(below) == 1 else f"({'*'.join(below)})")


def _tidy(c: Coefficient) -> Coefficient:
    return c.numerator if isinstance(c, Fraction) and c.denominator == 1 else c


def _merge(a: tuple[Key, ...], b: tuple[Key, ...]) -> tuple[Key, ...]:
    if a == b or not b:
        return a
    extra = [key for key in b if key not in a]
    return (*a, *extra) if extra else a


def _times(a: Monomial, b: Monomial) -> Monomial:
    if not a:
        return b
    if not b:
        return a
    powers = dict(a)
    for key, power in b:
        powers[key] = powers.get(key, 0) + power
    return tuple(sorted(((k, p) for k, p in powers.items() if p), key=lambda item: _order_of(item[0])))


def _key_symbols(key: Key) -> frozenset[str]:
    return frozenset((key,)) if isinstance(key, str) else frozenset().union(*(arg.symbols for arg in key.args))


def constant(value: Coefficient) -> Formula:
    return Formula({(): _tidy(value)})


def symbol(name: str) -> Formula:
    return Formula({((name, 1),): 1}, (name,))


ZERO, ONE = constant(0), constant(1)


def lift(value: FormulaLike) -> Formula:
    """A formula from a formula, a whole or rational number, or the name of a symbol."""
    if isinstance(value, Formula):
        return value
    return symbol(value) if isinstance(value, str) else constant(value)


def _atom(op: str, args: tuple[Formula, ...]) -> Formula:
    key = Call(op, args)
    return Formula({((key, 1),): 1}, (key,))


def _apply(op: str, args: tuple[Formula, ...]) -> Formula:
    match op:
        case "floor":
            return floor_div(*args)
        case "ceil":
            return ceil_div(*args)
        case "max":
            return maximum(*args)
        case "min":
            return minimum(*args)
        case "inv":
            return ONE / args[0]
        case "pow" if isinstance(args[1].constant, int) and 0 <= args[1].constant <= 64:
            return args[0] ** args[1].constant
        case _:
            return _atom(op, args)


def _divided(a: Formula, b: Formula) -> tuple[Formula, Formula]:
    """(whole, rest) with a = whole * b + rest, where `whole` collects the terms that b divides to whole coefficients."""
    if len(b.terms) != 1:
        return (ONE, ZERO) if a == b else (ZERO, a)
    whole, rest = ZERO, ZERO
    for monomial, c in a.terms.items():
        term = Formula({monomial: c}, a._order)
        quotient = term / b
        if all(isinstance(_tidy(d), int) and all(p > 0 for _, p in m) for m, d in quotient.terms.items()):
            whole = whole + quotient
        else:
            rest = rest + term
    return whole, rest


def floor_div(a: FormulaLike, b: FormulaLike) -> Formula:
    """floor(a / b)"""
    a, b = lift(a), lift(b)
    whole, rest = _divided(a, b)
    p, q = rest.constant, b.constant
    if p is not None and q is not None:
        return whole + constant(math.floor(Fraction(p) / q))
    return whole if not rest else whole + _atom("floor", (rest, b))


def ceil_div(a: FormulaLike, b: FormulaLike) -> Formula:
    """ceil(a / b)"""
    a, b = lift(a), lift(b)
    whole, rest = _divided(a, b)
    p, q = rest.constant, b.constant
    if p is not None and q is not None:
        return whole + constant(math.ceil(Fraction(p) / q))
    return whole if not rest else whole + _atom("ceil", (rest, b))


def maximum(*args: FormulaLike) -> Formula:
    """The greatest of formulas; those that differ by a constant are compared."""
    return _extreme("max", args, 1)


def minimum(*args: FormulaLike) -> Formula:
    """The least of formulas; those that differ by a constant are compared."""
    return _extreme("min", args, -1)


def _extreme(op: str, args: Iterable[FormulaLike], sign: int) -> Formula:
    kept: list[Formula] = []
    for arg in args:
        value = lift(arg)
        keys = list(value.terms.items())
        inner = value_args(keys[0][0], op) if len(keys) == 1 and keys[0][1] == 1 else None
        for part in inner or (value,):
            for i, other in enumerate(kept):
                gap = (part - other).constant
                if gap is not None:
                    kept[i] = part if gap * sign > 0 else other
                    break
            else:
                kept.append(part)
    if len(kept) == 1:
        return kept[0]
    kept.sort(key=lambda f: f.canonical)
    return _atom(op, tuple(kept))


def value_args(monomial: Monomial, op: str) -> tuple[Formula, ...] | None:
    """Arguments of an atom `op(...)` that stands alone."""
    if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], Call) and monomial[0][0].op == op:
        return monomial[0][0].args
    return None


def total(parts: Iterable[FormulaLike]) -> Formula:
    """The sum."""
    result = ZERO
    for part in parts:
        result = result + part
    return result


def product(parts: Iterable[FormulaLike]) -> Formula:
    """The product."""
    result = ONE
    for part in parts:
        result = result * part
    return result


@lru_cache(maxsize=4096)
def formula(expr: Expr) -> Formula:
    """The formula of a scalar or index expression; rank variables become symbols of their names.

    Raises ValueError for an expression that reads a tensor or reduces.
    """
    match expr:
        case Number(value=int() as value):
            return constant(value)
        case Number(value=value) if math.isfinite(value):
            return constant(Fraction(value))
        case Scalar(name=name) | Coord(rank=name):
            return symbol(name)
        case Map(op="ceil" | "floor" as op, args=(Map(op="/", args=(a, b)),)):
            return (ceil_div if op == "ceil" else floor_div)(formula(a), formula(b))
        case Map(op=op, args=args):
            return _of_map(op, tuple(formula(arg) for arg in args))
        case _:
            raise ValueError(f"no formula for {type(expr).__name__}")


def _of_map(op: str, args: tuple[Formula, ...]) -> Formula:
    match op:
        case "+":
            return args[0] + args[1]
        case "-":
            return args[0] - args[1]
        case "*":
            return args[0] * args[1]
        case "/" if not args[1].terms:
            if args[0].terms:
                raise ValueError("no formula for a division by zero")
            return ZERO
        case "/":
            return args[0] / args[1]
        case "neg":
            return -args[0]
        case "//":
            return floor_div(args[0], args[1])
        case "%":
            return args[0] - args[1] * floor_div(args[0], args[1])
        case "floor":
            return floor_div(args[0], ONE)
        case "ceil":
            return ceil_div(args[0], ONE)
        case "min":
            return minimum(*args)
        case "max":
            return maximum(*args)
        case "clamp":
            return minimum(maximum(args[0], args[1]), args[2])
        case "**":
            return _apply("pow", args)
        case _ if op in _CALLS:
            return _atom(op, args)
        case _:
            raise ValueError(f"no formula for `{op}`")
