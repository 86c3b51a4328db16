"""The cascade IR: what an attention algorithm means, free of how it was typed.

A `Cascade` declares ranks, scalars and tensors, and lists Einsums in order. Implicit sums of the spec language are explicit
`Reduce` nodes here; everything else is as in the language (see the language reference). All nodes are immutable; source spans
take no part in equality. `printer` turns a cascade into text that parses back to an equal cascade; `verify` states what a
valid one is.

Conventions that every stage relies on:

* `Reduce.ranks` are in the order of declaration; `Select` occurs only as the whole right-hand side of an Einsum.
* a plain Einsum's left-hand indices are `Coord`s, one per rank of its tensor, in order;
* a state's initial Einsum has `Number(0)` at the iterative rank, its step has `Map("+", (Coord(r), Number(1)))` there;
* a scatter's right-hand side is a `Reduce` whose ranks are bound on its left-hand side too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, wraps
from operator import is_
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

from .source import Span

DType: TypeAlias = Literal["float", "int", "bool"]
T = TypeVar("T")
P = ParamSpec("P")
Owner = TypeVar("Owner", bound="Remembering")


# --- expressions ------------------------------------------------------------------------------------------------------


class Node:
    """What expressions have in common: room for what was found out about one (see `fact`), its hash among it."""

    __slots__ = ("_facts",)
    _facts: dict[object, Any]

    def __hash__(self) -> int:
        return _hash(self)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A literal: int, float or inf (never NaN, never negative: that is `Map("neg", ...)`)."""

    value: int | float
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Scalar(Node):
    """A parameter or an extent symbol, by name."""

    name: str
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Coord(Node):
    """A rank variable used as a number: the coordinate along that rank."""

    rank: str
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Access(Node):
    """One element of a tensor; each index is an integer expression."""

    tensor: str
    indices: tuple[Expr, ...]
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Map(Node):
    """An element-wise operation; `op` is a key of `MAP_OPS`. A chained comparison is an `and` of comparisons."""

    op: str
    args: tuple[Expr, ...]
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Reduce(Node):
    """`op[ranks](body)`: the ranks are bound in the body. `argmax` and `argmin` take exactly one rank."""

    op: str
    ranks: tuple[str, ...]
    body: Expr
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Scan(Node):
    """`op[rank](body)`: inclusive, along increasing `rank`, which stays free."""

    op: str
    rank: str
    body: Expr
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`op[rank](body)` with the results, best first, along the rank `fills`; `rank` is bound in the body."""

    op: str
    rank: str
    fills: str
    body: Expr
    span: Span | None = field(default=None, compare=False, repr=False)
    __hash__ = Node.__hash__


Expr: TypeAlias = Number | Scalar | Coord | Access | Map | Reduce | Scan | Select

# Number of arguments of each map operation. `min` and `max` of the language with n arguments are nested pairs, to the left.
MAP_OPS: dict[str, int] = {
    "+": 2, "-": 2, "*": 2, "/": 2, "//": 2, "%": 2, "**": 2, "neg": 1, "min": 2, "max": 2,
    "<": 2, "<=": 2, ">": 2, ">=": 2, "==": 2, "!=": 2, "and": 2, "or": 2, "not": 1, "where": 3, "clamp": 3,
    "round": 1, "exp": 1, "exp2": 1, "log": 1, "log2": 1, "sqrt": 1, "rsqrt": 1, "tanh": 1, "sigmoid": 1, "softplus": 1,
    "relu": 1, "silu": 1, "gelu": 1, "erf": 1, "abs": 1, "sign": 1, "floor": 1, "ceil": 1, "sin": 1, "cos": 1,
}  # fmt: skip
COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
LOGICAL = frozenset({"and", "or", "not"})
REDUCTIONS = ("sum", "max", "min", "prod", "any", "all", "mean", "argmax", "argmin")
SCANS = ("cumsum", "cummax", "cumprod")
SELECTIONS = ("topk", "argtopk", "sort", "argsort")


# --- declarations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Split:
    """`{split: [outer, inner], tile: T, count: N}`: rank = outer * T + inner, the last tile may be cut short."""

    outer: str
    inner: str
    tile: Expr
    count: str | None
    """Name of the symbol that stands for ceil(extent / tile), if it was given one."""


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank variable. Its extent is an expression of extent symbols; `split` names its parts.

    A part has `part_of` set: its extent is the tile (inner) or the number of tiles (outer).
    """

    name: str
    extent: Expr
    split: Split | None = None
    part_of: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor and the rank along each of its dimensions.

    `kind`: `input`; `einsum` (defined by one plain Einsum); `state` (running state along the iterative rank `iterates`, whose
    dimension has one position more than the rank has steps); `scatter` (a declared target).
    """

    name: str
    ranks: tuple[str, ...]
    dtype: DType = "float"
    kind: Literal["input", "einsum", "state", "scatter"] = "einsum"
    iterates: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Einsum:
    """`output[indices] = body`; `body` has a value at every point of the free ranks of the left-hand side."""

    output: str
    indices: tuple[Expr, ...]
    body: Expr
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Cascade:
    """Ranks, scalars, tensors (inputs first, then in order of definition), Einsums in order, outputs."""

    name: str
    ranks: tuple[Rank, ...]
    params: tuple[tuple[str, Expr], ...]
    tensors: tuple[Tensor, ...]
    einsums: tuple[Einsum, ...]
    outputs: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...] = ()
    doc: str = ""

    @cached_property
    def _ranks(self) -> dict[str, Rank]:
        return {rank.name: rank for rank in self.ranks}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def rank_order(self) -> dict[str, int]:
        """Position of each rank in the order of declaration."""
        return {rank.name: i for i, rank in enumerate(self.ranks)}

    def rank(self, name: str) -> Rank:
        return self._ranks[name]

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.kind == "input")

    @cached_property
    def counts(self) -> dict[str, Expr]:
        """Symbols that splits define: name -> ceil(extent / tile)."""
        return {
            rank.split.count: ceil_div(rank.extent, rank.split.tile)
            for rank in self.ranks
            if rank.split is not None and rank.split.count is not None
        }

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Free extent symbols, in order of first use: what `--size` gives values to."""
        defined = set(self.counts) | {name for name, _ in self.params}
        found: dict[str, None] = {}
        for rank in self.ranks:
            parts = (rank.extent,) if rank.split is None else (rank.extent, rank.split.tile)
            for part in parts:
                found.update((node.name, None) for node in walk(part) if isinstance(node, Scalar))
        return tuple(name for name in found if name not in defined)

    def definitions(self, tensor: str) -> tuple[Einsum, ...]:
        """The Einsums that define a tensor: one, or initial value and step of a state; none for an input."""
        return self._definitions.get(tensor, ())

    @cached_property
    def _definitions(self) -> dict[str, tuple[Einsum, ...]]:
        found: dict[str, list[Einsum]] = {}
        for einsum in self.einsums:
            found.setdefault(einsum.output, []).append(einsum)
        return {name: tuple(einsums) for name, einsums in found.items()}

    @cached_property
    def memo(self) -> dict[tuple[object, ...], Any]:
        """What has been worked out about this cascade, so that it need not be again; each key begins with whose it is (see
        `remembered`)."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What another process is given: nothing that was found out."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def passes(self, rank: str) -> int:
        """Number of passes over a rank (see `analysis.passes`)."""
        from .analysis.passes import levels

        return levels(self, rank).passes[rank]

    def domain_splits(self, ranks: frozenset[str]) -> tuple[Rank, ...]:
        """Split ranks of which both parts are among `ranks`: points with outer * tile + inner >= extent do not exist."""
        return tuple(rank for rank in self.ranks if rank.split and rank.split.outer in ranks and rank.split.inner in ranks)


# --- small helpers on expressions -------------------------------------------------------------------------------------


def needed_for(cascade: Cascade, names: Iterable[str]) -> set[str]:
    """Tensors that these depend on, themselves among them."""
    reads: dict[str, set[str]] = {}
    for einsum in cascade.einsums:
        read = {access.tensor for expr in (einsum.body, *einsum.indices) for access in accesses(expr)}
        reads.setdefault(einsum.output, set()).update(read)
    needed = set(names)
    pending = list(needed)
    while pending:
        found = reads.get(pending.pop(), set()) - needed
        needed |= found
        pending += found
    return needed


def ceil_div(extent: Expr, tile: Expr) -> Expr:
    """The expression ceil(extent / tile)."""
    return Map("ceil", (Map("/", (extent, tile)),))


def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct sub-expressions, index expressions of accesses included."""
    kind = type(expr)  # no patterns here: everything walks expressions
    if kind is Map:
        return expr.args  # type: ignore[union-attr]
    if kind is Access:
        return expr.indices  # type: ignore[union-attr]
    return (expr.body,) if kind in WITH_BODY else ()  # type: ignore[union-attr]


WITH_BODY = frozenset((Reduce, Scan, Select))


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all its sub-expressions, from the outside in, left to right."""
    stack = [expr]
    while stack:
        node = stack.pop()
        yield node
        if parts := children(node):
            stack += parts[::-1]


def fact(find: Callable[[Expr], T]) -> Callable[[Expr], T]:
    """A function of an expression alone that is worked out once for each node: the same few are asked for again and again, and
    rewrites keep what they do not change."""

    @wraps(find)
    def known(expr: Expr) -> T:
        try:
            facts = expr._facts
        except AttributeError:
            facts = {}
            object.__setattr__(expr, "_facts", facts)
        if find not in facts:
            facts[find] = find(expr)
        found: T = facts[find]
        return found

    return known


@fact
def _hash(expr: Expr) -> int:
    return hash((type(expr), *(getattr(expr, each.name) for each in fields(expr) if each.compare)))


class Remembering(Protocol):
    """What is never changed and has room for what was found out about it."""

    @property
    def memo(self) -> dict[tuple[object, ...], Any]: ...


def remembered(find: Callable[Concatenate[Owner, P], T]) -> Callable[Concatenate[Owner, P], T]:
    """A function of a cascade (or a program), and of what can be a key, that is worked out once for each. Nobody changes its
    result."""

    @wraps(find)
    def known(owner: Owner, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (find, *args, *kwargs.items())
        if key not in owner.memo:
            owner.memo[key] = find(owner, *args, **kwargs)
        found: T = owner.memo[key]
        return found

    return known


def rebuild(expr: Expr, parts: tuple[Expr, ...]) -> Expr:
    """The same node with other direct sub-expressions; itself if they are none other."""
    if all(map(is_, parts, children(expr))):
        return expr
    match expr:
        case Access():
            return Access(expr.tensor, parts, expr.span)
        case Map():
            return Map(expr.op, parts, expr.span)
        case Reduce() | Scan() | Select():
            return replace(expr, body=parts[0])
        case _:
            return expr


def transform(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Apply `change` to every node, from the inside out."""
    return change(rebuild(expr, tuple([transform(part, change) for part in children(expr)])))


@fact
def free_ranks(expr: Expr) -> frozenset[str]:
    """Rank variables that occur free: as coordinates, in index expressions, in scans; not those bound by a reduction."""
    match expr:
        case Coord(rank=rank):
            return frozenset((rank,))
        case Reduce(ranks=ranks, body=body):
            return free_ranks(body) - frozenset(ranks)
        case Select(rank=rank, fills=fills, body=body):
            return (free_ranks(body) - {rank}) | {fills}
        case Scan(rank=rank, body=body):
            return free_ranks(body) | {rank}
        case _:
            return frozenset().union(*(free_ranks(part) for part in children(expr)))


@fact
def accesses(expr: Expr) -> tuple[Access, ...]:
    """All accesses to tensors, those inside index expressions included, left to right."""
    inside: tuple[Access, ...] = ()
    for part in children(expr):
        inside += accesses(part)
    return (expr, *inside) if isinstance(expr, Access) else inside


def substitute(expr: Expr, ranks: dict[str, Expr]) -> Expr:
    """Replace free rank variables by expressions (capture of bound ranks is the caller's to avoid)."""
    if not ranks:
        return expr
    match expr:
        case Coord(rank=rank):
            return ranks.get(rank, expr)
        case Reduce(ranks=bound):
            inner = {name: value for name, value in ranks.items() if name not in bound}
        case Select(rank=bound_rank):
            inner = {name: value for name, value in ranks.items() if name != bound_rank}
        case Scan(rank=kept):
            inner = {name: value for name, value in ranks.items() if name != kept}
        case _:
            inner = ranks
    return rebuild(expr, tuple(substitute(part, inner) for part in children(expr)))
