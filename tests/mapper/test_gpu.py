"""GPU files: they load, every block of numbers has a source, and mistakes are shown where they stand."""

from __future__ import annotations

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
