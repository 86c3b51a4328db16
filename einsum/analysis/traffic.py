"""Traffic: words that must cross the boundary between a buffer and memory.

Three figures, all in words (docs/design/analysis.md has the arguments):

* `compulsory`: what is used of each input, once, and each output, once. No schedule moves less, whatever its buffer.
* `bound(S)`: a lower bound for every schedule with a buffer of S words, recomputing allowed. When the value that separates two
  levels of a fiber becomes known, at most S words are in the buffer; what the later level needs again and is not among them moves
  once more.
* `scheduled(S)`: what the stated traversal moves, in its best variant: parallel ranks in blocks that fit (inputs without such a
  rank are read again for each block), and what still does not fit of the tensors carried between levels spilled and read back.

bound(S) <= least traffic of any schedule <= scheduled(S); they meet at compulsory once the buffer holds the live words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..cascade import Access, Coord, Reduce, Scan, Select, free_ranks, walk
from ..symbolic import ONE, ZERO, Formula, maximum, minimum, product, symbol, total
from .fiber import expanded, extent_of, leaves_of
from .footprint import Footprints, Live, Traversal
from .order import facts
from .points import greatest, least, positive
from .prepared import Read, Step
from .regions import Region, guarded, regions

BUFFER = "S"
"""The symbol of the buffer's size in formulas, words; with more of them where the cascade uses that name itself."""


@dataclass(frozen=True)
class Again:
    """Why a level costs more than compulsory traffic when the buffer is small."""

    tensor: str
    words: Formula
    """Words of one fiber that must be in the buffer, or move again."""
    fibers: Formula
    """How many such fibers there are."""
    times: Formula
    """Movements of each word that is not in the buffer."""
    text: str
    buffer: str = BUFFER
    """The symbol of the buffer's size."""

    @property
    def extra(self) -> Formula:
        """Extra words as a formula of the buffer's size."""
        return self.fibers * self.times * maximum(ZERO, self.words - symbol(self.buffer))


@dataclass(frozen=True)
class Scheduled:
    """What the traversal moves with one buffer."""

    words: int
    blocks: dict[str, int]
    """Block size of each rank that is cut into blocks, elements."""
    spilled: int
    """Words moved because tensors carried between levels do not fit; part of `words`."""


@dataclass(frozen=True)
class Traffic:
    """Words across the memory boundary."""

    inputs: dict[str, Formula]
    """Used words of each input; of one that is gathered from, the least that any selection uses."""
    most: dict[str, Formula]
    """Words of each input that the traversal may have to read: all of one that is gathered from."""
    outputs: dict[str, Formula]
    exact: bool
    """Whether the used words of inputs are a count (otherwise some masks were too complicated: they may be fewer)."""
    again: tuple[Again, ...]
    live: Formula
    """Buffer, in words, from which compulsory traffic is enough."""
    blockable: tuple[str, ...]
    """Ranks that the traversal cuts into blocks where the buffer is small, most useful first."""
    shared: dict[str, dict[str, Formula]]
    """For each such rank: words that are read again for each of its blocks."""
    buffer: str
    """The symbol of the buffer's size."""

    @property
    def compulsory(self) -> Formula:
        return total((*self.inputs.values(), *self.outputs.values()))

    @property
    def bound(self) -> Formula:
        """Least words for any schedule, as a formula of the buffer's size S in words."""
        return self.compulsory + (maximum(*(one.extra for one in self.again)) if self.again else ZERO)


class Boundary:
    """Traffic of one cascade under one traversal."""

    def __init__(self, footprints: Footprints, live: Live, scalars: Mapping[str, int | float]) -> None:
        self.footprints, self.live, self.scalars = footprints, live, scalars
        self.prepared, self.cascade, self.spaces = footprints.prepared, footprints.cascade, footprints.spaces
        self.regions = regions(self.cascade, scalars)
        self.exact = True
        self.wholes = expanded(self.cascade)
        names = {*self.cascade.symbols, *self.cascade.counts, *(name for name, _ in self.cascade.params)}
        self.buffer = next(BUFFER * n for n in range(1, len(names) + 2) if BUFFER * n not in names)

    def traffic(self) -> Traffic:
        inputs = {tensor.name: self._used(tensor.name) for tensor in self.cascade.inputs}
        most = {name: self.footprints.footprint(name) if self._is_gathered(name) else words for name, words in inputs.items()}
        outputs = {name: self.footprints.footprint(name) for name in self.cascade.outputs}
        blockable = self._blockable()
        shared = {rank: self._shared(rank, most) for rank in blockable}
        return Traffic(inputs, most, outputs, self.exact, tuple(self._again()), self.live.total, blockable, shared, self.buffer)

    # --- compulsory ---

    def _is_gathered(self, name: str) -> bool:
        return any(index is None for _, read in self.footprints.readers[name] for index in read.indices)

    def _used(self, name: str) -> Formula:
        """Words of an input that some access reads: the greatest of what its accesses read one by one."""
        found: list[Formula] = []
        for number, step in enumerate(self.prepared.steps):
            expressions = [step.einsum.body, *step.scatter]
            reads = [read for read in step.reads if read.access.tensor == name]
            if not reads:
                continue
            held = [(access, region) for expr in expressions for access, region in guarded(expr, self.scalars)]
            for read in reads:
                region = next((where for access, where in held if access is read.access), frozenset())
                found.append(self._touched(read, step, region | self.regions[number]))
        whole = self.footprints.footprint(name)
        if not found:
            return ZERO
        if whole in found:
            return whole
        return maximum(*found)

    def _touched(self, read: Read, step: Step, region: Region) -> Formula:
        """Elements of an input that one access reads."""
        tensor = self.cascade.tensor(read.access.tensor)
        words = ONE
        seen: set[str] = set()
        for rank, expr, index in zip(tensor.ranks, read.access.indices, read.indices, strict=True):
            extent = extent_of(self.cascade, rank)
            if isinstance(expr, Coord) and expr.rank not in seen:
                seen.add(expr.rank)
                words = words * self._interval(expr.rank, extent, region)
            elif index is None:
                words = words * least([extent, self._chosen(expr)])
            else:
                words = words * self._range(index, extent, region)
        return words

    def _interval(self, rank: str, extent: Formula, region: Region) -> Formula:
        """Coordinates of a rank for which some point of the region exists."""
        known: list[Formula] = []
        todo, names = frozenset((rank,)), frozenset((rank,))
        while todo:  # conditions on the rank, and on ranks that these tie it to
            names |= todo
            touching = [c for c in region if free_ranks(c) & names]
            todo = frozenset().union(*(free_ranks(c) for c in touching)) - names
        for condition in touching:
            found = facts(condition)
            self.exact &= bool(found)
            known += found
        for other in sorted(names - {rank}):
            known = self._without(other, known)
        bounds = [fact for fact in known if fact.symbols & {rank}]
        count = self.spaces.interval(rank, bounds)
        if count is None:
            self.exact = False
            count = extent_of(self.cascade, rank)
        return least([count, extent])

    def _without(self, rank: str, known: list[Formula]) -> list[Formula]:
        """What facts (each at most 0) say of the other ranks: there is a coordinate of this one that meets all of them."""
        first, last, rest = [ZERO], [extent_of(self.cascade, rank) - ONE], []
        for fact in known:
            parts = fact.split(rank)
            if parts is None or parts[0] not in (-1, 0, 1):
                self.exact = False
            elif parts[0] == 0:
                rest.append(fact)
            elif parts[0] == 1:
                last.append(-parts[1])
            else:
                first.append(parts[1])
        return rest + [low - high for low in first for high in last if (low - high).symbols & {r.name for r in self.cascade.ranks}]

    def _chosen(self, expr: object) -> Formula:
        """Distinct positions that an index surely takes: those of one selection are different."""
        assert not isinstance(expr, str)
        for node in walk(expr):  # type: ignore[arg-type]
            if isinstance(node, Access):
                for step in self.prepared.steps:
                    body = step.einsum.body
                    if step.output == node.tensor and isinstance(body, Select) and Coord(body.fills) in node.indices:
                        return extent_of(self.cascade, body.fills)
        return ONE

    def _range(self, index: Formula, extent: Formula, region: Region) -> Formula:
        """Distinct positions of an affine index that are inside of the tensor."""
        names = {rank.name for rank in self.cascade.ranks}
        for rank, whole in self.wholes.items():
            if index == whole and not any(free_ranks(c) & leaves_of(self.cascade, rank) for c in region):
                return least([extent_of(self.cascade, rank), extent])
        ranks = sorted(index.symbols & names)
        if not ranks:
            return ONE
        bounds = {rank: self._box(rank, index, region) for rank in ranks}
        high = low = index
        steps: list[tuple[int, Formula]] = []
        for rank in ranks:
            parts = index.split(rank)
            slope = parts[0].constant if parts else None
            if parts is None or not isinstance(slope, int):
                self.exact = False
                return extent
            first, last = bounds[rank]
            high = high.substitute({rank: last if slope > 0 else first})
            low = low.substitute({rank: first if slope > 0 else last})
            steps.append((abs(slope), last - first + ONE))
        span = positive(least([high + ONE, extent]) - greatest([low, ZERO]))
        if len(steps) == 1:
            return span if steps[0][0] == 1 else least([steps[0][1], extent])
        if not _covers(steps):
            self.exact = False
        return span

    def _box(self, rank: str, index: Formula, region: Region) -> tuple[Formula, Formula]:
        """First and last coordinate of a rank where conditions hold; those that only keep the index inside are met by cutting."""
        first, last = [ZERO], [extent_of(self.cascade, rank) - ONE]
        for condition in region:
            if rank not in free_ranks(condition):
                continue
            known = facts(condition)
            self.exact &= bool(known)
            for fact in known:
                if any(not ((fact - sign * index).symbols & {r.name for r in self.cascade.ranks}) for sign in (1, -1)):
                    continue
                parts = fact.split(rank)
                if parts is None or parts[1].symbols & {r.name for r in self.cascade.ranks} or parts[0] not in (1, -1):
                    self.exact = False
                elif parts[0] == 1:
                    last.append(-parts[1])
                else:
                    first.append(parts[1])
        return greatest(first), least(last)

    # --- what each further level costs ---

    def _again(self) -> list[Again]:
        """Tensors along the swept fiber that a later level needs again, each with its bound."""
        if not self.live.traversal.along:
            return []
        direct = self._ancestors()
        found: list[Again] = []
        rank = self.live.traversal.along
        fiber = self.footprints.fiber(rank)
        swept = self.footprints.along(rank)
        steps = self.prepared.steps
        closing = [
            n for n, step in enumerate(steps) if isinstance(step.einsum.body, Reduce) and fiber.leaves <= fiber.expand(step.bound)
        ]
        plain = [n for n in range(len(steps)) if not self.regions[n]]
        for tensor in self.cascade.tensors:
            if tensor.kind not in ("input", "einsum"):
                continue
            readers = [
                n
                for n, read in self.footprints.readers[tensor.name]
                if n in plain and swept.touches[n] and _same(read, tensor.ranks)
            ]
            if not fiber.leaves <= fiber.expand(frozenset(tensor.ranks)):
                continue
            if tensor.kind == "input":
                chain = self._chain(readers, closing, direct)
                if chain:
                    found.append(self._reread(tensor.name, chain[0][1], len(chain)))
            else:
                found += self._kept(tensor.name, readers, closing, direct)
        return [one for one in found if one.words]

    def _ancestors(self) -> list[int]:
        """For each Einsum, as bits: itself and the Einsums that it depends on through accesses at the very same coordinates."""
        masks = [1 << n for n in range(len(self.prepared.steps))]
        for n, step in enumerate(self.prepared.steps):
            for read in step.reads:
                tensor = self.cascade.tensor(read.access.tensor)
                if tensor.kind == "einsum" and _same(read, tensor.ranks):
                    for definer in self.footprints.definers[tensor.name]:
                        masks[n] |= masks[definer]
        return masks

    def _chain(self, readers: list[int], closing: list[int], direct: list[int]) -> list[tuple[int, int, int]]:
        """Readers of an input such that a value reduced over the fiber lies between each two: (reader, reduction, next reader)."""
        chain: list[tuple[int, int, int]] = []
        if not readers:
            return chain
        at = readers[0]
        for later in readers[1:]:
            between = next((c for c in closing if direct[c] >> at & 1 and direct[later] >> c & 1 and c != later), None)
            if between is not None:
                chain.append((at, between, later))
                at = later
        return chain

    def _reread(self, name: str, close: int, times: int) -> Again:
        tensor = self.cascade.tensor(name)
        kept = frozenset(self.cascade.tensor(self.prepared.steps[close].output).ranks)
        inside = [rank for rank in tensor.ranks if rank not in kept]
        outside = [rank for rank in tensor.ranks if rank in kept]
        words = self.spaces.size(inside)
        text = f"`{name}` is read at {times + 1} levels: hold {words} words, or read it again"
        return Again(name, words, self.spaces.size(outside), ONE * times, text, self.buffer)

    def _kept(self, name: str, readers: list[int], closing: list[int], direct: list[int]) -> list[Again]:
        """An intermediate that is made before a reduction over the fiber is known and read after."""
        tensor = self.cascade.tensor(name)
        (maker,) = self.footprints.definers[name]
        if self.regions[maker]:
            return []
        close = next((c for c in closing for r in readers if direct[c] >> maker & 1 and direct[r] >> c & 1 and c != r), None)
        if close is None:
            return []
        fiber = self.footprints.fiber(self.live.traversal.along)
        sources = [
            source.name
            for source in self.cascade.inputs
            if fiber.leaves <= fiber.expand(frozenset(source.ranks))
            and any(direct[maker] >> n & 1 and _same(read, source.ranks) for n, read in self.footprints.readers[source.name])
        ]
        if not sources:
            return []  # made of nothing along the fiber: it can be computed again for free
        common = frozenset.intersection(*(frozenset(self.cascade.tensor(source).ranks) for source in sources))
        kept = frozenset(self.cascade.tensor(self.prepared.steps[close].output).ranks)
        inside = [r for r in tensor.ranks if fiber.expand(frozenset((r,))) <= fiber.leaves]
        fibers = [r for r in tensor.ranks if r in kept and r in common]
        again = [self.spaces.size([r for r in self.cascade.tensor(source).ranks if r not in tensor.ranks]) for source in sources]
        stored = any(fiber.leaves <= fiber.expand(frozenset(self.cascade.tensor(out).ranks)) for out in self.cascade.outputs)
        times = ONE if stored else minimum(2, maximum(*again))  # an output is written anyway: only reading it back is more
        words = self.spaces.size(inside)
        text = f"`{name}` is carried to a later level: hold {words} words per fiber, or spill it, or compute it again"
        return [Again(name, words, self.spaces.size(fibers), times, text, self.buffer)]

    # --- the traversal with blocks and spills ---

    def _blockable(self) -> tuple[str, ...]:
        """Inner ranks along which nothing is carried and which every Einsum of the sweeps goes along."""
        traversal = self.live.traversal
        if not traversal.along:
            return ()
        swept = self.footprints.along(traversal.along)
        fiber = self.footprints.fiber(traversal.along)
        on = [step for step, touches in zip(self.prepared.steps, swept.touches, strict=True) if touches]
        found = []
        for rank in traversal.inner:
            if rank in fiber.leaves or not on:
                continue
            run = self.footprints.along(rank)
            free = all(rank in fiber.expand(step.iterated - step.bound) and not isinstance(step.einsum.body, Scan) for step in on)
            whole = any(isinstance(step.einsum.body, Select) and step.einsum.body.fills == rank for step in on)
            state = any(tensor.iterates == rank for tensor in self.cascade.tensors)
            if free and not whole and not state and max(run.levels, default=0) <= 1:
                found.append(rank)
        return tuple(found)

    def _shared(self, rank: str, inputs: Mapping[str, Formula]) -> dict[str, Formula]:
        """Inputs that are read again for each block of a rank."""
        found: dict[str, Formula] = {}
        for name, words in inputs.items():
            uses = self.footprints.readers[name]
            used = any(rank in self.footprints.fiber(rank).expand(self.prepared.steps[n].iterated) for n, _ in uses)
            follows = uses and all(any(index == symbol(rank) for index in read.indices if index is not None) for _, read in uses)
            if used and not follows:
                found[name] = words
        return found


def _covers(steps: list[tuple[int, Formula]]) -> bool:
    """Whether sums of multiples, each of so many, leave no gap between the least and the greatest."""
    reach = ONE
    for slope, count in sorted(steps, key=lambda item: item[0]):
        gap = (reach - slope).constant
        if slope != 1 and (gap is None or gap < 0):
            return False
        reach = reach + (count - ONE) * slope
    return True


def _same(read: Read, ranks: tuple[str, ...]) -> bool:
    """Whether an access is at the coordinates of the tensor's own ranks (parts of a split rank in its place count)."""
    return all(isinstance(expr, Coord) and expr.rank == rank for expr, rank in zip(read.access.indices, ranks, strict=True))


def scheduled(
    traffic: Traffic, footprints: Footprints, traversal: Traversal, buffer: int, values: Mapping[str, int | float]
) -> Scheduled | None:
    """The traversal's words with a buffer of so many words, at known sizes; None where not even its smallest variant fits."""
    extents = {rank: int(extent_of(footprints.cascade, rank).evaluate(values)) for rank in traffic.blockable}
    once = int(total((*traffic.most.values(), *traffic.outputs.values())).evaluate(values))
    outer = int(product(extent_of(footprints.cascade, rank) for rank in traversal.outer).evaluate(values))
    inputs = {tensor.name for tensor in footprints.cascade.inputs}
    best: Scheduled | None = None
    live = footprints.live(traversal, {rank: symbol(f"block of {rank}") for rank in extents})
    for blocks in _blockings(traffic.blockable, extents):
        spill = _spill(live, inputs, buffer, {**values, **{f"block of {rank}": block for rank, block in blocks.items()}})
        if spill is None:
            continue
        rounds = {rank: -(-extents[rank] // block) if block else 1 for rank, block in blocks.items()}
        spilled = spill * outer * math.prod(rounds.values())
        again = sum(_again_words(name, rounds, traffic, values) for name in traffic.inputs)
        cut = {rank: block for rank, block in blocks.items() if block < extents[rank]}
        one = Scheduled(once + spilled + again, cut, spilled)
        if best is None or one.words < best.words:
            best = one
    return best


def _again_words(name: str, rounds: Mapping[str, int], traffic: Traffic, values: Mapping[str, int | float]) -> int:
    """Words of an input that are read again because it has no part in the ranks that are cut into blocks."""
    times = math.prod(count for rank, count in rounds.items() if name in traffic.shared[rank])
    return (times - 1) * int(traffic.most[name].evaluate(values))


def _spill(live: Live, inputs: set[str], buffer: int, values: Mapping[str, int | float]) -> int | None:
    """Words that move between levels in one round because what is carried does not fit; None if the rest does not fit either.

    An input only has to be read again; an intermediate is written and read.
    """
    base = {level: int(live.base(level).evaluate(values)) for level in live.levels}
    if max(base.values(), default=0) > buffer:
        return None
    moved = 0
    for level, following in pairwise(live.levels):
        crossing = {name: int(held.words.evaluate(values)) for name, held in live.crossing(level).items()}
        over = max(0, sum(crossing.values()) + max(base[level], base[following]) - buffer)
        cheap = min(over, sum(words for name, words in crossing.items() if name in inputs))
        moved += cheap + 2 * (over - cheap)
    return moved


def _blockings(ranks: tuple[str, ...], extents: Mapping[str, int]) -> list[dict[str, int]]:
    """Block sizes to try, one rank after another: every number of equal blocks for short ranks, else finer and finer steps."""
    current = dict(extents)
    found = [dict(current)]
    for rank in ranks:
        whole = extents[rank]
        sizes = {-(-whole // count) for count in range(2, min(whole, 64) + 1)}
        size = whole
        while size > 1:
            size = -(-size * 7 // 8) if size > 8 else size - 1
            sizes.add(size)
        for size in sorted(sizes, reverse=True):
            found.append({**current, rank: size})
        current[rank] = min(1, whole)
    return found
