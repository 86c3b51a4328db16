"""Reports in a browser: no network, no complaint, sorting, hovering and filtering work; and what is in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from einsmith.cli.main import main
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.library import locate
from einsmith.mapper import cost, mapping
from einsmith.mapper.report import compare, page
from einsmith.mapper.sweep import file, point, run, workers

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
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("SIDES", sides).replace("BUFFERS", buffers))
    run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / "out", workers.Local(1))
    return tmp_path / "out"


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return folder_of(tmp_path, "[64, 96, 128, 192, 256]", "[64 KiB, 16 MiB]")


@needs_chromium
def test_ten_points(ten: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    other = folder_of(tmp_path / "other", "[64, 96, 100]", "[16 MiB]")
    done = CliRunner().invoke(main, ["report", str(ten), "--compare", str(other), "-o", str(target), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pictures"] == 5

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
        await view.until("document.querySelectorAll('#pareto .points path').length >= 5")
        await view.ask("Plotly.Fx.hover('pareto', [{curveNumber: 0, pointNumber: 0}])")
        await view.until("(document.querySelector('#pareto .hoverlayer')?.textContent || '').includes('latency_s')")
        await view.ask("document.querySelector('#table tbody button').click()")
        command = await view.ask("document.querySelector('#about pre').textContent")
        assert "einsmith model softmax --arch fusemax --set array2d.side=[64,64]" in command
        assert f"einsmith show {ten} --point" in command
        tabs = "[...document.querySelectorAll('.tabs button')]"
        assert await view.ask(f"{tabs}.map(b => b.textContent).join()") == "timeline,mapping,mapping.yaml"
        await view.until("document.querySelector('#about iframe')?.srcdoc.includes('cycles 0 to')")
        await view.ask(f"{tabs}[1].click()")
        await view.until("document.querySelector('#about iframe')?.srcdoc.includes('for h by 1')")
        link = await view.ask("document.querySelector('#about a').download")
        assert link.startswith("point-")
        assert link.endswith("-mapping.svg")
        await view.ask(f"{tabs}[2].click()")
        await view.until("(document.querySelector('#about pre')?.textContent || '').startsWith('name: rows-three-passes')")
        assert (await view.ask("document.activeElement.id")) == "detail"
        compared = await view.ask("document.getElementById('compared').textContent")
        assert f"2 points in both; 8 only in {tmp_path.name}/out; 1 only in other/out; latency_s: 0 differ" in compared
        alone = await view.ask("[...document.querySelectorAll('#alone summary')].map(s => s.textContent).join(' | ')")
        assert "1 points only in other/out (values that only it has: arch.array2d.side: 100" in alone
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
def test_points_without_pictures_have_their_mapping(ten: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    assert CliRunner().invoke(main, ["report", str(ten), "-o", str(target), "--pictures", "0"]).exit_code == 0

    async def use(view: Page) -> None:
        await view.ask("document.querySelector('#table tbody button').click()")
        await view.until(
            "(document.querySelector('#about .tabs ~ div pre')?.textContent || '').startsWith('name: rows-three-passes')"
        )
        assert await view.ask("document.querySelector('#about a').download.endsWith('-mapping.yaml')")

    view = visit(target, use)
    assert (view.complaints, view.requests) == ([], [])


PLANS = """name: plans
objectives: [latency_s]
workload: [size.P]
points:
  product:
  - {spec: softmax, derive: m, "size.B,size.H": 1, "size.E,size.F": 64, gpu: h200, dtype: bfloat16}
  - "size.P,size.M": [256, 512]
"""


@needs_chromium
def test_points_on_gpus_have_plan_and_kernel(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(PLANS)
    folder = run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / "out", workers.Local(1)).folder
    target = tmp_path / "r.html"
    done = CliRunner().invoke(main, ["report", str(folder), "-o", str(target), "--pictures", "1", "--json"])
    assert json.loads(done.stdout)["pictures"] == 1

    async def use(view: Page) -> None:
        tabs, text = (
            "[...document.querySelectorAll('.tabs button')]",
            "document.querySelector('#about .tabs ~ div pre')?.textContent",
        )
        assert await view.ask("document.getElementById('workload').value") == "P 256"  # what is seen first has the pictures
        await view.ask("document.querySelector('#table tbody button').click()")
        assert await view.ask(f"{tabs}.map(b => b.textContent).join()") == "plan,kernel.py"
        commands = (await view.ask("[...document.querySelectorAll('#about pre')].at(-1).textContent")).splitlines()
        assert commands[-2:] == [
            "einsmith derive softmax --rank m -o derived.yaml",
            "einsmith plan derived.yaml --gpu h200 --size B=1,H=1,E=64,F=64,P=256,M=256 --dtype bfloat16",
        ]
        await view.until("document.querySelector('#about iframe')?.srcdoc.includes('program instances over')")
        await view.ask(f"{tabs}[1].click()")
        await view.until(f"({text} || '').includes('@triton.jit')")
        await view.ask("{ const w = document.getElementById('workload'); w.value = 'P 512'; w.onchange() }")
        await view.ask("document.querySelector('#table tbody button').click()")
        assert await view.ask(f"{tabs}.map(b => b.textContent).join()") == "plan.json"
        await view.until(f"({text} || '').includes('\\\"gpu\\\": \\\"h200\\\"')")

    view = visit(target, use)
    assert (view.complaints, view.requests) == ([], [])


@needs_chromium
def test_nothing_but_failures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "[64, 128]", "[1 KiB]")
    target = tmp_path / "r.html"
    done = CliRunner().invoke(main, ["report", str(folder), "-o", str(target)])
    assert done.exit_code == 0, done.output

    async def use(view: Page) -> None:
        assert await view.ask("document.getElementById('failures').open")
        assert "E520" in await view.ask("document.getElementById('failures').textContent")
        light = await view.ask("getComputedStyle(document.body).backgroundColor")
        await view.ask("document.getElementById('theme').click()")
        assert await view.ask("getComputedStyle(document.body).backgroundColor") != light

    view = visit(target, use)
    assert (view.complaints, view.requests) == ([], [])


@needs_chromium
def test_ten_thousand_points(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{from: 8, to: 1200, step: 8}", "{from: 4000000, to: 40000000, step: 500000}")
    target = tmp_path / "r.html"
    done = CliRunner().invoke(main, ["report", str(folder), "-o", str(target), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pictures"] == 24
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
    assert [(reason.code, reason.points) for reason in found.reasons] == [("E520", 5)]
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


def test_two_runs_with_different_points(ten: Path, tmp_path: Path) -> None:
    same = compare.compare(ten, ten, ("latency_s",))
    assert (same.both, same.only, same.changed, same.texts) == (10, (0, 0), {"latency_s": 0}, ())
    assert set(same.ratios["latency_s"]) == {1.0}
    text = (
        (tmp_path / "sweep.yaml")
        .read_text()
        .replace("[64, 96, 128, 192, 256]", "[64, 80]")
        .replace("arch: fusemax", "arch: mine.yaml")
    )
    (tmp_path / "mine.yaml").write_text((locate("archs", "fusemax")).read_text().replace("400 GiB/s", "100 GiB/s"))
    (tmp_path / "other.yaml").write_text(text.replace("mine.yaml", "fusemax"))
    other = run.sweep(file.load(tmp_path / "other.yaml"), tmp_path / "other", workers.Local(1)).folder
    found = compare.compare(ten, other, ("latency_s", "energy_pj"))
    assert (found.both, found.only) == (2, (8, 2))
    assert {(name, value, side) for name, value, side in found.values} == {
        *(("arch.array2d.side", value, 0) for value in ("96", "128", "192", "256")), ("arch.array2d.side", "80", 1)
    }  # fmt: skip
    assert [point["arch.array2d.side"] for point in found.named[1]] == ["80", "80"]
    (tmp_path / "sweep.yaml").write_text(text)
    slow = run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / "slow", workers.Local(1)).folder
    assert compare.compare(slow, other, ("latency_s",)).both == 0  # the name of the architecture differs


def test_a_changed_file_under_the_same_name(tmp_path: Path) -> None:
    text = SWEEP.replace("SIDES", "[256]").replace("BUFFERS", "[16 MiB]").replace("arch: fusemax", "arch: mine.yaml")
    (tmp_path / "sweep.yaml").write_text(text)
    found = []
    for bandwidth in ("400 GiB/s", "1 GiB/s"):
        (tmp_path / "mine.yaml").write_text(locate("archs", "fusemax").read_text().replace("400 GiB/s", bandwidth))
        found.append(run.sweep(file.load(tmp_path / "sweep.yaml"), tmp_path / bandwidth[0], workers.Local(1)).folder)
    comparison = compare.compare(found[0], found[1], ("latency_s", "energy_pj"))
    assert (comparison.both, comparison.changed) == (1, {"latency_s": 1, "energy_pj": 0})
    assert comparison.texts == ("mine.yaml",)
    assert comparison.ratios["latency_s"][0] < 1


def test_a_point_is_shown_with_what_it_was_evaluated_with(ten: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").unlink()  # the folder holds all that is needed
    table = pq.read_table(ten / "results.parquet").to_pylist()
    for row in table:
        one = point.Points(ten).at(row)
        assert one.arch is not None
        assert one.mapping is not None
        if row["status"] == "done":
            exact = cost.model(one.cascade, one.arch, one.mapping, one.sizes, one.params)
            assert exact.latency_s == pytest.approx(row["latency_s"], rel=1e-12)
        else:
            with pytest.raises(EinsmithError):
                cost.model(one.cascade, one.arch, one.mapping, one.sizes, one.params)
    failed = next(row["point"] for row in table if row["status"] != "done")
    done = CliRunner().invoke(main, ["show", str(ten), "--point", str(failed)])
    assert (done.exit_code, "E520" in done.stdout) == (0, True)
    good = next(row["point"] for row in table if row["status"] == "done")
    for name, start in (("t.svg", "<svg"), ("m.yaml", "name: rows-three-passes")):
        done = CliRunner().invoke(main, ["show", str(ten), "--point", str(good), "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).read_text().startswith(start)
    assert mapping.load(tmp_path / "m.yaml") == mapping.load("rows-three-passes").model_copy(
        update={"doc": mapping.load(tmp_path / "m.yaml").doc}
    )
    done = CliRunner().invoke(main, ["show", str(ten), "--point", "11"])
    assert (done.exit_code, "error[E707]" in done.stderr) == (1, True)


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
        (["softmax", "--gpu", "h200", "--size", "B=1,H=2,P=256,M=256,E=64,F=64"], "plan", "registers hold GM_run"),
        (["softmax", "--gpu", "h200", "--size", "B=1,H=2,P=256,M=256,E=64,F=64", "--what", "kernel"], "kernel", "@triton.jit"),
        (
            [
                "fusemax", "--arch", "fusemax", "--mapping", "fit-one-pass", "--what", "mapping",
                "--size", "B=1,H=1,P=1K,M=1K,E=64,F=64,M0=256",
            ],
            "mapping", "for p by 1024 (1 step)",
        ),
        (
            ["fusemax", "--arch", "fusemax", "--mapping", "fusemax-binding", "--size", "B=1,H=1,P=1K,M=1K,E=64,F=64"],
            "timeline", "array2d",
        ),
    ],
    ids=["cascade", "mapping", "plan", "kernel", "settled", "timeline"],
)  # fmt: skip
def test_show(arguments: list[str], kind: str, says: str, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    done = CliRunner().invoke(main, ["show", *arguments, "-o", str(tmp_path / "x.svg"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["kind"] == kind
    assert says.lower() in " ".join(found["text"].lower().split())
    tree = ElementTree.parse(tmp_path / "x.svg")
    assert says.lower() in " ".join(" ".join(tree.getroot().itertext()).lower().split())
