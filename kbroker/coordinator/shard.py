"""What a replicated state machine is to the runtime, and how its records are encoded."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.result import CoordinatorRecord

S = TypeVar("S", contravariant=True)
R = TypeVar("R", covariant=True)


class CoordinatorShard(Protocol):
    """The state of one partition. Its methods are plain functions on the event loop."""

    def replay(self, record_offset: int, producer_id: int, key: Any, value: Any | None) -> None:
        """Apply a record that is in the log. ``producer_id`` is -1 outside transactions."""
        ...

    def replay_end_transaction_marker(self, producer_id: int, *, commit: bool) -> None:
        """Apply a COMMIT or ABORT marker."""
        ...

    def on_loaded(self) -> None:
        """The log has been replayed and the shard takes requests now: start the timers."""
        ...

    def on_unloaded(self) -> None:
        """The partition has another leader: answer everybody who waits."""
        ...


EncodedRecord = tuple[bytes, tuple[int, bytes | None]]
"""Key, (offset, value)."""


class EncodedReplay(Protocol):
    """A short way for records that a log is full of, used while it is loaded."""

    def replay(self, records: Iterator[EncodedRecord]) -> EncodedRecord | None:
        """Apply records outside transactions up to an unusual one, which is given back; else None.

        That one takes the general way through ``CoordinatorRecordSerde`` and the shard.
        """
        ...

    def forget(self) -> None:
        """Other records were replayed in between: nothing that was remembered may be relied on."""
        ...


class EncodedStep(Protocol[S, R]):
    """A step of a shard whose records are a batch already, uncompressed, in no transaction."""

    @property
    def record_count(self) -> int:
        """Of the batch."""
        ...

    @property
    def response(self) -> R:
        """What is released when the records are committed."""
        ...

    def encode(self, shard: S) -> bytearray:
        """The batch; called once. Raises KafkaError, and has changed no offset or group then."""
        ...

    def replay(self, shard: S, first_offset: int) -> None:
        """Apply the records, which are in the log from ``first_offset`` on."""
        ...


ShardFactory = Callable[[int, CoordinatorTimer], Any]
"""(partition, its timer) -> a fresh shard."""


class UnknownRecord(Exception):
    """A record of a type or version that this release does not know; loaders skip it."""


class CoordinatorRecordSerde(Protocol):
    """Messages to the bytes of a record and back (record type and version are part of both)."""

    def serialize(self, record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
        """Key and value bytes; a value of None is a tombstone."""
        ...

    def deserialize(
        self, key: "bytes | memoryview", value: "bytes | memoryview | None"
    ) -> tuple[Any, Any | None]:
        """Key and value messages. Raises UnknownRecord, or DecodeError for damaged ones."""
        ...
