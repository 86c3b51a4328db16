"""Results in notebooks: what a command prints, where a notebook would show the fields of an object."""

from __future__ import annotations

from html import escape


class Displayed:
    """A result whose `str` is its report."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
