"""Are two cascades the same function of their inputs?

In: two cascades; inputs and outputs are matched by name. Out: an `Equality`. First by canonical forms, which proves equality; where
those differ, numerically in float64 on random inputs at several sizes, which proves a difference and only makes equality likely.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .arithmetic import Array
from .canonical import NoKey, output_keys
from .cascade import Cascade, Number, walk
from .diagnostics import Diagnostic, EinsmithError, SpecError
from .display import Displayed
from .interpret import evaluate, infer_sizes, random_inputs
from .sizes import bind

RELATIVE = 1e-9
"""Greatest difference of two elements that counts as rounding, relative to the greater of them."""
ABSOLUTE = 1e-12
"""The same, relative to the greatest element of the output: what cancellation may leave."""
MOST_ELEMENTS = 2**21
"""Sizes at which a tensor would be larger are not tried, elements."""


@dataclass(frozen=True)
class CounterExample:
    """Sizes and seed of a draw at which two outputs differ, or only one of the two has a value; and how."""

    sizes: Mapping[str, int]
    seed: int
    what: str


@dataclass(frozen=True)
class Equality(Displayed):
    """Whether two cascades are the same function, and how that is known."""

    equal: bool
    how: Literal["symbolic", "numeric"]
    max_error: float
    """Greatest difference, relative to the greatest element of its output; infinite where only one of two elements is finite."""
    draws: int = 0
    """Number of random inputs compared."""
    skipped: int = 0
    """Number of draws for which neither has a value, or their sizes do not go together."""
    skipped_because: str = ""
    """What was wrong at the first of these."""
    counter_example: CounterExample | None = None

    def as_json(self) -> dict[str, Any]:
        example = self.counter_example
        return {
            "equal": self.equal, "how": self.how, "max_error": self.max_error, "draws": self.draws, "skipped": self.skipped,
            "skipped_because": self.skipped_because or None,
            "counter_example": None if example is None else
                {"sizes": dict(example.sizes), "seed": example.seed, "what": example.what},
        }  # fmt: skip

    def __str__(self) -> str:
        if self.how == "symbolic":
            return "equal: the same expression of the inputs"
        if self.equal:
            left_out = f"\n  {self.skipped} more draws left out, without a value: {self.skipped_because}" if self.skipped else ""
            return f"equal: numerically, on {self.draws} random draws; greatest relative difference {self.max_error:.2g}{left_out}"
        assert self.counter_example is not None
        example = self.counter_example
        sizes = ",".join(f"{name}={value}" for name, value in example.sizes.items())
        return f"different: {example.what}\n  at --size {sizes} --seed {example.seed}"


def equal(
    first: Cascade,
    second: Cascade,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Equality:
    """Compare two cascades; `rename` gives the names in the second of inputs and outputs of the first. Raises EinsmithError."""
    names, sizes, params = dict(rename or {}), dict(sizes or {}), dict(params or {})
    _match(first, second, names)
    _known(first, second, sizes, params)
    if _same_keys(first, second, names, params):
        return Equality(True, "symbolic", 0.0)
    return _compare(first, second, sizes, params, names, seed)


def _match(first: Cascade, second: Cascade, names: dict[str, str]) -> None:
    """Refuse cascades whose inputs or outputs do not pair up."""
    problems: list[Diagnostic] = []
    known = [{tensor.name for tensor in cascade.inputs} | set(cascade.outputs) for cascade in (first, second)]
    for a, b in names.items():
        for name, own, which in ((a, known[0], "first"), (b, known[1], "second")):
            if name not in own:
                problems.append(Diagnostic("E331", f"the {which} cascade has no input or output `{name}`"))
    for listed in ([tensor.name for tensor in first.inputs], list(first.outputs)):
        partners = [names.get(name, name) for name in listed]
        for name in dict.fromkeys(partner for partner in partners if partners.count(partner) > 1):
            problems.append(Diagnostic("E331", f"`{name}` of the second cascade has more than one partner in the first"))
    inputs = ({names.get(t.name, t.name): t for t in first.inputs}, {t.name: t for t in second.inputs})
    outputs = ({names.get(name, name): name for name in first.outputs}, {name: name for name in second.outputs})
    for what, mine, theirs in (("input", set(inputs[0]), set(inputs[1])), ("output", set(outputs[0]), set(outputs[1]))):
        if mine != theirs:
            only = [(sorted(mine - theirs), "first"), (sorted(theirs - mine), "second")]
            listing = "; ".join(f"only the {which} has {', '.join(f'`{n}`' for n in found)}" for found, which in only if found)
            help = "pair them up with `--map FIRST=SECOND`"
            problems.append(Diagnostic("E333", f"the cascades have different {what}s: {listing}", help=help))
    for name in sorted(inputs[0].keys() & inputs[1].keys()):
        one, other = inputs[0][name], inputs[1][name]
        if len(one.ranks) != len(other.ranks) or one.dtype != other.dtype:
            shapes = " and ".join(f"{t.dtype} [{', '.join(t.ranks)}]" for t in (one, other))
            problems.append(Diagnostic("E333", f"input `{name}` is {shapes}", other.span))
    for name in sorted(outputs[0].keys() & outputs[1].keys()):
        counts = len(first.tensor(outputs[0][name]).ranks), len(second.tensor(name).ranks)
        if counts[0] != counts[1]:
            message = f"output `{name}` has {counts[0]} dimensions in the first, {counts[1]} in the second"
            problems.append(Diagnostic("E333", message))
    if problems:
        raise SpecError(problems)


def _known(first: Cascade, second: Cascade, sizes: Mapping[str, int], params: Mapping[str, int | float]) -> None:
    """Refuse sizes and parameters that neither has."""
    problems = []
    for name in sizes:
        if name not in first.symbols and name not in second.symbols:
            problems.append(Diagnostic("E301", f"neither cascade has a size `{name}`"))
    for name in params:
        if name not in _own(first, params) and name not in _own(second, params):
            problems.append(Diagnostic("E302", f"neither cascade has a parameter `{name}`"))
    if problems:
        raise SpecError(problems)


def _own(cascade: Cascade, params: Mapping[str, int | float]) -> dict[str, int | float]:
    """Those of the given parameters that a cascade has."""
    return {name: params[name] for name, _ in cascade.params if name in params}


def _same_keys(first: Cascade, second: Cascade, names: dict[str, str], params: Mapping[str, int | float]) -> bool:
    try:
        return output_keys(first, _own(first, params), names) == output_keys(second, _own(second, params))
    except (NoKey, RecursionError):
        return False


# --- numerically ------------------------------------------------------------------------------------------------------


def _compare(
    first: Cascade, second: Cascade, sizes: dict[str, int], params: dict[str, int | float], names: dict[str, str], seed: int
) -> Equality:
    mine, theirs = _own(first, params), _own(second, params)
    done = skipped = 0
    worst = 0.0
    fault: EinsmithError | None = None
    for drawn, number in itertools.product(_draws(first, second, sizes), range(DISTRIBUTIONS)):
        own = {name: value for name, value in drawn.items() if name in first.symbols}
        try:
            inputs = {name: _scaled(array, number) for name, array in _inputs(first, own, mine, (seed, number)).items()}
            mapped = {names.get(name, name): array for name, array in inputs.items()}
            other = _second_sizes(second, mapped, drawn, sizes, theirs)
            _bounded(second, other, theirs)
        except EinsmithError as error:
            fault, skipped = fault or error, skipped + 1
            continue
        at = {**drawn, **other}
        found, failed = _value(first, inputs, own, mine)
        found_too, failed_too = _value(second, mapped, other, theirs)
        if found is None or found_too is None:
            if (found is None) != (found_too is None):
                which, why = ("first", failed) if found is None else ("second", failed_too)
                assert why is not None
                what = f"the {which} has no value: {why.diagnostics[0].message}"
                return Equality(False, "numeric", np.inf, done, skipped, counter_example=CounterExample(at, seed, what))
            fault, skipped = fault or failed, skipped + 1
            continue
        pairs = {name: (found[name], found_too[names.get(name, name)]) for name in first.outputs}
        overflown = number == LARGE and any(np.isnan(a).any() or np.isnan(b).any() for a, b in pairs.values())
        if overflown or all(_says_nothing(a) and _says_nothing(b) for a, b in pairs.values()):
            skipped += 1
            continue
        done += 1
        for name, (a, b) in pairs.items():
            distance, what = difference(a, b)
            worst = max(worst, distance)
            if what:
                return Equality(False, "numeric", worst, done, skipped, counter_example=CounterExample(at, seed, f"`{name}{what}"))
    if not done:
        reason = f": {fault.diagnostics[0].message}" if fault else ": every output is NaN"
        help = "give sizes at which both have a value with `--size`"
        raise EinsmithError(Diagnostic("E332", f"no draw could be compared{reason}", help=help))
    because = fault.diagnostics[0].message if fault else "every output is NaN or overflows"
    return Equality(True, "numeric", worst, done, skipped, because if skipped else "")


def _inputs(
    cascade: Cascade, sizes: Mapping[str, int], params: Mapping[str, int | float], seed: tuple[int, int]
) -> dict[str, Array]:
    _bounded(cascade, sizes, params)
    return random_inputs(cascade, sizes, params, np.random.default_rng(seed))


def _value(
    cascade: Cascade, inputs: Mapping[str, Array], sizes: Mapping[str, int], params: Mapping[str, int | float]
) -> tuple[dict[str, Array] | None, EinsmithError | None]:
    """The outputs, or why there are none."""
    try:
        return evaluate(cascade, inputs, sizes, params), None
    except EinsmithError as error:
        return None, error


def _says_nothing(array: Array) -> bool:
    """NaN everywhere (or no elements)."""
    return array.dtype == np.float64 and bool(np.isnan(array).all())


_PRIMES = (2, 3, 5, 7, 11, 13)
DISTRIBUTIONS = 5
"""Ways of drawing the inputs (see `_scaled`)."""
LARGE = 4
"""The one in which an intermediate value may leave the range of numbers: where that makes NaN, the draw decides nothing."""


def _draws(first: Cascade, second: Cascade, sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    """Sizes to try: those of the specs, ones, equal ones, and primes in several orders, tile sizes small."""
    symbols = (*first.symbols, *(name for name in second.symbols if name not in first.symbols))
    spec = {**dict(second.sizes), **dict(first.sizes)}
    single = {name for name in symbols if (name in first.symbols) != (name in second.symbols)}
    seen: set[tuple[int, ...]] = set()

    def drawn(values: list[int]) -> Iterator[dict[str, int]]:
        result = {name: sizes.get(name, max(1, value)) for name, value in zip(symbols, values, strict=True)}
        place = tuple(result.values())
        if place not in seen:
            seen.add(place)
            yield result

    if all(name in spec or name in sizes for name in symbols):
        yield from drawn([spec.get(name, 1) for name in symbols])
    yield from drawn([1] * len(symbols))
    for value in (2, 4, 6):
        yield from drawn([value] * len(symbols))
    for turn in range(5):
        values = []
        for i, name in enumerate(symbols):
            value = _PRIMES[(i * (turn + 1) + turn) % len(_PRIMES)]
            if name in single:
                value = spec.get(name, 2) if turn == 0 else 1 + turn % 3
            values.append(value)
        yield from drawn(values)
    # the proportions of the spec, for sizes that must divide one another
    small = [min(spec.get(name, 3), 8) for name in symbols]
    yield from drawn(small)
    # beyond whole numbers that the cascades compare with, such as `m < 100`: one size at a time
    for value, name in itertools.product(_thresholds(first, second), symbols):
        yield from drawn([value if other == name else least for other, least in zip(symbols, small, strict=True)])


def _thresholds(first: Cascade, second: Cascade) -> list[int]:
    """Sizes just beyond the greatest whole numbers of the cascades, where those are not small."""
    nodes = (node for cascade in (first, second) for einsum in cascade.einsums for node in walk(einsum.body))
    found = {
        int(n.value) for n in nodes if isinstance(n, Number) and float(n.value).is_integer() and max(_PRIMES) <= n.value <= 512
    }
    return [value + 2 for value in sorted(found)[-2:]]


def _bounded(cascade: Cascade, sizes: Mapping[str, int], params: Mapping[str, int | float]) -> None:
    """Refuse sizes at which a tensor is too large to try."""
    extents = bind(cascade, sizes, params).extents
    for tensor in cascade.tensors:
        count = 1
        for rank in tensor.ranks:
            count *= extents[rank] + 1
        if count > 4 * MOST_ELEMENTS:
            raise EinsmithError(Diagnostic("E328", f"`{tensor.name}` is too large to try"))


def _second_sizes(
    second: Cascade,
    inputs: Mapping[str, Array],
    drawn: Mapping[str, int],
    given: Mapping[str, int],
    params: Mapping[str, int | float],
) -> dict[str, int]:
    """Sizes of the second cascade: what its inputs imply, then what was drawn."""
    symbols = set(second.symbols)
    implied = infer_sizes(second, inputs, {name: value for name, value in given.items() if name in symbols}, params)
    defaults = dict(second.sizes)
    result = {}
    for name in second.symbols:
        if name in implied and (implied[name] != defaults.get(name) or name not in drawn):
            result[name] = implied[name]
        elif name in drawn:
            result[name] = drawn[name]
    return result


def _scaled(array: Array, number: int) -> Array:
    """The normal distribution (0) turned into others.

    Values in (0, 1), for logarithms and decays (1); larger ones (2); whole numbers, for ties and zeros (3); far larger
    ones, for clamps and saturation (4).
    """
    if array.dtype != np.float64:
        return array
    if number == 1:
        return 1.0 / (1.0 + np.exp(-array))
    if number == 3:
        return np.round(array)
    return array * {2: 2.0, LARGE: 40.0}.get(number, 1.0)


def difference(a: Array, b: Array) -> tuple[float, str]:
    """(greatest difference relative to the greatest element; where it is more than rounding, or nothing)."""
    if a.shape != b.shape:
        return np.inf, f"` has shape {a.shape} in the first and {b.shape} in the second"
    if not a.size:
        return 0.0, ""
    x, y = a.astype(np.float64), b.astype(np.float64)
    usual = np.isfinite(x) & np.isfinite(y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    scale = float(max(np.abs(x[usual]).max(initial=0.0), np.abs(y[usual]).max(initial=0.0)))
    with np.errstate(all="ignore"):
        error = np.where(same, 0.0, np.where(usual, np.abs(x - y), np.inf))
        wrong = error > RELATIVE * np.maximum(np.abs(x), np.abs(y)) + ABSOLUTE * scale
        wrong |= ~same & ~usual
    relative = float(error.max() / scale) if scale else float(error.max())
    if not wrong.any():
        return relative, ""
    place = np.unravel_index(int(np.where(wrong, error, -1.0).argmax()), error.shape)
    index = ", ".join(str(int(i)) for i in place)
    return relative, f"[{index}]` is {float(x[place]):.17g} in the first and {float(y[place]):.17g} in the second"
