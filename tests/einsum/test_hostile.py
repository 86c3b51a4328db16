"""Hostile files: each is refused with a diagnostic in under 2 s and 500 MB, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "name: x\nranks: {p: P, m: M}\ninputs:\n  X: [p, m]\n"


def spec(einsum: str, head: str = HEAD, tail: str = "") -> str:
    return f"{head}cascade: |\n  {einsum}\noutputs: [Y]\n{tail}"


def bomb(levels: int = 30) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def ranks(*entries: str) -> str:
    return "ranks:\n" + "".join(f"  {entry}\n" for entry in entries)


def params(*entries: str) -> str:
    return "params:\n" + "".join(f"  {entry}\n" for entry in entries)


def einsums(*lines: str) -> str:
    return spec("\n  ".join(lines))


def split(i: int, extent: int) -> str:
    return f"r{i}: {{extent: N{extent}, split: [s{i}, t{i}], tile: 2, count: N{i}}}"


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "a line of 5 MB": (spec("Y[p] = " + "X[p,0] + " * 600_000 + "1"), "E004"),
    "5 MB in quotes": ('name: "' + "a" * 5_000_000 + '"\n', "E004"),
    "a cascade of 200 KB": (spec("Y[p] = " + "X[p,0] + " * 22_000 + "1"), "E105"),
    "many short Einsums": (einsums(*(f"Y{i}[p] = X[p,0]+{i}" for i in range(9000))), "E105"),
    "Einsums that need one another": (einsums(*(f"Y{i or ''}[p] = Y{(i * 7 + 1) % 2000 or ''}[p]" for i in range(2000))), "E214"),
    "a chain of Einsums, upside down": (einsums(*(f"Y{i or ''}[p] = Y{i + 1}[p]" for i in range(2500)), "Y2500[p] = 1"), "E202"),
    "a statement of 60,000 characters": (spec("Y = " + "1 + " * 15_000 + "1"), "E105"),
    "alias bomb": (bomb(), "E011"),
    "alias of itself": ("name: &a [*a]\n", "E011"),
    "merge keys": ("base: &b {name: x}\n<<: *b\n", "E011"),
    "10,000 parentheses": (spec("Y = " + "(" * 10_000 + "1" + ")" * 10_000), "E105"),
    "10,000 brackets open": (spec("Y = " + "X[" * 5_000), "E105"),
    "10,000 minus signs": (spec("Y = " + "-" * 9_000 + "1"), "E105"),
    "10,000 times not": (spec("Y = " + "not " * 2_400 + "1"), "E105"),
    "a tower of powers": (spec("Y = " + "2**" * 3_000 + "1"), "E105"),
    "functions in functions": (spec("Y = " + "exp(" * 2_000 + "1" + ")" * 2_000), "E105"),
    "10,000 nested YAML lists": ("ranks: " + "[" * 10_000 + "]" * 10_000 + "\n", "E0"),
    "10,000 nested YAML mappings": ("ranks: " + "{a: " * 10_000 + "\n", "E0"),
    "deep YAML by indentation": ("".join("  " * i + "a:\n" for i in range(400)), "E0"),
    "20,000 unknown keys": ("".join(f"key{i}: 1\n" for i in range(20_000)), "E00"),
    "5,000 ranks": (spec("Y = 1", ranks(*(f"r{i}: R{i}*R{i + 1}" for i in range(5_000)))), "ok"),
    "5,000 parameters that need the one before": (
        spec("Y = 1", params("a0: 1", *(f"a{i}: a{i - 1}+1" for i in range(1, 5_000)))), "ok",
    ),
    "parameters in a circle": (spec("Y = 1", params(*(f"a{i}: a{(i + 1) % 3_000}" for i in range(3_000)))), "E202"),
    "counts that need the one before": (spec("Y = 1", ranks(*(split(i, i - 1) for i in range(1, 1_500)))), "ok"),
    "counts that need the one after": (spec("Y = 1", ranks(*(split(i, i + 1) for i in range(1_500)))), "ok"),
    "counts in a circle": (spec("Y = 1", ranks(*(split(i, (i + 1) % 900) for i in range(900)))), "E215"),
    "NUL": (spec("Y = 1\x00"), "E002"),
    "escape codes": (spec("Y = \x1b[31m1"), "E002"),
    "a lone surrogate": (b"name: \xed\xa0\x80\n", "E002"),
    "not UTF-8": (b"\xff\xfe\x00n\x00a", "E002"),
    "UTF-16": (spec("Y = 1").encode("utf-16"), "E002"),
    "binary": (bytes(range(256)) * 100, "E002"),
    "empty": ("", "E006"),
    "spaces": ("   \n\n  \n", "E006"),
    "a negative size": (spec("Y = 1", tail="sizes: {P: -1}\n"), "E013"),
    "a size that is no number": (spec("Y = 1", tail="sizes: {P: .nan}\n"), "E013"),
    "an infinite size": (spec("Y = 1", tail="sizes: {P: .inf}\n"), "E013"),
    "a size of 100,000 digits": (spec("Y = 1", tail=f"sizes: {{P: {'9' * 100_000}}}\n"), "E013"),
    "an extent of 5,000 digits": (spec("Y = 1", f"ranks: {{p: {'9' * 5_000}}}\n"), "E106"),
    "a huge power as an extent": (spec("Y = 1", "ranks: {p: 9**9**9**9}\n"), "E216"),
    "a huge shift by products": (spec("Y = 1", "ranks: {p: " + "*".join(["9223372036854775807"] * 100) + "}\n"), "E216"),
    "a product of sums as an index": (spec("Y[p] = X[" + "*".join(["(P+M+1+p)"] * 90) + ",0]"), "ok"),
    "a product of many sums as an index": (
        spec(
            "Y = X[" + "*".join(f"(A{i}+B{i})" for i in range(60)) + ",0]",
            ranks("p: P", "m: M", *(f"r{i}: A{i}+B{i}" for i in range(60))) + "inputs: {X: [p, m]}\n",
        ),
        "ok",
    ),
    "thousands of undefined names": (
        einsums("Y = 1", *(f"Z{i} = aa{i}b + 1" for i in range(2_500)))
        .replace(HEAD, ranks(*(f"rr{i}b: RR{i}b" for i in range(5_000)))),
        "E103",
    ),
    "names of thousands of characters": (spec("Y = " + "ab" * 4_000, "ranks: {p: P}\nparams: {" + "ba" * 4_000 + ": 1}\n"), "E005"),
    "a long word where a statement should be": (spec("\n  ".join(["a" * 9_000 + "!"] * 6)), "E10"),
    "open brackets where a statement should be": (spec("\n  ".join(["a[" * 4_500 + "!"] * 6)), "E10"),
    "look-alike letters": (spec("Y[р] = Х[p,m]"), "E102"),
    "a right-to-left override": (spec("Y[p] = X[p,0] \u202e* 2"), "E102"),
    "a million comment signs": (HEAD + "cascade: |\n  Y = 1 " + "#" * 60_000 + "\noutputs: [Y]\n", "ok"),
    "tabs": ("name:\tx\n\tranks: {p: P}\n", "E005"),
    "a mapping as a key": ("? {a: 1}\n: 2\n", "E0"),
    "1,000 documents": ("---\na: 1\n" * 1000, "E011"),
}  # fmt: skip

RUN = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from einsmith.einsum.diagnostics import SpecError
from einsmith.einsum.spec import load
load(sys.argv[1])
results, events = [], 0

def count(*event):
    global events
    events += 1

def peak():
    # MB; of this process alone, where ru_maxrss counts the one that started it too
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024

for path in sys.argv[2:]:
    events = 0
    sys.setprofile(count)
    try:
        load(path)
        codes, shown = ["ok"], 0
    except SpecError as error:
        codes, shown = [d.code for d in error.diagnostics], len(str(error))
    sys.setprofile(None)
    results.append([codes, events, peak(), shown])
print(json.dumps(results))
"""


def run(paths: list[Path]) -> list[tuple[list[str], int, int, int]]:
    good = Path(__file__).parents[2] / "examples" / "attention" / "softmax.yaml"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(good), *map(str, paths)], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results: list[tuple[list[str], int, int, int]] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], int, int, int]]:
    """All files in one process: memory is the most that any of them took."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = []
    for number, (text, _) in enumerate(HOSTILE.values()):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return dict(zip(HOSTILE, run(paths), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, outcomes: dict[str, tuple[list[str], int, int, int]]) -> None:
    codes, events, megabytes, shown = outcomes[name]
    assert all(code.startswith(HOSTILE[name][1]) or code == "E014" for code in codes), codes
    assert events < 10_000_000  # calls and returns: a second or two
    assert megabytes < 500
    assert shown < 100_000


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "softmax.yaml").write_text(spec("Y = 1"), encoding="utf-8")
    paths = [
        tmp_path,
        tmp_path / "missing.yaml",
        tmp_path / "pipe.yaml",
        Path("/dev/zero"),
        tmp_path / ("a" * 400),
        tmp_path / "softmax.yaml" / "x",
    ]
    assert [codes for codes, *_ in run(paths)] == [["E001"]] * len(paths)


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\r")])
def test_marks_and_line_ends_of_other_systems_are_fine(tmp_path: Path, change: object) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(change(spec("Y[p] = X[p,0]")).encode("utf-8"))  # type: ignore[operator]
    assert [codes for codes, *_ in run([path])] == [["ok"]]
