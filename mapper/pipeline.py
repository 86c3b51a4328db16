"""Groups that work at the same time: a pipeline over the loops that they have in common.

In: a placed mapping whose groups begin with the same loops. While one group works on one iteration of these loops, the group
before works on the next one. Legal if every tensor that goes from group to group is complete at the end of an iteration, and
what all groups hold at once fits; the pipeline then takes as long as its busiest resource.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..einsum.cascade import Coord
from .residency import asked
from .steps import refuse

if TYPE_CHECKING:
    from .nest import Placed


def check_pipeline(placed: Placed) -> None:
    """Refuses groups that cannot work at the same time (E511), or do not fit together (E520)."""
    count = placed.mapping.pipelined_loops
    first = placed.nests[0]
    for nest in placed.nests:
        mine = [(loop.rank, loop.tile) for loop in nest.group.loops[:count]]
        theirs = [(loop.rank, loop.tile) for loop in first.group.loops[:count]]
        if mine != theirs or len(mine) < count:
            raise refuse("E510", f"the first {count} loops of group {nest.number} are not those of group 1", "they work in step")
    ranks = {loop.rank for axis, loop in enumerate(first.group.loops[:count]) if first.all_trips[axis] > 1}
    homes = {name: nest for nest in placed.nests for name in nest.group.einsums}
    for nest in placed.nests:
        for step in nest.steps:
            for access in step.reads:
                home = homes.get(access.tensor)
                if home is None or home is nest:
                    continue
                tensor = placed.cascade.tensor(access.tensor)
                used = dict(zip(tensor.ranks, access.indices, strict=True))
                for rank in sorted(ranks & (step.ranks.union(*(one.ranks for one in home.steps if one.output == access.tensor)))):
                    if used.get(rank) != Coord(rank):
                        raise refuse(
                            "E511",
                            f"groups {home.number} and {nest.number} work at the same time on successive parts of `{rank}`, but "
                            f"`{step.name}` needs more of `{access.tensor}` than one part",
                            "pipeline fewer loops", access.span,
                        )  # fmt: skip
    for level in placed.arch.on_chip:
        size = placed.arch.memory[level].size
        needs = [asked(nest, level) for nest in placed.nests]
        if size is not None and sum(needs) > size:
            parts = ", ".join(f"group {nest.number} {need:,}" for nest, need in zip(placed.nests, needs, strict=True))
            raise refuse(
                "E520",
                f"groups that work at the same time need {sum(needs):,} bytes of `{level}`, which has {size:,}: {parts}",
                "use smaller tiles, or let one group follow the other",
            )
