"""`einsmith fmt`: a spec file in canonical form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click

from .common import guarded, write_text


@dataclass
class Formatted:
    """Canonical text of a spec, and whether the file holds just that."""

    file: str
    text: str
    changed: bool
    shown: str
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.exit_code == 0, "file": self.file, "text": self.text, "changed": self.changed}

    def __str__(self) -> str:
        return self.shown


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option("--write", is_flag=True, help="Rewrite the file in place. Comments are not kept.")
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the file is not in canonical form.")
@guarded
def command(spec: str, write: bool, check: bool) -> Formatted:
    """Print a spec in canonical form. Comments are not part of a cascade and are left out.

    Example: einsmith fmt examples/attention/softmax.yaml
    """
    from ..einsum.library import locate
    from ..einsum.printer import print_cascade
    from ..einsum.spec import load
    from ..einsum.spec_file import read_source

    path = Path(spec) if write else locate("attention", spec)  # a bare name never rewrites a file that comes with einsmith
    text = print_cascade(load(path))
    changed = read_source(path).text != text
    if check:
        return Formatted(spec, text, changed, f"{spec}: {'not in canonical form' if changed else 'ok'}", int(changed))
    if write:
        if changed:
            write_text(path, text)
        return Formatted(spec, text, changed, f"{spec}: {'rewritten' if changed else 'unchanged'}")
    return Formatted(spec, text, changed, text.removesuffix("\n"))
