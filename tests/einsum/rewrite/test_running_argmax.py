"""Argmax as a running pair: ties, infinities, tiles, parts, prefixes."""

from __future__ import annotations

import numpy as np
import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import evaluate
from einsmith.einsum.rewrite.derive import derive
from einsmith.einsum.verify import verify

TEXT = """
name: best
ranks: {p: P, m: M}
inputs: {S: [p, m]}
cascade: |
  I[p] = argmax[m](S[p,m] * 2)
  J[p] = argmin[m](where(m > 0, S[p,m], inf))
  G[p] = max[m](S[p,m])
  Y[p] = sum[m](exp(S[p,m] - G[p]))
outputs: [I, J, Y]
"""


def scores(length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (40, length)).astype(float)  # ties everywhere
    values[rng.random(values.shape) < 0.3] = -np.inf
    values[0] = -np.inf
    values[1, : length // 2] = -np.inf
    return values


def equal(original: Cascade, derived: Cascade, values: np.ndarray, own: dict[str, int]) -> None:
    with np.errstate(all="ignore"):
        expected, found = evaluate(original, {"S": values}), evaluate(derived, {"S": values}, own)
    for name in ("I", "J"):
        assert expected[name].dtype == found[name].dtype == np.int64
        np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{name} {own}")
    np.testing.assert_allclose(found["Y"], expected["Y"], rtol=1e-12)


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("length", [1, 4, 9])
def test_values_are_equal(tile: int, length: int) -> None:
    original = spec.loads(TEXT)
    found = derive(original, "m", check=False)
    assert found.passes_after["m"] == 1
    assert not verify(found.cascade)
    assert [t.name for t in found.cascade.tensors if t.kind == "state"] == ["I_best", "I_run", "J_best", "J_run", "G_run", "Y_run"]
    equal(original, found.cascade, scores(length, tile), {"M0": tile})


@pytest.mark.parametrize(("parts", "tile"), [(1, 4), (2, 3), (3, 1), (7, 2), (12, 1)])
def test_parts_are_merged(parts: int, tile: int) -> None:
    original = spec.loads(TEXT)
    found = derive(original, "m", form="split", check=False)
    for length in (1, 8, 9):
        equal(
            original,
            found.cascade,
            scores(length, parts),
            {"M0": tile, "PARTS" if "PARTS" in found.cascade.symbols else "S": parts},
        )


def test_what_waits_for_complete_values_is_no_running_pair() -> None:
    """After rounding there may be ties that were none."""
    text = TEXT.replace("argmax[m](S[p,m] * 2)", "argmax[m](exp(S[p,m] - G[p]))").replace(
        "  I[p]", "  G[p] = max[m](S[p,m])\n  I[p]", 1
    )
    text = text.replace("  G[p] = max[m](S[p,m])\n  Y", "  Y")
    found = derive(spec.loads(text), "m", check=False)
    assert found.passes_after["m"] == 2
    assert "I_run" not in found.spec


def test_a_value_gathered_by_the_place_waits_for_it() -> None:
    text = TEXT.replace("outputs: [I, J, Y]", "outputs: [I, J, Y, V]").replace("  G[p]", "  V[p] = S[p,I[p]]\n  G[p]", 1)
    original = spec.loads(text)
    found = derive(original, "m")
    assert found.passes_after["m"] == 2
    values = abs(scores(9, 0))
    expected = evaluate(original, {"S": values})["V"]
    own = {name: 2 for name in found.cascade.symbols if name not in ("P", "M")}
    np.testing.assert_array_equal(evaluate(found.cascade, {"S": values}, own)["V"], expected)
    with pytest.raises(EinsmithError, match="E403"):
        derive(original, "m", form="split")
