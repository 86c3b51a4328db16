"""The layout: import rule, refusal of a second import name, what the wheel holds, which heavy modules commands import."""

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("einsum", "mapper", "sim", "kernels", "cli")
ALLOWED = {
    "einsum": {"einsum"},
    "mapper": {"einsum", "mapper"},
    "sim": {"einsum", "mapper", "sim"},
    "kernels": {"einsum", "mapper", "kernels"},
    "cli": set(PARTS),
}
HEAVY = ("torch", "triton", "sympy", "matplotlib", "dask", "distributed", "numba")


def modules() -> list[Path]:
    return sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))


def imported(path: Path, everywhere: bool = True) -> list[tuple[str, ...]]:
    """Dotted names that a file imports, relative ones resolved against the package; `everywhere` includes function bodies."""
    package = path.relative_to(ROOT).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else _top_level(tree)
    names: list[tuple[str, ...]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names += [(*module, alias.name) for alias in node.names]
    return [name[1:] if name[0] == "einsmith" else name for name in names]


def _top_level(tree: ast.Module) -> list[ast.AST]:
    """Statements executed on import: function bodies and `if TYPE_CHECKING` left out."""
    found: list[ast.AST] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            found.append(child)
            stack.append(child)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_import_rule(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    wrong = [name for name in imported(path) if name[0] in PARTS and name[0] not in ALLOWED[part]]
    assert not wrong, f"{part} may import only {sorted(ALLOWED[part])}"


def test_analysis_never_imports_rewrite() -> None:
    for path in (ROOT / "einsum/analysis").rglob("*.py"):
        assert not [name for name in imported(path) if name[:2] == ("einsum", "rewrite")], path


def test_interpret_imports_only_the_ir() -> None:
    ir = {"cascade", "source", "diagnostics", "flatten", "sizes"}
    seen: set[str] = set()
    queue = ["interpret"]
    while queue:
        name = queue.pop()
        if name in seen or name in ir:
            continue
        seen.add(name)
        path = ROOT / "einsum" / f"{name}.py"
        queue += [found[1] for found in imported(path) if found[0] == "einsum" and len(found) > 1]
    assert not seen & {"spec", "parse", "resolve", "printer", "analysis", "rewrite", "verify"}, seen


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_modules_are_imported_where_used(path: Path) -> None:
    assert not [name for name in imported(path, everywhere=False) if name[0] in HEAVY]


@pytest.mark.parametrize(
    "arguments, banned",
    [
        (["--help"], ("numpy", "networkx", "pydantic", "simpy", "lark", "yaml", *HEAVY)),
        (["analyze", "examples/attention/softmax.yaml"], ("numpy", "networkx", "pydantic", "simpy", *HEAVY)),
    ],
    ids=["help", "analyze"],
)
def test_commands_stay_light(arguments: list[str], banned: tuple[str, ...]) -> None:
    code = (
        f"import sys, json\nsys.argv = ['einsmith', *{arguments!r}]\nfrom einsmith.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not set(loaded) & set(banned)


@pytest.mark.parametrize("part", PARTS)
def test_second_import_name_is_refused(part: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {part}"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode != 0
    assert f"import this folder as `einsmith.{part}`" in done.stderr


def test_wheel_holds_what_git_holds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    tracked = [name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)]
    for name in tracked:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        else:
            target.write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    parts = tuple(f"{part}/" for part in PARTS)
    expected = {f"einsmith/{name}" for name in tracked if name.startswith(parts)}
    expected |= {f"einsmith/{name}" for name in tracked if name.startswith("examples/") and name.endswith(".yaml")}
    expected |= {
        name.removeprefix("src/") for name in tracked if name.startswith("src/einsmith/") and not (ROOT / name).is_symlink()
    }
    assert held == expected
