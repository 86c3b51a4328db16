"""The example of every E6 code, run as a user would, gives that code and nothing else."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import einsmith as es
from einsmith.cli.main import main
from einsmith.einsum import codes
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.kernels import child

ROOT = Path(__file__).parents[2]
CODES = [code for code in codes.codes() if code.startswith("E6")]
SOURCES = [path for part in ("mapper", "kernels", "cli") for path in (ROOT / part).glob("*.py")]
USED = {code for path in SOURCES for code in re.findall(r"\"(E6\d\d)\"", path.read_text(encoding="utf-8"))}
ELSEWHERE = {"E606", "E608", "E610", "E613"}
"""Python only; a missing package; a compiler that rejects what was predicted to fit; a machine without a GPU (`test_bench`)."""


def test_every_code_has_a_text_and_every_text_a_code() -> None:
    assert set(CODES) == USED


@pytest.mark.parametrize("code", [code for code in CODES if code not in ELSEWHERE])
def test_the_example_gives_its_code(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = codes.explain(code) or ""
    for name, body in re.findall(r"```yaml (\S+)\n(.*?)```", text, re.S):
        Path(name).write_text(body, encoding="utf-8")
    (command,) = re.findall(r"```sh\neinsmith (.*?)\n```", text, re.S)
    result = CliRunner().invoke(main, [*shlex.split(command), "--json"])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert {diagnostic["code"] for diagnostic in found["diagnostics"]} == {code}
    assert f"error[{code}]" in result.stderr
    assert "Traceback" not in result.output


def test_a_type_without_kernels() -> None:
    sizes = {"B": 1, "H": 1, "P": 64, "M": 64, "E": 16, "F": 16}
    with pytest.raises(EinsmithError) as raised:
        es.plan(es.load(ROOT / "examples" / "attention" / "softmax.yaml"), "h200", sizes, dtype="float64")
    assert [d.code for d in raised.value.diagnostics] == ["E606"]


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EinsmithError) as raised:
        child.require()
    assert [d.code for d in raised.value.diagnostics] == ["E608"]
    assert "torch and triton" in raised.value.diagnostics[0].message
