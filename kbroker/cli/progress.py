"""How far long work has come: one line on standard error that is written over, on a terminal."""

import sys
from typing import Final, TextIO

from kbroker.common.clock import Clock, SystemClock

_INTERVAL_S: Final = 0.2
_CLEAR_LINE: Final = "\r\x1b[K"


class Progress:
    """``with Progress() as progress: ... progress.advance(...)``; the line is gone at the end.

    Says nothing where ``stream`` (standard error) is no terminal.
    """

    def __init__(
        self,
        *,
        total_bytes: int | None = None,
        clock: Clock | None = None,
        stream: TextIO | None = None,
        shown: bool = True,
    ) -> None:
        """``total_bytes``: what ``input_bytes`` comes to in the end, for a percentage."""
        self._clock = clock or SystemClock()
        self._stream = stream or sys.stderr
        self._is_shown = shown and self._stream.isatty()
        self._total_bytes = total_bytes
        self._began = self._clock.monotonic()
        self._next = self._began
        self._records = 0
        self._bytes = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()

    def advance(self, *, records: int, input_bytes: int) -> None:
        """So much more is done."""
        self._records += records
        self._bytes += input_bytes
        now = self._clock.monotonic()
        if self._is_shown and now >= self._next:
            self._next = now + _INTERVAL_S
            self._stream.write(_CLEAR_LINE + self._text(now - self._began))
            self._stream.flush()

    def _text(self, seconds: float) -> str:
        parts = [f"{self._records:,} records", f"{self._bytes / 1e6:,.1f} MB"]
        if seconds > 0:
            parts.append(f"{self._records / seconds:,.0f} records/s")
        if self._total_bytes:
            parts.append(f"{min(100 * self._bytes // self._total_bytes, 100)} %")
        return ", ".join(parts)
