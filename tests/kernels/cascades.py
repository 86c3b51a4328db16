"""Cascades for the kernel tests, most of them written for this purpose: no algorithm that has a name."""

FLASH = """
name: masked-softmax
ranks: {b: B, h: H, p: P, m: M, e: E, f: F}
inputs: {Q: [b, h, p, e], K: [b, h, m, e], V: [b, h, m, f]}
params: {scale: 1/sqrt(E)}
cascade: |
  S[b,h,p,m]  = where(m <= p, sum[e](Q[b,h,p,e] * K[b,h,m,e]) * scale, -inf)
  G[b,h,p]    = max[m](S[b,h,p,m])
  N[b,h,p,m]  = exp(S[b,h,p,m] - G[b,h,p])
  D[b,h,p]    = sum[m](N[b,h,p,m])
  AV[b,h,p,f] = sum[m](N[b,h,p,m] * V[b,h,m,f]) / D[b,h,p]
outputs: [AV]
"""

STRANGE = """
name: capped-sink-window-grouped
doc: Grouped queries, capped scores, sinks and a window, a sink term in the denominator, a gate after the sum.
ranks: {h: KV*G, g: KV, p: P, m: M, e: E, f: F}
inputs: {Q: [h, p, e], K: [g, m, e], V: [g, m, f], T: [h], U: [h, p, f]}
params: {scale: 1/sqrt(E), cap: 5, W: 9, sinks: 2}
cascade: |
  S[h,p,m]  = cap * tanh(Q[h,p,e] * K[h//G,m,e] * scale / cap)
  L[h,p,m]  = where(m <= p and (m < sinks or p - m < W), S[h,p,m], -inf)
  X[h,p]    = max(max[m](L[h,p,m]), T[h])
  N[h,p,m]  = exp(L[h,p,m] - X[h,p])
  D[h,p]    = sum[m](N[h,p,m]) + exp(T[h] - X[h,p])
  A[h,p,f]  = sum[m](N[h,p,m] / D[h,p] * V[h//G,m,f])
  Y[h,p,f]  = A[h,p,f] * sigmoid(U[h,p,f])
outputs: [Y]
"""

NOWHERE = """
name: band-power
doc: No exponential, a running minimum beside a sum of squares, a band mask, two outputs.
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
params: {W: 6}
cascade: |
  S[p,m] = Q[p,e] * K[m,e]
  R[p,m] = where(abs(p - m) <= W, relu(S[p,m]) ** 2, 0)
  O[p,f] = R[p,m] * V[m,f]
  Z[p]   = min[m](where(abs(p - m) <= W, S[p,m], inf))
outputs: [O, Z]
"""

GATHER = """
name: gathered
doc: Keys and values chosen by an integer input; clamped positions.
ranks: {h: H, p: P, j: J, m: M, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f], I: {ranks: [p, j], dtype: int}}
cascade: |
  S[h,p,j] = Q[h,p,e] * K[h,I[p,j],e]
  A[h,p,j] = sigmoid(S[h,p,j] - 1)
  Y[h,p,f] = sum[j](A[h,p,j] * V[h,clamp(I[p,j] + j - 1, 0, M - 1),f])
outputs: [Y]
"""

NORM = """
name: row-norm
ranks: {t: T, d: D}
inputs: {X: [t, d], W: [d]}
params: {tiny: 0.00001}
cascade: |
  Q[t]   = mean[d](X[t,d] * X[t,d])
  Y[t,d] = X[t,d] * rsqrt(Q[t] + tiny) * W[d]
outputs: [Y]
"""

STATE = """
name: decaying-state
ranks: {h: H, t: T, e: E, f: F}
inputs: {Q: [h, t, e], K: [h, t, e], V: [h, t, f], G: [h, t]}
cascade: |
  S[h,0,e,f]   = 0
  S[h,t+1,e,f] = S[h,t,e,f] * sigmoid(G[h,t]) + K[h,t,e] * V[h,t,f]
  O[h,t,f]     = Q[h,t,e] * S[h,t+1,e,f]
outputs: [O]
"""

CHANNELS = """
name: between-channels
doc: Two passes over the long rank t, which is on the output too; softmax between channels.
ranks: {t: T, c: C, d: C}
inputs: {Q: [t, c], K: [t, d], V: [t, d]}
cascade: |
  S[c,d] = Q[t,c] * K[t,d]
  G[c]   = max[d](S[c,d])
  N[c,d] = exp(S[c,d] - G[c])
  O[t,c] = sum[d](N[c,d] * V[t,d]) / sum[d](N[c,d])
outputs: [O]
"""

PRODUCT = """
name: plain-product
ranks: {i: I, j: J, k: K}
inputs: {A: [i, k], B: [k, j], C: [j]}
cascade: |
  Y[i,j] = gelu(sum[k](A[i,k] * B[k,j]) + C[j])
outputs: [Y]
"""

LENGTHS = """
name: ragged
ranks: {b: B, p: P, m: M, e: E, f: F}
inputs: {Q: [b, p, e], K: [b, m, e], V: [b, m, f], LEN: {ranks: [b], dtype: int}, OFF: {ranks: [b, p], dtype: int}}
cascade: |
  S[b,p,m] = where(m < LEN[b] and m >= OFF[b,p], sum[e](Q[b,p,e] * K[b,m,e]), -inf)
  G[b,p]   = max[m](S[b,p,m])
  N[b,p,m] = exp(S[b,p,m] - G[b,p])
  Y[b,p,f] = sum[m](N[b,p,m] * V[b,m,f]) / sum[m](N[b,p,m])
outputs: [Y]
"""

SHIFTED = """
name: neighbours
doc: Scores of a row and of the row before it (read from another tile), a scan along the keys, the best three of the blend.
ranks: {p: P, m: M, j: 3, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
cascade: |
  S[p,m] = Q[p,e] * K[m,e]
  D[p,m] = S[p,m] - where(p > 0, S[p - 1,m], 0)
  C[p,m] = cummax[m](D[p,m])
  B[p,m] = cumsum[m](C[p,m] * 0.1) - D[p,m]
  I[p,j] = argtopk[m](B[p,m])
  T[p,j] = topk[m](B[p,m])
  W[p]   = argmin[m](B[p,m])
  Y[p,f] = sum[j](sigmoid(T[p,j]) * V[I[p,j],f]) + V[W[p],f]
outputs: [Y, I]
"""

TWO_WALKS = """
name: two-walks
doc: A softmax over keys whose values come from a running state along them, and a state whose last position is needed.
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f], G: [m]}
cascade: |
  U[0,f]   = 0
  U[m+1,f] = U[m,f] * sigmoid(G[m]) + V[m,f]
  X[m,f]   = U[m+1,f] - V[m,f]
  S[p,m]   = Q[p,e] * K[m,e]
  M0[p]    = max[m](S[p,m])
  N[p,m]   = exp(S[p,m] - M0[p])
  Y[p,f]   = sum[m](N[p,m] * X[m,f]) / sum[m](N[p,m]) + U[M,f]
outputs: [Y]
"""

PREFIX = """
name: prefix-products
doc: Scans along a rank that is walked, one of whole numbers.
ranks: {h: H, t: T, f: F}
inputs: {X: [h, t, f], I: {ranks: [h, t], dtype: int}}
cascade: |
  C[h,t,f] = cumsum[t](tanh(X[h,t,f]))
  L[h,t]   = cummax[t](I[h,t] - t)
  Z[h,f]   = sum[t](C[h,t,f] * X[h,t,f])
outputs: [C, L, Z]
"""

CUT_TILES = """
name: tiles-with-tails
doc: Reductions within tiles of which the last may be cut, of values that are not 0 outside.
ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, e: E, j: 2}
inputs: {X: [p, m, e]}
cascade: |
  A[p,m1,e] = sum[m0](X[p,m1*M0+m0,e] + 1)
  B[p,m1,e] = max[m0](X[p,m1*M0+m0,e] - 7)
  C[p,m1,e] = mean[m0](X[p,m1*M0+m0,e] ** 2)
  D[p,m0,e] = max[m1](X[p,m1*M0+m0,e] - 7)
  N[m1]     = all[m0](m0 < 2)
  S[p,m1,m0,e] = X[p,m1*M0+m0,e] + 1
  T[p,m1,j,e]  = argtopk[m0](X[p,m1*M0+m0,e] - 7)
  U[p,m1,m0,e] = cumsum[m0](X[p,m1*M0+m0,e])
outputs: [A, B, C, D, N, S, T, U]
"""

BOTH_WAYS = """
name: both-ways
doc: One state runs forward and one backward; both are read at every position.
ranks: {m: M, e: E}
inputs: {X: [m, e], G: [m]}
cascade: |
  A[0,e]   = 0
  A[m+1,e] = A[m,e] * sigmoid(G[m]) + X[m,e]
  B[0,e]   = 0
  B[m+1,e] = B[m,e] * sigmoid(G[M-1-m]) - X[M-1-m,e]
  Y[m]     = sum[e](X[m,e] * (A[m+1,e] + B[M-m,e])) / E + G[m]
outputs: [Y]
"""

SCATTERED = """
name: scattered
doc: Contributions put where an integer input says, combined in two ways; some places get none.
ranks: {p: P, j: J, f: F}
inputs: {X: [j, f], I: {ranks: [j], dtype: int}}
tensors: {Y: [p, f], Z: [p]}
cascade: |
  Y[I[j],f] = sum[j](X[j,f] * 2)
  Z[I[j]]   = max[j](X[j,0])
outputs: [Y, Z]
"""

DILATED = """
name: dilated-neighbourhood
doc: |
  Tokens of an image attend to a dilated square around them, with capped scores, a sink for each head, eight query heads
  to a key head, and a gate on what comes out.
ranks: {b: B, h: KV*G, g: KV, p: NY*NX, m: NY*NX, e: E, f: F}
inputs:
  Q: [b, h, p, e]
  K: [b, g, m, e]
  V: [b, g, m, f]
  T: [h]
  U: [b, h, p, f]
params: {scale: 1/sqrt(E), cap: 30, W: 3, D: 2}
sizes: {B: 1, KV: 2, G: 8, NY: 64, NX: 64, E: 64, F: 64}
cascade: |
  S[b,h,p,m]  = cap * tanh(sum[e](Q[b,h,p,e] * K[b,h//G,m,e]) * scale / cap)
  L[b,h,p,m]  = where(abs(p//NX - m//NX) <= W*D and (p//NX - m//NX) % D == 0
                  and abs(p%NX - m%NX) <= W*D and (p%NX - m%NX) % D == 0, S[b,h,p,m], -inf)
  X[b,h,p]    = max(max[m](L[b,h,p,m]), T[h])
  N[b,h,p,m]  = exp(L[b,h,p,m] - X[b,h,p])
  Z[b,h,p]    = sum[m](N[b,h,p,m]) + exp(T[h] - X[b,h,p])
  A[b,h,p,f]  = sum[m](N[b,h,p,m] / Z[b,h,p] * V[b,h//G,m,f])
  Y[b,h,p,f]  = A[b,h,p,f] * sigmoid(U[b,h,p,f])
outputs: [Y]
"""

WINDOW = """
name: dilated-window-with-a-table
doc: Each row sees W rows before it, D apart, with a number for each place in the window.
ranks: {p: P, m: P, w: W, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f], T: [w]}
params: {D: 3}
cascade: |
  S[p,w] = where(p - w*D >= 0, sum[e](Q[p,e] * K[p - w*D,e]) + T[w], -inf)
  G[p]   = max[w](S[p,w])
  N[p,w] = exp(S[p,w] - G[p])
  D1[p]  = sum[w](N[p,w])
  Y[p,f] = sum[w](where(p - w*D >= 0, N[p,w] * V[p - w*D,f], 0)) / D1[p]
outputs: [Y]
"""

IMAGE = """
name: window-of-an-image
doc: A clamped window of an image; weights that do not vanish outside of it.
ranks: {y: NY, x: NX, u: U, v: V, e: E, f: F}
inputs: {Q: [y, x, e], K: [y, x, e], Z: [y, x, f]}
cascade: |
  S[y,x,u,v] = sum[e](Q[y,x,e] * K[clamp(y - U//2, 0, NY - U) + u,clamp(x - V//2, 0, NX - V) + v,e])
  N[y,x,u,v] = 1 + tanh(S[y,x,u,v])
  Y[y,x,f]   = sum[u,v](N[y,x,u,v] * Z[clamp(y - U//2, 0, NY - U) + u,clamp(x - V//2, 0, NX - V) + v,f])
outputs: [Y]
"""

BLOCKS = """
name: blocks-turned
doc: Rows in blocks of W, counted from row S on; each sees its block and A rows on both sides of it, round the end.
ranks: {p: R*W, m: R*W, u: W + 2*A, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
params: {S: 3}
cascade: |
  L[p,u] = sum[e](Q[p,e] * K[((p - S) % (R*W)//W*W + u - A + S) % (R*W),e])
  G[p]   = max[u](L[p,u])
  N[p,u] = exp(L[p,u] - G[p])
  D[p]   = sum[u](N[p,u])
  Y[p,f] = sum[u](N[p,u] * V[((p - S) % (R*W)//W*W + u - A + S) % (R*W),f]) / D[p]
outputs: [Y]
"""

CUT_BLOCKS = """
name: blocks-of-an-image
doc: Pixels in blocks of W by W, of which the last are cut; each sees its block and A pixels around it.
ranks: {h: H, y: NY, x: NX, u: W + 2*A, v: W + 2*A, e: E, f: F}
inputs: {Q: [h, y, x, e], K: [h, y, x, e], V: [h, y, x, f]}
cascade: |
  L[h,y,x,u,v] = sum[e](where(0 <= y//W*W + u - A < NY and 0 <= x//W*W + v - A < NX,
                   Q[h,y,x,e] * K[h,y//W*W + u - A,x//W*W + v - A,e], 0))
  N[h,y,x,u,v] = where(0 <= y//W*W + u - A < NY and 0 <= x//W*W + v - A < NX, sigmoid(L[h,y,x,u,v]), 0)
  Y[h,y,x,f]   = sum[u,v](where(0 <= y//W*W + u - A < NY and 0 <= x//W*W + v - A < NX,
                   N[h,y,x,u,v] * V[h,y//W*W + u - A,x//W*W + v - A,f], 0))
outputs: [Y]
"""

STICK = """
name: what-is-left
doc: Each key takes a share of what later ones leave, by sums of logarithms; a difference of a sum and a scan under an exponential.
ranks: {h: H, p: N, m: N, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
params: {scale: 1/sqrt(E)}
cascade: |
  Z[h,p,m]  = Q[h,p,e] * K[h,m,e] * scale
  L[h,p,m]  = where(m < p, -softplus(Z[h,p,m]), 0)
  T[h,p]    = sum[m](L[h,p,m])
  C[h,p,m]  = cumsum[m](L[h,p,m])
  A[h,p,m]  = where(m < p, exp(Z[h,p,m] + L[h,p,m] + T[h,p] - C[h,p,m]), 0)
  AV[h,p,f] = A[h,p,m] * V[h,m,f]
outputs: [AV]
"""

BETWEEN = """
name: between-places
doc: Positions that are sums of gates; a table is read between its two nearest places, whose numbers are whole but computed.
ranks: {p: P, m: M, k: K, e: E, f: F}
inputs: {Q: [p, e], X: [m, e], V: [m, f], B: [k, e]}
params: {scale: 1/sqrt(E)}
cascade: |
  S[p,m]  = Q[p,e] * X[m,e] * scale
  G[p,m]  = where(m <= p, sigmoid(S[p,m]), 0)
  R[p,m]  = min(sum[m](G[p,m]) - cumsum[m](G[p,m]) + G[p,m], K - 1)
  T[p,k]  = Q[p,e] * B[k,e]
  L[p,m]  = clamp(floor(R[p,m]), 0, K - 1)
  H[p,m]  = clamp(ceil(R[p,m]), 0, K - 1)
  W[p,m]  = R[p,m] - L[p,m]
  Y[p,m]  = S[p,m] + T[p,L[p,m]] * (1 - W[p,m]) + T[p,H[p,m]] * W[p,m]
  N[p,m]  = where(m <= p, exp(Y[p,m] - max[m](where(m <= p, Y[p,m], -inf))), 0)
  O[p,f]  = sum[m](N[p,m] * V[m,f]) / sum[m](N[p,m])
outputs: [O]
"""

PACKED = """
name: packed
doc: Sequences packed one after another; values stand under the condition of their scores, of both query and key.
ranks: {c: C, d: C+1, p: L, m: L, n: N, e: E, f: F}
inputs: {Q: [n, e], K: [n, e], V: [n, f], ST: {ranks: [d], dtype: int}}
cascade: |
  S[c,p,m] = where(m <= p and ST[c] + p < ST[c+1], sum[e](Q[ST[c]+p,e] * K[ST[c]+m,e]), -inf)
  G[c,p]   = max[m](S[c,p,m])
  W[c,p,m] = exp(S[c,p,m] - G[c,p])
  D[c,p]   = sum[m](W[c,p,m])
  Y[c,p,f] = sum[m](where(m <= p and ST[c] + p < ST[c+1], W[c,p,m] * V[ST[c]+m,f], 0)) / D[c,p]
outputs: [Y]
"""
