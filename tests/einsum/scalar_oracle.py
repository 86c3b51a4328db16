"""A second interpreter, obviously right and very slow: every element by itself, straight from the definition.

`evaluate(cascade, inputs, sizes, params)` gives the same as `einsmith.einsum.interpret.evaluate`. Nothing is vectorised, nothing is
scheduled: an element of a tensor is computed when it is asked for (and remembered), a state's element from the one before it.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from einsmith.einsum.cascade import Access, Cascade, Coord, Map, Number, Reduce, Scalar, Scan, Select, free_ranks
from einsmith.einsum.sizes import bind, evaluate_scalar

INF = math.inf
NAN = math.nan


class Refused(Exception):
    """The definition gives no value."""


def evaluate(cascade, inputs, sizes=None, params=None, keep=()):
    return Oracle(cascade, inputs, sizes, params).run((*cascade.outputs, *keep))


class Oracle:
    def __init__(self, cascade: Cascade, inputs, sizes=None, params=None):
        self.cascade = cascade
        self.sizes = bind(cascade, sizes, params)
        self.inputs = inputs
        self.known = {}
        self.splits = {
            rank.name: (rank.split.outer, rank.split.inner, evaluate_scalar(rank.split.tile, self.sizes.scalars))
            for rank in cascade.ranks
            if rank.split
        }

    def run(self, names):
        result = {}
        for tensor in self.cascade.tensors:  # every element of every tensor, so that every fault shows
            shape = [self.sizes.extents[rank] + (rank == tensor.iterates) for rank in tensor.ranks]
            dtype = {"float": float, "int": np.int64, "bool": bool}[tensor.dtype]
            result[tensor.name] = np.zeros(shape, dtype)
            for place in itertools.product(*map(range, shape)):
                result[tensor.name][place] = self.element(tensor.name, place)
        return {name: result[name] for name in names}

    # --- elements -----------------------------------------------------------------------------------------------------

    def element(self, name, place):
        if (name, place) not in self.known:
            tensor = self.cascade.tensor(name)
            value = self.defined(tensor, place)
            self.known[name, place] = self.held(value, tensor.dtype)
        return self.known[name, place]

    def held(self, value, dtype):
        if dtype == "bool":
            return bool(value)
        if dtype == "int":
            if value != value or math.isinf(value) or value != int(value):
                raise Refused(f"{value} is not whole")
            return int(value)
        return float(value)

    def defined(self, tensor, place):
        if tensor.kind == "input":
            return self.inputs[tensor.name][place].item()
        definitions = self.cascade.definitions(tensor.name)
        if tensor.kind == "scatter":
            return self.scattered(definitions[0], place)
        if tensor.kind == "state":
            axis = tensor.ranks.index(tensor.iterates)
            first, step = sorted(definitions, key=lambda einsum: not isinstance(einsum.indices[axis], Number))
            if place[axis] == 0:
                return self.at(first, place, lambda: 0)
            before = (*place[:axis], place[axis] - 1, *place[axis + 1 :])
            return self.at(step, before, lambda: self.element(tensor.name, before))
        return self.at(definitions[0], place, lambda: 0)

    def at(self, einsum, place, otherwise):
        """Value of an Einsum where its left-hand ranks are at a place; `otherwise` where that point does not exist."""
        point = {}
        for index, coordinate in zip(einsum.indices, place, strict=True):
            for rank in free_ranks(index):
                point[rank] = coordinate
        if isinstance(einsum.body, Select):
            outer = {rank: at for rank, at in point.items() if rank != einsum.body.fills}
            return self.selected(einsum.body, outer, point[einsum.body.fills]) if self.exists(outer) else 0
        return self.value(einsum.body, point) if self.exists(point) else otherwise()

    def coordinate(self, rank, point):
        if rank in point:
            return point[rank]
        if rank in self.splits:
            outer, inner, tile = self.splits[rank]
            a, b = self.coordinate(outer, point), self.coordinate(inner, point)
            return None if a is None or b is None else a * tile + b
        return None

    def exists(self, point):
        for rank in self.splits:
            at = self.coordinate(rank, {name: n for name, n in point.items() if name != rank})
            if at is not None and at >= self.sizes.extents[rank]:
                return False
        return True

    def points(self, ranks, point):
        for place in itertools.product(*(range(self.sizes.extents[rank]) for rank in ranks)):
            inner = {**point, **dict(zip(ranks, place, strict=True))}
            if self.exists(inner):
                yield inner

    def scattered(self, einsum, place):
        """All contributions to a place; a rank that stands alone on the left is there what it is in the place."""
        bound = einsum.body.ranks
        own = {i.rank: at for i, at in zip(einsum.indices, place, strict=True) if isinstance(i, Coord) and i.rank not in bound}
        others = sorted(frozenset().union(*map(free_ranks, einsum.indices)) - set(bound) - set(own))
        tensor = self.cascade.tensor(einsum.output)
        values = []
        for inner in self.points((*others, *bound), own):
            target = tuple(self.whole(self.value(index, inner)) for index in einsum.indices)
            if not all(0 <= at < self.sizes.extents[rank] for rank, at in zip(tensor.ranks, target, strict=True)):
                raise Refused("scattered out of range")
            value = self.value(einsum.body.body, inner)
            if target == place:
                values.append(value)
        return self.combine(einsum.body.op, values)

    def selected(self, select, point, j):
        values = []
        for inner in self.points((select.rank,), point):
            value = self.value(select.body, inner)
            if value != value:
                raise Refused("NaN")
            values.append((-value, inner[select.rank], value))
        if len(values) < self.sizes.extents[select.fills]:
            raise Refused("too few")
        _, place, value = sorted(values)[j]
        return place if select.op.startswith("arg") else value

    # --- expressions --------------------------------------------------------------------------------------------------

    def whole(self, value):
        if value != value or math.isinf(value) or value != int(value):
            raise Refused(f"{value} is not whole")
        return int(value)

    def value(self, expr, point):
        match expr:
            case Number(value=value):
                return value
            case Scalar(name=name):
                return self.sizes.scalars[name]
            case Coord(rank=rank):
                return point[rank]
            case Access(tensor=name, indices=indices):
                tensor = self.cascade.tensor(name)
                place = tuple(self.whole(self.value(index, point)) for index in indices)
                for rank, at in zip(tensor.ranks, place, strict=True):
                    if not 0 <= at < self.sizes.extents[rank] + (rank == tensor.iterates):
                        raise Refused(f"{name}{place} is out of range")
                return self.element(name, place)
            case Map(op="where", args=(condition, yes, no)):
                return self.value(yes if self.value(condition, point) else no, point)
            case Map(op=op, args=args):
                return self.map(op, [self.value(arg, point) for arg in args])
            case Reduce(op="argmax" | "argmin" as op, ranks=(rank,), body=body):
                best = None
                for inner in self.points((rank,), point):
                    value = self.value(body, inner)
                    if value != value:
                        raise Refused("NaN")
                    key = -value if op == "argmax" else value
                    if best is None or key < best[0]:
                        best = (key, inner[rank])
                if best is None:
                    raise Refused("empty")
                return best[1]
            case Reduce(op=op, ranks=ranks, body=body):
                return self.combine(op, [self.value(body, inner) for inner in self.points(ranks, point)])
            case Scan(op=op, rank=rank, body=body):
                inner = [{**point, rank: at} for at in range(point[rank] + 1)]
                name = {"cumsum": "sum", "cumprod": "prod", "cummax": "max"}[op]
                return self.combine(name, [self.value(body, at) for at in inner if self.exists(at)])
        raise AssertionError(expr)

    def combine(self, op, values):
        if op == "any":
            return any(map(bool, values))
        if op == "all":
            return all(map(bool, values))
        if op == "mean":
            if not values:
                raise Refused("empty mean")
            return self.map("/", [float(self.combine("sum", values)), len(values)])
        total = {"sum": 0, "prod": 1, "max": -INF, "min": INF}[op]
        for i, value in enumerate(values):
            name = {"sum": "+", "prod": "*", "max": "max", "min": "min"}[op]
            total = self.map("max", [value, value]) if op in ("max", "min") and i == 0 else self.map(name, [total, value])
        return total

    def map(self, op, args):
        args = [int(arg) if isinstance(arg, bool) else arg for arg in args]
        integers = all(isinstance(arg, int) for arg in args)
        result = operation(op, args)
        if integers and isinstance(result, int) and not -(2**63) <= result < 2**63:
            raise Refused("overflow")
        return result


def operation(op, args):
    a = args[0]
    b = args[1] if len(args) > 1 else 0
    match op:
        case "+":
            return a + b
        case "-":
            return -INF if a == -INF and b == -INF else a - b
        case "*":
            return a * b
        case "/":
            if b == 0:
                if a == 0:
                    return 0.0
                return NAN if a != a else math.copysign(INF, a) * math.copysign(1, b)
            return a / b
        case "//":
            if b == 0:
                raise Refused("// by zero")
            return a // b if isinstance(a, int) and isinstance(b, int) else float(np.floor_divide(float(a), float(b)))
        case "%":
            if b == 0:
                raise Refused("% by zero")
            return a % b if isinstance(a, int) and isinstance(b, int) else float(np.mod(float(a), float(b)))
        case "**":
            return a**b if isinstance(a, int) and isinstance(b, int) and b >= 0 else float(np.power(float(a), float(b)))
        case "neg":
            return -a
        case "min" | "max":
            return NAN if a != a or b != b else (min(a, b) if op == "min" else max(a, b))
        case "clamp":
            return operation("min", [operation("max", [a, b]), args[2]])
        case "<":
            return a < b
        case "<=":
            return a <= b
        case ">":
            return a > b
        case ">=":
            return a >= b
        case "==":
            return a == b
        case "!=":
            return a != b
        case "and":
            return bool(a) and bool(b)
        case "or":
            return bool(a) or bool(b)
        case "not":
            return not a
        case "abs":
            return abs(a)
        case "sign":
            return a if a != a else (a > 0) - (a < 0)
        case "relu":
            return a if a != a else max(a, 0)
        case "round" | "floor" | "ceil":
            if a != a or math.isinf(a):
                return a
            value = {"round": round, "floor": math.floor, "ceil": math.ceil}[op](a)
            return value if isinstance(a, int) else math.copysign(value, a)
    return real(op, float(a))


def real(op, x):
    if x != x:
        return NAN
    match op:
        case "exp" | "exp2":
            try:
                return math.exp(x) if op == "exp" else math.pow(2.0, x)
            except OverflowError:
                return INF
        case "log" | "log2":
            if x <= 0:
                return -INF if x == 0 else NAN
            return math.log(x) if op == "log" else math.log2(x)
        case "sqrt":
            return math.sqrt(x) if x >= 0 else NAN
        case "rsqrt":
            return INF if x == 0 else (1 / math.sqrt(x) if x > 0 else NAN)
        case "tanh":
            return math.tanh(x)
        case "sigmoid":
            return 1 / (1 + math.exp(-x)) if x >= 0 else (0.0 if x < -745 else math.exp(x) / (1 + math.exp(x)))
        case "softplus":
            return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))
        case "silu":
            return x * real("sigmoid", x)
        case "gelu":
            return 0.5 * x * math.erfc(-x / math.sqrt(2))
        case "erf":
            return math.erf(x)
        case "sin" | "cos":
            if math.isinf(x):
                return NAN
            return math.sin(x) if op == "sin" else math.cos(x)
    raise AssertionError(op)
