"""Data types of expressions: float, int or bool, and which expressions are whole numbers.

In: an expression and the dtypes of tensors and scalars. Out: its dtype. Only what an index may be hangs on this; arithmetic
itself is float64 throughout. `floor`, `ceil` and `round` give whole numbers of dtype float (they may be infinite), which may
stand in an index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from .cascade import (
    COMPARISONS,
    LOGICAL,
    Access,
    Cascade,
    Coord,
    DType,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scalar,
    Scan,
    Select,
    accesses,
)

_ORDER: tuple[DType, ...] = ("bool", "int", "float")
_KEEPS_INT = frozenset({"+", "-", "*", "//", "%", "**", "neg", "min", "max", "abs", "sign", "clamp"})
_ROUNDS = frozenset({"floor", "ceil", "round"})


def join(*dtypes: DType) -> DType:
    """The least dtype that holds all of them."""
    return _ORDER[max(map(_ORDER.index, dtypes))] if dtypes else "bool"


def dtype_of(expr: Expr, tensors: Mapping[str, DType], scalars: Mapping[str, DType]) -> DType:
    """Dtype of an expression; unknown names count as int."""
    match expr:
        case Number(value=value):
            return "int" if isinstance(value, int) else "float"
        case Coord():
            return "int"
        case Scalar(name=name):
            return scalars.get(name, "int")
        case Access(tensor=tensor):
            return tensors.get(tensor, "int")
        case Map(op="where", args=(_, yes, no)):
            return join(dtype_of(yes, tensors, scalars), dtype_of(no, tensors, scalars))
        case Map(op=op, args=args):
            if op in COMPARISONS or op in LOGICAL:
                return "bool"
            if op in _KEEPS_INT and not (op == "**" and not never_negative(args[1], scalars)):
                return join("int", *(dtype_of(arg, tensors, scalars) for arg in args))
            return "float"
        case Reduce(op="any" | "all"):
            return "bool"
        case Reduce(op="mean"):
            return "float"
        case Reduce(op="argmax" | "argmin") | Select(op="argtopk" | "argsort"):
            return "int"
        case Reduce(body=body) | Scan(body=body):
            return join("int", dtype_of(body, tensors, scalars))
        case Select(body=body):
            return dtype_of(body, tensors, scalars)


def never_negative(expr: Expr, scalars: Mapping[str, DType]) -> bool:
    """Is the expression at least 0 by its form alone? (So that a power of whole numbers is whole.)"""
    match expr:
        case Number() | Coord() | Map(op="abs"):
            return True
        case Scalar(name=name):
            return name not in scalars  # extents and counts; a parameter may be negative
        case Map(op="max", args=args):
            return any(never_negative(arg, scalars) for arg in args)
        case Map(op="+" | "*" | "//" | "%" | "min", args=args):
            return all(never_negative(arg, scalars) for arg in args)
        case Map(op="clamp", args=(_, low, _)):
            return never_negative(low, scalars)
        case _:
            return False


def is_whole(expr: Expr, whole: Callable[[str], bool], scalars: Mapping[str, DType]) -> bool:
    """Is every value of the expression a whole number? `whole(tensor)` says so of tensors."""
    match expr:
        case Number(value=value):
            return isinstance(value, int)
        case Coord():
            return True
        case Scalar(name=name):
            return scalars.get(name, "int") != "float"
        case Access(tensor=tensor):
            return whole(tensor)
        case Map(op="where", args=(_, yes, no)):
            return is_whole(yes, whole, scalars) and is_whole(no, whole, scalars)
        case Map(op=op, args=args):
            if op in COMPARISONS or op in LOGICAL or op in _ROUNDS:
                return True
            if op == "**" and not never_negative(args[1], scalars):
                return False
            return op in _KEEPS_INT and all(is_whole(arg, whole, scalars) for arg in args)
        case Reduce(op="any" | "all" | "argmax" | "argmin") | Select(op="argtopk" | "argsort"):
            return True
        case Reduce(op="mean"):
            return False
        case Reduce(body=body) | Scan(body=body) | Select(body=body):
            return is_whole(body, whole, scalars)


def scalar_dtypes(params: tuple[tuple[str, Expr], ...]) -> dict[str, DType]:
    """Dtype of each parameter; symbols and counts are not listed (they are int)."""
    found: dict[str, DType] = {}
    for name, expr in params:
        found[name] = dtype_of(expr, {}, found)
    return found


def whole_tensors(cascade: Cascade) -> frozenset[str]:
    """Tensors that hold whole numbers alone: int and bool ones, and those defined by rounding."""
    scalars = scalar_dtypes(cascade.params)
    found = {tensor.name for tensor in cascade.tensors if tensor.dtype != "float" or tensor.kind != "input"}

    def changes(einsum: Einsum) -> bool:
        if einsum.output not in found or is_whole(einsum.body, found.__contains__, scalars):
            return False
        found.discard(einsum.output)
        return True

    _settle(cascade.einsums, changes)
    return frozenset(found)


def tensor_dtypes(
    inputs: Mapping[str, DType], einsums: tuple[Einsum, ...], params: tuple[tuple[str, Expr], ...]
) -> dict[str, DType]:
    """Dtype of every tensor, from those of the inputs: the least solution, so that states may depend on one another."""
    scalars = scalar_dtypes(params)
    found: dict[str, DType] = dict(inputs) | {einsum.output: "bool" for einsum in einsums if einsum.output not in inputs}

    def changes(einsum: Einsum) -> bool:
        if found[einsum.output] == _ORDER[-1] or einsum.output in inputs:
            return False
        dtype = join(found[einsum.output], dtype_of(einsum.body, found, scalars))
        if dtype == found[einsum.output]:
            return False
        found[einsum.output] = dtype
        return True

    _settle(einsums, changes)
    return found


def _settle(einsums: tuple[Einsum, ...], changes: Callable[[Einsum], bool]) -> None:
    """Apply `changes` to each Einsum, and again to the readers of what it changed, until nothing changes."""
    readers: dict[str, dict[int, None]] = {}
    for number, einsum in enumerate(einsums):
        for access in accesses(einsum.body):
            readers.setdefault(access.tensor, {})[number] = None
    waiting = dict.fromkeys(range(len(einsums)))
    while waiting:
        number = next(iter(waiting))
        del waiting[number]
        if changes(einsums[number]):
            waiting |= dict.fromkeys(readers.get(einsums[number].output, ()))


def with_dtypes(cascade: Cascade) -> Cascade:
    """The cascade with the dtypes of all tensors but inputs inferred anew."""
    inputs = {tensor.name: tensor.dtype for tensor in cascade.inputs}
    found = tensor_dtypes(inputs, cascade.einsums, cascade.params)
    tensors = tuple(t if t.dtype == found.get(t.name, t.dtype) else replace(t, dtype=found[t.name]) for t in cascade.tensors)
    return replace(cascade, tensors=tensors)
