"""Inputs of a cascade: sizes from their shapes, checks of shape and element type, and random ones.

In: a cascade and arrays by name. Out: sizes; the arrays as float64, int64 or bool; or arrays made up. Everything that is wrong is
reported at once (E307 to E313).
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .arithmetic import Array
from .cascade import COMPARISONS, Access, Cascade, Coord, DType, Expr, Map, Number, Scalar, Tensor, walk
from .diagnostics import Diagnostic, SpecError
from .sizes import Sizes, bind, evaluate_scalar
from .source import Span

# --- sizes ------------------------------------------------------------------------------------------------------------


def infer_sizes(
    cascade: Cascade,
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
) -> dict[str, int]:
    """Sizes as given, completed by what the shapes of the inputs imply, then by the spec's own values.

    Raises SpecError where shapes contradict one another or the sizes given (E309), or have the wrong number of dimensions (E310).
    """
    known = {name: int(value) if isinstance(value, np.integer) else value for name, value in (sizes or {}).items()}
    origin = dict.fromkeys(known, "given")
    problems: list[Diagnostic] = []
    dimensions = list(_dimensions(cascade, inputs, problems))
    if problems:
        raise SpecError(problems)
    symbols = set(cascade.symbols)
    progress = True
    while progress and symbols - known.keys():
        progress = False
        for tensor, axis, extent, have in dimensions:
            unknown = _unknown(extent, symbols - known.keys(), cascade, params)
            if len(unknown) != 1:
                continue
            value = _solve(extent, unknown[0], have, known, cascade, params)
            if value is not None:
                known[unknown[0]] = value
                origin[unknown[0]] = f"from dimension {axis + 1} of `{tensor.name}`"
                progress = True
    for name, value in cascade.sizes:
        if name not in known:
            known[name] = value
            origin[name] = "from the spec"
    values = _scalars(known, cascade, params)
    for tensor, axis, extent, have in dimensions:
        need = _evaluated(extent, values)
        if need is not None and need != have:
            names = [name for name in _names(extent, cascade) if name in known]
            why = ", ".join(f"`{name}` is {known[name]} ({origin[name]})" for name in names)
            problems.append(
                Diagnostic(
                    "E309",
                    f"input `{tensor.name}` has {have} positions along `{tensor.ranks[axis]}` (dimension {axis + 1}), needs {need}"
                    + (f": {why}" if why else ""),
                    tensor.span,
                )
            )
    if problems:
        raise SpecError(problems)
    return known


def _dimensions(
    cascade: Cascade, inputs: Mapping[str, Array], problems: list[Diagnostic]
) -> Iterator[tuple[Tensor, int, Expr, int]]:
    for tensor in cascade.inputs:
        if tensor.name not in inputs:
            continue
        shape = np.shape(inputs[tensor.name])
        if len(shape) != len(tensor.ranks):
            ranks = ", ".join(tensor.ranks)
            problems.append(
                Diagnostic(
                    "E310", f"input `{tensor.name}` has {len(shape)} dimensions, needs {len(tensor.ranks)}: [{ranks}]", tensor.span
                )
            )
            continue
        for axis, (rank, have) in enumerate(zip(tensor.ranks, shape, strict=True)):
            yield tensor, axis, cascade.rank(rank).extent, have


def _names(expr: Expr, cascade: Cascade) -> list[str]:
    """Extent symbols that an expression of scalars stands on, through parameters and counts."""
    definitions: dict[str, Expr] = {**dict(cascade.params), **cascade.counts}
    found: dict[str, None] = {}
    stack = [expr]
    seen: set[str] = set()
    while stack:
        for node in walk(stack.pop()):
            if isinstance(node, Scalar) and node.name not in seen:
                seen.add(node.name)
                if node.name in definitions:
                    stack.append(definitions[node.name])
                else:
                    found[node.name] = None
    return list(found)


def _unknown(expr: Expr, missing: set[str], cascade: Cascade, params: Mapping[str, int | float] | None) -> list[str]:
    return [name for name in _names(expr, cascade) if name in missing]


def _value(
    expr: Expr, known: Mapping[str, int | float], cascade: Cascade, params: Mapping[str, int | float] | None
) -> int | float | None:
    return _evaluated(expr, _scalars(known, cascade, params))


def _scalars(
    known: Mapping[str, int | float], cascade: Cascade, params: Mapping[str, int | float] | None
) -> dict[str, int | float]:
    """Values of all scalars that have one, by those that are known."""
    values: dict[str, int | float] = dict(known)
    for name, definition in (*cascade.params, *cascade.counts.items()):
        value = params[name] if params and name in params else _evaluated(definition, values)
        if value is not None:
            values[name] = value
    return values


def _evaluated(expr: Expr, values: Mapping[str, int | float]) -> int | float | None:
    try:
        return evaluate_scalar(expr, values)
    except (KeyError, ArithmeticError, ValueError):
        return None


def _solve(
    expr: Expr, name: str, have: int, known: dict[str, int], cascade: Cascade, params: Mapping[str, int | float] | None
) -> int | None:
    """The one value of a symbol that gives an extent, where the extent is an affine function of it."""
    if expr == Scalar(name):
        return have
    at = [_value(expr, {**known, name: value}, cascade, params) for value in (0, 1, 2, have)]
    if any(value is None for value in at):
        return None
    zero, one, two, there = (value or 0 for value in at)
    slope = one - zero
    if slope == 0 or two - one != slope or there != zero + slope * have:
        return None
    solution = (have - zero) / slope
    return int(solution) if solution >= 0 and float(solution).is_integer() else None


# --- checks -----------------------------------------------------------------------------------------------------------


def as_arrays(inputs: Mapping[str, Any]) -> dict[str, Array]:
    """Anything that numpy takes as an array. Raises SpecError (E311)."""
    result: dict[str, Array] = {}
    for name, value in inputs.items():
        try:
            result[name] = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(Diagnostic("E311", f"input `{name}` is no array: {reason}")) from None
    return result


def checked(cascade: Cascade, inputs: Mapping[str, Array], sizes: Sizes) -> dict[str, Array]:
    """The inputs as arrays of the element types of the IR. Raises SpecError (E307, E308, E309, E311)."""
    problems: list[Diagnostic] = []
    names = {tensor.name for tensor in cascade.inputs}
    extra = [name for name in inputs if name not in names]
    absent = [tensor for tensor in cascade.inputs if tensor.name not in inputs]
    for name in extra:
        close = difflib.get_close_matches(name, [tensor.name for tensor in absent] or list(names), 1, 0.5)
        hint = f"did you mean `{close[0]}`?" if close else f"the inputs are {', '.join(f'`{n}`' for n in sorted(names)) or 'none'}"
        problems.append(Diagnostic("E308", f"the cascade has no input `{name}`", help=hint))
    for tensor in absent:
        problems.append(Diagnostic("E307", f"input `{tensor.name}` is missing", tensor.span))
    result: dict[str, Array] = {}
    for tensor in cascade.inputs:
        if tensor.name in inputs:
            array = np.asarray(inputs[tensor.name])
            need = tuple(sizes.extents[rank] for rank in tensor.ranks)
            if array.shape != need:
                have = " x ".join(map(str, array.shape)) or "a scalar"
                wanted = " x ".join(f"{rank}={extent}" for rank, extent in zip(tensor.ranks, need, strict=True)) or "a scalar"
                problems.append(Diagnostic("E309", f"input `{tensor.name}` is {have}, needs {wanted}", tensor.span))
            try:
                result[tensor.name] = as_element_type(array, tensor.dtype)
            except ValueError as error:
                message = f"input `{tensor.name}` has element type {array.dtype}, needs {_ACCEPTED[tensor.dtype]}"
                problems.append(Diagnostic("E311", message, tensor.span, help=str(error)))
    if problems:
        raise SpecError(problems)
    return result


_ACCEPTED = {"float": "floats (or integers)", "int": "integers", "bool": "bool"}


def as_element_type(array: Array, dtype: DType) -> Array:
    """The array as float64, int64 or bool, without loss. Raises ValueError, with how to mend it."""
    kind = array.dtype.kind
    if dtype == "bool" and kind == "b":
        return array
    if dtype == "int" and kind in "iu":
        if kind == "u" and array.size and int(array.max()) >= 2**63:
            raise ValueError("values from 2**63 do not fit in 64 bits")
        return array.astype(np.int64, copy=False)
    if dtype == "float" and kind in "fiu":
        return array.astype(np.float64, copy=False)
    numpy_name = {"float": "np.float64", "int": "np.int64", "bool": "bool"}[dtype]
    raise ValueError(f"convert it with `.astype({numpy_name})`, if that is what you mean")


# --- random inputs ----------------------------------------------------------------------------------------------------


def random_inputs(
    cascade: Cascade,
    sizes: Mapping[str, int] | None,
    params: Mapping[str, int | float] | None,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Normally distributed floats, fair bools, and integers that stay in range where they serve as indices."""
    bound = bind(cascade, sizes, params)
    ranges = integer_ranges(cascade, bound)
    result: dict[str, Array] = {}
    for tensor in cascade.inputs:
        shape = tuple(bound.extents[rank] for rank in tensor.ranks)
        require_memory(f"input `{tensor.name}`", shape, result, tensor.span)
        result[tensor.name] = _random(tensor, shape, ranges, rng)
    return result


def require_memory(what: str, shape: tuple[int, ...], beside: Mapping[str, Array], span: Span | None) -> None:
    """Refuse an array of 64-bit elements that this machine's memory cannot hold beside others (E328)."""
    need = 8 * math.prod(shape) + sum(array.nbytes for array in beside.values())
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > have:
        size = " x ".join(map(str, shape))
        message = f"{what} ({size}) does not fit in memory: need {need / 2**30:.1f} GiB in all, have {have / 2**30:.1f} GiB"
        raise SpecError(Diagnostic("E328", message, span))


def _random(tensor: Tensor, shape: tuple[int, ...], ranges: Mapping[str, tuple[int, int]], rng: np.random.Generator) -> Array:
    if tensor.dtype == "float":
        return rng.standard_normal(shape)
    if tensor.dtype == "bool":
        return rng.random(shape) < 0.5
    low, high = ranges[tensor.name]
    return rng.integers(low, high + 1, shape, dtype=np.int64)


LABELS = 3
"""Greatest value of a random integer that is neither an index nor compared with a coordinate (a segment number, say)."""

Interval = tuple[float, float]


def integer_ranges(cascade: Cascade, sizes: Sizes) -> dict[str, tuple[int, int]]:
    """Least and greatest value of each integer input: as wide as all index expressions that it reaches stay in range."""
    uses = _index_uses(cascade, sizes)
    reached = {name: _reaching(cascade, name) for name in (t.name for t in cascade.inputs if t.dtype == "int")}
    greatest: dict[str, int] = dict.fromkeys(reached, 0)
    for name, tensors in reached.items():
        mine = [(expr, extent) for expr, extent in uses if any(a.tensor in tensors for a in _accesses(expr))]
        if not mine:
            greatest[name] = _compared_extent(cascade, sizes, tensors)
            continue

        def fits(high: int, name: str = name, mine: list[tuple[Expr, int]] = mine) -> bool:
            intervals = _intervals(cascade, sizes, {**greatest, name: high})
            bounds = [(_interval(expr, sizes, intervals), extent) for expr, extent in mine]
            return all(low >= 0 and high <= extent - 1 for (low, high), extent in bounds)

        most = max(extent for _, extent in mine) - 1
        if not fits(0):  # no interval shows it in range (a condition may): as wide as the dimension
            greatest[name] = max(0, min(extent for _, extent in mine) - 1)
            continue
        low, high = 0, max(0, most)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        greatest[name] = low
    return {name: (0, high) for name, high in greatest.items()}


def _accesses(expr: Expr) -> list[Access]:
    return [node for node in walk(expr) if isinstance(node, Access)]


def _index_uses(cascade: Cascade, sizes: Sizes) -> list[tuple[Expr, int]]:
    """Index expressions that contain accesses, each with the length of the dimension it indexes."""
    found: list[tuple[Expr, int]] = []
    for einsum in cascade.einsums:
        target = Access(einsum.output, einsum.indices)
        for node in (target, *_accesses(einsum.body)):
            tensor = cascade.tensor(node.tensor)
            for rank, index in zip(tensor.ranks, node.indices, strict=True):
                if _accesses(index):
                    found.append((index, sizes.extents[rank] + (rank == tensor.iterates)))
    return found


def _reaching(cascade: Cascade, name: str) -> set[str]:
    """The integer tensors whose values an integer input passes into."""
    reached = {name}
    for einsum in cascade.einsums:
        if cascade.tensor(einsum.output).dtype == "int" and any(a.tensor in reached for a in _accesses(einsum.body)):
            reached.add(einsum.output)
    return reached


def _compared_extent(cascade: Cascade, sizes: Sizes, tensors: set[str]) -> int:
    """Extent of a rank that the values are compared with (lengths, positions); else a few labels."""
    for einsum in cascade.einsums:
        for node in walk(einsum.body):
            if isinstance(node, Map) and node.op in COMPARISONS and any(a.tensor in tensors for a in _accesses(node)):
                ranks = [part.rank for arg in node.args if not _accesses(arg) for part in walk(arg) if isinstance(part, Coord)]
                if ranks:
                    return sizes.extents[ranks[0]]
    return LABELS


def _intervals(cascade: Cascade, sizes: Sizes, greatest: Mapping[str, int]) -> dict[str, Interval]:
    """Interval of the values of each integer tensor."""
    found: dict[str, Interval] = {name: (0, high) for name, high in greatest.items()}
    for einsum in cascade.einsums:
        if cascade.tensor(einsum.output).dtype == "int":
            low, high = _interval(einsum.body, sizes, found)
            before = found.get(einsum.output, (low, high))
            found[einsum.output] = (min(low, before[0]), max(high, before[1]))
    return found


_EVERYTHING: Interval = (-np.inf, np.inf)


def _interval(expr: Expr, sizes: Sizes, tensors: Mapping[str, Interval]) -> Interval:
    """An interval that holds every value of an integer expression."""
    match expr:
        case Number(value=value):
            return value, value
        case Scalar(name=name):
            return sizes.scalars[name], sizes.scalars[name]
        case Coord(rank=rank):
            return 0, max(0, sizes.extents[rank] - 1)
        case Access(tensor=tensor):
            return tensors.get(tensor, _EVERYTHING)
        case Map(op=op, args=args):
            return _map_interval(op, [_interval(arg, sizes, tensors) for arg in args])
        case _ if getattr(expr, "op", "") in ("argmax", "argmin", "argtopk", "argsort"):
            rank = getattr(expr, "rank", "") or getattr(expr, "ranks", ("",))[0]
            return 0, max(0, sizes.extents[rank] - 1)
        case _ if getattr(expr, "op", "") in ("max", "min", "topk", "sort", "cummax"):
            return _interval(expr.body, sizes, tensors)
    return _EVERYTHING


def _map_interval(op: str, args: list[Interval]) -> Interval:
    match op, args:
        case "+", [(a, b), (c, d)]:
            return a + c, b + d
        case "-", [(a, b), (c, d)]:
            return a - d, b - c
        case "*", [(a, b), (c, d)]:
            corners = [x * y if x and y else 0 for x in (a, b) for y in (c, d)]
            return min(corners), max(corners)
        case "//", [(a, b), (c, d)] if c > 0 and np.isfinite([a, b, c, d]).all():
            corners = [x // y for x in (a, b) for y in (c, d)]
            return min(corners), max(corners)
        case "%", [(a, b), (c, d)] if c > 0:
            return (a, b) if a >= 0 and b < c else (0, d - 1)
        case "min", [(a, b), (c, d)]:
            return min(a, c), min(b, d)
        case "max", [(a, b), (c, d)]:
            return max(a, c), max(b, d)
        case "clamp", [(a, b), (c, d), (e, f)]:
            return min(max(a, c), e), min(max(b, d), f)
        case "where", [_, (a, b), (c, d)]:
            return min(a, c), max(b, d)
        case "neg", [(a, b)]:
            return -b, -a
        case "abs", [(a, b)]:
            return (0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))
        case (("floor" | "ceil" | "round" | "relu"), [(a, b)]):
            return a, b
    return _EVERYTHING
