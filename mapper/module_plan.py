"""The plan of a module: the plans of its kernels, in the order of launches, and what lies in memory between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from ..einsum.cascade import Cascade, accesses
from ..einsum.display import Displayed
from .gpu import Gpu
from .plan import Candidate, Merit, Plan, tile_time
from .products import contractions


@dataclass(frozen=True)
class ModulePlan(Displayed):
    """The kernels of a module in the order of launches. `note` says how the cascade came to this form."""

    textbook: Cascade
    """As the user wrote it: what the reference computes."""
    kernels: tuple[Plan, ...]
    note: str = ""
    parts: int = 1
    """Parts of the walked rank that run side by side; the last kernel merges them."""
    chunked: bool = False
    """Do recurrences go chunk by chunk?"""

    @property
    def best(self) -> Candidate:
        """Of the only kernel."""
        (only,) = self.kernels
        return only.best

    @property
    def gpu(self) -> Gpu:
        """What all kernels are for."""
        return self.kernels[0].gpu

    @property
    def dtype(self) -> str:
        """Type of the inputs that all kernels are for."""
        return self.kernels[0].dtype

    @property
    def predicted_s(self) -> float:
        """Kernels one after another; each has its launch in it."""
        return sum(kernel.best.predicted_s for kernel in self.kernels)

    @cached_property
    def merit(self) -> Merit:
        """Of all kernels together."""
        parts = [kernel.merit for kernel in self.kernels]
        return Merit(
            self.predicted_s, sum(p.work_s for p in parts), sum(p.products for p in parts), all(p.latency_bound for p in parts)
        )

    @cached_property
    def between(self) -> tuple[str, ...]:
        """Tensors that one kernel writes for another."""
        read = {t.name for kernel in self.kernels for t in kernel.cascade.inputs}
        return tuple(name for kernel in self.kernels for name in kernel.cascade.outputs if name in read)

    @property
    def workspace_bytes(self) -> int:
        """Device memory for what lies between kernels."""
        total = 0
        for kernel in self.kernels:
            for name in set(kernel.cascade.outputs) & set(self.between):
                tensor = kernel.cascade.tensor(name)
                float_bytes = self.kernels[0].precision.computed if operand_only(self, name) else 4
                element = {"float": float_bytes, "int": 8, "bool": 1}[tensor.dtype]
                total += element * prod(kernel.sizes.extents.get(rank, 1) for rank in tensor.ranks)
        return total

    def as_json(self) -> dict[str, Any]:
        """Of one kernel, its plan and candidates; of several, the plan of each under `kernels`, and all candidates by kernel."""
        if len(self.kernels) == 1:
            return self.kernels[0].as_json()
        parts = [kernel.as_json() for kernel in self.kernels]
        return {
            "plan": {
                "cascade": self.textbook.name, "gpu": self.gpu.name, "target": self.gpu.target, "dtype": self.dtype,
                "kernels": [part["plan"] for part in parts], "between": list(self.between), "split": self.parts,
                "workspace_bytes": self.workspace_bytes, "predicted_s": self.predicted_s,
            },
            "candidates": [
                {"kernel": number, **candidate} for number, part in enumerate(parts) for candidate in part["candidates"]
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        if len(self.kernels) == 1:
            return str(self.kernels[0])
        lines = [
            f"{self.textbook.name} in {len(self.kernels)} kernels, {tile_time(self.predicted_s)} together; between them in memory: "
            + f"{', '.join(self.between)} ({self.workspace_bytes:,} B)"
        ]
        if self.parts > 1:
            lines.append(f"  split                    {self.parts} parts of the walked rank side by side, then a merge")
        for number, kernel in enumerate(self.kernels, 1):
            lines += ["", f"kernel {number} of {len(self.kernels)}, for {', '.join(kernel.cascade.outputs)}", str(kernel)]
        return "\n".join(lines)


def operand_only(module: ModulePlan, tensor: str) -> bool:
    """Is a tensor that lies between kernels read by them as an operand of matrix products and in no other way? Then it may lie
    there in the type of the inputs, as it would be rounded to that anyway."""
    for kernel in module.kernels:
        if tensor not in {t.name for t in kernel.cascade.inputs}:
            continue
        every = [a for e in kernel.program.cascade.einsums for a in accesses(e.body) if a.tensor == tensor]
        sides = [
            side[0]
            for split in contractions(kernel.program)
            for side in (split.left, split.right)
            if len(side) == 1 and getattr(side[0], "tensor", None) == tensor
        ]
        if len(sides) < len(every):
            return False
    return True
