"""The records of __transaction_state: Kafka's bytes, both versions of the value, bad input."""

import itertools
from typing import Any

import pytest

from kbroker.coordinator.shard import UnknownRecord
from kbroker.coordinator.transaction.transaction_metadata import (
    TransactionMetadata,
    TransactionState,
)
from kbroker.coordinator.transaction.transaction_records import (
    TransactionRecordSerde,
    by_topic,
    transaction_record,
    transaction_tombstone,
)
from kbroker.protocol.wire import DecodeError
from tests.unit import reference_codec

VALUE = reference_codec.load("TransactionLogValue")
KEY = reference_codec.load("TransactionLogKey")
SERDE = TransactionRecordSerde()

OPEN = TransactionMetadata(
    transactional_id="tx",
    producer_id=77,
    producer_epoch=5,
    timeout_ms=60_000,
    previous_producer_id=76,
    next_producer_id=78,
    state=TransactionState.ONGOING,
    partitions=frozenset({("b", 2), ("a", 1), ("a", 0)}),
    start_ms=1_700_000_000_000,
    update_ms=1_700_000_000_500,
    client_version=2,
)


def stored(version: int, **changes: Any) -> bytes:
    """A value as another broker has written it."""
    fields = reference_codec.default_struct(VALUE, VALUE["fields"], version) | {
        "ProducerId": 77,
        "ProducerEpoch": 5,
        "TransactionTimeoutMs": 60_000,
        "TransactionStatus": 1,
        "TransactionPartitions": [
            {"Topic": "a", "PartitionIds": [0, 1]},
            {"Topic": "b", "PartitionIds": [2]},
        ],
        "TransactionLastUpdateTimestampMs": 1_700_000_000_500,
        "TransactionStartTimestampMs": 1_700_000_000_000,
        **changes,
    }
    return version.to_bytes(2, "big") + reference_codec.encode(VALUE, version, fields)


def key(name: str = "tx") -> bytes:
    return bytes(2) + reference_codec.encode(KEY, 0, {"TransactionalId": name})


def test_the_bytes_are_kafkas() -> None:
    tags = {"PreviousProducerId": 76, "NextProducerId": 78, "ClientTransactionVersion": 2}
    assert SERDE.serialize(transaction_record(OPEN)) == (key(), stored(1, **tags))
    assert SERDE.serialize(transaction_tombstone("tx")) == (key(), None)


def test_an_empty_transaction_has_no_list_of_partitions() -> None:
    """Null, where one that has ended has an empty list."""
    for state, partitions in (
        (TransactionState.EMPTY, None),
        (TransactionState.COMPLETE_ABORT, []),
    ):
        metadata = OPEN._replace(state=state, partitions=frozenset())
        _, value = SERDE.serialize(transaction_record(metadata))
        assert value is not None
        decoded, _ = reference_codec.decode(VALUE, 1, value[2:])
        assert decoded["TransactionPartitions"] == partitions


@pytest.mark.parametrize(("state", "version"), list(itertools.product(TransactionState, (0, 1, 2))))
def test_what_is_written_is_read(state: TransactionState, version: int) -> None:
    partitions = frozenset() if state is TransactionState.EMPTY else OPEN.partitions
    metadata = OPEN._replace(state=state, partitions=partitions, client_version=version)
    written_key, written = SERDE.serialize(transaction_record(metadata))
    read_key, read = SERDE.deserialize(written_key, written)
    assert read_key.transactional_id == "tx"
    assert read == metadata


def test_what_older_brokers_wrote_is_read() -> None:
    """Version 0 knows nothing of other producer ids and of levels."""
    _, read = SERDE.deserialize(key(), stored(0))
    assert read == OPEN._replace(previous_producer_id=-1, next_producer_id=-1, client_version=0)


def test_tags_that_nobody_knows_are_passed_over() -> None:
    """NextProducerEpoch is not used yet (KIP-939); tag 9 is of the future."""
    value = stored(1, NextProducerEpoch=3, _tags=[(9, b"x")])
    _, read = SERDE.deserialize(key(), value)
    assert read is not None
    assert read.producer_id == 77


@pytest.mark.parametrize(
    ("bad_key", "bad_value", "error"),
    [
        (b"\x00\x01tx", stored(1), UnknownRecord),
        (key(), b"\x00\x02", UnknownRecord),
        (key(), b"\xff\xff", UnknownRecord),
        (b"\x00", stored(1), DecodeError),
        (key()[:3], stored(1), DecodeError),
        (key(), b"\x00", DecodeError),
        (key(), stored(1)[:20], DecodeError),
        (key(), stored(1, TransactionStatus=8), DecodeError),
        (key(), stored(0, TransactionStatus=-1), DecodeError),
    ],
)
def test_what_cannot_be_read(bad_key: bytes, bad_value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        SERDE.deserialize(bad_key, bad_value)


def test_partitions_are_grouped_in_order() -> None:
    assert by_topic(OPEN.partitions) == {"a": [0, 1], "b": [2]}
