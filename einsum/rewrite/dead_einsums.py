"""Dead Einsums: what no output depends on is not computed.

before    A[p,m] = SN[p,m] / SD[p]       (nothing reads A)
after     (gone)
"""

from __future__ import annotations

from dataclasses import replace

from ..cascade import Cascade, needed_for
from .step import Rewritten, Step, reordered, shown

NAME = "dead-einsums"


def dead_einsums(cascade: Cascade) -> Rewritten | None:
    """Drop Einsums that no output depends on."""
    live = needed_for(cascade, cascade.outputs)
    dead = [einsum for einsum in cascade.einsums if einsum.output not in live]
    if not dead:
        return None
    after = reordered(replace(cascade, einsums=tuple(einsum for einsum in cascade.einsums if einsum.output in live)))
    names_shown = ", ".join(dict.fromkeys(einsum.output for einsum in dead))
    step = Step(NAME, names_shown, shown(dead, cascade), "what is not read is not computed", "no output depends on it", "")
    return Rewritten(after, step)
