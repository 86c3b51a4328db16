"""The report of a simulation as a text.

In: a `Simulated`. Out: lines: cycles beside the cost model's, and for each group where they differ, term by term.
"""

from __future__ import annotations

from ..mapper.cost import amount, seconds
from .machine import component
from .simulate import GroupRun, Simulated
from .window import CAUSES

TERMS = {
    "fill": "fill: before the first work of what bounds the model", "drain": "drain: after its last work",
    "work": "work of its busiest instance beyond the model's mean", "beyond": "waiting that the model does not have",
}  # fmt: skip


def report(run: Simulated) -> str:
    """The run as a text."""
    arch, model = run.cost.arch, run.cost
    more, rest = run.cycles - model.cycles, run.steady_cycles / (model.cycles or 1) - 1
    fill, drain = sum(group.fill for group in run.groups), sum(group.drain for group in run.groups)
    lines = [
        f"{model.placed.cascade.name} on {arch.name}, mapping {model.placed.mapping.name}: simulated event by event",
        f"  cycles       {run.cycles:,.0f}  ({seconds(run.latency_s)})" + ("" if run.exact else "  extrapolated, see below"),
        f"  cost model   {model.cycles:,.0f}; the simulation takes {more:+,.0f} cycles ({more / (model.cycles or 1):+.2%});"
        f" the model expects {model.fill_cycles:+,.0f} of fill and drain",
        f"  steady       {run.steady_cycles:,.0f} ({rest:+.2%}) without fill {fill:,.0f} and drain {drain:,.0f}",
        "  utilization  " + ", ".join(f"{name} {share:.1%}" for name, share in run.utilization.items()),
        f"  events       {run.events:,}",
    ]
    for group in run.groups:
        lines += _group(run, group)
    lines.append("stalls of each array, cycles")
    worked = {name for group in run.groups for name, cycles in group.busy.items() if cycles}
    for name, causes in run.stalls.items():
        if name not in worked and component(name) != name:
            continue  # an instance of many
        listed = ", ".join(
            f"{cause} {cycles:,.0f}" for cause, cycles in sorted(causes.items(), key=lambda item: -item[1]) if cycles
        )
        lines.append(f"    {name:12} {listed or 'none'}")
    return "\n".join(lines)


def _group(run: Simulated, group: GroupRun) -> list[str]:
    arch = run.cost.arch
    what = "iterations" if group.common else "tiles"
    some = f"{group.window.tiles:,} of {group.tiles:,} {what}"
    how = {
        "whole": f"all {what}",
        "steady": f"samples of up to {some}; all grows by the same from iteration to iteration, so this is what all {what} take",
        "pace": f"the first {some}, the rest at the pace of their second half",
    }[group.how]
    numbers = ", ".join(str(nest.number) for nest in group.nests)
    lines = [f"group {numbers}: {how}" if len(group.nests) == 1 else f"groups {numbers}, as a pipeline: {how}"]
    share = group.bound / (group.covers or 1)
    part = f" of {group.covers:,.0f} that were run" if group.how == "pace" else ""
    lines.append(f"    {group.cycles:,.0f} cycles; the busiest resource, {group.busiest}, works in {share:.1%}{part or ' of them'}")
    for cause, cycles in group.difference().items():
        lines.append(f"        {cycles:+12,.0f}  {TERMS.get(cause) or CAUSES[cause]}")
    for level in arch.on_chip:
        size = arch.memory[level].size
        have = f" of {amount(size)}" if size else ""
        lines.append(f"    at most {amount(group.window.peaks[level] * arch.word_bytes)}{have} of `{level}` taken")
    moved = [f"{name} {way} {amount(words * arch.word_bytes)}" for (name, way), words in sorted(group.moved.items()) if words]
    lines.append(f"    moved{' in them' if group.how == 'pace' else ''}: {', '.join(moved) or 'nothing'}")
    path = sorted(group.window.critical.items(), key=lambda item: -item[1])[:4]
    shares = ", ".join(f"{name} {cycles / (group.window.cycles or 1):.1%}" for name, cycles in path if cycles)
    if shares:
        lines.append(f"    critical path: {shares}")
    return lines
