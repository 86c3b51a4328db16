"""Plain torch in float64, one function per example file, written from the papers and importing nothing of einsmith.

A function has the file's name with underscores. Its arguments are the inputs of the file, then its parameters and those extents that
the shapes do not tell; it returns the one output. Directness before speed: masks as dense matrices, recurrences as loops.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

INF = float("inf")


def softmax_rows(scores: Tensor, dim: int = -1) -> Tensor:
    """Softmax in which a row without any finite score gives zeros."""
    top = scores.amax(dim, keepdim=True)
    weights = torch.exp(scores - torch.where(top == -INF, torch.zeros_like(top), top))
    total = weights.sum(dim, keepdim=True)
    return weights / torch.where(total == 0, torch.ones_like(total), total)


def shares(weights: Tensor) -> Tensor:
    """Rows divided by their sums; a row of zeros stays zero."""
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, torch.ones_like(total), total)


def scores_of(Q: Tensor, K: Tensor) -> Tensor:
    """Q K^T / sqrt(E) over the last two dimensions."""
    return Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])


def positions(P: int, M: int) -> tuple[Tensor, Tensor]:
    """Query and key positions as a column and a row."""
    return torch.arange(P)[:, None], torch.arange(M)[None, :]


def hide_later_keys(scores: Tensor, causal: int = 1) -> Tensor:
    """Scores of keys after the query set to -inf."""
    p, m = positions(*scores.shape[-2:])
    return scores.masked_fill((m > p) & bool(causal), -INF)


# --- softmax and its forms --------------------------------------------------------------------------------------------


def softmax(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax_rows(scores_of(Q, K)) @ V


deferred_division = tile_local_2pass = tile_local_merge = fusemax = softmax


def softmax_causal(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax_rows(hide_later_keys(scores_of(Q, K))) @ V


def softmax_cross(Q: Tensor, K: Tensor, V: Tensor, N: Tensor) -> Tensor:
    padding = torch.arange(K.shape[2]) >= N[:, None, None, None]
    return softmax_rows(scores_of(Q, K).masked_fill(padding, -INF)) @ V


def flash2(Q: Tensor, K: Tensor, V: Tensor, causal: int = 0) -> Tensor:
    return softmax_rows(hide_later_keys(scores_of(Q, K), causal)) @ V


def gqa(Q: Tensor, K: Tensor, V: Tensor, causal: int = 0) -> Tensor:
    group = Q.shape[1] // K.shape[1]
    K, V = K.repeat_interleave(group, 1), V.repeat_interleave(group, 1)
    return softmax_rows(hide_later_keys(scores_of(Q, K), causal)) @ V


def mqa(Q: Tensor, K: Tensor, V: Tensor, causal: int = 0) -> Tensor:
    return softmax_rows(hide_later_keys(scores_of(Q, K[:, None]), causal)) @ V[:, None]


def varlen(Q: Tensor, K: Tensor, V: Tensor, SP: Tensor, SM: Tensor, causal: int = 0) -> Tensor:
    scores = scores_of(Q, K).masked_fill(SP[:, None] != SM[None, :], -INF)
    return softmax_rows(hide_later_keys(scores, causal)) @ V


def reversed(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax_rows(scores_of(Q, K), dim=-2) @ V


def channel(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    weights = softmax_rows(Q.transpose(-1, -2) @ K / math.sqrt(Q.shape[-1]))
    return (weights @ V.transpose(-1, -2)).transpose(-1, -2)


def alibi(Q: Tensor, K: Tensor, V: Tensor, causal: int = 1) -> Tensor:
    heads = Q.shape[1]
    slopes = torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)], dtype=torch.float64)
    p, m = positions(Q.shape[2], K.shape[2])
    scores = scores_of(Q, K) - slopes[:, None, None] * (p - m).abs()
    return softmax_rows(hide_later_keys(scores, causal)) @ V


def softcap(Q: Tensor, K: Tensor, V: Tensor, cap: float = 50.0, causal: int = 0) -> Tensor:
    return softmax_rows(hide_later_keys(cap * torch.tanh(scores_of(Q, K) / cap), causal)) @ V


def sink(Q: Tensor, K: Tensor, V: Tensor, Z: Tensor, causal: int = 0) -> Tensor:
    scores = hide_later_keys(scores_of(Q, K), causal)
    extra = Z[None, :, None, None].expand(*scores.shape[:-1], 1)
    return softmax_rows(torch.cat([scores, extra], -1))[..., :-1] @ V


def differential(
    Q1: Tensor, K1: Tensor, Q2: Tensor, K2: Tensor, V: Tensor,
    LQ1: Tensor, LK1: Tensor, LQ2: Tensor, LK2: Tensor, init: float = 0.8, causal: int = 0,
) -> Tensor:  # fmt: skip
    weight = torch.exp(LQ1 @ LK1) - torch.exp(LQ2 @ LK2) + init
    first = softmax_rows(hide_later_keys(scores_of(Q1, K1), causal))
    second = softmax_rows(hide_later_keys(scores_of(Q2, K2), causal))
    return (first - weight * second) @ V


def topk_attention(Q: Tensor, K: Tensor, V: Tensor, J: int, causal: int = 0) -> Tensor:
    scores = hide_later_keys(scores_of(Q, K), causal)
    kept = scores.sort(dim=-1, descending=True, stable=True).indices[..., :J]
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, kept, True)
    return softmax_rows(scores.masked_fill(~chosen, -INF)) @ V


# --- windows ----------------------------------------------------------------------------------------------------------


def sliding_window(Q: Tensor, K: Tensor, V: Tensor, W: int, causal: int = 0) -> Tensor:
    p, m = positions(Q.shape[2], K.shape[2])
    far = ((p - m).abs() > W) | ((m > p) & bool(causal))
    return softmax_rows(scores_of(Q, K).masked_fill(far, -INF)) @ V


def neighbours(length: int, window: int, dilation: int) -> Tensor:
    """Mask [query, key] of dilated neighbourhoods, by the case distinction of the NATTEN kernels."""
    half = window // 2
    mask = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        if i - half * dilation < 0:
            start = i % dilation
        elif i + (window - 1 - half) * dilation >= length:
            last = max(j for j in range(length) if j % dilation == i % dilation)
            start = last - (window - 1) * dilation
        else:
            start = i - half * dilation
        mask[i, start : start + window * dilation : dilation] = True
    return mask


def na1d(Q: Tensor, K: Tensor, V: Tensor, W: int, D: int = 1) -> Tensor:
    return softmax_rows(scores_of(Q, K).masked_fill(~neighbours(Q.shape[2], W, D), -INF)) @ V


def na1d_causal(Q: Tensor, K: Tensor, V: Tensor, W: int, D: int = 1) -> Tensor:
    p, m = positions(Q.shape[2], K.shape[2])
    seen = (m <= p) & ((p - m) % D == 0) & ((p - m) // D < W)
    return softmax_rows(scores_of(Q, K).masked_fill(~seen, -INF)) @ V


# --- other normalisers ------------------------------------------------------------------------------------------------


def sigmoid(Q: Tensor, K: Tensor, V: Tensor, causal: int = 0) -> Tensor:
    weights = torch.sigmoid(hide_later_keys(scores_of(Q, K) - math.log(K.shape[2]), causal))
    return weights @ V


def softplus_lssa(Q: Tensor, K: Tensor, V: Tensor, power: float = 15, causal: int = 0) -> Tensor:
    p, m = positions(Q.shape[2], K.shape[2])
    seen = (m <= p) if causal else (m >= 0).expand(Q.shape[2], -1)
    count = seen.sum(-1, keepdim=True).to(torch.float64)
    similarity = torch.nn.functional.normalize(Q, dim=-1, eps=0) @ torch.nn.functional.normalize(K, dim=-1, eps=0).transpose(-1, -2)
    weights = torch.log1p(torch.exp(math.log(Q.shape[-1]) * torch.log(count) * similarity)) * seen
    shift = (count > 3).to(torch.float64)
    return shares(torch.relu(shares(weights) * count - shift) ** power) @ V


# --- linear -----------------------------------------------------------------------------------------------------------


def elu_plus_one(x: Tensor) -> Tensor:
    """elu(x) + 1 without the cancellation of exp(x) - 1 + 1."""
    return torch.where(x > 0, x + 1, torch.exp(x))


def linear(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return shares(elu_plus_one(Q) @ elu_plus_one(K).transpose(-1, -2)) @ V


linear_reassociated = linear


def linear_causal(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return shares(torch.tril(elu_plus_one(Q) @ elu_plus_one(K).transpose(-1, -2))) @ V


def retention(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    heads, length = Q.shape[1], Q.shape[2]
    gamma = 1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float64))
    p, m = positions(length, length)
    decay = torch.tril(gamma[:, None, None] ** (p - m).clamp(min=0))
    return scores_of(Q, K) * decay @ V


def retention_parallel(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    heads, length = Q.shape[1], Q.shape[2]
    gamma = 1 - 2.0 ** (-5 - torch.arange(heads, dtype=torch.float64))
    state = torch.zeros(*K.shape[:2], K.shape[-1], V.shape[-1], dtype=torch.float64)
    out = []
    for t in range(length):
        state = gamma[:, None, None] * state + K[:, :, t, :, None] * V[:, :, t, None, :]
        out.append(Q[:, :, t, None, :] @ state / math.sqrt(Q.shape[-1]))
    return torch.cat(out, -2)


def aaren(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    scores = (K @ Q[:, :, None] / math.sqrt(Q.shape[-1]))[..., 0]
    return torch.stack([softmax_rows(scores[..., None, : n + 1])[..., 0, :, None].mul(V[:, :, : n + 1]).sum(-2) for n in range(K.shape[2])], -2)


# --- norms ------------------------------------------------------------------------------------------------------------


def rms_norm_matmul(X: Tensor, G: Tensor, W: Tensor, epsilon: float = 1e-6) -> Tensor:
    return (X / torch.sqrt((X**2).mean(-1, keepdim=True) + epsilon) * G) @ W


def layer_norm_matmul(X: Tensor, G: Tensor, C: Tensor, W: Tensor, epsilon: float = 1e-5) -> Tensor:
    return torch.nn.functional.layer_norm(X, X.shape[-1:], G, C, epsilon) @ W


# --- small cascades ---------------------------------------------------------------------------------------------------


def cumsum(X: Tensor) -> Tensor:
    return torch.cumsum(X, -1)


def total_share(X: Tensor) -> Tensor:
    return X / X.sum(-1, keepdim=True)


def forward_backward(X: Tensor) -> Tensor:
    return torch.cumsum(torch.cumsum(X, -1).flip(-1), -1)


def hidden_markov(O: Tensor, X: Tensor, I: Tensor) -> Tensor:  # noqa: E741 - the names of the file
    """By enumeration of all paths, weighted by their probability."""
    batch, length, states = O.shape
    posterior = torch.zeros_like(O)
    for path in torch.cartesian_prod(*[torch.arange(states)] * length).reshape(-1, length):
        weight = I[path[0]] * torch.stack([X[a, b] for a, b in zip(path[:-1], path[1:], strict=True)] + [torch.tensor(1.0)]).prod()
        weight = weight * O[:, torch.arange(length), path].prod(-1)
        for t in range(length):
            posterior[:, t, path[t]] += weight
    return posterior / posterior.sum(-1, keepdim=True)


def online_normaliser(Q: Tensor, K: Tensor) -> Tensor:
    return softmax_rows(Q @ K.T) @ K


def rms_norm(X: Tensor, G: Tensor, epsilon: float = 1e-6) -> Tensor:
    return X / torch.sqrt((X**2).mean(-1, keepdim=True) + epsilon) * G


def variance(X: Tensor) -> Tensor:
    return X.var(-1, correction=0)


def convolution(X: Tensor, C1: Tensor, C2: Tensor) -> Tensor:
    half = C1.shape[0] // 2
    once = torch.nn.functional.conv1d(X[:, None], C1[None, None], padding=half)
    return torch.nn.functional.conv1d(once, C2[None, None], padding=half)[:, 0]


def histogram(X: Tensor, I: Tensor, C: int) -> Tensor:  # noqa: E741
    return torch.stack([torch.where(I == c, X, 0).sum(-1) for c in range(C)], -1)
