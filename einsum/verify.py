"""What a valid cascade is: a table of rules on the IR.

In: a cascade, from a file or from a rewrite. Out: a diagnostic for everything that breaks a rule. `RULES` is the whole definition:
stages of rules, where a later stage says nothing about an Einsum that an earlier one found wrong (one report per cause). Rules
that no file can break, only einsmith's own code, report E910.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from .bounds import Outside, outside
from .cascade import (
    MAP_OPS,
    REDUCTIONS,
    SCANS,
    SELECTIONS,
    Access,
    Cascade,
    Coord,
    DType,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scalar,
    Scan,
    Select,
    Tensor,
    ceil_div,
    children,
    free_ranks,
    walk,
)
from .diagnostics import Diagnostic, Label
from .dtypes import is_whole, scalar_dtypes, tensor_dtypes, whole_tensors
from .loops import Cycle, Reads, all_reads, impossible_cycles
from .sizes import MAX_EXTENT, evaluate_scalar
from .source import Span

SCATTERING = frozenset(("sum", "prod", "max", "min", "any", "all"))
"""Reductions with an identity: what an element without contributions holds."""


def verify(cascade: Cascade) -> list[Diagnostic]:
    """Everything that is wrong with a cascade; nothing for a valid one."""
    return _check(View(cascade, frozenset()), whole=True)


def verify_rest(cascade: Cascade, poisoned: frozenset[str]) -> list[Diagnostic]:
    """What else is wrong with a cascade that has holes, where something was wrong already: silent on the tensors and ranks named
    in `poisoned`, and on the rules that no file can break."""
    return [diagnostic for diagnostic in _check(View(cascade, poisoned), whole=False) if diagnostic.code != "E910"]


def _check(view: View, whole: bool) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    blamed: set[int] = set()
    for stage in RULES:
        news = [finding for rule in stage for finding in rule(view)]
        found += [diagnostic for number, diagnostic in news if number is None or number not in blamed]
        blamed |= {number for number, _ in news if number is not None}
        if whole and any(number is None for number, _ in news):
            break  # later rules rely on sound declarations
    return found


Finding: TypeAlias = tuple[int | None, Diagnostic]
"""The Einsum (its position) that a diagnostic is about, None for a declaration."""


@dataclass(frozen=True)
class View:
    """A cascade as the rules see it."""

    cascade: Cascade
    poisoned: frozenset[str]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.cascade.tensors}

    @cached_property
    def whole(self) -> frozenset[str]:
        return whole_tensors(self.cascade)

    @cached_property
    def cycles(self) -> list[Cycle]:
        return impossible_cycles(self.cascade, self.reads)

    @cached_property
    def reads(self) -> Reads:
        return all_reads(self.cascade)

    @cached_property
    def nodes(self) -> tuple[tuple[Expr, ...], ...]:
        """Every sub-expression of each Einsum, those of its left-hand side first."""
        return tuple(
            tuple(node for expr in (*einsum.indices, einsum.body) for node in walk(expr)) for einsum in self.cascade.einsums
        )

    @cached_property
    def lefts(self) -> tuple[frozenset[str], ...]:
        """Ranks that stand on the left of each Einsum."""
        return tuple(
            frozenset().union(*map(free_ranks, einsum.indices)) if einsum.indices else frozenset()
            for einsum in self.cascade.einsums
        )

    def einsums(self) -> Iterator[tuple[int, Einsum, Tensor]]:
        """Position, Einsum and tensor of everything that can be judged."""
        for number, einsum in enumerate(self.cascade.einsums):
            tensor = self.tensors.get(einsum.output)
            if tensor is not None and einsum.output not in self.poisoned:
                yield number, einsum, tensor


def _wrong(
    number: int | None, code: str, message: str, span: Span | None, label: str = "", others: tuple[Label, ...] = (), help_: str = ""
) -> Finding:
    return number, Diagnostic(code, message, span, label, others, help_)


def _malformed(number: int | None, message: str, span: Span | None = None) -> Finding:
    return number, Diagnostic("E910", message, span)


def _is_next(index: Expr, rank: str) -> bool:
    return index == Map("+", (Coord(rank), Number(1)))


# --- declarations -----------------------------------------------------------------------------------------------------


def names_are_distinct(view: View) -> Iterator[Finding]:
    """Ranks, symbols, counts, parameters and tensors share one name space."""
    cascade = view.cascade
    names = (
        [rank.name for rank in cascade.ranks] + [name for name, _ in cascade.params] + [tensor.name for tensor in cascade.tensors]
    )
    names += [*cascade.symbols, *cascade.counts]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield _malformed(None, f"the name `{name}` has two meanings")
        seen.add(name)


def scalars_are_scalars(view: View) -> Iterator[Finding]:
    """Extents, tiles and parameters hold numbers, extents, counts and parameters alone; a parameter only earlier parameters."""
    cascade = view.cascade
    known = set(cascade.symbols) | set(cascade.counts) | view.poisoned
    for name, expr in cascade.params:
        for node in walk(expr):
            if not isinstance(node, Number | Scalar | Map):
                yield _malformed(None, f"parameter `{name}` is no expression of scalars", node.span)
            elif isinstance(node, Scalar) and node.name not in known:
                yield _malformed(None, f"parameter `{name}` uses `{node.name}` before it is defined", node.span)
        known.add(name)
    for rank in cascade.ranks:
        for expr in (rank.extent,) if rank.split is None else (rank.extent, rank.split.tile):
            if not all(isinstance(node, Number | Scalar | Map) for node in walk(expr)):
                yield _malformed(None, f"the extent of rank `{rank.name}` is no expression of scalars", rank.span)


def extents_are_counts(view: View) -> Iterator[Finding]:
    """An extent without symbols is a whole number from 0 to 2**48, a tile one from 1."""
    for rank in view.cascade.ranks:
        if rank.part_of is not None or rank.name in view.poisoned:
            continue
        parts = [("extent", rank.extent, 0)] + ([("tile", rank.split.tile, 1)] if rank.split is not None else [])
        for what, expr, least in parts:
            try:
                value = evaluate_scalar(expr, {})
            except (KeyError, ValueError, ArithmeticError) as error:
                if not isinstance(error, KeyError):
                    yield _wrong(None, "E216", f"the {what} of rank `{rank.name}` has no value: {error}", expr.span or rank.span)
                continue
            if not (least <= value <= MAX_EXTENT and float(value).is_integer()):
                message = f"the {what} of rank `{rank.name}` is {value}, not a whole number from {least} to 2**48"
                yield _wrong(None, "E216", message, expr.span or rank.span)


def splits_fit(view: View) -> Iterator[Finding]:
    """The parts of a split follow their rank: the outer one with ceil(extent / tile) positions, the inner one with a tile's."""
    ranks = {rank.name: rank for rank in view.cascade.ranks}
    for rank in view.cascade.ranks:
        if rank.split is not None:
            split = rank.split
            many: Expr = Scalar(split.count) if split.count is not None else ceil_div(rank.extent, split.tile)
            for part, extent in ((split.outer, many), (split.inner, split.tile)):
                if part in view.poisoned or rank.name in view.poisoned:
                    continue
                place = view.cascade.rank_order[rank.name] + (1 if part == split.outer else 2)
                if part not in ranks or ranks[part].part_of != rank.name or ranks[part].extent != extent:
                    yield _malformed(None, f"part `{part}` of rank `{rank.name}` is not declared as one", rank.span)
                elif view.cascade.rank_order[part] != place:
                    yield _malformed(None, f"part `{part}` does not follow its rank `{rank.name}` in the declarations", rank.span)
        if rank.part_of is not None:
            whole = ranks.get(rank.part_of)
            if whole is None or whole.split is None or rank.name not in (whole.split.outer, whole.split.inner):
                yield _malformed(None, f"rank `{rank.name}` is no part of `{rank.part_of}`", rank.span)


def tensors_are_declared(view: View) -> Iterator[Finding]:
    """Inputs first, then tensors in order of definition, each with known ranks; a state runs along one of its ranks."""
    cascade = view.cascade
    ranks = {rank.name for rank in cascade.ranks} | view.poisoned
    for tensor in cascade.tensors:
        for rank in tensor.ranks:
            if rank not in ranks:
                yield _malformed(None, f"tensor `{tensor.name}` has the unknown rank `{rank}`", tensor.span)
        if (tensor.kind == "state") != (tensor.iterates is not None) or (
            tensor.iterates is not None and tensor.iterates not in tensor.ranks
        ):
            yield _malformed(None, f"tensor `{tensor.name}` of kind {tensor.kind} runs along `{tensor.iterates}`", tensor.span)
    defined = list(dict.fromkeys(einsum.output for einsum in cascade.einsums))
    expected = [tensor.name for tensor in cascade.inputs] + defined
    if not view.poisoned and [tensor.name for tensor in cascade.tensors] != expected:
        yield _malformed(None, f"tensors are listed as {[t.name for t in cascade.tensors]}, not in order of definition {expected}")


def outputs_are_defined(view: View) -> Iterator[Finding]:
    """Outputs are distinct tensors that the cascade defines."""
    cascade = view.cascade
    for name in cascade.outputs:
        tensor = view.tensors.get(name)
        if name not in view.poisoned and (tensor is None or tensor.kind == "input" or cascade.outputs.count(name) > 1):
            yield _malformed(None, f"output `{name}` is not one tensor that the cascade defines")


def sizes_fit(view: View) -> Iterator[Finding]:
    """Sizes are whole numbers for extent symbols."""
    symbols = set(view.cascade.symbols)
    for name, value in view.cascade.sizes:
        if (name not in symbols and not view.poisoned) or not 0 <= value <= MAX_EXTENT:
            yield _malformed(None, f"size `{name}` = {value} is not one of an extent")


# --- accesses ---------------------------------------------------------------------------------------------------------


def operations_are_known(view: View) -> Iterator[Finding]:
    """Every operation is one of the language, with its number of arguments and ranks."""
    cascade = view.cascade
    ranks = {rank.name for rank in cascade.ranks} | view.poisoned
    scalars = set(cascade.symbols) | set(cascade.counts) | {name for name, _ in cascade.params} | view.poisoned
    for number, einsum, _ in view.einsums():
        for node in view.nodes[number]:
            good = True
            match node:
                case Number(value=value):
                    good = value >= 0
                case Map(op=op, args=args):
                    good = MAP_OPS.get(op) == len(args)
                case Reduce(op=op, ranks=bound):
                    good = op in REDUCTIONS and bool(bound) and (len(bound) == 1 or op not in ("argmax", "argmin"))
                    good = (
                        good
                        and set(bound) <= ranks
                        and list(bound) == sorted(set(bound), key=lambda r: cascade.rank_order.get(r, -1))
                    )
                case Scan(op=op, rank=rank):
                    good = op in SCANS and rank in ranks
                case Select(op=op, rank=rank, fills=fills):
                    good = op in SELECTIONS and rank in ranks and fills in ranks and node is einsum.body
                case Coord(rank=rank):
                    good = rank in ranks
                case Scalar(name=name):
                    good = name in scalars
            if not good:
                yield _malformed(number, f"`{einsum.output}` holds a malformed {type(node).__name__}", node.span or einsum.span)


def accesses_fit(view: View) -> Iterator[Finding]:
    """An access has one index per rank of its tensor."""
    for number, einsum, tensor in view.einsums():
        for node, _ in view.reads[number]:
            target = view.tensors.get(node.tensor)
            if target is None and node.tensor not in view.poisoned:
                yield _malformed(number, f"`{einsum.output}` reads the unknown tensor `{node.tensor}`", node.span or einsum.span)
            elif target is not None and node.tensor not in view.poisoned and len(node.indices) != len(target.ranks):
                yield number, _wrong_count(node, target)
        if len(einsum.indices) != len(tensor.ranks):
            message = f"`{tensor.name}` has {_indices(len(tensor.ranks))}, not {len(einsum.indices)}"
            if tensor.kind == "scatter":
                others = (Label(tensor.span, f"{_indices(len(tensor.ranks))} here"),) if tensor.span is not None else ()
                first, last = (einsum.indices[0].span, einsum.indices[-1].span) if einsum.indices else (None, None)
                span = first.to(last) if first is not None and last is not None else einsum.span
                yield _wrong(number, "E201", message, span, "", others, f"write as many indices as `{tensor.name}` has ranks")
            else:
                yield _malformed(number, message, einsum.span)


def _indices(count: int) -> str:
    return "one index" if count == 1 else f"{count or 'no'} indices"


def _wrong_count(node: Access, target: Tensor) -> Diagnostic:
    expected = f"{target.name}[{','.join(target.ranks)}]" if target.ranks else target.name
    others = (Label(target.span, f"declared as `{expected}`"),) if target.span is not None else ()
    message = f"`{target.name}` takes {_indices(len(target.ranks))}, not {len(node.indices)}"
    return Diagnostic("E201", message, node.span, "", others, f"write as many indices as in `{expected}`")


def defined_before_use(view: View) -> Iterator[Finding]:
    """Each tensor is defined before it is read; the current position of a state is there at any time in its loop."""
    places: dict[str, list[int]] = {}
    for number, einsum in enumerate(view.cascade.einsums):
        places.setdefault(einsum.output, []).append(number)
    cyclic = {pair for cycle in view.cycles for pair in cycle.pairs}
    for number, einsum, _ in view.einsums():
        said: set[str] = set()
        for access, bound in view.reads[number]:
            tensor = view.tensors.get(access.tensor)
            if tensor is None or tensor.kind == "input" or access.tensor in view.poisoned | said:
                continue
            needed = places.get(access.tensor, [])
            if tensor.kind == "state" and len(access.indices) == len(tensor.ranks):
                position = access.indices[tensor.ranks.index(tensor.iterates or "")]
                inside = tensor.iterates not in bound
                if inside and position == Coord(tensor.iterates or ""):
                    continue
                if inside and _is_next(position, tensor.iterates or ""):
                    needed = [place for place in needed if not _is_initial(view.cascade.einsums[place], tensor)]
            late = [place for place in needed if place >= number]
            if late and (number, late[0]) not in cyclic:
                said.add(access.tensor)
                where = view.cascade.einsums[late[0]].span
                others = (Label(where, "defined here"),) if where is not None and late[0] != number else ()
                help_ = (
                    "move this Einsum below that one"
                    if late[0] != number
                    else "a tensor cannot stand in its own definition, unless it is a state: `S[r+1] = ... S[r] ...`"
                )
                yield _wrong(
                    number, "E202", f"`{access.tensor}` is used before it is defined", access.span or einsum.span, "", others, help_
                )


def _is_initial(einsum: Einsum, tensor: Tensor) -> bool:
    return einsum.indices[tensor.ranks.index(tensor.iterates or "")] == Number(0)


def indices_are_whole(view: View) -> Iterator[Finding]:
    """Index expressions are integer expressions."""
    scalars = scalar_dtypes(view.cascade.params)
    for number, einsum, _ in view.einsums():
        found = [index for node, _ in view.reads[number] for index in node.indices]
        for index in (*einsum.indices, *found):
            if not isinstance(index, Coord) and not is_whole(
                index, lambda name: name in view.whole or name in view.poisoned, scalars
            ):
                yield number, _not_whole(index, einsum, view, scalars)


def _not_whole(index: Expr, einsum: Einsum, view: View, scalars: Mapping[str, DType]) -> Diagnostic:
    """Points at the smallest part that makes the index fractional."""
    culprit, help_ = index, "use `floor`, `ceil` or `round`"
    others: tuple[Label, ...] = ()
    for node in walk(index):
        if isinstance(node, Map) and node.op == "/":
            culprit, help_ = node, "write `//` for whole division"
            break
        if isinstance(node, Access) and node.tensor not in view.whole:
            tensor = view.tensors[node.tensor]
            culprit = node
            if tensor.kind == "input":
                help_ = f"declare it as `{tensor.name}: {{ranks: [{', '.join(tensor.ranks)}], dtype: int}}`"
            others = (Label(tensor.span, "a tensor of floats"),) if tensor.span is not None else ()
            break
        if isinstance(node, Scalar) and scalars.get(node.name) == "float":
            culprit, help_ = node, "give the parameter a whole value, or use `floor`, `ceil` or `round`"
            break
        if isinstance(node, Number) and isinstance(node.value, float):
            culprit = node
            break
    return Diagnostic("E211", "an index must be a whole number", culprit.span or einsum.span, "may have a fraction", others, help_)


def left_sides_fit(view: View) -> Iterator[Finding]:
    """Left-hand sides: distinct ranks; `0` and `r+1` in a state; anything in a target whose right-hand side is a reduction."""
    for number, einsum, tensor in view.einsums():
        if tensor.kind == "scatter":
            yield from _scatter(number, einsum, tensor, view)
            continue
        seen: dict[str, Expr] = {}
        for i, index in enumerate(einsum.indices):
            rank = index.rank if isinstance(index, Coord) else None
            if tensor.kind == "state" and i < len(tensor.ranks) and tensor.ranks[i] == tensor.iterates:
                if _is_next(index, tensor.iterates):
                    rank = tensor.iterates
                elif index == Number(0):
                    continue
            if rank is None or (i < len(tensor.ranks) and rank != tensor.ranks[i]):
                yield _malformed(number, f"index {i} on the left of `{einsum.output}` is not its rank", index.span or einsum.span)
            elif rank in seen:
                first = seen[rank].span
                others = (Label(first, "first here"),) if first is not None else ()
                yield _wrong(
                    number,
                    "E204",
                    f"rank `{rank}` stands twice on the left",
                    index.span or einsum.span,
                    "",
                    others,
                    "a diagonal is written with a mask: another rank of the same extent, and `where(a == b, x, 0)`",
                )
            else:
                seen[rank] = index


def _scatter(number: int, einsum: Einsum, tensor: Tensor, view: View) -> Iterator[Finding]:
    body = einsum.body
    left = view.lefts[number]
    bound = frozenset(body.ranks) if isinstance(body, Reduce) else frozenset()
    own = {
        index.rank
        for index, rank in zip(einsum.indices, tensor.ranks, strict=False)
        if isinstance(index, Coord) and index.rank == rank
    }
    loose = sorted(left - bound - own, key=lambda rank: view.cascade.rank_order.get(rank, -1))
    others = (Label(tensor.span, "declared as a target here"),) if tensor.span is not None else ()
    span = body.span or einsum.span
    if not isinstance(body, Reduce) or loose:
        also = bound if isinstance(body, Reduce) and body.op in SCATTERING else frozenset()
        ranks = ",".join(sorted({*(loose or left - own), *also}, key=lambda rank: view.cascade.rank_order.get(rank, -1)))
        message = f"contributions to `{tensor.name}` must be combined by a reduction over " + ", ".join(
            f"`{rank}`" for rank in loose
        )
        if not loose:
            message = f"contributions to `{tensor.name}` must be combined by a reduction"
        yield _wrong(
            number,
            "E212",
            message,
            span,
            "",
            others,
            f"write `sum[{ranks}](...)`, or another reduction" if ranks else "write `sum[rank](...)`",
        )
    elif body.op not in SCATTERING:
        yield _wrong(
            number,
            "E212",
            f"`{body.op}` has no identity for elements without contributions",
            span,
            "",
            others,
            "use sum, prod, max, min, any or all",
        )
    elif not left & bound:
        yield _wrong(
            number,
            "E212",
            f"no rank of this reduction stands on the left of `{tensor.name}`",
            span,
            "",
            others,
            "an index on the left must use a rank that the reduction binds",
        )


# --- ranks ------------------------------------------------------------------------------------------------------------


def left_ranks_are_not_reduced(view: View) -> Iterator[Finding]:
    """A reduction that is the whole right-hand side binds no rank of the left (scatters apart). Elsewhere binding is lexical:
    `X[p,m] / sum[m](X[p,m])` is a fine right-hand side for `Y[p,m]`."""
    for number, einsum, tensor in view.einsums():
        body = einsum.body
        if tensor.kind == "scatter" or not isinstance(body, Reduce | Select):
            continue
        for rank in body.ranks if isinstance(body, Reduce) else (body.rank,):
            if rank in view.lefts[number]:
                where = _place(einsum.indices, rank)
                others = (Label(where, "stands on the left here"),) if where is not None else ()
                yield _wrong(
                    number,
                    "E207",
                    f"rank `{rank}` is reduced by `{body.op}` and stands on the left too",
                    body.span or einsum.span,
                    "",
                    others,
                    f"leave `{rank}` out on one side, or use another rank of the same extent",
                )


def _place(exprs: tuple[Expr, ...], rank: str) -> Span | None:
    """Where a rank first stands free."""
    for expr in exprs:
        stack = [expr]
        while stack:
            node = stack.pop()
            if isinstance(node, Coord) and node.rank == rank:
                return node.span
            if isinstance(node, Scan) and node.rank == rank:
                return node.span
            if not (isinstance(node, Reduce) and rank in node.ranks) and not (isinstance(node, Select) and node.rank == rank):
                stack.extend(reversed(children(node)))
    return None


def free_ranks_are_on_the_left(view: View) -> Iterator[Finding]:
    """A rank that stands on the right alone must be bound by a reduction (the language implies one for products)."""
    for number, einsum, tensor in view.einsums():
        bound = einsum.body.ranks if isinstance(einsum.body, Reduce) and tensor.kind == "scatter" else ()
        loose = free_ranks(einsum.body) - (view.lefts[number] - set(bound))
        if not loose:
            continue
        ranks = sorted(loose, key=lambda rank: view.cascade.rank_order.get(rank, -1))
        names = ", ".join(f"`{rank}`" for rank in ranks)
        left = einsum.output + (f"[{','.join(_shown(index) for index in einsum.indices)}]" if einsum.indices else "")
        verb = "stands" if len(ranks) == 1 else "stand"
        yield _wrong(
            number,
            "E206",
            f"{'rank' if len(ranks) == 1 else 'ranks'} {names} {verb} on the right, but not on the left",
            _place((einsum.body,), ranks[0]) or einsum.span,
            f"not an index of `{left}`",
            (),
            f"only a product or quotient is summed by itself; write `sum[{','.join(ranks)}](...)`, or another reduction, "
            f"or index `{einsum.output}` by it",
        )


def _shown(index: Expr) -> str:
    from .printer import print_expr

    return print_expr(index).replace(" ", "")


def selections_fill(view: View) -> Iterator[Finding]:
    """A selection fills the one rank on the left that does not stand in its expression."""
    for number, einsum, _ in view.einsums():
        body = einsum.body
        if isinstance(body, Select) and view.lefts[number] - free_ranks(body.body) != {body.fills}:
            yield _malformed(number, f"`{body.op}` in `{einsum.output}` does not fill `{body.fills}`", body.span or einsum.span)


# --- meaning as a whole -----------------------------------------------------------------------------------------------


def loops_are_possible(view: View) -> Iterator[Finding]:
    """Every cycle of definitions goes through the current position of a state, along a rank that the whole cycle iterates."""
    for cycle in view.cycles:
        number, access, path = cycle.blamed.reader, cycle.blamed.access, cycle.way
        if {view.cascade.einsums[i].output for pair in cycle.pairs for i in pair} & view.poisoned:
            continue
        shown = " -> ".join(f"`{name}`" for name in path)
        tensor = view.tensors[access.tensor]
        others: tuple[Label, ...] = ()
        if tensor.span is not None and tensor.name != view.cascade.einsums[number].output:
            others = (Label(tensor.span, "which is defined here"),)
        states = [view.tensors[name] for name in path if view.tensors[name].kind == "state"]
        running = f"`{tensor.name}[r+1] = ... {tensor.name}[r] ...`"
        help_ = f"a tensor cannot stand in its own definition; a running state is written {running}"
        if states:
            loop, state = states[0].iterates, states[0].name
            help_ = f"inside the loop over `{loop}`, read `{state}` at `{loop}`, its current position"
        yield _wrong(
            number,
            "E214",
            f"a cycle within one step: {shown}",
            access.span or view.cascade.einsums[number].span,
            "needs itself",
            others,
            help_,
        )


def indices_can_be_inside(view: View) -> Iterator[Finding]:
    """No index goes out of range for all sizes. (One that may, or stands under a `where`, is checked when the sizes are known.)"""
    for number, einsum, tensor in view.einsums():
        pairs = [(node.indices, view.tensors.get(node.tensor)) for node in _unguarded(einsum.body) if isinstance(node, Access)]
        pairs += [(einsum.indices, tensor)] if tensor.kind == "scatter" else []
        for indices, target in pairs:
            if target is None or target.name in view.poisoned:
                continue
            for index, rank in zip(indices, target.ranks, strict=False):
                way = outside(index, rank, rank == target.iterates, view.cascade) if rank not in view.poisoned else None
                if way is not None:
                    yield number, _out_of_range(way, index, rank, target, einsum, view)


def _out_of_range(way: Outside, index: Expr, rank: str, target: Tensor, einsum: Einsum, view: View) -> Diagnostic:
    shown, extent = _shown(index), view.cascade.rank(rank).extent
    last = _shown(extent if rank == target.iterates else Map("-", (extent, Number(1))))
    verb = ("is always", "goes down to" if way.below else "goes up to")[not way.always]
    reached = way.reached if shown != way.reached or not way.always else "negative" if way.below else "beyond the extent"
    message = f"in `{einsum.output}`, index `{shown}` of `{target.name}` {verb} {reached}; it runs from 0 to {last}"
    help_ = "there is no wrap-around"
    if not way.always:
        inside = f"{shown} >= 0" if way.below else f"{shown} <= {last}"
        help_ = f"keep it inside with `where({inside}, {target.name}[...], 0)`; {help_}"
    elif not isinstance(index, Number | Scalar) and shown != way.reached:
        message = message.replace("is always", f"is {'at most' if way.below else 'at least'}")
    others = (Label(target.span, f"{target.name}[{','.join(target.ranks)}]"),) if target.span is not None else ()
    return Diagnostic("E217", message, index.span or einsum.span, f"index along `{rank}`", others, help_)


def _unguarded(expr: Expr) -> Iterator[Expr]:
    """Sub-expressions that do not stand in a branch of `where`."""
    yield expr
    parts = children(expr)
    for part in parts[:1] if isinstance(expr, Map) and expr.op == "where" else parts:
        yield from _unguarded(part)


def dtypes_are_inferred(view: View) -> Iterator[Finding]:
    """Tensors that are not inputs have the dtype of what defines them (it is not printed; see `dtypes.with_dtypes`)."""
    cascade = view.cascade
    expected = tensor_dtypes({tensor.name: tensor.dtype for tensor in cascade.inputs}, cascade.einsums, cascade.params)
    for tensor in cascade.tensors:
        if tensor.dtype != expected.get(tensor.name, tensor.dtype) and not view.poisoned:
            yield _malformed(None, f"tensor `{tensor.name}` holds {expected[tensor.name]}, not {tensor.dtype}", tensor.span)


Rule: TypeAlias = Callable[[View], Iterator[Finding]]

RULES: tuple[tuple[Rule, ...], ...] = (
    # what is declared
    (names_are_distinct, scalars_are_scalars, extents_are_counts, splits_fit, tensors_are_declared, outputs_are_defined, sizes_fit),
    # what each Einsum reads and writes
    (operations_are_known, accesses_fit, defined_before_use, loops_are_possible),
    (indices_are_whole, left_sides_fit),
    # which ranks it runs over
    (left_ranks_are_not_reduced,),
    (free_ranks_are_on_the_left, selections_fill),
    # what that means
    (indices_can_be_inside, dtypes_are_inferred),
)
