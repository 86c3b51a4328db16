"""Every code has a text; the wrong example of a text gives its code, and the right one loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from einsmith.einsum import codes, spec
from einsmith.einsum.diagnostics import SpecError

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(Wrong|Right):\n\n```yaml\n(.*?)```", re.S)


def blocks(kind: str) -> list[tuple[str, str]]:
    return [(code, text) for code in codes.codes() for found, text in BLOCK.findall(codes.explain(code) or "") if found == kind]


@pytest.mark.parametrize("code, text", blocks("Wrong"), ids=lambda value: value if len(value) == 4 else "")
def test_the_wrong_example_gives_its_code(code: str, text: str) -> None:
    with pytest.raises(SpecError) as raised:
        spec.loads(text)
    assert {diagnostic.code for diagnostic in raised.value.diagnostics} == {code}


@pytest.mark.parametrize("code, text", blocks("Right"), ids=lambda value: value if len(value) == 4 else "")
def test_the_right_example_loads(code: str, text: str) -> None:
    assert spec.loads(text).outputs, code


def test_every_code_in_the_language_has_a_text() -> None:
    used = set()
    for name in ("document", "parse", "scope", "expressions", "resolve", "verify", "spec"):
        used |= set(re.findall(r"\"(E\d\d\d)\"", (ROOT / "einsum" / f"{name}.py").read_text(encoding="utf-8")))
    assert used
    assert used <= set(codes.codes())


def test_every_text_has_a_title_and_a_meaning() -> None:
    for code in codes.codes():
        title, _, meaning = (codes.explain(code) or "").partition("\n\n")
        assert re.fullmatch(r"# \S.*[^.\s]", title), code
        assert len(meaning.strip()) > 20, code
