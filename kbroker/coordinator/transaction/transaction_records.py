"""The records of ``__transaction_state``: TransactionLogKey and TransactionLogValue version 1.

Version 1 is what Kafka writes with ``transaction.version`` 1 and above; version 0 is read too.
"""

from collections.abc import Iterable
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from kbroker.coordinator.result import CoordinatorRecord
from kbroker.coordinator.shard import UnknownRecord
from kbroker.coordinator.transaction.transaction_metadata import (
    TopicPartition,
    TransactionMetadata,
    TransactionState,
)
from kbroker.protocol.internal_records.transaction_log_key import (
    TransactionLogKey,
    read_transaction_log_key,
    write_transaction_log_key,
)
from kbroker.protocol.internal_records.transaction_log_value import (
    PartitionsSchema,
    TransactionLogValue,
    read_transaction_log_value,
    write_transaction_log_value,
)
from kbroker.protocol.wire import DecodeError

TRANSACTION_LOG_VALUE_VERSION: Final = 1
_RECORD_TYPE: Final = 0
_INT16 = Struct(">h")


def transaction_record(metadata: TransactionMetadata) -> CoordinatorRecord:
    """The id's state. The value is the metadata itself, so that replay keeps what no log holds."""
    return CoordinatorRecord(
        TransactionLogKey(metadata.transactional_id), metadata, TRANSACTION_LOG_VALUE_VERSION
    )


def transaction_tombstone(transactional_id: str) -> CoordinatorRecord:
    """The id has expired."""
    return CoordinatorRecord(TransactionLogKey(transactional_id), None)


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partitions of each topic, in order."""
    topics: dict[str, list[int]] = {}
    for topic, index in sorted(partitions):
        topics.setdefault(topic, []).append(index)
    return topics


class TransactionRecordSerde:
    """``CoordinatorRecordSerde`` between TransactionMetadata and Kafka's bytes."""

    def serialize(self, record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
        """Key and value bytes."""
        parts: list[Any] = [_INT16.pack(_RECORD_TYPE)]
        write_transaction_log_key(parts, record.key, 0)
        key = b"".join(parts)
        if record.value is None:
            return key, None
        parts = [_INT16.pack(record.value_version)]
        write_transaction_log_value(parts, _to_value(record.value), record.value_version)
        return key, b"".join(parts)

    def deserialize(
        self, key: bytes | memoryview, value: bytes | memoryview | None
    ) -> tuple[TransactionLogKey, TransactionMetadata | None]:
        """TransactionLogKey and TransactionMetadata. UnknownRecord, DecodeError."""
        if len(key) < _INT16.size or (value is not None and len(value) < _INT16.size):
            raise DecodeError("a record of a transaction is cut short")
        (record_type,) = _INT16.unpack_from(key)
        if record_type != _RECORD_TYPE:
            raise UnknownRecord(f"record type {record_type} in __transaction_state")
        try:
            key_message, _ = read_transaction_log_key(key, _INT16.size, 0)
            if value is None:
                return key_message, None
            (version,) = _INT16.unpack_from(value)
            if not 0 <= version <= TRANSACTION_LOG_VALUE_VERSION:
                raise UnknownRecord(f"version {version} of TransactionLogValue")
            message, _ = read_transaction_log_value(value, _INT16.size, version)
            return key_message, _from_value(key_message.transactional_id, message)
        except (ValueError, IndexError, StructError) as error:
            raise DecodeError(f"an unreadable record of a transaction: {error}") from error


def _to_value(metadata: TransactionMetadata) -> TransactionLogValue:
    is_empty = metadata.state is TransactionState.EMPTY
    return TransactionLogValue(
        producer_id=metadata.producer_id,
        previous_producer_id=metadata.previous_producer_id,
        next_producer_id=metadata.next_producer_id,
        producer_epoch=metadata.producer_epoch,
        transaction_timeout_ms=metadata.timeout_ms,
        transaction_status=metadata.state,
        transaction_partitions=None
        if is_empty
        else [PartitionsSchema(t, indexes) for t, indexes in by_topic(metadata.partitions).items()],
        transaction_last_update_timestamp_ms=metadata.update_ms,
        transaction_start_timestamp_ms=metadata.start_ms,
        client_transaction_version=metadata.client_version,
    )


def _from_value(transactional_id: str, value: TransactionLogValue) -> TransactionMetadata:
    """ValueError for a state that does not exist."""
    return TransactionMetadata(
        transactional_id=transactional_id,
        producer_id=value.producer_id,
        producer_epoch=value.producer_epoch,
        previous_producer_id=value.previous_producer_id,
        next_producer_id=value.next_producer_id,
        timeout_ms=value.transaction_timeout_ms,
        state=TransactionState(value.transaction_status),
        partitions=frozenset(
            (entry.topic, index)
            for entry in value.transaction_partitions or ()
            for index in entry.partition_ids
        ),
        start_ms=value.transaction_start_timestamp_ms,
        update_ms=value.transaction_last_update_timestamp_ms,
        client_version=value.client_transaction_version,
    )
