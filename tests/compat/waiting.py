"""Waiting for what a distributed system will do in its own time: by polling, never by sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Liveness bounds, not measurements: generous enough for a loaded machine.
PATIENCE_S = 45.0
POLL_INTERVAL_S = 0.05


def eventually(check: Callable[[], T], *, what: str, timeout_s: float = PATIENCE_S) -> T:
    """Calls ``check`` until it returns something true, and returns that.

    Raises AssertionError with the last result. An exception of ``check`` is not retried.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}; last result {result!r}")
        time.sleep(POLL_INTERVAL_S)
