"""Stages: a cascade cut into as many GPU kernels as it needs, each planned by itself.

In: a cascade as the user wrote it, a GPU, sizes. Out: a `ModulePlan`: the plan of each kernel in the order of launches; what one
kernel leaves for a later one lies in device memory between them. Where one kernel can do everything, there is one. Where it
cannot (a tensor is read at coordinates that another program instance computes; two ranks must be walked), the cascade is cut
between Einsums: the fewest kernels, then the fewest words between them, over all cuts of the Einsums in their order. Each part is
derived by itself. `alternatives` are cuts that compute once what a single kernel would compute again for every tile; they are
taken where they are predicted to be faster, or where the compiler finds no registers for the single kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from ..einsum.cascade import Access, Cascade, Coord, Einsum, Expr, Map, Reduce, Tensor, accesses, free_ranks, transform, walk
from ..einsum.diagnostics import EinsmithError
from ..einsum.display import Displayed
from ..einsum.sizes import bind
from .blocking import fresh, live, reads, refuse
from .chunks import Chunked, chunked
from .descriptors import Choice
from .fewer import fewer_operations
from .forms import contracted, forms
from .gpu import Gpu
from .gpu_time import SPECIAL
from .one_pass import OnePass, one_pass
from .parts import merging, part_counts, with_parts
from .plan import LATENCY_ROOM, Candidate, Merit, Plan, better, plan, tile_time
from .positions import states_apart, with_steps
from .prepare import prepared
from .products import MATRIX_SIDE, contractions, products
from .program import position, program


@dataclass(frozen=True)
class ModulePlan(Displayed):
    """The kernels of a module in the order of launches. `note` says how the cascade came to this form."""

    textbook: Cascade
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
        return self.kernels[0].gpu

    @property
    def dtype(self) -> str:
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


def plan_module(
    cascade: Cascade,
    gpu: Gpu,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    dtype: str = "float16",
    allow_tf32: bool = False,
    keep: int = 10,
    descriptors: Choice = "auto",
    persistent: Choice = "auto",
) -> ModulePlan:
    """The plan with the least predicted time. Raises EinsmithError (E602 to E606) where there is no kernel for a part."""
    plans = module_plans(
        cascade, gpu, sizes, params, dtype=dtype, allow_tf32=allow_tf32, keep=keep, descriptors=descriptors, persistent=persistent
    )
    return next(plans)


def module_plans(
    cascade: Cascade,
    gpu: Gpu,
    sizes: Mapping[str, int] | None = None,
    params: Mapping[str, int | float] | None = None,
    *,
    dtype: str = "float16",
    allow_tf32: bool = False,
    keep: int = 10,
    descriptors: Choice = "auto",
    persistent: Choice = "auto",
) -> Iterator[ModulePlan]:
    """Plans, the fastest predicted first; then those to fall back on."""
    every: list[ModulePlan] = []
    refusal: EinsmithError | None = None

    def planner(form: Cascade, inside: frozenset[str] = frozenset()) -> _Planner:
        return _Planner(
            cascade, form, gpu, dict(sizes or {}), dict(params or {}), dtype, allow_tf32, keep, descriptors, persistent, inside
        )

    def tried(source: Cascade) -> list[ModulePlan]:
        nonlocal refusal
        here: list[ModulePlan] = []
        for form in forms(source):
            if here and max(one.merit.products for one in here) >= contracted(form):
                break  # all that can be a matrix product is one
            try:
                found, groups = (own := planner(form)).first()
            except EinsmithError as error:
                refusal = refusal or error
                continue
            here += [found, *(o for o in own.alternatives(found, groups) if len(o.kernels) > len(found.kernels))]
        return here + _in_chunks(source, lambda each: planner(each.cascade, each.inside))

    other = fewer_operations(cascade, dict(sizes or {}), dict(params or {}))
    for source, note in [(cascade, ""), *([(other.cascade, other.note)] if other else [])]:
        every += [replace(one, note="; ".join(part for part in (note, one.note) if part)) for one in tried(source)]
    if (apart := states_apart(prepared(cascade))) is not None:
        parts = [tried(_part(*apart, number)) for number in range(len(apart[1]))]
        if all(parts):
            every.append(_one_after_another(cascade, [_best(part) for part in parts]))
    if not every:
        assert refusal is not None
        raise refusal
    first = _best(every)
    yield first
    yield from (one for one in sorted(every, key=lambda one: one.predicted_s) if one is not first)


def _best(plans: Collection[ModulePlan]) -> ModulePlan:
    """The plan to be preferred to all others."""
    first, *others = sorted(plans, key=lambda one: one.predicted_s)
    for one in others:
        if better(*_comparable(one, first)):
            first = one
    return first


def _one_after_another(textbook: Cascade, plans: Sequence[ModulePlan]) -> ModulePlan:
    """The kernels of parts of a cascade as those of one module."""
    notes = "; ".join(dict.fromkeys(one.note for one in plans if one.note))
    return ModulePlan(textbook, tuple(kernel for one in plans for kernel in one.kernels), notes)


def _in_chunks(cascade: Cascade, planner: Callable[[Chunked], _Planner]) -> list[ModulePlan]:
    """Plans in which linear recurrences go chunk by chunk, with longer and longer chunks while that is faster."""
    plans: list[ModulePlan] = []
    for each in chunked(prepared(cascade)):
        try:
            found, _ = planner(each).first()
        except EinsmithError:
            break
        plans.append(replace(found, note="; ".join(note for note in (each.note, found.note) if note), chunked=True))
        if len(plans) > 1 and not better(*_comparable(plans[-1], plans[-2])):
            break
    return plans


def _comparable(one: ModulePlan, other: ModulePlan) -> tuple[Merit, Merit]:
    """Merits of two plans. Chunks of two lengths count as having as many products: a longer one takes more for the same."""
    if not (one.chunked and other.chunked):
        return one.merit, other.merit
    return one.merit, replace(other.merit, products=one.merit.products)


Groups = list[tuple[Einsum, ...]]
"""The Einsums of each kernel, in the order of launches."""


MOST_KERNELS = 8
"""Kernels beyond which nothing more is done once for the others: each has its launch."""


@dataclass
class _Planner:
    textbook: Cascade
    """As the user wrote it."""
    cascade: Cascade
    """As kernels can follow it."""
    gpu: Gpu
    sizes: dict[str, int]
    params: dict[str, int | float]
    dtype: str
    allow_tf32: bool
    keep: int
    descriptors: Choice
    persistent: Choice
    inside: frozenset[str] = frozenset()
    """Tensors that lie between no kernels."""
    known: dict[Cascade, tuple[OnePass, Plan]] = field(default_factory=dict)
    """Plans by part, as the same part stands in several cuts."""

    @cached_property
    def cuttable(self) -> Cascade:
        """What outputs depend on; what a running state leaves behind is a tensor of its own."""
        return live(with_last_positions(self.cascade))

    @cached_property
    def units(self) -> Groups:
        """Einsums that are in one kernel."""
        return _units(self.cuttable, self.inside)

    @cached_property
    def extents(self) -> Mapping[str, int]:
        return bind(self.cascade, self.sizes, self.params).extents

    def first(self) -> tuple[ModulePlan, Groups]:
        """One kernel if that can be; else the cut with the fewest."""
        try:
            form, planned = self.kernel(self.cascade)
            return ModulePlan(self.textbook, (planned,), form.note), [self.cuttable.einsums]
        except EinsmithError as refusal:
            groups = self.fewest_groups()
            if groups is None:
                raise (_alone(self.cuttable, self.units, self.extents) or refusal) from None
            try:
                groups = self.fitting(groups)
                return self.module(groups), groups
            except EinsmithError as other:
                raise other from refusal

    def fewest_groups(self) -> Groups | None:
        """The best cut; where there is none, with the positions of running states as tensors between kernels."""
        groups = _fewest_groups(self.cuttable, self.units, self.extents) if len(self.units) > 1 else None
        stepped = self.cuttable if groups else with_steps(self.cuttable, self.inside)
        if stepped is not self.cuttable:
            self.cuttable, self.units = stepped, _units(stepped, self.inside)
            groups = _fewest_groups(self.cuttable, self.units, self.extents)
        return groups

    def fitting(self, groups: Groups) -> Groups:
        """The same groups, cut further where no tile of one fits the GPU. Raises the refusal of a group that cannot be cut."""
        number = 0
        while number < len(groups):
            try:
                self.kernel(_part(self.cuttable, groups, number))
                number += 1
            except EinsmithError:
                units = [unit for unit in self.units if set(unit) <= set(groups[number])]
                if len(units) == 1 or len(groups) >= MOST_KERNELS:
                    raise
                sides = [(units[:at], units[at:]) for at in range(1, len(units))]
                cuts = [[tuple(e for unit in side for e in unit) for side in both] for both in sides]
                others = [[*groups[:number], *cut, *groups[number + 1 :]] for cut in cuts]
                legal = [other for other in others if self.legal(other, number) and self.legal(other, number + 1)]
                if not legal:
                    raise
                groups = min(legal, key=lambda other: _words(_part(self.cuttable, other, number), self.extents))
        return groups

    def legal(self, groups: Groups, number: int) -> bool:
        """Can a group be a kernel, whatever fits?"""
        return _is_kernel(_part(self.cuttable, groups, number), self.cuttable, self.extents)

    def kernel(self, part: Cascade) -> tuple[OnePass, Plan]:
        if part not in self.known:
            form = one_pass(part, self.sizes, self.params)
            self.known[part] = (
                form,
                plan(
                    form.cascade, self.gpu, self.sizes, self.params, dtype=self.dtype, allow_tf32=self.allow_tf32, keep=self.keep,
                    tiles=form.tiles, between=self.left(part), descriptors=self.descriptors, persistent=self.persistent,
                ),
            )  # fmt: skip
        return self.known[part]

    def left(self, part: Cascade) -> set[str]:
        """Inputs of a part that another kernel leaves, and what it leaves itself for another one."""
        inputs = {t.name for t in part.inputs} - {t.name for t in self.textbook.inputs}
        return inputs | (set(part.outputs) - set(self.textbook.outputs))

    def module(self, groups: Groups) -> ModulePlan:
        parts = [_part(self.cuttable, groups, number) for number in range(len(groups))]
        found = [self.kernel(part) for part in parts]
        notes = [f"{part.outputs[0]}: {form.note}" for part, (form, _) in zip(parts, found, strict=True) if "derived" in form.note]
        return ModulePlan(self.textbook, tuple(planned for _, planned in found), "; ".join(notes))

    def alternatives(self, first: ModulePlan, groups: Groups) -> Iterator[ModulePlan]:
        """The walked rank in parts and a kernel that merges them, where one kernel leaves most of the GPU idle; what a kernel would
        compute again for every coordinate of its grid, done once by a kernel before it, and so on while that is faster."""
        if len(first.kernels) == 1:
            yield from self.split(first, first.kernels[0])
        todo = [(first, groups)]
        for parted in (self.apart(groups), self.products_apart(first, groups)):
            if parted is not None:
                yield parted[0]
                todo.append(parted)
        while todo:
            module, groups = todo.pop()
            for number, kernel in enumerate(module.kernels):
                found = self.once(groups, number, kernel)
                for other in (found, self.apart(found[1])) if found is not None else ():
                    if other is None:
                        continue
                    yield other[0]
                    if other[0].predicted_s < module.predicted_s and len(other[1]) < MOST_KERNELS:
                        todo.append(other)

    def apart(self, groups: Groups) -> tuple[ModulePlan, Groups] | None:
        """The same with a kernel each for Einsums of one kernel that do not feed each other, unless what they share makes up for
        the roles that the others' ranks impose on them; None if there are none."""
        parted: Groups = []
        for group in groups:
            loose = _components(group)
            while True:
                pairs = [(a, b) for a in range(len(loose)) for b in range(a) if self._belong(groups, group, loose[b], loose[a])]
                if not pairs:
                    break
                a, b = pairs[0]
                both = set(loose[a]) | set(loose[b])
                loose = [g for n, g in enumerate(loose) if n not in (a, b)]
                loose.append(tuple(e for e in group if e in both))
            parted += loose
        if len(parted) == len(groups) or len(parted) > MOST_KERNELS:
            return None
        try:
            return self.module(parted), parted
        except EinsmithError:
            return None

    def _belong(self, groups: Groups, group: tuple[Einsum, ...], one: tuple[Einsum, ...], other: tuple[Einsum, ...]) -> bool:
        """Are two parts of a group better done by one kernel?"""
        rest = [g for g in groups if g is not group]
        left = tuple(e for e in group if e not in one and e not in other)
        both = tuple(e for e in group if e in one or e in other)
        try:
            merits = [
                self.kernel(_part(self.cuttable, [mine, *rest, left, *others], 0))[1].merit
                for mine, others in ((one, [other]), (other, [one]), (both, []))
            ]
        except EinsmithError:
            return False
        first, second, together = merits
        return (
            together.products >= first.products + second.products and together.predicted_s < first.predicted_s + second.predicted_s
        )

    def products_apart(self, module: ModulePlan, groups: Groups) -> tuple[ModulePlan, Groups] | None:
        """The same with a kernel each for sums that could be matrix products and are not, as a tile has more ranks beside than a
        product has; None if there are none."""
        parted: Groups = []
        for group, kernel in zip(groups, module.kernels, strict=True):
            done = {product.output for product in products(kernel.program)}
            units = [unit for unit in self.units if set(unit) <= set(group)]
            lone = [self._is_product(unit) and not _made_by(unit[0], done) for unit in units]
            if not any(lone):
                parted.append(group)
                continue
            cuts = [self.cut(tuple(e for unit in level for e in unit)) for level in _by_depth(units, lone)]
            if not all(cuts):
                return None
            parted += [each for cut in cuts if cut for each in cut]
        launches_s = len(parted) * self.gpu.launch.latency_s
        if len(parted) == len(groups) or len(parted) > MOST_KERNELS or launches_s > LATENCY_ROOM * module.predicted_s:
            return None
        try:
            return self.module(parted), parted
        except EinsmithError:
            return None

    def _is_product(self, unit: tuple[Einsum, ...]) -> bool:
        """Is an Einsum a sum of products of two tensors, with sides long enough for matrix units?"""
        if len(unit) > 1 or not isinstance(unit[0].body, Reduce) or unit[0].body.op != "sum":
            return False
        long = {rank for rank, extent in self.extents.items() if extent >= MATRIX_SIDE}
        sides = [free_ranks(access) for access in accesses(unit[0].body)]
        summed = set(unit[0].body.ranks) & long
        return any(a & b & summed and (a - b) & long and (b - a) & long for a in sides for b in sides)

    def once(self, groups: Groups, number: int, kernel: Plan) -> tuple[ModulePlan, Groups] | None:
        """The same with what one kernel computes again and again done by a kernel before it; None if there is nothing to gain."""
        again = repeated(_part(self.cuttable, groups, number), kernel)
        early = tuple(e for e in groups[number] if e.output in again)
        late = tuple(e for e in groups[number] if e.output not in again)
        if not early or not late:
            return None
        parts = [self.cut(group) for group in (early, late)]
        if not all(parts):
            return None
        cut = [*groups[:number], *(group for part in parts if part for group in part), *groups[number + 1 :]]
        try:
            return self.module(cut), cut
        except EinsmithError:
            return None

    def split(self, first: ModulePlan, single: Plan) -> Iterator[ModulePlan]:
        """The split form of the cascade: its parts, then their merge."""
        loop = single.program.loop
        rank = single.program.cascade.rank(loop).part_of if loop is not None else None
        if loop is None or rank is None or rank not in self.cascade.rank_order or self.cascade.rank(rank).split is not None:
            return
        counts = part_counts(single, rank)
        if not counts:
            return
        from ..einsum.rewrite.derive import derive

        try:
            form = derive(self.cascade, rank, sizes=self.sizes, params=self.params, form="split", check=False).cascade
        except EinsmithError:
            return
        late = merging(form, self.cascade)
        groups = [tuple(e for e in form.einsums if (e.output in late) == merge) for merge in (False, True)]
        if not all(groups):
            return
        found = [module for count in counts if (module := self.in_parts(form, groups, count, rank, first.note)) is not None]
        if found:
            yield min(found, key=lambda module: module.predicted_s)

    def in_parts(
        self, form: Cascade, groups: Groups, count: int, rank: str, note: str
    ) -> ModulePlan | None:  # fmt: skip
        """A split form in a number of parts: a kernel for the parts and one for their merge."""
        cascade = with_parts(form, self.cascade, count)
        own = {name: value for name, value in self.sizes.items() if name in form.symbols}
        own_params = {name: value for name, value in self.params.items() if name in dict(form.params)}
        try:
            plans = tuple(
                plan(
                    _part(cascade, groups, number), self.gpu, own, own_params, dtype=self.dtype, allow_tf32=self.allow_tf32,
                    keep=self.keep, tiles=set(form.symbols) - set(self.cascade.symbols),
                    between=self.left(_part(cascade, groups, number)), descriptors=self.descriptors, persistent=self.persistent,
                )
                for number in range(2)
            )  # fmt: skip
        except EinsmithError:
            return None
        done = f"`{rank}` in {count} parts that run side by side, then merged"
        return ModulePlan(self.textbook, plans, f"{note}; {done}" if note else done, parts=count)

    def cut(self, einsums: tuple[Einsum, ...]) -> Groups | None:
        """Groups that are a kernel each."""
        units = [unit for unit in self.units if set(unit) <= set(einsums)]
        return _fewest_groups(self.cuttable, units, self.extents)


def with_last_positions(cascade: Cascade) -> Cascade:
    """A tensor for the last position of each running state that Einsums outside of its loop read."""
    einsums, tensors = list(cascade.einsums), list(cascade.tensors)
    for state in [t for t in cascade.tensors if t.kind == "state"]:
        place = state.ranks.index(state.iterates or "")
        name = fresh(replace(cascade, tensors=tuple(tensors)), f"{state.name}_last")
        ranks = tuple(rank for rank in state.ranks if rank != state.iterates)
        last: list[Expr] = []

        def moved(
            node: Expr, owner: Einsum, state: Tensor = state, place: int = place, name: str = name, last: list[Expr] = last
        ) -> Expr:
            if not isinstance(node, Access) or node.tensor != state.name or owner.output == state.name:
                return node
            if position(cascade, state.name, node.indices[place]) != "last":
                return node
            last.append(node.indices[place])
            return Access(name, (*node.indices[:place], *node.indices[place + 1 :]))

        einsums = [replace(e, body=transform(e.body, lambda node, owner=e: moved(node, owner))) for e in einsums]  # type: ignore[misc]
        if last:
            after = max(number for number, e in enumerate(einsums) if e.output == state.name) + 1
            own = tuple(Coord(rank) for rank in ranks)
            einsums.insert(after, Einsum(name, own, Access(state.name, (*own[:place], last[0], *own[place:]))))
            tensors.insert(tensors.index(state) + 1, Tensor(name, ranks, state.dtype))
    return replace(cascade, einsums=tuple(einsums), tensors=tuple(tensors))


def repeated(cascade: Cascade, single: Plan) -> frozenset[str]:
    """Reductions of the textbook cascade and what takes special functions, where they lack a rank of the kernel's grid and do not
    depend on one that has it, with all that they need."""
    if single.program.made:
        return frozenset()  # nothing carries these ranks by name
    grid = {r for r in single.program.grid if single.sizes.extents.get(r, 1) > 1}
    carried = {t.name: set(t.ranks) for t in cascade.tensors}
    heavy = {
        e.output
        for e in cascade.einsums
        if (isinstance(e.body, Reduce) or any(isinstance(n, Map) and n.op in SPECIAL - {"/"} for n in walk(e.body)))
        and cascade.tensor(e.output).kind == "einsum"
        and grid - carried[e.output]
    }
    producers = {e.output: e for e in cascade.einsums}
    again: set[str] = set()
    for name in heavy:
        todo, needs = [name], set()
        while todo:
            here = todo.pop()
            if here in needs or here not in producers:
                continue
            needs.add(here)
            todo += [a.tensor for a in reads(producers[here])]
        if not needs & set(cascade.outputs):
            again |= needs
    return frozenset(again)


def _alone(cascade: Cascade, groups: Groups, extents: Mapping[str, int]) -> EinsmithError | None:
    """Why a group of Einsums is no kernel even by itself."""
    for number in range(len(groups)):
        try:
            program(_part(cascade, groups, number), extents)
        except EinsmithError as refusal:
            return refusal
    return None


def _fewest_groups(cascade: Cascade, groups: Groups, extents: Mapping[str, int]) -> Groups | None:
    """The best cut of the groups in their order, or of the same groups each as late as it may be."""
    orders = [groups, _depth_first(groups, cascade), _depth_first(groups, cascade, last_first=True)]
    different = [order for number, order in enumerate(orders) if order not in orders[:number]]
    known: dict[object, bool] = {}
    found = [cut for order in different if (cut := _cut(cascade, order, extents, known)) is not None]
    return min(found, key=lambda cut: cut[:2])[2] if found else None


def _depth_first(groups: Groups, cascade: Cascade, last_first: bool = False) -> Groups:
    """Groups in an order in which what feeds one stands right before it, the longest way to it first; of ways as long the first
    as written, or the last."""
    owner = {e.output: number for number, group in enumerate(groups) for e in group}
    feeds = [
        sorted({owner[a.tensor] for e in group for a in reads(e) if a.tensor in owner} - {n}) for n, group in enumerate(groups)
    ]
    depth: list[int] = []
    for number in range(len(groups)):  # in an order in which all that feeds a group stands before it
        depth.append(1 + max((depth[n] for n in feeds[number]), default=0))
    order: dict[int, None] = {}
    todo = [(owner[name], False) for name in reversed(cascade.outputs) if name in owner]
    while todo:
        number, fed = todo.pop()
        if fed:
            order.setdefault(number)
        elif number not in order:
            todo.append((number, True))
            todo += [(n, False) for n in sorted(feeds[number], key=lambda n: (depth[n], n if last_first else -n))]
    return [groups[n] for n in (*order, *(n for n in range(len(groups)) if n not in order))]


def _cut(cascade: Cascade, groups: Groups, extents: Mapping[str, int], known: dict[object, bool]) -> tuple[int, int, Groups] | None:
    """The fewest kernels, then the fewest words between them: how many of each, and the groups of each kernel. `known`: parts that
    were found to be a kernel or none."""
    count = len(groups)
    best: list[tuple[int, int, Groups] | None] = [None] * (count + 1)
    best[0] = (0, 0, [])
    for start in range(count):
        here = best[start]
        if here is None:
            continue
        for end in range(start + 1, count + 1):
            together = tuple(e for group in groups[start:end] for e in group)
            rest = tuple(e for group in groups[end:] for e in group)
            part = _part(cascade, [together, rest], 0)
            if _parts_a_loop(part, cascade):
                continue  # what follows may be the rest of the loop
            key = (frozenset(e.output for e in together), frozenset(part.outputs))
            if key not in known:
                known[key] = _is_kernel(part, cascade, extents)
            if not known[key]:
                if end > start + 1:
                    break
                continue
            found = (here[0] + 1, here[1] + _words(part, extents), [*here[2], together])
            other = best[end]
            if other is None or found[:2] < other[:2]:
                best[end] = found
    return best[count]


def _is_kernel(part: Cascade, cascade: Cascade, extents: Mapping[str, int]) -> bool:
    """Can a part of a cascade be a kernel?"""
    try:
        _check(part, cascade, extents)
    except EinsmithError:
        return False
    return True


def _check(part: Cascade, cascade: Cascade, extents: Mapping[str, int]) -> None:
    """Raises EinsmithError where a part of a cascade cannot be a kernel."""
    state = _parts_a_loop(part, cascade)
    if state:
        raise refuse("E604", f"`{state}` is read within its loop by another kernel")
    program(part, extents)


def _parts_a_loop(part: Cascade, cascade: Cascade) -> str | None:
    """A state that something outside of the part reads within its loop."""
    states = (name for name in part.outputs if part.tensor(name).kind == "state" and name not in cascade.outputs)
    return next(states, None)


def _words(part: Cascade, extents: Mapping[str, int]) -> int:
    """Elements that a part writes."""
    return sum(prod(extents.get(r, 1) for r in part.tensor(name).ranks) for name in part.outputs)


def _units(cascade: Cascade, inside: Collection[str] = ()) -> Groups:
    """Einsums that cannot be parted (a running state and what its step needs of it; what makes a tensor `inside` and what reads
    it), in an order in which each comes after what it reads."""
    import networkx as nx

    order = {e.output: number for number, e in reversed(list(enumerate(cascade.einsums)))}
    graph: Any = nx.DiGraph()
    graph.add_nodes_from(order)
    for einsum in cascade.einsums:
        graph.add_edges_from((a.tensor, einsum.output) for a in reads(einsum) if a.tensor in order and a.tensor != einsum.output)
    graph.add_edges_from([(after, before) for before, after in graph.edges if before in inside])
    condensed = nx.condensation(graph)

    def place(node: int) -> int:
        return min(order[name] for name in condensed.nodes[node]["members"])

    return [
        tuple(e for e in cascade.einsums if e.output in condensed.nodes[node]["members"])
        for node in nx.lexicographical_topological_sort(condensed, key=place)
    ]


def _components(group: tuple[Einsum, ...]) -> Groups:
    """Einsums that feed each other, directly or not, in their order."""
    import networkx as nx

    graph: Any = nx.Graph()
    made = {e.output for e in group}
    graph.add_nodes_from(made)
    for einsum in group:
        graph.add_edges_from((einsum.output, a.tensor) for a in reads(einsum) if a.tensor in made)
    parts = [tuple(e for e in group if e.output in names) for names in nx.connected_components(graph)]
    return sorted(parts, key=lambda part: group.index(part[0]))


def _by_depth(units: Groups, lone: Sequence[bool]) -> list[Groups]:
    """Groups in levels, those that are to be alone in levels of their own: each level reads earlier ones and itself only."""
    owner = {e.output: number for number, unit in enumerate(units) for e in unit}
    levels: dict[tuple[int, int], Groups] = {}
    depth: list[int] = []
    for number, unit in enumerate(units):
        fed = {owner[a.tensor] for e in unit for a in reads(e) if a.tensor in owner} - {number}
        depth.append(max((depth[n] for n in fed), default=0) + lone[number])
        levels.setdefault((depth[number], 0 if lone[number] else 1), []).append(unit)
    return [levels[level] for level in sorted(levels)]


def _made_by(einsum: Einsum, outputs: Collection[str]) -> bool:
    """Is an Einsum among those of a kernel? The planner names what it makes of one after it."""
    return any(name == einsum.output or name.startswith(f"{einsum.output}_") for name in outputs)


def _part(cascade: Cascade, groups: Groups, number: int) -> Cascade:
    """One group as a cascade of its own: what it reads from outside is an input, what others read or the user wants an output."""
    mine = groups[number]
    made = {e.output for e in mine}
    wanted = {a.tensor for group in groups[number + 1 :] for e in group for a in reads(e)} | set(cascade.outputs)
    needed = {a.tensor for e in mine for a in reads(e)} - made
    inputs = [t if t.kind == "input" else replace(t, kind="input", iterates=None) for t in cascade.tensors if t.name in needed]
    rest = [t for t in cascade.tensors if t.name in made]
    outputs = tuple(t.name for t in rest if t.name in wanted)
    name = cascade.name if len(groups) == 1 else f"{cascade.name}-{outputs[0] if outputs else number}"
    return replace(cascade, name=name, tensors=(*inputs, *rest), einsums=mine, outputs=outputs)


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
