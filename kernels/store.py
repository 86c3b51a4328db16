"""Where generated modules live: real files named by a hash of their text, because Triton reads a kernel's source from its file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """The user's cache of generated modules; a temporary folder where there is no writable one."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(base) / "einsmith" / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    path = Path(tempfile.gettempdir()) / f"einsmith-{os.getuid()}" / "kernels"
    path.mkdir(parents=True, exist_ok=True)
    return path


def stored(source: str) -> Path:
    """A file that holds exactly this text."""
    path = folder() / f"k{hashlib.sha256(source.encode()).hexdigest()[:24]}.py"
    if not path.is_file() or path.read_text(encoding="utf-8") != source:
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(source, encoding="utf-8")
        part.replace(path)
    return path
