"""Random small cascades, as IR, for comparing ways to evaluate them.

`cascades()` is a hypothesis strategy of (cascade, sizes, inputs). Expressions that only add, subtract, multiply, compare and round
exact numbers are *exact*; what is discontinuous (comparisons, rounding, ordering, division) is applied to exact ones alone, so that
two correct evaluations cannot differ by more than rounding.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from einsmith.einsum.cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    Split,
    Tensor,
    accesses,
    ceil_div,
)
from einsmith.einsum.dtypes import with_dtypes

INF = Number(float("inf"))
ZERO, ONE = Number(0), Number(1)

RANKS = (
    Rank("p", Scalar("P")),
    Rank("m", Scalar("M"), split=Split("m1", "m0", Scalar("M0"), "M1")),
    Rank("m1", ceil_div(Scalar("M"), Scalar("M0")), part_of="m"),
    Rank("m0", Scalar("M0"), part_of="m"),
    Rank("f", Scalar("F")),
    Rank("w", Number(2)),
    Rank("j", Scalar("J")),
    Rank("i", Scalar("S")),
)
INPUTS = (
    Tensor("X", ("p", "m"), "float", "input"),
    Tensor("V", ("m", "f"), "float", "input"),
    Tensor("Z", ("p",), "float", "input"),
    Tensor("G", ("i", "f"), "float", "input"),
    Tensor("I", ("p",), "int", "input"),
    Tensor("B", ("p", "m"), "bool", "input"),
)


@dataclass(frozen=True)
class Known:
    """A tensor that may be read: whether its values are exact, and whether it has a point wherever its ranks have one."""

    tensor: Tensor
    exact: bool


class Generator:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.known = [Known(tensor, True) for tensor in INPUTS]
        self.tensors: list[Tensor] = list(INPUTS)
        self.einsums: list[Einsum] = []
        self.state: tuple[Tensor, bool] | None = None  # the running state that may be read at its current position

    def cascade(self) -> Cascade:
        rng = self.rng
        for number in range(rng.randint(1, 4)):
            kinds = [self.plain] * 6 + [self.iterative] * 2 + [self.scatter] * 2 + [self.selection] * 2 + [self.nested]
            rng.choice(kinds)(f"T{number}")
        einsums, tensors = tuple(self.einsums), tuple(self.tensors)
        outputs = tuple(t.name for t in tensors if t.kind != "input")[-1:]
        params = (("scale", Map("/", (ONE, Scalar("P")))), ("shift", Number(2)))
        return with_dtypes(Cascade("random", RANKS, params, tensors, einsums, outputs))

    def define(self, name: str, ranks: tuple[str, ...], body: Expr, exact: bool, kind: str = "einsum") -> Tensor:
        tensor = Tensor(name, ranks, kind=kind)  # type: ignore[arg-type]
        self.tensors.append(tensor)
        self.einsums.append(Einsum(name, tuple(Coord(rank) for rank in ranks), body))
        self.known.append(Known(tensor, exact))
        return tensor

    def ranks(self, most: int = 3) -> tuple[str, ...]:
        chosen = self.rng.sample(["p", "m", "m1", "m0", "f"], self.rng.randint(0, most))
        if "m" in chosen:
            chosen = [rank for rank in chosen if rank not in ("m1", "m0")]
        return tuple(sorted(chosen, key=[rank.name for rank in RANKS].index))

    # --- kinds of Einsums ---------------------------------------------------------------------------------------------

    def plain(self, name: str) -> None:
        ranks = self.ranks()
        exact = self.rng.random() < 0.4
        body = self.expr(3, ranks, exact)
        if isinstance(body, Reduce) and set(body.ranks) & set(ranks):  # the whole right-hand side reduces no rank of the left
            body = Map("+", (body, ZERO))
        self.define(name, ranks, body, exact)

    def selection(self, name: str) -> None:
        op = self.rng.choice(["topk", "argtopk"])
        rank = self.rng.choice(["m", "m0", "m1", "f"])
        outer = self.rng.choice([("p",), ("p", "m1"), ("m0",), ()])
        outer = tuple(r for r in outer if r != rank)
        if rank == "m":
            outer = tuple(r for r in outer if r == "p")
        body = self.expr(1, (*outer, rank), True, finite=True)
        if outer == ("p",) and rank == "m":
            body = Map("where", (Access("B", (Coord("p"), Coord("m"))), body, Map("neg", (INF,))))
        self.define(name, (*outer, "j"), Select(op, rank, "j", body), True)
        if op == "argtopk":
            self.tensors[-1] = replace(self.tensors[-1], dtype="int")

    def scatter(self, name: str) -> None:
        rng = self.rng
        index = rng.choice([Access("I", (Coord("p"),)), Map("%", (Map("*", (Coord("p"), Number(3))), Scalar("M")))])
        op = rng.choice(["sum", "max", "min", "prod"])
        body = Map("*", (self.expr(1, ("p", "f"), True), Number(0.5)))
        tensor = Tensor(name, ("m", "f"), kind="scatter")
        self.tensors.append(tensor)
        self.einsums.append(Einsum(name, (index, Coord("f")), Reduce(op, ("p",), body)))
        self.known.append(Known(tensor, True))

    def iterative(self, name: str) -> None:
        """A state along i (or m1), sometimes two that depend on each other, with an Einsum inside the loop."""
        rng = self.rng
        rank = rng.choice(["i", "m1"])
        others = tuple(r for r in self.ranks(1) if r not in ("m1", "m") and (r != "m0" or rank == "m1"))
        ranks = (rank, *others)
        coords = tuple(Coord(r) for r in others)
        state = Tensor(name, ranks, "float", "state", rank)
        partner = Tensor(name + "b", ranks, "float", "state", rank) if rng.random() < 0.4 else None
        states = [state] + ([partner] if partner else [])
        self.tensors += states
        for each in states:
            start: Expr = Map("neg", (INF,)) if rng.random() < 0.3 else Map("tanh", (self.expr(1, others, False),))
            self.einsums.append(Einsum(each.name, (ZERO, *coords), start))
        inner = Tensor(name + "x", ranks)
        mine = Access(state.name, (Coord(rank), *coords))
        now = Access(rng.choice(states).name, (Coord(rank), *coords))
        self.tensors.append(inner)
        self.einsums.append(Einsum(inner.name, (Coord(rank), *coords), Map("tanh", (Map("+", (now, self.expr(1, ranks, False))),))))
        here = Access(inner.name, (Coord(rank), *coords))
        step = Map(rng.choice(["max", "+", "min"]), (mine, here))
        self.einsums.append(Einsum(state.name, (Map("+", (Coord(rank), ONE)), *coords), step))
        following = Access(state.name, (Map("+", (Coord(rank), ONE)), *coords))
        if partner:
            body = Map(
                "+", (Map("exp", (Map("-", (mine, Map("max", (following, mine)))),)), Access(partner.name, (Coord(rank), *coords)))
            )
            self.einsums.append(Einsum(partner.name, (Map("+", (Coord(rank), ONE)), *coords), Map("tanh", (body,))))
        end = Tensor(name + "e", others)
        last = Map("ceil", (Map("/", (Scalar("M"), Scalar("M0"))),)) if rank == "m1" else Scalar("S")
        self.tensors.append(end)
        self.einsums.append(Einsum(end.name, coords, Access(rng.choice(states).name, (last, *coords))))
        self.known += [Known(end, False), Known(inner, False)]

    def nested(self, name: str) -> None:
        """A loop over w inside a loop over i, and a scatter inside the outer one."""
        i, w, f, p = Coord("i"), Coord("w"), Coord("f"), Coord("p")
        outer, inner, target = name, name + "s", name + "u"
        self.tensors += [
            Tensor(outer, ("i", "f"), "float", "state", "i"),
            Tensor(inner, ("i", "w", "f"), "float", "state", "w"),
            Tensor(target, ("i", "m"), "float", "scatter"),
        ]
        before = Access(outer, (i, f))
        gathered = Map("tanh", (Map("+", (Access(outer, (i, ZERO)), self.expr(1, ("p",), False))),))
        here = Map("+", (Access(inner, (i, w, f)), self.expr(1, ("i", "w", "f"), False)))
        after = Map("+", (Access(inner, (i, Number(2), f)), Reduce("max", ("m",), Access(target, (i, Coord("m"))))))
        index = Map("%", (p, Scalar("M")))
        self.einsums += [
            Einsum(outer, (ZERO, f), Map("tanh", (self.expr(1, ("f",), False),))),
            Einsum(target, (i, index), Reduce(self.rng.choice(["sum", "max", "prod"]), ("p",), gathered)),
            Einsum(inner, (i, ZERO, f), Map("*", (before, Number(0.5)))),
            Einsum(inner, (i, Map("+", (w, ONE)), f), Map("tanh", (here,))),
            Einsum(outer, (Map("+", (i, ONE)), f), Map("tanh", (after,))),
        ]
        end = Tensor(name + "e", ("f",))
        self.tensors.append(end)
        self.einsums.append(Einsum(end.name, (f,), Access(outer, (Scalar("S"), f))))
        self.known.append(Known(end, False))

    # --- expressions --------------------------------------------------------------------------------------------------

    def expr(self, depth: int, scope: tuple[str, ...], exact: bool, finite: bool = False) -> Expr:
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            return self.leaf(scope, exact, finite)

        def sub(exact: bool = exact) -> Expr:
            return self.expr(depth - 1, scope, exact, finite)

        choice = rng.random()
        if choice < 0.25:
            return Map(rng.choice(["+", "-", "*", "min", "max"]), (sub(), sub()))
        if choice < 0.35:
            return Map(rng.choice(["neg", "abs", "relu"]), (sub(),))
        if choice < 0.5 and not exact:
            return Map(rng.choice(["tanh", "sigmoid", "softplus", "gelu", "silu", "erf", "sin"]), (Map("tanh", (sub(),)),))
        if choice < 0.55 and not exact:
            return Map("exp", (Map("min", (sub(), ONE)),))
        if choice < 0.6 and not exact:
            return Map("/", (sub(True), Map("+", (sub(True), ZERO))))  # a negative zero is not exact
        if choice < 0.65 and exact:
            return Map(rng.choice(["sign", "round", "floor", "ceil"]), (sub(),))
        if choice < 0.68 and exact and not finite:
            return Map(rng.choice(["//", "%"]), (sub(), Number(rng.choice([2, 3, 0.5]))))
        if choice < 0.8:
            condition = self.condition(scope)
            return Map("where", (condition, sub(), sub()))
        return self.reduction(depth, scope, exact, finite)

    def condition(self, scope: tuple[str, ...]) -> Expr:
        rng = self.rng
        if {"p", "m"} <= set(scope) and rng.random() < 0.3:
            return Access("B", (Coord("p"), Coord("m")))
        op = rng.choice(["<", "<=", ">", ">=", "==", "!="])
        comparison = Map(op, (self.leaf(scope, True), self.leaf(scope, True)))
        if rng.random() < 0.3:
            return Map(rng.choice(["and", "or"]), (comparison, Map("not", (self.leaf(scope, True),))))
        return comparison

    def reduction(self, depth: int, scope: tuple[str, ...], exact: bool, finite: bool) -> Expr:
        rng = self.rng
        free = [rank for rank in ("p", "m", "m1", "m0", "f", "w") if rank not in scope]
        if "m" in scope:
            free = [rank for rank in free if rank not in ("m1", "m0")]
        if {"m1", "m0"} & set(scope):
            free = [rank for rank in free if rank != "m"]
        if scope and rng.random() < 0.15:
            rank = rng.choice(scope)
            if rank not in ("m1", "i"):
                return Scan(rng.choice(["cumsum", "cummax"]), rank, self.expr(depth - 1, scope, exact, finite))
        if not free:
            return self.leaf(scope, exact, finite)
        shadowed = [rank for rank in scope if rank in ("p", "m", "f", "m0")]
        bound = [rng.choice(shadowed if shadowed and rng.random() < 0.2 else free)]
        if bound[0] in ("m1", "m0") and rng.random() < 0.5:
            bound = [rank for rank in ("m1", "m0") if rank in free]
        elif rng.random() < 0.2:
            bound = rng.sample(free, min(2, len(free)))
            if "m" in bound and {"m1", "m0"} & set(bound):
                bound = bound[:1]
        bound.sort(key=[rank.name for rank in RANKS].index)
        inner = (*scope, *bound)
        if rng.random() < 0.4 and not finite:
            factors = [self.expr(rng.choice([0, 0, depth - 1]), inner, exact) for _ in range(rng.randint(2, 4))]
            body: Expr = factors[0]
            for factor in factors[1:]:
                body = Map("*", (body, factor))
            return Reduce("sum", tuple(bound), body)
        op = rng.choice(["sum", "max", "min"])
        if not exact and rng.random() < 0.2 and len(bound) == 1:
            op = rng.choice(["any", "all", "prod"])
            return Reduce(op, tuple(bound), self.expr(0, inner, True, finite))
        if exact and len(bound) == 1 and rng.random() < 0.15:
            return Reduce(rng.choice(["argmax", "argmin"]), tuple(bound), self.expr(0, inner, True, True))
        body = self.expr(depth - 1, inner, exact, finite)
        if finite and op != "sum":
            body = Map(op, (body, ZERO))
            return Map("clamp", (Reduce(op, tuple(bound), body), Number(0) if op == "max" else Map("neg", (Number(9),)), Number(9)))
        return Reduce(op, tuple(bound), body)

    def leaf(self, scope: tuple[str, ...], exact: bool, finite: bool = False) -> Expr:
        rng = self.rng
        if scope and rng.random() < 0.1:
            return Coord(rng.choice(scope))
        if rng.random() < 0.1:
            return Scalar("shift" if exact else "scale")
        if not finite and rng.random() < 0.05:
            return Map("neg", (INF,))
        readable = [known for known in self.known if (known.exact or not exact) and (not finite or known.tensor.kind == "input")]
        readable = [known for known in readable if known.tensor.dtype != "int" or rng.random() < 0.3]
        for _ in range(6):
            found = self.access(rng.choice(readable).tensor, scope) if readable else None
            if found is not None:
                return found
        return Number(rng.choice([0, 1, 2, 0.5]))

    def access(self, tensor: Tensor, scope: tuple[str, ...]) -> Expr | None:
        """An access that stays in range, by itself or under the `where` that comes with it."""
        indices: list[Expr] = []
        guards: list[Expr] = []
        for rank in tensor.ranks:
            index, guard = self.index(rank, scope)
            if index is None:
                return None
            indices.append(index)
            guards += guard
        access: Expr = Access(tensor.name, tuple(indices))
        for guard in guards:
            access = Map("where", (guard, access, self.rng.choice([ZERO, Number(0.5)])))
        return access

    def index(self, rank: str, scope: tuple[str, ...]) -> tuple[Expr | None, list[Expr]]:
        rng = self.rng
        extent = next(r.extent for r in RANKS if r.name == rank)
        if rank in scope and rng.random() < 0.9:
            return Coord(rank), []
        if rank == "m" and {"m1", "m0"} <= set(scope):
            return Map("+", (Map("*", (Coord("m1"), Scalar("M0"))), Coord("m0"))), []
        if rank == "m" and "p" in scope and rng.random() < 0.4:
            return Access("I", (Coord("p"),)), []
        if not scope or rank in ("m1", "m0", "i", "j"):
            return None, []
        place: Expr = Map("-", (Coord(rng.choice(scope)), Coord(rng.choice(scope)) if rng.random() < 0.4 else Number(1)))
        if rng.random() < 0.5:
            return place, [Map("and", (Map(">=", (place, ZERO)), Map("<", (place, extent))))]
        return Map("clamp", (place, ZERO, Map("-", (extent, ONE)))), [Map(">", (extent, ZERO))]


def cascades() -> st.SearchStrategy[tuple[Cascade, dict[str, int], dict[str, np.ndarray]]]:
    """Random cascades with sizes and inputs."""
    return st.integers(0, 2**48).map(lambda seed: build(random.Random(seed)))


def build(rng: random.Random) -> tuple[Cascade, dict[str, int], dict[str, np.ndarray]]:
    cascade = Generator(rng).cascade()
    sizes = {
        "P": rng.choice([1, 2, 3]), "M": rng.choice([1, 2, 3, 4, 5]), "M0": rng.choice([1, 2, 3]), "F": rng.choice([1, 2]),
        "J": 1, "S": rng.choice([0, 1, 3]),
    }  # fmt: skip
    extents = {**sizes, "m": sizes["M"], "p": sizes["P"], "f": sizes["F"], "i": sizes["S"]}
    inputs = {}
    unusual = rng.random() < 0.2
    for tensor in INPUTS:
        shape = tuple(extents[rank] for rank in tensor.ranks)
        if tensor.dtype == "float":
            pool = [k / 4 for k in range(-6, 7)] + [0.0, 0.0]
            if unusual:
                pool += [float("inf"), float("-inf"), float("-inf"), float("nan")]
            values = np.array([rng.choice(pool) for _ in range(int(np.prod(shape)))])
        elif tensor.dtype == "int":
            values = np.array([rng.randrange(sizes["M"]) for _ in range(int(np.prod(shape)))], dtype=np.int64)
        else:
            values = np.array([rng.random() < 0.6 for _ in range(int(np.prod(shape)))])
        inputs[tensor.name] = values.reshape(shape)
    used = {name for einsum in cascade.einsums for name in _tensors(einsum)}
    cascade = replace(cascade, tensors=tuple(t for t in cascade.tensors if t.kind != "input" or t.name in used))
    return cascade, sizes, {name: array for name, array in inputs.items() if name in used}


def _tensors(einsum: Einsum) -> set[str]:
    return {access.tensor for expr in (einsum.body, *einsum.indices) for access in accesses(expr)}
