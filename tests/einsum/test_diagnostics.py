"""How a diagnostic looks: lines, carets, labels; long lines are cut around the caret."""

from __future__ import annotations

import itertools

from einsmith.einsum.diagnostics import MAX_SHOWN, Diagnostic, Label, closest, render
from einsmith.einsum.source import Source, Span


def at(source: Source, text: str) -> Span:
    start = source.text.index(text)
    return Span(source, start, start + len(text))


def test_a_whole_file() -> None:
    assert render(Diagnostic("E006", "the file is empty", file="x.yaml", help="write one")) == (
        "error[E006]: the file is empty\n  --> x.yaml\n  = help: write one"
    )


def test_one_place() -> None:
    source = Source("x.yaml", "one\ntwo three\n")
    assert render(Diagnostic("E101", "wrong", at(source, "three"), "here", help="mend it")) == (
        "error[E101]: wrong\n --> x.yaml:2:5\n  |\n2 | two three\n  |     ^^^^^ here\n  = help: mend it"
    )


def test_two_places_stand_in_order() -> None:
    source = Source("x.yaml", "\n" * 8 + "first\n\nsecond\n")
    text = render(Diagnostic("E203", "twice", at(source, "second"), others=(Label(at(source, "first"), "first here"),)))
    assert text == (
        "error[E203]: twice\n  --> x.yaml:11:1\n   |\n 9 | first\n   | ----- first here\n   ...\n11 | second\n   | ^^^^^^"
    )


def test_two_places_on_a_line() -> None:
    source = Source("x.yaml", "a b a\n")
    text = render(Diagnostic("E204", "twice", Span(source, 4, 5), others=(Label(Span(source, 0, 1), "first"),)))
    assert text.endswith("1 | a b a\n  |     ^\n  | - first")


def test_tabs_keep_the_caret_under_its_place() -> None:
    source = Source("x.yaml", "\ta\tb\n")
    assert render(Diagnostic("E101", "wrong", at(source, "b"))).endswith("1 | \ta\tb\n  | \t \t^")


def test_a_long_line_is_cut_around_the_caret() -> None:
    source = Source("x.yaml", "x" * 1000 + "HERE" + "y" * 1000)
    shown, caret = render(Diagnostic("E101", "wrong", at(source, "HERE"))).split("\n")[-2:]
    assert len(shown) < MAX_SHOWN + 20
    assert shown[caret.index("^") : caret.rindex("^") + 1] == "HERE"


def test_two_places_far_apart_on_a_long_line_are_both_shown() -> None:
    source = Source("x.yaml", "ONE" + "x" * 1000 + "TWO")
    lines = render(Diagnostic("E101", "wrong", at(source, "ONE"), others=(Label(at(source, "TWO"), "also"),))).split("\n")
    carets = [
        (above[line.index(line.strip("| ")[0]) :][:3]) for above, line in itertools.pairwise(lines[3:]) if set(line) & set("^-")
    ]
    assert carets == ["ONE", "TWO"]


def test_a_caret_at_the_end_of_the_text() -> None:
    source = Source("x.yaml", "ab")
    assert render(Diagnostic("E101", "ends too early", Span(source, 2, 3))).endswith("1 | ab\n  |   ^")


def test_the_closest_name() -> None:
    assert closest("SCORES", ["SCORE", "Q"]) == "SCORE"
    assert closest("q", ["Q"]) == "Q"
    assert closest("zebra", ["Q"]) is None
    assert closest("a" * 10_000, ["a" * 9_999]) is None


def test_nothing_in_a_text_acts_on_the_terminal() -> None:
    source = Source("x.yaml", "a\x1b[31m\x00\u202eb\n")
    text = render(Diagnostic("E002", "character \x1b in\nname", at(source, "b"), help="\u2028 no"))
    assert text.split("\n") == [
        "error[E002]: character \ufffd in name",
        " --> x.yaml:1:9",
        "  |",
        "1 | a\ufffd[31m\ufffd\ufffdb",
        "  |         ^",
        "  = help: \ufffd no",
    ]


def test_an_endless_name_is_cut() -> None:
    assert len(render(Diagnostic("E103", "undefined name `" + "x" * 100_000 + "`"))) < 700
