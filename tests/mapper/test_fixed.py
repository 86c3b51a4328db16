"""Parts of a mapping fixed, measures in order, and limits: the search against every mapping that obeys, one by one."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from einsmith.cli.main import main
from einsmith.mapper import mapping
from einsmith.mapper.cost import model
from einsmith.mapper.fixed import Fixed
from einsmith.mapper.mapping import Group
from einsmith.mapper.search import search

from .brute import MEASURES, Brute, Value, ranked
from .problems import Problem, problems

MANY = 500
"""Mappings beyond which a problem takes too long to go through."""


def point(found: Any) -> Value:
    cost = found.cost
    return cost.cycles + cost.fill_cycles, cost.energy_pj, cost.traffic_bytes / cost.arch.word_bytes


def several(group: Group, extents: dict[str, int]) -> list[tuple[str, int]]:
    """Loops with several iterations: rank and place."""
    left, found = dict(extents), []
    for at, loop in enumerate(group.loops):
        if loop.tile < left[loop.rank]:
            found.append((loop.rank, at))
        left[loop.rank] = min(loop.tile, left[loop.rank])
    return found


def held_at(group: Group, tensor: str, extents: dict[str, int]) -> str | None:
    """The rank of the loop of several iterations that holds an input; none: outside all of them."""
    at = next(at for at, loop in enumerate(group.loops) if tensor in loop.hold)
    inside = [rank for rank, place in several(group, extents) if place <= at]
    return inside[-1] if inside else None


def sides(spatial: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return spatial[: max((side + 1 for side, along in enumerate(spatial) if along), default=0)]


def parts_of(group: Group, extents: dict[str, int]) -> list[tuple[str, str, Any]]:
    """(kind, name, value) of what could be fixed."""
    found: list[tuple[str, str, Any]] = []
    first = min(group.einsums)
    for name, binding in group.einsums.items():
        found += [("arrays", name, binding.array), ("layouts", name, sides(binding.spatial))]
        found.append(("stays", name, group.stay.get(name, "buffer")))
    found.append(("loops", first, tuple(rank for rank, _ in several(group, extents))))
    found += [("tiles", rank, group.loops[at].tile) for rank, at in dict(reversed(several(group, extents))).items()]
    held = sorted({tensor for loop in group.loops for tensor in loop.hold})
    return found + [("holds", tensor, held_at(group, tensor, extents)) for tensor in held]


def obeys(group: Group, wanted: list[tuple[str, str, Any]], extents: dict[str, int]) -> bool:
    for kind, name, value in wanted:
        match kind:
            case "arrays" if name in group.einsums:
                ok = group.einsums[name].array == value
            case "layouts" if name in group.einsums:
                ok = sides(group.einsums[name].spatial) == value
            case "stays" if name in group.einsums:
                ok = group.stay.get(name, "buffer") == value
            case "loops" if name in group.einsums:
                ok = tuple(rank for rank, _ in several(group, extents)) == value
            case "tiles":
                at = [at for rank, at in several(group, extents) if rank == name]
                ok = not at or group.loops[at[-1]].tile == value
            case "holds" if any(name in loop.hold for loop in group.loops):
                ok = held_at(group, name, extents) == value
            case _:
                ok = True
        if not ok:
            return False
    return True


def as_fixed(wanted: list[tuple[str, str, Any]]) -> Fixed:
    by: dict[str, dict[str, Any]] = {}
    for kind, name, value in wanted:
        by.setdefault(kind, {})[name] = {"buffer": value} if kind == "holds" else value
    return Fixed(**by)  # type: ignore[arg-type]


@st.composite
def fixed_problems(draw: Any) -> tuple[Problem, list[tuple[str, str, Any]]]:
    """A problem and one or two parts of one of its mappings."""
    problem = draw(problems())
    assume(not any(problem.cascade.tensor(name).kind == "state" for name in problem.cascade.outputs))
    every = Brute(problem.cascade, problem.arch, problem.sizes, "sides")
    assume(2 < every.size <= MANY)
    listed = list(every.partitions())
    assume(listed)
    extents = dict(every.bound.extents)
    found = [group for groups in listed for each in groups for _, group in each]
    looped = [group for group in found if several(group, extents)]
    parts = parts_of(draw(st.sampled_from(looped or found)), extents)
    kinds = st.sampled_from(sorted({kind for kind, _, _ in parts}))
    by_kind = kinds.flatmap(lambda kind: st.sampled_from([part for part in parts if part[0] == kind]))
    wanted = draw(st.lists(by_kind, min_size=1, max_size=2, unique_by=lambda part: part[:2]))
    return problem, wanted


def test_the_best_that_obeys() -> None:
    equal: Counter[str] = Counter()
    kinds: Counter[str] = Counter()

    @settings(max_examples=42, phases=[Phase.generate], deadline=None)
    @given(fixed_problems(), st.sampled_from(("interleaved", "interleaved", "pipelined", "in-turn")))
    def check(drawn: tuple[Problem, list[tuple[str, str, Any]]], schedule: Any) -> None:
        problem, wanted = drawn
        extents = dict(Brute(problem.cascade, problem.arch, problem.sizes).bound.extents)
        constrained = Brute(
            problem.cascade,
            problem.arch,
            problem.sizes,
            "sides",
            schedule=schedule,
            obeys=lambda group: obeys(group, wanted, extents),
        )
        fixed = as_fixed(wanted)
        if schedule != "interleaved":
            fixed = Fixed(**{**vars(fixed), "schedules": dict.fromkeys(constrained.names, schedule)})
        least = constrained.least("energy")
        if least is None:
            return
        for objective in MEASURES:
            found = search(problem.cascade, problem.arch, problem.sizes, objective=objective, tiles="sides", fixed=fixed)
            assert found.optimal
            for group in found.mapping.groups:
                assert group.schedule == schedule
                assert obeys(group, wanted, extents)
            again = model(problem.cascade, problem.arch, mapping.loads(found.mapping.as_yaml()), problem.sizes)
            assert again.as_json() == found.cost.as_json()
            best = constrained.least(objective)
            assert best is not None
            mine, theirs = ranked(objective, point(found))[0], ranked(objective, best)[0]
            assert mine >= theirs * (1 - 1e-12)
            if mine == pytest.approx(theirs, rel=1e-12, abs=1e-12):
                equal[objective] += 1
                kinds.update(kind for kind, _, _ in wanted)
            else:
                assert objective == "latency"  # what is slower on every array is left out, though its fill may be shorter

    check()
    assert equal["energy"] == equal["traffic"] >= 20, equal
    assert equal["latency"] >= 0.9 * equal["energy"], equal
    assert len(kinds) >= 6, kinds


def test_measures_in_order_and_limits() -> None:
    """Ties go to the next measure, to the last one; a limit is kept, and what is best within it found."""
    equal: Counter[str] = Counter()
    orders = [",".join(names) for count in (1, 2, 3) for names in itertools.permutations(MEASURES, count)]

    @settings(max_examples=26, phases=[Phase.generate], deadline=None)
    @given(problems(), st.sampled_from(orders), st.sampled_from(MEASURES), st.floats(0, 1))
    def check(problem: Problem, objective: str, limited: Any, share: float) -> None:
        assume(not any(problem.cascade.tensor(name).kind == "state" for name in problem.cascade.outputs))
        every = Brute(problem.cascade, problem.arch, problem.sizes, "sides", undominated=True)
        assume(2 < every.size <= MANY)
        least = every.least(objective)
        assume(least is not None)
        assert least is not None
        found = search(problem.cascade, problem.arch, problem.sizes, objective=objective, tiles="sides")
        mine, theirs = ranked(objective, point(found)), ranked(objective, least)
        assert mine <= tuple(part * (1 + 1e-12) for part in theirs)
        equal["order"] += mine == pytest.approx(theirs, rel=1e-12, abs=1e-12)
        # a limit between the least of one measure and what the best of the objective takes of it
        low, high = every.least(limited), least
        assert low is not None
        at = MEASURES.index(limited)
        limit = low[at] + share * (high[at] - low[at])
        limits = tuple(limit if place == at else float("inf") for place in range(3))
        best = every.within(objective, limits)  # type: ignore[arg-type]
        scale = {"latency": 1 / problem.arch.clock_hz, "energy": 1.0, "traffic": float(problem.arch.word_bytes)}[limited]
        assume(limit > 0)
        within = search(
            problem.cascade, problem.arch, problem.sizes, objective=objective, tiles="sides", at_most={limited: limit * scale}
        )
        assert point(within)[at] <= limit * (1 + 1e-9)
        assert best is not None
        mine, theirs = ranked(objective, point(within)), ranked(objective, best)
        assert mine[0] <= theirs[0] * (1 + 1e-9)
        equal["limit"] += mine[0] == pytest.approx(theirs[0], rel=1e-9, abs=1e-12)

    check()
    assert equal["order"] >= 15, equal
    assert equal["limit"] >= 15, equal


SPEC = """name: two
ranks: {p: P, m: M, e: E}
inputs: {Q: [p, e], K: [m, e]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  Y[p]    = max[m](QK[p,m])
outputs: [Y]
"""
PART = """groups:
- einsums: [QK, Y]
  loops: [{rank: p, tile: 32, hold: [Q]}, {rank: m}]
  schedule: pipelined
"""


def run(folder: Path, *words: str) -> Any:
    (folder / "two.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "part.yaml").write_text(PART, encoding="utf-8")
    words = ("map", str(folder / "two.yaml"), "--arch", "teaching-32x32", "--size", "P=96,M=128,E=16", *words)
    return CliRunner().invoke(main, [*words])


def test_a_partial_file_and_single_settings(tmp_path: Path) -> None:
    """What stands in the file is in the mapping, single settings go over it, and the report says what was given."""
    done = run(tmp_path, "--fix", str(tmp_path / "part.yaml"), "--fix", "Y.array=vector", "--fix", "QK.spatial=[m, p]", "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    (group,) = printed["mapping"]["groups"]
    assert (group["loops"][0]["rank"], group["loops"][0]["tile"]) == ("p", 32)
    assert [loop["rank"] for loop in group["loops"]] == ["p", "m"]
    assert group["loops"][0]["hold"] == ["Q"]
    assert group["schedule"] == "pipelined"
    assert group["einsums"]["QK"]["spatial"] == ["m", "p"]
    assert group["einsums"]["Y"]["array"] == "vector"
    assert {"QK over m x p", "Y on vector", "loops of QK: p, m"} <= set(printed["fixed"])
    assert printed["optimal"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--fix", "QK.spatial=[p, m]", "--fix", "QK.array=vector"], 1, "leave this free"),
        (["--fix", "QK.spatial=[1, 2]"], 1, "cannot be"),
        (["--fix", "QK.lops=[p]"], 1, "did you mean `loops`?"),
        (["--fix", "QK.spatial=[[p, e], m]"], 1, "several ranks along one side"),
        (["--fix", "Q.hold={l9: p}"], 1, "the levels on the chip are"),
        (["--fix", "nothing.yaml"], 1, "cannot read"),
        (["--at-most", "latency=1ns"], 1, "the least is"),
        (["--at-most", "latency=1kg"], 2, "units are"),
        (["--at-most", "area=1"], 2, "is none of"),
        (["--objective", "latency,edp"], 2, "stand alone"),
        (["--objective", "latency,latency"], 2, "stands twice"),
        (["--objective", "edp", "--at-most", "latency=1s"], 1, "limits and slack go with"),
        (["--objective", "latency,energy", "--free", "buffer.size=[1024]"], 2, "for one architecture"),
    ],
)
def test_what_cannot_be(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = run(tmp_path, *words)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    assert said in " ".join(done.output.replace("\u2502", " ").split()), done.output
