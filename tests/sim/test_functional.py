"""Mappings executed on data: values equal to the interpreter's, access counts equal to the cost model's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from einsmith.cli.main import main
from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import random_inputs
from einsmith.einsum.library import EXAMPLES
from einsmith.mapper import accesses, architecture, mapping
from einsmith.mapper.mapping import Mapping
from einsmith.mapper.search import search
from einsmith.sim import functional
from einsmith.sim.functional import Executed, execute
from einsmith.sim.simulate import simulate
from einsmith.sim.tile_by_tile import TileByTile

from .test_simulate import GEMM, agrees

SIZES = {"B": 1, "H": 2, "G": 2, "P": 13, "M": 13, "L": 13, "N": 13, "E": 3, "F": 5, "D": 3, "C": 4, "M0": 4}
SMALL = ("array2d.side=[4, 4]", "array1d.side=[4]")
PUBLISHED = mapping.load("fusemax-binding").as_yaml().replace("tile: 1024", "tile: 8").replace("tile: 256", "tile: 4")
PUBLISHED = PUBLISHED.replace("M0: 256", "M0: 4")


def attention(name: str) -> Cascade:
    return spec.load(EXAMPLES / "attention" / f"{name}.yaml")


def executed(cascade: Cascade, found: Mapping | None, arch: str = "fusemax", settings: tuple[str, ...] = SMALL) -> Executed:
    machine = architecture.load(arch, settings)
    sizes = {symbol: SIZES[symbol] for symbol in cascade.symbols if symbol in SIZES}
    mapped = found or search(cascade, machine, sizes, gap=1.0).mapping  # any that is not bad
    inputs = random_inputs(cascade, {**mapped.sizes, **sizes}, None, np.random.default_rng(0))
    return execute(cascade, machine, mapped, inputs, sizes)


def holds(run: Executed) -> None:
    assert run.equal, run.errors
    assert not run.differences
    assert "every count is the cost model's" in str(run)


def test_the_published_binding() -> None:
    holds(executed(attention("fusemax"), mapping.loads(PUBLISHED)))


@pytest.mark.parametrize(
    "name",
    [
        "softmax", "softmax-causal", "gqa", "mqa", "linear", "linear-causal", "channel", "sliding-window", "na1d", 
        "deferred-division", "tile-local-2pass", "tile-local-merge", "sink", "flash2",
    ],
)  # fmt: skip
def test_what_the_search_finds(name: str) -> None:
    holds(executed(attention(name), None))


CONFIGS = {
    "unfused": ("softmax", "flat"), "flat": ("softmax", "flat"), "cascade": ("fusemax", "flat"), "arch": ("fusemax", "fusemax"),
    "binding": ("fusemax", "fusemax"),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_published_mappings(config: str) -> None:
    name, arch = CONFIGS[config]
    cascade, machine = attention(name), architecture.load(arch)
    sizes = {"B": 1, "H": 2, "P": 300, "M": 270, "E": 8, "F": 8}  # a whole tile of 256 and a tail
    mapped = mapping.load_for(f"published-{config}", cascade, sizes, {"scale": 1}, machine)
    inputs = random_inputs(cascade, {**mapped.sizes, **sizes}, {"scale": 1}, np.random.default_rng(0))
    holds(execute(cascade, machine, mapped, inputs, sizes, {"scale": 1}))


SPILLED = """groups:
- loops: [{rank: b, tile: 1}, {rank: h, tile: 1, hold: [K, V]}, {rank: p, tile: 4, hold: [Q]}]
  einsums:
    QK: {array: array2d, spatial: [p, m]}
    GM: {array: array1d, spatial: [p]}
    SN: {array: array1d, spatial: [p]}
    SD: {array: array1d, spatial: [p]}
    SNV: {array: array2d, spatial: [p, f]}
    AV: {array: array1d, spatial: [p]}
  in_place: [[QK, SN]]
  spill: [QK, SN]
  stay: {GM: array1d, SD: array1d, SNV: forward, AV: forward}
"""


def test_two_passes_with_spilling() -> None:
    run = executed(attention("deferred-division"), mapping.loads(SPILLED), settings=(*SMALL, "buffer.size=560"))
    holds(run)
    (counted,) = run.counts
    for name in ("QK", "SN"):  # of each word made a share goes out, and comes back for each use
        assert 0 < counted["dram"]["written"][name] < counted["buffer"]["written"][name]
        assert counted["dram"]["read"][name] / counted["dram"]["written"][name] == pytest.approx(
            counted["buffer"]["read"][name] / counted["buffer"]["written"][name]
        )


def test_what_takes_a_place_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it not refused that something takes the place of weights that are read afterwards, the values would show it."""
    cascade, mapped = attention("deferred-division"), mapping.loads(SPILLED)
    monkeypatch.setattr(TileByTile, "_replaced", {"SD": ("SN",)})
    assert not executed(cascade, mapped, settings=(*SMALL, "buffer.size=560")).equal


SELECTIONS = """name: selections
ranks: {p: P, m: M, e: E, j: 3}
inputs: {Q: [p, e], K: [m, e]}
cascade: |
  S[p,m] = Q[p,e] * K[m,e]
  I[p] = argmax[m](S[p,m])
  L[p] = argmin[m](S[p,m])
  J[p,j] = argtopk[m](S[p,m])
  T[p,j] = topk[m](S[p,m])
  C[p,m] = cumsum[m](S[p,m])
  D[p,m] = cummax[p](C[p,m])
  Y[p] = sum[j](T[p,j] + J[p,j]) + I[p] - L[p]
  Z[p] = max[m](D[p,m]) + Y[p]
outputs: [Z, I, J]
"""


def test_selections_positions_and_scans() -> None:
    units = ("topk", "argtopk", "argmax", "argmin", "cumsum", "cummax")
    run = executed(spec.loads(SELECTIONS), None, settings=(*SMALL, *(f"array1d.expansions.{unit}={{mac: 2}}" for unit in units)))
    holds(run)
    # the position of the greatest value over a rank that is cut: the first of equal ones, whatever the order of the tiles
    cascade = spec.loads("name: first\nranks: {p: P, m: M}\ninputs: {X: [p, m]}\ncascade: I[p] = argmax[m](X[p,m])\noutputs: [I]\n")
    text = "groups:\n- loops: [{rank: m, tile: 3}, {rank: p, tile: 2}]\n  einsums: {I: {array: array1d, spatial: [p]}}\n"
    machine = architecture.load("fusemax", (*SMALL, "array1d.expansions.argmax={mac: 2}"))
    equal = np.random.default_rng(0).integers(0, 3, (5, 11)).astype(float)
    found = execute(cascade, machine, mapping.loads(text), {"X": equal})
    holds(found)
    assert np.array_equal(found.outputs["I"], equal.argmax(1))


GATHERS = """name: gathers
ranks: {p: P, j: J, m: M, e: E}
inputs: {Q: [p, e], K: [m, e], V: [m, e]}
cascade: |
  X[p,m] = Q[p,e] * K[m,e]
  I[p,j] = argtopk[m](X[p,m])
  S[p,j] = Q[p,e] * K[I[p,j],e]
  O[p,e] = S[p,j] * V[I[p,j],e]
outputs: [O]
"""
BY_ROW = """groups:
- loops: [{rank: p, tile: 3}]
  einsums: {X: {array: array2d, spatial: [p, m]}, I: {array: array1d, spatial: [p]}}
- loops: [{rank: p, tile: 3}, {rank: j, tile: 2}]
  einsums: {S: {array: array2d, spatial: [p, j]}, O: {array: array2d, spatial: [p, e]}}
"""
UNITS = (*SMALL, "array1d.expansions.argtopk={mac: 2}")


def test_gathers() -> None:
    cascade, machine, sizes = spec.loads(GATHERS), architecture.load("fusemax", UNITS), {"P": 8, "M": 11, "J": 5, "E": 3}
    inputs = random_inputs(cascade, sizes, None, np.random.default_rng(1))
    holds(execute(cascade, machine, mapping.loads(BY_ROW), inputs, sizes))
    with pytest.raises(EinsmithError) as raised:  # the run of events has no values but those that it is given
        simulate(cascade, machine, mapping.loads(BY_ROW), sizes)
    assert raised.value.diagnostics[0].code == "E530"
    agrees(simulate(cascade, machine, mapping.loads(BY_ROW), sizes, traces=functional.gathered(cascade, inputs, sizes)))


def test_gathers_by_command(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "spec.yaml").write_text(GATHERS)
    (tmp_path / "how.yaml").write_text(BY_ROW)
    arguments = ["simulate", f"{tmp_path}/spec.yaml", "--arch", "fusemax", "--mapping", f"{tmp_path}/how.yaml", "--json"]
    arguments += ["--size", "P=8,M=11,J=5,E=3", *(part for text in UNITS for part in ("--set", text))]
    data = CliRunner().invoke(main, [*arguments, "--functional"])
    assert data.exit_code == 0, data.stderr
    assert json.loads(data.stdout)["functional"]["counts_equal"]
    cascade, sizes = spec.loads(GATHERS), {"P": 8, "M": 11, "J": 5, "E": 3}
    inputs = functional.random_data(cascade, mapping.loads(BY_ROW), sizes)
    np.savez(tmp_path / "at.npz", **functional.gathered(cascade, inputs, sizes))
    told = CliRunner().invoke(main, [*arguments, "--gathers", f"{tmp_path}/at.npz"])
    assert json.loads(told.stdout)["cycles"] == json.loads(data.stdout)["cycles"]


@settings(max_examples=25)
@given(
    st.tuples(*[st.integers(1, 13)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.permutations("mnk"), st.integers(0, 5),
    st.sampled_from((("m", "n"), ("k", "n"), ("m", "k"), ("n", "m"))), st.sampled_from(("grid", "buffer", "forward")),
)  # fmt: skip
def test_any_gemm_mapping(
    mnk: tuple[int, int, int], tiles: tuple[int, int, int], order: list[str], outer: int, spatial: tuple[str, str], stay: str
) -> None:
    loops = ", ".join(f"{{rank: {rank}, tile: {tile}}}" for rank, tile in zip(order, tiles, strict=True))
    if outer:
        loops = f"{{rank: {order[2]}, tile: {tiles[2] + outer}}}, " + loops
    text = f"groups:\n- loops: [{loops}]\n  einsums: {{C: {{array: grid, spatial: [{', '.join(spatial)}]}}}}\n" + (
        f"  stay: {{C: {stay}}}\n" if stay != "grid" else ""
    )
    arch = architecture.load("teaching-32x32", ("grid.side=[4, 4]", "buffer.size=1 MiB"))
    cascade = spec.loads(GEMM)
    sizes = dict(zip(("M", "N", "K"), mnk, strict=True))
    inputs = random_inputs(cascade, sizes, None, np.random.default_rng(0))
    try:
        run = execute(cascade, arch, mapping.loads(text), inputs, sizes)
    except EinsmithError as error:
        if error.diagnostics[0].code == "E522" and stay == "forward":
            return  # what is handed on must not be needed again
        raise
    holds(run)


def test_masked_rows_and_large_logits() -> None:
    cascade = attention("softmax-causal")
    machine = architecture.load("fusemax", SMALL)
    sizes = {"B": 1, "H": 1, "P": 9, "M": 5, "E": 3, "F": 2}
    inputs = random_inputs(cascade, sizes, None, np.random.default_rng(0))
    inputs["Q"] = inputs["Q"] * 1e4
    holds(execute(cascade, machine, search(cascade, machine, sizes, gap=1.0).mapping, inputs, sizes))


def test_a_mapping_that_loses_a_tile_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The execution sees what the checks of legality are there to prevent: here it is told that a state is gone with every tile."""
    cascade = attention("fusemax")
    forget = TileByTile._make_room

    def forgetful(self: TileByTile, resident: object, index: object) -> None:
        forget(self, resident, index)  # type: ignore[arg-type]
        if resident.tensor == "SLN":  # type: ignore[attr-defined]
            self.made["RD"][...] = np.nan

    monkeypatch.setattr(TileByTile, "_make_room", forgetful)
    assert not executed(cascade, mapping.loads(PUBLISHED)).equal


def test_a_count_that_the_model_gets_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesses, "words", lambda nest, visits: 1.0)
    run = executed(attention("softmax"), None)
    assert run.differences
    assert not run.as_json()["counts_equal"]


def test_what_is_too_large_to_execute_is_refused() -> None:
    cascade = spec.loads(GEMM)
    sizes = dict.fromkeys("MNK", 512)
    loops = "[{rank: m, tile: 32}, {rank: n, tile: 32}, {rank: k, tile: 32}]"
    text = f"groups:\n- loops: {loops}\n  einsums: {{C: {{array: grid, spatial: [m, n]}}}}\n"
    inputs = {"A": np.zeros((512, 512)), "B": np.zeros((512, 512))}
    with pytest.raises(EinsmithError) as raised:
        execute(cascade, architecture.load("teaching-32x32"), mapping.loads(text), inputs, sizes)
    assert raised.value.diagnostics[0].code == "E542"
