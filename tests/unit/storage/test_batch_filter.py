"""Batches without some of their records."""

import pytest

from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import (
    LOG_APPEND_TIME_BIT,
    RecordBatchHeader,
    build_batch,
    patch_timestamps,
    verify_crc,
)
from kbroker.record.record import Record, iter_records
from kbroker.storage.batch_filter import BatchRetention, FilteredBatch, filter_batch
from tests.unit.storage.log_fixture import batch

HORIZON = 5_000_000


def filtered(
    data: bytearray,
    *offsets: int,
    retention: BatchRetention = BatchRetention.DELETE_EMPTY,
    marker: bool = False,
) -> FilteredBatch | None:
    return filter_batch(
        memoryview(data),
        retention=retention,
        keep=lambda record: record.offset in offsets,
        has_marker_of_empty_transaction=marker,
        delete_horizon_ms=HORIZON,
    )


def three(compression: int = 0) -> bytearray:
    return batch(
        b"a", b"b", b"c",
        keys=[b"x", b"y", b"z"],
        timestamps=[100, 300, 200],
        producer_id=7,
        producer_epoch=2,
        base_sequence=40,
        base_offset=10,
        leader_epoch=4,
        compression=compression,
    )  # fmt: skip


@pytest.mark.parametrize("compression", [0, 1, 3])
def test_what_stays_keeps_its_place(compression: int) -> None:
    found = filtered(three(compression), 10, 12)
    assert found is not None
    header = RecordBatchHeader(found.data)
    assert verify_crc(bytearray(found.data), 0, len(found.data))
    assert (header.base_offset, header.last_offset, header.record_count) == (10, 12, 2)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 2, 40)
    assert (header.leader_epoch, header.codec, header.last_sequence) == (4, compression, 42)
    assert (found.max_timestamp, found.last_offset) == (200, 12)
    records = list(iter_records(found.data))
    assert [(each.offset, each.key, each.value, each.timestamp) for each in records] == [
        (10, b"x", b"a", 100),
        (12, b"z", b"c", 200),
    ]


def test_what_needs_no_change_is_not_copied() -> None:
    data = three()
    found = filtered(data, 10, 11, 12)
    assert found is not None
    assert isinstance(found.data, memoryview) and found.data.obj is data


def test_a_batch_without_records_goes_or_stays_as_its_header() -> None:
    assert filtered(three()) is None
    assert filtered(three(), 10, retention=BatchRetention.DELETE) is None
    found = filtered(three(1), retention=BatchRetention.RETAIN_EMPTY)
    assert found is not None
    header = RecordBatchHeader(found.data)
    assert len(found.data) == header.size == 61
    assert verify_crc(bytearray(found.data), 0, 61)
    assert (header.base_offset, header.last_offset, header.record_count) == (10, 12, 0)
    assert (header.base_timestamp, header.max_timestamp, header.codec) == (-1, 300, 0)
    assert (header.base_sequence, header.last_sequence) == (40, 42)


def test_a_tombstone_is_given_a_horizon_once() -> None:
    data = build_batch([Record(key=b"k", value=None, timestamp=100), Record(key=b"l", value=b"v")])
    found = filtered(data, 0, 1)
    assert found is not None
    header = RecordBatchHeader(found.data)
    assert header.delete_horizon_ms == HORIZON
    assert [each.timestamp for each in iter_records(found.data)] == [100, -1]
    assert found.max_timestamp == 100
    again = filtered(bytearray(found.data), 0, 1)
    assert again is not None and bytes(again.data) == bytes(found.data)
    smaller = filtered(bytearray(found.data), 0)
    assert smaller is not None
    assert RecordBatchHeader(smaller.data).delete_horizon_ms == HORIZON


def test_the_marker_of_an_empty_transaction_is_given_a_horizon() -> None:
    found = filtered(batch(b"v", keys=[b"k"]), 0, marker=True)
    assert found is not None
    assert RecordBatchHeader(found.data).delete_horizon_ms == HORIZON


def test_log_append_time_stays() -> None:
    data = batch(b"a", b"b", keys=[b"x", b"y"], timestamps=[1, 2])
    patch_timestamps(data, 0, len(data), attributes=LOG_APPEND_TIME_BIT, max_timestamp=900)
    found = filtered(data, 1)
    assert found is not None
    assert found.max_timestamp == 900
    assert [each.timestamp for each in iter_records(found.data)] == [900]


def test_an_unreadable_batch_is_an_error() -> None:
    data = three()
    data[61] = 0xFF
    with pytest.raises(KafkaError):
        filtered(data, 10)
