"""Benchmarks without a GPU: the refusal, what counts as torch's own attention, the arithmetic of rows, the worker on the CPU."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.einsum.analysis.report import analyze
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.sizes import bind
from einsmith.kernels import bench
from einsmith.kernels.check import Checked
from einsmith.kernels.check import Row as CheckRow
from einsmith.kernels.child import ask
from einsmith.kernels.emit import emit_module
from einsmith.kernels.sdpa import Sdpa, as_sdpa
from einsmith.kernels.store import stored
from einsmith.mapper import gpu
from einsmith.mapper.stages import plan_module

ROOT = Path(__file__).parents[2]
ATTENTION = ROOT / "examples" / "attention"
SIZES = {"B": 1, "H": 2, "P": 40, "M": 48, "E": 16, "F": 16}
RENAMED = """
name: anything
ranks: {a: A, g: G, q: X, k: Y, c: C, d: D}
inputs: {Values: [a, g, k, d], Left: [a, g, k, c], Right: [a, g, q, c]}
params: {s: 1/sqrt(C)}
cascade: |
  T[a,g,q,k] = exp(sum[c](Right[a,g,q,c] * Left[a,g,k,c]) * s)
  N[a,g,q]   = sum[k](T[a,g,q,k])
  O[a,g,q,d] = T[a,g,q,k] / N[a,g,q] * Values[a,g,k,d]
outputs: [O]
"""


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "device", lambda: "cpu")
    result = CliRunner().invoke(main, ["bench", "softmax", "--gpu", "h200", "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [d["code"] for d in found["diagnostics"]] == ["E613"]
    assert "no GPU here to measure on" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("softmax", Sdpa("Q", "K", "V", causal=False, grouped=False)),
        ("softmax-causal", Sdpa("Q", "K", "V", causal=True, grouped=False)),
        ("deferred-division", Sdpa("Q", "K", "V", causal=False, grouped=False)),
        ("flash2", Sdpa("Q", "K", "V", causal=False, grouped=False)),
        ("gqa", Sdpa("Q", "K", "V", causal=False, grouped=True)),
        ("sigmoid", None),
        ("alibi", None),
        ("linear", None),
        ("channel", None),
    ],
)
def test_torchs_own_attention_is_known_by_its_values(name: str, expected: Sdpa | None) -> None:
    assert as_sdpa(spec.load(ATTENTION / f"{name}.yaml")) == expected


def test_names_do_not_matter() -> None:
    assert as_sdpa(spec.loads(RENAMED)) == Sdpa("Right", "Left", "Values", causal=False, grouped=False)
    assert as_sdpa(spec.loads(RENAMED.replace("1/sqrt(C)", "1/C"))) is None


def test_what_a_cascade_cannot_do_without() -> None:
    """Two products of 2*P*M*D operations a head, of which a causal mask leaves (M+1)/2M; Q, K, V in and the output out."""
    sizes = {"B": 2, "H": 3, "P": 64, "M": 64, "E": 32, "F": 32}
    causal = bench.least_work(analyze(spec.load(ATTENTION / "softmax-causal.yaml"), sizes))
    assert causal[0] == pytest.approx(2 * 2 * 6 * 64 * 64 * 32 * 65 / 128)
    assert causal[1] == 2 * 4 * 6 * 64 * 32


def test_rows_say_rates_and_faults() -> None:
    good = bench.Row("a", "P=1", "float16", 2.0, (1.9, 2.1), flops=4e12, moved=6e9, predicted_ms=1.5, difference=1e-3)
    assert good.tflops == 2000
    assert good.gbps == 3000
    assert "2000.0 TFLOP/s" in " ".join(good.cells())
    bad = bench.Row("b", "P=1", "float16", None, fault="RuntimeError: no")
    assert bad.as_json()["tflops"] is None
    assert bench.Bench("x", "h200", "here", (good, bad)).exit_code == 1
    assert "RuntimeError: no" in str(bench.Bench("x", "h200", "here", (good, bad)))
    assert set(good.as_json()) >= {"impl", "shape", "dtype", "ms_median", "tflops", "gbps", "predicted_ms"}


def test_each_candidate_of_a_plan_is_a_row_of_its_own() -> None:
    plan = plan_module(spec.load(ATTENTION / "softmax.yaml"), gpu.load("h200"), {**SIZES, "P": 4096, "M": 4096})
    found = [bench.described(one) for one in bench.chosen(plan, 3)]
    assert len(set(found)) == 3
    assert all(text.startswith("einsmith p") for text in found)


@pytest.mark.parametrize(("dtype", "wider", "far"), [("float32", "float32", 1e-5), ("float8_e4m3fn", "bfloat16", 2e-2)])
def test_the_worker_times_compares_and_survives_a_fault(dtype: str, wider: str, far: float) -> None:
    """On the CPU plain torch and torch's own attention run, and a kernel does not: that is said in its row."""
    cascade = spec.load(ATTENTION / "softmax-causal.yaml")
    source = emit_module(plan_module(cascade, gpu.load("h200"), SIZES, dtype=dtype))
    attention = as_sdpa(cascade)
    assert attention is not None
    job = {
        "modules": [{"impl": "ours", "file": str(stored(source))}],
        "inputs": {"Q": ([1, 2, 40, 16], "float"), "K": ([1, 2, 48, 16], "float"), "V": ([1, 2, 48, 16], "float")},
        "scalars": {},
        "dtype": dtype,
        "device": "cpu",
        "sdpa": attention.as_json(),
        "sdpa_dtype": wider,
        "allow_tf32": False,
    }
    answer = ask("bench_worker", job, interpret=False, timeout_s=120)
    plain, torchs, ours = answer["rows"]
    assert "torch" in answer["where"]
    assert "triton" in answer["where"]
    assert plain["ms"] > 0
    assert plain["low"] <= plain["ms"] <= plain["high"]
    assert torchs["difference"] < far
    assert (wider in torchs["impl"]) == (wider != dtype)
    assert ours["ms"] is None
    assert ours["fault"]


# --- the suite for a machine with a GPU ---


def suite() -> Any:
    location = importlib.util.spec_from_file_location("gpu_suite", ROOT / "benchmarks" / "gpu_suite.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


def test_without_a_gpu_the_suite_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = suite()
    monkeypatch.setattr(module, "device", lambda: "cpu")
    assert module.main(["-o", str(tmp_path / "out.txt")]) == 0
    assert capsys.readouterr().out == "no GPU here: nothing was measured\n"
    assert not (tmp_path / "out.txt").exists()


def test_names_and_sizes_of_the_suite_are_those_of_the_specs() -> None:
    """A slip would show only on a machine with a GPU."""
    module = suite()
    for name in module.CHECKED:
        assert spec.load(ATTENTION / f"{name}.yaml").outputs
    for name, sizes, dtype in module.TIMED:
        assert bind(spec.load(ATTENTION / f"{name}.yaml"), sizes).extents
        assert dtype in gpu.BYTES


def test_the_suite_stops_when_its_time_is_up() -> None:
    module = suite()
    now = iter([0.0, 100.0, 100.0, 100.0])
    budget = module.Budget(60.0, lambda: next(now))
    said: list[str] = []
    assert module.timings(module.TIMED, budget, "h200", 1, said.append) == 0
    assert said[0].startswith("left out for want of time: softmax-causal, softmax")


class FakeGpu:
    """A machine on which every check and every timing takes as long as it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: str = "") -> None:
        self.now, self.broken, self.asked = 0.0, broken, list[str]()
        monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Fake GPU (tm) 1")
        monkeypatch.setattr("einsmith.kernels.check.check", self.check)
        monkeypatch.setattr("einsmith.kernels.bench.bench", self.bench)
        monkeypatch.setattr("einsmith.mapper.stages.plan_module", lambda cascade, gpu: cascade)
        monkeypatch.setattr("einsmith.kernels.emit.emit_module", lambda cascade: cascade.name)
        monkeypatch.setattr("einsmith.kernels.store.stored", lambda name: name)

    def clock(self) -> float:
        return self.now

    def check(self, name: str, *, timeout_s: float) -> Checked:
        self.now += timeout_s
        self.asked.append(name)
        if name == self.broken:
            raise RuntimeError("an illegal memory access was encountered")
        row = CheckRow("tails", {"P": 7}, "float16", "AV", 1e-3, 2e-3)
        return Checked(name, "cuda", (row, replace(row, error=3e-3) if name == "softmax-attention" else row))

    def bench(self, cascade: Cascade, gpu: object, sizes: dict[str, int], *, timeout_s: float, **_: object) -> bench.Bench:
        self.now += timeout_s
        self.asked.append(cascade.name)
        return bench.Bench(cascade.name, "h200", "here", (bench.Row("ours", "P=1", "float16", 2.0, flops=4e12, predicted_ms=1.0),))


def test_the_suite_ends_within_ten_minutes_and_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where a kernel breaks the GPU and another is wrong: both are said, and the others are still asked for."""
    module, fake = suite(), FakeGpu(monkeypatch, broken="softmax-causal-attention")
    monkeypatch.setattr(module, "device", lambda: "cuda")
    assert module.main(["-o", str(tmp_path / "out.txt")], fake.clock) == 1
    assert fake.now <= 600
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert "Fake GPU (tm) 1" in text.splitlines()[0]
    assert "FAIL softmax-causal: RuntimeError: an illegal memory access" in text
    assert "FAIL softmax: 1 passed, 1 failed, 120 s" in text
    assert "2000.0 TFLOP/s" in text
    assert text.count("left out for want of time") == 2
    assert text.splitlines()[-1] == "2 failures"
    assert len(fake.asked) > 4


def test_a_quick_run_of_the_suite_has_a_file_of_its_own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, fake = suite(), FakeGpu(monkeypatch)
    monkeypatch.setattr(module, "device", lambda: "cuda")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "CHECKED", ["sigmoid", "alibi", "gqa"])
    assert module.main(["--quick"], fake.clock) == 0
    assert (tmp_path / "gpu-fake-gpu-tm-1.txt").read_text(encoding="utf-8").splitlines()[-1] == "0 failures"
