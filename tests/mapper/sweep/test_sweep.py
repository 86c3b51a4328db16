"""Sweeps: the points of a file, their costs, and that nothing is lost whatever happens to a run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import locate
from einsmith.einsum.spec import load as load_spec
from einsmith.mapper import architecture, cost
from einsmith.mapper import mapping as mappings
from einsmith.mapper.sweep import file, run, shards, store, workers
from einsmith.mapper.sweep.pareto import front
from einsmith.mapper.sweep.point import Points
from einsmith.mapper.sweep.space import Space, single

SMALL = """name: small
objectives: [latency_s, energy_pj]
points:
  product:
  - {spec: softmax, mapping: rows-three-passes, arch: fusemax, size.B: 1, size.H: 2, "size.E,size.F": 64}
  - "size.P,size.M": [512, 1K]
  - arch.array2d.side: [64, 128, 256]
  - arch.buffer.size: [64 KiB, 4 MiB, 16 MiB]
"""


def sweep_of(folder: Path, text: str) -> file.Sweep:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return file.load(path)


def code_of(folder: Path, text: str) -> tuple[str, str]:
    with pytest.raises(EinsmithError) as raised:
        run.sweep(sweep_of(folder, text), folder / "out", workers.Local(1))
    return raised.value.diagnostics[0].code, str(raised.value)


def test_every_point_costs_what_the_model_says(tmp_path: Path) -> None:
    done = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    table = pq.read_table(done.results)
    assert done.points == table.num_rows == 18
    cascade, seen = load_spec(locate("attention", "softmax")), 0
    for row in table.to_pylist():
        side, size = int(row["in arch.array2d.side"]), int(row["in arch.buffer.size"])
        arch = architecture.load("fusemax", (f"array2d.side=[{side},{side}]", f"buffer.size={size}"))
        sizes = {name: int(row[f"in size.{name}"]) for name in ("B", "H", "E", "F", "P", "M")}
        mapping = mappings.load("rows-three-passes")
        if row["status"] == "failed":
            with pytest.raises(EinsmithError) as raised:
                cost.model(cascade, arch, mapping, sizes)
            assert row["code"] == raised.value.diagnostics[0].code
            assert np.isnan(row["latency_s"])
            continue
        expected = cost.model(cascade, arch, mapping, sizes)
        seen += 1
        assert row["latency_s"] == pytest.approx(expected.latency_s, rel=1e-12)
        assert row["energy_pj"] == pytest.approx(expected.energy_pj, rel=1e-12)
        assert row["area_um2"] == pytest.approx(expected.area_um2, rel=1e-12)
    assert 0 < seen < 18
    assert done.failed == 18 - seen
    (reason,) = done.reasons  # the numbers of points differ, the reason does not
    assert (reason.code, reason.points) == ("E520", done.failed)
    assert f"{done.failed} failed with E520: group 1 needs" in str(done)


FITTING = """name: fitting
points:
  product:
  - {arch: fusemax, size.B: 1, size.H: 2, "size.E,size.F": 64}
  - list:
    - product: [{spec: deferred-division, mapping: fit-two-passes}, {"arch.array2d.side,arch.array1d.side": [48, 256]}]
    - product: [{spec: fusemax, mapping: fit-one-pass}, {"arch.array2d.side,arch.array1d.side,size.M0": [48, 256]}]
  - "size.P,size.M": [512, 16K, 1M]
  - arch.buffer.size: [1 MiB, 16 MiB]
"""


def test_mappings_that_suit_sizes_sides_and_buffer(tmp_path: Path) -> None:
    done = run.sweep(sweep_of(tmp_path, FITTING), tmp_path / "out", workers.Local(1))
    assert (done.points, done.failed) == (24, 0)
    groups = set()
    for row in pq.read_table(done.results).to_pylist():
        side, size = int(row["in arch.array2d.side"]), int(row["in arch.buffer.size"])
        settings = (f"array2d.side=[{side},{side}]", f"array1d.side=[{side}]", f"buffer.size={size}")
        arch, cascade = architecture.load("fusemax", settings), load_spec(locate("attention", row["in spec"]))
        sizes = {name[8:]: int(value) for name, value in row.items() if name.startswith("in size.") and value is not None}
        mapping = mappings.load_for(row["in mapping"], cascade, sizes, None, arch)
        groups.add(len(mapping.groups))
        expected = cost.model(cascade, arch, mapping, sizes)
        assert row["latency_s"] == pytest.approx(expected.latency_s, rel=1e-12)
        assert row["traffic_bytes"] == pytest.approx(expected.traffic_bytes, rel=1e-12)
        assert expected.groups[0].buffer_need <= size
    assert groups == {1, 2}  # on chip, and through the backing store


def test_ways_to_write_the_numbers_of_an_architecture(tmp_path: Path) -> None:
    """One number for all sides, a list, one side alone; bytes with units; block names; numbers that YAML takes for texts."""
    text = SMALL.replace("[64 KiB, 4 MiB, 16 MiB]", "[4194304.0, 8 MiB]").replace("arch.buffer.size", "arch.memory.buffer.size")
    text += "  - arch.clock_hz: [1e9]\n"
    points = {"arch.array2d.side: [64, [64, 128], [128, 64]]": 3, "arch.array2d.side.0: [64, 128]": 2}
    cascade = load_spec(locate("attention", "softmax"))
    for sides, count in points.items():
        done = run.sweep(
            sweep_of(tmp_path, text.replace("arch.array2d.side: [64, 128, 256]", sides)), tmp_path / "out", workers.Local(1)
        )
        rows = done.table().to_pylist()
        assert (len(rows), done.failed) == (2 * 2 * count, 0)
        for row in rows:
            assert row["in arch.buffer.size"] in (4 * 2**20, 8 * 2**20)
            assert row["in arch.clock_hz"] == 1e9
            shape = {"64": "[64,64]", "128": "[128,64]"}
            given = row.get("in arch.array2d.side") or {64: "[64,256]", 128: "[128,256]"}[int(row["in arch.array2d.side.0"])]
            settings = f"array2d.side={shape.get(given, given)}", f"buffer.size={int(row['in arch.buffer.size'])}", "clock_hz=1e9"
            sizes = {name[8:]: int(value) for name, value in row.items() if name.startswith("in size.")}
            expected = cost.model(cascade, architecture.load("fusemax", settings), mappings.load("rows-three-passes"), sizes)
            assert row["latency_s"] == pytest.approx(expected.latency_s, rel=1e-12)
            one = Points(done.folder).at(row)
            assert one.arch is not None
            assert one.arch.arrays["array2d"].side == expected.arch.arrays["array2d"].side


def test_points_that_take_long_are_handed_out_one_by_one(tmp_path: Path) -> None:
    text = SMALL.replace("mapping: rows-three-passes", "mapping: search")
    plan = sweep_of(tmp_path, text)
    assert [len(job.points) for job in shards.jobs(plan, plan.first())] == [1] * 18
    many = sweep_of(tmp_path, text.replace("[64, 128, 256]", "{from: 1, to: 512, step: 1}"))
    sizes = [len(job.points) for job in shards.jobs(many, many.first())]
    assert (max(sizes), sum(sizes)) == (shards.SMALL, 512 * 2 * 3)


def test_products_zips_and_lists(tmp_path: Path) -> None:
    text = """name: tree
points:
  product:
  - list:
    - {label.a: one, spec: softmax}
    - product:
      - {label.a: two, spec: fusemax}
      - size.M0: [16, 32]
  - zip: {size.P: [1, 2, 3], size.M: [4, 5, 6]}
  - size.E: {from: 8, to: 64, times: 2}
filters: ["size.P != 2 or size.E == 64"]
"""
    plan = sweep_of(tmp_path, text)
    assert plan.space.count == 3 * 3 * 4
    points = [plan.space.table(np.arange(plan.space.count)).point(row) for row in range(plan.space.count)]
    assert points[0] == {"label.a": "one", "spec": "softmax", "size.P": 1, "size.M": 4, "size.E": 8}
    assert points[-1] == {"label.a": "two", "spec": "fusemax", "size.M0": 32, "size.P": 3, "size.M": 6, "size.E": 64}
    kept = plan.first()
    assert [int(point) for point in kept] == [i for i, p in enumerate(points) if p["size.P"] != 2 or p["size.E"] == 64]


def test_a_latin_hypercube_meets_every_value(tmp_path: Path) -> None:
    plan = sweep_of(tmp_path, SMALL + "sampling: {kind: latin, points: 9, seed: 3}\n")
    where = plan.space.coordinates(plan.first())
    for axis, table in enumerate(plan.space.dimensions):
        assert set(where[:, axis]) == set(range(table.count))


def test_refinement_finds_the_front_of_the_grid(tmp_path: Path) -> None:
    sides = SMALL.replace("[64, 128, 256]", "{from: 16, to: 512, step: 16}").replace(
        "[64 KiB, 4 MiB, 16 MiB]", "[1 MiB, 2 MiB, 4 MiB]"
    )
    text = sides.replace("[latency_s, energy_pj]", "[latency_s, area_um2]")
    grid = run.sweep(sweep_of(tmp_path, text), tmp_path / "grid", workers.Local(1))
    refined = run.sweep(
        sweep_of(tmp_path, text + "sampling: {kind: pareto, points: 150, start: 30}\n"), tmp_path / "refined", workers.Local(1)
    )
    assert refined.points < grid.points == 192
    spread = run.sweep(sweep_of(tmp_path, text + "sampling: {kind: latin, points: 150}\n"), tmp_path / "spread", workers.Local(1))
    best = {point["point"] for point in grid.front}
    found = [len(best & {point["point"] for point in done.front}) for done in (refined, spread)]
    assert found[0] >= 0.9 * len(best)
    assert found[0] > found[1]  # not by evaluating many points, but the right ones
    assert refined.points <= spread.points + 50


def test_refinement_steps_are_halved() -> None:
    space = Space((single("a", tuple(range(16))), single("b", ("x",)), single("c", tuple(range(3)))))
    at = space.numbers(np.array([[5, 0, 1]]))
    near = {halvings: {tuple(row) for row in space.coordinates(space.neighbours(at, halvings)).tolist()} for halvings in (1, 2, 4)}
    assert near[1] == {(0, 0, 1), (13, 0, 1), (5, 0, 0), (5, 0, 2)}
    assert near[2] == {(1, 0, 1), (9, 0, 1), (5, 0, 0), (5, 0, 2)}
    assert near[4] == {(4, 0, 1), (6, 0, 1), (5, 0, 0), (5, 0, 2)}
    assert [space.finest(halvings) for halvings in (2, 3, 4)] == [False, False, True]


def test_refinement_comes_nearer_to_the_front_than_sampling(tmp_path: Path) -> None:
    text = SMALL.replace("latency_s, energy_pj", "latency_s, area_um2").replace("[512, 1K]", "1K")
    text = text.replace("[64, 128, 256]", "{from: 16, to: 768, step: 16}").replace(
        "[64 KiB, 4 MiB, 16 MiB]", "{from: 1 MiB, to: 48 MiB, step: 1 MiB}"
    )
    grid = run.sweep(sweep_of(tmp_path, text), tmp_path / "out", workers.Local(1))
    best = np.array([[point["latency_s"], point["area_um2"]] for point in grid.front])

    def beyond(kind: str, seed: int) -> float:
        """By what factor, on average, the nearest point found is worse than a point of the true front."""
        sampled = sweep_of(tmp_path, text + f"sampling: {{kind: {kind}, points: 200, seed: {seed}}}\n")
        done = run.sweep(sampled, tmp_path / f"{kind}{seed}", workers.Local(1))
        assert done.points <= 200
        found = np.array([[point["latency_s"], point["area_um2"]] for point in done.front])
        return float(np.mean([(found / one).max(axis=1).min() for one in best]))

    for seed in (1, 2):
        assert beyond("pareto", seed) - 1 < 0.5 * (beyond("latin", seed) - 1)


def test_front_against_its_definition() -> None:
    values = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(float)
    values[5] = np.nan
    rows = set(front(values).tolist())
    for row in range(60):
        others = [o for o in range(60) if o != row and not np.isnan(values[o]).any()]
        beaten = any((values[o] <= values[row]).all() and ((values[o] < values[row]).any() or o < row) for o in others)
        assert (row in rows) == (not beaten and row != 5)


def test_fronts_across_shards_and_within_workloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    for text, names in ((SMALL, []), (SMALL + "workload: [size.P]\n", ["in size.P"])):
        done = run.sweep(sweep_of(tmp_path, text), tmp_path / "out", workers.Local(1))
        rows = [row for row in pq.read_table(done.results).to_pylist() if row["status"] == "done"]
        best = set()
        for row in rows:
            rivals = [other for other in rows if all(other[name] == row[name] for name in names) and other is not row]
            mine = row["latency_s"], row["energy_pj"]
            if not any(
                r["latency_s"] <= mine[0] and r["energy_pj"] <= mine[1] and (r["latency_s"], r["energy_pj"]) != mine for r in rivals
            ):
                best.add(mine)
        assert {(point["latency_s"], point["energy_pj"]) for point in done.front} == best
    assert set(done.workloads) == {"size.P=512", "size.P=1024"}
    assert done.varied == ("arch.array2d.side", "arch.buffer.size")  # what is asked, and what is alike, tells nothing
    assert "arch.array2d.side=" in str(done)
    assert "size.M=" not in str(done)
    assert code_of(tmp_path, SMALL + "workload: [size.Q]\n")[0] == "E701"


def test_points_that_are_searched_or_planned(tmp_path: Path) -> None:
    text = """name: both
objectives: [latency_s]
points:
  product:
  - {spec: softmax, "size.B,size.H": 1, "size.E,size.F": 64, "size.P,size.M": 256}
  - list:
    - {mapping: search, arch: fusemax, objective: energy}
    - {gpu: [h200, a100]}
"""
    done = run.sweep(sweep_of(tmp_path, text), tmp_path / "out", workers.Local(1))
    rows = pq.read_table(done.results).to_pylist()
    assert [row["status"] for row in rows] == ["done"] * 3
    assert "groups:" in rows[0]["mapping_found"]
    assert '"gpu": "h200"' in rows[1]["plan"].replace("H200", "h200")


# --- killed ---


def test_run_again_does_nothing(tmp_path: Path) -> None:
    first = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    before = (first.results).stat().st_mtime_ns
    again = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", Forbidden(1))
    assert (again.reused, again.front) == (18, first.front)
    assert again.results.stat().st_mtime_ns == before


class Forbidden(workers.Local):
    """Nothing may be left to do."""

    def run(self, payloads: dict[str, Any]) -> Any:
        assert not payloads
        return super().run(payloads)


CHILD = """
import os, signal, sys, time
from pathlib import Path
from einsmith.mapper.sweep import file, run, shards, workers
import einsmith.mapper.sweep.evaluate as evaluation
shards.SHARD = 2
real = evaluation.evaluate
def slow(payload):
    time.sleep(0.05)
    with open(sys.argv[3], "a") as log:
        log.write(repr(sorted(payload["columns"].items())) + "\\n")
    return real(payload)
evaluation.evaluate = slow
run.sweep(file.load(sys.argv[1]), Path(sys.argv[2]), workers.Local(1))
"""


def test_a_killed_process_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    whole = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "whole", workers.Local(1))
    script, log = tmp_path / "child.py", tmp_path / "log"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(tmp_path / "sweep.yaml"), str(tmp_path / "out"), str(log)]
    child = subprocess.Popen(command)
    while not (log.exists() and len(log.read_text().splitlines()) >= 3):
        time.sleep(0.01)
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out" / "results.parquet").exists()
    subprocess.run(command, check=True)
    lines = log.read_text().splitlines()
    assert len(set(lines)) == 9
    assert len(lines) <= 10  # the one in flight, at most
    assert (tmp_path / "out" / "results.parquet").read_bytes() == whole.results.read_bytes()


def test_a_killed_worker_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    whole = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "whole", workers.Local(1))
    killed: list[int] = []

    def kill_one(progress: run.Progress) -> None:
        if not killed and progress.done:
            killed.extend(children())
            os.kill(killed[0], signal.SIGKILL)

    done = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(2), kill_one)
    assert killed
    assert done.results.read_bytes() == whole.results.read_bytes()


def test_code_that_is_changed_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    monkeypatch.setattr(shards, "code_version", lambda: "what it was when the run began")
    with pytest.raises(EinsmithError, match="changed while this ran") as raised:
        run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(2))
    assert raised.value.diagnostics[0].code == "E706"


def children() -> list[int]:
    """Worker processes of this one."""
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def test_dask_with_a_killed_worker_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(shards, "SHARD", 2)
    whole = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "whole", workers.Local(1))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")) as cluster:
        killed: list[int] = []

        def kill_one(progress: run.Progress) -> None:
            if not killed and progress.done:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        done = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Dask(cluster.scheduler_address), kill_one)
    assert killed
    assert done.results.read_bytes() == whole.results.read_bytes()


# --- what goes wrong ---


def test_a_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    real, written = os.replace, []

    def full(source: Any, target: Any) -> None:
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        real(source, target)

    monkeypatch.setattr(store.os, "replace", full)
    code, text = code_of(tmp_path, SMALL)
    assert code == "E703"
    assert "No space left" in text
    assert "4 shards" in text
    assert not list((tmp_path / "out").rglob("*.part"))
    monkeypatch.setattr(store.os, "replace", real)
    done = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    assert done.reused == 8


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store.os, "open", refused)
    code, text = code_of(tmp_path, SMALL)
    assert code == "E703"
    assert "Permission denied" in text


def test_two_runs_into_one_folder(tmp_path: Path) -> None:
    with store.Store(tmp_path / "out"):
        code, text = code_of(tmp_path, SMALL)
    assert code == "E704"
    assert f"process {os.getpid()}" in text
    run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))


def test_a_damaged_shard_is_worked_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    whole = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    before = whole.results.read_bytes()
    damaged, gone = sorted((tmp_path / "out" / "shards").rglob("*.parquet"))[:2]
    damaged.write_bytes(damaged.read_bytes()[:-7])
    gone.unlink()
    again = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    assert [diagnostic.code for diagnostic in again.damaged] == ["E705", "E705"]
    assert again.reused == 14
    assert again.results.read_bytes() == before


@pytest.mark.parametrize("how", ["cut", "noise", "gone"])
def test_a_damaged_index_is_made_again_from_the_shards(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    whole = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1)).results.read_bytes()
    index = tmp_path / "out" / store.INDEX
    index.write_bytes({"cut": index.read_bytes()[:5000], "noise": b"noise" * 2000, "gone": b""}[how])
    damaged = next((tmp_path / "out" / "shards").rglob("*.parquet"))
    data = bytearray(damaged.read_bytes())
    data[60] ^= 1  # a bit of a page: the file still opens
    damaged.write_bytes(data)
    again = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    assert (again.reused, again.results.read_bytes()) == (16, whole)
    assert [diagnostic.code for diagnostic in again.damaged] == ([] if how == "gone" else ["E705"])
    assert (tmp_path / "out" / f"{store.INDEX}.damaged").exists() == (how != "gone")


def test_damaged_results_are_put_together_again(tmp_path: Path) -> None:
    done = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", workers.Local(1))
    before = done.results.read_bytes()
    for data in (before[:-9], before[:100], b"", before[:200] + bytes([before[200] ^ 1]) + before[201:]):
        done.results.write_bytes(data)
        again = run.sweep(sweep_of(tmp_path, SMALL), tmp_path / "out", Forbidden(1))
        assert again.results.read_bytes() == before
        assert [diagnostic.code for diagnostic in again.damaged] == ["E705"]


LIMITED = """
import resource, sys
from einsmith.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
from einsmith.mapper.sweep import shards
shards.SHARD = 1
main(["sweep", sys.argv[1], "-o", sys.argv[2], "--workers", "1"])
"""


def test_a_file_that_may_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = sweep_of(tmp_path, SMALL)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "sweep.yaml"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "error[E703]" in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
    kept = len(list((tmp_path / "out" / "shards").rglob("*.parquet")))
    assert 0 < kept < 18
    monkeypatch.setattr(shards, "SHARD", 1)
    assert run.sweep(plan, tmp_path / "out", workers.Local(1)).reused == kept


@pytest.mark.parametrize(
    "old, new, code, says",
    [
        ("spec: softmax", "spec: softmx", "E701", "did you mean `softmax`"),
        ("arch.buffer.size", "arch.bufer.size", "E701", "`bufer`"),
        ("arch.buffer.size: [64 KiB, 4 MiB, 16 MiB]", "arch.buffer.size: []", "E702", "the product is empty"),
        ("arch.array2d.side", "archs.array2d.side", "E701", "a point has no `archs.array2d.side`"),
        ("size.B: 1", "size.B: 1.5", "E701", "not a whole number"),
        ("  product:", "  zip:", "E701", "side by side"),
        ("objectives: [latency_s, energy_pj]", 'filters: ["size.P > 5000"]', "E702", "no point passes"),
        ("objectives: [latency_s, energy_pj]", 'filters: ["size.Q > 5000"]', "E701", "no point sets `size.Q`"),
        ("objectives: [latency_s, energy_pj]", "objectives: [latency]", "E701", "no result is named `latency`"),
        ("objectives: [latency_s, energy_pj]", "objective: [latency_s]", "E502", "unknown key `objective`"),
        ("mapping: rows-three-passes, ", "", "E701", "needs an `arch` and a `mapping`"),
        ('"size.E,size.F": 64', '"size.B,size.F": 64', "E701", "set twice"),
        ("arch.buffer.size: [64 KiB", "arch.memory.buffer.size: 1 GiB\n  - arch.buffer.size: [64 KiB", "E701", "first here"),
        ("  product:", "  zip:", "E701", "`arch.array2d.side` has 3"),
        ("[64, 128, 256]", "[64, 0, 256]", "E701", "`arch.array2d.side` cannot be 0"),
        ("[64, 128, 256]", "[64, 128.5, 256]", "E701", "`arch.array2d.side` cannot be 128.5"),
        ("64 KiB", "4 M", "E701", "`4 M` is not a number of bytes"),
        ("[512, 1K]", "[512, 4k]", "E701", "4K is 4096"),
        ("[512, 1K]", "{from: 512, to: many, times: 2}", "E701", "`many` is none"),
        ("objectives: [latency_s, energy_pj]", "objectives: [latency, energ_pj]", "E701", "did you mean `energy_pj`"),
        ("objectives: [latency_s, energy_pj]", "filters: ['spec == 3', 'size.P']", "E701", "is a number, not a condition"),
        ("  product:\n", "", "E701", "a list needs a word before it"),
    ],
)
def test_mistakes_are_shown_where_they_are(old: str, new: str, code: str, says: str, tmp_path: Path) -> None:
    assert old in SMALL
    found, text = code_of(tmp_path, SMALL.replace(old, new, 1))
    assert (found, says in text) == (code, True), text
    assert "sweep.yaml:" in text
