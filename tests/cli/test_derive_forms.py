"""The command `derive --form`: JSON, the written spec, refusals."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from einsmith.cli.derive import command
from einsmith.einsum import spec
from einsmith.einsum.analysis.passes import levels


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_split_form(tmp_path: Path) -> None:
    out = tmp_path / "split.yaml"
    done = run("softmax", "--rank", "m", "--form", "split", "--parts", "3", "--json", "-o", str(out))
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert (answer["passes_before"], answer["passes_after"]) == ({"m": 3}, {"m": 1, "ms": 1, "m1": 1, "s": 2})
    assert answer["steps"][-1]["rewrite"] == "split-form"
    written = spec.load(out)
    assert written == spec.loads(answer["spec"])
    assert dict(written.sizes)["S"] == 3
    assert {rank: levels(written, rank).passes[rank] for rank in ("ms", "s")} == {"ms": 1, "s": 2}


def test_no_scan_form_is_a_diagnostic() -> None:
    done = run("softmax-causal", "--rank", "m", "--form", "scan", "--json")
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    (diagnostic,) = answer["diagnostics"]
    assert diagnostic["code"] == "E404"
    assert "`p`" in diagnostic["help"]


def test_an_unknown_rank_and_an_unknown_form() -> None:
    assert json.loads(run("softmax", "--rank", "k", "--form", "split", "--json").stdout)["diagnostics"][0]["code"] == "E401"
    assert run("softmax", "--rank", "m", "--form", "tree").exit_code == 2
    assert run("softmax", "--rank", "m", "--parts", "3").exit_code == 2
