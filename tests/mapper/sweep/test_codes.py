"""The example of every E7 code, run as a user would, gives that code and nothing else; and how commands tell."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum import codes

ROOT = Path(__file__).parents[3]
CODES = [code for code in codes.codes() if code.startswith("E7")]
SOURCES = [*(ROOT / "mapper" / "sweep").glob("*.py"), *(ROOT / "mapper" / "report").glob("*.py"), *(ROOT / "cli").glob("*.py")]
USED = {code for path in SOURCES for code in re.findall(r"\"(E7\d\d)\"", path.read_text(encoding="utf-8"))}


def test_every_code_has_a_text_and_every_text_a_code() -> None:
    assert set(CODES) == USED


@pytest.mark.parametrize("code", [code for code in CODES if "```sh" in (codes.explain(code) or "")])
def test_the_example_gives_its_code(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = codes.explain(code) or ""
    for name, body in re.findall(r"```yaml (\S+)\n(.*?)```", text, re.S):
        Path(name).write_text(body, encoding="utf-8")
    (command,) = re.findall(r"```sh\neinsmith (.*?)\n```", text, re.S)
    result = CliRunner().invoke(main, [*shlex.split(command), "--json"])
    assert result.exit_code == 1, result.output
    assert {diagnostic["code"] for diagnostic in json.loads(result.stdout)["diagnostics"]} == {code}
    assert "Traceback" not in result.output


def test_the_command_says_how_many(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\npoints: {spec: softmax, arch: fusemax, mapping: rows-three-passes, 'size.B,size.H': 1, 'size.E,size.F': 64, "
        "'size.P,size.M': [256, 512, 4M]}\n"
    )
    arguments = ["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "--workers", "1", "--json"]
    for reused in (0, 3):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert (found["points"], found["done"], found["reused"], found["failed"]) == (3, 2, reused, 1)
        assert Path(found["results"]).is_file()
    assert CliRunner().invoke(main, [*arguments, "--dask", "tcp://x:1"]).exit_code == 2


def test_results_show_themselves_in_notebooks(tmp_path: Path) -> None:
    from einsmith.mapper.sweep import file, run, workers

    (tmp_path / "s.yaml").write_text(
        "name: <s>\npoints: {spec: softmax, arch: fusemax, mapping: rows-three-passes, 'size.B,size.H': 1, 'size.E,size.F': 64, "
        "'size.P,size.M': 256}\n"
    )
    html = run.sweep(file.load(tmp_path / "s.yaml"), tmp_path / "out", workers.Local(1))._repr_html_()
    assert "<b>&lt;s&gt;</b>: 1 points" in html
    assert html.count("<tr>") == 2
