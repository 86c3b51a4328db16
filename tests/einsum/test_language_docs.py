"""Every spec in the docs of the language is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from einsmith.einsum import parse
from einsmith.einsum.cascade import MAP_OPS, REDUCTIONS, SCANS, SELECTIONS
from einsmith.einsum.printer import print_cascade
from einsmith.einsum.spec import loads
from einsmith.einsum.spec_file import MAX_FILE

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "language.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.parametrize("text", BLOCKS)
def test_a_spec_in_the_reference_loads(text: str) -> None:
    cascade = loads(text)
    assert loads(print_cascade(cascade)) == cascade


def test_the_reference_has_a_spec_for_each_part() -> None:
    assert len(BLOCKS) >= 9


@pytest.mark.parametrize(
    "name", sorted({name for name in MAP_OPS if name.isalnum()} - {"neg"} | {*REDUCTIONS, *SCANS, *SELECTIONS})
)
def test_the_reference_names_every_operation(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


def test_the_reference_gives_the_limits() -> None:
    for limit in (
        f"{MAX_FILE // 1024} KiB",
        f"{parse.MAX_CASCADE:,}",
        f"{parse.MAX_STATEMENT:,}",
        f"{parse.MAX_BRACKETS} brackets",
        f"{parse.MAX_DEPTH} operations",
    ):
        assert limit in PAGE.split("## Limits")[1]
