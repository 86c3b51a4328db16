"""Emission: a standalone Triton module from a cascade and its plan.

In: a `Plan` (and the textbook cascade it came from, if there is one). Out: the text of a module that imports torch and triton
only: the kernel, `run(**inputs)`, `reference(**inputs)` in plain torch, `PLAN`, and a test of its own when run as a program.
The kernel is lowered from the cascade (`lower`), never chosen by name.
"""

from __future__ import annotations

import keyword
import pprint
import textwrap

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.printer import print_cascade, print_einsum
from ..mapper.plan import Plan, tile_time
from .helpers import helper_sources
from .host import Host
from .lower import RESERVED
from .reference import HELPERS, reference
from .self_test import SelfTest
from .shapes import shape_grid
from .signature import Signature, wrapped


def emit(cascade: Cascade, plan: Plan, *, textbook: Cascade | None = None) -> str:
    """The module. `cascade` is what the plan was made of; `textbook` what the user wrote, for the reference. Raises E612."""
    _check_names(textbook or cascade)
    return _Module(cascade, plan, textbook or cascade).text()


HOST_NAMES = RESERVED | {
    "INTERPRETED", "allow_tf32", "arguments", "case", "device", "dtype", "exact", "generator", "given", "grid", "like", "narrow",
    "os", "out", "outputs", "plain", "test",
}  # fmt: skip
"""Names that the host part of a module uses itself."""


def _check_names(cascade: Cascade) -> None:
    """Refuse inputs, sizes and parameters that cannot be keyword arguments of the module's functions."""
    own = HOST_NAMES | {f"n_{rank.name}" for rank in cascade.ranks}
    named = [(t.name, "input", t.span) for t in cascade.inputs]
    named += [(name, "size", None) for name in cascade.symbols] + [(name, "parameter", None) for name, _ in cascade.params]
    problems = [
        Diagnostic("E612", f"the {kind} `{name}` has a name that a kernel module needs for itself", span, help=f"rename the {kind}")
        for name, kind, span in named
        if name in own or keyword.iskeyword(name) or name.startswith(("_", "BLOCK_", "stride_"))
    ]
    if problems:
        raise EinsmithError(problems)


class _Module:
    def __init__(self, cascade: Cascade, plan: Plan, textbook: Cascade) -> None:
        self.cascade, self.plan, self.textbook = cascade, plan, textbook
        self.takes = Signature(cascade, plan, textbook)
        self.host = Host(self.takes)
        self.program, self.body = self.takes.program, self.takes.body

    # --- text ---

    def text(self) -> str:
        parts = [self.header(), self.imports(), self.constants(), helper_sources(self.body.helpers), self.kernel_text()]
        parts += [HELPERS.strip("\n"), self.host.launch(), self.host.run(), self.reference(), SelfTest(self.host).text()]
        return "\n\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"

    def header(self) -> str:
        best, plan = self.plan.best, self.plan
        sizes = ", ".join(f"{name}={value}" for name, value in self.takes.sizes().items())
        blocks = ", ".join(f"{r} {best.blocks[r]}" for r in self.program.axes)
        lines = [
            f'"""{self.cascade.name}: a Triton kernel generated from its cascade by einsmith.',
            "",
            *self.cascade_lines(),
            "",
            f"Plan for {plan.gpu.name} ({plan.gpu.target}), {plan.dtype} inputs:",
            f"tiles of {blocks}; {best.warps} warps, {best.stages} stages.",
            f"Predicted, not measured: {best.shared_bytes:,} bytes of shared memory, {best.registers} registers a thread,",
            f"{tile_time(best.predicted_s)} at {sizes} (bound by {best.bound}).",
            "",
            "    run(...)        the kernel; returns its outputs by name",
            "    reference(...)  the same in plain torch",
            "    PLAN            the plan",
            "",
            "Run as a program it tests itself: on a GPU if there is one, else in Triton's interpreter.",
            '"""',
        ]
        return "\n".join(line.rstrip() for line in lines)

    def cascade_lines(self) -> list[str]:
        return [
            "    " + line.replace("\\", "\\\\").replace('"""', "'''")
            for e in self.cascade.einsums
            for line in print_einsum(e, self.cascade).splitlines()
        ]

    def imports(self) -> str:
        return textwrap.dedent(
            """
            import math
            import os

            import torch

            if __name__ == "__main__" and not torch.cuda.is_available():
                os.environ["TRITON_INTERPRET"] = "1"  # must be set before triton is imported

            import triton
            import triton.language as tl

            INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
            """
        ).strip()

    def constants(self) -> str:
        described = self.plan.as_json()["plan"]
        described["blocks"] = dict(self.plan.best.blocks)
        text = pprint.pformat(described, width=120, sort_dicts=False)
        grid = [case.sizes for case in shape_grid(self.textbook)][:6]
        cases = pprint.pformat(grid, width=120, sort_dicts=False)
        spec = print_cascade(self.textbook).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        return f'PLAN = {text}\n\nSPEC = """\\\n{spec}"""\n\nCASES = {cases}'

    def kernel_text(self) -> str:
        takes = self.takes
        constants = takes.constexprs()
        arguments = [takes.lowering.pointer(n) for n in takes.pointers()] + list(takes.strides().values())
        arguments += [n for n in takes.scalar_arguments() if n not in constants]
        arguments += [f"{n}: tl.constexpr" for n in constants]
        arguments += [f"{n}: tl.constexpr" for n in takes.used_blocks().values()] + ["PRECISION: tl.constexpr"]
        floats = [t.name for t in takes.blocked.inputs if t.dtype == "float" and t.name in takes.pointers()]
        lines = ["@triton.jit", f"def {takes.kernel}("]
        lines += wrapped(arguments, 4)
        lines.append("):")
        if any("DTYPE" in line for line in self.body.lines):
            like = floats[0] if floats else self.cascade.outputs[0]
            lines.append(f"    DTYPE: tl.constexpr = {takes.lowering.pointer(like)}.dtype.element_ty")
        return "\n".join([*lines, *self.body.lines])

    def reference(self) -> str:
        return reference(self.textbook, self.takes.spelled, self.host.signature(), self.host.scalars(self.textbook))
