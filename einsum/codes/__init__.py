"""What each error code means: one Markdown file a code, `E103.md`, first line the title.

E0 the file and its YAML; E1 the text of Einsums and names; E2 the meaning of a cascade; E3 sizes, parameters and inputs; E4
derivations; E5 architectures, mappings and simulation; E6 GPU plans and kernels; E7 sweeps and reports; E9 faults of einsmith
itself.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def codes() -> list[str]:
    """All codes, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("E*.md"))


def explain(code: str) -> str | None:
    """The Markdown text of a code; None if there is no such code."""
    path = _FOLDER / f"{code.upper()}.md"
    return path.read_text(encoding="utf-8") if code.isalnum() and path.is_file() else None
