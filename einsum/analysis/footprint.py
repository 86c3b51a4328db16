"""Footprints and live words: how much of each tensor there is, and how much of it must be held at once.

The live words belong to a stated traversal, one nest of loops around the whole cascade:

    for each point of the outer ranks:           every Einsum on the fiber and every input along it has them
      for each level, in one sweep along the fiber:
        for each point of the other ranks:       those that are not reduced, then the inner parts of the fiber, then the rest

Each element is read from memory once, or computed once, and held until its last use. Walking the loops from the outside in, a
tensor holds one position of a loop that all its uses follow; everything from the first loop on that it must outlive: because it has
no such rank and is used in several iterations, because it is carried from one level of that rank to a later one, or because it is a
running state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..cascade import Scan, Select
from ..symbolic import ONE, ZERO, Call, Formula, constant, maximum, product, symbol, total
from .completeness import Run, run_along
from .fiber import Fiber, extent_of, leaves_of
from .levels import Levels
from .points import Spaces
from .prepared import Prepared, Read, Step

NOMINAL = 1024
"""Size of a symbol that nobody gave, only to choose between traversals."""


@dataclass(frozen=True)
class Traversal:
    """The order of loops that live words refer to. All ranks are unsplit."""

    outer: tuple[str, ...]
    along: str
    """The rank whose levels are swept, as the user knows it (before splitting)."""
    clock: str
    inner: tuple[str, ...]

    @property
    def loops(self) -> tuple[str, ...]:
        return (*self.outer, self.clock, *self.inner)

    def __str__(self) -> str:
        if not self.along:
            return "no loops"
        outer = f"for each point of {', '.join(self.outer)}: " if self.outer else ""
        parts = "" if self.clock == self.along else f", one tile (`{self.clock}`) after another"
        inner = f"; inside: {', '.join(self.inner)}" if self.inner else ""
        return f"{outer}one sweep along `{self.along}` for each level{parts}{inner}"


@dataclass(frozen=True)
class Held:
    """How one tensor is held."""

    words: Formula
    """Least words held at once, for one point of the outer loops."""
    because: str
    """The loop that it must outlive and why; empty if only single elements of the loops are held."""
    first: int
    last: int
    """Levels of the sweeps (of the outermost part, if the swept rank is split) during which it is alive."""
    carried: bool
    """Whether it is held from one level of the swept rank to a later one."""


class Footprints:
    """Footprints and live words of one cascade."""

    def __init__(self, prepared: Prepared, spaces: Spaces) -> None:
        self.prepared, self.spaces = prepared, spaces
        self.cascade = prepared.cascade
        self._statuses: dict[tuple[str, str], _Status] = {}
        self.readers: dict[str, list[tuple[int, Read]]] = {tensor.name: [] for tensor in self.cascade.tensors}
        self.definers: dict[str, list[int]] = {tensor.name: [] for tensor in self.cascade.tensors}
        for number, step in enumerate(prepared.steps):
            self.definers[step.output].append(number)
            for read in step.reads:
                self.readers[read.access.tensor].append((number, read))

    def fiber(self, rank: str) -> Fiber:
        return self.prepared.fiber(rank)

    def along(self, rank: str) -> Run:
        """Levels along a rank."""
        return run_along(self.prepared, rank)

    def footprint(self, name: str) -> Formula:
        """Words of a whole tensor; a state has one position more than its rank has steps."""
        tensor = self.cascade.tensor(name)
        if tensor.kind == "state" and tensor.iterates is not None:
            rest = [rank for rank in tensor.ranks if rank != tensor.iterates]
            return self.spaces.size(rest) * (extent_of(self.cascade, tensor.iterates) + ONE)
        return self.spaces.size(tensor.ranks)

    # --- the traversal ---

    def traversal(self, along: str, first: Sequence[str] = ()) -> Traversal:
        """The loops for sweeps along a rank; the ranks of `first` come outermost, whatever must then be held for them."""
        if not along:  # a cascade without ranks
            return Traversal((), "", "", ())
        fiber = self.fiber(along)
        on = [step for step, touches in zip(self.prepared.steps, self.along(along).touches, strict=True) if touches]
        leaves = [rank.name for rank in self.cascade.ranks if rank.split is None and rank.name not in fiber.leaves]
        used = frozenset().union(*(fiber.expand(step.iterated) for step in self.prepared.steps))
        asked = [leaf for rank in first for leaf in self.cascade_leaves(rank) if leaf in leaves]
        outer = asked + [r for r in leaves if r not in asked and on and all(self._is_outer(r, step, fiber) for step in on)]
        reduced = frozenset().union(*(fiber.expand(step.bound) for step in self.prepared.steps))
        weight = {rank: sum(rank in fiber.expand(frozenset(t.ranks)) for t in self.cascade.tensors) for rank in leaves}
        rest = [rank for rank in leaves if rank in used and rank not in outer]
        free = sorted((rank for rank in rest if rank not in reduced), key=lambda rank: -weight[rank])
        parts = [rank.name for rank in self.cascade.ranks if rank.name in fiber.leaves and rank.name != fiber.clock]
        bound = sorted((rank for rank in rest if rank in reduced), key=lambda rank: -weight[rank])
        return Traversal(tuple(outer), along, fiber.clock, (*free, *parts, *bound))

    def _is_outer(self, rank: str, step: Step, fiber: Fiber) -> bool:
        """Whether an Einsum on the fiber, and each input that it reads along the fiber, follows a rank."""
        if rank not in fiber.expand(step.iterated - step.bound) or (
            isinstance(step.einsum.body, Select) and step.einsum.body.fills == rank
        ):
            return False
        for read in step.reads:
            tensor = self.cascade.tensor(read.access.tensor)
            follows = any(index is not None and _moves_with(index, rank) for index in read.indices)
            along = any(index is None or index.symbols & fiber.leaves for index in read.indices)
            if tensor.kind == "input" and along and not follows:
                return False
            if tensor.kind != "input" and not follows and rank in fiber.expand(frozenset(tensor.ranks)):
                return False
        return True

    def choose(self, levels: Mapping[str, Levels], values: Mapping[str, int | float]) -> str:
        """The rank to sweep: of those with several passes the one that needs the least words live, at the sizes that are known
        (1024 otherwise); else one with a running state or scan, a split one, or the one reduced that most tensors have."""
        several = [rank for rank, found in levels.items() if max(found.passes.values()) > 1]
        if len(several) == 1:
            return several[0]
        if several:
            return min(several, key=lambda rank: _nominal(self.live(self.traversal(rank)).total, values))

        def merit(rank: str) -> tuple[bool, bool, bool, int]:
            leaves = leaves_of(self.cascade, rank)
            states = any(tensor.iterates in leaves for tensor in self.cascade.tensors)
            scans = any(isinstance(s.einsum.body, Scan) and s.einsum.body.rank in {rank, *leaves} for s in self.prepared.steps)
            reduced = any(leaves & self.fiber(rank).expand(step.bound) for step in self.prepared.steps)
            tensors = sum(bool(leaves & self.fiber(rank).expand(frozenset(t.ranks))) for t in self.cascade.tensors)
            return states or scans, self.cascade.rank(rank).split is not None, reduced, tensors

        return max(levels, key=merit)

    # --- live words ---

    def live(self, traversal: Traversal, extents: Mapping[str, Formula] | None = None) -> Live:
        """Live words of all tensors; `extents` overrides extents of ranks (a block of one, say)."""
        if not traversal.clock:
            return Live(traversal, {tensor.name: Held(ONE, "", 0, 0, False) for tensor in self.cascade.tensors}, (0,))
        swept = self.along(traversal.clock)
        everywhere = (min(swept.levels, default=0), max(swept.levels, default=0))
        found: dict[str, Held] = {}
        for tensor in self.cascade.tensors:
            if not self.readers[tensor.name] and not self.definers[tensor.name]:
                continue
            words, because, loop = self._held(tensor.name, traversal, extents or {})
            first, last = everywhere if loop in traversal.outer else self._alive(tensor.name, swept)
            found[tensor.name] = Held(words, because, first, last, loop == traversal.clock and "level" in because)
        return Live(traversal, found, tuple(range(everywhere[0], everywhere[1] + 1)))

    def _alive(self, name: str, swept: Run) -> tuple[int, int]:
        """Levels of the swept rank from the first to the last in which a tensor is used or made."""
        levels = [swept.levels[number] for number, _ in self.readers[name]] + [swept.levels[n] for n in self.definers[name]]
        return min(levels), max(levels)

    def _held(self, name: str, traversal: Traversal, extents: Mapping[str, Formula]) -> tuple[Formula, str, str]:
        """(words, why more than one element, the loop that it outlives)"""
        tensor = self.cascade.tensor(name)
        left = [rank for dim in tensor.ranks for rank in self.cascade_leaves(dim)]
        if len(set(left)) < len(left):
            return self._size(left, extents), "a rank occurs twice", traversal.clock
        factor = ONE
        for loop in traversal.loops:
            status = self._statuses.get((name, loop)) or self._status(name, loop)
            self._statuses[name, loop] = status
            if status.kind == "skip":
                continue
            if status.kind == "one":
                left = [rank for rank in left if rank not in status.covers]
                continue
            if status.kind == "some":
                left = [rank for rank in left if rank not in status.covers]
                return factor * status.words * self._size(left, extents) + status.extra, status.because, loop
            return factor * self._size(left, extents), status.because, loop
        return factor * self._size(left, extents), "", ""

    def cascade_leaves(self, rank: str) -> list[str]:
        """Unsplit parts of a rank, in the order of declaration."""
        leaves = leaves_of(self.cascade, rank)
        return [r.name for r in self.cascade.ranks if r.name in leaves]

    def _size(self, ranks: Sequence[str], extents: Mapping[str, Formula]) -> Formula:
        merged = self.spaces.merged(ranks)
        return product(extents.get(r.name, extent_of(self.cascade, r.name)) for r in self.cascade.ranks if r.name in merged)

    def _status(self, name: str, loop: str) -> _Status:
        """How a tensor stands to one loop."""
        tensor = self.cascade.tensor(name)
        fiber = self.fiber(loop)
        swept = self.along(loop)
        uses = [(number, self._place(read, tensor.ranks, fiber)) for number, read in self.readers[name]]
        makers = self.definers[name]
        if tensor.kind == "scatter":
            return _Status("all", because="contributions arrive in any order")
        if tensor.kind == "state" and tensor.iterates is not None and loop in leaves_of(self.cascade, tensor.iterates):
            return self._state_status(name, loop)
        owns = tensor.kind != "input" and loop in fiber.expand(frozenset(tensor.ranks))
        iterating = [n for n in (*makers, *(number for number, _ in uses)) if loop in fiber.expand(self.prepared.steps[n].iterated)]
        placed = [place for _, place in uses if place is not None]
        if not owns and not placed:
            if not iterating:
                return _Status("skip")
            if any(loop in fiber.expand(self.prepared.steps[n].bound) for n in makers):
                return _Status("all", because=f"accumulated along `{loop}`")
            return _Status("all", because=f"used for each `{loop}`")
        dims = {place.dim for place in placed} | ({self._dim(tensor.ranks, loop)} if owns else set())
        if len(dims) > 1 or (len(placed) < len(uses) and self._misses(name, loop, fiber)):
            return _Status("all", because=f"read at several positions of `{loop}`")
        if self._is_carried(name, loop, swept):
            return _Status("all", because=f"carried from one level of `{loop}` to a later one")
        dim = next(iter(dims))
        covers = frozenset(self.cascade_leaves(tensor.ranks[dim]))
        own = frozenset((loop,)) if loop in covers else covers
        if any(isinstance(self.prepared.steps[n].einsum.body, Scan) and self._scans(n, loop) for n in makers):
            return _Status("some", ONE, own, f"running along `{loop}`")
        if all(place.exact for place in placed):
            return _Status("one", ONE, own)
        if not owns and len({place.index for place in placed}) == 1 and not placed[0].others:
            index = placed[0].index.split(loop)
            if index is not None and index[0]:
                return _Status("one", ONE, covers)
            return _Status("some", ONE, covers, f"shared by neighbours along `{loop}`")
        return self._window(placed, loop, covers, owns)

    def _scans(self, number: int, loop: str) -> bool:
        body = self.prepared.steps[number].einsum.body
        return isinstance(body, Scan) and loop in leaves_of(self.cascade, body.rank)

    def _state_status(self, name: str, loop: str) -> _Status:
        """A running state holds one position (two while a step needs the old one as a whole)."""
        tensor = self.cascade.tensor(name)
        place = tensor.ranks.index(tensor.iterates or "")
        current, following, in_place = False, False, True
        steps = self.definers[name]
        for number, read in self.readers[name]:
            index = read.indices[place]
            inside = loop in self.fiber(loop).expand(self.prepared.steps[number].iterated)
            if number in steps:
                in_place &= all(
                    i == symbol(rank) for i, rank in zip(read.indices, tensor.ranks, strict=True) if rank != tensor.iterates
                )
            elif inside and index == symbol(loop):
                current = True
            elif inside and index is not None and index == symbol(loop) + ONE:
                following = True
            elif inside or index is None or loop in index.symbols:
                return _Status("all", because=f"read at several positions of `{loop}`")
        words = ONE if in_place else ONE + ONE
        return _Status(
            "some", words, frozenset((loop,)), f"running along `{loop}`", ONE if current and following and in_place else ZERO
        )

    def _misses(self, name: str, loop: str, fiber: Fiber) -> bool:
        """Whether some use of a tensor stands in the loop or outside of it, but not at the loop's position."""
        return any(self._place(read, self.cascade.tensor(name).ranks, fiber) is None for _, read in self.readers[name])

    def _dim(self, ranks: tuple[str, ...], loop: str) -> int:
        return next(i for i, rank in enumerate(ranks) if loop in leaves_of(self.cascade, rank))

    def _is_carried(self, name: str, loop: str, swept: Run) -> bool:
        """Whether a tensor with a position for each of the loop is used at more than one level of it."""
        levels = {swept.levels[number] for number, _ in self.readers[name]} | {swept.levels[n] for n in self.definers[name]}
        return len({max(1, level) for level in levels}) > 1

    def _place(self, read: Read, ranks: tuple[str, ...], fiber: Fiber) -> _Place | None:
        """Where along a loop an access lies; None if no index follows the loop."""
        loop = fiber.clock
        for dim, (rank, index) in enumerate(zip(ranks, read.indices, strict=True)):
            if index is None or loop not in index.symbols:
                continue
            position = fiber.position(rank, index) if rank in fiber.path else None
            if position is not None and position == symbol(loop):
                return _Place(dim, position, True, frozenset())
            others = (index.symbols & {r.name for r in self.cascade.ranks}) - {loop}
            return _Place(dim, index, index == symbol(loop), frozenset(others))
        return None

    def _window(self, placed: list[_Place], loop: str, covers: frozenset[str], owns: bool) -> _Status:
        """Positions within a bounded distance of the loop's: as many words as they span."""
        spans: list[Formula] = []
        low: list[Formula] = []
        for place in placed:
            width = ONE
            rest = place.index
            for other in sorted(place.others):
                parts = place.index.split(other)
                if parts is None or parts[0].symbols & {r.name for r in self.cascade.ranks}:
                    return _Status("all", because=f"read at several positions of `{loop}`")
                number = parts[0].constant
                slope = parts[0] if number is None else constant(number if number > 0 else -number)
                width = width + slope * (extent_of(self.cascade, other) - ONE)
                rest = rest - parts[0] * symbol(other)
            spans.append(width)
            low.append(rest)
        gaps = [(one - low[0]).constant for one in low]
        if (
            not _monotone(low[0], loop)
            or any(gap is None for gap in gaps)
            or (owns and (low[0] - symbol(loop)).symbols & {r.name for r in self.cascade.ranks})
        ):
            return _Status("all", because=f"read at several positions of `{loop}`")
        known = [gap for gap in gaps if gap is not None]
        width = maximum(*spans) + (max(known) - min(known))
        return _Status("some", width, covers, f"a window along `{loop}`")


@dataclass(frozen=True)
class _Place:
    dim: int
    index: Formula
    exact: bool
    others: frozenset[str]


@dataclass(frozen=True)
class _Status:
    """`skip`: the loop does not concern the tensor; `one`: one position; `some`: `words` positions, and all of what is inside;
    `all`: everything from here on."""

    kind: str
    words: Formula = ONE
    covers: frozenset[str] = frozenset()
    because: str = ""
    extra: Formula = ZERO


@dataclass(frozen=True)
class Live:
    """Live words of all tensors for a traversal."""

    traversal: Traversal
    held: dict[str, Held]
    levels: tuple[int, ...]
    """Sweeps, and 0 for what comes before them if anything does."""

    def base(self, level: int) -> Formula:
        """Words alive during a level of tensors that are not carried across levels; one more where carried ones are replaced."""
        words = total(held.words for held in self.held.values() if not held.carried and held.first <= level <= held.last)
        carried = [held for held in self.held.values() if held.carried]
        replaced = any(held.first == level for held in carried) and any(held.last == level for held in carried)
        return words + ONE if replaced else words

    def crossing(self, level: int) -> dict[str, Held]:
        """Tensors carried from this level (or an earlier one) to a later one."""
        return {name: held for name, held in self.held.items() if held.carried and held.first <= level < held.last}

    @cached_property
    def by_level(self) -> dict[int, Formula]:
        """Words alive at once during each level: positions of what comes in are given up as those of what goes on are filled."""
        found = {}
        for level in self.levels:
            carried = [held for held in self.held.values() if held.carried]
            through = total(held.words for held in carried if held.first < level < held.last)
            arriving = total(held.words for held in carried if held.last == level)
            leaving = total(held.words for held in carried if held.first == level)
            found[level] = self.base(level) + through + _peak([arriving, leaving])
        return found

    @cached_property
    def total(self) -> Formula:
        """The greatest of them: a buffer of so many words lets every element cross the memory boundary at most once."""
        return _peak(list(self.by_level.values()))


def _moves_with(index: Formula, rank: str) -> bool:
    """Whether an index is a rank's position, give or take other ranks: `p`, `p + w - W`, `clamp(p, 0, M - W) + w`; not `h//G`."""
    if index == symbol(rank):
        return True
    names = {key for monomial in index.terms for key, _ in monomial}
    steep = any(key == rank or (isinstance(key, Call) and key.op in ("min", "max") and rank in key.args_symbols) for key in names)
    return steep and _monotone(index, rank)


def _monotone(index: Formula, rank: str) -> bool:
    """Whether an index never falls as a rank's position grows (parameters and sizes taken as positive)."""
    for monomial, c in index.terms.items():
        held = [key for key, _ in monomial if key == rank or (isinstance(key, Call) and rank in key.args_symbols)]
        if not held:
            continue
        if c < 0 or len(held) > 1:
            return False
        key = held[0]
        if isinstance(key, Call):
            if key.op not in ("min", "max", "floor", "ceil"):
                return False
            inside = key.args if key.op in ("min", "max") else key.args[:1]
            if not all(_monotone(arg, rank) for arg in inside) or (key.op in ("floor", "ceil") and rank in key.args[1].symbols):
                return False
    return True


def _peak(sums: list[Formula]) -> Formula:
    """The greatest of sums of words, with those that are term by term below another left out."""
    kept: list[Formula] = []
    for one in sums:
        if any(all(c >= 0 for c in (other - one).terms.values()) for other in kept):
            continue
        kept = [other for other in kept if not all(c >= 0 for c in (one - other).terms.values())]
        kept.append(one)
    return maximum(*kept) if kept else ZERO


def _nominal(value: Formula, values: Mapping[str, int | float]) -> float:
    known = {name: values.get(name, NOMINAL) for name in value.symbols}
    try:
        return float(value.evaluate(known))
    except (ArithmeticError, ValueError):
        return float("inf")
