"""Contractions: sums of products as a sequence of batched matrix products.

In: the factors of a product, each an array with named ranks, the ranks of the result, and a bound on temporaries. Out: the sum
over all other ranks. Pairs of factors are contracted smallest result first. Reassociation is exact only for finite numbers, so
the caller checks that the factors and the result are finite and else evaluates by the definition.
"""

from __future__ import annotations

import math
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


def plan(terms: Sequence[frozenset[str]], result: frozenset[str], lengths: Mapping[str, int]) -> Path:
    """Greedy: contract next the pair with the smallest result."""
    left = list(terms)
    pairs: list[Pair] = []
    intermediates: list[frozenset[str]] = []
    while len(left) > 1:
        best: tuple[int, int, Pair, frozenset[str]] | None = None
        for i in range(len(left)):
            for j in range(i + 1, len(left)):
                others = result.union(*(left[k] for k in range(len(left)) if k not in (i, j)))
                joined = (left[i] | left[j]) & others
                size = math.prod(lengths[rank] for rank in joined)
                work = math.prod(lengths[rank] for rank in left[i] | left[j])
                if best is None or (size, work) < best[:2]:
                    best = (size, work, (i, j), joined)
        assert best is not None
        _, _, (i, j), joined = best
        left = [term for k, term in enumerate(left) if k not in (i, j)] + [joined]
        pairs.append((i, j))
        intermediates.append(joined)
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
