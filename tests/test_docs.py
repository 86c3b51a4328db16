"""Every command in the README and the docs runs, and prints what the page says it prints.

In a page, a fence ```` ```yaml NAME.yaml ```` writes a file; a fence ```` ```console ```` holds commands after `$ ` (a line that
ends in a backslash goes on) and what they print. A line `...` stands for any number of lines, `...` inside a line for any text.
A fence ```` ```python run ```` is executed. The blocks of one page share a folder, in which `examples` is the repository's.
`pytest --update` writes what the commands print now into blocks without `...` (not in CI).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.M | re.S)


@dataclass
class Command:
    line: str
    expected: list[str]


def commands(body: str) -> list[Command]:
    found: list[Command] = []
    lines = iter(body.splitlines())
    for line in lines:
        if line.startswith("$ "):
            text = line[2:]
            while text.endswith("\\"):
                text = f"{text}\n{next(lines)}"
            found.append(Command(text, []))
        elif found:
            found[-1].expected.append(line)
        else:
            raise AssertionError(f"a console block starts with a command, not with {line!r}")
    return found


def matches(expected: list[str], printed: list[str]) -> bool:
    parts = []
    for line in expected:
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append(r"[^\n]*?".join(re.escape(piece) for piece in line.rstrip().split("...")) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), "".join(line + "\n" for line in printed)) is not None


def execute(line: str, folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("GITHUB_ACTIONS", None)
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout + done.stderr


def runnable(page: Path) -> bool:
    return any(
        match["info"].split()[:1] == ["console"] or match["info"] == "python run" for match in FENCE.finditer(page.read_text())
    )


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = page.read_text(encoding="utf-8")
    wrong: list[str] = []

    def visit(match: re.Match[str]) -> str:
        info, body = match["info"].split(), match["body"]
        if len(info) == 2 and info[0] in ("yaml", "python") and info[1] != "run":
            (tmp_path / info[1]).write_text(body, encoding="utf-8")
        elif info == ["python", "run"]:
            done = subprocess.run(
                [sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode:
                wrong.append(done.stderr)
        elif info == ["console"]:
            new = ""
            for command in commands(body):
                printed = [line.rstrip() for line in execute(command.line, tmp_path).splitlines()]
                if not matches(command.expected, printed):
                    wrong.append(f"$ {command.line}\n" + "\n".join(printed))
                kept = command.expected if any("..." in line for line in command.expected) else printed
                new += f"$ {command.line}\n" + "".join(line + "\n" for line in kept)
            return f"```{match['info']}\n{new}```"
        return match[0]

    updated = FENCE.sub(visit, text)
    if request.config.getoption("--update"):
        page.write_text(updated, encoding="utf-8")
        return
    assert not wrong, "\n\n".join([f"{page.name} says otherwise:", *wrong])


def test_links_inside_the_docs() -> None:
    for page in PAGES:
        prose = re.sub(r"`[^`\n]*`|^    .*$", "", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.M)
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_demo_and_test_are_make_targets() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.M)
