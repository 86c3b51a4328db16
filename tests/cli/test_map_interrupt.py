"""`einsmith map` while it runs: Ctrl-C keeps the best so far with its proven gap, and a terminal shows how it goes."""

from __future__ import annotations

import io
import json
import signal
from typing import Any

import pytest
from click.testing import CliRunner

from einsmith.cli import map as cli
from einsmith.mapper import search

ARGS = ("softmax", "--arch", "fusemax", "--size", "B=2,H=4,P=1K,M=1K,E=64,F=64", "--objective", "energy")


class Terminal(io.StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        return True


def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C as soon as a search asks whether to stop."""
    plain = search.search

    def pressed(*args: Any, stop: Any, **others: Any) -> search.Searched:
        def asked() -> bool:
            if not stop():
                signal.raise_signal(signal.SIGINT)
            return bool(stop())

        return plain(*args, stop=asked, **others)

    monkeypatch.setattr(search, "search", pressed)


def test_ctrl_c_returns_the_best_so_far_with_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    best = search.search(*_problem(), objective="energy")
    interrupted(monkeypatch)
    result = CliRunner().invoke(cli.command, [*ARGS, "--json"])
    assert result.exit_code == 0
    assert result.stderr == ""  # no terminal, nothing on the way
    found = json.loads(result.stdout)
    assert not found["optimal"]
    assert found["mapping"]["groups"]
    assert found["energy_pj"] > best.cost.energy_pj >= found["energy_pj"] * (1 - found["gap"]) > 0
    assert signal.getsignal(signal.SIGINT) is before
    result = CliRunner().invoke(cli.command, ARGS)
    assert f"nothing is better by more than {found['gap']:.2%}" in result.stdout


def test_a_terminal_shows_the_best_so_far_and_how_far_it_may_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # libraries that other tests import put theirs there
    with cli._watched("energy", "mappings; group at hand") as (watch, stop):
        assert watch is not None
        watch(1200, float("inf"), 1.0)
        watch(1234, 2.0, 1.5)
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):  # the second one ends the command
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert "1,234 mappings; group at hand: 2, 25.0% above the least bound" in terminal.getvalue()


def _problem() -> tuple[Any, ...]:
    from einsmith.einsum.library import locate
    from einsmith.einsum.spec import load
    from einsmith.mapper import architecture

    sizes = {"B": 2, "H": 4, "P": 1024, "M": 1024, "E": 64, "F": 64}
    return load(locate("attention", "softmax")), architecture.load("fusemax"), sizes
