"""Where a kernel could silently differ from the interpreter: each case is one small cascade, all run in one process."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einsmith.einsum import interpret, spec
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.kernels.check import _within, check, device, keywords
from einsmith.kernels.child import ask
from einsmith.kernels.emit import emit_module
from einsmith.kernels.run import module_for
from einsmith.kernels.shapes import Case
from einsmith.kernels.store import stored
from einsmith.mapper import gpu
from einsmith.mapper.stages import plan_module

X = np.random.default_rng(0).normal(size=(12, 30))
NAN = np.where(np.arange(30) == 4, np.nan, X)
WHOLE = np.random.default_rng(1).integers(2**27, 2**28, size=(5, 7))

# name: (ranks, inputs, params, cascade, arrays, sizes of the plan where they differ)
CASES: dict[str, tuple[str, str, str, str, dict[str, np.ndarray], dict[str, int] | None]] = {
    "a quotient of -inf less its maximum": (
        "{p: P, m: M}", "{X: [p, m]}", "{T: 2.5, lag: 5}",
        """
        S[p,m] = where(m <= p - lag, X[p,m], -inf)
        G[p]   = max[m](S[p,m] / T)
        Y[p]   = sum[m](exp(S[p,m] / T - G[p]))
        """, {"X": X}, None,
    ),
    "NaN through relu": ("{p: P, m: M}", "{X: [p, m]}", "{}", "Y[p] = sum[m](relu(X[p,m]))", {"X": NAN}, None),
    "an empty sum over its extent": ("{p: P, m: M}", "{X: [p, m]}", "{}", "Y[p] = sum[m](X[p,m]) / M",
        {"X": np.zeros((5, 0))}, None),
    "whole numbers of 64 bits": ("{p: P}", "{I: {ranks: [p], dtype: int}}", "{}", "Y[p] = I[p] + 1",
        {"I": np.array([2**40 + 3, -7])}, None),
    "whole numbers of 8 bits": (
        "{p: P}", "{I: {ranks: [p], dtype: int}, X: [p]}", "{}", "Y[p] = X[p] * (I[p] + 1)",
        {"I": np.array([127, -7], np.int8), "X": np.ones(2)}, None,
    ),
    "sums of whole numbers": ("{p: P, m: M}", "{I: {ranks: [p, m], dtype: int}}", "{}", "Y[p] = sum[m](I[p,m])",
        {"I": WHOLE}, None),
    "running sums and maxima of whole numbers": (
        "{p: P, m: M}", "{I: {ranks: [p, m], dtype: int}}", "{}", "Y[p] = sum[m](I[p,m]) - max[m](I[p,m])", {"I": WHOLE},
        {"P": 5, "M": 5000},
    ),
    "products of coordinates and parameters": (
        "{p: P, m: M}", "{X: [p, m]}", "{A: 40000, C: 60000}", "Y[p] = sum[m](where(m * A * C <= p * A * C, X[p,m], 0))",
        {"X": X}, None,
    ),
    "squares of coordinates": ("{p: P, m: M}", "{X: [p, m]}", "{A: 70000}", "Y[p,m] = X[p,m] * (p * A - m) ** 2", {"X": X}, None),
    "names that the generated code uses too": (
        "{p: P, m: M}", "{p_in: [p, m], p_at: [p]}", "{p_first: 3, x_last: 0.5, m1_end: 2}",
        """
        S[p,m]  = where(m <= p + p_first, p_in[p,m] + p_at[p] - x_last, -inf)
        G[p]    = max[m](S[p,m])
        p_last[p] = sum[m](exp(S[p,m] - G[p])) + m1_end
        Y[p]    = p_last[p]
        """, {"p_in": X, "p_at": X[:, 0].copy()}, None,
    ),
    "a tensor shorter than the rank that walks it": (
        "{p: P, m: M, l: L}", "{X: [p, m], Z: [l]}", "{}", "Y[p] = sum[m](where(m < L, X[p,m] * Z[m], 0))",
        {"X": X, "Z": X[0, :7].copy()}, None,
    ),
    "an input as it is": ("{p: P, m: M}", "{X: [p, m]}", "{}", "Y[p,m] = X[p,m]", {"X": X}, None),
    "roots and powers": (
        "{p: P, m: M}", "{X: [p, m]}", "{}",
        "Y[p,m] = abs(X[p,m]) ** 0.5 + (X[p,m] * X[p,m] + 1) ** (-0.5) + (X[p,m] * X[p,m] + 1) ** (-3)", {"X": X}, None,
    ),
    "truth values": (
        "{p: P, m: M}", "{B: {ranks: [p, m], dtype: bool}, X: [p, m]}", "{}",
        """
        A[p] = any[m](X[p,m] > 2)
        S[p] = sum[m](where(not B[p,m], X[p,m], 0))
        Y[p] = where(A[p], S[p], 1)
        """, {"B": X > 0.3, "X": X}, {"P": 64, "M": 8192},
    ),
    "a product over a rank": ("{p: P, m: M}", "{X: [p, m]}", "{}", "Y[p] = prod[m](X[p,m])", {"X": X}, None),
    "whole numbers that stay whole": (
        "{p: P}", "{I: {ranks: [p], dtype: int}}", "{}", "Y[p] = relu(I[p]) + floor(I[p])",
        {"I": WHOLE[0] * np.array([1, -1, 1, -1, 1, -1, 1])}, None,
    ),
    "parameters of parameters": (
        "{p: P, m: M}", "{X: [p, m]}", '{a: 2.5, b: "where(not (a > 3), rsqrt(a), exp2(a))", c: "exp2(-a)"}',
        "Y[p,m] = X[p,m] * b + c", {"X": X}, None,
    ),
    "keys from the query on": (
        "{p: P, m: M}", "{X: [p, m]}", "{}", "Y[p] = sum[m](where(m >= p, X[p,m], 0))", {"X": X}, {"P": 64, "M": 8192},
    ),
    "a rank read from its end": ("{p: P, m: M}", "{X: [p, m]}", "{}", "Y[p,m] = X[p, -m + M - 1]", {"X": X}, None),
    "a state of more ranks than its step": (
        "{t: T, c: C}", "{X: [t], Z: [c]}", "{}",
        """
        S[0,c]   = Z[c]
        S[t+1,c] = X[t]
        Y[c]     = S[T,c] * 2
        """, {"X": X[0], "Z": X[:, 0].copy()}, None,
    ),
    "whole numbers in and out, matrix products between": (
        "{p: P, q: P, m: M}", "{I: {ranks: [p, m], dtype: int}}", "{}",
        """
        Z[p,m] = exp(I[p,m] * 0.01)
        W[p,q] = Z[p,m] * Z[q,m]
        Y[p]   = argmax[q](W[p,q])
        """, {"I": np.random.default_rng(2).permutation(32 * 16).reshape(32, 16) % 97}, None,
    ),
}  # fmt: skip
REFUSED = {
    "an index outside its tensor": (
        "{h: H, g: HK, p: P}", "{Q: [h, p], K: [g, p]}", "{G: 2}", "Y[h,p] = Q[h,p] * K[h//G,p]",
        {"Q": X[:8, :5], "K": X[:2, :5]}, None,
    ),
    "a parameter beyond 32 bits": (
        "{p: P, m: M}", "{X: [p, m]}", "{W: 2147483647}", "Y[p] = sum[m](where(p - m <= W, X[p,m], 0))", {"X": X}, None,
    ),
}  # fmt: skip


def _text(ranks: str, inputs: str, params: str, cascade: str) -> str:
    lines = "\n".join("  " + line.strip() for line in cascade.strip().splitlines())
    return f"name: t\nranks: {ranks}\ninputs: {inputs}\nparams: {params}\ncascade: |\n{lines}\noutputs: [Y]\n"


@functools.cache
def results() -> dict[str, tuple[str | None, Any]]:
    """Name -> (fault, value) of the kernel, and of its plain form."""
    folder = Path(tempfile.mkdtemp(prefix="einsmith-"))
    modules = []
    cases = {**CASES, **REFUSED}
    for number, (ranks, inputs, params, text, arrays, planned) in enumerate(cases.values()):
        cascade = spec.loads(_text(ranks, inputs, params, text))
        sizes = interpret.infer_sizes(cascade, arrays, None)
        source = module_for(cascade, "h200", planned or sizes, None, "float32")
        np.savez(folder / f"{number}.npz", **arrays)  # type: ignore[arg-type]
        case = {
            "inputs": str(folder / f"{number}.npz"), "outputs": str(folder / f"{number}.out.npz"),
            "dtype": "float32", "strided": False,
            "scalars": keywords(source, sizes, None),
        }  # fmt: skip
        modules.append({"file": str(stored(source)), "cases": [case], "plain": True})
    where = device()
    found = ask("check_worker", {"device": where, "modules": modules, "allow_tf32": False}, interpret=where == "cpu", timeout_s=300)
    return {
        name: (row["error"], None if row["error"] else dict(np.load(folder / f"{number}.out.npz")))
        for number, (name, (row,)) in enumerate(zip(cases, found, strict=True))
    }


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_and_its_plain_form_agree_with_the_interpreter(name: str) -> None:
    ranks, inputs, params, text, arrays, _ = CASES[name]
    cascade = spec.loads(_text(ranks, inputs, params, text))
    want = interpret.evaluate(cascade, arrays)["Y"]
    fault, found = results()[name]
    assert fault is None, fault
    exact = cascade.tensor("Y").dtype == "int"
    assert np.allclose(found["out.Y"], want, rtol=0 if exact else 2e-6, atol=0 if exact else 1e-5, equal_nan=True)
    assert np.allclose(found["plain.Y"], want, rtol=2e-6, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "reason"), [("an index outside its tensor", "indices 0 to 3 of K"), ("a parameter beyond 32 bits", "W is")]
)
def test_what_the_kernel_cannot_do_is_refused_before_it_runs(name: str, reason: str) -> None:
    fault, _ = results()[name]
    assert fault is not None
    assert reason in fault


def test_whole_numbers_are_not_contracted_inexactly() -> None:
    text = _text(
        "{p: P, m: M, e: E}", "{I: {ranks: [p, e], dtype: int}, J: {ranks: [m, e], dtype: int}}", "{}", "Y[p,m] = I[p,e] * J[m,e]"
    )
    with pytest.raises(EinsmithError) as raised:
        module_for(spec.loads(text), "h200", {"P": 64, "M": 64, "E": 64}, None, "float16")
    assert raised.value.diagnostics[0].code == "E603"


def test_a_maximum_that_would_drop_nan_does_not_stand_for_relu() -> None:
    source = module_for(spec.loads(_text(*CASES["NaN through relu"][:4])), "h200", {"P": 12, "M": 30}, None, "float32")
    kernel = source[source.index("def t_kernel") : source.index("def _checked")]
    assert "_relu(" in kernel
    assert "tl.maximum" not in kernel


def test_offsets_within_a_tile_that_leave_32_bits_are_refused() -> None:
    import torch

    from einsmith.kernels.child import load_module

    text = _text("{p: P, m: M}", "{X: [m, p]}", "{}", "Y[p] = sum[m](X[m,p])")
    module = load_module(str(stored(module_for(spec.loads(text), "h200", {"P": 64, "M": 64}, None, "float32"))))
    module._prepare(X=torch.empty_strided((64, 64), (2**12, 1), device="meta"))
    with pytest.raises(ValueError, match="too far apart"):
        module._prepare(X=torch.empty_strided((64, 64), (2**29, 1), device="meta"))


LEFT_BEHIND = """
name: what-a-loop-leaves
doc: Softmax with the base-2 power of each row's maximum and its log-sum-exp as further outputs.
ranks: {p: P, m: M, e: E}
inputs: {Q: [p, e], K: [m, e]}
params: {scale: 0.5}
sizes: {P: 40, M: 70, E: 16}
cascade: |
  S[p,m] = Q[p,e] * K[m,e] * scale
  G[p]   = max[m](S[p,m])
  N[p,m] = exp(S[p,m] - G[p])
  D[p]   = sum[m](N[p,m])
  L[p]   = G[p] + log(D[p])
  T[p]   = exp2(G[p] * 0.25)
  U[p]   = exp2(G[p])
outputs: [L, T, U]
"""


def test_exponentials_have_base_2_in_the_loop_and_what_it_leaves_is_divided_again() -> None:
    cascade = spec.loads(LEFT_BEHIND, "left")
    source = emit_module(plan_module(cascade, gpu.load("h200"), {"P": 16384, "M": 16384, "E": 64}))
    assert "tl.exp(" not in source
    assert " * 0.6931471805599453 + tl.log(" in source
    cases = [Case("tails", {"P": 50, "M": 70, "E": 24})]
    found = check(source, cascade, cases=cases)
    assert not found.failed, str(found)
    wrong = check(source.replace("0.6931471805599453", "0.69"), cascade, cases=cases)
    assert wrong.failed


@pytest.mark.parametrize(("factor", "there"), [(1, True), (20, True), (20000, False)])
def test_outputs_beyond_a_type_are_tried_with_smaller_inputs(factor: int, there: bool) -> None:
    body = f"name: x\nranks: {{p: P}}\ninputs: {{X: [p]}}\ncascade: |\n  Y[p] = exp(X[p] * X[p] * {factor})\noutputs: [Y]\n"
    found = _within(spec.loads(body), Case("large", {"P": 64}), "float16", None, np.random.default_rng(0))
    assert (found is not None) == there
    if found is not None:
        assert np.abs(found[0]["X"]).max() > (1 if factor == 1 else 0.01)
        assert found[1]["Y"].max() <= 65504
