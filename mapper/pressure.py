"""Registers of a thread at the fullest point of a kernel.

In: a `Program`, a `Gpu`, then tile sizes and warps. Out: `Registers`: what must be held at once, and what a compiler takes if it
may. Alive are the running states, the intermediates still needed, the operands that units read from registers, and the addresses
of the tiles being fetched. A tile that comes from a matrix product is spread over the warps as its unit leaves it: a warp that
has fewer rows or columns than its instruction computes the others' again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..einsum.cascade import COMPARISONS, Access, Einsum, Expr, Map, Number, Reduce, Scan, accesses, walk
from .contraction import contraction
from .gpu import BYTES, Gpu
from .precision import Precision
from .products import Product, Unit, body_of, instruction_rows, lies_as, products, shares, streamed, sums
from .program import Loop, Program

BASE = 28
"""Registers of a thread for coordinates, counters and sizes: what compiled kernels had beside their tiles."""
VECTOR = 16
"""Bytes that a thread fetches at one address."""
SLICE = 16
"""Steps of a contraction whose operands a warp has at hand at least."""
COLUMNS = 8
"""Columns of the instruction of one warp."""
LANES_OF_A_ROW = 4
"""Lanes of a warp that share out the columns of a row of a result."""


SCATTERED = 6
"""Registers of a value that has an address of its own: that, the two parts it is made of, its condition, and the value."""


@dataclass(frozen=True)
class Registers:
    """Registers of 32 bits a thread."""

    least: int
    """Without which values are spilled."""
    likely: int
    """With whole operands at hand, as compilers have them while there is room."""


class _Stream(NamedTuple):
    """A tile that a step fetches."""

    tensor: str
    axes: tuple[str, ...]
    element: int
    """Bytes of a value."""
    scattered: bool
    """Does each value have an address of its own?"""


def _scattered(program: Program, access: Access) -> bool:
    """Do neighbours along the last dimension depend on several axes by more than sums and products, so that no two values are known
    to lie side by side?"""
    if not access.indices or len(program.axes_of(last := access.indices[-1])) < 2:
        return False
    parts = [node for node in walk(last) if isinstance(node, Access) or (isinstance(node, Map) and node.op in ("//", "%"))]
    return any(program.axes_of(part) for part in parts)


class Pressure:
    """The registers of one program on one GPU."""

    def __init__(self, program: Program, gpu: Gpu, precision: Precision, exact: bool) -> None:
        self.program, self.gpu, self.precision, self.exact = program, gpu, precision, exact
        self.bytes = precision.computed
        self.products = products(program, precision)
        self.by_output: dict[str, list[Product]] = {}
        for product in self.products:
            self.by_output.setdefault(product.output, []).append(product)
        self.made = lies_as(program, self.products)
        self.phases = [_Phase(program, number, self.by_output) for number in range(len(program.phases))]
        self.streams: dict[int, list[_Stream]] = {}
        """Of each phase, the tiles that its steps fetch."""
        for number, access in streamed(program):
            axes = tuple(a for a in program.axes if a in program.axes_of(access))
            here = _Stream(access.tensor, axes, precision.read(access.tensor), _scattered(program, access))
            self.streams.setdefault(number, []).append(here)

        self.narrow = any(product.narrow for product in self.products)
        self.known: tuple[object, _Loads] | None = None
        """Tiles and warps asked for last, and what they take with any number of stages."""

    def __call__(
        self, blocks: Mapping[str, int], warps: int, stages: int, described: frozenset[str] = frozenset()
    ) -> Registers:  # fmt: skip
        """`described`: tensors whose tiles come without addresses."""
        loads = self._loads(blocks, warps)
        least = likely = 0.0
        for number, (phase, (states, moments)) in enumerate(zip(self.phases, loads.phases, strict=True)):
            tiles = [one for one in self.streams.get(number, []) if len(one.axes) > 1 and one.tensor not in described]
            fetched = sum(self._fetched(one, blocks, warps) for one in tiles)
            always = fetched + states
            always += self._ahead(number, loads.units, blocks, warps, stages)
            for moment, load in zip(phase.moments, moments, strict=True):
                apart = self._apart(phase, moment, loads.units, blocks, warps, stages) if self.narrow else 0.0
                least = max(least, always + load.live + (load.sliced + apart) + load.made)
                likely = max(likely, always + load.live + (load.whole + apart) + load.made)
        return Registers(BASE + math.ceil(least), BASE + math.ceil(likely))

    def _loads(self, blocks: Mapping[str, int], warps: int) -> _Loads:
        """What is held with some tiles and warps, whatever the stages, and whichever tiles come without addresses."""
        key = (*blocks.items(), warps)
        if self.known is None or self.known[0] != key:
            self.known = key, self._found(blocks, warps)
        return self.known[1]

    def _found(self, blocks: Mapping[str, int], warps: int) -> _Loads:
        units = {id(one): one.unit(self.gpu, blocks, warps, self.exact) for one in self.products}
        tiles: dict[str, float] = {}

        def tile(tensor: str) -> float:
            if tensor not in tiles:
                tiles[tensor] = self._tile(tensor, blocks, warps, units)
            return tiles[tensor]

        def held(tensors: Iterable[str]) -> float:
            return sum([tile(tensor) for tensor in tensors])

        found = []
        for phase in self.phases:
            moments = []
            for moment in phase.moments:
                live = max(
                    held(moment.before),
                    held(moment.after),
                    held(moment.through)
                    + moment.temporaries * tile(moment.output)
                    + sum(self._beside(moment.output, axis, blocks, warps, units) for axis in moment.beside),
                    max((self._summed(axes, read, blocks, warps) for axes, read in moment.wide), default=0.0),
                )
                sliced, whole = 0.0, 0.0
                for product in moment.products:
                    a, b = self._operands(product, blocks, warps, units[id(product)])
                    sliced = max(sliced, a + b)
                    a, b = self._operands(product, blocks, warps, units[id(product)], whole=True)
                    whole = max(whole, a + b)
                made = sum(self._made(product, blocks, warps) for product in moment.products if units[id(product)] == "warp")
                moments.append(_Load(live, sliced, whole, made))
            found.append((held(phase.states), moments))
        return _Loads(units, found)

    def _fetched(self, tile: _Stream, blocks: Mapping[str, int], warps: int) -> float:
        """Registers of a thread to fetch a tile: its addresses, and the tile itself where it cannot be copied past registers."""
        values = math.prod(blocks[a] for a in tile.axes) / (warps * self.gpu.multiprocessors.warp)
        if tile.scattered:
            return SCATTERED * max(1.0, values)
        size = values * tile.element
        return 2 * max(1.0, size / VECTOR) + (0.0 if self.gpu.shared_memory.asynchronous else size / 4)

    def _ahead(self, phase: int, units: Mapping[int, Unit], blocks: Mapping[str, int], warps: int, stages: int) -> float:
        """Registers for the result of a product that is done one step ahead, out of tensor memory."""
        tiles = [
            blocks[one.rows] * blocks[one.columns] / (warps * self.gpu.multiprocessors.warp)
            for one in self.products
            if one.phase == phase and one.loop and units[id(one)] == "tensor memory" and one.feeds
        ]
        return max(tiles, default=0.0) if stages > 1 else 0.0

    def _tile(self, tensor: str, blocks: Mapping[str, int], warps: int, units: Mapping[int, Unit]) -> float:
        """Registers of a thread for one tensor's tile."""
        axes = [a for a in self.program.cascade.tensor(tensor).ranks if a in blocks]
        threads = warps * self.gpu.multiprocessors.warp
        size = math.prod(blocks[a] for a in axes)
        product = self.made.get(tensor)
        if product is None or units[id(product)] == "none":
            return size / threads
        unit = units[id(product)]
        over_rows, over_columns = shares(product, self.products, self.gpu, blocks, warps, unit)
        high = instruction_rows(product, self.gpu, blocks)
        if len(axes) == 1:
            return max(1.0, size / over_rows / (self.gpu.multiprocessors.warp // 4)) if axes[0] == product.rows else size / threads
        rows = max(blocks[axes[0]], high * over_rows) / blocks[axes[0]]
        columns = max(blocks[axes[-1]], COLUMNS * over_columns) / blocks[axes[-1]]
        return size * rows * columns / threads

    def _beside(self, tensor: str, axis: str, blocks: Mapping[str, int], warps: int, units: Mapping[int, Unit]) -> float:
        """Registers of a thread for a number for each coordinate of its tile along one axis, such as the row of a pixel."""
        product = self.made.get(tensor)
        if product is None or units[id(product)] == "none":
            return 0.0
        over_rows, over_columns = shares(product, self.products, self.gpu, blocks, warps, units[id(product)])
        if axis == product.columns:
            return max(blocks[axis] / over_columns, COLUMNS) / LANES_OF_A_ROW
        return max(1.0, blocks[axis] / over_rows / (self.gpu.multiprocessors.warp // LANES_OF_A_ROW))

    def _summed(self, axes: tuple[str, ...], read: int, blocks: Mapping[str, int], warps: int) -> float:
        """Registers of a thread for what is summed by vector code: 32 bits a value, and tiles of inputs with their addresses."""
        size = math.prod(blocks[a] for a in axes) / (warps * self.gpu.multiprocessors.warp)
        return size + read * size * (self.bytes / 4 + 2 * self.bytes / VECTOR)

    def _apart(
        self, phase: _Phase, moment: _Moment, units: Mapping[int, Unit], blocks: Mapping[str, int], warps: int, stages: int
    ) -> float:  # fmt: skip
        """Registers of a thread for what groups of warps need with operands of 8 bits: sums of one step apart from those of all
        steps, as their unit keeps fewer digits than float32; operands that are turned on their way to shared memory."""
        found = 0.0
        for product in moment.products:
            if not product.narrow or units[id(product)] != "warpgroup":
                continue
            if product.output in phase.added:
                found += blocks[product.rows] * blocks[product.columns] / (warps * self.gpu.multiprocessors.warp)
            for side in product.sides:
                if stages > 1 and product.turned(side, "warpgroup"):
                    size = math.prod(blocks[a] for a in side.axes) * BYTES[self.precision.dtype]
                    found += size / 4 / (warps * self.gpu.multiprocessors.warp)
        return found

    def _made(self, product: Product, blocks: Mapping[str, int], warps: int) -> float:
        """Registers of a thread for operands on their way from what they are computed from, 32 bits a value."""
        sides = [side for side in product.sides if side.source == "computed" and not side.from_product]
        return sum(math.prod(blocks[a] for a in side.axes) for side in sides) / (warps * self.gpu.multiprocessors.warp)

    def _operands(
        self, product: Product, blocks: Mapping[str, int], warps: int, unit: Unit, whole: bool = False
    ) -> tuple[float, float]:  # fmt: skip
        """Registers of a thread for the operands of a product: of a slice of it, or whole."""
        lanes = self.gpu.multiprocessors.warp
        over_rows, over_columns = shares(product, self.products, self.gpu, blocks, warps, unit)
        rows = max(blocks[product.rows], instruction_rows(product, self.gpu, blocks) * over_rows) / over_rows
        columns = max(blocks[product.columns], COLUMNS * over_columns) / over_columns
        k = blocks[product.k]
        words = (BYTES[self.precision.dtype] if product.narrow else self.bytes) / 4
        if unit in ("warpgroup", "tensor memory"):
            return (words * rows * k / lanes if not product.left.is_read and unit == "warpgroup" else 0.0), 0.0
        piece = k if whole else min(k, SLICE)
        left = words * rows * (k if not product.left.is_read else piece) / lanes
        return left, words * columns * piece / lanes


@dataclass(frozen=True)
class _Moment:
    """One Einsum of a phase: tensors alive before and after it, its products, tiles of sums done as vector code."""

    output: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    through: tuple[str, ...]
    """Alive before and after it."""
    temporaries: int
    """Tiles like its result that are alive at once while its expression is computed."""
    products: tuple[Product, ...]
    wide: tuple[tuple[tuple[str, ...], int], ...]
    """Axes of each, and how many tiles of inputs that have all of them."""
    beside: tuple[str, ...] = ()
    """Axes along which numbers are divided in a condition: each coordinate's own is at hand with the tile."""


class _Load(NamedTuple):
    """Registers of a thread at one moment: for what is alive, for slices of operands and whole ones, for operands on their way."""

    live: float
    sliced: float
    whole: float
    made: float


@dataclass(frozen=True)
class _Loads:
    """Registers of a thread with some tiles and warps."""

    units: Mapping[int, Unit]
    phases: Sequence[tuple[float, Sequence[_Load]]]
    """Of each phase, those of its states, and those at each moment."""


class _Phase:
    """Liveness within straight code or one step of a loop."""

    def __init__(self, program: Program, number: int, by_output: Mapping[str, list[Product]]) -> None:
        phase = program.phases[number]
        body = body_of(phase)
        cascade = program.cascade
        self.states = tuple(phase.states) if isinstance(phase, Loop) else ()
        last_use: dict[str, int] = {}
        for place, einsum in enumerate(body):
            for access in accesses(einsum.body):
                last_use[access.tensor] = place
        local = {e.output for e in body if e.output not in self.states}
        # a product that is only added to a state is summed in the state's own registers
        added = {
            a.tensor
            for e in body
            if e.output in self.states and isinstance(e.body, Map) and e.body.op == "+"
            for a in e.body.args
            if isinstance(a, Access) and cascade.tensor(a.tensor).kind == "einsum"
        }
        self.added = added
        """Products that are summed in the registers of a state."""
        defined = {e.output: n for n, e in enumerate(body)}
        moments = []
        for place, einsum in enumerate(body):
            before = {t for t in local if defined[t] < place <= last_use.get(t, -1)} - added
            after = ({t for t in local if defined[t] <= place < last_use.get(t, -1)} | ({einsum.output} & local)) - added
            moments.append(
                _Moment(
                    einsum.output, tuple(sorted(before)), tuple(sorted(after)), tuple(sorted(before & after)),
                    temporaries(program, einsum) if einsum.output in local else 0,
                    tuple(by_output.get(einsum.output, ())), _wide(program, einsum), _divided(program, einsum),
                )
            )  # fmt: skip
        self.moments = tuple(moments)


SCANNED = 3
"""Tiles that are alive at once while one is scanned: as it was, as lanes scan it by themselves, and with what comes before."""
COMPOUND = frozenset({"softplus", "sigmoid", "silu", "gelu", "erf", "tanh", "sin", "cos"})
"""Functions that are computed in several steps, their argument at hand."""


def temporaries(program: Program, einsum: Einsum) -> int:
    """Tiles that are alive at once while a map expression is computed operation by operation: for two operands that need as many,
    one more than either."""
    if any(isinstance(node, Reduce) for node in walk(einsum.body)):
        return 0
    axes = program.axes_of(einsum.body)

    def needs(expr: Expr) -> int:
        if program.axes_of(expr) < axes or not axes:
            return 0  # a row or a number beside a tile
        if isinstance(expr, Scan):
            return SCANNED
        if not isinstance(expr, Map):
            return 1
        if expr.op in COMPARISONS or expr.op in ("and", "or", "not"):
            return 0  # a predicate, tested where it is used
        parts = sorted((needs(arg) for arg in expr.args), reverse=True)
        most = max([part + place for place, part in enumerate(parts) if part], default=1)
        if expr.op == "**":
            exponent = expr.args[1]
            # a chain of squares, or base, logarithm and sign
            return max(most, 1 if exponent == Number(2) else 2 if isinstance(exponent, Number) else 3)
        return max(most, 2 if expr.op in COMPOUND else 1)

    return needs(einsum.body)


def _divided(program: Program, einsum: Einsum) -> tuple[str, ...]:
    """The axis of each quotient and remainder along one axis in the conditions of an Einsum whose tile has more."""
    found: dict[Expr, str] = {}
    for node in walk(einsum.body):
        if not (isinstance(node, Map) and node.op == "where"):
            continue
        for part in walk(node.args[0]):
            axes = program.axes_of(part)
            if isinstance(part, Map) and part.op in ("//", "%") and len(axes) == 1 and axes < program.axes_of(einsum.body):
                found[part] = next(iter(axes))
    return tuple(found.values())


def _wide(program: Program, einsum: Einsum) -> tuple[tuple[tuple[str, ...], int], ...]:
    found = []
    for reduce in sums(program, einsum):
        if contraction(program, reduce) is None:
            axes = program.axes_of(reduce.body) | (frozenset(reduce.ranks) & frozenset(program.axes))
            read = {
                a for a in accesses(reduce.body) if program.cascade.tensor(a.tensor).kind == "input" and program.axes_of(a) == axes
            }
            found.append((tuple(a for a in program.axes if a in axes), len(read)))
    return tuple(found)
