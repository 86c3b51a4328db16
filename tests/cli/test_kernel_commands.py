"""The commands `plan`, `emit` and `test`: their JSON, their files, their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.einsum.codes import explain

SIZE = ["--size", "B=2,H=8,P=2048,M=2048,E=64,F=64"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def ask(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_plan_derives_first_and_ranks_candidates() -> None:
    found = ask("plan", "softmax-causal", "--gpu", "h200", *SIZE)
    assert found["note"] == "derived: 1 instead of 3 passes over `m`"
    assert found["plan"]["ranks"]["tiled"] == ["p"]
    assert found["plan"]["loops"] == 1
    best = found["candidates"][0]
    assert best["shared_bytes"] == 2 * 64 * (best["BLOCK_P"] + 2 * best["BLOCK_M0"] * best["stages"])
    assert [c["predicted_s"] for c in found["candidates"]] == sorted(c["predicted_s"] for c in found["candidates"])


def test_plan_as_text_says_that_nothing_was_measured() -> None:
    result = run("plan", "sigmoid", "--gpu", "a100", "--dtype", "bfloat16", *SIZE)
    assert result.exit_code == 0, result.output
    assert "one pass over `m` as written" in result.output
    assert "nothing here was measured" in result.output


@pytest.mark.parametrize("gpu", ["a100", "b200", "h100", "mi300x"])
def test_every_gpu_has_a_plan(gpu: str) -> None:
    assert ask("plan", "softmax", "--gpu", gpu, *SIZE)["plan"]["gpu"] == gpu


def test_emit_compiles_and_the_module_carries_its_cascade(tmp_path: Path) -> None:
    file = tmp_path / "kernel.py"
    found = ask("emit", "softmax-causal", "--gpu", "h200", "-o", str(file), *SIZE)
    assert found["file"] == str(file)
    compiled = found["compiled"]["sm_90"]
    assert compiled["shared_bytes"] == found["plan"]["shared_bytes"]
    assert compiled["spill_bytes"] == 0
    assert compiled["mma"]["wgmma"] > 0
    text = file.read_text(encoding="utf-8")
    assert "def reference(" in text
    tested = run("test", str(file), "--size", "B=1,H=1,P=20,M=30,E=8,F=8", "--json")
    assert tested.exit_code == 0, tested.output
    cases = json.loads(tested.stdout)
    assert (cases["passed"], cases["failed"]) == (1, 0)
    assert cases["cases"][0]["error"] <= cases["cases"][0]["allowed"]
    file.write_text(text.replace("tl.exp2(", "tl.exp("), encoding="utf-8")
    broken = run("test", str(file), "--size", "B=1,H=1,P=20,M=30,E=8,F=8", "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["failed"] == 1


def test_emit_prints_the_module_where_no_file_is_named() -> None:
    result = run("emit", "sigmoid", "--no-compile")
    assert result.exit_code == 0, result.output
    assert result.output.startswith('"""sigmoid-attention')
    compile(result.output, "module", "exec")


def test_a_wrong_gpu_is_a_did_you_mean() -> None:
    result = run("plan", "softmax", "--gpu", "h20")
    assert result.exit_code == 1
    assert "did you mean `h200`?" in result.stderr


def test_the_texts_of_codes_can_be_read() -> None:
    assert "Einsum" in (explain("E603") or "")
    assert spec.load(Path(__file__).parents[2] / "examples" / "attention" / "softmax.yaml").outputs == ("AV",)
