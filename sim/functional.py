"""A mapping executed for its values: tile by tile, in the mapped order, on real data, every access counted.

In: a cascade, an architecture, a mapping, arrays for the inputs. Out: an `Executed`: the outputs, and the words that were read
and written at each storage level. Nothing is taken from the cost model: what the buffer holds are copies of the tiles that were
brought in, all else there is NaN; what is made on chip is lost when the next tile takes its place; the folds of each Einsum
over its array are walked one by one. A mapping that reads what is not there yet, or no longer, gives wrong values here, and a
count that the model gets wrong differs here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping as Map_
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..einsum.arithmetic import as_float
from ..einsum.cascade import Access, Cascade, Coord, Einsum, Map, Number, Reduce, Select, free_ranks
from ..einsum.domain import Domain
from ..einsum.inputs import as_arrays, checked, infer_sizes, random_inputs
from ..einsum.interpret import DTYPES, Evaluator, evaluate
from ..einsum.reductions import combined, identity, reduced
from ..einsum.sizes import bind
from ..mapper.architecture import Architecture
from ..mapper.cost import Cost, cost
from ..mapper.mapping import Mapping
from ..mapper.masks import masks
from ..mapper.nest import Nest, Resident, Step, Stream, place, refuse
from .tasks import Index, Lookup, Tasks, lookup

Values = NDArray[Any]
MAX_POINTS = 2**26
"""Most points of one Einsum that are executed: this is a check on small problems."""


@dataclass
class Counted:
    """Words moved by one group."""

    read: dict[str, float] = field(default_factory=dict)
    """From the backing store, by tensor."""
    write: dict[str, float] = field(default_factory=dict)
    """To it."""
    buffer: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "written": 0.0})


@dataclass(frozen=True)
class Executed:
    """What the execution gave."""

    outputs: dict[str, Values]
    errors: dict[str, float]
    """Greatest difference of each output to the interpreter's value, relative to its largest finite element."""
    counts: tuple[Counted, ...]
    """By group."""
    model: Cost

    @property
    def equal(self) -> bool:
        """Whether all values are the interpreter's, up to the order of summation."""
        return all(error <= 1e-9 for error in self.errors.values())

    @property
    def differences(self) -> list[str]:
        """Counts that are not the cost model's."""
        found = []
        for number, (mine, theirs) in enumerate(zip(self.counts, self.model.groups, strict=True), 1):
            for way, counted in (("read", mine.read), ("write", mine.write)):
                expected = {name: words for name, words in theirs.traffic_words[way].items() if words}
                for name in sorted(counted.keys() | expected.keys()):
                    have, theirs_has = counted.get(name, 0.0), expected.get(name, 0.0)
                    if have != theirs_has:
                        found.append(f"group {number}: {way} {have:,.0f} words of `{name}`; the model has {theirs_has:,.0f}")
            for way, words in mine.buffer.items():
                if not math.isclose(words, theirs.buffer_words[way], rel_tol=1e-12):
                    found.append(f"group {number}: buffer {way} {words:,.0f} words; the model has {theirs.buffer_words[way]:,.0f}")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "equal": self.equal,
            "errors": self.errors,
            "counts_equal": not self.differences,
            "differences": self.differences,
            "groups": [{"read": each.read, "write": each.write, "buffer": each.buffer} for each in self.counts],
        }

    def __str__(self) -> str:
        worst = max(self.errors.values(), default=0.0)
        how = "equal to" if self.equal else "DIFFERENT from"
        lines = [f"executed tile by tile: values {how} the interpreter's (at most {worst:.2g} apart)"]
        for number, each in enumerate(self.counts, 1):
            for way, words in (("read", each.read), ("write", each.write)):
                listed = ", ".join(f"{name} {count:,.0f}" for name, count in words.items())
                lines.append(f"    group {number} {way:6} {listed or 'nothing'} words")
            lines.append(f"    group {number} buffer read {each.buffer['read']:,.0f}, written {each.buffer['written']:,.0f} words")
        lines += self.differences or ["    every count is the cost model's"]
        return "\n".join(lines)


def execute(
    cascade: Cascade,
    arch: Architecture,
    mapping: Mapping,
    inputs: Map_[str, Values],
    sizes: Map_[str, int] | None = None,
    params: Map_[str, int | float] | None = None,
) -> Executed:
    """Execute a mapping on data. Raises EinsmithError where it is illegal or too large (E542)."""
    arrays = as_arrays(inputs)
    known = infer_sizes(cascade, arrays, {**mapping.sizes, **(sizes or {})}, params)
    placed = place(cascade, arch, mapping, known, params)
    for nest in placed.nests:
        for step in nest.steps:
            points = math.prod(nest.sizes.extents[rank] for rank in step.ranks)
            if points > MAX_POINTS:
                raise refuse(
                    "E542", f"`{step.name}` has {points:,} points; a mapping is executed for its values up to {MAX_POINTS:,}",
                    "give smaller sizes: what is right for small ones with tails is right for large ones", step.einsum.span,
                )  # fmt: skip
    store = checked(placed.cascade, arrays, placed.sizes)
    counts: list[Counted] = []
    with np.errstate(all="ignore"):
        for nest in placed.nests:
            counts.append(_Group(nest, store).run())
    expected = evaluate(cascade, arrays, known, params)
    outputs = {name: store[name] for name in cascade.outputs}
    errors = {name: _error(outputs[name], expected[name]) for name in cascade.outputs}
    return Executed(outputs, errors, tuple(counts), cost(placed))


def random_data(
    cascade: Cascade, mapping: Mapping, sizes: Map_[str, int] | None = None, params: Map_[str, int | float] | None = None
) -> dict[str, Values]:
    """Random inputs for a mapped cascade, always the same ones. Raises EinsmithError (E542) where they would be too large."""
    known = bind(cascade, {**mapping.sizes, **(sizes or {})}, params)
    for tensor in cascade.inputs:
        words = math.prod(known.extents[rank] for rank in tensor.ranks)
        if words > MAX_POINTS:
            raise refuse(
                "E542", f"`{tensor.name}` has {words:,} elements; a mapping is executed for its values up to {MAX_POINTS:,} points",
                "give smaller sizes: what is right for small ones with tails is right for large ones",
            )  # fmt: skip
    return random_inputs(cascade, {**mapping.sizes, **(sizes or {})}, params, np.random.default_rng(0))


def _error(found: Values, expected: Values) -> float:
    """Greatest relative difference; infinite where one is finite, or NaN, and the other is not."""
    a, b = as_float(found), as_float(expected)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    scale = max(1.0, float(np.abs(b[finite]).max(initial=0.0)))
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0)) / scale


def _lost(shape: Sequence[int], dtype: type) -> Values:
    """Storage in which nothing is yet."""
    return np.full(shape, np.nan) if dtype is np.float64 else np.zeros(shape, dtype)


class _Group:
    """One fusion group as it runs. `store` is the backing store: it gains what the group makes for others."""

    def __init__(self, nest: Nest, store: dict[str, Values]) -> None:
        self.nest, self.store = nest, store
        self.cascade: Cascade = nest.cascade
        self.tasks = Tasks(nest, 0.0)
        self.evaluator = Evaluator(nest.cascade, nest.sizes, {})
        self.counted = Counted()
        self.buffer = nest.arch.buffer[0]
        self.held: list[Values] = [_lost(store[s.tensor].shape, DTYPES[self.cascade.tensor(s.tensor).dtype]) for s in nest.streams]
        """What the buffer holds of each stream."""
        self.boxes: list[tuple[int, ...] | None] = [None] * len(nest.streams)
        self.made: dict[str, Values] = {}
        """What was made on chip and is still there."""
        self.begun: dict[str, NDArray[np.bool_]] = {}
        """Elements to which a reduction has added something."""
        self.counts_of: dict[str, Values] = {}
        """Points that a mean has seen."""
        self.occupant: dict[tuple[str, Index], Index] = {}
        for name in nest.residents:
            tensor = self.cascade.tensor(name)
            shape = self.evaluator.shape(tensor)
            self.made[name] = _lost(shape, DTYPES[tensor.dtype])
            self.begun[name] = np.zeros(shape, np.bool_)
            if name in nest.outgoing:
                store[name] = _lost(shape, DTYPES[tensor.dtype])

    def run(self) -> Counted:
        for index in self.tasks.tiles():
            for step in self.nest.steps:
                if self.tasks.runs(step, index):
                    self._step(step, index)
                elif not step.initial and self.tasks.skipped(step, index):
                    self._skip(step, index)
            for resident in self.nest.residents.values():
                if resident.leaves and self.tasks.complete(resident, index):
                    self._leave(resident, index)
        return self.counted

    def _range(self, rank: str, index: Index) -> tuple[int, int]:
        low, length = self.tasks.span(rank, index)
        return low, low + length

    # --- one Einsum in one tile ---------------------------------------------------------------------------------------

    def _step(self, step: Step, index: Index) -> None:
        for position, stream in enumerate(self.nest.streams):
            if step in stream.readers:
                self._fetch(position, stream, index)
        self._count_operands(step, index)
        visible: dict[str, Values] = {}
        for access in step.reads:
            visible[access.tensor] = self._seen(step, access)
        self.evaluator.tensors = visible
        self.evaluator.einsum = step.einsum
        body = step.einsum.body
        if isinstance(body, Select):
            raise refuse("E530", f"`{step.name}` selects, which is not executed tile by tile", span=step.einsum.span)
        bound = body.ranks if isinstance(body, Reduce) else ()
        outer = [rank for rank in step.ranks if rank not in bound]
        domain = Domain({rank: self._range(rank, index) for rank in (*sorted(outer), *bound)})
        resident = self.nest.residents[step.output]
        free = domain.only(outer)
        places = self._places(step.einsum, free)
        if not step.initial:
            self._make_room(resident, index)
        if isinstance(body, Reduce):
            self._accumulate(step, body, domain, free, places)
        else:
            self._write(step, domain, places)
        if resident.place == self.buffer and not step.initial:
            words = math.prod(domain.length(rank) for rank in outer if rank != self.cascade.tensor(step.output).iterates)
            self.counted.buffer["written"] += words

    def _seen(self, step: Step, access: Access) -> Values:
        """What a step finds of a tensor."""
        if access.tensor in self.made:
            return self.made[access.tensor]
        found = [
            self.held[position]
            for position, stream in enumerate(self.nest.streams)
            if stream.tensor == access.tensor and step in stream.readers
        ]
        values = found[0]
        for more in found[1:]:  # tiles of the same tensor, brought in for different indices
            values = np.where(np.isnan(values), more, values) if values.dtype == np.float64 else values
        return values

    def _places(self, einsum: Einsum, free: Domain) -> tuple[tuple[slice | int, ...], tuple[int, ...]]:
        """Where an Einsum writes, and the order of the dimensions of `free` there."""
        places: list[slice | int] = []
        order: list[int] = []
        for at in einsum.indices:
            match at:
                case Coord(rank=rank):
                    places.append(slice(*free.ranges[rank]))
                    order.append(free.axes[rank])
                case Map(args=(Coord(rank=rank), Number(value=1))):
                    low, high = free.ranges[rank]
                    places.append(slice(low + 1, high + 1))
                    order.append(free.axes[rank])
                case _:
                    places.append(0)
        return tuple(places), tuple(order)

    def _write(self, step: Step, domain: Domain, places: tuple[tuple[slice | int, ...], tuple[int, ...]]) -> None:
        where, order = places
        active = self.evaluator.partitions.existing(domain)
        values = np.broadcast_to(self.evaluator.value(step.einsum.body, domain, active), domain.shape)
        if active is not None:
            kept = self._before(step, domain)
            values = np.where(active, values, 0 if kept is None else kept)
        self.made[step.output][where] = values.transpose(order)

    def _before(self, step: Step, domain: Domain) -> Values | None:
        """What a running state held: a step that does not exist leaves it as it was."""
        tensor = self.cascade.tensor(step.output)
        if tensor.kind != "state" or step.initial:
            return None
        at = Access(tensor.name, tuple(Coord(rank) for rank in tensor.ranks), step.einsum.span)
        self.evaluator.tensors = {**self.evaluator.tensors, tensor.name: self.made[tensor.name]}
        return np.broadcast_to(self.evaluator.value(at, domain, None), domain.shape)

    def _accumulate(
        self, step: Step, body: Reduce, domain: Domain, free: Domain, places: tuple[tuple[slice | int, ...], tuple[int, ...]]
    ) -> None:
        where, order = places
        if body.op in ("argmax", "argmin"):
            raise refuse("E530", f"`{step.name}` finds a position, which is not executed tile by tile", span=step.einsum.span)
        active = self.evaluator.partitions.existing(domain)
        values = np.broadcast_to(self.evaluator.value(body.body, domain, active), domain.shape)
        if active is not None:
            values = np.where(active, values, identity(body.op, values.dtype))
        part = reduced(body.op, values, len(body.ranks)).transpose(order)
        target, begun = self.made[step.output], self.begun[step.output]
        before = begun[where]
        if step.reduced & self.nest.cut:
            if self.nest.residents[step.output].place == self.buffer:
                self.counted.buffer["read"] += int(np.count_nonzero(before))
            old = np.where(before, target[where], identity(body.op, part.dtype))
            part = combined(body.op, old.astype(part.dtype), part) if before.any() else part
        target[where] = part
        begun[where] = True
        if body.op == "mean":
            seen = np.broadcast_to(True if active is None else active, domain.shape).sum(
                axis=tuple(range(len(free.ranges), len(domain.ranges)))
            )
            counts = self.counts_of.setdefault(step.output, np.zeros(target.shape))
            counts[where] = np.where(before, counts[where], 0) + seen.transpose(order)
            if all(domain.ranges[rank][1] == self.nest.sizes.extents[rank] for rank in body.ranks):
                target[where] = target[where] / np.maximum(counts[where], 1)

    def _skip(self, step: Step, index: Index) -> None:
        """A mask leaves a step out: its reduction gets nothing, its state stays as it was, any other value is the mask's
        constant."""
        tensor = self.cascade.tensor(step.output)
        body = step.einsum.body
        outer = [rank for rank in step.ranks if not isinstance(body, Reduce) or rank not in body.ranks]
        free = Domain({rank: self._range(rank, index) for rank in sorted(outer)})
        self._make_room(self.nest.residents[step.output], index)
        where, order = self._places(step.einsum, free)
        target = self.made[step.output]
        if tensor.kind == "state":
            self.evaluator.tensors = {}
            before = self._before(step, free)
            assert before is not None
            target[where] = before.transpose(order)
        elif isinstance(body, Reduce) and target.dtype == np.float64:
            begun = self.begun[step.output]
            target[where] = np.where(begun[where], target[where], identity(body.op, target.dtype))
        elif step.position in (constants := self._constants(index)):
            target[where] = constants[step.position]

    def _constants(self, index: Index) -> dict[int, float]:
        """The values that masks give to Einsums in a tile, by position."""
        found: dict[int, float] = {}
        for live, constants in self._masks:
            if not live(index):
                found |= constants
        return found

    @cached_property
    def _masks(self) -> list[tuple[Lookup, Map_[int, float]]]:
        nest = self.nest
        constants: dict[frozenset[int], dict[int, float]] = {}
        for mask in masks(nest.cascade, nest.cut):  # of masks that skip the same, what they agree on
            known = constants.setdefault(mask.skips, dict(mask.constants))
            constants[mask.skips] = {at: value for at, value in known.items() if mask.constants.get(at) == value}
        return [(lookup(live), constants[skips]) for live, skips in nest.masks]

    # --- what is where ------------------------------------------------------------------------------------------------

    def _fetch(self, position: int, stream: Stream, index: Index) -> None:
        """Bring a tile into the buffer, in the place of the one before."""
        box = self.tasks.box(position, index)
        if self.boxes[position] == box:
            return
        self.boxes[position] = box
        source = self.store[stream.tensor]
        part = tuple(slice(low, high + 1) for low, high in zip(box[::2], box[1::2], strict=True))
        self.held[position][...] = _lost((), source.dtype.type)
        self.held[position][part] = source[part]
        words = source[part].size
        self.counted.read[stream.tensor] = self.counted.read.get(stream.tensor, 0) + words
        self.counted.buffer["written"] += words

    def _make_room(self, resident: Resident, index: Index) -> None:
        """What was in the place that a new tile takes is lost."""
        key, slot = self.tasks.key(resident, index), (resident.tensor, self.tasks.slot(resident, index))
        if self.occupant.get(slot) == key:
            return
        tensor = self.cascade.tensor(resident.tensor)
        if slot in self.occupant:
            former = self._region(resident, self.occupant[slot])
            if tensor.kind != "state":
                self.made[resident.tensor][former] = _lost((), self.made[resident.tensor].dtype.type)
            self.begun[resident.tensor][former] = False
        self.occupant[slot] = key

    def _region(self, resident: Resident, key: Index) -> tuple[slice, ...]:
        """The elements of the tile with a key."""
        axes = self.tasks.axes[resident.tensor][0]
        at = dict(zip(axes, key, strict=True))
        index = tuple(at.get(axis, 0) for axis in range(len(self.nest.trips)))
        own = {self.nest.group.loops[axis].rank for axis in axes}
        tensor = self.cascade.tensor(resident.tensor)
        return tuple(slice(*self._range(rank, index)) if rank in own else slice(None) for rank in tensor.ranks)

    def _leave(self, resident: Resident, index: Index) -> None:
        """Write a complete tile to the backing store."""
        tensor = self.cascade.tensor(resident.tensor)
        part = tuple(slice(*self._range(rank, index)) if rank != tensor.iterates else slice(None) for rank in tensor.ranks)
        values = self.made[resident.tensor][part]
        self.store[resident.tensor][part] = values
        words = math.prod(
            self._range(rank, index)[1] - self._range(rank, index)[0] for rank in tensor.ranks if rank != tensor.iterates
        )
        self.counted.write[resident.tensor] = self.counted.write.get(resident.tensor, 0) + words
        if resident.place == self.buffer:
            self.counted.buffer["read"] += words

    # --- operands, fold by fold ---------------------------------------------------------------------------------------

    def _count_operands(self, step: Step, index: Index) -> None:
        """Distinct elements that each fold of a step over its array reads of each operand that the buffer holds."""
        operands = []
        for access in step.reads:
            resident = self.nest.residents.get(access.tensor)
            if resident is None or resident.place == self.buffer:
                operands.append(access)
        if not operands:
            return
        sides = []
        for side, lanes in enumerate(step.array.side):
            ranks = step.binding.along(side)
            points = list(itertools.product(*(range(*self._range(rank, index)) for rank in ranks)))
            sides.append([dict_of(ranks, points[at : at + lanes]) for at in range(0, len(points), lanes)])
        temporal = {rank: np.arange(*self._range(rank, index)) for rank in step.ranks - step.binding.ranks}
        for access in operands:
            used = frozenset().union(*(free_ranks(expr) for expr in access.indices))
            for fold in itertools.product(*sides):
                self.counted.buffer["read"] += self._distinct(access, used, fold, temporal)

    def _distinct(
        self, access: Access, ranks: frozenset[str], fold: tuple[dict[str, Values], ...], temporal: dict[str, Values]
    ) -> int:
        """How many elements one fold reads through an access: one coordinate array per group of ranks that vary together."""
        together = [{rank: values for rank, values in part.items() if rank in ranks} for part in fold]
        together += [{rank: values} for rank, values in temporal.items() if rank in ranks]
        together = [part for part in together if part]
        shape = [len(next(iter(part.values()))) for part in together]
        where: dict[str, Values] = {}
        for axis, part in enumerate(together):
            for rank, values in part.items():
                where[rank] = values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        tensor = self.cascade.tensor(access.tensor)
        flat: Values = np.zeros(shape or (1,), dtype=np.int64)
        inside: Values = np.ones(flat.shape, dtype=np.bool_)
        for rank, expr in zip(tensor.ranks, access.indices, strict=True):
            if rank == tensor.iterates:
                continue  # one position is kept
            extent = self.nest.sizes.extents[rank]
            at = np.asarray(_at(expr, where, self.nest.sizes.scalars))
            flat = flat * extent + at
            inside = inside & (at >= 0) & (at < extent)
        return int(np.unique(flat[inside]).size)


def dict_of(ranks: tuple[str, ...], points: list[tuple[int, ...]]) -> dict[str, Values]:
    """Coordinates of some lanes, by rank."""
    return {rank: np.array([point[at] for point in points], dtype=np.int64) for at, rank in enumerate(ranks)}


def _at(expr: Any, where: Map_[str, Values], scalars: Map_[str, int | float]) -> Values:
    """An index expression at coordinates."""
    from ..einsum.arithmetic import apply
    from ..einsum.cascade import Scalar

    match expr:
        case Coord(rank=rank):
            return where[rank]
        case Number(value=value):
            return np.asarray(value)
        case Scalar(name=name):
            return np.asarray(scalars[name])
        case Map(op=op, args=args):
            return apply(op, tuple(_at(arg, where, scalars) for arg in args))
    raise AssertionError(expr)
