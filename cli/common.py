"""What commands share: reading sizes and parameters, printing a result as text or JSON, turning errors into exit code 1.

A command is a thin function decorated with `@guarded`; it returns a result object. `str(result)` is the report, and
`result.as_json()` the JSON object. `--json` prints the latter and nothing else.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import rich_click as click

from ..einsum.diagnostics import Diagnostic, EinsmithError

if TYPE_CHECKING:
    from ..einsum.cascade import Cascade


DTYPES = ("float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2")
"""Types of the inputs of a kernel."""


class Result(Protocol):
    """What a command returns."""

    def as_json(self) -> dict[str, Any]: ...


def guarded(function: Callable[..., Result]) -> Callable[..., None]:
    """Print the result of a command, or its diagnostics with exit code 1. Adds `--json`.

    A result whose JSON has `ok: false`, `passed` cases missing and so on is still exit 0 unless it has an attribute
    `exit_code`.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **kwargs: Any) -> None:
        try:
            result = function(*args, **kwargs)
            text = json.dumps(plain(result.as_json()), indent=2, allow_nan=False) if as_json else str(result)
        except click.ClickException:  # usage errors have exit code 2
            raise
        except EinsmithError as error:
            fail(error.diagnostics, as_json)
        except RecursionError:
            fail([Diagnostic("E901", "the input is nested too deeply")], as_json)
        except Exception as error:
            fail([_fault(error)], as_json)
        _show(text)
        sys.exit(getattr(result, "exit_code", 0))

    return command


def _fault(error: Exception) -> Diagnostic:
    """A fault of einsmith itself, told apart from a user's mistake. With EINSMITH_DEBUG set the traceback is shown."""
    if os.environ.get("EINSMITH_DEBUG"):
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in `{frames[-1].name}`" if frames else "an unknown place"
    message = f"einsmith itself failed: {type(error).__name__} at {place}: {error}"
    return Diagnostic("E900", message, help="your input may be right; please report it; EINSMITH_DEBUG=1 shows the whole trace")


def fail(diagnostics: list[Diagnostic], as_json: bool) -> None:
    """Diagnostics on standard error (with `--json` also as JSON on standard output), then exit code 1."""
    for number, diagnostic in enumerate(diagnostics):
        print(("\n" if number else "") + str(diagnostic), file=sys.stderr)
    if as_json:
        _show(json.dumps({"ok": False, "diagnostics": [d.as_json() for d in diagnostics]}, indent=2))
    sys.exit(1)


def _show(text: str) -> None:
    """Print on standard output. Where that is impossible (a full disk) says so and exits with 1."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has seen enough: click ends quietly
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has nowhere to go
        fail([Diagnostic("E003", f"cannot write: {error.strerror}", file="standard output")], as_json=False)


def plain(value: Any) -> Any:
    """JSON-ready: tuples and sets to lists, numpy scalars to numbers, non-finite numbers to strings, paths and formulas to text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "item") and not isinstance(value, float):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


def parse_assignments(texts: tuple[str, ...], option: str, whole: bool) -> dict[str, int | float]:
    """`("P=4096,M=4K", "E=64")` as a dict; suffixes K, M, G are powers of 1024. Raises a usage error (exit code 2)."""
    values: dict[str, int | float] = {}
    for text in texts:
        for part in text.split(","):
            name, equals, number = part.partition("=")
            if not equals or not name.strip():
                raise click.BadParameter(f"`{part}` is not NAME=NUMBER", param_hint=option)
            try:
                values[name.strip()] = _number(number.strip(), whole)
            except ValueError:
                kind = "a whole number" if whole else "a number"
                raise click.BadParameter(f"`{number}` is not {kind}", param_hint=option) from None
    return values


def _number(text: str, whole: bool) -> int | float:
    if text[-1:] in ("K", "M", "G"):
        return int(text[:-1]) << 10 * ("KMG".index(text[-1]) + 1)
    try:
        return int(text)
    except ValueError:
        if whole:
            raise
        return float(text)


def sized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--size` and `--param`; the command gets `sizes` and `params` as dicts."""

    @click.option("--size", "size_texts", multiple=True, metavar="NAME=N,...", help="Sizes of extents, such as P=4096,M=4K.")
    @click.option("--param", "param_texts", multiple=True, metavar="NAME=X,...", help="Values of parameters, such as W=8.")
    @functools.wraps(function)
    def command(*args: Any, size_texts: tuple[str, ...], param_texts: tuple[str, ...], **kwargs: Any) -> Any:
        sizes = parse_assignments(size_texts, "--size", whole=True)
        params = parse_assignments(param_texts, "--param", whole=False)
        return function(*args, sizes=sizes, params=params, **kwargs)

    return command


def choosing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the choices that a plan of kernels leaves to the user: `--descriptors`, `--persistent`, `--allow-tf32`."""
    three = click.Choice(["auto", "on", "off"])
    tiles = "Tiles by tensor descriptors: where they are predicted to help, wherever they can be, or nowhere."
    walks = "Program instances that walk tiles: where that is predicted to be faster, wherever there are tiles enough, or nowhere."
    function = click.option("--allow-tf32", is_flag=True, help="Let matrix units round float32 inputs to TF32.")(function)
    function = click.option("--persistent", type=three, default="auto", show_default=True, help=walks)(function)
    return click.option("--descriptors", type=three, default="auto", show_default=True, help=tiles)(function)


def with_chosen_outputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--outputs`; the command gets `chosen`, which gives a cascade the outputs that the user wants."""

    @click.option("--outputs", "names", metavar="NAME,...", help="Tensors to compute instead of the outputs of the spec.")
    @functools.wraps(function)
    def command(*args: Any, names: str | None, **kwargs: Any) -> Any:
        from ..einsum.outputs import with_outputs

        def chosen(cascade: Cascade) -> Cascade:
            return cascade if names is None else with_outputs(cascade, [n for name in names.split(",") if (n := name.strip())])

        return function(*args, chosen=chosen, **kwargs)

    return command


@contextmanager
def told(what: str) -> Iterator[Callable[[str], None] | None]:
    """While something takes long: what to tell how far it is, shown on standard error; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda text: progress.update(task, description=f"{what} {text}")


def write_text(path: Path, text: str) -> None:
    """Write a file that the user asked for. Raises EinsmithError (E003) where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EinsmithError(Diagnostic("E003", f"cannot write: {error.strerror}", file=str(path))) from None
