"""Random chains of reductions over one rank: each may depend on the ones before, in ways that separate and in ways that do not.

The cascades are built without regard to what any rewrite can do; sizes are small, all values finite for ordinary inputs.
"""

from __future__ import annotations

from hypothesis import strategies as st

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade

MOVING = ("X[p,m]", "W[p,m]", "abs(X[p,m])", "softplus(W[p,m])", "m", "(X[p,m] * W[p,m])")
UNARY = (
    "abs({})",
    "relu({})",
    "tanh({})",
    "sigmoid({})",
    "({}) ** 2",
    "-({})",
    "softplus({})",
    "where(m <= p, {}, 0)",
    "0.5 * ({})",
)
BINARY = ("({}) + ({})", "({}) - ({})", "({}) * ({})", "max({}, {})", "min({}, {})", "where(m <= 2, {}, {})")
WITH_ROOT = (
    "exp({x} - max({g}, {x}))", "{x} * {g}", "{x} / (1 + abs({g}))", "{x} - {g}", "{x} + {g}",
    "exp(tanh({x}) - {g} / (1 + abs({g})))",
    "({x} - {g}) ** 2", "sqrt(abs({x} * {g}))", "sigmoid({x} - {g})", "where({x} > {g}, {x}, 0)", "log(1 + abs({x})) - {g}",
    "{x} * {g} * {g}",
    "exp({x} / (1 + abs({x})) - tanh({g}))", "({x} - {g}) * {x}", "{g} * 2",
)  # fmt: skip
AFTER = ("tanh({})", "log(1 + abs({}))", "2 * {} + 1", "max({}, 0)")
REDUCTIONS = ("sum", "sum", "sum", "max", "min", "mean")


@st.composite
def chains(draw: st.DrawFn) -> Cascade:
    """A cascade over p and m whose reductions over m depend on one another."""
    lines: list[str] = []
    roots: list[str] = []
    moving = list(MOVING)

    def element(depth: int) -> str:
        kind = draw(st.integers(0, 5)) if depth else 0
        if kind <= 1:
            return draw(st.sampled_from(moving))
        if kind == 2:
            return draw(st.sampled_from(UNARY)).format(element(depth - 1))
        if kind == 3:
            return draw(st.sampled_from(BINARY)).format(element(depth - 1), element(depth - 1))
        if not roots:
            return element(depth - 1)
        return draw(st.sampled_from(WITH_ROOT)).format(x=f"({element(depth - 1)})", g=draw(st.sampled_from(roots)))

    for number in range(draw(st.integers(2, 4))):
        if draw(st.booleans()):
            lines.append(f"E{number}[p,m] = {element(2)}")
            moving.extend([f"E{number}[p,m]"] * 2)
        lines.append(f"R{number}[p] = {draw(st.sampled_from(REDUCTIONS))}[m]({element(2)})")
        roots.append(f"R{number}[p]")
        if draw(st.integers(0, 3)) == 0:
            after = draw(st.sampled_from(AFTER)).format(draw(st.sampled_from(roots)))
            lines.append(f"C{number}[p] = {after}")
            roots.append(f"C{number}[p]")
    body = "\n".join(f"  {line}" for line in lines)
    outputs = ", ".join(dict.fromkeys((roots[-1].split("[")[0], draw(st.sampled_from(roots)).split("[")[0])))
    head = "name: chain\nranks: {p: P, m: M}\ninputs: {X: [p, m], W: [p, m]}\ncascade: |"
    return spec.loads(f"{head}\n{body}\noutputs: [{outputs}]\nsizes: {{P: 3, M: 9}}\n")


# --- over several ranks, with masks, products, gathers and running values --------------------------------------------------------

MASKS = ("m <= p", "abs(p - m) <= 2", "W[m] > 0", "m >= 1")
ENDINGS = ("O[p,f] = sum[m](({}) * V[m,f])", "O[p,m] = {}", "O[f] = sum[p,m](({}) * V[m,f])", "O[m] = max[p]({})")
STAGES = (
    "exp({x} - {g})", "{x} / (1 + abs({g}))", "{x} - {g}", "{x} * {g}", "({x} - {g}) ** 2", "exp2({x} - {g})", "relu({x} - {g})",
    "where({x} > {g}, {x}, 0)", "exp({x} - {g}) * {x}", "{x} / {g}", "min({x}, {g})",
)  # fmt: skip


@st.composite
def odd_cascades(draw: st.DrawFn) -> Cascade:
    """Stages over (p, m), each read against reductions of those before; an output that sums values, keeps m, or goes along p."""
    lines = ["QK[p,m] = Q[p,e] * K[m,e]"]
    stages = ["QK[p,m]", "S[p,m]", "B[p,m] * W[m]", "S[p,min(m+1,M-1)]"]
    roots: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        x = draw(st.sampled_from(stages))
        if draw(st.integers(0, 2)) == 0:
            rest = draw(st.sampled_from(("-inf", "0")))
            x = f"where({draw(st.sampled_from(MASKS))}, {x}, {rest})"
        if roots and draw(st.integers(0, 3)):
            x = draw(st.sampled_from(STAGES)).format(x=f"({x})", g=draw(st.sampled_from(roots)))
        lines.append(f"T{number}[p,m] = {x}")
        stages.append(f"T{number}[p,m]")
        kind = draw(st.sampled_from(("max", "sum", "sum", "min", "mean", "nested", "running", "two")))
        if kind == "nested":
            lines.append(f"R{number}[p] = log(1 + abs(sum[m](T{number}[p,m]))) + max[m](T{number}[p,m])")
        elif kind == "running":
            lines += [
                f"U{number}[p,0] = 0",
                f"U{number}[p,m+1] = 0.5 * U{number}[p,m] + T{number}[p,m]",
                f"R{number}[p] = U{number}[p,M]",
            ]
        elif kind == "two":
            lines += [f"C{number}[p,f] = sum[m](T{number}[p,m] * V[m,f])", f"R{number}[p] = max[f](C{number}[p,f])"]
        else:
            lines.append(f"R{number}[p] = {kind}[m](T{number}[p,m])")
        roots.append(f"R{number}[p]")
    last = draw(st.sampled_from(stages[-2:]))
    share = f"{last} / {draw(st.sampled_from(roots))}" if draw(st.booleans()) else last
    ending = draw(
        st.sampled_from(("O[p,f] = sum[m](({}) * V[m,f])", "O[p,m] = {}", "O[f] = sum[p,m](({}) * V[m,f])", "O[m] = max[p]({})"))
    )
    lines.append(ending.format(share))
    body = "\n".join(f"  {line}" for line in lines)
    head = "name: odd\nranks: {p: P, m: M, e: E, f: F}\n"
    inputs = "Q: [p, e], K: [m, e], V: [m, f], S: [p, m], B: [p, m], W: [m]"
    outputs = f"O, {roots[-1].split('[')[0]}"
    sizes = "sizes: {P: 3, M: 9, E: 2, F: 2}"
    return spec.loads(f"{head}inputs: {{{inputs}}}\ncascade: |\n{body}\noutputs: [{outputs}]\n{sizes}\n")
