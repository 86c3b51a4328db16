"""Time of a kernel on a GPU: what each resource alone would take, and the latency that nothing hides.

In: a `Program`, a `Gpu`, sizes; then tile sizes, warps, stages and how many blocks are resident. Out: seconds of the matrix
units, the vector lanes, the special functions, the memory, and of latency. Nothing of it is measured: it ranks candidates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..einsum.cascade import Access, Cascade, Einsum, Expr, Map, Number, Reduce, Scan, Select, accesses, substitute
from ..einsum.sizes import Sizes, evaluate_scalar
from .contraction import contraction, simplified
from .gpu import Gpu
from .loop_masks import Bounds, HalfLine, conditions, first, last
from .precision import Precision
from .products import body_of, is_read, sums
from .program import Loop, Program, position
from .traffic import Order, Traffics

FUNCTIONS: dict[str, tuple[int, int]] = {
    "exp": (1, 1), "exp2": (1, 1), "sqrt": (1, 1), "rsqrt": (1, 1), "/": (1, 1), "log": (0, 26), "log2": (0, 28), "sin": (0, 25),
    "cos": (0, 25), "erf": (1, 28), "gelu": (1, 32), "tanh": (2, 20), "sigmoid": (2, 10), "silu": (2, 10), "softplus": (2, 44),
    "**": (1, 46),
}  # fmt: skip
"""Instructions of the special-function units and of the vector lanes that an operation takes for each value, as compiled for sm_90
(`benchmarks/operations.py`). Of sin and cos without the way for arguments beyond 1e5; of exp without its factor: scales have it. A
quotient takes up to 13 of the lanes and is counted with one: most divisors are those of whole rows, once at the end."""
SPECIAL = frozenset(FUNCTIONS)
"""Operations that are worth doing once."""
STEP_CYCLES = 500.0
"""Cycles of one step that overlap with nothing: barriers and the turn of the loop. A guess that ranks long tiles above short ones.
"""
SHORT_CHAIN = 3
"""Products of a step of which each needs the one before it that the cycles of a step pay for."""
LINK_CYCLES = 150.0
"""Cycles that each further product of a chain waits for the one before it: its result on its way to the operand of another, through
shared memory and a barrier. A guess like that of a step."""
SAMPLES = 32
"""Tiles of which the steps are counted where a mask makes them differ."""

Axes = tuple[str, ...]


@dataclass(frozen=True)
class _Work:
    """What one Einsum does for one tile, as sums of products of block sizes."""

    flops: tuple[Axes, ...]
    """Axes of each matrix product; a multiply-add is two operations."""
    narrow: tuple[Axes, ...]
    """The same of products whose operands are of a type that is only read."""
    lanes: tuple[tuple[Axes, int], ...]
    """Axes, and instructions for each value along them."""
    functions: tuple[tuple[Axes, int], ...]


@dataclass(frozen=True)
class Steps:
    """Steps of a loop that program instances run: those that no mask empties."""

    mean: float
    """Over all program instances."""
    most: float
    """Of the one with most."""
    rising: bool = False
    """Do later tiles have more of them?"""


@dataclass(frozen=True)
class _Tiles:
    """What depends on the sizes of tiles alone."""

    instances: int
    rounds: int
    """Instances that the busiest multiprocessor runs."""
    steps: list[tuple[float, float]]
    """Of each phase, the mean over all instances and the most; 1 where it is no loop."""
    busiest: tuple[float, float, float, float, float]
    """Operations of matrix units, vector lanes and special functions of the busiest multiprocessor, steps of its loops, and cycles
    in which it waits."""
    through_cache: float
    """Bytes."""
    heavy_first: frozenset[str]
    """Tiled ranks along which later tiles have more steps."""
    moved: dict[int, tuple[float, Order]] = field(default_factory=dict)
    """Resident blocks of a multiprocessor -> bytes from memory, and the order of launches for which they are fewest."""


class Timing:
    """Times of one program on one GPU for given sizes."""

    def __init__(
        self, program: Program, gpu: Gpu, precision: Precision, matrix_rate: float | None, extents: Mapping[str, int], bound: Sizes
    ) -> None:  # fmt: skip
        self.program, self.gpu, self.matrix_rate = program, gpu, matrix_rate
        self.extents, self.bound = extents, bound
        self.work = [[_work(program, einsum, precision) for einsum in body_of(phase)] for phase in program.phases]
        self.chains = [_chain(program, body_of(phase)) for phase in program.phases]
        self.traffic = Traffics(program, gpu, precision, extents)
        self.narrow_share = precision.narrow_share(gpu)
        self.lines = {
            number: [self._typical(line) for c in conditions(program, phase) if c.skippable for line in c.lines]
            for number, phase in enumerate(program.phases)
            if isinstance(phase, Loop)
        }
        self._counted: dict[tuple[int, ...], Steps] = {}
        self.known: dict[tuple[tuple[str, int], ...], _Tiles] = {}
        """Tiles that were asked for -> what is known of them."""
        chosen = _gathered(program.source)
        self.compulsory = sum(
            self.traffic.element(program.source, t.name) * math.prod(extents.get(r, 1) for r in t.ranks)
            for t in (*program.source.inputs, *(program.source.tensor(o) for o in program.source.outputs))
            if t.name not in chosen
        )

    def _typical(self, line: HalfLine) -> HalfLine:
        """A bound of a program instance in the middle of the ranks along which each has one coordinate."""
        middle: dict[str, Expr] = {r: Number(self.extents[r] // 2) for r in self.program.grid if r not in self.program.tiled}
        return replace(line, bound=Bounds(substitute(line.bound.low, middle), substitute(line.bound.high, middle)))

    def instances(self, blocks: Mapping[str, int]) -> int:
        """Program instances."""
        program = self.program
        return math.prod(self.extents[r] if r not in program.tiled else -(-self.extents[r] // blocks[r]) for r in program.grid)

    def __call__(
        self, blocks: Mapping[str, int], warps: int, stages: int, resident: int, ahead: bool = False
    ) -> tuple[dict[str, float], Order]:  # fmt: skip
        """Seconds of each resource, and the order of launches for which they hold. `ahead`: what a tile reads is fetched while
        the one before it is computed."""
        here = self._here(blocks)
        if resident not in here.moved:
            moved = self.traffic(blocks, here.steps, self.gpu.multiprocessors.count * resident)
            here.moved[resident] = moved.from_memory, replace(moved.order, heavy_first=here.heavy_first)
        from_memory, order = here.moved[resident]
        return self._parts(here, warps, stages, resident, ahead, from_memory), order

    def least(self, blocks: Mapping[str, int], warps: int) -> float:
        """Seconds below which no number of stages and of resident blocks takes these tiles: with as many blocks as there may be,
        and all that is read coming from memory once."""
        units = self.gpu.multiprocessors
        resident = max(1, min(units.blocks, units.threads // (warps * units.warp)))
        return total(self._parts(self._here(blocks), warps, 2, resident, not self.program.loops, 0.0))

    def _parts(
        self, here: _Tiles, warps: int, stages: int, resident: int, ahead: bool, from_memory: float
    ) -> dict[str, float]:  # fmt: skip
        """Seconds of each resource. More resident blocks, and fewer bytes from memory, never take longer."""
        gpu, program = self.gpu, self.program
        units = gpu.multiprocessors.count
        matrix, vector, special, longest, waits = here.busiest
        matrix_s = 0.0
        if self.matrix_rate is not None:
            matrix_s = matrix * units / self.matrix_rate
        else:
            vector += matrix / 2  # fused multiply-adds on the vector lanes
        vector_s = vector * units / gpu.vector_rate
        special_s = special * units / gpu.special_rate
        waiting = 0.0
        if resident * warps / 4 < 2:  # one group of warps at a time: matrix units and lanes take turns
            waiting = matrix_s + vector_s + special_s - max(matrix_s, vector_s, special_s)
        busy = min(1.0, here.instances / units)  # multiprocessors that ask for anything at all
        from_memory = max(float(self.compulsory), from_memory)
        memory_s = max(from_memory / (gpu.memory.bandwidth * busy), here.through_cache / (gpu.cache.bandwidth * busy))
        turns = math.ceil(here.rounds / resident)
        step_s = waits / gpu.multiprocessors.clock_hz / max(1.0, min(resident, 2))
        exposed = gpu.memory.latency_s * (2 if program.loops else 1) * (1 if ahead else turns)
        if stages < 2:
            exposed += gpu.cache.latency_s * longest / min(here.rounds, resident)
        return {
            "matrix units": matrix_s, "vector lanes": vector_s, "special functions": special_s, "memory": memory_s,
            "latency": exposed + step_s + waiting + gpu.launch.latency_s,
        }  # fmt: skip

    def _here(self, blocks: Mapping[str, int]) -> _Tiles:
        """What depends on tiles alone."""
        key = tuple(blocks.items())
        if key not in self.known:
            program, instances = self.program, max(1, self.instances(blocks))  # nothing to do takes its launch
            rounds = math.ceil(instances / self.gpu.multiprocessors.count)
            counts = [self.steps(n, blocks) if isinstance(p, Loop) else Steps(1.0, 1.0) for n, p in enumerate(program.phases)]
            rising = frozenset(program.tiled) if any(count.rising for count in counts) else frozenset[str]()
            steps = [(count.mean, count.most) for count in counts]
            self.known[key] = _Tiles(
                instances, rounds, steps, self._busiest(blocks, rounds, counts), self.traffic.through_cache(blocks, steps), rising
            )
        return self.known[key]

    def _busiest(self, blocks: Mapping[str, int], rounds: int, counts: Sequence[Steps]) -> tuple[float, float, float, float, float]:
        """Operations of matrix units, vector lanes and special functions of the busiest multiprocessor, steps of its loops, and
        cycles in which it waits for a step or for a product that the next one needs."""
        matrix = vector = special = longest = waits = 0.0
        for count, phase, einsums, chain in zip(counts, self.program.phases, self.work, self.chains, strict=True):
            times = max(rounds * count.mean, count.most)
            longest += times if isinstance(phase, Loop) else 0.0
            waits += times * (STEP_CYCLES * isinstance(phase, Loop) + LINK_CYCLES * max(0, chain - SHORT_CHAIN))
            for work in einsums:
                matrix += 2.0 * times * sum(math.prod(blocks[a] for a in axes) for axes in work.flops)
                matrix += 2.0 * times * self.narrow_share * sum(math.prod(blocks[a] for a in axes) for axes in work.narrow)
                vector += times * sum(count * math.prod(blocks[a] for a in axes) for axes, count in work.lanes)
                special += times * sum(count * math.prod(blocks[a] for a in axes) for axes, count in work.functions)
        return matrix, vector, special, longest, waits

    def steps(self, number: int, blocks: Mapping[str, int]) -> Steps:
        """Steps of a loop."""
        program = self.program
        key = (number, *(blocks[a] for a in (*program.tiled, *((program.inner,) if program.inner else ()))))
        if key not in self._counted:
            self._counted[key] = self._steps(number, blocks)
        return self._counted[key]

    def _steps(self, number: int, blocks: Mapping[str, int]) -> Steps:
        program, lines = self.program, self.lines[number]
        assert program.loop is not None
        parent = program.cascade.rank(program.loop).part_of
        extent = self.extents[parent or program.loop]
        tile = blocks[program.inner] if program.inner is not None else 1
        all_steps = -(-extent // tile)
        if not lines or len(program.tiled) != 1:
            return Steps(all_steps, all_steps)
        (rank,) = program.tiled
        count = -(-self.extents[rank] // blocks[rank])
        if count == 0:
            return Steps(0.0, 0.0)  # no tile
        found = []
        for place in (*range(0, count, max(1, count // SAMPLES)), count - 1):
            values = {
                **self.bound.scalars,
                first(rank).name: place * blocks[rank],
                last(rank).name: min((place + 1) * blocks[rank], self.extents[rank]) - 1,
            }
            found.append(_between(lines, values, extent, tile, all_steps))
        return Steps(sum(found[:-1]) / len(found[:-1]), max(found), rising=found[-1] > found[0])


def total(parts: Mapping[str, float]) -> float:
    """Seconds in all: of the slowest resource, and the latency that nothing hides."""
    return max(value for name, value in parts.items() if name != "latency") + parts["latency"]


def _gathered(cascade: Cascade) -> frozenset[str]:
    """Tensors of which elements are chosen wherever they are read: how much of them is read is no matter of their size."""
    chosen: dict[str, bool] = {}
    for einsum in cascade.einsums:
        for access in accesses(einsum.body):
            here = any(True for index in access.indices for _ in accesses(index))
            chosen[access.tensor] = here and chosen.get(access.tensor, True)
    return frozenset(name for name, always in chosen.items() if always)


def _work(program: Program, einsum: Einsum, precision: Precision) -> _Work:
    """Operations of matrix products, of vector lanes and of special functions of an Einsum."""
    body: Expr = simplified(program, einsum.body) if isinstance(einsum.body, Reduce) else einsum.body
    flops: list[Axes] = []
    narrow: list[Axes] = []
    lanes: Counter[Axes] = Counter()
    functions: Counter[Axes] = Counter()
    todo: list[Expr] = [body]
    while todo:
        node = todo.pop()
        if isinstance(node, Reduce):
            split = contraction(program, node)
            if split is not None:
                sides = ((split.left, split.i), (split.right, split.j))
                small = [
                    is_read(program, side) and all(precision.is_narrow(a.tensor) for a in accesses(side[0])) for side, _ in sides
                ]
                (narrow if all(small) else flops).append((split.i, split.j, split.k))
                lanes[(split.i, split.j)] += len(split.outside)
                for (side, axis), raised in zip(sides, small, strict=True):
                    if not is_read(program, side) or (raised and not all(small)):
                        lanes[(axis, split.k)] += 1  # conversion to the type of operands
                        todo += side if len(side) > 1 else ()
                continue
            lanes[_in_order(program, program.axes_of(node.body) | (frozenset(node.ranks) & frozenset(program.axes)))] += 1
            todo.append(node.body)
        elif isinstance(node, Scan | Select):
            along = program.axes_of(node.body) | (frozenset({node.rank}) & frozenset(program.axes))
            # a selection looks at what is left once for each place it fills: the best, where it stands, what is left then
            lanes[_in_order(program, along if isinstance(node, Scan) else along | {node.fills})] += (
                1 if isinstance(node, Scan) else 3
            )
            todo.append(node.body)
        elif isinstance(node, Map):
            axes = _in_order(program, program.axes_of(node))
            if node.op == "where":
                todo += node.args[1:]  # masks apply to few steps; see the loops of the kernel
                continue
            special, vector = _instructions(node)
            functions[axes] += special
            lanes[axes] += vector
            todo += node.args
    return _Work(tuple(flops), tuple(narrow), tuple(lanes.items()), tuple((+functions).items()))


def _instructions(node: Map) -> tuple[int, int]:
    """Of the special-function units and of the vector lanes, for each value."""
    if node.op == "**" and isinstance(node.args[1], Number) and isinstance(node.args[1].value, int) and node.args[1].value > 0:
        return 0, node.args[1].value.bit_length()  # multiplications
    return FUNCTIONS.get(node.op, (0, 1))


def _in_order(program: Program, axes: Collection[str]) -> Axes:
    return tuple(axis for axis in program.axes if axis in axes)


def _chain(program: Program, body: Sequence[Einsum]) -> int:
    """Products of straight code, or of a step, of which each needs the one before it: the most there are in a row."""
    depth: dict[str, int] = {}

    def fresh(access: Access) -> bool:
        tensor = program.cascade.tensor(access.tensor)
        place = tensor.ranks.index(tensor.iterates) if tensor.iterates is not None else None
        return place is None or position(program.cascade, tensor.name, access.indices[place]) == "next"

    for einsum in body:
        before = max((depth.get(a.tensor, 0) for a in accesses(einsum.body) if fresh(a)), default=0)
        made = any(contraction(program, reduce) is not None for reduce in sums(program, einsum))
        depth[einsum.output] = before + made
    return max(depth.values(), default=0)


def _between(lines: list[HalfLine], values: Mapping[str, int | float], extent: int, tile: int, all_steps: int) -> int:
    """Steps between the bounds of the masks; all of them where a bound needs data."""
    low, high = 0, extent - 1
    for line in lines:
        try:
            value = int(evaluate_scalar(line.bound.high if line.upper else line.bound.low, values))
        except (KeyError, ValueError, ArithmeticError):
            continue
        if line.upper:
            high = min(high, value)
        else:
            low = max(low, value)
    return min(all_steps, max(0, high // tile - low // tile + 1)) if high >= low else 0
