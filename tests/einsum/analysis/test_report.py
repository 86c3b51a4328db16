"""The whole analysis: its JSON, its text, its cost, on examples and on random cascades."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from einsmith.cli.analyze import command
from einsmith.cli.common import plain
from einsmith.einsum import spec
from einsmith.einsum.analysis import Analysis, analyze
from einsmith.einsum.analysis.passes import levels
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError

from .specs import EXAMPLES

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "examples" / "attention").glob("*.yaml"))


def _module(name: str, path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


random_cascades = _module("analysis_strategies", ROOT / "tests" / "strategies.py").random_cascades

KEYS = {"passes", "reads", "forced_by", "einsums", "tensors", "traffic", "intensity"}


def check(analysis: Analysis) -> None:
    """What holds of every analysis."""
    found = json.loads(json.dumps(plain(analysis.as_json()), allow_nan=False))
    assert found.keys() >= KEYS
    assert set(found["passes"]) >= {rank.name for rank in analysis.cascade.ranks if rank.part_of is None}
    assert [einsum["output"] for einsum in found["einsums"]] == [einsum.output for einsum in analysis.cascade.einsums]
    assert found["tensors"].keys() == {tensor.name for tensor in analysis.cascade.tensors}
    assert str(analysis)
    for rank, inputs in found["reads"].items():
        top = analysis.passes[rank]
        assert all(level >= 1 and (isinstance(top, str) or level <= top) for levels_ in inputs.values() for level in levels_)
    if analysis.scalars is not None:
        enough, compulsory = found["traffic"]["enough"], found["traffic"]["compulsory"]
        assert all(tensor["live"] <= enough or not tensor["live"] for tensor in found["tensors"].values())
        assert analysis.bound(enough) == compulsory
        assert analysis.bound(0) >= compulsory  # type: ignore[operator]
        for counted in analysis.operations:
            for op, dense in counted.dense.items():
                assert 0 <= analysis.number(counted.effective[op]) <= analysis.number(dense)  # type: ignore[operator]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    cascade = spec.load(path)
    check(analyze(cascade, buffer=1 << 14))
    check(analyze(cascade, symbolic=True, buffer=1 << 14))


@settings(max_examples=80)
@given(random_cascades())
def test_random_cascades(cascade: Cascade) -> None:
    found = analyze(cascade, buffer=64)
    check(found)
    if found.scheduled is not None:
        assert found.bound(32) <= found.scheduled.words  # type: ignore[operator]
    check(analyze(cascade, symbolic=True))


def test_the_text_says_what_a_stranger_must_know() -> None:
    text = str(analyze(spec.loads(EXAMPLES["textbook-softmax"].text("attention")), symbolic=True, ranks=["m"]))
    assert "3 passes over `m`: `SN` needs `GM` complete (max over m), `A` needs `SD` complete (sum over m)." in text
    assert "`QK` is carried over `m` from level 1 to 2: hold M words" in text
    assert "m     3       K at 1; V at 3" in text
    assert "3  A[b,h,p,m] = SN[b,h,p,m] / SD[b,h,p]" in text
    assert "each further block of `p` reads `K`, `V` again" in text
    assert all(len(line) < 260 for line in text.splitlines())


def test_numbers_where_all_sizes_are_known_else_formulas() -> None:
    cascade = spec.loads(EXAMPLES["textbook-softmax"].text("attention"))
    formulas = analyze(cascade, symbolic=True).as_json()
    assert formulas["sizes"] is None
    assert formulas["tensors"]["QK"]["live"] == "P*M"
    assert formulas["traffic"]["compulsory"] == "B*H*(P*E + P*F + E*M + M*F)"
    some = analyze(cascade, {"P": 4}, symbolic=True).as_json()
    assert some["sizes"] is None
    sized = analyze(cascade, {"P": 4}).as_json()
    assert sized["tensors"]["QK"]["live"] == 4 * 7
    assert isinstance(sized["intensity"], float)


def test_nothing_at_all() -> None:
    """No ranks, no keys, no queries."""
    check(analyze(spec.loads("name: x\nranks: {}\ninputs: {X: []}\ncascade: |\n  Y = X * 2\noutputs: [Y]\n"), buffer=64))
    for name in ("textbook-softmax", "fusemax", "channel attention over tokens", "top-k, then gather"):
        cascade = spec.loads(EXAMPLES[name].text("x"))
        for empty in cascade.symbols:
            if empty != "M0":
                found = analyze(cascade, {empty: 0}, buffer=64)
                assert str(found)
                assert found.as_json()["traffic"]["compulsory"] >= 0
        nothing = analyze(cascade, {symbol: 0 for symbol in cascade.symbols if symbol != "M0"}, buffer=64)
        assert nothing.as_json()["intensity"] == 0
        assert str(nothing)


def test_errors_have_codes() -> None:
    cascade = spec.loads(EXAMPLES["cumsum"].text("x"))
    for options, code in (
        ({"sizes": {"Q": 3}}, "E301"),
        ({"params": {"w": 1}}, "E302"),
        ({"ranks": ["n"]}, "E330"),
        ({"outer": ["n"]}, "E330"),
    ):
        with pytest.raises(EinsmithError) as raised:
            analyze(cascade, **options)  # type: ignore[arg-type]
        assert [diagnostic.code for diagnostic in raised.value.diagnostics] == [code]


def test_a_bad_buffer_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(EXAMPLES["cumsum"].text("x"))
    for text in ("many", "-1", "1.5M", ""):
        assert CliRunner().invoke(command, [str(path), "--buffer", text]).exit_code == 2
    result = CliRunner().invoke(command, [str(path), "--buffer", "2KiB", "--json"])
    assert json.loads(result.stdout)["traffic"]["buffer"]["bytes"] == 2048


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom einsmith.cli.analyze import command\ntry:\n command(['softmax', '--json'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print(sorted(set(sys.modules) & {'numpy', 'networkx', 'sympy', 'torch', 'matplotlib', 'scipy', 'numba'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_cost_grows_with_the_number_of_einsums_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Einsum of a chain of layers with running states is looked at equally often, however many there are."""
    bench = _module("benchmark_analyze", ROOT / "benchmarks" / "analyze.py")
    from einsmith.einsum.analysis.completeness import _Interpretation

    looked = 0
    visit = _Interpretation._visit

    def counting(self: object, number: int, step: object) -> None:
        nonlocal looked
        looked += 1
        visit(self, number, step)  # type: ignore[arg-type]

    monkeypatch.setattr(_Interpretation, "_visit", counting)
    shares = []
    for layers in (4, 33):
        cascade = spec.loads(bench.linear_layers(layers))
        looked = 0
        levels(cascade, "e")
        shares.append(looked / len(cascade.einsums))
    assert shares[0] == shares[1]


def test_lists_of_counts_and_long_formulas_stay_readable() -> None:
    """Counts go on in the next row; a formula that is cut says so, and one that is not does not."""
    text = """name: wide
ranks: {b: B, h: H, p: P, m: M, n: N, e: E, f: F, g: G}
inputs: {Q: [b, h, p, e], K: [b, h, m, e], O: [h, p, g], L: [b, h, n, g], V: [b, h, m, f], W: [b, h, n, f]}
cascade: |
  S[b,h,p,m] = exp(tanh(sum[e](Q[b,h,p,e] * K[b,h,m,e])) / E)
  T[b,h,p,n] = exp(sin(sum[g](O[h,p,g] * L[b,h,n,g])) / E)
  Y[b,h,p,f] = sum[m](S[b,h,p,m] * V[b,h,m,f]) + sum[n](T[b,h,p,n] * W[b,h,n,f])
outputs: [Y]
"""
    report = str(analyze(spec.loads(text)))
    table = report.split("\nOperations\n")[1].split("\n\n")[0].splitlines()
    rows = [line.split("  all        ")[1].strip() if "  all     " in line else line.strip() for line in table[1:]]
    joined = " ".join(rows)
    assert joined.count("tanh B*H*P*M") == 2
    assert max(map(len, table)) <= 120
    assert len(table) > 1 + len(analyze(spec.loads(text)).cascade.einsums) + 1
    assert report.endswith("`--json` has all of it.") == ("... " in report)
    assert "..." in report
    assert "`--json`" not in str(analyze(spec.loads(text), dict.fromkeys("BHPMNEFG", 8)))
