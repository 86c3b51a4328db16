"""Searches beside the published mappings of FuseMax and FLAT: never slower, near the bound, and the proof that goes with it."""

from __future__ import annotations

from functools import cache

import pytest

from einsmith.einsum.diagnostics import EinsmithError
from einsmith.mapper import study, study_search
from einsmith.mapper.study_search import Contest


@cache
def contest(name: str, lengths: tuple[str, ...], models: tuple[str, ...] = ("BERT",)) -> Contest:
    (found,) = study_search.contests(study.load("fusemax").only(models, lengths), (name,))
    return found


def test_the_published_binding_is_the_fastest_on_its_arrays() -> None:
    for trial in contest("same-arrays", ("1K", "64K")).trials:
        assert trial.optimal
        assert trial.speedup == pytest.approx(1.0, rel=1e-9)
        assert trial.traffic_ratio == 1


def test_with_arrays_free_it_is_not() -> None:
    for trial in contest("any-arrays", ("1K", "64K")).trials:
        assert trial.optimal
        assert trial.speedup > 1.001
        assert trial.traffic_ratio == 1


def test_with_the_iterative_tile_free_the_2d_array_is_the_bound() -> None:
    for trial in contest("searched", ("1K", "256K")).trials:
        assert trial.optimal
        assert trial.speedup > (1.1 if trial.seq_len == "1K" else 1.005)
        assert trial.of_bound > 0.995
        assert trial.utilization > 0.995
        assert trial.traffic_ratio == 1
        assert trial.sizes["M0"] > 256


def test_no_slower_than_flat_and_far_less_traffic() -> None:
    """One search: the least traffic of the mappings with least latency."""
    short, middle = contest("flat", ("1K", "16K"), ("XLM",)).trials
    for trial in (short, middle):
        assert trial.optimal
        assert trial.speedup >= 1
    assert short.traffic_ratio < 0.41
    assert middle.traffic_ratio < 0.1


@pytest.mark.parametrize(("models", "lengths"), [(("GPT",), ()), ((), ("3K",))])
def test_models_and_lengths_must_exist(models: tuple[str, ...], lengths: tuple[str, ...]) -> None:
    with pytest.raises(EinsmithError) as raised:
        study.load("fusemax").only(models, lengths)
    assert raised.value.diagnostics[0].code == "E502"
