"""Ahead-of-time compilation: what the compiler makes of a generated module, without a GPU.

In: a module's text, a plan, targets. Out: for each target shared memory, registers and local memory (spills) of a thread, and
how many matrix and exponential instructions the code has; and whether that could be launched there. The compiler itself never
rejects a kernel that cannot launch, so the limits are checked here. Compilation runs in a process of its own, with a time
limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..einsum.cascade import Cascade
from ..einsum.sizes import bind
from ..mapper.module_plan import ModulePlan
from ..mapper.plan import Plan
from .check import keywords
from .child import ask
from .store import stored

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}
"""Most shared memory of a block, bytes, as `per_block` in the GPU files, which name their sources; compilers do not enforce it."""
TENSOR_MEMORY_COLUMNS = 512
"""Most that a block may have on targets with tensor memory (`matrix` in the same files)."""
TIMEOUT_S = 300.0
"""For all that one process compiles."""


@dataclass(frozen=True)
class Compiled:
    """What one compiler made of a kernel."""

    target: str
    shared_bytes: int = 0
    staged_bytes: int | None = None
    """Of it, operands of matrix products in use at one time."""
    registers: int | None = None
    """A thread; None if the tool to read it is not there."""
    spill_bytes: int | None = None
    """Local memory of a thread."""
    mma: Mapping[str, int] = field(default_factory=dict)
    """Matrix instructions in the code, and `ex2`, the exponentials."""
    tensor_memory_columns: int = 0
    """On targets that have tensor memory."""
    error: str | None = None
    kernels: tuple[Compiled, ...] = ()
    """Each kernel of a module that has several; the numbers above are then the greatest of them, instructions their sum."""

    @property
    def launches(self) -> bool:
        """Within the limits of the target?"""
        fits = self.shared_bytes <= SHARED_LIMIT.get(self.target, 1 << 62) and self.tensor_memory_columns <= TENSOR_MEMORY_COLUMNS
        return self.error is None and fits

    def as_json(self) -> dict[str, Any]:
        if self.error is not None:
            return {"error": self.error, "launches": False}
        return {
            "shared_bytes": self.shared_bytes, "registers": self.registers, "spill_bytes": self.spill_bytes, "mma": dict(self.mma),
            "launches": self.launches,
            **({"kernels": [kernel.as_json() for kernel in self.kernels]} if self.kernels else {}),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.target}: does not compile: {self.error}"
        instructions = ", ".join(f"{count} {name}" for name, count in self.mma.items()) or "no matrix instructions"
        limit = "" if self.launches else f" (more than the {SHARED_LIMIT[self.target]:,} of this target: cannot launch there)"
        threads = f"{self.registers} registers, {self.spill_bytes} bytes spilled"
        return f"{self.target}: {self.shared_bytes:,} bytes shared{limit}, {threads}; {instructions}"


def compile_module(
    source: str,
    plan: Plan | ModulePlan,
    cascade: Cascade,
    targets: Sequence[str] | None = None,
    *,
    allow_tf32: bool = False,
) -> dict[str, Compiled]:
    """Compile a module for its plan's sizes and type. `cascade` names the inputs. Raises EinsmithError (E607, E608)."""
    (found,) = compile_modules([(source, plan)], cascade, targets, allow_tf32=allow_tf32)
    return found


def compile_modules(
    modules: Sequence[tuple[str, Plan | ModulePlan]],
    cascade: Cascade,
    targets: Sequence[str] | None = None,
    *,
    allow_tf32: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> list[dict[str, Compiled]]:
    """Compile several modules in one process: texts and plans of one cascade that differ in their first candidates. Raises
    EinsmithError (E607, E608)."""
    plan = modules[0][1]
    kernels = plan.kernels if isinstance(plan, ModulePlan) else (plan,)
    scalars = {name: value for kernel in kernels for name, value in kernel.sizes.scalars.items()}
    given = {name: int(value) for name, value in scalars.items() if name in cascade.symbols}
    params = {name: value for name, value in scalars.items() if name in dict(cascade.params)}
    known = bind(cascade, given, params).extents  # a plan may have other ranks than the cascade
    job = {
        "modules": [{"file": str(stored(source))} for source, _ in modules],
        "inputs": {t.name: ([known[r] for r in t.ranks], t.dtype) for t in cascade.inputs},
        "scalars": keywords(modules[0][0], given, None),
        "dtype": plan.dtype,
        "targets": list(targets or (plan.gpu.target,)),
        "allow_tf32": allow_tf32,
    }
    found = ask("aot_worker", job, interpret=False, timeout_s=timeout_s)["compiled"]
    return [{target: _compiled(target, values) for target, values in one.items()} for one in found]


def _compiled(target: str, values: Mapping[str, Any]) -> Compiled:
    parts = tuple(_compiled(target, part) for part in values.get("kernels", ()))
    return Compiled(target, **{**values, "kernels": parts})
