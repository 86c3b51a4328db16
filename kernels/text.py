"""The text of a kernel while it is being written: lines, scopes, names.

In: a program and how its tiles are filled. Out: a `Body`: indented lines, the arguments that they use, and the helper functions
that they call. What is written is the business of the layers above: facts about values, addresses, memory, element-wise
expressions, reductions, loops, and the kernel as a whole (`lower`); each knows those below it, and `expr`, which all of them need.
"""

from __future__ import annotations

import keyword
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..einsum.cascade import Einsum, Expr, Scalar
from ..mapper.persistence import Walk
from ..mapper.precision import Precision
from ..mapper.program import Program
from ..mapper.traffic import Order, in_turn
from ..mapper.whole_numbers import whole_scalars
from .exponent import fold
from .tile import Tile

RESERVED = {
    "tl",
    "triton",
    "torch",
    "math",
    "pid",
    "DTYPE",
    "PRECISION",
    "PLAN",
    "run",
    "reference",
    "exact",
    "float",
    "range",
    "min",
    "max",
}


@dataclass
class Body:
    """Text of a kernel and what it needs."""

    lines: list[str]
    pointers: dict[str, None] = field(default_factory=dict)
    """Tensors that the kernel reads or writes."""
    scalars: dict[str, None] = field(default_factory=dict)
    """Scalars of the cascade that the kernel takes as arguments, in order of first use."""
    computed: dict[str, Expr] = field(default_factory=dict)
    """Arguments that the host computes, in double precision, from scalars of the cascade: name -> expression."""
    strides: dict[tuple[str, int], str] = field(default_factory=dict)
    """(tensor, dimension) -> name of the stride argument."""
    descriptors: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Tensors whose tiles come by a descriptor -> for each dimension the axis of its blocks, None for blocks of one."""
    spans: dict[tuple[str, int], str] = field(default_factory=dict)
    """(tensor, dimension) -> axis along which a tile of it is addressed by 32-bit offsets."""
    extents: dict[str, str] = field(default_factory=dict)
    """Rank -> name under which the kernel knows its extent."""
    helpers: set[str] = field(default_factory=set)
    """Device functions that the text calls (`helpers`)."""
    divisors: dict[str, None] = field(default_factory=dict)
    """Scalars that whole numbers of a tile are divided by: known to the compiler, a division is a multiplication."""
    decided: dict[str, Expr] = field(default_factory=dict)
    """Name -> condition on sizes that is known when the kernel is compiled."""


@dataclass
class Scope:
    """Lines being written, and the tiles that are at hand in them."""

    lines: list[str]
    indent: int
    tiles: dict[object, Tile] = field(default_factory=dict)
    """By tensor, or by what else they are the value of."""


class Text(ABC):
    """Names and lines of one kernel. `exact`: the inner tile has exactly as many coordinates as its block; `single`: inputs that
    another kernel left in float32, whatever the type of the inputs is; `order`: of the program instances."""

    def __init__(
        self,
        program: Program,
        exact: bool,
        single: frozenset[str] = frozenset(),
        order: Order | None = None,
        precision: Precision | None = None,
        described: frozenset[str] = frozenset(),
        walks: Walk | None = None,
    ) -> None:
        self.order = order or in_turn(program)
        self.precision = precision or Precision("float16")
        self.described = described
        """Tensors of which the plan has tiles come by descriptors."""
        self.walks = walks
        """How a program instance walks tiles; None if each instance has one."""
        program = fold(program)
        self.program, self.exact, self.single = program, exact, single
        self.cascade = program.cascade
        self.whole_scalars = whole_scalars(program.cascade)
        self.body = Body([])
        names = {*(t.name for t in self.cascade.tensors), *(r.name for r in self.cascade.ranks), *self.cascade.symbols}
        self.taken = names | {n for n, _ in self.cascade.params} | set(self.cascade.counts) | RESERVED
        self.scopes: list[Scope] = [Scope(self.body.lines, 1)]
        self.pointers: dict[str, str] = {}
        self.locals: dict[tuple[str, str], str] = {}
        self.lasting: set[str] = set()
        """Names of arguments: taken for good, also when they are first met inside a loop."""
        self.partial = True
        self.true: frozenset[Expr] = frozenset()
        self.guarded = False
        self.einsum: Einsum | None = None
        self.blocks = {axis: self.fresh(f"BLOCK_{axis.upper()}") for axis in program.axes}
        self.definitions = {
            name: next((e for e in reversed(self.cascade.definitions(name))), None)
            for name in (t.name for t in self.cascade.tensors)
        }
        parent = self.cascade.rank(program.loop).part_of if program.loop else None
        self.parent = parent
        """The rank of which the loop walks the tiles; None if the loop rank is not a part."""

    @abstractmethod
    def expr(self, expr: Expr) -> Tile:
        """The value of any expression; may emit lines before it."""

    def fresh(self, wanted: str) -> str:
        """A name that nothing else has, as close to the one wanted as can be."""
        name = wanted
        while name in self.taken or keyword.iskeyword(name):
            name += "_"
        self.taken.add(name)
        return name

    def argument(self, wanted: str) -> str:
        """A name that stays taken, also when it is first met inside a loop."""
        name = self.fresh(wanted)
        self.lasting.add(name)
        return name

    def local(self, name: str, suffix: str) -> str:
        """A variable of the generated code that belongs to a rank or a tensor; nothing in the cascade is called so."""
        if (name, suffix) not in self.locals:
            self.locals[(name, suffix)] = self.argument(f"{self.spelled(name)}_{suffix}")
        return self.locals[(name, suffix)]

    def spelled(self, name: str) -> str:
        """A name of the cascade as the generated code spells it."""
        return f"{name}_" if keyword.iskeyword(name) or name in RESERVED else name

    def emit(self, line: str, scope: Scope | None = None) -> None:
        """Write a line in a scope: the innermost one unless another is given."""
        scope = scope or self.scopes[-1]
        scope.lines.append("    " * scope.indent + line if line else "")

    def find(self, key: object) -> Tile | None:
        """The tile that is at hand under a key, in the innermost scope that has one."""
        return next((scope.tiles[key] for scope in reversed(self.scopes) if key in scope.tiles), None)

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """A nested block of lines, one level deeper."""
        inner = Scope(self.scopes[-1].lines, self.scopes[-1].indent + 1)
        self.scopes.append(inner)
        taken = set(self.taken)
        yield inner
        self.taken = taken | self.lasting
        self.scopes.pop()

    def scalar(self, name: str) -> str:
        """Name of the argument for a scalar of the cascade."""
        self.body.scalars.setdefault(name)
        return self.spelled(name)

    def extent(self, rank: str) -> str:
        """Name of a rank's extent in the kernel."""
        if rank not in self.body.extents:
            expr = self.cascade.rank(rank).extent
            self.body.extents[rank] = self.spelled(expr.name) if isinstance(expr, Scalar) else self.argument(f"N_{rank}")
        return self.body.extents[rank]
