"""Emission: a standalone Triton module from a cascade and its plan.

In: a `ModulePlan`. Out: the text of a module that imports torch and triton only: its kernels, `run(**inputs)`,
`reference(**inputs)` in plain torch, `PLAN`, and a test of its own when run as a program. Kernels are lowered from the cascade
(`lower`), never chosen by name.
"""

from __future__ import annotations

import keyword
import pprint
import re
import textwrap
from collections import Counter

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.printer import print_cascade, print_einsum
from ..mapper.module_plan import ModulePlan, operand_only
from ..mapper.plan import Plan, tile_time
from ..mapper.precision import WIDER
from .helpers import helper_sources
from .host import TYPES, Host
from .reference import HELPERS, reference
from .self_test import SelfTest
from .shapes import shape_grid
from .signature import Signature, wrapped
from .text import RESERVED


def emit(cascade: Cascade, plan: Plan, *, textbook: Cascade | None = None) -> str:
    """The module of one kernel. `cascade` is what the plan was made of; `textbook` what the user wrote, for the reference."""
    return emit_module(ModulePlan(textbook or cascade, (plan,)))


def emit_module(plan: ModulePlan) -> str:
    """The module of all kernels of a plan. Raises EinsmithError (E612)."""
    _check_names(plan.textbook)
    return _Module(plan).text()


HOST_NAMES = RESERVED | {
    "INTERPRETED", "LANGUAGE_TYPES", "allow_tf32", "arguments", "between", "case", "device", "dtype", "exact", "generator", "given",
    "grid", "kernel", "launches", "like", "narrow", "options", "os", "out", "outputs", "plain", "test",
}  # fmt: skip
"""Names that the host part of a module uses itself."""


HELPER = re.compile(r"def (_\w+)\(")
WORD = re.compile(r"\w+")


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


def _used(blocks: list[str]) -> list[str]:
    """The functions of a module without helpers that nothing calls."""
    names = {number: found[1] for number, block in enumerate(blocks) if (found := HELPER.match(block))}
    while True:
        words = Counter(word for block in blocks for word in set(WORD.findall(block)))
        unused = {number for number, name in names.items() if blocks[number] and words[name] == 1}
        if not unused:
            return [block for block in blocks if block]
        blocks = ["" if number in unused else block for number, block in enumerate(blocks)]


class _Module:
    def __init__(self, plan: ModulePlan) -> None:
        self.plan, self.textbook = plan, plan.textbook
        workspace = {}
        for kernel in plan.kernels:
            for name in kernel.cascade.outputs:
                kind = TYPES[kernel.cascade.tensor(name).dtype]
                if name not in plan.textbook.outputs:
                    workspace[name] = "torch.float32" if kind == "dtype" and not operand_only(plan, name) else kind
        names = kernel_names(plan)
        self.kernels = [
            Signature(one.cascade, one, plan.textbook, name, workspace) for one, name in zip(plan.kernels, names, strict=True)
        ]
        self.host = Host(self.kernels)

    # --- text ---

    def text(self) -> str:
        helpers = {name for takes in self.kernels for name in takes.body.helpers}
        parts = [self.header(), self.imports(), self.constants(), helper_sources(helpers)]
        parts += [self.kernel_text(takes) for takes in self.kernels]
        parts += [HELPERS.strip("\n"), self.host.launch(), self.host.run(), self.reference(), SelfTest(self.host).text()]
        return "\n\n\n".join(_used("\n\n\n".join(part.strip("\n") for part in parts if part.strip()).split("\n\n\n"))) + "\n"

    def header(self) -> str:
        plan, count = self.plan, len(self.kernels)
        sizes = ", ".join(f"{name}={value}" for name, value in self.kernels[0].sizes().items())
        what = "a Triton kernel" if count == 1 else f"{count} Triton kernels"
        lines = [f'"""{self.textbook.name}: {what} generated from its cascade by einsmith.', ""]
        if count == 1:
            lines += [*self.cascade_lines(plan.kernels[0].cascade), ""]
            lines.append(f"Plan for {plan.gpu.name} ({plan.gpu.target}), {plan.dtype} inputs:")
            lines += [
                *self.kernel_lines(self.kernels[0]),
                f"{tile_time(plan.predicted_s)} at {sizes} (bound by {plan.best.bound}).",
            ]
        else:
            lines.append(f"Plan for {plan.gpu.name} ({plan.gpu.target}), {plan.dtype} inputs, at {sizes};")
            lines.append(
                f"{tile_time(plan.predicted_s)} predicted for all; {', '.join(plan.between)} lie in memory between kernels."
            )
            for takes in self.kernels:
                best = takes.plan.best
                lines += ["", f"{takes.kernel}:", *self.cascade_lines(takes.cascade), *self.kernel_lines(takes)]
                lines.append(f"{tile_time(best.predicted_s)} (bound by {best.bound}).")
        lines += [
            "",
            f"    run(...)        the kernel{'s' if count > 1 else ''}; returns {'the' if count > 1 else 'its'} outputs by name",
            "    reference(...)  the same in plain torch",
            "    PLAN            the plan",
            "",
            "Run as a program it tests itself: on a GPU if there is one, else in Triton's interpreter.",
            '"""',
        ]
        return "\n".join(line.rstrip() for line in lines)

    def kernel_lines(self, takes: Signature) -> list[str]:
        best = takes.plan.best
        blocks = ", ".join(f"{r} {best.blocks[r]}" for r in takes.program.axes) or "one number"
        return [
            f"tiles of {blocks}; {best.manner}.",
            f"Predicted, not measured: {best.shared_bytes:,} bytes of shared memory, {best.registers} registers a thread,",
        ]

    def cascade_lines(self, cascade: Cascade) -> list[str]:
        return [
            "    " + line.replace("\\", "\\\\").replace('"""', "'''")
            for e in cascade.einsums
            for line in print_einsum(e, cascade).splitlines()
        ]

    def imports(self) -> str:
        text = """
            import math
            import os

            import torch

            if __name__ == "__main__" and not torch.cuda.is_available():
                os.environ["TRITON_INTERPRET"] = "1"  # must be set before triton is imported

            import triton
            import triton.language as tl
            """
        lines = textwrap.dedent(text).strip().splitlines()
        if any(takes.descriptors() for takes in self.kernels):
            lines.append("from triton.tools.tensor_descriptor import TensorDescriptor")
        return "\n".join([*lines, "", 'INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"'])

    def constants(self) -> str:
        described = self.plan.as_json()["plan"]
        parts = described.get("kernels", [described])
        for part, kernel in zip(parts, self.plan.kernels, strict=True):
            part["blocks"] = dict(kernel.best.blocks)
        text = pprint.pformat(described, width=120, sort_dicts=False)
        grid = [case.sizes for case in shape_grid(self.textbook)][:6]
        cases = pprint.pformat(grid, width=120, sort_dicts=False)
        spec = print_cascade(self.textbook).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        return f'PLAN = {text}\n\nSPEC = """\\\n{spec}"""\n\nCASES = {cases}'

    def kernel_text(self, takes: Signature) -> str:
        constants = takes.constexprs()
        arguments = [*(takes.lowering.pointer(n) for n in takes.pointers()), *takes.descriptors(), *takes.strides().values()]
        arguments += [n for n in takes.scalar_arguments() if n not in constants]
        arguments += [f"{n}: tl.constexpr" for n in constants]
        arguments += [f"{n}: tl.constexpr" for n in takes.used_blocks().values()] + ["PRECISION: tl.constexpr"]
        if takes.type_is_argument():
            arguments.append("DTYPE: tl.constexpr")
        lines = ["@triton.jit", f"def {takes.kernel}("]
        lines += wrapped(arguments, 4)
        lines.append("):")
        if takes.needs_type() and not takes.type_is_argument():
            lines.append(f"    DTYPE: tl.constexpr = {takes.typed_pointer()}.dtype.element_ty")
        return "\n".join([*lines, *takes.body.lines])

    def reference(self) -> str:
        host = self.host
        prologue = host.scalars(self.textbook)
        if self.plan.kernels[0].precision.dtype in WIDER:
            kind = self.plan.kernels[0].precision.computed_type
            floats = [host.spelled(t.name) for t in self.textbook.inputs if t.dtype == "float"]
            prologue += [f"{name} = {name}.to(torch.{kind}) if {name}.dtype in FLOAT8 else {name}" for name in floats]
        return reference(self.textbook, host.spelled, host.signature(), prologue)


def kernel_names(plan: ModulePlan) -> list[str]:
    """A name for each kernel, all different: that of its cascade."""
    found: list[str] = []
    for kernel in plan.kernels:
        name = re.sub(r"\W", "_", kernel.cascade.name).strip("_").lower() or "cascade"
        name = f"{'_' if name[0].isdigit() else ''}{name}"
        while f"{name}_kernel" in found:
            name += "_"
        found.append(f"{name}_kernel")
    return found
