"""Pictures: a timeline has every group, and one of a long run costs no more than one of a short run."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from einsmith.cli import show
from einsmith.cli.main import main
from einsmith.sim.simulate import Simulated, simulate

SVG = "{http://www.w3.org/2000/svg}"
UNFUSED = ["show", "softmax", "--arch", "fusemax", "--mapping", "published-unfused"]


def test_a_timeline_has_all_groups_one_below_the_other(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*UNFUSED, "--size", "B=1,H=1,P=512,M=512,E=64,F=64", "-o", str(tmp_path / "t.svg")])
    assert done.exit_code == 0, done.output
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    groups = root.findall(f"{SVG}svg")
    assert len(groups) == 3
    bottom = 0
    for number, group in enumerate(groups, 1):
        assert f"of group {number}" in (group.findtext(f"{SVG}title") or "")
        assert int(group.attrib["y"]) == bottom
        bottom += int(group.attrib["height"])
    assert root.attrib["viewBox"].split()[3] == str(bottom)


def test_a_timeline_of_a_long_run_costs_no_more_than_one_of_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Simulated] = []

    def kept(*arguments: object, **options: object) -> Simulated:
        runs.append(simulate(*arguments, **options))  # type: ignore[arg-type]
        return runs[-1]

    monkeypatch.setattr("einsmith.sim.simulate.simulate", kept)
    for sizes in ("B=1,H=1,P=2K,M=2K,E=64,F=64,M0=256", "B=64,H=16,P=1M,M=1M,E=64,F=64,M0=256"):
        command = ["show", "fusemax", "--arch", "fusemax", "--mapping", "fit-one-pass", "--size", sizes]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        rows = [line.split()[1] for line in done.output.splitlines() if line.startswith(("array2d", "array1d"))]
        assert all(len(set(row) - {"\u00b7"}) >= 2 for row in rows), done.output  # what is shown has work of both arrays
    short, long = runs
    assert short.whole != long.whole
    assert long.events < 100_000
    assert max(len(group.window.tasks) for group in long.groups) < 3 * show.FEW
    assert long.cycles == pytest.approx(long.cost.cycles, rel=0.1)
