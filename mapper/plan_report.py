"""The report of a plan: roles of ranks, what lives where, and a table of candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import Plan


def report(plan: Plan) -> str:
    """The plan as text."""
    roles = plan.roles()
    extents = plan.sizes.extents

    def listed(names: list[str]) -> str:
        return ", ".join(f"{n} ({extents[n]})" if n in extents and n != plan.program.inner else n for n in names) or "none"

    lines = [
        f"plan of {plan.cascade.name} for {plan.gpu.name} ({plan.gpu.target}), {plan.dtype} inputs, float32 accumulation",
        f"  program instances over   {listed(roles['grid'])}",
        f"  tiles of                 {listed(roles['tiled'])}",
        f"  sequential               {listed(roles['loop'])}"
        + (f", a tile of {roles['step'][0]} at a time" if roles["step"] else ""),
        f"  whole in a tile          {listed(roles['whole'])}",
        f"  in registers             {', '.join(plan.in_registers())}",
        "  staged in shared memory  "
        + (
            ", ".join(f"{o.tensor}[{','.join(o.axes)}]" + (" x stages" if o.every_step else "") for o in plan.operands) or "nothing"
        ),
    ]
    if plan.best.order is not None and len(plan.best.order.ranks) > 1:
        lines.insert(3, f"  launched in the order    {plan.best.order}")
    lines += [f"  note: {note}" for note in plan.notes]
    names = [r for r in (*plan.program.tiled, plan.program.inner) if r is not None]
    header = [*(f"BLOCK_{n.upper()}" for n in names), "warps", "stages", "shared", "regs", "resident", "predicted", "bound"]
    rows = [
        [
            *(str(c.blocks[n]) for n in names), str(c.warps), str(c.stages), f"{c.shared_bytes:,} B", str(c.registers),
            str(c.blocks_per_multiprocessor), tile_time(c.predicted_s), c.bound,
        ]
        for c in plan.candidates
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines += ["", *("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *rows])]
    lines += ["", f"  {plan.searched} choices searched; predictions by formula, nothing here was measured"]
    return "\n".join(lines)


def tile_time(seconds: float) -> str:
    """Seconds as a person reads them."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
