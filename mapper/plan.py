"""GPU plans: how a cascade is tiled onto a GPU, and what that is predicted to cost.

In: a cascade whose reductions over the sequential rank run in one sweep (or a few), a `Gpu`, sizes. Out: a `Plan`: the role of
every rank, which tensors live in registers and which are staged in shared memory, and ranked candidates (tile sizes, warps,
stages) with predicted shared memory (`staging`), registers (`pressure`) and time (`gpu_time`). Candidates that exceed what a block
may have are never offered.

None of it is measured here: the predictions rank candidates, and `einsmith emit` compares the first two with the compiler.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from ..einsum.cascade import Cascade, Map, Reduce, Scalar, free_ranks, walk
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.display import Displayed
from ..einsum.printer import print_expr
from ..einsum.sizes import Sizes, bind, evaluate_scalar
from .contraction import simplified, wide_axes
from .descriptors import Choice, Descriptors
from .gpu import BYTES, Gpu
from .gpu_time import Timing, total
from .one_pass import one_pass
from .persistence import COUNTERS, Persistence, Walk
from .plan_report import report
from .plan_report import tile_time as tile_time
from .precision import WIDER, Precision
from .pressure import Pressure, Registers
from .products import Operand, body_of, contractions, staged
from .products import products as matrix_products
from .products import shortest_side as shortest_side
from .program import Loop, Program, arrangements, program
from .staging import Staging
from .traffic import Order

products = contractions
_Choice: TypeAlias = tuple[dict[str, int], int, int]
"""Tiles, warps, stages."""
SPARE_REGISTERS = 26
"""Registers a thread that a candidate leaves free where units read shared memory: what came closer to the limit spilled."""
ROOM = 16
"""Registers a thread by which whole operands of single warps may exceed the limit: compilers load what is missing in slices."""
EXACT_SPARE = 46
"""The same where products are done by the vector lanes, which have whole operands at hand."""
WORTH_IT = 0.9
"""Share of the predicted time that another arrangement of the ranks may take to be preferred: predictions are no better."""
LATENCY_ROOM = 1.6
"""Where latency is all that is predicted, sizes are too small to tell kernels apart: times within this factor count as equal."""
MOST_EXCESS = 64
"""Registers a thread by which whole operands of a candidate that is worth a try may exceed the limit."""
MOST_BOLD = 2
"""Candidates that may spill a few values and are offered first, being worth it; a compiler finds room for about half of them."""
ROUNDED = 1 - 1e-9
"""By which a bound may be above a time that it is the bound of, as both are rounded."""
LARGEST_TILE = 2**20
"""Elements of a tile that the compiler accepts."""
LARGEST_GRID = 2**31 - 1
"""Program instances of one launch, which are counted along x (CUDA C++ Programming Guide, technical specifications)."""


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
    excess: int = 0
    """Registers a thread by which whole operands exceed what there is."""
    staged_bytes: int = 0
    """Of the shared memory, operands of matrix products in use at one time."""
    tensor_memory_columns: int = 0
    order: Order | None = None
    """Of launches, for the least traffic with memory."""
    described: tuple[str, ...] = ()
    """Tensors whose tiles come by tensor descriptors."""
    walk: Walk | None = None
    """How program instances walk tiles; None if each has one."""

    @property
    def tight(self) -> bool:
        """May a compiler spill some? Few such are offered, unless nothing else fits."""
        return self.excess > ROOM

    @property
    def manner(self) -> str:
        """How a kernel goes about its tiles, in words."""
        parts = [f"{self.warps} warps, {self.stages} stages"]
        if self.described:
            parts.append(f"{', '.join(self.described)} by tensor descriptors")
        if self.walk is not None:
            parts.append(f"at most {self.walk.programs} programs, each for several tiles")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        return {
            "blocks": dict(self.blocks), "warps": self.warps, "stages": self.stages, "shared_bytes": self.shared_bytes,
            "staged_bytes": self.staged_bytes, "tensor_memory_columns": self.tensor_memory_columns, "registers": self.registers,
            "blocks_per_multiprocessor": self.blocks_per_multiprocessor, "predicted_s": self.predicted_s, "bound": self.bound,
            "parts_s": dict(self.parts), "order": self.order.as_json() if self.order else None,
            "descriptors": list(self.described), "persistent": self.walk.as_json() if self.walk else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Merit:
    """What plans are compared by."""

    predicted_s: float
    work_s: float
    """Of the busiest resource, latency apart, if the GPU were full."""
    products: int
    """Sums that are matrix products."""
    latency_bound: bool


def better(one: Merit, other: Merit) -> bool:
    """Is a plan to be preferred to another? The faster one, by a tenth. Where both wait for nothing but latency the one with more
    matrix products, then the one with less work: a kernel also runs at other sizes than those it was planned for."""
    if one.latency_bound and other.latency_bound:
        ratio = one.predicted_s / other.predicted_s
        if one.products != other.products:
            return ratio < LATENCY_ROOM if one.products > other.products else ratio < 1 / LATENCY_ROOM
        if WORTH_IT < ratio < 1 / WORTH_IT:
            return one.work_s < WORTH_IT * other.work_s
    return one.predicted_s < WORTH_IT * other.predicted_s


@dataclass(frozen=True)
class Plan(Displayed):
    """The plan of one kernel, best candidate first."""

    program: Program
    gpu: Gpu
    precision: Precision
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

    @cached_property
    def merit(self) -> Merit:
        best = self.best
        work = max((value for name, value in best.parts.items() if name != "latency"), default=0.0)
        busy = min(1.0, instances(self.program, best.blocks, self.extent) / self.gpu.multiprocessors.count)
        return Merit(best.predicted_s, work * busy, len(contractions(self.program)), best.bound == "latency")

    def extent(self, rank: str) -> int:
        """Of any rank of the program, those that the plan brought in among them."""
        return extent_of(self.program, rank, self.sizes)

    @property
    def dtype(self) -> str:
        """Of the inputs."""
        return self.precision.dtype

    def roles(self) -> dict[str, list[str]]:
        p = self.program
        return {
            "grid": [r for r in p.grid if r not in p.tiled], "tiled": list(p.tiled), "loop": [p.loop] if p.loop else [],
            "step": [p.inner] if p.inner else [], "whole": list(p.whole),
        }  # fmt: skip

    def in_registers(self) -> list[str]:
        """Tensors that a program instance keeps in registers: running states and the intermediates of a step."""
        return [e.output for phase in self.program.phases for e in body_of(phase)]

    def as_json(self) -> dict[str, Any]:
        """The plan and all candidates. Block sizes stand beside the other numbers of a candidate, as `BLOCK_P` and so on."""
        return {
            "plan": {
                "cascade": self.cascade.name, "gpu": self.gpu.name, "target": self.gpu.target, "dtype": self.dtype,
                "sizes": {n: v for n, v in self.sizes.scalars.items() if n in self.cascade.symbols},
                "ranks": self.roles(), "in_registers": self.in_registers(), "staged": [o.tensor for o in self.operands],
                "loops": len(self.program.loops), **self.best.as_json(), "searched": self.searched, "notes": list(self.notes),
            },
            "candidates": [
                {**candidate.as_json(), **{f"BLOCK_{axis.upper()}": size for axis, size in candidate.blocks.items()}}
                for candidate in self.candidates
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        return report(self)


def plan(
    cascade: Cascade,
    gpu: Gpu,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    dtype: str = "float16",
    allow_tf32: bool = False,
    keep: int = 10,
    tiles: Collection[str] = (),
    between: Collection[str] = (),
    descriptors: Choice = "auto",
    persistent: Choice = "auto",
) -> Plan:
    """Plan a cascade for a GPU. `tiles`: sizes known not to change the function, as a derivation brought them in; of others that is
    found out by trying. `between`: inputs that another kernel leaves, and outputs for another one. Raises EinsmithError (E602 to
    E606) where there is no kernel for it or no tile fits."""
    if dtype not in BYTES:
        raise EinsmithError(Diagnostic("E606", f"no kernels for inputs of type `{dtype}`", help=f"one of {', '.join(BYTES)}"))
    precision = Precision(dtype, frozenset(between))
    if dtype in WIDER and gpu.matrix_rate(dtype) is None:
        what = f"the matrix units of {gpu.name} do not take operands of type `{dtype}`"
        raise EinsmithError(Diagnostic("E606", what, help=f"convert the inputs to {WIDER[dtype]}, which holds all their values"))
    bound = bind(cascade, sizes, params)
    given = dict(sizes or {})
    first = program(cascade, bound.extents)
    fixed = first.inner is not None and not (first.free_tile or tile_symbol(first) in tiles or tile_is_free(first))

    def searched(arranged: Program, within: float = math.inf) -> Plan | None:
        return _Planner(arranged, gpu, precision, allow_tf32, descriptors, persistent).search(bound, given, keep, fixed, within)

    best, refusal = None, None
    for arranged in _worth_trying(cascade, bound.extents, first):
        try:  # what takes so much longer is never `better`
            found = searched(arranged, LATENCY_ROOM * best.best.predicted_s if best else math.inf)
        except EinsmithError as error:
            refusal = refusal or error
            continue
        if best is None or (found is not None and better(found.merit, best.merit)):
            best = found
    if best is not None:
        return best
    walked = program(cascade, bound.extents, small=0)
    if walked.loop == first.loop and refusal is not None:
        raise refusal  # nothing was held whole that could be walked
    form = one_pass(cascade, sizes, params, small=0)
    if form.tiles:  # sweeps over what is held whole cost nothing; now that it is walked, they do
        once = plan(
            form.cascade, gpu, sizes, params, dtype=dtype, allow_tf32=allow_tf32, keep=keep, tiles=form.tiles, between=between,
            descriptors=descriptors, persistent=persistent,
        )  # fmt: skip
        return replace(once, notes=(form.note, *once.notes))
    only = searched(walked)
    assert only is not None
    return only


def _worth_trying(cascade: Cascade, extents: Mapping[str, int], first: Program) -> list[Program]:
    """The first arrangement, and others in which more sums are matrix products, or whose tiles hold less."""
    count = len(contractions(first))
    masked = any(_masked(first, loop) for loop in first.loops)
    others: dict[tuple[object, ...], Program] = {}
    for other in arrangements(cascade, extents):
        roles = (other.grid, other.tiled)
        here = len(contractions(other))
        as_good = here > 0 and here >= count and (bool(other.made) or masked)
        if roles != (first.grid, first.tiled) and (here > count or set(other.grid) > set(first.grid) or as_good):
            others[roles] = other
    most = max((len(contractions(other)) for other in others.values()), default=0)
    return [first, *(other for other in others.values() if len(contractions(other)) == most)]


def _masked(program: Program, loop: Loop) -> bool:
    """Do conditions of a loop depend on ranks of the grid? Then the rank that tiles lie along decides which steps are empty."""
    conditions = [n.args[0] for e in loop.body for n in walk(e.body) if isinstance(n, Map) and n.op == "where"]
    return any(program.loop in (ranks := free_ranks(one)) and len(ranks & set(program.grid)) > 1 for one in conditions)


class _Planner:
    """Searches the tiles of one program."""

    def __init__(
        self, program: Program, gpu: Gpu, precision: Precision, allow_tf32: bool, choice: Choice, persistent: Choice
    ) -> None:  # fmt: skip
        self.program, self.gpu, self.precision, self.choice, self.persistent = program, gpu, precision, choice, persistent
        self.persistence = Persistence(program, precision)
        self.matrix_rate = precision.matrix_rate(gpu, allow_tf32)
        self.operands = staged(program, precision)
        self.dots = matrix_products(program, precision)
        self.shortest = {axis: shortest_side(program, axis, precision) for axis in program.axes}

    @cached_property
    def staging(self) -> Staging:
        return Staging(self.program, self.gpu, self.precision, self.matrix_rate is None)

    @cached_property
    def pressure(self) -> Pressure:
        return Pressure(self.program, self.gpu, self.precision, self.matrix_rate is None)

    @cached_property
    def wide(self) -> frozenset[frozenset[str]]:
        """Axes of the widest tile of each Einsum."""
        bodies = [simplified(self.program, e.body) if isinstance(e.body, Reduce) else e.body for e in self.program.cascade.einsums]
        return frozenset(wide_axes(self.program, body) for body in bodies)

    # --- the search ---

    def search(self, bound: Sizes, given: Mapping[str, int], keep: int, tile_fixed: bool, within: float) -> Plan | None:
        """The plan; None where all tiles are known to take `within` seconds or more."""
        program = self.program
        extents = {rank.name: extent_of(program, rank.name, bound) for rank in program.cascade.ranks}
        symbol = tile_symbol(program)
        if symbol is not None and symbol in given:
            tile_fixed = True
        self.extents = extents
        self.descriptors = Descriptors(program, self.gpu, self.precision, extents, self.dots, tile_fixed)
        timing = Timing(program, self.gpu, self.precision, self.matrix_rate, extents, bound)
        choices = self._choices(extents, tile_fixed)
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, (blocks, warps, _) in enumerate(choices):
            groups.setdefault((*blocks.items(), warps), []).append(number)
        least = sorted((timing.least(*choices[numbers[0]][:2]) * ROUNDED, numbers) for numbers in groups.values())
        if least[0][0] >= within:
            return None
        fitting, smallest = self._fitting(choices, least, timing, keep)
        found = [candidate for candidate in fitting if not candidate.tight]
        tight = [candidate for candidate in fitting if candidate.tight]
        if not found and not tight:
            raise self._nothing_fits(smallest, extents)
        for some in (found, tight):
            some.sort(
                key=lambda c: (
                    _about(c.predicted_s),
                    timing.instances(c.blocks),
                    c.predicted_s,
                    c.shared_bytes,
                    c.registers,
                    c.warps,
                )
            )
        found = [*_bold(tight, found), *found] if found else tight
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
        raised = [one.output for one in self.dots if not one.narrow]
        if self.precision.dtype in WIDER and raised:
            names = ", ".join(f"`{name}`" for name in dict.fromkeys(raised))
            kind = self.precision.computed_type
            notes.append(f"{kind} operands for the product of {names}: a computed one is rounded to it, the other is raised to it")
        notes += self._walking((found or tight)[0], timing)
        notes += self._addressing((found or tight)[0])
        if len(program.loops) > 1:
            notes.append(f"{len(program.loops)} loops over `{program.loop}`: the cascade needs that many passes")
        return Plan(
            program, self.gpu, self.precision, bound, self.operands, tuple(found[:keep]), len(choices), tile_fixed, tuple(notes)
        )

    def _fitting(
        self, choices: Sequence[_Choice], least: Sequence[tuple[float, Sequence[int]]], timing: Timing, keep: int
    ) -> tuple[list[Candidate], tuple[int, str] | None]:
        """The candidates that fit, and what the smallest other one needs. `least`: seconds that tiles and warps take at least, with
        the numbers of their choices; those that can be fastest come first, and those that can only be slower than as many others
        as are kept are left out."""
        fitting: dict[int, Candidate] = {}
        smallest: tuple[int, int, str] | None = None
        best: list[int] = []
        """Times of those that are kept, the longest last."""
        for seconds, numbers in least:
            if len(best) >= keep > 0 and _about(seconds) > best[-1]:
                break
            for number in numbers:
                candidate = self._candidate(*choices[number], timing)
                if isinstance(candidate, Candidate):
                    fitting[number] = candidate
                    if not candidate.tight:
                        best = sorted([*best, _about(candidate.predicted_s)])[:keep]
                elif smallest is None or (candidate[0], number) < smallest[:2]:
                    smallest = candidate[0], number, candidate[1]
        return [fitting[number] for number in sorted(fitting)], smallest and (smallest[0], smallest[2])

    def _walking(self, best: Candidate, timing: Timing) -> list[str]:
        """How program instances of the best candidate walk tiles, or why they do not though it was asked for."""
        if best.walk is not None:
            text = f"persistent: {best.walk.programs} program instances walk {timing.instances(best.blocks)} tiles"
            return [f"{text}, {'the next ones on their way' if best.walk.prefetched > 1 else 'as asked for'}"]
        if self.persistent != "on":
            return []
        refused = self._addressed(dict(best.blocks), best.warps, best.stages, timing, frozenset(best.described), True)
        return [f"not persistent: that needs {refused[1]}"] if isinstance(refused, tuple) else []

    def _addressing(self, best: Candidate) -> list[str]:
        """How the operands of the best candidate are addressed, where some have descriptors or they were asked for."""
        if not best.described and self.choice != "on":
            return []
        notes = []
        if best.described:
            here = (best.blocks, best.warps, best.stages)
            fewer = self.pressure(*here).likely - self.pressure(*here, frozenset(best.described)).likely
            names = ", ".join(f"`{name}`" for name in best.described)
            notes.append(f"tensor descriptors for {names}: no addresses in registers ({fewer} fewer a thread)")
        for tensor in dict.fromkeys(o.tensor for o in self.operands if o.tensor not in best.described):
            reason = self.descriptors.reasons.get(tensor, "no unit of these tiles reads it from shared memory")
            notes.append(f"pointers for `{tensor}`: {reason}")
        return notes

    def _choices(self, extents: Mapping[str, int], tile_fixed: bool) -> list[_Choice]:
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
        if not self.gpu.shared_memory.asynchronous:
            stages = stages[:3]  # what is on its way lies in registers
        return [
            ({**dict(zip(sides, sizes, strict=True)), **fixed}, warps, stage)
            for sizes in itertools.product(*sides.values())
            for warps in (2, 4, 8)
            for stage in stages
            if warps > 2 or not self.dots
        ]

    def _sides(self, axis: str, extent: int) -> list[int]:
        """Tile sizes worth trying along an axis: powers of two, none more than twice what there is."""
        least = self.shortest[axis]
        most = max(least, _power_of_two(extent))
        return [side for side in (1, 2, 4, 8, 16, 32, 64, 128, 256) if least <= side <= most] or [least]

    def _whole_block(self, axis: str, extent: int) -> int:
        return max(_power_of_two(extent), self.shortest[axis])

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

    def _candidate(self, blocks: dict[str, int], warps: int, stages: int, timing: Timing) -> Candidate | tuple[int, str]:
        """The candidate with its predictions; what it would need where that is too much. Its instances walk tiles where that is
        wanted, or predicted to be faster."""
        found = self._by_tiles(blocks, warps, stages, timing)
        if self.persistent == "off" or (self.persistent == "auto" and self.persistence.ahead(stages) == 1):
            return found
        described = frozenset(found.described) if isinstance(found, Candidate) else frozenset()
        walking = self._addressed(blocks, warps, stages, timing, described, True)
        return walking if isinstance(walking, Candidate) and (self.persistent == "on" or _faster(walking, found)) else found

    def _by_tiles(self, blocks: dict[str, int], warps: int, stages: int, timing: Timing) -> Candidate | tuple[int, str]:
        """The candidate with an instance a tile. By descriptors where they are wanted, or where the registers that addresses would
        take are needed."""
        by_pointers = self._addressed(blocks, warps, stages, timing, frozenset())
        described = self.descriptors(blocks, warps, self.matrix_rate is None) if self.choice != "off" else frozenset()
        if not described:
            return by_pointers
        found = self._addressed(blocks, warps, stages, timing, described)
        return found if self.choice == "on" or _worth_describing(found, by_pointers) else by_pointers

    def _divides(self, blocks: Mapping[str, int]) -> bool:
        """Do steps divide what is walked at these sizes?"""
        loop, inner = self.program.loop, self.program.inner
        parent = self.program.cascade.rank(loop).part_of if loop is not None else None
        return parent is None or inner is None or self.extents[parent] % blocks[inner] == 0

    def _addressed(
        self, blocks: dict[str, int], warps: int, stages: int, timing: Timing, described: frozenset[str], walking: bool = False
    ) -> Candidate | tuple[int, str]:  # fmt: skip
        """The candidate with some tensors read by descriptors, and with instances that walk tiles or have one each."""
        gpu = self.gpu
        widest = max((math.prod(blocks[a] for a in axes) for axes in self.wide), default=1)
        if widest > LARGEST_TILE:
            return widest, f"a tile of {widest:,} elements (at most {LARGEST_TILE:,})"
        launched = timing.instances(blocks)
        if launched > LARGEST_GRID and not walking:
            return launched, f"{launched:,} program instances (at most {LARGEST_GRID:,})"
        shared = self.staging(blocks, warps, stages, described, self._divides(blocks))
        if walking:
            ahead = self.persistence.buffers(blocks, stages)
            shared = replace(shared, operands=shared.operands + ahead, total=shared.total + ahead)
        if shared.total > gpu.shared_memory.per_block:
            return shared.total, f"{shared.total:,} bytes of shared memory (at most {gpu.shared_memory.per_block:,})"
        if shared.columns > gpu.matrix.tensor_memory_columns:
            return shared.total, f"{shared.columns} columns of tensor memory (at most {gpu.matrix.tensor_memory_columns})"
        threads = warps * gpu.multiprocessors.warp
        limit = min(gpu.registers.per_thread, gpu.registers.per_multiprocessor // threads)
        registers = self.pressure(blocks, warps, stages, described)
        if walking:
            registers = Registers(registers.least + COUNTERS, registers.likely + COUNTERS)
        needs, most = self._needs(registers, blocks, warps, limit)
        if needs > most:
            return needs * threads, f"{needs} registers a thread (at most {most})"
        taken = min(registers.likely, limit)
        resident = min(
            gpu.multiprocessors.blocks,
            gpu.multiprocessors.threads // threads,
            gpu.registers.per_multiprocessor // (_round_up(taken, 8) * threads),
            gpu.shared_memory.per_multiprocessor // (shared.total + gpu.shared_memory.reserved_per_block)
            if shared.total
            else 10**9,
            gpu.matrix.tensor_memory_columns // _power_of_two(max(shared.columns, 32)) if shared.columns else 10**9,
        )
        if resident < 1:
            return shared.total, f"{shared.total:,} bytes of shared memory"
        programs = resident * gpu.multiprocessors.count
        if walking and timing.instances(blocks) <= programs:
            return shared.total, "more tiles than run at one time, to walk them"
        depth = self.persistence.ahead(stages)
        parts, order = timing(blocks, warps, stages, resident, walking and depth > 1)
        slowest = max(parts, key=lambda name: parts[name])
        excess = max(0, registers.likely - limit)
        return Candidate(
            blocks, warps, stages, shared.total, taken, resident, total(parts), slowest, parts, excess, shared.operands,
            shared.columns, order, tuple(sorted(described)), Walk(programs, depth) if walking else None,
        )  # fmt: skip

    def _needs(self, registers: Registers, blocks: Mapping[str, int], warps: int, limit: int) -> tuple[int, int]:
        """Registers a thread that must not exceed a number of them, and that number: beyond it, values are spilled."""
        units = {one.unit(self.gpu, blocks, warps, self.matrix_rate is None) for one in self.dots}
        if "none" in units:
            return registers.likely, limit - EXACT_SPARE
        if units == {"warp"}:
            return registers.least, limit
        return registers.least, limit - SPARE_REGISTERS


def extent_of(program: Program, rank: str, bound: Sizes) -> int:
    """Coordinates along a rank of a program. Raises an `EinsmithError` where there are groups of 0 coordinates."""
    if rank in bound.extents:
        return bound.extents[rank]
    scalars = {**dict(program.cascade.sizes), **bound.scalars}
    extent = program.cascade.rank(rank).extent
    try:
        for name, expr in program.cascade.counts.items():
            scalars[name] = evaluate_scalar(expr, scalars)
        return int(evaluate_scalar(extent, scalars))
    except ZeroDivisionError:
        what = f"the kernel's rank `{rank}` has `{print_expr(extent)}` coordinates, which divides by 0 at these sizes"
        raise EinsmithError(Diagnostic("E306", what, help="give sizes at which a group holds something")) from None


def instances(program: Program, blocks: Mapping[str, int], extent: Callable[[str], int]) -> int:
    """Program instances."""
    return math.prod(-(-extent(r) // (blocks[r] if r in program.tiled else 1)) for r in program.grid)


def tile_symbol(program: Program) -> str | None:
    """The size that is the extent of the inner tile."""
    if program.inner is None:
        return None
    extent = program.cascade.rank(program.inner).extent
    return extent.name if isinstance(extent, Scalar) else None


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


def _faster(one: Candidate, other: Candidate | tuple[int, str]) -> bool:
    """Is a candidate predicted to be faster by enough to prefer it?"""
    return isinstance(other, Candidate) and one.predicted_s < WORTH_IT * other.predicted_s


def _worth_describing(found: Candidate | tuple[int, str], by_pointers: Candidate | tuple[int, str]) -> bool:
    """Is a candidate with descriptors legal where that with pointers is not, or does it have room for more?"""
    if isinstance(found, tuple):
        return False
    if isinstance(by_pointers, tuple) or (by_pointers.tight and not found.tight):
        return True
    return found.predicted_s < WORTH_IT * by_pointers.predicted_s


def _bold(tight: list[Candidate], found: list[Candidate]) -> list[Candidate]:
    """The first few of those whose whole operands exceed the registers, where they are worth a try."""
    tiles: dict[tuple[object, ...], Candidate] = {}
    for candidate in tight:
        if candidate.excess <= MOST_EXCESS and candidate.predicted_s < WORTH_IT * found[0].predicted_s:
            tiles.setdefault((*candidate.blocks.items(), candidate.warps), candidate)
    return list(tiles.values())[:MOST_BOLD]


def _about(seconds: float) -> int:
    """A step on a scale of two in a hundred: times within it are taken as equal, and the fewest program instances win."""
    return round(math.log(seconds) / math.log(1.02))


def _power_of_two(extent: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(extent - 1, 0).bit_length()


def _round_up(value: int, to: int) -> int:
    return -(-value // to) * to
