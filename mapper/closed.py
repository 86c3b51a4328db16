"""The cost model in closed form: a placed group as formulas in its tiles, extents and the numbers of its architecture.

In: a `Nest` that stands for all mappings of one structure (same loops longer than one iteration, same slots, places, bindings).
Out: the quantities of `cost` and `timing` as values on a tape. Sums over tiles need no table: the tiles of a rank come in few kinds
(full ones, and the last of each loop), each with its number, and a rank that enters by its length alone sums to its extent. Equal
to the model by test; what has no closed form here (indices other than a rank, a split rank or `h // G`) is `Open`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..einsum.cascade import Access, Coord, Expr, Map, Number, Scalar, free_ranks
from .architecture import STAND_INS, Architecture
from .nest import Nest, Resident, Step, Stream
from .operations import Work
from .tape import Tape, Value, ceil, ceil_div, floor, greater, log2, maximum, minimum, product, total, where
from .timing import carried, in_order, predecessors


class Open(Exception):
    """The structure has no closed form here; the message names the part."""


@dataclass(frozen=True)
class Hardware:
    """The numbers of an architecture as inputs of a tape: `arch NAME.KEY`, named as `--set` names them."""

    tape: Tape
    arch: Architecture

    def __getitem__(self, path: str) -> Value:
        return self.tape.input(f"arch {path}")

    def sides(self, array: str) -> list[Value]:
        return [self[f"{array}.side.{axis}"] for axis in range(len(self.arch.arrays[array].side))]

    def lanes(self, array: str) -> Value:
        return product(self.sides(array))

    def expand(self, array: str, operation: str) -> dict[str, Value]:
        """The operation as numbers of unit operations."""
        block = self.arch.arrays[array]
        if operation in block.units:
            return {operation: 1.0}
        own = operation in block.expansions
        parts = block.expansions[operation] if own else STAND_INS[operation]
        found: dict[str, Value] = {}
        for part, count in parts.items():
            times: Value = self[f"{array}.expansions.{operation}.{part}"] if own else float(count)
            for unit, number in self.expand(array, part).items():
                found[unit] = found.get(unit, 0.0) + number * times
        return found

    def cycles(self, array: str, operation: str) -> Value:
        return total(self[f"{array}.units.{unit}.cycles"] * count for unit, count in self.expand(array, operation).items())

    def register_pj(self, array: str, unit: str) -> Value:
        """Register energy of one operation."""
        reads = 3.0 if unit == "mac" else 2.0
        energy = self[f"{array}.registers.read_pj"] * reads + self[f"{array}.registers.write_pj"]
        return energy if self.arch.arrays[array].registers.counted == "all" else energy / self.lanes(array)

    def level_pj(self, level: str, read: Value, written: Value) -> Value:
        energy = read * self[f"{level}.read_pj"] + written * self[f"{level}.write_pj"]
        return energy * self["word_bytes"] / self[f"{level}.access_bytes"]

    @property
    def area(self) -> dict[str, Value]:
        """Area of each component."""
        parts: dict[str, Value] = {}
        for name, array in self.arch.arrays.items():
            registers = self[f"{name}.registers.area_um2"] + self[f"{name}.registers.area_um2_per_log2_words"] * ceil(
                log2(self[f"{name}.registers.words"])
            )
            lane = registers + total(self[f"{name}.units.{unit}.area_um2"] for unit in array.units)
            parts[name] = self.lanes(name) * lane + self[f"{name}.area_um2"]
        for name, level in self.arch.memory.items():
            if level.macro:
                whole = ceil_div(self[f"{name}.size"], self[f"{name}.macro.bytes"]) * self[f"{name}.macro.area_um2"]
                parts[name] = whole if level.size is not None else 0.0
        return parts


@dataclass(frozen=True)
class Dimension:
    """What an index does along one dimension of a tensor."""

    form: Literal["plain", "split", "shared", "constant"]
    """A rank itself; `outer * tile + inner`; `rank // n`; the same position always."""
    rank: str = ""
    """Plain, shared: the rank; split: the whole one."""
    inner: str = ""
    outer: str = ""
    share: Value = 1.0


@dataclass
class Closed:
    """The formulas of one group."""

    nest: Nest
    tape: Tape
    one: frozenset[int]
    """Loops with tile 1."""

    def __post_init__(self) -> None:
        self.hardware = Hardware(self.tape, self.nest.arch)
        self.group = self.nest.group
        self.active = [axis for axis, trips in enumerate(self.nest.trips) if trips > 1]
        self.depth = len(self.group.loops)
        self.in_flight = self.tape.input(f"in_flight {self.nest.number}")

    # --- tiles of a rank ---

    def extent(self, rank: str) -> Value:
        return self.tape.input(f"extent {rank}")

    def tile(self, axis: int) -> Value:
        return self.tape.input(f"tile {self.nest.number}.{axis}")

    def rank_of(self, axis: int) -> str:
        return self.group.loops[axis].rank

    def chain(self, rank: str, depth: int | None = None) -> list[int]:
        """Loops over a rank, from the outside, that have more than one iteration."""
        within = self.depth if depth is None else depth
        return [axis for axis in self.active if axis < within and self.rank_of(axis) == rank]

    def size(self, rank: str, depth: int | None = None) -> Value:
        """Positions in the largest tile."""
        chain = self.chain(rank, depth)
        return self.tile(chain[-1]) if chain else self.extent(rank)

    def is_one(self, rank: str, depth: int | None = None) -> bool:
        """Whether the tiles are known to hold one position."""
        chain = self.chain(rank, depth)
        return chain[-1] in self.one if chain else self.nest.sizes.extents[rank] == 1

    def trips(self, axis: int) -> Value:
        if axis not in self.active:
            return 1.0
        if axis in self.one:
            return self.size(self.rank_of(axis), axis)
        return ceil_div(self.size(self.rank_of(axis), axis), self.tile(axis))

    def kinds(self, rank: str, chain: Sequence[int]) -> list[tuple[Value, Value]]:
        """(number, positions) of the tiles that exist, as cut by some loops."""
        found: list[tuple[Value, Value]] = [(1.0, self.extent(rank))]
        for axis in chain:
            found = [part for number, length in found for part in self._cut(axis, number, length)]
        return found

    def _cut(self, axis: int, number: Value, length: Value) -> list[tuple[Value, Value]]:
        if axis in self.one:
            return [(number * length, 1.0)]
        tile = self.tile(axis)
        full = ceil_div(length, tile) - 1.0
        return [(number * full, tile), (number, length - full * tile)]

    def existing(self, rank: str, chain: Sequence[int] | None = None) -> Value:
        """Number of tiles that exist."""
        cut = self.chain(rank) if chain is None else chain
        if not cut:
            return 1.0
        return total(number * self._pieces(cut[-1], length) for number, length in self.kinds(rank, cut[:-1]))

    def _tiles(self, ranks: frozenset[str]) -> Value:
        return product(self.existing(rank) for rank in sorted(ranks))

    def _pieces(self, axis: int, length: Value) -> Value:
        return length if axis in self.one else ceil_div(length, self.tile(axis))

    def folds(self, step: Step, ranks: frozenset[str]) -> Value:
        """Sum over the tiles of the spatial ranks among `ranks` of how often they fill the array."""
        found: Value = 1.0
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            if here:
                parts = []
                for kinds in itertools.product(*(self.kinds(rank, self.chain(rank)) for rank in here)):
                    parts.append(product(n for n, _ in kinds) * ceil_div(product(length for _, length in kinds), lanes))
                found = found * total(parts)
        return found

    def most_folds(self, step: Step, ranks: frozenset[str]) -> Value:
        """How often the largest tile fills the array."""
        found: Value = 1.0
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            if here:
                found = found * ceil_div(product(self.size(rank) for rank in here), lanes)
        return found

    def repeats(self, ranks: frozenset[str]) -> Value:
        """Iterations of the loops over some ranks."""
        return product(self.trips(axis) for axis in self.active if self.rank_of(axis) in ranks)

    # --- steps ---

    def busy(self, step: Step) -> Value:
        found: Value = 0.0
        spatial = step.binding.ranks
        for item in step.work:
            term = self.folds(step, item.ranks) * product(self.extent(rank) for rank in sorted(item.ranks - spatial))
            last = step.reduced & self.nest.cut if item.after else frozenset()
            term = term * product(self.existing(rank) for rank in sorted(step.ranks - item.ranks - last))
            found = found + term * self.hardware.cycles(step.binding.array, item.operation)
        if (fill := self._fill(step)) is not None:
            rest = product(self.existing(rank) for rank in sorted(step.ranks - spatial))
            found = found + fill * self.folds(step, step.ranks) * rest
        return found

    def longest(self, step: Step) -> Value:
        found: Value = 0.0
        for item in step.work:
            term = self.most_folds(step, item.ranks) * product(self.size(rank) for rank in sorted(item.ranks - step.binding.ranks))
            found = found + term * self.hardware.cycles(step.binding.array, item.operation)
        if (fill := self._fill(step)) is not None:
            found = found + fill * self.most_folds(step, step.ranks)
        return found

    def _fill(self, step: Step) -> Value | None:
        if step.array.folds_overlap or not step.work:
            return None
        sides = self.hardware.sides(step.binding.array)
        return total(sides) - float(len(sides)) + (sides[0] if step.stationary else 0.0)

    def executions(self, step: Step) -> Value:
        return self._tiles(step.ranks)

    def points(self, step: Step, item: Work) -> Value:
        count = product(self.extent(rank) for rank in sorted(item.ranks))
        count = count * self.repeats(step.ranks - item.ranks - (step.reduced if item.after else frozenset()))
        for rank in self.nest.cascade.domain_splits(item.ranks):
            assert rank.split is not None
            count = count * self.extent(rank.name) / (self.extent(rank.split.outer) * self.extent(rank.split.inner))
        return count

    def ripple(self, step: Step) -> Value:
        hops: Value = 0.0
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            here = [rank for rank in step.binding.along(side) if rank in step.reduced]
            if here:
                hops = hops + minimum(lanes, product(self.size(rank) for rank in here))
        return hops * self.hardware[f"{step.binding.array}.ripple_cycles_per_hop"] if hops != 0.0 else 0.0

    # --- words ---

    def dimensions(self, tensor: str, indices: tuple[Expr, ...]) -> list[Dimension]:
        declared = self.nest.cascade.tensor(tensor)
        return [
            self._dimension(tensor, rank, index, rank == declared.iterates)
            for rank, index in zip(declared.ranks, indices, strict=True)
        ]

    def _dimension(self, tensor: str, rank: str, index: Expr, iterates: bool) -> Dimension:
        if not free_ranks(index) and not any(isinstance(part, Access) for part in _parts(index)):
            return Dimension("constant")
        split = self.nest.cascade.rank(rank).split
        match index:
            case Coord(rank=found) if self.nest.cascade.rank(found).extent == self.nest.cascade.rank(rank).extent:
                return Dimension("plain", found)
            case Map(op="+", args=(Coord(rank=found), Number(value=1))) if found == rank and iterates:
                return Dimension("plain", rank)
            case Map(op="+", args=(Map(op="*", args=(Coord(rank=outer), tile)), Coord(rank=inner))) if (
                split and (outer, inner) == (split.outer, split.inner) and tile == split.tile
            ):
                return Dimension("split", rank, inner, outer)
            case Map(op="//", args=(Coord(rank=found), Scalar(name=name))):
                return Dimension("shared", found, share=self.tape.input(f"scalar {name}"))
        raise Open(f"the index of `{tensor}` along `{rank}`")

    def dimension_size(self, dimension: Dimension, depth: int) -> Value:
        """Most positions along a dimension in one tile."""
        match dimension.form:
            case "constant":
                return 1.0
            case "plain":
                return self.size(dimension.rank, depth)
            case "split":
                self._check_split(dimension, depth)
                if self.chain(dimension.inner, depth):
                    return minimum(self.size(dimension.inner, depth), self.extent(dimension.rank))
                return minimum(self.size(dimension.outer, depth) * self.extent(dimension.inner), self.extent(dimension.rank))
            case _:
                if self.is_one(dimension.rank, depth):
                    return 1.0
                return self._distinct(dimension, depth)

    def _check_split(self, dimension: Dimension, depth: int) -> None:
        if self.chain(dimension.inner, depth) and not self.is_one(dimension.outer, depth):
            raise Open(f"windows of `{dimension.rank}` that overlap")

    def _distinct(self, dimension: Dimension, depth: int) -> Value:
        """Positions of `rank // n` over the whole rank."""
        if len(self.chain(dimension.rank, depth)) > (1 if self.is_one(dimension.rank, depth) else 0):
            raise Open(f"`{dimension.rank}` shared and cut")
        return floor((self.extent(dimension.rank) - 1.0) / dimension.share) + 1.0

    def _sums(self, dimensions: Sequence[Dimension], depth: int) -> tuple[Value, frozenset[str]]:
        """Sum over tiles of the words of each tile, and the ranks summed over."""
        found: Value = 1.0
        plain: dict[str, int] = {}
        summed: set[str] = set()
        for dimension in dimensions:
            if dimension.form == "plain":
                plain[dimension.rank] = plain.get(dimension.rank, 0) + 1
            elif dimension.form == "split":
                self._check_split(dimension, depth)
                found = found * self.extent(dimension.rank)
                summed |= {dimension.inner, dimension.outer}
            elif dimension.form == "shared":
                found = (
                    found * self.dimension_size(dimension, depth) * self.existing(dimension.rank, self.chain(dimension.rank, depth))
                )
                summed.add(dimension.rank)
        if summed & set(plain) or len(summed) < sum({"split": 2, "shared": 1}.get(d.form, 0) for d in dimensions):
            raise Open("a rank in several dimensions")
        for rank, power in plain.items():
            if power == 1:
                found = found * self.extent(rank)
            else:
                found = found * total(n * product([size] * power) for n, size in self.kinds(rank, self.chain(rank, depth)))
        return found, frozenset(summed | set(plain))

    def stream_tile(self, stream: Stream) -> Value:
        return product(self.dimension_size(d, stream.depth) for d in self.dimensions(stream.tensor, stream.indices))

    def stream_words(self, stream: Stream) -> Value:
        """Words fetched: every tile once, again for each iteration outside that finds it gone."""
        dimensions = self.dimensions(stream.tensor, stream.indices)
        ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
        involved = [axis for axis in self.active if axis < stream.depth and self.rank_of(axis) in ranks]
        words, _ = self._sums(dimensions, stream.depth)
        if not involved:
            return words
        last = self.rank_of(involved[-1])
        for dimension in dimensions:
            if dimension.form == "shared" and dimension.rank == last:
                words = words / self.existing(last, self.chain(last, stream.depth)) * self._distinct(dimension, stream.depth)
        read = frozenset().union(*(reader.ranks for reader in stream.readers))
        repeats = [
            axis for axis in self.active if axis < involved[-1] and self.rank_of(axis) not in ranks and self.rank_of(axis) in read
        ]
        moved = {axis: self._moved(axis, stream.depth, ranks) for axis in repeats}
        torn = sorted({rank for by in moved.values() for rank in by or ()})
        if not torn:
            return words * product(self._again(rank, repeats) for rank in _ranks_of(self, repeats))
        if any(d.form != "plain" and {d.rank, d.inner, d.outer} & set(torn) for d in dimensions):
            raise Open("a split rank cut on both sides of a loop that repeats")
        if len({d.rank for d in dimensions if d.rank in torn}) < sum(d.rank in torn for d in dimensions):
            raise Open("a rank in several dimensions")
        parts = []
        for paths in itertools.product(*(self._paths(rank, stream.depth, repeats) for rank in torn)):
            share = product(weight for weight, _ in paths)
            inside = {
                axis: None if moved[axis] is None else greater(product(pieces[axis] for _, pieces in paths), 1.0)
                for axis in repeats
            }
            parts.append(share * product(self._again(rank, repeats, inside) for rank in _ranks_of(self, repeats)))
        return words / product(self.extent(rank) for rank in torn) * total(parts)

    def _moved(self, axis: int, depth: int, ranks: frozenset[str]) -> list[str] | None:
        """Ranks whose loops inside `axis` may move the tile away; None if some do for certain."""
        inside = {self.rank_of(a) for a in self.active if axis < a < depth and self.rank_of(a) in ranks}
        if any(self.chain(rank, depth)[0] > axis for rank in inside):
            return None
        return sorted(inside)

    def _paths(self, rank: str, depth: int, repeats: list[int]) -> list[tuple[Value, dict[int, Value]]]:
        """The tiles of a rank by kind: (positions in all of them, for each repeating loop the tiles of the rank inside it)."""
        chain = self.chain(rank, depth)
        found: list[tuple[Value, Value, dict[int, Value]]] = [(1.0, self.extent(rank), {})]
        cuts = 0
        for axis in repeats:
            before = [a for a in chain if a < axis]
            for cut in before[cuts:]:
                found = [(n, size, dict(known)) for number, length, known in found for n, size in self._cut(cut, number, length)]
            cuts = len(before)
            for _, length, known in found:
                known[axis] = self._pieces_of(length, chain[cuts:])
        return [(number * length, known) for number, length, known in found]

    def _pieces_of(self, length: Value, chain: list[int]) -> Value:
        found: list[tuple[Value, Value]] = [(1.0, length)]
        for axis in chain[:-1]:
            found = [part for number, size in found for part in self._cut(axis, number, size)]
        return total(number * self._pieces(chain[-1], size) for number, size in found) if chain else 1.0

    def _again(self, rank: str, repeats: list[int], inside: dict[int, Value | None] | None = None) -> Value:
        """How often the loops over a rank bring a tile back: in each iteration that finds it gone, else once."""
        mine = [axis for axis in repeats if self.rank_of(axis) == rank]
        found: Value = 1.0
        for number, axis in enumerate(mine, 1):
            count = self.existing(rank, mine[:number])
            gone = None if inside is None else inside[axis]
            found = count if gone is None else where(gone, count, found)
        return found

    def operand_words(self, reader: Step, stream: Stream) -> Value:
        """Words that a step reads of an operand: its tile in every tile, again for folds and positions outside what moves it."""
        declared = self.nest.cascade.tensor(stream.tensor)
        ranks = frozenset().union(*(free_ranks(index) for index in stream.indices))
        dimensions = self.dimensions(stream.tensor, stream.indices)
        if declared.iterates is not None:
            del dimensions[declared.ranks.index(declared.iterates)]
        words, summed = self._sums(dimensions, self.depth)
        folded = reader.binding.ranks - ranks
        words = words * self.folds(reader, folded)
        repeated = dict(reader.outside(ranks))
        for rank in sorted(reader.ranks - summed - folded):
            count = self.existing(rank)
            if rank in repeated:
                walked = product(self._walked(reader, mover) for mover in repeated[rank])
                count = where(greater(walked, 1.0), self.extent(rank), count)
            words = words * count
        return words

    def _walked(self, step: Step, rank: str) -> Value:
        """Positions that a step takes one after another along a rank in the largest tile."""
        for side, lanes in enumerate(self.hardware.sides(step.binding.array)):
            if rank in (along := step.binding.along(side)):
                return ceil_div(product(self.size(each) for each in along), lanes)
        return self.size(rank)

    def result_words(self, step: Step, tensor: str) -> Value:
        declared = self.nest.cascade.tensor(tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        return product(self.extent(rank) for rank in sorted(ranks)) * self._tiles(step.ranks - ranks)

    def begun_words(self, step: Step, tensor: str) -> Value:
        """Words of a reduction's results as they are begun."""
        declared = self.nest.cascade.tensor(tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        return product(self.extent(rank) for rank in sorted(ranks)) * self.repeats(step.ranks - ranks - step.reduced)

    def tensor_words(self, tensor: str) -> Value:
        declared = self.nest.cascade.tensor(tensor)
        return product(self.extent(rank) for rank in declared.ranks if rank != declared.iterates)

    def resident_words(self, resident: Resident, depth: int) -> Value:
        declared = self.nest.cascade.tensor(resident.tensor)
        return product(self.size(rank, depth) for rank in declared.ranks if rank != declared.iterates)

    # --- capacity ---

    def buffer_need(self, in_flight: Value) -> Value:
        """Bytes of the buffer that are taken at once."""
        buffer = self.nest.arch.buffer[0]
        words = total(self.stream_tile(stream) * self._slots(stream.depth) for stream in self.nest.streams)
        for resident in self.nest.residents.values():
            if resident.place == buffer:
                slots: Value = in_flight if resident.depth == self.depth else 1.0
                if resident.leaves:
                    slots = maximum(slots, self._slots(resident.depth))
                words = words + self.resident_words(resident, resident.depth) * slots
        return words * self.hardware["word_bytes"]

    def _slots(self, depth: int) -> float:
        return float(self.group.buffering) if any(axis < depth for axis in self.active) else 1.0

    def lane_need(self, array: str, in_flight: Value) -> Value:
        """Words of one lane that are taken when most are."""
        nest = self.nest
        here = [resident for resident in nest.residents.values() if resident.place == array]
        lasting = total(self.lane_words(r) for r in here if r.depth < self.depth)
        order = {step.name: i for i, step in enumerate(nest.steps)}
        passing = [r for r in here if r.depth == self.depth]
        worst: Value = 0.0
        for i, step in enumerate(nest.steps):
            alive: dict[str, Value] = {}
            for r in passing:
                last = max((order[reader.name] for reader in r.readers), default=order[r.producer.name])
                if order[r.producer.name] <= i <= last:
                    alive[r.tensor] = self.lane_words(r) * in_flight
            if step.output in alive and not step.reduced:
                shape = frozenset(nest.cascade.tensor(step.output).ranks)
                for r in passing:
                    ends_here = r.tensor in alive and max((order[x.name] for x in r.readers), default=-1) == i
                    if (
                        ends_here
                        and r.tensor != step.output
                        and frozenset(nest.cascade.tensor(r.tensor).ranks) == shape == step.ranks
                    ):
                        del alive[r.tensor]
                        break
            worst = maximum(worst, total(alive.values()))
        return lasting + worst

    def lane_words(self, resident: Resident) -> Value:
        step = next(s for s in (resident.producer, *resident.readers) if s.binding.array == resident.place)
        declared = self.nest.cascade.tensor(resident.tensor)
        ranks = frozenset(declared.ranks) - {declared.iterates}
        words: Value = 1.0
        for side, lanes in enumerate(self.hardware.sides(resident.place)):
            here = [rank for rank in step.binding.along(side) if rank in ranks]
            if here:
                words = words * ceil_div(product(self.size(rank, resident.depth) for rank in here), lanes)
        return words * product(self.size(rank, resident.depth) for rank in sorted(ranks - step.binding.ranks))

    # --- time ---

    def makespan(self, steps: Sequence[Step], durations: dict[str, Value], there: dict[str, Value] | None = None) -> Value:
        before = predecessors(self.nest)
        free: dict[str, Value] = dict.fromkeys(self.nest.arch.arrays, 0.0)
        ready: dict[str, Value] = {}
        for step in steps:
            start = maximum((there or {}).get(step.name, 0.0), *(ready[p] for p in before[step.name] if p in ready))
            length = durations[step.name]
            if step.work:
                queued = maximum(start, free[step.binding.array])
                busy = greater(length, 0.0)
                start = where(busy, queued, start) if self._may_be_free(step) else queued
                end = start + length
                free[step.binding.array] = where(busy, end, free[step.binding.array]) if self._may_be_free(step) else end
            ready[step.name] = start + length + self.ripple(step)
        return maximum(0.0, *ready.values()) if ready else 0.0

    def _may_be_free(self, step: Step) -> bool:
        """Whether its operations may take no cycles."""
        return any(unit.cycles == 0 for unit in step.array.units.values())

    def chain_ends(self, durations: dict[str, Value], sources: frozenset[str] | None = None) -> dict[str, Value]:
        before, order = predecessors(self.nest), in_order(self.nest) if sources is None else {}
        ends: dict[str, Value] = {}
        out: dict[str, Value] = {}
        for step in self.nest.steps:
            if step.name not in durations:
                continue
            earlier = [out[p] for p in before[step.name] if p in out]
            if step.name in order and order[step.name] in ends:
                earlier.append(ends[order[step.name]])
            if sources is not None and step.name not in sources and not earlier:
                continue
            ends[step.name] = maximum(0.0, *earlier) + durations[step.name]
            out[step.name] = ends[step.name] + self.ripple(step)
        return out

    def latency(self) -> Value:
        """Cycles of one tile if other tiles are not in the way."""
        return maximum(0.0, *self.chain_ends({step.name: self.longest(step) for step in self.nest.steps}).values())

    def dependences(self, in_flight: Value) -> Value:
        nest = self.nest
        match self.group.schedule:
            case "in-turn":
                return total(self.busy(step) + self.ripple(step) * self.executions(step) for step in nest.steps)
            case "pipelined":
                return self._tile_by_tile()
        return self._chains(in_flight)

    def _chains(self, in_flight: Value) -> Value:
        nest = self.nest
        every = [step for step in nest.steps if all(step.slots[axis] == "each" for axis in self.active)]
        if not every:
            return self.latency()
        durations = {step.name: self.longest(step) for step in every}
        tiles = maximum(*(self.executions(step) for step in every)) if len(every) > 1 else self.executions(every[0])
        latency = maximum(*self.chain_ends(durations).values(), 0.0)
        found = latency * ceil_div(tiles, in_flight)
        for step in every:
            declared = nest.cascade.tensor(step.output)
            axis = next((i for i, loop in enumerate(self.group.loops) if loop.rank == declared.iterates), None)
            if declared.iterates is None or axis is None:
                continue
            readers = frozenset(
                s.name for s in every if any(a.tensor == step.output for a in s.reads) and carried(nest, s, step.output)
            )
            ends = self.chain_ends(durations, readers)
            if step.name in ends:
                apart = product(self.trips(inner) for inner in self.active if inner > axis)
                found = maximum(found, ends[step.name] * tiles / apart)
        return found

    def _tile_by_tile(self) -> Value:
        """Sum of makespans: tiles in which the same steps run are alike."""
        nest = self.nest
        ranks = list(dict.fromkeys(self.rank_of(axis) for axis in self.active))
        classes = [self._classes(rank) for rank in ranks]
        durations = {step.name: self.longest(step) for step in nest.steps}
        counts: dict[tuple[str, ...], Value] = {}
        for combination in itertools.product(*classes):
            where_ = {rank: place for rank, (place, _) in zip(ranks, combination, strict=True)}
            number = product(number for _, number in combination)
            running = tuple(step.name for step in nest.steps if self._runs(step, where_))
            if running:
                counts[running] = counts.get(running, 0.0) + number
        found: Value = 0.0
        for running, number in counts.items():
            steps = [step for step in nest.steps if step.name in running]
            found = found + self.makespan(steps, durations) * number
        return found

    def _classes(self, rank: str) -> list[tuple[str, Value]]:
        """Iterations of the loops over a rank: the first, the last, those between, those of tiles that do not exist."""
        chain = self.chain(rank)
        exist = self.existing(rank)
        slots = {step.slots[axis] for step in self.nest.steps for axis in chain}
        found: list[tuple[str, Value]] = [("empty", product(self.trips(axis) for axis in chain) - exist)] if len(chain) > 1 else []
        if slots <= {"each"}:
            return [*found, ("middle", exist)]
        return [*found, ("first", 1.0), ("middle", exist - 2.0), ("last", 1.0)]

    def _runs(self, step: Step, places: dict[str, str]) -> bool:
        for axis in self.active:
            rank, slot = self.rank_of(axis), step.slots[axis]
            if slot == "each":
                if places[rank] == "empty":
                    return False
            elif slot != places[rank]:
                return False
        return True

    def exposed(self, compute: Value, moved: Value, steady: Value, per_word: Value) -> Value:
        nest = self.nest
        tiles = product(self.trips(axis) for axis in self.active)
        first = [step for step in nest.steps if all(step.slots[axis] != "last" for axis in self.active)]
        loaded: Value = 0.0
        there: dict[str, Value] = {}
        seen: set[int] = set()
        for step in first:
            for position, stream in enumerate(nest.streams):
                if step in stream.readers:
                    if position not in seen:
                        seen.add(position)
                        loaded = loaded + self.stream_tile(stream) * per_word
                    there[step.name] = loaded
        last = maximum(0.0, *(self._last_tile(tensor) for tensor in sorted(nest.outgoing))) * per_word
        through = self.makespan(first, {step.name: self.longest(step) for step in nest.steps}, there)
        if self.group.buffering == 1:
            return maximum(0.0, through - steady / tiles - loaded) if self.active else 0.0
        rest = maximum(compute * (tiles - 1.0) / tiles, moved - loaded - last, 0.0)
        return maximum(0.0, through + rest + last - steady)

    def _last_tile(self, tensor: str) -> Value:
        declared = self.nest.cascade.tensor(tensor)
        return product(self.size(rank) for rank in declared.ranks if rank != declared.iterates)

    # --- cost ---

    def cost(self) -> dict[str, Value]:
        """Everything that a `GroupCost` says, by name."""
        nest, hardware = self.nest, self.hardware
        backing, buffer = nest.arch.backing[0], nest.arch.buffer[0]
        reads: dict[str, Value] = {}
        for stream in nest.streams:
            reads[stream.tensor] = reads.get(stream.tensor, 0.0) + self.stream_words(stream)
        writes = {tensor: self.tensor_words(tensor) for tensor in sorted(nest.outgoing)}
        read, written = total(reads.values()), total(writes.values())
        buffer_read, buffer_written = self._buffer_words(read)
        per_cycle = hardware["word_bytes"] * hardware["clock_hz"]
        per_word = per_cycle / hardware[f"{backing}.bandwidth"]
        transfers = {
            backing: (read + written) * per_word,
            buffer: (buffer_read + buffer_written) * per_cycle / hardware[f"{buffer}.bandwidth"],
        }
        busy: dict[str, Value] = dict.fromkeys(nest.arch.arrays, 0.0)
        useful: dict[str, Value] = dict.fromkeys(nest.arch.arrays, 0.0)
        energy: dict[str, Value] = {
            backing: hardware.level_pj(backing, read, written), buffer: hardware.level_pj(buffer, buffer_read, buffer_written)
        }  # fmt: skip
        for name in nest.arch.arrays:
            energy[name] = energy[f"{name} registers"] = 0.0
        found: dict[str, Value] = {}
        for step in nest.steps:
            name = step.binding.array
            mine = self.busy(step)
            busy[name] = busy[name] + mine
            found[f"step {step.name}"] = mine
            for item in step.work:
                points = self.points(step, item)
                useful[name] = useful[name] + points * hardware.cycles(name, item.operation) / hardware.lanes(name)
                for unit, count in hardware.expand(name, item.operation).items():
                    operations = points * count
                    energy[name] = energy[name] + operations * hardware[f"{name}.units.{unit}.energy_pj"]
                    registers = f"{name} registers"
                    energy[registers] = energy[registers] + operations * hardware.register_pj(name, unit)
        work = self.dependences(self.in_flight)
        compute = maximum(work, *busy.values())
        moved = maximum(*transfers.values())
        cycles = maximum(compute, moved) if self.group.buffering > 1 else compute + moved
        found |= {f"busy {name}": value for name, value in busy.items()}
        found |= {f"transfer {name}": value for name, value in transfers.items()}
        found |= {f"useful {name}": value for name, value in useful.items()}
        found |= {f"energy {name}": value for name, value in energy.items()}
        found |= {f"read {name}": value for name, value in reads.items()}
        found |= {f"written {name}": value for name, value in writes.items()}
        found |= {f"lanes {name}": self.lane_need(name, self.in_flight) for name in nest.arch.arrays}
        found |= {
            "dependences": work, "cycles": cycles, "fill": self.exposed(compute, moved, cycles, per_word),
            "buffer read": buffer_read, "buffer written": buffer_written, "need": self.buffer_need(self.in_flight),
            "words": read + written, "energy": total(energy.values()),
        }  # fmt: skip
        return found

    def _buffer_words(self, fetched: Value) -> tuple[Value, Value]:
        nest = self.nest
        buffer = nest.arch.buffer[0]
        read: Value = 0.0
        written = fetched
        for stream in nest.streams:
            for reader in stream.readers:
                read = read + self.operand_words(reader, stream)
        for resident in nest.residents.values():
            if resident.place != buffer:
                continue
            producer = resident.producer
            made = self.result_words(producer, resident.tensor)
            written = written + made
            if producer.reduced & nest.cut:
                read = read + made - self.begun_words(producer, resident.tensor)
            for reader in resident.readers:
                for access in reader.reads:
                    if access.tensor == resident.tensor:
                        read = read + self.operand_words(reader, Stream(resident.tensor, access.indices, (reader,), self.depth))
            if resident.leaves:
                read = read + self.tensor_words(resident.tensor)
        return read, written


def _parts(expr: Expr) -> list[Expr]:
    found = [expr]
    if isinstance(expr, Map):
        for arg in expr.args:
            found += _parts(arg)
    return found


def _ranks_of(closed: Closed, axes: list[int]) -> list[str]:
    return list(dict.fromkeys(closed.rank_of(axis) for axis in axes))
