"""The examples of the definition of passes, each as a spec, with what the definition says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SOFTMAX_HEAD = "ranks: {b: B, h: H, p: P, m: M, e: E, f: F}\ninputs: {Q: [b, h, p, e], K: [b, h, m, e], V: [b, h, m, f]}\n"
TILED_HEAD = (
    "ranks: {b: B, h: H, p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, e: E, f: F}\n"
    "inputs: {Q: [b, h, p, e], K: [b, h, m, e], V: [b, h, m, f]}\n"
)


@dataclass(frozen=True)
class Example:
    """`passes` of the rank asked for (and its parts); `reads` at which levels, as far as the definition says."""

    head: str
    cascade: str
    output: str
    passes: dict[str, dict[str, int]]
    reads: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    sizes: str = "{B: 1, H: 2, P: 5, M: 7, M0: 3, E: 2, F: 3}"

    def text(self, name: str) -> str:
        lines = "\n".join("  " + line.strip() for line in self.cascade.strip().splitlines())
        ranks = self.head.splitlines()[0]
        known = ", ".join(pair for pair in self.sizes.strip("{}").split(", ") if re.search(rf"\b{pair.split(':')[0]}\b", ranks))
        return f"name: {name}\n{self.head}sizes: {{{known}}}\ncascade: |\n{lines}\noutputs: [{self.output}]\n"


EXAMPLES: dict[str, Example] = {
    "textbook-softmax": Example(
        SOFTMAX_HEAD,
        """
        QK[b,h,p,m] = Q[b,h,p,e] * K[b,h,m,e]
        GM[b,h,p]   = max[m](QK[b,h,p,m])
        SN[b,h,p,m] = exp(QK[b,h,p,m] - GM[b,h,p])
        SD[b,h,p]   = sum[m](SN[b,h,p,m])
        A[b,h,p,m]  = SN[b,h,p,m] / SD[b,h,p]
        AV[b,h,p,f] = A[b,h,p,m] * V[b,h,m,f]
        """,
        "AV",
        {"m": {"m": 3}, "p": {"p": 1}},
        {"m": {"K": [1], "V": [3]}, "p": {"Q": [1]}},
    ),
    "nested-softmax": Example(  # the same, with its reductions inside of expressions
        SOFTMAX_HEAD,
        """
        QK[b,h,p,m] = Q[b,h,p,e] * K[b,h,m,e]
        SN[b,h,p,m] = exp(QK[b,h,p,m] - max[m](QK[b,h,p,m]))
        AV[b,h,p,f] = sum[m](SN[b,h,p,m] / sum[m](SN[b,h,p,m]) * V[b,h,m,f])
        """,
        "AV",
        {"m": {"m": 3}},
        {"m": {"K": [1], "V": [3]}},
    ),
    "deferred-division": Example(
        SOFTMAX_HEAD,
        """
        QK[b,h,p,m]  = Q[b,h,p,e] * K[b,h,m,e]
        GM[b,h,p]    = max[m](QK[b,h,p,m])
        SN[b,h,p,m]  = exp(QK[b,h,p,m] - GM[b,h,p])
        SD[b,h,p]    = sum[m](SN[b,h,p,m])
        SNV[b,h,p,f] = SN[b,h,p,m] * V[b,h,m,f]
        AV[b,h,p,f]  = SNV[b,h,p,f] / SD[b,h,p]
        """,
        "AV",
        {"m": {"m": 2}},
        {"m": {"K": [1], "V": [2]}},
    ),
    "fusemax": Example(
        TILED_HEAD,
        """
        RM[b,h,0,p] = -inf
        RD[b,h,0,p] = 0
        RNV[b,h,0,p,f] = 0
        QK[b,h,m1,m0,p] = Q[b,h,p,e] * K[b,h,m1*M0+m0,e]
        LM[b,h,m1,p] = max[m0](QK[b,h,m1,m0,p])
        RM[b,h,m1+1,p] = max(RM[b,h,m1,p], LM[b,h,m1,p])
        SLN[b,h,m1,m0,p] = exp(QK[b,h,m1,m0,p] - RM[b,h,m1+1,p])
        SLD[b,h,m1,p] = sum[m0](SLN[b,h,m1,m0,p])
        SLNV[b,h,m1,p,f] = SLN[b,h,m1,m0,p] * V[b,h,m1*M0+m0,f]
        PRM[b,h,m1,p] = exp(RM[b,h,m1,p] - RM[b,h,m1+1,p])
        RD[b,h,m1+1,p] = RD[b,h,m1,p] * PRM[b,h,m1,p] + SLD[b,h,m1,p]
        RNV[b,h,m1+1,p,f] = RNV[b,h,m1,p,f] * PRM[b,h,m1,p] + SLNV[b,h,m1,p,f]
        AV[b,h,p,f] = RNV[b,h,M1,p,f] / RD[b,h,M1,p]
        """,
        "AV",
        {"m": {"m": 1, "m1": 1}},
        {"m": {"K": [1], "V": [1]}},
    ),
    "tile-local, corrected per element": Example(
        TILED_HEAD,
        """
        QK[b,h,m1,m0,p] = Q[b,h,p,e] * K[b,h,m1*M0+m0,e]
        LM[b,h,m1,p] = max[m0](QK[b,h,m1,m0,p])
        SLN[b,h,m1,m0,p] = exp(QK[b,h,m1,m0,p] - LM[b,h,m1,p])
        SLD[b,h,m1,p] = sum[m0](SLN[b,h,m1,m0,p])
        GM[b,h,p] = max[m1](LM[b,h,m1,p])
        C[b,h,m1,p] = exp(LM[b,h,m1,p] - GM[b,h,p])
        SD[b,h,p] = SLD[b,h,m1,p] * C[b,h,m1,p]
        A[b,h,m1,m0,p] = SLN[b,h,m1,m0,p] * C[b,h,m1,p] / SD[b,h,p]
        AV[b,h,p,f] = A[b,h,m1,m0,p] * V[b,h,m1*M0+m0,f]
        """,
        "AV",
        {"m": {"m": 2, "m1": 2}},
        {"m": {"K": [1], "V": [2]}},
    ),
    "tile-local, corrected after the local product": Example(
        TILED_HEAD,
        """
        QK[b,h,m1,m0,p] = Q[b,h,p,e] * K[b,h,m1*M0+m0,e]
        LM[b,h,m1,p] = max[m0](QK[b,h,m1,m0,p])
        SLN[b,h,m1,m0,p] = exp(QK[b,h,m1,m0,p] - LM[b,h,m1,p])
        SLD[b,h,m1,p] = sum[m0](SLN[b,h,m1,m0,p])
        SLNV[b,h,m1,p,f] = SLN[b,h,m1,m0,p] * V[b,h,m1*M0+m0,f]
        GM[b,h,p] = max[m1](LM[b,h,m1,p])
        C[b,h,m1,p] = exp(LM[b,h,m1,p] - GM[b,h,p])
        SD[b,h,p] = SLD[b,h,m1,p] * C[b,h,m1,p]
        SNV[b,h,p,f] = SLNV[b,h,m1,p,f] * C[b,h,m1,p]
        AV[b,h,p,f] = SNV[b,h,p,f] / SD[b,h,p]
        """,
        "AV",
        {"m": {"m": 1, "m1": 2}},
        {"m": {"K": [1], "V": [1]}},
    ),
    "online normaliser, then exp": Example(
        TILED_HEAD,
        """
        RM[b,h,0,p] = -inf
        RD[b,h,0,p] = 0
        QK[b,h,m1,m0,p] = Q[b,h,p,e] * K[b,h,m1*M0+m0,e]
        LM[b,h,m1,p] = max[m0](QK[b,h,m1,m0,p])
        RM[b,h,m1+1,p] = max(RM[b,h,m1,p], LM[b,h,m1,p])
        SLD[b,h,m1,p] = sum[m0](exp(QK[b,h,m1,m0,p] - RM[b,h,m1+1,p]))
        RD[b,h,m1+1,p] = RD[b,h,m1,p] * exp(RM[b,h,m1,p] - RM[b,h,m1+1,p]) + SLD[b,h,m1,p]
        A[b,h,m1,m0,p] = exp(QK[b,h,m1,m0,p] - RM[b,h,M1,p]) / RD[b,h,M1,p]
        AV[b,h,p,f] = A[b,h,m1,m0,p] * V[b,h,m1*M0+m0,f]
        """,
        "AV",
        {"m": {"m": 2, "m1": 1}},
        {"m": {"K": [1], "V": [2]}},
    ),
    "rms norm, then scaling": Example(
        "ranks: {p: P, d: D}\ninputs: {X: [p, d], G: [d]}\n",
        """
        SS[p] = sum[d](X[p,d] * X[p,d])
        R[p] = rsqrt(SS[p] / D)
        Y[p,d] = X[p,d] * R[p] * G[d]
        """,
        "Y",
        {"d": {"d": 2}, "p": {"p": 1}},
        {"d": {"X": [1, 2], "G": [2]}},
        "{P: 3, D: 4}",
    ),
    "causal linear attention": Example(
        "ranks: {m: M, e: E, f: F}\ninputs: {Q: [m, e], K: [m, e], V: [m, f]}\n",
        """
        S[0,e,f] = 0
        S[m+1,e,f] = S[m,e,f] + K[m,e] * V[m,f]
        AV[m,f] = Q[m,e] * S[m+1,e,f]
        """,
        "AV",
        {"m": {"m": 1}},
        {"m": {"Q": [1], "K": [1], "V": [1]}},
    ),
    "cumsum": Example(
        "ranks: {m: M}\ninputs: {X: [m]}\n", "Y[m] = cumsum[m](X[m]) * X[m]", "Y", {"m": {"m": 1}}, {"m": {"X": [1]}}
    ),
    "windows": Example(
        "ranks: {p: P, w: 2*W + 1}\ninputs: {X: [p], H: [w]}\n",
        """
        T[p] = exp(X[p])
        Y[p] = sum[w](where(p + w - W >= 0 and p + w - W < P, T[p + w - W] * H[w], 0))
        Z[p] = Y[p] * X[p]
        """,
        "Z",
        {"p": {"p": 1}, "w": {"w": 1}},
        {"p": {"X": [1]}},
        "{P: 9, W: 2}",
    ),
    "neighbourhoods that stop at the edges": Example(
        "ranks: {p: P, w: W, e: E}\ninputs: {X: [p, e], Q: [p, e]}\n",
        """
        K[p,e] = exp(X[p,e])
        S[p,w] = Q[p,e] * K[clamp(p - W//2, 0, P - W) + w,e]
        N[p] = sum[w](exp(S[p,w]))
        A[p,w] = exp(S[p,w]) / N[p]
        """,
        "A",
        {"p": {"p": 1}, "w": {"w": 2}},
        {"p": {"X": [1], "Q": [1]}},
        "{P: 9, W: 3, E: 2}",
    ),
    "grouped queries": Example(
        "ranks: {h: KV*G, k: KV, p: P, m: M, e: E}\ninputs: {Q: [h, p, e], K: [k, m, e]}\n",
        "S[h,p,m] = Q[h,p,e] * K[h//G,m,e]",
        "S",
        {"h": {"h": 1}, "m": {"m": 1}, "k": {"k": 0}},
        {"h": {"Q": [1], "K": [1]}, "m": {"K": [1]}},
        "{KV: 2, G: 3, P: 2, M: 3, E: 2}",
    ),
    "softmax over queries": Example(
        SOFTMAX_HEAD,
        """
        QK[b,h,p,m] = Q[b,h,p,e] * K[b,h,m,e]
        GM[b,h,m]   = max[p](QK[b,h,p,m])
        SN[b,h,p,m] = exp(QK[b,h,p,m] - GM[b,h,m])
        SD[b,h,m]   = sum[p](SN[b,h,p,m])
        A[b,h,p,m]  = SN[b,h,p,m] / SD[b,h,m]
        AV[b,h,p,f] = A[b,h,p,m] * V[b,h,m,f]
        """,
        "AV",
        {"p": {"p": 3}, "m": {"m": 1}},
        {"p": {"Q": [1]}, "m": {"K": [1], "V": [1]}},
    ),
    "softplus attention with two normalisers": Example(
        SOFTMAX_HEAD,
        """
        S[b,h,p,m]  = softplus(sum[e](Q[b,h,p,e] * K[b,h,m,e]))
        N[b,h,p]    = sum[m](S[b,h,p,m])
        R[b,h,p,m]  = (S[b,h,p,m] / N[b,h,p]) ** 3
        T[b,h,p]    = sum[m](R[b,h,p,m])
        AV[b,h,p,f] = sum[m](R[b,h,p,m] / T[b,h,p] * V[b,h,m,f])
        """,
        "AV",
        {"m": {"m": 3}},
        {"m": {"K": [1], "V": [3]}},
    ),
    "top-k, then gather": Example(
        "ranks: {p: P, m: M, j: J, e: E, f: F}\ninputs: {Q: [p, e], K: [m, e], V: [m, f]}\n",
        """
        S[p,m] = Q[p,e] * K[m,e]
        I[p,j] = argtopk[m](S[p,m])
        G[p,j] = Q[p,e] * K[I[p,j],e]
        D[p]   = sum[j](exp(G[p,j]))
        A[p,j] = exp(G[p,j]) / D[p]
        AV[p,f] = A[p,j] * V[I[p,j],f]
        """,
        "AV",
        {"m": {"m": 2}},
        {"m": {"K": [1, 2], "V": [2]}},
        "{P: 3, M: 7, J: 2, E: 2, F: 2}",
    ),
    "forward and backward scans": Example(
        "ranks: {m: M}\ninputs: {X: [m]}\n",
        """
        F[m] = cumsum[m](X[m])
        B[m] = cumsum[m](X[M - 1 - m])
        Y[m] = F[m] + B[M - 1 - m]
        """,
        "Y",
        {"m": {"m": 2}},
    ),
    "a backward scan of a forward one": Example(
        "ranks: {m: M}\ninputs: {X: [m]}\n",
        """
        F[m] = cumsum[m](X[m])
        B[m] = cumsum[m](F[M - 1 - m])
        Y[m] = B[M - 1 - m]
        """,
        "Y",
        {"m": {"m": 2}},
        {"m": {"X": [1]}},
    ),
    "forward and backward states": Example(
        "ranks: {m: M}\ninputs: {X: [m], D: [m]}\n",
        """
        S[0] = 0
        S[m+1] = S[m] * D[m] + X[m]
        T[0] = 0
        T[m+1] = T[m] * D[M - 1 - m] + X[M - 1 - m]
        Y[m] = S[m+1] + T[M - m]
        """,
        "Y",
        {"m": {"m": 2}},
    ),
    "channel attention over tokens": Example(
        "ranks: {n: N, c: C, d: C}\ninputs: {Q: [n, c], K: [n, d], V: [n, d]}\n",
        """
        S[c,d] = Q[n,c] * K[n,d]
        M[c]   = max[d](S[c,d])
        E[c,d] = exp(S[c,d] - M[c])
        D[c]   = sum[d](E[c,d])
        A[c,d] = E[c,d] / D[c]
        Y[n,c] = A[c,d] * V[n,d]
        """,
        "Y",
        {"n": {"n": 2}, "d": {"d": 3}, "c": {"c": 1}},
        {"n": {"Q": [1], "K": [1], "V": [2]}},
        "{N: 6, C: 2}",
    ),
    # sentences of the definition that the list of examples does not cover
    "how a tensor is indexed where it is read": Example(
        "ranks: {p: L, m: L, d: D, e: E}\ninputs: {X: [p, d], WQ: [d, e], WK: [d, e]}\n",
        """
        Q[p,e] = X[p,d] * WQ[d,e]
        K[m,e] = X[m,d] * WK[d,e]
        S[p,m] = Q[p,e] * K[m,e]
        """,
        "S",
        {"p": {"p": 1}, "m": {"m": 1}},
        {"p": {"X": [1]}, "m": {"X": [1]}},
        "{L: 5, D: 2, E: 2}",
    ),
    "two layers of attention": Example(
        "ranks: {p: L, m: L, f: F}\ninputs: {X: [p, f]}\n",
        """
        S[p,m] = sum[f](X[p,f] * X[m,f])
        D[p]   = sum[m](exp(S[p,m]))
        Y[p,f] = sum[m](exp(S[p,m]) * X[m,f]) / D[p]
        T[p,m] = sum[f](Y[p,f] * Y[m,f])
        Z[p,f] = sum[m](exp(T[p,m]) * Y[m,f])
        """,
        "Z",
        {"m": {"m": 2}, "p": {"p": 2}},
        {"m": {"X": [1]}, "p": {"X": [1]}},
        "{L: 5, F: 2}",
    ),
    "two causal layers": Example(  # query p needs keys up to p alone: one sweep over p computes both
        "ranks: {p: L, m: L, f: F}\ninputs: {X: [p, f]}\n",
        """
        Y[p,f] = sum[m](where(m <= p, sum[f](X[p,f] * X[m,f]) * X[m,f], 0))
        Z[p,f] = sum[m](where(m <= p, Y[m,f] * Y[p,f], 0))
        """,
        "Z",
        {"p": {"p": 1}, "m": {"m": 2}},
        {},
        "{L: 5, F: 2}",
    ),
    "only the last element of a scan is complete": Example(
        "ranks: {m: M}\ninputs: {X: [m]}\n",
        """
        C[m] = cumsum[m](X[m])
        Y[m] = C[m] * X[m]
        Z[m] = Y[m] / C[M - 1]
        """,
        "Z",
        {"m": {"m": 2}},
        {"m": {"X": [1]}},
    ),
    "a state read at any other position is complete": Example(
        "ranks: {m: M}\ninputs: {X: [m]}\n",
        """
        S[0] = 0
        S[m+1] = S[m] + X[m]
        Y[m] = where(m >= 2, S[max(m - 2, 0)], 0) * X[m]
        """,
        "Y",
        {"m": {"m": 2}},
    ),
    "completeness passes through": Example(
        "ranks: {m: M}\ninputs: {X: [m]}\n",
        """
        S = sum[m](X[m])
        R = rsqrt(S)
        T = R * 2
        Y[m] = X[m] * T
        Z = sum[m](Y[m])
        """,
        "Z",
        {"m": {"m": 2}},
        {"m": {"X": [1, 2]}},
    ),
    "sorting is a full reduction": Example(
        "ranks: {m: M, s: M}\ninputs: {X: [m]}\n",
        """
        T[s] = sort[m](X[m])
        Y[m] = X[m] - T[0]
        """,
        "Y",
        {"m": {"m": 2}},
        {"m": {"X": [1, 2]}},
    ),
    "arg-max, then gather": Example(
        "ranks: {m: M, e: E}\ninputs: {X: [m], V: [m, e]}\n",
        """
        I = argmax[m](X[m])
        Y[e] = V[I,e]
        """,
        "Y",
        {"m": {"m": 2}},
        {"m": {"X": [1], "V": [2]}},
        "{M: 5, E: 2}",
    ),
    "keys of a gather that are computed": Example(
        "ranks: {p: P, m: M, j: J, e: E, d: D, f: F}\ninputs: {Q: [p, e], X: [m, d], W: [d, e], V: [m, f]}\n",
        """
        K[m,e] = X[m,d] * W[d,e]
        I[p,j] = argtopk[m](sum[e](Q[p,e] * K[m,e]))
        G[p,j] = Q[p,e] * K[I[p,j],e]
        A[p,j] = exp(G[p,j]) / sum[j](exp(G[p,j]))
        AV[p,f] = A[p,j] * V[I[p,j],f]
        """,
        "AV",
        {"m": {"m": 2}},
        {"m": {"X": [1], "V": [2]}},
        "{P: 3, M: 7, J: 2, E: 2, D: 2, F: 2}",
    ),
    "gathered with given indices": Example(
        "ranks: {p: P, m: M, j: J, e: E}\ninputs: {Q: [p, e], K: [m, e], I: {ranks: [p, j], dtype: int}}\n",
        "S[p,j] = Q[p,e] * K[I[p,j],e]",
        "S",
        {"m": {"m": 1}},
        {"m": {"K": [1]}},
        "{P: 3, M: 7, J: 2, E: 2}",
    ),
    "scattered back": Example(
        "ranks: {p: P, w: W, f: F}\ninputs: {X: [p, f], C: [p]}\ntensors: {Y: [p, f]}\n",
        """
        I[w] = argtopk[p](C[p])
        G[w,f] = X[I[w],f] * 2
        Y[I[w],f] = sum[w](G[w,f])
        Z[p,f] = Y[p,f] + X[p,f]
        """,
        "Z",
        {"p": {"p": 3}},
        {"p": {"C": [1], "X": [2, 3]}},
        "{P: 7, W: 2, F: 2}",
    ),
    "a rank that is never iterated": Example(
        "ranks: {p: P, m: M}\ninputs: {X: [p], K: [m]}\n",
        "Y[p] = X[p] * K[0]",
        "Y",
        {"m": {"m": 0}, "p": {"p": 1}},
        {"m": {}},
        "{P: 3, M: 4}",
    ),
    "a loop that reduces in every step": Example(
        "ranks: {t: T, m: M}\ninputs: {X: [m]}\n",
        """
        S[0,m] = X[m]
        S[t+1,m] = S[t,m] / sum[m](S[t,m])
        Y[m] = S[T,m]
        """,
        "Y",
        {"m": {"m": 5}, "t": {"t": 1}},  # T + 1
        {},
        "{T: 4, M: 3}",
    ),
}
