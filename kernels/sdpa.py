"""Is a cascade the attention that torch has a function for? Found out by comparing the two on small shapes.

In: a cascade. Out: an `Sdpa`: which inputs are queries, keys and values, and the options of
`torch.nn.functional.scaled_dot_product_attention` that make it the same function; or None. Nothing looks at a name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import EinsmithError

LENGTHS = (2, 5, 7, 3, 4)
"""Sizes of the comparison: small, different, some with more queries than keys and some with fewer."""
TOLERANCE = 1e-9
"""Greatest distance of the two in float64, relative and absolute."""


@dataclass(frozen=True)
class Sdpa:
    """How to call torch's function."""

    query: str
    """Input that is the queries."""
    key: str
    value: str
    causal: bool
    """Are keys after the query left out?"""
    grouped: bool
    """Are there fewer heads of keys than of queries?"""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention(
            inputs[self.query], inputs[self.key], inputs[self.value], is_causal=self.causal, enable_gqa=self.grouped
        )


def as_sdpa(cascade: Cascade, params: Mapping[str, int | float] | None = None) -> Sdpa | None:
    """The call that gives the same output; None if there is none."""
    if len(cascade.inputs) != 3 or len(cascade.outputs) != 1:
        return None
    if any(t.dtype != "float" or len(t.ranks) != 4 for t in (*cascade.inputs, cascade.tensor(cascade.outputs[0]))):
        return None
    found = list(_calls(cascade))
    for shift in range(2):
        values = (*LENGTHS[shift:], *LENGTHS[:shift])
        sizes = {name: values[number % len(values)] for number, name in enumerate(cascade.symbols)}
        if found:
            found = _that_agree(found, cascade, sizes, params, seed=shift)
    return found[0] if found else None


def _calls(cascade: Cascade) -> Iterator[Sdpa]:
    for query, key, value in itertools.permutations(t.name for t in cascade.inputs):
        for causal, grouped in itertools.product((False, True), repeat=2):
            yield Sdpa(query, key, value, causal, grouped)


def _that_agree(
    calls: list[Sdpa], cascade: Cascade, sizes: Mapping[str, int], params: Mapping[str, int | float] | None, seed: int
) -> list[Sdpa]:  # fmt: skip
    """The calls that give the cascade's output on random inputs."""
    import numpy as np
    import torch

    from ..einsum import interpret

    try:
        inputs = interpret.random_inputs(cascade, sizes, params, np.random.default_rng(seed))
        expected = interpret.evaluate(cascade, inputs, sizes, params)[cascade.outputs[0]]
    except EinsmithError:
        return []
    tensors = {name: torch.from_numpy(np.asarray(array, dtype=np.float64)) for name, array in inputs.items()}
    agreeing = []
    for call in calls:
        q, k, v = (tensors[name].shape for name in (call.query, call.key, call.value))
        fits = q[0] == k[0] == v[0] and q[3] == k[3] and k[2] == v[2] and k[1] == v[1] and (q[1] == k[1]) != call.grouped
        if not fits or q[1] % k[1]:
            continue
        found = call(tensors).numpy()
        if found.shape == expected.shape and np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            agreeing.append(call)
    return agreeing
