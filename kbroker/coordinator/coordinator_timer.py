"""Timers of one shard: named, replaced by a second of the same name, returning records."""

from collections.abc import Callable, Hashable
from typing import Any

from kbroker.common.clock import Clock
from kbroker.common.timer import Timer, TimerHandle
from kbroker.coordinator.result import CoordinatorResult

TimerOperation = Callable[[], CoordinatorResult[Any] | None]

_EARLY_S = 1e-6  # rounding of a deadline computed twice


class _Entry:
    __slots__ = ("deadline", "handle", "operation", "retry")

    def __init__(self, deadline: float, operation: TimerOperation, retry: bool) -> None:
        self.deadline = deadline
        self.operation = operation
        self.retry = retry
        self.handle: TimerHandle | None = None


class CoordinatorTimer:
    """Runs operations of a shard at their time through the runtime.

    Pushing a deadline back, which every heartbeat does, costs no heap operation: the entry keeps
    its place in the heap and goes back to sleep when it is woken too early.
    """

    __slots__ = ("_clock", "_entries", "_run", "_timer")

    def __init__(
        self, clock: Clock, timer: Timer, run: Callable[[Hashable, TimerOperation, bool], None]
    ) -> None:
        self._clock = clock
        self._timer = timer
        self._run = run
        self._entries: dict[Hashable, _Entry] = {}

    def schedule(
        self, key: Hashable, delay_s: float, operation: TimerOperation, *, retry: bool = False
    ) -> None:
        """Run ``operation`` after ``delay_s`` seconds in place of what ``key`` had.

        With ``retry`` an operation that fails runs again after a pause.
        """
        deadline = self._clock.monotonic() + delay_s
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(deadline, operation, retry)
        else:
            entry.deadline = deadline
            entry.operation = operation
            entry.retry = retry
            handle = entry.handle
            if handle is not None:
                if handle.deadline <= deadline:
                    return
                handle.cancel()
        entry.handle = self._timer.schedule(delay_s, lambda: self._fire(key, entry))

    def push_back(self, key: Hashable, delay_s: float) -> bool:
        """Let the operation of ``key`` run ``delay_s`` seconds from now; False if it has none."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        deadline = self._clock.monotonic() + delay_s
        if entry.handle is not None and entry.handle.deadline <= deadline:
            entry.deadline = deadline
        else:
            self.schedule(key, delay_s, entry.operation, retry=entry.retry)
        return True

    def _fire(self, key: Hashable, entry: _Entry) -> None:
        early = entry.deadline - self._clock.monotonic()
        if early > _EARLY_S:
            entry.handle = self._timer.schedule(early, lambda: self._fire(key, entry))
            return
        del self._entries[key]
        self._run(key, entry.operation, entry.retry)

    def cancel(self, key: Hashable) -> None:
        """Forget the operation of ``key``; harmless when it has none."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.handle is not None:
            entry.handle.cancel()

    def cancel_all(self) -> None:
        """Forget everything: the shard is gone."""
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            if entry.handle is not None:
                entry.handle.cancel()

    def is_scheduled(self, key: Hashable) -> bool:
        """Whether ``key`` has an operation waiting."""
        return key in self._entries

    @property
    def pending(self) -> int:
        """How many operations wait."""
        return len(self._entries)
