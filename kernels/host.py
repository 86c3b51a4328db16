"""The host part of a generated module: from the shapes of tensors to the launch.

In: the `Signature` of each kernel. Out: text: `_prepare` (checks the inputs, computes sizes, counts and parameters, makes the
outputs and what lies between kernels, and lists the launches; the ahead-of-time compiler calls it on tensors without data) and
`run`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..einsum.cascade import Cascade, Expr, Map, Number, Scalar
from ..mapper.plan import shortest_side
from ..mapper.precision import WIDER, Precision
from ..mapper.whole_numbers import counted_by, whole_scalars
from .index_range import index_checks
from .scalars import python
from .signature import Signature, scalars_of, wrapped

TYPES = {"float": "dtype", "int": "torch.int64", "bool": "torch.int8"}
"""Kind of a tensor -> its type in memory, where it is an output."""
CHECKS = '''
LANGUAGE_TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}
NARROW = (torch.uint8, torch.int8, torch.int16)


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
    """The tensor with its last dimension contiguous; truth values as bytes, whole numbers in 32 bits or more."""
    x = x.to(torch.int8) if x.dtype == torch.bool else x.to(torch.int32) if x.dtype in NARROW else x
    return x if x.dim() == 0 or x.stride(-1) == 1 else x.contiguous()


def _check(name, x, shape):
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected {tuple(shape)}")


def _ratio(a, b):
    """a / b; whole where both are whole and it divides evenly."""
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b


def _log(x):
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _log2(x):
    return math.log2(x) if x > 0 else -math.inf if x == 0 else math.nan


def _near(name, dimension, stride, block):
    """Offsets within a tile have 32 bits in the kernel."""
    if abs(stride) * block >= 2**30:
        raise ValueError(f"{name} is laid out too far apart in dimension {dimension} (stride {stride}): use .contiguous()")


def _inside(name, dimension, low, high, extent, points):
    """The kernel does not look: an index outside a tensor is refused here."""
    if points > 0 and (low < 0 or high >= extent):
        raise IndexError(f"indices {low} to {high} of {name} in dimension {dimension}, expected 0 to {extent - 1}")


def _whole(name, value):
    if value != int(value):
        raise TypeError(f"{name} is {value}, expected a whole number")
    if abs(value) > 2**30:
        raise ValueError(f"{name} is {value}: sums of coordinates and whole parameters have 32 bits in the kernel, at most {2**30}")
    return int(value)
'''


DESCRIBED = '''
def _described(x, block):
    """What a tile copy is told of a tensor. Rows start at multiples of 16 bytes: of a copy where they do not."""
    size = x.element_size()
    if x.data_ptr() % 16 or x.numel() == 0 or any(step <= 0 or step * size % 16 for step in x.stride()[:-1]):
        shape = [max(n, 1) for n in x.shape]
        row = -(-shape[-1] * size // 16) * 16 // size
        copy = torch.zeros([*shape[:-1], row], dtype=torch.uint8 if size == 1 else x.dtype, device=x.device).view(x.dtype)
        copy = copy[..., : shape[-1]]
        if x.numel() > 0:
            copy.copy_(x)
        x = copy
    return TensorDescriptor(x, list(x.shape), [*x.stride()[:-1], 1], block)
'''
"""For kernels whose tiles come by tensor descriptors."""
READ_ONLY = '''
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def _checked(given):
    """The type of outputs and of what is computed for matrix products, where the inputs are of 8 bits."""
    types = {name: x.dtype for name, x in given.items() if x.is_floating_point()}
    if len(set(types.values())) > 1:
        raise TypeError(f"inputs of different types: {types}")
    for name, dtype in types.items():
        if dtype not in FLOAT8:
            raise TypeError(f"{name} is of type {dtype}, and this kernel is for inputs of 8 bits")
    return torch.float32 if INTERPRETED else torch.bfloat16
'''
"""In place of `_checked` where the inputs have a type that is only read."""


def checks(precision: Precision) -> str:
    """What the host part checks and converts, for a type of the inputs."""
    text = CHECKS.strip("\n")
    if precision.dtype not in WIDER:
        return text
    start, end = text.index("def _checked"), text.index("def _laid_out")
    return text[:start] + READ_ONLY.strip("\n") + "\n\n\n" + text[end:]


class Host:
    """Writes the host part: for the kernels of a module, in the order in which they are launched."""

    def __init__(self, kernels: Sequence[Signature]) -> None:
        self.kernels = tuple(kernels)
        self.textbook = kernels[0].textbook
        self.spelled = kernels[0].spelled
        self.precision = kernels[0].plan.precision
        self.workspace = {
            name: kind for takes in kernels for name, kind in takes.workspace.items() if name in takes.cascade.outputs
        }
        """What one kernel leaves for another -> its type in memory."""

    def inputs(self) -> list[str]:
        """Names of the tensors that `run` takes."""
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
                missing = [name for name in scalars_of(extent) if name in self.textbook.symbols and name not in known]
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
                left = name in scalars_of(a)
                if left == (name in scalars_of(b)) or (op == "-" and not left):
                    return None
                other = python(b if left else a, self.spelled)
                inverse = {"*": "//", "+": "-", "-": "+"}[op]
                shown = f"max({other}, 1)" if op == "*" else f"({other})"
                return self.solve(a if left else b, f"({value} {inverse} {shown})", name)
            case _:
                return None

    def unknown_sizes(self) -> list[str]:
        """Sizes that no shape tells."""
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
            ready = [n for n, (e, _) in waiting.items() if not ({s for s in scalars_of(e) if s in waiting})]
            if not ready:
                break
            for name in ready:
                expr, given = waiting.pop(name)
                code = python(expr, self.spelled)
                mine = given and name in {n for n, _ in self.textbook.params}
                here = self.spelled(name)
                lines.append(f"{here} = {f'{code} if {here} is None else {here}' if mine else code}")
                if given and name in whole_scalars(self.textbook):
                    lines.append(f'{here} = _whole("{name}", {here})')
                elif mine and isinstance(expr, Number) and isinstance(expr.value, int):
                    lines.append(f"{here} = float({here})")
        return lines

    def signature(self) -> str:
        """Parameters of `run`: all by keyword."""
        return "*, " + ", ".join([*(self.spelled(n) for n in self.inputs()), *self.keywords()])

    def launch(self) -> str:
        """`_prepare`: shapes to arguments of the kernels; used by `run` and by the ahead-of-time compiler."""
        names = [self.spelled(n) for n in self.inputs()]
        lines = [
            f"def _prepare({self.signature()}, allow_tf32=False):",
            '    """Launches (kernel, grid, arguments, options), outputs made and empty, tensors between kernels."""',
        ]
        lines.append(f"    given = {{{', '.join(f'{n!r}: {self.spelled(n)}' for n in self.inputs())}}}")
        lines.append("    dtype = _checked(given)")
        for name in names:
            lines.append(f"    {name} = _laid_out(given[{self._raw(name)!r}])")
        lines += [f"    {line}" for line in self.scalars(self.textbook)]
        if len(self.kernels) == 1:
            lines += [f"    {line}" for line in self.host_only(self.kernels[0])]
        for tensor in self.textbook.inputs:
            lines.append(f'    _check("{tensor.name}", {self.spelled(tensor.name)}, {self.shape(tensor.ranks)})')
        lines += [f"    {line}" for line in index_checks(self.textbook, self.spelled)]
        described = [DESCRIBED.strip("\n")] if any(takes.descriptors() for takes in self.kernels) else []
        device = f"{names[0]}.device" if names else '"cuda"'
        bodies = [self.one_launch(takes, device) for takes in self.kernels]
        for output in self.textbook.outputs:
            tensor = self.textbook.tensor(output)
            made = f"torch.empty({self.shape(tensor.ranks)}, dtype={TYPES[tensor.dtype]}, device={device})"
            lines.append(f"    {self.spelled(output)} = {made}")
        lines.append("    between, launches = {}, []")
        lines += [line for body in bodies for line in body]
        lines.append(f"    outputs = {{{', '.join(f'{n!r}: {self.spelled(n)}' for n in self.textbook.outputs)}}}")
        lines.append("    return launches, outputs, between")
        return "\n\n\n".join([checks(self.precision), *described]) + "\n\n\n" + "\n".join(lines)

    def value(self, tensor: str) -> str:
        """A tensor in the host part."""
        return f'between["{tensor}"]' if tensor in self.workspace else self.spelled(tensor)

    def one_launch(self, takes: Signature, device: str) -> list[str]:
        """What one kernel leaves for others, its blocks, grid and arguments."""
        lines = []
        if len(self.kernels) > 1:
            lines += [f"    {line}" for line in self.host_only(takes)]
        for name in counted_by(takes.blocked):
            here = self.spelled(name)
            lines += [f"    if {here} < 1:", f'        raise ValueError(f"{name} is {{{here}}}, expected 1 or more")']
        for name in takes.cascade.outputs:
            if name in self.workspace:
                shape = self.shape(takes.cascade.tensor(name).ranks, takes.cascade)
                lines.append(f'    between["{name}"] = torch.empty({shape}, dtype={self.workspace[name]}, device={device})')
        program, best = takes.program, takes.plan.best
        for axis, block in takes.used_blocks().items():
            if axis in program.tiled or (axis == program.inner and not takes.plan.tile_fixed):
                lines.append(f"    {block} = {best.blocks[axis]}")
            else:
                least = shortest_side(program, axis, takes.plan.precision)
                extent = python(takes.blocked.rank(axis).extent, self.spelled)
                lines.append(f"    {block} = max({least}, triton.next_power_of_2({extent}))")
        for (walked, dimension), axis in takes.body.spans.items():
            stride = f"{self.value(walked)}.stride({dimension})"
            lines.append(f'    _near("{walked}", {dimension}, {stride}, {takes.lowering.blocks[axis]})')
        extents = {rank: python(takes.blocked.rank(rank).extent, self.spelled) for rank in program.grid}
        blocks = takes.lowering.blocks
        count = [f"triton.cdiv({n}, {blocks[r]})" if r in program.tiled else _factor(n) for r, n in extents.items()]
        instances = " * ".join(count) or "1"
        walk = best.walk
        lines.append(f"    grid = ({instances},)" if walk is None else f"    grid = (min({instances}, {walk.programs}),)")
        lines.append("    arguments = dict(")
        items = [f"{takes.lowering.pointer(n)}={self.value(n)}" for n in takes.pointers()]
        for name, (tensor, sides) in takes.descriptors().items():
            items.append(f"{name}=_described({self.value(tensor)}, [{', '.join(sides)}])")
        items += [f"{name}={self.value(tensor)}.stride({dimension})" for (tensor, dimension), name in takes.strides().items()]
        items += [f"{name}={code}" for name, code in takes.scalar_arguments().items()]
        items += [f"{name}={name}" for name in takes.used_blocks().values()]
        items.append('PRECISION="tf32" if allow_tf32 else "ieee"')
        if takes.type_is_argument():
            items.append("DTYPE=LANGUAGE_TYPES[dtype]")
        lines += wrapped(items, 8)
        lines.append("    )")
        options = f'{{"num_warps": {best.warps}, "num_stages": {best.stages}}}'
        lines.append(f"    launches.append(({takes.kernel}, grid, arguments, {options}))")
        return lines

    def shape(self, ranks: tuple[str, ...], cascade: Cascade | None = None) -> str:
        """Python text of the shape of a tensor."""
        extents = [python((cascade or self.textbook).rank(rank).extent, self.spelled) for rank in ranks]
        return f"({', '.join(extents)}{',' if len(extents) == 1 else ''})"

    def _raw(self, spelled: str) -> str:
        return next(n for n in self.inputs() if self.spelled(n) == spelled)

    def host_only(self, takes: Signature) -> list[str]:
        """Sizes and counts that only the derived cascade has: the tile of the loop."""
        lines = []
        known = set(self.textbook.symbols) | {n for n, _ in self.textbook.params} | set(self.textbook.counts)
        inner = takes.program.inner
        for cascade in (takes.cascade, takes.blocked):
            for name in cascade.symbols:
                if name in known:
                    continue
                known.add(name)
                chosen = dict(cascade.sizes).get(name, 1)
                if inner is not None and takes.tile_symbol() == self.spelled(name):
                    chosen = takes.fixed_tile() or takes.plan.best.blocks[inner]
                lines.append(f"{self.spelled(name)} = {chosen}")
            extra = {n: e for n, e in cascade.counts.items() if n not in known}
            extra |= {n: e for n, e in cascade.params if n not in known}
            while extra:
                name = next((n for n, e in extra.items() if not scalars_of(e) & extra.keys()), next(iter(extra)))
                known.add(name)
                lines.append(f"{self.spelled(name)} = {python(extra.pop(name), self.spelled)}")
        inner_symbol = takes.tile_symbol()
        if inner is not None and inner_symbol is not None and not takes.plan.tile_fixed and inner_symbol in self.textbook.symbols:
            lines.insert(0, f"{inner_symbol} = {takes.plan.best.blocks[inner]}")
            lines[1:1] = [
                f"{self.spelled(n)} = {python(e, self.spelled)}"
                for n, e in self.textbook.counts.items()
                if inner_symbol in {self.spelled(s) for s in scalars_of(e)}
            ]
        return lines

    def run(self) -> str:
        """`run`: launches the kernels one after another and returns the outputs."""
        names = ", ".join(
            f"{self.spelled(n)}={self.spelled(n)}" for n in [*self.inputs(), *(k.split("=")[0] for k in self.keywords())]
        )
        floats = [t.name for t in self.textbook.inputs if t.dtype == "float"]
        bools = [n for n in self.textbook.outputs if self.textbook.tensor(n).dtype == "bool"]
        kernels = "the kernel" if len(self.kernels) == 1 else "the kernels"
        lines = [
            f"def run({self.signature()}, allow_tf32=False, out=None):",
            f'    """Launch {kernels}. Returns the outputs by name; `out(tensors)`, if given, sees beforehand what they write."""',
        ]
        if floats and self.precision.dtype in WIDER:
            lines.append("    narrow = INTERPRETED  # the interpreter computes on the bits of bfloat16: use float32 there")
        elif floats:
            lines.append(f"    narrow = INTERPRETED and {self.spelled(floats[0])}.dtype == torch.bfloat16")
            lines.append("    if narrow:  # the interpreter computes on the bits of bfloat16: use float32 there")
            for name in floats:
                lines.append(f"        {self.spelled(name)} = {self.spelled(name)}.float()")
        lines.append(f"    launches, outputs, between = _prepare({names}, allow_tf32=allow_tf32)")
        lines.append("    if out is not None:")
        lines.append("        out({**outputs, **between})")
        lines.append("    for kernel, grid, arguments, options in launches:")
        lines.append("        if grid[0] > 0:")
        lines.append("            kernel[grid](**arguments, **options)")
        for name in bools:
            lines.append(f'    outputs["{name}"] = outputs["{name}"] != 0')
        if floats:
            lines.append("    if narrow:")
            lines.append(
                "        outputs = {name: x.to(torch.bfloat16) if x.is_floating_point() else x for name, x in outputs.items()}"
            )
        lines.append("    return outputs")
        return "\n".join(lines)


def _factor(code: str) -> str:
    return code if code.isidentifier() or code.isdigit() else f"({code})"
