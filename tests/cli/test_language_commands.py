"""The commands of the language: check, fmt, explain, schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from einsmith.cli import check, equal, explain, fmt, schema
from einsmith.cli import run as evaluate
from einsmith.cli.common import guarded
from einsmith.einsum.printer import print_cascade
from einsmith.einsum.spec import load

ROOT = Path(__file__).parents[2]
SPECS = [path for path in sorted((ROOT / "examples").glob("*/*.yaml")) if "\ncascade:" in path.read_text(encoding="utf-8")]
GOOD = "name: x\nranks: {p: P}\ninputs:\n  X: [p]\ncascade: |\n  Y[p] = (X[p] * 2)\noutputs: [Y]\n"


def run(module: Any, *arguments: str) -> Result:
    return CliRunner().invoke(module.command, list(arguments))


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text("# a comment\n" + GOOD, encoding="utf-8")
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace("X[p] * 2", "x[p] * q"), encoding="utf-8")
    return str(path)


# check


def test_check_says_ok(good: str) -> None:
    done = run(check, good)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{good}: ok\n", "")


def test_check_shows_all_errors_of_all_files(good: str, bad: str, tmp_path: Path) -> None:
    done = run(check, good, bad, str(tmp_path / "missing.yaml"))
    assert done.exit_code == 1
    assert f"{good}: ok" in done.stdout
    assert done.stderr.count("error[E103]") == 2
    assert f"{bad}:6:11" in done.stderr
    assert "error[E001]" in done.stderr


def test_check_as_json(good: str, bad: str) -> None:
    done = run(check, "--json", good, bad)
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert [(d["code"], d["file"], d["line"], d["column"]) for d in found["diagnostics"]] == [
        ("E103", bad, 6, 11),
        ("E103", bad, 6, 18),
    ]
    assert all(d["message"] for d in found["diagnostics"])


def test_check_of_a_good_file_as_json(good: str) -> None:
    assert json.loads(run(check, "--json", good).stdout) == {"ok": True, "diagnostics": []}


def test_check_of_a_file_that_is_not_there_as_json(tmp_path: Path) -> None:
    missing = str(tmp_path / "goo.yaml")
    (tmp_path / "good.yaml").touch()
    found = json.loads(run(check, "--json", missing).stdout)["diagnostics"]
    assert [(d["code"], d["file"], d["line"], d["column"]) for d in found] == [("E001", missing, None, None)]
    assert "good.yaml" in found[0]["help"]


def test_check_uses_sizes_where_all_are_given(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    text = GOOD.replace("p: P", "p: P - 4")
    path.write_text(text + "sizes: {P: 3}\n", encoding="utf-8")
    found = json.loads(run(check, "--json", str(path)).stdout)["diagnostics"]
    assert [(d["code"], d["line"]) for d in found] == [("E305", 2)]
    path.write_text(text + "sizes: {P: 5}\n", encoding="utf-8")
    assert run(check, str(path)).exit_code == 0
    path.write_text(text, encoding="utf-8")
    assert run(check, str(path)).exit_code == 0


def test_check_needs_a_file() -> None:
    assert run(check).exit_code == 2


# fmt


def test_fmt_prints_canonical_text(good: str) -> None:
    done = run(fmt, good)
    assert (done.exit_code, done.stdout) == (0, GOOD.replace("(X[p] * 2)", "X[p] * 2"))


def test_fmt_as_json(good: str) -> None:
    found = json.loads(run(fmt, "--json", good).stdout)
    assert found["text"] == GOOD.replace("(X[p] * 2)", "X[p] * 2")
    assert found["changed"] is True


def test_fmt_in_place(good: str) -> None:
    assert run(fmt, "--check", good).exit_code == 1
    assert "a comment" in Path(good).read_text(encoding="utf-8")
    assert "rewritten" in run(fmt, "--write", good).stdout
    assert Path(good).read_text(encoding="utf-8") == GOOD.replace("(X[p] * 2)", "X[p] * 2")
    assert run(fmt, "--check", good).exit_code == 0
    assert "unchanged" in run(fmt, "--write", good).stdout


def test_fmt_of_a_wrong_file_leaves_it_alone(bad: str) -> None:
    before = Path(bad).read_text(encoding="utf-8")
    done = run(fmt, "--write", bad)
    assert done.exit_code == 1
    assert "error[E103]" in done.stderr
    assert Path(bad).read_text(encoding="utf-8") == before


def test_fmt_says_where_it_cannot_write(good: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    done = run(fmt, "--write", good)
    assert done.exit_code == 1
    assert done.stderr == f"error[E003]: cannot write: Permission denied\n  --> {good}\n"


# explain


def test_explain_prints_the_text_of_a_code() -> None:
    done = run(explain, "E103")
    assert done.exit_code == 0
    assert done.stdout.startswith("# an undefined name\n")


@pytest.mark.parametrize("text", ["e103", "error[E103]", "[E103]", "E103:"])
def test_explain_takes_a_code_as_it_is_printed(text: str) -> None:
    assert run(explain, text).stdout == run(explain, "E103").stdout


def test_explain_as_json() -> None:
    found = json.loads(run(explain, "--json", "E103").stdout)
    assert found["code"] == "E103"
    assert found["title"] == "an undefined name"


@pytest.mark.parametrize(
    "text, expected", [("E1003", "`E103`"), ("103", "`E103`"), ("F103", "`E103`"), ("zebra", "codes run from"), ("../E103", "E103")]
)
def test_explain_suggests_codes(text: str, expected: str) -> None:
    done = run(explain, text)
    assert done.exit_code == 1
    assert "error[E902]" in done.stderr
    assert expected in done.stderr


# schema


def test_schema_is_a_schema() -> None:
    found = json.loads(run(schema).stdout)
    assert found == json.loads(run(schema, "--json").stdout)
    jsonschema.Draft202012Validator.check_schema(found)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_schema_accepts_the_examples_and_their_canonical_text(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(run(schema).stdout))
    for text in (path.read_text(encoding="utf-8"), print_cascade(load(path))):
        assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("name", ["unknown_key", "missing_keys", "wrong_types", "split_without_tile", "output_twice", "bad_sizes"])
def test_schema_refuses_what_is_wrong_in_structure(name: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(run(schema).stdout))
    document = yaml.safe_load((ROOT / "tests" / "bad_specs" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert list(validator.iter_errors(document))


def test_specs_that_come_with_einsmith_go_by_their_bare_names(bad: str) -> None:
    """As in every other command; `fmt --write` rewrites only what is named by its path."""
    path = str(ROOT / "examples" / "attention" / "softmax.yaml")
    assert run(fmt, "softmax").stdout == run(fmt, path).stdout
    assert run(check, "softmax").exit_code == 0
    assert run(equal, "softmax", "softmax").exit_code == 0
    assert run(evaluate, "softmax", "--random", "0", "--json").stdout == run(evaluate, path, "--random", "0", "--json").stdout
    assert run(fmt, "softmax", "--write").exit_code == 1
    several = json.loads(run(check, "no-such-spec", bad, "--json").stdout)
    assert several["diagnostics"][0]["code"] == "E001"
    assert len({each["file"] for each in several["diagnostics"]}) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [("fmt", "softmax"), ("fmt", "softmax", "--json"), ("fmt", "no-such-spec", "--json")])
def test_a_full_disk_is_no_traceback(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-m", "einsmith", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "error[E003]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_report_that_fails_is_a_fault_of_einsmith_and_no_traceback(arguments: list[str]) -> None:
    class Broken:
        def as_json(self) -> dict[str, Any]:
            raise KeyError("array")

        __str__ = as_json  # type: ignore[assignment]

    result = CliRunner().invoke(click.command()(guarded(lambda: Broken())), arguments)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "error[E900]" in result.stderr
    assert not arguments or json.loads(result.stdout)["ok"] is False
