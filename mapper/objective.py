"""What a search makes least: measures in order, a product of two, or all that nothing is better than.

A value is (cycles with fill and drain, energy in pJ, words across the boundary of the backing store). `latency,traffic` is the
least traffic of the mappings with least latency; what an objective does not name breaks ties, latency before energy before traffic.
"""

from __future__ import annotations

import math
import re
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


_UNITS: dict[Measure, dict[str, float]] = {
    "latency": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "energy": {"J": 1e12, "mJ": 1e9, "uJ": 1e6, "nJ": 1e3, "pJ": 1.0},
    "traffic": {
        "B": 1.0,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
        "TiB": 2.0**40,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
    },
}


def limit(text: str) -> tuple[Measure, float]:
    """`latency=2 ms` as a measure and seconds, pJ or bytes. Raises ValueError, its text for the user."""
    name, _, amount = text.partition("=")
    measure = next((measure for measure in MEASURES if measure == name.strip()), None)
    if measure is None:
        raise ValueError(f"`{name.strip()}` is none of {', '.join(MEASURES)}")
    units = _UNITS[measure]
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]+)\s*", amount)
    try:
        value = float(match[1]) * units[match[2]] if match else math.nan
    except (KeyError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"`{amount.strip()}` is no amount of {measure} above 0; units are {', '.join(units)}")
    return measure, value
