"""The Python interface: the names that `import einsmith` gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import einsmith as es

ATTENTION = Path(__file__).parents[1] / "examples" / "attention"
SIZES = {"B": 1, "H": 1, "P": 256, "M": 256, "E": 64, "F": 64}


def test_every_name_is_there() -> None:
    assert all(callable(getattr(es, name)) for name in es.__all__)


def test_one_exception_for_all_refusals() -> None:
    with pytest.raises(es.EinsmithError) as raised:
        es.load("no-such-file.yaml")
    assert raised.value.diagnostics[0].code == "E001"
    with pytest.raises(es.EinsmithError):
        es.derive(es.load(ATTENTION / "softmax.yaml"), rank="zz")


def test_from_the_textbook_to_numbers() -> None:
    textbook = es.load(ATTENTION / "softmax.yaml")
    found = es.derive(textbook, rank="m")
    assert (textbook.passes("m"), found.cascade.passes("m")) == (3, 1)
    ones = np.ones((1, 1, 4, 2))
    assert es.evaluate(textbook, {"Q": ones, "K": ones, "V": ones})["AV"].tolist() == ones.tolist()


def test_parameters_reach_every_stage() -> None:
    fusemax, flash = es.load(ATTENTION / "fusemax.yaml"), es.load(ATTENTION / "flash2.yaml")
    sizes = {**SIZES, "P": 1024, "M": 1024}
    assert es.model(fusemax, "fusemax", "fusemax-binding", sizes, params={"scale": 1}).as_json()["cycles"] > 0
    assert es.simulate(fusemax, "fusemax", "fusemax-binding", sizes, params={"scale": 1}).as_json()["cycles"] > 0
    assert es.plan(flash, "h200", SIZES, params={"scale": 1}).as_json()["plan"]
    for use in (es.map, es.plan):
        with pytest.raises(es.EinsmithError):
            use(flash, "fusemax" if use is es.map else "h200", SIZES, params={"no-such": 1})


POINTS = {
    "name": "api",
    "points": {
        "spec": "softmax", "arch": "fusemax", "mapping": "rows-three-passes", "size.B,size.H": 1, "size.E,size.F": 64,
        "size.P,size.M": [256, 512, "4M"],
    },
}  # fmt: skip


def test_a_sweep_from_plain_data_or_a_file(tmp_path: Path) -> None:
    import yaml

    seen: list[int] = []
    found = es.sweep(POINTS, tmp_path / "a", workers=1, progress=lambda state: seen.append(state.done))
    assert (found.points, found.failed, seen[-1]) == (3, 1, 3)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(POINTS, sort_keys=False))
    same = es.sweep(tmp_path / "sweep.yaml", tmp_path / "b", workers=1)
    assert same.results.read_bytes() == found.results.read_bytes()
    found.to_csv(tmp_path / "t.csv")
    found.to_parquet(tmp_path / "more" / "t.parquet")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 4
    assert (tmp_path / "more" / "t.parquet").read_bytes() == found.results.read_bytes()
    assert found.table().num_rows == 3
    with pytest.raises(es.EinsmithError, match="plain data"):
        es.sweep({"name": "x", "points": {"spec": object()}}, tmp_path / "c")


def test_a_script_without_a_guard_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    script = f"""
import einsmith as es
from einsmith.mapper.sweep import shards
print("started", flush=True)
shards.SHARD = 1
print(es.sweep({POINTS!r}, {str(tmp_path / "out")!r}, workers=2).failed)
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "started\n1\n"), done.stderr


def test_results_display_themselves_in_notebooks() -> None:
    cascade = es.load(ATTENTION / "softmax.yaml")
    results = [
        es.analyze(cascade), es.derive(cascade, rank="m"), es.equal(cascade, cascade),
        es.model(cascade, "fusemax", "rows-three-passes", SIZES), es.plan(es.derive(cascade, rank="m").cascade, "h200", SIZES),
    ]  # fmt: skip
    for result in results:
        html = result._repr_html_()
        assert html.startswith("<pre>")
        assert str(result).splitlines()[0].replace(">", "&gt;") in html
