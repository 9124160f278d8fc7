"""The latest revisions of an embedded store, for its watchers."""

from collections import deque

import anyio

from kbroker.metadata.store import MAX_WATCH_HISTORY, Batch, Compacted


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

    def watch(self, prefix: bytes, from_rev: int) -> "Watcher":
        """Batches with a change under ``prefix``, for ever."""
        return Watcher(self, prefix, from_rev)

    def next_batch(self, prefix: bytes, from_rev: int) -> Batch | None:
        """The first from ``from_rev`` on, None when there is none yet; may raise Compacted."""
        if from_rev < self._oldest:
            raise Compacted(self._oldest)
        for revision in range(from_rev, self._revision + 1):
            batch = self._batches[revision - self._oldest]
            events = [event for event in batch.events if event.key.startswith(prefix)]
            if events:
                return Batch(revision, events)
        return None

    async def wait(self) -> None:
        """Until there is one more revision."""
        if self._wake is None:
            self._wake = anyio.Event()
        await self._wake.wait()


class Watcher:
    """Iterates over batches; needs no closing, unlike a generator."""

    __slots__ = ("_history", "_next_revision", "_prefix")

    def __init__(self, history: WatchHistory, prefix: bytes, from_rev: int) -> None:
        self._history = history
        self._prefix = prefix
        self._next_revision = from_rev

    def __aiter__(self) -> "Watcher":
        return self

    async def __anext__(self) -> Batch:
        while True:
            seen = self._history.revision
            batch = self._history.next_batch(self._prefix, self._next_revision)
            if batch is not None:
                self._next_revision = batch.revision + 1
                return batch
            self._next_revision = max(self._next_revision, seen + 1)
            await self._history.wait()
