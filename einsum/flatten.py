"""Nested reductions as Einsums of their own.

In: any cascade. Out: a cascade with the same meaning in which the body of each Einsum is one of

* a map expression (no reduction, scan or selection inside),
* a `Reduce`, `Scan` or `Select` whose own body is such a map expression.

Every later stage (analysis, rewrites, mappings, kernels) starts from this form. Before and after:

    Y[p] = sum[m](exp(X[p,m])) / Z[p]          Y_1[p] = sum[m](exp(X[p,m]))
                                               Y[p] = Y_1[p] / Z[p]

A reduction taken out of a branch of `where` keeps the condition, so that nothing is accessed that was not before.
"""

from __future__ import annotations

from dataclasses import replace

from .cascade import (
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Reduce,
    Scan,
    Select,
    Tensor,
    children,
    fact,
    free_ranks,
    rebuild,
    remembered,
)  # fmt: skip
from .dtypes import with_dtypes

IDENTITY: dict[str, Expr] = {
    "sum": Number(0), "mean": Number(0), "prod": Number(1), "max": Map("neg", (Number(float("inf")),)), "min": Number(float("inf")),
    "any": Number(0), "all": Number(1), "cumsum": Number(0), "cumprod": Number(1), "cummax": Map("neg", (Number(float("inf")),)),
}  # fmt: skip
"""Value of an empty reduction; what is put in place of points that are not accessed."""


@fact
def is_flat(expr: Expr) -> bool:
    """No reduction, scan or selection anywhere inside."""
    return not isinstance(expr, Reduce | Scan | Select) and all(is_flat(part) for part in children(expr))


@remembered
def flatten(cascade: Cascade) -> Cascade:
    """The cascade with every nested reduction named; the same object if there is none."""
    if all(_flat_einsum(einsum) for einsum in cascade.einsums):
        return cascade
    return _Flattener(cascade).run()


def _flat_einsum(einsum: Einsum) -> bool:
    body = einsum.body
    inner = body.body if isinstance(body, Reduce | Scan | Select) else body
    return is_flat(inner) and all(is_flat(index) for index in einsum.indices)


def conjuncts(condition: Expr) -> tuple[Expr, ...]:
    """The parts of a condition that must all hold."""
    if isinstance(condition, Map) and condition.op == "and":
        return (*conjuncts(condition.args[0]), *conjuncts(condition.args[1]))
    return (condition,)


def _bound(expr: Reduce | Scan | Select) -> frozenset[str]:
    return frozenset(expr.ranks) if isinstance(expr, Reduce) else frozenset((expr.rank,))


def _around(einsum: Einsum, body: Expr | None = None) -> frozenset[str]:
    """Ranks at whose points the body of an Einsum, or of its outermost reduction, is evaluated."""
    outer = frozenset().union(*(free_ranks(index) for index in einsum.indices))
    return outer if not isinstance(body, Reduce | Scan | Select) else outer | _bound(body)


class _Flattener:
    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.tensors: list[Tensor] = []
        self.einsums: list[Einsum] = []
        self.taken = {t.name for t in cascade.tensors} | {r.name for r in cascade.ranks} | {n for n, _ in cascade.params}
        self.taken |= set(cascade.symbols) | set(cascade.counts)

    def run(self) -> Cascade:
        defined: set[str] = set()
        self.tensors = list(self.cascade.inputs)
        for einsum in self.cascade.einsums:
            body = einsum.body
            if isinstance(body, Reduce | Scan | Select):
                body = rebuild(body, (self._hoist(body.body, einsum.output, (), _around(einsum, body)),))
            else:
                body = self._hoist(body, einsum.output, (), _around(einsum))
            if einsum.output not in defined:
                defined.add(einsum.output)
                self.tensors.append(self.cascade.tensor(einsum.output))
            self.einsums.append(replace(einsum, body=body))
        return with_dtypes(replace(self.cascade, tensors=tuple(self.tensors), einsums=tuple(self.einsums)))

    def _hoist(self, expr: Expr, owner: str, guards: tuple[Expr, ...], around: frozenset[str]) -> Expr:
        """`expr` with its reductions replaced by accesses to new tensors; `guards` are the conditions it stands under, `around`
        the ranks at whose points it is evaluated."""
        if isinstance(expr, Reduce | Scan | Select):
            inner = self._hoist(expr.body, owner, (), around | _bound(expr))
            return self._name(replace(expr, body=inner), owner, guards, around)
        if isinstance(expr, Map) and expr.op == "where":
            condition = self._hoist(expr.args[0], owner, guards, around)
            yes = self._hoist(expr.args[1], owner, (*guards, condition), around)
            no = self._hoist(expr.args[2], owner, (*guards, Map("not", (condition,))), around)
            return replace(expr, args=(condition, yes, no))
        return rebuild(expr, tuple(self._hoist(part, owner, guards, around) for part in children(expr)))

    def _mates(self, bound: frozenset[str], around: frozenset[str]) -> frozenset[str]:
        """Ranks around a reduction that decide which of its points exist: the other parts of what it binds."""
        parts = [{rank.split.outer, rank.split.inner} for rank in self.cascade.ranks if rank.split is not None]
        return frozenset().union(*(pair - bound for pair in parts if pair & bound)) & around

    def _name(self, expr: Reduce | Scan | Select, owner: str, guards: tuple[Expr, ...], around: frozenset[str]) -> Access:
        if guards and not isinstance(expr, Select) and expr.op in IDENTITY:
            body = expr.body
            bound = set(expr.ranks) if isinstance(expr, Reduce) else {expr.rank}
            for guard in reversed([part for whole in guards for part in conjuncts(whole)]):
                if bound & free_ranks(guard):
                    continue  # about a coordinate outside of the reduction, or of the whole scan
                body = Map("where", (guard, body, IDENTITY[expr.op]))
            expr = rebuild(expr, (body,))  # type: ignore[assignment]
        needed = free_ranks(expr) | self._mates(_bound(expr), around)
        ranks = tuple(sorted(needed, key=self.cascade.rank_order.__getitem__))
        number = 1
        while f"{owner}_{number}" in self.taken:
            number += 1
        name = f"{owner}_{number}"
        self.taken.add(name)
        self.tensors.append(Tensor(name, ranks, span=expr.span))
        self.einsums.append(Einsum(name, tuple(Coord(rank) for rank in ranks), expr, span=expr.span))
        return Access(name, tuple(Coord(rank) for rank in ranks), span=expr.span)
