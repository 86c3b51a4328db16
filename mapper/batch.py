"""One structure, many numbers: the cost of a mapping for arrays of sizes, tiles and architecture parameters at once.

    batch = compile(cascade, arch, mapping)
    found = batch(sizes={"M": array, "P": array}, arch={"array2d.side": array, "buffer.size": array}, tiles={"1.p": array})
    found.valid, found.latency_s, found.energy_pj, found.traffic_bytes, found.area_um2, found.utilization["array2d"], ...

In: a cascade, an architecture, a mapping; then, each as an array of N numbers (or one number for all points):

* `sizes`: extents by symbol, those that the mapping chooses included;
* `arch`: numbers of the architecture named as `--set` names them (`buffer.bandwidth`, `array2d.units.exp.cycles`, `clock_hz`); a
  side as `array2d.side` (N numbers for all sides, or N x sides) or `array2d.side.0`;
* `tiles`: tiles of loops, as `GROUP.RANK` (`GROUP.RANK.0`, `.1` ... from the outside where a rank has several loops), and
  `GROUP.in_flight`.

Out: `Results`, arrays of N numbers equal to those of `cost.model` point by point; NaN where the mapping is not legal or does
not fit (`found.why(i)` says why).

What decides legality (loops with one iteration, sizes that make a scale 1 ...) falls into few cases; each is placed once by `nest`
and written down once in closed form (`closed`), and all its points are evaluated together (`tape`). What has no closed form (a mask
that leaves tiles out, an unusual index) goes through `cost.model` point by point: `found.exact` counts those.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping as Map_
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..einsum.cascade import Cascade, Expr, Map, free_ranks
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.flatten import flatten
from ..einsum.sizes import Sizes, bind, evaluate_scalar
from .architecture import Architecture
from .closed.cost import Closed
from .closed.hardware import Hardware
from .closed.words import Open
from .cost import Cost, model
from .leaves import keys_of, leaves, roomy
from .mapping import Group, Mapping
from .masks import masks
from .nest import Nest, _check_names, _check_order, _outgoing, place_group
from .operations import work
from .tape import Floats, Program, Tape

Bools = NDArray[np.bool_]
LARGEST = 2.0**51
"""Greatest dividend whose quotient is rounded up exactly."""
_AT_LEAST_ONE = ("side", "words", "word_bytes", "access_bytes", "expansions")
_ABOVE_ZERO = ("size", "bandwidth", "clock_hz", "bytes", "technology_nm")


@dataclass
class Results:
    """The cost of each point. Arrays of N numbers; NaN where `valid` is false."""

    batch: Batch
    points: _Points
    valid: Bools
    """Whether the mapping is legal and fits."""
    fits: Bools
    """Whether buffer and registers suffice, legality aside."""
    exact: int
    """Points that `cost.model` evaluated one by one."""
    groups: tuple[dict[str, Floats], ...]
    """Of each fusion group by name: `cycles`, `fill`, `dependences`, `busy ARRAY`, `transfer LEVEL`, `useful ARRAY`, `step EINSUM`
    (cycles), `read TENSOR`, `written TENSOR` (words), `energy COMPONENT` (pJ), `need` (bytes of buffer), `lanes ARRAY` (words)."""
    area_parts: dict[str, Floats]
    refused: dict[int, Diagnostic] = field(default_factory=dict)
    """Why a point is not legal, for one point of each case."""

    def __len__(self) -> int:
        return len(self.valid)

    def _sum(self, name: str) -> Floats:
        found = sum((group[name] for group in self.groups), np.zeros(len(self)))
        return np.where(self.valid, found, np.nan)

    @cached_property
    def cycles(self) -> Floats:
        return self._sum("cycles")

    @cached_property
    def fill_cycles(self) -> Floats:
        return self._sum("fill")

    @cached_property
    def latency_s(self) -> Floats:
        return np.asarray(self.cycles / self.points.hardware("clock_hz"))

    @cached_property
    def energy_pj(self) -> Floats:
        return self._sum("energy")

    @cached_property
    def edp(self) -> Floats:
        return self.energy_pj * self.latency_s

    @cached_property
    def traffic_bytes(self) -> Floats:
        return np.asarray(self._sum("words") * self.points.hardware("word_bytes"))

    @cached_property
    def area_um2(self) -> Floats:
        return np.asarray(sum(self.area_parts.values(), np.zeros(len(self))))

    @cached_property
    def buffer_need(self) -> Floats:
        """Bytes of the buffer that the group that needs most takes at once."""
        return np.asarray(np.maximum.reduce([group["need"] for group in self.groups]), dtype=np.float64)

    @cached_property
    def utilization(self) -> dict[str, Floats]:
        """Share of the lane-cycles of each array that do useful work."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                name: np.where(self.cycles > 0, self._sum(f"useful {name}") / self.cycles, self.cycles)
                for name in self.batch.arch.arrays
            }

    @cached_property
    def energy_parts(self) -> dict[str, Floats]:
        """pJ by component."""
        names = [name for name in self.groups[0] if name.startswith("energy ")]
        return {name.removeprefix("energy "): self._sum(name) for name in names}

    def bounds(self, group: int) -> dict[str, Floats]:
        """Cycles that each array, each storage level and the dependences of a group (from 0) ask for."""
        found = self.groups[group]
        names = {name: name.split(" ", 1)[1] for name in found if name.startswith(("busy ", "transfer "))}
        return {**{short: found[name] for name, short in names.items()}, "dependences": found["dependences"]}

    def bound_by(self, group: int) -> list[str]:
        """What bounds each point of a group: the first of the greatest bounds."""
        found = self.bounds(group)
        names = list(found)
        return [names[i] for i in np.argmax(np.stack(list(found.values())), axis=0)]

    def why(self, point: int) -> Diagnostic | None:
        """Why a point is not valid."""
        if self.valid[point]:
            return None
        try:
            self.batch.model(self.points, point)
        except EinsmithError as error:
            return error.diagnostics[0]
        return None


class _Points:
    """The numbers of all points of one call."""

    def __init__(self, batch: Batch, sizes: Map_[str, ArrayLike], arch: Map_[str, ArrayLike], tiles: Map_[str, ArrayLike]) -> None:
        self.batch = batch
        self.sizes = {name: np.asarray(value) for name, value in sizes.items()}
        self.arch = batch._leaves_of(arch)
        self.tiles = {key: np.asarray(value) for name, value in tiles.items() for key in [batch.loop_of(name)]}
        every = {**self.sizes, **self.arch, **{str(key): value for key, value in self.tiles.items()}}
        lengths = {name: len(value) for name, value in every.items() if value.ndim}
        self.count = max(lengths.values(), default=1)
        for name, length in lengths.items():
            if length != self.count:
                raise ValueError(f"`{name}` has {length} numbers, others have {self.count}")
        self.broken = np.zeros(self.count, dtype=bool)
        """Points with a number that nothing can have."""
        for name, value in self.arch.items():
            last = name.rsplit(".", 1)[-1]
            least = 1 if any(part in name.split(".") for part in _AT_LEAST_ONE) else 0
            bad = ~(value > 0) if last in _ABOVE_ZERO else ~(value >= least)
            if name != "clock_hz" and least == 1:
                bad |= value != np.floor(value)
            self.broken |= bad
        for value in self.tiles.values():
            self.broken |= (value < 1) | (value != np.floor(value)) | (value > 2**48)
        self._bind()

    def _bind(self) -> None:
        """The extents of every rank and the scalars: those of each combination of sizes are worked out once."""
        batch = self.batch
        names = [name for name, value in self.sizes.items() if value.ndim]
        of: NDArray[np.int64] = np.zeros(self.count, dtype=np.int64)
        for name in names:
            values, which = np.unique(self.sizes[name], return_inverse=True)
            of = np.unique(of * len(values) + which.reshape(-1), return_inverse=True)[1].reshape(-1)
        first = np.zeros(of.max(initial=0) + 1, dtype=np.int64)
        first[of[::-1]] = np.arange(self.count)[::-1]
        rows = [[self.sizes[name][at] for name in names] for at in first]
        single = {name: _number(value.item()) for name, value in self.sizes.items() if not value.ndim}
        self.of = of
        self.bound: list[Sizes | EinsmithError] = []
        for row in rows:
            given = {**batch.mapping.sizes, **batch.sizes, **single, **{n: _number(v) for n, v in zip(names, row, strict=True)}}
            try:
                found = bind(batch.cascade, given, batch.params)
                self.bound.append(found)
            except EinsmithError as error:
                self.bound.append(error)

    def extent(self, rank: str) -> Any:
        return self._gather([0 if isinstance(b, EinsmithError) else b.extents[rank] for b in self.bound])

    def scalar(self, name: str) -> Any:
        return self._gather([1 if isinstance(b, EinsmithError) else b.scalars[name] for b in self.bound])

    def _gather(self, values: list[Any]) -> Any:
        """A number if it is the same for all points, else an array."""
        if all(value == values[0] for value in values):
            return float(values[0])
        return np.array(values, dtype=np.float64)[self.of]

    def tile(self, group: int, axis: int) -> Any:
        value = self.tiles.get((group, axis))
        return float(self.batch.mapping.groups[group].loops[axis].tile) if value is None else _plain(value)

    def in_flight(self, group: int) -> Any:
        value = self.tiles.get((group, -1))
        return float(self.batch.mapping.groups[group].in_flight) if value is None else _plain(value)

    def hardware(self, path: str) -> Any:
        value = self.arch.get(path)
        return self.batch.leaves[path] if value is None else _plain(value)

    def input(self, name: str) -> Any:
        """The numbers of an input of a tape."""
        kind, rest = name.split(" ", 1)
        match kind:
            case "extent":
                return self.extent(rest)
            case "scalar":
                return self.scalar(rest)
            case "tile":
                group, axis = rest.split(".")
                return self.tile(int(group) - 1, int(axis))
            case "in_flight":
                return self.in_flight(int(rest) - 1)
            case _:
                return self.hardware(rest)


def _plain(value: NDArray[Any]) -> Any:
    return value.astype(np.float64) if value.ndim else float(value)


def _number(value: Any) -> Any:
    return int(value) if float(value).is_integer() else float(value)


def compile(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
) -> Batch:
    """The structure of a mapping, ready for many numbers. Raises EinsmithError (E510, E531) where it does not fit the cascade."""
    return Batch(cascade, arch, mapping, sizes, params)


class Batch:
    """A compiled structure; call it with arrays."""

    def __init__(
        self,
        cascade: Cascade,
        arch: Architecture,
        mapping: Mapping,
        sizes: Map_[str, int] | None = None,
        params: Map_[str, int | float] | None = None,
    ) -> None:
        self.cascade, self.arch, self.mapping = flatten(cascade), arch, mapping
        self.sizes, self.params = dict(sizes or {}), dict(params or {})
        self.leaves = leaves(arch)
        _check_names(self.cascade, mapping)
        homes = {name: number for number, group in enumerate(mapping.groups) for name in group.einsums}
        _check_order(self.cascade, homes)
        self.outgoing = _outgoing(self.cascade, homes)
        self.roomy = roomy(arch)
        self.two_levels = _two_levels(arch, mapping)
        self.groups = [_Group(self, number, group) for number, group in enumerate(mapping.groups)]
        tape = Tape()
        self.area = Program(tape, Hardware(tape, arch).area) if self.two_levels else None
        self._marks: dict[Any, tuple[Any, ...]] = {}

    def __call__(
        self,
        sizes: Map_[str, ArrayLike] | None = None,
        arch: Map_[str, ArrayLike] | None = None,
        tiles: Map_[str, ArrayLike] | None = None,
        fast: bool | None = None,
    ) -> Results:
        """The cost of all points; `fast`: with numba or without (None: where it pays)."""
        points = _Points(self, sizes or {}, arch or {}, tiles or {})
        count = points.count
        wrong = np.array([isinstance(b, EinsmithError) for b in points.bound])[points.of]
        empty = np.array([not isinstance(b, EinsmithError) and not all(b.extents.values()) for b in points.bound])[points.of]
        open_: Bools = empty & ~points.broken
        legal = ~(points.broken | wrong | empty)
        refused: dict[int, Diagnostic] = {}
        found: list[dict[str, Floats]] = []
        for group in self.groups:
            found.append(group.run(points, legal, open_, refused, fast))
        fits = np.ones(count, dtype=bool)
        for values in found if self.two_levels else ():
            fits &= ~(values["need"] > points.hardware(f"{self.arch.buffer[0]}.size"))
            for name in self.arch.arrays:
                fits &= ~(values[f"lanes {name}"] > points.hardware(f"{name}.registers.words"))
        area = {name: np.full(count, np.nan) for name in self.arch.area_um2}
        if self.area is not None:
            area = self.area.run({name: points.input(name) for name in self.area.inputs}, count, fast)
        results = Results(self, points, legal & fits & ~open_, fits, 0, tuple(found), area, refused)
        for point in np.flatnonzero(open_ & (legal | empty)):
            results.exact += 1
            self._exactly(results, int(point))
        return results

    def model(self, points: _Points, point: int) -> Cost:
        """The point by `cost.model`."""
        bound = points.bound[points.of[point]]
        if isinstance(bound, EinsmithError):
            raise bound
        names = [*points.sizes, *self.sizes, *self.mapping.sizes]
        sizes = {name: int(bound.scalars[name]) for name in names}
        return model(self.cascade, self._arch_at(points, point), self._mapping_at(points, point), sizes, self.params)

    def _mapping_at(self, points: _Points, point: int) -> Mapping:
        groups = []
        for number, group in enumerate(self.mapping.groups):
            loops = tuple(
                loop.model_copy(update={"tile": int(_at(points.tile(number, axis), point))})
                for axis, loop in enumerate(group.loops)
            )
            groups.append(group.model_copy(update={"loops": loops, "in_flight": int(_at(points.in_flight(number), point))}))
        return self.mapping.model_copy(update={"groups": tuple(groups)})

    def _arch_at(self, points: _Points, point: int) -> Architecture:
        if not points.arch:
            return self.arch
        plain = self.arch.model_dump()
        for path, value in points.arch.items():
            at = plain
            *parents, last = keys_of(self.arch, path)
            for key in parents:
                at = at[key]
            at[int(last) if isinstance(at, list) else last] = _number(_at(value, point))
        return Architecture.model_validate(plain)

    def _exactly(self, results: Results, point: int) -> None:
        """One point by `cost.model`, put in its place."""
        try:
            cost = self.model(results.points, point)
        except EinsmithError as error:
            results.refused.setdefault(point, error.diagnostics[0])
            return
        results.valid[point] = results.fits[point] = True
        for name, area in cost.arch.area_um2.items():
            results.area_parts[name][point] = area
        for values, group, nest in zip(results.groups, cost.groups, cost.placed.nests, strict=True):
            found = {
                "cycles": group.timing.cycles, "fill": group.timing.fill, "dependences": group.timing.dependences,
                "need": group.buffer_need, "energy": group.energy_pj, "buffer read": group.buffer_words["read"],
                "buffer written": group.buffer_words["written"],
                "words": sum(sum(by.values()) for by in group.traffic_words.values()),
            }  # fmt: skip
            found |= {f"busy {name}": value for name, value in group.timing.busy.items()}
            found |= {f"transfer {name}": group.timing.transfers.get(name, 0.0) for name in cost.arch.memory}
            found |= {f"energy {name}": value for name, value in group.energy_parts.items()}
            found |= {f"read {name}": value for name, value in group.traffic_words["read"].items()}
            found |= {f"written {name}": value for name, value in group.traffic_words["write"].items()}
            found |= {f"lanes {name}": sum(nest.lane_needs(name).values()) for name in cost.arch.arrays}
            found |= {f"useful {name}": 0.0 for name in cost.arch.arrays}
            for name, einsum in group.einsums.items():
                found[f"useful {einsum.array}"] += einsum.useful_cycles
                found[f"step {name}"] = einsum.cycles
            for name, value in found.items():
                values.setdefault(name, np.full(len(results), np.nan))[point] = value

    # --- names ---

    def _leaves_of(self, arch: Map_[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name, value in arch.items():
            path = name.removeprefix("arrays.").removeprefix("memory.")
            array = np.asarray(value)
            if path.endswith(".side") and f"{path}.0" in self.leaves:
                sides = [key for key in self.leaves if key.startswith(f"{path}.")]
                found |= {key: array[:, axis] if array.ndim > 1 else array for axis, key in enumerate(sides)}
                continue
            if path not in self.leaves:
                close = difflib.get_close_matches(path, self.leaves, 1)
                raise EinsmithError(
                    Diagnostic(
                        "E503", f"no number of architecture `{self.arch.name}` is named `{name}`",
                        help=f"did you mean `{close[0]}`?" if close else "",
                    )
                )  # fmt: skip
            found[path] = array
        for name, level in self.arch.memory.items():
            if level.scaling is not None and f"{name}.size" in found:
                for key in ("read_pj", "write_pj"):
                    law: tuple[float, float] = getattr(level, key), getattr(level.scaling, key)
                    found.setdefault(f"{name}.{key}", np.asarray(level.scaling.of(found[f"{name}.size"], *law)))
        return found

    def loop_of(self, name: str) -> tuple[int, int]:
        """(group, loop) of `GROUP.RANK` or `GROUP.RANK.NUMBER`; loop -1: tiles in flight."""
        number, _, rest = name.partition(".")
        rank, _, which = rest.partition(".")
        if number.isdigit() and 1 <= int(number) <= len(self.mapping.groups):
            group = self.mapping.groups[int(number) - 1]
            if rest == "in_flight":
                return int(number) - 1, -1
            axes = [axis for axis, loop in enumerate(group.loops) if loop.rank == rank]
            if len(axes) == 1 and not which:
                return int(number) - 1, axes[0]
            if which.isdigit() and int(which) < len(axes):
                return int(number) - 1, axes[int(which)]
        known = [
            f"{n}.{loop.rank}" + (f".{i}" if sum(x.rank == loop.rank for x in group.loops) > 1 else "")
            for n, group in enumerate(self.mapping.groups, 1)
            for at, loop in enumerate(group.loops)
            for i in [sum(x.rank == loop.rank for x in group.loops[:at])]
        ]
        raise EinsmithError(
            Diagnostic("E510", f"the mapping has no loop `{name}`", help="it has " + ", ".join(f"`{n}`" for n in known))
        )

    def mark(self, bound: Sizes) -> tuple[Any, ...]:
        """What sizes alone decide about the structure."""
        key = tuple(bound.scalars.items())
        if key not in self._marks:
            self._marks[key] = (
                tuple(extent == 1 for extent in bound.extents.values()),
                tuple(work(einsum, bound.scalars) for einsum in self.cascade.einsums),
            )
        return self._marks[key]


class _Group:
    """One fusion group of a compiled structure."""

    def __init__(self, batch: Batch, number: int, group: Group) -> None:
        self.batch, self.number, self.group = batch, number, group
        self.cases: dict[Any, Program | Diagnostic | None] = {}
        """By structure: the closed form; why it is illegal; None: for `cost.model`."""

    def run(
        self, points: _Points, legal: Bools, open_: Bools, refused: dict[int, Diagnostic], fast: bool | None
    ) -> dict[str, Floats]:
        keys, which = self._keys(points, legal)
        whole: dict[str, Floats] = {}
        for number, key in enumerate(keys):
            mine = np.flatnonzero(which == number)
            mine = mine[legal[mine]]
            if not len(mine):
                continue
            if key not in self.cases:
                self.cases[key] = self._case(points, int(mine[0]))
            case = self.cases[key]
            if isinstance(case, Diagnostic):
                legal[mine] = False
                refused[int(mine[0])] = case
                continue
            if case is None:
                open_[mine] = True
                continue
            inputs = {name: points.input(name) for name in case.inputs}
            if len(mine) == points.count:
                whole = case.run(inputs, points.count, fast)
                continue
            part = case.run({n: v[mine] if np.ndim(v) else v for n, v in inputs.items()}, len(mine), fast)
            for name, values in part.items():
                whole.setdefault(name, np.full(points.count, np.nan))[mine] = values
        for name in ("cycles", "fill", "energy", "words", "need", "dependences"):
            whole.setdefault(name, np.full(points.count, np.nan))
        for name in self.batch.arch.arrays:
            for what in ("busy", "useful", "lanes", "energy"):
                whole.setdefault(f"{what} {name}", np.full(points.count, np.nan))
            whole.setdefault(f"energy {name} registers", np.full(points.count, np.nan))
        for name in self.batch.arch.memory:
            for what in ("transfer", "energy"):
                whole.setdefault(f"{what} {name}", np.full(points.count, np.nan))
        return whole

    def _keys(self, points: _Points, legal: Bools) -> tuple[list[Any], NDArray[np.int64]]:
        """The cases that occur, and the case of each point."""
        marks: dict[Any, int] = {}
        of_size = np.array(
            [marks.setdefault(None if isinstance(b, EinsmithError) else self.batch.mark(b), len(marks)) for b in points.bound]
        )
        bits: list[Any] = []
        outer: dict[str, Any] = {}
        raw: dict[str, Any] = {}
        for axis, loop in enumerate(self.group.loops):
            tile = points.tile(self.number, axis)
            if loop.rank not in self.batch.cascade.rank_order:
                message = f"group {self.number + 1} loops over `{loop.rank}`, which the cascade does not have"
                raise EinsmithError(Diagnostic("E510", message))
            length = outer.get(loop.rank, points.extent(loop.rank))
            if loop.rank in raw:
                legal &= np.asarray(tile <= raw[loop.rank])
            bits += [np.asarray(tile < length), np.asarray(tile == 1)]
            raw[loop.rank], outer[loop.rank] = tile, np.minimum(tile, length)
        which: NDArray[np.int64] = of_size[points.of].astype(np.int64)
        for bit in bits:
            which = which * 2 + bit
            if which.max(initial=0) > 2**40:
                which = np.unique(which, return_inverse=True)[1].reshape(-1)
        _, at, numbers = np.unique(which, return_index=True, return_inverse=True)
        names = list(marks)
        keys: list[Any] = []
        for index in at:
            keys.append((names[of_size[points.of[index]]], tuple(bool(np.broadcast_to(bit, points.count)[index]) for bit in bits)))
        return keys, numbers.reshape(-1)

    def _case(self, points: _Points, point: int) -> Program | Diagnostic | None:
        batch = self.batch
        if not batch.two_levels:
            return None
        bound = points.bound[points.of[point]]
        assert isinstance(bound, Sizes)
        group = batch._mapping_at(points, point).groups[self.number].model_copy(update={"in_flight": 1})
        try:
            nest = place_group(batch.cascade, batch.roomy, bound, group, self.number + 1, batch.outgoing)
        except EinsmithError as error:
            return error.diagnostics[0]
        if _masked(nest, bound):
            return None
        tape = Tape()
        one = frozenset(axis for axis, loop in enumerate(group.loops) if loop.tile == 1)
        try:
            return Program(tape, Closed(nest, tape, one).cost())
        except Open:
            return None


def _masked(nest: Nest, bound: Sizes) -> bool:
    """Whether a mask may leave tiles out."""
    for mask in masks(nest.cascade, nest.cut):
        if any(step.position in mask.skips for step in nest.steps) and not _always(mask.condition, bound):
            return True
    return False


def _always(condition: Expr, bound: Sizes) -> bool:
    """Whether scalars alone make a condition true."""
    match condition:
        case Map(op="or", args=args):
            return any(_always(arg, bound) for arg in args)
        case Map(op="and", args=args):
            return all(_always(arg, bound) for arg in args)
    return not free_ranks(condition) and bool(evaluate_scalar(condition, bound.scalars))


def _two_levels(arch: Architecture, mapping: Mapping) -> bool:
    """Whether the closed form covers the structure: one buffer that all arrays share, with one port, holding inputs only."""
    try:
        name, buffer = arch.buffer
    except EinsmithError:
        return False
    ports = any(level.read_bandwidth or level.write_bandwidth for level in (arch.backing[1], buffer))
    loops = [loop for group in mapping.groups for loop in group.loops]
    plain = all(loop.over is None and set(loop.held(name)) <= {name} for loop in loops)
    plain_groups = not any(group.bypass or group.special for group in mapping.groups) and not mapping.pipelined_loops
    return plain and not ports and plain_groups


def _at(value: Any, point: int) -> Any:
    return value[point] if np.ndim(value) else value
