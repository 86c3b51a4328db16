"""Co-design: the best architecture and mapping together, within an area.

In: `Design`s, `Workload`s (a cascade with sizes each), what to make least. Out: a `CoDesigned`: the best design with its mappings,
which no other design of the space is better than, or the Pareto front of latency, energy, area and buffer.

Designs are looked at in the order of a lower bound: the operations shared out among the arrays, and what must cross the memory
boundary. At first every lane is at work, and how the operations may be shared out is worked out once for all designs that differ in
sides and capacities alone; for a design that this does not rule out, again with what each Einsum's ranks leave idle of the sides. A
design is searched only until it is known to be no better than the best so far; with several workloads, each leaves the next what
the others cannot do without.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map_
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.display import Displayed
from ..einsum.flatten import flatten
from ..einsum.sizes import bind
from .architecture import Architecture
from .cost import Cost, amount, joules, level_pj, seconds
from .designs import Design, wrong
from .idle import Length, most_at_work
from .layouts import Vector, front
from .objective import PRODUCTS
from .partitions import Partitions
from .search import Searched, better, search
from .space import ANYTHING, Fixed, Tiles, open_extents
from .tally import Tally

Goal: TypeAlias = Literal["latency", "energy", "edp", "area-delay", "traffic", "pareto"]
_SLACK = 1 + 1e-12
"""Where an equal value on less area is wanted too."""


@dataclass(frozen=True)
class Workload:
    """What a design has to do."""

    name: str
    cascade: Cascade
    sizes: Map_[str, int]
    params: Map_[str, int | float]
    weight: float = 1.0
    """What its objective counts for in the sum over all workloads."""


@dataclass(frozen=True)
class Tried:
    """A design with the best mapping of each workload."""

    design: Design
    value: float
    """The sum of the objective: seconds, pJ, pJ s, mm2 s, or bytes."""
    found: tuple[Searched, ...]

    @property
    def key(self) -> tuple[float, float, int]:
        return self.value, self.design.area_um2, self.design.buffer_bytes

    def as_json(self) -> dict[str, Any]:
        design = self.design
        return {
            "design": dict(design.chosen), "settings": list(design.settings), "area_um2": design.area_um2,
            "buffer_bytes": design.buffer_bytes, "value": self.value,
        }  # fmt: skip


@dataclass(frozen=True)
class CoDesigned(Displayed):
    """The best design, and why no other is better."""

    goal: Goal
    workloads: tuple[Workload, ...]
    budget_um2: float | None
    best: Tried
    """For a Pareto set, the design with least latency."""
    tried: tuple[Tried, ...]
    """Designs that were the best so far when they were found."""
    counts: dict[str, int]
    """Designs in all; over the area; bounded; searched to the end."""
    optimal: bool
    gap: float
    front: tuple[tuple[Design, Cost], ...] = ()
    """For `pareto`: what no other is at least as good as in latency, energy, area and buffer."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.best.found[0].as_json(), **self.best.as_json(), "objective": self.goal, "designs": self.counts,
            "energies_do_not_follow": list(self.unscaled),
            "tried": [one.as_json() for one in self.tried], "optimal": self.optimal, "gap": self.gap,
            "front": [
                {
                    "design": dict(design.chosen), "settings": list(design.settings), "area_um2": design.area_um2,
                    "buffer_bytes": design.buffer_bytes, "latency_s": whole_s(cost), "energy_pj": cost.energy_pj,
                    "mapping": cost.placed.mapping.as_plain(),
                }
                for design, cost in self.front
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        mappings = [f"{found.mapping}\n\n{found.cost}" for found in self.best.found] if len(self.workloads) == 1 else []
        return "\n".join([*mappings, *([""] if mappings else []), *self.summary()])

    @property
    def unscaled(self) -> tuple[str, ...]:
        """Levels whose capacity is searched while their energies stay as they are."""
        memory, names = self.best.design.arch.memory, {text.partition("=")[0].strip() for text in self.best.design.settings}
        sized = [name for name, level in memory.items() if name + ".size" in names and level.scaling is None]
        return tuple(name for name in sized if f"{name}.read_pj" not in names)

    def summary(self) -> list[str]:
        """What was decided, without the mappings."""
        limit = "" if self.budget_um2 is None else f", at most {_mm2(self.budget_um2)}"
        within = f" by more than {self.gap:.2%}" if self.gap else ""
        proof = f"{'' if self.optimal else 'cut off: '}no design of the space is better{within}"
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        lines = [f"co-design: {counts}{limit}", f"least {self.goal}: {proof}"]
        for name in self.unscaled:
            lines.append(f"note: energies of `{name}` are the same at every capacity: its file gives no `scaling`")
        if self.front:
            lines.append("Pareto set of latency (with fill and drain), energy, area, capacity on the chip:")
            for design, cost in self.front:
                lines.append(f"  {seconds(whole_s(cost)):>12} {joules(cost.energy_pj):>12} {_sizes(design)}  {_text(design)}")
            return lines
        lines.append(f"{_UNITS[self.goal]:>16}, area, capacity on the chip; the last is the best:")
        lines += [f"  {one.value:14.8g} {_sizes(one.design)}  {_text(one.design)}" for one in self.tried]
        return lines


_UNITS: dict[Goal, str] = {
    "latency": "seconds", "energy": "pJ", "edp": "pJ s", "area-delay": "mm2 s", "traffic": "bytes", "pareto": "",
}  # fmt: skip


def _mm2(area_um2: float) -> str:
    area = area_um2 / 1e6
    return f"{area:,.1f} mm2" if area >= 100 else f"{area:.3g} mm2"


def _sizes(design: Design) -> str:
    return f"{_mm2(design.area_um2):>12} {amount(design.buffer_bytes):>10}"


def _text(design: Design) -> str:
    return " ".join(f"--set '{text}'" for text in design.settings) or "as it stands"


def whole_s(cost: Cost) -> float:
    """Latency with fill and drain."""
    return (cost.cycles + cost.fill_cycles) / cost.arch.clock_hz


def codesign(
    workloads: Sequence[Workload],
    designs: Sequence[Design],
    goal: Goal = "latency",
    budget_um2: float | None = None,
    tiles: Tiles = "doubled",
    gap: float = 0.0,
    fixed: Fixed = ANYTHING,
    watch: Callable[[int, float, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> CoDesigned:
    """The best design; `gap`: share of the objective by which it may miss the best. Raises EinsmithError: E543 where none is within
    the area, E540 where nothing fits any of them."""
    if goal not in get_args(Goal):
        raise wrong(f"architectures are searched for one of {', '.join(get_args(Goal))}, not for `{goal}`")
    if goal == "pareto" and len(workloads) > 1:
        raise wrong("a Pareto set is that of one workload")
    within = [design for design in designs if budget_um2 is None or design.area_um2 <= budget_um2 * _SLACK]
    if not within:
        least = min(design.area_um2 for design in designs) / 1e6
        raise wrong(f"no design is within {(budget_um2 or 0) / 1e6:,.6g} mm2: the smallest has {least:,.6g}")
    if goal == "area-delay" and not all(design.area_um2 for design in within):
        raise wrong("`area-delay` needs areas, and nothing in the architecture has one")
    state = _State(tuple(workloads), goal, tiles, gap, fixed, watch, stop or (lambda: False))
    found = state.pareto(within) if goal == "pareto" else state.least(within)
    if found is None:
        roomiest = max(within, key=lambda design: (design.buffer_bytes, design.area_um2))
        for one in workloads:
            search(one.cascade, roomiest.arch, one.sizes, one.params, "latency", tiles, 0.0, fixed)  # says what lacks how much
        raise EinsmithError(Diagnostic("E540", "nothing fits any of the designs"))
    counts = {
        "designs": len(designs), "over the area": len(designs) - len(within),
        "no better by their bound": len(within) - state.searched, "searched": state.searched,
    }  # fmt: skip
    front = tuple(state.front) if goal == "pareto" else ()
    return CoDesigned(
        goal, tuple(workloads), budget_um2, found, tuple(state.tried), counts, not state.cut_off, max(gap, state.missed), front
    )


class _State:
    """One search over designs."""

    def __init__(
        self, workloads: tuple[Workload, ...], goal: Goal, tiles: Tiles, gap: float, fixed: Fixed,
        watch: Callable[[int, float, float], None] | None, stop: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.workloads, self.goal, self.gap, self.fixed, self.watch, self.stop = workloads, goal, gap, fixed, watch, stop
        self.tiles: Tiles = "sides" if goal in PRODUCTS else tiles
        self.needs = [_Needs(one, fixed.peel) for one in workloads]
        self.tried: list[Tried] = []
        self.front: list[tuple[Design, Cost]] = []
        self.searched = 0
        self.cut_off = False
        self.missed = 0.0
        """By what share the best may be missed, where a search was cut off."""

    def least(self, designs: Sequence[Design]) -> Tried | None:
        """The design with the least sum; of equals the smallest."""
        queue: list[tuple[float, float, int, int, bool]] = []
        for number, design in enumerate(designs):
            queue.append((sum(self._floors(design, idle=False)), design.area_um2, design.buffer_bytes, number, False))
        heapq.heapify(queue)
        while queue:
            floor, area, buffer, number, refined = heapq.heappop(queue)
            design, best = designs[number], self.tried[-1] if self.tried else None
            if best is not None and (floor, area, buffer) >= (best.value * (1.0 - self.gap), *best.key[1:]):
                break
            if best is not None and self.stop():
                self._cut_off(1.0 - floor / best.value)
                break
            floors = self._floors(design, idle=True)
            if not refined:
                heapq.heappush(queue, (max(floor, sum(floors)), area, buffer, number, True))
                continue
            if self.watch is not None:
                self.watch(self.searched, best.value if best else math.inf, floor)
            found = self._try(design, floors, best)
            if found is not None and (best is None or found.key < best.key):
                self.tried.append(found)
        return self.tried[-1] if self.tried else None

    def _floors(self, design: Design, idle: bool) -> list[float]:
        """What a design cannot be better than, workload by workload."""
        pairs = zip(self.workloads, self.needs, strict=True)
        return [self._value(one, design, *needs.floor(design.arch, idle)) for one, needs in pairs]

    def _cut_off(self, missed: float) -> None:
        self.cut_off, self.missed = True, max(self.missed, missed)

    def _try(self, design: Design, floors: list[float], best: Tried | None) -> Tried | None:
        """The best mappings on a design; None once it is known to be no better."""
        self.searched += 1
        done, found = 0.0, []
        for number, (one, floor) in enumerate(zip(self.workloads, floors, strict=True)):
            below = left = math.inf
            if best is not None:
                wanted = best.value * (_SLACK if design.area_um2 < best.design.area_um2 else 1.0) * (1.0 - self.gap)
                left = wanted - done - sum(floors[number + 1 :])
                if left < floor:
                    return None
                below = left / self._unit(one, design)
            tally = Tally(tiles=self.tiles, gap=self.gap, stop=self.stop)
            each = better(one.cascade, design.arch, one.sizes, one.params, self._objective, self.fixed, tally, below)
            if tally.cut_off:
                self._cut_off(each.gap if each else 1.0 - floor / left)
            if each is None:
                return None
            cost = each.cost
            done += self._value(one, design, whole_s(cost), cost.energy_pj, cost.traffic_bytes)
            found.append(each)
        return Tried(design, done, tuple(found))

    @property
    def _objective(self) -> Any:
        return "latency" if self.goal == "area-delay" else self.goal

    def _unit(self, one: Workload, design: Design) -> float:
        """What one cycle, pJ or word of a search counts for."""
        arch = design.arch
        match self.goal:
            case "latency":
                return one.weight / arch.clock_hz
            case "area-delay":
                return one.weight / arch.clock_hz * design.area_um2 / 1e6
            case "traffic":
                return one.weight * arch.word_bytes
            case _:
                return one.weight

    def _value(self, one: Workload, design: Design, latency_s: float, energy_pj: float, traffic_bytes: float) -> float:
        match self.goal:
            case "latency":
                return one.weight * latency_s
            case "area-delay":
                return one.weight * latency_s * (design.area_um2 / 1e6)
            case "energy":
                return one.weight * energy_pj
            case "traffic":
                return one.weight * traffic_bytes
            case _:
                return one.weight * latency_s * energy_pj

    def pareto(self, designs: Sequence[Design]) -> Tried | None:
        """Every design that its bounds do not rule out, small ones first, each with its own front."""
        (one,), (needs,) = self.workloads, self.needs
        kept: list[tuple[Vector, tuple[Design, Cost]]] = []
        best: Tried | None = None
        for design in designs:
            latency, energy, _ = needs.floor(design.arch, idle=True)
            size = (design.area_um2, float(design.buffer_bytes))
            floor = (latency, energy, *size)
            if any(all(mine <= theirs for mine, theirs in zip(value, floor, strict=True)) for value, _ in kept):
                continue
            if best is not None and self.stop():
                self._cut_off(1.0)
                break
            if self.watch is not None:
                self.watch(self.searched, best.value if best else math.inf, latency)
            self.searched += 1
            tally = Tally(tiles=self.tiles, stop=self.stop)
            clock = design.arch.clock_hz
            rivals = [(value[0] * clock, value[1]) for value, _ in kept if value[2] <= size[0] and value[3] <= size[1]]
            found = better(one.cascade, design.arch, one.sizes, one.params, "pareto", self.fixed, tally, rivals=rivals)
            if tally.cut_off:
                self._cut_off(1.0)
            if found is None:
                continue
            options: list[tuple[Vector, tuple[Design, Cost]]] = [
                ((whole_s(cost), cost.energy_pj, *size), (design, cost)) for cost in found.front
            ]
            kept = front([*kept, *options])
            tried = Tried(design, min(value[0] for value, _ in options), (found,))
            if best is None or tried.key < best.key:
                best = tried
                self.tried.append(tried)
        self.front = [item for _, item in sorted(kept, key=lambda option: option[0])]
        return best


@dataclass(frozen=True)
class _Work:
    """What one workload asks of any design with given units, for one choice of the tiles that splits leave open."""

    lane_cycles: dict[str, dict[str, float]]
    """Of each Einsum, on each array that can do it."""
    ranks: dict[str, frozenset[Length]]
    """Of each Einsum; none where masks leave points out."""
    shares: list[Vector]
    """Ways to share the operations out: lane-cycles for each array; those that no other is at least as good as."""
    energy: float
    """Of all operations."""
    fetched: float
    written: float
    """Words that must cross the memory boundary."""


class _Needs:
    """Lower bounds of one workload on any design."""

    def __init__(self, workload: Workload, peel: bool) -> None:
        self.workload, self.peel = workload, peel
        self.flat = flatten(workload.cascade)
        self.extents = dict(bind(self.flat, workload.sizes, workload.params).extents)
        self.known: dict[Any, _Work] = {}
        self.floors: dict[Any, Vector] = {}

    def floor(self, arch: Architecture, idle: bool) -> Vector:
        """(seconds, pJ, bytes), each the least over all choices of open tiles; `idle`: with what ranks leave idle of the sides."""
        key = (idle, *_hardware(arch))
        if key not in self.floors:
            self.floors[key] = self._floor(arch, idle)
        return self.floors[key]

    def _floor(self, arch: Architecture, idle: bool) -> Vector:
        level, byte = arch.backing[1], arch.word_bytes
        ways: list[tuple[Vector, _Work]] = []
        for choice in open_extents(self.flat, frozenset(self.workload.sizes), arch, self.extents):
            key = (tuple(choice.items()), *_hardware(arch, sides=False))
            if key not in self.known:
                self.known[key] = self._work(arch, choice)
            work = self.known[key]
            latency = max(_seconds(work.shares, arch), level.seconds(work.fetched * byte, work.written * byte) or 0.0)
            energy = work.energy + level_pj(arch, level, work.fetched, work.written)
            ways.append(((latency, energy, (work.fetched + work.written) * byte), work))
        latency, energy, moved = (min(value[place] for value, _ in ways) for place in range(3))
        if idle:
            latency = math.inf
            for value, work in sorted(ways, key=lambda way: way[0]):
                if value[0] >= latency:
                    break
                latency = min(latency, max(value[0], _seconds(_shared(_idle(work, arch)), arch)))
        return latency, energy, moved

    def _work(self, arch: Architecture, choice: dict[str, int]) -> _Work:
        sizes = bind(self.flat, {**self.workload.sizes, **choice}, self.workload.params)
        space = Partitions(self.flat, arch, sizes, "latency", Tally(), Fixed(peel=self.peel))
        names = frozenset(space.names)
        lanes = {name: array.lanes * arch.instances(name) for name, array in arch.arrays.items()}
        cycles = {
            einsum: {name: options[name][0] * lanes[name] if name in options else math.inf for name in lanes}
            for einsum, options in space.ideal.items()
            if options
        }
        energy = sum(min(option[1] for option in options.values()) for options in space.ideal.values() if options)
        tensors = [self.flat.tensor(name) for name in space.leaving(names)]
        written = sum(math.prod(sizes.extents[rank] for rank in tensor.ranks if rank != tensor.iterates) for tensor in tensors)
        return _Work(cycles, space.lengths, _shared(cycles), energy, space.fetched(names), float(written))


def _hardware(arch: Architecture, sides: bool = True) -> tuple[str, ...]:
    """What of an architecture the bounds depend on."""
    parts = {"units", "expansions"} | ({"side", "instances"} if sides else set())
    arrays = [
        f"{name} {arch.instances(name) if sides else ''} {array.model_dump_json(include=parts)}"
        for name, array in arch.arrays.items()
    ]
    return (*arrays, arch.backing[1].model_dump_json(), f"{arch.clock_hz} {arch.word_bytes}")


def _seconds(shares: list[Vector], arch: Architecture) -> float:
    """The least time of operations that are shared out in one of these ways."""
    lanes = [array.lanes * arch.instances(name) for name, array in arch.arrays.items()]
    return min(max(cycles / n for cycles, n in zip(share, lanes, strict=True)) for share in shares) / arch.clock_hz


def _shared(lane_cycles: Map_[str, Map_[str, float]]) -> list[Vector]:
    """All ways to share Einsums out among arrays, but for those that another is at least as good as."""
    arrays = len(next(iter(lane_cycles.values()), ()))
    kept: list[tuple[Vector, None]] = [((0.0,) * arrays, None)]
    for options in lane_cycles.values():
        grown: list[tuple[Vector, None]] = []
        for value, _ in kept:
            for place, cycles in enumerate(options.values()):
                if cycles < math.inf:
                    grown.append(((*value[:place], value[place] + cycles, *value[place + 1 :]), None))
        kept = front(grown)
    return [value for value, _ in kept]


def _idle(work: _Work, arch: Architecture) -> dict[str, dict[str, float]]:
    """Lane-cycles of each Einsum with the lanes that are idle however its ranks are laid along the sides of an array."""
    most = {
        (name, ranks): most_at_work(array.side, ranks) for name, array in arch.arrays.items() for ranks in set(work.ranks.values())
    }
    return {
        einsum: {name: cycles / most[name, work.ranks[einsum]] for name, cycles in options.items()}
        for einsum, options in work.lane_cycles.items()
    }
