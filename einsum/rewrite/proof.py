"""The proof of a derivation for people: text, or LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .derive import Derivation


def as_text(derivation: Derivation) -> str:
    """Passes, each step as before, rule, condition, after; then what remains, the forms compared, and the derived spec."""
    lines = [f"{derivation.original.name}: {', '.join(f'passes over {rank}: {b} -> {a}' for rank, b, a in _passes(derivation))}"]
    lines.extend(f"`{rank}` became one with `{other}`" for rank, other in derivation.merged.items())
    for number, step in enumerate(derivation.steps, 1):
        lines.append("")
        lines.append(f"step {number}: {step.rewrite} ({step.target})")
        lines.extend(_block("before", step.before))
        lines.extend(_block("rule", step.rule))
        lines.extend(_block("because", step.condition))
        lines.extend(_block("after", step.after or "(gone)"))
    lines.append("")
    if derivation.blocked_by:
        lines.append("what the remaining passes wait for:")
        lines.extend(f"  - {blocked}" for blocked in derivation.blocked_by)
    elif not derivation.steps:
        lines.append("nothing to do: no rewrite is needed")
    if derivation.notes:
        lines.append("contractions that keep their order:")
        lines.extend(f"  - {note}" for note in derivation.notes)
    lines.extend(str(compared) for compared in derivation.compared if compared.others)
    if derivation.checked:
        lines.append("compared with the original in float64:")
        lines.extend(f"  {line}" for line in derivation.checked)
    if derivation.steps:
        lines.extend(["", "derived spec:", ""])
        lines.append(derivation.spec.rstrip("\n"))
    return "\n".join(lines)


def _passes(derivation: Derivation) -> list[tuple[str, int, int]]:
    """(rank, passes before, passes after) of the ranks that were asked for."""
    before, after = derivation.passes_before, derivation.passes_after
    return [(rank, before.get(rank, 0), after.get(rank, 0)) for rank in derivation.ranks]


def _block(title: str, content: str) -> list[str]:
    rows = content.split("\n") or [""]
    return [f"  {title if i == 0 else '':<8} {row}".rstrip() for i, row in enumerate(rows)]


_ESCAPES = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def as_latex(derivation: Derivation) -> str:
    """The proof as a LaTeX fragment: one `description` a step, formulas verbatim in the spec's notation."""
    passes = ", ".join(rf"\texttt{{{_escaped(rank)}}}: {before} to {after}" for rank, before, after in _passes(derivation))
    lines = [rf"\paragraph{{{_escaped(derivation.original.name)}}} Passes over {passes}."]
    if derivation.steps:
        lines.append(r"\begin{enumerate}")
        for step in derivation.steps:
            lines.append(rf"\item \textbf{{{_escaped(step.rewrite)}}} (\texttt{{{_escaped(step.target)}}})")
            lines.extend([r"\begin{verbatim}", step.before, r"\end{verbatim}"])
            lines.append(rf"Rule: {_quoted(step.rule)}. Condition: {_quoted(step.condition)}.")
            lines.extend([r"\begin{verbatim}", step.after or "(gone)", r"\end{verbatim}"])
        lines.append(r"\end{enumerate}")
    if derivation.blocked_by:
        lines.append(r"What the remaining passes wait for:")
        lines.append(r"\begin{itemize}")
        lines.extend(rf"\item {_quoted(str(blocked))}" for blocked in derivation.blocked_by)
        lines.append(r"\end{itemize}")
    for rank, other in derivation.merged.items():
        lines.append(rf"\texttt{{{_escaped(rank)}}} became one with \texttt{{{_escaped(other)}}}.")
    for compared in (each for each in derivation.compared if each.others):
        lines.append(rf"Forms over \texttt{{{_escaped(compared.rank)}}} compared, at {_escaped(compared.sizes)}:")
        lines.append(r"\begin{itemize}")
        lines.extend(rf"\item {_quoted(form)}" for form in compared.forms())
        lines.append(r"\end{itemize}")
    return "\n".join(lines)


def _escaped(content: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in content)


def _quoted(content: str) -> str:
    """Text with back-ticked parts as typewriter."""
    parts = content.split("`")
    return "".join(rf"\texttt{{{_escaped(part)}}}" if i % 2 else _escaped(part) for i, part in enumerate(parts))
