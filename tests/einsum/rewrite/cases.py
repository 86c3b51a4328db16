"""Cascades with the passes that they take as written and derived. Each is a text in the spec language, over the rank m."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """`before` and `after`: passes over m. `blocked`: a sub-expression that the report of what remains must show. `cheaper`: no
    fewer passes, but fewer operations."""

    name: str
    text: str
    before: int
    after: int
    blocked: str | None = None
    cheaper: bool = False


def _spec(name: str, inputs: str, body: str, outputs: str, ranks: str = "p: P, m: M, e: E, f: F", extra: str = "") -> str:
    lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
    return f"name: {name}\nranks: {{{ranks}}}\ninputs: {{{inputs}}}\n{extra}cascade: |\n{lines}\noutputs: [{outputs}]\n"


SCORES = "QK[p,m] = Q[p,e] * K[m,e]"
QKV = "Q: [p, e], K: [m, e], V: [m, f]"
SOFTMAX = """
GM[p] = max[m](S[p,m])
SN[p,m] = exp(S[p,m] - GM[p])
SD[p] = sum[m](SN[p,m])
A[p,m] = SN[p,m] / SD[p]
"""
READ = "AV[p,f] = A[p,m] * V[m,f]"
XV = "S: [p, m], V: [m, f]"
LINEAR = "Q: [p, e], K: [m, e], V: [m, f]"
FEATURES = "PQ[p,e] = exp(Q[p,e])\nPK[m,e] = exp(K[m,e])\nS[p,m] = PQ[p,e] * PK[m,e]"


def _attention(name: str, scores: str, inputs: str = QKV, extra: str = "") -> str:
    return _spec(name, inputs, f"{SCORES}\n{scores}\n{SOFTMAX}{READ}", "AV", extra=extra)


CASES = [
    # --- softmax attention: 3 -> 1
    Case("softmax", _attention("softmax", "S[p,m] = QK[p,m]"), 3, 1),
    Case("causal", _attention("causal", "S[p,m] = where(m <= p, QK[p,m], -inf)"), 3, 1),
    Case("window", _attention("window", "S[p,m] = where(abs(p - m) <= 2, QK[p,m], -inf)"), 3, 1),
    Case("biased", _attention("biased", "S[p,m] = QK[p,m] + B[p,m]", f"{QKV}, B: [p, m]"), 3, 1),
    Case("soft-capped", _attention("soft-capped", "S[p,m] = 20 * tanh(QK[p,m] / 20)"), 3, 1),
    Case("temperature", _attention("temperature", "S[p,m] = QK[p,m] * T[p]", f"{QKV}, T: [p]"), 3, 1),
    Case(
        "dropout",
        _spec(
            "dropout",
            f"{QKV}, D: {{ranks: [p, m], dtype: bool}}",
            f"{SCORES}\nS[p,m] = QK[p,m]\n{SOFTMAX}AD[p,m] = where(D[p,m], A[p,m] / 0.9, 0)\nAV[p,f] = AD[p,m] * V[m,f]",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "segments",
        _attention(
            "segments",
            "S[p,m] = where(U[p] == W[m], QK[p,m], -inf)",
            f"{QKV}, U: {{ranks: [p], dtype: int}}, W: {{ranks: [m], dtype: int}}",
        ),
        3,
        1,
    ),
    Case(
        "grouped-queries",
        _spec(
            "grouped-queries",
            "Q: [h, p, e], K: [k, m, e], V: [k, m, f]",
            """
S[h,p,m] = Q[h,p,e] * K[h//G,m,e]
GM[h,p] = max[m](S[h,p,m])
SN[h,p,m] = exp(S[h,p,m] - GM[h,p])
SD[h,p] = sum[m](SN[h,p,m])
A[h,p,m] = SN[h,p,m] / SD[h,p]
AV[h,p,f] = A[h,p,m] * V[h//G,m,f]
""",
            "AV",
            ranks="h: G*KV, k: KV, p: P, m: M, e: E, f: F",
            extra="",
        ),
        3,
        1,
    ),
    Case(
        "sink",
        _spec(
            "sink",
            f"{XV}, Z: [p]",
            """
GM[p] = max(max[m](S[p,m]), Z[p])
SN[p,m] = exp(S[p,m] - GM[p])
SD[p] = sum[m](SN[p,m]) + exp(Z[p] - GM[p])
A[p,m] = SN[p,m] / SD[p]
AV[p,f] = A[p,m] * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "two-key-sets",
        _spec(
            "two-key-sets",
            "S: [p, m], V: [m, f], T: [p, n], W: [n, f]",
            """
GM[p] = max(max[m](S[p,m]), max[n](T[p,n]))
SN[p,m] = exp(S[p,m] - GM[p])
TN[p,n] = exp(T[p,n] - GM[p])
SD[p] = sum[m](SN[p,m]) + sum[n](TN[p,n])
A[p,m] = SN[p,m] / SD[p]
C[p,n] = TN[p,n] / SD[p]
AV[p,f] = sum[m](A[p,m] * V[m,f]) + sum[n](C[p,n] * W[n,f])
""",
            "AV",
            ranks="p: P, m: M, n: N, f: F",
        ),
        3,
        1,
    ),
    Case(
        "differential",
        _spec(
            "differential",
            "S: [p, m], T: [p, m], V: [m, f], L: [p]",
            """
G1[p] = max[m](S[p,m])
N1[p,m] = exp(S[p,m] - G1[p])
D1[p] = sum[m](N1[p,m])
G2[p] = max[m](T[p,m])
N2[p,m] = exp(T[p,m] - G2[p])
D2[p] = sum[m](N2[p,m])
A[p,m] = N1[p,m] / D1[p] - L[p] * N2[p,m] / D2[p]
AV[p,f] = A[p,m] * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "scaled-inside",
        _spec(
            "scaled-inside",
            f"{XV}, T: [p]",
            """
GM[p] = max[m](S[p,m])
SN[p,m] = exp((S[p,m] - GM[p]) * T[p])
SD[p] = sum[m](SN[p,m])
AV[p,f] = SN[p,m] / SD[p] * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "base-2",
        _spec("base-2", XV, SOFTMAX.replace("exp(", "exp2(") + READ, "AV"),
        3,
        1,
    ),
    Case(
        "mask-after",
        _spec(
            "mask-after",
            XV,
            """
GM[p] = max[m](S[p,m])
SN[p,m] = where(m <= p, exp(S[p,m] - GM[p]), 0)
SD[p] = sum[m](SN[p,m])
AV[p,f] = SN[p,m] / SD[p] * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "min-stabilised",
        _spec(
            "min-stabilised",
            XV,
            """
GM[p] = min[m](S[p,m])
SN[p,m] = exp(GM[p] - S[p,m])
SD[p] = sum[m](SN[p,m])
AV[p,f] = SN[p,m] / SD[p] * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "from-log-sum-exp",
        _spec(
            "from-log-sum-exp",
            XV,
            """
GM[p] = max[m](S[p,m])
L[p] = log(sum[m](exp(S[p,m] - GM[p]))) + GM[p]
AV[p,f] = exp(S[p,m] - L[p]) * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case(
        "normalised-twice",
        _spec(
            "normalised-twice",
            XV,
            SOFTMAX
            + """
A2[p] = sum[m](A[p,m])
AV[p,f] = A[p,m] / A2[p] * V[m,f]
""",
            "AV",
        ),
        4,
        1,
    ),
    Case(
        "powers-of-weights",
        _spec(
            "powers-of-weights",
            XV,
            SOFTMAX
            + """
B[p,m] = A[p,m] ** 3
BD[p] = sum[m](B[p,m])
AV[p,f] = B[p,m] / BD[p] * V[m,f]
""",
            "AV",
        ),
        4,
        1,
    ),
    # --- reductions without a stabiliser
    Case(
        "plain-softmax",
        _spec("plain-softmax", XV, "AV[p,f] = exp(S[p,m]) / SD[p] * V[m,f]".join(["SD[p] = sum[m](exp(S[p,m]))\n", ""]), "AV"),
        2,
        1,
    ),
    Case(
        "softplus-power",
        _spec(
            "softplus-power",
            XV,
            """
B[p,m] = softplus(S[p,m])
BD[p] = sum[m](B[p,m])
A[p,m] = (B[p,m] / BD[p]) ** 3
AD[p] = sum[m](A[p,m])
AV[p,f] = A[p,m] / AD[p] * V[m,f]
""",
            "AV",
        ),
        3,
        1,
    ),
    Case("sigmoid", _spec("sigmoid", XV, "AV[p,f] = sigmoid(S[p,m]) * V[m,f]", "AV"), 1, 1),
    # --- normalisers and moments
    Case(
        "log-sum-exp",
        _spec(
            "log-sum-exp",
            "S: [p, m]",
            "GM[p] = max[m](S[p,m])\nL[p] = log(sum[m](exp(S[p,m] - GM[p]))) + GM[p]",
            "L",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    Case(
        "cross-entropy",
        _spec(
            "cross-entropy",
            "S: [p, m], T: {ranks: [p], dtype: int}",
            "GM[p] = max[m](S[p,m])\nL[p] = log(sum[m](exp(S[p,m] - GM[p]))) + GM[p] - S[p,clamp(T[p], 0, M-1)]",
            "L",
            ranks="p: P, m: M",
        ),
        3,
        1,
    ),
    Case(
        "rms-norm-product",
        _spec(
            "rms-norm-product",
            "X: [p, m], W: [m, f]",
            "MS[p] = mean[m](X[p,m] * X[p,m])\nN[p,m] = X[p,m] / sqrt(MS[p] + 0.001)\nY[p,f] = N[p,m] * W[m,f]",
            "Y",
        ),
        2,
        1,
    ),
    Case(
        "rsqrt-norm-product",
        _spec(
            "rsqrt-norm-product",
            "X: [p, m], W: [m, f]",
            "MS[p] = mean[m](X[p,m] * X[p,m])\nN[p,m] = X[p,m] * rsqrt(MS[p] + 0.001)\nY[p,f] = N[p,m] * W[m,f]",
            "Y",
        ),
        2,
        1,
    ),
    Case(
        "layer-norm-product",
        _spec(
            "layer-norm-product",
            "X: [p, m], W: [m, f]",
            """
MU[p] = mean[m](X[p,m])
C[p,m] = X[p,m] - MU[p]
VAR[p] = mean[m](C[p,m] * C[p,m])
N[p,m] = C[p,m] / sqrt(VAR[p] + 0.001)
Y[p,f] = N[p,m] * W[m,f]
""",
            "Y",
        ),
        3,
        1,
    ),
    Case(
        "variance",
        _spec(
            "variance", "X: [p, m]", "MU[p] = mean[m](X[p,m])\nVAR[p] = mean[m]((X[p,m] - MU[p]) ** 2)", "VAR", ranks="p: P, m: M"
        ),
        2,
        1,
    ),
    Case(
        "third-moment",
        _spec(
            "third-moment", "X: [p, m]", "MU[p] = mean[m](X[p,m])\nT[p] = mean[m]((X[p,m] - MU[p]) ** 3)", "T", ranks="p: P, m: M"
        ),
        2,
        1,
    ),
    Case(
        "weighted-variance",
        _spec(
            "weighted-variance",
            "S: [p, m], V: [m, f]",
            SOFTMAX
            + """
MU[p,f] = A[p,m] * V[m,f]
VAR[p,f] = sum[m](A[p,m] * (V[m,f] - MU[p,f]) ** 2)
""",
            "VAR",
        ),
        4,
        1,
    ),
    Case("entropy", _spec("entropy", "S: [p, m]", SOFTMAX + "H[p] = -sum[m](A[p,m] * log(A[p,m]))", "H", ranks="p: P, m: M"), 3, 1),
    Case(
        "dq",
        _spec(
            "dq",
            "S: [p, m], V: [m, f], K: [m, e], DO: [p, f]",
            SOFTMAX
            + """
DP[p,m] = DO[p,f] * V[m,f]
D[p] = A[p,m] * DP[p,m]
DS[p,m] = A[p,m] * (DP[p,m] - D[p])
DQ[p,e] = DS[p,m] * K[m,e]
""",
            "DQ",
        ),
        4,
        1,
    ),
    Case(
        "max-of-shares",
        _spec(
            "max-of-shares", "X: [p, m]", "S[p] = sum[m](abs(X[p,m]))\nY[p] = max[m](abs(X[p,m]) / S[p])", "Y", ranks="p: P, m: M"
        ),
        2,
        1,
    ),
    Case(
        "max-of-differences",
        _spec(
            "max-of-differences",
            "X: [p, m], W: [p, m]",
            "G[p] = max[m](X[p,m])\nY[p] = max[m](W[p,m] - G[p])",
            "Y",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    Case(
        "max-of-scaled-differences",
        _spec(
            "max-of-scaled-differences",
            "X: [p, m]",
            "G[p] = max[m](X[p,m])\nY[p] = max[m]((X[p,m] - G[p]) * 3)",
            "Y",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    Case(
        "max-of-weights",
        _spec(
            "max-of-weights", "X: [p, m]", "G[p] = max[m](X[p,m])\nY[p] = max[m](exp(X[p,m] - G[p]) * m)", "Y", ranks="p: P, m: M"
        ),
        2,
        1,
    ),
    Case(
        "agent",
        _spec(
            "agent",
            "Q: [p, e], AG: [a, e], K: [m, e], V: [m, f]",
            """
S[a,m] = AG[a,e] * K[m,e]
GM[a] = max[m](S[a,m])
SN[a,m] = exp(S[a,m] - GM[a])
SD[a] = sum[m](SN[a,m])
VA[a,f] = SN[a,m] / SD[a] * V[m,f]
T[p,a] = Q[p,e] * AG[a,e]
GA[p] = max[a](T[p,a])
TN[p,a] = exp(T[p,a] - GA[p])
TD[p] = sum[a](TN[p,a])
Y[p,f] = TN[p,a] / TD[p] * VA[a,f]
""",
            "Y",
            ranks="p: P, a: A, m: M, e: E, f: F",
        ),
        3,
        1,
    ),
    Case(
        "computed-twice",
        _spec(
            "computed-twice",
            XV,
            """
S1[p] = sum[m](exp(S[p,m]))
S2[p] = sum[m](exp(S[p,m]))
AV[p,f] = exp(S[p,m]) / S1[p] / S2[p] * V[m,f]
""",
            "AV",
        ),
        2,
        1,
    ),
    Case(
        "hidden-factor",
        _spec(
            "hidden-factor",
            "X: [p, m], W: [p, m]",
            """
G[p] = sum[m](X[p,m])
H[p] = sum[m](W[p,m])
Y[p] = sum[m]((X[p,m] * G[p] * H[p] - G[p] * H[p] * W[p,m]) / (X[p,m] * G[p] + X[p,m] * H[p] + 3 * G[p] + 3 * H[p]))
""",
            "Y",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    Case(
        "cosine",
        _spec(
            "cosine",
            "Q: [p, e], K: [m, e], V: [m, f]",
            """
NQ[p] = sqrt(sum[e](Q[p,e] ** 2))
NK[m] = sqrt(sum[e](K[m,e] ** 2))
C[p,m] = Q[p,e] * K[m,e]
T[p,m] = 10 * C[p,m] / (NQ[p] * NK[m] + 0.01)
G[p] = max[m](T[p,m])
N[p,m] = exp(T[p,m] - G[p])
D[p] = sum[m](N[p,m])
Y[p,f] = N[p,m] / D[p] * V[m,f]
""",
            "Y",
        ),
        3,
        1,
    ),
    Case(
        "centred-scores",
        _spec(
            "centred-scores",
            "S: [p, m], V: [m, f]",
            """
MU[p] = mean[m](S[p,m])
T[p,m] = S[p,m] - MU[p]
G[p] = max[m](T[p,m])
N[p,m] = exp(T[p,m] - G[p])
D[p] = sum[m](N[p,m])
Y[p,f] = N[p,m] / D[p] * V[m,f]
""",
            "Y",
        ),
        4,
        1,
    ),
    Case(
        "scores-of-channels",
        _spec(
            "scores-of-channels",
            "X: [p, m, e], W: [m, f]",
            """
S[p,e] = max[m](X[p,m,e])
N[p,m,e] = exp(X[p,m,e] - S[p,e])
D[p] = sum[m,e](N[p,m,e])
Y[p,f] = sum[m,e](N[p,m,e] / D[p] * W[m,f])
""",
            "Y",
        ),
        3,
        1,
    ),
    Case(
        "one-plus",
        _spec(
            "one-plus",
            "S: [p, m], V: [m, f]",
            """
G[p] = max(max[m](S[p,m]), 0)
N[p,m] = exp(S[p,m] - G[p])
D[p] = exp(-G[p]) + sum[m](N[p,m])
Y[p,f] = N[p,m] / D[p] * V[m,f]
""",
            "Y",
        ),
        3,
        1,
    ),
    Case(
        "focal",
        _spec(
            "focal",
            "S: [p, m], V: [m, f]",
            """
T[p,m] = S[p,m]
G[p] = max[m](T[p,m])
N[p,m] = exp(T[p,m] - G[p])
D[p] = sum[m](N[p,m])
A[p,m] = N[p,m] / D[p]
Y[p,f] = A[p,m] * (1 - A[p,m]) ** 2 * V[m,f]
""",
            "Y",
        ),
        3,
        1,
    ),
    Case(
        "correlation",
        _spec(
            "correlation",
            "X: [p, m], Z: [p, m]",
            """
A[p] = mean[m](X[p,m])
B[p] = mean[m](Z[p,m])
C[p] = mean[m]((X[p,m] - A[p]) * (Z[p,m] - B[p]))
VX[p] = mean[m]((X[p,m] - A[p]) ** 2)
VZ[p] = mean[m]((Z[p,m] - B[p]) ** 2)
R[p] = C[p] / sqrt(VX[p] * VZ[p] + 0.01)
""",
            "R",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    Case(
        "covariance-matrix",
        _spec(
            "covariance-matrix",
            "X: [m, c]",
            """
MU[c] = mean[m](X[m,c])
Y[c,d] = mean[m]((X[m,c] - MU[c]) * (X[m,d] - MU[d]))
""",
            "Y",
            ranks="m: M, c: C, d: C",
        ),
        2,
        1,
    ),
    Case(
        "kurtosis",
        _spec(
            "kurtosis",
            "X: [p, m]",
            """
A[p] = mean[m](X[p,m])
V[p] = mean[m]((X[p,m] - A[p]) ** 2)
K[p] = mean[m](((X[p,m] - A[p]) / sqrt(V[p] + 0.1)) ** 4)
""",
            "K",
            ranks="p: P, m: M",
        ),
        3,
        1,
    ),
    Case(
        "divergence",
        _spec(
            "divergence",
            "S: [p, m], T: [p, m]",
            """
GS[p] = max[m](S[p,m])
NS[p,m] = exp(S[p,m] - GS[p])
DS[p] = sum[m](NS[p,m])
A[p,m] = NS[p,m] / DS[p]
GT[p] = max[m](T[p,m])
NT[p,m] = exp(T[p,m] - GT[p])
DT[p] = sum[m](NT[p,m])
B[p,m] = NT[p,m] / DT[p]
KL[p] = sum[m](A[p,m] * (log(A[p,m]) - log(B[p,m])))
""",
            "KL",
            ranks="p: P, m: M",
        ),
        3,
        1,
    ),
    Case(
        "argmax-beside",
        _spec(
            "argmax-beside",
            "X: [p, m]",
            """
I[p] = argmax[m](X[p,m])
G[p] = max[m](X[p,m])
L[p] = sum[m](exp(X[p,m] - G[p]))
Z[p] = I[p] + L[p]
""",
            "Z",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    Case(
        "minimum-and-sum",
        _spec(
            "minimum-and-sum",
            "X: [p, m]",
            """
G[p] = min[m](X[p,m])
T[p] = sum[m](X[p,m])
Y[p] = sum[m](exp(tanh(T[p]) + G[p] - X[p,m]))
Z[p] = max[m](-X[p,m] / (1 + abs(T[p])))
""",
            "Y, Z",
            ranks="p: P, m: M",
        ),
        2,
        1,
    ),
    # --- partly
    Case(
        "softmax-kept",
        _spec("softmax-kept", "S: [p, m]", SOFTMAX, "A", ranks="p: P, m: M"),
        3,
        2,
        "SN[p,m] / SD",
    ),
    Case(
        "ds",
        _spec(
            "ds",
            "S: [p, m], V: [m, f], DO: [p, f]",
            SOFTMAX
            + """
DP[p,m] = DO[p,f] * V[m,f]
D[p] = A[p,m] * DP[p,m]
DS[p,m] = A[p,m] * (DP[p,m] - D[p])
""",
            "DS",
            ranks="p: P, m: M, f: F",
        ),
        4,
        2,
        "DP[p,m]",
    ),
    Case(
        "softplus-offset",
        _spec(
            "softplus-offset",
            XV,
            """
B[p,m] = softplus(S[p,m])
BD[p] = sum[m](B[p,m])
A[p,m] = relu(B[p,m] / BD[p] - 0.1) ** 3
AD[p] = sum[m](A[p,m])
AV[p,f] = A[p,m] / AD[p] * V[m,f]
""",
            "AV",
        ),
        3,
        2,
        "relu(B[p,m] / BD[p] - 0.1)",
    ),
    Case(
        "two-phases",
        _spec(
            "two-phases",
            XV,
            """
GM[p] = max[m](S[p,m])
R[p,m] = relu(S[p,m] - GM[p] + 1)
RM[p] = max[m](R[p,m])
SN[p,m] = exp(R[p,m] - RM[p])
SD[p] = sum[m](SN[p,m])
AV[p,f] = SN[p,m] / SD[p] * V[m,f]
""",
            "AV",
        ),
        4,
        2,
        "relu(S[p,m] - GM[p] + 1)",
    ),
    Case(
        "normed-scores",
        _spec(
            "normed-scores",
            "S: [p, m], V: [m, f]",
            """
L[p] = sqrt(sum[m](S[p,m] ** 2))
T[p,m] = S[p,m] / L[p]
G[p] = max[m](T[p,m])
N[p,m] = exp(T[p,m] - G[p])
D[p] = sum[m](N[p,m])
Y[p,f] = N[p,m] / D[p] * V[m,f]
""",
            "Y",
        ),
        4,
        2,
        "S[p,m] / L[p]",
    ),
    # --- contractions in another order
    Case("linear", _spec("linear", LINEAR, f"{FEATURES}\nY[p,f] = S[p,m] * V[m,f]", "Y"), 1, 1, cheaper=True),
    Case(
        "linear-normalised",
        _spec("linear-normalised", LINEAR, f"{FEATURES}\nSD[p] = sum[m](S[p,m])\nA[p,m] = S[p,m] / SD[p]\n{READ}", "AV"),
        2,
        1,
    ),
    Case(
        "linear-causal",
        _spec(
            "linear-causal",
            LINEAR,
            f"{FEATURES}\nSM[p,m] = where(m <= p, S[p,m], 0)\nSD[p] = sum[m](SM[p,m])\nA[p,m] = SM[p,m] / SD[p]\n{READ}",
            "AV",
            ranks="p: M, m: M, e: E, f: F",
        ),
        2,
        1,
    ),
    Case(
        "linear-strictly-causal",
        _spec(
            "linear-strictly-causal",
            LINEAR,
            f"{FEATURES}\nY[p,f] = sum[m](where(m < p, S[p,m], 0) * V[m,f])",
            "Y",
            ranks="p: M, m: M, e: E, f: F",
        ),
        1,
        1,
        cheaper=True,
    ),
    Case(
        "linear-causal-cross",
        _spec("linear-causal-cross", LINEAR, f"{FEATURES}\nY[p,f] = sum[m](where(m <= p, S[p,m], 0) * V[m,f])", "Y"),
        1,
        1,
    ),
    Case(
        "retention",
        _spec(
            "retention",
            QKV,
            f"{SCORES}\nY[p,f] = sum[m](where(m <= p, QK[p,m] * 0.9 ** (p - m), 0) * V[m,f])",
            "Y",
            ranks="p: M, m: M, e: E, f: F",
        ),
        1,
        1,
        cheaper=True,
    ),
    Case(
        "linear-subtractive",
        _spec("linear-subtractive", LINEAR, f"{FEATURES}\nMU[p] = mean[m](S[p,m])\nA[p,m] = S[p,m] - MU[p] + 1 / M\n{READ}", "AV"),
        2,
        1,
    ),
    Case(
        "pooled-query",
        _spec(
            "pooled-query",
            "X: [m, e], V: [m, f]",
            "G[e] = max[m](X[m,e])\nS[m] = sum[e](G[e] * X[m,e])\nY[f] = sum[m](S[m] * V[m,f])",
            "Y",
            ranks="m: M, e: E, f: F",
        ),
        2,
        1,
    ),
    Case(
        "low-rank-keys",
        _spec(
            "low-rank-keys",
            "Q: [p, e], C: [m, c], U: [c, e], V: [m, f]",
            f"K[m,e] = C[m,c] * U[c,e]\n{SCORES}\nS[p,m] = QK[p,m]\n{SOFTMAX}{READ}",
            "AV",
            ranks="p: P, m: M, c: L, e: E, f: F",
            extra="sizes: {P: 1, M: 4096, L: 8, E: 64, F: 8}\n",
        ),
        3,
        1,
    ),
    Case(
        "chain",
        _spec(
            "chain",
            "A: [p, m], B: [m, n], C: [n, e], X: [e, f]",
            "AB[p,n] = A[p,m] * B[m,n]\nABC[p,e] = AB[p,n] * C[n,e]\nY[p,f] = ABC[p,e] * X[e,f]",
            "Y",
            ranks="p: P, m: M, n: N, e: E, f: F",
            extra="sizes: {P: 64, M: 64, N: 64, E: 64, F: 1}\n",
        ),
        1,
        1,
        cheaper=True,
    ),
    # --- must stay above 1
    Case(
        "sigmoid-of-difference",
        _spec("sigmoid-of-difference", XV, "GM[p] = max[m](S[p,m])\nAV[p,f] = sum[m](sigmoid(S[p,m] - GM[p]) * V[m,f])", "AV"),
        2,
        2,
        "sigmoid(S[p,m] - GM[p])",
    ),
    Case(
        "relu-of-difference",
        _spec("relu-of-difference", XV, "GM[p] = max[m](S[p,m])\nAV[p,f] = sum[m](relu(S[p,m] - GM[p]) * V[m,f])", "AV"),
        2,
        2,
        "relu(S[p,m] - GM[p])",
    ),
    Case(
        "mean-absolute-deviation",
        _spec(
            "mean-absolute-deviation",
            "X: [p, m]",
            "MU[p] = mean[m](X[p,m])\nY[p] = mean[m](abs(X[p,m] - MU[p]))",
            "Y",
            ranks="p: P, m: M",
        ),
        2,
        2,
        "abs(X[p,m] - MU[p])",
    ),
    Case(
        "global-quantisation",
        _spec(
            "global-quantisation",
            "X: [p, m], W: [m, f]",
            "A[p] = max[m](abs(X[p,m]))\nQ[p,m] = round(X[p,m] * 127 / A[p])\nY[p,f] = sum[m](Q[p,m] * W[m,f]) * A[p] / 127",
            "Y",
        ),
        2,
        2,
        "round(X[p,m] * 127 / A[p])",
    ),
    Case(
        "above-the-mean",
        _spec(
            "above-the-mean",
            "X: [p, m]",
            "MU[p] = mean[m](X[p,m])\nY[p] = sum[m](where(X[p,m] > MU[p], X[p,m], 0))",
            "Y",
            ranks="p: P, m: M",
        ),
        2,
        2,
        "where(X[p,m] > MU[p], X[p,m], 0)",
    ),
    Case(
        "top-k",
        _spec(
            "top-k",
            "S: [p, m], V: [m, f]",
            "I[p,j] = argtopk[m](S[p,m])\nY[p,f] = sum[j](V[I[p,j],f])",
            "Y",
            ranks="p: P, m: M, j: J, f: F",
            extra="sizes: {J: 1}\n",
        ),
        2,
        2,
        "V[I[p,j],f]",
    ),
    Case(
        "top-k-beside-a-softmax",
        _spec(
            "top-k-beside-a-softmax",
            XV,
            """
G[p] = max[m](S[p,m])
L[p] = sum[m](exp(S[p,m] - G[p]))
I[p,j] = argtopk[m](S[p,m])
T[p,j] = topk[m](S[p,m])
W[p,j] = exp(T[p,j] - G[p]) / L[p]
Y[p,f] = sum[j](W[p,j] * V[I[p,j],f])
""",
            "Y",
            ranks="p: P, m: M, j: J, f: F",
            extra="sizes: {J: 1}\n",
        ),
        3,
        2,
        "V[",
    ),
    Case(
        "top-k-weights",
        _spec(
            "top-k-weights",
            "S: [p, m]",
            """
G[p] = max[m](S[p,m])
L[p] = sum[m](exp(S[p,m] - G[p]))
I[p,j] = argtopk[m](S[p,m])
T[p,j] = topk[m](S[p,m])
W[p,j] = exp(T[p,j] - G[p]) / L[p]
""",
            "I, W",
            ranks="p: P, m: M, j: J",
            extra="sizes: {J: 1}\n",
        ),
        2,
        1,
    ),
    Case(
        "channel",
        _spec(
            "channel",
            "Q: [m, c], K: [m, d], V: [m, d]",
            """
S[c,d] = Q[m,c] * K[m,d]
G[c] = max[d](S[c,d])
N[c,d] = exp(S[c,d] - G[c])
D[c] = sum[d](N[c,d])
Y[m,c] = N[c,d] / D[c] * V[m,d]
""",
            "Y",
            ranks="m: M, c: C, d: C2",
        ),
        2,
        2,
        "N[c,d] / D[c]",
    ),
    Case(
        "sparsemax",
        _spec(
            "sparsemax",
            "S: [p, m]",
            """
Z[p,j] = sort[m](S[p,m])
C[p,j] = cumsum[j](Z[p,j])
K[p] = sum[j](where(1 + (j + 1) * Z[p,j] > C[p,j], 1, 0))
T[p] = (C[p,K[p]-1] - 1) / K[p]
A[p,m] = max(S[p,m] - T[p], 0)
""",
            "A",
            ranks="p: P, m: M, j: M",
        ),
        2,
        2,
        "max(S[p,m] - T[p], 0)",
    ),
    Case(
        "bounded-against-a-minimum",
        _spec(
            "bounded-against-a-minimum",
            "X: [p, m]",
            "G[p] = min[m](X[p,m])\nY[p] = sum[m](exp(tanh(X[p,m]) - tanh(G[p])))",
            "Y",
            ranks="p: P, m: M",
        ),
        2,
        2,
        "exp(tanh(X[p,m]) - tanh(G[p]))",
    ),
    Case(
        "near-the-maximum",
        _spec(
            "near-the-maximum",
            "S: [p, m], V: [m, f]",
            """
G[p] = max[m](S[p,m])
Y[p,f] = sum[m](where(S[p,m] > G[p] - 5, exp(S[p,m] - G[p]), 0) * V[m,f])
""",
            "Y",
        ),
        2,
        2,
        "where(S[p,m] > G[p] - 5, exp(S[p,m] - G[p]), 0)",
    ),
    Case(
        "softmax-over-queries",
        _spec(
            "softmax-over-queries",
            "Q: [m, e], K: [n, e], V: [n, f]",
            """
S[m,n] = Q[m,e] * K[n,e]
GM[n] = max[m](S[m,n])
SN[m,n] = exp(S[m,n] - GM[n])
SD[n] = sum[m](SN[m,n])
AV[m,f] = sum[n](SN[m,n] / SD[n] * V[n,f])
""",
            "AV",
            ranks="m: M, n: N, e: E, f: F",
        ),
        3,
        2,
        "sum[n](SN[m,n] / SD_run[M1,n] * V[n,f])",
    ),
    Case(
        "softmax-of-a-softmax",
        _spec(
            "softmax-of-a-softmax",
            XV,
            SOFTMAX.strip()
            + """
GB[p] = max[m](A[p,m])
BN[p,m] = exp(A[p,m] - GB[p])
BD[p] = sum[m](BN[p,m])
AV[p,f] = BN[p,m] / BD[p] * V[m,f]
""",
            "AV",
        ),
        5,
        2,
        "SN[p,m] / SD[p]",
    ),
    Case(
        "shares-of-a-layer",
        _spec(
            "shares-of-a-layer",
            "X: [m, n], W: [n, f]",
            "D[n] = sum[m](abs(X[m,n]))\nY[m,n] = X[m,n] / D[n]\nZ[f] = sum[m,n](Y[m,n] * W[n,f])",
            "Z",
            ranks="m: M, n: N, f: F",
        ),
        2,
        1,
    ),
    Case(
        "shifted-exponentials",  # random features: a small number beside each exponential
        _spec(
            "shifted-exponentials",
            "X: [m, n], V: [m, f]",
            "G = max[m,n](X[m,n])\nW[m,n] = exp(X[m,n] - G) + 0.1\nD[n] = sum[m](W[m,n])\nY[n,f] = sum[m](W[m,n] * V[m,f])/D[n]",
            "Y",
            ranks="m: M, n: N, f: F",
        ),
        2,
        1,
    ),
    Case(
        "low-rank-bias",
        _attention("low-rank-bias", "S[p,m] = QK[p,m] + sum[r](L[p,r] * R[m,r])", f"{QKV}, L: [p, r], R: [m, r]").replace(
            "f: F}", "f: F, r: R0}"
        ),
        3,
        1,
    ),
]
BY_NAME = {case.name: case for case in CASES}
