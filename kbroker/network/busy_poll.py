"""Looking for the next request without sleeping, while they come one right after the other.

Who waits in the selector has to be woken by whoever sends. On a virtual machine that takes longer
than answering a small request does, and costs the sender and the receiver about as much time of
their processors as looking again and again does. So while a lone client's requests follow each
other closely, the loop goes round without sleeping, for a bounded time after each answer. Time in
which it looked and nothing came is paid for by many requests that looking has found before, or else
is a small share of all time: where requests pause more often, and where there are none, the loop
sleeps.
"""

from collections.abc import Callable
from typing import Final

_FOLLOWED: Final = 4
"""So many answers follow each other closely before the loop stays awake."""
_CLOSELY: Final = 1.2
"""Spans between them at most: these requests still have to wake the loop."""
_AT_WORK: Final = 0.5
"""A turn that took more of a span than this had other work: nothing was looked for meanwhile."""
_EARNED: Final = 1 / 32
"""Spans of looking in vain that a request is worth which looking has found."""
_SHARE: Final = 0.005
"""The part of all time that may be spent beyond that."""
_SAVED: Final = 16
"""Spans that are saved up at most."""


class BusyPoll:
    """Keeps an event loop awake for ``span`` seconds after an answer, where that pays."""

    __slots__ = (
        "_call_soon",
        "_credit",
        "_credited_at",
        "_followed",
        "_is_looking",
        "_look_again",
        "_monotonic",
        "_seen",
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
        self._credit = span  # seconds that may be spent looking in vain
        self._credited_at = monotonic()
        self._followed = 0  # answers in a row that came closely after the one before
        self._is_looking = False
        self._seen = 0.0  # when it looked last
        self._until = float("-inf")  # until then the next answer is close, or is looked for

    def answered(self) -> None:
        """A request that came alone has been answered just now."""
        now = self._monotonic()
        if self._is_looking:
            self._credit += self._span * _EARNED
            self._until = now + self._span
            return
        if now > self._until:
            self._followed = 0
        else:
            self._followed += 1
            if self._followed >= _FOLLOWED and self._can_afford(now):
                self._is_looking = True
                self._seen = now
                self._until = now + self._span
                self._call_soon(self._look_again)
                return
        self._until = now + self._span * _CLOSELY

    def _can_afford(self, now: float) -> bool:
        earned = self._credit + (now - self._credited_at) * _SHARE
        self._credit = min(earned, self._span * _SAVED)
        self._credited_at = now
        return self._credit >= self._span

    def _look(self) -> None:
        """Nothing but to have the loop look at its sockets: it runs once in each turn."""
        now = self._monotonic()
        if now - self._seen > self._span * _AT_WORK:
            self._until += now - self._seen
        self._seen = now
        if now <= self._until:
            self._call_soon(self._look_again)
            return
        self._is_looking = False
        self._followed = 0
        self._credit -= self._span
