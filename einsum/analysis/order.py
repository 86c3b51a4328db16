"""How far ahead: is one position of a fiber at most a fixed distance beyond another, whatever the sizes?

In: a difference of positions as a formula over rank variables and sizes, and conditions that hold where it is evaluated. Out:
whether it is bounded above by something that does not grow with the fiber. What is not recognised counts as unbounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..cascade import Access, Expr, Map, walk
from ..symbolic import ONE, ZERO, Call, Formula, Monomial, formula

MAX_OPTIONS = 64
"""Greatest number of alternatives looked at for one difference; more count as unbounded."""


@dataclass(frozen=True)
class Growth:
    """What grows with the fiber.

    `large`: symbols of the fiber's extent. `extents`: extent of each rank variable. `signed`: parameters, whose sign is not known.
    `length`: the fiber's extent where it is a number (then a bound must stay below it).
    """

    large: frozenset[str]
    extents: Mapping[str, Formula]
    signed: frozenset[str]
    length: int | None

    def bounded_above(self, difference: Formula, facts: tuple[Formula, ...] = ()) -> bool:
        """Whether `difference` is at most something that does not grow, given that each of `facts` is at most 0."""
        options = _upper(difference, self)
        return all(any(self._leaf(leaf, facts) for leaf in leaves) for leaves in options)

    def _leaf(self, leaf: Formula, facts: tuple[Formula, ...]) -> bool:
        return self._small(leaf) or any(self._small(leaf - scale * fact) for fact in facts for scale in self._scales(leaf, fact))

    def _scales(self, leaf: Formula, fact: Formula) -> list[Formula]:
        """Multiples of a fact that may cancel something of a leaf; all positive."""
        found = [ONE]
        for rank in leaf.symbols & fact.symbols & self.extents.keys():
            mine, its = leaf.split(rank), fact.split(rank)
            if mine is not None and its is not None and len(its[0].terms) == 1:
                scale = mine[0] / its[0]
                if scale != ONE and self.at_least_zero(scale):
                    found.append(scale)
        return found

    def _small(self, leaf: Formula) -> bool:
        bound = ZERO  # rank variables at the end where each term is greatest
        for monomial, c in leaf.terms.items():
            term = Formula({monomial: c})
            ranks = [key for key, _ in monomial if isinstance(key, str) and key in self.extents]
            if ranks and self._positive(monomial):
                term = term.substitute({rank: self.extents[rank] - ONE for rank in ranks}) if c > 0 else ZERO
            elif ranks and self._grows(monomial):
                return False
            bound = bound + term
        for monomial, c in bound.terms.items():
            if self._grows(monomial) and not (c < 0 and self._positive(monomial)):
                return False
        number = bound.constant
        return number is None or self.length is None or number < max(1, self.length - 1)

    def _grows(self, monomial: Monomial) -> bool:
        """Whether a product grows with the fiber: it holds a large symbol or a rank variable that runs so far."""
        symbols = Formula({monomial: 1}).symbols
        return bool(symbols & self.large) or any(self.extents[s].symbols & self.large for s in symbols if s in self.extents)

    def at_least_zero(self, value: Formula) -> bool:
        """Whether a value is provably not negative (symbols and rank variables are not)."""
        return all(c > 0 and self._positive(monomial) for monomial, c in value.terms.items())

    def _positive(self, monomial: Monomial) -> bool:
        """Whether a product of atoms is provably not negative."""
        simple = all(isinstance(key, str) or key.op in ("floor", "ceil") for key, _ in monomial)
        return simple and not (Formula({monomial: 1}).symbols & self.signed)


def _upper(value: Formula, growth: Growth) -> list[list[Formula]]:
    """Upper bounds without `floor`, `min`, ... of rank variables: in each of the lists, some element bounds the value."""
    done: list[list[Formula]] = []
    work: list[list[Formula]] = [[value]]
    budget = MAX_OPTIONS
    while work:
        alternatives = work.pop()
        place = next(((i, found) for i, leaf in enumerate(alternatives) if (found := _open(leaf, growth))), None)
        if place is None:
            done.append(alternatives)
            continue
        i, (monomial, key) = place
        budget -= 1
        if budget < 0:
            return [[]]
        leaf = alternatives[i]
        c = leaf.terms[monomial]
        rest = leaf - Formula({monomial: c})
        scale = Formula({tuple(item for item in monomial if item[0] != key): c})
        others = alternatives[:i] + alternatives[i + 1 :]
        every, some = _bounds(key, above=growth.at_least_zero(scale), growth=growth)
        if not growth.at_least_zero(scale) and not growth.at_least_zero(-scale):
            work.append(others)  # sign unknown: this leaf says nothing
        elif every:
            work.extend([*others, rest + scale * part] for part in every)
        else:
            work.append([*others, *(rest + scale * part for part in some)])
    return done


def _open(leaf: Formula, growth: Growth) -> tuple[Monomial, Call] | None:
    """The first atom that holds rank variables or large symbols, and its term."""
    for monomial in leaf.terms:
        for key, power in monomial:
            if isinstance(key, Call) and key.op in ("floor", "ceil", "min", "max") and power == 1:
                held = frozenset().union(*(arg.symbols for arg in key.args))
                if held & growth.extents.keys():
                    return monomial, key
    return None


def _bounds(key: Call, above: bool, growth: Growth) -> tuple[list[Formula], list[Formula]]:
    """(all, any): the atom is at most (at least) one of `all`, or else each of `any` bounds it."""
    if key.op in ("max", "min"):
        args = list(key.args)
        return (args, []) if (key.op == "max") == above else ([], args)
    a, b = key.args
    exact = a / b
    if key.op == "floor":
        options = [exact] if above else [exact - (b - ONE) / b]
        if growth.at_least_zero(a):
            options.append(a if above else ZERO)
    else:
        options = [exact + (b - ONE) / b] if above else [exact]
        if growth.at_least_zero(a):
            options.append(a if above else ZERO)
    return [], options


def facts(condition: Expr, holds: bool = True) -> tuple[Formula, ...]:
    """Formulas that are at most 0 where a condition holds (or does not); what is not affine says nothing."""
    match condition:
        case Map(op="not", args=(inner,)):
            return facts(inner, not holds)
        case Map(op="and", args=(a, b)) if holds:
            return facts(a) + facts(b)
        case Map(op="or", args=(a, b)) if not holds:
            return facts(a, False) + facts(b, False)
        case Map(op=op, args=(a, b)) if op in ("<", "<=", ">", ">=", "=="):
            return _comparison(op, a, b, holds)
        case _:
            return ()


def _comparison(op: str, a: Expr, b: Expr, holds: bool) -> tuple[Formula, ...]:
    if op == "==":
        return (*_comparison("<=", a, b, True), *_comparison(">=", a, b, True)) if holds else ()
    if not holds:
        op = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[op]
    if op in (">", ">="):
        a, b, op = b, a, "<" if op == ">" else "<="
    if isinstance(a, Map) and a.op == "abs":  # |x| <= w: x <= w and -x <= w
        return _comparison(op, a.args[0], b, True) + _comparison(op, Map("neg", (a.args[0],)), b, True)
    if any(isinstance(node, Access) for side in (a, b) for node in walk(side)):
        return ()
    try:
        gap = formula(a) - formula(b)
    except (ValueError, ZeroDivisionError):
        return ()
    return (gap + ONE if op == "<" else gap,)
