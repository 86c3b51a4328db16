"""Every example file against its independent reference, on awkward sizes, in every pattern that it supports."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from einsmith.cli.run import command
from einsmith.einsum import printer, spec
from einsmith.einsum.analysis import passes as analysis
from einsmith.einsum.cascade import Cascade
from einsmith.einsum.diagnostics import EinsmithError
from einsmith.einsum.interpret import evaluate
from einsmith.einsum.verify import verify

from . import catalogue, references
from .catalogue import FILES, SOFTMAX

NAMES = sorted(FILES)
TESTED = [(name, pattern) for name in NAMES for pattern in catalogue.header(catalogue.load(name)).patterns or ("none",)]


def reference(name: str, arrays: dict[str, np.ndarray], sizes: dict[str, int], params: dict[str, Any]) -> np.ndarray:
    """Result of the reference: the inputs, and those sizes and parameters that it asks for."""
    function = getattr(references, name.replace("-", "_"))
    wanted = inspect.signature(function).parameters
    scalars = {key: value for key, value in {**sizes, **params}.items() if key in wanted}
    result: np.ndarray = function(**{key: torch.from_numpy(value) for key, value in arrays.items()}, **scalars).numpy()
    return result


def value(
    name: str, arrays: dict[str, np.ndarray], sizes: dict[str, int], params: dict[str, Any], cascade: Cascade | None = None
) -> np.ndarray:
    """The output of a file, or of another form of it, by the interpreter."""
    return joined(evaluate(cascade or catalogue.load(name), arrays, sizes, params))


def joined(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The only output; a second one has a number a row, and stands beside the features of the first."""
    first, *others = outputs.values()
    return np.concatenate([first, *(other[..., None] for other in others)], axis=-1) if others else first


def assert_close(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-9) -> None:
    """Greatest difference within the tolerance times the greatest absolute value of the reference."""
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all(), "the reference itself is not finite here"
    assert np.isfinite(ours).all()
    scale = np.abs(theirs).max(initial=0.0)
    assert np.abs(ours - theirs).max(initial=0.0) <= tolerance * scale


@pytest.mark.parametrize(("name", "pattern", "fill"), [(n, p, fill) for n, p in TESTED for fill in catalogue.fills(n)])
def test_equals_its_reference(name: str, pattern: str, fill: str) -> None:
    tested = 0
    for seed, sizes in enumerate(catalogue.points(name, pattern)):
        for params in catalogue.params(name, pattern):
            if not catalogue.admits(name, sizes, params):
                continue
            arrays = catalogue.inputs(name, sizes, params, fill, seed)
            ours = value(name, arrays, sizes, params)
            try:
                assert_close(ours, reference(name, arrays, sizes, params))
            except AssertionError as error:
                raise AssertionError(f"{sizes} {params}: {error}") from error
            if fill == "masked" and any(array.ndim > 2 for array in arrays.values()):
                assert not ours[0].any(), f"fully masked rows are not 0 at {sizes} {params}"
            tested += 1
    assert tested >= 3


@pytest.mark.parametrize(("name", "pattern"), [(n, p) for n, p in TESTED if p.startswith("causal")])
def test_causal_patterns_look_at_nothing_later(name: str, pattern: str) -> None:
    """Later queries never matter; where the file hides later keys, they do not either."""
    cascade = catalogue.load(name)
    hides_keys = "causal self" in catalogue.header(cascade).patterns
    for seed, sizes in enumerate(catalogue.points(name, pattern)):
        params = catalogue.params(name, pattern)[0]
        if not catalogue.admits(name, sizes, params):
            continue
        arrays = catalogue.inputs(name, sizes, params, "normal", seed)
        before = value(name, arrays, sizes, params)
        query = next(rank for rank in ("p", "m", "t", "y") if rank in cascade.rank_order)
        axis = cascade.tensor(cascade.outputs[0]).ranks.index(query)
        cut = before.shape[axis] // 2
        rng = np.random.default_rng(seed + 1)
        for tensor in cascade.inputs:
            for rank in {query, "m"} if hides_keys else {query}:
                if rank in tensor.ranks and tensor.dtype == "float":
                    later = (slice(None),) * tensor.ranks.index(rank) + (slice(cut + 1, None),)
                    arrays[tensor.name][later] = rng.normal(size=arrays[tensor.name][later].shape) * 3
        kept = (slice(None),) * axis + (slice(0, cut + 1),)
        assert_close(value(name, arrays, sizes, params)[kept], before[kept], 1e-12)


def test_every_file_has_a_reference_and_every_reference_a_file() -> None:
    wanted = {name.replace("-", "_") for name in NAMES}
    defined = {key: item for key, item in vars(references).items() if inspect.isfunction(item)}
    assert wanted <= set(defined)
    text = Path(references.__file__).read_text(encoding="utf-8")
    unused = [key for key in defined if key not in wanted and len(re.findall(rf"\b{key}\b", text)) < 2]
    assert not unused


def test_references_import_nothing_of_einsmith() -> None:
    text = Path(references.__file__).read_text(encoding="utf-8")
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"__future__", "itertools", "math", "torch"}


def test_softmax_files_exist() -> None:
    assert set(NAMES) >= SOFTMAX


@pytest.mark.parametrize("name", NAMES)
def test_header_states_citation_passes_and_patterns(name: str) -> None:
    stated = catalogue.header(catalogue.load(name))
    assert stated.summary
    assert stated.passes
    assert re.search(r"\b(19|20)\d\d\b", stated.citation), f"no year in {stated.citation!r}"
    if FILES[name].parent.name == "attention":
        assert stated.patterns or "Patterns: none" in catalogue.load(name).doc


@pytest.mark.parametrize("name", NAMES)
def test_passes_are_those_of_the_header(name: str) -> None:
    """Ranks that the header does not name are swept at most once."""
    cascade = catalogue.load(name)
    header = catalogue.header(cascade)
    stated = header.passes
    counted: dict[str, int] = {}
    growing: set[str] = set()
    for rank in cascade.ranks:
        if rank.part_of is None:
            found = analysis.levels(cascade, rank.name)
            counted |= found.passes
            growing |= {name for name, growth in found.growth.items() if growth}
    assert set(stated) <= set(counted)
    assert {rank: n for rank, n in counted.items() if n > 1 or rank in stated} == stated
    assert growing == header.growing


@pytest.mark.parametrize("name", NAMES)
def test_is_valid_and_prints_canonically(name: str) -> None:
    cascade = catalogue.load(name)
    assert not verify(cascade)
    text = printer.print_cascade(cascade)
    assert spec.loads(text) == cascade
    assert printer.print_cascade(spec.loads(text)) == text


@pytest.mark.parametrize("name", NAMES)
def test_evaluates_with_its_own_sizes(name: str) -> None:
    arrays = catalogue.inputs(name, {}, {})
    assert_close(value(name, arrays, {}, {}), reference(name, arrays, dict(catalogue.load(name).sizes), {}))


def run_command(name: str, folder: Path) -> tuple[list[str], Path, np.ndarray]:
    """Arguments of `einsmith run` on small inputs, the file it writes, and what it should hold."""
    pattern = (catalogue.header(catalogue.load(name)).patterns or ("none",))[0]
    sizes = list(catalogue.points(name, pattern))[1]
    params = catalogue.params(name, pattern)[0]
    arrays = catalogue.inputs(name, sizes, params)
    np.savez(folder / "in.npz", **arrays)  # type: ignore[arg-type]
    told = {key: n for key, n in sizes.items() if key not in catalogue.told_by_shapes(name)}
    words = ["--size", ",".join(f"{key}={n}" for key, n in told.items())] if told else []
    if params:
        words += ["--param", ",".join(f"{key}={n}" for key, n in params.items())]
    out = folder / "out.npz"
    return (
        [str(FILES[name]), "--inputs", str(folder / "in.npz"), "-o", str(out), *words],
        out,
        reference(name, arrays, sizes, params),
    )


@pytest.mark.parametrize("name", NAMES)
def test_run_command(name: str, tmp_path: Path) -> None:
    words, out, expected = run_command(name, tmp_path)
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert_close(joined(np.load(out)), expected)


@pytest.mark.parametrize("name", ["softmax", "flash2", "topk-attention"])
def test_run_as_a_program(name: str, tmp_path: Path) -> None:
    words, out, expected = run_command(name, tmp_path)
    done = subprocess.run([sys.executable, "-m", "einsmith", "run", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (output,) = catalogue.load(name).outputs
    assert_close(np.load(out)[output], expected)


@pytest.mark.parametrize(
    ("name", "sizes", "params", "code", "words"),
    [
        ("na1d", {"M": 5, "W": 3}, {"D": 2}, "E320", "`QK`"),
        ("na2d", {"NY": 2, "NX": 9, "W": 3}, {}, "E320", "`QK`"),
        ("topk-attention", {"M": 4, "J": 5}, {}, "E325", "`j`"),
        ("retention", {"E": 0}, {}, "E306", "`scale`"),
    ],
)
def test_sizes_that_a_file_does_not_admit_are_refused(
    name: str, sizes: dict[str, int], params: dict[str, Any], code: str, words: str
) -> None:
    sizes = dict(catalogue.load(name).sizes) | sizes
    with pytest.raises(EinsmithError) as error:
        value(name, catalogue.inputs(name, sizes, params), sizes, params)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == code
    assert words in diagnostic.message
