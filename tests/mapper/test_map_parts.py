"""`es.map` and `einsmith map`: parts of a mapping fixed, every objective, and results that read back to the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import einsmith as es
from einsmith.cli.main import main
from einsmith.mapper.codesign import CoDesigned
from einsmith.mapper.search import Searched

THREE = """name: three
ranks: {h: H, p: P, m: M, e: E, f: F}
inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f]}
cascade: |
  QK[h,p,m] = Q[h,p,e] * K[h,m,e]
  SM[h,p,m] = exp(QK[h,p,m])
  AV[h,p,f] = SM[h,p,m] * V[h,m,f]
outputs: [AV]
"""
SIZES = {"H": 2, "P": 96, "M": 64, "E": 16, "F": 8}
ARCH = "teaching-32x32"


@pytest.mark.parametrize("objective", ["latency", "energy", "edp", "traffic"])
def test_what_was_found_reads_back_to_the_same_numbers(objective: str, tmp_path: Path) -> None:
    """The mapping file gives `model` the numbers of the search, and `simulate` the same words and, queues apart, cycles."""
    cascade = es.loads(THREE)
    found = es.map(cascade, ARCH, SIZES, objective)  # type: ignore[arg-type]
    assert isinstance(found, Searched)
    file = tmp_path / "mapping.yaml"
    file.write_text(found.mapping.as_yaml(), encoding="utf-8")
    again = es.model(cascade, ARCH, file, SIZES)
    assert again.as_json() == found.cost.as_json()
    run = es.simulate(cascade, ARCH, file, SIZES)
    assert run.cost.as_json() == found.cost.as_json()
    for group, modelled in zip(run.groups, found.cost.groups, strict=True):
        for way, by in (("read", modelled.traffic_words["read"]), ("written", modelled.traffic_words["write"])):
            assert group.moved["dram", way] == sum(by.values())
    assert run.cycles >= found.cost.cycles
    assert run.cycles == pytest.approx(found.cost.cycles + found.cost.fill_cycles, rel=0.1)


def test_parts_of_a_mapping_file_are_kept(tmp_path: Path) -> None:
    """A file of one group alone: its group, its arrays, its tiles, each only where asked for."""
    file = tmp_path / "part.yaml"
    file.write_text(
        "groups:\n- loops: [{rank: p, tile: 24}]\n  einsums: {QK: {array: vector}, SM: {array: vector}}\n", encoding="utf-8"
    )
    cascade = es.loads(THREE)
    free = es.map(cascade, ARCH, SIZES)
    kept = es.map(cascade, ARCH, SIZES, like=file)
    tiled = es.map(cascade, ARCH, SIZES, like=file, keep=("groups", "tiles"))
    assert isinstance(free, Searched)
    assert isinstance(kept, Searched)
    assert isinstance(tiled, Searched)
    assert [list(group.einsums) for group in kept.mapping.groups] == [["QK", "SM"], ["AV"]]
    assert kept.cost.per_einsum["QK"].array == "vector"
    assert free.cost.per_einsum["QK"].array == tiled.cost.per_einsum["QK"].array == "grid"
    assert {loop.tile for group in tiled.mapping.groups for loop in group.loops if loop.rank == "p"} <= {24, 48, 96}
    assert any(loop.tile == 24 for group in tiled.mapping.groups for loop in group.loops if loop.rank == "p")
    assert free.cost.cycles <= min(kept.cost.cycles, tiled.cost.cycles)


def test_the_command_and_python_agree(tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text(THREE, encoding="utf-8")
    words = [
        "map",
        str(tmp_path / "three.yaml"),
        "--arch",
        ARCH,
        "--size",
        ",".join(f"{n}={s}" for n, s in SIZES.items()),
        "--json",
    ]
    cascade = es.loads(THREE)
    for options, arguments in (
        (["--objective", "traffic", "--bind", "QK=vector"], {"objective": "traffic", "bind": {"QK": "vector"}}),
        (["--group", "QK,SM", "--tile", "p=32"], {"groups": [["QK", "SM"]], "tile": {"p": 32}}),
        (["--objective", "pareto"], {"objective": "pareto"}),
        (["--objective", "area-delay"], {"objective": "area-delay"}),
        (
            ["--free", "buffer.size=[4096, 65536]", "--area-budget", "0.3"],
            {"free": {"buffer.size": [4096, 65536]}, "area_mm2": 0.3},
        ),
    ):
        done = CliRunner().invoke(main, [*words, *options])
        assert done.exit_code == 0, done.output
        printed = json.loads(done.stdout)
        found = es.map(cascade, ARCH, SIZES, **arguments)  # type: ignore[arg-type]
        mapping = found.best.found[0].mapping if isinstance(found, CoDesigned) else found.mapping
        assert printed["mapping"] == json.loads(json.dumps(mapping.as_plain()))
        assert printed["optimal"]
        if arguments.get("objective") == "pareto":
            assert len(printed["front"]) == len(found.front) > 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--keep", "loop", "--like", "fusemax-binding"], 2),
        (["--area-budget", "much"], 2),
        (["--area-budget", "-1"], 2),
        (["--free", "buffer.size=[1024]", "--explain-space"], 2),
        (["--free", "bufer.size=[1024]"], 1),
    ],
)
def test_wrong_words_are_refused(words: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text(THREE, encoding="utf-8")
    done = CliRunner().invoke(main, ["map", str(tmp_path / "three.yaml"), "--arch", ARCH, "--size", "H=1,P=8,M=8,E=8,F=8", *words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
