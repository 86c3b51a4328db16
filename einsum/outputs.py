"""Other outputs: a cascade that computes the tensors someone wants, and nothing that only others need.

In: a cascade and names of tensors that it defines, such as the row maxima and denominators of an attention beside its result. Out:
the same cascade with these outputs, without the Einsums and inputs that they do not depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .cascade import Cascade, needed_for
from .diagnostics import Diagnostic, EinsmithError


def with_outputs(cascade: Cascade, names: Sequence[str]) -> Cascade:
    """The cascade for these outputs, in the order given. Raises EinsmithError (E103) where it defines no such tensor."""
    defined = [t.name for t in cascade.tensors if t.kind in ("einsum", "scatter")]
    unknown = [name for name in names if name not in defined]
    if unknown or not names:
        wrong = ", ".join(f"`{name}`" for name in unknown) or "none are named"
        raise EinsmithError(
            Diagnostic("E103", f"no tensor that could be an output: {wrong}", help=f"one of {', '.join(defined)}, joined by commas")
        )
    needed = needed_for(cascade, names)
    return replace(
        cascade,
        tensors=tuple(t for t in cascade.tensors if t.name in needed),
        einsums=tuple(e for e in cascade.einsums if e.output in needed),
        outputs=tuple(dict.fromkeys(names)),
    )
