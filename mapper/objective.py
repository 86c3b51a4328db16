"""What a search makes least: measures in order, a product of two, or all that nothing is better than.

A value is (cycles with fill and drain, energy in pJ, words across the boundary of the backing store). `latency,traffic` is the
least traffic of the mappings with least latency; what an objective does not name breaks ties, latency before energy before traffic.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

Measure: TypeAlias = Literal["latency", "energy", "traffic"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
"""In the order in which they stand in a value."""
PRODUCTS = ("edp", "pareto")
"""Objectives that do not add up over groups: whole Pareto fronts of cycles and energy are kept."""
Objective: TypeAlias = str
"""Measures joined by commas, or one of `PRODUCTS`."""
NOTHING = (float("inf"),) * len(MEASURES)


def named(objective: Objective) -> tuple[Measure, ...]:
    """The measures that an objective names; none for products. Raises ValueError, its text for the user."""
    if objective in PRODUCTS:
        return ()
    found: list[Measure] = []
    for name in objective.split(","):
        measure = next((measure for measure in MEASURES if measure == name.strip()), None)
        if measure is None:
            raise ValueError(f"`{name.strip()}` is none of {', '.join(MEASURES)}; {' and '.join(PRODUCTS)} stand alone")
        if measure in found:
            raise ValueError(f"`{measure}` stands twice")
        found.append(measure)
    return tuple(found)


@lru_cache(maxsize=64)
def order(objective: Objective) -> tuple[int, ...]:
    """Places in a value in the order in which they count."""
    first = named(objective)
    return tuple(MEASURES.index(measure) for measure in (*first, *(each for each in MEASURES if each not in first)))


def rank_of(objective: Objective, value: Any) -> Any:
    """What decides between two values, the first difference first."""
    if objective in PRODUCTS:
        cycles, energy, words = value
        return cycles * energy, cycles, words
    return tuple(value[place] for place in order(objective))
