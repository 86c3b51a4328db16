"""Mean as sum: a mean over the fiber is a sum, divided by the number of elements.

before    Y[p] = mean[m](X[p,m])
after     Y_sum[p] = sum[m](X[p,m])
          Y[p]     = Y_sum[p] / M

If other reductions are to run beside the mean, the number is counted: then the running value of the mean is that of what has been
seen.

after     Y_sum[p] = sum[m](X[p,m])
          Y_count  = sum[m](1)
          Y[p]     = Y_sum[p] / Y_count
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Access, Cascade, Einsum, Expr, Reduce, Tensor
from .algebra import ONE, divide, product
from .fiber import Fiber
from .step import Rewritten, Step, coords, fresh, replaced, shown, taken_names, text

NAME = "mean-as-sum"


def mean_as_sum(cascade: Cascade, target: str, rank: str, counted: bool = False) -> Rewritten | None:
    """Write the mean that defines `target` as a sum."""
    definitions = cascade.definitions(target)
    if len(definitions) != 1 or not isinstance(definitions[0].body, Reduce) or definitions[0].body.op != "mean":
        return None
    einsum, reduce = definitions[0], definitions[0].body
    if not Fiber(cascade, rank).completes(einsum):
        return None
    ranks, taken = cascade.tensor(target).ranks, taken_names(cascade)
    name = fresh(f"{target}_sum", taken)
    new = [replace(einsum, output=name, body=replace(reduce, op="sum"))]
    tensors = [Tensor(name, ranks)]
    count = _count(reduce, cascade)
    if counted:
        counter = fresh(f"{target}_count", taken)
        tensors.append(Tensor(counter, (), "int"))
        new.append(Einsum(counter, (), replace(reduce, op="sum", body=ONE)))
        count = Access(counter, ())
    new.append(replace(einsum, body=divide(Access(name, coords(ranks)), count)))
    after = replaced(cascade, target, new, tensors)
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
