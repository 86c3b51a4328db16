"""GPU plans: how a cascade is tiled onto a GPU, and what that is predicted to cost.

In: a cascade whose reductions over the sequential rank run in one sweep (or a few), a `Gpu`, sizes. Out: a `Plan`: the role of
every rank, which tensors live in registers and which are staged in shared memory, and ranked candidates (tile sizes, warps,
stages) with predicted shared memory, registers and time. Candidates that exceed what a block may have are never offered.

Shared memory is what the operands of matrix products take: those read at every step once per stage, those read before the loop
once. For attention that is 2 bytes * D * (BM + 2*BN*stages). Registers are the tiles alive at the fullest point of a step. Time
is the slowest of matrix units, vector lanes, special functions and memory, plus what latency is not hidden; see
docs/design/kernels.md. None of it is measured here: the predictions rank candidates, and `einsmith emit` compares the first two
with the compiler.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Map, Reduce, Scalar, accesses, walk
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.sizes import Sizes, bind, evaluate_scalar
from .contraction import Contraction, contraction, simplified, wide_axes
from .gpu import BYTES, Gpu
from .loop_masks import HalfLine, conditions, first, last
from .program import Loop, Program, program

SPECIAL = frozenset(
    {"exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "softplus", "silu", "gelu", "erf", "sin", "cos", "/", "**"}
)
"""Operations that go through the special-function units."""
BASE_REGISTERS = 28
"""Registers of a thread for addresses, coordinates and counters: what two compiled attention kernels had beside their tiles."""
STEP_CYCLES = 500.0
"""Cycles of one step that overlap with nothing: barriers and the turn of the loop. A guess that ranks long tiles above short ones.
"""
SPARE_REGISTERS = 23
"""Registers a thread that a candidate leaves free: estimates closer to the limit than this spilled when compiled."""
LARGEST_TILE = 2**20
"""Elements of a tile that the compiler accepts."""
MATRIX_SIDE = 16
"""Shortest side of an operand of a matrix product."""


@dataclass(frozen=True)
class Operand:
    """An operand of a matrix product that waits in shared memory."""

    tensor: str
    axes: tuple[str, ...]
    every_step: bool
    """Read anew at each step, so that each stage has its own copy."""


@dataclass(frozen=True)
class Candidate:
    """One legal choice of tile sizes, warps and stages, with what it is predicted to take."""

    blocks: Mapping[str, int]
    """Coordinates of a tile along each axis."""
    warps: int
    stages: int
    shared_bytes: int
    registers: int
    """A thread."""
    blocks_per_multiprocessor: int
    predicted_s: float
    bound: str
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds that each resource alone would take."""

    def as_json(self) -> dict[str, Any]:
        return {
            "blocks": dict(self.blocks), "warps": self.warps, "stages": self.stages, "shared_bytes": self.shared_bytes,
            "registers": self.registers, "blocks_per_multiprocessor": self.blocks_per_multiprocessor,
            "predicted_s": self.predicted_s, "bound": self.bound, "parts_s": dict(self.parts),
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """The plan of one kernel, best candidate first."""

    program: Program
    gpu: Gpu
    dtype: str
    sizes: Sizes
    operands: tuple[Operand, ...]
    candidates: tuple[Candidate, ...]
    searched: int
    tile_fixed: bool
    """The extent of the inner tile is part of the cascade's meaning, so that it was not searched."""
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def cascade(self) -> Cascade:
        return self.program.source

    def roles(self) -> dict[str, list[str]]:
        p = self.program
        return {
            "grid": [r for r in p.grid if r not in p.tiled], "tiled": list(p.tiled), "loop": [p.loop] if p.loop else [],
            "step": [p.inner] if p.inner else [], "whole": list(p.whole),
        }  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The plan and all candidates. Block sizes stand beside the other numbers of a candidate, as `BLOCK_P` and so on."""
        return {
            "plan": {
                "cascade": self.cascade.name, "gpu": self.gpu.name, "target": self.gpu.target, "dtype": self.dtype,
                "sizes": {n: v for n, v in self.sizes.scalars.items() if n in self.cascade.symbols},
                "ranks": self.roles(), "in_registers": registers_hold(self.program), "staged": [o.tensor for o in self.operands],
                "loops": len(self.program.loops), **self.best.as_json(), "searched": self.searched, "notes": list(self.notes),
            },
            "candidates": [
                {**candidate.as_json(), **{f"BLOCK_{axis.upper()}": size for axis, size in candidate.blocks.items()}}
                for candidate in self.candidates
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        return _report(self)


def plan(
    cascade: Cascade,
    gpu: Gpu,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    dtype: str = "float16",
    allow_tf32: bool = False,
    keep: int = 10,
) -> Plan:
    """Plan a cascade for a GPU. Raises EinsmithError (E602 to E605) where there is no kernel for it or no tile fits."""
    if dtype not in BYTES:
        raise EinsmithError(Diagnostic("E606", f"no kernels for inputs of type `{dtype}`", help=f"one of {', '.join(BYTES)}"))
    bound = bind(cascade, sizes, params)
    arranged = program(cascade, bound.extents)
    try:
        return _Planner(arranged, gpu, dtype, allow_tf32).search(bound, dict(sizes or {}), keep)
    except EinsmithError:
        walked = program(cascade, bound.extents, small=0)
        if walked.loop == arranged.loop:
            raise  # nothing was held whole that could be walked
        return _Planner(walked, gpu, dtype, allow_tf32).search(bound, dict(sizes or {}), keep)


def registers_hold(program: Program) -> list[str]:
    """Tensors that a program instance keeps in registers: running states and the intermediates of a step."""
    return [e.output for phase in program.phases for e in (phase.body if isinstance(phase, Loop) else phase.einsums)]


def staged(program: Program) -> tuple[Operand, ...]:
    """Operands of matrix products that are read from memory, each once."""
    found: dict[tuple[object, ...], Operand] = {}
    for phase in program.phases:
        for einsum in phase.body if isinstance(phase, Loop) else phase.einsums:
            for reduce in _sums(program, einsum):
                split = contraction(program, reduce)
                if split is None:
                    continue
                for side in (split.left, split.right):
                    if len(side) == 1 and isinstance(side[0], Access) and program.cascade.tensor(side[0].tensor).kind == "input":
                        access = side[0]
                        axes = tuple(a for a in program.axes if a in program.axes_of(access))
                        moving = program.loop is not None and _mentions(access, program.loop)
                        found.setdefault(
                            (access.tensor, access.indices), Operand(access.tensor, axes, moving and isinstance(phase, Loop))
                        )
    return tuple(found.values())


def computed_right(program: Program) -> tuple[tuple[str, str], ...]:
    """Axes (k, j) of computed tiles that are the right operand of a matrix product: they pass through shared memory too."""
    return tuple((split.k, split.j) for split in products(program) if not _is_read(program, split.right))


def computed_left(program: Program) -> tuple[tuple[str, str], ...]:
    """Axes (i, k) of computed tiles that are the left operand."""
    return tuple((split.i, split.k) for split in products(program) if not _is_read(program, split.left))


def products(program: Program) -> tuple[Contraction, ...]:
    """All matrix products of a program."""
    return tuple(
        split
        for phase in program.phases
        for einsum in (phase.body if isinstance(phase, Loop) else phase.einsums)
        for reduce in _sums(program, einsum)
        if (split := contraction(program, reduce)) is not None
    )


def _is_read(program: Program, factors: tuple[Expr, ...]) -> bool:
    """Is an operand a tile of an input, as it is in memory?"""
    return len(factors) == 1 and isinstance(factors[0], Access) and program.cascade.tensor(factors[0].tensor).kind == "input"


def _sums(program: Program, einsum: Einsum) -> list[Reduce]:
    body: Expr = einsum.body
    if isinstance(body, Reduce):
        body = simplified(program, body)
    return [node for node in walk(body) if isinstance(node, Reduce)]


def _mentions(expr: Expr, rank: str) -> bool:
    return any(isinstance(node, Coord) and node.rank == rank for node in walk(expr))


class _Planner:
    """Searches the tiles of one program. All amounts per step or per program instance, in elements or operations."""

    def __init__(self, program: Program, gpu: Gpu, dtype: str, allow_tf32: bool) -> None:
        self.program, self.gpu, self.dtype = program, gpu, dtype
        self.bytes = BYTES[dtype]
        self.matrix_rate = gpu.matrix_rate(dtype, allow_tf32)
        self.operands = staged(program)
        self.right = computed_right(program)
        self.left = computed_left(program)
        self.dots = products(program)
        self.in_products = {axis for split in self.dots for axis in (split.i, split.j, split.k)}

    # --- the search ---

    def search(self, bound: Sizes, given: Mapping[str, int], keep: int) -> Plan:
        program = self.program
        extents = {rank.name: self._extent(rank.name, bound) for rank in program.cascade.ranks}
        tile_fixed = program.inner is not None and not (program.free_tile or tile_is_free(program))
        symbol = self._tile_symbol()
        if symbol is not None and symbol in given:
            tile_fixed = True
        found: list[Candidate] = []
        searched = 0
        smallest: tuple[int, str] | None = None
        for blocks, warps, stages in self._choices(extents, tile_fixed):
            searched += 1
            candidate = self._candidate(blocks, warps, stages, extents, bound)
            if isinstance(candidate, Candidate):
                found.append(candidate)
            elif smallest is None or candidate[0] < smallest[0]:
                smallest = candidate
        if not found:
            raise self._nothing_fits(smallest, extents)
        found.sort(key=lambda c: (c.predicted_s, c.shared_bytes, c.registers, c.warps))
        notes = []
        if tile_fixed:
            notes.append(f"the tile of `{program.inner}` is {extents[program.inner or '']}: it is part of the cascade or was given")
        repeated = [
            r
            for r in program.grid
            if any(isinstance(e.body, Reduce) and r not in program.cascade.tensor(e.output).ranks for e in program.cascade.einsums)
        ]
        if repeated:
            notes.append(
                "computed again for every coordinate along " + ", ".join(f"`{r}`" for r in repeated) + ": what does not carry it"
            )
        if len(program.loops) > 1:
            notes.append(f"{len(program.loops)} loops over `{program.loop}`: the cascade needs that many passes")
        return Plan(program, self.gpu, self.dtype, bound, self.operands, tuple(found[:keep]), searched, tile_fixed, tuple(notes))

    def _tile_symbol(self) -> str | None:
        if self.program.inner is None:
            return None
        extent = self.program.cascade.rank(self.program.inner).extent
        return extent.name if isinstance(extent, Scalar) else None

    def _extent(self, rank: str, bound: Sizes) -> int:
        if rank in bound.extents:
            return bound.extents[rank]
        scalars = {**dict(self.program.cascade.sizes), **bound.scalars}
        for name, expr in self.program.cascade.counts.items():
            scalars[name] = evaluate_scalar(expr, scalars)
        return int(evaluate_scalar(self.program.cascade.rank(rank).extent, scalars))

    def _choices(self, extents: Mapping[str, int], tile_fixed: bool) -> list[tuple[dict[str, int], int, int]]:
        program = self.program
        fixed = {axis: self._whole_block(axis, extents[axis]) for axis in program.whole}
        sides: dict[str, list[int]] = {}
        for axis in program.tiled:
            sides[axis] = self._sides(axis, extents[axis])
        if program.inner is not None:
            parent = program.cascade.rank(program.inner).part_of
            assert parent is not None
            sides[program.inner] = (
                [self._whole_block(program.inner, extents[program.inner])]
                if tile_fixed
                else self._sides(program.inner, extents[parent])
            )
        stages = [1, 2, 3, 4] if any(o.every_step for o in self.operands) else [1, 2]
        return [
            ({**dict(zip(sides, sizes, strict=True)), **fixed}, warps, stage)
            for sizes in itertools.product(*sides.values())
            for warps in (2, 4, 8)
            for stage in stages
            if warps > 2 or not self.dots
        ]

    def _sides(self, axis: str, extent: int) -> list[int]:
        """Tile sizes worth trying along an axis: powers of two, none more than twice what there is."""
        least = MATRIX_SIDE if axis in self.in_products else 1
        most = max(least, _power_of_two(extent))
        return [side for side in (1, 2, 4, 8, 16, 32, 64, 128, 256) if least <= side <= most] or [least]

    def _whole_block(self, axis: str, extent: int) -> int:
        return max(_power_of_two(extent), MATRIX_SIDE if axis in self.in_products else 1)

    def _nothing_fits(self, least: tuple[int, str] | None, extents: Mapping[str, int]) -> EinsmithError:
        whole = ", ".join(f"`{r}` = {extents[r]}" for r in self.program.whole)
        need = f": the smallest needs {least[1]}" if least else ""
        return EinsmithError(
            Diagnostic(
                "E605", f"no tile of `{self.program.source.name}` fits a block of {self.gpu.name}{need}",
                help=f"a tile holds these ranks whole: {whole}" if whole else "",
            )
        )  # fmt: skip

    # --- one candidate ---

    def _candidate(
        self, blocks: dict[str, int], warps: int, stages: int, extents: Mapping[str, int], bound: Sizes
    ) -> Candidate | tuple[int, str]:
        """The candidate with its predictions; what it would need where that is too much."""
        gpu = self.gpu
        if self._widest(blocks) > LARGEST_TILE:
            return self._widest(blocks), f"a tile of {self._widest(blocks):,} elements (at most {LARGEST_TILE:,})"
        shared = self.shared_bytes(blocks, stages, warps)
        if shared > gpu.shared_memory.per_block:
            return shared, f"{shared:,} bytes of shared memory (at most {gpu.shared_memory.per_block:,})"
        threads = warps * gpu.multiprocessors.warp
        registers = self.registers(blocks, threads)
        most = min(gpu.registers.per_thread, gpu.registers.per_multiprocessor // threads) - SPARE_REGISTERS
        if registers > most:
            return registers * threads, f"{registers} registers a thread (at most {most})"
        resident = min(
            gpu.multiprocessors.blocks,
            gpu.multiprocessors.threads // threads,
            gpu.registers.per_multiprocessor // (_round_up(registers, 8) * threads),
            gpu.shared_memory.per_multiprocessor // (shared + gpu.shared_memory.reserved_per_block) if shared else 10**9,
        )
        if resident < 1:
            return shared, f"{shared:,} bytes of shared memory"
        parts = self.times(blocks, warps, stages, resident, extents, bound)
        total = max(value for name, value in parts.items() if name != "latency") + parts["latency"]
        slowest = max(parts, key=lambda name: parts[name])
        return Candidate(blocks, warps, stages, shared, registers, resident, total, slowest, parts)

    def _widest(self, blocks: Mapping[str, int]) -> int:
        return max(
            (
                math.prod(
                    blocks[a]
                    for a in wide_axes(self.program, simplified(self.program, e.body) if isinstance(e.body, Reduce) else e.body)
                )
                for e in self.program.cascade.einsums
            ),
            default=1,
        )

    def shared_bytes(self, blocks: Mapping[str, int], stages: int, warps: int) -> int:
        """Bytes of shared memory that the operands of matrix products are staged in, and what exchanges between warps take."""
        if not self.dots:
            # reductions across warps exchange one value a row and warp
            return max((self._exchange(e, blocks, warps) for e in self.program.cascade.einsums), default=0)
        held = [self.bytes * math.prod(blocks[a] for a in o.axes) for o in self.operands if not o.every_step]
        moving = [self.bytes * math.prod(blocks[a] for a in o.axes) for o in self.operands if o.every_step]
        if self.matrix_rate is not None and self.gpu.matrix.reads_shared_memory:
            copies = stages * sum(moving)
        else:
            copies = (stages - 1) * sum(moving) if stages > 1 else max(moving, default=0)
        computed = sum(self.bytes * math.prod(blocks[a] for a in axes) for axes in self.right)
        if self.matrix_rate is None:  # computed left operands change hands between threads, one value of padding a row
            computed += max((self.bytes * blocks[i] * (blocks[k] + 1) for i, k in self.left), default=0)
        return sum(held) + copies + computed

    def _exchange(self, einsum: Einsum, blocks: Mapping[str, int], warps: int) -> int:
        if not isinstance(einsum.body, Reduce):
            return 0
        kept = self.program.axes_of(einsum.body)
        return 4 * warps * max(1, math.prod(blocks[a] for a in kept))

    # --- registers ---

    def registers(self, blocks: Mapping[str, int], threads: int) -> int:
        """Registers a thread at the fullest point: tiles alive there, 32 bits an element, spread over the threads."""
        fullest = 0.0
        for phase in self.program.phases:
            body = phase.body if isinstance(phase, Loop) else phase.einsums
            states = set(phase.states) if isinstance(phase, Loop) else set()
            fullest = max(fullest, self._alive(body, states, blocks))
        return BASE_REGISTERS + math.ceil(fullest / threads)

    def _tile(self, tensor: str, blocks: Mapping[str, int]) -> int:
        return math.prod(blocks[a] for a in self.program.cascade.tensor(tensor).ranks if a in blocks)

    def _alive(self, body: tuple[Einsum, ...], states: set[str], blocks: Mapping[str, int]) -> float:
        """Elements alive at the fullest Einsum of a sequence."""
        cascade = self.program.cascade
        last_use: dict[str, int] = {}
        for number, einsum in enumerate(body):
            for access in accesses(einsum.body):
                last_use[access.tensor] = number
        local = {e.output for e in body if e.output not in states}
        always = sum(self._tile(state, blocks) for state in states)
        # a product that is only added to a state is summed in the state's own registers
        added = {
            a.tensor
            for e in body
            if e.output in states and isinstance(e.body, Map) and e.body.op == "+"
            for a in e.body.args
            if isinstance(a, Access) and cascade.tensor(a.tensor).kind == "einsum"
        }
        fullest = 0.0
        defined = {e.output: n for n, e in enumerate(body)}
        for number, einsum in enumerate(body):
            before = {t for t in local if defined[t] < number <= last_use.get(t, -1)}
            after = {t for t in local if defined[t] <= number < last_use.get(t, -1)} | ({einsum.output} & local)
            live = max(
                sum(self._tile(t, blocks) for t in before - added), sum(self._tile(t, blocks) for t in after - added)
            )  # fmt: skip
            copies = 0.0
            for reduce in _sums(self.program, einsum):
                split = contraction(self.program, reduce)
                if split is None:
                    wide = math.prod(blocks[a] for a in self.program.axes_of(reduce.body))
                    live = max(live, wide)
                    continue
                for side, axis in ((split.left, split.i), (split.right, split.j)):
                    if not _is_read(self.program, side):
                        copies += self.bytes / 4 * blocks[split.k] * blocks[axis]
            fullest = max(fullest, live + copies)
        return always + fullest

    # --- time ---

    def times(
        self, blocks: Mapping[str, int], warps: int, stages: int, resident: int, extents: Mapping[str, int], bound: Sizes
    ) -> dict[str, float]:
        """Seconds that each resource alone would take, and the latency that nothing hides."""
        gpu, program = self.gpu, self.program
        instances = math.prod(extents[r] if r not in program.tiled else -(-extents[r] // blocks[r]) for r in program.grid)
        steps = {id(loop): self._steps(loop, blocks, extents, bound) for loop in program.loops}
        matrix = vector = special = traffic = 0.0
        longest_steps = 0.0
        for phase in program.phases:
            count = steps[id(phase)] if isinstance(phase, Loop) else 1.0
            longest_steps += count if isinstance(phase, Loop) else 0
            for einsum in phase.body if isinstance(phase, Loop) else phase.einsums:
                flops, lanes, functions = self._work(einsum, blocks)
                matrix, vector, special = matrix + count * flops, vector + count * lanes, special + count * functions
            loaded: set[tuple[object, ...]] = set()
            for einsum in phase.body if isinstance(phase, Loop) else phase.einsums:
                for access in accesses(einsum.body):
                    key = (access.tensor, access.indices)
                    if program.cascade.tensor(access.tensor).kind == "input" and key not in loaded:
                        loaded.add(key)
                        moving = program.loop is not None and _mentions(access, program.loop)
                        size = self.bytes * math.prod(blocks[a] for a in program.axes_of(access))
                        traffic += size * (count if moving else 1.0)
        for name in program.stores:
            traffic += self.bytes * self._tile(name, blocks) * (longest_steps if program.in_loop(name) else 1.0)
        units = gpu.multiprocessors.count
        rounds = math.ceil(instances / units)  # instances that the busiest multiprocessor runs
        share = rounds * units  # as if every multiprocessor were as busy
        clock = gpu.multiprocessors.clock_hz
        matrix_s = 0.0
        if self.matrix_rate is not None:
            matrix_s = matrix * share / self.matrix_rate
        else:
            vector += matrix / 2  # fused multiply-adds on the vector lanes
        vector_s = vector * share / gpu.vector_rate
        special_s = special * share / gpu.special_rate
        groups = resident * warps / 4
        if groups < 2:  # one group of warps at a time: matrix units and lanes take turns
            total = matrix_s + vector_s + special_s
            waiting = total - max(matrix_s, vector_s, special_s)
        else:
            waiting = 0.0
        compulsory = sum(self.bytes * math.prod(extents.get(r, 1) for r in t.ranks) for t in program.source.inputs)
        compulsory += sum(
            self.bytes * math.prod(extents.get(r, 1) for r in program.source.tensor(o).ranks) for o in program.source.outputs
        )
        memory_s = max(compulsory / gpu.memory.bandwidth, traffic * instances / gpu.cache.bandwidth)
        turns = math.ceil(rounds / resident)
        step_s = STEP_CYCLES / clock * longest_steps * rounds / max(1.0, min(resident, 2))
        exposed = gpu.memory.latency_s * (2 if program.loops else 1) * turns
        if stages < 2:
            exposed += gpu.cache.latency_s * longest_steps * turns
        return {
            "matrix units": matrix_s, "vector lanes": vector_s, "special functions": special_s, "memory": memory_s,
            "latency": exposed + step_s + waiting + gpu.launch.latency_s,
        }  # fmt: skip

    def _work(self, einsum: Einsum, blocks: Mapping[str, int]) -> tuple[float, float, float]:
        """(operations of matrix products, of vector lanes, of special functions) for one tile of an Einsum."""
        program = self.program
        body: Expr = simplified(program, einsum.body) if isinstance(einsum.body, Reduce) else einsum.body
        flops = lanes = functions = 0.0
        todo: list[Expr] = [body]
        while todo:
            node = todo.pop()
            if isinstance(node, Reduce):
                split = contraction(program, node)
                if split is not None:
                    i, j, k = blocks[split.i], blocks[split.j], blocks[split.k]
                    flops += 2.0 * i * j * k
                    lanes += float(i * j * len(split.outside))
                    for side, axis in ((split.left, i), (split.right, j)):
                        if not _is_read(program, side):
                            lanes += axis * k  # conversion to the type of the inputs
                            todo += side if len(side) > 1 else ()
                    continue
                axes = program.axes_of(node.body) | (frozenset(node.ranks) & frozenset(program.axes))
                lanes += math.prod(blocks[a] for a in axes)
                todo.append(node.body)
            elif isinstance(node, Map):
                size = float(math.prod(blocks[a] for a in program.axes_of(node)))
                if node.op == "where":
                    todo += node.args[1:]  # masks apply to few steps; see the loops of the kernel
                    continue
                if node.op in SPECIAL:
                    functions += size
                lanes += size
                todo += node.args
        return flops, lanes, functions

    def _steps(self, loop: Loop, blocks: Mapping[str, int], extents: Mapping[str, int], bound: Sizes) -> float:
        """Mean number of steps that run per program instance: those that no mask empties."""
        program = self.program
        assert program.loop is not None
        parent = program.cascade.rank(program.loop).part_of
        extent = extents[parent or program.loop]
        tile = blocks[program.inner] if program.inner is not None else 1
        all_steps = -(-extent // tile)
        lines = [line for c in conditions_of(program, loop) if c.skippable for line in c.lines]
        if not lines:
            return float(all_steps)
        if len(program.tiled) != 1:
            return float(all_steps)
        (rank,) = program.tiled
        count = -(-extents[rank] // blocks[rank])
        sampled = range(0, count, max(1, count // 32))
        total = 0
        for number in sampled:
            values = {
                **bound.scalars,
                first(rank).name: number * blocks[rank],
                last(rank).name: min((number + 1) * blocks[rank], extents[rank]) - 1,
            }
            total += _between(lines, values, extent, tile, all_steps)
        return total / len(sampled)


_CONDITIONS: dict[int, tuple[Loop, Any]] = {}


def conditions_of(program: Program, loop: Loop) -> Any:
    """Conditions of a loop, remembered while the same loop object lives."""
    known = _CONDITIONS.get(id(loop))
    if known is None or known[0] is not loop:
        if len(_CONDITIONS) > 64:
            _CONDITIONS.clear()
        known = (loop, conditions(program, loop))
        _CONDITIONS[id(loop)] = known
    return known[1]


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


def tile_is_free(program: Program) -> bool:
    """May the extent of the inner tile be changed without changing the function? Only if it stands nowhere but in m1*M0+m0, and
    the cascade gives the same outputs for several extents on random inputs."""
    cascade = program.source
    assert program.inner is not None
    extent = program.cascade.rank(program.inner).extent
    parent = program.cascade.rank(program.inner).part_of
    if not isinstance(extent, Scalar) or parent is None or extent.name not in cascade.symbols:
        return False
    others = [r.extent for r in cascade.ranks if r.name != parent and r.part_of != parent] + [e for _, e in cascade.params]
    if any(isinstance(n, Scalar) and n.name == extent.name for other in others for n in walk(other)):
        return False
    import numpy as np

    from ..einsum import interpret

    sizes = {name: 2 + i % 3 for i, name in enumerate(cascade.symbols)}
    whole = cascade.rank(parent).extent
    for node in walk(whole):
        if isinstance(node, Scalar) and node.name in sizes:
            sizes[node.name] = 7
    sizes[extent.name] = 2
    try:
        inputs = interpret.random_inputs(cascade, sizes, None, np.random.default_rng(0))
        first_outputs = interpret.evaluate(cascade, inputs, sizes)
        for tile in (3, 7):
            others_ = interpret.evaluate(cascade, inputs, {**sizes, extent.name: tile})
            if any(
                first_outputs[name].shape != others_[name].shape  # an output along a part of the rank
                or not np.allclose(first_outputs[name], others_[name], rtol=1e-9, atol=1e-12, equal_nan=True)
                for name in cascade.outputs
            ):
                return False
    except EinsmithError:
        return False
    return True


def shortest_side(program: Program, axis: str) -> int:
    """Shortest block along an axis: that of a matrix product if it takes part in one."""
    return MATRIX_SIDE if any(axis in (split.i, split.j, split.k) for split in products(program)) else 1


def _power_of_two(extent: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(extent - 1, 0).bit_length()


def _round_up(value: int, to: int) -> int:
    return -(-value // to) * to


# --- the report -------------------------------------------------------------------------------------------------------


def _report(plan: Plan) -> str:
    roles = plan.roles()
    extents = plan.sizes.extents

    def listed(names: list[str]) -> str:
        return ", ".join(f"{n} ({extents[n]})" if n in extents and n != plan.program.inner else n for n in names) or "none"

    lines = [
        f"plan of {plan.cascade.name} for {plan.gpu.name} ({plan.gpu.target}), {plan.dtype} inputs, float32 accumulation",
        f"  program instances over   {listed(roles['grid'])}",
        f"  tiles of                 {listed(roles['tiled'])}",
        f"  sequential               {listed(roles['loop'])}"
        + (f", a tile of {roles['step'][0]} at a time" if roles["step"] else ""),
        f"  whole in a tile          {listed(roles['whole'])}",
        f"  in registers             {', '.join(registers_hold(plan.program))}",
        "  staged in shared memory  "
        + (
            ", ".join(f"{o.tensor}[{','.join(o.axes)}]" + (" x stages" if o.every_step else "") for o in plan.operands) or "nothing"
        ),
    ]
    lines += [f"  note: {note}" for note in plan.notes]
    names = [r for r in (*plan.program.tiled, plan.program.inner) if r is not None]
    header = [*(f"BLOCK_{n.upper()}" for n in names), "warps", "stages", "shared", "regs", "resident", "predicted", "bound"]
    rows = [
        [
            *(str(c.blocks[n]) for n in names), str(c.warps), str(c.stages), f"{c.shared_bytes:,} B", str(c.registers),
            str(c.blocks_per_multiprocessor), tile_time(c.predicted_s), c.bound,
        ]
        for c in plan.candidates
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines += ["", *("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *rows])]
    lines += ["", f"  {plan.searched} choices searched; predictions by formula, nothing here was measured"]
    return "\n".join(lines)


def tile_time(seconds: float) -> str:
    """Seconds as a person reads them."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
