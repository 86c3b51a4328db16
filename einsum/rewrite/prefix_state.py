"""Prefix state: sums over all m up to p become a running state along m.

before    S[p,m] = where(m <= p, sum[e](Q[p,e] * K[m,e]), 0)
          Y[p,f] = sum[m](S[p,m] * V[m,f])
after     KV[0,e,f]   = 0
          KV[m+1,e,f] = KV[m,e,f] + K[m,e] * V[m,f]
          Y[p,f]      = sum[e](Q[p,e] * KV[p+1,e,f])

The condition must be exactly m <= p (or m < p: one position earlier), both ranks of one extent, and the other factors must depend
on m or on p, not on both. One factor may: a decay g^(p-m), g the same for all p and m; then KV[m+1] = g * KV[m] + K[m] * V[m].
"""

from __future__ import annotations

from collections.abc import Mapping

from ..cascade import Access, Coord, Einsum, Expr, Map, Number, Reduce, Tensor, free_ranks, substitute
from .algebra import ONE, ZERO, canonical, multiply, power
from .contraction import Node, Orders, Writer, joined_name
from .reassociate import Prepared
from .step import Refused, fresh, in_order, next_position, text

NAME = "prefix-state"


def prefix_state(
    ready: Prepared, out: frozenset[str], size: Mapping[str, int | float], writer: Writer, target: str
) -> tuple[Node, str] | Refused:
    """The state in `writer`, and the order of what remains, with the reason why the condition holds."""
    tie, refused = ready.ties[0], Refused(NAME, target, ready.ties[0], "")
    pair = _pair(tie)
    if len(ready.ties) > 1 or pair is None:
        return _because(refused, f"`{text(tie)}` ties factors together and is not exactly `m <= p` for two ranks")
    m, p, offset = pair
    if m not in ready.bound:
        return _because(refused, f"`{text(tie)}` gives the positions from `{p}` on: a running sum has those up to it")
    if p in ready.bound:
        return _because(refused, f"`{m}` and `{p}` are summed together")
    declared, other = writer.cascade.rank(m), writer.cascade.rank(p)
    if canonical(declared.extent) != canonical(other.extent):
        sizes = f"`{m}` has {text(declared.extent)} positions and `{p}` has {text(other.extent)}"
        return _because(refused, f"{sizes}: prefixes end where `{m}` does")
    if any(rank.split is not None or rank.part_of is not None for rank in (declared, other)):
        return _because(refused, f"`{m}` or `{p}` is cut into tiles")
    decays: list[Expr] = []
    along: list[Expr] = []
    rest: list[Expr] = []
    for factor in ready.factors:
        ranks = free_ranks(factor)
        if m in ranks and p in ranks:
            found = decay(factor, m, p)
            if found is None:
                return _because(refused, f"`{text(factor)}` depends on both `{m}` and `{p}`, and is no decay g ** ({p} - {m})")
            decays.append(found)
        else:
            (along if m in ranks else rest).append(factor)
    if not along:
        return _because(refused, f"no factor depends on `{m}` alone")
    kept = out.union({m}, *(free_ranks(factor) for factor in (*rest, *decays)))
    node = Orders(kept, size).best(tuple(along))
    step: Expr = writer.value(node, target)
    base = joined_name(tuple(along), target)
    base = base.removesuffix("_sum") + "_run" if base.endswith("_sum") else base
    if node.summed:
        step = writer.named(f"{base}_step", Reduce("sum", in_order(node.summed, writer.cascade), step))
    held = in_order(frozenset(free_ranks(step) | {m}).union(*(free_ranks(g) for g in decays)), writer.cascade)
    name = fresh(base, writer.taken)

    def at(position: Expr) -> tuple[Expr, ...]:
        return tuple(position if rank == m else Coord(rank) for rank in held)

    carried: Expr = Access(name, at(Coord(m)))
    for g in decays:
        carried = multiply(g, carried)
    writer.tensors.append(Tensor(name, held, kind="state", iterates=m))
    writer.einsums.append(Einsum(name, at(ZERO), ZERO))
    writer.einsums.append(Einsum(name, at(next_position(m)), Map("+", (carried, step))))
    read: Expr = Access(name, at(next_position(p) if offset else Coord(p)))
    factors = (*rest, read, *(() if offset else decays))
    why = f"`{text(tie)}` takes exactly the first positions of `{m}`, and `{m}` and `{p}` have the same extent"
    if decays:
        shown = ", ".join(f"`{text(g)}`" for g in decays)
        why += f"; the decay from one position to the next is {shown} everywhere"
    return Orders(out, size).best(factors), why


def _because(refused: Refused, reason: str) -> Refused:
    return Refused(refused.rewrite, refused.target, refused.expr, reason)


def _pair(condition: Expr) -> tuple[str, str, int] | None:
    """(m, p, 1) of m <= p, (m, p, 0) of m < p."""
    match condition:
        case Map(op="<=" | "<" as op, args=(Coord(rank=m), Coord(rank=p))):
            return m, p, int(op == "<=")
        case Map(op=">=" | ">" as op, args=(Coord(rank=p), Coord(rank=m))):
            return m, p, int(op == ">=")
        case _:
            return None


def decay(factor: Expr, m: str, p: str) -> Expr | None:
    """g if the factor is g ** (p - m) with a g that depends on neither."""
    match factor:
        case Map(op="**", args=(base, exponent)) if not free_ranks(base) & {m, p}:
            slope = _slope(exponent, m, p)
            return None if slope is None else power(base, slope)
        case Map(op="exp" | "exp2" as op, args=(exponent,)):
            slope = _slope(exponent, m, p)
            return None if slope is None else Map(op, (slope,))
        case _:
            return None


def _slope(exponent: Expr, m: str, p: str) -> Expr | None:
    """c if the exponent is c * (p - m)."""
    slope = substitute(exponent, {p: ONE, m: ZERO})
    distance = Map("-", (Coord(p), Coord(m)))
    if free_ranks(slope) & {m, p} or canonical(exponent) != canonical(Map("*", (slope, distance))):
        return None
    return ONE if canonical(slope) == canonical(Number(1)) else slope
