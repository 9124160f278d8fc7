"""The only source of time. Everything else is handed a ``Clock``."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two times: one that only moves forward, and the wall clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def time_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC; may jump."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)  # every request asks several times

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until a test moves it."""

    __slots__ = ("_monotonic", "_time_ms")

    def __init__(self, *, monotonic: float = 0.0, time_ms: int = 1_700_000_000_000) -> None:
        self._monotonic = monotonic
        self._time_ms = float(time_ms)

    def monotonic(self) -> float:
        return self._monotonic

    def time_ms(self) -> int:
        return int(self._time_ms)

    def advance(self, seconds: float) -> None:
        """Move both times forward; a Timer on this clock is run by ``Timer.run_due``."""
        if seconds < 0:
            raise ValueError("time does not go back; use set_time_ms for the wall clock")
        self._monotonic += seconds
        self._time_ms += seconds * 1000

    def set_time_ms(self, time_ms: int) -> None:
        """Let the wall clock jump, as NTP or an operator may."""
        self._time_ms = float(time_ms)
