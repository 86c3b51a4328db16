"""GPU files: they load, every block of numbers has a source, and mistakes are shown where they stand."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from pydantic import BaseModel

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import gpu

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "examples" / "gpus").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_numbers_has_a_source(name: str) -> None:
    found = gpu.load(name)
    assert found.name == name
    blocks = [value for _, value in found if isinstance(value, BaseModel)]
    assert len(blocks) >= 8
    assert all(len(block.source) > 20 for block in blocks)  # type: ignore[attr-defined]


def test_figures_of_the_h200() -> None:
    h200 = gpu.load("h200")
    assert h200.multiprocessors.count == 132
    assert h200.shared_memory.per_block == 232448
    assert h200.matrix_rate("float32") is None, "exact float32 products have no matrix unit"
    assert h200.matrix_rate("float32", allow_tf32=True) == h200.matrix.tf32
    assert h200.special_rate == pytest.approx(16 * 132 * 1.98e9)


def test_a_wrong_key_and_a_wrong_value_are_both_shown_in_place() -> None:
    text = (ROOT / "examples" / "gpus" / "h200.yaml").read_text()
    text = text.replace("  threads: 2048", "  threads: many").replace("launch: {latency_s", "launch: {latency")
    with pytest.raises(EinsmithError) as raised:
        gpu.loads(text, "mine.yaml")
    found = {(d.code, d.position[0]) for d in raised.value.diagnostics}
    lines = text.splitlines()
    assert ("E502", 1 + next(i for i, line in enumerate(lines) if "many" in line)) in found
    assert ("E502", 1 + next(i for i, line in enumerate(lines) if line.startswith("launch"))) in found


# --- the page of GPU files: `pytest tests/mapper/test_gpu.py -k page --update` writes it ---

PAGE = ROOT / "docs" / "reference" / "gpus.md"
INTRODUCTION = """# GPU files

What a plan knows about a GPU it reads from a file: one of those below, by name, or your own (`einsmith plan SPEC --gpu mine.yaml`).
Nothing in einsmith knows a GPU by its name. Sizes may be written `64 KiB`, `80 GB`; every block of numbers has its `source`. Wrong
keys and values are refused with their positions (E501, E502). What a plan makes of each number is in the
[design note](../design/kernels.md).

Kernels can be compiled ahead of time for the targets `sm_80`, `sm_90`, `sm_100` and `gfx942`.
"""


def declared() -> dict[str, dict[str, str]]:
    """Class -> field -> its docstring, in the order of the source."""
    tree = ast.parse((ROOT / "mapper" / "gpu.py").read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            texts = {}
            for field, text in itertools.pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                    assert isinstance(text.value, ast.Constant)
                    texts[field.target.id] = " ".join(str(text.value.value).split())
            found[node.name] = texts
    return found


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)


def page() -> str:
    """Every field with its unit, the values of every file, and their sources."""
    texts = declared()
    gpus = [gpu.load(name) for name in NAMES]
    parts = [INTRODUCTION, "| field | meaning |", "|---|---|"]
    parts += [f"| `{n}` | {texts['Gpu'][n]} |" for n, f in gpu.Gpu.model_fields.items() if not is_block(f.annotation)]
    for name, field in gpu.Gpu.model_fields.items():
        block = field.annotation
        if not is_block(block):
            continue
        assert isinstance(block, type)
        parts += ["", f"## `{name}`", "", texts["Gpu"][name], ""]
        parts += [f"| field | meaning | {' | '.join(NAMES)} |", f"|---|---|{'---|' * len(NAMES)}"]
        for key, text in texts[block.__name__].items():
            if key != "source":
                values = [shown(value) if (value := getattr(getattr(one, name), key)) is not None else "" for one in gpus]
                parts.append(f"| `{key}` | {text} | {' | '.join(values)} |")
        parts += ["", *(f"* {one.name}: {getattr(one, name).source}" for one in gpus)]
    return "\n".join(parts) + "\n"


def is_block(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_every_field_says_what_it_is() -> None:
    texts = declared()
    for name, model in vars(gpu).items():
        if is_block(model) and model.__module__ == gpu.__name__:
            assert set(texts[name]) == set(model.model_fields)


def test_the_page_of_gpu_files(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
