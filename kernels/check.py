"""Numerical checks: a generated kernel against the float64 interpreter over a grid of awkward shapes.

In: a module file (or its text) and the cascade it came from. Out: a `Checked`: one line a case and output. The kernel runs on a
GPU if there is one, else in Triton's interpreter in float32. The bound of each case is set by the computation itself: the error
may be twice that of the same computation in plain torch in the same type, and a floor of a few units in the last place of the
greatest output, because on small shapes plain torch may happen to be exact. That plain torch computes the same function at all is
seen in float64, where it must agree with the interpreter. With large logits the errors of a single draw are a matter of luck on
both sides: there the greatest errors over several draws are compared, and so wherever a case is missed by little. Outputs are
filled with NaN before the kernel runs.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..einsum.cascade import Cascade
from ..einsum.diagnostics import Diagnostic, EinsmithError
from ..mapper.precision import WIDER
from .child import ask
from .shapes import Case, shape_grid
from .store import stored

if TYPE_CHECKING:
    import numpy as np

FLOOR_ULP = 8
"""Units in the last place of the greatest output that are always allowed: exponentials and quotients of GPUs are good to two each,
and a sum in another order moves a few more."""
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
"""Distance from 1 to the next number of each type of outputs."""


MEANING = 1e-9
"""How far plain torch in float64 may be from the interpreter, as a share of the greatest output: they are the same function."""
NEARLY, MANY = 4, 16
"""A case whose error is up to so many times what is allowed is drawn so often."""
FLOAT8 = {"float8_e4m3fn": (3, -6, 448.0), "float8_e5m2": (2, -14, 57344.0)}
"""Binary digits after the first, least exponent of a number with all of them, greatest number."""
SMALLER = (1.0, 0.25, 0.0625)
"""Factors on the inputs that are tried, one after the other, where outputs are beyond the greatest number of a type."""
LARGEST = {"float16": 65504.0, "bfloat16": 3.3e38, "float32": 3.4e38}
"""Greatest number of each type: where the outputs themselves are beyond it there is nothing to compare."""


def computed_type(dtype: str) -> str:
    """Of outputs, for a type of the inputs."""
    return WIDER.get(dtype, dtype)


@dataclass(frozen=True)
class Row:
    """One output of one case."""

    case: str
    sizes: Mapping[str, int]
    dtype: str
    output: str
    error: float
    """Greatest distance from the float64 interpreter."""
    allowed: float
    """Twice the error of plain torch in the same type, and a floor of `FLOOR_ULP` units."""
    fault: str | None = None
    """What went wrong where there are no numbers."""

    @property
    def passed(self) -> bool:
        return self.fault is None and self.error <= self.allowed

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case, "sizes": dict(self.sizes), "dtype": self.dtype, "output": self.output, "error": self.error,
            "allowed": self.allowed, "passed": self.passed, "fault": self.fault,
        }  # fmt: skip

    def __str__(self) -> str:
        sizes = " ".join(f"{n}={v}" for n, v in self.sizes.items())
        end = self.fault or f"error {self.error:.1e}, allowed {self.allowed:.1e}"
        return f"  {'ok  ' if self.passed else 'FAIL'} {self.output} {self.dtype} {self.case} ({sizes}): {end}"


@dataclass(frozen=True)
class Checked:
    """All rows of a check."""

    name: str
    device: str
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = field(default=())
    """Cases whose sizes the cascade does not allow."""

    @property
    def failed(self) -> int:
        return sum(not row.passed for row in self.rows)

    @property
    def passed(self) -> int:
        return sum(row.passed for row in self.rows)

    @property
    def exit_code(self) -> int:
        return 1 if self.failed or not self.rows else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed, "failed": self.failed, "device": self.device, "left_out": list(self.left_out),
            "cases": [row.as_json() for row in self.rows],
        }  # fmt: skip

    def __str__(self) -> str:
        where = "on the GPU" if self.device == "cuda" else "in Triton's interpreter, float32"
        lines = [
            f"{self.name}: {self.passed} passed, {self.failed} failed ({where}; against the float64 interpreter)",
            *map(str, self.rows),
        ]
        if self.left_out:
            lines.append(f"  not defined for this cascade: {', '.join(self.left_out)}")
        return "\n".join(lines)


def device() -> str:
    """`cuda` if a GPU can be used, else `cpu`. Imports torch only where there is one to be seen."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class _Prepared:
    """The cases of one module: what the worker is asked, what is expected, what cannot be asked."""

    name: str
    file: str
    jobs: list[dict[str, Any]] = field(default_factory=list)
    wanted: list[tuple[Case, str, dict[str, np.ndarray]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cases: dict[int, Case] = field(default_factory=dict)


def check(
    module: str | Path,
    cascade: Cascade | None = None,
    *,
    cases: Sequence[Case] | None = None,
    dtypes: Sequence[str] | None = None,
    params: Mapping[str, int | float] | None = None,
    allow_tf32: bool = False,
    seed: int = 0,
    timeout_s: float = 600.0,
) -> Checked:
    """Check a module (a path, or its text) against a cascade (default: the one that the module carries).

    `cases`: shapes in place of `shape_grid`; `dtypes` of the inputs; `timeout_s`: seconds for all of it. Raises EinsmithError
    (E607 to E609).
    """
    task = (module, cascade, cases)
    (found,) = check_all([task], dtypes=dtypes, params=params, allow_tf32=allow_tf32, seed=seed, timeout_s=timeout_s)
    return found


def check_all(
    tasks: Sequence[tuple[str | Path, Cascade | None, Sequence[Case] | None]],
    *,
    dtypes: Sequence[str] | None = None,
    params: Mapping[str, int | float] | None = None,
    allow_tf32: bool = False,
    seed: int = 0,
    timeout_s: float = 600.0,
) -> list[Checked]:
    """Check several modules in one process: (module, cascade, cases) each. Raises EinsmithError as `check` does.

    A case that is missed by little is drawn more often, the first draw among them: the greatest errors of all draws are compared.
    """
    first = _checked(tasks, [None] * len(tasks), dtypes, params, allow_tf32, seed, timeout_s)
    again, places = [], []
    for number, ((module, cascade, _), (found, cases)) in enumerate(zip(tasks, first, strict=True)):
        close = {row.case for row in found.rows if row.fault is None and row.allowed < row.error <= NEARLY * row.allowed}
        few = {n: replace(case, draws=MANY) for n, case in cases.items() if case.name in close and case.draws < MANY}
        if few:
            again.append(((module, cascade, list(few.values())), list(few)))
            places.append(number)
    if not again:
        return [found for found, _ in first]
    later = _checked([task for task, _ in again], [n for _, n in again], dtypes, params, allow_tf32, seed, timeout_s)
    results = [found for found, _ in first]
    for number, (found, _) in zip(places, later, strict=True):
        known = {(row.case, row.dtype, row.output): row for row in found.rows}
        rows = tuple(known.get((row.case, row.dtype, row.output), row) for row in results[number].rows)
        results[number] = replace(results[number], rows=rows)
    return results


def _checked(
    tasks: Sequence[tuple[str | Path, Cascade | None, Sequence[Case] | None]],
    numbers: Sequence[Sequence[int] | None],
    dtypes: Sequence[str] | None,
    params: Mapping[str, int | float] | None,
    allow_tf32: bool,
    seed: int,
    timeout_s: float,
) -> list[tuple[Checked, dict[int, Case]]]:
    """One round, and the cases of each module by the numbers that their random inputs are drawn with."""
    where = device()
    usual = ["float16", "bfloat16", "float32"] if where == "cuda" else ["float32"]
    with tempfile.TemporaryDirectory(prefix="einsmith-") as folder:
        prepared = [
            _prepare(module, cascade, cases, Path(folder) / str(number), dtypes, usual, params, seed, those)
            for number, ((module, cascade, cases), those) in enumerate(zip(tasks, numbers, strict=True))
        ]
        job = {
            "device": where,
            "modules": [{"file": one.file, "cases": one.jobs, "plain": True} for one in prepared],
            "allow_tf32": allow_tf32,
        }
        asked = any(one.jobs for one in prepared)
        answers = ask("check_worker", job, interpret=where == "cpu", timeout_s=timeout_s) if asked else [[] for _ in prepared]
        rows = [tuple(_rows(one, found)) for one, found in zip(prepared, answers, strict=True)]
        return [
            (Checked(one.name, where, found, tuple(one.left_out)), one.cases) for one, found in zip(prepared, rows, strict=True)
        ]


def _prepare(
    module: str | Path,
    cascade: Cascade | None,
    cases: Sequence[Case] | None,
    folder: Path,
    dtypes: Sequence[str] | None,
    usual: Sequence[str],
    params: Mapping[str, int | float] | None,
    seed: int,
    numbers: Sequence[int] | None,
) -> _Prepared:
    """Write the inputs of all cases and compute what is expected of them."""
    import numpy as np

    source = _source(module)
    cascade = cascade if cascade is not None else cascade_of(source, str(module) if isinstance(module, Path) else "<module>")
    one = _Prepared(cascade.name, str(stored(source)))
    planned = _assigned(source, "PLAN", "<module>").get("dtype", "") if "PLAN = " in source else ""
    types = dtypes or ([planned] if planned in WIDER else usual)
    folder.mkdir()
    chosen = list(cases if cases is not None else shape_grid(cascade))
    one.cases = dict(zip(numbers if numbers is not None else range(len(chosen)), chosen, strict=True))
    for number, case in one.cases.items():
        for dtype, draw in itertools.product(types, range(case.draws)):
            rng = np.random.default_rng([seed, number, draw])
            try:
                drawn = _within(cascade, case, dtype, params, rng)
            except EinsmithError as error:
                if cases is not None:
                    raise
                one.left_out.append(f"{case.name} ({error.diagnostics[0].message})")
                break
            if drawn is None:
                one.left_out.append(f"{case.name} (outputs beyond {dtype})")
                break
            inputs, exact = drawn
            path = folder / f"{number}-{dtype}-{draw}"
            np.savez(f"{path}-in.npz", **inputs)  # type: ignore[arg-type]
            one.jobs.append(
                {
                    "inputs": f"{path}-in.npz",
                    "outputs": f"{path}-out.npz",
                    "dtype": dtype,
                    "strided": case.strided,
                    "scalars": keywords(source, case.sizes, params),
                }
            )
            one.wanted.append((case, dtype, exact))
    return one


def _rows(one: _Prepared, answers: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Compare what the worker found with what was expected; the draws of a case together."""
    together: dict[tuple[str, str], list[int]] = {}
    for number, (case, dtype, _) in enumerate(one.wanted):
        together.setdefault((case.name, dtype), []).append(number)
    rows = []
    for (_, dtype), numbers in together.items():
        case, _, outputs = one.wanted[numbers[0]]
        fault = next((answers[n]["error"] for n in numbers if answers[n]["error"] is not None), None)
        for name in outputs:
            if fault is not None:
                rows.append(Row(case.name, case.sizes, dtype, name, float("nan"), 0.0, fault))
                continue
            found = [_errors(one.wanted[n][2][name], one.jobs[n]["outputs"], name) for n in numbers]
            off, plain, exact, scale = (max(column) for column in zip(*found, strict=True))
            if exact > MEANING * max(scale, 1.0):
                other = f"`reference` of the module, in float64, is off the interpreter by {exact:.1e}"
                rows.append(Row(case.name, case.sizes, dtype, name, off, 0.0, other))
                continue
            if plain == off == float("inf"):
                one.left_out.append(f"{case.name} (plain torch leaves the range of {dtype})")
                continue
            plain = plain if plain < float("inf") else 0.0
            rows.append(Row(case.name, case.sizes, dtype, name, off, 2 * plain + FLOOR_ULP * EPSILON[computed_type(dtype)] * scale))
    return rows


def _errors(want: np.ndarray, file: str, name: str) -> tuple[float, float, float, float]:
    """Error of the kernel, error of plain torch, its error in float64, greatest output."""
    import numpy as np

    made = np.load(file)
    scale = float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
    off, plain, exact = (distance(made[f"{kind}.{name}"], want) for kind in ("out", "plain", "exact"))
    return off, plain, exact, scale


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Greatest difference; infinite where shapes, NaNs or infinities differ."""
    import numpy as np

    if got.shape != want.shape:
        return float("inf")
    want = np.asarray(want, dtype=np.float64)
    odd = ~np.isfinite(want)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if not np.all(same[odd]) or not np.all(np.isfinite(got[~odd])):
        return float("inf")
    return float(np.max(np.abs(got[~odd] - want[~odd]), initial=0.0))


def cascade_of(source: str, name: str) -> Cascade:
    """The cascade that a generated module carries. Raises EinsmithError (E609) if it is not one."""
    from ..einsum.spec import loads

    return loads(_assigned(source, "SPEC", name), f"{name} (SPEC)")


def _assigned(source: str, variable: str, name: str) -> Any:
    """A constant of a generated module."""
    import ast

    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == variable:
                return ast.literal_eval(node.value)
    except (SyntaxError, ValueError):
        pass
    raise EinsmithError(
        Diagnostic(
            "E609",
            "this file is not a kernel module that einsmith wrote",
            file=name,
            help="give a spec file, or what `einsmith emit` wrote",
        )
    )


def _source(module: str | Path) -> str:
    if isinstance(module, str) and "\n" in module:
        return module
    try:
        return Path(module).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EinsmithError(Diagnostic("E609", f"cannot read the module: {error}", file=str(module))) from None


def _within(
    cascade: Cascade, case: Case, dtype: str, params: Mapping[str, int | float] | None, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
    """Inputs and outputs, all of them numbers of the type; a recurrence that grows with each step takes smaller inputs."""
    import numpy as np

    for smaller in SMALLER:
        inputs, exact = _expected(cascade, replace(case, scale=case.scale * smaller), dtype, params, rng)
        if all(np.max(np.abs(x[np.isfinite(x)]), initial=0.0) <= LARGEST[computed_type(dtype)] for x in exact.values()):
            return inputs, exact
    return None


def _expected(
    cascade: Cascade, case: Case, dtype: str, params: Mapping[str, int | float] | None, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs, rounded to the type, and the outputs that the interpreter gives for them."""
    import numpy as np

    from ..einsum import interpret

    inputs = interpret.random_inputs(cascade, case.sizes, params, rng)
    for tensor in cascade.inputs:
        if tensor.dtype == "float":
            inputs[tensor.name] = rounded(inputs[tensor.name] * case.scale, dtype)
    return inputs, {name: np.asarray(x) for name, x in interpret.evaluate(cascade, inputs, case.sizes, params).items()}


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """The values that a type can hold, as float32 or float64."""
    import numpy as np

    if dtype == "float16":
        return array.astype(np.float16).astype(np.float64)
    if dtype in WIDER:
        return _rounded_to_8_bits(array, *FLOAT8[dtype])
    single = array.astype(np.float32)
    if dtype == "bfloat16":  # round to nearest, ties to even, on the bits
        bits = single.view(np.uint32)
        single = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)
    return single.astype(np.float64)


def _rounded_to_8_bits(array: np.ndarray, digits: int, least: int, greatest: float) -> np.ndarray:
    """The nearest multiples, ties to even, of what the last of so many binary digits after the first is worth."""
    import numpy as np

    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(array), 2.0**least))), least)
    unit = 2.0 ** (exponent - digits)
    return np.asarray(np.clip(np.round(array / unit) * unit, -greatest, greatest), dtype=np.float64)


def keywords(source: str, sizes: Mapping[str, int], params: Mapping[str, int | float] | None) -> dict[str, int | float]:
    """Keywords of a module's `run` beside the inputs: sizes that no shape tells, and the parameters given."""
    signature = re.search(r"^def run\(\*, (.*)\):$", source, re.MULTILINE)
    names = {part.split("=")[0].strip() for part in signature[1].split(",")} if signature else set()
    found: dict[str, int | float] = {name: value for name, value in sizes.items() if name in names}
    return found | dict(params or {})
