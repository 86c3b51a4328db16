"""What texts mean: statements, implicit sums, binding, kinds of tensors, dtypes; and where errors are."""

from __future__ import annotations

from pathlib import Path

import pytest

from einsmith.einsum.cascade import Access, Cascade, Coord, Map, Number, Reduce, Scalar, Scan, Select
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.spec import load, loads

HEAD = """ranks: {p: P, m: {extent: M, split: [m1, m0], tile: M0, count: M1}, e: E, j: J}
inputs:
  X: [p, m]
  Y: [p]
  S: []
  I: {ranks: [p, j], dtype: int}
  B: {ranks: [p], dtype: bool}
params: {w: 3, s: 1/sqrt(E)}
"""


def cascade(*lines: str, tail: str = "") -> Cascade:
    text = "".join(f"  {line}\n" for line in lines)
    return loads(f"{HEAD}{tail}cascade: |\n{text}outputs: [Z]\n")


def body(line: str) -> object:
    return cascade(line).einsums[-1].body


def errors(text: str) -> list[tuple[str, int | None, int | None]]:
    with pytest.raises(SpecError) as raised:
        loads(text)
    return [(each.code, *each.position) for each in raised.value.diagnostics]


X = Access("X", (Coord("p"), Coord("m")))
XY = Map("*", (X, Access("Y", (Coord("p"),))))


# sums that are implied


@pytest.mark.parametrize(
    "line, expected",
    [
        ("Z[p] = X[p,m]", Reduce("sum", ("m",), X)),
        ("Z[p] = -X[p,m]", Reduce("sum", ("m",), Map("neg", (X,)))),
        ("Z[p] = (X[p,m])", Reduce("sum", ("m",), X)),
        ("Z[p] = X[p,m] * Y[p]", Reduce("sum", ("m",), XY)),
        ("Z[p] = -(X[p,m] * Y[p])", Reduce("sum", ("m",), Map("neg", (XY,)))),
        ("Z[p] = X[p,m] / Y[p]", Reduce("sum", ("m",), Map("/", (X, Access("Y", (Coord("p"),)))))),
        ("Z = X[p,m] * Y[p]", Reduce("sum", ("p", "m"), XY)),
        ("Z[p,m] = X[p,m] * Y[p]", XY),
        ("Z[p] = (X[p,m] + 1) * 2", Reduce("sum", ("m",), Map("*", (Map("+", (X, Number(1))), Number(2))))),
        ("Z[p] = Y[I[p,j]]", Reduce("sum", ("j",), Access("Y", (Access("I", (Coord("p"), Coord("j"))),)))),
        ("Z[p] = X[p,m1*M0+m0]", None),
        ("Z[p,e] = Y[p]", Access("Y", (Coord("p"),))),
    ],
)
def test_a_product_or_an_access_is_summed(line: str, expected: object) -> None:
    found = body(line)
    if expected is None:
        assert isinstance(found, Reduce)
        assert (found.op, found.ranks) == ("sum", ("m1", "m0"))
    else:
        assert found == expected


@pytest.mark.parametrize(
    "right",
    [
        "X[p,m] + 1",
        "exp(X[p,m])",
        "X[p,m] // 2",
        "X[p,m] % 2",
        "X[p,m]**2",
        "X[p,m] < 1",
        "-(X[p,m] + 1)",
        "m",
        "cumsum[m](X[p,m])",
    ],
)
def test_anything_else_is_not_summed(right: str) -> None:
    assert [code for code, *_ in errors(f"{HEAD}cascade: Z[p] = {right}\noutputs: [Z]\n")] == ["E206"]


# reductions, scans, selections


def test_ranks_of_a_reduction_are_in_the_order_of_declaration() -> None:
    assert body("Z = max[m,p](X[p,m])") == Reduce("max", ("p", "m"), X)


def test_binding_is_lexical() -> None:
    inner = Reduce("max", ("m",), X)
    assert body("Z[p] = sum[m](exp(X[p,m] - max[m](X[p,m])))") == Reduce("sum", ("m",), Map("exp", (Map("-", (X, inner)),)))
    assert body("Z[p,m] = X[p,m] / max[m](X[p,m])") == Map("/", (X, inner))


def test_a_scan_keeps_its_rank() -> None:
    assert body("Z[p,m] = cumsum[m](X[p,m])") == Scan("cumsum", "m", X)


def test_a_selection_fills_the_rank_that_does_not_stand_in_it() -> None:
    assert body("Z[j,p] = argtopk[m](X[p,m])") == Select("argtopk", "m", "j", X)


# expressions


@pytest.mark.parametrize(
    "text, same",
    [
        ("1 + 2 * 3", "1 + (2 * 3)"),
        ("2**3**2", "2**(3**2)"),
        ("-2**2", "-(2**2)"),
        ("2**-1 * 3", "(2**(-1)) * 3"),
        ("1 - 2 - 3", "(1 - 2) - 3"),
        ("6 / 3 * 2", "(6 / 3) * 2"),
        ("not 1 < 2 and 3 < 4 or 5 < 6", "((not (1 < 2)) and (3 < 4)) or (5 < 6)"),
        ("1 < 2 < 3", "1 < 2 and 2 < 3"),
        ("1 < 2 <= p != 4", "(1 < 2 and 2 <= p) and p != 4"),
        ("min(1, 2, p)", "min(min(1, 2), p)"),
        ("max(\n    1, # one\n    2)", "max(1, 2)"),
        ("where(p > 0, 1, 2,)", "where(p > 0, 1, 2)"),
        ("S[]", "S"),
        ("- -p", "-(-p)"),
        ("1.5e2 + .5 + 3.", "((150.0 + 0.5) + 3.0)"),
    ],
)
def test_precedence_is_pythons(text: str, same: str) -> None:
    assert body(f"Z[p] = where(B[p], {text}, 0)") == body(f"Z[p] = where(B[p], {same}, 0)")


def test_numbers_keep_their_type() -> None:
    found = [body(f"Z[p] = {text}") for text in ("2", "2.0", "1e3", "inf")]
    assert [(type(each.value), each.value) for each in found] == [(int, 2), (float, 2.0), (float, 1000.0), (float, float("inf"))]


def test_names_are_what_they_were_declared_as() -> None:
    assert body("Z[p] = p + w + M1 + S") == Map(
        "+", (Map("+", (Map("+", (Coord("p"), Scalar("w"))), Scalar("M1"))), Access("S", ()))
    )


# kinds of tensors, dtypes


def test_a_state() -> None:
    tensor = cascade("R[p,0] = 0", "R[p,m1+1] = R[p,m1] + 1", "Z[p] = R[p,M1]").tensor("R")
    assert (tensor.kind, tensor.ranks, tensor.iterates) == ("state", ("p", "m1"), "m1")


def test_a_scatter() -> None:
    tensor = cascade("Z[I[p,j],e] = max[p,j](Y[p] * e)", tail="tensors: {Z: [m, e]}\n").tensor("Z")
    assert (tensor.kind, tensor.ranks) == ("scatter", ("m", "e"))


def test_a_declared_tensor_that_is_written_plainly_is_no_scatter() -> None:
    assert cascade("Z[p] = Y[p]", tail="tensors: {Z: [p]}\n").tensor("Z").kind == "einsum"


def test_tensors_stand_in_order() -> None:
    found = cascade("C[p] = Y[p]", "R[p,m1+1] = R[p,m1] + C[p]", "R[p,0] = 0", "Z[p] = R[p,M1]")
    assert [tensor.name for tensor in found.tensors] == ["X", "Y", "S", "I", "B", "C", "R", "Z"]


@pytest.mark.parametrize(
    "right, dtype",
    [
        ("p", "int"),
        ("P // 2 + p % 3", "int"),
        ("p / 2", "float"),
        ("w", "int"),
        ("s", "float"),
        ("I[p,0] + 1", "int"),
        ("Y[p]", "float"),
        ("B[p]", "bool"),
        ("B[p] + B[p]", "int"),
        ("p < 2", "bool"),
        ("not p", "bool"),
        ("where(B[p], 1, 2)", "int"),
        ("where(B[p], 1, 2.0)", "float"),
        ("argmax[m](X[p,m])", "int"),
        ("any[m](X[p,m] > 0)", "bool"),
        ("sum[j](I[p,j])", "int"),
        ("mean[j](I[p,j])", "float"),
        ("sum[j](I[p,j] > 0)", "int"),
        ("round(Y[p])", "float"),
        ("inf", "float"),
        ("2**p", "int"),
        ("exp(p)", "float"),
        ("abs(-p)", "int"),
    ],
)
def test_dtypes_follow(right: str, dtype: str) -> None:
    assert cascade(f"Z[p] = {right}").tensor("Z").dtype == dtype


def test_dtypes_follow_through_states() -> None:
    found = cascade("R[0] = 0", "T[m1] = R[m1] * 2", "R[m1+1] = T[m1] + s", "Z = R[M1]")
    assert [found.tensor(name).dtype for name in "RTZ"] == ["float", "float", "float"]


@pytest.mark.parametrize(
    "index", ["floor(Y[p])", "clamp(round(Y[p] * 2), 0, P - 1)", "C[p]", "where(B[p], 0, 1)", "p > 1", "max[j](I[p,j])", "w"]
)
def test_whole_numbers_may_be_indices(index: str) -> None:
    assert cascade("C[p] = floor(Y[p] / 2)", f"Z[p] = Y[{index}]").outputs == ("Z",)


# where things are


@pytest.mark.parametrize(
    "cascade_text, line, column",
    [
        ("cascade: |\n  Z[p] = Q[p]\n", 10, 10),
        ("cascade: |  # Einsums\n\n      # first\n      Z[p] = Q[p]\n", 12, 14),
        ("cascade: |2-\n    Z[p] = Q[p]\n", 10, 12),
        ("cascade: Z[p] = Q[p]\n", 9, 17),
        ('cascade: "Z[p] = Q[p]"\n', 9, 18),
        ("cascade: 'Z[p] = Q[p]'  # one\n", 9, 18),
        ("cascade: |\n  Z[p] = (1 +  # a sum (\n     Q[p])\n", 11, 6),
        ('"cascade": |\n  A[p] = 1 # é 😀\n  Z[p] = Q[p]\n', 11, 10),
    ],
)
def test_places_are_those_of_the_file(cascade_text: str, line: int, column: int) -> None:
    assert errors(f"{HEAD}{cascade_text}outputs: [Z]\n") == [("E103", line, column)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_places_do_not_depend_on_line_ends(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes((mark + f"{HEAD}cascade: |\n  Z[p] = Q[p]\noutputs: [Z]\n".replace("\n", end)).encode())
    with pytest.raises(SpecError) as raised:
        load(path)
    assert [each.position for each in raised.value.diagnostics] == [(10, 10)]


def test_places_after_characters_beyond_16_bits() -> None:
    assert errors("doc: 😀é\ninputs: {}\n# 😀\ncascade: '' # 😀\noutputs: [Z]\n") == [("E009", 4, 10)]
    assert errors('doc: "😀"\nranks: {p: P, q: "😀"}\ncascade: Z = 1\noutputs: [Z]\n') == [("E102", 2, 19)]


def test_all_errors_are_found_at_once() -> None:
    text = f"{HEAD}cascade: |\n  A[p] = Q[p]\n  B[p] = (1\n  C[p] = X[p]\n  Z[p] = A[p] + B[p] + C[p] + D[p]\noutputs: [Z, Q2]\n"
    assert [(code, line) for code, line, _ in errors(text)] == [
        ("E103", 10),
        ("E104", 11),
        ("E201", 12),
        ("E103", 13),
        ("E103", 14),
    ]


def test_one_cause_is_reported_once() -> None:
    text = f"{HEAD}cascade: |\n  A[p] = Q[p] +\n  C[p] = A[p,m] * A\n  Z[p] = C[p] + A[p]\noutputs: [Z]\n"
    assert [code for code, *_ in errors(text)] == ["E101"]


def test_a_default_name_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "my-attention.yaml"
    path.write_text("cascade: Z = 1\noutputs: [Z]\n", encoding="utf-8")
    assert load(path).name == "my-attention"


def test_values_are_texts() -> None:
    found = loads("name: no\ndoc: 1e3\nranks: {y: null0, on: ON}\ncascade: Z[y] = 1\noutputs: [Z]\n")
    assert (found.name, found.doc, found.symbols) == ("no", "1e3", ("null0", "ON"))
