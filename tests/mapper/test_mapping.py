"""Mapping files: reading, writing, drawing, errors with positions."""

from __future__ import annotations

import pytest

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import mapping
from einsmith.mapper.mapping import Binding, Group, Loop, Mapping


def test_what_is_written_reads_back_equal() -> None:
    first = mapping.load("fusemax-binding")
    assert mapping.loads(first.as_yaml()) == first
    odd = Mapping(
        name="odd: name", sizes={"M0": 7},
        groups=(
            Group(
                loops=(Loop(rank="p", tile=3, hold=("Q", "K")), Loop(rank="p", tile=1)),
                einsums={"A": Binding(array="x", spatial=((), ("p",))), "B": Binding(array="y", spatial=(("b", "h"), ("p",)))},
                schedule="pipelined", buffering=1, stay={"A": "forward"},
            ),
            Group(einsums={"C": Binding(array="z")}, schedule="interleaved", in_flight=3),
        ),
    )  # fmt: skip
    assert mapping.loads(odd.as_yaml()) == odd


def test_the_drawing_reads_like_a_program() -> None:
    lines = str(mapping.load("fusemax-binding")).splitlines()
    assert lines[:5] == [
        "mapping fusemax-binding with M0 = 256",
        "group 1: interleaved, 12 tiles in flight",
        "  for b by 1:",
        "    for h by 1:",
        "      for p by 1024:    # the buffer holds Q",
    ]
    assert "            QK   on array2d over m0 x p  -> array2d" in lines


def test_all_errors_of_a_file_with_their_places() -> None:
    text = "groups:\n- loop: [{rank: p, tile: 0}]\n  einsums:\n    A: {aray: x}\n  schedule: inturn\n"
    with pytest.raises(EinsmithError) as raised:
        mapping.loads(text, "m.yaml")
    found = {(d.position, d.message.split(":")[0]) for d in raised.value.diagnostics}
    assert found == {
        ((2, 3), "unknown key `loop`"),
        ((4, 5), "`groups.0.einsums.A` lacks the key `array`"),
        ((4, 9), "unknown key `aray`"),
        ((5, 13), "`groups.0.schedule`"),
    }
    helps = {d.help for d in raised.value.diagnostics}
    assert {"did you mean `loops`?", "did you mean `array`?"} <= helps


@pytest.mark.parametrize(
    "text", ["", "groups: [", "groups: &a [*a]", "- 1", "groups: []", "a: 1\na: 2", "{: 1}", "groups: !!python/name:os.system x"]
)
def test_hostile_files_are_refused_with_a_diagnostic(text: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        mapping.loads(text)
    assert {d.code for d in raised.value.diagnostics} <= {"E501", "E502"}
