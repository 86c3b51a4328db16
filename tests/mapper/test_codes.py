"""The example of every E5 code, run as a user would, gives that code and nothing else."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum import codes

ROOT = Path(__file__).parents[2]
CODES = [code for code in codes.codes() if code.startswith("E5")]
SOURCES = [*(ROOT / "mapper").glob("*.py"), *(ROOT / "sim").glob("*.py"), *(ROOT / "cli").glob("*.py")]
USED = {code for path in SOURCES for code in re.findall(r"\"(E5\d\d)\"", path.read_text(encoding="utf-8"))}


def test_every_code_has_a_text_and_every_text_a_code() -> None:
    assert set(CODES) == USED


@pytest.mark.parametrize("code", CODES)
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
