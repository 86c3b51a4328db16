"""Shared memory and tensor memory that a kernel takes: operands of matrix products, and what threads hand to one another.

In: a `Program`, a `Gpu`, then tile sizes, warps and stages. Out: `Staged`: bytes of the operands in use at one time, bytes in all,
columns of tensor memory. It follows what compilers do with each operand; see docs/design/kernels.md:

* read before the loop: one buffer to the end of the loop (where copies pass through registers: until it is in registers);
* read at every step, pipelined: a buffer a stage in use or on its way, for the whole loop; else one buffer while it is needed;
* computed: in registers, unless the warps that need it are not those that have it, or what it is made of can be fetched for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..einsum.cascade import Access, Einsum, accesses
from .contraction import contraction, unconditional
from .gpu import Gpu
from .grouping import Meeting
from .loop_masks import conditions
from .precision import WIDER, Precision
from .products import (
    COLUMN_ROWS,
    Product,
    Side,
    Unit,
    body_of,
    grouping,
    lies_as,
    mentions,
    products,
    shares,
    streamed,
    sums,
    wide_rows,
)
from .program import Loop, Program

BARRIER = 8
"""Bytes of one barrier in shared memory."""
ALIGNMENT = 1024
"""Bytes to which buffers of a unit that reads shared memory are aligned."""
WORD = 4
"""Bytes of a number that is computed with."""
WARP_ROWS = 16
"""Rows of a product that one warp of a group does."""
COLUMNS = 8
"""Columns of the instruction of one warp."""
INSTRUCTION_BYTES = 32
"""Bytes of each row of a left operand that the instruction of a group of warps takes at once."""
NATIVE: frozenset[Unit] = frozenset({"warpgroup", "tensor memory"})
"""Units that read operands from shared memory themselves."""


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
    brought: list[int] = field(default_factory=list)
    """Bytes at each point where a tile that was read gets the layout that it needs in registers, with what is there by then."""
    before: dict[int, int] = field(default_factory=dict)
    """Bytes of a tile on its way to registers, before a product needs anything else."""

    def ahead(self, product: int, size: int) -> None:
        """Bytes of a tile that goes to registers before another is read."""
        self.before[product] = max(self.before.get(product, 0), size)

    def add(self, product: int, size: int, together: bool) -> None:
        """Bytes that one product needs, beside its other ones or after them."""
        self.passing[product] = self.passing[product] + size if together else max(self.passing[product], size)


@dataclass(frozen=True)
class Exchanges:
    """What some tiles and warps take with any number of stages."""

    units: list[Unit]
    """Of each product."""
    handed: list[int]
    """Bytes of each exchange between warps that is not of an operand."""
    brought: list[int]
    """Bytes of each tile that is brought to lie as another."""
    columns: int
    """Of tensor memory."""
    buffers: dict[tuple[int, bool], Buffers] = field(default_factory=dict)
    """Stages, and whether nothing cuts a step -> what operands take with them."""


class Staging:
    """The buffers of one program on one GPU."""

    def __init__(self, program: Program, gpu: Gpu, precision: Precision, exact: bool, raising: bool = True) -> None:
        self.program, self.gpu, self.precision, self.exact = program, gpu, precision, exact
        self.bytes = precision.computed
        self.products = products(program, precision, raising)
        self.in_registers = Staging(program, gpu, precision, exact, False) if raising and precision.dtype in WIDER else None
        """Where single warps do all products, they raise operands in their registers."""
        self.raising = raising
        self.scratches = _scratches(program, self.products, precision.between)
        self.lies = lies_as(program, self.products)
        """Tensor -> the product whose result it lies as."""
        groups = grouping(program)
        self.meetings, self.delayed = groups.meetings, groups.delayed
        self.lifts = any(side.made_of for product in self.products for side in product.sides)
        """Are there operands that differ between steps that something cuts and steps that nothing cuts?"""
        matters = self.lifts or any(side.scaled is not None for product in self.products for side in product.sides)
        self.masked = matters and any(_cut_by_masks(program, phase) for phase in program.phases if isinstance(phase, Loop))
        self.reads = _reads(self.products)
        self.fetched = _fetched(program)
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
        self.known: tuple[object, Exchanges] | None = None
        """Tiles and warps asked for last, and what they take."""
        self.of_phase: dict[int, list[int]] = {}
        for number, product in enumerate(self.products):
            self.of_phase.setdefault(product.phase, []).append(number)

    def element(self, access: Access) -> int:
        """Bytes of one value as it is in memory."""
        kind = self.program.cascade.tensor(access.tensor).dtype
        return {"float": self.precision.by_lanes(access.tensor), "int": WORD, "bool": 1}[kind]

    def size(self, side: Side, blocks: Mapping[str, int]) -> int:
        """Bytes of an operand."""
        read = isinstance(side.key, tuple) and not (side.source == "held" and self._raised(side))  # raised once, before the loop
        element = self.precision.read(side.key[0]) if read and isinstance(side.key, tuple) else self.bytes
        return element * math.prod(blocks[a] for a in side.axes)

    def __call__(
        self, blocks: Mapping[str, int], warps: int, stages: int, described: frozenset[str] = frozenset(), divides: bool = False
    ) -> Staged:  # fmt: skip
        """`described`: tensors whose tiles come by descriptors; `divides`: steps divide what is walked: its end cuts none."""
        here = self._here(blocks, warps)
        if self.in_registers is not None and set(here.units) == {"warp"}:
            return self.in_registers(blocks, warps, stages, divides=divides)
        if not here.units:
            return Staged(0, max(here.handed, default=0))
        cut = self.masked or not divides
        found = [
            self._taken(here, blocks, warps, stages, whole, described)
            for whole in ([False, True] if cut and self.lifts else [not cut])
        ]
        operands, total = (max(one) for one in zip(*found, strict=True))
        if "tensor memory" in here.units:
            total += ALIGNMENT + BARRIER * stages
        elif described:
            total += ALIGNMENT
        return Staged(operands, total, here.columns)

    def _here(self, blocks: Mapping[str, int], warps: int) -> Exchanges:
        """What does not depend on stages, nor on which tiles come by descriptors; of the tiles and warps asked for last."""
        key = (*blocks.items(), warps)
        if self.known is None or self.known[0] != key:
            units = [one.unit(self.gpu, blocks, warps, self.exact) for one in self.products]
            handed = [self._handed(scratch, blocks, warps) for scratch in self.scratches]
            brought = [self._brought(meeting, blocks, warps) for meeting in self.meetings]
            self.known = key, Exchanges(units, handed, brought, self._columns(units, blocks))
        return self.known[1]

    def _taken(
        self, here: Exchanges, blocks: Mapping[str, int], warps: int, stages: int, whole: bool, described: frozenset[str]
    ) -> tuple[int, int]:  # fmt: skip
        """Bytes of operands, and bytes in all. `whole`: in steps that nothing cuts."""
        if (stages, whole) not in here.buffers:
            use = Buffers([0] * len(self.products), [0] * len(self.products), [0])
            self._add_read(use, here.units, blocks, warps, stages)
            self._add_computed(use, here.units, blocks, warps, stages, whole)
            here.buffers[stages, whole] = use
        use = here.buffers[stages, whole]
        operands = max([a + b for a, b in zip(use.lasting, use.passing, strict=True)] + use.alone)
        operands += self._barriers(stages, described)
        base: dict[int, int] = {}
        for product, unit, lasting, passing in zip(self.products, here.units, use.lasting, use.passing, strict=True):
            # what a unit with tensor memory reads it still reads while the threads go on
            held = lasting + (passing if unit == "tensor memory" else 0)
            base[product.phase] = max(base.get(product.phase, 0), held)
        handed = [base.get(s.phase, 0) + size for s, size in zip(self.scratches, here.handed, strict=True)]
        handed += [base.get(m.phase, 0) + size for m, size in zip(self.meetings, here.brought, strict=True)]
        handed += [use.lasting[n] + use.passing[n] + size for n, size in use.turned.items()] + use.brought
        return operands, max([operands, *handed])

    def _barriers(self, stages: int, described: frozenset[str]) -> int:
        """Bytes of the barriers of one loop by which copies of tiles say that they are there."""
        moving = [
            self.products[numbers[0]].phase
            for numbers, side in self.reads
            if side.source == "moving" and isinstance(side.key, tuple) and side.key[0] in described
        ]
        return BARRIER * stages * max((moving.count(phase) for phase in moving), default=0)

    def _add_read(self, use: Buffers, units: Sequence[Unit], blocks: Mapping[str, int], warps: int, stages: int) -> None:
        """Buffers of operands that are read."""
        lasting = use.lasting
        direct = self.gpu.shared_memory.asynchronous
        together = direct or stages > 1  # else operands go through shared memory to registers one after the other
        brought: list[tuple[int, int]] = []
        for numbers, side in self.reads:
            size = self.size(side, blocks)
            first, last = self.products[numbers[0]], self.products[numbers[-1]]
            native = any(units[n] in NATIVE for n in numbers)
            only = self._only_native(numbers, side, units)
            until = self._both_ways(numbers, side) if side.source == "moving" and direct and not native else None
            ahead = stages > 1 and (not direct or self._copied(side.key, size, warps))
            if until is not None and ahead:
                for n in range(numbers[0], until + 1):
                    use.add(n, size, together)
                use.turned[numbers[0]] = size
            elif side.source == "moving" and ahead:
                in_registers = direct and not native and first.right.key == side.key and self._turned(side)
                copies = 1 if in_registers or first.turned(side, units[numbers[0]]) else stages if only else stages - 1
                for n in self.of_phase[first.phase]:
                    lasting[n] += copies * size
            elif side.source == "moving" and not direct:
                for n in range(numbers[0], numbers[-1] + 1):
                    use.add(n, size, together)
            elif side.source == "moving":
                since = min(numbers[0], self.fetched.get((side.key, first.phase), numbers[0]))
                self._add_of_step(use, numbers, side, units, since, size)
                if any(self._transposed(n, side, units) for n in numbers):
                    brought.append((since, size))
            elif direct and all(self._transposed(n, side, units) for n in numbers):
                brought.append((numbers[0], size))
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
        use.brought.extend(lasting[n] + use.passing[n] + size for n, size in brought)

    def _copied(self, key: object, size: int, warps: int) -> bool:
        """Can a tile be copied to shared memory past registers? A thread copies a word at least."""
        element = self.precision.read(key[0]) if isinstance(key, tuple) else self.bytes
        return max(element, size // (warps * self.gpu.multiprocessors.warp)) >= WORD

    def _add_of_step(
        self, use: Buffers, numbers: Sequence[int], side: Side, units: Sequence[Unit], since: int, size: int
    ) -> None:  # fmt: skip
        """Buffers of a tile of the step that is not fetched ahead: each from where it is read to the last product that needs it."""
        for last in self._copies(numbers, side, units):
            if self._raised(side):
                use.ahead(since, size)
            else:
                for n in range(since, last + 1):
                    use.add(n, size, True)

    def _add_computed(
        self, use: Buffers, units: Sequence[Unit], blocks: Mapping[str, int], warps: int, stages: int, whole: bool
    ) -> None:  # fmt: skip
        """Buffers of operands that are computed. `whole`: in steps that nothing cuts, where tiles are fetched as units need what is
        made of them."""
        lasting = use.lasting
        direct = self.gpu.shared_memory.asynchronous
        together = direct or stages > 1
        staying = [0] * len(self.products)
        for number, (product, unit) in enumerate(zip(self.products, units, strict=True)):
            for side in product.sides:
                if not side.is_read and self._exchanged(product, side, unit, blocks, warps, together):
                    size = self.size(side, blocks)
                    ends = self._ends(number, side, units) if direct else [number]
                    if direct and stages > 1 and not whole and side.scaled is not None and self._waits(side, units):
                        for n in self.of_phase[product.phase]:
                            lasting[n] += WORD * math.prod(blocks[a] for a in side.axes)
                    elif side.source == "kept" and not together and not side.from_product:
                        use.alone.append(size)
                    elif side.source == "kept":
                        for n in self.of_phase[product.phase]:
                            lasting[n] += size
                    elif not ends:
                        continue  # it is there for an earlier product
                    elif whole and direct and side.made_of and (unit == "warp" or (unit == "warpgroup" and side is product.left)):
                        if stages == 1:  # each tile goes to registers before the next is read
                            widest = max(self.element(access) for access in side.made_of)
                            use.ahead(number, widest * math.prod(blocks[a] for a in side.axes))
                    elif side is product.left and not side.from_product and stages > 1 and self._runs_on(number, units, blocks):
                        use.turned[number] = size  # it stays in registers, in another layout
                    elif ends == [number]:
                        use.add(number, size, together)
                    else:
                        for end in ends:
                            for n in range(number, end + 1):
                                staying[n] += size
        for number, size in enumerate(staying):
            use.passing[number] = max(use.passing[number] + size, use.before.get(number, 0))

    def _raised(self, side: Side) -> bool:
        """Do single warps raise a tile in their registers? Those of a GPU that has no other unit take two of 8 bits as they are."""
        if self.raising or not isinstance(side.key, tuple) or not self.precision.is_narrow(side.key[0]):
            return False
        mine = [one for one in self.products if side.key in (one.left.key, one.right.key)]
        sides = [other for one in mine for other in one.sides]
        alike = all(isinstance(other.key, tuple) and self.precision.is_narrow(other.key[0]) for other in sides)
        return not alike or self.gpu.matrix.unit != "warp"

    def _only_native(self, numbers: Sequence[int], side: Side, units: Sequence[Unit]) -> bool:
        """Is a tile read by units that take it from shared memory as it is, and by nothing else?"""
        return all(units[n] in NATIVE for n in numbers) and side.key not in self.by_lanes

    def _transposed(self, number: int, side: Side, units: Sequence[Unit]) -> bool:
        """Does a product of single warps need a tile the other way round than it is held? Then it gets it in registers, through
        shared memory that is free again at once."""
        product = self.products[number]
        wanted = {id(product.left): (product.rows, product.k), id(product.right): (product.k, product.columns)}
        mine = [one for one in product.sides if one.key == side.key]
        return units[number] == "warp" and all(one.axes != wanted[id(one)] for one in mine)

    def _copies(self, numbers: Sequence[int], side: Side, units: Sequence[Unit]) -> Iterator[int]:
        """The last product of each copy of a tile of the step that is not fetched ahead: one for units that read shared memory,
        which take it either way round, and one for the left operands and one for the right ones of single warps."""
        last: dict[object, int] = {}
        for n in numbers:
            if units[n] in NATIVE:
                last["native"] = n
            elif not self._transposed(n, side, units):
                last[self.products[n].left.key == side.key] = n
        yield from last.values()

    def _runs_on(self, number: int, units: Sequence[Unit], blocks: Mapping[str, int]) -> bool:
        """Does a group of warps go on with the step while a product is done? It does where nothing in the step needs the result and
        the right operand is not written meanwhile: a left operand in registers is then brought there in two halves. One that
        has as few steps as the instruction is not halved."""
        product = self.products[number]
        right = product.right
        if units[number] != "warpgroup" or not product.added or blocks[product.k] <= INSTRUCTION_BYTES // self.bytes:
            return False
        users = next((numbers for numbers, side in self.reads if side.key == right.key and right.is_read), [])
        return right.source == "held" or (right.source == "moving" and self._only_native(users, right, units))

    def _ends(self, number: int, side: Side, units: Sequence[Unit]) -> list[int]:
        """The last product that each copy of a computed operand is there for; none if it is there for an earlier product, too.

        A tile of several products waits for all of them, in one copy for units that read shared memory and one for those that have
        it in registers. A product that starts from the result of a later one is done after that.
        """
        product = self.products[number]
        if side.tile is None:
            return [self.delayed.get(number, number)]
        last: dict[bool, int] = {}
        for n in self.of_phase[product.phase]:
            for other in self.products[n].sides:
                if other.tile == side.tile:
                    if n < number:
                        return []
                    direct = units[n] == "tensor memory" or (units[n] == "warpgroup" and other is self.products[n].right)
                    last[direct] = self.delayed.get(n, n)
        return list(last.values())

    def _waits(self, side: Side, units: Sequence[Unit]) -> bool:
        """Does the tile of the step that a computed operand is made of wait in shared memory, for another product, too? Then it is
        read as that operand lies, and what it is multiplied by is brought to lie like that, once before the loop."""
        for numbers, one in self.reads:
            if one.key == side.scaled:
                return any(units[n] in NATIVE for n in numbers) or self._in_rows(one)
        return False

    def _both_ways(self, numbers: Sequence[int], side: Side) -> int | None:
        """The last product that takes a tile of the step as it lies, where products of single warps take it so and turned, and it
        is not fetched ahead but goes through shared memory once for each way. They share what was fetched where the tile lies in
        memory row by row and is turned for a right operand."""
        straight: list[int] = []
        turned: list[bool] = []  # for a left operand
        for number in numbers:
            product = self.products[number]
            for one in product.sides:
                if one.key == side.key:
                    wanted = (product.rows, product.k) if one is product.left else (product.k, product.columns)
                    if one.axes == wanted:
                        straight.append(number)
                    else:
                        turned.append(one is product.left)
        apart = any(turned) or (bool(turned) and not self._in_rows(side))
        return max(straight) if straight and apart and side.key not in self.by_lanes else None

    def _turned(self, side: Side) -> bool:
        """Does a right operand lie in memory the other way round than the product of single warps needs it, so that it is fetched
        ahead to registers and turned there? Not where vector code reads it, too."""
        return not self._in_rows(side) and side.key not in self.by_lanes

    def _in_rows(self, side: Side) -> bool:
        """Does a tile lie in memory row by row?"""
        assert isinstance(side.key, tuple)
        return mentions(side.key[1][-1], side.axes[-1])

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
            # where rows do not suffice for all warps, a product that feeds no other shares out columns, too
            origin = self._origin(side)
            few = side.source == "kept" or (origin is not None and origin.phase == product.phase and not origin.feeds)
            return few and rows < WARP_ROWS * warps
        if self.gpu.shared_memory.asynchronous and (origin := self._origin(side)) is not None and origin.group != product.group:
            return self._apart(origin, product, blocks, warps)
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

    def _origin(self, side: Side) -> Product | None:
        """The product whose result a computed operand lies as."""
        return next((self.lies[tensor] for tensor in sorted(side.tensors) if tensor in self.lies), None)

    def _apart(self, one: Product, other: Product, blocks: Mapping[str, int], warps: int) -> bool:
        """Do warps need values of one product's result that others have, where it lies as the rows of another product do?"""
        here = _among_warps(one, self.products, self.gpu, blocks, warps, one.unit(self.gpu, blocks, warps, self.exact))
        wanted = _among_warps(other, self.products, self.gpu, blocks, warps, other.unit(self.gpu, blocks, warps, self.exact))
        return bool(here) and here != {key: n for key, n in wanted.items() if key[0] == other.rows}

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
            return (WORD if scratch.left else self.bytes) * kept
        along = min(warps, math.prod(blocks[a] for a in scratch.reduced))
        product = scratch.product
        if product is not None:
            unit = product.unit(self.gpu, blocks, warps, self.exact)
            rows, columns = shares(product, self.products, self.gpu, blocks, warps, unit)
            if unit != "none":
                along = rows if product.rows in scratch.reduced else columns
                along = warps if unit == "tensor memory" and along > 1 else along  # each warp has a place for every row
        return 4 * kept * along if along > 1 else 0

    def _brought(self, meeting: Meeting, blocks: Mapping[str, int], warps: int) -> int:
        """Bytes through which a tile is brought to lie as another one beside it."""
        product, other = (None if n is None else self.products[n] for n in (meeting.product, meeting.other))
        size = WORD * math.prod(blocks[a] for a in meeting.axes)
        if product is None or other is None:
            return size
        unit = product.unit(self.gpu, blocks, warps, self.exact)
        if unit == "none" or (unit == "tensor memory" and product.rows != other.columns):
            return 0  # it lies as all of vector code, or is read from there as it is needed, where it is not turned
        if unit == "tensor memory":
            return size
        here, there = (
            _among_warps(one, self.products, self.gpu, blocks, warps, one.unit(self.gpu, blocks, warps, self.exact))
            for one in (product, other)
        )
        return 0 if here == there else size


def _among_warps(
    product: Product, together: Sequence[Product], gpu: Gpu, blocks: Mapping[str, int], warps: int, unit: Unit
) -> dict[tuple[str, int], int]:  # fmt: skip
    """Axes of a product's result along which warps have different parts, with how many coordinates one warp has in a row, and how
    many parts there are."""
    rows, columns = shares(product, together, gpu, blocks, warps, unit)
    parts = {
        (product.rows, WARP_ROWS): min(rows, -(-blocks[product.rows] // WARP_ROWS)),
        (product.columns, COLUMNS): min(columns, -(-blocks[product.columns] // COLUMNS)),
    }
    return {axis: count for axis, count in parts.items() if count > 1}


@dataclass(frozen=True)
class Scratch:
    """An exchange of one Einsum: of partial results of a reduction, or of a tile read in another layout than the products'."""

    phase: int
    kept: tuple[str, ...]
    reduced: tuple[str, ...] = ()
    product: Product | None = None
    """That the reduced tile comes from."""
    left: bool = False
    """A result for another kernel, in 32 bits."""


def _cut_by_masks(program: Program, loop: Loop) -> bool:
    """Is there code for steps that a mask cuts, whatever the sizes are?"""
    parent = program.cascade.rank(program.loop or "").part_of
    return any(parent is None or (one.exact and one.lines) for one in conditions(program, loop))


def _fetched(program: Program) -> dict[tuple[object, int], int]:
    """Each tile that a phase reads -> the number of the first product that is not done by then."""
    found: dict[tuple[object, int], int] = {}
    following = 0
    for number, phase in enumerate(program.phases):
        for einsum in body_of(phase):
            for access in accesses(einsum.body):
                found.setdefault(((access.tensor, access.indices), number), following)
            following += sum(contraction(program, reduce) is not None for reduce in sums(program, einsum))
    return found


def _reads(products: tuple[Product, ...]) -> list[tuple[list[int], Side]]:
    """Each tile that products read, with the numbers of the products that use it: a tile read at every step once per loop."""
    found: dict[object, tuple[list[int], Side]] = {}
    for number, product in enumerate(products):
        for side in product.sides:
            if side.is_read:
                key = (side.key, product.phase if side.source == "moving" else None)
                found.setdefault(key, ([], side))[0].append(number)
    return list(found.values())


def _scratches(program: Program, together: tuple[Product, ...], between: frozenset[str]) -> tuple[Scratch, ...]:
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
                    moved[Scratch(number, axes, left=access.tensor == einsum.output and access.tensor in between)] = order
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
