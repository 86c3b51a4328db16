"""Deadlock and overflow: a run that cannot go on says who waits for what, and which tensors take the room; it never hangs."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.mapper import architecture, mapping, residency
from einsmith.sim import events, recurrence
from einsmith.sim.faults import Deadlock, Overflow
from einsmith.sim.simulate import simulate
from einsmith.sim.task import Task
from einsmith.sim.tasks import Tasks

from .test_simulate import GEMM, TILED

SIZES = {"M": 64, "N": 64, "K": 16}


@pytest.mark.parametrize("way", [events.run, recurrence.run])
def test_tasks_that_wait_for_one_another_are_named(way) -> None:  # type: ignore[no-untyped-def]
    load = Task(0, "A", "load", "dram", 4.0, 0.0, (0,))
    first = Task(1, "X", "compute", "grid", 8.0, 2.0, (0,), waits=[(0, "data"), (2, "predecessor")])
    second = Task(2, "Y", "compute", "grid", 8.0, 2.0, (1,), waits=[(1, "space")])
    with pytest.raises(Deadlock) as raised:
        way([load, first, second], {"grid": 0, "dram": 1})
    text = str(raised.value)
    assert "2 of 3 tasks never ran" in text
    assert "`X` of tile (0,) waits for `Y` of tile (1,) (predecessor)" in text
    assert "`Y` of tile (1,) waits for `X` of tile (0,) (space)" in text
    assert "load A" not in text  # it ran


def test_a_level_that_overflows_is_named_with_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of capacity before the run is put out of order; the run finds it all the same."""
    arch = architecture.load("teaching-32x32", ("buffer.size=4000",))
    monkeypatch.setattr(residency, "_check_level", lambda *_: None)
    with pytest.raises(Overflow) as raised:
        simulate(spec.loads(GEMM), arch, mapping.loads(TILED % 2), SIZES)
    text = str(raised.value)
    assert "`buffer` has room for 2,000 words and would have to hold 2,048" in text
    assert "`B` 1,024" in text


def test_a_deadlock_is_reported_as_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    made = Tasks._compute

    def circular(self: Tasks, *arguments: object) -> Task:
        task = made(self, *arguments)  # type: ignore[arg-type]
        if task.number > 4:
            self.made[task.number - 1].waits.append((task.number, "predecessor"))
            task.waits.append((task.number - 1, "order"))
        return task

    monkeypatch.setattr(Tasks, "_compute", circular)
    (tmp_path / "gemm.yaml").write_text(GEMM)
    (tmp_path / "tiled.yaml").write_text(TILED % 2)
    result = CliRunner().invoke(
        main,
        [
            "simulate",
            f"{tmp_path}/gemm.yaml",
            "--arch",
            "teaching-32x32",
            "--mapping",
            f"{tmp_path}/tiled.yaml",
            "--size",
            "M=64,N=64,K=16",
        ],
    )
    assert result.exit_code == 1
    assert "error[E900]" in result.stderr
    assert "Deadlock" in result.stderr
    assert "waits for `C` of tile" in result.stderr
