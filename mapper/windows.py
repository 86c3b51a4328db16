"""Windows as masks: a reduction over the places of a window becomes one over all keys, of which the window leaves some.

In: a cascade in which operands are read at a window's place `f(p) + w`. Out: the same function with the coordinate of the key in
place of `w`, so that the operand no longer depends on the query and a tile of queries shares a tile of keys:

    QK[p,w] = sum[e](Q[p,e] * K[f(p) + w,e])     QK[p,m]   = sum[e](Q[p,e] * K[m,e])
                                                 QK_in[p,m] = where(0 <= m - f(p) < W, QK[p,m], -inf)
    GM[p]   = max[w](QK[p,w])                    GM[p]     = max[m](QK_in[p,m])

It is exact: `m = f(p) + w` is one to one between the window and the keys that the mask leaves. Two things are proved by constant
propagation, else nothing is changed. Where the mask is false, each reduction gets its identity (one mask where the window's values
are first at hand if that does for all of them, else one in each reduction). And places of a window that lie outside of the tensor,
which only a `where` may have left unread, gave each reduction its identity as well. The proof takes inputs to be finite, like that
of skipped steps: a NaN that no window holds may reach the output.

A window of stride `c` (dilation) counts along the line of its remainder: `K[p - w*c]` is `K[n*c + p%c]` for `n = p//c - w`, so
no position between is looked at. Whether anything is gained is the planner's to say: bounds of the mask become bounds of the loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..einsum.cascade import (
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
    children,
    free_ranks,
    rebuild,
    walk,
)
from ..einsum.flatten import IDENTITY, conjuncts, flatten
from .blocking import fresh
from .known_values import NEG_INF, Value, known_result
from .prepare import collected
from .whole_numbers import whole_scalars

ZERO, TRUE = Number(0), Number(1)


def over_keys(cascade: Cascade) -> Cascade:
    """All windows as masks over the keys that they choose from; the same cascade if there are none that can be."""
    found = flat = flatten(cascade)
    for rank in flat.ranks:
        found = _over_keys(found, rank.name, flat) or found
    return cascade if found is flat else found


@dataclass(frozen=True)
class _Window:
    """How the places of a window and the coordinate of a key follow from one another."""

    rank: str
    index: Expr
    """Where an operand is read: `f(p) + w`, `p - w*c`, `(f(p) + w)*c + p%c`."""
    key: Expr
    """The same in terms of the coordinate of the key."""
    place: Expr
    """The place in the window, in terms of the coordinate of the key."""
    stride: Expr | None
    """Keys between two places of the window; None if they are neighbours."""
    extent: Expr
    """Of the dimension that is read."""


def _over_keys(cascade: Cascade, window: str, original: Cascade) -> Cascade | None:
    """One window rank; None if it is none, or not of a form that can be followed. What holds of places outside of the tensor may be
    proved on the cascade before other windows became masks: points that their masks leave are the points of those windows."""
    if not _may_go(cascade, window):
        return None
    read = _indices(cascade, window)
    for (tensor, dimension, index), _ in Counter(read).most_common():
        own = cascade.tensor(tensor).ranks[dimension]
        coordinate = own if _unused(cascade, own) else fresh(cascade, f"{own}k")
        solved = _solved(cascade, window, index, Coord(coordinate), cascade.rank(own).extent)
        if solved is not None and (_outside_is_neutral(cascade, solved) or _outside_is_neutral(original, solved)):
            return _masked(_recounted(cascade, solved, coordinate), solved, coordinate)
    return None


def _may_go(cascade: Cascade, window: str) -> bool:
    """Is a rank only ever reduced, in ways that a mask can follow, and carried by nothing that is read elsewhere than in place?"""
    declared = cascade.rank(window)
    if declared.split is not None or declared.part_of is not None or not _reductions(cascade, window):
        return False
    if any(window in cascade.tensor(name).ranks for name in cascade.outputs):
        return False
    for einsum in cascade.einsums:
        body = einsum.body
        if isinstance(body, Reduce) and window in body.ranks and (body.op not in IDENTITY or body.op == "mean"):
            return False
        if isinstance(body, Scan | Select) and window in (body.rank, getattr(body, "fills", None)):
            return False
        if any(window in free_ranks(index) and index != Coord(window) for index in einsum.indices):
            return False
        for access in accesses(body):
            tensor = cascade.tensor(access.tensor)
            for rank, index in zip(tensor.ranks, access.indices, strict=True):
                if tensor.kind != "input" and (window == rank or window in free_ranks(index)) and index != Coord(window):
                    return False
    return all(t.kind == "einsum" for t in cascade.tensors if window in t.ranks and t.kind != "input")


def _reductions(cascade: Cascade, window: str) -> list[tuple[Einsum, Reduce]]:
    return [(e, e.body) for e in cascade.einsums if isinstance(e.body, Reduce) and window in e.body.ranks]


def _indices(cascade: Cascade, window: str) -> list[tuple[str, int, Expr]]:
    """Where inputs are read at a place of the window that moves with other ranks: tensor, dimension, index."""
    return [
        (access.tensor, dimension, index)
        for einsum in cascade.einsums
        for access in accesses(einsum.body)
        if cascade.tensor(access.tensor).kind == "input"
        for dimension, index in enumerate(access.indices)
        if window in free_ranks(index) and free_ranks(index) - {window} and not accesses(index)
    ]


def _unused(cascade: Cascade, rank: str) -> bool:
    """Does no Einsum go along a rank, so that its name is free for the keys?"""
    declared = cascade.rank(rank)
    if declared.split is not None or declared.part_of is not None:
        return False
    bound = {r for e in cascade.einsums if isinstance(e.body, Reduce) for r in e.body.ranks}
    used = {r for e in cascade.einsums for r in free_ranks(e.body) | frozenset(cascade.tensor(e.output).ranks)}
    return rank not in used | bound


# --- from the index to the coordinate of the key ----------------------------------------------------------------------


def _solved(cascade: Cascade, window: str, index: Expr, key: Coord, extent: Expr) -> _Window | None:
    """The index solved for the place in the window; None if it has another form."""
    split = _parted(index, window)
    if split is None:
        return None
    sign, term, rest = split
    if term == Coord(window):
        return _Window(window, index, key, _place(sign, key, rest), None, extent)
    inner, stride = _stride(cascade, term, window)
    if inner is None or stride is None:
        return None
    if inner == Coord(window) and isinstance(rest, Map) and rest.op == "%" and rest.args[1] == stride:
        return None  # it counts along the line already
    if inner == Coord(window):  # p - w*c is (p//c - w)*c + p%c
        line = ZERO if rest == ZERO else Map("//", (rest, stride))
        remainder: Expr = ZERO if rest == ZERO else Map("%", (rest, stride))
        place = _place(sign, key, line)
    else:  # (f + w)*c + r, where r is less than c
        within = _parted(inner, window)
        if within is None or within[1] != Coord(window) or sign < 0:
            return None
        if rest != ZERO and not (isinstance(rest, Map) and rest.op == "%" and rest.args[1] == stride):
            return None
        remainder, place = rest, _place(within[0], key, within[2])
    there: Expr = Map("*", (key, stride))
    return _Window(window, index, there if remainder == ZERO else Map("+", (there, remainder)), place, stride, extent)


def _place(sign: int, key: Expr, rest: Expr) -> Expr:
    """`w` where `key = rest + w`, or `key = rest - w`."""
    return collected(Map("-", (key, rest)) if sign > 0 else Map("-", (rest, key)))


def _parted(expr: Expr, window: str) -> tuple[int, Expr, Expr] | None:
    """A sum as the one term that depends on the window, with its sign, and the rest; None if several do."""
    mine: list[tuple[int, Expr]] = []
    rest: Expr = ZERO
    for sign, term in _signed_terms(expr, 1):
        if window in free_ranks(term):
            mine.append((sign, term))
        elif rest == ZERO:
            rest = term if sign > 0 else Map("neg", (term,))
        else:
            rest = Map("+" if sign > 0 else "-", (rest, term))
    return (*mine[0], rest) if len(mine) == 1 else None


def _signed_terms(expr: Expr, sign: int) -> Iterator[tuple[int, Expr]]:
    match expr:
        case Map(op="+" | "-" as op, args=(a, b)):
            yield from _signed_terms(a, sign)
            yield from _signed_terms(b, sign if op == "+" else -sign)
        case Map(op="neg", args=(a,)):
            yield from _signed_terms(a, -sign)
        case _:
            yield sign, expr


def _stride(cascade: Cascade, term: Expr, window: str) -> tuple[Expr | None, Expr | None]:
    """`x * c` as x, which depends on the window, and the whole number c, which is the same everywhere."""
    if isinstance(term, Map) and term.op == "*":
        for inner, by in (term.args, term.args[::-1]):
            whole = (isinstance(by, Number) and isinstance(by.value, int) and by.value > 0) or (
                isinstance(by, Scalar) and by.name in whole_scalars(cascade)
            )
            if whole and window in free_ranks(inner):
                return inner, by
    return None, None


# --- the cascade along keys -------------------------------------------------------------------------------------------


def _recounted(cascade: Cascade, window: _Window, coordinate: str) -> Cascade:
    """The coordinate of the key in place of the window's, without a mask: right where the mask will hold."""
    fold = _folding(cascade, window, coordinate)

    def named(ranks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(coordinate if rank == window.rank else rank for rank in ranks)

    declared = cascade.ranks
    if coordinate not in {rank.name for rank in declared}:
        extent = window.extent if window.stride is None else _lines(window.extent, window.stride)
        at = cascade.rank_order[window.rank] + 1
        declared = (*declared[:at], Rank(coordinate, extent), *declared[at:])
    found = replace(cascade, ranks=declared)

    def visit(expr: Expr) -> Expr:
        if expr == window.index:
            return window.key
        match expr:
            case Coord(rank=rank):
                return window.place if rank == window.rank else expr
            case Access(tensor=name, indices=indices) if cascade.tensor(name).kind != "input":
                own = tuple(Coord(coordinate) if index == Coord(window.rank) else visit(index) for index in indices)
                return replace(expr, indices=own)
            case Reduce(ranks=ranks, body=body):
                return replace(expr, ranks=tuple(sorted(named(ranks), key=found.rank_order.__getitem__)), body=visit(body))
            case Map(op="+" | "-" | "neg") if window.rank in free_ranks(expr):
                return collected(rebuild(expr, tuple(visit(part) for part in children(expr))))
            case _:
                return fold(rebuild(expr, tuple(visit(part) for part in children(expr))))

    tensors = tuple(t if t.kind == "input" else replace(t, ranks=named(t.ranks)) for t in cascade.tensors)
    einsums = tuple(
        replace(e, indices=tuple(Coord(coordinate) if i == Coord(window.rank) else i for i in e.indices), body=visit(e.body))
        for e in cascade.einsums
    )
    return replace(found, tensors=tensors, einsums=einsums)


def _lines(extent: Expr, stride: Expr) -> Expr:
    """Coordinates on the longest line of a stride: ceil(extent / stride), by whole operations, as coordinates are divided by it."""
    return Map("//", (Map("-", (Map("+", (extent, stride)), Number(1))), stride))


def _folding(cascade: Cascade, window: _Window, coordinate: str) -> Callable[[Expr], Expr]:
    """Conditions that hold for every coordinate of a key, left out."""

    def positive(expr: Expr) -> bool:
        match expr:
            case Number(value=value):
                return value >= 0
            case Coord():
                return True
            case Scalar(name=name):
                return name in cascade.symbols or expr == window.stride
            case Map(op="%", args=(_, b)):
                return positive(b)
            case Map(op="+" | "*" | "//" | "max", args=args):
                return all(positive(arg) for arg in args)
            case _:
                return False

    def fold(expr: Expr) -> Expr:
        match expr:
            case Map(op="<=", args=(Number(value=0), b)) | Map(op=">=", args=(b, Number(value=0))) if positive(b):
                return TRUE
            case Map(op="<", args=(Coord(rank=rank), b)) if rank == coordinate and window.stride is None and b == window.extent:
                return TRUE
            case Map(op="and", args=(a, b)) if TRUE in (a, b):
                return b if a == TRUE else a
            case Map(op="or", args=(a, b)) if TRUE in (a, b):
                return TRUE
            case Map(op="where", args=(condition, yes, _)) if condition == TRUE:
                return yes
            case _:
                return expr

    return fold


def _masked(cascade: Cascade, window: _Window, coordinate: str) -> Cascade | None:
    """The mask, where it gives every reduction along keys its identity."""
    extent = cascade.rank(window.rank).extent
    low, high = Map("<=", (ZERO, window.place)), Map("<", (window.place, extent))
    mask: Expr = Map("and", (low, high))
    there = Map("<", (window.key, window.extent)) if window.stride is not None else None
    for einsum in sorted(cascade.einsums, key=lambda e: (not _is_choice(e.body), isinstance(e.body, Reduce))):
        if coordinate not in cascade.tensor(einsum.output).ranks:
            continue
        for value in (NEG_INF, ZERO):
            if _is_choice(einsum.body) and einsum.body.args[2] != value:  # type: ignore[union-attr]
                continue
            if _neutral(cascade, coordinate, {einsum.output: value}, frozenset()):
                return _guarded(_with_mask(cascade, einsum, mask, value), window, mask, there)
    einsums = tuple(
        replace(e, body=replace(e.body, body=_under(mask, e.body.body, IDENTITY[e.body.op])))
        if isinstance(e.body, Reduce) and coordinate in e.body.ranks
        else e
        for e in cascade.einsums
    )
    return _guarded(replace(cascade, einsums=einsums), window, mask, there)


def _is_choice(expr: Expr) -> bool:
    return isinstance(expr, Map) and expr.op == "where"


def _under(condition: Expr, expr: Expr, otherwise: Expr) -> Expr:
    """`where(condition, expr, otherwise)`, one condition where the expression is such a choice already."""
    match expr:
        case Map(op="where", args=(other, yes, no)) if no == otherwise:
            return Map("where", (Map("and", (condition, other)), yes, no))
        case _:
            return Map("where", (condition, expr, otherwise))


def _guarded(cascade: Cascade, window: _Window, mask: Expr, there: Expr | None) -> Cascade:
    """What is read at the place in the window is read under the mask; lines of a stride that end early, up to their end."""

    def changed(einsum: Einsum) -> Einsum:
        body = einsum.body
        inside = body.body if isinstance(body, Reduce) else body
        indices = [
            index for access in accesses(inside) if cascade.tensor(access.tensor).kind == "input" for index in access.indices
        ]
        otherwise = IDENTITY.get(body.op, ZERO) if isinstance(body, Reduce) else ZERO
        if mask not in walk(inside) and any(window.place in walk(index) and index != window.key for index in indices):
            inside = _under(mask, inside, otherwise)
        if there is not None and window.key in indices and there not in walk(inside):
            inside = _under(there, inside, otherwise)
        return replace(einsum, body=replace(body, body=inside) if isinstance(body, Reduce) else inside)

    return replace(cascade, einsums=tuple(changed(einsum) for einsum in cascade.einsums))


def _with_mask(cascade: Cascade, einsum: Einsum, mask: Expr, value: Expr) -> Cascade:
    """A tensor that is `value` where the mask is false, for all that read it."""
    if not isinstance(einsum.body, Reduce):
        masked = replace(einsum, body=_under(mask, einsum.body, value))
        return replace(cascade, einsums=tuple(masked if e is einsum else e for e in cascade.einsums))
    known = cascade.tensor(einsum.output)
    name = fresh(cascade, f"{einsum.output}_in")

    def renamed(expr: Expr) -> Expr:
        new = rebuild(expr, tuple(renamed(part) for part in children(expr)))
        return replace(new, tensor=name) if isinstance(new, Access) and new.tensor == einsum.output else new

    einsums: list[Einsum] = []
    for one in cascade.einsums:
        einsums.append(replace(one, body=renamed(one.body)))
        if one is einsum:
            einsums.append(Einsum(name, one.indices, _under(mask, Access(one.output, one.indices), value), one.span))
    tensors: list[Tensor] = []
    for tensor in cascade.tensors:
        tensors += [tensor, replace(known, name=name)] if tensor.name == einsum.output else [tensor]
    return replace(cascade, tensors=tuple(tensors), einsums=tuple(einsums))


# --- proofs -----------------------------------------------------------------------------------------------------------


def _outside_is_neutral(cascade: Cascade, window: _Window) -> bool:
    """Does a place of the window outside of the tensor give every reduction its identity?

    An index outside is an error unless a `where` leaves it unread. So the place is inside if it is read unconditionally anywhere;
    else every condition that it is read under is false there.
    """
    false: set[Expr] = set()
    for einsum in cascade.einsums:
        for access, conditions in _conditional(einsum.body, ()):
            if window.index not in access.indices:
                continue
            if not conditions:
                return True
            if len(conditions) > 1:
                return False  # one of them is false: which?
            false.add(conditions[0])
    return _neutral(cascade, window.rank, {}, frozenset(false))


def _conditional(expr: Expr, conditions: tuple[Expr, ...]) -> Iterator[tuple[Access, tuple[Expr, ...]]]:
    """Accesses with the conditions that they are read under."""
    if isinstance(expr, Access):
        yield expr, conditions
    if isinstance(expr, Map) and expr.op == "where":
        condition, yes, no = expr.args
        yield from _conditional(condition, conditions)
        yield from _conditional(yes, (*conditions, condition))
        yield from _conditional(no, (*conditions, Map("not", (condition,))))
        return
    for part in children(expr):
        yield from _conditional(part, conditions)


def _neutral(cascade: Cascade, rank: str, given: Mapping[str, Value], false: frozenset[Expr]) -> bool:
    """Has each reduction along a rank its identity at a point where some tensors have given values and conditions are false?"""
    never = [frozenset(conjuncts(condition)) for condition in false]
    known: dict[str, Value] = {}

    def value(expr: Expr) -> Value:
        match expr:
            case Number():
                return expr
            case Access(tensor=name):
                return known.get(name)
            case Reduce(op=op, body=body):
                inside = value(body)
                return inside if inside is not None and inside == IDENTITY.get(op) and op != "mean" else None
            case Map(op="where", args=(condition, yes, no)):
                if any(parts <= frozenset(conjuncts(condition)) for parts in never):
                    return value(no)
                a, b = value(yes), value(no)
                return a if a == b else None
            case Map(op=op, args=args):
                return known_result(op, [value(arg) for arg in args])
            case _:
                return None

    for einsum in cascade.einsums:
        body = einsum.body
        if isinstance(body, Reduce) and rank in body.ranks:
            if value(body.body) != IDENTITY[body.op]:
                return False
        elif rank in cascade.tensor(einsum.output).ranks:
            known[einsum.output] = given[einsum.output] if einsum.output in given else value(body)
    return True
