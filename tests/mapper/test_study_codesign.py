"""Co-designs of a study: within the area of the published design, never slower, point by point and together."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.mapper import study, study_codesign

FREE = {"rows": [256, 342], "columns": [205, 256], "lanes": [128, 256], "buffer.size": ["1 MiB", "16 MiB"]}


def test_the_same_area_spent_otherwise_is_faster() -> None:
    file = study.load("fusemax").only(("BERT",), ("1K", "64K"))
    ask = file.codesigns["same-area"].model_copy(update={"free": FREE, "gap": 0.02})
    short, long, both = study_codesign.bouts(file.model_copy(update={"codesigns": {"same-area": ask}}))
    published = study.machine_of(file, file.configs[ask.against], "paper")
    for bout in (short, long, both):
        assert bout.found.optimal
        assert bout.found.counts["over the area"] > 0
        assert bout.found.best.design.area_um2 <= sum(published.area_um2.values())
        assert all(bout.speedup(number) > 1 for number in range(len(bout.points)))
        assert bout.found.best.design.buffer_bytes == 2**20
    assert [len(bout.points) for bout in (short, long, both)] == [1, 1, 2]
    for number, alone in enumerate((short, long)):
        assert both.speedup(number) <= alone.speedup(0) / (1 - ask.gap) * (1 + 1e-6)  # alone, a point has the choice of all designs
    assert both.as_json()["points"][1]["length"] == "64K"


@pytest.mark.parametrize(
    ("words", "code"), [(["--codesign", "no-such"], 1), (["--codesign", "same-area", "--search", "searched"], 2)]
)
def test_wrong_words_are_refused(words: list[str], code: int) -> None:
    done = CliRunner().invoke(main, ["reproduce", "fusemax", *words])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
