"""Canonical forms: a key for what an output is as a function of the inputs.

In: a cascade. Out: one short text per output, such that two outputs with the same key are the same function (up to rounding). The
key does not change with names of ranks and tensors, with the order of Einsums, with Einsums nobody needs, with how much is written
in one Einsum, and with the order of arguments of `+ * min max and or == !=`. Different keys prove nothing.

Every access is replaced by the definition of what it reads, down to the inputs; equal sub-expressions are shared as digests. Bound
ranks are numbered by how deep they are bound. The parts of a split rank keep their names, because which of their points exist
depends on both.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from .cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Scalar, Scan, Select
from .flatten import flatten
from .schedule import iterated_axis

MOST_NODES = 100_000
"""Size of an expression with all definitions put in, nodes, beyond which no key is computed."""

_COMMUTATIVE = frozenset({"+", "*", "min", "max", "and", "or"})
_FLIPPED = {">": "<", ">=": "<="}


class NoKey(Exception):
    """The function has no canonical form here: it is too large with all definitions put in."""


@dataclass(frozen=True)
class _Scope:
    """Keys of the rank variables, how deep binders are nested, and the states whose definition is being written."""

    ranks: Mapping[str, str]
    depth: int = 0
    states: tuple[str, ...] = ()

    def bind(self, names: Mapping[str, str]) -> _Scope:
        return _Scope({**self.ranks, **names}, self.depth + len(names), self.states)


def output_keys(
    cascade: Cascade, params: Mapping[str, int | float] | None = None, names: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The key of each output; `names` gives other names to inputs and outputs. Raises NoKey."""
    return _Keys(flatten(cascade), dict(params or {}), dict(names or {})).outputs()


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


class _Keys:
    def __init__(self, cascade: Cascade, params: dict[str, int | float], names: dict[str, str]) -> None:
        self.cascade, self.params, self.names = cascade, params, names
        self.scalars: dict[str, Expr] = {**dict(cascade.params), **cascade.counts}
        self.steps = 0

    def outputs(self) -> dict[str, str]:
        result = {}
        for name in self.cascade.outputs:
            tensor = self.cascade.tensor(name)
            dimensions = [self._rank(rank) + (":+1" if rank == tensor.iterates else "") for rank in tensor.ranks]
            places = tuple(_digest("output", i) for i in range(len(tensor.ranks)))
            result[self.names.get(name, name)] = _digest(dimensions, tensor.dtype, self._read(name, places, _Scope({}), whole=True))
        return result

    def _rank(self, name: str) -> str:
        """What a rank runs over; parts of a split rank by their own name too."""
        rank = self.cascade.rank(name)
        extent = self._expr(rank.extent, _Scope({}))
        if rank.part_of is None:
            return _digest("rank", extent)
        whole = self.cascade.rank(rank.part_of)
        return _digest("part", name, rank.part_of, self._expr(whole.extent, _Scope({})), extent)

    def _read(self, name: str, places: tuple[str, ...], scope: _Scope, whole: bool = False) -> str:
        """The key of an element of a tensor."""
        self.steps += 1
        if self.steps > MOST_NODES:
            raise NoKey
        tensor = self.cascade.tensor(name)
        if tensor.kind == "input":
            return _digest("input", self.names.get(name, name), tensor.dtype, *map(self._rank, tensor.ranks), places)
        definitions = self.cascade.definitions(name)
        if tensor.kind == "state":
            if name in scope.states:
                return _digest("state at", len(scope.states) - scope.states.index(name), places)
            return self._state(name, definitions, places, scope)
        (einsum,) = definitions
        if tensor.kind == "scatter":
            return self._scatter(einsum, places, scope)
        ranks = {index.rank: place for index, place in zip(einsum.indices, places, strict=True) if isinstance(index, Coord)}
        if not whole and not self._exists(ranks, scope):  # the tensor as a whole, 0 where no point exists, and a place in it
            own = {rank: _digest("bound", scope.depth + i, self._rank(rank)) for i, rank in enumerate(ranks)}
            body = self._expr(einsum.body, _Scope(own, scope.depth + len(own), scope.states))
            return _digest("tensor", list(own.values()), body, places)
        return self._expr(einsum.body, _Scope(ranks, scope.depth, scope.states))

    def _exists(self, ranks: Mapping[str, str], scope: _Scope) -> bool:
        """Is a point certain to exist: does no split rank stand on the left, or is it read at just these coordinates?"""
        parts = [
            part
            for rank in self.cascade.domain_splits(frozenset(ranks))
            if rank.split
            for part in (rank.split.outer, rank.split.inner)
        ]
        return all(scope.ranks.get(part) == ranks[part] for part in parts)

    def _state(self, name: str, definitions: tuple[Einsum, ...], places: tuple[str, ...], scope: _Scope) -> str:
        tensor = self.cascade.tensor(name)
        axis = iterated_axis(tensor)
        keys = []
        for einsum in sorted(definitions, key=lambda einsum: not isinstance(einsum.indices[axis], Number)):
            inner = _Scope({}, scope.depth, (*scope.states, name))
            ranks = {}
            for i, rank in enumerate(tensor.ranks):
                if i != axis or not isinstance(einsum.indices[axis], Number):
                    ranks[rank] = _digest("bound", inner.depth + i, self._rank(rank))
            keys.append(self._expr(einsum.body, _Scope(ranks, inner.depth + len(tensor.ranks), inner.states)))
        return _digest("state", *map(self._rank, tensor.ranks), axis, keys, places)

    def _scatter(self, einsum: Einsum, places: tuple[str, ...], scope: _Scope) -> str:
        body = einsum.body
        assert isinstance(body, Reduce)
        target = self.cascade.tensor(einsum.output)
        bound: dict[str, str] = {}
        pinned: dict[str, str] = {}
        for index, place in zip(einsum.indices, places, strict=True):
            if isinstance(index, Coord) and index.rank not in body.ranks and index.rank not in pinned:
                pinned[index.rank] = place
        for i, rank in enumerate(body.ranks):
            bound[rank] = _digest("bound", scope.depth + i, self._rank(rank))
        inner = _Scope({**pinned, **bound}, scope.depth + len(bound), scope.states)
        try:
            indices = [self._expr(index, inner) for index in einsum.indices]
            value = self._expr(body.body, inner)
        except KeyError:
            raise NoKey from None
        return _digest("scatter", body.op, *map(self._rank, target.ranks), list(bound.values()), indices, value, places)

    def _expr(self, expr: Expr, scope: _Scope) -> str:
        self.steps += 1
        if self.steps > MOST_NODES:
            raise NoKey
        match expr:
            case Number(value=value):
                return _digest("number", float(value))
            case Scalar(name=name):
                if name in self.params:
                    return _digest("number", float(self.params[name]))
                return self._expr(self.scalars[name], scope) if name in self.scalars else _digest("symbol", name)
            case Coord(rank=rank):
                return scope.ranks[rank]
            case Access(tensor=name, indices=indices):
                return self._read(name, tuple(self._expr(index, scope) for index in indices), scope)
            case Map():
                return self._map(expr, scope)
            case Reduce():
                return self._reduce(expr, scope)
            case Scan(op=op, rank=rank, body=body):
                bound = _digest("bound", scope.depth, self._rank(rank))
                inner = scope.bind({rank: bound})
                return _digest("scan", op, self._mates((rank,), scope), bound, self._expr(body, inner), scope.ranks[rank])
            case Select(op=op, rank=rank, fills=fills, body=body):
                bound = _digest("bound", scope.depth, self._rank(rank))
                inner = scope.bind({rank: bound})
                place = scope.ranks[fills]
                return _digest("select", op, self._mates((rank,), scope), bound, self._rank(fills), self._expr(body, inner), place)

    def _map(self, expr: Map, scope: _Scope) -> str:
        op, args = expr.op, expr.args
        if op in _COMMUTATIVE:
            keys = sorted(self._expr(term, scope) for term in _terms(op, expr))
            unit = {"+": Number(0), "*": Number(1)}.get(op)
            if unit is not None:
                keys = [key for key in keys if key != self._expr(unit, scope)] or [self._expr(unit, scope)]
            return keys[0] if len(keys) == 1 else _digest("map", op, keys)
        if op == "neg" and isinstance(args[0], Map) and args[0].op == "neg":
            return self._expr(args[0].args[0], scope)
        if op == "where" and isinstance(args[0], Map) and args[0].op == "not":
            return self._map(Map("where", (args[0].args[0], args[2], args[1])), scope)
        keys = [self._expr(arg, scope) for arg in args]
        if op in _FLIPPED:
            op, keys = _FLIPPED[op], keys[::-1]
        if op in ("==", "!="):
            keys.sort()
        return _digest("map", op, keys)

    def _reduce(self, expr: Reduce, scope: _Scope) -> str:
        """The order of the ranks does not matter."""
        op, ranks, body = expr.op, list(expr.ranks), expr.body
        kinds = {rank: self._rank(rank) for rank in ranks}
        ranks.sort(key=kinds.__getitem__)
        groups = [list(group) for _, group in itertools.groupby(ranks, key=kinds.__getitem__)]
        orders = itertools.product(*(itertools.permutations(group) for group in groups))
        best = None
        for order in itertools.islice(orders, 6):
            chain = [rank for group in order for rank in group]
            bound = {rank: _digest("bound", scope.depth + i, kinds[rank]) for i, rank in enumerate(chain)}
            key = self._expr(body, scope.bind(bound))
            best = key if best is None else min(best, key)
        return _digest("reduce", op, sorted(kinds.values()), self._mates(expr.ranks, scope), best)

    def _mates(self, bound: tuple[str, ...], scope: _Scope) -> list[tuple[str, str]]:
        """Keys of the ranks around a reduction that decide which of its points exist."""
        found = []
        for rank in self.cascade.ranks:
            if rank.split is not None and {rank.split.outer, rank.split.inner} & set(bound):
                parts = (rank.split.outer, rank.split.inner)
                found += [(part, scope.ranks[part]) for part in parts if part in scope.ranks and part not in bound]
        return sorted(found)


def _terms(op: str, expr: Expr) -> list[Expr]:
    """Arguments of a chain of one associative operation."""
    if isinstance(expr, Map) and expr.op == op:
        return [term for arg in expr.args for term in _terms(op, arg)]
    return [expr]
