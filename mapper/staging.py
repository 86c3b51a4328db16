"""Shared memory and tensor memory that a kernel takes: operands of matrix products, and what threads hand to one another.

In: a `Program`, a `Gpu`, then tile sizes, warps and stages. Out: `Staged`: bytes of the operands in use at one time, bytes in all,
columns of tensor memory. It follows what compilers do with each operand; see docs/design/kernels.md:

* read before the loop: one buffer to the end of the loop (where copies pass through registers: until it is in registers);
* read at every step, pipelined: a buffer a stage in use or on its way, for the whole loop; else one buffer while it is needed;
* computed: in registers, unless the warps that need it are not those that have it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..einsum.cascade import Access, Einsum, accesses
from .contraction import contraction, unconditional
from .gpu import Gpu
from .precision import WIDER, Precision
from .products import COLUMN_ROWS, Product, Side, Unit, body_of, lies_as, mentions, products, shares, streamed, sums, wide_rows
from .program import Program

BARRIER = 8
"""Bytes of one barrier in shared memory."""
ALIGNMENT = 1024
"""Bytes to which buffers of a unit that reads shared memory are aligned."""
WARP_ROWS = 16
"""Rows of a product that one warp of a group does."""


@dataclass(frozen=True)
class Staged:
    """What one choice of tiles takes."""

    operands: int
    """Bytes of operands of matrix products in use at one time."""
    total: int
    """Bytes in all."""
    columns: int = 0
    """Columns of tensor memory."""


@dataclass(frozen=True)
class Buffers:
    """Bytes at each product: that last for its loop, that it alone needs; and those that nothing else stands beside."""

    lasting: list[int]
    passing: list[int]
    alone: list[int]
    turned: dict[int, int] = field(default_factory=dict)
    """Bytes through which a product's computed operand gets the layout that it needs in registers."""

    def add(self, product: int, size: int, together: bool) -> None:
        """Bytes that one product needs, beside its other ones or after them."""
        self.passing[product] = self.passing[product] + size if together else max(self.passing[product], size)


class Staging:
    """The buffers of one program on one GPU."""

    def __init__(self, program: Program, gpu: Gpu, precision: Precision, exact: bool, raising: bool = True) -> None:
        self.program, self.gpu, self.precision, self.exact = program, gpu, precision, exact
        self.bytes = precision.computed
        self.products = products(program, precision, raising)
        self.in_registers = Staging(program, gpu, precision, exact, False) if raising and precision.dtype in WIDER else None
        """Where single warps do all products, they raise operands in their registers."""
        self.scratches = _scratches(program, self.products)
        self.reads = _reads(self.products)
        operands = {(side.key, product.phase) for product in self.products for side in product.sides}
        self.streams = [
            (phase, self.element(access), tuple(a for a in program.axes if a in program.axes_of(access)))
            for phase, access in streamed(program)
            if ((access.tensor, access.indices), phase) not in operands
        ]
        """Tiles that are read at every step and computed with before they are operands."""
        self.by_lanes = {
            (access.tensor, access.indices)
            for phase in program.phases
            for einsum in body_of(phase)
            for access in _tiles_read(program, einsum)
        }
        """Tiles that something else than a matrix product reads."""
        self.of_phase: dict[int, list[int]] = {}
        for number, product in enumerate(self.products):
            self.of_phase.setdefault(product.phase, []).append(number)

    def element(self, access: Access) -> int:
        """Bytes of one value as it is in memory."""
        return {"float": self.precision.read(access.tensor), "int": 4, "bool": 1}[self.program.cascade.tensor(access.tensor).dtype]

    def size(self, side: Side, blocks: Mapping[str, int]) -> int:
        """Bytes of an operand."""
        element = self.precision.read(side.key[0]) if isinstance(side.key, tuple) else self.bytes
        return element * math.prod(blocks[a] for a in side.axes)

    def __call__(
        self, blocks: Mapping[str, int], warps: int, stages: int, described: frozenset[str] = frozenset()
    ) -> Staged:  # fmt: skip
        """`described`: tensors whose tiles come by descriptors."""
        units = [one.unit(self.gpu, blocks, warps, self.exact) for one in self.products]
        if self.in_registers is not None and set(units) == {"warp"}:
            return self.in_registers(blocks, warps, stages)
        if not units:
            return Staged(0, max((self._handed(s, blocks, warps) for s in self.scratches), default=0))
        use = self._buffers(units, blocks, warps, stages)
        operands = max([a + b for a, b in zip(use.lasting, use.passing, strict=True)] + use.alone)
        operands += self._barriers(stages, described)
        base: dict[int, int] = {}
        for product, unit, lasting, passing in zip(self.products, units, use.lasting, use.passing, strict=True):
            # what a unit with tensor memory reads it still reads while the threads go on
            held = lasting + (passing if unit == "tensor memory" else 0)
            base[product.phase] = max(base.get(product.phase, 0), held)
        handed = [base.get(s.phase, 0) + self._handed(s, blocks, warps) for s in self.scratches]
        handed += [use.lasting[n] + use.passing[n] + size for n, size in use.turned.items()]
        total = max([operands, *handed])
        if "tensor memory" in units:
            total += ALIGNMENT + BARRIER * stages
        elif described:
            total += ALIGNMENT
        return Staged(operands, total, self._columns(units, blocks))

    def _barriers(self, stages: int, described: frozenset[str]) -> int:
        """Bytes of the barriers of one loop by which copies of tiles say that they are there."""
        moving = [
            self.products[numbers[0]].phase
            for numbers, side in self.reads
            if side.source == "moving" and isinstance(side.key, tuple) and side.key[0] in described
        ]
        return BARRIER * stages * max((moving.count(phase) for phase in moving), default=0)

    def _buffers(self, units: Sequence[Unit], blocks: Mapping[str, int], warps: int, stages: int) -> Buffers:
        use = Buffers([0] * len(self.products), [0] * len(self.products), [0])
        lasting = use.lasting
        direct = self.gpu.shared_memory.asynchronous
        together = direct or stages > 1  # else operands go through shared memory to registers one after the other
        for numbers, side in self.reads:
            size = self.size(side, blocks)
            first, last = self.products[numbers[0]], self.products[numbers[-1]]
            native = any(units[n] in ("warpgroup", "tensor memory") for n in numbers)
            if side.source == "moving" and stages > 1:
                turned = first.turned(side, units[numbers[0]]) or (direct and not native and self._turned(side))
                copies = 1 if turned else stages if native else stages - 1
                for n in self.of_phase[first.phase]:
                    lasting[n] += copies * size
            elif side.source == "moving":
                for n in range(numbers[0], numbers[-1] + 1):
                    use.add(n, size, together)
            elif not direct and not native and first.phase == last.phase:
                use.alone.append(size)
            else:
                start = self.of_phase[first.phase][0] if first.loop else numbers[0]
                end = self.of_phase[last.phase][-1] if last.loop else numbers[-1]
                for n in range(start, end + 1):
                    lasting[n] += size
        if direct and stages > 1:
            for phase, element, axes in self.streams:
                for n in self.of_phase.get(phase, ()):
                    lasting[n] += (stages - 1) * element * math.prod(blocks[a] for a in axes)
        for number, (product, unit) in enumerate(zip(self.products, units, strict=True)):
            for side in product.sides:
                if not side.is_read and self._exchanged(product, side, unit, blocks, warps, together):
                    size = self.size(side, blocks)
                    if side.source == "kept" and not together and not side.from_product:
                        use.alone.append(size)
                    elif side.source == "kept":
                        for n in self.of_phase[product.phase]:
                            lasting[n] += size
                    elif unit == "warpgroup" and side is product.left and stages > 1:
                        use.turned[number] = size  # it stays in registers, in another layout
                    else:
                        use.add(number, size, together and (side.from_product or stages > 1 or unit != "warp"))
        return use

    def _turned(self, side: Side) -> bool:
        """Does a tile lie in memory the other way round than the product of single warps needs it, so that it is fetched ahead to
        registers and turned there? Not where vector code reads it, too."""
        assert isinstance(side.key, tuple)
        return not mentions(side.key[1][-1], side.axes[-1]) and side.key not in self.by_lanes

    def _exchanged(
        self, product: Product, side: Side, unit: Unit, blocks: Mapping[str, int], warps: int, together: bool
    ) -> bool:  # fmt: skip
        """Does a computed operand pass through shared memory, because other warps need it than have it?"""
        if side is product.right or unit == "none":
            return True
        if unit == "tensor memory":
            return False
        if not side.from_product:
            return True
        rows = blocks[product.rows]
        if unit == "warpgroup":
            return side.source == "kept" and rows < WARP_ROWS * warps
        if side.source == "kept" and together:
            return True
        if (
            self.gpu.shared_memory.asynchronous
        ):  # all products of a chain share out rows, or columns where the last is wider than high
            return rows < blocks[product.columns]
        # each product has its own instruction; one that feeds another shares out rows alone
        heights = {wide_rows(blocks[one.rows], blocks[one.columns]) for one in self.products if one.phase == product.phase}
        high = wide_rows(rows, blocks[product.columns])
        return len(heights) > 1 or 1 < min(warps, -(-rows // high)) < warps

    def _columns(self, units: list[Unit], blocks: Mapping[str, int]) -> int:
        """Columns of tensor memory: a 32-bit value of a sum, half of that for a computed left operand."""
        columns = 0
        for product, unit in zip(self.products, units, strict=True):
            if unit == "tensor memory":
                tiles = -(-blocks[product.rows] // COLUMN_ROWS)
                columns += tiles * blocks[product.columns]
                if not product.left.is_read:
                    columns += tiles * blocks[product.k] * self.bytes // 4
        return columns

    def _handed(self, scratch: Scratch, blocks: Mapping[str, int], warps: int) -> int:
        """Bytes of an exchange between warps that is not of an operand."""
        kept = math.prod(blocks[a] for a in scratch.kept)
        if not scratch.reduced:
            return self.bytes * kept
        along = min(warps, math.prod(blocks[a] for a in scratch.reduced))
        product = scratch.product
        if product is not None:
            unit = product.unit(self.gpu, blocks, warps, self.exact)
            rows, columns = shares(product, self.products, self.gpu, blocks, warps, unit)
            if unit != "none":
                along = rows if product.rows in scratch.reduced else columns
                along = warps if unit == "tensor memory" and along > 1 else along  # each warp has a place for every row
        return 4 * kept * along if along > 1 else 0


@dataclass(frozen=True)
class Scratch:
    """An exchange of one Einsum: of partial results of a reduction, or of a tile read in another layout than the products'."""

    phase: int
    kept: tuple[str, ...]
    reduced: tuple[str, ...] = ()
    product: Product | None = None
    """That the reduced tile comes from."""


def _reads(products: tuple[Product, ...]) -> list[tuple[list[int], Side]]:
    """Each tile that products read, with the numbers of the products that use it: a tile read at every step once per loop."""
    found: dict[object, tuple[list[int], Side]] = {}
    for number, product in enumerate(products):
        for side in product.sides:
            if side.is_read:
                key = (side.key, product.phase if side.source == "moving" else None)
                found.setdefault(key, ([], side))[0].append(number)
    return list(found.values())


def _scratches(program: Program, together: tuple[Product, ...]) -> tuple[Scratch, ...]:
    found: dict[Scratch, None] = {}
    moved: dict[Scratch, tuple[str, ...]] = {}  # tiles of inputs and results -> their axes as they are in memory
    made = lies_as(program, together)
    for number, phase in enumerate(program.phases):
        for einsum in body_of(phase):
            for reduce in sums(program, einsum):
                if contraction(program, reduce) is None:
                    kept = tuple(a for a in program.axes if a in program.axes_of(reduce))
                    reduced = tuple(a for a in program.axes if a in reduce.ranks)
                    sources = [made[a.tensor] for a in accesses(reduce.body) if a.tensor in made]
                    found[Scratch(number, kept, reduced, sources[0] if sources else None)] = None
            tiles = _tiles_read(program, einsum)
            if einsum.output in program.stores:  # results are stored in another layout than products leave them in
                tiles.append(Access(einsum.output, program.stores[einsum.output]))
            for access in tiles:
                axes = tuple(a for a in program.axes if a in program.axes_of(access))
                if len(axes) > 1:
                    order = tuple(a for index in access.indices for a in axes if mentions(index, a))
                    moved[Scratch(number, axes)] = order
    widest = {(axes, order) for scratch, order in moved.items() if len(axes := scratch.kept) == max(len(s.kept) for s in moved)}
    if not together and len(widest) == 1:  # all with most axes lie in registers as they are in memory
        moved = {scratch: order for scratch, order in moved.items() if (scratch.kept, order) not in widest}
    found.update(dict.fromkeys(moved))
    return tuple(found)


def _tiles_read(program: Program, einsum: Einsum) -> list[Access]:
    """Inputs that an Einsum uses beside its matrix products."""
    operands = set()
    for reduce in sums(program, einsum):
        split = contraction(program, reduce)
        if split is not None:
            sides = [unconditional(node) for side in (split.left, split.right) if len(side) == 1 for node in side]
            operands |= {node for node in sides if isinstance(node, Access)}
    read = [access for access in accesses(einsum.body) if access not in operands]
    return [access for access in read if program.cascade.tensor(access.tensor).kind == "input"]
