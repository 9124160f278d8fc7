"""The only sleeper: callbacks on a heap, run by one task at their time of the Clock."""

import heapq
import itertools
import logging
from collections.abc import Callable

import anyio

from kbroker.common.clock import Clock

_COMPACT_AT = 512  # cancelled entries are swept when they are this many and the larger half
_LONGEST_SLEEP_S = 3600.0


class TimerHandle:
    """A scheduled callback; ``cancel`` makes it never run."""

    __slots__ = ("_timer", "callback", "deadline", "is_queued")

    def __init__(self, timer: "Timer", deadline: float, callback: Callable[[], object]) -> None:
        self._timer = timer
        self.deadline = deadline
        self.callback: Callable[[], object] | None = callback
        self.is_queued = True

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run or was cancelled before."""
        if self.callback is not None:
            self.callback = None
            if self.is_queued:
                self._timer._on_cancel()


class Timer:
    """Runs plain functions at their time. One that raises is logged; the others still run."""

    def __init__(self, clock: Clock, log: logging.Logger | None = None) -> None:
        self._clock = clock
        self._log = log or logging.getLogger("kbroker.timer")
        self._heap: list[tuple[float, int, TimerHandle]] = []
        self._sequence = itertools.count()
        self._cancelled = 0
        self._sleeping_until = float("inf")
        self._wake: anyio.Event | None = None

    def schedule(self, delay_s: float, callback: Callable[[], object]) -> TimerHandle:
        """Run ``callback`` after ``delay_s`` seconds (at the next turn when 0 or less)."""
        deadline = self._clock.monotonic() + max(delay_s, 0.0)
        handle = TimerHandle(self, deadline, callback)
        heapq.heappush(self._heap, (deadline, next(self._sequence), handle))
        if deadline < self._sleeping_until and self._wake is not None:
            self._wake.set()
        return handle

    def _on_cancel(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_AT and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    @property
    def pending(self) -> int:
        """Callbacks that are scheduled and not cancelled."""
        return len(self._heap) - self._cancelled

    def next_deadline(self) -> float | None:
        """When the next callback is due on the clock, None when there is none."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def run_due(self) -> int:
        """Run what is due now and was scheduled before this call; returns how many ran."""
        now = self._clock.monotonic()
        due: list[TimerHandle] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            handle = heapq.heappop(self._heap)[2]
            handle.is_queued = False
            due.append(handle)
        ran = 0
        for handle in due:
            callback, handle.callback = handle.callback, None
            if callback is None:  # cancelled by an earlier one
                continue
            ran += 1
            try:
                callback()
            except Exception:
                self._log.exception("a timer callback failed")
        return ran

    async def run(self) -> None:
        """Sleep and run callbacks until cancelled."""
        while True:
            self.run_due()
            deadline = self.next_deadline()
            delay = _LONGEST_SLEEP_S
            if deadline is not None:
                delay = min(delay, max(0.0, deadline - self._clock.monotonic()))
            self._wake = anyio.Event()
            self._sleeping_until = deadline if deadline is not None else float("inf")
            with anyio.move_on_after(delay):
                await self._wake.wait()
            self._wake = None
            self._sleeping_until = float("inf")
