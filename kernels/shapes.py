"""Shapes to test a kernel on: awkward ones, chosen by the roles of the sizes in the cascade.

In: a cascade. Out: cases, each with a size for every symbol: all ones, primes, tails of tiles, whole tiles, features of different
lengths, eight queries to a key head, tiles as long as in the spec of which the last is cut. Sizes that a formula of the cascade
forbids are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..einsum.cascade import Access, Cascade, Coord, Map, Reduce, Scalar, Select, accesses, free_ranks, walk
from ..einsum.diagnostics import EinsmithError
from ..einsum.flatten import flatten
from ..einsum.sizes import bind

LARGEST_CASE = 2**22
"""Points of the largest Einsum that a case may have: the interpreters must stay quick."""


@dataclass(frozen=True)
class Case:
    """One shape, and how its inputs are drawn."""

    name: str
    sizes: dict[str, int]
    scale: float = 1.0
    """Factor on the random inputs."""
    strided: bool = False
    """Are the inputs views whose dimensions lie in the opposite order in memory?"""
    draws: int = 1
    """Random inputs drawn; the greatest errors over all of them are compared."""


def shape_grid(cascade: Cascade) -> list[Case]:
    """Cases from small to large; each binds to the cascade."""
    long, features, others = roles(cascade)
    steps, lying = stepped(cascade), rows(cascade)
    sides = lying & set(long)
    given, blocks = dict(cascade.sizes), block_symbols(cascade)
    shared, picked = parted(cascade), selected(cascade)
    near = placed(cascade) | {name for few, many in picked for name in (few, many) if name in cascade.symbols}
    among = _chosen_among(cascade, {many for _, many in picked})
    short = [name for name in others if name in near and given.get(name, 1) > 1]
    beside = {name: number for number, name in enumerate(name for name in short if name in lying)}
    cases: list[Case] = []

    def add(
        name: str, long_sizes: tuple[int, ...], feature_sizes: tuple[int, ...], other_sizes: tuple[int, ...], scale: float = 1.0
    ) -> None:
        sizes = {}
        for names, values in ((long, long_sizes), (features, feature_sizes), (others, other_sizes)):
            for number, symbol in enumerate(names):
                size = values[number % len(values)]
                sizes[symbol] = size // 4 if symbol in steps and size > MOST_STEPS else size
        longest = max(sides, key=lambda symbol: (sizes[symbol], symbol), default="")
        if math.prod(sizes[symbol] for symbol in sides) > MOST_ROWS:
            sizes |= {symbol: max(3, sizes[symbol] // 8) for symbol in sides - {longest}}
        if name not in ("ones", "eight to one"):  # sides of an image, windows that fit into them, choices among few
            sizes |= {symbol: _near(given[symbol], name, beside.get(symbol)) for symbol in short}
        if name != "ones":  # a block of one coordinate shows little, and each is a program
            sizes |= {symbol: max(2, given[symbol] - (name == "primes")) for symbol in blocks if symbol in given}
            sizes |= {tile: max(2, min(sizes[tile], sizes[whole] // 4)) for tile, whole in among.items()}
        for symbol, parts in shared.items():
            whole = math.lcm(*(sizes[part] for part in parts))
            sizes[symbol] = max(whole, -(-sizes[symbol] // whole) * whole if whole else 0)
        if name != "ones" and picked:
            lengths = {**_counts(cascade, sizes), **sizes}
            sizes |= {few: min(sizes[few], lengths[many]) for few, many in picked if many in lengths}
        cases.append(Case(name, sizes, scale, strided=name == "primes"))

    add("ones", (1,), (1,), (1,))
    add("primes", (37, 29, 31), (13, 7, 11), (2, 3, 1))
    add("tails", (130, 71, 97), (24, 40, 16), (1, 2, 1))
    add("whole tiles", (128, 128), (32, 32), (1, 2))
    add("more keys than queries", (17, 150), (16, 48), (2, 1))
    add("more queries than keys", (150, 17), (48, 16), (1, 2))
    add("eight to one", (33, 65), (16, 16), (1, 8))
    add("large logits", (40, 70), (32, 16), (1, 2), 12.0)
    add("no keys", (5, 0), (16, 16), (1, 2))
    tiles: dict[str, int] = {}
    if given:
        tiles = {name: given[name] for name in tile_symbols(cascade) if given.get(name, 1) > 1}
        if tiles:
            cases.append(replace(cases[1], name="tiles of the spec, cut", sizes=cases[1].sizes | tiles, strided=False))
        cases.append(Case("as in the spec", given))
    found = [_drawn(cascade, case) for case in cases if _possible(cascade, case)]
    sizes = {name: size - 1 if size > 3 and name not in tiles else size for name, size in given.items()}
    for _ in range(6 if len(found) < FEW else 0):
        less = Case("less than in the spec", sizes)
        if given and _possible(cascade, less):
            found.append(less)
            break
        sizes = {name: size // 2 if size > 3 and name not in tiles else size for name, size in sizes.items()}
    return found


OUTPUTS = 4096
"""Elements that are compared at least, over all draws, where inputs are large."""
MOST_STEPS = 40
"""Steps that a case takes one by one: more show nothing else, and take time."""
MOST_ROWS = 1200
"""Rows of an image, or of what has more sides: beyond, all sides but the longest are cut. Each row may take a program."""
FEW = 6
"""Cases below which one more is made from the sizes of the spec."""
MUCH_LONGER = 4
"""Of two sizes that both look like lengths (keys that are made in the cascade carry what is contracted), one so much shorter in the
spec is that of features."""
SHORT = 16
"""Sizes below this in the spec's own `sizes` are those of batches, groups and windows, the others of sequences and features."""


def roles(cascade: Cascade) -> tuple[list[str], list[str], list[str]]:
    """Symbols of long ranks, of features, and the rest, in the order of the cascade.

    Long is what a loop walks (iterated, split, or reduced and carried by an intermediate) and what a tile of rows lies along (on
    every output and every reduction, and lacking in some access to an input); features are contracted or kept whole. Where the spec
    gives sizes they correct this.
    """
    flat = flatten(cascade)
    carried = {r for t in flat.tensors if t.kind != "input" for r in t.ranks}
    reduced = {r for e in flat.einsums if isinstance(e.body, Reduce) for r in e.body.ranks}
    everywhere = set.intersection(*(set(flat.tensor(name).ranks) for name in flat.outputs))
    walked = {t.iterates for t in flat.tensors if t.iterates}
    read = [a for e in flat.einsums for a in accesses(e.body) if flat.tensor(a.tensor).kind == "input" and len(a.indices) > 1]
    tiles = tile_symbols(cascade)
    partial = [set(flat.tensor(e.output).ranks) for e in flat.einsums if isinstance(e.body, Reduce)]
    along = {r for t in flat.tensors if t.kind != "input" and reduced & carried & set(t.ranks) for r in t.ranks} & everywhere
    given = dict(cascade.sizes)
    found: dict[str, str] = {}
    beside: set[str] = set()
    """Sizes of ranks that an intermediate has beside one that is summed: rows of scores."""
    for rank in flat.ranks:
        name = rank.name
        if name in walked or (name in reduced and name in carried) or rank.split is not None:
            role = "long"
        elif name in everywhere and all(name in ranks for ranks in partial if ranks & everywhere):
            role = "long" if any(name not in free_ranks(access) for access in read) else "rest"
        else:
            role = "feature"
        for node in walk(rank.extent):
            if isinstance(node, Scalar) and node.name in cascade.symbols:
                beside |= {node.name} if name in along else set()
                found[node.name] = min(found.get(node.name, role), role, key=("long", "rest", "feature").index)
    longest = max((given[name] for name, role in found.items() if role == "long" and name in given), default=0)
    for name in cascade.symbols:
        role = found.setdefault(name, "rest")
        lies_along = role == "feature" and name in beside and given.get(name, 0) >= max(longest, 2 * SHORT)
        if name in tiles or (name in given and role != "rest" and given[name] < SHORT):
            found[name] = "rest"
        elif role == "long" and name in given and given[name] * MUCH_LONGER <= longest:
            found[name] = "feature"
        elif lies_along or (name in given and role == "rest" and given[name] >= SHORT):
            found[name] = "long"
    long, features, rest = ([n for n in cascade.symbols if found[n] == role] for role in ("long", "feature", "rest"))
    return long, features, rest


def _drawn(cascade: Cascade, case: Case) -> Case:
    """With large inputs the greatest error of a few outputs is a matter of luck: more draws where there are fewer outputs."""
    if case.scale == 1:
        return case
    extents = bind(cascade, case.sizes).extents
    outputs = sum(math.prod(extents[r] for r in cascade.tensor(name).ranks) for name in cascade.outputs)
    return replace(case, draws=min(16, max(4, -(-OUTPUTS // max(outputs, 1)))))


def placed(cascade: Cascade) -> frozenset[str]:
    """Sizes of ranks whose coordinates are added to others in an index, and what coordinates are compared with: sides of an image,
    and windows on it."""
    found: set[str] = set()
    for einsum in flatten(cascade).einsums:
        for node in walk(einsum.body):
            if isinstance(node, Access):
                coordinates = [[n for n in walk(index) if isinstance(n, Coord)] for index in node.indices]
                extents = [cascade.rank(one.rank).extent for each in coordinates if len(set(each)) > 1 for one in each]
            else:
                extents = list(node.args[:1]) if isinstance(node, Map) and node.op == "where" else []
            found |= {each.name for extent in extents for each in walk(extent) if isinstance(each, Scalar)}
    return frozenset(found & set(cascade.symbols)) - tile_symbols(cascade)


def _near(given: int, case: str, side: int | None) -> int:
    """A short size near that of the spec: less for primes, beyond it for tails, else about half of it. `side`: which of several."""
    match case:
        case "primes":
            return max(2, given // 2, given - 1 - 2 * (side or 0)) if given > 3 else given
        case "tails":
            return given + 1 if side == 0 else given
        case _:
            return min(given, given // 2 + 1 + (side == 1))


def stepped(cascade: Cascade) -> frozenset[str]:
    """Sizes of ranks that are walked a position or a given tile at a time, however long: no tile is chosen along them."""
    iterated = {tensor.iterates for tensor in cascade.tensors if tensor.iterates}
    ranks = [rank for rank in cascade.ranks if rank.split is not None or (rank.name in iterated and rank.part_of is None)]
    return frozenset(n.name for rank in ranks for n in walk(rank.extent) if isinstance(n, Scalar)) - tile_symbols(cascade)


def rows(cascade: Cascade) -> frozenset[str]:
    """Sizes of ranks that every output has and nothing sums or goes along: sides of an image, not keys."""
    everywhere = set.intersection(*(set(cascade.tensor(name).ranks) for name in cascade.outputs))
    taken = {rank for e in flatten(cascade).einsums for rank in (e.body.ranks if isinstance(e.body, Reduce) else ())}
    taken |= {tensor.iterates for tensor in cascade.tensors if tensor.iterates}
    kept = [rank for rank in cascade.ranks if rank.name in everywhere - taken]
    return frozenset(node.name for rank in kept for node in walk(rank.extent) if isinstance(node, Scalar))


def block_symbols(cascade: Cascade) -> frozenset[str]:
    """Sizes of blocks that coordinates are counted in (`y//W`), where the extent need not be a whole number of them."""
    found = set()
    for einsum in cascade.einsums:
        for node in walk(einsum.body):
            match node:
                case Map(op="//" | "%", args=(Coord(rank=rank), Scalar(name=name))) if name in cascade.symbols:
                    if Scalar(name) not in walk(cascade.rank(rank).extent):
                        found.add(name)
    return frozenset(found)


def parted(cascade: Cascade) -> dict[str, list[str]]:
    """Sizes that extents and parameters are parts of -> the sizes that they are divided by, as in heads // group: a group that is
    not whole has none."""
    found: dict[str, list[str]] = {}
    for expr in (*(rank.extent for rank in cascade.ranks), *(value for _, value in cascade.params)):
        match expr:
            case Map(op="//", args=(Scalar(name=whole), Scalar(name=by))) if {whole, by} <= set(cascade.symbols):
                found.setdefault(whole, []).append(by)
    return found


def selected(cascade: Cascade) -> list[tuple[str, str]]:
    """Sizes of what is chosen, each with the size, or the count of tiles, of what it is chosen from."""
    flat = flatten(cascade)
    pairs = [(flat.rank(e.body.fills).extent, flat.rank(e.body.rank).extent) for e in flat.einsums if isinstance(e.body, Select)]
    named = [(few.name, many.name) for few, many in pairs if isinstance(few, Scalar) and isinstance(many, Scalar)]
    return [(few, many) for few, many in named if few in cascade.symbols]


def _chosen_among(cascade: Cascade, counts: set[str]) -> dict[str, str]:
    """Sizes of tiles of which some are chosen, each with the size of what is cut into them: one tile is no choice."""
    splits = [(rank.extent, rank.split) for rank in cascade.ranks if rank.split is not None and rank.split.count in counts]
    return {
        split.tile.name: extent.name
        for extent, split in splits
        if isinstance(extent, Scalar) and isinstance(split.tile, Scalar) and {split.tile.name, extent.name} <= set(cascade.symbols)
    }


def _counts(cascade: Cascade, sizes: dict[str, int]) -> dict[str, int]:
    """How many tiles split ranks have; none at sizes that do not bind."""
    try:
        bound = bind(cascade, sizes)
    except EinsmithError:
        return {}
    return {name: int(bound.scalars[name]) for name in cascade.counts if name in bound.scalars}


def tile_symbols(cascade: Cascade) -> frozenset[str]:
    """Sizes that tiles of split ranks depend on."""
    return frozenset(n.name for r in cascade.ranks if r.split for n in walk(r.split.tile) if isinstance(n, Scalar))


def _possible(cascade: Cascade, case: Case) -> bool:
    """Do the sizes bind, is nothing divided into parts of 0, and is the case small enough?"""
    try:
        bound = bind(cascade, case.sizes)
    except EinsmithError:
        return False
    flat = flatten(cascade)
    for einsum in flat.einsums:
        nodes = [node for expr in (einsum.body, *einsum.indices) for node in walk(expr)]
        parts = [node.args[1] for node in nodes if isinstance(node, Map) and node.op in ("//", "%")]
        nothing = any(bound.extents.get(node.rank, 1) == 0 for node in nodes if isinstance(node, Coord))
        if not nothing and any(isinstance(part, Scalar) and bound.scalars.get(part.name) == 0 for part in parts):
            return False
    chosen = [e.body for e in flat.einsums if isinstance(e.body, Select)]
    if any(bound.extents[body.fills] > bound.extents[body.rank] for body in chosen):
        return False
    return all(math.prod(bound.extents.get(r, 1) for r in t.ranks) <= LARGEST_CASE for t in flat.tensors)
