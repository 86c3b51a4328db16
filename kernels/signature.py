"""The arguments of a generated kernel, and the sizes its module is made for.

In: a plan, the cascade it was made of, the textbook cascade, the lowered body. Out: a `Signature`: pointers, strides, scalars
and blocks of the kernel in order, and which names the generated code uses for them. The kernel's text and the host part are
both written from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..einsum.cascade import Cascade, Expr, Number, Scalar, walk
from ..mapper.plan import Plan
from .lower import Lowering
from .scalars import python


class Signature:
    """What the kernel takes. `exact`: the inner tile always has as many coordinates as its block."""

    def __init__(self, cascade: Cascade, plan: Plan, textbook: Cascade, kernel: str, workspace: Mapping[str, str]) -> None:
        self.cascade, self.plan, self.textbook, self.kernel = cascade, plan, textbook, kernel
        self.workspace = workspace
        """Tensors that lie between kernels -> their type in memory, as the host writes it."""
        self.program = plan.program
        self.blocked = plan.program.cascade
        blocks, inner = plan.best.blocks, plan.program.inner
        exact = inner is None or not plan.tile_fixed or (self.fixed_tile() == blocks[inner] and not self.tile_is_given())
        single = frozenset(name for name, kind in workspace.items() if kind == "torch.float32")
        self.lowering = Lowering(
            plan.program, exact, single, plan.best.order, plan.precision, frozenset(plan.best.described), plan.best.walk
        )
        self.body = self.lowering.run()
        self.spelled = self.lowering.spelled

    def typed_pointer(self) -> str | None:
        """A pointer whose element type is that of what is computed for matrix products; None if the kernel has none."""
        inputs = [t.name for t in self.blocked.inputs if t.dtype == "float" and not self.plan.precision.is_narrow(t.name)]
        outputs = [name for name in self.cascade.outputs if self.cascade.tensor(name).dtype == "float"]
        given = [n for n in (*inputs, *outputs) if n in self.pointers() and self.workspace.get(n, "dtype") == "dtype"]
        return self.lowering.pointer(given[0]) if given else None

    def needs_type(self) -> bool:
        """Does the body name the type of the inputs?"""
        return any("DTYPE" in line for line in self.body.lines)

    def type_is_argument(self) -> bool:
        """Must the type of the inputs be an argument, as no pointer tells it?"""
        return self.needs_type() and self.typed_pointer() is None

    def tile_is_given(self) -> bool:
        """May the caller of `run` choose the inner tile?"""
        inner = self.program.inner
        extent = self.blocked.rank(inner).extent if inner is not None else None
        return isinstance(extent, Scalar) and extent.name in self.textbook.symbols

    def fixed_tile(self) -> int | None:
        """Extent of the inner tile where it is not the plan's to choose."""
        inner = self.program.inner
        if inner is None or not self.plan.tile_fixed:
            return None
        extent = self.blocked.rank(inner).extent
        if isinstance(extent, Number):
            return int(extent.value)
        return int(self.plan.sizes.extents[inner])

    def pointers(self) -> list[str]:
        """Inputs that the kernel reads, then outputs."""
        return [t.name for t in self.blocked.inputs if t.name in self.body.pointers] + list(self.cascade.outputs)

    def descriptors(self) -> dict[str, tuple[str, list[str]]]:
        """Argument -> tensor, and the shape of the tiles that it describes."""
        return {
            self.lowering.descriptor(tensor): (tensor, [self.lowering.blocks[a] if a is not None else "1" for a in axes])
            for tensor, axes in self.body.descriptors.items()
        }

    def strides(self) -> dict[tuple[str, int], str]:
        """(tensor, dimension) -> argument, in the order of the pointers."""
        order = self.pointers()
        return dict(sorted(self.body.strides.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))

    def scalar_arguments(self) -> dict[str, str]:
        """Name in the kernel -> Python expression on the host, for everything that is not a pointer, stride or block."""
        found: dict[str, str] = {}
        for rank, name in self.body.extents.items():
            found[name] = python(self.blocked.rank(rank).extent, self.spelled)
        for name in self.body.scalars:
            found[self.spelled(name)] = self.spelled(name)
        for name, expr in self.body.computed.items():
            found[name] = f"float({python(expr, self.spelled)})"  # also where it is whole: the kernel computes with it
        for name, expr in self.body.decided.items():
            found[name] = python(expr, self.spelled)
        return found

    def constexprs(self) -> list[str]:
        """Scalar arguments that the kernel is compiled for: extents held whole, divisors of coordinates, conditions."""
        names = [self.body.extents[r] for r in (*self.program.whole, self.program.inner) if r in self.body.extents]
        divisors = {self.spelled(name) for name in self.body.divisors}
        for node_name in self.scalar_arguments():
            if node_name == self.tile_symbol() or node_name in divisors:
                names.append(node_name)
        return list(dict.fromkeys([*names, *self.body.decided]))

    def tile_symbol(self) -> str | None:
        """Name of the size that is the inner tile, where it is a size."""
        inner = self.program.inner
        if inner is None:
            return None
        extent = self.blocked.rank(inner).extent
        return self.spelled(extent.name) if isinstance(extent, Scalar) else None

    def used_blocks(self) -> dict[str, str]:
        """Axis -> name of its block size, for the axes whose blocks the text names."""
        text = "\n".join([*self.body.lines, *(" ".join(shape) for _, shape in self.descriptors().values())])
        return {axis: name for axis, name in self.lowering.blocks.items() if re.search(rf"\b{name}\b", text)}

    def sizes(self) -> dict[str, int]:
        """The sizes that the plan was made for."""
        return {n: int(v) for n, v in self.plan.sizes.scalars.items() if n in self.cascade.symbols}


def scalars_of(expr: Expr) -> set[str]:
    """Names of the scalars in an expression."""
    return {node.name for node in walk(expr) if isinstance(node, Scalar)}


def wrapped(items: list[str], indent: int) -> list[str]:
    """Items with commas, on lines of bounded length, never broken inside an item."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) > 112:
            lines.append(" " * indent + line.rstrip())
            line = ""
        line += f"{item}, "
    return [*lines, " " * indent + line.rstrip()]
