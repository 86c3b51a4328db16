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

from ..einsum.cascade import Cascade, Einsum, Map, Reduce, Scan, accesses, free_ranks, walk
from ..einsum.diagnostics import EinsmithError
from ..einsum.sizes import bind
from .blocking import live, reads
from .chunks import Chunked, chunked
from .cuts import Groups, alone, as_cascade, by_depth, components, fewest_groups, is_kernel, units_of, with_last_positions, words
from .descriptors import Choice
from .fewer import fewer_operations
from .forms import contracted, forms
from .gpu import Gpu
from .gpu_time import SPECIAL
from .module_plan import ModulePlan
from .one_pass import OnePass, one_pass
from .parts import merging, part_counts, with_parts
from .plan import LATENCY_ROOM, Merit, Plan, better, plan
from .positions import states_apart, with_steps
from .prepare import prepared
from .products import MATRIX_SIDE, products


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
        parts = [tried(as_cascade(*apart, number)) for number in range(len(apart[1]))]
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
    """Plans in which linear recurrences go chunk by chunk, with longer and longer chunks while that is faster. What no state goes
    into may be done before, for all chunks at once."""
    plans: list[ModulePlan] = []
    best: ModulePlan | None = None
    for each in chunked(prepared(cascade)):
        own = planner(each)
        try:
            found, groups = own.first()
        except EinsmithError:  # too much for a kernel, maybe
            whole, groups = list[ModulePlan](), own.fewest_groups() or [own.cuttable.einsums]
        else:
            whole = [found]
        here = [
            replace(one, note="; ".join(note for note in (each.note, one.note) if note), chunked=True)
            for one in (*whole, *own.pairs_apart(groups))
        ]
        if not here:
            break
        plans += here
        before, best = best, _best(here)
        if before is not None and not better(*_comparable(best, before)):
            break
    return plans


def _comparable(one: ModulePlan, other: ModulePlan) -> tuple[Merit, Merit]:
    """Merits of two plans. Chunks of two lengths count as having as many products: a longer one takes more for the same."""
    if not (one.chunked and other.chunked):
        return one.merit, other.merit
    return one.merit, replace(other.merit, products=one.merit.products)


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
        return units_of(self.cuttable, self.inside)

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
                raise (alone(self.cuttable, self.units, self.extents) or refusal) from None
            try:
                groups = self.fitting(groups)
                return self.module(groups), groups
            except EinsmithError as other:
                raise other from refusal

    def fewest_groups(self) -> Groups | None:
        """The best cut; where there is none, with the positions of running states as tensors between kernels."""
        groups = fewest_groups(self.cuttable, self.units, self.extents) if len(self.units) > 1 else None
        stepped = self.cuttable if groups else with_steps(self.cuttable, self.inside)
        if stepped is not self.cuttable:
            self.cuttable, self.units = stepped, units_of(stepped, self.inside)
            groups = fewest_groups(self.cuttable, self.units, self.extents)
        return groups

    def fitting(self, groups: Groups) -> Groups:
        """The same groups, cut further where no tile of one fits the GPU. Raises the refusal of a group that cannot be cut."""
        number = 0
        while number < len(groups):
            try:
                self.kernel(as_cascade(self.cuttable, groups, number))
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
                groups = min(legal, key=lambda other: words(as_cascade(self.cuttable, other, number), self.extents))
        return groups

    def legal(self, groups: Groups, number: int) -> bool:
        """Can a group be a kernel, whatever fits?"""
        return is_kernel(as_cascade(self.cuttable, groups, number), self.cuttable, self.extents)

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
        parts = [as_cascade(self.cuttable, groups, number) for number in range(len(groups))]
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

    def pairs_apart(self, groups: Groups) -> Iterator[ModulePlan]:
        """The same with a kernel for what no state goes into: chunks go side by side there, once for all tiles of a state's values,
        and the kernel that walks them holds less and waits for fewer products."""
        for number, group in enumerate(groups):
            early = free_of_states(as_cascade(self.cuttable, groups, number))
            sides = [tuple(e for e in group if (e.output in early) is before) for before in (True, False)]
            if not all(sides):
                continue
            try:
                found = self.module([*groups[:number], *sides, *groups[number + 1 :]])
            except EinsmithError:
                continue
            done = "what no state goes into done before, for all chunks at once"
            yield replace(found, note=f"{found.note}; {done}" if found.note else done)

    def apart(self, groups: Groups) -> tuple[ModulePlan, Groups] | None:
        """The same with a kernel each for Einsums of one kernel that do not feed each other, unless what they share makes up for
        the roles that the others' ranks impose on them; None if there are none."""
        parted: Groups = []
        for group in groups:
            loose = components(group)
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
                self.kernel(as_cascade(self.cuttable, [mine, *rest, left, *others], 0))[1].merit
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
            cuts = [self.cut(tuple(e for unit in level for e in unit)) for level in by_depth(units, lone)]
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
        again = repeated(as_cascade(self.cuttable, groups, number), kernel)
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
                    part, self.gpu, own, own_params, dtype=self.dtype, allow_tf32=self.allow_tf32,
                    keep=self.keep, tiles=set(form.symbols) - set(self.cascade.symbols), between=self.left(part),
                    descriptors=self.descriptors, persistent=self.persistent,
                )
                for part in (as_cascade(cascade, groups, number) for number in range(2))
            )  # fmt: skip
        except EinsmithError:
            return None
        done = f"`{rank}` in {count} parts that run side by side, then merged"
        return ModulePlan(self.textbook, plans, f"{note}; {done}" if note else done, parts=count)

    def cut(self, einsums: tuple[Einsum, ...]) -> Groups | None:
        """Groups that are a kernel each."""
        units = [unit for unit in self.units if set(unit) <= set(einsums)]
        return fewest_groups(self.cuttable, units, self.extents)


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
    again: set[str] = set()
    for name in heavy:
        needs = _needs(name, cascade)
        if not needs & set(cascade.outputs):
            again |= needs
    return frozenset(again)


def free_of_states(part: Cascade) -> frozenset[str]:
    """Reductions, scans and what takes special functions where no running state goes into them and they lack a rank along which
    states are told apart and not summed, with all that they need and what is made of them and of inputs alone."""
    states = [tensor for tensor in part.tensors if tensor.kind == "state"]
    behind = {state.name for state in states}
    readers = [e for e in part.einsums if behind & {access.tensor for access in reads(e)}]
    summed = {rank for einsum in readers if isinstance(einsum.body, Reduce) for rank in einsum.body.ranks}
    ranks = {rank for state in states for rank in state.ranks if rank != state.iterates} - summed
    apart: list[Einsum] = []
    for einsum in part.einsums:
        if behind & {access.tensor for access in reads(einsum)} or einsum.output in behind:
            behind.add(einsum.output)
        elif ranks - set(part.tensor(einsum.output).ranks):
            apart.append(einsum)
    found: set[str] = set()
    for einsum in apart:
        if _is_heavy(einsum) or {access.tensor for access in reads(einsum)} & found:
            found |= _needs(einsum.output, part)
    return frozenset(found - set(part.outputs))


def _is_heavy(einsum: Einsum) -> bool:
    """Does it reduce, scan or take special functions?"""
    special = SPECIAL - {"/"}
    return any(isinstance(node, Reduce | Scan) or (isinstance(node, Map) and node.op in special) for node in walk(einsum.body))


def _needs(name: str, part: Cascade) -> set[str]:
    """What Einsums make of all that a tensor is made of, itself among it."""
    made = {einsum.output: einsum for einsum in part.einsums}
    todo, found = [name], set[str]()
    while todo:
        here = todo.pop()
        if here not in found and here in made:
            found.add(here)
            todo += [access.tensor for access in reads(made[here])]
    return found


def _made_by(einsum: Einsum, outputs: Collection[str]) -> bool:
    """Is an Einsum among those of a kernel? The planner names what it makes of one after it."""
    return any(name == einsum.output or name.startswith(f"{einsum.output}_") for name in outputs)
