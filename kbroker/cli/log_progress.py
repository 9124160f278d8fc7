"""How far a tool has come through files of known size: one line on a terminal, written over."""

import sys
from typing import Final, TextIO

from kbroker.common.clock import Clock, SystemClock

_INTERVAL_S: Final = 0.2
_CLEAR_LINE: Final = "\r\x1b[K"


class ByteProgress:
    """``with ByteProgress("verifying") as progress: ... progress.show(done, total)``, in bytes."""

    def __init__(
        self, what: str, *, stream: TextIO | None = None, clock: Clock | None = None
    ) -> None:
        """Says nothing where ``stream`` (standard error) is no terminal."""
        self._what = what
        self._stream = stream or sys.stderr
        self._is_shown = self._stream.isatty()
        self._clock = clock or SystemClock()
        self._next = self._clock.monotonic()

    def __enter__(self) -> "ByteProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()

    def show(self, done: int, total: int) -> None:
        """So much of all is done."""
        if not self._is_shown or self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + _INTERVAL_S
        percent = 100 if not total else min(100 * done // total, 100)
        line = f"{self._what}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {percent} %"
        self._stream.write(_CLEAR_LINE + line)
        self._stream.flush()
