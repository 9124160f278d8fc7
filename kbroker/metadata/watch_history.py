"""The latest revisions of an embedded store, for its watchers."""

from collections import deque
from collections.abc import AsyncIterator

import anyio

from kbroker.metadata.store import MAX_WATCH_HISTORY, Batch, Compacted, Event


class WatchHistory:
    """A bounded run of batches without a gap, and a wake-up call for who waits for the next."""

    __slots__ = ("_batches", "_limit", "_oldest", "_revision", "_wake")

    def __init__(self, revision: int, *, limit: int = MAX_WATCH_HISTORY) -> None:
        self._revision = revision
        self._oldest = revision + 1  # the oldest revision that can be watched from
        self._batches: deque[Batch] = deque()
        self._limit = limit
        self._wake: anyio.Event | None = None

    @property
    def revision(self) -> int:
        """The newest revision."""
        return self._revision

    def append(self, batch: Batch) -> None:
        """Add the next revision and wake the watchers."""
        assert batch.revision == self._revision + 1, "revisions follow each other"
        self._revision = batch.revision
        self._batches.append(batch)
        if len(self._batches) > self._limit:
            self._oldest = self._batches.popleft().revision + 1
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    async def watch(self, prefix: bytes, from_rev: int) -> AsyncIterator[Batch]:
        """Batches with a change under ``prefix``; raises Compacted for a watcher left behind."""
        next_revision = from_rev
        while True:
            if next_revision < self._oldest:
                raise Compacted(self._oldest)
            while next_revision <= self._revision:
                batch = self._batches[next_revision - self._oldest]
                next_revision += 1
                events: list[Event] = [e for e in batch.events if e.key.startswith(prefix)]
                if events:
                    yield Batch(batch.revision, events)
                    if next_revision < self._oldest:  # while the watcher worked on it
                        raise Compacted(self._oldest)
            if self._wake is None:
                self._wake = anyio.Event()
            await self._wake.wait()
