"""The command `derive`: report, JSON, written spec, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from einsmith.cli.derive import command
from einsmith.einsum import spec

EXAMPLES = Path(__file__).parents[2] / "examples"
CAUSAL = str(EXAMPLES / "attention" / "softmax-causal.yaml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def test_json_holds_what_is_promised() -> None:
    done = run(CAUSAL, "--rank", "m", "--json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert (answer["passes_before"], answer["passes_after"]) == ({"m": 3}, {"m": 1, "m1": 1})
    assert answer["blocked_by"] is None
    assert all(set(step) == {"rewrite", "target", "before", "rule", "condition", "after"} for step in answer["steps"])
    assert {"deferred-division", "partition", "accumulate", "running-rescale"} <= {step["rewrite"] for step in answer["steps"]}
    derived = spec.loads(answer["spec"])
    assert derived.outputs == ("AV",)
    assert not {"M1"} & set(derived.symbols)
    assert {"M0"} <= dict(derived.sizes).keys()


def test_output_is_a_formatted_spec(tmp_path: Path) -> None:
    out = tmp_path / "one-pass.yaml"
    done = run(CAUSAL, "--rank", "m", "-o", str(out))
    assert done.exit_code == 0
    from einsmith.einsum.printer import print_cascade

    assert out.read_text() == print_cascade(spec.load(out))
    assert f"written to {out}" in done.stdout


def test_passes_that_remain_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "blocked.yaml"
    path.write_text(
        "name: b\nranks: {m: M}\ninputs: {X: [m]}\ncascade: |\n  G = max[m](X[m])\n  Y = sum[m](sigmoid(X[m] - G))\noutputs: [Y]\n"
    )
    done = run(str(path), "--rank", "m", "--json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["passes_after"] == {"m": 2}
    assert [blocked["expression"] for blocked in answer["blocked_by"]] == ["sigmoid(X[m] - G)"]
    assert answer["steps"] == []


def test_several_ranks() -> None:
    answer = json.loads(run(str(EXAMPLES / "attention" / "reversed.yaml"), "--rank", "m", "--rank", "p", "--json").stdout)
    assert (answer["passes_before"]["p"], answer["passes_after"]["p"], answer["passes_after"]["m"]) == (3, 2, 1)


def test_sizes_decide_and_are_kept() -> None:
    short = json.loads(run("retention-parallel", "--rank", "m", "--json").stdout)
    long = json.loads(run("retention-parallel", "--rank", "m", "--size", "M=64K", "--json").stdout)
    assert short["steps"] == []
    assert "prefix-state" in [step["rewrite"] for step in long["steps"]]
    assert dict(spec.loads(long["spec"]).sizes)["M"] == 65536


def test_what_was_compared_is_said() -> None:
    done = run(CAUSAL, "--rank", "m")
    assert "forms over m compared, at B=1" in done.stdout
    assert "without deferred-division" in done.stdout


def test_latex() -> None:
    text = run(CAUSAL, "--rank", "m", "--format", "latex").stdout
    assert text.count(r"\begin{verbatim}") == text.count(r"\end{verbatim}") > 10
    assert r"\textbf{running-rescale}" in text


@pytest.mark.parametrize("spec_name", ["softmax-causal", "retention-parallel", "channel", "ssa", "reversed"])
def test_latex_is_balanced_and_escaped(spec_name: str) -> None:
    text = run(spec_name, "--rank", "m", "--format", "latex", "--size", "M=4K").stdout
    prose = re.sub(r"\\begin\{verbatim\}\n.*?\\end\{verbatim\}", "", text, flags=re.DOTALL)
    assert "verbatim" not in prose
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", prose):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    known = "paragraph|texttt|textbf|item|begin|end|text(?:backslash|ascii(?:circum|tilde)|less|greater|bar)"
    plain = re.sub(rf"\\(?:{known})(?![a-z])|\\[_&%#{{}}$]", "", prose)
    assert not set("\\_&%#$^~<>|") & set(plain)
    depth = 0
    for char in plain:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ((CAUSAL, "--rank", "k"), 1, "E401"),
        (("nothing.yaml", "--rank", "m"), 1, "E0"),
        ((CAUSAL,), 2, "--rank"),
        ((CAUSAL, "--rank", "m", "--tile", "0"), 2, "--tile"),
        ((CAUSAL, "--rank", "m", "--size", "Z=3"), 1, "E301"),
        ((CAUSAL, "--rank", "m", "--param", "zz=3"), 1, "E302"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert message in done.stderr


def test_a_file_that_cannot_be_written() -> None:
    done = run(CAUSAL, "--rank", "m", "-o", "/dev/null/out.yaml")
    assert (done.exit_code, "E003" in done.stderr) == (1, True)


def test_sympy_is_not_imported_without_need() -> None:
    import subprocess
    import sys

    call = f"command(['{CAUSAL}', '--rank', 'm', '--json'], standalone_mode=False)"
    code = f"import sys\nfrom einsmith.cli.derive import command\ntry: {call}\nexcept SystemExit: pass\n"
    code += "assert 'sympy' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)
