"""A metadata store in one SQLite file: the default of a broker with a data directory.

WAL with synchronous=FULL: a transaction that was answered survives a power failure. One that only
puts keys of a session does not wait for the disk: these keys end with the process, and the next
synced transaction takes their revisions to the disk with it. ``sqlite3`` is
imported when a store is opened. SQLite runs only inside ``Offload``, one call at a time, so the
loop never waits for a disk. The caller holds the lock of the data directory, which proves that no
other process uses the file and that the owners of all sessions found in it are dead.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from kbroker.common.offload import Offload
from kbroker.metadata.memory_store import EmbeddedSession, Listing, SessionOwner
from kbroker.metadata.store import (
    Batch,
    Compacted,
    Condition,
    CreateRevision,
    Delete,
    DeletePrefix,
    Entry,
    Event,
    ModRevision,
    NotSent,
    Operation,
    Put,
    StoreError,
    TransactionResult,
    check_operations,
)
from kbroker.metadata.watch_history import WatchHistory

if TYPE_CHECKING:
    import sqlite3

METADATA_FILE: Final = "metadata.db"
"""In a broker's first data directory; a plain file, which Kafka's tools pass over."""

_FORMAT: Final = 1  # PRAGMA user_version of the file
_COLUMNS: Final = "key, value, create_revision, mod_revision, version"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS kv (
    key BLOB PRIMARY KEY, value BLOB NOT NULL,
    create_revision INTEGER NOT NULL, mod_revision INTEGER NOT NULL, version INTEGER NOT NULL,
    session INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


def _end_of_prefix(prefix: bytes) -> bytes | None:
    """The least key after all that begin so; None when there is no such key."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _range(prefix: bytes) -> tuple[str, tuple[bytes, ...]]:
    end = _end_of_prefix(prefix)
    if end is None:
        return "key >= ?", (prefix,)
    return "key >= ? AND key < ?", (prefix, end)


def _ends_with_the_process(operation: Operation) -> bool:
    return isinstance(operation, Put) and operation.session_id != 0


class SqliteStore(SessionOwner):
    """One connection, used by one call at a time."""

    max_operations = 1 << 20

    def __init__(self, connection: "sqlite3.Connection", offload: Offload, revision: int) -> None:
        self._connection = connection
        self._offload = offload
        self._turn = anyio.Lock()
        self._history = WatchHistory(revision)
        self._last_session = 0
        self._closed = False

    @classmethod
    async def open(cls, path: str, offload: Offload) -> "SqliteStore":
        """Open or create the file; keys of sessions left over by a dead process are removed.

        Raises StoreError when the file is not ours, is newer, or cannot be read.
        """
        connection, revision = await offload.run(lambda: _open(path))
        return cls(connection, offload, revision)

    async def txn(
        self,
        when: Sequence[Condition],
        then: Sequence[Operation],
        orelse: Sequence[Operation] = (),
    ) -> TransactionResult:
        def work() -> tuple[bool, list[Event]]:
            succeeded = all(self._holds(condition) for condition in when)
            return succeeded, self._change(then if succeeded else orelse)

        check_operations(then)
        check_operations(orelse)
        synced = not all(_ends_with_the_process(operation) for operation in (*then, *orelse))
        succeeded, revision = await self._commit(work, synced=synced)
        return TransactionResult(succeeded, revision)

    async def _commit(
        self, work: Callable[[], tuple[bool, list[Event]]], *, synced: bool = True
    ) -> tuple[bool, int]:
        """Run ``work`` inside a transaction in the worker; tell the watchers what changed."""

        def commit() -> tuple[bool, list[Event]]:
            connection = self._connection
            connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            try:
                connection.execute("BEGIN IMMEDIATE")
                outcome = work()
                connection.execute("COMMIT")
            except connection.Error as error:  # a full disk, a broken one: nothing was applied
                raise NotSent(f"the metadata store refused a change: {error}") from error
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            return outcome

        async with self._turn:
            if self._closed:
                raise StoreError("the metadata store is closed")
            # Offload does not abandon work that has begun: what is committed is also published.
            succeeded, events = await self._offload.run(commit)
            if events:
                self._history.append(Batch(self._history.revision + 1, events))
            return succeeded, self._history.revision

    def _holds(self, condition: Condition) -> bool:
        row = self._connection.execute(
            "SELECT create_revision, mod_revision, value FROM kv WHERE key = ?", (condition.key,)
        ).fetchone()
        if isinstance(condition, CreateRevision):
            return bool((row[0] if row else 0) == condition.revision)
        if isinstance(condition, ModRevision):
            return bool((row[1] if row else 0) == condition.revision)
        return bool(row and row[2] == condition.value)

    def _change(self, operations: Sequence[Operation]) -> list[Event]:
        revision = self._history.revision + 1
        events: list[Event] = []
        for operation in operations:
            if isinstance(operation, Put):
                events.append(self._put(operation, revision))
            elif isinstance(operation, Delete):
                cursor = self._connection.execute("DELETE FROM kv WHERE key = ?", (operation.key,))
                if cursor.rowcount:
                    events.append(Event(operation.key, None))
            else:
                events.extend(self._delete_prefix(operation))
        if events:
            self._connection.execute(
                "UPDATE counter SET value = ? WHERE name = 'revision'", (revision,)
            )
        return events

    def _put(self, put: Put, revision: int) -> Event:
        row = self._connection.execute(
            "INSERT INTO kv VALUES (?1, ?2, ?3, ?3, 1, ?4) ON CONFLICT (key) DO UPDATE SET "
            "value = ?2, mod_revision = ?3, version = version + 1, session = ?4 "
            "RETURNING create_revision, version",
            (put.key, put.value, revision, put.session_id),
        ).fetchone()
        return Event(put.key, Entry(put.key, put.value, row[0], revision, row[1]))

    def _delete_prefix(self, operation: DeletePrefix) -> list[Event]:
        where, bounds = _range(operation.prefix)
        rows = self._connection.execute(f"SELECT key FROM kv WHERE {where} ORDER BY key", bounds)
        events = [Event(row[0], None) for row in rows.fetchall()]
        self._connection.execute(f"DELETE FROM kv WHERE {where}", bounds)
        return events

    async def list(self, prefix: bytes, *, rev: int = 0) -> tuple[int, AsyncIterator[Entry]]:
        where, bounds = _range(prefix)

        def read() -> Sequence[Entry]:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM kv WHERE {where} ORDER BY key", bounds
            )
            return [Entry(*row) for row in rows]

        async with self._turn:
            if self._closed:
                raise StoreError("the metadata store is closed")
            revision = self._history.revision
            if rev not in (0, revision):
                raise Compacted(revision)
            return revision, Listing(await self._offload.run(read))

    def watch(self, prefix: bytes, from_rev: int) -> AsyncIterator[Batch]:
        return self._history.watch(prefix, from_rev)

    async def session(self, ttl: float) -> EmbeddedSession:
        """``ttl`` does not matter: the session lives as long as this process lets it."""
        self._last_session += 1
        return EmbeddedSession(self, self._last_session)

    async def end_session(self, session_id: int) -> None:
        def work() -> tuple[bool, list[Event]]:
            rows = self._connection.execute(
                "SELECT key FROM kv WHERE session = ? ORDER BY key", (session_id,)
            ).fetchall()
            return True, self._change([Delete(row[0]) for row in rows])

        await self._commit(work)

    async def close(self) -> None:
        async with self._turn:
            if not self._closed:
                self._closed = True
                await self._offload.run(self._connection.close)


def _open(path: str) -> tuple["sqlite3.Connection", int]:
    import sqlite3

    try:
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(f"cannot open the metadata store {path}: {error}") from error
    try:
        return connection, _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"cannot read the metadata store {path}: {error}") from error
    except BaseException:
        connection.close()
        raise


def _create(connection: "sqlite3.Connection") -> None:
    """Make the tables and take them to the disk once, where SQLite by itself does it twice.

    Nothing is promised before. After it the file is not empty: of an empty one SQLite, after a
    power failure, throws away the WAL, and with it what was committed since.
    """
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        f"BEGIN; {_SCHEMA} INSERT INTO counter VALUES ('revision', 0);"
        f"PRAGMA user_version = {_FORMAT}; COMMIT;"
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_checkpoint")


def _prepare(connection: "sqlite3.Connection", path: str) -> int:
    """Create the tables, drop the keys of dead sessions; returns the revision."""

    def one(statement: str, *parameters: Any) -> Any:
        return connection.execute(statement, parameters).fetchone()[0]

    found = one("PRAGMA user_version")
    if found > _FORMAT:
        raise StoreError(f"the metadata store {path} has format {found}, newer than {_FORMAT}")
    if found < _FORMAT:
        if one("SELECT count(*) FROM sqlite_master") and found == 0:
            raise StoreError(f"{path} is a SQLite file, but not a metadata store")
        _create(connection)
    one("PRAGMA journal_mode = WAL")
    revision = int(one("SELECT value FROM counter WHERE name = 'revision'"))
    if one("SELECT count(*) FROM kv WHERE session != 0"):
        # Nobody watches yet: the removal is one more revision that is not in the history.
        revision += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM kv WHERE session != 0")
        connection.execute("UPDATE counter SET value = ? WHERE name = 'revision'", (revision,))
        connection.execute("COMMIT")
    return revision
