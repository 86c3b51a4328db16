"""docs/reference/examples.md lists every example file; `pytest --update` writes it."""

from __future__ import annotations

import pytest

from . import catalogue

PAGE = catalogue.ROOT / "docs" / "reference" / "examples.md"
SHORT = {"noncausal self": "NS", "causal self": "CS", "noncausal cross": "NC", "causal cross": "CC"}


def table(folder: str, with_patterns: bool) -> str:
    """One row a file, from its header."""
    head = ["file", "computes", "source", "passes", "derived", *(["patterns"] if with_patterns else [])]
    rows = [head, ["---"] * len(head)]
    for name, path in catalogue.FILES.items():
        if path.parent.name == folder:
            stated = catalogue.header(catalogue.load(name))
            row = [
                f"[{name}](../../examples/{folder}/{path.name})",
                stated.summary,
                stated.citation,
                counts(stated.passes, stated.growing),
            ]
            row.append(counts(stated.derived))
            if with_patterns:
                row.append(" ".join(SHORT[pattern] for pattern in stated.patterns))
            rows.append(row)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def counts(passes: dict[str, int], growing: frozenset[str] = frozenset()) -> str:
    return ", ".join(f"{rank} {n}{'+' if rank in growing else ''}" for rank, n in passes.items())


def page() -> str:
    return (
        "# Example files\n\n"
        "Passes are those of the cascade as written, over the ranks named; every other rank is swept at most once;\n"
        "`e 3+` means three in the first step of a loop and more in each further one.\n"
        "*Derived* is the least that algebra is known to allow, where it is less or a lower bound. Patterns: NS noncausal\n"
        "self, CS causal self, NC noncausal cross, CC causal cross attention; see\n"
        "[the design](../design/examples.md). The page is made from the files' headers.\n\n"
        f"## Attention\n\n{table('attention', True)}\n## Small cascades\n\n{table('cascades', False)}"
    )


def test_the_page_lists_every_file(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update"):
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run `pytest tests/examples/test_table.py --update`"
