"""The same computation in plain torch: the `reference` of a generated module, from the cascade alone.

In: a flat cascade. Out: the text of a function. Every tensor is computed whole, in the type of the inputs, one statement an Einsum;
running states by a Python loop. Slow and plain on purpose: it shares nothing with the lowering of kernels.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from ..einsum.cascade import (
    COMPARISONS,
    LOGICAL,
    Access,
    Cascade,
    Coord,
    Einsum,
    Expr,
    Map,
    Number,
    Rank,
    Reduce,
    Scalar,
    Scan,
    Select,
    accesses,
    free_ranks,
)
from ..einsum.flatten import flatten
from ..mapper.blocking import refuse
from ..mapper.contraction import factors
from ..mapper.program import position
from .scalars import python

_TORCH = {
    **{op: f"torch.{op}" for op in ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "erf")},
    **{op: f"torch.{op}" for op in ("abs", "sign", "floor", "ceil", "round", "sin", "cos")},
    **{op: f"torch.nn.functional.{op}" for op in ("silu", "gelu")},
    "softplus": "_softplus_of",
}

HELPERS = '''
def _t(value, like):
    """A value as a tensor beside another one."""
    return value if torch.is_tensor(value) else torch.tensor(value, device=like.device)


def _range(n, place, dimensions, like):
    """0, 1, ..., n - 1 along one dimension of several."""
    return torch.arange(n, device=like.device).view([n if i == place else 1 for i in range(dimensions)])


def _quotient(a, b):
    """a / b, where 0 / 0 is 0."""
    return torch.where((a == 0) & (b == 0), torch.zeros_like(a / b), a / b)


def _difference(a, b):
    """a - b, where -inf - (-inf) is -inf."""
    return torch.where(a == -math.inf, a + 0 * torch.zeros_like(b), a - b)


def _softplus_of(x):
    return torch.clamp(x, min=0) + torch.log1p(torch.exp(-torch.abs(x)))


def _at(x, *indices):
    """Elements of a tensor; where an index leaves it, any element (the language reads none there)."""
    inside = [torch.clamp(_t(i, x), 0, n - 1).to(torch.int64) for i, n in zip(indices, x.shape)]
    return x[tuple(torch.broadcast_tensors(*inside))] if inside else x


def _best(x, place, count, descending):
    """The best values along a dimension and where they stand; ties go to the lowest index."""
    values, places = torch.sort(x, dim=place, descending=descending, stable=True)
    return values.narrow(place, 0, count), places.narrow(place, 0, count)


def _spread(x, sizes):
    """x with the given sizes where it has size 1 (-1: as it is)."""
    x = x.view(*([1] * (len(sizes) - x.dim())), *x.shape)
    return x.expand(*(n if s == -1 else s for n, s in zip(x.shape, sizes)))


def _where(condition, x, y):
    """The language's where; any of the three may be a number."""
    like = next(t for t in (condition, x, y) if torch.is_tensor(t)) if any(map(torch.is_tensor, (condition, x, y))) else None
    if like is None:
        return x if condition else y
    x, y = _pair(x, y, x if torch.is_tensor(x) else y if torch.is_tensor(y) else torch.zeros((), device=like.device))
    return torch.where(_t(condition, like) != 0, x, y)


def _pair(a, b, like):
    """Two values as tensors of one type; a number takes the type of the tensor beside it."""
    kind = next((t.dtype for t in (a, b) if torch.is_tensor(t) and t.is_floating_point()), None)
    if kind is None:
        kind = like.dtype if isinstance(a, float) or isinstance(b, float) else torch.int64
    return tuple(torch.as_tensor(t, device=like.device).to(kind) for t in (a, b))


def _not(x):
    return ~x if torch.is_tensor(x) else not x


def _scatter(shape, places, x, op):
    """Elements of x put at their places in a tensor; several at one place are combined."""
    kind, start, name = x.dtype, *{
        "sum": (0, "sum"), "prod": (1, "prod"), "max": (-math.inf, "amax"), "min": (math.inf, "amin"), "any": (0, "amax"),
        "all": (1, "amin"),
    }[op]
    x = x.to(torch.int8) if kind == torch.bool else x
    at = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
    for extent, place in zip(shape, places):
        at = at * extent + place.to(torch.int64)
    y = torch.full((math.prod(shape),), start, dtype=x.dtype, device=x.device)
    return y.scatter_reduce(0, at.reshape(-1), x.reshape(-1), name, include_self=True).view(shape).to(kind)


def _scan(x, place, op):
    """`torch.cumsum` or `torch.cumprod` with partial results in the type of x, as on a GPU: on a CPU torch keeps them in double."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.shape[place]:
        return getattr(torch, op)(x, place)
    parts = list(x.unbind(place))
    for i in range(1, len(parts)):
        parts[i] = parts[i - 1] + parts[i] if op == "cumsum" else parts[i - 1] * parts[i]
    return torch.stack(parts, place)


def _maximum(x, place):
    """Maximum along a dimension; -inf if it is empty."""
    return torch.amax(x, place) if x.shape[place] else torch.sum(x, place) - math.inf


def _minimum(x, place):
    return torch.amin(x, place) if x.shape[place] else torch.sum(x, place) + math.inf
'''


def reference(cascade: Cascade, spelled: Callable[[str], str], arguments: str, prologue: list[str]) -> str:
    """Text of `def reference(...)`. `prologue` computes the scalars from the shapes."""
    return _Writer(flatten(cascade), spelled).function(arguments, prologue)


class _Writer:
    def __init__(self, cascade: Cascade, spelled: Callable[[str], str]) -> None:
        self.cascade, self.spelled = cascade, spelled
        self.order = [r.name for r in cascade.ranks]
        self.lines: list[str] = []
        self.fixed: set[str] = set()
        """Iterative ranks that are a Python number here."""

    def function(self, arguments: str, prologue: list[str]) -> str:
        cascade = self.cascade
        self.lines = [
            f"def reference({arguments}):",
            '    """The same in plain torch, in the type of the inputs, from the textbook cascade."""',
        ]
        self.lines += [f"    {line}" for line in prologue]
        first = self.spelled(cascade.inputs[0].name) if cascade.inputs else "None"
        floats = [t for t in cascade.inputs if t.dtype == "float"]
        like = self.spelled(floats[0].name) if floats else first
        self.lines.append(
            f"    like = torch.zeros((), dtype={like}.dtype if {like}.is_floating_point() else torch.float32, device={like}.device)"
        )
        for tensor in cascade.inputs:
            if tensor.dtype == "int":
                self.lines.append(f"    {self.spelled(tensor.name)} = {self.spelled(tensor.name)}.to(torch.int64)")
        used = {n for e in cascade.einsums for n in self._ranks(e)}
        for rank in self.order:
            if rank in used:
                self.lines.append(f"    n_{rank} = {python(cascade.rank(rank).extent, self.spelled)}")
        self.block(list(cascade.einsums), 1)
        named = ", ".join(f'"{name}": {self.value_name(name)}' for name in cascade.outputs)
        self.lines.append(f"    return {{{named}}}")
        return "\n".join(self.lines)

    def _ranks(self, einsum: Einsum) -> set[str]:
        found = set(free_ranks(einsum.body))
        for index in einsum.indices:
            found |= free_ranks(index)
        if isinstance(einsum.body, Reduce):
            found |= set(einsum.body.ranks)
        if isinstance(einsum.body, Scan | Select):
            found.add(einsum.body.rank)
        found |= set(self.cascade.tensor(einsum.output).ranks)
        for access in accesses(einsum.body):
            for index in access.indices:
                found |= free_ranks(index)
        return found

    def value_name(self, tensor: str) -> str:
        return self.spelled(tensor)

    # --- order: straight code and loops over iterative ranks ---

    def block(self, einsums: list[Einsum], indent: int) -> None:
        """Einsums in order; those that step along an iterative rank together, in one Python loop."""
        steps: dict[str, list[Einsum]] = {}
        for einsum in einsums:
            tensor = self.cascade.tensor(einsum.output)
            if tensor.kind == "state" and tensor.iterates in self._left(einsum):
                steps.setdefault(str(tensor.iterates), []).append(einsum)
        if len(steps) > 1:
            raise refuse("E602", "the reference of a kernel module walks one iterative rank")
        if not steps:
            for einsum in einsums:
                self.statement(einsum, indent)
            return
        ((rank, stepping),) = steps.items()
        inside = self._between(einsums, stepping, rank)
        before = [e for e in einsums if e not in inside and not self._after(e, inside, einsums)]
        after = [e for e in einsums if e not in inside and e not in before]
        for einsum in before:
            self.statement(einsum, indent)
        self.lines.append("    " * indent + f"for {rank} in range(n_{rank}):")
        self.fixed.add(rank)
        for einsum in self._ordered(inside, rank):
            self.statement(einsum, indent + 1)
        self.fixed.discard(rank)
        for einsum in after:
            self.statement(einsum, indent)

    def _left(self, einsum: Einsum) -> frozenset[str]:
        return frozenset().union(*(free_ranks(index) for index in einsum.indices))

    def _reads(self, einsum: Einsum, rank: str) -> set[str]:
        """Tensors that an Einsum reads at the position at hand or the next."""
        found = set()
        for access in accesses(einsum.body):
            tensor = self.cascade.tensor(access.tensor)
            if tensor.iterates != rank or self._position(access, rank) != "last":
                found.add(access.tensor)
        return found

    def _position(self, access: Access, rank: str) -> str | None:
        """Which position of a state is read."""
        tensor = self.cascade.tensor(access.tensor)
        return position(self.cascade, tensor.name, access.indices[tensor.ranks.index(rank)])

    def _between(self, einsums: list[Einsum], stepping: list[Einsum], rank: str) -> list[Einsum]:
        """The steps and everything on a path from a state to a step: what runs inside the loop."""
        states = {e.output for e in stepping}
        from_state: set[str] = set(states)
        changed = True
        while changed:
            size = len(from_state)
            for e in einsums:
                if rank in self._left(e) and self._reads(e, rank) & from_state:
                    from_state.add(e.output)
            changed = len(from_state) != size
        needed = set(states)
        changed = True
        while changed:
            size = len(needed)
            for e in einsums:
                if e.output in needed and rank in self._left(e):
                    needed |= self._reads(e, rank)
            changed = len(needed) != size
        inside = from_state & needed
        return [e for e in einsums if e.output in inside and rank in self._left(e)]

    def _after(self, einsum: Einsum, inside: list[Einsum], einsums: list[Einsum]) -> bool:
        """Does an Einsum need what the loop computes?"""
        names = {e.output for e in inside}
        if einsum.output in names:
            return False
        changed = True
        late = set(names)
        while changed:
            size = len(late)
            for e in einsums:
                if e.output not in late and {a.tensor for a in accesses(e.body)} & late:
                    late.add(e.output)
            changed = len(late) != size
        return einsum.output in late

    def _ordered(self, inside: list[Einsum], rank: str) -> list[Einsum]:
        produced = {e.output for e in inside}
        rest, order = list(inside), []
        done: set[str] = set()
        while rest:
            for e in rest:
                needs = set()
                for access in accesses(e.body):
                    tensor = self.cascade.tensor(access.tensor)
                    if tensor.name in produced and (tensor.kind != "state" or self._position(access, rank) == "next"):
                        needs.add(tensor.name)
                if needs <= done:
                    order.append(e)
                    done.add(e.output)
                    rest.remove(e)
                    break
            else:
                raise refuse("E602", f"the Einsum of `{rest[0].output}` needs itself within one step of `{rank}`", rest[0])
        return order

    # --- one Einsum ---

    def statement(self, einsum: Einsum, indent: int) -> None:
        tensor = self.cascade.tensor(einsum.output)
        pad = "    " * indent
        name = self.value_name(einsum.output)
        if tensor.kind == "scatter":
            self.lines.append(f"{pad}{name} = {self.scatter(einsum)}")
            return
        ranks = tuple(r for r in tensor.ranks if r not in self.fixed and r != tensor.iterates)
        axes = self._axes(einsum, ranks)
        code = self.value(einsum.body, axes)
        for rank in self.cascade.domain_splits(frozenset(tensor.ranks)) if tensor.kind == "einsum" else ():
            code = f"_where({self.exists(rank, ranks)}, _spread(_t({code}, like), ({'-1, ' * len(ranks)})), 0)"
        whole = self._filled(code, axes, ranks, tensor.dtype)
        if tensor.kind == "state" or any(r in self.fixed for r in tensor.ranks):
            shape = ", ".join(f"n_{r} + 1" if r == tensor.iterates else f"n_{r}" for r in tensor.ranks)
            creation = f"{name} = torch.empty(({shape},), dtype={self._dtype(tensor.dtype)}, device=like.device)"
            stepping = tensor.iterates in self._left(einsum)
            if tensor.kind != "state":
                self.lines += [f"{pad}if {self._at_start(tensor.ranks)}:", f"{pad}    {creation}"]
            elif not stepping:
                self.lines.append(f"{pad}{creation}")
            slices = [
                (f"{r} + 1" if stepping else "0") if r == tensor.iterates else r if r in self.fixed else ":" for r in tensor.ranks
            ]
            self.lines.append(f"{pad}{name}[{', '.join(slices)}] = {whole}")
        else:
            self.lines.append(f"{pad}{name} = {whole}")

    def _at_start(self, ranks: tuple[str, ...]) -> str:
        return " and ".join(f"{r} == 0" for r in ranks if r in self.fixed)

    def _dtype(self, dtype: str) -> str:
        return {"float": "like.dtype", "int": "torch.int64", "bool": "torch.bool"}[dtype]

    def _axes(self, einsum: Einsum, ranks: tuple[str, ...]) -> tuple[str, ...]:
        bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
        return (*ranks, *(r for r in bound if r not in ranks))

    def _filled(self, code: str, axes: tuple[str, ...], ranks: tuple[str, ...], dtype: str) -> str:
        """The value in the full shape of its tensor and in its type; no more brackets than it needs."""
        shape = ", ".join(f"n_{r}" for r in ranks)
        target = f"({shape},)" if ranks else "()"
        full = f"_t({code}, like).to({self._dtype(dtype)}).expand({target})"
        return ast.unparse(ast.parse(full, mode="eval")).replace("'", '"')

    def value(self, expr: Expr, axes: tuple[str, ...]) -> str:
        """Code of an expression as a tensor whose dimensions are `axes` (size 1 where it does not vary)."""
        match expr:
            case Number(value=value):
                return "math.inf" if value == float("inf") else repr(value)
            case Scalar(name=name):
                return self.spelled(name)
            case Coord(rank=rank):
                if rank in self.fixed:
                    return rank
                return f"_range(n_{rank}, {axes.index(rank)}, {len(axes)}, like)"
            case Access(tensor=name, indices=indices):
                return self.access(name, indices, axes)
            case Reduce(op="argmax" | "argmin", ranks=(rank,)):
                place, descending = axes.index(rank), expr.op == "argmax"
                worst = "-math.inf" if descending else "math.inf"
                return f"_best({self.along(expr.body, axes, rank, worst)}, {place}, 1, {descending})[1].squeeze({place})"
            case Reduce():
                return self.reduce(expr, axes)
            case Scan(op="cumsum" | "cumprod" as op):
                return f'_scan({self.along(expr.body, axes, expr.rank)}, {axes.index(expr.rank)}, "{op}")'
            case Scan():
                return f"torch.cummax({self.along(expr.body, axes, expr.rank)}, {axes.index(expr.rank)})[0]"
            case Select(op=op):
                within = tuple(expr.rank if r == expr.fills else r for r in axes)
                part = "[1]" if op.startswith("arg") else "[0]"
                values = self.along(expr.body, within, expr.rank, "-math.inf")
                return f"_best({values}, {axes.index(expr.fills)}, n_{expr.fills}, True){part}"
            case Map():
                return self.map(expr, axes)

    def access(self, name: str, indices: tuple[Expr, ...], axes: tuple[str, ...]) -> str:
        code = self.value_name(name)
        if not indices:
            return code
        ranks = self._whole(Access(name, indices))
        if ranks is not None and set(ranks) <= set(axes):
            present = [r for r in axes if r in ranks]
            order = [ranks.index(r) for r in present]
            if order != list(range(len(order))):
                code = f"{code}.permute({', '.join(map(str, order))})"
            if tuple(present) == axes:
                return code
            slices = ", ".join(":" if r in ranks else "None" for r in axes)
            return f"{code}[{slices}]"
        return f"_at({code}, {', '.join(self.value(index, axes) for index in indices)})"

    def _whole(self, access: Access) -> tuple[str, ...] | None:
        """The ranks that index a tensor's dimensions, each by one coordinate that has the dimension's extent by their declarations;
        None if a part is read, or another order of elements."""
        tensor = self.cascade.tensor(access.tensor)
        if tensor.kind == "state":  # one position more than its rank has steps
            return None
        ranks = tuple(i.rank for i in access.indices if isinstance(i, Coord) and i.rank not in self.fixed)
        if len(ranks) < len(access.indices) or len(set(ranks)) < len(ranks):
            return None
        extents = zip(ranks, tensor.ranks, strict=True)
        return ranks if all(self.cascade.rank(a).extent == self.cascade.rank(b).extent for a, b in extents) else None

    def product(self, expr: Reduce, axes: tuple[str, ...]) -> str | None:
        """A sum of a product as `torch.einsum`, as one would write it by hand; None if it is not one.

        Conditions around the product that do not vary along a summed rank choose between the sum and 0; the others, and tiles that
        are cut, put zeros into the operands that have their ranks."""
        if expr.op != "sum" or len(axes) > 26:
            return None
        body, conditions = expr.body, []
        while isinstance(body, Map) and body.op == "where" and body.args[2] == Number(0):
            conditions.append(body.args[0])
            body = body.args[1]
        parts = [f for f in factors(body) if not isinstance(f, Scalar | Number)]
        own = [tuple(r for r in axes if r in free_ranks(part)) for part in parts]
        if len(parts) < 2 or any(isinstance(p, Access) and self.cascade.tensor(p.tensor).dtype != "float" for p in parts):
            return None
        if set(axes) - set().union(*own) or (not all(isinstance(p, Access) for p in parts) and len(set(own)) < 2):
            return None  # a product element by element
        for rank in self.cascade.domain_splits(frozenset(axes) | self.fixed):
            exists = _existing(rank)
            if free_ranks(exists) & set(expr.ranks):
                conditions.append(exists)
        inside = [c for c in conditions if free_ranks(c) & set(expr.ranks)]
        if any(not any(free_ranks(c) - self.fixed <= set(ranks) for ranks in own) for c in inside):
            return None
        letters = {rank: chr(ord("a") + i) for i, rank in enumerate(axes)}
        terms, operands = [], []
        for part, ranks in zip(parts, own, strict=True):
            zeros = [c for c in inside if free_ranks(c) - self.fixed <= set(ranks)]
            whole = self._whole(part) if isinstance(part, Access) and not zeros else None
            if isinstance(part, Access) and whole is not None and set(whole) == set(ranks):
                code, ranks = self.value_name(part.tensor), whole
            else:
                code = self.value(part, ranks)
                for condition in zeros:
                    code = f"_where({self.value(condition, ranks)}, {code}, 0)"
                if not isinstance(part, Access):
                    code = f"_t({code}, like).to(like.dtype)"
            terms.append("".join(letters[r] for r in ranks))
            operands.append(code)
        kept = tuple(r for r in axes if r not in expr.ranks)
        equation = f"{','.join(terms)}->{''.join(letters[r] for r in kept)}"
        scalars = [self.value(f, axes) for f in factors(body) if isinstance(f, Scalar | Number)]
        code = " * ".join([f'torch.einsum("{equation}", {", ".join(operands)})', *scalars])
        for condition in conditions:
            if condition not in inside:
                code = f"_where({self.value(condition, kept)}, {code}, 0)"
        return code

    def reduce(self, expr: Reduce, axes: tuple[str, ...]) -> str:
        product = self.product(expr, axes)
        if product is not None:
            return product
        places = [axes.index(r) for r in expr.ranks]
        sizes = ", ".join(f"n_{r}" if r in expr.ranks else "-1" for r in axes)
        value = f"_t({self.value(expr.body, axes)}, like)"
        code = f"_spread({f'({value} != 0)' if expr.op in ('any', 'all') else f'{value}.to(like.dtype)'}, ({sizes},))"
        identity = {"sum": "0", "mean": "0", "max": "-math.inf", "min": "math.inf", "prod": "1", "any": "False", "all": "True"}[
            expr.op
        ]
        inside = []
        for rank in self.cascade.domain_splits(frozenset(axes) | self.fixed):
            parts = rank.split
            assert parts is not None
            if {parts.outer, parts.inner} & set(expr.ranks):
                inside.append(self.exists(rank, axes))
                code = f"_where({inside[-1]}, {code}, {identity})"
        if expr.op in ("sum", "mean"):
            dimensions = f"({', '.join(map(str, places))},)"
            code = f"torch.sum({code}, {dimensions})"
            if expr.op == "sum":
                return code
            if not inside:
                return f"{code} / ({' * '.join(f'n_{r}' for r in expr.ranks)})"
            return f"{code} / torch.sum(_spread(_t({' & '.join(inside)}, like), ({sizes},)), {dimensions})"
        function = {"max": "_maximum", "min": "_minimum", "prod": "torch.prod", "any": "torch.any", "all": "torch.all"}[expr.op]
        for place in sorted(places, reverse=True):
            code = f"{function}({code}, {place})"
        return code

    def exists(self, rank: Rank, axes: tuple[str, ...]) -> str:
        """Code of a condition: is a point of the tiles of a split rank one of the rank?"""
        return self.value(_existing(rank), axes)

    def along(self, expr: Expr, axes: tuple[str, ...], rank: str, worst: str | None = None) -> str:
        """Code of an expression as a tensor with all coordinates of one of its dimensions; the worst value, if one is given, where
        a tile is cut."""
        sizes = ", ".join(f"n_{r}" if r == rank else "-1" for r in axes)
        code = f"_spread(_t({self.value(expr, axes)}, like), ({sizes},))"
        for split in self.cascade.domain_splits(frozenset(axes) | self.fixed) if worst is not None else ():
            code = f"_where({self.exists(split, axes)}, {code}, {worst})"
        return code

    def scatter(self, einsum: Einsum) -> str:
        """Code of contributions put where their indices say."""
        body, target = einsum.body, self.cascade.tensor(einsum.output)
        assert isinstance(body, Reduce)
        axes = (*(rank for index in einsum.indices if isinstance(index, Coord) for rank in (index.rank,)), *body.ranks)
        axes = tuple(dict.fromkeys(axes))
        sizes = ", ".join(f"n_{rank}" for rank in axes)
        value = f"_spread(_t({self.value(body.body, axes)}, like), ({sizes},))"
        places = ", ".join(f"_spread(_t({self.value(index, axes)}, like), ({sizes},))" for index in einsum.indices)
        shape = ", ".join(f"n_{rank}" for rank in target.ranks)
        return f'_scatter(({shape},), ({places},), {value}.to({self._dtype(target.dtype)}), "{body.op}")'

    def map(self, expr: Map, axes: tuple[str, ...]) -> str:
        args = [self.value(arg, axes) for arg in expr.args]
        op = expr.op
        if op == "where":
            return f"_where({', '.join(args)})"
        if op in LOGICAL:
            truth = [
                f"({arg})" if isinstance(a, Map) and a.op in (COMPARISONS | LOGICAL) else f"({arg} != 0)"
                for arg, a in zip(args, expr.args, strict=True)
            ]
            if op == "not":
                return f"_not({truth[0]})"
            return f"({truth[0]} {'&' if op == 'and' else '|'} {truth[1]})"
        if op == "-" and not self._plain(expr.args[0]) and not self._plain(expr.args[1]):
            return f"_difference(_t({args[0]}, like), _t({args[1]}, like))"
        if op == "/":
            if isinstance(expr.args[1], Number) and expr.args[1].value != 0:
                return f"({args[0]} / {args[1]})"
            return f"_quotient(_t({args[0]}, like), _t({args[1]}, like))"
        if op in ("+", "-", "*", "//", "%", "**") or op in COMPARISONS:
            return f"({args[0]} {op} {args[1]})"
        if op == "neg":
            return f"(-{args[0]})"
        if op in ("min", "max"):
            return f"torch.{op}imum(*_pair({args[0]}, {args[1]}, like))"
        if op == "clamp":
            return f"torch.minimum(*_pair(torch.maximum(*_pair({args[0]}, {args[1]}, like)), {args[2]}, like))"
        return f"{_TORCH[op]}(_t({args[0]}, like))"

    def _plain(self, expr: Expr) -> bool:
        """An expression of coordinates and scalars: never -inf."""
        match expr:
            case Number(value=value):
                return value != float("inf")
            case Scalar() | Coord():
                return True
            case Map(args=args):
                return all(self._plain(arg) for arg in args)
            case _:
                return False


def _existing(rank: Rank) -> Map:
    """The condition that a point of the tiles of a split rank is one of the rank."""
    assert rank.split is not None
    return Map("<", (Map("+", (Map("*", (Coord(rank.split.outer), rank.split.tile)), Coord(rank.split.inner))), rank.extent))
