"""Looking for the next request without sleeping, while they come one right after the other.

Who waits in the selector has to be woken by whoever sends. On a virtual machine that takes longer
than answering a small request does, and costs the sender and the receiver about as much time of
their processors as looking again and again does. So while a lone client's requests follow each
other closely, the loop goes round without sleeping, for a bounded time after each answer. It sleeps
as ever when nothing comes, and looks no more for those that pause too often.
"""

from collections.abc import Callable
from typing import Final

_FEWEST: Final = 8
"""So many answers follow each other closely before the first look."""
_MOST: Final = 512
_WORTH: Final = 16
"""Requests that looking must have found to be worth the one time that it found nothing."""


class BusyPoll:
    """Keeps an event loop awake for ``span`` seconds after an answer, where that pays."""

    __slots__ = (
        "_call_soon",
        "_followed",
        "_found",
        "_is_looking",
        "_look_again",
        "_monotonic",
        "_needed",
        "_span",
        "_until",
    )

    def __init__(
        self,
        span: float,
        monotonic: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """``call_soon`` is the loop's: what it is given runs in the next turn."""
        self._span = span
        self._monotonic = monotonic
        self._call_soon = call_soon
        self._look_again = self._look
        self._needed = _FEWEST
        self._followed = 0  # answers that came within the span of the one before, in a row
        self._found = 0  # of them, those since the loop has been awake
        self._is_looking = False
        self._until = float("-inf")

    def answered(self) -> None:
        """A request that came alone has been answered just now."""
        now = self._monotonic()
        if now > self._until:
            self._followed = 0
        elif self._is_looking:
            self._found += 1
        else:
            self._followed += 1
            if self._followed >= self._needed:
                self._found = 0
                self._is_looking = True
                self._call_soon(self._look_again)
        self._until = now + self._span

    def _look(self) -> None:
        """Nothing but to have the loop look at its sockets: it runs once in each turn."""
        if self._monotonic() <= self._until:
            self._call_soon(self._look_again)
            return
        self._is_looking = False
        self._followed = 0
        if self._found >= _WORTH:
            self._needed = _FEWEST
        else:
            self._needed = min(2 * self._needed, _MOST)
