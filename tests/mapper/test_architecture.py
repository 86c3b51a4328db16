"""Architecture files: what they say, what is derived from it, and errors with positions."""

from __future__ import annotations

import pytest

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import architecture


def test_areas_of_fusemax_are_the_published_ones() -> None:
    area = architecture.load("fusemax").area_um2
    assert area["array2d"] / 1e6 == pytest.approx(1208.0, abs=0.05)  # published to one decimal
    # the Pareto study's macro: 16 MiB is 32 blocks of 512 KiB
    assert area["buffer"] == 32 * 2797370
    # 256 lanes: registers 32 deep, multiplier, max, divider
    assert area["array1d"] == pytest.approx(256 * (16791.04 + 11.63484 * 5 + 1545 + 49.29 + 23740.94))


def test_settings_override_and_derived_numbers_follow() -> None:
    arch = architecture.load("fusemax", ("array2d.side=[128, 256]", "buffer.size=1 MiB", "clock_hz=1.0e+9"))
    assert arch.arrays["array2d"].lanes == 128 * 256
    assert arch.area_um2["buffer"] == 2 * 2797370
    assert arch.clock_hz == 1e9


def test_expansions_end_in_units() -> None:
    array = architecture.load("fusemax").arrays["array2d"]
    assert array.expand("exp") == {"mac": 6}
    assert array.expand("where") == {"max": 1}
    assert array.expand("divide") is None
    grid = architecture.load("teaching-32x32").arrays["grid"]
    assert grid.expand("max") is None
    assert grid.expand("where") is None


@pytest.mark.parametrize(
    "setting, code, words",
    [
        ("aray2d.side=[1, 2]", "E503", "did you mean `array2d`?"),
        ("array2d.sid=[1, 2]", "E502", "did you mean `side`?"),
        ("array2d.side=[0, 2]", "E502", "greater than or equal to 1"),
        ("array2d.side=[1, 2, 3]", "E502", "at most 2 items"),
        ("array2d", "E503", "NAME.KEY=VALUE"),
        ("array2d.units.multiplly.cycles=2", "E503", "did you mean `multiply`?"),
        ("array2d.expansions.exp={tan: 2}", "E502", "does not end in units"),
        ("dram.bandwidth=400 miles", "E502", "not a number of bytes"),
        ("buffer.size=0", "E502", "greater than 0"),
        ("clock_hz=.nan", "E502", "finite number"),
    ],
)
def test_wrong_settings_are_refused(setting: str, code: str, words: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        architecture.load("fusemax", (setting,))
    assert {diagnostic.code for diagnostic in raised.value.diagnostics} == {code}
    assert words in str(raised.value)


def test_errors_point_at_the_wrong_key_and_come_all_at_once() -> None:
    text = architecture.locate("archs", "teaching-32x32").read_text(encoding="utf-8")
    wrong = text.replace("folds_overlap: false", "folds_overlaps: false").replace("clock_hz: 1.0e+9", "clock_hz: fast")
    with pytest.raises(EinsmithError) as raised:
        architecture.loads(wrong, "chip.yaml")
    lines = wrong.splitlines()
    found = {(d.code, d.position) for d in raised.value.diagnostics}
    clock = next(i for i, line in enumerate(lines, 1) if "clock_hz" in line)
    folds = next(i for i, line in enumerate(lines, 1) if "folds_overlaps" in line)
    assert found == {("E502", (clock, 11)), ("E502", (folds, 5))}


def test_every_block_of_numbers_has_a_source() -> None:
    text = architecture.locate("archs", "teaching-32x32").read_text(encoding="utf-8")
    with pytest.raises(EinsmithError, match="lacks the key `source`"):
        architecture.loads(text.replace('energy_pj: 0.5, source: "made up for teaching"', "energy_pj: 0.5", 1))


def test_energies_follow_the_capacity() -> None:
    """The power law through the two published buffers: exact at both, in between between, and what a setting gives stands."""
    fusemax, flat = architecture.load("fusemax").memory["buffer"], architecture.load("flat").memory["buffer"]

    def at(size: str, *more: str) -> architecture.Level:
        return architecture.load("fusemax", (f"buffer.size={size}", *more)).memory["buffer"]

    large = at("32 MiB")
    assert (large.read_pj, large.write_pj) == pytest.approx((flat.read_pj, flat.write_pj), rel=1e-12)
    quarter = at("4 MiB")
    assert quarter.read_pj == pytest.approx(fusemax.read_pj * (fusemax.read_pj / flat.read_pj) ** 2, rel=1e-12)
    assert at("64 MiB").read_pj > large.read_pj > at("20 MiB").read_pj > fusemax.read_pj > quarter.read_pj
    assert at("16 MiB") == fusemax
    assert at("4 MiB", "buffer.read_pj=5").read_pj == 5
    assert at("4 MiB", "buffer.read_pj=5").write_pj == quarter.write_pj


def test_a_scaling_needs_two_capacities() -> None:
    with pytest.raises(EinsmithError) as raised:
        architecture.load("fusemax", ("buffer.scaling.bytes=16 MiB",))
    assert "two capacities" in raised.value.diagnostics[0].message
