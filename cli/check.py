"""`einsmith check`: parse, resolve and verify spec files."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import rich_click as click

from ..einsum.diagnostics import Diagnostic, EinsmithError
from .common import guarded


@dataclass
class Checked:
    """Which files are well-formed, and what is wrong with the others."""

    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.bad else 0

    def as_json(self) -> dict[str, Any]:
        return {"ok": not self.bad, "diagnostics": [diagnostic.as_json() for diagnostic in self.diagnostics]}

    def __str__(self) -> str:
        lines = [f"{name}: ok" for name in self.good]
        if self.bad:
            errors = len(self.diagnostics)
            lines.append(f"{errors} error{'s' if errors > 1 else ''} in {len(self.bad)} of {len(self.good) + len(self.bad)} files")
        return "\n".join(lines)


@click.command()
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@guarded
def command(specs: tuple[str, ...]) -> Checked:
    """Parse, resolve and verify spec files: all errors of each, with their places. Where a spec gives all its sizes, so are they.

    Example: einsmith check examples/attention/*.yaml
    """
    from dataclasses import replace

    from ..einsum import sizes, spec
    from ..einsum.library import locate

    checked = Checked()
    for name in specs:
        try:
            cascade = spec.load(locate("attention", name))
            if set(cascade.symbols) <= {symbol for symbol, _ in cascade.sizes}:
                sizes.bind(cascade)
        except EinsmithError as error:
            checked.bad.append(name)
            found = [each if each.span is not None else replace(each, file=name) for each in error.diagnostics]
            for diagnostic in found:
                print(f"{diagnostic}\n", file=sys.stderr)
            checked.diagnostics += found
        else:
            checked.good.append(name)
    return checked
