"""Arrays in `.npz` files: what `einsmith run` reads and writes.

In: a path and the cascade whose inputs it should hold. Out: the arrays by name. Shapes and element types are checked from the
headers alone, before any data is read; pickled objects are never unpickled. Raises SpecError (E307 to E313).
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from .arithmetic import Array
from .cascade import Cascade
from .diagnostics import Diagnostic, EinsmithError, SpecError
from .inputs import checked, infer_sizes
from .sizes import bind


def read_inputs(
    path: Path, cascade: Cascade, sizes: Mapping[str, int] | None = None, params: Mapping[str, int | float] | None = None
) -> dict[str, Array]:
    """The inputs of a cascade from a file."""
    with _reported(path), zipfile.ZipFile(path) as archive:
        headers = {name.removesuffix(".npy"): _header(archive, name, path) for name in archive.namelist()}
        stubs = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (shape, dtype) in headers.items()}
        checked(cascade, stubs, bind(cascade, infer_sizes(cascade, stubs, sizes, params), params))
    with _reported(path), np.load(path, allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name]) for name in headers}


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of a file, whatever they are for."""
    with _reported(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in archive.namelist():
            _header(archive, name, path)
    with _reported(path), np.load(path, allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name]) for name in names}


def _header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and element type of one entry."""
    with archive.open(name) as entry:
        version = np.lib.format.read_magic(entry)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(entry)
    if dtype.hasobject:
        message = f"`{name.removesuffix('.npy')}` holds pickled Python objects, which are not read"
        raise SpecError(Diagnostic("E313", message, file=str(path), help="save arrays of numbers: `numpy.savez(file, Q=Q, K=K)`"))
    return shape, dtype


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Faults of a file as diagnostics."""
    try:
        yield
    except OSError as error:
        raise SpecError(Diagnostic("E312", f"cannot read: {error.strerror or error}", file=str(path))) from None
    except MemoryError:
        raise SpecError(Diagnostic("E328", "the arrays of this file do not fit in memory", file=str(path))) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, EinsmithError):
            raise
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        message = f"not an .npz file of arrays: {reason}"
        raise SpecError(Diagnostic("E312", message, file=str(path), help="write it with `numpy.savez(file, Q=Q, K=K)`")) from None


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays under their names; the file appears whole or not at all. Raises EinsmithError (E003).

    A link is followed. What is no regular file, such as `/dev/null` or a pipe, is written to, never replaced.
    """
    try:
        place = path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not place.is_file():
            with place.open("wb") as device:
                _savez(device, arrays)
            return
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                _savez(file, arrays)
            except BaseException:
                temporary.unlink()
                raise
        temporary.chmod(0o644)
        temporary.replace(place)
    except OSError as error:
        raise EinsmithError(Diagnostic("E003", f"cannot write: {error.strerror or error}", file=str(path))) from None


def _savez(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """`numpy.savez` for any names, `file` among them."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
