"""Triton's interpreter, without what it does in vain.

In: nothing, in a process that interprets. Out: the same results in less than half of the time. Three things are left out, each with
an effect that nobody sees: sums and products of 32 bits are done once more in 64 for an assertion that is switched off; each call
of a device function looks for all functions of the language and replaces those that are replaced already; the table of numpy's
types is built at each look into it. What another version of Triton does not have stays as it is.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any


def hasten() -> None:
    """Change the interpreter of this process."""
    from triton.runtime import interpreter

    _without_sanitizing(interpreter)
    _patched_once(interpreter)
    _types_known(interpreter)


def _without_sanitizing(interpreter: Any) -> None:
    """No second computation of what is asserted only with `debug`."""
    builder: Any = getattr(interpreter, "interpreter_builder", None)
    options: Any = getattr(builder, "options", None)
    if not getattr(options, "debug", True) and hasattr(options, "sanitize_overflow"):
        builder.options = dataclasses.replace(options, sanitize_overflow=False)


def _patched_once(interpreter: Any) -> None:
    """A device function replaces the functions of the language that it sees at its first call: within a kernel they are replaced,
    and what it replaces beyond that stays so."""
    function = getattr(interpreter, "InterpretedFunction", None)
    patch = getattr(interpreter, "_patch_lang", None)
    if function is None or patch is None or hasattr(function.__call__, "__wrapped__"):
        return
    seen: set[object] = set()

    @functools.wraps(function.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fn not in seen:
            patch(self.fn)
            seen.add(self.fn)
        try:
            return self.rewrite()(*args, **kwargs)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    function.__call__ = call


def _types_known(interpreter: Any) -> None:
    """The type of numpy for each type of elements, looked up once. (Types of blocks are no keys; all pointers are alike.)"""
    find = getattr(interpreter, "_get_np_dtype", None)
    if find is None or hasattr(find, "__wrapped__"):
        return
    from triton.language import block_type, pointer_type

    known: dict[Any, Any] = {}

    @functools.wraps(find)
    def look_up(dtype: Any) -> Any:
        element = dtype.element_ty if isinstance(dtype, block_type) else dtype
        if isinstance(element, pointer_type):
            return find(element)
        if element not in known:
            known[element] = find(element)
        return known[element]

    interpreter._get_np_dtype = look_up
