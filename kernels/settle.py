"""Settling: the first candidate of a plan whose kernel compiles, can be launched, and does not spill.

In: a plan. Out: the module of one candidate and what the compiler said. Predictions rank; the compiler decides: candidates that
spill or exceed the target are passed over, at most `tries` of them; the one that spills least is taken if all do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..mapper.plan import Plan
from .aot import Compiled, compile_module
from .emit import emit


@dataclass(frozen=True)
class Settled:
    """The module of the chosen candidate; `plan` has it first."""

    source: str
    plan: Plan
    compiled: dict[str, Compiled]
    passed_over: tuple[str, ...]


def settle(
    cascade: Cascade, plan: Plan, textbook: Cascade, targets: Sequence[str] = (), *, tries: int = 4, allow_tf32: bool = False
) -> Settled:
    """Compile candidates in the order of their predictions until one is sound. Raises EinsmithError (E610) if none can be
    launched."""
    passed_over: list[str] = []
    best: Settled | None = None
    taken: int | None = None  # which of those passed over is taken after all
    for candidate in plan.candidates[:tries]:
        chosen = replace(plan, candidates=(candidate, *(c for c in plan.candidates if c is not candidate)))
        source = emit(cascade, chosen, textbook=textbook)
        own = compile_module(source, chosen, textbook, [plan.gpu.target], allow_tf32=allow_tf32)
        found = own[plan.gpu.target]
        settled = Settled(source, chosen, own, tuple(passed_over))
        if found.launches and not found.spill_bytes:
            best, taken = settled, None
            break
        blocks = ", ".join(f"{name} {size}" for name, size in candidate.blocks.items())
        passed_over.append(f"{blocks}; {candidate.warps} warps, {candidate.stages} stages: {found}")
        if found.launches and (best is None or (found.spill_bytes or 0) < (best.compiled[plan.gpu.target].spill_bytes or 0)):
            best, taken = settled, len(passed_over) - 1
    if best is None:
        raise EinsmithError(
            Diagnostic(
                "E610",
                f"no candidate of the plan can be launched on {plan.gpu.name}: {passed_over[0]}",
            )
        )
    others = [target for target in targets if target != plan.gpu.target]
    compiled = dict(best.compiled)
    if others:
        compiled |= compile_module(best.source, best.plan, textbook, others, allow_tf32=allow_tf32)
    others_tried = tuple(text for number, text in enumerate(passed_over) if number != taken)
    return Settled(best.source, best.plan, compiled, others_tried)
