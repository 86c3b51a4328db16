"""Mean as sum: a mean over the fiber is a sum, divided by the number of elements.

before    Y[p] = mean[m](X[p,m])
after     Y_sum[p] = sum[m](X[p,m])
          Y[p]     = Y_sum[p] / M
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Expr, Reduce, Tensor
from .algebra import product
from .fiber import Fiber
from .step import Rewritten, Step, coords, fresh, replaced, shown, taken_names, text

NAME = "mean-as-sum"


def mean_as_sum(cascade: Cascade, target: str, rank: str) -> Rewritten | None:
    """Write the mean that defines `target` as a sum."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op != "mean":
        return None
    einsum, reduce = definitions[0], definitions[0].body
    if not Fiber(cascade, rank).completes(einsum):
        return None
    count = _count(reduce, cascade)
    ranks = cascade.tensor(target).ranks
    name = fresh(f"{target}_sum", taken_names(cascade))
    total = replace(einsum, output=name, body=replace(reduce, op="sum"))
    from .algebra import divide

    new = (total, replace(einsum, body=divide(Access(name, coords(ranks)), count)))
    after = replaced(cascade, target, new, (Tensor(name, ranks),))
    step = Step(
        NAME, target, shown([einsum], cascade), f"mean(x) = sum(x) / {text(count)}", "the fiber is not empty", shown(new, after)
    )
    return Rewritten(after, step)


def _count(reduce: Reduce, cascade: Cascade) -> Expr:
    """Number of points; both parts of a split rank together count as the rank."""
    ranks = list(reduce.ranks)
    for split in cascade.domain_splits(frozenset(ranks)):
        assert split.split is not None
        ranks = [rank for rank in ranks if rank not in (split.split.outer, split.split.inner)] + [split.name]
    return product(tuple(cascade.rank(rank).extent for rank in ranks))
