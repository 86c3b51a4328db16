"""States that read themselves through sums, chunk by chunk: values, unseen rules of the kind, what is refused, broken variants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade, Coord, Einsum, Expr, Map, Number, transform
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.flatten import flatten
from einsmith.einsum.interpret import evaluate, random_inputs
from einsmith.einsum.rewrite import single_precision
from einsmith.einsum.rewrite.chunked_form import chunked_form
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.rewrite.linear_system import circles, linear_system
from einsmith.einsum.rewrite.step import Rewritten
from einsmith.einsum.verify import verify

Values = dict[str, np.ndarray[Any, Any]]
INPUTS = (
    "K: [m, e], L: [m, e], Q: [m, e], V: [m, f], W: [m, f], A: [m, e], C: [m, f], BE: [m], GA: [m], ET: [m], TH: [m], H: [e, f]"
)


def rule(body: str, outputs: str = "Y") -> Cascade:
    lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
    head = f"name: r\nranks: {{m: M, e: E, f: F}}\ninputs: {{{INPUTS}}}\n"
    return spec.loads(f"{head}cascade: |\n{lines}\noutputs: [{outputs}]\n")


def in_chunks(cascade: Cascade, length: int) -> Cascade:
    found = chunked_form(flatten(cascade), "m", length)
    assert isinstance(found, Rewritten)
    assert not verify(found.cascade)
    assert not any(tensor.iterates == "m" for tensor in found.cascade.tensors)
    return found.cascade


def drawn(cascade: Cascade, sizes: dict[str, int], seed: int = 0) -> Values:
    """Ordinary inputs, keys of length 1 and strengths between 0 and 1."""
    inputs = random_inputs(cascade, sizes, None, np.random.default_rng(seed))
    for name in ("K", "L"):
        inputs[name] /= np.maximum(np.sqrt((inputs[name] ** 2).sum(-1, keepdims=True)), 1e-9)
    for name in ("BE", "GA", "ET", "TH", "A", "C"):
        inputs[name] = 1 / (1 + np.exp(-inputs[name]))
    return inputs


def gap(original: Cascade, derived: Cascade, inputs: Values, sizes: dict[str, int]) -> float:
    expected, found = evaluate(original, inputs, sizes), evaluate(derived, inputs, sizes)
    return max(float(np.abs(expected[n] - found[n]).max() / max(1.0, np.abs(expected[n]).max())) for n in original.outputs)


READ = "R[m,f] = sum[e](K[m,e] * S[m,e,f])\n"
RULES = {
    "delta": READ + "U[m,f] = (V[m,f] - R[m,f]) * BE[m]\nS[m+1,e,f] = S[m,e,f] + K[m,e] * U[m,f]",
    "written out": READ + "S[m+1,e,f] = S[m,e,f] + K[m,e] * V[m,f] * BE[m] - BE[m] * R[m,f] * K[m,e]",
    "a value of the matrix": READ + "S[m+1,e,f] = S[m,e,f] + BE[m] * (K[m,e] * V[m,f] - K[m,e] * R[m,f]) / 2",
    "gated": "D[m,e,f] = S[m,e,f] * GA[m]\nR[m,f] = sum[e](K[m,e] * D[m,e,f])\n"
    "S[m+1,e,f] = D[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * BE[m]",
    "a gate for each element (Kimi)": "D[m,e,f] = S[m,e,f] * A[m,e]\nR[m,f] = sum[e](K[m,e] * D[m,e,f])\n"
    "S[m+1,e,f] = D[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * BE[m]",
    "another key to read (RWKV-7)": "R[m,f] = sum[e](L[m,e] * S[m,e,f])\n"
    "S[m+1,e,f] = A[m,e] * S[m,e,f] - BE[m] * L[m,e] * R[m,f] + K[m,e] * V[m,f]",
    "a strength for each channel": READ + "S[m+1,e,f] = GA[m] * S[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * C[m,f]",
    "two writes (DeltaProduct)": READ + "T[m,e,f] = S[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * BE[m]\n"
    "P[m,f] = sum[e](L[m,e] * T[m,e,f])\nS[m+1,e,f] = T[m,e,f] + L[m,e] * (W[m,f] - P[m,f]) * GA[m]",
    "two reads, one write": READ + "P[m,f] = sum[e](L[m,e] * S[m,e,f])\n"
    "S[m+1,e,f] = GA[m] * S[m,e,f] + K[m,e] * (V[m,f] - R[m,f] / 2 - P[m,f] / 2) * BE[m]",
    "momentum (Titans)": READ + "D[m+1,e,f] = ET[m] * D[m,e,f] - TH[m] * K[m,e] * (R[m,f] - V[m,f])\n"
    "S[m+1,e,f] = (1 - GA[m]) * S[m,e,f] + D[m+1,e,f]",
    "momentum of momentum": READ + "X[m+1,e,f] = GA[m] * X[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * TH[m]\n"
    "D[m+1,e,f] = ET[m] * D[m,e,f] + BE[m] * X[m,e,f]\nS[m+1,e,f] = 0.5 * S[m,e,f] + D[m+1,e,f] - X[m+1,e,f] * TH[m]",
    "two states that correct each other": READ + "P[m,f] = sum[e](L[m,e] * D[m,e,f])\n"
    "D[m+1,e,f] = ET[m] * D[m,e,f] + L[m,e] * (W[m,f] - R[m,f]) * BE[m]\n"
    "S[m+1,e,f] = GA[m] * S[m,e,f] + K[m,e] * (V[m,f] - P[m,f])",
    "a second read after the first state's step": "R[m,f] = sum[e](K[m,e] * S[m,e,f])\n"
    "D[m+1,e,f] = ET[m] * D[m,e,f] + L[m,e] * (W[m,f] - R[m,f]) * BE[m]\nP[m,f] = sum[e](Q[m,e] * D[m+1,e,f])\n"
    "S[m+1,e,f] = GA[m] * S[m,e,f] + K[m,e] * (V[m,f] - P[m,f] / 4)",
    "a normaliser of its own": READ + "N[m] = sum[e](K[m,e] * Z[m,e])\nZ[m+1,e] = GA[m] * Z[m,e] + K[m,e] * (1 - N[m]) * BE[m]\n"
    "S[m+1,e,f] = S[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * BE[m]",
    "a layer on top": READ + "S[m+1,e,f] = S[m,e,f] + K[m,e] * (V[m,f] - R[m,f]) * BE[m]\nO[m,f] = sum[e](Q[m,e] * S[m+1,e,f])\n"
    "P[m,f] = sum[e](L[m,e] * X[m,e,f])\nX[m+1,e,f] = GA[m] * X[m,e,f] + L[m,e] * (tanh(O[m,f]) - P[m,f])",
}  # fmt: skip


def written(name: str) -> Cascade:
    body = RULES[name]
    states = [state for state in "SDXZ" if f"{state}[m+1," in body]
    starts = "\n".join(f"{s}[0,e{',f' if s != 'Z' else ''}] = {'H[e,f]' if s == 'S' else '0'}" for s in states)
    last = "X" if name == "a layer on top" else "S"
    reads = f"Y[m,f] = sum[e](Q[m,e] * {last}[m+1,e,f])\nB[m,f] = sum[e](L[m,e] * {last}[m,e,f])\nZE[e,f] = {last}[M,e,f]"
    return rule(f"{starts}\n{body}\n{reads}", "Y, B, ZE")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("length", [3, 8])
def test_values(name: str, length: int) -> None:
    original = written(name)
    derived = in_chunks(original, length)
    for m, e, f in ((1, 1, 1), (13, 3, 2)) if length == 3 else ((8, 1, 3), (11, 4, 2)):
        sizes = {"M": m, "E": e, "F": f}
        assert gap(original, derived, drawn(original, sizes), sizes) < 1e-9


def test_a_chunk_of_one_position() -> None:
    original = written("two writes (DeltaProduct)")
    sizes = {"M": 5, "E": 3, "F": 2}
    assert gap(original, in_chunks(original, 1), drawn(original, sizes), sizes) < 1e-9


@pytest.mark.parametrize("name", ["delta", "two writes (DeltaProduct)", "momentum (Titans)"])
def test_derivations_are_checked(name: str) -> None:
    found = derive(written(name), "m", form="chunked", tile=16)
    assert len(found.checked) == 10
    assert found.passes_after["m"] == 1
    assert spec.loads(found.spec) == found.cascade
    assert "M0" not in found.cascade.symbols
    (step,) = [step for step in found.steps if step.rewrite == "chunked-form"]
    assert "strictly lower triangular" in step.condition


# --- where the inverse is worst ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1.0, 1.9, 0.0])
@pytest.mark.parametrize("name", ["delta", "gated", "momentum (Titans)"])
def test_repeated_keys(name: str, strength: float) -> None:
    """One key at every position: each write takes off what the one before wrote. Powers of N would reach 1e20 here."""
    original = written(name)
    sizes = {"M": 70, "E": 4, "F": 3}
    inputs = drawn(original, sizes)
    inputs["K"] = np.broadcast_to(inputs["K"][:1], inputs["K"].shape).copy()
    inputs["BE"] = np.full(70, strength)
    inputs["TH"] = np.full(70, strength / 4)
    derived = in_chunks(original, 64)
    assert gap(original, derived, inputs, sizes) < 1e-9
    expected = single_precision.evaluate(original, inputs, sizes)
    found = single_precision.evaluate(derived, inputs, sizes)
    for output in original.outputs:
        np.testing.assert_allclose(found[output], expected[output], rtol=1e-4, atol=2e-5 * np.abs(expected[output]).max())


def test_large_strengths() -> None:
    """A rule that grows without bound grows alike."""
    original = written("delta")
    sizes = {"M": 40, "E": 4, "F": 3}
    inputs = drawn(original, sizes)
    inputs["BE"] = 30 * inputs["BE"]
    assert gap(original, in_chunks(original, 16), inputs, sizes) < 1e-9


def test_zero_gates_and_signs() -> None:
    original = written("gated")
    sizes = {"M": 21, "E": 3, "F": 2}
    inputs = drawn(original, sizes)
    rng = np.random.default_rng(5)
    for gates in (
        np.zeros(21),
        np.where(rng.random(21) < 0.4, 0.0, rng.random(21)),
        rng.choice([-1.0, 1.0], 21),
        np.full(21, 1e-200),
    ):
        inputs["GA"] = gates
        assert gap(original, in_chunks(original, 8), inputs, sizes) < 1e-9


# --- the check sees what is wrong -------------------------------------------------------------------------------------


def _signs(expr: Expr) -> Expr:
    return transform(expr, lambda n: n.args[0] if isinstance(n, Map) and n.op == "neg" else n)


def _below(expr: Expr) -> Expr:
    """Writes that see later ones."""
    return transform(expr, lambda n: replace(n, op=">") if isinstance(n, Map) and n.op == "<" and Coord("mi") in n.args else n)


def _no_level(expr: Expr) -> Expr:
    """Blocks of four that take no notice of their halves."""
    return transform(expr, lambda n: Map("==", n.args) if isinstance(n, Map) and n.op == "!=" and Number(2) in _deep(n) else n)


def _deep(expr: Expr) -> list[Expr]:
    return [part for arg in getattr(expr, "args", ()) for part in (arg, *_deep(arg))]


BROKEN = {"U_pairs": _signs, "U_weights": _below, "U_half_4": _no_level}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_variants_are_found(name: str) -> None:
    original = written("delta")
    derived = in_chunks(original, 4)

    def broken(einsum: Einsum) -> Einsum:
        return replace(einsum, body=BROKEN[name](einsum.body)) if einsum.output == name else einsum

    wrong = replace(derived, einsums=tuple(broken(einsum) for einsum in derived.einsums))
    assert wrong != derived
    sizes = {"M": 9, "E": 3, "F": 2}
    assert gap(original, wrong, drawn(original, sizes), sizes) > 1e-3


def test_without_an_elimination() -> None:
    """Two writes at each position: the second one's system lacks what went through the first."""
    original = written("two writes (DeltaProduct)")
    derived = in_chunks(original, 4)
    (through,) = [einsum for einsum in derived.einsums if einsum.output.endswith("_through")]
    none = replace(through, body=transform(through.body, lambda n: Number(0) if isinstance(n, Map) and n.op == "*" else n))
    wrong = replace(derived, einsums=tuple(none if einsum == through else einsum for einsum in derived.einsums))
    sizes = {"M": 9, "E": 3, "F": 2}
    assert gap(original, derived, drawn(original, sizes), sizes) < 1e-9
    assert gap(original, wrong, drawn(original, sizes), sizes) > 1e-3


# --- the system -------------------------------------------------------------------------------------------------------


def test_one_unknown_for_each_key() -> None:
    """However a rule is written, values that stand beside the same key are one unknown."""
    for name, count in (("delta", 1), ("written out", 1), ("a value of the matrix", 1), ("two writes (DeltaProduct)", 2)):
        flat = flatten(written(name))
        (circle,) = circles(flat, "m")
        opened, system = linear_system(flat, "m", circle)
        assert len(system.unknowns) == count
        assert all(opened.tensor(unknown.name).kind == "input" for unknown in system.unknowns)


REFUSED = {
    "U[m,f] = tanh(V[m,f] - R[m,f])\nS[m+1,e,f] = S[m,e,f] + K[m,e] * U[m,f]": "is not linear in it",
    "S[m+1,e,f] = S[m,e,f] + K[m,e] * R[m,f] * R[m,f]": "is a product of two values that depend on it",
    "S[m+1,e,f] = S[m,e,f] * R[m,f] + K[m,e]": "is a product of two values that depend on it",
    "P[m,e] = sum[f](S[m,e,f] * V[m,f])\nS[m+1,e,f] = S[m,e,f] + K[m,e] * R[m,f] + P[m,e] * V[m,f]": "which sums over states bind",
    "D[m+1,e,f] = A[m,e] * D[m,e,f] + K[m,e] * (V[m,f] - R[m,f])\nS[m+1,e,f] = S[m,e,f] + D[m+1,e,f]": "a factor for each",
    "P[m,f] = sum[e](K[m,e] * S[m,f,e])\nS[m+1,e,f] = S[m,e,f] + K[m,e] * (R[m,f] - P[m,f])": "other elements",
    "P[m] = max[e,f](S[m,e,f])\nS[m+1,e,f] = S[m,e,f] + K[m,e] * (R[m,f] - P[m])": "is no sum",
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_refused_and_why(body: str) -> None:
    states = [state for state in "SD" if f"{state}[m+1," in body]
    starts = "\n".join(f"{state}[0,e,f] = 0" for state in states)
    original = rule(f"{starts}\n{READ}{body}\nY[m,f] = sum[e](Q[m,e] * S[m+1,e,f])")
    if "S[m,f,e]" in body:  # a square state
        square = original.rank("e").extent
        original = replace(original, ranks=tuple(replace(r, extent=square) if r.name == "f" else r for r in original.ranks))
    with pytest.raises(EinsmithError) as raised:
        derive(original, "m", form="chunked")
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "E405"
    assert REFUSED[body] in diagnostic.help
