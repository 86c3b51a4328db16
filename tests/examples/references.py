"""Plain torch in float64, one function per example file, written from the papers and importing nothing of einsmith.

A function has the file's name with underscores. Its arguments are the inputs of the file, then its parameters and those extents
that the shapes do not tell; it returns the output (a second one, of a number a row, as one more column). Directness before speed:
masks as dense matrices, recurrences as loops.
"""

from __future__ import annotations

import itertools
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


def softmax_lse(Q: Tensor, K: Tensor, V: Tensor, causal: int = 0) -> Tensor:
    scores = hide_later_keys(scores_of(Q, K), causal)
    return torch.cat([torch.softmax(scores, -1) @ V, torch.logsumexp(scores, -1, keepdim=True)], -1)


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
    return torch.stack(
        [softmax_rows(scores[..., None, : n + 1])[..., 0, :, None].mul(V[:, :, : n + 1]).sum(-2) for n in range(K.shape[2])], -2
    )


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
    length, states = O.shape[1:]
    posterior = torch.zeros_like(O)
    for path in torch.cartesian_prod(*[torch.arange(states)] * length).reshape(-1, length):
        weight = I[path[0]] * torch.stack([X[a, b] for a, b in itertools.pairwise(path)] + [torch.tensor(1.0)]).prod()
        weight = weight * O[:, torch.arange(length), path].prod(-1)
        for t in range(length):
            posterior[:, t, path[t]] += weight
    return posterior / posterior.sum(-1, keepdim=True)


def online_normaliser(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return softmax_rows(Q @ K.T) @ V


def rms_norm(X: Tensor, G: Tensor, epsilon: float = 1e-6) -> Tensor:
    return X / torch.sqrt((X**2).mean(-1, keepdim=True) + epsilon) * G


def variance(X: Tensor) -> Tensor:
    return X.var(-1, correction=0)


def product(X: Tensor, W: Tensor) -> Tensor:
    return X @ W


def transformer_block(
    I: Tensor, WQ: Tensor, WK: Tensor, WV: Tensor, WZ: Tensor, WA: Tensor, WB: Tensor,  # noqa: E741
) -> Tensor:  # fmt: skip
    heads = [softmax(I @ WQ[:, h], I @ WK[:, h], I @ WV[:, h]) @ WZ[h] for h in range(WZ.shape[0])]
    return torch.relu(torch.stack(heads).sum(0) @ WA) @ WB


def convolution(X: Tensor, C1: Tensor, C2: Tensor) -> Tensor:
    half = C1.shape[0] // 2
    once = torch.nn.functional.conv1d(X[:, None], C1[None, None], padding=half)
    return torch.nn.functional.conv1d(once, C2[None, None], padding=half)[:, 0]


def histogram(X: Tensor, I: Tensor, C: int) -> Tensor:  # noqa: E741
    return torch.stack([torch.where(c == I, X, 0).sum(-1) for c in range(C)], -1)


# --- heads and projections --------------------------------------------------------------------------------------------


def kdgqa(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    out = torch.empty(*Q.shape[:3], V.shape[-1], dtype=torch.float64)
    heads = Q.shape[1]
    for b in range(Q.shape[0]):
        norms = [float(torch.linalg.vector_norm(K[b, g])) for g in range(K.shape[1])]
        for h in range(heads):
            mark = (h + 0.5) / heads * sum(norms)
            g = next(g for g in range(len(norms)) if sum(norms[: g + 1]) > mark)
            out[b, h] = softmax(Q[b, h], K[b, g], V[b, g])
    return out


def diffqkv(Q: Tensor, K: Tensor, V: Tensor, causal: int = 0) -> Tensor:
    K = K.repeat_interleave(Q.shape[1] // K.shape[1], 1)
    V = V.repeat_interleave(Q.shape[1] // V.shape[1], 1)
    return softmax_rows(hide_later_keys(scores_of(Q, K), causal)) @ V


def moh(
    X: Tensor, WS: Tensor, WR: Tensor, WT: Tensor, Q: Tensor, K: Tensor, V: Tensor, WO: Tensor, J: int,
) -> Tensor:  # fmt: skip
    balance = torch.softmax(X @ WT, -1)
    shared = torch.softmax(X @ WS, -1)
    routed = torch.softmax(X @ WR, -1)
    best = (X @ WR).topk(J, -1).indices
    routed = routed * torch.zeros_like(routed).scatter(-1, best, 1.0)
    gates = torch.cat([balance[..., :1] * shared, balance[..., 1:] * routed], -1)
    heads = softmax(Q, K, V) @ WO
    return (gates.permute(0, 2, 1)[..., None] * heads).sum(1)


def ssa(Q: Tensor, K: Tensor, V: Tensor, TQ: Tensor, TV: Tensor, AL: Tensor, BL: Tensor) -> Tensor:
    growth = torch.log(torch.arange(1, K.shape[2] + 1, dtype=torch.float64))
    inverse_q = torch.tanh(TQ) + 1 + torch.sigmoid(AL)[:, None] * growth
    inverse_v = torch.tanh(TV) + 1 + torch.sigmoid(BL)[:, None] * growth
    return softmax_causal(Q * inverse_q[..., None], K, V * inverse_v[..., None])


def music_relative(Q: Tensor, K: Tensor, V: Tensor, R: Tensor) -> Tensor:
    length = K.shape[2]
    relative = torch.zeros(*Q.shape[:3], length, dtype=torch.float64)
    for p in range(length):
        for m in range(p + 1):
            relative[:, :, p, m] = (Q[:, :, p] * R[:, length - 1 - (p - m)]).sum(-1)
    scores = scores_of(Q, K) + relative / math.sqrt(Q.shape[-1])
    return softmax_rows(hide_later_keys(scores)) @ V


def concentric(Q: Tensor, K: Tensor, V: Tensor, NY: int, NX: int) -> Tensor:
    ring = torch.tensor([min(y, x, NY - 1 - y, NX - 1 - x) for y in range(NY) for x in range(NX)])
    return softmax_rows(scores_of(Q, K).masked_fill(ring[None, :] > ring[:, None], -INF)) @ V


def modality_mutual(Q: Tensor, K: Tensor, V: Tensor, T: Tensor) -> Tensor:
    p, m = positions(Q.shape[2], K.shape[2])
    unlocked = (T[:, :, None] == 1) & (T[:, None, :] == 0)
    return softmax_rows(scores_of(Q, K).masked_fill(~((m <= p) | unlocked)[:, None], -INF)) @ V


def global_query(Q: Tensor, K: Tensor, V: Tensor, R: Tensor) -> Tensor:
    return softmax_rows(scores_of(Q[:, None], K) + R) @ V


def mla(Q: Tensor, QR: Tensor, C: Tensor, KR: Tensor, UK: Tensor, UV: Tensor, causal: int = 0) -> Tensor:
    keys = torch.cat([C[:, None] @ UK, KR[:, None].expand(-1, UK.shape[0], -1, -1)], -1)
    scores = scores_of(torch.cat([Q, QR], -1), keys)
    return softmax_rows(hide_later_keys(scores, causal)) @ (C[:, None] @ UV)


mla_absorbed = mla


# --- masks of positions and heads -------------------------------------------------------------------------------------


def sinks_and_recent(P: int, M: int, sinks: int, recent: float) -> Tensor:
    """Mask [query, key] of what a streaming head sees."""
    p, m = positions(P, M)
    return (m <= p) & ((m < sinks) | (p - m < recent))


def streaming(Q: Tensor, K: Tensor, V: Tensor, sinks: int = 4, recent: int = 16) -> Tensor:
    seen = sinks_and_recent(Q.shape[2], K.shape[2], sinks, recent)
    return softmax_rows(scores_of(Q, K).masked_fill(~seen, -INF)) @ V


def duo(Q: Tensor, K: Tensor, V: Tensor, T: Tensor, sinks: int = 4, recent: int = 16) -> Tensor:
    group = Q.shape[1] // K.shape[1]
    heads = [
        (softmax_causal if T[h // group] == 1 else lambda q, k, v: streaming(q, k, v, sinks, recent))(
            Q[:, h : h + 1], K[:, h // group, None], V[:, h // group, None]
        )
        for h in range(Q.shape[1])
    ]
    return torch.cat(heads, 1)


def moa(Q: Tensor, K: Tensor, V: Tensor, AL: Tensor, BE: Tensor, sinks: int = 4) -> Tensor:
    spans = AL + BE * K.shape[2]
    seen = torch.stack([sinks_and_recent(Q.shape[2], K.shape[2], sinks, float(span)) for span in spans])
    return softmax_rows(scores_of(Q, K).masked_fill(~seen, -INF)) @ V


# --- images -----------------------------------------------------------------------------------------------------------


def pixels(*tensors: Tensor) -> list[Tensor]:
    """[b, h, y, x, e] as [b, h, pixel, e]."""
    return [tensor.flatten(2, -2) for tensor in tensors]


def masked_pixels(Q: Tensor, K: Tensor, V: Tensor, seen: Tensor) -> Tensor:
    """Attention over pixels under a mask [query pixel, key pixel], reshaped back."""
    q, k, v = pixels(Q, K, V)
    return (softmax_rows(scores_of(q, k).masked_fill(~seen, -INF)) @ v).reshape(*Q.shape[:-1], V.shape[-1])


def both(rows: Tensor, columns: Tensor) -> Tensor:
    """Mask of pixels that see each other by row and by column."""
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(rows.shape[0] * columns.shape[0], -1)


def na2d(Q: Tensor, K: Tensor, V: Tensor, W: int) -> Tensor:
    return masked_pixels(Q, K, V, both(neighbours(Q.shape[2], W, 1), neighbours(Q.shape[3], W, 1)))


def na2d_dilated(Q: Tensor, K: Tensor, V: Tensor, W: int, DY: int = 2, DX: int = 2) -> Tensor:
    return masked_pixels(Q, K, V, both(neighbours(Q.shape[2], W, DY), neighbours(Q.shape[3], W, DX)))


def na2d_causal(Q: Tensor, K: Tensor, V: Tensor, W: int, DY: int = 1, DX: int = 1) -> Tensor:
    def seen(length: int, dilation: int) -> Tensor:
        p, m = positions(length, length)
        return (m <= p) & ((p - m) % dilation == 0) & ((p - m) // dilation < W)

    return masked_pixels(Q, K, V, both(seen(Q.shape[2], DY), seen(Q.shape[3], DX)))


def na3d(Q: Tensor, K: Tensor, V: Tensor, U: int, W: int) -> Tensor:
    t, s = positions(Q.shape[2], Q.shape[2])
    frames = (s <= t) & (t - s < U)
    return masked_pixels(Q, K, V, both(frames, both(neighbours(Q.shape[3], W, 1), neighbours(Q.shape[4], W, 1))))


def halonet(Q: Tensor, K: Tensor, V: Tensor, W: int, A: int) -> Tensor:
    def seen(length: int) -> Tensor:
        p, m = positions(length, length)
        first = p // W * W
        return (m >= first - A) & (m < first + W + A)

    return masked_pixels(Q, K, V, both(seen(Q.shape[2]), seen(Q.shape[3])))


def maxvit_block(Q: Tensor, K: Tensor, V: Tensor, W: int) -> Tensor:
    blocks = [torch.arange(n) // W for n in Q.shape[2:4]]
    return masked_pixels(Q, K, V, both(*(block[:, None] == block[None, :] for block in blocks)))


def davit_window(Q: Tensor, K: Tensor, V: Tensor, W: int) -> Tensor:
    def windows(image: Tensor) -> Tensor:
        b, h, height, width, depth = image.shape
        cut = image.reshape(b, h, height // W, W, width // W, W, depth)
        return cut.transpose(3, 4).reshape(b, h, height // W, width // W, W * W, depth)

    return softmax(windows(Q), windows(K), windows(V))


def maxvit_grid(Q: Tensor, K: Tensor, V: Tensor, W: int) -> Tensor:
    places = [torch.arange(n) % (n // W) for n in Q.shape[2:4]]
    return masked_pixels(Q, K, V, both(*(place[:, None] == place[None, :] for place in places)))


def lka(X: Tensor, K1: Tensor, K2: Tensor, K3: Tensor, D: int = 3) -> Tensor:
    channels = X.shape[-1]
    image = X.permute(0, 3, 1, 2)
    near = torch.nn.functional.conv2d(image, K1[:, None], padding=K1.shape[-1] // 2, groups=channels)
    far = torch.nn.functional.conv2d(near, K2[:, None], padding=K2.shape[-1] // 2 * D, dilation=D, groups=channels)
    mixed = torch.nn.functional.conv2d(far, K3.T[:, :, None, None])
    return (mixed * image).permute(0, 2, 3, 1)


def volo_outlook(A: Tensor, V: Tensor, W: int) -> Tensor:
    batch, heads, rows, columns, size = A.shape[:5]
    weights = torch.softmax(A.flatten(4, 5).flatten(5, 6), -1)
    image = V.permute(0, 1, 4, 2, 3).flatten(0, 1)
    windows = torch.nn.functional.unfold(image, size, padding=W).reshape(batch, heads, V.shape[-1], size * size, rows, columns)
    said = torch.einsum("bhyxku,bhfuyx->bhfkyx", weights, windows)
    folded = torch.nn.functional.fold(said.flatten(2, 3).flatten(0, 1).flatten(2, 3), (rows, columns), size, padding=W)
    return folded.reshape(batch, heads, V.shape[-1], rows, columns).permute(0, 1, 3, 4, 2)


# --- running states, against their parallel or matrix forms -----------------------------------------------------------


def gla(Q: Tensor, K: Tensor, V: Tensor, G: Tensor, tau: float = 16) -> Tensor:
    fading = torch.nn.functional.logsigmoid(G).cumsum(2) / tau
    between = fading[:, :, :, None] - fading[:, :, None, :]
    scores = (Q[:, :, :, None] * K[:, :, None, :] * torch.exp(between)).sum(-1)
    return torch.tril(scores) @ V / math.sqrt(Q.shape[-1])


def delta(Q: Tensor, K: Tensor, V: Tensor, BE: Tensor) -> Tensor:
    """The WY form: all writes at once from a triangular system."""
    K = torch.nn.functional.normalize(K, dim=-1)
    length = K.shape[2]
    system = torch.eye(length, dtype=torch.float64) + torch.tril(BE[..., None] * (K @ K.transpose(-1, -2)), -1)
    writes = torch.linalg.solve_triangular(system, BE[..., None] * V, upper=False)
    return torch.tril(Q @ K.transpose(-1, -2)) @ writes


def gated_delta(Q: Tensor, K: Tensor, V: Tensor, AL: Tensor, BE: Tensor) -> Tensor:
    """The state as a product of matrices, one a step."""
    K = torch.nn.functional.normalize(K, dim=-1)
    width = K.shape[-1]
    state = torch.zeros(*K.shape[:2], V.shape[-1], width, dtype=torch.float64)
    out = []
    for t in range(K.shape[2]):
        k, v, a, b = K[:, :, t], V[:, :, t], AL[:, :, t, None, None], BE[:, :, t, None, None]
        erase = torch.eye(width, dtype=torch.float64) - b * k[..., :, None] * k[..., None, :]
        state = state @ (a * erase) + b * v[..., :, None] * k[..., None, :]
        out.append((state @ Q[:, :, t, :, None])[..., 0])
    return torch.stack(out, 2)


def titans(Q: Tensor, K: Tensor, V: Tensor, ET: Tensor, TH: Tensor, AL: Tensor) -> Tensor:
    """The gradient by automatic differentiation, of half the squared error."""
    memory = torch.zeros(*K.shape[:2], V.shape[-1], K.shape[-1], dtype=torch.float64)
    momentum = torch.zeros_like(memory)
    out = []
    for t in range(K.shape[2]):
        leaf = memory.detach().requires_grad_()
        loss = (((leaf @ K[:, :, t, :, None])[..., 0] - V[:, :, t]) ** 2).sum() / 2
        (gradient,) = torch.autograd.grad(loss, leaf)
        momentum = ET[:, :, t, None, None] * momentum - TH[:, :, t, None, None] * gradient
        memory = (1 - AL[:, :, t, None, None]) * memory + momentum
        out.append((memory @ Q[:, :, t, :, None])[..., 0])
    return torch.stack(out, 2)


def lightning(Q: Tensor, K: Tensor, V: Tensor, L: Tensor) -> Tensor:
    p, m = positions(K.shape[2], K.shape[2])
    return torch.tril(Q @ K.transpose(-1, -2) * L[:, None, None] ** (p - m).clamp(min=0)) @ V


def rwkv(R: Tensor, K: Tensor, V: Tensor, W: Tensor, U: Tensor) -> Tensor:
    out = []
    for t in range(K.shape[1]):
        age = torch.arange(t - 1, -1, -1, dtype=torch.float64)[:, None]
        exponents = torch.cat([K[:, :t] - age * W, (U + K[:, t])[:, None]], 1)
        out.append((torch.softmax(exponents, 1) * V[:, : t + 1]).sum(1))
    return torch.sigmoid(R) * torch.stack(out, 1)


def ssm_selective(X: Tensor, T: Tensor, A: Tensor, BI: Tensor, CO: Tensor, D: Tensor) -> Tensor:
    """The sum over all earlier tokens, each faded by what lies between."""
    step = torch.log1p(torch.exp(T))
    total = step.cumsum(1)
    length = X.shape[1]
    between = total[:, :, None] - total[:, None, :]  # batch, p, m, channel
    seen = torch.tril(torch.ones(length, length, dtype=torch.float64))[:, :, None, None]
    fading = torch.exp(torch.where(seen > 0, between[..., None] * A, 0)) * seen
    return torch.einsum("bps,bpmcs,bmc,bms->bpc", CO, fading, step * X, BI) + D * X


# --- other similarities -----------------------------------------------------------------------------------------------


def based(Q: Tensor, K: Tensor, V: Tensor, causal: int = 1) -> Tensor:
    scores = scores_of(Q, K)
    p, m = positions(*scores.shape[-2:])
    similarity = (1 + scores + scores**2 / 2).masked_fill((m > p) & bool(causal), 0)
    return shares(similarity) @ V


def hedgehog(Q: Tensor, K: Tensor, V: Tensor, WQ: Tensor, WK: Tensor) -> Tensor:
    def features(x: Tensor) -> Tensor:
        return torch.cat([torch.softmax(x, -1), torch.softmax(-x, -1)], -1)

    return shares(features(Q @ WQ) @ features(K @ WK).transpose(-1, -2)) @ V


def inline(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    features = torch.exp(Q / math.sqrt(Q.shape[-1]))
    similarity = features @ torch.exp(K).transpose(-1, -2)
    return (similarity - similarity.mean(-1, keepdim=True) + 1 / K.shape[2]) @ V


def agent(Q: Tensor, K: Tensor, V: Tensor, G: int) -> Tensor:
    agents = torch.stack([group.mean(2) for group in Q.split(G, 2)], 2)
    return softmax(Q, agents, softmax(agents, K, V))


# --- chosen by content, and more than one kind of keys ----------------------------------------------------------------


def autocorrelation(Q: Tensor, K: Tensor, V: Tensor, J: int) -> Tensor:
    length = K.shape[2]
    correlation = torch.fft.irfft(torch.fft.rfft(Q, dim=2) * torch.fft.rfft(K, dim=2).conj(), n=length, dim=2).mean((1, 3))
    best = correlation.topk(J, -1)
    weights = torch.softmax(best.values, -1)
    out = torch.zeros_like(V)
    for b in range(V.shape[0]):
        for j in range(J):
            out[b] += weights[b, j] * torch.roll(V[b], -int(best.indices[b, j]), 1)
    return out


def biformer(Q: Tensor, K: Tensor, V: Tensor, R: int, S: int, J: int) -> Tensor:
    out = torch.empty(*Q.shape[:3], V.shape[-1], dtype=torch.float64)
    for b in range(Q.shape[0]):
        means = [x[b].unflatten(1, (R, S)).mean(2).permute(1, 0, 2).flatten(1) for x in (Q, K)]
        chosen = (means[0] @ means[1].T).topk(J, -1).indices
        for r in range(R):
            kept = torch.cat([torch.arange(S) + int(t) * S for t in chosen[r]])
            rows = slice(r * S, (r + 1) * S)
            out[b, :, rows] = softmax(Q[b, :, rows], K[b, :, kept], V[b, :, kept])
    return out


def hilo(Q: Tensor, K: Tensor, V: Tensor, HH: int, W: int) -> Tensor:
    def pooled(x: Tensor) -> Tensor:
        return x.unflatten(3, (-1, W)).unflatten(2, (-1, W)).mean((3, 5)).flatten(2, 3)

    high = maxvit_block(Q[:, :HH], K[:, :HH], V[:, :HH], W)
    low = softmax(Q[:, HH:].flatten(2, 3), pooled(K[:, HH:]), pooled(V[:, HH:]))
    return torch.cat([high, low.unflatten(2, tuple(Q.shape[2:4]))], 1)


def s2_attn_shift(Q: Tensor, K: Tensor, V: Tensor, S: int) -> Tensor:
    half = Q.shape[1] // 2
    shift = [0] * half + [S // 2] * half

    def rolled(x: Tensor, sign: int) -> Tensor:
        return torch.stack([torch.roll(x[:, h], sign * n, 1) for h, n in enumerate(shift)], 1)

    groups = [rolled(x, -1).unflatten(2, (-1, S)) for x in (Q, K, V)]
    return rolled(softmax_causal(*groups).flatten(2, 3), 1)


def aggregated(Q: Tensor, K: Tensor, V: Tensor, KP: Tensor, VP: Tensor, W: int) -> Tensor:
    def near(length: int) -> Tensor:
        p, m = positions(length, length)
        return (p - m).abs() <= W

    q, k, v = pixels(Q, K, V)
    window = scores_of(q, k).masked_fill(~both(near(Q.shape[2]), near(Q.shape[3])), -INF)
    weights = softmax_rows(torch.cat([window, scores_of(q, KP)], -1))
    return (weights @ torch.cat([v, VP], 2)).unflatten(2, tuple(Q.shape[2:4]))


def landmark(Q: Tensor, K: Tensor, V: Tensor, KL: Tensor, S: int) -> Tensor:
    out = []
    for p in range(Q.shape[2]):
        own = p // S
        q = Q[:, :, p, None]
        first = softmax_rows(torch.cat([scores_of(q, KL[:, :, :own]), scores_of(q, K[:, :, own * S : p + 1])], -1))
        row = first[..., own:] @ V[:, :, own * S : p + 1]
        for r in range(own):
            block = slice(r * S, (r + 1) * S)
            row = row + first[..., r : r + 1] * softmax(q, K[:, :, block], V[:, :, block])
        out.append(row)
    return torch.cat(out, 2)


def vig(Q: Tensor, K: Tensor, V: Tensor, GF: Tensor, GB: Tensor, tau: float = 16) -> Tensor:
    backward = gla(Q.flip(2), K.flip(2), V.flip(2), GB.flip(2), tau).flip(2)
    return gla(Q, K, V, GF, tau) + backward


def lightnet(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    out = []
    for t in range(K.shape[2]):
        weights = torch.softmax(K[:, :, : t + 1], 2)
        out.append(Q[:, :, t, None] @ (weights.transpose(-1, -2) @ V[:, :, : t + 1]))
    return torch.cat(out, 2)


def s2_shard(Q: Tensor, K: Tensor, V: Tensor, block: int = 8, local: int = 2, stride: int | None = None) -> Tensor:
    p, m = positions(Q.shape[2], K.shape[2])
    heads = torch.arange(Q.shape[1])[:, None, None]
    near = p // block - m // block < local
    kept = (m // block - heads) % (stride or Q.shape[1]) == 0
    return softmax_rows(scores_of(Q, K).masked_fill(~((m <= p) & (near | kept)), -INF)) @ V


def snapkv(
    Q: Tensor, O: Tensor, K: Tensor, V: Tensor, KW: Tensor, VW: Tensor, J: int, Z: int,  # noqa: E741
) -> Tensor:  # fmt: skip
    prefix, window = K.shape[2], KW.shape[2]
    scores = scores_of(O, torch.cat([K, KW], 2))
    scores[..., prefix:] = hide_later_keys(scores[..., prefix:])
    votes = torch.softmax(scores, -1)[..., :prefix].sum(2)
    pooled = torch.nn.functional.max_pool1d(votes, 2 * Z + 1, 1, Z)
    chosen = pooled.sort(dim=-1, descending=True, stable=True).indices[..., :J, None]
    keys = torch.cat([K.gather(2, chosen.expand(-1, -1, -1, K.shape[-1])), KW], 2)
    values = torch.cat([V.gather(2, chosen.expand(-1, -1, -1, V.shape[-1])), VW], 2)
    assert window == O.shape[2]
    return softmax(Q, keys, values)


def routing(Q: Tensor, K: Tensor, V: Tensor, MU: Tensor, J: int, causal: int = 0) -> Tensor:
    out = torch.zeros(*Q.shape[:3], V.shape[-1], dtype=torch.float64)
    for b in range(Q.shape[0]):
        for h in range(Q.shape[1]):
            for centroid in MU[h]:
                queries = (Q[b, h] @ centroid).topk(J).indices
                keys = (K[b, h] @ centroid).topk(J).indices
                scores = scores_of(Q[b, h, queries], K[b, h, keys])
                later = (keys[None, :] > queries[:, None]) & bool(causal)
                out[b, h, queries] += softmax_rows(scores.masked_fill(later, -INF)) @ V[b, h, keys]
    return out


def seer(
    Q: Tensor, K: Tensor, V: Tensor, WQ: Tensor, WX: Tensor, WN: Tensor, WA: Tensor, R: int, S: int, J: int,
) -> Tensor:  # fmt: skip
    blocks = K.unflatten(2, (R, S))
    pooled = torch.cat([blocks.amax(3), blocks.amin(3), blocks.mean(3)], -1)
    gate = (Q.unflatten(2, (R, S)).mean(3) @ WQ) @ (pooled @ torch.cat([WX, WN, WA], 1)).transpose(-1, -2)
    chosen = hide_later_keys(gate).topk(J, -1).indices
    seen = torch.zeros_like(gate, dtype=torch.bool).scatter(-1, chosen, True)
    seen = seen.repeat_interleave(S, 2).repeat_interleave(S, 3)
    return softmax_rows(hide_later_keys(scores_of(Q, K).masked_fill(~seen, -INF))) @ V


def masformer(Q: Tensor, K: Tensor, V: Tensor, T: Tensor, span: int = 16) -> Tensor:
    near = sinks_and_recent(Q.shape[3], K.shape[3], 0, span)
    layers = [
        softmax_causal(q, k, v) if full == 1 else softmax_rows(scores_of(q, k).masked_fill(~near, -INF)) @ v
        for q, k, v, full in zip(Q.unbind(1), K.unbind(1), V.unbind(1), T, strict=True)
    ]
    return torch.stack(layers, 1)


def rcmha(
    Q: Tensor, K: Tensor, V: Tensor, CQ: Tensor, CK: Tensor, CV: Tensor, R: Tensor, BC: Tensor, BP: Tensor,
) -> Tensor:  # fmt: skip
    def convolved(x: Tensor, weights: Tensor) -> Tensor:
        channels = x.permute(0, 1, 3, 2).flatten(1, 2)
        kernel = weights.permute(0, 2, 1).flatten(0, 1)[:, None]
        once = torch.nn.functional.conv1d(channels, kernel, padding=kernel.shape[-1] // 2, groups=channels.shape[1])
        return once.unflatten(1, (x.shape[1], x.shape[3])).permute(0, 1, 3, 2)

    q, k, v = convolved(Q, CQ), convolved(K, CK), convolved(V, CV)
    length = K.shape[2]
    p, m = positions(length, length)
    by_distance = (q + BP[:, None]) @ R.transpose(-1, -2)
    relative = by_distance.gather(3, (p - m + length - 1).expand(*by_distance.shape[:2], -1, -1))
    return softmax_rows(((q + BC[:, None]) @ k.transpose(-1, -2) + relative) / math.sqrt(q.shape[-1])) @ v
