"""Running moments: a sum of powers of differences from a running value, kept about that value and moved with it.

before    MU[p]  = MU_run[p,M1] / N_run[M1]
          VAR[p] = sum[m1,m0]((X[p,m1,m0] - MU[p]) ** 2)
after     MU_step[p,m1]   = MU_run[p,m1] / N_run[m1] - MU_run[p,m1+1] / N_run[m1+1]
          VAR_tile[p,m1]  = sum[m0]((X[p,m1,m0] - MU_now[p,m1]) ** 2)
          VAR_run[p,0]    = 0
          VAR_run[p,m1+1] = VAR_run[p,m1] + MU_step[p,m1] ** 2 * N_run[m1] + VAR_tile[p,m1]
          VAR[p]          = VAR_run[p,M1]

Condition: f = w * prod_j (u_j + v_j)^k_j with w rescalable. Then, with d = v' - v, (u + v')^k = sum_i C(k,i) d^(k-i) (u + v)^i,
so lower
moments about the old value give all moments about the new one. Lower moments that run already are read, those that are 0 (the
first about a
running mean) are left out, the others become states of their own. For a mean and a variance this is the merge of Chan, Golub and
LeVeque.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product as grid
from math import comb

from ..cascade import Access, Cascade, Coord, Einsum, Expr, Map, Number, Reduce, Tensor, free_ranks
from .accumulate import RunningState
from .algebra import ONE, ZERO, add, canonical, is_number, multiply, negate, polynomial, power, subtract
from .fiber import Fiber, is_step_of
from .moments import Moments, moments
from .running import RunningVersions, state_beside
from .running_rescale import correction
from .separate import Obstacle
from .step import Refused, Rewritten, Step, coords, fresh, in_order, replaced, shown, text

NAME = "running-moments"


def running_moments(cascade: Cascade, target: str, rank: str, running: frozenset[str]) -> Rewritten | Refused | None:
    """Run the sum of powers that defines `target` beside the states `running` that it depends on."""
    beside = state_beside(cascade, target, rank, running)
    if beside is None:
        return None
    einsum, state, fiber = beside
    decomposed = moments(state.reduce.body, state.reduce.op, frozenset(state.reduce.ranks), fiber, proven=True)
    if isinstance(decomposed, Obstacle):
        return Refused(NAME, target, decomposed.expr, decomposed.reason, tuple(sorted(running)))
    return _Builder(cascade, einsum, state, fiber, decomposed).run()


@dataclass
class _Builder:
    """The states of one target and their steps."""

    cascade: Cascade
    target: Einsum
    state: RunningState
    fiber: Fiber
    moments: Moments

    def run(self) -> Rewritten:
        name, outer = self.target.output, self.state.outer
        self.versions = RunningVersions(self.cascade, self.state.outer, self.fiber)
        self.versions.reserve(self.state.tile_name, self.state.run_name)
        rescale, guard = self._rescale()
        steps = tuple(self._step(p.total.complete, name) for p in self.moments.powers)
        top = tuple(p.exponent for p in self.moments.powers)
        indices = sorted(grid(*(range(k + 1) for k in top)), key=lambda index: (sum(index), index))
        values: dict[tuple[int, ...], Expr] = {}
        states: list[Einsum] = []
        declared: list[Tensor] = []
        zeros: list[str] = []
        read: list[str] = []
        for index in indices:
            body = self.versions.next(self._moment(index))
            known = None if index == top else self._known(index, body, rescale)
            if known is not None:
                values[index] = known
                (zeros if is_number(known, 0) else read).append(text(known))
                continue
            own = self.state if index == top else self._lower(name, index, body)
            values[index] = own.at(Coord(outer))
            carried = multiply(self._carried(index, values, steps), rescale)
            einsums = own.einsums(body, carried, self.target)
            states.extend(einsums if index == top else einsums[:-1])
            declared.extend(own.tensors)
        new = (*self.versions.einsums, *states)
        after = replaced(self.cascade, name, new, (*self.versions.tensors, *declared))
        written = " * ".join(f"({text(p.total.moving)} + ({text(p.total.complete)}))**{p.exponent}" for p in self.moments.powers)
        condition = f"f = w * {written} with w = {text(self.moments.weight)}"
        if zeros:
            condition += "; the first moment about the running mean is 0"
        if read:
            condition += f"; {', '.join(f'`{r}`' for r in read)} is a lower moment that runs already"
        step = Step(
            NAME,
            name,
            shown([self.target], self.cascade),
            "(u + v')^k = sum_i C(k,i) * (v' - v)^(k-i) * (u + v)^i",
            condition + (f"; {guard}" if guard else ""),
            shown(new, after),
        )
        return Rewritten(after, step, self.state.run_name)

    def _rescale(self) -> tuple[Expr, str]:
        """The correction of the weight, named; 1 if it has none."""
        if self.moments.factors.trivial:
            return ONE, ""
        factor, guard = correction(self.moments.factors, self.versions)
        return self._named(factor, self.moments.factors.complete, "rescale"), guard

    def _step(self, complete: Expr, name: str) -> Expr:
        """d = v(next) - v(now), named; 0 while a max or a min has seen nothing."""
        height = negate(complete)
        step = subtract(self.versions.at(height, "now"), self.versions.at(height, "next"))
        if self.versions.start(complete) != "finite":
            unseen = self.versions.nothing_seen(self.versions.states(complete))
            if unseen is not None:
                step = Map("where", (unseen, ZERO, step))
        return self._named(step, complete, "step")

    def _named(self, expr: Expr, complete: Expr, suffix: str) -> Access:
        base = self.versions.name_of(complete, self.target.output)
        return self.versions.named(f"{base}_{suffix}", expr, in_order(free_ranks(expr), self.cascade))

    def _moment(self, index: tuple[int, ...]) -> Expr:
        body = self.moments.weight
        for p, exponent in zip(self.moments.powers, index, strict=True):
            if exponent:
                body = multiply(body, power(p.base, Number(exponent)))
        return self.moments.masked(body)

    def _carried(self, index: tuple[int, ...], values: dict[tuple[int, ...], Expr], steps: tuple[Expr, ...]) -> Expr:
        """The moment about the new value, of what has been summed about the old one."""
        total: Expr = ZERO
        for lower in reversed(list(grid(*(range(k + 1) for k in index)))):
            if is_number(values[lower], 0):
                continue
            count = 1
            shift: Expr = ONE
            for k, i, step in zip(index, lower, steps, strict=True):
                count *= comb(k, i)
                if k > i:
                    shift = multiply(shift, power(step, Number(k - i)))
            total = add(total, multiply(multiply(Number(count), shift), values[lower]))
        return total

    # --- lower moments ------------------------------------------------------------------------------------------------------

    def _known(self, index: tuple[int, ...], body: Expr, rescale: Expr) -> Expr | None:
        """A lower moment that is 0, or that a state of the cascade holds already."""
        if sum(index) == 1:
            p = self.moments.powers[index.index(1)]
            first = self._running_sum(
                self.versions.next(self.moments.masked(multiply(self.moments.weight, p.total.moving))), rescale
            )
            count = self._running_sum(self.versions.next(self.moments.masked(self.moments.weight)), rescale)
            if first is not None and count is not None:
                about = add(first, multiply(self.versions.at(p.total.complete, "now"), count))
                if not polynomial(about):
                    return ZERO
        return self._running_sum(body, rescale)

    def _running_sum(self, body: Expr, rescale: Expr) -> Expr | None:
        """The state, before the current tile, that sums `body` and is corrected by `rescale` alone."""
        outer = self.state.outer
        inner = tuple(rank for rank in self.state.reduce.ranks if rank != outer)
        key = canonical(Reduce("sum", inner, body))
        tiles = {e.output for e in self.cascade.einsums if isinstance(e.body, Reduce) and canonical(e.body) == key}
        for einsum in self.cascade.einsums:
            match einsum.body:
                case Map(op="+", args=(carried, Access(tensor=tile))) if tile in tiles and is_step_of(einsum, outer):
                    tensor = self.cascade.tensor(einsum.output)
                    now = Access(tensor.name, coords(tensor.ranks))
                    if carried == multiply(now, rescale):
                        return now
        return None

    def _lower(self, name: str, index: tuple[int, ...], body: Expr) -> RunningState:
        """A state for a lower moment that nothing holds."""
        outer = self.state.outer
        inner = frozenset(self.state.reduce.ranks) - {outer}
        taken: set[str] = self.versions.taken
        ranks = in_order((free_ranks(body) - inner) | {outer}, self.cascade)
        base = f"{name}_moment" + "_".join(str(i) for i in index)
        tile_name, run_name = fresh(f"{base}_tile", taken), fresh(f"{base}_run", taken)
        tensors = (Tensor(tile_name, ranks), Tensor(run_name, ranks, kind="state", iterates=outer))
        return replace(self.state, tile_name=tile_name, run_name=run_name, ranks=ranks, tensors=tensors)
