"""Holds background work to so many bytes a second (log.cleaner.io.max.bytes.per.second)."""

from typing import TYPE_CHECKING

import anyio

from kbroker.common.clock import Clock
from kbroker.common.timer import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTEST_SLEEP_S = 0.02
_CREDIT_S = 0.1  # what a late timer took may be made up for
_LONGEST_SLEEP_S = 1.0
"""So that a limit that is lifted counts soon."""


class IoThrottle:
    """Whoever moves bytes says so and sleeps as long as they take at the rate; 0 is no limit."""

    def __init__(self, clock: Clock, timer: Timer, bytes_per_s: float) -> None:
        self._clock = clock
        self._timer = timer
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0  # when what was moved so far is paid for
        self._paid_rate = bytes_per_s  # at this rate

    async def moved(self, size: int, is_wanted: "Callable[[], bool] | None" = None) -> None:
        """``size`` bytes were read or written. Returns when others may be, or, soon, when what
        they belong to is not wanted any more."""
        rate = self.bytes_per_s
        now = self._clock.monotonic()
        if rate != self._paid_rate:
            self._free_at = 0.0
            self._paid_rate = rate
        if rate <= 0:
            return
        # Others move bytes meanwhile: what they add is theirs to wait for.
        paid_at = self._free_at = max(now - _CREDIT_S, self._free_at) + size / rate
        while (wait := paid_at - self._clock.monotonic()) > _SHORTEST_SLEEP_S:
            if self.bytes_per_s != rate or (is_wanted is not None and not is_wanted()):
                return
            woken = anyio.Event()
            handle = self._timer.schedule(min(wait, _LONGEST_SLEEP_S), woken.set)
            try:
                await woken.wait()
            finally:
                handle.cancel()
