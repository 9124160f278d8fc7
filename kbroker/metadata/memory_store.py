"""A metadata store in memory: for ``--memory``, tests and simulation."""

from collections.abc import AsyncIterator, Iterable, Sequence

import anyio
from anyio.lowlevel import checkpoint

from kbroker.metadata.store import (
    Batch,
    Compacted,
    Condition,
    CreateRevision,
    Delete,
    Entry,
    Event,
    ModRevision,
    Operation,
    Put,
    TransactionResult,
    check_operations,
)
from kbroker.metadata.watch_history import WatchHistory


class EmbeddedSession:
    """A session inside the process that holds the data: it lives until it is closed."""

    __slots__ = ("_id", "_lost", "_store")

    def __init__(self, store: "SessionOwner", session_id: int) -> None:
        self._store = store
        self._id = session_id
        self._lost = anyio.Event()

    @property
    def id(self) -> int:
        return self._id

    @property
    def deadline(self) -> float:
        return float("inf")

    def valid(self) -> bool:
        return not self._lost.is_set()

    async def wait_lost(self) -> None:
        await self._lost.wait()

    async def close(self) -> None:
        if not self._lost.is_set():
            self._lost.set()
            await self._store.end_session(self._id)


class SessionOwner:
    """What an embedded session needs of its store."""

    async def end_session(self, session_id: int) -> None:
        """Remove the session's keys, all at one revision."""
        raise NotImplementedError


class Listing:
    """Entries of one revision, one after the other; needs no closing, unlike a generator."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = iter(entries)

    def __aiter__(self) -> "Listing":
        return self

    async def __anext__(self) -> Entry:
        for entry in self._entries:
            return entry
        raise StopAsyncIteration


class MemoryStore(SessionOwner):
    """A dict and a revision. Transactions are synchronous inside, so they need no lock."""

    max_operations = 1 << 20

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._session_of: dict[bytes, int] = {}
        self._last_session = 0
        self._history = WatchHistory(0)

    async def txn(
        self,
        when: Sequence[Condition],
        then: Sequence[Operation],
        orelse: Sequence[Operation] = (),
    ) -> TransactionResult:
        await checkpoint()  # before anything is done: callers are really async, and cancellable
        succeeded = all(map(self._holds, when))
        self._apply(then if succeeded else orelse)
        return TransactionResult(succeeded, self._history.revision)

    def _holds(self, condition: Condition) -> bool:
        entry = self._entries.get(condition.key)
        if isinstance(condition, CreateRevision):
            return (entry.create_revision if entry is not None else 0) == condition.revision
        if isinstance(condition, ModRevision):
            return (entry.mod_revision if entry is not None else 0) == condition.revision
        return entry is not None and entry.value == condition.value

    def _apply(self, operations: Sequence[Operation]) -> None:
        check_operations(operations)
        revision = self._history.revision + 1
        events: list[Event] = []
        for operation in operations:
            if isinstance(operation, Put):
                events.append(self._put(operation, revision))
            elif isinstance(operation, Delete):
                if operation.key in self._entries:
                    events.append(self._remove(operation.key))
            else:
                prefix = operation.prefix
                doomed = sorted(key for key in self._entries if key.startswith(prefix))
                events.extend(map(self._remove, doomed))
        if events:
            self._history.append(Batch(revision, events))

    def _put(self, put: Put, revision: int) -> Event:
        key = put.key
        old = self._entries.get(key)
        if old is None:
            entry = Entry(key, put.value, revision, revision, 1)
        else:
            entry = Entry(key, put.value, old.create_revision, revision, old.version + 1)
        self._entries[key] = entry
        if put.session_id:
            self._session_of[key] = put.session_id
        else:
            self._session_of.pop(key, None)
        return Event(key, entry)

    def _remove(self, key: bytes) -> Event:
        del self._entries[key]
        self._session_of.pop(key, None)
        return Event(key, None)

    async def list(self, prefix: bytes, *, rev: int = 0) -> tuple[int, AsyncIterator[Entry]]:
        revision = self._history.revision
        if rev not in (0, revision):
            raise Compacted(revision)
        entries = sorted(e for e in self._entries.values() if e.key.startswith(prefix))
        return revision, Listing(entries)

    def watch(self, prefix: bytes, from_rev: int) -> AsyncIterator[Batch]:
        return self._history.watch(prefix, from_rev)

    async def session(self, ttl: float) -> EmbeddedSession:
        """``ttl`` does not matter: the session lives as long as this process lets it."""
        self._last_session += 1
        return EmbeddedSession(self, self._last_session)

    async def end_session(self, session_id: int) -> None:
        keys = sorted(key for key, owner in self._session_of.items() if owner == session_id)
        self._apply([Delete(key) for key in keys])

    async def close(self) -> None:
        """Nothing to give back."""
