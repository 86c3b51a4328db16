"""Alternatives: other forms beside the one in which every rewrite is used wherever it helps, and which of them costs least.

In: a cascade and a rank. Out: `Alternative`s, best first: fewest passes, among those fewest operations, then smallest state (see
`cost`); of equals the one found first. The search for one form is greedy, so each decision that it took is put in question: a
simplifying rewrite left out everywhere (division deferred or not, a sum expanded or not, contractions in another order or not),
left out for one reduction, or tried before the others. What turns out cheaper is kept, and the next decision is questioned beside
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..cascade import Cascade
from ..flatten import flatten
from .cost import Cost, cost, scalars
from .search import SIMPLIFYING, Choices, Search
from .step import reordered

MOST = 12
"""Alternatives that are tried beside the first form."""

WORK = 4_000
"""Alternatives times the square of the number of Einsums: large cascades have fewer tried."""


@dataclass(frozen=True)
class Alternative:
    """A form that was found."""

    search: Search
    cost: Cost

    def as_json(self) -> dict[str, object]:
        return {"form": str(self.search.choices), **vars(self.cost)}


def alternatives(cascade: Cascade, rank: str, tile: int | None, iterate: bool, dense: bool = False) -> tuple[Alternative, ...]:
    """The forms found, best first; different cascades only. `dense`: operations that masks leave out are counted too."""
    cascade = replace(reordered(flatten(cascade)))  # one object for all forms, which share what they find out about it
    seen: set[tuple[Cascade, bool]] = set()

    def tried(choices: Choices) -> Alternative | None:
        """None if it comes to the same as one before once it is simplified."""
        search = Search(cascade, rank, tile, choices)
        search.simplify()
        key = (search.cascade, choices.allow("reassociate"))
        if key in seen:
            return None
        seen.add(key)
        search.finish(iterate)
        return _costed(search, dense)

    best = tried(Choices())
    assert best is not None
    found = [best]
    for number, change in enumerate(_questions(best.search)):
        if number >= min(MOST, WORK // len(cascade.einsums) ** 2):
            break
        other = tried(replace(change, without=best.search.choices.without | change.without))
        if other is not None and all(each.search.cascade != other.search.cascade for each in found):
            found.append(other)
            best = other if other.cost < best.cost else best
    return tuple(sorted(found, key=lambda each: each.cost))


def alternative(cascade: Cascade, rank: str, tile: int | None, iterate: bool, choices: Choices, dense: bool = False) -> Alternative:
    """The form with these choices."""
    search = Search(cascade, rank, tile, choices)
    search.run(iterate)
    return _costed(search, dense)


def _costed(search: Search, dense: bool) -> Alternative:
    values = scalars(search.cascade, search.rank, search.known)
    return Alternative(search, cost(search.cascade, search.rank, values, dense))


def _questions(search: Search) -> Iterator[Choices]:
    """Decisions to question, those with the widest effect first."""
    taken = dict.fromkeys((step.rewrite, step.target) for step in search.steps if step.rewrite in SIMPLIFYING)
    kinds = dict.fromkeys(rewrite for rewrite, _ in taken)
    for kind in kinds:
        yield Choices(frozenset(((kind, None),)))
    for kind in SIMPLIFYING:
        if kinds and kind != next(iter(SIMPLIFYING)):
            yield Choices(first=kind)
    for rewrite, target in taken:
        if sum(1 for kind, _ in taken if kind == rewrite) > 1:
            yield Choices(frozenset(((rewrite, target),)))
