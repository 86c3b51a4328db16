"""A formula written down once and evaluated over arrays.

In: arithmetic on `Node`s (`+ - * /`, `maximum`, `ceil_div`, `where` ...), recorded on a `Tape` as straight-line code; equal
sub-expressions are recorded once and constants folded. Out: arrays of results for arrays of inputs. What does not vary in a call is
computed once; the rest runs in chunks that stay in the cache, by numpy or, where numba is there, by one compiled loop over the same
code (`tape_fast`), with equal results. Everything is float64: whole numbers are exact below 2**53, nothing wraps around.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
CHUNK = 4096
"""Elements worked on at once by numpy."""

OPERATIONS = ("+", "-", "*", "/", "max", "min", "ceil", "floor", "log2", ">", "where")
_CODES = {name: code for code, name in enumerate(OPERATIONS)}
_NUMPY: tuple[Callable[..., Any], ...] = (
    np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.ceil, np.floor, np.log2, np.greater, np.where,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value on a tape."""

    tape: Tape
    index: int

    def __add__(self, other: Value) -> Value:
        return self.tape.record("+", self, other)

    def __radd__(self, other: Value) -> Value:
        return self.tape.record("+", other, self)

    def __sub__(self, other: Value) -> Value:
        return self.tape.record("-", self, other)

    def __rsub__(self, other: Value) -> Value:
        return self.tape.record("-", other, self)

    def __mul__(self, other: Value) -> Value:
        return self.tape.record("*", self, other)

    def __rmul__(self, other: Value) -> Value:
        return self.tape.record("*", other, self)

    def __truediv__(self, other: Value) -> Value:
        return self.tape.record("/", self, other)

    def __rtruediv__(self, other: Value) -> Value:
        return self.tape.record("/", other, self)


Value: TypeAlias = Node | float


class Tape:
    """Straight-line code; each line is an operation with up to three earlier lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int, int, int]] = []
        """(operation, operands); operation -1: a constant, -2: an input, its number as the first operand."""
        self.constants: dict[int, float] = {}
        self.inputs: dict[str, int] = {}
        self._known: dict[Any, int] = {}

    def input(self, name: str) -> Node:
        """The input of a name."""
        if name not in self.inputs:
            self.lines.append((-2, len(self.inputs), 0, 0))
            self.inputs[name] = len(self.lines) - 1
        return Node(self, self.inputs[name])

    def record(self, operation: str, *operands: Value) -> Value:
        """The value of an operation: folded if it is constant, the same line as before if it was recorded before."""
        if all(not isinstance(value, Node) for value in operands):
            return float(_NUMPY[_CODES[operation]](*operands))
        if (simple := _simplified(operation, operands)) is not None:
            return simple
        indices = [self._index(value) for value in operands]
        if operation in ("+", "*", "max", "min"):
            indices.sort()
        key = (_CODES[operation], *indices, *(0,) * (3 - len(indices)))
        if key not in self._known:
            self.lines.append(key)  # type: ignore[arg-type]
            self._known[key] = len(self.lines) - 1
        return Node(self, self._known[key])

    def _index(self, value: Value) -> int:
        if isinstance(value, Node):
            return value.index
        key = ("constant", float(value))
        if key not in self._known:
            self.lines.append((-1, 0, 0, 0))
            self._known[key] = len(self.lines) - 1
            self.constants[len(self.lines) - 1] = float(value)
        return self._known[key]


def _simplified(operation: str, operands: tuple[Value, ...]) -> Value | None:
    """The value where it takes no operation."""
    a, b = operands[0], operands[1] if len(operands) > 1 else 0.0
    if operation == "+":
        return b if _is(a, 0) else a if _is(b, 0) else None
    if operation == "-":
        return a if _is(b, 0) else None
    if operation == "*":
        return 0.0 if _is(a, 0) or _is(b, 0) else b if _is(a, 1) else a if _is(b, 1) else None
    if operation == "/":
        return a if _is(b, 1) else 0.0 if _is(a, 0) else None
    if operation in ("max", "min") and isinstance(a, Node) and isinstance(b, Node) and a.index == b.index:
        return a
    if operation == "where" and not isinstance(a, Node):
        return b if a else operands[2]
    return None


def _is(value: Value, number: float) -> bool:
    return not isinstance(value, Node) and value == number


def _call(operation: str, *operands: Value) -> Value:
    for value in operands:
        if isinstance(value, Node):
            return value.tape.record(operation, *operands)
    return float(_NUMPY[_CODES[operation]](*operands))


def maximum(first: Value, *others: Value) -> Value:
    return functools.reduce(lambda a, b: _call("max", a, b), others, first)


def minimum(first: Value, *others: Value) -> Value:
    return functools.reduce(lambda a, b: _call("min", a, b), others, first)


def ceil(value: Value) -> Value:
    return _call("ceil", value)


def floor(value: Value) -> Value:
    return _call("floor", value)


def log2(value: Value) -> Value:
    return _call("log2", value)


def ceil_div(a: Value, b: Value) -> Value:
    """Of whole numbers; exact below 2**51."""
    return _call("ceil", _call("/", a, b))


def greater(a: Value, b: Value) -> Value:
    """1 where a > b, else 0."""
    return _call(">", a, b)


def where(condition: Value, yes: Value, no: Value) -> Value:
    if not isinstance(condition, Node):
        return yes if condition else no
    return _call("where", condition, yes, no)


def product(values: Iterable[Value]) -> Value:
    found: Value = 1.0
    for value in values:
        found = found * value
    return found


def total(values: Iterable[Value]) -> Value:
    found: Value = 0.0
    for value in values:
        found = found + value
    return found


class Program:
    """The part of a tape that some outputs need, ready to run."""

    def __init__(self, tape: Tape, outputs: Map_[str, Value]) -> None:
        self.tape, self.outputs = tape, dict(outputs)
        needed: set[int] = set()
        waiting = [value.index for value in outputs.values() if isinstance(value, Node)]
        while waiting:
            index = waiting.pop()
            if index not in needed:
                needed.add(index)
                waiting += _operands(tape.lines[index])
        self.needed = sorted(needed)
        self._plans: dict[frozenset[str], _Plan] = {}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that the outputs depend on."""
        needed = set(self.needed)
        return tuple(name for name, index in self.tape.inputs.items() if index in needed)

    def __len__(self) -> int:
        return len(self.needed)

    def run(self, inputs: Map_[str, Any], count: int, fast: bool | None = None) -> dict[str, Floats]:
        """Outputs for inputs that are numbers or arrays of `count` numbers; `fast`: by numba or not (None: where it pays)."""
        varying = frozenset(name for name in self.inputs if np.ndim(inputs[name]))
        if varying not in self._plans:
            self._plans[varying] = _Plan(self, varying)
        return self._plans[varying].run(inputs, count, fast)


def _operands(line: tuple[int, int, int, int]) -> tuple[int, ...]:
    code = line[0]
    if code < 0:
        return ()
    name = OPERATIONS[code]
    return line[1:2] if name in ("ceil", "floor", "log2") else line[1:4] if name == "where" else line[1:3]


class _Plan:
    """A program for a given set of inputs that vary: what is computed once, what for each point, in which registers."""

    def __init__(self, program: Program, varying: frozenset[str]) -> None:
        lines = program.tape.lines
        names = {index: name for name, index in program.tape.inputs.items()}
        self.names, self.lines, self.constants = names, lines, program.tape.constants
        self.outputs = program.outputs
        varies: set[int] = set()
        self.once: list[int] = []
        each: list[int] = []
        for index in program.needed:
            code = lines[index][0]
            if code == -2 and names[index] in varying:
                varies.add(index)
            elif code >= 0 and any(operand in varies for operand in _operands(lines[index])):
                varies.add(index)
                each.append(index)
            else:
                self.once.append(index)
        self.arrays = [index for index in program.needed if lines[index][0] == -2 and index in varies]
        self.results = sorted({v.index for v in program.outputs.values() if isinstance(v, Node) and v.index in varies})
        self.uniform = sorted({operand for index in each for operand in _operands(lines[index]) if operand not in varies})
        self._allocate(each)

    def _allocate(self, each: list[int]) -> None:
        """Give every value a register; one that nobody reads any more is taken again."""
        last: dict[int, int] = {}
        for at, index in enumerate(each):
            for operand in _operands(self.lines[index]):
                last[operand] = at
        home: dict[int, int] = {}
        for index in (*self.uniform, *self.arrays):
            home[index] = len(home)
        fixed = set(self.uniform) | set(self.results)
        count = len(home)
        free: list[int] = []
        code = []
        for at, index in enumerate(each):
            operation = self.lines[index][0]
            operands = _operands(self.lines[index])
            places = [home[operand] for operand in operands]
            if free:
                mine = free.pop()
            else:
                mine, count = count, count + 1
            for operand in set(operands):
                if last[operand] == at and operand not in fixed:
                    free.append(home[operand])
            home[index] = mine
            code.append((operation, mine, *places, *(0,) * (3 - len(places))))
        self.code = np.array(code, dtype=np.int32).reshape(-1, 5)
        self.registers = max(count, 1)
        self.home = home

    def run(self, inputs: Map_[str, Any], count: int, fast: bool | None) -> dict[str, Floats]:
        single: dict[int, float] = {}
        with np.errstate(all="ignore"):
            for index in self.once:
                code = self.lines[index][0]
                if code == -1:
                    single[index] = self.constants[index]
                elif code == -2:
                    single[index] = float(inputs[self.names[index]])
                else:
                    single[index] = float(_NUMPY[code](*(np.float64(single[o]) for o in _operands(self.lines[index]))))
        arrays = [np.ascontiguousarray(inputs[self.names[index]], dtype=np.float64) for index in self.arrays]
        found = np.empty((len(self.results), count))
        if self.results:
            uniform = np.array([single[index] for index in self.uniform])
            places = np.array([self.home[index] for index in self.results], dtype=np.int32)
            if (count >= 16 * CHUNK if fast is None else fast) and (kernel := _kernel()) is not None:
                stacked = np.stack(arrays)
                kernel(self.code, self.registers, uniform, stacked, places, found)
            else:
                self._chunks(uniform, arrays, places, found)
        rows = {index: row for row, index in enumerate(self.results)}
        outputs: dict[str, Floats] = {}
        for name, value in self.outputs.items():
            if isinstance(value, Node) and value.index in rows:
                outputs[name] = found[rows[value.index]]
            else:
                outputs[name] = np.full(count, single[value.index] if isinstance(value, Node) else float(value))
        return outputs

    def _chunks(self, uniform: Floats, arrays: list[Floats], places: NDArray[np.int32], found: Floats) -> None:
        count = found.shape[1]
        width = min(CHUNK, count)
        registers: list[Any] = [np.empty(0)] * self.registers
        registers[: len(uniform)] = [np.float64(value) for value in uniform]
        offset = len(uniform)
        code = self.code.tolist()
        buffers = [np.empty(width) for _ in range(self.registers)]
        with np.errstate(all="ignore"):
            for start in range(0, count, width):
                stop = min(start + width, count)
                n = stop - start
                views = [buffer[:n] for buffer in buffers]
                for number, array in enumerate(arrays):
                    views[offset + number][:] = array[start:stop]
                    registers[offset + number] = views[offset + number]
                for operation, target, a, b, c in code:
                    out = views[target]
                    if operation <= 5:
                        _NUMPY[operation](registers[a], registers[b], out=out)
                    elif operation <= 8:
                        _NUMPY[operation](registers[a], out=out)
                    elif operation == 9:
                        np.greater(registers[a], registers[b], out=out)
                    else:
                        out[...] = np.where(registers[a], registers[b], registers[c])
                    registers[target] = out
                for row, place in enumerate(places):
                    found[row, start:stop] = registers[place]


@functools.cache
def _kernel() -> Callable[..., None] | None:
    """The compiled loop, where numba is there."""
    try:
        from .tape_fast import kernel

        return kernel()
    except ImportError:
        return None
