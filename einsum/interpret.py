"""The meaning of a cascade: its value in float64 for given inputs. Everything else is checked against this.

In: a cascade, arrays for its inputs, sizes and parameters (those the spec gives, or the shapes imply, may be left out). Out: arrays
for its outputs. `where` is lazy: an array `active` says where an expression counts, and what does not count is neither accessed
nor able to fail. Points of a partition that do not exist are never active.

Memory stays bounded by the tensors of the cascade (nested reductions count as tensors) and one temporary: sums of products are
matrix products (`contract`), anything else is evaluated in blocks of `BLOCK` points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .arithmetic import INT_MAX, INT_MIN, Array, Fault, any_active, apply, as_float, limits, narrowed, truth
from .cascade import (
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
    accesses,
)  # fmt: skip
from .contract import Factor, Path, contract, plan
from .diagnostics import Diagnostic, EinsmithError
from .domain import Domain, Range, both
from .facts import facts_of, outermost_reductions, product
from .inputs import as_arrays, checked, infer_sizes, random_inputs, require_memory
from .reductions import COMBINE, accumulated, combined, descending, identity, reduced
from .schedule import Loop, Step, last_uses, schedule
from .sizes import Sizes, bind

__all__ = ["evaluate", "infer_sizes", "random_inputs"]

BLOCK = 2**18
"""Points evaluated at a time where there is no matrix product, elements."""
TEMPORARY = 2**22
"""Least bound on intermediates of contractions, elements; the largest tensor of the cascade if that is larger."""

DTYPES: dict[DType, type] = {"float": np.float64, "int": np.int64, "bool": np.bool_}


def evaluate(
    cascade: Cascade,
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    keep: Sequence[str] = (),
) -> dict[str, Array]:
    """Values of the outputs, and of the tensors named in `keep`. Raises EinsmithError (E3) where there is no value."""
    arrays = as_arrays(inputs)
    bound = bind(cascade, infer_sizes(cascade, arrays, sizes, params), params)
    tensors = checked(cascade, arrays, bound)
    wanted = tuple(dict.fromkeys((*cascade.outputs, *keep)))
    evaluator = Evaluator(cascade, bound, tensors)
    try:
        with np.errstate(all="ignore"):
            evaluator.run(frozenset(wanted))
    except MemoryError:
        span = evaluator.einsum.span if evaluator.einsum else None
        raise EinsmithError(Diagnostic("E328", "the intermediates of this Einsum do not fit in memory", span)) from None
    return {name: evaluator.tensors[name] for name in wanted}


class _NotFinite(Exception):
    """A contraction met an infinity or NaN (in a factor over these ranks): only the definition itself says what comes out."""

    def __init__(self, ranks: tuple[str, ...] = ()) -> None:
        self.ranks = frozenset(ranks)


class Evaluator:
    """Evaluates expressions over domains, given what tensors hold; `run` evaluates a whole cascade."""

    def __init__(self, cascade: Cascade, sizes: Sizes, tensors: dict[str, Array]) -> None:
        self.cascade, self.sizes, self.tensors = cascade, sizes, tensors
        self.facts = facts_of(cascade, sizes, type(self))
        self.partitions = self.facts.partitions
        self.limit = max(TEMPORARY, *(math.prod(self.shape(tensor)) for tensor in cascade.tensors))
        self.einsum = cascade.einsums[0] if cascade.einsums else None
        self._hoisted: dict[int, tuple[Domain, Array]] = {}

    # --- Einsums in order ---------------------------------------------------------------------------------------------

    def run(self, wanted: frozenset[str]) -> None:
        last = last_uses(self.cascade)
        for place, item in enumerate(schedule(self.cascade)):
            self._item(item, {})
            for name in [name for name, at in last.items() if at == place and name not in wanted]:
                del self.tensors[name]

    def _item(self, item: Step | Loop, at: Mapping[str, Range]) -> None:
        if isinstance(item, Step):
            self._evaluate(item.einsum, at)
            return
        for step in range(self.sizes.extents[item.rank]):
            for inner in item.body:
                self._item(inner, {**at, item.rank: (step, step + 1)})
        for einsum in item.einsums():
            self._allocate(self.cascade.tensor(einsum.output))

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        return tuple(self.sizes.extents[rank] + (rank == tensor.iterates) for rank in tensor.ranks)

    def _allocate(self, tensor: Tensor) -> Array:
        if tensor.name not in self.tensors:
            require_memory(f"`{tensor.name}`", self.shape(tensor), self.tensors, tensor.span)
            self.tensors[tensor.name] = np.full(self.shape(tensor), self._initial(tensor), DTYPES[tensor.dtype])
        return self.tensors[tensor.name]

    def _initial(self, tensor: Tensor) -> float | int | bool:
        """What a tensor holds where nothing is written: 0, or the identity of a scatter."""
        if tensor.kind != "scatter":
            return 0
        body = self.cascade.definitions(tensor.name)[0].body
        assert isinstance(body, Reduce)
        if tensor.dtype == "int" and body.op in ("max", "min"):
            raise self._error(Fault("E326", f"an integer tensor cannot hold the identity of `{body.op}`"), body, Domain({}))
        return identity(body.op, np.dtype(DTYPES[tensor.dtype]))

    def _evaluate(self, einsum: Einsum, at: Mapping[str, Range]) -> None:
        """One Einsum, with the ranks in `at` at one coordinate."""
        self.einsum = einsum
        tensor = self.cascade.tensor(einsum.output)
        domain = self.facts.domain(einsum, at)
        if tensor.kind == "scatter":
            self._scatter(einsum, tensor, domain)
            return
        out, before = self._target(einsum, tensor, domain)
        active = self.partitions.existing(domain)
        body = einsum.body
        if isinstance(body, Select):
            self.select(out, body, domain, active)
        else:
            self._fill(out, body, domain, active)
        if before is not None and active is not None:  # a step that does not exist leaves the state as it was
            np.copyto(out, before, where=~active)

    def _target(self, einsum: Einsum, tensor: Tensor, domain: Domain) -> tuple[Array, Array | None]:
        """The part of a tensor that an Einsum defines, as a view over the domain; for a state's step also the part before it."""
        values = self._allocate(tensor)
        places: list[slice | int] = []
        before: list[slice | int] = []
        for index in einsum.indices:
            match index:
                case Coord(rank=rank):
                    places.append(slice(*domain.ranges[rank]))
                    before.append(places[-1])
                case Map(args=(Coord(rank=rank), _)):
                    low, high = domain.ranges[rank]
                    places.append(slice(low + 1, high + 1))
                    before.append(slice(low, high))
                case _:
                    places.append(0)
        step = len(before) == len(places) and tensor.kind == "state"
        return values[(*places, ...)], values[(*before, ...)] if step else None

    # --- filling arrays -----------------------------------------------------------------------------------------------

    def _fill(self, out: Array, expr: Expr, domain: Domain, active: Array | None) -> None:
        """Write an expression into an array of the domain's shape, block by block; 0 where it is not active."""
        if isinstance(expr, Reduce):
            self._write(out, self.value(expr, domain, active), active)
            return
        whole: frozenset[str] = frozenset()
        parts: Expr = expr
        points, counted = domain, active
        if isinstance(expr, Scan):  # it needs whole fibers
            whole, parts = frozenset((expr.rank,)), expr.body
            points = domain.with_ranges({expr.rank: (0, domain.ranges[expr.rank][1])})
            counted = self.partitions.existing(points)
        with self._hoisting(parts, points, counted):
            for block in domain.blocks(BLOCK, whole):
                here = domain.cut(active, block)
                self._write(_part(out, domain, block), self.value(expr, block, here), here)

    def _write(self, out: Array, values: Array, active: Array | None) -> None:
        if out.dtype == np.int64 and values.dtype == np.float64:
            values = self._integers(values, active)
        elif out.dtype == np.bool_:
            values = truth(values)
        np.copyto(out, values if active is None else np.where(active, values, np.zeros((), out.dtype)), casting="unsafe")

    def _materialised(self, expr: Expr, domain: Domain, active: Array | None) -> Array:
        """A factor of a product as an array of the domain's shape; an access as a view where that is possible."""
        if active is None and self.facts.is_view(expr):
            return np.broadcast_to(self.value(expr, domain, None), domain.shape)
        out = np.empty(domain.shape)
        self._fill(out, expr, domain, active)
        return out

    @contextmanager
    def _hoisting(self, expr: Expr, domain: Domain, active: Array | None) -> Iterator[None]:
        """Evaluate reductions and scans inside an expression once, ahead of its blocks, where that saves work and fits.

        This ignores the conditions they stand under; if that makes one fail, it is left to the blocks, which do not.
        """
        nodes = outermost_reductions(expr) if domain.size > BLOCK else []
        added = []
        for node in nodes:
            ranks = self.facts.ranks_of(node, domain.ranks)
            own = domain.only(ranks)
            repeated = isinstance(node, Scan) or any(domain.length(rank) > 1 for rank in domain.ranks - ranks)
            if own.size > self.limit or not repeated or id(node) in self._hoisted:
                continue
            try:
                values = self.value(node, own, domain.project(active, ranks))
            except EinsmithError:
                continue
            self._hoisted[id(node)] = (own, np.broadcast_to(values, own.shape))
            added.append(id(node))
        try:
            yield
        finally:
            for key in added:
                del self._hoisted[key]

    # --- expressions --------------------------------------------------------------------------------------------------

    def value(self, expr: Expr, domain: Domain, active: Array | None) -> Array:
        """The expression at every point of the domain, as an array that broadcasts to its shape."""
        if not domain.size:  # no point, so nothing is accessed, whatever an index that varies along other ranks would be
            return np.zeros(domain.shape, DTYPES[self.facts.kind(expr)])
        if id(expr) in self._hoisted:
            own, values = self._hoisted[id(expr)]
            here = domain.only(own.names)
            cut = own.cut(values, here)
            assert cut is not None
            return domain.spread(cut, here.names)
        if not accesses(expr):
            known = self.facts.at_points(expr, domain, lambda: self._value(expr, domain, None))
            if known is not None:
                return known
        return self._value(expr, domain, active)

    def _value(self, expr: Expr, domain: Domain, active: Array | None) -> Array:
        match expr:
            case Number(value=number):
                return self._constant(number, domain)
            case Scalar(name=name):
                return self._constant(self.sizes.scalars[name], domain)
            case Coord(rank=rank):
                return domain.coordinates(rank)
            case Access():
                return self._access(expr, domain, active)
            case Map(op="where"):
                return self._where(expr, domain, active)
            case Map(op=op, args=args):
                arrays = tuple(self.value(arg, domain, active) for arg in args)
                if op == "**" and self.facts.kind(expr) == "float":
                    arrays = tuple(as_float(array) for array in arrays)
                try:
                    return apply(op, arrays, active)
                except Fault as fault:
                    raise self._error(fault, expr, domain) from None
            case Reduce():
                return self._reduce(expr, domain, active)
            case Scan():
                return self._scan(expr, domain, active)
        raise AssertionError(f"{type(expr).__name__} inside an expression")

    def _constant(self, number: float, domain: Domain) -> Array:
        if isinstance(number, int) and not INT_MIN <= number <= INT_MAX:
            raise self._error(Fault("E321", f"the integer {number} leaves the 64-bit range"), None, domain)
        return np.full((1,) * len(domain.ranges), number, np.int64 if isinstance(number, int) else np.float64)

    def _where(self, expr: Map, domain: Domain, active: Array | None) -> Array:
        condition = truth(self.value(expr.args[0], domain, active))
        counted = condition if active is None else condition & active
        uncounted = ~condition if active is None else ~condition & active
        if not uncounted.any():
            result = self.value(expr.args[1], domain, active)
        elif not counted.any():
            result = self.value(expr.args[2], domain, active)
        else:
            result = np.where(condition, self.value(expr.args[1], domain, counted), self.value(expr.args[2], domain, uncounted))
        return result.astype(np.promote_types(result.dtype, DTYPES[self.facts.kind(expr)]), copy=False)

    def _access(self, expr: Access, domain: Domain, active: Array | None) -> Array:
        values = self.tensors[expr.tensor]
        places = self.facts.places(expr, domain, values.shape)
        names, computed = places.names, places.computed
        cut = values[(*places.cut, ...)]
        if not computed:
            return domain.spread(cut, names)
        front = cut.transpose(places.front)
        indices = [self._index(expr, axis, values.shape[axis], domain, active) for axis in computed]
        if 0 in front.shape[: len(computed)]:  # nothing to access, and nothing that counts accesses it
            return np.zeros((1,) * len(domain.ranges), values.dtype)
        found: Array = front[tuple(np.broadcast_arrays(*indices))]  # (the domain's dimensions, then the named ones)
        for name in names:
            found = found.swapaxes(domain.axes[name], len(domain.ranges)).squeeze(len(domain.ranges))
        return found

    def _index(self, expr: Access, axis: int, extent: int, domain: Domain, active: Array | None) -> Array:
        """An index expression as int64 in range (any place in range where it does not count)."""
        index = expr.indices[axis]
        values = self.value(index, domain, active)
        if values.dtype != np.int64:
            values = self._integers(as_float(values), active, index, domain)
        outside = (values < 0) | (values >= extent)
        if not outside.any():
            return values
        if any_active(outside, active):
            counted = outside if active is None else outside & active
            number = int(np.broadcast_to(values, counted.shape)[np.unravel_index(int(counted.argmax()), counted.shape)])
            allowed = f"0 to {extent - 1}" if extent else "none, for it is empty"
            message = f"index {number} of `{expr.tensor}` in dimension {axis + 1} is out of range (allowed: {allowed})"
            raise self._error(Fault("E320", message, counted), index, domain)
        return np.clip(values, 0, max(extent - 1, 0))

    def _integers(self, values: Array, active: Array | None, expr: Expr | None = None, domain: Domain | None = None) -> Array:
        """Floats as integers; refused where one that counts is not whole."""
        whole = np.isfinite(values) & (values == np.rint(values)) & (np.abs(values) < 2.0**63)
        if any_active(~whole, active):
            where = ~whole if active is None else ~whole & active
            bad = np.broadcast_to(values, where.shape)[np.unravel_index(int(where.argmax()), where.shape)]
            raise self._error(Fault("E326", f"{bad} is not a whole number", where if domain else None), expr, domain or Domain({}))
        return np.where(whole, values, 0).astype(np.int64)

    def _error(self, fault: Fault, expr: Expr | None, domain: Domain) -> EinsmithError:
        assert self.einsum is not None
        message = f"{fault} in the Einsum of `{self.einsum.output}`"
        if fault.where is not None and fault.where.ndim == len(domain.ranges) and domain.ranges and fault.where.size:
            point = np.unravel_index(int(fault.where.argmax()), fault.where.shape)
            shown = [
                f"{name}={low + int(place)}"
                for (name, (low, high)), place, length in zip(domain.ranges.items(), point, fault.where.shape, strict=True)
                if length == high - low
            ]
            message += f", at {', '.join(shown)}" if shown else ""
        span = getattr(expr, "span", None) or self.einsum.span
        return EinsmithError(Diagnostic(fault.code, message, span, help=fault.help))

    # --- reductions ---------------------------------------------------------------------------------------------------

    def _reduce(self, expr: Reduce, domain: Domain, active: Array | None) -> Array:
        ranks = self.facts.ranks_of(expr, domain.ranks)
        free = domain.only(ranks)
        active = domain.project(active, ranks)
        values: Array | None = None
        if expr.op == "sum" and self.facts.kind(expr) == "float":
            values = self._contraction(expr, free, active)
        if values is None:
            values = self._reduction(expr, free, active)
        return domain.spread(values, free.names)

    def _reduction(self, expr: Reduce, free: Domain, active: Array | None) -> Array:
        """By the definition: the body at every point, block by block."""
        bound = Domain({rank: (0, self.sizes.extents[rank]) for rank in expr.ranks})
        ordered = expr.op in ("argmax", "argmin")
        result: Array = np.zeros(free.shape, DTYPES[self.facts.kind(expr)])
        counted = None if active is None else _append(active, len(bound.ranges))
        with self._hoisting(expr.body, free.with_ranges(bound.ranges), counted):
            for block in free.blocks(max(1, BLOCK // max(1, bound.size))):
                here = free.cut(active, block)
                total: Array | None = None
                count: Array | int = 0
                for part in [bound] if ordered else bound.blocks(max(1, BLOCK // max(1, block.size))):
                    values, existing = self._points(expr, block.with_ranges(part.ranges), here, part)
                    try:
                        more = reduced(expr.op, values, len(part.ranges))
                        total = more if total is None else combined(expr.op, total, more)
                    except Fault as fault:
                        raise self._error(fault, expr, block) from None
                    axes = tuple(range(len(block.ranges), values.ndim))
                    count = count + (part.size if existing is None else np.broadcast_to(existing, values.shape).sum(axis=axes))
                assert total is not None
                total = self._finished(expr, total, count, block, here)
                if total.dtype == np.float64 and result.dtype == np.int64:
                    result = result.astype(np.float64)
                np.copyto(_part(result, free, block), total)
        return result

    def _points(self, expr: Reduce, domain: Domain, active: Array | None, bound: Domain) -> tuple[Array, Array | None]:
        """The body of a reduction at the points of a block, the identity at points that do not exist; and which exist."""
        existing = self.partitions.existing(domain, bound.names)
        inner = both(None if active is None else _append(active, len(bound.ranges)), existing)
        values = np.broadcast_to(self.value(expr.body, domain, inner), domain.shape)
        if expr.op in ("argmax", "argmin"):
            self._no_nan(values, inner, expr, domain)
        if inner is not None:
            values = np.where(inner, values, identity(expr.op, values.dtype))
        return values, existing

    def _no_nan(self, values: Array, active: Array | None, expr: Reduce | Select, domain: Domain) -> None:
        if values.dtype == np.float64:
            undefined = np.isnan(values)
            if any_active(undefined, active):
                raise self._error(Fault("E324", f"`{expr.op}` of NaN", both(undefined, active)), expr, domain)

    def _finished(self, expr: Reduce, total: Array, count: Array | int, block: Domain, active: Array | None) -> Array:
        """The result of a reduction from its total over `count` points that exist."""
        empty = np.broadcast_to(np.equal(count, 0), total.shape)
        if expr.op in ("mean", "argmax", "argmin"):
            if any_active(empty, active):
                where = empty if active is None else empty & active
                raise self._error(Fault("E323", f"`{expr.op}` over no points", where), expr, block)
            return total / np.maximum(count, 1) if expr.op == "mean" else total
        if total.dtype == np.int64 and expr.op in ("max", "min") and empty.any():
            return np.where(empty, -np.inf if expr.op == "max" else np.inf, total)
        return total

    # --- sums of products ---------------------------------------------------------------------------------------------

    def _contraction(self, expr: Reduce, free: Domain, active: Array | None) -> Array | None:
        """A sum of products by matrix products; None if it is not one."""
        factors = product(expr.body)
        if len(factors) < 2:
            return None
        domain = free.with_ranges({rank: (0, self.sizes.extents[rank]) for rank in expr.ranks})
        result = np.zeros(free.shape)
        self._contract(result, expr.body, factors, free, domain, active)
        return result

    def _contract(
        self, result: Array, body: Expr, factors: list[tuple[Expr, bool]], free: Domain, domain: Domain, active: Array | None
    ) -> None:
        """Add the sum over the points of a domain to the result, which has the shape of the free ranks' domain.

        Cut into parts where a temporary would be too large, or where numbers are not finite; there, small parts follow the
        definition point by point.
        """

        def cut(among: frozenset[str], count: int) -> None:
            rank = max(
                among or domain.ranks, key=lambda name: (name in free.ranks and domain.length(name) > 1, domain.length(name))
            )
            low, high = domain.ranges[rank]
            step = -(-(high - low) // min(high - low, count))
            for start in range(low, high, step):
                part = {rank: (start, min(high, start + step))}
                inner = free.with_ranges(part) if rank in free.ranks else free
                self._contract(_part(result, free, inner), body, factors, inner, domain.with_ranges(part), free.cut(active, inner))

        ranks = [self.facts.ranks_of(factor, domain.ranks) for factor, _ in factors]
        bound = domain.ranks - free.ranks
        existing = []  # existence of points as further factors, unless a factor can take it up
        for constraint in self.partitions.constraints(domain.ranks):
            involved = frozenset(constraint.weights)
            if not involved.isdisjoint(bound) and not any(involved <= own for own in ranks):
                existing.append(involved)
        lengths = {rank: domain.length(rank) for rank in domain.names}
        path = plan([*ranks, *existing], free.ranks, lengths)
        held = [
            *path.intermediates,
            *(own for (factor, _), own in zip(factors, ranks, strict=True) if not self.facts.is_view(factor)),
        ]
        sizes = [math.prod(lengths[rank] for rank in own) for own in held]
        if sizes and max(sizes) > self.limit:
            cut(held[sizes.index(max(sizes))], -(-max(sizes) // self.limit))
            return
        exists = self.partitions.existing(domain, bound)
        counted = both(None if active is None else _append(active, len(bound)), exists)
        try:
            result += self._multiplied(factors, ranks, existing, path, free, domain, counted)
        except _NotFinite as fault:
            if domain.size > BLOCK:
                cut(frozenset(rank for rank in fault.ranks if lengths[rank] > 1), 8)
                return
            values = np.broadcast_to(self.value(body, domain, counted), domain.shape)
            result += reduced("sum", values if counted is None else np.where(counted, values, 0), len(bound))

    def _multiplied(
        self,
        factors: list[tuple[Expr, bool]],
        ranks: list[frozenset[str]],
        existing: list[frozenset[str]],
        path: Path,
        free: Domain,
        domain: Domain,
        counted: Array | None,
    ) -> Array:
        """The sum of the product of the factors, all of which are finite, as is the sum."""
        arrays = []
        greatest = 1.0
        for (factor, inverse), own in zip(factors, ranks, strict=True):
            arrays.append(self._factor(factor, inverse, domain.only(own), domain.project(counted, own)))
            if self.facts.kind(factor) != "float" and not inverse:
                greatest *= float(np.abs(arrays[-1].values).max(initial=1.0))
        if greatest > 2.0**53:  # products of integers are exact, or refused
            raise _NotFinite
        for own in existing:
            part = domain.only(own)
            values = self.partitions.existing(part)
            if values is not None:
                arrays.append(Factor(part.names, np.broadcast_to(values, part.shape).astype(np.float64)))
        lengths = {rank: domain.length(rank) for rank in domain.names}
        if len(arrays) < len(ranks) + len(existing):  # all of these points exist
            path = plan([frozenset(factor.ranks) for factor in arrays], free.ranks, lengths)
        total = contract(arrays, free.ranks, path)
        idle = domain.ranks - free.ranks - frozenset().union(*(factor.ranks for factor in arrays))
        times = math.prod(lengths[rank] for rank in idle)
        result = free.spread(total.values if times == 1 else total.values * times, total.ranks)
        _finite(result)
        return result

    def _factor(self, expr: Expr, inverse: bool, domain: Domain, active: Array | None) -> Factor:
        """A factor over its own ranks, 0 where nothing that exists needs it."""
        values = self._materialised(expr, domain, active)
        if inverse:
            values = 1.0 / values
            if active is not None:
                values = np.where(active, values, 0.0)
        _finite(values, domain.names)
        return Factor(domain.names, values)

    # --- scans, selections, scatters ----------------------------------------------------------------------------------

    def _scan(self, expr: Scan, domain: Domain, active: Array | None) -> Array:
        ranks = self.facts.ranks_of(expr, domain.ranks)
        own = domain.only(ranks)
        active = domain.project(active, ranks)
        low, high = own.ranges[expr.rank]
        whole = own.with_ranges({expr.rank: (0, high)})
        axis = whole.axes[expr.rank]
        needed = None
        if active is not None:  # an element is needed if any at or after it is
            shape = [n if i != axis else high - low for i, n in enumerate(active.shape)]
            later = np.flip(np.logical_or.accumulate(np.flip(np.broadcast_to(active, shape), axis), axis), axis)
            first = later.any(axis=axis, keepdims=True)
            needed = np.concatenate([np.repeat(first, low, axis), later], axis)
        existing = self.partitions.existing(whole, (expr.rank,))
        needed = both(needed, existing)
        values = self.value(expr.body, whole, needed)
        if needed is not None:
            values = np.where(needed, values, identity(expr.op, values.dtype))
        shape = [n if i != axis else high for i, n in enumerate(values.shape)]
        try:
            values = accumulated(expr.op, np.broadcast_to(values, shape), axis)
        except Fault as fault:
            raise self._error(fault, expr, own) from None
        kept = np.take(values, np.arange(low, high), axis) if low else values
        return domain.spread(np.broadcast_to(kept, own.shape), own.names)

    def select(self, out: Array, expr: Select, domain: Domain, active: Array | None) -> None:
        """Write a selection into an array of the domain's shape."""
        count, whole = domain.length(expr.fills), self.sizes.extents[expr.rank]
        if expr.op in ("sort", "argsort") and count != whole:
            message = f"`{expr.op}` fills {count} places of `{expr.fills}`, but needs one for each of the {whole} of `{expr.rank}`"
            raise self._error(Fault("E325", message), expr, domain)
        around = domain.only(domain.ranks - {expr.fills})
        active = domain.project(active, around.ranks)
        points = around.with_ranges({expr.rank: (0, whole)})
        needed = None if active is None else _append(active, 1)
        with self._hoisting(expr.body, points, needed):
            for block in points.blocks(BLOCK, frozenset((expr.rank,))):
                existing = self.partitions.existing(block, (expr.rank,))
                here = points.cut(needed, block)
                values = np.broadcast_to(self.value(expr.body, block, both(here, existing)), block.shape)
                self._no_nan(values, both(here, existing), expr, block)
                have = np.broadcast_to(True if existing is None else existing, block.shape).sum(-1)[..., None]
                short = np.broadcast_to(have < count, (*block.shape[:-1], 1))
                if any_active(short, here):
                    least = int(have.min())
                    message = f"`{expr.op}` fills {count} places of `{expr.fills}` but `{expr.rank}` has only {least} points"
                    raise self._error(Fault("E325", message), expr, block)
                order = np.argsort(descending(values, existing), axis=-1, kind="stable")[..., :count]
                chosen = order if expr.op.startswith("arg") else np.take_along_axis(values, order, -1)
                place = around.with_ranges({name: bounds for name, bounds in block.ranges.items() if name != expr.rank})
                target = np.moveaxis(out, domain.axes[expr.fills], -1)
                part = place.with_ranges({expr.fills: domain.ranges[expr.fills]})
                self._write(_part(target, around.with_ranges({expr.fills: domain.ranges[expr.fills]}), part), chosen, here)

    def _scatter(self, einsum: Einsum, tensor: Tensor, free: Domain) -> None:
        """Combine the contributions of all points into the elements that the left-hand side names."""
        body = einsum.body
        assert isinstance(body, Reduce)
        out = self._allocate(tensor)
        bound = Domain({rank: (0, self.sizes.extents[rank]) for rank in body.ranks})
        domain = free.with_ranges(bound.ranges)
        if body.op in ("mean", "argmax", "argmin"):
            raise self._error(Fault("E212", f"`{body.op}` cannot combine the contributions of a scatter"), body, domain)
        target = self.facts.target(einsum)
        with self._hoisting(body.body, domain, self.partitions.existing(domain)):
            for block in domain.blocks(BLOCK):
                existing = self.partitions.existing(block)
                values = np.broadcast_to(self.value(body.body, block, existing), block.shape)
                places = [
                    np.broadcast_to(self._index(target, axis, out.shape[axis], block, existing), block.shape)
                    for axis in range(out.ndim)
                ]
                if existing is not None:
                    kept = np.broadcast_to(existing, block.shape)
                    values, places = values[kept], [place[kept] for place in places]
                self._combine(out, tuple(places), values, body, block)

    def _fits(self, out: Array, values: Array, op: str) -> bool:
        """Can no element of an integer target leave 64 bits when these contributions are added?"""
        most = [max(abs(limit) for limit in limits(array)) for array in (out, values)]
        return op == "sum" and most[0] + values.size * most[1] <= INT_MAX

    def _combine(self, out: Array, places: tuple[Array, ...], values: Array, body: Reduce, block: Domain) -> None:
        if out.dtype == np.int64 and values.dtype == np.float64:
            values = self._integers(values, None)
        elif out.dtype == np.bool_:
            values = truth(values)
        if out.dtype == np.int64 and body.op in ("sum", "prod") and not self._fits(out, values, body.op):
            exact = out.astype(object)
            COMBINE[body.op].at(exact, places, values.astype(object))
            try:
                out[...] = narrowed(exact, None)
            except Fault as fault:
                raise self._error(fault, body, block) from None
            return
        COMBINE[body.op].at(out, places, values.astype(out.dtype, copy=False))


def _part(values: Array, domain: Domain, part: Domain) -> Array:
    """The part of an array of the domain's shape, as a view."""
    places: list[Any] = [slice(part.ranges[name][0] - low, part.ranges[name][1] - low) for name, (low, _) in domain.ranges.items()]
    return np.asarray(values[(*places, ...)])


def _append(values: Array, count: int) -> Array:
    """The array with further dimensions of length 1 at its end."""
    return values.reshape(values.shape + (1,) * count)


def _finite(values: Array, ranks: tuple[str, ...] = ()) -> None:
    if values.size and not (math.isfinite(values.min()) and math.isfinite(values.max())):
        raise _NotFinite(ranks)
