"""Each example of the definition of passes, through the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from einsmith.cli.analyze import command

from .specs import EXAMPLES


def analyzed(path: Path, *options: str) -> dict[str, object]:
    result = CliRunner().invoke(command, [str(path), "--json", *options])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_passes_and_reads(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    path = tmp_path / "spec.yaml"
    path.write_text(example.text("example"))
    everything = analyzed(path)
    for rank, passes in example.passes.items():
        for one, count in passes.items():
            assert everything["passes"][one] == count  # type: ignore[index]
        alone = analyzed(path, "--rank", rank)
        assert alone["passes"] == passes
    for rank, reads in example.reads.items():
        assert everything["reads"][rank] == reads  # type: ignore[index]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_level_above_the_first_has_a_reason(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    path = tmp_path / "spec.yaml"
    path.write_text(example.text("example"))
    found = analyzed(path)
    outputs = {einsum["output"] for einsum in found["einsums"]}  # type: ignore[attr-defined]
    for rank, passes in found["passes"].items():  # type: ignore[attr-defined]
        growing = found["growth"].get(rank)  # type: ignore[attr-defined]
        reasons = [one for group in found["forced_by"].values() for one in group if one["rank"] == rank]  # type: ignore[attr-defined]
        if not growing:
            assert {one["level"] for one in reasons} >= set(range(2, passes + 1)), rank
        for one in reasons:
            assert {one["einsum"], one["needs"], one["origin"]} <= outputs
            assert one["because"]
            assert f"`{one['einsum']}` needs `{one['needs']}` complete" in one["text"]


def test_reasons_of_the_textbook_form(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["textbook-softmax"].text("example"))
    found = analyzed(path, "--rank", "m")
    assert [one["text"] for one in found["forced_by"]["m"]] == [  # type: ignore[index]
        "`SN` needs `GM` complete (max over m)",
        "`A` needs `SD` complete (sum over m)",
    ]
    assert found["carried"] == {"m": {"QK": [1, 2], "SN": [2, 3]}}
    levels = {einsum["output"]: einsum["level"] for einsum in found["einsums"]}  # type: ignore[attr-defined]
    assert levels == {"QK": {"m": 1}, "GM": {"m": 1}, "SN": {"m": 2}, "SD": {"m": 2}, "A": {"m": 3}, "AV": {"m": 3}}


def test_a_chain_of_reasons_names_where_completeness_came_from(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["completeness passes through"].text("example"))
    (reason,) = analyzed(path)["forced_by"]["m"]  # type: ignore[index]
    assert (reason["einsum"], reason["needs"], reason["origin"], reason["through"]) == ("Y", "T", "S", ["R"])


def test_passes_that_grow_with_a_loop_are_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["a loop that reduces in every step"].text("example"))
    found = analyzed(path, "--symbolic")
    assert found["passes"]["m"] == "T + 1"  # type: ignore[index]
    assert found["growth"] == {"m": {"per_step": {"m": 1}, "loops": ["t"]}}


def test_an_unknown_rank_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["cumsum"].text("example"))
    result = CliRunner().invoke(command, [str(path), "--json", "--rank", "n"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["diagnostics"][0]["code"] == "E330"


def test_the_program_itself(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(EXAMPLES["textbook-softmax"].text("example"))
    done = subprocess.run(
        [sys.executable, "-m", "einsmith", "analyze", str(path), "--json", "--buffer", "16M"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["passes"]["m"] == 3
    assert not done.stderr
