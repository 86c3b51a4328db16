"""What a rewrite answers: the cascade after it with one step of proof, or a refusal with the place and the reason.

A rewrite is a pure function from a flat cascade (and a target in it) to `Rewritten`, `Refused`, or None where it does not match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..cascade import Cascade, Coord, Einsum, Expr, Map, Tensor
from ..dtypes import with_dtypes


@dataclass(frozen=True)
class Step:
    """One step of a proof, in the notation of the spec language."""

    rewrite: str
    target: str
    before: str
    rule: str
    condition: str
    after: str

    def as_json(self) -> dict[str, object]:
        return {
            "rewrite": self.rewrite, "target": self.target, "before": self.before,
            "rule": self.rule, "condition": self.condition, "after": self.after,
        }  # fmt: skip


@dataclass(frozen=True)
class Rewritten:
    """A cascade of the same meaning and why it is one. `state`: the running state that was introduced, if any."""

    cascade: Cascade
    step: Step
    state: str | None = None


@dataclass(frozen=True)
class Refused:
    """Why a rewrite does not apply where it was asked to."""

    rewrite: str
    target: str
    expr: Expr
    reason: str
    depends_on: tuple[str, ...] = ()


def shown(einsums: Sequence[Einsum], cascade: Cascade) -> str:
    """Einsums as the user would write them, one a line."""
    from ..printer import print_einsum

    return "\n".join(print_einsum(einsum, cascade) for einsum in einsums)


def text(expr: Expr) -> str:
    """An expression as the user would write it."""
    from ..printer import print_expr

    return print_expr(expr)


def taken_names(cascade: Cascade) -> set[str]:
    """The one name space: ranks, extents, parameters, tensors."""
    names = {tensor.name for tensor in cascade.tensors} | {rank.name for rank in cascade.ranks}
    return names | {name for name, _ in cascade.params} | set(cascade.symbols) | set(cascade.counts)


def fresh(base: str, taken: set[str]) -> str:
    """`base`, or `base_2`, `base_3`... if that is taken. The name is taken from then on."""
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def in_order(ranks: frozenset[str], cascade: Cascade) -> tuple[str, ...]:
    return tuple(sorted(ranks, key=cascade.rank_order.__getitem__))


def coords(ranks: tuple[str, ...]) -> tuple[Expr, ...]:
    return tuple(Coord(rank) for rank in ranks)


def next_position(rank: str) -> Expr:
    from .algebra import ONE

    return Map("+", (Coord(rank), ONE))


def replaced(cascade: Cascade, output: str, new: Sequence[Einsum], tensors: Sequence[Tensor]) -> Cascade:
    """The plain Einsum of `output` replaced by `new`, in its place; `tensors` are declared in the order of definition."""
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        einsums.extend(new if einsum.output == output else (einsum,))
    return reordered(replace(cascade, einsums=tuple(einsums), tensors=(*cascade.tensors, *tensors)))


def reordered(cascade: Cascade) -> Cascade:
    """Tensors in the IR's order (inputs first, then in order of definition), those without a definition dropped, dtypes
    inferred."""
    known = {tensor.name: tensor for tensor in cascade.tensors}
    names = dict.fromkeys((*(t.name for t in cascade.inputs), *(einsum.output for einsum in cascade.einsums)))
    after = with_dtypes(replace(cascade, tensors=tuple(known[name] for name in names)))
    return cascade if after.tensors == cascade.tensors else after


def derived_doc(cascade: Cascade, what: str) -> str:
    """What a derived cascade is; then, as a quotation, the original's own words, which may count its passes."""
    own = cascade.doc.strip("\n")
    head = f"Derived from {cascade.name or 'another cascade'}: {what}."
    return f"{head} Of the original:\n{own}\n" if own else f"{head}\n"
