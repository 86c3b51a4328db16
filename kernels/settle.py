"""Settling: the first candidates of a plan whose kernels compile, can be launched, and do not spill.

In: plans of a cascade, the fastest predicted first. Out: the module of the chosen candidates and what the compiler said.
Predictions rank; the compiler decides: a kernel that spills or exceeds the target is given its next candidate, at most `tries`
times for a plan; then comes the next plan. If all spill, what spills least is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..mapper.module_plan import ModulePlan
from ..mapper.plan import Plan
from .aot import Compiled, compile_module
from .emit import emit_module


@dataclass(frozen=True)
class Settled:
    """The module of the chosen candidates; each kernel of `plan` has its own first."""

    source: str
    plan: ModulePlan
    compiled: dict[str, Compiled]
    passed_over: tuple[str, ...]


def settle(plans: Iterable[ModulePlan], targets: Sequence[str] = (), *, tries: int = 4, allow_tf32: bool = False) -> Settled:
    """Compile candidates in the order of their predictions until all kernels of a plan are sound. Raises EinsmithError (E610) if
    none can be launched."""
    passed_over: list[str] = []
    best: Settled | None = None
    gpu = None
    for plan in plans:
        gpu = plan.gpu
        found = _settle(plan, passed_over, tries, allow_tf32)
        if found is not None and (best is None or _spilled(found) < _spilled(best)):
            best = found
        if best is not None and not _spilled(best):
            break
    if best is None:
        name = gpu.name if gpu is not None else "this GPU"
        first = passed_over[0] if passed_over else "there is no plan"
        raise EinsmithError(Diagnostic("E610", f"no candidate of the plan can be launched on {name}: {first}"))
    others = [target for target in targets if target != best.plan.gpu.target]
    compiled = dict(best.compiled)
    if others:
        compiled |= compile_module(best.source, best.plan, best.plan.textbook, others, allow_tf32=allow_tf32)
    chosen = {_described(kernel) for kernel in best.plan.kernels}
    return replace(best, compiled=compiled, passed_over=tuple(text for text in passed_over if text.split(": sm_")[0] not in chosen))


def _settle(plan: ModulePlan, passed_over: list[str], tries: int, allow_tf32: bool) -> Settled | None:
    """One plan: the candidates of its kernels that are sound, or those that spill least; None if none can be launched."""
    target = plan.gpu.target
    known: dict[tuple[int, ...], Settled] = {}

    def compiled(turn: Sequence[int]) -> Settled:
        if tuple(turn) not in known:
            chosen = _with(plan, turn)
            source = emit_module(chosen)
            own = compile_module(source, chosen, plan.textbook, [target], allow_tf32=allow_tf32)
            known[tuple(turn)] = Settled(source, chosen, own, ())
        return known[tuple(turn)]

    turn = [0] * len(plan.kernels)
    tried: list[set[int]] = [set() for _ in plan.kernels]
    least: list[tuple[int, int] | None] = [None] * len(plan.kernels)  # bytes spilled, candidate
    for _ in range(tries):
        found = compiled(turn)
        module = found.compiled[target]
        parts = module.kernels or (module,)
        for number, (kernel, part) in enumerate(zip(found.plan.kernels, parts, strict=True)):
            spilled, best = part.spill_bytes or 0, least[number]
            if part.launches and (best is None or spilled < best[0]):
                least[number] = (spilled, turn[number])
            if part.launches and not spilled:
                continue
            passed_over.append(f"{_described(kernel)}: {part}")
            tried[number].add(turn[number])
            turn[number] = _next(plan.kernels[number], turn[number], tried[number], part.launches)
        if module.launches and not module.spill_bytes:
            return found
        if any(number >= len(kernel.candidates) for number, kernel in zip(turn, plan.kernels, strict=True)):
            break
    sound = [best[1] for best in least if best is not None]
    return compiled(sound) if len(sound) == len(plan.kernels) else None


def _next(kernel: Plan, number: int, tried: set[int], launches: bool) -> int:
    """The next candidate to try: where one spills, the first that is expected to need fewer registers, if there is one."""
    least = kernel.candidates[number].registers
    rest = [n for n in range(len(kernel.candidates)) if n not in tried]
    after = rest if not launches else [n for n in rest if kernel.candidates[n].registers < least] or rest
    return after[0] if after else len(kernel.candidates)


def _spilled(found: Settled) -> int:
    return found.compiled[found.plan.gpu.target].spill_bytes or 0


def _with(plan: ModulePlan, turn: Sequence[int]) -> ModulePlan:
    """The plan with one candidate of each kernel put first."""

    def first(kernel: Plan, number: int) -> Plan:
        candidate = kernel.candidates[number]
        return replace(kernel, candidates=(candidate, *(c for c in kernel.candidates if c is not candidate)))

    return replace(plan, kernels=tuple(first(kernel, number) for kernel, number in zip(plan.kernels, turn, strict=True)))


def _described(kernel: Plan) -> str:
    blocks = ", ".join(f"{name} {size}" for name, size in kernel.best.blocks.items())
    name = f"{kernel.cascade.name}: " if kernel.cascade.name else ""
    return f"{name}{blocks}; {kernel.best.manner}"
