"""Passes by simulation, from the definition alone.

Every point of every Einsum is a node with the elements that it reads. A sweep visits the positions of a fiber in order; a point
that goes along the fiber is computed when the sweep is at its position, or at most `DELAY` positions later; points that do not, as
soon as they can be. A gather is computed at the start of a sweep, what is scattered is there at its end. The level of an Einsum is
the sweep in which its last point is computed. Nothing is shared with the analysis but the IR.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from einsmith.einsum.cascade import Access, Cascade, Coord, Expr, Map, Reduce, Scalar, Scan, Select, children, walk
from einsmith.einsum.flatten import flatten
from einsmith.einsum.sizes import bind, evaluate_scalar

DELAY = 6
"""Positions that count as a bounded distance. Each further level can begin so much earlier at the end of a sweep, so that fibers
must be several times as long."""
MOST = 12
"""Sweeps after which a simulation gives up."""

Element = tuple[str, tuple[int, ...]]


@dataclass
class Point:
    einsum: int
    output: Element
    position: int | None
    gather: bool
    values: dict[str, int] = field(default_factory=dict)
    """Coordinates of the ranks that the Einsum iterates, parts and wholes of split ranks both."""
    reads: set[Element] = field(default_factory=set)
    missing: set[Element] = field(default_factory=set)
    """Those of them that are no inputs."""
    done: bool = False


class Simulation:
    """All points of a cascade, for one rank."""

    def __init__(
        self, cascade: Cascade, rank: str, sizes: dict[str, int] | None = None, params: dict[str, float] | None = None
    ) -> None:
        self.cascade = flatten(cascade)
        self.rank = rank
        self.bound = bind(self.cascade, sizes, params)
        self.leaves = self._leaves(rank)
        self.points: list[Point] = []
        self.touches: list[bool] = []
        self.waiting: dict[Element, list[Point]] = defaultdict(list)
        self.parts_of: dict[Element, int] = defaultdict(int)
        self.length = self.bound.extents[rank]
        self.mirror: frozenset[int] = frozenset()
        for number in range(len(self.cascade.einsums)):
            self._build(number)

    def _leaves(self, rank: str) -> set[str]:
        split = self.cascade.rank(rank).split
        return {rank} if split is None else self._leaves(split.outer) | self._leaves(split.inner)

    # --- the graph ---

    def _build(self, number: int) -> None:
        einsum = self.cascade.einsums[number]
        body = einsum.body
        free = [node.rank for index in einsum.indices for node in walk(index) if isinstance(node, Coord)]
        bound = list(body.ranks) if isinstance(body, Reduce) else [body.rank] if isinstance(body, Select) else []
        fills = [body.fills] if isinstance(body, Select) else []
        inner = body.body if isinstance(body, Reduce | Scan | Select) else body
        names = list(dict.fromkeys([*free, *bound, *fills]))
        iterated = set().union(*(self._leaves(name) for name in names)) if names else set()
        gathers = any(self._gathers(node) for node in walk(inner) if isinstance(node, Access))
        scatters = any(
            any(isinstance(node, Access) for node in walk(index)) and self._leaves(rank) & self.leaves
            for index, rank in zip(einsum.indices, self.cascade.tensor(einsum.output).ranks, strict=True)
        )
        self.touches.append(self.leaves <= iterated or gathers or scatters)
        for point in self._space(names):
            values = {**self.bound.scalars, **point}
            output = (einsum.output, tuple(self._index(index, values) for index in einsum.indices))
            position = self._position(point) if self.leaves <= iterated else None
            made = Point(number, output, position, gathers or scatters, point)
            made.missing = set(self._reads(inner, values))
            for index in einsum.indices:
                made.missing |= set(self._reads(index, values))
            if isinstance(body, Scan) and values[body.rank] > 0:
                before = {**values, body.rank: values[body.rank] - 1}
                made.missing.add((einsum.output, tuple(self._index(index, before) for index in einsum.indices)))
            made.reads = set(made.missing)
            made.missing = {element for element in made.reads if self.cascade.tensor(element[0]).kind != "input"}
            self.points.append(made)
            self.parts_of[output] += 1
            for element in made.missing:
                self.waiting[element].append(made)

    def _space(self, names: list[str]) -> Iterator[dict[str, int]]:
        for point in itertools.product(*(range(self.bound.extents[name]) for name in names)):
            found = dict(zip(names, point, strict=True))
            inside = True
            for rank in self.cascade.ranks:
                if rank.split is not None and rank.split.outer in found and rank.split.inner in found:
                    tile = self.bound.extents[rank.split.inner]
                    found[rank.name] = found[rank.split.outer] * tile + found[rank.split.inner]
                    inside &= found[rank.name] < self.bound.extents[rank.name]
            if inside:
                yield found

    def _position(self, point: dict[str, int]) -> int:
        return point[self.rank]

    def _gathers(self, access: Access) -> bool:
        """Whether an access gathers from a dimension that the rank indexes somewhere, or with positions chosen along it."""
        ranks = self.cascade.tensor(access.tensor).ranks
        for place, (index, rank) in enumerate(zip(access.indices, ranks, strict=True)):
            selecting = [node.tensor for node in walk(index) if isinstance(node, Access)]
            if not selecting:
                continue
            if self._leaves(rank) & self.leaves or any(self._chosen(name) for name in selecting):
                return True
            for einsum in self.cascade.einsums:
                for node in walk(einsum.body):
                    if isinstance(node, Access) and node.tensor == access.tensor:
                        coords = {n.rank for n in walk(node.indices[place]) if isinstance(n, Coord)}
                        plain = not any(isinstance(n, Access) for n in walk(node.indices[place]))
                        if plain and any(self._leaves(c) & self.leaves for c in coords):
                            return True
        return False

    def _chosen(self, name: str) -> bool:
        for einsum in self.cascade.definitions(name):
            body = einsum.body
            if isinstance(body, Select) and body.op.startswith("arg") and self._leaves(body.rank) & self.leaves:
                return True
            if isinstance(body, Reduce) and body.op.startswith("arg") and self._leaves(body.ranks[0]) & self.leaves:
                return True
        return False

    def _index(self, expr: Expr, values: dict[str, float]) -> int:
        return int(self._value(expr, values))

    def _value(self, expr: Expr, values: dict[str, float]) -> float:
        """An index or condition at one point; selected positions are made up, spread over the extent."""
        match expr:
            case Coord(rank=rank):
                return values[rank]
            case Access(tensor=tensor, indices=indices):
                where = tuple(self._index(index, values) for index in indices)
                return (7 * sum((i + 1) * (5 + n) for n, i in enumerate(where)) + 3 * len(tensor)) % self.length
            case Map(op=op, args=args):
                numbers = tuple(self._value(arg, values) for arg in args)
                return evaluate_scalar(
                    Map(op, tuple(Scalar(f"#{i}") for i in range(len(args)))), {f"#{i}": n for i, n in enumerate(numbers)}
                )
            case _:
                return evaluate_scalar(expr, values)

    def _reads(self, expr: Expr, values: dict[str, float]) -> Iterator[Element]:
        if isinstance(expr, Access):
            extents = [self.bound.extents[rank] for rank in self.cascade.tensor(expr.tensor).ranks]
            where = tuple(self._index(index, values) for index in expr.indices)
            tensor = self.cascade.tensor(expr.tensor)
            last = [n if rank == tensor.iterates else n - 1 for n, rank in zip(extents, tensor.ranks, strict=True)]
            if not any(isinstance(node, Access) for index in expr.indices for node in walk(index)):
                assert all(0 <= i <= n for i, n in zip(where, last, strict=True)), (expr, where)
            yield expr.tensor, tuple(min(i, n) for i, n in zip(where, last, strict=True))
        if isinstance(expr, Map) and expr.op == "where" and not any(isinstance(node, Access) for node in walk(expr.args[0])):
            yield from self._reads(expr.args[1] if self._value(expr.args[0], values) else expr.args[2], values)
            return
        for part in children(expr):
            yield from self._reads(part, values)

    # --- sweeps ---

    def run(self, directions: tuple[int, ...] = (1,) * MOST, reversed_: frozenset[int] = frozenset()) -> list[int] | None:
        """Level of each Einsum with sweeps in these directions (1 or -1); None if they are not enough.

        `reversed_`: Einsums whose points lie at mirrored positions.
        """
        missing = {id(point): set(point.missing) for point in self.points}
        left = dict(self.parts_of)
        done: set[int] = set()
        levels = [0] * len(self.cascade.einsums)
        late: list[Point] = []

        def compute(point: Point, sweep: int) -> None:
            stack = [point]
            while stack:
                one = stack.pop()
                if id(one) in done:
                    continue
                done.add(id(one))
                levels[one.einsum] = max(levels[one.einsum], sweep)
                left[one.output] -= 1
                if left[one.output]:
                    continue
                if any(isinstance(n, Access) for i in self.cascade.einsums[one.einsum].indices for n in walk(i)):
                    late.append(one)
                    continue
                stack.extend(self._arrived(one.output, missing, done, now))

        now = (-1, 1)
        for point in self.points:
            if point.position is None and not point.gather and not missing[id(point)]:
                compute(point, 0)
        for sweep, direction in enumerate(directions, start=1):
            for point in [p for p in self.points if p.gather]:
                now = (0, direction)
                if not missing[id(point)] and id(point) not in done:
                    compute(point, sweep)
            self.mirror = reversed_
            due: dict[int, list[Point]] = defaultdict(list)
            for point in self.points:
                if point.position is not None and id(point) not in done:
                    due[self._place(point, direction)].append(point)
            for time in range(self.length + DELAY):
                now = (time, direction)
                for point in due[time]:
                    if id(point) not in done and not missing[id(point)]:
                        compute(point, sweep)
            now = (-1, 1)
            while late:
                for point in self._arrived(late.pop().output, missing, done, now):
                    compute(point, sweep)
            if len(done) == len(self.points):
                return levels
        return None

    def _open(self, point: Point, now: tuple[int, int]) -> bool:
        time, direction = now
        if point.gather:
            return time == 0
        if point.position is None:
            return True
        if time < 0:
            return False
        place = self._place(point, direction)
        return place <= time <= place + DELAY

    def _place(self, point: Point, direction: int) -> int:
        assert point.position is not None
        return point.position if (direction == 1) != (point.einsum in self.mirror) else self.length - 1 - point.position

    def _arrived(self, element: Element, missing: dict[int, set[Element]], done: set[int], now: tuple[int, int]) -> list[Point]:
        found = []
        for point in self.waiting[element]:
            missing[id(point)].discard(element)
            if not missing[id(point)] and id(point) not in done and self._open(point, now):
                found.append(point)
        return found

    def passes(self) -> int:
        """Greatest level of an Einsum along the rank, sweeping upwards."""
        levels = self.run()
        assert levels is not None, "more sweeps than the simulation makes"
        return max((level for level, touches in zip(levels, self.touches, strict=True) if touches), default=0)

    def least(self, most: int = 4) -> int:
        """The same, with the best directions of sweeps and orders of Einsums."""
        along = [n for n, touches in enumerate(self.touches) if touches]
        for count in range(1, most + 1):
            for directions in itertools.product((1, -1), repeat=count):
                for mirrored in itertools.product((False, True), repeat=len(along)):
                    levels = self.run(directions, frozenset(n for n, flag in zip(along, mirrored, strict=True) if flag))
                    if levels is not None:
                        return max((level for level, touches in zip(levels, self.touches, strict=True) if touches), default=0)
        raise AssertionError("more sweeps than the simulation makes")
