"""Emission: a standalone Triton module from a cascade and its plan.

In: a `Plan` (and the textbook cascade it came from, if there is one). Out: the text of a module that imports torch and triton only:
the kernel, `run(**inputs)`, `reference(**inputs)` in plain torch, `PLAN`, and a test of its own when run as a program. The kernel is
lowered from the cascade (`lower`), never chosen by name.
"""

from __future__ import annotations

import pprint
import re
import textwrap

from ..einsum.cascade import Access, Cascade, Einsum, Expr, Map, Number, Scalar, accesses, walk
from ..einsum.printer import print_cascade, print_einsum
from ..mapper.loop_masks import whole_scalars
from ..mapper.plan import Plan, shortest_side, tile_time
from .helpers import helper_sources
from .lower import Body, Lowering
from .reference import HELPERS, reference
from .scalars import python
from .shapes import shape_grid

TRITON_TYPES = ("float16", "bfloat16", "float32")


def emit(cascade: Cascade, plan: Plan, *, textbook: Cascade | None = None) -> str:
    """The module. `cascade` is what the plan was made of; `textbook` what the user wrote, for the reference."""
    return _Module(cascade, plan, textbook or cascade).text()


class _Module:
    def __init__(self, cascade: Cascade, plan: Plan, textbook: Cascade) -> None:
        self.cascade, self.plan, self.textbook = cascade, plan, textbook
        self.program = plan.program
        self.blocked = plan.program.cascade
        blocks, inner = plan.best.blocks, plan.program.inner
        exact = inner is None or not plan.tile_fixed or (self.fixed_tile() == blocks[inner] and not self.tile_is_given())
        self.lowering = Lowering(plan.program, exact, self.explain)
        self.body: Body = self.lowering.run()
        self.spelled = self.lowering.spelled
        self.kernel = re.sub(r"\W", "_", cascade.name).strip("_").lower() or "cascade"
        self.kernel = f"_{self.kernel}" if self.kernel[0].isdigit() else self.kernel
        self.whole = whole_scalars(self.blocked)

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

    def explain(self, einsum: Einsum) -> str:
        return " ".join(print_einsum(einsum, self.program.cascade).split())

    # --- text ---

    def text(self) -> str:
        parts = [self.header(), self.imports(), self.constants(), helper_sources(self.body.helpers), self.kernel_text()]
        parts += [HELPERS.strip("\n"), self.launch(), self.run(), self.reference(), self.own_test()]
        return "\n\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"

    def header(self) -> str:
        best, plan = self.plan.best, self.plan
        blocks = ", ".join(f"{r} {best.blocks[r]}" for r in self.program.axes)
        lines = [
            f'"""{self.cascade.name}: a Triton kernel generated from its cascade by einsmith.',
            "",
            *self.cascade_lines(),
            "",
            f"Plan for {plan.gpu.name} ({plan.gpu.target}), {plan.dtype} inputs: tiles of {blocks}; {best.warps} warps, {best.stages} stages.",
            f"Predicted, not measured: {best.shared_bytes:,} bytes of shared memory, {best.registers} registers a thread,",
            f"{tile_time(best.predicted_s)} at {', '.join(f'{n}={v}' for n, v in self.sizes().items())} (bound by {best.bound}).",
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

    def sizes(self) -> dict[str, int]:
        return {n: int(v) for n, v in self.plan.sizes.scalars.items() if n in self.cascade.symbols}

    def constants(self) -> str:
        described = self.plan.as_json()["plan"]
        described["blocks"] = dict(self.plan.best.blocks)
        text = pprint.pformat(described, width=120, sort_dicts=False)
        grid = [case.sizes for case in shape_grid(self.textbook)][:6]
        cases = pprint.pformat(grid, width=120, sort_dicts=False)
        spec = print_cascade(self.textbook).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        return f'PLAN = {text}\n\nSPEC = """\\\n{spec}"""\n\nCASES = {cases}'

    # --- the kernel ---

    def pointers(self) -> list[str]:
        """Inputs that the kernel reads, then outputs."""
        return [t.name for t in self.blocked.inputs if t.name in self.body.pointers] + list(self.cascade.outputs)

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
        return found

    def constexprs(self) -> list[str]:
        """Scalar arguments that the kernel is compiled for: extents held whole."""
        names = [self.body.extents[r] for r in (*self.program.whole, self.program.inner) if r in self.body.extents]
        for node_name in self.scalar_arguments():
            if node_name in names:
                continue
            if node_name == self.tile_symbol():
                names.append(node_name)
        return list(dict.fromkeys(names))

    def tile_symbol(self) -> str | None:
        inner = self.program.inner
        if inner is None:
            return None
        extent = self.blocked.rank(inner).extent
        return self.spelled(extent.name) if isinstance(extent, Scalar) else None

    def used_blocks(self) -> dict[str, str]:
        text = "\n".join(self.body.lines)
        return {axis: name for axis, name in self.lowering.blocks.items() if re.search(rf"\b{name}\b", text)}

    def kernel_text(self) -> str:
        constants = self.constexprs()
        arguments = [self.lowering.pointer(n) for n in self.pointers()] + list(self.strides().values())
        arguments += [n for n in self.scalar_arguments() if n not in constants]
        arguments += [f"{n}: tl.constexpr" for n in constants]
        arguments += [f"{n}: tl.constexpr" for n in self.used_blocks().values()] + ["PRECISION: tl.constexpr"]
        floats = [t.name for t in self.blocked.inputs if t.dtype == "float" and t.name in self.pointers()]
        lines = ["@triton.jit", f"def {self.kernel}_kernel("]
        lines += _wrapped(arguments, 4)
        lines.append("):")
        if any("DTYPE" in line for line in self.body.lines):
            like = floats[0] if floats else self.cascade.outputs[0]
            lines.append(f"    DTYPE: tl.constexpr = {self.lowering.pointer(like)}.dtype.element_ty")
        return "\n".join([*lines, *self.body.lines])

    # --- the host ---

    def inputs(self) -> list[str]:
        return [t.name for t in self.textbook.inputs]

    def keywords(self) -> list[str]:
        """Scalars that a caller may or must give: sizes that no shape tells, parameters."""
        found = []
        for name in self.unknown_sizes():
            found.append(
                self.spelled(name)
                if name not in dict(self.textbook.sizes)
                else f"{self.spelled(name)}={dict(self.textbook.sizes)[name]}"
            )
        found += [f"{self.spelled(name)}=None" for name, _ in self.textbook.params]
        return sorted(found, key=lambda text: "=" in text)

    def known_sizes(self) -> dict[str, tuple[str, int]]:
        """Size -> the input and dimension that tells it."""
        found: dict[str, tuple[str, int]] = {}
        for tensor in self.textbook.inputs:
            for dimension, rank in enumerate(tensor.ranks):
                extent = self.textbook.rank(rank).extent
                if isinstance(extent, Scalar) and extent.name in self.textbook.symbols:
                    found.setdefault(extent.name, (tensor.name, dimension))
        return found

    def solved_sizes(self) -> dict[str, str]:
        """Size -> expression, for sizes that follow from a dimension whose extent is a formula of them and of known ones."""
        known = set(self.known_sizes())
        found: dict[str, str] = {}
        for tensor in self.textbook.inputs:
            for dimension, rank in enumerate(tensor.ranks):
                extent = self.textbook.rank(rank).extent
                missing = [name for name in _scalars(extent) if name in self.textbook.symbols and name not in known]
                if len(missing) == 1:
                    code = self.solve(extent, f"{self.spelled(tensor.name)}.shape[{dimension}]", missing[0])
                    if code is not None:
                        found[missing[0]] = code
                        known.add(missing[0])
        return found

    def solve(self, expr: Expr, value: str, name: str) -> str | None:
        """The value of a symbol for which the expression has a given value; None if it is not that simple."""
        match expr:
            case Scalar():
                return value if expr.name == name else None
            case Map(op=("*" | "+" | "-") as op, args=(a, b)):
                left = name in _scalars(a)
                if left == (name in _scalars(b)) or (op == "-" and not left):
                    return None
                other = python(b if left else a, self.spelled)
                inverse = {"*": "//", "+": "-", "-": "+"}[op]
                shown = f"max({other}, 1)" if op == "*" else f"({other})"
                return self.solve(a if left else b, f"({value} {inverse} {shown})", name)
            case _:
                return None

    def unknown_sizes(self) -> list[str]:
        known = {*self.known_sizes(), *self.solved_sizes()}
        return [name for name in self.textbook.symbols if name not in known]

    def scalars(self, cascade: Cascade) -> list[str]:
        """Statements that compute sizes, counts and parameters from shapes and keywords."""
        lines: list[str] = []
        known = self.known_sizes()
        by_tensor: dict[str, dict[int, str]] = {}
        for name, (tensor, dimension) in known.items():
            by_tensor.setdefault(tensor, {})[dimension] = name
        for tensor, named in by_tensor.items():
            ranks = self.textbook.tensor(tensor).ranks
            targets = [self.spelled(named[d]) if d in named else "_" for d in range(len(ranks))]
            lines.append(f"{', '.join(targets)}{',' if len(targets) == 1 else ''} = {self.spelled(tensor)}.shape")
        lines += [f"{self.spelled(name)} = {code}" for name, code in self.solved_sizes().items()]
        return lines + self.derived(cascade)

    def derived(self, cascade: Cascade) -> list[str]:
        """Counts and parameters, in an order in which each is known before it is used."""
        waiting = {**{n: (e, False) for n, e in cascade.counts.items()}, **{n: (e, True) for n, e in cascade.params}}
        lines: list[str] = []
        while waiting:
            ready = [n for n, (e, _) in waiting.items() if not ({s for s in _scalars(e) if s in waiting})]
            if not ready:
                break
            for name in ready:
                expr, given = waiting.pop(name)
                code = python(expr, self.spelled)
                mine = given and name in {n for n, _ in self.textbook.params}
                lines.append(
                    f"{self.spelled(name)} = {f'{code} if {self.spelled(name)} is None else {self.spelled(name)}' if mine else code}"
                )
        return lines

    def signature(self) -> str:
        return "*, " + ", ".join([*(self.spelled(n) for n in self.inputs()), *self.keywords()])

    def launch(self) -> str:
        """`_prepare`: shapes to arguments of the kernel; used by `run` and by the ahead-of-time compiler."""
        program, blocked = self.program, self.blocked
        names = [self.spelled(n) for n in self.inputs()]
        best = self.plan.best
        lines = [
            f"def _prepare({self.signature()}, allow_tf32=False):",
            '    """Grid and arguments of the kernel for these inputs, outputs made and empty."""',
        ]
        lines.append(f"    given = {{{', '.join(f'{n!r}: {self.spelled(n)}' for n in self.inputs())}}}")
        lines.append("    dtype = _checked(given)")
        for name in names:
            lines.append(f"    {name} = _laid_out(given[{self._raw(name)!r}])")
        lines += [f"    {line}" for line in self.scalars(self.textbook)]
        for name in self.host_only():
            lines.append(f"    {name}")
        for tensor in self.textbook.inputs:
            shape = ", ".join(python(self.textbook.rank(r).extent, self.spelled) for r in tensor.ranks)
            lines.append(
                f'    _check("{tensor.name}", {self.spelled(tensor.name)}, ({shape}{"," if len(tensor.ranks) == 1 else ""}))'
            )
        for axis, block in self.used_blocks().items():
            if axis in program.tiled or (axis == program.inner and not self.plan.tile_fixed):
                lines.append(f"    {block} = {best.blocks[axis]}")
            else:
                least = shortest_side(self.program, axis)
                extent = python(blocked.rank(axis).extent, self.spelled)
                lines.append(f"    {block} = max({least}, triton.next_power_of_2({extent}))")
        first = names[0] if names else None
        for output in self.cascade.outputs:
            tensor = self.textbook.tensor(output)
            shape = ", ".join(python(self.textbook.rank(r).extent, self.spelled) for r in tensor.ranks)
            kind = {"float": "dtype", "int": "torch.int32", "bool": "torch.int8"}[tensor.dtype]
            device = f"{first}.device" if first else '"cuda"'
            lines.append(
                f"    {self.spelled(output)} = torch.empty(({shape}{',' if len(tensor.ranks) == 1 else ''}), dtype={kind}, device={device})"
            )
        count = [
            f"triton.cdiv({python(blocked.rank(r).extent, self.spelled)}, {self.lowering.blocks[r]})" if r in program.tiled else f"{_factor(python(blocked.rank(r).extent, self.spelled))}"
            for r in program.grid
        ]  # fmt: skip
        lines.append(f"    grid = ({' * '.join(count) or '1'},)")
        lines.append("    arguments = dict(")
        items = [f"{self.lowering.pointer(n)}={self.spelled(n)}" for n in self.pointers()]
        items += [f"{name}={self.spelled(tensor)}.stride({dimension})" for (tensor, dimension), name in self.strides().items()]
        items += [f"{name}={code}" for name, code in self.scalar_arguments().items()]
        items += [f"{name}={name}" for name in self.used_blocks().values()]
        items.append('PRECISION="tf32" if allow_tf32 else "ieee"')
        lines += _wrapped(items, 8)
        lines.append("    )")
        lines.append(f"    outputs = {{{', '.join(f'{n!r}: {self.spelled(n)}' for n in self.cascade.outputs)}}}")
        lines.append("    return grid, arguments, outputs")
        checks = '''
            def _checked(given):
                """The one floating point type of the inputs."""
                types = {name: x.dtype for name, x in given.items() if x.is_floating_point()}
                if len(set(types.values())) > 1:
                    raise TypeError(f"inputs of different types: {types}")
                dtype = next(iter(types.values()), torch.float32)
                if dtype not in (torch.float16, torch.bfloat16, torch.float32):
                    raise TypeError(f"no kernel for inputs of type {dtype}")
                return dtype


            def _laid_out(x):
                """The tensor with its last dimension contiguous; truth values as bytes."""
                x = x.to(torch.int8) if x.dtype == torch.bool else x
                return x if x.dim() == 0 or x.stride(-1) == 1 else x.contiguous()


            def _check(name, x, shape):
                if tuple(x.shape) != tuple(shape):
                    raise ValueError(f"{name} has shape {tuple(x.shape)}, expected {tuple(shape)}")


            def _ratio(a, b):
                """a / b; whole where both are whole and it divides evenly."""
                return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
            '''
        return textwrap.dedent(checks).strip("\n") + "\n\n\n" + "\n".join(lines)

    def _raw(self, spelled: str) -> str:
        return next(n for n in self.inputs() if self.spelled(n) == spelled)

    def host_only(self) -> list[str]:
        """Sizes and counts that only the derived cascade has: the tile of the loop."""
        lines = []
        known = set(self.textbook.symbols) | {n for n, _ in self.textbook.params} | set(self.textbook.counts)
        inner = self.program.inner
        for cascade in (self.cascade, self.blocked):
            for name in cascade.symbols:
                if name in known:
                    continue
                known.add(name)
                chosen = dict(cascade.sizes).get(name, 1)
                if inner is not None and self.tile_symbol() == self.spelled(name):
                    chosen = self.fixed_tile() or self.plan.best.blocks[inner]
                lines.append(f"{self.spelled(name)} = {chosen}")
            extra = {n: e for n, e in cascade.counts.items() if n not in known}
            extra |= {n: e for n, e in cascade.params if n not in known}
            for name, expr in extra.items():
                known.add(name)
                lines.append(f"{self.spelled(name)} = {python(expr, self.spelled)}")
        inner_symbol = self.tile_symbol()
        if inner is not None and inner_symbol is not None and not self.plan.tile_fixed and inner_symbol in self.textbook.symbols:
            lines.insert(0, f"{inner_symbol} = {self.plan.best.blocks[inner]}")
            lines[1:1] = [
                f"{self.spelled(n)} = {python(e, self.spelled)}"
                for n, e in self.textbook.counts.items()
                if inner_symbol in {self.spelled(s) for s in _scalars(e)}
            ]
        return lines

    def run(self) -> str:
        best = self.plan.best
        names = ", ".join(
            f"{self.spelled(n)}={self.spelled(n)}" for n in [*self.inputs(), *(k.split("=")[0] for k in self.keywords())]
        )
        floats = [t.name for t in self.textbook.inputs if t.dtype == "float"]
        bools = [n for n in self.cascade.outputs if self.textbook.tensor(n).dtype == "bool"]
        lines = [
            f"def run({self.signature()}, allow_tf32=False, out=None):",
            '    """Launch the kernel. Returns its outputs by name; `out(outputs)`, if given, sees them before the launch."""',
        ]
        if floats:
            lines.append(f"    narrow = INTERPRETED and {self.spelled(floats[0])}.dtype == torch.bfloat16")
            lines.append("    if narrow:  # the interpreter computes on the bits of bfloat16: use float32 there")
            for name in floats:
                lines.append(f"        {self.spelled(name)} = {self.spelled(name)}.float()")
        lines.append(f"    grid, arguments, outputs = _prepare({names}, allow_tf32=allow_tf32)")
        lines.append("    if out is not None:")
        lines.append("        out(outputs)")
        lines.append("    if grid[0] > 0:")
        lines.append(f"        {self.kernel}_kernel[grid](**arguments, num_warps={best.warps}, num_stages={best.stages})")
        for name in bools:
            lines.append(f'    outputs["{name}"] = outputs["{name}"] != 0')
        if floats:
            lines.append("    if narrow:")
            lines.append(
                "        outputs = {name: x.to(torch.bfloat16) if x.is_floating_point() else x for name, x in outputs.items()}"
            )
        lines.append("    return outputs")
        return "\n".join(lines)

    def reference(self) -> str:
        return reference(self.textbook, self.spelled, self.signature(), self.scalars(self.textbook))

    def own_test(self) -> str:
        shapes = []
        for tensor in self.textbook.inputs:
            extents = ", ".join(python(self.textbook.rank(r).extent, lambda n: self.spelled(n)) for r in tensor.ranks)
            shapes.append((tensor, f"({extents}{',' if len(tensor.ranks) == 1 else ''})"))
        lines = [
            "def _inputs(case, dtype, device, deviation=1.0):",
            '    """Random inputs of one case."""',
            "    generator = torch.Generator().manual_seed(0)",
        ]
        for name in self.textbook.symbols:
            lines.append(f'    {self.spelled(name)} = case["{name}"]')
        items = []
        for tensor, shape in shapes:
            if tensor.dtype == "float":
                items.append(
                    f"{self.spelled(tensor.name)}=(deviation * torch.randn({shape}, generator=generator)).to(device, dtype)"
                )
            else:
                top = self._index_top(tensor.name)
                kind = "torch.bool" if tensor.dtype == "bool" else "torch.int32"
                items.append(
                    f"{self.spelled(tensor.name)}=torch.randint(0, {top}, {shape}, generator=generator).to(device, {kind})"
                )
        given = [k.split("=")[0] for k in self.keywords() if k.split("=")[0] in {self.spelled(n) for n in self.unknown_sizes()}]
        items += [f"{name}={name}" for name in given]
        lines.append(f"    return dict({', '.join(items)})")
        body = '''
            def test():
                """The kernel against `reference` in float64; its error may be twice that of `reference` in the type of the inputs."""
                device = "cuda" if torch.cuda.is_available() else "cpu"
                types = [torch.float16, torch.bfloat16, torch.float32] if device == "cuda" else [torch.float32]
                failed = 0
                for case in CASES:
                    for dtype in types:
                        inputs = _inputs(case, dtype, device)
                        wide = {n: x.double() if torch.is_tensor(x) and x.is_floating_point() else x for n, x in inputs.items()}
                        exact, plain = reference(**wide), reference(**inputs)
                        outputs = run(**inputs, out=lambda made: [x.fill_(math.nan) for x in made.values() if x.is_floating_point()])
                        for name, want in exact.items():
                            error = (outputs[name].double() - want.double()).abs().max().item() if want.numel() else 0.0
                            allowed = 2 * (plain[name].double() - want.double()).abs().max().item() if want.numel() else 0.0
                            size = want.double().abs().max().item() if want.numel() else 0.0
                            allowed += 8 * torch.finfo(dtype).eps * max(size, torch.finfo(dtype).tiny)
                            good = error <= allowed
                            failed += not good
                            print(f"{'ok  ' if good else 'FAIL'} {name} {case} {str(dtype)[6:]}: error {error:.2e}, allowed {allowed:.2e}")
                return failed


            if __name__ == "__main__":
                raise SystemExit(1 if test() else 0)
            '''
        return "\n".join(lines) + "\n\n\n" + textwrap.dedent(body).strip("\n")

    def _index_top(self, tensor: str) -> str:
        """One more than the greatest value an integer input may have: the extent that it indexes."""
        if self.textbook.tensor(tensor).dtype == "bool":
            return "2"
        tops = []
        for einsum in self.textbook.einsums:
            for access in accesses(einsum.body):
                for rank, index in zip(self.textbook.tensor(access.tensor).ranks, access.indices, strict=True):
                    if isinstance(index, Access) and index.tensor == tensor:
                        tops.append(python(self.textbook.rank(rank).extent, self.spelled))
        return f"max(1, min({', '.join(tops)}, 2**31))" if tops else "4"


def _wrapped(items: list[str], indent: int) -> list[str]:
    """Items with commas, on lines of bounded length, never broken inside an item."""
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) > 112:
            lines.append(" " * indent + line.rstrip())
            line = ""
        line += f"{item}, "
    return [*lines, " " * indent + line.rstrip()]


def _factor(code: str) -> str:
    return code if code.isidentifier() or code.isdigit() else f"({code})"


def _scalars(expr: Expr) -> set[str]:
    return {node.name for node in walk(expr) if isinstance(node, Scalar)}
