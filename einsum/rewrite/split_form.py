"""Split form: the rank is cut into contiguous parts that run on their own; their results are merged.

before    GM_run[p,m1+1]   = max(GM_run[p,m1], GM_tile[p,m1])
          GM_rescale[p,m1] = exp(GM_run[p,m1] - GM_run[p,m1+1])
          SD_run[p,m1+1]   = SD_run[p,m1] * GM_rescale[p,m1] + SD_tile[p,m1]
          L[p]             = log(SD_run[p,M1]) + GM_run[p,M1]
after     GM_run[p,s,m1+1]  = max(GM_run[p,s,m1], GM_tile[p,s,m1])         (each part s on its own)
          SD_run[p,s,m1+1]  = SD_run[p,s,m1] * GM_rescale[p,s,m1] + SD_tile[p,s,m1]
          GM_part[p,s]      = GM_run[p,s,M1]
          SD_part[p,s]      = SD_run[p,s,M1]
          GM[p]             = max[s](GM_part[p,s])
          GM_part_rescale[p,s] = exp(GM_part[p,s] - GM[p])
          SD[p]             = SD_part[p,s] * GM_part_rescale[p,s]
          L[p]              = log(SD[p]) + GM[p]

The step of a running state is combine(C(X; g, g'), tile), where C turns what was reduced about g into what it is about g', for any
g and g': that is what running-rescale, running-shift and running-moments have shown. A part ends with X_s about its own g_s; with g
of all parts, C(X_s; g_s, g) is about g, and reductions are associative: X = combine over s of C(X_s; g_s, g). A part that has seen
nothing holds identities, which C leaves alone or gives the weight 0.

Part s holds the positions from s*MS on, with MS = (M + S - 1)//S of them at most; positions from M on do not count, so the last
parts may be empty. MS is a parameter: stages that do not take a quotient apart see an affine index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    Tensor,
    accesses,
    ceil_div,
    children,
    free_ranks,
    rebuild,
    transform,
)  # fmt: skip
from ..flatten import IDENTITY
from .loop import Loop, Obstructed, State
from .step import Refused, Rewritten, Step, coords, fresh, in_order, reordered, shown, taken_names, text

NAME = "split-form"
DEFAULT_PARTS = 4
_CORRECTIONS = ("_rescale", "_shift", "_step")


@dataclass(frozen=True)
class Names:
    """The new ranks and the new extent."""

    part: str
    """The rank of the parts."""
    parts: str
    """How many there are: an extent with a value in `sizes`."""
    inside: str
    """The rank of the positions in one part."""


def part_length(extent: Expr, many: Expr) -> Expr:
    """The extent over the number of parts, rounded up."""
    return Map("//", (Map("-", (Map("+", (extent, many)), Number(1))), many))


def split_form(cascade: Cascade, rank: str, parts: int | None = None) -> tuple[list[Rewritten], Names] | Refused:
    """Cut the loop along `rank` of a one-pass form into parts (one step), and merge the results (a step for each state).

    The steps belong together: the cascade of the last one is the whole.
    """
    try:
        return _Splitter(Loop(cascade, rank), parts or DEFAULT_PARTS).run()
    except Obstructed as obstructed:
        return Refused(NAME, obstructed.einsum, Coord(rank), obstructed.reason)


class _Splitter:
    def __init__(self, loop: Loop, count: int) -> None:
        self.loop, self.old = loop, loop.cascade
        self.states = loop.states
        self.taken = taken_names(self.old)
        extent_name = "S" if "S" not in self.taken else "PARTS"
        self.names = Names(fresh("s", self.taken), fresh(extent_name, self.taken), fresh(f"{loop.rank}s", self.taken))
        self.count = count
        self.extent = self.old.rank(loop.rank).extent
        self.length = Scalar(fresh(f"{loop.rank.upper()}S", self.taken))
        many = Scalar(self.names.parts)
        self.params = (*self.old.params, (self.length.name, part_length(self.extent, many)))
        split = loop.split
        start = Map("*", (Coord(self.names.part), self.length))
        self.start = Map("+", (start, loop.start))
        """The first position of a tile."""
        self.position = Map("+", (self.start, Coord(split.inner)))
        self.exists = Map("<", (self.position, self.extent))
        self.einsums: list[Einsum] = []
        """The merge, in order."""
        self.tensors: list[Tensor] = []
        self.merged: dict[str, str] = {}
        """Of each state, the tensor that holds the result of all parts."""
        self.partial: dict[str, str] = {}
        """Of each state, the tensor that holds the results of the parts."""
        self.versions: dict[str, tuple[str, tuple[str, ...]]] = {}
        """Of what the loop computes from states alone: what it is at the merge, and its ranks."""

    def run(self) -> tuple[list[Rewritten], Names]:
        loop, old = self.loop, self.old
        self.new = replace(old, ranks=self._ranks(), params=self.params, sizes=(*old.sizes, (self.names.parts, self.count)))
        waiting = [e for e in old.einsums if e.output in loop.after]
        for einsum in old.einsums:
            if einsum.output not in loop.tensors:
                self._only_ends(einsum)
        passed_on = self._name_results(waiting)
        first = [self._in_part(e) if e.output in loop.tensors else e for e in old.einsums if e.output not in loop.after]
        shaped = [self._shaped(tensor) for tensor in old.tensors]
        self.new = replace(self.new, tensors=tuple(shaped))
        for state in self.states:
            self._result_of_parts(state)
        counted = len(self.einsums)
        merges = [self._merge(state) for state in self.states]
        rest = [replace(e, body=transform(e.body, self._whole)) for e in waiting if e.output not in passed_on]
        everything = (*first, *self.einsums, *rest)
        after = reordered(replace(self.new, tensors=(*shaped, *self.tensors), einsums=everything))
        ran = [e for e in old.einsums if e.output in loop.tensors]
        cut = Step(
            NAME,
            loop.rank,
            shown(ran, old),
            f"{loop.rank} = {text(self.position)}: {self.names.parts} parts, one after the other, each with states of its own",
            f"{self.length.name} = {text(self.params[-1][1])} is {text(self.extent)}/{self.names.parts} rounded up: every position "
            f"below {text(self.extent)} is in exactly one part; what lies beyond gives each reduction its identity",
            shown([*(e for e in first if e.output in loop.tensors), *self.einsums[:counted]], after),
        )
        steps = [cut, *(self._proof(state, own, after) for state, own in zip(self.states, merges, strict=True))]
        return [Rewritten(after, step) for step in steps], self.names

    def _ranks(self) -> tuple[Rank, ...]:
        loop, names, split = self.loop, self.names, self.loop.split
        result: list[Rank] = []
        for rank in self.old.ranks:
            if rank.name == loop.rank:
                result.append(replace(rank, split=None))
                result.append(Rank(names.part, Scalar(names.parts)))
                result.append(Rank(names.inside, self.length, split))
            elif rank.name == split.outer and split.count is None:
                result.append(replace(rank, extent=ceil_div(self.length, split.tile), part_of=names.inside))
            elif rank.name in loop.parts:
                result.append(replace(rank, part_of=names.inside))
            else:
                result.append(rank)
        return tuple(result)

    def _only_ends(self, einsum: Einsum) -> None:
        for node in (node for expr in (einsum.body, *einsum.indices) for node in accesses(expr)):
            if node.tensor in self.loop.tensors and not self.loop.at_end(node):
                raise Obstructed(einsum.output, f"it reads `{text(node)}`, which is known in the loop only")

    # --- each part on its own -------------------------------------------------------------------------------------------------

    def _shaped(self, tensor: Tensor) -> Tensor:
        if tensor.name not in self.loop.tensors:
            return tensor
        return replace(tensor, ranks=in_order(frozenset((*tensor.ranks, self.names.part)), self.new))

    def _indices(self, tensor: str, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        old = self.old.tensor(tensor)
        given = dict(zip(old.ranks, indices, strict=True))
        return tuple(given.get(rank, Coord(self.names.part)) for rank in self._shaped(old).ranks)

    def _in_part(self, einsum: Einsum) -> Einsum:
        """The Einsum of the loop, for part s."""

        def change(node: Expr) -> Expr:
            if node == self.loop.start:
                return self.start
            if isinstance(node, Access) and node.tensor in self.loop.tensors:
                return replace(node, indices=self._indices(node.tensor, node.indices))
            return node

        body = transform(einsum.body, change)
        if self.loop.stray(body, self.start, self.position):
            raise Obstructed(einsum.output, f"`{text(einsum.body)}` uses the coordinate of a tile")
        if self._needs_guard(body):
            body = _guarded(body, self.exists)
        return replace(einsum, indices=self._indices(einsum.output, einsum.indices), body=body)

    def _needs_guard(self, body: Expr) -> bool:
        """Does it reduce the positions of a tile, or read something at a position that may not exist?"""
        parts = self.loop.parts
        if isinstance(body, Reduce) and set(body.ranks) & parts:
            return True
        indices = [index for node in accesses(body) for index in node.indices if not isinstance(index, Coord)]
        return any(free_ranks(index) & {self.loop.split.inner} or _gathers(index) for index in indices)

    # --- the merge ------------------------------------------------------------------------------------------------------------

    def _name_results(self, waiting: list[Einsum]) -> set[str]:
        """Name what each state gives; answers with the Einsums that only pass on such a result: the merge takes their place."""
        passed_on: set[str] = set()
        for einsum in waiting:
            body = einsum.body
            if not isinstance(body, Access) or body.tensor in self.merged or body.tensor not in self.loop.tensors:
                continue
            own = tuple(Coord(r) for r in self.old.tensor(body.tensor).ranks if r != self.loop.split.outer)
            plain = tuple(index for index in body.indices if index != self.loop.end)
            if einsum.indices == own == plain:
                self.merged[body.tensor] = einsum.output
                passed_on.add(einsum.output)
        for state in self.states:
            if state.name not in self.merged:
                base = state.name.removesuffix("_run")
                self.merged[state.name] = fresh(base if base not in self.taken else f"{base}_all", self.taken)
        return passed_on

    def _define(self, name: str, ranks: tuple[str, ...], body: Expr, like: str) -> Einsum:
        self.tensors.append(Tensor(name, ranks, self.old.tensor(like).dtype))
        einsum = Einsum(name, coords(ranks), body)
        self.einsums.append(einsum)
        return einsum

    def _result_of_parts(self, state: State) -> None:
        loop = self.loop
        shape = self.new.tensor(state.name).ranks
        name = fresh(f"{state.name.removesuffix('_run')}_part", self.taken)
        self.partial[state.name] = name
        body = Access(state.name, tuple(loop.end if rank == loop.split.outer else Coord(rank) for rank in shape))
        self._define(name, tuple(rank for rank in shape if rank != loop.split.outer), body, state.name)

    def _merge(self, state: State) -> list[Einsum]:
        counted = len(self.einsums)
        self.state = state.name
        if state.best is not None:
            return self._merge_of_the_best(state, state.best)
        body = Reduce(state.op, (self.names.part,), self._at_merge(state.carried))
        ranks = tuple(rank for rank in self.old.tensor(state.name).ranks if rank != self.loop.split.outer)
        self._define(self.merged[state.name], ranks, body, state.name)
        return self.einsums[counted:]

    def _merge_of_the_best(self, state: State, best: str) -> list[Einsum]:
        """What belongs to the best is that of the first part that has it."""
        counted = len(self.einsums)
        part, split = self.names.part, self.loop.split
        shape = tuple(rank for rank in self.new.tensor(best).ranks if rank != split.outer)
        base = state.name.removesuffix("_run")
        pick = fresh(f"{base}_pick", self.taken)
        ranks = tuple(rank for rank in shape if rank != part)
        finding = Reduce(f"arg{state.op}", (part,), Access(self.partial[best], coords(shape)))
        self.tensors.append(Tensor(pick, ranks, "int"))
        self.einsums.append(Einsum(pick, coords(ranks), finding))
        own = tuple(rank for rank in self.new.tensor(state.name).ranks if rank != split.outer)
        if not set(ranks) <= set(own):
            raise Obstructed(state.name, f"it has not all ranks of `{best}`")
        read = tuple(Access(pick, coords(ranks)) if rank == part else Coord(rank) for rank in own)
        self._define(
            self.merged[state.name], tuple(r for r in own if r != part), Access(self.partial[state.name], read), state.name
        )
        return self.einsums[counted:]

    def _at_merge(self, expr: Expr) -> Expr:
        """States before the step become those of part s, states after it those of all parts."""
        loop = self.loop
        match expr:
            case Access(tensor=tensor) if tensor in self.merged:
                place, own = loop.place(expr), dict(zip(self.old.tensor(tensor).ranks, expr.indices, strict=True))
                if place == Coord(loop.split.outer):
                    name = self.partial[tensor]
                elif loop.is_next(place):
                    name = self.merged[tensor]
                else:
                    raise Obstructed(self.state, f"its step reads `{text(expr)}`")
                shape = [rank for rank in self.new.tensor(tensor).ranks if rank != loop.split.outer]
                if name == self.merged[tensor]:
                    shape.remove(self.names.part)
                return Access(name, tuple(self._at_merge(own[rank]) if rank in own else Coord(rank) for rank in shape))
            case Access(tensor=tensor) if tensor in loop.tensors:
                name, ranks = self._version(tensor)
                own = dict(zip(self.old.tensor(tensor).ranks, expr.indices, strict=True))
                return Access(name, tuple(self._at_merge(own[rank]) if rank in own else Coord(rank) for rank in ranks))
            case Coord(rank=rank) if rank in loop.parts:
                raise Obstructed(self.state, "how its old value is corrected depends on the tile")
            case _:
                return rebuild(expr, tuple(self._at_merge(part) for part in children(expr)))

    def _version(self, tensor: str) -> tuple[str, tuple[str, ...]]:
        """What the loop computes from states alone, at the merge."""
        if tensor not in self.versions:
            loop = self.loop
            declared = self.old.tensor(tensor)
            definitions = self.old.definitions(tensor)
            if loop.split.inner in declared.ranks or declared.kind != "einsum" or len(definitions) != 1:
                raise Obstructed(self.state, f"how its old value is corrected depends on `{tensor}`")
            body = self._at_merge(definitions[0].body)
            split = self.names.part in free_ranks(body)
            ranks = tuple(rank for rank in self.new.tensor(tensor).ranks if rank != loop.split.outer)
            if not split:
                ranks = tuple(rank for rank in ranks if rank != self.names.part)
            self.versions[tensor] = (fresh(_version_name(tensor, split), self.taken), ranks)
            self._define(self.versions[tensor][0], ranks, body, tensor)
        return self.versions[tensor]

    def _whole(self, node: Expr) -> Expr:
        """After the loop: the result of all parts instead of a state's last position."""
        if not isinstance(node, Access) or node.tensor not in self.merged:
            return node
        at = self.old.tensor(node.tensor).ranks.index(self.loop.split.outer)
        return Access(self.merged[node.tensor], (*node.indices[:at], *node.indices[at + 1 :]))

    def _proof(self, state: State, merge: list[Einsum], after: Cascade) -> Step:
        outer = self.loop.split.outer
        step = next(e for e in self.old.definitions(state.name) if any(self.loop.is_next(index) for index in e.indices))
        old = text(state.carried)
        if state.best is not None:
            rule = f"what belongs to the {state.op} of all = what belongs to it in the first part that has it"
            why = f"parts are in the order of `{self.loop.rank}`, so among equals the first stays; a part without elements has none"
            return Step(NAME, self.merged[state.name], shown([step], self.old), rule, why, shown(merge, after))
        plain = isinstance(state.carried, Access)
        rule = f"{state.op} of all = {state.op} over {self.names.part} of the {state.op} of each part"
        if plain:
            why = f"{state.op} is associative; an empty part holds its identity"
        else:
            rule = f"{state.op} over {self.names.part} of C(part; g of the part, g of all),  C = {old}"
            why = (
                f"C takes what was reduced about the states at {outer} to what it is about those at {outer}+1, whatever these are; "
                f"{state.op} is associative; a part that has seen nothing holds identities and adds nothing"
            )
        return Step(NAME, self.merged[state.name], shown([step], self.old), rule, why, shown(merge, after))


def _version_name(tensor: str, split: bool) -> str:
    if not split:
        return f"{tensor.removesuffix('_now')}_all"
    for suffix in _CORRECTIONS:
        if tensor.endswith(suffix):
            return f"{tensor.removesuffix(suffix)}_part{suffix}"
    return f"{tensor}_part"


def _gathers(index: Expr) -> bool:
    return any(isinstance(node, Access) for node in accesses(index))


def _guarded(body: Expr, exists: Expr) -> Expr:
    """Nothing is read where the position does not exist; a reduction then sees its identity."""
    if not isinstance(body, Reduce | Scan | Select):
        return Map("where", (exists, body, Number(0)))
    extreme = body.op.removeprefix("arg")
    otherwise = Number(0) if isinstance(body, Select) else IDENTITY.get(extreme, Number(0))
    inner = body.body
    if isinstance(inner, Map) and inner.op == "where" and inner.args[2] == otherwise and not accesses(inner.args[0]):
        both = Map("and", (exists, inner.args[0]))
        return replace(body, body=Map("where", (both, inner.args[1], otherwise)))
    return replace(body, body=Map("where", (exists, inner, otherwise)))
