"""Which of several forms is taken: fewest passes, then fewest operations, then smallest state; sizes decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.rewrite import alternatives as module
from einsmith.einsum.rewrite.alternatives import alternatives
from einsmith.einsum.rewrite.cost import Cost, cost, scalars, state_words
from einsmith.einsum.rewrite.derive import Derivation, derive

from .cases import BY_NAME

EXAMPLES = Path(__file__).parents[3] / "examples" / "attention"


def case(name: str) -> Cascade:
    return spec.loads(BY_NAME[name].text)


def rewrites(found: Derivation) -> set[str]:
    return {step.rewrite for step in found.steps}


def test_costs_are_ordered_by_passes_then_operations_then_state() -> None:
    assert Cost(1, 9.0, 9.0) < Cost(2, 1.0, 1.0)
    assert Cost(1, 1.0, 9.0) < Cost(1, 2.0, 1.0)
    assert Cost(1, 1.0, 1.0) < Cost(1, 1.0, 2.0)


def test_operations_and_state_are_those_counted_by_hand() -> None:
    cascade = spec.loads(
        "name: shares\nranks: {p: P, m: M}\ninputs: {X: [p, m]}\ncascade: |\n"
        "  D[p] = sum[m](X[p,m])\n  G[p] = max[m](X[p,m])\n  Y[p] = G[p] / D[p]\noutputs: [Y]\nsizes: {P: 3, M: 10}\n"
    )
    assert cost(cascade, "m", scalars(cascade, "m")) == Cost(1, 30 + 30 + 3, 6)
    assert str(state_words(cascade, "m")) == "2*P"


def test_the_form_taken_is_the_cheapest_of_those_compared() -> None:
    for name in ("softmax", "entropy", "dq", "weighted-variance", "softmax-of-a-softmax"):
        (compared,) = derive(case(name), "m", check=False).compared
        assert compared.others, name
        assert all(compared.taken.cost <= other.cost for other in compared.others)


@pytest.mark.parametrize(("features", "keys", "deferred"), [(4096, 16, False), (16, 4096, True)])
def test_a_division_is_deferred_where_that_takes_fewer_operations(features: int, keys: int, deferred: bool) -> None:
    """One division for each output, or for each weight?"""
    found = derive(case("softmax"), "m", sizes={"P": 64, "M": keys, "F": features, "E": 16}, check=False)
    (compared,) = found.compared
    assert ("deferred-division" in rewrites(found)) == deferred
    assert {str(each.search.choices) for each in (compared.taken, *compared.others)} >= {
        "all rewrites",
        "without deferred-division",
    }


def test_a_large_cascade_has_fewer_forms_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(alternatives(case("softmax"), "m", None, False)) > 1
    monkeypatch.setattr(module, "WORK", 0)
    assert len(alternatives(case("softmax"), "m", None, False)) == 1


# --- sizes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "linear"), [(16, False), (65536, True)])
def test_retention_is_linear_where_the_sequence_is_long(length: int, linear: bool) -> None:
    found = derive(spec.load(EXAMPLES / "retention-parallel.yaml"), "m", sizes={"M": length})
    assert ("prefix-state" in rewrites(found)) == linear
    assert dict(found.cascade.sizes)["M"] == length


@pytest.mark.parametrize("sizes", [{"P": 1, "M": 65536}, {"P": 1, "M": 4096, "L": 512, "E": 128, "F": 128, "R": 64, "H": 16}])
def test_absorbed_keys_stay_absorbed_for_one_query(sizes: dict[str, int]) -> None:
    found = derive(spec.load(EXAMPLES / "mla-absorbed.yaml"), "m", sizes=sizes)
    assert "QC[b,h,p,c]" in found.spec
    assert found.passes_after["m"] == 1
    assert not [einsum for einsum in found.cascade.einsums if {"m", "m0"} & set(found.cascade.tensor(einsum.output).ranks)
                and {"h", "e"} <= set(found.cascade.tensor(einsum.output).ranks)]  # fmt: skip


def test_latent_keys_are_absorbed_for_one_query_only() -> None:
    """The keys of the heads are worked out once for many queries, never for one."""
    sizes = {"M": 4096, "L": 512, "E": 128, "F": 128, "R": 64, "H": 16}
    cascade = spec.load(EXAMPLES / "mla.yaml")
    one = derive(cascade, "m", sizes={**sizes, "P": 1}, check=False)
    many = derive(cascade, "m", sizes={**sizes, "P": 4096}, check=False)
    assert "reassociate" in rewrites(one)
    assert "reassociate" not in rewrites(many)


def test_parameters_may_be_given() -> None:
    found = derive(spec.load(EXAMPLES / "mla-absorbed.yaml"), "m", params={"causal": 1})
    assert "causal: 1" in found.spec


@pytest.mark.parametrize(
    ("given", "code"), [({"sizes": {"Z": 3}}, "E301"), ({"params": {"zz": 3}}, "E302"), ({"sizes": {"M": -1}}, "E304")]
)
def test_mistaken_sizes(given: dict[str, dict[str, int]], code: str) -> None:
    with pytest.raises(EinsmithError) as raised:
        derive(case("softmax"), "m", **given)
    assert raised.value.diagnostics[0].code == code


# --- merged ranks ---------------------------------------------------------------------------------------------------------------


def test_ranks_that_became_one_keep_their_passes() -> None:
    found = derive(case("linear-causal"), ("m", "p"))
    assert dict(found.merged) == {"p": "m"}
    assert (found.passes_before["p"], found.passes_after["p"]) == (1, 1)
    assert "`p` became one with `m`" in str(found)
    assert found.as_json()["merged"] == {"p": "m"}


def test_ranks_in_turn() -> None:
    """Over m first, then over p: each saves passes of its own."""
    cascade = spec.loads(
        "name: both\nranks: {p: P, m: M}\ninputs: {X: [p, m], Y: [p, m]}\ncascade: |\n"
        "  G[p] = max[m](X[p,m])\n  D[p] = sum[m](exp(X[p,m] - G[p]))\n"
        "  H[m] = max[p](Y[p,m])\n  E[m] = sum[p](exp(Y[p,m] - H[m]))\noutputs: [D, E]\n"
    )
    found = derive(cascade, ("m", "p"))
    assert (found.passes_before["m"], found.passes_before["p"]) == (2, 2)
    assert (found.passes_after["m"], found.passes_after["p"]) == (1, 1)
    assert len(found.compared) == 2


# --- other orders ------------------------------------------------------------------------------------------------------------

SHARED = """
name: shared
ranks: {p: P, m: M, e: E, f: F}
inputs: {Q: [p, e], K: [m, e], V: [m, f], B: [p, m]}
cascade: |
  QK[p,m] = Q[p,e] * K[m,e]
  R0[p]   = sum[m](QK[p,m])
  T1[p,m] = QK[p,m] * R0[p]
  R1[p]   = sum[m](T1[p,m])
  O[p,f]  = T1[p,m] * V[m,f]
outputs: [O, R1]
sizes: {P: 3, M: 9, E: 2, F: 2}
"""


def test_a_tensor_is_opened_in_several_sums_in_turn() -> None:
    """Each of which may bring a rank of its own that the next must know the size of."""
    found = derive(spec.loads(SHARED), "p")
    assert found.checked
    assert "T1" not in found.spec


def test_equal_states_are_one() -> None:
    """The second moment that a third needs, and a variance beside it."""
    found = derive(
        spec.loads(
            "name: skewness\nranks: {p: P, m: M}\ninputs: {X: [p, m]}\ncascade: |\n  MU[p] = mean[m](X[p,m])\n"
            "  VAR[p] = sum[m]((X[p,m] - MU[p]) ** 2)\n  T[p] = sum[m]((X[p,m] - MU[p]) ** 3)\n"
            "  O[p] = T[p] / (VAR[p] * sqrt(VAR[p]))\noutputs: [O]\n"
        ),
        "m",
    )
    assert found.passes_after["m"] == 1
    assert str(state_words(found.cascade, "m")) == "3*P + 1"
