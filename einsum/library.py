"""The files that come with einsmith: specs, architectures, mappings, GPUs, sweeps.

A user may name one by its path, or by its bare name (`h200`, `softmax-causal`) if no such path exists.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from .diagnostics import Diagnostic, EinsmithError

EXAMPLES = Path(__file__).parent.parent / "examples"
"""The folder of examples: in the package when installed, in the repository otherwise."""

if not EXAMPLES.is_dir():
    EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def locate(kind: str, name: str | Path) -> Path:
    """The file that `name` means: a path, or `examples/KIND/NAME.yaml`.

    Raises EinsmithError (E001) if there is neither, with the closest name that exists.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    known = {found.stem: found for found in sorted((EXAMPLES / kind).glob("*.yaml"))}
    if path.name in known:
        return known[path.name]
    close = difflib.get_close_matches(path.name, known, 1)
    hint = f"did you mean `{close[0]}`?" if close else f"a path, or one of {', '.join(known)}"
    raise EinsmithError(Diagnostic("E001", f"no file `{name}`", file=str(name), help=hint))
