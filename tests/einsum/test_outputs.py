"""Other outputs than those of the spec."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import einsmith as es
from einsmith.cli.main import main

SOFTMAX = Path(__file__).parents[2] / "examples" / "attention" / "softmax.yaml"


def test_intermediates_have_the_values_they_had() -> None:
    cascade = es.load(SOFTMAX)
    rng = np.random.default_rng(0)
    inputs = {"Q": rng.normal(size=(1, 2, 5, 4)), "K": rng.normal(size=(1, 2, 7, 4)), "V": rng.normal(size=(1, 2, 7, 3))}
    want = es.evaluate(cascade, inputs)
    found = es.evaluate(es.with_outputs(cascade, "SD", "AV", "GM"), inputs)
    assert list(found) == ["SD", "AV", "GM"]
    np.testing.assert_array_equal(found["AV"], want["AV"])
    scores = np.einsum("bhpe,bhme->bhpm", inputs["Q"], inputs["K"]) / 2
    np.testing.assert_allclose(found["GM"], scores.max(-1))
    np.testing.assert_allclose(found["GM"] + np.log(found["SD"]), np.log(np.exp(scores).sum(-1)))


def test_what_only_others_need_is_gone() -> None:
    found = es.with_outputs(es.load(SOFTMAX), "SD")
    assert [t.name for t in found.inputs] == ["Q", "K"]
    assert [e.output for e in found.einsums] == ["QK", "GM", "SN", "SD"]


@pytest.mark.parametrize("names", [["nope"], ["Q"], []])
def test_what_is_no_tensor_of_the_cascade_is_refused(names: list[str]) -> None:
    with pytest.raises(es.EinsmithError) as raised:
        es.with_outputs(es.load(SOFTMAX), *names)
    assert [d.code for d in raised.value.diagnostics] == ["E103"]
    assert "QK, GM, SN, SD" in str(raised.value)


def test_commands() -> None:
    ran = CliRunner().invoke(main, ["run", "softmax", "--random", "0", "--outputs", "SD, GM", "--json"])
    assert json.loads(ran.stdout)["outputs"] == {"SD": [1, 2, 64], "GM": [1, 2, 64]}
    planned = CliRunner().invoke(main, ["plan", "softmax", "--outputs", "AV,SD", "--json"])
    assert planned.exit_code == 0
    emitted = CliRunner().invoke(main, ["emit", "softmax", "--outputs", "AV,SD", "--no-compile"])
    assert 'return {"AV": AV, "SD": SD}' in emitted.stdout
