"""Contractions: sums of products as a sequence of batched matrix products.

In: the factors of a product, each an array with named ranks, the ranks of the result, and a bound on temporaries. Out: the sum
over all other ranks. Pairs of factors are contracted smallest result first. Reassociation is exact only for finite numbers, so
the caller checks that the factors and the result are finite and else evaluates by the definition.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .arithmetic import Array


@dataclass(frozen=True)
class Factor:
    """An array and the rank along each of its dimensions."""

    ranks: tuple[str, ...]
    values: Array


Pair = tuple[int, int]


@dataclass(frozen=True)
class Path:
    """Which pair of terms to contract, step by step (the result goes to the end), and the ranks of each result but the last."""

    pairs: tuple[Pair, ...]
    intermediates: tuple[frozenset[str], ...]


MOST_TERMS = 24
"""Beyond so many factors only neighbours are considered as pairs."""


def plan(terms: Sequence[frozenset[str]], result: frozenset[str], lengths: Mapping[str, int]) -> Path:
    """Greedy: contract next the pair with the smallest result, of those the one with the least work."""
    left = list(terms)
    uses = Counter(rank for term in terms for rank in term)
    uses.update(result)
    pairs: list[Pair] = []
    intermediates: list[frozenset[str]] = []

    def joined(a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
        return frozenset(rank for rank in a | b if uses[rank] > (rank in a) + (rank in b))

    while len(left) > 1:
        near = 2 if len(left) > MOST_TERMS else len(left)
        candidates = [(i, j) for i in range(len(left)) for j in range(i + 1, min(len(left), i + near))]
        costs = {}
        for i, j in candidates:
            kept, whole = joined(left[i], left[j]), left[i] | left[j]
            costs[i, j] = math.prod(lengths[rank] for rank in kept), math.prod(lengths[rank] for rank in whole)
        i, j = min(candidates, key=costs.__getitem__)
        kept = joined(left[i], left[j])
        uses.subtract(left[i])
        uses.subtract(left[j])
        uses.update(kept)
        left = [term for k, term in enumerate(left) if k not in (i, j)] + [kept]
        pairs.append((i, j))
        intermediates.append(kept)
    return Path(tuple(pairs), tuple(intermediates[:-1]))


def contract(factors: Sequence[Factor], result: frozenset[str], path: Path) -> Factor:
    """The sum over all ranks that are not in `result` of the product of the factors."""
    left = [_summed(factor, result.union(*(f.ranks for k, f in enumerate(factors) if k != i))) for i, factor in enumerate(factors)]
    for i, j in path.pairs:
        others = result.union(*(left[k].ranks for k in range(len(left)) if k not in (i, j)))
        product = multiply(left[i], left[j], others)
        left = [factor for k, factor in enumerate(left) if k not in (i, j)] + [product]
    return _summed(left[0], result)


def _summed(factor: Factor, kept: frozenset[str]) -> Factor:
    gone = tuple(axis for axis, rank in enumerate(factor.ranks) if rank not in kept)
    if not gone:
        return factor
    return Factor(tuple(rank for rank in factor.ranks if rank in kept), np.asarray(factor.values.sum(axis=gone)))


def multiply(a: Factor, b: Factor, kept: frozenset[str]) -> Factor:
    """The product of two factors, summed over their common ranks that are not kept."""
    a, b = _summed(a, kept | set(b.ranks)), _summed(b, kept | set(a.ranks))
    batch = tuple(rank for rank in a.ranks if rank in b.ranks and rank in kept)
    inner = tuple(rank for rank in a.ranks if rank in b.ranks and rank not in kept)
    rows = tuple(rank for rank in a.ranks if rank not in b.ranks)
    columns = tuple(rank for rank in b.ranks if rank not in a.ranks)
    lengths = dict(zip(a.ranks, a.values.shape, strict=True)) | dict(zip(b.ranks, b.values.shape, strict=True))

    def arranged(factor: Factor, *groups: tuple[str, ...]) -> Array:
        order = [factor.ranks.index(rank) for group in groups for rank in group]
        return factor.values.transpose(order).reshape([math.prod(lengths[rank] for rank in group) for group in groups])

    if not inner:
        left, right = arranged(a, batch, rows)[:, :, None], arranged(b, batch, columns)[:, None, :]
        product = np.asarray(left * right)
    elif not rows and not columns:
        product = np.einsum("bi,bi->b", arranged(a, batch, inner), arranged(b, batch, inner))
    else:
        product = np.matmul(arranged(a, batch, rows, inner), arranged(b, batch, inner, columns))
    ranks = batch + rows + columns
    return Factor(ranks, product.reshape([lengths[rank] for rank in ranks]))
