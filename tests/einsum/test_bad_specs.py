"""Wrong spec files beside the full text of what is said about them (`--update` rewrites it: read the diff as a user would)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from einsmith.einsum import codes, spec
from einsmith.einsum.diagnostics import SpecError

FOLDER = Path(__file__).parents[1] / "bad_specs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NOT_HERE = {"E003", "E004"}  # writing files: see the tests of the commands; a file too long to keep: see the hostile inputs


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said(name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(SpecError) as raised:
        spec.load(f"{name}.yaml")
    text = "\n\n".join(map(str, raised.value.diagnostics)) + "\n"
    golden = FOLDER / f"{name}.err"
    if request.config.getoption("--update"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_is_an_orphan() -> None:
    assert [path.name for path in FOLDER.glob("*.err") if path.stem not in NAMES] == []


def test_every_code_of_the_language_has_a_wrong_spec() -> None:
    said = {
        code for path in FOLDER.glob("*.err") for code in re.findall(r"^error\[(E\d+)\]", path.read_text(encoding="utf-8"), re.M)
    }
    assert said >= {code for code in codes.codes() if code[:2] in ("E0", "E1", "E2")} - NOT_HERE


def test_every_caret_is_under_its_place() -> None:
    """The first caret line of each diagnostic stands under the column of its header."""
    for path in FOLDER.glob("*.err"):
        for block in re.split(r"\n\n(?=error)", path.read_text(encoding="utf-8")):
            place = re.search(r"--> \S+?:(\d+):(\d+)\n", block)
            if place is None or re.search(r"^ *\d+ \| \.\.\.", block, re.M):
                continue
            lines = [line for line in block.split("\n") if re.match(r" +\| [ \t]*\^", line)]
            assert len(lines) == 1, block
            assert lines[0].index("^") - lines[0].index("|") - 1 == int(place[2]), block
