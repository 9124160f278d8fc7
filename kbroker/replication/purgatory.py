"""Requests that wait: for a high watermark, for data, for a low watermark.

An operation is watched under the partitions whose change could complete it. Whoever changes a
partition calls ``check_and_complete``; that costs one call per operation waiting on that partition,
and nothing when there is none.

The step that registers an operation under a partition also looks at that partition, with no await
in between, so a change can not slip through: it either came before (the look sees it) or comes
after (the watcher is there).
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from kbroker.common.timer import Timer

K = TypeVar("K", bound=Hashable)

WATCH_AT_ONCE: Final = 256
"""Keys under which an operation is registered before other tasks get their turn."""


class DelayedOperation(Generic[K]):
    """A request that may have to wait. Completed exactly once: by a change or by its time limit."""

    __slots__ = ("_wake", "is_completed", "is_expired")

    def __init__(self) -> None:
        self.is_completed = False
        self.is_expired = False
        self._wake: Callable[[], object] | None = None

    def try_complete(self, key: K) -> bool:
        """Look at ``key``, which has changed or was never looked at: is the operation complete?"""
        raise NotImplementedError

    def complete(self) -> bool:
        """Mark it done and wake the waiting coroutine; False when that had happened before."""
        if self.is_completed:
            return False
        self.is_completed = True
        if self._wake is not None:
            self._wake()
        return True


class Purgatory(Generic[K]):
    """Where operations of one kind wait."""

    __slots__ = ("_timer", "name", "watched")

    def __init__(self, name: str, timer: "Timer") -> None:
        self.name = name
        self._timer = timer
        self.watched: dict[K, dict[DelayedOperation[K], None]] = {}
        """Who waits, by what they wait for; written here only."""

    @property
    def watched_keys(self) -> int:
        """How many keys somebody waits for."""
        return len(self.watched)

    def waiting(self, key: K) -> int:
        """How many operations wait for this key."""
        return len(self.watched.get(key, ()))

    def watchers(self) -> int:
        """How often operations are registered, each once for every key that it waits for."""
        return sum(map(len, self.watched.values()))

    async def wait(
        self, operation: DelayedOperation[K], keys: Iterable[K], timeout_s: float
    ) -> None:
        """Return when the operation is complete or its time is over (``is_expired``).

        Gives way while it registers under many keys. A cancelled caller leaves nothing behind.
        """
        watched: list[K] = []
        timeout = None
        try:
            for number, key in enumerate(dict.fromkeys(keys), 1):
                if operation.is_completed:
                    return
                self.watched.setdefault(key, {})[operation] = None
                watched.append(key)
                if operation.try_complete(key):
                    operation.complete()
                elif number % WATCH_AT_ONCE == 0:
                    await checkpoint()
            if operation.is_completed:
                return
            event = anyio.Event()
            operation._wake = event.set
            timeout = self._timer.schedule(max(timeout_s, 0.0), lambda: self._expire(operation))
            await event.wait()
        finally:
            operation._wake = None
            if timeout is not None:
                timeout.cancel()
            for key in watched:
                self._remove(key, operation)

    def check_and_complete(self, key: K) -> int:
        """Something changed under ``key``: try what waits for it; returns how many completed."""
        watchers = self.watched.get(key)
        if not watchers:
            return 0
        completed = 0
        for operation in list(watchers):
            if operation.is_completed:
                continue
            if operation.try_complete(key) and operation.complete():
                completed += 1
        return completed

    def _expire(self, operation: DelayedOperation[K]) -> None:
        if not operation.is_completed:
            operation.is_expired = True
            operation.complete()

    def _remove(self, key: K, operation: DelayedOperation[K]) -> None:
        watchers = self.watched.get(key)
        if watchers is not None:
            watchers.pop(operation, None)
            if not watchers:
                del self.watched[key]
