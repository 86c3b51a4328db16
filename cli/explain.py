"""`einsmith explain`: what an error code means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rich_click as click

from .common import guarded


@dataclass
class Explained:
    """The text of one code."""

    code: str
    text: str

    def as_json(self) -> dict[str, Any]:
        title = self.text.partition("\n")[0].removeprefix("#").strip()
        return {"code": self.code, "title": title, "text": self.text}

    def __str__(self) -> str:
        return self.text.removesuffix("\n")


@click.command()
@click.argument("code", metavar="CODE")
@guarded
def command(code: str) -> Explained:
    """What an error code means, with an example of the mistake and its fix.

    Example: einsmith explain E103
    """
    import difflib

    from ..einsum import codes
    from ..einsum.diagnostics import Diagnostic, EinsmithError

    wanted = code.strip().removeprefix("error").strip("[]: ").upper()
    text = codes.explain(wanted)
    if text is None:
        known = codes.codes()
        same = [each for each in known if each[1:] == wanted or each[1:] == wanted[1:]]
        close = same or difflib.get_close_matches(wanted, known, 3, 0.7)
        hint = (
            f"did you mean {' or '.join(f'`{each}`' for each in close)}?" if close else f"codes run from {known[0]} to {known[-1]}"
        )
        raise EinsmithError(Diagnostic("E902", f"there is no error code `{code}`", help=hint))
    return Explained(wanted, text)
