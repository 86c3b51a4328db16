"""The value of a cascade in float32: every result of an operation, every partial sum and every stored element.

In: what `interpret.evaluate` takes. Out: the outputs. Each operation is computed in float64 and rounded to float32, which for
+ - * / and sqrt is the float32 result itself; what is beyond its range becomes inf or, near 0, a subnormal number or 0. Sums and
products are accumulated in float32, in one order of the many that a machine may take; products of sums are formed element by
element, as they are written. Coordinates and other integers stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..cascade import Cascade, Expr, Reduce
from ..domain import Domain
from ..inputs import as_arrays, checked, infer_sizes
from ..interpret import Evaluator
from ..sizes import bind

Array = np.ndarray[Any, Any]


def evaluate(
    cascade: Cascade, inputs: Mapping[str, Array], sizes: Mapping[str, int] | None = None, *, keep: Sequence[str] = ()
) -> dict[str, Array]:
    """Values of the outputs and of the tensors named in `keep`, all of them float32 numbers."""
    arrays = as_arrays(inputs)
    bound = bind(cascade, infer_sizes(cascade, arrays, sizes, None))
    tensors = {name: rounded(values) for name, values in checked(cascade, arrays, bound).items()}
    evaluator = SinglePrecision(cascade, bound, tensors)
    wanted = frozenset((*cascade.outputs, *keep))
    with np.errstate(all="ignore"):
        evaluator.run(wanted)
    return {name: evaluator.tensors[name] for name in wanted}


def rounded(values: Array) -> Array:
    """The nearest float32 numbers, as float64."""
    if values.dtype != np.float64:
        return values
    with np.errstate(all="ignore"):
        return values.astype(np.float32).astype(np.float64)


class SinglePrecision(Evaluator):
    """The interpreter, with rounding."""

    def value(self, expr: Expr, domain: Domain, active: Array | None) -> Array:
        return rounded(super().value(expr, domain, active))

    def _contraction(self, expr: Reduce, free: Domain, active: Array | None) -> Array | None:
        return None  # no matrix products: they would be exact until they are stored

    def _points(self, expr: Reduce, domain: Domain, active: Array | None, bound: Domain) -> tuple[Array, Array | None]:
        values, existing = super()._points(expr, domain, active, bound)
        accumulates = expr.op in ("sum", "prod") and values.dtype == np.float64
        return values.astype(np.float32) if accumulates else values, existing
