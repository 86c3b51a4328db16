"""Work counted in calls, so that "quick" can be tested where clocks are shared: the same number on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


def counted(action: Callable[[], Result]) -> tuple[Result, int]:
    """What an action returns, and how many functions it called and returned from, of Python and of C."""
    events = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal events
        events += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        result = action()
    finally:
        sys.setprofile(before)
    return result, events
