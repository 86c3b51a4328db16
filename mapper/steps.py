"""An Einsum bound to an array: the unit that the loops of a group run.

In: a flat Einsum and its binding. Out: a `Step` with its ranks, operations and operands; refused if the array cannot do it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from ..einsum.cascade import Access, Cascade, Einsum, Number, Reduce, Scan, Select, accesses, free_ranks
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..einsum.sizes import Sizes
from .architecture import Architecture, Array
from .mapping import Binding
from .operations import Work, is_constant, work

Slot: TypeAlias = Literal["each", "first", "last"]
FORWARD = "forward"
"""Where a tensor stays that is handed on element by element as it is made."""


def refuse(code: str, message: str, help: str = "", span: Any = None, label: str = "") -> EinsmithError:
    return EinsmithError(Diagnostic(code, message, span, label, help=help))


@dataclass(frozen=True, eq=False)
class Step:
    """One flat Einsum in its group."""

    name: str
    """Its output; `NAME@0` for the initial value of a running state."""
    position: int
    """In the flat cascade."""
    einsum: Einsum
    binding: Binding
    array: Array
    ranks: frozenset[str]
    """All ranks it iterates."""
    reduced: frozenset[str]
    work: tuple[Work, ...]
    reads: tuple[Access, ...]
    initial: bool
    slots: tuple[Slot, ...] = ()
    """For each loop: when it runs."""

    @property
    def output(self) -> str:
        return self.einsum.output

    @property
    def stationary(self) -> bool:
        """Whether an operand stays in the lanes of a 2-D array while others stream by: it must be brought there first."""
        streams = self.ranks - self.binding.ranks
        if len(self.array.side) < 2 or not streams or not self.binding.ranks:
            return False
        return any(ranks & self.binding.ranks and not ranks & streams for ranks in self._moving)

    @cached_property
    def _moving(self) -> tuple[frozenset[str], ...]:
        """For each operand, the ranks that move it."""
        return tuple(frozenset().union(*(free_ranks(index) for index in access.indices)) for access in self.reads)

    @cached_property
    def inside(self) -> tuple[str, ...]:
        """Ranks that are not laid along the sides, as the array walks them within a tile, from the outside.

        Reductions go last, so that a lane keeps one sum; of the others, those that most operands depend on go first.
        """

        def place(rank: str) -> tuple[bool, int, str]:
            return rank in self.reduced, sum(rank not in ranks for ranks in self._moving), rank

        return tuple(sorted(self.ranks - self.binding.ranks, key=place))

    def outside(self, ranks: frozenset[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Ranks whose positions may each take an operand anew that only `ranks` move, and what does so: ranks walked inside them.

        A lane keeps one word of an operand. Folds of a reduced rank that is laid along a side come before the other reductions.
        """
        found = []
        for at, rank in enumerate(self.inside):
            if rank not in ranks:
                folds = self.binding.ranks & self.reduced & ranks if rank not in self.reduced else frozenset[str]()
                if movers := (*(inner for inner in self.inside[at + 1 :] if inner in ranks), *sorted(folds)):
                    found.append((rank, movers))
        return tuple(found)


def step_name(cascade: Cascade, einsum: Einsum) -> str:
    """The name of an Einsum: its output; `NAME@0` for the initial value of a state."""
    return f"{einsum.output}@0" if is_initial(cascade, einsum) else einsum.output


def is_initial(cascade: Cascade, einsum: Einsum) -> bool:
    tensor = cascade.tensor(einsum.output)
    return tensor.kind == "state" and einsum.indices[tensor.ranks.index(str(tensor.iterates))] == Number(0)


def iterated(einsum: Einsum) -> frozenset[str]:
    """All ranks of an Einsum, bound ones included."""
    ranks = frozenset().union(*(free_ranks(index) for index in einsum.indices)) | free_ranks(einsum.body)
    body = einsum.body
    if isinstance(body, Reduce):
        ranks |= frozenset(body.ranks)
    if isinstance(body, Select):
        ranks |= {body.rank}
    return ranks


def check_step(cascade: Cascade, arch: Architecture, sizes: Sizes, binding: Binding, position: int, einsum: Einsum) -> Step:
    """One Einsum bound to an array; refuses what the array cannot do."""
    name = step_name(cascade, einsum)
    if binding.array not in arch.arrays:
        listing = ", ".join(f"`{n}`" for n in arch.arrays)
        raise refuse("E512", f"`{name}` is bound to `{binding.array}`, which the architecture does not have", f"it has {listing}")
    array = arch.arrays[binding.array]
    ranks = iterated(einsum)
    if any(accesses(index) for index in einsum.indices):
        raise refuse(
            "E530", f"`{name}` scatters to positions read from a tensor, which the mapper does not model", span=einsum.span
        )
    if len(binding.spatial) > len(array.side):
        raise refuse("E512", f"`{name}` has {len(binding.spatial)} spatial sides; `{binding.array}` has {len(array.side)}")
    listed = [rank for along in binding.spatial for rank in along]
    if len(set(listed)) < len(listed):
        raise refuse("E512", f"`{name}` has a spatial rank twice: {', '.join(listed)}")
    initial = is_initial(cascade, einsum)
    if not initial and (strange := [rank for rank in listed if rank not in ranks]):
        listing = ", ".join(f"`{n}`" for n in sorted(ranks))
        raise refuse("E512", f"`{name}` does not iterate its spatial rank `{strange[0]}`", f"it iterates {listing}")
    if initial:
        kept = tuple(tuple(rank for rank in along if rank in ranks) for along in binding.spatial)
        binding = Binding(array=binding.array, spatial=kept)
    tensor = cascade.tensor(einsum.output)
    order = {r for r in (tensor.iterates, einsum.body.rank if isinstance(einsum.body, Scan | Select) else None) if r}
    if broken := [rank for rank in listed if rank in order]:
        raise refuse("E512", f"`{name}` runs along `{broken[0]}` one position after another, so that rank cannot be spatial")
    items = () if initial and is_constant(einsum.body) else work(einsum, sizes.scalars)
    for item in items:
        if array.expand(item.operation) is None:
            able = ", ".join(sorted({*array.units, *array.expansions}))
            hint = _who_can(arch, items, item.operation, binding.array)
            raise refuse("E513", f"`{name}` needs `{item.operation}`; array `{binding.array}` has {able}", hint, einsum.span)
    reduced = frozenset(einsum.body.ranks) if isinstance(einsum.body, Reduce) else frozenset()
    reads = tuple(dict.fromkeys(accesses(einsum.body)))
    return Step(name, position, einsum, binding, array, ranks, reduced, items, reads, initial)


def _who_can(arch: Architecture, items: Iterable[Work], operation: str, bound: str) -> str:
    """Help for an operation that an array lacks: an array that has all that the Einsum needs, or how to give the operation."""
    lacking = {
        name: sorted({i.operation for i in items if array.expand(i.operation) is None}) for name, array in arch.arrays.items()
    }
    if able := [name for name, operations in lacking.items() if not operations]:
        return f"`{able[0]}` can"
    others = [f"`{name}` lacks `{'`, `'.join(found)}`" for name, found in lacking.items() if operation not in found]
    how = f"give it as a unit or an expansion, such as `--set '{bound}.expansions.{operation}={{mac: 6}}'`, or split the Einsum"
    return f"{', '.join(others)}; {how}" if others else how.removesuffix(", or split the Einsum")
