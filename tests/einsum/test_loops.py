"""Which cycles of definitions a loop can run, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einsmith.einsum.cascade import Access
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.loops import Edge, _components
from einsmith.einsum.spec import loads

HEAD = "ranks: {t: T, u: T, c: C, p: P}\ninputs:\n  X: [t, p]\n  W: [t, c]\n"


def problems(*lines: str) -> list[tuple[str, str]]:
    text = HEAD + "cascade: |\n" + "".join(f"  {line}\n" for line in lines) + f"outputs: [{lines[-1][0]}]\n"
    try:
        loads(text)
    except SpecError as error:
        return [(d.code, d.span.source.text[d.span.start : d.span.end] if d.span else "") for d in error.diagnostics]
    return []


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(("S[0,p] = 0", "S[t+1,p] = S[t,p] + X[t,p]", "Y[p] = S[T,p]"), id="running sum"),
        pytest.param(("S[t+1,p] = S[t,p] + X[t,p]", "S[0,p] = 0", "Y[p] = S[T,p]"), id="step before initial value"),
        pytest.param(
            ("A[0] = 1", "B[0] = 0", "A[t+1] = A[t] + B[t]", "B[t+1] = A[t]", "Y = A[T]"), id="two states that need one another"
        ),
        pytest.param(
            ("A[t+1] = A[t] + B[t]", "B[t+1] = A[t+1]", "B[0] = 0", "A[0] = 1", "Y = A[T]"), id="the next position of another"
        ),
        pytest.param(("S[0] = 0", "D[t] = S[t] * 2", "E[t] = D[t] + X[t,0]", "S[t+1] = E[t]", "Y = S[T]"), id="a path of Einsums"),
        pytest.param(
            ("S[0] = 0", "D[t] = S[t] * 2", "E[t] = where(t > 0, D[t-1], 0)", "S[t+1] = E[t]", "Y = S[T]"), id="an earlier step"
        ),
        pytest.param(
            ("S[0] = 0", "A[t,0] = S[t]", "A[t,c+1] = A[t,c] + W[t,c]", "S[t+1] = A[t,C]", "Y = S[T]"), id="a loop inside a loop"
        ),
        pytest.param(("S[0] = 0", "S[t+1] = S[t] + 1", "Y = max[t](S[t])"), id="all positions, after the loop"),
        pytest.param(("S[0] = 0", "S[t+1] = S[t] + 1", "Y[t] = S[t+1] - S[t]"), id="differences, after the loop"),
    ],
)
def test_possible(lines: tuple[str, ...]) -> None:
    assert problems(*lines) == []


@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param(("S[0] = 0", "S[t+1] = S[t+1] * 2", "Y = S[T]"), [("E214", "S[t+1]")], id="its own next position"),
        pytest.param(("S[0] = 0", "S[t+1] = S[t] + Z[t]", "Z[t] = S[t+1]", "Y = S[T]"), [("E214", "Z[t]")], id="through another"),
        pytest.param(("S[0] = 0", "S[t+1] = S[t] + S[T]", "Y = S[T]"), [("E214", "S[T]")], id="its own last position"),
        pytest.param(("S[0] = 0", "Z = max[t](S[t])", "S[t+1] = S[t] + Z", "Y = S[T]"), [("E214", "S[t]")], id="its own maximum"),
        pytest.param(
            ("S[0] = 0", "D[t] = S[t]", "Z[t] = max[u](D[u])", "S[t+1] = Z[t]", "Y = S[T]"), [("E214", "D[u]")], id="other steps"
        ),
        pytest.param(
            ("S[0] = 0", "D[t] = S[t]", "Z[t] = where(t + 1 < T, D[t+1], 0)", "S[t+1] = Z[t]", "Y = S[T]"),
            [("E214", "D[t+1]")],
            id="a later step",
        ),
        pytest.param(("Z[p] = Z[p] + 1", "Y[p] = Z[p]"), [("E214", "Z[p]")], id="a tensor by itself"),
        pytest.param(("A[p] = B[p]", "B[p] = A[p]", "Y[p] = A[p]"), [("E214", "B[p]")], id="two tensors by one another"),
        pytest.param(("Y[p] = Z[p]", "Z[p] = X[0,p]"), [("E202", "Z[p]")], id="order alone"),
        pytest.param(
            ("S[0] = 0", "Y = S[T]", "S[t+1] = S[t] + 1", "Z = 1"), [("E202", "S[T]")], id="the last position before the step"
        ),
        pytest.param(
            ("S[0] = 0", "Y[t] = S[t+1]", "S[t+1] = S[t] + 1", "Z = 1"),
            [("E202", "S[t+1]")],
            id="the next position before the step",
        ),
    ],
)
def test_impossible(lines: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    assert problems(*lines) == expected


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=20))
    )
)
def test_components_are_strongly_connected(graph: tuple[int, list[tuple[int, int]]]) -> None:
    import networkx

    count, pairs = graph
    edges = [Edge(reader, writer, Access("X", ()), frozenset(), None) for reader, writer in pairs]
    reference = networkx.DiGraph(pairs)
    reference.add_nodes_from(range(count))
    assert set(_components(tuple(range(count)), edges)) == {frozenset(c) for c in networkx.strongly_connected_components(reference)}
