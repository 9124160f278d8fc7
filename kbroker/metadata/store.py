"""The store of cluster metadata: etcd's model and nothing more.

Keys and values are bytes. Every transaction that changes something makes one new *revision* of the
whole store, a number that only grows. Four verbs: ``txn`` (compare several keys, then change
several, all or nothing), ``list`` (one prefix at one revision), ``watch`` (every later change, in
order, whole revisions) and ``session`` (keys that vanish with their owner). The same contract tests
run against every implementation.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from kbroker.common.named_tuple import NamedTuple


class Entry(NamedTuple):
    """A key as it is: with the revisions that made it and changed it last."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int  # 1 when created, one more with each put


class CreateRevision(NamedTuple):
    """Condition: the key was created at this revision; 0 means it is absent."""

    key: bytes
    revision: int


class ModRevision(NamedTuple):
    """Condition: the key was changed last at this revision; 0 means it is absent."""

    key: bytes
    revision: int


class ValueIs(NamedTuple):
    """Condition: the key exists and has exactly this value."""

    key: bytes
    value: bytes


def absent(key: bytes) -> CreateRevision:
    """Condition: there is no such key."""
    return CreateRevision(key, 0)


Condition = CreateRevision | ModRevision | ValueIs


class Put(NamedTuple):
    """Set a key; with a session's id the key vanishes when that session ends."""

    key: bytes
    value: bytes
    session_id: int = 0


class Delete(NamedTuple):
    """Remove a key; nothing happens when it is absent."""

    key: bytes


class DeletePrefix(NamedTuple):
    """Remove every key that begins so."""

    prefix: bytes


Operation = Put | Delete | DeletePrefix


class TransactionResult(NamedTuple):
    """``succeeded``: all conditions held. ``revision``: the store's revision afterwards."""

    succeeded: bool
    revision: int


class Event(NamedTuple):
    """One key's change: the new entry, or None when it was removed."""

    key: bytes
    entry: Entry | None


class Batch(NamedTuple):
    """All changes of one revision under the watched prefix, in the order they were made."""

    revision: int
    events: Sequence[Event]


class StoreError(Exception):
    """Something is wrong between us and the store."""


class Ambiguous(StoreError):
    """The transaction may have been applied or not: read again before deciding."""


class NotSent(StoreError):
    """The transaction was certainly not applied."""


class Compacted(StoreError):
    """The asked revision is gone; list again. ``revision`` is the oldest that is still there."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"changes before revision {revision} are no longer kept")
        self.revision = revision


class Session(Protocol):
    """The life of one owner. Keys put with its id vanish when it ends."""

    @property
    def id(self) -> int:
        """Never 0."""
        ...

    @property
    def deadline(self) -> float:
        """Until when (monotonic seconds) it lives without a further sign of life."""
        ...

    def valid(self) -> bool:
        """Whether the owner may still act."""
        ...

    async def wait_lost(self) -> None:
        """Returns when the session has ended, however it did."""
        ...

    async def close(self) -> None:
        """End it and remove its keys at once. Harmless when it has ended."""
        ...


class MetadataStore(Protocol):
    """What every store offers. Any number of tasks may call it at once."""

    @property
    def max_operations(self) -> int:
        """How many operations, and how many conditions, one transaction may have."""
        ...

    async def txn(
        self,
        when: Sequence[Condition],
        then: Sequence[Operation],
        orelse: Sequence[Operation] = (),
    ) -> TransactionResult:
        """If every condition holds do ``then``, otherwise ``orelse``: all of it at one revision.

        A key may be changed once in a transaction. May raise Ambiguous or NotSent.
        """
        ...

    async def list(self, prefix: bytes, *, rev: int = 0) -> tuple[int, AsyncIterator[Entry]]:
        """(revision, entries in key order) as they are at ``rev``, or now when it is 0.

        Raises Compacted when that revision cannot be read any more.
        """
        ...

    def watch(self, prefix: bytes, from_rev: int) -> AsyncIterator[Batch]:
        """Changes from revision ``from_rev`` (included) on, for ever. May raise Compacted."""
        ...

    async def session(self, ttl: float) -> Session:
        """A new session that lives ``ttl`` seconds after its owner's last sign of life."""
        ...

    async def close(self) -> None:
        """Give back what the store holds. Sessions end only with ``Session.close``."""
        ...


MAX_WATCH_HISTORY: Final = 10_000  # revisions an embedded store keeps for watchers that lag


def check_operations(operations: Sequence[Operation]) -> None:
    """Raises ValueError when a key is changed twice, which etcd refuses too."""
    seen: set[bytes] = set()
    prefixes: list[bytes] = []
    for operation in operations:
        if isinstance(operation, DeletePrefix):
            prefixes.append(operation.prefix)
            continue
        if operation.key in seen:
            raise ValueError(f"key {operation.key!r} is changed twice in one transaction")
        seen.add(operation.key)
    for prefix in prefixes:
        if any(key.startswith(prefix) for key in seen):
            raise ValueError(f"a key under {prefix!r} is changed twice in one transaction")
