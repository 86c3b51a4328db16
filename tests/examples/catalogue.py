"""The example files: where they are, what their headers state, and on which sizes and inputs the tests evaluate them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from einsmith.einsum import sizes as size
from einsmith.einsum import spec
from einsmith.einsum.cascade import Cascade, Scalar, walk

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path for folder in ("attention", "cascades") for path in sorted((ROOT / "examples" / folder).glob("*.yaml"))}
PATTERNS = ("noncausal self", "causal self", "noncausal cross", "causal cross")

SOFTMAX = frozenset((
    "softmax", "softmax-causal", "softmax-cross", "deferred-division", "tile-local-2pass", "tile-local-merge", "flash2", "fusemax",
    "gqa", "mqa", "diffqkv", "moh", "global-query", "alibi", "sink", "differential", "aaren", "reversed", "channel", "varlen",
    "sliding-window", "streaming", "duo", "moa", "s2-shard", "masformer", "concentric",
    "modality-mutual", "na1d", "na1d-causal", "na2d", "na2d-causal", "na2d-dilated", "na3d",
    "halonet", "maxvit-block", "maxvit-grid", "davit-window", "s2-attn-shift", "hilo", "agent", "topk-attention",
    "online-normaliser",
))  # fmt: skip
"""Files in which a row whose scores are all -inf must give 0."""


@dataclass(frozen=True)
class Header:
    """What the doc of a file states. Ranks that `passes` does not name are swept at most once."""

    summary: str
    """What the file computes: the lines up to the first that ends a sentence."""
    citation: str
    """Where it is from: the lines after that, up to the next that ends a sentence."""
    passes: dict[str, int]
    growing: frozenset[str]
    """Ranks written `e 3+`: so many passes in the first step of a loop, and more in each further one."""
    derived: dict[str, int]
    patterns: tuple[str, ...]


def header(cascade: Cascade) -> Header:
    """Read the doc: summary, citation, what is different, then lines `Passes: ...` and `Patterns: ...`."""
    text = " ".join(cascade.doc.split())
    counts = r"(\w+ \d+\+?(?:, \w+ \d+\+?)*)\."
    passes = re.search(rf"Passes: {counts}(?: Derived: {counts})?", text)
    assert passes, f"{cascade.name}: no line `Passes: m 3.`"
    patterns = re.search(r"Patterns: ([^.]+)\.", text)
    listed = tuple(patterns[1].split(", ")) if patterns and not patterns[1].startswith("none") else ()
    assert set(listed) <= set(PATTERNS), f"{cascade.name}: unknown pattern in {listed}"
    sentences = re.findall(r"\S.*?\.\n", cascade.doc + "\n", re.S)
    summary, citation = (" ".join(sentence.split()) for sentence in sentences[:2])
    growing = frozenset(re.findall(r"(\w+) \d+\+", passes[1]))
    return Header(summary, citation, _counts(passes[1]), growing, _counts(passes[2]), listed)


def _counts(text: str | None) -> dict[str, int]:
    return {rank: int(n.rstrip("+")) for rank, n in (part.split() for part in text.split(", "))} if text else {}


@cache
def load(name: str) -> Cascade:
    return spec.load(FILES[name])


# --- sizes ------------------------------------------------------------------------------------------------------------

SELF = [
    {"B": 1, "H": 1, "P": 1, "M": 1, "E": 1, "F": 1, "M0": 1},
    {"B": 2, "H": 3, "P": 7, "M": 7, "E": 5, "F": 3, "M0": 3},
    {"B": 1, "H": 2, "P": 16, "M": 16, "E": 4, "F": 4, "M0": 4},
    {"B": 1, "H": 8, "P": 13, "M": 13, "E": 3, "F": 8, "M0": 64},
    {"B": 1, "H": 1, "P": 29, "M": 29, "E": 2, "F": 1, "M0": 1},
]
CROSS = [
    {"B": 1, "H": 1, "P": 1, "M": 13, "E": 2, "F": 3, "M0": 4},
    {"B": 2, "H": 2, "P": 11, "M": 1, "E": 3, "F": 2, "M0": 2},
    {"B": 1, "H": 3, "P": 5, "M": 17, "E": 4, "F": 7, "M0": 5},
    {"B": 2, "H": 1, "P": 17, "M": 6, "E": 3, "F": 3, "M0": 4},
]
"""Extents: 1, primes, tiles that do not divide or are longer than the sequence, E != F."""


# Sizes that one file has of its own: for each symbol, a value for each of the points above.
OWN = {
    "gqa": {"KV": (1, 1, 3, 2, 2), "G": (1, 8, 2, 1, 8)},
    "kdgqa": {"KV": (1, 2, 2, 3, 1)},
    "diffqkv": {"H": (1, 8, 6, 4, 2), "GK": (1, 8, 3, 4, 1), "GV": (1, 1, 2, 2, 2)},
    "moh": {"HS": (1, 2, 1, 3, 1), "HR": (1, 3, 5, 2, 2), "J": (1, 2, 1, 2, 1), "D": (1, 5, 3, 2, 4)},
    "mla": {"L": (1, 5, 3, 8, 4), "R": (1, 2, 3, 4, 2)},
    "mla-absorbed": {"L": (1, 5, 3, 8, 4), "R": (1, 2, 3, 4, 2)},
    "duo": {"KV": (1, 2, 2, 1, 3), "G": (1, 3, 1, 8, 2)},
    "concentric": {"NY": (1, 5, 4, 2, 5), "NX": (1, 3, 4, 7, 5)},
    "global-query": {"W": (1, 3, 2, 4, 1)},
    "sliding-window": {"W": (0, 2, 3, 20, 1)},
    "na1d": {"W": (1, 5, 7, 6, 3)},
    "na1d-causal": {"W": (1, 3, 30, 4, 2)},
    "na2d": {"NY": (1, 5, 4, 7, 3), "NX": (1, 7, 9, 5, 3), "W": (1, 3, 4, 5, 1)},
    "na2d-causal": {"NY": (1, 5, 4, 7, 3), "NX": (1, 7, 9, 5, 3), "W": (1, 3, 12, 5, 1)},
    "na2d-dilated": {"NY": (1, 5, 9, 7, 3), "NX": (1, 7, 9, 5, 3), "W": (1, 2, 3, 2, 1)},
    "na3d": {"T": (1, 3, 2, 5, 4), "NY": (1, 4, 3, 2, 3), "NX": (1, 3, 5, 2, 3), "U": (1, 2, 5, 3, 1), "W": (1, 3, 2, 1, 3)},
    "halonet": {"NY": (1, 5, 4, 3, 4), "NX": (1, 7, 8, 5, 4), "W": (1, 3, 4, 2, 8), "A": (0, 1, 2, 4, 0)},
    "maxvit-block": {"JY": (1, 2, 3, 1, 2), "JX": (1, 1, 2, 3, 2), "W": (1, 3, 2, 2, 4)},
    "davit-window": {"JY": (1, 2, 3, 1, 2), "JX": (1, 1, 2, 3, 2), "W": (1, 3, 2, 2, 4)},
    "maxvit-grid": {"JY": (1, 2, 3, 1, 2), "JX": (1, 1, 2, 3, 2), "W": (1, 3, 2, 2, 4)},
    "lka": {"NY": (1, 5, 8, 3, 9), "NX": (1, 7, 4, 3, 2), "C": (1, 3, 2, 5, 1), "W": (0, 2, 1, 2, 0), "Z": (0, 1, 3, 3, 2)},
    "volo-outlook": {"H": (1, 2, 2, 1, 1), "NY": (1, 5, 4, 2, 3), "NX": (1, 3, 4, 6, 3), "W": (0, 1, 2, 1, 3)},
    "hilo": {"HH": (1, 2, 1, 1, 1), "HL": (1, 1, 3, 1, 2), "JY": (1, 2, 1, 3, 4), "JX": (1, 3, 2, 1, 4), "W": (1, 2, 3, 2, 1)},
    "aggregated": {"NY": (1, 5, 4, 2, 3), "NX": (1, 3, 4, 7, 3), "W": (0, 1, 2, 3, 1), "M": (1, 4, 1, 5, 2)},
    "s2-attn-shift": {"J": (1, 2, 1, 3, 1), "R": (1, 3, 4, 2, 1), "S": (1, 4, 3, 2, 7)},
    "agent": {"G": (1, 3, 4, 20, 2)},
    "routing": {"C": (1, 2, 3, 4, 5), "J": (1, 1, 5, 6, 2)},
    "snapkv": {"W": (1, 3, 2, 5, 1), "J": (1, 1, 5, 2, 1), "Z": (0, 1, 2, 3, 1)},
    "landmark": {"R": (1, 3, 2, 1, 5), "S": (1, 2, 5, 7, 1)},
    "biformer": {"R": (1, 3, 4, 2, 7), "S": (1, 2, 3, 5, 1), "J": (1, 2, 4, 1, 3)},
    "seer": {"R": (1, 3, 4, 2, 7), "S": (1, 2, 3, 5, 1), "J": (1, 2, 3, 1, 2), "G": (1, 2, 3, 2, 1)},
    "rcmha": {"W": (0, 1, 2, 1, 3)},
    "masformer": {"N": (1, 2, 3, 2, 1)},
    "topk-attention": {"J": (1, 1, 5, 5, 2)},
    "autocorrelation": {"J": (1, 3, 4, 13, 2)},
    "channel": {"C": (1, 5, 4, 3, 2)},
    "hedgehog": {"C": (2, 6, 5, 4, 1)},
    "rwkv": {"C": (1, 5, 4, 3, 2)},
    "ssm-selective": {"C": (1, 5, 4, 3, 2), "S": (1, 3, 4, 8, 1)},
    "hidden-markov": {"T": (1, 3, 5, 6, 2), "S": (1, 3, 2, 3, 5)},
    "transformer-block": {"D": (1, 4, 8, 3, 5), "J": (1, 7, 16, 2, 9)},
    "convolution": {"W": (0, 2, 3, 20, 1)},
    "histogram": {"C": (1, 3, 5, 40, 2)},
}  # fmt: skip


def points(name: str, pattern: str) -> Iterator[dict[str, int]]:
    """Sizes on which a file is tested in one pattern (`none`: it has no notion of queries and keys)."""
    symbols = set(load(name).symbols)
    for number, base in enumerate(CROSS if pattern.endswith("cross") else SELF):
        sizes = base | {symbol: values[number] for symbol, values in OWN.get(name, {}).items()}
        if name == "softplus-lssa" and sizes["E"] == 1:
            sizes |= {"M": min(sizes["M"], 3), "P": min(sizes["P"], 3)}  # all scores alike: beyond three keys 0/0 but for rounding
        yield {symbol: value for symbol, value in sizes.items() if symbol in symbols}


def params(name: str, pattern: str) -> list[dict[str, Any]]:
    """Parameter values on which a file is tested in one pattern."""
    declared = dict(load(name).params)
    causal = [{"causal": int(pattern.startswith("causal"))}] if "causal" in declared else [{}]
    match name:
        case "na1d" | "na1d-causal":
            return [{"D": 1}, {"D": 2}, {"D": 3}]
        case "na2d-causal" | "na2d-dilated":
            return [{"DY": 1, "DX": 1}, {"DY": 2, "DX": 2}, {"DY": 3, "DX": 1}]
        case "softplus-lssa":
            return [{**c, "power": power} for c in causal for power in (15, 3)]
        case "streaming" | "duo":
            return [{"sinks": 4, "recent": 16}, {"sinks": 1, "recent": 3}, {"sinks": 0, "recent": 2}]
        case "s2-shard":
            return [
                {"block": 8, "local": 2, "stride": 2},
                {"block": 3, "local": 1, "stride": 3},
                {"block": 1, "local": 0, "stride": 1},
            ]
        case "masformer":
            return [{"span": 16}, {"span": 2}]
        case "routing":
            return [{"causal": 0}, {"causal": 1}]
        case "moa":
            return [{"sinks": 4}, {"sinks": 0}]
        case "lka":
            return [{"D": 3}, {"D": 1}]
        case "softcap":
            return [{**c, "cap": cap} for c in causal for cap in (50, 0.5)]
        case _:
            return causal


# --- inputs -----------------------------------------------------------------------------------------------------------


def fills(name: str) -> tuple[str, ...]:
    """The fills that mean something for a file: `large` needs scores, `masked` a softmax."""
    exponential = {"inline", "ssm-selective"}  # of the inputs themselves: they overflow, as the papers' forms do
    has_scores = any(re.fullmatch(r"[QA][12]?", tensor.name) for tensor in load(name).inputs) and name not in exponential
    return ("normal", *(["large"] if has_scores else []), *(["masked"] if name in SOFTMAX else []))


def inputs(
    name: str, sizes: dict[str, int], parameters: dict[str, Any], fill: str = "normal", seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays for every input; `large`: scores of about +-1e4; `masked`: keys whose scores are -inf, all of them in batch 0."""
    cascade = load(name)
    rng = np.random.default_rng(seed)
    bound = size.bind(cascade, sizes, parameters)
    arrays: dict[str, np.ndarray] = {}
    for tensor in cascade.inputs:
        shape = tuple(bound.extents[rank] for rank in tensor.ranks)
        arrays[tensor.name] = (
            _integers(name, tensor.name, shape, bound.extents, rng) if tensor.dtype == "int" else rng.normal(size=shape)
        )
    if name == "moa":
        arrays["AL"], arrays["BE"] = np.abs(arrays["AL"]) * 3, np.abs(arrays["BE"]) * 0.3
    between_0_and_1 = {"delta": ["BE"], "gated-delta": ["AL", "BE"], "titans": ["ET", "AL"], "lightning": ["L"]}
    for key in between_0_and_1.get(name, []):
        arrays[key] = rng.random(arrays[key].shape)
    if name == "titans":
        arrays["TH"] = rng.random(arrays["TH"].shape) / bound.extents["e"]
    if name == "rwkv":
        arrays["W"] = np.abs(arrays["W"])
    if name == "ssm-selective":
        arrays["A"] = -np.abs(arrays["A"])
    if name == "hidden-markov":
        arrays = {key: np.abs(value) for key, value in arrays.items()}
    queries = [key for key in arrays if re.fullmatch(r"Q[12]?", key)]
    keys = [key for key in arrays if re.fullmatch(r"K[12]?", key)]
    if fill == "large":
        for key in (*queries, *keys):
            arrays[key] = arrays[key] * 100
        if not keys:
            scores = "Q" if queries else "A"
            arrays[scores] = arrays[scores] * 1e4
    if fill == "masked":
        for key in queries:
            arrays[key] = np.abs(arrays[key]) + 0.5
        for key in keys:
            hidden = rng.random(arrays[key].shape[:-1]) < 0.4
            hidden[..., : max(1, hidden.shape[-1] // 3)] |= rng.random() < 0.7
            if arrays[key].ndim > 2:
                hidden[0] = True
            arrays[key][hidden] = -np.inf
    return arrays


def _integers(name: str, tensor: str, shape: tuple[int, ...], extents: Any, rng: np.random.Generator) -> np.ndarray:
    match name, tensor:
        case "softmax-cross", "N":
            return rng.integers(0, extents["m"] + 1, shape)
        case "varlen", "SP" | "SM":
            return np.sort(rng.integers(0, 4, shape))
        case "histogram", "I":
            return rng.integers(0, extents["c"], shape)
        case "modality-mutual" | "duo" | "masformer", "T":
            return rng.integers(0, 2, shape)
    raise AssertionError(f"{name}: no rule for the integer input {tensor}")


def admits(name: str, sizes: dict[str, int], parameters: dict[str, Any]) -> bool:
    """Whether the sizes fit the parameters (a dilated neighbourhood must fit on every line)."""
    match name:
        case "na1d":
            return sizes["M"] >= sizes["W"] * int(parameters["D"])
        case "na2d-dilated":
            return all(sizes[f"N{side}"] >= sizes["W"] * int(parameters[f"D{side}"]) for side in "YX")
        case _:
            return True


def told_by_shapes(name: str) -> set[str]:
    """Extent symbols that follow from the shapes of the inputs, so that `einsmith run` needs no `--size` for them."""
    cascade = load(name)
    extents = [cascade.rank(rank).extent for tensor in cascade.inputs for rank in tensor.ranks]
    found = {node.name for extent in extents for node in walk(extent) if isinstance(node, Scalar)}
    factors = {
        "diffqkv": {"GK", "GV"},
        "concentric": {"NY"},
        "maxvit-block": {"W"},
        "maxvit-grid": {"W"},
        "davit-window": {"W"},
        "biformer": {"R", "S"},
        "seer": {"R", "S"},
        "hilo": {"HH", "W"},
        "s2-attn-shift": {"R", "S"},
        "landmark": set(),
    }
    return found - factors.get(name, set())  # a product or quotient alone does not tell its factors
