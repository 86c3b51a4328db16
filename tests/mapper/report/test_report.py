"""Reports in a browser: no network, no complaint, sorting, hovering and filtering work; and what is in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.mapper.report import page
from einsmith.mapper.sweep import file, run, workers

from .chromium import Page, needs_chromium, visit

SWEEP = """name: boxes & arrows </script>
objectives: [latency_s, energy_pj]
points:
  product:
  - {spec: softmax, mapping: rows-three-passes, arch: fusemax, size.B: 1, size.H: 2, "size.E,size.F": 64, "size.P,size.M": 512}
  - arch.array2d.side: SIDES
  - arch.buffer.size: BUFFERS
"""


def folder_of(tmp_path: Path, sides: str, buffers: str) -> Path:
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("SIDES", sides).replace("BUFFERS", buffers))
    run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / "out", workers.Local(1))
    return tmp_path / "out"


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return folder_of(tmp_path, "[64, 96, 128, 192, 256]", "[64 KiB, 16 MiB]")


@needs_chromium
def test_ten_points(ten: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    target.write_text(page.page(page.load(ten), page.load(ten)), encoding="utf-8")

    async def use(view: Page) -> None:
        column = "[...document.querySelectorAll('#table tbody tr')].map(r => Number(r.cells[1].textContent))"
        first = await view.ask(column)
        assert first == sorted(first)
        assert len(first) == 5
        await view.ask("document.querySelector('[data-name=latency_s]').click()")
        assert await view.ask(column) == first[::-1]
        assert await view.ask("document.querySelector('th[aria-sort=descending] button').dataset.name") == "latency_s"
        await view.ask("{ const f = document.getElementById('filter'); f.value = 'arch.array2d.side>=128'; f.oninput() }")
        assert await view.ask("document.getElementById('count').textContent") == "3 of 5 rows"
        await view.ask("{ const f = document.getElementById('filter'); f.value = ''; f.oninput() }")
        await view.ask("Plotly.Fx.hover('pareto', [{curveNumber: 0, pointNumber: 0}])")
        await view.until("(document.querySelector('#pareto .hoverlayer')?.textContent || '').includes('point')")
        await view.ask("document.querySelector('#table tbody button').click()")
        command = await view.ask("document.querySelector('#about pre').textContent")
        assert "einsmith model softmax --arch fusemax --set array2d.side=[64,64]" in command
        assert (await view.ask("document.activeElement.id")) == "detail"
        assert "5 points in both; latency_s: 0 differ" in await view.ask("document.getElementById('compared').textContent")
        light = await view.ask("getComputedStyle(document.body).backgroundColor")
        await view.ask("document.getElementById('theme').click()")
        assert await view.ask("getComputedStyle(document.body).backgroundColor") != light
        nameless = (
            "[...document.querySelectorAll('button, input, select')]"
            ".filter(e => !e.textContent && !e.labels?.length && !e.ariaLabel && !e.dataset.title).length"
        )
        assert await view.ask(nameless) == 0

    view = visit(target, use)
    assert view.complaints == []
    assert view.requests == []


@needs_chromium
def test_ten_thousand_points(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{from: 8, to: 1200, step: 8}", "{from: 4000000, to: 40000000, step: 500000}")
    target = tmp_path / "r.html"
    target.write_text(page.page(page.load(folder)), encoding="utf-8")
    assert target.stat().st_size < 6e6

    async def use(view: Page) -> None:
        assert await view.ask("document.getElementById('count').textContent") == "10,000 of 10,000 rows"
        assert await view.ask("document.querySelectorAll('#table tbody tr').length") == 100
        await view.ask("document.getElementById('only').click()")
        assert 0 < int((await view.ask("document.getElementById('count').textContent")).split()[0].replace(",", "")) < 10_000

    view = visit(target, use)
    assert view.complaints == []
    assert view.requests == []


def test_a_page_holds_the_data_and_asks_for_nothing(ten: Path) -> None:
    found = page.load(ten)
    text = page.page(found)
    assert found.failed == 5
    assert [code for code, _, _ in found.reasons] == ["E520"]
    start = text.index('type="application/json">') + len('type="application/json">')
    data = json.loads(text[start : text.index("</script>", start)])
    assert data["run"]["columns"]["latency_s"] == found.columns["latency_s"]
    assert data["run"]["name"] == "boxes & arrows </script>"
    head = text[: text.index("<script")]
    assert "http" not in head
    assert "boxes &amp; arrows &lt;/script&gt;" in head


def test_the_command_and_csv(ten: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["report", str(ten), "-o", str(tmp_path / "r.html"), "--csv", str(tmp_path / "t.csv"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["points"] == 10
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 11
    assert '"latency_s"' in lines[0]


def test_no_results_and_damaged_results(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert (done.exit_code, "error[E707]" in done.stderr) == (1, True)
    pq.write_table(pa.table({"point": [1]}), tmp_path / "results.parquet")
    whole = (tmp_path / "results.parquet").read_bytes()
    (tmp_path / "results.parquet").write_bytes(whole[:-9])
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert (done.exit_code, "error[E705]" in done.stderr) == (1, True)
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "arguments, kind, says",
    [
        (["softmax", "--rank", "m"], "cascade", "pass 3"),
        (["rows-two-passes"], "mapping", "for h by 1"),
        (["softmax", "--gpu", "h200", "--size", "B=1,H=2,P=256,M=256,E=64,F=64"], "plan", "BLOCK"),
        (
            ["fusemax", "--arch", "fusemax", "--mapping", "fusemax-binding", "--size", "B=1,H=1,P=1K,M=1K,E=64,F=64"],
            "timeline", "array2d",
        ),
    ],
    ids=["cascade", "mapping", "plan", "timeline"],
)  # fmt: skip
def test_show(arguments: list[str], kind: str, says: str, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    done = CliRunner().invoke(main, ["show", *arguments, "-o", str(tmp_path / "x.svg"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["kind"] == kind
    assert says.lower() in found["text"].lower()
    tree = ElementTree.parse(tmp_path / "x.svg")
    assert says.lower() in "".join(tree.getroot().itertext()).lower()
