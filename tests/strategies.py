"""Random inputs for properties: small well-formed cascades, and expressions of every kind.

`random_cascades()` gives cascades that every stage must handle: products, reductions, maps, masks, affine and clamped indices,
gathers, partitions that need not divide, running states, scans and selections. All have sizes (`cascade.sizes`), all extents are
at least 1, and no index leaves its tensor, so that they evaluate; values stay finite apart from -inf in masks. Features can be
switched off by name: `random_cascades(without={"state", "select"})`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hypothesis import strategies as st

from einsmith.einsum.cascade import (
    MAP_OPS,
    REDUCTIONS,
    SCANS,
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
    free_ranks,
)
from einsmith.einsum.dtypes import with_dtypes

FEATURES = ("map", "product", "reduce", "mask", "affine", "gather", "split", "state", "scan", "select", "argument")

Draw = Callable[[st.SearchStrategy], object]


@dataclass
class _Builder:
    """A cascade in the making."""

    draw: Draw
    without: frozenset[str]
    ranks: list[Rank] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    einsums: list[Einsum] = field(default_factory=list)

    def pick(self, *options: object) -> object:
        return self.draw(st.sampled_from(options))

    def flag(self, feature: str) -> bool:
        return feature not in self.without and bool(self.draw(st.booleans()))

    # declarations

    def declare(self) -> None:
        for name, symbol in (("p", "P"), ("m", "M"), ("e", "E")):
            self.sizes[symbol] = self.draw(st.integers(1, 4))
            if name == "m" and self.flag("split"):
                self.sizes["M0"] = self.draw(st.integers(1, 3))
                self.ranks.append(Rank("m", Scalar("M"), Split("m1", "m0", Scalar("M0"), "M1")))
                self.ranks.append(Rank("m1", Scalar("M1"), part_of="m"))
                self.ranks.append(Rank("m0", Scalar("M0"), part_of="m"))
            else:
                self.ranks.append(Rank(name, Scalar(symbol)))
        if "select" not in self.without:
            self.sizes["J"] = self.draw(st.integers(1, min(self.sizes[symbol] for symbol in "PME")))
            self.ranks.append(Rank("j", Scalar("J")))
        shapes = st.lists(st.sampled_from(("p", "m", "e")), unique=True, max_size=3).map(tuple)
        for name in ("X", "Y", "Z")[: self.draw(st.integers(1, 3))]:
            self.tensors.append(Tensor(name, self.draw(shapes), kind="input"))
        if "gather" not in self.without:
            self.tensors.append(Tensor("I", self.draw(shapes), dtype="int", kind="input"))

    def rank(self, name: str) -> Rank:
        return next(rank for rank in self.ranks if rank.name == name)

    @property
    def split(self) -> bool:
        return any(rank.split for rank in self.ranks)

    def scopes(self) -> tuple[str, ...]:
        """Ranks that an Einsum may run over: `m` or its parts, never both."""
        whole = not self.split or bool(self.draw(st.booleans()))
        return ("p", "m", "e") if whole else ("p", "m1", "m0", "e")

    # expressions; `scope` holds the ranks that may stand free

    def index(self, rank: str, scope: Collection[str], depth: int) -> Expr:
        """An index along a rank that stays inside it."""
        last = Map("-", (self.rank(rank).extent, Number(1)))
        options: list[Expr] = [Coord(rank)] * 6 if rank in scope else []
        if rank == "m" and {"m1", "m0"} <= set(scope):
            options += [Map("+", (Map("*", (Coord("m1"), Scalar("M0"))), Coord("m0")))] * 6
        others = [name for name in scope if name != rank and name != "j"]
        if "affine" not in self.without and others:
            other = Coord(self.pick(*others))
            shift = Map(self.pick("+", "-"), (other, Number(self.draw(st.integers(0, 2)))))
            options += [Map("clamp", (shift, Number(0), last)), Map("min", (Map("//", (other, Number(2))), last))]
        integers = [tensor for tensor in self.tensors if tensor.dtype == "int" and tensor.kind == "input"]
        if "gather" not in self.without and integers and depth > 0:
            gathered = self.access(self.pick(*integers), scope, 0)
            options.append(Map("clamp", (gathered, Number(0), last)))
        return self.pick(*options) if options else self.pick(Number(0), last)

    def access(self, tensor: Tensor, scope: Collection[str], depth: int) -> Access:
        indices = []
        for rank in tensor.ranks:
            if rank == tensor.iterates:
                extent = self.rank(rank).extent
                here = [Coord(rank), Map("+", (Coord(rank), Number(1)))] if rank in scope else []
                indices.append(self.pick(extent, *here))
            elif rank in ("m1", "m0") and rank not in scope:
                indices.append(Number(0))  # 0 exists in every tile
            elif rank in ("m1", "m0") and not {"m1", "m0"} <= set(scope) and {"m1", "m0"} <= set(tensor.ranks):
                indices.append(Number(0))
            else:
                indices.append(self.index(rank, scope, depth))
        return Access(tensor.name, tuple(indices))

    def leaf(self, scope: Collection[str], depth: int) -> Expr:
        kind = self.draw(st.integers(0, 9))
        if kind == 0:
            return self.pick(Number(1), Number(2), Number(0.5), Scalar("scale"), Scalar("P"))
        if kind == 1 and scope:
            return Coord(self.pick(*scope))
        return self.access(self.pick(*self.tensors), scope, depth)

    def expr(self, scope: Collection[str], depth: int) -> Expr:
        if depth <= 0:
            return self.leaf(scope, depth)
        kinds = ["leaf", "binary", "binary"]
        kinds += ["unary"] if "map" not in self.without else []
        kinds += ["mask"] if "mask" not in self.without and scope else []
        kinds += ["affine"] if "affine" not in self.without and scope else []
        kinds += ["nested"] if "reduce" not in self.without else []
        kind = self.pick(*kinds)
        if kind == "leaf":
            return self.leaf(scope, depth)
        if kind == "binary":
            op = self.pick("+", "-", "*", "/", "max", "min")
            left, right = self.expr(scope, depth - 1), self.expr(scope, depth - 1)
            if op == "/":
                right = Map("+", (Number(1), Map("abs", (right,))))
            return Map(op, (left, right))
        if kind == "unary":
            op = self.pick("neg", "abs", "tanh", "sigmoid", "relu", "sin", "sign", "exp", "softplus", "log")
            inner = self.expr(scope, depth - 1)
            if op == "exp":
                inner = Map("min", (inner, Number(1)))
            if op == "log":
                inner = Map("+", (Number(1), Map("abs", (inner,))))
            return Map(op, (inner,))
        if kind == "mask":
            return Map("where", (self.condition(scope), self.expr(scope, depth - 1), self.expr(scope, depth - 1)))
        if kind == "affine":
            return self.shifted(scope, depth)
        rank = self.pick("p", "m", "e")
        body = self.expr((*[name for name in scope if name != rank and (rank != "m" or name not in ("m1", "m0"))], rank), depth - 1)
        return Reduce(self.pick("sum", "max", "min", "mean"), (rank,), body)

    def condition(self, scope: Collection[str]) -> Expr:
        left, right = Coord(self.pick(*scope)), self.pick(*(Coord(name) for name in scope), Number(1))
        compare = Map(self.pick("<", "<=", ">", ">=", "==", "!="), (left, right))
        if self.draw(st.integers(0, 3)) == 0:
            return Map("not", (compare,))
        if self.draw(st.integers(0, 3)) == 0:
            return Map(self.pick("and", "or"), (compare, Map("<", (right, left))))
        return compare

    def shifted(self, scope: Collection[str], depth: int) -> Expr:
        """A window: an index that may leave its tensor, under a mask that keeps it inside."""
        tensors = [tensor for tensor in self.tensors if set(tensor.ranks) & set(scope) & {"p", "e"} and tensor.kind != "state"]
        if not tensors:
            return self.leaf(scope, depth)
        tensor = self.pick(*tensors)
        rank = self.pick(*[rank for rank in tensor.ranks if rank in scope and rank in ("p", "e")])
        shift = self.draw(st.integers(1, 2))
        if self.draw(st.booleans()):
            index, inside = Map("-", (Coord(rank), Number(shift))), Map(">=", (Coord(rank), Number(shift)))
        else:
            index = Map("+", (Coord(rank), Number(shift)))
            inside = Map("<", (index, self.rank(rank).extent))
        access = self.access(tensor, scope, 0)
        indices = tuple(index if name == rank else old for name, old in zip(tensor.ranks, access.indices, strict=True))
        return Map("where", (inside, Access(tensor.name, indices), Number(0)))

    # Einsums

    def left(self, scope: tuple[str, ...]) -> tuple[str, ...]:
        kept = [rank for rank in scope if self.draw(st.booleans())]
        return tuple(self.draw(st.permutations(kept)))

    def ordered(self, ranks: Collection[str]) -> tuple[str, ...]:
        return tuple(rank.name for rank in self.ranks if rank.name in ranks)

    def add(self, tensor: Tensor, indices: tuple[Expr, ...], body: Expr) -> None:
        if all(known.name != tensor.name for known in self.tensors):
            self.tensors.append(tensor)
        self.einsums.append(Einsum(tensor.name, indices, body))

    def einsum(self, name: str) -> None:
        kinds = [
            kind
            for kind in ("map", "product", "product", "reduce", "state", "scan", "select", "argument")
            if kind not in self.without
        ]
        kind = self.pick(*kinds)
        scope = self.scopes()
        ranks = self.left(scope)
        bound = self.ordered([rank for rank in scope if rank not in ranks])
        coords = tuple(map(Coord, ranks))
        if kind == "product" and bound:
            body = Map(self.pick("*", "*", "/"), (self.expr(scope, 1), self.access(self.pick(*self.tensors), scope, 1)))
            if body.op == "/":
                body = Map("/", (body.args[0], Map("+", (Number(2), Map("abs", (body.args[1],))))))
            used = self.ordered(free_ranks(body) & set(bound))
            self.add(Tensor(name, ranks), coords, Reduce("sum", used, body) if used else body)
        elif kind == "reduce" and bound:
            some = self.ordered(self.draw(st.lists(st.sampled_from(bound), min_size=1, unique=True)))
            op = self.pick("sum", "max", "min", "prod", "any", "all", "mean")
            self.add(Tensor(name, ranks), coords, Reduce(op, some, self.expr((*ranks, *some), 2)))
        elif kind == "argument" and bound:
            self.add(
                Tensor(name, ranks), coords, Reduce(self.pick("argmax", "argmin"), bound[:1], self.expr((*ranks, bound[0]), 1))
            )
        elif kind == "scan" and ranks:
            self.add(Tensor(name, ranks), coords, Scan(self.pick(*SCANS), self.pick(*ranks), self.expr(ranks, 1)))
        elif kind == "select" and bound and bound[0] not in ("m1", "m0"):
            body = self.expr((*ranks, bound[0]), 1)
            for rank in sorted({*ranks, bound[0]} - free_ranks(body)):  # what it fills is the rank that does not stand in it
                body = Map("+", (body, Map("*", (Number(0), Coord(rank)))))
            self.add(Tensor(name, (*ranks, "j")), (*coords, Coord("j")), Select(self.pick("topk", "argtopk"), bound[0], "j", body))
        elif kind == "state" and [rank for rank in ranks if rank != "m0"]:
            self.state(name, ranks, self.pick(*[rank for rank in ranks if rank != "m0"]))
        else:
            body = self.expr(ranks, 2)
            if isinstance(body, Reduce) and set(body.ranks) & set(ranks):
                body = Map("neg", (body,))  # as a whole right-hand side it may not bind a rank of the left
            self.add(Tensor(name, ranks), coords, body)

    def state(self, name: str, ranks: tuple[str, ...], iterates: str) -> None:
        others = tuple(rank for rank in ranks if rank != iterates)
        outer = others if "m1" not in (iterates, *others) else tuple(rank for rank in others if rank != "m0")
        ranks = tuple(rank for rank in ranks if rank == iterates or rank in outer)
        first = tuple(Number(0) if rank == iterates else Coord(rank) for rank in ranks)
        following = tuple(Map("+", (Coord(rank), Number(1))) if rank == iterates else Coord(rank) for rank in ranks)
        here = Access(name, tuple(map(Coord, ranks)))
        news = self.expr(ranks, 1)
        op = self.pick("+", "max", "decay")
        step = Map("+", (Map("*", (here, Number(0.5))), news)) if op == "decay" else Map(op, (here, news))
        start = self.pick(Number(0), Number(1), self.expr(outer, 0))
        state = Tensor(name, ranks, kind="state", iterates=iterates)
        self.einsums.append(Einsum(name, first, start))
        self.einsums.append(Einsum(name, following, step))
        self.tensors.append(state)


@st.composite
def random_cascades(draw: Draw, without: Collection[str] = (), most: int = 4) -> Cascade:
    """A well-formed cascade of at most `most` definitions, without the named features (of `FEATURES`)."""
    assert set(without) <= set(FEATURES), f"unknown features: {set(without) - set(FEATURES)}"
    builder = _Builder(draw, frozenset(without))
    builder.declare()
    for number in range(draw(st.integers(1, most))):
        builder.einsum(f"T{number}")
    defined = [tensor.name for tensor in builder.tensors if tensor.kind != "input"]
    outputs = {defined[-1], *draw(st.lists(st.sampled_from(defined), max_size=2))}
    cascade = Cascade(
        "random", tuple(builder.ranks), (("scale", Map("/", (Number(1), Map("sqrt", (Scalar("E"),))))),), tuple(builder.tensors),
        tuple(builder.einsums), tuple(name for name in defined if name in outputs), tuple(builder.sizes.items()),
    )  # fmt: skip
    return with_dtypes(cascade)


# --- expressions of every kind, for the printer ---------------------------------------------------------------------------

_NAMES = {"p": "P", "m": "M"}


def _numbers() -> st.SearchStrategy[Expr]:
    floats = st.floats(0, 1e300, allow_nan=False).map(abs)
    return st.one_of(st.integers(0, 2**63 - 1), floats, st.just(float("inf"))).map(Number)


def _whole() -> st.SearchStrategy[Expr]:
    """Index expressions."""
    leaves = st.one_of(st.integers(0, 9).map(Number), st.sampled_from([Coord("p"), Coord("m"), Scalar("P"), Scalar("W")]))

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        pairs = st.builds(lambda op, a, b: Map(op, (a, b)), st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]), inner, inner)
        return st.one_of(pairs, inner.map(lambda a: Map("neg", (a,))), inner.map(lambda a: Access("I", (a,))))

    return st.recursive(leaves, grow, max_leaves=4)


def expressions() -> st.SearchStrategy[Expr]:
    """Expressions over ranks p, m; scalars P, M, W; tensors X[p,m], I[p] (int), Z. Not meant to be evaluated."""
    leaves = st.one_of(
        _numbers(),
        st.sampled_from([Coord("p"), Coord("m"), Scalar("P"), Scalar("M"), Scalar("W"), Access("Z", ())]),
        st.builds(lambda a, b: Access("X", (a, b)), _whole(), _whole()),
    )

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        def mapped(op: str) -> st.SearchStrategy[Expr]:
            return st.tuples(*[inner] * MAP_OPS[op]).map(lambda args: Map(op, args))

        ranks = st.sampled_from([("p",), ("m",), ("p", "m")])
        return st.one_of(
            st.sampled_from(sorted(MAP_OPS)).flatmap(mapped),
            st.sampled_from(["+", "-", "*", "/", "**", "neg", "and", "or", "not", "<", "==", "min", "max"]).flatmap(mapped),
            st.builds(lambda a, b, c: Map("and", (Map("<", (a, b)), Map("<=", (b, c)))), inner, inner, inner),
            st.builds(
                lambda op, r, body: Reduce(op, r[:1] if op[:3] == "arg" else r, body), st.sampled_from(REDUCTIONS), ranks, inner
            ),
            st.builds(lambda op, r, body: Scan(op, r[0], body), st.sampled_from(SCANS), ranks, inner),
        )

    return st.recursive(leaves, grow, max_leaves=12)


def cascade_of(expr: Expr) -> Cascade:
    """One Einsum over p and m with this expression in its right-hand side, under a mask: its indices may be anything."""
    expr = Map("where", (Map("<", (Coord("p"), Coord("m"))), expr, Number(0)))
    ranks = (Rank("p", Scalar(_NAMES["p"])), Rank("m", Scalar(_NAMES["m"])))
    tensors = (
        Tensor("X", ("p", "m"), kind="input"),
        Tensor("I", ("p",), "int", "input"),
        Tensor("Z", (), kind="input"),
        Tensor("Y", ("p", "m")),
    )
    einsum = Einsum("Y", (Coord("p"), Coord("m")), expr)
    return with_dtypes(Cascade("expression", ranks, (("W", Number(3)),), tensors, (einsum,), ("Y",)))
