"""Matrix products of a program: in their order, with what their operands are.

In: a `Program`. Out: its `Product`s, each with the axes of its rows, columns and contraction as the kernel turns them, and for
each operand where it comes from: read before the loop, read at every step, or computed. What a GPU keeps where follows from
that (`staging`, `pressure`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..einsum.cascade import Access, Coord, Einsum, Expr, Map, Number, Reduce, accesses, remembered, walk
from .contraction import Contraction, contraction, simplified, unconditional
from .gpu import Gpu
from .grouping import Grouped, Grouping
from .precision import NARROW_STEPS, Precision
from .program import Loop, Program, Straight, position
from .turned import alike

PLAIN = Precision("float16")
"""A type that is read, computed and written alike."""
MATRIX_SIDE = 16
"""Shortest side of an operand of a matrix product."""
WIDE_TILE = 32
"""Rows and columns of the larger instruction of a warp, where it has two."""
GROUP_WARPS = 4
"""Warps that do a product together."""
COLUMN_ROWS = 128
"""Rows of 32-bit values in one column of tensor memory."""
GROUP_ROWS = 64
"""Least rows of a product that a group of four warps does together."""

Source = Literal["held", "moving", "computed", "kept"]
"""Read before the loop; read at every step; computed where it is needed; computed before the loop that needs it."""
Unit = Literal["none", "warp", "warpgroup", "tensor memory"]


@dataclass(frozen=True)
class Operand:
    """An operand of a matrix product that waits in shared memory."""

    tensor: str
    axes: tuple[str, ...]
    every_step: bool
    """Read anew at each step, so that each stage has its own copy."""


@dataclass(frozen=True)
class Side:
    """One operand of a matrix product."""

    source: Source
    key: object
    """What is read: the same for two operands that are one tile."""
    axes: tuple[str, ...]
    from_product: bool = False
    """Computed, and from a matrix product: then it lies in registers as the unit leaves its results."""
    tensors: frozenset[str] = frozenset()
    """What it is computed from."""
    tile: tuple[str, str] | None = None
    """The tensor that a computed operand is a tile of, and the axis of the contraction."""
    made_of: tuple[Access, ...] = ()
    """Tiles of the step that a computed operand is made of element by element, of them, of rows that are read, and of numbers."""
    scaled: object = None
    """What is read, where a computed operand is a tile of the step times what does not change from step to step."""

    @property
    def is_read(self) -> bool:
        return self.source in ("held", "moving")


@dataclass(frozen=True)
class Product:
    """One matrix product, turned as the kernel turns it: left (rows, k), right (k, columns)."""

    output: str
    phase: int
    loop: bool
    rows: str
    columns: str
    k: str
    left: Side
    right: Side
    feeds: bool = False
    """Does another product of the same phase need its result?"""
    added: bool = False
    """Is its result only added to a state of the loop as that was, so that nothing in the step waits for it?"""
    narrow: bool = False
    """Are both operands taken as they are in memory, in a type that is only read?"""
    group: int = 0
    """Products of one number share out their results alike."""

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right

    def turned(self, side: Side, unit: Unit) -> bool:
        """Does an operand as it is in memory lie the other way round than a unit can read it, so that it is turned in registers?
        Groups of warps read operands of 8 bits along the contraction alone."""
        return self.narrow and unit == "warpgroup" and isinstance(side.key, tuple) and not mentions(side.key[1][-1], self.k)

    def unit(self, gpu: Gpu, blocks: Mapping[str, int], warps: int, exact: bool) -> Unit:
        """Which unit does the product. `exact`: no matrix unit takes the type."""
        if exact:
            return "none"
        kind = gpu.matrix.unit
        if kind == "warp" or blocks[self.rows] < GROUP_ROWS or warps % 4 or (kind == "tensor memory" and warps > 8):
            return "warp"
        return kind


def wide_rows(rows: int, columns: int) -> int:
    """Rows of the instruction that a warp does a product with where it has a larger and a smaller one."""
    return WIDE_TILE if min(rows, columns) >= WIDE_TILE else WIDE_TILE // 2


def instruction_rows(product: Product, gpu: Gpu, blocks: Mapping[str, int]) -> int:
    """Rows that one warp does at once."""
    return MATRIX_SIDE if gpu.shared_memory.asynchronous else wide_rows(blocks[product.rows], blocks[product.columns])


def shares(
    product: Product, together: Sequence[Product], gpu: Gpu, blocks: Mapping[str, int], warps: int, unit: Unit
) -> tuple[int, int]:  # fmt: skip
    """Warps along the rows and along the columns of a product.

    Groups of warps share out rows. Single warps do so for all products of a chain, or columns where the last one is wider than
    high, or both for one that stands alone. On AMD each product does for itself, and one that feeds another shares out rows alone.
    """
    if unit == "warpgroup":
        return warps, 1
    if unit == "tensor memory":
        rows = min(warps, GROUP_WARPS * max(1, blocks[product.rows] // COLUMN_ROWS))
        return rows, warps // rows
    if not gpu.shared_memory.asynchronous:
        rows = warps if product.feeds else max(1, min(warps, blocks[product.rows] // instruction_rows(product, gpu, blocks)))
        return rows, warps // rows
    chain = [one for one in together if one.group == product.group and one.unit(gpu, blocks, warps, unit == "none") == unit]
    if len(chain) == 1:
        return _evenly(blocks[product.rows], blocks[product.columns], warps)
    last = chain[-1]
    return (warps, 1) if blocks[last.rows] >= blocks[last.columns] else (1, warps)


def _evenly(rows: int, columns: int, warps: int) -> tuple[int, int]:
    """Warps along the rows and columns of a product that stands alone: each warp about as many of its instruction's rows as of
    its columns."""
    high, wide = -(-rows // MATRIX_SIDE), -(-columns // (MATRIX_SIDE // 2))
    along, across = 1, 1
    while along * across < warps:
        if high >= wide:
            along, high = 2 * along, max(high // 2, 1)
        else:
            across, wide = 2 * across, wide // 2
    return along, across


def lies_as(program: Program, together: Sequence[Product]) -> dict[str, Product]:
    """Tensor -> the product whose result it is, or is computed from: it lies in registers as that product leaves it."""
    outputs = {product.output: product for product in reversed(together)}
    found: dict[str, Product] = {}
    for phase in program.phases:
        for einsum in body_of(phase):
            if einsum.output in outputs:
                found[einsum.output] = outputs[einsum.output]
                continue
            axes = set(program.cascade.tensor(einsum.output).ranks)
            for access in accesses(einsum.body):
                product = found.get(access.tensor)
                if product is not None and {product.rows, product.columns} & axes:
                    found.setdefault(einsum.output, product)
    return found


def body_of(phase: Straight | Loop) -> tuple[Einsum, ...]:
    return phase.body if isinstance(phase, Loop) else phase.einsums


@remembered
def sums(program: Program, einsum: Einsum) -> tuple[Reduce, ...]:
    """Reductions of an Einsum, after what need not be under the sum was taken out of it."""
    body: Expr = einsum.body
    if isinstance(body, Reduce):
        body = simplified(program, body)
    return tuple(node for node in walk(body) if isinstance(node, Reduce))


def is_read(program: Program, factors: tuple[Expr, ...]) -> bool:
    """Is an operand a tile of an input, as it is in memory (in steps that no condition cuts)?"""
    whole = unconditional(factors[0])
    return len(factors) == 1 and isinstance(whole, Access) and program.cascade.tensor(whole.tensor).kind == "input"


def mentions(expr: Expr, rank: str) -> bool:
    return any(isinstance(node, Coord) and node.rank == rank for node in walk(expr))


@remembered
def products(program: Program, precision: Precision = PLAIN, raising: bool = True) -> tuple[Product, ...]:
    """All matrix products, in the order in which the kernel does them. `raising`: an operand that is raised counts as computed."""
    return tuple(
        replace(_raised(one, precision) if raising else one, group=group)
        for one, group in zip(_as_written(program), grouping(program).groups, strict=True)
    )


@remembered
def grouping(program: Program) -> Grouped:
    """Which products share out their results alike, whatever the types."""
    return Grouping(program, _as_written(program)).found()


@remembered
def _as_written(program: Program) -> tuple[Product, ...]:
    """All matrix products, with operands as their Einsums have them."""
    found: list[Product] = []
    order: dict[str, tuple[str, ...]] = {}  # axes of results that are held turned
    made: set[str] = set()  # tensors that come from a product
    for number, phase in enumerate(program.phases):
        fresh = {e.output: e for e in body_of(phase)} if isinstance(phase, Loop) else None
        for einsum in body_of(phase):
            here = False
            for reduce in sums(program, einsum):
                split = contraction(program, reduce)
                if split is None:
                    continue
                here = True
                left, right = (
                    _side(program, side, fresh, order, made, (k, axis))
                    for side, k, axis in ((split.left, split.k, split.i), (split.right, split.k, split.j))
                )
                straight = _turns(left, (split.i, split.k)) + _turns(right, (split.k, split.j))
                turned = _turns(left, (split.k, split.i)) + _turns(right, (split.j, split.k))
                rows, columns = split.i, split.j
                if turned < straight:
                    left, right, rows, columns = right, left, columns, rows
                found.append(Product(einsum.output, number, isinstance(phase, Loop), rows, columns, split.k, left, right))
                order[einsum.output] = (rows, columns)
            if here or any(access.tensor in made for access in accesses(einsum.body)):
                made.add(einsum.output)
    return tuple(replace(one, feeds=_feeds(program, one), added=_added(program, one)) for one in found)


def _raised(product: Product, precision: Precision) -> Product:
    """The product with operands of a type that is only read as computed ones, unless both are."""
    narrow = [side.is_read and isinstance(side.key, tuple) and precision.is_narrow(side.key[0]) for side in product.sides]
    if all(narrow):
        return replace(product, narrow=True)
    left, right = (
        replace(side, source="computed" if side.source == "moving" else "kept", key=None) if raised else side
        for side, raised in zip(product.sides, narrow, strict=True)
    )
    return replace(product, left=left, right=right)


@remembered
def contractions(program: Program) -> tuple[Contraction, ...]:
    """All matrix products, as their Einsums have them."""
    return tuple(
        split
        for phase in program.phases
        for einsum in body_of(phase)
        for reduce in sums(program, einsum)
        if (split := contraction(program, reduce)) is not None
    )


def _feeds(program: Program, product: Product) -> bool:
    """Does the result of a product reach an operand of another one in its phase?"""
    reached = {product.output}
    for einsum in body_of(program.phases[product.phase]):
        if einsum.output in program.cascade.outputs or einsum.output == product.output:
            continue
        read = {access.tensor for access in accesses(einsum.body) if not _before(program, access)}
        if not read & reached:
            continue
        for reduce in sums(program, einsum):
            split = contraction(program, reduce)
            sides = () if split is None else (*split.left, *split.right)
            if {a.tensor for f in sides for a in accesses(f) if not _before(program, a)} & reached:
                return True
        reached.add(einsum.output)
    return False


def _added(program: Program, product: Product) -> bool:
    """Is the result of a product used once in its loop, in a sum with a state as it was before the step?"""
    phase = program.phases[product.phase]
    if not isinstance(phase, Loop):
        return False
    users = [einsum for einsum in phase.body if any(access.tensor == product.output for access in accesses(einsum.body))]
    if len(users) != 1 or users[0].output not in phase.states:
        return False
    match users[0].body:
        case Map(op="+", args=(Access(tensor=one), Access(tensor=other))):
            return {one, other} == {product.output, users[0].output}
    return False


def _before(program: Program, access: Access) -> bool:
    """Is a state read as it was before the step?"""
    tensor = program.cascade.tensor(access.tensor)
    if tensor.iterates is None:
        return False
    return position(program.cascade, tensor.name, access.indices[tensor.ranks.index(tensor.iterates)]) == "now"


def _side(
    program: Program,
    factors: tuple[Expr, ...],
    fresh: Mapping[str, Einsum] | None,
    order: Mapping[str, tuple[str, ...]],
    made: set[str],
    axes: tuple[str, str],
) -> Side:
    """One operand. `fresh`: what the loop around computes; None outside of loops."""
    loop = fresh is not None
    if is_read(program, factors):
        access = unconditional(factors[0])
        assert isinstance(access, Access)
        moving = loop and program.loop is not None and mentions(access, program.loop)
        held = tuple(a for a in program.axes if a in program.axes_of(access))
        return Side("moving" if moving else "held", (access.tensor, access.indices), held)
    read = [access for factor in factors for access in accesses(factor)]
    names = {access.tensor for access in read}
    if len(factors) == 1 and isinstance(factors[0], Access) and factors[0].tensor in order:
        held = order[factors[0].tensor]
    else:
        held = tuple(a for a in program.axes if a in axes)
    changing = fresh is None or bool(names & set(fresh)) or any(program.loop and mentions(access, program.loop) for access in read)
    single = factors[0] if len(factors) == 1 else None
    tile = (single.tensor, axes[0]) if isinstance(single, Access) and changing else None
    scaled = _scaled(program, factors, fresh) if fresh is not None else None
    whole = axes[0] == program.inner or fills_its_block(program, axes[0])  # else it is masked
    parts = [_made_of(program, factor, fresh, set(held)) if fresh is not None and whole else None for factor in factors]
    made_of = () if None in parts else tuple(dict.fromkeys(access for part in parts for access in part or ()))
    return Side("computed" if changing else "kept", None, held, bool(names & made), frozenset(names), tile, made_of, scaled)


def _made_of(program: Program, expr: Expr, fresh: Mapping[str, Einsum], axes: set[str]) -> tuple[Access, ...] | None:
    """Tiles of the step that a value is made of element by element; None if of anything else but numbers and rows of inputs."""
    match expr:
        case Number():
            return ()
        case Access(tensor=name) if name in fresh and not _before(program, expr):
            return _made_of(program, fresh[name].body, fresh, axes)
        case Access(tensor=name) if program.cascade.tensor(name).kind == "input":
            own = set(program.axes) & program.axes_of(expr)
            if own < axes:
                return ()  # a row or a number beside a tile
            return (expr,) if own == axes and mentions(expr, program.loop or "") else None
        case Map(args=args):
            parts = [_made_of(program, arg, fresh, axes) for arg in args]
            return None if None in parts else tuple(access for part in parts for access in part or ())
        case _:
            return None


def fills_its_block(program: Program, axis: str) -> bool:
    """Is the extent of an axis that is held whole a number that blocks come in, whatever the sizes are?"""
    match program.cascade.rank(axis).extent:
        case Number(value=int(value)):
            return axis in program.whole and value >= MATRIX_SIDE and value & (value - 1) == 0
    return False


def _scaled(program: Program, factors: tuple[Expr, ...], fresh: Mapping[str, Einsum]) -> object:
    """What is read, where an operand is one tile that is read at every step times one that is the same at each."""
    found: list[object] = []
    rest = 0
    for whole in map(unconditional, factors):
        if not isinstance(whole, Access):
            return None
        moves = program.loop is not None and mentions(whole, program.loop)
        if program.cascade.tensor(whole.tensor).kind == "input":
            found += [(whole.tensor, whole.indices)] * moves
        else:
            rest += whole.tensor not in fresh and not moves
    return found[0] if len(factors) == 2 and len(found) == rest == 1 else None


def _turns(side: Side, wanted: tuple[str, str]) -> int:
    """Must a computed tile be transposed to stand like that?"""
    return int(side.source in ("computed", "kept") and side.axes != wanted)


@remembered
def streamed(program: Program) -> tuple[tuple[int, Access], ...]:
    """Tiles read at every step that matrix products need, as operands or through what is computed first; each with its loop.

    Compilers fetch these, and no others, ahead of the step that needs them.
    """
    found: dict[tuple[int, Access], None] = {}
    for number, phase in enumerate(program.phases):
        if not isinstance(phase, Loop):
            continue
        needed: set[str] = set()
        for einsum in reversed(phase.body):
            operands = [
                node
                for reduce in sums(program, einsum)
                if (split := contraction(program, reduce)) is not None
                for factor in (*split.left, *split.right)
                for node in accesses(factor)
            ]
            reached = list(accesses(einsum.body)) if einsum.output in needed else operands
            needed |= {access.tensor for access in reached if not _before(program, access)}
            for access in reached:
                if program.cascade.tensor(access.tensor).kind == "input" and mentions(access, program.loop or ""):
                    found[number, access] = None
    return tuple(found)


@remembered
def staged(program: Program, precision: Precision = PLAIN) -> tuple[Operand, ...]:
    """Operands of matrix products that are read from memory, each once."""
    found: dict[object, Operand] = {}
    for product in products(program, precision):
        for side in (product.left, product.right):
            if side.is_read:
                assert isinstance(side.key, tuple)
                found.setdefault(side.key, Operand(side.key[0], side.axes, side.source == "moving"))
    return tuple(found.values())


def shortest_side(program: Program, axis: str, precision: Precision = PLAIN) -> int:
    """Shortest block along an axis: that of a matrix product if it takes part in one."""
    axes = alike(program.cascade, axis)
    mine = [one for one in products(program, precision) if axes & {one.rows, one.columns, one.k}]
    return max([NARROW_STEPS if one.narrow and one.k in axes else MATRIX_SIDE for one in mine], default=1)
