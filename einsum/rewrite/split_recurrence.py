"""Split form of linear recurrences: the parts of a rank run on their own from 0; what they start from follows part by part.

before    KV[m+1,e,f]          = g[m] * KV[m,e,f] + K[m,e] * V[m,f]
          Y[m,f]               = Q[m,e] * KV[m+1,e,f]
after     KV_own[s,0,e,f]      = 0
          KV_own[s,ms+1,e,f]   = g[s*MS+ms] * KV_own[s,ms,e,f] + K[s*MS+ms,e] * V[s*MS+ms,f]
          KV_decay[s,0]        = 1
          KV_decay[s,ms+1]     = g[s*MS+ms] * KV_decay[s,ms]
          KV_before[s+1,e,f]   = KV_decay[s,MS] * KV_before[s,e,f] + KV_own[s,MS,e,f]
          Y[m,f]  = Q[m,e] * (KV_own[m//MS,m%MS+1,e,f] + KV_decay[m//MS,m%MS+1] * KV_before[m//MS,e,f])

Condition: every state along the rank takes the step a * X + b, element by element, with a and b free of such states. Then a run
from X is the run from 0 plus X times the product of all a: pairs (product, run from 0) are associative. Positions beyond the end
leave a part as it is. Refused: a step that is no such sum (a matrix applied to the state, a maximum), and states that read one
another.
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
    Rank,
    Scalar,
    Tensor,
    accesses,
    free_ranks,
    substitute,
    transform,
)
from .algebra import ONE, ZERO, add, is_number, multiply, negate
from .fiber import is_step_of
from .loop import Obstructed
from .split_form import DEFAULT_PARTS, Names, part_length
from .step import Refused, Rewritten, Step, coords, fresh, in_order, next_position, reordered, shown, taken_names, text

NAME = "split-recurrence"


@dataclass(frozen=True)
class Recurrence:
    """X[m+1] = decay * X[m] + added, from `initial`."""

    name: str
    ranks: tuple[str, ...]
    initial: Expr
    decay: Expr
    added: Expr


def split_recurrence(cascade: Cascade, rank: str, parts: int | None = None) -> tuple[list[Rewritten], Names] | Refused:
    """Cut the recurrences along `rank` into parts."""
    try:
        return _split(cascade, rank, parts or DEFAULT_PARTS)
    except Obstructed as obstructed:
        return Refused(NAME, obstructed.einsum, Coord(rank), obstructed.reason)


def recurrences(cascade: Cascade, rank: str) -> tuple[Recurrence, ...]:
    """The states along the rank, taken apart, none reading another. Raises `Obstructed`."""
    names = [tensor.name for tensor in cascade.tensors if tensor.kind == "state" and tensor.iterates == rank]
    waiting = behind(cascade, frozenset(names))
    return tuple(recurrence(cascade, rank, name, waiting, f"what runs along `{rank}`") for name in names)


def behind(cascade: Cascade, states: frozenset[str]) -> frozenset[str]:
    """The states and all that depends on them."""
    found = set(states)
    for _ in cascade.einsums:
        more = {e.output for e in cascade.einsums if any(node.tensor in found for node in accesses(e.body))}
        if more <= found:
            break
        found |= more
    return frozenset(found)


def recurrence(cascade: Cascade, rank: str, name: str, waiting: frozenset[str], what: str) -> Recurrence:
    """A state taken apart, factor and term free of `waiting`, in words `what`. Raises `Obstructed`."""
    tensor, definitions = cascade.tensor(name), cascade.definitions(name)
    step = next(einsum for einsum in definitions if is_step_of(einsum, rank))
    initial = next(einsum.body for einsum in definitions if einsum is not step)
    own = Access(name, coords(tensor.ranks))
    if tensor.dtype != "float":
        raise Obstructed(name, "it is no sum of numbers")
    decay: Expr = ZERO
    added: Expr = ZERO
    carried = False
    for addend in addends(step.body):
        factor = _factor(addend, own)
        if factor is None:
            added = add(added, addend)
        else:
            decay, carried = add(decay, factor), True
    if carried and not any(node.tensor in waiting for expr in (decay, added) for node in accesses(expr)):
        return Recurrence(name, tensor.ranks, initial, decay, added)
    raise Obstructed(name, f"its step `{text(step.body)}` is not its old value times a factor plus a term, both free of {what}")


def addends(expr: Expr) -> tuple[Expr, ...]:
    """The addends of a sum, signs in them."""
    match expr:
        case Map(op="+", args=(a, b)):
            return (*addends(a), *addends(b))
        case Map(op="-", args=(a, b)):
            return (*addends(a), *(negate(term) for term in addends(b)))
        case _:
            return (expr,)


def _factor(expr: Expr, own: Access) -> Expr | None:
    """d if the expression is d * own."""
    if expr == own:
        return ONE
    match expr:
        case Map(op="*", args=(a, b)):
            for inner, other in ((a, b), (b, a)):
                found = _factor(inner, own)
                if found is not None:
                    return multiply(found, other)
        case Map(op="/", args=(a, b)):
            found = _factor(a, own)
            return None if found is None else Map("/", (found, b))
        case Map(op="neg", args=(a,)):
            found = _factor(a, own)
            return None if found is None else negate(found)
    return None


def _split(cascade: Cascade, rank: str, count: int) -> tuple[list[Rewritten], Names]:
    found = recurrences(cascade, rank)
    taken = taken_names(cascade)
    names = Names(fresh("s", taken), fresh("S" if "S" not in taken else "PARTS", taken), fresh(f"{rank}s", taken))
    length, extent = Scalar(fresh(f"{rank.upper()}S", taken)), cascade.rank(rank).extent
    part, inside, many = Coord(names.part), Coord(names.inside), Scalar(names.parts)
    position = Map("+", (Map("*", (part, length)), inside))
    exists = Map("<", (position, extent))
    ranks: list[Rank] = []
    for declared in cascade.ranks:
        ranks.append(declared)
        if declared.name == rank:
            ranks += [Rank(names.part, many), Rank(names.inside, length)]
    params = (*cascade.params, (length.name, part_length(extent, many)))
    new = replace(cascade, ranks=tuple(ranks), params=params, sizes=(*cascade.sizes, (names.parts, count)))
    einsums: list[Einsum] = []
    tensors: list[Tensor] = []
    own: dict[str, tuple[str, str | None, str]] = {}

    def state(name: str, over: frozenset[str], along: str, initial: Expr, step: Expr) -> tuple[str, ...]:
        order = in_order(over, new)
        start = tuple(ZERO if each == along else Coord(each) for each in order)
        then = tuple(next_position(along) if each == along else Coord(each) for each in order)
        einsums.extend((Einsum(name, start, initial), Einsum(name, then, step)))
        tensors.append(Tensor(name, order, kind="state", iterates=along))
        return order

    def read(name: str, order: tuple[str, ...], **at: Expr) -> Access:
        return Access(name, tuple(at.get(each, Coord(each)) for each in order))

    orders: dict[str, tuple[str, ...]] = {}
    for each in found:
        around = frozenset(each.ranks) - {rank}
        here: dict[str, Expr] = {rank: position}
        run, before = fresh(f"{each.name}_own", taken), fresh(f"{each.name}_before", taken)
        orders[run] = in_order(around | {names.part, names.inside}, new)
        factor, added = substitute(each.decay, here), substitute(each.added, here)
        now = read(run, orders[run])
        state(run, frozenset(orders[run]), names.inside, ZERO, Map("where", (exists, add(multiply(factor, now), added), now)))
        product: str | None = None
        at_end = {names.inside: length}
        carried: Expr = Access(before, coords(in_order(around | {names.part}, new)))
        if not is_number(each.decay, 1):
            product = fresh(f"{each.name}_decay", taken)
            over = free_ranks(factor) | {names.part, names.inside}
            orders[product] = in_order(over, new)
            held = read(product, orders[product])
            state(product, over, names.inside, ONE, Map("where", (exists, multiply(factor, held), held)))
            carried = multiply(read(product, orders[product], **at_end), carried)
        orders[before] = state(
            before, around | {names.part}, names.part, each.initial, add(carried, read(run, orders[run], **at_end))
        )
        own[each.name] = (run, product, before)

    def change(node: Expr) -> Expr:
        if not isinstance(node, Access) or node.tensor not in own:
            return node
        given = dict(zip(cascade.tensor(node.tensor).ranks, node.indices, strict=True))
        place = given.pop(rank)
        run, product, before = own[node.tensor]
        if place == extent:
            return read(before, orders[before], **{**given, names.part: many})
        steps = {Coord(rank): 0, next_position(rank): 1}.get(place)
        if steps is None:
            raise Obstructed(node.tensor, f"it is read at `{text(place)}`")
        which, after = Map("//", (Coord(rank), length)), Map("%", (Coord(rank), length))
        at: dict[str, Expr] = {**given, names.part: which, names.inside: add(after, ONE) if steps else after}
        start: Expr = read(before, orders[before], **{key: value for key, value in at.items() if key != names.inside})
        if product is not None:
            start = multiply(read(product, orders[product], **at), start)
        return add(read(run, orders[run], **at), start)

    waiting = behind(cascade, frozenset(own))
    old = [einsum for einsum in cascade.einsums if einsum.output in own]
    first = [einsum for einsum in cascade.einsums if einsum.output not in waiting]
    rest = [(e, replace(e, body=transform(e.body, change))) for e in cascade.einsums if e.output in waiting - set(own)]
    declared_tensors = tuple(t for t in cascade.tensors if t.name not in own)
    everything = (*first, *einsums, *(then for _, then in rest))
    after_all = reordered(replace(new, tensors=(*declared_tensors, *tensors), einsums=everything))
    changed = [(was, then) for was, then in rest if was != then]
    step = Step(
        NAME,
        rank,
        shown([*old, *(was for was, _ in changed)], cascade),
        f"{rank} = {text(position)}: a run from X = the run from 0 + X times the product of all factors",
        f"each step is a factor times the old value plus a term, both free of states; {length.name} = {text(params[-1][1])} is "
        f"{text(extent)}/{names.parts} rounded up: every position is in exactly one part, and what lies beyond changes nothing",
        shown([*einsums, *(then for _, then in changed)], after_all),
    )
    return [Rewritten(after_all, step)], names
